"""Looking inside: the records agree with `transformers`, cuts cut, attributions add up."""

import numpy as np
import pytest
import torch
from transformers import BertConfig as TheirBertConfig
from transformers import BertModel, LlamaConfig, LlamaForCausalLM

from utils import bert, inside
from utils.gpt import GPT, GPTConfig
from utils.layers import MultiHeadAttention
from utils.llama import Llama


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    config = TheirBertConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=20,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    theirs = BertModel(config).eval()
    return bert.from_transformers(theirs).eval(), theirs


@pytest.fixture(scope="module")
def decoders():
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    theirs = LlamaForCausalLM(config).eval()
    return Llama.from_transformers(theirs).eval(), theirs


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(2)
    return GPT(GPTConfig(40, context_length=20, num_layers=2, num_heads=2, d_model=8)).eval()


def some_ids(B=2, T=9, seed=0):
    return torch.randint(40, (B, T), generator=torch.Generator().manual_seed(seed))


# Records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["encoders", "decoders"])
def test_weights_are_those_of_transformers(kind, request):
    ours, theirs = request.getfixturevalue(kind)
    ids = some_ids()
    with torch.no_grad():
        expected = theirs(ids, output_attentions=True).attentions
    recorded = inside.record_heads(ours, ids)
    assert len(recorded) == 3
    for heads, weights in zip(recorded, expected, strict=True):
        torch.testing.assert_close(heads.weights, weights, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["encoders", "decoders", "gpt"])
def test_what_heads_write_adds_up_to_the_layer(kind, request):
    model = request.getfixturevalue(kind)
    model = model if kind == "gpt" else model[0]
    outputs = []
    modules = inside.attention_modules(model)
    handles = [m.register_forward_hook(lambda _, __, out: outputs.append(out)) for m in modules]
    recorded = inside.record_heads(model, some_ids())
    for handle in handles:
        handle.remove()
    for module, heads, output in zip(modules, recorded, outputs, strict=True):
        written = (heads.weights @ heads.values @ heads.output_weight).sum(dim=1)
        bias = module.output_proj.bias
        total = written if bias is None else written + bias
        torch.testing.assert_close(total, output.detach(), atol=1e-5, rtol=1e-4)


def test_contribution_norms_are_lengths_of_what_is_sent(decoders):
    heads = inside.record_heads(decoders[0], some_ids())[1]
    norms = heads.contribution_norms()
    b, h, t, s = 1, 4, 6, 2
    sent = heads.weights[b, h, t, s] * heads.values[b, h, s] @ heads.output_weight[h]
    torch.testing.assert_close(norms[b, h, t, s], sent.norm())
    assert (norms.triu(1) == 0).all()


def test_a_causal_record_has_no_future(gpt):
    for heads in inside.record_heads(gpt, some_ids()):
        assert (heads.weights.triu(1) == 0).all()
        torch.testing.assert_close(heads.weights.sum(-1), torch.ones(2, 2, 9))


def test_recording_leaves_no_hooks(encoders):
    model, ids = encoders[0], some_ids()
    with pytest.raises(ValueError):
        inside.record_heads(model, torch.zeros(1, 99, dtype=torch.long))  # too long for the model
    assert all(not m._forward_hooks for m in inside.attention_modules(model))
    inside.record_heads(model, ids)
    assert all(not m._forward_hooks for m in inside.attention_modules(model))


