"""The encoder-decoder against torch.nn.Transformer, its masks by perturbation, its loss."""

import pytest
import torch
from torch.nn import functional as F

from utils.seq2seq import (
    Seq2Seq,
    Seq2SeqConfig,
    collate_pairs,
    label_smoothed_loss,
    smoothed_loss_function,
    to_torch,
)

CONFIGS = [
    Seq2SeqConfig(vocab_size=9, num_layers=1, num_heads=1, d_model=4, max_length=10),
    Seq2SeqConfig(vocab_size=20, num_layers=2, num_heads=4, d_model=16, max_length=12),
    Seq2SeqConfig(vocab_size=15, num_layers=3, num_heads=2, d_model=8, norm_first=False),
    Seq2SeqConfig(vocab_size=15, num_layers=2, num_heads=2, d_model=8, d_hidden=5, pad_id=7),
    Seq2SeqConfig(vocab_size=15, num_layers=2, num_heads=2, d_model=8, activation="gelu"),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shaken(config):
    """A model whose weights are nowhere 0 or 1, so that nothing agrees by being absent."""
    model = Seq2Seq(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def ones(*shape):
    return torch.ones(shape, dtype=torch.int64)


def random_ids(config, *shape):
    """Ids without padding."""
    ids = torch.randint(config.vocab_size - 1, shape)
    return ids + (ids >= config.pad_id)


def padded(ids, lengths, pad_id):
    places = torch.arange(ids.shape[1])
    return ids.masked_fill(places >= torch.tensor(lengths)[:, None], pad_id)


@pytest.mark.parametrize("config", CONFIGS)
def test_equal_to_torch(config):
    model = shaken(config)
    theirs = to_torch(model)
    source = padded(random_ids(config, 3, 7), [7, 4, 1], config.pad_id)
    target = random_ids(config, 3, 5)
    hidden = source == config.pad_id  # torch's convention: True is hidden
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5)
    with torch.no_grad():
        x = theirs(
            model.embed(source),
            model.embed(target),
            tgt_mask=causal,
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )
        expected = x @ model.token_embedding.weight.T
        torch.testing.assert_close(model(source, target), expected, rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_of_torch():
    config = CONFIGS[1]
    model = shaken(config)
    theirs = to_torch(model)
    source, target = random_ids(config, 2, 6), random_ids(config, 2, 4)
    grad = torch.randn(2, 4, config.vocab_size)
    model.zero_grad()
    model(source, target).backward(grad)
    mine = model.encoder[0].feed_forward.up_proj.weight.grad
    table = model.token_embedding.weight.detach()
    causal = torch.nn.Transformer.generate_square_subsequent_mask(4)
    embedded = [model.embed(ids).detach() for ids in (source, target)]
    (theirs(*embedded, tgt_mask=causal) @ table.T).backward(grad)
    torch.testing.assert_close(
        mine, theirs.encoder.layers[0].linear1.weight.grad, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_a_target_sees_its_past_and_the_whole_source(config):
    model = shaken(config)
    source, target = random_ids(config, 1, 5), random_ids(config, 1, 6)

    def other(ids, place):
        changed = ids.clone()
        choices = [i for i in range(config.vocab_size) if i not in (config.pad_id, ids[0, place])]
        changed[0, place] = choices[0]
        return changed

    with torch.no_grad():
        before = model(source, target)
        for place in range(6):
            felt = (model(source, other(target, place)) - before)[0].abs().amax(-1) > 1e-6
            assert felt.tolist() == [t >= place for t in range(6)]
        for place in range(5):
            felt = (model(other(source, place), target) - before)[0].abs().amax(-1) > 1e-6
            assert felt.all()


def test_padding_changes_nothing():
    config = CONFIGS[1]
    model = shaken(config)
    source, target = random_ids(config, 2, 4), random_ids(config, 2, 3)
    longer = F.pad(source, (0, 5), value=config.pad_id)
    longer_target = F.pad(target, (0, 2), value=config.pad_id)
    with torch.no_grad():
        torch.testing.assert_close(
            model(source, target), model(longer, longer_target)[:, :3], rtol=1e-4, atol=1e-5
        )


def test_a_source_of_padding_alone_gives_numbers():
    config = CONFIGS[1]
    model = shaken(config)
    source = torch.full((2, 3), config.pad_id)
    source[0, 0] = 5
    assert model(source, random_ids(config, 2, 4)).isfinite().all()


def test_cross_attention_weights_are_those_that_are_used():
    config = CONFIGS[1]
    model = shaken(config)
    source = padded(random_ids(config, 2, 6), [6, 3], config.pad_id)
    target = random_ids(config, 2, 4)
    weights = model.cross_attention_weights(source, target)
    assert weights.shape == (2, 2, 4, 4, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, 4))
    assert (weights[:, 1, :, :, 3:] == 0).all()
    theirs = to_torch(model)
    seen = []
    for layer in theirs.decoder.layers:
        layer.multihead_attn.register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {"need_weights": True}), with_kwargs=True
        )
        layer.multihead_attn.register_forward_hook(lambda m, a, output: seen.append(output[1]))
    hidden = source == config.pad_id
    with torch.no_grad():
        theirs(
            model.embed(source),
            model.embed(target),
            tgt_mask=torch.nn.Transformer.generate_square_subsequent_mask(4),
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )
    torch.testing.assert_close(weights.mean(dim=2), torch.stack(seen), rtol=1e-4, atol=1e-5)


