"""An encoder and a decoder joined by cross-attention, and what training them needs (chapter 11).

The architecture is that of Vaswani et al. (2017), with one vocabulary for both sides and one matrix
for the three places where tokens become vectors or scores (their section 3.4). Norms come first by
default, as chapter 6 recommends; `norm_first=False` gives the paper's order. Either way a last norm
closes each of the two stacks, as in `torch.nn.Transformer`, to which `to_torch` copies the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    as_ids,
    as_list,
    as_number,
    as_whole_number,
    check_choice,
    check_features,
    check_ids,
    check_ids_range,
    check_ids_shape,
    check_rows,
    check_sizes,
    check_tensor,
    check_type,
)
from utils.batches import IGNORE
from utils.cache import KVCache
from utils.layers import ACTIVATIONS, LayerNorm, TransformerBlock
from utils.layers_numpy import merge_heads, split_heads
from utils.positions import torch_sinusoidal
from utils.tokenizers import pad_batch


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The sizes of an encoder-decoder, and its three special tokens.

    Parameters
    ----------
    vocab_size : int
        V, shared by source and target.
    num_layers, num_heads, d_model : int
        L blocks in each of the two stacks, H and C.
    d_hidden : int, optional
        The width inside the feed-forward networks, by default 4 C.
    dropout : float
    norm_first : bool
        Norms before the sublayers, or after them as in the paper.
    activation : str
        As for `utils.layers.FeedForward`; the paper has "relu".
    max_length : int
        The longest source or target.
    pad_id, start_id, stop_id : int
        What fills up a batch, what a target starts from, and what ends it.

    Raises
    ------
    ValueError
        If a size is below 1, the width is odd, or a special token is not in the vocabulary.
    """

    vocab_size: int
    num_layers: int = 2
    num_heads: int = 4
    d_model: int = 128
    d_hidden: int | None = None
    dropout: float = 0.0
    norm_first: bool = True
    activation: str = "relu"
    max_length: int = 128
    pad_id: int = 0
    start_id: int = 1
    stop_id: int = 2

    def __post_init__(self) -> None:
        check_sizes(self, ("vocab_size", "num_layers", "num_heads", "d_model", "max_length"))
        if self.d_model % 2:
            raise ValueError(f"sinusoids come in pairs: d_model must be even, not {self.d_model}")
        if self.d_hidden is not None:
            check_sizes(self, ("d_hidden",))
        as_number("dropout", self.dropout, 0, 1)
        check_choice("activation", self.activation, ACTIVATIONS)
        special = (self.pad_id, self.start_id, self.stop_id)
        for name, token in zip(("pad_id", "start_id", "stop_id"), special, strict=True):
            as_whole_number(name, token)
        if len(set(special)) < 3 or not all(0 <= i < self.vocab_size for i in special):
            raise ValueError(
                f"pad_id, start_id and stop_id must be three different ids from 0 to "
                f"{self.vocab_size - 1}, not {special}"
            )


