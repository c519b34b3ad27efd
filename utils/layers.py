"""The Transformer block and its parts as torch modules; chapter 6 derives them in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    as_eps,
    as_number,
    as_whole_number,
    as_whole_numbers,
    check_alike,
    check_features,
    check_function,
    shown,
)
from utils.attention import causal_mask, torch_attention
from utils.layers_numpy import merge_heads, split_heads

Rotate = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class LayerNorm(nn.Module):
    """Give each token's features mean 0 and variance 1, then scale and shift each feature.

    Ba, Kiros and Hinton (2016), equations 3 and 4, over the last axis: what `torch.nn.LayerNorm`
    does, with the same names of parameters.

    Parameters
    ----------
    d_model : int
        C, the width of the input.
    eps : float
        Added to the variance. BERT has 1e-12, GPT-2 1e-5.
    bias : bool
        Whether there is a shift.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.d_model, self.eps = as_whole_number("d_model", d_model, 1), as_eps("eps", eps)
        self.weight = nn.Parameter(torch.ones(self.d_model))
        self.bias = nn.Parameter(torch.zeros(self.d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`, (..., C)."""
        check_features("x", x, self.weight)
        return F.layer_norm(x, (self.d_model,), self.weight, self.bias, self.eps)


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own slice of the width, and a linear mix.

    Vaswani et al. (2017), section 3.2.2.

    Parameters
    ----------
    d_model : int
        C, the width of the input and of the output.
    num_heads : int
        H; each head is D = C / H wide.
    dropout : float
        The probability with which an attention weight is set to zero in training.
    bias : bool
        Whether the four linear layers have biases.

    Raises
    ------
    ValueError
        If `num_heads` does not divide `d_model`, or `dropout` is not from 0 to 1.
    """

    def __init__(
        self, d_model: int, num_heads: int, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        as_whole_numbers(1, d_model=d_model, num_heads=num_heads)
        if d_model % num_heads:
            raise ValueError(
                f"d_model={d_model} cannot be split evenly into num_heads={num_heads} heads: "
                "choose num_heads that divides d_model"
            )
        self.d_model, self.num_heads = d_model, num_heads
        self.dropout_p = as_number("dropout", dropout, 0, 1)
        self.query_proj = nn.Linear(d_model, d_model, bias=bias)
        self.key_proj = nn.Linear(d_model, d_model, bias=bias)
        self.value_proj = nn.Linear(d_model, d_model, bias=bias)
        self.output_proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        rotate: Rotate | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let each token of `x` look at the tokens of `context`.

        Parameters
        ----------
        x : torch.Tensor, shape (B, T_q, C)
            Queries come from here.
        context : torch.Tensor, shape (B, T_k, C), optional
            Keys and values come from here; by default from `x` (self-attention).
        attention_mask : torch.Tensor of bool, optional
            True = may attend. Shape (T_q, T_k), the same for all; (B, T_q, T_k), one for each
            sequence; or (B, H, T_q, T_k), one for each head. Any axis may be 1. A padding mask
            (B, T_k) therefore goes in as `mask[:, None, :]`. A query that may attend to nothing
            gets zeros from all heads, so that its output is the output projection's bias.
        is_causal : bool
            Besides, let each query attend only to itself and to what comes before it
            (`attention.causal_mask`: with fewer queries than keys the queries are the last).
        rotate : callable, optional
            Applied to the queries and to the keys, (B, H, T, D), for rotary positions.
        return_weights : bool
            Return the attention weights as well, at the price of a slower kernel.

        Returns
        -------
        output : torch.Tensor, shape (B, T_q, C)
        weights : torch.Tensor, shape (B, H, T_q, T_k)
            Before dropout; only with `return_weights`.

        Raises
        ------
        TypeError
            If the mask is not a boolean tensor.
        ValueError
            If shapes do not fit.
        """
        check_features("x", x, self.query_proj, axes=3)
        context = x if context is None else context
        check_features("context", context, self.key_proj, axes=3)
        if context.shape[0] != x.shape[0]:
            raise ValueError(
                f"context of shape {tuple(context.shape)} is for {context.shape[0]} sequences, but "
                f"x has {x.shape[0]}: each needs one"
            )
        queries = split_heads(self.query_proj(x), self.num_heads)  # (B, H, T_q, D)
        keys = split_heads(self.key_proj(context), self.num_heads)  # (B, H, T_k, D)
        values = split_heads(self.value_proj(context), self.num_heads)  # (B, H, T_k, D)
        if rotate is not None:
            queries, keys = (_rotated(rotate, each) for each in (queries, keys))
        T_q, T_k = queries.shape[2], keys.shape[2]
        mask = _mask_for_heads(attention_mask, (x.shape[0], self.num_heads, T_q, T_k))
        if mask is not None:
            check_alike("attention_mask", mask, x)
        if is_causal and (mask is not None or return_weights or T_q != T_k):
            causal = torch.from_numpy(causal_mask(T_q, T_k)).to(x.device)
            mask, is_causal = causal if mask is None else mask & causal, False
        dropout_p = self.dropout_p if self.training else 0.0
        weights = None
        if return_weights:
            heads, weights = torch_attention(queries, keys, values, mask, dropout_p=dropout_p)
        elif mask is None:
            heads = F.scaled_dot_product_attention(
                queries, keys, values, dropout_p=dropout_p, is_causal=is_causal
            )
        else:
            nothing = ~mask.any(dim=-1, keepdim=True)  # no kernel is asked what 0 / 0 is
            heads = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask | nothing, dropout_p=dropout_p
            ).masked_fill(nothing, 0.0)
        output = self.output_proj(merge_heads(heads))  # (B, T_q, C)
        return output if weights is None else (output, weights)


class FeedForward(nn.Module):
    """A small network for each token alone: widen, bend, narrow.

    Vaswani et al. (2017), section 3.3, with a choice of activation.

    Parameters
    ----------
    d_model : int
        C, the width of the input and of the output.
    d_hidden : int, optional
        The width in between, by default 4 C.
    activation : str or callable
        "gelu" (exact), "gelu_tanh" (as in GPT-2), "relu", or a function of a tensor.
    bias : bool
        Whether the two linear layers have biases.

    Raises
    ------
    ValueError
        If the activation is not known.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        activation: str | Callable[[Tensor], Tensor] = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not callable(activation) and activation not in list(ACTIVATIONS):
            raise ValueError(
                f"unknown activation {activation!r}: choose one of {sorted(ACTIVATIONS)}, "
                "or pass a function of a tensor"
            )
        self.d_model = as_whole_number("d_model", d_model, 1)
        self.d_hidden = (
            4 * d_model if d_hidden is None else as_whole_number("d_hidden", d_hidden, 1)
        )
        self.activation = activation if callable(activation) else ACTIVATIONS[activation]
        _check_elementwise("activation", self.activation, torch.zeros(2))
        self.up_proj = nn.Linear(self.d_model, self.d_hidden, bias=bias)
        self.down_proj = nn.Linear(self.d_hidden, self.d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`, (..., C)."""
        check_features("x", x, self.up_proj)
        return self.down_proj(self.activation(self.up_proj(x)))


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward network, each added to what came in, each with a norm.

    With `norm_first` a sublayer f computes x + dropout(f(norm(x))), as in GPT-2; without,
    norm(x + dropout(f(x))), as in Vaswani et al. (2017) and BERT.

    Parameters
    ----------
    d_model, num_heads
        As for `MultiHeadAttention`.
    d_hidden, activation
        As for `FeedForward`.
    dropout : float
        For the attention weights, and for what each sublayer adds.
    norm_first : bool
    cross_attention : bool
        Whether there is a third sublayer, between the two, that attends to `context`.
    bias : bool
        Whether linear layers and norms have biases.
    norm_eps : float

    Raises
    ------
    ValueError
        As the parts do.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_hidden: int | None = None,
        dropout: float = 0.0,
        norm_first: bool = True,
        *,
        activation: str | Callable[[Tensor], Tensor] = "gelu",
        cross_attention: bool = False,
        bias: bool = True,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(d_model, num_heads, dropout, bias)
        self.attention_norm = LayerNorm(d_model, norm_eps, bias)
        self.cross_attention = self.cross_attention_norm = None
        if cross_attention:
            self.cross_attention = MultiHeadAttention(d_model, num_heads, dropout, bias)
            self.cross_attention_norm = LayerNorm(d_model, norm_eps, bias)
        self.feed_forward = FeedForward(d_model, d_hidden, activation, bias)
        self.feed_forward_norm = LayerNorm(d_model, norm_eps, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        rotate: Rotate | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Return a tensor of the shape of `x`, (B, T, C).

        Parameters
        ----------
        x : torch.Tensor, shape (B, T, C)
        attention_mask, is_causal, rotate
            As for `MultiHeadAttention`, for attention among the tokens of `x`.
        context : torch.Tensor, shape (B, T_k, C), optional
            For a block with cross-attention: the sequence to attend to.
        context_mask : torch.Tensor of bool, optional
            Which of its tokens may be attended to, shaped as an `attention_mask`.
        """
        if (context is None) != (self.cross_attention is None):
            raise ValueError(
                "this block has no cross-attention, so it takes no context: make it with "
                "cross_attention=True, or leave the context out"
                if self.cross_attention is None
                else "a block with cross-attention needs a context, the sequence to attend to"
            )

        def self_attend(x: Tensor) -> Tensor:
            return self.attention(
                x, attention_mask=attention_mask, is_causal=is_causal, rotate=rotate
            )

        x = self._add(x, self_attend, self.attention_norm)
        if self.cross_attention is not None:
            cross_attend = partial(
                self.cross_attention, context=context, attention_mask=context_mask
            )
            x = self._add(x, cross_attend, self.cross_attention_norm)
        return self._add(x, self.feed_forward, self.feed_forward_norm)

    def _add(self, x: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module) -> Tensor:
        """Add what a sublayer says to the stream."""
        if self.norm_first:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))


