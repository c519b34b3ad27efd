"""The measurements run and give tables; how fast anything is, is not tested."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "book"))

import generate  # noqa: E402

from bench import run, timing  # noqa: E402

GOOD = {"title": "T", "columns": ["a", "b"], "rows": [[1, "x"]], "notes": ["n"]}


# ------------------------------------------------------------------------------- measurements
@pytest.mark.parametrize("name", run.names())
def test_measurement_gives_a_table(name, tmp_path):
    """With `measure(quick=True)`; the website can show what comes out."""
    result = run.run(name, quick=True, command="make bench")
    assert run.problem_with(result) is None
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(result))
    section = generate.measurement(path)
    assert section.startswith(f"## {result['title']}") and "`make bench`" in section


def test_there_are_measurements_and_helpers_are_none():
    assert {"attention", "ngrams", "optimisers"} <= set(run.names())
    assert not {"run", "timing", "__init__"} & set(run.names())


def test_recorded_results_are_what_the_website_expects():
    for path in run.RESULTS.glob("*.json"):
        assert run.problem_with(json.loads(path.read_text(encoding="utf-8"))) is None
        section = generate.measurement(path)
        assert str(ROOT) not in section and platform.node() not in section


# ------------------------------------------------------------------------------- the runner
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": []}, "no rows"),
        ({"rows": [[1]]}, "1 entries for 2 columns"),
        ({"rows": [[1, None]]}, "neither text nor a number"),
        ({"notes": "n"}, "list of sentences"),
        ({"notes": [1]}, "list of sentences"),
    ],
)
def test_a_malformed_result_is_told_what_is_wrong(change, words):
    assert run.problem_with(GOOD) is None
    assert words in run.problem_with(GOOD | change)


def test_a_result_that_is_no_table_at_all():
    assert "list" in run.problem_with([])
    missing = {key: value for key, value in GOOD.items() if key != "title"}
    assert "lacks ['title']" in run.problem_with(missing)


@pytest.fixture
def fake(monkeypatch):
    """Let the runner find measurements that are defined here."""

    def broken(quick=False):
        raise RuntimeError("no such kernel")

    def named(quick=False):
        return GOOD | {"name": "good-gpu", "machine": {"threads": "8"}}

    found = {"good": lambda quick=False: GOOD, "named": named, "broken": broken}
    found["bad"] = lambda quick=False: GOOD | {"rows": []}
    monkeypatch.setattr(run, "names", lambda: sorted(found))
    module = run.importlib.import_module
    monkeypatch.setattr(
        run.importlib,
        "import_module",
        lambda name: (
            type("M", (), {"measure": staticmethod(found[name.removeprefix("bench.")])})
            if name.startswith("bench.")
            else module(name)
        ),
    )


def test_results_say_what_when_and_on_which_machine(fake, tmp_path):
    assert run.main(["good", "named", "--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"good.json", "good-gpu.json"}
    kept = json.loads((tmp_path / "good.json").read_text())
    assert kept["command"] == "python bench/run.py good named"
    assert {"processor", "cores", "threads", "Python", "numpy", "torch"} == set(kept["machine"])
    assert kept["machine"]["numpy"] == np.__version__
    assert platform.node() not in json.dumps(kept) and str(ROOT) not in json.dumps(kept)
    assert json.loads((tmp_path / "good-gpu.json").read_text())["machine"]["threads"] == "8"


def test_a_quick_run_prints_and_keeps_nothing(fake, tmp_path, capsys):
    assert run.main(["good", "--quick", "--output", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out.splitlines()[:5] == ["T", "", "a  b", "-  -", "1  x"]


def test_one_that_fails_does_not_keep_the_others_from_running(fake, tmp_path, capsys):
    assert run.main(["--output", str(tmp_path)]) == 1
    assert (tmp_path / "good.json").exists() and not (tmp_path / "broken.json").exists()
    error = capsys.readouterr().err
    assert "broken stopped: RuntimeError: no such kernel" in error
    assert "bench/bad.py: its table has no rows" in error
    assert error.rstrip().endswith("Failed: bad, broken.")


def test_an_unknown_name(fake, capsys):
    assert run.main(["fast"]) == 2
    assert "There is no measurement 'fast': choose bad, broken, good" in capsys.readouterr().err


def test_a_busy_machine_is_noted(fake, monkeypatch):
    monkeypatch.setattr(run, "load_per_core", lambda: 3.2)
    assert "busy: 3.2 processes per core" in run.run("good", quick=True, command="c")["notes"][-1]
    monkeypatch.setattr(run, "load_per_core", lambda: 0.1)
    assert run.run("good", quick=True, command="c")["notes"] == GOOD["notes"]


def test_our_tokenizers_script_does_not_hide_the_library():
    """bench/tokenizers.py has the library's name; run as a script, the folder is on the path."""
    code = "import runpy, sys; sys.argv = ['run.py', '--help']; sys.path[0] = 'bench'; "
    code += "\ntry: runpy.run_path('bench/run.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "import tokenizers; print(tokenizers.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "site-packages" in done.stdout.splitlines()[-1]


# ------------------------------------------------------------------------------- timing
def test_side_by_side_calls_all_in_alternating_order():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    result = timing.side_by_side(functions, rounds=3, shortest=0)
    assert calls == [*"aabb", *"ba", *"ab", *"ba"]  # two warm-up calls of each, then three rounds
    assert all(
        seconds.shape == (3,) and (seconds >= 0).all() for seconds in result.seconds.values()
    )


def test_ratio_is_taken_within_rounds():
    """A slow spell of the machine, here the last round, leaves the ratio as it is."""
    seconds = {"a": np.array([2.0, 4.0, 200.0]), "b": np.array([1.0, 2.0, 100.0])}
    result = timing.Comparison(seconds)
    assert result.ratio("a", "b") == "2.0 (2.0 to 2.0)"
    assert result.milliseconds("a") == "4,000"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012345, "0.0123"), (1.2345, "1.23"), (123.45, "123"), (12345.6, "12,346"), (0, "0")],
)
def test_figures(value, text):
    assert timing.figures(value) == text


def test_nothing_to_time():
    with pytest.raises(ValueError, match="at least 1 function"):
        timing.side_by_side({})
    with pytest.raises(ValueError, match="1 round"):
        timing.side_by_side({"a": lambda: None}, rounds=0)
