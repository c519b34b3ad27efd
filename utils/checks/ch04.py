"""Checks for chapter 4: softmax, masks, attention and its gradient, windows, linear attention."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np

from utils.checks.engine import Student, as_array, check, close, reject_known, wrong


def _exp_ratio(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the softmax of moderate scores, as the formula says it."""
    return np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)


@check()
def stable_softmax(student: Student, rng: np.random.Generator) -> None:
    """Exercise 4.1: weights that are positive and sum to 1, for scores of any size."""
    for shape, axis in (((5,), -1), ((3, 4), -1), ((3, 4), 0), ((2, 3, 4), 1)):
        scores = rng.normal(size=shape)
        with np.errstate(all="ignore"):
            got = as_array(student(scores, axis), shape, "array of weights")
        expected = _exp_ratio(scores, axis)
        if close(got, expected):
            continue
        sums = "one sum for the whole array; the weights should sum to 1 along `axis`"
        reject_known(
            got,
            {
                "these are the exponentials; divide them by their sum": np.exp(scores),
                "these are not divided by their sum": np.exp(scores - scores.max(axis, keepdims=1)),
                "these are the logarithms of the weights": np.log(expected),
                f"you take {sums}": np.exp(scores) / np.exp(scores).sum(),
                "this always works along the last axis; look at the argument `axis`": _exp_ratio(
                    scores
                ),
                "this always works along the first axis; look at the argument `axis`": _exp_ratio(
                    scores, 0
                ),
                "the scores were divided by their sum: where is the exponential?": scores
                / scores.sum(axis=axis, keepdims=True),
            },
        )
        if not close(got.sum(axis=axis), np.ones_like(expected.sum(axis=axis))):
            wrong(f"for shape {shape} and axis={axis} the weights do not sum to 1 along that axis")
        wrong("the weights sum to 1, but they are not in proportion to exp(scores)")

    for shift, story in ((1000.0, "overflow to infinity"), (-1000.0, "all underflow to 0")):
        scores = shift + rng.normal(size=(2, 4))
        with np.errstate(all="ignore"):
            got = as_array(student(scores, -1), (2, 4), "array of weights")
        if not close(got, _exp_ratio(scores - shift)):
            wrong(f"for scores near {shift:.0f} your result is not right: the exponentials {story}")
    scores = rng.normal(size=(2, 4))
    with np.errstate(all="ignore"):
        got = as_array(
            student(scores + np.array([[0.0], [3000.0]]), -1), (2, 4), "array of weights"
        )
    if not close(got, _exp_ratio(scores)):
        wrong(
            "with one row near 0 and another near 3000 the lower row is lost: "
            "each row needs a constant of its own"
        )
    with np.errstate(all="ignore"):
        got = as_array(student(np.array([0.0, 10.0, 5000.0]), -1), (3,), "array of weights")
    if not close(got, [0, 0, 1]):
        wrong("scores 0, 10 and 5000 overflow: after the subtraction, which score is the largest?")


