"""Checks for chapter 20: functions to repair, from a shifted loss to a whole training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the loss of each target."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


@check()
def shifted_loss(student: Student, rng: np.random.Generator) -> None:
    """Exercise 20.1: logits at position t are judged by the token at t + 1."""
    import torch

    for B, T, V in ((3, 6, 7), (1, 9, 4), (4, 2, 5)):
        logits, ids = 2 * rng.normal(size=(B, T, V)), rng.integers(V, size=(B, T))
        answer = student(torch.tensor(logits), torch.tensor(ids))
        got = as_number(answer, "loss")
        losses = _cross_entropy(logits[:, :-1], ids[:, 1:])
        if close(got, losses.mean()):
            continue
        probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        rolled = _cross_entropy(logits, np.roll(ids, -1, axis=1))
        reject_known(
            np.asarray(got),
            {
                "each position is judged by the token that it has read; its target is the token "
                "after it": _cross_entropy(logits, ids).mean(),
                "the shift goes the wrong way: each position is judged by the token before it": (
                    _cross_entropy(logits[:, 1:], ids[:, :-1]).mean()
                ),
                "a roll wraps around: the last position is judged by the row's first token": (
                    rolled.mean()
                ),
                "cross-entropy applies a softmax itself; give it logits": _cross_entropy(
                    probs[:, :-1], ids[:, 1:]
                ).mean(),
                "this is the sum over all tokens; the mean is asked for": losses.sum(),
                "you divide by T tokens per row, but only T - 1 are predicted": losses.sum()
                / (B * T),
                "the sign is wrong: a loss is a negative log-probability": -losses.mean(),
                "only the last prediction of each row counts; all T - 1 should": (
                    losses[:, -1].mean()
                ),
            },
        )
        wrong(f"your loss is {got:.4f}, which is not the mean over the T - 1 predicted tokens")


def _softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


@check()
def causal_weights(student: Student, rng: np.random.Generator) -> None:
    """Exercise 20.2: each row a softmax over itself and what is to its left."""
    for B, T, scale in ((2, 5, 1.0), (3, 4, 2.0), (1, 1, 1.0), (1, 6, 800.0)):
        scores = scale * rng.normal(size=(B, T, T))
        with np.errstate(all="ignore"):
            got = as_array(student(scores), (B, T, T), "array of weights")
            allowed = np.tri(T, dtype=bool)
            right = _softmax(np.where(allowed, scores, -np.inf))
            if close(got, right):
                continue
            if scale > 100 and not np.isfinite(got).all():
                wrong(
                    "scores in the hundreds give NaN or infinity: subtract the largest score of "
                    "each row before the exponential"
                )
            plain = _softmax(scores)
            masks = {
                "nothing is masked: every query sees the whole sequence": np.ones((T, T), bool),
                "each query sees one token too many, the one after itself: the diagonal of the "
                "mask is shifted": np.tri(T, k=1, dtype=bool),
                "queries look to the right, not to the left: the mask is transposed": allowed.T,
            }
            known: dict[str, Any] = {
                message: _softmax(np.where(mask, scores, -np.inf))
                for message, mask in masks.items()
            }
            known["the mask is right, but the columns sum to 1: a query's weights are a row"] = (
                _softmax(np.where(allowed, scores, -np.inf), axis=-2)
            )
            known[
                "the columns sum to 1 and each query sees one token too many: neither mistake is "
                "repaired"
            ] = _softmax(np.where(np.tri(T, k=1, dtype=bool), scores, -np.inf), axis=-2)
            known["masked after the softmax: the rows no longer sum to 1"] = plain * allowed
            known["a masked score is set to 0, which is a score like others; it takes -inf"] = (
                _softmax(np.where(allowed, scores, 0.0))
            )
            strict = np.where(np.tri(T, k=-1, dtype=bool), scores, -np.inf)
            exponentials = np.exp(strict - scores.max())
            known["a token may see itself: the mask leaves out the diagonal"] = (
                exponentials / exponentials.sum(axis=-1, keepdims=True)
            )
            if T > 1:
                reject_known(got, known)
        if not np.isfinite(got).all():
            wrong("there is NaN or infinity among the weights: does any query see nothing?")
        if not close(got.sum(axis=-1), np.ones((B, T))):
            wrong("the rows do not sum to 1: a query spreads one unit of attention over its keys")
        wrong("the rows sum to 1, but they are no softmax over the tokens up to the query's own")


@check()
def mean_over_real(student: Student, rng: np.random.Generator) -> None:
    """Exercise 20.3: the sum over real tokens, divided by their number."""
    for B, T in ((4, 6), (2, 9), (3, 3)):
        losses = rng.gamma(2.0, size=(B, T))
        lengths = rng.integers(1, T, size=B)
        lengths[0] = T
        mask = np.arange(T) < lengths[:, None]
        losses[~mask] = 50 + rng.normal(size=(~mask).sum())  # what stands there is large
        right = losses[mask].mean()
        got = as_number(student(losses, mask), "mean")
        if not close(got, right):
            by_row = np.array([row[m].mean() for row, m in zip(losses, mask, strict=True)])
            reject_known(
                np.asarray(got),
                {
                    "padding is counted with its losses: the mask is not used": losses.mean(),
                    "the sum is over real tokens, but you divide by all, padding included": (
                        losses[mask].sum() / mask.size
                    ),
                    "this is the mean of the sentences' means, in which a token of a short "
                    "sentence counts more; divide once, by all real tokens": by_row.mean(),
                    "this is the sum; divide by the number of real tokens": losses[mask].sum(),
                    "these are the padding's losses: the mask is turned round": losses[
                        ~mask
                    ].mean(),
                    "you divide by the number of sentences": losses[mask].sum() / B,
                },
            )
            wrong(f"your mean is {got:.4f}; the mean over the {mask.sum()} real tokens differs")
        losses[~mask] = np.nan
        answer = as_array(student(losses, mask), what="mean")
        if answer.size == 1 and np.isnan(answer.astype(float)).all():
            wrong(
                "where padding holds NaN your mean is NaN: 0 times NaN is NaN, so choose the real "
                "tokens instead of multiplying the others by 0"
            )
        if not close(as_number(answer, "mean"), right):
            wrong("with NaN in the padding your mean changes; only real tokens may count")


@check()
def last_real_logits(student: Student, rng: np.random.Generator) -> None:
    """Exercise 20.4: the logits where a row's last real token stands, padded left or right."""
    for B, T, V, side in ((3, 6, 4, "right"), (4, 5, 3, "left"), (2, 4, 2, "mixed"), (1, 1, 3, "")):
        logits = rng.normal(size=(B, T, V))
        lengths = rng.integers(1, T + 1, size=B)
        if side != "":
            lengths[0] = T - 2
        mask = np.arange(T) < lengths[:, None]
        if side == "left":
            mask = mask[:, ::-1].copy()
        if side == "mixed":
            mask[0] = mask[0, ::-1]
        places = [int(np.flatnonzero(row)[-1]) for row in mask]
        rows = np.arange(B)
        got = as_array(student(logits, mask), what="array of logits")
        if got.shape == (B, 1, V):
            wrong(f"the shape is {got.shape}; one row of V logits for each sequence is ({B}, {V})")
        got = as_array(got, (B, V), "array of logits")
        if close(got, logits[rows, places]):
            continue
        counts = mask.sum(axis=1)
        which = {"right": "on the right", "left": "on the left", "mixed": "on either side"}.get(
            side, "missing"
        )
        reject_known(
            got,
            {
                f"with padding {which}: the last column is padding for short rows": logits[:, -1],
                "you use the number of real tokens as the position; counting starts at 0": logits[
                    rows, np.minimum(counts, T - 1)
                ],
                f"with padding {which}: the number of real tokens less one is their last position "
                "only if they start at 0": logits[rows, counts - 1],
                "this is each row's first real token; the last one has read the others": logits[
                    rows, mask.argmax(axis=1)
                ],
                "this is the first position of each row": logits[:, 0],
                "every row uses the same position; it differs from row to row": logits[
                    :, max(places)
                ],
            },
        )
        wrong(f"with padding {which}, yours are not the logits at each row's last real token")


