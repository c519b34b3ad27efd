"""Checks for chapter 18: bits per byte, macro F1, calibration, resampled groups, exposure."""

from __future__ import annotations

import math

import numpy as np

from utils.checks.engine import Student, as_number, check, close, reject_known, wrong

TEXTS = (
    "To be, or not to be",
    "Das Café schließt um fünf",
    "语言模型预测下一个词",
    "naïve, they said: 42 €",
)


def _reject(got: float, candidates: dict[str, float]) -> None:
    reject_known(
        np.asarray(got),
        {words: np.asarray(value) for words, value in candidates.items() if np.isfinite(value)},
    )


@check()
def bits_per_byte(student: Student, rng: np.random.Generator) -> None:
    """Exercise 18.1: total bits of a text over its length in UTF-8 bytes."""
    for text in TEXTS:
        nats, tokens = float(rng.uniform(1.0, 4.0)), int(rng.integers(3, 9))
        got = as_number(student(nats, tokens, text), "number of bits")
        size = len(text.encode())
        right = nats * tokens / math.log(2) / size
        if close(got, right):
            continue
        _reject(
            got,
            {
                "these are nats; a bit is log 2 of a nat": nats * tokens / size,
                "this is per character; an é or a 词 takes several bytes in UTF-8": (
                    nats * tokens / math.log(2) / len(text)
                ),
                "the loss is per token: the whole text costs it times the number of tokens": (
                    nats / math.log(2) / size
                ),
                "you multiplied by log 2; a nat is more than a bit": (
                    nats * tokens * math.log(2) / size
                ),
                "this is per token; divide by the text's bytes": nats / math.log(2),
                "this is the text's total; divide by its bytes": nats * tokens / math.log(2),
            },
        )
        wrong(
            f"for {nats:.2f} nats per token, {tokens} tokens and {text!r} your result is off by a "
            f"factor of {got / right:.3f}: total nats first, then bits, then per byte"
        )


def _f1(labels: np.ndarray, guesses: np.ndarray, name: int) -> float:
    hits = int(((labels == name) & (guesses == name)).sum())
    size = int((labels == name).sum() + (guesses == name).sum())
    return 2 * hits / size if size else 0.0


@check()
def macro_f1(student: Student, rng: np.random.Generator) -> None:
    """Exercise 18.2: the plain mean of the classes' F1, 0 for a class that nobody names."""
    for num_classes, size, never in ((3, 40, None), (2, 30, None), (4, 50, 3), (5, 60, 0)):
        labels = rng.choice(num_classes, size=size, p=_skewed(num_classes))
        guesses = np.where(rng.random(size) < 0.6, labels, rng.integers(num_classes, size=size))
        labels[:6], guesses[:6] = 0, 1  # so that classes are not guessed as often as they occur
        if never is not None:  # neither a label nor a guess
            labels[labels == never] = guesses[guesses == never] = 1
        given = labels.tolist(), guesses.tolist(), num_classes
        answer = student(*given)
        each = np.array([_f1(labels, guesses, k) for k in range(num_classes)])
        share = np.bincount(labels, minlength=num_classes) / size
        hits = np.array([((labels == k) & (guesses == k)).sum() for k in range(num_classes)])
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.nan_to_num(hits / np.bincount(guesses, minlength=num_classes))
            recall = np.nan_to_num(hits / np.bincount(labels, minlength=num_classes))
        if answer is not None and np.size(answer) == num_classes:
            wrong("your function returns one number for each class; macro F1 is their mean")
        if never is not None and isinstance(answer, float | np.floating) and math.isnan(answer):
            wrong(
                f"class {never} is neither a label nor a guess, so that its F1 is 0 / 0; here "
                "that counts as 0"
            )
        got = as_number(answer, "macro F1")
        right = each.mean()
        if close(got, right):
            continue
        mean_p, mean_r = precision.mean(), recall.mean()
        _reject(
            got,
            {
                "this is the F1 of class 1 alone": float(each[1]),
                "this is accuracy, which is also what micro-averaging gives here": float(
                    (labels == guesses).mean()
                ),
                "you weighted each class by how often it occurs; macro gives all the same": float(
                    (share * each).sum()
                ),
                "this is the harmonic mean of the mean precision and the mean recall; take each "
                "class's F1 first": float(2 * mean_p * mean_r / (mean_p + mean_r)),
                "this is the mean precision": float(mean_p),
                "this is the mean recall": float(mean_r),
                "a class that is neither a label nor a guess counts as well, with 0": float(
                    each.sum() / max((each > 0).sum(), 1)
                ),
                "you take precision and recall's plain mean; F1 is the harmonic one": float(
                    ((precision + recall) / 2).mean()
                ),
            },
        )
        wrong(
            f"with {num_classes} classes yours is {got:.4f}, which is {got - right:+.4f} off: for "
            "each class, twice the hits over labels and guesses of that class together"
        )


def _skewed(num_classes: int) -> np.ndarray:
    weights = 2.0 ** -np.arange(num_classes)
    return weights / weights.sum()


