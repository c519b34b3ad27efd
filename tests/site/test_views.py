"""bertviz's views, taken from the chapter's outputs, draw in a browser that has no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, expect

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "17_looking_inside.ipynb"
PAGE = '<!DOCTYPE html><html lang="en"><head><title>t</title></head><body>{}</body></html>'


def frames_of_the_notebook() -> dict[str, str]:
    """Return each frame that the notebook shows, by the first word of its title."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    shown = [
        "".join(output["data"]["text/html"])
        for cell in cells
        for output in cell.get("outputs", [])
        if "<iframe" in "".join(output.get("data", {}).get("text/html", ""))
    ]
    return {each.partition('title="')[2].split()[0]: each for each in shown}


@pytest.fixture
def view(request, tmp_path, open_page):
    """Open one frame on a page of its own; afterwards nothing may have gone wrong."""
    page = tmp_path / "view.html"
    page.write_text(PAGE.format(frames_of_the_notebook()[request.param]), encoding="utf-8")
    visit = open_page(page.as_uri(), width=1200)
    frame = visit.page.frame_locator("iframe")
    expect(frame.locator("#vis svg")).to_be_visible(timeout=20_000)
    expect(frame.locator("#status")).to_have_count(0)
    yield frame
    assert not visit.complaints()
    fits = "e => e.scrollHeight <= e.clientHeight"
    assert frame.locator("html").evaluate(fits), "the frame is too low for its view"


@pytest.mark.parametrize("view", ["Head"], indirect=True)
def test_the_head_view_draws_and_answers(view: FrameLocator):
    tokens = view.locator("#left text").all_text_contents()
    assert tokens[0] == "[CLS]" and "cat" in tokens
    assert view.locator("#layer option").count() == 6
    lines = view.locator("#attention line")
    assert lines.count() == 12 * len(tokens) ** 2
    strong = "lines => lines.filter(l => +l.getAttribute('stroke-opacity') > 0.5).length"
    assert lines.evaluate_all(strong) >= len(tokens) - 1  # the previous-token head is switched on
    view.locator("#layer").select_option("3")
    expect(view.locator("#attention line")).to_have_count(12 * len(tokens) ** 2)
    view.locator("#left text").nth(2).hover()
    assert view.locator("#attention").get_attribute("visibility") == "hidden"
    assert view.locator("#attention line[visibility=visible]").count() == 12 * len(tokens)


@pytest.mark.parametrize("view", ["Model"], indirect=True)
def test_the_model_view_draws_and_enlarges_a_head(view: FrameLocator):
    assert view.locator(".attn_background").count() == 72
    assert view.locator("svg .detail").count() == 0
    x = "box => [box.getAttribute('x'), box.getAttribute('y')].map(Number)"
    left, top = view.locator("#attn_background_1_8").evaluate(x)
    view.locator("#vis svg").click(position={"x": left + 20, "y": top + 20})
    expect(view.locator("svg text.detail")).to_have_text("Layer 1, Head 8")


@pytest.mark.parametrize("view", ["Neuron"], indirect=True)
def test_the_neuron_view_draws_and_opens(view: FrameLocator):
    assert view.locator("#queries .vector").count() == view.locator("#keys .vector").count() == 10
    assert view.locator("#queries .element").count() == 10 * 32
    row = view.locator("#collapsed #leftText > g").nth(4)
    row.locator("text").hover()
    row.locator("rect").last.click(force=True)
    assert view.locator("#expanded").get_attribute("visibility") == "visible"
    expect(view.locator("#heading")).to_contain_text("Softmax")
