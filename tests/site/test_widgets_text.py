"""Tokenizer, sampling and beam widgets in a browser: clicks, keys and fingers.

What the page shows is compared with `utils`, with the `tokenizers` library, and with torch.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect
from tokenizers import Tokenizer, models, pre_tokenizers

from utils import data, generate
from utils.beam import PrefixDecoder, beam_search, length_penalty
from utils.tokenizers import ByteLevelBPE, byte_to_unicode, split_words
from utils.widgets import BeamStepper, Explorer, SamplingPlayground, TokenizerPlayground
from utils.widgets.base import unpack

TRAINING_TEXT = (
    "the winter wind, thou art not so unkind as this. 愛愛愛愛 and 😀😀😀 naïve wins 42\n" * 3
)


def control(page: Page, name: str):
    return page.locator(f"[data-name={name}]")


def value(page: Page, name: str) -> float:
    return float(control(page, name).get_attribute("data-value"))


def said(page: Page):
    return expect(page.locator(".explorer-says"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def set_slider(page: Page, name: str, position: float) -> None:
    """Move a slider with the keyboard: to its beginning, then step by step."""
    slider = control(page, name)
    slider.focus()
    page.keyboard.press("Home")
    low, step = (float(slider.get_attribute(name)) for name in ("min", "step"))
    press(page, *["ArrowRight"] * round((position - low) / step))
    assert float(slider.input_value()) == pytest.approx(position)


def functions_of(page: Page, kind: type[Explorer], *names: str) -> None:
    """Put some functions of a widget's script into the page's `pure`, to call them alone."""
    source = kind._esm + f"\nexport const pure = {{ {', '.join(names)} }};"
    page.evaluate(
        """async (source) => {
          const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
          window.pure = (await import(url)).pure;
        }""",
        source,
    )


# ------------------------------------------------------------------------------- tokenizer
@pytest.fixture(scope="module")
def tokenizer() -> ByteLevelBPE:
    return ByteLevelBPE.train(TRAINING_TEXT, vocab_size=400)


@pytest.fixture
def tokenizer_page(open_explorer, tokenizer):
    visit = open_explorer(TokenizerPlayground(tokenizer, "the winter wind"))
    yield visit.page
    assert not visit.complaints()


def library_of(tokenizer: ByteLevelBPE) -> Tokenizer:
    """The same vocabulary and merges in the `tokenizers` library."""
    alphabet = byte_to_unicode()

    def spell(token):
        return "".join(alphabet[byte] for byte in token)

    vocab = {spell(token): token_id for token, token_id in tokenizer.vocab.items()}
    merges = [(spell(first), spell(second)) for first, second in tokenizer.merges]
    library = Tokenizer(models.BPE(vocab, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


def ids_on(page: Page) -> list[int]:
    return page.locator(".explorer-token").evaluate_all(
        "tokens => tokens.map(token => Number(token.dataset.id))"
    )


def assert_cut(page: Page, tokenizer: ByteLevelBPE, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids_on(page) == ids == library_of(tokenizer).encode(text).ids
    assert value(page, "tokens") == len(ids)
    assert value(page, "characters") == len(text)
    assert value(page, "bytes") == len(text.encode())
    if ids:
        assert value(page, "rate") == pytest.approx(len(text.encode()) / len(ids), rel=1e-5)
    shown = page.locator(".explorer-token small").all_text_contents()
    assert shown == [str(token_id) for token_id in ids]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "the winter wind",
        "  unkind\n\n winds,  'tis so!\t",
        "愛 and 爱，恨",
        "😀😀 👩‍👩‍👧 🏳️‍🌈",
        "e\u0301 is not é, naïve wins 4242 ½ Ⅻ ٣",
        "the king's  won't we'll 'S 're",
        "_under_score__ !_!\u2003wide\u00a0space\u3000",
        "\x00\x1c\x85\ufeff\u200b",
        "<b>&amp;</b>",
    ],
)
def test_any_text_gets_the_librarys_ids(tokenizer_page, tokenizer, text):
    control(tokenizer_page, "text").fill(text)
    assert_cut(tokenizer_page, tokenizer, text)


def test_tokens_show_whole_characters_as_text_and_others_as_bytes(tokenizer_page, tokenizer):
    control(tokenizer_page, "text").fill("é😀 爱\n")
    shown = tokenizer_page.locator(".explorer-token span").all_text_contents()
    assert tokenizer.encode("😀")[0] >= 256, "the training text has it often enough"
    assert shown == ["C3", "A9", "😀", "␣", "E7", "88", "B1", "↵"]
    titles = tokenizer_page.locator(".explorer-token").evaluate_all("t => t.map(t => t.title)")
    assert titles[2].endswith("4 bytes F0 9F 98 80")


def test_merges_one_at_a_time_by_keys_and_clicks(tokenizer_page, tokenizer):
    """After each step the tokens are those of a tokenizer that knows no later merge."""
    page, text = tokenizer_page, "the winds win"
    control(page, "text").fill(text)
    control(page, "merges").focus()
    page.keyboard.press("Home")
    alphabet_only = ByteLevelBPE({t: i for t, i in tokenizer.vocab.items() if i < 256}, [])
    assert ids_on(page) == alphabet_only.encode(text)
    said(page).to_contain_text("Every byte is a token.")
    count = int(control(page, "merges").get_attribute("max"))
    assert count > 5
    lengths = []
    for step in range(1, count + 1):
        if step % 2:
            press(page, "ArrowRight")
        else:
            control(page, "merges-next").click()
        made = set(
            page.locator(".explorer-token.made").evaluate_all("t => t.map(t => t.dataset.id)")
        )
        (last,) = map(int, made)
        vocab = {token: i for token, i in tokenizer.vocab.items() if i <= last}
        expected = ByteLevelBPE(vocab, tokenizer.merges[: last - 255]).encode(text)
        assert ids_on(page) == expected
        lengths.append(len(expected))
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == len(lengths)
    assert ids_on(page) == tokenizer.encode(text)
    said(page).to_contain_text("No merge that was learned applies any more.")
    control(page, "merges-next").press("Enter")  # nothing more to do, and nothing breaks
    assert ids_on(page) == tokenizer.encode(text)
    press(page, "ArrowLeft")  # the focus is still on the button
    assert len(ids_on(page)) == lengths[-2]
    press(page, "Home", "ArrowLeft")
    assert len(ids_on(page)) == len(text)
    press(page, "End")
    assert ids_on(page) == tokenizer.encode(text)
    control(page, "merges-back").press("ArrowLeft")
    assert len(ids_on(page)) == lengths[-2]


def test_typing_takes_the_text_further(tokenizer_page, tokenizer):
    field = control(tokenizer_page, "text")
    field.press("End")
    field.press_sequentially(", thou art")
    assert_cut(tokenizer_page, tokenizer, "the winter wind, thou art")
    said(tokenizer_page).to_contain_text(
        f"{len(tokenizer.encode('the winter wind, thou art'))} tokens"
    )


def test_the_scripts_encoder_equals_utils(tokenizer_page, tokenizer):
    """The script's functions alone, over many texts, and digits split off as SmolLM2 does."""
    page = tokenizer_page
    functions_of(page, TokenizerPlayground, "readVocabulary", "encodeInSteps")
    rng = np.random.default_rng(0)
    pieces = [*"the wind's 愛😀é\n\r\t4½_!", "  ", "\x1c", "\u3000", "e\u0301", "unkind", "ll"]
    texts = ["".join(rng.choice(pieces, size=rng.integers(1, 60))) for _ in range(300)]
    splitting = ByteLevelBPE(tokenizer.vocab, tokenizer.merges, split_digits=True)
    for one in (tokenizer, splitting):
        found = page.evaluate(
            """([data, texts]) => {
              const vocabulary = pure.readVocabulary(data);
              return texts.map((text) =>
                pure.encodeInSteps(text, vocabulary, data.digits).at(-1).words.flat());
            }""",
            [TokenizerPlayground(one, "a").data, texts],
        )
        assert found == [one.encode(text) for text in texts]


