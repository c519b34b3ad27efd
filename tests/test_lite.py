"""Copies of chapters for the browser, and the parts that run them: only what was recorded."""

import ast
import io
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import build_book  # noqa: E402
import build_lite  # noqa: E402

# What a browser lacks is not there, as far as a cell can tell.
NO_TORCH = """
import importlib.util, sys
for name in {names}: sys.modules[name] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {names} else find(name, *rest)
"""


def copy_of(*cells):
    title = new_markdown_cell("# A chapter")
    return build_lite.for_the_browser(new_notebook(cells=[title, *cells])).cells[2:]


# ------------------------------------------------------------------------------- the copies
def test_a_cell_that_needs_torch_becomes_text_with_what_it_printed():
    printed = [
        new_output("stream", text="a line\n"),
        new_output("display_data", {"image/svg+xml": "<svg/>", "text/plain": "<Figure>"}),
        new_output("execute_result", {"text/plain": "7"}),
    ]
    cells = copy_of(
        new_code_cell("import numpy as np\nimport torch\nfrom torch.nn import functional as F"),
        new_code_cell("F.relu(x)", outputs=printed),
    )
    assert cells[0].source.split("\n") == [
        "import numpy as np",
        "# not in the browser: import torch",
        "# not in the browser: from torch.nn import functional as F",
    ]
    assert cells[1].cell_type == "markdown"
    assert "it needs PyTorch" in cells[1].source and "F.relu(x)" in cells[1].source
    assert "a line\n7\n" in cells[1].source and "Figure" not in cells[1].source


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        ("print(np.ones(3))", True),
        ("print(theirs)", False),  # made by a cell that does not run
        ("theirs = 1", True),
        ("get_device()", False),  # imports torch when it is called
        ("attention.torch_attention(q, k, v)", False),
        ("attention.softmax(np.ones(3))", True),
        ("layers.LayerNorm(3)", False),  # its module imports torch
        ("def f():\n    return torch.ones(3)", False),
    ],
)
def test_what_a_browser_cannot_run_is_found(source, runs):
    first = "import numpy as np\nimport torch\nfrom utils import attention, get_device"
    *_, last = copy_of(
        new_code_cell(first),
        new_code_cell("from utils import layers"),
        new_code_cell("theirs = torch.ones(3)"),
        new_code_cell(source),
    )
    assert (last.cell_type == "code") == runs


def test_a_name_that_is_made_anew_can_be_used_again():
    *_, last = copy_of(
        new_code_cell("import torch"),
        new_code_cell("x = torch.ones(3)"),
        new_code_cell("x = [1, 2]"),
        new_code_cell("print(x)"),
    )
    assert last.cell_type == "code"


def test_the_copy_starts_without_outputs_and_links_only_to_what_is_there():
    output = [new_output("stream", text="old")]
    text = "See [one](01_language_models.ipynb#part) and [its solution](solutions/02_tokens.ipynb)."
    words, code = copy_of(
        new_markdown_cell(text), new_code_cell("1", outputs=output, execution_count=3)
    )
    assert words.source == "See [one](01_language_models.ipynb#part) and its solution."
    assert (code.outputs, code.execution_count) == ([], None)


@pytest.mark.parametrize("chapter", build_lite.CHAPTERS)
def test_most_of_each_chapter_runs_in_a_browser(chapter):
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    copied = build_lite.for_the_browser(notebook)
    nbformat.validate(copied)
    before, after = (sum(c.cell_type == "code" for c in n.cells) for n in (notebook, copied))
    assert after > before / 2
    for cell in copied.cells:
        if cell.cell_type == "code":
            imported = set().union(*map(build_lite.imports, ast.walk(ast.parse(cell.source))))
            assert not imported & set(build_lite.ABSENT)


@pytest.mark.parametrize("chapter", ["04_attention", "05_positions"])
def test_a_copy_runs_to_its_end_without_torch(chapter):
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    copied = build_lite.for_the_browser(notebook)
    copied.metadata = notebook.metadata
    names = sorted(build_lite.ABSENT)
    copied.cells.insert(0, new_code_cell(NO_TORCH.format(names=names)))
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(copied, timeout=120, resources=folder).execute()  # raises at the first error


def test_the_blocking_above_blocks():
    notebook = new_notebook(
        cells=[
            new_code_cell(NO_TORCH.format(names=["torch"])),
            new_code_cell("from utils import get_device\nget_device()"),
        ]
    )
    folder = {"metadata": {"path": str(ROOT / "notebooks")}}
    with pytest.raises(Exception, match="torch"):
        NotebookClient(notebook, timeout=60, resources=folder).execute()


# ------------------------------------------------------------------------------- the website
def test_a_chapter_leads_to_its_copy_only_where_the_site_has_one():
    there = "?path=04_attention.ipynb"
    assert any(there in link for link in build_book.companions("notebooks/04_attention", lite=True))
    assert not any(there in link for link in build_book.companions("notebooks/04_attention"))
    assert "lite/" not in str(build_book.companions("notebooks/10_mini_gpt", lite=True))


# ------------------------------------------------------------------------------- the parts
def test_a_part_that_was_changed_is_no_part(tmp_path):
    name = "comm"
    line = build_lite.WHEELS[name]
    version = line.split("==")[1].split()[0]
    path = tmp_path / f"{name}-{version}-py3-none-any.whl"
    path.write_bytes(b"something else")
    assert build_lite.wheel(name, tmp_path) is None


def test_a_compiled_package_that_is_not_pyodides_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build_lite, "CACHE", tmp_path)
    carrier = tmp_path / "carrier.whl"
    with zipfile.ZipFile(carrier, "w") as archive:
        archive.writestr(f"{build_lite.INSIDE}/numpy.whl", b"numpy")
    good = {"numpy.whl": build_lite.sha256_of(b"numpy")}
    build_lite.take_out(carrier, good)
    assert (tmp_path / "numpy.whl").read_bytes() == b"numpy"
    with pytest.raises(build_lite.LiteError, match="not the one of Pyodide"):
        build_lite.take_out(carrier, {"numpy.whl": build_lite.sha256_of(b"other")})


def test_every_part_is_pinned_with_a_checksum():
    for line in build_lite.WHEELS.values():
        assert len(line.partition(" --hash=sha256:")[2]) == 64, line
    needed = {name for needs in build_lite.PURE.values() for name in needs}
    assert needed - set(build_lite.WHEELS) == {"widgetsnbextension"}  # the kernel brings its own


def test_offline_with_an_empty_cache_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(build_lite.fetch_assets, "CACHE", tmp_path)
    monkeypatch.setattr(build_lite, "CACHE", tmp_path / "lite")
    with pytest.raises(build_lite.fetch_assets.AssetError, match=r"pyodide.*with a network"):
        build_lite.fetch(offline=True)


def test_the_courses_wheel_has_its_code_and_data():
    name, data = build_lite.course_wheel()
    files = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert {"utils/__init__.py", "utils/checks/ch04.py", "utils/widgets/attention.js"} <= set(files)
    assert name.endswith("-py3-none-any.whl")
    assert build_lite.course_wheel()[1] == data  # the same sources, the same bytes
