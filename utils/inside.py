"""Looking inside a trained Transformer: what its heads do, and what depends on them (chapter 17).

`record_heads` runs a model once and returns the queries, keys, values and weights of every head.
It knows the attention of this course: `utils.bert.Bert`, `utils.gpt.GPT`, `utils.llama.Llama`.

    heads = inside.record_heads(model, ids)
    inside.induction_scores(heads[5].weights, period=25)
    with inside.ablated(model, [(5, 1)]):
        logits = model(ids)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.arguments import (
    LARGEST_WHOLE,
    as_floats,
    as_generator,
    as_integers,
    as_list,
    as_whole_number,
    as_whole_numbers,
    check_function,
    check_ids,
    check_ids_shape,
    check_model,
    check_scalar,
    check_tensor,
    check_type,
    shown,
)
from utils.layers import MultiHeadAttention
from utils.layers_numpy import split_heads
from utils.llama import GroupedQueryAttention
from utils.positions import torch_rope_rotate

Attention = MultiHeadAttention | GroupedQueryAttention


@dataclass(frozen=True)
class Heads:
    """What the heads of one layer did with a batch.

    Parameters
    ----------
    queries, keys, values : torch.Tensor, shape (B, H, T, D)
        After rotary positions, where the model has them; shared keys and values are repeated.
    weights : torch.Tensor, shape (B, H, T, T)
        Rows are queries.
    output_weight : torch.Tensor, shape (H, D, C)
        The slice of the output projection that each head writes through.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    weights: Tensor
    output_weight: Tensor

    def contribution_norms(self) -> Tensor:
        """Return how long the vector is that each token sends to each other one.

        A head adds the sum over s of a_ts v_s W_O to token t; this is the length of each term,
        ‖a_ts v_s W_O‖ (Kobayashi et al. 2020, arXiv:2004.10102, section 3).

        Returns
        -------
        torch.Tensor, shape (B, H, T, T)
        """
        written = torch.einsum("bhsd,hdc->bhsc", self.values, self.output_weight)
        return self.weights * written.norm(dim=-1)[:, :, None, :]


def attention_modules(model: nn.Module) -> list[Attention]:
    """Return the attentions of a model, the first layer's first.

    Raises
    ------
    TypeError
        If there are none of the kinds that are known here.
    """
    check_model("model", model)
    found = [
        m for m in model.modules() if isinstance(m, MultiHeadAttention | GroupedQueryAttention)
    ]
    if not found:
        raise TypeError(
            f"a {type(model).__name__} has none of the course's attentions: load it with "
            "bert.load_bert, gpt.from_transformers or llama.load_llama"
        )
    return found


def num_heads(module: Attention) -> int:
    """Return the number of heads of queries."""
    check_type("module", module, MultiHeadAttention, GroupedQueryAttention)
    grouped = isinstance(module, GroupedQueryAttention)
    return module.config.num_heads if grouped else module.num_heads


@torch.no_grad()
def record_heads(model: nn.Module, ids: Tensor, **inputs: Any) -> list[Heads]:
    """Run a model and return what every head did, one `Heads` for each layer.

    The weights are computed here a second time from the queries and keys: the kernels that a model
    runs on never write them down.

    Parameters
    ----------
    model : Bert, GPT or Llama
    ids : torch.Tensor, shape (B, T)
    **inputs
        Anything else the model takes. Padding is not supported: give texts of one length.

    Raises
    ------
    TypeError
        If the model's attention is not known.
    """
    modules = attention_modules(model)
    check_ids_shape(ids)
    if inputs.get("attention_mask") is not None and not bool(inputs["attention_mask"].all()):
        raise ValueError("record_heads knows no padding: give it texts of one length, or one text")
    seen: list[tuple[Attention, Tensor, bool]] = []

    def hook(module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], _: Tensor) -> None:
        causal = isinstance(module, GroupedQueryAttention) or bool(kwargs.get("is_causal"))
        seen.append((module, args[0], causal))

    with _hooks(m.register_forward_hook(hook, with_kwargs=True) for m in modules):
        model(ids, **inputs)
    return [_heads_of(*each) for each in seen]


