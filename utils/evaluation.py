"""The loss of a model on a batch, and its mean over many, in nats per target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.batches import IGNORE, to_device


def cross_entropy_loss(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    """Return the mean cross-entropy in nats per target: the loss of `train` unless told otherwise.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits of shape (B, T, V), or (B, V) with one class per row.
    batch : sequence of torch.Tensor
        The last is the targets, shape (B, T) or (B,), of which -100 does not count; the model is
        called with those before it.

    Returns
    -------
    torch.Tensor, shape ()

    Raises
    ------
    ValueError
        If logits and targets do not fit.
    """
    *inputs, targets = batch
    logits = model(*inputs)  # (B, T, V)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, not {tuple(targets.shape)}; give a loss_function of your "
            "own if the last entry of a batch is not the targets"
        )
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE)


def count_targets(batch: Any) -> int:
    """Count the targets that a loss averages over: the batch's last entry, or its "labels"."""
    targets = batch["labels"] if isinstance(batch, Mapping) else batch[-1]
    return int((targets != IGNORE).sum())


def mean_loss(
    model: nn.Module,
    batches: Iterable[Any],
    count: int | None = None,
    loss_function: Callable[[nn.Module, Any], Tensor] = cross_entropy_loss,
    count_targets: Callable[[Any], int] = count_targets,
) -> float:
    """Return the loss per target over many batches, in evaluation mode and without gradients.

    Each batch weighs as much as it has targets, so that the result does not depend on how the
    text was cut into batches.

    Parameters
    ----------
    model : torch.nn.Module
        Left in the mode in which it was.
    batches : iterable
        Such as `text_windows(...)`; `TextBatches` and `ExampleBatches`, which have no end, with a
        `count`.
    count : int, optional
        Take only the first so many batches.
    loss_function, count_targets : callable
        As in `utils.training.train`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is no target at all, or `batches` are without end and there is no `count`.
    """
    if count is None and hasattr(batches, "__getitem__") and not hasattr(batches, "__len__"):
        raise ValueError(
            f"{type(batches).__name__} has no end: say how many batches with count=..., or take "
            "text_windows(...)"
        )
    device, was_training = device_of(model), model.training
    total, targets = 0.0, 0
    model.eval()
    try:
        with torch.no_grad():
            for batch in islice(iter(batches), count):
                if number := count_targets(batch):
                    total += float(loss_function(model, to_device(batch, device))) * number
                    targets += number
    finally:
        model.train(was_training)
    if not targets:
        raise ValueError("there is nothing to evaluate: the batches hold no targets")
    return total / targets


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's parameters are."""
    for parameter in model.parameters():
        return parameter.device
    raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to train")