def test_what_is_not_known_is_refused(encoders):
    with pytest.raises(TypeError, match="none of the course's attentions"):
        inside.record_heads(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    mask = torch.tensor([[True] * 5 + [False]])
    with pytest.raises(ValueError, match="no padding"):
        inside.record_heads(encoders[0], some_ids(1, 6), attention_mask=mask)
    whole = inside.record_heads(encoders[0], some_ids(1, 6), attention_mask=mask | True)
    assert len(whole) == 3


# Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "period"), [(10, 5), (7, 2), (12, 7)])
def test_scores_are_means_of_the_right_entries(T, period):
    weights = torch.rand(3, 2, T, T, dtype=torch.double)
    previous = inside.previous_token_scores(weights)
    induction = inside.induction_scores(weights, period)
    assert previous.shape == induction.shape == (3, 2)
    A = weights[1, 1].numpy()
    assert previous[1, 1].item() == pytest.approx(np.mean([A[t, t - 1] for t in range(1, T)]))
    expected = np.mean([A[t, t - period + 1] for t in range(period, T)])
    assert induction[1, 1].item() == pytest.approx(expected)


def test_perfect_heads_score_one():
    period, T = 4, 8
    previous, induction = torch.zeros(T, T), torch.zeros(T, T)
    for t in range(1, T):
        previous[t, t - 1] = 1
    for t in range(period, T):
        induction[t, t - period + 1] = 1
    assert inside.previous_token_scores(previous) == 1
    assert inside.induction_scores(induction, period) == 1
    assert inside.previous_token_scores(induction) == 0


def test_scores_of_too_short_a_text_are_refused():
    with pytest.raises(ValueError, match="period of at least 2"):
        inside.induction_scores(torch.ones(4, 4), 4)
    with pytest.raises(ValueError, match="period of at least 2"):
        inside.induction_scores(torch.ones(4, 4), 1)
    with pytest.raises(ValueError, match="T > 1"):
        inside.previous_token_scores(torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"\(\.\.\., T, T\)"):
        inside.previous_token_scores(torch.ones(3, 4))


def test_repeated_tokens_repeat_and_nothing_else():
    ids = inside.repeated_tokens(50, 4, 12, first_id=30, seed=3)
    assert ids.shape == (4, 24)
    assert torch.equal(ids[:, :12], ids[:, 12:])
    assert all(len(set(row[:12].tolist())) == 12 for row in ids)
    assert ids.min() >= 30
    assert torch.equal(ids, inside.repeated_tokens(50, 4, 12, first_id=30, seed=3))
    assert not torch.equal(ids, inside.repeated_tokens(50, 4, 12, first_id=30, seed=4))
    with pytest.raises(ValueError, match="cannot draw 21 different tokens from 20"):
        inside.repeated_tokens(50, 1, 21, first_id=30)


# Ablation ------------------------------------------------------------------------------------


def layer_output(model, layer, ids, heads, replace="zero"):
    kept = []
    module = inside.attention_modules(model)[layer]
    handle = module.register_forward_hook(lambda _, __, out: kept.append(out.detach()))
    with torch.no_grad(), inside.ablated(model, heads, replace):
        model(ids)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("kind", ["encoders", "decoders"])
def test_a_silent_head_writes_nothing_and_the_others_go_on(kind, request):
    model, ids = request.getfixturevalue(kind)[0], some_ids()
    heads = inside.record_heads(model, ids)[0]
    written = heads.weights @ heads.values @ heads.output_weight  # (B, H, T, C)
    before = layer_output(model, 0, ids, [])
    after = layer_output(model, 0, ids, [(0, 1), (0, 3)])
    torch.testing.assert_close(before - after, written[:, [1, 3]].sum(1), atol=1e-5, rtol=1e-4)
    mean = layer_output(model, 0, ids, [(0, 2)], "mean")
    average = written[:, 2].mean(dim=(0, 1))
    torch.testing.assert_close(before - mean, written[:, 2] - average, atol=1e-5, rtol=1e-4)


def test_the_model_is_whole_again_afterwards(decoders):
    model, ids = decoders[0], some_ids()
    with torch.no_grad():
        before = model(ids)
        with pytest.raises(RuntimeError, match="stop"), inside.ablated(model, [(0, 0), (2, 5)]):
            assert not torch.allclose(model(ids), before)
            raise RuntimeError("stop")
        assert torch.equal(model(ids), before)
        with inside.ablated(model, []):
            assert torch.equal(model(ids), before)


@pytest.mark.parametrize("head", [(3, 0), (0, 6), (-1, 0)])
def test_a_head_that_does_not_exist_is_refused(decoders, head):
    model = decoders[0]
    with pytest.raises(ValueError, match="3 layers of 6 heads"), inside.ablated(model, [head]):
        pass
    with pytest.raises(ValueError, match="'zero' or 'mean'"), inside.ablated(model, [], "half"):
        pass


# Attribution ---------------------------------------------------------------------------------


def test_rollout_of_one_layer_and_of_none_looking_elsewhere():
    weights = torch.rand(1, 3, 5, 5).softmax(-1)
    expected = (weights[0].mean(0) + torch.eye(5)) / 2
    torch.testing.assert_close(inside.attention_rollout(weights), expected)
    nobody = torch.eye(4).expand(6, 2, 4, 4)
    torch.testing.assert_close(inside.attention_rollout(nobody), torch.eye(4))


def test_rollout_follows_a_chain():
    """Layer 0: token 1 reads token 0. Layer 1: token 2 reads token 1. So 2 has read 0."""
    weights = torch.eye(3).repeat(2, 1, 1, 1)
    weights[0, 0, 1] = torch.tensor([1.0, 0, 0])
    weights[1, 0, 2] = torch.tensor([0.0, 1, 0])
    rollout = inside.attention_rollout(weights)
    assert rollout[2, 0] == 0.25
    torch.testing.assert_close(rollout.sum(-1), torch.ones(3))
    with pytest.raises(ValueError, match=r"\(L, H, T, T\)"):
        inside.attention_rollout(weights[0])


@pytest.mark.parametrize("kind", ["encoders", "decoders"])
def test_gradients_agree_with_finite_differences(kind, request):
    model = request.getfixturevalue(kind)[0].double()
    ids = some_ids(1, 6)

    def score(output):
        return output[0, -1, :3].sum()

    got = inside.gradient_times_input(model, ids, score)
    table = next(m for m in model.modules() if isinstance(m, torch.nn.Embedding))
    scale = torch.ones(6, dtype=torch.double)
    handle = table.register_forward_hook(lambda _, __, out: out * scale[:, None])
    expected = []
    with torch.no_grad():
        for t in range(6):
            values = []
            for step in (1e-5, -1e-5):
                scale[t] = 1 + step
                values.append(score(model(ids)))
                scale[t] = 1
            expected.append((values[0] - values[1]) / 2e-5)
    handle.remove()
    model.float()
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-6, rtol=1e-4)


