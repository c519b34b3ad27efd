"""Byte-pair encoding's ground: cutting a text into words, and learning merges inside them.

`utils.bpe` and `utils.wordpiece` build their tokenizers on it. The cutting is GPT-2's (Radford et
al. 2019, section 2.2), the learning Sennrich, Haddow and Birch's (2016, arXiv:1508.07909,
algorithm 1), with counts kept up to date. Chapter 2 derives both.
"""

from __future__ import annotations

import heapq
import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.arguments import as_ids, as_list, as_path, as_whole_number, check_text, check_type

Pair = tuple[int, int]


def read_saved(path: str | Path, kind: str, keys: Iterable[str]) -> dict[str, Any]:
    """Read what a tokenizer of this kind has saved.

    Raises
    ------
    OSError
        If there is no such file.
    TypeError, ValueError
        If it holds something else.
    """
    try:
        contents = json.loads(as_path("path", path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        contents = None
    named = isinstance(contents, dict) and contents.get("type") == kind
    if not named or not contents.keys() >= set(keys):
        raise ValueError(f"{path} is not a {kind} tokenizer written by save()")
    return contents


def byte_to_unicode() -> dict[int, str]:
    """Return GPT-2's alphabet: a printable character for each of the 256 bytes.

    Printable Latin-1 bytes stand for themselves; the others, in order, are shown as the characters
    from U+0100 on. A space is "Ġ" and a line feed is "Ċ". The order of the dictionary is the order
    of the bytes' ids.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


@cache
def _splitting_pattern() -> re.Pattern[str]:
    """Return GPT-2's pattern, written for Python's `re`, which has no classes of letters.

    A contraction's ending; a run of letters, of numbers, or of anything else, each with one space
    before it if there is one; white space, of which the last character is left to the word after.
    """
    # \w is letters, numbers and "_"; \s is white space and four control characters.
    letter, number = rf"[^\W_{_numbers()}]", f"[{_numbers()}]"
    other = r"(?:[^\w\s]+|[_\x1c-\x1f]+)"
    space, no_space = r"[^\S\x1c-\x1f]", r"[\S\x1c-\x1f]"
    return re.compile(
        rf"'(?:[stmd]|re|ve|ll)| ?(?:[A-Za-z]+|{letter})+| ?{number}+| ?{other}+"
        rf"|{space}+(?!{no_space})|{space}+"
    )


@cache
def _numbers() -> str:
    """Return the inside of a character class, "0-9²-³..." that holds Unicode's numbers."""
    codes = [
        code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "N"
    ]
    starts = [code for last, code in pairwise([-1, *codes]) if code > last + 1]
    ends = [code for code, following in pairwise([*codes, sys.maxunicode]) if following > code + 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


def split_words(text: str) -> list[str]:
    """Cut a text into the stretches inside which BPE may merge; joined, they are the text again.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
        Such as `["To", " be", ",", " or", " not"]`: a space belongs to the word after it.

    Raises
    ------
    TypeError
        If it is no string.
    """
    check_text(text=text)
    return _splitting_pattern().findall(text)


@cache
def _one_number() -> re.Pattern[str]:
    return re.compile(f"([{_numbers()}])")


def split_off_numbers(text: str) -> list[str]:
    """Cut out every character that is a number, "a12" into "a", "1" and "2"; joined, the same."""
    check_text(text=text)
    # With one group, `re.split` returns the numbers as well as what is between them.
    return [part for part in _one_number().split(text) if part]


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace each occurrence of two neighbouring ids, from left to right, by one new id."""
    both = as_ids("pair", pair)
    if len(both) != 2:
        raise ValueError(f"pair must hold two ids, not {both}")
    check_type("new_id", new_id, int)
    return _merge(as_ids("ids", ids), tuple(both), new_id)


def _merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    first, second = pair
    merged: list[int] = []
    place = 0
    while place < len(ids):
        if ids[place] == first and place + 1 < len(ids) and ids[place + 1] == second:
            merged.append(new_id)
            place += 2
        else:
            merged.append(ids[place])
            place += 1
    return merged


def learn_merges(
    words: Iterable[tuple[Sequence[int], int]], first_id: int, num_merges: int, min_frequency: int
) -> list[Pair]:
    """Learn merges: again and again, join the pair of neighbours that occurs most often.

    Of pairs with equal counts, the smallest pair of ids wins. The counts are kept up to date: a
    merge changes them only in the words in which it happens, and a heap finds the next pair.

    Parameters
    ----------
    words : iterable of (sequence of int, int)
        Each distinct word as ids, and how often it occurs.
    first_id : int
        The id that the first merge's result gets; the next one gets the next id, and so on.
    num_merges : int
        How many to learn at most.
    min_frequency : int
        Stop when no pair occurs this often any more.

    Returns
    -------
    list of (int, int)
        In the order in which they were learned.

    Raises
    ------
    TypeError, ValueError
        If `words` are no pairs of ids and a number, or a number is none.
    """
    as_whole_number("first_id", first_id)
    as_whole_number("num_merges", num_merges)
    as_whole_number("min_frequency", min_frequency)
    spelled, frequencies = [], []
    pair_counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that a pair occurs in
    for index, word in enumerate(as_list("words", words, tuple, list)):
        if len(word) != 2:
            raise ValueError(f"words[{index}] must be a pair of ids and a number, not {word!r}")
        ids, frequency = as_ids("words", word[0]), as_whole_number("words", word[1])
        spelled.append(ids)
        frequencies.append(frequency)
        for pair in pairwise(ids):
            pair_counts[pair] += frequency
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < num_merges:
        negative_count, pair = heapq.heappop(heap)
        count = pair_counts[pair]
        if count < -negative_count:  # it has shrunk since it was put there
            if count > 0:
                heapq.heappush(heap, (-count, pair))
            continue
        if count < max(min_frequency, 1):
            break
        new_id = first_id + len(merges)
        merges.append(pair)
        grown: set[Pair] = set()
        for index in where.pop(pair):
            old, frequency = spelled[index], frequencies[index]
            spelled[index] = _merge(old, pair, new_id)
            for neighbours, change in _changes(old, pair, new_id):
                pair_counts[neighbours] += change * frequency
                if change > 0:
                    where[neighbours].add(index)
                    grown.add(neighbours)
        for neighbours in grown:  # each contains the new token, so none is in the heap yet
            heapq.heappush(heap, (-pair_counts[neighbours], neighbours))
        del pair_counts[pair]
    return merges


def _changes(ids: Sequence[int], pair: Pair, new_id: int) -> list[tuple[Pair, int]]:
    """Return the pairs of neighbours that a merge makes (+1) or breaks (-1) in a word."""
    first, second = pair
    changes: list[tuple[Pair, int]] = []
    place, left = 0, None  # left: the neighbour to the left, after the merges before this place
    while place < len(ids):
        if ids[place] == first and place + 1 < len(ids) and ids[place + 1] == second:
            if left is not None:
                changes += [((left, first), -1), ((left, new_id), 1)]
            if place + 2 < len(ids):
                changes += [((second, ids[place + 2]), -1), ((new_id, ids[place + 2]), 1)]
            left = new_id
            place += 2
        else:
            left = ids[place]
            place += 1
    return changes
