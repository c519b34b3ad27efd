"""The training loop: what it computes, and what it survives."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import optim, seed_everything, training
from utils.batches import ExampleBatches, TextBatches, text_windows
from utils.evaluation import mean_loss
from utils.schedules import warmup_cosine
from utils.snapshots import SnapshotError, load_snapshot, load_weights
from utils.train import TrainingDiverged, train

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 11
IDS = np.random.default_rng(0).integers(VOCABULARY, size=400)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """A second thread only waits for the first where the tensors are this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TinyLM(nn.Module):
    """Embedding, dropout, a layer, and a head tied to the embedding."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):  # (B, T)
        return self.head(torch.tanh(self.layer(self.dropout(self.embedding(ids)))))


def batches(batch_size=4, seed=0):
    return TextBatches(IDS, batch_size, 6, seed)


def loss_with_every_random_number(model, batch):
    """Draw from Python, numpy and torch, so that a lost generator changes the result."""
    scale = 1 + 0.1 * (random.random() + np.random.rand())  # noqa: NPY002
    return training.cross_entropy_loss(model, batch) * scale


def evaluate(model):
    torch.rand(3), random.random()  # an evaluation may draw, and must not change the run
    return mean_loss(model, text_windows(IDS[:50], 4, 6))


def run(steps, folder=None, model=None, **options):
    """Train a fresh model; give back it, the optimiser's state and the history."""
    seed_everything(3)
    model = model or TinyLM()
    optimizer = options.pop("optimizer", torch.optim.AdamW)(optim.decay_groups(model), lr=0.02)
    options = {
        "schedule": lambda step: warmup_cosine(step, 3, 20, 1.0, 0.1),
        "loss_function": loss_with_every_random_number,
        "evaluate": evaluate,
        "eval_every": 4,
        "log": None,
    } | options
    history = train(model, batches(), steps, optimizer=optimizer, checkpoint=folder, **options)
    return model, optimizer, history


def assert_same_run(one, other):
    """Compare weights, optimiser and history to the last bit; seconds differ."""
    (model_a, optimizer_a, a), (model_b, optimizer_b, b) = one, other
    for x, y in zip(model_a.parameters(), model_b.parameters(), strict=True):
        assert torch.equal(x, y)
    states = optimizer_a.state_dict(), optimizer_b.state_dict()
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys() != set()
    for index, state in states[0]["state"].items():
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(states[1]["state"][index][name])
            )
    # The repr of a float gives its every bit, and that of NaN equals itself.
    assert repr(vars(a) | {"seconds": 0}) == repr(vars(b) | {"seconds": 0})


def assert_tidy(folder):
    names = sorted(path.name for path in Path(folder).iterdir())
    assert names in (["last.safetensors"], ["best.safetensors", "last.safetensors"])


# What it computes


def test_it_does_what_a_loop_written_by_hand_does():
    model, _, history = run(20, loss_function=training.cross_entropy_loss, evaluate=None,
                            eval_every=0)  # fmt: skip
    seed_everything(3)
    expected = TinyLM()
    optimizer = torch.optim.AdamW(optim.decay_groups(expected))
    losses, norms = [], []
    for step in range(20):
        inputs, targets = batches()[step]
        loss = F.cross_entropy(expected(inputs).transpose(1, 2), targets)
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(expected.parameters(), 1.0).item())
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * warmup_cosine(step, 3, 20, 1.0, 0.1)
        optimizer.step()
        losses.append(loss.item())
    assert history.losses == pytest.approx(losses, rel=1e-4)
    assert history.grad_norms == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 1.0 > min(norms)  # some were clipped and some were not
    rates = [0.02 * warmup_cosine(step, 3, 20, 1.0, 0.1) for step in range(20)]
    assert history.learning_rates == pytest.approx(rates)
    for x, y in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert (history.steps, history.tokens, history.stopped) == (20, 20 * 4 * 6, "done")
    assert history.tokens_per_second == history.tokens / history.seconds > 0
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("ignored", [0.0, 0.7])
def test_accumulation_gives_the_gradient_of_the_large_batch(ignored):
    """Also where the small batches hold unequal numbers of targets, or none at all."""
    rng = np.random.default_rng(1)
    large = []
    for index in range(5):
        inputs, targets = batches(batch_size=12)[index]
        targets[torch.from_numpy(rng.random(targets.shape) < ignored)] = -100
        targets[4:8] = -100 if ignored else targets[4:8]
        large.append((inputs, targets))
    small = [(x[i : i + 4], y[i : i + 4]) for x, y in large for i in (0, 4, 8)]
    seed_everything(0)
    one, other = TinyLM(dropout=0.0), TinyLM(dropout=0.0)
    other.load_state_dict(one.state_dict())
    a = train(one, large, 5, lr=0.01)
    b = train(other, small, 5, lr=0.01, grad_accumulation=3)
    assert a.losses == pytest.approx(b.losses, rel=1e-5)
    assert a.grad_norms == pytest.approx(b.grad_norms, rel=1e-4)
    assert a.tokens == b.tokens
    for x, y in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_clipping_can_be_turned_off():
    seed_everything(0)
    model, clipped = TinyLM(dropout=0.0), TinyLM(dropout=0.0)
    clipped.load_state_dict(model.state_dict())
    start = [p.detach().clone() for p in model.parameters()]
    (norm,) = train(
        model, batches(), 1, optimizer=optim.SGD(model.parameters(), 1.0), max_grad_norm=None
    ).grad_norms
    train(clipped, batches(), 1, optimizer=optim.SGD(clipped.parameters(), 1.0), max_grad_norm=0.5)

    def moved(model):
        return sum((p - s).square().sum() for p, s in zip(model.parameters(), start, strict=True))

    assert norm > 0.5
    assert moved(model).sqrt().item() == pytest.approx(norm, rel=1e-4)
    assert moved(clipped).sqrt().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, optim.AdamW])
