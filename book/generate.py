"""The parts of the website that are made from data at build time.

`pieces` returns them by file name: the concept map from chapters.yml, the table of measurements
from bench/results/*.json, the list of lectures from lessons/, and the explorer on the first page,
for which the picture of attention.json (which figures.py writes) stands in without JavaScript.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import yaml

BOOK = Path(__file__).resolve().parent
RESULTS = BOOK.parent / "bench" / "results"
LESSONS = BOOK.parent / "lessons"


def pieces(pages: list[str]) -> dict[str, str]:
    """Return file name -> content of everything that is generated.

    Parameters
    ----------
    pages : list of str
        The pages of the table of contents; chapters among them become links.
    """
    parts = yaml.safe_load((BOOK / "chapters.yml").read_text(encoding="utf-8"))
    return {
        "concept_map.html": concept_map(parts, pages),
        "attention.html": attention_explorer(json.loads((BOOK / "attention.json").read_text())),
        "lectures.html": lectures(sorted(LESSONS.glob("[0-9][0-9]_*.md"))),
        "measurements.md": measurements(sorted(RESULTS.glob("*.json"))),
        "status.md": status(parts, pages),
    }


def page_of(chapter: dict) -> str:
    """Return the page that a chapter of the plan has, or will have."""
    return f"notebooks/{chapter['file']}"


def status(parts: list[dict], pages: list[str]) -> str:
    """Say how many chapters there are and how many are planned."""
    chapters = [chapter for part in parts for chapter in part["chapters"]]
    ready = [chapter for chapter in chapters if page_of(chapter) in pages]
    if len(ready) == len(chapters):
        return f"All {len(chapters)} chapters are here.\n"
    return (
        f"Of {len(chapters)} chapters, {len(ready)} can be read now, and are links; "
        "the others are planned.\n"
    )


def lectures(paths: list[Path]) -> str:
    """List the lectures with their decks, sheets and chapters."""
    rows = []
    for path in paths:
        _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        meta, name = yaml.safe_load(front), path.stem
        rows.append(
            f'<tr><td>{int(name[:2])}</td><td><a href="slides/{name}.html">'
            f"{escape(meta['title'])}</a></td><td>{escape(meta['question'])}</td>"
            f"<td>{meta['minutes']}</td>"
            f'<td><a href="slides/{name}.sheet.html">sheet</a>, '
            f'<a href="notebooks/{meta["notebook"]}.html">chapter</a></td></tr>'
        )
    return (
        '<div class="table-wide"><table class="table lectures"><thead><tr><th>No.</th>'
        "<th>Lecture (slides)</th><th>Its question</th><th>Minutes</th><th>Goes with</th></tr>"
        f"</thead><tbody>\n{chr(10).join(rows)}\n</tbody></table></div>\n"
    )


# ------------------------------------------------------------------------------- concept map
NODE_WIDTH, NODE_HEIGHT, GAP, ROW, LEFT, TOP = 84, 44, 14, 92, 96, 6


def concept_map(parts: list[dict], pages: list[str]) -> str:
    """Draw the chapters, a row for each part, with an arrow from what a chapter builds on.

    A list of the same follows; the style sheet shows one or the other, by the window's width.
    """
    place: dict[int, tuple[int, int]] = {}  # number -> (column, row)
    for row, part in enumerate(parts):
        for column, chapter in enumerate(part["chapters"]):
            place[chapter["number"]] = (column, row)
    columns = max(len(part["chapters"]) for part in parts)
    width = LEFT + columns * NODE_WIDTH + (columns - 1) * GAP + 2
    height = TOP + (len(parts) - 1) * ROW + NODE_HEIGHT + 26

    def corner(number: int) -> tuple[int, int]:
        column, row = place[number]
        return LEFT + column * (NODE_WIDTH + GAP), TOP + row * ROW

    lines, nodes, needs_in_words = [], [], []
    for part in parts:
        _, y = corner(part["chapters"][0]["number"])
        number, _, name = part["part"].partition(": ")
        nodes.append(
            f'<text class="part" x="0" y="{y + 19}">{escape(number)}</text>'
            f'<text class="about" x="0" y="{y + 35}">{escape(name)}</text>'
        )
        for chapter in part["chapters"]:
            lines += [
                f'<path d="{arrow(corner(needed), corner(chapter["number"]))}"/>'
                for needed in chapter["needs"]
            ]
            nodes.append(map_node(chapter, corner(chapter["number"]), pages))
            if chapter["needs"]:
                needed = " and ".join(map(str, chapter["needs"]))
                needs_in_words.append(f"{chapter['number']} on {needed}")
    description = "Which chapter builds on which: " + ", ".join(needs_in_words) + "."
    return f"""<div class="concept-map" tabindex="0" role="region" aria-label="Concept map">
