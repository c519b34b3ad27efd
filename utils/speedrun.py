"""Chapter 13's recipes, and how to train by one; the model is in `utils.speedrun_model`.

`Recipe()` is nanoGPT's published recipe for a CPU (https://github.com/karpathy/nanoGPT, README and
config/train_shakespeare_char.py); `dataclasses.replace` makes another one of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.arguments import (
    as_device,
    as_ids,
    as_list,
    as_number,
    as_whole_number,
    check_choice,
    check_function,
    check_sizes,
    check_type,
)
from utils.batches import TextBatches, text_windows
from utils.evaluation import mean_loss
from utils.history import History
from utils.muon import LazyAdam, Muon, Together
from utils.schedules import trapezoid, warmup_cosine
from utils.speedrun_model import MULTIPLIERS, SpeedrunGPT, ngram_rows, rotate, rotation_tables
from utils.train import seed_everything
from utils.training import train

__all__ = [
    "BASELINE",
    "BEST",
    "CHANGES",
    "FINAL",
    "RECIPES",
    "TUNING",
    "UNDONE",
    "Plays",
    "Recipe",
    "SpeedrunGPT",
    "ladder",
    "loss_on",
    "make_optimizer",
    "ngram_rows",
    "plays",
    "rotate",
    "rotation_tables",
    "run",
    "schedule_of",
    "trapezoid",
]

CHOICES = {
    "positions": ("learned", "rope"),
    "norm": ("layer", "rms"),
    "activation": ("gelu", "relu2"),
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "trapezoid"),
}


@dataclass(frozen=True)
class Recipe:
    """All that a run depends on besides its seed; the defaults are nanoGPT's on a CPU.

    Parameters
    ----------
    updates, batch_size, context_length : int
        Every update reads `batch_size` windows of `context_length` tokens.
    num_layers, num_heads, d_model : int
    d_hidden : int, optional
        The width of the feed-forward network, by default 4 C.
    positions, norm, activation : str
        See `CHOICES`.
    qk_norm : bool
        Whether queries and keys are brought to the same length before they meet.
    zero_init : bool
        Whether what writes to the residual stream, and an untied output layer, starts as zero.
    tied : bool
        Whether the output layer is the embedding matrix.
    ngrams : tuple of int
        Besides a token's own embedding, add those of the n-grams that end in it, for these n.
    ngram_rows : int
        Rows of an n-gram's table; where there are more n-grams, they share rows (by a hash).
    lazy_tables : bool
        Whether the n-grams' tables have an optimiser of their own that visits only the rows in use.
    softcap : float
        Keep logits between -softcap and softcap by a tanh; 0 leaves them as they are.
    optimizer : str
        "muon" trains the matrices inside the blocks with Muon and the rest with AdamW.
    lr, betas, weight_decay, max_grad_norm
        Of AdamW.
    muon_lr, muon_decay, muon_momentum : float
    muon_steps : int
        Of Newton-Schulz.
    schedule : str
    warmup : int
        Updates of rising rate.
    cooldown : float
        For "trapezoid": the share of updates during which the rate falls.
    floor : float
        The last rate as a share of the peak.

    Raises
    ------
    ValueError
        If a choice is not known or sizes do not fit.
    """

    updates: int = 2000
    batch_size: int = 12
    context_length: int = 64
    num_layers: int = 4
    num_heads: int = 4
    d_model: int = 128
    d_hidden: int | None = None
    positions: str = "learned"
    norm: str = "layer"
    activation: str = "gelu"
    qk_norm: bool = False
    zero_init: bool = False
    tied: bool = True
    ngrams: tuple[int, ...] = ()
    ngram_rows: int = 2**14
    lazy_tables: bool = False
    softcap: float = 0.0
    optimizer: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    max_grad_norm: float | None = 1.0
    muon_lr: float = 0.02
    muon_decay: float = 0.0
    muon_momentum: float = 0.95
    muon_steps: int = 5
    schedule: str = "cosine"
    warmup: int = 100
    cooldown: float = 0.5
    floor: float = 0.1

    def __post_init__(self) -> None:
        sizes = ("updates", "batch_size", "context_length", "num_layers", "num_heads", "d_model")
        check_sizes(self, sizes)
        check_sizes(self, ("ngram_rows", "muon_steps"))
        if self.d_hidden is not None:
            check_sizes(self, ("d_hidden",))
        for name in ("qk_norm", "zero_init", "tied", "lazy_tables"):
            check_type(name, getattr(self, name), bool)
        for name, known in CHOICES.items():
            check_choice(name, getattr(self, name), known)
        for name in ("softcap", "lr", "weight_decay", "muon_lr", "muon_decay", "floor"):
            as_number(name, getattr(self, name), 0, 1e30)
        for name in ("muon_momentum", "cooldown"):
            as_number(name, getattr(self, name), 0, 1)
        if self.max_grad_norm is not None:
            as_number("max_grad_norm", self.max_grad_norm, 0)
        for beta in as_list("betas", self.betas, least=2):
            as_number("betas", beta, 0, 1)
        as_whole_number("warmup", self.warmup)
        ngrams = as_ids("ngrams", self.ngrams)
        if self.d_model % (2 * self.num_heads):
            raise ValueError(
                f"d_model={self.d_model} cannot be split into {self.num_heads} heads of even width"
            )
        if any(n < 2 or n > len(MULTIPLIERS) for n in ngrams):
            raise ValueError(f"ngrams must be from 2 to {len(MULTIPLIERS)}, not {self.ngrams}")
        if len(set(ngrams)) < len(ngrams):
            raise ValueError(f"ngrams must be different lengths, not {self.ngrams}")

    @property
    def tokens(self) -> int:
        """Tokens that a run reads."""
        return self.updates * self.batch_size * self.context_length


def schedule_of(recipe: Recipe) -> Callable[[int], float]:
    """Return the recipe's schedule: a factor on all learning rates for each step."""
    check_type("recipe", recipe, Recipe)
    if recipe.schedule == "cosine":
        return lambda step: warmup_cosine(
            step, recipe.warmup, recipe.updates, peak=1.0, floor=recipe.floor
        )
    cooldown = round(recipe.cooldown * recipe.updates)
    return lambda step: trapezoid(step, recipe.warmup, cooldown, recipe.updates, recipe.floor)


