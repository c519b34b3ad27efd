"""Chapter 10's checks accept right answers in any form and reject plausible wrong ones."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import NoRepeatNGramLogitsProcessor

from utils import checks, scoring
from utils.generate import keep_top_p
from utils.gpt import GPT, GPTConfig

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# 10.1


def batch_right(ids, starts, length):
    places = np.asarray(starts)[:, None] + np.arange(length)
    return ids[places], ids[places + 1]


def batch_torch(ids, starts, length):
    ids = torch.tensor(ids)
    rows = torch.stack([ids[s : s + length + 1] for s in starts])
    return rows[:, :-1], rows[:, 1:]


def batch_lists(ids, starts, length):
    inputs = [ids[s : s + length].tolist() for s in starts]
    return inputs, [ids[s + 1 : s + length + 1].tolist() for s in starts]


def batch_shifted(by):
    def answer(ids, starts, length):
        places = np.asarray(starts)[:, None] + np.arange(length)
        return ids[places], ids[np.minimum(places + by, len(ids) - 1)]

    return answer


def batch_rolled(ids, starts, length):
    inputs, _ = batch_right(ids, starts, length)
    return inputs, np.roll(inputs, -1, axis=1)


def batch_swapped(ids, starts, length):
    return batch_right(ids, starts, length)[::-1]


def batch_short(ids, starts, length):
    inputs, targets = batch_right(ids, starts, length)
    return inputs, targets[:, :-1]


def batch_last_only(ids, starts, length):
    inputs, targets = batch_right(ids, starts, length)
    return inputs, np.repeat(targets[:, -1:], length, axis=1)


# 10.2


def count_right(V, T, L, C):
    return V * C + T * C + L * (12 * C**2 + 13 * C) + 2 * C


def count_module(V, T, L, C):
    return sum(p.numel() for p in GPT(GPTConfig(V, T, L, 1, C)).parameters())


def count_without(part):
    def answer(V, T, L, C):
        parts = {
            "tied": -V * C,
            "positions": T * C,
            "final norm": 2 * C,
            "norms": (4 * L + 2) * C,
            "biases": 9 * L * C,
            "output": L * (C * C + C),
            "layers": (L - 1) * (12 * C * C + 13 * C),
            "other": L,
        }
        return count_right(V, T, L, C) - parts[part]

    return answer


# 10.3


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def nucleus(logits, p, *, extra=0, renormalise=True, put_back=True, order=None, stable=True):
    probs = softmax(logits) if stable else np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-probs) if order is None else order(probs)
    size = int((np.cumsum(probs[order]) < p).sum()) + 1 + extra
    kept = np.zeros_like(probs)
    kept[order[:size]] = probs[order[:size]]
    kept = kept if put_back else kept[order]
    return kept / kept.sum() if renormalise else kept


def nucleus_loop(logits, p):
    probs, total, kept = softmax(logits), 0.0, [0.0] * len(logits)
    for i in sorted(range(len(logits)), key=lambda i: -probs[i]):
        if total >= p:
            break
        kept[i] = float(probs[i])
        total += probs[i]
    return [k / total for k in kept]


def nucleus_torch(logits, p):
    return keep_top_p(torch.tensor(logits).float(), p).softmax(-1)


# 10.4


def attend(query, key, value, keys, values, *, divisor=None, front=False, own=True, keep=True):
    new_keys = np.vstack([key, keys] if front else [keys, key])
    new_values = np.vstack([value, values] if front else [values, value])
    k, v = (new_keys, new_values) if own else (keys, values)
    divisor = np.sqrt(len(query)) if divisor is None else divisor
    weights = softmax(k @ query / divisor) if len(k) else np.ones(0)
    return weights @ v, *((new_keys, new_values) if keep else (keys, values))


def attend_torch(query, key, value, keys, values):
    q, k, v, ks, vs = (torch.tensor(a).float() for a in (query, key, value, keys, values))
    ks, vs = torch.cat([ks, k[None]]), torch.cat([vs, v[None]])
    return F.scaled_dot_product_attention(q[None], ks, vs)[0], ks, vs


def attend_loops(query, key, value, keys, values):
    ks, vs = [*keys.tolist(), key.tolist()], [*values.tolist(), value.tolist()]
    scores = [sum(a * b for a, b in zip(query, k, strict=True)) / len(query) ** 0.5 for k in ks]
    weights = softmax(np.array(scores))
    output = [sum(w * v[i] for w, v in zip(weights, vs, strict=True)) for i in range(len(value))]
    return output, ks, vs


def attend_no_softmax(query, key, value, keys, values):
    ks, vs = np.vstack([keys, key]), np.vstack([values, value])
    return ks @ query / np.sqrt(len(query)) @ vs, ks, vs


def attend_matrix(query, key, value, keys, values):
    output, ks, vs = attend(query, key, value, keys, values)
    return output[None], ks, vs


# 10.5


def starts_right(num_tokens, length, stride):
    t = np.arange(1, num_tokens)
    return stride * np.ceil(np.maximum(t - length, 0) / stride).astype(int)


def starts_loop(num_tokens, length, stride):
    start, result = 0, []
    for token in range(1, num_tokens):
        if token > start + length:
            start += stride
        result.append(start)
    return result


def starts_torch(num_tokens, length, stride):
    behind = (torch.arange(1, num_tokens) - length).clamp(min=0)
    return stride * ((behind + stride - 1) // stride)


# 10.6


def banned_right(ids, n):
    ids = list(ids)
    end = ids[len(ids) - n + 1 :]
    places = range(len(ids) - n + 1)
    return {ids[i + n - 1] for i in places if ids[i : i + n - 1] == end}


def banned_transformers(ids, n):
    logits = torch.zeros(1, 64)
    return np.flatnonzero(
        ~NoRepeatNGramLogitsProcessor(n)(torch.tensor(ids)[None], logits)[0].isfinite().numpy()
    )


def banned_dictionary(ids, n):
    followers = {}
    for place in range(len(ids) - n + 1):
        *head, last = (int(i) for i in ids[place : place + n])
        followers.setdefault(tuple(head), []).append(last)
    return followers.get(tuple(int(i) for i in ids[len(ids) - n + 1 :]), [])


def banned_no_overlap(ids, n):
    ids = list(ids)
    end = ids[len(ids) - n + 1 :]
    return {ids[i + n - 1] for i in range(0, len(ids) - n + 1, n) if ids[i : i + n - 1] == end}


def banned_first_only(ids, n):
    ids = list(ids)
    end = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n + 1):
        if ids[i : i + n - 1] == end:
            return {ids[i + n - 1]}
    return set()


RIGHT = {
    "next_token_batch": [batch_right, batch_torch, batch_lists],
    "count_gpt_parameters": [count_right, lambda *sizes: np.float32(count_right(*sizes))],
    "nucleus_probs": [nucleus, nucleus_loop, nucleus_torch],
    "attend_with_cache": [attend, attend_torch, attend_loops],
    "window_starts": [starts_right, starts_loop, starts_torch],
    "banned_tokens": [banned_right, banned_transformers, banned_dictionary],
}

WRONG = {
    "next_token_batch": [
        (batch_shifted(0), "only have to copy"),
        (batch_shifted(-1), "already seen"),
        (batch_shifted(2), "one token is skipped"),
        (batch_rolled, "wraps around"),
        (batch_swapped, "changed places"),
        (batch_short, "two shapes should be equal"),
        (batch_last_only, "same target"),
        (lambda i, s, n: (batch_right(i, s, n)[1],) * 2, "one token too late"),
        (lambda i, s, n: batch_right(i, s, n)[0], "should return 2 things"),
        (lambda i, s, n: None, "None"),
    ],
    "count_gpt_parameters": [
        (count_without("tied"), "count it twice"),
        (count_without("positions"), "positions"),
        (count_without("final norm"), "final norm"),
        (count_without("norms"), "norms are missing"),
        (count_without("biases"), "biases"),
        (count_without("output"), "fourth matrix"),
        (count_without("layers"), "one block"),
        (count_without("other"), "off by -"),
    ],
    "nucleus_probs": [
        (lambda z, p: nucleus(z, p, extra=-1), "the sum over p is missing"),
        (lambda z, p: nucleus(z, p, extra=1), "one token too many"),
        (lambda z, p: nucleus(z, p, renormalise=False), "divide by their sum"),
        (lambda z, p: nucleus(z, p, put_back=False), "entry i should belong to token i"),
        (lambda z, p: nucleus(z, p, order=np.argsort), "unlikely tokens"),
        (lambda z, p: nucleus(z, p, order=lambda q: np.arange(len(q))), "order of the ids"),
        (lambda z, p: softmax(z), "nothing is cut off"),
        (lambda z, p: nucleus(z, p, stable=False), "in the thousands"),
    ],
    "attend_with_cache": [
        (lambda *a: attend(*a, divisor=1), "not divided by √D"),
        (lambda *a: attend(*a, divisor=len(a[0])), "divided by D"),
        (lambda *a: attend(*a, front=True), "before the old ones"),
        (lambda *a: attend(*a, own=False), "does not attend to itself"),
        (lambda *a: attend(*a, keep=False), "next token will need it"),
        (attend_no_softmax, "not a softmax"),
        (attend_matrix, "is a vector"),
        (lambda *a: attend(*a)[0], "should return 3 things"),
        (lambda q, k, v, ks, vs: attend(k, k, v, ks, vs), "place of its query"),
    ],
    "window_starts": [
        (lambda N, n, s: starts_right(N, n, n), "do not overlap"),
        (lambda N, n, s: s * ((np.arange(1, N) - 1) // s), "last window"),
        (lambda N, n, s: starts_right(N, n - 1, s), "one short"),
        (lambda N, n, s: starts_right(N, n + 1, s), "one further"),
        (lambda N, n, s: s * (np.maximum(np.arange(1, N) - n, 0) // s), "round up"),
        (lambda N, n, s: starts_right(N, n, 1), "window of its own"),
        (lambda N, n, s: starts_right(N, n, s) // s, "which window"),
        (lambda N, n, s: starts_right(N + 1, n, s), "first token has nothing before it"),
    ],
    "banned_tokens": [
        (lambda ids, n: banned_right(ids, n + 1), "you compare n tokens"),
        (lambda ids, n: banned_right(ids, max(n - 1, 1)), "n - 2 tokens"),
        (lambda ids, n: set(ids.tolist()), "all tokens"),
        (lambda ids, n: set(), "misses"),
        (banned_no_overlap, "misses"),
        (banned_first_only, "misses"),
        (lambda ids, n: None, "None"),
        (lambda ids, n: 3, "a set of tokens"),
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
    assert set(checks.names(10)) == set(RIGHT) == set(WRONG)


def test_the_references_agree_with_the_library():
    sizes = (50, 9, 3, 8)
    assert count_right(*sizes) == count_module(*sizes)
    for N, length, stride in ((30, 8, 3), (12, 4, 4)):
        starts = starts_right(N, length, stride)
        for start, first in scoring.windows(N, length, stride)[:-1]:  # the last is moved back
            assert starts[first - 1] == start
