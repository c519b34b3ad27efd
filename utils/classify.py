"""Classes for texts: a head on an encoder, batches of similar length, prediction; see chapter 14.

    encoder, tokenizer = load_bert("minilm")
    model = TextClassifier(encoder, num_classes=2, frozen=4)
    examples = encode_texts(texts, tokenizer, labels, max_length=64)
    train(model, BucketedBatches(examples, 32, collate), steps=300, lr=1e-4)
    logits = predict(model, examples)

Layers that are frozen give the same states in every epoch: `cache_lower` computes them once, and
`upper_loss` trains what lies above them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    LARGEST_WHOLE,
    as_floats,
    as_ids,
    as_integers,
    as_list,
    as_number,
    as_whole_number,
    check_choice,
    check_features,
    check_function,
    check_ids_range,
    check_tensor,
    check_text,
    check_type,
    shown,
)
from utils.batches import check_examples, checked_index, to_device
from utils.bert import Bert
from utils.evaluation import device_of
from utils.losses import IGNORE
from utils.tokenizers import WordPiece, pad_batch

POOLINGS = ("mean", "cls", "pooler")


class TextExample(NamedTuple):
    """A text as the encoder reads it, and its class (-100 where it is not known)."""

    ids: list[int]
    segment_ids: list[int]
    label: int = IGNORE


class CachedExample(NamedTuple):
    """What the frozen layers make of a text: hidden states (T, C), and its class."""

    hidden: Tensor
    label: int


def encode_texts(
    texts: Sequence[str | tuple[str, str]],
    tokenizer: WordPiece,
    labels: Sequence[int] | None = None,
    *,
    max_length: int = 64,
) -> list[TextExample]:
    """Turn texts, or pairs of texts, into examples.

    Parameters
    ----------
    texts : sequence of N str, or of N pairs of str
        A pair becomes [CLS] first [SEP] second [SEP] with segments 0 and 1.
    tokenizer : WordPiece
    labels : sequence of N int, optional
        Classes from 0 on.
    max_length : int
        Longer texts are cut, special tokens included.

    Raises
    ------
    TypeError, ValueError
        If there is not one label for each text, or a text is neither a string nor a pair of them.
    """
    if isinstance(texts, str):
        raise TypeError("texts should be a list of texts, not one string: give [text]")
    texts = as_list("texts", texts, str, tuple, list)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            if len(text) != 2:
                raise ValueError(f"texts[{place}] must be a text or a pair of texts, not {text!r}")
            check_text(**{f"texts[{place}][0]": text[0], f"texts[{place}][1]": text[1]})
    check_type("tokenizer", tokenizer, WordPiece)
    labels = [IGNORE] * len(texts) if labels is None else as_ids("labels", labels)
    if len(labels) != len(texts):
        raise ValueError(f"{len(texts)} texts need as many labels, not {len(labels)}")
    pairs = ((text, None) if isinstance(text, str) else text for text in texts)
    return [
        TextExample(*tokenizer.encode_pair(first, second, max_length), int(label))
        for (first, second), label in zip(pairs, labels, strict=True)
    ]


def collate(examples: Sequence[TextExample], rng: Any = None) -> tuple[Tensor, ...]:
    """Pad examples to the longest of them.

    Padding has id 0, as in BERT's vocabularies; behind the mask no one reads it.

    Returns
    -------
    ids, segment_ids : torch.Tensor of int64, shape (B, T)
    attention_mask : torch.Tensor of bool, shape (B, T)
    labels : torch.Tensor of int64, shape (B,)

    Raises
    ------
    TypeError, ValueError
        If there are no examples, or they are of another kind.
    """
    examples = as_list("examples", examples, TextExample, least=1)
    ids, mask = pad_batch([example.ids for example in examples], 0)
    segments, _ = pad_batch([example.segment_ids for example in examples], 0)
    arrays = (ids, segments, mask, np.array([example.label for example in examples]))
    return tuple(map(torch.from_numpy, arrays))


def collate_cached(examples: Sequence[CachedExample], rng: Any = None) -> tuple[Tensor, ...]:
    """Pad cached states: hidden (B, T, C), attention_mask (B, T) and labels (B,)."""
    examples = as_list("examples", examples, CachedExample, least=1)
    hidden = nn.utils.rnn.pad_sequence([e.hidden for e in examples], batch_first=True)
    lengths = torch.tensor([len(e.hidden) for e in examples])
    mask = torch.arange(hidden.shape[1]) < lengths[:, None]  # (B, T)
    return hidden, mask, torch.tensor([e.label for e in examples])


class BucketedBatches:
    """Shuffled batches of examples of similar length, so that little is padded.

    Each epoch shuffles the examples, cuts them into pools of `pool` batches, sorts each pool by
    length, cuts it into batches and shuffles these. Batch i is `batches[i]`, for any i from 0 on,
    and a function of the seed and i alone, as for `utils.batches.ExampleBatches`.

    Parameters
    ----------
    examples : sequence
    batch_size : int
    collate : callable
        `collate(list_of_examples, rng)` returns a batch.
    seed : int
    pool : int
        How many batches are sorted together; 1 leaves them as they come.
    length : callable, optional
        Of an example; by default the length of its first entry.

    Raises
    ------
    TypeError, ValueError
        If there are no examples, or `batch_size` or `pool` is below 1, or `collate` or `length` is
        no function.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        batch_size: int,
        collate: Callable[[list[Any], np.random.Generator], Any],
        seed: int = 0,
        *,
        pool: int = 16,
        length: Callable[[Any], int] = lambda example: len(example[0]),
    ) -> None:
        check_function(collate=collate, length=length)
        as_whole_number("seed", seed, most=LARGEST_WHOLE)
        as_whole_number("batch_size", batch_size, -1)
        as_whole_number("pool", pool, -1)
        check_examples("examples", examples)
        if len(examples) == 0 or batch_size < 1 or pool < 1:
            raise ValueError(
                f"batches need an example, a batch_size and a pool of at least 1: there are "
                f"{len(examples)} examples, batch_size is {batch_size}, pool {pool}"
            )
        self.examples, self.batch_size, self.collate = examples, batch_size, collate
        self.seed, self.pool = seed, pool
        self.lengths = as_integers("what length returns", _lengths(examples, length), "(N,)")
        self.per_epoch = math.ceil(len(examples) / batch_size)
        self._plan: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return which examples each batch of an epoch holds."""
        epoch = as_whole_number("epoch", epoch, most=LARGEST_WHOLE)
        if self._plan[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            shuffled = rng.permutation(len(self.examples))
            size, batches = self.pool * self.batch_size, []
            for start in range(0, len(shuffled), size):
                chosen = shuffled[start : start + size]
                if self.pool > 1:
                    chosen = chosen[np.argsort(self.lengths[chosen], kind="stable")]
                batches += np.split(chosen, range(self.batch_size, len(chosen), self.batch_size))
            if self.pool > 1:
                batches = [batches[i] for i in rng.permutation(len(batches))]
            self._plan = (epoch, batches)
        return self._plan[1]

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`: what `collate` makes of its examples.

        Raises
        ------
        TypeError, IndexError
            If it is no number of a batch.
        """
        epoch, place = divmod(checked_index(index), self.per_epoch)
        chosen = self.order(epoch)[place]
        rng = np.random.default_rng([self.seed, 1, index])
        return self.collate([self.examples[int(i)] for i in chosen], rng)

    def padding_share(self, epoch: int = 0) -> float:
        """Return which share of an epoch's tokens is padding: a count, not an estimate."""
        batches = self.order(epoch)
        computed = sum(len(batch) * self.lengths[batch].max() for batch in batches)
        return 1 - float(self.lengths.sum() / computed)

    def describe(self) -> dict[str, Any]:
        """Return what a resumed run compares, so that it does not go on with other data."""
        return {
            "kind": "BucketedBatches",
            "batch_size": self.batch_size,
            "seed": self.seed,
            "pool": self.pool,
            "examples": len(self.examples),
        }


