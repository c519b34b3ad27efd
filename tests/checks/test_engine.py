"""The engine of the exercise checks survives whatever a student's function does."""

import re
import sys
import threading
import time

import numpy as np
import pytest
import torch

from utils import checks
from utils.checks.engine import as_array, as_number, check, close, wrong


@check(time_limit=0.5)
def doubled(student, rng):
    """Return twice the input."""
    x = rng.normal(size=(3, 4))
    if not close(as_array(student(x), shape=(3, 4)), 2 * x):
        wrong("each number should be doubled")


def stub(x):
    raise NotImplementedError("Hint: what is x + x?")


def mutates(x):
    x *= 2
    return x


def never_ends(x):
    while True:
        pass


def never_ends_and_swallows(x):
    while True:
        try:  # noqa: SIM105
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def leaves(x):
    sys.exit(0)


@pytest.mark.parametrize(
    "right",
    [
        lambda x: 2 * x,
        lambda x: x + x,
        lambda x: [[2 * value for value in row] for row in x],
        lambda x: (2 * x).astype(np.float32),
        lambda x: torch.tensor(x, requires_grad=True) * 2,
    ],
)
def test_right_answers_pass_in_any_form(right):
    assert doubled(right).passed


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (stub, "not attempted", "not attempted yet"),
        (lambda x: x, "failed", "should be doubled"),
        (lambda x: None, "failed", "returned None"),
        (lambda x: 2 * x[0], "failed", r"should have shape \(3, 4\)"),
        (lambda x: "text", "failed", "shape"),
        (lambda x: object(), "failed", "array of numbers"),
        (lambda x: [[1], [1, 2]], "failed", "array of numbers"),
        (lambda x: np.full((3, 4), np.nan), "failed", "should be doubled"),
        (lambda x: 1 / 0, "failed", "ZeroDivisionError"),
        (lambda: 1, "failed", "TypeError"),
        (mutates, "failed", "changes the arguments"),
        (never_ends, "failed", "still running"),
        (never_ends_and_swallows, "failed", "still running"),
        (leaves, "failed", "ends the program"),
        (3, "failed", "the function itself"),
        (None, "failed", "the function itself"),
    ],
)
def test_everything_else_becomes_one_sentence(answer, status, words):
    result = doubled(answer)
    assert result.status == status
    assert not result.passed
    assert re.search(words, result.message)
    assert "\n" not in repr(result)


def test_the_clock_is_off_after_a_check():
    trace = sys.gettrace()
    doubled(never_ends_and_swallows)
    assert sys.gettrace() is trace
    time.sleep(0.6)  # longer than the limit: nothing may arrive late
    assert doubled(lambda x: 2 * x).passed


def test_the_time_limit_holds_off_the_main_thread_too():
    results = []
    thread = threading.Thread(target=lambda: results.append(doubled(never_ends)))
    thread.start()
    thread.join(timeout=20)
    assert results[0].status == "failed"
    assert "still running" in results[0].message


def test_checks_answer_where_there_are_neither_signals_nor_threads(monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sys, "platform", "emscripten")  # a browser: scripts/build_lite.py
    monkeypatch.delattr("signal.setitimer")
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert doubled(lambda x: 2 * x).passed
    assert doubled(stub).status == "not attempted"
    assert "should be doubled" in doubled(lambda x: x).message


def test_the_same_seed_draws_the_same_inputs():
    seen = []
    for _ in range(2):
        doubled(lambda x: seen.append(x.copy()) or 2 * x)
    doubled(lambda x: seen.append(x.copy()) or 2 * x, seed=1)
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


@pytest.mark.parametrize("number", [3, 3.0, np.float32(3), torch.tensor(3.0), np.array([3.0])])
def test_a_number_may_come_in_any_form(number):
    assert as_number(number) == 3.0


@pytest.mark.parametrize("number", [None, "three", [1, 2], float("nan"), float("inf"), 1j])
def test_what_is_no_finite_number_is_refused(number):
    @check()
    def one(student, rng):
        as_number(student())

    assert one(lambda: number).status == "failed"


def test_an_unknown_check_is_named():
    with pytest.raises(AttributeError, match=r"no check called 'nonsense'"):
        checks.nonsense  # noqa: B018


def test_all_checks_are_found_and_documented():
    for name in checks.names():
        assert getattr(checks, name).__doc__, name
        assert name in dir(checks)
