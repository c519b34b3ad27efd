"""Low-rank adaptation (LoRA): train a small addition to a model whose weights stay; chapter 16.

    add_lora(model, rank=8, targets=("query_proj", "value_proj"), blocks=range(20, 30))
    train(model, batches, steps=40, optimizer=torch.optim.AdamW(lora_parameters(model), lr=1e-3))
    save_lora(model, "manner.safetensors")      # the adapters alone
    scale_lora(model, 0.5)                      # half the change; 0 is the model as it was
    merge_lora(model)                           # plain layers again, with the change inside

Works with any model whose layers are `torch.nn.Linear`. Hu et al. (2021), arXiv:2106.09685.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    LARGEST_WHOLE,
    as_list,
    as_number,
    as_path,
    as_whole_number,
    check_features,
    check_model,
)

__all__ = [
    "LoRALinear",
    "add_lora",
    "load_lora",
    "lora_layers",
    "lora_parameter_count",
    "lora_parameters",
    "merge_lora",
    "remove_lora",
    "save_lora",
    "scale_lora",
]


class LoRALinear(nn.Module):
    """A linear layer that stays as it is, plus a trained change of low rank.

    y = x Wᵀ + b + (α / r) (x Aᵀ) Bᵀ, that is, a layer of weight W + (α / r) B A: Hu et al. (2021),
    equation 3, with weights stored as `nn.Linear` stores them. B starts at zero, so that nothing
    changes before the first update; A starts as `nn.Linear` starts its own weights.

    Parameters
    ----------
    base : torch.nn.Linear
        Is frozen.
    rank : int
        r, from 1 to the smaller side of the weight.
    alpha : float, optional
        α; by default twice the rank.

    Attributes
    ----------
    A : torch.nn.Parameter, shape (r, C_in)
    B : torch.nn.Parameter, shape (C_out, r)
    factor : float
        Multiplies the change; 1 unless `scale_lora` says otherwise.

    Raises
    ------
    TypeError
        If `base` is not a linear layer.
    ValueError
        If the rank does not fit the weight.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float | None = None) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"LoRA adapts a torch.nn.Linear, not a {type(base).__name__}")
        smaller = min(base.weight.shape)
        if not 1 <= as_whole_number("rank", rank, -1) <= smaller:
            raise ValueError(
                f"rank={rank} should be from 1 to {smaller}, the smaller side of a weight of "
                f"shape {tuple(base.weight.shape)}"
            )
        self.base, self.rank = base, rank
        self.alpha = as_number("alpha", float(2 * rank) if alpha is None else alpha, -1e6, 1e6)
        self.factor = 1.0
        base.requires_grad_(False)
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.A = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    @property
    def scale(self) -> float:
        """What the product of B and A is multiplied by: factor · α / r."""
        return self.factor * self.alpha / self.rank

    def delta(self) -> Tensor:
        """Return the change of the weight, (C_out, C_in)."""
        return self.scale * self.B @ self.A

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C_out) for x of shape (..., C_in); the product B A is never formed."""
        check_features("x", x, self.A)
        narrow = F.linear(x, self.A)  # (..., r)
        return self.base(x) + self.scale * F.linear(narrow, self.B)

    def extra_repr(self) -> str:
        """Say the sizes in the model's printed form."""
        return f"rank={self.rank}, alpha={self.alpha:g}, factor={self.factor:g}"


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float | None = None,
    *,
    targets: Sequence[str] = ("query_proj", "value_proj"),
    blocks: Iterable[int] | None = None,
    seed: int = 0,
) -> list[str]:
    """Freeze a model and give the chosen linear layers adapters, in place.

    Parameters
    ----------
    model : torch.nn.Module
    rank, alpha
        As for `LoRALinear`.
    targets : sequence of str
        The last part of the layers' names.
    blocks : iterable of int, optional
        Only in these blocks, where the model's blocks are `model.blocks[i]`; by default in all.
    seed : int
        For A. The global random state is left as it was.

    Returns
    -------
    list of str
        The names of the layers that got one.

    Raises
    ------
    ValueError
        If no layer fits, or the model has adapters already.
    """
    targets = as_list("targets", targets, str)
    blocks = None if blocks is None else as_list("blocks", blocks, int)
    seed = as_whole_number("seed", seed, most=LARGEST_WHOLE)
    if lora_layers(model):
        raise ValueError("the model has adapters already: merge_lora or remove_lora them first")
    begins = None if blocks is None else tuple(f"blocks.{i}." for i in blocks)
    chosen = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.rpartition(".")[2] in targets
        and (begins is None or name.startswith(begins))
    ]
    if not chosen:
        known = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        raise ValueError(
            f"no linear layer called {' or '.join(targets)} in the blocks asked for; this model's "
            f"are called {', '.join(sorted(known))}"
        )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in chosen:
            _replace(model, name, LoRALinear(model.get_submodule(name), rank, alpha))
    return chosen


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapted layers by name."""
    check_model("model", model)
    return {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to train: every A and B."""
    return [p for layer in lora_layers(model).values() for p in (layer.A, layer.B)]


