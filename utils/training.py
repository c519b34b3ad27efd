"""The course's one training loop, put together in chapter 10 from the parts of chapters 7 and 8.

`Run.update` is the loop's heart: batches, loss, gradient, clipping, step. The rest is what a long
run needs: evaluation, snapshots from which it goes on as if it had never stopped, and an end to it
when Ctrl-C is pressed or the loss is no number.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.arguments import (
    LARGEST_SIZE,
    as_number,
    as_path,
    as_whole_number,
    check_function,
    check_model,
    check_scalar,
    check_text,
    shown,
)
from utils.batches import batch_getter, to_device
from utils.evaluation import count_targets, cross_entropy_loss, device_of, mean_loss
from utils.history import History, TrainingDiverged, diagnosis
from utils.interrupt import Interrupt
from utils.optim import clip_grad_norm, decay_groups
from utils.snapshots import (
    SnapshotError,
    check_fits,
    load_snapshot,
    rng_state,
    save_snapshot,
    set_rng_state,
)
from utils.train import progress

__all__ = ["History", "TrainingDiverged", "mean_loss", "train"]

_PARTS = {"settings", "history", "model", "optimizer", "scaler", "rng"}  # of last.safetensors


def train(
    model: nn.Module,
    batches: Any,
    steps: int,
    *,
    optimizer: Any = None,
    lr: float | None = None,
    schedule: Callable[[int], float] | None = None,
    loss_function: Callable[[nn.Module, Any], Tensor] = cross_entropy_loss,
    count_targets: Callable[[Any], int] = count_targets,
    grad_accumulation: int = 1,
    max_grad_norm: float | None = 1.0,
    dtype: torch.dtype | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    eval_every: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 0,
    resume: bool = True,
    desc: str = "training",
    log: Callable[[str], None] | None = print,
) -> History:
    """Train a model in place, on the device where it is, until it has had `steps` updates.

    Parameters
    ----------
    model : torch.nn.Module
        Comes back in evaluation mode.
    batches : list, or anything with batches[i], or a function of i
        Number i must always be the same batch, so that a resumed run goes on where it was:
        `TextBatches` and `ExampleBatches` of `utils.batches` are made so. A list is gone round
        again and again. A batch is a tuple or dict of tensors.
    steps : int
        In total, so that a run resumed after 60 of 100 makes 40 more.
    optimizer : optional
        From `torch.optim` or `utils.optim`; by default torch's AdamW on `decay_groups(model)`.
    lr : float, optional
        The default optimiser's learning rate, 3e-4 unless given.
    schedule : callable, optional
        `schedule(step)`, with step from 0, is what every learning rate is multiplied by, such as
        `lambda step: warmup_cosine(step, 100, 1000, peak=1.0)`.
    loss_function : callable
        `loss_function(model, batch)` returns a scalar, the mean over the batch's targets.
    count_targets : callable
        `count_targets(batch)` returns over how many targets `loss_function` takes its mean.
    grad_accumulation : int
        Add up the gradients of so many batches per update, each weighted with its share of the
        targets: that is the gradient of one large batch, in the memory of a small one.
    max_grad_norm : float or None
        Clip the gradient to this length; None leaves it as it is.
    dtype : torch.dtype, optional
        Of the matrix products (autocast). By default bfloat16 on a CUDA device that has it
        (float16 on an older one) and float32 elsewhere. float16 runs with a `GradScaler`.
    evaluate : callable, optional
        `evaluate(model)` returns a number, the lower the better. Called in evaluation mode,
        without gradients, and with its own random numbers: it does not change the run.
    eval_every : int
        Evaluate after every so many updates, besides before the first and after the last.
    checkpoint : str or path, optional
        A folder, for `last.safetensors` (all of the run) and, with `evaluate`, `best.safetensors`
        (the weights of the lowest evaluation; see `utils.snapshots.load_weights`).
    checkpoint_every : int
        Save after every so many updates, besides before the first and after the last.
    resume : bool
        Go on from `last.safetensors` if it is there. On the CPU the result is the same to the
        last bit as without the stop, provided that all random numbers come from Python's,
        numpy's and torch's global generators. The optimiser's options except the rate come from
        the checkpoint. False starts again and overwrites.
    desc : str
        Stands before the progress bar.
    log : callable or None
        Gets a line of text at each evaluation, resumption and interruption.

    Returns
    -------
    History
        With `stopped` "done", or "interrupted" after Ctrl-C: the first ends the run after the
        update in hand and saves, a second one stops at once.

    Raises
    ------
    TrainingDiverged
        If the loss or the gradient is not finite; the last checkpoint stays as it was.
    SnapshotError
        If the checkpoint is damaged, no checkpoint, or of another model.
    OSError
        If a checkpoint cannot be written.
    TypeError, ValueError
        If an argument is out of range, or the checkpoint is of a run with other settings.
    """
    check_model("model", model)
    check_text(desc=desc)
    functions = {"schedule": schedule, "evaluate": evaluate, "log": log}
    check_function(**{name: each for name, each in functions.items() if each is not None})
    check_function(loss_function=loss_function, count_targets=count_targets)
    if optimizer is not None and lr is not None:
        raise ValueError("lr is for the default optimiser; give the rate to your own optimizer")
    if optimizer is None:
        lr = 3e-4 if lr is None else as_number("lr", lr, 0)
        optimizer = torch.optim.AdamW(decay_groups(model), lr=lr)
    elif not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must be of torch.optim or utils.optim, not {shown(optimizer)}")
    run = Run(
        model=model,
        batches=batches,
        steps=steps,
        optimizer=optimizer,
        schedule=schedule or (lambda step: 1.0),
        loss_function=loss_function,
        count_targets=count_targets,
        grad_accumulation=grad_accumulation,
        max_grad_norm=math.inf if max_grad_norm is None else max_grad_norm,
        dtype=_chosen_dtype(dtype, device_of(model)),
        evaluate=evaluate,
        eval_every=eval_every,
        folder=None if checkpoint is None else as_path("checkpoint", checkpoint),
        save_every=checkpoint_every,
        log=log or (lambda text: None),
    )
    if resume:
        run.load()
    history, abandoned = run.history, False
    try:
        with Interrupt() as interrupt, progress(range(steps), desc=desc) as bar:
            bar.n = bar.initial = min(history.steps, steps)
            while True:
                try:
                    if run.evaluation_is_due():
                        bar.clear()
                        run.make_evaluation()
                    if interrupt.asked or history.steps >= steps:
                        break
                    if run.saving_is_due():
                        run.save()
                    run.update()
                except KeyboardInterrupt:
                    if interrupt.asked:
                        raise  # the second Ctrl-C: stop at once
                    abandoned = True  # one of the functions passed in raised it
                    break
                speed = f"{history.tokens_per_second:,.0f} tokens/s"
                bar.set_postfix_str(f"loss {history.losses[-1]:.3f}, {speed}", refresh=False)
                bar.update()
            run.save()
    finally:
        run.tidy_up()
    history.stopped = "interrupted" if abandoned or history.steps < steps else "done"
    if history.stopped == "interrupted":
        saved = f"saved in {checkpoint}; run this again to go on" if checkpoint else "not saved"
        run.log(f"Interrupted after step {history.steps:,} of {steps:,}: {saved}")
    return history


@dataclass
class Run:
    """One run of `train`, whose arguments these are: the model and all that changes with it."""

    model: nn.Module
    batches: Any
    steps: int
    optimizer: Any
    schedule: Callable[[int], float]
    loss_function: Callable[[nn.Module, Any], Tensor]
    count_targets: Callable[[Any], int]
    grad_accumulation: int
    max_grad_norm: float
    dtype: torch.dtype
    evaluate: Callable[[nn.Module], float] | None
    eval_every: int
    folder: Path | None
    save_every: int
    log: Callable[[str], None]
    history: History = field(default_factory=History)
    saved: tuple[int, int] | None = None  # updates and evaluations in last.safetensors

    def __post_init__(self) -> None:
        """Check the arguments and work out what follows from them."""
        names = ("steps", "grad_accumulation", "eval_every", "checkpoint_every")
        numbers = (self.steps, self.grad_accumulation, self.eval_every, self.save_every)
        for name, number in zip(names, numbers, strict=True):
            as_whole_number(name, number, -LARGEST_SIZE)
        as_number("max_grad_norm", self.max_grad_norm, 0, math.inf)
        if min(numbers[:2]) < 1 or min(numbers[2:]) < 0:
            raise ValueError(
                "steps and grad_accumulation must be at least 1, eval_every and checkpoint_every "
                f"at least 0, not {', '.join(map(str, numbers))}"
            )
        if self.eval_every and self.evaluate is None:
            raise ValueError("eval_every needs evaluate, a function of the model: its loss")
        if self.save_every and self.folder is None:
            raise ValueError("checkpoint_every needs checkpoint, a folder to save to")
        self.batch = batch_getter(self.batches)
        self.device = device_of(self.model)
        self.params = [p for p in self.model.parameters() if p.requires_grad]
        groups = self.optimizer.param_groups
        if not {id(p) for p in self.params} & {id(p) for g in groups for p in g["params"]}:
            raise ValueError(
                "the optimizer holds none of the model's parameters that are to be trained: build "
                "it from model.parameters() after building the model"
            )
        self.base_rates = [group["lr"] for group in groups]
        # float16 has no number between 0 and 6e-8: the loss is scaled up, so that gradients have.
        scaled = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.settings = {  # what must not differ when a run is resumed
            "batches": getattr(self.batches, "describe", dict)(),
            "grad_accumulation": self.grad_accumulation,
            "optimizer": f"{type(self.optimizer).__module__}.{type(self.optimizer).__name__}",
        }

    def update(self) -> None:
        """Make one update; where that is interrupted, the run is as it was before."""
        history, before, started = self.history, rng_state(), time.perf_counter()
        try:
            factor = as_number("what schedule returns", self.schedule(history.steps))
            loss, tokens = self.accumulate_gradients(history.steps)
        except KeyboardInterrupt:
            set_rng_state(before)
            raise
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_grad_norm(self.params, self.max_grad_norm).item()
        rate = self.optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss) or not (math.isfinite(grad_norm) or self.may_overflow()):
            raise TrainingDiverged(
                diagnosis(self.model, history, loss, grad_norm, rate) + self.fallback(), history
            )
        self.scaler.step(self.optimizer)  # optimizer.step(), unless float16 overflowed
        self.scaler.update()
        history.steps += 1
        history.losses.append(loss)
        history.learning_rates.append(rate)
        history.grad_norms.append(grad_norm)
        history.tokens += tokens
        history.seconds += time.perf_counter() - started

    def accumulate_gradients(self, step: int) -> tuple[float, int]:
        """Leave the gradient of the mean loss per target in the parameters."""
        step = as_whole_number("step", step)
        first = step * self.grad_accumulation
        batches = [self.batch(first + i) for i in range(self.grad_accumulation)]
        counts = [
            as_whole_number("what count_targets returns", self.count_targets(batch))
            for batch in batches
        ]
        if not sum(counts):
            raise ValueError(f"nothing to learn at step {step}: its batches hold no targets")
        self.model.train()
        self.optimizer.zero_grad()
        loss = 0.0
        for batch, count in zip(batches, counts, strict=True):
            if not count:
                continue  # the mean over no target is no number
            with self.autocast():
                part = self.loss_function(self.model, to_device(batch, self.device))
            if not isinstance(part, Tensor):
                check_scalar("loss_function", part)
            if part.ndim:
                raise ValueError(
                    f"the loss must be one number, the mean over the targets, not of shape "
                    f"{tuple(part.shape)}"
                )
            part = part * (count / sum(counts))
            self.scaler.scale(part).backward()
            loss += part.item()
        return loss, sum(counts)

    def autocast(self) -> torch.autocast:
        """Return the context in which matrix products are made in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def may_overflow(self) -> bool:
        """Tell whether a gradient of inf is no fault yet: the scaler tries a smaller scale."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def fallback(self) -> str:
        """Return where the last good snapshot is."""
        if self.saved is None:
            return ""
        return f"\nThe checkpoint of step {self.saved[0]} in {self.folder} is as it was."

    def evaluation_is_due(self) -> bool:
        """Tell whether the model as it is now should be evaluated and has not been."""
        step, evaluated = self.history.steps, self.history.eval_steps
        if self.evaluate is None or (evaluated and evaluated[-1] == step):
            return False
        return step == 0 or step >= self.steps or _is_multiple(step, self.eval_every)

    def saving_is_due(self) -> bool:
        """Tell whether to save now: at the start too, so that a full disk is noticed at once."""
        return self.history.steps == 0 or _is_multiple(self.history.steps, self.save_every)

    def make_evaluation(self) -> None:
        """Evaluate, and save the weights if they are the best so far."""
        history, before = self.history, rng_state()
        self.model.eval()
        try:
            with torch.no_grad(), self.autocast():
                loss = _as_loss(self.evaluate(self.model))
        finally:
            set_rng_state(before)  # however much it drew, the run goes on as without it
        history.eval_steps.append(history.steps)
        history.eval_losses.append(loss)
        is_best = history.best is not None and history.best[0] == history.steps
        if is_best and self.folder is not None:
            # Before last.safetensors, which must not name a best that is not there.
            state = {"model": self.model.state_dict(), "step": history.steps, "loss": loss}
            save_snapshot(self.folder / "best.safetensors", state)
        trained = f"training loss {history.losses[-1]:.4f}, " if history.losses else ""
        best = " (best so far)" if is_best else ""
        self.log(f"Step {history.steps:,}: {trained}evaluation {loss:.4f}{best}")

    def save(self) -> None:
        """Write last.safetensors, unless it holds this state already."""
        mark = (self.history.steps, len(self.history.eval_steps))
        if self.folder is None or self.saved == mark:
            return
        state = {
            "settings": self.settings,
            "history": self.history.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
        }
        save_snapshot(self.folder / "last.safetensors", state)
        self.saved = mark

    def load(self) -> None:
        """Go on from last.safetensors if it is there; check all of it before anything changes."""
        if self.folder is None or not (self.folder / "last.safetensors").exists():
            return
        path = self.folder / "last.safetensors"
        state = load_snapshot(path)
        if not isinstance(state, dict) or not state.keys() >= _PARTS:
            raise SnapshotError(f"{path} holds no run that could be resumed: use another folder")
        for name, value in self.settings.items():
            if (other := state["settings"].get(name)) != value:
                raise ValueError(
                    f"{path} is of a run with {name} {other}, but this one has {value}: use "
                    "another folder, or resume=False to start again"
                )
        check_fits(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.model.load_state_dict(state["model"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        set_rng_state(state["rng"])
        self.history.load_state_dict(state["history"])
        self.saved = (self.history.steps, len(self.history.eval_steps))
        self.log(f"Resumed after step {self.history.steps:,} from {path}")

    def tidy_up(self) -> None:
        """Leave the model ready for use, and the optimiser with its own rate."""
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate
        self.optimizer.zero_grad()
        self.model.eval()


def _as_loss(value: Any) -> float:
    """Return what `evaluate` has returned as a float: NaN and infinities are allowed."""
    is_number = isinstance(value, int | float | np.number) or (
        isinstance(value, Tensor) and value.numel() == 1
    )
    if not is_number:
        raise TypeError(f"evaluate must return one number, not {shown(value)}")
    return float(value)


def _chosen_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype must be torch.float32, bfloat16 or float16, not {dtype!r}")
    if dtype is None and device.type == "cuda":
        real = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if real else torch.float16
    return dtype or torch.float32


def _is_multiple(number: int, every: int) -> bool:
    return every > 0 and number % every == 0
