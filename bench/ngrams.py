"""N-gram counts in sorted numpy arrays against a plain dictionary of counters.

python -m bench.ngrams [--quick]
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from bench.timing import side_by_side
from utils import data
from utils.ngrams import Interpolated, NGramCounts

WEIGHT = 0.6  # of the longer context, at every length


def plain_counts(text: str, order: int) -> list[dict[str, Counter]]:
    """Count as a first course in Python would: for each length, context -> next -> count."""
    tables: list[dict[str, Counter]] = []
    for n in range(1, order + 1):
        table: dict[str, Counter] = defaultdict(Counter)
        for start in range(len(text) - n + 1):
            table[text[start : start + n - 1]][text[start + n - 1]] += 1
        tables.append(table)
    return tables


def plain_totals(tables: list[dict[str, Counter]]) -> list[dict[str, int]]:
    """Sum each context's counts once, so that scoring need not."""
    return [{context: sum(c.values()) for context, c in table.items()} for table in tables]


def plain_log_probs(
    text: str, tables: list[dict[str, Counter]], totals: list[dict[str, int]], size: int
) -> list[float]:
    """Score as `Interpolated` does, one character at a time."""
    result = []
    for place, token in enumerate(text):
        prob = 1 / size
        for n in range(1, min(len(tables), place + 1) + 1):
            context = text[place - n + 1 : place]
            if context in totals[n - 1]:
                share = tables[n - 1][context][token] / totals[n - 1][context]
                prob = WEIGHT * share + (1 - WEIGHT) * prob
        result.append(math.log(prob))
    return result


def measure(quick: bool = False) -> dict[str, Any]:
    """Time counting a text and scoring another, for two orders."""
    train_size, test_size, rounds = (20_000, 2_000, 2) if quick else (400_000, 50_000, 5)
    text = "".join(data.plays().values())
    train, test = text[:train_size], text[-test_size:]
    vocabulary = sorted(set(text))
    rows = []
    for order in (3, 5):
        counts = NGramCounts(train, order, vocabulary)
        model = Interpolated(counts, order, WEIGHT)
        tables = plain_counts(train, order)
        totals = plain_totals(tables)
        score = (test, tables, totals, len(vocabulary))
        np.testing.assert_allclose(model.log_probs(test), plain_log_probs(*score), rtol=1e-9)
        work = {
            f"count {train_size:,} characters": {
                "ours": lambda order=order: NGramCounts(train, order, vocabulary),
                "plain": lambda order=order: plain_totals(plain_counts(train, order)),
            },
            f"score {test_size:,} characters": {
                "ours": lambda model=model: model.log_probs(test),
                "plain": lambda score=score: plain_log_probs(*score),
            },
        }
        for name, functions in work.items():
            result = side_by_side(functions, rounds)
            rows.append(
                [
                    order,
                    name,
                    result.milliseconds("ours"),
                    result.milliseconds("plain"),
                    result.ratio("plain", "ours"),
                ]
            )
    return {
        "title": "N-grams: sorted arrays, and a dictionary of counters",
        "columns": ["order", "work", "ours (ms)", "dictionary (ms)", "dictionary / ours"],
        "rows": rows,
        "notes": [
            "Characters of the plays; all lengths from 1 to the order are counted, and held-out "
            "text is scored by linear interpolation. Before timing, both give each character the "
            "same log-probability, to nine figures.",
            f"Processor time in one thread: medians of {rounds} alternating rounds; a ratio is the "
            "median over the rounds, with the quartiles in brackets.",
        ],
    }


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["ngrams", *sys.argv[1:]]))
