"""What the website is built from: its contents, the pieces made from data, and clear refusals."""

import json
import re
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "book")]

import build_book  # noqa: E402
import fetch_assets  # noqa: E402
import generate  # noqa: E402

PLAN = yaml.safe_load((ROOT / "book" / "chapters.yml").read_text(encoding="utf-8"))
CHAPTERS = [chapter for part in PLAN for chapter in part["chapters"]]


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A small course in a folder of its own; returns a function that writes a notebook there."""
    book = tmp_path / "book"
    book.mkdir()
    toc = {
        "format": "jb-book",
        "root": "intro",
        "parts": [
            {"caption": "One", "chapters": [{"glob": "notebooks/0[1-3]_*"}]},
            {"caption": "Two", "chapters": [{"glob": "notebooks/0[4-8]_*"}]},
            {"caption": "Solutions", "chapters": [{"glob": "notebooks/solutions/*"}]},
            {"caption": "Reference", "chapters": [{"file": "notation"}]},
        ],
    }
    (book / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (book / "chapters.yml").write_text((ROOT / "book" / "chapters.yml").read_text())
    for name in ("intro", "notation"):
        (book / f"{name}.md").write_text(f"# {name}\n")
    for module, name, value in (
        (build_book, "ROOT", tmp_path),
        (build_book, "BOOK", book),
        (build_book, "BUILD", book / "_build"),
        (build_book.notebook_tool, "NOTEBOOKS", tmp_path / "notebooks"),
    ):
        monkeypatch.setattr(module, name, value)

    def write(name, *cells):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=list(cells) or [new_markdown_cell("# Title")]), path)
        return path

    return write


# ------------------------------------------------------------------------------- contents
def test_patterns_take_in_what_is_there_in_order(course):
    for name in ("02_tokens", "01_language_models", "solutions/01_language_models"):
        course(name)
    assert build_book.pages() == [
        "intro",
        "notebooks/01_language_models",
        "notebooks/02_tokens",
        "notebooks/solutions/01_language_models",
        "notation",
    ]
    captions = [part["caption"] for part in build_book.contents()["parts"]]
    assert captions == ["One", "Solutions", "Reference"]  # nothing of part two is there yet


def test_no_pattern_is_left_in_the_contents(course):
    course("04_attention")
    assert "glob" not in yaml.safe_dump(build_book.contents())


def test_a_listed_page_that_is_missing_is_named(course):
    (build_book.BOOK / "notation.md").unlink()
    with pytest.raises(build_book.BuildError, match=r"lists notation, and there is no such file"):
        build_book.check_contents()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("21_more", "21_more.ipynb is matched by nothing in book/_toc.yml"),
        ("draft", "draft.ipynb is matched by nothing"),
        ("02_tokenizers", "02_tokenizers.ipynb is no chapter of book/chapters.yml"),
        ("solutions/02_tokenizers", "solutions/02_tokenizers.ipynb is no chapter"),
    ],
)
def test_a_notebook_without_a_place_is_refused(course, name, words):
    course("01_language_models")
    course(name)
    with pytest.raises(build_book.BuildError, match=re.escape(words)):
        build_book.check_contents()


def test_a_page_that_two_patterns_match_is_refused(course):
    course("01_language_models")
    path = build_book.BOOK / "_toc.yml"
    path.write_text(path.read_text().replace("0[4-8]", "01"))
    with pytest.raises(build_book.BuildError, match="takes in notebooks/01_language_models twice"):
        build_book.check_contents()


def test_the_courses_own_contents_are_in_order():
    build_book.check_contents()
    pages = build_book.pages()
    assert pages[:2] == ["intro", "notebooks/00_start_here"]
    chapters = [page for page in pages if re.match(r"notebooks/\d", page)]
    assert chapters == sorted(chapters)


def test_the_parts_of_the_contents_are_those_of_the_plan(tmp_path, monkeypatch):
    """With all chapters there, each would stand in the part that the map puts it in."""
    (tmp_path / "notebooks").mkdir()
    for chapter in CHAPTERS:
        (tmp_path / f"{generate.page_of(chapter)}.ipynb").touch()
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    listed = {
        part["caption"]: [chapter["file"] for chapter in part["chapters"]]
        for part in build_book.contents()["parts"]
    }
    for part in PLAN:
        assert listed[part["part"]] == [generate.page_of(each) for each in part["chapters"]]


# ------------------------------------------------------------------------------- the map
def test_the_plan_is_numbered_and_builds_on_what_came_before():
    assert [chapter["number"] for chapter in CHAPTERS] == list(range(1, 21))
    for chapter in CHAPTERS:
        assert chapter["file"].startswith(f"{chapter['number']:02d}_")
        assert all(1 <= needed < chapter["number"] for needed in chapter["needs"])


@pytest.mark.parametrize("ready", [[], [4], [1, 4, 20], list(range(1, 21))])
def test_the_map_links_the_pages_that_exist_and_no_other(ready):
    pages = ["intro", *(generate.page_of(CHAPTERS[number - 1]) for number in ready)]
    drawing, _, listed = generate.concept_map(PLAN, pages).partition('<dl class="concept-list">')
    for html in (drawing, listed):  # on a wide window, and on a phone
        links = re.findall(r'href="([^"#]+)\.html"', html)
        assert links == pages[1:]
        assert html.count('class="planned"') == 20 - len(ready)
    arrows = drawing.partition('<g class="needs">')[2].partition("</g>")[0]
    assert arrows.count("<path") == sum(len(each["needs"]) for each in CHAPTERS)


def test_the_map_escapes_what_the_plan_says():
    chapter = {"number": 1, "file": "01_a", "short": "A & <b>", "needs": []}
    html = generate.concept_map(
        [{"part": "Part I: P & Q", "about": "<x>", "chapters": [chapter]}], []
    )
    assert "<b>" not in html and "<x>" not in html
    assert "A &amp; &lt;b&gt;" in html and "P &amp; Q" in html


def test_the_status_counts_what_can_be_read():
    pages = [generate.page_of(chapter) for chapter in CHAPTERS]
    assert "Of 20 chapters, 3 can be read now" in generate.status(PLAN, pages[:3])
    assert generate.status(PLAN, pages) == "All 20 chapters are here.\n"


def test_the_first_pages_picture_shows_weights_that_add_up():
    data = json.loads((ROOT / "book" / "attention.json").read_text(encoding="utf-8"))
    size = len(data["tokens"])
    assert [len(row) for row in data["weights"]] == [size] * size
    assert all(abs(sum(row) - 1) < 0.01 for row in data["weights"])
    html = generate.attention_figure(data)
    assert html.count('class="query chosen"') == 1
    assert data["alt"] in html


# ------------------------------------------------------------------------------- measurements
GOOD = {
    "title": "Speed",
    "command": "make bench",
    "date": "2026-01-01",
    "machine": {"cpu": "two cores"},
    "columns": ["what", "seconds"],
    "rows": [["ours", 1.5], ["a | b", 2]],
    "notes": ["One note."],
}


def written(tmp_path, **changes):
    path = tmp_path / "speed.json"
    data = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text(json.dumps(data))
    return path


def test_measurements_become_tables(tmp_path):
    text = generate.measurements([written(tmp_path)])
    assert "## Speed" in text and "`make bench`" in text and "cpu two cores" in text
    assert "| what | seconds |\n| --- | --- |\n| ours | 1.5 |" in text
    assert r"a \| b" in text  # stays within its cell
    assert "One note." in text


def test_a_page_without_measurements_says_how_to_get_some():
    assert "make bench" in generate.measurements([])


@pytest.mark.parametrize("field", ["title", "command", "date", "machine", "columns", "rows"])
def test_a_measurement_that_lacks_a_field_is_named(tmp_path, field):
    with pytest.raises(ValueError, match=rf"speed.json lacks \['{field}'\]"):
        generate.measurements([written(tmp_path, **{field: None})])


def test_a_measurement_with_a_short_row_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"speed.json has rows of another length"):
        generate.measurements([written(tmp_path, rows=[["ours"]])])


# ------------------------------------------------------------------------------- execution
def test_a_broken_notebook_is_named_with_its_cell(course):
    pytest.importorskip("jupyter_cache")
    path = course(
        "01_language_models",
        new_markdown_cell("# Title"),
        new_code_cell("x = 1"),
        new_code_cell("y = x / 0\nprint(y)"),
        new_code_cell("never = True"),
    )
    with pytest.raises(build_book.BuildError) as caught:
        build_book.executed(path)
    said = str(caught.value)
    assert "notebooks/01_language_models.ipynb fails in code cell 2" in said
    assert "'y = x / 0'" in said and "ZeroDivisionError" in said
    assert "\x1b" not in said  # no colour codes


def test_the_failing_cell_is_not_one_that_is_meant_to_fail():
    wrong = new_output("error", ename="ValueError", evalue="", traceback=[])
    meant = new_code_cell("raise ValueError", outputs=[wrong])
    meant.metadata["tags"] = ["raises-exception"]
    broken = new_code_cell("1 / 0", outputs=[wrong])
    notebook = new_notebook(cells=[new_markdown_cell("# A"), meant, new_code_cell("x"), broken])
    assert build_book.failing_cell(notebook) == (3, broken)


def test_a_run_is_found_again_until_the_package_changes(course, tmp_path):
    course("01_language_models")
    (tmp_path / "utils").mkdir()
    module = tmp_path / "utils" / "a.py"
    module.write_text("x = 1\n")
    before = build_book.cache_folder()
    assert build_book.cache_folder() == before
    module.write_text("x = 2\n")
    changed = build_book.cache_folder()
    assert changed != before
    (tmp_path / "utils" / "a.js").write_text("")  # an explorer's script is saved with a run
    assert build_book.cache_folder() != changed


def test_staging_leaves_nothing_of_an_earlier_build(course, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "pieces", lambda pages: {"status.md": "two\n"})
    (build_book.BOOK / "references.bib").write_text("")
    course("01_language_models")
    target = tmp_path / "staged"
    build_book.put(target / "notebooks" / "09_gone.ipynb", "old")
    build_book.put(target / "_generated" / "status.md", "one\n")
    build_book.stage(target, execute=False)
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {
        "_generated/licences.md",
        "_generated/status.md",
        "_toc.yml",
        "intro.md",
        "notation.md",
        "notebooks/01_language_models.ipynb",
        "references.bib",
    }
    assert (target / "_generated" / "status.md").read_text() == "two\n"


def test_a_chapter_leads_to_its_lecture_and_its_solutions(course, tmp_path):
    course("01_language_models")
    path = course("02_tokens", new_markdown_cell("# Tokens\n\nWhat is a token?"))
    course("solutions/02_tokens")
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "02_tokens.md").write_text("")
    assert not build_book.companions("notebooks/01_language_models")
    notebook = nbformat.read(path, as_version=4)
    source = build_book.for_the_site(notebook, "notebooks/02_tokens").cells[0].source
    title, line, text = source.split("\n\n", 2)
    assert (title, text.strip()) == ("# Tokens", "What is a token?")
    for target in ("../slides/02_tokens.html", "../slides/02_tokens.sheet.html"):
        assert f'href="{target}"' in line
    assert 'href="solutions/02_tokens.html"' in line
    assert notebook.cells[0].source == "# Tokens\n\nWhat is a token?"  # a copy was changed


def test_solutions_are_folded_and_lead_back():
    answer, call = new_code_cell("def f(): ..."), new_code_cell("checks.f(f)")
    answer.metadata["tags"] = ["solution"]
    notebook = new_notebook(cells=[new_markdown_cell("# Solutions"), answer, call])
    title, answer, call = build_book.for_the_site(notebook, "notebooks/solutions/02_tokens").cells
    assert answer.metadata["tags"] == ["solution", "hide-input"]
    assert "hide-input" not in call.metadata.get("tags", [])
    assert 'href="../02_tokens.html"' in title.source and "minutes" not in title.source


def test_an_explorer_comes_with_its_words():
    """Only the course's own: other widgets are shown as saved, and say so."""
    views = [
        new_output(
            "display_data",
            {
                "application/vnd.jupyter.widget-view+json": {"model_id": name},
                "text/plain": f"{name} & <b>",
            },
        )
        for name in ("ours", "theirs")
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("x", outputs=views)])
    models = {"ours": "anywidget", "theirs": "@jupyter-widgets/controls"}
    state = {name: {"model_module": module, "state": {}} for name, module in models.items()}
    notebook.metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {"state": state, "version_major": 2}
    }
    first, words, second = build_book.for_the_site(notebook, "notebooks/02_tokens").cells[1].outputs
    assert (first, second) == tuple(views)
    assert words.data == {
        "text/html": '<div class="explorer-fallback"><pre class="explorer-words">'
        "ours &amp; &lt;b&gt;</pre></div>"
    }
    assert len(notebook.cells[1].outputs) == 2  # a copy was changed


