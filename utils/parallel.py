"""One model trained by several processes, each with its share of every batch (chapter 19).

    python -m torch.distributed.run --standalone --nproc_per_node=2 \
        -m utils.parallel --output x.json

starts two processes on this machine: on its GPUs where it has them (NCCL), else on its CPU (gloo).
On two machines with 8 GPUs each, run on both

    python -m torch.distributed.run --nnodes=2 --nproc_per_node=8 --rdzv-backend=c10d \
        --rdzv-endpoint=FIRST_MACHINE:29500 -m utils.parallel --output x.json

`train_shares` without a process group is the same training in one process.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    LARGEST_WHOLE,
    as_device,
    as_floats,
    as_list,
    as_positive,
    as_whole_number,
    check_choice,
    check_function,
    check_model,
    check_sizes,
    check_tensor,
    check_type,
)
from utils.gpt import GPT, GPTConfig

STRATEGIES = ("hand", "ddp", "fsdp")


@dataclass(frozen=True)
class Settings:
    """A small run, the same in however many processes it is made."""

    steps: int = 8
    batch_size: int = 8
    context: int = 32
    num_layers: int = 2
    d_model: int = 32
    lr: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_sizes(self, ("steps", "batch_size", "context", "num_layers", "d_model"))
        as_positive("lr", self.lr)
        as_whole_number("seed", self.seed, most=LARGEST_WHOLE)


def share(batch: Tensor, rank: int, world_size: int) -> Tensor:
    """Return a process's rows of a batch: neighbouring ones, equally many for each process.

    Parameters
    ----------
    batch : torch.Tensor, shape (B, ...)
    rank : int
        The process's number, from 0 to `world_size` - 1.
    world_size : int

    Raises
    ------
    TypeError, ValueError
        If the rows cannot be shared out equally, or there is no such rank.
    """
    check_tensor("batch", batch, "(B, ...)", "any")
    as_whole_number("world_size", world_size, 1)
    as_whole_number("rank", rank, -1)
    if not 0 <= rank < world_size:
        raise ValueError(f"ranks run from 0 to {world_size - 1}: there is no rank {rank}")
    if len(batch) % world_size:
        raise ValueError(
            f"{len(batch)} sequences cannot be shared equally by {world_size} processes: the mean "
            "of their gradients would not be the gradient of the mean; choose a multiple"
        )
    return batch.chunk(world_size)[rank]


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over all processes: data parallelism, by hand."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)  # now the sum, in every process
            parameter.grad /= dist.get_world_size()


def prepare(model: nn.Module, strategy: str, device: torch.device) -> nn.Module:
    """Wrap a model for a strategy; `hand` needs no wrapping.

    Parameters
    ----------
    model : torch.nn.Module
        With `blocks`.
    strategy : {"hand", "ddp", "fsdp"}
        DistributedDataParallel averages gradients while the backward pass is still running.
        `fully_shard` besides keeps only a share of weights, gradients and optimiser state.
    device : torch.device

    Raises
    ------
    ValueError
        If there is no such strategy.
    """
    check_model("model", model)
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise ValueError(f"no strategy {strategy!r}: choose {', '.join(STRATEGIES)}")
    if strategy == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model)
    if strategy == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)  # gathered, used and freed one block at a time
        fully_shard(model, mesh=mesh)
    return model


def train_shares(
    batch_of: Callable[[int], tuple[Tensor, Tensor]],
    vocab_size: int,
    settings: Settings,
    strategy: str = "hand",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Train on this process's share of every batch; without a process group, on all of it.

    Parameters
    ----------
    batch_of : callable
        From a step's number to the whole batch, inputs and targets (B, T): the same everywhere.
    vocab_size : int
    settings : Settings
    strategy : {"hand", "ddp", "fsdp"}
        How gradients become the same in all processes.
    device : torch.device or str

    Returns
    -------
    dict
        `losses`, the mean over all processes at each step, before its update; `parameters`, how
        many there are, and `held`, how many of them this process keeps between steps; `checksum`,
        the sum of squares of the trained parameters.

    Raises
    ------
    ValueError
        If a batch cannot be shared equally, or there is no such strategy.
    """
    device = as_device("device", device)
    check_function(batch_of=batch_of)
    check_type("settings", settings, Settings)
    check_choice("strategy", strategy, STRATEGIES)
    vocab_size = as_whole_number("vocab_size", vocab_size, 1)
    together = dist.is_available() and dist.is_initialized()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    torch.manual_seed(settings.seed)  # every process starts from the same weights
    config = GPTConfig(
        vocab_size,
        settings.context,
        num_layers=settings.num_layers,
        num_heads=settings.d_model // 16 or 1,
        d_model=settings.d_model,
    )
    model = GPT(config).to(device)
    total = sum(p.numel() for p in model.parameters())
    if together:
        model = prepare(model, strategy, device)
    held = sum(_local(p).numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)  # after the wrapping
    losses = []
    for step in range(settings.steps):
        batch = as_list("what batch_of returns", batch_of(step), Tensor, least=2)
        inputs, targets = (share(x, rank, world_size).to(device) for x in batch[:2])
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        if together and strategy == "hand":
            average_gradients(model)
        optimizer.step()
        losses.append(_mean_over_processes(loss.detach(), world_size))
    squares = sum(_local(p.detach()).double().square().sum() for p in model.parameters())
    if together and strategy == "fsdp":  # each holds other parameters
        dist.all_reduce(squares)
    return {
        "losses": losses,
        "parameters": total,
        "held": held,
        "checksum": float(squares),
    }


