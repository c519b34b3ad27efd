"""The parts of the graders' path: what is sent, what is run, what is found and cleaned."""

import collections
import html
import json
import re
import socket
import sys
import threading
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import assignments  # noqa: E402
from grader import checker, course, slices, submissions, wire, worker  # noqa: E402
from grader.sandbox import Limits  # noqa: E402

from utils import checks  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


# --------------------------------------------------------------------------- what is sent
def there_and_back(value, **hooks):
    codec = wire.Codec(**hooks)
    return codec.unpack(json.loads(json.dumps(codec.pack(value))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(10**40),
        2.5,
        float("inf"),
        "a “text”\n",
        b"\x00\xff",
        1 + 2j,
        [1, [2.0, None]],
        (1, ("a",)),
        {1, 2},
        frozenset({"a"}),
        {(1, 2): [3], "k": {}},
        range(2, 9, 3),
        collections.deque([1, 2]),
        np.float32(0.1),
        np.int8(-3),
        np.bool_(True),
        np.str_("text"),
    ],
    ids=repr,
)
def test_plain_values_arrive_as_they_were(value):
    arrived = there_and_back(value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.array([[1.5, np.nan]], dtype=np.float32),
        np.zeros((0, 3)),
        np.array(2.0),
        np.array([True, False]),
        np.array(["ab", ""]),
        np.array(["", ""]),
        np.arange(12.0).reshape(3, 4).T,
        np.array([1j]),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_arrive_as_they_were(array):
    arrived = there_and_back(array)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.shape == array.shape and arrived.dtype.kind == array.dtype.kind
    arrived.setflags(write=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_arrive_as_they_were(dtype):
    tensor = torch.tensor([[0, 1, 2]]).to(dtype)
    arrived = there_and_back(tensor)
    assert arrived.dtype == dtype and torch.equal(arrived, tensor)
    leaf = torch.ones(2, requires_grad=True)
    assert there_and_back(leaf).requires_grad


def test_a_random_generator_goes_on_where_it_was():
    rng = np.random.default_rng(3)
    rng.normal(size=5)
    assert there_and_back(rng).normal() == rng.normal()


def test_subclasses_and_iterators_become_what_they_are_made_from():
    assert there_and_back(collections.Counter("aab")) == {"a": 2, "b": 1}
    assert there_and_back({"a": 1}.keys()) == {"a"}
    arrived = there_and_back(x * x for x in range(3))
    assert not isinstance(arrived, list) and list(arrived) == [0, 1, 4]


class Strange:
    def __repr__(self):
        return "strange \x1b[31m\ud800 thing"


def test_anything_else_arrives_as_something_that_is_no_answer():
    for value in (Strange(), Strange, len, np.array([object()]), np.zeros(2, "i4,f8")):
        assert isinstance(there_and_back(value), wire.Other)
    arrived = there_and_back(Strange())
    assert type(arrived).__name__ == "Strange"
    assert repr(arrived).isprintable()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"~": "module", "v": {}},
        {"~": "function", "v": 0},
        {"~": "array", "v": ["O", [1], "AAAAAAAAAAA="]},
        {"~": "array", "v": ["<f8", [10**12], ""]},
        {"~": "array", "v": ["<U0", [10**12], ""]},
        {"~": "array", "v": ["<f8", [-1, 2], ""]},
        {"~": "array", "v": ["i4,f8", [1], "AAAAAAAAAAAAAAAA"]},
        {"~": "tensor", "v": ["quint8", False, ["<f4", [0], ""]]},
        {"~": "tensor", "v": ["__class__", False, ["<f4", [0], ""]]},
        {"~": "generator", "v": {"~": "dict", "v": [["bit_generator", "os"]]}},
        {"~": "set", "v": [[1]]},
        {"~": "eval", "v": "1"},
        {"~": "plain", "v": [1]},
        {"~": ["tuple"], "v": []},
    ],
    ids=str,
)
def test_forged_data_is_refused(data):
    with pytest.raises(ValueError):
        wire.Codec().unpack(data)


