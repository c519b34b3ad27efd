"""Batches that can be taken in any order: number i is a function of the seed and of i alone.

A run that stopped after step 700 therefore goes on at step 701 without drawing the first 700
batches again and without saving where a shuffle had got to.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.arguments import (
    LARGEST_WHOLE,
    as_array,
    as_device,
    as_whole_number,
    as_whole_numbers,
    check_function,
    check_tensor,
    shown,
)
from utils.losses import IGNORE


class TextBatches:
    """Random windows of one long text, for a model that predicts the next token.

    Batch i is `batches[i]`, for any i from 0 on; there is no last one.

    Parameters
    ----------
    ids : sequence of int, numpy.ndarray or torch.Tensor, shape (N,)
        The text as token ids. An array is used in place, so that a `numpy.memmap` stays on disk.
    batch_size, seq_len : int
        B windows of T tokens each; `ids` must hold at least T + 1.
    seed : int

    Raises
    ------
    TypeError
        If `ids` are not integers.
    ValueError
        If `ids` are not one sequence, or too few for a window and the token after it.
    """

    def __init__(self, ids: Any, batch_size: int, seq_len: int, seed: int = 0) -> None:
        self.ids = _checked_ids(ids, batch_size, seq_len)
        as_whole_number("seed", seed, most=LARGEST_WHOLE)
        self.batch_size, self.seq_len, self.seed = batch_size, seq_len, seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return batch `index`: inputs and targets, both of shape (B, T), on the CPU.

        The target of a position is the token after it, so the targets are the inputs one further.

        Raises
        ------
        TypeError, IndexError
            If it is no number of a batch.
        """
        rng = np.random.default_rng([self.seed, checked_index(index)])
        starts = rng.integers(len(self.ids) - self.seq_len, size=(self.batch_size, 1))
        windows = self.ids[starts + np.arange(self.seq_len + 1)].astype(np.int64)  # (B, T + 1)
        windows = torch.from_numpy(windows)
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    def describe(self) -> dict[str, Any]:
        """Return what a resumed run compares, so that it does not go on with other data."""
        return {
            "kind": "TextBatches",
            "batch_size": self.batch_size,
            "seq_len": self.seq_len,
            "seed": self.seed,
            "tokens": len(self.ids),
            "checksum": zlib.crc32(np.ascontiguousarray(self.ids, dtype=np.int64)),
        }


class ExampleBatches:
    """Shuffled batches of separate examples, such as sentences: each comes once per epoch.

    Batch i is `batches[i]`, for any i from 0 on; after `per_epoch` batches the next epoch begins,
    in another order. The last batch of an epoch may be smaller.

    Parameters
    ----------
    examples : sequence
    batch_size : int
    collate : callable
        `collate(list_of_examples, rng)` returns a batch: a tuple or dict of tensors. What is
        random in it, such as masked words, must come from `rng`, a `numpy.random.Generator`.
    seed : int

    Raises
    ------
    TypeError, ValueError
        If there are no examples, `batch_size` is below 1, or `collate` is no function.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        batch_size: int,
        collate: Callable[[list[Any], np.random.Generator], Any],
        seed: int = 0,
    ) -> None:
        check_function(collate=collate)
        as_whole_number("batch_size", batch_size, -1)
        as_whole_number("seed", seed, most=LARGEST_WHOLE)
        check_examples("examples", examples)
        if len(examples) == 0 or batch_size < 1:
            raise ValueError(
                f"batches need at least one example each: there are {len(examples)} examples "
                f"and batch_size is {batch_size}"
            )
        self.examples, self.batch_size = examples, batch_size
        self.collate, self.seed = collate, seed
        self.per_epoch = math.ceil(len(examples) / batch_size)

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`: what `collate` makes of its examples.

        Raises
        ------
        TypeError, IndexError
            If it is no number of a batch.
        """
        epoch, place = divmod(checked_index(index), self.per_epoch)
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.examples))
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, 1, index])
        return self.collate([self.examples[int(i)] for i in chosen], rng)

    def describe(self) -> dict[str, Any]:
        """Return what a resumed run compares, so that it does not go on with other data."""
        return {
            "kind": "ExampleBatches",
            "batch_size": self.batch_size,
            "seed": self.seed,
            "examples": len(self.examples),
        }


