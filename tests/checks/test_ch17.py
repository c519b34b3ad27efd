"""Chapter 17's checks accept right answers in any form and reject plausible wrong ones."""

import re

import numpy as np
import pytest
import torch

from utils import checks, inside

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 17.1 and 17.2


def previous_right(weights):
    return np.diagonal(weights, -1).mean()


def previous_loop(weights):
    return sum(weights[t, t - 1] for t in range(1, len(weights))) / (len(weights) - 1)


def previous_torch(weights):
    return inside.previous_token_scores(torch.tensor(weights, dtype=torch.float32))


def induction_right(weights, period):
    return np.diagonal(weights, 1 - period)[1:].mean()


def induction_loop(weights, period):
    return np.mean([weights[t][t - period + 1] for t in range(period, len(weights))])


def induction_torch(weights, period):
    return inside.induction_scores(torch.tensor(weights), period)


# 17.3


def ablate_right(weights, values, output_weight, bias, head):
    kept = [h for h in range(len(weights)) if h != head]
    return sum(weights[h] @ values[h] @ output_weight[h] for h in kept) + bias


def ablate_einsum(weights, values, output_weight, bias, head):
    values = values.copy()
    values[head] = 0
    return np.einsum("hts,hsd,hdc->tc", weights, values, output_weight) + bias


def ablate_torch(*arrays):
    *arrays, head = arrays
    weights, values, output_weight, bias = (torch.tensor(x, dtype=torch.float32) for x in arrays)
    written = weights @ values @ output_weight
    return written.sum(0) - written[head] + bias


def ablate_wrong(kind):
    def answer(weights, values, output_weight, bias, head):
        written = weights @ values @ output_weight
        H, T = weights.shape[:2]
        rest = written.sum(0) - written[head]
        even = np.full((T, T), 1 / T) @ values[head] @ output_weight[head]
        return {
            "nothing": written.sum(0) + bias,
            "only": written[head],
            "no bias": rest,
            "mean": rest / H + bias,
            "rescaled": rest * H / (H - 1) + bias,
            "off by one": written.sum(0) - written[head - 1] + bias,
            "even": rest + even + bias,
            "axis": np.where(np.arange(H)[:, None, None] == head, 0, written),
        }[kind]

    return answer


def ablate_in_place(weights, values, output_weight, bias, head):
    weights[head] = 0
    return ablate_einsum(weights, values, output_weight, bias, head)


# 17.4


def rollout_right(weights):
    result = np.eye(weights.shape[-1])
    for layer in weights:
        result = (layer.mean(0) + np.eye(len(result))) / 2 @ result
    return result


def rollout_torch(weights):
    return inside.attention_rollout(torch.tensor(weights, dtype=torch.float32))


def rollout_backwards(weights):
    parts = [0.5 * layer.mean(0) + 0.5 * np.eye(layer.shape[-1]) for layer in weights]
    return np.linalg.multi_dot(parts[::-1]) if len(parts) > 1 else parts[0]


def rollout_wrong(kind):
    def answer(weights):
        identity = np.eye(weights.shape[-1])
        result = identity
        for layer in weights.max(1) if kind == "max" else weights.mean(1):
            if kind == "no residual":
                result = layer @ result
            elif kind == "sum":
                result = (layer + identity) @ result
            elif kind == "order":
                result = result @ (layer + identity) / 2
            else:
                result = (layer + identity) / 2 @ result
        if kind == "mean":
            return weights.mean((0, 1))
        return result.T if kind == "transposed" else result

    return answer


# 17.5


def accuracy(first, second):
    return np.mean([a == b for a, b in zip(first, second, strict=True)])


def selectivity_right(predicted, labels, control_predicted, words, control_label):
    return accuracy(predicted, labels) - accuracy(
        control_predicted, [control_label[w] for w in words]
    )


def selectivity_loop(predicted, labels, control_predicted, words, control_label):
    task = control = 0
    for i, word in enumerate(words):
        task += predicted[i] == labels[i]
        control += control_predicted[i] == control_label[word]
    return torch.tensor((task - control) / len(words))


