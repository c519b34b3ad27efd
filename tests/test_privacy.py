"""Planting and exposure, held to counting and to the definition's extremes."""

import numpy as np
import pytest

from utils.privacy import exposure, plant


@pytest.mark.parametrize("seed", range(5))
def test_plant_adds_whole_lines_and_nothing_else(seed):
    text = "\n".join(f"line {n}" for n in range(50))
    secrets = [("the code is 1234", 3), ("the key is 99", 1), ("never", 0)]
    planted = plant(text, secrets, np.random.default_rng(seed)).split("\n")
    for sentence, times in secrets:
        assert planted.count(sentence) == times
    names = [sentence for sentence, _ in secrets]
    assert [line for line in planted if line not in names] == text.split("\n")


def test_plant_is_the_same_for_the_same_seed():
    one, two = (plant("a\nb\nc", [("x", 2)], np.random.default_rng(7)) for _ in range(2))
    assert one == two


def test_plant_refuses_what_is_there_already_and_negative_counts():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="already"):
        plant("a secret line", [("secret", 1)], rng)
    with pytest.raises(ValueError, match="-1 times"):
        plant("a", [("b", -1)], rng)


@pytest.mark.parametrize("rank", [1, 2, 17, 64])
def test_exposure_is_the_definition(rank):
    others = np.delete(np.arange(1.0, 65), rank - 1)  # with the secret, 1 to 64
    assert exposure(float(rank), others) == pytest.approx(6 - np.log2(rank))


def test_exposure_of_a_secret_that_was_never_seen_is_1_over_ln_2_on_average():
    rng = np.random.default_rng(0)
    found = [exposure(row[0], row[1:]) for row in rng.random((4000, 256))]
    assert np.mean(found) == pytest.approx(1 / np.log(2), abs=0.1)


def test_equal_losses_are_in_between():
    assert exposure(1.0, [1.0, 1.0, 1.0]) == pytest.approx(np.log2(4) - np.log2(2.5))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((1.0, []), "other_losses is empty"), ((np.nan, [1.0]), "secret_loss must be finite")],
)
def test_bad_losses_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        exposure(*arguments)
