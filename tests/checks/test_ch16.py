"""Chapter 16's checks accept right answers in any form and reject plausible wrong ones."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import checks, lora, preference

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 16.2
def forward_right(x, weight, A, B, alpha):
    return x @ weight.T + alpha / len(A) * (x @ A.T) @ B.T


def forward_merged(x, weight, A, B, alpha):
    return x @ (weight + alpha / A.shape[0] * B @ A).T


def forward_torch(x, weight, A, B, alpha):
    x, weight, A, B = (torch.tensor(a).float() for a in (x, weight, A, B))
    layer = torch.nn.Linear(*weight.shape[::-1], bias=False)
    layer.weight.data = weight
    adapted = lora.LoRALinear(layer, len(A), alpha)
    adapted.A.data, adapted.B.data = A, B
    return adapted(x)


# 16.3
def labels_right(ids, header, end_id, *, end=True, skip=True, fill=-100, last=None):
    labels, inside, n, turns = [fill] * len(ids), False, len(header), 0
    for t, token in enumerate(ids):
        if ids[max(t - n, 0) : t] == header:
            inside, turns = True, turns + 1
            if not skip:
                labels[t - n : t] = header
        if inside and (last is None or turns <= last):
            labels[t] = token if end or token != end_id else fill
        if token == end_id:
            inside = False
    return labels


def labels_numpy(ids, header, end_id):
    ids, n = np.array(ids), len(header)
    opens = np.zeros(len(ids), dtype=int)
    for place in range(len(ids) - n + 1):
        if (ids[place : place + n] == header).all() and place + n < len(ids):
            opens[place + n] = 1
    closes = np.concatenate([[0], (ids[:-1] == end_id).astype(int)])
    state, mine = 0, []
    for o, c in zip(opens, closes, strict=True):
        state = 1 if o else 0 if c else state
        mine.append(state == 1)
    return np.where(mine, ids, -100)


def labels_all_ends(ids, header, end_id):
    labels = labels_right(ids, header, end_id)
    return [end_id if i == end_id else label for i, label in zip(ids, labels, strict=True)]


def labels_everything_after(ids, header, end_id):
    labels = labels_right(ids, header, end_id)
    first = next((t for t, label in enumerate(labels) if label != -100), len(ids))
    return [-100] * first + ids[first:]


def labels_inverse(ids, header, end_id):
    labels = labels_right(ids, header, end_id)
    return [i if label == -100 else -100 for i, label in zip(ids, labels, strict=True)]


# 16.4
def low_right(change, rank):
    u, s, v = np.linalg.svd(change, full_matrices=False)
    return u[:, :rank] * s[:rank], v[:rank]


def low_torch(change, rank):
    u, s, v = torch.linalg.svd(torch.tensor(change).float(), full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def low_eigen(change, rank):
    _, vectors = np.linalg.eigh(change.T @ change)
    A = vectors[:, ::-1][:, :rank].T
    return change @ A.T, A


def low_with(power, part):
    def answer(change, rank):
        u, s, v = np.linalg.svd(change, full_matrices=False)
        keep = slice(None, rank) if part == "largest" else slice(-rank, None)
        return u[:, keep] * s[keep] ** power, v[keep]

    return answer


def low_columns(change, rank):
    return change[:, :rank], np.eye(rank, change.shape[1])


# 16.5
def grams(tokens, n):
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def overlap_right(reference, summary, n, how="f1"):
    r, s = grams(reference, n), grams(summary, n)
    common = sum(min(count, s[gram]) for gram, count in r.items())
    recall = common / r.total() if r else 0.0
    precision = common / s.total() if s else 0.0
    if how == "recall":
        return recall
    if how == "precision":
        return precision
    if how == "mean":
        return (recall + precision) / 2
    return 2 * precision * recall / (precision + recall) if common else 0.0


def overlap_library(reference, summary, n):
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer([f"rouge{n}"])
    return scorer.score(" ".join(reference), " ".join(summary))[f"rouge{n}"].fmeasure


def overlap_sets(reference, summary, n):
    r, s = set(grams(reference, n)), set(grams(summary, n))
    return 2 * len(r & s) / (len(r) + len(s)) if r or s else 0.0


def overlap_unclipped(reference, summary, n):
    r, s = grams(reference, n), grams(summary, n)
    return 2 * sum(c for g, c in s.items() if g in r) / max(r.total() + s.total(), 1)


def overlap_words(reference, summary, n):
    return overlap_right(reference, summary, 1)


def overlap_divides(reference, summary, n):
    r, s = grams(reference, n), grams(summary, n)
    common = sum((r & s).values())
    return 2 / (r.total() / common + s.total() / common)


# 16.6
def dpo_right(c, r, rc, rr, beta):
    return np.logaddexp(0, -beta * ((c - rc) - (r - rr))).mean()


def dpo_torch(c, r, rc, rr, beta):
    return preference.dpo_loss(*(torch.tensor(x) for x in (c, r, rc, rr)), beta)


def dpo_ratio(c, r, rc, rr, beta):
    gaps = torch.tensor(beta * ((c - r) - (rc - rr))).float()
    return F.binary_cross_entropy_with_logits(gaps, torch.ones_like(gaps)).item()


def dpo_naive(c, r, rc, rr, beta):
    return -np.log(1 / (1 + np.exp(-beta * ((c - rc) - (r - rr))))).mean()


RIGHT = {
    "lora_parameter_count": [
        lora.lora_parameter_count,
        lambda shapes, rank: rank * int(np.sum(shapes)),
        lambda shapes, rank: sum(
            np.zeros((rank, c)).size + np.zeros((r, rank)).size for r, c in shapes
        ),
    ],
    "lora_forward": [forward_right, forward_merged, forward_torch],
    "mask_prompt_labels": [
        labels_right,
        labels_numpy,
        lambda *a: torch.tensor(labels_right(*a)),
    ],
    "best_low_rank": [low_right, low_torch, low_eigen],
    "summary_overlap": [overlap_right, overlap_library],
    "dpo_loss": [dpo_right, dpo_torch, dpo_ratio],
}

WRONG = [
    ("lora_parameter_count", lambda s, r: sum(a * b for a, b in s), "frozen"),
    ("lora_parameter_count", lambda s, r: sum(r * a for a, _ in s), "one of the two"),
    ("lora_parameter_count", lambda s, r: sum(a + b for a, b in s), "rank is missing"),
    ("lora_parameter_count", lambda s, r: r * sum(a * b for a, b in s), "one side of either"),
    ("lora_parameter_count", lambda s, r: r * sum(s[0]) if s else 0, "first weight only"),
    ("lora_forward", lambda x, w, A, B, a: x @ w.T, "changes nothing"),
    ("lora_forward", lambda x, w, A, B, a: a / len(A) * x @ A.T @ B.T, "alone"),
    ("lora_forward", lambda x, w, A, B, a: x @ w.T + a * x @ A.T @ B.T, "divide it by the rank"),
    ("lora_forward", lambda x, w, A, B, a: x @ w.T + x @ A.T @ B.T, "not scaled"),
    (
        "lora_forward",
        lambda x, w, A, B, a: x @ w.T + a / len(A) ** 0.5 * x @ A.T @ B.T,
        "alpha / rank is asked",
    ),
    ("mask_prompt_labels", lambda ids, h, e: ids, "no token is masked"),
    ("mask_prompt_labels", lambda *a: labels_right(*a, end=False), "never learn to stop"),
    ("mask_prompt_labels", labels_all_ends, "user's end of turn"),
    ("mask_prompt_labels", lambda *a: labels_right(*a, skip=False), "header"),
    ("mask_prompt_labels", lambda *a: labels_right(*a, fill=0), "-100"),
    ("mask_prompt_labels", lambda *a: labels_right(*a, last=1), "first reply"),
    ("mask_prompt_labels", labels_everything_after, "other people's turns"),
    ("mask_prompt_labels", labels_inverse, "learn the rest"),
    ("mask_prompt_labels", lambda *a: labels_right(*a)[1:], "shift by one"),
    ("best_low_rank", low_with(0, "largest"), "missing"),
    ("best_low_rank", low_with(2, "largest"), "twice"),
    ("best_low_rank", low_with(1, "smallest"), "smallest"),
    ("best_low_rank", low_with(0.5, "largest"), "one side"),
    ("best_low_rank", lambda c, r: low_right(c, r)[::-1], "changed places"),
    ("best_low_rank", low_columns, "can come within"),
    ("summary_overlap", lambda *a: overlap_right(*a, how="recall"), "recall"),
    ("summary_overlap", lambda *a: overlap_right(*a, how="precision"), "precision"),
    ("summary_overlap", lambda *a: overlap_right(*a, how="mean"), "harmonic|recall|precision"),
    ("summary_overlap", overlap_sets, "as often as it occurs"),
    ("summary_overlap", overlap_unclipped, "rewarded each time"),
    ("summary_overlap", overlap_words, "single words"),
    ("summary_overlap", overlap_divides, "ZeroDivisionError"),
    ("dpo_loss", lambda *a: -dpo_right(*a), "sign"),
    ("dpo_loss", lambda c, r, rc, rr, b: dpo_right(r, c, rr, rc, b), "changed places"),
    ("dpo_loss", lambda c, r, rc, rr, b: dpo_right(c, r, rc, rr, 1), "beta is missing"),
    ("dpo_loss", lambda c, r, rc, rr, b: dpo_right(c, r, rc, rr, 1 / b), "beta divides"),
    ("dpo_loss", lambda c, r, rc, rr, b: dpo_right(c, r, 0, 0, b), "reference is missing"),
    ("dpo_loss", lambda *a: dpo_right(*a) * len(a[0]), "sum over pairs"),
    ("dpo_loss", dpo_naive, "overflows"),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "answer"), [(n, a) for n, some in RIGHT.items() for a in some])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_are_told_why(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert re.search(words, result.message), result.message
