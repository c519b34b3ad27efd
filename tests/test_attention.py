"""Attention against torch, autograd, scipy and finite differences, over random shapes."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from utils import attention, get_device


def random_case(seed, *, lead=None, dtype=np.float64):
    """Queries, keys, values and a mask that has a row with nothing to attend to."""
    rng = np.random.default_rng(seed)
    if lead is None:
        lead = tuple(rng.integers(1, 4, size=rng.integers(0, 3)))
    T_q, T_k, D, D_v = rng.integers(1, 8, size=4)
    q, k, v = (
        rng.normal(size=(*lead, *shape)).astype(dtype) for shape in ((T_q, D), (T_k, D), (T_k, D_v))
    )
    mask = rng.random((*lead, T_q, T_k)) < 0.6
    mask[..., 0, :] = False
    return q, k, v, mask, rng


def as_tensors(*arrays, grad=False):
    return [torch.tensor(a).requires_grad_(grad and a.dtype.kind == "f") for a in arrays]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(12))
def test_softmax_equals_scipy(seed, dtype):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 6, size=rng.integers(1, 4))
    x = (rng.normal(size=shape) * 10.0 ** rng.integers(0, 5)).astype(dtype)
    for axis in range(x.ndim):
        got = attention.softmax(x, axis)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, scipy.special.softmax(x, axis), atol=1e-6)
        np.testing.assert_allclose(got.sum(axis), 1, rtol=1e-5)


@given(seed=st.integers(0, 10**6), shift=st.floats(-1e6, 1e6))
@settings(max_examples=50, deadline=None)
def test_softmax_does_not_feel_a_constant_or_the_order(seed, shift):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 7))
    order = rng.permutation(7)
    weights = attention.softmax(x)
    np.testing.assert_allclose(attention.softmax(x + shift), weights, atol=1e-8)
    np.testing.assert_allclose(attention.softmax(x[:, order]), weights[:, order], atol=1e-15)
    assert (weights > 0).all()


def test_softmax_of_hidden_scores():
    inf = np.inf
    np.testing.assert_array_equal(attention.softmax([[-inf, -inf], [0, -inf]]), [[0, 0], [1, 0]])
    assert attention.softmax(np.zeros((2, 0))).shape == (2, 0)
    np.testing.assert_array_equal(attention.softmax([1, 1]), [0.5, 0.5])  # integers work


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_backward_equals_autograd_and_the_jacobian(axis):
    rng = np.random.default_rng(3)
    x, grad = rng.normal(size=(2, 4, 5, 3))
    tensor = torch.tensor(x, requires_grad=True)
    tensor.softmax(axis).backward(torch.tensor(grad))
    got = attention.softmax_backward(attention.softmax(x, axis), grad, axis)
    np.testing.assert_allclose(got, tensor.grad.numpy(), atol=1e-14)
    p, g = attention.softmax(x[0, 0]), grad[0, 0]
    jacobian = np.diag(p) - np.outer(p, p)
    np.testing.assert_allclose(attention.softmax_backward(p, g), jacobian @ g, atol=1e-14)


@pytest.mark.parametrize(("query_len", "key_len"), [(1, None), (6, None), (2, 5), (1, 4), (0, 3)])
def test_causal_mask(query_len, key_len):
    mask = attention.causal_mask(query_len, key_len)
    total = query_len if key_len is None else key_len
    assert mask.dtype == bool and mask.shape == (query_len, total)
    for t, s in itertools.product(range(query_len), range(total)):
        assert mask[t, s] == (s <= total - query_len + t)


def test_causal_mask_of_a_suffix_is_the_suffix_of_the_causal_mask():
    np.testing.assert_array_equal(attention.causal_mask(3, 8), attention.causal_mask(8)[-3:])


def test_causal_mask_takes_numpys_whole_numbers():
    np.testing.assert_array_equal(attention.causal_mask(np.int64(2)), [[1, 0], [1, 1]])
    assert attention.causal_mask(0).shape == (0, 0)


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), extra=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_padding_mask_counts_the_real_tokens(lengths, extra):
    mask = attention.padding_mask(lengths, max(lengths) + extra)
    assert mask.shape == (len(lengths), max(lengths) + extra) and mask.dtype == bool
    for row, length in zip(mask.tolist(), lengths, strict=True):
        assert row == [True] * length + [False] * (len(row) - length)


def test_padding_mask():
    mask = attention.padding_mask([3, 0, 4], 4)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(attention.padding_mask(np.array([2, 1])), [[1, 1], [1, 0]])


@given(seed=st.integers(0, 10**6), masked=st.booleans(), scale=st.sampled_from([None, 0.3, 2.0]))
@settings(max_examples=60, deadline=None)
def test_forward_equals_torch(seed, masked, scale):
    q, k, v, mask, _ = random_case(seed)
    mask = mask if masked else None
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask, scale)
    tensors = as_tensors(q, k, v)
    torch_mask = None if mask is None else torch.tensor(mask)
    theirs = F.scaled_dot_product_attention(*tensors, attn_mask=torch_mask, scale=scale)
    by_hand, torch_weights = attention.torch_attention(*tensors, torch_mask, scale)
    np.testing.assert_allclose(output, theirs.numpy(), atol=1e-10)
    np.testing.assert_allclose(output, by_hand.numpy(), atol=1e-10)
    np.testing.assert_allclose(weights, torch_weights.numpy(), atol=1e-10)
    if masked:
        assert (output[..., 0, :] == 0).all() and (weights[..., 0, :] == 0).all()
        assert (weights[~np.broadcast_to(mask, weights.shape)] == 0).all()


@given(seed=st.integers(0, 10**6), masked=st.booleans(), scale=st.sampled_from([None, 0.3]))
@settings(max_examples=60, deadline=None)
def test_backward_equals_autograd_through_torchs_own_attention(seed, masked, scale):
    q, k, v, mask, rng = random_case(seed)
    mask = mask if masked else None
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask, scale)
    grad_output = rng.normal(size=output.shape)
    grads = attention.scaled_dot_product_attention_backward(
        grad_output, q, k, v, weights, scale=scale
    )
    tensors = as_tensors(q, k, v, grad=True)
    torch_mask = None if mask is None else torch.tensor(mask)
    F.scaled_dot_product_attention(*tensors, attn_mask=torch_mask, scale=scale).backward(
        torch.tensor(grad_output)
    )
    for ours, tensor in zip(grads, tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), atol=1e-9)
    if masked:
        assert (grads[0][..., 0, :] == 0).all()


def random_broadcast(rng, lead):
    """Some of the leading axes, some of them of size 1."""
    kept = lead[rng.integers(0, len(lead) + 1) :]
    return tuple(int(rng.choice([1, size])) for size in kept)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_any_broadcast_of_leading_axes_and_mask_equals_torch(seed):
    rng = np.random.default_rng(seed)
    lead = tuple(rng.integers(1, 4, size=rng.integers(0, 4)))
    T_q, T_k, D, D_v = rng.integers(1, 6, size=4)
    q, k, v = (
        rng.normal(size=(*random_broadcast(rng, lead), *shape))
        for shape in ((T_q, D), (T_k, D), (T_k, D_v))
    )
    scores = (*np.broadcast_shapes(q.shape[:-2], k.shape[:-2]), T_q, T_k)
    mask = rng.random(random_broadcast(rng, scores)) < 0.6
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask)
    grad_output = rng.normal(size=output.shape)
    grads = attention.scaled_dot_product_attention_backward(grad_output, q, k, v, weights)

    tensors = as_tensors(q, k, v, grad=True)
    full = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    expanded = [t.expand(*full, *t.shape[-2:]) for t in tensors]
    torch_mask = torch.tensor(np.broadcast_to(mask, (*full, T_q, T_k)).copy())
    theirs = F.scaled_dot_product_attention(*expanded, attn_mask=torch_mask)
    theirs.backward(torch.tensor(grad_output))
    by_hand, _ = attention.torch_attention(*as_tensors(q, k, v), torch.tensor(mask))
    np.testing.assert_allclose(output, theirs.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(output, by_hand.numpy(), atol=1e-10)
    for ours, tensor in zip(grads, tensors, strict=True):
        assert ours.shape == tuple(tensor.shape)
        np.testing.assert_allclose(ours, tensor.grad.numpy(), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_backward_equals_finite_differences(seed):
    q, k, v, mask, rng = random_case(seed, lead=(2,))
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask)
    grad_output = rng.normal(size=output.shape)
    grads = attention.scaled_dot_product_attention_backward(grad_output, q, k, v, weights)
    for which, grad in enumerate(grads):
        for index in np.ndindex(*grad.shape):
            losses = []
            for step in (1e-5, -1e-5):
                arrays = [a.copy() for a in (q, k, v)]
                arrays[which][index] += step
                moved, _ = attention.scaled_dot_product_attention(*arrays, mask)
                losses.append((moved * grad_output).sum())
            assert abs((losses[0] - losses[1]) / 2e-5 - grad[index]) < 1e-8


def test_torch_attention_has_clean_gradients_where_nothing_may_be_attended_to():
    q, k, v, mask, rng = random_case(1, lead=(2, 3))
    ours, theirs = as_tensors(q, k, v, grad=True), as_tensors(q, k, v, grad=True)
    grad_output = torch.tensor(rng.normal(size=(*q.shape[:-1], v.shape[-1])))
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        attention.torch_attention(*ours, torch.tensor(mask))[0].backward(grad_output)
    F.scaled_dot_product_attention(*theirs, attn_mask=torch.tensor(mask)).backward(grad_output)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, atol=1e-10, rtol=0)
    assert (ours[0].grad[..., 0, :] == 0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mask_shape", [(4, 5), (2, 1, 5), (2, 4, 5)])
def test_a_mask_that_hides_everything_gives_zeros_forwards_and_backwards(mask_shape):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=shape) for shape in ((2, 4, 3), (2, 5, 3), (2, 5, 6)))
    mask = np.zeros(mask_shape, dtype=bool)
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask)
    grads = attention.scaled_dot_product_attention_backward(
        rng.normal(size=output.shape), q, k, v, weights
    )
    tensors = as_tensors(q, k, v, grad=True)
    torch_output, torch_weights = attention.torch_attention(*tensors, torch.tensor(mask))
    (torch_output * torch.randn(torch_output.shape)).sum().backward()
    for array in (output, weights, *grads, torch_output, torch_weights):
        assert (array == 0).all()
    for tensor in tensors:
        assert (tensor.grad == 0).all()


def test_no_keys_at_all_give_zeros():
    q, k, v = np.ones((2, 4, 3)), np.ones((2, 0, 3)), np.ones((2, 0, 6))
    output, weights = attention.scaled_dot_product_attention(q, k, v)
    torch_output, _ = attention.torch_attention(*as_tensors(q, k, v))
    assert weights.shape == (2, 4, 0)
    for array in (output, torch_output):
        assert tuple(array.shape) == (2, 4, 6) and (array == 0).all()


def test_torch_attention_passes_gradcheck_with_a_mask():
    q, k, v, mask, _ = random_case(11, lead=(2,))
    tensors = as_tensors(q, k, v, grad=True)

    def output_and_weights(*arrays):
        return attention.torch_attention(*arrays, torch.tensor(mask), 0.7)

    assert torch.autograd.gradcheck(output_and_weights, tensors)


def masks_by_name(B, H, T, device):
    causal = torch.tensor(attention.causal_mask(T), device=device)
    lengths = [T, *range(B - 1)]  # the second sentence, if there is one, has no real token
    real = torch.tensor(attention.padding_mask(lengths, T), device=device)[:, None, None]
    return {"none": None, "causal": causal, "padding": real, "both": causal & real}


@pytest.mark.parametrize("name", ["none", "causal", "padding", "both"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 16), (3, 4, 33, 64)])
def test_equals_torch_to_a_millionth_on_whatever_device_there_is(shape, name):
    device = get_device()
    # Apple's devices have no 64-bit numbers.
    dtype, tolerance = (torch.float64, 1e-6) if device.type != "mps" else (torch.float32, 1e-5)
    torch.manual_seed(0)
    ours = [torch.randn(shape, dtype=dtype).to(device).requires_grad_() for _ in range(3)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    mask = masks_by_name(*shape[:3], device)[name]
    output, _ = attention.torch_attention(*ours, mask)
    reference = F.scaled_dot_product_attention(*theirs, attn_mask=mask)
    torch.testing.assert_close(output, reference, atol=tolerance, rtol=0)
    grad_output = torch.randn(shape, dtype=dtype).to(device)
    output.backward(grad_output)
    reference.backward(grad_output)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("name", ["none", "causal", "padding", "both"])
def test_in_32_bits_on_the_cpu_it_still_equals_torch_to_a_millionth(name):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 7, 16)
    mask = masks_by_name(2, 3, 7, "cpu")[name]
    output, _ = attention.torch_attention(q, k, v, mask)
    reference = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(output, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near_torch(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 16).to(dtype).requires_grad_() for _ in range(3))
    mask = masks_by_name(2, 3, 7, "cpu")["both"]
    output, _ = attention.torch_attention(q, k, v, mask)
    reference = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    output.float().sum().backward()
    assert output.dtype == dtype
    torch.testing.assert_close(output, reference, atol=0.05, rtol=0)
    assert all(tensor.grad.isfinite().all() for tensor in (q, k, v))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept_and_float32_equals_torch(dtype):
    q, k, v, mask, rng = random_case(5, lead=(2, 3), dtype=dtype)
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask)
    grads = attention.scaled_dot_product_attention_backward(
        rng.normal(size=output.shape).astype(dtype), q, k, v, weights
    )
    assert {a.dtype for a in (output, weights, *grads)} == {np.dtype(dtype)}
    theirs = F.scaled_dot_product_attention(*as_tensors(q, k, v), attn_mask=torch.tensor(mask))
    np.testing.assert_allclose(output, theirs.numpy(), atol=2e-6)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 1), ()), ((3,), (2, 1), (3,)), ((), (2,), (1,))])
def test_leading_axes_broadcast_and_their_gradients_add_up(shapes):
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.normal(size=(*lead, *shape))
        for lead, shape in zip(shapes, ((4, 3), (5, 3), (5, 2)), strict=True)
    )
    tensors = as_tensors(q, k, v, grad=True)
    output, weights = attention.scaled_dot_product_attention(q, k, v)
    theirs, _ = attention.torch_attention(*tensors)
    np.testing.assert_allclose(output, theirs.detach().numpy(), atol=1e-12)
    grad_output = rng.normal(size=output.shape)
    theirs.backward(torch.tensor(grad_output))
    grads = attention.scaled_dot_product_attention_backward(grad_output, q, k, v, weights)
    for ours, tensor in zip(grads, tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_extreme_scores_stay_finite(size, dtype):
    q, k, v, mask, rng = random_case(2, lead=(2,), dtype=dtype)
    q = (q * size).astype(dtype)
    output, weights = attention.scaled_dot_product_attention(q, k, v, mask)
    grads = attention.scaled_dot_product_attention_backward(
        rng.normal(size=output.shape), q, k, v, weights
    )
    assert all(np.isfinite(a).all() for a in (output, weights, *grads))
    torch_output, _ = attention.torch_attention(*as_tensors(q, k, v, mask))
    assert torch_output.isfinite().all()


def test_causal_outputs_do_not_depend_on_the_future():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 9, 4))
    full, _ = attention.scaled_dot_product_attention(q, k, v, attention.causal_mask(9))
    for t in range(1, 10):
        mask = attention.causal_mask(t)
        prefix, _ = attention.scaled_dot_product_attention(q[:t], k[:t], v[:t], mask)
        np.testing.assert_allclose(prefix, full[:t], atol=1e-14)
        last, _ = attention.scaled_dot_product_attention(
            q[t - 1 : t], k[:t], v[:t], attention.causal_mask(1, t)
        )
        np.testing.assert_allclose(last[0], full[t - 1], atol=1e-14)


def test_padding_does_not_change_a_sentence():
    rng = np.random.default_rng(0)
    sentences = [rng.normal(size=(n, 4)) for n in (5, 2, 7)]
    for max_len, junk in ((7, 0.0), (12, 1e4)):
        batch = np.full((3, max_len, 4), junk)
        for row, sentence in zip(batch, sentences, strict=True):
            row[: len(sentence)] = sentence
        mask = attention.padding_mask([5, 2, 7], max_len)[:, None, :]
        output, _ = attention.scaled_dot_product_attention(batch, batch, batch, mask)
        for row, s in zip(output, sentences, strict=True):
            alone, _ = attention.scaled_dot_product_attention(s, s, s)
            np.testing.assert_allclose(row[: len(s)], alone, atol=1e-12)


def test_dropout_acts_on_the_output_only():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 400, 50, 8)
    plain, weights = attention.torch_attention(q, k, v)
    dropped, same_weights = attention.torch_attention(q, k, v, dropout_p=0.3)
    torch.testing.assert_close(weights, same_weights)
    assert not torch.allclose(plain, dropped)
    ones = torch.ones(400, 50, 1)
    mean = attention.torch_attention(q, k, ones, dropout_p=0.3)[0].mean().item()
    assert abs(mean - 1) < 0.02  # survivors grow by 1 / 0.7, so the mean stays


ARRAYS = {"queries": (2, 4, 3), "keys": (2, 5, 3), "values": (2, 5, 6)}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"queries": (3,)}, ValueError, r"queries should have shape.*x\[None, :\]"),
        ({"queries": (2, 4, 7)}, ValueError, "width 7 .* keys of width 3"),
        ({"values": (2, 4, 6)}, ValueError, "5 keys but 4 values"),
        ({"keys": (3, 5, 3)}, ValueError, "leading axes"),
        ({"queries": (2, 4, 0), "keys": (2, 5, 0)}, ValueError, "width 0"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, error, words):
    shapes = ARRAYS | change
    with pytest.raises(error, match=words):
        attention.scaled_dot_product_attention(*(np.ones(s) for s in shapes.values()))
    with pytest.raises(error, match=words):
        attention.torch_attention(*(torch.ones(s) for s in shapes.values()))


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.zeros((4, 5)), TypeError, "boolean with True = may attend, not .*float64"),
        (np.ones((4, 5), dtype=int), TypeError, "mask != 0"),
        (np.ones((5, 4), dtype=bool), ValueError, "does not broadcast"),
        (np.ones((3, 5), dtype=bool), ValueError, r"mask\[:, None, :\]"),
        (np.ones((7, 2, 4, 5), dtype=bool), ValueError, "does not broadcast"),
    ],
)
def test_masks_that_do_not_fit_are_named(mask, error, words):
    arrays = [np.ones(s) for s in ARRAYS.values()]
    with pytest.raises(error, match=words):
        attention.scaled_dot_product_attention(*arrays, mask)
    with pytest.raises(error, match=words):
        attention.torch_attention(*as_tensors(*arrays), torch.tensor(mask))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: attention.softmax(torch.ones(2)), TypeError, "torch tensor.*torch_attention"),
        (lambda: attention.softmax(["a"]), TypeError, "real numbers"),
        (lambda: attention.softmax(np.ones(2) * 1j), TypeError, "real numbers"),
        (lambda: attention.softmax_backward(np.ones(2), np.ones(3)), ValueError, "shape"),
        (lambda: attention.causal_mask(-1), ValueError, "query_len=-1"),
        (lambda: attention.causal_mask(4, 2), ValueError, "key_len=2"),
        (lambda: attention.causal_mask(2.0), TypeError, r"whole numbers.*query_len=2\.0"),
        (lambda: attention.causal_mask(2, "4"), TypeError, r"key_len='4'"),
        (lambda: attention.padding_mask([3, 5], 4), ValueError, "truncate"),
        (lambda: attention.padding_mask([-1], 4), ValueError, "from -1"),
        (lambda: attention.padding_mask([1.5], 4), TypeError, "whole numbers"),
        (lambda: attention.padding_mask([True], 4), TypeError, "whole numbers, not of dtype bool"),
        (lambda: attention.padding_mask(3, 4), ValueError, "one number for each"),
        (lambda: attention.padding_mask([], 4), ValueError, "one number for each"),
        (lambda: attention.padding_mask([[1, 2]], 4), ValueError, "one number for each"),
        (lambda: attention.softmax_backward(torch.ones(2), np.ones(2)), TypeError, "weights is a"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("wrong", ["grad_output", "weights"])
def test_backward_names_what_does_not_fit(wrong):
    arrays = {name: np.ones(shape) for name, shape in ARRAYS.items()}
    others = {"grad_output": np.ones((2, 4, 6)), "weights": np.ones((2, 4, 5))}
    others[wrong] = others[wrong][:, :3]
    with pytest.raises(ValueError, match=f"{wrong} has shape"):
        attention.scaled_dot_product_attention_backward(
            others["grad_output"], *arrays.values(), others["weights"]
        )


def test_the_numpy_part_does_not_need_torch():
    code = "import utils.attention, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ONES = np.ones((2, 3))


@pytest.mark.parametrize("position", range(3))
def test_numpy_and_torch_are_not_mixed(position):
    arrays, tensors = [ONES] * 3, as_tensors(ONES, ONES, ONES)
    name = ("queries", "keys", "values")[position]
    arrays[position] = tensors[position]
    with pytest.raises(TypeError, match=f"{name} is a torch tensor.*torch_attention"):
        attention.scaled_dot_product_attention(*arrays)
    tensors[position] = ONES
    with pytest.raises(TypeError, match=f"{name} is a ndarray.*scaled_dot_product_attention"):
        attention.torch_attention(*tensors)


def test_a_numpy_mask_for_tensors_is_named():
    tensors = as_tensors(ONES, ONES, ONES)
    with pytest.raises(TypeError, match=r"mask is a ndarray.*torch\.as_tensor"):
        attention.torch_attention(*tensors, attention.causal_mask(2))


def test_backward_names_numbers_that_are_not_real():
    weights, grad_output = np.full((2, 2), 0.5), ONES * 1j
    with pytest.raises(TypeError, match="grad_output should hold real numbers"):
        attention.scaled_dot_product_attention_backward(grad_output, ONES, ONES, ONES, weights)
