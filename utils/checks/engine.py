"""What all exercise checks share: calling a student's function safely, and saying what is wrong.

A check is a function of the student's function and a random generator. It feeds random inputs,
compares with an independent reference, and calls `wrong(...)` with a sentence in the student's
terms. Whatever the student's function does (raise, return None, change its arguments, never
return), the check turns it into a `Result`; it never raises itself and never shows the answer.
"""

from __future__ import annotations

import copy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import numpy as np

NOT_ATTEMPTED = (
    "not attempted yet. Replace the line `raise NotImplementedError(...)` with your answer, "
    "run that cell, then this one again."
)
CHANGES_ARGUMENTS = (
    "your function changes the arguments it is given; work on a copy "
    "(an assignment such as x[...] = ... or x += ... writes into the caller's array)"
)
PATIENCE = 3  # a check may last this many times its limit if it spends the rest waiting
MARKS = {"passed": "✓", "failed": "✗", "not attempted": "◻"}


@dataclass(frozen=True)
class Result:
    """What a check found; a notebook shows it as one line of text."""

    name: str
    status: str  # "passed", "failed" or "not attempted"
    message: str

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == "passed"

    def __repr__(self) -> str:
        return f"{MARKS[self.status]} {self.name}: {self.message}"


class WrongAnswer(Exception):
    """The student's answer is wrong, for the reason given."""


class TimeUp(BaseException):
    """Not an Exception, so that a student's `except Exception` does not swallow it."""


def wrong(message: str) -> NoReturn:
    """End the check: the answer is wrong, and `message` says why in the student's terms."""
    raise WrongAnswer(message)


class Student:
    """A student's function, called so that its mistakes become sentences."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on copies of the arguments, and notice if it changes them."""
        given, given_named = copy.deepcopy((args, kwargs))
        try:
            answer = self.function(*given, **given_named)
        except (NotImplementedError, WrongAnswer):
            raise
        except Exception as error:
            text = f"{error}{_line_of(error)}"
            raise WrongAnswer(describe_error(args, kwargs, type(error).__name__, text)) from error
        if not _same((args, kwargs), (given, given_named)):
            wrong(CHANGES_ARGUMENTS)
        return answer


def as_array(answer: Any, shape: tuple[int, ...] | None = None, what: str = "result") -> np.ndarray:
    """Turn a student's answer (numpy, torch, list, number) into an array of the right shape.

    Parameters
    ----------
    answer : object
    shape : tuple of int, optional
        The shape that it must have.
    what : str
        What to call it in messages, such as "weights".

    Returns
    -------
    numpy.ndarray
    """
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if hasattr(answer, "detach"):  # a torch tensor, on whatever device
        answer = answer.detach().cpu().numpy()
    try:
        array = np.asarray(answer)
        if array.dtype == object:
            raise ValueError
    except Exception:
        wrong(f"the {what} should be an array of numbers, not {_describe(answer)}")
    if shape is not None and array.shape != shape:
        wrong(f"the {what} should have shape {shape}, but yours has shape {array.shape}")
    return array


def as_number(answer: Any, what: str = "result") -> float:
    """Turn a student's answer into one finite number."""
    array = as_array(answer, what=what)
    if array.size != 1:
        wrong(f"the {what} should be one number, but yours has shape {array.shape}")
    try:
        number = float(array.reshape(()))
    except (TypeError, ValueError):
        wrong(f"the {what} should be a number, not {_describe(answer)}")
    if not np.isfinite(number):
        wrong(f"the {what} is {number}; it should be a finite number")
    return number


def close(got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-5) -> bool:
    """Compare numbers with a tolerance that float32 answers meet."""
    got, expected = np.asarray(got), np.asarray(expected)
    return got.shape == expected.shape and bool(
        np.allclose(got.astype(float), expected.astype(float), rtol=rtol, atol=atol)
    )


def reject_known(
    got: np.ndarray, candidates: Mapping[str, Any], atol: float = 1e-6, rtol: float = 1e-4
) -> None:
    """End the check with the message whose mistake gives exactly what the student got.

    Parameters
    ----------
    got : numpy.ndarray
    candidates : mapping from message to array_like
        What each known mistake results in; NaN counts as equal to NaN.
    atol, rtol : float
        How near counts as the same.
    """
    for message, candidate in candidates.items():
        mistaken = np.asarray(candidate)
        if mistaken.shape == got.shape and np.allclose(
            got.astype(float), mistaken.astype(float), rtol=rtol, atol=atol, equal_nan=True
        ):
            wrong(message)


