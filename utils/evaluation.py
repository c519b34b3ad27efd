"""The loss of a model on a batch, and its mean over many, in nats per target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arguments import (
    as_list,
    as_whole_number,
    check_function,
    check_model,
    check_scalar,
    check_tensor,
    shown,
)
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
    TypeError, ValueError
        If the batch is none, or logits and targets do not fit.
    """
    if not callable(model):
        raise TypeError(f"model must be a torch.nn.Module or a function, not {shown(model)}")
    *inputs, targets = as_list("batch", batch, Tensor, least=2)
    logits = model(*inputs)  # (B, T, V)
    check_tensor("what model returns", logits, "(..., V)")
    check_tensor("batch[-1], the targets,", targets, kind="int", like=logits)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, not {tuple(targets.shape)}; give a loss_function of your "
            "own if the last entry of a batch is not the targets"
        )
    if targets.device.type == "cpu" and not bool((targets != IGNORE).any()):
        raise ValueError("the batch has no target that counts: all are -100")
    try:
        flat = logits.flatten(0, -2).float()
        return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORE)
    except IndexError:
        raise ValueError(
            f"the batch's targets go from {int(targets.min())} to {int(targets.max())}, but the "
            f"model has the classes 0 to {logits.shape[-1] - 1}"
        ) from None


def count_targets(batch: Any) -> int:
    """Count the targets that a loss averages over: the batch's last entry, or its "labels"."""
    is_dict = isinstance(batch, Mapping)
    if is_dict and "labels" not in batch:
        raise ValueError(f"batch has no 'labels', only {', '.join(map(str, batch)) or 'nothing'}")
    targets = batch["labels"] if is_dict else as_list("batch", batch, least=1)[-1]
    if not isinstance(targets, Tensor) or targets.is_meta:
        raise TypeError(f"the targets of batch must be a tensor of numbers, not {shown(targets)}")
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
    count = None if count is None else as_whole_number("count", count, 1)
    check_function(loss_function=loss_function, count_targets=count_targets)
    if isinstance(batches, str | Mapping) or not (
        hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")
    ):
        raise TypeError(f"batches must be a list of batches or the like, not {shown(batches)}")
    total, targets = 0.0, 0
    model.eval()
    try:
        with torch.no_grad():
            for batch in islice(iter(batches), count):
                number = as_whole_number("what count_targets returns", count_targets(batch))
                if number:
                    loss = loss_function(model, to_device(batch, device))
                    check_scalar("loss_function", loss)
                    total += float(loss) * number
                    targets += number
    finally:
        model.train(was_training)
    if not targets:
        raise ValueError("there is nothing to evaluate: the batches hold no targets")
    return total / targets


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's parameters are."""
    check_model("model", model)
    for parameter in model.parameters():
        return parameter.device
    raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to train")
