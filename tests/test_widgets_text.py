"""Tokenizer, sampling and beam widgets, Python's side: what they send, say and refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from utils import data
from utils.beam import PrefixDecoder, beam_search, length_penalty
from utils.tokenizers import ByteLevelBPE, WordPiece, byte_to_unicode
from utils.widgets import BeamStepper, SamplingPlayground, TokenizerPlayground
from utils.widgets.base import unpack

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["Come, you spirits", "  1603,\n愛 and 😀", "e\u0301 naïve 👩‍👩‍👧 won't"]
HEAVIEST = 150_000  # bytes of a widget's data


@pytest.fixture(scope="module")
def tokenizer():
    return ByteLevelBPE.train(data.plays_split().train[:300_000], vocab_size=1024)


# ------------------------------------------------------------------------------- tokenizer
@pytest.mark.parametrize("text", TEXTS)
def test_what_the_tokenizer_sends_makes_the_library_find_the_same_ids(tokenizer, text):
    """The page's numbers alone, put into the `tokenizers` library as its vocabulary and merges."""
    sent = json.loads(json.dumps(TokenizerPlayground(tokenizer, text).data))
    alphabet = byte_to_unicode()
    name = {
        token_id: alphabet[byte] for byte, token_id in enumerate(map(int, sent["bytes"].split()))
    }
    merges = []
    for first, second, result in np.reshape(
        list(map(int, sent["merges"].split())), (-1, 3)
    ).tolist():
        merges.append((name[first], name[second]))
        name[result] = name[first] + name[second]
    library = Tokenizer(models.BPE({token: i for i, token in name.items()}, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert library.encode(text).ids == tokenizer.encode(text)
    assert len(merges) == 768


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizers_words_name_every_id(tokenizer, text):
    words = repr(TokenizerPlayground(tokenizer, text))
    ids = tokenizer.encode(text)
    assert [int(i) for i in re.findall(r"\((\d+)\)", words.split("\n", 1)[1])] == ids
    assert f"{len(ids)} tokens" in words
    assert f"{len(text.encode()) / len(ids):.2f} bytes per token" in words


def test_two_thousand_merges_fit_the_budget():
    tokenizer = ByteLevelBPE.train(data.plays_split().train[:1_000_000], vocab_size=2256)
    assert len(json.dumps(TokenizerPlayground(tokenizer, "a").data)) < HEAVIEST


@pytest.mark.parametrize(
    ("text", "error"),
    [("", ValueError), ("x" * 301, ValueError), (None, TypeError), (3, TypeError)],
)
def test_the_tokenizers_text_must_fit_the_box(tokenizer, text, error):
    with pytest.raises(error, match=r"1 to 300 characters|text must be a string"):
        TokenizerPlayground(tokenizer, text)


def test_only_complete_byte_level_tokenizers_are_shown(tokenizer):
    with pytest.raises(TypeError, match=r"must be of type ByteLevelBPE, not .*WordPiece"):
        TokenizerPlayground(WordPiece.train("to be or not to be", 60), "to be")
    lacking = {token: i for token, i in tokenizer.vocab.items() if token != b"\xff"}
    with pytest.raises(ValueError, match="no token for 1 of the 256 bytes, among them 255"):
        TokenizerPlayground(ByteLevelBPE(lacking, tokenizer.merges), "to be")
    shuffled = ByteLevelBPE(tokenizer.vocab, tokenizer.merges[::-1])
    with pytest.raises(ValueError, match="in the order in which they were learned"):
        TokenizerPlayground(shuffled, "to be")


# ------------------------------------------------------------------------------- sampling
def test_sampling_says_what_torch_computes():
    logits = 3 * torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).double()
    tokens = [f"t{i}" for i in range(20)]
    playground = SamplingPlayground(["a", "b ", "\n"], logits, tokens, top_k=4)
    assert playground.data["top_k"] == 4
    assert np.allclose(unpack(playground.data["logits"]), logits, atol=logits.abs().max() / 60_000)
    for line, row in zip(repr(playground).splitlines()[1:], logits, strict=True):
        probs = row.softmax(dim=-1)
        named = re.findall(r"'(t\d+)' ([\d.]+)", line)
        assert [tokens.index(name) for name, _ in named] == probs.topk(5).indices.tolist()
        shown = torch.tensor([float(p) for _, p in named])
        assert torch.allclose(shown, probs.topk(5).values.float(), atol=0.0051)
        entropy = torch.distributions.Categorical(probs).entropy().item()
        assert float(re.search(r"entropy ([\d.]+)", line)[1]) == pytest.approx(entropy, abs=0.0051)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": np.zeros((2, 3))}, "for each of the 1 contexts"),
        ({"logits": np.zeros(3)}, "not of shape"),
        ({"logits": [[0, np.nan, 0]]}, "finite"),
        ({"logits": [[0, -np.inf, 0]]}, "finite"),
        ({"contexts": [], "logits": np.zeros((0, 3))}, "contexts must have at least 1"),
        ({"contexts": "a"}, "contexts must be a list"),
        ({"tokens": [1, 2, 3]}, r"tokens\[0\] must be of type str"),
        ({"temperature": -0.1}, "temperature must be from 0 to 3"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_k": 4}, "top_k must be at most 3"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"top_p": 0}, "top_p must be from 0.05 to 1"),
    ],
)
def test_sampling_refuses_what_it_cannot_show(change, said):
    fitting = {"contexts": ["a"], "logits": [[0, 1, 2]], "tokens": ["x", "y", "z"]}
    with pytest.raises((TypeError, ValueError), match=said):
        SamplingPlayground(**fitting | change)