def test_mixed_precision_learns_and_keeps_float32_weights(dtype, kind):
    seen = set()

    def loss_function(model, batch):
        logits = model(batch[0])
        seen.add(logits.dtype)
        return F.cross_entropy(logits.transpose(1, 2).float(), batch[1])

    model, _, history = run(
        12, dtype=dtype, optimizer=kind, loss_function=loss_function, evaluate=None, eval_every=0
    )
    full = run(12, optimizer=kind, loss_function=loss_function, evaluate=None, eval_every=0)[2]
    assert seen == {dtype, torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history.losses == pytest.approx(full.losses, rel=0.05)
    # At its first scales float16 may overflow; a norm of scaled gradients would be 1000s too large.
    assert history.grad_norms[-1] == pytest.approx(full.grad_norms[-1], rel=0.2)
    assert history.losses != full.losses


def test_float16_leaves_out_an_update_that_overflowed_and_goes_on():
    seed_everything(0)
    model = TinyLM()
    before = [p.detach().clone() for p in model.parameters()]

    def loss_function(model, batch):
        loss = training.cross_entropy_loss(model, batch)
        return loss * 300  # times the first scale, 65536, its gradient is beyond float16

    history = train(model, batches(), 1, dtype=torch.float16, loss_function=loss_function)
    assert not np.isfinite(history.grad_norms[0])
    assert all(map(torch.equal, model.parameters(), before))
    history = train(model, batches(), 20, dtype=torch.float16, loss_function=loss_function)
    assert np.isfinite(history.grad_norms[-1])
    assert not all(map(torch.equal, model.parameters(), before))


def test_the_model_is_trained_in_training_mode_and_evaluated_without_gradients():
    modes = []

    def loss_function(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return training.cross_entropy_loss(model, batch)

    def evaluate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return 0.0

    model, optimizer, history = run(2, loss_function=loss_function, evaluate=evaluate, eval_every=1)
    assert modes == [(False, False), (True, True)] * 2 + [(False, False)]
    assert history.eval_steps == [0, 1, 2]
    assert history.best == (0, 0.0)  # the first of equals
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}  # the schedule's is undone


def test_an_evaluation_does_not_change_the_run():
    assert_weights = run(6, evaluate=None, eval_every=0)[0].state_dict()
    for name, tensor in run(6, eval_every=1)[0].state_dict().items():
        assert torch.equal(tensor, assert_weights[name])


def test_batches_may_be_a_list_a_function_or_a_dict_with_labels():
    listed = [batches()[i] for i in range(3)]
    results = []
    for given in (listed, lambda i: listed[i % 3]):
        seed_everything(0)
        results.append(train(TinyLM(), given, 7).losses)
    seed_everything(0)
    results.append(
        train(
            TinyLM(),
            [{"ids": x, "labels": y} for x, y in listed],
            7,
            loss_function=lambda model, batch: training.cross_entropy_loss(
                model, (batch["ids"], batch["labels"])
            ),
        ).losses
    )
    assert results[0] == results[1] == results[2]


def test_only_what_requires_a_gradient_is_trained():
    model = TinyLM()
    model.layer.requires_grad_(False)
    frozen, trained = model.layer.weight.clone(), model.head.weight.clone()
    train(model, batches(), 2)
    assert torch.equal(model.layer.weight, frozen)
    assert not torch.equal(model.head.weight, trained)


# Going on


def loud_loss(model, batch):
    """Overflow in float16 until its scale has come down, which a resumed run must remember."""
    return loss_with_every_random_number(model, batch) * 10


def sgd(groups, lr):
    return torch.optim.SGD(groups, lr=lr, momentum=0.9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": optim.AdamW},
        {"optimizer": sgd},
        {"grad_accumulation": 2},
        {"dtype": torch.float16, "loss_function": loud_loss},
        {"schedule": None, "evaluate": None, "eval_every": 0},
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, options):
    for steps in (4, 8, 13):  # a new model, a new optimiser, other random numbers each time
        resumed = run(steps, tmp_path, **options)
    assert_same_run(run(13, **options), resumed)
    assert_tidy(tmp_path)


KILLS = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from test_training import assert_same_run, assert_tidy, load_snapshot, run
folder, steps, killed, seen = sys.argv[1], 200, 0, []
moments = random.Random(int(sys.argv[2]))
for _ in range(20):
    child = os.fork()
    if child == 0:
        run(steps, folder, checkpoint_every=1)
        os._exit(0)
    time.sleep(moments.uniform(0.02, 0.25))
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    if os.path.exists(folder + "/last.safetensors"):
        seen.append(load_snapshot(folder + "/last.safetensors")["history"]["steps"])
resumed = run(steps, folder, checkpoint_every=1)
assert killed == 20 and seen == sorted(seen) and seen[-1] < steps, (killed, seen)
assert_same_run(run(steps), resumed)
assert_tidy(folder)
best = load_snapshot(folder + "/best.safetensors")
assert (best["step"], best["loss"]) == resumed[2].best
print("killed", killed, "at", seen)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a thing of POSIX")
def test_after_kill_9_at_any_moment_the_run_goes_on_to_the_same_bits(tmp_path):
    """With a snapshot after each update, most of the time is spent in writing them."""
    seed = random.SystemRandom().randrange(10**6)  # other moments each time; told if it fails
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COURSE_PROGRESS": "0"},
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    print(done.stdout)


def test_a_finished_run_is_not_done_again(tmp_path):
    one = run(5, tmp_path)
    written = (tmp_path / "last.safetensors").stat().st_mtime_ns
    assert_same_run(one, run(5, tmp_path, loss_function=lambda *_: pytest.fail("trains again")))
    assert (tmp_path / "last.safetensors").stat().st_mtime_ns == written


def test_without_resume_the_run_starts_again(tmp_path):
    run(5, tmp_path)
    again = run(3, tmp_path, resume=False)
    assert again[2].steps == 3
    assert_same_run(again, run(3))


def test_the_best_weights_are_kept(tmp_path):
    """The evaluation is made to be lowest after update 4, and NaN after update 6."""
    weights = {}

    def evaluate(model):
        step = 2 * len(weights)
        weights[step] = {k: v.clone() for k, v in model.state_dict().items()}
        return float("nan") if step == 6 else 1 + abs(step - 4)

    lines = []
    history = run(8, tmp_path, evaluate=evaluate, eval_every=2, log=lines.append)[2]
    assert history.best == (4, 1.0)
    assert history.eval_steps == [0, 2, 4, 6, 8]
    model = TinyLM()
    assert load_weights(model, tmp_path / "best.safetensors") == {"step": 4, "loss": 1.0}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[4][name])
        assert not torch.equal(tensor, weights[8][name]) or name == "layer.bias"
    assert ["best so far" in line for line in lines] == [True, True, True, False, False]
    load_weights(model, tmp_path / "last.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[8][name])


# Being stopped


@pytest.mark.parametrize("where", ["loss", "evaluate", "batches", "schedule", "count"])
def test_an_interrupt_from_within_abandons_the_step_and_the_run_can_go_on(tmp_path, where):
    def stop_at(name, function, call):
        calls = iter(range(1000))

        def wrapped(*args):
            result = function(*args)  # the random numbers are drawn before the interrupt
            if where == name and next(calls) == call:
                raise KeyboardInterrupt
            return result

        return wrapped

    lines = []
    given = {
        "loss_function": stop_at("loss", loss_with_every_random_number, 15),  # within a step
        "evaluate": stop_at("evaluate", evaluate, 2),  # after step 8
        "schedule": stop_at("schedule", lambda step: warmup_cosine(step, 3, 20, 1.0, 0.1), 7),
        "count_targets": stop_at("count", training.count_targets, 15),
        "log": lines.append,
        "grad_accumulation": 2,
    }

    class Interrupted(TextBatches):
        __getitem__ = stop_at("batches", TextBatches.__getitem__, 15)

    options = {"grad_accumulation": 2}
    seed_everything(3)
    model = TinyLM()
    optimizer = torch.optim.AdamW(optim.decay_groups(model), lr=0.02)
    history = train(model, Interrupted(IDS, 4, 6), 13, optimizer=optimizer, eval_every=4,
                    checkpoint=tmp_path, **given)  # fmt: skip
    assert history.stopped == "interrupted"
    assert history.steps == (8 if where == "evaluate" else 7)
    assert lines[-1].startswith(f"Interrupted after step {history.steps} of 13: saved in")
    assert_same_run(run(13, **options), run(13, tmp_path, **options))
    assert_tidy(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself are a thing of POSIX")
def test_ctrl_c_ends_the_run_after_the_update_in_hand(tmp_path):
    def loss_function(model, batch, calls=iter(range(100))):  # noqa: B008
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return loss_with_every_random_number(model, batch)

    handler = signal.getsignal(signal.SIGINT)
    history = run(13, tmp_path, loss_function=loss_function)[2]
    assert (history.steps, history.stopped) == (6, "interrupted")
    assert signal.getsignal(signal.SIGINT) is handler
    assert_same_run(run(13), run(13, tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself are a thing of POSIX")
@pytest.mark.parametrize("where", ["loss_function", "evaluate"])
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_checkpoint(tmp_path, where):
    def twice(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    run(3, tmp_path)
    written = (tmp_path / "last.safetensors").read_bytes()
    handler = signal.getsignal(signal.SIGINT)
    model = TinyLM()
    with pytest.raises(KeyboardInterrupt):
        run(4, tmp_path, model=model, **{where: twice})
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "last.safetensors").read_bytes() == written
    assert not model.training
    assert_tidy(tmp_path)


def test_it_runs_in_another_thread_where_ctrl_c_never_comes():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(2)[2].stopped))
    thread.start()
    thread.join()
    assert results == ["done"]


def test_an_interrupt_without_checkpoint_says_that_nothing_is_saved():
    lines = []

    def stop(model, batch):
        raise KeyboardInterrupt

    history = train(TinyLM(), batches(), 3, loss_function=stop, log=lines.append)
    assert (history.steps, history.stopped) == (0, "interrupted")
    assert lines == ["Interrupted after step 0 of 3: not saved"]


# Going wrong


@pytest.mark.parametrize("fault", ["loss is nan", "loss is inf", "length nan", "length inf"])
def test_a_loss_or_gradient_that_is_no_number_stops_the_run_with_advice(tmp_path, fault):
    what, value = fault.split()[0], float(fault.split()[-1])
    calls = iter(range(100))

    def spoil(number):
        return number * value if next(calls) >= 5 else number

    def loss_function(model, batch):
        loss = training.cross_entropy_loss(model, batch)
        return spoil(loss) if what == "loss" else loss

    model = TinyLM()
    if what == "length":
        model.layer.bias.register_hook(lambda gradient: spoil(gradient.abs() + 1))
    with pytest.raises(TrainingDiverged) as caught:
        run(13, tmp_path, model=model, loss_function=loss_function, evaluate=None, eval_every=0,
            checkpoint_every=2)  # fmt: skip
    message, history = str(caught.value), caught.value.history
    assert history.steps == 5
    assert "diverged at step 5" in message
    assert f"{what if what == 'length' else 'loss is'} {value}" in message
    assert f"{history.losses[-1]:.4g}" in message
    assert f"{history.grad_norms[-1]:.3g}" in message
    assert f"{0.02 * warmup_cosine(5, 3, 20, 1.0, 0.1):.3g}" in message
    assert "third of the learning rate" in message
    assert "checkpoint of step 4" in message
    assert "all finite" in message
    assert all(p.isfinite().all() for p in model.parameters())
    assert load_snapshot(tmp_path / "last.safetensors")["history"]["steps"] == 4
    assert not model.training


def test_weights_that_were_bad_before_are_named():
    model = TinyLM()
    with torch.no_grad():
        model.layer.bias[0] = float("nan")
    with pytest.raises(TrainingDiverged, match=r"not finite in layer\.bias"):
        train(model, batches(), 1)


def test_float16_gives_up_when_no_scale_is_small_enough():
    with pytest.raises(TrainingDiverged, match=r"gradient's length (inf|nan)"):
        train(TinyLM(), batches(), 60, dtype=torch.float16,
              loss_function=lambda m, b: training.cross_entropy_loss(m, b) * 1e30)  # fmt: skip


def test_float16_does_not_put_up_with_a_loss_that_is_no_number():
    with pytest.raises(TrainingDiverged, match="at step 0: the loss is nan"):
        train(TinyLM(), batches(), 60, dtype=torch.float16,
              loss_function=lambda m, b: training.cross_entropy_loss(m, b) * np.nan)  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "foreign", "best", "other model"])
