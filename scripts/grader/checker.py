"""Checks one notebook: runs the course's checks, has the student's functions run by the worker.

A process of its own for each notebook, started by `check_notebook`. It runs the checks of
`utils.checks`, with their references and their verdicts, and never a line of the student's. To a
check, the student's function is a `Remote`, which sends arguments to the worker and gets plain
data back. So nothing that is printed, patched, forged or overwritten over there can turn a wrong
value into a right one.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from grader import sandbox
from grader.sandbox import HERE, ROOT, Limits, Sandbox, Unavailable
from grader.wire import Codec, Gone, Other, Wire, clean
from utils import checks
from utils.checks.engine import (
    CHANGES_ARGUMENTS,
    Check,
    Result,
    TimeUp,
    WrongAnswer,
    describe_error,
)

MEMORY = 4 * 2**30  # of this process, whatever a worker sends
STARTING = 120.0  # seconds that a worker may take to start on a busy machine


class OutOfTime(BaseException):
    """The notebook's time is up; no `except Exception` on the way is to swallow it."""


class Remote:
    """A student's function, for a check to call."""

    def __init__(self, session: Session, number: int) -> None:
        self.session, self.number = session, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Have the worker call it."""
        return self.session.call(self.number, args, kwargs)


class Session:
    """A worker, and the conversation with it."""

    def __init__(self, sandbox: Sandbox, deadline: float) -> None:
        self.sandbox, self.limits, self.deadline = sandbox, sandbox.limits, deadline
        self.wire = Wire(self.sandbox.connection)
        self.codec = Codec(self.lend, lambda number: Remote(self, number), self.give, self.take)
        self.lent: list[Callable[..., Any]] = []
        self.modules: list[Any] = []
        self.missed_a_name = False
        self.time_limit = 0.0
        try:
            self.wire.receive(self.watcher(STARTING, STARTING))
        except (Gone, TimeUp):
            raise Unavailable(self.sandbox.why_not()) from None

    def lend(self, function: Callable[..., Any]) -> int:
        """Keep a function of the check's that the student's function may call."""
        self.lent.append(function)
        return len(self.lent) - 1

    def give(self, module: Any) -> str:
        """Send a torch module. It goes from here to there, so a pickle does no harm."""
        self.modules.append(module)
        return base64.b64encode(pickle.dumps(module)).decode()

    def take(self, weights: dict[str, Any]) -> Any:
        """Return the module that was sent, with the weights that came back."""
        state = {str(name): Codec().unpack(tensor) for name, tensor in weights.items()}
        for module in self.modules:
            copied = copy.deepcopy(module)
            try:
                copied.load_state_dict(state)
            except (RuntimeError, AttributeError, TypeError):
                continue
            return copied
        raise ValueError("a module of another shape than the one that was given")

    def watcher(self, computing: float, waiting: float) -> Callable[[], None]:
        """Return what looks after the worker: raises when it has used up what it may use."""
        began, (used, _) = time.monotonic(), self.sandbox.usage()

        def watch() -> None:
            seconds, memory = self.sandbox.usage()
            if memory > self.limits.memory:
                raise WrongAnswer(
                    f"it takes more than {self.limits.memory / 2**30:.2g} GB of memory"
                )
            if seconds - used > computing or time.monotonic() - began > waiting:
                raise TimeUp
            if time.monotonic() > self.deadline:
                raise OutOfTime

        return watch

    def prepare(self, name: str, cells: list[str], whole: bool) -> dict[str, Any]:
        """Have the cells run that `name` needs, or all of them.

        Raises
        ------
        WrongAnswer
            If a cell does not come to its end.
        """
        order = {"do": "prepare", "name": name, "cells": cells, "whole": whole}
        self.wire.send(order)
        running, watch = -1, self.watcher(self.limits.cell, 3 * self.limits.cell)
        try:
            while True:
                reply = self.wire.receive(watch)
                if "running" not in reply:
                    return reply
                if reply["running"] != running:
                    running = reply["running"]
                    watch = self.watcher(self.limits.cell, 3 * self.limits.cell)
                watch()
        except (TimeUp, Gone, WrongAnswer) as error:
            problem = {
                TimeUp: f"was still running after {self.limits.cell:.0f} seconds",
                Gone: "ended the program",
            }.get(type(error), f"was stopped: {error}")
            raise WrongAnswer(
                f"{_cell(cells, running)}, which your answer needs, {problem}"
            ) from None

    def check(self, check: Check, function: Any, seed: int) -> Result:
        """Run a check of the course on a function of the student's."""
        self.time_limit, self.missed_a_name = check.time_limit, False
        self.lent.clear()
        self.modules.clear()
        return check(function, seed=seed)

    def call(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the student's; raise what it raised."""
        order = {"do": "call", "function": number, "trace": tracemalloc.is_tracing()}
        self.wire.send(order | {"args": self.pack(list(args)), "kwargs": self.pack(kwargs)})
        watch = self.watcher(self.time_limit, float("inf"))  # the check's own clock ends waiting
        try:
            while True:
                reply = self.wire.receive(watch)
                if "ask" not in reply:
                    break
                watch()
                self.wire.send(self.answer(reply))
        except Gone:
            raise WrongAnswer(
                "your function ended the program that ran it (with os._exit or a crash), or wrote "
                "into what was none of its business"
            ) from None
        if "raised" in reply:
            kind, text = clean(reply["raised"], 60), clean(reply.get("text", ""))
            self.missed_a_name |= kind == "NameError"
            for known in (NotImplementedError, SystemExit):
                if kind == known.__name__:
                    raise known
            raise WrongAnswer(describe_error(args, kwargs, kind, text))
        if reply.get("changed"):
            raise WrongAnswer(CHANGES_ARGUMENTS)
        peak = reply.get("peak")
        if tracemalloc.is_tracing() and isinstance(peak, int) and 0 < peak < self.limits.memory:
            bytearray(peak)  # a check that measures memory sees here what was taken there
        return self.unpack(reply.get("answer"))

    def pack(self, value: Any) -> Any:
        """Pack a check's arguments, all of which must be plain data."""
        packed = self.codec.pack(value)
        if '"~": "other"' in json.dumps(packed):
            raise TypeError(f"a check gives its function {value!r}, which wire.py cannot send")
        return packed

    def unpack(self, data: Any) -> Any:
        """Unpack what the worker sent; what is no plain data is an answer like any other."""
        try:
            return self.codec.unpack(data)
        except (ValueError, RecursionError, MemoryError) as error:
            return Other(f"something unreadable ({clean(error, 80)})")

    def answer(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Call a function of the check's for the student's function."""
        try:
            function = self.lent[reply["ask"]]
            args, kwargs = self.codec.unpack(reply["args"]), self.codec.unpack(reply["kwargs"])
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            return {"raised": "TypeError", "text": clean(error)}
        try:
            return {"answer": self.codec.pack(function(*args, **kwargs))}
        except WrongAnswer:
            raise  # the check has seen enough
        except Exception as error:
            return {"raised": type(error).__name__, "text": clean(error)}


def _cell(cells: list[str], number: Any) -> str:
    """Name a cell by its first line, for whatever number a worker has sent."""
    known = isinstance(number, int) and 0 <= number < len(cells)
    lines = cells[number].strip().splitlines() if known else []
    return f"the cell that begins `{clean(lines[0], 60)}`" if lines else "a cell"


class Notebook:
    """Checks the exercises of one notebook, in one worker for as long as that works."""

    def __init__(self, walls: str, limits: Limits, seeds: list[int]) -> None:
        self.walls, self.limits, self.seeds = walls, limits, seeds
        self.deadline = time.monotonic() + limits.notebook
        self.session: Session | None = None

    def outcome(self, name: str, cells: list[str]) -> tuple[str, str]:
        """Say what a check finds.

        Parameters
        ----------
        name : str
            Of the exercise: its function and its check have the same.
        cells : list of str
            The code cells above the exercise's check.

        Returns
        -------
        status : {"passed", "failed", "not attempted"}
        message : str
        """
        try:
            if time.monotonic() > self.deadline:
                raise OutOfTime
            status, message, missing = self.judge(name, cells, whole=False)
            if missing and any(re.search(rf"\b{name}\b", cell) for cell in cells):
                status, message, _ = self.judge(name, cells, whole=True)
        except WrongAnswer as error:
            status, message = "failed", str(error)
        except Gone:
            status, message = "failed", "the program that ran the notebook's cells ended"
        except OutOfTime:
            limit = f"{self.limits.notebook:.0f} seconds"
            status, message = "failed", f"time is up: a whole notebook may take {limit}"
        except (LookupError, TypeError, ValueError) as error:  # a worker that talks nonsense
            status, message = "failed", f"the notebook could not be checked ({clean(error, 80)})"
        if status != "passed":
            self.end()  # who knows what it is doing; the next exercise gets a worker of its own
        return status, message

    def judge(self, name: str, cells: list[str], whole: bool) -> tuple[str, str, bool]:
        """Return status, message, and whether a name was missing that another cell might define."""
        reply = self.prepared(name, cells, whole)
        problems = _problems(reply, cells)
        if not reply.get("found"):
            message = f"there is no function `{name}` in the notebook{problems}"
            return "failed", message, not (whole or problems)
        session = self.session
        function: Any = Remote(session, reply["function"]) if reply.get("callable") else None
        for seed in self.seeds:
            result = session.check(getattr(checks, name), function, seed)
            if not result.passed:
                drawn = f" (inputs drawn with seed {seed})" if seed else ""
                message = result.message + drawn + problems
                return result.status, message, session.missed_a_name and not whole
        return "passed", "correct.", False

    def prepared(self, name: str, cells: list[str], whole: bool) -> dict[str, Any]:
        """Have the cells run that are needed, in a fresh worker where it must be one."""
        if self.session and not whole:
            reply = self.session.prepare(name, cells, whole)
            if not reply.get("restart"):
                return reply
        self.end()
        self.session = Session(Sandbox(self.walls, self.limits), self.deadline)
        return self.session.prepare(name, cells, whole)

    def end(self) -> None:
        """End the worker, if there is one."""
        if self.session:
            self.session.sandbox.stop()
        self.session = None


def _problems(reply: dict[str, Any], cells: list[str]) -> str:
    """Say which of the cells that were run raised what."""
    try:
        found = [
            f"{_cell(cells, number)} raised {clean(text)}" for number, text in reply["problems"]
        ]
    except (KeyError, TypeError, ValueError):
        return ""
    return "; " + "; ".join(found[:3]) if found else ""


def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Check every exercise of a job, and tell of each when it is done."""
    limits = Limits(**job["limits"])
    notebook = Notebook(job["walls"], limits, job["seeds"])
    try:
        for exercise in job["exercises"]:
            cells = job["cells"][: exercise["cells_above"]]
            status, message = notebook.outcome(exercise["name"], cells)
            yield {"name": exercise["name"], "status": status, "message": message}
    finally:
        notebook.end()


def probe() -> dict[str, Any]:
    """Find out which walls there are."""
    reasons = {}
    for walls in sandbox.possible():
        try:
            session = Session(Sandbox(walls, Limits()), time.monotonic() + STARTING)
        except (Unavailable, OutOfTime) as error:
            reasons[walls] = str(error)
            continue
        session.sandbox.stop()
        return {"walls": walls, "reasons": reasons}
    return {"walls": "none", "reasons": reasons}


def main() -> None:
    import resource  # Windows has none; there, assignments can be made but not graded

    job = json.load(sys.stdin)
    sandbox.adopt_orphans()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        for line in [probe()] if job.get("probe") else serve(job):
            print(json.dumps(line), flush=True)
    except Unavailable as error:
        print(json.dumps({"unavailable": str(error)}))


# -------------------------------------------------------------- for whoever starts this process
def run(job: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Run a job in a process of its own and return what it told before it ended or was ended."""
    paths = [str(HERE.parent), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "COURSE_RECORD": "0",
        "COURSE_PROGRESS": "0",
        "COURSE_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "grader.checker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
    )
    try:
        said, _ = process.communicate(json.dumps(job), timeout=seconds)
    except subprocess.TimeoutExpired as late:
        sandbox.end_tree(process.pid)
        process.wait()
        said = late.stdout.decode() if late.stdout else ""
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def best_walls() -> tuple[str, dict[str, str]]:
    """Return the strongest walls to be had on this machine, and why stronger ones are not."""
    said = run({"probe": True}, 2 * STARTING)
    return (said[0]["walls"], said[0]["reasons"]) if said else ("none", {})


def check_notebook(
    cells: list[str],
    exercises: list[tuple[str, int]],
    walls: str,
    limits: Limits,
    seeds: list[int],
) -> dict[str, tuple[str, str]]:
    """Check a notebook's exercises.

    Parameters
    ----------
    cells : list of str
        Its code cells, without the checks.
    exercises : list of (str, int)
        Each one's name, and how many of the cells stand above its check.
    walls : {"strong", "user", "none"}
    limits : Limits
    seeds : list of int
        For the inputs; an answer has to be right for each.

    Returns
    -------
    dict of str to (str, str)
        Status and message by the exercise's name.

    Raises
    ------
    Unavailable
        If no worker can be started; that is not the student's fault.
    """
    job = {
        "cells": cells,
        "exercises": [{"name": name, "cells_above": above} for name, above in exercises],
        "walls": walls,
        "limits": asdict(limits),
        "seeds": seeds,
    }
    told = run(job, limits.notebook + 2 * STARTING)
    for line in told:
        if "unavailable" in line:
            raise Unavailable(line["unavailable"])
    found = {line["name"]: (line["status"], clean(line["message"], 2000)) for line in told}
    lost = ("failed", "the check of this notebook ended before this exercise was reached")
    return {name: found.get(name, lost) for name, _ in exercises}


if __name__ == "__main__":
    main()
