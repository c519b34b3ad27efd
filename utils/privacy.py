"""What a language model has learned by heart: planted secrets and their exposure (chapter 18)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from utils.arguments import (
    as_floats,
    as_list,
    as_number,
    as_whole_number,
    check_rng,
    check_text,
)

__all__ = ["exposure", "plant"]


def plant(text: str, secrets: Sequence[tuple[str, int]], rng: np.random.Generator) -> str:
    """Put sentences into a text at random line ends, each as often as asked.

    Parameters
    ----------
    text : str
    secrets : sequence of (sentence, times)
        Each comes as a line of its own.
    rng : numpy.random.Generator

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        If a sentence is in the text already, or is to come fewer than 0 times, or the arguments
        are of other types.
    """
    check_text(text=text)
    check_rng("rng", rng)
    for pair in as_list("secrets", secrets, tuple, list):
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"secrets are pairs of a sentence and a number, not {pair!r}")
        sentence, times = pair
        if as_whole_number("times", times, -1) < 0:
            raise ValueError(f"{sentence!r} cannot come {times} times")
        if sentence in text:
            raise ValueError(f"{sentence!r} is in the text already: nobody planted it")
    lines = text.split("\n")
    planted = [sentence for sentence, times in secrets for _ in range(times)]
    places = rng.integers(1, len(lines) + 1, size=len(planted))
    for place, sentence in sorted(zip(places.tolist(), planted, strict=True), reverse=True):
        lines.insert(place, sentence)
    return "\n".join(lines)


def exposure(secret_loss: float, other_losses: ArrayLike) -> float:
    """Return how far a secret stands out among all that it could have been, in bits.

    Parameters
    ----------
    secret_loss : float
        The model's negative log-likelihood of the sentence that was planted.
    other_losses : array_like, shape (N,)
        That of the same sentence with other secrets in it, which were never planted: all of them,
        or a random sample.

    Returns
    -------
    float
        log2(N + 1) - log2(rank of the planted one), where rank 1 is the likeliest. 0 says that it
        is the least likely of all; 1 / ln 2, about 1.4, is what a model has on average that never
        saw it; log2(N + 1), the most there can be, that no other secret is as likely.

    Raises
    ------
    TypeError, ValueError
        If there is nothing to compare with, or a loss is no number.

    Notes
    -----
    Carlini et al., The Secret Sharer (2019), definition 5. Of equal losses, half count as lower.
    """
    others = as_floats("other_losses", other_losses, "(N,)", finite=True, some=True)
    secret_loss = as_number("secret_loss", secret_loss)
    rank = 1 + (others < secret_loss).sum() + 0.5 * (others == secret_loss).sum()
    return float(np.log2(len(others) + 1) - np.log2(rank))
