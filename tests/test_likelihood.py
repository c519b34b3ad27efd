"""The measures, held to scipy and to closed forms."""

import numpy as np
import pytest
from scipy import stats

from utils.likelihood import (
    bits_per_character,
    cross_entropy,
    entropy,
    kl_divergence,
    negative_log_likelihood,
    perplexity,
)

SEEDS = range(20)


def random_distributions(rng, sparse=False):
    shape = (*rng.integers(1, 4, size=rng.integers(0, 3)), rng.integers(1, 30))
    p, q = rng.random((2, *shape)) + 1e-3
    if sparse:
        p[..., 1:][rng.random(shape)[..., 1:] < 0.4] = 0
    return p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_and_divergence_are_scipys(seed):
    p, q = random_distributions(np.random.default_rng(seed), sparse=seed % 2 == 1)
    np.testing.assert_allclose(entropy(p), stats.entropy(p, axis=-1), atol=1e-12)
    np.testing.assert_allclose(kl_divergence(p, q), stats.entropy(p, q, axis=-1), atol=1e-12)
    np.testing.assert_allclose(
        cross_entropy(p, q), stats.entropy(p, axis=-1) + stats.entropy(p, q, axis=-1), atol=1e-12
    )
    assert np.shape(cross_entropy(p, q)) == p.shape[:-1]


def test_cross_entropy_where_one_side_is_zero():
    assert cross_entropy([0.0, 1.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert cross_entropy([0.0, 1.0], [0.0, 1.0]) == 0  # neither happens: costs nothing
    assert cross_entropy([0.5, 0.5], [0.0, 1.0]) == np.inf
    assert kl_divergence([0.5, 0.5], [0.0, 1.0]) == np.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_average_loss_of_a_text_is_a_cross_entropy(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 8))
    text = rng.integers(0, size, size=rng.integers(1, 200))
    q = rng.dirichlet(np.ones(size))
    relative = np.bincount(text, minlength=size) / len(text)
    assert negative_log_likelihood(np.log(q[text])) == pytest.approx(cross_entropy(relative, q))


@pytest.mark.parametrize("size", [1, 2, 6, 81, 50257])
def test_perplexity_of_a_fair_die_is_its_number_of_faces(size):
    assert perplexity(negative_log_likelihood(np.full(10, -np.log(size)))) == pytest.approx(size)


def test_bits_per_character():
    # 10 fair coin tosses written with 2 characters each: 10 bits over 20 characters
    assert bits_per_character(10 * np.log(2), 20) == pytest.approx(0.5)


def test_impossible_events_cost_infinitely_much():
    assert negative_log_likelihood([-0.1, -np.inf]) == np.inf
    assert perplexity(np.inf) == np.inf


def test_certainty_costs_nothing_and_is_not_minus_zero():
    assert str(negative_log_likelihood([0.0, 0.0])) == "0.0"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: negative_log_likelihood([]), "empty text"),
        (lambda: negative_log_likelihood([0.2, 0.8]), "np.log"),
        (lambda: negative_log_likelihood([np.nan]), "nan"),
        (lambda: entropy([0.5, 0.6]), "sums to 1.1"),
        (lambda: entropy([[0.5, 0.5], [0.5, 0.2]]), "sums to 0.7"),
        (lambda: entropy([np.nan, 1.0]), "NaN"),
        (lambda: entropy([-0.5, 1.5]), "negative"),
        (lambda: entropy(1.0), "axis of outcomes"),
        (lambda: entropy([]), "axis of outcomes"),
        (lambda: cross_entropy([1.0], [0.5, 0.5]), "same vocabulary"),
        (lambda: kl_divergence([0.5, 0.5], [2.0, 3.0]), "divide it by its sum"),
        (lambda: perplexity(-1.0), "nats_per_token must be from 0"),
        (lambda: perplexity(np.nan), "nats_per_token must be from 0"),
        (lambda: bits_per_character(1.0, 0), "at least 1"),
        (lambda: bits_per_character(-1.0, 5), "total_nats"),
    ],
)
def test_bad_input_is_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: perplexity("2"),
        lambda: perplexity(True),
        lambda: bits_per_character(1.0, 2.5),
    ],
)
def test_the_wrong_type_is_refused(call):
    with pytest.raises(TypeError, match="must be a"):
        call()
