"""Our tokenizers against the `tokenizers` library: merges, ids, and every kind of odd text."""

import json
import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from utils import data
from utils.checkpoints import checkpoint_path
from utils.tokenizers import (
    BERT_SPECIAL_TOKENS,
    ByteLevelBPE,
    CharTokenizer,
    WordPiece,
    basic_words,
    byte_to_unicode,
    learn_merges,
    merge_pair,
    pad_batch,
    split_words,
)

# What this Python's Unicode does not know yet, the library's may: leave such characters out.
KNOWN = st.characters(exclude_categories=("Cs", "Cn"))
TEXTS = st.text(KNOWN) | st.text("ab '\n\t1½é字😀\u0301\x1c_\u2003stredvm", max_size=40)
ALPHABET = byte_to_unicode()
ODD_TEXTS = [
    "",
    " ",
    "\n\n  \t",
    "a\r\nb",
    "the king's  men won't 'S 's",
    "今天天气很好,我们去公园。",
    "👩‍👩‍👧 é e\u0301 \u200b\ufeff",
    "x\x00y\x1f\x85z",
    "１２ ½ Ⅻ ٣٤",
    "_under_score__ !_!",
    "\u2003wide\u00a0space \u3000",
]


def library_bpe(texts, vocab_size, split_digits=False, **options):
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([digits, byte_level]) if split_digits else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False, **options
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def shown(token):
    return "".join(ALPHABET[byte] for byte in token)


def assert_same_model(ours, theirs):
    model = json.loads(theirs.to_str())["model"]
    assert [[shown(a), shown(b)] for a, b in ours.merges] == model["merges"]
    vocab = {shown(token): i for token, i in ours.vocab.items()} | ours.special_tokens
    assert vocab == model["vocab"]


@pytest.fixture(scope="module")
def corpus():
    return data.plays_split().train[:400_000]


@pytest.fixture(scope="module")
def pair(corpus):
    return ByteLevelBPE.train(corpus, 2000), library_bpe([corpus], 2000)


