"""Checks for chapter 19: int8, ZeRO's memory, the ring, unequal shares, a floor, an optimum."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong

_reject_known = partial(reject_known, rtol=1e-6)


def _parts(answer: Any, count: int, what: str) -> tuple[Any, ...]:
    """Return the parts of a tuple, or say that the answer is not one."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, tuple | list | np.ndarray) or len(answer) != count:
        wrong(f"your function should return {count} things, {what}, in this order")
    return tuple(answer)


@check()
def quantise_int8(student: Student, rng: np.random.Generator) -> None:
    """Exercise 19.1: codes and one scale for each row, symmetric, -127 to 127."""
    for rows, columns in ((4, 9), (1, 5), (6, 33), (3, 1)):
        codes = rng.integers(-120, 121, size=(rows, columns))
        ends = rng.integers(columns, size=rows)
        codes[np.arange(rows), ends] = rng.choice([-127, 127], size=rows)
        if rows > 1:
            codes[0, ends[0]] = -127  # the largest absolute value of a row may be negative
        scales = 10.0 ** rng.uniform(-3, 1, size=rows)
        shift = rng.uniform(0.05, 0.4, size=codes.shape) * rng.choice([-1, 1], size=codes.shape)
        shift[np.arange(rows), ends] = 0
        weights = scales[:, None] * (codes + shift)  # never near the middle of two codes
        if rows == 6:
            weights[2], codes[2] = 0, 0  # a row of zeros
        got_codes, got_scales = _parts(student(weights), 2, "codes and scales")
        got_codes = as_array(got_codes, (rows, columns), "array of codes").astype(float)
        got_scales = as_array(got_scales, what="array of scales").astype(float)
        if not np.isfinite(got_codes).all() or not np.isfinite(got_scales).all():
            wrong("something is not finite: what is the scale of a row of zeros, and 0 / 0?")
        if got_scales.size == 1 < rows:
            wrong("there is one scale for the whole matrix: each row should have its own")
        if got_scales.size != rows:
            wrong(f"there should be {rows} scales, one for each row, not {got_scales.size}")
        got_scales = got_scales.reshape(rows)
        if (got_scales <= 0).any():
            wrong(
                "a scale is zero or negative: take the largest *absolute* value, and any positive "
                "number for a row of zeros"
            )
        if not close(got_codes, got_codes.round(), atol=1e-9, rtol=0):
            wrong("the codes should be whole numbers: round what is left after dividing")
        filled = np.abs(codes).max(axis=1) > 0
        ratio = (got_scales / scales)[filled]
        for factor, message in {
            127 / 128: "your scale is the largest absolute value over 128; 128 itself is no code "
            "of int8, so that the largest weight would not fit",
            127 / 255: "your steps are half as wide: 255 of them would reach from 0 to the largest "
            "weight, but the codes have a sign",
            127: "your scale is the largest absolute value itself, which then becomes 1; it should "
            "become 127",
            1 / 127: "your scale is the inverse: weights ≈ codes · scales",
        }.items():
            if close(ratio, np.full(ratio.shape, factor), rtol=1e-3):
                wrong(message)
        if not close(ratio, np.ones(ratio.shape), rtol=1e-3):
            wrong(
                "the scales are not right: within each row, the largest absolute value should "
                "become 127 or -127"
            )
        if np.array_equal(got_codes, codes):
            continue
        wide = weights / np.where(filled, scales, 1)[:, None]
        _reject_known(
            got_codes,
            {
                "the codes are cut off towards zero: round to the nearest": np.trunc(wide),
                "the codes are rounded down: round to the nearest": np.floor(wide),
                "the codes are not signed: they run from -127 to 127": codes + 127,
                "the codes are not signed: they run from -127 to 127 ": codes + 128,
                "codes of 127 have become negative: cast to int8 after clipping": np.where(
                    codes == 127, -128, codes
                ),
            },
            atol=0.2,
        )
        wrong("the codes are not those nearest to weights / scales")


