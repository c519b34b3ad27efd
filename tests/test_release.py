"""One version everywhere, its notes can be had, and the workflow runs what it should."""

import datetime
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from release_notes import notes  # noqa: E402

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/course.yml").read_text())


def test_the_changelog_the_citation_and_the_project_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest, date = re.search(r"^## (\S+) \((\S+)\)", CHANGELOG, re.MULTILINE).groups()
    assert newest == VERSION == citation["version"]
    assert datetime.date.fromisoformat(date) == citation["date-released"]


def test_release_notes_are_one_versions_part():
    text = "# Changes\n\n## 0.2.0 (x)\n\nnew\n\n### For all\n\n## 0.1.0 (y)\n\nold\n"
    assert notes("0.2.0", text) == "new\n\n### For all"
    assert notes("0.1.0", text) == "old"
    for absent in ("0.2", "2.0", "0x1.0", ""):
        with pytest.raises(ValueError, match=r"it has 0\.2\.0, 0\.1\.0"):
            notes(absent, text)


def test_the_script_prints_this_versions_notes():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/release_notes.py", VERSION],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == notes(VERSION, CHANGELOG)


def test_the_workflow_runs_the_tests_and_publishes_only_what_passed_them():
    jobs = WORKFLOW["jobs"]
    commands = [step.get("run") for step in jobs["test"]["steps"]]
    assert "bash .ci/run" in commands
    assert jobs["site"]["needs"] == "test"
    assert "refs/heads/main" in jobs["site"]["if"]
    assert jobs["release"]["needs"] == "test"
    for job in jobs.values():  # every script that a step calls is there
        for step in job["steps"]:
            for script in re.findall(r"(?:scripts|\.ci)/[\w.]+", step.get("run", "")):
                assert (ROOT / script).exists(), script


def test_the_workflow_tests_the_oldest_and_the_newest_python_that_is_supported():
    low, high = re.search(r">=3\.(\d+),<3\.(\d+)", (ROOT / "pyproject.toml").read_text()).groups()
    tested = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tested == [f"3.{low}", f"3.{int(high) - 1}"]
