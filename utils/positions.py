"""Telling attention where a token stands: sinusoids, a learned table, RoPE and ALiBi (chapter 5).

The numpy functions carry the field's names, their torch twins the prefix `torch_`. Positions count
from 0. A function that continues a text, as with a KV cache, is told where the new tokens stand:
`offset` or `positions`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from utils.arguments import (
    as_array,
    as_device,
    as_floats,
    as_whole_number,
    as_whole_numbers,
    check_tensor,
    check_type,
    shown,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FloatArray = NDArray[np.floating[Any]]
LAYOUTS = ("half", "interleaved")


def sinusoidal(
    seq_len: int,
    d_model: int,
    *,
    offset: int = 0,
    base: float = 10_000.0,
    dtype: DTypeLike = np.float64,
) -> FloatArray:
    """Encode positions in pairs of a sine and a cosine, each pair of another wavelength.

    Entry (t, 2i) is sin(t ω_i) and entry (t, 2i + 1) is cos(t ω_i), with ω_i = base^(-2i/C):
    Vaswani et al. (2017), section 3.5.

    Parameters
    ----------
    seq_len : int
        T, the number of positions.
    d_model : int
        C, even.
    offset : int
        The first position.
    base : float
        The wavelengths go from 2π almost to 2π · base.
    dtype : dtype
        Of the result; the angles are computed in double precision.

    Returns
    -------
    numpy.ndarray, shape (T, C)

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number that makes sense, or the width is odd.
    """
    as_whole_numbers(seq_len=seq_len, offset=offset)
    _check_width("d_model", d_model)
    angles = rope_angles(np.arange(offset, offset + seq_len), d_model, base=base)  # (T, C/2)
    encoding = np.empty((seq_len, d_model), dtype)
    encoding[:, 0::2], encoding[:, 1::2] = np.sin(angles), np.cos(angles)
    return encoding


def learned(table: Any, seq_len: int, *, offset: int = 0) -> Any:
    """Read the encodings of positions off a table of parameters, as GPT-2 and BERT do.

    Parameters
    ----------
    table : array or tensor, shape (num_positions, C)
        One learned row for each position, for instance `nn.Embedding(1024, C).weight`.
    seq_len : int
        T, the number of positions wanted.
    offset : int
        The first one.

    Returns
    -------
    The rows, shape (T, C).

    Raises
    ------
    TypeError
        If a size is not a whole number.
    ValueError
        If a position is asked for that the table does not have.
    """
    as_whole_numbers(seq_len=seq_len, offset=offset)
    if not hasattr(table, "shape"):
        raise TypeError(f"the table should be an array or a tensor, not a {type(table).__name__}")
    if len(table.shape) != 2:
        raise ValueError(
            f"the table should have shape (num_positions, C), not {tuple(table.shape)}"
        )
    if offset + seq_len > table.shape[0]:
        raise ValueError(
            f"positions {offset} to {offset + seq_len - 1} were asked for, but the table has "
            f"{table.shape[0]} rows: what was never learned cannot be read off; shorten the "
            "sequence, or train with a longer table"
        )
    return table[offset : offset + seq_len]


def rope_angles(
    positions: ArrayLike, head_dim: int, *, base: float = 10_000.0
) -> NDArray[np.float64]:
    """Return the angle by which each pair of components is turned at each position.

    The angle of pair i at position t is t ω_i, ω_i = base^(-2i/D): Su et al. (2021), section 3.2.2.

    Parameters
    ----------
    positions : array_like of real numbers, any shape
        They need not be whole: position interpolation squeezes them.
    head_dim : int
        D, even.
    base : float
        Llama's configurations call it `rope_theta`.

    Returns
    -------
    numpy.ndarray of float64, shape (*positions.shape, D/2)
        In radians.

    Raises
    ------
    TypeError, ValueError
        If the width is odd, or the base or the positions are not real numbers that make sense.
    """
    _check_width("head_dim", head_dim)
    _check_base(base)
    positions = as_floats("positions", positions, finite=True)
    frequencies = float(base) ** (-np.arange(0, head_dim, 2) / head_dim)  # (D/2,)
    return positions[..., None] * frequencies


def rope_rotate(
    x: ArrayLike,
    positions: ArrayLike | None = None,
    *,
    base: float = 10_000.0,
    layout: str = "half",
    inverse: bool = False,
) -> FloatArray:
    """Turn each pair of components of queries or keys by an angle in proportion to the position.

    Rotary position embedding, Su et al. (2021), equation 34. The dot product of a query and a key
    that are both turned depends on the distance of their positions alone. Turning back
    (`inverse`) is also the backward pass: it carries the gradient of the output to that of `x`.

    Parameters
    ----------
    x : array_like, shape (..., T, D)
        Queries or keys; D is even.
    positions : int or array_like, optional
        A whole number is the position of the first token (the number of keys in a KV cache); an
        array gives every token's position and broadcasts to (..., T). By default 0, 1, 2, ...
    base : float
        As for `rope_angles`.
    layout : {"half", "interleaved"}
        Which components make pair i: i and i + D/2 (Llama in transformers), or 2i and 2i + 1 (the
        paper). A model's weights are made for one of them.
    inverse : bool
        Turn by the negative angles.

    Returns
    -------
    numpy.ndarray, shape of `x`
        Of the dtype of `x` if that is a floating one, else float64.

    Raises
    ------
    TypeError, ValueError
        If a width is odd, shapes do not fit together or the layout is unknown.
    """
    x = as_floats("x", x, finite=True, instead="torch_rope_rotate")
    _check_rotatable(x.shape, layout)
    positions = _positions_of(x.shape, positions)
    angles = rope_angles(positions, x.shape[-1], base=base)  # (..., T, D/2)
    cos, sin = np.cos(angles), np.sin(-angles if inverse else angles)
    first, second = _pairs(x.shape[-1], layout)
    a, b = x[..., first], x[..., second]
    rotated = np.empty_like(x)
    rotated[..., first] = a * cos - b * sin
    rotated[..., second] = a * sin + b * cos
    return rotated


def alibi_slopes(num_heads: int) -> NDArray[np.float64]:
    """Return how fast each head's scores fall with distance.

    For H heads, H a power of 2, the slopes are 2^(-8/H), 2^(-16/H), ..., 2^-8: Press et al. (2021),
    section 3. For other H, their released code takes the slopes of the next smaller power of 2 and
    adds the first, third, fifth, ... slope of the next larger one until there are enough.

    Parameters
    ----------
    num_heads : int

    Returns
    -------
    numpy.ndarray, shape (H,)

    Raises
    ------
    TypeError, ValueError
        If the number of heads is not a whole number of at least 1.
    """
    as_whole_number("num_heads", num_heads, 1)
    smaller = 2 ** int(math.log2(num_heads))
    slopes = 2.0 ** (-8 * np.arange(1, smaller + 1) / smaller)
    between = 2.0 ** (-4 * np.arange(1, 2 * smaller, 2) / smaller)  # every other one of 2·smaller
    return np.concatenate([slopes, between[: num_heads - smaller]])


def alibi_bias(
    num_heads: int,
    query_len: int,
    key_len: int | None = None,
    *,
    dtype: DTypeLike = np.float64,
) -> FloatArray:
    """Return what ALiBi adds to the scores: minus the slope times the distance.

    With fewer queries than keys the queries are the last positions, as in `causal_mask`. The paper
    has causal attention, where only keys before the query count; for attention to both sides the
    distance is taken without its sign. The bias hides nothing: add a mask.

    Parameters
    ----------
    num_heads : int
    query_len : int
    key_len : int, optional
        By default as many as queries.
    dtype : dtype

    Returns
    -------
    numpy.ndarray, shape (H, T_q, T_k)

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number that makes sense, or there are more queries than keys.
    """
    key_len = query_len if key_len is None else key_len
    as_whole_numbers(query_len=query_len, key_len=key_len)
    if query_len > key_len:
        raise ValueError(
            f"query_len={query_len} is more than key_len={key_len}: the queries are the last "
            "positions of the keys' sequence"
        )
    query = np.arange(key_len - query_len, key_len)[:, None]
    distance = np.abs(query - np.arange(key_len))  # (T_q, T_k)
    return (-alibi_slopes(num_heads)[:, None, None] * distance).astype(dtype)


def torch_sinusoidal(
    seq_len: int,
    d_model: int,
    *,
    offset: int = 0,
    base: float = 10_000.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Do the same as `sinusoidal`, as a tensor; by default of torch's default dtype."""
    import torch

    encoding = torch.from_numpy(sinusoidal(seq_len, d_model, offset=offset, base=base))
    return _converted(encoding, dtype, device)


