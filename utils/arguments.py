"""What functions ask of their arguments, and what they say where they do not get it.

Each function here names the argument, says what was given and what was expected. Those called
`as_...` return the value ready for use, those called `check_...` only look. A shape is written as
it stands in the docstrings: "(B, T, C)", "(..., 8)"; a number in it must be matched, a letter may
be any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LARGEST_SIZE = 2**31 - 1  # no axis of any array here is longer
SMALLEST_TEMPERATURE = 1e-12  # below, logits divided by it are too large for float32
LARGEST_NUMBER = float(np.finfo(float).max)
LARGEST_WHOLE = 2**63 - 1  # for what is counted or seeds, and makes no array
# What a tensor of each kind holds, in words.
KINDS = {
    "float": "real numbers",
    "int": "whole numbers (int64)",
    "bool": "booleans",
    "any": "values",
}


def shown(value: Any) -> str:
    """Describe a value in a few words: arrays by type and shape, what is long by its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
        return f"{_kind_of(value)} of {value.dtype}, shape {tuple(value.shape)}"
    try:
        text = repr(value)
    except Exception:  # it resists being looked at, or is a number of thousands of digits
        return _kind_of(value)
    return text if len(text) <= 60 else f"{_kind_of(value)}: {text[:40]}..."


def _kind_of(value: Any) -> str:
    name = value.__name__ if isinstance(value, type) else type(value).__name__
    article = "an" if name[0].lower() in "aeio" else "a"
    return f"the class {name}" if isinstance(value, type) else f"{article} {name}"


# --------------------------------------------------------------------------------- numbers


def as_whole_number(name: str, value: Any, least: int = 0, most: int = LARGEST_SIZE) -> int:
    """Return a whole number from `least` to `most` as an int; True and 2.0 are none.

    Raises
    ------
    TypeError, ValueError
        If it is no whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        example = max(least, 1)
        raise TypeError(f"{name} must be a whole number, such as {example}, not {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, not {shown(value)}")
    return int(value)


def as_whole_numbers(least: int = 0, **values: Any) -> list[int]:
    """Return these values, given by name, as whole numbers of at least `least`."""
    return [as_whole_number(name, value, least) for name, value in values.items()]


def as_number(
    name: str, value: Any, low: float = -LARGEST_NUMBER, high: float = LARGEST_NUMBER
) -> float:
    """Return a real number from `low` to `high` as a float.

    By default any finite number; pass an infinity to allow it.

    Raises
    ------
    TypeError, ValueError
        If it is no real number, or out of range (NaN always is).
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, such as 0.5, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not low <= number <= high:
        ends = (-LARGEST_NUMBER, LARGEST_NUMBER)
        wanted = f"from {low:g} to {high:g}"
        if high == ends[1]:
            wanted = "finite" if low == ends[0] else f"at least {low:g} and finite"
        raise ValueError(f"{name} must be {wanted}, not {shown(value)}")
    return number


def as_positive(name: str, value: Any) -> float:
    """Return a finite number above 0 as a float, or raise as `as_number` does."""
    number = as_number(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be positive, not {shown(value)}")
    return number


def as_eps(name: str, value: Any) -> float:
    """Return a small number that is added to a variance: so large that float32 does not lose it."""
    return as_number(name, value, 1e-30, 1e30)


def check_sizes(config: Any, names: Iterable[str]) -> None:
    """Raise ValueError unless each of these attributes is a whole number of at least 1."""
    for name in names:
        value = getattr(config, name)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or not 1 <= value <= LARGEST_SIZE:
            raise ValueError(f"{name} must be a whole number of at least 1, not {shown(value)}")


# ------------------------------------------------------------------- texts, lists, objects


def check_text(**values: Any) -> None:
    """Raise TypeError unless each of these, given by name, is a string."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, not {shown(value)}")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless a value is one of the choices."""
    known = list(choices)
    if not any(type(value) is type(each) and value == each for each in known):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {shown(value)}")


def check_type(name: str, value: Any, *kinds: type, hint: str = "") -> None:
    """Raise TypeError unless a value is of one of these classes; the hint says how to get one."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        more = f": {hint}" if hint else ""
        raise TypeError(f"{name} must be of type {wanted}, not {shown(value)}{more}")


def check_function(**values: Any) -> None:
    """Raise TypeError unless each of these, given by name, can be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name} must be a function, not {shown(value)}")


