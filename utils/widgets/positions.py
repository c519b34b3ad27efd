"""The explorer of positions of chapter 5: sinusoids, rotations and fines, by sliders."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from utils.positions import alibi_slopes, rope_rotate, sinusoidal
from utils.widgets.base import Explorer, random_vector

ENCODINGS = {"sinusoidal": "sinusoids", "RoPE": "RoPE", "ALiBi": "ALiBi"}
FARTHEST = 200  # the first token's position
WIDEST = 128
APART = 100  # the largest distance
MOST_HEADS = 16


class PositionExplorer(Explorer, script="positions.js", style="positions.css"):
    """Show what two tokens at a distance have to do with each other under three encodings.

    Parameters
    ----------
    encoding : {"sinusoidal", "RoPE", "ALiBi"}
    position : int
        Where the first token stands, from 0 to 200.
    offset : int
        How far behind it the second one stands, from 0 to 100.
    d_model : int
        The width of the encoding, or of a head for RoPE: even, from 2 to 128.
    base : float
        From 3 to a million; the slider takes the nearest of its steps.
    num_heads : int
        For ALiBi, from 1 to 16.

    Raises
    ------
    TypeError, ValueError
        If a setting is not as above.
    """

    def __init__(
        self,
        encoding: str = "sinusoidal",
        *,
        position: int = 20,
        offset: int = 5,
        d_model: int = 64,
        base: float = 10_000.0,
        num_heads: int = 8,
    ) -> None:
        if encoding not in ENCODINGS:
            raise ValueError(f"unknown encoding {encoding!r}: use one of {list(ENCODINGS)}")
        _check_whole("position", position, 0, FARTHEST)
        _check_whole("offset", offset, 0, APART)
        _check_whole("d_model", d_model, 2, WIDEST)
        _check_whole("num_heads", num_heads, 1, MOST_HEADS)
        if d_model % 2:
            raise ValueError(f"d_model should be even, since components come in pairs: {d_model}")
        if isinstance(base, bool) or not isinstance(base, int | float):
            raise TypeError(f"base should be a number such as 10000.0, not {base!r}")
        if not 3 <= base <= 1_000_000:
            raise ValueError(f"base should be from 3 to a million, not {base}")
        data = {
            "encoding": encoding,
            "position": position,
            "offset": offset,
            "width": d_model,
            "base": base,
            "heads": num_heads,
            "encodings": list(ENCODINGS.items()),
            "farthest": FARTHEST,
            "apart": APART,
            "widest": WIDEST,
            "mostHeads": MOST_HEADS,
        }
        super().__init__(data, words=_words(data))


def unit_pair(width: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the query and the key that the explorer turns, each of length 1.

    Parameters
    ----------
    width : int
        D.
    kind : {"alike", "random"}
        Equal in all components, or two that have nothing to do with each other.

    Returns
    -------
    query, key : numpy.ndarray, shape (D,)
    """
    if kind not in ("alike", "random"):
        raise ValueError(f"unknown kind {kind!r}: use 'alike' or 'random'")
    if kind == "alike":
        query = key = np.ones(width)
    else:
        query, key = random_vector("query", width), random_vector("key", width)
    return query / np.linalg.norm(query), key / np.linalg.norm(key)


def _words(data: dict[str, Any]) -> str:
    """Say in a few lines what there is to see at first."""
    encoding, width, base = data["encoding"], data["width"], data["base"]
    distances = (0, 1, 2, 5, 10, 20, 50, 100)
    if encoding == "ALiBi":
        slopes = alibi_slopes(data["heads"])
        return "\n".join(
            [
                f"Explorer of positions: ALiBi, {data['heads']} heads.",
                "A head subtracts its slope times the distance from the score.",
                "",
                "head     slope   half of the weight within",
                *(
                    f"{head:>4}  {slope:8.5f}   {math.log(2) / slope:7.1f} tokens"
                    for head, slope in enumerate(slopes, start=1)
                ),
            ]
        )
    if encoding == "RoPE":
        query, key = unit_pair(width, "alike")
        keys = rope_rotate(np.tile(key, (len(distances), 1)), [-d for d in distances], base=base)
        products = keys @ query
        what = "query · key, equal vectors of length 1, turned"
    else:
        table = sinusoidal(data["apart"] + 1, width, base=base)
        products = table[list(distances)] @ table[0]
        what = "PE(t) · PE(t + k)"
    return "\n".join(
        [
            f"Explorer of positions: {ENCODINGS[encoding]}, width {width}, base {base:,.0f}.",
            "The product of two tokens depends on their distance k only, not on where they stand.",
            "",
            f"   k   {what}",
            *(f"{k:4}   {x:7.3f}" for k, x in zip(distances, products, strict=True)),
        ]
    )


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} should be a whole number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} should be from {low} to {high}, not {value}")
