"""Checks for chapter 15: tags to spans, pieces, SQuAD's F1, no answer, and the sum over paths."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from utils import spans
from utils.checks.engine import Student, as_number, check, close, reject_known, wrong

_TYPES = ("PER", "LOC", "ORG")


def _as_list(answer: Any, what: str) -> list[Any]:
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if not isinstance(answer, list | tuple):
        wrong(f"your function should return a list of {what}, not a {type(answer).__name__}")
    return list(answer)


def _as_spans(answer: Any) -> list[tuple[int, int, str]]:
    answer = _as_list(answer, "(start, end, label)")
    for item in answer:
        if not isinstance(item, tuple | list) or len(item) != 3:
            wrong(f"each span should be (start, end, label), not {item!r}")
    return [(int(start), int(end), str(label)) for start, end, label in answer]


@check()
def bio_to_spans(student: Student, rng: np.random.Generator) -> None:
    """Exercise 15.1: spans of a BIO sequence, end exclusive, an I without B begins a span."""
    legal = [
        ["O", "B-PER", "I-PER", "O", "B-LOC"],
        ["B-PER", "B-PER", "I-PER"],
        ["O", "O"],
        [],
        ["B-LOC", "I-LOC", "I-LOC"],
        *(_random_legal(rng, int(rng.integers(4, 14))) for _ in range(15)),
    ]
    for tags in legal:
        _compare_spans(tags, _as_spans(student(list(tags))))
    illegal = [
        ["O", "I-PER", "I-PER", "O"],
        ["B-PER", "I-LOC", "I-LOC"],
        ["I-ORG"],
        *(list(rng.choice(spans.bio_labels(_TYPES), size=8)) for _ in range(20)),
    ]
    for row in illegal:
        tags = [str(tag) for tag in row]
        _compare_spans(tags, _as_spans(student(list(tags))))


def _random_legal(rng: np.random.Generator, length: int) -> list[str]:
    tags: list[str] = []
    while len(tags) < length:
        size = int(rng.integers(1, 4))
        label = str(rng.choice(["", *_TYPES]))
        tags += [f"B-{label}", *[f"I-{label}"] * (size - 1)] if label else ["O"] * size
    return tags[:length]


def _compare_spans(tags: list[str], got: list[tuple[int, int, str]]) -> None:
    expected = [tuple(span) for span in spans.bio_to_spans(tags)]
    if sorted(got) == sorted(expected):
        return
    strict = [tuple(span) for span in spans.bio_to_spans(tags, strict=True)]
    if [(start, end + 1, label) for start, end, label in got] == expected:
        wrong("your ends are the last token; `end` should be one past it, as in a slice")
    if [item for item in expected if item[1] < len(tags)] == sorted(got):
        wrong("a span that reaches the end of the sentence is lost: close it after the loop")
    if any(label[:2] in ("B-", "I-") for _, _, label in got):
        wrong("the label of a span is its type alone, without B- or I-")
    if any(label == "O" for _, _, label in got):
        wrong('"O" is outside of everything: it makes no span')
    if sorted(got) == sorted(strict):
        wrong("an I- without its B- should begin a span here; yours drops it")
    merged = [
        (len(before), len(before) + len(run), label)
        for before, run, label in _runs(["" if tag == "O" else tag[2:] for tag in tags])
        if label
    ]
    if sorted(got) == sorted(merged):
        wrong("two spans of one type that touch are joined in yours: a B- always begins a new one")
    if any(tags[start:end][0][2:] != label for start, end, label in got if start < end):
        wrong("a span has one type: an I- of another type begins a new span")
    if _ignores_type(tags) == got:
        wrong("a span has one type: an I- of another type begins a new span")
    wrong(
        f"not right for {tags}: a span goes from its B- to before the next tag that is not its I-"
    )


def _runs(labels: list[str]) -> list[tuple[list[str], list[str], str]]:
    out, place = [], 0
    for label, group in itertools.groupby(labels):
        size = len(list(group))
        out.append((labels[:place], labels[place : place + size], label))
        place += size
    return out


def _ignores_type(tags: list[str]) -> list[tuple[int, int, str]]:
    """Read the spans as one does who takes every I- for a continuation."""
    out: list[tuple[int, int, str]] = []
    inside = False
    for place, tag in enumerate(tags):
        if tag[0] == "B" or (tag[0] == "I" and not inside):
            out.append((place, place + 1, tag[2:]))
        elif tag[0] == "I":
            start, _, label = out[-1]
            out[-1] = (start, place + 1, label)
        inside = tag != "O"
    return out


@check()
def label_every_piece(student: Student, rng: np.random.Generator) -> None:
    """Exercise 15.2: every piece gets a tag; the pieces after a B- word's first get I-."""
    for _ in range(25):
        tags = _random_legal(rng, int(rng.integers(1, 8)))
        sizes = rng.integers(1, 4, size=len(tags))
        word_ids = [None, *(int(i) for i in np.repeat(np.arange(len(tags)), sizes)), None]
        got = _as_list(student(list(word_ids), list(tags)), "tags")
        if len(got) != len(word_ids):
            wrong(f"there are {len(word_ids)} pieces, but your list has {len(got)} tags")
        first = [
            word is not None and word != before
            for before, word in zip([None, *word_ids], word_ids, strict=False)
        ]
        copied = [None if word is None else tags[word] for word in word_ids]
        inside = [None if tag is None else tag.replace("B-", "I-") for tag in copied]
        expected = [
            c if is_first else i for c, i, is_first in zip(copied, inside, first, strict=True)
        ]
        if got == expected:
            continue
        if any(
            (tag is None) != (word is None) and word is None
            for tag, word in zip(got, word_ids, strict=True)
        ):
            wrong("[CLS] and [SEP] belong to no word: None")
        if any(tag is None for tag, word in zip(got, word_ids, strict=True) if word is not None):
            wrong("every piece of a word gets a tag here, also those after its first")
        if got == copied and got != expected:
            wrong(
                "a B- repeated on every piece says that each piece begins a span of its own: what "
                "should the second piece of that word carry?"
            )
        if got == inside:
            wrong("no span begins any more: the first piece of a B- word keeps its B-")
        if any(
            tag != "O" and word is not None and tags[word] == "O"
            for tag, word in zip(got, word_ids, strict=True)
        ):
            wrong("all pieces of a word that is outside are outside: O")
        if [None if tag is None else tag[2:] for tag in got] != [
            None if tag is None else tag[2:] for tag in expected
        ]:
            wrong("the type of a piece is that of its word: look the word up by its number")
        wrong("not right: the first piece takes the word's tag, the others its continuation")