def check_entries(name: str, mapping: Any, keys: Iterable[Any]) -> None:
    """Raise unless a mapping has these keys."""
    wanted = list(keys)
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{name} must be a dict with {', '.join(wanted)}, not {shown(mapping)}")
    for key in wanted:
        if key not in mapping:
            raise ValueError(
                f"{name} has no {key!r}: it needs {', '.join(wanted)}, and has "
                f"{', '.join(map(str, mapping)) or 'nothing'}"
            )


def as_list(name: str, values: Any, *kinds: type, least: int = 0, hint: str = "") -> list[Any]:
    """Return a list of at least `least` entries, all of one of these classes.

    Raises
    ------
    TypeError, ValueError
        If it is no list or the like (one string is none), an entry is of another class, or there
        are too few.
    """
    more = f": {hint}" if hint else ""
    wanted = " or ".join(kind.__name__ for kind in kinds) or "things"
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of {wanted}, not {shown(values)}{more}")
    entries = list(values)
    if len(entries) < least:
        raise ValueError(f"{name} must have at least {least} entries, not {len(entries)}{more}")
    for place, entry in enumerate(entries):
        is_wrong = isinstance(entry, bool) and bool not in kinds
        if kinds and (is_wrong or not isinstance(entry, kinds)):
            raise TypeError(f"{name}[{place}] must be of type {wanted}, not {shown(entry)}{more}")
    return entries


def as_texts(name: str, texts: Any) -> Iterator[str]:
    """Yield the texts of a list, or the one that was given, one after the other.

    Raises
    ------
    TypeError
        If one of them is no string.
    """
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a string or a list of strings, not {shown(texts)}")
    for place, text in enumerate([texts] if isinstance(texts, str) else texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{place}] must be a string, not {shown(text)}")
        yield text


def as_path(name: str, path: Any) -> Path:
    """Return a path, given as a string or a path.

    Raises
    ------
    TypeError, ValueError
        If it is something else, or holds what no file's name can hold.
    """
    if not isinstance(path, str | PathLike) or not str(path):
        raise TypeError(f"{name} must be the path of a file, not {shown(path)}")
    if "\0" in str(path) or _has_half_characters(str(path)):
        raise ValueError(f"{name} holds signs that no file's name can hold: {shown(path)}")
    return Path(path)


def _has_half_characters(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def as_ids(name: str, ids: Any, size: int | None = None) -> list[int]:
    """Return token ids, given as a list, an array or a tensor of one axis, as a list of int.

    Raises
    ------
    TypeError, ValueError
        If they are no whole numbers, or not from 0 to `size` - 1 where a size is given.
    """
    if type(ids) is list and size is None and all(type(each) is int for each in ids):
        return ids  # what it nearly always is
    if hasattr(ids, "dtype") and hasattr(ids, "tolist"):
        if getattr(ids, "is_meta", False) or len(ids.shape) != 1:
            raise ValueError(f"{name} must be one sequence of whole numbers, not {shown(ids)}")
        ids = ids.tolist()
    found = as_list(name, ids)
    for place, each in enumerate(found):
        number = each.item() if hasattr(each, "item") and getattr(each, "ndim", 0) == 0 else each
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name}[{place}] must be a whole number, not {shown(each)}")
        if size is not None and not 0 <= number < size:
            raise ValueError(f"{name}[{place}] must be from 0 to {size - 1}, not {number}")
        found[place] = number
    return found


# ------------------------------------------------------------------------------- numpy arrays


