"""The speedrun's model against utils.gpt and transformers, its schedule, and its recipes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import gpt, positions, speedrun
from utils.muon import Muon, Together
from utils.speedrun import Plays, Recipe, SpeedrunGPT, trapezoid

SMALL = Recipe(
    updates=6, batch_size=2, context_length=8, num_layers=2, num_heads=2, d_model=8, warmup=2
)
MODERN = replace(
    SMALL,
    positions="rope",
    norm="rms",
    qk_norm=True,
    activation="relu2",
    zero_init=True,
    tied=False,
    ngrams=(2, 3),
    optimizer="muon",
    schedule="trapezoid",
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def texts(vocab_size=11, count=400):
    rng = np.random.default_rng(0)
    ids = (np.arange(count) + rng.integers(0, 2, size=count)) % vocab_size
    return Plays(ids, (ids[:65], ids[:33]), (ids[100:165],), vocab_size)


def test_the_baseline_is_a_gpt_without_biases():
    model = SpeedrunGPT(SMALL, 11)
    reference = gpt.GPT(gpt.GPTConfig(11, 8, 2, 2, 8, bias=False))
    names = {"feed_forward.down_proj", "feed_forward.up_proj", "attention.output_proj"}
    state = dict(reference.state_dict())
    for name, tensor in model.state_dict().items():
        if name.endswith("qkv_proj"):
            for part, weight in zip(("query", "key", "value"), tensor, strict=True):
                state[name.replace("qkv_proj", f"{part}_proj.weight")].copy_(weight)
        else:
            state[name].copy_(tensor)
    for block in reference.blocks:
        block.feed_forward.activation = F.gelu  # nanoGPT has the exact one
    ids = torch.randint(11, (3, 8))
    torch.testing.assert_close(model(ids), reference(ids))
    ours = sum(p.numel() for p in model.parameters())
    assert ours == sum(p.numel() for p in reference.parameters())
    spread = {name: state[f"blocks.1.{name}.weight"].std().item() for name in names}
    assert max(spread, key=spread.get) == "feed_forward.up_proj"  # the others write to the stream


def test_the_modern_model_is_nanochats():
    """NanoChat (in transformers) turns the other way and normalises its embeddings first."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    recipe = replace(MODERN, ngrams=(), zero_init=False, softcap=15.0)
    model = SpeedrunGPT(recipe, 11)
    config = NanoChatConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        rms_norm_eps=torch.finfo(torch.float32).eps,
    )
    theirs = NanoChatForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_()
        table = F.rms_norm(model.token_embedding.weight, (8,))
        model.token_embedding.weight.copy_(table)
        theirs.model.embed_tokens.weight.copy_(table)
        theirs.lm_head.weight.copy_(model.output.weight)
        for ours, other in zip(model.blocks, theirs.model.layers, strict=True):
            attention = other.self_attn
            targets = (attention.q_proj, attention.k_proj, attention.v_proj)
            for weight, target in zip(ours.attention.qkv_proj, targets, strict=True):
                target.weight.copy_(weight)
            attention.o_proj.weight.copy_(ours.attention.output_proj.weight)
            other.mlp.fc1.weight.copy_(ours.feed_forward.up_proj.weight)
            other.mlp.fc2.weight.copy_(ours.feed_forward.down_proj.weight)
        model.sin.neg_()
        for norm in [model.final_norm, *(b.attention_norm for b in model.blocks)]:
            norm.eps = config.rms_norm_eps
        for block in model.blocks:
            block.feed_forward_norm.eps = config.rms_norm_eps
        ids = torch.randint(11, (3, 8))
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_rotation_is_chapter_fives():
    x = torch.randn(2, 3, 8, 6)
    tables = speedrun.rotation_tables(8, 6)
    torch.testing.assert_close(speedrun.rotate(x, *tables), positions.torch_rope_rotate(x))


