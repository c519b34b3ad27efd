"""Honest figures of a computation: seconds, floating-point operations, bytes (chapter 7)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.arguments import (
    LARGEST_WHOLE,
    as_device,
    as_floats,
    as_positive,
    as_whole_number,
    check_function,
)

if TYPE_CHECKING:
    import torch


def synchronize(device: torch.device | str | None = None) -> None:
    """Wait until a device has done all that it was told to do.

    A GPU works through a queue: a call returns when the work is queued, not when it is done. The
    CPU has no queue, and there is nothing to wait for.

    Parameters
    ----------
    device : torch.device or str, optional
        By default what `utils.get_device()` returns.
    """
    import torch

    from utils.train import get_device

    kind = (get_device() if device is None else as_device("device", device)).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of the same call."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median in seconds, which one slow run does not move."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a fraction of the median."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float((high - low) / self.median) if self.median else 0.0

    def __repr__(self) -> str:
        return f"{1e3 * self.median:.3f} ms ± {100 * self.spread:.0f} %"


def time_call(
    function: Callable[[], Any],
    repeats: int = 10,
    warmup: int = 2,
    device: torch.device | str | None = None,
) -> Timing:
    """Time a call: warm up, wait for the device before and after each run, keep every run.

    Parameters
    ----------
    function : callable
        Called without arguments.
    repeats : int
        Runs that count, at least 1.
    warmup : int
        Runs before them that do not: the first may allocate memory, load or compile kernels.
    device : torch.device or str, optional
        The device that the function computes on, by default what `utils.get_device()` returns.

    Returns
    -------
    Timing

    Raises
    ------
    TypeError, ValueError
        If `function` cannot be called, `repeats` is less than 1 or `warmup` less than 0.
    """
    check_function(function=function)
    as_whole_number("repeats", repeats, 1)
    as_whole_number("warmup", warmup)
    seconds = []
    for run in range(-warmup, repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        if run >= 0:
            seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds))


def saved_bytes(function: Callable[[], Any]) -> int:
    """Return how many bytes autograd keeps for the backward pass of a computation.

    Storage that several saved tensors share (views of one another) counts once. Parameters and
    inputs that are kept count as well: they are needed, even though they exist anyway.

    Parameters
    ----------
    function : callable
        Does the forward pass; called once, without arguments.
    """
    import torch

    check_function(function=function)

    storages: dict[int, int] = {}
    kept = []  # keeps them alive, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        kept.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(storages.values())


def matmul_cost(rows: int, inner: int, columns: int, bytes_each: int = 4) -> tuple[int, int]:
    """Return the operations and the least traffic of (rows, inner) @ (inner, columns).

    Each of the rows · columns results takes `inner` multiplications and as many additions. At best
    both factors are read once and the result is written once.

    Parameters
    ----------
    rows, inner, columns : int
    bytes_each : int
        Bytes of a number: 4 for float32, 2 for float16 and bfloat16.

    Returns
    -------
    flops, traffic : int
        Floating-point operations, and bytes.

    Raises
    ------
    ValueError
        If a size is less than 1.
    """
    sizes = {"rows": rows, "inner": inner, "columns": columns, "bytes_each": bytes_each}
    for name, size in sizes.items():
        as_whole_number(name, size, 1, LARGEST_WHOLE)
    flops = 2 * rows * inner * columns
    return flops, bytes_each * (rows * inner + inner * columns + rows * columns)


def attainable(intensity: float | np.ndarray, peak: float, bandwidth: float) -> Any:
    """Return the roofline: the FLOP/s that a computation can reach (Williams et al. 2009).

    Parameters
    ----------
    intensity : float or array_like
        Operations per byte of traffic.
    peak : float
        The most FLOP/s that the processor can do.
    bandwidth : float
        The most bytes per second that it can move.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """
    intensity = as_floats("intensity", intensity, finite=True).astype(float)
    peak, bandwidth = as_positive("peak", peak), as_positive("bandwidth", bandwidth)
    if not np.all(intensity > 0):
        raise ValueError(f"intensity must be positive, not {intensity.min()}")
    return np.minimum(peak, intensity * bandwidth)
