"""N-gram language models: one table of counts, and three ways to turn it into probabilities.

    counts = NGramCounts(text, order=5)
    model = KneserNey(counts, order=5, discount=0.8)
    model.distribution("To be, or not to b")  # P(next | context), shape (V,)
    model.log_probs(other_text)  # log P of each of its tokens, shape (T,)
    model.sample(80, seed=0)

Tokens may be anything hashable: the characters of a string, or a list of words. Chapter 1
derives all of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from utils.arguments import as_floats, as_generator, as_number, as_whole_number, check_type
from utils.counting import NGramCounts, Tokens


class NGramModel:
    """What n-gram models share: P_n mixes the evidence of length n with the shorter P_(n-1).

        P_n(w | h) = own_n(h, w) + share_n(h) * P_(n-1)(w | h without its first token)

    down to P_0(w) = 1 / V. Subclasses say what `own` and `share` are, in `_level`. Where a text
    begins there are fewer than order - 1 tokens of context, and the model uses those there are.

    Parameters
    ----------
    counts : NGramCounts
    order : int
        n: the model looks at n - 1 tokens of context. At most `counts.order`.
    """

    def __init__(self, counts: NGramCounts, order: int) -> None:
        self.order = as_whole_number("order", order, 1)
        check_type("counts", counts, NGramCounts)
        if self.order > counts.order:
            raise ValueError(
                f"a model of order {order} needs longer n-grams than the {counts.order} counted: "
                f"make NGramCounts(tokens, order={order})"
            )
        self.counts = counts
        self.vocabulary = counts.vocabulary

    def _level(self, n: int, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `own` and `share` for n-grams given as codes."""
        raise NotImplementedError("use AddK, Interpolated or KneserNey")

    def log_probs(self, tokens: Tokens) -> np.ndarray:
        """Return log P(w_t | the order - 1 tokens before it) for every token, shape (T,)."""
        ids = self.counts.encode(tokens)
        probs = np.full(len(ids), 1 / len(self.vocabulary))
        for n in range(1, min(self.order, len(ids)) + 1):
            grams = self.counts.pack(ids, n)  # (T - n + 1,)
            own, share = self._level(n, grams)
            probs[n - 1 :] = own + share * probs[n - 1 :]
        with np.errstate(divide="ignore"):  # log 0 = -inf is the right answer
            return np.log(probs)

    def log_prob(self, tokens: Tokens) -> float:
        """Return log P(text), the sum of its tokens' log probabilities, in nats."""
        return float(self.log_probs(tokens).sum())

    def distribution(self, context: Tokens = "") -> np.ndarray:
        """Return P(w | context) for every token w of the vocabulary, shape (V,)."""
        check_type("context", context, str, Sequence)
        size = len(self.vocabulary)
        start = max(len(context) - self.order + 1, 0)
        ids = self.counts.encode(context[start:])
        probs = np.full(size, 1 / size)
        for n in range(1, len(ids) + 2):
            context_code = self.counts.pack(ids[len(ids) - n + 1 :], n - 1)
            own, share = self._level(n, context_code * size + np.arange(size))
            probs = own + share * probs
        return probs

    def prob(self, context: Tokens, token: Hashable) -> float:
        """Return P(token | context)."""
        return float(self.distribution(context)[self.counts.encode([token])[0]])

    def sample(
        self,
        length: int,
        seed: int | np.random.Generator = 0,
        prompt: Tokens = "",
        temperature: float = 1.0,
    ) -> Tokens:
        """Draw `length` tokens one after the other, each from its distribution.

        Parameters
        ----------
        length : int
        seed : int or numpy.random.Generator
        prompt : str or sequence of tokens
            What comes before; not part of the result.
        temperature : float
            Draws from P^(1/temperature), normalised: 1 is the model itself, below 1 prefers
            likely tokens more strongly, 0 always takes the likeliest.

        Returns
        -------
        str or list
            A string if the model was trained on one.
        """
        temperature = as_number("temperature", temperature, 0)
        check_type("prompt", prompt, str, Sequence)
        rng = as_generator("seed", seed)
        drawn = list(prompt)
        for _ in range(as_whole_number("length", length, 1)):
            probs = self.distribution(drawn[-self.order :])
            probs = probs / probs.max()  # so that a power of it cannot underflow everywhere
            weights = (probs == 1.0) * 1.0 if temperature == 0 else probs ** (1 / temperature)
            ladder = np.cumsum(weights)
            place = np.searchsorted(ladder, rng.random() * ladder[-1], side="right")
            drawn.append(self.vocabulary[min(place, len(probs) - 1)])
        drawn = drawn[len(prompt) :]
        return "".join(drawn) if self.counts.is_text else drawn


