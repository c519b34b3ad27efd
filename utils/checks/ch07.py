"""Checks for chapter 7: broadcasting and its gradient, the roofline, the tape."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, wrong


@check()
def sum_gradient(student: Student, rng: np.random.Generator) -> None:
    """Exercise 7.1: the gradient of an array that was broadcast."""
    cases = [
        ((3,), (4, 3)),
        ((4, 1), (4, 3)),
        ((2, 1, 3), (2, 5, 3)),
        ((1, 3), (2, 4, 3)),
        ((), (2, 3)),
        ((4, 3), (4, 3)),
        ((1,), (1, 1)),
        ((3, 1), (2, 3, 1)),
    ]
    for shape, full in cases:
        gradient = rng.normal(size=full)
        expected = _gradient_of_broadcast(gradient, shape)
        case = f"for an array of shape {shape} that was stretched to {full}"
        got = as_array(student(gradient, shape), what="gradient")
        if got.shape != expected.shape:
            if np.squeeze(got).shape == np.squeeze(expected).shape and close(
                np.squeeze(got), np.squeeze(expected)
            ):
                wrong(
                    f"{case} the numbers are right, but your gradient has shape {got.shape}: an "
                    "axis of size 1 must stay (keepdims)"
                )
            wrong(f"{case} your gradient has shape {got.shape}; it must have the array's own shape")
        if close(got, expected):
            continue
        stretched = gradient.size / max(expected.size, 1)
        if close(got, expected / stretched):
            wrong(f"{case} you averaged; each use of the array adds its own part to the gradient")
        wrong(f"{case} the shape is right, the numbers are not")


def _gradient_of_broadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Let torch differentiate a broadcast."""
    import torch

    leaf = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    (leaf.expand(gradient.shape) * torch.from_numpy(gradient)).sum().backward()
    return leaf.grad.numpy()


@check()
def broadcast_shape(student: Student, rng: np.random.Generator) -> None:
    """Exercise 7.2: the shape that two shapes broadcast to, or None."""
    cases: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((), ()),
        ((4, 1), (4,)),
        ((2, 3), (3, 2)),
        ((1,), (0, 3)),
        ((5, 1, 3), (4, 1)),
        ((2,), (3,)),
        ((0,), (1, 1)),
    ]
    for _ in range(60):
        full = rng.integers(2, 5, size=rng.integers(0, 5))
        first, second = (
            tuple(int(n) for n in np.where(rng.random(len(full)) < 0.3, 1, full))[cut:]
            for cut in rng.integers(0, len(full) + 1, size=2)
        )
        if second and rng.random() < 0.3:
            second = (*second[:-1], second[-1] + 1)
        cases.append((first, second))
    for first, second in cases:
        try:
            expected: tuple[int, ...] | None = np.broadcast_shapes(first, second)
        except ValueError:
            expected = None
        answer = student(first, second)
        got = None if answer is None else _as_shape(answer)
        if got == expected:
            continue
        case = f"for {first} and {second}"
        if expected is None:
            wrong(
                f"{case} you return {got}, but these do not fit together: one pair of sizes "
                "differs, and neither of the two is 1"
            )
        if got is None:
            wrong(f"{case} you return None, but they fit: compare from the right")
        if len(got) != len(expected):
            wrong(f"{case} the result should have {len(expected)} axes, but yours has {len(got)}")
        if 0 in expected and 0 not in got:
            wrong(f"{case} an axis of size 1 is stretched to the other's size, even if that is 0")
        wrong(f"{case} your {got} is not right: which of two sizes wins?")


def _as_shape(answer: Any) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in answer)
    except (TypeError, ValueError):
        wrong(f"return a tuple of whole numbers or None, not {answer!r}")


@check()
def least_seconds(student: Student, rng: np.random.Generator) -> None:
    """Exercise 7.3: the roofline's bound on the time of a layer."""
    for tokens in (1, 8, 4096, 3):
        width, bytes_each = int(rng.integers(200, 5000)), int(rng.choice([1, 2, 4]))
        bandwidth = float(rng.uniform(1e10, 3e12))
        # the ridge lies between few tokens and many
        peak = bandwidth * 40 / bytes_each * float(rng.uniform(0.9, 1.1))
        compute = 2 * tokens * width * width / peak
        memory = bytes_each * (2 * tokens * width + width * width) / bandwidth
        answer = student(tokens, width, bytes_each, peak, bandwidth)
        try:
            seconds, limited = answer
        except (TypeError, ValueError):
            wrong(f"return two things, the seconds and whether memory is the limit, not {answer!r}")
        got = as_number(seconds, "number of seconds")
        if not close(got, max(compute, memory), rtol=1e-4, atol=0):
            case = {"tokens": tokens, "width": width, "bytes_each": bytes_each}
            _explain_seconds(got, case, peak, bandwidth)
        if not isinstance(limited, bool | np.bool_):
            wrong(f"the second result should be True or False, not {limited!r}")
        if bool(limited) != (memory > compute):
            wrong(
                f"the seconds are right, but with {tokens} tokens at once you say "
                f"{'memory' if limited else 'arithmetic'} is the limit: which took longer?"
            )


