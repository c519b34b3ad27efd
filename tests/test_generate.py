"""Reshaped logits against transformers' processors; generation against its generate and by hand."""

import math

import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from utils import generate as gen
from utils import gpt
from utils.generate import generate
from utils.gpt import GPT, GPTConfig

CONFIG = GPTConfig(vocab_size=17, context_length=12, num_layers=2, num_heads=2, d_model=16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def model():
    """Random weights, far enough from 0 that the likeliest token leads clearly."""
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model.eval()


def logits_and_ids(V=40, B=5, T=7):
    return 3 * torch.randn(B, V), torch.randint(V, (B, T))


# Reshaping


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature(temperature):
    logits, ids = logits_and_ids()
    expected = TemperatureLogitsWarper(temperature)(ids, logits)
    torch.testing.assert_close(gen.apply_temperature(logits, temperature), expected)


@pytest.mark.parametrize("k", [1, 2, 7, 40, 100])
def test_top_k(k):
    logits, ids = logits_and_ids()
    assert torch.equal(gen.keep_top_k(logits, k), TopKLogitsWarper(k)(ids, logits))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p(p):
    for seed in range(5):
        torch.manual_seed(seed)
        logits, ids = logits_and_ids()
        assert torch.equal(gen.keep_top_p(logits, p), TopPLogitsWarper(p)(ids, logits))


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_the_nucleus_is_the_smallest_set_that_reaches_p(p):
    logits, _ = logits_and_ids(B=20)
    probs = logits.double().softmax(-1)
    kept = gen.keep_top_p(logits.double(), p).isfinite()
    for row, keep in zip(probs, kept, strict=True):
        assert row[keep].sum() >= p > row[keep].sum() - row[keep].min()
        assert row[keep].min() > row[~keep].max()


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 5.0])
def test_repetition_penalty(penalty):
    logits, ids = logits_and_ids()
    ids[0] = 3  # seven times, penalised once
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    assert torch.equal(gen.penalise_repetition(logits, ids, penalty), expected)


def test_all_together_in_their_order():
    logits, ids = logits_and_ids()
    expected = logits
    for step in (
        RepetitionPenaltyLogitsProcessor(1.2),
        TemperatureLogitsWarper(0.7),
        TopKLogitsWarper(12),
        TopPLogitsWarper(0.8),
    ):
        expected = step(ids, expected)
    got = gen.next_token_logits(
        logits, ids, temperature=0.7, top_k=12, top_p=0.8, repetition_penalty=1.2
    )
    torch.testing.assert_close(got, expected)


def test_arguments_stay_as_they_are_and_dtypes_too():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        logits, ids = logits_and_ids()
        logits = logits.to(dtype)
        before = logits.clone(), ids.clone()
        got = gen.next_token_logits(
            logits, ids, temperature=0.5, top_k=5, top_p=0.9, repetition_penalty=1.1
        )
        assert got.dtype == dtype
        assert torch.equal(logits, before[0]) and torch.equal(ids, before[1])


def test_extremes_leave_one_token():
    logits, ids = logits_and_ids()
    best = logits.argmax(-1, keepdim=True)
    for options in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}):
        kept = gen.next_token_logits(logits, ids, **options).isfinite()
        assert torch.equal(kept, torch.zeros_like(kept).scatter(-1, best, True))
    ties = torch.zeros(2, 6)
    assert gen.next_token_logits(ties, temperature=0).isfinite().sum(-1).tolist() == [1, 1]
    assert gen.keep_top_k(ties, 2).isfinite().all()  # no reason to prefer one


@pytest.mark.parametrize(
    ("function", "value", "words"),
    [
        (gen.apply_temperature, 0, "argmax"),
        (gen.apply_temperature, -1.0, "above 0"),
        (gen.apply_temperature, math.inf, "finite"),
        (gen.keep_top_k, 0, "at least 1"),
        (gen.keep_top_k, 2.0, "whole number"),
        (gen.keep_top_p, 0.0, "probability"),
        (gen.keep_top_p, 1.2, "at most 1"),
    ],
)
def test_bad_options(function, value, words):
    with pytest.raises(ValueError, match=words):
        function(torch.zeros(2, 5), value)


def test_bad_penalty():
    logits, ids = logits_and_ids()
    with pytest.raises(ValueError, match="above 0"):
        gen.penalise_repetition(logits, ids, 0)
    with pytest.raises(ValueError, match="same B"):
        gen.penalise_repetition(logits[:2], ids, 1.1)
    with pytest.raises(ValueError, match="needs ids"):
        gen.next_token_logits(logits, repetition_penalty=1.1)