def test_text_for_terminals_tables_and_pages_is_tame():
    assert wire.clean("a\x1b[31mb\nc\ud800") == "a [31mb c?"
    assert wire.clean("x" * 1000, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("body", [b"\xff", b"[]", b"[" * 100_000, b'{"a": NaN'])
def test_what_is_no_message_ends_the_conversation(body):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(len(body).to_bytes(8, "big") + body)
        with pytest.raises(wire.Gone):
            wire.Wire(ours).receive()
        theirs.sendall((2**40).to_bytes(8, "big"))
        with pytest.raises(wire.Gone):
            wire.Wire(ours).receive()


# ----------------------------------------------------------- checks of functions elsewhere
class Nearby:
    """In the place of a sandbox: a worker in a thread, for functions that can be trusted."""

    limits = Limits()

    def __init__(self):
        self.connection, theirs = socket.socketpair()
        self.worker = worker.Worker(theirs)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        self.worker.wire.send({"ready": True})
        try:
            while True:
                self.worker.wire.send(self.worker.call(self.worker.wire.receive()))
        except wire.Gone:
            pass

    def usage(self):
        return 0.0, 0

    def check(self, name, function, seed=0):
        session = checker.Session(self, float("inf"))
        remote = checker.Remote(session, self.worker.lend(function))
        result = session.check(getattr(checks, name), remote, seed)
        self.connection.close()
        return result


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_check_works_on_a_function_in_another_process(path):
    """No check gives its function what cannot be sent; right answers stay right on the way."""
    names = checks.names(int(path.name[:2]))
    namespace = {}
    solutions = nbformat.read(path.parent / "solutions" / path.name, as_version=4).cells
    imports = next(cell for cell in solutions if cell.cell_type == "code")
    for cell in solutions:
        if cell is imports or re.match(rf"def ({'|'.join(names)})\b", cell.source):
            exec(cell.source, namespace)
    for name in names:
        assert Nearby().check(name, namespace[name]).passed, name


def change(x, axis=-1):
    x += 1
    return x


def fail(x, axis=-1):
    raise KeyError("no such key")


WRONG_SOFTMAX = [
    lambda x, axis=-1: np.exp(x),
    lambda x, axis=-1: None,
    lambda x, axis=-1: Strange(),
    lambda x, axis=-1: torch.zeros(2),
    lambda x, axis=-1: (i for i in range(3)),
    lambda x: x,
    change,
    fail,
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("wrong", WRONG_SOFTMAX)
def test_wrong_answers_get_the_same_words_from_there(wrong):
    here = checks.stable_softmax(wrong)
    there = Nearby().check("stable_softmax", wrong)
    assert there.status == here.status == "failed"
    assert there.message == wire.clean(here.message)


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (NotImplementedError("later"), "not attempted", "not attempted yet"),
        (SystemExit(0), "failed", "ends the program"),
        (KeyboardInterrupt(), "failed", "raised KeyboardInterrupt"),
        (type("Odd\n", (Exception,), {})("\x1b[2J"), "failed", "raised Odd"),
    ],
)
def test_whatever_a_function_raises_becomes_a_sentence(raised, status, words):
    def raises(x, axis=-1):
        raise raised

    result = Nearby().check("stable_softmax", raises)
    assert result.status == status
    assert words in result.message and result.message.isprintable()


# -------------------------------------------------------------------------- what is run
NOTEBOOK = [
    "import numpy as np\nimport torch\nfrom math import exp as e",
    "x = np.ones(3)\nmodel = train()\nprint(model)",
    "def helper(z):\n    return np.exp(z) / scale",
    "scale = 2.0\ntable = {}",
    "table['a'] = 1\nmodel.fit(x)\ntorch.manual_seed(0)",
    "def answer(x, model=None):\n    return sum(helper(v) for v in x) + table['a']",
    "def elsewhere():\n    global scale\n    scale = 3",
]


def test_only_what_a_function_needs_is_run():
    statements = [s for n, source in enumerate(NOTEBOOK) for s in slices.statements_of(n, source)]
    chosen = [(s.cell, s.number) for s in slices.needed("answer", statements)]
    # neither `x` nor `model`, which inside the function are its arguments, nor torch
    assert chosen == [(0, 0), (2, 0), (3, 0), (3, 1), (4, 0), (5, 0), (6, 0)]


