"""Checks for chapter 6: heads, LayerNorm, backward passes, parameter counts, a parallel block."""

from __future__ import annotations

import math

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


@check()
def split_into_heads(student: Student, rng: np.random.Generator) -> None:
    """Exercise 6.1: (B, T, C) to (B, H, T, D), each head a slice of each token's features."""
    for B, T, H, D in ((2, 3, 4, 5), (1, 5, 3, 2), (3, 4, 4, 4), (2, 6, 1, 3), (2, 3, 5, 1)):
        C = H * D
        x = rng.normal(size=(B, T, C))
        got = as_array(student(x, H), what="array of heads")
        if got.shape == (B, T, H, D) != (B, H, T, D):
            wrong(
                f"your result has shape (B, T, H, D) = {got.shape}: the heads should come before "
                "the positions, so one step is missing"
            )
        if got.shape == (B, H, D, T) != (B, H, T, D):
            wrong(f"shape {got.shape} is (B, H, D, T): too many axes have changed places")
        if got.shape == (H, B, T, D) != (B, H, T, D):
            wrong(f"shape {got.shape} is (H, B, T, D): the batch should stay in front")
        got = as_array(got, (B, H, T, D), "array of heads")
        expected = np.empty((B, H, T, D))
        for h in range(H):
            expected[:, h] = x[:, :, h * D : (h + 1) * D]
        if close(got, expected):
            continue
        reject_known(
            got,
            {
                "the shape is right, but a head's row has numbers of the wrong token: one reshape "
                "only reads on through memory and never moves a number": x.reshape(B, H, T, D),
                "each head takes every H-th feature; a head should own D neighbouring "
                "ones": x.reshape(B, T, D, H).transpose(0, 3, 1, 2),
                "the heads come in reverse order": expected[:, ::-1],
            },
        )
        if close(np.sort(got.reshape(B, -1)), np.sort(x.reshape(B, -1))):
            wrong(
                "all numbers are there, but not in the right places: put 10·t + c into x and look"
            )
        wrong("some numbers of x are missing or changed; splitting only rearranges")


def _layer_norm(x, weight, bias, eps, *, axis=-1, ddof=0, where="variance", centre=True):
    """Do LayerNorm with the chosen mistakes."""
    mean = x.mean(axis=axis, keepdims=True) if centre else 0.0
    with np.errstate(all="ignore"):
        variance = x.var(axis=axis, keepdims=True, ddof=ddof)
        if where == "variance":
            spread = np.sqrt(variance + eps)
        elif where == "spread":
            spread = np.sqrt(variance) + eps
        elif where == "none":
            spread = np.sqrt(variance)
        else:  # no root
            spread = variance + eps
        return (x - mean) / spread * weight + bias


@check()
def normalise_layer(student: Student, rng: np.random.Generator) -> None:
    """Exercise 6.2: LayerNorm over the last axis, for x of any number of axes."""
    for shape, eps in (((3, 4), 1e-5), ((2, 3, 5), 1e-5), ((2, 3, 6), 0.5), ((5,), 1e-5)):
        x = 2 + 3 * rng.normal(size=shape)
        weight, bias = rng.normal(size=(2, shape[-1]))
        with np.errstate(all="ignore"):
            got = as_array(student(x, weight, bias, eps), shape, "result")
        rows = x.reshape(-1, shape[-1])
        expected = np.array(
            [
                (row - row.sum() / row.size)
                / math.sqrt(((row - row.sum() / row.size) ** 2).sum() / row.size + eps)
                for row in rows
            ]
        ).reshape(shape)
        expected = expected * weight + bias
        if close(got, expected):
            continue
        args = x, weight, bias, eps
        candidates = {
            "eps has no effect on your result; add it to the variance": _layer_norm(
                *args, where="none"
            ),
            "eps stands outside the root; it is added to the variance, inside": _layer_norm(
                *args, where="spread"
            ),
            "you divide by the variance; its root is meant": _layer_norm(*args, where="no root"),
            "the variance divides by C - 1; here it is a plain mean, over C": _layer_norm(
                *args, ddof=1
            ),
            "the mean is not subtracted": _layer_norm(*args, centre=False),
            "that is RMSNorm: the mean is not subtracted": x
            / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
            * weight
            + bias,
            "weight and bias are not used": _layer_norm(x, 1, 0, eps),
            "the bias is not added": _layer_norm(x, weight, 0, eps),
            "the weight is not used": _layer_norm(x, 1, bias, eps),
            "scale first, shift afterwards: your bias is multiplied by the weight": (
                (_layer_norm(x, 1, 0, eps) + bias) * weight
            ),
        }
        if len(shape) > 1:
            over = "mean and variance run over {}; each token has its own, over its features"
            candidates |= {
                over.format("the first axis"): _layer_norm(*args, axis=0),
                over.format("the whole array"): _layer_norm(*args, axis=None),
                over.format("the positions"): _layer_norm(*args, axis=-2),
                over.format("positions and features together"): _layer_norm(*args, axis=(-2, -1)),
            }
        reject_known(got, candidates)
        plain = (got - bias) / weight
        if not close(plain.mean(-1), np.zeros(shape[:-1]), atol=1e-4):
            wrong("before scale and shift each token's features should have mean 0; yours do not")
        wrong("each token's mean is right, its spread is not: what should x - mean be divided by?")

    x = np.stack([np.full(4, 7.0), rng.normal(size=4)])
    weight, bias = rng.normal(size=(2, 4))
    with np.errstate(all="ignore"):
        got = as_array(student(x, weight, bias, 1e-5), (2, 4), "result")
    if not np.isfinite(got).all():
        wrong("a token whose features are all equal gives NaN or infinity: where does eps go?")
    if not close(got[0], bias):
        wrong("a token whose features are all equal should give exactly the bias")