@pytest.mark.parametrize("recipe", [SMALL, MODERN])
def test_no_token_sees_what_comes_after_it(recipe):
    model = SpeedrunGPT(recipe, 11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        ids = torch.randint(11, (1, 8))
        changed = ids.clone()
        changed[0, 5] = (changed[0, 5] + 1) % 11
        same = (model(ids) - model(changed))[0].abs().amax(dim=-1) < 1e-6
    assert same.tolist() == [True] * 5 + [False] * 3


def test_zero_init_makes_blocks_the_identity():
    model = SpeedrunGPT(MODERN, 11)
    x = torch.randn(2, 8, 8)
    rotation = (model.cos, model.sin)
    assert torch.equal(model.blocks[0](x, rotation), x)
    ids = torch.randint(11, (2, 8))
    loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    assert math.isclose(loss.item(), math.log(11), rel_tol=1e-5)


def test_softcap_bounds_logits():
    model = SpeedrunGPT(replace(SMALL, softcap=3.0), 11)
    with torch.no_grad():
        model.token_embedding.weight.mul_(1e4)
        logits = model(torch.randint(11, (2, 8)))
    assert logits.abs().max() <= 3 and logits.abs().max() > 2.9


@pytest.mark.parametrize(("V", "n", "rows"), [(5, 2, 25), (5, 3, 200), (80, 3, 512), (3, 4, 10)])
def test_ngram_rows(V, n, rows):
    """The same n-gram, the same row; with enough rows, another n-gram has another one."""
    ids = torch.randint(V, (6, 40))
    got = speedrun.ngram_rows(ids, n, V, rows)
    assert got.shape == ids.shape and got.min() >= 0 and got.max() < rows
    row_of = {}
    for b in range(6):
        padded = [0] * (n - 1) + ids[b].tolist()
        for t in range(40):
            assert row_of.setdefault(tuple(padded[t : t + n]), int(got[b, t])) == got[b, t]
    if rows >= V**n:
        assert len(set(row_of.values())) == len(row_of)
    else:  # a hash that is any good uses many of its rows
        assert len(set(row_of.values())) > 0.5 * min(len(row_of), rows)


def test_trapezoid():
    values = [trapezoid(step, 2, 4, 10) for step in range(11)]
    np.testing.assert_allclose(values, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert trapezoid(11, 2, 4, 10, floor=0.1) == pytest.approx(0.1)
    assert trapezoid(8, 2, 4, 10, floor=0.1) == pytest.approx(0.55)
    assert [trapezoid(step, 0, 0, 3) for step in range(4)] == [1.0] * 4


def test_muon_gets_the_blocks_matrices_only():
    model = SpeedrunGPT(MODERN, 11)
    optimizer = speedrun.make_optimizer(MODERN, model)
    assert isinstance(optimizer, Together)
    _adamw, muon = optimizer
    assert isinstance(muon, Muon)
    matrices = {id(p) for p in model.blocks.parameters() if p.ndim >= 2}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == matrices
    tensors = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(tensors) == sorted(id(p) for p in model.parameters())
    only = speedrun.make_optimizer(SMALL, SpeedrunGPT(SMALL, 11))
    assert isinstance(only, torch.optim.AdamW)


@pytest.mark.parametrize("recipe", [SMALL, MODERN, replace(MODERN, lazy_tables=True)])
def test_a_run_learns_and_repeats(recipe):
    recipe = replace(recipe, updates=30, lr=1e-2)
    model, history = speedrun.run(recipe, texts(), seed=1, eval_every=10)
    assert history.eval_steps == [0, 10, 20, 30]
    assert history.eval_losses[-1] < history.eval_losses[0] - 0.3
    again, _ = speedrun.run(recipe, texts(), seed=1)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert speedrun.loss_on(model, texts().validation) == pytest.approx(history.eval_losses[-1])


def test_every_recipe_predicts_the_same_characters():
    """The loss is the mean over all pieces' targets, however long the context."""
    pieces = texts().validation
    for context_length in (8, 16, 7):
        model = SpeedrunGPT(replace(SMALL, context_length=context_length), 11)
        total = count = 0.0
        for ids in pieces:
            for start in range(0, len(ids) - 1, context_length):
                window = torch.tensor(ids[start : start + context_length + 1])
                logits = model(window[None, :-1])[0]
                total += F.cross_entropy(logits, window[1:], reduction="sum").item()
                count += len(window) - 1
        assert count == 64 + 32
        assert speedrun.loss_on(model, pieces) == pytest.approx(total / count, rel=1e-5)


def test_plays_are_the_held_out_ones():
    from utils import data

    plays = speedrun.plays()
    assert [len(ids) for ids in (*plays.validation, *plays.test)] == [16_385] * 4
    assert len(plays.train) == len(data.plays_split().train)
    assert max(ids.max() for ids in (plays.train, *plays.test)) < plays.vocab_size


@pytest.mark.parametrize("name", list(speedrun.RECIPES))
def test_recipes_make_models(name):
    recipe = replace(speedrun.RECIPES[name], num_layers=1)
    model = SpeedrunGPT(recipe, 80)
    speedrun.make_optimizer(recipe, model)
    factors = [speedrun.schedule_of(recipe)(step) for step in range(recipe.updates + 1)]
    assert min(factors) >= 0 and max(factors) <= 1 + 1e-9 and max(factors) > 0.9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm": "batch"}, "norm must be one of 'layer', 'rms', not 'batch'"),
        ({"updates": 0}, "updates must be"),
        ({"d_model": 10, "num_heads": 4}, "even width"),
        ({"ngrams": (1,)}, "from 2"),
    ],
)
def test_mistakes_in_a_recipe_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **change)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((-1, 1, 1, 10), "step must be at least 0, not -1"), ((0, 6, 6, 10), "do not fit")],
)
def test_mistakes_in_a_schedule_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        trapezoid(*arguments)
