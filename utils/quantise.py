"""Weights in few bits: round to a grid, compute with the integers, read a GGUF file's blocks.

Derived in chapter 19. Quantisation here is symmetric: a group of weights shares one scale, and a
code q stands for scale · q. The blocks of a GGUF file have a minimum besides.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from utils.arguments import (
    as_array,
    as_whole_number,
    check_model,
    check_tensor,
    check_type,
)

GRANULARITIES = ("tensor", "row", "group")
Q4_1_BYTES, Q8_0_BYTES, BLOCK = 20, 34, 32  # bytes of a block of 32 weights


@dataclass(frozen=True)
class Quantised:
    """A matrix as integers and scales.

    Attributes
    ----------
    codes : torch.Tensor of int8, shape (rows, columns)
    scales : torch.Tensor, shape (1, 1), (rows, 1) or (rows, groups)
        Each scale belongs to columns / groups neighbours of a row.
    bits : int
        How many bits a code needs; in memory it has 8, in a file it would be packed.
    """

    codes: Tensor
    scales: Tensor
    bits: int

    @property
    def packed_bytes(self) -> float:
        """The memory of packed codes, and of scales with 16 bits each."""
        return self.codes.numel() * self.bits / 8 + 2 * self.scales.numel()

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight, its part of the scales included."""
        return 8 * self.packed_bytes / self.codes.numel()

    def dequantise(self) -> Tensor:
        """Return the matrix that the codes stand for, float32, shape (rows, columns)."""
        rows, columns = self.codes.shape
        groups = self.scales.shape[1]
        codes = self.codes.float().reshape(rows, groups, columns // groups)
        return (codes * self.scales[..., None]).reshape(rows, columns)


def quantise(
    weights: Tensor, bits: int = 8, per: str = "row", group_size: int = BLOCK
) -> Quantised:
    """Round a matrix to integers: symmetric, each group scaled by its largest absolute value.

    With b bits the codes run from -(2^(b-1) - 1) to 2^(b-1) - 1: the one more that two's
    complement has below is not used, so that the grid is the same on both sides of 0.

    Parameters
    ----------
    weights : torch.Tensor, shape (rows, columns)
        Such as the weight of an `nn.Linear`: a row makes one output.
    bits : int
        From 2 to 8.
    per : {"tensor", "row", "group"}
        What shares a scale: everything, a row, or `group_size` neighbours in a row.
    group_size : int

    Returns
    -------
    Quantised

    Raises
    ------
    ValueError
        If the bits are out of range, `per` is none of these, or groups do not divide a row.
    TypeError
        If `weights` is not a floating-point tensor with two axes.
    """
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or weights.ndim != 2:
        raise TypeError(
            "weights should be a floating-point tensor of shape (rows, columns), not "
            f"{tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__}"
        )
    check_tensor("weights", weights, values=True, some=True)
    if not 2 <= as_whole_number("bits", bits) <= 8:
        raise ValueError(f"bits should be from 2 to 8, not {bits}")
    group_size = as_whole_number("group_size", group_size, 1)
    if not isinstance(per, str) or per not in GRANULARITIES:
        raise ValueError(f"per should be one of {', '.join(GRANULARITIES)}, not {per!r}")
    rows, columns = weights.shape
    if per == "group" and columns % group_size:
        raise ValueError(f"groups of {group_size} do not divide rows of {columns}")
    weights = weights.detach().float()
    width = {"tensor": columns, "row": columns, "group": group_size}[per]
    grouped = weights.reshape(rows, columns // width, width)  # (rows, groups, width)
    largest = grouped.abs().amax(dim=-1)  # (rows, groups)
    if not bool(largest.isfinite().all()):
        raise ValueError("weights hold NaN or an infinity, which no scale can reach")
    if per == "tensor":
        largest = largest.max().reshape(1, 1)
    top = 2 ** (bits - 1) - 1  # 127 for 8 bits
    scales = torch.where(largest > 0, largest / top, torch.ones_like(largest))
    codes = (grouped / scales[..., None]).round().clamp(-top, top)  # half goes to even
    return Quantised(codes.to(torch.int8).reshape(rows, columns), scales, bits)


def int8_linear(x: Tensor, weight: Quantised, bias: Tensor | None = None) -> Tensor:
    """Compute a linear layer with integers: the inputs are quantised as they come.

    Each row of `x` gets a scale, integers are multiplied and added as 32-bit integers, and one
    product of two scales for each result brings them back (Dettmers et al. 2022, section 2).

    Parameters
    ----------
    x : torch.Tensor, shape (..., C_in)
    weight : Quantised, shape (C_out, C_in)
        With one scale for the tensor or for each row: a scale that changes within a row could not
        be taken out of the sum.
    bias : torch.Tensor, shape (C_out,), optional

    Returns
    -------
    torch.Tensor, shape (..., C_out)

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit or the weight has scales for groups.
    """
    check_type("weight", weight, Quantised, hint="quantise(weights) makes one")
    check_tensor("x", x, "(..., C_in)", some=True, like=weight.scales)
    if bias is not None:
        check_tensor("bias", bias, f"({weight.codes.shape[0]},)", like=x)
    if not bool(x.isfinite().all()):
        raise ValueError("x holds NaN or an infinity, which no scale can reach")
    if weight.scales.shape[1] != 1:
        raise ValueError("int8_linear needs one scale for a row: quantise with per='row'")
    if x.shape[-1] != weight.codes.shape[1]:
        raise ValueError(
            f"x of shape {tuple(x.shape)} does not fit a weight of {tuple(weight.codes.shape)}: "
            "the last axis of x is the second of the weight"
        )
    inputs = quantise(x.reshape(-1, x.shape[-1]), per="row")  # (n, C_in)
    sums = inputs.codes.to(torch.int32) @ weight.codes.to(torch.int32).T  # (n, C_out)
    output = sums.float() * inputs.scales * weight.scales.T
    output = output if bias is None else output + bias
    return output.reshape(*x.shape[:-1], -1)


def round_weights(
    model: nn.Module, bits: int = 8, per: str = "row", group_size: int = BLOCK
) -> nn.Module:
    """Return a copy of a model whose linear layers have rounded weights, kept as float32.

    That is what rounding does to the quality; it saves no memory. Embeddings and norms stay.

    Parameters
    ----------
    model : torch.nn.Module
    bits, per, group_size
        As for `quantise`.
    """
    check_model("model", model)
    rounded = copy.deepcopy(model)
    for module in rounded.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = quantise(module.weight, bits, per, group_size).dequantise()
    return rounded


def read_q8_0(blocks: np.ndarray) -> np.ndarray:
    """Return the weights in GGUF's Q8_0 blocks: a float16 scale, then 32 int8 codes.

    Parameters
    ----------
    blocks : numpy.ndarray of uint8, shape (rows, bytes)
        As the `gguf` package gives a tensor's data; 34 bytes a block.

    Returns
    -------
    numpy.ndarray of float32, shape (rows, weights)

    Raises
    ------
    ValueError
        If the bytes are no whole number of blocks.
    """
    blocks = _blocks(blocks, Q8_0_BYTES)  # (rows, n, 34)
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return (scale * codes).reshape(len(blocks), -1)


def read_q4_1(blocks: np.ndarray) -> np.ndarray:
    """Return the weights in GGUF's Q4_1 blocks: scale · code + minimum, codes from 0 to 15.

    A block is a float16 scale, a float16 minimum, and 16 bytes with two codes each: the lower four
    bits are the first 16 weights, the upper four bits the other 16.

    Parameters
    ----------
    blocks : numpy.ndarray of uint8, shape (rows, bytes)
        20 bytes a block.

    Returns
    -------
    numpy.ndarray of float32, shape (rows, weights)

    Raises
    ------
    ValueError
        If the bytes are no whole number of blocks.
    """
    blocks = _blocks(blocks, Q4_1_BYTES)  # (rows, n, 20)
    header = np.ascontiguousarray(blocks[..., :4]).view(np.float16).astype(np.float32)
    scale, minimum = header[..., :1], header[..., 1:]  # (rows, n, 1) each
    packed = blocks[..., 4:]
    codes = np.concatenate([packed & 15, packed >> 4], axis=-1)  # (rows, n, 32)
    return (scale * codes + minimum).reshape(len(blocks), -1)


def _blocks(data: np.ndarray, size: int) -> np.ndarray:
    data = as_array("blocks", data)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] % size:
        raise ValueError(
            f"expected bytes (uint8) of shape (rows, blocks of {size}), not {data.dtype} of shape "
            f"{data.shape}"
        )
    return data.reshape(len(data), -1, size)
