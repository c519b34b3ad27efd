"""utils.optim against torch.optim, torch.nn.functional and torch.nn.utils."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils import optim

SHAPES = [(3,), (2, 5), (4, 1, 3), ()]


def make_params(seed, dtype=torch.float64, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


def run_pair(ours, reference, own_params, ref_params, *, steps, seed=1, schedule=None):
    """Feed both optimisers the same random gradients, some of them missing."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        ours.zero_grad()
        reference.zero_grad()
        scale = 10.0 ** rng.uniform(-3, 3)
        for own, ref in zip(own_params, ref_params, strict=True):
            if rng.random() < 0.1:
                continue  # a tensor that took no part in this loss
            grad = torch.tensor(scale * rng.normal(size=tuple(own.shape))).to(own.dtype)
            own.grad, ref.grad = grad.clone(), grad.clone()
        if schedule is not None:
            for group in [*ours.param_groups, *reference.param_groups]:
                group["lr"] = schedule(step)
        ours.step()
        reference.step()


def assert_same(own_params, ref_params, tolerance=1e-10):
    for own, ref in zip(own_params, ref_params, strict=True):
        torch.testing.assert_close(own, ref, rtol=tolerance, atol=tolerance)


# --- optimisers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.99, False), (0.5, True), (0.99, True)]
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_equals_torch(momentum, nesterov, weight_decay):
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    own, ref = make_params(0), make_params(0)
    run_pair(
        optim.SGD(own, 1e-3, **options), torch.optim.SGD(ref, 1e-3, **options), own, ref, steps=150
    )
    assert_same(own, ref)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(optim.Adam, torch.optim.Adam), (optim.AdamW, torch.optim.AdamW)],
    ids=["Adam", "AdamW"],
)
class TestAdamFamily:
    @pytest.mark.parametrize("seed", range(8))
    def test_equals_torch_over_random_hyperparameters(self, ours, theirs, seed):
        rng = np.random.default_rng(seed)
        options = {
            "lr": 10 ** rng.uniform(-5, -1),
            "betas": (rng.uniform(0, 0.99), rng.uniform(0.5, 0.9999)),
            "eps": 10 ** rng.uniform(-10, -4),
            "weight_decay": rng.choice([0.0, 0.01, 0.5]),
        }
        shapes = [
            tuple(rng.integers(1, 6, size=rng.integers(0, 4)))
            for _ in range(int(rng.integers(1, 5)))
        ]
        own, ref = make_params(seed, shapes=shapes), make_params(seed, shapes=shapes)
        run_pair(ours(own, **options), theirs(ref, **options), own, ref, steps=300, seed=seed)
        assert_same(own, ref, 1e-9)

    def test_defaults_equal_torch(self, ours, theirs):
        own, ref = make_params(3), make_params(3)
        run_pair(ours(own), theirs(ref), own, ref, steps=50)
        assert_same(own, ref)

    def test_float32_and_a_schedule(self, ours, theirs):
        def schedule(step):
            return optim.warmup_cosine(step, 10, 100, 1e-2)

        own, ref = make_params(4, torch.float32), make_params(4, torch.float32)
        run_pair(
            ours(own, weight_decay=0.1),
            theirs(ref, weight_decay=0.1),
            own,
            ref,
            steps=100,
            schedule=schedule,
        )
        assert_same(own, ref, 1e-5)

    def test_bfloat16_stays_bfloat16(self, ours, theirs):
        own = make_params(5, torch.bfloat16)
        optimiser = ours(own, lr=0.1)
        for p in own:
            p.grad = torch.ones_like(p)
        optimiser.step()
        assert all(p.dtype == torch.bfloat16 and torch.isfinite(p).all() for p in own)

    def test_state_dict_round_trip(self, ours, theirs, tmp_path):
        """Half a run, saved to a file and resumed, ends where the unbroken run ends."""
        own, ref = make_params(6), make_params(6)
        first, reference = ours(own, lr=0.01), theirs(ref, lr=0.01)
        run_pair(first, reference, own, ref, steps=20, seed=2)
        torch.save(first.state_dict(), tmp_path / "state.pt")
        resumed = ours(own, lr=0.5, betas=(0.1, 0.2))  # the saved options replace these
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        run_pair(resumed, reference, own, ref, steps=20, seed=3)
        assert_same(own, ref)

    def test_loading_copies(self, ours, theirs):
        own = make_params(7)
        first = ours(own)
        for p in own:
            p.grad = torch.ones_like(p)
        first.step()
        saved = first.state_dict()
        second = ours(own)
        second.load_state_dict(saved)
        before = copy.deepcopy(saved)
        second.step()
        for index, state in saved["state"].items():
            assert torch.equal(state["m"], before["state"][index]["m"])
            assert state["step"] == 1


def test_sgd_state_dict_round_trip():
    own, ref = make_params(8), make_params(8)
    first = optim.SGD(own, 0.01, momentum=0.9)
    reference = torch.optim.SGD(ref, 0.01, momentum=0.9)
    run_pair(first, reference, own, ref, steps=10)
    resumed = optim.SGD(own, 1.0)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    run_pair(resumed, reference, own, ref, steps=10, seed=9)
    assert_same(own, ref)


