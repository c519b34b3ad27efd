"""What all explorers have in common: a script and its numbers, and the same said in words."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

HERE = Path(__file__).resolve().parent
STATE_TYPE = "application/vnd.jupyter.widget-state+json"
VIEW_TYPE = "application/vnd.jupyter.widget-view+json"


class Explorer(anywidget.AnyWidget):
    """A widget whose script does all the computing, so that it needs no kernel once it is shown.

    A subclass names its script, and hands over what the script needs:

        class CoinExplorer(Explorer, script="coin.js"):
            def __init__(self, bias: float = 0.5) -> None:
                super().__init__({"bias": bias}, words=f"A coin that shows heads with {bias:.2f}.")

    The script is one ES module without imports, made of `common.js` and the named file, whose
    default export has a function `render({model, el})`; `model.get("data")` is the dictionary.
    The style sheet is `explorer.css`, and in addition the file that `style` names, if any.

    Parameters
    ----------
    data : dict
        Plain JSON. Round the numbers: every digit is stored in the notebook.
    words : str
        What the explorer shows at first, in a few lines of plain text: for a page without
        JavaScript, a terminal, and whoever compares outputs. It must be the same on every run.

    Raises
    ------
    TypeError, ValueError
        If `data` is not plain JSON, or `words` says too little to stand in for the explorer.
    """

    data = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, script: str | None = None, style: str | None = None) -> None:
        super().__init_subclass__()
        if script is not None:
            cls._esm = _texts("common.js", script)
            cls._css = _texts("explorer.css", *([style] if style else []))

    def __init__(self, data: dict[str, Any], words: str) -> None:
        try:
            json.dumps(data, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"data should be plain JSON, and this is not ({error}): turn arrays into lists "
                "with .tolist(), and leave out NaN and infinity"
            ) from None
        if not isinstance(words, str) or len(words.split()) < 4:
            raise ValueError(f"words should say what the explorer shows, not {words!r}")
        self.words = words
        super().__init__(data=data)

    def __repr__(self) -> str:
        return self.words

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, metadata = super()._repr_mimebundle_(**options)
        return bundle | {"text/plain": self.words}, metadata

    def embed(self, name: str, fallback: str | None = None) -> str:
        """Return HTML that shows the explorer on a page that loads book/_static/course.js.

        Parameters
        ----------
        name : str
            The model's id, different for every explorer on a page.
        fallback : str, optional
            HTML to see while the script has not run; by default the explorer's words.
        """
        traits = {key: getattr(self, key) for key in ("data", "_esm", "_css", "_anywidget_id")}
        model = {"model_module": "anywidget", "model_name": "AnyModel", "state": traits}
        state = {"version_major": 2, "version_minor": 0, "state": {name: model}}
        view = {"version_major": 2, "version_minor": 0, "model_id": name}
        return (
            f'<div class="explorer-embed">\n<script type="{STATE_TYPE}">{_in_a_script(state)}'
            f'</script>\n<script type="{VIEW_TYPE}">{_in_a_script(view)}</script>\n'
            f'<div class="explorer-fallback">{fallback or in_words(self.words)}</div>\n</div>\n'
        )


def pack(array: ArrayLike) -> dict[str, Any]:
    """Write an array as text: 16 bits a number, in steps of a 32,767th of the largest.

    Worth it from a few hundred numbers on; `unpack` in common.js reads it.

    Raises
    ------
    ValueError
        If the array is empty or holds NaN or infinity.
    """
    array = np.asarray(array, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"an array of shape {array.shape} to pack is empty or not finite")
    step = float(f"{np.abs(array).max() / 32767 or 1.0:.6g}") * (1 + 1e-5)  # rounded, not too small
    whole = np.round(array / step).astype("<i2")
    return {
        "shape": list(array.shape),
        "step": step,
        "int16": base64.b64encode(whole.tobytes()).decode("ascii"),
    }


def unpack(packed: dict[str, Any]) -> NDArray[np.float64]:
    """Return the array that `pack` has written, as it reads it after rounding."""
    whole = np.frombuffer(base64.b64decode(packed["int16"]), dtype="<i2")
    return whole.reshape(packed["shape"]) * packed["step"]


def random_vector(name: str, width: int) -> NDArray[np.float64]:
    """Return `width` Gaussian numbers that depend on the name alone, in Python as in the script.

    A hash of the name (FNV-1a) starts a generator that needs nothing but 32-bit integers, xorshift
    (Marsaglia 2003, doi:10.18637/jss.v008.i14); Box and Muller's formula makes its numbers normal.
    """
    state = 2166136261
    for byte in name.encode():
        state = (state ^ byte) * 16777619 % 2**32
    state = state or 1
    uniform = []
    for _ in range(width + width % 2):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        uniform.append((state + 0.5) / 2**32)
    first, second = np.array(uniform[0::2]), np.array(uniform[1::2])
    radius = np.sqrt(-2 * np.log(first))
    pairs = [radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)]
    return np.stack(pairs, axis=1).reshape(-1)[:width]


def in_words(words: str) -> str:
    """Return an explorer's words as HTML."""
    return f'<pre class="explorer-words">{html.escape(words)}</pre>'


def _texts(*names: str) -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def _in_a_script(value: Any) -> str:
    """Write JSON such that no text in it can end the script element."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
