"""Run the measurements, print their tables, and keep the results for the website.

    python bench/run.py                       all of them (make bench)
    python bench/run.py attention ngrams      only these
    python bench/run.py --quick               tiny sizes, to see that they run; keeps nothing

Results go to bench/results/NAME.json, which the next `make book` shows under Measurements.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# This folder has a tokenizers.py: were the folder on the path, it would hide the library's.
sys.path[:] = [str(ROOT), *(each for each in sys.path if Path(each).resolve() != ROOT / "bench")]

RESULTS = ROOT / "bench" / "results"
NOT_MEASUREMENTS = {"__init__", "run", "timing"}
BUSY = 0.5  # load per core from which on the notes say that the machine was busy


def names() -> list[str]:
    """Return the names of all measurements."""
    found = {path.stem for path in (ROOT / "bench").glob("*.py")}
    return sorted(found - NOT_MEASUREMENTS)


def problem_with(result: Any) -> str | None:
    """Say what is wrong with what `measure` returned, or None."""
    if not isinstance(result, dict):
        return f"measure should return a dict, not {type(result).__name__}"
    missing = {"title", "columns", "rows", "notes"} - set(result)
    if missing:
        return f"its result lacks {sorted(missing)}"
    columns, rows, notes = result["columns"], result["rows"], result["notes"]
    problems = [
        f"a row has {len(row)} entries for {len(columns)} columns: {row}"
        for row in rows
        if len(row) != len(columns)
    ]
    problems += [
        f"a row holds {value!r}, which is neither text nor a number"
        for row in rows
        for value in row
        if not isinstance(value, str | int | float)
    ]
    if not rows:
        problems.append("its table has no rows")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        problems.append("notes should be a list of sentences")
    return problems[0] if problems else None


def machine() -> dict[str, str]:
    """Describe what the figures depend on, and nothing that names the machine."""
    import numpy as np
    import torch

    return {
        "processor": processor(),
        "cores": str(cores()),
        "threads": str(torch.get_num_threads()),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the processor's model, as far as the system says."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def load_per_core() -> float:
    """Return how many processes want a core, per core, over the last minute; 0 if unknown."""
    return os.getloadavg()[0] / cores() if hasattr(os, "getloadavg") else 0.0


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """Lay a table out for the terminal."""
    cells = [[str(value) for value in row] for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["  ".join(v.rjust(w) for v, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def run(name: str, *, quick: bool, command: str) -> dict[str, Any]:
    """Run one measurement and return it with what the website wants to know.

    Raises
    ------
    ValueError
        If its result is not a table.
    """
    load = load_per_core()
    result = importlib.import_module(f"bench.{name}").measure(quick=quick)
    problem = problem_with(result)
    if problem:
        raise ValueError(f"bench/{name}.py: {problem}")
    notes = list(result["notes"])
    if load > BUSY:
        notes.append(
            f"The machine was busy: {load:.1f} processes per core wanted to run when this started. "
            "Trust the ratios more than the times."
        )
    return result | {
        "notes": notes,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine() | result.get("machine", {}),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"default: all, {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and keep nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: bench/results")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        print(
            f"There is no measurement {unknown[0]!r}: choose {', '.join(names())}", file=sys.stderr
        )
        return 2
    command = " ".join(["python bench/run.py", *options.names]) if options.names else "make bench"
    failed = []
    for name in options.names or names():
        start = time.perf_counter()
        try:
            result = run(name, quick=options.quick, command=command)
        except Exception as error:  # one that fails must not keep the others from running
            print(f"{name} stopped: {type(error).__name__}: {error}\n", file=sys.stderr)
            failed.append(name)
            continue
        print(f"{result['title']}\n\n{table(result['columns'], result['rows'])}\n")
        print("\n".join(result["notes"]) + f"\n({time.perf_counter() - start:.0f} s)\n", flush=True)
        if not options.quick:
            options.output.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
            file = options.output / f"{result.get('name', name)}.json"
            file.write_text(text, encoding="utf-8")
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
