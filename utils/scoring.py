"""What a causal language model thinks of a given text: log-probabilities, window by window.

Works with any model that returns logits (B, T, V) for ids (B, T); chapter 10 derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from utils.arguments import (
    as_device,
    as_ids,
    as_whole_number,
    as_whole_numbers,
    check_ids_range,
    check_ids_shape,
    check_tensor,
    shown,
)

Model = Callable[[Tensor], Tensor]


@torch.no_grad()
def log_probs(model: Model, ids: Tensor) -> Tensor:
    """Return log p(x_t | x_<t) of every token but the first, which nothing precedes.

    Parameters
    ----------
    model : callable
        Returns logits (B, T, V) for ids (B, T). Put it into evaluation mode first.
    ids : torch.Tensor of int, shape (B, T)
        T at least 2, and no more than the model's context and 1.

    Returns
    -------
    torch.Tensor, shape (B, T - 1)
        In nats; their sum over T is the text's log-likelihood, given its first token.

    Raises
    ------
    ValueError
        If `ids` is not (B, T) with T at least 2.
    """
    _check_callable(model)
    if isinstance(ids, Tensor) and (ids.ndim != 2 or ids.shape[1] < 2):
        raise ValueError(
            f"ids should have shape (B, T) with T at least 2, not {tuple(ids.shape)}: the first "
            "token is only a context; one text goes in as ids[None]"
        )
    check_ids_shape(ids)
    logits = model(ids[:, :-1])  # (B, T - 1, V)
    check_tensor("what model returns", logits, f"({len(ids)}, {ids.shape[1] - 1}, V)")
    check_ids_range(ids, logits.shape[-1])
    return logits.float().log_softmax(dim=-1).gather(-1, ids[:, 1:, None])[..., 0]


def windows(num_tokens: int, length: int, stride: int) -> list[tuple[int, int]]:
    """Plan how to score a long text with a short context: each token once.

    A window that starts at s reads the tokens s to s + length - 1 and predicts those from s + 1
    to s + length. The first window's predictions all count; after that, windows start `stride`
    later each and only the last `stride` predictions count, so that each has at least
    `length - stride + 1` tokens before it. The last window is moved back to end with the text.

    Parameters
    ----------
    num_tokens : int
        At least 2.
    length : int
        The model's context.
    stride : int
        From 1 (best, and the most work) to `length` (disjoint chunks, the least).

    Returns
    -------
    list of (start, first)
        Where each window starts, and the first token in the text that it scores; it scores up to
        the token at `start + length`, or to the end of a text that is shorter than that.

    Raises
    ------
    ValueError
        If there are too few tokens or the stride does not fit.
    """
    as_whole_number("num_tokens", num_tokens, -1)
    as_whole_numbers(-1, length=length, stride=stride)
    if num_tokens < 2:
        raise ValueError(f"a text of {num_tokens} tokens has nothing to predict: at least 2")
    if not 1 <= stride <= length:
        raise ValueError(
            f"stride={stride} should be from 1 to the window's length, {length}: with a larger one "
            "some tokens would never be scored"
        )
    plan = [(0, 1)]
    scored = min(length, num_tokens - 1)  # the last token scored so far
    while scored < num_tokens - 1:
        first = scored + 1
        scored = min(scored + stride, num_tokens - 1)
        plan.append((scored - length, first))
    return plan


@torch.no_grad()
def sliding_log_probs(
    model: Model,
    ids: Sequence[int] | Tensor,
    length: int,
    stride: int | None = None,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return log p of every token of a long text but the first, by sliding a window along it.

    Parameters
    ----------
    model : callable
        As for `log_probs`.
    ids : sequence of int or torch.Tensor, shape (N,)
    length : int
        How many tokens the model reads at once, at most its context.
    stride : int, optional
        See `windows`; by default half the length.
    batch_size : int
        How many windows at once.
    device : torch.device or str, optional
        Where the model is; by default where `ids` is.

    Returns
    -------
    torch.Tensor, shape (N - 1,)
        On the CPU. `utils.likelihood.perplexity(-result.mean().item())` is the perplexity.

    Raises
    ------
    ValueError
        If `ids` has not one axis, or as `windows`.
    """
    _check_callable(model)
    if not isinstance(ids, Tensor):
        ids = torch.tensor(as_ids("ids", ids), dtype=torch.int64)
    check_tensor("ids", ids, kind="int", values=True)
    length, batch_size = as_whole_numbers(1, length=length, batch_size=batch_size)
    stride = max(length // 2, 1) if stride is None else as_whole_number("stride", stride, 1)
    if ids.ndim != 1:
        raise ValueError(f"ids should be one text, of shape (N,), not {tuple(ids.shape)}")
    ids = ids if device is None else ids.to(as_device("device", device))
    length = min(length, len(ids) - 1)
    plan = windows(len(ids), length, min(stride, length))
    result = torch.empty(len(ids) - 1)
    for begin in range(0, len(plan), batch_size):
        some = plan[begin : begin + batch_size]
        texts = torch.stack([ids[start : start + length + 1] for start, _ in some])
        scores = log_probs(model, texts).cpu()  # (B, length); entry i scores token start + 1 + i
        for (start, first), row in zip(some, scores, strict=True):
            result[first - 1 : start + length] = row[first - 1 - start :]
    return result


def _check_callable(model: Model) -> None:
    if not callable(model) or isinstance(model, type):
        raise TypeError(f"model must be a model or a function of ids, not {shown(model)}")
