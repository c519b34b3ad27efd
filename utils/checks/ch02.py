"""Checks for chapter 2: UTF-8, pair counts, merging, encoding by rank, WordPiece, segmentation."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_number, check, wrong


def _as_list(answer: Any, what: str, kind: type) -> list:
    """Return a list of whole numbers or of strings, or say what was given instead."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if isinstance(answer, str | bytes | dict) or not hasattr(answer, "__iter__"):
        wrong(f"the {what} should be a list, not {answer!r:.60}")
    items = list(answer)
    items = [item.item() if hasattr(item, "item") else item for item in items]
    strange = [item for item in items if not isinstance(item, kind) or isinstance(item, bool)]
    if strange:
        name = {int: "whole numbers", str: "strings", bytes: "bytes objects"}[kind]
        wrong(f"the {what} should hold {name}, but yours holds {strange[0]!r:.60}")
    return items


@check()
def utf8_bytes(student: Student, rng: np.random.Generator) -> None:
    """Exercise 2.1: the UTF-8 bytes of one code point."""
    edges = [0x41, 0, 0x7F, 0x80, 0xE9, 0x7FF, 0x800, 0x611B, 0xFFFD, 0xFFFF, 0x10000, 0x1F600]
    drawn = [int(rng.integers(low, high)) for low, high in ((0, 128), (128, 2048))]
    drawn += [int(rng.integers(low, high)) for low, high in ((2048, 0xD800), (0x10000, 0x110000))]
    for code in [*edges, 0x10FFFF, *drawn]:
        expected = list(chr(code).encode("utf-8"))
        answer = student(code)
        got = list(answer) if isinstance(answer, bytes) else _as_list(answer, "bytes", int)
        if got == expected:
            continue
        name = f"U+{code:04X}"
        if code < 256 and got == [code]:
            wrong(
                f"{name}: one byte holds every code below 256 in Latin-1, but in UTF-8 a byte from "
                "128 on is always part of a longer sequence"
            )
        if got == list(chr(code).encode("utf-16-be")):
            wrong(f"{name}: those are its UTF-16 bytes")
        if len(got) != len(expected):
            wrong(f"{name} needs another number of bytes than {len(got)}: compare the ranges")
        if any(not 0 <= byte < 256 for byte in got):
            wrong(f"{name}: {next(b for b in got if not 0 <= b < 256)} is not a byte (0 to 255)")
        if got == expected[:1] + expected[:0:-1]:
            wrong(f"{name}: the continuation bytes are in reverse order; high bits come first")
        if got[0] != expected[0]:
            wrong(
                f"{name}: the first byte is wrong; how many bits does it carry, after how many 1s?"
            )
        if any(byte >> 6 != 0b10 for byte in got[1:]):
            wrong(f"{name}: a continuation byte must start with the bits 10")
        wrong(f"{name}: the first byte is right, a later one is not: each carries six bits")


@check()
def weighted_pair_counts(student: Student, rng: np.random.Generator) -> None:
    """Exercise 2.2: how often each pair of neighbours occurs in a text, from its distinct words."""
    for _ in range(8):
        words = {}
        for _ in range(int(rng.integers(3, 7))):
            word = tuple(rng.integers(0, 3, size=int(rng.integers(1, 7))).tolist())
            words[word] = int(rng.integers(2, 9))
        words[(1, 1, 1, 1)] = 3
        got = _as_counts(student(words))
        expected = _pair_counts(words)
        if got == expected:
            continue
        if got == _pair_counts(dict.fromkeys(words, 1)):
            wrong("you count each distinct word once; it occurs as often as its number says")
        if got == _pair_counts(words, overlapping=False):
            wrong("in (1, 1, 1, 1) the pair (1, 1) occurs three times: pairs may overlap")
        if got == _pair_counts(words, distinct=True):
            wrong("a pair that occurs twice in a word counts twice for each time the word occurs")
        if set(got) - set(expected) and all(isinstance(key, int) for key in got):
            wrong("the keys should be pairs of neighbours, not single ids")
        ordered: Counter[tuple[int, int]] = Counter()
        for (first, second), count in expected.items():
            ordered[min(first, second), max(first, second)] += count
        if got == ordered:
            wrong("(0, 1) and (1, 0) are different pairs: keep the order")
        if sum(got.values()) > sum(expected.values()):
            wrong(
                "you count more pairs than there are inside the words: do you pair the end of one "
                "word with the start of the next?"
            )
        if sum(got.values()) < sum(expected.values()):
            wrong("you count fewer pairs than there are: look at the ends of the words")
        pair = min(pair for pair in expected if got[pair] != expected[pair])
        wrong(f"for the words {words!r}, your count of {pair} is not right")