def _heads_of(module: Attention, x: Tensor, causal: bool) -> Heads:
    """Compute what one layer's heads do with its input (B, T, C)."""
    H, T = num_heads(module), x.shape[1]
    queries = split_heads(module.query_proj(x), H)  # (B, H, T, D)
    kv_heads = module.config.num_kv_heads if isinstance(module, GroupedQueryAttention) else H
    keys = split_heads(module.key_proj(x), kv_heads)
    values = split_heads(module.value_proj(x), kv_heads)
    if isinstance(module, GroupedQueryAttention):
        base = module.config.rope_base
        queries, keys = (torch_rope_rotate(each, 0, base=base) for each in (queries, keys))
        keys, values = (each.repeat_interleave(H // kv_heads, dim=1) for each in (keys, values))
    scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5  # (B, H, T, T)
    if causal:
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    written = module.output_proj.weight.detach().T.unflatten(0, (H, -1))  # (H, D, C)
    return Heads(queries, keys, values, scores.softmax(dim=-1), written)


@contextmanager
def _hooks(handles: Iterable[Any]) -> Iterator[None]:
    """Remove hooks at the end, whatever happens."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


# ------------------------------------------------------------------------ scores of heads


def previous_token_scores(weights: Tensor) -> Tensor:
    """Return how much of its attention each head gives to the token just before.

    The mean over queries t ≥ 1 of A[t, t - 1] (Elhage et al. 2021).

    Parameters
    ----------
    weights : torch.Tensor, shape (..., T, T)

    Returns
    -------
    torch.Tensor, shape (...)
    """
    return _diagonal_mean(weights, 1, 1)


def induction_scores(weights: Tensor, period: int) -> Tensor:
    """Return how much attention goes to the token after the last occurrence of the query's token.

    For a text that repeats itself after `period` tokens: the mean over the queries t of A[t, t -
    period + 1], from the first t whose token has occurred before (Olsson et al. 2022).

    Parameters
    ----------
    weights : torch.Tensor, shape (..., T, T)
    period : int
        At least 2, and less than T.

    Returns
    -------
    torch.Tensor, shape (...)
    """
    check_tensor("weights", weights, "(..., T, T)", some=True)
    if not 2 <= as_whole_number("period", period, -1) < weights.shape[-1]:
        raise ValueError(
            f"period={period} and {weights.shape[-1]} tokens: a text that repeats itself has a "
            "period of at least 2 and is longer than it"
        )
    return _diagonal_mean(weights, period - 1, period)


def _diagonal_mean(weights: Tensor, back: int, first: int) -> Tensor:
    """Return the mean of A[t, t - back] over t ≥ first."""
    check_tensor("weights", weights, some=True)
    if weights.ndim < 2 or weights.shape[-1] != weights.shape[-2] or weights.shape[-1] <= first:
        raise ValueError(
            f"weights should have shape (..., T, T) with T > {first}, not {tuple(weights.shape)}"
        )
    return weights.diagonal(-back, -2, -1)[..., first - back :].mean(dim=-1)


def repeated_tokens(
    vocab_size: int, batch_size: int, period: int, *, first_id: int = 0, seed: int = 0
) -> Tensor:
    """Return random tokens, each row of them twice in a row, shape (B, 2 period).

    No token occurs twice within a period, so that each has one earlier occurrence. Nothing about
    such a text can be known but that it repeats itself.

    Parameters
    ----------
    vocab_size, batch_size, period : int
    first_id : int
        Ids below are left out, for instance special tokens.
    seed : int

    Raises
    ------
    TypeError, ValueError
        If a number is none, or there are fewer ids than a period needs.
    """
    as_whole_numbers(1, vocab_size=vocab_size, batch_size=batch_size)
    first_id = as_whole_number("first_id", first_id)
    seed = as_whole_number("seed", seed, most=LARGEST_WHOLE)
    if not 0 < as_whole_number("period", period, -1) <= vocab_size - first_id:
        raise ValueError(
            f"cannot draw {period} different tokens from {vocab_size - first_id}: vocab_size is "
            f"{vocab_size}, first_id {first_id} and period {period}"
        )
    generator = torch.Generator().manual_seed(seed)
    rows = [
        torch.randperm(vocab_size - first_id, generator=generator)[:period]
        for _ in range(batch_size)
    ]
    return torch.stack(rows).repeat(1, 2) + first_id


# ------------------------------------------------------------------------ ablation


@contextmanager
def ablated(
    model: nn.Module, heads: Iterable[tuple[int, int]], replace: str = "zero"
) -> Iterator[None]:
    """Switch heads off inside a `with` block: what they would have written is replaced.

    Parameters
    ----------
    model : Bert, GPT or Llama
    heads : iterable of (layer, head)
        Counted from 0.
    replace : {"zero", "mean"}
        By zeros, or by the head's mean over the batch's tokens, which keeps what it always says.

    Raises
    ------
    ValueError
        If there is no such head.
    """
    if not isinstance(replace, str) or replace not in ("zero", "mean"):
        raise ValueError(f"replace={replace!r}: choose 'zero' or 'mean'")
    modules = attention_modules(model)
    chosen: dict[int, set[int]] = {}
    for pair in as_list("heads", heads, tuple, list):
        if len(pair) != 2:
            raise ValueError(f"heads are pairs of a layer and a head, not {pair!r}")
        layer, head = (as_whole_number("heads", each, -LARGEST_WHOLE) for each in pair)
        if not 0 <= layer < len(modules) or not 0 <= head < num_heads(modules[layer]):
            raise ValueError(
                f"there is no head {head} in a layer {layer}: the model has {len(modules)} layers "
                f"of {num_heads(modules[0])} heads, both counted from 0"
            )
        chosen.setdefault(int(layer), set()).add(int(head))

    def silence(layer: int) -> Callable[..., tuple[Tensor]]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            split = args[0].unflatten(-1, (num_heads(modules[layer]), -1)).clone()  # (B, T, H, D)
            for head in chosen[layer]:
                said = split[..., head, :]
                split[..., head, :] = said.mean(dim=(0, 1)) if replace == "mean" else 0.0
            return (split.flatten(-2),)

        return hook

    projections = {layer: modules[layer].output_proj for layer in chosen}
    with _hooks(p.register_forward_pre_hook(silence(i)) for i, p in projections.items()):
        yield


# ------------------------------------------------------------------------ attribution


def attention_rollout(weights: Tensor) -> Tensor:
    """Return how attention mixes the inputs, layer after layer, if half of each is kept.

    Abnar and Zuidema (2020, arXiv:2005.00928), equation 1: the product of ½ (mean over heads + I).

    Parameters
    ----------
    weights : torch.Tensor, shape (L, H, T, T)

    Returns
    -------
    torch.Tensor, shape (T, T)
        Rows are positions of the output, columns inputs; rows sum to 1.
    """
    check_tensor("weights", weights, some=True)
    if weights.ndim != 4 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(f"weights should have shape (L, H, T, T), not {tuple(weights.shape)}")
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    mixed = identity
    for layer in weights.mean(dim=1):  # (T, T)
        mixed = (layer + identity) / 2 @ mixed
    return mixed


def embedding_gradient(
    model: nn.Module,
    ids: Tensor,
    score: Callable[[Tensor], Tensor],
    embeddings: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the tokens' embeddings, and the gradient of a score in them.

    Parameters
    ----------
    model : Bert, GPT or Llama
    ids : torch.Tensor, shape (1, T)
    score : callable
        Makes one number of the model's output.
    embeddings : torch.Tensor, shape (1, T, C), optional
        Put these in the place of the tokens' own.

    Returns
    -------
    embeddings, gradient : torch.Tensor, shape (T, C)
    """
    table = _embedding_of(model)
    check_ids(ids, table.weight)
    check_function(score=score)
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise ValueError(f"ids should have shape (1, T), one text, not {tuple(ids.shape)}")
    if embeddings is not None:
        shape = str((*ids.shape, table.embedding_dim))
        check_tensor("embeddings", embeddings, shape, like=table.weight)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor], output: Tensor) -> Tensor:
        kept.append((output if embeddings is None else embeddings).detach().requires_grad_())
        return kept[-1]

    with torch.enable_grad(), _hooks([table.register_forward_hook(keep)]):
        number = score(model(ids))
        check_scalar("score", number)
        if not number.requires_grad:
            raise ValueError("what score returns does not depend on the embeddings")
        (gradient,) = torch.autograd.grad(number, kept[0])
    return kept[0].detach()[0], gradient[0]