def test_words_end_where_pythons_do_for_every_kind_of_character(tokenizer_page):
    """Each character that Python knows, between letters, digits, spaces and signs."""
    page = tokenizer_page
    functions_of(page, TokenizerPlayground, "splitWords")
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs")]
    kinds = Counter(map(unicodedata.category, known))
    chosen = [
        c
        for place, c in enumerate(known)
        if c < "\u3400" or kinds[unicodedata.category(c)] < 3000 or place % 29 == 0
    ]
    assert len(chosen) > 15_000
    texts = [f"a{c}a1{c}1 {c}.{c}{c}  {c}\n{c}'s" for c in chosen]
    for start in range(0, len(texts), 5000):
        some = texts[start : start + 5000]
        found = page.evaluate("texts => texts.map((text) => pure.splitWords(text))", some)
        different = [t for t, words in zip(some, found, strict=True) if words != split_words(t)]
        assert not different, [hex(ord(text[1])) for text in different[:20]]


# ------------------------------------------------------------------------------- sampling
CONTEXTS = ["I love thee, g", "the q\n", "My lord, "]
TOKENS = [*"abcdefghijklmnopqrstuvwxyz", " ", "\n", "th", "é"]


@pytest.fixture(scope="module")
def playground() -> SamplingPlayground:
    generator = torch.Generator().manual_seed(0)
    logits = 2.5 * torch.randn(3, len(TOKENS), generator=generator)
    logits[2, :6] = logits[2, 9]  # ties
    return SamplingPlayground(CONTEXTS, logits, TOKENS)