def test_the_chosen_statements_are_enough_for_the_solutions_of_a_chapter():
    """The chapter's own cells, its stubs solved, reduced to what each exercise needs."""
    cells = chapter_cells("04_attention")
    statements = [s for n, c in enumerate(cells) for s in slices.statements_of(n, c)]
    for name in checks.names(4):
        chosen = slices.needed(name, statements)
        assert len(chosen) < 10
        namespace = {}
        for statement in chosen:
            exec(compile(slices.ast.Module([statement.node], []), "cell", "exec"), namespace)
        assert getattr(checks, name)(namespace[name]).passed


def chapter_cells(stem):
    solved = nbformat.read(ROOT / f"notebooks/solutions/{stem}.ipynb", as_version=4).cells
    answers = {m[1]: c.source for c in solved if (m := re.match(r"def (\w+)", c.source))}
    found = []
    for cell in nbformat.read(ROOT / f"notebooks/{stem}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            name = re.match(r"def (\w+)", cell.source)
            is_stub = "exercise" in cell.metadata.get("tags", [])
            found.append(answers[name[1]] if is_stub else cell.source)
    return found


@pytest.mark.parametrize("source", ["def f(:", "\0", "(" * 5000, "x = " + "-" * 100_000 + "1"])
def test_a_cell_that_cannot_be_read_is_a_syntax_error(source):
    with pytest.raises(SyntaxError):
        slices.statements_of(0, source)


# ------------------------------------------------------------------- what is handed in
@pytest.mark.parametrize("text", ["04", "4", "04_attention", "04_attention.ipynb", " 4 "])
def test_a_chapter_has_several_names(text):
    assert course.chapter_of(text).name == "04_attention.ipynb"


@pytest.mark.parametrize("text", ["77", "", "attention", "04_tokens", "../04", "4x"])
def test_a_chapter_that_does_not_exist_gets_those_that_do(text):
    with pytest.raises(ValueError, match=r"there is no chapter .*00_start_here.*20_debugging"):
        course.chapter_of(text)


def test_points_are_read_and_wrong_ones_refused():
    assert assignments.points_of("a=2, b=0.5") == {"a": 2.0, "b": 0.5}
    assert assignments.points_of("") == {}
    for text in ("a", "a=", "a=x", "a=-1", "a=0", "a=nan"):
        with pytest.raises(ValueError, match="POINTS says"):
            assignments.points_of(text)
    with pytest.raises(ValueError, match="has no exercise b; it has sequence_probability"):
        course.make_source(course.chapter_of("0"), {"b": 1})


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_makes_an_assignment_without_solutions(path):
    source = course.make_source(path, {})
    stubs = [c for c in source.cells if c.metadata.get("nbgrader", {}).get("solution")]
    tests = [c for c in source.cells if c.metadata.get("nbgrader", {}).get("grade")]
    names = sorted(c.metadata.nbgrader.grade_id for c in stubs)
    assert names == sorted(checks.names(int(path.name[:2])))
    assert len(tests) == len(stubs)
    assert all("raise NotImplementedError(" in cell.source for cell in stubs)
    solved = nbformat.read(path.parent / "solutions" / path.name, as_version=4).cells
    answers = [c.source for c in solved if "solution" in c.metadata.get("tags", [])]
    handed_out = {line.strip() for cell in stubs for line in cell.source.splitlines()}
    everything = "\n".join(cell.source for cell in source.cells)
    for answer in answers:
        assert answer not in everything
        body = re.sub(r'""".*?"""', "", answer, flags=re.DOTALL).splitlines()[1:]
        leaked = {line.strip() for line in body if line.strip()} & handed_out
        assert not leaked, leaked


def write(path, *cells, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=metadata), path)


def found(folder):
    return {s.student: s.problem or s.path.name for s in submissions.find(folder, "04_attention")}


