"""Plain data between the checker and the worker: numbers, texts, containers, arrays, no code.

The checks run in a process that never executes a line of a student's. What the student's functions
answer arrives as JSON and is rebuilt from a short list of known types; anything else becomes an
`Other`, which no check takes for an answer. Functions stay where they are: the other side gets a
number by which to call them.
"""

from __future__ import annotations

import base64
import collections
import itertools
import json
import math
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

LARGEST_MESSAGE = 16 * 2**20  # bytes
LONGEST_ITERATOR = 100_000
TEXT = 500  # characters kept of a text that describes something
GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
TORCH_DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
TORCH_DTYPES += ["bool", "uint8", "int8", "int16", "int32", "int64"]


class Gone(Exception):
    """The other side has ended, or writes what is no message."""


class Other:
    """Stands for an answer of a type that is not plain data."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def other(type_name: str, text: str) -> Other:
    """Return an `Other` whose type has the given name, so that messages can name it."""
    name = type_name if isinstance(type_name, str) and type_name.isidentifier() else "Other"
    return type(name[:60], (Other,), {})(clean(text))


def clean(text: Any, length: int = TEXT) -> str:
    """Return text without control characters and lone surrogates, and not too long.

    What a student's code says ends up in a terminal, a table and a web page.
    """
    text = str(text).encode("utf-8", "replace").decode("utf-8")
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= length else text[: length - 1] + "…"


class Codec:
    """Turns values into what JSON can carry, and back.

    `lend` keeps a function here and returns its number; `borrow` makes something callable of the
    other side's number; `give` and `take` carry torch modules. Without them these are no plain
    data, and without `states` random generators are none either.
    """

    def __init__(
        self,
        lend: Callable[[Any], int] | None = None,
        borrow: Callable[[int], Any] | None = None,
        give: Callable[[Any], Any] | None = None,
        take: Callable[[Any], Any] | None = None,
        states: bool = True,
    ) -> None:
        self.lend, self.borrow, self.give, self.take = lend, borrow, give, take
        self.states = states

    def pack(self, value: Any) -> Any:
        """Return what stands for a value in a message."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is list:
            return [self.pack(item) for item in value]
        kind, content = self._pack(value)
        return {"~": kind, "v": content}

    def _pack(self, value: Any) -> tuple[str, Any]:  # noqa: PLR0911, PLR0912 - one line a type
        torch = sys.modules.get("torch")
        if isinstance(value, np.generic):
            return ("scalar", self._array(np.asarray(value)))
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "biufcSU":
                return ("array", self._array(np.asarray(value)))
            return ("other", _described(value))
        if torch and isinstance(value, torch.Tensor):
            plain = value.detach().cpu().resolve_conj().resolve_neg().to_dense()
            dtype = str(plain.dtype).removeprefix("torch.")
            plain = plain.float() if dtype == "bfloat16" else plain
            return ("tensor", [dtype, value.requires_grad, self._array(plain.numpy())])
        if torch and isinstance(value, torch.nn.Module) and self.give:
            return ("module", self.give(value))
        if isinstance(value, np.random.Generator) and self.states:
            return ("generator", self.pack(value.bit_generator.state))
        if isinstance(value, bool | int | str | float):  # of a class made from these
            return ("plain", next(t for t in (int, str, float) if isinstance(value, t))(value))
        if isinstance(value, complex):
            return ("complex", [value.real, value.imag])
        if isinstance(value, bytes | bytearray):
            return ("bytes", base64.b64encode(value).decode())
        if isinstance(value, dict):
            return ("dict", [[self.pack(k), self.pack(v)] for k, v in value.items()])
        if isinstance(value, range):
            return ("range", [value.start, value.stop, value.step])
        for name, types in SEQUENCES.items():
            if isinstance(value, types):
                return (name, [self.pack(item) for item in value])
        if isinstance(value, collections.abc.Iterator):
            return ("iterator", [self.pack(v) for v in itertools.islice(value, LONGEST_ITERATOR)])
        if callable(value) and self.lend:
            return ("function", self.lend(value))
        if hasattr(value, "__array__"):
            try:
                return self._pack(np.asarray(value))
            except Exception:  # an object may refuse
                return ("other", _described(value))
        return ("other", _described(value))

    @staticmethod
    def _array(array: np.ndarray) -> list[Any]:
        if array.nbytes > LARGEST_MESSAGE:
            raise ValueError(f"an array of shape {array.shape} is larger than an answer may be")
        content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return [array.dtype.str, list(array.shape), content]

    def unpack(self, data: Any) -> Any:
        """Return the value that `pack` made `data` of.

        Raises
        ------
        ValueError
            If `data` is nothing that `pack` makes.
        """
        if isinstance(data, list):
            return [self.unpack(item) for item in data]
        if not isinstance(data, dict):
            return data
        try:
            return self._unpack(data["~"], data["v"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"no plain data: {clean(error, 100)}") from None

    def _unpack(self, kind: str, content: Any) -> Any:  # noqa: PLR0911, PLR0912 - one line a type
        match kind:
            case "array":
                return _read_array(content)
            case "scalar":
                return _read_array(content)[()]
            case "tensor":
                return _read_tensor(content)
            case "module" if self.take:
                return self.take(content)
            case "generator":
                return _read_generator(self.unpack(content))
            case "plain" if type(content) in (int, str, float):
                return content
            case "complex":
                return complex(*content)
            case "bytes":
                return base64.b64decode(content, validate=True)
            case "dict":
                return {self.unpack(key): self.unpack(value) for key, value in content}
            case "range":
                return range(*content)
            case "iterator":
                return (item for item in [self.unpack(item) for item in content])
            case "function" if self.borrow:
                return self.borrow(int(content))
            case "other":
                return other(*content)
        if kind in BUILD:
            return BUILD[kind]([self.unpack(item) for item in content])
        raise ValueError(f"unknown kind {kind!r}")


KEYS, VALUES, ITEMS = type({}.keys()), type({}.values()), type({}.items())
SEQUENCES: dict[str, Any] = {
    "tuple": tuple,
    "list": list,  # of a class made from list
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "keys": KEYS,
    "values": VALUES,
    "items": ITEMS,
}
BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "keys": lambda items: dict.fromkeys(items).keys(),
    "values": lambda items: dict(enumerate(items)).values(),
    "items": lambda items: dict(items).items(),
}


