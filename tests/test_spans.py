"""Spans, their decoding and their scores agree with seqeval, brute force and hand counts."""

import itertools
import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from utils import checkpoints, spans
from utils.bert import Bert, BertConfig
from utils.spans import Span
from utils.tagger import SpanReader, TokenTagger, collate_spans, collate_tags, predict, span_loss
from utils.tokenizers import WordPiece

LABELS = spans.bio_labels(["PER", "LOC"])
TAGS = st.lists(st.sampled_from(LABELS), max_size=12)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece.from_file(checkpoints.checkpoint_path("minilm") / "vocab.txt")


@st.composite
def span_lists(draw):
    length = draw(st.integers(0, 12))
    cuts = sorted(draw(st.sets(st.integers(0, length))))
    pieces = [
        Span(a, b, draw(st.sampled_from(["PER", "LOC"])))
        for a, b in itertools.pairwise(cuts)
        if draw(st.booleans())
    ]
    return pieces, length


# BIO


@given(span_lists())
def test_tags_and_spans_are_the_same_thing_twice(case):
    pieces, length = case
    tags = spans.spans_to_bio(pieces, length)
    assert len(tags) == length
    assert spans.bio_to_spans(tags) == pieces
    assert spans.bio_to_spans(tags, strict=True) == pieces


@settings(deadline=None)  # the first import of seqeval takes a while
@given(TAGS)
def test_spans_of_any_tags_are_those_of_seqeval(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    expected = [Span(start, end + 1, label) for label, start, end in get_entities(tags)]
    assert spans.bio_to_spans(tags) == expected


@settings(deadline=None)  # the first import of seqeval takes a while
@given(TAGS)
def test_strict_spans_are_those_of_seqeval(tags):
    from seqeval.scheme import IOB2, Entities

    expected = [Span(e.start, e.end, e.tag) for e in Entities([tags], IOB2).entities[0]]
    assert spans.bio_to_spans(tags, strict=True) == expected


@pytest.mark.filterwarnings("ignore")  # seqeval warns of ratios without a denominator
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TAGS, st.randoms(use_true_random=False)), min_size=1, max_size=5))
@pytest.mark.parametrize("strict", [False, True])
def test_scores_are_those_of_seqeval(strict, cases):
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    true = [tags for tags, _ in cases]
    predicted = [
        [tag if rng.random() < 0.7 else rng.choice(LABELS) for tag in tags] for tags, rng in cases
    ]
    ours = spans.entity_scores(
        *([spans.bio_to_spans(t, strict=strict) for t in side] for side in (true, predicted))
    )
    mode = {"mode": "strict", "scheme": IOB2} if strict else {}
    if len(ours) == 1:  # nothing but O: seqeval raises
        assert ours == {"all": (0, 0, 0, 0)}
        return
    theirs = classification_report(true, predicted, output_dict=True, zero_division=0, **mode)
    names = {"all": "micro avg", "PER": "PER", "LOC": "LOC"}
    for name, score in ours.items():
        row = theirs.get(names[name])
        if row is None:  # seqeval leaves types out that were only predicted, in strict mode
            assert score.support == 0
            continue
        assert score == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"], row["support"])
        )


def test_a_span_counts_only_if_all_of_it_is_right():
    true = [[Span(0, 2, "PER"), Span(4, 5, "LOC")]]
    nearly = [[Span(0, 3, "PER"), Span(4, 5, "PER")]]
    assert spans.entity_scores(true, nearly)["all"] == (0, 0, 0, 2)
    half = spans.entity_scores(true, [[Span(0, 2, "PER")]])["all"]
    assert half == pytest.approx((1, 0.5, 2 / 3, 2))


def test_bad_spans_and_tags_are_refused():
    with pytest.raises(ValueError, match="does not fit 3 tokens"):
        spans.spans_to_bio([Span(1, 4, "PER")], 3)
    with pytest.raises(ValueError, match="does not fit"):
        spans.spans_to_bio([Span(1, 1, "PER")], 3)
    with pytest.raises(ValueError, match="shares a token"):
        spans.spans_to_bio([Span(0, 2, "PER"), Span(1, 3, "LOC")], 3)
    for tag in ("B", "X-PER", "I-", ""):
        with pytest.raises(ValueError, match="no BIO tag"):
            spans.bio_to_spans(["O", tag])
    with pytest.raises(ValueError, match="1 predicted sentences for 2"):
        spans.entity_scores([[], []], [[]])


