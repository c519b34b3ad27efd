"""The checks of chapter 3 reject plausible mistakes and accept right answers in any form."""

import re

import numpy as np
import pytest
import torch

from utils import checks


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ------------------------------------------------------------------------- rnn_step
def step(x, h, W_x, W_h, b):
    return np.tanh(x @ W_x + h @ W_h + b)


def step_joined_in_torch(x, h, W_x, W_h, b):
    joined = torch.tensor(np.hstack([x, h])).float()
    return torch.tanh(
        joined @ torch.tensor(np.vstack([W_x, W_h])).float() + torch.tensor(b).float()
    )


def step_in_loops(x, h, W_x, W_h, b):
    return [[float(np.tanh(r @ W_x[:, j] + s @ W_h[:, j] + b[j])) for j in range(len(b))]
            for r, s in zip(x, h, strict=True)]  # fmt: skip


# ------------------------------------------------------------------------- embedding_backward
def scatter(ids, grad, num_rows):
    result = np.zeros((num_rows, grad.shape[-1]))
    np.add.at(result, ids, grad)
    return result


def one_hot_product(ids, grad, num_rows):
    one_hot = np.eye(num_rows)[ids.ravel()]
    return torch.tensor(one_hot.T @ grad.reshape(-1, grad.shape[-1])).float()


def last_one_wins(ids, grad, num_rows):
    result = np.zeros((num_rows, grad.shape[-1]))
    result[ids] += grad
    return result


def averaged(ids, grad, num_rows):
    uses = np.maximum(np.bincount(ids.ravel(), minlength=num_rows), 1)
    return scatter(ids, grad, num_rows) / uses[:, None]


def everywhere(ids, grad, num_rows):
    return np.tile(grad.sum(axis=(0, 1)), (num_rows, 1))


def wrong_rows(ids, grad, num_rows):
    shifted = np.roll(scatter(ids, grad, num_rows - 1), 1, axis=0)
    return np.vstack([shifted, np.zeros_like(shifted[:1])])


# ------------------------------------------------------------------------- blame_norms
def blame(states, W_h, slope=True, transpose=True, shift=0):
    grad, norms = np.ones(states.shape[1]), []
    for t in reversed(range(1, len(states))):
        norms.append(np.linalg.norm(grad))
        factor = 1 - states[t - shift] ** 2 if slope else 1.0
        grad = (grad * factor) @ (W_h.T if transpose else W_h)
    return np.array([*norms, np.linalg.norm(grad)])


def blame_by_jacobians(states, W_h):
    product, norms = np.eye(states.shape[1]), []
    for h in states[::-1]:
        norms.append(float(np.sqrt((product.sum(axis=0) ** 2).sum())))
        product = product @ (np.diag(1 - h**2) @ W_h.T)
    return torch.tensor(norms)


def blame_from_one_entry(states, W_h):
    return blame(states, W_h) / np.sqrt(states.shape[1])


def blame_bounded(states, W_h):
    power = np.linalg.norm(W_h, 2) ** np.arange(len(states))
    return np.sqrt(states.shape[1]) * power


# ------------------------------------------------------------------------- gru_step
def gru(x, h, W, U, b, c):
    r_x, z_x, n_x = np.split(x @ W + b, 3, axis=-1)
    r_h, z_h, n_h = np.split(h @ U + c, 3, axis=-1)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    return (1 - z) * np.tanh(n_x + r * n_h) + z * h


def gru_in_torch(x, h, W, U, b, c):
    arrays = [torch.tensor(a).float() for a in (x, h, W.T, U.T, b, c)]
    return torch.ops.aten.gru_cell(*arrays)


def gru_swapped_gates(x, h, W, U, b, c):
    width = h.shape[1]
    order = np.r_[width : 2 * width, :width, 2 * width : 3 * width]
    return gru(x, h, W[:, order], U[:, order], b[order], c[order])


def gru_flipped(x, h, W, U, b, c):
    width = h.shape[1]
    W, U, b, c = (a.copy() for a in (W, U, b, c))
    for a in (W, U, b, c):
        a[..., width : 2 * width] *= -1  # sigmoid(-x) = 1 - sigmoid(x)
    return gru(x, h, W, U, b, c)


def gru_reset_before(x, h, W, U, b, c):
    width = h.shape[1]
    r_x, z_x, n_x = np.split(x @ W + b, 3, axis=-1)
    r_h, z_h, _ = np.split(h @ U + c, 3, axis=-1)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = np.tanh(n_x + (r * h) @ U[:, 2 * width :] + c[2 * width :])
    return (1 - z) * n + z * h


def gru_without_c(x, h, W, U, b, c):
    return gru(x, h, W, U, b, 0 * c)


def gru_no_reset(x, h, W, U, b, c):
    _, z_x, n_x = np.split(x @ W + b, 3, axis=-1)
    _, z_h, n_h = np.split(h @ U + c, 3, axis=-1)
    z = sigmoid(z_x + z_h)
    return (1 - z) * np.tanh(n_x + n_h) + z * h


# ------------------------------------------------------------------------- cloze_features
def features(ahead, back):
    zero = np.zeros((1, ahead.shape[1]))
    return np.hstack([np.vstack([zero, ahead[:-1]]), np.vstack([back[1:], zero])])


