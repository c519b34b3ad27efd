"""utils.schedules against torch's schedulers."""

import numpy as np
import pytest
import torch

from utils import optim, schedules


@pytest.mark.parametrize(("warmup", "total"), [(1, 2), (5, 20), (10, 100), (99, 100)])
@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_warmup_cosine_equals_torchs_schedulers(warmup, total, floor):
    peak = 3e-3
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    rise = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / (warmup + 1), 1.0, warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total - warmup, floor)
    both = torch.optim.lr_scheduler.SequentialLR(optimiser, [rise, fall], [warmup])
    for step in range(total):
        expected = optimiser.param_groups[0]["lr"]
        assert schedules.warmup_cosine(step, warmup, total, peak, floor) == pytest.approx(expected)
        optimiser.step()
        both.step()


def test_warmup_cosine_ends():
    assert schedules.warmup_cosine(0, 0, 10, 1.0) == 1.0
    assert schedules.warmup_cosine(0, 3, 10, 1.0) == 0.25
    assert schedules.warmup_cosine(10, 3, 10, 1.0, 0.1) == pytest.approx(0.1)
    assert schedules.warmup_cosine(1000, 3, 10, 1.0, 0.1) == pytest.approx(0.1)
    rates = [schedules.warmup_cosine(step, 3, 10, 1.0) for step in range(10)]
    assert np.argmax(rates) == 3 and min(rates) > 0


@pytest.mark.parametrize("arguments", [(-1, 2, 10, 1.0), (0, 10, 10, 1.0), (0, -1, 10, 1.0)])
def test_warmup_cosine_rejects(arguments):
    with pytest.raises(ValueError, match=r"step|warm-up"):
        schedules.warmup_cosine(*arguments)


def test_schedule_can_be_had_from_optim():
    assert optim.warmup_cosine is schedules.warmup_cosine