def test_training_a_model_in_groups_equals_torch():
    def train(optimiser_class):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)).double()
        optimiser = optimiser_class(optim.decay_groups(model, 0.3), lr=0.01)
        inputs, targets = torch.randn(16, 4, dtype=torch.float64), torch.arange(16) % 3
        for _ in range(60):
            optimiser.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optim.clip_grad_norm(model.parameters(), 0.5)
            optimiser.step()
        return list(model.parameters())

    assert_same(train(optim.AdamW), train(torch.optim.AdamW))


def test_zero_grad_forgets():
    (weight,) = make_params(0, shapes=[(3,)])
    weight.sum().backward()
    optim.SGD([weight], lr=0.1).zero_grad()
    assert weight.grad is None


def test_step_records_no_graph_and_keeps_the_gradient():
    (weight,) = make_params(0, shapes=[(3,)])
    weight.square().sum().backward()
    before = weight.grad.clone()
    optim.AdamW([weight], lr=0.1, weight_decay=0.5).step()
    assert weight.is_leaf and weight.requires_grad
    assert torch.equal(weight.grad, before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([], lr=0.1), ValueError, "empty"),
        (lambda p: optim.SGD(p[0], lr=0.1), TypeError, "list of tensors"),
        (lambda p: optim.SGD(["weight"], lr=0.1), TypeError, "leaf"),
        (lambda p: optim.SGD([p[0] * 2], lr=0.1), TypeError, "leaf"),
        (lambda p: optim.SGD([p[0], p[0]], lr=0.1), ValueError, "twice"),
        (lambda p: optim.SGD(p, lr=-1), ValueError, "lr must be at least 0"),
        (lambda p: optim.SGD(p, lr=float("nan")), ValueError, "lr must be at least 0"),
        (lambda p: optim.SGD(p, lr=0.1, momentum=1.0), ValueError, "below 1"),
        (lambda p: optim.SGD(p, lr=0.1, nesterov=True), ValueError, "needs momentum"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), ValueError, "below 1"),
        (lambda p: optim.AdamW(p, weight_decay=-0.1), ValueError, "weight_decay"),
        (lambda p: optim.AdamW(p, eps=-1e-8), ValueError, "eps"),
        (lambda p: optim.AdamW([{"params": p, "beta": 1}]), ValueError, "unknown options"),
    ],
)
def test_optimisers_reject(make, error, message):
    with pytest.raises(error, match=message):
        make(make_params(0))


def test_loading_rejects_another_models_state():
    own = make_params(0)
    optimiser = optim.AdamW(own)
    for p in own:
        p.grad = torch.ones_like(p)
    optimiser.step()
    saved = optimiser.state_dict()
    with pytest.raises(ValueError, match="same groups"):
        optim.AdamW(own[:2]).load_state_dict(saved)
    with pytest.raises(ValueError, match="another model"):
        optim.AdamW(own[::-1]).load_state_dict(saved)


def test_decay_groups_spare_vectors_and_shared_or_frozen_tensors():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 5)}
    )
    model["head"].weight = model["embed"].weight  # tied
    model["norm"].bias.requires_grad_(False)
    decayed, spared = optim.decay_groups(model, 0.2)
    assert decayed["weight_decay"] == 0.2 and spared["weight_decay"] == 0
    assert [id(p) for p in decayed["params"]] == [id(model["embed"].weight)]
    spared_ids = {id(p) for p in spared["params"]}
    assert spared_ids == {id(model["norm"].weight), id(model["head"].bias)}
    assert len(optim.decay_groups(nn.Linear(2, 2, bias=False))) == 1


# --- clipping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e6])
def test_clip_grad_norm_equals_torch(seed, max_norm):
    rng = np.random.default_rng(seed)
    own, ref = make_params(seed), make_params(seed)
    for index, (a, b) in enumerate(zip(own, ref, strict=True)):
        if index != seed % 4:
            a.grad = torch.tensor(10 ** rng.uniform(-3, 3) * rng.normal(size=tuple(a.shape)))
            b.grad = a.grad.clone()
    norm = optim.clip_grad_norm(own, max_norm)
    expected = nn.utils.clip_grad_norm_(ref, max_norm)
    torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
    for a, b in zip(own, ref, strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=0)


def test_clip_grad_norm_odd_cases():
    (weight,) = make_params(0, shapes=[(2,)])
    assert optim.clip_grad_norm([weight], 1.0) == 0  # no gradient yet
    weight.grad = torch.zeros(2, dtype=torch.float64)
    assert optim.clip_grad_norm(weight, 1.0) == 0 and not weight.grad.any()
    weight.grad = torch.tensor([1.0, float("nan")], dtype=torch.float64)
    assert torch.isnan(optim.clip_grad_norm(iter([weight]), 1.0))
    with pytest.raises(ValueError, match="above 0"):
        optim.clip_grad_norm([weight], 0.0)