def test_the_first_page_has_an_explorer_and_a_picture_to_stand_in():
    data = json.loads((ROOT / "book" / "attention.json").read_text(encoding="utf-8"))
    html = generate.attention_explorer(data)
    assert generate.attention_figure(data) in html.split('<div class="explorer-fallback">')[1]
    assert html == generate.attention_explorer(data)  # nothing random: the page is not built anew
    assert html.count('"model_id": "first-page"') == 1


@pytest.mark.parametrize(("words", "lines", "minutes"), [(10, 0, 5), (2000, 75, 15), (0, 300, 20)])
def test_reading_time_counts_prose_and_visible_code(words, lines, minutes):
    hidden = new_code_cell("x = 1\n" * 1000)
    hidden.metadata["tags"] = ["hide-input"]
    cells = [new_markdown_cell("word " * words), new_code_cell("x = 1\n" * lines), hidden]
    said = build_book.reading_time(new_notebook(cells=cells))
    assert said == f"About {minutes} minutes to read"


def test_lectures_are_listed_with_deck_sheet_and_chapter(tmp_path):
    path = tmp_path / "02_tokens.md"
    path.write_text(
        "---\ntitle: A < B\nquestion: Why?\nnotebook: 02_tokens\nminutes: 50\n---\n\nText.\n"
    )
    table = generate.lectures([path])
    for part in (
        '<a href="slides/02_tokens.html">A &lt; B</a>',
        '<a href="slides/02_tokens.sheet.html">sheet</a>',
        '<a href="notebooks/02_tokens.html">chapter</a>',
        "<td>Why?</td><td>50</td>",
    ):
        assert part in table