# ------------------------------------------------------------------------------- beam
STOP, V = 2, 30


def random_model(ids, sources):
    """Logits that depend on all of a beginning, the same whenever it is asked."""
    rows = []
    for prefix in ids.tolist():
        generator = torch.Generator().manual_seed(hash(tuple(prefix)) % 2**31)
        rows.append(3 * torch.randn(V, generator=generator).double())
    return torch.stack(rows)


def beam_stepper(function=random_model, **change):
    settings = {"start_id": 0, "stop_id": STOP, "max_length": 6, "source": "a source"}
    return BeamStepper(function, [f" p{i}" for i in range(V)], **settings | change)


def test_the_table_holds_the_likeliest_next_tokens():
    table = read(beam_stepper().data["table"])
    assert len(table) > 20
    for prefix, row in table.items():
        ids = torch.tensor([[0, *map(int, prefix.split())]])
        best = random_model(ids, None)[0].log_softmax(dim=-1).topk(10)
        assert [token for token, _ in row] == best.indices.tolist()
        assert np.allclose([value for _, value in row], best.values, atol=5.1e-5)


def read(table):
    """Beginning, as the page writes it -> pairs of token and log-probability."""
    rows = {prefix: row.split() for prefix, row in table.items()}
    return {
        prefix: [(int(i), float(x)) for i, x in zip(row[::2], row[1::2], strict=True)]
        for prefix, row in rows.items()
    }


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_every_search_stays_within_the_table(size, alpha):
    table = read(beam_stepper().data["table"])
    asked = []

    def spy(ids, sources):
        asked.extend(" ".join(map(str, row)) for row in ids[:, 1:].tolist())
        return random_model(ids, sources)

    options = {"beam_size": size, "alpha": alpha, "max_length": 6, "stop_id": STOP}
    found = beam_search(PrefixDecoder(spy), torch.tensor([0]), **options)
    assert set(asked) <= set(table)
    best = found.ids[0, 0].tolist()
    best = best[: best.index(STOP) + 1] if STOP in best else best
    steps = [
        dict(table[" ".join(map(str, best[:place]))])[token] for place, token in enumerate(best)
    ]
    assert sum(steps) == pytest.approx(found.log_probs[0, 0].item(), abs=1e-3)


