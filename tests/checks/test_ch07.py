"""The checks of chapter 7 reject plausible mistakes and accept right answers in any form."""

import re

import numpy as np
import pytest
import torch

from utils import checks


# ------------------------------------------------------------------------- sum_gradient
def by_axes(gradient, shape):
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=axes, keepdims=True)


def by_torch(gradient, shape):
    return torch.from_numpy(gradient).float().sum_to_size(shape)


def loses_ones(gradient, shape):
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=axes)


def averages(gradient, shape):
    full = by_axes(gradient, shape)
    return full * full.size / gradient.size


def only_on_the_left(gradient, shape):
    return gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))


def takes_one(gradient, shape):
    return by_axes(gradient, shape) * 0 + gradient.flat[0]


# ------------------------------------------------------------------------- broadcast_shape
def by_zip(first, second):
    size = max(len(first), len(second))
    first = (1,) * (size - len(first)) + tuple(first)
    second = (1,) * (size - len(second)) + tuple(second)
    if any(a != b and 1 not in (a, b) for a, b in zip(first, second, strict=True)):
        return None
    return tuple(b if a == 1 else a for a, b in zip(first, second, strict=True))


def by_numpy_as_list(first, second):
    try:
        return list(np.broadcast_shapes(first, second))
    except ValueError:
        return None


def from_the_left(first, second):
    size = max(len(first), len(second))
    first = tuple(first) + (1,) * (size - len(first))
    second = tuple(second) + (1,) * (size - len(second))
    return by_zip(first, second)


def never_refuses(first, second):
    size = max(len(first), len(second))
    first = (1,) * (size - len(first)) + tuple(first)
    second = (1,) * (size - len(second)) + tuple(second)
    return tuple(max(pair) for pair in zip(first, second, strict=True))


def equal_only(first, second):
    return tuple(first) if tuple(first) == tuple(second) else None


def larger_wins(first, second):
    if by_zip(first, second) is None:
        return None
    return never_refuses(first, second)


def too_short(first, second):
    shape = by_zip(first, second)
    return shape if shape is None else shape[-min(len(first), len(second)) or None :]


# ------------------------------------------------------------------------- least_seconds
def bound(tokens, width, bytes_each, peak, bandwidth, *, pick=max, ops=2, write=2, each=None):
    compute = ops * tokens * width**2 / peak
    traffic = (each or bytes_each) * (write * tokens * width + width**2)
    memory = traffic / bandwidth
    return pick(compute, memory), memory > compute


def as_array_pair(*args):
    return np.array(bound(*args)[0], dtype=np.float32), np.bool_(bound(*args)[1])


def added(*args):
    return bound(*args, pick=lambda a, b: a + b)


def smaller(*args):
    return bound(*args, pick=min)


def one_operation(*args):
    return bound(*args, ops=1)


def numbers_not_bytes(*args):
    return bound(*args, each=1)


def forgets_output(*args):
    return bound(*args, write=1)


def weights_only(*args):
    return bound(*args, write=0)


def wrong_way_round(*args):
    seconds, limited = bound(*args)
    return seconds, not limited


def seconds_only(*args):
    return bound(*args)[0]


# ------------------------------------------------------------------------- logsumexp
def stable(x):
    highest = x.max(axis=-1, keepdims=True)
    exponentials = np.exp(x - highest)
    total = exponentials.sum(axis=-1, keepdims=True)
    return (np.log(total) + highest)[..., 0], lambda g: g[..., None] * exponentials / total


def in_torch(x):
    tensor = torch.tensor(x)
    weights = tensor.softmax(-1)
    return tensor.logsumexp(-1), lambda g: torch.tensor(g)[..., None] * weights


def overflows(x):
    with np.errstate(all="ignore"):
        total = np.exp(x).sum(-1)
        return np.log(total), lambda g: g[..., None] * np.exp(x) / total[..., None]


def not_added_again(x):
    shifted = x - x.max(axis=-1, keepdims=True)
    return stable(shifted)


def without_chain_rule(x):
    return stable(x)[0], lambda g: stable(x)[1](np.ones_like(g))


def shared_alike(x):
    return stable(x)[0], lambda g: g[..., None] * np.ones_like(x)


def negative_gradient(x):
    return stable(x)[0], lambda g: -stable(x)[1](g)


def no_function(x):
    return stable(x)[0], stable(x)[1](np.ones(x.shape[:-1]))


