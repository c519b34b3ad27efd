"""A BERT: embeddings, Transformer blocks that look both ways, and two heads; derived in chapter 9.

The architecture is that of Devlin et al. (2019, arXiv:1810.04805): token, position and segment
embeddings, norms after the sublayers, exact GELU. `from_transformers` and `to_transformers` move
weights between these classes and those of `transformers`; `load_bert` reads a released checkpoint:

    from utils import bert
    model, tokenizer = bert.load_bert("minilm")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    as_eps,
    as_number,
    check_alike,
    check_entries,
    check_features,
    check_ids,
    check_ids_range,
    check_sizes,
    check_tensor,
    check_type,
)
from utils.layers import LayerNorm, TransformerBlock


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT; the defaults are small enough for a laptop.

    Parameters
    ----------
    vocab_size : int
        V.
    context_length : int
        The longest sequence it can read: there are so many learned positions.
    num_layers, num_heads, d_model : int
        L, H and C.
    d_hidden : int, optional
        The width of the feed-forward networks, by default 4 C.
    num_segments : int
        How many texts a sequence may consist of; BERT has 2.
    dropout : float
        For the embeddings, the attention weights, and what each sublayer adds.
    norm_eps : float
    init_std : float
        The standard deviation of new weights.

    Raises
    ------
    ValueError
        If a size is below 1. (What `num_heads` must divide, the layers check.)
    """

    vocab_size: int
    context_length: int = 64
    num_layers: int = 2
    num_heads: int = 4
    d_model: int = 128
    d_hidden: int | None = None
    num_segments: int = 2
    dropout: float = 0.1
    norm_eps: float = 1e-12
    init_std: float = 0.02

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "num_layers", "num_heads", "d_model")
        check_sizes(self, (*sizes, "num_segments"))
        if self.d_hidden is None:
            object.__setattr__(self, "d_hidden", 4 * self.d_model)
        check_sizes(self, ("d_hidden",))
        as_number("dropout", self.dropout, 0, 1)
        as_number("init_std", self.init_std, 0, 1e6)
        as_eps("norm_eps", self.norm_eps)


class Bert(nn.Module):
    """An encoder: one vector for each token, made from all tokens on both sides of it.

    New weights are normal and biases 0.

    Parameters
    ----------
    config : BertConfig
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        check_type("config", config, BertConfig)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.segment_embedding = nn.Embedding(config.num_segments, config.d_model)
        self.embedding_norm = LayerNorm(config.d_model, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.d_model,
                config.num_heads,
                config.d_hidden,
                dropout=config.dropout,
                norm_first=False,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.num_layers)
        )
        self.pooler = nn.Linear(config.d_model, config.d_model)
        _initialise(self, config.init_std)

    def forward(
        self,
        ids: Tensor,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states of the last layer.

        Parameters
        ----------
        ids : torch.Tensor of int, shape (B, T)
        segment_ids : torch.Tensor of int, shape (B, T), optional
            0 for tokens of the first text, 1 for the second; by default all are of the first.
        attention_mask : torch.Tensor of bool, shape (B, T), optional
            True for real tokens, False for padding. What comes out at padding means nothing.

        Returns
        -------
        torch.Tensor, shape (B, T, C)

        Raises
        ------
        TypeError
            If the mask is not boolean.
        ValueError
            If shapes do not fit, an id or segment does not exist, or T exceeds the context.
        """
        self._check(ids, segment_ids, attention_mask)
        segment_ids = torch.zeros_like(ids) if segment_ids is None else segment_ids
        positions = torch.arange(ids.shape[1], device=ids.device)  # (T,)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (B, T, C)
        x = self.dropout(self.embedding_norm(x + self.segment_embedding(segment_ids)))
        mask = None if attention_mask is None else attention_mask[:, None, :]  # (B, 1, T)
        for block in self.blocks:
            x = block(x, attention_mask=mask)
        return x

    def pool(self, hidden: Tensor) -> Tensor:
        """Return one vector (B, C) per sequence from hidden states (B, T, C): tanh of [CLS]'s.

        It is what the next-sentence head reads, so it means something only where that was trained.
        """
        check_features("hidden", hidden, self.pooler.weight, axes=3)
        if not hidden.shape[1]:
            raise ValueError("hidden has no tokens, so no [CLS]: its shape is (B, 0, C)")
        return torch.tanh(self.pooler(hidden[:, 0]))

    def _check(self, ids: Tensor, segment_ids: Tensor | None, mask: Tensor | None) -> None:
        check_ids(ids, self.token_embedding.weight)
        if ids.shape[1] > self.config.context_length:
            raise ValueError(
                f"{ids.shape[1]} tokens do not fit into a context of {self.config.context_length}: "
                "cut the texts, for instance with encode_pair(..., max_length)"
            )
        for name, x in (("segment_ids", segment_ids), ("attention_mask", mask)):
            if x is not None and not isinstance(x, Tensor):
                raise TypeError(f"{name} should be a torch.Tensor, not a {type(x).__name__}")
            if x is not None and x.shape != ids.shape:
                raise ValueError(
                    f"{name} should have the shape of ids, {tuple(ids.shape)}, not {tuple(x.shape)}"
                )
        if mask is not None and mask.dtype != torch.bool:
            raise TypeError(
                f"attention_mask should be boolean, True for real tokens, not {mask.dtype}: for "
                "ones and zeros pass mask != 0"
            )
        if mask is not None:
            check_alike("attention_mask", mask, ids)
        if segment_ids is not None:
            check_ids(segment_ids, self.segment_embedding.weight, "segment_ids")