<svg viewBox="0 0 {width} {height}" role="group" aria-labelledby="map-title map-text">
<title id="map-title">The chapters, in {len(parts)} parts</title>
<desc id="map-text">{escape(description)}</desc>
<defs><marker id="map-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"
 orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"/></marker></defs>
<g class="needs">{"".join(lines)}</g>
{"".join(nodes)}
</svg>
<p>An arrow leads from a chapter to one that builds on it.</p></div>
{map_as_list(parts, pages)}"""


def arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the path of an arrow between two nodes, given their corners."""
    (x0, y0), (x1, y1) = start, end
    half = NODE_WIDTH // 2
    if y0 == y1 and x1 - x0 <= NODE_WIDTH + GAP:  # neighbours
        return f"M{x0 + NODE_WIDTH} {y0 + NODE_HEIGHT // 2}H{x1 - 2}"
    if y0 == y1:  # farther along the same row: below the nodes between
        below = y0 + NODE_HEIGHT
        return (
            f"M{x0 + half} {below}C{x0 + half + 20} {below + 26} "
            f"{x1 + half - 20} {below + 26} {x1 + half} {below + 2}"
        )
    down = y0 + NODE_HEIGHT
    bend, end_x = (y1 - down) // 2, x1 + half
    return f"M{x0 + half} {down}C{x0 + half} {down + bend} {end_x} {y1 - bend} {end_x} {y1 - 2}"


def map_node(chapter: dict, corner: tuple[int, int], pages: list[str]) -> str:
    """Draw a chapter: a link if it can be read, dashed if it is planned."""
    x, y = corner
    label, middle = escape(chapter["short"]), x + NODE_WIDTH // 2
    shape = (
        f'<rect x="{x}" y="{y}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="8"/>'
        f'<text class="number" x="{middle}" y="{y + 18}">{chapter["number"]}</text> '
        f'<text class="short" x="{middle}" y="{y + 35}">{label}</text>'
    )
    if page_of(chapter) in pages:
        name = f"Chapter {chapter['number']} {label}"  # holds the words that show
        return f'<a class="ready" href="{page_of(chapter)}.html" aria-label="{name}">{shape}</a>'
    return f'<g class="planned"><title>Chapter {chapter["number"]}: planned</title>{shape}</g>'


def map_as_list(parts: list[dict], pages: list[str]) -> str:
    """Return the chapters as a list by parts, for windows too narrow for the drawing."""
    lines = []
    for part in parts:
        names = []
        for chapter in part["chapters"]:
            name = f"{chapter['number']}&nbsp;{escape(chapter['short']).replace(' ', '&nbsp;')}"
            ready = page_of(chapter) in pages
            names.append(
                f'<a href="{page_of(chapter)}.html">{name}</a>'
                if ready
                else f'<span class="planned">{name}</span>'
            )
        lines.append(
            f"<dt>{escape(part['part'])}</dt>\n"
            f"<dd>{escape(part['about'])}.<br>{' · '.join(names)}</dd>\n"
        )
    return f'<dl class="concept-list">\n{"".join(lines)}</dl>\n'