class AddK(NGramModel):
    """Relative counts after adding k to each: P(w | h) = (c(h w) + k) / (c(h) + k V).

    k = 0 is maximum likelihood, k = 1 Laplace's rule. A context that never occurred gets the
    uniform distribution, which for k = 0 is the limit of small k.

    Parameters
    ----------
    counts, order : as for `NGramModel`
    k : float
        At least 0.
    """

    def __init__(self, counts: NGramCounts, order: int, k: float = 0.0) -> None:
        super().__init__(counts, order)
        self.k = as_number("k", k, 0)

    def _level(self, n: int, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts, totals, _ = self.counts.table(n).lookup(grams)
        size = len(self.vocabulary)
        weight = totals + self.k * size
        own = np.where(weight > 0, (counts + self.k) / np.where(weight > 0, weight, 1), 1 / size)
        return own, np.zeros_like(own)


class Interpolated(NGramModel):
    """Linear interpolation of relative counts of all lengths (Jelinek and Mercer 1980).

        P_n(w | h) = lambda_n c(h w) / c(h) + (1 - lambda_n) P_(n-1)(w | h'),

    and P_n = P_(n-1) where the context h never occurred.

    Parameters
    ----------
    counts, order : as for `NGramModel`
    weights : float or sequence of float, shape (order,)
        lambda_1 .. lambda_order, each from 0 to 1; a single number serves for all.
    """

    def __init__(
        self, counts: NGramCounts, order: int, weights: float | Sequence[float] = 0.5
    ) -> None:
        super().__init__(counts, order)
        self.weights = _per_level(weights, "weights", self.order)

    def _level(self, n: int, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts, totals, _ = self.counts.table(n).lookup(grams)
        weight = self.weights[n - 1]
        own = weight * counts / np.maximum(totals, 1)
        return own, np.where(totals > 0, 1 - weight, 1.0)


class KneserNey(NGramModel):
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999).

        P_n(w | h) = max(c(h w) - D, 0) / c(h) + D N1+(h •) / c(h) * P_(n-1)(w | h')

    At the full length c counts occurrences; at every shorter one it counts the distinct tokens
    that came before, N1+(• h w). N1+(h •) is the number of distinct tokens after h. Chen and
    Goodman stop at single tokens; here the last step mixes in the uniform distribution by the
    same formula, so that no token of the vocabulary gets probability zero.

    Parameters
    ----------
    counts, order : as for `NGramModel`
    discount : float or sequence of float, shape (order,)
        D from 0 to 1, for all lengths or for each.
    """

    def __init__(
        self, counts: NGramCounts, order: int, discount: float | Sequence[float] = 0.75
    ) -> None:
        super().__init__(counts, order)
        self.discount = _per_level(discount, "discount", self.order)

    def _level(self, n: int, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = n == self.order
        table = self.counts.table(n) if whole else self.counts.continuation_table(n)
        counts, totals, types = table.lookup(grams)
        discount, safe_totals = self.discount[n - 1], np.maximum(totals, 1)
        own = np.maximum(counts - discount, 0) / safe_totals
        return own, np.where(totals > 0, discount * types / safe_totals, 1.0)


def _per_level(values: float | Sequence[float], name: str, order: int) -> np.ndarray:
    """Return one number from 0 to 1 for each length from 1 to `order`."""
    array = as_floats(name, values).astype(float)
    if array.ndim == 0:
        array = np.full(order, array)
    if array.shape != (order,):
        raise ValueError(f"{name} must be one number or {order}, not of shape {array.shape}")
    if not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"{name} must be from 0 to 1, not {values!r}")
    return array
