"""Recurrent networks agree with torch's; models neither leak nor forget what they should not."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import recurrent


def torch_rnn(W_x, W_h, b):
    network = torch.nn.RNN(*W_x.shape, batch_first=True).double()
    with torch.no_grad():
        network.weight_ih_l0.copy_(torch.tensor(W_x.T))
        network.weight_hh_l0.copy_(torch.tensor(W_h.T))
        network.bias_ih_l0.copy_(torch.tensor(b))
        network.bias_hh_l0.zero_()
    return network


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 7, 5, 6), (2, 20, 3, 8), (4, 1, 2, 3)])
def test_forward_and_backward_equal_torchs(sizes):
    batch, steps, width_in, width = sizes
    rng = np.random.default_rng(0)
    x, h_0 = rng.normal(size=(batch, steps, width_in)), rng.normal(size=(batch, width))
    W_x, W_h = rng.normal(size=(width_in, width)), rng.normal(size=(width, width)) / width**0.5
    b, g = rng.normal(size=width), rng.normal(size=(batch, steps, width))
    network = torch_rnn(W_x, W_h, b)
    leaves = torch.tensor(x, requires_grad=True), torch.tensor(h_0, requires_grad=True)
    reference, _ = network(leaves[0], leaves[1][None])
    (reference * torch.tensor(g)).sum().backward()

    states = recurrent.rnn_forward(x, W_x, W_h, b, h_0)
    np.testing.assert_allclose(states[:, 1:], reference.detach().numpy(), atol=1e-12)
    grads = recurrent.rnn_backward(g, x, states, W_x, W_h)
    for name, expected in {
        "x": leaves[0].grad,
        "h_0": leaves[1].grad,
        "W_x": network.weight_ih_l0.grad.T,
        "W_h": network.weight_hh_l0.grad.T,
        "b": network.bias_ih_l0.grad,
    }.items():
        np.testing.assert_allclose(grads[name], expected.numpy(), atol=1e-10, err_msg=name)


def test_float32_stays_float32():
    x = np.ones((1, 2, 3), dtype=np.float32)
    W = np.ones((3, 3), dtype=np.float32)
    states = recurrent.rnn_forward(x, W, W, W[0])
    assert states.dtype == np.float32
    assert recurrent.rnn_backward(states[:, 1:], x, states, W, W)["W_h"].dtype == np.float32


MODELS = {
    "window": lambda: recurrent.NeuralNGram(11, order=4, d_model=5, d_hidden=7),
    "rnn": lambda: recurrent.RecurrentLM(11, kind="rnn"),
    "gru": lambda: recurrent.RecurrentLM(11, kind="gru", num_layers=2),
    "lstm": lambda: recurrent.RecurrentLM(11, kind="lstm"),
}


@pytest.mark.parametrize("name", MODELS)
def test_no_model_sees_the_future(name):
    torch.manual_seed(0)
    model, ids = MODELS[name](), torch.randint(11, (2, 9))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    before, after = model(ids), model(changed)
    assert before.shape == (2, 9, 11)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_a_window_sees_just_its_tokens():
    model, ids = recurrent.NeuralNGram(11, order=4), torch.randint(11, (1, 9))
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 11
    same = (model(ids) == model(changed)).all(dim=-1)[0]
    assert same.tolist() == [False] * 3 + [True] * 6


def test_the_two_directions_neither_see_what_they_predict():
    torch.manual_seed(0)
    model, ids = recurrent.BidirectionalLM(11), torch.randint(11, (1, 8))
    for layer in range(model.num_layers):
        features = recurrent.around(*model.layers(ids)[layer])
        for t in range(8):
            changed = ids.clone()
            changed[0, t] = (ids[0, t] + 1) % 11
            moved = recurrent.around(*model.layers(changed)[layer])
            torch.testing.assert_close(features[0, t], moved[0, t])
            others = torch.arange(8) != t
            assert not torch.allclose(features[0, others], moved[0, others])


def test_the_bidirectional_loss_is_the_mean_of_two_language_models():
    torch.manual_seed(0)
    model, ids = recurrent.BidirectionalLM(11, num_layers=1), torch.randint(11, (2, 6))
    x = model.embedding(ids)
    right = model.output(model.forwards[0](x)[0])
    left = model.output(model.backwards[0](x.flip(1))[0].flip(1))
    losses = [F.cross_entropy(right[:, t].detach(), ids[:, t + 1]).item() for t in range(5)] + [
        F.cross_entropy(left[:, t + 1].detach(), ids[:, t]).item() for t in range(5)
    ]
    assert model.loss(ids).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_mix_starts_as_the_mean_and_follows_its_scores():
    layers = [torch.full((2, 3), 1.0), torch.full((2, 3), 5.0)]
    mix = recurrent.LayerMix(2)
    torch.testing.assert_close(mix(layers), torch.full((2, 3), 3.0))
    with torch.no_grad():
        mix.scores[1] = np.log(3)
        mix.gamma.fill_(2.0)
    torch.testing.assert_close(mix(layers), torch.full((2, 3), 8.0))


X, W, B = np.ones((1, 2, 3)), np.ones((3, 4)), np.ones(4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: recurrent.rnn_forward(X[0], W, np.eye(4), B), ValueError, "B, T, C"),
        (lambda: recurrent.rnn_forward(X, W.T, np.eye(4), B), ValueError, "W_x should have shape"),
        (lambda: recurrent.rnn_forward(X, W, np.eye(3), B), ValueError, "W_h"),
        (lambda: recurrent.rnn_forward(X, W, np.eye(4), B, np.ones(4)), ValueError, "h_0"),
        (
            lambda: recurrent.rnn_backward(np.ones((1, 3, 4)), X, np.ones((1, 3, 4)), W, np.eye(4)),
            ValueError,
            "grad_states",
        ),
        (
            lambda: recurrent.rnn_backward(np.ones((1, 2, 4)), X, np.ones((1, 2, 4)), W, np.eye(4)),
            ValueError,
            "states should have shape",
        ),
        (lambda: recurrent.NeuralNGram(5, order=1), ValueError, "order"),
        (lambda: recurrent.RecurrentLM(5, kind="elman"), ValueError, "rnn, gru, lstm"),
        (lambda: recurrent.RecurrentLM(5)(torch.ones(3, dtype=torch.long)), ValueError, "B, T"),
        (lambda: recurrent.RecurrentLM(5)(torch.ones(1, 3)), TypeError, "whole numbers"),
        (lambda: recurrent.LayerMix(2)([torch.ones(1)]), ValueError, "mixes 2 layers"),
        (lambda: recurrent.around(torch.ones(1, 2, 3), torch.ones(1, 2, 4)), ValueError, "same"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
