"""Seeds, devices and progress bars."""

import random

import numpy as np
import pytest
import torch

from utils import get_device, seed_everything
from utils.train import progress


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_the_same_seed_gives_the_same_numbers_in_all_three_libraries():
    first_generator = seed_everything(7)
    first = draw()
    second_generator = seed_everything(7)
    assert draw() == first
    assert first_generator.random() == second_generator.random()
    seed_everything(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"2\*\*32 - 1"):
        seed_everything(seed)


@pytest.mark.parametrize("seed", [None, 1.5, "0", True])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(TypeError, match="integer"):
        seed_everything(seed)


def test_the_device_can_be_named_by_argument_and_by_environment(monkeypatch):
    assert get_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert get_device() == torch.device("cpu")


def test_without_a_name_the_best_device_is_taken(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert get_device().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert get_device().type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert get_device().type == "cpu"


def test_a_device_that_is_unknown_or_absent_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        get_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="not available on this machine"):
        get_device("cuda")


def test_progress_passes_every_item_on_and_can_be_silenced(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", "0")
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("COURSE_PROGRESS", "1")
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert "counting" in capsys.readouterr().err