@check()
def squad_f1(student: Student, rng: np.random.Generator) -> None:
    """Exercise 15.3: the overlap of normalised words, with the best of several answers."""
    words = ["the", "river", "Thames,", "old", "a", "bridge", "London", "in", "1,024", "Old"]
    empty: list[tuple[str, list[str]]] = [("the", ["a"]), ("", ["Thames"]), ("Thames", ["the"])]
    cases: list[tuple[str, list[str]]] = [
        *empty,
        ("river Thames", ["river Thames"]),
        ("river Thames", ["Thames"]),
        ("Thames", ["river Thames"]),
        ("old bridge", ["London"]),
        ("Thames", ["old bridge", "river Thames"]),
        ("no no no", ["no"]),
        ("no", ["no no"]),
        ("The Thames!", ["thames"]),
        ("an old bridge", ["the old bridge"]),
    ]
    for _ in range(40):
        draws = [
            " ".join(map(str, rng.choice(words, size=int(rng.integers(1, 6)))))
            for _ in range(int(rng.integers(2, 5)))
        ]
        if all(map(_normal, draws)):
            cases.append((draws[0], draws[1:]))
    got = np.array([as_number(student(p, list(answers)), "F1") for p, answers in cases])
    expected = np.array([spans.squad_f1(p, answers) for p, answers in cases])
    off = [i for i in range(len(cases)) if not close(got[i], expected[i])]
    if not off:
        return
    if all(cases[i] in empty for i in off):
        wrong(
            "where nothing is left of the prediction or of the answer, F1 is 1 if nothing is left "
            "of either, else 0; yours is something else"
        )
    reject_known(
        got,
        {
            message: [combine([score(split, p, a) for a in answers]) for p, answers in cases]
            for message, split, score, combine in _F1_MISTAKES
        },
    )
    prediction, answers = cases[off[0]]
    wrong(f"for {prediction!r} and {answers} the F1 should not be {got[off[0]]:.3f}")


