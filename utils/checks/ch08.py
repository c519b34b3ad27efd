"""Checks for the exercises of chapter 8, training."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, wrong


@check()
def cross_entropy_gradient(student: Student, rng: np.random.Generator) -> None:
    """Gradient of the mean softmax cross-entropy with respect to the logits, against autograd."""
    import torch
    from torch.nn import functional as F

    for positions, classes, scale in [(4, 5, 1.0), (1, 3, 1.0), (7, 7, 3.0), (3, 6, 2000.0)]:
        logits = scale * rng.normal(size=(positions, classes))
        targets = rng.integers(0, classes, size=positions)
        z = torch.tensor(logits, requires_grad=True)
        F.cross_entropy(z, torch.tensor(targets)).backward()
        expected = z.grad.numpy()
        probs = expected * positions + np.eye(classes)[targets]
        got = as_array(student(logits, targets), (positions, classes), "gradient")
        if close(got, expected):
            continue
        if not np.isfinite(got).all():
            wrong(
                "with logits in the thousands your gradient is not finite; exp overflows there. "
                "What may you subtract from every logit of a row without changing the softmax?"
            )
        if close(got, -expected):
            wrong("the sign is the other way round: this is the direction of descent, not of rise")
        if close(got, expected * positions):
            wrong(
                "this is the gradient of the sum over positions; "
                "the loss is the mean, so what does each position's share become?"
            )
        if close(got, probs) or close(got, probs / positions):
            wrong("only the softmax is here; the gradient also knows which class was right")
        rows = got.sum(axis=1)
        if not close(rows, np.zeros(positions)):
            wrong(
                f"each row of the gradient should sum to 0, but yours sum to {np.round(rows, 3)}: "
                "over which axis is the softmax taken, and what is subtracted from it?"
            )
        wrong("the rows sum to 0 as they should, but the numbers are not right yet")


@check()
def momentum_step(student: Student, rng: np.random.Generator) -> None:
    """One step of gradient descent with momentum, against torch.optim.SGD."""
    import torch

    for shape in [(3,), (2, 4), (1,)]:
        param, grad, velocity = rng.normal(size=(3, *shape))
        lr, momentum = float(rng.uniform(0.01, 0.5)), float(rng.uniform(0.3, 0.95))
        tensor = torch.tensor(param, requires_grad=True)
        optimizer = torch.optim.SGD([tensor], lr=lr, momentum=momentum)
        optimizer.state[tensor]["momentum_buffer"] = torch.tensor(velocity)
        tensor.grad = torch.tensor(grad)
        optimizer.step()
        new_velocity = optimizer.state[tensor]["momentum_buffer"].numpy()
        new_param = tensor.detach().numpy()

        answer = _parts(student(param, grad, velocity, lr, momentum), ["parameter", "velocity"])
        got_param = as_array(answer[0], shape, "new parameter")
        got_velocity = as_array(answer[1], shape, "new velocity")
        if close(got_param, new_velocity) and close(got_velocity, new_param):
            wrong("the two results are in the wrong order: first the parameter, then the velocity")
        if not close(got_velocity, new_velocity):
            if close(got_velocity, momentum * velocity + (1 - momentum) * grad):
                wrong(
                    "your velocity is a running average; "
                    "here the gradient is added whole, without the factor 1 - momentum"
                )
            if close(got_velocity, momentum * velocity + lr * grad):
                wrong(
                    "your velocity contains the learning rate; here it comes in only "
                    "when the parameter moves"
                )
            if close(got_velocity, momentum * velocity - lr * grad):
                wrong("your velocity contains the learning rate and a sign; here it is plain")
            if close(got_velocity, momentum * velocity - grad):
                wrong("the velocity gathers gradients as they are; the minus comes with the step")
            if close(got_velocity, velocity + grad):
                wrong("the old velocity should shrink before the gradient is added")
            wrong("the velocity is not the old one shrunk by the momentum plus the gradient")
        if close(got_param, new_param):
            continue
        slips = {
            "moves uphill": param + lr * new_velocity,
            "moved along the old one": param - lr * velocity,
            "moved along the gradient alone": param - lr * grad,
            "moved without the learning rate": param - new_velocity,
            "moved by Nesterov's variant": param - lr * (grad + momentum * new_velocity),
        }
        for slip, value in slips.items():
            if close(got_param, value):
                wrong(f"the velocity is right, but the parameter {slip}")
        wrong("the velocity is right, but the parameter does not move by lr times it")


@check()
def adamw_step(student: Student, rng: np.random.Generator) -> None:
    """One step of AdamW, against torch.optim.AdamW."""
    for step in [2, 7, 300, 1]:  # 1 comes last: with m = 0 some mistakes look alike
        shape = ((3,), (2, 3))[step % 2]
        param, grad, m = rng.normal(size=(3, *shape))
        v = rng.uniform(0.1, 2.0, size=shape)
        if step == 1:
            m, v = np.zeros(shape), np.zeros(shape)
        options = {
            "lr": float(rng.uniform(0.01, 0.2)),
            "beta1": float(rng.uniform(0.7, 0.95)),
            "beta2": float(rng.uniform(0.9, 0.999)),
            "eps": float(rng.uniform(0.01, 0.1)),  # large, so that its place shows
            "weight_decay": float(rng.uniform(0.5, 2.0)),
        }
        expected = _torch_adamw(param, grad, m, v, step, **options)
        names = ["parameter", "m", "v"]
        answer = _parts(student(param, grad, m, v, step, **options), names)
        got = [as_array(a, shape, f"new {n}") for a, n in zip(answer, names, strict=True)]
        _check_moments(got, expected, (param, grad, m, v, step), options)
        if not close(got[0], expected[0]):
            for message, variant in _ADAMW_SLIPS:
                if close(got[0], variant(param, grad, *expected[1:], step, **options)):
                    wrong(message)
            wrong(
                f"m and v are right, but at step {step} the parameter is not: check the two "
                "corrections, the root, and the decay, one at a time"
            )


def _torch_adamw(param, grad, m, v, step, *, lr, beta1, beta2, eps, weight_decay):
    """Let torch take the step from the given state."""
    import torch

    tensor = torch.tensor(param, requires_grad=True)
    optimizer = torch.optim.AdamW(
        [tensor], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay
    )
    state = {"step": torch.tensor(float(step - 1))}
    state |= {"exp_avg": torch.tensor(m), "exp_avg_sq": torch.tensor(v)}
    optimizer.state[tensor] = state
    tensor.grad = torch.tensor(grad)
    optimizer.step()
    return tensor.detach().numpy(), state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()


def _check_moments(got, expected, given, options) -> None:
    """Say what is wrong with the two running averages."""
    param, grad, m, v, step = given
    beta1, beta2, decay = options["beta1"], options["beta2"], options["weight_decay"]
    if not close(got[1], expected[1]):
        if close(got[1], beta1 * m + (1 - beta1) * (grad + decay * param)):
            wrong(
                "the weight decay has got into m, so it will be rescaled like a gradient; "
                "that is Adam with L2. In AdamW it touches the parameter only"
            )
        if close(got[1], beta1 * m + grad):
            wrong("m should be a running average: what multiplies the new gradient?")
        if close(got[1], beta2 * m + (1 - beta2) * grad):
            wrong("m is averaged with beta2; the betas are swapped")
        if close(got[1], expected[1] / (1 - beta1**step)):
            wrong("return m itself: its corrected version is needed in the step only")
        wrong("the new m is not beta1 of the old one and the rest of the gradient")
    if not close(got[2], expected[2]):
        if close(got[2], beta2 * v + (1 - beta2) * grad):
            wrong("v should average the squared gradient, not the gradient")
        if close(got[2], beta2 * v + (1 - beta2) * np.abs(grad)):
            wrong("v should average the square of the gradient, not its absolute value")
        if close(got[2], beta2 * v + (1 - beta2) * (grad + decay * param) ** 2):
            wrong("the weight decay has got into v; in AdamW it touches the parameter only")
        if close(got[2], beta1 * v + (1 - beta1) * grad**2):
            wrong("v is averaged with beta1; the betas are swapped")
        if close(got[2], expected[2] / (1 - beta2**step)):
            wrong("return v itself: its corrected version is needed in the step only")
        wrong("the new v is not beta2 of the old one and the rest of the squared gradient")


def _adamw_variant(
    *, m_power=0, v_power=0, correct_m=True, correct_v=True, eps_inside=False, root=True, decay="lr"
):
    """Make a step with one known slip, to recognise it in an answer."""

    def step_with_slip(param, grad, m, v, step, *, lr, beta1, beta2, eps, weight_decay):
        with np.errstate(divide="ignore", invalid="ignore"):
            m_hat = m / (1 - beta1 ** (step + m_power)) if correct_m else m
            v_hat = v / (1 - beta2 ** (step + v_power)) if correct_v else v
            if eps_inside:
                scale = np.sqrt(v_hat + eps)
            else:
                scale = (np.sqrt(v_hat) if root else v_hat) + eps
            update = lr * m_hat / scale
        shrink = {"lr": lr * weight_decay, "bare": weight_decay, "none": 0.0}
        shrink["up"] = -lr * weight_decay
        if decay == "after":
            return (param - update) * (1 - shrink["lr"])
        return param * (1 - shrink[decay]) - update

    return step_with_slip


_ADAMW_SLIPS = [
    (
        "m and v are right, but the step uses them raw: they started from zero and are still too "
        "small. Divide each by what is missing (bias correction)",
        _adamw_variant(correct_m=False, correct_v=False),
    ),
    ("m lacks its bias correction in the step", _adamw_variant(correct_m=False)),
    ("v lacks its bias correction in the step", _adamw_variant(correct_v=False)),
    (
        "the bias correction is off by one: step counts from 1, and 1 at the first step already "
        "stands for one gradient seen",
        _adamw_variant(m_power=1, v_power=1),
    ),
    (
        "the bias correction is off by one: the first step is step 1, not 0",
        _adamw_variant(m_power=-1, v_power=-1),
    ),
    ("eps is added under the root; it belongs outside", _adamw_variant(eps_inside=True)),
    ("the step divides by v; it should divide by its root", _adamw_variant(root=False)),
    ("the weight decay is missing", _adamw_variant(decay="none")),
    (
        "the weight decay is not multiplied by the learning rate, so it shrinks far too fast",
        _adamw_variant(decay="bare"),
    ),
    ("the weight decay makes the weights grow: check its sign", _adamw_variant(decay="up")),
    (
        "the decay is taken of the parameter after the step; take it of the parameter as given",
        _adamw_variant(decay="after"),
    ),
]


@check()
def warmup_cosine_rate(student: Student, rng: np.random.Generator) -> None:
    """Warm-up and cosine descent, against torch's own schedulers chained."""
    for warmup, total in [(4, 20), (1, 5), (10, 37), (0, 8)]:
        peak = float(rng.uniform(0.1, 1.0))
        floor = peak * float(rng.uniform(0.05, 0.3))
        expected = _torch_schedule(warmup, total, peak, floor)
        got = [
            as_number(student(s, warmup, total, peak, floor), f"rate at step {s}")
            for s in range(total)
        ]
        case = f"with warmup_steps={warmup} and total_steps={total}, "
        _check_rise(np.array(got), expected, warmup, peak, case)
        _check_fall(np.array(got), expected, warmup, (peak, floor), case)
        last = as_number(student(total, warmup, total, peak, floor), "rate at step total_steps")
        if not close(last, floor):
            wrong(case + "the rate at step total_steps should be exactly the floor")