@pytest.fixture
def sampling_page(open_explorer, playground):
    visit = open_explorer(playground)
    yield visit.page
    assert not visit.complaints()


def probabilities(playground, context=0, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's, and those that utils.generate draws from."""
    logits = torch.from_numpy(unpack(playground.data["logits"]))[context : context + 1]
    return logits.softmax(-1)[0], generate.next_token_logits(logits, **options).softmax(-1)[0]


def column(page: Page, number: int) -> list[float]:
    """A column of the table: 3 the model's, 4 what is drawn from, 5 draws, 6 expected."""
    cells = page.locator(f".explorer-sampling tbody tr > :nth-child({number})")
    return [float(cell) for cell in cells.evaluate_all("cells => cells.map(c => c.dataset.value)")]


def assert_sampling(page: Page, playground, context=0, **options) -> torch.Tensor:
    before, after = probabilities(playground, context, **options)
    order = before.argsort(descending=True, stable=True)
    for number, probs in ((3, before), (4, after)):
        expected = [*probs[order[:12]].tolist(), probs[order[12:]].sum().item()]
        assert np.allclose(column(page, number), expected, rtol=1e-5, atol=1e-9)
    names = page.locator(".explorer-sampling tbody th").all_text_contents()
    shown = {" ": "␣", "\n": "↵"}
    assert names == [*(shown.get(TOKENS[i], TOKENS[i]) for i in order[:12]), "18 others"]
    assert value(page, "kept") == (after > 0).sum()
    uncut = probabilities(playground, context, temperature=options.get("temperature", 1.0))[1]
    assert value(page, "mass") == pytest.approx(uncut[after > 0].sum().item(), rel=1e-5)
    for name, probs in (("entropy-before", before), ("entropy-after", after)):
        entropy = torch.special.entr(probs).sum().item()
        assert value(page, name) == pytest.approx(entropy, rel=1e-5, abs=1e-9)
    return after


def test_sampling_at_first(sampling_page, playground):
    assert_sampling(sampling_page, playground)
    assert value(sampling_page, "kept") == len(TOKENS)
    said(sampling_page).to_contain_text("30 of 30 tokens can come; the likeliest, ")


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"temperature": 0.0},
        {"top_k": 1},
        {"top_k": 7},
        {"top_p": 0.05},
        {"top_p": 0.65},
        {"temperature": 2.0, "top_k": 9, "top_p": 0.8},
        {"temperature": 0.3, "top_k": 20, "top_p": 0.95},
    ],
    ids=str,
)
def test_sampling_knobs_by_keys(sampling_page, playground, options):
    for name, setting in options.items():
        set_slider(sampling_page, name.replace("_", "-"), setting)
    after = assert_sampling(sampling_page, playground, **options)
    said(sampling_page).to_contain_text(f"{(after > 0).sum()} of 30 tokens can come")


