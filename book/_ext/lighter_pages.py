"""Make the pages that Sphinx wrote lighter, and say what their controls are called.

The theme puts the same scripts on every page, 1.5 MB of icons among them. When Sphinx is done, this
takes out of each page what it does not use, lets pictures and frames wait until the reader comes
near them, and mends the names of a few controls, which axe-core (tests/site) finds wanting. Each
change leaves a page that has been through it before as it is, because an incremental build writes
only the pages that have changed.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FRAMES = "_frames"  # folder of the website for documents that notebooks show in a frame

SEARCHES = 'id="search-results"'
TOGGLE = r'class="(?:[^"]* )?toggle[ "]|class="[^"]*\badmonition\b[^"]* dropdown'

# What a page loads -> what in the page says that it is needed; None: no page needs it.
NEEDED_IF = {
    "scripts/fontawesome.js": None,  # the theme's style sheet draws the same icons, by a font
    "searchtools.js": SEARCHES,
    "language_data.js": SEARCHES,
    "searchindex.js": SEARCHES,
    "sphinx-design.min.css": r'class="[^"]*\bsd-',
    "design-tabs.js": r'class="[^"]*\bsd-tab',
    "togglebutton.js": TOGGLE,
    "togglebutton.css": TOGGLE,
    "mathjax/es5/startup.js": r'class="(?:[^"]* )?math |"(?:description|value)": "[^"]*\$[^"]*\$',
}

NAMES = [
    # The words that show are the name of what folds a cell, and of the search button.
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    (' title="Search" aria-label="Search" data-bs-placement', ' title="Search" data-bs-placement'),
    # The theme's three icons are parts of one button, which has a name.
    *((f' title="{name}"></i>', "></i>") for name in ("Light", "Dark", "System Settings")),
    # The widgets' library redefines the old name of the icons' font.
    ('class="fas fa-', 'class="fa-solid fa-'),
    # A list holds items; the role "doc-biblioentry" is no longer one.
    ('role="doc-biblioentry"', 'role="listitem"'),
]


def without_unused(page: str) -> str:
    """Return a page without the scripts and style sheets of the theme that it does not use."""
    head, _, body = page.partition("<body")
    states = "".join(re.findall(r"<script type=.application/vnd.jupyter.widget-state.*", head))
    for name, sign in NEEDED_IF.items():
        if sign is None or not re.search(sign, states + body):
            file = rf"[^\"]*{re.escape(name)}(\?[^\"]*)?"
            page = re.sub(rf'\s*<script[^>]* src="{file}"[^>]*></script>', "", page)
            page = re.sub(rf'\s*<link[^>]* href="{file}"[^>]*>', "", page)
    return page


def with_names(page: str) -> str:
    """Return a page whose controls are called what they show."""
    for old, new in NAMES:
        page = page.replace(old, new)
    return page


def with_lazy_pictures(page: str, folder: Path) -> str:
    """Return a page whose pictures load as the reader comes near, with their place kept free."""

    def mend(match: re.Match[str]) -> str:
        tag = match.group()
        source = re.search(r'src="([^"]*_images/[^"]+)"', tag)
        if "loading=" in tag or not source:
            return tag
        size = size_of(folder / html.unescape(source[1]))
        place = f' width="{size[0]}" height="{size[1]}"' if size and "width=" not in tag else ""
        return f'<img loading="lazy"{place}{tag[len("<img") :]}'

    return re.sub(r"<img\b[^>]*>", mend, page)


def size_of(picture: Path) -> tuple[int, int] | None:
    """Return the width and height of an SVG or PNG file in pixels, or None if it does not say."""
    if not picture.is_file():
        return None
    head = picture.read_bytes()[:2000]
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    tag = re.search(rb"<svg\b[^>]*>", head)
    sides = [
        re.search(rb'\b%s="([\d.]+)(pt|px)?"' % side, tag.group()) if tag else None
        for side in (b"width", b"height")
    ]
    if not all(sides):
        return None
    width, height = (round(float(s[1]) * (4 / 3 if s[2] == b"pt" else 1)) for s in sides)
    return width, height


def with_lazy_frames(page: str, depth: int, write: Callable[[str, str], None]) -> str:
    """Return a page whose frames load from files of their own as the reader comes near.

    Parameters
    ----------
    page : str
        The page; a frame carries a whole document in its attribute `srcdoc`.
    depth : int
        How many folders below the website's own the page lies.
    write : callable
        Takes the name of a file in the folder of frames, and the document.
    """

    def mend(match: re.Match[str]) -> str:
        document = html.unescape(match[2])
        name = hashlib.sha256(document.encode()).hexdigest()[:16] + ".html"
        write(name, document)
        return f'{match[1]}loading="lazy" src="{"../" * depth}{FRAMES}/{name}"{match[3]}'

    return re.sub(r'(<iframe\b[^>]*?)\bsrcdoc="([^"]*)"([^>]*>)', mend, page)


def with_used_icons(style: str, icons: set[str]) -> str:
    """Return the theme's style sheet without the rules of icons that no page shows."""

    def keep(match: re.Match[str]) -> str:
        names = re.findall(r"\.fa-([\w-]+):before", match.group())
        return match.group() if icons & set(names) else ""

    return re.sub(r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]*"\}', keep, style)


def lighten(app: Sphinx, error: Exception | None) -> None:
    """Change the pages and the theme's style sheet once Sphinx has written them."""
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    icons = {"xmark"}  # a script of the theme shows it

    def write(name: str, document: str) -> None:
        path = site / FRAMES / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(document, encoding="utf-8")

    for path in site.rglob("*.html"):
        parts = path.relative_to(site).parts
        if parts[0] in ("_static", "slides", FRAMES):
            continue
        before = path.read_text(encoding="utf-8")
        after = with_lazy_frames(before, len(parts) - 1, write)
        after = with_lazy_pictures(with_names(without_unused(after)), path.parent)
        icons |= set(re.findall(r"\bfa-([\w-]+)", after))
        if after != before:
            path.write_text(after, encoding="utf-8")
    style = site / "_static" / "styles" / "pydata-sphinx-theme.css"
    style.write_text(with_used_icons(style.read_text(encoding="utf-8"), icons), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register this with Sphinx, to run when everything else has."""
    app.connect("build-finished", lighten, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
