"""Checks for chapter 11: teacher forcing, the memory's mask, smoothing, beams, precision."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong

IGNORED = -100


def _pair(answer: Any, count: int, what: str) -> tuple[Any, ...]:
    """Return the parts of a tuple, or say that the answer is not one."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, tuple | list) or len(answer) != count:
        wrong(f"your function should return {count} things, {what}, in this order")
    return tuple(answer)


def _filled(rows: list[list[int]], width: int, value: int) -> np.ndarray:
    return np.array([[*row, *[value] * (width - len(row))] for row in rows])


@check()
def teacher_forcing(student: Student, rng: np.random.Generator) -> None:
    """Exercise 11.1: decoder inputs and labels, each (B, T), from lists of target ids."""
    for lengths in ((3, 1, 2), (4,), (0, 2), (5, 5)):
        targets = [rng.integers(10, 99, size=n).tolist() for n in lengths]
        start, stop, pad = 1, 2, 0
        if len(lengths) == 2:
            start, stop, pad = 7, 5, 3
        inputs, labels = _pair(student(targets, start, stop, pad), 2, "inputs and labels")
        T = max(lengths) + 1
        shapes = np.shape(inputs), np.shape(labels)
        if shapes[0] != shapes[1]:
            wrong(
                f"inputs have shape {shapes[0]} and labels {shapes[1]}: each input predicts one "
                "label, so the two shapes are equal"
            )
        inputs, labels = as_array(inputs, what="inputs"), as_array(labels, what="labels")
        if inputs.shape == (len(targets), T - 1):
            wrong(
                f"{T - 1} columns are one too few: the longest target has {T - 1} tokens, and the "
                "end has to be predicted as well"
            )
        if inputs.shape == (len(targets), T + 1):
            wrong(
                f"{T + 1} columns are one too many: inputs get the start token and no stop token, "
                "labels the stop token and no start token"
            )
        inputs = as_array(inputs, (len(targets), T), "array of inputs")
        labels = as_array(labels, (len(targets), T), "array of labels")
        right_inputs = _filled([[start, *row] for row in targets], T, pad)
        right_labels = _filled([[*row, stop] for row in targets], T, IGNORED)
        if not close(inputs, right_inputs):
            reject_known(
                inputs,
                {
                    "your inputs are the targets themselves: the model would read each token at "
                    "the place where it is to predict it": _filled(
                        [[*row, stop] for row in targets], T, pad
                    ),
                    "your inputs are padded with -100; that is no token, so pad them with pad_id": (
                        _filled([[start, *row] for row in targets], T, IGNORED)
                    ),
                    "start and stop token have changed places in your inputs": _filled(
                        [[stop, *row] for row in targets], T, pad
                    ),
                },
            )
            wrong("the inputs are not right: start_id, then the target, then padding")
        if close(labels, right_labels):
            continue
        reject_known(
            labels,
            {
                "your labels equal your inputs: move them by one place": right_inputs,
                "your labels are padded with pad_id, so the loss would count predicting padding; "
                "use -100": _filled([[*row, stop] for row in targets], T, pad),
                "your labels lack the stop token: the model would never learn to end": _filled(
                    targets, T, IGNORED
                ),
                "your labels are padded with stop tokens: one stop is to be learned, not a row of "
                "them": _filled(targets, T, stop),
                "start and stop token have changed places in your labels": _filled(
                    [[*row, start] for row in targets], T, IGNORED
                ),
            },
        )
        wrong("the inputs are right, the labels are not: the target, then stop_id, then -100")


@check()
def memory_mask(student: Student, rng: np.random.Generator) -> None:
    """Exercise 11.2: who may look at what in cross-attention, boolean (B, T_target, T_source)."""
    for B, T_t, T_s, pad in ((3, 2, 5, 0), (2, 6, 3, 9), (1, 1, 1, 0), (2, 4, 4, 0)):
        source = rng.integers(10, 50, size=(B, T_s))
        lengths = rng.integers(1, T_s + 1, size=B)
        lengths[0] = max(1, T_s - 1) if T_s > 1 else 1
        source[np.arange(T_s) >= lengths[:, None]] = pad
        got = as_array(student(source, T_t, pad), what="mask")
        if got.shape == (B, T_s):
            wrong(f"the mask has shape {got.shape}; it needs an axis for the {T_t} queries")
        if got.shape == (B, T_s, T_t) and T_s != T_t:
            wrong("queries and keys have changed places: queries are target tokens, (B, T_t, T_s)")
        got = as_array(got, (B, T_t, T_s), "mask")
        if got.dtype != bool:
            wrong(f"the mask should be boolean, True = may attend; yours is of dtype {got.dtype}")
        real = np.broadcast_to((source != pad)[:, None, :], (B, T_t, T_s))
        if np.array_equal(got, real):
            continue
        causal = np.tri(T_t, T_s, dtype=bool)[None]
        reject_known(
            got,
            {
                "True and False have changed places: True means 'may attend'": ~real,
                "nothing is hidden; padding should be": np.ones_like(real),
                "your mask is causal: the whole source is known before the first target token, so "
                "every position may look at all of it": real & causal,
                "your mask is causal and does not hide padding; it should be the other way "
                "round": np.broadcast_to(causal, real.shape),
            },
        )
        wrong("a target token may attend to every source token that is not padding, and no other")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@check()
