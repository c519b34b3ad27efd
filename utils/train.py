"""Seeds, devices and progress bars: what every run of a model starts with.

The loop itself is in `utils.training` and can be had from here: `from utils.train import train`.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from utils.arguments import as_whole_number, check_text, shown

if TYPE_CHECKING:
    import torch

    from utils.training import History, TrainingDiverged, mean_loss, train

__all__ = [
    "History",
    "TrainingDiverged",
    "get_device",
    "mean_loss",
    "progress",
    "seed_everything",
    "train",
]

Item = TypeVar("Item")
_FROM_TRAINING = {"History", "TrainingDiverged", "mean_loss", "train"}


def seed_everything(seed: int = 0) -> np.random.Generator:
    """Seed Python's, numpy's and torch's random numbers, and return a numpy generator.

    torch is seeded whether or not it has been imported yet, so that the order of a
    notebook's imports does not change its results.

    Parameters
    ----------
    seed : int
        From 0 to 2**32 - 1, the range that all three libraries accept.

    Returns
    -------
    numpy.random.Generator
        A fresh generator with the same seed, for numpy code that takes its randomness from
        an argument instead of from global state.

    Raises
    ------
    TypeError
        If `seed` is not an integer.
    ValueError
        If `seed` is outside the accepted range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer such as 0, not {seed!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, not {seed}")
    seed = int(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that use numpy's global generator
    if importlib.util.find_spec("torch"):  # a browser has none: scripts/build_lite.py
        _seed_torch(seed)
    return np.random.default_rng(seed)


def _seed_torch(seed: int) -> None:
    import torch

    torch.manual_seed(seed)  # seeds every CUDA device as well


def get_device(name: str | None = None) -> torch.device:
    """Return the device to compute on: a CUDA GPU, Apple's MPS, or the CPU, in that order.

    Parameters
    ----------
    name : str, optional
        Ask for one device, such as "cpu" or "cuda:1". Without it, the environment variable
        COURSE_DEVICE decides if it is set, else the best device that is there.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If torch does not know a device of that name.
    RuntimeError
        If the device asked for is not on this machine.
    """
    import torch

    if name is not None and not isinstance(name, str | torch.device):
        raise TypeError(f"name must be a device's name, such as 'cpu', not {shown(name)}")
    name = name or os.environ.get("COURSE_DEVICE") or None
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, UnicodeError):
        raise ValueError(f"unknown device {name!r}: use 'cpu', 'cuda', 'cuda:0' or 'mps'") from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise RuntimeError(
            f"device {name!r} is not available on this machine; "
            "call get_device() without a name to take what there is"
        )
    return device


def progress(items: Iterable[Item], desc: str = "", total: int | None = None) -> Iterable[Item]:
    """Iterate over `items` behind a progress bar that disappears when it is done.

    The bar is silent when the environment variable COURSE_PROGRESS is "0": the book and the
    tests set it, so that no half-drawn bar ends up in a notebook's outputs.

    Parameters
    ----------
    items : iterable
    desc : str
        A word or two on what is happening, shown before the bar.
    total : int, optional
        How many items there are, where `len(items)` cannot tell.

    Returns
    -------
    iterable
        The same items; where the bar is shown, a `tqdm` object (which has `set_postfix`).
    """
    from tqdm import tqdm

    check_text(desc=desc)
    if not isinstance(items, Iterable):
        raise TypeError(f"items must be something to iterate over, not {shown(items)}")
    total = None if total is None else as_whole_number("total", total)
    return tqdm(
        items,
        desc=desc,
        total=total,
        leave=False,
        file=sys.stderr,
        disable=os.environ.get("COURSE_PROGRESS") == "0",
    )


def __getattr__(name: str) -> Any:
    """Give the training loop, which needs torch, on first use (PEP 562)."""
    if name not in _FROM_TRAINING:
        raise AttributeError(f"module 'utils.train' has no attribute {name!r}")
    from utils import training

    return getattr(training, name)
