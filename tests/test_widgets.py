"""The explorers' Python side: what they hand to their scripts, and what they refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from utils.attention import scaled_dot_product_attention
from utils.positions import rope_rotate, sinusoidal
from utils.widgets import AttentionExplorer, Explorer, PositionExplorer
from utils.widgets.attention import EXAMPLES, SOURCES, queries_keys_values
from utils.widgets.base import pack, random_vector, unpack
from utils.widgets.positions import ENCODINGS, unit_pair

ROOT = Path(__file__).resolve().parent.parent
HEAVIEST = 150_000  # bytes of a widget's data


class Coin(Explorer, script="attention.js"):
    def __init__(self, data, words="A coin that shows heads."):
        super().__init__(data, words)


# ------------------------------------------------------------------------------- all explorers
def test_a_widget_shows_its_script_and_its_words():
    coin = Coin({"bias": 0.5})
    bundle, _ = coin._repr_mimebundle_()
    assert bundle["text/plain"] == "A coin that shows heads."
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert len(re.findall("^export default", coin._esm, re.MULTILINE)) == 1
    assert not re.search(r"^import |https?://(?!www\.w3\.org)", coin._esm, re.MULTILINE)
    assert ".explorer" in coin._css


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"weights": np.zeros(3)}, TypeError),
        ({"x": float("nan")}, ValueError),
        ({"x": [1, float("inf")]}, ValueError),
    ],
)
def test_data_must_be_plain_json(data, error):
    with pytest.raises(error, match="plain JSON"):
        Coin(data)


@pytest.mark.parametrize("words", ["", "a coin", None])
def test_words_must_say_something(words):
    with pytest.raises(ValueError, match="words should say"):
        Coin({}, words)


def test_the_embedded_page_cannot_be_broken_by_a_text():
    page = Coin({"text": "</script><b>&"}, "A coin with <b>bold</b> words.").embed("c")
    assert page.count("</script>") == 2
    assert "A coin with &lt;b&gt;bold&lt;/b&gt; words." in page
    state = json.loads(page.split('state+json">')[1].split("</script>")[0])
    assert state["state"]["c"]["state"]["data"] == {"text": "</script><b>&"}


@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 1)])
def test_packing_keeps_four_digits(shape):
    array = np.random.default_rng(0).normal(size=shape) * 1e3
    packed = json.loads(json.dumps(pack(array)))
    assert unpack(packed).shape == shape
    assert np.abs(unpack(packed) - array).max() <= np.abs(array).max() / 60_000
    assert np.array_equal(unpack(pack(np.zeros(shape))), np.zeros(shape))


@pytest.mark.parametrize("array", [[], [np.nan], [[np.inf, 1]]])
def test_packing_refuses_what_it_cannot_keep(array):
    with pytest.raises(ValueError, match="to pack"):
        pack(array)


def test_importing_utils_does_not_import_the_widgets():
    code = "import sys, utils; print('anywidget' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_every_file_of_the_package_is_installed():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    kinds = settings["tool"]["setuptools"]["package-data"]["utils.widgets"]
    others = [p for p in (ROOT / "utils" / "widgets").iterdir() if p.suffix and p.suffix != ".py"]
    assert others
    assert all(any(path.match(kind) for kind in kinds) for path in others)


def saved_explorers():
    """Yield notebook, class name and saved state of each explorer in the chapters."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        widgets = nbformat.read(path, as_version=4).metadata.get("widgets", {})
        for model in (
            widgets.get("application/vnd.jupyter.widget-state+json", {}).get("state", {}).values()
        ):
            if model["state"].get("_anywidget_id", "").startswith("utils.widgets."):
                yield path.stem, model["state"]["_anywidget_id"].rpartition(".")[2], model["state"]