def test_both_layouts_are_found_and_problems_are_named(tmp_path):
    write(tmp_path / "flat.ipynb")
    write(tmp_path / "nbgrader/04_attention/04_attention.ipynb")
    write(tmp_path / "nbgrader/04_attention/04_attention-Copy1.ipynb")
    write(tmp_path / "nbgrader/05_positions/05_positions.ipynb")
    write(tmp_path / "short/4/anything.ipynb")
    write(tmp_path / "download/mine.ipynb")
    write(tmp_path / "download/.ipynb_checkpoints/mine.ipynb")
    write(tmp_path / "twice.ipynb")
    write(tmp_path / "twice/04/x.ipynb")
    write(tmp_path / "many/a.ipynb")
    write(tmp_path / "many/b.ipynb")
    write(tmp_path / "both/04/a.ipynb")
    write(tmp_path / "both/4/a.ipynb")
    (tmp_path / "absent/04_attention").mkdir(parents=True)
    write(tmp_path / "a*b.ipynb")
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "flat.ipynb")
    (tmp_path / "linked").symlink_to(tmp_path / "download")
    (tmp_path / ".hidden.ipynb").touch()
    (tmp_path / "notes.txt").touch()
    assert found(tmp_path) == {
        "flat": "flat.ipynb",
        "nbgrader": "04_attention.ipynb",
        "short": "anything.ipynb",
        "download": "mine.ipynb",
        "twice": "there are 2 notebooks (x.ipynb and twice.ipynb): leave one",
        "many": "there are 2 notebooks (a.ipynb and b.ipynb): leave one",
        "both": "there are two folders for this chapter: 04 and 4",
        "absent": "there is no notebook for chapter 04",
        "a*b": "the name cannot be one: use letters, digits and . _ - @ + only, beginning with a "
        "letter or digit",
        "link": "the notebook is a link or no ordinary file, and is not read",
        "linked": "the folder is a link to another place, which is not followed",
    }


def test_a_folder_without_submissions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        submissions.find(tmp_path / "nowhere", "04_attention")
    with pytest.raises(ValueError, match="holds no submissions"):
        submissions.find(tmp_path, "04_attention")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"cells": [', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "no notebook of today's format"),
        (b'{"worksheets": []}', "no notebook of today's format"),
        (json.dumps({"cells": [{}] * 3000}).encode(), "3,000 cells"),
    ],
)
def test_a_damaged_notebook_is_named(content, words, tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(submissions.Unreadable, match=words):
        submissions.read(path)


EXERCISES = [submissions.Exercise("f", "4.1", 1.0), submissions.Exercise("g", "4.2", 2.0)]
CODE = nbformat.v4.new_code_cell


def handed_out(name, points):
    cell = CODE(f"checks.{name}({name})")
    cell.metadata["nbgrader"] = submissions.marks(f"{name}-check", points)
    return cell


TEXTS = {"# What was **handed out**"}
CHECKS = {"f": handed_out("f", 1.0), "g": handed_out("g", 2.0)}


def marked(source, grade_id, **changes):
    cell = CODE(source, outputs=[nbformat.v4.new_output("stream", text="✓ 100 points")])
    is_check = grade_id.endswith("-check")
    cell.metadata["nbgrader"] = submissions.marks(grade_id, 1.0 if is_check else None) | changes
    return cell


TAMPERED = {
    "as handed out": [
        marked("def f(): pass", "f"),
        marked("checks.f(f)", "f-check"),
        marked("def g(): pass", "g"),
        marked("checks.g(g)", "g-check"),
    ],
    "no metadata": [CODE("def f(): pass"), CODE("checks.f(f)"), CODE("def g(): pass")],
    "checks altered": [
        marked("def f(): pass", "f"),
        marked("print('✓ f: correct.')", "f-check", points=100, grade=False, solution=True),
        marked("def g(): pass", "g", grade=True, points=50),
        marked("2.0", "g-check", grade="yes", schema_version=99),
    ],
    "checks deleted": [marked("def f(): pass", "f"), marked("def g(): pass", "g")],
    "cells copied": [
        marked("def f(): pass", "f"),
        marked("checks.f(f)", "f-check"),
        marked("checks.f(f)", "f-check"),
        marked("def g(): pass", "g"),
        marked("checks.g(g)", "g-check"),
        CODE("checks.g(g)"),
    ],
    "strange metadata": [
        {"cell_type": "code", "source": ["def f(): ", "pass"], "metadata": {"nbgrader": "x"}},
        {
            "cell_type": "code",
            "source": "def g(): pass",
            "metadata": {"nbgrader": {"grade_id": []}},
        },
    ],
}


@pytest.mark.parametrize("cells", TAMPERED.values(), ids=TAMPERED)
def test_checks_stand_where_they_belong_whatever_was_done_to_them(cells, tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))
    work = submissions.clean_copy(path, EXERCISES, CHECKS, TEXTS)
    assert work.code == ["def f(): pass", "def g(): pass"]
    assert work.above == {"f": 1, "g": 2}
    names = [cell.metadata.nbgrader.grade_id for cell in work.notebook.cells]
    assert names == ["f", "f-check", "g", "g-check"]
    for cell in work.notebook.cells:
        assert not cell.outputs
        name = cell.metadata.nbgrader.grade_id
        if name.endswith("-check"):
            assert cell.source == CHECKS[name.removesuffix("-check")].source
            assert cell.metadata.nbgrader == CHECKS[name.removesuffix("-check")].metadata.nbgrader
    nbformat.validate(work.notebook)


