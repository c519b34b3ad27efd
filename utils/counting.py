"""Counting n-grams of a text, fast enough for millions of characters, in plain numpy."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.arguments import as_integers, as_whole_number, check_type, shown

Tokens = str | Sequence[Hashable]


@dataclass(frozen=True)
class _Table:
    """Counts of n-grams of one length, sorted by code so that a binary search finds them."""

    grams: np.ndarray  # (N,) codes of the distinct n-grams
    counts: np.ndarray  # (N,)
    contexts: np.ndarray  # (M,) codes of their distinct first n-1 tokens
    totals: np.ndarray  # (M,) sum of the counts that share a context
    types: np.ndarray  # (M,) number of distinct tokens seen after it
    size: int  # V

    @classmethod
    def of(cls, codes: np.ndarray, size: int) -> _Table:
        """Count codes that may occur many times."""
        grams, counts = np.unique(codes, return_counts=True)
        contexts, first = np.unique(grams // size, return_index=True)
        types = np.diff(np.append(first, len(grams)))
        return cls(grams, counts, contexts, np.add.reduceat(counts, first), types, size)

    def lookup(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c(h w), c(h) and N1+(h •) for each n-gram h w; 0 where it never occurred."""
        # looked up once each and in sorted order: several times faster on a long text
        grams, back = np.unique(grams, return_inverse=True)
        place = np.minimum(np.searchsorted(self.grams, grams), len(self.grams) - 1)
        counts = np.where(self.grams[place] == grams, self.counts[place], 0)
        contexts = grams // self.size
        place = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        seen = self.contexts[place] == contexts
        totals, types = np.where(seen, (self.totals[place], self.types[place]), 0)
        return counts[back], totals[back], types[back]


class NGramCounts:
    """How often every n-gram of length 1 to `order` occurs in a text.

    An n-gram is packed into one integer, its tokens' ids being the digits in base V, so that
    counting is one sort (`numpy.unique`) and a count is found by one binary search.

    Parameters
    ----------
    tokens : str or sequence of hashable
        The training text: a string is a sequence of characters.
    order : int
        The longest n-gram to count.
    vocabulary : sequence of hashable, optional
        All tokens that can ever occur; by default, those that occur in `tokens`.

    Raises
    ------
    TypeError
        If `tokens` is not a sequence.
    ValueError
        If the text is shorter than `order`, has a token outside the vocabulary, or if V to the
        power of `order` does not fit into 63 bits.
    """

    def __init__(self, tokens: Tokens, order: int, vocabulary: Tokens | None = None) -> None:
        self.order = as_whole_number("order", order, 1)
        self.is_text = isinstance(tokens, str)
        _check_tokens("tokens", tokens)
        if len(tokens) < self.order:
            raise ValueError(
                f"the text has {len(tokens)} tokens, fewer than the order {self.order}: "
                "give more text or a smaller order"
            )
        if vocabulary is None:
            vocabulary = sorted(set(tokens))
        _check_tokens("vocabulary", vocabulary)
        self.vocabulary = tuple(vocabulary)
        self.index = {token: i for i, token in enumerate(self.vocabulary)}
        if len(self.index) < len(self.vocabulary):
            raise ValueError("the vocabulary lists a token twice: pass sorted(set(vocabulary))")
        if len(self.vocabulary) ** self.order >= 2**63:
            raise ValueError(
                f"order {self.order} over {len(self.vocabulary)} tokens needs more than 63 bits "
                "for an n-gram: use a smaller order or a smaller vocabulary"
            )
        ids = self.encode(tokens)
        self._tables = [
            _Table.of(self.pack(ids, n), len(self.vocabulary)) for n in range(1, self.order + 1)
        ]

    def encode(self, tokens: Tokens) -> np.ndarray:
        """Return the tokens' ids, shape (T,); ValueError for a token outside the vocabulary."""
        _check_tokens("tokens", tokens)
        try:
            return np.fromiter((self.index[token] for token in tokens), np.int64, len(tokens))
        except KeyError as error:
            raise ValueError(
                f"the token {error.args[0]!r} is not in the vocabulary of "
                f"{len(self.vocabulary)} tokens: give NGramCounts a `vocabulary` that has it"
            ) from None

    def pack(self, ids: np.ndarray, n: int) -> np.ndarray:
        """Return the codes of all windows of n consecutive ids, shape (T - n + 1,)."""
        ids, n = as_integers("ids", ids, "(T,)"), as_whole_number("n", n, 0, self.order)
        codes = np.zeros(max(len(ids) - n + 1, 0), dtype=np.int64)
        for offset in range(n):
            codes = codes * len(self.vocabulary) + ids[offset : offset + len(codes)]
        return codes

    def count(self, ngram: Tokens) -> int:
        """Return how often one n-gram occurs in the training text."""
        _check_tokens("ngram", ngram)
        table = self.table(len(ngram))
        return int(table.lookup(self.pack(self.encode(ngram), len(ngram)))[0][0])

    def table(self, n: int) -> _Table:
        """Return the counts of the n-grams of length n <= order."""
        check_type("n", n, int, np.integer)
        if not 1 <= n <= self.order:
            raise ValueError(f"n-grams of length {n} were not counted, only 1 to {self.order}")
        return self._tables[n - 1]

    def continuation_table(self, n: int) -> _Table:
        """Return, for n-grams of length n < order, before how many distinct tokens they came.

        That is N1+(• w_1..w_n) in the notation of Chen and Goodman (1999).
        """
        check_type("n", n, int, np.integer)
        if not 1 <= n < self.order:
            raise ValueError(f"continuation counts of length {n} need n-grams of length {n + 1}")
        return self._continuations[n - 1]

    @cached_property
    def _continuations(self) -> list[_Table]:
        size = len(self.vocabulary)
        return [  # each distinct (n+1)-gram is one distinct token before its last n tokens
            _Table.of(longer.grams % size**n, size)
            for n, longer in enumerate(self._tables[1:], start=1)
        ]


def _check_tokens(name: str, tokens: Tokens) -> None:
    """Raise TypeError unless something is a sequence of tokens that a dict can have as keys."""
    if not isinstance(tokens, Sequence):
        raise TypeError(f"{name} must be a string or a list of tokens, not {shown(tokens)}")
    if not isinstance(tokens, str):
        for place, token in enumerate(tokens):
            if not isinstance(token, Hashable):
                raise TypeError(f"{name}[{place}] must be hashable, not {shown(token)}")