def _torch_schedule(warmup: int, total: int, peak: float, floor: float) -> np.ndarray:
    """Let torch's schedulers produce the rates of steps 0 to total - 1."""
    import torch
    from torch.optim import lr_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, floor)
    if warmup:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
        rise = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, floor)
        schedule = lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(rates)


def _check_rise(got, expected, warmup, peak, case) -> None:
    """Say what is wrong with the rates before the peak."""
    rise = slice(0, warmup)
    if close(got[rise], expected[rise]):
        return
    steps = np.arange(warmup)
    if close(got[rise], peak * steps / warmup):
        wrong(case + "the first update gets a rate of 0 and is wasted: off by one in the warm-up")
    if close(got[rise], peak * (steps + 1) / warmup):
        wrong(
            case + f"the peak comes one step early, at step {warmup - 1}: the rise should still be "
            "below it there and reach it at step warmup_steps"
        )
    if np.allclose(got[rise], peak):
        wrong(case + "there is no warm-up: the first rates are already the peak")
    wrong(
        case + f"the rate at step 0 is {got[0] / peak:.3f} of the peak; the rise should be a "
        "straight line that would be 0 at step -1 and is the peak at step warmup_steps"
    )


def _check_fall(got, expected, warmup, ends, case) -> None:
    """Say what is wrong with the rates from the peak on."""
    peak, floor = ends
    fall = slice(warmup, None)
    if close(got[fall], expected[fall]):
        return
    total = len(got)
    steps = np.arange(warmup, total)
    done = (steps - warmup) / (total - warmup)
    half_cosine = (1 + np.cos(np.pi * done)) / 2
    if close(got[fall], peak * half_cosine):
        wrong(case + "the descent ends at 0 instead of at the floor")
    if close(got[fall], floor + peak * half_cosine):
        wrong(case + "the descent starts above the peak: it covers the distance peak - floor")
    if close(got[fall], np.maximum(floor, peak * half_cosine)):
        wrong(case + "the descent is cut off at the floor; the cosine itself should end there")
    if close(got[fall], peak - (peak - floor) * done):
        wrong(case + "the descent is a straight line, not half a cosine")
    if warmup and close(
        got[fall], floor + (peak - floor) * (1 + np.cos(np.pi * steps / total)) / 2
    ):
        wrong(
            case + "the rate jumps where the warm-up ends: the cosine should start there, "
            "not at step 0"
        )
    if not close(got[warmup], peak):
        wrong(case + f"step {warmup} should have the peak, {peak:.4f}, but has {got[warmup]:.4f}")
    wrong(case + "the warm-up is right, but the descent is not half a cosine from peak to floor")


