"""Fits recover the laws that made the data; sizes are those of real models; a run repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from utils import scaling, speedrun
from utils.gpt import GPT, GPTConfig

SIZES = np.array([3e3, 6e3, 1.2e4, 2.5e4, 5.5e4, 1.5e5, 4.4e5])


@pytest.mark.parametrize(
    "law", [(1.6, 30.0, 0.4), (0.0, 8.0, 0.12), (1.0, 5.0, 0.2), (2.0, 400.0, 0.7)]
)
def test_fit_recovers_the_law_without_noise(law):
    law = scaling.PowerLaw(*law)
    found = scaling.fit_power_law(SIZES, law(SIZES))
    np.testing.assert_allclose(found(SIZES), law(SIZES), rtol=1e-5)
    np.testing.assert_allclose(found(1e7), law(1e7), rtol=1e-2)
    assert found.exponent == pytest.approx(law.exponent, rel=0.02)


def test_fixed_floor_is_linear_regression_of_logarithms():
    rng = np.random.default_rng(0)
    losses = 9 * SIZES**-0.1 * np.exp(rng.normal(0, 0.01, len(SIZES)))
    found = scaling.fit_power_law(SIZES, losses, floor=0.0)
    slope, level = np.polyfit(np.log(SIZES), np.log(losses), 1)
    assert found.exponent == pytest.approx(-slope, rel=1e-4)
    assert found.scale == pytest.approx(np.exp(level), rel=1e-3)
    assert found.floor == 0


def test_bootstrap_covers_the_truth_and_grows_with_the_noise():
    law, rng = scaling.PowerLaw(1.5, 20.0, 0.35), np.random.default_rng(1)
    sizes = np.repeat(SIZES, 2)
    widths = []
    for noise in (0.001, 0.01):
        losses = law(sizes) * np.exp(rng.normal(0, noise, len(sizes)))
        at = [fit(2e6) for fit in scaling.bootstrap_fits(sizes, losses, 60)]
        low, high = np.quantile(at, (0.01, 0.99))
        assert low < law(2e6) < high
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]
    again = scaling.bootstrap_fits(sizes, losses, 3)
    assert again == scaling.bootstrap_fits(sizes, losses, 3)


@pytest.mark.parametrize(
    ("sizes", "losses", "floor", "words"),
    [
        ([1, 2, 3], [1, 2], None, "equally many"),
        ([1, 2, 0], [3, 2, 1], None, "positive"),
        ([1, 2, 3], [3, 2, np.nan], None, "losses holds NaN"),
        ([1, 2, 2], [3, 2, 2], None, "3 different sizes"),
        ([1, 1], [3, 2], 0.0, "2 different sizes"),
        ([1, 2, 3], [3, 2, 1], 1.0, "below the lowest of the losses"),
    ],
)
def test_bad_data(sizes, losses, floor, words):
    with pytest.raises(ValueError, match=words):
        scaling.fit_power_law(sizes, losses, floor)


def test_bootstrap_needs_more_runs_than_numbers():
    with pytest.raises(ValueError, match="no residual"):
        scaling.bootstrap_fits([1, 2, 3], [3, 2, 1.5])


@pytest.mark.parametrize("width", scaling.WIDTHS)
def test_non_embedding_counts_the_blocks_matrices(width):
    recipe = replace(speedrun.ladder()["trapezoid"], num_layers=2, d_model=width, num_heads=2)
    model = speedrun.SpeedrunGPT(recipe, 10)
    gpt = GPT(GPTConfig(10, 8, 2, 1, width))
    for each in (model, gpt):
        matrices = sum(p.numel() for p in each.blocks.parameters() if p.ndim >= 2)
        assert scaling.non_embedding(2, width) == matrices


def test_sizes_grow():
    assert list(scaling.WIDTHS) == sorted(set(scaling.WIDTHS))
    assert 5 <= scaling.FITTED < len(scaling.WIDTHS)
    with pytest.raises(ValueError, match="at least 1"):
        scaling.non_embedding(0, 16)


@pytest.mark.parametrize("surface", [scaling.HOFFMANN_2022, scaling.BESIROGLU_2024])
@pytest.mark.parametrize("flops", [1e17, 5.76e23])
def test_optimum_is_the_lowest_point_of_its_budget(surface, flops):
    found = minimize_scalar(
        lambda x: float(surface(np.exp(x), flops / 6 / np.exp(x))),
        bounds=(np.log(1e5), np.log(1e14)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    parameters, tokens = surface.optimum(flops)
    assert parameters == pytest.approx(np.exp(found.x), rel=1e-3)
    assert 6 * parameters * tokens == pytest.approx(flops)
    with pytest.raises(ValueError, match="positive"):
        surface.optimum(0)


def test_a_run_repeats_and_learns(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "0")
    first, second = (scaling.train_width(16, seed=3, updates=25, evaluated=640) for _ in range(2))
    assert first == second
    assert first["parameters"] == 6144 and first["tokens"] == 25 * 768
    assert first["loss"] < np.log(80) - 0.5
    assert scaling.train_width(16, seed=4, updates=2, evaluated=640)["loss"] != first["loss"]
    with pytest.raises(ValueError, match="multiple of 8"):
        scaling.train_width(20, seed=0)
