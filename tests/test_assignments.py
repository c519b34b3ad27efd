"""An assignment is made, handed in by all sorts of students, and graded, from end to end.

The hostile ones really try: each leaves a trace of its attempt in the message of its grade, and
each is shown to do its damage where nothing stops it.
"""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import assignments  # noqa: E402
from grader import checker  # noqa: E402
from grader.sandbox import Limits  # noqa: E402

pytestmark = pytest.mark.slow

CHAPTER = "00_start_here"
FIRST, SECOND, THIRD = "sequence_probability", "sequence_log_probability", "all_dot_products"
SLEEP = "54321.75"  # seconds; no other process sleeps so long
CODE = nbformat.v4.new_code_cell


def answers():
    solved = nbformat.read(ROOT / f"notebooks/solutions/{CHAPTER}.ipynb", as_version=4)
    return {m[1]: c.source for c in solved.cells if (m := re.match(r"def (\w+)", c.source))}


def with_line(name, line):
    """Return a right answer that runs a line of something else before it answers."""
    head, doc, *body = answers()[name].splitlines()
    return "\n".join([head, doc, textwrap.indent(line, "    "), *body])


WRONG = "def all_dot_products(queries, keys):\n    return keys @ queries.T"
FORGED = WRONG.replace("return", "forge()\n    return")

# What each hostile notebook does, as a function that tells in an error how far it came.
DELETE = """
def destroy(folders, places):
    import os, shutil
    tried, gone, written = 0, 0, 0
    for folder in folders:
        tried += 1
        there = os.path.isdir(folder)
        shutil.rmtree(folder, ignore_errors=True)
        gone += there and not os.path.isdir(folder)
    for place in places:
        tried += 1
        try:
            with open(os.path.join(place, "hostile_marker.py"), "w") as file:
                file.write("raise SystemExit")
            written += 1
        except OSError:
            pass
    return f"tried {tried}, deleted {gone}, wrote {written}"
"""
DAEMON = """
def leave_behind(seconds):
    import os
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", seconds])
        os._exit(0)
    os.wait()
    return "left a process behind"
"""
FORGE = """
import sys
print("✓ all_dot_products: correct.\\nscore 5/5\\n1.0")
print('{"name": "all_dot_products", "status": "passed", "message": "correct."}')
sys.__stdout__.write('{"name": "all_dot_products", "status": "passed", "message": ""}\\n')

def forge():
    import numpy as np
    from utils import checks
    checks.names()
    for module in [m for name, m in list(sys.modules.items()) if name.startswith("utils.checks")]:
        for name in ("wrong", "reject_known", "close"):
            setattr(module, name, lambda *args, **kwargs: True)
    np.allclose = np.array_equal = lambda *args, **kwargs: True
    return "patched the checks and numpy"
"""
INTRUDE = """
def intrude():
    import gc, json, socket
    for thing in gc.get_objects():
        if type(thing) is socket.socket:
            body = json.dumps({"answer": 0.123, "passed": True, "status": "passed"}).encode()
            thing.sendall(len(body).to_bytes(8, "big") + body)
"""
HOG = "kept = []\nfor _ in range(1000):\n    kept.append(bytearray(b'x' * 10**8))"


def forged_notebook(notebook):
    """Write points, passes and outputs wherever they might be believed."""
    shown = nbformat.v4.new_output(
        "execute_result", data={"text/plain": "✓ all_dot_products: correct."}, execution_count=1
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown]
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "1.0"
            cell.metadata.nbgrader |= {"points": 100.0, "score": 100.0, "auto_score": 100.0}
    for new_cell in (nbformat.v4.new_markdown_cell, nbformat.v4.new_raw_cell):
        notebook.cells.append(new_cell("<script>alert(1)</script><img src=x onerror=alert(2)>"))
    notebook.cells[0].metadata["nbgrader"] = {
        "grade": True,
        "solution": False,
        "locked": False,
        "grade_id": f"{THIRD}-check",
        "points": 50,
        "schema_version": 3,
    }


def tampered(notebook):
    """Delete the checks, the tags and nbgrader's marks; add copies; the answers stay right."""
    notebook.cells = [
        cell for cell in notebook.cells if not cell.metadata.get("nbgrader", {}).get("grade")
    ]
    for cell in notebook.cells:
        cell.metadata = {}


