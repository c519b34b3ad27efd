"""The block and its parts against torch's own modules, autograd, finite differences and loops."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn
from torch.nn import functional as F

from utils import attention, block_numpy, layers, layers_numpy

SHAPES = [(1, 1, 4, 1), (2, 5, 8, 2), (3, 7, 12, 3), (1, 6, 6, 6)]  # B, T, C, H


def double(module):
    """Float64, evaluation mode, and parameters that are nowhere 0 or 1."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random_mask(B, T, seed, empty_row=True):
    mask = np.random.default_rng(seed).random((B, T, T)) < 0.6
    mask[..., 0] |= ~mask.any(-1)
    if empty_row:
        mask[0, -1] = False
    return mask


def torch_attention_with(ours):
    """torch's own multi-head attention, with the weights of ours."""
    theirs = nn.MultiheadAttention(ours.d_model, ours.num_heads, batch_first=True).double().eval()
    projections = (ours.query_proj, ours.key_proj, ours.value_proj)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([p.weight for p in projections]),
            "in_proj_bias": torch.cat([p.bias for p in projections]),
            "out_proj.weight": ours.output_proj.weight,
            "out_proj.bias": ours.output_proj.bias,
        }
    )
    return theirs


# Heads


@pytest.mark.parametrize(("B", "T", "C", "H"), SHAPES)
def test_split_heads_by_loops_and_back(B, T, C, H):
    x = np.random.default_rng(0).normal(size=(B, T, C))
    D = C // H
    heads = layers_numpy.split_heads(x, H)
    assert heads.shape == (B, H, T, D)
    for b, h, t in np.ndindex(B, H, T):
        np.testing.assert_array_equal(heads[b, h, t], x[b, t, h * D : (h + 1) * D])
    np.testing.assert_array_equal(layers_numpy.merge_heads(heads), x)
    tensor = torch.tensor(x)
    np.testing.assert_array_equal(layers_numpy.split_heads(tensor, H), heads)
    assert torch.equal(layers_numpy.merge_heads(layers_numpy.split_heads(tensor, H)), tensor)


@pytest.mark.parametrize("num_heads", [0, -2, 3, 16])
def test_split_heads_refuses_uneven_heads(num_heads):
    with pytest.raises(ValueError, match=r"cannot be split evenly|at least 1"):
        layers_numpy.split_heads(np.zeros((1, 2, 8)), num_heads)


def test_split_heads_of_nothing():
    assert layers_numpy.split_heads(np.zeros((0, 3, 4)), 2).shape == (0, 2, 3, 2)
    assert layers_numpy.merge_heads(np.zeros((2, 2, 0, 3))).shape == (2, 0, 6)


