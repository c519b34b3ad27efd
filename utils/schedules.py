"""The learning rate over time; derived in chapter 8."""

from __future__ import annotations

import math

from utils.arguments import as_number, as_whole_numbers


def warmup_cosine(
    step: int, warmup_steps: int, total_steps: int, peak: float, floor: float = 0.0
) -> float:
    """Return the learning rate of one step: a straight rise, then half a cosine down.

    The rise is `peak * (step + 1) / (warmup_steps + 1)`, so that no step is wasted on a rate of
    zero and step `warmup_steps` has the peak; the descent follows Loshchilov and Hutter (2017,
    equation 5) without restarts and reaches `floor` at `total_steps`, where it stays.

    Parameters
    ----------
    step : int
        How many updates have been made: 0 for the first.
    warmup_steps, total_steps : int
    peak, floor : float

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If a number is none, `step` is negative or not `0 <= warmup_steps < total_steps`.
    """
    as_whole_numbers(step=step, warmup_steps=warmup_steps, total_steps=total_steps)
    peak, floor = as_number("peak", peak), as_number("floor", floor)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warm-up must end before the run does: warmup_steps={warmup_steps} is not "
            f"from 0 to below total_steps={total_steps}"
        )
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


def trapezoid(
    step: int, warmup_steps: int, cooldown_steps: int, total_steps: int, floor: float = 0.0
) -> float:
    """Return the factor on the learning rate: a rise, a plateau at 1, a straight fall.

    Also called warm-up, stable, decay; Hägele et al. (2024) compare it with the cosine.

    Parameters
    ----------
    step : int
        How many updates have been made: 0 for the first.
    warmup_steps, cooldown_steps, total_steps : int
        The rise is `(step + 1) / (warmup_steps + 1)`; the fall begins `cooldown_steps` before the
        end and reaches `floor` at `total_steps`, where it stays.
    floor : float

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If a number is none, `step` is negative, or rise and fall do not fit into the run.
    """
    as_whole_numbers(step=step, warmup_steps=warmup_steps)
    as_whole_numbers(cooldown_steps=cooldown_steps, total_steps=total_steps)
    floor = as_number("floor", floor)
    if warmup_steps + cooldown_steps > total_steps:
        raise ValueError(
            f"a rise of {warmup_steps} and a fall of {cooldown_steps} updates do not fit into "
            f"{total_steps}"
        )
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    left = max(0, total_steps - step)
    return floor + (1 - floor) * min(1.0, left / cooldown_steps) if cooldown_steps else 1.0
