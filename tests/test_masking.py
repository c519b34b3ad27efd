"""Masking and pairs: shares counted, exact invariants on random inputs, where texts are from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from utils.batches import ExampleBatches
from utils.masking import Example, collate_masked, mask_tokens, sentence_pairs, unigram_baseline
from utils.tokenizers import BERT_SPECIAL_TOKENS, WordPiece

SPECIAL = (0, 1, 2, 3, 4)
KIND = {"mask_id": 4, "vocab_size": 1000, "special_ids": SPECIAL}


def plausible(successes, trials, probability):
    """Whether a count is one that chance explains (in all but one of a million runs)."""
    if trials == 0:
        return successes == 0
    return binomtest(int(successes), int(trials), probability).pvalue > 1e-6


def documents(num_documents=3, num_lines=20):
    """Lines in which every word says where it is from: d1l7 is line 7 of document 1."""
    return [
        [f"d{d}l{n} " * (1 + (d + n) % 4) for n in range(num_lines)] for d in range(num_documents)
    ]


def word_tokenizer(docs):
    words = sorted({word for lines in docs for line in lines for word in line.split()})
    return WordPiece([*BERT_SPECIAL_TOKENS, *words])


def text_of(tokenizer, ids):
    names = {i: token for token, i in tokenizer.vocab.items()}
    return [names[int(i)] for i in ids]


# Masking


@pytest.mark.parametrize("rate", [0.15, 0.4])
@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.2, 0.5)])
def test_shares_are_as_asked(rate, shares):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 1000, size=(400, 100))
    masked, labels = mask_tokens(ids, rng, rate=rate, shares=shares, **KIND)
    chosen = labels != -100
    hidden = chosen & (masked == 4)
    swapped = chosen & ~hidden & (masked != ids)
    assert plausible(chosen.sum(), ids.size, rate)
    assert plausible(hidden.sum(), chosen.sum(), shares[0])
    assert plausible(swapped.sum(), chosen.sum(), shares[1] * 994 / 995)  # one draw is itself
    assert plausible((masked[swapped] < 500).sum(), swapped.sum(), 495 / 995)
    assert chosen.any(axis=0).all()  # no place is left out


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (7,), (3, 5), (0,), (2, 3, 4)]),
    st.floats(0, 1),
)
def test_invariants(seed, shape, rate):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 12, size=shape).astype(rng.choice(["int32", "int64", "uint8"]))
    before = ids.copy()
    kind = {"mask_id": 4, "vocab_size": 12, "special_ids": SPECIAL}
    masked, labels = mask_tokens(ids, rng, rate=rate, **kind)
    assert masked.dtype == labels.dtype == np.int64
    assert masked.shape == labels.shape == ids.shape
    np.testing.assert_array_equal(ids, before)
    chosen = labels != -100
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(masked[~chosen], ids[~chosen])
    assert not np.isin(ids[chosen], SPECIAL).any()
    assert not np.isin(masked[chosen], (0, 1, 2, 3)).any()


def test_extreme_rates_and_a_seed():
    ids = np.arange(1000)
    none = mask_tokens(ids, np.random.default_rng(0), rate=0, **KIND)
    np.testing.assert_array_equal(none[0], ids)
    assert (none[1] == -100).all()
    masked, labels = mask_tokens(ids, np.random.default_rng(0), rate=1, shares=(1, 0), **KIND)
    assert (masked[5:] == 4).all() and (labels[5:] == ids[5:]).all() and (labels[:5] == -100).all()
    first, second = (mask_tokens(ids, np.random.default_rng(3), **KIND) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_bad_masking_is_explained():
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match="integers"):
        mask_tokens([0.5], rng, **KIND)
    with pytest.raises(ValueError, match="vocab_size is 1000"):
        mask_tokens([1000], rng, **KIND)
    for wrong in ({"rate": 1.5}, {"rate": -0.1}, {"shares": (0.8, 0.3)}, {"shares": (-0.1, 0.3)}):
        with pytest.raises(ValueError, match="from 0 to 1"):
            mask_tokens([9], rng, **KIND, **wrong)
    with pytest.raises(ValueError, match="every id of the vocabulary is special"):
        mask_tokens([1], rng, mask_id=4, vocab_size=5, special_ids=SPECIAL)


# Pairs


@pytest.mark.parametrize("max_length", [5, 16, 33])
def test_where_the_texts_are_from(max_length):
    docs = documents()
    tokenizer = word_tokenizer(docs)
    examples = sentence_pairs(docs, tokenizer, max_length=max_length, rng=np.random.default_rng(1))
    assert {example.is_random for example in examples} == {0, 1}
    for ids, segments, is_random in examples:
        tokens = text_of(tokenizer, ids)
        assert len(ids) == len(segments) <= max_length
        assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]" and tokens.count("[SEP]") == 2
        end = tokens.index("[SEP]")
        assert segments == [0] * (end + 1) + [1] * (len(ids) - end - 1)
        first, second = tokens[1:end], tokens[end + 1 : -1]
        assert first and second
        (of_first,) = {token.split("l")[0] for token in first}
        (of_second,) = {token.split("l")[0] for token in second}
        assert (of_first != of_second) == is_random
        if not is_random:
            assert int(second[0].split("l")[1]) == int(first[-1].split("l")[1]) + 1


def test_half_of_the_pairs_are_random_and_every_line_is_used():
    docs = documents(4, 2000)
    tokenizer = word_tokenizer(docs)
    examples = sentence_pairs(docs, tokenizer, max_length=20, rng=np.random.default_rng(0))
    ends = len(docs)  # a document's last text has no sequel
    randoms = sum(example.is_random for example in examples)
    assert plausible(randoms - ends, len(examples) - ends, 0.5) or plausible(
        randoms, len(examples), 0.5
    )
    read = {
        token
        for example in examples
        for token, segment in zip(text_of(tokenizer, example.ids), example.segment_ids, strict=True)
        if not (example.is_random and segment)
    }
    assert {word for lines in docs for line in lines for word in line.split()} <= read


def test_share_of_random_pairs_can_be_set():
    docs = documents()
    tokenizer = word_tokenizer(docs)
    rng = np.random.default_rng(0)
    always = sentence_pairs(docs, tokenizer, max_length=20, rng=rng, random_rate=1)
    never = sentence_pairs(docs, tokenizer, max_length=20, rng=rng, random_rate=0)
    assert all(example.is_random for example in always)
    assert sum(example.is_random for example in never) <= len(docs)


def test_bad_documents_are_explained():
    docs = documents()
    tokenizer, rng = word_tokenizer(docs), np.random.default_rng(0)
    with pytest.raises(ValueError, match="more documents"):
        sentence_pairs([docs[0], ["", " "]], tokenizer, max_length=20, rng=rng)
    with pytest.raises(ValueError, match="no room"):
        sentence_pairs(docs, tokenizer, max_length=4, rng=rng)


# Batches


def test_batches_are_padded_masked_and_repeatable():
    docs = documents()
    tokenizer = word_tokenizer(docs)
    examples = sentence_pairs(docs, tokenizer, max_length=16, rng=np.random.default_rng(0))
    batches = ExampleBatches(examples, 5, collate_masked(tokenizer), seed=2)
    batch = batches[1]
    assert batch["attention_mask"].dtype == torch.bool and batch["is_random"].shape == (5,)
    real = batch["attention_mask"]
    original = torch.where(batch["labels"] == -100, batch["ids"], batch["labels"])
    rows = {(tuple(e.ids), tuple(e.segment_ids), e.is_random) for e in examples}
    for b in range(5):
        ids, segments = original[b][real[b]].tolist(), batch["segment_ids"][b][real[b]].tolist()
        assert (tuple(ids), tuple(segments), int(batch["is_random"][b])) in rows
    assert (batch["ids"][~real] == tokenizer.vocab["[PAD]"]).all()
    assert (batch["labels"][~real] == -100).all()
    for name, tensor in batches[1].items():
        assert torch.equal(tensor, batch[name]), name
    later = batches[1 + batches.per_epoch]["labels"]
    assert later.shape != batch["labels"].shape or not torch.equal(later, batch["labels"])


def test_collate_options():
    docs = documents()
    tokenizer = word_tokenizer(docs)
    example = Example([2, 9, 3], [0, 0, 0])
    batch = collate_masked(tokenizer, rate=1, max_length=7)([example], np.random.default_rng(0))
    assert batch["ids"].shape == (1, 7)
    assert batch["labels"][0].tolist() == [-100, 9, *[-100] * 5]
    with pytest.raises(ValueError, match=r"no \[PAD\], \[CLS\]"):
        collate_masked(WordPiece(["[UNK]", "a"]))


def test_unigram_baseline_is_the_cross_entropy_of_smoothed_frequencies():
    labels = np.array([[0, -100, 2], [2, 2, -100]])
    p = np.array([4, 2, 1]) / 7  # counts 3, 1, 0 and one each
    expected = -(np.log(p[0]) + 3 * np.log(p[2])) / 4
    assert unigram_baseline([3, 1, 0], labels) == pytest.approx(expected)
    assert unigram_baseline(np.zeros(8), [1, 5]) == pytest.approx(np.log(8))
    with pytest.raises(ValueError, match="all labels are -100"):
        unigram_baseline([1, 2], [-100])
