"""Checks for chapter 10: shifted targets, counting, the nucleus, the cache, windows, n-grams."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


def _parts(answer: Any, count: int, what: str) -> tuple[Any, ...]:
    """Return the parts of a tuple, or say that the answer is not one."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, tuple | list) or len(answer) != count:
        wrong(f"your function should return {count} things, {what}, in this order")
    return tuple(answer)


@check()
def next_token_batch(student: Student, rng: np.random.Generator) -> None:
    """Exercise 10.1: inputs and targets (B, T), each target the token after its input."""
    for N, B, T in ((30, 3, 4), (12, 1, 10), (20, 5, 1), (9, 2, 3)):
        ids = rng.permutation(1000)[:N]  # no token twice, so that each tells where it is from
        starts = rng.integers(0, N - T - 1, size=B)
        if N < 30:
            starts[-1] = N - T - 1  # the last target is the text's last token
        inputs, targets = _parts(student(ids, starts, T), 2, "inputs and targets")
        if len({np.shape(inputs), np.shape(targets)}) == 2:
            wrong(
                f"inputs have shape {np.shape(inputs)} and targets {np.shape(targets)}: each of "
                "the inputs needs one target, so the two shapes should be equal"
            )
        inputs = as_array(inputs, (B, T), "array of inputs")
        targets = as_array(targets, (B, T), "array of targets")
        right_inputs = np.array([[ids[s + t] for t in range(T)] for s in starts])
        right_targets = np.array([[ids[s + t + 1] for t in range(T)] for s in starts])
        if close(inputs, right_targets) and close(targets, right_inputs):
            wrong("inputs and targets have changed places: the target comes after its input")
        if close(inputs, right_targets):
            wrong("your inputs start one token too late: row b starts with ids[starts[b]]")
        if not close(inputs, right_inputs):
            wrong("the inputs are not right: row b holds T neighbours, from ids[starts[b]] on")
        if close(targets, right_targets):
            continue
        padded = np.append(ids, -1)  # so that one place too far exists
        reject_known(
            targets,
            {
                "the targets equal the inputs: a model would only have to copy. Which token is "
                "to be predicted at position t?": right_inputs,
                "each target is the token before its input, which the model has already seen": (
                    np.array([[ids[s + t - 1] for t in range(T)] for s in starts])
                ),
                "the targets are shifted by two places; one token is skipped": (
                    np.array([[padded[s + t + 2] for t in range(T)] for s in starts])
                ),
                "the last target of each row is the row's first token: a roll within the row "
                "wraps around, where the text goes on": np.roll(right_inputs, -1, axis=1),
                "every position of a row has the same target; each position predicts the token "
                "that follows itself": np.repeat(right_targets[:, -1:], T, axis=1),
            },
        )
        wrong("the inputs are right, the targets are not: one place further in the text, each")


@check()
def count_gpt_parameters(student: Student, rng: np.random.Generator) -> None:
    """Exercise 10.2: the parameters of a GPT-2, tied embedding counted once."""
    cases = [(50257, 1024, 12, 768), (80, 64, 4, 128), (7, 3, 1, 4)]
    cases += [tuple(int(n) for n in rng.integers((50, 5, 2, 6), (500, 50, 9, 40)))]
    for V, T, L, C in cases:
        got = as_number(student(V, T, L, C), "number of parameters")
        matrices, biases, norms = 12 * C * C, 9 * C, 4 * C
        right = V * C + T * C + L * (matrices + biases + norms) + 2 * C
        known = {
            "one matrix both embeds tokens and scores them; you count it twice": right + V * C,
            "the positions' embeddings are missing": right - T * C,
            "the tokens' embeddings are missing; they do double duty, but they are there": right
            - V * C,
            "the final norm is missing": right - 2 * C,
            "a norm has a scale and a shift; only one of them is counted": right - (2 * L + 1) * C,
            "the blocks' norms are missing: two in each, with a scale and a shift": right
            - 4 * L * C,
            "the norms are missing: two in each block and one after the last": right
            - (4 * L + 2) * C,
            "the linear layers' biases are missing": right - 9 * L * C,
            "attention has a fourth matrix, the output projection, with its bias": right
            - L * (C * C + C),
            "queries, keys and values have a matrix each": right - 2 * L * (C * C + C),
            "the feed-forward network has two matrices, one up and one down": right
            - L * (4 * C * C + C),
            "these are the parameters of a model with one block": right
            - (L - 1) * (matrices + biases + norms),
        }
        if got == right:
            continue
        for message, mistaken in known.items():
            if got == mistaken:
                wrong(message)
        wrong(
            f"for V={V}, T={T}, L={L}, C={C} you are off by {got - right:+,.0f}: count embeddings, "
            "the parts of one block times L, and what comes after the blocks"
        )


