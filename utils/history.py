"""What a training run leaves behind: its record, and what to say when it goes wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from utils.arguments import as_number, check_entries, check_model, check_type


@dataclass
class History:
    """What a run has done so far; entry i of a list belongs to update i, counted from 0.

    Attributes
    ----------
    steps : int
        How many updates have been made, those before a resumption included.
    losses, learning_rates, grad_norms : list of float
        The training loss (nats per target), the rate of the first group, and the length of the
        gradient before clipping (inf or NaN where float16 overflowed and the update was left out).
    eval_steps : list of int
        After how many updates each evaluation was made.
    eval_losses : list of float
        What `evaluate` returned.
    tokens : int
        How many targets have been learnt from.
    seconds : float
        Spent on updates; evaluations and saving do not count.
    stopped : str
        "done" or "interrupted"; "running" before that.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    eval_steps: list[int] = field(default_factory=list)
    eval_losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    stopped: str = "running"

    @property
    def best(self) -> tuple[int, float] | None:
        """The first lowest evaluation, as (step, loss); None where there is no finite one."""
        pairs = zip(self.eval_losses, self.eval_steps, strict=True)
        finite = [(loss, step) for loss, step in pairs if math.isfinite(loss)]
        return min(finite)[::-1] if finite else None

    @property
    def tokens_per_second(self) -> float:
        """Targets learnt from per second of updates."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return all of it for a snapshot, with lists as tensors (float64 keeps every bit)."""
        lists = {name: value for name, value in vars(self).items() if isinstance(value, list)}
        tensors = {n: torch.tensor(value, dtype=torch.float64) for n, value in lists.items()}
        return vars(self) | tensors | {"stopped": "running"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        check_entries("state", state, vars(self))
        for name, value in vars(self).items():
            kind = Tensor if isinstance(value, list) else type(value)
            check_type(f"state[{name!r}]", state[name], kind, *((int,) if kind is float else ()))
        if unknown := sorted(map(str, state.keys() - vars(self).keys())):
            raise ValueError(f"state has entries that no history has: {', '.join(unknown)}")
        lists = {n: value.tolist() for n, value in state.items() if isinstance(value, Tensor)}
        lists["eval_steps"] = [int(step) for step in lists["eval_steps"]]
        vars(self).update(state | lists)


class TrainingDiverged(ArithmeticError):
    """The loss or the gradient is no finite number any more.

    Attributes
    ----------
    history : History
        Of the run up to the last good update.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


def diagnosis(
    model: nn.Module, history: History, loss: float, grad_norm: float, rate: float
) -> str:
    """Return what a person needs to know about a loss or gradient that is not finite."""
    check_model("model", model)
    check_type("history", history, History)
    loss, grad_norm = _any_number("loss", loss), _any_number("grad_norm", grad_norm)
    rate = as_number("rate", rate)
    names = [name for name, param in model.named_parameters() if not param.isfinite().all()]
    losses = ", ".join(f"{x:.4g}" for x in history.losses[-5:]) or "none, this is the first step"
    norms = ", ".join(f"{x:.3g}" for x in history.grad_norms[-5:]) or "none"
    return (
        f"training diverged at step {history.steps}: the loss is {loss:.4g} and the gradient's "
        f"length {grad_norm:.4g}, at a learning rate of {rate:.3g}. The update was not made; the "
        f"weights before it are {f'not finite in {names[0]}' if names else 'all finite'}.\n"
        f"Losses before it: {losses}. Gradient lengths: {norms}.\n"
        "Did they grow? Try a third of the learning rate, a longer warm-up, or max_grad_norm=1.0. "
        "Did it come from nowhere? Look in this batch for wrong ids or rows that are all padding, "
        "in the loss for a division by zero or the log of zero, and try dtype=torch.float32."
    )


def _any_number(name: str, value: float) -> float:
    """Return a number, which may be NaN or infinite."""
    return value if isinstance(value, float) else as_number(name, value)
