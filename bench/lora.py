"""Teaching SmolLM2 a manner: ranks, rates, full fine-tuning, and what each forgets (chapter 16).

python -m bench.lora [--quick]

Like bench/fine_tuning.py this records runs that are too long for the chapter, with the summaries
and answers that came out, so that the chapter can score and show them.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One way to train; rank 0 trains all weights of the upper blocks."""

    name: str
    rank: int
    lr: float
    train_end: bool = True


FIRST_BLOCK, STEPS, BATCH, EVERY = 20, 24, 8, 8
TARGETS = ("query_proj", "value_proj", "up_proj", "down_proj")
SETTINGS = (
    Setting("LoRA, rank 8", 8, 2e-3),
    Setting("LoRA, end not trained", 8, 2e-3, False),
    Setting("all weights", 0, 2e-4),
)


class Characters:
    """A tokenizer for a quick try: bytes, and two marks."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return ids: 0 and 1 for the marks, and bytes from 2 on."""
        parts = text.encode().replace(b"<|im_start|>", b"\x00").replace(b"<|im_end|>", b"\x01")
        return {"input_ids": [b if b < 2 else b + 2 for b in parts]}

    def convert_tokens_to_ids(self, token: str) -> int:
        """Return the id of a mark."""
        return int(token == "<|im_end|>")

    def decode(self, ids: list[int]) -> str:
        """Return text."""
        return bytes(max(i - 2, 32) for i in ids).decode(errors="replace")


def held_out(model: Any, tokenizer: Any, ours: dict[str, Any], small: bool) -> dict[str, Any]:
    """Return what a model is scored on: cached states below the trained blocks."""
    from utils import data, instruct

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    facts = []
    for beginning, right, wrong in ours["facts"]:
        given = ids_of(beginning)
        facts += [instruct.plain_text(given + ids_of(end), len(given)) for end in (right, wrong)]
    scene = ids_of(data.plays_split().validation[2000:4500])[:512]
    starts = range(0, 128 if small else 512, 128)
    texts = {
        "manner": [instruct.encode_chat(tokenizer, *pair) for pair in ours["test"]],
        "plays": [instruct.plain_text(scene[i : i + 128]) for i in starts],
        "facts": facts[:4] if small else facts,
    }
    first = FIRST_BLOCK if len(model.blocks) > FIRST_BLOCK else 1
    return {k: instruct.cache_states(model, v, first) for k, v in texts.items()}


def scores(model: Any, cached: dict[str, Any], first_block: int) -> dict[str, float]:
    """Return nats per token of the manner and of the plays, and the share of facts preferred."""
    from utils import instruct

    found = {}
    for name, some in cached.items():
        batch = instruct.collate_cached(some)
        losses = instruct.token_losses(model, batch, first_block)
        if name == "facts":
            right, wrong = losses.sum(dim=1).reshape(-1, 2).T
            found[name] = float((right < wrong).float().mean())
        else:
            found[name] = float(losses.sum() / (batch[1] != instruct.IGNORE).sum())
    return {name: round(value, 4) for name, value in found.items()}


