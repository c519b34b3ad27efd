"""The course as nbgrader keeps it: the assignment, the records, the feedback.

A course folder has nbgrader's own layout. `source` and `release` hold the assignments, `cleaned`
the students' notebooks as they are graded (nbgrader calls this folder `submitted`; what was handed
in is never touched), `autograded` the same with the checks' verdicts, `feedback` a page for each
student, and gradebook.db the grades.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import nbformat

from grader.sandbox import ROOT
from grader.submissions import Cleaned, Exercise, marks
from grader.wire import clean
from notebooks import exercises_of

CHAPTERS = ROOT / "notebooks"
CONFIG = """\
# How nbgrader treats this course. Written by scripts/assignments.py and read by nbgrader's own
# commands too, when they are run in this folder. Careful: `nbgrader autograde` runs what students
# wrote with all your rights; `make grade` does not.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "language-models"
c.CourseDirectory.submitted_directory = "cleaned"
# The stubs are the chapter's own, with their hints, so there are no solutions to be cut out.
c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors." + name
    for name in (
        "IncludeHeaderFooter LockCells ClearOutput CheckCellMetadata ComputeChecksums SaveCells "
        "ClearHiddenTests ComputeChecksums CheckCellMetadata"
    ).split()
]
c.HTMLExporter.exclude_input_prompt = True
c.HTMLExporter.exclude_output_prompt = True
"""
HEADING = re.compile(r"^## Exercises\s*$", re.MULTILINE)
HIDDEN = """
### BEGIN HIDDEN TESTS
assert checks.{name}({name}).passed
### END HIDDEN TESTS"""


class NbgraderFailed(RuntimeError):
    """An nbgrader command did not come to its end."""


def chapters() -> dict[int, Path]:
    """Return the chapters' notebooks by number."""
    return {int(path.name[:2]): path for path in sorted(CHAPTERS.glob("[0-9][0-9]_*.ipynb"))}


def chapter_of(text: str) -> Path:
    """Return a chapter's notebook.

    Parameters
    ----------
    text : str
        Its number or its name: "04", "4", "04_attention".

    Raises
    ------
    ValueError
        If there is no such chapter; the message says which there are.
    """
    present = chapters()
    match = re.fullmatch(r"(\d{1,2})(_\w+)?(\.ipynb)?", text.strip())
    path = present.get(int(match[1])) if match else None
    if path is None or (match[2] and path.stem != match[1] + match[2]):
        raise ValueError(
            f"there is no chapter {text!r}; give one of these numbers, as in CHAPTER=04: "
            + ", ".join(found.stem for found in present.values())
        )
    return path


def make_source(chapter: Path, points: dict[str, float]) -> nbformat.NotebookNode:
    """Turn a chapter into the source of an nbgrader assignment.

    The stubs become answers, and the cells that check them become locked tests.

    Parameters
    ----------
    chapter : Path
    points : dict of str to float
        What an exercise counts, where that is not 1.

    Raises
    ------
    ValueError
        If the chapter has no exercises, or not those that `points` names.
    """
    notebook = nbformat.read(chapter, as_version=4)
    notebook.metadata.pop("widgets", None)  # the state of what the outputs showed
    names = []
    for stub, check, name in exercises_of(notebook):
        if check is None:
            raise ValueError(
                f"{chapter.name}: the exercise that begins {name[:40]!r} is not "
                "followed by a cell with its check alone, such as checks.name(name)"
            )
        names.append(name)
        stub.metadata["nbgrader"] = marks(name)
        check.metadata["nbgrader"] = marks(f"{name}-check", points.get(name, 1.0))
        check.source += HIDDEN.format(name=name)
    if not names:
        raise ValueError(f"{chapter.name} has no exercises, so there is nothing to assign")
    if strange := set(points) - set(names):
        raise ValueError(
            f"chapter {chapter.name} has no exercise {', '.join(sorted(strange))}; it has "
            + ", ".join(names)
        )
    return notebook