@check()
def training_memory(student: Student, rng: np.random.Generator) -> None:
    """Exercise 19.2: bytes of weights, gradients and Adam's state in one of n processes."""
    cases = [(7_500_000_000, stage, 64) for stage in (0, 1, 2, 3)]
    cases += [(int(rng.integers(1, 1000)) * 840, stage, 8) for stage in (0, 3, 2, 1)]
    for N, stage, n in cases:
        parts, shared_from = {"weights": 2, "gradients": 2, "optimiser": 12}, (3, 2, 1)

        def total(parts=parts, stage=stage, shared_from=shared_from, N=N, n=n):
            pairs = zip(parts.values(), shared_from, strict=True)
            return sum(each * N / (n if stage >= first else 1) for each, first in pairs)

        got = as_number(student(N, stage, n), "number of bytes")
        if close(got, total(), rtol=1e-9, atol=0):
            continue
        case = f"for {N:,} parameters, stage {stage} and {n} processes: "
        _reject_known(
            np.array(got),
            {
                case + "Adam's second moment is missing": total({**parts, "optimiser": 8}),
                case
                + "the float32 copy of the weights, kept beside the moments, is missing": total(
                    {**parts, "optimiser": 4}
                ),
                case + "gradients take memory too": total({**parts, "gradients": 0}),
                case + "the 16-bit weights are missing": total({**parts, "weights": 0}),
                case + "that is float32 throughout; in mixed precision weights and gradients have "
                "2 bytes, and the optimiser 12": total(
                    {"weights": 4, "gradients": 4, "optimiser": 8}
                ),
                case + "gradients have 2 bytes here": total({**parts, "gradients": 4}),
                case + "that is what all processes hold together; one is asked for": n * total(),
                case + "that is stage 0: nothing is shared yet": total(stage=0),
                case + "everything is shared out; which parts does this stage share?": total(
                    stage=3
                ),
                case + "you are one stage behind": total(stage=stage - 1),
                case + "you are one stage ahead": total(stage=stage + 1),
                case + "the weights are shared last, not first": total(shared_from=(1, 2, 3)),
                case + "stage 2 shares gradients as well as the optimiser's state": total(
                    shared_from=(2, 3, 1)
                ),
                case + "that is in GiB; the answer should be in bytes": total() / 2**30,
                case + "that is in GB; the answer should be in bytes": total() / 1e9,
            },
            atol=0,
        )
        wrong(case + f"{got:,.0f} bytes is not the sum of the three parts")


@check()
def ring_step(student: Student, rng: np.random.Generator) -> None:
    """Exercise 19.3: one of the n - 1 steps that add up chunks around a ring."""
    for n, d in ((4, 2), (2, 3), (5, 1), (3, 4)):
        start = rng.normal(size=(n, n, d))
        current = start.copy()
        for step in range(n - 1):
            right, ranks = np.array(current), np.arange(n)

            def moved(  # what process r sends, to whom, and what happens there
                chunk=lambda r, s: r - s, to=1, *, add=True, current=current, step=step, n=n
            ):
                result = current.copy()
                for r in range(n):
                    c = chunk(r, step) % n
                    kept = result[(r + to) % n, c] if add else 0
                    result[(r + to) % n, c] = kept + current[r, c]
                return result

            right = moved()
            got = as_array(student(current.copy(), step), (n, n, d), "array of chunks")
            if not close(got, right):
                emptied = right.copy()
                emptied[ranks, (ranks - step) % n] = 0
                everything = current + np.roll(current, 1, axis=0)
                case = f"with {n} processes, in step {step}: "
                _reject_known(
                    got,
                    {
                        case + "nothing has moved": current,
                        case + "the chunk goes to the left neighbour; process r sends to r + 1": (
                            moved(to=-1)
                        ),
                        case + "the receiver has overwritten its own chunk; it should add": moved(
                            add=False
                        ),
                        case + "a process keeps what it has sent; yours is emptied": emptied,
                        case + "everything was sent; one chunk of n goes in each step": everything,
                        case + "each process sends the chunk with its own number in every step; "
                        "it should pass on what it received in the last one": moved(
                            chunk=lambda r, s: r
                        ),
                        case + "the chunk's number is r - step, not r + step": moved(
                            chunk=lambda r, s: r + s
                        ),
                        case + "all processes send the same chunk": moved(chunk=lambda r, s: s),
                        case + "you are one step ahead: in step 0 process r sends chunk r": moved(
                            chunk=lambda r, s: r - s - 1
                        ),
                    },
                )
                wrong(
                    case + "the chunks are not right: process r sends chunk (r - step) mod n to "
                    "process (r + 1) mod n, which adds it to its own; nothing else changes"
                )
            current = right


