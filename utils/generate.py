"""From logits to text: ways to reshape the next token's distribution, and the loop that draws.

Each function that reshapes takes logits and returns new ones, with minus infinity for a token that
may not come; they equal the logits processors of `transformers`. Chapter 10 derives all of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from utils.arguments import (
    LARGEST_WHOLE,
    SMALLEST_TEMPERATURE,
    as_number,
    as_whole_number,
    check_generator,
    check_ids_range,
    check_ids_shape,
    check_tensor,
    shown,
)
from utils.cache import KVCache


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits: below 1 sharpens the distribution, above 1 flattens it.

    Parameters
    ----------
    logits : torch.Tensor, shape (..., V)
    temperature : float
        Above 0. (`next_token_logits` takes 0 for "always the likeliest".)
    """
    check_tensor("logits", logits, "(..., V)")
    temperature = as_number("temperature", temperature, high=math.inf)
    if not SMALLEST_TEMPERATURE <= temperature < math.inf:
        raise ValueError(
            f"temperature must be above 0 and finite, not {temperature}; for the likeliest token "
            "use argmax"
        )
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens (Fan et al. 2018), and all that tie with the last of them.

    Parameters
    ----------
    logits : torch.Tensor, shape (..., V)
    k : int
        At least 1; more than V keeps all.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, not {k!r}")
    check_tensor("logits", logits, "(..., V)", some=True)
    k = min(k, logits.shape[-1])
    smallest = logits.topk(k, dim=-1).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities reach p: the nucleus.

    Holtzman et al. (2020), equation 2. The likeliest token always stays.

    Parameters
    ----------
    logits : torch.Tensor, shape (..., V)
    p : float
        Above 0, at most 1.
    """
    check_tensor("logits", logits, "(..., V)", some=True)
    p = as_number("p", p)
    if not 0 < p <= 1:
        raise ValueError(f"p is a probability above 0 and at most 1, not {p}")
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probs = ordered.softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs  # what likelier tokens have already covered
    drop = before >= p
    drop[..., 0] = False
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -math.inf)


def penalise_repetition(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make every token that has occurred less likely (Keskar et al. 2019, section 4.1).

    A positive logit is divided by the penalty and a negative one multiplied, so that both fall.
    How often the token occurred makes no difference.

    Parameters
    ----------
    logits : torch.Tensor, shape (B, V)
    ids : torch.Tensor of int, shape (B, T)
        The text so far.
    penalty : float
        1 changes nothing, above 1 discourages.
    """
    penalty = as_number("penalty", penalty, -1e30, 1e30)
    check_tensor("logits", logits)
    check_tensor("ids", ids, kind="int", like=logits)
    if not penalty >= 1e-12:
        raise ValueError(f"the penalty must be above 0 (1 changes nothing), not {penalty}")
    if logits.ndim != 2 or ids.ndim != 2 or logits.shape[0] != ids.shape[0]:
        raise ValueError(
            "logits should have shape (B, V) and ids (B, T) with the same B, not "
            f"{tuple(logits.shape)} and {tuple(ids.shape)}"
        )
    check_ids_range(ids, logits.shape[-1])
    seen = logits.gather(-1, ids)
    return logits.scatter(-1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def next_token_logits(
    logits: Tensor,
    ids: Tensor | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
) -> Tensor:
    """Apply what is asked for in the order of `transformers`: penalty, temperature, top-k, top-p.

    The softmax of the result is what `generate` draws from.

    Parameters
    ----------
    logits : torch.Tensor, shape (B, V)
    ids : torch.Tensor of int, shape (B, T), optional
        The text so far; only the penalty needs it.
    temperature : float
        0 leaves the likeliest token alone (the first of several).
    top_k, top_p, repetition_penalty
        As for the functions of these names.

    Returns
    -------
    torch.Tensor, shape (B, V)
        Minus infinity for what may not come.
    """
    check_tensor("logits", logits, "(B, V)", some=True)
    temperature = as_number("temperature", temperature)
    repetition_penalty = as_number("repetition_penalty", repetition_penalty, high=1e30)
    if top_p is not None:
        top_p = as_number("top_p", top_p, 0, 1)
    if repetition_penalty != 1.0:
        if ids is None:
            raise ValueError("a repetition penalty needs ids, the text so far")
        logits = penalise_repetition(logits, ids, repetition_penalty)
    if temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)
    logits = apply_temperature(logits, temperature)
    logits = logits if top_k is None else keep_top_k(logits, top_k)
    return logits if top_p is None else keep_top_p(logits, top_p)


