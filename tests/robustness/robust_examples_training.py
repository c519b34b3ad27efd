"""Right arguments for what trains, evaluates, searches, saves and draws."""

from __future__ import annotations

import contextlib
import random
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from robust_examples_texts import FOLDER, file
from robust_judge import Example
from robust_tools import (
    B,
    C,
    ChatTokenizer,
    T,
    V,
    array,
    flags,
    gpt,
    ids,
    llama,
    recipe,
    right,
    speedrun_gpt,
    tensor,
    whole,
)
from torch import nn

from utils import beam, instruct, muon, optim, parallel, snapshots, speedrun, training
from utils.batches import ExampleBatches, TextBatches
from utils.evaluation import count_targets, cross_entropy_loss
from utils.history import History

START = torch.ones(B, dtype=torch.int64)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return ids(), ids()


def text_batches() -> TextBatches:
    return TextBatches(whole(40), 2, T)


def stack(examples: list, rng: object = None) -> torch.Tensor:
    return torch.tensor(examples)


def parameters() -> list[nn.Parameter]:
    made = [nn.Parameter(tensor(3, 4)), nn.Parameter(tensor(2, 3))]
    for each in made:
        each.grad = torch.ones_like(each)
    return made


def table() -> nn.Parameter:
    return nn.Parameter(tensor(V, C))


def stepped(kind: type, **options: object) -> optim.Optimizer:
    optimizer = kind(parameters(), **options)
    optimizer.step()
    return optimizer


def together() -> muon.Together:
    return muon.Together(optim.Adam(parameters()), muon.Muon(parameters()))


def prefix_logits(prefix: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    return tensor(B, V)[sources % B]


def started() -> beam.PrefixDecoder:
    decoder = beam.PrefixDecoder(prefix_logits)
    decoder(START)
    return decoder


def decoder() -> beam.PrefixDecoder:
    return beam.PrefixDecoder(prefix_logits)


def last_logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    return cross_entropy_loss(model, (tokens[:, :-1], tokens[:, 1:]))


def chats() -> list[instruct.ChatExample]:
    return [instruct.ChatExample([3, 4, 5], [-100, 4, 5]), instruct.ChatExample([3, 4], [-100, 4])]


def cached_chats() -> list[instruct.CachedChat]:
    return instruct.cache_states(llama(), chats(), 0)


def chat_batch() -> tuple[torch.Tensor, torch.Tensor]:
    return tensor(B, T, C), ids()


def plays() -> speedrun.Plays:
    return speedrun.Plays(whole(60), (whole(20), whole(20)), (whole(20),), V)


def snapshot() -> Path:
    path = file("snapshot.safetensors")
    torch.manual_seed(0)
    snapshots.save_snapshot(path, {"model": nn.Linear(3, 2).state_dict(), "step": 3})
    return path


def history() -> History:
    return History(
        steps=1,
        losses=[2.0],
        learning_rates=[0.1],
        grad_norms=[1.0],
        eval_steps=[0],
        eval_losses=[2.5],
    )


def run(**changes: object) -> training.Run:
    model = gpt()
    arguments = {
        "model": model,
        "batches": text_batches(),
        "steps": 2,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3),
        "schedule": lambda step: 1.0,
        "loss_function": cross_entropy_loss,
        "count_targets": count_targets,
        "grad_accumulation": 1,
        "max_grad_norm": 1.0,
        "dtype": torch.float32,
        "evaluate": lambda model: 1.0,
        "eval_every": 1,
        "folder": FOLDER / "run",
        "save_every": 1,
        "log": lambda text: None,
    }
    return training.Run(**(arguments | changes))


def settings() -> parallel.Settings:
    return parallel.Settings(steps=2, batch_size=2, context=T, num_layers=1, d_model=16)


def small_batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return ids(2, T), ids(2, T)


@cache
def _one_pair_of_axes() -> mpl.axes.Axes:
    return mpl.figure.Figure().subplots()


def axes() -> mpl.axes.Axes:
    """Return axes with nothing in them: always the same ones, for new ones take long."""
    drawn = _one_pair_of_axes()
    for artist in [*drawn.images, *drawn.lines, *drawn.texts]:
        artist.remove()
    return drawn


def figure() -> mpl.figure.Figure:
    plt.close("all")
    return plt.figure(figsize=(1, 1))