class Course:
    """A folder with an assignment for each chapter that was handed out, and its grades."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if not self.folder.exists():
            self.folder.mkdir(parents=True, mode=0o700)  # grades are nobody else's business
        config = self.folder / "nbgrader_config.py"
        if not config.exists():
            config.write_text(CONFIG, encoding="utf-8")

    def nbgrader(self, **settings: Any) -> Any:
        """Return nbgrader's interface to this folder."""
        import logging

        from nbgrader.apps import NbGraderAPI
        from traitlets.config import Config, PyFileConfigLoader

        # A new gradebook is made by a command of alembic's, which lies beside this Python.
        tools = str(Path(sys.executable).parent)
        if tools not in os.environ.get("PATH", "").split(os.pathsep):
            os.environ["PATH"] = os.pathsep.join([tools, os.environ.get("PATH", "")])
        logging.getLogger("traitlets").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="nbgrader")  # of SQLAlchemy, about its sessions
        config = PyFileConfigLoader("nbgrader_config.py", path=str(self.folder)).load_config()
        config.CourseDirectory.root = str(self.folder)
        for section, values in settings.items():
            config[section].update(values)
        return NbGraderAPI(config=Config(config), log_level=logging.ERROR)

    def make(self, chapter: Path, points: dict[str, float]) -> Path:
        """Make the assignment of a chapter and return the notebook to hand out."""
        source = self.folder / "source" / chapter.stem / chapter.name
        notebook = make_source(chapter, points)
        source.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, source)
        _succeed(self.nbgrader().generate_assignment(chapter.stem))
        return self.released(chapter)

    def released(self, chapter: Path) -> Path:
        """Return where the notebook to hand out is, or will be."""
        return self.folder / "release" / chapter.stem / chapter.name

    def exercises(self, chapter: Path) -> tuple[list[Exercise], dict[str, Any]]:
        """Return the exercises that were handed out, and the cells that check them."""
        released = nbformat.read(self.released(chapter), as_version=4)
        tests = [c for c in released.cells if c.metadata.get("nbgrader", {}).get("grade")]
        found, cells = [], {}
        for number, cell in enumerate(tests, 1):
            name = cell.metadata.nbgrader.grade_id.removesuffix("-check")
            points = float(cell.metadata.nbgrader.points)
            found.append(Exercise(name, f"{int(chapter.name[:2])}.{number}", points))
            cells[name] = cell
        return found, cells

    def texts(self, chapter: Path) -> set[str]:
        """Return the cells that were handed out."""
        return {c.source for c in nbformat.read(self.released(chapter), as_version=4).cells}

    def record(
        self, chapter: Path, student: str, work: Cleaned, outcomes: dict[str, tuple[str, str]]
    ) -> tuple[dict[str, float], Path]:
        """Enter the outcomes into the gradebook and write the student's page of feedback.

        Parameters
        ----------
        chapter : Path
        student : str
        work : Cleaned
        outcomes : dict of str to (str, str)
            Status and message by the exercise's name.

        Returns
        -------
        points : dict of str to float
            By the exercise's name, as the gradebook has them: what an instructor has entered by
            hand stays.
        page : Path

        Raises
        ------
        NbgraderFailed
            If nbgrader does not take the notebook.
        """
        from nbgrader.preprocessors import AssignLatePenalties, GetGrades, SaveAutoGrades

        place = self.folder / "cleaned" / student / chapter.stem / chapter.name
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(work.notebook, place)

        def enter_outcomes(notebook: Any, resources: Any) -> tuple[Any, Any]:
            return _with_outcomes(notebook, outcomes), resources

        # nbgrader's own command but for one step: it would run the notebook here.
        steps = [enter_outcomes, SaveAutoGrades, AssignLatePenalties]
        grading = self.nbgrader(Autograde={"autograde_preprocessors": steps})
        _succeed(grading.autograde(chapter.stem, student))
        handed_out = self.texts(chapter)

        def shorten(notebook: Any, resources: Any) -> tuple[Any, Any]:
            return _only_exercises(notebook, handed_out), resources

        telling = self.nbgrader(GenerateFeedback={"preprocessors": [GetGrades, shorten]})
        _succeed(telling.generate_feedback(chapter.stem, student))
        page = self.folder / "feedback" / student / chapter.stem / f"{chapter.stem}.html"
        return self.points(chapter, student), page

    def points(self, chapter: Path, student: str) -> dict[str, float]:
        """Return a student's points by the exercise's name."""
        from nbgrader.api import Gradebook

        with Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}") as gradebook:
            notebook = gradebook.find_submission_notebook(chapter.stem, chapter.stem, student)
            return {grade.name.removesuffix("-check"): grade.score for grade in notebook.grades}


def _succeed(result: dict[str, Any]) -> None:
    if not result["success"]:
        # The reason stands at the end of a traceback in the log; nbgrader's own error names none.
        reasons = re.findall(r"^ +([\w.]+: .+)$", result.get("log") or "", re.MULTILINE)
        reasons = reasons or (result.get("error") or "it did not say why").strip().splitlines()
        raise NbgraderFailed(f"nbgrader failed: {clean(reasons[-1], 300)}")


def _with_outcomes(notebook: Any, outcomes: dict[str, tuple[str, str]]) -> Any:
    """Give the checks' cells, and no others, the outputs from which nbgrader takes its grades."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if not cell.metadata.get("nbgrader", {}).get("grade"):
            continue
        status, message = outcomes[cell.metadata.nbgrader.grade_id.removesuffix("-check")]
        if status == "passed":
            output = nbformat.v4.new_output("stream", name="stdout", text=f"✓ {message}\n")
        else:
            lines = textwrap.wrap(f"✗ {message}", 88)
            output = nbformat.v4.new_output("error", ename=status, evalue=message, traceback=lines)
        cell.outputs.append(output)
    return notebook


def _only_exercises(notebook: Any, handed_out: set[str]) -> Any:
    """Leave out of a page of feedback what the chapter says above its exercises."""
    begins = [i for i, cell in enumerate(notebook.cells) if HEADING.search(cell.source)]
    graded = [i for i, cell in enumerate(notebook.cells) if cell.metadata.get("nbgrader")]
    if begins and begins[-1] < min(graded, default=0):
        first = begins[-1]
        own = [cell for cell in notebook.cells[:first] if cell.source not in handed_out]
        opening = notebook.cells[first]
        opening.source = opening.source[HEADING.search(opening.source).start() :]
        notebook.cells = own + notebook.cells[first:]
    return notebook
