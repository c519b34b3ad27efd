"""Classification of texts: against transformers, plain loops and exact counts."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from utils import bert
from utils import classify as c
from utils.batches import ExampleBatches
from utils.tokenizers import BERT_SPECIAL_TOKENS, WordPiece
from utils.train import train

WORDS = ["good", "bad", "film", "a", "very", "dull"]
TOKENIZER = WordPiece([*BERT_SPECIAL_TOKENS, *WORDS])


def encoder(layers=3, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    config = bert.BertConfig(
        11, 16, num_layers=layers, num_heads=2, d_model=8, dropout=dropout, init_std=0.3
    )
    return bert.Bert(config).eval()


def examples(count=20, seed=0):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(count)]
    return c.encode_texts(texts, TOKENIZER, rng.integers(2, size=count), max_length=10)


# Examples and batches


def test_encode_texts_and_pairs():
    single, pair = c.encode_texts(["a good film", ("a film", "bad")], TOKENIZER, [1, 0])
    names = {i: t for t, i in TOKENIZER.vocab.items()}
    assert [names[i] for i in single.ids] == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert single.segment_ids == [0] * 5 and single.label == 1
    assert [names[i] for i in pair.ids] == ["[CLS]", "a", "film", "[SEP]", "bad", "[SEP]"]
    assert pair.segment_ids == [0, 0, 0, 0, 1, 1]
    cut = c.encode_texts(["a good good good film"], TOKENIZER, max_length=4)[0]
    assert len(cut.ids) == 4 and cut.label == -100 and names[cut.ids[-1]] == "[SEP]"


def test_encode_texts_says_what_is_wrong():
    with pytest.raises(ValueError, match="2 texts need as many labels, not 1"):
        c.encode_texts(["a", "bad"], TOKENIZER, [1])
    with pytest.raises(TypeError, match="list of texts"):
        c.encode_texts("a film", TOKENIZER)


def test_collate_pads_and_masks():
    chosen = examples(5)
    ids, segments, mask, labels = c.collate(chosen)
    assert ids.shape == segments.shape == mask.shape and mask.dtype == torch.bool
    for row, example in enumerate(chosen):
        assert ids[row][mask[row]].tolist() == example.ids
        assert mask[row].sum() == len(example.ids) and labels[row] == example.label
    assert (ids[~mask] == 0).all()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=70),
    batch_size=st.integers(1, 9),
    pool=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_example_comes_once_per_epoch(lengths, batch_size, pool, seed):
    items = [[number] * length for number, length in enumerate(lengths)]
    batches = c.BucketedBatches(items, batch_size, lambda x, rng: x, seed, pool=pool, length=len)
    for epoch in range(2):
        got = [batches[epoch * batches.per_epoch + i] for i in range(batches.per_epoch)]
        assert sorted(item[0] for batch in got for item in batch) == list(range(len(lengths)))
        assert max(map(len, got)) <= batch_size
        computed = sum(len(b) * max(map(len, b)) for b in got)
        assert batches.padding_share(epoch) == pytest.approx(1 - sum(lengths) / computed)
    backwards = c.BucketedBatches(items, batch_size, lambda x, rng: x, seed, pool=pool, length=len)
    assert backwards[2 * batches.per_epoch - 1] == got[-1]  # whatever was asked for before


def test_bucketing_saves_padding_and_epochs_differ():
    rng = np.random.default_rng(0)
    items = [[0] * n for n in rng.integers(5, 60, size=600)]
    plain, bucketed = (
        c.BucketedBatches(items, 16, lambda x, rng: x, pool=pool, length=len) for pool in (1, 16)
    )
    assert bucketed.padding_share() < 0.2 * plain.padding_share()
    first, second = bucketed.order(0), bucketed.order(1)
    assert {tuple(b) for b in first}.isdisjoint(tuple(b) for b in second)
    widths = [bucketed.lengths[b].max() for b in first]
    assert widths != sorted(widths)


@pytest.mark.parametrize(("count", "batch_size", "pool"), [(0, 4, 1), (3, 0, 1), (3, 4, 0)])
def test_bucketed_batches_say_what_is_wrong(count, batch_size, pool):
    with pytest.raises(ValueError, match="at least 1"):
        c.BucketedBatches([[1]] * count, batch_size, c.collate, pool=pool, length=len)
    with pytest.raises(IndexError, match="from 0"):
        c.BucketedBatches([[1]], 1, lambda x, rng: x, length=len)[-1]


# The classifier


@pytest.mark.parametrize("frozen", [None, 0, 1, 3])
@pytest.mark.parametrize("pooling", c.POOLINGS)
def test_logits_do_not_depend_on_where_the_encoder_is_split(frozen, pooling):
    whole, batch = encoder(), c.collate(examples(6))
    torch.manual_seed(1)
    model = c.TextClassifier(whole, 3, pooling=pooling, frozen=frozen).eval()
    ids, segments, mask, _ = batch
    hidden = whole(ids, segments, mask)
    rows = zip(hidden, mask, strict=True)
    vector = {
        "mean": lambda: torch.stack([row[real].mean(0) for row, real in rows]),
        "cls": lambda: hidden[:, 0],
        "pooler": lambda: whole.pool(hidden),
    }[pooling]()
    expected = F.linear(vector, model.head.weight, model.head.bias)
    torch.testing.assert_close(model(ids, segments, mask), expected)


def test_equal_to_transformers_sequence_classification():
    import transformers

    ours = c.TextClassifier(encoder(), 3, pooling="pooler").eval()
    body = bert.to_transformers(encoder())
    body.config.num_labels = 3
    theirs = transformers.BertForSequenceClassification(body.config).eval()
    theirs.bert.load_state_dict(body.state_dict())
    theirs.classifier.load_state_dict(ours.head.state_dict())
    ids, segments, mask, _ = c.collate(examples(7))
    expected = theirs(ids, mask.long(), segments).logits
    torch.testing.assert_close(ours(ids, segments, mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("frozen", "blocks"), [(None, 0), (0, 0), (2, 2), (3, 3)])
def test_only_what_is_not_frozen_changes(frozen, blocks):
    source = encoder(dropout=0.5)
    before = copy.deepcopy(source.state_dict())
    model = c.TextClassifier(source, frozen=frozen)
    start = copy.deepcopy(model.state_dict())
    batches = ExampleBatches(examples(), 5, c.collate)
    train(model, batches, 3, lr=0.05, log=None)
    for name, value in model.state_dict().items():
        lower = name.startswith("lower")
        changed = not torch.equal(value, start[name])
        unused = "position_embedding" in name or "segment_embedding" in name
        # a key's bias moves no softmax: its gradient is zero up to rounding
        if frozen is not None and lower:
            assert not changed, name
        elif not unused and "key_proj.bias" not in name:
            assert changed, name
    assert len(model.lower.blocks) == blocks and len(model.upper) == 3 - blocks
    for name, value in source.state_dict().items():
        assert torch.equal(value, before[name])  # the given encoder was copied


def test_frozen_layers_have_no_dropout_in_training():
    model = c.TextClassifier(encoder(dropout=0.5), frozen=2).train()
    ids, segments, mask, _ = c.collate(examples(4))
    assert torch.equal(model.lower(ids, segments, mask), model.lower(ids, segments, mask))
    assert not torch.equal(model(ids, segments, mask), model(ids, segments, mask))
    assert model.train(False).upper[0].training is False


def test_cached_training_is_the_same_as_whole_training():
    items = examples(24)
    torch.manual_seed(3)
    whole = c.TextClassifier(encoder(), dropout=0.0, frozen=2)
    upper = copy.deepcopy(whole)
    cached = c.cache_lower(upper, items, batch_size=7)
    settings_of = {"steps": 8, "lr": 0.01, "log": None}
    one = train(whole, c.BucketedBatches(items, 6, c.collate), **settings_of)
    two = train(
        upper,
        c.BucketedBatches(cached, 6, c.collate_cached),
        loss_function=c.upper_loss,
        **settings_of,
    )
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(c.predict(whole, items), c.predict(upper, cached), atol=1e-4)


def test_predict_keeps_order_and_mode():
    items, model = examples(23), c.TextClassifier(encoder(), 3, frozen=1).train()
    got, vectors = c.predict(model, items, batch_size=4), c.predict(model, items, vectors=True)
    assert model.training and got.shape == (23, 3) and vectors.shape == (23, 8)
    model.eval()
    for number, item in enumerate(items):
        ids, segments, mask, _ = c.collate([item])
        np.testing.assert_allclose(got[number], model(ids, segments, mask)[0].detach(), atol=1e-5)
    rebuilt = vectors @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()
    np.testing.assert_allclose(rebuilt, got, atol=1e-5)
    assert c.predict(model, []).shape == (0, 3)


def test_masked_mean_of_nothing_is_zero():
    hidden = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False] * 3])
    got = c.masked_mean(hidden, mask)
    torch.testing.assert_close(got[0], hidden[0, [0, 2]].mean(0))
    assert torch.equal(got[1], torch.zeros(4))


def test_layerwise_groups_hold_every_parameter_once():
    model = c.TextClassifier(encoder(), pooling="pooler")
    groups = c.layerwise_groups(model, 1.0, decay=0.5, weight_decay=0.1)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(model.head.weight)] == rate[id(model.pooler.weight)] == 1.0
    assert [rate[id(b.feed_forward.up_proj.weight)] for b in model.upper] == [0.125, 0.25, 0.5]
    assert rate[id(model.lower.token_embedding.weight)] == 0.0625
    decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert all(decayed[id(p)] == (0.1 if p.ndim >= 2 else 0.0) for p in model.parameters())
    frozen = c.TextClassifier(encoder(), frozen=2)
    held = {id(p) for g in c.layerwise_groups(frozen, 1.0) for p in g["params"]}
    assert held == {id(p) for p in [*frozen.upper.parameters(), *frozen.head.parameters()]}


def test_accuracy():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 4.0], [1.0, 0.0]])
    assert c.accuracy(logits, [0, 1, 0, 0]) == 0.75


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "max"}, "pooling must be one of 'mean', 'cls', 'pooler'"),
        ({"num_classes": 1}, "num_classes must be at least 2, not 1"),
        ({"frozen": 4}, "must be at most 3, not 4"),
        ({"frozen": -1}, "must be at least 0, not -1"),
    ],
)
def test_classifier_says_what_is_wrong(options, words):
    with pytest.raises(ValueError, match=words):
        c.TextClassifier(encoder(), **options)


def test_nothing_frozen_means_nothing_to_cache():
    with pytest.raises(ValueError, match="nothing is frozen"):
        c.cache_lower(c.TextClassifier(encoder()), examples(3))


def test_it_learns_a_rule():
    texts = [f"a {word} film" for word in ("good", "dull")] * 16
    items = c.encode_texts(texts, TOKENIZER, [1, 0] * 16)
    model = c.TextClassifier(encoder(1))
    train(model, c.BucketedBatches(items, 8, c.collate), 60, lr=1e-2, log=None)
    assert c.accuracy(c.predict(model, items), [e.label for e in items]) == 1.0