def _as_counts(answer: Any) -> dict:
    """Return the counts that are not zero, or say what was given instead of a dictionary."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, dict):
        wrong(f"the counts should be a dictionary (a Counter is one), not {answer!r:.60}")
    return {key: value for key, value in answer.items() if value}


def _pair_counts(
    words: dict, *, overlapping: bool = True, distinct: bool = False
) -> dict[tuple[int, int], int]:
    """Count neighbours, in the right way or in a mistaken one."""
    counts: Counter[tuple[int, int]] = Counter()
    for word, times in words.items():
        found: list[tuple[int, int]] = []
        blocked = -1
        for place in range(len(word) - 1):
            pair = (word[place], word[place + 1])
            if overlapping or pair[0] != pair[1] or place > blocked:
                found.append(pair)
                blocked = place + 1 if pair[0] == pair[1] else blocked
        for pair in set(found) if distinct else found:
            counts[pair] += times
    return dict(counts)


def _merged(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    """Merge by rewriting a string of code points, which `str.replace` does from the left."""
    text = "".join(chr(0x4E00 + i) for i in ids)
    old, new = "".join(chr(0x4E00 + i) for i in pair), chr(0x4E00 + new_id)
    return [ord(char) - 0x4E00 for char in text.replace(old, new)]


@check()
def merge_once(student: Student, rng: np.random.Generator) -> None:
    """Exercise 2.3: one merge, in a list of ids."""
    cases = [
        ([1, 2, 3, 1, 2], (1, 2), 9),
        ([1, 1, 1], (1, 1), 5),
        ([], (0, 1), 2),
        ([4], (4, 4), 7),
    ]
    cases += [([2, 1, 2, 2], (1, 2), 9), ([0, 1, 0, 0, 1], (0, 1), 3)]
    for _ in range(20):
        ids = rng.integers(0, 3, size=int(rng.integers(0, 15))).tolist()
        cases.append((ids, (int(rng.integers(3)), int(rng.integers(3))), 3))
    for ids, pair, new_id in cases:
        expected = _merged(ids, pair, new_id)
        got = _as_list(student(ids, pair, new_id), "merged sequence", int)
        if got == expected:
            continue
        case = f"merging {pair} into {new_id} in {ids}"
        backwards = _merged(ids[::-1], pair[::-1], new_id)[::-1]
        if got == backwards:
            wrong(f"{case}: of overlapping pairs the left one wins; go from left to right")
        if expected and got == expected[:-1]:
            wrong(f"{case}: you lose the last id when it is not part of a pair")
        if got == ids:
            wrong(f"{case}: nothing was merged")
        first = next((i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair), len(ids))
        if got == [*ids[:first], new_id, *ids[first + 2 :]]:
            wrong(f"{case}: you merge the first occurrence only")
        if got == _merged(ids, pair[::-1], new_id):
            wrong(f"{case}: you merge {pair[::-1]}, which is another pair")
        if len(got) > len(expected):
            wrong(f"{case}: your result {got} is too long; two ids give way to one")
        wrong(f"{case}: {got} is not right; after a merge, the search goes on behind both ids")


def _random_merges(rng: np.random.Generator, alphabet: list[str]) -> list[tuple[str, str]]:
    """Learn merges from random words, so that they are of the kind that training gives."""
    words = ["".join(rng.choice(alphabet, size=int(rng.integers(2, 9)))) for _ in range(40)]
    spelled, merges = [list(word) for word in words], []
    for _ in range(int(rng.integers(4, 12))):
        counts = Counter(pair for word in spelled for pair in itertools.pairwise(word))
        if not counts:
            break
        pair = max(counts, key=lambda p: (counts[p], p))
        merges.append(pair)
        spelled = [_by_rank(word, [pair]) for word in spelled]
    return merges


def _by_rank(word: str | list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Encode by going through the merges in order: each once, over the whole word."""
    tokens = list(word)
    for pair in merges:
        place, out = 0, []
        while place < len(tokens):
            step = 2 if tuple(tokens[place : place + 2]) == pair else 1
            out.append("".join(tokens[place : place + step]))
            place += step
        tokens = out
    return tokens


