"""The course's own widgets in a browser without a network: driven by clicks, keys and fingers.

Every number that is read off the page is compared with numpy's.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from utils.attention import causal_mask, padding_mask, scaled_dot_product_attention
from utils.positions import alibi_bias, alibi_slopes, rope_angles, rope_rotate, sinusoidal
from utils.tokenizers import ByteLevelBPE
from utils.widgets import (
    AttentionExplorer,
    BeamStepper,
    PositionExplorer,
    SamplingPlayground,
    TokenizerPlayground,
)
from utils.widgets.attention import queries_keys_values
from utils.widgets.positions import unit_pair

SENTENCE = "Anna lost her keys and Ben found them"
EXPLORERS = {
    "attention": AttentionExplorer,
    "positions": PositionExplorer,
    "rotations": lambda: PositionExplorer("RoPE"),
    "fines": lambda: PositionExplorer("ALiBi"),
    "tokens": lambda: TokenizerPlayground(ByteLevelBPE.train("winter wind " * 9, 270), "the wind"),
    "sampling": lambda: SamplingPlayground(["a", "b"], [[3.0, 2, 1, 0], [0, 0, 9, 0]], [*"abcd"]),
    "beam": lambda: BeamStepper(
        lambda ids, sources: torch.eye(12)[ids[:, -1]] * 2 - 1,
        [f"piece {i}" for i in range(12)],
        **{"start_id": 0, "stop_id": 1, "max_length": 4, "source": "some words"},
    ),
}
TARGETS = """() => {
  // What a finger or a mouse has to hit: the control, or the label around it.
  const controls = document.querySelectorAll(
    ".explorer :is(input, select, textarea, button, summary)");
  return [...controls].map((control) => {
    const box = (control.closest("label") || control).getBoundingClientRect();
    return [control.outerHTML.slice(0, 80), box.width, box.height];
  }).filter(([, width, height]) => width > 0 && (width < 32 || height < 32));
}"""


def control(page: Page, name: str) -> Locator:
    return page.locator(f"[data-name={name}]")


def numbers(cells: Locator) -> list[float]:
    """Return the numbers of cells; what a mask hides counts as 0."""
    values = cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    return [
        0.0 if value == "hidden" else float(value.replace("Infinity", "inf")) for value in values
    ]


def close(shown: list[float], expected: np.ndarray) -> bool:
    """Tell whether the page's 6 digits are those of numpy."""
    expected = np.ravel(expected)
    return len(shown) == expected.size and np.allclose(shown, expected, rtol=2e-5, atol=2e-6)


# ------------------------------------------------------------------------------- every explorer
@pytest.mark.parametrize("kind", EXPLORERS)
@pytest.mark.parametrize("http", [False, True], ids=["from disk", "from a server"])
def test_it_runs_without_kernel_network_or_library(open_explorer, kind, http):
    visit = open_explorer(EXPLORERS[kind](), http=http)
    expect(visit.page.locator(".explorer")).to_have_count(1)
    expect(visit.page.locator(".explorer-fallback")).to_be_hidden()
    assert not visit.page.evaluate("'require' in window")
    assert not visit.complaints()


