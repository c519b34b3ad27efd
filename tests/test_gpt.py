"""The GPT against transformers' GPT-2, the cache against full reads, scores against loops."""

import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from utils import gpt, scoring
from utils.cache import KVCache
from utils.gpt import GPT, GPTConfig

CONFIGS = [
    GPTConfig(vocab_size=11, context_length=8, num_layers=1, num_heads=1, d_model=4),
    GPTConfig(vocab_size=23, context_length=12, num_layers=3, num_heads=2, d_model=12),
    GPTConfig(vocab_size=7, context_length=9, num_layers=2, num_heads=4, d_model=16, bias=False),
    GPTConfig(vocab_size=50, context_length=6, num_layers=2, num_heads=3, d_model=9, norm_eps=1e-3),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shaken(module, size=0.3):
    """Weights that are nowhere 0 or 1, so that nothing agrees by being absent."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module.eval()


def random_ids(config, B, T):
    return torch.randint(config.vocab_size, (B, T))


# The model


@pytest.mark.parametrize("config", CONFIGS)
def test_logits_equal_those_of_transformers(config):
    model = shaken(GPT(config))
    theirs = gpt.to_transformers(model)
    for B, T in ((1, 1), (3, config.context_length)):
        ids = random_ids(config, B, T)
        with torch.no_grad():
            torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tie", [True, False])
def test_weights_from_transformers(tie):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=31,
        n_positions=10,
        n_layer=2,
        n_head=3,
        n_embd=12,
        layer_norm_epsilon=1e-4,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = shaken(GPT2LMHeadModel(config))
    if not tie:
        with pytest.raises(ValueError, match="tie_word_embeddings"):
            gpt.from_transformers(theirs)
        return
    model = gpt.from_transformers(theirs)
    ids = torch.randint(31, (2, 10))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert not model.training and model.config.norm_eps == 1e-4


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_there_and_back_is_the_same_model_and_a_copy(config):
    model = shaken(GPT(config))
    theirs = gpt.to_transformers(model)
    back = gpt.from_transformers(theirs)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
    with torch.no_grad():
        back.token_embedding.weight.zero_()
    assert not torch.equal(theirs.transformer.wte.weight, back.token_embedding.weight)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.parameters())


def test_an_architecture_that_would_differ_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    for option in ({"activation_function": "relu"}, {"n_inner": 5}, {"scale_attn_weights": False}):
        config = GPT2Config(vocab_size=5, n_positions=4, n_layer=1, n_head=1, n_embd=4, **option)
        with pytest.raises(ValueError, match=next(iter(option))):
            gpt.from_transformers(GPT2LMHeadModel(config))


def test_gradients_equal_those_of_transformers():
    model = shaken(GPT(CONFIGS[1])).double()
    theirs = gpt.to_transformers(model)
    ids = random_ids(CONFIGS[1], 2, 9)
    for logits in (model(ids[:, :-1]), theirs(ids[:, :-1]).logits):
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        their_name, transposed = gpt.gpt2_name(name)
        if "c_attn" in their_name:
            continue  # the pieces of one matrix; the others suffice
        expected = grads[their_name].T if transposed else grads[their_name]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-10)


def test_no_output_feels_the_future():
    model = shaken(GPT(CONFIGS[1])).double()
    ids = random_ids(CONFIGS[1], 1, 8)
    with torch.no_grad():
        before = model(ids)
        for place in range(8):
            changed = ids.clone()
            changed[0, place] = (changed[0, place] + 1) % 23
            felt = (model(changed) - before).abs().amax(-1)[0] > 1e-12
            assert felt.tolist() == [t >= place for t in range(8)]


def test_initialisation_is_gpt2s():
    config = GPTConfig(vocab_size=400, context_length=64, num_layers=8, num_heads=4, d_model=128)
    model = GPT(config)
    for name, tensor in model.named_parameters():
        if name.endswith("bias"):
            assert not tensor.any(), name
        elif "norm" in name:
            assert (tensor == 1).all(), name
        else:
            writes = "output_proj" in name or "down_proj" in name
            expected = 0.02 / math.sqrt(16) if writes else 0.02
            assert abs(tensor.std().item() / expected - 1) < 0.05, name
    ids = random_ids(config, 4, 64)
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert abs(loss.item() - math.log(400)) < 0.1


def test_dropout_is_for_training_only():
    model = GPT(dataclasses.replace(CONFIGS[1], dropout=0.5))
    ids = random_ids(CONFIGS[1], 2, 6)
    assert not torch.equal(model(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.zeros(3, dtype=torch.long), r"ids\[None\]"),
        (torch.zeros(1, 0, dtype=torch.long), "at least 1"),
        (torch.zeros(1, 13, dtype=torch.long), "do not fit into a context of 12"),
        (torch.tensor([[1, 23]]), "0 to 22"),
        (torch.tensor([[1, -1]]), "from -1"),
    ],
)
def test_bad_ids(ids, words):
    with pytest.raises(ValueError, match=words):
        GPT(CONFIGS[1])(ids)


@pytest.mark.parametrize("change", [{"vocab_size": 0}, {"d_model": 2.5}, {"num_layers": True}])
def test_bad_config(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        GPTConfig(**({"vocab_size": 5} | change))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads"):
        GPT(GPTConfig(vocab_size=5, num_heads=3, d_model=8))


# The cache


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cached_logits_equal_full_ones_however_the_text_is_cut(config, dtype):
    model = shaken(GPT(config)).to(dtype)
    T = config.context_length
    ids = random_ids(config, 2, T)
    with torch.no_grad():
        full = model(ids)
        for sizes in ([1] * T, [T], [T - 2, 1, 1], [1, T - 1], [2, 3, T - 5]):
            cache = KVCache(config.num_layers, T)
            parts = [model(part, cache) for part in ids.split(sizes, dim=1)]
            assert cache.length == T
            torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=1e-4, atol=1e-5)


def test_the_cache_is_full_or_of_another_batch():
    model = GPT(CONFIGS[1]).eval()
    cache = KVCache(3, 5)
    with torch.no_grad():
        model(random_ids(CONFIGS[1], 2, 4), cache)
        with pytest.raises(ValueError, match="holds 4"):
            model(random_ids(CONFIGS[1], 2, 2), cache)
        with pytest.raises(ValueError, match="new batch needs a new cache"):
            model(random_ids(CONFIGS[1], 3, 1), cache)
        longer = KVCache(3, 50)
        model(random_ids(CONFIGS[1], 1, 12), longer)
        with pytest.raises(ValueError, match="after 12 in the cache"):
            model(random_ids(CONFIGS[1], 1, 1), longer)
    for sizes in ((0, 4), (2, 0)):
        with pytest.raises(ValueError, match="at least 1 layer"):
            KVCache(*sizes)


def test_selected_rows_go_on_as_if_they_had_been_read_alone():
    model = shaken(GPT(CONFIGS[1]))
    ids, new = random_ids(CONFIGS[1], 3, 6), random_ids(CONFIGS[1], 4, 1)
    rows = [2, 0, 2, 1]
    cache = KVCache(3, 12)
    with torch.no_grad():
        model(ids, cache)
        cache.select(rows)
        got = model(new, cache)[:, -1]
        expected = model(torch.cat([ids[rows], new], dim=1))[:, -1]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_cache_counts_its_bytes():
    cache = KVCache(3, 12)
    assert cache.num_bytes == 0 and cache.length == 0
    with torch.no_grad():
        GPT(CONFIGS[1])(random_ids(CONFIGS[1], 2, 5), cache)
    assert cache.num_bytes == 2 * 3 * 2 * 12 * 12 * 4  # keys and values, L, B, T, C, bytes


# Scores


def test_log_probs_are_those_of_the_loss():
    model = shaken(GPT(CONFIGS[1]))
    ids = random_ids(CONFIGS[1], 3, 9)
    got = scoring.log_probs(model, ids)
    with torch.no_grad():
        logits = model(ids)
    for b in range(3):
        for t in range(8):
            expected = logits[b, t, ids[b, t + 1]] - logits[b, t].logsumexp(-1)
            assert abs(got[b, t] - expected) < 1e-5


@pytest.mark.parametrize("num_tokens", [2, 5, 8, 9, 10, 17, 30])
@pytest.mark.parametrize("length", [1, 4, 8])
def test_every_token_is_scored_once_with_enough_before_it(num_tokens, length):
    for stride in range(1, length + 1):
        scored = []
        for number, (start, first) in enumerate(scoring.windows(num_tokens, length, stride)):
            last = min(start + length, num_tokens - 1)
            assert start >= 0 and (start + length < num_tokens or number == 0)
            if number:
                assert first - start >= length - stride + 1  # tokens before it in the window
            scored += range(first, last + 1)
        assert scored == list(range(1, num_tokens))


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_sliding_scores_equal_one_window_at_a_time(stride):
    model = shaken(GPT(CONFIGS[1])).double()
    ids = random_ids(CONFIGS[1], 1, 23)[0]
    got = scoring.sliding_log_probs(model, ids, length=5, stride=stride, batch_size=2)
    for start, first in scoring.windows(23, 5, stride):
        alone = scoring.log_probs(model, ids[None, start : start + 6])[0]
        for token in range(first, min(start + 5, 22) + 1):
            assert abs(got[token - 1] - alone[token - start - 1]) < 1e-6
    assert got.shape == (22,)


def test_a_short_text_fits_into_one_window():
    model = shaken(GPT(CONFIGS[1]))
    ids = random_ids(CONFIGS[1], 1, 7)
    for given in (ids[0], ids[0].tolist()):
        got = scoring.sliding_log_probs(model, given, length=12)
        torch.testing.assert_close(got, scoring.log_probs(model, ids)[0])


def test_bad_texts():
    model = GPT(CONFIGS[1])
    with pytest.raises(ValueError, match="at least 2"):
        scoring.log_probs(model, torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"shape \(N,\)"):
        scoring.sliding_log_probs(model, torch.zeros(2, 4, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="nothing to predict"):
        scoring.windows(1, 4, 2)
    for stride in (0, 5):
        with pytest.raises(ValueError, match="stride"):
            scoring.windows(10, 4, stride)


def test_the_module_needs_no_transformers():
    code = (
        "import sys, utils.gpt, utils.generate, utils.scoring; "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