@check()
def encode_by_rank(student: Student, rng: np.random.Generator) -> None:
    """Exercise 2.4: the BPE tokens of a word, from the list of merges."""
    cases = [("abc", [("b", "c"), ("a", "b")]), ("", [("a", "b")]), ("a", []), ("abcd", [])]
    cases += [("aaaaa", [("a", "a"), ("aa", "aa")]), ("abab", [("a", "b"), ("ab", "ab")])]
    cases += [("abcab", [("a", "b"), ("c", "ab"), ("ab", "c")])]
    for _ in range(25):
        merges = _random_merges(rng, ["a", "b", "c"])
        cases.append(("".join(rng.choice(["a", "b", "c"], size=int(rng.integers(1, 14)))), merges))
    answers = [_as_list(student(word, merges), "tokens", str) for word, merges in cases]
    if answers == [_by_rank(word, merges) for word, merges in cases]:
        return
    for (word, _), got in zip(cases, answers, strict=True):
        if "".join(got) != word:
            wrong(f"for {word!r}, {got} does not join to the word again")
    if answers == [list(word) for word, _ in cases]:
        wrong("your function merges nothing: it returns the letters")
    if answers == [_by_rank(word, merges[::-1]) for word, merges in cases]:
        wrong("you apply the merges in reverse: the one learned first goes first")
    if answers == [_greedy(word, _known(word, merges)) for word, merges in cases]:
        wrong(
            "you take the longest token that fits; BPE applies the merges instead, those learned "
            "first going first"
        )
    for (word, merges), got in zip(cases, answers, strict=True):
        case = f"for {word!r} with the merges {merges}, {got}"
        strange = set(got) - _known(word, merges)
        if strange:
            wrong(f"{case} has {min(strange)!r}, which no merge makes")
        if any(pair in merges for pair in itertools.pairwise(got)):
            wrong(f"{case} leaves a pair that could still be merged: when may the loop stop?")
    for (word, merges), got in zip(cases, answers, strict=True):
        if got != _by_rank(word, merges):
            wrong(
                f"for {word!r} with the merges {merges}, {got} applies the merges in the wrong "
                "order: which pair of the word comes first?"
            )


def _known(word: str, merges: list[tuple[str, str]]) -> set[str]:
    """Return the tokens there are: the letters, and what the merges make."""
    return {*word, *("".join(pair) for pair in merges)}


def _greedy(word: str, vocab: set[str], prefix: str = "") -> list[str]:
    """Take the longest token again and again; [] if nothing fits."""
    tokens, start = [], 0
    while start < len(word):
        mark = prefix if start else ""
        ends = [e for e in range(start + 1, len(word) + 1) if mark + word[start:e] in vocab]
        if not ends:
            return []
        tokens.append(mark + word[start : ends[-1]])
        start = ends[-1]
    return tokens


