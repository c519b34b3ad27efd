"""bertviz's views as frames: what is in them, and that nothing in them comes from elsewhere.

That they draw is tested in a browser: tests/site/test_views.py.
"""

import base64
import gzip
import html
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from utils import views

TOKENS = ["[CLS]", "tea", "##pot", "Ġlid", "</script>", "."]
ABOUT = "Point at a token to see <where> it looks."


def made(kind, T=6, L=2, H=3, D=4, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(L, H, T, T, generator=generator).softmax(-1)
    tokens = TOKENS[:T]
    if kind == "neuron":
        queries, keys = torch.randn(2, L, H, T, D, generator=generator)
        return views.neuron_view(queries, keys, weights, tokens, about=ABOUT, **options)
    view = {"head": views.head_view, "model": views.model_view}[kind]
    return view(weights, tokens, about=ABOUT, **options)


def attributes(frame):
    """Return the attributes of the frame's only element."""
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    Parser().feed(frame._repr_html_())
    assert [tag for tag, _ in found] == ["iframe"]
    return found[0][1]


def scripts(frame):
    """Unpack the scripts as a browser does."""
    packed = re.search(r'<script id="packed"[^>]*>(.*?)</script>', frame.page, re.DOTALL).group(1)
    return gzip.decompress(base64.b64decode(packed)).decode()


KINDS = ["head", "model", "neuron"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_locked_and_named(kind):
    frame = made(kind)
    attrs = attributes(frame)
    assert attrs["sandbox"] == "allow-scripts"
    assert "attention" in attrs["title"]
    assert "src" not in attrs
    assert attrs["srcdoc"] == frame.page
    assert html.escape(ABOUT) in frame.page
    assert ABOUT in repr(frame)


@pytest.mark.parametrize(("kind", "controls"), [("head", 1), ("model", 0), ("neuron", 2)])
def test_every_control_has_a_name(kind, controls):
    found = re.findall(r"<select\b[^>]*>", made(kind).page)
    assert len(found) == controls
    assert all(re.search(r'aria-label="\w+"', control) for control in found)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_from_elsewhere(kind):
    frame = made(kind)
    page = re.sub(r"<!--.*?-->", "", frame.page, flags=re.DOTALL)
    assert not re.search(r"https?:|//cdn|\bsrc=|\bhref=|@import|url\(", page)
    text = scripts(frame)
    assert "jQuery v3" in text
    assert "d3.schemeCategory10 =" in text
    # bertviz names addresses for require.js; our `require.config` does nothing with them.
    assert "require.config = function () {};" in text


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_give_the_same_frame(kind):
    assert made(kind) == made(kind)
    assert made(kind) != made(kind, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_small_enough_for_a_notebook(kind):
    assert len(made(kind)._repr_html_()) < 200_000


@pytest.mark.parametrize("kind", ["head", "model"])
def test_the_numbers_are_the_weights_in_two_decimals(kind):
    frame = made(kind)
    params = json.loads(re.search(r"const params = (\{.*?\}); // HACK", scripts(frame)).group(1))
    (shown,) = params["attention"]
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(2, 3, 6, 6, generator=generator).softmax(-1)
    torch.testing.assert_close(torch.tensor(shown["attn"]), weights, atol=6e-3, rtol=0)
    assert all(len(str(x)) <= 4 for x in shown["attn"][0][0][0])


def test_what_is_shown_first():
    text = scripts(made("head", layer=1, heads=[2]))
    params = json.loads(re.search(r"const params = (\{.*?\}); // HACK", text).group(1))
    assert (params["layer"], params["heads"]) == (1, [2])
    text = scripts(made("neuron", layer=1, head=2))
    params = json.loads(re.search(r"bertviz_params = (\{.*\})", text).group(1))
    assert (params["layer"], params["head"]) == (1, 2)
    assert params["bidirectional"] is True
    assert params["attention"]["all"]["left_text"][1] == "tea"
    text = scripts(made("neuron", causal=True))
    assert '"bidirectional": false' in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_cannot_end_the_script(kind):
    assert '"</script>"' not in scripts(made(kind))
    assert frame_is_whole(made(kind))


def frame_is_whole(frame):
    return frame.page.count("<script") == 2 == frame.page.count("</script>")


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_short_texts(kind, T):
    assert frame_is_whole(made(kind, T=T))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.ones(2, 3, 5, 5), TOKENS), ValueError, "T = 6"),
        ((torch.ones(3, 6, 6), TOKENS), ValueError, "(3, 6, 6)"),
        ((torch.ones(0, 3, 6, 6), TOKENS), ValueError, "(0, 3, 6, 6)"),
        (([[1.0]], ["a"]), TypeError, "not a list"),
        ((torch.ones(1, 1, 3, 3), "abc"), TypeError, "list of strings"),
        ((torch.ones(1, 1, 2, 2), [1, 2]), TypeError, "list of strings"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, words):
    for view in (views.head_view, views.model_view):
        with pytest.raises(error, match=re.escape(words)):
            view(*arguments, about=ABOUT)


def test_an_empty_description_and_a_missing_head_are_refused():
    weights = torch.ones(2, 3, 6, 6)
    with pytest.raises(ValueError, match="about should be a sentence"):
        views.head_view(weights, TOKENS, about="head view")
    with pytest.raises(ValueError, match="2 layers of 3 heads"):
        views.head_view(weights, TOKENS, about=ABOUT, layer=2)
    with pytest.raises(ValueError, match="2 layers of 3 heads"):
        views.head_view(weights, TOKENS, about=ABOUT, heads=[3])
    vectors = torch.ones(2, 3, 6, 4)
    with pytest.raises(ValueError, match="2 layers of 3 heads"):
        views.neuron_view(vectors, vectors, weights, TOKENS, about=ABOUT, head=3)
    with pytest.raises(ValueError, match="keys should have shape"):
        views.neuron_view(vectors, vectors[:1], weights, TOKENS, about=ABOUT)
