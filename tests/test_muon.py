"""Muon against the singular value decomposition, torch's own Muon, and by its definition."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from utils.batches import TextBatches
from utils.muon import COEFFICIENTS, LazyAdam, Muon, Together, newton_schulz
from utils.optim import Adam, AdamW, clip_grad_norm
from utils.train import train

EXACT = (15 / 8, -10 / 8, 3 / 8)  # converges to 1


def conditioned(m, n, smallest, dtype=torch.float64):
    """Return a random matrix whose singular values lie between `smallest` and 1."""
    k = min(m, n)
    u, v = (torch.linalg.qr(torch.randn(size, k, dtype=torch.float64))[0] for size in (m, n))
    values = torch.logspace(np.log10(smallest), 0, k, dtype=torch.float64)
    return ((u * values) @ v.T).to(dtype)


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 24), n=st.integers(1, 24), seed=st.integers(0, 99))
def test_singular_values_come_near_one(m, n, seed):
    torch.manual_seed(seed)
    matrix = conditioned(m, n, smallest=0.1)
    values = torch.linalg.svdvals(newton_schulz(matrix))
    assert values.shape == (min(m, n),)
    assert values.min() > 0.65 and values.max() < 1.25


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5), (3, 8, 5)])
def test_singular_vectors_stay(shape):
    """Many steps of the converging polynomial give U Vᵀ."""
    torch.manual_seed(0)
    matrix = torch.randn(*shape, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(newton_schulz(matrix, 40, EXACT), u @ vt, rtol=1e-8, atol=1e-8)


def test_the_polynomial_acts_on_each_singular_value():
    torch.manual_seed(0)
    matrix = torch.randn(7, 5, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    a, b, c = COEFFICIENTS
    s = s / (matrix.norm() + 1e-7)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(matrix), (u * s) @ vt, rtol=1e-9, atol=1e-9)


def test_a_stack_is_its_matrices():
    matrices = torch.randn(2, 3, 5, 4)
    together = newton_schulz(matrices)
    for i, j in np.ndindex(2, 3):
        torch.testing.assert_close(together[i, j], newton_schulz(matrices[i, j]))


def test_the_length_of_the_gradient_does_not_matter():
    matrix = torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(
        newton_schulz(matrix), newton_schulz(1e4 * matrix), rtol=1e-5, atol=1e-6
    )


def test_zero_stays_zero():
    assert torch.equal(newton_schulz(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_is_torchs_own(shape, weight_decay):
    """torch.optim.Muon computes in bfloat16 and weighs its momentum differently, to no effect."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": weight_decay}
    mine, library = Muon([ours], **options), torch.optim.Muon([theirs], **options)
    for _ in range(4):
        gradient = torch.randn(shape)
        for parameter, optimizer in ((ours, mine), (theirs, library)):
            parameter.grad = gradient.clone()
            optimizer.step()
    # per step 0.1 times singular values near 1; bfloat16 has three digits
    assert (ours - theirs).norm() < 0.03 * 4 * 0.1 * min(shape) ** 0.5


def test_one_step_by_the_definition():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(6, 3))
    before, velocity = parameter.detach().clone(), torch.zeros(6, 3)
    optimizer = Muon([parameter], lr=0.1, momentum=0.8, weight_decay=0.5)
    for _ in range(3):
        gradient = torch.randn(6, 3)
        parameter.grad = gradient
        optimizer.step()
        velocity = 0.8 * velocity + gradient
        step = 2**0.5 * newton_schulz(gradient + 0.8 * velocity)  # 6 outputs for 3 inputs
        before = (1 - 0.1 * 0.5) * before - 0.1 * step
    torch.testing.assert_close(parameter.detach(), before)


def test_training_goes_on_from_a_saved_state(tmp_path):
    """Stopped after 3 of 6 updates and resumed by the course's loop: the same weights."""
    ids = np.random.default_rng(0).integers(0, 5, size=200)

    def fresh():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 5))
        adamw = AdamW([model[0].weight, *model[2].parameters()], lr=0.01)
        return model, Together(adamw, Muon([model[1].weight], lr=0.05))

    batches = TextBatches(ids, 4, 6)
    straight, optimizer = fresh()
    train(straight, batches, 6, optimizer=optimizer, log=None)
    for steps in (3, 6):
        stopped, optimizer = fresh()
        train(stopped, batches, steps, optimizer=optimizer, checkpoint=tmp_path, log=None)
    for one, other in zip(straight.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lazy_adam_is_adam_on_the_rows_that_are_used():
    """Rows in every batch end where Adam takes them, rows in none stay; clipping sees neither."""
    torch.manual_seed(0)
    lazy = nn.Embedding(6, 4, sparse=True)
    before = lazy.weight.detach().clone()
    dense = nn.Parameter(before.clone())
    ours, reference = LazyAdam([lazy.weight], lr=0.1), Adam([dense], lr=0.1)
    used = torch.tensor([0, 2, 2, 5])
    for _ in range(4):
        target = torch.randn(4, 4)
        ours.zero_grad()
        reference.zero_grad()
        (lazy(used) * target).sum().backward()
        (dense[used] * target).sum().backward()
        assert lazy.weight.grad is None and clip_grad_norm([lazy.weight], 1e-6) == 0
        ours.step()
        reference.step()
    torch.testing.assert_close(lazy.weight[used], dense[used], rtol=1e-5, atol=1e-6)
    assert torch.equal(lazy.weight[[1, 3, 4]], before[[1, 3, 4]])


def test_together_is_each_by_itself():
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.eye(3))
    both = Together(AdamW([first], lr=0.1), Muon([second], lr=0.1))
    assert [group["lr"] for group in both.param_groups] == [0.1, 0.1]
    alone = copy.deepcopy(first), copy.deepcopy(second)
    apart = AdamW([alone[0]], lr=0.1), Muon([alone[1]], lr=0.1)
    for parameters in ((first, second), alone):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.5)
    both.step()
    for optimizer in apart:
        optimizer.step()
    assert torch.equal(first, alone[0]) and torch.equal(second, alone[1])
    assert len(list(both)) == 2
    both.zero_grad()
    assert first.grad is None and second.grad is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: newton_schulz(torch.ones(3)), "only a matrix"),
        (lambda: newton_schulz(torch.ones(2, 2), steps=-1), "at least 0, not -1"),
        (lambda: Muon([nn.Parameter(torch.ones(3))]), "AdamW"),
        (lambda: Muon([nn.Parameter(torch.ones(3, 3))], momentum=1.0), "below 1"),
        (Together, "at least one"),
        (lambda: Together(*[AdamW([SHARED])] * 2), "only one of them"),
        (lambda: Together(AdamW([SHARED])).load_state_dict({}), "0 optimisers"),
    ],
)
def test_mistakes_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


SHARED = nn.Parameter(torch.ones(2, 2))
