"""The beam stepper: beam search over a real decoder's log-probabilities, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from utils.arguments import as_list, as_number, as_whole_number, check_function, check_text
from utils.widgets.base import Explorer

if TYPE_CHECKING:
    from torch import Tensor

WIDEST = 5  # beam size
LARGEST_ALPHA = 2.0
DECIMALS = 4  # of the log-probabilities, in the page


class BeamStepper(Explorer, script="beam.js", style="beam.css"):
    """Go through a beam search step by step, with any beam size up to 5 and any length penalty.

    The page holds what a search can need to know, and no more: for each beginning that a beam of
    1 to 5 keeps, the ten likeliest next tokens. The search in the reader's browser is
    `utils.beam.beam_search`'s, with equal results.

    Parameters
    ----------
    function : callable
        As for `utils.beam.PrefixDecoder`: `function(ids, sources)` with ids of shape (N, T), which
        begin with `start_id`, returns logits of the next token, (N, V).
    pieces : sequence of V str
        What each token stands for.
    start_id, stop_id : int
    max_length : int
        How many tokens a sequence has at most, the stop token included.
    source : str
        What is translated, to be shown above.
    target : str, optional
        The right translation: a sequence that spells it is marked.
    beam_size, alpha
        Where the controls stand at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range, or `pieces` does not fit the logits.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        pieces: Sequence[str],
        *,
        start_id: int,
        stop_id: int,
        max_length: int,
        source: str,
        target: str | None = None,
        beam_size: int = 2,
        alpha: float = 0.0,
    ) -> None:
        check_function(function=function)
        check_text(source=source, target="" if target is None else target)
        pieces = as_list("pieces", pieces, str, least=1)
        for name, token in (("start_id", start_id), ("stop_id", stop_id)):
            as_whole_number(name, token, 0, len(pieces) - 1)
        beam_size = as_whole_number("beam_size", beam_size, 1, WIDEST)
        alpha = as_number("alpha", alpha, 0, LARGEST_ALPHA)
        max_length = as_whole_number("max_length", max_length, 1)
        table = beam_table(
            function, len(pieces), start_id=start_id, stop_id=stop_id, max_length=max_length
        )
        used = {token for row in table.values() for token, _ in row}
        best, log_prob = _greedy(table, stop_id, max_length)
        spelled = "".join(pieces[token] for token in best if token != stop_id)
        super().__init__(
            {
                "table": {
                    " ".join(map(str, prefix)): " ".join(f"{token} {value}" for token, value in row)
                    for prefix, row in table.items()
                },
                "pieces": {str(token): pieces[token] for token in sorted(used)},
                "vocabulary": len(pieces),
                "stop": stop_id,
                "max_length": max_length,
                "source": source,
                "target": target,
                "beam_size": beam_size,
                "alpha": alpha,
            },
            words=f"Beam search for {source!r}"
            + (f", rightly {target!r}" if target else "")
            + f". Greedy search ends with {spelled!r}, log-probability {log_prob:.2f}.",
        )


def beam_table(
    function: Callable[[Tensor, Tensor], Tensor],
    num_tokens: int,
    *,
    start_id: int,
    stop_id: int,
    max_length: int,
) -> dict[tuple[int, ...], list[tuple[int, float]]]:
    """Return the likeliest next tokens after every beginning that a beam may keep.

    What a beam keeps depends neither on the penalty nor on what has finished, so that one run for
    each size finds all of it. Of one beginning's continuations no more than the 2 K best can be
    among the 2 K best of all.

    Returns
    -------
    dict from tuple of int to list of (int, float)
        Beginning (without the start token) -> token and log-probability, best first.
    """
    table: dict[tuple[int, ...], list[tuple[int, float]]] = {}
    for size in range(1, WIDEST + 1):
        live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for _ in range(max_length):
            new = [ids for _, ids in live if ids not in table]
            if new:
                table |= dict(zip(new, _ask(function, new, num_tokens, start_id), strict=True))
            candidates = [
                (total + log_prob, (*ids, token))
                for total, ids in live
                for token, log_prob in table[ids]
            ]
            candidates.sort(key=lambda one: -one[0])  # stable, as the script's
            live = [one for one in candidates[: 2 * size] if one[1][-1] != stop_id][:size]
    return table


def _ask(
    function: Callable[[Tensor, Tensor], Tensor],
    prefixes: list[tuple[int, ...]],
    num_tokens: int,
    start_id: int,
) -> list[list[tuple[int, float]]]:
    """Return the best next tokens, and their log-probabilities, of beginnings of one length."""
    import torch

    ids = torch.tensor([(start_id, *prefix) for prefix in prefixes])  # (N, T)
    with torch.no_grad():
        logits = function(ids, torch.zeros(len(ids), dtype=torch.int64))
    if logits.shape != (len(ids), num_tokens):
        raise ValueError(
            f"function should return logits of shape {(len(ids), num_tokens)}, one for each "
            f"beginning and piece, not {tuple(logits.shape)}"
        )
    best = logits.log_softmax(dim=-1).topk(min(2 * WIDEST, num_tokens), dim=-1)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        [
            (token, round(value, DECIMALS))
            for token, value in zip(tokens, values, strict=True)
            if value > -math.inf
        ]
        for tokens, values in rows
    ]


def _greedy(
    table: dict[tuple[int, ...], list[tuple[int, float]]], stop_id: int, max_length: int
) -> tuple[tuple[int, ...], float]:
    prefix, total = (), 0.0
    while len(prefix) < max_length and stop_id not in prefix:
        token, log_prob = table[prefix][0]
        prefix, total = (*prefix, token), total + log_prob
    return prefix, total
