"""One training step of our mini-GPT against a transformers GPT-2 with the same weights.

python -m bench.training_step [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

from bench.timing import side_by_side


def measure(quick: bool = False) -> dict[str, Any]:
    """Time forward, backward and an optimiser's step, for several sizes."""
    import torch
    from torch.nn import functional as F

    from utils.gpt import GPT, GPTConfig, to_transformers

    rows, rounds = [], 2 if quick else 9
    sizes = [(16, 1, 2, 8, 50)] if quick else [(128, 4, 12, 64, 80), (384, 6, 4, 128, 512)]
    for d_model, layers, batch, length, vocabulary in sizes:
        torch.manual_seed(0)
        config = GPTConfig(vocabulary, length, layers, num_heads=4, d_model=d_model)
        ours = GPT(config).train()
        theirs = to_transformers(ours).train()
        ids = torch.randint(vocabulary, (batch, length + 1))
        inputs, targets = ids[:, :-1], ids[:, 1:].flatten()

        def step(model, optimiser, inputs=inputs, targets=targets):
            logits = model(inputs)
            logits = getattr(logits, "logits", logits)
            loss = F.cross_entropy(logits.flatten(0, 1), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return loss.item()

        models = {"ours": ours, "transformers": theirs}
        options = {"lr": 1e-3, "weight_decay": 0.1}
        optimisers = {n: torch.optim.AdamW(m.parameters(), **options) for n, m in models.items()}
        for _ in range(3):
            losses = [step(models[name], optimisers[name]) for name in models]
            torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)
        work = {n: lambda m=models[n], o=optimisers[n], step=step: step(m, o) for n in models}
        timed = side_by_side(work, rounds)
        rows.append(
            [
                f"{sum(p.numel() for p in ours.parameters()):,}",
                f"{batch} × {length}",
                timed.milliseconds("ours"),
                timed.milliseconds("transformers"),
                timed.ratio("transformers", "ours"),
            ]
        )
    return {
        "title": "A training step: our mini-GPT, and GPT-2 of the same size in transformers",
        "columns": [
            "parameters",
            "batch × tokens",
            "ours (ms)",
            "transformers (ms)",
            "transformers / ours",
        ],
        "rows": rows,
        "notes": [
            "Forward, cross-entropy, backward and a step of torch's AdamW, 32-bit numbers, on the "
            "CPU. The reference is GPT2LMHeadModel of the transformers library (GPT-2's reference "
            "implementation there), which starts from our weights; no dropout on either side. "
            "Before timing, three steps give both the same losses.",
            f"Processor time in one thread: medians of {rounds} alternating rounds; a ratio is the "
            "median over the rounds, with the quartiles in brackets.",
        ],
    }


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["training_step", *sys.argv[1:]]))