def gradient_times_input(
    model: nn.Module, ids: Tensor, score: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what each token's embedding adds to a score, were the score linear, shape (T,).

    The sum over features of x · ∂score/∂x. Arguments as for `embedding_gradient`.
    """
    embeddings, gradient = embedding_gradient(model, ids, score)
    return (embeddings * gradient).sum(dim=-1)


def integrated_gradients(
    model: nn.Module,
    ids: Tensor,
    score: Callable[[Tensor], Tensor],
    baseline_id: int,
    steps: int = 8,
) -> Tensor:
    """Return what each token adds to a score on the way from a text of fillers, shape (T,).

    The gradient is averaged along the straight line between the embeddings and those of a text in
    which every token is `baseline_id`, by the midpoint rule; the sum over tokens tends to the
    difference of the two scores (Sundararajan et al. 2017, arXiv:1703.01365, equation 1).
    Other arguments as for `embedding_gradient`.
    """
    table = _embedding_of(model)
    check_ids(ids, table.weight)
    check_tensor("ids", ids, "(1, T)", "int")
    baseline_id = as_whole_number("baseline_id", baseline_id, 0, table.num_embeddings - 1)
    steps = as_whole_number("steps", steps, 1)
    with torch.no_grad():
        end, start = table(ids), table(torch.full_like(ids, baseline_id))  # (1, T, C)
    total = torch.zeros_like(end[0])
    for step in range(steps):
        between = start + (step + 0.5) / steps * (end - start)
        total += embedding_gradient(model, ids, score, between)[1]
    return ((end - start)[0] * total / steps).sum(dim=-1)


def _embedding_of(model: nn.Module) -> nn.Embedding:
    """Return the table of tokens' embeddings: the first one of the model."""
    check_model("model", model)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return module
    raise TypeError(f"model, {shown(model)}, has no embeddings: pass a Bert, a GPT or a Llama")


# ------------------------------------------------------------------------ probes


def hidden_states(model: nn.Module, ids: Tensor, **inputs: Any) -> Tensor:
    """Return what enters the first block and what leaves each one, shape (L + 1, B, T, C)."""
    check_ids(ids, _embedding_of(model).weight)
    states: list[Tensor] = []
    blocks = model.blocks
    first = blocks[0].register_forward_pre_hook(lambda _, args: states.append(args[0].detach()))
    rest = [b.register_forward_hook(lambda _, __, out: states.append(out.detach())) for b in blocks]
    with torch.no_grad(), _hooks([first, *rest]):
        model(ids, **inputs)
    return torch.stack(states)


def probe_accuracy(
    train: np.ndarray, train_labels: Sequence[Any], test: np.ndarray, test_labels: Sequence[Any]
) -> float:
    """Fit a linear probe, and return the share of test examples that it gets right.

    The probe is logistic regression on standardised features (Alain and Bengio 2017,
    arXiv:1610.01644).

    Parameters
    ----------
    train, test : numpy.ndarray, shape (N, C)
    train_labels, test_labels : sequence of N labels

    Raises
    ------
    TypeError, ValueError
        If features are no finite numbers, shapes do not fit, or there is one label only.
    """
    train = as_floats("train", train, "(N, C)", finite=True, some=True)
    test = as_floats("test", test, f"(N, {train.shape[1]})", finite=True, some=True)
    train_labels = as_list("train_labels", train_labels, str, int, np.integer)
    test_labels = as_list("test_labels", test_labels, str, int, np.integer)
    if len({isinstance(label, str) for label in train_labels + test_labels}) > 1:
        raise TypeError("train_labels and test_labels must be all strings or all whole numbers")
    for name, labels, features in (
        ("train_labels", train_labels, train),
        ("test_labels", test_labels, test),
    ):
        if labels and not isinstance(labels[0], str):
            as_integers(name, [min(labels), max(labels)])  # no larger than arrays can hold
        if len(labels) != len(features):
            raise ValueError(f"{len(labels)} {name} for {len(features)} examples: give one each")
    if len(set(train_labels)) < 2:
        raise ValueError("train_labels hold one label only: there is nothing to tell apart")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    probe.fit(train, np.asarray(train_labels))
    return float(probe.score(test, np.asarray(test_labels)))


def control_labels(
    words: Iterable[Hashable], labels: Sequence[Any], seed: int = 0
) -> dict[Hashable, Any]:
    """Give each word a label at random: a task in which there is nothing to know but the word.

    Hewitt and Liang (2019, arXiv:1909.03368), section 2. A word's label is drawn from `labels` as
    often as it occurs there, so that the control task has the same shares.

    Returns
    -------
    dict
        From word to label.

    Raises
    ------
    TypeError, ValueError
        If there are no labels, or a word cannot be the key of a dict.
    """
    words = as_list("words", words, Hashable)
    labels = as_list("labels", labels, least=1)
    rng = as_generator("seed", seed)
    types = sorted(set(words), key=str)
    drawn = rng.choice(len(labels), size=len(types))
    return {word: labels[i] for word, i in zip(types, drawn, strict=True)}
