"""The notebook tool finds what departs from the conventions, and leaves clean notebooks alone."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts/notebooks.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

IGNORED = {"tags": ["nbval-ignore-output"]}


def svg(alt=None):
    metadata = {"image/svg+xml": {"alt": alt}} if alt else {}
    return new_output("display_data", {"image/svg+xml": "<svg/>"}, metadata=metadata)


def code(source="x = 1", outputs=(), metadata=None, count=1):
    return new_code_cell(
        source, outputs=list(outputs), metadata=metadata or {}, execution_count=count
    )


def problems_of(tmp_path, *cells):
    path = tmp_path / "notebook.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return tool.problems(path)


def test_a_clean_notebook_has_no_problems(tmp_path):
    cells = [
        new_markdown_cell("# Title"),
        code("1 + 1", [new_output("execute_result", {"text/plain": "2"}, execution_count=1)]),
        code("draw()", [svg("A line that rises.")], IGNORED, count=2),
    ]
    assert problems_of(tmp_path, *cells) == []


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (code(outputs=[new_output("stream", name="stderr", text="Warning!")]), "stderr"),
        (code(outputs=[new_output("error", ename="ValueError")]), "raises ValueError"),
        (code(outputs=[svg()], metadata=IGNORED), "without alternative text"),
        (code(outputs=[svg("A line that rises.")]), "tag it nbval-ignore-output"),
        (code(outputs=[new_output("stream", text="/home/someone/x.py")]), "absolute path"),
        (code(outputs=[new_output("stream", text=f"{ROOT}/x.py")]), "absolute path"),
        (code(metadata={"tags": ["nbval_ignore_output"]}), "unknown tags"),
        (code("\n".join(["x = 1"] * 26)), "26 lines long"),
        (code(""), "is empty"),
        (code(count=None), "clean run"),
        (code(count=5), "clean run"),
        (new_markdown_cell("![](figure.png)"), "without alternative text"),
        (new_markdown_cell('<img src="figure.png">'), "without alternative text"),
        (code(outputs=[new_output("stream", text="x" * 2_000_000)]), "2.0 MB"),
    ],
)
def test_each_departure_is_named(tmp_path, cell, words):
    found = problems_of(tmp_path, cell)
    assert any(words in problem for problem in found), found


def test_an_error_that_the_chapter_means_to_show_is_allowed(tmp_path):
    shown = code(
        outputs=[new_output("error", ename="ValueError")], metadata={"tags": ["raises-exception"]}
    )
    assert problems_of(tmp_path, shown) == []


def test_metadata_is_reduced_and_the_alternative_text_passed_on():
    notebook = new_notebook(
        cells=[
            code(
                outputs=[svg("A line that rises.")],
                metadata={"execution": {"started": "now"}, **IGNORED},
            ),
            code(outputs=[new_output("stream", text="a"), new_output("stream", text="b")]),
        ],
        metadata={"kernelspec": {"display_name": "mine", "name": "mine"}, "signature": "x"},
    )
    tool.normalise(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "signature" not in notebook.metadata
    assert notebook.cells[0].metadata == {
        **IGNORED,
        "mystnb": {"image": {"alt": "A line that rises."}},
    }
    assert [output.text for output in notebook.cells[1].outputs] == ["ab"]


def test_building_twice_gives_the_same_cell_ids(tmp_path):
    source = tmp_path / "source.py"
    source.write_text("# %% [markdown]\n# # Title\n\n# %%\nx = 1\n\n# %%\nx = 1\n")
    ids = []
    for _ in range(2):
        tool.build(source, tmp_path / "built.ipynb")
        ids.append([cell.id for cell in nbformat.read(tmp_path / "built.ipynb", 4).cells])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


@pytest.mark.parametrize("path", tool.all_notebooks(), ids=lambda path: path.stem)
def test_every_exercise_has_a_check_in_its_chapter_and_a_solution(path):
    """The checks that a chapter calls are its own, and its solutions call all of them."""
    if path.parent.name == "solutions":
        assert (tool.NOTEBOOKS / path.name).exists()
        return
    called = checks_called(path)
    assert len(called) >= 3
    solved = checks_called(tool.NOTEBOOKS / "solutions" / path.name)
    assert called <= solved

    from utils import checks

    assert called == set(checks.names(chapter=int(path.name[:2])))


def checks_called(path):
    sources = "\n".join(
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"
    )
    return set(re.findall(r"checks\.(\w+)\(\1", sources))


def test_refresh_gives_saved_explorers_todays_scripts_and_nothing_else(tmp_path):
    from utils.widgets import PositionExplorer

    path = tmp_path / "notebook.ipynb"
    kind = "utils.widgets.positions.PositionExplorer"
    old = {"_esm": "old", "_css": "old", "_anywidget_id": kind, "data": {"offset": 3}}
    models = {
        "a": {"model_module": "anywidget", "state": dict(old)},
        "b": {"model_module": "@jupyter-widgets/base", "state": {"_esm": "not ours"}},
    }
    notebook = new_notebook(cells=[new_markdown_cell("# Title")])
    kept = "application/vnd.jupyter.widget-state+json"
    notebook.metadata["widgets"] = {kept: {"state": models, "version_major": 2}}
    nbformat.write(notebook, path)
    assert tool.refresh(path)
    found = nbformat.read(path, as_version=4).metadata.widgets[kept].state
    today = {"_esm": PositionExplorer._esm, "_css": PositionExplorer._css}
    assert found["a"].state == {**old, **today}
    assert found["b"].state == {"_esm": "not ours"}
    before = path.read_bytes()
    assert not tool.refresh(path)
    assert path.read_bytes() == before