def _local(parameter: Tensor) -> Tensor:
    """Return the part of a parameter that is in this process."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _mean_over_processes(loss: Tensor, world_size: int) -> float:
    if world_size > 1:
        dist.all_reduce(loss)
    return loss.item() / world_size


def play_batches(settings: Settings) -> tuple[Callable[[int], tuple[Tensor, Tensor]], int]:
    """Return batches of the plays' characters, as `train_shares` takes them, and the vocabulary."""
    from utils import data
    from utils.batches import TextBatches
    from utils.tokenizers import CharTokenizer

    text = data.plays_split().validation[:100_000]
    characters = CharTokenizer.train(text)
    batches = TextBatches(
        characters.encode(text), settings.batch_size, settings.context, settings.seed
    )
    return batches.__getitem__, characters.vocab_size


def main(arguments: list[str] | None = None) -> None:
    """Run the strategies asked for in this process, one of those that torchrun has started."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, default=["ddp"])
    parser.add_argument("--output", type=Path, required=True, help="a json file, written by rank 0")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    strategies, output = options.pop("strategy"), options.pop("output")
    settings = Settings(**options)
    if "RANK" not in os.environ:
        parser.error("start this with torchrun; see the text at the top of utils/parallel.py")
    on_gpus = torch.cuda.is_available() and os.environ.get("COURSE_DEVICE", "cuda") != "cpu"
    device = torch.device("cpu")
    if on_gpus:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpus else "gloo")
    try:
        batch_of, vocab_size = play_batches(settings)
        result: dict[str, Any] = {
            strategy: train_shares(batch_of, vocab_size, settings, strategy, device)
            for strategy in strategies
        }
        result["world_size"], result["backend"] = dist.get_world_size(), dist.get_backend()
        if dist.get_rank() == 0:
            output.write_text(json.dumps(result, indent=1), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def launch(
    output: Path, strategies: tuple[str, ...] = ("ddp",), processes: int = 2, **settings: Any
) -> dict[str, Any]:
    """Start `main` in several processes of this machine through torchrun, and return its result.

    Parameters
    ----------
    output : path
        Where to leave the json file.
    strategies : tuple of str
    processes : int
    **settings
        Fields of `Settings`.

    Raises
    ------
    RuntimeError
        If a process fails, with the end of what it said.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--standalone", "--local-addr=127.0.0.1"]  # needs no name server
    command += [f"--nproc_per_node={processes}", "-m", "utils.parallel"]
    command += ["--output", str(output), "--strategy", *strategies]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # or each takes all cores for itself
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"torchrun failed:\n{done.stderr[-3000:]}")
    return json.loads(Path(output).read_text(encoding="utf-8"))


def ring_all_reduce(vectors: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum vectors over a ring in which each process talks to its right neighbour only.

    Patarasuk and Yuan (2009): n - 1 steps in which each passes on a chunk that the next adds to
    its own, then n - 1 steps in which the finished chunks go round.

    Parameters
    ----------
    vectors : array_like, shape (n, d)
        One for each of n processes; n must divide d.

    Returns
    -------
    sums : numpy.ndarray, shape (n, d)
        What each process holds in the end: n equal rows.
    sent : int
        How many numbers each process has sent: 2 (n - 1) d / n.

    Raises
    ------
    ValueError
        If the vectors cannot be cut into n equal chunks.
    """
    held = as_floats("vectors", vectors, some=True).astype(float)
    if held.ndim != 2 or held.shape[1] % len(held):
        raise ValueError(f"vectors: needs n vectors that n divides, shape (n, d), not {held.shape}")
    n, sent = len(held), 0
    chunks = held.reshape(n, n, -1)  # (process, chunk, d / n): a view
    for step in range(2 * (n - 1)):
        ranks = np.arange(n)
        which = (ranks - step) % n if step < n - 1 else (ranks + 1 - (step - n + 1)) % n
        messages = chunks[ranks, which].copy()  # all send at once
        receivers = (ranks + 1) % n
        if step < n - 1:
            chunks[receivers, which] += messages
        else:
            chunks[receivers, which] = messages
        sent += messages.shape[1]
    return held, sent


if __name__ == "__main__":
    main()
