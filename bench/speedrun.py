"""Chapter 13's recipes: the loss that each reaches, and the seconds that it takes.

python -m bench.speedrun losses              train the recipes (long); goes on where it stopped
python -m bench.speedrun losses Muon 0 1     only this recipe and these seeds
python -m bench.speedrun timing              time one update of each, and make the table

What an update does to the loss follows from the seed alone, so `losses` may run on a busy machine.
How long it takes does not, so `timing` runs all recipes side by side, in alternating rounds;
seconds are updates times the median. `python bench/run.py speedrun` is `timing`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.timing import figures, side_by_side

RECORD = Path(__file__).resolve().parent / "results" / "speedrun.json"
SEEDS = (0, 1, 2)
COMPILED = "baseline, compiled"
POINTS = {"long": 8, "short": 2}  # evaluations along a run, besides the one before it


def recorded() -> dict[str, Any]:
    """Return what is in the file, or nothing."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def plain(recipe: Any) -> dict[str, Any]:
    """Return, as JSON keeps it, in what a recipe differs from the defaults, nanoGPT's recipe."""
    values, defaults = dataclasses.asdict(recipe), dataclasses.asdict(type(recipe)())
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    return json.loads(json.dumps(changed))


def keep(name: str, recipe: Any, seed: int, curve: dict[str, Any]) -> None:
    """Add one run to the file, at once, so that a run that is cut off loses only itself."""
    record = recorded()
    runs = record.setdefault("runs", {})
    entry = runs.get(name)
    if entry is None or entry["recipe"] != plain(recipe):
        entry = runs[name] = {"recipe": plain(recipe), "seeds": {}}
    entry["seeds"][str(seed)] = curve
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    unfinished = RECORD.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(RECORD)