def test_the_chapters_hold_the_scripts_as_they_are_now():
    import utils.widgets

    found = list(saved_explorers())
    assert {"04_attention", "05_positions"} <= {name for name, _, _ in found}
    for name, kind, state in found:
        widget = getattr(utils.widgets, kind)
        assert state["_esm"] == widget._esm, f"{kind}'s script has changed: run {name} again"
        assert state["_css"] == widget._css, f"{kind}'s style has changed: run {name} again"
        size = len(json.dumps(state["data"]))
        assert size < HEAVIEST, f"{kind} in {name}: {size} bytes of data"


# ------------------------------------------------------------------------------- attention
def test_the_hand_made_vectors_are_chapter_4s():
    """The chapter prints these scores and weights for its own features and matrices."""
    tokens, queries, keys, values = queries_keys_values("Anna lost her keys and Ben found them")
    assert queries.shape == keys.shape == (8, 4)
    output, weights = scaled_dot_product_attention(queries, keys, values)
    them = tokens.index("them")
    scores = keys @ queries[them] / 2
    assert scores.tolist() == [1, 0, -2, 5, 0, 1, 0, 2]
    assert weights[them].round(3).tolist() == [
        0.017,
        0.006,
        0.001,
        0.903,
        0.006,
        0.017,
        0.006,
        0.045,
    ]
    assert output[them, :3].round(2).tolist() == [0.02, 0.02, 0.9]
    assert weights[tokens.index("her")].round(2)[0] == 0.93


def test_it_asks_for_a_thing_and_cannot_tell_two_apart():
    tokens, queries, keys, values = queries_keys_values("Ben saw the dog because it chased the cat")
    _, weights = scaled_dot_product_attention(queries, keys, values)
    row = dict(zip(tokens, weights[tokens.index("it")], strict=True))
    assert row["dog"] == pytest.approx(row["cat"])
    assert row["dog"] > 10 * row["Ben"]


@pytest.mark.parametrize("sentence", [*(text for text, _ in EXAMPLES), "left or right, zebra"])
def test_the_encoders_heads_are_the_encoders_own(sentence):
    """All weights of two heads, against transformers; a zebra is [UNK] on our list only."""
    import torch

    from utils.checkpoints import load_encoder

    model, tokenizer = load_encoder(device="cpu")
    model.set_attn_implementation("eager")
    inputs = tokenizer(sentence.replace(",", "").replace("zebra", "[UNK]"), return_tensors="pt")
    with torch.no_grad():
        layer = model(**inputs, output_attentions=True).attentions[0][0]
    for head in (3, 5):
        tokens, *vectors = queries_keys_values(sentence, f"head {head}")
        _, weights = scaled_dot_product_attention(*vectors)
        assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
        assert np.allclose(weights, layer[head - 1].numpy(), atol=2e-4)


def test_random_vectors_are_standard_normal_and_the_same_every_time():
    vectors = np.stack([random_vector(f"query:{i}", 255) for i in range(300)])
    assert vectors.shape == (300, 255)
    assert abs(vectors.mean()) < 0.01 and abs(vectors.std() - 1) < 0.01
    assert abs((vectors**4).mean() - 3) < 0.1
    products = vectors[:150] @ vectors[150:].T
    assert products.std() == pytest.approx(255**0.5, rel=0.05)
    assert np.array_equal(random_vector("query:i", 8), random_vector("query:i", 300)[:8])
    _, queries, _, _ = queries_keys_values("the dog saw the Dog", "random", width=7)
    assert np.array_equal(queries[0], queries[3]) and np.array_equal(queries[1], queries[4])


@pytest.mark.parametrize("source", list(SOURCES))
def test_padding_comes_last(source):
    tokens, queries, keys, values = queries_keys_values("Anna lost", source, padding=3)
    assert tokens[-3:] == ["[PAD]"] * 3
    assert len(queries) == len(keys) == len(values) == len(tokens)
    assert np.array_equal(queries_keys_values("Anna lost", source)[1], queries[:-3])


