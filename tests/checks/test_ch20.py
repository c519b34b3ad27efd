"""Chapter 20's checks accept right repairs in any form and tell what is left in the others."""

import re

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from utils import checks

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 20.1


def loss_right(logits, ids):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def loss_loop(logits, ids):
    total, count = 0.0, 0
    for row, tokens in zip(logits.numpy(), ids.numpy(), strict=True):
        for t in range(len(tokens) - 1):
            total -= row[t][tokens[t + 1]] - np.log(np.exp(row[t]).sum())
            count += 1
    return total / count


def loss_ignore(logits, ids):
    targets = torch.full_like(ids, -100)
    targets[:, :-1] = ids[:, 1:]
    return F.cross_entropy(logits.float().transpose(1, 2), targets)


# 20.2


def weights_of(mask_of, axis=-1, fill=-np.inf, stable=True):
    def answer(scores):
        masked = np.where(mask_of(scores.shape[-1]), scores, fill)
        top = masked.max(axis=axis, keepdims=True) if stable else 0
        exponentials = np.exp(masked - top)
        return exponentials / exponentials.sum(axis=axis, keepdims=True)

    return answer


def lower(T):
    return np.tri(T, dtype=bool)


def weights_torch(scores):
    scores = torch.tensor(scores).float()
    above = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(above, -torch.inf).softmax(-1)


def weights_loop(scores):
    result = np.zeros_like(scores)
    for b, matrix in enumerate(scores):
        for t, row in enumerate(matrix):
            e = np.exp(row[: t + 1] - row[: t + 1].max())
            result[b, t, : t + 1] = e / e.sum()
    return result.tolist()


def weights_after(scores):
    return weights_of(lambda T: np.ones((T, T), bool))(scores) * lower(scores.shape[-1])


# 20.3


def mean_loop(losses, mask):
    real = [
        x for row, m in zip(losses, mask, strict=True) for x, r in zip(row, m, strict=True) if r
    ]
    return sum(real) / len(real)


def mean_where(losses, mask):
    return torch.tensor(np.where(mask, losses, 0.0)).float().sum() / int(mask.sum())


# 20.4


def last_right(logits, mask):
    T = mask.shape[1]
    places = T - 1 - mask[:, ::-1].argmax(axis=1)
    return logits[np.arange(len(logits)), places]


def last_loop(logits, mask):
    return [row[np.flatnonzero(m)[-1]].tolist() for row, m in zip(logits, mask, strict=True)]


def last_torch(logits, mask):
    logits, mask = torch.tensor(logits), torch.tensor(mask)
    places = (mask * torch.arange(mask.shape[1])).argmax(dim=1)
    return logits[torch.arange(len(logits)), places]


# 20.5


def scale(both, numbers_of, divide=True):
    mean, deviation = numbers_of.mean(axis=0), numbers_of.std(axis=0)
    deviation = np.where(deviation == 0, 1, deviation)
    return [(part - mean) / (deviation if divide else 1) for part in both]


def scale_right(train, test):
    return scale((train, test), train)


def scale_library(train, test):
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def scale_torch(train, test):
    train, test = torch.tensor(train).float(), torch.tensor(test).float()
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    deviation[deviation == 0] = 1
    return (train - mean) / deviation, (test - mean) / deviation


def scale_unguarded(train, test):
    return [(part - train.mean(axis=0)) / train.std(axis=0) for part in (train, test)]


def scale_epsilon(train, test):
    return [(part - train.mean(axis=0)) / (train.std(axis=0) + 1e-8) for part in (train, test)]


def scale_in_place(train, test):
    train -= train.mean(axis=0)
    return train, test


# 20.6


def loop(model, batches, lr, *, softmax=False, reset=True, padding=False, clip="before", shift=1):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for ids, mask in batches:
        logits = model(ids)[:, :-1] if shift else model(ids)
        targets, real = (ids[:, 1:], mask[:, 1:]) if shift else (ids, mask)
        logits = logits.softmax(-1) if softmax else logits
        chosen = torch.ones_like(real) if padding else real
        if reset:
            optimizer.zero_grad()
        F.cross_entropy(logits[chosen], targets[chosen]).backward()
        if clip == "before":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if clip == "after":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return model


def loop_by_hand(model, batches, lr):
    for ids, mask in batches:
        log_probs = model(ids[:, :-1]).log_softmax(-1)
        losses = -log_probs.gather(-1, ids[:, 1:, None])[..., 0]
        loss = (losses * mask[:, 1:]).sum() / mask[:, 1:].sum()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in grads))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p.sub_(lr * g / max(norm.item(), 1.0))
    return model


RIGHT = {
    "shifted_loss": [loss_right, loss_loop, loss_ignore],
    "causal_weights": [weights_of(lower), weights_torch, weights_loop],
    "mean_over_real": [lambda losses, mask: losses[mask].mean(), mean_loop, mean_where],
    "last_real_logits": [last_right, last_loop, last_torch],
    "scaled_apart": [scale_right, scale_library, scale_torch],
    "train_repaired": [loop, loop_by_hand],
}

AS_FOUND = {"softmax": True, "reset": False, "padding": True, "clip": "after"}


def left(**mistakes):
    return lambda model, batches, lr: loop(model, batches, lr, **mistakes)