# ------------------------------------------------------------------------------- attention
def attention_explorer(data: dict) -> str:
    """Return the explorer of the first page; where no script runs, the picture shows instead."""
    from utils.widgets import AttentionExplorer

    explorer = AttentionExplorer(
        "Anna read the book on the river bank", "bank", source="head 5", compact=True
    )
    picture = explorer.embed("first-page", fallback=attention_figure(data))
    return f"""<div class="live">
<p class="live-note"><strong>Attention, live.</strong> A head of a released encoder of 22.7 million
parameters, computed by your browser. Ask “bank”, then “read”, then change the sentence.
<a href="notebooks/04_attention.html">Chapter 4</a> derives every number.</p>
{picture}</div>
"""


def attention_figure(data: dict) -> str:
    """Draw a head's weights as lines between two columns of tokens; pointing picks a query."""
    tokens, weights, chosen = data["tokens"], data["weights"], data["query"]
    step, left, right, width = 21, 96, 214, 310
    height = step * len(tokens) + 30

    def y(index: int) -> int:
        return 24 + step * index + step // 2

    rows = []
    for query, token in enumerate(tokens):
        lines = "".join(
            f'<line x1="{left}" y1="{y(query)}" x2="{right}" y2="{y(key)}" '
            f'stroke-width="{max(0.6, 7 * weight):.1f}" opacity="{min(1, 0.15 + weight):.2f}"/>'
            for key, weight in enumerate(weights[query])
            if weight >= 0.02
        )
        numbers = "".join(
            f'<text class="weight" x="{right + 92}" y="{y(key) + 4}" text-anchor="end">'
            f"{weight:.2f}</text>"
            for key, weight in enumerate(weights[query])
            if weight >= 0.1
        )
        rows.append(
            f'<g class="query{" chosen" if query == chosen else ""}">'
            f'<rect x="0" y="{y(query) - step // 2}" width="{left}" height="{step}" rx="4"/>'
            f'<text x="{left - 8}" y="{y(query) + 4}" text-anchor="end">{escape(token)}</text>'
            f'<g class="lines">{lines}{numbers}</g></g>'
        )
    keys = "".join(
        f'<text x="{right + 8}" y="{y(index) + 4}">{escape(token)}</text>'
        for index, token in enumerate(tokens)
    )
    return f"""<figure class="attention-figure">
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(data["alt"])}">
<text class="head" x="{left - 8}" y="14" text-anchor="end">query</text>
<text class="head" x="{right + 8}" y="14">key</text>
<text class="head" x="{right + 92}" y="14" text-anchor="end">weight</text>
{keys}
{"".join(rows)}
</svg>
<figcaption>{escape(data["caption"])} Point at another word on the left.</figcaption>
</figure>
"""


# ------------------------------------------------------------------------------- measurements
def measurements(files: list[Path]) -> str:
    """Turn the files that `make bench` writes into tables, each with how to repeat it.

    Raises
    ------
    ValueError
        If a file lacks one of the fields, or a row is not as long as the columns.
    """
    if not files:
        return (
            "No measurement has been recorded yet. `make bench` runs them all on the machine "
            "at hand, and the next `make book` shows its results here.\n"
        )
    return "\n".join(measurement(path) for path in files)


def measurement(path: Path) -> str:
    """Turn one file into a section."""
    data = json.loads(path.read_text(encoding="utf-8"))
    missing = {"title", "command", "date", "machine", "columns", "rows"} - set(data)
    if missing:
        raise ValueError(f"{path.name} lacks {sorted(missing)}: run `make bench` again")
    if any(len(row) != len(data["columns"]) for row in data["rows"]):
        raise ValueError(f"{path.name} has rows of another length than its columns")
    machine = data["machine"]
    described = (
        "; ".join(f"{cell(key)} {cell(value)}" for key, value in machine.items())
        if isinstance(machine, dict)
        else cell(machine)
    )
    table = [data["columns"], ["---"] * len(data["columns"]), *data["rows"]]
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in table]
    notes = data.get("notes") or []
    notes = [notes] if isinstance(notes, str) else notes
    return "\n".join(
        [
            f"## {data['title']}",
            "",
            f"Measured {data['date']} by `{data['command']}`. Machine: {described}.",
            "",
            *lines,
            "",
            *(f"{note}\n" for note in notes),
        ]
    )


def cell(value: object) -> str:
    """Write a value so that it stays within its cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")