def as_floats(
    name: str,
    x: Any,
    shape: str = "(...)",
    *,
    finite: bool = False,
    some: bool = False,
    instead: str = "",
) -> NDArray[np.floating[Any]]:
    """Return an array of real numbers; whole ones and booleans become float64.

    Parameters
    ----------
    name : str
    x : array_like
    shape : str
        Such as "(B, T, 8)".
    finite : bool
        Whether NaN and infinities are refused.
    some : bool
        Whether an empty array is refused.
    instead : str
        The function to call with a tensor of torch, which is then refused; otherwise its numbers
        are taken.

    Raises
    ------
    TypeError, ValueError
        If it is something else.
    """
    if instead and hasattr(x, "detach"):
        raise TypeError(
            f"{name} is a torch tensor, but this is the numpy version: call {instead}, or convert "
            "it with .detach().cpu().numpy()"
        )
    array = as_array(name, x)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    elif array.dtype.kind != "f":
        raise TypeError(f"{name} should hold real numbers, not {_given(x, array)}")
    check_shape(name, array, shape, some=some)
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or an infinity: find out where it comes from first")
    return array


def as_integers(
    name: str,
    x: Any,
    shape: str = "(...)",
    *,
    low: int | None = None,
    high: int | None = None,
    some: bool = False,
) -> NDArray[np.integer[Any]]:
    """Return an array of whole numbers, from `low` to `high` (included) where these are given.

    Raises
    ------
    TypeError, ValueError
        If it is something else.
    """
    array = as_array(name, x)
    if not array.size and array.dtype.kind == "f":
        array = array.astype(np.int64)  # np.asarray([])
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {_given(x, array)}")
    check_shape(name, array, shape, some=some)
    if array.size:
        smallest, largest = int(array.min()), int(array.max())
        if (low is not None and smallest < low) or (high is not None and largest > high):
            wanted = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"{name} must be {wanted}, but go from {smallest} to {largest}")
    return array


def as_float_entries(
    name: str, mapping: Any, shapes: Mapping[str, str]
) -> dict[str, NDArray[np.floating[Any]]]:
    """Return a dict's arrays of real numbers after a look at their shapes; others are kept out."""
    check_entries(name, mapping, shapes)
    return {key: as_floats(f"{name}[{key!r}]", mapping[key], shapes[key]) for key in shapes}


def as_array(name: str, x: Any) -> NDArray[Any]:
    """Return what numpy makes of a value, or raise TypeError where it makes nothing of it."""
    try:
        return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        raise TypeError(f"{name} cannot be made an array of numbers: it is {shown(x)}") from None


def _given(x: Any, array: NDArray[Any]) -> str:
    return f"values of dtype {array.dtype}" if array.ndim else shown(x)


# --------------------------------------------------------------------------------- shapes


def check_shape(name: str, x: Any, shape: str, *, some: bool = False) -> None:
    """Raise ValueError unless an array or tensor has a shape, written such as "(..., T, 8)"."""
    given = tuple(x.shape)
    if not _fits(given, shape):
        raise ValueError(f"{name} should have shape {shape}, not {given}")
    if some and 0 in given:
        raise ValueError(f"{name} is empty, with shape {given}: at least one entry is needed")


@lru_cache
def _axes(shape: str) -> tuple[bool, tuple[int | None, ...]]:
    """Return whether a written shape begins with "...", and its sizes, None for a letter."""
    parts = [part.strip() for part in shape.strip("()").split(",") if part.strip()]
    sizes = tuple(int(part) if part.isdigit() else None for part in parts if part != "...")
    return "..." in parts, sizes


def _fits(given: tuple[int, ...], shape: str) -> bool:
    is_open, sizes = _axes(shape)
    if len(given) < len(sizes) or (len(given) > len(sizes) and not is_open):
        return False
    last = given[len(given) - len(sizes) :]
    return all(wanted in (None, size) for wanted, size in zip(sizes, last, strict=True))


