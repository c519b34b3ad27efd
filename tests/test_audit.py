"""The debugging kit finds planted mistakes, and finds nothing where nothing is wrong."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils import audit
from utils.bert import Bert, BertConfig
from utils.gpt import GPT, GPTConfig

PAD = 0
IDS = torch.tensor([[5, 6, 7, PAD, PAD], [8, PAD, 9, 3, 4]])  # PAD within a row is a real token
RIGHT = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


@pytest.mark.parametrize("attention_mask", [RIGHT, RIGHT.bool(), RIGHT.to(torch.uint8)])
def test_right_masks_pass(attention_mask):
    finding = audit.mask(attention_mask, IDS, PAD)
    assert finding.ok
    assert "8 of 10" in finding.message
    assert audit.mask(attention_mask.flip(1), IDS.flip(1), PAD).ok  # padding on the left


@pytest.mark.parametrize(
    ("attention_mask", "words"),
    [
        (RIGHT.tolist(), "list"),
        (RIGHT.float(), "float32"),
        (RIGHT[:, None], "(2, 1, 5)"),
        (RIGHT[0], "(5,)"),
        (RIGHT * 2, "besides 0 and 1"),
        (RIGHT * 0, "rows hide everything"),
        (torch.ones_like(RIGHT), "2 padding tokens can be seen"),
        ((IDS > 0).long(), "1 real tokens are hidden"),
    ],
)
def test_wrong_masks_are_told_why(attention_mask, words):
    finding = audit.mask(attention_mask, IDS, PAD)
    assert not finding.ok
    assert words in repr(finding)


def test_overlap_sees_through_case_and_spaces():
    assert audit.overlap(["A film."], ["another film."]).ok
    finding = audit.overlap(["A  film.", "b"], ["a film. ", "c", "d", "e"])
    assert not finding.ok
    assert "1 of 4" in finding.message
    with pytest.raises(ValueError, match="test set is empty"):
        audit.overlap(["a"], [])


@pytest.mark.parametrize(
    ("loss", "ok", "words"),
    [
        (math.log(50), True, "log 50"),
        (9.0, False, "firm opinions"),
        (0.7, False, "leak"),
        (float("nan"), False, "nan"),
        (math.inf, False, "inf"),
    ],
)
def test_initial_loss(loss, ok, words):
    finding = audit.initial_loss(loss, 50)
    assert finding.ok is ok
    assert words in finding.message


def small_gpt():
    torch.manual_seed(0)
    return GPT(GPTConfig(11, context_length=6, num_layers=1, num_heads=2, d_model=16)).eval()


def test_influence_draws_the_mask():
    ids = torch.randint(11, (6,), generator=torch.Generator().manual_seed(1))
    causal = audit.influence(small_gpt(), ids, 11)
    assert torch.equal(causal, torch.ones(6, 6).tril().bool())
    torch.manual_seed(0)
    both_ways = Bert(BertConfig(11, 6, num_layers=1, num_heads=2, d_model=16, init_std=0.2)).eval()
    assert audit.influence(both_ways, ids, 11).all()


def test_gradient_reach_names_what_the_loss_cannot_reach():
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "forgotten": nn.Linear(3, 2)})
    x = torch.ones(4, 3)
    finding = audit.gradient_reach(model, model["used"](x).square().sum())
    assert not finding.ok
    assert "2 of 4" in finding.message
    assert "forgotten.weight" in finding.message
    cut = audit.gradient_reach(model, model["used"](x).detach().sum())
    assert "no weight at all" in cut.message
    both = (model["used"](x) * model["forgotten"](x)).square().sum()
    assert audit.gradient_reach(model, both).ok
    assert all(p.grad is None for p in model.parameters())


def test_overfit_works_on_a_copy_and_can_fail():
    model = small_gpt()
    before = {name: p.clone() for name, p in model.named_parameters()}
    ids = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(2))
    batch = (ids[:, :-1], ids[:, 1:])
    assert audit.overfit(model, batch, steps=150, lr=1e-2, target=0.5).ok

    def softmax_twice(model, batch):
        return F.cross_entropy(model(batch[0]).softmax(-1).flatten(0, 1), batch[1].flatten())

    finding = audit.overfit(model, batch, softmax_twice, steps=150, lr=1e-2, target=0.5)
    assert not finding.ok  # log(e + 10) - 1 is as low as it gets
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.training is False


def test_noise_tells_a_leak_from_an_honest_model():
    def shifted(model, ids):
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    def not_shifted(model, ids):
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, :-1].flatten())

    options = {"shape": (16, 7), "steps": 60, "lr": 1e-2}
    assert audit.noise(small_gpt(), shifted, 11, **options).ok
    leaking = audit.noise(small_gpt(), not_shifted, 11, **options)
    assert not leaking.ok
    assert "in the inputs" in leaking.message


def test_overfit_stops_at_nan():
    finding = audit.overfit(small_gpt(), None, lambda model, _: next(model.parameters()).sum() / 0)
    assert not finding.ok
