"""Checks for chapter 3: recurrent steps, gradients through time, features from both sides."""

from __future__ import annotations

from functools import partial

import numpy as np

from utils.checks.engine import Student, as_array, check, close, reject_known, wrong

_reject_known = partial(reject_known, atol=1e-5)


@check()
def rnn_step(student: Student, rng: np.random.Generator) -> None:
    """Exercise 3.1: one step of a recurrent network, against torch's RNNCell."""
    import torch

    for batch, width_in, width in ((1, 3, 4), (3, 5, 2), (4, 4, 4)):
        x, h = rng.normal(size=(batch, width_in)), rng.normal(size=(batch, width))
        W_x, W_h = rng.normal(size=(width_in, width)), rng.normal(size=(width, width))
        b = rng.normal(size=width)
        cell = torch.nn.RNNCell(width_in, width).double()
        with torch.no_grad():
            cell.weight_ih.copy_(torch.tensor(W_x.T))
            cell.weight_hh.copy_(torch.tensor(W_h.T))
            cell.bias_ih.copy_(torch.tensor(b))
            cell.bias_hh.zero_()
            expected = cell(torch.tensor(x), torch.tensor(h)).numpy()
        got = as_array(student(x, h, W_x, W_h, b), (batch, width), "new state")
        if close(got, expected):
            continue
        before = x @ W_x + h @ W_h + b
        _reject_known(
            got,
            {
                "that is what goes into the tanh; it still has to be squashed": before,
                "the old state takes no part": np.tanh(x @ W_x + b),
                "the input takes no part": np.tanh(h @ W_h + b),
                "the bias is missing": np.tanh(x @ W_x + h @ W_h),
                "the recurrence of this chapter squashes with a tanh, not with a sigmoid": 1
                / (1 + np.exp(-before)),
                "you add the old state itself; it goes through W_h": np.tanh(x @ W_x + h + b),
                "W_h is transposed: vectors are rows here, h @ W_h": np.tanh(
                    x @ W_x + h @ W_h.T + b
                ),
            },
        )
        wrong("the shape is right, the numbers are not")


