"""What this machine's device can do: arithmetic, memory, attention, a training step.

python bench/run.py device [--quick]

The result goes to device-cpu.json, device-cuda.json or device-mps.json, after the device that
`utils.get_device()` chooses; chapter 7 shows it beside the reader's own figures.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from bench.run import cores
from bench.timing import figures
from utils import attention, get_device
from utils import measure as honest
from utils.layers import TransformerBlock

DTYPES = (torch.float32, torch.bfloat16)


def sizes(kind: str, quick: bool) -> dict[str, int]:
    """Return sizes that keep a device busy for some seconds; tiny ones if `quick`."""
    if quick:
        return {"matrix": 64, "copy": 2**16, "T": 32, "C": 32, "H": 2, "L": 1, "B": 2, "repeats": 2}
    if kind == "cpu":
        return {
            "matrix": 1024, "copy": 2**24, "T": 256, "C": 128, "H": 4, "L": 4, "B": 8, "repeats": 5
        }  # fmt: skip
    return {
        "matrix": 4096, "copy": 2**28, "T": 1024, "C": 1024, "H": 16, "L": 12, "B": 16,
        "repeats": 20,
    }  # fmt: skip


def block_flops(d_model: int, seq_len: int) -> int:
    """Count the matrix products of one block's forward pass for one sequence (chapter 7)."""
    return 24 * seq_len * d_model**2 + 4 * seq_len**2 * d_model


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor, dtype: torch.dtype
) -> None:
    """Forward, backward, and a step of AdamW; what is not float32 runs under autocast."""
    with torch.autocast(batch.device.type, dtype=dtype, enabled=dtype is not torch.float32):
        loss = model(batch).float().pow(2).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def measure(quick: bool = False) -> dict[str, Any]:
    """Measure the device, with all of its threads."""
    device, threads = get_device(), torch.get_num_threads()
    torch.manual_seed(0)
    if device.type == "cpu":
        torch.set_num_threads(cores())
    used = torch.get_num_threads()
    try:
        rows, notes = _measure(device, sizes(device.type, quick), quick=quick)
    finally:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "name": f"device-{device.type}",
        "machine": {"threads": str(used)},
        "title": f"One device: {name}",
        "columns": ["what", "unit", "float32", "bfloat16"],
        "rows": rows,
        "notes": notes,
    }


def _measure(
    device: torch.device, size: dict[str, int], *, quick: bool
) -> tuple[list[list[str]], list[str]]:
    repeats = size["repeats"]

    def seconds(call: Callable[[], Any]) -> float:
        return honest.time_call(call, repeats, warmup=2, device=device).median

    rows, peaks = [], []
    for dtype in DTYPES:
        speeds = []
        for n in (size["matrix"] // 2, size["matrix"]):
            square = torch.randn(n, n, device=device, dtype=dtype)
            timing = honest.time_call(lambda a=square: a @ a, repeats, device=device)
            speeds.append(honest.matmul_cost(n, n, n)[0] / min(timing.seconds))
        peaks.append(max(speeds))
    n = size["matrix"]
    sizes_tried = f"{n // 2} and {n}"
    rows.append([f"product of matrices of size {sizes_tried}, best", "GFLOP/s", *_giga(peaks)])

    speeds = []
    for dtype in DTYPES:
        source = torch.randn(size["copy"], device=device, dtype=dtype)
        target = torch.empty_like(source)
        traffic = 2 * source.numel() * source.element_size()
        speeds.append(traffic / seconds(lambda a=source, b=target: b.copy_(a)))
    rows.append(["copy, read and write", "GB/s", *_giga(speeds)])

    for name, function in (
        ("attention by hand", lambda q, k, v: attention.torch_attention(q, k, v)[0]),
        ("attention, fused kernel", F.scaled_dot_product_attention),
    ):
        times = []
        for dtype in DTYPES:
            shape = (size["B"], size["H"], size["T"], size["C"] // size["H"])
            tensors = [torch.randn(shape, device=device, dtype=dtype) for _ in range(3)]
            times.append(seconds(lambda f=function, t=tensors: f(*t)))
        rows.append([f"{name}, forward", "ms", *(figures(1e3 * t) for t in times)])

    model = nn.Sequential(*[TransformerBlock(size["C"], size["H"]) for _ in range(size["L"])])
    model = model.to(device)
    batch = torch.randn(size["B"], size["T"], size["C"], device=device)
    flops = 3 * size["L"] * size["B"] * block_flops(size["C"], size["T"])
    tokens, notes = size["B"] * size["T"], []
    ways = {"plain": lambda m: m, "compiled": torch.compile}
    if quick:
        del ways["compiled"]  # compiling takes a while at any size
    for name, prepare in ways.items():
        speed, used = [], []
        for dtype in DTYPES:
            trained = copy.deepcopy(model)
            optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4)
            step_of = prepare(trained)
            try:
                step = seconds(
                    lambda m=step_of, o=optimizer, d=dtype: training_step(m, o, batch, d)
                )
            except Exception as error:  # no compiler on this machine
                notes.append(f"The {name} training step did not run: {type(error).__name__}.")
                break
            speed.append(figures(tokens / step))
            used.append(f"{flops / step / max(peaks):.0%}")
        else:
            rows.append([f"training step, {name}", "tokens/s", *speed])
            rows.append([f"training step, {name}", "MFU", *used])
    notes.append(
        f"Medians of {repeats} runs after 2 that do not count, the device waited for. The training "
        f"step is forward, backward and AdamW for {size['L']} blocks of width {size['C']} with "
        f"{size['H']} heads, {size['B']} sequences of {size['T']}; bfloat16 there is autocast. MFU "
        "is the share of the first row's highest speed that goes into the model's own matrix "
        "products."
    )
    return rows, notes


def _giga(values: list[float]) -> list[str]:
    return [figures(value / 1e9) for value in values]


if __name__ == "__main__":
    from bench import run

    sys.exit(run.main(["device", *sys.argv[1:]]))