# --------------------------------------------------------------------------- torch tensors


def check_tensor(
    name: str,
    x: Any,
    shape: str = "(...)",
    kind: str = "float",
    *,
    like: Tensor | None = None,
    some: bool = False,
    values: bool = False,
) -> None:
    """Raise unless something is a tensor of this shape and kind.

    Parameters
    ----------
    name : str
    x : object
    shape : str
        Such as "(B, T, 8)".
    kind : {"float", "int", "bool", "any"}
    like : torch.Tensor, optional
        It must be on the same device, and of the same type where both hold real numbers.
    some : bool
        Whether an empty tensor is refused.
    values : bool
        Whether a tensor of the device "meta", which has a shape but no numbers, is refused.

    Raises
    ------
    TypeError, ValueError
    """
    import torch

    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"{name} should be a torch.Tensor of {KINDS[kind]}, shape {shape}, not {shown(x)}: "
            "torch.as_tensor makes one"
        )
    if kind != "any" and _tensor_kind(x) != kind:
        raise TypeError(f"{name} should hold {KINDS[kind]}, not {x.dtype}")
    check_shape(name, x, shape, some=some)
    if values and x.is_meta:
        raise ValueError(f"{name} is on the device meta, where tensors have no numbers: use 'cpu'")
    if like is not None:
        check_alike(name, x, like)


def check_alike(name: str, x: Tensor, like: Tensor) -> None:
    """Raise unless a tensor is on the device of another one, and of its type if both are floats."""
    if x.device != like.device:
        raise ValueError(
            f"{name} is on the device {x.device}, and what it meets on {like.device}: move it with "
            f".to({str(like.device)!r})"
        )
    if x.dtype != like.dtype and x.is_floating_point() and like.is_floating_point():
        import torch

        if not torch.is_autocast_enabled(x.device.type):
            raise TypeError(
                f"{name} is of type {x.dtype}, and what it meets of {like.dtype}: convert it with "
                f".to({like.dtype})"
            )


def _tensor_kind(x: Tensor) -> str:
    import torch

    if x.is_floating_point():
        return "float"
    if x.dtype in (torch.int64, torch.int32):
        return "int"
    return "bool" if x.dtype == torch.bool else "other"


def check_features(name: str, x: Any, reader: Tensor | nn.Module, axes: int | None = None) -> None:
    """Raise unless a layer can read a tensor: (..., C) with C the last size of its weight.

    It runs in every layer at every step and so looks at nothing but shape, type and device.

    Parameters
    ----------
    name : str
    x : object
    reader : torch.Tensor, shape (..., C), or torch.nn.Module
        The weight that `x` meets first, or the layer that has it. A layer that was put in the
        place of another and has no such weight (a quantised one) looks at `x` itself.
    axes : int, optional
        3 if the shape must be (B, T, C).
    """
    import torch

    weight = reader if isinstance(reader, torch.Tensor) else getattr(reader, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return
    C = weight.shape[-1]
    wanted = f"(B, T, {C})" if axes == 3 else f"(..., {C})"
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"{name} should be a torch.Tensor of shape {wanted}, not {shown(x)}: torch.as_tensor "
            "makes one"
        )
    if x.ndim == 0 or x.shape[-1] != C or axes not in (None, x.ndim):
        raise ValueError(
            f"{name} should have shape {wanted}, not {tuple(x.shape)}: the last axis holds a "
            "token's features" + ("; a single sequence needs x[None]" if axes == 3 else "")
        )
    if not x.is_floating_point():
        raise TypeError(f"{name} should hold real numbers, not {x.dtype}: convert it with .float()")
    check_alike(name, x, weight)


def check_ids(ids: Any, table: Tensor, name: str = "ids") -> None:
    """Raise unless ids (B, T) can be looked up in a model's table of embeddings (V, C)."""
    check_ids_shape(ids, name)
    check_alike(name, ids, table)
    check_ids_range(ids, table.shape[0], name)


