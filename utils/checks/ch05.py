"""Checks for chapter 5: sinusoids, shifts, rotations, layouts, ALiBi, a stretched base."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong

_reject_known = partial(reject_known, atol=1e-5)


def _sinusoids(places: Any, C: int, base: float, *, exponent=-1.0, step=2.0, order="sc"):
    """Encode positions by the formula, entry by entry, with the chosen mistakes."""
    encoding = np.empty((len(places), C))
    for row, t in zip(encoding, places, strict=True):
        for i in range(C // 2):
            angle = t * base ** (exponent * step * i / C)
            pair = {"s": math.sin(angle), "c": math.cos(angle)}
            row[2 * i], row[2 * i + 1] = pair[order[0]], pair[order[1]]
    return encoding


@check()
def sinusoidal_encoding(student: Student, rng: np.random.Generator) -> None:
    """Exercise 5.1: the sinusoidal encoding of positions 0 to T - 1, shape (T, C)."""
    for T, C, base in ((7, 8, 10_000.0), (int(rng.integers(4, 9)), 6, 50.0), (5, 2, 10_000.0)):
        expected = _sinusoids(range(T), C, base)
        got = as_array(student(T, C, base), (T, C), "encoding")
        if close(got, expected):
            continue
        every = np.arange(T)[:, None] * base ** (-np.arange(C) / C)  # a frequency for each column
        one_each = np.where(np.arange(C) % 2, np.cos(every), np.sin(every))
        candidates = {
            "right numbers in another order: sines and cosines should take turns, column by "
            "column": np.concatenate([expected[:, 0::2], expected[:, 1::2]], axis=1),
            "the columns of a pair should share one frequency; yours has a frequency for each "
            "column": one_each,
            "sines belong in the even columns, counted from 0, and cosines in the odd ones": (
                _sinusoids(range(T), C, base, order="cs")
            ),
            "positions start at 0, yours at 1": _sinusoids(range(1, T + 1), C, base),
            "your frequencies grow with i; the exponent should be negative": _sinusoids(
                range(T), C, base, exponent=1.0
            ),
            "the exponent 2i/C is too large by a factor of 2: if your i goes 0, 2, 4, ..., it is "
            "2i already": _sinusoids(range(T), C, base, step=4.0),
            "the exponent is too small by a factor of 2": _sinusoids(range(T), C, base, step=1.0),
            "only sines: the odd columns should be cosines": _sinusoids(
                range(T), C, base, order="ss"
            ),
            "your result does not depend on the argument `base`": _sinusoids(range(T), C, 10_000.0),
        }
        _reject_known(got, candidates)
        if not close(got[:, 0] ** 2 + got[:, 1] ** 2, np.ones(T)):
            wrong("columns 0 and 1 should be sin and cos of one angle: their squares sum to 1")
        wrong(f"for T={T}, C={C} and base={base:g} the angles are not those of the formula")


def _shift(k: float, C: int, base: float, *, layout="interleaved", step=2.0) -> np.ndarray:
    """Build the matrix that moves an encoding, a row, k positions on."""
    matrix = np.zeros((C, C))
    for i in range(C // 2):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + C // 2)
        angle = k * base ** (-step * i / C)
        matrix[a, a] = matrix[b, b] = math.cos(angle)
        matrix[b, a], matrix[a, b] = math.sin(angle), -math.sin(angle)
    return matrix


@check()
def shift_matrix(student: Student, rng: np.random.Generator) -> None:
    """Exercise 5.2: the matrix that turns PE(t) into PE(t + k) for every t, shape (C, C)."""
    for k, C, base in ((3, 8, 10_000.0), (-2, 6, 100.0), (int(rng.integers(20, 60)), 4, 10_000.0)):
        got = as_array(student(k, C, base), (C, C), "matrix")
        places = np.concatenate([np.arange(5), rng.integers(5, 3000, size=20)])
        here, there = _sinusoids(places, C, base), _sinusoids(places + k, C, base)
        if close(here @ got, there, atol=1e-4):
            continue
        _reject_known(
            got,
            {
                f"your matrix moves a row {k} positions back instead of on: PE(t) is a row and "
                "stands on the left, PE(t) @ M": _shift(k, C, base).T,
                "your matrix fits an encoding with all sines first; here sines and cosines take "
                "turns": _shift(k, C, base, layout="half"),
                "your matrix fits an encoding with all sines first, and moves it back": (
                    _shift(k, C, base, layout="half").T
                ),
                "every pair turns by the same angle; each has a frequency of its own": _shift(
                    k, C, 1.0
                ),
                "every pair turns back by the same angle; each has a frequency of its own": (
                    _shift(k, C, 1.0).T
                ),
                "the exponent of the frequencies is 2i/C for pair i": _shift(k, C, base, step=1.0),
                "your result does not depend on the argument `base`": _shift(k, C, 10_000.0),
                "this moves by one position, not by k": _shift(1, C, base),
            },
        )
        fits = [close(row @ got, goal, atol=1e-4) for row, goal in zip(here, there, strict=True)]
        if any(fits):
            wrong("your matrix is right for some positions t, but one matrix must serve all")
        if not close(got @ got.T, np.eye(C)):
            wrong("your matrix changes lengths; a rotation does not: M @ M.T should be 1")
        wrong(f"PE(t) @ M is not PE(t + k) for k={k}, d_model={C}, base={base:g}")


def _rotate(x: np.ndarray, places: Any, base: float, *, layout="interleaved", sign=1, step=2.0):
    """Rotate by complex multiplication, pair by pair, with the chosen mistakes."""
    D, rotated = x.shape[-1], np.empty_like(x)
    for i in range(D // 2):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + D // 2)
        turn = np.exp(1j * sign * np.asarray(places) * base ** (-step * i / D))  # (T,)
        z = (x[..., a] + 1j * x[..., b]) * turn
        rotated[..., a], rotated[..., b] = z.real, z.imag
    return rotated


@check()
def rotate_interleaved(student: Student, rng: np.random.Generator) -> None:
    """Exercise 5.3: RoPE in the paper's layout, the first token standing at `start`."""
    for shape, start, base in (
        ((4, 6), 0, 10_000.0),
        ((2, 3, 5, 8), 0, 10_000.0),
        ((2, 4, 4), 7, 10_000.0),
        ((1, 6), int(rng.integers(10, 900)), 10_000.0),
        ((5, 6), 3, 50.0),
    ):
        x = rng.normal(size=shape)
        T, D = shape[-2:]
        places = np.arange(start, start + T)
        got = as_array(student(x, start, base), shape, "result")
        if close(got, _rotate(x, places, base)):
            continue
        angles = places[:, None] * base ** (-2 * np.arange(D // 2) / D)
        repeated = np.repeat(angles, 2, axis=1)
        right = _rotate(x, places, base)
        candidates = {
            "this is the layout in halves, pairs (i, i + D/2); here 2i and 2i + 1 are a pair": (
                _rotate(x, places, base, layout="half")
            ),
            "you turn by the negative angle": _rotate(x, places, base, sign=-1),
            "the tokens start at position 0, whatever `start` says": _rotate(x, np.arange(T), base),
            "every token is turned as if it stood at `start`; the next one stands at start + 1": (
                _rotate(x, np.full(T, start), base)
            ),
            "the positions are one too high": _rotate(x, places + 1, base),
            "your result does not depend on the argument `base`": _rotate(x, places, 10_000.0),
            "the exponent of the frequencies is 2i/D for pair i; yours is i/D": _rotate(
                x, places, base, step=1.0
            ),
            "right numbers, but all first components of the pairs come first: put each pair's "
            "two back side by side": np.concatenate([right[..., 0::2], right[..., 1::2]], -1),
            "each component is only scaled by its cosine: where is the other one of its pair?": (
                x * np.cos(repeated)
            ),
            "your second component uses the first one after it was already replaced": (
                _rotate_in_sequence(x, angles)
            ),
            "that adds an encoding to x; RoPE turns x": x
            + np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, D),
        }
        _reject_known(got, candidates)
        lengths = x[..., 0::2] ** 2 + x[..., 1::2] ** 2
        if not close(got[..., 0::2] ** 2 + got[..., 1::2] ** 2, lengths):
            wrong("the length of some pair (2i, 2i + 1) has changed, but a rotation keeps it")
        wrong(f"pairs keep their lengths, but for shape {shape}, start={start} the angles are off")


def _rotate_in_sequence(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Overwrite the first component before the second has used it."""
    rotated = x.copy()
    rotated[..., 0::2] = rotated[..., 0::2] * np.cos(angles) - rotated[..., 1::2] * np.sin(angles)
    rotated[..., 1::2] = rotated[..., 0::2] * np.sin(angles) + rotated[..., 1::2] * np.cos(angles)
    return rotated


def _scores(X: np.ndarray, W_Q: np.ndarray, W_K: np.ndarray, H: int, layout: str) -> np.ndarray:
    """Return the scores of rotated queries and keys, shape (H, T, T)."""
    heads = [(X @ W).reshape(len(X), H, -1).swapaxes(0, 1) for W in (W_Q, W_K)]
    q, k = (_rotate(x, np.arange(len(X)), 10_000.0, layout=layout) for x in heads)
    return q @ k.swapaxes(1, 2)


@check()
def to_half_layout(student: Student, rng: np.random.Generator) -> None:
    """Exercise 5.4: reorder a projection's columns, (C, H·D), for the layout in halves."""
    for C, H, D in ((5, 1, 6), (7, 3, 8), (24, 4, 6)):
        W_Q, W_K = rng.normal(size=(2, C, H * D))
        W_halves = [as_array(student(W, H), W.shape, "matrix") for W in (W_Q, W_K)]
        X = rng.normal(size=(9, C))
        ours, theirs = _scores(X, *W_halves, H, "half"), _scores(X, W_Q, W_K, H, "interleaved")
        if close(ours, theirs):
            continue
        order = [*range(0, D, 2), *range(1, D, 2)]
        per_head = W_Q.reshape(C, H, D)
        everything = np.concatenate([W_Q[:, 0::2], W_Q[:, 1::2]], axis=1)
        candidates = {
            "the matrix is unchanged": W_Q,
            "this reorders from halves to neighbours; the other way round is asked for": (
                per_head[:, :, np.argsort(order)].reshape(C, H * D)
            ),
            "you reorder all columns as if there were one head; each head has D columns of its "
            "own, next to each other": everything,
            "the columns of the heads are mixed up: head h has columns h·D to h·D + D - 1": (
                W_Q.reshape(C, D, H)[:, order].reshape(C, H * D)
            ),
        }
        if C == H * D:
            candidates["you reorder the rows; queries and keys are the columns of X W"] = (
                W_Q.reshape(H, D, C)[:, order].reshape(H * D, C)
            )
        _reject_known(W_halves[0], candidates)
        if not close(np.sort(W_halves[0], axis=1), np.sort(W_Q, axis=1)):
            wrong("the columns should be the same ones in another order; yours are not")
        wrong(f"the columns are reordered, but the scores differ for {H} heads of width {D}")


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@check()
def alibi_mask(student: Student, rng: np.random.Generator) -> None:
    """Exercise 5.5: what to add to the scores, causal mask included, shape (H, T_q, T_k)."""
    for H, T_q, T_k in ((2, 5, 5), (3, 2, 6), (1, 1, 4), (4, 3, 3)):
        slopes = rng.uniform(0.1, 1.0, size=H)
        m = slopes[:, None, None]
        t, s = np.arange(T_k - T_q, T_k)[:, None], np.arange(T_k)
        scores = rng.normal(size=(H, T_q, T_k))
        expected = np.where(s <= t, -m * (t - s), -np.inf)
        got = as_array(student(slopes, T_q, T_k), expected.shape, "mask").astype(float)
        if np.isnan(got).any():
            wrong("your mask has NaN: 0 times infinity is not a number; use np.where")
        if (got == -np.inf).all(axis=-1).any():
            wrong("some query can look at nothing at all")
        if np.isposinf(got).any():
            wrong("your mask has plus infinity: what becomes of it in the exponential?")
        # Judged by the weights, since a constant for a whole row changes nothing.
        if close(_softmax(scores + got), _softmax(scores + expected)):
            continue
        first = np.arange(T_q)[:, None]  # the queries as the first positions
        candidates = {
            "nothing is hidden: keys after the query need minus infinity": -m * abs(t - s),
            "keys after the query are not hidden, and even preferred": -m * (t - s),
            "the sign is the wrong way round: your scores rise with distance": np.where(
                s <= t, m * (t - s), -np.inf
            ),
            "keys after the query get 0, which hides nothing": np.where(s <= t, -m * (t - s), 0),
            "that is the causal mask alone; where are the slopes?": np.where(s <= t, 0, -np.inf)
            + 0 * m,
            "all heads fall alike; each has its own slope": np.where(s <= t, s - t, -np.inf)
            + 0 * m,
            "the queries are the last positions of the keys' sequence, yours are the first": (
                np.where(s <= first, -m * (first - s), -np.inf)
            ),
            "distances are counted from the first positions, though the mask is not": np.where(
                s <= t, -m * abs(first - s), -np.inf
            ),
            "you divide by the slopes instead of multiplying": np.where(
                s <= t, -(t - s) / m, -np.inf
            ),
            "a query may look at itself; the diagonal is hidden": np.where(
                s < t, -m * (t - s), -np.inf
            ),
        }
        for message, candidate in candidates.items():
            if np.allclose(got, candidate, rtol=1e-4, atol=1e-6):
                wrong(message)
        weights = _softmax(scores + got)
        if (weights[:, s > t] > 1e-12).any():
            wrong("some query can look into the future")
        wrong(f"nothing looks ahead, but the fall with distance is not right for {H} heads")


@check()
def stretched_base(student: Student, rng: np.random.Generator) -> None:
    """Exercise 5.6: the base with which the slowest pair turns `factor` times more slowly."""
    for base, D, factor in (
        (10_000.0, 64, 4.0),
        (100_000.0, 8, 2.0),
        (500.0, 4, float(rng.uniform(1.5, 9))),
        (10_000.0, 128, 1.0),
    ):
        got = as_number(student(base, D, factor), "base")
        expected = base * factor ** (D / (D - 2))
        if math.isclose(got, expected, rel_tol=1e-4):
            continue
        for message, mistaken in {
            "multiplying the base by the factor slows the slowest pair a little less than "
            "asked: its exponent is not -1 but -(D - 2)/D": base * factor,
            "the exponent is upside down": base * factor ** ((D - 2) / D),
            "the base is unchanged": base,
            "a smaller base makes the slow pairs faster": base / factor ** (D / (D - 2)),
            "a smaller base makes the slow pairs faster; and the exponent is not -1": base / factor,
            "that is the frequency of the slowest pair, not a base": base ** (-(D - 2) / D)
            / factor,
            "that exponent would be right for a slowest pair of i = D/2; the last one is "
            "D/2 - 1": base * factor ** (D / (D - 1)),
        }.items():
            if math.isclose(got, mistaken, rel_tol=1e-6):
                wrong(message)
        if got <= 0:
            wrong(f"a base should be positive, not {got:g}")
        slowed = got ** (-(D - 2) / D) / base ** (-(D - 2) / D)
        wrong(
            f"for D={D} the slowest pair should turn {factor:.3g} times more slowly; with your "
            f"base it turns {1 / slowed:.3g} times more slowly"
        )
