"""A GPT: embeddings, causal Transformer blocks, and next-token logits; chapter 10 derives it.

The architecture is GPT-2's (Radford et al. 2019, section 2.3): learned positions, norms in front of
the sublayers and one after the last block, GELU in its tanh form, and one matrix that both embeds
tokens and scores them. `to_transformers` and `from_transformers` move weights between this class
and `transformers.GPT2LMHeadModel`, so that a released GPT-2 runs here:

    from utils import checkpoints, gpt
    model = gpt.from_transformers(checkpoints.load_decoder("gpt2")[0])  # needs the model hub
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    as_eps,
    as_number,
    check_features,
    check_ids,
    check_sizes,
    check_text,
    check_type,
    shown,
)
from utils.attention import causal_mask
from utils.cache import KVCache
from utils.layers import FeedForward, LayerNorm, MultiHeadAttention, TransformerBlock
from utils.layers_numpy import merge_heads, split_heads

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

INIT_STD = 0.02


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT; the defaults are small enough for a laptop.

    Parameters
    ----------
    vocab_size : int
        V.
    context_length : int
        The longest sequence it can read: there are so many learned positions.
    num_layers, num_heads, d_model : int
        L, H and C. A block's feed-forward network is 4 C wide.
    dropout : float
        For the embeddings, the attention weights, and what each sublayer adds.
    bias : bool
        Whether linear layers and norms have biases, as GPT-2's do.
    norm_eps : float

    Raises
    ------
    ValueError
        If a size is below 1. (What `num_heads` must divide, the layers check.)
    """

    vocab_size: int
    context_length: int = 64
    num_layers: int = 4
    num_heads: int = 4
    d_model: int = 128
    dropout: float = 0.0
    bias: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(self, ("vocab_size", "context_length", "num_layers", "num_heads", "d_model"))
        as_number("dropout", self.dropout, 0, 1)
        as_eps("norm_eps", self.norm_eps)


class GPT(nn.Module):
    """A decoder-only Transformer: ids in, logits of each next token out.

    New weights are drawn as GPT-2's were: normal with standard deviation 0.02, divided by
    sqrt(2 L) for the two matrices of each block that write to the residual stream (Radford et al.
    2019, section 2.3), and biases 0.

    Parameters
    ----------
    config : GPTConfig
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        check_type("config", config, GPTConfig)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.d_model,
                config.num_heads,
                dropout=config.dropout,
                activation="gelu_tanh",
                bias=config.bias,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.num_layers)
        )
        self.final_norm = LayerNorm(config.d_model, config.norm_eps, config.bias)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        for module in self.modules():
            writes = {MultiHeadAttention: "output_proj", FeedForward: "down_proj"}.get(type(module))
            if writes:
                getattr(module, writes).weight.div_(math.sqrt(2 * self.config.num_layers))

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the logits of the token after each given one.

        Parameters
        ----------
        ids : torch.Tensor of int, shape (B, T)
        cache : KVCache, optional
            What earlier calls have read. The ids continue it, and are added to it.

        Returns
        -------
        torch.Tensor, shape (B, T, V)
            At position t: of the token at t + 1, given those up to t.

        Raises
        ------
        ValueError
            If `ids` is not (B, T), holds an id that is not in the vocabulary, or is, with the
            cache, longer than the context.
        """
        if cache is not None:
            check_type("cache", cache, KVCache)
        start = 0 if cache is None else cache.length
        self._check(ids, start)
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # (T,)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (B, T, C)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, is_causal=True)
            else:
                x = block_with_cache(block, x, cache, layer)
        return F.linear(self.final_norm(x), self.token_embedding.weight)  # (B, T, V)

    def _check(self, ids: Tensor, start: int) -> None:
        check_ids(ids, self.token_embedding.weight)
        if start + ids.shape[1] > self.config.context_length:
            before = f" after {start} in the cache" if start else ""
            raise ValueError(
                f"{ids.shape[1]} tokens{before} do not fit into a context of "
                f"{self.config.context_length}: pass the last ones only, or make a model with a "
                "larger context_length"
            )


def block_with_cache(block: TransformerBlock, x: Tensor, cache: KVCache, layer: int) -> Tensor:
    """Compute what a causal block makes of new tokens, given the cached keys and values.

    Parameters
    ----------
    block : TransformerBlock
        With its norms first.
    x : torch.Tensor, shape (B, T_new, C)
        The stream of the new tokens only.
    cache : KVCache
    layer : int
        The block's place in the cache.

    Returns
    -------
    torch.Tensor, shape (B, T_new, C)

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or the block has its norms last.
    """
    check_type("block", block, TransformerBlock)
    check_type("cache", cache, KVCache)
    check_features("x", x, block.attention.query_proj, axes=3)
    if not block.norm_first:
        raise ValueError("block has its norms last: a cached block needs norm_first=True")
    attention = block.attention
    normed = block.attention_norm(x)
    queries, keys, values = (
        split_heads(project(normed), attention.num_heads)  # (B, H, T_new, D)
        for project in (attention.query_proj, attention.key_proj, attention.value_proj)
    )
    keys, values = cache.update(layer, keys, values)  # (B, H, T, D)
    mask = None  # one new token may look at everything
    if queries.shape[2] > 1:
        mask = torch.from_numpy(causal_mask(queries.shape[2], keys.shape[2])).to(x.device)
    heads = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    x = x + block.dropout(attention.output_proj(merge_heads(heads)))
    return x + block.dropout(block.feed_forward(block.feed_forward_norm(x)))


