"""Measurements of the course's code against well-known libraries, side by side.

Each module but `run` and `timing` defines `measure(quick: bool = False) -> dict` with the keys
title, columns, rows (a list of lists as long as the columns) and notes (a list of sentences). Two
more are optional: machine (what to add to or correct in its description, such as other threads or a
GPU) and name (of the file, where results of several machines are kept side by side).
`bench/run.py` runs them; `python -m bench.attention` runs one from the root of the repository.

Everything runs in one thread, unless the environment says otherwise: the sides compared share
work among threads differently, and one thread is what a busy machine disturbs least.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when numpy and torch are first imported
