"""Scaling laws: small GPTs of growing size on the plays, and curves fitted to their losses.

Chapter 19 derives and judges the fits; `bench/scaling.py` records the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from utils.arguments import (
    LARGEST_WHOLE,
    as_floats,
    as_generator,
    as_number,
    as_positive,
    as_whole_number,
)

# What all runs share; only the width and the seed differ.
UPDATES, BATCH_SIZE, CONTEXT, LAYERS, HEAD_WIDTH = 300, 12, 64, 2, 8
TOKENS = UPDATES * BATCH_SIZE * CONTEXT
WIDTHS = (16, 24, 32, 48, 64, 96, 128)
FITTED = 5  # so many of them are for fitting; the larger ones test the extrapolation


def non_embedding(num_layers: int, d_model: int) -> int:
    """Return the weights of a GPT's blocks, 12 L C² (Kaplan et al. 2020, section 2.1).

    Four C × C matrices in the attention and two of C × 4C; biases and norms do not count.
    """
    as_whole_number("num_layers", num_layers, 1, LARGEST_WHOLE)
    as_whole_number("d_model", d_model, 1, LARGEST_WHOLE)
    return 12 * num_layers * d_model**2


def train_width(
    d_model: int, seed: int, updates: int = UPDATES, evaluated: int = 16_384
) -> dict[str, Any]:
    """Train a GPT of two blocks on the plays' characters and return what it came to.

    The recipe is the one of chapter 13 in which Muon trains the matrices, for it learns in a few
    hundred updates. Its rates are the same for all widths and were not tuned for each.

    Parameters
    ----------
    d_model : int
        A multiple of 8, the width of a head.
    seed : int
        Of the initial weights and of the batches.
    updates : int
        Of 12 sequences of 64 characters each.
    evaluated : int
        How many characters of each validation play to score.

    Returns
    -------
    dict
        The arguments, `parameters` (12 L C²), `tokens`, and the last validation `loss` in nats per
        character.

    Raises
    ------
    ValueError
        If the width is not a multiple of 8.
    """
    if d_model < HEAD_WIDTH or d_model % HEAD_WIDTH:
        raise ValueError(f"d_model must be a multiple of {HEAD_WIDTH}, not {d_model}")
    from utils import speedrun
    from utils.train import get_device

    recipe = replace(
        speedrun.ladder()["trapezoid"],
        updates=updates,
        warmup=updates // 25,
        batch_size=BATCH_SIZE,
        context_length=CONTEXT,
        num_layers=LAYERS,
        num_heads=d_model // HEAD_WIDTH,
        d_model=d_model,
    )
    _, history = speedrun.run(recipe, speedrun.plays(evaluated), seed, device=get_device())
    return {
        "d_model": d_model,
        "seed": seed,
        "updates": updates,
        "parameters": non_embedding(LAYERS, d_model),
        "tokens": updates * BATCH_SIZE * CONTEXT,
        "loss": history.eval_losses[-1],
    }


class PowerLaw(NamedTuple):
    """The curve loss = floor + scale · size^-exponent; a pure power law has floor 0."""

    floor: float
    scale: float
    exponent: float

    def __call__(self, sizes: float | Sequence[float] | np.ndarray) -> Any:
        """Return the loss at these sizes."""
        return self.floor + self.scale * _positive("sizes", sizes) ** -self.exponent


def fit_power_law(
    sizes: Sequence[float] | np.ndarray,
    losses: Sequence[float] | np.ndarray,
    floor: float | None = None,
) -> PowerLaw:
    """Fit a power law to losses by least squares of the logarithm of the loss.

    The exponent's logarithm and the scale's are what is searched, so that both stay positive; the
    search starts from several floors and keeps the best end.

    Parameters
    ----------
    sizes, losses : array_like, shape (n,)
        Positive; the same size may occur several times.
    floor : float, optional
        Keep the floor at this value, such as 0. By default it is fitted, from 0 up to just
        below the lowest loss.

    Returns
    -------
    PowerLaw

    Raises
    ------
    ValueError
        If the shapes differ, a value is not positive, the given floor is not below all losses, or
        there are fewer different sizes than numbers to fit.
    """
    sizes, losses = _positive("sizes", sizes), _positive("losses", losses)
    if sizes.ndim != 1 or sizes.shape != losses.shape:
        raise ValueError(
            f"sizes and losses must be equally many, not of shape {sizes.shape} and {losses.shape}"
        )
    needed = 3 if floor is None else 2
    if len(set(sizes)) < needed:
        raise ValueError(f"{needed} numbers need at least {needed} different sizes")
    lowest = losses.min()
    floor = None if floor is None else as_number("floor", floor)
    if floor is not None and not 0 <= floor < lowest:
        raise ValueError(
            f"the floor must be from 0 to below the lowest of the losses, {lowest:.3f}"
        )
    starts = (0.0, 0.5, 0.9) if floor is None else (floor / lowest,)
    return _fit(sizes, losses, floor, starts)


def _fit(
    sizes: np.ndarray, losses: np.ndarray, floor: float | None, starts: tuple[float, ...]
) -> PowerLaw:
    """Search from several floors, given as shares of the lowest loss, and keep the best end."""
    from scipy.optimize import least_squares

    lowest = losses.min()
    centre = np.exp(np.log(sizes).mean())  # the scale there is better determined than at size 1
    z = np.log(sizes / centre)

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        power = np.exp(x[0] - np.exp(x[1]) * z)
        return power, power + (x[2] if floor is None else floor)

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.log(parts(x)[1]) - np.log(losses)

    def slopes(x: np.ndarray) -> np.ndarray:
        power, curve = parts(x)
        columns = [power / curve, -power * np.exp(x[1]) * z / curve, 1 / curve]
        return np.stack(columns[: len(x)], axis=1)

    low, high = [-np.inf, -12.0, 0.0], [np.inf, 3.0, lowest * (1 - 1e-6)]
    best = None
    for start in starts:
        bottom = np.clip(start, 1e-6, 1 - 1e-3) * lowest
        slope, level = np.polyfit(z, np.log(losses - bottom + 1e-9), 1)
        guess = np.array([level, np.log(np.clip(-slope, 1e-3, 10)), bottom])
        free = 3 if floor is None else 2
        found = least_squares(
            residuals,
            guess[:free],
            jac=slopes,
            bounds=(low[:free], high[:free]),
            x_scale="jac",
            xtol=1e-10,
            ftol=1e-12,
            gtol=1e-12,
        )
        if best is None or found.cost < best.cost:
            best = found
    exponent = float(np.exp(best.x[1]))
    bottom = float(best.x[2]) if floor is None else float(floor)
    return PowerLaw(bottom, float(np.exp(best.x[0]) * centre**exponent), exponent)


def bootstrap_fits(
    sizes: np.ndarray,
    losses: np.ndarray,
    count: int = 200,
    floor: float | None = None,
    seed: int = 0,
) -> list[PowerLaw]:
    """Fit again and again to resampled residuals: what else the same runs could have said.

    The fitted curve stays; its relative errors are drawn anew, with replacement, and scaled up for
    the numbers that the fit has already used to bend itself towards them.

    Parameters
    ----------
    sizes, losses, floor
        As for `fit_power_law`.
    count : int
        How many fits.
    seed : int

    Returns
    -------
    list of PowerLaw

    Raises
    ------
    ValueError
        As `fit_power_law` does, and if there are not more runs than numbers to fit.
    """
    sizes, losses = _positive("sizes", sizes), _positive("losses", losses)
    count, used = as_whole_number("count", count, 1), 3 if floor is None else 2
    if sizes.size <= used:
        raise ValueError(f"{sizes.size} sizes leave no residual after fitting {used} numbers")
    law = fit_power_law(sizes, losses, floor)
    residuals = np.log(losses) - np.log(law(sizes))
    residuals = (residuals - residuals.mean()) * np.sqrt(len(sizes) / (len(sizes) - used))
    rng = as_generator("seed", seed)
    drawn = law(sizes) * np.exp(rng.choice(residuals, size=(count, len(sizes))))
    return [_fit(sizes, each, floor, (law.floor / each.min(),)) for each in drawn]


def _positive(name: str, values: Any) -> np.ndarray:
    """Return positive numbers as an array of float64."""
    array = as_floats(name, values, finite=True).astype(float)
    if not np.all(array > 0):
        raise ValueError(f"{name} must be positive numbers, but the smallest is {array.min()}")
    return array


@dataclass(frozen=True)
class LossSurface:
    """Loss = E + A N^-α + B D^-β, in nats per token (Hoffmann et al. 2022, equation 2)."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        """Check the numbers of the law."""
        as_number("E", self.E, 0)
        for name in ("A", "B", "alpha", "beta"):
            as_positive(name, getattr(self, name))

    def __call__(self, parameters: Any, tokens: Any) -> Any:
        """Return the loss of N parameters trained on D tokens."""
        N, D = _positive("parameters", parameters), _positive("tokens", tokens)
        return self.E + self.A * N**-self.alpha + self.B * D**-self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Return the parameters and tokens of least loss under 6 N D = flops (their equation 4).

        Raises
        ------
        ValueError
            If `flops` is not positive.
        """
        flops = as_positive("flops", flops)
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return float(parameters), float(flops / 6 / parameters)


HOFFMANN_2022 = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # their equation 10
BESIROGLU_2024 = LossSurface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