def draw(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token from each row's softmax.

    It happens on the CPU in 64 bits, by laying the probabilities end to end and seeing where a
    random number falls: with the same seed every device draws the same tokens, as long as its
    logits agree.

    Parameters
    ----------
    logits : torch.Tensor, shape (B, V)
    generator : torch.Generator, optional
        On the CPU.

    Returns
    -------
    torch.Tensor of int64, shape (B, 1)
        On the device of the logits.

    Raises
    ------
    TypeError, ValueError
        If they are no such tensor, or no probabilities follow from them.
    """
    check_tensor("logits", logits, "(B, V)", some=True, values=True)
    check_generator("generator", generator)
    ladder = logits.detach().cpu().double().softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    if not bool(ladder[:, -1].isfinite().all()):
        raise ValueError("logits hold NaN, plus infinity, or a row of minus infinity only")
    points = torch.rand(len(ladder), 1, generator=generator, dtype=torch.float64)
    drawn = torch.searchsorted(ladder, points * ladder[:, -1:], right=True)
    last = (ladder < ladder[:, -1:]).sum(dim=-1, keepdim=True)  # the last token with probability
    return torch.minimum(drawn, last).to(logits.device)


@torch.no_grad()
def generate(
    model: Any,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | torch.Generator | None = None,
    use_cache: bool = True,
    stop_id: int | None = None,
) -> Tensor:
    """Continue texts, one token after the other.

    When the context is full, its older half is forgotten, with or without a cache. (Positions
    then start anew, so that nothing cached can be kept; forgetting a single token instead would
    mean to read the whole context again for each new one.)

    Parameters
    ----------
    model : torch.nn.Module
        Called as `model(ids, cache)`, it returns logits (B, T, V); `model.config` has
        `num_layers` and `context_length`.
    ids : torch.Tensor of int, shape (B, T)
        At least one token each; all of the same length.
    max_new_tokens : int
    temperature, top_k, top_p, repetition_penalty
        As for `next_token_logits`; temperature 0 is greedy. The penalty looks at all of the text,
        also at what the context has forgotten.
    seed : int or torch.Generator, optional
        The same seed gives the same text; without one, torch's global generator is used.
    use_cache : bool
        Keep keys and values (the same tokens, sooner), or read everything again each time.
    stop_id : int, optional
        End when every text has produced this token; a text that has is filled up with it.

    Returns
    -------
    torch.Tensor of int, shape (B, T + number of new tokens)

    Raises
    ------
    ValueError
        If `ids` is not (B, T) with T at least 1, or an option is out of range.
    """
    _check_model(model)
    if isinstance(ids, Tensor) and (ids.ndim != 2 or ids.shape[1] == 0):
        raise ValueError(
            f"ids should have shape (B, T) with T at least 1, not {tuple(ids.shape)}: one text "
            "goes in as ids[None], and an empty one needs a first token, such as a line feed"
        )
    check_ids_shape(ids)
    max_new_tokens = as_whole_number("max_new_tokens", max_new_tokens)
    stop_id = None if stop_id is None else as_whole_number("stop_id", stop_id)
    generator = seed
    if seed is not None and not isinstance(seed, torch.Generator):
        seed = as_whole_number("seed", seed, most=LARGEST_WHOLE)
        generator = torch.Generator().manual_seed(seed)
    options = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
    }
    was_training = model.training
    model.eval()
    try:
        return _continue(
            model, ids, max_new_tokens, options, generator, use_cache=use_cache, stop_id=stop_id
        )
    finally:
        model.train(was_training)


def _check_model(model: Any) -> None:
    """Raise TypeError unless something can be called, has modes, and says its sizes."""
    config = getattr(model, "config", None)
    if not hasattr(model, "eval") or not hasattr(config, "context_length"):
        raise TypeError(
            "model must be called as model(ids, cache) and have a config with num_layers and "
            f"context_length, as GPT has; this is {shown(model)}"
        )


def _continue(
    model: Any,
    ids: Tensor,
    max_new_tokens: int,
    options: dict[str, Any],
    generator: torch.Generator | None,
    *,
    use_cache: bool,
    stop_id: int | None,
) -> Tensor:
    context = model.config.context_length
    begin, cache = max(0, ids.shape[1] - context), None  # what the model reads starts at `begin`
    stopped = torch.zeros(len(ids), 1, dtype=torch.bool, device=ids.device)
    for _ in range(max_new_tokens):
        if ids.shape[1] - begin > context:
            begin, cache = ids.shape[1] - (context + 1) // 2, None
        if use_cache and cache is None:
            room = min(context, ids.shape[1] - begin + max_new_tokens)
            cache = KVCache(model.config.num_layers, room)
        known = 0 if cache is None else cache.length
        logits = model(ids[:, begin + known :], cache)[:, -1]  # (B, V)
        new = draw(next_token_logits(logits, ids, **options), generator)  # (B, 1)
        if stop_id is not None:
            new = torch.where(stopped, stop_id, new)
            stopped |= new == stop_id
        ids = torch.cat([ids, new], dim=1)
        if stop_id is not None and bool(stopped.all()):
            break
    return ids