def torch_rope_rotate(
    x: Tensor,
    positions: int | Tensor | ArrayLike | None = None,
    *,
    base: float = 10_000.0,
    layout: str = "half",
    inverse: bool = False,
) -> Tensor:
    """Do the same as `rope_rotate`, in torch, on the device of `x` and with autograd.

    The angles are computed in single precision, as `transformers` does, or double if `x` is double;
    half-precision inputs are rotated in single precision and rounded at the end.
    """
    import torch

    if not torch.is_tensor(x) or not x.is_floating_point():
        kind = x.dtype if torch.is_tensor(x) else type(x).__name__
        raise TypeError(f"x should be a tensor of floating-point numbers, not {kind}")
    shape, head_dim = tuple(x.shape), x.shape[-1] if x.ndim else 0
    _check_rotatable(shape, layout)
    _check_base(base)
    working = torch.float64 if x.dtype == torch.float64 else torch.float32
    if torch.is_tensor(positions):
        kind = "float" if positions.is_floating_point() else "int"
        check_tensor("positions", positions, kind=kind, values=not x.is_meta)
        positions = positions.item() if positions.ndim == 0 else positions
    positions = _positions_of(shape, positions)
    if not torch.is_tensor(positions):
        positions = torch.from_numpy(np.asarray(positions))
    exponents = torch.arange(0, head_dim, 2, dtype=working, device=x.device) / head_dim
    frequencies = 1 / float(base) ** exponents  # (D/2,)
    angles = positions.to(x.device, working)[..., None] * frequencies  # (..., T, D/2)
    cos, sin = angles.cos(), (-angles if inverse else angles).sin()
    first, second = _pairs(head_dim, layout)
    a, b = x[..., first].to(working), x[..., second].to(working)
    halves = a * cos - b * sin, a * sin + b * cos
    if layout == "half":
        return torch.cat(halves, dim=-1).to(x.dtype)
    return torch.stack(halves, dim=-1).flatten(-2).to(x.dtype)


