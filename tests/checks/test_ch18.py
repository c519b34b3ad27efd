"""Chapter 18's checks accept right answers in any form and reject plausible wrong ones."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from utils import checks
from utils.calibration import expected_calibration_error
from utils.privacy import exposure

# 18.1


def bits_right(nats_per_token, num_tokens, text):
    return nats_per_token * num_tokens / math.log(2) / len(text.encode("utf-8"))


def bits_torch(nats_per_token, num_tokens, text):
    total = torch.tensor([nats_per_token]).repeat(num_tokens).sum()
    return total / torch.tensor(2.0).log() / sum(1 for _ in bytes(text, "utf-8"))


# 18.2


def f1_library(labels, guesses, num_classes):
    return f1_score(labels, guesses, labels=range(num_classes), average="macro", zero_division=0)


def f1_loop(labels, guesses, num_classes):
    total = 0
    for k in range(num_classes):
        hits = sum(a == b == k for a, b in zip(labels, guesses, strict=True))
        size = Counter(labels)[k] + Counter(guesses)[k]
        total += 2 * hits / size if size else 0
    return np.float32(total / num_classes)


def f1_average(kind):
    def answer(labels, guesses, num_classes):
        return f1_score(labels, guesses, labels=range(num_classes), average=kind, zero_division=0)

    return answer


def f1_of_means(labels, guesses, num_classes):
    options = {"labels": range(num_classes), "average": "macro", "zero_division": 0}
    p, r = (f(labels, guesses, **options) for f in (precision_score, recall_score))
    return 2 * p * r / (p + r)


def f1_present_only(labels, guesses, num_classes):
    return f1_score(labels, guesses, average="macro", zero_division=0)


def f1_division(labels, guesses, num_classes):
    labels, guesses = np.array(labels), np.array(guesses)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = [
            2
            * np.float64(((labels == k) & (guesses == k)).sum())
            / ((labels == k).sum() + (guesses == k).sum())
            for k in range(num_classes)
        ]
    return np.mean(each)


# 18.3


def ece_loop(confidence, correct, bins):
    total = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def ece_torch(confidence, correct, bins):
    confidence, correct = torch.tensor(confidence), torch.tensor(correct).double()
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1])
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, correct - confidence)
    return gaps.abs().sum() / len(confidence)


def ece_with(combine):
    def answer(confidence, correct, bins):
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        used = np.unique(place)
        gaps = np.array([correct[place == k].mean() - confidence[place == k].mean() for k in used])
        return combine(gaps, np.array([(place == k).mean() for k in used]), bins)

    return answer


def ece_middles(confidence, correct, bins):
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return sum(
        (place == k).mean() * abs(correct[place == k].mean() - (k + 0.5) / bins)
        for k in np.unique(place)
    )


# 18.4


def drawn_right(values, groups, drawn):
    return np.concatenate([values[groups == g] for g in drawn]).mean()


def drawn_weights(values, groups, drawn):
    times = np.array([Counter(drawn.tolist())[g] for g in groups.tolist()])
    return (times * values).sum() / times.sum()


# 18.5


def exposure_right(secret_loss, other_losses):
    losses = np.sort(np.append(other_losses, secret_loss))
    return math.log2(len(losses)) - math.log2(1 + np.searchsorted(losses, secret_loss))


def exposure_torch(secret_loss, other_losses):
    others = torch.tensor(other_losses)
    return torch.log2(torch.tensor(len(others) + 1.0) / (1 + (others < secret_loss).sum()))


RIGHT = [
    ("bits_per_byte", bits_right),
    ("bits_per_byte", bits_torch),
    ("macro_f1", f1_library),
    ("macro_f1", f1_loop),
    ("calibration_error", expected_calibration_error),
    ("calibration_error", ece_loop),
    ("calibration_error", ece_torch),
    ("mean_of_drawn_groups", drawn_right),
    ("mean_of_drawn_groups", drawn_weights),
    ("exposure_bits", exposure),
    ("exposure_bits", exposure_right),
    ("exposure_bits", exposure_torch),
]

WRONG = [
    ("bits_per_byte", lambda n, t, x: n * t / len(x.encode()), "these are nats"),
    ("bits_per_byte", lambda n, t, x: n * t / math.log(2) / len(x), "several bytes"),
    ("bits_per_byte", lambda n, t, x: n / math.log(2) / len(x.encode()), "loss is per token"),
    ("bits_per_byte", lambda n, t, x: n * t * math.log(2) / len(x.encode()), "a nat is more"),
    ("bits_per_byte", lambda n, t, x: n / math.log(2), "this is per token"),
    ("bits_per_byte", lambda n, t, x: n * t / math.log(2), "the text's total"),
    ("bits_per_byte", lambda n, t, x: 2**n, "off by a factor"),
    ("bits_per_byte", lambda n, t, x: None, "returned None"),
    ("macro_f1", lambda a, b, k: accuracy_score(a, b), "this is accuracy"),
    ("macro_f1", f1_average("micro"), "this is accuracy"),
    ("macro_f1", f1_average("weighted"), "how often it occurs"),
    ("macro_f1", f1_of_means, "each class's F1 first"),
    ("macro_f1", f1_average(None), "one number for each class"),
    ("macro_f1", f1_present_only, "counts as well, with 0"),
    ("macro_f1", f1_division, "0 / 0"),
    ("macro_f1", lambda a, b, k: f1_average(None)(a, b, k)[1], "class 1 alone"),
    ("macro_f1", lambda a, b, k: 0.0123, "off: for each class"),
    ("calibration_error", ece_with(lambda g, w, b: (w * g).sum()), "cancel"),
    ("calibration_error", ece_with(lambda g, w, b: np.abs(g).mean()), "each bin counts the same"),
    ("calibration_error", ece_with(lambda g, w, b: np.abs(g).sum() / b), "empty ones included"),
    ("calibration_error", ece_with(lambda g, w, b: np.abs(g).max()), "largest gap"),
    ("calibration_error", ece_with(lambda g, w, b: (w * g**2).sum()), "squared"),
    ("calibration_error", ece_middles, "middle of the bin"),
    ("calibration_error", lambda c, r, b: np.abs(c - r).mean(), "bin them first"),
    ("calibration_error", lambda c, r, b: 2.0, "off: bin k holds"),
    ("mean_of_drawn_groups", lambda v, g, d: v[np.isin(g, d)].mean(), "counts twice"),
    (
        "mean_of_drawn_groups",
        lambda v, g, d: np.mean([v[g == each].mean() for each in d]),
        "mean of the groups' means",
    ),
    ("mean_of_drawn_groups", lambda v, g, d: v.mean(), "which groups were drawn"),
    ("mean_of_drawn_groups", lambda v, g, d: v[d].mean(), "numbers of groups"),
    (
        "mean_of_drawn_groups",
        lambda v, g, d: sum(v[g == each].sum() for each in d) / len(v),
        "divided by all examples",
    ),
    ("mean_of_drawn_groups", lambda v, g, d: 0, "not the mean over all examples"),
    ("exposure_bits", lambda s, o: math.log((len(o) + 1) / (1 + (o < s).sum())), "nats"),
    ("exposure_bits", lambda s, o: math.log2(len(o) / (1 + (o < s).sum())), "one secret more"),
    (
        "exposure_bits",
        lambda s, o: math.log2((len(o) + 1) / max((o < s).sum(), 1)),
        "and not 0",
    ),
    (
        "exposure_bits",
        lambda s, o: math.log2((len(o) + 1) / (1 + (o > s).sum())),
        "counts from the least likely",
    ),
    ("exposure_bits", lambda s, o: math.log2(1 + (o < s).sum()), "logarithm alone"),
    ("exposure_bits", lambda s, o: -exposure(s, o), "turned round"),
    ("exposure_bits", lambda s, o: float(1 + (o < s).sum()), "the rank itself"),
    ("exposure_bits", lambda s, o: 2.5, "off by"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
@pytest.mark.parametrize("seed", range(3))
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result.message


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_are_told_what_is_wrong(name, answer, words):
    for seed in range(3):
        result = getattr(checks, name)(answer, seed=seed)
        assert result.status == "failed"
        assert words in result.message, result.message


@pytest.mark.parametrize("name", sorted({name for name, _ in RIGHT}))
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args):
        raise NotImplementedError("Hint: ...")

    assert getattr(checks, name)(stub).status == "not attempted"
