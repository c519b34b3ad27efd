"""What students hand in: found, read without trust, and cleaned.

A notebook is a file that a student may have edited in any way. Of it, only the cells' type and
text are taken over; outputs, metadata and checks are not. The cells that nbgrader grades are
marked anew, so it makes no difference whether they were altered, copied or deleted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nbformat

from grader.wire import clean

LARGEST = 50 * 2**20  # bytes of a notebook, its figures included
MOST_CELLS = 2_000
# nbgrader looks students up by patterns and paths: no *, no [, no slash.
STUDENT = r"\w[\w.@+-]*"


class Unreadable(ValueError):
    """A notebook that cannot be graded, for the reason given."""


@dataclass(frozen=True)
class Submission:
    """What was found for one student.

    Attributes
    ----------
    student : str
    path : Path or None
    problem : str
        Why there is nothing to grade, if so.
    """

    student: str
    path: Path | None
    problem: str = ""


@dataclass(frozen=True)
class Exercise:
    """An exercise: its name, its number in the chapter, its points."""

    name: str
    number: str
    points: float

    @property
    def check_id(self) -> str:
        """Return the name under which nbgrader keeps its grade."""
        return f"{self.name}-check"


@dataclass(frozen=True)
class Cleaned:
    """A student's notebook, cleaned.

    Attributes
    ----------
    notebook : NotebookNode
        With the cells that nbgrader looks for, for its records and the feedback.
    code : list of str
        The code cells without the checks.
    above : dict of str to int
        How many of these stand above each exercise's check.
    """

    notebook: nbformat.NotebookNode
    code: list[str]
    above: dict[str, int]


def find(folder: Path, chapter: str) -> list[Submission]:
    """Return one entry for each student.

    Parameters
    ----------
    folder : Path
        Holds STUDENT.ipynb, or STUDENT/CHAPTER/*.ipynb as nbgrader has it, or STUDENT/*.ipynb.
    chapter : str
        Such as "04_attention"; a folder "04" or "4" means the same.

    Raises
    ------
    ValueError
        If there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the one that holds the submissions")
    found: dict[str, list[Path]] = {}
    problems: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            student = entry.name
            paths, problem = _in_student_folder(entry, chapter)
            found.setdefault(student, []).extend(paths)
            if problem:
                problems[student] = problem
        elif entry.suffix == ".ipynb":
            found.setdefault(entry.stem, []).append(entry)
    if not found:
        raise ValueError(
            f"{folder} holds no submissions: there should be STUDENT.ipynb for each student, or "
            f"folders STUDENT/{chapter} with a notebook in each"
        )
    return [_one(name, paths, problems.get(name, "")) for name, paths in sorted(found.items())]


def _in_student_folder(folder: Path, chapter: str) -> tuple[list[Path], str]:
    if folder.is_symlink():
        return [], "the folder is a link to another place, which is not followed"
    number = chapter[:2]
    inside = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    of_chapter = [p for p in inside if p.is_dir() and p.name in (chapter, number, str(int(number)))]
    if any(path.is_symlink() for path in of_chapter):
        return [], "the folder is a link to another place, which is not followed"
    if len(of_chapter) > 1:
        names = " and ".join(path.name for path in of_chapter)
        return [], f"there are two folders for this chapter: {clean(names)}"
    place = of_chapter[0] if of_chapter else folder
    notebooks = [
        p for p in sorted(place.iterdir()) if p.suffix == ".ipynb" and p.name[0] not in "._"
    ]
    by_name = [path for path in notebooks if path.stem == chapter]
    notebooks = by_name or notebooks
    return notebooks, "" if notebooks else f"there is no notebook for chapter {number}"


def _one(student: str, paths: list[Path], problem: str) -> Submission:
    if not re.fullmatch(STUDENT, student):
        problem = (
            "the name cannot be one: use letters, digits and . _ - @ + only, beginning with a "
            "letter or digit"
        )
    elif len(paths) > 1:
        names = " and ".join(clean(path.name, 80) for path in paths[:3])
        problem = f"there are {len(paths)} notebooks ({names}): leave one"
    elif paths and (paths[0].is_symlink() or not paths[0].is_file()):
        problem = "the notebook is a link or no ordinary file, and is not read"
    return Submission(clean(student, 80), None if problem else paths[0], problem)


def read(path: Path) -> list[tuple[str, str, str]]:
    """Return (type, text, nbgrader's name or "") of a notebook's cells, and nothing else of it.

    Raises
    ------
    Unreadable
        If it is no notebook.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise Unreadable(f"the file is larger than {LARGEST / 2**20:.0f} MB")
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"the file is damaged: it is no JSON ({clean(error, 100)})") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("the file is no notebook of today's format: save it anew in JupyterLab")
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"the notebook has {len(cells):,} cells; {MOST_CELLS:,} are read at most")
    return [_plain(cell) for cell in cells if isinstance(cell, dict)]


def _plain(cell: dict[str, Any]) -> tuple[str, str, str]:
    kind, source = cell.get("cell_type"), cell.get("source")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    source = source if isinstance(source, str) else ""
    source = source.encode("utf-8", "replace").decode("utf-8")
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = marks.get("grade_id") if isinstance(marks, dict) else None
    return (
        kind if kind in ("code", "markdown") else "raw",
        source,
        name if isinstance(name, str) else "",
    )


def clean_copy(
    path: Path, exercises: list[Exercise], checks: dict[str, Any], texts: set[str]
) -> Cleaned:
    """Return a student's notebook with the checks in their places, as they were handed out.

    Instructors and students open it, and pages made of it, in a browser. So a text that was not
    handed out is shown as it was typed: nothing in it is formatted, and nothing is run.

    Parameters
    ----------
    path : Path
    exercises : list of Exercise
    checks : dict of str to cell
        The checks' cells as handed out, by the exercise's name.
    texts : set of str
        The texts that were handed out.

    Raises
    ------
    Unreadable
        If it is no notebook.
    """
    cells = read(path)
    places = {e.name: _place(cells, e) for e in exercises}  # (answer's index or None, check's)
    answers = {answer: name for name, (answer, _) in places.items() if answer is not None}
    order = sorted(exercises, key=lambda e: places[e.name][1])
    new: list[nbformat.NotebookNode] = []
    code: list[str] = []
    above: dict[str, int] = {}

    def put_checks(before: float) -> None:
        while order and places[order[0].name][1] < before:
            exercise = order.pop(0)
            above[exercise.name] = len(code)
            new.append(nbformat.from_dict(checks[exercise.name]))

    for index, (kind, source, grade_id) in enumerate(cells):
        put_checks(index)
        if any(_is_check(kind, source, grade_id, exercise) for exercise in exercises):
            continue
        if kind == "code":
            cell = nbformat.v4.new_code_cell(source)
        else:
            as_typed = f"<pre>{escape(source)}</pre>"
            cell = nbformat.v4.new_markdown_cell(source if source in texts else as_typed)
        if index in answers:
            cell.metadata["nbgrader"] = marks(answers[index])
        if kind == "code":
            code.append(source)
        new.append(cell)
    put_checks(len(cells) + 1)
    for number, cell in enumerate(new):
        cell["id"] = f"cell-{number}"
    return Cleaned(nbformat.v4.new_notebook(cells=new), code, above)


def marks(name: str, points: float | None = None) -> dict[str, Any]:
    """Return nbgrader's metadata of an answer, or with `points` of a check."""
    is_check = points is not None
    found = {"grade": is_check, "solution": not is_check, "locked": is_check, "task": False}
    found |= {"grade_id": name, "schema_version": 3}
    return found | ({"points": points} if is_check else {})


def _is_check(kind: str, source: str, grade_id: str, exercise: Exercise) -> bool:
    """Say whether a cell is, or was, the cell that checks an exercise."""
    line = rf"\s*checks\.{exercise.name}\({exercise.name}\);?\s*"
    return grade_id == exercise.check_id or (
        kind == "code" and bool(re.fullmatch(line, source)) and grade_id != exercise.name
    )


def _place(cells: list[tuple[str, str, str]], exercise: Exercise) -> tuple[int | None, float]:
    """Return where an exercise's answer stands, and where its check belongs: after which cell."""
    checks = [i for i, cell in enumerate(cells) if _is_check(*cell, exercise)]
    defines = re.compile(rf"^(?:def|class) {exercise.name}\b|^{exercise.name} *=", re.MULTILINE)
    code = [i for i, cell in enumerate(cells) if cell[0] == "code" and i not in checks]
    marked = [i for i in code if cells[i][2] == exercise.name]
    defining = [i for i in code if defines.search(cells[i][1])]
    here = [i for i in defining if not checks or i < checks[-1]]
    answer = next((group[-1] for group in (marked, here, defining) if group), None)
    if checks:
        return answer, checks[-1] - 0.5
    return answer, len(cells) if answer is None else answer + 0.5
