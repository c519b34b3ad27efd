"""From texts to what a BERT is pretrained on: masked tokens and pairs of texts (chapter 9).

    examples = sentence_pairs(documents, tokenizer, max_length=64, rng=rng)
    batches = ExampleBatches(examples, 32, collate_masked(tokenizer))

The recipe is that of Devlin et al. (2019, arXiv:1810.04805), section 3.1 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.arguments import (
    LARGEST_SIZE,
    as_floats,
    as_ids,
    as_integers,
    as_list,
    as_number,
    as_whole_number,
    check_entries,
    check_rng,
    check_type,
)
from utils.losses import IGNORE
from utils.tokenizers import BERT_SPECIAL_TOKENS, WordPiece, pad_batch

if TYPE_CHECKING:
    from torch import Tensor

IntArray = NDArray[np.int64]


class Example(NamedTuple):
    """A sequence for pretraining: ids, segments (0 or 1), and 1 if the second text is random."""

    ids: list[int]
    segment_ids: list[int]
    is_random: int = 0


def mask_tokens(
    ids: ArrayLike,
    rng: np.random.Generator,
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    rate: float = 0.15,
    shares: tuple[float, float] = (0.8, 0.1),
) -> tuple[IntArray, IntArray]:
    """Choose tokens to predict, and hide most of them.

    Each ordinary token is chosen with probability `rate`, by itself. (The released BERT code takes
    that share of each sequence instead.) Of the chosen, 80 % become [MASK], 10 % a random ordinary
    token, and 10 % stay as they are.

    Parameters
    ----------
    ids : array_like of int, any shape
        Left as it is.
    rng : numpy.random.Generator
    mask_id : int
        The id of [MASK].
    vocab_size : int
    special_ids : sequence of int
        Never chosen, and never drawn as a random token: [CLS], [SEP], [PAD] and the like.
    rate : float
        From 0 to 1.
    shares : (float, float)
        Which share of the chosen become [MASK], and which a random token; the others stay.

    Returns
    -------
    masked : numpy.ndarray of int64, shape of `ids`
    labels : numpy.ndarray of int64, shape of `ids`
        The original token where it was chosen, elsewhere -100.

    Raises
    ------
    TypeError
        If `ids` are not integers.
    ValueError
        If an id is not in the vocabulary, no token is ordinary, or a probability is out of range.
    """
    ids = as_integers("ids", ids)
    check_rng("rng", rng)
    mask_id = as_whole_number("mask_id", mask_id)
    vocab_size = as_whole_number("vocab_size", vocab_size, 1)
    special_ids = as_ids("special_ids", special_ids)
    shares = [as_number("shares", each) for each in as_list("shares", shares)]
    if len(shares) != 2:
        raise ValueError(f"shares are two numbers, not {shares}")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise ValueError(f"ids run from {ids.min()} to {ids.max()}, but vocab_size is {vocab_size}")
    to_mask, to_random = shares
    if not 0 <= as_number("rate", rate) <= 1 or min(shares) < 0 or to_mask + to_random > 1 + 1e-9:
        raise ValueError(
            f"rate={rate} and shares={shares} must be from 0 to 1, the shares also together"
        )
    ids = ids.astype(np.int64)
    ordinary = np.setdiff1d(np.arange(vocab_size), special_ids)
    if not ordinary.size:
        raise ValueError("every id of the vocabulary is special: there is no random token to draw")
    chosen = (rng.random(ids.shape) < rate) & ~np.isin(ids, special_ids)
    fate = rng.random(ids.shape)
    random_tokens = ordinary[rng.integers(ordinary.size, size=ids.shape)]
    masked = np.where(chosen & (fate < to_mask), mask_id, ids)
    swapped = chosen & (fate >= to_mask) & (fate < to_mask + to_random)
    return np.where(swapped, random_tokens, masked), np.where(chosen, ids, IGNORE)


def sentence_pairs(
    documents: Sequence[Sequence[str]],
    tokenizer: WordPiece,
    *,
    max_length: int,
    rng: np.random.Generator,
    random_rate: float = 0.5,
) -> list[Example]:
    """Cut documents into pairs of texts, half of which belong together.

    The first text is a run of sentences that fills about half of the sequence. The second is what
    comes after it, or, with probability `random_rate`, a run from a random place in another
    document; then the real sequel is used for the next pair.

    Parameters
    ----------
    documents : sequence of B sequences of str
        Each document's sentences (or lines) in their order; at least two documents.
    tokenizer : WordPiece
    max_length : int
        Of a sequence with its three special tokens.
    rng : numpy.random.Generator
    random_rate : float

    Returns
    -------
    list of Example

    Raises
    ------
    ValueError
        If there are fewer than two documents with a sentence, or `max_length` is below 5.
    """
    check_type("tokenizer", tokenizer, WordPiece)
    check_rng("rng", rng)
    max_length = as_whole_number("max_length", max_length, -LARGEST_SIZE)
    random_rate = as_number("random_rate", random_rate, 0, 1)
    documents = [
        as_list(f"documents[{i}]", lines, str)
        for i, lines in enumerate(as_list("documents", documents))
    ]
    encoded = [[ids for ids in map(tokenizer.encode, lines) if ids] for lines in documents]
    encoded = [document for document in encoded if document]
    if len(encoded) < 2:
        raise ValueError(
            f"a random second text comes from another document, but there are {len(encoded)} with "
            "any text: cut the text into more documents"
        )
    if max_length < 5:
        raise ValueError(f"max_length={max_length} has no room for two texts and 3 special tokens")
    check_entries("the tokenizer's vocab", tokenizer.vocab, ("[CLS]", "[SEP]"))
    cls_id, sep_id = tokenizer.vocab["[CLS]"], tokenizer.vocab["[SEP]"]
    half = (max_length - 3) // 2
    examples = []
    for number, document in enumerate(encoded):
        start = 0
        while start < len(document):
            first, after = _run(document, start, half)
            room = max_length - 3 - len(first)
            is_random = int(after >= len(document) or rng.random() < random_rate)
            if is_random:
                other = int(rng.integers(len(encoded) - 1))
                source = encoded[other + (other >= number)]  # any document but this one
                second, _ = _run(source, int(rng.integers(len(source))), room)
                start = after
            else:
                second, start = _run(document, after, room)
            ids = [cls_id, *first, sep_id, *second, sep_id]
            segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
            examples.append(Example(ids, segments, is_random))
    return examples


def _run(document: Sequence[list[int]], start: int, room: int) -> tuple[list[int], int]:
    """Return as many whole sentences as fit (cut the first if need be), and where they end."""
    ids, end = list(document[start][:room]), start + 1
    while end < len(document) and len(ids) + len(document[end]) <= room:
        ids += document[end]
        end += 1
    return ids, end


def collate_masked(
    tokenizer: WordPiece, *, rate: float = 0.15, max_length: int | None = None
) -> Callable[[list[Any], np.random.Generator], dict[str, Tensor]]:
    """Return a function that makes a batch of examples and masks it, for `ExampleBatches`.

    Masking happens when the batch is made, so that each epoch masks other tokens (Liu et al. 2019,
    arXiv:1907.11692, call it dynamic masking).

    Parameters
    ----------
    tokenizer : WordPiece
        With BERT's special tokens.
    rate : float
        As for `mask_tokens`.
    max_length : int, optional
        T of every batch; by default that of its longest example.

    Returns
    -------
    callable
        `collate(examples, rng)` returns a dict of tensors: "ids", "segment_ids", "labels" of
        int64 and "attention_mask" of bool, all (B, T), and "is_random" (B,).

    Raises
    ------
    ValueError
        If the tokenizer lacks one of BERT's special tokens.
    """
    check_type("tokenizer", tokenizer, WordPiece)
    rate = as_number("rate", rate, 0, 1)
    if max_length is not None:
        as_whole_number("max_length", max_length, 1)
    missing = [token for token in BERT_SPECIAL_TOKENS if token not in tokenizer.vocab]
    if missing:
        raise ValueError(f"the tokenizer's vocabulary has no {', '.join(missing)}")
    special_ids = [tokenizer.vocab[token] for token in BERT_SPECIAL_TOKENS]

    def collate(examples: list[Any], rng: np.random.Generator) -> dict[str, Tensor]:
        import torch

        pad_id = tokenizer.vocab["[PAD]"]
        ids, mask = pad_batch([e.ids for e in examples], pad_id, max_length=max_length)
        segments, _ = pad_batch([e.segment_ids for e in examples], 0, max_length=ids.shape[1])
        masked, labels = mask_tokens(
            ids,
            rng,
            mask_id=tokenizer.vocab["[MASK]"],
            vocab_size=tokenizer.vocab_size,
            special_ids=special_ids,
            rate=rate,
        )
        arrays = {"ids": masked, "segment_ids": segments, "attention_mask": mask, "labels": labels}
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {**batch, "is_random": torch.tensor([e.is_random for e in examples])}

    return collate


def unigram_baseline(train_counts: ArrayLike, labels: ArrayLike) -> float:
    """Return the loss of one who knows only how frequent tokens are, in nats per masked token.

    Probabilities are counts plus one, divided by their sum (Laplace), so that none is zero.

    Parameters
    ----------
    train_counts : array_like, shape (V,)
        How often each token occurs in the training text.
    labels : array_like of int
        The targets; -100 does not count.

    Raises
    ------
    TypeError, ValueError
        If no label counts, or one is not the id of a counted token.
    """
    counts = as_floats("train_counts", train_counts, "(V,)", finite=True, some=True) + 1
    labels = as_integers("labels", labels)
    labels = labels[labels != IGNORE]
    if counts.min() < 1:
        raise ValueError(f"train_counts must be at least 0, not {counts.min() - 1:g}")
    as_integers("labels", labels, low=0, high=len(counts) - 1)
    if not labels.size:
        raise ValueError("there is nothing to predict: all labels are -100")
    return float(-np.log(counts / counts.sum())[labels].mean())
