"""Turn the lectures in lessons/ into slide decks that run in a browser without a network.

    python scripts/build_slides.py [lessons/04_attention.md ...]

Each lessons/NN_name.md becomes lessons/_build/NN_name.html, a reveal.js deck (S opens the speaker
view), and lessons/_build/NN_name.sheet.html, the lecturer's sheet to print: plan, timing, notes.
Figures, code and printed output come out of the committed notebooks at build time, so that a slide
cannot disagree with its chapter. lessons/README.md describes the format of a lecture.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fetch_assets
from slide_markdown import LESSONS, LessonError, Renderer, cells_of, code_style

BUILD = LESSONS / "_build"
FIELDS = ("title", "question", "notebook", "minutes", "before")
SHORTEST, LONGEST = 45, 60  # minutes of a lecture
# A lecture that says `short: true` may be shorter: the first one introduces the course.


# ------------------------------------------------------------------------------- lectures
@dataclass
class Slide:
    """One slide, as HTML."""

    title: str
    label: str
    body: str
    notes: str
    minutes: float = 0.0


@dataclass
class Section:
    """What one `#` heading begins."""

    title: str
    minutes: int
    slides: list[Slide] = field(default_factory=list)


@dataclass
class Lesson:
    """A lecture: its front matter, the plan for the lecturer, the slides by section."""

    meta: dict[str, Any]
    plan: str
    sections: list[Section]

    @property
    def slides(self) -> list[Slide]:
        """All slides in order."""
        return [slide for section in self.sections for slide in section.slides]


def split(text: str, first: int = 1) -> list[tuple[int, str]]:
    """Split at lines `---` outside code; return (line number, text) of each part."""
    parts, start, fence = [[]], [first], ""
    previous = ""
    for number, line in enumerate(text.splitlines(), start=first):
        mark = re.match(r"\s*(`{3,}|:{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip() == fence:
            fence = ""
        elif mark and mark[1].startswith(fence):
            raise LessonError(
                f"line {number}: {line.strip()} stands inside a block opened by {fence}, which is "
                "not closed: close it first, or open it with one more of them"
            )
        if line.rstrip() == "---" and not fence:
            if previous.strip():
                raise LessonError(f"line {number}: put an empty line before ---")
            parts.append([])
            start.append(number + 1)
        else:
            parts[-1].append(line)
        previous = line
    if fence:
        raise LessonError(f"a block opened by {fence} is not closed")
    return [(line, "\n".join(part)) for line, part in zip(start, parts, strict=True)]


def read(path: Path) -> Lesson:
    """Read a lecture.

    Raises
    ------
    LessonError
        With the file's name and, within the slides, the line on which the slide begins.
    """
    where = path.name
    try:
        text = path.read_text(encoding="utf-8")
        if not text.startswith("---\n") or "\n---\n" not in text[4:]:
            raise LessonError("it should begin with front matter between two lines ---")
        front, rest = text[4:].split("\n---\n", 1)
        meta = check_front_matter(front)
        first = front.count("\n") + 4  # the line after the front matter
        (_, plan), *slides = split(rest, first)
        renderer = Renderer(meta["notebook"])
        lesson = Lesson(meta, renderer.html(plan), [])
        for line, source in slides:
            where = f"{path.name}, the slide from line {line}"
            add_slide(lesson, source, renderer)
        where = path.name
        share_time(lesson)
    except LessonError as error:
        raise LessonError(f"{where}: {error}") from None
    return lesson


def check_front_matter(text: str) -> dict[str, Any]:
    try:
        meta = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LessonError(f"the front matter is not YAML ({error.problem})") from None
    missing = [name for name in FIELDS if not (isinstance(meta, dict) and meta.get(name))]
    if missing:
        raise LessonError(f"the front matter lacks {', '.join(missing)}")
    low = 1 if meta.get("short") else SHORTEST
    if not isinstance(meta["minutes"], int) or not low <= meta["minutes"] <= LONGEST:
        raise LessonError(f"minutes: {meta['minutes']} is not from {low} to {LONGEST}")
    return meta


def add_slide(lesson: Lesson, source: str, renderer: Renderer) -> None:
    heading = re.match(r"\s*(#{1,2}) (.+)\n?", source)
    if not heading:
        raise LessonError("a slide begins with a heading: # for a new section, else ##")
    title = heading[2].strip()
    if heading[1] == "#":
        timed = re.fullmatch(r"(.+?) \((\d+) min\)", title)
        if not timed:
            raise LessonError(f"the section {title!r} needs its time: # {title} (5 min)")
        title = timed[1]
        lesson.sections.append(Section(title, int(timed[2])))
    elif not lesson.sections:
        raise LessonError("the first slide opens a section: # Title (5 min)")
    renderer.notes = None
    body = renderer.html(source[heading.end() :])
    if not renderer.notes:
        raise LessonError(f"the slide {title!r} has no {{notes}}")
    section = lesson.sections[-1]
    label = "" if title == section.title else renderer.inline(section.title)
    section.slides.append(Slide(renderer.inline(title), label, body, renderer.notes))


def share_time(lesson: Lesson) -> None:
    """Give each slide an equal share of its section's minutes, and check the sum."""
    if not lesson.sections:
        raise LessonError("it has no slides: they come after the plan, between lines ---")
    total = sum(section.minutes for section in lesson.sections)
    if total != lesson.meta["minutes"]:
        raise LessonError(
            f"the sections take {total} minutes and the front matter says "
            f"{lesson.meta['minutes']}: change one"
        )
    for section in lesson.sections:
        for slide in section.slides:
            slide.minutes = section.minutes / len(section.slides)