@check()
def causal_padding_mask(student: Student, rng: np.random.Generator) -> None:
    """Exercise 4.2: causal and padding mask of a batch, shape (B, T, T)."""
    for batch, max_len in ((1, 5), (3, 6), (5, 9), (4, 4)):
        lengths = rng.integers(1, max_len, size=batch)
        lengths[0] = max_len - 2
        expected = np.array(
            [
                [[s <= t and s < n for s in range(max_len)] for t in range(max_len)]
                for n in lengths.tolist()
            ]
        )
        got = as_array(student(lengths, max_len), expected.shape, "mask")
        if got.dtype != bool:
            wrong(f"the mask should be boolean, but yours is of dtype {got.dtype}")
        if np.array_equal(got, expected):
            continue
        t, s = np.arange(max_len)[:, None], np.arange(max_len)
        key = (s < lengths[:, None, None]) & np.ones_like(expected)  # (B, T, T): the key is real
        query = key.swapaxes(1, 2)
        causal = (s <= t) & np.ones_like(expected)
        reject_known(
            got,
            {
                "your mask says where a query may not look: True should mean 'may'": ~expected,
                "this is only the causal part: padded keys can still be looked at": causal,
                "this is only the padding part: queries can still look into the future": key,
                "a key is allowed if one of the conditions holds; it needs both": causal | key,
                "a word may look at itself too: the diagonal is missing": expected & (s != t),
                "this lets queries look at what comes after them and hides what came before: are "
                "queries along the rows?": (s >= t) & key,
                "you hide the rows of padded queries; it is the columns of padded keys that need "
                "hiding, and a row that may look at nothing is a trouble of its own": causal
                & query,
                "the mask reaches one key too far into the padding": causal
                & (s <= lengths[:, None, None]),
            },
        )
        if (got & ~causal).any():
            wrong("some query can look into the future")
        if (got & ~key).any():
            wrong("some query can look at padding")
        wrong("no query looks at the future or at padding, but some may look at too little")


def _attention(q, k, v, mask, *, divisor=None, axis=-1, place="before") -> np.ndarray:
    """Do attention by the formula, with the chosen mistakes."""
    scores = np.einsum("btd,bsd->bts", q, k) / (divisor or math.sqrt(q.shape[-1]))
    if place == "before":
        scores = np.where(mask, scores, -np.inf)
    elif place == "zero":
        scores = np.where(mask, scores, 0)
    elif place == "added":
        scores = scores + mask
    highest = scores.max(axis=axis, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0)
    weights = np.exp(scores - highest)
    total = weights.sum(axis=axis, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    return (weights * mask if place == "after" else weights) @ v


@check()
def masked_attention(student: Student, rng: np.random.Generator) -> None:
    """Exercise 4.3: scaled dot-product attention with a mask, shape (B, T_q, D_v)."""

    def outcome(q, k, v, mask):
        with np.errstate(all="ignore"):
            answer = student(q, k, v, mask)
        if isinstance(answer, tuple):
            wrong("return the output alone, without the weights")
        return as_array(answer, (*q.shape[:2], v.shape[-1]), "output")

    for B, T_q, T_k, D, D_v in ((2, 3, 5, 4, 7), (3, 4, 4, 9, 2), (1, 6, 2, 3, 5)):
        q, k, v = (rng.normal(size=s) for s in ((B, T_q, D), (B, T_k, D), (B, T_k, D_v)))
        mask = rng.random((B, T_q, T_k)) < 0.6
        mask[:, :, 0] = ~mask[:, :, -1]  # something to see and something hidden in each row
        args = q, k, v, mask
        got, expected = outcome(*args), _attention(*args)
        if close(got, expected):
            continue
        over_queries = _attention(*args, axis=1)
        reject_known(
            got,
            {
                "the scores are not divided by anything": _attention(*args, divisor=1),
                "you divide the scores by D; its square root is asked for": _attention(
                    *args, divisor=D
                ),
                "you multiply the scores by √D": _attention(*args, divisor=1 / math.sqrt(D)),
                "the scale is taken from the number of keys; take it from the width of queries and "
                "keys": _attention(*args, divisor=math.sqrt(T_k)),
                "the scale is taken from the number of queries; take it from the width of queries "
                "and keys": _attention(*args, divisor=math.sqrt(T_q)),
                "the scale is taken from the width of the values; queries and keys are what is "
                "multiplied": _attention(*args, divisor=math.sqrt(D_v)),
                "the softmax runs over the queries: here the weights of each key sum to 1, but "
                "those of each query should": over_queries,
                "the softmax runs over the sentences of the batch: the weights of each query "
                "should sum to 1": _attention(*args, axis=0),
                "hidden keys have no weight, but the visible weights sum to less than 1: is the "
                "mask applied after the softmax?": _attention(*args, place="after"),
                "the mask is inverted: True means that the query may look": _attention(
                    q, k, v, ~mask
                ),
                "the mask has no effect": _attention(*args, place="none"),
                "a hidden score of 0 is not hidden: what does the exponential make of it?": (
                    _attention(*args, place="zero")
                ),
                "the mask is added to the scores as ones and zeros, which hides nothing": (
                    _attention(*args, place="added")
                ),
            },
        )
        if not np.isfinite(got).all():
            wrong("your output has NaN or infinities, though each query may look at something")
        other = v.copy()
        hidden = ~mask.any(axis=1)  # (B, T_k): keys that no query may look at
        other[hidden] += 1
        if hidden.any() and not close(outcome(q, k, other, mask), got):
            wrong("changing a value that nobody may look at changes your output")
        if not close(outcome(q, k, np.ones_like(v), mask), np.ones_like(got)):
            wrong("if all values are 1, each average must be 1, but yours is not: do your weights "
                  "sum to 1 in each row?")  # fmt: skip
        wrong("each row of weights sums to 1, but the weights are not those of the formula")

    q, k, v = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 3))
    mask = rng.random((2, 3, 5)) < 0.5
    mask[:, :, 1] = True
    mask[0, 1] = False
    got = outcome(q, k, v, mask)
    if np.isnan(got).any():
        wrong("a query that may look at nothing gets NaN (0 divided by 0); its output should be 0")
    if close(got[0, 1], v[0].mean(axis=0)):
        wrong(
            "a query that may look at nothing gets the average of all values, as if it might look "
            "at everything; its output should be 0"
        )
    if not close(got[0, 1], np.zeros(3)):
        wrong(
            f"a query that may look at nothing should get zeros, not {np.round(got[0, 1], 3)}; is "
            "a large negative number added where the scores should be replaced?"
        )
    if not close(got, _attention(q, k, v, mask)):
        wrong("a query that may look at nothing spoils the output of the others")

    far_q, far_k = np.full_like(q, 100.0), np.full_like(k, -1000.0)
    far_k[:, 0] = 0.0  # hidden; the visible keys fit very badly, with scores of -200,000
    far_mask = np.arange(k.shape[1]) > np.zeros_like(mask)
    if np.any(outcome(far_q, far_k, np.where(far_k < 0, 1.0, 7.0)[..., :3], far_mask) > 1.01):
        wrong(
            "a query whose visible keys all have scores near -200,000 looks at hidden keys "
            "instead: what stands for a hidden score must be lower than any real one"
        )

    q, k = 100 * q, 100 * k
    k[:, 0] = 300 * q[:, 0]  # by far the largest score for the first query, and hidden
    mask[:, 0], mask[:, 0, 2:4] = False, True
    got = outcome(q, k, v, mask)
    if not close(got, _attention(q, k, v, mask)):
        wrong(
            f"with scores in the thousands your output is wrong (first row "
            f"{np.round(got[0, 0], 3)}): subtract the largest score before the exponential, and "
            "let no hidden score take part in it"
        )


