"""Set up the course's environment: .venv, the pinned packages, the data. Standard library only.

    python3 scripts/setup_venv.py          what every `make` target runs first

Nothing is done twice: a stamp in .venv records what was installed, and a second run compares it
with constraints.txt and pyproject.toml and returns at once. Whatever goes wrong is said in one
sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "course-setup.sha256"
NEEDED_GB = 5
# What nbgrader adds to JupyterLab; `make assignment` and `make grade` need none of it.
FOR_INSTRUCTORS = {
    "lab": ["@jupyter/nbgrader", "@jupyter-notebook/lab-extension"],
    "server": [
        f"nbgrader.server_extensions.{name}"
        for name in ("formgrader", "validate_assignment", "assignment_list", "course_list")
    ],
}
# pip's own words for what most often goes wrong, and ours.
CAUSES = {
    "No space left on device": "the disk is full: free about {need} GB and run the command again",
    "Temporary failure in name resolution": "there is no network: set-up needs it once; "
    "connect and run the command again",
    "Failed to establish a new connection": "there is no network: set-up needs it once; "
    "connect and run the command again",
    "Network is unreachable": "there is no network: set-up needs it once; "
    "connect and run the command again",
    "confirming the ssl certificate": "the package index showed a certificate that this machine "
    "does not trust (often a proxy's): have pip told where its authority's is, in PIP_CERT",
    "Could not find a version that satisfies": "a pinned package is not to be had from here "
    "(no network, a package index that lacks it, or a Python it does not support)",
    "Permission denied": "the course folder is not writable: clone it to a folder of your own",
}


def fail(message: str) -> NoReturn:
    print(f"Set-up stopped: {message}.", file=sys.stderr)
    sys.exit(1)


def python_of_venv() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    """Return a hash of all that decides what is installed, and where."""
    digest = hashlib.sha256(f"{ROOT}|{sys.version_info[:2]}".encode())
    for name in ("constraints.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def explain(output: str) -> str:
    """Turn a failed command's output into one sentence."""
    for sign, cause in CAUSES.items():
        if sign in output:
            return cause.format(need=NEEDED_GB)
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else "a command failed without saying why"


def run(*command: str | Path) -> None:
    """Run a command quietly; stop with one sentence if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        fail(explain(done.stdout))


def keep_jupyter_plain(prefix: Path) -> None:
    """Leave what only instructors need out of JupyterLab: menus of nbgrader, slower starts."""
    folder = prefix / "etc" / "jupyter"
    lab = {"disabledExtensions": dict.fromkeys(FOR_INSTRUCTORS["lab"], True)}
    server = {"ServerApp": {"jpserver_extensions": dict.fromkeys(FOR_INSTRUCTORS["server"], False)}}
    for name, content in (
        ("labconfig/page_config.json", lab),
        ("jupyter_server_config.json", server),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2))


def install() -> None:
    """Make .venv and install what constraints.txt pins."""
    try:
        room = shutil.disk_usage(ROOT).free / 1e9
        if room < NEEDED_GB:
            fail(f"the disk is nearly full: {room:.1f} GB are free and about {NEEDED_GB} GB needed")
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"Setting up .venv with Python {version} (once; a few minutes) ...", flush=True)
        if VENV.exists():
            shutil.rmtree(VENV)
        run(sys.executable, "-m", "venv", VENV)
        pip = (python_of_venv(), "-m", "pip", "install", "--disable-pip-version-check")
        # --no-build-isolation: the editable install uses the pinned setuptools, not a fresh one;
        # and seqeval, which comes as source only, fails to fetch its build tools by itself.
        run(*pip, "-c", "constraints.txt", "setuptools", "setuptools-scm", "wheel")
        run(*pip, "-c", "constraints.txt", "--no-build-isolation", "-e", ".[dev]")
        keep_jupyter_plain(VENV)
        STAMP.write_text(fingerprint())
    except OSError as error:
        fail(explain(str(error)))


def main() -> None:
    os.chdir(ROOT)
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        fail(
            f"Python {sys.version_info[0]}.{sys.version_info[1]} was found and the course needs "
            "3.11, 3.12 or 3.13: install one (python.org has installers), "
            "then name it, as in `make book PYTHON=python3.12`"
        )
    if not (STAMP.exists() and STAMP.read_text() == fingerprint()):
        install()
    fetched = subprocess.run([python_of_venv(), "-m", "utils.data", "fetch"], check=False)
    if fetched.returncode:
        sys.exit(fetched.returncode)  # it has said why, in one sentence


if __name__ == "__main__":
    main()