def selectivity_wrong(kind):
    def answer(predicted, labels, control_predicted, words, control_label):
        truth = [control_label[w] for w in words]
        task, control = accuracy(predicted, labels), accuracy(control_predicted, truth)
        return {
            "sign": control - task,
            "task": task,
            "ratio": task / control,
            "real labels": task - accuracy(control_predicted, labels),
            "percent": 100 * (task - control),
            "half": (task - control) / 2,
        }[kind]

    return answer


RIGHT = {
    "previous_token_score": [previous_right, previous_loop, previous_torch],
    "induction_score": [induction_right, induction_loop, induction_torch],
    "ablate_head": [ablate_right, ablate_einsum, ablate_torch],
    "attention_rollout": [rollout_right, rollout_torch, rollout_backwards],
    "selectivity": [selectivity_right, selectivity_loop],
}

WRONG = {
    "previous_token_score": [
        (lambda w: np.diagonal(w).mean(), "the token itself"),
        (lambda w: np.diagonal(w, 1).mean(), "next token"),
        (lambda w: np.diagonal(w, -1).sum() / len(w), "divide by T"),
        (lambda w: np.diagonal(w, -1).sum(), "the sum"),
        (lambda w: np.mean([w[t, t - 1] for t in range(len(w))]), "wraps around"),
        (lambda w: np.diagonal(w, -1).max(), "largest weight"),
        (lambda w: np.diagonal(w, -1), "one number"),
        (lambda w: w.mean() / 2, "not the mean of the entries"),
        (lambda w: None, "None"),
    ],
    "induction_score": [
        (lambda w, p: np.diagonal(w, -p).mean(), "earlier copy of the token itself"),
        (lambda w, p: np.diagonal(w, 1 - p).mean(), "t = period - 1"),
        (lambda w, p: np.diagonal(w, 1 - p)[1:].sum() / len(w), "divide by all T"),
        (lambda w, p: np.diagonal(w, 1 - p)[1:].sum(), "the sum"),
        (lambda w, p: np.diagonal(w, p - 1)[1:].mean(), "the other way round"),
        (lambda w, p: np.diagonal(w, -1 - p).mean(), "before the earlier copy"),
        (lambda w, p: np.diagonal(w, -1).mean(), "previous-token score"),
        (lambda w, p: np.diagonal(w, 1 - p)[2:].mean(), "leave it out"),
        (lambda w, p: 0.5, "is not the mean of A[t, t - period + 1]"),
    ],
    "ablate_head": [
        (ablate_wrong("nothing"), "nothing is switched off"),
        (ablate_wrong("only"), "what the head writes"),
        (ablate_wrong("no bias"), "bias is missing"),
        (ablate_wrong("mean"), "averaged"),
        (ablate_wrong("rescaled"), "scaled up"),
        (ablate_wrong("off by one"), "another head is missing"),
        (ablate_wrong("even"), "made even"),
        (ablate_wrong("axis"), "axis for heads"),
        (ablate_in_place, "changes the arguments"),
    ],
    "attention_rollout": [
        (rollout_wrong("no residual"), "residual stream is missing"),
        (rollout_wrong("sum"), "added, not averaged"),
        (rollout_wrong("order"), "wrong order"),
        (rollout_wrong("mean"), "mean of all maps"),
        (rollout_wrong("transposed"), "transposed"),
        (rollout_wrong("max"), "maximum over heads"),
        (lambda w: w[-1].mean(0) / 2 + np.eye(w.shape[-1]) / 2, "last layer"),
        (lambda w: w, "shape"),
        (lambda w: rollout_right(w) * 0.9, "sums to 0.9"),
    ],
    "selectivity": [
        (selectivity_wrong("sign"), "sign is wrong"),
        (selectivity_wrong("task"), "accuracy on the task"),
        (selectivity_wrong("ratio"), "divide the accuracies"),
        (selectivity_wrong("real labels"), "real labels"),
        (selectivity_wrong("percent"), "percent"),
        (selectivity_wrong("half"), "not the difference"),
    ],
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [(name, answer, words) for name, answers in WRONG.items() for answer, words in answers],
)
def test_wrong_answers_are_told_why(name, answer, words):
    result = getattr(checks, name)(answer)
    assert result.status == "failed"
    assert re.search(re.escape(words), result.message), result.message


def test_every_check_of_the_chapter_is_tested():
    assert set(checks.names(17)) == set(RIGHT) == set(WRONG)