def test_collate_pairs_shifts_and_pads():
    config = Seq2SeqConfig(vocab_size=20, d_model=4)
    source, target_in, target_out = collate_pairs([([5, 6, 7], [8]), ([9], [10, 11])], config)
    assert source.tolist() == [[5, 6, 7], [9, 0, 0]]
    assert target_in.tolist() == [[1, 8, 0], [1, 10, 11]]
    assert target_out.tolist() == [[8, 2, -100], [10, 11, 2]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 1, 3)])
def test_label_smoothing_equals_torch(smoothing, shape):
    logits = (4 * torch.randn(*shape, 7)).requires_grad_()
    targets = torch.randint(7, shape)
    targets.view(-1)[1] = -100
    loss = label_smoothed_loss(logits, targets, smoothing)
    expected = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), label_smoothing=smoothing, ignore_index=-100
    )
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs)


def test_the_loss_function_learns_a_reversal():
    from utils.batches import ExampleBatches
    from utils.train import mean_loss, train

    config = Seq2SeqConfig(vocab_size=8, num_layers=1, num_heads=2, d_model=32, max_length=8)
    sources = torch.randint(3, 8, (300, 4)).tolist()
    pairs = [(source, source[::-1]) for source in sources]
    model = Seq2Seq(config)
    batches = ExampleBatches(pairs, 32, lambda examples, rng: collate_pairs(examples, config))
    train(model, batches, steps=120, lr=5e-3, loss_function=smoothed_loss_function(0.1), log=None)
    assert mean_loss(model, [batches[0]]) < 0.8  # knowing nothing: log 5 = 1.6 for most targets


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Seq2SeqConfig(0), "vocab_size must be"),
        (lambda: Seq2SeqConfig(9, d_model=7), "must be even"),
        (lambda: Seq2SeqConfig(9, pad_id=1), "three different ids"),
        (lambda: Seq2SeqConfig(9, stop_id=9), "three different ids"),
        (lambda: Seq2Seq(CONFIGS[0])(torch.ones(1, 11).long(), torch.ones(1, 2).long()), "longer"),
        (
            lambda: Seq2Seq(CONFIGS[0])(torch.ones(2, 3).long(), torch.ones(1, 2).long()),
            "2 sources",
        ),
        (lambda: Seq2Seq(CONFIGS[0]).encode(ones(3)), "shape \\(B, T\\)"),
        (lambda: Seq2Seq(CONFIGS[0]).encode(torch.full((1, 2), 9)), "knows 0 to 8"),
        (lambda: Seq2Seq(CONFIGS[2]).start_decoding(ones(1, 2)), "norm_first=True"),
        (lambda: label_smoothed_loss(torch.zeros(2, 3), ones(2), 1.1), "from 0 to 1"),
        (
            lambda: label_smoothed_loss(torch.zeros(2, 3), ones(3), 0.1),
            "need targets",
        ),
        (
            lambda: label_smoothed_loss(torch.zeros(1, 3), torch.tensor([-100]), 0.1),
            "no target counts",
        ),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