def make_optimizer(recipe: Recipe, model: SpeedrunGPT) -> Any:
    """Return the recipe's optimiser: AdamW for all, or Muon for the matrices inside the blocks."""
    check_type("recipe", recipe, Recipe)
    check_type("model", model, SpeedrunGPT)
    inside = [p for p in model.blocks.parameters() if p.ndim >= 2]
    to_muon = {id(p) for p in inside} if recipe.optimizer == "muon" else set()
    tables = list(model.ngram_embeddings.parameters()) if recipe.lazy_tables else []
    elsewhere = to_muon | {id(p) for p in tables}
    rest = [p for p in model.parameters() if id(p) not in elsewhere]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
    optimizers = [adamw]
    if tables:
        optimizers.append(LazyAdam(tables, lr=recipe.lr, betas=recipe.betas))
    if recipe.optimizer == "adamw":
        return Together(*optimizers) if tables else adamw
    muon = Muon(
        inside,
        lr=recipe.muon_lr,
        momentum=recipe.muon_momentum,
        weight_decay=recipe.muon_decay,
        steps=recipe.muon_steps,
    )
    return Together(*optimizers, muon)


class Plays(NamedTuple):
    """The plays as ids of characters: what to train on, and pieces to evaluate on."""

    train: np.ndarray
    validation: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    vocab_size: int


@cache
def plays(evaluated: int = 16_384) -> Plays:
    """Return the training plays, and the first `evaluated` targets of each held-out play."""
    from utils import data
    from utils.tokenizers import CharTokenizer

    split = data.plays_split()
    characters = CharTokenizer.train("".join(split))
    texts = data.plays()
    validation, test = (
        tuple(np.array(characters.encode(texts[title][: evaluated + 1])) for title in titles)
        for titles in (data.VALIDATION_PLAYS, data.TEST_PLAYS)
    )
    train_ids = np.array(characters.encode(split.train))
    return Plays(train_ids, validation, test, characters.vocab_size)


