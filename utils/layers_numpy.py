"""The parts of a Transformer block in numpy, forwards and backwards, as chapter 6 derives them.

Written to be read and to be compared with, not to be fast. Linear layers are `x @ W + b` with W of
shape (C_in, C_out), as in the text; torch's `nn.Linear` keeps the transpose.
`block_numpy` puts the parts together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.arguments import (
    as_array,
    as_float_entries,
    as_floats,
    as_list,
    as_positive,
    as_whole_number,
    check_entries,
)
from utils.attention import scaled_dot_product_attention, scaled_dot_product_attention_backward

FloatArray = NDArray[np.floating[Any]]
Parameters = dict[str, FloatArray]
Cache = dict[str, Any]

_erf = np.vectorize(math.erf, otypes=[float])


def split_heads(x: Any, num_heads: int) -> Any:
    """Cut the features of each token into heads.

    The features are cut first, (..., T, C) to (..., T, H, D), and only then do heads and positions
    change places. A single reshape to (..., H, T, D) has the right shape and mixes up tokens.

    Parameters
    ----------
    x : numpy.ndarray or torch.Tensor, shape (..., T, C)
    num_heads : int
        H; it must divide C.

    Returns
    -------
    numpy.ndarray or torch.Tensor, shape (..., H, T, D)
        With D = C / H.

    Raises
    ------
    TypeError, ValueError
        If `x` is no array or has fewer than two axes, or `num_heads` does not divide C.
    """
    _check_axes("x", x, 2, "(..., T, C)")
    width, num_heads = x.shape[-1], as_whole_number("num_heads", num_heads, 1)
    if width % num_heads:
        raise ValueError(
            f"{width} features cannot be split evenly into {num_heads} heads: "
            "choose num_heads that divides d_model"
        )
    return x.reshape(*x.shape[:-1], num_heads, width // num_heads).swapaxes(-3, -2)


def merge_heads(x: Any) -> Any:
    """Undo `split_heads`: (..., H, T, D) to (..., T, C), the heads side by side."""
    _check_axes("x", x, 3, "(..., H, T, D)")
    x = x.swapaxes(-3, -2)  # (..., T, H, D)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def _check_axes(name: str, x: Any, least: int, shape: str) -> None:
    """Raise unless something is an array or tensor of at least so many axes."""
    if not hasattr(x, "swapaxes") or not hasattr(x, "shape"):
        raise TypeError(f"{name} should be an array or a tensor, not a {type(x).__name__}")
    if len(x.shape) < least:
        raise ValueError(f"{name} should have shape {shape}, not {tuple(x.shape)}")


def layer_norm(
    x: FloatArray, weight: FloatArray, bias: FloatArray, eps: float = 1e-5
) -> FloatArray:
    """Give each token's features mean 0 and variance 1, then scale and shift each feature.

    Ba, Kiros and Hinton (2016), equations 3 and 4, over the last axis.

    Parameters
    ----------
    x : numpy.ndarray, shape (..., C)
    weight, bias : numpy.ndarray, shape (C,)
    eps : float
        Added to the variance, so that a token whose features are all equal gives `bias`.

    Returns
    -------
    numpy.ndarray, shape (..., C)

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite numbers or has another shape, or `eps` is not above 0.
    """
    x, weight, bias = _as_features(x=x, weight=weight, bias=bias)
    normalised, _ = _normalise(x, as_positive("eps", eps))
    return normalised * weight + bias


def layer_norm_backward(
    grad_output: FloatArray, x: FloatArray, weight: FloatArray, eps: float = 1e-5
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Carry a gradient back through `layer_norm`.

    Parameters
    ----------
    grad_output : numpy.ndarray, shape (..., C)
    x, weight, eps
        As given to `layer_norm`.

    Returns
    -------
    grad_x : numpy.ndarray, shape (..., C)
    grad_weight, grad_bias : numpy.ndarray, shape (C,)
    """
    grad_output, x, weight = _as_features(grad_output=grad_output, x=x, weight=weight)
    normalised, spread = _normalise(x, as_positive("eps", eps))
    grad = grad_output * weight  # with respect to the normalised features
    mean = grad.mean(axis=-1, keepdims=True)
    along = (grad * normalised).mean(axis=-1, keepdims=True)
    grad_x = (grad - mean - normalised * along) / spread
    leading = tuple(range(x.ndim - 1))
    return grad_x, (grad_output * normalised).sum(leading), grad_output.sum(leading)