def _explain_seconds(got: float, case: dict[str, int], peak: float, bandwidth: float) -> None:
    """Compare a wrong bound with what slips give."""
    tokens, width, bytes_each = case["tokens"], case["width"], case["bytes_each"]
    compute = 2 * tokens * width * width / peak

    def memory(numbers: int, size: int = bytes_each) -> float:
        return size * numbers / bandwidth

    rows, weights = tokens * width, width * width
    right = memory(2 * rows + weights)
    slips = {
        "these are the seconds if arithmetic and memory took turns; they work at the same "
        "time, so the longer one counts": compute + right,
        "that is the smaller of the two times; both must be done before the layer is": min(
            compute, right
        ),
        "a multiplication and an addition are two operations": max(compute / 2, right),
        "the traffic is in bytes: how many does each number take?": max(
            compute, memory(2 * rows + weights, 1)
        ),
        "only the weight matrix is counted in the traffic; the rows are read and written too": max(
            compute, memory(weights)
        ),
        "the result has to be written as well": max(compute, memory(rows + weights)),
    }
    for message, value in slips.items():
        if close(got, value, rtol=1e-4, atol=0):
            wrong(message)
    wrong(f"for {tokens} tokens at width {width} the seconds are not right")


@check()
def logsumexp_with_backward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 7.4: log-sum-exp and its gradient, against torch."""
    import torch

    for shape, shift in (((3, 5), 0.0), ((4,), 0.0), ((2, 3, 4), 5.0), ((2, 6), 1000.0)):
        x = rng.normal(size=shape) * 2 + shift
        grad_y = rng.normal(size=shape[:-1])
        leaf = torch.tensor(x, requires_grad=True)
        y = torch.logsumexp(leaf, dim=-1)
        y.backward(torch.tensor(grad_y))
        answer = student(x)
        try:
            got, back = answer
        except (TypeError, ValueError):
            wrong(f"return two things, the value and a function, not {type(answer).__name__}")
        got = as_array(got, shape[:-1], "value")
        if not np.isfinite(got).all():
            wrong("for entries of about 1000 the value is not finite: subtract the largest first")
        if not close(got, y.detach().numpy()):
            if close(got, torch.logsumexp(leaf - leaf.max(-1, True).values, -1).detach().numpy()):
                wrong("after subtracting the largest entry, it has to be added again at the end")
            wrong("the value is not the logarithm of the sum of exponentials along the last axis")
        if not callable(back):
            wrong("the second result should be a function of grad_y")
        gradient = as_array(Student(back)(grad_y), shape, "gradient")
        expected = leaf.grad.numpy()
        if close(gradient, expected):
            continue
        softmax = torch.softmax(leaf, -1).detach().numpy()
        if not np.isfinite(gradient).all():
            wrong("for entries of about 1000 the gradient is not finite")
        if close(gradient, softmax):
            wrong("that is the derivative of y; it still has to be multiplied by grad_y")
        if close(gradient, grad_y[..., None] * np.ones(shape)):
            wrong("grad_y is handed to all entries alike; which entries does y listen to most?")
        wrong("the value is right, the gradient is not")


@check()
def play_tape(student: Student, rng: np.random.Generator) -> None:
    """Exercise 7.5: reverse-mode differentiation of a graph of numbers."""
    diamond = {"d": [("b", 2.0), ("c", 3.0)], "b": [("a", 5.0)], "c": [("a", 7.0), ("b", 11.0)]}
    square = {"y": [("x", 3.0), ("x", 3.0)]}
    chain: dict[str, list] = {f"n{i}": [(f"n{i + 1}", 1.0)] for i in range(5000)}
    cases = [("a", {}), ("y", square), ("d", diamond), *(_random_graph(rng) for _ in range(8))]
    for output, parents in [*cases, ("n0", chain)]:
        answer = student(output, parents)
        if not isinstance(answer, dict):
            wrong(f"return a dict from name to derivative, not {type(answer).__name__}")
        expected = _derivatives(output, parents)
        case = f"with {len(expected)} names"
        if output not in answer:
            wrong(f"{case} the output {output!r} itself is missing: its derivative by itself is 1")
        missing, extra = set(expected) - set(answer), set(answer) - set(expected)
        if missing:
            wrong(f"{case} names are missing, such as {min(missing)!r}, that the output depends on")
        if extra:
            wrong(f"{case} there are names, such as {min(extra)!r}, that it does not depend on")
        for name, value in expected.items():
            got = as_number(answer[name], f"derivative by {name!r}")
            if close(got, value, rtol=1e-6):
                continue
            if parents is square:
                wrong("a name that is used twice by the same result must get both parts")
            wrong(
                f"{case} the derivative by {name!r} is wrong: had everything that uses it reported "
                "before it handed its gradient on, and did the parts add up?"
            )


def _random_graph(rng: np.random.Generator) -> tuple[str, dict[str, list[tuple[str, float]]]]:
    """Draw a graph in which later names are made from earlier ones, in shuffled order."""
    names = [f"v{i}" for i in rng.permutation(12)]
    parents = {
        names[i]: [
            (names[j], float(rng.normal())) for j in rng.integers(0, i, size=rng.integers(1, 4))
        ]
        for i in range(2, len(names))
    }
    shuffled = list(parents)
    rng.shuffle(shuffled)
    return names[-1], {name: parents[name] for name in shuffled}


def _derivatives(output: str, parents: dict) -> dict[str, float]:
    """Differentiate forwards, from each name to the output: no tape, only the chain rule."""
    reachable, stack = {output}, [output]
    while stack:
        for parent, _ in parents.get(stack.pop(), []):
            if parent not in reachable:
                reachable.add(parent)
                stack.append(parent)
    if len(reachable) > 100:  # the long chain, whose local derivatives are all 1
        return dict.fromkeys(reachable, 1.0)

    def slope(of: str, by: str) -> float:
        if of == by:
            return 1.0
        return sum(local * slope(parent, by) for parent, local in parents.get(of, []))

    return {name: slope(output, name) for name in reachable}