@check()
def longest_match(student: Student, rng: np.random.Generator) -> None:
    """Exercise 2.5: WordPiece's longest match."""
    fixed = {"a", "ab", "##b", "##c", "##bc", "abc", "[UNK]", "##cd"}
    cases = [(word, fixed) for word in ("abc", "abcb", "abd", "abccd", "b", "a")]
    for _ in range(30):
        pieces = {
            "".join(rng.choice(["a", "b", "c"], size=int(rng.integers(1, 4)))) for _ in range(9)
        }
        starts = {piece for piece in pieces if rng.random() < 0.6} | {"a", "b"}
        vocab = starts | {f"##{p}" for p in pieces if rng.random() < 0.6} | {"##a", "##b", "[UNK]"}
        cases.append(("".join(rng.choice(["a", "b", "c"], size=int(rng.integers(1, 10)))), vocab))
    for word, vocab in cases:
        expected = _greedy(word, vocab, "##") or ["[UNK]"]
        got = _as_list(student(word, vocab), "tokens", str)
        if got == expected:
            continue
        case = f"for {word!r} and the vocabulary {sorted(vocab)}, {got}"
        plain = [token.removeprefix("##") for token in got]
        if plain == [token.removeprefix("##") for token in expected]:
            wrong(f"{case} has the right pieces with wrong marks: all but the first need ##")
        missing = [token for token in got if token not in vocab]
        if missing:
            wrong(
                f"{case} has {missing[0]!r}, which is not in the vocabulary: a piece inside the "
                "word must be looked up with its ##, the first one without"
            )
        if expected == ["[UNK]"]:
            wrong(f"{case} is not right: a word that cannot be cut to its end is one [UNK]")
        if got == ["[UNK]"]:
            wrong(f"{case} gives up, but the word can be cut: do you try every length, down to 1?")
        if len(got[0]) < len(expected[0]):
            wrong(f"{case} starts with a token that is not the longest one that fits")
        wrong(f"{case} is not what the longest match gives")


@check()
def most_probable_cut(student: Student, rng: np.random.Generator) -> None:
    """Exercise 2.6: the likeliest segmentation under a unigram model of tokens."""
    for number in range(20):
        log_probs = _random_unigram(rng)
        if number == 0:
            log_probs = {"a": -1.0, "b": -1.0, "ab": -5.0, "c": -3.0, "bc": -1.5}
        letters = "abc" if number else "abcab"
        size = int(rng.integers(1, 11))
        text = letters if number == 0 else "".join(rng.choice(list(letters), size=size))
        got = _as_list(student(text, log_probs), "tokens", str)
        case = f"for {text!r} and the log probabilities {_rounded(log_probs)}, {got}"
        if "".join(got) != text:
            wrong(f"{case} does not join to the text again")
        unknown = [token for token in got if token not in log_probs]
        if unknown:
            wrong(f"{case} uses {unknown[0]!r}, which has no probability")
        cuts = _all_cuts(text, log_probs)
        best = max(sum(log_probs[t] for t in cut) for cut in cuts)
        value = as_number(sum(log_probs[t] for t in got), "total log probability")
        if value >= best - 1e-9:
            continue
        if got == _greedy(text, set(log_probs)):
            wrong(
                f"{case} takes the longest token each time; a shorter one first can leave a "
                "likelier rest"
            )
        if len(got) == min(map(len, cuts)):
            wrong(f"{case} has as few tokens as possible, but another cut is likelier")
        likeliest = max(log_probs[cut[0]] for cut in cuts)
        if math.isclose(log_probs[got[0]], likeliest):
            wrong(
                f"{case} starts with the likeliest token; what counts is the sum over all of them"
            )
        wrong(f"{case} has log probability {value:.3f}, and another cut has more")
    long_text = "".join(rng.choice(["a", "b", "c"], size=400))
    if "".join(_as_list(student(long_text, _random_unigram(rng)), "tokens", str)) != long_text:
        wrong("for a text of 400 letters, the tokens do not join to the text again")


def _random_unigram(rng: np.random.Generator) -> dict[str, float]:
    tokens = {"a", "b", "c"} | {
        "".join(rng.choice(["a", "b", "c"], size=int(rng.integers(2, 5)))) for _ in range(8)
    }
    probs = rng.dirichlet(np.full(len(tokens), 0.7)) + 1e-4
    return {t: float(np.log(p)) for t, p in zip(sorted(tokens), probs / probs.sum(), strict=True)}


def _rounded(log_probs: dict[str, float]) -> dict[str, float]:
    return {token: round(value, 2) for token, value in log_probs.items()}


def _all_cuts(text: str, tokens: dict[str, float]) -> list[list[str]]:
    """Return every way to cut a text into tokens."""
    if not text:
        return [[]]
    return [
        [text[:end], *rest]
        for end in range(1, len(text) + 1)
        if text[:end] in tokens
        for rest in _all_cuts(text[end:], tokens)
    ]
