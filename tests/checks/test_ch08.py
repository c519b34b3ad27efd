"""Chapter 8's checks accept right answers in any form and reject plausible wrong ones."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import checks, optim

EXERCISES = [
    "cross_entropy_gradient",
    "momentum_step",
    "adamw_step",
    "warmup_cosine_rate",
    "clip_by_global_norm",
    "lr_range_test",
]


# --- cross_entropy_gradient ------------------------------------------------------------------


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def ce_gradient(logits, targets, *, mean=True, onehot=True, axis=-1):
    probs = softmax(logits, axis)
    if onehot:
        probs[np.arange(len(targets)), targets] -= 1
    return probs / len(targets) if mean else probs


def ce_naive(logits, targets):
    with np.errstate(all="ignore"):
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (probs - np.eye(logits.shape[1])[targets]) / len(targets)


def ce_autograd(logits, targets):
    z = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    F.cross_entropy(z, torch.tensor(targets)).backward()
    return z.grad


def ce_loops(logits, targets):
    rows = []
    for row, target in zip(logits, targets, strict=True):
        top = max(row)
        total = sum(math.exp(x - top) for x in row)
        rows.append(
            [(math.exp(x - top) / total - (j == target)) / len(targets) for j, x in enumerate(row)]
        )
    return rows


# --- steps -----------------------------------------------------------------------------------


def momentum(param, grad, velocity, lr, momentum):
    velocity = momentum * velocity + grad
    return param - lr * velocity, velocity


def momentum_in_torch(param, grad, velocity, lr, momentum):
    new = torch.tensor(velocity) * momentum + torch.tensor(grad)
    return [torch.tensor(param).float() - lr * new.float(), new]


def momentum_ema(param, grad, velocity, lr, momentum):
    velocity = momentum * velocity + (1 - momentum) * grad
    return param - lr * velocity, velocity


def momentum_lr_inside(param, grad, velocity, lr, momentum):
    velocity = momentum * velocity + lr * grad
    return param - velocity, velocity


def momentum_nesterov(param, grad, velocity, lr, momentum):
    velocity = momentum * velocity + grad
    return param - lr * (grad + momentum * velocity), velocity


def momentum_in_place(param, grad, velocity, lr, momentum):
    velocity *= momentum
    velocity += grad
    param -= lr * velocity
    return param, velocity


def adamw(
    param, grad, m, v, step, *, lr, beta1, beta2, eps, weight_decay, l2=False, slip="", power=0
):
    if l2:
        grad = grad + weight_decay * param
        weight_decay = 0
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    with np.errstate(all="ignore"):
        m_hat = m if "m" in slip else m / (1 - beta1 ** (step + power))
        v_hat = v if "v" in slip else v / (1 - beta2 ** (step + power))
        denominator = np.sqrt(v_hat + eps) if "eps" in slip else np.sqrt(v_hat) + eps
        shrink = weight_decay if "bare" in slip else lr * weight_decay
        new = param - lr * m_hat / denominator - shrink * param
    if "return_hat" in slip:
        return new, m_hat, v_hat
    return new, m, v


def adamw_library(param, grad, m, v, step, *, beta1, beta2, **options):
    tensor = torch.tensor(param, requires_grad=True)
    optimizer = optim.AdamW([tensor], betas=(beta1, beta2), **options)
    state = {"step": step - 1, "m": torch.tensor(m), "v": torch.tensor(v)}
    optimizer.state[tensor] = state
    tensor.grad = torch.tensor(grad)
    optimizer.step()
    return tensor, state["m"], state["v"]


def adamw_swapped(*args, beta1, beta2, **options):
    return adamw(*args, beta1=beta2, beta2=beta1, **options)


def adamw_no_square(*args, **options):
    new, m, _ = adamw(*args, **options)
    return new, m, options["beta2"] * args[3] + (1 - options["beta2"]) * args[1]


def adamw_decay_after(*args, weight_decay, **options):
    new, m, v = adamw(*args, weight_decay=0.0, **options)
    return new * (1 - options["lr"] * weight_decay), m, v


def slipped(**slip):
    return lambda *args, **options: adamw(*args, **options, **slip)


# --- schedule --------------------------------------------------------------------------------


def rate(rise="(s+1)/(w+1)", fall="cosine", fraction="(s-w)/(n-w)"):
    rise, fraction = (compile(text, "formula", "eval") for text in (rise, fraction))

    def function(step, warmup_steps, total_steps, peak, floor):
        names = {"s": step, "w": warmup_steps, "n": total_steps}
        if step < warmup_steps:
            return peak * eval(rise, names)
        done = min(1, eval(fraction, names))
        return {
            "cosine": floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2,
            "to zero": peak * (1 + math.cos(math.pi * done)) / 2,
            "cut": max(floor, peak * (1 + math.cos(math.pi * done)) / 2),
            "whole": floor + (peak - floor) * (1 + math.cos(2 * math.pi * done)) / 2,
            "linear": peak - (peak - floor) * done,
            "too high": floor + peak * (1 + math.cos(math.pi * done)) / 2,
        }[fall]

    return function


# --- clipping --------------------------------------------------------------------------------


def joint_norm(grads):
    return math.sqrt(sum(float((np.asarray(g) ** 2).sum()) for g in grads))


def clip(grads, max_norm):
    factor = min(1.0, max_norm / joint_norm(grads))
    return [g * factor for g in grads]


def clip_in_torch(grads, max_norm):
    tensors = [torch.tensor(g, requires_grad=True) for g in grads]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.tensor(grad)
    optim.clip_grad_norm(tensors, max_norm)
    return tuple(t.grad.float() for t in tensors)


def clip_sum_of_lengths(grads, max_norm):
    total = sum(np.linalg.norm(g) for g in grads)
    return [g * min(1.0, max_norm / total) for g in grads]


def clip_largest(grads, max_norm):
    largest = max(np.abs(g).max() for g in grads)
    return [g * min(1.0, max_norm / largest) for g in grads]


# --- range test ------------------------------------------------------------------------------


def range_test(loss_and_grad, start, rates, *, slip=""):
    theta, losses = start.copy(), []
    for lr in rates:
        if slip == "restart":
            theta = start.copy()
        loss, grad = loss_and_grad(theta)
        if slip == "restart":
            loss = loss_and_grad(theta - lr * grad)[0] if losses else loss
        if slip == "after":
            loss = loss_and_grad(theta - lr * grad)[0]
        stop = not math.isfinite(loss) or (bool(losses) and loss > 4 * min(losses))
        if slip == "no nan":
            stop = bool(losses) and loss > 4 * min(losses)
        if slip == "first":
            stop = bool(losses) and loss > losses[0] * 4
        if stop and slip == "omit":
            break
        losses.append(loss)
        if stop and slip != "no stop":
            break
        theta = theta + lr * grad if slip == "uphill" else theta - lr * grad
    return losses


def range_test_array(loss_and_grad, start, rates):
    losses = []
    theta = torch.tensor(start)
    smallest = math.inf
    for lr in rates.tolist():
        loss, grad = loss_and_grad(theta.numpy())
        losses += [loss]
        smallest = min(loss, smallest)
        if not loss <= 4 * smallest:
            return np.array(losses, dtype=np.float32)
        theta = theta - lr * torch.as_tensor(grad)
    return np.array(losses)


def range_with(slip):
    return lambda *args: range_test(*args, slip=slip)


RIGHT = {
    "cross_entropy_gradient": [ce_gradient, ce_autograd, ce_loops],
    "momentum_step": [momentum, momentum_in_torch],
    "adamw_step": [adamw, adamw_library],
    "warmup_cosine_rate": [
        rate(),
        lambda *args: torch.tensor(optim.warmup_cosine(*args)),
        lambda *args: np.array([optim.warmup_cosine(*args)]),
    ],
    "clip_by_global_norm": [clip, clip_in_torch],
    "lr_range_test": [range_test, range_test_array],
}
WRONG = [
    ("cross_entropy_gradient", lambda z, y: -ce_gradient(z, y), "sign"),
    ("cross_entropy_gradient", lambda z, y: ce_gradient(z, y, mean=False), "sum over positions"),
    ("cross_entropy_gradient", lambda z, y: ce_gradient(z, y, onehot=False), "only the softmax"),
    ("cross_entropy_gradient", lambda z, y: ce_gradient(z, y, axis=0), "sum to 0"),
    ("cross_entropy_gradient", ce_naive, "not finite"),
    ("cross_entropy_gradient", lambda z, y: ce_gradient(z, y).mean(), "shape"),
    ("cross_entropy_gradient", lambda z, y: ce_gradient(z, (y + 1) % z.shape[1]), "not right yet"),
    ("cross_entropy_gradient", lambda z, y: print(end=""), "return"),
    ("momentum_step", momentum_ema, "running average"),
    ("momentum_step", momentum_lr_inside, "learning rate"),
    ("momentum_step", momentum_nesterov, "Nesterov"),
    ("momentum_step", momentum_in_place, "changes the arguments"),
    ("momentum_step", lambda *a: momentum(*a)[0], "2 results"),
    ("momentum_step", lambda *a: momentum(*a)[::-1], "wrong order"),
    ("momentum_step", lambda p, g, v, lr, mu: (p + lr * (mu * v + g), mu * v + g), "uphill"),
    ("momentum_step", lambda p, g, v, lr, mu: (p - lr * v, mu * v + g), "along the old"),
    ("momentum_step", lambda p, g, v, lr, mu: (p - lr * g, mu * v + g), "gradient alone"),
    ("momentum_step", lambda p, g, v, lr, mu: (p - mu * v - g, mu * v + g), "without the learning"),
    ("momentum_step", lambda p, g, v, lr, mu: (p - lr * (v + g), v + g), "shrink"),
    ("adamw_step", slipped(slip="mv"), "too small"),
    ("adamw_step", slipped(slip="m"), "m lacks"),
    ("adamw_step", slipped(slip="v"), "v lacks"),
    ("adamw_step", slipped(l2=True), "Adam with L2"),
    ("adamw_step", slipped(slip="bare"), "not multiplied by the learning rate"),
    ("adamw_step", slipped(slip="eps"), "under the root"),
    ("adamw_step", slipped(slip="return_hat"), "return m itself"),
    ("adamw_step", slipped(power=1), "off by one"),
    ("adamw_step", slipped(power=-1), "off by one"),
    ("adamw_step", adamw_swapped, "swapped"),
    ("adamw_step", adamw_no_square, "squared gradient"),
    ("adamw_step", adamw_decay_after, "after the step"),
    ("warmup_cosine_rate", rate(rise="s/w"), "wasted"),
    ("warmup_cosine_rate", rate(rise="(s+1)/w"), "one step early"),
    ("warmup_cosine_rate", rate(rise="1"), "no warm-up"),
    ("warmup_cosine_rate", rate(rise="((s+1)/(w+1))**2"), "straight line"),
    ("warmup_cosine_rate", rate(fraction="s/n"), "jumps"),
    ("warmup_cosine_rate", rate(fraction="(s-w)/n"), "not half a cosine"),
    ("warmup_cosine_rate", rate(fall="to zero"), "ends at 0"),
    ("warmup_cosine_rate", rate(fall="cut"), "cut off"),
    ("warmup_cosine_rate", rate(fall="whole"), "not half a cosine"),
    ("warmup_cosine_rate", rate(fall="linear"), "straight line"),
    ("warmup_cosine_rate", rate(fall="too high"), "above the peak"),
    ("clip_by_global_norm", lambda g, n: [np.clip(x, -n, n) for x in g], "by itself"),
    ("clip_by_global_norm", lambda g, n: [clip([x], n)[0] for x in g], "each tensor"),
    ("clip_by_global_norm", lambda g, n: [x * n / joint_norm(g) for x in g], "stretched"),
    ("clip_by_global_norm", lambda g, n: g, "nothing changed"),
    ("clip_by_global_norm", clip_sum_of_lengths, "add their squares"),
    ("clip_by_global_norm", clip_largest, "largest entry"),
    ("clip_by_global_norm", lambda g, n: clip(g, 1.0), "length 1"),
    ("clip_by_global_norm", lambda g, n: [x * min(1, n / joint_norm(g) ** 2) for x in g], "root"),
    ("clip_by_global_norm", lambda g, n: np.concatenate([x.ravel() for x in g]), "results"),
    ("lr_range_test", range_with("after"), "after an update"),
    ("lr_range_test", range_with("restart"), "same place"),
    ("lr_range_test", range_with("no stop"), "go on"),
    ("lr_range_test", range_with("first"), "go on|before"),
    ("lr_range_test", range_with("omit"), "leave out"),
    ("lr_range_test", range_with("no nan"), "NaN"),
    ("lr_range_test", range_with("uphill"), "against the gradient"),
    ("lr_range_test", lambda f, s, r: [], "empty"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", range(5))
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_answers_are_explained(name, answer, message, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert any(part in result.message for part in message.split("|")), result


def test_stubs_are_not_attempted():
    def stub(*_, **__):
        raise NotImplementedError("Hint")

    assert set(EXERCISES) == set(checks.names(8))
    assert all(getattr(checks, name)(stub).status == "not attempted" for name in EXERCISES)
