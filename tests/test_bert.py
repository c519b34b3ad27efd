"""Our BERT against transformers' BERT: hidden states, heads, weights both ways, a checkpoint."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from utils import bert, bert_weights, checkpoints, data
from utils.bert import Bert, BertConfig, BertForPreTraining
from utils.tokenizers import WordPiece, pad_batch

CONFIGS = [
    BertConfig(vocab_size=11, context_length=8, num_layers=1, num_heads=1, d_model=4),
    BertConfig(vocab_size=23, context_length=12, num_layers=3, num_heads=2, d_model=12, d_hidden=7),
    BertConfig(vocab_size=50, context_length=6, num_heads=3, d_model=9, num_segments=3),
    BertConfig(vocab_size=31, context_length=9, d_model=16, norm_eps=1e-3, init_std=0.2),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shaken(module, size=0.3):
    """Weights that are nowhere 0 or 1, so that nothing agrees by being absent."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module.eval()


def inputs(config, B, T):
    ids = torch.randint(config.vocab_size, (B, T))
    segments = torch.randint(config.num_segments, (B, T))
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1))
    return ids, segments, mask


def their_inputs(ids, segments, mask):
    return {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask.long()}


# The model


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS)
def test_all_outputs_equal_those_of_transformers(config):
    ours = shaken(BertForPreTraining(config))
    theirs = bert.to_transformers(ours)
    for B, T in ((1, 1), (5, config.context_length)):
        ids, segments, mask = inputs(config, B, T)
        token_logits, next_logits = ours(ids, segments, mask)
        other = theirs(**their_inputs(ids, segments, mask))
        torch.testing.assert_close(token_logits[mask], other.prediction_logits[mask])
        torch.testing.assert_close(next_logits, other.seq_relationship_logits)
        assert token_logits.shape == (B, T, config.vocab_size)
        hidden = ours.bert(ids, segments, mask)
        other = bert.to_transformers(ours.bert)(**their_inputs(ids, segments, mask))
        torch.testing.assert_close(hidden[mask], other.last_hidden_state[mask])
        torch.testing.assert_close(ours.bert.pool(hidden), other.pooler_output)


@torch.no_grad()
def test_segments_and_mask_have_defaults():
    model = shaken(Bert(CONFIGS[1]))
    ids, _, _ = inputs(model.config, 3, 5)
    full = model(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(model(ids), full)


@torch.no_grad()
def test_padding_changes_nothing_and_a_row_of_padding_gives_no_nan():
    model = shaken(Bert(CONFIGS[1]))
    ids, segments, _ = inputs(model.config, 2, 9)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, 4:], mask[1] = False, False
    hidden = model(ids, segments, mask)
    torch.testing.assert_close(hidden[:1, :4], model(ids[:1, :4], segments[:1, :4]))
    assert hidden.isfinite().all()


@torch.no_grad()
def test_every_token_sees_both_sides():
    model = shaken(Bert(CONFIGS[1]))
    ids, _, _ = inputs(model.config, 1, 7)
    for changed in range(7):
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 1) % model.config.vocab_size
        assert (model(ids) != model(other)).any(dim=-1).all()