@pytest.mark.parametrize(("B", "T", "C", "H"), SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_torch(B, T, C, H, masked):
    ours = double(layers.MultiHeadAttention(C, H))
    theirs = torch_attention_with(ours)
    x = torch.randn(B, T, C, dtype=torch.float64)
    mask = torch.tensor(random_mask(B, T, 1, empty_row=False)) if masked else None
    inverted = None if mask is None else (~mask).repeat_interleave(H, dim=0)
    expected, expected_weights = theirs(
        x, x, x, attn_mask=inverted, average_attn_weights=False, need_weights=True
    )
    output, weights = ours(x, attention_mask=mask, return_weights=True)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(ours(x, attention_mask=mask), expected)


@pytest.mark.parametrize(("B", "T", "C", "H"), SHAPES)
def test_numpy_attention_equals_module_with_empty_rows(B, T, C, H):
    ours = double(layers.MultiHeadAttention(C, H))
    x, mask = torch.randn(B, T, C, dtype=torch.float64), random_mask(B, T, 2)
    params = block_numpy.from_torch(ours)
    output, cache = layers_numpy.multi_head_attention(x.numpy(), params, H, mask)
    with torch.no_grad():
        expected, weights = ours(x, attention_mask=torch.tensor(mask), return_weights=True)
        fused = ours(x, attention_mask=torch.tensor(mask))
    np.testing.assert_allclose(output, expected, atol=1e-12)
    np.testing.assert_allclose(output, fused, atol=1e-12)
    np.testing.assert_allclose(cache["weights"], weights, atol=1e-12)
    np.testing.assert_allclose(output[0, -1], params["output_proj.bias"])  # may see nothing


def test_cross_attention_equals_torch():
    ours = double(layers.MultiHeadAttention(8, 2))
    x, context = torch.randn(3, 4, 8).double(), torch.randn(3, 6, 8).double()
    real = torch.tensor(attention.padding_mask([6, 1, 4]))
    expected, _ = torch_attention_with(ours)(x, context, context, key_padding_mask=~real)
    torch.testing.assert_close(ours(x, context, real[:, None, :]), expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("return_weights", [False, True])
def test_is_causal_equals_the_mask(masked, return_weights):
    ours = double(layers.MultiHeadAttention(8, 2))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    extra = torch.tensor(random_mask(2, 5, 3)) if masked else torch.ones(2, 5, 5).bool()
    causal = torch.tensor(attention.causal_mask(5))
    got = ours(
        x,
        attention_mask=extra if masked else None,
        is_causal=True,
        return_weights=return_weights,
    )
    got = got[0] if return_weights else got
    torch.testing.assert_close(got, ours(x, attention_mask=extra & causal))


def test_causal_queries_are_the_last_positions():
    ours = double(layers.MultiHeadAttention(8, 2))
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    whole = ours(x, is_causal=True)
    torch.testing.assert_close(ours(x[:, -3:], x, is_causal=True), whole[:, -3:])
    torch.testing.assert_close(ours(x[:, :4], is_causal=True), whole[:, :4])  # prefixes


def test_masks_of_every_documented_shape():
    B, H, T = 3, 2, 3  # B == T: a two-axis mask is still (T_q, T_k)
    ours = double(layers.MultiHeadAttention(4, H))
    x = torch.randn(B, T, 4, dtype=torch.float64)
    full = torch.rand(B, H, T, T) < 0.7
    for mask in (
        full[0, 0],
        full[:, 0],
        full[:, 0, :1],
        full[:1, 0],
        full,
        full[:1],
        full[:, :1],
        full[:, :, :1],
        full[..., :1],
    ):
        four = mask[:, None] if mask.ndim == 3 else mask
        one_by_one = torch.broadcast_to(four, (B, H, T, T))
        torch.testing.assert_close(
            ours(x, attention_mask=mask), ours(x, attention_mask=one_by_one.contiguous())
        )


def test_a_mask_that_hides_everything_gives_the_bias_and_no_nan():
    ours = double(layers.MultiHeadAttention(4, 2))
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    for weights in (False, True):
        output = ours(x, attention_mask=nothing, return_weights=weights)
        output = output[0] if weights else output
        torch.testing.assert_close(output, ours.output_proj.bias.expand(2, 3, 4))
        output.sum().backward()
        assert (x.grad == 0).all()
        for parameter in ours.parameters():
            assert torch.isfinite(parameter.grad).all()


def test_rotate_is_applied_to_queries_and_keys_of_all_heads():
    ours = double(layers.MultiHeadAttention(8, 2))
    x, seen = torch.randn(2, 5, 8, dtype=torch.float64), []

    def negate(heads):
        seen.append(tuple(heads.shape))
        return -heads

    torch.testing.assert_close(ours(x, rotate=negate), ours(x))  # (-q)·(-k) = q·k
    assert seen == [(2, 2, 5, 4)] * 2
    assert not torch.allclose(ours(x, rotate=lambda heads: 2 * heads), ours(x))


def test_attention_dropout_only_in_training():
    ours = layers.MultiHeadAttention(8, 2, dropout=0.5)
    x = torch.randn(2, 6, 8)
    assert not torch.allclose(ours(x), ours(x))
    assert not torch.allclose(ours(x, return_weights=True)[0], ours(x, return_weights=True)[0])
    ours.eval()
    assert torch.equal(ours(x), ours(x))
    torch.testing.assert_close(ours(x, return_weights=True)[0], ours(x))


def test_attention_without_bias():
    assert {n for n, _ in layers.MultiHeadAttention(8, 2, bias=False).named_parameters()} == {
        f"{name}_proj.weight" for name in ("query", "key", "value", "output")
    }


# Norm, activation, feed-forward network


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 5), (1, 1, 1)])
@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.1])
def test_layer_norm_equals_torch_forwards_and_backwards(shape, eps):
    ours = double(layers.LayerNorm(shape[-1], eps))
    theirs = nn.LayerNorm(shape[-1], eps).double()
    theirs.load_state_dict(ours.state_dict())
    x = (torch.randn(shape).double() * 3 + 1).requires_grad_()
    output, grad = theirs(x), torch.randn(shape).double()
    output.backward(grad)
    torch.testing.assert_close(ours(x), output)
    arrays = x.detach().numpy(), *(p.detach().numpy() for p in ours.parameters())
    np.testing.assert_allclose(
        layers_numpy.layer_norm(*arrays, eps), output.detach(), rtol=1e-6, atol=1e-9
    )
    got = layers_numpy.layer_norm_backward(grad.numpy(), *arrays[:2], eps)
    for ours_grad, expected in zip(
        got, (x.grad, theirs.weight.grad, theirs.bias.grad), strict=True
    ):
        np.testing.assert_allclose(ours_grad, expected, rtol=1e-6, atol=1e-7)