@check()
def clip_by_global_norm(student: Student, rng: np.random.Generator) -> None:
    """Clipping by the joint length of all gradients, against torch.nn.utils.clip_grad_norm_."""
    import torch

    for shapes, scale in [
        ([(2, 3), (4,)], 5.0),
        ([(3,), (2, 2), (1,)], 20.0),
        ([(5,)], 3.0),
        ([(2, 2), (3,)], 0.01),
    ]:
        grads = [scale * rng.normal(size=shape) for shape in shapes]
        grads[0] = 3 * grads[0]  # tensors of different lengths
        max_norm = 1.0 if scale < 1 else float(rng.uniform(0.5, 2.0))
        tensors = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        norm = torch.nn.utils.clip_grad_norm_(tensors, max_norm).item()
        answer = student(grads, max_norm)
        names = [f"gradient {index}" for index in range(len(shapes))]
        parts = _parts(answer, names)
        got = [as_array(a, s, n) for a, s, n in zip(parts, shapes, names, strict=True)]
        right = [tensor.grad.numpy() for tensor in tensors]
        if not all(close(g, r) for g, r in zip(got, right, strict=True)):
            _explain_clipping(got, grads, max_norm, norm)


def _explain_clipping(got, grads, max_norm, norm) -> None:
    """Recognise the usual ways to clip something else."""

    def is_variant(variant) -> bool:
        return all(close(a, variant(g)) for a, g in zip(got, grads, strict=True))

    if norm <= max_norm:
        if is_variant(lambda g: g * max_norm / norm):
            wrong("gradients shorter than max_norm are stretched to it; leave them as they are")
        wrong(f"the joint length, {norm:.3f}, is below {max_norm:.3f}: nothing should change")
    if is_variant(lambda g: g):
        wrong(f"the joint length, {norm:.3f}, is above {max_norm:.3f}, but nothing changed")
    if is_variant(lambda g: np.clip(g, -max_norm, max_norm)):
        wrong(
            "each number is clipped by itself, which bends the direction of the step; "
            "scale all of them by one factor"
        )
    if len(grads) > 1 and is_variant(lambda g: g * min(1.0, max_norm / np.linalg.norm(g))):
        wrong(
            "each tensor is clipped to max_norm by itself; the length that counts is that of all "
            "gradients laid end to end"
        )
    if is_variant(lambda g: g * max_norm / sum(np.linalg.norm(h) for h in grads)):
        wrong("lengths do not add up like that: add their squares, then take the root")
    if is_variant(lambda g: g * max_norm / norm**2):
        wrong("the root is missing: you divide by the squared length")
    if is_variant(lambda g: g / norm):
        wrong("the result has length 1 whatever max_norm is")
    if is_variant(lambda g: g * max_norm / max(np.abs(h).max() for h in grads)):
        wrong("you measure by the largest entry; the length is the root of the sum of squares")
    length = np.sqrt(sum((g**2).sum() for g in got))
    wrong(f"afterwards the joint length is {length:.3f}; it should be {max_norm:.3f}")