def _rotated(rotate: Rotate, x: Tensor) -> Tensor:
    """Apply a rotation, and see that it returns what attention can go on with."""
    check_function(rotate=rotate)
    return _check_elementwise("rotate", rotate, x)


def _check_elementwise(name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what a function makes of a tensor; raise unless it is a tensor of the same shape."""
    result = function(x)
    if not isinstance(result, Tensor) or result.shape != x.shape:
        raise TypeError(
            f"{name} must return a tensor of the shape that it is given, {tuple(x.shape)}, not "
            f"{shown(result)}"
        )
    return result


def _mask_for_heads(mask: Tensor | None, shape: tuple[int, int, int, int]) -> Tensor | None:
    """Return a mask that broadcasts to (B, H, T_q, T_k), or say what is wrong with it."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(
            "attention_mask should be a boolean tensor with True = may attend, not "
            f"{mask.dtype if isinstance(mask, Tensor) else type(mask).__name__}: for ones and "
            "zeros pass mask != 0, for a numpy array torch.from_numpy(mask)"
        )
    given = tuple(mask.shape)
    mask = mask[:, None] if mask.ndim == 3 else mask  # the same for every head
    fits = mask.ndim in (2, 4) and all(
        size in (1, wanted) for size, wanted in zip(mask.shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        B, _, T_q, T_k = shape
        raise ValueError(
            f"attention_mask of shape {given} fits none of (T_q, T_k) = {(T_q, T_k)}, "
            f"(B, T_q, T_k) = {(B, T_q, T_k)} and (B, H, T_q, T_k) = {shape}, where any axis may "
            "be 1; a padding mask (B, T_k) goes in as mask[:, None, :]"
        )
    return mask
