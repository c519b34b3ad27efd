"""Automatic differentiation in numpy: a tape of operations, played backwards (chapter 7).

    x = Variable([[1.0, 2.0]])
    w = Variable(np.ones((2, 3)))
    loss = (x @ w).tanh().sum()
    loss.backward()
    w.grad  # (2, 3)

It does what `torch.autograd` does for the operations below, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.arguments import as_floats, as_list, as_whole_number, check_type

FloatArray = NDArray[np.floating[Any]]
Backward = Callable[[FloatArray], FloatArray]


class Variable:
    """An array that remembers how it was computed.

    Parameters
    ----------
    data : array_like
        Real numbers of any shape; whole numbers become float64.
    parents : sequence of (Variable, callable), optional
        What it was computed from, and for each the function that turns a gradient with respect to
        this variable into one with respect to the parent. The operations fill it in.

    Attributes
    ----------
    data : numpy.ndarray
    grad : numpy.ndarray or None
        The gradient that `backward` left here, of the shape of `data`. A second `backward` adds
        to it, as in torch.
    """

    __array_ufunc__ = None  # so that `array + variable` comes to Variable.__radd__

    def __init__(self, data: ArrayLike, parents: tuple[tuple[Variable, Backward], ...] = ()):
        self.data = as_floats("data", data, instead="torch's own autograd")
        self.grad: FloatArray | None = None
        self.parents = tuple(as_list("parents", parents, tuple))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data."""
        return self.data.shape

    def __repr__(self) -> str:
        return f"Variable(shape={self.shape})"

    # ------------------------------------------------------------------ operations
    def __add__(self, other: Variable | ArrayLike) -> Variable:
        other = _as_variable(other)
        return Variable(self.data + other.data, ((self, lambda g: g), (other, lambda g: g)))

    def __mul__(self, other: Variable | ArrayLike) -> Variable:
        other = _as_variable(other)
        return Variable(
            self.data * other.data,
            ((self, lambda g: g * other.data), (other, lambda g: g * self.data)),
        )

    def __matmul__(self, other: Variable | ArrayLike) -> Variable:
        other = _as_variable(other)
        if self.data.ndim < 2 or other.data.ndim < 2:
            raise ValueError(
                f"@ needs matrices, but the shapes are {self.shape} and {other.shape}: "
                "make a vector a matrix with one row, x[None, :]"
            )
        return Variable(
            self.data @ other.data,
            (
                (self, lambda g: g @ np.swapaxes(other.data, -1, -2)),
                (other, lambda g: np.swapaxes(self.data, -1, -2) @ g),
            ),
        )

    def __pow__(self, power: float) -> Variable:
        if not isinstance(power, int | float):
            raise TypeError(f"the power must be a number, not {type(power).__name__}")
        return Variable(self.data**power, ((self, lambda g: g * power * self.data ** (power - 1)),))

    def __neg__(self) -> Variable:
        return self * -1.0

    def __sub__(self, other: Variable | ArrayLike) -> Variable:
        return self + -_as_variable(other)

    def __truediv__(self, other: Variable | ArrayLike) -> Variable:
        return self * _as_variable(other) ** -1

    def __radd__(self, other: ArrayLike) -> Variable:
        return self + other

    def __rmul__(self, other: ArrayLike) -> Variable:
        return self * other

    def __rsub__(self, other: ArrayLike) -> Variable:
        return -self + other

    def __rtruediv__(self, other: ArrayLike) -> Variable:
        return self**-1 * other

    def __rmatmul__(self, other: ArrayLike) -> Variable:
        return _as_variable(other) @ self

    def exp(self) -> Variable:
        """Return e to the power of each entry."""
        result = np.exp(self.data)
        return Variable(result, ((self, lambda g: g * result),))

    def log(self) -> Variable:
        """Return the natural logarithm of each entry."""
        return Variable(np.log(self.data), ((self, lambda g: g / self.data),))

    def tanh(self) -> Variable:
        """Return the hyperbolic tangent of each entry."""
        result = np.tanh(self.data)
        return Variable(result, ((self, lambda g: g * (1 - result**2)),))

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Variable:
        """Add up all entries, or those along one axis."""
        if axis is not None:
            axis = as_whole_number("axis", axis, -self.data.ndim, self.data.ndim - 1)
        keepdims = bool(keepdims)

        def back(g: FloatArray) -> FloatArray:
            if axis is not None and not keepdims:
                g = np.expand_dims(g, axis)
            return np.broadcast_to(g, self.shape)  # every summand counts once

        return Variable(self.data.sum(axis=axis, keepdims=keepdims), ((self, back),))

    def transpose(self) -> Variable:
        """Swap the last two axes."""
        return Variable(np.swapaxes(self.data, -1, -2), ((self, lambda g: np.swapaxes(g, -1, -2)),))

    # ------------------------------------------------------------------ the tape, backwards
    def backward(self) -> None:
        """Leave in `grad` of every variable this one depends on the gradient of this one.

        Raises
        ------
        ValueError
            If this variable is not a single number: only a number can go up or down.
        """
        if self.data.size != 1:
            raise ValueError(
                f"backward starts from one number, but the shape is {self.shape}: "
                "add the entries up with .sum() first"
            )
        gradients = {id(self): np.ones_like(self.data)}
        for variable in reversed(topological_order(self)):
            gradient = gradients.pop(id(variable))
            variable.grad = gradient if variable.grad is None else variable.grad + gradient
            for parent, back in variable.parents:
                part = sum_to_shape(back(gradient), parent.shape)
                so_far = gradients.get(id(parent))
                gradients[id(parent)] = part if so_far is None else so_far + part


def topological_order(output: Variable) -> list[Variable]:
    """Return all that `output` depends on, each variable after everything it was made from."""
    check_type("output", output, Variable)
    order: list[Variable] = []
    seen: set[int] = set()
    stack = [(output, False)]
    while stack:  # a loop and not a recursion, which a long chain would exhaust
        variable, parents_done = stack.pop()
        if parents_done:
            order.append(variable)
        elif id(variable) not in seen:
            seen.add(id(variable))
            stack.append((variable, True))
            stack.extend((parent, False) for parent, _ in variable.parents)
    return order


def sum_to_shape(gradient: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Undo broadcasting: add the gradient up over the axes along which its array was stretched.

    Parameters
    ----------
    gradient : numpy.ndarray
        Of the shape that broadcasting gave.
    shape : tuple of int
        The shape that the array had before it was broadcast.

    Returns
    -------
    numpy.ndarray of shape `shape`

    Raises
    ------
    TypeError, ValueError
        If an array of `shape` does not broadcast to the gradient's shape.
    """
    gradient = as_floats("gradient", gradient)
    for size in as_list("shape", shape, int, np.integer):
        as_whole_number("shape", size)
    try:
        fits = np.broadcast_shapes(tuple(shape), gradient.shape) == gradient.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"an array of shape {tuple(shape)} does not broadcast to {gradient.shape}, so this "
            "gradient cannot belong to it"
        )
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    stretched = tuple(i for i, size in enumerate(shape) if size == 1 != gradient.shape[i])
    return gradient.sum(axis=stretched, keepdims=True)


def _as_variable(value: Variable | ArrayLike) -> Variable:
    return value if isinstance(value, Variable) else Variable(value)
