"""Call a function with a wrong argument, and say whether what happens is good enough.

Good enough is a result without a warning, with no NaN that was not put in, and with the arguments
left as they were; or an error of a documented kind, raised by the course's own code, in words that
name the argument or what was given for it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import io
import itertools
import re
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import utils

try:
    import resource
except ImportError:  # Windows has none
    resource = None

_TEMPORARY = tempfile.TemporaryDirectory(prefix="robustness-")  # gone when the process ends
FOLDER = Path(_TEMPORARY.name)  # where examples keep files, and calls may leave some
UTILS = str(Path(utils.__file__).parent)
SECONDS = 5.0  # of computing: longer is a hang
MORE_MEMORY = 2**30  # bytes
ALWAYS_ALLOWED = {"ValueError", "TypeError"}
OF_FILES = (OSError,)  # Python's own message names the path
NOT_OF_ARGUMENTS = (ResourceWarning, DeprecationWarning)  # of other libraries' insides


class Hang(BaseException):
    """A call that takes too long; no `except Exception` stops it."""


@dataclass
class Example:
    """Right arguments for one public callable.

    Parameters
    ----------
    arguments : dict
        By name; a parameter `*args` gets a tuple, `**kwargs` a dict.
    on : object
        What a method is called on.
    then : callable, optional
        Gets the result, and tries it: an object that was made with a wrong argument must not fail
        later in a way that would not be good enough here.
    changes : set of str
        Arguments that the function is documented to change.
    skip : dict
        Parameter -> why no wrong values are tried for it.
    skip_kinds : dict
        (parameter, beginning of kinds of mistakes) -> why these are not tried.
    called : dict
        Parameter -> the word by which messages call it, where that is not its name.
    around : callable, optional
        Returns a context for the call.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    on: Any = None
    then: Callable[[Any], Any] | None = None
    changes: frozenset[str] = frozenset()
    skip: dict[str, str] = field(default_factory=dict)
    skip_kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)
    around: Callable[[], contextlib.AbstractContextManager[Any]] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a call came to: "returned", "refused", or why that is not good enough."""

    kind: str
    text: str = ""

    @property
    def good(self) -> bool:
        """Whether it is good enough."""
        return self.kind in ("returned", "refused")


def judge(
    function: Callable[..., Any], example: Example, spoiled: str | None, spoiled_finite: bool = True
) -> Outcome:
    """Call a function with an example's arguments, one of which may be spoiled.

    Parameters
    ----------
    function : callable
        Without its `self`.
    example : Example
        With the wrong value in its place already.
    spoiled : str or None
        The name of the wrong argument.
    spoiled_finite : bool
        False if NaN or an infinity was put in, so that NaN may come out.
    """
    args, kwargs = _bound(function, example.arguments)
    before = {
        name: _snapshot(value)
        for name, value in example.arguments.items()
        if name not in example.changes
    }
    try:
        with warnings.catch_warnings(record=True) as warned, _surroundings(example):
            warnings.simplefilter("always")
            result = _exhausted(function(*args, **kwargs))
            if example.then is not None:
                result = (result, _exhausted(example.then(result)))
    except Hang:
        return Outcome("hang", f"still running after {SECONDS:g} seconds")
    except Exception as error:
        outcome = _judge_error(error, function, example, spoiled)
        return outcome if not outcome.good else _unchanged(example, before, outcome)
    warned = [each for each in warned if not issubclass(each.category, NOT_OF_ARGUMENTS)]
    if warned:
        return Outcome("warning", f"{warned[0].category.__name__}: {warned[0].message}")
    if spoiled_finite and _has_nan(result):
        return Outcome("silent NaN", "the result holds NaN, though all that was given is finite")
    return _unchanged(example, before, Outcome("returned"))


def _bound(
    function: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Sort arguments into positional and named ones."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    parameters = inspect.signature(function).parameters
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    for name, parameter in parameters.items():
        value = arguments.get(name)
        if name not in arguments:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += value if isinstance(value, list | tuple) else [value]
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs |= value if isinstance(value, dict) else {}
        elif parameter.kind is parameter.KEYWORD_ONLY or not starred:
            kwargs[name] = value
        else:
            args.append(value)
    return args, kwargs


def _exhausted(result: Any) -> Any:
    """Take the first things out of an iterator; enter and leave a context."""
    if isinstance(result, contextlib._GeneratorContextManager):
        with result:
            return None
    if isinstance(result, Iterator):
        return list(itertools.islice(result, 8))
    return result


# ------------------------------------------------------------------------------------- errors


def _judge_error(
    error: Exception, function: Callable[..., Any], example: Example, spoiled: str | None
) -> Outcome:
    kind = type(error).__name__
    line = " ".join(str(error).split())
    shown = f"{kind}: {line[:160]}"
    if isinstance(error, OF_FILES) and len(line.split()) >= 4:
        return Outcome("refused", shown)
    allowed = ALWAYS_ALLOWED | _documented(function, example)
    if not allowed & {each.__name__ for each in type(error).__mro__}:
        return Outcome(f"bare {kind}", shown)
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    if not last.tb_frame.f_code.co_filename.startswith(UTILS):
        return Outcome(f"{kind} from elsewhere", shown)
    if len(line.split()) < 4:
        return Outcome(f"{kind} without words", shown)
    if spoiled is not None and not _names(line, spoiled, example):
        return Outcome(f"{kind} that names nothing", shown)
    return Outcome("refused", shown)


def _documented(function: Callable[..., Any], example: Example) -> set[str]:
    """Return the names of the errors in the "Raises" sections that belong to a function."""
    found: set[str] = set()
    for owner in (function, type(example.on), getattr(function, "__init__", None)):
        text = inspect.cleandoc(getattr(owner, "__doc__", None) or "")
        section = re.search(r"^Raises\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)", text, re.M | re.S)
        if section:
            found |= set(
                re.findall(
                    r"[A-Za-z_]\w*(?=,|$)", re.sub(r"^ .*$", "", section[1], flags=re.M), re.M
                )
            )
    return found


def _names(line: str, name: str, example: Example) -> bool:
    """Tell whether a message names an argument or what was given for it.

    Where two arguments do not fit together, the message may name the other one and its shape.
    """
    value = example.arguments[name]
    if _has_word(line, name) or _has_word(line, example.called.get(name, name)):
        return True
    if any(shown in line for shown in _shown(value)):
        return True
    if any(_has_word(line, str(size)) for size in getattr(value, "shape", ())):
        return True
    if _is_empty(value) and re.search(r"\bempty|\bno\b|\bnothing|\bat least|\bthere are 0", line):
        return True
    is_of_shape = re.search(r"\bshape|\baxis|\bdevice", line) and not isinstance(value, str | None)
    return bool(is_of_shape) and any(_has_word(line, other) for other in example.arguments)


def _has_word(line: str, name: str) -> bool:
    """Tell whether a name stands in a line, in the singular or the plural, with spaces or not."""
    singular = name if len(name) < 3 else name.removesuffix("s")
    words = {name, name.replace("_", " "), singular, singular.replace("_", " ")}
    return any(re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", line) for word in words)


def _shown(value: Any) -> set[str]:
    """Return ways in which a message may write a value, or the part of it that is wrong."""
    if value is None:
        return {"None"}
    found = {f"not {type(value).__name__}", f"a {type(value).__name__}"}
    if isinstance(value, np.ndarray | torch.Tensor):
        found |= {str(tuple(value.shape)), str(value.dtype)}
        found |= {f"device {getattr(value, 'device', None)}"}
        if not getattr(value, "is_meta", False) and value.dtype not in (torch.bfloat16,):
            found |= _shown_numbers(np.asarray(value.tolist()).ravel())
    elif isinstance(value, str | bytes):
        found |= {repr(each) for each in value} | {str(len(value))}
    elif isinstance(value, list | tuple | Mapping):
        inner = value.values() if isinstance(value, Mapping) else value
        found |= {str(len(value))}
        for entry in itertools.islice(inner, 20):
            found |= {repr(entry)} | (_shown(entry) if not isinstance(entry, list) else set())
    elif callable(value):
        found |= {getattr(value, "__qualname__", "")}
    with contextlib.suppress(Exception):
        found |= {repr(value), " ".join(str(value).split())}
    return {each for each in found if each}


def _shown_numbers(entries: np.ndarray) -> set[str]:
    """Return the smallest and the largest number and the first, as messages write them."""
    if not entries.size or entries.dtype.kind not in "iuf":
        return set()
    with np.errstate(all="ignore"):
        chosen = (entries.min(), entries.max(), entries[0])
    return {text for each in chosen for text in (f"{each:.4g}", str(each), repr(each.item()))}


def _is_empty(value: Any) -> bool:
    with contextlib.suppress(TypeError):
        return 0 in getattr(value, "shape", (len(value),))
    return False


# ------------------------------------------------------------------------------------- results


def _has_nan(value: Any, depth: int = 0) -> bool:  # noqa: PLR0911 - one kind of value a line
    if depth > 5:
        return False
    if isinstance(value, float | complex | np.inexact):
        return bool(np.isnan(value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and bool(np.isnan(value).any())
    if isinstance(value, torch.Tensor):
        if value.is_meta or not (value.is_floating_point() or value.is_complex()):
            return False
        return bool(value.detach().isnan().any())
    if isinstance(value, nn.Module):
        return any(_has_nan(p) for p in itertools.chain(value.parameters(), value.buffers()))
    if isinstance(value, Mapping):
        return any(_has_nan(each, depth + 1) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_has_nan(each, depth + 1) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_has_nan(each, depth + 1) for each in vars(value).values())
    return False


# ----------------------------------------------------------------------------------- arguments


def _snapshot(value: Any) -> Any:
    """Copy what a function could change in an argument, in a form to compare with."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, nn.Module):
        state = {name: each.detach().clone() for name, each in value.state_dict().items()}
        return {"state": state, "training": value.training}
    if isinstance(value, Mapping):
        return {key: _snapshot(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_snapshot(each) for each in value]
    return value


def _unchanged(example: Example, before: dict[str, Any], outcome: Outcome) -> Outcome:
    for name, old in before.items():
        if not _equal(old, _snapshot(example.arguments[name])):
            return Outcome("argument changed", f"{name} is not what it was before the call")
    return outcome


def _equal(old: Any, new: Any) -> bool:  # noqa: PLR0911 - one kind of value a line
    if isinstance(old, torch.Tensor):
        if old.is_meta or new.is_meta:
            return old.shape == new.shape
        return old.dtype == new.dtype and torch.equal(old.nan_to_num(7), new.nan_to_num(7))
    if isinstance(old, np.ndarray):
        if old.dtype.kind not in "fc":
            return old.dtype == new.dtype and np.array_equal(old, new)
        return old.dtype == new.dtype and np.array_equal(old, new, equal_nan=True)
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_equal(old[key], new[key]) for key in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    return old is new or old == new or (_has_nan(old) and _has_nan(new))


# --------------------------------------------------------------------------------- surroundings


@contextlib.contextmanager
def _bounds() -> Iterator[None]:
    """Interrupt a call that computes for too long, and refuse it endless memory (on Linux)."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def stop(*_: Any) -> None:
        raise Hang

    previous = signal.signal(signal.SIGPROF, stop)
    # The process's own time, however busy the rest is; again and again, in case one is swallowed.
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.2)
    memory = _memory_limit()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, memory)


def _memory_limit() -> tuple[int, int] | None:
    """Allow a gigabyte more than there is now; return the limits as they were."""
    if resource is None:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return None
    before = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (wanted, before[1]))
    return before


@contextlib.contextmanager
def _surroundings(example: Example) -> Iterator[None]:
    """Keep output and time in bounds, and make what the example asks for."""
    around = example.around() if example.around else contextlib.nullcontext()
    with around, contextlib.chdir(FOLDER), _bounds(), contextlib.redirect_stdout(io.StringIO()):
        yield


def copied(value: Any) -> Any:
    """Return a copy to spoil, so that the example's own value stays."""
    return copy.deepcopy(value)