@check()
def embedding_backward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 3.2: the gradient of a look-up, against autograd."""
    import torch

    for batch, steps, width, rows in ((1, 2, 3, 6), (3, 5, 2, 4), (4, 8, 3, 9)):
        ids = rng.integers(0, rows - 1, size=(batch, steps))  # the last row is never looked up
        ids[0, :2] = 1  # one row at least is looked up twice
        grad = rng.normal(size=(batch, steps, width))
        table = torch.zeros(rows, width, dtype=torch.float64, requires_grad=True)
        (table[torch.tensor(ids)] * torch.tensor(grad)).sum().backward()
        expected = table.grad.numpy()
        got = as_array(student(ids, grad, rows), (rows, width), "gradient of the matrix")
        if close(got, expected):
            continue
        last = np.zeros((rows, width))
        last[ids] = grad
        uses = np.maximum(np.bincount(ids.ravel(), minlength=rows), 1)[:, None]
        _reject_known(
            got,
            {
                "a row that was looked up several times holds only one of its gradients: indexing "
                "with += writes once for each row, it does not add up repeats": last,
                "you averaged over the uses of a row; each use adds its own gradient": expected
                / uses,
            },
        )
        if got[rows - 1].any():
            wrong("a row that was never looked up has no part in the loss: its gradient is zero")
        wrong("the numbers are not right: which row did each gradient come from?")


@check()
def blame_norms(student: Student, rng: np.random.Generator) -> None:
    """Exercise 3.3: the gradient of the last state with respect to all states, by its norm."""
    import torch

    for steps, width, gain in ((1, 3, 1.0), (6, 4, 0.8), (12, 5, 1.3)):
        W_h = gain * rng.normal(size=(width, width)) / np.sqrt(width)
        inputs = torch.tensor(rng.normal(size=(steps, width)))
        weight = torch.tensor(W_h)
        states = [torch.tensor(rng.normal(size=width) / 2, requires_grad=True)]
        for t in range(steps):
            states.append(torch.tanh(inputs[t] + states[-1] @ weight))
            states[-1].retain_grad()
        states[-1].sum().backward()
        expected = np.array([float(h.grad.norm()) for h in reversed(states)])
        given = np.stack([h.detach().numpy() for h in states])
        got = as_array(student(given, W_h), (steps + 1,), "vector of norms")
        if close(got, expected):
            continue
        _reject_known(
            got,
            {
                "the order is reversed: h_T comes first, h_0 last": expected[::-1],
                "these are squared norms": expected**2,
                "the slope of the tanh is missing": _blame(given, W_h, slope=False),
                "W_h is not transposed: the state went through h @ W_h, so its gradient comes "
                "back through W_h.T": _blame(given, W_h, transpose=False),
                "each slope is taken at the wrong state: the tanh that made h_t has the slope "
                "1 - h_t**2": _blame(given, W_h, shift=1),
            },
        )
        if not close(got[0], np.sqrt(width)):
            wrong("start with h_T: the gradient of the sum of its entries is a vector of ones")
        wrong("the first norm is right, but not how the gradient goes from one state to the last")


def _blame(
    states: np.ndarray, W_h: np.ndarray, *, slope: bool = True, transpose: bool = True, shift=0
) -> np.ndarray:
    """Walk back through time, with mistakes on demand."""
    grad = np.ones(states.shape[1])
    norms = [np.linalg.norm(grad)]
    for t in reversed(range(1, len(states))):
        factor = 1 - states[t - shift] ** 2 if slope else 1.0
        grad = (grad * factor) @ (W_h.T if transpose else W_h)
        norms.append(np.linalg.norm(grad))
    return np.array(norms)


@check()
def gru_step(student: Student, rng: np.random.Generator) -> None:
    """Exercise 3.4: one step of a GRU, against torch's GRUCell."""
    import torch

    for batch, width_in, width in ((2, 3, 4), (1, 5, 2), (3, 4, 4)):
        x, h = rng.normal(size=(batch, width_in)), rng.normal(size=(batch, width))
        W, U = rng.normal(size=(width_in, 3 * width)), rng.normal(size=(width, 3 * width))
        b, c = rng.normal(size=(2, 3 * width))
        cell = torch.nn.GRUCell(width_in, width).double()
        with torch.no_grad():
            cell.weight_ih.copy_(torch.tensor(W.T))
            cell.weight_hh.copy_(torch.tensor(U.T))
            cell.bias_ih.copy_(torch.tensor(b))
            cell.bias_hh.copy_(torch.tensor(c))
            expected = cell(torch.tensor(x), torch.tensor(h)).numpy()
        got = as_array(student(x, h, W, U, b, c), (batch, width), "new state")
        if close(got, expected):
            continue
        _reject_known(
            got,
            {
                "r and z are swapped": _gru(x, h, W, U, b, c, order=(1, 0, 2)),
                "z and 1 - z are swapped: z is the share of the old state": _gru(
                    x, h, W, U, b, c, flip=True
                ),
                "the reset gate is applied to the old state before the product with U_n; here it "
                "multiplies what comes out of it": _gru(x, h, W, U, b, c, reset="before"),
                "the reset gate takes no part": _gru(x, h, W, U, b, c, reset="none"),
                "the reset gate multiplies h U_n, but not its bias c_n": _gru(
                    x, h, W, U, b, c, reset="without bias"
                ),
                "c is missing: the state's part has a bias of its own": _gru(
                    x, h, W, U, b, np.zeros_like(c)
                ),
            },
        )
        wrong("the shape is right, the numbers are not: compare gate by gate with the formulas")


def _gru(x, h, W, U, b, c, *, order=(0, 1, 2), flip=False, reset="after") -> np.ndarray:  # noqa: PLR0917
    """One step of a GRU, with mistakes on demand."""
    width = h.shape[1]
    parts_x = np.split(x @ W + b, 3, axis=-1)
    parts_h = np.split(h @ U + c, 3, axis=-1)
    r = 1 / (1 + np.exp(-(parts_x[order[0]] + parts_h[order[0]])))
    z = 1 / (1 + np.exp(-(parts_x[order[1]] + parts_h[order[1]])))
    U_n, c_n = U[:, 2 * width :], c[2 * width :]
    from_state = {
        "after": r * parts_h[2],
        "before": (r * h) @ U_n + c_n,
        "none": parts_h[2],
        "without bias": r * (h @ U_n) + c_n,
    }[reset]
    n = np.tanh(parts_x[2] + from_state)
    return z * n + (1 - z) * h if flip else (1 - z) * n + z * h