def check_ids_shape(ids: Any, name: str = "ids") -> None:
    """Raise unless token ids are whole numbers of shape (B, T) with T at least 1."""
    import torch

    if not isinstance(ids, torch.Tensor):
        raise TypeError(
            f"{name} should be a torch.Tensor of whole numbers, shape (B, T), not {shown(ids)}: "
            "torch.tensor([[1, 2, 3]]) makes one"
        )
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(
            f"{name} should have shape (B, T) with T at least 1, not {tuple(ids.shape)}; "
            f"one sequence goes in as {name}[None]"
        )
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"{name} should be whole numbers (int64), not {ids.dtype}: convert with .long()"
        )


def check_ids_range(ids: Tensor, size: int, name: str = "ids") -> None:
    """Raise ValueError unless ids on the CPU are from 0 to size - 1.

    On a GPU the look-up itself reports a wrong id, and asking would make the CPU wait for it.
    """
    import torch

    if ids.device.type != "cpu" or torch.compiler.is_compiling() or not ids.numel():
        return
    low, high = int(ids.min()), int(ids.max())
    if not 0 <= low <= high < size:
        raise ValueError(
            f"{name} run from {low} to {high}, but this model knows 0 to {size - 1}: do model and "
            "tokenizer belong together?"
        )


def check_generator(name: str, generator: Any) -> None:
    """Raise TypeError unless something is a generator of torch, or None."""
    import torch

    if generator is not None:
        check_type(name, generator, torch.Generator, hint="torch.Generator() makes one")


def check_tokenizer(name: str, tokenizer: Any) -> None:
    """Raise TypeError unless something can be called and decodes, as transformers' tokenizers."""
    if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        raise TypeError(f"{name} must be a tokenizer of transformers, not {shown(tokenizer)}")


def check_rows(name: str, rows: Any, count: int) -> None:
    """Raise unless something is a tensor of numbers of rows, of which there are `count`."""
    check_tensor(name, rows, "(N,)", "int", values=True)
    if rows.device.type == "cpu" and rows.numel():
        low, high = int(rows.min()), int(rows.max())
        if not -count <= low <= high < count:
            raise ValueError(f"{name} must be from 0 to {count - 1}, but go from {low} to {high}")


def check_model(name: str, model: Any, *kinds: type) -> None:
    """Raise TypeError unless something is a model, of one of these classes if any are given."""
    from torch import nn

    check_type(name, model, *(kinds or (nn.Module,)), hint="pass the model itself")


def check_scalar(name: str, result: Any) -> None:
    """Raise TypeError unless what a function of this name returned is a tensor of one number."""
    import torch

    if not isinstance(result, torch.Tensor) or result.numel() != 1:
        raise TypeError(f"{name} must return a tensor of one number, not {shown(result)}")


def as_device(name: str, device: Any) -> torch.device:
    """Return a device by its name, or say that there is none of that name on this machine.

    Raises
    ------
    TypeError, ValueError
    """
    import torch

    from utils.train import get_device

    if isinstance(device, torch.device) and device.type == "meta":
        return device
    if not isinstance(device, str | torch.device):
        raise TypeError(f"{name} must be the name of a device, such as 'cpu', not {shown(device)}")
    if not str(device):
        raise ValueError(f"{name} is an empty string: use 'cpu', 'cuda', 'cuda:0' or 'mps'")
    try:
        return get_device(str(device))
    except RuntimeError as error:
        raise ValueError(f"{name}: {error}") from None


def as_generator(name: str, seed: Any) -> np.random.Generator:
    """Return a generator of random numbers for a seed, or the generator that was given."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(as_whole_number(name, seed, most=LARGEST_WHOLE))


def check_rng(name: str, rng: Any) -> None:
    """Raise TypeError unless something is a generator of numpy."""
    check_type(name, rng, np.random.Generator, hint="np.random.default_rng(0) makes one")
