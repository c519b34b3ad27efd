"""Checks for chapter 12: a cache's bytes, parameters, SwiGLU's gradient, grouped heads, pooling."""

from __future__ import annotations

from functools import partial

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong

_reject_known = partial(reject_known, rtol=1e-5)


@check()
def grouped_cache_bytes(student: Student, rng: np.random.Generator) -> None:
    """Exercise 12.1: the memory that keys and values of a conversation take."""
    for L, H_kv, D, T, B, each in (
        (30, 3, 64, 8192, 1, 4),
        (2, 1, 8, 5, 3, 2),
        tuple(int(n) for n in rng.integers(2, 50, size=6)),
    ):
        got = as_number(student(L, H_kv, D, T, B, each), "number of bytes")
        numbers = 0
        for _ in range(L):  # one key and one value, layer by layer
            numbers += B * T * H_kv * D + B * T * H_kv * D
        if got == numbers * each:
            continue
        case = f"for L={L}, H_kv={H_kv}, D={D}, T={T}, B={B} and {each} bytes each: "
        _reject_known(
            np.array(got),
            {
                case + "keys and values are both kept": numbers * each / 2,
                case + "that is how many numbers there are; each takes several bytes": numbers,
                case + "that is one layer; every layer keeps its own": numbers * each / L,
                case + "each sequence of the batch has its own cache": numbers * each / B,
                case + "every token so far is kept, not only the newest": numbers * each / T,
                case + "that is one head; there are H_kv": numbers * each / H_kv,
                case + "a key has D numbers": numbers * each / D,
                case + "the answer should be in bytes, without 1024s": numbers * each / 2**20,
                case + "bits are eight times as many as bytes": 8 * numbers * each,
            },
            atol=0,
        )
        wrong(case + f"{got:,.0f} bytes is not what the tensors of a KVCache take")


@check(time_limit=60)  # the first use of transformers takes seconds
def llama_parameters(student: Student, rng: np.random.Generator) -> None:
    """Exercise 12.2: parameters of a model of this chapter's kind, tied or not."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def count(sizes, **mistakes):
        V, C, L, kv_width, hidden, tied = sizes
        attention = C * C * mistakes.get("square", 2) + C * kv_width * 2
        swiglu = mistakes.get("matrices", 3) * C * hidden
        norms = mistakes.get("norms", 2) * C
        final = mistakes.get("final", C)
        return L * (attention + swiglu + norms) + final + V * C * (1 if tied else 2)

    import torch

    random_case = int(rng.integers(40, 90)), 24, int(rng.integers(1, 4)), 4, 2, 31, False
    for V, C, L, H, H_kv, hidden, tied in (
        (49152, 576, 30, 9, 3, 1536, True),
        random_case,
        (50, 32, 2, 8, 1, 20, True),
        (60, 16, 3, 4, 4, 40, False),
    ):
        config = LlamaConfig(
            vocab_size=V,
            hidden_size=C,
            num_hidden_layers=L,
            num_attention_heads=H,
            num_key_value_heads=H_kv,
            intermediate_size=hidden,
            tie_word_embeddings=tied,
        )
        with torch.device("meta"):  # shapes only: no memory, no time
            model = LlamaForCausalLM(config)
            model.tie_weights()
        expected = sum(p.numel() for p in model.parameters())
        got = as_number(student(V, C, L, H, H_kv, hidden, tied), "number of parameters")
        if got == expected:
            continue
        case = f"for V={V}, C={C}, L={L}, H={H}, H_kv={H_kv}, hidden width {hidden}, tied={tied}: "
        sizes = V, C, L, C // H * H_kv, hidden, tied
        _reject_known(
            np.array(got),
            {
                case + "keys and values have fewer heads than queries": count(
                    (V, C, L, C, hidden, tied)
                ),
                case + "SwiGLU has three matrices": count(sizes, matrices=2),
                case + "the output projection of attention is missing": count(sizes, square=1),
                case + "the norms have weights too": count(sizes, norms=0, final=0),
                case + "each block has two norms": count(sizes, norms=1),
                case + "there is a last norm before the output layer": count(sizes, final=0),
                case + "an RMSNorm has no shift": count(sizes, norms=4, final=2 * C),
                case + "RMSNorms have a weight and no shift; check the last one": count(
                    sizes, final=2 * C
                ),
                case
                + (
                    "tied means that embedding and output layer are one matrix"
                    if tied
                    else "not tied means that the output layer has a matrix of its own"
                ): count((*sizes[:-1], not tied)),
            },
            atol=0,
        )
        wrong(
            case + f"your count is off by {got - expected:+,.0f}; print the shapes of a model's "
            "named_parameters() and see which term is missing"
        )


@check()
def swiglu_backward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 12.3: back through silu(gate) · up."""
    import torch
    from torch.nn import functional as F

    for shape in ((7,), (3, 5), (2, 3, 4)):
        gate, up, grad = (2 * rng.normal(size=shape) for _ in range(3))
        tensors = [torch.tensor(a, requires_grad=True) for a in (gate, up)]
        product = F.silu(tensors[0]) * tensors[1]
        expected = [g.numpy() for g in torch.autograd.grad(product, tensors, torch.tensor(grad))]
        answer = student(grad, gate, up)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            wrong("return two things: the gradient in gate, and the gradient in up")
        got_gate = as_array(answer[0], shape, "gradient in gate")
        got_up = as_array(answer[1], shape, "gradient in up")
        sigma = 1 / (1 + np.exp(-gate))
        if not close(got_up, expected[1]):
            _reject_known(
                got_up,
                {
                    "the two gradients come in the other order: gate first": expected[0],
                    "in up: what multiplies it is silu(gate) = gate · σ(gate), not σ(gate)": grad
                    * sigma,
                    "in up: what multiplies it is silu(gate), not gate": grad * gate,
                    "in up: the incoming gradient is missing": gate * sigma,
                    "in up: up itself has no place there; the product is linear in it": grad
                    * gate
                    * sigma
                    * up,
                },
            )
            wrong("your gradient in up does not agree with autograd's")
        if not close(got_gate, expected[0]):
            _reject_known(
                got_gate,
                {
                    "in gate: up is missing": grad * sigma * (1 + gate * (1 - sigma)),
                    "in gate: the incoming gradient is missing": up
                    * sigma
                    * (1 + gate * (1 - sigma)),
                    "in gate: silu(z) = z · σ(z) has two factors that depend on z; one half of "
                    "the product rule is missing (the one that leaves σ alone is there)": grad
                    * up
                    * sigma,
                    "in gate: silu(z) = z · σ(z) has two factors that depend on z; one half of "
                    "the product rule is missing (the one that leaves z alone is there)": grad
                    * up
                    * gate
                    * sigma
                    * (1 - sigma),
                    "in gate: that is the slope of the sigmoid, without z": grad
                    * up
                    * sigma
                    * (1 - sigma),
                    "in gate: the slope of the sigmoid is σ (1 - σ), not 1 - σ": grad
                    * up
                    * (sigma + gate * (1 - sigma)),
                },
            )
            wrong("your gradient in gate does not agree with autograd's")