def test_a_checkpoint_that_cannot_be_resumed_is_refused_and_changes_nothing(tmp_path, damage):
    run(3, tmp_path)
    last = tmp_path / "last.safetensors"
    model = nn.Sequential(nn.Embedding(VOCABULARY, VOCABULARY)) if "model" in damage else TinyLM()
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-5])
    elif damage == "foreign":
        torch.save({"model": 1}, last)
    elif damage == "best":
        (tmp_path / "best.safetensors").replace(last)
    written = last.read_bytes()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    message = {"best": "no run that could be resumed", "other model": "of another model"}
    with pytest.raises(SnapshotError, match=message.get(damage, "no safetensors file")):
        run(5, tmp_path, model=model)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert last.read_bytes() == written


def test_other_settings_are_refused(tmp_path):
    run(3, tmp_path)
    with pytest.raises(ValueError, match="grad_accumulation 1, but this one has 2"):
        run(5, tmp_path, grad_accumulation=2)
    with pytest.raises(ValueError, match=r"torch\.optim\.adamw\.AdamW, but .* utils\.optim\.AdamW"):
        run(5, tmp_path, optimizer=optim.AdamW)
    model = TinyLM()
    optimizer = torch.optim.AdamW(optim.decay_groups(model))
    for other in (batches(seed=1), batches(batch_size=5), TextBatches(IDS[::-1], 4, 6)):
        with pytest.raises(ValueError, match=r"batches .* use another folder, or resume=False"):
            train(model, other, 5, optimizer=optimizer, checkpoint=tmp_path)


