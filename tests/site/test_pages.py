"""Every page of the website, opened in a real browser that has no network."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import build_book
import page_checks
import pytest

PAGES = [*build_book.pages(), "search", "genindex"]


def markdown_of(page: str) -> str:
    """Return the prose that a page is made of."""
    if page in ("search", "genindex"):
        return ""
    path = build_book.source_of(page)
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("page", PAGES)
def test_page(page, open_page, site_url):
    """One visit, in every window and both themes; complaints together.

    It starts on a dark phone, where most goes wrong, and comes to the other windows by resizing.
    """
    visit = open_page(f"{site_url}/{page}.html", width=360, height=740, dark=True)
    found = visit.weight()
    visit.settle()
    found += visit.math() + visit.pictures() + visit.diagrams() + visit.widgets()
    prose = markdown_of(page)
    if page_checks.has_math(prose) and not visit.page.locator("mjx-container").count():
        found.append("the source has formulas and the page has none")
    if prose.count("```mermaid") != visit.page.locator("pre.mermaid").count():
        found.append("not as many diagrams as in the source")
    for theme in ("dark", "light"):  # the first because the system asks for it
        if theme == "light":
            visit.theme(theme)
        assert visit.page.evaluate("() => document.documentElement.dataset.theme") == theme
        for window in page_checks.WINDOWS[:: 1 if theme == "dark" else -1]:
            visit.resize(*window)
            found += [f"{theme}, {window[0]} wide: {each}" for each in visit.width()]
        found += [f"{theme}: {each}" for each in visit.contrast()]
    found += [f"light phone: {each}" for each in visit.barriers(page_checks.LOOKS)]
    visit.resize(*page_checks.WINDOWS[-1])
    visit.theme("dark")
    found += [f"dark desk: {each}" for each in visit.barriers()]
    found += visit.math()  # nothing of this has undone a formula
    assert not (found + visit.complaints())


def test_figures_of_notebooks_are_on_the_pages(site):
    """Each figure that a notebook holds is an image on its page, with its own words."""
    for page in build_book.pages():
        path = build_book.source_of(page)
        if path.suffix != ".ipynb":
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        expected = Counter(
            value["alt"]
            for cell in cells
            for output in cell.get("outputs", [])
            for value in output.get("metadata", {}).values()
            if isinstance(value, dict) and "alt" in value
        )
        shown = Counter(page_checks.parse(site / f"{page}.html").alts)
        assert not expected - shown, f"{page} lacks figures"


def test_every_citation_leads_to_its_entry(site):
    """As many links to the bibliography as works cited, and every work of ours is in it."""
    for page in build_book.pages():
        cited = page_checks.citations(markdown_of(page))
        parsed = page_checks.parse(site / f"{page}.html")
        targets = [link for link in parsed.links if "bibliography.html#" in link]
        assert len(targets) == len(cited), f"{page} cites {cited}, and links {targets}"
    entries = re.findall(r"^@\w+\{", (build_book.BOOK / "references.bib").read_text(), re.MULTILINE)
    shown = (site / "bibliography.html").read_text().count('class="citation"')
    assert shown == len(entries)


# Among them a diagram, the library's widgets (chapter 0) and explorers (chapter 4, first page).
FROM_DISK = [page for page in PAGES if re.search("/0[04]_", page) or page in ("notation", "intro")]


@pytest.mark.parametrize("page", FROM_DISK)
def test_page_opens_from_disk(page, open_page, site):
    """A double click on the file shows it whole: formulas, diagrams, widgets."""
    visit = open_page((site / f"{page}.html").as_uri())
    visit.settle()
    assert bool(visit.page.locator("mjx-container").count()) == page_checks.has_math(
        markdown_of(page)
    )
    found = visit.math() + visit.pictures() + visit.diagrams() + visit.widgets()
    assert not (found + visit.complaints())


def test_index_leads_to_the_first_page(open_page, site):
    visit = open_page((site / "index.html").as_uri())
    visit.page.wait_for_url(f"**/{build_book.pages()[0]}.html")
    assert visit.page.locator("article h1").count() == 1


def test_theme_can_be_changed_and_diagrams_follow(open_page, site_url):
    pages = [page for page in PAGES if "```mermaid" in markdown_of(page)]
    assert pages, "chapter 0 has a diagram"
    visit = open_page(f"{site_url}/{pages[0]}.html")
    visit.settle()
    fill = (
        "() => getComputedStyle(document.querySelector('pre.mermaid .node :is(rect,polygon)')).fill"
    )
    before = visit.page.evaluate(fill)
    visit.page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    visit.page.wait_for_function(
        "(before) => { const node = document.querySelector('pre.mermaid .node :is(rect,polygon)');"
        " return node && getComputedStyle(node).fill !== before; }",
        arg=before,
        timeout=10_000,
    )
    assert not visit.diagrams()


def test_search_finds_a_page(open_page, site_url):
    visit = open_page(f"{site_url}/search.html?q=perplexity")
    visit.page.wait_for_selector("#search-results li a", timeout=10_000)
    assert not visit.complaints()


def test_every_listed_page_was_built_and_no_other(site):
    built = {
        path.relative_to(site).with_suffix("").as_posix()
        for path in site.rglob("*.html")
        if not path.relative_to(site).as_posix().startswith(("_static/", "_frames/", "slides/"))
    }
    assert built == set(PAGES) | {"index"}


def test_links_lead_somewhere(site):
    assert not page_checks.broken_links(site)


# Both name a CDN as their default, and the pages give them a local address instead; what they
# ask for is seen, and refused, whenever a page is opened here.
NAME_A_CDN = {"html-manager/dist/embed-amd.js", "reveal/dist/plugin/math.js"}


def test_nothing_is_loaded_from_elsewhere(site):
    found = {
        path.relative_to(site).as_posix(): page_checks.loads_from_outside(path)
        for kind in ("html", "js", "css")
        for path in site.rglob(f"*.{kind}")
    }
    vendored = {f"{at}/vendor/{name}" for at in ("_static", "slides") for name in NAME_A_CDN}
    assert not {name: urls for name, urls in found.items() if urls and name not in vendored}


def test_no_path_of_the_machine_is_on_a_page(site):
    root = str(build_book.ROOT)
    for path in [*site.rglob("*.html"), site / "searchindex.js"]:
        assert root not in path.read_text(encoding="utf-8"), path.name


def test_pages_are_not_heavy(site):
    """What every page loads, before what only some need: under 3 MB, uncompressed."""
    page = site / "intro.html"
    weight = page.stat().st_size
    for link in page_checks.parse(page).links:
        target = (page.parent / Path(link.split("?")[0])).resolve()
        if target.suffix in (".js", ".css") and target.is_file():
            weight += target.stat().st_size
    assert weight < 3_000_000, f"{weight / 1e6:.2f} MB"
