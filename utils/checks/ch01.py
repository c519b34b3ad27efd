"""Checks for chapter 1: counting, perplexity, smoothing, bits, continuation counts, EM."""

from __future__ import annotations

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, wrong


@check()
def bigram_probs(student: Student, rng: np.random.Generator) -> None:
    """Exercise 1.1: maximum-likelihood bigram probabilities, shape (V, V)."""
    for _ in range(6):
        size = int(rng.integers(3, 7))
        ids = rng.integers(0, size - 1, size=int(rng.integers(20, 60)))  # the last id never occurs
        ids[-1] = ids[0]
        pairs = list(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
        counts = np.array([[pairs.count((h, w)) for w in range(size)] for h in range(size)])
        totals = counts.sum(1, keepdims=True)
        expected = np.where(totals > 0, counts / np.maximum(totals, 1), 1 / size)
        probs = as_array(student(ids, size), (size, size), "table of probabilities")
        if close(probs, expected):
            continue
        seen = totals[:, 0] > 0
        if close(probs, counts):
            wrong("these are counts; divide each row by its sum to get probabilities")
        if close(probs, counts / counts.sum()):
            wrong(
                "the whole table sums to 1, so these are joint probabilities P(h, w); "
                "P(w | h) needs every row to sum to 1"
            )
        if close(probs[:, seen], expected.T[:, seen]):
            wrong("rows and columns are swapped: row h should hold P(. | h)")
        with np.errstate(invalid="ignore"):
            columns = np.nan_to_num(counts / counts.sum(0))
        if close(np.nan_to_num(probs)[seen], columns[seen]):
            wrong("you divide by what a column sums to; the context h is the row")
        if close(np.nan_to_num(probs)[:, seen], columns.T[:, seen]):
            wrong("row h of your table says what came before h, not what comes after it")
        occurrences = np.bincount(ids, minlength=size)[:, None]
        if close(probs[seen], (counts / np.maximum(occurrences, 1))[seen]):
            wrong(
                "one row does not sum to 1: the last token of the text has nothing after it, so it "
                "must not be counted as a context there"
            )
        if np.isnan(probs[~seen]).any():
            wrong(
                "a token that nothing ever follows gives 0/0 = nan in its row; "
                "the docstring says what that row should be"
            )
        if close(probs[seen], expected[seen]):
            wrong(
                "the rows of seen contexts are right, but a context that never occurs got "
                f"{np.round(probs[~seen][0], 3)}; with no evidence, prefer no token to another"
            )
        if not close(probs.sum(1), np.ones(size), atol=1e-4):
            wrong(f"every row should sum to 1, but yours sum to {np.round(probs.sum(1), 3)}")
        wrong("each row sums to 1, but the probabilities are not the relative counts of the pairs")


@check()
def perplexity_from_probs(student: Student, rng: np.random.Generator) -> None:
    """Exercise 1.2: perplexity from the probability given to each token."""
    for length in (1, 4, 30):
        probs = rng.uniform(0.02, 0.9, size=length)
        loss = -np.mean(np.log(probs))
        got = as_number(student(probs), "perplexity")
        if close(got, np.exp(loss)):
            continue
        if close(got, loss):
            wrong("that is the average negative log-likelihood; perplexity is its exponential")
        if close(got, np.exp(-loss)):
            wrong("your answer is below 1: mind the sign; a branching factor is at least 1")
        if close(got, 1 / np.mean(probs)):
            wrong(
                "you averaged the probabilities; average their logarithms (the probability of the "
                "text is a product, so its mean is a geometric one)"
            )
        if close(got, np.exp(-np.sum(np.log(probs)))):
            wrong("that grows with the length of the text: use the average per token, not the sum")
        if close(got, np.exp(loss / np.log(2))) or close(got, 2**loss):
            wrong("the base of the logarithm and the base of the power must be the same number")
        wrong(f"for probabilities {np.round(probs[:4], 2)} your answer {got:.4g} is not right")
    try:
        got = as_number(student(np.full(2000, 0.125)), "perplexity")
    except Exception as error:
        wrong(f"on a text of 2000 tokens it fails: {error}. Does a product underflow to zero?")
    if not close(got, 8.0):
        wrong("on a text of 2000 tokens the answer is off: does a product underflow to zero?")


@check()
def add_k_probs(student: Student, rng: np.random.Generator) -> None:
    """Exercise 1.3: add-k smoothing of a table of counts, shape (M, V)."""
    for k in (1.0, 0.5, 0.01):
        rows, size = rng.integers(2, 5), rng.integers(3, 8)
        counts = rng.integers(0, 6, size=(rows, size))
        counts[0] = 0
        counts[1, 0] = 0
        expected = (counts + k) / (counts.sum(1, keepdims=True) + k * size)
        probs = as_array(student(counts, k), (rows, size), "table of probabilities")
        if close(probs, expected):
            continue
        total = counts.sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            candidates = {
                "k is not added anywhere: these are the unsmoothed relative counts": counts / total,
                "k was added to the counts but not to their total, so the rows sum to more than 1; "
                "how much did all of a row's counts grow together?": (counts + k) / total,
                "the total grew by k for each token, and there are V of them, but yours grew by "
                "one k": (counts + k) / (total + k),
                "k was added to seen tokens only: the unseen ones are what this is for": np.where(
                    counts > 0, counts + k, 0
                )
                / (total + k * (counts > 0).sum(1, keepdims=True)),
                "this always adds 1, whatever k is": (counts + 1) / (total + size),
                "each row has a distribution of its own; you divide by the sum of the whole "
                "table": (counts + k) / (counts + k).sum(),
                "you normalise the columns; each row is a context": (counts + k)
                / (counts + k).sum(0),
            }
        for message, mistaken in candidates.items():
            if mistaken.shape == probs.shape and np.allclose(
                probs, mistaken, rtol=1e-4, equal_nan=True
            ):
                wrong(message)
        if not close(probs.sum(1), np.ones(rows)):
            wrong(f"every row should sum to 1, but yours sum to {np.round(probs.sum(1), 3)}")
        wrong(
            f"the rows sum to 1, but for k = {k} the probabilities are not (c + k) / (total + kV)"
        )


@check()
def bits_per_char(student: Student, rng: np.random.Generator) -> None:
    """Exercise 1.4: bits per character from the log-probabilities of any tokens."""
    for _ in range(5):
        num_tokens = int(rng.integers(3, 40))
        num_characters = num_tokens * int(rng.integers(2, 6)) + 1
        log_probs = np.log(rng.uniform(0.001, 0.9, size=num_tokens))
        total = -log_probs.sum()
        got = as_number(student(log_probs, num_characters), "number of bits")
        if close(got, total / np.log(2) / num_characters):
            continue
        candidates = {
            "that is bits per token: divide by the number of characters": total
            / np.log(2)
            / num_tokens,
            "that is nats per character: one nat is 1/ln 2 bits": total / num_characters,
            "that is nats per token: change the unit and divide by the characters": total
            / num_tokens,
            "the sign is wrong: log-probabilities are negative, bits are not": -total
            / np.log(2)
            / num_characters,
            "you multiplied by ln 2; a nat is more than a bit, so the number must grow": total
            * np.log(2)
            / num_characters,
            "that is for the whole text: divide by the number of characters": total / np.log(2),
            "you averaged over the tokens first and then divided by the characters as well": total
            / np.log(2)
            / num_tokens
            / num_characters,
        }
        for message, mistaken in candidates.items():
            if close(got, mistaken):
                wrong(message)
        wrong(
            f"for {num_tokens} tokens and {num_characters} characters, {got:.4g} is not right: "
            "write down the unit of each quantity you multiply"
        )


@check()
def continuation_probs(student: Student, rng: np.random.Generator) -> None:
    """Exercise 1.5: Kneser and Ney's continuation probability of every token, shape (V,)."""
    for _ in range(6):
        size = int(rng.integers(4, 8))
        ids = rng.choice(size, size=int(rng.integers(30, 60)), p=rng.dirichlet(np.ones(size)))
        pairs = list(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
        before = np.array([len({h for h, w in pairs if w == token}) for token in range(size)])
        after = np.array([len({w for h, w in pairs if h == token}) for token in range(size)])
        seen = np.array([sum(w == token for _, w in pairs) for token in range(size)])
        probs = as_array(student(ids, size), (size,), "vector of probabilities")
        if close(probs, before / before.sum()):
            continue
        if close(probs, before):
            wrong("these are the numbers of different predecessors; divide by their sum")
        if close(probs, seen / seen.sum()) or close(
            probs, np.bincount(ids, minlength=size) / len(ids)
        ):
            wrong(
                "that is how often a token occurs; count each different predecessor once, "
                "however often the pair occurs"
            )
        if close(probs, after / after.sum()):
            wrong("you count the different tokens that come after it; look at those before it")
        if close(probs, before / size):
            wrong(
                f"these sum to {probs.sum():.3g}, not 1: divide by the number of different "
                "pairs, not by the number of tokens"
            )
        if close(probs, before / len(pairs)):
            wrong("divide by the number of different pairs: you count repeated pairs each time")
        without_itself = before - np.array([(token, token) in pairs for token in range(size)])
        if without_itself.sum() and close(probs, without_itself / without_itself.sum()):
            wrong("a token may follow itself: that is a predecessor like any other")
        if not close(probs.sum(), 1.0):
            wrong(f"the probabilities should sum to 1, but yours sum to {probs.sum():.4g}")
        wrong("they sum to 1, but are not in proportion to the numbers of different predecessors")


@check()
def em_weights(student: Student, rng: np.random.Generator) -> None:
    """Exercise 1.6: interpolation weights by expectation maximisation, shape (M,)."""
    for num_models in (2, 3, 5):
        probs = rng.beta(0.5, 2, size=(200, num_models)) * np.linspace(0.4, 1, num_models)
        probs[rng.random(probs.shape) < 0.1] = 0
        probs[:, 0] = 0.05  # like a uniform model: never zero
        equal = np.full(num_models, 1 / num_models)
        first = (probs * equal / (probs @ equal)[:, None]).mean(0)
        got = as_array(student(probs, 1), (num_models,), "vector of weights").astype(float)
        if np.isnan(got).any():
            wrong("the weights contain nan: some models give some tokens probability 0; avoid log")
        if not close(got.sum(), 1.0):
            wrong(f"the weights should sum to 1, but yours sum to {got.sum():.4g}")
        if not close(got, first):
            _explain_first_step(got, probs, equal)
        _check_convergence(student, probs)


def _explain_first_step(got: np.ndarray, probs: np.ndarray, equal: np.ndarray) -> None:
    """Say why one step from equal weights is wrong."""
    if close(got, equal):
        wrong("after one step the weights are still equal: is the update stored, and is it run?")
    if close(got, probs.sum(0) / probs.sum()):
        wrong(
            "each token must share out exactly one unit of credit: normalise the credits within "
            "each token before you average over tokens"
        )
    winners = np.bincount(probs.argmax(1), minlength=len(equal)) / len(probs)
    if close(got, winners):
        wrong("you give each token wholly to its best model; EM shares it in proportion")
    wrong("one step from equal weights should give the average share of credit of each model")


def _check_convergence(student: Student, probs: np.ndarray) -> None:
    """Many steps must climb to the optimum, which is found here by another road."""
    few, many = (
        as_array(student(probs, steps), (probs.shape[1],), "vector of weights").astype(float)
        for steps in (5, 400)
    )
    if not (close(few.sum(), 1.0) and close(many.sum(), 1.0)):
        wrong("after several steps the weights no longer sum to 1")
    loss = {steps: -np.log(probs @ w).mean() for steps, w in ((5, few), (400, many))}
    if not loss[400] < loss[5]:
        wrong(
            "400 steps are no better than 5: does every step use the weights of the step before, "
            "and does num_steps decide how many there are?"
        )
    # The loss is convex in the weights. At its minimum the average of p_m / (sum of w p) is at
    # most 1 for every model (the Karush-Kuhn-Tucker conditions).
    gradient = (probs / (probs @ many)[:, None]).mean(0)
    if gradient.max() > 1.02:
        wrong("after 400 steps the held-out loss could still be lower: look at the update again")