class Seq2Seq(nn.Module):
    """A Transformer that turns one sequence into another.

    Parameters
    ----------
    config : Seq2SeqConfig
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        check_type("config", config, Seq2SeqConfig)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        sizes = (config.d_model, config.num_heads, config.d_hidden)
        options = {
            "dropout": config.dropout,
            "norm_first": config.norm_first,
            "activation": config.activation,
        }
        self.encoder = nn.ModuleList(
            TransformerBlock(*sizes, **options) for _ in range(config.num_layers)
        )
        self.decoder = nn.ModuleList(
            TransformerBlock(*sizes, cross_attention=True, **options)
            for _ in range(config.num_layers)
        )
        self.encoder_norm = LayerNorm(config.d_model)
        self.decoder_norm = LayerNorm(config.d_model)
        table = torch_sinusoidal(config.max_length, config.d_model)
        self.register_buffer("positions", table.float(), persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        # Embeddings have variance 1 / C, so that times sqrt(C) they are as large as the sinusoids
        # and, as output matrix, give logits of spread 1.
        self.token_embedding.weight.normal_(std=self.config.d_model**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                module.bias.zero_()

    def embed(self, ids: Tensor, offset: int = 0) -> Tensor:
        """Return sqrt(C) times the embeddings, plus sinusoids: (B, T) -> (B, T, C).

        `offset` is the position of the first token.
        """
        check_ids(ids, self.token_embedding.weight)
        return self._embed(ids, as_whole_number("offset", offset))

    def _embed(self, ids: Tensor, offset: int = 0) -> Tensor:
        end = offset + ids.shape[1]
        if end > self.config.max_length:
            raise ValueError(
                f"a sequence of {end} tokens is longer than max_length={self.config.max_length}: "
                "shorten it, or make the model with a larger max_length"
            )
        scaled = self.token_embedding(ids) * math.sqrt(self.config.d_model)
        return self.dropout(scaled + self.positions[offset:end])

    def source_mask(self, source: Tensor) -> Tensor:
        """Say which source tokens may be attended to: (B, T_s) -> (B, 1, T_s), True if real."""
        check_ids_shape(source, "source")
        return (source != self.config.pad_id)[:, None, :]

    def encode(self, source: Tensor) -> Tensor:
        """Return the memory, one vector for each source token: (B, T_s) -> (B, T_s, C)."""
        check_ids(source, self.token_embedding.weight, "source")
        x = self._embed(source)
        mask = self.source_mask(source)
        for block in self.encoder:
            x = block(x, mask)
        return self.encoder_norm(x)

    def decode(self, target_in: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Return the logits of the token after each given target token.

        Parameters
        ----------
        target_in : torch.Tensor of int, shape (B, T_t)
            Starting with `start_id`. Padding comes last, where the causal mask hides it.
        memory : torch.Tensor, shape (B, T_s, C)
        memory_mask : torch.Tensor of bool, shape (B, 1, T_s)

        Returns
        -------
        torch.Tensor, shape (B, T_t, V)
        """
        check_ids(target_in, self.token_embedding.weight, "target_in")
        check_features("memory", memory, self.encoder_norm.weight, axes=3)
        check_tensor("memory_mask", memory_mask, "(B, 1, T_s)", "bool")
        x = self._embed(target_in)
        for block in self.decoder:
            x = block(x, is_causal=True, context=memory, context_mask=memory_mask)
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """Return the scores of all tokens from the decoder's stream: (..., C) -> (..., V)."""
        return F.linear(self.decoder_norm(x), self.token_embedding.weight)

    def forward(self, source: Tensor, target_in: Tensor) -> Tensor:
        """Return logits (B, T_t, V) for source (B, T_s) and target inputs (B, T_t)."""
        check_ids_shape(source, "source")
        check_ids_shape(target_in, "target_in")
        if len(source) != len(target_in):
            raise ValueError(
                f"{len(source)} sources but {len(target_in)} targets: each source needs one"
            )
        return self.decode(target_in, self.encode(source), self.source_mask(source))

    @torch.no_grad()
    def cross_attention_weights(self, source: Tensor, target_in: Tensor) -> Tensor:
        """Return how much each target position looks at each source token, layer by layer.

        Returns
        -------
        torch.Tensor, shape (L, B, H, T_t, T_s)
            Each row sums to 1.
        """
        memory, mask = self.encode(source), self.source_mask(source)
        check_ids(target_in, self.token_embedding.weight, "target_in")
        weights = []

        def look(module: nn.Module, args: tuple, kwargs: dict) -> None:
            weights.append(module(args[0], memory, mask, return_weights=True)[1])

        hooks = [
            block.cross_attention.register_forward_pre_hook(_once(look), with_kwargs=True)
            for block in self.decoder
        ]
        try:
            self.decode(target_in, memory, mask)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(weights)

    @torch.no_grad()
    def start_decoding(self, source: Tensor, max_length: int | None = None) -> CachedDecoder:
        """Return a decoder for `utils.beam` that has read these sources, (B, T_s).

        It has room for `max_length` target tokens, by default as many as the model can read.
        """
        return CachedDecoder(
            self, source, self.config.max_length if max_length is None else max_length
        )