@check()
def calibration_error(student: Student, rng: np.random.Generator) -> None:
    """Exercise 18.3: the mean gap between confidence and accuracy, weighted by the bins' sizes."""
    for bins, size in ((10, 300), (5, 80), (15, 40), (1, 20)):
        confidence = rng.uniform(0.3, 1.0, size=size).round(3) ** 1.5
        correct = (rng.random(size) < confidence**2).astype(int)
        got = as_number(student(confidence, correct, bins), "calibration error")
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        used = np.unique(place)
        gaps = np.array([correct[place == k].mean() - confidence[place == k].mean() for k in used])
        share = np.array([(place == k).mean() for k in used])
        right = float((share * np.abs(gaps)).sum())
        if close(got, right):
            continue
        middles = (used + 0.5) / bins
        accuracy = np.array([correct[place == k].mean() for k in used])
        if bins > 1:
            _reject(
                got,
                {
                    "gaps of opposite signs cancel in your sum: take absolute values": float(
                        (share * gaps).sum()
                    ),
                    "gaps of opposite signs cancel in your sum: take absolute values, and "
                    "weigh": float(gaps.mean()),
                    "each bin counts the same in yours; weigh it with its share of the answers": (
                        float(np.abs(gaps).mean())
                    ),
                    "you divide by the number of bins, the empty ones included; weigh each bin "
                    "with its share of the answers": float(np.abs(gaps).sum() / bins),
                    "this is the largest gap; asked for is the weighted mean": float(
                        np.abs(gaps).max()
                    ),
                    "you compare accuracy with the middle of the bin; take the mean confidence "
                    "of the answers in it": float((share * np.abs(accuracy - middles)).sum()),
                    "the gaps enter squared; take absolute values": float((share * gaps**2).sum()),
                },
            )
        _reject(
            got,
            {
                "this is the mean distance of each single answer; bin them first": float(
                    np.abs(correct - confidence).mean()
                )
            },
        )
        wrong(
            f"with {bins} bins yours is {got:.4f}, which is {got - right:+.4f} off: bin k holds "
            "confidences in (k / bins, (k + 1) / bins]"
        )


@check()
def mean_of_drawn_groups(student: Student, rng: np.random.Generator) -> None:
    """Exercise 18.4: the mean over all examples of the drawn groups, repeated ones repeated."""
    for num_groups, size in ((4, 20), (7, 60), (3, 12)):
        groups = np.concatenate(
            [
                np.arange(num_groups),
                rng.choice(num_groups, size - num_groups, p=_skewed(num_groups)),
            ]
        )
        values = rng.normal(size=size).round(3) + groups
        drawn = rng.integers(num_groups, size=num_groups)
        drawn[-1] = drawn[0]  # one comes twice
        got = as_number(student(values, groups, drawn), "mean")
        rows = [values[groups == g] for g in drawn]
        right = float(np.concatenate(rows).mean())
        if close(got, right):
            continue
        _reject(
            got,
            {
                "a group that is drawn twice counts twice": float(
                    values[np.isin(groups, drawn)].mean()
                ),
                "this is the mean of the groups' means; a group with many examples weighs more": (
                    float(np.mean([row.mean() for row in rows]))
                ),
                "this is the mean of all values; which groups were drawn?": float(values.mean()),
                "you took the examples with these numbers; `drawn` holds numbers of groups": float(
                    values[drawn].mean()
                ),
                "this is the sum over the drawn groups, divided by all examples": float(
                    sum(row.sum() for row in rows) / size
                ),
            },
        )
        wrong("not the mean over all examples of the drawn groups, each as often as it was drawn")


@check()
def exposure_bits(student: Student, rng: np.random.Generator) -> None:
    """Exercise 18.5: log2 of the number of secrets over the planted one's rank."""
    cases = [(9, 63), (0, 15), (15, 15), *(tuple(sorted(rng.integers(5, 90, 2))) for _ in range(3))]
    for lower, count in cases:
        others = rng.permutation(np.r_[rng.uniform(1, 4, lower), rng.uniform(6, 9, count - lower)])
        secret = 5.0
        got = as_number(student(secret, others), "exposure")
        rank = lower + 1
        right = math.log2((count + 1) / rank)
        if close(got, right):
            continue
        _reject(
            got,
            {
                "these are nats; exposure is in bits, with the logarithm to base 2": math.log(
                    (count + 1) / rank
                ),
                "there is one secret more than there are others: the planted one": math.log2(
                    count / rank
                ),
                "the likeliest has rank 1, and not 0": math.log2((count + 1) / max(lower, 1)),
                "your rank counts from the least likely: the secret with the lowest loss has "
                "rank 1": math.log2((count + 1) / (count - lower + 1)),
                "this is the rank's logarithm alone": math.log2(rank),
                "the sign is turned round: a secret that stands out has a large exposure": (-right),
                "this is the rank itself": float(rank),
            },
        )
        wrong(
            f"with {lower} of {count} others likelier yours is off by {got - right:+.3f} bits: "
            "log2 of the number of secrets, less log2 of the rank"
        )
