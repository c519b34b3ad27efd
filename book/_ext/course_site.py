"""What the website needs beyond Jupyter Book: diagrams from local files, a reference style."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


class mermaid(nodes.General, nodes.Element):
    """A diagram, given by its source."""


class MermaidDirective(Directive):
    """A fenced mermaid diagram, which JupyterLab and code hosts draw as well.

    sphinxcontrib-mermaid loads the library as an ES module, and browsers refuse modules in
    pages that are opened from disk; `course.js` loads it as a classic script.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the node; refuse a diagram that says nothing to a reader who cannot see it."""
        code = "\n".join(self.content)
        if not ("accTitle" in code and "accDescr" in code):
            raise self.error(
                "a mermaid diagram needs lines `accTitle: ...` and `accDescr: ...`, "
                "which say to a reader who cannot see it what it shows"
            )
        return [mermaid(code=code)]


def visit_mermaid(translator: Any, node: mermaid) -> None:
    """Write the source into the page, for course.js to draw."""
    translator.body.append(f'<pre class="mermaid">{translator.encode(node["code"])}</pre>\n')
    raise nodes.SkipNode


class AuthorYearLabels(BaseLabelStyle):
    """Labels such as "Vaswani et al. 2017", as the chapters cite."""

    def format_labels(self, sorted_entries: list) -> Any:
        """Yield a label for each entry, with a, b, ... where two would be alike."""
        seen: dict[str, int] = {}
        for entry in sorted_entries:
            people = entry.persons.get("author") or entry.persons.get("editor") or []
            names = [" ".join(person.prelast_names + person.last_names) for person in people]
            alone = " and ".join(names) or entry.key
            who = f"{names[0]} et al." if len(names) > 2 else alone
            label = f"{who} {entry.fields.get('year', 'n.d.')}"
            seen[label] = seen.get(label, 0) + 1
            yield label if seen[label] == 1 else f"{label}{chr(ord('a') + seen[label] - 1)}"


class CourseStyle(PlainStyle):
    """Plain references, sorted by author, labelled by author and year."""

    default_label_style = "course_author_year"
    default_sorting_style = "author_year_title"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of this with Sphinx."""
    register_plugin("pybtex.style.labels", "course_author_year", AuthorYearLabels, force=True)
    register_plugin("pybtex.style.formatting", "course", CourseStyle, force=True)
    app.add_node(mermaid, html=(visit_mermaid, None))
    app.add_directive("mermaid", MermaidDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