def test_integrated_gradients_add_up_to_the_difference(encoders):
    model, ids = encoders[0], some_ids(1, 6)

    def score(output):
        return output[0, :, 0].sum()

    got = inside.integrated_gradients(model, ids, score, baseline_id=7, steps=300)
    with torch.no_grad():
        difference = score(model(ids)) - score(model(torch.full_like(ids, 7)))
    torch.testing.assert_close(got.sum(), difference, atol=0.02, rtol=0.02)
    same = inside.integrated_gradients(model, torch.full((1, 4), 7), score, baseline_id=7)
    assert (same == 0).all()


def test_gradients_want_one_text(encoders):
    with pytest.raises(ValueError, match=r"\(1, T\)"):
        inside.gradient_times_input(encoders[0], some_ids(2, 5), torch.sum)
    assert all(p.grad is None for p in encoders[0].parameters())


# Probes --------------------------------------------------------------------------------------


def test_hidden_states_are_those_of_transformers(encoders):
    ours, theirs = encoders
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    with torch.no_grad():
        expected = theirs(some_ids(), mask.long(), output_hidden_states=True).hidden_states
    states = inside.hidden_states(ours, some_ids(), attention_mask=mask)
    assert states.shape == (4, 2, 9, 24)
    for state, wanted in zip(states, expected, strict=True):
        torch.testing.assert_close(state[mask], wanted[mask], atol=1e-5, rtol=1e-4)


def test_a_probe_finds_what_is_there_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    features = rng.normal(size=(400, 10))
    features[:, 3] += 3 * labels
    features[:, 9] = 1.0  # a feature that never changes must not make NaN
    train, test = slice(0, 300), slice(300, 400)
    found = inside.probe_accuracy(features[train], labels[train], features[test], labels[test])
    assert found > 0.85
    noise = np.random.default_rng(1).normal(size=(400, 10))
    assert inside.probe_accuracy(noise[train], labels[train], noise[test], labels[test]) < 0.65


def test_control_labels_belong_to_words():
    words = ["a", "b", "a", "c"] * 50 + [f"w{i}" for i in range(300)]
    labels = ["x"] * 30 + ["y"] * 10
    control = inside.control_labels(words, labels, seed=1)
    assert set(control) == set(words)
    share = np.mean([label == "x" for label in control.values()])
    assert 0.65 < share < 0.85
    assert control == inside.control_labels(words[::-1], labels, seed=1)
    assert control != inside.control_labels(words, labels, seed=2)


def test_attention_modules_come_in_the_order_of_the_layers(gpt):
    modules = inside.attention_modules(gpt)
    assert [m is b.attention for m, b in zip(modules, gpt.blocks, strict=True)] == [True, True]
    assert inside.num_heads(MultiHeadAttention(6, 3)) == 3
