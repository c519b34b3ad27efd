"""Scaled dot-product attention, forwards and backwards, as chapter 4 derives it.

The convention for masks is the same everywhere in the course and in torch's
`scaled_dot_product_attention`: boolean, and True means "may attend". A query that may attend
to nothing gets weights and output of zero, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.arguments import (
    LARGEST_SIZE,
    as_array,
    as_floats,
    as_number,
    as_whole_number,
    check_tensor,
)
from utils.autograd import sum_to_shape

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.floating[Any]]


def softmax(x: ArrayLike, axis: int = -1) -> FloatArray:
    """Turn scores into weights that are positive and sum to 1 along an axis.

    Subtracting the largest score first changes nothing, since it cancels in the fraction, and
    keeps `exp` from overflowing. Scores of minus infinity get a weight of zero; where all of them
    are minus infinity, all weights are zero.

    Parameters
    ----------
    x : array_like
        Scores of any shape.
    axis : int

    Returns
    -------
    numpy.ndarray
        The shape of `x`, and its dtype if that is a floating one.

    Raises
    ------
    TypeError, ValueError
        If `x` does not hold real numbers, holds plus infinity, or has no such axis.
    """
    x = as_floats("x", x, "(..., V)", instead="torch_attention")
    axis = as_whole_number("axis", axis, -x.ndim, x.ndim - 1)
    if np.isposinf(x).any():
        raise ValueError("x holds an infinite score, beside which no other has a share: look there")
    highest = x.max(axis=axis, keepdims=True, initial=-np.inf)
    highest = np.where(np.isneginf(highest), 0, highest)  # -inf - (-inf) would be NaN
    exponentials = np.exp(x - highest)
    total = exponentials.sum(axis=axis, keepdims=True)
    return exponentials / np.where(total == 0, 1, total)


def softmax_backward(weights: ArrayLike, grad_weights: ArrayLike, axis: int = -1) -> FloatArray:
    """Carry a gradient from the softmax's output back to its scores.

    The Jacobian of one row p is diag(p) - p pᵀ; its product with a gradient g is
    p ∘ (g - (g · p)), so the matrix never has to be built.

    Parameters
    ----------
    weights : array_like
        What `softmax` returned.
    grad_weights : array_like, same shape
        The gradient of the loss with respect to `weights`.
    axis : int
        The axis along which the weights sum to 1.

    Returns
    -------
    numpy.ndarray, same shape
        The gradient with respect to the scores.

    Raises
    ------
    TypeError, ValueError
        If the two shapes differ, or an argument does not hold finite numbers.
    """
    autograd = "torch.autograd.grad"
    weights = as_floats("weights", weights, "(..., V)", finite=True, instead=autograd)
    grad_weights = as_floats(
        "grad_weights", grad_weights, "(..., V)", finite=True, instead=autograd
    )
    axis = as_whole_number("axis", axis, -weights.ndim, weights.ndim - 1)
    if weights.shape != grad_weights.shape:
        raise ValueError(
            f"weights have shape {weights.shape} but grad_weights {grad_weights.shape}: "
            "a gradient has the shape of what it belongs to"
        )
    inner = (grad_weights * weights).sum(axis=axis, keepdims=True)
    return weights * (grad_weights - inner)


def causal_mask(query_len: int, key_len: int | None = None) -> NDArray[np.bool_]:
    """Let each position attend to itself and to those before it.

    With fewer queries than keys the queries are the last positions, as when a model continues
    a text whose keys it has kept: the last query attends to all keys.

    Parameters
    ----------
    query_len : int
    key_len : int, optional
        By default as many as queries.

    Returns
    -------
    numpy.ndarray of bool, shape (query_len, key_len)
        True where query t may attend to key s.

    Raises
    ------
    TypeError
        If a length is not a whole number.
    ValueError
        If a length is negative or there are more queries than keys.
    """
    key_len = query_len if key_len is None else key_len
    if not all(isinstance(length, int | np.integer) for length in (query_len, key_len)):
        raise TypeError(
            "a causal mask needs whole numbers of queries and keys, such as causal_mask(8), not "
            f"query_len={query_len!r} and key_len={key_len!r}"
        )
    if not 0 <= query_len <= key_len <= LARGEST_SIZE:
        raise ValueError(
            f"a causal mask needs 0 <= query_len <= key_len, not query_len={query_len} and "
            f"key_len={key_len}: the queries are the last positions of the keys' sequence"
        )
    return np.tri(query_len, key_len, k=key_len - query_len, dtype=bool)


def padding_mask(lengths: Sequence[int], max_len: int | None = None) -> NDArray[np.bool_]:
    """Say which positions of a padded batch hold real tokens.

    To hide padded keys from all queries, put an axis for the queries in the middle:
    `padding_mask(lengths, max_len)[:, None, :]` has shape (B, 1, T).

    Parameters
    ----------
    lengths : sequence of int, length B
        The number of real tokens of each sentence; they come first, the padding after them.
    max_len : int, optional
        T, by default the longest length.

    Returns
    -------
    numpy.ndarray of bool, shape (B, T)
        True for a real token, False for padding.

    Raises
    ------
    TypeError
        If the lengths are not whole numbers.
    ValueError
        If they do not form one axis, or one of them is not from 0 to `max_len`.
    """
    array = as_array("lengths", lengths)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"lengths should be one number for each sentence, not {lengths!r}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths should be whole numbers, not of dtype {array.dtype}")
    max_len = as_whole_number("max_len", array.max() if max_len is None else max_len)
    if array.min() < 0 or array.max() > max_len:
        raise ValueError(
            f"lengths should be from 0 to max_len={max_len}, but they go from {array.min()} to "
            f"{array.max()}: truncate longer sentences first"
        )
    return np.arange(max_len) < array[:, None]


def scaled_dot_product_attention(
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    mask: ArrayLike | None = None,
    scale: float | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Average the values, weighted by how well each key fits the query.

    softmax(Q Kᵀ / √D) V: Vaswani et al. (2017), equation 1. Leading axes (batch, heads)
    broadcast as in a matrix product.

    Parameters
    ----------
    queries : array_like, shape (..., T_q, D)
    keys : array_like, shape (..., T_k, D)
    values : array_like, shape (..., T_k, D_v)
    mask : array_like of bool, optional
        Broadcasts to (..., T_q, T_k); True where the query may attend to the key. A query that
        may attend to nothing gets zeros.
    scale : float, optional
        What to multiply the scores by, by default 1 / √D.

    Returns
    -------
    output : numpy.ndarray, shape (..., T_q, D_v)
    weights : numpy.ndarray, shape (..., T_q, T_k)
        Each row sums to 1, or to 0 where nothing may be attended to.

    Raises
    ------
    TypeError
        If the mask is not boolean, or an argument does not hold real numbers.
    ValueError
        If the shapes do not fit together.
    """
    queries, keys, values = _as_inputs(queries=queries, keys=keys, values=values)
    scale = _check_shapes(queries, keys, values, scale)
    scores = queries @ np.swapaxes(keys, -1, -2) * scale  # (..., T_q, T_k)
    if mask is not None:
        mask = as_array("mask", mask)
        _check_mask(mask.dtype == bool, mask, scores)
        scores = np.where(mask, scores, -np.inf)
    weights = softmax(scores, axis=-1)
    return weights @ values, weights


