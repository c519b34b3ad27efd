"""What is recorded of a reader's progress, and what is shown of it."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from utils import checks
from utils.checks import ledger
from utils.checks.engine import Result


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """Make this process a reader's, with a course folder of its own; return the ledger's folder."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_RECORD", raising=False)
    monkeypatch.setattr(ledger, "_at_work", lambda: True)
    return tmp_path / "cache" / "progress"


def statuses(chapter=4):
    return checks.progress(chapter).chapters[chapter]


def test_nothing_is_known_at_first(reader):
    assert set(statuses().values()) == {"not attempted"}
    assert not reader.exists()  # looking writes nothing


def test_what_a_check_says_is_kept(reader):
    first, second, *_ = checks.names(4)
    ledger.record(Result(first, "failed", "no"))
    ledger.record(Result(second, "passed", "yes"))
    assert statuses()[first] == "failed" and statuses()[second] == "passed"


def test_a_real_check_is_recorded(reader):
    name = checks.names(4)[0]
    getattr(checks, name)(lambda *args: None)
    assert statuses()[name] == "failed"


def test_what_has_passed_stays_passed_until_it_is_forgotten(reader):
    name = checks.names(4)[0]
    for status in ("passed", "failed", "not attempted"):
        ledger.record(Result(name, status, ""))
    assert statuses()[name] == "passed"
    checks.forget_progress(5)
    assert statuses()[name] == "passed"
    checks.forget_progress(4)
    assert statuses()[name] == "not attempted"
    checks.forget_progress()  # with nothing left


def test_an_untouched_stub_leaves_no_trace(reader):
    ledger.record(Result(checks.names(4)[0], "not attempted", ""))
    assert not reader.exists()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"pas", b"passed, truly"])
def test_a_damaged_record_counts_as_none_and_is_mended(reader, damage):
    name = checks.names(4)[0]
    reader.mkdir(parents=True)
    (reader / name).write_bytes(damage)
    assert statuses()[name] == "not attempted"
    ledger.record(Result(name, "passed", ""))
    assert statuses()[name] == "passed"


def test_recording_can_be_switched_off(reader, monkeypatch):
    monkeypatch.setenv("COURSE_RECORD", "0")
    ledger.record(Result(checks.names(4)[0], "passed", ""))
    checks.forget_progress()
    assert set(statuses().values()) == {"not attempted"} and not reader.exists()


def test_a_folder_that_cannot_be_written_to_stops_nobody(reader):
    reader.parent.mkdir()
    reader.write_text("a file in the folder's place")
    ledger.record(Result(checks.names(4)[0], "passed", ""))
    assert set(statuses().values()) == {"not attempted"}


def test_the_text_counts_and_names(reader):
    first, second, *others = checks.names(4)
    ledger.record(Result(first, "passed", ""))
    ledger.record(Result(second, "failed", ""))
    text = repr(checks.progress(4))
    assert text.splitlines()[0].endswith(f"1 of {2 + len(others)}")
    assert f"✓ {first}" in text and f"✗ {second}" in text and f"◻ {others[0]}" in text
    overview = repr(checks.progress())
    assert len(overview.splitlines()) == 22  # chapters 0 to 20, and the sum
    assert overview.splitlines()[-1] == f"Together    1 of {len(checks.names())} exercises"


def test_a_finished_chapter_has_a_full_bar(reader):
    for name in checks.names(4):
        ledger.record(Result(name, "passed", ""))
    assert "█" * 10 in repr(checks.progress(4)) and "░" not in repr(checks.progress(4))


def test_the_widget_says_the_same_and_looks_again(reader):
    first, *_ = names = checks.names(4)
    widget = checks.progress(4).widget()
    rows, again = widget.children
    bar, words = rows.children[0].children
    assert (bar.value, bar.max) == (0, len(names)) and "✓" not in words.value
    ledger.record(Result(first, "passed", ""))
    again.click()
    bar, words = rows.children[0].children
    assert bar.value == 1 and f"✓&nbsp;{first}" in words.value


def test_a_chapter_without_exercises_is_refused(reader):
    with pytest.raises(ValueError, match="no exercises in a chapter 99; give a number such as 4"):
        checks.progress(99)


def test_a_script_records_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("COURSE_RECORD", raising=False)
    name = checks.names(4)[0]
    code = f"from utils import checks; checks.{name}(lambda *args: None)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "progress").exists()


@pytest.mark.parametrize(("folder", "kept"), [("notebooks", True), ("solutions", False)])
def test_a_kernel_records_but_not_for_the_solutions(monkeypatch, tmp_path, folder, kept):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_RECORD", raising=False)
    name = checks.names(4)[0]
    (tmp_path / folder).mkdir()
    cell = nbformat.v4.new_code_cell(
        f"from utils import checks\nchecks.{name}(lambda *args: None)\nchecks.progress(4)"
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / folder)}}
    ).execute()
    assert (tmp_path / "cache" / "progress" / name).exists() == kept
    shown = notebook.cells[0].outputs[-1].data
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert f"{'✗' if kept else '◻'} {name}" in shown["text/plain"]
