"""Byte-level BPE: counts kept up to date, recounted for each merge, and the `tokenizers` library.

python -m bench.tokenizers [--quick]
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.timing import side_by_side
from utils import data
from utils.tokenizers import ByteLevelBPE, byte_to_unicode, merge_pair, split_words

Pair = tuple[int, int]


def naive_training(text: str, num_merges: int) -> list[Pair]:
    """Learn merges as chapter 2 first does: count all pairs anew for every merge."""
    ids = {byte: i for i, byte in enumerate(byte_to_unicode())}
    words = Counter(split_words(text))
    spelled = [([ids[byte] for byte in word.encode()], n) for word, n in words.items()]
    merges = []
    for new_id in range(256, 256 + num_merges):
        counts: Counter[Pair] = Counter()
        for word, n in spelled:
            for pair in pairwise(word):
                counts[pair] += n
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [(merge_pair(word, best, new_id), n) for word, n in spelled]
    return merges


def naive_encoding(text: str, tokenizer: ByteLevelBPE) -> list[int]:
    """Encode by looking through the whole word again after every merge."""
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    ids = []
    for word in split_words(text):
        tokens = [bytes([byte]) for byte in word.encode()]
        while len(tokens) > 1:
            found = [ranks.get(pair, len(ranks)) for pair in pairwise(tokens)]
            lowest = min(found)
            if lowest == len(ranks):
                break
            place = found.index(lowest)
            tokens[place : place + 2] = [tokens[place] + tokens[place + 1]]
        ids += [tokenizer.vocab[token] for token in tokens]
    return ids


def library(text: str, num_merges: int) -> Any:
    """Train the library's tokenizer with the same settings."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def row(name: str, functions: dict[str, Callable[[], object]], rounds: int) -> list[str]:
    """Time the versions of one piece of work; the naive one may be missing."""
    result = side_by_side(functions, rounds)
    naive = "naive" in functions
    return [
        name,
        result.milliseconds("ours"),
        result.milliseconds("naive") if naive else "not run",
        result.milliseconds("library"),
        result.ratio("naive", "ours") if naive else "",
        result.ratio("ours", "library"),
    ]


def measure(quick: bool = False) -> dict[str, Any]:
    """Time training on a short and on a long text, and encoding with and without spaces."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # read at the library's first parallel work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rounds = 2 if quick else 5
    train, unseen, _ = data.plays_split()
    split_words("")  # builds the pattern
    rows = []
    sizes = ((20_000, 20), (40_000, 100)) if quick else ((100_000, 200), (1_000_000, 2_000))
    for size, num_merges in sizes:
        text = train[:size]
        ours, theirs = ByteLevelBPE.train(text, 256 + num_merges), library(text, num_merges)
        check = unseen[:20_000]
        assert ours.encode(check) == theirs.encode(check).ids
        functions = {
            "ours": lambda text=text, n=num_merges: ByteLevelBPE.train(text, 256 + n),
            "library": lambda text=text, n=num_merges: library(text, n),
        }
        if size == sizes[0][0]:
            functions["naive"] = lambda text=text, n=num_merges: naive_training(text, n)
            assert len(naive_training(text, num_merges)) == len(ours.merges) == num_merges
        rows.append(row(f"learn {num_merges:,} merges from {size:,} characters", functions, rounds))

    letters = "".join(random.Random(0).choices("etaoinshr", k=500 if quick else 5_000))
    plays = unseen[: 5_000 if quick else 50_000]
    for name, text in (
        (f"encode {len(plays):,} characters of unseen plays", plays),
        (f"encode one word of {len(letters):,} letters", letters),
    ):
        assert ours.encode(text) == naive_encoding(text, ours) == theirs.encode(text).ids
        functions = {
            "ours": lambda text=text: ours.encode(text),
            "naive": lambda text=text: naive_encoding(text, ours),
            "library": lambda text=text: theirs.encode(text).ids,
        }
        rows.append(row(name, functions, rounds))
    return {
        "title": "Byte-level BPE: training and encoding",
        "columns": [
            "work",
            "ours (ms)",
            "naive (ms)",
            "tokenizers (ms)",
            "naive / ours",
            "ours / tokenizers",
        ],
        "rows": rows,
        "notes": [
            "Ours is Python, with pair counts kept up to date and a heap. Naive is Python too: it "
            "counts all pairs anew for each merge and, encoding, reads the whole word anew. "
            "tokenizers is Hugging Face's library, in Rust. Training includes cutting the text "
            "into words.",
            "Before timing, all versions give the same ids. Encoding plays, ours and tokenizers "
            "remember the words they have met, and have met these; naive does not. Nobody "
            "remembers the long word. tokenizers also records where in the text each token lies.",
            f"Processor time in one thread: medians of {rounds} alternating rounds; a ratio is the "
            "median over the rounds, with the quartiles in brackets.",
        ],
    }


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["tokenizers", *sys.argv[1:]]))