@check()
def combine_gradients(student: Student, rng: np.random.Generator) -> None:
    """Exercise 19.4: the gradient of the mean over all tokens, from unequal shares."""
    for n, size, empty in ((3, 4, False), (2, 1, False), (5, 3, False), (4, 2, True)):
        counts = rng.permutation(np.arange(1, 40))[:n]
        gradients = rng.normal(size=(n, size))
        if empty:
            counts[1], gradients[1] = 0, np.nan  # the mean over no token
        weights = counts / counts.sum()
        usable = np.where(counts[:, None] > 0, gradients, 0)
        right = weights @ usable
        got = as_array(student(gradients, counts), what="gradient")
        if got.shape != (size,):
            wrong(
                f"the result should have shape ({size},), one entry for each parameter, but yours "
                f"has shape {got.shape}"
            )
        if close(got, right, atol=1e-6):
            continue
        if np.isnan(got).any():
            wrong(
                "with a process that had no token, the result is not a number: its gradient is "
                "NaN, and 0 times NaN is NaN; leave it out"
            )
        inverse = np.divide(1, counts, where=counts > 0, out=np.zeros(n))
        _reject_known(
            got,
            {
                "that is the plain mean: a process with few tokens has as much to say as one with "
                "many": usable.mean(axis=0),
                "that is the plain mean, of those that had tokens: they should count by their "
                "tokens": usable.sum(axis=0) / (counts > 0).sum(),
                "that is the sum of the gradients": usable.sum(axis=0),
                "that is the gradient of the sum over tokens; divide by how many there are": counts
                @ usable,
                "you have divided by the number of processes, but the weights must add up to 1": (
                    counts @ usable / n
                ),
                "you have weighted with the shares and divided by the number of processes "
                "besides": right / n,
                "processes with few tokens weigh more in yours than those with many": inverse
                @ usable
                / inverse.sum(),
            },
        )
        wrong(
            "the result is not the gradient of the mean over all tokens: from each mean recover a "
            "sum, add the sums, and divide once"
        )


