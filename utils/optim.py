"""What turns gradients into a trained model: loss, optimisers, schedule, clipping.

Derived step by step in chapter 8. The optimisers act in place on torch tensors and follow the
formulas of their papers line by line; `tests/test_optim.py` holds them to `torch.optim`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def softmax_cross_entropy(
    logits: np.ndarray, targets: np.ndarray, ignore_index: int = -100
) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy of softmax(logits), and its gradient, in numpy.

    For one position with target y the loss is `logsumexp(z) - z[y]`, and its gradient with
    respect to the logits z is `softmax(z) - onehot(y)` (Goodfellow, Bengio and Courville 2016,
    section 6.2.2.3); both are then averaged over the positions that count.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Unnormalised log-probabilities.
    targets : array_like of int, shape (...)
        The right class of each position, from 0 to V - 1, or `ignore_index`.
    ignore_index : int
        Positions with this target add nothing to the loss and get a gradient of zero.

    Returns
    -------
    loss : float
        In nats per counted position.
    grad : numpy.ndarray, shape (..., V)
        Of the floating-point type of `logits`.

    Raises
    ------
    TypeError
        If `targets` are not integers.
    ValueError
        If the shapes do not fit, a target is not a class, or every target is ignored.
    """
    given, targets = np.asarray(logits), np.asarray(targets)
    if given.ndim == 0 or targets.shape != given.shape[:-1]:
        raise ValueError(
            f"logits of shape {given.shape} and targets of shape {targets.shape} do not fit: "
            "targets need the shape of the logits without their last axis, the classes"
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets must be integers (class numbers), not {targets.dtype}")
    counted = targets != ignore_index
    vocabulary = given.shape[-1]
    bad = targets[counted & ((targets < 0) | (targets >= vocabulary))]
    if bad.size:
        raise ValueError(
            f"target {bad[0]} is not one of the {vocabulary} classes 0 to {vocabulary - 1}; "
            f"mark positions to skip with {ignore_index}"
        )
    if not counted.any():
        raise ValueError("every target is ignored, so there is nothing to average")

    z = given.astype(np.float64)
    z = z - z.max(axis=-1, keepdims=True)  # the largest exponent is 0: nothing overflows
    log_probs = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    chosen = np.where(counted, targets, 0)[..., None]
    losses = -np.take_along_axis(log_probs, chosen, axis=-1)[..., 0]
    grad = np.exp(log_probs)
    np.put_along_axis(grad, chosen, np.take_along_axis(grad, chosen, -1) - 1, axis=-1)
    grad = np.where(counted[..., None], grad, 0) / counted.sum()
    return float(losses[counted].mean()), grad.astype(np.result_type(given.dtype, np.float16))


class Optimizer:
    """What all optimisers share: groups of parameters, and saving and loading of state.

    Parameters
    ----------
    params : iterable of torch.Tensor, or list of dict
        The tensors to train, or groups such as `{"params": [...], "weight_decay": 0.0}` whose
        options replace the defaults (see `decay_groups`).
    **defaults
        The options of every group that does not set its own.

    Attributes
    ----------
    param_groups : list of dict
        As in torch: a schedule writes `group["lr"]`.
    state : dict
        What the optimiser remembers of each tensor.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], **defaults: Any):
        if isinstance(params, Tensor):
            raise TypeError("params must be a list of tensors, such as [weight], not one tensor")
        groups = list(params)
        if not groups:
            raise ValueError("there is nothing to train: the list of parameters is empty")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.param_groups = [defaults | g | {"params": list(g["params"])} for g in groups]
        self.state: dict[Tensor, dict[str, Any]] = {}
        for group in self.param_groups:
            if set(group) - set(defaults) - {"params"}:
                unknown = sorted(set(group) - set(defaults) - {"params"})
                raise ValueError(f"unknown options {unknown}; known are {sorted(defaults)}")
            self._check_options(group)
        tensors = self._tensors()
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or not tensor.is_leaf:
                raise TypeError(
                    "only leaf tensors can be trained, such as model.parameters(), "
                    f"not {type(tensor).__name__}"
                )
        if len({id(tensor) for tensor in tensors}) < len(tensors):
            raise ValueError("a tensor appears twice and would be updated twice per step")

    def _tensors(self) -> list[Tensor]:
        return [tensor for group in self.param_groups for tensor in group["params"]]

    @staticmethod
    def _check_options(group: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay", "eps"):
            if name in group and not group[name] >= 0:
                raise ValueError(f"{name} must be at least 0, not {group[name]}")
        for value in (group.get("momentum", 0.0), *group.get("betas", ())):
            if not 0 <= value < 1:
                raise ValueError(f"momentum and betas must be from 0 to below 1, not {value}")
        if group.get("nesterov") and not group["momentum"]:
            raise ValueError("nesterov=True needs momentum above 0")

    def zero_grad(self) -> None:
        """Forget all gradients; autograd adds to them otherwise."""
        for tensor in self._tensors():
            tensor.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every tensor that has a gradient, in place."""
        for group in self.param_groups:
            for tensor in group["params"]:
                if tensor.grad is not None:
                    self._update(tensor, tensor.grad, self.state.setdefault(tensor, {}), **group)

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], **options: Any) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on later, with tensors numbered in order.

        The tensors in it are the optimiser's own, as in torch: save or copy them before the
        next step.
        """
        number = {tensor: index for index, tensor in enumerate(self._tensors())}
        return {
            "state": {number[tensor]: dict(state) for tensor, state in self.state.items()},
            "param_groups": [
                group | {"params": [number[tensor] for tensor in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the tensors in it are copied.

        Raises
        ------
        ValueError
            If groups or shapes differ from those of this optimiser.
        """
        tensors, groups = self._tensors(), saved["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        own_sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(
                f"the saved groups hold {sizes} tensors, but this optimiser's hold {own_sizes}: "
                "build it from the same model and with the same groups"
            )
        state: dict[Tensor, dict[str, Any]] = {}
        for index, entries in saved["state"].items():
            param = tensors[int(index)]
            state[param] = {}
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.shape != param.shape:
                    raise ValueError(
                        f"{name} of tensor {index} has shape {tuple(value.shape)}, but the tensor "
                        f"has {tuple(param.shape)}: was the state saved from another model?"
                    )
                is_tensor = isinstance(value, Tensor)
                state[param][name] = value.to(param, copy=True) if is_tensor else value
        self.state = state
        for group, other in zip(self.param_groups, groups, strict=True):
            group.update({name: value for name, value in other.items() if name != "params"})


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    With momentum μ the velocity is `v = μ v + g` (it starts as the first gradient), and the step
    is `θ = θ - lr v`: Polyak's heavy ball (1964) in the form of Sutskever et al. (2013,
    equations 1 and 2), with the learning rate outside the velocity as in torch. Nesterov's variant
    steps along `g + μ v` instead (their equations 3 and 4, rewritten at the looked-ahead point).

    Parameters
    ----------
    params : iterable of torch.Tensor, or list of dict
    lr : float
    momentum : float
        From 0 (none) to below 1.
    nesterov : bool
    weight_decay : float
        Adds `weight_decay * θ` to the gradient, which is L2 regularisation.

    Raises
    ------
    ValueError, TypeError
        If an option is out of range or `params` are not leaf tensors.
    """

    def __init__(self, params, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, lr=lr, **options)

    def _update(self, param, grad, state, *, lr, momentum, nesterov, weight_decay, **_):
        grad = grad + weight_decay * param if weight_decay else grad
        if momentum:
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(param)
            velocity = state["velocity"].mul_(momentum).add_(grad)
            grad = grad + momentum * velocity if nesterov else velocity
        param.sub_(lr * grad)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1); its weight decay is L2 regularisation.

    Parameters
    ----------
    params : iterable of torch.Tensor, or list of dict
    lr : float
    betas : tuple of two floats
        How much of the mean gradient and of the mean squared gradient survives each step.
    eps : float
        Added to the root, so that a gradient of zero does not divide by zero.
    weight_decay : float
        Adds `weight_decay * θ` to the gradient, so that it is rescaled with it; see `AdamW`.

    Raises
    ------
    ValueError, TypeError
        If an option is out of range or `params` are not leaf tensors.
    """

    decoupled = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _update(self, param, grad, state, *, lr, betas, eps, weight_decay, **_):
        if not state:
            state.update(step=0, m=torch.zeros_like(param), v=torch.zeros_like(param))
        state["step"] += 1
        if weight_decay and self.decoupled:
            param.mul_(1 - lr * weight_decay)
        elif weight_decay:
            grad = grad + weight_decay * param
        beta1, beta2 = betas
        m = state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
        v = state["v"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m_hat_scale = 1 / (1 - beta1 ** state["step"])  # undoes the pull of starting from zero
        v_hat_scale = 1 / (1 - beta2 ** state["step"])
        denominator = (v * v_hat_scale).sqrt_().add_(eps)
        param.addcdiv_(m, denominator, value=-lr * m_hat_scale)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    The weights shrink by the factor `1 - lr * weight_decay` at each step, whatever their
    gradients. The paper multiplies the decay by the schedule alone, torch and this class by the
    learning rate, which includes the schedule. Parameters as in `Adam`.
    """

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, betas, eps, weight_decay)


def decay_groups(model: nn.Module, weight_decay: float = 0.1) -> list[dict[str, Any]]:
    """Split a model's parameters into those to decay and those not to.

    Matrices and embeddings decay; biases and the gains of norms, which have fewer than two axes,
    do not. That is a custom (BERT's released training code follows it), not a theorem.

    Parameters
    ----------
    model : torch.nn.Module
    weight_decay : float
        For the first group.

    Returns
    -------
    list of dict
        Groups for `AdamW(decay_groups(model), lr=...)`; an empty one is left out.
    """
    trained = [p for p in model.parameters() if p.requires_grad]  # a shared tensor comes once
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(
    step: int, warmup_steps: int, total_steps: int, peak: float, floor: float = 0.0
) -> float:
    """Return the learning rate of one step: a straight rise, then half a cosine down.

    The rise is `peak * (step + 1) / (warmup_steps + 1)`, so that no step is wasted on a rate of
    zero and step `warmup_steps` has the peak; the descent follows Loshchilov and Hutter (2017,
    equation 5) without restarts and reaches `floor` at `total_steps`, where it stays.

    Parameters
    ----------
    step : int
        How many updates have been made: 0 for the first.
    warmup_steps, total_steps : int
    peak, floor : float

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `step` is negative or not `0 <= warmup_steps < total_steps`.
    """
    if step < 0:
        raise ValueError(f"step counts from 0; it cannot be {step}")
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warm-up must end before the run does: warmup_steps={warmup_steps} is not "
            f"from 0 to below total_steps={total_steps}"
        )
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients by one factor so that their joint length is at most `max_norm`.

    The length is that of all gradients laid end to end (Pascanu et al. 2013, algorithm 1), so
    the direction of the step stays the same.

    Parameters
    ----------
    params : iterable of torch.Tensor
        Those without a gradient are passed over.
    max_norm : float

    Returns
    -------
    torch.Tensor, shape ()
        The length before clipping: worth logging, and not finite if any gradient is not.

    Raises
    ------
    ValueError
        If `max_norm` is not above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, not {max_norm}")
    params = [params] if isinstance(params, Tensor) else params
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    norms = torch.stack([torch.linalg.vector_norm(g).to(grads[0].device) for g in grads])
    norm = torch.linalg.vector_norm(norms)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # 1e-6 as in torch: no division by zero
    for grad in grads:
        grad.mul_(scale.to(grad.device))
    return norm
