"""Build, run and check the course's notebooks.

    python scripts/notebooks.py build SOURCE.py NOTEBOOK.ipynb    from jupytext's percent format
    python scripts/notebooks.py run NOTEBOOK.ipynb ...            run in place, keep the outputs
    python scripts/notebooks.py check [NOTEBOOK.ipynb ...]        conventions only, run nothing
    python scripts/notebooks.py refresh [NOTEBOOK.ipynb ...]      give explorers today's scripts

A notebook is committed with the outputs of a clean run. `run` gives that run: a fresh kernel in
the notebook's own folder, no network for the model hub, no progress bars, metadata reduced to what
matters, so that a second run of an unchanged notebook changes nothing but timings.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
TAGS = {
    "exercise",
    "hide-input",
    "nbval-ignore-output",
    "raises-exception",
    "slow",
    "solution",
}
LARGEST = 1_500_000  # bytes
LONGEST_CELL = 25  # lines; the aim is 15, docstrings and comments included a little more
ENVIRONMENT = {
    "COURSE_PROGRESS": "0",
    "COURSE_RECORD": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "COURSE_DEVICE": "cpu",
}


def all_notebooks() -> list[Path]:
    """Return every notebook of the course, chapters first."""
    return sorted(NOTEBOOKS.glob("*.ipynb")) + sorted(NOTEBOOKS.glob("solutions/*.ipynb"))


def build(source: Path, target: Path) -> None:
    """Make a notebook of a percent-format script."""
    build_text(source.read_text(), target)


def build_text(text: str, target: Path) -> None:
    """Make a notebook of text in percent format, keeping ids stable across builds."""
    import jupytext

    notebook = jupytext.reads(text, fmt="py:percent")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, -1) + 1
        cell.id = digest if not seen[digest] else f"{digest}-{seen[digest]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def new_kernel(notebook: nbformat.NotebookNode, path: Path, timeout: int) -> NotebookClient:
    """Return what runs a notebook in a fresh kernel, in the notebook's folder."""
    return NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        # Without the kernel's warning of its transport, which stays on this machine.
        extra_arguments=["--IPKernelApp.log_level=40"],
    )


def run(path: Path, timeout: int = 900) -> float:
    """Run a notebook in a fresh kernel and write it back; return the seconds it took."""
    os.environ.update(ENVIRONMENT)
    notebook = nbformat.read(path, as_version=4)
    client = new_kernel(notebook, path, timeout)
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start
    normalise(notebook)
    nbformat.write(notebook, path)
    return seconds


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Leave in the metadata only what a reader or a tool needs, and pass on alternative texts."""
    widgets = notebook.metadata.get("widgets")
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    if widgets:
        notebook.metadata["widgets"] = widgets
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "slideshow") if key in cell.metadata}
        alts = [alt for output in cell.get("outputs", []) for alt in alts_of(output)]
        if alts:  # the website takes an image's alternative text from here
            kept["mystnb"] = {"image": {"alt": " ".join(alts)}}
        cell.metadata = nbformat.from_dict(kept)
        _join_streams(cell)


def _join_streams(cell: nbformat.NotebookNode) -> None:
    """Join consecutive pieces of printed text, which arrive in pieces of any size."""
    joined: list[nbformat.NotebookNode] = []
    for output in cell.get("outputs", []):
        if (
            joined
            and output.output_type == "stream" == joined[-1].output_type
            and output.name == joined[-1].name
        ):
            joined[-1].text += output.text
        else:
            joined.append(output)
    if "outputs" in cell:
        cell.outputs = joined


def refresh(path: Path) -> bool:
    """Give saved explorers the scripts and styles of utils/widgets as they are now; run nothing.

    Their numbers stay: a notebook whose explorers are given other numbers has to run again.
    Returns whether something has changed.
    """
    sys.path.insert(0, str(ROOT))
    from utils import widgets

    notebook = nbformat.read(path, as_version=4)
    changed = False
    for saved in notebook.metadata.get("widgets", {}).values():
        for model in saved["state"].values():
            module, _, name = model["state"].get("_anywidget_id", "").rpartition(".")
            if not module.startswith("utils.widgets."):
                continue
            kind = getattr(widgets, name)
            today = {"_esm": kind._esm, "_css": kind._css}
            changed |= any(model["state"][key] != value for key, value in today.items())
            model["state"].update(today)
    if changed:
        nbformat.write(notebook, path)
    return changed


def alts_of(output: nbformat.NotebookNode) -> list[str]:
    """Return the alternative texts that an output carries (see `utils.plot.show`)."""
    return [value["alt"] for value in output.get("metadata", {}).values() if "alt" in value]


def problems(path: Path) -> list[str]:
    """Say in what a notebook departs from the course's conventions."""
    notebook = nbformat.read(path, as_version=4)
    found = []
    if path.stat().st_size > LARGEST:
        found.append(f"{path.stat().st_size / 1e6:.1f} MB; at most {LARGEST / 1e6} MB")
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        found.append("not the outputs of one clean run from top to bottom: run it again")
    for number, cell in enumerate(notebook.cells):
        where = (
            f"cell {number} ({cell.source.strip().splitlines()[0][:50]!r})"
            if cell.source.strip()
            else f"cell {number}"
        )
        if not cell.source.strip():
            found.append(f"{where} is empty")
        if cell.cell_type == "code":
            found += [f"{where} {problem}" for problem in cell_problems(cell)]
        elif re.search(r"!\[\]\(|<img (?![^>]*alt=)", cell.source):
            found.append(f"{where} has an image without alternative text")
    if path.resolve().parent == NOTEBOOKS:
        found += chapter_problems(notebook, path)
    return found


