"""Which exercises are done: kept in a folder on the reader's own machine, shown chapter by chapter.

One small file per exercise holds what its check last said. Kernels that run at the same time
therefore never write to the same file, and a damaged one costs one exercise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.checks.engine import MARKS, Result

if TYPE_CHECKING:
    import ipywidgets

WIDTH = 10  # characters of a bar in the text


@dataclass(frozen=True)
class Progress:
    """What is done; a notebook shows it as a widget, a terminal and the website as text.

    Attributes
    ----------
    chapters : dict of int to dict of str to str
        Per chapter and exercise: "passed", "failed" or "not attempted".
    detailed : bool
        Whether the text names the exercises.
    """

    chapters: dict[int, dict[str, str]]
    detailed: bool = False

    def __repr__(self) -> str:
        lines = []
        for number, exercises in self.chapters.items():
            done, total = _passed(exercises), len(exercises)
            bar = "█" * round(WIDTH * done / total) + "░" * (WIDTH - round(WIDTH * done / total))
            lines.append(f"Chapter {number:2}  {bar}  {done} of {total}")
            if self.detailed:
                lines += [f"    {MARKS[status]} {name}" for name, status in exercises.items()]
        done = sum(map(_passed, self.chapters.values()))
        total = sum(map(len, self.chapters.values()))
        if len(self.chapters) > 1:
            lines.append(f"Together    {done} of {total} exercises")
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.widget()._repr_mimebundle_(), "text/plain": repr(self)}

    def widget(self) -> ipywidgets.VBox:
        """Return a bar per chapter, with its exercises beside it and a button to look again."""
        import ipywidgets

        rows = ipywidgets.VBox(list(map(_row, self.chapters, self.chapters.values())))
        again = ipywidgets.Button(
            description="Look again", tooltip="Read anew which exercises have passed"
        )

        def refresh(_: ipywidgets.Button) -> None:
            now = {number: _statuses(exercises) for number, exercises in self.chapters.items()}
            rows.children = list(map(_row, now, now.values()))

        again.on_click(refresh)
        return ipywidgets.VBox([rows, again])


def progress(names: Callable[[int | None], list[str]], chapter: int | None = None) -> Progress:
    """Return what is done in one chapter or, without one, in all of them.

    Parameters
    ----------
    names : callable
        Gives the names of a chapter's checks; `utils.checks.progress` passes its own.
    chapter : int, optional

    Raises
    ------
    ValueError
        If the chapter has no exercises.
    """
    numbers = range(100) if chapter is None else [chapter]
    found = {number: _statuses(names(number)) for number in numbers if names(number)}
    if not found:
        raise ValueError(
            f"there are no exercises in a chapter {chapter!r}; give a number such as 4, "
            "or none for all chapters"
        )
    return Progress(found, detailed=chapter is not None)


def record(result: Result) -> None:
    """Keep what a check said, if a reader is at work; what has passed once stays passed.

    Nothing is written outside a notebook, from the folder of solutions, with COURSE_RECORD=0, or
    for a stub nobody touched. A folder that cannot be written to is no reason to stop.
    """
    place = _folder()
    if place is None or result.status == "not attempted" or not _at_work():
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        if _read(place / result.name) != "passed":
            (place / result.name).write_text(result.status, encoding="utf-8")
    except OSError:
        pass


def forget(names: list[str]) -> None:
    """Take back what is known of these exercises."""
    place = _folder()
    for name in names if place else []:
        (place / name).unlink(missing_ok=True)


def _folder() -> Path | None:
    """Return where progress is kept: beside the course's data, or nowhere if COURSE_RECORD is 0."""
    from utils.data.store import cache_folders

    if os.environ.get("COURSE_RECORD") == "0":
        return None
    for cache in cache_folders():
        existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
        if os.access(existing, os.W_OK):
            return cache / "progress"
    return None


def _at_work() -> bool:
    """Say whether this is a notebook's kernel, and not one that runs the solutions."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None and Path.cwd().name != "solutions"


def _statuses(names: list[str] | dict[str, str]) -> dict[str, str]:
    place = _folder()
    return {name: _read(place / name) if place else "not attempted" for name in names}


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    return text if text in MARKS else "not attempted"


def _passed(exercises: dict[str, str]) -> int:
    return sum(status == "passed" for status in exercises.values())


def _row(number: int, exercises: dict[str, str]) -> ipywidgets.HBox:
    import ipywidgets

    done = _passed(exercises)
    marked = [f"{MARKS[status]}&nbsp;{escape(name)}" for name, status in exercises.items()]
    return ipywidgets.HBox(
        [
            ipywidgets.IntProgress(
                value=done,
                max=len(exercises),
                description=f"Chapter {number}",
                bar_style="success" if done == len(exercises) else "",
            ),
            ipywidgets.HTML(f"{done} of {len(exercises)}: {', '.join(marked)}"),
        ]
    )