def loss_on(model: SpeedrunGPT, pieces: tuple[np.ndarray, ...]) -> float:
    """Return the loss in nats per character on pieces of text, cut into windows of the context.

    Every recipe predicts the same characters; how far it may look back is its own choice.
    """
    check_type("model", model, SpeedrunGPT)
    pieces = as_list("pieces", pieces, np.ndarray, list, least=1)
    length = model.recipe.context_length
    batch_size = max(1, 4096 // length)
    return mean_loss(model, [w for ids in pieces for w in text_windows(ids, batch_size, length)])


def run(
    recipe: Recipe,
    texts: Plays,
    seed: int = 0,
    *,
    eval_every: int = 0,
    device: torch.device | str = "cpu",
    log: Callable[[str], None] | None = None,
) -> tuple[SpeedrunGPT, History]:
    """Train by a recipe, and evaluate on the validation text along the way.

    Parameters
    ----------
    recipe : Recipe
    texts : Plays
    seed : int
        Of the initial weights and of the batches.
    eval_every : int
        As for `train`; the model is evaluated before the first and after the last update as well.
    device : torch.device or str
    log : callable, optional

    Returns
    -------
    model : SpeedrunGPT
    history : History
    """
    check_type("recipe", recipe, Recipe)
    check_type("texts", texts, Plays)
    eval_every = as_whole_number("eval_every", eval_every)
    device = as_device("device", device)
    if log is not None:
        check_function(log=log)
    seed_everything(seed)
    model = SpeedrunGPT(recipe, texts.vocab_size).to(device)
    history = train(
        model,
        TextBatches(texts.train, recipe.batch_size, recipe.context_length, seed=seed),
        recipe.updates,
        optimizer=make_optimizer(recipe, model),
        schedule=schedule_of(recipe),
        max_grad_norm=recipe.max_grad_norm,
        evaluate=lambda model: loss_on(model, texts.validation),
        eval_every=eval_every,
        log=log,
    )
    return model, history


BASELINE = Recipe()
SHORT = replace(BASELINE, updates=250, warmup=12)  # an eighth of the baseline's characters

# Chapter 13's ladder: each rung keeps what the rungs before it changed.
CHANGES: dict[str, dict[str, Any]] = {
    "published": {},
    "narrower": {"d_model": 64, "num_heads": 2},
    "learning rate": {"lr": 4e-3},
    "RoPE": {"positions": "rope"},
    "RMSNorm": {"norm": "rms"},
    "QK-norm": {"qk_norm": True},
    "ReLU²": {"activation": "relu2"},
    "untied": {"tied": False},
    "zero-init": {"zero_init": True},
    "Muon": {"optimizer": "muon", "muon_steps": 3, "lr": 1e-2},
    "trapezoid": {"schedule": "trapezoid", "cooldown": 0.6, "floor": 0.0},
    "n-grams": {"ngrams": (2, 3, 4), "ngram_rows": 2**15},
    "half the batch": {"batch_size": 6, "updates": 500, "warmup": 24},
}


def ladder() -> dict[str, Recipe]:
    """Return the recipes of the ladder, by the name of what each changes."""
    recipe, rungs = SHORT, {}
    for name, change in CHANGES.items():
        recipe = rungs[name] = replace(recipe, **change)
    return rungs


# The ladder's changes but for the last, a little wider, for about the time of the baseline.
FINAL = replace(ladder()["n-grams"], d_model=96, num_heads=3, updates=1900, warmup=50)
TUNED = replace(BASELINE, lr=3e-3)

# The rung with all that helped, and what becomes of it if one change is taken back.
BEST = ladder()["n-grams"]
UNDONE: dict[str, dict[str, Any]] = {
    "RoPE": {"positions": "learned"},
    "RMSNorm": {"norm": "layer"},
    "QK-norm": {"qk_norm": False},
    "ReLU²": {"activation": "gelu"},
    "zero-init": {"zero_init": False},
    "Muon": {"optimizer": "adamw", "lr": 4e-3},
}
RECIPES = {
    "baseline": BASELINE,
    "tuned baseline": TUNED,
    **ladder(),
    **{f"without {name}": replace(BEST, **undo) for name, undo in UNDONE.items()},
    "lazy tables": replace(BEST, lazy_tables=True),
    "final": FINAL,
    "final, lazy tables": replace(FINAL, lazy_tables=True),
}
TUNING = {  # by the seed 0 alone
    f"{name}, rate {lr:g}": replace(recipe, lr=lr)
    for name, recipe in (
        ("width 128", replace(BASELINE, updates=200, warmup=10)),
        ("width 64", RECIPES["narrower"]),
    )
    for lr in (1e-3, 2e-3, 4e-3, 8e-3)
}