def chapter_problems(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Say in what a chapter departs from the form that all chapters have."""
    number = int(path.name[:2])
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    sections = re.findall(r"^## (.+)", "\n".join(texts), re.MULTILINE)
    numbers = [section.split()[0] for section in sections[:-3]]
    exercises = exercises_of(notebook)
    solutions = path.parent / "solutions" / path.name
    found = []
    if not re.match(rf"# {number}\. .+\n\n\*[^*]", texts[0]):
        found.append(f"does not open with '# {number}. Title' and the question in *italics*")
    if "You will be able to" not in "\n".join(texts[:4]):
        found.append("does not say at its opening what 'You will be able to' do")
    if sections[-3:] != ["Summary", "Exercises", "Further reading"]:
        found.append("does not close with Summary, Exercises and Further reading")
    if numbers != [f"{number}.{i}" for i in range(1, len(numbers) + 1)]:
        found.append(f"has sections numbered {numbers}, not {number}.1, {number}.2 and so on")
    if not 3 <= len(exercises) <= 6:
        found.append(f"has {len(exercises)} exercises; three to six is the rule")
    for stub, check, name in exercises:
        if "raise NotImplementedError(" not in stub.source or "Hint" not in stub.source:
            found.append(f"exercise {name} has no stub that raises NotImplementedError('Hint: …')")
        if check is None:
            found.append(
                f"the exercise that begins {name[:40]!r} is not followed by a cell with its check "
                "alone, such as checks.name(name)"
            )
    if not solutions.exists():
        found.append(f"has no solutions: notebooks/solutions/{path.name} is missing")
    elif not {name for _, check, name in exercises if check} <= set(
        re.findall(r"checks\.(\w+)\(", solutions.read_text())
    ):
        found.append("has exercises that its solutions do not check")
    return found


def exercises_of(
    notebook: nbformat.NotebookNode,
) -> list[tuple[nbformat.NotebookNode, nbformat.NotebookNode | None, str]]:
    """Return each exercise's stub, the cell that checks it, and the name that both have.

    The check is the next cell, and in it `checks.name(name)` alone. Where it is not, there is None
    in its place, and the name is the stub's first line.
    """
    found = []
    for stub, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if "exercise" in stub.metadata.get("tags", []):
            line = after.source.strip() if after is not None else ""
            match = re.fullmatch(r"checks\.(\w+)\(\1\)", line)
            name = match[1] if match else stub.source.strip().split("\n")[0]
            found.append((stub, after if match else None, name))
    return found


def cell_problems(cell: nbformat.NotebookNode) -> list[str]:
    """Say in what a code cell departs from the conventions."""
    found = []
    tags = set(cell.metadata.get("tags", []))
    if tags - TAGS:
        found.append(f"has unknown tags {sorted(tags - TAGS)}; known: {sorted(TAGS)}")
    lines = [line for line in cell.source.splitlines() if line.strip()]
    if len(lines) > LONGEST_CELL and not tags & {"solution", "hide-input"}:
        found.append(f"is {len(lines)} lines long; split it")
    for output in cell.outputs:
        kind = output.output_type
        if kind == "stream" and output.name == "stderr":
            found.append(f"writes to stderr: {output.text.strip()[:80]!r}")
        if kind == "error" and "raises-exception" not in tags:
            found.append(f"raises {output.ename}")
        if kind in ("display_data", "execute_result"):
            drawn = {"image/svg+xml", "image/png"} & set(output.data)
            widget = "application/vnd.jupyter.widget-view+json" in output.data
            if drawn and not alts_of(output):
                found.append("shows a figure without alternative text: use plot.show(fig, alt=...)")
            if (drawn or widget) and "nbval-ignore-output" not in tags:
                found.append("shows a figure or widget: tag it nbval-ignore-output")
        shown = str(output)
        if str(ROOT) in shown or re.search(r"/(home|root|tmp|Users)/|[A-Z]:\\\\Users", shown):
            found.append("shows an absolute path of the machine it ran on")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="make a notebook of a percent-format script")
    building.add_argument("source", type=Path)
    building.add_argument("target", type=Path)
    for name, text in (
        ("run", "run in place, keep the outputs"),
        ("check", "check conventions"),
        ("refresh", "give saved explorers today's scripts"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("notebooks", type=Path, nargs="*")
    options = parser.parse_args()

    if options.command == "build":
        build(options.source, options.target)
        paths = [options.target]
    else:
        paths = options.notebooks or all_notebooks()
    failed = 0
    for path in paths:
        if options.command == "refresh":
            if refresh(path):
                print(f"{path}: explorers refreshed")
        elif options.command != "check":
            try:
                print(f"{path}: ran in {run(path.resolve()):.0f} s")
            except CellExecutionError as error:
                print(f"{path}: {error}", file=sys.stderr)
                return 1
        for problem in problems(path):
            print(f"{path}: {problem}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
