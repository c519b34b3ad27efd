"""bertviz's three views of attention, each as one frame that needs nothing from anywhere else.

    from utils import views
    views.head_view(weights, tokens, about="...")

bertviz (Vig 2019, arXiv:1906.05714) writes HTML that loads require.js, d3 and jQuery from the
network, and that JupyterLab 4 shows as an empty box. Here bertviz makes the same HTML, and what it
needs is packed into the frame (`srcdoc`) with it: the frame looks the same in JupyterLab, on the
website and without a network. d3 and jQuery are sources of `utils.data`, fetched at set-up.
"""

from __future__ import annotations

import base64
import gzip
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from utils.arguments import as_list, as_whole_number, check_tensor
from utils.data.sources import SOURCES
from utils.data.store import folder

if TYPE_CHECKING:
    from torch import Tensor

DECIMALS = 2  # of the weights in a frame: a line's opacity cannot show more

# bertviz asks require.js for two libraries. Both are in the frame already, so a few lines can
# answer. It was written for d3 5 and uses two names that d3 3 spells otherwise.
SHIM = """
d3.schemeCategory10 = d3.schemeCategory10 || d3.scale.category10().range();
d3.line = d3.line || d3.svg.line;
console.log = function () {};
var require = function (names, run) {
  run.apply(null, names.map(function (name) { return { jquery: jQuery, d3: d3 }[name]; }));
};
require.config = function () {};
var requirejs = require;
"""

# The scripts come gzipped, which makes a frame a third as large; every browser since 2023 unpacks.
UNPACK = """
(async function () {
  var status = document.getElementById("status");
  try {
    var text = atob(document.getElementById("packed").textContent.trim());
    var bytes = Uint8Array.from(text, function (c) { return c.charCodeAt(0); });
    var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    var script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    window.addEventListener("error", function (event) { status.textContent = event.message; });
    document.body.appendChild(script);
    if (document.querySelector("#vis svg")) status.remove();
  } catch (error) {
    status.textContent = "This view could not be drawn here (" + error.message + ").";
  }
})();
"""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<!-- bertviz: Jesse Vig, Apache-2.0. d3: Mike Bostock, BSD-3-Clause.
     jQuery: OpenJS Foundation, MIT. -->
<style>
:root {{ color-scheme: light; }}
body {{ margin: 0; padding: 10px; background: #fbfbf8; color: #222222;
  font: 14px/1.45 "Helvetica Neue", Helvetica, Arial, sans-serif; }}
