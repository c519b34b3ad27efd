"""Every chapter has a lecture, and every lecture what a lecturer is promised in lessons/README.md.

`build_slides.read` refuses minutes outside 45 to 60 (unless `short: true`), sections that do not
add up to them, and a slide without notes, so that reading a lecture without an error covers those.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_slides  # noqa: E402
from slide_markdown import LessonError, Renderer  # noqa: E402

CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LECTURES = sorted(path.stem for path in build_slides.LESSONS.glob("[0-9][0-9]_*.md"))
PLAN = [
    "What they should be able to do afterwards",
    "Live-coding plan",
    "Board work",
    "Two questions to the room",
    "Common misconceptions",
    "If time is short, if time is left",
]
# In the plan: the question in bold, then the section of the slides in which it is asked.
QUESTION = re.compile(r"<p><strong>.+?</strong>([^<]*)")
# On the slides: a question, then something that waits for the next key.
ANSWERED = re.compile(r'class="question".*class="(answer )?fragment', re.S)


def lacking(lesson: build_slides.Lesson) -> list[str]:
    """Say what a lecture's plan promises and the lecture does not keep."""
    found = []
    _, *parts = re.split(r"<h2>(.+?)</h2>", lesson.plan)
    if parts[::2] != PLAN:
        return [f"the plan's parts are {parts[::2]}"]
    asked = parts[2 * PLAN.index("Two questions to the room") + 1]
    questions = QUESTION.findall(" ".join(asked.split()))
    if len(questions) != 2:
        found.append(f"{len(questions)} questions to the room, in bold, instead of two")
    renderer = Renderer(lesson.meta["notebook"])
    slides = {
        renderer.inline(section.title): "".join(slide.body for slide in section.slides)
        for section in lesson.sections
    }
    for after in questions:
        section = re.match(r" \(section “(.+?)”\)", after)
        if not section or section[1] not in slides:
            found.append(f"a question is in no section of the slides: {after[:60]!r}")
        elif not ANSWERED.search(slides[section[1]]):
            found.append(f"the section {section[1]} has no question with an answer after it")
    return found


def test_every_chapter_has_a_lecture_and_every_lecture_a_chapter():
    assert CHAPTERS
    assert LECTURES == CHAPTERS


@pytest.mark.parametrize("name", LECTURES)
def test_a_lecture_keeps_what_its_plan_promises(name):
    lesson = build_slides.read(build_slides.LESSONS / f"{name}.md")
    assert lesson.meta["notebook"] == name
    assert not lacking(lesson)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ((r"## Board work\n", r""), "the plan's parts"),
        ((r"\*\*(Which of three programs.+?)\*\*", r"\1"), "1 questions to the room"),
        ((r'\(section "Masks"\)', r'(section "Marks")'), "in no section of the slides"),
        ((r'\(section "Masks"\)', r""), "in no section of the slides"),
        ((r"\{question\}", r"{aside}"), "no question with an answer"),
        ((r"\{(answer|step)\}", r"{aside}"), "no question with an answer"),
    ],
)
def test_a_lecture_that_keeps_less_is_found(change, complaint, tmp_path):
    text = (build_slides.LESSONS / "04_attention.md").read_text(encoding="utf-8")
    changed, times = re.subn(*change, text, flags=re.S)
    assert times
    path = tmp_path / "04_attention.md"
    path.write_text(changed, encoding="utf-8")
    assert any(complaint in each for each in lacking(build_slides.read(path)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ((r"minutes: \d+", r"minutes: 44"), "not from 45 to 60"),
        ((r":::\{notes\}.+?:::\n", r""), r"has no \{notes\}"),
    ],
)
def test_a_lecture_too_short_or_without_notes_is_not_read(change, complaint, tmp_path):
    text = (build_slides.LESSONS / "04_attention.md").read_text(encoding="utf-8")
    path = tmp_path / "04_attention.md"
    path.write_text(re.sub(*change, text, flags=re.S), encoding="utf-8")
    with pytest.raises(LessonError, match=complaint):
        build_slides.read(path)
