"""Checks for chapter 13: Newton-Schulz, zero-init, the trapezoid, speed-up, paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


@check()
def newton_schulz_step(student: Student, rng: np.random.Generator) -> None:
    """Exercise 13.1: a X + b (X Xᵀ) X + c (X Xᵀ)² X, for any shape (m, n)."""
    cases = [((4, 4), (3.4445, -4.775, 2.0315)), ((3, 6), (1.5, -0.5, 0.0))]
    cases += [((6, 2), (1.875, -1.25, 0.375)), ((1, 3), tuple(rng.normal(size=3)))]
    for (m, n), (a, b, c) in cases:
        x = rng.normal(size=(m, n)) / math.sqrt(m * n)
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        right = (u * (a * s + b * s**3 + c * s**5)) @ vt
        got = as_array(student(x, a, b, c), what="matrix")
        if got.shape == (n, m) != (m, n):
            wrong(f"the result has shape {(n, m)} for a matrix of shape {(m, n)}: transpose back")
        got = as_array(got, (m, n), "matrix")
        if close(got, right):
            continue
        gram = x @ x.T
        reject_known(
            got,
            {
                "this is X as it was": x,
                "the cubic term is missing": a * x + c * gram @ gram @ x,
                "the term of fifth order is missing": a * x + b * gram @ x,
                "you raise every number of the matrix to a power; the powers that move singular "
                "values are matrix products": a * x + b * x**3 + c * x**5,
                "the last term has X Xᵀ once too few: it is (X Xᵀ) (X Xᵀ) X": a * x
                + (b + c) * gram @ x,
                "the last term squares the entries of X Xᵀ; multiply the matrix by itself": a * x
                + (b * gram + c * gram**2) @ x,
                "X Xᵀ and its square are not multiplied with X": a * x + b * gram + c * gram @ gram
                if m == n
                else x * math.nan,
                "that is U Vᵀ itself, the limit; one step is asked for": u @ vt,
                "that is two steps; one is asked for": _two_steps(x, a, b, c),
                "you divide by the length of the matrix first; here the matrix has its length "
                "already": _step(x / np.linalg.norm(x), a, b, c),
            },
        )
        wrong(
            f"for a matrix of shape {(m, n)} the singular values should become a s + b s³ + c s⁵ "
            "and the singular vectors should stay"
        )


def _step(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    gram = x @ x.T
    return a * x + b * gram @ x + c * gram @ gram @ x


def _two_steps(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return _step(_step(x, a, b, c), a, b, c)


@check()
def zero_init_branch(student: Student, rng: np.random.Generator) -> None:
    """Exercise 13.2: weights with which x + relu(x W_in)² W_out is x, and can still learn."""
    for C, hidden in ((8, 32), (16, 24), (64, 256)):
        answer = student(C, hidden, rng)
        if answer is None:
            wrong("your function returned None: does it end with a `return`?")
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            wrong("your function should return two matrices, W_in and W_out, in this order")
        w_in = as_array(answer[0], what="matrix W_in").astype(float)
        w_out = as_array(answer[1], what="matrix W_out").astype(float)
        if w_in.shape == (hidden, C) != (C, hidden) or w_out.shape == (C, hidden) != (hidden, C):
            wrong(
                "a matrix is transposed: rows are inputs here, as in x W, so that W_in has shape "
                f"{(C, hidden)} and W_out {(hidden, C)}"
            )
        w_in = as_array(w_in, (C, hidden), "matrix W_in")
        w_out = as_array(w_out, (hidden, C), "matrix W_out")
        x = rng.normal(size=(20, C))
        bent = np.maximum(x @ w_in, 0)
        if not close(bent**2 @ w_out, np.zeros_like(x), atol=1e-12):
            wrong(
                "the block is not the identity: what the branch adds has a spread of "
                f"{(bent**2 @ w_out).std():.2g}, and should add nothing at all"
            )
        # The loss ½ |block(x)|², whose gradient in the block's output is the output, x.
        slope_out = bent.T**2 @ x
        slope_in = x.T @ (2 * bent * (x @ w_out.T))
        if not slope_out.any() and not slope_in.any():
            wrong(
                "the block is the identity, and stays it: the gradient of both matrices is zero. "
                "Which of the two has to be zero, and which must not be?"
            )
        spread = w_in.std() * math.sqrt(C)
        if not 0.5 < spread < 2:
            wrong(
                f"W_in has a standard deviation of {w_in.std():.2g}; 1/√C = {C**-0.5:.2g} keeps "
                "the hidden numbers about as large as the inputs"
            )
        again = np.asarray(student(C, hidden, np.random.default_rng(1))[0], dtype=float)
        other = np.asarray(student(C, hidden, np.random.default_rng(2))[0], dtype=float)
        if np.array_equal(again, other):
            wrong("W_in is the same whatever `rng` is: draw it from rng")


def _trapezoid(step: int, warmup: int, cooldown: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return min(1.0, (total - step) / cooldown) if cooldown else 1.0


@check()
def trapezoid_factor(student: Student, rng: np.random.Generator) -> None:
    """Exercise 13.3: the factor on the rate at every step of several runs."""
    cases = [(3, 5, 20), (0, 4, 10), (2, 0, 8), (4, 6, 10), (1, 9, 30)]
    cases.append((int(rng.integers(1, 6)), int(rng.integers(2, 9)), int(rng.integers(20, 30))))
    for warmup, cooldown, total in cases:
        steps = range(total)
        got = np.array(
            [as_number(student(step, warmup, cooldown, total), "factor") for step in steps]
        )
        right = np.array([_trapezoid(step, warmup, cooldown, total) for step in steps])
        if close(got, right):
            continue
        run = f"for a run of {total} updates with a rise of {warmup} and a fall of {cooldown}"
        rise, plateau, fall = slice(0, warmup), slice(warmup, total - cooldown), None
        if warmup and not close(got[rise], right[rise]):
            if got[0] == 0:
                wrong(f"{run}: the first factor is 0, so that the first update does nothing")
            if close(got[rise], [(step + 1) / warmup for step in range(warmup)]):
                wrong(
                    f"{run}: your rise reaches 1 one step too early: (step + 1) / (warmup + 1), so "
                    "that step `warmup` is the first with 1"
                )
            wrong(f"{run}: the rise is not right: a straight line to 1, which step {warmup} has")
        if not close(got[plateau], right[plateau]):
            if (got[plateau] < 1 - 1e-9).any():
                wrong(f"{run}: between rise and fall the factor should be 1 all the time")
            wrong(f"{run}: the factor is above 1 on the plateau")
        fall = slice(max(warmup, total - cooldown), total)
        mine = got[fall]
        if len(mine) and (mine > 1 + 1e-9).any():
            wrong(f"{run}: the factor is above 1 at the beginning of the fall")
        if len(mine) and close(mine, np.ones(len(mine))):
            wrong(f"{run}: the rate does not fall at the end")
        if len(mine) and close(mine[-1], 0, atol=1e-9):
            wrong(
                f"{run}: the last update has a factor of 0 and does nothing; 0 belongs to the "
                "step after it, number `total`"
            )
        if len(mine) > 2 and not close(np.diff(mine), np.full(len(mine) - 1, np.diff(mine)[0])):
            wrong(f"{run}: the fall is not a straight line")
        wrong(
            f"{run}: the fall is not right: it goes from 1, {cooldown} steps before the end, to 0"
        )


def _first_time(seconds: np.ndarray, losses: np.ndarray, target: float) -> float:
    """Look for the first crossing in very small steps."""
    if losses[0] <= target:
        return float(seconds[0])
    for i in range(1, len(losses)):
        if losses[i] <= target:
            share = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
            return float(seconds[i - 1] + share * (seconds[i] - seconds[i - 1]))
    return math.inf


@check()
def speed_up(student: Student, rng: np.random.Generator) -> None:
    """Exercise 13.4: by which factor a run reaches the baseline's final loss sooner."""
    slow = (np.array([0, 10, 20, 40.0]), np.array([4.0, 3.0, 2.5, 2.0]))
    cases = [
        (*slow, np.array([0, 2, 6, 8.0]), np.array([4.0, 2.4, 1.6, 1.5])),
        (*slow, np.array([0, 5, 10, 20, 30.0]), np.array([4.0, 1.9, 2.3, 2.2, 1.7])),  # up again
        (*slow, np.array([0, 4, 12.0]), np.array([4.0, 2.0, 1.9])),  # met exactly
        (*slow, np.array([0, 30, 90.0]), np.array([4.0, 2.5, 1.8])),  # slower
        (*slow, np.array([0, 5, 9.0]), np.array([4.0, 3.0, 2.2])),  # never
    ]
    for _ in range(2):
        times = np.cumsum(rng.uniform(1, 4, size=6))
        cases.append((*slow, times, np.sort(rng.uniform(1.2, 4.2, size=6))[::-1]))
    for base_seconds, base_losses, seconds, losses in cases:
        target, whole = base_losses[-1], base_seconds[-1]
        got = as_number(student(base_seconds, base_losses, seconds, losses), "speed-up")
        first = _first_time(seconds, losses, target)
        right = whole / first
        if close(got, right):
            continue
        if math.isinf(first):
            wrong(
                f"a run that ends at {losses[-1]:.2f} never reaches {target:.2f}: return 0, "
                f"not {got:.3g}"
            )
        below = np.flatnonzero(losses <= target)
        later = below[-1]
        known: dict[str, Any] = {
            "that is the inverse: how long the run takes as a share of the baseline": 1 / right,
            "you compare how long the two runs took in all; ask when the run reached the "
            "baseline's final loss": whole / seconds[-1],
            "you take the first point that is below; the line to it crosses the target earlier": (
                whole / seconds[below[0]]
            ),
            "you take the last point above the target; the line from it crosses a little later": (
                whole / seconds[max(below[0] - 1, 0)] if seconds[max(below[0] - 1, 0)] else math.nan
            ),
            "the target is the baseline's last loss, not the run's": whole
            / _first_time(base_seconds, base_losses, losses[-1])
            if _first_time(base_seconds, base_losses, losses[-1]) > 0
            else math.nan,
            "that is the difference in seconds; a factor is asked for": whole - first,
            "the run goes above the target again, and you take a later crossing; the first one "
            "counts": whole
            / (
                seconds[later - 1]
                + (losses[later - 1] - target)
                / (losses[later - 1] - losses[later])
                * (seconds[later] - seconds[later - 1])
            )
            if later and losses[later - 1] > target
            else math.nan,
        }
        reject_known(np.array(got), known)
        if (np.diff(losses) > 0).any():
            wrong(
                "np.interp wants its first list rising, and a loss that goes up again is not: look "
                "for the first point at or below the target, and interpolate to it from the one "
                "before"
            )
        wrong(
            f"the baseline took {whole:g} s to {target:g}; the other run crosses that between two "
            f"of its points, at {first:.3g} s: your factor {got:.3g} does not fit"
        )


