"""The KV cache: keys and values of the tokens read so far, one pair of tensors for each layer.

Derived in chapter 10; any decoder of the course can use it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utils.arguments import as_ids, as_whole_number, check_rows, check_tensor


class KVCache:
    """Room for the keys and values of `max_length` tokens in each of `num_layers` layers.

    The tensors are made at the first `update`, with the batch, heads, width, type and device of
    what it is given (with grouped queries there are fewer heads of keys than of queries), and are
    written into from then on, so that a new token copies only its own keys and values.

    Parameters
    ----------
    num_layers : int
    max_length : int
        How many tokens there is room for.

    Attributes
    ----------
    keys, values : list of torch.Tensor, each (B, H, max_length, D), or None before the first update

    Raises
    ------
    ValueError
        If a size is below 1.
    """

    def __init__(self, num_layers: int, max_length: int) -> None:
        as_whole_number("num_layers", num_layers, -1)
        as_whole_number("max_length", max_length, -1)
        if num_layers < 1 or max_length < 1:
            raise ValueError(
                f"a cache needs at least 1 layer and room for 1 token, not {num_layers} layers "
                f"and {max_length} tokens"
            )
        self.max_length = max_length
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers
        self._lengths = [0] * num_layers

    @property
    def length(self) -> int:
        """How many tokens all layers hold; the last layer is written last."""
        return self._lengths[-1]

    @property
    def num_bytes(self) -> int:
        """How much memory the tensors take, unused room included."""
        tensors = [t for t in (*self.keys, *self.values) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens to one layer, and return all it holds.

        Parameters
        ----------
        layer : int
            From 0.
        keys, values : torch.Tensor, shape (B, H, T_new, D)

        Returns
        -------
        keys, values : torch.Tensor, shape (B, H, T, D)
            Those of all T tokens so far: views into the cache, not copies.

        Raises
        ------
        TypeError, ValueError
            If there is no such layer, no room left, the shape, type or device differs from that of
            earlier tokens, or gradients are asked for.
        """
        layer = as_whole_number("layer", layer, 0, len(self.keys) - 1)
        check_tensor("keys", keys, "(B, H, T, D)", some=True, like=self.keys[layer])
        check_tensor("values", values, "(B, H, T, D)", some=True, like=keys)
        if keys.shape[:3] != values.shape[:3]:
            raise ValueError(
                f"keys of shape {tuple(keys.shape)} and values of shape {tuple(values.shape)} are "
                "not of the same tokens"
            )
        if keys.requires_grad or values.requires_grad:
            raise ValueError(
                "a cache is for generating, not for training: call the model in "
                "`with torch.no_grad():`, or without a cache"
            )
        start = self._lengths[layer]
        end = start + keys.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache has room for {self.max_length} tokens and holds {start}, so "
                f"{keys.shape[2]} more do not fit: make it longer, or start a new one"
            )
        for store, new, name in ((self.keys, keys, "keys"), (self.values, values, "values")):
            B, H, _, D = new.shape
            if store[layer] is None:
                store[layer] = new.new_zeros(B, H, self.max_length, D)
            elif (held := (*store[layer].shape[:2], store[layer].shape[3])) != (B, H, D):
                raise ValueError(
                    f"{name} of shape {tuple(new.shape)} do not continue a cache with "
                    f"(B, H, D) = {held}: a new batch needs a new cache"
                )
            store[layer][:, :, start:end] = new
        self._lengths[layer] = end
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def select(self, rows: Tensor | list[int]) -> None:
        """Keep these sequences of the batch, in this order; one may come several times.

        Beam search does so when one beginning is continued in several ways.

        Parameters
        ----------
        rows : list of int, or torch.Tensor of int, shape (B_new,)
        """
        rows = torch.tensor(as_ids("rows", rows)) if isinstance(rows, list) else rows
        for store in (self.keys, self.values):
            for layer, held in enumerate(store):
                if held is not None:
                    check_rows("rows", rows, held.shape[0])
                    store[layer] = held[torch.as_tensor(rows, device=held.device)]