def _normal(text: str) -> list[str]:
    return spans.normalise_answer(text).split()


def _lowered(text: str) -> list[str]:
    return text.lower().split()


def _without_articles(text: str) -> list[str]:
    return [word for word in _lowered(text) if word not in ("a", "an", "the")]


def _without_marks(text: str) -> list[str]:
    return _lowered("".join(char for char in text if char.isalnum() or char.isspace()))


def _overlap(kind: str = "f1") -> Callable[[Callable[[str], list[str]], str, str], float]:
    """Return a score of two texts once they are cut into words; all kinds but one are mistakes."""

    def score(split: Callable[[str], list[str]], prediction: str, answer: str) -> float:
        ours, wanted = split(prediction), split(answer)
        if not ours or not wanted:
            return float(ours == wanted)
        if kind == "sets":
            ours, wanted = list(set(ours)), list(set(wanted))
        common = sum(min(ours.count(word), wanted.count(word)) for word in set(ours))
        if kind == "listed":
            common = sum(word in wanted for word in ours)
        return {
            "precision": common / len(ours),
            "recall": common / len(wanted),
            "union": common / len(set(ours) | set(wanted)),
        }.get(kind, 2 * common / (len(ours) + len(wanted)))

    return score


_F1 = _overlap()
_F1_MISTAKES: list[tuple[str, Any, Any, Any]] = [
    ("a word counts as often as it is in both; sets lose that", _normal, _overlap("sets"), max),
    ("a word of the answer can be matched once only", _normal, _overlap("listed"), max),
    ("this is the precision alone; F1 has the recall, too", _normal, _overlap("precision"), max),
    ("this is the recall alone; F1 has the precision, too", _normal, _overlap("recall"), max),
    ("F1 divides by the sum of both lengths, not by the union", _normal, _overlap("union"), max),
    ("of several answers the best fit counts, not the mean over them", _normal, _F1, np.mean),
    ("of several answers the best fit counts, not the first one", _normal, _F1, lambda x: x[0]),
    ("of several answers the best fit counts, not the worst one", _normal, _F1, min),
    ("compare without capitals, punctuation and articles", str.split, _F1, max),
    ("punctuation and articles count in yours: remove both", _lowered, _F1, max),
    ("punctuation counts in yours: remove it", _without_articles, _F1, max),
    ("articles count in yours: a, an and the should go", _without_marks, _F1, max),
]


