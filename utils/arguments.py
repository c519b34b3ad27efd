"""What BERT and GPT both ask of their sizes and of the token ids they are given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def check_sizes(config: Any, names: Iterable[str]) -> None:
    """Raise ValueError unless each of these attributes is a whole number of at least 1."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_ids_shape(ids: Tensor) -> None:
    """Raise ValueError unless token ids have the shape (B, T) with T at least 1."""
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(
            f"ids should have shape (B, T) with T at least 1, not {tuple(ids.shape)}; "
            "one sequence goes in as ids[None]"
        )


def check_ids_range(ids: Tensor, size: int, name: str = "ids") -> None:
    """Raise ValueError unless ids on the CPU are from 0 to size - 1.

    On a GPU the look-up itself reports a wrong id, and asking would make the CPU wait for it.
    """
    import torch

    if ids.device.type != "cpu" or torch.compiler.is_compiling():
        return
    low, high = int(ids.min()), int(ids.max())
    if not 0 <= low <= high < size:
        raise ValueError(
            f"{name} run from {low} to {high}, but this model knows 0 to {size - 1}: do model and "
            "tokenizer belong together?"
        )
