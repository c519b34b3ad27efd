"""Chapter 19's checks accept right answers in any form and reject plausible wrong ones."""

import re

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit, minimize_scalar

from utils import checks, costs, quantise, scaling

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 19.1


def int8(weights, *, top=127.0, rounding=np.round, axis=1, absolute=True, safe=True):
    largest = (np.abs(weights) if absolute else weights).max(axis=axis, keepdims=True)
    scales = np.where(largest == 0, 1.0, largest) / top if safe else largest / top
    codes = rounding(weights / scales)
    return codes.astype(np.int8) if safe and absolute else codes, scales.ravel()


def int8_torch(weights):
    result = quantise.quantise(torch.tensor(weights, dtype=torch.float32))
    return result.codes, result.scales


def int8_loop(weights):
    codes, scales = [], []
    for row in weights.tolist():
        scale = max(abs(w) for w in row) / 127 or 1.0
        scales.append(scale)
        codes.append([round(w / scale) for w in row])
    return codes, scales


# 19.2


def memory(N, stage, n, parts=(2, 2, 12)):
    weights, gradients, optimiser = (each * N for each in parts)
    if stage >= 1:
        optimiser /= n
    if stage >= 2:
        gradients /= n
    if stage >= 3:
        weights /= n
    return weights + gradients + optimiser


def memory_library(N, stage, n):
    return sum(costs.training_state_bytes(N, "mixed", stage, n).values())


# 19.3


def ring(chunks, step, *, to=1, add=True, sign=-1, late=0, own=False, same=False, empty=False):
    n, result = len(chunks), np.array(chunks)
    for r in range(n):
        c = (r if own else step if same else r + sign * step - late) % n
        target = (r + to) % n
        result[target, c] = chunks[r, c] + (chunks[target, c] if add else 0)
        if empty:
            result[r, c] = 0
    return result


def ring_vectorised(chunks, step):
    n = len(chunks)
    result, ranks = chunks.copy(), np.arange(n)
    which = (ranks - step) % n
    result[(ranks + 1) % n, which] += chunks[ranks, which]
    return result


def ring_torch(chunks, step):
    return torch.tensor(ring(chunks, step)).float()


# 19.4


def combine(gradients, counts):
    some = counts > 0
    return counts[some] @ gradients[some] / counts.sum()


def combine_torch(gradients, counts):
    sums = torch.tensor(gradients).float() * torch.tensor(counts)[:, None]
    return sums.nan_to_num().sum(dim=0) / counts.sum()


def combine_loop(gradients, counts):
    total = [0.0] * len(gradients[0])
    for gradient, count in zip(gradients.tolist(), counts.tolist(), strict=True):
        if count:
            total = [t + count * g for t, g in zip(total, gradient, strict=True)]
    return [t / sum(counts.tolist()) for t in total]


# 19.5


def floor_grid(sizes, losses):
    best = None
    low, high = 0.0, losses.min()
    for _ in range(4):
        for floor in np.linspace(low, high, 200, endpoint=False):
            slope, level = np.polyfit(np.log(sizes), np.log(losses - floor), 1)
            error = np.sum((floor + np.exp(level) * sizes**slope - losses) ** 2)
            if best is None or error < best[0]:
                best = error, floor, np.exp(level), -slope
        width = (high - low) / 100
        low, high = max(best[1] - width, 0), min(best[1] + width, losses.min())
    return best[1:]


def floor_scipy(sizes, losses):
    def law(x, floor, level, exponent):
        return floor + np.exp(level - exponent * x)

    (floor, level, exponent), _ = curve_fit(law, np.log(sizes), losses, p0=(1, 2, 0.3))
    return floor, np.exp(level), exponent


def no_floor(sizes, losses):
    slope, level = np.polyfit(np.log(sizes), np.log(losses), 1)
    return 0.0, np.exp(level), -slope


def coarse(sizes, losses):
    floor = np.floor(10 * losses.min()) / 10 - 0.2
    slope, level = np.polyfit(np.log(sizes), np.log(losses - floor), 1)
    return floor, np.exp(level), -slope


# 19.6


def optimal(C, A, B, alpha, beta):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = G * (C / 6) ** (beta / (alpha + beta))
    return N, C / (6 * N)


def optimal_search(C, A, B, alpha, beta):
    def loss(x):
        N = np.exp(x)
        return A * N**-alpha + B * (C / 6 / N) ** -beta

    x = minimize_scalar(loss, bounds=(0, np.log(C)), method="bounded", options={"xatol": 1e-8}).x
    return np.exp(x), C / 6 / np.exp(x)


def optimal_library(C, A, B, alpha, beta):
    return np.float64(scaling.LossSurface(0, A, B, alpha, beta).optimum(C))


def optimal_without_factor(C, A, B, alpha, beta):
    N = (C / 6) ** (beta / (alpha + beta))
    return N, C / 6 / N


RIGHT = {
    "quantise_int8": [int8, int8_torch, int8_loop],
    "training_memory": [memory, memory_library, lambda *a: np.array([memory(*a)])],
    "ring_step": [ring, ring_vectorised, ring_torch],
    "combine_gradients": [combine, combine_torch, combine_loop],
    "fit_with_floor": [floor_grid, floor_scipy, scaling.fit_power_law],
    "compute_optimal": [optimal, optimal_search, optimal_library],
}

