"""Chapter 1's checks accept right answers in any form and reject plausible wrong ones."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from utils import checks


def counted(ids, vocab_size):
    table = np.zeros((vocab_size, vocab_size))
    np.add.at(table, (ids[:-1], ids[1:]), 1)
    return table


def bigram_right(ids, vocab_size):
    table = counted(ids, vocab_size)
    totals = table.sum(1, keepdims=True)
    return np.where(totals > 0, table / np.maximum(totals, 1), 1 / vocab_size)


def bigram_loops(ids, vocab_size):
    rows = [[0] * vocab_size for _ in range(vocab_size)]
    for i in range(len(ids) - 1):
        rows[ids[i]][ids[i + 1]] += 1
    return [[c / sum(row) if sum(row) else 1 / vocab_size for c in row] for row in rows]


def bigram_torch(ids, vocab_size):
    table = torch.zeros(vocab_size, vocab_size)
    table.index_put_(
        (torch.tensor(ids[:-1]), torch.tensor(ids[1:])), torch.tensor(1.0), accumulate=True
    )
    table[table.sum(1) == 0] = 1
    return table / table.sum(1, keepdim=True)


@np.errstate(all="ignore")
def divided(a, b):
    return a / b


def em_right(component_probs, num_steps=50):
    weights = np.full(component_probs.shape[1], 1 / component_probs.shape[1])
    for _ in range(num_steps):
        credit = component_probs * weights
        weights = (credit / credit.sum(1, keepdims=True)).mean(0)
    return weights


def em_loops(component_probs, num_steps=50):
    weights = [1 / component_probs.shape[1]] * component_probs.shape[1]
    for _ in range(num_steps):
        new = [0.0] * len(weights)
        for row in component_probs:
            total = sum(w * p for w, p in zip(weights, row, strict=True))
            for m, p in enumerate(row):
                new[m] += weights[m] * p / total / len(component_probs)
        weights = new
    return weights


def em_unnormalised(component_probs, num_steps=50):
    weights = np.full(component_probs.shape[1], 1 / component_probs.shape[1])
    for _ in range(num_steps):
        credit = component_probs * weights
        weights = credit.sum(0) / credit.sum()
    return weights


def em_hard(component_probs, num_steps=50):
    size = component_probs.shape[1]
    return np.bincount(component_probs.argmax(1), minlength=size) / len(component_probs)


def em_stuck(component_probs, num_steps=50):
    equal = np.full(component_probs.shape[1], 1 / component_probs.shape[1])
    credit = component_probs * equal
    return (credit / credit.sum(1, keepdims=True)).mean(0)


def em_totals_once(component_probs, num_steps=50):
    weights = np.full(component_probs.shape[1], 1 / component_probs.shape[1])
    totals = component_probs @ weights  # belongs inside the loop
    for _ in range(num_steps):
        weights = (component_probs * weights / totals[:, None]).mean(0)
        weights = weights / weights.sum()
    return weights


def em_logs(component_probs, num_steps=50):
    with np.errstate(divide="ignore", invalid="ignore"):
        credit = np.log(component_probs)
        return (credit / credit.sum(1, keepdims=True)).mean(0)


def predecessors(ids, vocab_size):
    return (counted(ids, vocab_size) > 0).sum(0)


def in_place(counts, k):
    counts += int(k) + 1
    return counts / counts.sum(1, keepdims=True)


RIGHT = {
    "bigram_probs": [bigram_right, bigram_loops, bigram_torch],
    "perplexity_from_probs": [
        lambda p: np.exp(-np.log(p).mean()),
        lambda p: 2 ** (-np.log2(p).mean()),
        lambda p: torch.tensor(p, dtype=torch.float32).log().mean().neg().exp(),
        lambda p: np.prod(p ** (-1 / len(p))),
    ],
    "add_k_probs": [
        lambda c, k: (c + k) / (c + k).sum(1, keepdims=True),
        lambda c, k: (torch.tensor(c) + k) / (torch.tensor(c) + k).sum(1, keepdim=True),
        lambda c, k: [[(x + k) / (sum(row) + k * len(row)) for x in row] for row in c],
    ],
    "bits_per_char": [
        lambda logs, n: -logs.sum() / np.log(2) / n,
        lambda logs, n: -sum(float(x) for x in logs) / n * np.log2(np.e),
        lambda logs, n: torch.tensor(logs, dtype=torch.float32).sum() / -np.log(2) / n,
    ],
    "continuation_probs": [
        lambda ids, v: predecessors(ids, v) / predecessors(ids, v).sum(),
        lambda ids, v: (
            np.bincount([w for _, w in set(pairwise(ids))], minlength=v) / len(set(pairwise(ids)))
        ),
        lambda ids, v: torch.tensor(predecessors(ids, v)) / predecessors(ids, v).sum(),
    ],
    "em_weights": [
        em_right,
        em_loops,
        lambda p, num_steps=50: torch.tensor(em_right(p, num_steps)),
    ],
}
WRONG = [
    ("bigram_probs", counted, "these are counts"),
    ("bigram_probs", lambda i, v: counted(i, v) / (len(i) - 1), "joint"),
    ("bigram_probs", lambda i, v: bigram_right(i, v).T, "swapped"),
    (
        "bigram_probs",
        lambda i, v: divided(counted(i, v), counted(i, v).sum(0)),
        "what a column sums to",
    ),
    (
        "bigram_probs",
        lambda i, v: divided(counted(i, v).T, counted(i, v).T.sum(1, keepdims=True)),
        "before h, not what comes after",
    ),
    (
        "bigram_probs",
        lambda i, v: divided(counted(i, v), counted(i, v).sum(1, keepdims=True)),
        "0/0 = nan",
    ),
    (
        "bigram_probs",
        lambda i, v: counted(i, v) / np.maximum(counted(i, v).sum(1, keepdims=True), 1),
        "never occurs got",
    ),
    (
        "bigram_probs",
        lambda i, v: counted(i, v) / np.maximum(np.bincount(i, minlength=v), 1)[:, None],
        "nothing after it",
    ),
    (
        "bigram_probs",
        lambda i, v: (counted(i, v) + 1) / (counted(i, v) + 1).sum(1, keepdims=True),
        "not the relative counts",
    ),
    ("bigram_probs", lambda i, v: bigram_right(i, v)[0], "shape"),
    ("perplexity_from_probs", lambda p: -np.log(p).mean(), "exponential"),
    ("perplexity_from_probs", lambda p: np.exp(np.log(p).mean()), "sign"),
    ("perplexity_from_probs", lambda p: 1 / p.mean(), "averaged the probabilities"),
    ("perplexity_from_probs", lambda p: 1 / np.prod(p), "length of the text"),
    ("perplexity_from_probs", lambda p: np.exp(-np.log2(p).mean()), "base"),
    ("perplexity_from_probs", lambda p: 2 ** (-np.log(p).mean()), "base"),
    ("perplexity_from_probs", lambda p: np.float64(1) / np.prod(p) ** (1 / len(p)), "underflow"),
    ("perplexity_from_probs", lambda p: np.exp(-np.log(p)), "one number|not right"),
    ("add_k_probs", lambda c, k: divided(c, c.sum(1, keepdims=True)), "not added anywhere"),
    ("add_k_probs", lambda c, k: divided(c + k, c.sum(1, keepdims=True)), "grow together"),
    ("add_k_probs", lambda c, k: (c + k) / (c.sum(1, keepdims=True) + k), "one k"),
    ("add_k_probs", lambda c, k: (c + k) / (c + k).sum(), "whole table"),
    ("add_k_probs", lambda c, k: (c + k) / (c + k).sum(0), "columns"),
    (
        "add_k_probs",
        lambda c, k: (c + 1) / (c.sum(1, keepdims=True) + c.shape[1]),
        "always adds 1",
    ),
    (
        "add_k_probs",
        lambda c, k: divided(
            np.where(c > 0, c + k, 0), np.where(c > 0, c + k, 0).sum(1, keepdims=True)
        ),
        "seen tokens only",
    ),
    ("add_k_probs", in_place, "changes the arguments"),
    ("bits_per_char", lambda logs, n: -logs.mean() / np.log(2), "bits per token"),
    ("bits_per_char", lambda logs, n: -logs.sum() / n, "nats per character"),
    ("bits_per_char", lambda logs, n: -logs.mean(), "nats per token"),
    ("bits_per_char", lambda logs, n: logs.sum() / np.log(2) / n, "sign"),
    ("bits_per_char", lambda logs, n: -logs.sum() * np.log(2) / n, "multiplied"),
    ("bits_per_char", lambda logs, n: -logs.sum() / np.log(2), "whole text"),
    ("bits_per_char", lambda logs, n: -logs.mean() / np.log(2) / n, "averaged over the tokens"),
    ("bits_per_char", lambda logs, n: -np.log2(-logs).sum() / n, "unit of each quantity"),
    ("continuation_probs", predecessors, "divide by their sum"),
    (
        "continuation_probs",
        lambda i, v: np.bincount(i, minlength=v) / len(i),
        "each different predecessor once",
    ),
    (
        "continuation_probs",
        lambda i, v: np.bincount(i[1:], minlength=v) / (len(i) - 1),
        "each different predecessor once",
    ),
    (
        "continuation_probs",
        lambda i, v: (counted(i, v) > 0).sum(1) / (counted(i, v) > 0).sum(),
        "look at those before",
    ),
    ("continuation_probs", lambda i, v: predecessors(i, v) / v, "not by the number of tokens"),
    ("continuation_probs", lambda i, v: predecessors(i, v) / (len(i) - 1), "repeated pairs"),
    (
        "continuation_probs",
        lambda i, v: (
            (counted(i, v) * (1 - np.eye(v)) > 0).sum(0)
            / (counted(i, v) * (1 - np.eye(v)) > 0).sum()
        ),
        "may follow itself",
    ),
    ("em_weights", em_unnormalised, "one unit of credit"),
    ("em_weights", em_hard, "wholly to its best model"),
    ("em_weights", em_stuck, "no better than 5"),
    ("em_weights", em_logs, "nan"),
    (
        "em_weights",
        lambda p, num_steps=50: np.full(p.shape[1], 1 / p.shape[1]),
        "still equal",
    ),
    ("em_weights", lambda p, num_steps=50: em_right(p, num_steps) * len(p), "sum to 1"),
    ("em_weights", em_totals_once, "no better than 5|could still be lower"),
    ("em_weights", lambda p, num_steps=50: em_right(p, num_steps + 1), "one step from equal"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the wrong answers divide by zero
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_explained(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert any(word in result.message for word in words.split("|")), result


@pytest.mark.parametrize("name", RIGHT)
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert not getattr(checks, name)(lambda *args, **kwargs: None).passed


def test_every_check_has_enough_wrong_answers():
    assert set(checks.names(1)) == set(RIGHT)
    for name in RIGHT:
        assert sum(wrong_name == name for wrong_name, _, _ in WRONG) >= 4