def text_windows(ids: Any, batch_size: int, seq_len: int) -> list[tuple[Tensor, Tensor]]:
    """Cut a text into windows side by side, for evaluation: every token but the first is a target.

    Parameters
    ----------
    ids : sequence of int, numpy.ndarray or torch.Tensor, shape (N,)
    batch_size, seq_len : int

    Returns
    -------
    list of (inputs, targets)
        Both of shape (B, T), the last pair with fewer rows. The end of the last window is filled
        up with inputs 0 and targets -100, which no loss counts.

    Raises
    ------
    TypeError, ValueError
        As for `TextBatches`, but `ids` may be shorter than a window: two tokens suffice.
    """
    batch_size, seq_len = as_whole_numbers(1, batch_size=batch_size, seq_len=seq_len)
    ids = _checked_ids(ids, batch_size, 1)
    rows = math.ceil((len(ids) - 1) / seq_len)
    inputs = torch.zeros(rows * seq_len, dtype=torch.int64)
    targets = torch.full_like(inputs, IGNORE)
    inputs[: len(ids) - 1] = torch.from_numpy(ids[:-1].astype(np.int64))
    targets[: len(ids) - 1] = torch.from_numpy(ids[1:].astype(np.int64))
    rows_of = [x.view(rows, seq_len).split(batch_size) for x in (inputs, targets)]
    return list(zip(*rows_of, strict=True))


def _checked_ids(ids: Any, batch_size: int, seq_len: int) -> np.ndarray:
    if isinstance(ids, Tensor):
        check_tensor("ids", ids, kind="any", values=True)
        ids = ids.detach().cpu().numpy()
    ids = ids if isinstance(ids, np.ndarray) else as_array("ids", ids)  # a memmap stays one
    if ids.ndim != 1:
        raise ValueError(f"ids must be one sequence of token ids, not of shape {ids.shape}")
    if len(ids) and ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, such as a tokenizer returns, not {ids.dtype}")
    as_whole_numbers(1, batch_size=batch_size, seq_len=seq_len)
    if len(ids) <= seq_len:
        raise ValueError(
            f"a window of {seq_len} tokens and the one after it need {seq_len + 1} ids, "
            f"but there are {len(ids)}: give more text or a smaller seq_len"
        )
    return ids


def check_examples(name: str, examples: Any) -> None:
    """Raise TypeError unless something has a length and entries with numbers."""
    if isinstance(examples, str | Mapping) or not hasattr(examples, "__getitem__"):
        raise TypeError(f"{name} must be a list of examples, not {shown(examples)}")


def checked_index(index: int) -> int:
    """Return the number of a batch, or say what is wrong with it.

    Raises
    ------
    TypeError
        If it is no whole number.
    IndexError
        If it is negative, which a loop over batches understands as their end.
    """
    index = as_whole_number("index", index, -LARGEST_WHOLE, LARGEST_WHOLE)
    if index < 0:
        raise IndexError(f"batches are numbered from 0 on; there is no batch {index}")
    return index


def batch_getter(batches: Any) -> Callable[[int], Any]:
    """Return a function from a number to that batch, whatever of the allowed forms is given."""
    if isinstance(batches, list | tuple):
        if not batches:
            raise ValueError("there are no batches: the list is empty")
        return lambda index: batches[index % len(batches)]
    if callable(batches):
        return batches
    if not hasattr(batches, "__getitem__"):
        raise TypeError(
            "batches must be a list, a function of the batch's number, or have batches[i], not a "
            f"{type(batches).__name__}, in which a resumed run could not find its place: "
            "see utils.batches, or make a list of it"
        )
    return batches.__getitem__


def to_device(batch: Any, device: torch.device) -> Any:
    """Move all tensors of a batch, which may be nested, to the device."""
    if not isinstance(device, torch.device):
        device = as_device("device", device)
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [to_device(value, device) for value in batch]
    if isinstance(batch, Tensor):
        check_tensor("batch", batch, kind="any", values=device.type != "meta")
        return batch.to(device)
    return batch
