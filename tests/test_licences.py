"""Everything that is installed or fetched has a licence, and the website says which."""

import io
import json
import sys
import tarfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "book")]

import licences  # noqa: E402

from utils.data import SOURCES  # noqa: E402


def npm_archive(folder, package):
    path = folder / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:
        data = json.dumps(package).encode()
        info = tarfile.TarInfo("package/package.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return path


def test_the_page_lists_every_pin_every_script_and_every_source(tmp_path):
    page = licences.page([(npm_archive(tmp_path, {"license": "ISC"}), "@made/up", "1.2.3")])
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for name, version in licences.pins().items():
        assert any(row.startswith(f"| {name} | {version} | ") for row in rows), name
    assert "| @made/up | 1.2.3 | ISC |" in rows
    for source in SOURCES.values():
        assert f"| {source.package} | {source.version} | {source.licence} |" in rows
    direct = page.split(":::{dropdown}")[0]
    assert "| torch |" in direct
    assert "| certifi |" not in direct


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License-Expression": "MIT AND 0BSD", "License": "MIT"}, "MIT AND 0BSD"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"Classifier": "License :: OSI Approved", "License": "Apache 2.0"}, "Apache 2.0"),
        ({"License": "BSD-3-Clause\n\nlong text"}, "BSD-3-Clause"),
    ],
)
def test_the_licence_is_found_wherever_the_metadata_have_it(monkeypatch, fields, licence):
    message = Message()
    for key, value in fields.items():
        message[key] = value
    monkeypatch.setattr(licences, "metadata", lambda _: message)
    assert licences.licence_of("anything") == licence


def test_no_licence_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(licences, "metadata", lambda _: Message())
    with pytest.raises(ValueError, match="anything names no licence"):
        licences.licence_of("anything")
    with pytest.raises(ValueError, match="declares no licence"):
        licences.npm_licence(npm_archive(tmp_path, {"name": "x"}))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="pinned but not installed"):
        licences.licence_of("no-such-package-here")