def test_the_beams_words_give_the_greedy_result():
    stepper = beam_stepper(target="p1")
    greedy = beam_search(
        PrefixDecoder(random_model), torch.tensor([0]), beam_size=1, max_length=6, stop_id=STOP
    )
    spelled = "".join(f" p{i}" for i in greedy.ids[0, 0].tolist() if i != STOP)
    assert f"Greedy search ends with {spelled!r}" in repr(stepper)
    assert f"log-probability {greedy.log_probs[0, 0]:.2f}" in repr(stepper)
    assert "rightly 'p1'" in repr(stepper)
    assert len(json.dumps(stepper.data)) < HEAVIEST


def test_impossible_tokens_are_left_out():
    def narrow(ids, sources):
        logits = torch.full((len(ids), V), -torch.inf)
        logits[:, 1:3] = 0.0
        return logits

    table = read(beam_stepper(narrow).data["table"])
    assert all([token for token, _ in row] == [1, 2] for row in table.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beam_size": 0}, "beam_size must be at least 1"),
        ({"beam_size": 6}, "beam_size must be at most 5"),
        ({"beam_size": 2.0}, "beam_size must be a whole number"),
        ({"alpha": -0.1}, "alpha must be from 0 to 2"),
        ({"alpha": 2.1}, "alpha must be from 0 to 2"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"stop_id": V}, "stop_id must be at most 29"),
        ({"source": 6064}, "source must be a string"),
        ({"function": None}, "function must be a function"),
        ({"function": lambda ids, sources: torch.zeros(len(ids), V + 1)}, "one for each"),
        ({"function": lambda ids, sources: torch.zeros(V)}, "one for each"),
    ],
)
def test_the_beam_refuses_what_it_cannot_search(change, said):
    with pytest.raises((TypeError, ValueError), match=said):
        beam_stepper(**change)


# ------------------------------------------------------------------------------- in the chapters
def saved_data(chapter, kind):
    """The numbers that a chapter's explorer was saved with."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    models = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (found,) = [m for m in models.values() if m["state"].get("_anywidget_id", "").endswith(kind)]
    return found["state"]["data"]


def test_chapter_2s_playground_says_what_the_text_around_it_says():
    sent = saved_data("02_tokens", "TokenizerPlayground")
    tokenizer = ByteLevelBPE.train(data.plays_split().train, vocab_size=8192)
    of_chapter = TokenizerPlayground(
        ByteLevelBPE(
            {token: i for token, i in tokenizer.vocab.items() if i < 2048},
            tokenizer.merges[:1792],
        ),
        sent["text"],
    )
    assert sent == of_chapter.data
    assert tokenizer.merges[0] == (b" ", b"t")
    assert sent["text"].count(" t") == 3
    assert len(tokenizer.encode("愛")) == 3 and len(tokenizer.encode("😀")) == 4


def test_chapter_11s_example_shows_what_the_text_says_of_it():
    """Greedy search misses the right numeral, a beam of 2 finds it, and alpha = 2 loses it."""
    sent = saved_data("11_encoder_decoder", "BeamStepper")
    right = sent["target"]
    wrong = "sechsundsechzigtausendvierundsechzig"
    assert right == "sechstausendvierundsechzig"
    for size, alpha, expected in (
        (1, 0.0, wrong),
        *((size, 0.0, right) for size in (2, 3, 4, 5)),
        *((size, 2.0, wrong) for size in (2, 3, 4, 5)),
    ):
        ids = search(sent, size, alpha)
        assert "".join(sent["pieces"][str(i)] for i in ids if i != sent["stop"]) == expected


def search(sent, size, alpha):
    """Plain Python: the best sequence, to the greatest length, over a table with missing rows."""
    table, live, finished = read(sent["table"]), [(0.0, ())], []
    for length in range(1, sent["max_length"] + 1):
        candidates = [
            (total + more, (*ids, token))
            for total, ids in live
            for token, more in table.get(" ".join(map(str, ids)), [])
        ]
        candidates.sort(reverse=True)
        finished += [
            (total / length_penalty(length, alpha), ids)
            for total, ids in candidates[:size]
            if ids[-1] == sent["stop"]
        ]
        live = [one for one in candidates if one[1][-1] != sent["stop"]][:size]
    return max(finished)[1]
