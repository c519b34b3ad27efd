"""Byte-level byte-pair encoding: a text's bytes, joined into tokens by merges learned from a text.

    tokenizer = ByteLevelBPE.train(text, vocab_size=1000)
    ids = tokenizer.encode("To be, or not to be")
    tokenizer.decode(ids)  # the same text, always

The method is Sennrich, Haddow and Birch's (2016, arXiv:1508.07909), over bytes as in GPT-2
(Radford et al. 2019, section 2.2). Merges and ids are those of the `tokenizers` library with the
same settings. Chapter 2 derives all of it.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import index
from pathlib import Path
from typing import Any

from utils.arguments import (
    as_ids,
    as_list,
    as_path,
    as_texts,
    as_whole_number,
    check_choice,
    shown,
)
from utils.merges import (
    Pair,
    byte_to_unicode,
    learn_merges,
    read_saved,
    split_off_numbers,
    split_words,
)

_LONGEST_CACHED = 64  # bytes: longer stretches without a space hardly ever come twice
_MOST_CACHED = 200_000


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
    TypeError, ValueError
        If an id occurs twice, or a merge needs or makes a token that the vocabulary lacks, or
        something is of another type.
    """

    def __init__(
        self,
        vocab: dict[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        special_tokens: dict[str, int] | None = None,
        *,
        split_digits: bool = False,
    ) -> None:
        _check_vocab("vocab", vocab, bytes)
        _check_vocab("special_tokens", {} if special_tokens is None else special_tokens, str)
        self.vocab, self.merges = dict(vocab), _as_pairs(merges, bytes)
        self.special_tokens, self.split_digits = dict(special_tokens or {}), split_digits
        self._bytes_of = {token_id: token for token, token_id in self.vocab.items()}
        self._bytes_of |= {i: token.encode() for token, i in self.special_tokens.items()}
        if len(self._bytes_of) < len(self.vocab) + len(self.special_tokens):
            raise ValueError(
                "two tokens of vocab or special_tokens have the same id: give each its own"
            )
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
        special_tokens = list(dict.fromkeys(as_list("special_tokens", special_tokens, str)))
        vocab_size = as_whole_number("vocab_size", vocab_size)
        base = len(special_tokens) + 256
        if vocab_size < base:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: {len(special_tokens)} special tokens and "
                f"256 bytes need {base}"
            )
        tokens = [bytes([byte]) for byte in byte_to_unicode()]
        ids = {token[0]: len(special_tokens) + place for place, token in enumerate(tokens)}
        words: Counter[str] = Counter()
        for text in as_texts("texts", texts):
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
        for part in split_off_numbers(text) if self.split_digits else [text]:
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
            return self._bytes_of[index(token_id)]
        except TypeError:
            raise TypeError(f"token_id must be a whole number, not {shown(token_id)}") from None
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
        check_choice("errors", errors, ("replace", "strict", "ignore"))
        return b"".join(map(self.token_bytes, as_ids("ids", ids))).decode("utf-8", errors=errors)

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
        as_path("path", path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ByteLevelBPE:
        """Read a tokenizer that `save` wrote.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        keys = ("vocab", "merges", "special_tokens", "split_digits")
        contents = read_saved(path, "byte-level BPE", keys)
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
            try:
                return bytes(as_bytes[char] for char in token)
            except KeyError as error:
                raise ValueError(
                    f"{error.args[0]!r} in the token {token!r} is no sign of GPT-2's alphabet: are "
                    "vocab and merges spelled as in vocab.json and merges.txt?"
                ) from None

        _check_vocab("vocab", vocab, str)
        return cls(
            {spelled(token): token_id for token, token_id in vocab.items()},
            [(spelled(first), spelled(second)) for first, second in _as_pairs(merges, str)],
            special_tokens,
            split_digits=split_digits,
        )


def _check_vocab(name: str, vocab: Any, kind: type) -> None:
    """Raise unless something is a dict from tokens to ids."""
    if not isinstance(vocab, Mapping):
        raise TypeError(f"{name} must be a dict from {kind.__name__} to int, not {shown(vocab)}")
    for token, token_id in vocab.items():
        if not isinstance(token, kind):
            raise TypeError(f"{name}: a token must be {kind.__name__}, not {shown(token)}")
        as_whole_number(f"{name}[{token!r}]", token_id)


def _as_pairs(merges: Any, kind: type) -> list[tuple[Any, Any]]:
    """Return merges as a list of pairs of tokens, or say what they are instead."""
    pairs = as_list("merges", merges, tuple, list)
    for place, pair in enumerate(pairs):
        if len(pair) != 2 or not all(isinstance(token, kind) for token in pair):
            raise TypeError(f"merges[{place}] must be two {kind.__name__}, not {shown(pair)}")
    return [tuple(pair) for pair in pairs]


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