@check()
def gelu_tanh_backward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 6.3: the gradient of GELU's tanh approximation."""

    def function(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    for shape in ((7,), (3, 4), (2, 3, 5)):
        x, grad = 1.5 * rng.normal(size=shape), rng.normal(size=shape)
        got = as_array(student(grad, x), shape, "gradient")
        step = 1e-5
        slope = (function(x + step) - function(x - step)) / (2 * step)
        if close(got, grad * slope):
            continue
        c = math.sqrt(2 / math.pi)
        t = np.tanh(c * (x + 0.044715 * x**3))
        inner = c * (1 + 3 * 0.044715 * x**2)
        exact = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        exact = exact + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        reject_known(
            got,
            {
                "this is the slope itself; what arrives from above is missing": slope,
                "this is the forward pass times the gradient": function(x) * grad,
                "this is the forward pass, not its derivative": function(x),
                "x stands in two places, and you differentiated only one: the product rule has a "
                "second term": grad * 0.5 * (1 + t),
                "x stands in two places, and you differentiated only one: the factor in front "
                "has a derivative too": grad * 0.5 * x * (1 - t**2) * inner,
                "the derivative of u by x is missing: chain rule": grad
                * (0.5 * (1 + t) + 0.5 * x * (1 - t**2)),
                "the derivative of u lacks the cube's factor 3": grad
                * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 0.044715 * x**2)),
                "the derivative of u lacks the cubic part": grad
                * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c),
                "the derivative of u lacks the factor √(2/π)": grad
                * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner / c),
                "tanh' is 1 - tanh², not 1 - tanh": grad
                * (0.5 * (1 + t) + 0.5 * x * (1 - t) * inner),
                "one of the two terms lacks the factor ½": grad
                * (0.5 * (1 + t) + x * (1 - t**2) * inner),
                "the whole lacks the factor ½": 2 * grad * slope,
            },
        )
        if np.allclose(got, grad * exact, rtol=1e-3, atol=1e-6):
            wrong(
                "that is the slope of the exact GELU, x Φ(x); it is near, but the function "
                "to differentiate here is the one with tanh"
            )
        if not close(as_array(student(2 * grad, x), shape, "gradient"), 2 * got):
            wrong("twice the incoming gradient should give twice the result, and yours does not")
        wrong("the result does not agree with a finite difference of gelu_tanh")


