"""Positions agree with transformers, autograd and closed forms, and say what they cannot do."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from utils import attention, positions

even = st.integers(1, 12).map(lambda half: 2 * half)
bases = st.sampled_from([10.0, 10_000, 100_000.0, np.float32(500.0)])


def llama_rotation(queries, keys, position_ids, base):
    """Rotate by transformers' own code; queries and keys are (B, H, T, D)."""
    B, H, T, D = queries.shape
    config = LlamaConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        head_dim=D,
        rope_parameters={"rope_type": "default", "rope_theta": float(base)},
    )
    cos, sin = LlamaRotaryEmbedding(config)(queries, position_ids.expand(B, T))
    return apply_rotary_pos_emb(queries, keys, cos, sin)


def rotate_by_complex_numbers(x, places, base, layout):
    """Rotate with complex multiplication, one token and one pair at a time."""
    D = x.shape[-1]
    rotated = np.empty_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        for i in range(D // 2):
            a, b = (i, i + D // 2) if layout == "half" else (2 * i, 2 * i + 1)
            turn = np.exp(1j * places[index[-1]] * float(base) ** (-2 * i / D))
            z = (x[(*index, a)] + 1j * x[(*index, b)]) * turn
            rotated[(*index, a)], rotated[(*index, b)] = z.real, z.imag
    return rotated


# --- sinusoidal ---


@given(st.integers(0, 20), even, st.integers(0, 500), bases)
@settings(max_examples=40, deadline=None)
def test_sinusoids_are_those_of_the_paper(T, C, offset, base):
    got = positions.sinusoidal(T, C, offset=offset, base=base)
    assert got.shape == (T, C)
    for t in range(T):
        for i in range(C // 2):
            angle = (t + offset) / float(base) ** (2 * i / C)
            assert math.isclose(got[t, 2 * i], math.sin(angle), abs_tol=1e-9)
            assert math.isclose(got[t, 2 * i + 1], math.cos(angle), abs_tol=1e-9)


def test_dot_products_of_sinusoids_depend_on_the_distance_alone():
    products = (encoding := positions.sinusoidal(40, 16)) @ encoding.T
    for distance in range(40):
        assert np.allclose(np.diag(products, distance), products[0, distance])
    assert np.allclose(np.diag(products), 8)


def test_a_sinusoidal_row_becomes_a_later_one_by_the_rotation_of_rope():
    encoding = positions.sinusoidal(30, 12)
    # A pair is (sin, cos): turning it backwards by ω k moves it k positions on.
    moved = positions.rope_rotate(encoding, np.full(30, 7), layout="interleaved", inverse=True)
    assert np.allclose(moved, positions.sinusoidal(30, 12, offset=7))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sinusoids_come_in_the_dtype_asked_for(dtype):
    got = positions.sinusoidal(5, 8, dtype=dtype)
    assert got.dtype == dtype
    assert np.allclose(got, positions.sinusoidal(5, 8), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sinusoids_in_torch(dtype):
    got = positions.torch_sinusoidal(6, 10, offset=3, base=100, dtype=dtype, device="cpu")
    assert got.dtype == dtype
    expected = positions.sinusoidal(6, 10, offset=3, base=100)
    assert np.allclose(got.double().numpy(), expected, atol=1e-2)
    assert positions.torch_sinusoidal(1, 2).dtype == torch.get_default_dtype()


# --- learned ---


def test_a_learned_table_is_read_row_by_row_and_passes_gradients():
    table = torch.nn.Embedding(7, 4)
    ids = torch.arange(2, 5)
    got = positions.learned(table.weight, 3, offset=2)
    assert torch.equal(got, table(ids))
    got.sum().backward()
    assert table.weight.grad.sum(1).tolist() == [0, 0, 4, 4, 4, 0, 0]
    assert np.array_equal(positions.learned(np.eye(3), 2), np.eye(3)[:2])
    assert positions.learned(np.eye(3), 3).shape == (3, 3)


def test_a_learned_table_ends():
    with pytest.raises(
        ValueError, match="positions 5 to 8 were asked for, but the table has 8 rows"
    ):
        positions.learned(np.zeros((8, 2)), 4, offset=5)
    with pytest.raises(ValueError, match="shape"):
        positions.learned(np.zeros(8), 4)


# --- rotation ---


@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 6),
    even,
    st.fixed_dictionaries({"layout": st.sampled_from(positions.LAYOUTS), "base": bases}),
    st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_rotation_is_multiplication_by_a_complex_number(leading, T, D, options, offset):
    x = np.random.default_rng(0).normal(size=(*leading, T, D))
    places = np.arange(offset, offset + T)
    expected = rotate_by_complex_numbers(x, places, **options)
    for given_positions in (offset, places, places.tolist(), places.astype(float)):
        assert np.allclose(positions.rope_rotate(x, given_positions, **options), expected)
    for given_positions in (offset, places, torch.tensor(places), torch.tensor(offset)):
        got = positions.torch_rope_rotate(torch.tensor(x), given_positions, **options)
        assert got.dtype == torch.float64
        assert np.allclose(got.numpy(), expected)


@pytest.mark.parametrize("base", [10_000.0, 100_000.0, 500_000.0])
@pytest.mark.parametrize(("T", "D", "offset"), [(1, 2, 0), (9, 8, 0), (33, 64, 0), (4, 128, 2000)])
def test_rotation_equals_transformers_llama(T, D, offset, base):
    generator = torch.Generator().manual_seed(T + D)
    q, k = (torch.randn(2, 3, T, D, generator=generator) for _ in range(2))
    theirs = llama_rotation(q, k, torch.arange(offset, offset + T)[None], base)
    # Their angles are in single precision: t ω has an error of about t · 6e-8.
    tolerance = 1e-5 if offset == 0 else 5e-3
    for x, expected in zip((q, k), theirs, strict=True):
        assert torch.allclose(
            positions.torch_rope_rotate(x, offset, base=base), expected, atol=1e-5
        )
        ours = positions.rope_rotate(x.numpy(), offset, base=base)
        assert np.allclose(ours, expected.numpy(), atol=tolerance)


def test_the_layouts_differ_by_a_reordering_of_the_components():
    x = np.random.default_rng(1).normal(size=(5, 12))
    order = np.arange(12).reshape(2, 6).T.ravel()  # 0, 6, 1, 7, ...: halves become neighbours
    half = positions.rope_rotate(x, 3)
    interleaved = positions.rope_rotate(x[:, order], 3, layout="interleaved")
    assert np.allclose(half[:, order], interleaved)
    assert not np.allclose(half, positions.rope_rotate(x, 3, layout="interleaved"))


@pytest.mark.parametrize("layout", positions.LAYOUTS)
def test_rotated_dot_products_depend_on_the_distance_alone(layout):
    rng = np.random.default_rng(2)
    q, k = np.tile(rng.normal(size=8), (20, 1)), np.tile(rng.normal(size=8), (20, 1))
    scores = positions.rope_rotate(q, layout=layout) @ positions.rope_rotate(k, layout=layout).T
    for distance in range(-19, 20):
        diagonal = np.diag(scores, distance)
        assert np.allclose(diagonal, diagonal[0])
    shifted = positions.rope_rotate(q, 1000, layout=layout) @ (
        positions.rope_rotate(k, 1000, layout=layout).T
    )
    assert np.allclose(scores, shifted)


def test_rotation_keeps_lengths_and_the_first_position():
    x = np.random.default_rng(3).normal(size=(2, 6, 10))
    rotated = positions.rope_rotate(x)
    assert np.allclose(np.linalg.norm(rotated, axis=-1), np.linalg.norm(x, axis=-1))
    assert np.array_equal(rotated[:, 0], x[:, 0])


@pytest.mark.parametrize("layout", positions.LAYOUTS)
def test_turning_back_undoes_the_rotation_and_is_its_gradient(layout):
    rng = np.random.default_rng(4)
    x, grad = rng.normal(size=(2, 5, 6)), rng.normal(size=(2, 5, 6))
    back = positions.rope_rotate(
        positions.rope_rotate(x, 9, layout=layout), 9, layout=layout, inverse=True
    )
    assert np.allclose(back, x)
    tensor = torch.tensor(x, requires_grad=True)
    positions.torch_rope_rotate(tensor, 9, layout=layout).backward(torch.tensor(grad))
    by_hand = positions.rope_rotate(grad, 9, layout=layout, inverse=True)
    assert np.allclose(by_hand, tensor.grad.numpy())
    inverse = positions.torch_rope_rotate(torch.tensor(grad), 9, layout=layout, inverse=True)
    assert np.allclose(by_hand, inverse.numpy())
    assert torch.autograd.gradcheck(
        lambda y: positions.torch_rope_rotate(y, 9, layout=layout), tensor
    )


def test_a_kv_cache_continues_where_the_text_stopped():
    x = np.random.default_rng(5).normal(size=(2, 3, 9, 8))
    whole = positions.rope_rotate(x)
    pieces = [positions.rope_rotate(x[..., :4, :]), positions.rope_rotate(x[..., 4:, :], 4)]
    assert np.allclose(np.concatenate(pieces, axis=-2), whole)
    bias = positions.alibi_bias(5, 9)
    assert np.array_equal(positions.alibi_bias(5, 2, 9), bias[:, -2:])
    whole = positions.sinusoidal(9, 6)
    assert np.allclose(positions.sinusoidal(4, 6, offset=5), whole[5:])


def test_each_sentence_of_a_batch_may_have_its_own_positions():
    x = np.random.default_rng(6).normal(size=(2, 3, 4, 8))  # (B, H, T, D)
    places = np.array([[0, 1, 2, 3], [5, 6, 7, 8]])
    got = positions.rope_rotate(x, places[:, None, :])
    in_torch = positions.torch_rope_rotate(torch.tensor(x), torch.tensor(places)[:, None, :])
    assert np.allclose(got[0], positions.rope_rotate(x[0]))
    assert np.allclose(got[1], positions.rope_rotate(x[1], 5))
    assert np.allclose(in_torch.numpy(), got)
    with pytest.raises(ValueError, match=r"positions\[:, None, :\]"):
        positions.rope_rotate(x, places)
    with pytest.raises(ValueError, match="do not broadcast"):
        positions.torch_rope_rotate(torch.tensor(x), torch.arange(5))


@pytest.mark.parametrize("layout", positions.LAYOUTS)
def test_dtypes_survive_the_rotation(layout):
    x = np.random.default_rng(7).normal(size=(3, 4, 8))
    expected = positions.rope_rotate(x, layout=layout)
    for dtype, tolerance in ((np.float16, 1e-2), (np.float32, 1e-5), (np.float64, 1e-12)):
        got = positions.rope_rotate(x.astype(dtype), layout=layout)
        assert got.dtype == dtype
        assert np.allclose(got, expected, atol=tolerance)
    for dtype, tolerance in ((torch.bfloat16, 5e-2), (torch.float16, 1e-2), (torch.float32, 1e-5)):
        got = positions.torch_rope_rotate(torch.tensor(x).to(dtype), layout=layout)
        assert got.dtype == dtype
        assert np.allclose(got.double().numpy(), expected, atol=tolerance)
    assert positions.rope_rotate(np.ones((2, 2), int)).dtype == np.float64


def test_the_input_is_left_alone():
    x = np.ones((3, 4))
    positions.rope_rotate(x)
    tensor = torch.ones(3, 4)
    positions.torch_rope_rotate(tensor)
    assert (x == 1).all() and (tensor == 1).all()


def test_positions_between_whole_numbers_interpolate():
    x = np.random.default_rng(8).normal(size=(4, 6))
    places = np.arange(4) / 2
    expected = rotate_by_complex_numbers(x, places, 10_000, "half")
    assert np.allclose(positions.rope_rotate(x, places), expected)
    got = positions.torch_rope_rotate(torch.tensor(x), torch.tensor(places))
    assert np.allclose(got.numpy(), expected)


def test_empty_sequences_are_fine():
    assert positions.sinusoidal(0, 4).shape == (0, 4)
    assert positions.rope_rotate(np.zeros((2, 0, 4))).shape == (2, 0, 4)
    assert positions.torch_rope_rotate(torch.zeros(2, 0, 4)).shape == (2, 0, 4)
    assert positions.alibi_bias(2, 0).shape == (2, 0, 0)


# --- ALiBi ---


@pytest.mark.parametrize("num_heads", range(1, 41))
def test_alibi_equals_transformers_bloom_for_any_number_of_heads(num_heads):
    T = 5
    theirs = build_alibi_tensor(torch.ones(1, T), num_heads, torch.float64)  # slope · key position
    slopes = theirs.view(num_heads, T)[:, 1].numpy()
    assert np.allclose(positions.alibi_slopes(num_heads), slopes)
    bias = positions.alibi_bias(num_heads, T)
    t, s = np.indices((T, T))
    assert np.allclose(bias, -slopes[:, None, None] * abs(t - s))
    # Theirs counts from the first key, ours from the query: after a softmax it is the same.
    scores, causal = np.random.default_rng(9).normal(size=(T, T)), attention.causal_mask(T)
    for h in range(num_heads):
        weights = [
            attention.softmax(np.where(causal, scores + b, -np.inf))
            for b in (bias[h], theirs.view(num_heads, 1, T)[h].numpy())
        ]
        assert np.allclose(*weights)


def test_alibi_slopes_of_eight_heads_halve():
    assert positions.alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert positions.alibi_slopes(1).tolist() == [2.0**-8]


def test_alibi_in_torch():
    got = positions.torch_alibi_bias(6, 3, 7, dtype=torch.float64, device="cpu")
    assert np.array_equal(got.numpy(), positions.alibi_bias(6, 3, 7))
    assert positions.torch_alibi_bias(2, 3).dtype == torch.get_default_dtype()
    assert positions.alibi_bias(2, 3, dtype=np.float32).dtype == np.float32


# --- bad input ---

x = np.zeros((2, 4))
tensor = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: positions.sinusoidal(4, 5), ValueError, "width of 5 .* even"),
        (lambda: positions.sinusoidal(4, 0), ValueError, "even"),
        (lambda: positions.sinusoidal(4, -2), ValueError, "at least 0"),
        (lambda: positions.sinusoidal(4.0, 6), TypeError, "seq_len must be a whole number"),
        (lambda: positions.sinusoidal(-1, 6), ValueError, "seq_len must be at least 0"),
        (lambda: positions.sinusoidal(2, 6, offset=-1), ValueError, "offset"),
        (lambda: positions.sinusoidal(2, 6, base=0), ValueError, "base should be a positive"),
        (lambda: positions.sinusoidal(2, 6, base=math.inf), ValueError, "base"),
        (lambda: positions.sinusoidal(2, 6, base="1e4"), TypeError, "base should be a number"),
        (lambda: positions.torch_sinusoidal(4, 5), ValueError, "even"),
        (lambda: positions.learned(np.zeros((4, 2)), 2.5), TypeError, "whole number"),
        (lambda: positions.rope_angles([1, 2], 3), ValueError, "even"),
        (lambda: positions.rope_angles(["a"], 4), TypeError, "positions should hold real numbers"),
        (lambda: positions.rope_rotate(np.zeros((2, 3))), ValueError, "even"),
        (lambda: positions.rope_rotate(np.zeros(4)), ValueError, r"x\[None, :\]"),
        (lambda: positions.rope_rotate(x, layout="paper"), ValueError, "'half' or 'interleaved'"),
        (lambda: positions.rope_rotate(x, 1.5), TypeError, "first token"),
        (lambda: positions.rope_rotate(x, [0, 1, 2]), ValueError, "do not broadcast"),
        (lambda: positions.rope_rotate(x, base=-1.0), ValueError, "positive"),
        (lambda: positions.rope_rotate(x + 1j), TypeError, "real numbers"),
        (lambda: positions.rope_rotate(tensor), TypeError, "torch_rope_rotate"),
        (lambda: positions.torch_rope_rotate(x), TypeError, "tensor of floating"),
        (lambda: positions.torch_rope_rotate(tensor.long()), TypeError, "floating"),
        (lambda: positions.torch_rope_rotate(tensor[:, :3]), ValueError, "even"),
        (lambda: positions.torch_rope_rotate(tensor[0]), ValueError, "shape"),
        (lambda: positions.torch_rope_rotate(torch.tensor(1.0)), ValueError, "shape"),
        (lambda: positions.torch_rope_rotate(tensor, layout="?"), ValueError, "layout"),
        (lambda: positions.torch_rope_rotate(tensor, base=0.0), ValueError, "positive"),
        (lambda: positions.torch_rope_rotate(tensor, 0.5), TypeError, "first token"),
        (
            lambda: positions.torch_rope_rotate(tensor, torch.tensor(0.5)),
            TypeError,
            "first token",
        ),
        (lambda: positions.alibi_slopes(0), ValueError, "at least 1"),
        (lambda: positions.alibi_slopes(True), TypeError, "whole number"),
        (lambda: positions.alibi_bias(2, 5, 3), ValueError, "last positions"),
        (lambda: positions.alibi_bias(2, -1), ValueError, "query_len"),
        (lambda: positions.torch_alibi_bias(2, 2.0), TypeError, "query_len"),
    ],
)
def test_bad_input_is_explained(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert re.search(words, str(raised.value)), raised.value
