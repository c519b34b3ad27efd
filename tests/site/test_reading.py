"""What helps a reader along: the next page fetched ahead, code to copy, a search, the keyboard."""

from __future__ import annotations

import build_book
import nbformat
import pytest
from playwright.sync_api import expect

CHAPTER = "notebooks/00_start_here"
NEXT = build_book.pages()[build_book.pages().index(CHAPTER) + 1]
AHEAD = "[...document.querySelectorAll('link[rel=prefetch]')].map((link) => link.href)"


def with_connection(open_page, url, connection):
    """Open a page, then again in a browser that says this of its connection."""
    visit = open_page("about:blank")
    visit.page.add_init_script(
        f"Object.defineProperty(navigator, 'connection', {{ get: () => ({connection}) }})"
    )
    visit.page.goto(url, wait_until="load")
    return visit


@pytest.mark.parametrize("connection", ["undefined", "{ effectiveType: '4g', saveData: false }"])
def test_the_next_page_is_fetched_ahead(open_page, site_url, connection):
    visit = with_connection(open_page, f"{site_url}/{CHAPTER}.html", connection)
    visit.page.wait_for_selector("link[rel=prefetch]", state="attached", timeout=20_000)
    assert visit.page.evaluate(AHEAD) == [f"{site_url}/{NEXT}.html"]
    arrived = f"performance.getEntriesByName('{site_url}/{NEXT}.html').length"
    visit.page.wait_for_function(arrived, timeout=20_000)
    assert not visit.complaints()


@pytest.mark.parametrize("connection", ["{ saveData: true }", "{ effectiveType: 'slow-2g' }"])
def test_nothing_is_fetched_ahead_for_who_pays_for_it(open_page, site_url, connection):
    visit = with_connection(open_page, f"{site_url}/{CHAPTER}.html", connection)
    visit.page.wait_for_timeout(3000)
    assert visit.page.evaluate(AHEAD) == []


def test_nothing_is_fetched_ahead_from_disk(open_page, site):
    visit = open_page((site / f"{CHAPTER}.html").as_uri())
    visit.page.wait_for_timeout(3000)
    assert visit.page.evaluate(AHEAD) == []


def test_code_can_be_copied(open_page, site_url):
    """A click puts a cell's code on the clipboard, as it is in the notebook."""
    visit = open_page(f"{site_url}/{CHAPTER}.html")
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = visit.page.locator(".cell_input button.copybtn").first
    button.scroll_into_view_if_needed()
    button.click()
    notebook = nbformat.read(build_book.source_of(CHAPTER), as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert visit.page.evaluate("navigator.clipboard.readText()").strip() == first.source.strip()
    boxes = visit.page.locator(".cell_input pre").count()
    assert visit.page.locator(".cell_input button.copybtn").count() == boxes > 5


def test_a_search_from_a_chapter_leads_to_what_is_sought(open_page, site_url):
    visit = open_page(f"{site_url}/{CHAPTER}.html")
    visit.page.keyboard.press("Control+k")
    field = visit.page.locator("#pst-search-dialog input[name=q]")
    expect(field).to_be_focused()
    field.fill("perplexity")
    field.press("Enter")
    visit.page.wait_for_url("**/search.html?q=perplexity*")
    found = visit.page.locator("#search-results li a")
    expect(found.first).to_be_visible(timeout=20_000)
    assert any("01_language_models" in link.get_attribute("href") for link in found.all())
    assert not visit.complaints()


def test_what_scrolls_sideways_on_a_phone_is_reached_by_the_tab_key(open_page, site_url):
    visit = open_page(f"{site_url}/notation.html", width=360, height=740)
    visit.settle()
    visit.page.wait_for_function(
        """() => [...document.querySelectorAll("main *")].every((box) => {
          const scrolls = box.scrollWidth > box.clientWidth + 1
            && ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
          return !scrolls || box.tabIndex >= 0;
        })""",
        timeout=10_000,
    )
    assert visit.page.locator("[data-reached]").count() > 0
    visit.resize(1440, 900)  # what need not scroll is not stopped at
    visit.page.wait_for_function(
        """() => [...document.querySelectorAll("[data-reached]")].every(
          (box) => box.scrollWidth > box.clientWidth)""",
        timeout=10_000,
    )
