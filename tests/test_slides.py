"""The slide builder: what a lecture may say, what becomes of it, and what it is told when wrong."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_slides  # noqa: E402
import slide_markdown  # noqa: E402
from slide_markdown import LessonError, Renderer  # noqa: E402

FRONT = """---
title: "Sums & <sums>"
question: Why?
notebook: 99_sums
short: true
minutes: 12
before: Open the notebook.
---
"""
PLAN = "\n## Live-coding plan\n\nType {cell}`def add(a, b):` first.\n"
SLIDES = """
---

# One (8 min)

Text & more, $a < b$.

:::{notes}
Say *this*.
:::

---

## Two

$$\\sum_i x_i$$

:::{notes}
And that.
:::

---

# Three (4 min)

:::{notes}
The end.
:::
"""


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    """A course with one notebook, whose cells print, draw, and define functions."""
    figure = nbformat.v4.new_output(
        "display_data",
        data={"image/svg+xml": "<svg>1 < 2</svg>", "text/plain": "Figure"},
        metadata={"image/svg+xml": {"alt": 'Bars: "two" & three.'}},
    )
    other = nbformat.v4.new_output(
        "display_data",
        data={"image/png": "aGVsbG8=\n", "text/plain": "Figure"},
        metadata={"image/png": {"alt": "Lines that rise slowly."}},
    )
    cells = [
        nbformat.v4.new_markdown_cell("# 99. Sums"),
        nbformat.v4.new_code_cell(
            "def add(a, b):\n    return a + b\n\n\n"
            "def double(a):\n    return 2 * a\n\n\nprint(add(1, 2))",
            outputs=[nbformat.v4.new_output("stream", text="3 <\n")],
            execution_count=1,
        ),
        nbformat.v4.new_code_cell("draw()", outputs=[figure, other], execution_count=2),
        nbformat.v4.new_code_cell(
            "double(4)",
            outputs=[nbformat.v4.new_output("execute_result", data={"text/plain": "8"})],
            execution_count=3,
        ),
        nbformat.v4.new_code_cell("x = 1\nsame = 1", execution_count=4),
        nbformat.v4.new_code_cell("y = 1\nsame = 1", execution_count=5),
    ]
    for name, wanted in (("99_sums", cells), ("98_empty", [nbformat.v4.new_code_cell("x = 1")])):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=wanted), path)
    monkeypatch.setattr(slide_markdown, "ROOT", tmp_path)
    slide_markdown.cells_of.cache_clear()
    yield tmp_path
    slide_markdown.cells_of.cache_clear()


def lesson(folder: Path, text: str) -> build_slides.Lesson:
    path = folder / "99_sums.md"
    path.write_text(text, encoding="utf-8")
    return build_slides.read(path)


def render(text: str) -> str:
    return Renderer("99_sums").html(text)


# ------------------------------------------------------------------------------- lectures
def test_sections_slides_and_their_time(course):
    read = lesson(course, FRONT + PLAN + SLIDES)
    assert [section.title for section in read.sections] == ["One", "Three"]
    assert [slide.title for slide in read.slides] == ["One", "Two", "Three"]
    assert [slide.label for slide in read.slides] == ["", "One", ""]
    assert [slide.minutes for slide in read.slides] == [4, 4, 4]
    assert read.slides[0].notes == "<p>Say <em>this</em>.</p>\n"
    assert "this" not in read.slides[0].body


def test_deck_escapes_and_keeps_notes(course):
    page = build_slides.deck(lesson(course, FRONT + PLAN + SLIDES))
    assert "<h1>Sums &amp; &lt;sums&gt;</h1>" in page
    assert "Text &amp; more" in page
    assert r'<span class="math inline">\(a &lt; b\)</span>' in page
    assert re.search(r'<div class="math block">\s*\\\[\\sum_i x_i\\\]\s*</div>', page)
    assert page.count('<aside class="notes">') == 4 == page.count("<section")
    assert page.count('data-timing="240"') == 3
    assert "{{" not in page and "http" not in page


def test_sheet_has_timing_plan_and_notes(course):
    page = build_slides.sheet(lesson(course, FRONT + PLAN + SLIDES), "99_sums")
    rows = re.findall(r"<tr><td>(\d+)</td><td>(\d*)</td><td>(\w+)</td></tr>", page)
    assert rows == [("0", "8", "One"), ("8", "4", "Three"), ("12", "", "end")]
    assert '<span class="cell">[1] <code>def add(a, b):</code></span>' in page
    assert "And that." in page and 'href="99_sums.html"' in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("---\ntitle", "title"), "front matter between two lines"),
        (("question: Why?\n", ""), "lacks question"),
        (("short: true\n", ""), "from 45 to 60"),
        (("minutes: 12", "minutes: many"), "many is not from 1 to 60"),
        (("minutes: 12", "minutes: 13"), "take 12 minutes and the front matter says 13"),
        (("title: ", "title: ]"), "not YAML"),
        (("# Three (4 min)", "# Three"), "needs its time"),
        (("# Three (4 min)\n", ""), "begins with a heading"),
        (("# One (8 min)", "## One"), "opens a section"),
        (("And that.", ""), "'Two' has no {notes}"),
        (("And that.\n:::", "And that.\n:::\n\n:::{notes}\nTwice.\n:::"), "two {notes}"),
        (("And that.\n:::", "And that."), "is not closed"),
        (("The end.\n:::", "The end."), "a block opened by ::: is not closed"),
        (("And that.\n:::", "And that.\n:::\nText"), "empty line before"),
        (("def add(a, b):` first", "def subtract(a, b):` first"), "0 code cells of 99_sums"),
    ],
)
def test_a_wrong_lecture_is_told_what_is_wrong(course, change, message):
    text = FRONT + PLAN + SLIDES
    assert change[0] in text
    changed = text.replace(*change, 1)
    if "Text" in change[1]:
        changed = changed.replace("Text\n\n---", "Text\n---")
    with pytest.raises(LessonError, match=re.escape(message)) as caught:
        lesson(course, changed)
    assert str(caught.value).startswith("99_sums.md")


def test_the_message_names_the_line_of_the_slide(course):
    text = FRONT + PLAN + SLIDES
    line = text[: text.index("## Two")].count("\n")  # the slide begins after its ---
    with pytest.raises(LessonError, match=f"the slide from line {line}:"):
        lesson(course, text.replace("And that.", "{cell}`no such`"))


def test_a_line_of_dashes_inside_code_does_not_split(course):
    text = (FRONT + PLAN + SLIDES).replace("And that.", "```text\na\n\n---\n\nb\n```")
    assert len(lesson(course, text).slides) == 3


def test_a_lecture_without_slides(course):
    with pytest.raises(LessonError, match="no slides"):
        lesson(course, FRONT + PLAN)


# ------------------------------------------------------------------------------- directives
def test_raw_html_is_shown_and_not_obeyed():
    assert "&lt;script&gt;" in render("<script>alert(1)</script>")
    assert "&lt;b&gt;" in render("a <b>bold</b> word")


def test_figure_comes_with_its_whole_alternative_text():
    html = render('```{notebook-figure}\nBars: "two"\n```')
    assert 'alt="Bars: &quot;two&quot; &amp; three."' in html
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)[1]
    assert base64.b64decode(data) == b"<svg>1 < 2</svg>"
    assert 'src="data:image/png;base64,aGVsbG8="' in render("```{notebook-figure}\nLines\n```")


def test_code_and_output_of_a_cell():
    code = re.sub(r"<[^>]+>", "", render("```{notebook-code}\n:only: double\ndef add(\n```"))
    assert code.strip() == "def double(a):\n    return 2 * a"
    whole = re.sub(r"<[^>]+>", "", render("```{notebook-code} 99_sums\ndef add(\n```"))
    assert whole.strip().endswith("print(add(1, 2))")
    assert ">3 &lt;</pre>" in render("```{notebook-output}\ndef add(\n```")
    assert ">3 &lt;</pre>" in render("```{notebook-output}\n:first: 1\n:wrap:\ndef add(\n```")
    assert ">8</pre>" in render("```{notebook-output}\ndouble(4)\n```")


def test_long_lines_shrink_wrap_or_are_refused():
    def size(text):
        return int(re.search(r"font-size: (\d+)px", render(f"```text\n{text}\n```"))[1])

    assert size("x" * 20) > size("x" * 90) >= slide_markdown.SMALLEST_CODE
    assert size("x\n" * 10) > size("x\n" * 15) > size("x\n" * 22)  # many lines shrink as well
    boxed = render(":::{answer}\n```text\n" + "x" * 90 + "\n```\n:::")
    assert f"font-size: {size('x' * 90)}px" not in boxed  # a box leaves less room
    with pytest.raises(LessonError, match="200 characters does not fit"):
        size("x" * 200)
    narrow = "::::{columns} 1 1\n```text\n" + "x" * 90 + "\n```\n\n+++\n\nb\n::::"
    with pytest.raises(LessonError, match="does not fit"):
        render(narrow)


def test_columns_questions_and_answers():
    html = render("::::{columns} 3 1\na\n\n+++\n\n:::{question}\nb\n:::\n::::")
    assert html.count('class="column"') == 2 and "flex: 3 1 0" in html
    assert '<div class="question"><p>b</p>' in html
    assert '<div class="answer fragment"><p>yes</p>' in render(":::{answer}\nyes\n:::")
    assert '<div class="fragment">' in render(":::{step}\nlater\n:::")
    figure = render(":::{step}\n```{notebook-figure}\nBars\n```\n:::")
    assert '<div class="fragment fill"><figure>' in figure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{notebook-figure}\nPies\n```", "0 figures of 99_sums"),
        ("```{notebook-figure}\n```", "0 figures|2 figures"),
        ("```{notebook-figure} 97_none\nBars\n```", "there is no notebook notebooks/97_none.ipynb"),
        ("```{notebook-code} 98_empty\nx = 1\n```", "98_empty.ipynb has no outputs: run"),
        ("```{notebook-code}\nsame = 1\n```", "2 code cells"),
        ("```{notebook-code}\n:only: triple\ndef add(\n```", "defines no 'triple'"),
        ("```{notebook-output}\nx = 1\n```", "printed nothing"),
        ("```{notebook-output}\n:first: 2\ndouble(4)\n```", ":first: 2 of 1 lines"),
        ("```{notebook-output}\n:last: 2\ndouble(4)\n```", "{notebook-output} knows no :last:"),
        ("```{figure} a.png\n```", "unknown directive {figure}; known: "),
        ("{ref}`a`", "unknown role {ref}"),
        ("::::{columns} 1 1 1\na\n\n+++\n\nb\n::::", "2 columns"),
        ("![a picture](a.png)", "use {notebook-figure}"),
        ("[chapter](../notebooks/97_none.ipynb)", "97_none.ipynb, which does not exist"),
    ],
)
def test_a_wrong_directive_is_told_what_is_wrong(text, message):
    with pytest.raises(LessonError) as caught:
        render(text)
    assert any(part in str(caught.value) for part in message.split("|"))


def test_links_lead_from_the_built_page(course):
    assert 'href="https://example.org"' in render("[a](https://example.org)")
    assert 'href="../../README.md"' in render("[a](../README.md)")


# ------------------------------------------------------------------------------- building
@pytest.fixture
def lessons(course, monkeypatch):
    """The course's folder of lectures, with one in it, and no assets to fetch."""
    folder = course / "lessons"
    folder.mkdir()
    (folder / "theme").symlink_to(ROOT / "lessons" / "theme")
    (folder / "99_sums.md").write_text(FRONT + PLAN + SLIDES, encoding="utf-8")
    monkeypatch.setattr(build_slides, "LESSONS", folder)
    vendor = course / "vendor"
    for part in ("reveal", "mathjax", "mermaid"):
        (vendor / part).mkdir(parents=True)
        (vendor / part / "a.js").write_text("1")
    monkeypatch.setattr(build_slides.fetch_assets, "VENDOR", vendor)
    monkeypatch.setattr(build_slides.fetch_assets, "fetch", lambda: None)
    return folder


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_building_twice_changes_nothing_and_old_decks_go(lessons):
    target = lessons / "_build"
    assert build_slides.build(target=target) == [target / "99_sums.html"]
    first = contents(target)
    assert set(first) == {
        "99_sums.html",
        "99_sums.sheet.html",
        "index.html",
        "slides.css",
        "vendor/mathjax/a.js",
        "vendor/reveal/a.js",
    }
    (target / "98_old.html").write_text("old")
    build_slides.build(target=target)
    assert contents(target) == first
    assert "Sums &amp; &lt;sums&gt;" in first["index.html"][0].decode()


