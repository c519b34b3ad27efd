"""Set-up says in one sentence what is missing."""

import importlib.util
import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from jupyter_server.config_manager import BaseJSONConfigManager

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "scripts/setup_venv.py")
setup_venv = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_venv)


def test_make_without_any_python_says_so(tmp_path):
    done = subprocess.run(
        ["make", "setup", "PYTHON="], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13 was found" in done.stderr


def test_an_old_python_is_named(monkeypatch, capsys):
    monkeypatch.setattr(setup_venv.sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit):
        setup_venv.main()
    error = capsys.readouterr().err
    assert "Python 3.9 was found" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("NewConnectionError: Failed to establish a new connection: [Errno 101]", "no network"),
        ("[Errno -3] Temporary failure in name resolution", "no network"),
        (
            "Could not fetch URL: There was a problem confirming the ssl certificate: x\n"
            "ERROR: ResolutionImpossible",
            "PIP_CERT",
        ),
        ("ERROR: Could not find a version that satisfies the requirement torch", "not to be had"),
        ("[Errno 13] Permission denied: '.venv'", "not writable"),
        ("something\nelse happened.\n", "else happened"),
    ],
)
def test_a_failed_command_becomes_one_sentence(output, words):
    sentence = setup_venv.explain(output)
    assert words in sentence
    assert "\n" not in sentence


def test_a_full_disk_stops_before_anything_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(setup_venv, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(
        setup_venv.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e8})()
    )
    with pytest.raises(SystemExit):
        setup_venv.install()
    assert "nearly full: 0.1 GB" in capsys.readouterr().err
    assert not (tmp_path / ".venv").exists()


def test_no_network_is_said_in_one_sentence(monkeypatch, tmp_path, capsys):
    """A real pip, pointed at an index that refuses the connection."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit):
        setup_venv.run(
            setup_venv.sys.executable, "-m", "pip", "download", "-d", tmp_path, "no-such-package-x"
        )
    error = capsys.readouterr().err
    assert "Set-up stopped" in error
    assert len(error.strip().splitlines()) == 1


def test_every_promised_command_exists():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("book", "test", "lab", "slides", "bench", "clean"):
        assert f"\n{target} " in "\n" + listed.stdout, target


def test_jupyterlab_shows_students_nothing_of_nbgraders(tmp_path):
    """Held against what nbgrader installs, and read as Jupyter reads it."""
    shipped = [path for path in metadata.files("nbgrader") if "etc/jupyter" in str(path)]
    config = tmp_path / "etc" / "jupyter"
    for path in shipped:
        copy = config / str(path).partition("etc/jupyter/")[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_binary())
    read = BaseJSONConfigManager(config_dir=str(config)).get
    before = read("jupyter_server_config")["ServerApp"]["jpserver_extensions"]
    assert before and all(before.values())
    setup_venv.keep_jupyter_plain(tmp_path)
    setup_venv.keep_jupyter_plain(tmp_path)  # a second time changes nothing
    after = read("jupyter_server_config")["ServerApp"]["jpserver_extensions"]
    assert after == dict.fromkeys(before, False)
    switched_off = json.loads((config / "labconfig/page_config.json").read_text())
    packages = [json.loads(path.read_text()) for path in metadata.files("nbgrader")
                if str(path).endswith("labextensions/@jupyter/nbgrader/package.json")]  # fmt: skip
    assert switched_off["disabledExtensions"][packages[0]["name"]] is True