@pytest.fixture(scope="module")
def bert():
    ours = WordPiece.from_file(checkpoint_path("minilm") / "vocab.txt")
    theirs = Tokenizer.from_file(str(checkpoint_path("minilm") / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    return ours, theirs


# --- cutting into words


def test_byte_alphabet_is_the_librarys():
    assert set(byte_to_unicode().values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_to_unicode()) == list(range(256))
    assert list(byte_to_unicode().values()) == sorted(byte_to_unicode().values())


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_words_are_cut_as_by_the_library(text):
    theirs = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    ours = split_words(text)
    assert "".join(ours) == text
    assert [shown(word.encode()) for word in ours] == [word for word, _ in theirs]


def test_every_known_character_is_in_the_librarys_class():
    """Letters, numbers, white space and others: sample the code space evenly, and all of Latin."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    codes = [*range(0x600), *range(0x600, 0x110000, 97)]
    for char in map(chr, codes):
        if unicodedata.category(char) in ("Cs", "Cn"):
            continue
        for frame in ("a{}a", "1{}1", "!{}!"):
            text = frame.format(char)
            theirs = [word for word, _ in byte_level.pre_tokenize_str(text)]
            assert [shown(word.encode()) for word in split_words(text)] == theirs, ascii(text)


# --- BPE: training


@pytest.mark.parametrize("min_frequency", [0, 50])
def test_merges_and_ids_on_the_plays(corpus, min_frequency):
    ours = ByteLevelBPE.train(corpus, 1500, min_frequency=min_frequency)
    assert_same_model(ours, library_bpe([corpus], 1500, min_frequency=min_frequency))


def test_special_tokens_come_first(corpus):
    special = ["<|endoftext|>", "<pad>"]
    ours = ByteLevelBPE.train([corpus[:50_000]], 700, special_tokens=special)
    theirs = library_bpe([corpus[:50_000]], 700, special_tokens=special)
    assert ours.special_tokens == {"<|endoftext|>": 0, "<pad>": 1}
    assert_same_model(ours, theirs)
    text = "One<|endoftext|>two <pad><|endoftext|>"
    assert ours.encode(text, allow_special=True) == theirs.encode(text).ids
    assert 0 not in ours.encode(text)
    assert ours.decode(ours.encode(text, allow_special=True)) == text
    assert ours.decode(ours.encode(text)) == text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab ", max_size=30) | TEXTS, max_size=6), st.integers(256, 300))
@example(["aaaaaaa aaa aa"], 300)  # runs of one letter, where pairs overlap
@example([], 260)
def test_merges_on_random_texts_full_of_ties(texts, vocab_size):
    assert_same_model(ByteLevelBPE.train(texts, vocab_size), library_bpe(texts, vocab_size))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4)), max_size=8))
def test_kept_counts_equal_a_recount_for_every_merge(words):
    merges = learn_merges(words, first_id=4, num_merges=15, min_frequency=2)
    spelled = [(list(ids), n) for ids, n in words]
    for number in range(16):
        counts = Counter()
        for ids, n in spelled:
            for place in range(len(ids) - 1):
                counts[ids[place], ids[place + 1]] += n
        best = min(counts, key=lambda p: (-counts[p], p), default=None)
        if number == 15 or best is None or counts[best] < 2:
            assert len(merges) == number
            break
        assert merges[number] == best
        spelled = [(merge_pair(ids, best, 4 + number), n) for ids, n in spelled]


@given(st.lists(st.integers(0, 2), max_size=30), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_merge_pair_is_a_replacement_from_the_left(ids, pair):
    text = "".join(map(str, ids)).replace("".join(map(str, pair)), "9")
    assert merge_pair(ids, pair, 9) == [int(char) for char in text]


# --- BPE: encoding and decoding


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_ids_on_random_unicode_and_lossless(pair, text):
    ours, theirs = pair
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == text == ours.decode(ids, errors="strict")


@given(text=st.text(st.characters(exclude_categories=("Cs",))))
@settings(deadline=None)
def test_lossless_even_for_characters_without_a_meaning(pair, text):
    assert pair[0].decode(pair[0].encode(text)) == text


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_odd_texts(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode(ours.encode(text)) == text


def test_ids_on_unseen_plays(pair):
    ours, theirs = pair
    validation = data.plays_split().validation
    ids = ours.encode(validation)
    assert ids == theirs.encode(validation).ids
    assert ours.decode(ids) == validation


@pytest.mark.parametrize("kind", ["letters", "one letter"])
def test_a_megabyte_without_spaces(pair, kind):
    ours, theirs = pair
    letters = random.Random(0).choices("etaoinshr", k=1_000_000)
    text = "".join(letters) if kind == "letters" else "e" * 1_000_000
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=14).map("".join), st.randoms())
def test_any_order_of_merges_encodes_like_the_library(word, randomness):
    merges = [("b", "c"), ("a", "b"), ("a", "a"), ("ab", "c"), ("aa", "b"), ("bc", "bc")]
    randomness.shuffle(merges)
    tokens = [*byte_to_unicode().values(), *(a + b for a, b in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    theirs = Tokenizer(models.BPE(vocab, merges))
    assert ByteLevelBPE.from_gpt2(vocab, merges).encode(word) == theirs.encode(word).ids


def test_digits_by_themselves(corpus):
    text = corpus[:100_000] + " 1990 1991 1992 " * 50
    theirs = library_bpe([text], 600)
    vocab = json.loads(theirs.to_str())["model"]
    ours = ByteLevelBPE.from_gpt2(vocab["vocab"], vocab["merges"], split_digits=True)
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), theirs.pre_tokenizer]
    )
    for text in ("in 1990, 12ab34  5", "½ and ٣٤", *ODD_TEXTS):
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text


def test_part_of_a_character(pair):
    ours = pair[0]
    ids = ours.encode("愛")
    assert len(ids) == 3
    assert ours.decode(ids[:2]) == "�" and ours.decode(ids[:2], errors="ignore") == ""
    with pytest.raises(UnicodeDecodeError):
        ours.decode(ids[:2], errors="strict")


def test_tokens_are_spelled_as_in_gpt2(pair):
    ours, theirs = pair
    assert ours.tokens(" the kingé\n") == theirs.encode(" the kingé\n").tokens
    assert ours.token_bytes(ours.encode(" the")[0]) == b" the"


def test_long_words_stay_out_of_the_cache(pair):
    before = len(pair[0]._cache)
    pair[0].encode("q" * 1000)
    assert len(pair[0]._cache) == before


def test_encoding_does_not_hand_out_the_cache(pair):
    ids = pair[0].encode("king")
    expected = list(ids)
    ids.append(-1)
    assert pair[0].encode("king") == expected


def test_bpe_is_saved_as_plain_json(pair, tmp_path):
    file = tmp_path / "bpe.json"
    special = ByteLevelBPE(pair[0].vocab, pair[0].merges, {"<end>": 2000}, split_digits=True)
    special.save(file)
    again = ByteLevelBPE.load(file)
    for name in ("vocab", "merges", "special_tokens", "split_digits", "vocab_size"):
        assert getattr(again, name) == getattr(special, name)
    assert again.encode("12 kings é<end>") == special.encode("12 kings é<end>")
    assert isinstance(json.loads(file.read_text(encoding="utf-8")), dict)


def test_bpe_says_what_is_wrong(pair, tmp_path):
    ours = pair[0]
    with pytest.raises(ValueError, match="256 bytes need 258"):
        ByteLevelBPE.train("a", 257, special_tokens=["<a>", "<b>"])
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        ours.encode("a\ud800")
    with pytest.raises(TypeError, match="takes a string, not bytes"):
        ours.encode(b"a")
    with pytest.raises(ValueError, match="no token with id 2000"):
        ours.decode([2000])
    with pytest.raises(ValueError, match="same id"):
        ByteLevelBPE(ours.vocab, ours.merges, {"<end>": 0})
    with pytest.raises(ValueError, match="not in the vocabulary"):
        ByteLevelBPE(ours.vocab, [*ours.merges, (b"q", b"qq")])
    lacking = {token: i for token, i in ours.vocab.items() if token != b"\x04"}
    assert ByteLevelBPE(lacking, ours.merges).encode("king") == ours.encode("king")
    with pytest.raises(ValueError, match="no token for the byte 4"):
        ByteLevelBPE(lacking, ours.merges).encode("a\x04")
    (tmp_path / "x.json").write_text("[1]")
    for kind in (ByteLevelBPE, WordPiece, CharTokenizer):
        with pytest.raises(ValueError, match="written by save"):
            kind.load(tmp_path / "x.json")


# --- WordPiece


def test_ids_on_5000_reviews(bert):
    ours, theirs = bert
    texts = [review.text for review in data.reviews("train")[:5000]]
    assert len(texts) == 5000
    assert [ours.encode_pair(text)[0] for text in texts] == [
        encoding.ids for encoding in theirs.encode_batch(texts)
    ]


# Characters that Unicode has known since version 3.2 (2002), and in the same class: the library's
# tables are older than this Python's.
SETTLED = st.characters(exclude_categories=("Cs", "Cn")).filter(
    lambda char: (
        unicodedata.ucd_3_2_0.category(char) == unicodedata.category(char)
        and unicodedata.ucd_3_2_0.normalize("NFD", char) == unicodedata.normalize("NFD", char)
    )
)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(SETTLED) | st.text("aé e\u0301Ab,.$+_'字\t\n\x00\x07\ufffd\u200b1", max_size=40)
)
def test_wordpiece_ids_on_random_unicode(bert, text):
    ours, theirs = bert
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", [*ODD_TEXTS, "x" * 100, "x" * 101, "İstanbul ſ ß ŒUVRE", "𫠠a"])
def test_wordpiece_on_odd_texts(bert, text):
    ours, theirs = bert
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_cased_words_keep_accents():
    theirs = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    theirs.normalizer = normalizers.BertNormalizer(lowercase=False)
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    text = "Café CRÈME, isn't 愛他"
    cut = theirs.pre_tokenizer.pre_tokenize_str(theirs.normalizer.normalize_str(text))
    assert basic_words(text, lowercase=False) == [word for word, _ in cut]


@pytest.mark.parametrize("max_length", [None, 3, 4, 9, 10, 11, 12, 20, 64])
def test_pairs_and_truncation(bert, max_length):
    ours, theirs = bert
    words = list("abcdefghijkl")
    if max_length:
        theirs.enable_truncation(max_length)
    try:
        for first in (0, 3, 7, 8, 12):
            text = " ".join(words[:first])
            encoding = theirs.encode(text)
            assert ours.encode_pair(text, max_length=max_length) == (
                encoding.ids,
                encoding.type_ids,
            )
            for second in (0, 4, 7, 8, 12):
                other = " ".join(words[:second])
                encoding = theirs.encode(text, other)
                assert ours.encode_pair(text, other, max_length) == (
                    encoding.ids,
                    encoding.type_ids,
                )
    finally:
        theirs.no_truncation()


def test_special_tokens_in_a_text_only_on_request(bert):
    ours, theirs = bert
    text = "[CLS] all the [MASK]'s a stage[SEP]"
    assert (
        ours.encode(text, allow_special=True) == theirs.encode(text, add_special_tokens=False).ids
    )
    assert not {ours.vocab[token] for token in BERT_SPECIAL_TOKENS} & set(ours.encode(text))


def test_wordpiece_training_makes_the_librarys_choices(corpus):
    """The library numbers the ## characters at random; given its numbers, all else is equal."""
    theirs = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = normalizers.BertNormalizer()
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    options = {"special_tokens": list(BERT_SPECIAL_TOKENS), "show_progress": False}
    trainer = trainers.WordPieceTrainer(vocab_size=1000, **options)
    theirs.train_from_iterator([corpus], trainer)
    vocab = theirs.get_vocab()
    in_order = sorted(vocab, key=vocab.get)

    ours = WordPiece.train(corpus, 1000)
    assert ours.vocab_size == 1000 == len(vocab)
    plain = len([token for token in ours.vocab if len(token.removeprefix("##")) == 1])
    start = len(BERT_SPECIAL_TOKENS) + plain
    assert set(in_order[:start]) == set(list(ours.vocab)[:start])

    words = Counter(basic_words(corpus))
    spelled = [
        ([vocab[word[0]], *(vocab[f"##{char}"] for char in word[1:])], n)
        for word, n in words.items()
    ]
    tokens = in_order[:start]
    for first, second in learn_merges(spelled, start, 1000 - start, 0):
        tokens.append(tokens[first] + tokens[second].removeprefix("##"))
    assert tokens == in_order


def test_wordpiece_training_without_ties_is_the_librarys(tmp_path):
    texts = ["abab abab abab abc abc ab", "ab"]
    ours = WordPiece.train(texts, 14)
    assert {"ab", "##ab", "abab"} <= set(ours.vocab)
    ours.save(tmp_path / "wp.json")
    again = WordPiece.load(tmp_path / "wp.json")
    assert again.vocab == ours.vocab and again.lowercase is True
    assert again.tokens("abab") == ["abab"]
    assert again.decode(again.encode("abab abcab")) == "abab abcab"
    assert again.tokens("zab") == ["[UNK]"]


def test_wordpiece_says_what_is_wrong(bert):
    ours = bert[0]
    with pytest.raises(ValueError, match=r"no \[UNK\]"):
        WordPiece(["a", "b"])
    with pytest.raises(ValueError, match="twice"):
        WordPiece(["[UNK]", "a", "a"])
    with pytest.raises(ValueError, match="too small"):
        WordPiece.train("abc", 5)
    with pytest.raises(ValueError, match="no token with id -1"):
        ours.decode([101, -1])
    with pytest.raises(ValueError, match="no room"):
        ours.encode_pair("a", "b", max_length=2)
    with pytest.raises(ValueError, match=r"no \[CLS\] and no \[SEP\]"):
        WordPiece(["[UNK]", "a"]).encode_pair("a")
    with pytest.raises(TypeError, match="takes a string"):
        ours.encode(None)


# --- characters and batches


@given(st.text())
def test_characters(text):
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.characters == sorted(set(text)) and tokenizer.tokens(text) == list(text)


def test_characters_say_what_is_wrong(tmp_path):
    tokenizer = CharTokenizer.train(["ab", "c"])
    tokenizer.save(tmp_path / "chars.json")
    assert CharTokenizer.load(tmp_path / "chars.json").vocab == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(ValueError, match="'z' is not among the 3 known"):
        tokenizer.encode("az")
    with pytest.raises(ValueError, match="id 3 is not from 0 to 2"):
        tokenizer.decode([0, 3])
    with pytest.raises(ValueError, match="id -1"):
        tokenizer.decode([-1])
    with pytest.raises(ValueError, match="single and different"):
        CharTokenizer("aa")


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_the_librarys(bert, side):
    ours, theirs = bert
    texts = ["a fine film", "dull", "", "one more of those long and winding sentences"]
    sequences = [ours.encode_pair(text)[0] for text in texts]
    for max_length in (None, 16):
        theirs.enable_padding(direction=side, pad_id=0, length=max_length)
        encodings = theirs.encode_batch(texts)
        ids, mask = pad_batch(sequences, 0, max_length=max_length, side=side)
        assert ids.tolist() == [encoding.ids for encoding in encodings]
        assert mask.astype(int).tolist() == [encoding.attention_mask for encoding in encodings]
        assert ids.dtype == np.int64 and mask.dtype == bool
    theirs.no_padding()


def test_padding_says_what_is_wrong():
    ids, mask = pad_batch([[], []], 9)
    assert ids.shape == mask.shape == (2, 0)
    with pytest.raises(ValueError, match="truncate it first"):
        pad_batch([[1, 2, 3]], 0, max_length=2)
    with pytest.raises(ValueError, match="no sequences"):
        pad_batch([], 0)
    with pytest.raises(ValueError, match="'middle'"):
        pad_batch([[1]], 0, side="middle")


def test_added_tokens_are_matched_longest_first():
    special = {"<a>": 256, "<a><b>": 257}
    vocab = {bytes([byte]): i for i, byte in enumerate(byte_to_unicode())}
    ours = ByteLevelBPE(vocab, [], special)
    theirs = library_bpe([], 256)
    theirs.add_special_tokens([AddedToken(token) for token in special])
    for text in ("<a><b>", "<a><a><b>x", "<b><a>"):
        assert ours.encode(text, allow_special=True) == theirs.encode(text).ids
