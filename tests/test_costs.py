"""The cost model against what autograd keeps, what torch counts, and published runs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from utils import costs
from utils.cache import KVCache
from utils.gpt import GPT, GPTConfig
from utils.layers import TransformerBlock
from utils.measure import saved_bytes

SIZES = [(2, 16, 2, 32, 4, 50), (3, 32, 3, 64, 4, 80), (1, 8, 1, 16, 1, 7)]  # B, T, L, C, H, V


@pytest.mark.parametrize(("B", "T", "C", "H"), [(2, 16, 32, 4), (3, 64, 64, 1), (1, 5, 24, 3)])
def test_block_keeps_what_the_formula_says(B, T, C, H):
    block = TransformerBlock(C, H, activation="gelu_tanh")
    x = torch.randn(B, T, C, requires_grad=True)
    kept = saved_bytes(lambda: block(x, is_causal=True))
    # Backward needs the matrices and the norms' weights and shifts; a bias is only added.
    own = sum(4 * p.numel() for n, p in block.named_parameters() if p.ndim == 2 or "norm" in n)
    assert kept - own == 4 * costs.block_activation_numbers(B, T, C, H)


@pytest.mark.parametrize("sizes", SIZES)
def test_gpt_keeps_what_the_formula_says(sizes):
    B, T, L, C, H, V = sizes
    model = GPT(GPTConfig(V, T, L, H, C)).train()
    ids, targets = torch.randint(V, (2, B, T))
    kept = saved_bytes(lambda: F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()))
    own = sum(
        4 * p.numel()
        for name, p in model.named_parameters()
        if (p.ndim == 2 and "position" not in name) or "norm" in name
    )
    integers = 8 * (2 * B * T + T)  # ids, targets, positions
    total = 4  # cross-entropy's number of targets
    assert kept - own - integers - total == costs.activation_bytes(*sizes[:5], vocab_size=V)


def test_recomputing_keeps_one_stream_a_block():
    B, T, L, C, H = 2, 16, 5, 32, 4
    blocks = [TransformerBlock(C, H) for _ in range(L)]

    def forward():
        x = torch.randn(B, T, C, requires_grad=True)
        for block in blocks:
            x = checkpoint(block, x, is_causal=True, use_reentrant=False)
        return x

    assert saved_bytes(forward) == 4 * L * B * T * C
    with_it, without = (
        costs.activation_bytes(B, T, L, C, H, vocab_size=50, recompute=recompute)
        for recompute in (True, False)
    )
    assert without - with_it == 4 * (
        (L - 1) * costs.block_activation_numbers(B, T, C, H) - L * B * T * C
    )


@pytest.mark.parametrize("sizes", SIZES)
def test_forward_flops_are_those_that_torch_counts(sizes):
    B, T, L, C, H, V = sizes
    model = GPT(GPTConfig(V, T, L, H, C))
    ids = torch.randint(V, (B, T))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model(ids).sum()
    forward = sum(costs.forward_flops(B, T, L, C, V).values())
    assert counter.get_total_flops() == forward
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss.backward()
    assert counter.get_total_flops() == 2 * forward
    weights = costs.forward_flops(B, T, L, C, V)["weights"]
    assert 3 * weights == costs.training_flops(12 * L * C**2, B * T)


def test_cache_bytes_are_those_of_a_cache():
    cache = KVCache(num_layers=3, max_length=10)
    for layer in range(3):
        cache.update(layer, torch.ones(2, 4, 1, 8), torch.ones(2, 4, 1, 8))
    assert cache.num_bytes == costs.kv_cache_bytes(3, 4, 8, 10, batch_size=2, bytes_each=4)


def test_state_is_what_adam_holds():
    model = GPT(GPTConfig(50, 16, 2, 2, 32))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    optimizer.step()
    N = sum(p.numel() for p in model.parameters())
    moments = [t for s in optimizer.state.values() for n, t in s.items() if n != "step"]
    held = {
        "weights": sum(4 * p.numel() for p in model.parameters()),
        "gradients": sum(4 * p.grad.numel() for p in model.parameters()),
        "optimiser": sum(4 * m.numel() for m in moments),
    }
    assert held == costs.training_state_bytes(N, "float32")


def test_zero_stages_are_those_of_the_paper():
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 devices, in GB."""
    expected = {0: 120, 1: 31.4, 2: 16.6, 3: 1.9}
    for stage, gigabytes in expected.items():
        state = costs.training_state_bytes(7.5e9, zero_stage=stage, num_ranks=64)
        assert sum(state.values()) / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_the_bill_of_llama():
    """Touvron et al. 2023, table 15: 1,022,362 GPU hours of 400 W at a PUE of 1.1 are 449 MWh."""
    flops = costs.training_flops(65.2e9, 1.4e12)
    hours = 1_022_362
    share = flops / (312e12 * 3600 * hours)
    a100 = costs.Machine("A100", 312e12, share, watts=400, dollars_per_hour=2, count=2048)
    bill = a100.bill(flops, overhead=1.1, dollars_per_kwh=0.1)
    assert bill["device_hours"] == pytest.approx(hours)
    assert bill["kwh"] / 1000 == pytest.approx(449, abs=1)
    assert bill["hours"] / 24 == pytest.approx(21, abs=0.5)  # "approximately 21 days"
    assert bill["dollars"] == pytest.approx(2 * hours + 0.1 * bill["kwh"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: costs.kv_cache_bytes(0, 1, 1, 1), "num_layers must be positive"),
        (lambda: costs.training_state_bytes(1e9, "fp8"), "float32"),
        (lambda: costs.training_state_bytes(1e9, zero_stage=4), "one of 0, 1, 2, 3"),
        (lambda: costs.training_state_bytes(1e9, num_ranks=0), "num_ranks"),
        (lambda: costs.block_activation_numbers(1, 0, 1, 1), "seq_len"),
        (lambda: costs.activation_bytes(1, 1, 1, 1, 1, vocab_size=0), "vocab_size"),
        (lambda: costs.forward_flops(1, 1, 1, -1, 1), "d_model"),
        (lambda: costs.training_flops(1, 0), "num_tokens"),
        (lambda: costs.Machine("x", 1e12, 1.5, 10), "at most 1"),
        (lambda: costs.Machine("x", 1e12, 0.5, 10, -1), "at least 0"),
        (lambda: costs.Machine("x", 1e12, 0.5, 10).bill(1, overhead=0.9), "overhead"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