@check()
def tempered_softmax_backward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 4.4: the gradient of softmax(z / temperature), shape (T, S)."""
    for rows, columns, temperature in ((3, 5, 1.0), (2, 4, 2.5), (6, 3, 0.3), (4, 4, 1.7)):
        p = rng.dirichlet(np.ones(columns), size=rows)
        g = rng.normal(size=(rows, columns))
        jacobians = [(np.diag(row) - np.outer(row, row)) / temperature for row in p]
        expected = np.stack([J @ grad for J, grad in zip(jacobians, g, strict=True)])
        got = as_array(student(p, g, temperature), (rows, columns), "gradient")
        if close(got, expected):
            continue
        plain, inner = expected * temperature, (p * g).sum(1, keepdims=True)
        candidates = {
            "right for a temperature of 1, but your answer does not depend on it: z / τ changes by "
            "how much when z does?": plain,
            "you multiply by the temperature: a higher one makes the weights respond less": plain
            * temperature,
            "the temperature enters once, through z / τ; yours is squared": plain / temperature**2,
            "the sign is the wrong way round": -expected,
            "raising one score lowers all other weights, because they share one sum; your answer "
            "has only the diagonal p(1 - p) of the Jacobian": p * (1 - p) * g / temperature,
            "the weights are not a constant factor: what happens to their sum?": p
            * g
            / temperature,
            "the sum runs down the columns; each query's row has a softmax of its own": p
            * (g - (p * g).sum(0, keepdims=True))
            / temperature,
            "the sum runs over the whole table; each row has a softmax of its own": p
            * (g - (p * g).sum())
            / temperature,
            "you subtract the plain sum of the gradient; it should be weighted by p": p
            * (g - g.sum(1, keepdims=True))
            / temperature,
            "you subtract a mean of p ∘ g; p sums to 1 already, so a sum is an average": p
            * (g - (p * g).mean(1, keepdims=True))
            / temperature,
            "you subtract the unweighted mean of the gradient; weight it by p": p
            * (g - g.mean(1, keepdims=True))
            / temperature,
            "the factor p in front is missing": (g - inner) / temperature,
            "that is the gradient of the logarithm of the softmax": (
                (g - p * g.sum(1, keepdims=True)) / temperature
            ),
        }
        reject_known(got, candidates)
        if not close(got.sum(1), np.zeros(rows), atol=1e-4):
            wrong(
                "adding a constant to a row of z does not change its softmax, so each row of the "
                f"gradient must sum to 0; yours sum to {np.round(got.sum(1), 3)}"
            )
        wrong("each row sums to 0 as it should, but the entries are not Jacobian times gradient")


@check()
def sliding_window_mask(student: Student, rng: np.random.Generator) -> None:
    """Exercise 4.5: each query sees itself and the window - 1 positions before it, (T, T)."""
    for seq_len, window in ((8, 3), (5, 1), (int(rng.integers(9, 13)), 4), (4, 9), (6, 6)):
        expected = np.array(
            [[s in range(t - window + 1, t + 1) for s in range(seq_len)] for t in range(seq_len)]
        )
        got = as_array(student(seq_len, window), (seq_len, seq_len), "mask")
        if got.dtype != bool:
            wrong(f"the mask should be boolean, but yours is of dtype {got.dtype}")
        if np.array_equal(got, expected):
            continue
        back = np.arange(seq_len)[:, None] - np.arange(seq_len)  # t - s
        reject_known(
            got,
            {
                "your mask says where a query may not look: True should mean 'may'": ~expected,
                "the window is one too wide: it includes the position itself": (back >= 0)
                & (back <= window),
                "the window is one too narrow": (back >= 0) & (back < window - 1),
                "the window leaves out the position itself": (back > 0) & (back <= window),
                "the window leaves out the position itself, and is one too short": (back > 0)
                & (back < window),
                "the window opens to both sides, so queries see the future": abs(back) < window,
                "the window opens to both sides, so queries see the future, and it is one too "
                "wide": abs(back) <= window,
                "the window looks forward; are the queries along the rows?": (-back >= 0)
                & (-back < window),
                "this is the causal mask: queries see further back than the window": back >= 0,
                "queries see the future": back < window,
            },
        )
        if (got & (back < 0)).any():
            wrong("some query can look into the future")
        seen = got.sum(axis=1).max()
        wrong(
            f"for seq_len={seq_len} and window={window} no query looks ahead, but the rows are "
            f"not right; the fullest one sees {seen} positions"
        )


def _linear_attention(q, k, v, feature, *, causal="both", exclusive=False) -> np.ndarray:
    """Do linear attention the quadratic way, with the chosen mistakes."""
    fits = feature(q) @ feature(k).T
    visible = np.tri(len(q), k=-1 if exclusive else 0)
    above = fits * visible if causal in ("both", "above") else fits
    below = fits * visible if causal in ("both", "below") else fits
    with np.errstate(all="ignore"):
        return (above @ v) / below.sum(axis=1, keepdims=True)


def _phi(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


@check(time_limit=20.0)
def linear_attention(student: Student, rng: np.random.Generator) -> None:
    """Exercise 4.6: causal linear attention, shape (T, D_v), with no (T, T) table."""

    def outcome(q, k, v):
        with np.errstate(all="ignore"):
            return as_array(student(q, k, v), (len(q), v.shape[1]), "output")

    for T, D, D_v in ((5, 3, 2), (8, 2, 6), (12, 4, 4), (1, 3, 2)):
        q, k, v = rng.normal(size=(T, D)), rng.normal(size=(T, D)), rng.normal(size=(T, D_v))
        got, expected = outcome(q, k, v), _linear_attention(q, k, v, _phi)
        if close(got, expected):
            continue
        if T == 1:
            wrong("with one position there is one value to average, so the output must be it")
        fits = (_phi(q) @ _phi(k).T) * np.tri(T)
        with np.errstate(all="ignore"):
            softmax = np.where(np.tri(T), np.exp(q @ k.T / math.sqrt(D)), 0)
            candidates = {
                "every query sees all keys: use sums over s ≤ t": _linear_attention(
                    q, k, v, _phi, causal="no"
                ),
                "the numerator is causal, the sum below the line is not": _linear_attention(
                    q, k, v, _phi, causal="above"
                ),
                "the sum below the line is causal, the numerator is not": _linear_attention(
                    q, k, v, _phi, causal="below"
                ),
                "position t should see itself: add its key and value to the sums before you use "
                "them": _linear_attention(q, k, v, _phi, exclusive=True),
                "position t should see itself; the first position has something to average": (
                    np.nan_to_num(_linear_attention(q, k, v, _phi, exclusive=True))
                ),
                "the sum is not divided by the sum of the fits": fits @ v,
                "you divide by the number of positions, not by the sum of the fits": fits
                @ v
                / np.arange(1, T + 1)[:, None],
                "φ is missing: these are the plain dot products": _linear_attention(
                    q, k, v, lambda x: x
                ),
                "your φ is zero for negative numbers; there it should be e^x": _linear_attention(
                    q, k, v, lambda x: np.maximum(x, 0)
                ),
                "your φ lacks the + 1: it should be positive everywhere": _linear_attention(
                    q, k, v, lambda x: _phi(x) - 1
                ),
                "your φ is e^x for positive numbers too": _linear_attention(q, k, v, np.exp),
                "φ belongs to the queries as well as to the keys": (
                    (fits := (q @ _phi(k).T) * np.tri(T)) @ v / fits.sum(1, keepdims=True)
                ),
                "φ belongs to the keys as well as to the queries": (
                    (fits := (_phi(q) @ k.T) * np.tri(T)) @ v / fits.sum(1, keepdims=True)
                ),
                "this is the softmax attention of the chapter": (
                    softmax @ v / softmax.sum(1, keepdims=True)
                ),
            }
        reject_known(got, candidates)
        if np.isnan(got).any():
            wrong(
                "your output has NaN: do the sums have position t in them when you divide by them?"
            )
        later = v.copy()
        later[-1] += 10
        if not close(outcome(q, k, later)[:-1], got[:-1]):
            wrong("changing the last value changes earlier outputs: they see the future")
        if not close(outcome(q, k, np.ones_like(v)), np.ones_like(v)):
            wrong("if all values are 1, each average must be 1, but yours is not")
        wrong("these are causal averages, but their weights are not φ(q) · φ(k)")

    T = 3000
    q, k, v = rng.normal(size=(T, 4)), rng.normal(size=(T, 4)), rng.normal(size=(T, 3))
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        outcome(q, k, v)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not already:
            tracemalloc.stop()
    if peak - before > T * T:  # bytes; a table of T x T booleans would take that many
        wrong(
            f"right, but for T = {T:,} your function takes {(peak - before) / 2**20:,.0f} MiB: it "
            "makes a table of T × T. The two running sums do not need one"
        )
