"""The PDF of two pages of the book: what the whole is made of, in a minute instead of many."""

from __future__ import annotations

import re
import unicodedata

import build_book
import build_pdf
import nbformat
import pytest
from pypdf import PdfReader

PAGES = ["notation", "notebooks/00_start_here"]


@pytest.fixture(scope="module")
def pdf(browser, site, tmp_path_factory) -> PdfReader:
    output = tmp_path_factory.mktemp("pdf") / "book.pdf"
    count = build_pdf.build_pdf(browser, site, PAGES, output)
    reader = PdfReader(output)
    assert count == len(reader.pages)
    return reader


@pytest.fixture(scope="module")
def texts(pdf) -> list[str]:
    """Return the text of each page of paper."""
    return [page.extract_text() for page in pdf.pages]


def squeezed(text: str) -> str:
    """Return a text without what printing changes: white space, and letters that are joined."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def test_every_page_has_its_number_and_its_title(pdf, texts):
    labels = pdf.page_labels
    front = labels.index("1")
    assert labels == [*["i", "ii", "iii"][:front], *map(str, range(1, len(labels) - front + 1))]
    assert front == 2  # title, contents
    start = next(i for i, text in enumerate(texts) if "0. Start here" in text and i >= front)
    for number, text in enumerate(texts[front:], start=1):
        head = "Notation" if number + front <= start else "0. Start here"
        assert squeezed(f"{head}{number}") in squeezed(text)
    contents = squeezed(texts[1]).replace(".", "")
    assert "Notation1" in contents and f"0Starthere{start - front + 1}" in contents


def test_bookmarks_lead_to_chapters_and_their_sections(pdf, texts):
    titles, flat = [], []

    def walk(items, depth=0):
        for item in items:
            if isinstance(item, list):
                walk(item, depth + 1)
            else:
                titles.append((depth, item.title))
                flat.append(item)

    walk(pdf.outline)
    headings = re.findall(r"^## (.+)$", build_book.source_of("notation").read_text(), re.MULTILINE)
    assert titles[: len(headings) + 2] == [
        (0, "Reference"),
        (1, "Notation"),
        *((2, heading.replace("`", "")) for heading in headings),
    ]
    assert titles[len(headings) + 2 :][:2] == [(0, "Start here"), (1, "0. Start here")]
    for item in flat:
        if item.title not in ("Reference", "Start here"):
            page = pdf.get_destination_page_number(item)
            assert squeezed(item.title) in squeezed(texts[page])


def test_the_pages_are_whole(texts):
    """Code that is folded on the screen is there, and no line of code is cut off at the margin."""
    everything = squeezed("".join(texts))
    notebook = nbformat.read(build_book.source_of(PAGES[1]), as_version=4)
    folded = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            folded += "hide-input" in cell.metadata.get("tags", [])
            for line in cell.source.splitlines():
                assert squeezed(line) in everything, line
    assert folded > 0


def test_what_is_of_no_use_on_paper_is_left_out(texts):
    everything = "\n".join(texts)
    for words in ("Search the course", "Show the code", "Hide the code", "Back to top"):
        assert words not in everything, words
    assert not re.search(r"\\(frac|sum|mathbf|text|sqrt)\b", everything)  # formulas are set


def test_links_lead_to_places_in_the_book(pdf):
    inside = 0
    for page in pdf.pages:
        for annotation in page.get("/Annots", []):
            link = annotation.get_object()
            if "/A" in link:
                assert "127.0.0.1" not in link["/A"]["/URI"]
            elif "/Dest" in link:
                target = link["/Dest"][0].get_object()
                assert any(target == each for each in pdf.pages)
                inside += 1
    assert inside >= 2  # from the contents


def test_figures_are_kept_in_one_piece(open_page, site_url):
    visit = open_page(f"{site_url}/{PAGES[1]}.html")
    visit.page.emulate_media(media="print")
    kept = "(e) => getComputedStyle(e).breakInside"
    for box in visit.page.locator("main .cell_output img, main pre.mermaid").all():
        assert box.evaluate(kept) == "avoid"


def test_folded_code_unfolds_for_the_printer_and_folds_again(open_page, site_url):
    visit = open_page(f"{site_url}/{PAGES[1]}.html")
    folds = "[...document.querySelectorAll('main details')].map((details) => details.open)"
    before = visit.page.evaluate(folds)
    assert False in before
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert False not in visit.page.evaluate(folds)
    visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert visit.page.evaluate(folds) == before


def test_a_page_that_is_not_in_the_book_is_refused():
    with pytest.raises(ValueError, match=r"no page 'notations'.*book/_toc\.yml"):
        build_pdf.with_parts(["notations"])


def test_without_names_the_whole_book_is_printed():
    assert [name for name, _ in build_pdf.with_parts([])] == build_book.pages()