def test_an_unwritable_place_is_told_before_the_first_update(tmp_path):
    (tmp_path / "file").write_text("")
    steps = []
    with pytest.raises(OSError, match="could not be written"):
        train(TinyLM(), batches(), 3, checkpoint=tmp_path / "file",
              loss_function=lambda model, batch: steps.append(1))  # fmt: skip
    assert steps == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps and grad_accumulation must be at least 1"),
        ({"grad_accumulation": 0}, "at least 1"),
        ({"checkpoint_every": -1}, "at least 0"),
        ({"eval_every": 2}, "eval_every needs evaluate"),
        ({"checkpoint_every": 2}, "checkpoint_every needs checkpoint"),
        ({"max_grad_norm": 0.0}, "max_norm must be above 0"),
        ({"dtype": torch.int8}, "dtype must be torch.float32, bfloat16 or float16"),
        ({"model": nn.Dropout()}, "Dropout has no parameters|empty parameter list"),
        ({"batches": []}, "no batches"),
        ({"batches": iter([1])}, "in which a resumed run could not find its place"),
        ({"batches": [(IDS, torch.full((2, 6), -100))]}, "its batches hold no targets"),
        ({"loss_function": lambda model, batch: model(batch[0])}, "the loss must be one number"),
        ({"optimizer": torch.optim.SGD(TinyLM().parameters()), "lr": 0.1}, "lr is for the default"),
        ({"optimizer": torch.optim.SGD(TinyLM().parameters())}, "none of the model's parameters"),
        ({"batches": [(torch.zeros(2, 6).long(), torch.zeros(2).long())]}, "need targets of shape"),
    ],
)
def test_bad_arguments_are_refused_with_a_way_out(options, message):
    arguments = {"model": TinyLM(), "batches": batches(), "steps": 2} | options
    with pytest.raises((ValueError, TypeError), match=message):
        train(**arguments)