def _grouped(queries, keys, values, groups, *, causal=True, scale=True):
    """Attend, head h to the keys and values of head groups[h]."""
    T, D = queries.shape[-2:]
    output = np.zeros((*queries.shape[:-1], values.shape[-1]))
    for b in range(queries.shape[0]):
        for h in range(queries.shape[1]):
            g = groups[h]
            for t in range(T):
                last = t + 1 if causal else T
                scores = keys[b, g, :last] @ queries[b, h, t] / (np.sqrt(D) if scale else 1)
                weights = np.exp(scores - scores.max())
                output[b, h, t] = weights / weights.sum() @ values[b, g, :last]
    return output


@check()
def grouped_query_attention(student: Student, rng: np.random.Generator) -> None:
    """Exercise 12.4: causal attention whose heads of queries share heads of keys and values."""
    for B, T, H, H_kv, D in ((2, 4, 6, 3, 4), (1, 5, 4, 1, 3), (2, 3, 3, 3, 2), (1, 4, 8, 2, 5)):
        queries = rng.normal(size=(B, H, T, D))
        keys, values = rng.normal(size=(2, B, H_kv, T, D))
        got = as_array(student(queries, keys, values), (B, H, T, D), "output")
        groups = [h // (H // H_kv) for h in range(H)]
        expected = _grouped(queries, keys, values, groups)
        if close(got, expected):
            continue
        case = f"for {H} heads of queries and {H_kv} of keys and values: "
        given = queries, keys, values
        _reject_known(
            got,
            {
                case + "each group should be neighbours: head h belongs to h // (H / H_kv), and "
                "yours goes round, h % H_kv (repeat, not tile)": _grouped(
                    *given, [h % H_kv for h in range(H)]
                ),
                case + "the groups come in reverse order": _grouped(*given, groups[::-1]),
                case + "all heads use the first head of keys and values": _grouped(*given, [0] * H),
                case + "queries see the future": _grouped(*given, groups, causal=False),
                case + "the scores are not divided by the root of D": _grouped(
                    *given, groups, scale=False
                ),
            },
        )
        if not np.isfinite(got.astype(float)).all():
            wrong(case + "the output has values that are not finite; what does the mask leave?")
        wrong(case + "the output differs from a loop over heads and positions")


@check()
def pool_kv_heads(student: Student, rng: np.random.Generator) -> None:
    """Exercise 12.5: fewer heads of keys or values, each the mean of a group."""
    for H, G, D, C in ((6, 3, 4, 5), (4, 1, 3, 6), (8, 4, 2, 3), (3, 3, 2, 4)):
        weight = rng.normal(size=(H * D, C))
        got = as_array(student(weight, H, G), (G * D, C), "new matrix")
        size = H // G
        expected = np.zeros((G * D, C))
        for h in range(H):
            g = h // size
            expected[g * D : (g + 1) * D] += weight[h * D : (h + 1) * D] / size
        if close(got, expected):
            continue
        case = f"for {H} heads that become {G}: "
        heads = weight.reshape(H, D, C)
        _reject_known(
            got,
            {
                case + "the heads of a group are added; take their mean": expected * size,
                case + "each new head is the first of its group; take the mean": heads[
                    ::size
                ].reshape(G * D, C),
                case + "heads next to each other form a group; yours are G apart": heads.reshape(
                    size, G, D, C
                )
                .mean(0)
                .reshape(G * D, C),
                case + "you average neighbouring rows, which belong to the same head; a head has "
                "D rows, and row i of one goes with row i of the others": weight.reshape(
                    G * D, size, C
                ).mean(1),
                case + "that only cuts rows off; all heads should count": weight[: G * D],
            },
        )
        wrong(case + "the rows are not the means of the rows of each group's heads")