@check()
def cloze_features(student: Student, rng: np.random.Generator) -> None:
    """Exercise 3.5: features from both sides that have not read the token itself."""
    for steps, width in ((1, 2), (2, 3), (6, 4)):
        ahead, back = rng.normal(size=(2, steps, width))
        zero = np.zeros((1, width))
        expected = np.array(
            [
                np.concatenate(
                    [
                        ahead[t - 1] if t > 0 else zero[0],
                        back[t + 1] if t + 1 < steps else zero[0],
                    ]
                )
                for t in range(steps)
            ]
        )
        got = as_array(student(ahead, back), (steps, 2 * width), "array of features")
        if close(got, expected):
            continue
        before, after = np.vstack([zero, ahead[:-1]]), np.vstack([back[1:], zero])
        _reject_known(
            got,
            {
                "nothing is shifted, so the features of place t have read token t twice": np.hstack(
                    [ahead, back]
                ),
                "the backward half has read token t: back[t] begins with it": np.hstack(
                    [before, back]
                ),
                "the forward half has read token t: ahead[t] ends with it": np.hstack(
                    [ahead, after]
                ),
                "the shifts go the wrong way: ahead[t + 1] has read token t and one more": (
                    np.hstack([np.vstack([ahead[1:], zero]), np.vstack([zero, back[:-1]])])
                ),
                "the two halves are swapped: what was read before comes first": np.hstack(
                    [after, before]
                ),
                "the ends wrap around (np.roll): nothing has been read before the first token": (
                    np.hstack([np.roll(ahead, 1, axis=0), np.roll(back, -1, axis=0)])
                ),
            },
        )
        wrong("the features of some place have read its token, or have read too little")


@check()
def truncated_gradient(student: Student, rng: np.random.Generator) -> None:
    """Exercise 3.6: backpropagation through time that stops at cuts, against autograd."""
    import torch

    for batch, steps, width, piece in ((2, 6, 3, 2), (1, 7, 4, 3), (3, 5, 2, 5), (2, 4, 3, 1)):
        W_h = rng.normal(size=(width, width)) / np.sqrt(width)
        inputs, g = rng.normal(size=(2, batch, steps, width))
        start = rng.normal(size=(batch, width)) / 2
        expected, states = _by_autograd(torch, inputs, g, start, W_h, piece)
        whole, _ = _by_autograd(torch, inputs, g, start, W_h, steps)
        got = as_array(student(g, states, W_h, piece), (width, width), "gradient of W_h")
        if close(got, expected):
            continue
        case = f"for {steps} steps in pieces of {piece}"
        if piece < steps and close(got, whole):
            wrong(f"{case} that is the full gradient: nothing is forgotten at a cut")
        if piece > 1 and close(got, _by_autograd(torch, inputs, g, start, W_h, 1)[0]):
            wrong(f"{case} no gradient passes from one state to another, not even within a piece")
        if close(got, _cut_from_the_end(g, states, W_h, piece)):
            wrong(
                f"{case} you count the pieces from the end; the first piece is steps 1 to {piece}"
            )
        if close(got, expected.T):
            wrong(f"{case} your gradient is transposed")
        if close(got, _first_cut(g, states, W_h, piece)):
            wrong(f"{case} gradients stop at one cut and pass the others")
        wrong(f"{case} the gradient is not right; with one piece it must be the full gradient")


def _by_autograd(torch, inputs, g, start, W_h, piece) -> tuple[np.ndarray, np.ndarray]:  # noqa: PLR0917
    """Return dW_h with states detached at cuts, and the states (B, T + 1, N)."""
    weight = torch.tensor(W_h, requires_grad=True)
    h, states, loss = torch.tensor(start), [torch.tensor(start)], 0.0
    for t in range(inputs.shape[1]):
        if t % piece == 0:
            h = h.detach()
        h = torch.tanh(torch.tensor(inputs[:, t]) + h @ weight)
        loss = loss + (h * torch.tensor(g[:, t])).sum()
        states.append(h)
    loss.backward()
    return weight.grad.numpy(), torch.stack(states, dim=1).detach().numpy()


def _walk_back(g, states, W_h, is_cut) -> np.ndarray:
    """Return dW_h; `is_cut(t)` says whether no gradient passes from step t + 1 to state t."""
    total, from_later = np.zeros_like(W_h), np.zeros_like(states[:, 0])
    for t in reversed(range(g.shape[1])):
        da = (g[:, t] + from_later) * (1 - states[:, t + 1] ** 2)
        total += np.einsum("bi,bj->ij", states[:, t], da)
        from_later = 0 * from_later if is_cut(t) else da @ W_h.T
    return total


def _cut_from_the_end(g, states, W_h, piece) -> np.ndarray:
    return _walk_back(g, states, W_h, lambda t: (g.shape[1] - t) % piece == 0)


def _first_cut(g, states, W_h, piece) -> np.ndarray:
    return _walk_back(g, states, W_h, lambda t: t == piece)
