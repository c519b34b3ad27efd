"""Snapshots: everything comes back bit for bit, and nothing can spoil the one that is there."""

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from utils import snapshots
from utils.snapshots import (
    SnapshotError,
    load_snapshot,
    load_weights,
    rng_state,
    save_snapshot,
    set_rng_state,
)

ROOT = Path(__file__).resolve().parents[1]


def same(a, b):
    """Compare nested values by type and bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


STATE = {
    "numbers": [0.1, 1e-320, -7, 2**70, True, None, "naïve"],
    "betas": (0.9, 0.999),
    0: {"step": torch.tensor(3.0), "empty": torch.empty(0, 4), "nothing": {}, "list": []},
    "half": torch.randn(3, 2).bfloat16(),
    "transposed": torch.arange(6).view(2, 3).T,
    "mask": torch.tensor([True, False]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "double": torch.tensor([torch.pi], dtype=torch.float64),
    "parameter": nn.Parameter(torch.ones(2)),
}


def test_a_nested_state_comes_back_with_its_types_and_every_bit(tmp_path):
    save_snapshot(tmp_path / "new" / "folder" / "a.safetensors", STATE)
    assert same(load_snapshot(tmp_path / "new" / "folder" / "a.safetensors"), STATE)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.safetensors"]


def test_infinity_and_nan_come_back(tmp_path):
    save_snapshot(tmp_path / "a", [float("inf"), torch.tensor([float("nan")]), float("nan")])
    infinity, tensor, nan = load_snapshot(tmp_path / "a")
    assert infinity == float("inf")
    assert tensor.isnan().all()
    assert nan != nan  # noqa: PLR0124


def test_tensors_that_share_memory_can_be_saved(tmp_path):
    weight = torch.randn(4, 3)
    save_snapshot(tmp_path / "a", {"a": weight, "b": weight, "row": weight[1]})
    state = load_snapshot(tmp_path / "a")
    assert torch.equal(state["a"], weight)
    assert torch.equal(state["b"], weight)
    assert torch.equal(state["row"], weight[1])


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path):
    save_snapshot(tmp_path / "a", {"x": torch.ones(1000)})
    state = load_snapshot(tmp_path / "a")
    save_snapshot(tmp_path / "a", {"x": torch.zeros(1000)})
    state["x"] += 1
    assert torch.equal(state["x"], torch.full((1000,), 2.0))
    assert torch.equal(load_snapshot(tmp_path / "a")["x"], torch.zeros(1000))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model": nn.Linear(1, 1)}, "state/model is a Linear"),
        ([1, {2, 3}], "state/1 is a set"),
        ({1.5: 0}, "strings or integers"),
        ({1: 0, "1": 1}, "two keys that read the same"),
    ],
)
def test_what_a_snapshot_cannot_hold_is_named_and_nothing_is_written(tmp_path, state, message):
    with pytest.raises(TypeError, match=message):
        save_snapshot(tmp_path / "a", state)
    assert list(tmp_path.iterdir()) == []


def test_numpy_scalars_are_stored_as_numbers(tmp_path):
    save_snapshot(tmp_path / "a", [np.int64(3), np.float64(0.1), np.float32(0.5)])
    assert same(load_snapshot(tmp_path / "a"), [3, 0.1, 0.5])


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no snapshot at"):
        load_snapshot(tmp_path / "a")


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "a"
    save_snapshot(path, STATE)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 1, 7, 8, 9, len(whole) - 1, *rng.integers(len(whole), size=20).tolist()]:
        path.write_bytes(whole[:length])
        with pytest.raises(SnapshotError, match="cut short"):
            load_snapshot(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(SnapshotError):
        load_snapshot(path)


def test_a_byte_changed_anywhere_is_refused(tmp_path):
    path = tmp_path / "a"
    save_snapshot(path, STATE)
    whole = path.read_bytes()
    padding = {i for i in range(8, len(whole)) if whole[i : i + 1] == b" "}  # of the header's JSON
    rng = np.random.default_rng(0)
    for place in set(rng.integers(len(whole), size=300).tolist()) - padding:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(SnapshotError):
            load_snapshot(path)


def test_foreign_files_are_refused_and_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    (tmp_path / "pickle").write_bytes(pickle.dumps(Trap()))
    torch.save({"model": Trap()}, tmp_path / "torch")
    (tmp_path / "json").write_text(json.dumps({"model": 1}))
    (tmp_path / "folder").mkdir()
    for name in ("pickle", "torch", "json", "folder"):
        with pytest.raises(SnapshotError, match="no safetensors file"):
            load_snapshot(tmp_path / name)
    assert not (tmp_path / "trapped").exists()
    save_file({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(SnapshotError, match="but not one that save_snapshot"):
        load_snapshot(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "text",
    ["", "[", "[" * 50_000, '{"tensor": "x"}', '{"a": 1, "b": 2}', "{}", '{"dict": [1]}',
     '{"dict": [[[], 1]]}', '{"list": 3}'],
)  # fmt: skip
def test_a_made_up_state_with_a_right_checksum_is_refused_cleanly(tmp_path, text):
    metadata = {"format": snapshots.FORMAT, "state": text}
    metadata["checksum"] = snapshots._checksum(text, {"y": torch.ones(1)})
    save_file({"y": torch.ones(1)}, tmp_path / "a", metadata=metadata)
    with pytest.raises(SnapshotError, match="state cannot be read"):
        load_snapshot(tmp_path / "a")


FULL_DISK = """
import resource, signal, sys, torch
from utils.snapshots import save_snapshot
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_snapshot(sys.argv[1], {"x": torch.zeros(100)})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_snapshot(sys.argv[1], {"x": torch.ones(100_000)})
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are a thing of POSIX")
def test_a_disk_that_is_full_is_told_and_leaves_the_earlier_snapshot(tmp_path):
    path = tmp_path / "a.safetensors"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(0.4 MB) could not be written" in done.stdout
    assert "full disk" in done.stdout
    assert torch.equal(load_snapshot(path)["x"], torch.zeros(100))
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(OSError, match=r"could not be written.*may not write to"):
        save_snapshot(tmp_path / "file" / "a.safetensors", {"x": 1})
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="could not be written"):
        save_snapshot(tmp_path / "a", {"x": 1})  # the name is that of a folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["_to_disk", "to_bytes"])