def scaled_dot_product_attention_backward(
    grad_output: ArrayLike,
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    weights: ArrayLike,
    *,
    scale: float | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Carry a gradient from attention's output back to queries, keys and values.

    The mask is not needed again: hidden keys have a weight of zero, and so no gradient.

    Parameters
    ----------
    grad_output : array_like, shape (..., T_q, D_v)
        The gradient of the loss with respect to the output.
    queries, keys, values : array_like
        As given to `scaled_dot_product_attention`.
    weights : array_like, shape (..., T_q, T_k)
        As it returned them.
    scale : float, optional
        As given to it.

    Returns
    -------
    grad_queries, grad_keys, grad_values : numpy.ndarray
        Each with the shape of what it belongs to.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold real numbers or the shapes do not fit together.
    """
    queries, keys, values = _as_inputs(queries=queries, keys=keys, values=values)
    weights, grad_output = _as_inputs(weights=weights, grad_output=grad_output)
    scale = _check_shapes(queries, keys, values, scale)
    leading = np.broadcast_shapes(queries.shape[:-2], keys.shape[:-2], values.shape[:-2])
    for name, array, axes in (
        ("grad_output", grad_output, (queries.shape[-2], values.shape[-1])),
        ("weights", weights, (queries.shape[-2], keys.shape[-2])),
    ):
        fits = array.shape[-2:] == axes and _broadcasts(array.shape[:-2], leading)
        if not fits or (name == "grad_output" and array.shape[:-2] != leading):
            raise ValueError(
                f"{name} has shape {array.shape}, but these queries, keys and values give "
                f"{(*leading, *axes)}"
            )
    grad_values = np.swapaxes(weights, -1, -2) @ grad_output  # dV = Pᵀ dO
    grad_weights = grad_output @ np.swapaxes(values, -1, -2)  # dP = dO Vᵀ
    weights = np.broadcast_to(weights, grad_weights.shape)
    grad_scores = softmax_backward(weights, grad_weights) * scale  # dS, times the scale
    grad_queries = grad_scores @ keys
    grad_keys = np.swapaxes(grad_scores, -1, -2) @ queries
    return (
        sum_to_shape(grad_queries, queries.shape),
        sum_to_shape(grad_keys, keys.shape),
        sum_to_shape(grad_values, values.shape),
    )


def torch_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    *,
    dropout_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Do the same in torch, line by line, and return the weights as well.

    `torch.nn.functional.scaled_dot_product_attention` is faster and gives the same output, but
    not the weights.

    Parameters
    ----------
    queries, keys, values, mask, scale
        As for `scaled_dot_product_attention`, but tensors; the mask on the same device.
    dropout_p : float
        The probability with which each weight is set to zero, the others growing by
        1 / (1 - dropout_p). It is always applied: pass 0 when not training.

    Returns
    -------
    output : torch.Tensor, shape (..., T_q, D_v)
    weights : torch.Tensor, shape (..., T_q, T_k)
        Before dropout.

    Raises
    ------
    TypeError
        If the mask is not boolean, or an argument is not a tensor.
    ValueError
        If the shapes do not fit together.
    """
    import torch

    for name, x in (("queries", queries), ("keys", keys), ("values", values), ("mask", mask)):
        if not isinstance(x, torch.Tensor) and not (name == "mask" and x is None):
            raise TypeError(
                f"{name} is a {type(x).__name__}, but this is the torch version: convert it with "
                "torch.as_tensor, or call scaled_dot_product_attention"
            )
        if x is not None:
            check_tensor(name, x, kind="any" if name == "mask" else "float", like=queries)
    dropout_p = as_number("dropout_p", dropout_p, 0, 1)
    scale = _check_shapes(queries, keys, values, scale)
    scores = queries @ keys.transpose(-2, -1) * scale  # (..., T_q, T_k)
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:
        _check_mask(mask.dtype == torch.bool, mask, scores)
        nothing = ~mask.any(dim=-1, keepdim=True)  # queries that may attend to nothing
        scores = scores.masked_fill(~mask, -torch.inf).masked_fill(nothing, 0.0)
        weights = scores.softmax(dim=-1).masked_fill(nothing, 0.0)
    return torch.dropout(weights, dropout_p, train=True) @ values, weights


def _as_inputs(**arrays: Any) -> Iterator[FloatArray]:
    """Return arrays of finite numbers, or say what was given instead."""
    for name, x in arrays.items():
        yield as_floats(name, x, finite=True, instead="torch_attention")


def _check_shapes(queries: Any, keys: Any, values: Any, scale: float | None) -> float:
    """Raise if the shapes do not fit together; return the scale."""
    q, k, v = tuple(queries.shape), tuple(keys.shape), tuple(values.shape)
    for name, shape in (("queries", q), ("keys", k), ("values", v)):
        if len(shape) < 2:
            raise ValueError(
                f"{name} should have shape (..., T, D), not {shape}; "
                "a single vector x is a sequence of length one, x[None, :]"
            )
    if q[-1] != k[-1]:
        raise ValueError(
            f"queries of width {q[-1]} cannot be compared with keys of width {k[-1]} "
            f"(shapes {q} and {k}): project both to the same D"
        )
    if k[-2] != v[-2]:
        raise ValueError(
            f"{k[-2]} keys but {v[-2]} values (shapes {k} and {v}): each key needs one value"
        )
    try:
        np.broadcast_shapes(q[:-2], k[:-2], v[:-2])
    except ValueError:
        raise ValueError(
            f"the leading axes of queries {q}, keys {k} and values {v} do not fit together: "
            "batch and heads must be equal, or 1"
        ) from None
    if q[-1] == 0 and scale is None:
        raise ValueError(f"queries of width 0 (shape {q}) have no scale 1/√D; pass scale")
    return 1 / math.sqrt(q[-1]) if scale is None else as_number("scale", scale)


def _check_mask(is_boolean: bool, mask: Any, scores: Any) -> None:
    """Raise if a mask is not boolean or does not fit the scores."""
    if not is_boolean:
        raise TypeError(
            f"the mask should be boolean with True = may attend, not {mask.dtype}: for a mask of "
            "ones and zeros pass mask != 0, for one of zeros and -inf pass mask == 0"
        )
    shape, needed = tuple(mask.shape), tuple(scores.shape)
    if not _broadcasts(shape, needed):
        raise ValueError(
            f"a mask of shape {shape} does not broadcast to the scores' shape (..., T_q, T_k) = "
            f"{needed}; a padding mask of shape (B, T_k) needs an axis for the queries, "
            "mask[:, None, :]"
        )


def _broadcasts(shape: tuple[int, ...], needed: tuple[int, ...]) -> bool:
    """Tell whether an array of one shape can be stretched to another one."""
    try:
        return np.broadcast_shapes(shape, needed) == needed
    except ValueError:
        return False
