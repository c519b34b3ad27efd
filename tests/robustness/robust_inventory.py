"""What `utils` offers: every public function, class and method, found by walking the package."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import utils

# `checks` has tests of its own for any answer (tests/checks/test_any_answer.py); `widgets` shows
# things in a browser and has tests there (tests/site); `__main__` is a command line.
LEFT_OUT = ("utils.checks", "utils.widgets", "utils.data.__main__")
CALLED_BY_PYTHON = ("__call__", "__getitem__")


@dataclass(frozen=True)
class Public:
    """A public callable: `owner` is its class for a method, `function` what is called."""

    name: str  # such as "gpt.GPT.forward"
    function: Callable[..., Any]
    owner: type | None = None

    @property
    def signature(self) -> inspect.Signature:
        """The parameters, without `self` for methods."""
        try:
            signature = inspect.signature(self.function)
        except ValueError:  # an exception that says nothing of its arguments
            return inspect.Signature()
        if self.owner is None or inspect.ismethod(self.function):
            return signature
        parameters = list(signature.parameters.values())
        is_static = isinstance(inspect.getattr_static(self.owner, self.attribute), staticmethod)
        return signature.replace(parameters=parameters if is_static else parameters[1:])

    @property
    def attribute(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def takes(self) -> list[str]:
        """The names of the parameters."""
        return list(self.signature.parameters)


def modules() -> list[Any]:
    """Return the modules of `utils`, the package itself aside."""
    found = pkgutil.walk_packages(utils.__path__, "utils.")
    names = [module.name for module in found if not module.name.startswith(LEFT_OUT)]
    return [importlib.import_module(name) for name in names]


def inventory() -> dict[str, Public]:
    """Return every public callable that is defined in `utils`, by its name."""
    found: dict[str, Public] = {}
    for module in modules():
        short = module.__name__.removeprefix("utils.")
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                found |= _of_class(f"{short}.{name}", value)
            elif callable(value) and hasattr(value, "__name__"):
                found[f"{short}.{name}"] = Public(f"{short}.{name}", value)
    return found


def _of_class(name: str, kind: type) -> dict[str, Public]:
    """Return a class as what makes its objects, and those of its methods that it defines."""
    found = {name: Public(name, kind)}
    for attribute, raw in vars(kind).items():
        if attribute.startswith("_") and attribute not in CALLED_BY_PYTHON:
            continue
        if not isinstance(raw, classmethod | staticmethod) and not inspect.isfunction(raw):
            continue  # a property, a constant, a field
        if dataclasses.is_dataclass(kind) and attribute in kind.__dataclass_fields__:
            continue
        method = Public(f"{name}.{attribute}", getattr(kind, attribute), kind)
        found[method.name] = method
    return found
