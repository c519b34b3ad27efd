"""Bootstrap intervals, held to scipy's bootstrap and to closed forms."""

import numpy as np
import pytest
from scipy import stats

from utils.metrics import bootstrap_interval, paired_bootstrap


@pytest.mark.parametrize("seed", range(3))
def test_interval_of_a_mean_is_scipys(seed):
    values = np.random.default_rng(seed).normal(size=150)
    ours = bootstrap_interval(values, resamples=8000, seed=seed)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=8000, rng=seed
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_interval_of_a_share_is_the_normal_approximation_when_there_are_many():
    right = np.r_[np.ones(800), np.zeros(200)]
    found = bootstrap_interval(right, resamples=8000)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert found.estimate == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - half, abs=0.002)
    assert found.high == pytest.approx(0.8 + half, abs=0.002)


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = bootstrap_interval(rng.exponential(size=100), resamples=400, seed=trial)
        hits += found.low <= 1 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_statistic_of_several_columns():
    counts = np.random.default_rng(1).integers(1, 9, size=(60, 2))
    ratio = bootstrap_interval(
        counts, statistic=lambda rows: rows[..., 0].sum(1) / rows[..., 1].sum(1)
    )
    assert ratio.estimate == pytest.approx(counts[:, 0].sum() / counts[:, 1].sum())
    assert ratio.low < ratio.estimate < ratio.high


def test_pairing_sees_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(2)
    hard = rng.normal(size=300)  # how hard each example is, the same for both systems
    ours, theirs = hard + 0.2 + 0.1 * rng.normal(size=300), hard
    difference, share = paired_bootstrap(ours, theirs)
    assert difference.low > 0.15
    assert share == 1
    assert bootstrap_interval(ours).low < bootstrap_interval(theirs).high


def test_a_system_is_not_ahead_of_itself():
    difference, share = paired_bootstrap([1, 0, 1, 1], [1, 0, 1, 1])
    assert difference == (0, 0, 0)
    assert share == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([],), "no values"),
        ((3.0,), "no values"),
        (([1.0, np.nan],), "not finite"),
    ],
)
def test_bad_values_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(*arguments)


def test_bad_level_and_unequal_lengths_are_named():
    with pytest.raises(ValueError, match="level is a share"):
        bootstrap_interval([1, 0], level=95)
    with pytest.raises(ValueError, match="same examples"):
        paired_bootstrap([1, 0], [1, 0, 1])
