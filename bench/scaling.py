"""Seven widths of a small GPT on 230,400 characters of the plays each (chapter 19).

python -m bench.scaling [--quick]

The other measurements compare speeds; this one records the losses that chapter 19 fits a scaling
law to, for the chapter would take too long to make all runs itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

SEEDS = (0, 1)


def runs(widths: Iterable[int], seeds: Iterable[int], **options: Any) -> list[dict[str, Any]]:
    """Train each width once for each seed, and note the processor seconds that it took."""
    from utils import scaling

    results = []
    for seed in seeds:
        for d_model in widths:
            start = time.process_time()
            result = scaling.train_width(d_model, seed, **options)
            result["loss"] = round(result["loss"], 5)
            results.append({**result, "seconds": round(time.process_time() - start, 1)})
            print(results[-1], file=sys.stderr, flush=True)
    return results


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the measurement as the website shows it, with all runs."""
    from utils import scaling

    rows = []
    for size in sorted({run["parameters"] for run in results}):
        same = [run for run in results if run["parameters"] == size]
        rows.append(
            [
                f"{size:,}",
                same[0]["d_model"],
                f"{same[0]['tokens']:,}",
                ", ".join(f"{run['loss']:.3f}" for run in same),
                ", ".join(f"{run['seconds']:.0f}" for run in same),
            ]
        )
    return {
        "title": "Loss against size: small GPTs on the plays",
        "columns": [
            "parameters of the blocks",
            "width",
            "characters read",
            "validation loss of each seed (nats per character)",
            "processor seconds",
        ],
        "rows": rows,
        "notes": [
            f"{scaling.LAYERS} blocks, heads {scaling.HEAD_WIDTH} wide, characters, batches of "
            f"{scaling.BATCH_SIZE} × {scaling.CONTEXT}, by chapter 13's recipe as it is after the "
            "step called trapezoid, with the same rates for all widths.",
            f"The {scaling.FITTED} smaller widths, which chapter 19 fits a law to, have two seeds; "
            "the larger ones, which test it, have one. Loss on the beginnings of the two "
            "validation plays, after the last update. Seconds in one thread.",
        ],
        "runs": results,
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """Make all runs; a quick one trains the smallest width for a few steps."""
    from utils import scaling

    if quick:
        return table(runs(scaling.WIDTHS[:1], SEEDS[:1], updates=3, evaluated=640))
    first, *others = SEEDS
    return table(runs(scaling.WIDTHS, [first]) + runs(scaling.WIDTHS[: scaling.FITTED], others))


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["scaling", *sys.argv[1:]]))
