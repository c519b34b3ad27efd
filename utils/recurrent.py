"""Language models before attention: a fixed window, a recurrent state, two directions (chapter 3).

The recurrent network and its backward pass are in numpy; the models that are trained are torch
modules. All of them map token ids (B, T) to logits (B, T, V) for the *next* token at each place.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    as_floats,
    as_list,
    as_whole_number,
    as_whole_numbers,
    check_ids,
    check_tensor,
)

FloatArray = NDArray[np.floating]
RNN_KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def rnn_forward(
    x: FloatArray, W_x: FloatArray, W_h: FloatArray, b: FloatArray, h_0: FloatArray | None = None
) -> FloatArray:
    """Run h_t = tanh(x_t W_x + h_(t-1) W_h + b) over a sequence (Elman 1990).

    Parameters
    ----------
    x : numpy.ndarray, shape (B, T, C)
    W_x : numpy.ndarray, shape (C, N)
    W_h : numpy.ndarray, shape (N, N)
    b : numpy.ndarray, shape (N,)
    h_0 : numpy.ndarray, shape (B, N), optional
        The state before the first step, by default zeros.

    Returns
    -------
    numpy.ndarray, shape (B, T + 1, N)
        All states; the first is h_0.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite numbers, or the shapes do not fit together.
    """
    x, W_x, W_h = _as_rnn(x, W_x, W_h)
    batch, steps, _ = x.shape
    b = as_floats("b", b, f"({W_h.shape[0]},)", finite=True)
    if h_0 is not None:
        h_0 = as_floats("h_0", h_0, str((batch, len(b))), finite=True)
    states = np.zeros((batch, steps + 1, len(b)), dtype=np.result_type(x, W_x, W_h, b))
    if h_0 is not None:
        states[:, 0] = h_0
    for t in range(steps):
        states[:, t + 1] = np.tanh(x[:, t] @ W_x + states[:, t] @ W_h + b)
    return states


def rnn_backward(
    grad_states: FloatArray, x: FloatArray, states: FloatArray, W_x: FloatArray, W_h: FloatArray
) -> dict[str, FloatArray]:
    """Carry gradients back through time (Werbos 1990).

    Parameters
    ----------
    grad_states : numpy.ndarray, shape (B, T, N)
        The gradient of the loss with respect to h_1 ... h_T as the losses at those steps see it,
        without what comes through later states: that is what this function adds.
    x, W_x, W_h
        As given to `rnn_forward`.
    states : numpy.ndarray, shape (B, T + 1, N)
        As it returned them.

    Returns
    -------
    dict
        Gradients with respect to "x", "W_x", "W_h", "b" and "h_0".

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite numbers, or the shapes do not fit together.
    """
    x, W_x, W_h = _as_rnn(x, W_x, W_h)
    batch, steps, width = *x.shape[:2], W_h.shape[0]
    grad_states = as_floats("grad_states", grad_states, str((batch, steps, width)), finite=True)
    states = as_floats("states", states, str((batch, steps + 1, width)), finite=True)
    grads = {
        "x": np.zeros_like(x),
        "W_x": np.zeros_like(W_x),
        "W_h": np.zeros_like(W_h),
        "b": np.zeros_like(W_h[0]),
    }
    from_later = np.zeros_like(states[:, 0])  # what h_(t+1) ... h_T pass back to h_t
    for t in reversed(range(steps)):
        grad_h = grad_states[:, t] + from_later  # (B, N)
        grad_a = grad_h * (1 - states[:, t + 1] ** 2)  # through the tanh
        grads["W_x"] += x[:, t].T @ grad_a
        grads["W_h"] += states[:, t].T @ grad_a
        grads["b"] += grad_a.sum(axis=0)
        grads["x"][:, t] = grad_a @ W_x.T
        from_later = grad_a @ W_h.T
    return {**grads, "h_0": from_later}


def _as_rnn(
    x: FloatArray, W_x: FloatArray, W_h: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the three as finite floats, or say which of them does not fit the others."""
    x = as_floats("x", x, "(B, T, C)", finite=True)
    W_x = as_floats("W_x", W_x, f"({x.shape[-1]}, N)", finite=True)
    W_h = as_floats("W_h", W_h, str((W_x.shape[1], W_x.shape[1])), finite=True)
    return x, W_x, W_h


class NeuralNGram(nn.Module):
    """Bengio et al. (2003): the last n - 1 tokens' embeddings, one hidden layer, a softmax.

    Parameters
    ----------
    vocab_size : int
    order : int
        n: it looks at n - 1 tokens. Where a text begins, missing ones are a padding embedding.
    d_model, d_hidden : int
    """

    def __init__(self, vocab_size: int, order: int, d_model: int = 32, d_hidden: int = 128) -> None:
        super().__init__()
        order = as_whole_number("order", order, 2)
        sizes = as_whole_numbers(1, vocab_size=vocab_size, d_model=d_model, d_hidden=d_hidden)
        vocab_size, d_model, d_hidden = sizes
        self.context = order - 1
        self.padding = vocab_size  # one more id, for the places before the text
        self.embedding = nn.Embedding(vocab_size + 1, d_model)
        self.hidden = nn.Linear(self.context * d_model, d_hidden)
        self.output = nn.Linear(d_hidden, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) for the token after each place of `ids` (B, T)."""
        check_ids(ids, self.output.weight)
        padded = F.pad(ids, (self.context - 1, 0), value=self.padding)
        windows = padded.unfold(1, self.context, 1)  # (B, T, n - 1)
        x = self.embedding(windows).flatten(start_dim=2)  # (B, T, (n - 1) C)
        return self.output(torch.tanh(self.hidden(x)))


class RecurrentLM(nn.Module):
    """Embedding, recurrent layers, a softmax.

    Parameters
    ----------
    vocab_size : int
    d_model, d_hidden : int
    num_layers : int
    kind : {"rnn", "gru", "lstm"}
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 32,
        d_hidden: int = 128,
        num_layers: int = 1,
        kind: str = "gru",
    ) -> None:
        super().__init__()
        if not isinstance(kind, str) or kind not in RNN_KINDS:
            raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(RNN_KINDS)}")
        sizes = as_whole_numbers(1, vocab_size=vocab_size, d_model=d_model, d_hidden=d_hidden)
        vocab_size, d_model, d_hidden = sizes
        num_layers = as_whole_number("num_layers", num_layers, 1)
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.recurrent = RNN_KINDS[kind](d_model, d_hidden, num_layers, batch_first=True)
        self.output = nn.Linear(d_hidden, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) for the token after each place of `ids` (B, T)."""
        return self.output(self.states(ids))

    def states(self, ids: Tensor) -> Tensor:
        """Return the last layer's states, (B, T, N)."""
        check_ids(ids, self.embedding.weight)
        states, _ = self.recurrent(self.embedding(ids))
        return states


