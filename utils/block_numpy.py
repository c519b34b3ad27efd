"""The whole Transformer block in numpy, forwards and backwards, from the parts in `layers_numpy`.

Parameters are a dict from the names of `utils.layers.TransformerBlock` to arrays, and gradients
come back under the same names; `from_torch` makes both out of a torch block, to compare with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utils import layers_numpy as parts
from utils.arguments import as_float_entries, as_floats, check_entries, check_model
from utils.layers_numpy import Cache, FloatArray, Parameters

if TYPE_CHECKING:
    from torch import nn

NAMES = [
    f"{part}.{kind}"
    for part in (
        *(f"attention.{name}_proj" for name in ("query", "key", "value", "output")),
        *(f"feed_forward.{name}_proj" for name in ("up", "down")),
        "attention_norm",
        "feed_forward_norm",
    )
    for kind in ("weight", "bias")
]


def from_torch(module: nn.Module, *, gradients: bool = False) -> Parameters:
    """Copy the parameters of torch layers, linear weights turned round to (C_in, C_out).

    Parameters
    ----------
    module : torch.nn.Module
        A `TransformerBlock` or a part of one. (Not an embedding, whose matrix is not turned.)
    gradients : bool
        Copy the gradients that `backward()` left in the parameters instead.

    Returns
    -------
    dict from str to numpy.ndarray of float64

    Raises
    ------
    TypeError, ValueError
        If it is no module, or a gradient is asked for and there is none.
    """
    check_model("module", module)
    copied = {}
    for name, parameter in module.named_parameters():
        tensor = parameter.grad if gradients else parameter.detach()
        if tensor is None:
            raise ValueError(
                f"{name} of the module has no gradient yet: call backward() on a loss first"
            )
        array = tensor.cpu().double().numpy().copy()
        copied[name] = array.T if array.ndim == 2 else array
    return copied


def transformer_block(
    x: FloatArray,
    params: Parameters,
    num_heads: int,
    mask: NDArray[np.bool_] | None = None,
    *,
    norm_first: bool = True,
    eps: float = 1e-5,
) -> tuple[FloatArray, Cache]:
    """Add what attention brings to each token, then what the feed-forward network makes of it.

    Without dropout. The two arrangements are drawn by Xiong et al. (2020), figure 1.

    Parameters
    ----------
    x : numpy.ndarray, shape (B, T, C)
    params : dict
        Named as in `utils.layers.TransformerBlock`.
    num_heads : int
    mask : numpy.ndarray of bool, optional
        As for `layers_numpy.multi_head_attention`.
    norm_first : bool
        True for x + f(norm(x)), False for norm(x + f(x)).
    eps : float

    Returns
    -------
    output : numpy.ndarray, shape (B, T, C)
    cache : dict
        What `transformer_block_backward` needs.

    Raises
    ------
    TypeError, ValueError
        If shapes or types do not fit, or a parameter is missing.
    """
    x = as_floats("x", x, "(B, T, C)", finite=True)
    check_entries("params", params, NAMES)
    cache: Cache = {"norm_first": norm_first, "eps": eps}
    for name in ("attention", "feed_forward"):
        sub, (weight, bias) = _part(params, name), _norm(params, name)
        normed = parts.layer_norm(x, weight, bias, eps) if norm_first else x
        if name == "attention":
            update, sub_cache = parts.multi_head_attention(normed, sub, num_heads, mask)
        else:
            update, sub_cache = parts.feed_forward(normed, sub)
        cache[name] = sub_cache
        cache[f"{name}_norm"] = x if norm_first else x + update  # what the norm is given
        x = x + update if norm_first else parts.layer_norm(x + update, weight, bias, eps)
    return x, cache


def transformer_block_backward(
    grad_output: FloatArray, cache: Cache, params: Parameters
) -> tuple[FloatArray, Parameters]:
    """Carry a gradient back through `transformer_block`.

    Parameters
    ----------
    grad_output : numpy.ndarray, shape (B, T, C)
    cache : dict
        As `transformer_block` returned it.
    params : dict
        As given to it.

    Returns
    -------
    grad_x : numpy.ndarray, shape (B, T, C)
    grads : dict
        The gradient of each parameter under its name.

    Raises
    ------
    TypeError, ValueError
        If shapes or types do not fit, or a parameter is missing.
    """
    check_entries("cache", cache, ("norm_first", "eps", "attention_norm", "feed_forward_norm"))
    check_entries("cache", cache, ("attention", "feed_forward"))
    check_entries("params", params, NAMES)
    norms = {f"{name}_norm": "(B, T, C)" for name in ("attention", "feed_forward")}
    cache = {**cache, **as_float_entries("cache", cache, norms)}
    shape = str(cache["attention_norm"].shape)
    grad_output = as_floats("grad_output", grad_output, shape, finite=True)
    grad, grads = grad_output, {}
    backward = {
        "attention": parts.multi_head_attention_backward,
        "feed_forward": parts.feed_forward_backward,
    }

    def back_through_norm(name: str, grad: FloatArray) -> FloatArray:
        weight, _ = _norm(params, name)
        grad_x, grads[f"{name}_norm.weight"], grads[f"{name}_norm.bias"] = (
            parts.layer_norm_backward(grad, cache[f"{name}_norm"], weight, cache["eps"])
        )
        return grad_x

    for name in ("feed_forward", "attention"):  # last one first
        if not cache["norm_first"]:
            grad = back_through_norm(name, grad)
        grad_update, sub_grads = backward[name](grad, cache[name], _part(params, name))
        grads |= {f"{name}.{key}": value for key, value in sub_grads.items()}
        if cache["norm_first"]:
            grad_update = back_through_norm(name, grad_update)
        grad = grad + grad_update  # the residual path and the path through the sublayer
    return grad, grads


def _part(params: Parameters, name: str) -> Parameters:
    """Return the parameters of one sublayer, without its name in front."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): params[key] for key in params if key.startswith(prefix)}


def _norm(params: Parameters, name: str) -> tuple[FloatArray, FloatArray]:
    return params[f"{name}_norm.weight"], params[f"{name}_norm.bias"]