class MaskedTokenHead(nn.Module):
    """From hidden states to logits over the vocabulary: a small layer, then the token embeddings.

    Parameters
    ----------
    config : BertConfig
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        check_type("config", config, BertConfig)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.norm = LayerNorm(config.d_model, config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, token_embedding: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C) and the embeddings (V, C)."""
        check_features("hidden", hidden, self.transform.weight)
        shape = f"({self.bias.shape[0]}, {hidden.shape[-1]})"
        check_tensor("token_embedding", token_embedding, shape, like=hidden)
        return F.linear(self.norm(F.gelu(self.transform(hidden))), token_embedding, self.bias)


class BertForPreTraining(nn.Module):
    """A BERT with the two heads that it is pretrained with.

    Parameters
    ----------
    config : BertConfig
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        check_type("config", config, BertConfig)
        self.config = config
        self.bert = Bert(config)
        self.token_head = MaskedTokenHead(config)
        self.next_head = nn.Linear(config.d_model, 2)
        _initialise(self.token_head, config.init_std)
        _initialise(self.next_head, config.init_std)

    def forward(
        self,
        ids: Tensor,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits of the token at each position, and of whether the second text follows.

        Parameters
        ----------
        ids, segment_ids, attention_mask
            As for `Bert`.

        Returns
        -------
        token_logits : torch.Tensor, shape (B, T, V)
        next_logits : torch.Tensor, shape (B, 2)
            Class 0 is "follows", class 1 "is a random text", as in `transformers`.
        """
        hidden = self.bert(ids, segment_ids, attention_mask)  # (B, T, C)
        return self.token_logits(hidden), self.next_logits(hidden)

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) from hidden states (..., C), of which only some need be given."""
        return self.token_head(hidden, self.bert.token_embedding.weight)

    def next_logits(self, hidden: Tensor) -> Tensor:
        """Return logits (B, 2) from hidden states (B, T, C)."""
        return self.next_head(self.bert.pool(hidden))


def masked_token_loss(model: BertForPreTraining, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy of the masked tokens, in nats per masked token.

    Logits are computed at those positions only: they are 15 % of all, and V numbers each.

    Parameters
    ----------
    model : BertForPreTraining
    batch : mapping
        "ids" (B, T), "labels" (B, T) with -100 where nothing is predicted, and, if there are any,
        "segment_ids" and "attention_mask" (B, T): see `utils.masking.collate_masked`.

    Raises
    ------
    TypeError, ValueError
        If an entry is missing or does not fit, or no token is masked.
    """
    _check_batch(model, batch, ("ids", "labels"))
    return _token_loss(model, _hidden(model, batch), batch["labels"])


def pretraining_loss(model: BertForPreTraining, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of both losses, as Devlin et al. (2019, appendix A.2) train with.

    Parameters
    ----------
    model : BertForPreTraining
    batch : mapping
        As for `masked_token_loss`, and "is_random" (B,): 0 where the second text follows, else 1.

    Raises
    ------
    TypeError, ValueError
        As for `masked_token_loss`.
    """
    _check_batch(model, batch, ("ids", "labels", "is_random"))
    hidden = _hidden(model, batch)
    next_loss = F.cross_entropy(model.next_logits(hidden).float(), batch["is_random"])
    return _token_loss(model, hidden, batch["labels"]) + next_loss


def _check_batch(model: BertForPreTraining, batch: Any, names: Sequence[str]) -> None:
    """Raise unless a batch for pretraining has what is needed, in the right shapes."""
    check_type("model", model, BertForPreTraining)
    check_entries("batch", batch, names)
    ids = batch["ids"]
    check_tensor("batch['ids']", ids, "(B, T)", "int")
    check_tensor("batch['labels']", batch["labels"], str(tuple(ids.shape)), "int", like=ids)
    if "is_random" in names:
        random = batch["is_random"]
        check_tensor("batch['is_random']", random, f"({ids.shape[0]},)", "int", like=ids)
        check_ids_range(random, 2, "batch['is_random']")


def _hidden(model: BertForPreTraining, batch: Mapping[str, Tensor]) -> Tensor:
    return model.bert(batch["ids"], batch.get("segment_ids"), batch.get("attention_mask"))


def _token_loss(model: BertForPreTraining, hidden: Tensor, labels: Tensor) -> Tensor:
    chosen = labels != -100  # (B, T)
    if not bool(chosen.any()):
        raise ValueError("the batch has no masked token: all labels are -100")
    check_ids_range(labels[chosen], model.config.vocab_size, "labels")
    return F.cross_entropy(model.token_logits(hidden[chosen]).float(), labels[chosen])


@torch.no_grad()
def _initialise(model: nn.Module, std: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(std=std)
        if isinstance(module, nn.Linear):
            module.bias.zero_()


def __getattr__(name: str) -> Any:
    """Offer the functions that move weights from here, too; they live in a module of their own."""
    if name in ("bert_name", "from_transformers", "load_bert", "to_transformers"):
        from utils import bert_weights

        return getattr(bert_weights, name)
    raise AttributeError(f"module 'utils.bert' has no attribute {name!r}")
