"""The learning rate over time; derived in chapter 8."""

from __future__ import annotations

import math


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
    ValueError
        If `step` is negative or not `0 <= warmup_steps < total_steps`.
    """
    if step < 0:
        raise ValueError(f"step counts from 0; it cannot be {step}")
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warm-up must end before the run does: warmup_steps={warmup_steps} is not "
            f"from 0 to below total_steps={total_steps}"
        )
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2