def test_layer_norm_of_equal_features_is_the_bias():
    weight, bias = np.full(4, 2.0), np.arange(4.0)
    x = np.full((2, 4), 7.0)
    np.testing.assert_array_equal(layers_numpy.layer_norm(x, weight, bias), [bias, bias])
    for grad in layers_numpy.layer_norm_backward(np.ones((2, 4)), x, weight):
        assert np.isfinite(grad).all()


def test_layer_norm_dtype_and_options():
    assert layers_numpy.layer_norm(*np.ones((3, 4), np.float32)).dtype == np.float32
    module = layers.LayerNorm(4, bias=False)
    assert module.bias is None and module(torch.randn(2, 4)).shape == (2, 4)


def test_gelu_equals_torch_and_scipy():
    x = np.linspace(-9, 9, 301).reshape(7, 43)
    np.testing.assert_allclose(layers_numpy.gelu(x), x * scipy.special.ndtr(x), atol=1e-14)
    tensor = torch.tensor(x, requires_grad=True)
    np.testing.assert_allclose(
        layers_numpy.gelu_tanh(x), F.gelu(tensor, approximate="tanh").detach(), atol=1e-14
    )
    F.gelu(tensor).sum().backward()
    np.testing.assert_allclose(layers_numpy.gelu_backward(np.ones_like(x), x), tensor.grad)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_feed_forward_equals_module_forwards_and_backwards(shape):
    module = double(layers.FeedForward(4, 7))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    output, grad = module(x), torch.randn(shape).double()
    output.backward(grad)
    params = block_numpy.from_torch(module)
    got, cache = layers_numpy.feed_forward(x.detach().numpy(), params)
    np.testing.assert_allclose(got, output.detach(), atol=1e-12)
    grad_x, grads = layers_numpy.feed_forward_backward(grad.numpy(), cache, params)
    np.testing.assert_allclose(grad_x, x.grad, atol=1e-12)
    expected = block_numpy.from_torch(module, gradients=True)
    assert grads.keys() == expected.keys()
    for name in grads:
        np.testing.assert_allclose(grads[name], expected[name], atol=1e-12)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("gelu", F.gelu),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("relu", F.relu),
        (torch.tanh, torch.tanh),
    ],
)
def test_feed_forward_activations(activation, function):
    module = layers.FeedForward(4, activation=activation)
    x = torch.randn(2, 3, 4)
    assert module.d_hidden == 16
    torch.testing.assert_close(module(x), module.down_proj(function(module.up_proj(x))))


# The block


def torch_block_with(ours, C, H, d_hidden, norm_first):
    """torch's own encoder layer, with the weights of our block."""
    theirs = nn.TransformerEncoderLayer(
        C, H, d_hidden, 0.0, "gelu", norm_first=norm_first, batch_first=True
    ).double()
    state = {
        f"self_attn.{k}": v for k, v in torch_attention_with(ours.attention).state_dict().items()
    }
    names = {
        "linear1": ours.feed_forward.up_proj,
        "linear2": ours.feed_forward.down_proj,
        "norm1": ours.attention_norm,
        "norm2": ours.feed_forward_norm,
    }
    for name, module in names.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize(("B", "T", "C", "H"), SHAPES)
