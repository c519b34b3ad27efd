"""Right arguments for what works with texts, tokens, tags and files."""

from __future__ import annotations

import json
from pathlib import Path

from robust_judge import FOLDER
from robust_tools import (
    TEXT,
    T,
    bpe,
    characters,
    right,
    rng,
    whole,
    word_piece,
)

from utils.counting import NGramCounts
from utils.data.sources import SOURCES
from utils.masking import Example
from utils.ngrams import KneserNey
from utils.spans import Span


def file(name: str, contents: str = "") -> Path:
    """Return the path of a file that is there."""
    path = FOLDER / name
    path.write_text(contents, encoding="utf-8")
    return path


def saved(tokenizer: object, name: str) -> Path:
    path = file(name)
    tokenizer.save(path)
    return path


def questions() -> Path:
    answer = {"text": "Thames", "answer_start": 4}
    item = {"id": "1", "question": "Which river?", "answers": [answer]}
    paragraph = {"context": "The Thames flows.", "qas": [item]}
    contents = {"data": [{"title": "Rivers", "paragraphs": [paragraph]}]}
    return file("questions.json", json.dumps(contents))


def counts() -> NGramCounts:
    return NGramCounts(TEXT, 3)


def model() -> KneserNey:
    return KneserNey(counts(), 3)


CALLED = {"vocab": "vocabulary", "special_tokens": "token"}
SPANS = [[Span(0, 2, "PER")], [Span(1, 3, "LOC"), Span(3, 4, "PER")]]
EXAMPLE = Example([2, 5, 3, 6, 3], [0, 0, 0, 1, 1], 1)