def test_the_text_alternative_says_what_numpy_computes():
    explorer = AttentionExplorer("Ben fed the cats", "fed", temperature=2.0)
    tokens, queries, keys, values = queries_keys_values("Ben fed the cats")
    output, weights = scaled_dot_product_attention(queries, keys, values, scale=1 / 4)
    text = repr(explorer)
    for token, weight in zip(tokens, weights[1], strict=True):
        line = next(line for line in text.splitlines() if line.startswith(f"{token} "))
        assert float(line.split()[-1]) == pytest.approx(weight, abs=5e-4)
    assert f"Ben {output[1, 1]:.2f}" in text
    assert text == repr(AttentionExplorer("Ben fed the cats", "fed", temperature=2.0))
    assert "array" not in text and "float" not in text


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"sentence": 3}, TypeError, "should be a string"),
        ({"sentence": " ... "}, ValueError, "from 1 to 13 words, not 0"),
        ({"sentence": "one " * 14}, ValueError, "not 14"),
        ({"sentence": "Anna lost", "query": "keys"}, ValueError, "no word of"),
        ({"source": "head 4"}, ValueError, "unknown source"),
        ({"temperature": 0}, ValueError, "from 0.1 to 30"),
        ({"temperature": "hot"}, TypeError, "should be a number"),
        ({"temperature": True}, TypeError, "should be a number"),
    ],
)
def test_bad_input_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        AttentionExplorer(**change)


@pytest.mark.parametrize("options", [{"width": 0}, {"width": 257}, {"width": 1.5}, {"padding": 4}])
def test_bad_vectors_are_refused(options):
    with pytest.raises(ValueError, match="should be"):
        queries_keys_values("Anna lost", "random", **options)


@pytest.mark.parametrize("source", list(SOURCES))
def test_every_setting_fits_the_budget(source):
    assert len(json.dumps(AttentionExplorer(source=source).data)) < HEAVIEST


# ------------------------------------------------------------------------------- positions
def second_column(text):
    """Return the numbers of the table that ends an explorer's words, by their first column."""
    lines = [line.split() for line in text.splitlines()]
    return {int(line[0]): float(line[1]) for line in lines if line and line[0].isdigit()}


def test_the_words_of_positions_are_what_numpy_computes():
    table = second_column(repr(PositionExplorer("sinusoidal", d_model=32, base=100)))
    PE = sinusoidal(200, 32, base=100)
    assert table == {k: pytest.approx(PE[77] @ PE[77 + k], abs=5e-4) for k in table}
    table = second_column(repr(PositionExplorer("RoPE", d_model=32)))
    turned = rope_rotate(np.full((200, 32), 32**-0.5))
    assert table == {k: pytest.approx(turned[77] @ turned[77 + k], abs=5e-4) for k in table}
    table = second_column(repr(PositionExplorer("ALiBi", num_heads=4)))
    assert table == {head: pytest.approx(4.0**-head, abs=5e-6) for head in (1, 2, 3, 4)}


@pytest.mark.parametrize("kind", ["alike", "random"])
def test_the_pair_to_be_turned_has_length_1(kind):
    for width in (2, 64):
        query, key = unit_pair(width, kind)
        assert query.shape == key.shape == (width,)
        assert np.allclose([query @ query, key @ key], 1)
        assert np.allclose(query, key) == (kind == "alike")
    with pytest.raises(ValueError, match="unknown kind"):
        unit_pair(4, "equal")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"encoding": "learned"}, ValueError, "unknown encoding"),
        ({"position": -1}, ValueError, "from 0 to 200"),
        ({"offset": 2.0}, TypeError, "whole number"),
        ({"offset": 101}, ValueError, "from 0 to 100"),
        ({"d_model": 7}, ValueError, "even"),
        ({"d_model": 0}, ValueError, "from 2 to 128"),
        ({"num_heads": True}, TypeError, "whole number"),
        ({"base": 1.0}, ValueError, "from 3 to a million"),
        ({"base": "10"}, TypeError, "a number"),
    ],
)
def test_bad_positions_are_refused(change, error, said):
    with pytest.raises(error, match=said):
        PositionExplorer(**change)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_positions_say_the_same_every_time(encoding):
    assert repr(PositionExplorer(encoding)) == repr(PositionExplorer(encoding))
    assert "float" not in repr(PositionExplorer(encoding))
