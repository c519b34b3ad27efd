"""How sure a score is: intervals and paired comparisons by the bootstrap.

The metrics themselves come from well-kept libraries (scikit-learn, seqeval, sacrebleu,
rouge-score); chapter 18 derives what is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from utils.arguments import (
    as_floats,
    as_generator,
    as_number,
    as_whole_number,
    check_function,
    shown,
)

__all__ = ["Interval", "bootstrap_interval", "paired_bootstrap"]

_ROWS_AT_ONCE = 200  # resamples are drawn in blocks, so that memory stays small


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike,
    *,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of some values with its percentile bootstrap interval.

    Parameters
    ----------
    values : array of shape (N,) or (N, K)
        One row per independent example, such as 1 for a right answer and 0 for a wrong one.
    statistic : callable, optional
        Takes an array of shape (R, N) or (R, N, K) and returns shape (R,); by default the mean
        over axis 1.
    level : float
        How often the interval is to hold the true value, such as 0.95.
    resamples : int
        How many times N examples are drawn with replacement.
    seed : int
        For the draws.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If there are no values, or a value is no number, or `level` is not between 0 and 1.

    Notes
    -----
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. The interval says
    how much the score depends on which examples were drawn; it knows nothing of another seed of
    the training or of examples of another kind.
    """
    values = _checked("values", values)
    if not 0 < as_number("level", level) < 1:
        raise ValueError(f"level is a share such as 0.95, not {level!r}")
    statistic = (lambda rows: rows.mean(axis=1)) if statistic is None else statistic
    check_function(statistic=statistic)
    drawn = _resampled(values, statistic, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(statistic(values[None])[0]), float(low), float(high))


def paired_bootstrap(
    ours: ArrayLike, theirs: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> tuple[Interval, float]:
    """Compare two systems on the same examples.

    Parameters
    ----------
    ours, theirs : array of shape (N,)
        Each system's score on each example, in the same order.
    resamples, seed : int
        As for `bootstrap_interval`.

    Returns
    -------
    difference : Interval
        Mean of `ours` minus mean of `theirs`, with its 95 % interval.
    share : float
        In what share of the resamples `ours` is ahead.

    Raises
    ------
    ValueError
        If the two are not of equal length.

    Notes
    -----
    Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004).
    """
    ours, theirs = _checked("ours", ours), _checked("theirs", theirs)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"both systems need a score for each of the same examples; got {ours.shape} and "
            f"{theirs.shape}"
        )
    differences = ours - theirs
    drawn = _resampled(differences, lambda rows: rows.mean(axis=1), resamples, seed)
    return (
        bootstrap_interval(differences, resamples=resamples, seed=seed),
        float((drawn > 0).mean()),
    )


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    array = as_floats(name, values).astype(float)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(
            f"there are no values in {name}, {shown(values)}: pass one per example, such as "
            "[1, 0, 1]"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"some values of {name} are not finite numbers; leave those examples out knowingly"
        )
    return array


def _resampled(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
) -> np.ndarray:
    resamples = as_whole_number("resamples", resamples, 1)
    rng, drawn = as_generator("seed", seed), []
    for start in range(0, resamples, _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, resamples - start)
        found = np.asarray(statistic(values[rng.integers(len(values), size=(rows, len(values)))]))
        if found.shape != (rows,) or found.dtype.kind not in "iufb":
            raise ValueError(
                f"statistic must return one number for each of {rows} rows, not {shown(found)}"
            )
        drawn.append(found)
    return np.concatenate(drawn)
