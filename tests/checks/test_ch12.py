"""Chapter 12's checks accept right answers in any form and reject plausible wrong ones."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import checks


def params(V, C, L, H, H_kv, d_hidden, tied, **wrong):
    kv = C // H * (H if wrong.get("full") else H_kv)
    attention = (1 if wrong.get("no_output") else 2) * C * C + 2 * C * kv
    block = attention + wrong.get("matrices", 3) * C * d_hidden + wrong.get("norms", 2) * C
    head = 0 if wrong.get("always_tied", tied) else V * C
    return L * block + wrong.get("final", C) + V * C + head


def params_loop(V, C, L, H, H_kv, d_hidden, tied):
    D = C // H
    total = V * C + C
    for _ in range(L):
        for rows, columns in ((H * D, C), (H_kv * D, C), (H_kv * D, C), (C, H * D)):
            total += rows * columns
        for _ in range(3):
            total += C * d_hidden
        total += C + C
    return np.int64(total if tied else total + V * C)


def wrong_params(**mistake):
    return lambda *sizes: params(*sizes, **mistake)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def swiglu_right(grad, gate, up):
    s = sigmoid(gate)
    return grad * up * (s + gate * s * (1 - s)), grad * gate * s


def swiglu_autograd(grad, gate, up):
    gate, up = (torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in (gate, up))
    (F.silu(gate) * up).backward(torch.tensor(grad, dtype=torch.float32))
    return [gate.grad, up.grad]


def wrong_swiglu(in_gate=None, in_up=None):
    def answer(grad, gate, up):
        right = swiglu_right(grad, gate, up)
        return (
            in_gate(grad, gate, up, sigmoid(gate)) if in_gate else right[0],
            in_up(grad, gate, up, sigmoid(gate)) if in_up else right[1],
        )

    return answer


def attend(queries, keys, values, spread=np.repeat, causal=True, scale=True):
    size = queries.shape[1] // keys.shape[1]
    keys, values = spread(keys, size), spread(values, size)
    scores = queries @ keys.swapaxes(-1, -2) / (queries.shape[-1] ** 0.5 if scale else 1)
    if causal:
        T = scores.shape[-1]
        scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values


def repeat(x, size):
    return x.repeat(size, axis=1)


def tile(x, size):
    return np.tile(x, (1, size, 1, 1))


def first(x, size):
    return x[:, :1].repeat(x.shape[1] * size, axis=1)


def grouped_right(queries, keys, values):
    return attend(queries, keys, values, repeat)


def grouped_torch(queries, keys, values):
    q, k, v = (torch.tensor(x, dtype=torch.float32) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def grouped_einsum(queries, keys, values):
    B, H, T, D = queries.shape
    G = keys.shape[1]
    q = queries.reshape(B, G, H // G, T, D)
    scores = np.einsum("bgntd,bgsd->bgnts", q, keys) / np.sqrt(D)
    scores[..., ~np.tri(T, dtype=bool)] = -1e30
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bgnts,bgsd->bgntd", weights, values).reshape(B, H, T, D)


def pool_right(weight, num_heads, num_kv_heads):
    C = weight.shape[1]
    return weight.reshape(num_kv_heads, num_heads // num_kv_heads, -1, C).mean(1).reshape(-1, C)


def pool_loops(weight, num_heads, num_kv_heads):
    D, size = len(weight) // num_heads, num_heads // num_kv_heads
    rows = []
    for g in range(num_kv_heads):
        for i in range(D):
            rows.append(sum(weight[(g * size + j) * D + i] for j in range(size)) / size)
    return torch.tensor(np.array(rows)).float()


RIGHT = {
    "grouped_cache_bytes": [
        lambda L, H_kv, D, T, B, each: 2 * L * H_kv * D * T * B * each,
        lambda L, H_kv, D, T, B, each: np.float64(np.prod([2, L, H_kv, D, T, B, each])),
    ],
    "llama_parameters": [params, params_loop],
    "swiglu_backward": [swiglu_right, swiglu_autograd],
    "grouped_query_attention": [grouped_right, grouped_torch, grouped_einsum],
    "pool_kv_heads": [pool_right, pool_loops],
}

WRONG = {
    "grouped_cache_bytes": [
        (lambda L, H, D, T, B, e: L * H * D * T * B * e, "keys and values are both kept"),
        (lambda L, H, D, T, B, e: 2 * L * H * D * T * B, "each takes several bytes"),
        (lambda L, H, D, T, B, e: 2 * H * D * T * B * e, "every layer keeps its own"),
        (lambda L, H, D, T, B, e: 2 * L * H * D * T * e, "each sequence of the batch"),
        (lambda L, H, D, T, B, e: 2 * L * H * D * B * e, "not only the newest"),
        (lambda L, H, D, T, B, e: 2 * L * D * T * B * e, "that is one head"),
        (lambda L, H, D, T, B, e: 16 * L * H * D * T * B * e, "bits"),
        (lambda L, H, D, T, B, e: 2 * L * H * D * T**2 * B * e, "not what the tensors"),
        (lambda L, H, D, T, B, e: None, "None"),
    ],
    "llama_parameters": [
        (wrong_params(full=True), "fewer heads than queries"),
        (wrong_params(matrices=2), "three matrices"),
        (wrong_params(no_output=True), "output projection of attention is missing"),
        (wrong_params(norms=0, final=0), "the norms have weights too"),
        (wrong_params(norms=1), "two norms"),
        (wrong_params(final=0), "last norm"),
        (wrong_params(norms=3), "off by"),
        (wrong_params(always_tied=True), "a matrix of its own"),
        (wrong_params(always_tied=False), "are one matrix"),
    ],
    "swiglu_backward": [
        (wrong_swiglu(lambda d, g, u, s: d * u * s), "half of the product rule"),
        (wrong_swiglu(lambda d, g, u, s: d * u * g * s * (1 - s)), "leaves z alone is there"),
        (wrong_swiglu(lambda d, g, u, s: d * u * s * (1 - s)), "slope of the sigmoid, without z"),
        (wrong_swiglu(lambda d, g, u, s: d * (s + g * s * (1 - s))), "up is missing"),
        (wrong_swiglu(lambda d, g, u, s: u * (s + g * s * (1 - s))), "incoming gradient"),
        (wrong_swiglu(in_up=lambda d, g, u, s: d * s), "not σ(gate)"),
        (wrong_swiglu(in_up=lambda d, g, u, s: d * g * s * u), "linear in it"),
        (lambda d, g, u: swiglu_right(d, g, u)[::-1], "other order"),
        (lambda d, g, u: swiglu_right(d, g, u)[0], "two things"),
    ],
    "grouped_query_attention": [
        (lambda q, k, v: attend(q, k, v, tile), "goes round"),
        (lambda q, k, v: attend(q, k, v, first), "first head"),
        (lambda q, k, v: attend(q, k, v, repeat, causal=False), "see the future"),
        (lambda q, k, v: attend(q, k, v, repeat, scale=False), "root of D"),
        (lambda q, k, v: attend(q, k[:, ::-1], v[:, ::-1], repeat), "reverse order"),
        (lambda q, k, v: attend(q, k, v, lambda x, size: x), "raised"),
        (lambda q, k, v: attend(q, k, v, repeat)[:, : k.shape[1]], "shape"),
    ],
    "pool_kv_heads": [
        (lambda w, H, G: pool_right(w, H, G) * (H // G), "take their mean"),
        (lambda w, H, G: w[: len(w) // H * G], "cuts rows off"),
        (
            lambda w, H, G: w.reshape(H, -1, w.shape[1])[:: H // G].reshape(-1, w.shape[1]),
            "first of its group",
        ),
        (
            lambda w, H, G: w.reshape(H // G, G, -1, w.shape[1]).mean(0).reshape(-1, w.shape[1]),
            "are G apart",
        ),
        (
            lambda w, H, G: w.reshape(-1, H // G, w.shape[1]).mean(1),
            "neighbouring rows",
        ),
        (lambda w, H, G: pool_right(w, H, G).T, "shape"),
    ],
}


def test_every_check_is_tested():
    assert set(RIGHT) == set(WRONG) == set(checks.names(12))


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in RIGHT for a in RIGHT[n]])
@pytest.mark.parametrize("seed", [0, 1])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(
    ("name", "answer", "words"), [(n, a, words) for n in WRONG for a, words in WRONG[n]]
)
def test_wrong_answers_are_told_what_is_wrong(name, answer, words):
    result = getattr(checks, name)(answer)
    assert result.status == "failed"
    assert words in result.message


@pytest.mark.parametrize("name", RIGHT)
def test_a_stub_is_not_an_answer(name):
    def stub(*args):
        raise NotImplementedError("Hint: ...")

    assert getattr(checks, name)(stub).status == "not attempted"
