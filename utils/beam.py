"""Search for the likeliest sequence: greedy, and with a beam; chapter 11 derives both.

Both work with any decoder: an object that is called with one token for each of N sequences, shape
(N,), and returns logits of the next token, (N, V), and whose `select(rows)` keeps some of the
sequences, perhaps several times. `PrefixDecoder` makes one of a function of whole prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from utils.arguments import (
    LARGEST_SIZE,
    as_number,
    as_whole_number,
    check_function,
    check_rows,
    check_tensor,
    shown,
)


class Decoder(Protocol):
    """What the searches need."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Append a token to each sequence, (N,); return the logits of the next one, (N, V)."""

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order; one may come several times."""


class PrefixDecoder:
    """Make a decoder of a function that is given everything so far, each time.

    Parameters
    ----------
    function : callable
        `function(ids, sources)` with ids of shape (N, T) and sources of shape (N,), which say to
        which of the original sequences each row belongs, returns logits (N, V).
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        check_function(function=function)
        self.function = function
        self.ids: Tensor | None = None
        self.sources: Tensor | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Append a token to each sequence and ask the function."""
        shape = "(N,)" if self.ids is None else f"({len(self.ids)},)"
        check_tensor("tokens", tokens, shape, "int", like=self.ids, some=True)
        new = tokens[:, None]
        if self.sources is None:
            self.sources = torch.arange(len(tokens), device=tokens.device)
        self.ids = new if self.ids is None else torch.cat([self.ids, new], dim=1)
        return self.function(self.ids, self.sources)

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order."""
        check_rows("rows", rows, 0 if self.ids is None else len(self.ids))
        self.ids, self.sources = self.ids[rows], self.sources[rows]


class Found(NamedTuple):
    """What a beam search found, best first.

    Attributes
    ----------
    ids : torch.Tensor, shape (B, K, T)
        Without the start token; after the stop token comes `stop_id` again.
    log_probs : torch.Tensor, shape (B, K)
        In nats; minus infinity where fewer than K sequences exist.
    scores : torch.Tensor, shape (B, K)
        The log-probabilities divided by the length penalty.
    """

    ids: Tensor
    log_probs: Tensor
    scores: Tensor


def length_penalty(length: int, alpha: float) -> float:
    """Return what a log-probability is divided by: ((5 + length) / 6) ** alpha.

    Wu et al. (2016), equation 14. With alpha = 0 it is 1; the larger alpha, the better a long
    sequence fares.

    Raises
    ------
    TypeError, ValueError
        If a length is negative, or alpha not from 0 to 100.
    """
    length, alpha = as_whole_number("length", length), as_number("alpha", alpha, 0, 100)
    return ((5 + length) / 6) ** alpha


@torch.no_grad()
def greedy_search(decoder: Decoder, starts: Tensor, *, max_length: int, stop_id: int) -> Tensor:
    """Take the likeliest next token, always.

    Parameters
    ----------
    decoder : Decoder
    starts : torch.Tensor of int, shape (B,)
        The start token of each sequence.
    max_length : int
        How many tokens to produce at most, the stop token included.
    stop_id : int

    Returns
    -------
    torch.Tensor of int, shape (B, T)
        Without the start token; a sequence that has stopped is filled up with `stop_id`.
    """
    _check(decoder, starts, max_length, stop_id)
    tokens, columns = starts, []
    stopped = torch.zeros_like(starts, dtype=torch.bool)
    for _ in range(max_length):
        logits = _checked_logits(decoder(tokens), starts)  # (B, V)
        tokens = logits.argmax(dim=-1).masked_fill(stopped, stop_id)  # (B,)
        columns.append(tokens)
        stopped |= tokens == stop_id
        if bool(stopped.all()):
            break
    return torch.stack(columns, dim=1)