def run_make(*words):
    done = subprocess.run(
        ["make", "-s", *words],
        cwd=ROOT,
        env=os.environ | {"COURSE_RECORD": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def run_script(*words):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/assignments.py"), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def digests(*folders):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def rows(table):
    with table.open(encoding="utf-8") as file:
        return {(row["student"], row["name"]): row for row in csv.DictReader(file)}


class Class:
    """A class of students, graded twice: two honest ones alone, then all of them."""

    early = ("right", "wrong")
    late = ("crashing", "tampered")
    hostile = ("deleter", "daemon", "hog", "loop", "forger", "intruder")
    broken = ("corrupt", "twice", "absent", "linked")

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "grades of 2026"
        self.submissions, self.secret = folder / "submissions", folder / "secret"
        self.submissions.mkdir()
        self.secret.mkdir()
        (self.secret / "exam.txt").write_text("not for students")
        code, said, error = run_script("make", "0", "--out", self.out, "--points", f"{THIRD}=2")
        assert code == 0, error
        self.said = said
        self.released = self.out / "release" / CHAPTER / f"{CHAPTER}.ipynb"
        self.hand_in_some()
        self.first = self.grade()
        self.before = digests(self.submissions, self.secret, ROOT / "utils/checks")
        self.pages = digests(*(self.out / d / s for d in ("autograded", "feedback", "cleaned")
                               for s in self.early))  # fmt: skip
        self.hand_in_more()
        self.hand_in_hostile()
        self.before |= digests(self.submissions)
        began = time.monotonic()
        self.second = self.grade()
        self.seconds = time.monotonic() - began

    def grade(self):
        code, said, error = run_script("grade", "0", self.submissions, "--out", self.out)
        assert code == 0, error
        assert "Traceback" not in error
        return said, rows(self.out / f"grades_{CHAPTER}.csv")

    def hand_in(self, name, changes, edit=None, extra=(), path=None):
        notebook = nbformat.read(self.released, as_version=4)
        for cell in notebook.cells:
            name_of_cell = cell.metadata.get("nbgrader", {}).get("grade_id")
            cell.source = changes.get(name_of_cell, cell.source)
        notebook.cells[1:1] = [CODE(source) for source in extra]
        if edit:
            edit(notebook)
        path = path or self.submissions / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    def hand_in_some(self):
        right = answers()
        self.hand_in("right", right)
        self.hand_in("wrong", {FIRST: right[FIRST], THIRD: WRONG})

    def hand_in_more(self):
        right = answers()
        exits = with_line(SECOND, "import os; os._exit(0)")
        self.hand_in("crashing", right | {SECOND: exits, THIRD: "def all_dot_products(queries:"})
        elsewhere = self.submissions / "tampered" / CHAPTER / "my work.ipynb"
        self.hand_in("tampered", right, tampered, path=elsewhere)

    def hand_in_hostile(self):
        right, tell = answers(), "raise RuntimeError({})"
        targets = [str(path) for path in (self.submissions, self.out, self.secret)]
        places = [ROOT / "utils", ROOT / "utils/checks", self.secret, self.out, Path.home()]
        deeds = {
            "deleter": (tell.format(f"destroy({targets}, {list(map(str, places))})"), DELETE),
            "daemon": (tell.format(f"leave_behind({SLEEP!r})"), DAEMON),
            "hog": (HOG, ""),
            "loop": ("while True: pass", ""),
            "intruder": ("intrude()", INTRUDE),
        }
        for student, (deed, helper) in deeds.items():
            self.hand_in(student, right | {FIRST: with_line(FIRST, deed)}, extra=[helper])
        told = with_line(SECOND, tell.format("forge()"))
        forging = {FIRST: right[FIRST], SECOND: told, THIRD: FORGED}
        self.hand_in("forger", forging, forged_notebook, [FORGE])
        (self.submissions / "corrupt.ipynb").write_text('{"cells": [')
        self.hand_in("twice", right)
        self.hand_in("twice", right, path=self.submissions / "twice" / CHAPTER / "again.ipynb")
        (self.submissions / "absent").mkdir()
        (self.submissions / "linked.ipynb").symlink_to(self.submissions / "right.ipynb")

    def points(self, student, graded=None):
        table = (graded or self.second)[1]
        return [float(table[student, name]["points"]) for name in (FIRST, SECOND, THIRD)]

    def message(self, student, name):
        return self.second[1][student, name]["message"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    walls, reasons = checker.best_walls()
    if walls == "none":
        pytest.skip(f"nothing here walls off students' code: {reasons}")
    return Class(tmp_path_factory.mktemp("class"))


# ------------------------------------------------------------------------- the assignment
def test_make_says_which_chapters_there_are_and_hands_out_none_that_does_not_exist(tmp_path):
    code, _, error = run_make("assignment", "CHAPTER=77", f"OUT={tmp_path}")
    assert code != 0
    assert "there is no chapter '77'" in error and "04_attention" in error


def test_grade_asks_for_a_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["assignments.py", "grade", "4", ""])
    assert assignments.main() == 1
    assert "SUBMISSIONS=folder" in capsys.readouterr().err


def test_the_students_notebook_has_stubs_and_locked_checks_and_no_solution(graded):
    assert "3 exercises, 4 points" in graded.said
    notebook = nbformat.read(graded.released, as_version=4)
    text = graded.released.read_text(encoding="utf-8")
    for answer in answers().values():
        for line in answer.splitlines()[2:]:
            assert json.dumps(line.strip())[1:-1] not in text
    assert "HIDDEN" not in text
    marks = {
        cell.metadata.nbgrader.grade_id: cell
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    }
    assert list(marks) == [n for name in (FIRST, SECOND, THIRD) for n in (name, f"{name}-check")]
    assert "raise NotImplementedError" in marks[FIRST].source
    assert marks[f"{THIRD}-check"].source == f"checks.{THIRD}({THIRD})"
    assert marks[f"{THIRD}-check"].metadata.editable is False
    assert marks[f"{THIRD}-check"].metadata.nbgrader.points == 2
    assert all(not cell.get("outputs") for cell in notebook.cells)


# ------------------------------------------------------------------------------ honest work
@pytest.mark.parametrize(
    ("student", "points"),
    [
        ("right", [1, 1, 2]),
        ("tampered", [1, 1, 2]),
        ("wrong", [1, 0, 0]),
        ("crashing", [1, 0, 0]),
    ],
)
def test_honest_work_gets_the_points_it_is_worth(graded, student, points):
    assert graded.points(student) == points


def test_messages_say_what_is_wrong(graded):
    assert "your matrix is transposed" in graded.message("wrong", THIRD)
    assert "ended the program" in graded.message("crashing", SECOND)
    assert "SyntaxError" in graded.message("crashing", THIRD)
    assert "not attempted yet" in graded.message("wrong", SECOND)
    assert graded.second[1]["wrong", SECOND]["status"] == "not attempted"


def test_feedback_tells_each_student_and_runs_nothing(graded):
    page = (graded.out / "feedback/wrong" / CHAPTER / f"{CHAPTER}.html").read_text()
    assert "your matrix is transposed" in page
    assert "Score: 1.0 / 4.0" in page
    assert "0.1 Is this machine ready?" not in page  # the chapter's text is left out
    page = (graded.out / "feedback/forger" / CHAPTER / f"{CHAPTER}.html").read_text()
    assert "Score: 1.0 / 4.0" in page
    assert page.count("&lt;script&gt;alert(1)") == 2
    assert "<script>alert" not in page and "<img src=x" not in page


def test_nbgrader_has_the_same_grades(graded):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{graded.out / 'gradebook.db'}") as gradebook:
        scores = {s.student.id: s.score for s in gradebook.assignment_submissions(CHAPTER)}
    assert scores == {s: sum(graded.points(s)) for s in (*Class.early, *Class.late, *Class.hostile)}


def test_what_cannot_be_graded_is_named_and_stops_nobody(graded):
    said, table = graded.second
    for student, words in {
        "corrupt": "the file is damaged",
        "twice": "there are 2 notebooks",
        "absent": "there is no notebook for chapter 00",
        "linked": "the notebook is a link",
    }.items():
        assert f"{student} was not graded: {words}" in said
        assert table[student, FIRST]["status"] == "not graded"
        assert graded.points(student) == [0, 0, 0]
    assert not (graded.out / "cleaned/linked").exists()


# ------------------------------------------------------------------------------ hostile work
def test_the_deleter_tries_and_deletes_nothing(graded):
    assert "tried 8, deleted 0, wrote 0" in graded.message("deleter", FIRST)
    assert graded.points("deleter") == [0, 1, 2]


def test_the_process_left_behind_is_ended(graded):
    assert "left a process behind" in graded.message("daemon", FIRST)
    assert graded.points("daemon") == [0, 1, 2]
    assert not sleepers()


def test_the_endless_loop_is_ended(graded):
    assert "still running after 10 seconds" in graded.message("loop", FIRST)
    assert graded.points("loop") == [0, 1, 2]


def test_the_memory_hog_is_ended(graded):
    assert "emory" in graded.message("hog", FIRST)
    assert graded.points("hog") == [0, 1, 2]


def test_the_forger_forges_and_gets_what_the_answers_are_worth(graded):
    assert "patched the checks and numpy" in graded.message("forger", SECOND)
    assert "your matrix is transposed" in graded.message("forger", THIRD)
    assert graded.points("forger") == [1, 0, 0]


def test_who_speaks_to_the_checker_directly_gains_nothing(graded):
    # The answer itself is right: what costs the point is the other one, sent before it.
    assert graded.second[1]["intruder", FIRST]["status"] == "failed"
    assert graded.points("intruder") == [0, 1, 2]


def test_the_others_are_untouched(graded):
    now = digests(graded.submissions, graded.secret, ROOT / "utils/checks")
    assert now == graded.before
    places = [ROOT / "utils", graded.out, Path.home()]
    assert not [place for place in places if (place / "hostile_marker.py").exists()]
    for key, row in graded.first[1].items():
        assert graded.second[1][key] == row
    pages = digests(*(graded.out / d / s for d in ("autograded", "feedback", "cleaned")
                      for s in Class.early))  # fmt: skip
    assert pages == graded.pages


def test_grading_ends_in_bounded_time(graded):
    assert graded.seconds < Limits().notebook  # for all students together


# --------------------------------------------- the same deeds where nothing stands in their way
def sleepers():
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == ["sleep", SLEEP]:
            found.append(process)
    return found


def unprotected(source, seconds=60):
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=seconds, check=False
    )


def test_without_walls_the_deleter_deletes(tmp_path):
    victim, place = tmp_path / "submissions", tmp_path / "utils"
    victim.mkdir()
    place.mkdir()
    (victim / "alice.ipynb").touch()
    done = unprotected(f"{DELETE}\nprint(destroy([{str(victim)!r}], [{str(place)!r}]))")
    assert done.stdout.strip() == "tried 2, deleted 1, wrote 1"
    assert not victim.exists() and (place / "hostile_marker.py").exists()


def test_without_walls_the_process_stays_behind():
    assert not sleepers()
    source = f"{DAEMON}\nleave_behind({SLEEP!r})"
    subprocess.run([sys.executable, "-c", source], stdout=subprocess.DEVNULL, check=True)
    deadline = time.monotonic() + 20
    while not (left := sleepers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        process.kill()
    assert len(left) == 1


def test_without_limits_loop_and_hog_go_on():
    with pytest.raises(subprocess.TimeoutExpired):
        unprotected("while True: pass", 2)
    measure = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = unprotected(HOG.replace("range(1000)", "range(5)") + "\n" + measure)
    assert int(done.stdout) > 4.5e5  # kilobytes on Linux, bytes on macOS


def test_in_one_process_with_the_check_the_forger_passes():
    """This is what a notebook run as a whole would believe, and why the check runs elsewhere."""
    ask = f"print('passed:', checks.{THIRD}({THIRD}).passed)"
    honest = unprotected(f"from utils import checks\n{WRONG}\n{ask}")
    assert "passed: False" in honest.stdout
    forged = unprotected(f"from utils import checks\n{FORGE}\n{FORGED}\nforge()\n{ask}")
    assert "passed: True" in forged.stdout


# ------------------------------------------------------------------------------ other machines
def test_without_walls_nothing_is_graded_unless_one_insists(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(assignments, "best_walls", lambda: ("none", {"strong": "no unshare"}))
    with pytest.raises(SystemExit):
        assignments.choose_walls(trust=False)
    said = capsys.readouterr().err
    assert "Grading stopped" in said and "no unshare" in said and "TRUST=yes" in said
    assert assignments.choose_walls(trust=True) == "none"
    assert "NOT walled off" in capsys.readouterr().out


def test_without_walls_forgery_and_endless_loops_still_gain_nothing():
    limits = Limits(cell=1.0)
    cells = [FORGE, FORGED, "import time\nready = time.sleep(60)\n" + answers()[FIRST]]
    cells[2] = cells[2].replace("return", "return ready or")
    asked = [(THIRD, 2), (FIRST, 3)]
    outcomes = checker.check_notebook(cells, asked, "none", limits, [0])
    assert outcomes[THIRD][0] == "failed" and "transposed" in outcomes[THIRD][1]
    assert outcomes[FIRST][0] == "failed"
    assert "the cell that begins `import time`" in outcomes[FIRST][1]
    assert "still running after 1 seconds" in outcomes[FIRST][1]
