"""WordPiece as BERT uses it: words cleaned and cut apart, then the longest piece that fits.

    tokenizer = WordPiece.from_file(checkpoint_path("minilm") / "vocab.txt")
    tokenizer.tokens("Tokenisation is fun")  # ['token', '##isation', 'is', 'fun']
    ids, token_types = tokenizer.encode_pair("a question", "and its answer")

The cutting is that of BERT (Devlin et al. 2019, arXiv:1810.04805, and the code released with it);
ids are those of the `tokenizers` library. Chapter 2 derives all of it.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from utils.arguments import (
    as_ids,
    as_list,
    as_path,
    as_texts,
    as_whole_number,
    check_text,
    check_type,
)
from utils.merges import learn_merges, read_saved

BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST_WORD = 100  # characters; a longer word is unknown as a whole
# Blocks of Chinese characters. The first of the last but three would start at U+2B820 in Unicode
# and in BERT's code; the `tokenizers` library has U+2B920, and released tokenizers run on it.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@cache
def _clean_character(char: str) -> str:
    """Return a character as a space, as itself, between spaces, or not at all."""
    if char in "\t\n\r":
        return " "
    if char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Co"):
        return ""
    if char.isspace():
        return " "
    code = ord(char)
    return f" {char} " if any(low <= code <= high for low, high in _CHINESE) else char


@cache
def _is_punctuation(char: str) -> bool:
    """Whether a character stands by itself; ASCII's symbols such as "$" and "+" count as well."""
    return unicodedata.category(char)[0] == "P" or (char.isascii() and not char.isalnum())


def basic_words(text: str, *, lowercase: bool = True) -> list[str]:
    """Cut a text into words and punctuation marks, as BERT does before WordPiece.

    Control characters go, white space becomes a space, Chinese characters get spaces around them;
    accents go and letters become small (if `lowercase`); then the text is cut at spaces, and every
    punctuation mark is a word of its own.

    Parameters
    ----------
    text : str
    lowercase : bool
        The "uncased" models lower and strip accents, the "cased" ones do neither.

    Returns
    -------
    list of str
    """
    check_text(text=text)
    text = "".join(map(_clean_character, text))
    if lowercase:
        decomposed = unicodedata.normalize("NFD", text)  # é becomes e and an accent
        text = "".join(c.lower() for c in decomposed if unicodedata.category(c) != "Mn")
    words: list[str] = []
    for stretch in text.split():
        start = 0
        for place, char in enumerate(stretch):
            if _is_punctuation(char):
                words += [stretch[start:place]] if place > start else []
                words.append(char)
                start = place + 1
        words += [stretch[start:]] if start < len(stretch) else []
    return words