p {{ margin: 0 0 8px; max-width: 46em; }}
select {{ font: inherit; margin-right: 12px; }}
svg {{ min-width: {width}px; }}
</style></head>
<body><p>{about}</p>
<p id="status"><noscript>The view needs JavaScript; the figure beside it does not.</noscript></p>
{markup}
<script id="packed" type="text/plain">{packed}</script>
<script>{unpack}</script>
</body></html>"""

CONTROLS = {"layer": "Layer", "att_head": "Head", "filter": "Attention"}  # id -> its name


@dataclass(frozen=True)
class Frame:
    """A view, shown by Jupyter as a frame and elsewhere as one line of text.

    Parameters
    ----------
    title : str
        What kind of view it is of what; screen readers announce the frame with it.
    about : str
        What there is to see and to do, written above the view.
    page : str
        The frame's own HTML page.
    height : int
        In pixels; the width is all there is.
    """

    title: str
    about: str
    page: str
    height: int

    def _repr_html_(self) -> str:
        """Return an inline frame whose page may run scripts and reach nothing else."""
        return (
            f'<iframe title="{html.escape(self.title)}" sandbox="allow-scripts" '
            f'style="width: 100%; height: {self.height}px; border: 1px solid #cccccc" '
            f'srcdoc="{html.escape(self.page)}"></iframe>'
        )

    def __repr__(self) -> str:
        """Describe the view in words."""
        return f"{self.title}: {self.about}"


def head_view(
    weights: Tensor,
    tokens: Sequence[str],
    *,
    about: str,
    layer: int = 0,
    heads: Sequence[int] | None = None,
) -> Frame:
    """Show who attends to whom in one layer: a line for each pair, a colour for each head.

    Parameters
    ----------
    weights : torch.Tensor, shape (L, H, T, T)
        Attention weights of one sequence; rows are queries.
    tokens : sequence of str
        T of them.
    about : str
        A sentence or two above the view: what there is to see and to do.
    layer : int
        Which layer is shown first.
    heads : sequence of int, optional
        Which heads are switched on at first; by default all.

    Returns
    -------
    Frame

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit together, or `about` says nothing.
    """
    from bertviz import head_view as bertviz_head_view

    weights = _checked(weights, tokens, about)
    L, H, T, _ = weights.shape
    layer = as_whole_number("layer", layer, -1)
    heads = None if heads is None else as_list("heads", heads, int)
    if not 0 <= layer < L or any(not 0 <= head < H for head in heads or ()):
        raise ValueError(f"layer={layer}, heads={heads}: there are {L} layers of {H} heads, from 0")
    view = bertviz_head_view(
        list(weights[:, None]),
        _safe(tokens),
        layer=layer,
        heads=None if heads is None else list(heads),
        html_action="return",
    )
    return _frame("Head view of attention", about, view.data, 340, 130 + 23 * T)


def model_view(weights: Tensor, tokens: Sequence[str], *, about: str) -> Frame:
    """Show every head of every layer as a small picture; a click enlarges one.

    Parameters
    ----------
    weights : torch.Tensor, shape (L, H, T, T)
    tokens : sequence of str
    about : str
        As for `head_view`.

    Returns
    -------
    Frame
    """
    from bertviz import model_view as bertviz_model_view

    weights = _checked(weights, tokens, about)
    L, H, T, _ = weights.shape
    view = bertviz_model_view(
        list(weights[:, None]), _safe(tokens), display_mode="light", html_action="return"
    )
    drawn = max(L * (7 * 12 / H * T + 10) + 38, 18 * T + 55)  # as model_view.js has it
    return _frame("Model view of attention", about, view.data, 970, 110 + round(drawn))


def neuron_view(
    queries: Tensor,
    keys: Tensor,
    weights: Tensor,
    tokens: Sequence[str],
    *,
    about: str,
    layer: int = 0,
    head: int = 0,
    causal: bool = False,
) -> Frame:
    """Show how a weight comes about: query, key, their product number by number, the softmax.

    Parameters
    ----------
    queries, keys : torch.Tensor, shape (L, H, T, D)
    weights : torch.Tensor, shape (L, H, T, T)
    tokens : sequence of str
    about : str
        As for `head_view`.
    layer, head : int
        What is shown first.
    causal : bool
        Whether a token sees only those before it.

    Returns
    -------
    Frame
    """
    from bertviz.neuron_view import show

    weights = _checked(weights, tokens, about)
    L, H, T, _ = weights.shape
    for name, x in (("queries", queries), ("keys", keys)):
        check_tensor(name, x, like=weights.float())
        if x.ndim != 4 or tuple(x.shape[:3]) != (L, H, T):
            raise ValueError(
                f"{name} should have shape (L, H, T, D) = ({L}, {H}, {T}, D), as the weights have, "
                f"not {tuple(x.shape)}"
            )
    layer, head = as_whole_number("layer", layer, -1), as_whole_number("head", head, -1)
    if not 0 <= layer < L or not 0 <= head < H:
        raise ValueError(f"layer={layer}, head={head}: there are {L} layers of {H} heads, from 0")
    recorded = _Recorded(_rounded(queries, 1), _rounded(keys, 1), weights)
    view = show(
        recorded,
        "gpt2",  # the one kind of model to which bertviz adds no tokens of its own
        _Tokens(_safe(tokens)),
        "any text: the tokens are given",
        display_mode="light",
        layer=layer,
        head=head,
        html_action="return",
    )
    both_ways = view.data.replace('"bidirectional": false', '"bidirectional": true')
    from_bertviz = view.data if causal else both_ways
    return _frame("Neuron view of attention", about, from_bertviz, 1020, 230 + 26 * T)


class _Recorded:
    """What bertviz's neuron view takes for a model: it returns what was recorded before."""

    def __init__(self, queries: Tensor, keys: Tensor, weights: Tensor) -> None:
        self.layers = [
            {"attn": w[None], "queries": q[None], "keys": k[None]}
            for q, k, w in zip(queries, keys, weights, strict=True)
        ]

    def eval(self) -> None:
        """Do nothing; bertviz calls it."""

    def __call__(self, *_: Any, **__: Any) -> tuple[Any]:
        return (self.layers,)


