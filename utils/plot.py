"""One style for every figure, and the few kinds of figure that chapters share."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from utils.arguments import (
    as_floats,
    as_list,
    as_number,
    as_whole_number,
    check_text,
    check_type,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Okabe and Ito's palette, made to be told apart with any kind of colour vision
# (https://jfly.uni-koeln.de/color/). Yellow is last: it is weak on a light ground.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#222222",
    "yellow": "#F0E442",
}
LINE_STYLES = ("-", "--", "-.", ":")  # so that lines differ without their colours too
CARD = "#fbfbf8"  # a light ground of the figure's own, so that it reads in dark mode as well


def use_style() -> None:
    """Set matplotlib's defaults to the course's style; every chapter calls it once."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.facecolor": CARD,
            "savefig.facecolor": CARD,
            "axes.facecolor": CARD,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": mpl.cycler(color=list(COLOURS.values())),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "lines.linewidth": 2.0,
            "image.cmap": "viridis",  # lightness rises evenly: it survives greyscale
            "svg.hashsalt": "language-models",  # the same figure gives the same file
            "svg.fonttype": "path",
        }
    )


def show(fig: Figure, alt: str) -> None:
    """Show a figure as SVG with a text that says the same, then close it.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
    alt : str
        One or two sentences for a reader who cannot see the figure: what is drawn, and what
        there is to notice. It becomes the image's alternative text on the website.

    Raises
    ------
    ValueError
        If `alt` says too little to stand in for the figure.
    """
    from IPython.display import display

    if not isinstance(alt, str) or len(alt.split()) < 4:
        raise ValueError(
            f"alt must be a sentence that says what the figure shows, not {alt!r}; "
            "for example alt='Heat map of attention weights: each row is brightest on its left.'"
        )
    check_type("fig", fig, mpl.figure.Figure, hint="plt.subplots() makes a figure and its axes")
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    svg = buffer.getvalue()
    data = {"image/svg+xml": svg[svg.index("<svg") :], "text/plain": f"Figure: {alt}"}
    display(data, metadata={"image/svg+xml": {"alt": alt}}, raw=True)


def curves(
    ax: Axes,
    x: Sequence[float] | Mapping[str, Sequence[float]],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> None:
    """Draw several labelled lines that differ in colour and in dash.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    x : sequence, or mapping from label to sequence
        The horizontal positions, one set for all lines or one for each.
    lines : mapping from label to sequence
    xlabel, ylabel, title : str
        Name the quantity and its unit, as in "validation loss (nats per character)".

    Raises
    ------
    TypeError, ValueError
        If a line has another number of points than there are positions, or none for its label.
    """
    check_type("ax", ax, mpl.axes.Axes, hint="plt.subplots() makes a figure and its axes")
    check_text(xlabel=xlabel, ylabel=ylabel, title=title)
    lines = _as_lines(x, lines)
    for index, (label, (positions, y)) in enumerate(lines.items()):
        ax.plot(positions, y, LINE_STYLES[index % len(LINE_STYLES)], label=label)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(lines) > 1:
        ax.legend()


def _as_lines(
    x: Sequence[float] | Mapping[str, Sequence[float]], lines: Mapping[str, Sequence[float]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each line's positions and values as arrays, by its label."""
    if not isinstance(lines, Mapping):
        raise TypeError(f"lines must be a dict from label to values, not a {type(lines).__name__}")
    found = {}
    for label, values in lines.items():
        if isinstance(x, Mapping) and label not in x:
            raise ValueError(f"x has no positions for the line {label!r}: it has {list(x)}")
        y = as_floats(f"lines[{label!r}]", values, "(N,)")
        positions = as_floats("x", x[label] if isinstance(x, Mapping) else x, "(N,)")
        if len(positions) != len(y):
            raise ValueError(f"lines[{label!r}] has {len(y)} values, but x {len(positions)}")
        found[label] = (positions, y)
    return found


def heatmap(
    ax: Axes,
    matrix: np.ndarray,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    decimals: int | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    colourbar: bool = True,
) -> AxesImage:
    """Draw a matrix as coloured cells, with the numbers in them if asked for.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    matrix : array_like, shape (rows, columns)
        NaN cells are left blank.
    row_labels, column_labels : sequence of str
        One per row or column, or none. For attention: queries down, keys across.
    decimals : int, optional
        Write each number into its cell with this many decimals.
    vmin, vmax : float, optional
        The ends of the colour scale, by default the smallest and largest value.

    Returns
    -------
    matplotlib.image.AxesImage

    Raises
    ------
    ValueError
        If `matrix` is not two-dimensional or the number of labels does not fit it.
    """
    check_type("ax", ax, mpl.axes.Axes, hint="plt.subplots() makes a figure and its axes")
    check_text(xlabel=xlabel, ylabel=ylabel, title=title)
    matrix = as_floats("matrix", matrix).astype(float)
    _check_ends(matrix, vmin, vmax)
    row_labels = _as_labels("row_labels", row_labels)
    column_labels = _as_labels("column_labels", column_labels)
    if decimals is not None:
        as_whole_number("decimals", decimals, 0, 20)
    if matrix.ndim != 2:
        raise ValueError(
            f"a heat map needs a matrix of shape (rows, columns), not shape {matrix.shape}; "
            "choose one example and one head first, for instance weights[0, 0]"
        )
    for name, labels, size in (
        ("row_labels", row_labels, matrix.shape[0]),
        ("column_labels", column_labels, matrix.shape[1]),
    ):
        if len(labels) not in (0, size):
            raise ValueError(f"{len(labels)} {name} for {size}: give one each, or none")
    image = ax.imshow(matrix, vmin=vmin, vmax=vmax, aspect="equal", interpolation="nearest")
    ax.grid(False)
    if len(column_labels):
        slant = 45 if max(map(len, column_labels)) > 3 else 0
        ax.set_xticks(range(matrix.shape[1]), column_labels, rotation=slant)
    if len(row_labels):
        ax.set_yticks(range(matrix.shape[0]), row_labels)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if decimals is not None:
        _write_numbers(ax, image, matrix, decimals)
    if colourbar:
        ax.figure.colorbar(image, ax=ax, shrink=0.8)
    return image


def _as_labels(name: str, labels: Sequence[str]) -> list[str]:
    """Return labels as a list; a string is a label for each of its letters."""
    return as_list(name, list(labels) if isinstance(labels, str) else labels, str)


def _check_ends(matrix: np.ndarray, vmin: float | None, vmax: float | None) -> None:
    """Raise ValueError unless a colour scale has its lower end first."""
    finite = matrix[np.isfinite(matrix)]
    low = finite.min(initial=np.inf) if vmin is None else as_number("vmin", vmin)
    high = finite.max(initial=-np.inf) if vmax is None else as_number("vmax", vmax)
    if finite.size and not (low == high or high - low > 1e-100):
        raise ValueError(
            f"vmin must be below vmax, but the colours would go from {low:g} to {high:g} (vmin="
            f"{vmin} and vmax={vmax} were given)"
        )


def _write_numbers(ax: Axes, image: AxesImage, matrix: np.ndarray, decimals: int) -> None:
    """Write each value into its cell, dark on light cells and light on dark ones."""
    for row, column in np.argwhere(np.isfinite(matrix)):
        red, green, blue, _ = image.cmap(image.norm(matrix[row, column]))
        brightness = 0.299 * red + 0.587 * green + 0.114 * blue
        ax.text(
            column,
            row,
            f"{matrix[row, column]:.{decimals}f}",
            ha="center",
            va="center",
            fontsize=9,
            color="#111111" if brightness > 0.5 else "#ffffff",
        )