# ------------------------------------------------------------------------- play_tape
def topological(output, parents):
    order, seen, stack = [], set(), [(output, False)]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack.extend((parent, False) for parent, _ in parents.get(name, []))
    slopes = dict.fromkeys(order, 0.0)
    slopes[output] = 1.0
    for name in reversed(order):
        for parent, local in parents.get(name, []):
            slopes[parent] += slopes[name] * local
    return slopes


def by_counting_uses(output, parents):
    uses, stack, seen = {}, [output], {output}
    while stack:
        for parent, _ in parents.get(stack.pop(), []):
            uses[parent] = uses.get(parent, 0) + 1
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    slopes, ready = {output: np.float64(1)}, [output]
    while ready:
        name = ready.pop()
        for parent, local in parents.get(name, []):
            slopes[parent] = slopes.get(parent, 0.0) + slopes[name] * local
            uses[parent] -= 1
            if not uses[parent]:
                ready.append(parent)
    return slopes


def overwrites(output, parents):
    slopes = {output: 1.0}
    for name in reversed(list(topological_names(output, parents))):
        for parent, local in parents.get(name, []):
            slopes[parent] = slopes[name] * local
    return slopes


def topological_names(output, parents):
    return topological(output, parents).keys()


def breadth_first(output, parents):
    slopes, queue = {output: 1.0}, [output]
    while queue:
        name = queue.pop(0)
        for parent, local in parents.get(name, []):
            if parent not in slopes:
                queue.append(parent)
            slopes[parent] = slopes.get(parent, 0.0) + slopes[name] * local
    return slopes


def without_output(output, parents):
    slopes = topological(output, parents)
    del slopes[output]
    return slopes


def recursive(output, parents):
    slopes = {}

    def add(name, slope):
        slopes[name] = slopes.get(name, 0.0) + slope
        for parent, local in parents.get(name, []):
            add(parent, slope * local)

    add(output, 1.0)
    return slopes


def all_names(output, parents):
    slopes = topological(output, parents)
    return {**dict.fromkeys(["zero"], 0.0), **slopes}


RIGHT = [
    ("sum_gradient", by_axes),
    ("sum_gradient", by_torch),
    ("broadcast_shape", by_zip),
    ("broadcast_shape", by_numpy_as_list),
    ("least_seconds", bound),
    ("least_seconds", as_array_pair),
    ("logsumexp_with_backward", stable),
    ("logsumexp_with_backward", in_torch),
    ("play_tape", topological),
    ("play_tape", by_counting_uses),
]
WRONG = [
    ("sum_gradient", loses_ones, "keepdims"),
    ("sum_gradient", averages, "averaged"),
    ("sum_gradient", only_on_the_left, "array's own shape"),
    ("sum_gradient", takes_one, "numbers are not"),
    ("sum_gradient", lambda g, s: g, "array's own shape"),
    ("sum_gradient", lambda g, s: None, "None"),
    ("broadcast_shape", from_the_left, "from the right|fit together|is not right"),
    ("broadcast_shape", never_refuses, "do not fit"),
    ("broadcast_shape", equal_only, "they fit"),
    ("broadcast_shape", larger_wins, "even if that is 0"),
    ("broadcast_shape", too_short, "axes"),
    ("broadcast_shape", lambda a, b: True, "tuple"),
    ("least_seconds", added, "took turns"),
    ("least_seconds", smaller, "smaller of the two"),
    ("least_seconds", one_operation, "two operations"),
    ("least_seconds", numbers_not_bytes, "bytes"),
    ("least_seconds", forgets_output, "written"),
    ("least_seconds", weights_only, "weight matrix"),
    ("least_seconds", wrong_way_round, "which took longer"),
    ("least_seconds", seconds_only, "two things"),
    ("logsumexp_with_backward", overflows, "1000"),
    ("logsumexp_with_backward", not_added_again, "added again"),
    ("logsumexp_with_backward", without_chain_rule, "multiplied by grad_y"),
    ("logsumexp_with_backward", shared_alike, "alike"),
    ("logsumexp_with_backward", negative_gradient, "gradient is not"),
    ("logsumexp_with_backward", no_function, "a function"),
    ("play_tape", overwrites, "both parts"),
    ("play_tape", breadth_first, "reported"),
    ("play_tape", without_output, "itself is missing"),
    ("play_tape", recursive, "RecursionError"),
    ("play_tape", all_names, "does not depend on"),
    ("play_tape", lambda o, p: [1.0], "dict"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_rejected_for_the_right_reason(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed", result
    assert re.search(words, result.message), result