@check()
def lr_range_test(student: Student, rng: np.random.Generator) -> None:
    """Losses of a learning-rate range test on a bowl, against their closed form."""
    rates = np.geomspace(1e-3, 10, 40)
    for size in (2, 5):
        curvature = rng.uniform(0.5, 4.0, size=size)
        start = rng.normal(size=size) + 2
        offset = float(rng.uniform(0.5, 1.5))

        def loss_and_grad(theta: Any, curvature=curvature, offset=offset):
            theta = np.asarray(theta, dtype=float)
            return float((curvature * theta**2).sum() / 2 + offset), curvature * theta

        got = as_array(student(loss_and_grad, start, rates), what="list of losses")
        if got.ndim != 1:
            wrong(f"return one list of losses, not an array of shape {got.shape}")
        # Before update k the parameters are start times the product of all 1 - rate * curvature.
        factors = np.vstack([np.ones(size), 1 - np.outer(rates, curvature)[:-1]]).cumprod(axis=0)
        losses = (curvature * (start * factors) ** 2).sum(axis=1) / 2 + offset
        exploded = losses > 4 * np.minimum.accumulate(losses)
        stop = int(np.argmax(exploded)) if exploded.any() else len(losses) - 1
        single = start * (1 - np.outer(rates, curvature))  # one update from the start
        restarted = (curvature * single**2).sum(axis=1) / 2 + offset
        _compare_losses(got, losses, restarted, stop)
    _check_not_finite(student)