def lora_parameter_count(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Return how many numbers adapters of this rank add to weights of these shapes."""
    rank = as_whole_number("rank", rank, 1)
    for place, shape in enumerate(shapes := as_list("shapes", shapes, tuple, list)):
        if len(shape) != 2:
            raise ValueError(f"shapes[{place}] must be (rows, columns), not {shape!r}")
        for size in shape:
            as_whole_number(f"shapes[{place}]", size)
    return sum(rank * (rows + columns) for rows, columns in shapes)


def scale_lora(model: nn.Module, factor: float) -> None:
    """Multiply every change: 1 as trained, 0 the model as it was, between them a straight line."""
    factor = as_number("factor", factor)
    for layer in _some(model).values():
        layer.factor = factor


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Add every change into its weight, and leave plain linear layers: no cost when it runs.

    The weights are new tensors, so that a model which shares the old ones keeps them.
    """
    for name, layer in _some(model).items():
        layer.base.weight = nn.Parameter(layer.base.weight + layer.delta(), requires_grad=False)
        _replace(model, name, layer.base)


def remove_lora(model: nn.Module) -> None:
    """Take the adapters off: the model is what it was, to the bit."""
    for name, layer in _some(model).items():
        _replace(model, name, layer.base)


def save_lora(model: nn.Module, path: str | os.PathLike[str]) -> int:
    """Write the adapters to a safetensors file; return its size in bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = as_path("path", path)
    tensors, sizes = {}, {}
    for name, layer in _some(model).items():
        tensors[f"{name}.A"] = layer.A.detach().cpu().contiguous()
        tensors[f"{name}.B"] = layer.B.detach().cpu().contiguous()
        sizes[name] = [layer.rank, layer.alpha]
    try:
        save_file(tensors, os.fspath(path), metadata={"lora": json.dumps(sizes)})
    except SafetensorError as error:
        raise OSError(f"the adapters could not be written to {path}: {error}") from None
    return os.path.getsize(path)


@torch.no_grad()
def load_lora(model: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    """Give a model the adapters of a file that `save_lora` wrote.

    Returns
    -------
    list of str
        The names of the adapted layers.

    Raises
    ------
    ValueError
        If the file holds no adapters, or they do not fit the model.
    """
    path = as_path("path", path)
    check_model("model", model)
    with _opened(path) as file:
        sizes = json.loads((file.metadata() or {}).get("lora", "{}"))
        if not sizes:
            raise ValueError(f"{os.path.basename(path)} holds no adapters: save_lora writes such")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name in sizes:
        want = (tensors[f"{name}.B"].shape[0], tensors[f"{name}.A"].shape[1])
        have = tuple(linear[name].weight.shape) if name in linear else None
        if have != want:
            raise ValueError(
                f"the file adapts {name} of shape {want}, where this model has "
                f"{'no linear layer' if have is None else f'one of shape {have}'}"
            )
    model.requires_grad_(False)
    for name, (rank, alpha) in sizes.items():
        layer = LoRALinear(linear[name], rank, alpha)
        layer.A.copy_(tensors[f"{name}.A"])
        layer.B.copy_(tensors[f"{name}.B"])
        _replace(model, name, layer)
    return list(sizes)


def _opened(path: Path) -> Any:
    """Open a safetensors file, or say that it is none."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return safe_open(os.fspath(path), framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} holds no adapters, for it is damaged: {error}") from None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _some(model: Any) -> dict[str, LoRALinear]:
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no adapters: add_lora gives it some")
    return layers
