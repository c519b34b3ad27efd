"""Every check of the course, given answers that no check can have been written for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils import checks


class Strange:
    """An object that resists being looked at."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")

    def __repr__(self):
        raise RuntimeError("no text")

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


def vandal(*args, **kwargs):
    """Write over whatever is given that can be written over, and return it."""
    for value in [*args, *kwargs.values()]:
        if isinstance(value, np.ndarray | torch.Tensor) and value.ndim:
            value[...] = 0
        elif isinstance(value, list | dict | set):
            value.clear()
    return args[0] if args else None


def leave(*args, **kwargs):
    raise SystemExit(1)


def never(*args, **kwargs):
    while True:
        try:
            while True:
                pass
        except:  # noqa: E722 - as a student's code may do
            pass


ANSWERS = {
    "nothing": lambda *args, **kwargs: None,
    "no arguments": lambda: 1.0,
    "a text": lambda *args, **kwargs: "a text",
    "an empty list": lambda *args, **kwargs: [],
    "a ragged list": lambda *args, **kwargs: [[1.0], [2.0, 3.0]],
    "a dictionary": lambda *args, **kwargs: {"answer": 1},
    "a strange object": lambda *args, **kwargs: Strange(),
    "many strange objects": lambda *args, **kwargs: tuple(Strange() for _ in range(3)),
    "nan": lambda *args, **kwargs: float("nan"),
    "an empty array": lambda *args, **kwargs: np.zeros((0, 3)),
    "an array of seven dimensions": lambda *args, **kwargs: np.ones((1, 2, 1, 2, 1, 2, 1)),
    "an array of complex numbers": lambda *args, **kwargs: np.ones((2, 3)) * 1j,
    "an array of texts": lambda *args, **kwargs: np.array(["a", "b"]),
    "a tensor of integers": lambda *args, **kwargs: torch.zeros(3, dtype=torch.int8),
    "a generator": lambda *args, **kwargs: (x for x in args),
    "its own first argument": lambda *args, **kwargs: args[0] if args else None,
    "what it destroyed": vandal,
    "an exit": leave,
    "a division by zero": lambda *args, **kwargs: 1 / 0,
}


@pytest.mark.parametrize("name", checks.names())
def test_any_answer_gets_a_sentence(name):
    """No check raises, none lets nonsense pass, and each says something."""
    check = getattr(checks, name)
    for kind, answer in ANSWERS.items():
        result = check(answer)
        assert result.status == "failed", f"{kind}: {result!r}"
        assert len(result.message) > 15, f"{kind}: {result!r}"


@pytest.mark.parametrize("name", [checks.names(chapter)[0] for chapter in range(21)])
def test_a_loop_without_end_is_ended(name, monkeypatch):
    check = getattr(checks, name)
    monkeypatch.setattr(check, "time_limit", 0.1)
    result = check(never)
    assert result.status == "failed" and "still running after 0.1 seconds" in result.message


@pytest.mark.parametrize("name", checks.names())
def test_what_is_no_function_gets_a_sentence(name):
    for answer in (None, 3.0, np.ones(2), Strange(), "f"):
        assert getattr(checks, name)(answer).status == "failed"
