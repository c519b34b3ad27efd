"""What a language model costs before anyone runs it: memory, operations, hours, money.

Derived in chapter 19 and held against measurements there. Sizes are those of `utils.gpt.GPT`:
L blocks of width C with a feed-forward network of 4 C, H heads, vocabulary V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.arguments import as_floats, as_number, as_whole_numbers, check_choice
from utils.measure import matmul_cost

# Bytes for each parameter: (weight, gradient, optimiser). Adam keeps two moments in float32; mixed
# precision computes with 16 bits and keeps a float32 copy of the weights beside the moments
# (Rajbhandari et al. 2020, section 3.1).
STATE_BYTES = {"float32": (4, 4, 8), "mixed": (2, 2, 12)}


def _check(**sizes: Any) -> None:
    for name, value in sizes.items():
        if not isinstance(value, np.ndarray):
            as_number(name, value)
        if not np.all(as_floats(name, value, finite=True) > 0):
            raise ValueError(f"{name} must be positive, not {value!r}")


def kv_cache_bytes(
    num_layers: int,
    num_kv_heads: int,
    head_dim: int,
    seq_len: int,
    batch_size: int = 1,
    *,
    bytes_each: float = 2,
) -> float:
    """Return the memory of all keys and values: 2 · L · H_kv · D · T · B numbers (chapter 12)."""
    _check(
        num_layers=num_layers,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        seq_len=seq_len,
        batch_size=batch_size,
        bytes_each=bytes_each,
    )
    return 2 * num_layers * num_kv_heads * head_dim * seq_len * batch_size * bytes_each


def training_state_bytes(
    num_parameters: float, precision: str = "mixed", zero_stage: int = 0, num_ranks: int = 1
) -> dict[str, float]:
    """Return what one process holds of weights, gradients and Adam's state, in bytes.

    Stage 1 of ZeRO shares out the optimiser's state, stage 2 the gradients too, stage 3, which
    PyTorch calls FSDP, also the weights (Rajbhandari et al. 2020, figure 1).

    Parameters
    ----------
    num_parameters : float
    precision : {"mixed", "float32"}
    zero_stage : int
        From 0, plain data parallelism, to 3.
    num_ranks : int
        How many processes share.

    Returns
    -------
    dict
        "weights", "gradients" and "optimiser", in bytes.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    _check(num_parameters=num_parameters, num_ranks=num_ranks)
    check_choice("precision", precision, STATE_BYTES)
    check_choice("zero_stage", zero_stage, (0, 1, 2, 3))
    parts, shared_from = ("weights", "gradients", "optimiser"), (3, 2, 1)
    return {
        part: each * num_parameters / (num_ranks if zero_stage >= stage else 1)
        for part, each, stage in zip(parts, STATE_BYTES[precision], shared_from, strict=True)
    }


def block_activation_numbers(batch_size: int, seq_len: int, d_model: int, num_heads: int) -> int:
    """Return how many numbers one block keeps for its backward pass, fused attention, no dropout.

    Sixteen of the size of the stream: into each of two norms and out of it (4), queries, keys,
    values, and the heads' output (4), into and out of GELU (8). Each norm keeps a mean and a
    deviation for a token besides, and attention the logarithm of its denominator for a query.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    _check(batch_size=batch_size, seq_len=seq_len, d_model=d_model, num_heads=num_heads)
    tokens = batch_size * seq_len
    return 16 * tokens * d_model + 4 * tokens + num_heads * tokens


def activation_bytes(
    batch_size: int,
    seq_len: int,
    num_layers: int,
    d_model: int,
    num_heads: int,
    *,
    vocab_size: int,
    bytes_each: float = 4,
    recompute: bool = False,
) -> float:
    """Return what a GPT's forward pass and cross-entropy keep for the backward pass, in bytes.

    Besides the blocks: into and out of the last norm, its mean and deviation, and the logarithms of
    all probabilities, which have 4 bytes whatever the rest has.

    Parameters
    ----------
    batch_size, seq_len, num_layers, d_model, num_heads, vocab_size : int
    bytes_each : float
        2 in mixed precision (roughly: norms keep some of theirs in 4).
    recompute : bool
        Keep only each block's input, and what one block needs while it is computed again
        (Chen et al. 2016).

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    _check(num_layers=num_layers, vocab_size=vocab_size, bytes_each=bytes_each)
    _check(batch_size=batch_size, seq_len=seq_len, d_model=d_model, num_heads=num_heads)
    tokens = batch_size * seq_len
    block = block_activation_numbers(batch_size, seq_len, d_model, num_heads)
    blocks = num_layers * tokens * d_model + block if recompute else num_layers * block
    last_norm = 2 * tokens * d_model + 2 * tokens
    return bytes_each * (blocks + last_norm) + 4 * tokens * vocab_size