@pytest.mark.parametrize("kind", EXPLORERS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_and_hit_on_a_phone(open_explorer, kind, dark):
    visit = open_explorer(EXPLORERS[kind](), width=360, height=740, dark=dark, touch=True)
    assert visit.page.evaluate(TARGETS) == []
    assert visit.contrast() + visit.widths() == []
    visit.page.locator("details:not([open]) > summary").evaluate_all(
        "all => all.map(s => s.click())"
    )
    assert visit.contrast() + visit.widths() + visit.barriers() == []


@pytest.mark.parametrize("kind", EXPLORERS)
def test_everything_has_a_name(open_explorer, kind):
    """Each control is reached with the Tab key, or an arrow within its group, and has a name."""
    page = open_explorer(EXPLORERS[kind]()).page
    unnamed = """nodes => nodes.filter(node => !(node.getAttribute("aria-label") ||
      [...(node.labels || [])].map(label => label.textContent).join("") || node.textContent).trim())
      .map(node => node.outerHTML)"""
    controls = page.locator(
        ".explorer :is(input, select, textarea, button, summary, [role=region])"
    )
    assert controls.count() > 3
    assert controls.evaluate_all(unnamed) == []
    # JupyterLab looks for this on what has the focus before it takes a key for a command.
    assert controls.evaluate_all("nodes => nodes.every(n => n.dataset.lmSuppressShortcuts)")
    assert page.locator(".explorer").get_attribute("aria-label")
    assert page.locator(".explorer [aria-live=polite]").text_content()
    tabbable = page.locator(
        ".explorer :is(input:not([type=radio]), select, textarea, button:not([tabindex]), summary)"
    ).locator("visible=true")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = "document.activeElement.closest('.explorer') && document.activeElement.outerHTML"
        reached.add(page.evaluate(focused))
    assert {each.evaluate("node => node.outerHTML") for each in tabbable.all()} <= reached


@pytest.mark.parametrize("kind", EXPLORERS)
def test_words_stand_in_where_scripts_do_not_run(browser, tmp_path, kind):
    widget = EXPLORERS[kind]()
    page = tmp_path / "page.html"
    page.write_text(widget.embed("w"), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    expect(tab.locator(".explorer-fallback")).to_be_visible()
    assert tab.locator(".explorer-fallback").inner_text().strip() == widget.words.strip()
    context.close()


def test_words_stay_when_a_script_fails(open_explorer):
    widget = AttentionExplorer()
    widget._esm = "export default { render() { throw new Error('broken'); } };"
    visit = open_explorer(widget, wait=False)
    visit.settle(1)
    assert any("broken" in each for each in visit.console_errors)
    expect(visit.page.locator(".explorer-fallback")).to_be_visible()


# ------------------------------------------------------------------------------- attention
@pytest.fixture
def attention_page(open_explorer) -> Page:
    visit = open_explorer(AttentionExplorer(SENTENCE))
    yield visit.page
    assert not visit.complaints()


def assert_attention(
    page, sentence=SENTENCE, source="hand", *, query, scale=None, mask=None, **more
):
    """Compare the look-up, the table of weights, and the output, with `utils.attention`."""
    tokens, queries, keys, values = queries_keys_values(sentence, source, **more)
    output, weights = scaled_dot_product_attention(queries, keys, values, mask, scale)
    scale = queries.shape[1] ** -0.5 if scale is None else scale
    assert page.locator("[data-name=query] label").all_text_contents() == tokens
    assert page.locator("[data-name=query] input:checked").get_attribute("value") == str(query)
    visible = np.ones(len(tokens), bool) if mask is None else mask[query]
    scores = np.where(visible, queries[query] @ keys.T * scale, -np.inf)
    assert close(numbers(control(page, "product")), queries[query] @ keys.T)
    assert close(numbers(control(page, "score")), scores)
    assert close(numbers(control(page, "weight")), weights[query])
    tables = page.locator(".explorer-heat")
    assert close(numbers(tables.nth(0).locator("tbody td")), weights)
    assert close(numbers(tables.nth(2).locator("tbody td")), output[query][:32])
    best = tokens[int(weights[query].argmax())]
    said = f"“{tokens[query]}” gives {weights[query].max():.3f} of its weight to “{best}”"
    expect(page.locator(".explorer-says")).to_contain_text(said)


def test_attention_at_first(attention_page):
    assert_attention(attention_page, query=7)
    expect(control(attention_page, "features")).to_contain_text("pronoun, plural")


def test_attention_query_by_click_and_by_arrow(attention_page):
    page = attention_page
    page.locator("[data-name=query] label", has_text="her").click()
    assert_attention(page, query=2)
    page.keyboard.press("ArrowUp")
    assert_attention(page, query=1)
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    assert_attention(page, query=4)
    page.locator(".explorer-heat").first.get_by_role("button", name="found").click()
    assert_attention(page, query=6)


def test_attention_temperature_by_keys(attention_page):
    page = attention_page
    slider = control(page, "temperature")
    slider.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    assert_attention(page, query=7, scale=1 / (2 * 10**0.6))
    expect(slider).to_have_attribute("aria-valuetext", "3.98")
    page.keyboard.press("Home")
    assert_attention(page, query=7, scale=1 / (2 * 0.1))
    page.keyboard.press("End")
    assert_attention(page, query=7, scale=1 / (2 * 10**1.5))


def test_attention_scale_and_masks(attention_page):
    page = attention_page
    control(page, "scaled").click()
    assert_attention(page, query=7, scale=1.0)
    control(page, "causal").focus()
    page.keyboard.press("Space")
    assert_attention(page, query=7, scale=1.0, mask=causal_mask(8))
    hidden = page.locator(".explorer-heat").first.locator("td.hidden")
    expect(hidden).to_have_count(28)
    control(page, "scaled").click()
    page.locator("[data-name=query] label", has_text="lost").click()
    assert_attention(page, query=1, mask=causal_mask(8))
    control(page, "padding").select_option("hidden")
    real = padding_mask([8], 11)
    assert_attention(page, query=1, mask=causal_mask(11) & real, padding=3)
    control(page, "causal").click()
    assert_attention(page, query=1, mask=np.repeat(real, 11, axis=0), padding=3)
    control(page, "padding").select_option("seen")
    assert_attention(page, query=1, padding=3)


def test_attention_sentence(attention_page):
    page = attention_page
    field = control(page, "sentence")
    field.fill("Ben saw the cats; Maria fed them")
    assert_attention(page, "Ben saw the cats; Maria fed them", query=6)
    field.press("End")
    field.press_sequentially(" quickly")
    assert_attention(page, "Ben saw the cats Maria fed them quickly", query=6)
    expect(page.locator(".explorer-note").first).to_contain_text("described “quickly” by hand")
    field.fill("one " * 15)
    expect(page.locator(".explorer-note").first).to_contain_text("13 words fit")
    assert_attention(page, "one " * 13, query=6)
    field.fill("...")
    expect(page.locator(".explorer-says")).to_have_text("Write at least one word.")
    field.fill("<b>Anna</b> & co")
    assert_attention(page, "b Anna b co", query=0)


@pytest.mark.parametrize("source", ["head 3", "head 5"])
def test_attention_of_the_encoder(attention_page, source):
    page = attention_page
    control(page, "example").select_option("3")
    control(page, "source").select_option(source)
    sentence = "Anna read the book on the river bank"
    assert_attention(page, sentence, source, query=8)
    control(page, "padding").select_option("hidden")
    mask = np.repeat(padding_mask([10], 13), 13, axis=0)
    assert_attention(page, sentence, source, query=8, mask=mask, padding=3)
    control(page, "sentence").fill("The zebra saw the bank")
    control(page, "padding").select_option("none")
    assert_attention(page, "The zebra saw the bank", source, query=5)
    expect(page.locator(".explorer-note").first).to_contain_text("read as [UNK]: “zebra”")


def test_attention_of_random_vectors_and_their_width(attention_page):
    page = attention_page
    expect(page.get_by_label("Width d")).to_be_hidden()
    control(page, "source").select_option("random")
    assert_attention(page, SENTENCE, "random", query=7, width=16)
    control(page, "scaled").click()
    page.get_by_label("Width d").focus()
    for presses, width in ((3, 128), (1, 256)):
        for _ in range(presses):
            page.keyboard.press("ArrowRight")
        assert_attention(page, SENTENCE, "random", query=7, width=width, scale=1.0)
    page.keyboard.press("Home")
    assert_attention(page, SENTENCE, "random", query=7, width=1, scale=1.0)


def test_attention_by_touch(open_explorer):
    visit = open_explorer(AttentionExplorer(SENTENCE), width=360, height=740, touch=True)
    page = visit.page
    page.locator("[data-name=query] label", has_text="her").tap()
    control(page, "causal").tap()
    assert_attention(page, query=2, mask=causal_mask(8))
    box = control(page, "temperature").bounding_box()
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    temperature = float(
        page.locator(".explorer-slider output >> visible=true").get_attribute("data-value")
    )
    assert 5 < temperature < 15
    steps = math.log10(temperature) / 0.05
    assert steps == pytest.approx(round(steps), abs=1e-3)
    assert_attention(page, query=2, mask=causal_mask(8), scale=0.5 / 10 ** (0.05 * round(steps)))
    assert not visit.complaints()


def test_attention_in_a_narrow_column_folds_the_rest(open_explorer):
    visit = open_explorer(AttentionExplorer(SENTENCE, compact=True), width=350)
    page = visit.page
    expect(page.locator(".explorer-heat").first).to_be_hidden()
    page.get_by_text(re.compile("^Masks")).press("Enter")
    expect(page.locator(".explorer-heat").first).to_be_visible()
    control(page, "causal").check()
    assert_attention(page, query=7, mask=causal_mask(8))
    assert not visit.complaints()


# ------------------------------------------------------------------------------- positions
@pytest.fixture
def position_page(open_explorer) -> Page:
    visit = open_explorer(PositionExplorer())
    yield visit.page
    assert not visit.complaints()


def value_of(page: Page, name: str) -> float:
    return numbers(control(page, name))[0]


def curve_of(page: Page) -> list[float]:
    return [float(x) for x in control(page, "curve").get_attribute("data-values").split()]


def press(page: Page, name: str, key: str, times: int = 1) -> None:
    control(page, name).focus()
    for _ in range(times):
        page.keyboard.press(key)


def assert_sinusoids(page, t, k, width, base):
    PE = sinusoidal(1500, width, base=base)
    expected = PE[t] @ PE[t + k]
    assert value_of(page, "here") == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert value_of(page, "start") == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert value_of(page, "far") == pytest.approx(
        PE[t + 1000] @ PE[t + k + 1000], rel=1e-4, abs=1e-5
    )
    cosines = np.cos(rope_angles(k, width, base=base)).sum()
    assert value_of(page, "formula") == pytest.approx(cosines, rel=1e-4, abs=1e-5)
    assert close(curve_of(page), PE[:101] @ PE[0])
    page.get_by_text("Sines and cosines as numbers").click()
    shown = numbers(page.locator(".explorer-heat tbody td"))
    assert close(shown, PE[[t, t + k], :16])


def test_sinusoids_at_first_and_moved_by_keys(position_page):
    page = position_page
    assert_sinusoids(page, 20, 5, 64, 10_000.0)
    press(page, "position", "ArrowRight", 30)
    press(page, "offset", "ArrowUp", 8)
    press(page, "width", "ArrowLeft", 27)
    press(page, "base", "ArrowLeft", 6)
    assert_sinusoids(page, 50, 13, 10, 10**2.5)
    expect(page.locator(".explorer-says")).to_contain_text("for tokens at 50 and 63")
    press(page, "width", "Home")
    press(page, "offset", "Home")
    assert_sinusoids(page, 50, 0, 2, 10**2.5)


def test_the_pattern_is_the_table_of_sinusoids(position_page):
    """Pixels of the picture: bright is 1, dark is -1, and it is as large as the table."""
    canvas = position_page.locator(".explorer-pattern canvas")
    assert canvas.evaluate("c => [c.width, c.height]") == [301, 64]
    green = """c => {
      const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      return Array.from({ length: c.width * c.height }, (_, i) => data[4 * i + 1]);
    }"""
    picture = np.reshape(canvas.evaluate(green), (64, 301))  # viridis gets greener all the way
    table = sinusoidal(301, 64).T
    order = np.argsort(table, axis=None)
    assert (np.diff(picture.ravel()[order]) >= 0).all()
    assert picture.min() <= 3 and picture.max() >= 230


def test_rotations(position_page):
    page = position_page
    control(page, "encoding").select_option("RoPE")
    for kind in ("alike", "random"):
        control(page, "kind").select_option(kind)
        query, key = unit_pair(64, kind)
        turned_query = rope_rotate(np.tile(query, (1500, 1)))
        turned_key = rope_rotate(np.tile(key, (1500, 1)))
        for name, t in (("here", 20), ("start", 0), ("far", 1020)):
            assert value_of(page, name) == pytest.approx(
                turned_query[t + 5] @ turned_key[t], rel=1e-4
            )
        assert close(curve_of(page), turned_query[:101] @ turned_key[0])
    assert value_of(page, "formula") == pytest.approx(query @ key, rel=1e-4)
    press(page, "base", "Home")
    press(page, "offset", "ArrowRight", 10)
    query, key = (rope_rotate(np.tile(x, (99, 1)), base=10**0.5) for x in unit_pair(64, "random"))
    assert value_of(page, "here") == pytest.approx(query[35] @ key[20], rel=1e-4)


@pytest.mark.parametrize("heads", [8, 12, 1])
def test_fines(position_page, heads):
    page = position_page
    control(page, "encoding").select_option("ALiBi")
    assert not control(page, "base").is_visible() and not control(page, "width").is_visible()
    press(page, "heads", "Home")
    press(page, "heads", "ArrowRight", heads - 1)
    press(page, "head", "ArrowRight", 2)
    head = min(3, heads)
    bias, slopes = alibi_bias(heads, 101), alibi_slopes(heads)
    assert (
        value_of(page, "here")
        == value_of(page, "far")
        == pytest.approx(bias[head - 1, 25, 20], rel=1e-5)
    )
    assert value_of(page, "slope") == pytest.approx(slopes[head - 1], rel=1e-5)
    assert value_of(page, "factor") == pytest.approx(np.exp(-5 * slopes[head - 1]), rel=1e-5)
    zeros = np.zeros((101, 1))
    _, weights = scaled_dot_product_attention(zeros, zeros, zeros)
    expected = weights[-1] * np.exp(bias[head - 1, -1])
    assert close(curve_of(page), (expected / expected.sum())[::-1])
    assert close(numbers(page.locator(".explorer-heat tbody td")), [slopes, np.log(2) / slopes])


def test_positions_by_touch(open_explorer):
    visit = open_explorer(PositionExplorer(), width=360, height=740, touch=True)
    page = visit.page
    box = control(page, "position").bounding_box()
    page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    t = int(control(page, "position").input_value())
    assert 90 <= t <= 110
    page.get_by_text("Sines and cosines as numbers").tap()
    PE = sinusoidal(300, 64)
    assert close(numbers(page.locator(".explorer-heat tbody td")), PE[[t, t + 5], :16])
    assert not visit.complaints()


# ------------------------------------------------------------------------------- the real pages
def test_the_explorers_of_the_website(open_page, site):
    """From disk: chapter 4, where the page's own styles meet the explorer's, and the first page."""
    visit = open_page((site / "notebooks" / "04_attention.html").as_uri(), width=360, dark=True)
    visit.page.locator(".explorer-fallback").first.scroll_into_view_if_needed()
    expect(visit.page.locator(".explorer")).to_have_count(1)
    assert_attention(visit.page, query=7)
    visit.page.locator("[data-name=query] label", has_text="her").click()
    control(visit.page, "causal").focus()
    visit.page.keyboard.press("Space")
    assert_attention(visit.page, query=2, mask=causal_mask(8))
    assert not visit.page.evaluate("'require' in window")  # no library was needed
    assert not visit.complaints()

    visit = open_page((site / "intro.html").as_uri())
    expect(visit.page.locator(".attention-figure")).to_be_hidden()
    control(visit.page, "sentence").fill("Turn left or right")
    tokens, *vectors = queries_keys_values("Turn left or right", "head 5")
    _, weights = scaled_dot_product_attention(*vectors)
    visit.page.locator("[data-name=query] label", has_text="left").click()
    assert close(numbers(control(visit.page, "weight")), weights[tokens.index("left")])
    assert not visit.complaints()