def smoothed_loss(student: Student, rng: np.random.Generator) -> None:
    """Exercise 11.3: the label-smoothed cross-entropy of logits (N, V), -100 not counted."""
    cases = [(6, 5, 0.1), (4, 3, 0.3), (5, 8, 0.0), (3, 4, 1.0), (1, 7, 0.2)]
    for case, (N, V, smoothing) in enumerate(cases):
        logits = 2 * rng.normal(size=(N, V))
        targets = rng.integers(0, V, size=N)
        if case < 2:
            targets[1] = IGNORED
        got = as_number(student(logits, targets, smoothing), "loss")
        kept = targets != IGNORED
        log_p = _log_softmax(logits)[kept]
        count, chosen = int(kept.sum()), targets[kept]
        right_log_p = log_p[np.arange(count), chosen]

        def loss(right_share, other_share, log_p=log_p, right_log_p=right_log_p, count=count):
            others = log_p.sum(axis=1) - right_log_p
            return -(right_share * right_log_p + other_share * others).sum() / count

        even = smoothing / V
        right = loss(1 - smoothing + even, even)
        if close(got, right):
            continue
        everything = _log_softmax(logits)
        last = everything[np.arange(N), np.where(kept, targets, -1)]  # -100 taken for an index
        with_ignored = -((1 - smoothing) * last + smoothing * everything.mean(axis=1)).mean()
        known = {
            "you spread ε over the wrong classes only; as torch does it, all V classes get "
            "their share, the right one too": loss(1 - smoothing, smoothing / (V - 1)),
            "the right class gets 1 - ε and not its share of ε: the target distribution does "
            "not sum to 1": loss(1 - smoothing, even),
            "you add ε times the sum over the classes; it is spread over them, so take the "
            "mean": loss(1, smoothing) if smoothing < 1 else math.nan,
            "the two parts have changed places: 1 - ε belongs to the right class": loss(
                smoothing + (1 - smoothing) / V, (1 - smoothing) / V
            ),
            "the sign is wrong: a loss is minus the log-probability": -right,
            "this is the sum over the targets, not their mean": right * count,
            "you divide by all N targets; those of -100 do not count": right * count / N,
            "targets of -100 take part in your loss; leave them out": with_ignored,
            "this is the ordinary cross-entropy: nothing is smoothed": loss(1, 0),
        }
        reject_known(np.asarray(got), known)
        wrong(
            f"for ε = {smoothing} and V = {V} the loss is {got:.4f}; write the target "
            "distribution down and take its cross-entropy"
        )


