"""The helper package of *Language Models from First Principles*.

One module per idea; each chapter derives a thing in small steps, proves it equal to the
version kept here, and later chapters import that version:

    from utils import checks, plot, seed_everything, get_device

Importing the package is cheap on purpose: numpy, torch and transformers load only when a
module that needs them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from utils.train import get_device, seed_everything

__version__ = "0.1.0"
__all__ = ["__version__", "get_device", "seed_everything"]

_FROM_TRAIN = {"get_device", "seed_everything"}


def __getattr__(name: str) -> Any:
    """Load a helper or a submodule on first use (PEP 562)."""
    if name in _FROM_TRAIN:
        return getattr(importlib.import_module("utils.train"), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'utils' has no attribute {name!r}")
    try:
        return importlib.import_module(f"utils.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"utils.{name}":
            raise  # the module exists; something that it imports does not
        raise AttributeError(f"module 'utils' has no attribute {name!r}") from None