def features_in_torch(ahead, back):
    ahead, back = torch.tensor(ahead).float(), torch.tensor(back).float()
    result = torch.zeros(len(ahead), 2 * ahead.shape[1])
    result[1:, : ahead.shape[1]] = ahead[:-1]
    result[:-1, ahead.shape[1] :] = back[1:]
    return result


def features_rolled(ahead, back):
    return np.hstack([np.roll(ahead, 1, axis=0), np.roll(back, -1, axis=0)])


def features_other_way(ahead, back):
    zero = np.zeros((1, ahead.shape[1]))
    return np.hstack([np.vstack([ahead[1:], zero]), np.vstack([zero, back[:-1]])])


def features_half_shifted(ahead, back):
    return np.hstack([features(ahead, back)[:, : ahead.shape[1]], back])


# ------------------------------------------------------------------------- truncated_gradient
def truncated(g, states, W_h, piece):
    total, from_later = np.zeros_like(W_h), np.zeros_like(states[:, 0])
    for t in reversed(range(g.shape[1])):
        da = (g[:, t] + from_later) * (1 - states[:, t + 1] ** 2)
        total += states[:, t].T @ da
        from_later = 0 * from_later if t % piece == 0 else da @ W_h.T
    return total


def piece_by_piece(g, states, W_h, piece):
    total = 0
    for start in range(0, g.shape[1], piece):
        part = g[:, start : start + piece]
        total = total + truncated(part, states[:, start : start + piece + 1], W_h, 10**9)
    return total.astype(np.float32)


def from_the_end(g, states, W_h, piece):
    total, from_later, steps = np.zeros_like(W_h), 0 * states[:, 0], g.shape[1]
    for t in reversed(range(steps)):
        da = (g[:, t] + from_later) * (1 - states[:, t + 1] ** 2)
        total += states[:, t].T @ da
        from_later = 0 * from_later if (steps - t) % piece == 0 else da @ W_h.T
    return total


RIGHT = [
    ("rnn_step", step),
    ("rnn_step", step_joined_in_torch),
    ("rnn_step", step_in_loops),
    ("embedding_backward", scatter),
    ("embedding_backward", one_hot_product),
    ("blame_norms", blame),
    ("blame_norms", blame_by_jacobians),
    ("gru_step", gru),
    ("gru_step", gru_in_torch),
    ("cloze_features", features),
    ("cloze_features", features_in_torch),
    ("truncated_gradient", truncated),
    ("truncated_gradient", piece_by_piece),
]
WRONG = [
    ("rnn_step", lambda x, h, W_x, W_h, b: x @ W_x + h @ W_h + b, "squashed"),
    ("rnn_step", lambda x, h, W_x, W_h, b: np.tanh(x @ W_x + b), "old state"),
    ("rnn_step", lambda x, h, W_x, W_h, b: np.tanh(x @ W_x + h @ W_h), "bias"),
    ("rnn_step", lambda x, h, W_x, W_h, b: sigmoid(x @ W_x + h @ W_h + b), "sigmoid"),
    ("rnn_step", lambda x, h, W_x, W_h, b: np.tanh(x @ W_x + h @ W_h.T + b), "transposed"),
    ("rnn_step", lambda x, h, W_x, W_h, b: step(x, h, W_x, W_h, b)[0], "shape"),
    ("embedding_backward", last_one_wins, "only one of its gradients"),
    ("embedding_backward", averaged, "averaged"),
    ("embedding_backward", everywhere, "never looked up"),
    ("embedding_backward", wrong_rows, "which row"),
    ("embedding_backward", lambda i, g, n: g, "shape"),
    ("blame_norms", lambda s, W: blame(s, W)[::-1], "reversed"),
    ("blame_norms", lambda s, W: blame(s, W) ** 2, "squared|vector of ones"),
    ("blame_norms", lambda s, W: blame(s, W, slope=False), "slope"),
    ("blame_norms", lambda s, W: blame(s, W, transpose=False), "transposed"),
    ("blame_norms", lambda s, W: blame(s, W, shift=1), "wrong state"),
    ("blame_norms", blame_from_one_entry, "vector of ones"),
    ("blame_norms", blame_bounded, "from one state to the last"),
    ("gru_step", gru_swapped_gates, "swapped"),
    ("gru_step", gru_flipped, "share of the old state"),
    ("gru_step", gru_reset_before, "before the product"),
    ("gru_step", gru_without_c, "c is missing"),
    ("gru_step", gru_no_reset, "takes no part"),
    ("cloze_features", lambda a, b: np.hstack([a, b]), "nothing is shifted"),
    ("cloze_features", features_rolled, "wrap around|read token"),
    ("cloze_features", features_other_way, "wrong way"),
    ("cloze_features", features_half_shifted, "backward half"),
    ("cloze_features", lambda a, b: features(b[::-1], a[::-1])[::-1], "swapped|some place"),
    ("cloze_features", lambda a, b: features(a, b)[:, : a.shape[1]], "shape"),
    ("truncated_gradient", lambda g, s, W, p: truncated(g, s, W, 10**9), "full gradient"),
    ("truncated_gradient", lambda g, s, W, p: truncated(g, s, W, 1), "within a piece"),
    ("truncated_gradient", from_the_end, "from the end"),
    ("truncated_gradient", lambda g, s, W, p: truncated(g, s, W, p).T, "transposed"),
    ("truncated_gradient", lambda g, s, W, p: truncated(g, s, W, p) / p, "not right"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_rejected_for_the_right_reason(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed", result
    assert re.search(words, result.message), result