def test_an_exercise_that_was_deleted_keeps_its_check(tmp_path):
    path = tmp_path / "x.ipynb"
    write(path, CODE("def g(): pass"))
    work = submissions.clean_copy(path, EXERCISES, CHECKS, TEXTS)
    assert set(work.above) == {"f", "g"}
    assert sum(c.metadata.get("nbgrader", {}).get("grade", False) for c in work.notebook.cells) == 2


def test_a_text_of_the_students_own_is_shown_as_it_was_typed(tmp_path):
    path = tmp_path / "x.ipynb"
    own = "<script>alert(1)</script>\n\n```\n<b>"
    kinds = nbformat.v4.new_markdown_cell, nbformat.v4.new_raw_cell
    write(path, kinds[0](*TEXTS), kinds[0](own), kinds[1](own, metadata={"format": "text/html"}))
    known, typed, raw = submissions.clean_copy(path, [], {}, TEXTS).notebook.cells
    assert known.source in TEXTS
    assert typed.cell_type == raw.cell_type == "markdown"
    assert typed.source == raw.source == f"<pre>{html.escape(own)}</pre>"


TRICKS = [
    "<script>alert(1)</script>",
    "\n\n<script>alert(1)</script>",
    "$$ <script>alert(1)</script> $$",
    "\\begin{equation}<script>alert(1)</script>\\end{equation}",
    "x\r<script>alert(1)</script>",
    "\u2028<script>alert(1)</script>",
    "\x0c<script>alert(1)</script>",
    "- a\n\n<script>alert(1)</script>",
    "`a\n</code></pre><script>alert(1)</script>",
    "</pre>\n\n<script>alert(1)</script>",
    "<pre>\n\n</pre>\n\n<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1)) [b][b]\n\n[b]: javascript:alert(1)",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_that_a_student_wrote_runs_in_a_page(trick, tmp_path):
    path = tmp_path / "x.ipynb"
    cells = [nbformat.v4.new_markdown_cell(trick), nbformat.v4.new_raw_cell(trick), CODE(trick)]
    write(path, *cells)
    notebook = submissions.clean_copy(path, [], {}, TEXTS).notebook
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    soup = BeautifulSoup(page, "html.parser").find(id="notebook-container")
    assert "alert(1)" in soup.get_text()
    assert not [s for s in soup.find_all("script") if "alert" in s.get_text()]
    assert not soup.find_all(onerror=True)
    assert not [link for link in soup.find_all("a") if "javascript" in link.get("href", "")]


def test_a_spreadsheet_takes_no_text_for_a_formula(tmp_path):
    outcome = {"f": ("failed", "=1+1")}
    results = [assignments.Graded("x", {"f": 0.0}, outcome)]
    assignments.write_table(tmp_path / "t.csv", results, EXERCISES[:1])
    assert "'=1+1" in (tmp_path / "t.csv").read_text()