class WordPiece:
    """A WordPiece tokenizer.

    Parameters
    ----------
    vocab : sequence of str, or dict from str to int
        The tokens in the order of their ids, or with them. A token inside a word starts with "##".
    lowercase : bool
        As for `basic_words`.

    Raises
    ------
    TypeError, ValueError
        If "[UNK]" is missing or a token occurs twice, or something is of another type.
    """

    def __init__(self, vocab: Sequence[str] | dict[str, int], *, lowercase: bool = True) -> None:
        as_list("vocab", list(vocab) if isinstance(vocab, dict) else vocab, str)
        if isinstance(vocab, dict):
            self.vocab = {token: as_whole_number("vocab", i) for token, i in vocab.items()}
        else:
            self.vocab = {token: i for i, token in enumerate(vocab)}
        self.lowercase = lowercase
        self._token_of = {token_id: token for token, token_id in self.vocab.items()}
        if len(self.vocab) < len(vocab) or len(self._token_of) < len(self.vocab):
            raise ValueError("the vocabulary lists a token or an id twice: make each occur once")
        if "[UNK]" not in self.vocab:
            raise ValueError(
                "the vocabulary has no [UNK], which stands for words that cannot be cut into "
                "tokens: add it, for instance in front"
            )
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def from_file(cls, path: str | Path, *, lowercase: bool = True) -> WordPiece:
        """Read a vocabulary with one token a line, such as a released model's `vocab.txt`."""
        try:
            lines = as_path("path", path).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text, so no vocabulary with a token a line") from None
        return cls(lines[:-1] if lines[-1] == "" else lines, lowercase=lowercase)

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        *,
        min_frequency: int = 0,
        special_tokens: Sequence[str] = BERT_SPECIAL_TOKENS,
        lowercase: bool = True,
    ) -> WordPiece:
        """Learn a vocabulary from texts, by counts of pairs as in byte-pair encoding.

        The pair that occurs most often is joined, and of equally frequent ones that with the
        smallest ids. The algorithm which made BERT's vocabulary was never released; the
        `tokenizers` library trains like this as well. Ids go to the special tokens first, then to
        the characters in order, then to those of them that occur inside a word, with "##" in
        front, then to the merges. (The library orders the last two kinds of characters at random.)

        Parameters
        ----------
        texts : str or iterable of str
        vocab_size : int
            Everything included. Fewer come out if the texts hold no more pairs.
        min_frequency : int
            Learn no merge whose pair occurs less often.
        special_tokens : sequence of str
            Must contain "[UNK]".
        lowercase : bool

        Raises
        ------
        ValueError
            If `vocab_size` has no room for special tokens and characters.
        """
        special_tokens = as_list("special_tokens", special_tokens, str)
        vocab_size = as_whole_number("vocab_size", vocab_size)
        words: Counter[str] = Counter()
        for text in as_texts("texts", texts):
            words.update(basic_words(text, lowercase=lowercase))
        alphabet = sorted({char for word in words for char in word})
        inside = sorted({f"##{char}" for word in words for char in word[1:]})
        tokens = list(dict.fromkeys([*special_tokens, *alphabet, *inside]))
        if vocab_size < len(tokens):
            raise ValueError(
                f"vocab_size={vocab_size} is too small: special tokens and single characters "
                f"alone make {len(tokens)}"
            )
        ids = {token: i for i, token in enumerate(tokens)}
        spelled = [
            ([ids[word[0]], *(ids[f"##{char}"] for char in word[1:])], n)
            for word, n in words.items()
        ]
        for first, second in learn_merges(
            spelled, len(tokens), vocab_size - len(tokens), min_frequency
        ):
            tokens.append(tokens[first] + tokens[second].removeprefix("##"))
        return cls(tokens, lowercase=lowercase)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.vocab)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Return the ids of a text's tokens, without [CLS] and [SEP].

        Parameters
        ----------
        text : str
        allow_special : bool
            Whether "[MASK]" and the like, written out in the text, become the special token.

        Raises
        ------
        TypeError
            If the text is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode takes a string, not {type(text).__name__}")
        if allow_special:
            for special in BERT_SPECIAL_TOKENS:
                if special in self.vocab and special in text:
                    before, after = text.split(special, 1)
                    rest = self.encode(after, allow_special=True)
                    return [*self.encode(before, allow_special=True), self.vocab[special], *rest]
        ids: list[int] = []
        for word in basic_words(text, lowercase=self.lowercase):
            if word not in self._cache:
                self._cache[word] = self._longest_matches(word)
            ids += self._cache[word]
        return ids

    def _longest_matches(self, word: str) -> list[int]:
        """Take the longest token that the rest of the word starts with, until nothing is left."""
        unknown = [self.vocab["[UNK]"]]
        if len(word) > _LONGEST_WORD:
            return unknown
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                token_id = self.vocab.get(prefix + word[start:end])
                if token_id is not None:
                    break
            else:
                return unknown  # the whole word, however well it began
            ids.append(token_id)
            start = end
        return ids

    def encode_pair(
        self, first: str, second: str | None = None, max_length: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Return [CLS] first [SEP] or [CLS] first [SEP] second [SEP], as BERT reads it.

        Parameters
        ----------
        first : str
        second : str, optional
        max_length : int, optional
            Cut tokens off the end, one at a time off the longer text, until all fit.

        Returns
        -------
        ids : list of int
        token_types : list of int
            0 for the first text and its special tokens, 1 for the second and its [SEP].

        Raises
        ------
        ValueError
            If the vocabulary has no [CLS] or [SEP], or `max_length` has no room for them.
        """
        missing = [token for token in ("[CLS]", "[SEP]") if token not in self.vocab]
        if missing:
            raise ValueError(f"the vocabulary has no {' and no '.join(missing)}: use encode()")
        check_text(first=first, second="" if second is None else second)
        check_type("max_length", 2 if max_length is None else max_length, int)
        one, two = self.encode(first), [] if second is None else self.encode(second)
        extra = 2 if second is None else 3
        if max_length is not None and max_length < extra:
            raise ValueError(f"max_length={max_length} has no room for {extra} special tokens")
        shorter = one if len(one) <= len(two) else two  # gives way first where both are as long
        while max_length is not None and len(one) + len(two) + extra > max_length:
            (shorter if len(one) == len(two) else max(one, two, key=len)).pop()
        cls_id, sep_id = self.vocab["[CLS]"], self.vocab["[SEP]"]
        ids = [cls_id, *one, sep_id]
        token_types = [0] * len(ids)
        if second is not None:
            ids += [*two, sep_id]
            token_types += [1] * (len(two) + 1)
        return ids, token_types

    def tokens(self, text: str) -> list[str]:
        """Return a text's tokens as they are spelled in the vocabulary."""
        return [self._token_of[token_id] for token_id in self.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Join tokens, with a space where no "##" is; what the cleaning took away stays lost.

        Raises
        ------
        ValueError
            If an id is not in the vocabulary.
        """
        try:
            tokens = [self._token_of[token_id] for token_id in as_ids("ids", ids)]
        except KeyError as error:
            raise ValueError(
                f"there is no token with id {error.args[0]}; this vocabulary has "
                f"{self.vocab_size} tokens"
            ) from None
        return " ".join(tokens).replace(" ##", "")

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file."""
        contents = {"type": "WordPiece", "lowercase": self.lowercase, "vocab": self.vocab}
        path = as_path("path", path)
        path.write_text(json.dumps(contents, ensure_ascii=False, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> WordPiece:
        """Read a tokenizer that `save` wrote.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        contents = read_saved(path, "WordPiece", ("vocab", "lowercase"))
        return cls(contents["vocab"], lowercase=contents["lowercase"])