# Viterbi


def test_legal_transitions_are_those_that_lose_no_tag():
    """A sequence is legal if reading it strictly and writing it again gives it back."""
    first, allowed = spans.legal_transitions(LABELS)
    for i, j in itertools.product(range(len(LABELS)), repeat=2):
        tags = [LABELS[i], LABELS[j]]
        whole = spans.spans_to_bio(spans.bio_to_spans(tags, strict=True), 2) == tags
        assert (first[i] and allowed[i, j]) == whole
    assert first.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("seed", range(12))
def test_viterbi_finds_what_trying_every_path_finds(seed):
    rng = np.random.default_rng(seed)
    T, K = int(rng.integers(1, 6)), len(LABELS)
    scores = rng.normal(size=(T, K)) * 2
    first, allowed = spans.legal_transitions(LABELS)
    moves = rng.normal(size=(K, K)) if seed % 3 == 0 else np.where(allowed, 0, -np.inf)
    begin = np.where(first, 0, -np.inf)

    def value(path):
        steps = sum(moves[a, b] for a, b in itertools.pairwise(path))
        return begin[path[0]] + steps + sum(scores[t, k] for t, k in enumerate(path))

    best = max(itertools.product(range(K), repeat=T), key=value)
    got = spans.viterbi(scores, moves if seed % 3 == 0 else allowed, first)
    assert tuple(got) == best
    if seed % 3:
        tags = [LABELS[k] for k in got]
        assert spans.spans_to_bio(spans.bio_to_spans(tags, strict=True), T) == tags


def test_viterbi_without_rules_takes_the_best_label_at_each_place():
    scores = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    assert np.array_equal(spans.viterbi(scores), scores.argmax(axis=1))
    assert spans.viterbi(np.zeros((0, 3))).shape == (0,)


def test_viterbi_survives_labels_that_are_impossible():
    scores = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    assert spans.viterbi(scores).tolist() == [0, 1]
    with pytest.raises(ValueError, match="no sequence of labels is legal"):
        spans.viterbi(scores, allowed=np.eye(2, dtype=bool))


def test_viterbi_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"shape \(T, K\)"):
        spans.viterbi(np.zeros(3))
    with pytest.raises(ValueError, match="allowed must have shape"):
        spans.viterbi(np.zeros((4, 3)), np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="first must have shape"):
        spans.viterbi(np.zeros((4, 3)), first=np.ones(2, bool))


# words and pieces


def test_pieces_and_their_words_are_those_of_the_fast_tokenizer(tokenizer):
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(checkpoints.checkpoint_path("minilm"))
    rng = np.random.default_rng(0)
    words = [
        "Tokenisation",
        "isn't",
        "Reykjavik's",
        "1,024",
        "Jürgen",
        "unbelievably",
        "xq👍z",
        "a-b",
        "北京",
        "...",
        "the",
    ]
    for _ in range(20):
        sentence = [str(w) for w in rng.choice(words, size=rng.integers(1, 12))]
        ids, word_ids = spans.encode_words(sentence, tokenizer)
        expected = fast(sentence, is_split_into_words=True)
        assert ids == expected["input_ids"]
        assert word_ids == expected.word_ids()


def test_the_first_piece_of_a_word_carries_its_label():
    word_ids = [None, 0, 1, 1, 1, 2, None, None]
    assert spans.align_labels(word_ids, [5, 6, 7]) == [-100, 5, 6, -100, -100, 7, -100, -100]
    assert spans.align_labels([], []) == []
    with pytest.raises(ValueError, match="of word 2, but there are 2 labels"):
        spans.align_labels(word_ids, [5, 6])


@given(st.text(max_size=60))
def test_words_stand_where_their_offsets_say(text):
    words = spans.words_with_offsets(text)
    assert all(text[start:end] == word for word, start, end in words)
    assert "".join(word for word, _, _ in words) == re.sub(r"\s", "", text)


# answer spans