def forward_flops(
    batch_size: int, seq_len: int, num_layers: int, d_model: int, vocab_size: int
) -> dict[str, int]:
    """Return the operations of the matrix products of a GPT's forward pass.

    Returns
    -------
    dict
        "weights", the products with the blocks' matrices, 2 N for each token with N = 12 L C²;
        "attention", Q Kᵀ and the weighted values, causal zeros counted as they are computed;
        "output", the scores of all tokens of the vocabulary.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    as_whole_numbers(1, batch_size=batch_size, seq_len=seq_len, num_layers=num_layers)
    as_whole_numbers(1, d_model=d_model, vocab_size=vocab_size)
    tokens, C = batch_size * seq_len, d_model
    projections = 4 * matmul_cost(tokens, C, C)[0]
    network = matmul_cost(tokens, C, 4 * C)[0] + matmul_cost(tokens, 4 * C, C)[0]
    # All heads together are as wide as the model, so that their number does not matter.
    looking = matmul_cost(seq_len, C, seq_len)[0] + matmul_cost(seq_len, seq_len, C)[0]
    return {
        "weights": num_layers * (projections + network),
        "attention": num_layers * batch_size * looking,
        "output": matmul_cost(tokens, C, vocab_size)[0],
    }


def training_flops(num_parameters: Any, num_tokens: Any) -> Any:
    """Return 6 N D: two operations forwards and four backwards for each weight and token.

    Numbers or arrays of them.

    Kaplan et al. (2020), section 2.1. It leaves out attention's products with itself and norms.
    """
    _check(num_parameters=num_parameters, num_tokens=num_tokens)
    return 6 * num_parameters * num_tokens


@dataclass(frozen=True)
class Machine:
    """One or several equal processors, and what they are assumed to deliver and to cost.

    Parameters
    ----------
    name : str
    peak : float
        FLOP/s of one, dense, in the precision used.
    utilisation : float
        The share of the peak that becomes the model's own 6 N D, above 0 and at most 1.
    watts : float
        Electrical power of one while it works.
    dollars_per_hour : float
        Rent of one; 0 for your own.
    count : int
    """

    name: str
    peak: float
    utilisation: float
    watts: float
    dollars_per_hour: float = 0.0
    count: int = 1

    def __post_init__(self) -> None:
        """Check the assumptions."""
        _check(peak=self.peak, utilisation=self.utilisation, watts=self.watts, count=self.count)
        as_number("utilisation", self.utilisation)
        as_number("dollars_per_hour", self.dollars_per_hour)
        if self.utilisation > 1 or self.dollars_per_hour < 0:
            raise ValueError(
                f"utilisation is a share of at most 1 and rent at least 0, not {self.utilisation} "
                f"and {self.dollars_per_hour}"
            )

    def bill(
        self, flops: float, overhead: float = 1.0, dollars_per_kwh: float = 0.0
    ) -> dict[str, float]:
        """Return what that many operations cost.

        Parameters
        ----------
        flops : float
        overhead : float
            Power of the whole building for each watt of the processors (PUE), at least 1.
        dollars_per_kwh : float
            Price of electricity, where it is not part of the rent.

        Returns
        -------
        dict
            "hours" on the clock, "device_hours" of all processors together, "kwh", "dollars".
        """
        flops, overhead = as_number("flops", flops, 0), as_number("overhead", overhead, 1)
        dollars_per_kwh = as_number("dollars_per_kwh", dollars_per_kwh, 0)
        device_hours = flops / (self.peak * self.utilisation) / 3600
        kwh = device_hours * self.watts * overhead / 1000
        return {
            "hours": device_hours / self.count,
            "device_hours": device_hours,
            "kwh": kwh,
            "dollars": device_hours * self.dollars_per_hour + kwh * dollars_per_kwh,
        }
