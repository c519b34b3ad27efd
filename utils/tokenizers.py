"""From text to integers and back: characters, byte-level BPE and WordPiece, and batches of them.

All tokenizers have `encode(text)`, which returns a list of ids, `decode(ids)`, `tokens(text)` to
look at, `vocab_size`, `train(...)`, and `save`/`load` of plain JSON. Byte-level BPE is in
`utils.bpe`, WordPiece in `utils.wordpiece`, what they share in `utils.merges`; import it from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.arguments import (
    LARGEST_SIZE,
    as_array,
    as_ids,
    as_list,
    as_path,
    as_texts,
    as_whole_number,
    check_text,
    shown,
)
from utils.bpe import ByteLevelBPE
from utils.merges import byte_to_unicode, learn_merges, merge_pair, read_saved, split_words
from utils.wordpiece import BERT_SPECIAL_TOKENS, WordPiece, basic_words

__all__ = [
    "BERT_SPECIAL_TOKENS",
    "ByteLevelBPE",
    "CharTokenizer",
    "WordPiece",
    "basic_words",
    "byte_to_unicode",
    "learn_merges",
    "merge_pair",
    "pad_batch",
    "split_words",
]


class CharTokenizer:
    """One token for each character; characters that it has never seen are an error.

    Parameters
    ----------
    characters : iterable of str
        In the order of their ids.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        is_text = isinstance(characters, str)
        self.characters = list(characters) if is_text else as_list("characters", characters, str)
        self.vocab = {char: i for i, char in enumerate(self.characters)}
        if len(self.vocab) < len(self.characters) or any(len(c) != 1 for c in self.characters):
            raise ValueError("characters must be single and different: pass sorted(set(text))")

    @classmethod
    def train(cls, texts: str | Iterable[str]) -> CharTokenizer:
        """Take every character that occurs in the texts, sorted."""
        return cls(sorted({char for text in as_texts("texts", texts) for char in text}))

    @property
    def vocab_size(self) -> int:
        """How many characters there are."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Return the characters' ids; ValueError for one that is not in the vocabulary."""
        check_text(text=text)
        try:
            return [self.vocab[char] for char in text]
        except KeyError as error:
            raise ValueError(
                f"the character {error.args[0]!r} is not among the {self.vocab_size} known ones: "
                "train on a text that has it, or use ByteLevelBPE, to which no text is unknown"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids; ValueError for an id that is not in the vocabulary."""
        ids = as_ids("ids", ids)
        wrong = [i for i in ids if not 0 <= i < self.vocab_size]
        if wrong:
            raise ValueError(f"id {wrong[0]} is not from 0 to {self.vocab_size - 1}")
        return "".join(self.characters[i] for i in ids)

    def tokens(self, text: str) -> list[str]:
        """Return the characters."""
        return [self.characters[i] for i in self.encode(text)]

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file."""
        contents = {"type": "characters", "characters": "".join(self.characters)}
        path = as_path("path", path)
        path.write_text(json.dumps(contents, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CharTokenizer:
        """Read a tokenizer that `save` wrote; ValueError if the file holds something else."""
        return cls(read_saved(path, "characters", ("characters",))["characters"])


def pad_batch(
    sequences: Sequence[Sequence[int]],
    pad_id: int,
    *,
    max_length: int | None = None,
    side: str = "right",
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Put sequences of different lengths into one rectangle, and say where they are real.

    Parameters
    ----------
    sequences : sequence of B sequences of int
    pad_id : int
        What to fill up with.
    max_length : int, optional
        T, by default the longest sequence's length. Longer sequences are not cut: that is the
        tokenizer's business, which knows which tokens must stay.
    side : {"right", "left"}
        Where the padding goes: right for encoders, left for decoders that are to continue the text.

    Returns
    -------
    ids : numpy.ndarray of int64, shape (B, T)
    attention_mask : numpy.ndarray of bool, shape (B, T)
        True for a real token, False for padding.

    Raises
    ------
    TypeError, ValueError
        If there is no sequence, one of them does not hold whole numbers or is longer than
        `max_length`, or `side` is neither.
    """
    pad_id = as_whole_number("pad_id", pad_id, -LARGEST_SIZE)
    if side not in ("right", "left"):
        raise ValueError(f"side must be 'right' or 'left', not {side!r}")
    sequences = [_as_row(i, each) for i, each in enumerate(as_list("sequences", sequences))]
    lengths = [len(sequence) for sequence in sequences]
    if not lengths:
        raise ValueError("there are no sequences to pad: give at least one")
    width = max(lengths) if max_length is None else as_whole_number("max_length", max_length)
    if max(lengths) > width:
        raise ValueError(
            f"a sequence has {max(lengths)} tokens, but max_length is {width}: truncate it first, "
            "for instance with encode_pair(..., max_length)"
        )
    ids = np.full((len(lengths), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros(ids.shape, dtype=bool)
    for row, sequence in enumerate(sequences):
        start = 0 if side == "right" else width - len(sequence)
        ids[row, start : start + len(sequence)] = sequence
        attention_mask[row, start : start + len(sequence)] = True
    return ids, attention_mask


def _as_row(place: int, sequence: Sequence[int]) -> NDArray[np.int64]:
    """Return one sequence as an array, or say what is wrong with it."""
    row = as_array(f"sequences[{place}]", sequence)
    if row.ndim != 1 or (row.size and row.dtype.kind not in "iub"):
        raise TypeError(
            f"sequences[{place}] must be a list of whole numbers, not {shown(sequence)}"
        )
    return row