def _once(hook: Callable) -> Callable:
    """Keep a hook that calls its own module from calling itself."""
    busy = False

    def guarded(*args: object) -> None:
        nonlocal busy
        if not busy:
            busy = True
            try:
                hook(*args)
            finally:
                busy = False

    return guarded


class CachedDecoder:
    """Decode token by token, keeping what does not change: see `utils.beam`.

    Of the memory, keys and values are computed once; of the target, each token's once (chapter 10).

    Parameters
    ----------
    model : Seq2Seq
        In evaluation mode and with its norms first; use `utils.beam.PrefixDecoder` otherwise.
    source : torch.Tensor of int, shape (B, T_s)
    max_length : int
        How many target tokens there is room for.
    """

    def __init__(self, model: Seq2Seq, source: Tensor, max_length: int) -> None:
        check_type("model", model, Seq2Seq)
        as_whole_number("max_length", max_length, 1)
        if not model.config.norm_first:
            raise ValueError("the cached decoder needs a model with norm_first=True")
        self.model = model
        self.mask = model.source_mask(source)[:, None]  # (B, 1, 1, T_s)
        memory = model.encode(source)
        self.memory = KVCache(model.config.num_layers, source.shape[1])
        self.cache = KVCache(model.config.num_layers, max_length)
        for layer, block in enumerate(model.decoder):
            self.memory.update(layer, *_keys_and_values(block.cross_attention, memory))

    def __call__(self, tokens: Tensor) -> Tensor:
        """Append one token to each sequence, (N,); return the next one's logits, (N, V)."""
        check_tensor("tokens", tokens, f"({len(self.mask)},)", "int", like=self.mask)
        check_ids_range(tokens, self.model.config.vocab_size, "tokens")
        x = self.model.embed(tokens[:, None], offset=self.cache.length)  # (N, 1, C)
        for layer, block in enumerate(self.model.decoder):
            normed = block.attention_norm(x)
            new = _keys_and_values(block.attention, normed)
            keys, values = self.cache.update(layer, *new)
            x = x + _attend(block.attention, normed, keys, values)
            normed = block.cross_attention_norm(x)
            keys, values = self.memory.keys[layer], self.memory.values[layer]
            x = x + _attend(block.cross_attention, normed, keys, values, self.mask)
            x = x + block.feed_forward(block.feed_forward_norm(x))
        return self.model.logits(x[:, 0])

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order."""
        check_rows("rows", rows, len(self.mask))
        self.cache.select(rows)
        self.memory.select(rows)
        self.mask = self.mask[rows]


def _keys_and_values(attention: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    keys = split_heads(attention.key_proj(x), attention.num_heads)  # (N, H, T, D)
    return keys, split_heads(attention.value_proj(x), attention.num_heads)


def _attend(
    attention: nn.Module, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Let one new token per sequence look at keys and values that are already there."""
    queries = split_heads(attention.query_proj(x), attention.num_heads)  # (N, H, 1, D)
    heads = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attention.output_proj(merge_heads(heads))


