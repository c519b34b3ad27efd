"""What the course is built on, with licences: packages, the pages' JavaScript, data and models.

`page` returns the tables that the website's page *Built on* includes. Everything is read from
where it is declared: constraints.txt and the installed packages, the npm packages that
scripts/fetch_assets.py keeps, and `utils.data`.
"""

from __future__ import annotations

import json
import re
import tarfile
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# The trove classifiers' names for what SPDX writes more shortly.
SHORT = {
    "MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def licence_of(package: str) -> str:
    """Return an installed package's licence as its metadata gives it, in one short line.

    Raises
    ------
    ValueError
        If the package is not installed or its metadata names no licence.
    """
    try:
        data = metadata(package)
    except PackageNotFoundError:
        raise ValueError(f"{package} is pinned but not installed: run `make setup`") from None
    if data.get("License-Expression"):
        return data["License-Expression"]
    classifiers = [
        text.split(" :: ")[-1]
        for text in data.get_all("Classifier") or ()
        if text.startswith("License ::")
    ]
    named = [text for text in classifiers if text != "OSI Approved"]
    if named:
        return ", ".join(SHORT.get(text, text) for text in named)
    first = (data.get("License") or "").strip().splitlines()
    if first and len(first[0]) < 60:
        return first[0]
    raise ValueError(
        f"the metadata of {package} names no licence: look it up and leave it out "
        "of the course if there is none"
    )


def pins() -> dict[str, str]:
    """Return name -> version of everything that constraints.txt pins."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def asked_for() -> set[str]:
    """Return the packages that the course itself asks for; the others come with these."""
    lines = requires("language-models-from-first-principles") or []
    return {canonicalize_name(Requirement(line).name) for line in lines}


def page(npm: list[tuple[Path, str, str]]) -> str:
    """Return the page's tables in Markdown.

    Parameters
    ----------
    npm : list of (archive, package, version)
        What scripts/fetch_assets.py has fetched.
    """
    from utils.data.sources import SOURCES

    own = asked_for()
    direct, others = [], []
    for name, version in pins().items():
        row = (name, version, licence_of(name))
        (direct if canonicalize_name(name) in own else others).append(row)
    scripts = [(package, version, npm_licence(archive)) for archive, package, version in npm]
    data = [(s.package, s.version, s.licence) for s in SOURCES.values()]
    return "\n".join([
        "## Python packages that the course asks for", "", *table(direct), "",
        ":::{dropdown} Packages that come with them", "", *table(others), ":::", "",
        "## JavaScript of the website and of the slides", "", *table(scripts), "",
        "## Data and models", "", *table(data), "",
    ])  # fmt: skip


def npm_licence(archive: Path) -> str:
    """Return the licence that an npm package's package.json declares."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile("package/package.json")
        declared = json.load(file).get("license") if file else None
    if not isinstance(declared, str):
        raise ValueError(f"{archive.name} declares no licence")
    return declared


def table(rows: list[tuple[str, str, str]]) -> list[str]:
    """Return the lines of a table of packages."""
    rule = ("---",) * 3
    cells = [("Package", "Version", "Licence, as it declares it"), rule, *rows]
    return ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells]
