"""Build the website: stage the sources, run the notebooks if asked to, call Sphinx.

    python scripts/build_book.py              show the outputs that the notebooks are committed with
    python scripts/build_book.py --execute    run each notebook in a fresh kernel first
    python scripts/build_book.py --lite       with chapters that run in the reader's browser

The result is in book/_build/html, the slide decks of the lectures with it, and opens from disk or
from any web server; nothing in it comes from elsewhere. Runs are kept by jupyter-cache: a notebook
runs again when its code, the package `utils` or the pinned versions have changed. A warning stops
the build as an error does.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import build_slides
import fetch_assets

import notebooks as notebook_tool

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
BUILD = BOOK / "_build"
TIMEOUT = 600  # seconds for one cell
UNPLANNED = "00_start_here"  # comes before the chapters of the plan


class BuildError(Exception):
    """What stopped the build, in a sentence or two."""


# ------------------------------------------------------------------------------- contents
def contents() -> dict:
    """Return book/_toc.yml with each pattern replaced by the files that it matches.

    Patterns that match nothing and parts with no page are left out: Sphinx warns of both.
    """
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return expanded(toc)


def expanded(node: dict) -> dict:
    """Return a node of the table of contents without patterns."""
    result = dict(node)
    for key in ("parts", "chapters", "sections"):
        children = []
        for child in node.get(key, []):
            if "glob" in child:
                children += [{"file": page} for page in matching(child["glob"])]
            elif (child := expanded(child)).keys() != {"caption"}:
                children.append(child)
        result.pop(key, None)
        if children:
            result[key] = children
    return result


def matching(pattern: str) -> list[str]:
    """Return the notebooks that a pattern of book/_toc.yml matches, in order."""
    found = ROOT.glob(f"{pattern}.ipynb")
    return sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in found)


def pages() -> list[str]:
    """Return the website's pages in order, without suffix."""

    def walk(node: dict) -> Iterator[str]:
        if "file" in node:
            yield node["file"]
        for key in ("parts", "chapters", "sections"):
            for child in node.get(key, []):
                yield from walk(child)

    toc = contents()
    return [toc["root"], *walk(toc)]


def source_of(page: str) -> Path:
    """Return the file that a page is made of: the book's own text, a notebook, or another text."""
    for path in (BOOK / f"{page}.md", ROOT / f"{page}.ipynb", ROOT / f"{page}.md"):
        if path.exists():
            return path
    raise BuildError(
        f"book/_toc.yml lists {page}, and there is no such file: write it or unlist it"
    )


def check_contents() -> None:
    """Stop when a notebook has no place, in the table of contents or in the plan."""
    listed = pages()
    twice = sorted({page for page in listed if listed.count(page) > 1})
    if twice:
        raise BuildError(f"book/_toc.yml takes in {twice[0]} twice: narrow one of its patterns")
    sources = {source_of(page) for page in listed}
    plan = yaml.safe_load((BOOK / "chapters.yml").read_text(encoding="utf-8"))
    planned = {chapter["file"] for part in plan for chapter in part["chapters"]} | {UNPLANNED}
    for path in notebook_tool.all_notebooks():
        name = path.relative_to(ROOT).as_posix()
        if path not in sources:
            raise BuildError(f"{name} is matched by nothing in book/_toc.yml: add it there")
        if path.stem not in planned:
            raise BuildError(
                f"{name} is no chapter of book/chapters.yml: add it there, so that the map shows "
                "it, or correct its name"
            )


def check_launch_buttons() -> None:
    """Stop when book/_config.yml asks for launch buttons and does not say of which repository."""
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    wanted = [
        name for name, url in config.get("launch_buttons", {}).items() if "_url" in name and url
    ]
    url = config.get("repository", {}).get("url", "")
    if wanted and not url:
        raise BuildError(
            f"book/_config.yml gives launch_buttons.{wanted[0]} and no repository.url: fill in the "
            "address of the repository that the chapters are opened from"
        )
    if "colab_url" in wanted and "github.com/" not in url:
        raise BuildError(
            "book/_config.yml gives launch_buttons.colab_url, and Colab opens chapters from GitHub "
            f"only, not from {url}: leave colab_url empty"
        )


