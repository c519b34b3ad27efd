"""Checks for chapter 14: splitting by group, padding, bucketing, layer-wise rates, McNemar."""

from __future__ import annotations

from math import ceil, comb
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


@check()
def split_by_group(student: Student, rng: np.random.Generator) -> None:
    """Exercise 14.1: whole groups go to the test part, a given share of the groups."""
    for count, share in ((10, 0.2), (40, 0.25), (7, 0.5)):
        names = np.array([f"film {i}" for i in range(count)])
        sizes = rng.integers(1, 30, size=count)
        sizes[0] = 200  # one group much larger than the rest
        groups = rng.permutation(np.repeat(names, sizes))
        wanted = round(share * count)
        seed = int(rng.integers(1000))
        got = _boolean(student(groups, share, np.random.default_rng(seed)), len(groups))
        held_out = {name for name in names if got[groups == name].any()}
        torn = [name for name in held_out if not got[groups == name].all()]
        if len(torn) > count / 3:
            wrong("most groups are on both sides: draw groups, not single examples")
        if torn:
            wrong(f"{len(torn)} group(s) of {count} are on both sides of the split")
        if not held_out:
            wrong("nothing is held out: True should mark the test examples")
        if len(held_out) == count - wanted != wanted:
            wrong("the training part is marked; True should mark the test examples")
        if len(held_out) != wanted:
            wrong(
                f"of {count} groups, {wanted} should be held out (share={share} of the groups), "
                f"but yours holds out {len(held_out)}"
            )
        again = _boolean(student(groups, share, np.random.default_rng(seed)), len(groups))
        if not np.array_equal(got, again):
            wrong("the same seed gives another split each time: draw from `rng` alone")
    draws = {
        tuple(_boolean(student(groups, share, np.random.default_rng(s)), len(groups)))
        for s in range(12)
    }
    if len(draws) == 1:
        wrong("the held-out groups are always the same, whatever `rng` is: draw them at random")


def _boolean(answer: Any, count: int) -> np.ndarray:
    got = as_array(answer, what="mask")
    if got.shape != (count,):
        wrong(f"return one boolean per example, shape ({count},), not shape {got.shape}")
    if got.dtype != bool:
        wrong(f"return booleans, True for a test example, not {got.dtype}")
    return got


@check()
def padding_share(student: Student, rng: np.random.Generator) -> None:
    """Exercise 14.2: how much of what is computed is padding."""
    for count, batch_size in ((12, 4), (37, 8), (5, 5)):
        lengths = rng.integers(3, 60, size=count)
        order = rng.permutation(count)
        batches = [order[i : i + batch_size] for i in range(0, count, batch_size)]
        got = np.asarray(as_number(student(lengths, batches), "share"))
        widths = [lengths[b].max() for b in batches]
        computed = sum(len(b) * w for b, w in zip(batches, widths, strict=True))
        expected = 1 - lengths.sum() / computed
        if close(got, expected):
            continue
        each = [1 - lengths[b].sum() / (len(b) * lengths[b].max()) for b in batches]
        whole = count * lengths.max()
        reject_known(
            got,
            {
                "this is the share of real tokens; what is left is padding": 1 - expected,
                "this is a number of tokens; divide by all tokens computed": (
                    computed - lengths.sum()
                ),
                "you average the batches' shares, but wide batches hold more tokens: add up the "
                "tokens first": np.mean(each),
                "each batch is padded to its own longest text, not to the longest of all": (
                    1 - lengths.sum() / whole
                ),
                "divide by all tokens computed, padding included, not by the real ones": (
                    computed / lengths.sum() - 1
                ),
                "the last batch may be smaller than the others: multiply its width by its own "
                "size": 1 - lengths.sum() / (batch_size * sum(widths)),
                "you took the first entries of `lengths`; a batch holds the places of its texts": (
                    1 - lengths.sum() / _consecutive(lengths, batches)
                ),
            },
        )
        wrong("not right: padded tokens, over all tokens computed, over all batches")


