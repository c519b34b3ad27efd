"""A chapter runs without any privilege, from a folder of any name that may not be written to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def copy(tmp_path):
    """Copy what git tracks to a read-only folder with spaces and letters beyond ASCII."""
    course = tmp_path / "Mein Kurs über Sprachmodelle 语言"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "utils", "notebooks", "tests/nbval.cfg", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).exists():
            target = course / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    (course / ".cache").symlink_to(os.environ.get("COURSE_CACHE", ROOT / ".cache"))
    for path in [course, *course.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    yield course
    for path in [course, *course.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def without_privileges():
    """Return what to put before a command so that root, too, may write only where modes allow."""
    if os.getuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and setpriv, which takes that away, is not here")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_chapters_run_from_a_read_only_folder_of_any_name(copy, tmp_path, threads):
    home = tmp_path / "home"
    home.mkdir()
    before = sorted(copy.rglob("*"))
    environment = os.environ | {"HOME": str(home), "PYTHONPATH": str(copy), "COURSE_CACHE": ""}
    environment |= {"OMP_NUM_THREADS": threads, "COURSE_PROGRESS": "0", "HF_HUB_OFFLINE": "1"}
    write = "import pathlib; pathlib.Path('new').touch()"
    refused = subprocess.run(
        [*without_privileges(), sys.executable, "-c", write],
        cwd=copy,
        check=False,
        capture_output=True,
    )
    assert b"PermissionError" in refused.stderr  # the folder really may not be written to
    done = subprocess.run(
        [
            *(*without_privileges(), sys.executable, "-m", "pytest", "-q"),
            *("-p", "no:cacheprovider", "--nbval", "--nbval-sanitize-with", "tests/nbval.cfg"),
            *("notebooks/02_tokens.ipynb", "notebooks/solutions/04_attention.ipynb"),
        ],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert sorted(copy.rglob("*")) == before
