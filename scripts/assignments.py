"""Hand out a chapter's exercises and grade what comes back, with nbgrader's records.

    python scripts/assignments.py make 04            or: make assignment CHAPTER=04
    python scripts/assignments.py grade 04 FOLDER    or: make grade CHAPTER=04 SUBMISSIONS=FOLDER

The first makes a student's notebook of a chapter. The second checks each notebook of a folder
behind walls, enters the points into nbgrader's gradebook, writes a page of feedback for each
student and a table of all grades. lessons/GRADING.md explains both, and what they protect from.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from grader.checker import best_walls, check_notebook
from grader.course import Course, NbgraderFailed, chapter_of
from grader.sandbox import MEANING, ROOT, Limits, Unavailable
from grader.submissions import Exercise, Submission, Unreadable, clean_copy, find
from grader.wire import clean

NO_WALLS = """\
Grading stopped: on this machine nothing would keep the students' code from your files.
{reasons}Grade in a container or a virtual machine: see "Where to grade" in lessons/GRADING.md.
If you would open these notebooks and run them yourself without a second thought, add TRUST=yes.\
"""


@dataclass
class Graded:
    """One student's results."""

    student: str
    points: dict[str, float]
    outcomes: dict[str, tuple[str, str]]
    problem: str = ""
    page: Path | None = None


def points_of(text: str) -> dict[str, float]:
    """Read "stable_softmax=2 linear_attention=3"."""
    found = {}
    for part in text.replace(",", " ").split():
        name, equals, number = part.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            equals = ""
        if not equals or not 0 < found[name] < 1000:
            raise ValueError(
                f"POINTS says {part!r}; write an exercise's name and a number above 0, as in "
                'POINTS="stable_softmax=2 linear_attention=3"'
            )
    return found


def make(chapter: Path, course: Course, points: dict[str, float]) -> None:
    """Make an assignment and say where it is."""
    released = course.make(chapter, points)
    exercises, _ = course.exercises(chapter)
    total = sum(exercise.points for exercise in exercises)
    print(f"Hand out {_short(released)}: {len(exercises)} exercises, {total:g} points.")


def grade(
    chapter: Path, submissions: list[Submission], course: Course, walls: str, seeds: list[int]
) -> list[Graded]:
    """Grade what was handed in, one notebook after the other; a bad one stops no other."""
    exercises, cells = course.exercises(chapter)
    texts = course.texts(chapter)
    results = []
    for submission in submissions:
        began = time.monotonic()
        graded = Graded(submission.student, {}, {}, submission.problem)
        if submission.path:
            try:
                work = clean_copy(submission.path, exercises, cells, texts)
                asked = [(e.name, work.above[e.name]) for e in exercises]
                asked.sort(key=lambda pair: pair[1])
                graded.outcomes = check_notebook(work.code, asked, walls, Limits(), seeds)
                graded.points, graded.page = course.record(
                    chapter, submission.student, work, graded.outcomes
                )
            except Unavailable:
                raise
            except (Unreadable, NbgraderFailed) as error:
                graded.problem = str(error)
            except Exception as error:  # a mistake of ours must not cost the others their grades
                graded.problem = f"the grader failed: {type(error).__name__}: {clean(error)}"
        results.append(graded)
        done = "not graded" if graded.problem else f"{sum(graded.points.values()):g} points"
        print(f"  {graded.student}: {done} ({time.monotonic() - began:.0f} s)", flush=True)
    return results


def write_table(path: Path, results: list[Graded], exercises: list[Exercise]) -> None:
    """Write one line for each student and exercise."""
    waiting = path.with_suffix(".part")
    with waiting.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["student", "exercise", "name", "points", "out_of", "status", "message"])
        for graded in results:
            for exercise in exercises:
                lost = "not graded", graded.problem
                status, message = graded.outcomes.get(exercise.name, lost)
                points = graded.points.get(exercise.name, 0.0)
                line = [graded.student, exercise.number, exercise.name, f"{points:g}"]
                line += [f"{exercise.points:g}", status, message]
                table.writerow(map(_cell, line))
    waiting.replace(path)


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def print_table(results: list[Graded], exercises: list[Exercise]) -> None:
    """Print the points of all."""
    width = max(len("student"), *(len(graded.student) for graded in results))
    columns = "".join(f"{exercise.number:>6}" for exercise in exercises)
    print(f"\n{'student':<{width}}{columns}{'total':>8}")
    for graded in results:
        line = "".join(
            f"{graded.points[e.name]:>6g}" if e.name in graded.points else f"{'–':>6}"
            for e in exercises
        )
        print(f"{graded.student:<{width}}{line}{sum(graded.points.values()):>8g}")
    full = "".join(f"{exercise.points:>6g}" for exercise in exercises)
    print(f"{'out of':<{width}}{full}{sum(e.points for e in exercises):>8g}")


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def choose_walls(trust: bool) -> str:
    """Return the walls to grade behind and say what they are, or stop where there are none."""
    if os.name != "posix":
        raise ValueError(
            "grading needs Linux or macOS; on Windows, run it in WSL or in a virtual machine"
        )
    walls, reasons = best_walls()
    if walls == "none" and not trust:
        said = "".join(f"({kind} walls: {clean(why)})\n" for kind, why in reasons.items())
        print(NO_WALLS.format(reasons=said), file=sys.stderr)
        sys.exit(1)
    print(f"The students' code is {MEANING[walls]}.", flush=True)
    return walls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make a student's notebook of a chapter")
    making.add_argument("--points", default="", help='such as "stable_softmax=2"')
    grading = commands.add_parser("grade", help="grade a folder of notebooks")
    for command in (making, grading):
        command.add_argument("chapter", help="its number, such as 04")
        command.add_argument("--out", type=Path, default=ROOT / "grading", help="course folder")
    grading.add_argument("submissions", help="folder of STUDENT.ipynb or STUDENT/CHAPTER/*.ipynb")
    grading.add_argument("--seed", type=int, help="check with inputs of this seed, too")
    grading.add_argument("--trust", action="store_true", help="grade without walls if need be")
    options = parser.parse_args()
    try:
        chapter = chapter_of(options.chapter)
        if options.command == "make":
            points = points_of(options.points)
            make(chapter, Course(options.out), points)
            return 0
        if not options.submissions.strip():
            raise ValueError("name the folder of submissions, as in SUBMISSIONS=folder")
        submissions = find(Path(options.submissions), chapter.stem)
        course = Course(options.out)
        if not course.released(chapter).exists():
            make(chapter, course, {})
        walls = choose_walls(options.trust)
        seeds = [0] if options.seed is None else [0, options.seed]
        results = grade(chapter, submissions, course, walls, seeds)
    except (ValueError, NbgraderFailed, Unavailable, OSError) as error:
        print(f"Stopped: {error}.", file=sys.stderr)
        return 1
    exercises, _ = course.exercises(chapter)
    table = course.folder / f"grades_{chapter.stem}.csv"
    write_table(table, results, exercises)
    print_table(results, exercises)
    for graded in results:
        if graded.problem:
            print(f"{graded.student} was not graded: {graded.problem}.")
    print(f"\nGrades: {_short(table)}")
    print(f"Feedback: {_short(course.folder / 'feedback')}{os.sep}STUDENT{os.sep}{chapter.stem}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
