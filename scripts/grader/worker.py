"""Runs a student's cells and calls the student's functions. Started by sandbox.py, behind walls.

It takes its orders from the checker over a socket and answers in plain data. Everything in this
process is the student's to break: no check and no grade is here, and the checker believes nothing
of what it says but the values of its answers.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import contextlib
import importlib
import json
import linecache
import os
import pickle
import resource
import socket
import sys
import traceback
import types
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grader.slices import Statement, mentions, needed, statements_of
from grader.wire import Codec, Wire

OWN = str(Path(__file__).resolve().parent)
# Cell magics whose cell is ordinary Python; any other takes its cell as text.
TRANSPARENT = ("%%time", "%%capture", "%%prun")


def limit(name: str, value: int) -> None:
    """Set a limit that this process and its children cannot raise again."""
    which = getattr(resource, name)
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # not every system has all of them
        resource.setrlimit(which, (value, value))


class NoChecks(types.ModuleType):
    """What `utils.checks` is here: every check exists and says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def hide_checks() -> None:
    """Put an empty module in the place of the checks and their references."""
    package = importlib.import_module("utils")
    package.checks = sys.modules["utils.checks"] = NoChecks("utils.checks")


class Notebook:
    """A student's notebook, of which only what is needed has been run."""

    def __init__(self) -> None:
        from IPython.core.interactiveshell import InteractiveShell

        self.shell = InteractiveShell.instance()
        self.shell.history_manager.enabled = False
        self.namespace = self.shell.user_ns
        self.run_already: list[tuple[int, int]] = []
        self.errors: dict[int, str] = {}
        self.flags = 0  # of `from __future__ import ...`, which holds for the cells that follow

    def prepare(
        self, name: str, cells: list[str], whole: bool, announce: Callable[[int], None]
    ) -> dict[str, Any]:
        """Run what `name` needs of the cells; say whether it is there, or that a restart is due."""
        statements, unreadable = [], {}
        for number, source in enumerate(cells):
            try:
                statements += statements_of(number, self.plain(source, number))
            except SyntaxError as error:
                unreadable[number] = f"SyntaxError: {error.msg} (in the line `{_line(error)}`)"
        chosen = statements if whole else needed(name, statements)
        due = [s for s in chosen if (s.cell, s.number) not in self.run_already]
        # In a notebook an earlier cell runs earlier. Where another exercise has already run later
        # ones, only a fresh process keeps the order.
        if due and self.run_already and (due[0].cell, due[0].number) < max(self.run_already):
            return {"restart": True}
        for statement in due:
            announce(statement.cell)
            self.run(statement)
        wrong_cells = [n for n in unreadable if whole or mentions(name, cells[n])]
        problems = {n: text for n, text in self.errors.items() if n in {s.cell for s in chosen}}
        problems |= {number: unreadable[number] for number in wrong_cells}
        return {"found": name in self.namespace, "problems": sorted(problems.items())}

    def plain(self, source: str, number: int) -> str:
        """Turn a cell into Python, as IPython does; tracebacks quote what the student wrote."""
        first, _, rest = source.partition("\n")
        if first.split(" ")[0] in TRANSPARENT:
            source = "\n" + rest
        lines = [line + "\n" for line in source.split("\n")]
        linecache.cache[_file(number)] = (len(source), None, lines, _file(number))
        return self.shell.input_transformer_manager.transform_cell(source)

    def run(self, statement: Statement) -> None:
        """Run one statement, unless an error has ended its cell already."""
        self.run_already.append((statement.cell, statement.number))
        if statement.cell in self.errors:
            return
        node = statement.node
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            features = [getattr(__future__, alias.name, None) for alias in node.names]
            self.flags |= sum({f.compiler_flag for f in features if f})
        try:
            module = ast.Module([node], type_ignores=[])
            code = compile(module, _file(statement.cell), "exec", self.flags, dont_inherit=True)
            exec(code, self.namespace)
        except BaseException as error:  # the student's code may raise anything, SystemExit too
            self.errors[statement.cell] = described(error)


def _file(cell: int) -> str:
    return f"<cell {cell}>"


def _line(error: SyntaxError) -> str:
    return (error.text or "").strip()


def described(error: BaseException) -> str:
    """Return an exception in one sentence, with the student's line."""
    return f"{type(error).__name__}: {_text(error)}{line_of(error)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception may refuse
        return ""


