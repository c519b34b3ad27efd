"""The checks themselves: a page that is wrong in one way must be reported, a right one must not."""

from __future__ import annotations

import random

import browser
import page_checks
import pytest

GOOD = """<!DOCTYPE html><html lang="en"><head><title>t</title></head><body><main>
<h1 id="top">A page</h1>
<p>It costs $5 or $6. <a href="#top">Up</a></p>
<img alt="a dot" src="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'
 width='9' height='9'/%3E">{}</main></body></html>"""


@pytest.fixture
def look(open_page, tmp_path):
    """Return a function that opens a page with some HTML in it."""

    def look(extra: str = ""):
        page = tmp_path / "page.html"
        page.write_text(GOOD.replace("{}", extra), encoding="utf-8")
        visit = open_page(page.as_uri())
        visit.settle(seconds=1)
        return visit

    return look


def test_a_good_page_passes(look, tmp_path):
    visit = look()
    parts = (
        visit.math,
        visit.pictures,
        visit.diagrams,
        visit.widgets,
        visit.contrast,
        visit.widths,
        visit.barriers,
    )
    assert [complaint for part in (*parts, visit.complaints) for complaint in part()] == []
    assert page_checks.broken_links(tmp_path) == []
    assert page_checks.loads_from_outside(tmp_path / "page.html") == []


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("<script>console.error('oops')</script>", "console: error: oops"),
        ("<script>console.warn('hm')</script>", "console: warning: hm"),
        ("<script>nothing.here()</script>", "nothing is not defined"),
        ("<script src='missing.js'></script>", "not loaded"),
        ("<script src='https://cdn.example.org/a.js'></script>", "asks another machine"),
        ("<script>fetch('https://example.org/').catch(() => 0)</script>", "asks another machine"),
    ],
)
def test_what_the_browser_reports_is_found(look, extra, said):
    assert any(said in complaint for complaint in look(extra).complaints())


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (r"<span class='math notranslate'>\(x\)</span>", "not typeset"),
        (r"<p>where \(x_t\) is</p>", "raw TeX"),
        (r"<p>where $x_t \in V$ is</p>", "raw TeX"),
        (r"<p>a \frac lost</p>", "raw TeX"),
        (r"<p>where $d$ is</p>", "raw TeX"),
        (
            "<span class='math notranslate'><mjx-container><mjx-merror data-mjx-error='Undefined'>"
            "</mjx-merror></mjx-container></span>",
            "MathJax reports",
        ),
    ],
)
def test_untypeset_math_is_found(look, extra, said):
    assert any(said in complaint for complaint in look(extra).math())


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("<img src='nowhere.png' alt='a graph'>", "does not show"),
        ("<img src='nowhere.png'>", "no alternative text"),
        ("<img alt=' ' src='nowhere.png'>", "no alternative text"),
        ("<svg width='9' height='9'></svg>", "no alternative text"),
    ],
)
def test_poor_pictures_are_found(look, extra, said):
    assert any(said in complaint for complaint in look(extra).pictures())


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("<pre class='mermaid'>flowchart LR</pre>", "not drawn"),
        (
            "<pre class='mermaid'><svg width='50' height='50'><rect/></svg></pre>",
            "no title and description",
        ),
        (
            "<pre class='mermaid'><svg width='50' height='50'><g class='error-icon'/></svg></pre>",
            "mermaid reports",
        ),
    ],
)
def test_poor_diagrams_are_found(look, extra, said):
    assert any(said in complaint for complaint in look(extra).diagrams())


def test_a_widget_that_does_not_show_is_found(look):
    view = "<div><script type='application/vnd.jupyter.widget-view+json'>{}</script></div>"
    assert look(view).widgets()


def test_a_page_that_scrolls_sideways_is_found(look):
    complaints = look("<div style='width: 700px'>wide</div>").widths()
    assert len(complaints) == 1  # not at 768 and 1440
    assert "in a window of 360" in complaints[0]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("<p style='color: #999'>pale</p>", "color-contrast"),
        ("<pre><span style='color: #999'>pale</span></pre>", "color-contrast"),
        ("<button></button>", "button-name"),
        ("<a href='#top'></a>", "link-name"),
        ("<input type='text'>", "label"),
        (
            "<pre style='width: 90px; overflow-x: auto'>a line of many more words</pre>",
            "scrollable-region-focusable",
        ),
        ("<iframe title='a frame' srcdoc='<p><button></button></p>'></iframe>", "button-name"),
    ],
)
def test_barriers_are_found(look, extra, said):
    found = look(extra).barriers()
    assert any(said in complaint for complaint in found)