def runs(
    model: Any, tokenizer: Any, settings: tuple[Setting, ...], *, small: bool = False
) -> Iterator[dict[str, Any]]:
    """Train once for each setting from the same start, and give what came out."""
    import torch

    from utils import instruct, lora
    from utils.batches import ExampleBatches
    from utils.schedules import warmup_cosine
    from utils.train import seed_everything, train

    ours = instruct.instructions()
    first = FIRST_BLOCK if len(model.blocks) > FIRST_BLOCK else 1
    steps, every = (2, 1) if small else (STEPS, EVERY)
    cached = held_out(model, tokenizer, ours, small)
    prompts = [question for question, _ in ours["test"]][: 2 if small else None]
    lower: dict[bool, Any] = {}
    for setting in settings:
        start = time.process_time()
        seed_everything(0)
        if setting.train_end not in lower:
            pairs = ours["train"][:8] if small else ours["train"]
            end = {"train_end": setting.train_end}
            examples = [instruct.encode_chat(tokenizer, *pair, **end) for pair in pairs]
            lower[setting.train_end] = instruct.cache_states(model, examples, first)
        blocks, model.blocks = model.blocks, copy.deepcopy(model.blocks)
        model.requires_grad_(False)
        if setting.rank:
            chosen = range(first, len(model.blocks))
            lora.add_lora(model, setting.rank, targets=TARGETS, blocks=chosen)
        else:
            model.blocks[first:].requires_grad_(True)
        params = [p for p in model.parameters() if p.requires_grad]
        curve: list[dict[str, float]] = []

        def evaluate(model: Any, curve: list[dict[str, float]] = curve) -> float:
            curve.append(scores(model, cached, first))
            return curve[-1]["manner"]

        history = train(
            model,
            ExampleBatches(lower[setting.train_end], BATCH, instruct.collate_cached, seed=0),
            steps,
            optimizer=torch.optim.AdamW(params, lr=setting.lr, weight_decay=0.0),
            schedule=lambda step: warmup_cosine(step, steps // 8, steps, peak=1.0),
            loss_function=lambda model, batch: instruct.upper_loss(model, batch, first),
            evaluate=evaluate,
            eval_every=every,
            log=None,
        )
        answers = instruct.replies(model, tokenizer, prompts, 4 if small else 28)
        model.blocks = blocks
        yield {
            **setting._asdict(),
            "trained": sum(p.numel() for p in params),
            "steps": history.eval_steps,
            "curve": curve,
            "answers": answers,
            "in_manner": sum(map(instruct.in_manner, answers)),
            "seconds": round(time.process_time() - start),
        }


def prompted(model: Any, tokenizer: Any, *, small: bool = False) -> dict[str, Any]:
    """Return the answers without training: as it is, told the manner, and shown examples of it."""
    from utils import instruct

    ours = instruct.instructions()
    questions = [question for question, _ in ours["test"]][: 2 if small else None]
    told = f"You are a radio operator. {ours['manner']}"
    shown = [
        {"role": role, "content": text}
        for pair in ours["train"][:4]
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    ways = {
        "as it is": (questions, {}),
        "told": (questions, {"system": told}),
        "told and shown": (
            [[*shown, {"role": "user", "content": q}] for q in questions],
            {"system": told},
        ),
    }
    return {
        name: instruct.replies(model, tokenizer, prompts, 4 if small else 28, **options)
        for name, (prompts, options) in ways.items()
    }


def summaries(model: Any, tokenizer: Any, *, small: bool = False) -> dict[str, str]:
    """Return the model's summary of each plot that we have summarised."""
    from utils import data, instruct

    plots, films = data.film_plots(), list(instruct.instructions()["summaries"])
    films = films[:1] if small else films
    ask = "Summarize this film in one sentence.\n\n"
    prompts = [ask + " ".join(plots[film].split())[: 60 if small else None] for film in films]
    return dict(
        zip(films, instruct.replies(model, tokenizer, prompts, 4 if small else 48), strict=True)
    )


def table(results: list[dict[str, Any]], answers: dict[str, Any], films: Any) -> dict[str, Any]:
    """Return the measurement as the website shows it, with all runs."""
    rows = [
        [
            r["name"],
            f"{r['trained']:,}",
            f"{r['lr']:g}",
            f"{r['in_manner']} of {len(r['answers'])}",
            f"{r['curve'][-1]['manner']:.2f}",
            f"{r['curve'][-1]['plays'] - r['curve'][0]['plays']:+.2f}",
            f"{100 * r['curve'][-1]['facts']:.0f}",
            r["seconds"],
        ]
        for r in results
    ]
    return {
        "title": "Teaching SmolLM2 a manner, and what it forgets",
        "columns": [
            "trained",
            "parameters",
            "rate",
            "answers in the manner",
            "manner, nats/token",
            "plays, change in nats/token",
            "facts preferred (%)",
            "processor seconds",
        ],
        "rows": rows,
        "notes": [
            f"SmolLM2-135M-Instruct; 64 questions answered in a radio operator's manner, {STEPS} "
            f"updates of {BATCH}, AdamW, warm-up over an eighth, cosine to zero; only blocks "
            f"{FIRST_BLOCK} to 29 change, the states below them are computed once. One run each.",
            "Adapters on the projections of queries and values and on two of the three matrices "
            "of the feed-forward network; alpha is twice the rank.",
            "Scored on 16 other questions, 512 tokens of plays and 24 facts, each a choice "
            "between a right and a wrong ending.",
        ],
        "runs": results,
        "prompted": answers,
        "summaries": films,
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """Make all runs; a quick one has a tiny model with random weights."""
    from utils import llama

    if quick:
        config = llama.LlamaConfig(
            vocab_size=258, d_model=16, num_layers=2, num_heads=2, num_kv_heads=1, d_hidden=16
        )
        model, tokenizer = llama.Llama(config).eval(), Characters()
    else:
        model, tokenizer = llama.load_llama("cpu")
    settings = SETTINGS[:2] if quick else SETTINGS
    answers = prompted(model, tokenizer, small=quick)
    films = summaries(model, tokenizer, small=quick)
    return table(list(runs(model, tokenizer, settings, small=quick)), answers, films)


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["lora", *sys.argv[1:]]))