# Drawing


def test_draws_have_the_softmax_as_frequencies():
    logits = torch.tensor([[1.0, -math.inf, 0.0, 2.0, -math.inf]])
    drawn = gen.draw(logits.expand(40_000, 5), torch.Generator().manual_seed(0))[:, 0]
    shares = torch.bincount(drawn, minlength=5) / len(drawn)
    torch.testing.assert_close(shares, logits.softmax(-1)[0], rtol=0, atol=0.01)
    assert shares[1] == 0 and shares[4] == 0


class _Extreme:
    """A stand-in for torch.rand that gives the ends of its range."""

    def __init__(self, value):
        self.value = value

    def __call__(self, *size, **_):
        return torch.full(size, self.value, dtype=torch.float64)


@pytest.mark.parametrize("value", [0.0, 1.0 - 2**-53, 1.0])
def test_no_random_number_draws_what_is_forbidden(value, monkeypatch):
    monkeypatch.setattr(torch, "rand", _Extreme(value))
    logits = torch.full((3, 6), -math.inf)
    logits[0, 2] = logits[1, 1] = logits[1, 4] = logits[2, 0] = 0.0
    drawn = gen.draw(logits)
    assert logits.gather(-1, drawn).isfinite().all()


# Generating


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_equals_transformers(model, use_cache):
    ids = torch.randint(17, (3, 4))
    theirs = gpt.to_transformers(model).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    assert torch.equal(generate(model, ids, 8, temperature=0, use_cache=use_cache), theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("T", [1, 5, 12, 20])
def test_with_and_without_a_cache_the_same_tokens(model, dtype, T):
    """Also past the end of the context, and for texts that are longer than it to begin with."""
    model = model.to(dtype)
    ids = torch.randint(17, (2, T))
    options = {"temperature": 0.9, "top_k": 9, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 3}
    cached = generate(model, ids, 40, **options)
    assert torch.equal(cached, generate(model, ids, 40, use_cache=False, **options))
    assert cached.shape == (2, T + 40) and torch.equal(cached[:, :T], ids)


def test_a_long_text_is_continued_from_its_newer_half(model):
    """Step by step, by hand, on what the docstring says is read."""
    ids = torch.randint(17, (1, 10))
    got = generate(model, ids, 9, temperature=0)
    begin, text = 0, ids
    for _ in range(9):
        if text.shape[1] - begin > 12:
            begin = text.shape[1] - 6
        with torch.no_grad():
            text = torch.cat([text, model(text[:, begin:])[:, -1].argmax(-1)[:, None]], dim=1)
    assert torch.equal(got, text)


def test_seeds(model):
    ids = torch.randint(17, (2, 3))
    first = generate(model, ids, 20, seed=1)
    assert torch.equal(first, generate(model, ids, 20, seed=1))
    assert not torch.equal(first, generate(model, ids, 20, seed=2))
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(first, generate(model, ids, 20, seed=generator))
    assert not torch.equal(first, generate(model, ids, 20, seed=generator))  # it has moved on
    torch.manual_seed(5)
    one = generate(model, ids, 20)
    torch.manual_seed(5)
    assert torch.equal(one, generate(model, ids, 20))


def test_a_stop_token_ends_each_text(model):
    ids = torch.randint(17, (4, 2))
    free = generate(model, ids, 40, seed=0)
    stopped = generate(model, ids, 40, seed=0, stop_id=5)
    ends = []
    for row, other in zip(free.tolist(), stopped.tolist(), strict=True):
        end = row.index(5, 2) + 1 if 5 in row[2:] else len(row)
        ends.append(end)
        assert other[:end] == row[: len(other)][:end] and set(other[end:]) <= {5}
    assert stopped.shape[1] == max(ends)


def test_generating_leaves_the_model_in_its_mode(model):
    for training in (True, False):
        model.train(training)
        generate(model, torch.zeros(1, 1, dtype=torch.long), 2)
        assert model.training is training


def test_nothing_to_generate_and_nothing_to_start_from(model):
    ids = torch.randint(17, (2, 3))
    assert torch.equal(generate(model, ids, 0), ids)
    with pytest.raises(ValueError, match="first token"):
        generate(model, ids[:, :0], 3)
    with pytest.raises(ValueError, match=r"ids\[None\]"):
        generate(model, ids[0], 3)
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(model, ids, -1)