def test_sampling_other_contexts_and_ties(sampling_page, playground):
    """Top-k keeps all that tie with the last, as utils.generate does."""
    control(sampling_page, "context").select_option("1")
    assert_sampling(sampling_page, playground, context=1)
    control(sampling_page, "context").select_option("2")
    logits = unpack(playground.data["logits"])[2].tolist()
    first = sorted(logits, reverse=True).index(logits[0])  # of the seven that tie
    k = first + 2
    set_slider(sampling_page, "top-k", k)
    assert_sampling(sampling_page, playground, context=2, top_k=k)
    assert value(sampling_page, "kept") == first + 7 > k
    options = sampling_page.locator("[data-name=context] option").all_text_contents()
    assert options[1] == "the␣q↵"


def test_the_scripts_filters_equal_utils(sampling_page):
    """The script's functions alone, over random logits and settings."""
    functions_of(sampling_page, SamplingPlayground, "temper", "keepTopK", "keepTopP", "softmax")
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(200):
        logits = (rng.normal(size=rng.integers(1, 40)) * rng.choice([0.1, 3, 300])).round(4)
        settings = [
            rng.choice([0.1, 0.7, 1.0, 2.5]),
            rng.integers(1, 50),
            rng.choice([0.05, 0.5, 0.93, 1]),
        ]
        cases.append([logits.tolist(), *(each.item() for each in settings)])
    found = sampling_page.evaluate(
        """cases => cases.map(([logits, temperature, k, p]) => pure.softmax(
          pure.keepTopP(pure.keepTopK(pure.temper(logits, temperature), k), p)))""",
        cases,
    )
    for probs, (logits, temperature, k, p) in zip(found, cases, strict=True):
        row = torch.tensor([logits], dtype=torch.float64)
        expected = generate.next_token_logits(row, temperature=temperature, top_k=k, top_p=p)
        assert np.allclose(probs, expected.softmax(-1)[0], rtol=1e-9, atol=1e-12)


def mulberry32(seed: int):
    """The script's generator, written again with Python's integers of any size."""
    state, all_bits = seed, 2**32 - 1
    while True:
        state = (state + 0x6D2B79F5) & all_bits
        mixed = ((state ^ (state >> 15)) * (state | 1)) & all_bits
        mixed ^= (mixed + ((mixed ^ (mixed >> 7)) * (mixed | 61))) & all_bits
        yield (mixed ^ (mixed >> 14)) / 2**32


def assert_draws(page: Page, playground, points: list[float], **options) -> None:
    before, after = probabilities(playground, **options)
    order = before.argsort(descending=True, stable=True)
    drawn = torch.searchsorted(
        after.cumsum(0), torch.tensor(points, dtype=torch.float64), right=True
    )
    counts = torch.bincount(drawn, minlength=len(TOKENS))
    assert column(page, 5) == [*counts[order[:12]].tolist(), counts[order[12:]].sum().item()]
    expected = len(points) * torch.cat([after[order[:12]], after[order[12:]].sum()[None]])
    assert np.allclose(column(page, 6), expected, rtol=1e-5, atol=1e-5)
    assert value(page, "draws") == len(points)
    distance = (counts / len(points) - after).abs().sum().item() / 2
    assert value(page, "distance") == pytest.approx(distance, rel=1e-4, abs=1e-6)
    token = TOKENS[int(drawn[-1])]
    said(page).to_contain_text(f"{points[-1]:.4f} falls on {token}")


def test_sampling_draws_by_clicks_and_keys(sampling_page, playground):
    page = sampling_page
    set_slider(page, "top-p", 0.9)
    set_slider(page, "seed", 7)
    points = list(itertools.islice(mulberry32(7), 10_102))
    control(page, "draw-1").click()
    assert_draws(page, playground, points[:1], top_p=0.9)
    control(page, "draw-1").press("Enter")
    assert_draws(page, playground, points[:2], top_p=0.9)
    control(page, "draw-100").press("Space")
    assert_draws(page, playground, points[:102], top_p=0.9)
    control(page, "draw-10000").click()
    assert_draws(page, playground, points, top_p=0.9)
    assert value(page, "distance") < 0.02
    assert abs(np.mean(points) - 0.5) < 0.01
    control(page, "again").click()
    assert value(page, "draws") == 0
    control(page, "draw-100").click()
    assert_draws(page, playground, points[:100], top_p=0.9)
    set_slider(page, "seed", 8)
    assert value(page, "draws") == 0 and sum(column(page, 5)) == 0