def _two_sets(answer: Any, shapes: tuple[tuple[int, int], tuple[int, int]]) -> list[np.ndarray]:
    """Return the scaled training and test set, or say what else was returned."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, list | tuple) or len(answer) != 2:
        wrong("return two arrays, the scaled training set and the scaled test set, in this order")
    names = ("training", "test")
    sets = [as_array(part, what=f"{name} set") for part, name in zip(answer, names, strict=True)]
    if (sets[1].shape, sets[0].shape) == shapes:
        wrong("the test set comes first; the training set is asked for first")
    for part, shape, name in zip(sets, shapes, names, strict=True):
        as_array(part, shape, what=f"{name} set")
    return [part.astype(float) for part in sets]


@check()
def scaled_apart(student: Student, rng: np.random.Generator) -> None:
    """Exercise 20.5: mean and deviation come from the training set and serve both sets."""
    for N, M, C in ((9, 14, 4), (30, 6, 3), (12, 1, 2)):
        train = rng.normal(rng.normal(scale=3, size=C), rng.uniform(0.5, 4, size=C), size=(N, C))
        test = 1.5 * train[rng.integers(N, size=M)] + rng.normal(2, 1, size=(M, C))
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        got = np.concatenate(_two_sets(student(train, test), (train.shape, test.shape)))
        both = np.concatenate([train, test])
        if close(got, (both - mean) / deviation):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            by_themselves = np.concatenate([(x - x.mean(0)) / x.std(0) for x in (train, test)])
            by_test = (both - test.mean(axis=0)) / test.std(axis=0)
        reject_known(
            got,
            {
                "mean and deviation are those of both sets together, so that the test set has a "
                "say in the training": (both - both.mean(axis=0)) / both.std(axis=0),
                "each set is scaled with numbers of its own: equal examples get different "
                "features in training and in the test": by_themselves,
                "mean and deviation are those of the test set, which has to stay unseen": by_test,
                "the mean comes from the training set, the deviation from both": (
                    (both - mean) / both.std(axis=0)
                ),
                "the deviation comes from the training set, the mean from both": (
                    (both - both.mean(axis=0)) / deviation
                ),
                "the test set is left as it was; scale it with the training set's numbers": (
                    np.concatenate([(train - mean) / deviation, test])
                ),
                "the mean is subtracted, but nothing is divided by the deviation": both - mean,
                "you divide by the deviation without subtracting the mean": both / deviation,
                "you divide by the variance; its square root is asked for": (
                    (both - mean) / deviation**2
                ),
                "all features share one mean and one deviation; each column has its own": (
                    (both - train.mean()) / train.std()
                ),
                "the deviation divides by N - 1; numpy's `std` divides by N": (
                    (both - mean) / train.std(axis=0, ddof=1)
                ),
            },
        )
        wrong("yours are not the two sets, scaled with the training set's mean and deviation")
    train[:, 0] = 4.0  # a feature that is constant in training, and not in the test
    got = np.concatenate(_two_sets(student(train, test), (train.shape, test.shape)))
    if not np.isfinite(got).all():
        wrong("a feature that is constant in training becomes NaN or infinite: you divide by 0")
    if not close(got[:, 0], np.append(np.zeros(N), test[:, 0] - 4.0)):
        wrong("a feature that is constant in training should have its mean subtracted and no more")


def _train(
    model: Any,
    batches: list[Any],
    lr: float,
    *,
    softmax: bool = False,
    reset: bool = True,
    padding: bool = False,
    clip: str = "before",
    shift: int = 1,
) -> Any:
    """Train as the exercise asks, or with some of the mistakes."""
    import torch
    from torch.nn import functional as F

    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for ids, mask in batches:
        logits = model(ids)
        logits = logits.softmax(dim=-1) if softmax else logits
        targets = ids.masked_fill(~mask, -100) if not padding else ids
        losses = (logits[:, :-1], targets[:, 1:]) if shift else (logits, targets)
        if reset:
            optimizer.zero_grad()
        F.cross_entropy(losses[0].flatten(0, 1), losses[1].flatten()).backward()
        if clip == "before":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if clip == "after":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return model


def _weights(model: Any) -> np.ndarray:
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in model.parameters()])


@check(time_limit=20.0)
def train_repaired(student: Student, rng: np.random.Generator) -> None:
    """Exercise 20.6: the weights after some updates equal those of a right loop."""
    import torch
    from torch import nn

    B, T, V = 4, 6, 9
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    model = nn.Sequential(nn.Embedding(V, 5), nn.Linear(5, V))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=1.5, generator=generator)
    batches = []
    for _ in range(5):
        ids = torch.randint(1, V, (B, T), generator=generator)
        mask = torch.arange(T) < torch.randint(2, T, (B, 1), generator=generator)
        batches.append((ids.masked_fill(~mask, 0), mask))
    lr, before = 0.5, _weights(model)
    trained = student(model, batches, lr)
    if trained is None:
        wrong("your function returned None: return the model")
    if not isinstance(trained, nn.Module):
        wrong(f"return the model, not a {type(trained).__name__}")
    got = _weights(trained)
    if close(got, before):
        wrong("the model comes back as it went in: is there an update for each batch?")

    def mistaken(**mistakes: Any) -> np.ndarray:
        return _weights(_train(model, batches, lr, **mistakes))

    if close(got, mistaken(), atol=1e-4):
        return
    as_found = {"softmax": True, "reset": False, "padding": True, "clip": "after"}
    known: dict[str, Callable[[], np.ndarray]] = {
        "all four mistakes are still there": lambda: mistaken(**as_found),
        "probabilities go into cross-entropy, which takes a second softmax of them": lambda: (
            mistaken(softmax=True)
        ),
        "gradients of earlier batches are still in .grad: reset them for each batch": lambda: (
            mistaken(reset=False)
        ),
        "padding is a target: the loss is to count real tokens only": lambda: mistaken(
            padding=True
        ),
        "the update is made with gradients that are not clipped: clip them between backward() and "
        "step(), for afterwards it is too late": lambda: mistaken(clip="never"),
        "the targets are not shifted: each position is judged by the token it has read": lambda: (
            mistaken(shift=0)
        ),
    }
    pieces = {
        "softmax": ("a second softmax", {"softmax": True}),
        "reset": ("gradients that are never reset", {"reset": False}),
        "padding": ("padding among the targets", {"padding": True}),
        "clip": ("clipping after the update", {"clip": "after"}),
    }
    names = list(pieces)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = pieces[first][1] | pieces[second][1]
            message = f"two mistakes are left: {pieces[first][0]}, and {pieces[second][0]}"
            known[message] = lambda both=both: mistaken(**both)
        rest = {k: v for name in names if name != first for k, v in pieces[name][1].items()}
        message = f"of the four, only {pieces[first][0]} is repaired"
        known[message] = lambda rest=rest: mistaken(**rest)
    reject_known(got, {message: make() for message, make in known.items()}, atol=1e-4)
    wrong(
        "the weights after five updates are not those of a right loop: plain SGD, one update per "
        "batch, the mean over real next tokens, gradients clipped to a norm of 1 before the update"
    )