def test_a_file_that_has_not_changed_is_not_written_again(tmp_path):
    path = tmp_path / "a" / "b.txt"
    build_book.put(path, "text")
    before = path.stat().st_mtime_ns
    build_book.put(path, b"text")
    assert path.stat().st_mtime_ns == before


# ------------------------------------------------------------------------------- launch buttons
CONFIG = yaml.safe_load((ROOT / "book" / "_config.yml").read_text(encoding="utf-8"))
HOSTS = {
    "colab_url": "https://colab.example.org",
    "binderhub_url": "https://binder.example.org",
    "jupyterhub_url": "https://hub.example.org",
}


@pytest.fixture
def configured(course):
    """Return a function that writes the small course's _config.yml: ours, with some changes."""

    def configure(repository, **launch):
        config = CONFIG | {"repository": {"url": repository, "branch": "main"}}
        config["launch_buttons"] = CONFIG["launch_buttons"] | launch
        (build_book.BOOK / "_config.yml").write_text(yaml.safe_dump(config))

    return configure


def built_pages(course, tmp_path):
    """Build the website of a small course, and return the HTML of each of its pages."""
    fetch_assets.fetch(quiet=True)  # a fresh clone has none yet
    (build_book.BOOK / "references.bib").write_text("")
    (build_book.BOOK / "_ext").symlink_to(ROOT / "book" / "_ext")
    (build_book.BOOK / "_static").symlink_to(ROOT / "book" / "_static")
    first = new_markdown_cell("# Language models")
    course("01_language_models", first)
    course("solutions/01_language_models", first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "pieces", lambda pages: {})
        build_book.stage(tmp_path / "site" / "src", execute=False)
        build_book.run_sphinx(tmp_path / "site", verbose=False)
    pages = ("intro", "notebooks/01_language_models", "notebooks/solutions/01_language_models")
    return {page: (tmp_path / "site" / "html" / f"{page}.html").read_text() for page in pages}


