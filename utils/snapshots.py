"""Saving a run so that nothing can spoil it: a crash, a full disk, a stranger's file.

A snapshot is one safetensors file: the tensors as they are, everything else as JSON in its
header. Reading one runs no code (a pickle would), and a checksum tells a damaged one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from utils.arguments import as_path, check_entries, check_model

FORMAT = "language-models-from-first-principles snapshot 1"


class SnapshotError(ValueError):
    """A file is not a snapshot, is damaged, or is of another model."""


def save_snapshot(path: str | os.PathLike[str], state: Any) -> None:
    """Write a snapshot so that `path` always holds a whole one: the old or the new.

    The file is written beside its place under another name, forced to the disk, and only then
    renamed, which the file system does in one go. A process killed in between leaves the old
    snapshot and a `.tmp` file, which the next save overwrites.

    Parameters
    ----------
    path : str or path
        Ends in `.safetensors` by custom. Its folder is made if need be.
    state : nested dict, list or tuple
        Of tensors, numbers, strings, booleans and None; the keys of a dict are strings or
        integers. Tensors that share memory are written as often as they occur.

    Raises
    ------
    TypeError
        If `state` holds anything else.
    OSError
        If the file cannot be written; what was there before is still there.
    """
    path = as_path("path", path)
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(state, "state", tensors))
    metadata = {"format": FORMAT, "state": text, "checksum": _checksum(text, tensors)}
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not the library's save_file: it writes to a file of a random name first, and a process
        # that is killed at that moment would leave one more of them each time.
        temporary.write_bytes(to_bytes(tensors, metadata=metadata))
        _to_disk(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        megabytes = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
        raise OSError(
            f"the snapshot {path} ({megabytes:.1f} MB) could not be written: {error}. Look for a "
            "full disk or a folder that you may not write to; an earlier snapshot is untouched"
        ) from error
    finally:
        _remove(temporary)
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network drives cannot
            _to_disk(path.parent)  # the new name itself must survive a power cut


def load_snapshot(path: str | os.PathLike[str]) -> Any:
    """Read what `save_snapshot` wrote, with all tensors on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SnapshotError
        If the file is cut short, altered, or not a snapshot.
    """
    path = as_path("path", path)
    if not path.exists():
        raise FileNotFoundError(f"there is no snapshot at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            # Copies, because the originals are a view of the file, which is to be replaced.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise SnapshotError(
            f"{path} is no safetensors file, or is cut short or damaged ({error}): delete it "
            "and start again, or take a copy that is whole"
        ) from error
    if metadata.get("format") != FORMAT:
        raise SnapshotError(
            f"{path} is a safetensors file, but not one that save_snapshot of this course wrote"
        )
    text = metadata.get("state", "")
    if metadata.get("checksum") != _checksum(text, tensors):
        raise SnapshotError(
            f"{path} is damaged: its content does not match its checksum. Delete it and start "
            "again, or take a copy that is whole"
        )
    try:
        return _unpack(json.loads(text), tensors)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SnapshotError(f"{path} is damaged: its state cannot be read ({error!r})") from error


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Put the weights of a snapshot that `utils.training.train` wrote into a model.

    Parameters
    ----------
    model : torch.nn.Module
        Of the same build; changed in place.
    path : str or path
        Such as "runs/gpt/best.safetensors".

    Returns
    -------
    dict
        The rest of the snapshot: for a best one "step" and "loss".

    Raises
    ------
    FileNotFoundError, SnapshotError
        As `load_snapshot`, and if the weights are of another model; it is then unchanged.
    """
    check_model("model", model)
    state = load_snapshot(path)
    if not isinstance(state, dict) or "model" not in state:
        raise SnapshotError(f"{path} holds no weights of a model")
    check_fits(model, state["model"], path)
    model.load_state_dict(state.pop("model"))
    return state


def check_fits(model: nn.Module, weights: dict[str, Tensor], path: Any) -> None:
    """Raise SnapshotError unless the names and shapes of `weights` are those of the model."""
    check_model("model", model)
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise SnapshotError(f"{path} holds no weights of a model: a dict from names to tensors")
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise SnapshotError(
                f"{path} is of another model: {name} has shape {given.get(name, 'nothing')} there "
                f"and {wanted.get(name, 'nothing')} here. Build the model as it was then, or "
                "use another place"
            )


def rng_state() -> dict[str, Any]:
    """Return where Python's, numpy's and torch's global random numbers have got to."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - libraries draw from it
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Go back to what `rng_state` returned; devices that are not here are passed over."""
    check_entries("state", state, ("python", "numpy", "torch", "cuda", "mps"))
    try:
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])  # noqa: NPY002
        torch.set_rng_state(state["torch"])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"state is not what rng_state returned: {error}") from None
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of `value` into `tensors` and return the rest in a form that JSON keeps."""
    if isinstance(value, Tensor):
        # A copy: safetensors refuses tensors that share memory, as tied embeddings do.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        if len({str(key) for key in value}) < len(value):
            raise TypeError(f"{name} has two keys that read the same: {list(value)}")
        if wrong := [key for key in value if type(key) not in (str, int)]:
            raise TypeError(f"keys must be strings or integers, not {wrong[0]!r} in {name}")
        return {"dict": [[k, _pack(v, f"{name}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{name} is a {type(value).__name__}; a snapshot holds tensors, numbers, strings, None, "
        "and dicts, lists and tuples of them"
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until the file or folder is on the disk, not merely in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    # Where the folder is not ours, the error that matters is on its way already.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
