"""Checks for chapter 17: scores of heads, a layer without a head, rollout, selectivity."""

from __future__ import annotations

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


def _maps(rng: np.random.Generator, *shape: int, causal: bool = False) -> np.ndarray:
    """Return random attention weights, (..., T, T), whose rows sum to 1."""
    scores = rng.normal(scale=1.5, size=shape)
    if causal:
        scores = np.where(np.tril(np.ones(shape[-2:], dtype=bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _entries(weights: np.ndarray, back: int, first: int) -> np.ndarray:
    """Return A[t, t - back] for all t >= first."""
    return np.array([weights[t, t - back] for t in range(max(first, back), len(weights))])


@check()
def previous_token_score(student: Student, rng: np.random.Generator) -> None:
    """Exercise 17.1: the mean of A[t, t - 1] over t >= 1."""
    for T, causal in ((6, False), (2, False), (9, True), (int(rng.integers(10, 20)), True)):
        weights = _maps(rng, T, T, causal=causal)
        got = as_number(student(weights), "score")
        entries = _entries(weights, 1, 1)
        right = entries.mean()
        if close(got, right):
            continue
        known = {
            "this is the weight on the token itself (the diagonal); the token before stands one "
            "column further left": np.diagonal(weights).mean(),
            "this is the weight on the next token: rows are queries, so entry [t, t - 1] is wanted"
            "": np.diagonal(weights, 1).mean(),
            "you divide by T; the first query has no token before it, so that there are T - 1 "
            "entries to average": entries.sum() / T,
            "you return the sum; the score is a mean": entries.sum(),
            "this is the weight on the first token": weights[1:, 0].mean(),
            "this is the largest weight, not the mean": entries.max(),
            "this is the weight two tokens back": _entries(weights, 2, 2).mean() if T > 2 else -1,
            "the first query is counted with the last key: index -1 wraps around": np.mean(
                [weights[t, t - 1] for t in range(T)]
            ),
        }
        reject_known(np.asarray(got), known)
        if not 0 <= got <= 1:
            wrong(f"a mean of weights lies between 0 and 1; yours is {got:.3g}")
        wrong(f"for a map of {T} tokens the score is not the mean of the entries [t, t - 1]")


@check()
def induction_score(student: Student, rng: np.random.Generator) -> None:
    """Exercise 17.2: the mean of A[t, t - period + 1] over t >= period."""
    cases = [(10, 5), (7, 3), (12, 4), (9, 2), (int(rng.integers(14, 20)), 6)]
    for T, period in cases:
        weights = _maps(rng, T, T, causal=True)
        got = as_number(student(weights, period), "score")
        back = period - 1
        if close(got, _entries(weights, back, period).mean()):
            continue
        known = {
            "this is the weight on the earlier copy of the token itself; an induction head looks "
            "at the token after it": _entries(weights, period, period).mean(),
            "this is the weight on the token before the earlier copy; the one after it is wanted": (
                _entries(weights, period + 1, period + 1).mean()
            ),
            "you include the query t = period - 1, whose token has not occurred before": _entries(
                weights, back, back
            ).mean(),
            "the first query that counts is t = period: you leave it out": (
                _entries(weights, back, period + 1).mean() if period + 1 < T else -1
            ),
            "you divide by all T; only the queries from t = period on count": (
                _entries(weights, back, period).sum() / T
            ),
            "you return the sum; the score is a mean": _entries(weights, back, period).sum(),
            "rows are queries and columns keys: you have them the other way round": np.mean(
                [weights[t - back, t] for t in range(period, T)]
            ),
            "this is the previous-token score": _entries(weights, 1, 1).mean(),
        }
        reject_known(np.asarray(got), known)
        wrong(
            f"for {T} tokens and a period of {period} this is not the mean of A[t, t - period + 1] "
            "over the queries t from period on"
        )


@check()
def ablate_head(student: Student, rng: np.random.Generator) -> None:
    """Exercise 17.3: the attention layer's output (T, C) with one head silent."""
    for H, T, D, C in ((3, 5, 2, 4), (2, 4, 3, 6), (4, 6, 2, 3)):
        weights, values = _maps(rng, H, T, T), rng.normal(size=(H, T, D))
        projection, bias = rng.normal(size=(H, D, C)), rng.normal(size=C)
        written = np.stack([weights[h] @ values[h] @ projection[h] for h in range(H)])  # (H, T, C)
        for head in {0, H - 1}:
            answer = student(weights, values, projection, bias, head)
            got = as_array(answer, what="output")
            if got.shape == (H, T, C):
                wrong("your output still has an axis for heads; a layer's output is their sum")
            got = as_array(got, (T, C), "output")
            rest = written.sum(axis=0) - written[head]
            right = rest + bias
            if close(got, right):
                continue
            known = {
                "nothing is switched off: this is the layer's whole output": rest
                + written[head]
                + bias,
                "this is what the head writes; the output without it is wanted": written[head],
                "this is the head with the bias; the output without the head is wanted": (
                    written[head] + bias
                ),
                "the bias is missing: it belongs to the layer and stays": rest,
                "the heads are averaged; a layer's output is their sum": written.mean(axis=0)
                - written[head] / H
                + bias,
                "you remove the bias once for each head, or add it once for each: it is there once "
                "": rest + (H - 1) * bias,
                "what is left is scaled up to make good for the loss; ablation only removes": rest
                * (H / (H - 1))
                + bias,
                "an empty slot weighs the values equally: the head's weights are made even, not "
                "its writing removed": right
                + (np.full((T, T), 1 / T) @ values[head] @ projection[head]),
            }
            mistaken = rest + written[head] - written[head - 1] + bias
            known["another head is missing: heads are counted from 0"] = mistaken
            reject_known(got, known)
            wrong(
                f"with head {head} of {H} removed the output is not the sum of the other heads' "
                "weights · values · output weights, and the bias"
            )


def _rollout(weights: np.ndarray, keep: float = 0.5, *, first_left: bool = False) -> np.ndarray:
    """Return rollout with another share of the residual, or the factors in the other order."""
    identity = np.eye(weights.shape[-1])
    result = identity
    for layer in weights.mean(axis=1):
        factor = (1 - keep) * layer + keep * identity
        result = result @ factor if first_left else factor @ result
    return result


@check()
def attention_rollout(student: Student, rng: np.random.Generator) -> None:
    """Exercise 17.4: the product over layers of half the mean map and half the identity."""
    for L, H, T in ((3, 2, 4), (2, 3, 5), (1, 1, 3), (4, 2, 6)):
        weights = _maps(rng, L, H, T, T, causal=T == 5)
        got = as_array(student(weights), (T, T), "rollout")
        right = _rollout(weights)
        if close(got, right):
            continue
        identity = np.eye(T)
        summed = identity
        for layer in weights.mean(axis=1):
            summed = (layer + identity) @ summed
        strongest = identity
        for layer in weights.max(axis=1):
            strongest = (0.5 * layer + 0.5 * identity) @ strongest
        known = {
            "the residual stream is missing: each layer is half attention, half identity": _rollout(
                weights, 0.0
            ),
            "the rows do not sum to 1: attention and identity are added, not averaged": summed,
            "the factors stand in the wrong order: the layer nearest to the input comes last, on "
            "the right": _rollout(weights, first_left=True),
            "this is the mean over layers; rollout multiplies them": (
                0.5 * weights.mean(axis=(0, 1)) + 0.5 * identity
            ),
            "this is the mean of all maps; rollout multiplies the layers": weights.mean(
                axis=(0, 1)
            ),
            "the result is transposed: rows are outputs, columns inputs": right.T,
            "only the last layer is there": 0.5 * weights[-1].mean(axis=0) + 0.5 * identity,
            "you take the maximum over heads; the mean is asked for": strongest,
            "only the first head is used; average over heads": _rollout(weights[:, :1]),
        }
        reject_known(got, known)
        sums = got.sum(axis=1)
        if not close(sums, np.ones(T)):
            wrong(f"each row of a rollout sums to 1; your first row sums to {sums[0]:.3g}")
        wrong("your rows sum to 1, but this is not the product of ½ (mean over heads + identity)")


@check()
def selectivity(student: Student, rng: np.random.Generator) -> None:
    """Exercise 17.5: accuracy on the task minus accuracy on the control task."""
    for N in (40, 12, 60):
        words = [f"word{i}" for i in rng.integers(0, 8, size=N)]
        labels = rng.choice(["x", "y", "z"], size=N).tolist()
        control = {f"word{i}": str(rng.choice(["x", "y", "z"])) for i in range(8)}
        truth = [control[w] for w in words]
        predicted = [a if rng.random() < 0.8 else "x" for a in labels]
        control_predicted = [a if rng.random() < 0.5 else "y" for a in truth]

        def share(first: list[str], second: list[str]) -> float:
            return float(np.mean([a == b for a, b in zip(first, second, strict=True)]))

        task, chance = share(predicted, labels), share(control_predicted, truth)
        got = as_number(student(predicted, labels, control_predicted, words, control), "result")
        if close(got, task - chance):
            continue
        types = sorted(set(words))
        known = {
            "the sign is wrong: the control is subtracted from the task": chance - task,
            "this is the accuracy on the task; the control's is to be subtracted": task,
            "this is the control's accuracy alone": chance,
            "you divide the accuracies; selectivity is their difference": task / max(chance, 1e-9),
            "the control's predictions are compared with the real labels; its own labels come "
            "from `control_label`": task - share(control_predicted, labels),
            "the task's predictions are compared with the control's labels": share(predicted, truth)
            - chance,
            "these are percent; an accuracy is a share from 0 to 1": 100 * (task - chance),
            "these are counts of tokens; divide by N": N * (task - chance),
            "the control's labels are taken in the order of the dictionary; look up the label of "
            "each token's word": task
            - share(control_predicted, [list(control.values())[i % 8] for i in range(N)]),
            "each word is counted once in the control; its tokens all count": task
            - float(np.mean([control_predicted[words.index(w)] == control[w] for w in types])),
        }
        reject_known(np.asarray(got), known)
        if not -1 <= got <= 1:
            wrong(f"a difference of two accuracies lies between -1 and 1; yours is {got:.3g}")
        wrong("this is not the difference between the two accuracies, task minus control")
