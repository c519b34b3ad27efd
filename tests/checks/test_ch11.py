"""Chapter 11's checks accept right answers in any form and reject plausible wrong ones."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import checks
from utils.beam import length_penalty
from utils.seq2seq import Seq2SeqConfig, collate_pairs, label_smoothed_loss
from utils.tokenizers import pad_batch

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 11.1


def forcing(targets, start, stop, pad, *, front=True, end=True, label_pad=-100, input_pad=None):
    inputs = [[start, *t] if front else [*t, stop] for t in targets]
    labels = [[*t, stop] if end else list(t) for t in targets]
    width = max(map(len, inputs))
    input_pad = pad if input_pad is None else input_pad
    inputs = [row + [input_pad] * (width - len(row)) for row in inputs]
    return inputs, [row + [label_pad] * (width - len(row)) for row in labels]


def forcing_numpy(targets, start, stop, pad):
    inputs, _ = pad_batch([[start, *t] for t in targets], pad)
    labels, _ = pad_batch([[*t, stop] for t in targets], -100)
    return inputs, labels


def forcing_library(targets, start, stop, pad):
    config = Seq2SeqConfig(100, d_model=4, pad_id=pad, start_id=start, stop_id=stop)
    return collate_pairs([([9], t) for t in targets], config)[1:]


def forcing_same(targets, start, stop, pad):
    return (forcing(targets, start, stop, pad)[0],) * 2


def forcing_wide(targets, start, stop, pad):
    inputs, _ = pad_batch([[start, *t, stop] for t in targets], pad)
    return inputs, inputs


def forcing_narrow(targets, start, stop, pad):
    inputs, labels = forcing_numpy(targets, start, stop, pad)
    return inputs[:, :-1], labels[:, :-1]


# 11.2


def mask_right(source, length, pad):
    return np.repeat((source != pad)[:, None, :], length, axis=1)


def mask_torch(source, length, pad):
    return (torch.as_tensor(source) != pad)[:, None, :].expand(-1, length, -1)


def mask_loop(source, length, pad):
    return [[[bool(token != pad) for token in row] for _ in range(length)] for row in source]


def mask_causal(source, length, pad):
    return mask_right(source, length, pad) & np.tri(length, source.shape[1], dtype=bool)


# 11.3


def smooth(logits, targets, smoothing, *, others=None, right=None, reduce="mean", skip=True):
    logits, V = np.asarray(logits), np.shape(logits)[1]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = np.full(log_p.shape, smoothing / V if others is None else others(smoothing, V))
    rows = np.arange(len(targets))
    keep = targets != -100
    share = 1 - smoothing + smoothing / V if right is None else right(smoothing, V)
    q[rows, np.where(keep, targets, -1)] = share
    losses = -(q * log_p).sum(axis=1)
    losses = losses[keep] if skip else losses
    return {"mean": np.mean, "sum": np.sum}[reduce](losses)


def smooth_torch(logits, targets, smoothing):
    return F.cross_entropy(
        torch.as_tensor(logits), torch.as_tensor(targets), label_smoothing=smoothing
    )


def smooth_library(logits, targets, smoothing):
    return label_smoothed_loss(
        torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(targets), smoothing
    )


def smooth_divided_by_all(logits, targets, smoothing):
    return smooth(logits, targets, smoothing, reduce="sum") / len(targets)


# 11.4


def step_right(scores, log_probs, size):
    totals = scores[:, None] + log_probs
    order = np.argsort(-totals, axis=None)[:size]
    parents, tokens = np.unravel_index(order, totals.shape)
    return parents, tokens, totals[parents, tokens]


def step_torch(scores, log_probs, size):
    totals = torch.as_tensor(scores)[:, None] + torch.as_tensor(log_probs)
    values, places = totals.flatten().topk(size)
    return places // totals.shape[1], places % totals.shape[1], values


def step_lists(scores, log_probs, size):
    pairs = [
        (scores[k] + log_probs[k][t], k, t)
        for k in range(len(scores))
        for t in range(len(log_probs[k]))
    ]
    best = sorted(pairs, reverse=True)[:size]
    return [k for _, k, _ in best], [t for _, _, t in best], [s for s, _, _ in best]


def step_swapped(scores, log_probs, size):
    parents, tokens, totals = step_right(scores, log_probs, size)
    return tokens, parents, totals


def step_own(scores, log_probs, size):
    parents, tokens, _ = step_right(scores, log_probs, size)
    return parents, tokens, log_probs[parents, tokens]


def step_worst(scores, log_probs, size):
    parents, tokens, totals = step_right(-scores, -log_probs, size)
    return parents, tokens, -totals


def step_blind(scores, log_probs, size):
    return step_right(0 * scores, log_probs, size)


def step_half_blind(scores, log_probs, size):
    parents, tokens, _ = step_right(0 * scores, log_probs, size)
    return parents, tokens, scores[parents] + log_probs[parents, tokens]


def step_one_each(scores, log_probs, size):
    tokens = log_probs.argmax(axis=1)
    totals = scores + log_probs.max(axis=1)
    order = np.resize(np.argsort(-totals), size)
    return order, tokens[order], totals[order]


def step_unsorted(scores, log_probs, size):
    return tuple(part[::-1].copy() for part in step_right(scores, log_probs, size))


def step_flat(scores, log_probs, size):
    parents, tokens, totals = step_right(scores, log_probs, size)
    return parents, parents * log_probs.shape[1] + tokens + log_probs.size, totals


# 11.5


def score_right(log_probs, alpha):
    return log_probs.sum() / ((5 + len(log_probs)) / 6) ** alpha


def score_loop(log_probs, alpha):
    total = 0.0
    for value in log_probs:
        total += float(value)
    return np.float32(total / length_penalty(len(log_probs), alpha))


# 11.6


def grams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def precision_right(hypothesis, reference, n):
    ours, theirs = Counter(grams(hypothesis, n)), Counter(grams(reference, n))
    return sum((ours & theirs).values()) / max(sum(ours.values()), 1)


def precision_loop(hypothesis, reference, n):
    left, matched, ours = grams(reference, n), 0, grams(hypothesis, n)
    for gram in ours:
        if gram in left:
            left.remove(gram)
            matched += 1
    return matched / len(ours) if ours else 0


def precision_unclipped(hypothesis, reference, n):
    ours = grams(hypothesis, n)
    return sum(g in grams(reference, n) for g in ours) / max(len(ours), 1)


def precision_over(count):
    def answer(hypothesis, reference, n):
        ours, theirs = Counter(grams(hypothesis, n)), Counter(grams(reference, n))
        return sum((ours & theirs).values()) / max(count(hypothesis, reference, n), 1)

    return answer


def precision_types(hypothesis, reference, n):
    ours, theirs = set(grams(hypothesis, n)), set(grams(reference, n))
    return len(ours & theirs) / max(len(ours), 1)


RIGHT = {
    "teacher_forcing": [forcing, forcing_numpy, forcing_library],
    "memory_mask": [mask_right, mask_torch, mask_loop],
    "smoothed_loss": [smooth, smooth_torch, smooth_library],
    "beam_step": [step_right, step_torch, step_lists],
    "sequence_score": [score_right, score_loop, lambda p, a: torch.tensor(score_right(p, a))],
    "clipped_precision": [precision_right, precision_loop],
}

WRONG = {
    "teacher_forcing": [
        (lambda *a: forcing(*a, front=False), "targets themselves"),
        (lambda *a: forcing(*a, label_pad=a[3]), "predicting padding"),
        (lambda *a: forcing(*a, label_pad=a[2]), "one stop is to be learned"),
        (lambda *a: forcing(*a, end=False), "never learn to end"),
        (lambda *a: forcing(*a, input_pad=-100), "that is no token"),
        (lambda t, start, stop, pad: forcing(t, stop, start, pad), "changed places"),
        (forcing_same, "move them by one place"),
        (forcing_wide, "one too many"),
        (forcing_narrow, "one too few"),
        (lambda *a: forcing(*a)[0], "should return 2 things"),
        (lambda *a: None, "None"),
    ],
    "memory_mask": [
        (lambda s, n, pad: ~mask_right(s, n, pad), "may attend"),
        (lambda s, n, pad: s != pad, "axis for the"),
        (lambda s, n, pad: mask_right(s, n, pad).swapaxes(1, 2), "queries and keys"),
        (lambda s, n, pad: mask_right(s, n, pad).astype(int), "should be boolean"),
        (mask_causal, "whole source is known"),
        (lambda s, n, pad: np.ones((len(s), n, s.shape[1]), bool), "padding should be"),
    ],
    "smoothed_loss": [
        (
            lambda z, y, e: smooth(
                z, y, e, others=lambda e, V: e / (V - 1), right=lambda e, V: 1 - e
            ),
            "wrong classes only",
        ),
        (lambda z, y, e: smooth(z, y, e, right=lambda e, V: 1 - e), "does not sum to 1"),
        (lambda z, y, e: -smooth(z, y, e), "sign"),
        (lambda z, y, e: smooth(z, y, e, reduce="sum"), "not their mean"),
        (lambda z, y, e: smooth(z, y, e, skip=False), "take part"),
        (lambda z, y, e: smooth(z, y, 0), "ordinary cross-entropy"),
        (lambda z, y, e: smooth(z, y, 1 - e), "changed places"),
        (smooth_divided_by_all, "divide by all N"),
        (
            lambda z, y, e: smooth(z, y, e, others=lambda e, V: e, right=lambda e, V: 1.0),
            "take the mean",
        ),
    ],
    "beam_step": [
        (step_swapped, "changed places"),
        (step_own, "of the whole sequence"),
        (step_worst, "worst continuations"),
        (step_blind, "ignore the scores"),
        (step_half_blind, "ignore the scores"),
        (step_one_each, "compete"),
        (step_unsorted, "the best first"),
        (step_flat, "with remainder"),
        (lambda *a: step_right(*a)[2], "should return 3 things"),
    ],
    "sequence_score": [
        (lambda p, a: p.mean(), "length alone"),
        (lambda p, a: p.sum() / len(p) ** a, "T ** alpha"),
        (lambda p, a: p.sum() * length_penalty(len(p), a), "multiply"),
        (lambda p, a: p.sum() - length_penalty(len(p), a), "subtract"),
        (lambda p, a: p.sum(), "not normalised"),
        (lambda p, a: -score_right(p, a), "sign"),
        (lambda p, a: p.mean() / length_penalty(len(p), a), "their mean"),
        (lambda p, a: p.prod() / length_penalty(len(p), a), "product"),
        (lambda p, a: p.sum() / ((5 + len(p)) ** a / 6), "inside of the power"),
    ],
    "clipped_precision": [
        (precision_unclipped, "pays for one"),
        (precision_over(lambda h, r, n: len(r) - n + 1), "recall"),
        (precision_over(lambda h, r, n: len(h)), "number of tokens"),
        (precision_types, "different"),
        (precision_over(lambda h, r, n: 1), "number of matches"),
        (lambda h, r, n: 100 * precision_right(h, r, n), "percentage"),
        (lambda h, r, n: precision_right(h, r, n) if len(h) >= n else 1.0, "is 0"),
        (lambda h, r, n: 0.5, "your precision is 0.500"),
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
    assert set(checks.names(11)) == set(RIGHT) == set(WRONG)


def test_the_precision_is_that_of_sacrebleu():
    from sacrebleu.metrics import BLEU

    rng = np.random.default_rng(0)
    for _ in range(5):
        hypothesis, reference = (rng.choice(list("abcd"), size=12).tolist() for _ in range(2))
        score = BLEU(tokenize="none", smooth_method="none").corpus_score(
            [" ".join(hypothesis)], [[" ".join(reference)]]
        )
        for n in (1, 2):
            expected = 100 * precision_right(hypothesis, reference, n)
            assert score.precisions[n - 1] == pytest.approx(expected)
