"""The speedrun's model: a small GPT whose parts are chosen by a recipe (chapter 13)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    LARGEST_WHOLE,
    as_whole_number,
    check_features,
    check_ids,
    check_tensor,
    shown,
)
from utils.layers import LayerNorm
from utils.llama import RMSNorm

if TYPE_CHECKING:
    from utils.speedrun import Recipe

MULTIPLIERS = (1, 1009, 917_503, 82_837_505, 39_916_801)  # mix the characters of an n-gram


class Attention(nn.Module):
    """Causal self-attention, with rotary positions and QK-norm if the recipe says so."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = _checked_recipe(recipe)
        C = recipe.d_model
        self.qkv_proj = nn.Parameter(torch.zeros(3, C, C))  # three matrices, multiplied at once
        self.output_proj = nn.Linear(C, C, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return what the heads say, shape (B, T, C)."""
        check_features("x", x, self.output_proj, axes=3)
        B, T, C = x.shape
        H = self.recipe.num_heads
        qkv = F.linear(x, self.qkv_proj.flatten(0, 1))  # (B, T, 3 C)
        qkv = qkv.view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        both, values = qkv[:2], qkv[2]
        if self.recipe.qk_norm:
            both = F.rms_norm(both, (C // H,))
        if rotation is not None:
            both = rotate(both, *_as_tables(rotation))
        heads = F.scaled_dot_product_attention(both[0], both[1], values, is_causal=True)
        return self.output_proj(heads.transpose(1, 2).reshape(B, T, C))


def rotation_tables(context_length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of all rotary angles, each (T, D/2); see chapter 5."""
    context_length = as_whole_number("context_length", context_length, 1)
    if as_whole_number("head_dim", head_dim, 2) % 2:
        raise ValueError(f"head_dim must be even, not {head_dim}: components turn in pairs")
    frequencies = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.arange(context_length)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (..., T, D) by tables made once; `positions.torch_rope_rotate` makes them each time."""
    _check_tables(x, cos, sin)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _as_tables(rotation: Any) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, or say what was given instead."""
    if not isinstance(rotation, tuple | list) or len(rotation) != 2:
        raise TypeError(f"rotation must be what rotation_tables returns, not {shown(rotation)}")
    return tuple(rotation)


def _check_tables(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise unless there are a cosine and a sine for each pair of components at each position."""
    check_tensor("x", x, "(..., T, D)")
    T, D = x.shape[-2:]
    if D % 2:
        raise ValueError(f"x of shape {tuple(x.shape)} has an odd width: components turn in pairs")
    shape = f"({T}, {D // 2})"
    check_tensor("cos, of the rotation,", cos, shape, like=x)
    check_tensor("sin, of the rotation,", sin, shape, like=x)


class FeedForward(nn.Module):
    """Widen, bend by GELU or by the square of ReLU (So et al. 2021), narrow."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        C = _checked_recipe(recipe).d_model
        hidden = recipe.d_hidden or 4 * C
        self.squared_relu = recipe.activation == "relu2"
        self.up_proj = nn.Linear(C, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`, (B, T, C)."""
        check_features("x", x, self.up_proj)
        hidden = self.up_proj(x)
        hidden = F.relu(hidden).square() if self.squared_relu else F.gelu(hidden)
        return self.down_proj(hidden)


class Block(nn.Module):
    """Attention and feed-forward network, norms first."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.attention_norm = make_norm(recipe)
        self.attention = Attention(recipe)
        self.feed_forward_norm = make_norm(recipe)
        self.feed_forward = FeedForward(recipe)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the stream after this block, (B, T, C)."""
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.feed_forward(self.feed_forward_norm(x))


def make_norm(recipe: Recipe) -> nn.Module:
    """Return the recipe's norm, without a bias."""
    rms = _checked_recipe(recipe).norm == "rms"
    return RMSNorm(recipe.d_model) if rms else LayerNorm(recipe.d_model, bias=False)


class SpeedrunGPT(nn.Module):
    """A decoder whose parts are chosen by a recipe; with `Recipe()` it is nanoGPT's.

    Parameters
    ----------
    recipe : Recipe
    vocab_size : int
        V.
    """

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        vocab_size = as_whole_number("vocab_size", vocab_size, 1)
        _checked_recipe(recipe)
        C, T = recipe.d_model, recipe.context_length
        self.recipe, self.vocab_size = recipe, vocab_size
        self.token_embedding = nn.Embedding(vocab_size, C)
        learned = recipe.positions == "learned"
        self.position_embedding = nn.Embedding(T, C) if learned else None
        self.ngram_embeddings = nn.ModuleDict(
            {
                str(n): nn.Embedding(
                    min(vocab_size**n, recipe.ngram_rows), C, sparse=recipe.lazy_tables
                )
                for n in recipe.ngrams
            }
        )
        self.blocks = nn.ModuleList(Block(recipe) for _ in range(recipe.num_layers))
        self.final_norm = make_norm(recipe)
        self.output = None if recipe.tied else nn.Linear(C, vocab_size, bias=False)
        if not learned:
            cos, sin = rotation_tables(T, C // recipe.num_heads)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """GPT-2's initialisation, and zeros where the recipe wants them."""
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.02)
        for block in self.blocks:
            for layer in (block.attention.output_proj, block.feed_forward.down_proj):
                layer.weight.div_(math.sqrt(2 * self.recipe.num_layers))
                if self.recipe.zero_init:
                    layer.weight.zero_()
        for table in self.ngram_embeddings.values():
            table.weight.zero_()  # an n-gram says nothing until it has been seen
        if self.recipe.zero_init and self.output is not None:
            self.output.weight.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of the token after each given one, (B, T, V), for ids (B, T)."""
        check_ids(ids, self.token_embedding.weight)
        T = ids.shape[1]
        if self.recipe.context_length < T:
            raise ValueError(
                f"ids of {T} tokens do not fit into a context of {self.recipe.context_length}"
            )
        x = self.token_embedding(ids)  # (B, T, C)
        rotation = None
        if self.position_embedding is None:
            rotation = self.cos[:T], self.sin[:T]
        else:
            x = x + self.position_embedding.weight[:T]
        for n, table in self.ngram_embeddings.items():
            x = x + table(ngram_rows(ids, int(n), self.vocab_size, table.num_embeddings))
        for block in self.blocks:
            x = block(x, rotation)
        weight = self.token_embedding.weight if self.output is None else self.output.weight
        logits = F.linear(self.final_norm(x), weight)  # (B, T, V)
        cap = float(self.recipe.softcap)
        return cap * torch.tanh(logits / cap) if cap else logits


def ngram_rows(ids: Tensor, n: int, vocab_size: int, rows: int) -> Tensor:
    """Return the row of each n-gram's embedding: of the tokens at t - n + 1, ..., t.

    Where the window has fewer than n tokens so far, the missing ones count as token 0.

    Parameters
    ----------
    ids : torch.Tensor of int, shape (B, T)
    n, vocab_size : int
    rows : int
        With at least `vocab_size ** n`, every n-gram has a row of its own; with fewer, a hash
        decides which share one.

    Returns
    -------
    torch.Tensor of int, shape (B, T)

    Raises
    ------
    TypeError, ValueError
        If ids are no such tensor, or a size is out of range.
    """
    check_tensor("ids", ids, "(B, T)", "int")
    n = as_whole_number("n", n, 1, len(MULTIPLIERS))
    vocab_size = as_whole_number("vocab_size", vocab_size, 1)
    rows = as_whole_number("rows", rows, 1, LARGEST_WHOLE)
    exact = rows >= vocab_size**n
    total = torch.zeros_like(ids)
    for back in range(n):
        shifted = F.pad(ids, (back, 0))[:, : ids.shape[1]]  # (B, T)
        total = total + shifted * (vocab_size**back if exact else MULTIPLIERS[back])
    return total if exact else (total ^ (total >> 15)) % rows


def _checked_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe, or say what was given instead."""
    from utils.speedrun import Recipe

    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe, such as speedrun.Recipe(), not {shown(recipe)}")
    return recipe