def _lengths(examples: Sequence[Any], length: Callable[[Any], int]) -> list[int]:
    found = []
    for place in range(len(examples)):
        try:
            found.append(length(examples[place]))
        except (TypeError, AttributeError, LookupError) as error:
            raise TypeError(
                f"length cannot measure examples[{place}], {shown(examples[place])}: {error}"
            ) from error
    return found


def masked_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean (B, C) of hidden states (B, T, C) over real tokens; zeros where none is."""
    check_tensor("hidden", hidden, "(B, T, C)")
    shape = str(tuple(hidden.shape[:2]))
    check_tensor("attention_mask", attention_mask, shape, "bool", like=hidden)
    weights = attention_mask.to(hidden.dtype)[..., None]  # (B, T, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class TextClassifier(nn.Module):
    """An encoder with a linear layer on one vector per text.

    Parameters
    ----------
    encoder : Bert
        Is copied: the given one stays as it is, so that several classifiers can start from it.
    num_classes : int
    pooling : {"mean", "cls", "pooler"}
        One vector of many: the mean over real tokens, the state of [CLS], or BERT's pooler on it.
    dropout : float
        On that vector.
    frozen : int, optional
        None trains everything. k keeps the embeddings and the first k blocks as they are, without
        dropout: 0 freezes only the embeddings.

    Attributes
    ----------
    lower : Bert
        The embeddings and the frozen blocks.
    upper : torch.nn.ModuleList
        The other blocks.
    head : torch.nn.Linear

    Raises
    ------
    ValueError
        If `pooling` is unknown, there are fewer than two classes, or not so many blocks to freeze.
    """

    def __init__(
        self,
        encoder: Bert,
        num_classes: int = 2,
        *,
        pooling: str = "mean",
        dropout: float = 0.1,
        frozen: int | None = None,
    ) -> None:
        super().__init__()
        check_type("encoder", encoder, Bert)
        layers = len(encoder.blocks)
        check_choice("pooling", pooling, POOLINGS)
        num_classes = as_whole_number("num_classes", num_classes, 2)
        dropout = as_number("dropout", dropout, 0, 1)
        if frozen is not None:
            frozen = as_whole_number("frozen", frozen, 0, layers)
        self.pooling, self.frozen = pooling, frozen
        self.lower = copy.deepcopy(encoder)
        blocks = self.lower.blocks
        self.lower.blocks, self.upper = blocks[: frozen or 0], blocks[frozen or 0 :]
        self.lower.config = replace(encoder.config, num_layers=max(frozen or 0, 1))
        self.pooler = self.lower.pooler if pooling == "pooler" else None
        del self.lower.pooler  # what is not used is neither trained nor counted
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.d_model, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if frozen is not None:
            self.lower.requires_grad_(False)

    def train(self, mode: bool = True) -> TextClassifier:
        """Set the mode; frozen layers stay in evaluation mode, so that they always say the same."""
        check_type("mode", mode, bool)
        super().train(mode)
        if self.frozen is not None:
            self.lower.eval()
        return self

    def forward(self, ids: Tensor, segment_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (B, num_classes).

        Parameters
        ----------
        ids, segment_ids : torch.Tensor of int, shape (B, T)
        attention_mask : torch.Tensor of bool, shape (B, T)
        """
        return self.from_hidden(self.lower(ids, segment_ids, attention_mask), attention_mask)

    def vectors(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one vector (B, C) per text from the states (B, T, C) after the frozen layers."""
        check_features("hidden", hidden, self.head.weight, axes=3)
        shape = str(tuple(hidden.shape[:2]))
        check_tensor("attention_mask", attention_mask, shape, "bool", like=hidden, some=True)
        for block in self.upper:
            hidden = block(hidden, attention_mask=attention_mask[:, None, :])  # (B, T, C)
        if self.pooling == "mean":
            return masked_mean(hidden, attention_mask)
        first = hidden[:, 0]
        return first if self.pooler is None else torch.tanh(self.pooler(first))

    def from_hidden(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (B, num_classes) from the states (B, T, C) after the frozen layers."""
        return self.head(self.dropout(self.vectors(hidden, attention_mask)))


def upper_loss(model: TextClassifier, batch: Sequence[Tensor]) -> Tensor:
    """Return the cross-entropy, in nats per text, of a batch that `collate_cached` made."""
    check_type("model", model, TextClassifier)
    batch = as_list("batch", batch, Tensor)
    if len(batch) != 3:
        raise ValueError(f"batch must be hidden states, mask and labels, not {len(batch)} tensors")
    hidden, attention_mask, labels = batch
    check_features("batch[0]", hidden, model.head.weight, axes=3)
    check_tensor("batch[2]", labels, f"({len(hidden)},)", "int", like=hidden, some=True)
    if not bool((labels != IGNORE).any()):
        raise ValueError("batch[2] holds no label that counts: all are -100")
    check_ids_range(labels[labels != IGNORE], model.head.out_features, "the labels, batch[2],")
    return F.cross_entropy(model.from_hidden(hidden, attention_mask).float(), labels)


def layerwise_groups(
    model: TextClassifier, lr: float, *, decay: float = 0.8, weight_decay: float = 0.01
) -> list[dict[str, Any]]:
    """Return an optimiser's groups whose rates fall from layer to layer, from the top down.

    The head has rate `lr`, the last block `lr * decay`, the one below `lr * decay**2`, and so on;
    the embeddings come last. Biases and gains of norms are not decayed towards zero. After Howard
    and Ruder (2018, arXiv:1801.06146), section 3.2, and Sun et al. (2019, arXiv:1905.05583).
    """
    check_type("model", model, TextClassifier)
    lr, decay = as_number("lr", lr, 0), as_number("decay", decay, 0, 1e6)
    weight_decay = as_number("weight_decay", weight_decay, 0)
    head = [*model.head.parameters(), *(model.pooler.parameters() if model.pooler else [])]
    stages = [head, *(list(block.parameters()) for block in reversed(model.upper))]
    stages.append(list(model.lower.parameters()))
    groups = []
    for depth, params in enumerate(stages):
        for matrices, rate in ((True, weight_decay), (False, 0.0)):
            chosen = [p for p in params if p.requires_grad and (p.ndim >= 2) == matrices]
            if chosen:
                groups.append({"params": chosen, "lr": lr * decay**depth, "weight_decay": rate})
    return groups


@torch.no_grad()
def cache_lower(
    model: TextClassifier, examples: Sequence[TextExample], batch_size: int = 32
) -> list[CachedExample]:
    """Run the frozen layers once over all examples and keep their states, on the CPU.

    Raises
    ------
    TypeError, ValueError
        If nothing is frozen: then the states change with every update.
    """
    check_type("model", model, TextClassifier)
    examples = as_list("examples", examples, TextExample)
    batch_size = as_whole_number("batch_size", batch_size, 1)
    if model.frozen is None:
        raise ValueError("nothing is frozen, so there is nothing to keep: give frozen=k")
    cached: list[Any] = [None] * len(examples)
    for chosen, batch in _by_length(examples, batch_size, collate, device_of(model)):
        hidden = model.lower(*batch[:3]).cpu()
        for row, place in enumerate(chosen):
            length = len(examples[place].ids)
            cached[place] = CachedExample(hidden[row, :length].clone(), examples[place].label)
    return cached


@torch.no_grad()
def predict(
    model: TextClassifier,
    examples: Sequence[TextExample] | Sequence[CachedExample],
    batch_size: int = 64,
    *,
    vectors: bool = False,
) -> NDArray[np.float32]:
    """Return logits (N, num_classes) in the order of the examples; the mode is left as it was.

    Parameters
    ----------
    model : TextClassifier
    examples : sequence of TextExample, or of CachedExample from the same model's `cache_lower`
    batch_size : int
    vectors : bool
        Return what the head reads, (N, C), instead: the encoder's features of each text.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind.
    """
    check_type("model", model, TextClassifier)
    examples = as_list("examples", examples, TextExample, CachedExample)
    batch_size = as_whole_number("batch_size", batch_size, 1)
    cached = bool(len(examples)) and isinstance(examples[0], CachedExample)
    last = model.vectors if vectors else model.from_hidden
    width = model.head.in_features if vectors else model.head.out_features
    result = np.zeros((len(examples), width), dtype=np.float32)
    was_training = model.training
    model.eval()
    try:
        put_together = collate_cached if cached else collate
        for chosen, batch in _by_length(examples, batch_size, put_together, device_of(model)):
            mask = batch[-2]
            hidden = batch[0] if cached else model.lower(*batch[:3])
            result[chosen] = last(hidden, mask).float().cpu().numpy()
    finally:
        model.train(was_training)
    return result


def accuracy(logits: NDArray[Any], labels: Sequence[int]) -> float:
    """Return the share of texts whose largest logit is that of their label."""
    logits = as_floats("logits", logits, "(N, K)", some=True)
    labels = as_integers("labels", labels, f"({len(logits)},)")
    if np.isnan(logits).any():
        raise ValueError("logits hold NaN, which is neither larger nor smaller than others")
    return float((logits.argmax(axis=1) == labels).mean())


def _by_length(examples: Sequence[Any], batch_size: int, put_together: Any, device: Any) -> Any:
    """Give batches in order of length, each with its examples' places."""
    order = np.argsort([len(example[0]) for example in examples], kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield chosen, to_device(put_together([examples[int(i)] for i in chosen]), device)
