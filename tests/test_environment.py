"""pyproject.toml, constraints.txt, environment.yml and what is installed agree."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PINS = {
    canonicalize_name(name): pin
    for name, pin in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
DIRECT = [
    Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_what_pyproject_asks_for_is_pinned_and_installed(requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} is in pyproject.toml but not in constraints.txt"
    assert requirement.specifier.contains(PINS[name], prereleases=True)
    assert version(name).split("+")[0] == PINS[name]


def test_every_pin_is_exact():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    loose = [line for line in lines if line and not line.startswith("#") and "==" not in line]
    assert not loose


def test_torch_is_the_version_the_course_is_written_for():
    assert PINS["torch"] == "2.13.0"


def test_conda_installs_this_project_with_these_pins():
    pip_lines = next(item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict))
    assert pip_lines == ["-c constraints.txt", "-e .[dev]"]


def test_conda_and_pyproject_agree_on_python():
    python = next(item for item in CONDA["dependencies"] if str(item).startswith("python>"))
    assert python.removeprefix("python") == PROJECT["requires-python"]


def test_what_conda_installs_itself_is_pinned_the_same():
    named = [item for item in CONDA["dependencies"] if re.match(r"[\w-]+=[\d.]+$", str(item))]
    assert named == [f"seqeval={PINS['seqeval']}"]


def test_running_python_is_one_that_is_supported():
    assert (3, 11) <= sys.version_info[:2] <= (3, 13)


def test_import_utils_is_cheap_and_loads_nothing_heavy():
    code = "import sys, utils; print(*({'numpy', 'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
