"""Chapter 5's checks accept right answers in any form and reject plausible wrong ones."""

import re

import numpy as np
import pytest
import torch

from utils import checks


def sinusoids(T, C, base, start=0):
    angles = np.arange(start, start + T)[:, None] / base ** (np.arange(0, C, 2) / C)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(T, C)


def sinusoids_loop(T, C, base):
    table = [[0.0] * C for _ in range(T)]
    for t in range(T):
        for j in range(C):
            angle = t * base ** (-(j // 2) * 2 / C)
            table[t][j] = np.cos(angle) if j % 2 else np.sin(angle)
    return table


def sinusoids_torch(T, C, base):
    angles = torch.arange(T)[:, None] * base ** (-torch.arange(0, C, 2) / C)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def sinusoids_all_columns(T, C, base):
    angles = np.arange(T)[:, None] * base ** (-np.arange(C) / C)
    return np.where(np.arange(C) % 2, np.cos(angles), np.sin(angles))


def split_sinusoids(T, C, base):
    table = sinusoids(T, C, base)
    return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)


def shift(k, C, base):
    M = np.zeros((C, C))
    for i in range(0, C, 2):
        c, s = np.cos(k * base ** (-i / C)), np.sin(k * base ** (-i / C))
        M[i : i + 2, i : i + 2] = [[c, -s], [s, c]]
    return M


def shift_by_blocks(k, C, base):
    w = torch.tensor(base, dtype=torch.float64) ** (-torch.arange(0, C, 2) / C)
    c, s = (k * w).cos(), (k * w).sin()
    return torch.block_diag(
        *(torch.tensor([[x, -y], [y, x]]) for x, y in zip(c.tolist(), s.tolist(), strict=True))
    )


def shift_by_power(k, C, base):
    return np.linalg.matrix_power(shift(1, C, base), k) if k >= 0 else shift(-k, C, base).T


def shift_in_halves(k, C, base):
    order = [*range(0, C, 2), *range(1, C, 2)]
    return shift(k, C, base)[np.ix_(order, order)]


def shift_from_one_row(k, C, base):
    """Fit position 0 alone."""
    here, there = sinusoids(1, C, base), sinusoids(1, C, base, start=k)
    return np.linalg.pinv(here) @ there


def angles_of(x, start, base):
    T, D = x.shape[-2:]
    return np.arange(start, start + T)[:, None] * base ** (-np.arange(0, D, 2) / D)


def rotate(x, start, base=10_000.0, sign=1):
    angles = sign * angles_of(x, start, base)
    a, b = x[..., 0::2], x[..., 1::2]
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([a * c - b * s, a * s + b * c], axis=-1).reshape(x.shape)


def rotate_complex(x, start, base=10_000.0):
    z = np.ascontiguousarray(x).view(np.complex128)  # neighbours are a complex number already
    return (z * np.exp(1j * angles_of(x, start, base))).view(np.float64)


def rotate_torch(x, start, base=10_000.0):
    x, angles = torch.tensor(x, dtype=torch.float32), torch.tensor(angles_of(x, start, base))
    cos, sin = (f.repeat_interleave(2, -1).float() for f in (angles.cos(), angles.sin()))
    partner = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
    return x * cos + partner * sin


def rotate_halves(x, start, base=10_000.0):
    a, b = np.split(x, 2, axis=-1)
    c, s = np.cos(angles_of(x, start, base)), np.sin(angles_of(x, start, base))
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def rotate_uninterleaved(x, start, base=10_000.0):
    y = rotate(x, start, base)
    return np.concatenate([y[..., 0::2], y[..., 1::2]], axis=-1)


def rotate_in_place(x, start, base=10_000.0):
    c, s = np.cos(angles_of(x, start, base)), np.sin(angles_of(x, start, base))
    x[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
    return x


def rotate_in_sequence(x, start, base=10_000.0):
    c, s = np.cos(angles_of(x, start, base)), np.sin(angles_of(x, start, base))
    y = x.copy()
    y[..., 0::2] = y[..., 0::2] * c - y[..., 1::2] * s
    y[..., 1::2] = y[..., 0::2] * s + y[..., 1::2] * c
    return y


def halves(D):
    return [*range(0, D, 2), *range(1, D, 2)]


def by_head(W, H):
    C, D = W.shape[0], W.shape[1] // H
    return W.reshape(C, H, D)[:, :, halves(D)].reshape(C, H * D)


def by_loop(W, H):
    D = W.shape[1] // H
    columns = [h * D + j for h in range(H) for j in halves(D)]
    return torch.tensor(W)[:, columns]


def by_transpose(W, H):
    C, D = W.shape[0], W.shape[1] // H
    return W.reshape(C, H, D // 2, 2).transpose(0, 1, 3, 2).reshape(C, H * D)


def backwards(W, H):
    C, D = W.shape[0], W.shape[1] // H
    return W.reshape(C, H, 2, D // 2).transpose(0, 1, 3, 2).reshape(C, H * D)


def rows_instead(W, H):
    if W.shape[0] != W.shape[1]:
        return by_head(W, H)
    return by_head(W.T, H).T


def places(T_q, T_k):
    return np.arange(T_k - T_q, T_k)[:, None], np.arange(T_k)


def alibi(m, T_q, T_k):
    t, s = places(T_q, T_k)
    return np.where(s <= t, -m[:, None, None] * (t - s), -np.inf)


def alibi_like_bloom(m, T_q, T_k):
    t, s = places(T_q, T_k)
    return np.where(s <= t, m[:, None, None] * s, -np.inf)


def alibi_torch(m, T_q, T_k):
    distance = torch.arange(T_k - T_q, T_k)[:, None] - torch.arange(T_k)
    bias = -torch.tensor(m)[:, None, None] * distance
    return bias.masked_fill(distance < 0, -torch.inf)


def alibi_loop(m, T_q, T_k):
    bias = np.full((len(m), T_q, T_k), -1e9)
    for h, t, s in np.ndindex(bias.shape):
        back = t + T_k - T_q - s
        if back >= 0:
            bias[h, t, s] = -m[h] * back
    return bias


def alibi_from_the_first(m, T_q, T_k):
    t, s = np.arange(T_q)[:, None], np.arange(T_k)
    return np.where(s <= t, -m[:, None, None] * (t - s), -np.inf)


def changed(f, g):
    """Apply `g` to the distances, then hide the future."""

    def answer(m, T_q, T_k):
        t, s = places(T_q, T_k)
        return np.where(f(t, s), g(m[:, None, None], t - s), -np.inf)

    return answer


@np.errstate(invalid="ignore")
def alibi_nan(m, T_q, T_k):
    t, s = places(T_q, T_k)
    return -m[:, None, None] * (t - s) + np.where(s <= t, 0, 1) * -np.inf


RIGHT = {
    "sinusoidal_encoding": [sinusoids, sinusoids_loop, sinusoids_torch],
    "shift_matrix": [shift, shift_by_blocks, shift_by_power],
    "rotate_interleaved": [rotate, rotate_complex, rotate_torch],
    "to_half_layout": [by_head, by_loop, by_transpose],
    "alibi_mask": [alibi, alibi_like_bloom, alibi_torch, alibi_loop],
    "stretched_base": [
        lambda b, D, f: b * f ** (D / (D - 2)),
        lambda b, D, f: (b ** ((D - 2) / D) * f) ** (D / (D - 2)),
        lambda b, D, f: torch.tensor(b, dtype=torch.float32) * f ** (1 / (1 - 2 / D)),
    ],
}
WRONG = [
    ("sinusoidal_encoding", split_sinusoids, "take turns"),
    ("sinusoidal_encoding", sinusoids_all_columns, "share one frequency"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, b, start=1), "yours at 1"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, 1 / b), "negative"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, b**2), "too large by a factor"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, b**0.5), "too small"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, 10_000.0), "argument `base`"),
    (
        "sinusoidal_encoding",
        lambda T, C, b: sinusoids(T, C, b).reshape(T, -1, 2)[..., ::-1].reshape(T, C),
        "even columns",
    ),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, b).T, "shape"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, b) * 0.5, "sum to 1"),
    ("sinusoidal_encoding", lambda T, C, b: sinusoids(T, C, b + 1000), "not those of the formula"),
    ("shift_matrix", lambda k, C, b: shift(k, C, b).T, "back instead of on"),
    ("shift_matrix", shift_in_halves, "all sines first"),
    ("shift_matrix", lambda k, C, b: shift(k, C, 1.0), "frequency of its own"),
    ("shift_matrix", lambda k, C, b: shift(k, C, 10_000.0), "argument `base`"),
    ("shift_matrix", lambda k, C, b: shift(k, C, b**0.5), "exponent"),
    ("shift_matrix", lambda k, C, b: shift(1, C, b), "by one position"),
    ("shift_matrix", shift_from_one_row, "one matrix must serve all"),
    ("shift_matrix", lambda k, C, b: np.eye(C) * np.cos(k), "changes lengths"),
    ("shift_matrix", lambda k, C, b: np.eye(C), "is not PE"),
    ("shift_matrix", lambda k, C, b: shift(k, C, b)[0], "shape"),
    ("rotate_interleaved", rotate_halves, "layout in halves"),
    ("rotate_interleaved", lambda x, t, b: rotate(x, t, b, sign=-1), "negative angle"),
    ("rotate_interleaved", lambda x, t, b: rotate(x, 0, b), "start at position 0"),
    (
        "rotate_interleaved",
        lambda x, t, b: rotate(x.swapaxes(0, 0), t + 1, b),
        "one too high",
    ),
    ("rotate_interleaved", lambda x, t, b: rotate(x, t), "argument `base`"),
    ("rotate_interleaved", lambda x, t, b: rotate(x, t, b**0.5), "i/D"),
    ("rotate_interleaved", rotate_uninterleaved, "side by side"),
    (
        "rotate_interleaved",
        lambda x, t, b: x * np.cos(np.repeat(angles_of(x, t, b), 2, axis=1)),
        "only scaled",
    ),
    ("rotate_interleaved", rotate_in_place, "changes the arguments"),
    ("rotate_interleaved", rotate_in_sequence, "already replaced"),
    (
        "rotate_interleaved",
        lambda x, t, b: x + sinusoids(x.shape[-2], x.shape[-1], b, start=t),
        "adds an encoding",
    ),
    ("rotate_interleaved", lambda x, t, b: rotate(x, t, b) * 2, "length of some pair"),
    ("rotate_interleaved", lambda x, t, b: rotate(x, 2 * t + 5, b), "angles are off"),
    ("to_half_layout", lambda W, H: W, "unchanged"),
    ("to_half_layout", backwards, "other way round"),
    ("to_half_layout", lambda W, H: by_head(W, 1), "one head"),
    ("to_half_layout", rows_instead, "rows"),
    (
        "to_half_layout",
        lambda W, H: (
            by_head(W, H)
            if H == 1
            else W.reshape(len(W), -1, H)[:, halves(W.shape[1] // H)].reshape(W.shape)
        ),
        "mixed up",
    ),
    ("to_half_layout", lambda W, H: 2 * by_head(W, H), "same ones in another order"),
    ("to_half_layout", lambda W, H: W[:, ::-1], "scores differ"),
    ("to_half_layout", lambda W, H: by_head(W, H).T, "shape"),
    ("alibi_mask", changed(lambda t, s: s < 99, lambda m, d: -m * abs(d)), "nothing is hidden"),
    ("alibi_mask", changed(lambda t, s: s < 99, lambda m, d: -m * d), "even preferred"),
    ("alibi_mask", changed(lambda t, s: s <= t, lambda m, d: m * d), "sign"),
    ("alibi_mask", lambda m, q, k: np.maximum(alibi(m, q, k), -1e-9) * 1, "causal|look|fall"),
    ("alibi_mask", lambda m, q, k: np.where(np.isinf(alibi(m, q, k)), 0, alibi(m, q, k)), "get 0"),
    ("alibi_mask", changed(lambda t, s: s <= t, lambda m, d: 0 * m * d), "causal mask alone"),
    ("alibi_mask", changed(lambda t, s: s <= t, lambda m, d: 0 * m - d), "own slope"),
    ("alibi_mask", alibi_from_the_first, "last positions"),
    ("alibi_mask", changed(lambda t, s: s <= t, lambda m, d: -d / m), "divide"),
    ("alibi_mask", changed(lambda t, s: s < t, lambda m, d: -m * d), "nothing at all"),
    ("alibi_mask", alibi_nan, "NaN"),
    ("alibi_mask", changed(lambda t, s: s <= t, lambda m, d: -m * d**2), "fall with distance"),
    ("alibi_mask", lambda m, q, k: -alibi(m, q, k), "plus infinity"),
    ("alibi_mask", lambda m, q, k: alibi(m, q, k)[0], "shape"),
    ("stretched_base", lambda b, D, f: b * f, "a little less"),
    ("stretched_base", lambda b, D, f: b * f ** ((D - 2) / D), "upside down"),
    ("stretched_base", lambda b, D, f: b, "unchanged"),
    ("stretched_base", lambda b, D, f: b / f ** (D / (D - 2)), "smaller base"),
    ("stretched_base", lambda b, D, f: b / f, "smaller base"),
    ("stretched_base", lambda b, D, f: b ** (-(D - 2) / D) / f, "not a base"),
    ("stretched_base", lambda b, D, f: b * f ** (D / (D - 1)), "D/2 - 1"),
    ("stretched_base", lambda b, D, f: b * f**2, "times more slowly"),
    ("stretched_base", lambda b, D, f: -b, "positive"),
    ("stretched_base", lambda b, D, f: [b, f], "one number"),
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


def test_every_check_of_the_chapter_is_tested_with_at_least_four_wrong_answers():
    for name in checks.names(chapter=5):
        assert sum(case[0] == name for case in WRONG) >= 4, name
        assert len(RIGHT[name]) >= 2, name
