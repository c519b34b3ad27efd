"""How likely is a text? The measures that judge any language model.

All logarithms are natural, so losses are in nats per token. The n-gram models that chapter 1
builds are in `utils.ngrams`, and can be imported from here as well.
"""

from __future__ import annotations

import numpy as np

from utils.arguments import LARGEST_WHOLE, as_floats, as_number, as_whole_number
from utils.counting import NGramCounts
from utils.ngrams import AddK, Interpolated, KneserNey, NGramModel

__all__ = [
    "AddK",
    "Interpolated",
    "KneserNey",
    "NGramCounts",
    "NGramModel",
    "bits_per_character",
    "cross_entropy",
    "entropy",
    "kl_divergence",
    "negative_log_likelihood",
    "perplexity",
]


def negative_log_likelihood(log_probs: np.ndarray) -> float:
    """Return the average of -log P(token | context), in nats per token.

    Parameters
    ----------
    log_probs : array_like, shape (T,)
        Natural logarithm of the probability that a model gave to each token of a text, such as
        `model.log_probs(text)`. A -inf among them (an event called impossible) gives inf.

    Raises
    ------
    ValueError
        If there are no tokens, or a value is NaN or positive.
    """
    log_probs = as_floats("log_probs", log_probs).astype(float)
    if log_probs.size == 0:
        raise ValueError("no log probabilities given: the average over an empty text is undefined")
    if not np.all(log_probs <= 1e-9):  # NaN fails this too
        raise ValueError(
            "log_probs must be at most 0, but the largest given is "
            f"{np.max(log_probs):.4g}: pass np.log(probabilities), not the probabilities"
        )
    return float(-np.mean(log_probs)) + 0.0  # + 0.0 turns -0.0 into 0.0


def entropy(p: np.ndarray) -> np.ndarray:
    """Return H(p) = -sum p log p over the last axis, in nats (Shannon 1948, section 6).

    Parameters
    ----------
    p : array_like, shape (..., V)
        Each row a probability distribution.

    Raises
    ------
    ValueError
        If a row is not a distribution.
    """
    return cross_entropy(p, p)


def cross_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return H(p, q) = -sum p log q over the last axis, in nats.

    It is infinite where q gives zero to something that p gives more than zero.

    Parameters
    ----------
    p, q : array_like, shape (..., V)
        Distributions over the same V outcomes: p what happens, q what the model expects.

    Returns
    -------
    numpy.ndarray or float, shape (...)

    Raises
    ------
    ValueError
        If a row is not a distribution, or the numbers of outcomes differ.
    """
    p, q = _distribution(p, "p"), _distribution(q, "q")
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"p has {p.shape[-1]} outcomes and q has {q.shape[-1]}: "
            "both must be over the same vocabulary, in the same order"
        )
    try:
        np.broadcast_shapes(p.shape, q.shape)
    except ValueError:
        raise ValueError(f"the shapes of p, {p.shape}, and q, {q.shape}, do not fit") from None
    with np.errstate(divide="ignore", invalid="ignore"):
        # what never happens costs nothing, whatever q says about it: 0 log 0 counts as 0
        return np.where(p > 0, -p * np.log(q), 0.0).sum(axis=-1)


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return KL(p || q) = H(p, q) - H(p) over the last axis, in nats; never negative.

    Parameters, errors: as for `cross_entropy`.
    """
    return np.maximum(cross_entropy(p, q) - entropy(p), 0.0)  # rounding can leave -1e-16


def perplexity(nats_per_token: float) -> float:
    """Return exp(loss): among how many equally likely tokens the model hesitates, on average.

    Parameters
    ----------
    nats_per_token : float
        An average negative log-likelihood; the tokens it is an average over must be stated
        with the perplexity, or the number means nothing.

    Raises
    ------
    ValueError
        If the loss is negative or NaN.
    """
    loss = as_number("nats_per_token", nats_per_token, 0, np.inf)
    with np.errstate(over="ignore"):  # above 709 nats it is infinite, in 64 bits
        return float(np.exp(loss))


def bits_per_character(total_nats: float, num_characters: int) -> float:
    """Return the bits a model needs per character of text, whatever its tokens are.

    Parameters
    ----------
    total_nats : float
        Negative log-likelihood of the whole text: a sum over its tokens, not an average.
    num_characters : int
        Length of the same text in characters.

    Raises
    ------
    ValueError
        If the total is negative or there are no characters.
    """
    total_nats = as_number("total_nats", total_nats, 0, np.inf)
    num_characters = as_whole_number("num_characters", num_characters, 1, LARGEST_WHOLE)
    return total_nats / np.log(2) / num_characters


def _distribution(p: np.ndarray, name: str) -> np.ndarray:
    """Return p as an array whose rows are distributions, or say why they are not."""
    p = as_floats(name, p).astype(float)
    if p.ndim == 0 or p.size == 0:
        raise ValueError(f"{name} must have an axis of outcomes, but its shape is {p.shape}")
    if not np.all(p >= 0):
        raise ValueError(f"{name} has a negative or NaN probability: pass probabilities, not logs")
    total = p.sum(axis=-1)
    if not np.allclose(total, 1, rtol=0, atol=1e-6):
        worst = np.atleast_1d(total)[np.argmax(np.abs(np.atleast_1d(total) - 1))]
        raise ValueError(f"{name} sums to {worst:.6g}, not 1: divide it by its sum")
    return p
