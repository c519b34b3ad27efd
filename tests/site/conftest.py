"""Build the website, serve it on this machine, and open pages in a browser without a network.

`open_page(url, width=1280, height=720, dark=False)` opens an address of any kind (http on this
machine, or file) and returns a `Visit`: `.page` is playwright's page, and `.console_errors`,
`.failed_requests` and `.outside_requests` list what went wrong. A request to anywhere but this
machine is noted and refused.

The website is built from the outputs that the notebooks are committed with, into book/_build/test
(or the folder that COURSE_SITE_BUILD names), so that the reader's own build stays as it is. A
second run builds only what has changed.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Playwright, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "scripts")]

import build_book  # noqa: E402
from page_checks import Visit  # noqa: E402

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_BROWSER = (
    "The website's tests need Chromium or Chrome, and none of those found here starts. Install one "
    "with `.venv/bin/playwright install chromium` (or `sudo apt-get install chromium`) and run "
    "`make test` again."
)


# ------------------------------------------------------------------------------- the browser
def start_browser(playwright: Playwright) -> Browser:
    """Start the machine's Chromium or Chrome, else playwright's own, else fail and say why."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    ways = [{"executable_path": path} for path in found]
    ways += [{}, {"channel": "chrome"}]  # playwright's own; Chrome where its installer puts it
    tried = []
    for way in ways:
        try:
            return playwright.chromium.launch(args=QUIET, **way)
        except Error as error:
            tried.append(f"{way or 'playwright’s own'}: {error.message.strip().splitlines()[0]}")
    pytest.fail("\n".join([NO_BROWSER, "Tried:", *tried]), pytrace=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for the whole run."""
    with sync_playwright() as playwright:
        browser = start_browser(playwright)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens an address in a fresh profile: see the top of this file."""
    visits: list[Visit] = []

    def open_page(url: str, width: int = 1280, height: int = 720, dark: bool = False) -> Visit:
        visits.append(Visit(browser, width, height, dark))
        visits[-1].page.goto(url, wait_until="load")
        return visits[-1]

    yield open_page
    for visit in visits:
        visit.close()


# ------------------------------------------------------------------------------- the website
class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: Path) -> ThreadingHTTPServer:
    """Serve a folder at a free port of this machine; the caller shuts the server down."""
    handler = functools.partial(_Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the folder of the website, built anew where something has changed."""
    build = Path(os.environ.get("COURSE_SITE_BUILD", build_book.BUILD / "test"))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")  # two builds at once need two folders
    try:
        return build_book.build_book((build / worker).resolve())
    except (build_book.BuildError, build_book.fetch_assets.AssetError) as error:
        pytest.fail(f"The book was not built: {error}", pytrace=False)


@pytest.fixture(scope="session")
def site_url(site: Path) -> Iterator[str]:
    """Return the address of the website, without a slash at its end."""
    server = serve(site)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