def test_importing_the_module_of_seeds_and_devices_does_not_import_torch():
    code = "import sys, utils.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from utils.train import nonsense  # noqa: F401


# Batches and their mean loss


def test_text_batches_are_windows_of_the_text_and_depend_on_seed_and_number_alone():
    source = batches(batch_size=50)
    inputs, targets = source[7]
    assert inputs.shape == targets.shape == (50, 6)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    text = " ".join(map(str, IDS))
    for row, last in zip(inputs.tolist(), targets[:, -1].tolist(), strict=True):
        assert " ".join(map(str, [*row, last])) in text
    assert torch.equal(batches(batch_size=50)[7][0], inputs)
    assert not torch.equal(source[8][0], inputs)
    assert not torch.equal(batches(batch_size=50, seed=1)[7][0], inputs)
    assert all(torch.equal(TextBatches(torch.from_numpy(IDS.astype(kind)), 50, 6)[7][0], inputs)
               for kind in (np.uint8, np.int32))  # fmt: skip
    shortest = TextBatches(list(range(7)), 3, 6)
    assert torch.equal(shortest[0][1], torch.arange(1, 7).expand(3, 6))


def test_every_window_is_drawn_the_last_one_too():
    drawn = TextBatches(np.arange(9), 1000, 6)[0][0][:, 0]
    assert set(drawn.tolist()) == {0, 1, 2}


