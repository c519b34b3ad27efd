"""The tokenizer playground: byte-level BPE on any text, one merge at a time."""

from __future__ import annotations

from utils.arguments import check_text, check_type
from utils.bpe import ByteLevelBPE
from utils.widgets.base import Explorer

LONGEST = 300  # characters, in the explorer's text box


class TokenizerPlayground(Explorer, script="tokenizer.js", style="tokenizer.css"):
    """Cut a text into a tokenizer's tokens, and watch the merges that make them.

    The reader's browser finds the same ids as `tokenizer.encode`. It knows as letters and numbers
    what its own Unicode tables list, which may be newer than Python's: a text with characters
    that Python does not know yet can be cut differently.

    Parameters
    ----------
    tokenizer : ByteLevelBPE
        With all 256 bytes, and merges in the order in which they were learned. All merges travel
        with the page, some 12 bytes each, so that one or two thousand are reasonable.
    text : str
        What the box holds at first, at most 300 characters.

    Raises
    ------
    TypeError, ValueError
        If `tokenizer` is another kind of tokenizer, lacks a byte, or has a merge of tokens that
        only later merges make; if the text is empty or too long.
    """

    def __init__(self, tokenizer: ByteLevelBPE, text: str) -> None:
        way = "train one with utils.tokenizers.ByteLevelBPE.train(text, vocab_size=2048)"
        check_type("tokenizer", tokenizer, ByteLevelBPE, hint=way)
        check_text(text=text)
        if not 0 < len(text) <= LONGEST:
            raise ValueError(f"text should have 1 to {LONGEST} characters, not {len(text)}")
        ids = tokenizer.encode(text)
        pieces = [tokenizer.token_bytes(token_id) for token_id in ids]
        num_bytes = len(text.encode())
        super().__init__(
            {
                "bytes": _in_one_line(_byte_ids(tokenizer)),
                "merges": _in_one_line(_merges(tokenizer)),
                "digits": tokenizer.split_digits,
                "text": text,
                "longest": LONGEST,
            },
            words=f"{text!r} in {len(ids)} tokens of a byte-level BPE with "
            f"{len(tokenizer.merges):,} merges, {num_bytes / len(ids):.2f} bytes per token:\n"
            + " ".join(
                f"{_readable(piece)} ({token_id})"
                for piece, token_id in zip(pieces, ids, strict=True)
            ),
        )


def _byte_ids(tokenizer: ByteLevelBPE) -> list[int]:
    """Return the ids of the bytes 0 to 255."""
    missing = [byte for byte in range(256) if bytes([byte]) not in tokenizer.vocab]
    if missing:
        raise ValueError(
            f"the vocabulary has no token for {len(missing)} of the 256 bytes, among them "
            f"{missing[0]}: the playground takes any text, so it needs all of them"
        )
    return [tokenizer.vocab[bytes([byte])] for byte in range(256)]


def _merges(tokenizer: ByteLevelBPE) -> list[int]:
    """Return three ids for each merge, in one flat list: its two tokens and its result.

    With a token's own merge always before those that use it, the lowest rank of a word can only
    rise, and joining all occurrences of a pair at once is the same as one after the other.
    """
    made = {bytes([byte]) for byte in range(256)}
    flat: list[int] = []
    for rank, (first, second) in enumerate(tokenizer.merges):
        if not {first, second} <= made:
            raise ValueError(
                f"merge {rank} joins {first!r} and {second!r}, which no earlier merge makes: pass "
                "the merges in the order in which they were learned"
            )
        made.add(first + second)
        flat += [tokenizer.vocab[token] for token in (first, second, first + second)]
    return flat


def _in_one_line(numbers: list[int]) -> str:
    """Write numbers as text, because a saved notebook has a line for each entry of a list."""
    return " ".join(map(str, numbers))


def _readable(piece: bytes) -> str:
    """Show a token as text where its bytes are text, else in hexadecimal."""
    try:
        text = piece.decode().replace(" ", "␣").replace("\n", "↵")
    except UnicodeDecodeError:
        return piece.hex(" ").upper()
    return text if text.isprintable() else piece.hex(" ").upper()