EXAMPLES = {
    # ------------------------------------------------------------------ chapter 2
    "merges.read_saved": lambda: right(
        path=saved(characters(), "characters.json"),
        kind="characters",
        keys=("characters",),
        skip={"kind": "is written in the code that calls", "keys": "so are they"},
    ),
    "merges.byte_to_unicode": right,
    "merges.split_words": lambda: right(text=TEXT),
    "merges.split_off_numbers": lambda: right(text="a12"),
    "merges.merge_pair": lambda: right(ids=[1, 2, 3, 1, 2], pair=(1, 2), new_id=9),
    "merges.learn_merges": lambda: right(
        words=[([0, 1, 2], 3), ([0, 1], 2)], first_id=3, num_merges=2, min_frequency=1
    ),
    "bpe.ByteLevelBPE": lambda: right(
        vocab={b"a": 0, b"b": 1, b"ab": 2},
        merges=[(b"a", b"b")],
        special_tokens={"<|end|>": 3},
        split_digits=False,
        called=CALLED,
    ),
    "bpe.ByteLevelBPE.train": lambda: right(
        texts=[TEXT, TEXT], vocab_size=262, min_frequency=1, special_tokens=("<|end|>",)
    ),
    "bpe.ByteLevelBPE.encode": lambda: right(on=bpe(), text=TEXT, allow_special=True),
    "bpe.ByteLevelBPE.token_bytes": lambda: right(on=bpe(), token_id=5),
    "bpe.ByteLevelBPE.tokens": lambda: right(on=bpe(), text=TEXT),
    "bpe.ByteLevelBPE.decode": lambda: right(on=bpe(), ids=[5, 6, 7], errors="replace"),
    "bpe.ByteLevelBPE.save": lambda: right(on=bpe(), path=file("bpe.json")),
    "bpe.ByteLevelBPE.load": lambda: right(path=saved(bpe(), "bpe.json")),
    "bpe.ByteLevelBPE.from_gpt2": lambda: right(
        vocab={"a": 0, "b": 1, "ab": 2},
        merges=[("a", "b")],
        special_tokens={"<|end|>": 3},
        split_digits=False,
        called=CALLED,
    ),
    "wordpiece.basic_words": lambda: right(text=TEXT, lowercase=True),
    "wordpiece.WordPiece": lambda: right(vocab=["[UNK]", "a", "##b"], lowercase=True),
    "wordpiece.WordPiece.from_file": lambda: right(
        path=file("vocab.txt", "[UNK]\na\n##b\n"), lowercase=True, called={"path": "vocabulary"}
    ),
    "wordpiece.WordPiece.train": lambda: right(
        texts=[TEXT, TEXT],
        vocab_size=60,
        min_frequency=1,
        special_tokens=["[UNK]", "[PAD]"],
        called={"special_tokens": "vocabulary"},
        lowercase=True,
    ),
    "wordpiece.WordPiece.encode": lambda: right(on=word_piece(), text=TEXT, allow_special=True),
    "wordpiece.WordPiece.encode_pair": lambda: right(
        on=word_piece(), first="to be", second="or not", max_length=6
    ),
    "wordpiece.WordPiece.tokens": lambda: right(on=word_piece(), text=TEXT),
    "wordpiece.WordPiece.decode": lambda: right(on=word_piece(), ids=[5, 6, 7]),
    "wordpiece.WordPiece.save": lambda: right(on=word_piece(), path=file("wordpiece.json")),
    "wordpiece.WordPiece.load": lambda: right(path=saved(word_piece(), "wordpiece.json")),
    "tokenizers.CharTokenizer": lambda: right(characters=["a", "b"]),
    "tokenizers.CharTokenizer.train": lambda: right(texts=[TEXT, TEXT]),
    "tokenizers.CharTokenizer.encode": lambda: right(on=characters(), text=TEXT),
    "tokenizers.CharTokenizer.decode": lambda: right(on=characters(), ids=[1, 2, 3]),
    "tokenizers.CharTokenizer.tokens": lambda: right(on=characters(), text=TEXT),
    "tokenizers.CharTokenizer.save": lambda: right(on=characters(), path=file("characters.json")),
    "tokenizers.CharTokenizer.load": lambda: right(path=saved(characters(), "characters.json")),
    "tokenizers.pad_batch": lambda: right(
        sequences=[[1, 2, 3], [4]], pad_id=0, max_length=4, side="left"
    ),
    # ------------------------------------------------------------------ chapter 1
    "counting.NGramCounts": lambda: right(tokens=TEXT, order=3, vocabulary=sorted(set(TEXT))),
    "counting.NGramCounts.encode": lambda: right(on=counts(), tokens=TEXT),
    "counting.NGramCounts.pack": lambda: right(on=counts(), ids=whole(9, high=5), n=2),
    "counting.NGramCounts.count": lambda: right(on=counts(), ngram="to"),
    "counting.NGramCounts.table": lambda: right(on=counts(), n=2),
    "counting.NGramCounts.continuation_table": lambda: right(on=counts(), n=2),
    "ngrams.NGramModel": lambda: right(counts=counts(), order=2),
    "ngrams.NGramModel.log_probs": lambda: right(on=model(), tokens=TEXT),
    "ngrams.NGramModel.log_prob": lambda: right(on=model(), tokens=TEXT),
    "ngrams.NGramModel.distribution": lambda: right(on=model(), context="to b"),
    "ngrams.NGramModel.prob": lambda: right(on=model(), context="to b", token="e"),
    "ngrams.NGramModel.sample": lambda: right(
        on=model(), length=5, seed=1, prompt="to", temperature=0.5
    ),
    "ngrams.AddK": lambda: right(counts=counts(), order=2, k=0.5),
    "ngrams.Interpolated": lambda: right(counts=counts(), order=2, weights=[0.5, 0.7]),
    "ngrams.KneserNey": lambda: right(counts=counts(), order=2, discount=[0.5, 0.7]),
    # ------------------------------------------------------------------ chapter 9
    "masking.mask_tokens": lambda: right(
        ids=whole(3, T),
        rng=rng(),
        mask_id=4,
        vocab_size=11,
        special_ids=[0, 4],
        rate=0.5,
        shares=(0.8, 0.1),
    ),
    "masking.sentence_pairs": lambda: right(
        documents=[["to be", "or not"], ["to be or not", "be"]],
        tokenizer=word_piece(),
        max_length=9,
        rng=rng(),
        random_rate=0.5,
    ),
    "masking.collate_masked": lambda: right(
        tokenizer=word_piece(),
        rate=0.5,
        max_length=8,
        then=lambda collate: collate([EXAMPLE, EXAMPLE], rng()),
    ),
    "masking.unigram_baseline": lambda: right(train_counts=whole(11, high=9), labels=whole(9)),
    # ------------------------------------------------------------------ chapter 15
    "spans.bio_labels": lambda: right(types=["PER", "LOC"]),
    "spans.spans_to_bio": lambda: right(spans=[Span(0, 2, "PER"), Span(2, 3, "LOC")], length=4),
    "spans.bio_to_spans": lambda: right(tags=["B-PER", "I-PER", "O", "I-LOC"], strict=True),
    "spans.entity_scores": lambda: right(true=SPANS, predicted=SPANS[::-1]),
    "spans.legal_transitions": lambda: right(labels=["O", "B-PER", "I-PER"]),
    "spans.encode_words": lambda: right(words=["to", "be"], tokenizer=word_piece()),
    "spans.align_labels": lambda: right(word_ids=[None, 0, 0, 1, None], word_labels=[3, 4]),
    "spans.words_with_offsets": lambda: right(text=TEXT),
    "spans.normalise_answer": lambda: right(text="The Thames"),
    "spans.exact_match": lambda: right(prediction="Thames", answers=["the Thames", "a river"]),
    "spans.squad_f1": lambda: right(prediction="Thames", answers=["the Thames", "a river"]),
    "spans.read_questions": lambda: right(path=questions()),
    # ------------------------------------------------------------------ data
    "data.plays": right,
    "data.plays_split": right,
    "data.film_plots": right,
    "data.reviews": lambda: right(split="test"),
    "data.chinese_reviews": lambda: right(split="test"),
    "data.peoples_daily": lambda: right(split="test"),
    "data.numerals": lambda: right(languages=("en", "de"), count=3, low=5, high=50, seed=1),
    "data.store.cache_folders": right,
    "data.store.source_of": lambda: right(name="plays"),
    "data.store.folder": lambda: right(name="d3"),
    "data.store.locate": lambda: right(source=SOURCES["d3"]),
    "data.store.places": lambda: right(source=SOURCES["d3"]),
    "data.store.first_problem": lambda: right(source=SOURCES["d3"], place=FOLDER),
    "data.store.sha256_of": lambda: right(file=file("any.txt", "text")),
}
