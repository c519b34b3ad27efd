"""Begin a new chapter: every file that one needs, small, working, and in its place.

    python scripts/new_chapter.py distillation --title "Distillation"    or: make chapter NAME=...

The number is the next one, unless the name has one (21_distillation). What is made is a chapter
with one idea, three exercises with checks, their solutions, the tests of the checks and a lecture,
all of which pass `make test` once the notebooks have been run. Then it is yours to rewrite.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import notebooks as tool

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).resolve().parent / "chapter_template"


def numbered(name: str, root: Path) -> tuple[int, str]:
    """Return the chapter's number and its name without one.

    Raises
    ------
    ValueError
        If the name is not made of lower-case words, or the number or the name is taken.
    """
    match = re.fullmatch(r"(?:(\d\d)_)?([a-z][a-z0-9]*(?:_[a-z0-9]+)*)", name)
    if not match:
        raise ValueError(
            f"{name!r} is no name for a chapter: use lower-case words joined by underscores, "
            "such as distillation or 21_distillation"
        )
    present = {path.name[:2]: path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    number = match[1] or f"{max(map(int, present), default=-1) + 1:02d}"
    if number in present:
        raise ValueError(f"number {number} is taken by {present[number]}: choose another or none")
    if taken := [stem for stem in present.values() if stem[3:] == match[2]]:
        raise ValueError(f"there is a chapter {taken[0]} already: choose another name")
    return int(number), match[2]


def create(name: str, title: str | None = None, root: Path = ROOT) -> list[Path]:
    """Write a new chapter's files and enter it into the plan; return the files.

    Parameters
    ----------
    name : str
        Such as "distillation" or "21_distillation".
    title : str, optional
        Without it, the name with spaces.
    root : Path
        The course's folder.

    Raises
    ------
    ValueError
        If the name is no good or taken; nothing is written then.
    """
    number, words = numbered(name, root)
    title = title or words.replace("_", " ").capitalize()
    file = f"{number:02d}_{words}"
    values = {"NUMBER2": f"{number:02d}", "NUMBER": str(number), "TITLE": title}
    values |= {"FILE": file, "PREFIX": words}
    targets = {
        "chapter.py.txt": root / f"notebooks/{file}.ipynb",
        "solutions.py.txt": root / f"notebooks/solutions/{file}.ipynb",
        "checks.py.txt": root / f"utils/checks/ch{number:02d}.py",
        "test_checks.py.txt": root / f"tests/checks/test_ch{number:02d}.py",
        "lecture.md.txt": root / f"lessons/{file}.md",
    }
    if present := [path for path in targets.values() if path.exists()]:
        raise ValueError(f"{present[0].relative_to(root)} is there already: remove it first")
    for source, target in targets.items():
        text = (TEMPLATE / source).read_text()
        for key, value in values.items():
            text = text.replace(key, value)
        if target.suffix == ".ipynb":
            tool.build_text(text, target)
        else:
            target.write_text(text)
    plan = root / "book/chapters.yml"
    entry = f"    - {{number: {number}, file: {file}, short: {title}, needs: [{number - 1}]}}\n"
    plan.write_text(plan.read_text().rstrip() + "\n" + entry)
    return [*targets.values(), plan]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="such as distillation, or 21_distillation")
    parser.add_argument("--title", help="as it stands at the head of the chapter")
    options = parser.parse_args()
    try:
        files = create(options.name, options.title or None)
    except ValueError as error:
        print(f"No chapter was made: {error}.", file=sys.stderr)
        return 1
    for path in files:
        print(path.relative_to(ROOT))
    chapter, solutions = (path.relative_to(ROOT) for path in files[:2])
    print(f"\nRun them:   .venv/bin/python scripts/notebooks.py run {chapter} {solutions}")
    print("Check them: make lint, and when all is written make test")
    print("The website takes chapters by number from book/_toc.yml: see that yours is matched.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