@contextlib.contextmanager
def global_randomness_kept():
    """Put the global random numbers back where they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


ANY_MODEL = {("model", "another module"): "any model may be given: what it takes, it says itself"}


def optimizer(**more: object) -> Example:
    return right(
        params=parameters(),
        lr=0.1,
        weight_decay=0.1,
        changes=("params",),
        then=lambda made: made.step(),
        **more,
    )


def gradient_reach() -> Example:
    model = gpt()
    return right(model=model, loss=cross_entropy_loss(model, batch()))


EXAMPLES = {
    # ------------------------------------------------------------------ batches, evaluation
    "batches.TextBatches": lambda: right(
        ids=whole(40), batch_size=2, seq_len=T, seed=1, then=lambda b: b[0]
    ),
    "batches.TextBatches.__getitem__": lambda: right(on=text_batches(), index=3),
    "batches.TextBatches.describe": lambda: right(on=text_batches()),
    "batches.ExampleBatches": lambda: right(
        examples=[[1, 2], [3, 4], [5, 6]],
        batch_size=2,
        collate=stack,
        seed=1,
        then=lambda b: b[0],
        skip_kinds={("examples", "entry"): "what an example is, only collate knows"},
    ),
    "batches.ExampleBatches.__getitem__": lambda: right(
        on=ExampleBatches([[1, 2], [3, 4], [5, 6]], 2, stack), index=3
    ),
    "batches.ExampleBatches.describe": lambda: right(
        on=ExampleBatches([[1, 2], [3, 4], [5, 6]], 2, stack)
    ),
    "batches.text_windows": lambda: right(ids=whole(40), batch_size=2, seq_len=T),
    "batches.batch_getter": lambda: right(batches=[batch()], then=lambda get: get(0)),
    "batches.check_examples": lambda: right(
        name="examples", examples=[[1], [2]], skip={"name": "is part of the message"}
    ),
    "batches.checked_index": lambda: right(index=3),
    "batches.to_device": lambda: right(batch=[ids(), {"x": ids()}, 3], device=torch.device("cpu")),
    "evaluation.cross_entropy_loss": lambda: right(
        model=gpt(), batch=batch(), skip_kinds=ANY_MODEL
    ),
    "evaluation.count_targets": lambda: right(batch=batch()),
    "evaluation.mean_loss": lambda: right(
        model=gpt(),
        batches=[batch(), batch()],
        count=2,
        loss_function=cross_entropy_loss,
        count_targets=count_targets,
        skip_kinds=ANY_MODEL,
    ),
    "evaluation.device_of": lambda: right(model=gpt()),
    # ------------------------------------------------------------------ optimisers
    "optim.Optimizer": lambda: right(params=parameters(), defaults={"lr": 0.1}),
    "optim.Optimizer.zero_grad": lambda: right(on=stepped(optim.Adam)),
    "optim.Optimizer.step": lambda: right(on=stepped(optim.Adam)),
    "optim.Optimizer.state_dict": lambda: right(on=stepped(optim.Adam)),
    "optim.Optimizer.load_state_dict": lambda: right(
        on=optim.Adam(parameters()), saved=stepped(optim.Adam).state_dict()
    ),
    "optim.SGD": lambda: optimizer(momentum=0.9, nesterov=True),
    "optim.Adam": lambda: optimizer(betas=(0.9, 0.99), eps=1e-8),
    "optim.AdamW": lambda: optimizer(betas=(0.9, 0.99), eps=1e-8),
    "optim.decay_groups": lambda: right(model=gpt(), weight_decay=0.1),
    "optim.clip_grad_norm": lambda: right(params=parameters(), max_norm=1.0),
    "muon.Muon": lambda: right(
        params=parameters(),
        lr=0.1,
        momentum=0.9,
        weight_decay=0.1,
        steps=2,
        changes=("params",),
        then=lambda o: o.step(),
    ),
    "muon.LazyAdam": lambda: right(params=[table()], lr=0.1, betas=(0.9, 0.99)),
    "muon.LazyAdam.zero_grad": lambda: right(on=muon.LazyAdam([table()]), set_to_none=True),
    "muon.LazyAdam.step": lambda: right(on=muon.LazyAdam([table()])),
    "muon.Together": lambda: right(
        optimizers=(optim.Adam(parameters()), muon.Muon(parameters())),
        called={"optimizers": "optimiser"},
    ),
    "muon.Together.zero_grad": lambda: right(on=together()),
    "muon.Together.step": lambda: right(on=together()),
    "muon.Together.state_dict": lambda: right(on=together()),
    "muon.Together.load_state_dict": lambda: right(on=together(), saved=together().state_dict()),
    # ------------------------------------------------------------------ training
    "train.seed_everything": lambda: right(seed=3, around=global_randomness_kept),
    "train.get_device": lambda: right(name="cpu"),
    "train.progress": lambda: right(items=[1, 2, 3], desc="counting", total=3, then=list),
    "training.train": lambda: right(
        model=gpt(),
        batches=text_batches(),
        steps=1,
        optimizer=None,
        lr=1e-3,
        schedule=lambda step: 1.0,
        loss_function=cross_entropy_loss,
        count_targets=count_targets,
        grad_accumulation=1,
        max_grad_norm=1.0,
        dtype=torch.float32,
        evaluate=lambda model: 1.0,
        eval_every=1,
        checkpoint=FOLDER / "training",
        checkpoint_every=1,
        resume=False,
        desc="training",
        log=lambda text: None,
        changes=("model",),
        skip_kinds=ANY_MODEL,
        around=global_randomness_kept,
    ),
    "training.Run.update": lambda: right(on=run(), around=global_randomness_kept),
    "training.Run.accumulate_gradients": lambda: right(on=run(), step=0),
    "training.Run.autocast": lambda: right(on=run()),
    "training.Run.may_overflow": lambda: right(on=run()),
    "training.Run.fallback": lambda: right(on=run()),
    "training.Run.evaluation_is_due": lambda: right(on=run()),
    "training.Run.saving_is_due": lambda: right(on=run()),
    "training.Run.make_evaluation": lambda: right(on=run()),
    "training.Run.save": lambda: right(on=run()),
    "training.Run.load": lambda: right(on=run(folder=None, save_every=0)),
    "training.Run.tidy_up": lambda: right(on=run()),
    "history.History.state_dict": lambda: right(on=history()),
    "history.History.load_state_dict": lambda: right(on=History(), state=history().state_dict()),
    "history.diagnosis": lambda: right(
        model=gpt(), history=history(), loss=float("nan"), grad_norm=2.0, rate=0.1
    ),
    "snapshots.save_snapshot": lambda: right(
        path=FOLDER / "saved.safetensors", state={"a": tensor(2), "b": [1, "x", None, (2.5, True)]}
    ),
    "snapshots.load_snapshot": lambda: right(path=snapshot()),
    "snapshots.load_weights": lambda: right(
        model=nn.Linear(3, 2), path=snapshot(), changes=("model",)
    ),
    "snapshots.check_fits": lambda: right(
        model=nn.Linear(3, 2),
        weights=dict(nn.Linear(3, 2).state_dict()),
        path=Path("a"),
        skip={"path": "is part of the message"},
    ),
    "snapshots.rng_state": right,
    "snapshots.set_rng_state": lambda: right(
        state=snapshots.rng_state(), around=global_randomness_kept
    ),
    # ------------------------------------------------------------------ audits
    "audit.mask": lambda: right(attention_mask=flags(), ids=ids(), pad_id=0),
    "audit.overlap": lambda: right(train=["a b", "c"], test=["A  b", "d"]),
    "audit.initial_loss": lambda: right(loss=2.4, vocab_size=V, tolerance=0.5),
    "audit.gradient_reach": gradient_reach,
    "audit.influence": lambda: right(model=gpt(), ids=ids(T), vocab_size=V, skip_kinds=ANY_MODEL),
    "audit.overfit": lambda: right(
        model=gpt(),
        batch=batch(),
        loss_function=cross_entropy_loss,
        steps=2,
        lr=1e-3,
        target=0.1,
        skip_kinds=ANY_MODEL,
    ),
    "audit.noise": lambda: right(
        model=gpt(),
        loss_function=last_logits,
        vocab_size=V,
        shape=(2, 4),
        steps=2,
        lr=1e-3,
        tolerance=0.1,
        skip_kinds=ANY_MODEL,
    ),
    # ------------------------------------------------------------------ generating
    "generate.apply_temperature": lambda: right(logits=tensor(B, V), temperature=0.5),
    "generate.keep_top_k": lambda: right(logits=tensor(B, V), k=3),
    "generate.keep_top_p": lambda: right(logits=tensor(B, V), p=0.5),
    "generate.penalise_repetition": lambda: right(logits=tensor(B, V), ids=ids(), penalty=1.5),
    "generate.next_token_logits": lambda: right(
        logits=tensor(B, V), ids=ids(), temperature=0.5, top_k=3, top_p=0.9, repetition_penalty=1.2
    ),
    "generate.draw": lambda: right(logits=tensor(B, V), generator=torch.Generator()),
    "generate.generate": lambda: right(
        model=gpt(),
        ids=ids(),
        max_new_tokens=2,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        repetition_penalty=1.2,
        seed=1,
        use_cache=True,
        stop_id=2,
        called={"top_p": "p"},
    ),
    "scoring.log_probs": lambda: right(model=gpt(), ids=ids(), skip_kinds=ANY_MODEL),
    "scoring.windows": lambda: right(num_tokens=20, length=6, stride=3),
    "scoring.sliding_log_probs": lambda: right(
        model=gpt(),
        ids=ids(20),
        length=5,
        stride=2,
        batch_size=4,
        device="cpu",
        skip_kinds=ANY_MODEL,
    ),
    "beam.PrefixDecoder": lambda: right(function=prefix_logits, then=lambda d: d(START)),
    "beam.PrefixDecoder.__call__": lambda: right(on=started(), tokens=ids(B)),
    "beam.PrefixDecoder.select": lambda: right(on=started(), rows=torch.tensor([1, 0, 1])),
    "beam.length_penalty": lambda: right(length=5, alpha=0.6),
    "beam.greedy_search": lambda: right(decoder=decoder(), starts=START, max_length=3, stop_id=2),
    "beam.beam_search": lambda: right(
        decoder=decoder(), starts=START, beam_size=2, max_length=3, stop_id=2, alpha=0.6
    ),
    # ------------------------------------------------------------------ instructions
    "instruct.instructions": right,
    "instruct.in_manner": lambda: right(answer="Roger, it is seven. Over.", most_words=25),
    "instruct.encode_chat": lambda: right(
        tokenizer=ChatTokenizer(),
        prompt="Who is there?",
        reply="Roger.",
        system="Answer.",
        train_end=True,
    ),
    "instruct.plain_text": lambda: right(ids=[3, 4, 5], given=1),
    "instruct.collate_chat": lambda: right(examples=chats(), rng=None, skip={"rng": "is not used"}),
    "instruct.cache_states": lambda: right(
        model=llama(), examples=chats(), first_block=1, batch_size=2
    ),
    "instruct.collate_cached": lambda: right(
        examples=cached_chats(), rng=None, skip={"rng": "is not used"}
    ),
    "instruct.upper_loss": lambda: right(model=llama(), batch=chat_batch(), first_block=0),
    "instruct.token_losses": lambda: right(model=llama(), batch=chat_batch(), first_block=0),
    "instruct.replies": lambda: right(
        model=llama(),
        tokenizer=ChatTokenizer(),
        prompts=["Who is there?", "I"],
        max_new_tokens=3,
        system="Answer.",
        temperature=0.5,
        top_p=0.9,
        repetition_penalty=1.2,
        seed=1,
        called={"prompts": "messages"},
    ),
    # ------------------------------------------------------------------ speed and scale
    "speedrun.loss_on": lambda: right(model=speedrun_gpt(), pieces=(whole(20), whole(20))),
    "speedrun.run": lambda: right(
        recipe=recipe(),
        texts=plays(),
        seed=1,
        eval_every=1,
        device="cpu",
        log=lambda text: None,
        around=global_randomness_kept,
    ),
    "parallel.Settings": lambda: right(
        steps=2,
        batch_size=2,
        context=T,
        num_layers=1,
        d_model=16,
        lr=0.1,
        seed=1,
        skip_kinds={("lr", "huge"): "with such a rate a run does diverge"},
        then=lambda s: parallel.train_shares(
            lambda step: (ids(s.batch_size, 1), ids(s.batch_size, 1)), V, s
        ),
        around=global_randomness_kept,
    ),
    "parallel.share": lambda: right(batch=ids(4, T), rank=1, world_size=2),
    "parallel.prepare": lambda: right(model=gpt(), strategy="hand", device=torch.device("cpu")),
    "parallel.train_shares": lambda: right(
        batch_of=small_batches,
        vocab_size=V,
        called={"vocab_size": "model"},
        settings=settings(),
        strategy="hand",
        device="cpu",
        around=global_randomness_kept,
    ),
    # ------------------------------------------------------------------ figures, data
    "plot.use_style": lambda: right(around=mpl.rc_context),
    "plot.show": lambda: right(fig=figure(), alt="A figure that shows nothing at all."),
    "plot.curves": lambda: right(
        ax=axes(),
        x={"a": [1.0, 2], "b": [1.0, 2]},
        lines={"a": [1.0, 2], "b": [3.0, 4]},
        xlabel="step",
        ylabel="loss",
        title="losses",
    ),
    "plot.heatmap": lambda: right(
        ax=axes(),
        matrix=array(2, 3),
        row_labels=["a", "b"],
        column_labels=["a", "b", "c"],
        xlabel="x",
        ylabel="y",
        title="title",
        decimals=1,
        vmin=0.0,
        vmax=1.0,
        colourbar=False,
    ),
}