def test_launch_buttons_open_the_chapter_where_it_lies_in_the_repository(
    course, configured, tmp_path
):
    configured("https://github.com/someone/a-course", **HOSTS)
    pages = built_pages(course, tmp_path)
    assert "example.org" not in pages.pop("intro")  # no notebook
    for page, html in pages.items():
        links = {unescape(link) for link in re.findall(r'href="(https://[^"]*example[^"]*)"', html)}
        path = f"{page}.ipynb"
        assert (build_book.ROOT / path).exists()
        hub = "repo=https%3A//github.com/someone/a-course&urlpath=lab/tree/a-course/"
        assert links == {
            f"{HOSTS['colab_url']}/github/someone/a-course/blob/main/{path}",
            f"{HOSTS['binderhub_url']}/v2/gh/someone/a-course/main?urlpath=lab/tree/{path}",
            f"{HOSTS['jupyterhub_url']}/hub/user-redirect/git-pull?{hub}{path}&branch=main",
        }


def test_without_addresses_there_are_no_launch_buttons(course, configured, tmp_path):
    configured("https://github.com/someone/a-course")
    for html in built_pages(course, tmp_path).values():
        assert "launch-buttons" not in html and "fa-rocket" not in html


@pytest.mark.parametrize(
    ("repository", "launch", "words"),
    [
        ("", {"binderhub_url": "https://b.example"}, "binderhub_url and no repository.url"),
        ("https://gitlab.com/a/b", {"colab_url": "https://c.example"}, "from GitHub only"),
    ],
)
def test_launch_buttons_that_would_lead_nowhere_are_refused(configured, repository, launch, words):
    configured(repository, **launch)
    with pytest.raises(build_book.BuildError, match=re.escape(words)):
        build_book.check_launch_buttons()