WRONG = {
    "shifted_loss": [
        (lambda z, i: F.cross_entropy(z.flatten(0, 1), i.flatten()), "that it has read"),
        (lambda z, i: F.cross_entropy(z[:, 1:].flatten(0, 1), i[:, :-1].flatten()), "wrong way"),
        (lambda z, i: F.cross_entropy(z.flatten(0, 1), i.roll(-1, 1).flatten()), "wraps around"),
        (lambda z, i: loss_right(z.softmax(-1), i), "applies a softmax itself"),
        (lambda z, i: loss_right(z, i) * len(i) * (i.shape[1] - 1), "sum over all"),
        (lambda z, i: loss_right(z, i) * (i.shape[1] - 1) / i.shape[1], "only T - 1"),
        (lambda z, i: -loss_right(z, i), "sign is wrong"),
        (lambda z, i: F.cross_entropy(z[:, -2], i[:, -1]), "only the last prediction"),
        (lambda z, i: None, "None"),
    ],
    "causal_weights": [
        (weights_of(lambda T: np.ones((T, T), bool)), "nothing is masked"),
        (weights_of(lambda T: np.tri(T, k=1, dtype=bool)), "one token too many"),
        (weights_of(lambda T: lower(T).T), "transposed"),
        (weights_of(lower, axis=-2), "a query's weights are a row"),
        (weights_of(lambda T: np.tri(T, k=1, dtype=bool), axis=-2), "neither mistake"),
        (weights_after, "after the softmax"),
        (weights_of(lower, fill=0.0), "set to 0"),
        (
            weights_of(lambda T: np.tri(T, k=-1, dtype=bool), stable=False),
            "leaves out the diagonal",
        ),
        (weights_of(lower, stable=False), "largest score"),
        (lambda s: s[:, 0], "shape"),
    ],
    "mean_over_real": [
        (lambda x, m: x.mean(), "the mask is not used"),
        (lambda x, m: (x * m).mean(axis=1).mean(), "padding included"),
        (lambda x, m: (np.where(m, x, 0).sum(1) / m.sum(1)).mean(), "means"),
        (lambda x, m: x[m].sum(), "this is the sum"),
        (lambda x, m: x[~m].mean(), "turned round"),
        (lambda x, m: x[m].sum() / len(x), "number of sentences"),
        (lambda x, m: (x * m).sum() / m.sum(), "0 times NaN"),
    ],
    "last_real_logits": [
        (lambda z, m: z[:, -1], "last column is padding"),
        (lambda z, m: z[np.arange(len(z)), m.sum(1) - 1], "only if they start at 0"),
        (lambda z, m: z[np.arange(len(z)), np.minimum(m.sum(1), m.shape[1] - 1)], "starts at 0"),
        (lambda z, m: z[np.arange(len(z)), m.argmax(1)], "first"),
        (lambda z, m: z[:, 0], "first"),
        (lambda z, m: last_right(z, m)[:, None], "one row of V logits"),
        (lambda z, m: z, "shape"),
    ],
    "scaled_apart": [
        (lambda a, b: scale((a, b), np.concatenate([a, b])), "both sets together"),
        (lambda a, b: scale((a,), a) + scale((b,), b), "numbers of its own"),
        (lambda a, b: scale((a, b), b), "stay unseen"),
        (lambda a, b: (scale((a,), a)[0], b), "left as it was"),
        (lambda a, b: scale((a, b), a, divide=False), "nothing is divided"),
        (lambda a, b: (a / a.std(0), b / a.std(0)), "without subtracting"),
        (lambda a, b: [(x - a.mean(0)) / a.var(0) for x in (a, b)], "variance"),
        (lambda a, b: [(x - a.mean()) / a.std() for x in (a, b)], "share one mean"),
        (lambda a, b: [(x - a.mean(0)) / a.std(0, ddof=1) for x in (a, b)], "N - 1"),
        (lambda a, b: [(x - a.mean(0)) / np.r_[a, b].std(0) for x in (a, b)], "from both"),
        (lambda a, b: [(x - np.r_[a, b].mean(0)) / a.std(0) for x in (a, b)], "the mean from both"),
        (lambda a, b: [2 * x for x in scale_right(a, b)], "yours are not"),
        (scale_unguarded, "you divide by 0"),
        (scale_epsilon, "subtracted and no more"),
        (scale_in_place, "changes"),
        (lambda a, b: scale_right(a, b)[::-1], "comes first"),
        (lambda a, b: scale_right(a, b)[0], "return two arrays"),
        (lambda a, b: [x[:1] for x in scale_right(a, b)], "shape"),
        (lambda a, b: None, "None"),
    ],
    "train_repaired": [
        (left(**AS_FOUND), "all four"),
        (left(softmax=True), "second softmax"),
        (left(reset=False), "reset them"),
        (left(padding=True), "padding is a target"),
        (left(clip="after"), "too late"),
        (left(clip="never"), "not clipped"),
        (left(shift=0), "not shifted"),
        (left(softmax=True, padding=True), "two mistakes are left"),
        (left(**AS_FOUND | {"softmax": False}), "only a second softmax is repaired"),
        (lambda model, batches, lr: model, "as it went in"),
        (lambda model, batches, lr: loop(model, batches, lr / 2), "not those of a right loop"),
        (lambda model, batches, lr: loop(model, batches, lr) and None, "None"),
        (lambda model, batches, lr: 0.5, "return the model"),
        (lambda model, batches, lr: model.missing, "AttributeError"),
    ],
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [(name, answer, words) for name, answers in WRONG.items() for answer, words in answers],
)
def test_wrong_answers_are_told_why(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert re.search(re.escape(words), result.message), result.message


def test_every_check_of_the_chapter_is_tested():
    assert set(checks.names(20)) == set(RIGHT) == set(WRONG)