# ------------------------------------------------------------------------------- execution
def cache_folder() -> Path:
    """Return where runs are kept; the name stands for all that a run depends on but itself."""
    digest = hashlib.sha256(sys.version.encode())
    kinds = ("py", "json", "js", "css")  # the explorers' scripts are part of what a run saves
    names = [path for kind in kinds for path in ROOT.glob(f"utils/**/*.{kind}")]
    names += [ROOT / "constraints.txt", ROOT / "pyproject.toml"]
    names += ROOT.glob("bench/results/*.json")  # some chapters show them
    for path in sorted(names):
        if path.exists():
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return BUILD / "cache" / digest.hexdigest()[:16]


def executed(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run, from the cache if it holds one.

    Raises
    ------
    BuildError
        If a cell fails or takes too long; the message names the notebook and shows the cell.
    """
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    name = path.relative_to(ROOT).as_posix()
    notebook = nbformat.read(path, as_version=4)
    folder = cache_folder()
    cache = get_cache(str(folder))
    try:
        _, notebook = cache.merge_match_into_notebook(notebook)
    except KeyError:
        pass
    else:
        notebook_tool.normalise(notebook)
        return notebook

    print(f"Running {name} ...", end=" ", flush=True)
    notebook.metadata.pop("widgets", None)
    start = time.perf_counter()
    client = notebook_tool.new_kernel(notebook, path, TIMEOUT)
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        print("failed", flush=True)
        number, cell = failing_cell(notebook)
        said = error if isinstance(error, CellExecutionError) else f"over {TIMEOUT} s in one cell"
        raise BuildError(
            f"{name} fails in code cell {number}, which begins with "
            f"{first_line(cell.source)!r}:\n\n{tail(str(said))}"
        ) from None
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    notebook_tool.normalise(notebook)
    cache.cache_notebook_bundle(
        CacheBundleIn(notebook, uri=str(path)), check_validity=False, overwrite=True
    )
    return notebook


def failing_cell(notebook: nbformat.NotebookNode) -> tuple[int, nbformat.NotebookNode]:
    """Return the number (from 1, code cells only) and the cell at which a run stopped."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        if any(output.output_type == "error" for output in cell.outputs) and (
            "raises-exception" not in cell.metadata.get("tags", [])
        ):
            return number, cell
    running = [(number, cell) for number, cell in enumerate(code, start=1) if cell.execution_count]
    return running[-1] if running else (1, code[0])


def first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:70]


def tail(text: str, lines: int = 15) -> str:
    """Return the end of a traceback, without colour codes."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    return "\n".join("    " + line for line in plain[-lines:])


# ------------------------------------------------------------------------------- staging
WORDS_PER_MINUTE = 200  # of prose
LINES_PER_MINUTE = 15  # of code
NUMBERS = {"1": "one", "2": "two", "4": "four", "8": "eight"}


def for_the_site(
    notebook: nbformat.NotebookNode, page: str, *, lite: bool = False
) -> nbformat.NotebookNode:
    """Return a notebook with what only its page has.

    Links stand under the title, solutions are folded, and an explorer comes with its words, which
    show where no script runs.
    """
    result = copy.deepcopy(notebook)
    say_in_words(result)
    solved = page.startswith("notebooks/solutions/")
    for cell in result.cells if solved else []:
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata["tags"], "hide-input"]
    title, line_break, rest = result.cells[0].source.partition("\n")
    times = [] if solved else [reading_time(notebook), *run_time(page)]
    links = [*times, *companions(page, lite=lite)]
    line = f'<p class="companions">{" · ".join(links)}</p>'
    result.cells[0].source = f"{title}\n\n{line}\n{line_break}{rest}"
    return result


def say_in_words(notebook: nbformat.NotebookNode) -> None:
    """Put an explorer's words after it; course.js hides them once the explorer shows."""
    from utils.widgets.base import STATE_TYPE, VIEW_TYPE, in_words

    saved = notebook.metadata.get("widgets", {}).get(STATE_TYPE, {}).get("state", {})
    for cell in notebook.cells:
        for output in list(cell.get("outputs", [])):
            view = output.get("data", {}).get(VIEW_TYPE, {})
            if saved.get(view.get("model_id"), {}).get("model_module") == "anywidget":
                words = (
                    f'<div class="explorer-fallback">{in_words(output.data["text/plain"])}</div>'
                )
                cell.outputs.insert(
                    cell.outputs.index(output) + 1,
                    nbformat.v4.new_output("display_data", {"text/html": words}),
                )


