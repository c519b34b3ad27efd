"""utils.losses against torch.nn.functional."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import losses, optim


@pytest.mark.parametrize("shape", [(7,), (1,), (4, 6), (2, 3, 11)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_equals_torch(shape, scale, dtype):
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=shape)).astype(dtype)
    targets = rng.integers(0, shape[-1], size=shape[:-1])
    loss, grad = losses.softmax_cross_entropy(logits, targets)
    z = torch.tensor(logits, requires_grad=True)
    expected = F.cross_entropy(z.reshape(-1, shape[-1]), torch.tensor(targets).reshape(-1))
    expected.backward()
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    assert loss == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, z.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ignore_index", [-100, -1, 2])
def test_cross_entropy_ignores_marked_positions(ignore_index):
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(5, 4, 6)), rng.integers(0, 6, size=(5, 4))
    targets[rng.random((5, 4)) < 0.4] = ignore_index
    loss, grad = losses.softmax_cross_entropy(logits, targets, ignore_index)
    z = torch.tensor(logits.reshape(-1, 6), requires_grad=True)
    expected = F.cross_entropy(z, torch.tensor(targets.reshape(-1)), ignore_index=ignore_index)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grad.reshape(-1, 6), z.grad.numpy(), atol=1e-12)
    assert not grad[targets == ignore_index].any()


def test_cross_entropy_with_forbidden_classes_and_integer_logits():
    loss, grad = losses.softmax_cross_entropy(np.array([0.0, -np.inf, 0.0]), np.array(0))
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(grad, [-0.5, 0, 0.5])
    loss, grad = losses.softmax_cross_entropy([[1, 1, 1, 1]], [2])
    assert loss == pytest.approx(np.log(4)) and grad.dtype == np.float64


def test_cross_entropy_leaves_its_arguments_alone():
    logits, targets = np.ones((2, 3)), np.array([0, -100])
    losses.softmax_cross_entropy(logits, targets)
    assert (logits == 1).all() and targets.tolist() == [0, -100]


@pytest.mark.parametrize(
    ("logits", "targets", "error", "message"),
    [
        (np.zeros((2, 3)), np.array([0]), ValueError, "do not fit"),
        (np.zeros((2, 3)), np.zeros((2, 3), dtype=int), ValueError, "do not fit"),
        (np.float64(1.0), np.array(0), ValueError, "do not fit"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), TypeError, "integers"),
        (np.zeros((2, 3)), np.array([0, 3]), ValueError, "target 3 is not one of the 3"),
        (np.zeros((2, 3)), np.array([0, -1]), ValueError, "target -1"),
        (np.zeros((2, 3)), np.array([-100, -100]), ValueError, "every target is ignored"),
    ],
)
def test_cross_entropy_rejects(logits, targets, error, message):
    with pytest.raises(error, match=message):
        losses.softmax_cross_entropy(logits, targets)


def test_cross_entropy_can_be_had_from_optim():
    assert optim.softmax_cross_entropy is losses.softmax_cross_entropy