def _as_features(**arrays: Any) -> list[FloatArray]:
    """Return `x` (..., C) and what has its shape or is (C,), checked and as floats."""
    shape = as_floats("x", arrays["x"], "(..., C)", some=True).shape
    wanted = {"weight": f"({shape[-1]},)", "bias": f"({shape[-1]},)", "x": str(shape)}
    return [
        as_floats(name, each, wanted.get(name, str(shape)), finite=True)
        for name, each in arrays.items()
    ]


def _normalise(x: FloatArray, eps: float) -> tuple[FloatArray, FloatArray]:
    """Return the features with mean 0 and variance 1, and what they were divided by."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return centred / spread, spread


def gelu(x: FloatArray) -> FloatArray:
    """Let each number through in proportion to Φ(x), the chance that a standard normal is below it.

    GELU, Hendrycks and Gimpel (2016), section 2, with the exact Φ.
    """
    x = as_floats("x", x, finite=True)
    return x * _normal_cdf(x)


def gelu_tanh(x: FloatArray) -> FloatArray:
    """Approximate `gelu` with a tanh, as Hendrycks and Gimpel (2016) propose and GPT-2 uses."""
    x = as_floats("x", x, finite=True)
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_backward(grad_output: FloatArray, x: FloatArray) -> FloatArray:
    """Carry a gradient back through `gelu`: its slope is Φ(x) + x φ(x)."""
    x = as_floats("x", x, finite=True)
    grad_output = as_floats("grad_output", grad_output, str(x.shape))
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return grad_output * (_normal_cdf(x) + x * density)


def _normal_cdf(x: FloatArray) -> FloatArray:
    return 0.5 * (1 + _erf(x / math.sqrt(2)))


def linear_backward(
    grad_output: FloatArray, x: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Carry a gradient back through `x @ weight + bias`; return those of x, weight and bias."""
    weight = as_floats("weight", weight, "(C_in, C_out)", finite=True)
    x = as_floats("x", x, f"(..., {weight.shape[0]})", finite=True)
    wanted = str((*x.shape[:-1], weight.shape[1]))
    grad_output = as_floats("grad_output", grad_output, wanted, finite=True)
    grad_rows = grad_output.reshape(-1, grad_output.shape[-1])
    rows = x.reshape(-1, x.shape[-1])
    return grad_output @ weight.T, rows.T @ grad_rows, grad_rows.sum(axis=0)


def multi_head_attention(
    x: FloatArray, params: Parameters, num_heads: int, mask: NDArray[np.bool_] | None = None
) -> tuple[FloatArray, Cache]:
    """Attend with several heads side by side and mix what they bring.

    Vaswani et al. (2017), section 3.2.2.

    Parameters
    ----------
    x : numpy.ndarray, shape (B, T, C)
    params : dict
        `query_proj.weight`, `query_proj.bias`, and so on for key, value and output.
    num_heads : int
    mask : numpy.ndarray of bool, optional
        Shape (T, T), (B, T, T) or (B, H, T, T), or 1 in place of an axis; True = may attend.

    Returns
    -------
    output : numpy.ndarray, shape (B, T, C)
    cache : dict
        What the backward pass needs; `cache["weights"]` has shape (B, H, T, T).

    Raises
    ------
    TypeError, ValueError
        If shapes or types do not fit, or a parameter is missing.
    """
    x = as_floats("x", x, "(B, T, C)", finite=True)
    params = as_float_entries("params", params, _shapes_of_attention(x.shape[-1]))
    names = ("query", "key", "value")
    projected = [x @ params[f"{n}_proj.weight"] + params[f"{n}_proj.bias"] for n in names]
    queries, keys, values = (split_heads(array, num_heads) for array in projected)  # (B, H, T, D)
    mask = None if mask is None else as_array("mask", mask)
    mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
    heads, weights = scaled_dot_product_attention(queries, keys, values, mask)
    merged = merge_heads(heads)  # (B, T, C)
    output = merged @ params["output_proj.weight"] + params["output_proj.bias"]
    return output, {"x": x, "qkv": (queries, keys, values), "weights": weights, "merged": merged}


