"""A new chapter works from its first minute, and a chapter that departs from the form is told."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import build_slides  # noqa: E402
import new_chapter  # noqa: E402
import slide_markdown  # noqa: E402

import notebooks as tool  # noqa: E402


@pytest.fixture
def course(tmp_path):
    """Make a small course: the helper package, the plan, and one chapter's name."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "utils", tmp_path / "utils", ignore=skip)
    for folder in ("notebooks/solutions", "tests/checks", "lessons", "book"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "book/chapters.yml", tmp_path / "book")
    (tmp_path / "notebooks/20_debugging.ipynb").touch()
    return tmp_path


def python(course, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=course,
        env=os.environ | {"PYTHONPATH": str(course), "COURSE_RECORD": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_made_runs_and_keeps_to_the_conventions(course, monkeypatch):
    files = new_chapter.create("distillation", root=course)
    chapter, solutions, _, tests, lecture, plan = files
    monkeypatch.setattr(slide_markdown, "ROOT", course)
    assert chapter.name == "21_distillation.ipynb"
    last = yaml.safe_load(plan.read_text())[-1]["chapters"][-1]
    assert (last["number"], last["file"]) == (21, "21_distillation")

    run = (
        "import sys; sys.path.insert(0, sys.argv[1]); import notebooks; from pathlib import Path\n"
    )
    run += "for path in sys.argv[2:]: notebooks.run(Path(path))"
    python(course, "-c", run, str(ROOT / "scripts"), str(chapter), str(solutions))
    assert tool.problems(chapter) == []
    assert tool.problems(solutions) == []
    assert tool.chapter_problems(nbformat.read(chapter, 4), chapter) == []
    assert "not attempted yet" in chapter.read_text()
    assert solutions.read_text().count("✓") == 3
    assert "18 passed" in python(course, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests))
    assert len(build_slides.read(lecture).slides) == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no name for a chapter"),
        ("Two Words", "no name for a chapter"),
        ("../evil", "no name for a chapter"),
        ("1_short", "no name for a chapter"),
        ("20_other", "number 20 is taken by 20_debugging"),
        ("debugging", "there is a chapter 20_debugging"),
    ],
)
def test_a_bad_name_is_told_and_nothing_is_written(course, name, words):
    before = sorted(course.rglob("*"))
    with pytest.raises(ValueError, match=words):
        new_chapter.create(name, root=course)
    assert sorted(course.rglob("*")) == before


def test_files_that_are_there_are_not_written_over(course):
    (course / "lessons/21_distillation.md").write_text("mine")
    with pytest.raises(ValueError, match="there already"):
        new_chapter.create("distillation", root=course)
    assert (course / "lessons/21_distillation.md").read_text() == "mine"
    assert not (course / "notebooks/21_distillation.ipynb").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# 21. Distillation", "# Distillation", "does not open with"),
        ("*Which one question", "Which one question", "does not open with"),
        ("You will be able to", "Readers can", "able to"),
        ("## Summary", "## Conclusion", "does not close with"),
        ("## 21.1 One idea", "## 21.2 One idea", "has sections numbered"),
        ("Hint: variances", "variances", "no stub"),
        ("checks.distillation_second(distillation_second)", "pass", "is not followed by"),
    ],
)
def test_a_chapter_that_departs_from_the_form_is_told(course, old, new, words):
    chapter = new_chapter.create("distillation", root=course)[0]
    notebook = nbformat.read(chapter, 4)
    changed = [cell for cell in notebook.cells if old in cell.source]
    assert changed
    for cell in changed:
        cell.source = cell.source.replace(old, new)
    found = tool.chapter_problems(notebook, chapter)
    assert len(found) == 1
    assert words in found[0]


def test_too_few_exercises_and_missing_solutions_are_told(course):
    chapter, solutions = new_chapter.create("distillation", root=course)[:2]
    notebook = nbformat.read(chapter, 4)
    solutions.unlink()
    stub = next(cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", []))
    stub.metadata["tags"] = []
    found = " / ".join(tool.chapter_problems(notebook, chapter))
    assert "has 2 exercises" in found
    assert "is missing" in found
