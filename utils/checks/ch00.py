"""Checks for chapter 0: the warm-ups."""

from __future__ import annotations

import math

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, wrong


@check()
def sequence_probability(student: Student, rng: np.random.Generator) -> None:
    """Exercise 0.1: the probability of a text is the product of the conditional ones."""
    for length in (1, 2, 5, 9):
        probabilities = rng.uniform(0.2, 0.9, size=length)
        got = as_number(student(probabilities), what="probability")
        if close(got, math.prod(probabilities.tolist()), rtol=1e-5):
            continue
        if close(got, math.fsum(np.log(probabilities)), rtol=1e-5):
            wrong("that is the logarithm of the probability; the probability itself is asked for")
        if not 0 <= got <= 1:
            wrong(f"a probability lies between 0 and 1, but yours is {got:.3g}")
        if close(got, probabilities.mean()):
            wrong(
                "you return the average of the probabilities; "
                "how do the probabilities of several events in a row combine?"
            )
        wrong(f"for a text of {length} tokens the probability is not right")


@check()
def sequence_log_probability(student: Student, rng: np.random.Generator) -> None:
    """Exercise 0.2: a sum of logarithms, which neither underflows nor overflows."""
    for length in (1, 3, 20, 100_000):
        probabilities = rng.uniform(1e-6, 0.9, size=length)
        got = as_array(student(probabilities), what="log-probability")
        if got.size == 1 and np.isneginf(got.astype(float)).all():
            wrong(
                f"for {length:,} tokens your result is minus infinity: the product underflows "
                "before the logarithm is taken"
            )
        got = as_number(got, what="log-probability")
        expected = math.fsum(map(math.log, probabilities.tolist()))
        if close(got, expected, rtol=1e-4):
            continue
        if close(got, -expected):
            wrong("the sign is wrong: the logarithm of a number below 1 is negative")
        if close(got, expected / math.log(2)) or close(got, expected / math.log(10)):
            wrong("use the natural logarithm, not the one to base 2 or 10")
        if length > 1 and close(got, expected / length):
            wrong(
                "that is the average over the tokens; the log-probability of the text is asked for"
            )
        wrong(f"for a text of {length:,} tokens the log-probability is not right")


@check()
def all_dot_products(student: Student, rng: np.random.Generator) -> None:
    """Exercise 0.3: every query with every key."""
    for num_queries, num_keys, width in ((1, 1, 1), (2, 5, 3), (4, 4, 4), (6, 2, 8)):
        queries = rng.normal(size=(num_queries, width))
        keys = rng.normal(size=(num_keys, width))
        got = as_array(student(queries, keys), what="matrix")
        expected = np.array([[sum(q * k) for k in keys] for q in queries])
        if close(got, expected):
            continue
        if num_queries != num_keys and close(got, expected.T):
            wrong("your matrix is transposed: queries go down the rows, keys across the columns")
        if got.shape != expected.shape:
            wrong(
                f"{num_queries} queries and {num_keys} keys should give a matrix of shape "
                f"{expected.shape}, but yours has shape {got.shape}"
            )
        wrong("the shape is right, the numbers are not: entry (t, s) is query t times key s")