@torch.no_grad()
def beam_search(
    decoder: Decoder,
    starts: Tensor,
    *,
    beam_size: int,
    max_length: int,
    stop_id: int,
    alpha: float = 0.0,
) -> Found:
    """Keep the K likeliest beginnings at each step, and return the K best sequences.

    At each step every live beginning is continued by every token. Of the best K continuations,
    those that end in the stop token are finished; the best K that do not go on. The search of a
    sequence ends when nothing that is alive can still come among its K best, or at `max_length`,
    where what has not stopped counts as it is. With K large enough nothing is ever dropped, and
    the search is exhaustive. (As long as there are fewer than K beginnings, the decoder is asked
    about impossible ones as well; what it answers makes no difference, if only it answers.)

    Parameters
    ----------
    decoder : Decoder
    starts : torch.Tensor of int, shape (B,)
    beam_size : int
        K.
    max_length : int
        How many tokens to produce at most, the stop token included.
    stop_id : int
    alpha : float
        Of `length_penalty`, at least 0.

    Returns
    -------
    Found

    Raises
    ------
    ValueError
        If the sizes make no sense or alpha is negative.
    """
    _check(decoder, starts, max_length, stop_id)
    alpha = as_number("alpha", alpha, -LARGEST_SIZE, 100)
    _check_size("beam_size", beam_size)
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, not {alpha}: 0 leaves the scores as they are")
    B, K = len(starts), beam_size
    first = _checked_logits(decoder(starts), starts).log_softmax(dim=-1)  # (B, V)
    decoder.select(torch.arange(B, device=starts.device).repeat_interleave(K))
    V = first.shape[-1]
    log_probs = first.new_full((B, K), -math.inf)
    log_probs[:, 0] = 0  # at the beginning there is one beginning
    step = first.repeat_interleave(K, dim=0)  # (B K, V)
    ids = starts.new_full((B, K, 0), stop_id)
    found = Found(ids, torch.full_like(log_probs, -math.inf), torch.full_like(log_probs, -math.inf))
    base = K * torch.arange(B, device=starts.device)[:, None]  # where each sequence's rows begin
    for length in range(1, max_length + 1):
        candidates = (log_probs[:, :, None] + step.view(B, K, V)).flatten(1)  # (B, K V)
        values, places = candidates.topk(min(2 * K, K * V), dim=-1)
        parents, tokens = places // V, places % V  # (B, 2K)
        longer = torch.cat([_rows(ids, parents), tokens[:, :, None]], dim=-1)  # (B, 2K, length)
        ends = tokens == stop_id
        done = ends.clone()
        done[:, K:] = False
        if length == max_length:
            done[:, :K] = True
        finished = values.masked_fill(~done, -math.inf)
        scores = finished / length_penalty(length, alpha)
        found = _best(found, Found(longer, finished, scores), stop_id)
        log_probs, order = values.masked_fill(ends, -math.inf).topk(
            min(K, values.shape[1]), dim=-1
        )  # (B, K)
        best_hope = log_probs[:, 0] / length_penalty(max_length, alpha)
        if length == max_length or bool((found.scores[:, -1] >= best_hope).all()):
            break
        ids = _rows(longer, order)
        decoder.select((base + parents.gather(1, order)).flatten())
        step = decoder(tokens.gather(1, order).flatten()).log_softmax(dim=-1)
    return found


def _rows(ids: Tensor, places: Tensor) -> Tensor:
    """Take rows of each sequence's beam: (B, K, T) and (B, N) -> (B, N, T)."""
    return ids.gather(1, places[:, :, None].expand(-1, -1, ids.shape[2]))


def _best(old: Found, new: Found, stop_id: int) -> Found:
    """Merge what has just been finished (log-probability not -inf) into the K best so far."""
    padded = torch.nn.functional.pad(old.ids, (0, 1), value=stop_id)  # as long as the new ones
    scores, order = torch.cat([old.scores, new.scores], dim=1).topk(old.scores.shape[1], dim=-1)
    log_probs = torch.cat([old.log_probs, new.log_probs], dim=1).gather(1, order)
    return Found(_rows(torch.cat([padded, new.ids], dim=1), order), log_probs, scores)


def _checked_logits(logits: Tensor, starts: Tensor) -> Tensor:
    """Return what a decoder has answered, if it can be gone on with."""
    shape = f"({len(starts)}, V)"
    check_tensor("what decoder returns", logits, shape, like=starts, some=True)
    return logits


def _check(decoder: Decoder, starts: Tensor, max_length: int, stop_id: int) -> None:
    if not callable(decoder) or not hasattr(decoder, "select"):
        raise TypeError(
            f"decoder must be called with tokens and have select(rows), not {shown(decoder)}: "
            "PrefixDecoder(function) makes one"
        )
    check_tensor("starts", starts, kind="int")
    as_whole_number("stop_id", stop_id)
    if starts.ndim != 1 or len(starts) == 0:
        raise ValueError(
            f"starts should hold one token for each sequence, shape (B,), not {tuple(starts.shape)}"
        )
    _check_size("max_length", max_length)


def _check_size(name: str, size: int) -> None:
    is_size = isinstance(size, int) and 1 <= size <= LARGEST_SIZE
    if isinstance(size, bool) or not is_size:
        raise ValueError(f"{name} must be a whole number of at least 1, not {size!r}")
