"""A debugging kit: small questions to put to a model and its data before believing any number.

    from utils import audit
    audit.mask(attention_mask, ids, pad_id)        # type, shape, padding, empty rows
    audit.overlap(train_texts, test_texts)         # do train and test share texts?
    audit.initial_loss(loss, vocab_size)           # is it log V?
    audit.gradient_reach(model, loss)              # does the loss reach every weight?
    audit.influence(model, ids)                    # which output depends on which input?
    audit.overfit(model, batch, loss_function)     # can the model learn one batch by heart?
    audit.noise(model, loss_function, vocab_size)  # does it claim to predict random tokens?

Each but `influence` returns a `Finding`, shown as one line. None changes the model it is given.
Chapter 20 uses them in this order; chapters 8 and 10 show why the answers are what they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.arguments import (
    as_list,
    as_number,
    as_positive,
    as_whole_number,
    check_function,
    check_ids_shape,
    check_model,
    check_scalar,
    check_tensor,
    shown,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Finding:
    """What an audit found; a notebook shows it as one line of text."""

    question: str
    ok: bool
    message: str

    def __repr__(self) -> str:
        return f"{'✓' if self.ok else '✗'} {self.question}: {self.message}"


def mask(attention_mask: Any, ids: Tensor, pad_id: int | None = None) -> Finding:
    """Ask whether a padding mask is one: a tensor of ids' shape that hides padding and only that.

    Parameters
    ----------
    attention_mask : object
        What is going to be passed to a model; it should be a tensor of booleans, or of zeros and
        ones of an integer type, 1 for real tokens, shape (B, T).
    ids : torch.Tensor of int, shape (B, T)
    pad_id : int, optional
        The padding token. Only padding at the ends of a row counts, because the same id may stand
        for something else (such as the end of a text) within it.

    Returns
    -------
    Finding
    """
    check_ids_shape(ids)
    check_tensor("ids", ids, kind="int", values=True)
    pad_id = None if pad_id is None else as_whole_number("pad_id", pad_id)
    problem = next(_mask_problems(attention_mask, ids, pad_id), None)
    if problem:
        return Finding("mask", False, problem)
    seen = f"{int((attention_mask != 0).sum())} of {ids.numel()} tokens can be seen"
    return Finding("mask", True, seen)


def overlap(train: Iterable[str], test: Iterable[str]) -> Finding:
    """Ask whether texts of the test set, up to case and spaces, occur in the training set.

    Parameters
    ----------
    train, test : iterable of str
        Texts; to look for shared groups pass those, such as the films of the reviews.

    Returns
    -------
    Finding

    Raises
    ------
    ValueError
        If there is no test text, of which no share can be given.
    """
    train, test = as_list("train", train), as_list("test", test)
    known, test = {_normalised(text) for text in train}, [_normalised(text) for text in test]
    if not test:
        raise ValueError("the test set is empty: give overlap(train, test) two sets of texts")
    shared = sum(text in known for text in test)
    message = f"{shared} of {len(test)} test entries ({shared / len(test):.1%}) are in training"
    return Finding("overlap", shared == 0, message)


def initial_loss(loss: float, vocab_size: int, tolerance: float = 0.5) -> Finding:
    """Ask whether an untrained model's loss is near log V, that of knowing nothing.

    Parameters
    ----------
    loss : float or torch.Tensor of one number
        In nats per token, before the first update.
    vocab_size : int
        V, or the number of classes.
    tolerance : float
        How far from log V is still near, in nats.

    Returns
    -------
    Finding
    """
    if hasattr(loss, "detach"):
        check_scalar("loss", loss)
        check_tensor("loss", loss, values=True)
        loss = float(loss.detach())
    loss = loss if isinstance(loss, float) else as_number("loss", loss)
    vocab_size, tolerance = (
        as_whole_number("vocab_size", vocab_size, 1),
        as_number("tolerance", tolerance, 0),
    )
    expected = math.log(vocab_size)
    known = f"the loss is {loss:.2f}, log {vocab_size} is {expected:.2f}"
    if not math.isfinite(loss):
        return Finding("initial loss", False, f"it is {loss}")
    if loss > expected + tolerance:
        return Finding("initial loss", False, f"{known}: the model starts with firm opinions")
    if loss < expected - tolerance:
        return Finding("initial loss", False, f"{known}: it cannot know anything yet. A leak?")
    return Finding("initial loss", True, known)


def gradient_reach(model: nn.Module, loss: Tensor) -> Finding:
    """Ask which weights a loss does not reach: those without a gradient, or with zeros only.

    Parameters
    ----------
    model : torch.nn.Module
    loss : torch.Tensor, shape ()
        Computed by the model, in training mode or not.

    Returns
    -------
    Finding
    """
    import torch

    check_model("model", model)
    check_scalar("loss", loss)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not loss.requires_grad:
        return Finding("gradient reach", False, "the loss hangs on no weight at all")
    gradients = torch.autograd.grad(
        loss, [p for _, p in named], retain_graph=True, allow_unused=True
    )
    missed = [
        name
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is None or not bool(gradient.any())
    ]
    if missed:
        names = ", ".join(missed[:3]) + (", ..." if len(missed) > 3 else "")
        message = f"{len(missed)} of {len(named)} tensors are not reached: {names}"
        return Finding("gradient reach", False, message)
    return Finding("gradient reach", True, f"all {len(named)} tensors are reached")


def influence(model: Callable[[Tensor], Tensor], ids: Tensor, vocab_size: int) -> torch.Tensor:
    """Change one input token at a time and see which outputs notice.

    Parameters
    ----------
    model : callable
        From ids (1, T) to anything of shape (1, T, ...), deterministically: in evaluation mode.
    ids : torch.Tensor of int, shape (T,)
    vocab_size : int

    Returns
    -------
    torch.Tensor of bool, shape (T, T)
        Entry (t, s): output t changes when input s does. A causal model gives nothing above the
        diagonal.
    """
    import torch

    if not callable(model):
        raise TypeError(f"model must be a model or a function of ids, not {shown(model)}")
    check_tensor("ids", ids, "(T,)", "int", values=True)
    vocab_size = as_whole_number("vocab_size", vocab_size, 1)
    with torch.no_grad():
        output = model(ids[None])
        if not isinstance(output, torch.Tensor) or output.shape[:2] != (1, len(ids)):
            raise TypeError(f"model must return a tensor (1, T, ...), not {shown(output)}")
        before = output[0]  # (T, ...)
        felt = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for place in range(len(ids)):
            changed = ids.clone()
            changed[place] = (changed[place] + 1) % vocab_size
            difference = (model(changed[None])[0] - before).abs().reshape(len(ids), -1)
            felt[:, place] = (difference.amax(dim=1) > 1e-6).cpu()
    return felt


def overfit(
    model: nn.Module,
    batch: Any,
    loss_function: Callable[[nn.Module, Any], Tensor] | None = None,
    *,
    steps: int = 100,
    lr: float = 3e-3,
    target: float = 0.1,
) -> Finding:
    """Ask whether a copy of the model can learn one batch by heart.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    batch : object
    loss_function : callable, optional
        From model and batch to a scalar; by default the cross-entropy of `utils.train`.
    steps, lr
        Of AdamW, without weight decay.
    target : float
        The loss that counts as known by heart, in nats per target.

    Returns
    -------
    Finding
    """
    import torch

    from utils.evaluation import cross_entropy_loss

    loss_function = cross_entropy_loss if loss_function is None else loss_function
    check_model("model", model)
    check_function(loss_function=loss_function)
    steps, lr = as_whole_number("steps", steps), as_positive("lr", lr)
    target = as_number("target", target)
    parrot = copy.deepcopy(model).eval()  # without dropout
    optimizer = torch.optim.AdamW(parrot.parameters(), lr=lr, weight_decay=0.0)
    losses = []
    for step in range(steps + 1):
        loss = loss_function(parrot, batch)
        check_scalar("loss_function", loss)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]) or losses[-1] < target or step == steps:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    message = f"{losses[0]:.2f} -> {losses[-1]:.2f} after {len(losses) - 1} steps"
    learned = math.isfinite(losses[-1]) and losses[-1] < target
    return Finding("overfit one batch", learned, message)


def noise(
    model: nn.Module,
    loss_function: Callable[[nn.Module, Tensor], Tensor],
    vocab_size: int,
    *,
    shape: tuple[int, int] = (16, 9),
    steps: int = 150,
    lr: float = 3e-3,
    tolerance: float = 0.1,
) -> Finding:
    """Ask whether a copy of a language model learns to predict random tokens, which nobody can.

    This is the test by shuffled labels: where there is nothing to learn, a loss below log V means
    that the answers are in the inputs.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    loss_function : callable
        From model and token ids of shape `shape` to the mean loss per predicted token.
    vocab_size : int
    shape : tuple of int
        Sequences in a batch, and their length; every batch is drawn anew.
    steps, lr
        Of AdamW, without weight decay.
    tolerance : float
        How far below log V counts as knowing too much, in nats.

    Returns
    -------
    Finding
    """
    import torch

    check_model("model", model)
    check_function(loss_function=loss_function)
    steps, lr = as_whole_number("steps", steps, 1), as_positive("lr", lr)
    vocab_size, tolerance = (
        as_whole_number("vocab_size", vocab_size, 1),
        as_number("tolerance", tolerance),
    )
    shape = as_list("shape", shape, int, least=2)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape is a number of sequences and their length, not {shape}")
    generator = torch.Generator().manual_seed(0)
    student = copy.deepcopy(model).eval()
    device = next(student.parameters()).device
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        ids = torch.randint(vocab_size, shape, generator=generator).to(device)
        loss = loss_function(student, ids)
        check_scalar("loss_function", loss)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last, floor = sum(losses[-10:]) / len(losses[-10:]), math.log(vocab_size)
    message = f"the loss on random tokens is {last:.2f}, log {vocab_size} is {floor:.2f}"
    ok = last > floor - tolerance
    return Finding("noise", ok, message + ("" if ok else ": the answers are in the inputs"))


def _mask_problems(attention_mask: Any, ids: Tensor, pad_id: int | None) -> Iterator[str]:
    """Name what is wrong with a mask, the most basic things first; each asks for those before."""
    import torch

    if not isinstance(attention_mask, torch.Tensor):
        yield f"it is a {type(attention_mask).__name__}; models take a tensor"
    if attention_mask.device != ids.device:
        yield f"it is on the device {attention_mask.device}, ids on {ids.device}"
    if attention_mask.shape != ids.shape:
        yield f"it has shape {tuple(attention_mask.shape)}, ids {tuple(ids.shape)}"
    if attention_mask.dtype.is_floating_point or attention_mask.is_complex():
        yield (
            f"it is of type {attention_mask.dtype}, which some layers add to the scores; pass "
            "booleans or integers"
        )
    if not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
        yield "it has values besides 0 and 1"
    real = attention_mask.bool()
    empty = int((~real.any(dim=1)).sum())
    if empty:
        yield f"{empty} of {len(ids)} rows hide everything"
    if pad_id is not None:
        padding = _padding_at_the_ends(ids, pad_id)
        if seen := int((real & padding).sum()):
            yield f"{seen} padding tokens can be seen"
        if hidden := int((~real & ~padding).sum()):
            yield f"{hidden} real tokens are hidden"


def _padding_at_the_ends(ids: Tensor, pad_id: int) -> Tensor:
    """Mark the runs of `pad_id` with which a row begins or ends."""
    pad = (ids == pad_id).int()
    at_start, at_end = pad.cumprod(dim=1), pad.flip(1).cumprod(dim=1).flip(1)
    return (at_start | at_end).bool()


def _normalised(text: str) -> str:
    return " ".join(str(text).split()).casefold()
