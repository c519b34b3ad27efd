"""Chapter 13's checks accept right answers in any form and reject plausible wrong ones."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from utils import checks
from utils.muon import newton_schulz
from utils.speedrun import trapezoid

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 13.1


def step_right(x, a, b, c):
    gram = x @ x.T
    return a * x + (b * gram + c * gram @ gram) @ x


def step_other_side(x, a, b, c):
    gram = x.T @ x
    return x @ (a * np.eye(len(gram)) + b * gram + c * gram @ gram)


def step_torch(x, a, b, c):
    return step_right(torch.tensor(x).float(), a, b, c)


def step_svd(x, a, b, c):
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return (u * (a * s + b * s**3 + c * s**5)) @ vt


def step_library(x, a, b, c):
    """The library divides by the length first, so it gets the step of another matrix."""
    return newton_schulz(torch.tensor(x), 1, (a, b, c)).numpy()


def step_wide_only(x, a, b, c):
    """As the library does, but forgets to turn the matrix back."""
    return step_right(x.T if x.shape[0] > x.shape[1] else x, a, b, c)


# 13.2


def branch_right(C, hidden, rng):
    return rng.normal(scale=C**-0.5, size=(C, hidden)), np.zeros((hidden, C))


def branch_torch(C, hidden, rng):
    w_in = torch.tensor(rng.uniform(-1, 1, size=(C, hidden))).float() * math.sqrt(3 / C)
    return w_in, torch.zeros(hidden, C)


def branch_list(C, hidden, rng):
    return [branch_right(C, hidden, rng)[0], [[0.0] * C for _ in range(hidden)]]


# 13.3


def trapezoid_min(step, warmup, cooldown, total):
    rise = (step + 1) / (warmup + 1)
    return min(1.0, rise, (total - step) / cooldown if cooldown else 1.0)


def trapezoid_torch(step, warmup, cooldown, total):
    return torch.tensor(trapezoid(step, warmup, cooldown, total))


def trapezoid_from_zero(step, warmup, cooldown, total):
    return step / warmup if step < warmup else trapezoid(step, warmup, cooldown, total)


def trapezoid_early(step, warmup, cooldown, total):
    return (step + 1) / warmup if step < warmup else trapezoid(step, warmup, cooldown, total)


def trapezoid_triangle(step, warmup, cooldown, total):
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (total - step) / (total - warmup)


def trapezoid_no_fall(step, warmup, cooldown, total):
    return trapezoid(step, warmup, 0, total)


def trapezoid_to_zero_early(step, warmup, cooldown, total):
    if step < total - cooldown:
        return trapezoid(step, warmup, cooldown, total)
    return (total - 1 - step) / cooldown


def trapezoid_cosine(step, warmup, cooldown, total):
    if step < total - cooldown:
        return trapezoid(step, warmup, cooldown, total)
    return (1 + math.cos(math.pi * (step - total + cooldown) / cooldown)) / 2


# 13.4


def speed_right(base_seconds, base_losses, seconds, losses):
    target = base_losses[-1]
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return 0.0
    i = below[0]
    if i == 0:
        return base_seconds[-1] / seconds[0]
    share = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
    return base_seconds[-1] / (seconds[i - 1] + share * (seconds[i] - seconds[i - 1]))


def speed_interp(base_seconds, base_losses, seconds, losses):
    """np.interp on the running minimum, in float32."""
    lowest = np.minimum.accumulate(losses)
    if lowest[-1] > base_losses[-1]:
        return 0
    end = int(np.argmax(lowest <= base_losses[-1])) + 1
    falling, times = losses[:end], seconds[:end]
    i = max(end - 2, 0)
    return np.float32(
        base_seconds[-1] / np.interp(-base_losses[-1], -falling[i:], times[i:].astype(float))
    )


def speed_first_point(base_seconds, base_losses, seconds, losses):
    below = np.flatnonzero(losses <= base_losses[-1])
    return base_seconds[-1] / seconds[below[0]] if len(below) else 0


def speed_naive_interp(base_seconds, base_losses, seconds, losses):
    if losses[-1] > base_losses[-1]:
        return 0
    return base_seconds[-1] / np.interp(base_losses[-1], losses[::-1], seconds[::-1])


# 13.5


def paired(before, after, *, ddof=1, quantile=0.975, freedom=-1, root=True, factor=None, sign=1):
    d = sign * (np.asarray(after) - np.asarray(before))
    n = len(d)
    factor = stats.t.ppf(quantile, n + freedom) if factor is None else factor
    return d.mean(), factor * d.std(ddof=ddof) / (math.sqrt(n) if root else 1)


def paired_scipy(before, after):
    interval = stats.ttest_rel(after, before).confidence_interval(0.95)
    return (interval.low + interval.high) / 2, (interval.high - interval.low) / 2


def paired_loops(before, after):
    d = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(d) / len(d)
    variance = sum((x - mean) ** 2 for x in d) / (len(d) - 1)
    return [mean, float(stats.t.ppf(0.975, len(d) - 1)) * math.sqrt(variance / len(d))]


def unpaired(before, after):
    n = len(before)
    error = math.sqrt(np.var(before, ddof=1) / n + np.var(after, ddof=1) / n)
    return np.mean(after) - np.mean(before), stats.t.ppf(0.975, 2 * n - 2) * error


RIGHT = {
    "newton_schulz_step": [step_right, step_other_side, step_torch, step_svd],
    "zero_init_branch": [branch_right, branch_torch, branch_list],
    "trapezoid_factor": [trapezoid, trapezoid_min, trapezoid_torch],
    "speed_up": [speed_right, speed_interp],
    "paired_difference": [paired, paired_scipy, paired_loops],
}

WRONG = {
    "newton_schulz_step": [
        (lambda x, a, b, c: a * x + b * x**3 + c * x**5, "matrix products"),
        (lambda x, a, b, c: step_right(x, a, b, 0), "fifth order is missing"),
        (lambda x, a, b, c: step_right(x, a, 0, c), "cubic term is missing"),
        (lambda x, a, b, c: a * x + (b * x @ x.T + c * (x @ x.T) ** 2) @ x, "multiply the matrix"),
        (lambda x, a, b, c: step_right(step_right(x, a, b, c), a, b, c), "two steps"),
        (lambda x, a, b, c: step_right(x, a, b + c, 0), "once too few"),
        (step_library, "divide by the length"),
        (step_wide_only, "transpose back"),
        (lambda x, a, b, c: step_right(x, a, b, c) + 1, "singular values should become"),
        (lambda x, a, b, c: None, "None"),
    ],
    "zero_init_branch": [
        (lambda C, n, rng: (np.zeros((C, n)), np.zeros((n, C))), "stays it"),
        (lambda C, n, rng: (np.zeros((C, n)), rng.normal(size=(n, C))), "stays it"),
        (lambda C, n, rng: (rng.normal(size=(C, n)), 1e-3 * rng.normal(size=(n, C))), "identity"),
        (lambda C, n, rng: (branch_right(C, n, rng)[0].T, np.zeros((C, n))), "transposed"),
        (lambda C, n, rng: (rng.normal(size=(C, n)), np.zeros((n, C))), "standard deviation"),
        (lambda C, n, rng: branch_right(C, n, rng)[0], "two matrices"),
        (lambda C, n, rng: branch_right(C, n, np.random.default_rng(0)), "from rng"),
    ],
    "trapezoid_factor": [
        (trapezoid_from_zero, "first factor is 0"),
        (trapezoid_early, "one step too early"),
        (trapezoid_triangle, "1 all the time"),
        (trapezoid_no_fall, "does not fall"),
        (trapezoid_to_zero_early, "the last update"),
        (trapezoid_cosine, "not a straight line"),
        (lambda *a: 2 * trapezoid(*a), "rise"),
        (lambda *a: None, "None"),
    ],
    "speed_up": [
        (lambda *a: 1 / speed_right(*a) if speed_right(*a) else 0, "inverse"),
        (lambda *a: a[0][-1] / a[2][-1], "took in all"),
        (speed_first_point, "crosses the target earlier"),
        (speed_naive_interp, "first one counts"),
        (lambda *a: max(speed_right(*a), 0.1), "never reaches"),
        (lambda *a: a[0][-1] - a[0][-1] / max(speed_right(*a), 1e-9), "a factor is asked for"),
        (lambda *a: speed_right(*a) + 1, "does not fit"),
    ],
    "paired_difference": [
        (unpaired, "independent groups"),
        (lambda a, b: paired(a, b, factor=1.96), "1.96"),
        (lambda a, b: paired(a, b, ddof=0), "n - 1 matters"),
        (lambda a, b: paired(a, b, root=False), "not divided by √n"),
        (lambda a, b: paired(a, b, sign=-1), "wrong sign"),
        (lambda a, b: paired(a, b, quantile=0.95), "0.975"),
        (lambda a, b: paired(a, b, freedom=0), "not n"),
        (lambda a, b: paired(a, b, factor=1.0), "standard error"),
        (lambda a, b: paired(a, b)[0], "two numbers"),
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
    assert set(checks.names(13)) == set(RIGHT) == set(WRONG)