def _nucleus(logits: np.ndarray, p: float, *, extra: int = 0, renormalise: bool = True) -> Any:
    """Return the nucleus, with `extra` tokens more or fewer than it should have."""
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    total, size = 0.0, 0
    while size < len(probs) and total < p:
        total += probs[order[size]]
        size += 1
    kept = np.zeros_like(probs)
    chosen = order[: max(size + extra, 0)]
    kept[chosen] = probs[chosen]
    with np.errstate(all="ignore"):
        return kept / kept.sum() if renormalise else kept


@check()
def nucleus_probs(student: Student, rng: np.random.Generator) -> None:
    """Exercise 10.3: the renormalised distribution of the smallest set that reaches p."""

    def outcome(logits: np.ndarray, p: float) -> np.ndarray:
        with np.errstate(all="ignore"):
            return as_array(student(logits, p), logits.shape, "array of probabilities")

    for V, p in ((10, 0.5), (8, 0.7), (12, 0.9), (6, 0.35), (5, 1.0)):
        logits = rng.normal(scale=1.5, size=V)
        got, right = outcome(logits, p), _nucleus(logits, p)
        if close(got, right):
            continue
        probs = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-probs)
        unsorted = right[order]  # the sorted result, not put back
        rising = np.argsort(probs)
        covered = np.cumsum(probs[rising])
        lowest = np.zeros(V)
        lowest[rising[: np.searchsorted(covered, p) + 1]] = 1
        in_order = np.zeros(V)
        in_order[: np.searchsorted(np.cumsum(probs), p) + 1] = 1
        with np.errstate(all="ignore"):
            large = np.where(probs >= p, probs, 0)
            small = np.where(probs >= 1 - p, probs, 0)
            above = np.where(probs >= p * probs.max(), probs, 0)
            reject_known(
                got,
                {
                    "nothing is cut off: this is the softmax": probs,
                    "the right tokens are left, but their probabilities sum to "
                    f"{_nucleus(logits, p, renormalise=False).sum():.2f}; divide "
                    "by their sum": _nucleus(logits, p, renormalise=False),
                    "the token that carries the sum over p is missing: without it the set does "
                    "not reach p": _nucleus(logits, p, extra=-1),
                    "the token that carries the sum over p is missing, and the rest is not "
                    "divided by its sum": _nucleus(logits, p, extra=-1, renormalise=False),
                    "there is one token too many: the sum had reached p without it": _nucleus(
                        logits, p, extra=1
                    ),
                    "your probabilities are sorted; entry i should belong to token i": unsorted,
                    "you keep the unlikely tokens: add up from the likeliest down": lowest
                    * probs
                    / (lowest * probs).sum(),
                    "you add up in the order of the ids; sort by probability first": in_order
                    * probs
                    / (in_order * probs).sum(),
                    "you keep tokens that have a probability of p by themselves; it is the sum "
                    "that is to reach p": large / large.sum(),
                    "you cut by a token's own probability; it is the sum over the likeliest that "
                    "counts": small / small.sum(),
                    "you compare with the largest probability (that is min-p sampling); it is "
                    "the sum over the likeliest that counts": above / above.sum(),
                },
            )
        if not close(got.sum(), 1.0):
            wrong(f"your probabilities sum to {got.sum():.4g}, not to 1")
        kept = int((got > 0).sum())
        wrong(f"you keep {kept} of {V} tokens for p={p}, where {int((right > 0).sum())} are needed")
    logits = np.array([0.0, 6.0, 1.0, -1.0])  # the likeliest alone has more than p
    got = outcome(logits, 0.2)
    if not close(got, [0, 1, 0, 0]):
        wrong(
            "where the likeliest token alone has more than p it should get all the probability; "
            f"yours: {np.round(got, 3).tolist()}"
        )
    got = outcome(np.array([2000.0, 2001.0, -2000.0]), 0.9)
    if not close(got, _nucleus(np.array([2000.0, 2001.0, -2000.0]), 0.9)):
        wrong("logits in the thousands: subtract the largest one before the exponential")