def test_block_equals_torch_encoder_layer(B, T, C, H, norm_first):
    ours = double(layers.TransformerBlock(C, H, 2 * C, norm_first=norm_first))
    theirs = torch_block_with(ours, C, H, 2 * C, norm_first)
    x = torch.randn(B, T, C, dtype=torch.float64)
    causal = torch.tensor(attention.causal_mask(T))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x, causal), theirs(x, src_mask=~causal))
    torch.testing.assert_close(ours(x, is_causal=True), theirs(x, src_mask=~causal))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize(("B", "T", "C", "H"), SHAPES)
def test_numpy_block_equals_module_forwards_and_backwards(B, T, C, H, norm_first):
    block = double(layers.TransformerBlock(C, H, norm_first=norm_first, norm_eps=1e-3))
    mask = random_mask(B, T, 4)
    x = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    output, grad = block(x, torch.tensor(mask)), torch.randn(B, T, C).double()
    output.backward(grad)
    params = block_numpy.from_torch(block)
    got, cache = block_numpy.transformer_block(
        x.detach().numpy(), params, H, mask, norm_first=norm_first, eps=1e-3
    )
    np.testing.assert_allclose(got, output.detach(), atol=1e-10)
    grad_x, grads = block_numpy.transformer_block_backward(grad.numpy(), cache, params)
    np.testing.assert_allclose(grad_x, x.grad, rtol=1e-6, atol=1e-9)
    expected = block_numpy.from_torch(block, gradients=True)
    assert grads.keys() == expected.keys()
    for name in grads:
        np.testing.assert_allclose(grads[name], expected[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm_first", [True, False])
def test_numpy_block_backward_equals_finite_differences(norm_first):
    block = double(layers.TransformerBlock(4, 2, 6, norm_first=norm_first))
    params, rng = block_numpy.from_torch(block), np.random.default_rng(0)
    x, grad = rng.normal(size=(2, 2, 3, 4))
    options = {"mask": random_mask(2, 3, 5), "norm_first": norm_first}
    _, cache = block_numpy.transformer_block(x, params, 2, **options)
    grad_x, grads = block_numpy.transformer_block_backward(grad, cache, params)

    def loss():
        return (block_numpy.transformer_block(x, params, 2, **options)[0] * grad).sum()

    for array, gradient in [(x, grad_x), *((params[name], grads[name]) for name in params)]:
        index = tuple(rng.integers(size) for size in array.shape)
        kept, values = array[index], []
        for step in (1e-5, -1e-5):
            array[index] = kept + step
            values.append(loss())
        array[index] = kept
        assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("norm_first", [True, False])
def test_cross_attention_block_equals_torch_decoder_layer(norm_first):
    ours = double(layers.TransformerBlock(8, 2, 16, norm_first=norm_first, cross_attention=True))
    theirs = nn.TransformerDecoderLayer(
        8, 2, 16, 0.0, "gelu", norm_first=norm_first, batch_first=True
    ).double()
    pairs = {
        "linear1": ours.feed_forward.up_proj,
        "linear2": ours.feed_forward.down_proj,
        "norm1": ours.attention_norm,
        "norm2": ours.cross_attention_norm,
        "norm3": ours.feed_forward_norm,
        "self_attn": torch_attention_with(ours.attention),
        "multihead_attn": torch_attention_with(ours.cross_attention),
    }
    theirs.load_state_dict(
        {f"{n}.{k}": v for n, m in pairs.items() for k, v in m.state_dict().items()}
    )
    x, context = torch.randn(3, 4, 8).double(), torch.randn(3, 6, 8).double()
    real = torch.tensor(attention.padding_mask([6, 1, 4]))
    causal = torch.tensor(attention.causal_mask(4))
    torch.testing.assert_close(
        ours(x, is_causal=True, context=context, context_mask=real[:, None, :]),
        theirs.eval()(x, context, tgt_mask=~causal, memory_key_padding_mask=~real),
    )


def test_block_passes_rotate_and_mask_on():
    block = double(layers.TransformerBlock(8, 2))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    assert not torch.allclose(block(x, rotate=lambda heads: 2 * heads), block(x))
    changed = x.clone()
    changed[:, -1, 0] += 1  # one feature: a norm would not feel a shift of all of them
    torch.testing.assert_close(
        block(x, is_causal=True)[:, :4], block(changed, is_causal=True)[:, :4]
    )
    assert not torch.allclose(block(x)[:, :4], block(changed)[:, :4])


def test_block_dropout_reaches_both_updates_and_stops_in_eval():
    block, x = layers.TransformerBlock(8, 2, dropout=1.0), torch.randn(2, 5, 8)
    assert torch.equal(block(x), x)  # all updates are dropped, the stream is not
    block.eval()
    assert not torch.allclose(block(x), x) and torch.equal(block(x), block(x))


@pytest.mark.parametrize(("C", "H"), [(4, 1), (12, 3), (64, 8), (64, 64), (768, 12)])
def test_parameter_count_formula(C, H):
    block = layers.TransformerBlock(C, H)
    assert sum(p.numel() for p in block.parameters()) == 12 * C**2 + 13 * C
    theirs = nn.TransformerEncoderLayer(C, H, 4 * C)
    assert sum(p.numel() for p in theirs.parameters()) == 12 * C**2 + 13 * C
    without = layers.TransformerBlock(C, H, bias=False)
    assert sum(p.numel() for p in without.parameters()) == 12 * C**2 + 2 * C


def test_block_in_lower_precision_has_no_nan():
    block = layers.TransformerBlock(8, 2).bfloat16()
    x = torch.randn(2, 5, 8, dtype=torch.bfloat16)
    mask = torch.zeros(5, 5, dtype=torch.bool)
    output = block(x, mask)
    assert output.dtype == torch.bfloat16 and torch.isfinite(output).all()


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.MultiHeadAttention(10, 3), r"d_model=10 .* num_heads=3"),
        (lambda: layers.MultiHeadAttention(8, 0), "num_heads must be at least 1, not 0"),
        (lambda: layers.TransformerBlock(10, 4), "num_heads that divides"),
        (lambda: layers.MultiHeadAttention(8, 2, dropout=1.5), "from 0 to 1, not 1.5"),
        (lambda: layers.FeedForward(8, activation="swish"), r"swish.*gelu_tanh"),
        (lambda: layers.LayerNorm(8)(torch.zeros(2, 7)), r"\(\.\.\., 8\), not \(2, 7\)"),
        (lambda: layers.FeedForward(8)(torch.zeros(2, 7)), r"\(\.\.\., 8\), not \(2, 7\)"),
        (lambda: layers.MultiHeadAttention(8, 2)(torch.zeros(5, 8)), r"x\[None\]"),
        (
            lambda: layers.MultiHeadAttention(8, 2)(torch.zeros(1, 5, 8), torch.zeros(1, 5, 6)),
            "context should have shape",
        ),
        (
            lambda: layers.TransformerBlock(8, 2)(
                torch.zeros(1, 5, 8), context=torch.zeros(1, 2, 8)
            ),
            "cross_attention=True",
        ),
        (
            lambda: layers.TransformerBlock(8, 2, cross_attention=True)(torch.zeros(1, 5, 8)),
            "needs a context",
        ),
        (
            lambda: block_numpy.from_torch(layers.LayerNorm(4), gradients=True),
            "call backward",
        ),
    ],
)
def test_clear_value_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("shape", [(2, 5), (4, 5), (2, 5, 4), (3, 5, 5), (2, 3, 5, 5), (5,)])
@pytest.mark.parametrize("return_weights", [False, True])
def test_masks_that_do_not_fit_are_refused(shape, return_weights):
    module = layers.MultiHeadAttention(8, 4)
    with pytest.raises(ValueError, match=r"mask\[:, None, :\]"):
        module(
            torch.zeros(2, 5, 8),
            attention_mask=torch.ones(shape, dtype=torch.bool),
            return_weights=return_weights,
        )


@pytest.mark.parametrize("mask", [torch.ones(5, 5), np.ones((5, 5), bool), torch.ones(5, 5).int()])
def test_masks_that_are_not_boolean_tensors_are_refused(mask):
    with pytest.raises(TypeError, match="True = may attend"):
        layers.MultiHeadAttention(8, 4)(torch.zeros(2, 5, 8), attention_mask=mask)


def test_numpy_parts_do_not_import_torch():
    code = "import sys, utils.block_numpy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_initial_attention_is_nearly_even():
    """A fresh module attends to everything: no head starts out saturated."""
    _, weights = layers.MultiHeadAttention(64, 4)(torch.randn(2, 16, 64), return_weights=True)
    entropy = -(weights * weights.log()).sum(-1)
    assert entropy.min() > 0.9 * math.log(16)