WRONG = {
    "quantise_int8": [
        (lambda w: int8(w, axis=None), "each row should have its own"),
        (lambda w: int8(w, top=128.0), "128 itself is no code"),
        (lambda w: int8(w, top=255.0, rounding=np.round, safe=True), "half as wide"),
        (lambda w: int8(w, rounding=np.trunc), "towards zero"),
        (lambda w: int8(w, rounding=np.floor), "rounded down"),
        (lambda w: int8(w, rounding=lambda x: x, absolute=False), "whole numbers"),
        (lambda w: int8(w, absolute=False), "127 or -127"),
        (lambda w: int8(w, safe=False), "row of zeros"),
        (lambda w: int8(w, axis=0), "one for each row"),
        (lambda w: (int8(w)[0], 1 / int8(w)[1]), "not right"),
        (lambda w: (int8(w)[0].astype(int) + 128, int8(w)[1]), "not signed"),
        (lambda w: int8(w)[0], "should return 2 things"),
    ],
    "training_memory": [
        (lambda N, s, n: memory(N, s, n, (2, 2, 8)), "second moment"),
        (lambda N, s, n: memory(N, s, n, (2, 2, 4)), "float32 copy"),
        (lambda N, s, n: memory(N, s, n, (2, 0, 12)), "gradients take memory"),
        (lambda N, s, n: memory(N, s, n, (2, 4, 12)), "2 bytes here"),
        (lambda N, s, n: memory(N, s, n, (4, 4, 8)), "float32 throughout"),
        (lambda N, s, n: memory(N, 0, n), "stage 0"),
        (lambda N, s, n: memory(N, 3 if s else 0, n), "everything is shared out;"),
        (lambda N, s, n: memory(N, s - 1, n), "stage 0"),
        (lambda N, s, n: memory(N, s, n) / 1e9, "in GB"),
        (lambda N, s, n: n * memory(N, s, n), "hold together"),
        (lambda N, s, n: None, "None"),
    ],
    "ring_step": [
        (lambda c, s: ring(c, s, to=-1), "left neighbour"),
        (lambda c, s: ring(c, s, add=False), "should add"),
        (lambda c, s: ring(c, s, sign=1), "not r + step"),
        (lambda c, s: ring(c, s, own=True), "its own number in every step"),
        (lambda c, s: ring(c, s, same=True), "all processes send the same"),
        (lambda c, s: ring(c, s, late=1), "one step ahead"),
        (lambda c, s: ring(c, s, empty=True), "keeps what it has sent"),
        (lambda c, s: c, "nothing has moved"),
        (lambda c, s: c + np.roll(c, 1, axis=0), "everything was sent"),
        (lambda c, s: c.sum(axis=0), "shape"),
    ],
    "combine_gradients": [
        (lambda g, c: g.mean(axis=0), "plain mean"),
        (lambda g, c: g.sum(axis=0), "sum of the gradients"),
        (lambda g, c: c @ g, "gradient of the sum"),
        (lambda g, c: c @ g / len(c), "number of processes, but"),
        (lambda g, c: c / c.sum() @ g / len(c), "besides"),
        (lambda g, c: (1 / c) @ g / (1 / c).sum(), "few tokens weigh more"),
        (lambda g, c: c @ g / c.sum(), "0 times NaN"),
        (lambda g, c: c[:, None] * g / c.sum(), "shape"),
    ],
    "fit_with_floor": [
        (no_floor, "pure power law"),
        (lambda s, v: (floor_grid(s, v)[0], floor_grid(s, v)[1], -floor_grid(s, v)[2]), "sign"),
        (lambda s, v: (floor_grid(s, v)[0], np.log(floor_grid(s, v)[1]), floor_grid(s, v)[2]),
         "its logarithm"),
        (lambda s, v: (floor_grid(s, v)[0], np.log10(floor_grid(s, v)[1]), floor_grid(s, v)[2]),
         "decimal logarithm"),
        (lambda s, v: np.roll(floor_grid(s, v), -1), "in the order"),
        (lambda s, v: (v.min(), 1.0, 0.1), "not below the lowest loss"),
        (coarse, "floor is off by"),
        (lambda s, v: (1.0, 2.0, 0.1), "misses one"),
    ],
    "compute_optimal": [
        (lambda *a: optimal(*a)[::-1], "changed places"),
        (lambda C, *a: optimal(6 * C, *a), "6 N D"),
        (lambda C, A, B, a, b: optimal(C, A, B, b, a), "α and β have changed"),
        (lambda C, A, B, a, b: optimal(C, B, A, a, b), "A and B have changed"),
        (optimal_without_factor, "factor in front"),
        (lambda C, A, B, a, b: optimal(C, A / a, B / b, a, b), "brings them down"),
        (lambda C, *a: ((C / 120) ** 0.5, 20 * (C / 120) ** 0.5), "20 tokens"),
        (lambda C, *a: (2 * optimal(C, *a)[0], optimal(C, *a)[1] / 2), "above the lowest"),
        (lambda C, *a: (1e9, 1e9), "use up the budget"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
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
    assert set(checks.names(19)) == set(RIGHT) == set(WRONG)
