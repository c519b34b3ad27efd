"""Labelled stretches of a text: tags for them, decoding them, and how right an answer is.

    tags = spans_to_bio([Span(0, 2, "PER")], length=3)        # ['B-PER', 'I-PER', 'O']
    start, end, score = best_span(start_scores, end_scores, max_length=8)
    squad_f1("the River Thames", ["Thames"])

Derived in chapter 15. Everything here is plain Python and numpy; the models that produce the
scores are in `utils.tagger`.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.arguments import (
    as_array,
    as_floats,
    as_ids,
    as_list,
    as_path,
    as_whole_number,
    check_entries,
    check_text,
    check_type,
    shown,
)
from utils.losses import IGNORE
from utils.wordpiece import WordPiece

QUESTIONS = Path(__file__).resolve().parent / "data" / "questions.json"


class Span(NamedTuple):
    """Tokens `start` up to, not including, `end`, and what they are."""

    start: int
    end: int
    label: str


class Score(NamedTuple):
    """Precision, recall and their harmonic mean, and how many true spans there were."""

    precision: float
    recall: float
    f1: float
    support: int


class Question(NamedTuple):
    """A question about a passage; no answers means that the passage holds none."""

    id: str
    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]  # where each answer begins in the context, in characters


def bio_labels(types: Iterable[str]) -> list[str]:
    """Return "O", then "B-" and "I-" of each type: the classes of a tagger, in order."""
    types = as_list("types", types, str)
    return ["O", *(f"{prefix}-{name}" for name in types for prefix in "BI")]


def spans_to_bio(spans: Iterable[Span], length: int) -> list[str]:
    """Write spans as one tag per token: B- where one begins, I- inside it, O outside.

    Parameters
    ----------
    spans : iterable of Span
    length : int
        How many tokens there are.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a span is empty, lies outside of the text, or shares a token with another.
    """
    tags = ["O"] * as_whole_number("length", length)
    for start, end, label in _as_spans("spans", spans):
        if not 0 <= start < end <= length:
            raise ValueError(
                f"a span from {start} to {end} does not fit {length} tokens: start is counted from "
                "0, and end is one past the last token"
            )
        if any(tag != "O" for tag in tags[start:end]):
            raise ValueError(
                f"the span from {start} to {end} shares a token with another: one tag per token "
                "cannot say both, so keep one of them"
            )
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


def bio_to_spans(tags: Sequence[str], *, strict: bool = False) -> list[Span]:
    """Read spans off a sequence of tags.

    An "I-X" that continues nothing, because no token of a span of X stands before it, is illegal.
    What becomes of it differs between scorers.

    Parameters
    ----------
    tags : sequence of str
        Each "O", "B-X" or "I-X".
    strict : bool
        False: an illegal "I-X" begins a span, as in the CoNLL evaluation script and in `seqeval`
        by default. True: it belongs to no span, as with `seqeval`'s mode="strict", scheme=IOB2.

    Returns
    -------
    list of Span

    Raises
    ------
    ValueError
        If a tag has another form.
    """
    tags = as_list("tags", tags, str)
    spans: list[Span] = []
    start, open_label = 0, None  # of the span that is being read
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, label = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not label):
            raise ValueError(f"{tag!r} is no BIO tag: use O, B-TYPE or I-TYPE")
        if prefix == "I" and label == open_label:
            continue
        if open_label is not None:
            spans.append(Span(start, place, open_label))
        begins = prefix == "B" or (prefix == "I" and not strict)
        start, open_label = place, label if begins else None
    return spans


def entity_scores(
    true: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]
) -> dict[str, Score]:
    """Return precision, recall and F1 of whole spans: start, end and type must all be right.

    Parameters
    ----------
    true, predicted : sequence of sequences of Span
        One inner sequence for each sentence.

    Returns
    -------
    dict
        "all" (spans of all types counted together, micro-averaged), then each type by its name.
        A ratio with nothing in its denominator is 0.

    Raises
    ------
    ValueError
        If there are not as many predicted as true sentences.
    """
    true = [_as_spans(f"true[{i}]", each) for i, each in enumerate(as_list("true", true))]
    predicted = [
        _as_spans(f"predicted[{i}]", each) for i, each in enumerate(as_list("predicted", predicted))
    ]
    if len(true) != len(predicted):
        raise ValueError(f"{len(predicted)} predicted sentences for {len(true)} true ones")
    right, found, wanted = Counter(), Counter(), Counter()
    for expected, got in zip(true, predicted, strict=True):
        for counter, spans in (
            (right, set(expected) & set(got)),
            (found, set(got)),
            (wanted, set(expected)),
        ):
            counter.update(span.label for span in spans)
    scores = {"all": _score(right.total(), found.total(), wanted.total())}
    for name in sorted({*found, *wanted}):
        scores[name] = _score(right[name], found[name], wanted[name])
    return scores


def _as_spans(name: str, spans: Any) -> list[Span]:
    """Return a list of spans, or say what is wrong with it."""
    found = []
    for place, span in enumerate(as_list(name, spans, tuple, list)):
        if len(span) != 3 or not isinstance(span[2], str):
            raise TypeError(
                f"{name}[{place}] must be a Span, (start, end, label), not {shown(span)}"
            )
        check_type(f"{name}[{place}].start", span[0], int, np.integer)
        check_type(f"{name}[{place}].end", span[1], int, np.integer)
        found.append(Span(*span))
    return found


def _score(right: int, found: int, wanted: int) -> Score:
    precision = right / found if found else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (found + wanted) if found + wanted else 0.0
    return Score(precision, recall, f1, wanted)


def legal_transitions(labels: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which tags may begin a sentence, and which may follow which.

    Everything may, but an "I-X", which may only follow "B-X" or "I-X".

    Parameters
    ----------
    labels : sequence of K str

    Returns
    -------
    first : numpy.ndarray of bool, shape (K,)
    allowed : numpy.ndarray of bool, shape (K, K)
        `allowed[i, j]`: whether label j may stand right after label i.
    """
    labels = as_list("labels", labels, str, least=1)
    first = np.array([not label.startswith("I-") for label in labels])
    continues = [
        [label[2:] == before[2:] and before != "O" for label in labels] for before in labels
    ]
    return first, first[None, :] | np.array(continues)


