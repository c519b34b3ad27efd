"""How long each chapter takes to run from beginning to end.

Each notebook runs in a fresh kernel, one after the other, and nothing of it is kept. The website
says under a chapter's title what this found: `run_time` in scripts/build_book.py.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def measure(quick: bool = False) -> dict[str, Any]:
    """Run the chapters and return the table.

    Parameters
    ----------
    quick : bool
        Run one short notebook instead, the solutions of chapter 0.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    import notebooks

    chapters = sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))
    if quick:
        chapters = [notebooks.NOTEBOOKS / "solutions" / "00_start_here.ipynb"]
    os.environ.update(notebooks.ENVIRONMENT)
    return {
        "title": "The chapters: time to run from beginning to end",
        "columns": ["chapter", "seconds"],
        "rows": [[path.stem, round(seconds_to_run(path))] for path in chapters],
        "notes": [
            "One run of each notebook, with the data and the weights at hand; a fresh kernel and "
            "the import of the libraries are part of it. Without a GPU."
        ],
    }


def seconds_to_run(path: Path) -> float:
    """Run a notebook in a fresh kernel and return the seconds, by the clock on the wall."""
    import nbformat

    import notebooks

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    start = time.perf_counter()
    notebooks.new_kernel(notebook, path, timeout=900).execute()
    return time.perf_counter() - start
