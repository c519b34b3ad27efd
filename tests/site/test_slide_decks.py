"""Every slide of every lecture, opened in a real browser that has no network, and measured."""

from __future__ import annotations

import re
from pathlib import Path

import build_slides
import pytest

LECTURES = sorted(path.stem for path in build_slides.LESSONS.glob("[0-9][0-9]_*.md"))

READY = """async () => {
  for (let i = 0; i < 100 && !(window.Reveal && Reveal.isReady()); i++)
    await new Promise((next) => setTimeout(next, 50));
  for (let i = 0; i < 100 && !(window.MathJax && MathJax.startup && MathJax.startup.promise); i++)
    await new Promise((next) => setTimeout(next, 50));
  await MathJax.startup.promise;
  await Promise.all([...document.images].map((image) => image.decode()));
}"""

# What of the present slide lies outside 1280 x 720 or under the number and the arrows at its foot.
MEASURE = """() => {
  const slide = Reveal.getCurrentSlide(), found = [];
  for (const e of slide.querySelectorAll("*")) {
    if (e.closest("aside.notes, mjx-assistive-mml")) continue;
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (box.left < 0 || box.top < 0 || box.right > 1280 || box.bottom > 690)
      found.push(`<${e.tagName.toLowerCase()} class="${e.className}"> reaches from ` +
        `${Math.round(box.left)}, ${Math.round(box.top)} to ` +
        `${Math.round(box.right)}, ${Math.round(box.bottom)}`);
    if (e.scrollWidth > e.clientWidth + 1 && e.matches("pre, .column, section"))
      found.push(`<${e.tagName.toLowerCase()}> is ${e.scrollWidth} wide in ${e.clientWidth}`);
    if (e.matches("figure img") && box.height < 250)
      found.push(`a figure has only ${Math.round(box.height)} pixels of height`);
    if (e.matches("pre, code, p, li, td") && parseFloat(getComputedStyle(e).fontSize) < 17
        && e.textContent.trim())
      found.push(`letters of ${getComputedStyle(e).fontSize}: ${e.textContent.slice(0, 40)}`);
  }
  return found;
}"""


@pytest.fixture(scope="session")
def decks(tmp_path_factory) -> Path:
    """All decks, built beside the reader's own so as to leave those alone."""
    target = tmp_path_factory.mktemp("decks")
    try:
        build_slides.build(target=target)
    except build_slides.LessonError as error:  # the others are there, and are tested
        (target / "wrong.txt").write_text(str(error), encoding="utf-8")
    return target


def open_deck(open_page, decks, name):
    if not (decks / f"{name}.html").exists():
        pytest.fail(f"{name}.html was not built", pytrace=False)
    visit = open_page((decks / f"{name}.html").as_uri(), width=1280, height=720)
    visit.page.evaluate(READY)
    return visit


def go_to(page, slide: int, fragment: int = 99) -> None:
    page.evaluate("([slide, fragment]) => Reveal.slide(slide, 0, fragment)", [slide, fragment])


def test_every_lecture_is_built(decks):
    assert LECTURES
    wrong = decks / "wrong.txt"
    assert not wrong.exists(), wrong.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LECTURES)
def test_deck(name, decks, open_page):
    """One visit, all complaints together."""
    visit = open_deck(open_page, decks, name)
    total = visit.page.evaluate("Reveal.getTotalSlides()")
    written = build_slides.read(build_slides.LESSONS / f"{name}.md")
    assert total == len(written.slides) + 1  # and the title
    found = []
    for slide in range(total):
        go_to(visit.page, slide)
        found += [f"slide {slide + 1}: {each}" for each in visit.page.evaluate(MEASURE)]
        if len(visit.page.evaluate("Reveal.getSlideNotes() || ''")) < 40:
            found.append(f"slide {slide + 1}: no speaker notes worth the name")
    found += visit.page.evaluate(
        "() => [...document.querySelectorAll('.math')].filter((m) => !m.querySelector("
        "'mjx-container')).map((m) => 'not typeset: ' + m.textContent)"
    )
    found += visit.page.evaluate(
        "() => [...document.querySelectorAll('mjx-merror')].map((m) => 'TeX: ' + m.textContent)"
    )
    found += visit.pictures()
    assert not (found + visit.complaints())


@pytest.mark.parametrize("name", [f"{name}.sheet" for name in LECTURES] + ["index"])
def test_sheet_and_list(name, decks, open_page):
    if not (decks / f"{name}.html").exists():
        pytest.fail(f"{name}.html was not built", pytrace=False)
    visit = open_page((decks / f"{name}.html").as_uri(), width=360, height=740)
    visit.settle()
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert visit.page.evaluate(sideways) <= 0
    assert visit.page.locator("h1").count() == 1
    assert not (visit.math() + visit.complaints())


def test_links_between_the_pages_lead_somewhere(decks):
    for page in decks.glob("*.html"):
        for href in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            if not re.match(r"(https?:|data:|#)", href) and "../" not in href:
                assert (decks / href).exists(), f"{page.name}: {href}"


def test_an_answer_waits_for_the_next_key(decks, open_page):
    visit = open_deck(open_page, decks, "04_attention")
    slides = visit.page.evaluate("Reveal.getSlides().map((s) => !!s.querySelector('.answer'))")
    go_to(visit.page, slides.index(True), -1)
    answer = visit.page.locator("section.present .answer")
    assert answer.evaluate("(e) => getComputedStyle(e).visibility") == "hidden"
    visit.page.keyboard.press("ArrowRight")
    visit.page.wait_for_function(  # it fades in
        "() => getComputedStyle(document.querySelector('section.present .answer')).visibility"
        " === 'visible'",
        timeout=10_000,
    )


def test_speaker_view_has_the_notes_and_the_pace(decks, open_page):
    visit = open_deck(open_page, decks, "04_attention")
    with visit.context.expect_page() as opened:
        visit.page.keyboard.press("s")
    speaker = opened.value
    speaker.wait_for_selector(".speaker-controls-notes:not(.hidden)", timeout=15_000)
    visit.page.bring_to_front()
    visit.page.keyboard.press("ArrowRight")
    notes = visit.page.evaluate("Reveal.getCurrentSlide().querySelector('aside').textContent")
    first_words = " ".join(notes.split()[:6])
    speaker.wait_for_function(
        "(words) => document.querySelector('.speaker-controls-notes').innerText"
        ".replace(/\\s+/g, ' ').includes(words)",
        arg=first_words,
        timeout=15_000,
    )
    assert speaker.locator(".pacing").is_visible()
    assert not visit.complaints()


def test_the_measurement_bites(decks, open_page):
    """Each thing that the measurement looks for is found once it is there."""
    visit = open_deck(open_page, decks, "04_attention")
    go_to(visit.page, 1)
    assert not visit.page.evaluate(MEASURE)
    for html, complaint in (
        ("<p style='height: 2000px; flex: none'>tall</p>", "reaches from"),
        ("<pre>" + "x" * 200 + "</pre>", "wide in"),
        ("<p style='font-size: 9px'>tiny</p>", "letters of 9px"),
        ("<figure style='flex: none; height: 100px'><img src='data:,'></figure>", "only 100"),
    ):
        found = visit.page.evaluate(
            "([html, measure]) => { const slide = Reveal.getCurrentSlide();"
            " const box = document.createElement('div'); box.style.display = 'contents';"
            " box.innerHTML = html; slide.append(box); const found = eval(measure)();"
            " box.remove(); return found; }",
            [html, f"({MEASURE})"],
        )
        assert any(complaint in each for each in found), (html, found)