def viterbi(
    scores: ArrayLike, allowed: ArrayLike | None = None, first: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Return the sequence of labels with the largest sum of scores among the legal ones.

    Viterbi (1967), in time T K^2: the best path to a label at t goes over a best path to some
    label at t - 1. Of equally good paths one is returned.

    Parameters
    ----------
    scores : array_like, shape (T, K)
        Such as log-probabilities.
    allowed : array_like, shape (K, K), optional
        Boolean: which label (column) may follow which (row). By default all may. Or numbers to
        be added for each transition, as in a conditional random field.
    first : array_like of bool, shape (K,), optional
        Which may begin.

    Returns
    -------
    numpy.ndarray of int64, shape (T,)

    Raises
    ------
    ValueError
        If shapes do not fit, or no sequence is legal.
    """
    scores = _below_infinity("scores", scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (T, K), not {scores.shape}: give one sentence")
    T, K = scores.shape
    moves = _as_scores(np.ones((K, K), bool) if allowed is None else allowed, (K, K), "allowed")
    begin = _as_scores(np.ones(K, bool) if first is None else first, (K,), "first")
    if not T:
        return np.zeros(0, dtype=np.int64)
    best = begin + scores[0]  # (K,): of the best path that ends in each label
    came_from = np.zeros((T, K), dtype=np.int64)
    for t in range(1, T):
        through = best[:, None] + moves  # (K, K): from the row's label to the column's
        came_from[t] = through.argmax(axis=0)
        best = through.max(axis=0) + scores[t]
    if not np.isfinite(best.max()):
        raise ValueError("no sequence of labels is legal: check `allowed`, `first` and the scores")
    path = [int(best.argmax())]
    for t in range(T - 1, 0, -1):
        path.append(int(came_from[t, path[-1]]))
    return np.array(path[::-1])


def _as_scores(rule: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    rule = as_array(name, rule)
    if rule.shape != shape:
        raise ValueError(f"{name} must have shape {shape} for these scores, not {rule.shape}")
    return np.where(rule, 0.0, -np.inf) if rule.dtype == bool else _below_infinity(name, rule)


def _below_infinity(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores as float64: minus infinity is allowed, NaN and plus infinity are not."""
    array = as_floats(name, scores).astype(float)
    if not np.all(array < np.inf):
        raise ValueError(f"{name} hold NaN or plus infinity: find out where it comes from first")
    return array


def encode_words(words: Sequence[str], tokenizer: WordPiece) -> tuple[list[int], list[int | None]]:
    """Cut words into pieces, and keep which word each piece is of.

    Parameters
    ----------
    words : sequence of str
    tokenizer : WordPiece

    Returns
    -------
    ids : list of int
        [CLS], the pieces, [SEP].
    word_ids : list of (int or None)
        The number of each piece's word, None for [CLS] and [SEP]; as `word_ids()` of a fast
        tokenizer of `transformers`.
    """
    words = as_list("words", words, str)
    check_type("tokenizer", tokenizer, WordPiece)
    check_entries("the tokenizer's vocab", tokenizer.vocab, ("[CLS]", "[SEP]"))
    ids: list[int] = [tokenizer.vocab["[CLS]"]]
    word_ids: list[int | None] = [None]
    for number, word in enumerate(words):
        pieces = tokenizer.encode(word)
        ids += pieces
        word_ids += [number] * len(pieces)
    return [*ids, tokenizer.vocab["[SEP]"]], [*word_ids, None]


def align_labels(word_ids: Sequence[int | None], word_labels: Sequence[int]) -> list[int]:
    """Give the first piece of each word its label, and -100 to every other piece.

    Parameters
    ----------
    word_ids : sequence of (int or None), length T
        From `encode_words` or a fast tokenizer.
    word_labels : sequence of int
        One for each word.

    Returns
    -------
    list of int, length T

    Raises
    ------
    ValueError
        If a piece belongs to a word that has no label.
    """
    word_labels = as_ids("word_labels", word_labels)
    word_ids = as_list("word_ids", word_ids, int, np.integer, type(None))
    labels: list[int] = []
    before: int | None = None
    for word in word_ids:
        if word is not None and not 0 <= word < len(word_labels):
            raise ValueError(f"a piece is of word {word}, but there are {len(word_labels)} labels")
        labels.append(IGNORE if word is None or word == before else int(word_labels[word]))
        before = word
    return labels


def words_with_offsets(text: str) -> list[tuple[str, int, int]]:
    """Cut a text into words and marks, each with the characters from where to where it stands.

    A word is a run of letters, digits and underscores; every other sign is a word of its own,
    spaces are none. `text[start:end]` is the word.
    """
    check_text(text=text)
    return [(found.group(), *found.span()) for found in re.finditer(r"\w+|[^\w\s]", text)]


def best_span(
    start_scores: ArrayLike,
    end_scores: ArrayLike,
    max_length: int,
    candidates: ArrayLike | None = None,
) -> tuple[int, int, float]:
    """Return the span with the largest sum of its start's and its end's score.

    Parameters
    ----------
    start_scores, end_scores : array_like, shape (T,)
        Logits or log-probabilities; the best span is the same.
    max_length : int
        The most tokens that it may have, at least 1.
    candidates : array_like of bool, shape (T,), optional
        Where it may start and end, such as at the tokens of the passage. By default anywhere.

    Returns
    -------
    start, end : int
        The first and the last token. (Here, as in the two heads, the end is included.)
    score : float

    Raises
    ------
    ValueError
        If shapes do not fit, `max_length` is below 1, or there is no candidate.
    """
    starts = _below_infinity("start_scores", start_scores)
    ends = _below_infinity("end_scores", end_scores)
    if starts.ndim != 1 or starts.shape != ends.shape:
        raise ValueError(
            f"start and end scores must both have shape (T,), not {starts.shape} and {ends.shape}"
        )
    if as_whole_number("max_length", max_length, -1) < 1:
        raise ValueError(f"a span has at least one token, so max_length={max_length} finds none")
    pairs = starts[:, None] + ends[None, :]  # (T, T): row start, column end
    legal = np.triu(np.ones_like(pairs, dtype=bool)) & ~np.triu(
        np.ones_like(pairs, dtype=bool), max_length
    )
    if candidates is not None:
        candidates = as_floats("candidates", candidates).astype(bool)
        if candidates.shape != starts.shape:
            raise ValueError(f"candidates must have shape {starts.shape}, not {candidates.shape}")
        legal &= candidates[:, None] & candidates[None, :]
    if not legal.any():
        raise ValueError("there is no token where a span could be: are any candidates True?")
    flat = np.where(legal, pairs, -np.inf).argmax()
    start, end = divmod(int(flat), len(starts))
    return start, end, float(pairs[start, end])


def normalise_answer(text: str) -> str:
    """Return an answer as SQuAD compares it (Rajpurkar et al. 2016, section 6.1).

    Small letters; ASCII punctuation goes, then the words a, an and the; white space becomes one
    space between words.
    """
    check_text(text=text)
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", kept).split())


def exact_match(prediction: str, answers: Sequence[str]) -> int:
    """Return 1 if the normalised prediction is one of the normalised answers, else 0.

    Parameters
    ----------
    prediction : str
        "" says that the passage holds no answer.
    answers : sequence of str
        All that count as right; none means that the passage holds no answer.

    Raises
    ------
    TypeError
        If `answers` is one string.
    """
    check_text(prediction=prediction)
    return int(normalise_answer(prediction) in map(normalise_answer, _checked(answers)))


def squad_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the overlap of words with the answer that fits best, from 0 to 1.

    Parameters
    ----------
    prediction, answers
        As for `exact_match`.

    Returns
    -------
    float
        2 c / (p + a) with p words predicted, a in the answer, and c in both, each counted as
        often as it occurs in both. Where either has no words, 1 if neither has, else 0.

    Raises
    ------
    TypeError
        If `answers` is one string.
    """
    check_text(prediction=prediction)
    got = normalise_answer(prediction).split()
    overlaps = []
    for answer in _checked(answers):
        wanted = normalise_answer(answer).split()
        common = (Counter(got) & Counter(wanted)).total()
        neither = float(got == wanted)
        overlaps.append(2 * common / (len(got) + len(wanted)) if got and wanted else neither)
    return max(overlaps)


def _checked(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str):
        raise TypeError(f"answers must be a list of strings: give [{answers!r}]")
    return as_list("answers", answers, str) or [""]


def read_questions(path: str | Path = QUESTIONS) -> list[Question]:
    """Read questions from a file in SQuAD's form, by default the course's own.

    Parameters
    ----------
    path : str or pathlib.Path
        Such as SQuAD's own `dev-v1.1.json` or `dev-v2.0.json`.

    Returns
    -------
    list of Question

    Raises
    ------
    ValueError
        If an answer does not stand in its passage where the file says.
    """
    text = as_path("path", path).read_bytes()
    try:
        return _questions(json.loads(text))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not have SQuAD's form: {error!r}") from None


def _questions(contents: dict[str, Any]) -> list[Question]:
    """Return the questions of a file's contents, each with its article's title and its passage."""
    questions = []
    for article in contents["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for item in paragraph["qas"]:
                answers = [(answer["text"], answer["answer_start"]) for answer in item["answers"]]
                for text, start in answers:
                    if context[start : start + len(text)] != text:
                        raise ValueError(
                            f"question {item['id']}: {text!r} does not stand at character {start} "
                            "of its passage"
                        )
                texts, starts = tuple(a for a, _ in answers), tuple(s for _, s in answers)
                questions.append(
                    Question(item["id"], article["title"], context, item["question"], texts, starts)
                )
    return questions