def line_of(error: BaseException) -> str:
    """Quote the line that raised, of the student's own code if it was called from there."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(OWN)
    ]
    return f" (in the line `{own[-1].line.strip()}`)" if own and own[-1].line else ""


class Raised(Exception):
    """What a function of the checker's raised when the student's function called it."""


class Worker:
    """Does what the checker asks for, one order at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self.wire = Wire(connection)
        self.lent: list[Any] = []
        self.codec = Codec(self.lend, self.borrow, self.give, self.take)
        self.data_only = Codec(states=False)  # for comparing arguments before and after

    def lend(self, function: Any) -> int:
        """Keep a function that the checker will call, and return its number."""
        self.lent.append(function)
        return len(self.lent) - 1

    def borrow(self, number: int) -> Callable[..., Any]:
        """Return a function that has the checker call one of its own."""

        def ask(*args: Any, **kwargs: Any) -> Any:
            given = self.codec.pack(list(args)), self.codec.pack(kwargs)
            self.wire.send({"ask": number, "args": given[0], "kwargs": given[1]}, None)
            reply = self.wire.receive()
            if "raised" in reply:
                raise type(reply["raised"], (Raised,), {})(reply["text"])
            return self.codec.unpack(reply["answer"])

        return ask

    @staticmethod
    def give(module: Any) -> Any:
        """Send a torch module's weights: the checker knows the rest, having sent it."""
        pack = Codec().pack
        return {name: pack(tensor) for name, tensor in module.state_dict().items()}

    @staticmethod
    def take(content: str) -> Any:
        """Rebuild a torch module. It comes from the checker, so a pickle does no harm."""
        return pickle.loads(b64decode(content))

    def call(self, order: dict[str, Any]) -> dict[str, Any]:
        """Call a function of the student's."""
        import tracemalloc

        args, kwargs = self.codec.unpack(order["args"]), self.codec.unpack(order["kwargs"])
        before = self.fingerprint(args, kwargs)
        try:
            if order["trace"]:
                tracemalloc.start()
            answer = self.lent[order["function"]](*args, **kwargs)
            peak = tracemalloc.get_traced_memory()[1]
            changed = self.fingerprint(args, kwargs) != before
            return {"answer": self.codec.pack(answer), "changed": changed, "peak": peak}
        except BaseException as error:  # the student's code may raise anything, SystemExit too
            names = [kind.__name__ for kind in type(error).__mro__]
            known = next((n for n in names if n in ("NotImplementedError", "SystemExit")), names[0])
            return {"raised": known, "text": _text(error) + line_of(error)}
        finally:
            tracemalloc.stop()

    def fingerprint(self, args: list[Any], kwargs: dict[str, Any]) -> str:
        """Return the arguments as text; what is not plain data counts as unchanged."""
        return json.dumps([self.data_only.pack(args), self.data_only.pack(kwargs)])

    def serve(self) -> None:
        """Take orders until the checker goes."""
        notebook = Notebook()
        self.wire.send({"ready": True})
        while True:
            order = self.wire.receive()
            if order["do"] == "prepare":
                reply = notebook.prepare(
                    order["name"],
                    order["cells"],
                    order["whole"],
                    lambda cell: self.wire.send({"running": cell}),
                )
                if reply.get("found"):
                    reply["function"] = self.lend(notebook.namespace[order["name"]])
                    reply["callable"] = callable(notebook.namespace[order["name"]])
            else:
                reply = self.call(order)
            try:
                self.wire.send(reply, None)
            except ValueError as error:  # a number of thousands of digits, or far too much
                self.wire.send({"raised": "ValueError", "text": str(error)}, None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes of data, per process")
    parser.add_argument("--file", type=int, required=True, help="bytes of a file")
    parser.add_argument("--processes", type=int, required=True, help="of this user, threads too")
    parser.add_argument("--seconds", type=int, required=True, help="of computing, per process")
    options = parser.parse_args()
    for name, value in {
        "RLIMIT_DATA": options.memory,
        "RLIMIT_FSIZE": options.file,
        "RLIMIT_NPROC": options.processes,
        "RLIMIT_CPU": options.seconds,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 256,
    }.items():
        limit(name, value)
    with contextlib.suppress(OSError):  # if the machine runs out of memory, this goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    hide_checks()
    # What students print goes nowhere: it is no message and no grade.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    Worker(socket.socket(fileno=options.socket)).serve()


if __name__ == "__main__":
    main()