def test_one_lecture_alone_leaves_the_others(lessons):
    target = lessons / "_build"
    build_slides.build(target=target)
    (target / "98_old.html").write_text("old")
    build_slides.build([lessons / "99_sums.md"], target)
    assert (target / "98_old.html").exists()


def test_no_lecture_says_so(lessons):
    with pytest.raises(LessonError, match="there is no lecture"):
        build_slides.build([lessons / "97_none.md"])
    (lessons / "99_sums.md").unlink()
    with pytest.raises(LessonError, match="there is no lessons/NN_name"):
        build_slides.build()


def test_the_command_prints_an_error_in_a_sentence(lessons, monkeypatch, capsys):
    (lessons / "99_sums.md").write_text("no front matter")
    monkeypatch.setattr(sys, "argv", ["build_slides.py", "--output", str(lessons / "_build")])
    assert build_slides.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("Not all slides were built:\n99_sums.md: it should begin with")


def test_a_wrong_lecture_does_not_keep_the_others_from_being_built(lessons):
    (lessons / "98_wrong.md").write_text("no front matter")
    with pytest.raises(LessonError, match=r"98_wrong\.md"):
        build_slides.build(target=lessons / "_build")
    assert (lessons / "_build" / "99_sums.html").exists()
    assert not (lessons / "_build" / "98_wrong.html").exists()