def test_sampling_never_draws_what_was_cut(sampling_page, playground):
    set_slider(sampling_page, "temperature", 3)
    set_slider(sampling_page, "top-k", 3)
    control(sampling_page, "draw-10000").click()
    drawn = column(sampling_page, 5)
    assert sum(drawn[:3]) == 10_000 and not any(drawn[3:])
    for _ in range(10):
        control(sampling_page, "draw-10000").click()
    assert value(sampling_page, "draws") == 100_000
    said(sampling_page).to_contain_text("That is the most it does.")


# ------------------------------------------------------------------------------- beam
STOP, V, LENGTH = 2, 24, 6


def model(ids, sources):
    """Logits that depend on all of a beginning; stopping becomes likelier with its length."""
    rows = []
    for prefix in ids.tolist():
        generator = torch.Generator().manual_seed(hash(tuple(prefix)) % 2**31)
        row = 2 * torch.randn(V, generator=generator).double()
        row[STOP] += len(prefix) - 2
        rows.append(row)
    return torch.stack(rows)


@pytest.fixture(scope="module")
def stepper_widget() -> BeamStepper:
    return BeamStepper(
        model,
        [f" p{i}" for i in range(V)],
        start_id=0,
        stop_id=STOP,
        max_length=LENGTH,
        source="a source",
        target="right",
    )


@pytest.fixture
def beam_page(open_explorer, stepper_widget):
    visit = open_explorer(stepper_widget)
    yield visit.page
    assert not visit.complaints()


def steps_by_hand(size: int, alpha: float = 0.0):
    """Plain Python: after each step the 2K best, the live and the finished; never ends early."""
    live, finished = [(0.0, ())], []
    for length in range(1, LENGTH + 1):
        candidates = []
        for total, prefix in live:
            row = model(torch.tensor([[0, *prefix]]), None)[0].log_softmax(-1).tolist()
            candidates += [(total + more, (*prefix, token)) for token, more in enumerate(row)]
        candidates = sorted(candidates, reverse=True)[: 2 * size]
        finished = list(finished)
        for total, ids in candidates[:size]:
            if ids[-1] == STOP or length == LENGTH:
                finished.append((total / length_penalty(length, alpha), total, ids))
        finished = sorted(finished, reverse=True)[:size]
        live = [one for one in candidates if one[1][-1] != STOP][:size]
        yield candidates, [] if length == LENGTH else live, finished


def rows_of(page: Page, table: str) -> list[tuple]:
    """The ids and the numbers of each row."""
    rows = page.locator(f"{table} tbody tr").evaluate_all(
        "rows => rows.map(row => [row.dataset.ids, "
        "...[...row.querySelectorAll('[data-value]')].map(cell => Number(cell.dataset.value))])"
    )
    return [(tuple(map(int, ids.split())), *numbers) for ids, *numbers in rows]


CANDIDATES, FINISHED = ".explorer-beam:not(.explorer-finished)", ".explorer-finished"


def assert_step(page: Page, candidates, live, finished) -> None:
    shown = rows_of(page, CANDIDATES)
    assert [ids for ids, *_ in shown] == [ids for _, ids in candidates]
    assert np.allclose([row[-1] for row in shown], [total for total, _ in candidates], atol=1e-3)
    kept = page.locator(f"{CANDIDATES} tr.kept").evaluate_all("r => r.map(r => r.dataset.ids)")
    assert [tuple(map(int, ids.split())) for ids in kept] == [ids for _, ids in live]
    assert [ids for ids, *_ in rows_of(page, FINISHED)] == [ids for _, _, ids in finished]
    drawn = page.locator(".explorer-tree rect")
    assert page.locator(".explorer-tree rect.kept").count() >= len(live)
    assert drawn.count() == page.locator(".explorer-tree line").count()


