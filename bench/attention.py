"""Our attention, in numpy and in torch, against torch's fused kernel.

python -m bench.attention [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench.timing import side_by_side
from utils import attention

HEADS, WIDTH = 4, 64


def measure(quick: bool = False) -> dict[str, Any]:
    """Time one forward pass, and forward and backward together, for several lengths."""
    import torch
    from torch.nn import functional as F

    rows = []
    lengths, rounds = ((32, 64), 3) if quick else ((128, 256, 512, 1024), 15)
    rng = np.random.default_rng(0)
    for length in lengths:
        arrays = [rng.normal(size=(1, HEADS, length, WIDTH)).astype(np.float32) for _ in range(4)]
        q, k, v, grad = arrays
        tensors = [torch.tensor(array, requires_grad=True) for array in (q, k, v)]
        mask, torch_grad = attention.causal_mask(length), torch.tensor(grad)
        torch_mask = torch.tensor(mask)

        def numpy_forward(q=q, k=k, v=v, mask=mask):
            return attention.scaled_dot_product_attention(q, k, v, mask)

        def numpy_both(q=q, k=k, v=v, mask=mask, grad=grad):
            output, weights = attention.scaled_dot_product_attention(q, k, v, mask)
            backward = attention.scaled_dot_product_attention_backward
            return output, backward(grad, q, k, v, weights)

        def ours(tensors=tensors, mask=torch_mask):
            return attention.torch_attention(*tensors, mask)[0]

        def fused(tensors=tensors):
            return F.scaled_dot_product_attention(*tensors, is_causal=True)

        def without_gradient(function):
            with torch.inference_mode():
                return function()

        def with_gradient(function, tensors=tensors, grad=torch_grad):
            return torch.autograd.grad(function(), tensors, grad)

        passes = {
            "forward": {
                "numpy": numpy_forward,
                "torch": lambda f=ours: without_gradient(f),
                "fused": lambda f=fused: without_gradient(f),
            },
            "forward and backward": {
                "numpy": numpy_both,
                "torch": lambda f=ours, g=with_gradient: g(f),
                "fused": lambda f=fused, g=with_gradient: g(f),
            },
        }
        check_equal(numpy_both(), fused(), with_gradient(ours), with_gradient(fused))
        for name, functions in passes.items():
            result = side_by_side(functions, rounds)
            rows.append(
                [
                    length,
                    name,
                    *(result.milliseconds(each) for each in functions),
                    result.ratio("numpy", "fused"),
                    result.ratio("torch", "fused"),
                ]
            )
    return {
        "title": "Attention: ours in numpy and torch, and torch’s fused kernel",
        "columns": [
            "length T",
            "pass",
            "numpy, ours (ms)",
            "torch, ours (ms)",
            "torch, fused (ms)",
            "numpy / fused",
            "torch / fused",
        ],
        "rows": rows,
        "notes": [
            f"Causal attention of one sequence, {HEADS} heads of width {WIDTH}, 32-bit numbers, on "
            "the CPU. Fused is `F.scaled_dot_product_attention(is_causal=True)`. Before "
            "timing, outputs and gradients of all three are compared, to 1e-4.",
            f"Processor time in one thread: medians of {rounds} alternating rounds; a ratio is the "
            "median over the rounds, with the quartiles in brackets.",
            "Ours computes the hidden half of the table as well, and returns the weights, which "
            "the fused kernel never stores.",
        ],
    }


def check_equal(by_numpy, fused, ours_gradients, fused_gradients) -> None:
    """Raise AssertionError unless all three compute the same."""
    output, gradients = by_numpy
    np.testing.assert_allclose(output, fused.detach().numpy(), atol=1e-4)
    for one, two, three in zip(gradients, ours_gradients, fused_gradients, strict=True):
        np.testing.assert_allclose(one, three.numpy(), atol=1e-4)
        np.testing.assert_allclose(two.numpy(), three.numpy(), atol=1e-4)


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["attention", *sys.argv[1:]]))