@check()
def answer_or_none(student: Student, rng: np.random.Generator) -> None:
    """Exercise 15.4: the best span of the passage, or None where [CLS] beats it by the margin."""
    seen = {True: 0, False: 0}
    for number in range(60):
        T, longest = int(rng.integers(5, 16)), int(rng.integers(1, 6))
        starts, ends = rng.normal(size=(2, T)) * 2
        starts[0] += 3
        ends[0] += 3
        candidates = np.zeros(T, dtype=bool)
        candidates[T // 3 + 1 :] = True
        margin = float(rng.choice([0.0, -2.0, 2.0]))
        if number % 4 == 1:  # tempting pairs that run backwards or are too long
            starts[-1] += 9
            ends[T // 3 + 1] += 9
        if number % 4 > 1:  # as long as is allowed, or one token longer
            far = T // 3 + longest + number % 4 - 2
            if far < T:
                starts[T // 3 + 1] += 6
                ends[far] += 6
        start, end, score = spans.best_span(starts, ends, longest, candidates)
        null = starts[0] + ends[0]
        expected = None if null > score + margin else (start, end)
        got = student(starts, ends, candidates, longest, margin)
        seen[expected is None] += 1
        _compare_answers(got, expected, (starts, ends, candidates, longest))


def _compare_answers(
    got: Any,
    expected: tuple[int, int] | None,
    case: tuple[np.ndarray, np.ndarray, np.ndarray, int],
) -> None:
    starts, ends, candidates, longest = case
    if got is not None:
        if not isinstance(got, tuple | list | np.ndarray) or len(got) != 2:
            wrong("your function should return (start, end), or None where there is no answer")
        got = (int(got[0]), int(got[1]))
    if got == expected:
        return
    _, _, score = spans.best_span(starts, ends, longest, candidates)
    null = starts[0] + ends[0]
    if got is not None:
        start, end = got
        if start > end:
            wrong("your answer ends before it starts: only pairs with start <= end are spans")
        if not (candidates[start] and candidates[end]):
            wrong("your answer lies outside of the candidates, where the question and [CLS] are")
        if end - start + 1 > longest:
            wrong(f"your answer has {end - start + 1} tokens, and at most {longest} are allowed")
    if expected is None:
        if null > score:
            wrong(
                "[CLS] beats the best span by more than the margin, so the answer is None; yours "
                "is a span"
            )
        wrong("a negative margin makes None win earlier: compare with the span's score + margin")
    if got is None:
        wrong(
            "the best span's score plus the margin is not below that of [CLS] here, and yours "
            "says None"
        )
    if got[1] - got[0] + 1 < longest and expected[1] - expected[0] + 1 == longest:
        wrong("a span of exactly max_length tokens is allowed: end - start + 1 <= max_length")
    wrong("there is a better span: maximise the sum of both scores, not one after the other")


@check()
def log_total(student: Student, rng: np.random.Generator) -> None:
    """Exercise 15.5: log of the sum over all paths of exp(score), by dynamic programming."""
    for T, K in ((1, 3), (2, 3), (4, 3), (5, 4)):
        scores, moves, begin = rng.normal(size=(T, K)), rng.normal(size=(K, K)), rng.normal(size=K)
        totals = {name: [] for name in ("right", "turned", "unmoved", "unbegun")}
        for path in itertools.product(range(K), repeat=T):
            emitted = sum(scores[t, k] for t, k in enumerate(path))
            pairs = list(itertools.pairwise(path))
            moved = sum(moves[a, b] for a, b in pairs)
            totals["right"].append(emitted + moved + begin[path[0]])
            totals["turned"].append(emitted + sum(moves[b, a] for a, b in pairs) + begin[path[0]])
            totals["unmoved"].append(emitted + begin[path[0]])
            totals["unbegun"].append(emitted + moved)
        logs = {name: float(np.logaddexp.reduce(values)) for name, values in totals.items()}
        got = as_number(student(scores, moves, begin), "log of the sum")
        if close(got, logs["right"]):
            continue
        reject_known(
            np.asarray(got),
            {
                "this is the best path's score; the sum takes in all paths": max(totals["right"]),
                "this is the sum itself; its logarithm is asked for": np.exp(logs["right"]),
                "the transitions are used the wrong way round: moves[i, j] goes from i to j": (
                    logs["turned"]
                ),
                "the transitions are left out": logs["unmoved"],
                "the scores of beginning are left out: `begin` is added to the first token": (
                    logs["unbegun"]
                ),
                "this is a mean over paths; they are summed": logs["right"] - T * np.log(K),
                "check the sign": -logs["right"],
            },
        )
        wrong("not the log of the sum over all paths of exp(score of the path)")
    scores, moves = rng.normal(size=(400, 3)) + 5, rng.normal(size=(3, 3))
    begin = np.array([0.0, -np.inf, 0.0])
    with np.errstate(all="ignore"):
        got = float(np.asarray(student(scores, moves, begin), dtype=float).reshape(()))
    if not np.isfinite(got):
        wrong(
            "for a long sentence your answer is infinite or NaN: keep logarithms all the way, and "
            "take out the largest before exponentiating (-inf in `begin` must not break it)"
        )
    best = begin + scores[0]
    for row in scores[1:]:
        best = np.logaddexp.reduce(best[:, None] + moves, axis=0) + row
    if not close(got, np.logaddexp.reduce(best)):
        wrong("for a long sentence, with -inf in `begin`, your answer is not right")