class BidirectionalLM(nn.Module):
    """Two language models that share embedding and softmax: one reads forwards, one backwards.

    The language model under ELMo (Peters et al. 2018, section 3.1), on whatever tokens it is given.

    Parameters
    ----------
    vocab_size : int
    d_model, d_hidden : int
    num_layers : int
    """

    def __init__(
        self, vocab_size: int, d_model: int = 32, d_hidden: int = 96, num_layers: int = 2
    ) -> None:
        super().__init__()
        sizes = as_whole_numbers(1, vocab_size=vocab_size, d_model=d_model, d_hidden=d_hidden)
        vocab_size, d_model, d_hidden = sizes
        self.num_layers = num_layers = as_whole_number("num_layers", num_layers, 1)
        self.embedding = nn.Embedding(vocab_size, d_model)
        widths = [d_model] + [d_hidden] * (num_layers - 1)
        self.forwards = nn.ModuleList(nn.GRU(w, d_hidden, batch_first=True) for w in widths)
        self.backwards = nn.ModuleList(nn.GRU(w, d_hidden, batch_first=True) for w in widths)
        self.output = nn.Linear(d_hidden, vocab_size)

    def layers(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for each layer the forward and the backward states, (B, T, N) each.

        The forward state at t has read tokens 0 to t, the backward state tokens t to T - 1.
        """
        check_ids(ids, self.embedding.weight)
        result = []
        ahead = self.embedding(ids)
        back = ahead.flip(1)
        for forward_layer, backward_layer in zip(self.forwards, self.backwards, strict=True):
            ahead, _ = forward_layer(ahead)
            back, _ = backward_layer(back)
            result.append((ahead, back.flip(1)))
        return result

    def loss(self, ids: Tensor) -> Tensor:
        """Return the mean of both directions' losses, in nats per token; two tokens at least."""
        check_tensor("ids", ids, "(B, T)", "int", some=True)
        if ids.shape[1] < 2:
            raise ValueError("ids of one token have no next one: give at least two")
        ahead, back = self.layers(ids)[-1]
        next_token = self.output(ahead[:, :-1])  # has read up to t, predicts t + 1
        previous_token = self.output(back[:, 1:])  # has read down to t + 1, predicts t
        both = (
            F.cross_entropy(next_token.flatten(0, 1), ids[:, 1:].flatten()),
            F.cross_entropy(previous_token.flatten(0, 1), ids[:, :-1].flatten()),
        )
        return (both[0] + both[1]) / 2


class LayerMix(nn.Module):
    """ELMo's mix: gamma times a softmax-weighted sum of layers (Peters et al. 2018, equation 1).

    Parameters
    ----------
    num_layers : int
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(as_whole_number("num_layers", num_layers, 1)))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, layers: list[Tensor]) -> Tensor:
        """Return a tensor of the shape that every entry of `layers` has."""
        layers = as_list("layers", layers, Tensor)
        for layer in layers:
            check_tensor("layers", layer, str(tuple(layers[0].shape)), like=self.scores)
        if len(layers) != len(self.scores):
            raise ValueError(f"this mixes {len(self.scores)} layers, but {len(layers)} were given")
        weights = self.scores.softmax(dim=0)
        return self.gamma * sum(w * layer for w, layer in zip(weights, layers, strict=True))


def around(ahead: Tensor, back: Tensor) -> Tensor:
    """Join, for each place, what was read before it and after it, but not the token itself.

    Parameters
    ----------
    ahead, back : torch.Tensor, shape (B, T, N)
        As `BidirectionalLM.layers` returns them.

    Returns
    -------
    torch.Tensor, shape (B, T, 2 N)
        At place t the forward state of t - 1 and the backward state of t + 1; zeros at the ends.

    Raises
    ------
    TypeError, ValueError
        If they are no such tensors, or their shapes differ.
    """
    check_tensor("ahead", ahead)
    check_tensor("back", back, like=ahead)
    if ahead.shape != back.shape or ahead.dim() != 3:
        raise ValueError(
            "both states should have the same shape (B, T, N), not "
            f"{tuple(ahead.shape)} and {tuple(back.shape)}"
        )
    return torch.cat([F.pad(ahead[:, :-1], (0, 0, 1, 0)), F.pad(back[:, 1:], (0, 0, 0, 1))], dim=-1)