@check()
def paired_difference(student: Student, rng: np.random.Generator) -> None:
    """Exercise 13.5: mean difference and the half width of its 95 % interval by Student's t."""
    from scipy import stats

    for n in (3, 5, 2, 10):
        before = 2 + 0.1 * rng.normal(size=n)
        after = before - 0.05 + 0.02 * rng.normal(size=n)
        answer = student(before, after)
        if answer is None:
            wrong("your function returned None: does it end with a `return`?")
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            wrong("your function should return two numbers: the mean difference and the half width")
        mean, half = (
            as_number(part, what)
            for part, what in zip(answer, ("mean difference", "half width"), strict=True)
        )
        d = after - before
        if close(mean, -d.mean(), atol=1e-9):
            wrong("the difference has the wrong sign: after minus before, negative if it helped")
        if not close(mean, d.mean(), atol=1e-9):
            wrong("the first number should be the mean of after - before")
        s, t = d.std(ddof=1), stats.t.ppf(0.975, n - 1)
        apart = math.sqrt(before.var(ddof=1) / n + after.var(ddof=1) / n)
        right = t * s / math.sqrt(n)
        if close(half, right, atol=1e-9):
            continue
        reject_known(
            np.array(half),
            {
                "the half width is that of two independent groups: the seeds are paired, so take "
                "the spread of the differences": stats.t.ppf(0.975, 2 * n - 2) * apart,
                "the half width is that of two independent groups: take the spread of the "
                "differences": t * apart,
                "1.96 is for many seeds; with few, Student's t is larger": 1.96 * s / math.sqrt(n),
                "the factor 1.96 is for many seeds, and np.std divides by n unless told "
                "otherwise": 1.96 * d.std() / math.sqrt(n),
                "the spread is not divided by √n: the interval is for the mean": t * s,
                "np.std divides by n unless told otherwise; with so few seeds n - 1 matters": t
                * d.std()
                / math.sqrt(n),
                "that is the standard error; multiply by Student's t": s / math.sqrt(n),
                "that is the standard deviation of the differences": s,
                "t has n - 1 degrees of freedom here, not n": stats.t.ppf(0.975, n)
                * s
                / math.sqrt(n),
                "a 95 % interval leaves 2.5 % on each side: take the quantile at 0.975": (
                    stats.t.ppf(0.95, n - 1) * s / math.sqrt(n)
                ),
                "that is the whole width; the half on each side is asked for": 2 * right,
            },
            atol=1e-9,
        )
        wrong(
            "the half width should be t(0.975, n - 1) times the standard error of the differences"
        )
