"""Build the website, serve it on this machine, and open pages in a browser without a network.

`open_page(url, width=1280, height=720, dark=False, touch=False)` opens an address of any kind (http
on this machine, or file) and returns a `Visit`: `.page` is playwright's page, and
`.console_errors`, `.failed_requests` and `.outside_requests` list what went wrong. A request to
anywhere but this machine is noted and refused.

`open_explorer(widget, width=1280, height=900, http=False, ...)` makes a page of one of the course's
own widgets, as the website shows it, and opens it likewise, from disk or from a server.

The website is built from the outputs that the notebooks are committed with, into book/_build/test
(or the folder that COURSE_SITE_BUILD names), so that the reader's own build stays as it is. A
second run builds only what has changed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "scripts")]

import build_book  # noqa: E402
from browser import BrowserError, serve, start  # noqa: E402
from page_checks import Visit  # noqa: E402

from utils.widgets import Explorer  # noqa: E402


# ------------------------------------------------------------------------------- the browser
@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for the whole run."""
    with sync_playwright() as playwright:
        try:
            browser = start(playwright)
        except BrowserError as error:
            pytest.fail(str(error), pytrace=False)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens an address in a fresh profile: see the top of this file."""
    visits: list[Visit] = []

    def open_page(
        url: str, width: int = 1280, height: int = 720, dark: bool = False, touch: bool = False
    ) -> Visit:
        visits.append(Visit(browser, width, height, dark, touch))
        visits[-1].page.goto(url, wait_until="load")
        return visits[-1]

    yield open_page
    for visit in visits:
        visit.close()


# ------------------------------------------------------------------------------- one widget
EXPLORER_PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>A widget</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="course.css"><script defer src="course.js"></script>
<style>body {{ margin: 0; padding: 8px; font-family: sans-serif; background: {ground}; }}</style>
</head><body><main class="bd-article">{body}</main></body></html>
"""


@pytest.fixture
def open_explorer(
    open_page: Callable[..., Visit], tmp_path: Path
) -> Iterator[Callable[..., Visit]]:
    """Return a function that shows one explorer on a page of its own: see the top of this file."""
    servers: list[ThreadingHTTPServer] = []

    def open_explorer(
        widget: Explorer,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        touch: bool = False,
        http: bool = False,
        wait: bool = True,
    ) -> Visit:
        for name in ("course.js", "course.css"):
            shutil.copy(build_book.BOOK / "_static" / name, tmp_path)
        theme, ground = ("dark", "#121212") if dark else ("light", "#ffffff")
        page = tmp_path / "widget.html"
        page.write_text(
            EXPLORER_PAGE.format(theme=theme, ground=ground, body=widget.embed("the-widget")),
            encoding="utf-8",
        )
        url = page.as_uri()
        if http:
            servers.append(serve(tmp_path))
            url = f"http://127.0.0.1:{servers[-1].server_port}/{page.name}"
        visit = open_page(url, width=width, height=height, dark=dark, touch=touch)
        if wait:
            visit.page.wait_for_selector(".explorer", timeout=10_000)
        return visit

    yield open_explorer
    for server in servers:
        server.shutdown()
        server.server_close()


# ------------------------------------------------------------------------------- the website
@pytest.fixture(scope="session")
def site(testrun_uid: str) -> Path:
    """Return the folder of the website, built anew where something has changed."""
    build = Path(os.environ.get("COURSE_SITE_BUILD", build_book.BUILD / "test")).resolve()
    mark = build / f"built-for-{testrun_uid}"
    build.mkdir(parents=True, exist_ok=True)
    with FileLock(build / "lock"):  # the first of several workers builds, the others wait
        if not mark.exists():
            try:
                build_book.build_book(build)
            except (build_book.BuildError, build_book.fetch_assets.AssetError) as error:
                pytest.fail(f"The book was not built: {error}", pytrace=False)
            for old in build.glob("built-for-*"):
                old.unlink()
            mark.touch()
    return build / "html"


@pytest.fixture(scope="session")
def site_url(site: Path) -> Iterator[str]:
    """Return the address of the website, without a slash at its end."""
    server = serve(site, compress=True)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
