"""Chapter 15's checks accept right answers in any form and reject plausible wrong ones."""

import itertools
import re
import string
from collections import Counter

import numpy as np
import pytest
import torch

from utils import checks


def spans_right(tags):
    spans, start, label = [], None, None
    for place, tag in enumerate([*tags, "O"]):
        if label is not None and tag != f"I-{label}":
            spans.append((start, place, label))
            label = None
        if label is None and tag != "O":
            start, label = place, tag[2:]
    return spans


def spans_seqeval(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    return [[start, end + 1, label] for label, start, end in get_entities(list(tags))]


def spans_with(change):
    return lambda tags: change(spans_right(tags), tags)


def spans_strict(tags):
    spans, start, label = [], None, None
    for place, tag in enumerate([*tags, "O"]):
        if label is not None and tag != f"I-{label}":
            spans.append((start, place, label))
            label = None
        if tag.startswith("B-"):
            start, label = place, tag[2:]
    return spans


def spans_joined(tags):
    spans = []
    place = 0
    for label, group in itertools.groupby(t[2:] for t in tags):
        size = len(list(group))
        if label:
            spans.append((place, place + size, label))
        place += size
    return spans


def spans_typeless(tags):
    spans = []
    for place, tag in enumerate(tags):
        continues = tag[0] == "I" and place and tags[place - 1] != "O"
        if continues:
            spans[-1] = (spans[-1][0], place + 1, spans[-1][2])
        elif tag != "O":
            spans.append((place, place + 1, tag[2:]))
    return spans


def pieces_right(word_ids, tags):
    out, before = [], None
    for word in word_ids:
        tag = None if word is None else tags[word]
        out.append(f"I{tag[1:]}" if word == before and tag not in (None, "O") else tag)
        before = word
    return out


def pieces_loops(word_ids, tags):
    seen = set()
    out = []
    for word in word_ids:
        if word is None:
            out.append(None)
        elif word in seen:
            out.append(tags[word].replace("B-", "I-"))
        else:
            out.append(tags[word])
        seen.add(word)
    return tuple(out)


def words_of(text):
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [w for w in kept.split() if w not in ("a", "an", "the")]


def f1_of(got, wanted, common=None):
    if not got or not wanted:
        return float(got == wanted)
    common = (Counter(got) & Counter(wanted)).total() if common is None else common
    return 2 * common / (len(got) + len(wanted))


def f1_right(prediction, answers):
    return max(f1_of(words_of(prediction), words_of(answer)) for answer in answers)


def f1_loops(prediction, answers):
    best = 0.0
    for answer in answers:
        got, left = words_of(prediction), words_of(answer)
        if not got or not left:
            best = max(best, float(got == left))
            continue
        wanted, common = len(left), 0
        for word in got:
            if word in left:
                left.remove(word)
                common += 1
        if common:
            p, r = common / len(got), common / wanted
            best = max(best, 2 * p * r / (p + r))
    return torch.tensor(best, dtype=torch.float32)


def f1_with(split=words_of, score=f1_of, combine=max):
    return lambda p, answers: combine([score(split(p), split(a)) for a in answers])


def ratio(part):
    def score(got, wanted):
        if not got or not wanted:
            return float(got == wanted)
        return (Counter(got) & Counter(wanted)).total() / len((got, wanted)[part])

    return score


def sets(got, wanted):
    return f1_of(sorted(set(got)), sorted(set(wanted)))


def listed(got, wanted):
    return f1_of(got, wanted, sum(w in wanted for w in got))


def answer_right(starts, ends, candidates, max_length, margin):
    T = len(starts)
    pairs = [
        (starts[i] + ends[j], i, j)
        for i in range(T)
        for j in range(i, min(T, i + max_length))
        if candidates[i] and candidates[j]
    ]
    score, start, end = max(pairs)
    return None if starts[0] + ends[0] > score + margin else (start, end)


def answer_matrix(starts, ends, candidates, max_length, margin):
    s, e, ok = (torch.as_tensor(x) for x in (starts, ends, candidates))
    far = torch.arange(len(s))[None, :] - torch.arange(len(s))[:, None]
    pairs = s[:, None] + e[None, :]
    legal = (far >= 0) & (far < max_length) & ok[:, None] & ok[None, :]
    pairs = pairs.masked_fill(~legal, -torch.inf)
    if s[0] + e[0] > pairs.max() + margin:
        return None
    return np.array(divmod(int(pairs.argmax()), len(s)))


def answer_greedy(starts, ends, candidates, max_length, margin):
    start = int(np.where(candidates, starts, -np.inf).argmax())
    inside = candidates & (np.arange(len(ends)) >= start)
    inside &= np.arange(len(ends)) < start + max_length
    end = int(np.where(inside, ends, -np.inf).argmax())
    if answer_right(starts, ends, candidates, max_length, margin) is None:
        return None
    return start, end


def answer_apart(starts, ends, candidates, max_length, margin):
    pair = (np.where(candidates, x, -np.inf).argmax() for x in (starts, ends))
    none = answer_right(starts, ends, candidates, max_length, margin) is None
    return None if none else tuple(pair)


def total_right(scores, moves, begin):
    total = begin + scores[0]
    for row in scores[1:]:
        total = np.logaddexp.reduce(total[:, None] + moves, axis=0) + row
    return np.logaddexp.reduce(total)


def total_torch(scores, moves, begin):
    scores, moves, begin = (torch.as_tensor(x) for x in (scores, moves, begin))
    total = begin + scores[0]
    for row in scores[1:]:
        total = torch.logsumexp(total[:, None] + moves, dim=0) + row
    return torch.logsumexp(total, dim=0)


def total_loops(scores, moves, begin):
    T, K = scores.shape
    total = [begin[k] + scores[0, k] for k in range(K)]
    for t in range(1, T):
        total = [
            np.logaddexp.reduce([total[i] + moves[i, k] for i in range(K)]) + scores[t, k]
            for k in range(K)
        ]
    return float(np.logaddexp.reduce(total))


def total_plain(scores, moves, begin):
    total = np.exp(begin + scores[0])
    for row in scores[1:]:
        total = (total @ np.exp(moves)) * np.exp(row)
    return np.log(total.sum())


def total_best(scores, moves, begin):
    best = begin + scores[0]
    for row in scores[1:]:
        best = (best[:, None] + moves).max(0) + row
    return best.max()


RIGHT = {
    "bio_to_spans": [spans_right, spans_seqeval, lambda tags: tuple(spans_right(tags))],
    "label_every_piece": [pieces_right, pieces_loops],
    "squad_f1": [f1_right, f1_loops],
    "answer_or_none": [answer_right, answer_matrix],
    "log_total": [total_right, total_torch, total_loops],
}
WRONG = [
    ("bio_to_spans", spans_with(lambda s, t: [(a, b - 1, c) for a, b, c in s]), "one past it"),
    ("bio_to_spans", spans_with(lambda s, t: [x for x in s if x[1] < len(t)]), "reaches the end"),
    ("bio_to_spans", spans_strict, "should begin a span here"),
    ("bio_to_spans", spans_joined, "always begins a new one"),
    ("bio_to_spans", spans_typeless, "one type"),
    ("bio_to_spans", spans_with(lambda s, t: [(a, b, t[a]) for a, b, _ in s]), "its type alone"),
    ("bio_to_spans", spans_with(lambda s, t: [(a, b) for a, b, _ in s]), "start, end, label"),
    ("bio_to_spans", spans_with(lambda s, t: s[1:]), "not right"),
    ("bio_to_spans", lambda tags: "none", "a list of"),
    ("bio_to_spans", lambda tags: [(i, i + 1, t[2:] or t) for i, t in enumerate(tags)], "outside"),
    ("label_every_piece", lambda w, t: [None if i is None else t[i] for i in w], "of its own"),
    (
        "label_every_piece",
        lambda w, t: [None if i is None else t[i].replace("B-", "I-") for i in w],
        "keeps its B-",
    ),
    (
        "label_every_piece",
        lambda w, t: [
            None if i is None or i == b else t[i] for b, i in zip([None, *w], w, strict=False)
        ],
        "also those after its first",
    ),
    ("label_every_piece", lambda w, t: pieces_right(w, t)[1:-1], "your list has"),
    ("label_every_piece", lambda w, t: [x or "O" for x in pieces_right(w, t)], "belong to no word"),
    (
        "label_every_piece",
        lambda w, t: [
            x if b is None or x != "O" or b == "O" else f"I{b[1:]}"
            for b, x in zip([None, *pieces_right(w, t)], pieces_right(w, t), strict=False)
        ],
        "are outside",
    ),
    (
        "label_every_piece",
        lambda w, t: [None if i is None else t[min(k, len(t) - 1)] for k, i in enumerate(w)],
        "look the word up|are outside",
    ),
    ("squad_f1", f1_with(score=sets), "sets lose"),
    ("squad_f1", f1_with(score=listed), "matched once only"),
    ("squad_f1", f1_with(score=ratio(0)), "precision alone"),
    ("squad_f1", f1_with(score=ratio(1)), "recall alone"),
    ("squad_f1", f1_with(combine=np.mean), "the mean over them"),
    ("squad_f1", f1_with(combine=lambda x: x[0]), "not the first one"),
    ("squad_f1", f1_with(combine=min), "not the worst one"),
    ("squad_f1", f1_with(split=str.split), "without capitals"),
    ("squad_f1", f1_with(split=lambda t: t.lower().split()), "punctuation and articles count"),
    (
        "squad_f1",
        lambda p, a: float(any(words_of(p) == words_of(x) for x in a)),
        "should not be|overlap",
    ),
    (
        "squad_f1",
        lambda p, a: f1_right(p, a) if words_of(p) and all(map(words_of, a)) else 0.0,
        "nothing is left",
    ),
    ("answer_or_none", answer_apart, "ends before|there is a better|at most|exactly"),
    ("answer_or_none", answer_greedy, "there is a better|exactly"),
    ("answer_or_none", lambda s, e, c, n, m: answer_right(s, e, c, len(s), m), "are allowed"),
    ("answer_or_none", lambda s, e, c, n, m: answer_right(s, e, c > -1, n, m), "outside of"),
    ("answer_or_none", lambda s, e, c, n, m: answer_right(s, e, c, n, 0.0), "margin"),
    ("answer_or_none", lambda s, e, c, n, m: answer_right(s, e, c, n, -m), "margin"),
    ("answer_or_none", lambda s, e, c, n, m: answer_right(s, e, c, n, 99.0), "yours is a span"),
    ("answer_or_none", lambda s, e, c, n, m: None, "says None"),
    (
        "answer_or_none",
        lambda s, e, c, n, m: answer_right(s, e, c, max(n - 1, 1), m),
        "exactly max_length|there is a better|says None",
    ),
    ("answer_or_none", lambda s, e, c, n, m: 3, "should return"),
    ("log_total", total_best, "best path"),
    ("log_total", lambda s, m, b: np.exp(total_right(s, m, b)), "its logarithm"),
    ("log_total", lambda s, m, b: total_right(s, m.T, b), "wrong way round"),
    ("log_total", lambda s, m, b: total_right(s, 0 * m, b), "transitions are left out"),
    ("log_total", lambda s, m, b: total_right(s, m, 0 * b), "beginning are left out"),
    ("log_total", lambda s, m, b: -total_right(s, m, b), "sign"),
    ("log_total", total_plain, "infinite or NaN"),
    ("log_total", lambda s, m, b: total_right(s, m, b) + 0.1, "not the log"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the wrong answers overflow
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_explained(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert re.search(words, result.message), result


@pytest.mark.parametrize("name", RIGHT)
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert not getattr(checks, name)(lambda *args, **kwargs: None).passed


def test_every_check_has_enough_wrong_answers():
    assert set(checks.names(15)) == set(RIGHT)
    for name in RIGHT:
        assert sum(wrong_name == name for wrong_name, _, _ in WRONG) >= 4