def _step(scores: np.ndarray, log_probs: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    totals = scores[:, None] + log_probs
    order = np.argsort(-totals.ravel(), kind="stable")[:size]
    return order // totals.shape[1], order % totals.shape[1], totals.ravel()[order]


@check()
def beam_step(student: Student, rng: np.random.Generator) -> None:
    """Exercise 11.4: expand K beginnings by V tokens and keep the best: parents, tokens, scores."""
    for K, V, size in ((3, 5, 3), (1, 6, 4), (4, 3, 2), (2, 7, 5), (3, 3, 9)):
        scores = -4 * rng.random(K)
        log_probs = _log_softmax(1.5 * rng.normal(size=(K, V)))
        if (K, V) == (3, 5):  # the winners share a parent, which "one each" misses
            scores[:] = (-0.1, -6.0, -7.0)
        answer = _pair(student(scores, log_probs, size), 3, "parents, tokens and scores")
        parents, tokens = (
            as_array(part, (size,), what)
            for part, what in zip(answer, ("array of parents", "array of tokens"), strict=False)
        )
        totals = as_array(answer[2], (size,), "array of scores")
        right = _step(scores, log_probs, size)
        if all(close(*pair) for pair in zip((parents, tokens, totals), right, strict=True)):
            continue
        if close(parents, right[1]) and close(tokens, right[0]):
            wrong("parents and tokens have changed places: the parent says which beginning")
        if close(parents, right[0]) and close(tokens, right[1]):
            own = log_probs[right[0], right[1]]
            reject_known(
                totals,
                {
                    "you return the new tokens' log-probabilities; a score is that of the whole "
                    "sequence": own,
                    "you return probabilities; keep adding logarithms": np.exp(right[2]),
                    "scores multiply your log-probabilities; logarithms are added": (
                        scores[right[0]] * own
                    ),
                },
            )
            wrong(
                "parents and tokens are right, the scores are not: old score plus log-probability"
            )
        if close(np.sort(totals), np.sort(right[2])) and not close(totals, right[2]):
            wrong("the best ones are there, but they are to be sorted, the best first")
        known = {
            "you keep the worst continuations; a log-probability nearer to 0 is better": (
                np.sort((scores[:, None] + log_probs).ravel())[:size]
            ),
            "you ignore the scores of the beginnings: a likely token after an unlikely beginning "
            "is not a likely sequence": np.sort(log_probs.ravel())[::-1][:size],
        }
        reject_known(totals, known)
        chosen = log_probs.ravel()[np.argsort(-log_probs.ravel(), kind="stable")[:size]]
        in_range = parents.min() >= 0 and tokens.min() >= 0
        if in_range and parents.max() < K and tokens.max() < V:
            picked = log_probs[parents.astype(int), tokens.astype(int)]
            if close(picked, chosen):
                wrong(
                    "you ignore the scores of the beginnings when you choose: a likely token after "
                    "an unlikely beginning is not a likely sequence"
                )
            if size <= K and len(set(parents.tolist())) == size and len(set(right[0])) < size:
                wrong(
                    "you keep one continuation of each beginning; the best ones of all compete, "
                    "and several may share a parent"
                )
        else:
            wrong(
                "a parent is a row from 0 to K - 1 and a token a column from 0 to V - 1: divide "
                "the place in the flattened table by V, with remainder"
            )
        wrong(f"these are not the best {size} of the {K} × {V} continuations")


@check()
def sequence_score(student: Student, rng: np.random.Generator) -> None:
    """Exercise 11.5: the length-normalised score of one sequence (Wu et al. 2016, eq. 14)."""
    for T, alpha in ((1, 0.6), (7, 0.6), (13, 1.0), (5, 0.0), (20, 0.3), (3, 2.0)):
        log_probs = -3 * rng.random(T) - 0.01
        got = as_number(student(log_probs, alpha), "score")
        total, penalty = log_probs.sum(), ((5 + T) / 6) ** alpha
        if close(got, total / penalty):
            continue
        reject_known(
            np.asarray(got),
            {
                "you divide by the length alone; the penalty is ((5 + T) / 6) ** alpha": total / T,
                "you divide by T ** alpha; here it is ((5 + T) / 6) ** alpha": total / T**alpha,
                "you multiply by the penalty; the log-probability is divided by it": total
                * penalty,
                "you subtract the penalty; the log-probability is divided by it": total - penalty,
                "alpha is an exponent, not a factor": total / (alpha * (5 + T) / 6)
                if alpha
                else math.nan,
                "add the log-probabilities before you divide; yours is their mean": (
                    log_probs.mean() / penalty
                ),
                "this is the product of the log-probabilities; logarithms are added": (
                    np.prod(log_probs) / penalty
                ),
                "the length is not normalised: this is the sum": total,
                "the sign is wrong: a better sequence has a higher score": -total / penalty,
                "the penalty is ((5 + T) / 6) ** alpha: the 6 is inside of the power": (
                    total / ((5 + T) ** alpha / 6)
                ),
            },
        )
        wrong(f"for {T} tokens and alpha = {alpha} the score is {got:.4f}: sum over penalty")


@check()
def clipped_precision(student: Student, rng: np.random.Generator) -> None:
    """Exercise 11.6: BLEU's n-gram precision of one hypothesis, each match used once at most."""
    texts = []
    for n in (2, 3, 1, 4):
        first, second = (" ".join(rng.choice(list("abc"), size=k)) for k in (11, 14))
        texts.append((first, second, n))
    texts += [("a a a a", "a b c a", 1), ("two hundred two hundred two", "two hundred and two", 2)]
    texts += [("a b", "a b c d", 2), ("a b", "a b c d", 3)]
    for ours_text, theirs_text, n in texts:
        hypothesis, reference = ours_text.split(), theirs_text.split()
        got = as_number(student(hypothesis, reference, n), "precision")

        def grams(tokens, n=n):
            return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

        ours, theirs = grams(hypothesis), grams(reference)
        matched = sum((Counter(ours) & Counter(theirs)).values())
        right = matched / len(ours) if ours else 0.0
        if close(got, right):
            continue
        text = f"for {ours_text!r} against {theirs_text!r} with n = {n}"
        if not ours:
            wrong(f"{text}: there is no {n}-gram, so the precision is 0; yours is {got:.3g}")
        unclipped = sum(gram in theirs for gram in ours)
        reject_known(
            np.asarray(got),
            {
                f"{text}: you count every {n}-gram that occurs in the reference; one occurrence "
                "there pays for one here": unclipped / len(ours),
                f"{text}: you divide by the reference's {n}-grams, which gives the recall": matched
                / max(len(theirs), 1),
                f"{text}: you divide by the number of tokens; there are fewer {n}-grams": matched
                / len(hypothesis),
                f"{text}: you count different {n}-grams only; each occurrence counts": len(
                    set(ours) & set(theirs)
                )
                / len(set(ours)),
                f"{text}: this is the number of matches; divide it by the number of {n}-grams": (
                    matched
                ),
                f"{text}: this is a percentage; give a share from 0 to 1": 100 * right,
            },
        )
        wrong(f"{text}: your precision is {got:.3f}")