def test_failing_at_any_moment_leaves_the_earlier_snapshot(tmp_path, monkeypatch, error, moment):
    save_snapshot(tmp_path / "a", {"x": 1})
    real = getattr(snapshots, moment)

    def fail(*args, **kwargs):
        real(*args, **kwargs)
        raise error

    monkeypatch.setattr(snapshots, moment, fail)
    with pytest.raises(type(error)):
        save_snapshot(tmp_path / "a", {"x": 2})
    assert load_snapshot(tmp_path / "a") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_old_file_is_replaced_and_never_written_into(tmp_path):
    save_snapshot(tmp_path / "a", {"x": 1})
    (tmp_path / "old").hardlink_to(tmp_path / "a")
    save_snapshot(tmp_path / "a", {"x": 2})
    assert load_snapshot(tmp_path / "old") == {"x": 1}
    assert load_snapshot(tmp_path / "a") == {"x": 2}


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / "a.tmp").write_bytes(b"half a snapshot")
    save_snapshot(tmp_path / "a", {"x": 1})
    assert load_snapshot(tmp_path / "a") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_all_three_random_generators_go_back(tmp_path):
    def draw():
        draws = random.random(), random.gauss(0, 1), np.random.randn()  # noqa: NPY002
        return (*draws, torch.rand(2).tolist(), torch.randn(1).item())

    draw()  # a second Gaussian now waits in Python's and numpy's generators
    save_snapshot(tmp_path / "a", rng_state())
    expected = [draw() for _ in range(3)]
    set_rng_state(load_snapshot(tmp_path / "a"))
    assert [draw() for _ in range(3)] == expected


def test_weights_load_into_a_like_model_and_into_no_other(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    save_snapshot(tmp_path / "a", {"model": model.state_dict(), "step": 7, "loss": 0.5})
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert load_weights(other, tmp_path / "a") == {"step": 7, "loss": 0.5}
    assert same(dict(other.state_dict()), dict(model.state_dict()))

    wider = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(SnapshotError, match=r"0.bias has shape \(4,\) there and \(5,\) here"):
        load_weights(wider, tmp_path / "a")
    assert same(dict(wider.state_dict()), before)
    with pytest.raises(SnapshotError, match=r"1.bias has shape .* there and nothing here"):
        load_weights(nn.Sequential(nn.Linear(3, 4)), tmp_path / "a")
    save_snapshot(tmp_path / "b", {"something": 1})
    with pytest.raises(SnapshotError, match="no weights"):
        load_weights(other, tmp_path / "b")
