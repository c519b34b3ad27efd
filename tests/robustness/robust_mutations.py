"""Wrong arguments made of right ones: what kinds there are depends on the right value's type."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

Strategy = st.SearchStrategy[Any]
HUGE_WHOLE = (10**18, 2**63, 10**30)
HUGE_REAL = 1e30
# Far beyond anything that a model computes with, but with a finite square in the same type.
HUGE_IN = {"float64": 1e100, "float32": 1e12, "float16": 200.0, "bfloat16": 1e12}

small = st.integers(0, 7)  # picks a place; taken modulo what there is
text = st.text("ab ñ漢\n", min_size=1, max_size=4)


def mutations(value: Any) -> dict[str, Strategy]:
    """Return, by the kind of mistake, a strategy for wrong versions of a right value."""
    kinds: dict[str, Strategy] = {
        "None": st.none(),
        "text": text,
        "object": st.builds(object),
    }
    for check, more in (
        (lambda v: isinstance(v, bool | np.bool_), lambda v: {"number": st.integers(2, 9)}),
        (lambda v: isinstance(v, int | np.integer), _of_whole_number),
        (lambda v: isinstance(v, float | np.floating), _of_real_number),
        (lambda v: isinstance(v, np.ndarray | torch.Tensor), _of_array),
        (lambda v: isinstance(v, str), _of_text),
        (lambda v: isinstance(v, Mapping), _of_mapping),
        (lambda v: isinstance(v, list | tuple), _of_sequence),
        (lambda v: isinstance(v, Path), _of_path),
        (lambda v: isinstance(v, nn.Module), _of_module),
        (lambda v: isinstance(v, np.random.Generator | torch.Generator), _of_generator),
        (callable, _of_function),
    ):
        if check(value):
            return kinds | more(value)
    return kinds | {"number": st.integers(-3, 3)}


def _of_whole_number(value: int) -> dict[str, Strategy]:
    return {
        "zero": st.just(0),
        "negative": st.integers(-9, -1),
        "huge": st.sampled_from(HUGE_WHOLE),
        "other": st.integers(1, 9),
        "whole float": st.just(float(value)),
        "fraction": st.floats(0.25, 4.75).filter(lambda x: x != int(x)),
        "NaN": st.just(float("nan")),
        "infinite": st.sampled_from((float("inf"), -float("inf"))),
        "flag": st.booleans(),
        "numpy number": st.sampled_from((np.int64(value), np.int32(value))),
        "list": st.just([value]),
        "array": st.just(np.array([value, value])),
        "tensor": st.just(torch.tensor(value)),
    }


def _of_real_number(value: float) -> dict[str, Strategy]:
    return {
        "zero": st.sampled_from((0, 0.0, -0.0)),
        "negative": st.floats(-9, -0.1),
        "huge": st.sampled_from((HUGE_REAL, 10**30, 10**400)),
        "tiny": st.sampled_from((1e-30, 1e-310)),
        "other": st.floats(0.1, 9),
        "whole": st.integers(1, 5),
        "NaN": st.just(float("nan")),
        "infinite": st.sampled_from((float("inf"), -float("inf"))),
        "flag": st.booleans(),
        "complex": st.just(1 + 2j),
        "numpy number": st.just(np.float32(value)),
        "list": st.just([value]),
        "array": st.just(np.array([value, value])),
        "tensor": st.just(torch.tensor(value)),
    }


def _of_text(value: str) -> dict[str, Strategy]:
    return {
        "empty": st.just(""),
        "number": st.integers(0, 3),
        "bytes": st.just(value.encode()),
        "list": st.just([value]),
        "half a character": st.just(f"a\ud83d{value[:1]}"),
    }


def _of_path(value: Path) -> dict[str, Strategy]:
    binary, other = value.with_name("binary"), value.with_name("other.json")
    binary.write_bytes(b"\x00\xff\xfe no text")
    other.write_text("[1, 2]", encoding="utf-8")
    return {
        "text": text.filter(str.strip),  # a message cannot name a file of nothing but spaces
        "binary contents": st.just(binary),
        "other contents": st.just(other),
        "number": st.integers(10**6, 10**7),
        "empty": st.just(""),
        "folder": st.just(value.parent),
        "no such folder": st.just(value.parent / "none" / "such" / "file"),
        "list": st.just([str(value)]),
    }


def _of_module(value: nn.Module) -> dict[str, Strategy]:
    return {
        "number": st.integers(0, 3),
        "another module": st.just(nn.Linear(3, 2)),
        "function": st.just(_returns_its_argument),
        "class": st.just(type(value)),
    }


def _of_generator(value: Any) -> dict[str, Strategy]:
    other = torch.Generator() if isinstance(value, np.random.Generator) else np.random.default_rng()
    return {"number": st.integers(0, 3), "another library": st.just(other)}


def _of_function(value: Callable[..., Any]) -> dict[str, Strategy]:
    return {
        "number": st.integers(0, 3),
        "returns nothing": st.just(lambda *args, **kwargs: None),
        "returns text": st.just(lambda *args, **kwargs: "text"),
        "takes nothing": st.just(lambda: 0),
    }


def _returns_its_argument(x: Any, *_: Any) -> Any:
    return x


def _of_mapping(value: Mapping[Any, Any]) -> dict[str, Strategy]:
    keys = list(value)

    def change(place: int, make: Callable[[dict[Any, Any], Any], None]) -> dict[Any, Any]:
        changed = dict(value)
        if keys:
            make(changed, keys[place % len(keys)])
        return changed

    def set_to(new: Any) -> Callable[[dict[Any, Any], Any], None]:
        return lambda d, key: d.__setitem__(key, new)

    return {
        "empty": st.just({}),
        "list": st.just(list(value.items())),
        "number": st.integers(0, 3),
        "entry missing": small.map(lambda i: change(i, lambda d, key: d.pop(key))),
        "entry None": small.map(lambda i: change(i, set_to(None))),
        "entry text": small.map(lambda i: change(i, set_to("text"))),
        "entry number": small.map(lambda i: change(i, set_to(-7))),
        "entry more": st.just({**value, "more": 1}),
    }


def _of_sequence(value: list[Any] | tuple[Any, ...]) -> dict[str, Strategy]:
    kind = type(value) if type(value) in (list, tuple) else list

    def at(place: int, new: Any) -> Any:
        changed = list(value)
        if changed:
            changed[place % len(changed)] = new
        return kind(changed)

    kinds = {
        "empty": st.just(kind()),
        "number": st.integers(0, 3),
        "one fewer": st.just(kind(value[:-1])),
        "one more": st.just(kind([*value, *value[-1:]])),
        "entry None": small.map(lambda i: at(i, None)),
        "entry text": small.map(lambda i: at(i, "text")),
        "entry object": small.map(lambda i: at(i, object())),
        "entry negative": small.map(lambda i: at(i, -7)),
        "entry huge": small.map(lambda i: at(i, 10**30)),
        "entry fraction": small.map(lambda i: at(i, 1.5)),
        "entry NaN": small.map(lambda i: at(i, float("nan"))),
        "entry empty": small.map(lambda i: at(i, [])),
        "deeper": st.just(kind([value])),
        "mapping": st.just(dict(enumerate(value))),
    }
    tensors = [i for i, entry in enumerate(value) if isinstance(entry, torch.Tensor | np.ndarray)]
    for i in tensors:  # a batch: each of its arrays is spoiled like an argument of its own
        for kind_of_mistake, strategy in _of_array(value[i]).items():
            kinds[f"entry {i}: {kind_of_mistake}"] = strategy.map(lambda new, i=i: at(i, new))
    return kinds


def _of_array(value: np.ndarray | torch.Tensor) -> dict[str, Strategy]:
    """Return mistakes of shape, of content, and of type, for an array of either library."""
    value = value.detach() if isinstance(value, torch.Tensor) else value
    kinds = _shapes(value) | _types(value)
    what = _kind(value)
    if what == "float":
        huge = HUGE_IN[str(value.dtype).removeprefix("torch.")]
        kinds |= {
            "NaN inside": small.map(lambda i: _with(value, i, float("nan"))),
            "infinite inside": small.map(lambda i: _with(value, i, float("inf"))),
            "-infinite inside": small.map(lambda i: _with(value, i, -float("inf"))),
            "all zero": st.just(value * 0),
            "all negative": st.just(-abs(value) - 0.5),
            "huge inside": small.map(lambda i: _with(value, i, huge)),
            "all huge": st.just(value * 0 + huge),
        }
    elif what == "int":
        kinds |= {
            "negative inside": st.tuples(small, st.integers(-9, -1)).map(
                lambda pair: _with(value, *pair)
            ),
            "huge inside": small.map(lambda i: _with(value, i, 2**62)),
            "all zero": st.just(value * 0),
        }
    elif what == "bool":
        kinds |= {"all false": st.just(value & False), "all true": st.just(value | True)}
    return kinds


def _kind(value: np.ndarray | torch.Tensor) -> str:
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bool:
            return "bool"
        return "float" if value.is_floating_point() else "int"
    return {"f": "float", "b": "bool", "i": "int", "u": "int"}.get(value.dtype.kind, "other")


def _with(value: Any, place: int, new: Any) -> Any:
    """Return a copy with one entry replaced."""
    changed = copy.deepcopy(value)
    flat = changed.reshape(-1)
    if len(flat):
        with np.errstate(all="ignore"):
            flat[place % len(flat)] = abs(new) % 200 if _bytes_each(value) == 1 else new
    return changed


def _bytes_each(value: Any) -> int:
    return value.element_size() if isinstance(value, torch.Tensor) else value.itemsize


def _shapes(value: Any) -> dict[str, Strategy]:
    zeros = torch.zeros if isinstance(value, torch.Tensor) else np.zeros

    def resized(axis: int, by: int) -> Any:
        """Return the array with one axis longer (repeating) or shorter."""
        axis = axis % value.ndim
        size = max(value.shape[axis] + by, 0)
        index = [slice(None)] * value.ndim
        index[axis] = [i % max(value.shape[axis], 1) for i in range(size)]
        return value[tuple(index)] if value.shape[axis] else value

    def emptied(axis: int) -> Any:
        shape = list(value.shape)
        shape[axis % value.ndim] = 0
        return zeros(shape, dtype=value.dtype)

    kinds: dict[str, Strategy] = {
        "more axes": st.just(value[None]),
        "no axes": st.just(zeros((), dtype=value.dtype)),
        "no numbers": st.just(zeros((0,), dtype=value.dtype)),
    }
    if value.ndim:
        kinds |= {
            "fewer axes": st.just(value[0]),
            "flat": st.just(value.reshape(-1)),
            "longer": small.map(lambda axis: resized(axis, 1)),
            "shorter": small.map(lambda axis: resized(axis, -1)),
            "empty": small.map(emptied),
            "turned": st.just(value.swapaxes(0, -1)),
        }
    return kinds


def _types(value: Any) -> dict[str, Strategy]:
    number = 3 if _kind(value) != "float" else 0.5
    kinds: dict[str, Strategy] = {"number": st.just(number), "negative number": st.just(-7)}
    if isinstance(value, torch.Tensor):
        others = (torch.int64, torch.float64, torch.float16, torch.bool, torch.complex64)
        names = ("int64", "float64", "float16", "bool", "complex")
        array = value.numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
        kinds |= {
            "other device": st.just(value.to("meta")),
            "numpy": st.just(array),
            "list": st.just(value.tolist()),
        }
    else:
        others = (np.int64, np.float64, np.float16, bool, complex)
        names = ("int64", "float64", "float16", "bool", "complex")
        if value.dtype.kind in "fiub":
            kinds["torch"] = st.just(torch.from_numpy(value.copy()))
        kinds |= {
            "texts": st.just(np.full(value.shape, "text")),
            "objects": st.just(np.full(value.shape, None)),
            "list": st.just(value.tolist()),
        }
    for name, dtype in zip(names, others, strict=True):
        if value.dtype != dtype:
            with np.errstate(all="ignore"):
                new = value.to(dtype) if isinstance(value, torch.Tensor) else value.astype(dtype)
            kinds[name] = st.just(new)
    return kinds
