"""Generating with our mini-GPT and its cache, against the same weights in transformers.

python -m bench.generation [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

from bench.timing import side_by_side


def measure(quick: bool = False) -> dict[str, Any]:
    """Time greedy continuation, ours with and without a cache, and transformers' generate."""
    import torch
    from transformers.utils import logging

    from utils.generate import generate
    from utils.gpt import GPT, GPTConfig, to_transformers

    logging.set_verbosity_error()  # it advises on settings that are meant as they are
    rows, rounds = [], 2 if quick else 5
    sizes = [(16, 1, 12)] if quick else [(128, 4, 64), (128, 4, 256), (256, 4, 256)]
    for d_model, layers, new_tokens in sizes:
        torch.manual_seed(0)
        config = GPTConfig(512, 16 + new_tokens, layers, d_model // 16 if quick else 4, d_model)
        model = GPT(config).eval()
        with torch.no_grad():  # fresh logits are so close that rounding would decide
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        theirs = to_transformers(model)
        ids = torch.randint(512, (1, 16))
        settings = {
            "attention_mask": torch.ones_like(ids),
            "max_new_tokens": new_tokens,
            "do_sample": False,
            "pad_token_id": 0,
        }
        work = {
            "cache": lambda m=model, i=ids, n=new_tokens: generate(m, i, n, temperature=0),
            "no cache": lambda m=model, i=ids, n=new_tokens: generate(
                m, i, n, temperature=0, use_cache=False
            ),
            "transformers": lambda m=theirs, i=ids, s=settings: m.generate(i, **s),
        }
        results = [function() for function in work.values()]
        if not all(torch.equal(results[0], other) for other in results[1:]):
            raise RuntimeError("the three ways generated different tokens")
        timed = side_by_side(work, rounds)
        rows.append(
            [
                f"{sum(p.numel() for p in model.parameters()):,}",
                new_tokens,
                *(timed.milliseconds(name) for name in work),
                timed.ratio("no cache", "cache"),
                timed.ratio("transformers", "cache"),
            ]
        )
    return {
        "title": "Generation: our mini-GPT with and without a cache, and transformers",
        "columns": [
            "parameters",
            "new tokens",
            "ours, cache (ms)",
            "ours, no cache (ms)",
            "transformers, cache (ms)",
            "no cache / cache",
            "transformers / ours",
        ],
        "rows": rows,
        "notes": [
            "Greedy continuation of 16 tokens, one sequence, 512 different tokens, random weights, "
            "32-bit numbers, on the CPU. The reference is transformers' GPT2LMHeadModel with the "
            "same weights and its own generate(). Before timing, all three give the same tokens.",
            "For models this small much of the time goes into the Python around the arithmetic; "
            "transformers, whose generate() can do far more, has more of it.",
            f"Processor time in one thread: medians of {rounds} alternating rounds; a ratio is the "
            "median over the rounds, with the quartiles in brackets.",
        ],
    }


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["generation", *sys.argv[1:]]))