def gpt2_name(name: str) -> tuple[str, bool]:
    """Return what GPT-2 calls one of our parameters, and whether it stores the transpose.

    GPT-2's linear layers are "Conv1D" modules, which keep (C_in, C_out) as our formulas do, while
    `nn.Linear` keeps (C_out, C_in). Queries, keys and values share one matrix there, side by side:
    all three of our names lead to it.

    Parameters
    ----------
    name : str
        Such as "blocks.0.attention.output_proj.weight".

    Returns
    -------
    name : str
        Such as "transformer.h.0.attn.c_proj.weight".
    transposed : bool
    """
    outside = {
        "token_embedding": "wte",
        "position_embedding": "wpe",
        "final_norm": "ln_f",
    }
    inside = {
        "attention_norm": "ln_1",
        "attention.query_proj": "attn.c_attn",
        "attention.key_proj": "attn.c_attn",
        "attention.value_proj": "attn.c_attn",
        "attention.output_proj": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up_proj": "mlp.c_fc",
        "feed_forward.down_proj": "mlp.c_proj",
    }
    check_text(name=name)
    module, _, kind = name.rpartition(".")  # kind is weight or bias
    if module in outside:
        return f"transformer.{outside[module]}.{kind}", False
    blocks, _, module = module.partition(".")
    number, _, module = module.partition(".")
    if blocks != "blocks" or not number.isdecimal() or module not in inside:
        raise ValueError(
            f"no parameter of a GPT is called {name!r}: names are such as "
            "'blocks.0.attention.output_proj.weight'"
        )
    transposed = kind == "weight" and not module.endswith("norm")
    return f"transformer.h.{number}.{inside[module]}.{kind}", transposed


@torch.no_grad()
def to_transformers(model: GPT) -> GPT2LMHeadModel:
    """Return a `transformers` GPT-2 with copies of this model's weights, in evaluation mode.

    A model without biases gets biases of zero, which compute the same.
    """
    check_type("model", model, GPT)
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_embd=config.d_model,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            layer_norm_epsilon=config.norm_eps,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    first = next(model.parameters())
    theirs = theirs.to(first.device, first.dtype)
    state = theirs.state_dict()
    for name, tensor in state.items():
        if name.endswith(".bias"):
            tensor.zero_()
    parts: dict[str, list[Tensor]] = {}  # queries, keys, values: in the order of our parameters
    for name, tensor in model.state_dict().items():
        their_name, transposed = gpt2_name(name)
        parts.setdefault(their_name, []).append(tensor.T if transposed else tensor)
    for name, tensors in parts.items():
        state[name].copy_(torch.cat(tensors, dim=-1))
    return theirs.eval()


@torch.no_grad()
def from_transformers(theirs: GPT2LMHeadModel) -> GPT:
    """Return a GPT with copies of the weights of a `transformers` GPT-2, in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        If the model is none, or departs from GPT-2's architecture in a way that this class does not
        follow.
    """
    if type(theirs).__name__ != "GPT2LMHeadModel":
        raise TypeError(f"theirs must be a GPT2LMHeadModel of transformers, not {shown(theirs)}")
    config = theirs.config
    expected = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "n_inner": (None, 4 * config.n_embd),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    }
    for name, allowed in expected.items():
        if getattr(config, name) not in allowed:
            raise ValueError(
                f"this GPT has {name}={allowed[0]!r}, the given model {getattr(config, name)!r}: "
                "its logits would differ"
            )
    first = next(theirs.parameters())
    model = GPT(
        GPTConfig(
            vocab_size=config.vocab_size,
            context_length=config.n_positions,
            num_layers=config.n_layer,
            num_heads=config.n_head,
            d_model=config.n_embd,
            dropout=config.resid_pdrop,
            norm_eps=config.layer_norm_epsilon,
        )
    ).to(first.device, first.dtype)
    their_state = theirs.state_dict()
    places = {"query_proj": 0, "key_proj": 1, "value_proj": 2}
    for name, tensor in model.state_dict().items():
        their_name, transposed = gpt2_name(name)
        source = their_state[their_name]
        if "c_attn" in their_name:
            source = source.chunk(3, dim=-1)[places[name.split(".")[-2]]]
        tensor.copy_(source.T if transposed else source)
    return model.eval()