def assert_result(page: Page, size: int, alpha: float) -> None:
    """The finished sequences against utils.beam on the same model."""
    options = {"beam_size": size, "max_length": LENGTH, "stop_id": STOP, "alpha": alpha}
    found = beam_search(PrefixDecoder(model), torch.tensor([0]), **options)
    assert int(control(page, "step").get_attribute("max")) == found.ids.shape[2]
    shown = rows_of(page, FINISHED)
    assert len(shown) == size
    for (ids, length, total, score), row, *numbers in zip(
        shown, found.ids[0].tolist(), found.log_probs[0], found.scores[0], strict=True
    ):
        assert list(ids) == (row[: row.index(STOP) + 1] if STOP in row else row)
        assert length == len(ids)
        assert np.allclose([total, score], numbers, atol=1e-3)


def test_beam_forward_and_back(beam_page):
    page = beam_page
    expect(page.locator(".explorer-note").first).to_contain_text(
        "The search begins with the empty text"
    )
    control(page, "step-next").focus()
    count = int(control(page, "step").get_attribute("max"))
    assert 3 <= count <= LENGTH
    expected = list(itertools.islice(steps_by_hand(2), count))
    for step, state in enumerate(expected):
        press(page, "Enter" if step % 2 else "ArrowRight")
        assert_step(page, *state)
    assert_result(page, 2, 0.0)
    control(page, "step-back").click()
    assert_step(page, *expected[-2])
    press(page, "ArrowLeft")
    assert_step(page, *expected[-3])
    press(page, "Home")
    assert page.locator(CANDIDATES).count() == 0
    press(page, "End")
    assert_step(page, *expected[-1])
    said(page).to_contain_text("Best: ")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_beam_results_are_those_of_utils(beam_page, size):
    set_slider(beam_page, "beam-size", size)
    for alpha in (0.0, 0.6, 2.0):
        set_slider(beam_page, "alpha", alpha)
        control(beam_page, "step").press("End")
        assert_result(beam_page, size, alpha)
    said(beam_page).to_contain_text("which is wrong")


def test_the_scripts_search_equals_utils(beam_page):
    """The script's function alone, on whole tables of four tokens: results and number of steps."""
    functions_of(beam_page, BeamStepper, "searchInSteps")
    generator = torch.Generator().manual_seed(0)
    prefixes = [p for n in range(5) for p in itertools.product(range(4), repeat=n)]
    cases, found = [], []
    for _ in range(60):
        logits = 2 * torch.randn(len(prefixes), 4, generator=generator).double()
        logits[:, STOP] -= 4 * torch.rand(1, generator=generator).double()  # longer and shorter
        table = dict(zip(prefixes, logits.log_softmax(-1), strict=True))
        size = int(torch.randint(1, 6, (1,), generator=generator))
        alpha = float(2 * torch.rand(1, generator=generator))
        options = {"beam_size": size, "alpha": alpha, "max_length": 5, "stop_id": STOP}
        decoder = PrefixDecoder(
            lambda ids, sources, table=table: torch.stack(
                [table[tuple(row)] for row in ids[:, 1:].tolist()]
            )
        )
        found.append(beam_search(decoder, torch.tensor([0]), **options))
        rows = {
            " ".join(map(str, ids)): list(enumerate(row.tolist())) for ids, row in table.items()
        }
        settings = {"beamSize": size, "alpha": alpha, "maxLength": 5, "stop": STOP, "vocabulary": 4}
        cases.append([rows, settings])
    searches = beam_page.evaluate(
        """cases => cases.map(([rows, settings]) =>
          pure.searchInSteps((ids) => rows[ids.join(" ")], settings))""",
        cases,
    )
    lengths = Counter()
    for steps, expected in zip(searches, found, strict=True):
        lengths[len(steps)] += 1
        assert len(steps) == expected.ids.shape[2]
        finished = steps[-1]["finished"]
        assert np.allclose([one["score"] for one in finished], expected.scores[0, : len(finished)])
        for one, row in zip(finished, expected.ids[0].tolist(), strict=False):
            assert one["ids"] == (row[: row.index(STOP) + 1] if STOP in row else row)
        if len(steps) == 5:
            assert "kept" not in {one["fate"] for one in steps[-1]["candidates"]}
    assert len(lengths) > 2, "searches of different lengths"


