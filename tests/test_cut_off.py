"""What runs cut off has no network and an empty home folder, and what it writes there is seen."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/cut_off.py"

CONNECT = """
import socket, urllib.request
for address in [("192.0.2.1", 80), ("8.8.8.8", 53)]:
    try:
        socket.create_connection(address, timeout=3)
    except OSError as error:
        print(error.errno)
try:
    urllib.request.urlopen("https://example.org", timeout=5)
except OSError as error:
    print("no site:", type(error).__name__)
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=3)
print("loopback works")
"""


def cut_off(code):
    return subprocess.run(
        [sys.executable, SCRIPT, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_no_network_but_the_loopback():
    done = cut_off(CONNECT)
    if "could not be cut" in done.stdout:
        pytest.skip(done.stdout.splitlines()[0])
    assert done.stdout.splitlines()[1:] == ["101", "101", "no site: URLError", "loopback works"]


def test_the_home_folder_is_empty_and_gone_afterwards():
    done = cut_off("from pathlib import Path; print(Path.home(), list(Path.home().iterdir()))")
    home, listed = done.stdout.splitlines()[-1].split(" ", 1)
    assert listed == "[]"
    assert not Path(home).exists()
    assert done.returncode == 0


@pytest.mark.parametrize(("name", "code"), [(".cache/x/y", 0), ("x", 1), (".config/z", 1)])
def test_what_is_written_to_the_home_folder_is_seen(name, code):
    write = (
        f"import pathlib; path = pathlib.Path.home() / {name!r};"
        "path.parent.mkdir(parents=True, exist_ok=True); path.touch()"
    )
    done = cut_off(write)
    assert done.returncode == code
    assert (f"Written to the home folder: {name}" in done.stderr) == bool(code)


def test_the_commands_own_failure_is_passed_on():
    assert cut_off("raise SystemExit(7)").returncode == 7