def test_example_batches_bring_each_example_once_per_epoch_in_a_new_order():
    examples = list(range(10))
    source = ExampleBatches(examples, 4, lambda chosen, rng: (chosen, rng.random()), seed=2)
    assert source.per_epoch == 3
    epochs = [[source[3 * e + i] for i in range(3)] for e in range(3)]
    orders = [[example for chosen, _ in epoch for example in chosen] for epoch in epochs]
    assert all(sorted(order) == examples for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert len({draw for epoch in epochs for _, draw in epoch}) == 9
    assert source[5] == epochs[1][2]


@pytest.mark.parametrize("length", [2, 6, 7, 8, 43, 49, 50])
def test_text_windows_predict_every_token_but_the_first_once(length):
    windows = text_windows(IDS[:length], 4, 6)
    inputs, targets = (torch.cat(part).flatten() for part in zip(*windows, strict=True))
    assert torch.equal(inputs[: length - 1], torch.from_numpy(IDS[: length - 1]))
    assert torch.equal(targets[: length - 1], torch.from_numpy(IDS[1:length]))
    assert (targets[length - 1 :] == -100).all()
    assert len(targets) < length - 1 + 6


def test_the_mean_loss_does_not_depend_on_the_size_of_the_batches():
    seed_everything(0)
    model = TinyLM()
    results = [mean_loss(model, text_windows(IDS[:100], size, 6)) for size in (1, 3, 100)]
    assert results == pytest.approx([results[0]] * 3, rel=1e-5)
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(IDS[:99]))
    exact = F.cross_entropy(logits, torch.from_numpy(IDS[1:100])).item()
    assert results[0] == pytest.approx(exact, rel=1e-5)
    assert mean_loss(model, batches(), count=2) > 0
    with pytest.raises(ValueError, match="has no end"):
        mean_loss(model, batches())
    with pytest.raises(ValueError, match="no targets"):
        mean_loss(model, [])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TextBatches(np.zeros((3, 3), int), 1, 1), ValueError, "one sequence"),
        (lambda: TextBatches([0.5] * 9, 1, 2), TypeError, "must be integers"),
        (lambda: TextBatches([1, 2, 3], 1, 3), ValueError, "need 4 ids, but there are 3"),
        (lambda: TextBatches([1, 2, 3], 0, 2), ValueError, "batch_size must be at least 1, not 0"),
        (lambda: text_windows([1], 1, 1), ValueError, "need 2 ids"),
        (lambda: text_windows([1, 2], 1, 0), ValueError, "at least 1"),
        (lambda: ExampleBatches([], 2, list), ValueError, "at least one example"),
        (lambda: batches()[-1], IndexError, "no batch -1"),
    ],
)
def test_bad_batches_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
