"""The attention explorer of chapter 4: edit a sentence, turn the knobs, watch the weights."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.attention import scaled_dot_product_attention
from utils.widgets.base import Explorer, random_vector, unpack
from utils.widgets.words import ASKED, FEATURES, PASSED_ON, features, projections

Array = NDArray[np.float64]

LONGEST = 13  # words; the file of the encoder's heads has room for two marks and padding besides
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
PADDING = 3  # tokens, when padding is switched on
WIDEST = 256  # of random vectors
SOURCES = {
    "hand": "chosen by hand (chapter 4)",
    "head 3": "released encoder, layer 1, head 3",
    "head 5": "released encoder, layer 1, head 5",
    "random": "random, as before any training",
}
EXAMPLES = (  # a sentence and the word that it is about
    ("Anna lost her keys and Ben found them", "them"),
    ("Ben read the letters and Anna burned them", "them"),
    ("The animal did not cross the street because it was too tired", "it"),
    ("Anna read the book on the river bank", "bank"),
    ("Then the dog chased the cat", "chased"),
)


class AttentionExplorer(Explorer, script="attention.js", style="attention.css"):
    """Show scores, weights and weighted sums for a sentence that the reader may edit.

    Words become queries, keys and values in one of four ways: by features chosen by hand, as in
    chapter 4; as two heads of the released encoder's first layer do it; or at random. See
    `queries_keys_values`, which gives the same numbers to Python.

    Parameters
    ----------
    sentence : str
        1 to 13 words; other characters are left out.
    query : str, optional
        The word that looks, by default the last.
    source : {"hand", "head 3", "head 5", "random"}
        Where the vectors come from at first.
    temperature : float
        From 0.1 to 30; the scores are divided by it.
    compact : bool
        Show less at first, for a narrow column.

    Raises
    ------
    TypeError, ValueError
        If the sentence, the query or a setting is not as above.
    """

    def __init__(
        self,
        sentence: str = EXAMPLES[0][0],
        query: str | None = None,
        *,
        source: str = "hand",
        temperature: float = 1.0,
        compact: bool = False,
    ) -> None:
        tokens, queries, keys, values = queries_keys_values(sentence, source)
        query = words_of(sentence)[-1] if query is None else query
        if query not in tokens:
            raise ValueError(f"query={query!r} is no word of {sentence!r}: choose one of {tokens}")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise TypeError(f"temperature should be a number such as 1.0, not {temperature!r}")
        if not 0.1 <= temperature <= 30:
            raise ValueError(f"temperature should be from 0.1 to 30, not {temperature}")
        scale = 1 / (math.sqrt(queries.shape[1]) * temperature)
        output, weights = scaled_dot_product_attention(queries, keys, values, scale=scale)
        chosen = len(tokens) - 1 - tokens[::-1].index(query)
        scores = queries[chosen] @ keys.T * scale
        super().__init__(
            {
                "sentence": sentence,
                "query": chosen,
                "source": source,
                "temperature": temperature,
                "compact": bool(compact),
                "longest": LONGEST,
                "padding": PADDING,
                "sources": list(SOURCES.items()),
                "examples": [list(example) for example in EXAMPLES],
                "hand": _hand(),
                "encoder": _encoder(),
            },
            words="\n".join(
                [
                    f"Attention explorer: {sentence}",
                    f"Vectors: {SOURCES[source]}. Scores are divided by the square root of "
                    f"d = {queries.shape[1]} and by the temperature, {temperature:g}; no mask.",
                    f"What {query!r} looks at:",
                    "",
                    "key              score   weight",
                    *(
                        f"{token:<14} {score:7.2f}  {weight:7.3f}"
                        for token, score, weight in zip(
                            tokens, scores, weights[chosen], strict=True
                        )
                    ),
                    *_received(source, output[chosen]),
                ]
            ),
        )


def queries_keys_values(
    sentence: str, source: str = "hand", *, width: int = 16, padding: int = 0
) -> tuple[list[str], Array, Array, Array]:
    """Return what the explorer computes with, for use with `utils.attention`.

    Parameters
    ----------
    sentence : str
    source : {"hand", "head 3", "head 5", "random"}
        "hand": features chosen by hand, times chapter 4's matrices; a word that nobody has
        described is zero. "head 3" and "head 5": the first layer of the released encoder, with
        its marks [CLS] and [SEP]; an unknown word counts as [UNK]. "random": independent
        numbers of mean 0 and variance 1 for each word, the same whenever the word comes.
    width : int
        d, from 1 to 256, for "random" only; the others have 4 and 32.
    padding : int
        So many tokens [PAD] at the end, up to 3.

    Returns
    -------
    tokens : list of str
        T of them.
    queries, keys : numpy.ndarray, shape (T, d)
    values : numpy.ndarray, shape (T, d_v)

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    words = words_of(sentence)
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}: use one of {list(SOURCES)}")
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= WIDEST:
        raise ValueError(f"width should be a whole number from 1 to {WIDEST}, not {width!r}")
    if isinstance(padding, bool) or padding not in range(PADDING + 1):
        raise ValueError(f"padding should be from 0 to {PADDING} tokens, not {padding!r}")
    pads = ["[PAD]"] * padding
    if source == "hand":
        tokens = words + pads
        nothing = [0] * len(FEATURES)
        X = np.array([features().get(token.lower(), nothing) for token in tokens], dtype=float)
        return tokens, *(X @ matrix for matrix in projections())
    if source == "random":
        tokens = words + pads
        roles = ("query", "key", "value")
        return tokens, *(
            np.stack([random_vector(f"{role}:{token.lower()}", width) for token in tokens])
            for role in roles
        )
    tokens = ["[CLS]", *words, "[SEP]", *pads]
    return tokens, *_encoder_vectors(tokens, int(source.removeprefix("head ")))