class _Tokens:
    """What bertviz's neuron view takes for a tokenizer: the tokens are given."""

    cls_token = sep_token = None

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def tokenize(self, _: str) -> list[str]:
        return self.tokens

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [0] * len(tokens)


def _safe(tokens: Sequence[str]) -> list[str]:
    """Return the tokens such that none can end a script: an invisible mark goes in between."""
    return [re.sub(r"<(?=[/!])", "<\u2060", token) for token in tokens]


def _checked(weights: Tensor, tokens: Sequence[str], about: str) -> Tensor:
    """Return weights rounded to what a picture can show, or say what is wrong."""
    import torch

    if not isinstance(weights, torch.Tensor):
        raise TypeError(f"weights should be a torch.Tensor, not a {type(weights).__name__}")
    check_tensor("weights", weights, values=True)
    tokens = as_list("tokens", tokens) if not isinstance(tokens, str) else tokens
    T = len(tokens)
    if weights.ndim != 4 or tuple(weights.shape[2:]) != (T, T) or not weights.numel():
        raise ValueError(
            f"weights should have shape (L, H, T, T) with T = {T}, the number of tokens, not "
            f"{tuple(weights.shape)}; choose one sequence of the batch first"
        )
    if isinstance(tokens, str) or not all(isinstance(token, str) for token in tokens):
        raise TypeError("tokens should be a list of strings, one for each position")
    if not isinstance(about, str) or len(about.split()) < 4:
        raise ValueError("about should be a sentence that says what there is to see in the view")
    return _rounded(weights, DECIMALS)


def _rounded(x: Tensor, decimals: int) -> Tensor:
    """Round in double precision, so that the numbers are short when they are written out."""
    return x.detach().cpu().double().round(decimals=decimals)


def _frame(title: str, about: str, from_bertviz: str, width: int, height: int) -> Frame:
    """Take bertviz's HTML apart, leave out what loads from the network, and pack the rest."""
    without = re.sub(r"<script src=[^>]*></script>", "", from_bertviz)
    inline = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)
    markup = inline.sub("", without)
    scripts = "\n;\n".join([*_libraries(), SHIM, *inline.findall(without)])
    for control, name in CONTROLS.items():  # the words beside a control are no label of it
        markup = markup.replace(
            f'<select id="{control}">', f'<select id="{control}" aria-label="{name}">'
        )
    identifier = re.search(r"bertviz-[0-9a-f]{32}", markup).group()  # random, so it would differ
    markup, scripts = (text.replace(identifier, "bertviz-view") for text in (markup, scripts))
    page = PAGE.format(
        title=html.escape(title),
        about=html.escape(about),
        width=width,
        markup=markup.strip(),
        packed=base64.b64encode(gzip.compress(scripts.encode(), 9, mtime=0)).decode(),
        unpack=UNPACK,
    )
    return Frame(title, about, page, height)


@cache
def _libraries() -> tuple[str, ...]:
    """Return the sources of jQuery and d3, fetched and verified."""
    files = [folder(name) / SOURCES[name].files[0][0] for name in ("jquery", "d3")]
    return tuple(file.read_text(encoding="utf-8") for file in files)
