"""Reliability, calibration error and temperature, held to loops, scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.calibration import calibration_curve

from utils.calibration import expected_calibration_error, fit_temperature, reliability


@pytest.mark.parametrize("bins", [1, 5, 10, 17])
@pytest.mark.parametrize("seed", range(3))
def test_reliability_is_scikit_learns_curve(bins, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(size=400)
    correct = (rng.random(400) < confidence).astype(int)
    rows = reliability(confidence, correct, bins)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins, strategy="uniform")
    np.testing.assert_allclose(rows.accuracy, accuracy)
    np.testing.assert_allclose(rows.confidence, mean)
    assert rows.count.sum() == 400


def by_loop(confidence, correct, bins):
    total = 0.0
    for k in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence, correct, strict=True)
            if k / bins < c <= (k + 1) / bins or (k == 0 and c == 0)
        ]
        if inside:
            gap = abs(np.mean([r for _, r in inside]) - np.mean([c for c, _ in inside]))
            total += len(inside) / len(confidence) * gap
    return total


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 60))
def test_calibration_error_is_the_loops(seed, bins, size):
    rng = np.random.default_rng(seed)
    confidence, correct = rng.uniform(size=size), rng.integers(2, size=size)
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(by_loop(confidence, correct, bins))
    assert 0 <= found <= 1


def test_calibrated_confidences_have_hardly_an_error_and_squared_ones_have():
    rng = np.random.default_rng(0)
    honest = rng.uniform(size=50_000)
    correct = rng.random(50_000) < honest
    assert expected_calibration_error(honest, correct) < 0.01
    assert expected_calibration_error(np.sqrt(honest), correct) > 0.1


@pytest.mark.parametrize("truth", [0.3, 1.0, 4.0])
def test_temperature_is_found_again(truth):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4)) * 2
    p = np.exp(log_softmax(logits, axis=1))
    labels = (p.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1).clip(max=3)
    assert fit_temperature(logits * truth, labels) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_scipys_minimum(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(200, 3)) * 3, rng.integers(3, size=200)
    logits[np.arange(200), labels] += 2

    def loss(log_t):
        return -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(200), labels].mean()

    best = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=1e-3)


def test_huge_logits_are_no_trouble():
    assert np.isfinite(fit_temperature([[1e5, 0], [0, 1e5], [1e5, 0]], [0, 1, 1]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5, 0.6], [1]), "each answer"),
        (([], []), "each answer"),
        (([2.0, 0.5], [1, 0]), "logits"),
        (([np.nan, 0.5], [1, 0]), "probabilities"),
        (([0.2, 0.5], [3, 0]), "1 for a right answer"),
        (([0.2, 0.5], [1, 0], 0), "bins must be at least 1"),
    ],
)
def test_bad_answers_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        reliability(*arguments)


@pytest.mark.parametrize("arguments", [([1.0, 2.0], [0, 1]), ([[1.0, 2.0]], [0, 1])])
def test_bad_logits_are_named(arguments):
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        fit_temperature(*arguments)
