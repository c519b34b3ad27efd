"""Starts the worker behind the walls that this machine offers, watches it, and ends all of it.

`strong` walls are Linux namespaces, as containers are made of: of the machine's files only Python,
its packages and `utils` are there, read-only and without the checks; no network, no other process,
a fresh /tmp of 64 MB. They need root, or a system that lets users make namespaces. `user` walls
are those between users: root starts the worker as a user that owns nothing. `none` leaves the
limits on memory, time and processes, and the fact that the worker knows no check and no grade.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# A user that nobody is: within the range that systemd, too, gives to passing services.
NOBODY = 61777
SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix"]
SYSTEM += ["/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/etc/localtime"]
MEANING = {
    "strong": "walled off from this machine's files, its network and its other processes",
    "user": "run as a user that owns nothing: it can write to none of your files, but can read "
    "what others may read, and use the network",
    "none": "NOT walled off: it can do to your files whatever you can",
}


@dataclass(frozen=True)
class Limits:
    """What a student's code may use.

    Attributes
    ----------
    memory : int
        Bytes of all its processes together.
    file : int
        Bytes of one file.
    processes : int
        Processes and threads.
    cell, notebook : float
        Seconds that a cell may compute, and that a whole notebook may take by the clock.
    """

    memory: int = 3 * 2**30
    file: int = 64 * 2**20
    processes: int = 64
    cell: float = 60.0
    notebook: float = 300.0


class Unavailable(RuntimeError):
    """The worker cannot be started behind these walls."""


class Sandbox:
    """A running worker and the socket to it.

    Parameters
    ----------
    walls : {"strong", "user", "none"}
    limits : Limits

    Raises
    ------
    Unavailable
        If the worker does not start.
    """

    def __init__(self, walls: str, limits: Limits) -> None:
        self.limits = limits
        self.folder = Path(tempfile.mkdtemp(prefix="grading-"))
        ours, theirs = socket.socketpair()
        self.connection = ours
        home = "/tmp" if walls == "strong" else str(self.folder)
        if walls == "user":
            os.chown(self.folder, NOBODY, NOBODY)
        try:
            with theirs:
                self.process = subprocess.Popen(
                    self.command(walls, theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=environment(home),
                    cwd=self.folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise Unavailable(str(error)) from None

    def command(self, walls: str, descriptor: int) -> list[str]:
        """Return the command that starts the worker."""
        limits = self.limits
        others = 0 if walls == "user" or os.getuid() == 0 else _threads_of_this_user()
        worker = [sys.executable, "-m", "grader.worker", f"--socket={descriptor}"]
        worker += [f"--memory={limits.memory}", f"--file={limits.file}"]
        worker += [f"--processes={others + limits.processes}", f"--seconds={limits.notebook:.0f}"]
        as_nobody = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if walls == "none":
            return worker
        with_us = ["setpriv", "--pdeathsig=KILL"]  # if the checker ends, so does this
        if walls == "user":
            unprivileged = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
            # Without the shell, setpriv would still start a Python that only root can reach.
            as_written = ["sh", "-c", 'exec "$@"', "sh"]
            return [*with_us, *as_nobody, *unprivileged, *as_written, *worker]
        is_root = os.getuid() == 0
        namespaces = ["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child=SIGKILL"]
        namespaces += [] if is_root else ["--user", "--map-root-user"]
        world = [str(self.folder), str(NOBODY) if is_root else "", str(ROOT / "utils" / "checks")]
        script = ["sh", str(HERE / "sandbox.sh"), *world, *visible(), "--", *worker]
        return [*with_us, "unshare", *namespaces, *script]

    def why_not(self) -> str:
        """Return what the machine said when the worker did not start."""
        self.stop()
        said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else "it ended without saying why"

    def processes(self) -> list[psutil.Process]:
        """Return every process that the worker's start has led to."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process().children(recursive=True)
        return []

    def usage(self) -> tuple[float, int]:
        """Return the seconds that these have computed, and the bytes of memory that they hold."""
        seconds, memory = 0.0, 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                seconds += times.user + times.system
                memory += process.memory_info().rss
        return seconds, memory

    def stop(self) -> None:
        """End the worker and everything that it has started, and remove its files."""
        self.connection.close()
        for _ in range(100):
            alive = [p for p in self.processes() if _lives(p)]
            for process in alive:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process.kill()
            psutil.wait_procs(alive, timeout=0.1)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that came to us as orphans
                    pass
            if not alive:
                break
        with suppress(ChildProcessError):
            self.process.wait(timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)


def visible() -> list[str]:
    """Return the paths that a worker behind strong walls can read."""
    from utils.data.store import cache_folders

    wanted = [*SYSTEM, sys.base_prefix, sys.prefix, str(ROOT / "utils"), str(HERE)]
    wanted += [str(path) for path in cache_folders()]
    return [path for path in dict.fromkeys(wanted) if os.path.lexists(path)]


def environment(home: str) -> dict[str, str]:
    """Return the worker's environment: nothing of the instructor's."""
    from utils.data.store import cache_folders

    data = next((str(folder) for folder in cache_folders() if folder.exists()), "")
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": home,
        "TMPDIR": home,
        "USER": "student",
        "LOGNAME": "student",
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
        "CUDA_VISIBLE_DEVICES": "",
        "COURSE_DEVICE": "cpu",
        "COURSE_PROGRESS": "0",
        "COURSE_RECORD": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    } | ({"COURSE_CACHE": data} if data else {})


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def adopt_orphans() -> None:
    """Have processes whose parent ends come to this one, so that `stop` finds them (Linux)."""
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _threads_of_this_user() -> int:
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.uids().real == os.getuid():
                count += process.num_threads()
    return count


def possible() -> list[str]:
    """Return the kinds of walls to try here, strongest first."""
    if sys.platform != "linux":
        return []
    return ["strong", "user"] if os.getuid() == 0 else ["strong"]


def end_tree(pid: int) -> None:
    """End a process and all that it has started, orphans that came back to it included."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for _ in range(100):
            below = process.children(recursive=True)
            for child in below:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    child.kill()
            if all(child.status() == psutil.STATUS_ZOMBIE for child in below if child.is_running()):
                break
            time.sleep(0.05)
        process.kill()
