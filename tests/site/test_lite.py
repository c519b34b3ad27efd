"""A chapter that runs in the browser: no network, no Python but the page's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import build_lite
import nbformat
import pytest
from browser import serve

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "04_attention"
CELLS = 12  # so many code cells from the first: numbers, text, and a figure or two
APP = "window.jupyterapp?.shell?.currentWidget"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Return the address of the page that runs chapters, without the rest of the website."""
    site = tmp_path_factory.mktemp("site")
    try:
        build_lite.fetch(offline=True)
    except (build_lite.LiteError, build_lite.fetch_assets.AssetError) as error:
        pytest.skip(f"{error}; `make lite` fetches the parts, 136 MB")
    build_lite.build(site, offline=True)
    server = serve(site, compress=True)
    # Where build_lite.link leads from a chapter's page, which lies in a folder of the site.
    yield f"http://127.0.0.1:{server.server_port}/{build_lite.PLACE}"
    server.shutdown()
    server.server_close()


def text_of(cell: dict) -> str:
    """Return what a cell printed."""
    outputs = [output for output in cell["outputs"] if output["output_type"] == "stream"]
    return "".join("".join(output["text"]) for output in outputs)


def code_cells(page) -> list[dict]:
    cells = page.evaluate(f"() => {APP}.content.model.toJSON().cells")
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_first_cells_print_what_the_chapter_shows(address, open_page):
    visit = open_page(address.format(chapter=CHAPTER))
    page = visit.page
    page.wait_for_function(f"{APP}?.content?.model?.cells?.length > {CELLS}", timeout=60_000)
    page.evaluate(
        f"""async () => {{
            const widget = {APP};
            await widget.sessionContext.ready;
            const cells = widget.content.widgets;
            const last = cells.filter((cell) => cell.model.type == "code")[{CELLS}];
            widget.content.activeCellIndex = cells.indexOf(last);
            window.jupyterapp.commands.execute("notebook:run-all-above");
        }}"""
    )
    deadline = time.monotonic() + 180
    while any(cell["execution_count"] is None for cell in code_cells(page)[:CELLS]):
        assert time.monotonic() < deadline, "Python did not start in the browser"
        page.wait_for_timeout(500)
    page.wait_for_timeout(500)  # the last cell's output

    chapter = nbformat.read(ROOT / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    committed = {cell.id: cell for cell in chapter.cells}
    compared = 0
    for cell in code_cells(page)[:CELLS]:
        assert not [o for o in cell["outputs"] if o["output_type"] == "error"], cell["outputs"]
        original = committed[cell["id"]]
        if "nbval-ignore-output" not in original.metadata.get("tags", []):
            assert text_of(cell) == text_of(original), cell["source"]
            compared += bool(text_of(cell))
    assert compared >= 5  # there was something to compare
    figures = [
        o for cell in code_cells(page) for o in cell["outputs"] if o["output_type"] != "stream"
    ]
    assert figures, "no cell drew a figure"
    assert not visit.outside_requests
    # A service worker would answer these, which the tests' browser has none of; nothing needs them.
    failed = [request for request in visit.failed_requests if "/api/drive:" not in request]
    assert not failed
