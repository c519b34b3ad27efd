"""Muon: momentum whose every update is made orthogonal; derived in chapter 13.

Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/. For matrices only: embeddings,
gains and biases need another optimiser beside it, and `Together` makes one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from utils.arguments import (
    as_list,
    as_number,
    as_positive,
    as_whole_number,
    check_entries,
    check_tensor,
    shown,
)
from utils.optim import Optimizer

# Jordan et al.'s quintic. Its slope at zero, 3.4445, is what lifts small singular values fast; in
# return it never settles at 1, but moves about between roughly 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    matrix: Tensor,
    steps: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = 1e-7,
) -> Tensor:
    """Push all singular values of a matrix towards 1 and leave its singular vectors as they are.

    One step is `X = a X + b (X Xᵀ) X + c (X Xᵀ)² X`, which does to each singular value s what the
    polynomial `a s + b s³ + c s⁵` does to a number. Only products of matrices are needed. The
    result approaches U Vᵀ of the singular value decomposition U S Vᵀ.

    Parameters
    ----------
    matrix : torch.Tensor, shape (..., m, n)
        Leading axes are separate matrices.
    steps : int
    coefficients : tuple of float
        a, b and c. The default reaches the neighbourhood of 1 in five steps and stays near it;
        (15/8, -10/8, 3/8) converges to 1, and needs several times as many.
    eps : float
        Added to the length that the matrix is divided by, so that zero stays zero.

    Returns
    -------
    torch.Tensor, shape (..., m, n)

    Raises
    ------
    TypeError, ValueError
        If it is no tensor of real numbers, there are fewer than two axes or `steps` is negative.
    """
    check_tensor("matrix", matrix)
    if matrix.ndim < 2:
        raise ValueError(
            f"only a matrix can be made orthogonal, not a tensor of shape {tuple(matrix.shape)}: "
            "leave vectors to AdamW"
        )
    steps = as_whole_number("steps", steps, 0, 1000)
    eps = as_number("eps", eps, 0)
    a, b, c = _as_coefficients(coefficients)
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix  # the smaller of the two products X Xᵀ and Xᵀ X
    # The Frobenius norm is at least the largest singular value: after this all are from 0 to 1.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + eps)
    for _ in range(steps):
        gram = x @ x.mT  # (..., m, m)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _as_coefficients(coefficients: tuple[float, float, float]) -> tuple[float, ...]:
    if not isinstance(coefficients, tuple | list) or len(coefficients) != 3:
        raise TypeError(f"coefficients are three numbers, not {shown(coefficients)}")
    return tuple(as_number("coefficients", each, -1000, 1000) for each in coefficients)


class Muon(Optimizer):
    """Momentum, made orthogonal by `newton_schulz` before every step.

    The step is `θ = θ - lr √max(1, m/n) O`, where O is the orthogonalised Nesterov momentum: all
    its singular values are near 1, so that `lr` says how far every direction moves.

    Parameters
    ----------
    params : iterable of torch.Tensor, or list of dict
        Matrices (m, n), with outputs down and inputs across as in `nn.Linear`; or stacks of them.
    lr : float
    momentum : float
        From 0 to below 1.
    weight_decay : float
        Decoupled, as in `AdamW`: weights shrink by the factor `1 - lr * weight_decay`.
    steps : int
        Of Newton–Schulz.

    Raises
    ------
    ValueError, TypeError
        If an option is out of range, or a parameter is no matrix.
    """

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0, steps=5):
        as_whole_number("steps", steps, 0, 1000)
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, steps=steps)
        for tensor in self._tensors():
            if tensor.ndim < 2:
                raise ValueError(
                    f"Muon trains matrices, and a parameter has shape {tuple(tensor.shape)}: give "
                    "vectors and embeddings to AdamW, and both optimisers to Together"
                )

    def _update(self, param, grad, state, *, lr, momentum, weight_decay, steps, **_):
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(param)
        velocity = state["velocity"].mul_(momentum).add_(grad)
        update = newton_schulz(grad + momentum * velocity, steps)
        if weight_decay:
            param.mul_(1 - lr * weight_decay)
        param.add_(update, alpha=-lr * max(1.0, param.shape[-2] / param.shape[-1]) ** 0.5)


class LazyAdam(torch.optim.SparseAdam):
    """Adam that visits only the rows of a table that a batch has looked up.

    For `nn.Embedding(..., sparse=True)`. Unlike Adam it leaves all other rows alone, their
    momentum and its decay included: that is what makes it cheap, and another optimiser. The
    gradients are taken over as soon as they are there, so that clipping does not see them.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999)):
        params = as_list("params", [params] if isinstance(params, Tensor) else params, Tensor)
        if not params or not all(table.requires_grad and table.is_leaf for table in params):
            raise ValueError("params must be a list of at least one table that is to be trained")
        if len({id(table) for table in params}) < len(params):
            raise ValueError("params: a table appears twice and would be updated twice per step")
        Optimizer._check_options({"lr": as_positive("lr", lr), "betas": betas})
        super().__init__(params, lr=float(lr), betas=tuple(betas))
        self.taken: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            for table in group["params"]:
                table.register_post_accumulate_grad_hook(self._take)

    def _take(self, table: Tensor) -> None:
        before = self.taken.get(table)
        self.taken[table] = table.grad if before is None else before + table.grad
        table.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        self.taken.clear()

    def step(self) -> None:
        """Update the rows that have a gradient."""
        for table, gradient in self.taken.items():
            table.grad = gradient
        super().step()
        for table in self.taken:
            table.grad = None
        self.taken.clear()


class Together:
    """Several optimisers, each with its own parameters, behind the interface of one.

    Parameters
    ----------
    *optimizers
        From `utils.optim`, `utils.muon` or `torch.optim`.

    Raises
    ------
    ValueError
        If there is none, or two of them train the same tensor.
    """

    def __init__(self, *optimizers: Any) -> None:
        for optimizer in optimizers:
            if not hasattr(optimizer, "param_groups"):
                raise TypeError(f"optimizers have param_groups, and this has none: {optimizer!r}")
        tensors = [t for o in optimizers for group in o.param_groups for t in group["params"]]
        if not optimizers or len({id(tensor) for tensor in tensors}) < len(tensors):
            raise ValueError(
                "Together needs at least one optimiser, and each tensor in only one of them"
            )
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all: a schedule writes `group["lr"]`."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Let each optimiser update its own parameters."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on later, by the optimiser's place."""
        return {str(place): each.state_dict() for place, each in enumerate(self.optimizers)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        check_entries("saved", saved, ())
        if len(saved) != len(self.optimizers):
            raise ValueError(
                f"the state is of {len(saved)} optimisers, but there are {len(self.optimizers)}: "
                "build them as they were when it was saved"
            )
        check_entries("saved", saved, map(str, range(len(self.optimizers))))
        for place, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(saved[str(place)])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.optimizers)
