"""Whether probabilities mean what they say; chapter 18 derives it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from utils.arguments import as_floats, as_integers, as_whole_number

__all__ = ["Reliability", "expected_calibration_error", "fit_temperature", "reliability"]


class Reliability(NamedTuple):
    """One row per bin that is not empty.

    Attributes
    ----------
    confidence : numpy.ndarray
        The mean confidence in the bin.
    accuracy : numpy.ndarray
        The share of right answers in the bin.
    count : numpy.ndarray of int
        How many answers are in it.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> Reliability:
    """Sort answers into bins of equal width by confidence, and compare it with accuracy.

    Parameters
    ----------
    confidence : array_like, shape (N,)
        The probability that the model gave to its answer, from 0 to 1.
    correct : array_like, shape (N,)
        1 where the answer is right, 0 where it is wrong.
    bins : int
        Bin k holds confidences in (k / bins, (k + 1) / bins]; 0 belongs to the first.

    Returns
    -------
    Reliability

    Raises
    ------
    TypeError, ValueError
        If the two differ in length, are empty, or hold other numbers.
    """
    confidence = as_floats("confidence", confidence).astype(float)
    correct = as_floats("correct", correct).astype(float)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(
            "one confidence and one 0 or 1 are needed for each answer; got shapes "
            f"{confidence.shape} and {correct.shape}"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences are probabilities from 0 to 1; are these logits?")
    if not np.isin(correct, (0, 1)).all():
        raise ValueError("correct should hold 1 for a right answer and 0 for a wrong one")
    bins = as_whole_number("bins", bins, 1, 10**6)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (N,)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    sums = [np.bincount(place, each, minlength=bins)[used] for each in (confidence, correct)]
    return Reliability(sums[0] / count[used], sums[1] / count[used], count[used])


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Return the mean distance between confidence and accuracy, weighted by the bins' sizes.

    Naeini, Cooper and Hauskrecht (2015); Guo et al. (2017), equation 3. Arguments as for
    `reliability`. It depends on the number of bins, and is biased upwards for few answers.
    """
    rows = reliability(confidence, correct, bins)
    gaps = np.abs(rows.accuracy - rows.confidence)
    return float((rows.count * gaps).sum() / rows.count.sum())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature under which softmax(logits / temperature) fits the labels best.

    Parameters
    ----------
    logits : array_like, shape (N, K)
    labels : array_like of int, shape (N,)
        From 0 to K - 1. Use examples that the model was not trained on.

    Returns
    -------
    float
        Above 1 if the model is too sure of itself. Between 0.01 and 100.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, a logit is not finite, or a label is no class.

    Notes
    -----
    Guo et al. (2017), section 4.2. The negative log-likelihood is convex in 1 / temperature, so a
    golden-section search for that finds its minimum.
    """
    logits = as_floats("logits", logits, "(N, K)", finite=True).astype(float)
    labels = as_integers("labels", labels, low=0, high=logits.shape[1] - 1)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise ValueError(
            f"logits of shape (N, K) need labels of shape (N,); got {logits.shape} and "
            f"{labels.shape}"
        )
    logits = logits - logits.max(axis=1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]  # (N,)

    def loss(log_inverse: float) -> float:
        inverse = np.exp(log_inverse)
        return float((np.log(np.exp(inverse * logits).sum(axis=1)) - inverse * right).mean())

    low, high, golden = -np.log(100), np.log(100), (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right_end = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right_end):
            high = right_end
        else:
            low = left
    return float(np.exp(-(low + high) / 2))