def test_beam_sizes_change_what_is_kept_now(beam_page):
    """Moving a knob leaves the reader at the same step."""
    page = beam_page
    control(page, "step").focus()
    press(page, "ArrowRight", "ArrowRight")
    for size in (4, 1):
        set_slider(page, "beam-size", size)
        assert control(page, "step").input_value() == "2"
        assert_step(page, *list(steps_by_hand(size))[1])


def test_beam_says_when_it_is_right_and_when_nothing_can_come(open_explorer):
    def sure(ids, sources):  # always "a", then the end
        logits = torch.full((len(ids), 5), -torch.inf)
        logits[:, 3 if ids.shape[1] == 1 else STOP] = 0.0
        return logits

    widget = BeamStepper(
        sure,
        ["<s>", "x", "</s>", "a", "b"],
        start_id=0,
        stop_id=STOP,
        max_length=4,
        source="one",
        target="a",
        beam_size=3,
    )
    visit = open_explorer(widget)
    control(visit.page, "step").press("End")
    assert control(visit.page, "step").input_value() == "2"
    said(visit.page).to_contain_text("No beginning is alive. Best: a, score 0.000, which is right.")
    assert [ids for ids, *_ in rows_of(visit.page, FINISHED)] == [(3, STOP)]
    assert not visit.complaints()


# ------------------------------------------------------------------------------- with a finger
@pytest.fixture(params=["tokenizer", "sampling", "beam"])
def on_a_phone(request, open_explorer, tokenizer, playground, stepper_widget):
    widgets = {"sampling": playground, "beam": stepper_widget}
    widget = widgets.get(request.param) or TokenizerPlayground(tokenizer, "the winter wind")
    return request.param, open_explorer(widget, width=360, height=740, touch=True)


def test_by_touch(on_a_phone):
    kind, visit = on_a_phone
    page = visit.page
    if kind == "tokenizer":
        before = len(ids_on(page))
        control(page, "merges-back").tap()
        assert len(ids_on(page)) == before + 1
    elif kind == "sampling":
        control(page, "draw-100").tap()
        assert value(page, "draws") == sum(column(page, 5)) == 100
    else:
        control(page, "step-next").tap()
        assert_step(page, *next(steps_by_hand(2)))
        box = control(page, "beam-size").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
        assert_step(page, *next(steps_by_hand(5)))
    assert not visit.widths() + visit.complaints()


# ------------------------------------------------------------------------------- in the chapters
@pytest.fixture
def chapter_page(open_page, site_url):
    """Return a function that opens a chapter and waits for its explorer."""
    visits = []

    def chapter_page(chapter: str) -> Page:
        visit = open_page(f"{site_url}/notebooks/{chapter}.html", width=360, height=740)
        visits.append(visit)
        visit.settle()
        visit.page.locator(".cell:has(script[data-explorer])").last.scroll_into_view_if_needed()
        explorer = visit.page.locator(".explorer")
        expect(explorer).to_have_count(1)
        return visit.page

    yield chapter_page
    for visit in visits:
        assert not visit.width() + visit.complaints()


def test_chapter_2_cuts_any_text(chapter_page):
    page = chapter_page("02_tokens")
    full = ByteLevelBPE.train(data.plays_split().train, vocab_size=2048)
    control(page, "text").fill("To be, or not: 愛 & 😀")
    assert_cut(page, full, "To be, or not: 愛 & 😀")


def test_chapter_10_keeps_one_letter_after_q(chapter_page):
    page = chapter_page("10_mini_gpt")
    control(page, "context").select_option("1")
    assert value(page, "kept") <= 3 and value(page, "mass") >= 0.9
    page.locator(".explorer-sampling tbody th").first.wait_for()
    assert page.locator(".explorer-sampling tbody th").first.text_content() == "u"
    control(page, "draw-100").click()
    assert sum(column(page, 5)) == 100


def test_chapter_11_finds_the_numeral_with_two(chapter_page):
    page = chapter_page("11_encoder_decoder")
    set_slider(page, "beam-size", 1)
    control(page, "step").press("End")
    said(page).to_contain_text("which is wrong")
    set_slider(page, "beam-size", 2)
    control(page, "step").press("End")
    said(page).to_contain_text("Best: sechstausendvierundsechzig")
