"""utils.lora against peft, against merged weights and against autograd's full gradient."""

import json

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from utils import llama, lora

SIZES = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
THEIR_NAMES = {theirs: ours for theirs, ours in llama.OUR_NAMES.items() if "proj" in theirs}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tiny(**sizes):
    config = llama.LlamaConfig(
        **({"vocab_size": 61, "d_model": 48, "num_layers": 3, "num_heads": 6} | sizes),
        num_kv_heads=2,
        d_hidden=40,
    )
    return llama.Llama(config)


def randomise(model):
    with torch.no_grad():
        for layer in lora.lora_layers(model).values():
            layer.B.normal_(std=0.3)


def logits_of(model, seed=1):
    ids = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(seed))
    return model(ids)


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["o_proj", "gate_proj", "down_proj"]])
def test_equal_to_peft_in_outputs_gradients_and_an_update(modules):
    """The same A and B give the same logits, and the same A and B after a step of AdamW."""
    from peft import LoraConfig, get_peft_model

    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    ours = llama.Llama.from_transformers(base)
    targets = [llama.our_name(name) for name in modules]
    config = LoraConfig(r=4, lora_alpha=12, target_modules=modules, lora_dropout=0.0)
    theirs = get_peft_model(base, config)
    names = lora.add_lora(ours, rank=4, alpha=12, targets=targets)
    assert len(names) == 3 * len(modules)
    pairs = []
    with torch.no_grad():
        for name, module in theirs.named_modules():
            if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
                own = ours.get_submodule(llama.our_name(name.removeprefix("base_model.model.")))
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                b.normal_(std=0.2)
                own.A.copy_(a), own.B.copy_(b)
                pairs += [(own.A, a), (own.B, b)]
    assert len(pairs) == 2 * len(names)
    ids = torch.randint(61, (2, 9))
    ours_out, theirs_out = ours(ids), theirs(ids).logits
    torch.testing.assert_close(ours_out, theirs_out, atol=1e-5, rtol=1e-4)
    for logits in (ours_out, theirs_out):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad, atol=1e-6, rtol=1e-3)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    assert len(trained) == len(lora.lora_parameters(ours))
    for params in (lora.lora_parameters(ours), trained):
        torch.optim.SGD(params, lr=0.1).step()
    for own, other in pairs:
        torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-4)


def test_starts_as_the_model_it_adapts_and_only_adapters_train():
    model = tiny()
    before = logits_of(model)
    state = torch.get_rng_state()
    names = lora.add_lora(model, rank=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(names) == 6 and torch.equal(logits_of(model), before)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{name}.{part}" for name in names for part in "AB"}
    shapes = [layer.base.weight.shape for layer in lora.lora_layers(model).values()]
    count = sum(p.numel() for p in lora.lora_parameters(model))
    assert lora.lora_parameter_count(shapes, 3) == count


def test_blocks_choose_layers_and_the_seed_chooses_a():
    models = [tiny() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        names = lora.add_lora(model, rank=2, targets=["up_proj"], blocks=[1, 2], seed=seed)
        assert names == ["blocks.1.feed_forward.up_proj", "blocks.2.feed_forward.up_proj"]
    first, same, other = (lora.lora_parameters(m)[0] for m in models)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_merging_scaling_and_removing():
    model = tiny()
    before = logits_of(model)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    lora.add_lora(model, rank=4, targets=["query_proj", "down_proj"])
    randomise(model)
    changed = logits_of(model)
    assert (changed - before).abs().max() > 1e-2
    lora.scale_lora(model, 0)
    assert torch.equal(logits_of(model), before)
    lora.scale_lora(model, 0.5)
    half = logits_of(model)
    shared = model.blocks[0].attention.query_proj.base.weight
    lora.merge_lora(model)
    torch.testing.assert_close(logits_of(model), half, atol=1e-5, rtol=1e-4)
    assert not lora.lora_layers(model) and isinstance(
        model.blocks[0].attention.query_proj, nn.Linear
    )
    assert torch.equal(shared, weights["blocks.0.attention.query_proj.weight"])
    assert set(dict(model.named_parameters())) == set(weights)

    model = tiny()
    before = logits_of(model)
    lora.add_lora(model)
    randomise(model)
    lora.remove_lora(model)
    assert torch.equal(logits_of(model), before)


def test_gradients_of_a_and_b_follow_from_that_of_the_weight():
    """dB = s dW Aᵀ and dA = s Bᵀ dW."""
    layer = lora.LoRALinear(nn.Linear(7, 5), rank=3, alpha=6)
    nn.init.normal_(layer.B)
    x, g = torch.randn(4, 7), torch.randn(4, 5)
    layer(x).backward(g)
    full = g.T @ x  # (C_out, C_in)
    torch.testing.assert_close(layer.B.grad, 2 * full @ layer.A.T)
    torch.testing.assert_close(layer.A.grad, 2 * layer.B.T @ full)
    assert layer.base.weight.grad is None
    assert torch.linalg.matrix_rank(layer.delta()) == 3


def test_saved_adapters_come_back(tmp_path):
    model = tiny()
    lora.add_lora(model, rank=4, alpha=3, blocks=[2])
    randomise(model)
    want = logits_of(model)
    size = lora.save_lora(model, tmp_path / "a.safetensors")
    numbers = sum(p.numel() for p in lora.lora_parameters(model))
    assert 4 * numbers < size < 4 * numbers + 2000
    lora.remove_lora(model)
    names = lora.load_lora(model, tmp_path / "a.safetensors")
    assert names == list(lora.lora_layers(model)) and torch.equal(logits_of(model), want)
    assert all(p.requires_grad for p in lora.lora_parameters(model))


def test_files_that_do_not_fit(tmp_path):
    from safetensors.torch import save_file

    model, other = tiny(), tiny(d_model=60)
    lora.add_lora(model)
    lora.save_lora(model, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"shape \(48, 48\), where this model has one of"):
        lora.load_lora(other, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="no linear layer"):
        lora.load_lora(nn.Sequential(nn.Linear(3, 3)), tmp_path / "a.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "b.safetensors", metadata={"y": json.dumps(1)})
    with pytest.raises(ValueError, match="holds no adapters"):
        lora.load_lora(other, tmp_path / "b.safetensors")


def test_bad_arguments():
    with pytest.raises(TypeError, match="Embedding"):
        lora.LoRALinear(nn.Embedding(3, 3), 1)
    for rank in (0, 4):
        with pytest.raises(ValueError, match="from 1 to 3"):
            lora.LoRALinear(nn.Linear(3, 5), rank)
    model = tiny()
    with pytest.raises(ValueError, match="query_proj"):
        lora.add_lora(model, targets=["q_proj"])
    for act in (lora.merge_lora, lora.remove_lora, lambda m: lora.scale_lora(m, 1)):
        with pytest.raises(ValueError, match="no adapters"):
            act(model)
    lora.add_lora(model)
    with pytest.raises(ValueError, match="already"):
        lora.add_lora(model)
