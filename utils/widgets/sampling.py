"""The sampling playground: temperature, top-k and top-p on a model's own distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from utils.arguments import as_list, as_number, as_whole_number
from utils.attention import softmax
from utils.likelihood import entropy
from utils.widgets.base import Explorer, pack, unpack

IN_WORDS = 5  # tokens that the explorer's words name


class SamplingPlayground(Explorer, script="sampling.js", style="sampling.css"):
    """Bend next-token distributions, see what is left of them, and draw.

    The reader's browser reshapes the logits as `utils.generate.next_token_logits` does, and draws
    as `utils.generate.draw` does, with a small generator of its own.

    Parameters
    ----------
    contexts : sequence of N str
        The texts after which the model was asked.
    logits : array_like, shape (N, V)
        What it answered.
    tokens : sequence of V str
        What each token stands for.
    temperature, top_k, top_p
        Where the sliders stand at first; `top_k=None` keeps all tokens.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, a logit is not finite, or a setting is no number or out of range.
    """

    def __init__(
        self,
        contexts: Sequence[str],
        logits: ArrayLike,
        tokens: Sequence[str],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> None:
        contexts = as_list("contexts", contexts, str, least=1)
        tokens = as_list("tokens", tokens, str, least=1)
        values = np.asarray(logits, dtype=np.float64)  # (N, V)
        expected = (len(contexts), len(tokens))
        if values.shape != expected or not np.isfinite(values).all():
            raise ValueError(
                f"logits should be finite, a row for each of the {expected[0]} contexts and a "
                f"column for each of the {expected[1]} tokens, not of shape {values.shape}"
            )
        temperature = as_number("temperature", temperature, 0, 3)
        top_k = as_whole_number("top_k", len(tokens) if top_k is None else top_k, 1, len(tokens))
        top_p = as_number("top_p", top_p, 0.05, 1)
        packed = pack(values)
        super().__init__(
            {
                "contexts": contexts,
                "logits": packed,
                "tokens": tokens,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
            },
            words="The next token, and its probability, at temperature 1:\n"
            + "\n".join(
                _in_words(context, row, tokens)
                for context, row in zip(contexts, unpack(packed), strict=True)
            ),
        )


def _in_words(context: str, logits: np.ndarray, tokens: list[str]) -> str:
    probs = softmax(logits)
    best = np.argsort(-probs, kind="stable")[:IN_WORDS]
    named = ", ".join(f"{tokens[i]!r} {probs[i]:.2f}" for i in best)
    return f"after {context!r}: {named} (entropy {entropy(probs):.2f} nats)"
