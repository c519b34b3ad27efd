"""Chapter 6's checks accept right answers in any form and reject plausible wrong ones."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import checks, layers_numpy

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
C0 = math.sqrt(2 / math.pi)


def split_loops(x, H):
    D = x.shape[-1] // H
    return np.stack([x[..., h * D : (h + 1) * D] for h in range(H)], axis=1)


def norm_torch(x, weight, bias, eps=1e-5):
    x, weight, bias = (torch.tensor(a).float() for a in (x, weight, bias))
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def norm_loops(x, weight, bias, eps=1e-5):
    def one(row):
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        return [(v - mean) / (variance + eps) ** 0.5 for v in row]

    return np.apply_along_axis(one, -1, x) * weight + bias


def norm(x, weight, bias, eps=1e-5, *, axis=-1, **options):
    mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True, **options)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def tanh_parts(x):
    t = np.tanh(C0 * (x + 0.044715 * x**3))
    return t, C0 * (1 + 3 * 0.044715 * x**2)


def gelu_right(grad, x):
    t, inner = tanh_parts(x)
    return grad * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner)


def gelu_autograd(grad, x):
    x = torch.tensor(x, requires_grad=True)
    F.gelu(x, approximate="tanh").backward(torch.tensor(grad))
    return x.grad


def gelu_loops(grad, x):
    def one(g, v):
        u = C0 * (v + 0.044715 * v**3)
        sech2 = 1 / math.cosh(u) ** 2
        return g * (0.5 * (1 + math.tanh(u)) + 0.5 * v * sech2 * C0 * (1 + 0.134145 * v * v))

    return np.vectorize(one)(grad, x)


def rms_parts(grad, x, weight, eps):
    r = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return r, x / r, grad * weight


def rms_right(grad, x, weight, eps=1e-5):
    r, n, g = rms_parts(grad, x, weight, eps)
    grad_x = (g - n * (g * n).mean(-1, keepdims=True)) / r
    return grad_x, (grad * n).reshape(-1, x.shape[-1]).sum(0)


def rms_autograd(grad, x, weight, eps=1e-5):
    x, weight = (torch.tensor(a).float().requires_grad_() for a in (x, weight))
    F.rms_norm(x, weight.shape, weight, eps).backward(torch.tensor(grad).float())
    return x.grad, weight.grad


def rms_loops(grad, x, weight, eps=1e-5):
    grad_x, grad_w = np.zeros_like(x), np.zeros_like(weight)
    C = x.shape[-1]
    for t in np.ndindex(*x.shape[:-1]):
        r = ((x[t] ** 2).mean() + eps) ** 0.5
        g = grad[t] * weight
        grad_w += grad[t] * x[t] / r
        grad_x[t] = g / r - x[t] * (g @ x[t]) / (C * r**3)
    return grad_x, grad_w


def rms_with(formula):
    """A wrong gradient in x, with the right one in the weight."""

    def answer(grad, x, weight, eps=1e-5):
        r, n, g = rms_parts(grad, x, weight, eps)
        return formula(g, n, r, x, grad), rms_right(grad, x, weight, eps)[1]

    return answer


def weight_with(formula):
    """A wrong gradient in the weight, with the right one in x."""

    def answer(grad, x, weight, eps=1e-5):
        r, n, g = rms_parts(grad, x, weight, eps)
        return rms_right(grad, x, weight, eps)[0], formula(g, n, r, x, grad)

    return answer


def count(d_model, d_hidden, bias=True, cross_attention=False):
    sublayers = 1 + cross_attention
    matrices = sublayers * 4 * d_model**2 + 2 * d_model * d_hidden
    biases = sublayers * 4 * d_model + d_hidden + d_model
    norms = (1 + sublayers) * d_model
    return matrices + norms + bias * (biases + norms)


def count_by_module(d_model, d_hidden, bias=True, cross_attention=False):
    from utils import layers

    block = layers.TransformerBlock(
        d_model, 1, d_hidden, bias=bias, cross_attention=cross_attention
    )
    return sum(p.numel() for p in block.parameters())


def part(params, name):
    return {k[len(name) + 1 :]: v for k, v in params.items() if k.startswith(name + ".")}


def pieces(params, H, mask):
    def attend(x):
        return layers_numpy.multi_head_attention(x, part(params, "attention"), H, mask)[0]

    def transform(x):
        return layers_numpy.feed_forward(x, part(params, "feed_forward"))[0]

    return attend, transform


def block_with(formula):
    def answer(x, params, num_heads, mask):
        attend, transform = pieces(params, num_heads, mask)
        n = norm(x, params["norm.weight"], params["norm.bias"])
        return formula(x, n, attend, transform)

    return answer


def block_torch(x, params, num_heads, mask):
    p = {k: torch.tensor(v) for k, v in params.items()}
    x, mask = torch.tensor(x), torch.tensor(mask)
    n = F.layer_norm(x, x.shape[-1:], p["norm.weight"], p["norm.bias"])
    B, T, C = x.shape
    q, k, v = (
        (n @ p[f"attention.{s}_proj.weight"] + p[f"attention.{s}_proj.bias"])
        .view(B, T, num_heads, -1)
        .transpose(1, 2)
        for s in ("query", "key", "value")
    )
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(B, T, C)
    a = heads @ p["attention.output_proj.weight"] + p["attention.output_proj.bias"]
    h = F.gelu(n @ p["feed_forward.up_proj.weight"] + p["feed_forward.up_proj.bias"])
    return x + a + h @ p["feed_forward.down_proj.weight"] + p["feed_forward.down_proj.bias"]


block_right = block_with(lambda x, n, attend, transform: x + attend(n) + transform(n))


def block_serial(x, params, num_heads, mask):
    attend, transform = pieces(params, num_heads, mask)
    w, b = params["norm.weight"], params["norm.bias"]
    x = x + attend(norm(x, w, b))
    return x + transform(norm(x, w, b))


def block_relu(x, params, num_heads, mask):
    attend, _ = pieces(params, num_heads, mask)
    n = norm(x, params["norm.weight"], params["norm.bias"])
    p = part(params, "feed_forward")
    hidden = np.maximum(n @ p["up_proj.weight"] + p["up_proj.bias"], 0)
    return x + attend(n) + hidden @ p["down_proj.weight"] + p["down_proj.bias"]


def block_wrong_split(x, params, num_heads, mask):
    B, T, C = x.shape
    n, p = norm(x, params["norm.weight"], params["norm.bias"]), part(params, "attention")
    q, k, v = (
        (n @ p[f"{s}_proj.weight"] + p[f"{s}_proj.bias"]).reshape(B, num_heads, T, -1)
        for s in ("query", "key", "value")
    )
    scores = np.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(C // num_heads), -np.inf)
    heads = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True) @ v
    a = heads.swapaxes(1, 2).reshape(B, T, C) @ p["output_proj.weight"] + p["output_proj.bias"]
    return x + a + pieces(params, num_heads, mask)[1](n)


RIGHT = {
    "split_into_heads": [
        lambda x, H: x.reshape(*x.shape[:2], H, -1).transpose(0, 2, 1, 3),
        split_loops,
        lambda x, H: torch.tensor(x).float().unflatten(-1, (H, -1)).transpose(1, 2),
        lambda x, H: np.stack(np.split(x, H, axis=-1), 1),
    ],
    "normalise_layer": [norm, norm_torch, norm_loops, layers_numpy.layer_norm],
    "gelu_tanh_backward": [
        gelu_right,
        gelu_autograd,
        gelu_loops,
        lambda g, x: gelu_right(g, x).astype(np.float32),
    ],
    "rms_norm_backward": [rms_right, rms_autograd, rms_loops],
    "count_block_parameters": [
        count,
        count_by_module,
        lambda *args, **kwargs: np.int64(count(*args, **kwargs)),
    ],
    "parallel_block": [block_right, block_torch],
}

WRONG = [
    ("split_into_heads", lambda x, H: x.reshape(x.shape[0], H, x.shape[1], -1), "reads on"),
    ("split_into_heads", lambda x, H: x.reshape(*x.shape[:2], H, -1), "step is missing"),
    (
        "split_into_heads",
        lambda x, H: x.reshape(*x.shape[:2], H, -1).transpose(0, 2, 3, 1),
        "too many axes",
    ),
    (
        "split_into_heads",
        lambda x, H: x.reshape(*x.shape[:2], H, -1).transpose(2, 0, 1, 3),
        "batch should stay",
    ),
    (
        "split_into_heads",
        lambda x, H: x.reshape(*x.shape[:2], -1, H).transpose(0, 3, 1, 2),
        "neighbouring",
    ),
    ("split_into_heads", lambda x, H: split_loops(x, H)[:, ::-1], "reverse"),
    ("split_into_heads", lambda x, H: split_loops(x, H)[:, :, ::-1], "right places"),
    ("split_into_heads", lambda x, H: 0 * split_loops(x, H), "missing or changed"),
    ("split_into_heads", lambda x, H: x, "shape"),
    ("split_into_heads", lambda x, H: None, "None"),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, w, b, 0), "eps"),
    (
        "normalise_layer",
        lambda x, w, b, eps=1e-5: (
            (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * w + b
        ),
        "outside the root",
    ),
    (
        "normalise_layer",
        lambda x, w, b, eps=1e-5: (
            (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) * w + b
        ),
        "its root",
    ),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, w, b, eps, ddof=1), "C - 1"),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, w, b, eps, axis=0), "first axis"),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, w, b, eps, axis=None), "whole array"),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, 1, 0, eps), "not used"),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, w, 0, eps), "bias is not added"),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, 1, b, eps), "weight is not used"),
    (
        "normalise_layer",
        lambda x, w, b, eps=1e-5: (norm(x, 1, 0, eps) + b) * w,
        "scale first",
    ),
    (
        "normalise_layer",
        lambda x, w, b, eps=1e-5: x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w + b,
        "RMSNorm",
    ),
    ("normalise_layer", lambda x, w, b, eps=1e-5: np.tanh(x) * w + b, "mean 0"),
    (
        "normalise_layer",
        lambda x, w, b, eps=1e-5: (x - x.mean(-1, keepdims=True)) * w + b,
        "spread is not",
    ),
    ("normalise_layer", lambda x, w, b, eps=1e-5: norm(x, w, b, 1e-5), "eps|spread"),
    ("gelu_tanh_backward", lambda g, x: gelu_right(np.ones_like(g), x), "from above"),
    (
        "gelu_tanh_backward",
        lambda g, x: g * 0.5 * (1 + tanh_parts(x)[0]),
        "second term",
    ),
    (
        "gelu_tanh_backward",
        lambda g, x: g * 0.5 * x * (1 - tanh_parts(x)[0] ** 2) * tanh_parts(x)[1],
        "factor in front",
    ),
    (
        "gelu_tanh_backward",
        lambda g, x: g * (0.5 * (1 + tanh_parts(x)[0]) + 0.5 * x * (1 - tanh_parts(x)[0] ** 2)),
        "chain rule",
    ),
    (
        "gelu_tanh_backward",
        lambda g, x: (
            g
            * (
                0.5 * (1 + tanh_parts(x)[0])
                + 0.5 * x * (1 - tanh_parts(x)[0] ** 2) * C0 * (1 + 0.044715 * x**2)
            )
        ),
        "factor 3",
    ),
    ("gelu_tanh_backward", layers_numpy.gelu_backward, "exact GELU"),
    ("gelu_tanh_backward", lambda g, x: 2 * gelu_right(g, x), "factor ½"),
    ("gelu_tanh_backward", lambda g, x: layers_numpy.gelu_tanh(x) * g, "forward pass times"),
    ("gelu_tanh_backward", lambda g, x: g * (x > 0), "finite difference"),
    ("gelu_tanh_backward", lambda g, x: np.sign(g) * gelu_right(1, x), "twice"),
    ("rms_norm_backward", lambda g, x, w, eps=1e-5: rms_right(g, x, w, eps)[0], "two things"),
    ("rms_norm_backward", rms_with(lambda g, n, r, x, grad: g / r), "constant"),
    (
        "rms_norm_backward",
        rms_with(lambda g, n, r, x, grad: (grad - n * (grad * n).mean(-1, keepdims=True)) / r),
        "weight is missing",
    ),
    (
        "rms_norm_backward",
        rms_with(
            lambda g, n, r, x, grad: (
                (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True)) / r
            )
        ),
        "LayerNorm",
    ),
    (
        "rms_norm_backward",
        rms_with(lambda g, n, r, x, grad: g - n * (g * n).mean(-1, keepdims=True)),
        "division by r",
    ),
    (
        "rms_norm_backward",
        rms_with(lambda g, n, r, x, grad: (g - n * (g * n).sum(-1, keepdims=True)) / r),
        "averaged over C",
    ),
    (
        "rms_norm_backward",
        rms_with(lambda g, n, r, x, grad: (g + n * (g * n).mean(-1, keepdims=True)) / r),
        "sign",
    ),
    (
        "rms_norm_backward",
        rms_with(lambda g, n, r, x, grad: (g - n * (g * n).mean()) / r),
        "each token",
    ),
    ("rms_norm_backward", lambda g, x, w, eps=1e-5: rms_right(g, x, w, 0.0), "eps"),
    ("rms_norm_backward", weight_with(lambda g, n, r, x, grad: grad * n), "shared by all"),
    (
        "rms_norm_backward",
        weight_with(lambda g, n, r, x, grad: (grad * n).reshape(-1, x.shape[-1]).mean(0)),
        "do not average",
    ),
    (
        "rms_norm_backward",
        weight_with(lambda g, n, r, x, grad: (grad * x).reshape(-1, x.shape[-1]).sum(0)),
        "not x",
    ),
    (
        "rms_norm_backward",
        weight_with(lambda g, n, r, x, grad: (g * n).reshape(-1, x.shape[-1]).sum(0)),
        "does not contain",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: count(C, 4 * C, bias, cross_attention),
        "need not be 4",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: count(C, d, True, cross_attention),
        "no biases here",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: count(C, d, bias, False),
        "not counted",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: (
            count(C, d, bias, cross_attention) - (2 + cross_attention) * C * (1 + bias)
        ),
        "norms have parameters",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: (
            count(C, d, bias, cross_attention) - cross_attention * C * (1 + bias)
        ),
        "norm of its own",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: (
            count(C, d, bias, cross_attention) + (not bias) * (2 + cross_attention) * C
        ),
        "lose their shift",
    ),
    (
        "count_block_parameters",
        lambda C, d, bias=True, cross_attention=False: count(C, d, bias, cross_attention) - C * C,
        "one matrix",
    ),
    ("count_block_parameters", lambda C, d, bias=True, cross_attention=False: 0, "too few"),
    ("parallel_block", block_serial, "usual block"),
    ("parallel_block", block_relu, "ReLU"),
    ("parallel_block", block_wrong_split, "hides it|one by one"),
    ("parallel_block", block_with(lambda x, n, attend, f: attend(n) + f(n)), "x itself"),
    (
        "parallel_block",
        block_with(lambda x, n, attend, f: n + attend(n) + f(n)),
        "never norm",
    ),
    ("parallel_block", block_with(lambda x, n, attend, f: x + attend(x) + f(x)), "nothing is"),
    ("parallel_block", block_with(lambda x, n, attend, f: x + f(attend(n))), "both should read"),
    ("parallel_block", block_with(lambda x, n, attend, f: x + attend(n) + f(x)), "network should"),
    ("parallel_block", block_with(lambda x, n, attend, f: x + attend(n)), "not added"),
    (
        "parallel_block",
        lambda x, params, H, mask: block_right(x, params, H, np.ones_like(mask)),
        "no effect",
    ),
    ("parallel_block", lambda x, params, H, mask: (block_right(x, params, H, mask), {}), "alone"),
    (
        "parallel_block",
        lambda x, params, H, mask: block_right(x, params, 1, mask),
        "one by one",
    ),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_are_told_why(name, answer, words):
    result = getattr(checks, name)(answer)
    assert result.status == "failed", result
    assert re.search(words, result.message), result.message


@pytest.mark.parametrize("name", RIGHT)
def test_each_check_has_enough_answers_and_knows_an_untouched_stub(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert len(RIGHT[name]) >= 2 and sum(wrong[0] == name for wrong in WRONG) >= 4