def _attend(query, keys, values, divisor=None) -> np.ndarray:
    """Let one query attend to rows of keys."""
    scores = keys @ query / (math.sqrt(len(query)) if divisor is None else divisor)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ values


@check()
def attend_with_cache(student: Student, rng: np.random.Generator) -> None:
    """Exercise 10.4: one new token's attention over the cache and itself, and the longer cache."""
    for T, D, D_v in ((4, 3, 2), (1, 5, 4), (7, 2, 6), (3, 9, 3), (0, 3, 2)):
        query, key = rng.normal(size=(2, D))
        value = rng.normal(size=D_v)
        keys, values = rng.normal(size=(T, D)), rng.normal(size=(T, D_v))
        parts = _parts(
            student(query, key, value, keys, values), 3, "the output, the keys and the values"
        )
        output = as_array(parts[0], what="output")
        if output.shape == (1, D_v):
            wrong(f"the output has shape (1, {D_v}); one token's output is a vector, ({D_v},)")
        output = as_array(output, (D_v,), "output")
        new_keys = as_array(parts[1], what="array of keys")
        new_values = as_array(parts[2], what="array of values")
        if new_keys.shape == (T, D):
            wrong("the keys you return lack the new token's key: the next token will need it")
        if new_values.shape == (T, D_v):
            wrong("the values you return lack the new token's value: the next token needs it")
        new_keys = as_array(new_keys, (T + 1, D), "array of keys")
        new_values = as_array(new_values, (T + 1, D_v), "array of values")
        all_keys, all_values = np.vstack([keys, key]), np.vstack([values, value])
        if T and close(new_keys, np.vstack([key, keys])):
            wrong("the new key stands before the old ones; rows are in the order of the text")
        if T and close(new_values, np.vstack([value, values])):
            wrong("the new value stands before the old ones; rows are in the order of the text")
        if not close(new_keys, all_keys):
            wrong("the keys should be the old ones, unchanged, and then the new one")
        if not close(new_values, all_values):
            wrong("the values should be the old ones, unchanged, and then the new one")
        right = _attend(query, all_keys, all_values)
        if close(output, right):
            continue
        with np.errstate(all="ignore"):
            scores = all_keys @ query / math.sqrt(D)
            exponentials = np.exp(scores)
            reject_known(
                output,
                {
                    "the scores are not divided by √D": _attend(query, all_keys, all_values, 1),
                    "the scores are divided by D; its square root is asked for": _attend(
                        query, all_keys, all_values, D
                    ),
                    "the scale is taken from the number of keys; take it from their width": _attend(
                        query, all_keys, all_values, math.sqrt(T + 1)
                    ),
                    "the weights are not a softmax: the scores themselves are used": scores
                    @ all_values,
                    "the weights do not sum to 1: divide by the sum of the exponentials": (
                        exponentials @ all_values
                    ),
                    "the new token's key takes the place of its query": _attend(
                        key, all_keys, all_values
                    ),
                },
            )
            if T:
                reject_known(
                    output,
                    {
                        "the new token does not attend to itself: append its key and value before "
                        "you attend": _attend(query, keys, values),
                        "the new token attends to itself alone": value,
                    },
                )
        if T == 0:
            wrong("with an empty cache there is one value to average, so the output must be it")
        wrong("keys and values are right, the output is not softmax(q·K / √D) V over all of them")