@check(time_limit=30)
def fit_with_floor(student: Student, rng: np.random.Generator) -> None:
    """Exercise 19.5: floor, scale and exponent of a law, from data without noise."""
    for law in ((1.6, 25.0, 0.35), (1.0, 6.0, 0.25), (float(rng.uniform(1, 2)), 60.0, 0.45)):
        floor, scale, exponent = law
        sizes = np.round(3000 * 2.2 ** np.arange(7))
        losses = floor + scale * sizes**-exponent
        got = np.array(
            [
                as_number(part, name)
                for part, name in zip(
                    _parts(student(sizes, losses), 3, "floor, scale and exponent"),
                    ("floor", "scale", "exponent"),
                    strict=True,
                )
            ]
        )
        if close(got, law, rtol=0.05, atol=0.02):
            continue
        slope, level = np.polyfit(np.log(sizes), np.log(losses), 1)
        with_floor = np.polyfit(np.log(sizes), np.log(losses - floor), 1)
        for message, candidate in {
            "that is the pure power law, with a floor of 0: these losses bend away from a straight "
            "line in logarithms": (0, np.exp(level), -slope),
            "the exponent has the wrong sign: the law is floor + scale · size^(-exponent)": (
                floor,
                scale,
                -exponent,
            ),
            "the scale is its logarithm": (floor, with_floor[1], exponent),
            "the scale is its decimal logarithm": (floor, np.log10(scale), exponent),
            "the three are right, but not in the order floor, scale, exponent": (
                scale,
                exponent,
                floor,
            ),
            "the three are right, but not in the order floor, scale, exponent ": (
                floor,
                exponent,
                scale,
            ),
        }.items():
            if close(got, candidate, rtol=0.05, atol=0.02):
                wrong(message)
        if got[0] >= losses.min():
            wrong(f"a floor of {got[0]:.3f} is not below the lowest loss, {losses.min():.3f}")
        curve = got[0] + got[1] * sizes ** -got[2]
        worst = float(np.abs(curve - losses).max())
        if worst > 0.03:
            wrong(f"your curve misses one of these losses, which have no noise, by {worst:.3f}")
        wrong(
            f"your curve is near the losses, but its floor is off by {got[0] - floor:+.3f}: look "
            "among more floors, or more closely around the best"
        )


@check()
def compute_optimal(student: Student, rng: np.random.Generator) -> None:
    """Exercise 19.6: the size and the tokens of least loss for a budget of operations."""
    cases = [
        (5.76e23, 406.4, 410.7, 0.34, 0.28),
        (1e20, 482.01, 2085.43, 0.3478, 0.3658),
        (10 ** rng.uniform(16, 26), *rng.uniform(100, 2000, size=2), *rng.uniform(0.2, 0.5, 2)),
    ]
    for C, A, B, alpha, beta in cases:

        def best(C=C, A=A, B=B, alpha=alpha, beta=beta):
            ratio = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
            N = ratio * (C / 6) ** (beta / (alpha + beta))
            return np.array([N, C / 6 / N])

        parts = _parts(student(C, A, B, alpha, beta), 2, "parameters and tokens")
        got = np.array([as_number(part, "number") for part in parts])
        right = best()
        if close(got, right, rtol=1e-3, atol=0):
            continue
        case = f"for {C:.2g} operations, A={A:.0f}, B={B:.0f}, α={alpha:.2f}, β={beta:.2f}: "
        root = (C / 6) ** 0.5
        _reject_known(
            got,
            {
                case + "parameters and tokens have changed places": right[::-1],
                case + "the budget is 6 N D, not N D": best(C=6 * C),
                case + "the exponents α and β have changed places": best(alpha=beta, beta=alpha),
                case + "A and B have changed places": best(A=B, B=A),
                case + "the factor in front of the power of the budget is missing": np.array(
                    [
                        (C / 6) ** (beta / (alpha + beta)),
                        (C / 6) ** (alpha / (alpha + beta)),
                    ]
                ),
                case + "α and β are missing in the factor: setting the derivative to zero brings "
                "them down": best(A=A / alpha, B=B / beta),
                case + "parameters and tokens are equal only for special coefficients": np.array(
                    [root, root]
                ),
                case + "that is the rule of 20 tokens a parameter; here the coefficients decide": (
                    np.array([(C / 120) ** 0.5, 20 * (C / 120) ** 0.5])
                ),
            },
            atol=0,
        )
        spent = 6 * got[0] * got[1]
        if not close(spent, C, rtol=1e-3, atol=0):
            wrong(case + f"6 N D of your answer is {spent:.3g}; it should use up the budget")
        loss = A * got[0] ** -alpha + B * got[1] ** -beta
        least = A * right[0] ** -alpha + B * right[1] ** -beta
        wrong(
            case
            + f"your answer uses the budget, but its loss is {loss - least:.2g} nats above the "
            "lowest one: write D as C / (6 N) and set the derivative in N to zero"
        )