def losses(names: list[str], seeds: tuple[int, ...] = SEEDS) -> None:
    """Train the recipes that are not in the file yet, one seed of all before the next seed."""
    from utils import speedrun

    texts = speedrun.plays()
    wanted = [(name, seed) for seed in seeds for name in names or speedrun.RECIPES]
    if not names:
        wanted = [(name, 0) for name in speedrun.TUNING] + wanted
    for name, seed in wanted:
        recipe = (speedrun.RECIPES | speedrun.TUNING)[name]
        entry = recorded().get("runs", {}).get(name, {})
        if entry.get("recipe") == plain(recipe) and str(seed) in entry["seeds"]:
            continue
        points = POINTS["long" if recipe.updates >= 1000 else "short"]
        every = -(-recipe.updates // points)
        model, history = speedrun.run(recipe, texts, seed, eval_every=every)
        curve = {
            "updates": history.eval_steps,
            "losses": [round(loss, 4) for loss in history.eval_losses],
            "test": round(speedrun.loss_on(model, texts.test), 4),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        keep(name, recipe, seed, curve)
        print(f"{name}, seed {seed}: {curve['losses'][-1]:.4f}", flush=True)


def stepper(recipe: Any, texts: Any, compiled: bool = False) -> Any:
    """Return a function that makes one update: batch, loss, gradients, clipping, step."""
    import torch
    from torch.nn import functional as F

    from utils import speedrun
    from utils.batches import TextBatches
    from utils.optim import clip_grad_norm

    torch.manual_seed(0)
    model = speedrun.SpeedrunGPT(recipe, texts.vocab_size)
    optimizer = speedrun.make_optimizer(recipe, model)
    parameters = list(model.parameters())
    batches = TextBatches(texts.train, recipe.batch_size, recipe.context_length)
    called = torch.compile(model) if compiled else model
    number = 0

    def update() -> None:
        nonlocal number
        inputs, targets = batches[number]
        number += 1
        optimizer.zero_grad()
        F.cross_entropy(called(inputs).flatten(0, 1), targets.flatten()).backward()
        clip_grad_norm(parameters, recipe.max_grad_norm or 1e9)
        optimizer.step()

    return update


def clocked(update: Any, durations: list[float]) -> Any:
    """Return the same function, which also notes how long each call took on the clock."""

    def timed() -> None:
        start = time.perf_counter()
        update()
        durations.append(time.perf_counter() - start)

    return timed


def compile_seconds(update: Any) -> float:
    """Return how long the first two calls take, or NaN where there is no C++ compiler."""
    start = time.perf_counter()
    try:
        update()
        update()
    except Exception as error:  # whatever torch.compile raises where it cannot work
        print(f"torch.compile does not work here ({type(error).__name__})", file=sys.stderr)
        return math.nan
    return time.perf_counter() - start


def measure(quick: bool = False) -> dict[str, Any]:
    """Time one update of every recipe side by side, and put the recorded losses beside it."""
    import torch

    from utils import speedrun

    texts = speedrun.plays()
    recipes = dict(list(speedrun.RECIPES.items())[:1]) if quick else speedrun.RECIPES
    on_clock: dict[str, list[float]] = {}
    updates = {
        name: clocked(stepper(recipe, texts), on_clock.setdefault(name, []))
        for name, recipe in recipes.items()
    }
    compiling = math.nan
    if not quick:
        compiled = stepper(speedrun.BASELINE, texts, compiled=True)
        compiling = compile_seconds(compiled)
        if not math.isnan(compiling):
            updates[COMPILED] = clocked(compiled, on_clock.setdefault(COMPILED, []))
    rounds = 2 if quick else 9
    result = side_by_side(updates, rounds)
    milliseconds = {
        name: round(1e3 * float(np.median(values)), 2) for name, values in result.seconds.items()
    }
    timing = {
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "milliseconds": milliseconds,
        "milliseconds_on_the_clock": {
            name: round(1e3 * float(np.median(values)), 2) for name, values in on_clock.items()
        },
        "compiling_seconds": None if math.isnan(compiling) else round(compiling, 1),
    }
    alone = timing["threads"] == 1
    clock = milliseconds if alone else timing["milliseconds_on_the_clock"]
    runs = recorded().get("runs", {})  # read last: `losses` may be running
    rows = [row_of(name, recipes[name], runs.get(name), clock[name]) for name in recipes]
    notes = [
        "Loss in nats per character on the same 32,768 characters of the two validation plays: "
        "mean over the recorded seeds and, after ±, their standard deviation.",
        f"Seconds are updates times the median {'processor' if alone else 'wall-clock'} time of "
        f"one update in {timing['threads']} thread{'' if alone else 's'}, over "
        f"{rounds} alternating rounds of all recipes in one run; evaluation is not counted. The "
        "losses were recorded apart from that: they follow from the seed, not from the machine.",
    ]
    if timing["compiling_seconds"] is not None:
        ratio = milliseconds[COMPILED] / milliseconds["baseline"]
        notes.append(
            f"With torch.compile an update of the baseline takes {ratio:.2f} times as long as "
            f"without, after {compiling:.0f} s on the clock for compiling."
        )
    suffix = "" if alone else f"{timing['threads']} threads"
    return {
        "name": "-".join(["speedrun", *suffix.split()]),
        "title": ", ".join(["Speedrun: chapter 13’s recipes", *[suffix] * (not alone)]),
        "columns": ["recipe", "parameters", "updates", "ms per update", "seconds", "loss"],
        "rows": rows,
        "notes": notes,
        "timing": timing,
        "runs": runs if alone else {},
    }


def row_of(name: str, recipe: Any, entry: dict[str, Any] | None, ms: float) -> list[Any]:
    """Return the table's row of one recipe."""
    curves = list(entry["seeds"].values()) if entry and entry["recipe"] == plain(recipe) else []
    finals = [curve["losses"][-1] for curve in curves]
    spread = f" ± {np.std(finals, ddof=1):.3f}" if len(finals) > 1 else ""
    return [
        name,
        f"{curves[0]['parameters']:,}" if curves else "",
        recipe.updates,
        figures(ms),
        figures(recipe.updates * ms / 1e3),
        f"{np.mean(finals):.3f}{spread}" if finals else "not recorded",
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["losses"]:
        numbers = [int(each) for each in sys.argv[2:] if each.isdigit()]
        losses([each for each in sys.argv[2:] if not each.isdigit()], tuple(numbers) or SEEDS)
    else:
        from bench import run

        sys.exit(run.main(["speedrun", *[each for each in sys.argv[1:] if each != "timing"]]))