def test_the_courses_own_launch_buttons_are_in_order():
    build_book.check_launch_buttons()


# ------------------------------------------------------------------------------- assets
def test_a_damaged_package_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_assets, "CACHE", tmp_path)
    integrity = fetch_assets.integrity_of(b"good")
    path = fetch_assets.cached("@scope/name", "1.0")
    assert path.parent == tmp_path  # a scope is no folder
    assert not fetch_assets.is_good("@scope/name", "1.0", integrity)
    path.write_bytes(b"bad")
    assert not fetch_assets.is_good("@scope/name", "1.0", integrity)
    path.write_bytes(b"good")
    assert fetch_assets.is_good("@scope/name", "1.0", integrity)


def test_without_a_network_and_a_cache_the_message_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_assets, "CACHE", tmp_path)
    monkeypatch.setattr(fetch_assets, "VENDOR", tmp_path / "vendor")
    with pytest.raises(fetch_assets.AssetError, match=r"mathjax.*with a network"):
        fetch_assets.fetch(offline=True)


def test_every_package_is_pinned_with_its_checksum():
    for _, _, version, integrity, files in fetch_assets.PACKAGES:
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", integrity)
        assert files


# ------------------------------------------------------------------------------- the README
def test_the_pictures_of_the_readme_are_there():
    for alt, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert len(alt.split()) > 3
        assert (ROOT / path).is_file()