@pytest.mark.parametrize("seed", range(20))
def test_the_best_span_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    T, longest = int(rng.integers(1, 15)), int(rng.integers(1, 18))
    starts, ends = rng.normal(size=(2, T)).astype(np.float32 if seed % 2 else np.float64)
    candidates = rng.random(T) < 0.7
    candidates[rng.integers(T)] = True
    legal = [
        (i, j)
        for i in range(T)
        for j in range(i, min(T, i + longest))
        if candidates[i] and candidates[j]
    ]
    i, j = max(legal, key=lambda pair: float(starts[pair[0]]) + float(ends[pair[1]]))
    got = spans.best_span(starts, ends, longest, candidates)
    assert got[:2] == (i, j)
    assert got[2] == pytest.approx(float(starts[i]) + float(ends[j]), rel=1e-5)


def test_the_best_span_does_not_run_backwards_or_too_far():
    starts, ends = np.array([0.0, 0, 9, 0]), np.array([9.0, 0, 0, 5])
    assert spans.best_span(starts, ends, 4)[:2] == (2, 3)
    assert spans.best_span(starts, ends, 1)[:2] in ((0, 0), (2, 2))
    assert spans.best_span(starts, ends, 4, [True, False, False, False])[:2] == (0, 0)


def test_best_span_refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="max_length=0"):
        spans.best_span([1.0], [1.0], 0)
    with pytest.raises(ValueError, match=r"shape \(T,\)"):
        spans.best_span([1.0, 2.0], [1.0], 3)
    with pytest.raises(ValueError, match="no token"):
        spans.best_span([1.0], [1.0], 3, [False])
    with pytest.raises(ValueError, match="no token"):
        spans.best_span([], [], 3)
    with pytest.raises(ValueError, match="candidates must have shape"):
        spans.best_span([1.0], [1.0], 3, [True, True])


# SQuAD's scores


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("The River Thames.", ["river thames"], 1, 1.0),
        ("the river Thames", ["Thames"], 0, 2 / 3),  # one of two, all of one
        ("Thames", ["the river", "river Thames", "Thames Barrier in London"], 0, 2 / 3),
        ("a vault near Paris", ["in a vault near Paris", "near Paris"], 0, 6 / 7),
        ("1024", ["1,024"], 1, 1.0),
        ("half a dozen", ["six"], 0, 0.0),  # right, and no word in common
        ("the the", ["a"], 1, 1.0),  # nothing is left of either
        ("", [], 1, 1.0),
        ("London", [], 0, 0.0),
        ("", ["London"], 0, 0.0),
        ("no no no yes", ["no no"], 0, 2 * 2 / (4 + 2)),
        ("theatre an anthem", ["theatre anthem"], 1, 1.0),
        ("state-of-the-art", ["stateoftheart"], 1, 1.0),  # punctuation goes first, then articles
    ],
)
def test_scores_counted_by_hand(prediction, answers, em, f1):
    assert spans.exact_match(prediction, answers) == em
    assert spans.squad_f1(prediction, answers) == pytest.approx(f1)


def independent_scores(prediction, answers):
    def words(text):
        text = text.lower().translate(str.maketrans("", "", string.punctuation))
        return [word for word in text.split() if word not in {"a", "an", "the"}]

    best_em = best_f1 = 0.0
    for answer in answers:
        got, wanted = words(prediction), words(answer)
        left = list(wanted)
        common = 0
        for word in got:
            if word in left:
                left.remove(word)
                common += 1
        if not got or not wanted:
            f1 = float(got == wanted)
        elif not common:
            f1 = 0.0
        else:
            precision, recall = common / len(got), common / len(wanted)
            f1 = 2 * precision * recall / (precision + recall)
        best_em, best_f1 = max(best_em, float(got == wanted)), max(best_f1, f1)
    return best_em, best_f1


TEXTS = st.lists(
    st.sampled_from(
        ["the", "The", "a", "river", "River's", "Thames,", "1,024", "in", "an", "(old)", "no"]
    ),
    max_size=6,
).map(" ".join)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_scores_agree_with_another_derivation(prediction, answers):
    em, f1 = independent_scores(prediction, answers)
    assert spans.exact_match(prediction, answers) == em
    assert spans.squad_f1(prediction, answers) == pytest.approx(f1)


def test_one_string_is_no_list_of_answers():
    for score in (spans.exact_match, spans.squad_f1):
        with pytest.raises(TypeError, match=r"\['Thames'\]"):
            score("Thames", "Thames")


# the questions