def torch_alibi_bias(
    num_heads: int,
    query_len: int,
    key_len: int | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Do the same as `alibi_bias`, as a tensor; by default of torch's default dtype."""
    import torch

    bias = torch.from_numpy(alibi_bias(num_heads, query_len, key_len))
    return _converted(bias, dtype, device)


def _converted(x: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    """Return a tensor of a type, by default torch's, on a device, by default where it is."""
    import torch

    check_type("dtype", torch.float32 if dtype is None else dtype, torch.dtype)
    x = x.to(dtype or torch.get_default_dtype())
    return x if device is None else x.to(as_device("device", device))


def _pairs(head_dim: int, layout: str) -> tuple[slice, slice]:
    """Return where the first and the second component of each pair are."""
    if layout == "half":
        return slice(0, head_dim // 2), slice(head_dim // 2, head_dim)
    return slice(0, head_dim, 2), slice(1, head_dim, 2)


def _positions_of(shape: tuple[int, ...], positions: Any) -> Any:
    """Return a position for every token of queries or keys of this shape (..., T, D)."""
    if positions is None:
        return np.arange(shape[-2])
    if not hasattr(positions, "shape"):
        positions = as_array("positions", positions)
    if getattr(positions.dtype, "kind", "f") not in "iuf":
        raise TypeError(f"positions should be numbers, not values of dtype {positions.dtype}")
    if len(positions.shape) == 0:
        if not np.issubdtype(positions.dtype, np.integer):
            raise TypeError(
                f"a single position is that of the first token, a whole number, not {positions!r}; "
                "for one token at another place pass a list, [2.5]"
            )
        return int(positions) + np.arange(shape[-2])
    try:
        fits = np.broadcast_shapes(tuple(positions.shape), shape[:-1]) == shape[:-1]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"positions of shape {tuple(positions.shape)} do not broadcast to {shape[:-1]}, the "
            f"shape (..., T) of x without its width; positions of shape (B, T) need an axis for "
            "the heads, positions[:, None, :]"
        )
    return positions


def _check_rotatable(shape: tuple[int, ...], layout: str) -> None:
    if len(shape) < 2:
        raise ValueError(
            f"x should have shape (..., T, D), not {tuple(shape)}; a single vector is a sequence "
            "of length one, x[None, :]"
        )
    _check_width("the last axis of x", shape[-1])
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: use 'half' or 'interleaved'")


def _check_width(name: str, width: int) -> None:
    if as_whole_number(name, width) % 2 or width == 0:
        raise ValueError(
            f"{name}: a width of {width} cannot be split into pairs: sinusoids and rotations need "
            "an even one, of at least 2"
        )


def _check_base(base: float) -> None:
    if isinstance(base, bool) or not isinstance(base, int | float | np.number):
        raise TypeError(f"base should be a number such as 10000.0, not {base!r}")
    if not (1e-30 <= base <= 1e30):  # beyond, single precision has no wavelengths
        raise ValueError(f"base should be a positive number such as 10000.0, not {shown(base)}")
