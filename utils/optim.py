"""What turns gradients into a trained model: optimisers and clipping.

Derived step by step in chapter 8. The optimisers act in place on torch tensors and follow the
formulas of their papers line by line; `tests/test_optim.py` holds them to `torch.optim`. The loss
and the schedule, which need no torch, live in `utils.losses` and `utils.schedules` and can be had
from here as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from utils.arguments import as_list, as_number, check_entries, check_model, shown
from utils.losses import softmax_cross_entropy
from utils.schedules import warmup_cosine

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "clip_grad_norm",
    "decay_groups",
    "softmax_cross_entropy",
    "warmup_cosine",
]


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
        groups = as_list("params", params)
        if not groups:
            raise ValueError("there is nothing to train: the list of parameters is empty")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for place, group in enumerate(groups):
            check_entries(f"params[{place}]", group, ("params",))
        self.param_groups = [
            defaults | g | {"params": as_list("params", g["params"])} for g in groups
        ]
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
                    "params: only leaf tensors can be trained, such as model.parameters(), "
                    f"not {shown(tensor)}"
                )
        if len({id(tensor) for tensor in tensors}) < len(tensors):
            raise ValueError("params: a tensor appears twice and would be updated twice per step")

    def _tensors(self) -> list[Tensor]:
        return [tensor for group in self.param_groups for tensor in group["params"]]

    @staticmethod
    def _check_options(group: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay", "eps"):
            if name in group:
                group[name] = as_number(name, group[name], 0)
        betas = as_list("betas", group.get("betas", (0.0, 0.0)))
        if len(betas) != 2:
            raise ValueError(f"betas are two numbers, not {shown(betas)}")
        for name, value in (
            ("momentum", group.get("momentum", 0.0)),
            *(("betas", b) for b in betas),
        ):
            if not 0 <= as_number(name, value) < 1:
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
        check_entries("saved", saved, ("state", "param_groups"))
        for place, group in enumerate(as_list("saved['param_groups']", saved["param_groups"])):
            check_entries(f"saved['param_groups'][{place}]", group, ("params",))
        if not isinstance(saved["state"], dict):
            raise TypeError(f"saved['state'] must be a dict, not {shown(saved['state'])}")
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

    Raises
    ------
    TypeError, ValueError
        If it is no model, or `weight_decay` is negative.
    """
    check_model("model", model)
    weight_decay = as_number("weight_decay", weight_decay, 0)
    trained = [p for p in model.parameters() if p.requires_grad]  # a shared tensor comes once
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


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
    max_norm = as_number("max_norm", max_norm, high=float("inf"))
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, not {max_norm}")
    params = as_list("params", [params] if isinstance(params, Tensor) else params, Tensor)
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    norms = torch.stack([torch.linalg.vector_norm(g).to(grads[0].device) for g in grads])
    norm = torch.linalg.vector_norm(norms)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # 1e-6 as in torch: no division by zero
    for grad in grads:
        grad.mul_(scale.to(grad.device))
    return norm
