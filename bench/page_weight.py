"""What the first view of the website's pages weighs, and when they answer.

Pages of each kind, from a server on this machine that compresses texts as the hosts of websites
do, to a browser that comes for the first time, over a line like that of a phone. The website is
built first, from the outputs that the notebooks are committed with.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MEGABITS, DELAY = 10.0, 0.04  # of the line
ROUNDS = 3
KINDS = {
    "first page": "intro",
    "first chapter": "notebooks/00_start_here",
    "chapter with formulas": "notebooks/04_attention",
    "chapter with the most formulas": "notebooks/08_training",
    "chapter with frames": "notebooks/17_looking_inside",
    "solutions": "notebooks/solutions/04_attention",
    "notation": "notation",
    "measurements": "measurements",
    "lecture": "slides/04_attention",
}


def measure(quick: bool = False) -> dict[str, Any]:
    """Open a page of each kind, several times, and return the table.

    Parameters
    ----------
    quick : bool
        Open a small page of our own instead, once.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    import browser
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        if quick:
            site, kinds, rounds = Path(name), {"a small page": "page"}, 1
            (site / "page.html").write_text("<!DOCTYPE html><title>t</title><p>A page.</p>")
        else:
            import build_book

            site, kinds, rounds = build_book.build_book(build_book.BUILD / "test"), KINDS, ROUNDS
        server = browser.serve(site, compress=True)
        chromium = browser.start(playwright)
        url = f"http://127.0.0.1:{server.server_port}"
        rows = [
            [kind, page, *columns(chromium, f"{url}/{page}.html", rounds)]
            for kind, page in kinds.items()
        ]
        version = chromium.version
        chromium.close()
        server.shutdown()
        server.server_close()
    return {
        "title": "The website: weight of a first view, and when it answers",
        "columns": [
            "kind of page",
            "page",
            "transferred (MB)",
            "without compression (MB)",
            "requests",
            "something shows after (s)",
            "answers after (s)",
        ],
        "rows": rows,
        "notes": [
            "Transferred: all that the browser loads for the top of the page, in an empty profile "
            "and a window of 1280 by 720, headers included; texts are compressed by gzip. "
            "Pictures, widgets and diagrams further down load as the reader comes near, and the "
            "next page when this one is there; neither is counted.",
            "The page answers when it is complete, its formulas are set, and the last task of more "
            f"than 50 ms is over. Times are medians of {rounds} loads over a line of {MEGABITS:g} "
            f"megabits a second that takes {1000 * DELAY:g} ms to answer.",
        ],
        "machine": {"browser": f"Chromium {version}"},
    }


def columns(chromium: Browser, url: str, rounds: int) -> list[Any]:
    """Return the figures of one page."""
    import browser

    views = [
        browser.first_view(chromium, url, megabits=MEGABITS, delay=DELAY) for _ in range(rounds)
    ]
    return [
        f"{median(view.transferred for view in views) / 1e6:.2f}",
        f"{median(view.unpacked for view in views) / 1e6:.2f}",
        int(median(view.requests for view in views)),
        f"{median(view.shows for view in views):.1f}",
        f"{median(view.answers for view in views):.1f}",
    ]
