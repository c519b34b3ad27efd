"""A headless browser and a server for it: for the tests, the PDF and the measurements."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import io
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

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
    "This needs Chromium or Chrome, and none of those found here starts. Install one with "
    "`.venv/bin/playwright install chromium` (or `sudo apt-get install chromium`) and run the "
    "command again."
)


class BrowserError(Exception):
    """No browser starts; the message says how to get one and what was tried."""


def start(playwright: Playwright) -> Browser:
    """Start the machine's Chromium or Chrome, else playwright's own.

    Raises
    ------
    BrowserError
        If none of them starts.
    """
    from playwright.sync_api import Error

    found = [path for name in NAMES if (path := shutil.which(name))]
    ways = [{"executable_path": path} for path in found]
    ways += [{}, {"channel": "chrome"}]  # playwright's own; Chrome where its installer puts it
    tried = []
    for way in ways:
        try:
            return playwright.chromium.launch(args=QUIET, **way)
        except Error as error:
            tried.append(f"{way or 'playwright’s own'}: {error.message.strip().splitlines()[0]}")
    raise BrowserError("\n".join([NO_BROWSER, "Tried:", *tried]))


# ------------------------------------------------------------------------------- a server
class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _CompressingHandler(_Handler):
    """Serve texts compressed by gzip, as the hosts of websites do."""

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        kind = self.guess_type(str(path))
        texts = ("text/", "image/svg", "application/javascript", "application/json")
        if not path.is_file() or not kind.startswith(texts):
            return super().send_head()
        data = gzip.compress(path.read_bytes(), compresslevel=6)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return io.BytesIO(data)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has left before it got all it asked for."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(folder: Path, *, compress: bool = False) -> ThreadingHTTPServer:
    """Serve a folder at a free port of this machine; the caller shuts the server down."""
    kind = _CompressingHandler if compress else _Handler
    server = _Server(("127.0.0.1", 0), functools.partial(kind, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# ------------------------------------------------------------------------------- a first view
# What the browser has loaded for the page, without what it fetches ahead for the next one.
LOADED = """() => {
  const ahead = [...document.querySelectorAll("link[rel=prefetch]")].map((link) => link.href);
  const all = ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
    .filter((entry) => !ahead.includes(entry.name));
  const sum = (key) => all.reduce((total, entry) => total + entry[key], 0);
  const [transferred, unpacked] = [sum("transferSize"), sum("decodedBodySize")];
  return { transferred, unpacked, requests: all.length };
}"""

LONG_TASKS = """window.lastLongTask = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries())
    window.lastLongTask = Math.max(window.lastLongTask, task.startTime + task.duration);
}).observe({ type: "longtask", buffered: true });"""

# The page answers: it is there, its formulas are set, and no task of over 50 ms has come since.
ANSWERS = """async ({ quiet, patience }) => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const typeset = performance.now();
  const end = typeset + patience;
  while (performance.now() < Math.max(typeset, window.lastLongTask) + quiet
         && performance.now() < end)
    await new Promise((next) => setTimeout(next, 50));
  const [page] = performance.getEntriesByType("navigation");
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  const formulas = document.querySelector("mjx-container") ? typeset : 0;
  return {
    shows: paint ? paint.startTime : NaN,
    answers: Math.max(page.domContentLoadedEventEnd, formulas, window.lastLongTask),
  };
}"""


@dataclasses.dataclass
class FirstView:
    """What it takes to show the top of a page to someone who comes for the first time."""

    transferred: int  # bytes over the line, headers included
    unpacked: int  # the same without compression
    requests: int
    shows: float  # seconds until something does
    answers: float  # seconds until the page does


def first_view(
    browser: Browser, url: str, *, megabits: float | None = None, delay: float = 0
) -> FirstView:
    """Open a page in an empty profile, in a window of 1280 by 720, and scroll nowhere.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
    url : str
    megabits, delay : float
        Behave as a line of so many megabits a second would, which takes so many seconds to answer;
        without the first, as fast as the server is.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.add_init_script(LONG_TASKS)
    if megabits:
        speed = megabits * 1e6 / 8
        line = {"latency": 1000 * delay, "downloadThroughput": speed, "uploadThroughput": speed}
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", {"offline": False, **line})
    page.goto(url, wait_until="load")
    times = page.evaluate(ANSWERS, {"quiet": 1500, "patience": 60_000})
    loaded = page.evaluate(LOADED)
    context.close()
    return FirstView(**loaded, shows=times["shows"] / 1000, answers=times["answers"] / 1000)