def multi_head_attention_backward(
    grad_output: FloatArray, cache: Cache, params: Parameters
) -> tuple[FloatArray, Parameters]:
    """Return the gradient of `multi_head_attention`'s x, and a dict of those of its parameters."""
    check_entries("cache", cache, ("x", "qkv", "weights", "merged"))
    x, merged = (as_floats(f"cache[{n!r}]", cache[n], "(B, T, C)") for n in ("x", "merged"))
    weights = as_floats("cache['weights']", cache["weights"], "(B, H, T, T)")
    params = as_float_entries("params", params, _shapes_of_attention(x.shape[-1]))
    grad_output = as_floats("grad_output", grad_output, str(x.shape), finite=True)
    qkv = as_list("cache['qkv']", cache["qkv"], np.ndarray)
    if len(qkv) != 3:
        raise ValueError(f"cache['qkv'] holds queries, keys and values, not {len(qkv)} arrays")
    grads: Parameters = {}
    num_heads = weights.shape[-3]

    def back_through(name: str, grad: FloatArray, x: FloatArray) -> FloatArray:
        grad_x, grads[f"{name}.weight"], grads[f"{name}.bias"] = linear_backward(
            grad, x, params[f"{name}.weight"]
        )
        return grad_x

    grad_merged = back_through("output_proj", grad_output, merged)
    grad_heads = split_heads(grad_merged, num_heads)  # the way back of a merge is a split
    grad_qkv = scaled_dot_product_attention_backward(grad_heads, *qkv, weights)
    grad_x = np.zeros_like(x)
    for name, grad in zip(("query", "key", "value"), grad_qkv, strict=True):
        grad_x = grad_x + back_through(f"{name}_proj", merge_heads(grad), x)
    return grad_x, grads


def _shapes_of_attention(C: int) -> dict[str, str]:
    names = [f"{name}_proj" for name in ("query", "key", "value", "output")]
    weights = {f"{name}.weight": f"({C}, {C})" for name in names}
    return weights | {f"{name}.bias": f"({C},)" for name in names}


def feed_forward(x: FloatArray, params: Parameters) -> tuple[FloatArray, Cache]:
    """Widen each token, bend it with GELU, and bring it back to width C.

    Parameters
    ----------
    x : numpy.ndarray, shape (..., C)
    params : dict
        `up_proj.weight` (C, d_hidden), `down_proj.weight` (d_hidden, C), and their biases.

    Returns
    -------
    output : numpy.ndarray, shape (..., C)
    cache : dict

    Raises
    ------
    TypeError, ValueError
        If shapes or types do not fit, or a parameter is missing.
    """
    x = as_floats("x", x, "(..., C)", finite=True)
    params = _as_network(x.shape[-1], params)
    hidden = x @ params["up_proj.weight"] + params["up_proj.bias"]  # (..., d_hidden)
    active = gelu(hidden)
    output = active @ params["down_proj.weight"] + params["down_proj.bias"]
    return output, {"x": x, "hidden": hidden, "active": active}


def feed_forward_backward(
    grad_output: FloatArray, cache: Cache, params: Parameters
) -> tuple[FloatArray, Parameters]:
    """Return the gradient of `feed_forward`'s x, and a dict of those of its parameters."""
    kinds = {"x": "(..., C)", "hidden": "(..., N)", "active": "(..., N)"}
    cache = as_float_entries("cache", cache, kinds)
    x = cache["x"]
    params = _as_network(x.shape[-1], params)
    grad_active, grad_W_down, grad_b_down = linear_backward(
        grad_output, cache["active"], params["down_proj.weight"]
    )
    grad_hidden = gelu_backward(grad_active, cache["hidden"])
    grad_x, grad_W_up, grad_b_up = linear_backward(grad_hidden, x, params["up_proj.weight"])
    return grad_x, {
        "up_proj.weight": grad_W_up,
        "up_proj.bias": grad_b_up,
        "down_proj.weight": grad_W_down,
        "down_proj.bias": grad_b_down,
    }


def _as_network(C: int, params: Any) -> Parameters:
    """Return the parameters of a feed-forward network of width C, checked."""
    check_entries("params", params, ("up_proj.weight",))
    hidden = as_floats("params['up_proj.weight']", params["up_proj.weight"], "(C, N)").shape[1]
    shapes = {
        "up_proj.weight": f"({C}, {hidden})",
        "up_proj.bias": f"({hidden},)",
        "down_proj.weight": f"({hidden}, {C})",
        "down_proj.bias": f"({C},)",
    }
    return as_float_entries("params", params, shapes)
