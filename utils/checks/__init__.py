"""Checks for the exercises: `checks.NAME(your_function)` says whether it is right.

Each chapter's checks live in a module of their own (`ch01`, `ch04`, ...) and are found here
by name, so that a notebook needs only `from utils import checks`. `checks.names()` lists them,
`checks.progress()` shows which of them have passed.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from utils.checks import ledger as _ledger
from utils.checks.engine import Check, Result

__all__ = ["Check", "Result", "forget_progress", "names", "progress"]


@cache
def _registry() -> dict[str, Check]:
    """Import every chapter's module and collect its checks by name."""
    found: dict[str, Check] = {}
    for module_info in pkgutil.iter_modules(__path__):
        if not module_info.name.startswith("ch"):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, Check) and value.module == module.__name__:
                if value.name in found:
                    raise RuntimeError(
                        f"two checks are called {value.name!r}: "
                        f"in {found[value.name].module} and in {value.module}"
                    )
                found[value.name] = value
    return found


def names(chapter: int | None = None) -> list[str]:
    """Return the names of all checks, or of one chapter's."""
    suffix = "" if chapter is None else f".ch{chapter:02d}"
    return [name for name, check in _registry().items() if check.module.endswith(suffix)]


def progress(chapter: int | None = None) -> _ledger.Progress:
    """Show which exercises have passed, in one chapter or in all.

    It is kept on this machine only, in the folder `progress` beside the course's data.

    Parameters
    ----------
    chapter : int, optional
        Without it, one line per chapter.

    Returns
    -------
    Progress
        A notebook shows it as a widget; its text says the same.

    Raises
    ------
    ValueError
        If the chapter has no exercises.
    """
    return _ledger.progress(names, chapter)


def forget_progress(chapter: int | None = None) -> None:
    """Take back that exercises have passed, in one chapter or in all; answers stay as they are."""
    _ledger.forget(names(chapter))


def __getattr__(name: str) -> Any:
    """Find a check by its name (PEP 562)."""
    if name.startswith("_"):
        raise AttributeError(f"module 'utils.checks' has no attribute {name!r}")
    try:
        return _registry()[name]
    except KeyError:
        raise AttributeError(f"there is no check called {name!r}; see checks.names()") from None


def __dir__() -> list[str]:
    return sorted([*__all__, *_registry()])