# ------------------------------------------------------------------------------- pages
def fill(template: str, **values: str) -> str:
    """Put values, which are HTML already, into a template's {{places}}."""
    text = (LESSONS / "theme" / template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], text)


def deck(lesson: Lesson) -> str:
    """Return the slides as a page."""
    meta = {key: escape(str(value)) for key, value in lesson.meta.items()}
    slides = [
        f'<section class="title" data-timing="0"><h1>{meta["title"]}</h1><p>{meta["question"]}</p>'
        '<p class="course">Language Models from First Principles</p>'
        f'<aside class="notes"><p>{meta["before"]}</p></aside></section>'
    ]
    for slide in lesson.slides:
        slides.append(
            f'<section data-timing="{60 * slide.minutes:.0f}">'
            f'<p class="kicker">{slide.label}</p><h2>{slide.title}</h2>\n{slide.body}'
            f'<aside class="notes">{slide.notes}</aside></section>'
        )
    return fill("deck.html", title=meta["title"], slides="\n".join(slides))


def sheet(lesson: Lesson, name: str) -> str:
    """Return plan, timing and notes as a page to print."""
    rows, notes, clock = [], [], 0
    for section in lesson.sections:
        rows.append(
            f"<tr><td>{clock}</td><td>{section.minutes}</td><td>{escape(section.title)}</td></tr>"
        )
        clock += section.minutes
        notes.append(f"<h3>{escape(section.title)} ({section.minutes} min)</h3>")
        notes += [f"<h4>{slide.title}</h4>\n{slide.notes}" for slide in section.slides]
    return fill(
        "sheet.html",
        title=escape(lesson.meta["title"]),
        name=escape(name),
        plan=lesson.plan,
        timing="\n".join(rows),
        total=str(clock),
        notes="\n".join(notes),
    )


def index(lessons: dict[str, Lesson]) -> str:
    """Return the list of decks as a page."""
    items = "\n".join(
        f'<li><a href="{escape(name)}.html">{escape(lesson.meta["title"])}</a>, '
        f"{lesson.meta['minutes']} minutes "
        f'(<a href="{escape(name)}.sheet.html">the lecturer’s sheet</a>)</li>'
        for name, lesson in lessons.items()
    )
    return fill("index.html", items=items)


# ------------------------------------------------------------------------------- building
def put(path: Path, content: bytes) -> None:
    """Write a file unless it has this content."""
    if not (path.exists() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def assets() -> dict[str, bytes]:
    """Return what every deck loads: style sheet, reveal.js, MathJax."""
    style = (LESSONS / "theme" / "slides.css").read_text(encoding="utf-8") + code_style()
    files = {"slides.css": style.encode()}
    for part in ("reveal", "mathjax"):
        for source in (fetch_assets.VENDOR / part).rglob("*"):
            if source.is_file():
                relative = source.relative_to(fetch_assets.VENDOR).as_posix()
                files[f"vendor/{relative}"] = source.read_bytes()
    return files


def build(paths: list[Path] | None = None, target: Path = BUILD) -> list[Path]:
    """Build the decks of the given lectures, by default of all, and return them.

    Building all also removes from the folder what no lecture makes any more. A lecture that is
    wrong does not keep the others from being built.

    Raises
    ------
    LessonError, fetch_assets.AssetError
        With the reason, in words for the one who called.
    """
    everything = sorted(LESSONS.glob("[0-9][0-9]_*.md"))
    for path in paths or []:
        if not path.exists():
            raise LessonError(f"there is no lecture {path}")
    if not (paths or everything):
        raise LessonError("there is no lessons/NN_name.md yet")
    fetch_assets.fetch()
    cells_of.cache_clear()
    lessons, wrong = {}, []
    for path in paths or everything:
        try:
            lessons[path.stem] = read(path)
        except LessonError as error:
            wrong.append(str(error))
    wanted = assets()
    for name, lesson in lessons.items():
        wanted[f"{name}.html"] = deck(lesson).encode()
        wanted[f"{name}.sheet.html"] = sheet(lesson, name).encode()
    if not paths:
        wanted["index.html"] = index(lessons).encode()
        for old in [path for path in target.rglob("*") if path.is_file()]:
            if old.relative_to(target).as_posix() not in wanted:
                old.unlink()
    for name, content in wanted.items():
        put(target / name, content)
    if wrong:
        raise LessonError("\n".join(wrong))
    return [target / f"{name}.html" for name in lessons]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", type=Path, nargs="*", help="default: all")
    parser.add_argument("--output", type=Path, default=BUILD, help="default: lessons/_build")
    options = parser.parse_args()
    try:
        decks = build(options.lessons, options.output.resolve())
    except (LessonError, fetch_assets.AssetError) as error:
        print(f"Not all slides were built:\n{error}", file=sys.stderr)
        return 1
    shown = decks[0].parent / "index.html" if not options.lessons else decks[0]
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    print(f"Slide decks: {len(decks)}. Open in a browser, then press S for the speaker view:")
    print(f"    {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