def companions(page: str, *, lite: bool = False) -> list[str]:
    """Return links from a chapter to what belongs to it, or from solutions to the chapter."""
    name = page.rpartition("/")[2]
    if page.startswith("notebooks/solutions/"):
        return [f'<a href="../{name}.html">Back to the chapter</a>']
    links = []
    if (ROOT / "lessons" / f"{name}.md").exists():
        links += [
            f'<a href="../slides/{name}.html">Slides of the lecture</a>',
            f'<a href="../slides/{name}.sheet.html">The lecturer’s sheet</a>',
        ]
    if (ROOT / "notebooks" / "solutions" / f"{name}.ipynb").exists():
        links.append(f'<a href="solutions/{name}.html">Solutions</a>')
    if lite:
        import build_lite

        links += [build_lite.link(name)] if name in build_lite.CHAPTERS else []
    return links


def reading_time(notebook: nbformat.NotebookNode) -> str:
    """Say how long a chapter takes to read, exercises apart, to the next five minutes."""
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    lines = sum(
        len(c.source.splitlines())
        for c in notebook.cells
        if c.cell_type == "code" and "hide-input" not in c.metadata.get("tags", [])
    )
    minutes = words / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE
    return f"About {max(5, 5 * round(minutes / 5))} minutes to read"


def run_time(page: str) -> list[str]:
    """Say how long a chapter takes to run, if bench/chapter_times.py has measured it.

    The link leads to the measurement, which says on what machine and when.
    """
    path = ROOT / "bench" / "results" / "chapter_times.json"
    if not path.exists():
        return []
    measured = json.loads(path.read_text(encoding="utf-8"))
    seconds = dict(measured["rows"]).get(page.rpartition("/")[2])
    if seconds is None:
        return []
    minutes = max(1, round(seconds / 60))
    long = "under half a minute" if seconds < 30 else f"about {minutes} minute{'s' * (minutes > 1)}"
    place = re.sub(r"[^a-z0-9]+", "-", measured["title"].lower()).strip("-")
    cores = measured["machine"]["cores"]
    words = f"{long} to run on {NUMBERS.get(cores, cores)} core{'s' * (cores != '1')}"
    return [f'<a href="../measurements.html#{place}">{words}</a>']


def put(path: Path, content: str | bytes) -> None:
    """Write a file unless it has this content, so that Sphinx sees what has changed."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def stage(target: Path, *, execute: bool, lite: bool = False) -> None:
    """Gather the sources in one folder, with the pages' own names, and nothing else in it."""
    sys.path.insert(0, str(BOOK))
    import generate
    import licences

    wanted: dict[str, str | bytes] = {
        "_toc.yml": yaml.safe_dump(contents(), sort_keys=False),
        "references.bib": (BOOK / "references.bib").read_bytes(),
    }
    wanted |= {f"_generated/{name}": text for name, text in generate.pieces(pages()).items()}
    wanted["_generated/licences.md"] = licences.page(fetch_assets.archives())
    for page in pages():
        source = source_of(page)
        if source.suffix == ".ipynb":
            notebook = executed(source) if execute else nbformat.read(source, as_version=4)
            staged = for_the_site(notebook, page, lite=lite)
            wanted[f"{page}.ipynb"] = nbformat.writes(staged) + "\n"
        else:
            wanted[page + source.suffix] = source.read_bytes()
    for path in [path for path in target.rglob("*") if path.is_file()]:
        if path.relative_to(target).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        put(target / name, content)
    if execute:  # keep the runs of this state of the course only
        for old in (BUILD / "cache").iterdir():
            if old != cache_folder():
                shutil.rmtree(old)


# ------------------------------------------------------------------------------- Sphinx
def sphinx_settings(source: Path) -> dict:
    """Return Sphinx's settings: Jupyter Book's, then those of book/_config.yml."""
    from jupyter_book.config import get_final_config

    settings, _ = get_final_config(
        user_yaml=BOOK / "_config.yml",
        cli_config={
            "external_toc_path": str(source / "_toc.yml"),
            "latex_individualpages": False,
            "bibtex_bibfiles": [str(source / "references.bib")],
        },
    )
    # Launch buttons and comments would load scripts from elsewhere.
    for unwanted in ("sphinx_thebe", "sphinx_comments", "sphinx.ext.intersphinx"):
        settings["extensions"].remove(unwanted)
    settings.pop("comments_config", None)
    settings["html_static_path"] = [str(BOOK / "_static")]
    for key in ("html_logo", "html_favicon"):
        settings[key] = str(BOOK / settings[key])
    return settings