def test_the_questions_are_in_order():
    questions = spans.read_questions()
    assert len(questions) > 100
    assert len({q.id for q in questions}) == len(questions)
    assert 5 <= sum(not q.answers for q in questions) <= 20
    for q in questions:
        assert q.question.endswith("?")
        assert len(set(map(spans.normalise_answer, q.answers))) >= min(1, len(q.answers))
        words = spans.words_with_offsets(q.context)
        begins, ends = {start for _, start, _ in words}, {end for _, _, end in words}
        for answer, start in zip(q.answers, q.starts, strict=True):
            assert start in begins and start + len(answer) in ends, q.id  # whole words
    assert len({q.title for q in questions}) == len({q.context for q in questions})


def test_an_answer_in_the_wrong_place_is_refused(tmp_path):
    item = {"id": "x", "question": "?", "answers": [{"text": "two", "answer_start": 0}]}
    contents = {"data": [{"title": "t", "paragraphs": [{"context": "one two", "qas": [item]}]}]}
    file = Path(tmp_path) / "questions.json"
    file.write_text(json.dumps(contents), encoding="utf-8")
    with pytest.raises(ValueError, match="does not stand at character 0"):
        spans.read_questions(file)
    item["answers"][0]["answer_start"] = 4
    file.write_text(json.dumps(contents), encoding="utf-8")
    assert spans.read_questions(file)[0].answers == ("two",)


# the models


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Bert(BertConfig(30, 16, num_layers=1, num_heads=2, d_model=8, dropout=0.0, init_std=0.3))


def test_the_tagger_is_a_linear_layer_on_each_token(encoder):
    model = TokenTagger(encoder, 5).eval()
    ids = torch.randint(1, 30, (2, 7))
    expected = encoder(ids) @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(ids), expected, atol=1e-6)
    assert model(ids).shape == (2, 7, 5)


def test_predictions_do_not_depend_on_what_is_read_together(encoder):
    model = TokenTagger(encoder, 5)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 16, size=9)
    examples = [(rng.integers(1, 30, size=n).tolist(), [0] * n, [0] * n) for n in lengths]
    together = predict(model, examples, collate_tags(0), batch_size=4)
    for example, got in zip(examples, together, strict=True):
        (alone,) = predict(model, [example], collate_tags(0))
        assert got.shape == (len(example[0]), 5)
        assert np.allclose(got, alone, atol=1e-5)
        assert np.allclose(np.exp(got).sum(axis=-1), 1, atol=1e-5)


def test_padding_has_no_label():
    ids, segments, mask, labels = collate_tags(9)([([1, 2], [0, 1], [3, 4]), ([5], [0], [6])])
    assert ids.tolist() == [[1, 2], [5, 9]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert labels.tolist() == [[3, 4], [6, -100]]
    assert segments.tolist() == [[0, 1], [0, 0]]


def test_the_reader_points_at_candidates_only(encoder):
    model = SpanReader(encoder)
    examples = [
        ([1, 4, 5, 2, 6, 7, 8, 2], [0] * 4 + [1] * 4, [1, 0, 0, 0, 1, 1, 1, 0], (4, 6)),
        ([1, 4, 2, 6, 2], [0] * 3 + [1] * 2, [0, 0, 0, 1, 0], (3, 3)),
    ]
    log_probs = predict(model, examples, collate_spans(0))
    for (_, _, candidates, _), got in zip(examples, log_probs, strict=True):
        probs = np.exp(got)
        assert probs.shape == (2, len(candidates))
        assert np.allclose(probs.sum(axis=1), 1, atol=1e-5)
        assert (probs[:, np.array(candidates) == 0] == 0).all()
    loss = span_loss(model, collate_spans(0)(examples))
    expected = -np.mean([log_probs[0][0, 4], log_probs[0][1, 6], log_probs[1][0, 3], 0.0])
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert torch.isfinite(model.head.weight.grad).all()


def test_the_loss_is_the_mean_of_both_ends(encoder):
    model = SpanReader(encoder).eval()
    batch = collate_spans(0)([([1, 2, 3, 4], [0] * 4, [1] * 4, (1, 2))])
    logits = model(*batch[:-1])[0]
    start, end = F.cross_entropy(logits, torch.tensor([1, 2]), reduction="none")
    by_hand = (start + end) / 2
    assert torch.allclose(span_loss(model, batch), by_hand)