class Check:
    """A check that a notebook calls with the student's function."""

    def __init__(self, body: Callable[..., None], time_limit: float) -> None:
        self.body = body
        self.name = body.__name__
        self.module = body.__module__
        self.time_limit = time_limit
        self.__doc__ = body.__doc__

    def __call__(self, student_function: Callable[..., Any], seed: int = 0) -> Result:
        """Check an answer.

        Parameters
        ----------
        student_function : callable
            The function that the exercise asks for.
        seed : int
            Seeds the random inputs; the same seed finds the same mistake again.

        Returns
        -------
        Result
        """
        from utils.checks.ledger import record  # the ledger needs this module

        result = Result(self.name, *self._outcome(student_function, seed))
        record(result)
        return result

    def _outcome(self, student_function: Any, seed: int) -> tuple[str, str]:
        if not callable(student_function):
            usage = f"checks.{self.name}({self.name}), not {_describe(student_function)}"
            return "failed", f"give the check the function itself, without calling it: {usage}"
        try:
            with _time_limit(self.time_limit):
                self.body(Student(student_function), np.random.default_rng(seed))
        except NotImplementedError:
            return "not attempted", NOT_ATTEMPTED
        except WrongAnswer as error:
            problem = str(error)
        except TimeUp:
            problem = (
                f"your function was still running after {self.time_limit:g} seconds: "
                "look for a loop that never ends, or that does far too much work"
            )
        except SystemExit:
            problem = "your function ends the program; use `return` instead"
        except Exception as error:  # an answer so odd that the comparison itself failed
            problem = (
                "your function returned something the check could not work with "
                f"({type(error).__name__}: {error}); compare its type and shape with the docstring"
            )
        else:
            return "passed", "correct."
        return "failed", problem

    def __repr__(self) -> str:
        return f"<check {self.name}: call it with your function>"


def check(time_limit: float = 10.0) -> Callable[[Callable[..., None]], Check]:
    """Make a check of a function `body(student, rng)`; `time_limit` is in seconds of computing."""

    def decorate(body: Callable[..., None]) -> Check:
        return Check(body, time_limit)

    return decorate


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in this thread after that much computing, again and again until it ends."""
    on_main_thread = threading.current_thread() is threading.main_thread()
    if hasattr(signal, "setitimer") and on_main_thread:

        def stop_at_next_line(_: FrameType, event: str, __: Any) -> Any:
            if event == "line":
                raise TimeUp
            return stop_at_next_line

        started, computed = time.monotonic(), time.thread_time()

        def stop(_: int, frame: FrameType | None) -> None:
            # What counts is the time spent computing: on a busy machine, or while a library loads
            # from a slow disk, a right answer must not fail for the waiting.
            waited = time.monotonic() - started
            if time.thread_time() - computed < seconds and waited < PATIENCE * seconds:
                return
            # A bare `except:` around the student's loop body would swallow the exception and
            # loop on; the trace raises it once more, inside that `except`, where it escapes.
            sys.settrace(stop_at_next_line)
            while frame is not None and frame.f_code.co_filename != __file__:
                frame.f_trace = stop_at_next_line
                frame = frame.f_back
            raise TimeUp

        previous, previous_trace = signal.signal(signal.SIGALRM, stop), sys.gettrace()
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            sys.settrace(previous_trace)
    elif sys.platform == "emscripten":  # a browser has neither signals nor threads: no limit there
        yield
    else:  # Windows, or another thread: stop at the next line of Python code
        deadline = threading.Event()
        caller = threading.get_ident()

        def watch() -> None:
            import ctypes

            while not deadline.wait(seconds):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(caller), ctypes.py_object(TimeUp)
                )

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            deadline.set()
            watcher.join()


def _same(first: Any, second: Any) -> bool:
    """Compare nested arguments; NaN equals NaN, and an unknown kind of object counts as equal."""
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(_same(first[k], second[k]) for k in first)
    if hasattr(first, "detach"):
        first, second = first.detach().cpu().numpy(), second.detach().cpu().numpy()
    if isinstance(first, np.ndarray):
        return first.shape == second.shape and np.array_equal(
            first, second, equal_nan=first.dtype.kind in "fc"
        )
    if isinstance(first, int | float | str | bytes | set):
        return first == second or first != first  # noqa: PLR0124 - NaN is not itself
    return True


def _describe(value: Any) -> str:
    """Name a value in a few words."""
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    try:
        text = repr(value)
    except Exception:  # an object may refuse
        return f"a {type(value).__name__}"
    if len(text) <= 40:
        return text
    size = f" of length {len(value)}" if hasattr(value, "__len__") else ""
    return f"a {type(value).__name__}{size}"


def _describe_all(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    parts = [_describe(value) for value in args]
    parts += [f"{name}={_describe(value)}" for name, value in kwargs.items()]
    return ", ".join(parts) or "no arguments"


def describe_error(args: tuple[Any, ...], kwargs: dict[str, Any], kind: str, text: str) -> str:
    """Say what a student's function raised, and for which arguments."""
    return f"called with {_describe_all(args, kwargs)}, your function raised {kind}: {text}"


def _line_of(error: Exception) -> str:
    """Quote the line of the student's code that raised, where its source is known."""
    frames = traceback.extract_tb(error.__traceback__)
    here = __file__
    own = [
        frame
        for frame in frames
        if frame.filename != here and "site-packages" not in frame.filename
    ]
    if own and own[-1].line and sys.platform != "emscripten":
        return f" (in the line `{own[-1].line.strip()}`)"
    return ""