def _compare_losses(got, losses, restarted, stop) -> None:
    """Say what is wrong with the recorded losses."""
    if close(got, losses[: stop + 1]):
        return
    if not len(got):
        wrong("the list is empty: record the loss before each update")
    if close(got[0], losses[1]):
        wrong("the first loss is the one after an update: record the loss, then take the step")
    if not close(got[0], losses[0]):
        wrong("the first loss should be the one at `start`, before any update")
    shared = min(len(got), len(restarted))
    same_start = [restarted[1:shared], restarted[: shared - 1], np.full(shared - 1, losses[0])]
    if shared > 1 and any(close(got[1:shared], again) for again in same_start):
        wrong("every rate starts again from the same place; let the parameters move on instead")
    shared = min(len(got), stop + 1)
    if close(got[:shared], losses[:shared]):
        if len(got) == stop:
            wrong("you stop at the right place but leave out the loss that made you stop")
        if len(got) > stop:
            wrong(
                f"you go on after the loss has risen above 4 times the smallest so far (you return "
                f"{len(got)} losses; the run should have ended after {stop + 1})"
            )
        wrong(f"you stop at loss number {len(got)}, before the loss has exploded")
    if len(got) > 1 and got[1] > got[0]:
        wrong("the loss rises from the first update on: do you step against the gradient?")
    wrong("the first loss is right and a later one is not: does update k use rates[k]?")


def _check_not_finite(student: Student) -> None:
    """Insist that a loss that turns NaN ends the test as well."""

    def breaks(theta: Any):
        theta = np.asarray(theta, dtype=float)
        return (float("nan") if abs(theta[0]) < 0.5 else float(theta[0] ** 2)), 2 * theta

    got = as_array(student(breaks, np.array([1.0]), np.full(10, 0.2)), what="list of losses")
    if len(got) != 3 or not np.isnan(got[-1]):
        wrong(
            "when the loss turns NaN the test should end with it; NaN > 4 * smallest is False, "
            "so the comparison alone does not notice"
        )


def _parts(answer: Any, names: list[str]) -> list[Any]:
    """Split an answer of several parts, or say that it has another number of them."""
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, tuple | list) or len(answer) != len(names):
        found = len(answer) if isinstance(answer, tuple | list) else "something else"
        wrong(f"return {len(names)} results ({', '.join(names)}), not {found}")
    return list(answer)