def _consecutive(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    start, total = 0, 0
    for batch in batches:
        total += len(batch) * lengths[start : start + len(batch)].max()
        start += len(batch)
    return total


@check()
def bucketed_batches(student: Student, rng: np.random.Generator) -> None:
    """Exercise 14.5: similar lengths together, and still in random order."""
    for count, batch_size in ((640, 16), (500, 32), (7, 4)):
        lengths = rng.integers(4, 60, size=count)
        seed = int(rng.integers(1000))
        batches = _index_lists(student(lengths, batch_size, np.random.default_rng(seed)), count)
        if max(map(len, batches)) > batch_size:
            wrong(f"a batch holds {max(map(len, batches))} texts; at most {batch_size} are allowed")
        if len(batches) > ceil(count / batch_size):
            wrong(
                f"{count} texts in batches of {batch_size} make {ceil(count / batch_size)} "
                f"batches, but you return {len(batches)}: only one may be smaller"
            )
        if count < 100:
            continue
        widths = np.array([lengths[b].max() for b in batches])
        share = 1 - lengths.sum() / sum(len(b) * lengths[b].max() for b in batches)
        if share > 0.15:
            wrong(f"{share:.0%} of the tokens are padding: put texts of similar length together")
        if (np.diff(widths) >= 0).all() or (np.diff(widths) <= 0).all():
            wrong(
                "batches come in order of length, so that training sees all short texts first: "
                "shuffle the batches"
            )
        again = _index_lists(student(lengths, batch_size, np.random.default_rng(seed)), count)
        if [list(b) for b in batches] != [list(b) for b in again]:
            wrong("the same seed gives other batches each time: draw from `rng` alone")
        other = _index_lists(student(lengths, batch_size, np.random.default_rng(seed + 1)), count)
        mates = {frozenset(b.tolist()) for b in batches}
        if len(mates & {frozenset(b.tolist()) for b in other}) > len(batches) / 2:
            wrong(
                "another seed gives the same batches in another order: the same texts always meet. "
                "Shuffle before you sort, and sort a pool of batches, not everything"
            )


def _index_lists(answer: Any, count: int) -> list[np.ndarray]:
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    batches = [as_array(batch, what="batch") for batch in answer]
    if any(batch.ndim != 1 or batch.dtype.kind not in "iu" for batch in batches):
        wrong("return a list of batches, each a sequence of places (integers) in `lengths`")
    batches = [batch for batch in batches if len(batch)]
    seen = np.sort(np.concatenate(batches)) if batches else np.array([])
    if len(np.unique(seen)) < len(seen):
        wrong("some text is in two batches")
    if len(seen) < count:
        wrong(f"{count - len(seen)} of {count} texts are in no batch: keep the last, smaller one")
    if not np.array_equal(seen, np.arange(count)):
        wrong("batches should hold places from 0 to the number of texts less one, not lengths")
    return batches


@check()
def layerwise_rates(student: Student, rng: np.random.Generator) -> None:
    """Exercise 14.3: the rate falls by a factor from layer to layer, from the head down."""
    for layers in (6, 12, 1):
        lr, decay = float(rng.uniform(1e-5, 1e-3)), float(rng.uniform(0.6, 0.95))
        answer = student(layers, lr, decay)
        got = as_array(answer, what="list of rates")
        if got.ndim != 1 or len(got) != layers + 2:
            wrong(
                f"{layers} blocks need {layers + 2} rates, one each for the embeddings, the blocks "
                f"and the head, but yours has shape {got.shape}"
            )
        expected = lr * decay ** np.arange(layers + 1, -1, -1.0)
        if close(got / lr, expected / lr):
            continue
        reject_known(
            got / lr,
            {
                "in yours the head has the smallest rate: the list starts with the embeddings, "
                "and what lies lowest changes least": expected[::-1] / lr,
                "the head has the full rate; the factor applies from the last block down": (
                    expected * decay / lr
                ),
                "the rates fall in equal steps; each should be a fixed factor of the next": (
                    np.linspace(expected[0], lr, layers + 2) / lr
                ),
                "all parts have the same rate": np.ones(layers + 2),
                "embeddings and first block have the same rate in yours; the embeddings are one "
                "stage lower": np.r_[expected[1], expected[1:]] / lr,
                "head and last block have the same rate in yours; the block is one stage lower": (
                    np.r_[expected[1:], lr] / lr
                ),
            },
        )
        wrong("not right: from the head, whose rate is lr, each stage down multiplies by decay")


@check()
def exact_mcnemar(student: Student, rng: np.random.Generator) -> None:
    """Exercise 14.4: do two systems that disagree on n examples disagree evenly? An exact test."""
    for count, first_rate, gain in ((40, 0.7, 0.25), (300, 0.8, 0.1), (60, 0.5, 0.0), (25, 0.6, 1)):
        first = rng.random(count) < first_rate
        second = np.where(rng.random(count) < 0.2 + gain / 2, rng.random(count) < 0.9, first)
        first[:3], second[:3] = (True, False, False), (False, True, True)
        first, second = first.astype(bool), second.astype(bool)
        got = np.asarray(as_number(student(first, second), "p-value"))
        only_first = int((first & ~second).sum())
        only_second = int((~first & second).sum())
        n, fewer = only_first + only_second, min(only_first, only_second)
        tail = sum(comb(n, i) for i in range(fewer + 1)) / 2**n
        expected = min(1.0, 2 * tail)
        if close(got, expected, rtol=1e-3, atol=1e-9):
            continue
        all_tail = sum(comb(count, i) for i in range(fewer + 1)) / 2**count
        reject_known(
            got,
            {
                "this is one-sided; either system might have been the better one: double it": tail,
                "this is half of the two-sided probability: either system might have been the "
                "better one": expected / 2,
                "a probability cannot exceed 1: cut it there": 2 * tail,
                "examples on which both agree tell nothing about the difference: the coin is "
                "tossed only where exactly one of them is right": min(1.0, 2 * all_tail),
                "this is the probability of exactly that many; add the more extreme ones": (
                    comb(n, fewer) / 2**n
                ),
                "this is the probability of exactly that many, doubled; add the more extreme "
                "ones": 2 * comb(n, fewer) / 2**n,
                "this is the accuracies' difference, not a probability": (
                    (only_second - only_first) / count
                ),
                "the outcome itself belongs to the tail: add up from 0 to and with it": (
                    2 * (tail - comb(n, fewer) / 2**n)
                ),
            },
            atol=1e-9,
        )
        wrong("not right: a fair coin tossed once for each example on which exactly one is right")
    same = rng.random(20) < 0.5
    got = as_number(student(same, same.copy()), "p-value of two systems that never differ")
    if not close(got, 1.0):
        wrong(f"two systems that never differ should give p = 1, but yours gives {got:g}")
    big = np.zeros(4000, dtype=bool)
    big[:2000] = True
    got = as_number(student(big, ~big), "p-value of 4,000 disagreements")
    if not close(got, 1.0):
        wrong(f"2,000 wins each is a perfect tie, p = 1, but yours gives {got:g}")