def words_of(sentence: str) -> list[str]:
    """Return the words of a sentence, without punctuation, or say why it cannot be shown."""
    if not isinstance(sentence, str):
        raise TypeError(f"sentence should be a string, not a {type(sentence).__name__}")
    words = WORD.findall(sentence)
    if not 1 <= len(words) <= LONGEST:
        raise ValueError(f"sentence should have from 1 to {LONGEST} words, not {len(words)}")
    return words


def _hand() -> dict[str, Any]:
    """Return what the script needs of the words described by hand."""
    matrices = dict(zip(("query", "key", "value"), projections(), strict=True))
    return {
        "words": features(),
        "features": FEATURES,
        "asked": ASKED,
        "passed": PASSED_ON,
        "matrices": {name: matrix.astype(int).tolist() for name, matrix in matrices.items()},
    }


@cache
def _encoder() -> dict[str, Any]:
    path = Path(__file__).resolve().parent / "encoder_heads.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _encoder_vectors(tokens: list[str], head: int) -> list[Array]:
    """Return queries, keys and values of a head; utils/widgets/export.py has the formula."""
    data = _encoder()
    known = data["words"]
    ids = [
        known.index(name if (name := _as_known(token)) in known else "[UNK]") for token in tokens
    ]
    places = range(len(tokens))
    variance = (
        unpack(data["wordSquare"])[ids]
        + unpack(data["placeSquare"])[: len(tokens)]
        + unpack(data["product"])[ids, places]
    )
    spread = np.sqrt(variance + data["epsilon"])[:, None]  # (T, 1)
    parts = next(each for each in data["heads"] if each["head"] == head)
    return [
        (unpack(part["word"])[ids] + unpack(part["place"])[: len(tokens)]) / spread
        + unpack(part["constant"])
        for part in (parts["query"], parts["key"], parts["value"])
    ]


def _as_known(token: str) -> str:
    return token if token.startswith("[") else token.lower()


def _received(source: str, output: Array) -> list[str]:
    """Say what a query receives, where its components have names."""
    if source != "hand":
        return []
    largest = sorted(zip(output, PASSED_ON, strict=True), key=lambda pair: -pair[0])[:3]
    return ["", "It receives: " + ", ".join(f"{name} {x:.2f}" for x, name in largest)]
