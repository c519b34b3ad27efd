"""Fine-tuning the embedded encoder on film reviews, from 100 to all training reviews (chapter 14).

python -m bench.fine_tuning [--quick]

The other measurements compare speeds; this one records runs that are too long for the chapter,
with every test review's probability, so that the chapter can compute intervals and show errors.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """How many reviews to learn from, how often to see each, and the seed of it all."""

    reviews: int
    epochs: int
    seed: int


# Carried over from trials with the upper two blocks and 2,000 reviews; not tuned for these runs.
FROZEN, RATE, DECAY, BATCH = 2, 3e-4, 0.85, 32
ALL = 10_150
SETTINGS = (
    Setting(100, 10, 0),
    Setting(300, 6, 0),
    Setting(1000, 3, 0),
    Setting(3000, 2, 0),
    Setting(ALL, 3, 0),
)


def in_fixed_order(reviews: list[Any]) -> list[Any]:
    """Shuffle the training reviews once for all: smaller sets are the beginnings of larger ones."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(reviews))
    return [reviews[i] for i in order]


def encode(reviews: list[Any], tokenizer: Any) -> list[Any]:
    """Turn reviews into labelled examples."""
    from utils import classify

    labels = [review.label for review in reviews]
    return classify.encode_texts([review.text for review in reviews], tokenizer, labels)


def fine_tune(model: Any, cached: list[Any], epochs: int, seed: int, **watching: Any) -> Any:
    """Train what lies above the frozen blocks; `watching` goes to `utils.train.train` as it is."""
    import torch

    from utils import classify
    from utils.schedules import warmup_cosine
    from utils.train import train

    batches = classify.BucketedBatches(cached, BATCH, classify.collate_cached, seed=seed)
    steps = epochs * batches.per_epoch
    return train(
        model,
        batches,
        steps,
        optimizer=torch.optim.AdamW(classify.layerwise_groups(model, RATE, decay=DECAY)),
        schedule=lambda step: warmup_cosine(step, steps // 10, steps, peak=1.0),
        loss_function=classify.upper_loss,
        log=None,
        **watching,
    )


def runs(settings: tuple[Setting, ...], held_out: int | None = None) -> Iterator[dict[str, Any]]:
    """Fine-tune once for each setting, and give what came out of it.

    Parameters
    ----------
    settings : tuple of Setting
    held_out : int, optional
        Use only so many validation and test reviews (for a quick try).
    """
    import numpy as np
    import torch

    from utils import bert, classify, data
    from utils.train import seed_everything

    encoder, tokenizer = bert.load_bert("minilm", "cpu")
    frozen_part = classify.TextClassifier(encoder, frozen=FROZEN)
    largest = max(setting.reviews for setting in settings)
    texts = encode(in_fixed_order(data.reviews("train"))[:largest], tokenizer)
    cached: list[Any] = []
    validation, test_reviews = (data.reviews(part)[:held_out] for part in ("validation", "test"))
    validation = classify.cache_lower(frozen_part, encode(validation, tokenizer))
    test = classify.cache_lower(frozen_part, encode(test_reviews, tokenizer))
    for setting in settings:
        cached += classify.cache_lower(frozen_part, texts[len(cached) : setting.reviews])
        start = time.process_time()
        seed_everything(setting.seed)
        model = classify.TextClassifier(encoder, frozen=FROZEN)
        history = fine_tune(model, cached[: setting.reviews], setting.epochs, setting.seed)
        right = [
            classify.accuracy(classify.predict(model, part), [e.label for e in part])
            for part in (validation, test)
        ]
        logits = torch.from_numpy(classify.predict(model, test))
        yield {
            **setting._asdict(),
            "validation": round(right[0], 4),
            "test": round(right[1], 4),
            "last_losses": round(float(np.mean(history.losses[-20:])), 3),
            "seconds": round(time.process_time() - start),
            # The order is that of data.reviews("test"), whose texts have this checksum.
            "checksum": zlib.crc32("\n".join(r.text for r in test_reviews).encode()),
            "favourable": [round(p, 3) for p in logits.softmax(dim=1)[:, 1].tolist()],
        }


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the measurement as the website shows it, with all runs."""
    rows = [
        [
            f"{r['reviews']:,}",
            r["epochs"],
            r["seed"],
            f"{100 * r['validation']:.1f}",
            f"{100 * r['test']:.1f}",
            r["seconds"],
        ]
        for r in sorted(results, key=lambda r: (r["reviews"], r["seed"]))
    ]
    return {
        "title": "Fine-tuning MiniLM on film reviews",
        "columns": [
            "training reviews",
            "epochs",
            "seed",
            "validation accuracy (%)",
            "test accuracy (%)",
            "processor seconds",
        ],
        "rows": rows,
        "notes": [
            "The embedded encoder (6 blocks, 22.7 M parameters); embeddings and the first "
            f"{FROZEN} blocks frozen, their states computed once. AdamW at {RATE:g} for the head, "
            f"times {DECAY} for each block below, warm-up over a tenth, cosine to zero, batches of "
            f"{BATCH} bucketed by length, dropout 0.1, mean of the tokens. No film is in two "
            "parts.",
            "Settings were carried over from trials with two blocks and 2,000 reviews, which were "
            "scored on validation and test films alike; they were not tuned for these runs. Test "
            "films were scored once per run, after its last update. Seconds in one thread, "
            "without the frozen blocks.",
        ],
        "runs": results,
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """Make all runs; a quick one learns from 32 reviews."""
    if quick:
        return table(list(runs((Setting(32, 1, 0),), held_out=40)))
    return table(list(runs(SETTINGS)))


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["fine_tuning", *sys.argv[1:]]))
