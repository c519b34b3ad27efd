"""The n-gram models, held to slow transcriptions of the formulas in exact fractions."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from utils.likelihood import negative_log_likelihood
from utils.ngrams import AddK, Interpolated, KneserNey, NGramCounts, NGramModel

SEEDS = range(12)
ALPHABET = "abcd"  # random texts use the first few, so some letters never occur


def random_text(rng, length=None):
    letters = list(ALPHABET[: rng.integers(1, len(ALPHABET))])
    return "".join(rng.choice(letters, size=length or int(rng.integers(6, 60))))


def contexts_up_to(length):
    """Return every context, seen or unseen."""
    for n in range(length + 1):
        yield from map("".join, itertools.product(ALPHABET, repeat=n))


class Brute:
    """The formulas as they are written, by scanning the text anew for every question."""

    def __init__(self, text, order):
        self.text, self.order = text, order

    def followers(self, context):
        """Return how often each letter follows the context."""
        n = len(context)
        windows = (self.text[i : i + n + 1] for i in range(len(self.text) - n))
        return Counter(window[-1] for window in windows if window[:-1] == context)

    def continuations(self, context):
        """Return before how many different letters each `context + letter` comes."""
        grams = {
            self.text[i : i + len(context) + 2] for i in range(len(self.text) - len(context) - 1)
        }
        return Counter(gram[-1] for gram in grams if gram[1:-1] == context)

    def add_k(self, context, token, k):
        counts = self.followers(context)
        total = sum(counts.values()) + k * len(ALPHABET)
        return (counts[token] + k) / total if total else Fraction(1, len(ALPHABET))

    def interpolated(self, context, token, weights):
        shorter = (
            self.interpolated(context[1:], token, weights)
            if context
            else Fraction(1, len(ALPHABET))
        )
        counts = self.followers(context)
        if not counts:
            return shorter
        weight = weights[len(context)]
        return weight * Fraction(counts[token], sum(counts.values())) + (1 - weight) * shorter

    def kneser_ney(self, context, token, discount):
        shorter = (
            self.kneser_ney(context[1:], token, discount) if context else Fraction(1, len(ALPHABET))
        )
        full = len(context) == self.order - 1
        counts = self.followers(context) if full else self.continuations(context)
        if not counts:
            return shorter
        total = sum(counts.values())
        return max(counts[token] - discount, 0) / total + discount * len(counts) / total * shorter


def pairs(text, order, rng):
    """Return each library model beside its reference."""
    counts = NGramCounts(text, order + int(rng.integers(0, 2)), vocabulary=ALPHABET)
    brute = Brute(text, order)
    weights = [Fraction(int(rng.integers(0, 11)), 10) for _ in range(order)]
    for k in (Fraction(0), Fraction(1, 8), Fraction(2)):
        yield AddK(counts, order, float(k)), lambda h, w, k=k: brute.add_k(h, w, k)
    yield (
        Interpolated(counts, order, [float(weight) for weight in weights]),
        lambda h, w: brute.interpolated(h, w, weights),
    )
    for d in (Fraction(0), Fraction(3, 4), Fraction(1)):
        yield KneserNey(counts, order, float(d)), lambda h, w, d=d: brute.kneser_ney(h, w, d)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_distributions_are_the_formulas_and_sum_to_one(seed, order):
    rng = np.random.default_rng([seed, order])
    text = random_text(rng)
    for model, reference in pairs(text, order, rng):
        for context in contexts_up_to(order - 1):
            expected = [float(reference(context, w)) for w in ALPHABET]
            got = model.distribution(context)
            np.testing.assert_allclose(got, expected, atol=1e-12)
            assert got.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_log_probs_follow_the_chain_rule(seed, order):
    rng = np.random.default_rng([seed, order])
    text, other = random_text(rng), random_text(rng)
    for model, _ in pairs(text, order, rng):
        one_by_one = [model.prob(other[:t], other[t]) for t in range(len(other))]
        with np.errstate(divide="ignore"):
            expected = np.log(one_by_one)
        np.testing.assert_allclose(model.log_probs(other), expected, atol=1e-10)
        assert model.log_prob(other) == pytest.approx(expected.sum())


@pytest.mark.parametrize("model", [lambda c: AddK(c, 3, 0.1), lambda c: KneserNey(c, 3)])
def test_all_strings_of_one_length_together_have_probability_one(model):
    model = model(NGramCounts("abracadabra", 3, vocabulary="abcdr"))
    strings = map("".join, itertools.product("abcdr", repeat=4))
    assert sum(np.exp(model.log_prob(s)) for s in strings) == pytest.approx(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_are_those_of_a_scan(seed):
    rng = np.random.default_rng(seed)
    text = random_text(rng)
    counts = NGramCounts(text, 3, vocabulary=ALPHABET)
    for n in (1, 2, 3):
        scanned = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        for gram in map("".join, itertools.product(ALPHABET, repeat=n)):
            assert counts.count(gram) == scanned[gram]


@pytest.mark.parametrize("seed", SEEDS)
def test_maximum_likelihood_is_the_maximum(seed):
    rng = np.random.default_rng(seed)
    text = random_text(rng, length=50)
    counts = NGramCounts(text, 2)
    # from the second token on: the first has no context for a bigram model to look at
    best = negative_log_likelihood(AddK(counts, 2).log_probs(text)[1:])
    for other in (AddK(counts, 2, 0.3), Interpolated(counts, 2, 0.8), KneserNey(counts, 2)):
        assert best <= negative_log_likelihood(other.log_probs(text)[1:]) + 1e-12


def test_words_are_tokens_too():
    words = ["the", "king", "and", "the", "queen", "and", "the", "king"]
    counts = NGramCounts(words, 3)
    assert counts.count(["the", "king"]) == 2
    assert AddK(counts, 2).prob(["the"], "king") == pytest.approx(2 / 3)
    drawn = KneserNey(counts, 3).sample(5, seed=0, prompt=["the"])
    assert isinstance(drawn, list) and set(drawn) <= set(words) and len(drawn) == 5


def test_a_large_vocabulary_packs_without_collision():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50_000, size=4000).tolist()
    counts = NGramCounts(tokens, 4, vocabulary=range(50_000))
    scanned = Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    for gram in itertools.islice(scanned, 50):
        assert counts.count(gram) == scanned[gram]


def test_samples_have_the_models_frequencies():
    text = "aaabac" * 30
    model = AddK(NGramCounts(text, 1), 1)
    drawn = Counter(model.sample(20_000, seed=1))
    for token in "abc":
        assert drawn[token] / 20_000 == pytest.approx(model.prob("", token), abs=0.02)


def test_temperature():
    model = AddK(NGramCounts("aaab", 1), 1)
    assert model.sample(50, seed=0, temperature=0) == "a" * 50
    share = {t: model.sample(5000, seed=0, temperature=t).count("b") / 5000 for t in (0.5, 1, 2)}
    for t, got in share.items():
        b, a = 0.25 ** (1 / t), 0.75 ** (1 / t)
        assert got == pytest.approx(b / (a + b), abs=0.03)
    assert model.sample(50, seed=0, temperature=1e-4) == "a" * 50


def test_sampling_is_reproducible_and_follows_the_prompt():
    model = AddK(NGramCounts("abcabcabc", 2), 2)
    assert model.sample(4, seed=3, prompt="a") == "bcab"
    smooth = KneserNey(NGramCounts("abcabbcab", 3), 3)
    assert smooth.sample(40, seed=7) == smooth.sample(40, seed=np.random.default_rng(7))


COUNTS = NGramCounts("abcab", 2)


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (TypeError, lambda: NGramCounts(5, 1), "a string or a list"),
        (TypeError, lambda: NGramCounts("abc", 1.5), "order must be a whole number"),
        (ValueError, lambda: NGramCounts("abc", 0), "order must be at least 1"),
        (ValueError, lambda: NGramCounts("abc", 4), "fewer than the order 4"),
        (ValueError, lambda: NGramCounts("", 1), "fewer than the order 1"),
        (ValueError, lambda: NGramCounts("abcx", 1, vocabulary="abc"), "'x' is not in the voc"),
        (ValueError, lambda: NGramCounts("abc", 1, vocabulary="abca"), "a token twice"),
        (ValueError, lambda: NGramCounts("ab" * 40, 64), "63 bits"),
        (ValueError, lambda: COUNTS.count("abc"), "only 1 to 2"),
        (ValueError, lambda: COUNTS.count(""), "length 0"),
        (ValueError, lambda: COUNTS.continuation_table(2), "need n-grams of length 3"),
        (TypeError, lambda: AddK("abc", 1), "must be of type NGramCounts"),
        (ValueError, lambda: AddK(COUNTS, 3), r"NGramCounts\(tokens, order=3\)"),
        (ValueError, lambda: AddK(COUNTS, 2, -1), "k must be at least 0"),
        (ValueError, lambda: AddK(COUNTS, 2, float("nan")), "k must be at least 0"),
        (TypeError, lambda: AddK(COUNTS, 2, "1"), "k must be a number"),
        (ValueError, lambda: Interpolated(COUNTS, 2, [0.5]), "one number or 2"),
        (ValueError, lambda: Interpolated(COUNTS, 2, 1.2), "weights must be from 0 to 1"),
        (ValueError, lambda: KneserNey(COUNTS, 2, np.nan), "discount must be from 0 to 1"),
        (ValueError, lambda: AddK(COUNTS, 2).log_probs("abz"), "'z' is not in the vocabulary"),
        (ValueError, lambda: AddK(COUNTS, 2).sample(3, temperature=-1), "temperature"),
        (ValueError, lambda: AddK(COUNTS, 2).sample(0), "length must be at least 1"),
        (NotImplementedError, lambda: NGramModel(COUNTS, 2).distribution("a"), "AddK"),
    ],
)
def test_bad_input_is_explained(error, call, words):
    with pytest.raises(error, match=words):
        call()
