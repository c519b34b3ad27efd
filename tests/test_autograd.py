"""Our tape agrees with torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.autograd import Variable, sum_to_shape

SHAPES = st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple)


def both(function, *arrays):
    """Return the gradients of sum(function) by our tape and by torch's."""
    ours = [Variable(array) for array in arrays]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    function(*ours).sum().backward()
    function(*theirs).sum().backward()
    return [v.grad for v in ours], [t.grad.numpy() for t in theirs]


FUNCTIONS = {
    "add": lambda a, b: a + b,
    "radd": lambda a, b: 2.0 + a * b,
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: 1.0 - a - b,
    "mul": lambda a, b: a * b * a,
    "div": lambda a, b: a / (b * b + 1.0),
    "rdiv": lambda a, b: 1.0 / (a * a + b * b + 1.0),
    "pow": lambda a, b: a**3 + b**2,
    "exp": lambda a, b: (a * b).exp(),
    "log": lambda a, b: (a * a + b * b + 0.5).log(),
    "tanh": lambda a, b: (a + b).tanh() * a,
    "neg": lambda a, b: -a * -b,
    "sum last": lambda a, b: a.sum(-1) * b.sum(-1),
    "softmax": lambda a, b: (a.exp() / a.exp().sum(-1, keepdims=True)) * b,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("first", "second"),
    [((3, 4), (3, 4)), ((3, 4), (4,)), ((1, 4), (3, 1)), ((2, 3, 4), (3, 1)), ((5,), (5,))],
)
def test_gradients_equal_torchs(name, first, second):
    rng = np.random.default_rng(0)
    ours, theirs = both(FUNCTIONS[name], rng.normal(size=first), rng.normal(size=second))
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.shape == reference.shape
        np.testing.assert_allclose(mine, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [((3, 4), (4, 2)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5))],
)
def test_matrix_products_with_broadcast_leading_axes(first, second):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=first), rng.normal(size=second)
    ours, theirs = both(lambda a, b: (a @ b).tanh(), *arrays)
    for mine, reference in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-10, atol=1e-12)


def test_transpose_and_reflected_product():
    rng = np.random.default_rng(0)
    a, left = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    variable, tensor = Variable(a), torch.tensor(a, requires_grad=True)
    (left @ variable.transpose()).tanh().sum().backward()
    (torch.tensor(left) @ tensor.T).tanh().sum().backward()
    np.testing.assert_allclose(variable.grad, tensor.grad.numpy())


@settings(deadline=None, max_examples=80)
@given(SHAPES, st.data())
def test_sum_to_shape_equals_torchs(shape, data):
    lead = data.draw(st.lists(st.integers(1, 3), max_size=2).map(tuple))
    full = lead + tuple(data.draw(st.integers(1, 4)) if size == 1 else size for size in shape)
    gradient = np.random.default_rng(0).normal(size=full)
    got = sum_to_shape(gradient, shape)
    assert got.shape == shape
    np.testing.assert_allclose(got, torch.from_numpy(gradient).sum_to_size(shape).numpy())


def test_a_shape_that_does_not_broadcast_is_refused():
    with pytest.raises(ValueError, match="does not broadcast"):
        sum_to_shape(np.ones((2, 3)), (2,))
    with pytest.raises(ValueError, match="does not broadcast"):
        sum_to_shape(np.ones(3), (2, 3))


def test_a_variable_used_twice_gets_both_parts_and_a_second_backward_adds():
    x = Variable([3.0])
    (x * x).sum().backward()
    assert x.grad == 6
    (x * x).sum().backward()
    assert x.grad == 12


def test_a_long_chain_does_not_exhaust_the_stack():
    x = Variable(1.0)
    y = x
    for _ in range(5000):
        y = y + 1.0
    y.backward()
    assert x.grad == 1


def test_float32_stays_float32():
    x = Variable(np.ones((2, 2), dtype=np.float32))
    (x @ x).tanh().sum().backward()
    assert x.grad.dtype == np.float32


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one number"):
        Variable([1.0, 2.0]).backward()
    with pytest.raises(TypeError, match="real numbers"):
        Variable(["a"])
    with pytest.raises(ValueError, match="matrices"):
        Variable([1.0]) @ Variable([1.0])
    with pytest.raises(TypeError, match="power must be a number"):
        Variable([1.0]) ** Variable([1.0])
