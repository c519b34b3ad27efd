"""Chapter 4's checks accept right answers in any form and reject plausible wrong ones."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import attention, checks

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_by_loops(x, axis=-1):
    def one(row):
        exponentials = [math.exp(z - max(row)) for z in row]
        return np.array([e / sum(exponentials) for e in exponentials])

    return np.apply_along_axis(one, axis, x)


def both_masks(lengths, T):
    t, s = np.arange(T)[:, None], np.arange(T)
    return (s <= t), np.broadcast_to(s < np.asarray(lengths)[:, None, None], (len(lengths), T, T))


def attend(q, k, v, mask, *, scale=None, axis=-1, fill=-np.inf, after=False):
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = q @ k.swapaxes(1, 2) * scale
    if after:
        weights = softmax(scores, axis) * mask
        return (weights / weights.sum(-1, keepdims=True) if after == "again" else weights) @ v
    return np.nan_to_num(softmax(np.where(mask, scores, fill), axis)) @ v


def attend_by_loops(q, k, v, mask):
    output = np.zeros((*q.shape[:2], v.shape[-1]))
    for b, t in np.ndindex(*q.shape[:2]):
        seen = [s for s in range(k.shape[1]) if mask[b, t, s]]
        if seen:
            scores = [q[b, t] @ k[b, s] / q.shape[-1] ** 0.5 for s in seen]
            exponentials = [math.exp(z - max(scores)) for z in scores]
            for e, s in zip(exponentials, seen, strict=True):
                output[b, t] += e / sum(exponentials) * v[b, s]
    return output


def nan_on_empty_rows(q, k, v, mask):
    scores = np.where(mask, q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]), -np.inf)
    return softmax(scores) @ v


def unstable(q, k, v, mask):
    e = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])) * mask
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300) @ v


def in_32_bits(*arrays):
    return [array.astype(np.float32) for array in arrays]


def attend_added(q, k, v, mask):
    scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]) + np.where(mask, 0, -1e9)
    return softmax(scores) @ v * mask.any(-1, keepdims=True)


def by_torch(q, k, v, mask):
    q, k, v = (torch.tensor(x).float() for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.tensor(mask))


def back(t):
    return np.arange(t)[:, None] - np.arange(t)


def phi(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def linear_loop(q, k, v, *, feature=phi, exclusive=False, count=False, divide=True):
    memory, total, rows = np.zeros((q.shape[1], v.shape[1])), np.zeros(q.shape[1]), []
    for t in range(len(q)):
        fq, fk = feature(q[t]), feature(k[t])
        if not exclusive:
            memory, total = memory + np.outer(fk, v[t]), total + fk
        rows.append(fq @ memory / ((t + 1) if count else fq @ total if divide else 1))
        if exclusive:
            memory, total = memory + np.outer(fk, v[t]), total + fk
    return np.array(rows)


def linear_cumsum(q, k, v):
    memory = np.cumsum(phi(k)[:, :, None] * v[:, None, :], axis=0)
    return np.einsum("td,tdv->tv", phi(q), memory) / (phi(q) * phi(k).cumsum(0)).sum(1)[:, None]


def linear_torch(q, k, v):
    q, k, v = (torch.tensor(x) for x in (q, k, v))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    memory = (k[:, :, None] * v[:, None]).cumsum(0)
    return torch.einsum("td,tdv->tv", q, memory) / (q * k.cumsum(0)).sum(1, keepdim=True)


def linear_table(q, k, v, feature=phi, *, causal=True):
    fits = feature(q) @ feature(k).T
    fits = np.tril(fits) if causal else fits
    return fits @ v / fits.sum(1, keepdims=True)


def linear_causal_above_only(q, k, v):
    fits = phi(q) @ phi(k).T
    return np.tril(fits) @ v / fits.sum(1, keepdims=True)


def softmax_attention(q, k, v):
    return attention.scaled_dot_product_attention(q, k, v, attention.causal_mask(len(q)))[0]


RIGHT = {
    "stable_softmax": [
        softmax,
        softmax_by_loops,
        lambda x, axis=-1: torch.tensor(x).float().softmax(axis),
        lambda x, axis=-1: np.exp(x - np.logaddexp.reduce(x, axis=axis, keepdims=True)),
    ],
    "causal_padding_mask": [
        lambda n, T: both_masks(n, T)[0] & both_masks(n, T)[1],
        lambda n, T: [
            [[s <= t and s < int(length) for s in range(T)] for t in range(T)] for length in n
        ],
        lambda n, T: (
            torch.ones(T, T).tril().bool() & (torch.arange(T) < torch.tensor(n)[:, None, None])
        ),
        lambda n, T: attention.causal_mask(T) & attention.padding_mask(n, T)[:, None, :],
    ],
    "masked_attention": [
        attend_by_loops,
        by_torch,
        lambda q, k, v, mask: attention.scaled_dot_product_attention(q, k, v, mask)[0],
        lambda q, k, v, mask: attend(q, k, v, mask, fill=-1e30) * mask.any(-1, keepdims=True),
        attend_added,
        lambda q, k, v, mask: attend(*in_32_bits(q, k, v), mask),
    ],
    "tempered_softmax_backward": [
        lambda p, g, tau: p * (g - (p * g).sum(1, keepdims=True)) / tau,
        lambda p, g, tau: np.stack(
            [(np.diag(a) - np.outer(a, a)) @ b / tau for a, b in zip(p, g, strict=True)]
        ),
        lambda p, g, tau: torch.tensor(attention.softmax_backward(p, g) / tau).float(),
    ],
    "sliding_window_mask": [
        lambda T, w: (back(T) >= 0) & (back(T) < w),
        lambda T, w: np.tri(T, dtype=bool) & ~np.tri(T, k=-w, dtype=bool),
        lambda T, w: torch.ones(T, T).tril().triu(1 - w).bool(),
        lambda T, w: [[0 <= t - s <= w - 1 for s in range(T)] for t in range(T)],
    ],
    "linear_attention": [
        linear_loop,
        linear_cumsum,
        linear_torch,
        lambda q, k, v: linear_loop(*in_32_bits(q, k, v)),
    ],
}

WRONG = [
    ("stable_softmax", lambda x, axis=-1: np.exp(x), "divide them"),
    ("stable_softmax", lambda x, axis=-1: np.exp(x) / np.exp(x).sum(), "whole array|along that"),
    (
        "stable_softmax",
        lambda x, axis=-1: np.exp(x) / np.exp(x).sum(axis, keepdims=True),
        "near 1000.*overflow",
    ),
    (
        "stable_softmax",
        lambda x, axis=-1: np.exp(x - x.max()) / np.exp(x - x.max()).sum(axis, keepdims=True),
        "constant of its own",
    ),
    ("stable_softmax", lambda x, axis=-1: softmax(x), "last axis"),
    ("stable_softmax", lambda x, axis=-1: softmax(x, 0), "first axis"),
    ("stable_softmax", lambda x, axis=-1: np.log(softmax(x, axis)), "logarithm"),
    ("stable_softmax", lambda x, axis=-1: np.exp(x - x.max(axis, keepdims=True)), "not divided"),
    ("stable_softmax", lambda x, axis=-1: 1 / (1 + np.exp(-x)), "do not sum to 1"),
    ("stable_softmax", lambda x, axis=-1: softmax(2 * x, axis), "in proportion"),
    ("stable_softmax", lambda x, axis=-1: x / x.sum(axis, keepdims=True), "exponential"),
    (
        "stable_softmax",
        lambda x, axis=-1: (
            np.exp(x - x.mean(axis, keepdims=True))
            / np.exp(x - x.mean(axis, keepdims=True)).sum(axis, keepdims=True)
        ),
        "5000 overflow",
    ),
    (
        "stable_softmax",
        lambda x, axis=-1: np.exp(x) / np.maximum(np.exp(x).sum(axis, keepdims=True), 1e-9),
        "not right",
    ),
    ("stable_softmax", lambda x, axis=-1: softmax(np.clip(x, -700, 700), axis), "near 1000"),
    (
        "stable_softmax",
        lambda x, axis=-1: (
            np.exp(x - np.abs(x).max(axis, keepdims=True))
            / np.exp(x - np.abs(x).max(axis, keepdims=True)).sum(axis, keepdims=True)
        ),
        "near -1000.*underflow",
    ),
    ("stable_softmax", lambda x, axis=-1: None, "None"),
    ("causal_padding_mask", lambda n, T: ~(both_masks(n, T)[0] & both_masks(n, T)[1]), "True"),
    (
        "causal_padding_mask",
        lambda n, T: np.broadcast_to(both_masks(n, T)[0], (len(n), T, T)),
        "only the causal",
    ),
    ("causal_padding_mask", lambda n, T: both_masks(n, T)[1], "only the padding"),
    ("causal_padding_mask", lambda n, T: both_masks(n, T)[0] | both_masks(n, T)[1], "both"),
    ("causal_padding_mask", lambda n, T: both_masks(n, T)[0].T & both_masks(n, T)[1], "after"),
    (
        "causal_padding_mask",
        lambda n, T: both_masks(n, T)[0] & both_masks(n, T)[1].swapaxes(1, 2),
        "columns of padded keys",
    ),
    (
        "causal_padding_mask",
        lambda n, T: both_masks(n, T)[0] & both_masks(n, T)[1] & both_masks(n, T)[1].swapaxes(1, 2),
        "columns of padded keys",
    ),
    (
        "causal_padding_mask",
        lambda n, T: (back(T) > 0) & both_masks(n, T)[1],
        "diagonal",
    ),
    (
        "causal_padding_mask",
        lambda n, T: (back(T) >= 0) & (np.arange(T) <= n[:, None, None]),
        "too far",
    ),
    (
        "causal_padding_mask",
        lambda n, T: (back(T) >= 0) & (np.arange(T) >= T - n[:, None, None]),
        "look at padding",
    ),
    (
        "causal_padding_mask",
        lambda n, T: (back(T) >= 0) & (np.arange(T) < n[:, None, None] - 1),
        "too little",
    ),
    ("causal_padding_mask", lambda n, T: both_masks(n, T)[0], "shape"),
    ("causal_padding_mask", lambda n, T: (both_masks(n, T)[0] & both_masks(n, T)[1]) * 1, "bool"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, scale=1.0), "not divided"),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, m, scale=1 / q.shape[-1]),
        "square root",
    ),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, m, scale=q.shape[-1] ** 0.5),
        "multiply",
    ),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, m, scale=k.shape[1] ** -0.5),
        "number of keys",
    ),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, m, scale=v.shape[-1] ** -0.5),
        "width of the values",
    ),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, axis=1), "over the queries"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, after=True), "after the softmax"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, after="again"), "NaN"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, ~m), "inverted"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m | True), "no effect"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, fill=0), "not hidden"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, fill=-1e9), "average of all"),
    ("masked_attention", nan_on_empty_rows, "gets NaN"),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, m, fill=-1e4) * m.any(-1, keepdims=True),
        "lower than any",
    ),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, m, fill=-100) * m.any(-1, keepdims=True),
        "lower than any",
    ),
    (
        "masked_attention",
        lambda q, k, v, m: np.where(m, q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]), 0) @ v,
        "if all values are 1",
    ),
    (
        "masked_attention",
        lambda q, k, v, m: attend(q, k, v, np.broadcast_to(m[:1], m.shape)),
        "nobody may look at|weights are not|values are 1",
    ),
    ("masked_attention", unstable, "thousands"),
    (
        "masked_attention",
        lambda q, k, v, m: np.nan_to_num(attend(q, k, v, m, after="again")),
        "no hidden score",
    ),
    ("masked_attention", attention.scaled_dot_product_attention, "alone"),
    ("masked_attention", lambda q, k, v, m: attend(k, q, v, m), "raised"),
    ("masked_attention", lambda q, k, v, m: softmax(np.where(m, q @ k.mT, -1e9)), "shape"),
    ("masked_attention", lambda q, k, v, m: attend(q, k, v, m, scale=0.123), "of the formula"),
    ("tempered_softmax_backward", lambda p, g, tau: attention.softmax_backward(p, g), "not depend"),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: attention.softmax_backward(p, g) * tau,
        "multiply",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: attention.softmax_backward(p, g) / tau**2,
        "squared",
    ),
    ("tempered_softmax_backward", lambda p, g, tau: p * (1 - p) * g / tau, "diagonal"),
    ("tempered_softmax_backward", lambda p, g, tau: p * g / tau, "constant factor"),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: p * (g - (p * g).sum(0, keepdims=True)) / tau,
        "down the columns",
    ),
    ("tempered_softmax_backward", lambda p, g, tau: p * (g - (p * g).sum()) / tau, "whole table"),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: p * (g - g.sum(1, keepdims=True)) / tau,
        "weighted by p",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: p * (g - (p * g).mean(1, keepdims=True)) / tau,
        "mean of p",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: (g - (p * g).sum(1, keepdims=True)) / tau,
        "in front",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: (g - p * g.sum(1, keepdims=True)) / tau,
        "logarithm",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: -attention.softmax_backward(p, g) / tau,
        "sign",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: attention.softmax_backward(softmax(p / tau), g) / tau,
        "Jacobian times",
    ),
    ("tempered_softmax_backward", lambda p, g, tau: g, "sum to 0"),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: p * (g / tau - (p * g).sum(1, keepdims=True)),
        "sum to 0",
    ),
    (
        "tempered_softmax_backward",
        lambda p, g, tau: np.multiply(p, g - (p * g).sum(1, keepdims=True), out=p) / tau,
        "changes the arguments",
    ),
    ("sliding_window_mask", lambda T, w: (back(T) >= 0) & (back(T) <= w), "too wide"),
    ("sliding_window_mask", lambda T, w: (back(T) >= 0) & (back(T) < w - 1), "too narrow"),
    ("sliding_window_mask", lambda T, w: (back(T) > 0) & (back(T) <= w), "leaves out"),
    ("sliding_window_mask", lambda T, w: (back(T) > 0) & (back(T) < w), "leaves out"),
    ("sliding_window_mask", lambda T, w: abs(back(T)) < w, "both sides"),
    ("sliding_window_mask", lambda T, w: ((back(T) >= 0) & (back(T) < w)).T, "forward"),
    ("sliding_window_mask", lambda T, w: ~((back(T) >= 0) & (back(T) < w)), "True"),
    ("sliding_window_mask", lambda T, w: back(T) >= 0, "causal mask"),
    ("sliding_window_mask", lambda T, w: back(T) < w, "future"),
    ("sliding_window_mask", lambda T, w: ((back(T) >= 0) & (back(T) < w)) * 1.0, "boolean"),
    ("sliding_window_mask", lambda T, w: np.eye(T, dtype=bool), "fullest"),
    ("linear_attention", lambda q, k, v: linear_table(q, k, v, causal=False), "all keys"),
    ("linear_attention", linear_causal_above_only, "below the line is not"),
    ("linear_attention", lambda q, k, v: linear_loop(q, k, v, exclusive=True), "see itself"),
    (
        "linear_attention",
        lambda q, k, v: np.nan_to_num(linear_loop(q, k, v, exclusive=True)),
        "see itself",
    ),
    ("linear_attention", lambda q, k, v: linear_loop(q, k, v, divide=False), "not divided"),
    (
        "linear_attention",
        lambda q, k, v: linear_loop(q, k, v, count=True),
        "number of positions|not divided",
    ),
    ("linear_attention", lambda q, k, v: linear_loop(q, k, v, feature=lambda x: x), "φ is missing"),
    (
        "linear_attention",
        lambda q, k, v: linear_loop(q, k, v, feature=lambda x: np.maximum(x, 0)),
        "zero for negative",
    ),
    ("linear_attention", lambda q, k, v: linear_loop(q, k, v, feature=np.exp), "positive numbers"),
    (
        "linear_attention",
        lambda q, k, v: linear_loop(q, k, v, feature=lambda x: phi(x) - 1),
        r"lacks the \+ 1",
    ),
    ("linear_attention", softmax_attention, "softmax attention"),
    ("linear_attention", linear_table, "table of T × T"),
    ("linear_attention", lambda q, k, v: linear_loop(phi(q), k, v), "not φ"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_answers_are_rejected_for_the_right_reason(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert re.search(words, result.message), result


@pytest.mark.parametrize("name", RIGHT)
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert getattr(checks, name)(lambda *args, **kwargs: None).status == "failed"


def test_every_check_of_the_chapter_is_tested_with_at_least_four_wrong_answers():
    for name in checks.names(chapter=4):
        assert sum(case[0] == name for case in WRONG) >= 4, name
        assert len(RIGHT[name]) >= 2, name