def test_losses_equal_those_of_transformers():
    model = shaken(BertForPreTraining(CONFIGS[1]))
    ids, segments, mask = inputs(model.config, 4, 10)
    labels = torch.where((torch.rand(4, 10) < 0.4) & mask, ids, -100)
    labels[0, 0] = 3
    batch = {"ids": ids, "segment_ids": segments, "attention_mask": mask, "labels": labels}
    batch["is_random"] = torch.tensor([0, 1, 1, 0])
    theirs = bert.to_transformers(model)(
        **their_inputs(ids, segments, mask), labels=labels, next_sentence_label=batch["is_random"]
    )
    torch.testing.assert_close(bert.pretraining_loss(model, batch), theirs.loss)
    masked = F.cross_entropy(theirs.prediction_logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(bert.masked_token_loss(model, batch), masked)
    del batch["segment_ids"], batch["attention_mask"], batch["is_random"]
    assert bert.masked_token_loss(model, batch).isfinite()


def test_decoder_is_tied_and_every_parameter_learns():
    model = BertForPreTraining(CONFIGS[1])
    ids, segments, mask = inputs(model.config, 4, 12)
    batch = {"ids": ids, "segment_ids": segments, "attention_mask": mask, "labels": ids}
    bert.pretraining_loss(model, {**batch, "is_random": torch.tensor([0, 1, 1, 0])}).backward()
    key_biases = {f"bert.blocks.{i}.attention.key_proj.bias" for i in range(3)}  # cancel in softmax
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert name in key_biases or parameter.grad.abs().max() > 0, name
    assert sum(p.shape == (23, 12) for p in model.parameters()) == 1


def test_initial_weights():
    model = BertForPreTraining(BertConfig(vocab_size=500, d_model=64, init_std=0.05))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif "norm" in name:
            assert (parameter == 1).all()
        elif "next_head" not in name and "segment" not in name:
            assert parameter.std().item() == pytest.approx(0.05, rel=0.1), name


# Weights


@torch.no_grad()
@pytest.mark.parametrize("kind", ["BertModel", "BertForPreTraining"])
def test_a_random_transformers_model_comes_back_the_same(kind):
    import transformers

    config = transformers.BertConfig(
        vocab_size=37,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=20,
        max_position_embeddings=14,
        type_vocab_size=3,
        layer_norm_eps=1e-5,
    )
    theirs = shaken(getattr(transformers, kind)(config))
    ours = bert.from_transformers(theirs)
    assert not ours.training
    back = bert.to_transformers(ours)
    assert type(back) is type(theirs)
    state, returned = theirs.state_dict(), back.state_dict()
    assert state.keys() == returned.keys()
    assert all(torch.equal(state[name], returned[name]) for name in state)
    ids, segments, mask = inputs(ours.config, 3, 14)
    hidden = (ours if kind == "BertModel" else ours.bert)(ids, segments, mask)
    encoder = theirs if kind == "BertModel" else theirs.bert
    other = encoder(**their_inputs(ids, segments, mask)).last_hidden_state
    torch.testing.assert_close(hidden[mask], other[mask])


@pytest.mark.parametrize("kind", [Bert, BertForPreTraining])
def test_ours_comes_back_the_same(kind):
    ours = shaken(kind(CONFIGS[1]))
    back = bert.from_transformers(bert.to_transformers(ours))
    assert back.config == ours.config
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_other_precision_is_kept():
    ours = Bert(CONFIGS[0]).double()
    theirs = bert.to_transformers(ours)
    assert next(theirs.parameters()).dtype == torch.float64
    assert next(bert.from_transformers(theirs).parameters()).dtype == torch.float64


@torch.no_grad()
def test_minilm_equals_transformers_on_reviews_with_padding():
    ours, tokenizer = bert.load_bert("minilm", "cpu")
    theirs, their_tokenizer = checkpoints.load_encoder("minilm", "cpu")
    texts = [review.text for review in data.reviews("test")[:24]]
    ids = [tokenizer.encode_pair(text, max_length=48)[0] for text in texts]
    assert ids == their_tokenizer(texts, truncation=True, max_length=48)["input_ids"]
    ids, mask = map(torch.from_numpy, pad_batch(ids, tokenizer.vocab["[PAD]"]))
    assert not mask.all()
    hidden = ours(ids, attention_mask=mask)
    other = theirs(input_ids=ids, attention_mask=mask.long())
    assert (hidden - other.last_hidden_state)[mask].abs().max() < 1e-5
    assert (ours.pool(hidden) - other.pooler_output).abs().max() < 1e-5
    same = bert_weights.word_piece(their_tokenizer)
    assert (same.vocab, same.lowercase) == (tokenizer.vocab, tokenizer.lowercase)
    assert not ours.training


# Bad inputs


def test_bad_inputs_are_explained():
    model = Bert(CONFIGS[0])
    ids = torch.zeros(2, 5, dtype=torch.int64)
    mask = torch.ones(2, 5, dtype=torch.bool)
    for args, words in (
        ((ids[0],), "ids\\[None\\]"),
        ((ids[:, :0],), "at least 1"),
        ((torch.zeros(1, 9, dtype=torch.int64),), "9 tokens do not fit"),
        ((ids + 11,), "belong together"),
        ((ids, ids + 2), "segment_ids run from 2"),
        ((ids, ids[:, :4]), "segment_ids should have the shape"),
        ((ids, None, mask[:1]), "attention_mask should have the shape"),
    ):
        with pytest.raises(ValueError, match=words):
            model(*args)
    with pytest.raises(TypeError, match="!= 0"):
        model(ids, None, mask.long())
    with pytest.raises(ValueError, match="d_model must be a whole number"):
        dataclasses.replace(CONFIGS[0], d_model=0)
    with pytest.raises(ValueError, match="num_heads"):
        Bert(BertConfig(vocab_size=5, d_model=10, num_heads=3))


def test_other_architectures_are_refused(monkeypatch):
    import transformers

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    with pytest.raises(ValueError, match="hidden_act='gelu'"):
        bert.from_transformers(
            transformers.BertModel(transformers.BertConfig(**small, hidden_act="relu"))
        )
    with pytest.raises(ValueError, match="BertForMaskedLM cannot be converted"):
        bert.from_transformers(transformers.BertForMaskedLM(transformers.BertConfig(**small)))
    headless = transformers.BertModel(transformers.BertConfig(**small), add_pooling_layer=False)
    with pytest.raises(ValueError, match=r"pooler\.dense\.weight.*is not there"):
        bert.from_transformers(headless)


def test_a_hub_model_goes_through_transformers(monkeypatch):
    theirs, tokenizer = checkpoints.load_encoder("minilm", "cpu")
    monkeypatch.setattr(checkpoints, "load_encoder", lambda name, device: (theirs, tokenizer))
    ours, ours_tokenizer = bert.load_bert("bert-base-uncased", "cpu")
    assert isinstance(ours_tokenizer, WordPiece)
    assert torch.equal(ours.token_embedding.weight, theirs.embeddings.word_embeddings.weight)
