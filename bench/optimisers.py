"""Our AdamW against torch's: one tensor at a time, and several at once.

python -m bench.optimisers [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

from bench.timing import side_by_side
from utils import optim

OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
LIBRARY = {
    "single": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def shapes(d_model: int, layers: int, vocabulary: int = 256) -> list[tuple[int, ...]]:
    """Return the shapes of the parameters of a small decoder."""
    block = [
        (3 * d_model, d_model),
        (3 * d_model,),
        (d_model, d_model),
        (d_model,),
        (4 * d_model, d_model),
        (4 * d_model,),
        (d_model, 4 * d_model),
        (d_model,),
        *[(d_model,)] * 4,  # two LayerNorms
    ]
    return [(vocabulary, d_model), *block * layers, (d_model,), (d_model,)]


def make(sizes: list[tuple[int, ...]]) -> list:
    """Return parameters with gradients, the same at every call."""
    import torch

    generator = torch.Generator().manual_seed(0)
    made = []
    for size in sizes:
        tensor = torch.randn(size, generator=generator).requires_grad_()
        tensor.grad = torch.randn(size, generator=generator)
        made.append(tensor)
    return made


def measure(quick: bool = False) -> dict[str, Any]:
    """Time one step on the parameters of two small models."""
    import torch

    rows, rounds = [], 3 if quick else 15
    for d_model, layers in ((16, 1), (32, 2)) if quick else ((128, 4), (384, 6)):
        sizes = shapes(d_model, layers)
        parameters = {name: make(sizes) for name in ("ours", *LIBRARY)}
        steps = {"ours": optim.AdamW(parameters["ours"], **OPTIONS).step}
        for name, way in LIBRARY.items():
            steps[name] = torch.optim.AdamW(parameters[name], **OPTIONS, **way).step
        for _ in range(3):
            for step in steps.values():
                step()
        for name in LIBRARY:
            for ours, theirs in zip(parameters["ours"], parameters[name], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        result = side_by_side(steps, rounds)
        rows.append(
            [
                f"{sum(p.numel() for p in parameters['ours']):,}",
                len(sizes),
                *(result.milliseconds(name) for name in steps),
                *(result.ratio("ours", name) for name in LIBRARY),
            ]
        )
    return {
        "title": "Optimisers: one step of AdamW, ours and torch’s",
        "columns": [
            "parameters",
            "tensors",
            "ours (ms)",
            "torch, single tensor (ms)",
            "torch, foreach (ms)",
            "torch, fused (ms)",
            "ours / single",
            "ours / foreach",
            "ours / fused",
        ],
        "rows": rows,
        "notes": [
            "Parameters with the shapes of small decoders and random gradients, on the CPU, 32-bit "
            "numbers. Before timing, all four agree on every parameter after three steps.",
            f"Processor time in one thread: medians of {rounds} alternating rounds; a ratio is the "
            "median over the rounds, with the quartiles in brackets.",
        ],
    }


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["optimisers", *sys.argv[1:]]))
