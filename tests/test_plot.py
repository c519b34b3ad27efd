"""Figures: their style, their alternative texts, what they refuse."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt

from utils import plot


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def displayed(monkeypatch):
    """Catch what would be displayed in a notebook."""
    caught = []
    monkeypatch.setattr(
        "IPython.display.display",
        lambda data, metadata, raw: caught.append((data, metadata)),
    )
    return caught


def relative_luminance(colour):
    """WCAG 2's definition."""
    channels = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_a_figure_is_shown_as_svg_with_its_alternative_text(displayed):
    plot.use_style()
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    plot.show(fig, alt="A line that rises from one to two.")
    data, metadata = displayed[0]
    assert data["image/svg+xml"].startswith("<svg")
    assert metadata["image/svg+xml"]["alt"] == "A line that rises from one to two."
    assert not plt.get_fignums()


def test_the_same_figure_gives_the_same_bytes(displayed):
    plot.use_style()
    for _ in range(2):
        fig, ax = plt.subplots()
        plot.curves(ax, [1, 2], {"a": [1, 2], "b": [2, 1]}, xlabel="x", ylabel="y")
        plot.show(fig, alt="Two lines that cross in the middle.")
    assert displayed[0] == displayed[1]


@pytest.mark.parametrize("alt", ["", "plot", None, "a figure"])
def test_a_figure_without_a_real_alternative_text_is_refused(alt):
    fig, _ = plt.subplots()
    with pytest.raises(ValueError, match="sentence"):
        plot.show(fig, alt=alt)


def test_text_in_figures_stands_out_from_their_ground():
    plot.use_style()
    ground = relative_luminance(plt.rcParams["figure.facecolor"])
    text = relative_luminance(plt.rcParams["text.color"])
    assert (ground + 0.05) / (text + 0.05) > 7  # WCAG's strictest level


def test_lines_differ_by_dash_as_well_as_by_colour():
    _, ax = plt.subplots()
    plot.curves(ax, [1, 2], {name: [1, 2] for name in "abcd"}, xlabel="x", ylabel="y")
    assert len({line.get_linestyle() for line in ax.lines}) == 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list("abcd")


def test_curves_may_have_positions_of_their_own():
    _, ax = plt.subplots()
    plot.curves(ax, {"a": [1, 2], "b": [5]}, {"a": [3, 4], "b": [6]}, xlabel="x", ylabel="y")
    assert list(ax.lines[1].get_xdata()) == [5]


def test_a_heat_map_writes_legible_numbers_and_leaves_nan_blank():
    _, ax = plt.subplots()
    plot.heatmap(ax, [[0.0, 1.0], [np.nan, 0.5]], row_labels="ab", column_labels="cd", decimals=1)
    assert [text.get_text() for text in ax.texts] == ["0.0", "1.0", "0.5"]
    assert ax.texts[0].get_color() != ax.texts[1].get_color()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]


def test_a_heat_map_refuses_what_is_no_matrix_and_labels_that_do_not_fit():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        plot.heatmap(ax, np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="3 row_labels for 2"):
        plot.heatmap(ax, np.zeros((2, 2)), row_labels="abc")
