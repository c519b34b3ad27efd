"""What a lecture's text may contain beyond Markdown, and how it becomes HTML.

Directives take figures, code and printed output out of the committed notebooks, so that a slide
cannot disagree with its chapter. lessons/README.md lists them.
"""

from __future__ import annotations

import ast
import base64
import inspect
import re
import sys
import textwrap
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import alts_of

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ROOT / "lessons"
SLIDE_WIDTH, COLUMN_GAP = 1152, 36  # pixels, of 1280: see lessons/theme/slides.css
BOX_PADDING = 46  # pixels, both sides of a question's or an answer's box together
SMALLEST_CODE = 17  # pixels
LARGEST_CODE = {12: 24, 18: 20}  # pixels, for code of at most so many lines
WRAPPED_LINE = 76  # characters


class LessonError(Exception):
    """What is wrong with a lecture, where, and how to mend it."""


# ------------------------------------------------------------------------------- notebooks
@cache
def cells_of(notebook: str) -> list[Any]:
    """Return the code cells of notebooks/NAME.ipynb."""
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    if not path.exists():
        raise LessonError(f"there is no notebook notebooks/{notebook}.ipynb")
    notebook_cells = nbformat.read(path, as_version=4).cells
    cells = [cell for cell in notebook_cells if cell.cell_type == "code"]
    if not any(cell.outputs for cell in cells):
        raise LessonError(
            f"notebooks/{notebook}.ipynb has no outputs: run "
            f"`.venv/bin/python scripts/notebooks.py run notebooks/{notebook}.ipynb`"
        )
    return cells


def find_cell(notebook: str, line: str) -> Any:
    """Return the one code cell that has a line beginning with the given text."""
    line = line.strip()
    found = [
        cell
        for cell in cells_of(notebook)
        if any(each.strip().startswith(line) for each in cell.source.splitlines())
    ]
    if not line or len(found) != 1:
        raise LessonError(
            f"{len(found)} code cells of {notebook} have a line beginning with {line!r}; "
            "give the beginning of a line that is in exactly one"
        )
    return found[0]


def find_figure(notebook: str, alt: str) -> tuple[str, str]:
    """Return the data address and the whole text of the figure whose alt text begins with `alt`."""
    wanted = " ".join(alt.split())
    found = []
    for cell in cells_of(notebook):
        for output in cell.outputs:
            for text in alts_of(output):
                kind = next(k for k in ("image/svg+xml", "image/png") if k in output.data)
                found.append((text, kind, output.data[kind]))
    matching = [each for each in found if " ".join(each[0].split()).startswith(wanted)]
    if not wanted or len(matching) != 1:
        known = "".join(f"\n    {text[:70]}" for text, _, _ in found) or " none"
        raise LessonError(
            f"{len(matching)} figures of {notebook} have an alternative text beginning with "
            f"{wanted!r}; its figures:{known}"
        )
    text, kind, data = matching[0]
    if kind == "image/svg+xml":
        data = base64.b64encode(data.encode()).decode()
    return f"data:{kind};base64,{''.join(data.split())}", text


def code_of(cell: Any, only: str | None) -> str:
    """Return a cell's code, or only the function or class of that name."""
    if only is None:
        return cell.source
    for node in ast.parse(cell.source).body:
        if getattr(node, "name", None) == only:
            return ast.get_source_segment(cell.source, node)
    raise LessonError(f"the cell defines no {only!r}")


