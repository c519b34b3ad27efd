"""Rounding against its definition, integer products against exact ones, blocks against gguf."""

from __future__ import annotations

import warnings

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from utils import checkpoints, quantise


def matrix(rows=6, columns=64, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(
    rows=st.integers(1, 5),
    groups=st.integers(1, 3),
    bits=st.integers(2, 8),
    per=st.sampled_from(quantise.GRANULARITIES),
    scale=st.floats(1e-6, 1e6),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_no_weight_moves_by_more_than_half_a_step(rows, groups, bits, per, scale, seed):
    weights = scale * matrix(rows, 8 * groups, seed)
    result = quantise.quantise(weights, bits, per, group_size=8)
    top = 2 ** (bits - 1) - 1
    assert result.codes.dtype == torch.int8 and result.codes.abs().max() == top
    shapes = {"tensor": (1, 1), "row": (rows, 1), "group": (rows, groups)}
    assert result.scales.shape == shapes[per]
    step = result.scales.expand(rows, -1).repeat_interleave(8 * groups // shapes[per][1], dim=1)
    error = (result.dequantise() - weights).abs()
    assert bool((error <= 0.5001 * step.expand_as(error)).all())


def test_codes_equal_torchs():
    weights = matrix()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own quantised tensors are on their way out
        result = quantise.quantise(weights, 8, "row")
        scales = result.scales[:, 0]
        zeros = torch.zeros(6, dtype=torch.int64)
        theirs = torch.quantize_per_channel(weights, scales, zeros, 0, torch.qint8)
    assert torch.equal(result.codes, theirs.int_repr())
    torch.testing.assert_close(result.dequantise(), theirs.dequantize())


@pytest.mark.parametrize("per", quantise.GRANULARITIES)
def test_zeros_stay_zeros(per):
    result = quantise.quantise(torch.zeros(3, 32), 8, per)
    assert torch.equal(result.dequantise(), torch.zeros(3, 32))


def test_a_finer_scale_is_never_worse_on_average():
    weights = matrix(16, 128) * torch.logspace(-2, 0, 16)[:, None]
    weights[3, 5] = 30.0  # an outlier spoils what shares its scale
    errors = [
        (quantise.quantise(weights, 8, per).dequantise() - weights).square().mean()
        for per in quantise.GRANULARITIES
    ]
    assert errors[0] > errors[1] > errors[2]


def test_half_types_and_sizes():
    result = quantise.quantise(matrix().to(torch.bfloat16), 4, "group", group_size=32)
    assert result.dequantise().dtype == torch.float32
    assert result.packed_bytes == 6 * 64 / 2 + 2 * 12
    assert result.bits_per_weight == 4.5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"bits": 1}, ValueError, "from 2 to 8"),
        ({"bits": 9}, ValueError, "from 2 to 8"),
        ({"per": "column"}, ValueError, "tensor, row, group"),
        ({"per": "group", "group_size": 48}, ValueError, "do not divide"),
        ({"weights": torch.ones(3)}, TypeError, r"\(rows, columns\)"),
        ({"weights": torch.ones(3, 4, dtype=torch.int8)}, TypeError, "floating-point"),
        ({"weights": np.ones((2, 2))}, TypeError, "ndarray"),
    ],
)
def test_bad_arguments(change, error, words):
    with pytest.raises(error, match=words):
        quantise.quantise(**{"weights": matrix(), **change})


@pytest.mark.parametrize("per", ["tensor", "row"])
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 64), (64,), (1, 1, 64)])
def test_int8_linear_is_exact_up_to_rounding_the_inputs(per, shape):
    weight, bias = quantise.quantise(matrix(7), 8, per), torch.randn(7)
    x = torch.randn(shape)
    got = quantise.int8_linear(x, weight, bias)
    rounded = quantise.quantise(x.reshape(-1, 64)).dequantise().double()
    expected = rounded @ weight.dequantise().double().T + bias
    torch.testing.assert_close(got.reshape(-1, 7).double(), expected, rtol=1e-5, atol=1e-5)
    assert got.shape == (*shape[:-1], 7)


def test_integer_sums_do_not_overflow_in_32_bits():
    weight = quantise.quantise(torch.ones(2, 4096), 8)
    got = quantise.int8_linear(torch.ones(1, 4096), weight)
    torch.testing.assert_close(got, torch.full((1, 2), 4096.0))


def test_int8_linear_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="per='row'"):
        quantise.int8_linear(torch.ones(1, 64), quantise.quantise(matrix(), 8, "group"))
    with pytest.raises(ValueError, match="second of the weight"):
        quantise.int8_linear(torch.ones(1, 32), quantise.quantise(matrix(), 8))


def test_round_weights_copies_and_rounds_linear_layers_only():
    model = nn.Sequential(nn.Embedding(5, 32), nn.LayerNorm(32), nn.Linear(32, 4))
    before = [p.clone() for p in model.parameters()]
    rounded = quantise.round_weights(model, bits=4, per="group", group_size=16)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    expected = quantise.quantise(model[2].weight, 4, "group", 16).dequantise()
    assert torch.equal(rounded[2].weight, expected)
    assert torch.equal(rounded[0].weight, model[0].weight)
    assert torch.equal(rounded[2].bias, model[2].bias)


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (quantise.read_q4_1, gguf.GGMLQuantizationType.Q4_1),
        (quantise.read_q8_0, gguf.GGMLQuantizationType.Q8_0),
    ],
)
def test_blocks_equal_gguf(read, kind):
    weights = matrix(5, 96).numpy() * 0.1
    weights[2] = 0
    blocks = gguf.quants.quantize(weights, kind)
    assert np.array_equal(read(blocks), gguf.quants.dequantize(blocks, kind))


def test_the_embedded_checkpoints_own_blocks():
    tensors = gguf.GGUFReader(checkpoints.checkpoint_path("smollm2")).tensors
    readers = {"Q4_1": quantise.read_q4_1, "Q8_0": quantise.read_q8_0}
    for name, read in readers.items():
        tensor = next(t for t in tensors if t.tensor_type.name == name)
        data = np.array(tensor.data[:64])
        expected = gguf.quants.dequantize(data, tensor.tensor_type)
        assert np.array_equal(read(data), expected)


@pytest.mark.parametrize("data", [np.zeros((2, 21), np.uint8), np.zeros((2, 20)), np.zeros(20)])
def test_what_is_no_block_is_refused(data):
    with pytest.raises(ValueError, match="blocks of 20"):
        quantise.read_q4_1(data)