def fingerprint() -> str:
    """Return a hash of what shapes every page: settings, contents, theme, and this script."""
    digest = hashlib.sha256()
    digest.update(yaml.safe_dump(contents()).encode())  # every page shows the side bar
    own = [
        BOOK / "_config.yml",
        Path(__file__),
        fetch_assets.VENDOR / "stamp.json",
    ]
    own += [path for path in (BOOK / "_static").iterdir() if path.is_file()]
    for path in sorted([*own, *(BOOK / "_ext").glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def run_sphinx(build: Path, *, verbose: bool) -> None:
    """Turn the staged sources into HTML; any warning is an error.

    Sphinx rebuilds the pages whose source has changed. When something has changed that shapes
    all of them, or the last build failed, everything is made anew.
    """
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    sys.path.insert(0, str(BOOK / "_ext"))
    source, html, doctrees = build / "src", build / "html", build / "doctrees"
    stamp = build / "stamp"
    if not (stamp.exists() and stamp.read_text() == fingerprint()):
        shutil.rmtree(html, ignore_errors=True)
        shutil.rmtree(doctrees, ignore_errors=True)
    # Sphinx warns of a page only when it reads it. With no stamp until the end, the build after
    # a failed one reads every page again, and does not pass for being silent.
    stamp.unlink(missing_ok=True)
    with patch_docutils(str(source)), docutils_namespace():
        app = Sphinx(
            srcdir=source,
            confdir=None,
            outdir=html,
            doctreedir=doctrees,
            buildername="html",
            confoverrides=sphinx_settings(source),
            status=sys.stdout if verbose else None,
            warning=sys.stderr,
            warningiserror=True,
            keep_going=True,
        )
        app.build()
    if app.statuscode:
        raise BuildError("the warnings above have to be mended")
    stamp.write_text(fingerprint())


def open_on_first_page(html: Path) -> None:
    """Write index.html, which leads to the first page."""
    first = pages()[0]
    put(
        html / "index.html",
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<title>Language Models from First Principles</title>\n"
        f'<meta http-equiv="refresh" content="0; url={first}.html">\n</head>\n'
        f'<body><p><a href="{first}.html">Language Models from First Principles</a></p></body>\n'
        "</html>\n",
    )


def build_book(
    build: Path = BUILD, *, execute: bool = False, verbose: bool = False, lite: bool = False
) -> Path:
    """Build the website and return the folder it is in.

    Raises
    ------
    BuildError, fetch_assets.AssetError
        With the reason, in words for the one who called.
    """
    os.environ.update(notebook_tool.ENVIRONMENT)
    # Jupyter and matplotlib print their own notices; none belongs into a build's output.
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    check_contents()
    check_launch_buttons()
    fetch_assets.fetch()
    stage(build / "src", execute=execute, lite=lite)
    run_sphinx(build, verbose=verbose)
    open_on_first_page(build / "html")
    try:
        build_slides.build(target=build / "html" / "slides")
    except build_slides.LessonError as error:
        raise BuildError(f"the lectures are not in order: {error}") from None
    if lite:
        add_lite(build / "html")
    else:
        shutil.rmtree(build / "html" / "lite", ignore_errors=True)
    return build / "html"


def add_lite(html: Path) -> None:
    """Add what runs chapters in the reader's browser."""
    import build_lite

    try:
        build_lite.build(html)
    except build_lite.LiteError as error:
        raise BuildError(str(error)) from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="run the notebooks first")
    parser.add_argument("--lite", action="store_true", help="let readers run chapters")
    parser.add_argument("--verbose", action="store_true", help="show what Sphinx does")
    parser.add_argument("--output", type=Path, default=BUILD, help="default: book/_build")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        html = build_book(
            options.output.resolve(),
            execute=options.execute,
            verbose=options.verbose,
            lite=options.lite,
        )
    except (BuildError, fetch_assets.AssetError) as error:
        print(f"The book was not built: {error}", file=sys.stderr)
        return 1
    index = html / "index.html"
    shown = index.relative_to(Path.cwd()) if index.is_relative_to(Path.cwd()) else index
    print(f"The book is built ({time.perf_counter() - start:.0f} s). Open it in a browser:")
    print(f"    {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