def text_output(cell: Any) -> str:
    """Return what a cell printed, and the text of its last value."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif not alts_of(output) and "text/plain" in output.get("data", {}):
            parts.append(output.data["text/plain"] + "\n")
    text = "".join(parts).rstrip()
    if not text:
        raise LessonError(f"the cell {cell.source.splitlines()[0]!r} printed nothing")
    return text


# ------------------------------------------------------------------------------- Markdown
DIRECTIVE = re.compile(r"\{([\w-]+)\}\s*(.*)")
OPTION = re.compile(r":([\w-]+):\s*(.*)")


def formula(text: str, options: dict[str, Any]) -> str:
    """Return TeX between the delimiters that MathJax looks for; the plugin puts it in .math."""
    opening, closing = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
    return f"{opening}{escape(text.strip())}{closing}"


class Renderer:
    """Markdown to HTML, with this course's directives; raw HTML is shown as text."""

    def __init__(self, notebook: str) -> None:
        self.notebook = notebook
        self.notes: str | None = None  # of the slide being rendered
        self.width = SLIDE_WIDTH  # of the column being rendered
        self.markdown = MarkdownIt("commonmark", {"html": False, "typographer": True})
        self.markdown.enable(["table", "smartquotes"])
        self.markdown.use(dollarmath_plugin, renderer=formula, allow_digits=False)
        self.markdown.use(colon_fence_plugin).use(myst_role_plugin)
        self.markdown.renderer.rules |= {
            "fence": self._fence,
            "colon_fence": self._fence,
            "myst_role": self._role,
            "image": self._image,
            "link_open": self._link,
        }

    def html(self, text: str) -> str:
        """Return the HTML of some Markdown."""
        return self.markdown.render(text)

    def inline(self, text: str) -> str:
        """Return the HTML of a line of Markdown, such as a heading."""
        return self.markdown.renderInline(text)

    @staticmethod
    def _image(*_: Any) -> str:
        raise LessonError("an image file: use {notebook-figure}, which takes it from a chapter")

    def _link(self, tokens: Any, index: int, options: Any, env: Any) -> str:
        href = tokens[index].attrs["href"]
        if not re.match(r"(https?:|mailto:|#)", href):
            if not (LESSONS / href).exists():
                raise LessonError(f"a link leads to {href}, which does not exist")
            tokens[index].attrSet("href", f"../{href}")  # decks lie one folder further down
        return self.markdown.renderer.renderToken(tokens, index, options, env)

    def _role(self, tokens: Any, index: int, *_: Any) -> str:
        token = tokens[index]
        if token.meta["name"] != "cell":
            raise LessonError(f"unknown role {{{token.meta['name']}}}; known: {{cell}}")
        number = find_cell(self.notebook, token.content).execution_count
        return f'<span class="cell">[{number}] <code>{escape(token.content)}</code></span>'

    def _fence(self, tokens: Any, index: int, *_: Any) -> str:
        info, body = tokens[index].info.strip(), tokens[index].content
        directive = DIRECTIVE.fullmatch(info)
        if not directive:
            return self._code(body) if info in ("python", "py") else self._output(body)
        name, argument = directive.groups()
        handler = getattr(self, "_directive_" + name.replace("-", "_"), None)
        if handler is None:
            known = ", ".join(
                each.removeprefix("_directive_").replace("_", "-")
                for each in dir(self)
                if each.startswith("_directive_")
            )
            raise LessonError(f"unknown directive {{{name}}}; known: {known}")
        lines, settings = body.splitlines(), {}
        while lines and (option := OPTION.fullmatch(lines[0].strip())):
            settings[option[1]] = option[2]
            lines.pop(0)
        unknown = set(settings) - set(inspect.signature(handler).parameters)
        if unknown:
            raise LessonError(f"{{{name}}} knows no :{unknown.pop()}:")
        return handler(argument, "\n".join(lines), **settings)

    def _code(self, source: str) -> str:
        """Return highlighted Python, as large as there is room for."""
        source = source.strip("\n")
        style = HtmlFormatter(cssclass="code", cssstyles=self._font_size(source))
        return highlight(source, PythonLexer(), style)

    def _output(self, text: str) -> str:
        text = text.rstrip()
        return f'<pre class="output" style="{self._font_size(text)}">{escape(text)}</pre>\n'

    def _boxed(self, body: str) -> str:
        """Return the HTML of what stands in a box, where there is a little less room."""
        self.width -= BOX_PADDING
        html = self.html(body)
        self.width += BOX_PADDING
        return html

    def _later(self, kind: str, body: str) -> str:
        """Return what appears with the next key; with a figure in it, it fills the slide."""
        html = self._boxed(body) if kind else self.html(body)
        fill = " fill" if "<figure>" in html else ""
        return f'<div class="{kind}fragment{fill}">{html}</div>\n'

    def _font_size(self, text: str) -> str:
        lines = text.splitlines() or [""]
        longest = max(map(len, lines))
        tall = next(
            (size for most, size in LARGEST_CODE.items() if len(lines) <= most), SMALLEST_CODE
        )
        size = min((self.width - 40) / (0.605 * max(longest, 1)), tall)
        if size < SMALLEST_CODE:
            raise LessonError(
                f"a line of {longest} characters does not fit at a readable size: "
                f"{max(lines, key=len)[:60]!r}; show less of the cell or use the whole width"
            )
        return f"font-size: {int(size)}px"

    # Each directive: the argument after its name, the text inside, its options by name.
    def _directive_notes(self, argument: str, body: str) -> str:
        if self.notes is not None:
            raise LessonError("a slide has two {notes}: make them one")
        self.notes = self.html(body)
        return ""

    def _directive_notebook_figure(self, argument: str, body: str) -> str:
        address, alt = find_figure(argument or self.notebook, body)
        return f'<figure><img src="{address}" alt="{escape(alt)}"></figure>\n'

    def _directive_notebook_code(self, argument: str, body: str, only: str | None = None) -> str:
        return self._code(code_of(find_cell(argument or self.notebook, body), only))

    def _directive_notebook_output(
        self, argument: str, body: str, first: str | None = None, wrap: str | None = None
    ) -> str:
        lines = text_output(find_cell(argument or self.notebook, body)).splitlines()
        if first is not None:
            if not (first.isdigit() and 0 < int(first) <= len(lines)):
                raise LessonError(f":first: {first} of {len(lines)} lines")
            lines = lines[: int(first)]
        if wrap is not None:
            lines = [textwrap.fill(line, WRAPPED_LINE) for line in lines]
        return self._output("\n".join(lines))

    def _directive_question(self, argument: str, body: str) -> str:
        return f'<div class="question">{self._boxed(body)}</div>\n'

    def _directive_answer(self, argument: str, body: str) -> str:
        return self._later("answer ", body)

    def _directive_step(self, argument: str, body: str) -> str:
        return self._later("", body)

    def _directive_aside(self, argument: str, body: str) -> str:
        return f'<div class="small">{self.html(body)}</div>\n'

    def _directive_columns(self, argument: str, body: str) -> str:
        columns = re.split(r"(?m)^\+\+\+\s*$", body)
        shares = argument.split() or ["1"] * len(columns)
        if len(shares) != len(columns) or not all(share.isdigit() for share in shares):
            raise LessonError(
                f"{{columns}} {argument}: {len(columns)} columns (between lines +++) need as many "
                "whole numbers, such as {columns} 3 2"
            )
        whole, inner = self.width, ""
        room, shared = whole - COLUMN_GAP * (len(columns) - 1), sum(map(int, shares))
        for share, column in zip(shares, columns, strict=True):
            self.width = room * int(share) / shared
            inner += f'<div class="column" style="flex: {share} 1 0">{self.html(column)}</div>'
        self.width = whole
        return f'<div class="columns">{inner}</div>\n'


def code_style() -> str:
    """Return the style sheet of highlighted code."""
    return HtmlFormatter(style="a11y-high-contrast-light").get_style_defs(".code")