def test_of_words_of_code_that_look_alike_one_is_judged(look):
    word = "<span class='{}'>word</span>"
    dark = "<style>.a { color: #222 } .b { color: #999 }</style>"
    visit = look(dark + "<pre>" + word.format("a") * 50 + word.format("b") * 50 + "</pre>")
    assert len([each for each in visit.barriers() if "color-contrast" in each]) == 1
    assert visit.page.locator("pre").inner_text() == "word" * 100


@pytest.mark.parametrize(("data", "complaints"), [("a", 0), ("random", 1)])
def test_what_is_heavy_over_the_line_is_found(open_page, tmp_path, data, complaints):
    """Four million letters, which weigh nothing once compressed or half of it."""
    letters = random.Random(0).randbytes(2_000_000).hex() if data == "random" else "a" * 4_000_000
    (tmp_path / "data.js").write_text(f"// {letters}")
    (tmp_path / "page.html").write_text(GOOD.replace("{}", "<script src='data.js'></script>"))
    server = browser.serve(tmp_path, compress=True)
    visit = open_page(f"http://127.0.0.1:{server.server_port}/page.html")
    assert len(visit.weight()) == complaints
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "extra",
    [
        "<p style='color: #999'>pale</p>",
        "<div style='background: #111'><p style='color: #222'>dark on dark</p></div>",
        "<p><a href='#top' style='color: rgb(255, 255, 0)'>a link</a></p>",
    ],
)
def test_text_that_is_hard_to_read_is_found(look, extra):
    assert len(look(extra).contrast()) == 1


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("gone.html", "no such file"),
        ("#gone", "no such place"),
        ("page.html#gone", "no such place"),
        ("sub/", "no such file"),
    ],
)
def test_broken_links_are_found(tmp_path, link, said):
    (tmp_path / "page.html").write_text(GOOD.replace("{}", f"<a href='{link}'>x</a>"))
    assert any(said in complaint for complaint in page_checks.broken_links(tmp_path))


def test_citations_are_counted():
    text = "As {cite:t}`a2017` and others {cite:p}`b, c` say, `[a]`."
    assert page_checks.citations(text) == ["a2017", "b", "c"]


@pytest.mark.parametrize(
    "extra",
    [
        "<script src='https://example.org/a.js'></script>",
        '<link rel="stylesheet" href="//example.org/a.css">',
        "<script>const url = 'https://unpkg.com/thebe/lib/index.js'</script>",
        "<img alt='a' src='https://example.org/a.png'>",
    ],
)
def test_loading_from_elsewhere_is_found(tmp_path, extra):
    (tmp_path / "page.html").write_text(GOOD.replace("{}", extra))
    assert page_checks.loads_from_outside(tmp_path / "page.html")


def test_a_link_to_elsewhere_loads_nothing(tmp_path):
    link = "<a href='https://cdn.example.org/a.pdf'>https://cdn.example.org/a.pdf</a>"
    (tmp_path / "page.html").write_text(GOOD.replace("{}", link))
    assert not page_checks.loads_from_outside(tmp_path / "page.html")


@pytest.mark.parametrize(
    ("name", "text", "loads"),
    [
        ("a.css", "@import 'https://example.org/a.css';", True),
        ("a.css", "b { background: url(//example.org/a.png); }", True),
        ("a.css", "/* https://example.org */ b { background: url(a.png); }", False),
        ("a.js", "load('https://cdn.example.org/a.js')", True),
        ("a.js", "// see https://example.org", False),
    ],
)
def test_scripts_and_style_sheets_are_searched(tmp_path, name, text, loads):
    (tmp_path / name).write_text(text)
    assert bool(page_checks.loads_from_outside(tmp_path / name)) is loads


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$x$", True), ("$$\nx\n$$", True), ("`$x$`", False), ("only $5", False), (r"\$x\$", False)],
)
def test_math_in_a_source_is_recognised(text, expected):
    assert page_checks.has_math(text) is expected
