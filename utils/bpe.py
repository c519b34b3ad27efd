"""Byte-level byte-pair encoding: a text's bytes, joined into tokens by merges learned from a text.

    tokenizer = ByteLevelBPE.train(text, vocab_size=1000)
    ids = tokenizer.encode("To be, or not to be")
    tokenizer.decode(ids)  # the same text, always

The method is Sennrich, Haddow and Birch's (2016, arXiv:1508.07909, algorithm 1), over bytes and
with the splitting pattern of GPT-2 (Radford et al. 2019, section 2.2). Merges and ids are those of
the `tokenizers` library with the same settings. Chapter 2 derives all of it.
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

Pair = tuple[int, int]
_LONGEST_CACHED = 64  # bytes: longer stretches without a space hardly ever come twice
_MOST_CACHED = 200_000


def byte_to_unicode() -> dict[int, str]:
    """Return GPT-2's alphabet: a printable character for each of the 256 bytes.

    Printable Latin-1 bytes stand for themselves; the others, in order, are shown as the characters
    from U+0100 on. A space is "Ġ" and a line feed is "Ċ". The order of the dictionary is the order
    of the bytes' ids.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
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
    """
    return _splitting_pattern().findall(text)


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace each occurrence of two neighbouring ids, from left to right, by one new id."""
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
    """
    spelled, frequencies = [], []
    pair_counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that a pair occurs in
    for index, (ids, frequency) in enumerate(words):
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
            spelled[index] = merge_pair(old, pair, new_id)
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


class ByteLevelBPE:
    """A byte-level BPE tokenizer; decoding what it encoded gives the text back, whatever it was.

    Parameters
    ----------
    vocab : dict from bytes to int
        Each token's id. With all 256 single bytes among them, no text is unknown; released
        vocabularies may lack bytes that hardly occur, and `encode` raises where one does.
    merges : sequence of (bytes, bytes)
        The most important first.
    special_tokens : dict from str to int, optional
        Tokens such as "<|endoftext|>" that stand for no text.
    split_digits : bool
        Cut every digit off by itself first, as SmolLM2 does.

    Raises
    ------
    ValueError
        If an id occurs twice, or a merge needs or makes a token that the vocabulary lacks.
    """

    def __init__(
        self,
        vocab: dict[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        special_tokens: dict[str, int] | None = None,
        *,
        split_digits: bool = False,
    ) -> None:
        self.vocab, self.merges = dict(vocab), list(merges)
        self.special_tokens, self.split_digits = dict(special_tokens or {}), split_digits
        self._bytes_of = {token_id: token for token, token_id in self.vocab.items()}
        self._bytes_of |= {i: token.encode() for token, i in self.special_tokens.items()}
        if len(self._bytes_of) < len(self.vocab) + len(self.special_tokens):
            raise ValueError("two tokens have the same id: give each token an id of its own")
        self._byte_ids = [self.vocab.get(bytes([byte])) for byte in range(256)]
        self._ranks: dict[Pair, tuple[int, int]] = {}  # pair of ids -> rank, id of the result
        for rank, (first, second) in enumerate(self.merges):
            try:
                pair = self.vocab[first], self.vocab[second]
                self._ranks.setdefault(pair, (rank, self.vocab[first + second]))
            except KeyError as error:
                raise ValueError(
                    f"merge {rank} joins {first!r} and {second!r}, but {error.args[0]!r} is not in "
                    "the vocabulary: merges and vocabulary must come from the same training"
                ) from None
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        *,
        min_frequency: int = 0,
        special_tokens: Sequence[str] = (),
    ) -> ByteLevelBPE:
        """Learn a tokenizer from texts.

        Ids go to the special tokens first, then to the 256 bytes in the order of
        `byte_to_unicode`, then to the merges as they are learned.

        Parameters
        ----------
        texts : str or iterable of str
        vocab_size : int
            Special tokens and bytes included. Fewer come out if the texts hold no more pairs.
        min_frequency : int
            Learn no merge whose pair occurs less often.
        special_tokens : sequence of str

        Raises
        ------
        ValueError
            If `vocab_size` has no room for the special tokens and the bytes.
        """
        special_tokens = list(dict.fromkeys(special_tokens))
        base = len(special_tokens) + 256
        if vocab_size < base:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: {len(special_tokens)} special tokens and "
                f"256 bytes need {base}"
            )
        tokens = [bytes([byte]) for byte in byte_to_unicode()]
        ids = {token[0]: len(special_tokens) + place for place, token in enumerate(tokens)}
        words: Counter[str] = Counter()
        for text in [texts] if isinstance(texts, str) else texts:
            words.update(split_words(text))
        spelled = [([ids[byte] for byte in _utf8(word)], n) for word, n in words.items()]
        pairs = learn_merges(spelled, base, vocab_size - base, min_frequency)
        merges = []
        for first, second in pairs:
            merges.append(
                (tokens[first - len(special_tokens)], tokens[second - len(special_tokens)])
            )
            tokens.append(b"".join(merges[-1]))
        vocab = {token: len(special_tokens) + place for place, token in enumerate(tokens)}
        return cls(vocab, merges, {token: i for i, token in enumerate(special_tokens)})

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, special ones included."""
        return len(self._bytes_of)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Return the ids of a text's tokens.

        Parameters
        ----------
        text : str
        allow_special : bool
            Whether "<|endoftext|>" and the like, written out in the text, become the special
            token. Leave it off for text that comes from a user.

        Raises
        ------
        TypeError, ValueError
            If the text is not a string, holds half of a surrogate pair, which has no bytes, or
            holds a byte for which the vocabulary has no token.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode takes a string, not {type(text).__name__}")
        if not allow_special or not self.special_tokens:
            return self._encode_ordinary(text)
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(map(re.escape, longest_first))})", text):
            special = self.special_tokens.get(piece)
            ids += self._encode_ordinary(piece) if special is None else [special]
        return ids

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        # With one group, `re.split` returns the digits as well as what is between them.
        for part in re.split(_one_number(), text) if self.split_digits else [text]:
            for word in split_words(part):
                known = self._cache.get(word)
                if known is None:
                    known = self._merge(_utf8(word))
                    if len(word) <= _LONGEST_CACHED and len(self._cache) < _MOST_CACHED:
                        self._cache[word] = known
                ids += known
        return ids

    def _merge(self, word: bytes) -> list[int]:
        """Apply the merges to one word, lowest rank first, leftmost first among equals.

        The tokens form a linked list and the candidates wait in a heap, so that a word of n bytes
        takes about n log n steps where rescanning it after each merge would take n².
        """
        ids, n = [self._byte_ids[byte] for byte in word], len(word)
        if None in ids:
            raise ValueError(
                f"the vocabulary has no token for the byte {word[ids.index(None)]}: remove the "
                "character from the text, or use a vocabulary with all 256 bytes"
            )
        after, before = list(range(1, n + 1)), list(range(-1, n - 1))
        heap: list[int] = []  # rank and place in one number: rank * n + place

        def consider(place: int) -> None:
            if place >= 0 and after[place] < n:
                found = self._ranks.get((ids[place], ids[after[place]]))
                if found:
                    heapq.heappush(heap, found[0] * n + place)

        for place in range(n - 1):
            consider(place)
        while heap:
            rank, place = divmod(heapq.heappop(heap), n)
            right = after[place]
            found = self._ranks.get((ids[place], ids[right])) if right < n else None
            if found is None or found[0] != rank:
                continue  # an earlier merge has taken one of the two away
            ids[place], ids[right] = found[1], -1  # -1: part of the token to its left
            after[place] = after[right]
            if after[place] < n:
                before[after[place]] = place
            consider(before[place])
            consider(place)
        return [token_id for token_id in ids if token_id >= 0]

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for (a special token's: its name)."""
        try:
            return self._bytes_of[int(token_id)]
        except KeyError:
            raise ValueError(
                f"there is no token with id {token_id}; ids of this vocabulary go up to "
                f"{max(self._bytes_of)}"
            ) from None

    def tokens(self, text: str) -> list[str]:
        """Return a text's tokens as GPT-2 writes them: "Ġ" for a space, a sign for every byte."""
        return [_shown(self.token_bytes(token_id)) for token_id in self.encode(text)]

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of some tokens.

        Parameters
        ----------
        ids : iterable of int
        errors : {"replace", "strict", "ignore"}
            What to do if the bytes are not a text, because a character was cut in the middle:
            put "�" there, raise UnicodeDecodeError, or leave it out.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors=errors)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file, its tokens spelled in GPT-2's alphabet."""
        contents = {
            "type": "byte-level BPE",
            "split_digits": self.split_digits,
            "special_tokens": self.special_tokens,
            "vocab": {_shown(token): token_id for token, token_id in self.vocab.items()},
            "merges": [[_shown(first), _shown(second)] for first, second in self.merges],
        }
        text = json.dumps(contents, ensure_ascii=False, indent=0)
        Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ByteLevelBPE:
        """Read a tokenizer that `save` wrote.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(contents, dict) or contents.get("type") != "byte-level BPE":
            raise ValueError(f"{path} is not a byte-level BPE tokenizer written by save()")
        return cls.from_gpt2(
            contents["vocab"],
            contents["merges"],
            contents["special_tokens"],
            split_digits=contents["split_digits"],
        )

    @classmethod
    def from_gpt2(
        cls,
        vocab: dict[str, int],
        merges: Iterable[Sequence[str]],
        special_tokens: dict[str, int] | None = None,
        *,
        split_digits: bool = False,
    ) -> ByteLevelBPE:
        """Make a tokenizer of a vocabulary and merges spelled in GPT-2's alphabet.

        That is how `vocab.json` and `merges.txt` of released models spell them. Tokens that are
        special must not be in `vocab`; the other parameters are as for the class.
        """
        as_bytes = {char: byte for byte, char in byte_to_unicode().items()}

        def spelled(token: str) -> bytes:
            return bytes(as_bytes[char] for char in token)

        return cls(
            {spelled(token): token_id for token, token_id in vocab.items()},
            [(spelled(first), spelled(second)) for first, second in merges],
            special_tokens,
            split_digits=split_digits,
        )


@cache
def _one_number() -> re.Pattern[str]:
    """Return a pattern for one character that is a number."""
    return re.compile(f"([{_numbers()}])")


@cache
def _alphabet() -> dict[int, str]:
    return byte_to_unicode()


def _shown(token: bytes) -> str:
    """Spell a token in GPT-2's alphabet."""
    return "".join(_alphabet()[byte] for byte in token)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of {text[:20]!r} is half of a surrogate pair, which is no "
            "character and has no bytes: text.encode('utf-16', 'surrogatepass').decode('utf-16') "
            "joins halves, errors='replace' in it drops lone ones"
        ) from None