def _described(value: Any) -> list[str]:
    try:
        text = repr(value)
    except Exception:  # an object may refuse
        text = f"a {type(value).__name__}"
    return [type(value).__name__, text[:TEXT]]


def _read_array(content: Any) -> np.ndarray:
    dtype, shape, text = content
    dtype = np.dtype(str(dtype))
    if dtype.kind not in "biufcSU":
        raise ValueError(f"an array of {dtype}")
    raw = base64.b64decode(text, validate=True)
    shape = [int(size) for size in shape]
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    if dtype.itemsize == 0:  # texts without a character
        dtype, raw = np.dtype("U1"), bytes(4 * min(math.prod(shape), LARGEST_MESSAGE))
    return np.frombuffer(raw, dtype).reshape(shape).copy()


def _read_tensor(content: Any) -> Any:
    import torch

    dtype, requires_grad, array = content
    if dtype not in TORCH_DTYPES:
        raise ValueError(f"a tensor of {dtype!r}")
    tensor = torch.from_numpy(_read_array(array)).to(getattr(torch, dtype))
    return tensor.requires_grad_(bool(requires_grad))


def _read_generator(state: Any) -> np.random.Generator:
    if state["bit_generator"] not in GENERATORS:
        raise ValueError("an unknown random generator")
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)


class Wire:
    """Messages over a socket: eight bytes of length, then JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, message: dict[str, Any], patience: float | None = 60.0) -> None:
        """Send a message, or raise `Gone` if the other side does not take it.

        Raises
        ------
        ValueError
            If it is too large or holds a number of too many digits.
        """
        body = json.dumps(message).encode()
        if len(body) > LARGEST_MESSAGE:
            raise ValueError(f"{len(body):,} bytes of data are more than an answer may have")
        self.connection.settimeout(patience)
        try:
            self.connection.sendall(struct.pack("!Q", len(body)) + body)
        except OSError as error:
            raise Gone(str(error)) from None

    def receive(
        self, watch: Callable[[], None] | None = None, every: float = 0.05
    ) -> dict[str, Any]:
        """Return the next message; `watch` is called while waiting and may raise."""
        (length,) = struct.unpack("!Q", self._read(8, watch, every))
        if length > LARGEST_MESSAGE:
            raise Gone(f"a message of {length:,} bytes")
        try:
            message = json.loads(self._read(length, watch, every))
        except (ValueError, RecursionError):
            raise Gone("no message") from None
        if not isinstance(message, dict):
            raise Gone("no message")
        return message

    def _read(self, length: int, watch: Callable[[], None] | None, every: float) -> bytes:
        self.connection.settimeout(every if watch else None)
        pieces = bytearray()
        while len(pieces) < length:
            try:
                piece = self.connection.recv(min(length - len(pieces), 2**20))
            except TimeoutError:
                watch()
                continue
            except OSError as error:
                raise Gone(str(error)) from None
            if not piece:
                raise Gone("the other side has ended")
            pieces += piece
        return bytes(pieces)