@check()
def rms_norm_backward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 6.4: the gradients of RMSNorm in x and in its weight."""
    for shape, eps in (((3, 5), 1e-5), ((2, 3, 4), 1e-5), ((2, 2, 6), 0.7)):
        C = shape[-1]
        x, grad = 1 + 2 * rng.normal(size=shape), rng.normal(size=shape)
        weight = rng.normal(size=C)
        answer = student(grad, x, weight, eps)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            wrong("return two things: the gradient in x, and the gradient in the weight")
        got = as_array(answer[0], shape, "gradient in x")
        got_weight = as_array(answer[1], what="gradient in the weight")
        expected = np.empty(shape)
        for index in np.ndindex(*shape[:-1]):  # one token at a time, by its Jacobian
            row = x[index]
            r = math.sqrt((row**2).mean() + eps)
            jacobian = np.eye(C) / r - np.outer(row, row) / (C * r**3)
            expected[index] = jacobian @ (grad[index] * weight)
        r = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        n, g = x / r, grad * weight
        if not close(got, expected):
            layer = g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True)
            removed = (g * n).sum(-1, keepdims=True)
            reject_known(
                got,
                {
                    "r depends on x too: you treat it as a constant": g / r,
                    "the weight is missing: what is the gradient at x / r?": (
                        (grad - n * (grad * n).mean(-1, keepdims=True)) / r
                    ),
                    "no mean is subtracted in RMSNorm, so its backward pass subtracts none: this "
                    "is LayerNorm's formula": layer / r,
                    "the division by r is missing": g - n * removed / C,
                    "the part along x is summed where it should be averaged over C": (
                        (g - n * removed) / r
                    ),
                    "the part along x has the wrong sign": (g + n * removed / C) / r,
                    "the part along x has x where it should have x / r": (
                        (g - x * (g * x).mean(-1, keepdims=True)) / r
                    ),
                    "the part along x is divided by r once too rarely: one of its two factors "
                    "should be x / r": (g - x * (g * n).mean(-1, keepdims=True)) / r,
                    "the average runs over the whole array; each token has its own": (
                        (g - n * (g * n).mean()) / r
                    ),
                },
            )
            if eps > 0.1:
                wrong(f"right for a tiny eps, wrong for eps={eps}: it belongs into r")
            wrong(
                "your gradient in x does not agree with the Jacobian; nudge one x_j and "
                "compare with a finite difference"
            )
        expected_weight = (grad * n).reshape(-1, C).sum(0)
        if got_weight.shape == shape:
            wrong(
                "right in x; the weight is shared by all tokens, so its gradient is a sum over "
                f"tokens, of shape ({C},)"
            )
        got_weight = as_array(got_weight, (C,), "gradient in the weight")
        if not close(got_weight, expected_weight):
            tokens = math.prod(shape[:-1])
            reject_known(
                got_weight,
                {
                    "right in x; in the weight, sum over tokens, do not average": expected_weight
                    / tokens,
                    "right in x; the weight multiplies x / r, not x": (grad * x)
                    .reshape(-1, C)
                    .sum(0),
                    "right in x; what the weight's gradient multiplies is x / r, not the "
                    "gradient alone": grad.reshape(-1, C).sum(0),
                    "right in x; the weight's own gradient does not contain the weight": (
                        (g * n).reshape(-1, C).sum(0)
                    ),
                },
            )
            wrong("right in x, but the gradient in the weight is not")


@check()
def count_block_parameters(student: Student, rng: np.random.Generator) -> None:
    """Exercise 6.5: the parameters of a block, whatever its parts."""

    def count(C, d, bias, cross, **mistakes):
        linear = [(C, C)] * (4 * (1 + cross)) + [(C, d), (d, C)]
        weights = sum(a * b for a, b in linear)
        biases = sum(b for _, b in linear) if bias and mistakes.get("biases", True) else 0
        norms = (2 + cross) if mistakes.get("cross_norm", True) else 2
        per_norm = C * (1 + (bias or mistakes.get("norm_bias", False)))
        return weights + biases + mistakes.get("norms", 1) * norms * per_norm

    cases = [(8, 32, True, False), (12, 20, True, False), (16, 40, False, False)]
    cases += [(8, 24, True, True), (6, 18, False, True)]
    C = int(rng.integers(20, 99))
    cases += [(C, int(rng.integers(30, 300)), bool(rng.integers(2)), bool(rng.integers(2)))]
    for C, d, bias, cross in cases:
        answer = student(C, d, bias=bias, cross_attention=cross)
        got, expected = as_number(answer, "number of parameters"), count(C, d, bias, cross)
        case = f"d_model={C}, d_hidden={d}, bias={bias}, cross_attention={cross}"
        if got == expected:
            continue
        for message, value in {
            "for {}: the norms have parameters too": count(C, d, bias, cross, norms=0),
            "for {}: the biases are missing": count(C, d, bias, cross, biases=False),
            "for {}: d_hidden need not be 4 d_model": count(C, 4 * C, bias, cross),
            "for {}: without biases the norms keep their scale and lose their shift": count(
                C, d, bias, cross, norm_bias=True
            ),
            "for {}: there are no biases here": count(C, d, True, cross),
            "for {}: cross-attention is not counted": count(C, d, bias, False),
            "for {}: there is no cross-attention here": count(C, d, bias, True),
            "for {}: the third sublayer has a norm of its own": count(
                C, d, bias, cross, cross_norm=False
            ),
        }.items():
            if got == value:
                wrong(message.format(case))
        if got != int(got):
            wrong(f"for {case}: a number of parameters is a whole number, not {got}")
        if abs(got - expected) == C * C:
            wrong(f"for {case}: one matrix of C × C too {'few' if got < expected else 'many'}")
        direction = "few" if got < expected else "many"
        wrong(f"for {case}: too {direction}; list each matrix and vector with its shape")


def _torch_parallel(x, params, num_heads, mask, *, variant="right") -> np.ndarray:
    """Do the parallel block with torch's functions, with the chosen mistakes."""
    import torch
    from torch.nn import functional as F

    p = {name: torch.tensor(array) for name, array in params.items()}
    x, mask = torch.tensor(x), torch.tensor(mask)

    def linear(name, x):
        return F.linear(x, p[f"{name}.weight"].T, p[f"{name}.bias"])

    def norm(x):
        return F.layer_norm(x, x.shape[-1:], p["norm.weight"], p["norm.bias"])

    def attend(x):
        q, k, v = (
            linear(f"attention.{name}_proj", x).unflatten(-1, (num_heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        visible = {"unmasked": None, "inverted": ~mask}.get(variant, mask)
        if variant == "scale":
            q = q * (q.shape[-1] / x.shape[-1]) ** 0.5  # divided by √C in the end
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return linear("attention.output_proj", heads.transpose(1, 2).flatten(2))

    def transform(x):
        bend = {"relu": F.relu, "none": lambda h: h}.get(variant, F.gelu)
        if variant == "tanh":
            bend = lambda h: F.gelu(h, approximate="tanh")  # noqa: E731
        return linear("feed_forward.down_proj", bend(linear("feed_forward.up_proj", x)))

    n = norm(x)
    if variant == "serial":
        x = x + attend(n)
        return (x + transform(norm(x))).numpy()
    results = {
        "no residual": lambda: attend(n) + transform(n),
        "residual from n": lambda: n + attend(n) + transform(n),
        "no norm": lambda: x + attend(x) + transform(x),
        "norm after": lambda: norm(x + attend(x) + transform(x)),
        "raw network": lambda: x + attend(n) + transform(x),
        "raw attention": lambda: x + attend(x) + transform(n),
        "network of attention": lambda: x + transform(attend(n)),
        "no attention": lambda: x + transform(n),
        "no network": lambda: x + attend(n),
        "two residuals": lambda: 2 * x + attend(n) + transform(n),
    }
    return results.get(variant, lambda: x + attend(n) + transform(n))().numpy()


@check(time_limit=30.0)
def parallel_block(student: Student, rng: np.random.Generator) -> None:
    """Exercise 6.6: x + attention(norm(x)) + network(norm(x)), in numpy."""
    for B, T, H, D in ((2, 4, 2, 3), (1, 5, 3, 4), (3, 3, 1, 6)):
        C = H * D
        x = 1 + 2 * rng.normal(size=(B, T, C))
        shapes = {"norm.weight": (C,), "norm.bias": (C,)}
        for name in ("query", "key", "value", "output"):
            shapes |= {f"attention.{name}_proj.weight": (C, C), f"attention.{name}_proj.bias": (C,)}
        shapes |= {"feed_forward.up_proj.weight": (C, 4 * C), "feed_forward.up_proj.bias": (4 * C,)}
        shapes |= {"feed_forward.down_proj.weight": (4 * C, C), "feed_forward.down_proj.bias": (C,)}
        params = {name: rng.normal(size=shape) / shape[0] ** 0.5 for name, shape in shapes.items()}
        params["norm.weight"] = 1 + 0.5 * rng.normal(size=C)
        mask = np.tri(T, dtype=bool)
        mask[-1, 0] = False
        args = x, params, H, mask
        answer = student(*args)
        if isinstance(answer, tuple):
            wrong("return the output alone; layers_numpy's functions return a cache as well")
        got = as_array(answer, x.shape, "output")
        expected = _torch_parallel(*args)
        if close(got, expected):
            continue
        messages = {
            "serial": "that is the usual block: here the network reads norm(x), not what attention "
            "has already added to",
            "no residual": "x itself is not added",
            "residual from n": "what is added to is x, not norm(x): the stream is never normalised",
            "no norm": "nothing is normalised",
            "norm after": "the norm belongs in front of the branches, not after the addition",
            "raw network": "the network should read norm(x) as well",
            "raw attention": "attention should read norm(x) as well",
            "network of attention": "the network reads attention's output; both should read n",
            "no attention": "what attention brings is not added",
            "no network": "what the feed-forward network makes is not added",
            "two residuals": "x is added twice",
            "relu": "the network bends with ReLU; GELU is asked for",
            "tanh": "the network uses the tanh version of GELU; the exact one is asked for",
            "none": "the network has no nonlinearity",
            "unmasked": "the mask has no effect",
            "inverted": "the mask is inverted: True means may attend",
            "scale": "the scores are divided by √C; a head is D wide",
        }
        reject_known(
            got,
            {message: _torch_parallel(*args, variant=name) for name, message in messages.items()},
        )
        if not np.isfinite(got).all():
            wrong("your output has NaN or infinities")
        later = x.copy()
        later[:, -1, 0] += 3
        moved = as_array(student(later, params, H, mask), x.shape, "output")
        if T > 1 and not close(moved[:, :-1], got[:, :-1]):
            wrong("changing the last token changes earlier outputs, though the mask hides it")
        wrong("not the block asked for; compare the two branches one by one with layers_numpy's")