@check()
def window_starts(student: Student, rng: np.random.Generator) -> None:
    """Exercise 10.5: the start of the window that scores each token, shape (N - 1,)."""
    cases = [(15, 5, 3), (9, 4, 4), (12, 4, 2), (7, 3, 1), (4, 6, 2), (11, 1, 1)]
    cases.append((int(rng.integers(20, 30)), 8, int(rng.integers(2, 8))))
    for N, length, stride in cases:
        got = as_array(student(N, length, stride), what="array of starts")
        if got.shape == (N,):
            wrong(
                f"you return {N} starts for {N} tokens: the first token has nothing before it and "
                "is not scored"
            )
        got = as_array(got, (N - 1,), "array of starts")
        right = np.zeros(N - 1, dtype=int)
        for token in range(1, N):
            start = 0
            while start + length < token:
                start += stride
            right[token - 1] = start
        if close(got, right):
            continue
        t = np.arange(1, N)

        def closed(t, length, stride=stride, rounding=np.ceil):
            steps = rounding(np.maximum(t - length, 0) / stride)
            return (stride * steps).astype(int)

        latest = stride * ((t - 1) // stride)
        reject_known(
            got,
            {
                "your windows do not overlap; they should start `stride` apart": length
                * ((t - 1) // length),
                "each token is scored by the last window that contains it, with hardly anything "
                "before it; take the first that predicts it": latest,
                "a window that starts at s predicts tokens s + 1 to s + length; yours stop one "
                "short of that": closed(t, length - 1),
                "a window that starts at s predicts tokens s + 1 to s + length; yours go one "
                "further": closed(t, length + 1),
                "the window that starts there ends before the token: round up, so that it is "
                "reached": closed(t, length, rounding=np.floor),
                "each token has a window of its own, as with a stride of 1": np.maximum(
                    t - length, 0
                ),
                "you return which window it is (0, 1, 2, ...), not where it starts": right
                // stride,
                "you return the first token that each window predicts; it starts one before": right
                + 1,
            },
        )
        ends = got + length
        if (got % stride).any():
            wrong(f"a window starts at a multiple of the stride, {stride}; yours: {got.tolist()}")
        if (ends < t).any():
            bad = int(t[ends < t][0])
            wrong(f"token {bad} is not predicted by a window that starts at {got[bad - 1]}")
        bad = int(t[got != right][0])
        wrong(f"an earlier window than the one at {got[bad - 1]} already predicts token {bad}")


def _banned(ids: np.ndarray, n: int) -> set[int]:
    """Look at every place, as the definition says."""
    ids = [int(i) for i in ids]
    end = ids[len(ids) - (n - 1) :] if n > 1 else []
    return {
        ids[place + n - 1] for place in range(len(ids) - n + 1) if ids[place : place + n - 1] == end
    }


@check()
def banned_tokens(student: Student, rng: np.random.Generator) -> None:
    """Exercise 10.6: the tokens that would complete an n-gram that has occurred."""
    cases = [(rng.integers(0, 6, size=40), n) for n in (3, 2, 4)]
    cases += [(rng.integers(0, 3, size=12), 1), (np.arange(6), 3), (np.array([1, 2]), 4)]
    cases += [(np.array([5, 5, 5, 5]), 2), (np.array([9, 1, 2, 3, 1, 2]), 3), (np.array([7]), 2)]
    for ids, n in cases:
        answer = student(ids, n)
        if answer is None:
            wrong("your function returned None: does it end with a `return`?")
        try:
            got = {
                int(token) for token in (answer.tolist() if hasattr(answer, "tolist") else answer)
            }
        except TypeError:
            wrong(f"a set of tokens is asked for, not {answer!r}")
        right = _banned(ids, n)
        if got == right:
            continue
        text = f"for the text {ids.tolist()} and n={n}"
        everything = set(ids.tolist())
        if len(ids) < n and got:
            wrong(f"{text}: the text is shorter than n, so that no n-gram can come twice")
        if n == 1:
            wrong(f"{text}: a 1-gram is a token, so every token of the text is banned")
        if got == everything:
            wrong(f"{text}: you ban all tokens of the text, not those that complete an n-gram")
        if got and got == _banned(ids, n + 1):
            wrong(f"{text}: you compare n tokens; an n-gram is n - 1 tokens and the next one")
        if got == _banned(ids, n - 1):
            wrong(f"{text}: you compare n - 2 tokens; with n - 1 and the next one it is an n-gram")
        if got < right:
            wrong(
                f"{text}: your set misses {len(right - got)} of {len(right)} tokens: look at every "
                "place where the last n - 1 tokens have occurred, overlapping ones included"
            )
        if got > right:
            extra = sorted(got - right)[0]
            wrong(f"{text}: you ban {extra}, but no {n}-gram of the text ends so")
        wrong(f"{text}: the set is not right: which tokens have followed the last n - 1 before?")