def collate_pairs(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], config: Seq2SeqConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Make a batch for teacher forcing: the decoder reads the right target, one place late.

    Parameters
    ----------
    pairs : sequence of (source ids, target ids)
        Targets without start and stop tokens.
    config : Seq2SeqConfig

    Returns
    -------
    source : torch.Tensor, shape (B, T_s)
    target_in : torch.Tensor, shape (B, T_t)
        `start_id`, then the target.
    target_out : torch.Tensor, shape (B, T_t)
        The target, then `stop_id`; -100 where there is padding.

    Raises
    ------
    TypeError, ValueError
        If there are no pairs, or they do not hold whole numbers.
    """
    check_type("config", config, Seq2SeqConfig)
    pairs = as_list("pairs", pairs, tuple, list, least=1)
    for place, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ValueError(f"pairs[{place}] must be a source and a target, not {pair!r}")
        as_ids(f"pairs[{place}]", pair[0])
        as_ids(f"pairs[{place}]", pair[1])
    sources = [source for source, _ in pairs]
    source, _ = pad_batch(sources, config.pad_id)
    target_in, _ = pad_batch([[config.start_id, *target] for _, target in pairs], config.pad_id)
    target_out, _ = pad_batch([[*target, config.stop_id] for _, target in pairs], IGNORE)
    return tuple(torch.from_numpy(np.asarray(ids)) for ids in (source, target_in, target_out))


def label_smoothed_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy with softened targets (Szegedy et al. 2016, section 7).

    The target distribution gives 1 - ε to the right class and spreads ε evenly over all V classes,
    the right one included, so that the loss is (1 - ε) times the ordinary one plus ε times the mean
    of -log p over the classes.

    Parameters
    ----------
    logits : torch.Tensor, shape (..., V)
    targets : torch.Tensor of int, shape (...)
        -100 does not count.
    smoothing : float
        ε, from 0 (ordinary cross-entropy) to 1.

    Returns
    -------
    torch.Tensor, shape ()
        In nats per counted target.

    Raises
    ------
    ValueError
        If ε is no probability, the shapes do not fit, or no target counts.
    """
    smoothing = as_number("smoothing", smoothing, 0, 1)
    check_tensor("logits", logits, "(..., V)", values=True)
    check_tensor("targets", targets, kind="int", like=logits)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, not {tuple(targets.shape)}"
        )
    counted = targets != IGNORE
    if not counted.any():
        raise ValueError("no target counts: all of the targets are -100")
    check_ids_range(targets[counted], logits.shape[-1], "targets")
    log_probs = logits[counted].float().log_softmax(dim=-1)  # (N, V)
    right = log_probs.gather(-1, targets[counted][:, None])[:, 0]
    return -((1 - smoothing) * right + smoothing * log_probs.mean(dim=-1)).mean()


def smoothed_loss_function(smoothing: float) -> Callable[[nn.Module, Sequence[Tensor]], Tensor]:
    """Return a `loss_function` for `utils.train.train` with label smoothing."""
    as_number("smoothing", smoothing, 0, 1)

    def loss_function(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        *inputs, targets = batch
        return label_smoothed_loss(model(*inputs), targets, smoothing)

    return loss_function


@torch.no_grad()
def to_torch(model: Seq2Seq) -> nn.Transformer:
    """Return a `torch.nn.Transformer` with copies of the weights of both stacks.

    It takes what `embed` returns, and returns what `logits` takes without `decoder_norm`, which
    it applies itself.
    """
    check_type("model", model, Seq2Seq)
    config = model.config
    sizes = (config.d_model, config.num_heads)
    options = {
        "dim_feedforward": config.d_hidden or 4 * config.d_model,
        "dropout": config.dropout,
        "activation": config.activation,
        "batch_first": True,
        "norm_first": config.norm_first,
    }
    # Made by hand, because the one that nn.Transformer makes warns about a shortcut for padding.
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(*sizes, **options),
        config.num_layers,
        nn.LayerNorm(config.d_model),
        enable_nested_tensor=False,
    )
    theirs = nn.Transformer(
        *sizes, num_decoder_layers=config.num_layers, custom_encoder=encoder, **options
    ).to(model.token_embedding.weight)
    layers = [*theirs.encoder.layers, *theirs.decoder.layers]
    for block, layer in zip([*model.encoder, *model.decoder], layers, strict=True):
        attentions = [(block.attention, layer.self_attn)]
        norms = [block.attention_norm, block.feed_forward_norm]
        if block.cross_attention is not None:
            attentions.append((block.cross_attention, layer.multihead_attn))
            norms.insert(1, block.cross_attention_norm)
        for mine, their in attentions:
            parts = [mine.query_proj, mine.key_proj, mine.value_proj]
            their.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            their.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            their.out_proj.load_state_dict(mine.output_proj.state_dict())
        layer.linear1.load_state_dict(block.feed_forward.up_proj.state_dict())
        layer.linear2.load_state_dict(block.feed_forward.down_proj.state_dict())
        for number, norm in enumerate(norms, start=1):
            getattr(layer, f"norm{number}").load_state_dict(norm.state_dict())
    theirs.encoder.norm.load_state_dict(model.encoder_norm.state_dict())
    theirs.decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    return theirs.train(model.training)
