"""Print the website as one PDF: the whole book, or some of its pages.

    python scripts/build_pdf.py                                  the whole book
    python scripts/build_pdf.py notation notebooks/04_attention  only these pages
    python scripts/build_pdf.py --output FILE.pdf

The website is built first, from the outputs that the notebooks are committed with. Each page is
then printed by a headless browser, light and with everything unfolded, and pypdf puts the prints
together: title and contents, bookmarks for chapters and their sections, running heads and page
numbers. A link to another page of the book leads to its place in the PDF.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
import browser
import build_book

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from pypdf import PageObject, PdfReader, PdfWriter

NAME = "language-models-from-first-principles.pdf"
MARGINS = {"top": "22mm", "bottom": "20mm", "left": "16mm", "right": "16mm"}
WIDTH = 672  # pixels between the margins of A4, at 96 to the inch
PAPER = {"format": "A4", "print_background": True}
MARK = "https://heading.invalid/"  # the links that HEADINGS puts on headings begin so

# Unfold, load and show everything, and make smaller what is still wider than the paper.
PREPARE = """async (patience) => {
  document.documentElement.dataset.theme = "light";
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const late of document.querySelectorAll("[loading=lazy]")) late.loading = "eager";
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  // Widgets and diagrams draw themselves as they come near the window.
  for (let y = 0; y < document.body.scrollHeight; y += 500) {
    window.scrollTo(0, y);
    await new Promise((next) => setTimeout(next, 30));
  }
  const drawn = () =>
    [...document.querySelectorAll("pre.mermaid")].every((d) => d.querySelector("svg")) &&
    [...document.querySelectorAll("script[type$='widget-view+json'], script[data-explorer]")]
      .every((view) => view.parentElement.querySelector(".widget-subarea > *"));
  const end = Date.now() + patience;
  while (!drawn() && Date.now() < end) await new Promise((next) => setTimeout(next, 50));
  await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
  await document.fonts.ready;
}"""

# In print media, so with the widths that the paper has. Code is not made smaller: it wraps.
FIT = """() => {
  const wide = "mjx-container, table, .widget-subarea > *, .mermaid svg, .concept-map svg";
  const room = document.querySelector("article").getBoundingClientRect();
  const height = 760; // of a page, less a heading and a few lines
  for (const box of document.querySelectorAll(wide)) {
    if (!box.checkVisibility()) continue;
    const place = box.getBoundingClientRect();
    const formula = box.querySelector("mjx-math");
    const widths = [box, formula].map((part) => (part ? part.getBoundingClientRect().width : 0));
    const width = Math.max(box.scrollWidth || 0, ...widths);
    let ratio = (room.right - Math.max(room.left, place.left)) / width;
    // What is no table is not cut in two.
    if (box.tagName !== "TABLE") ratio = Math.min(ratio, height / place.height);
    if (ratio < 0.995) box.style.zoom = Math.max(0.4, ratio - 0.01);
  }
  for (const box of document.querySelectorAll(".explorer-scroll"))
    if (box.scrollWidth > box.clientWidth)
      box.style.zoom = (box.clientWidth / box.scrollWidth) - 0.01;
  // Kept in one piece, a long cell or table would leave much of a page empty.
  const long = ".cell :is(details, .cell_input, [class*=highlight], pre), table";
  for (const box of document.querySelectorAll(long))
    if (box.offsetHeight > 400) box.style.breakInside = "auto";
}"""

# Of a frame with a drawing by bertviz: how wide the drawing is, and then the frame made so wide,
# on no more paper than there is.
DRAWN = """() => Math.max(...[...document.querySelectorAll("svg")]
  .map((drawing) => drawing.getBoundingClientRect().right + 8))"""
SCALE = """(frame, drawn) => {
  const room = document.querySelector("article").getBoundingClientRect().width;
  const width = Math.max(room, drawn);
  frame.style.width = `${width}px`;
  frame.style.transform = `scale(${room / width})`;
  frame.style.transformOrigin = "0 0";
  frame.style.marginBottom = `${(room / width - 1) * frame.offsetHeight}px`;
  frame.parentElement.style.setProperty("overflow", "hidden", "important");
}"""

# Return the title and the headings of sections, each with the name that a link to it has. Each
# heading becomes a link: in the PDF, the link stands where the heading does, while the place that
# the browser keeps for a heading's name is a page too early if the heading begins a page.
HEADINGS = """(mark) => [...document.querySelectorAll("article section > :is(h1, h2, h3, h4)")]
  .map((heading) => {
    for (const extra of heading.querySelectorAll(".headerlink, mjx-assistive-mml")) extra.remove();
    const link = document.createElement("a");
    link.href = mark + heading.parentElement.id;
    link.style.color = "inherit";
    link.append(...heading.childNodes);
    heading.append(link);
    return [heading.tagName, heading.parentElement.id, link.textContent.trim()];
  })"""

HEADS = """<style>
  @page {{ size: A4; margin: 0; }}
  body {{ margin: 0; font: 9pt "Helvetica Neue", Helvetica, Arial, sans-serif; color: #444; }}
  section {{ height: 296.9mm; box-sizing: border-box; padding: 11mm 18mm; break-after: page;
    display: flex; justify-content: space-between; align-items: flex-start; overflow: hidden; }}
</style>{sections}"""

FRONT = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
  body {{ font: 11pt/1.5 "Helvetica Neue", Helvetica, Arial, sans-serif; color: #222; margin: 0; }}
  .cover {{ height: 240mm; display: flex; flex-direction: column; justify-content: center;
    break-after: page; }}
  .cover h1 {{ font-size: 30pt; line-height: 1.2; margin: 0 0 6mm; }}
  h2 {{ font-size: 15pt; }}
  h3 {{ font-size: 11pt; margin: 5mm 0 1mm; break-after: avoid; }}
  .line {{ display: flex; gap: 2mm; break-inside: avoid; text-decoration: none; color: #005f94; }}
  .line i {{ flex: 1; border-bottom: 0.3mm dotted #999; margin-bottom: 1.6mm; }}
</style></head><body>
<div class="cover"><h1>{title}</h1><p>Printed from the website on {date}. What moves and answers
there, widgets and exercises that check themselves, stands here as it was saved.</p>
<p>Code under the MIT licence, text and figures under CC BY 4.0.</p></div>
<h2>Contents</h2>
{lines}
</body></html>"""


@dataclasses.dataclass
class Print:
    """One page of the website, printed."""

    name: str  # of the page, without suffix
    part: str  # of the book that it stands in; empty for the first page
    title: str
    sections: list[tuple[str, str]]  # their names in links, and their titles
    pdf: bytes


def with_parts(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return each page with the part of the table of contents that it stands in.

    Raises
    ------
    ValueError
        If a page is not in the book.
    """
    toc = build_book.contents()
    part_of = {toc["root"]: ""}
    for part in toc["parts"]:
        part_of |= {chapter["file"]: part["caption"] for chapter in part["chapters"]}
    chosen = list(names) or list(part_of)
    for name in chosen:
        if name not in part_of:
            raise ValueError(
                f"the book has no page {name!r}: its pages are listed in book/_toc.yml, and are "
                "called like notation or notebooks/04_attention"
            )
    return [(name, part_of[name]) for name in chosen]


# ------------------------------------------------------------------------------- printing
def print_page(page: Page, url: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the title, the sections and the PDF of one page of the website."""
    page.emulate_media(media="screen", color_scheme="light")
    page.goto(url, wait_until="load")
    page.evaluate(PREPARE, 30_000)
    page.emulate_media(media="print")
    page.evaluate(FIT)
    for frame in page.main_frame.child_frames:
        frame.frame_element().evaluate(SCALE, frame.evaluate(DRAWN))
    headings = page.evaluate(HEADINGS, MARK)
    title = next(words for tag, _, words in headings if tag == "H1")
    sections = [(name, words) for tag, name, words in headings if tag == "H2"]
    return title, sections, page.pdf(**PAPER, margin=MARGINS)


def printed(chromium: Browser, url: str, pages: list[tuple[str, str]]) -> Iterator[Print]:
    """Print the pages one after the other, each in an empty profile."""
    for name, part in pages:
        context = chromium.new_context(viewport={"width": WIDTH, "height": 1000})
        context.set_default_timeout(180_000)
        title, sections, pdf = print_page(context.new_page(), f"{url}/{name}.html")
        context.close()
        yield Print(name, part, title, sections, pdf)


def print_html(chromium: Browser, html: str, **options: Any) -> bytes:
    """Return the PDF of some HTML."""
    page = chromium.new_page()
    page.set_content(html)
    pdf = page.pdf(**PAPER, **options)
    page.close()
    return pdf


# ------------------------------------------------------------------------------- putting together
Places = dict[str, tuple[int, float | None]]  # what a link leads to: a page, and how high on it


def book(prints: list[Print], chromium: Browser, url: str) -> PdfWriter:
    """Put the prints together: title, contents, running heads, bookmarks, links.

    Parameters
    ----------
    prints : list of Print
    chromium : playwright.sync_api.Browser
        Prints the title, the contents and the running heads.
    url : str
        Address of the website that was printed; links that begin so lead elsewhere in the book.
    """
    from pypdf import PdfReader, PdfWriter

    readers = [PdfReader(io.BytesIO(each.pdf)) for each in prints]
    starts = [0, *itertools.accumulate(len(reader.pages) for reader in readers)]
    total = starts.pop()
    html = front_matter(prints, starts, url)
    front = PdfReader(io.BytesIO(print_html(chromium, html, margin=MARGINS)))
    html = running_heads(prints, readers)
    heads = PdfReader(io.BytesIO(print_html(chromium, html, prefer_css_page_size=True)))

    writer = PdfWriter()
    offset = len(front.pages)
    writer.append(front, import_outline=False)
    places: Places = {}  # keys such as notation and notation#sizes
    for each, reader, start in zip(prints, readers, starts, strict=True):
        places[each.name] = (offset + start, None)
        for name, (page, top) in places_in(reader).items():
            places[f"{each.name}#{name}"] = (offset + start + page, top)
        writer.append(reader, import_outline=False)
    names = [each.name for each, reader in zip(prints, readers, strict=True) for _ in reader.pages]
    for page, name in zip(writer.pages, [""] * offset + names, strict=True):
        mend_links(writer, page, name, url, places)
    add_bookmarks(writer, prints, places)
    for page, head in zip(writer.pages[offset:], heads.pages, strict=True):
        page.merge_page(head)
        page.compress_content_streams()  # merging has unpacked them
    writer.set_page_label(0, offset - 1, style="/r")
    writer.set_page_label(offset, offset + total - 1, style="/D", start=1)
    writer.add_metadata({"/Title": title_of_the_book()})
    writer.page_mode = "/UseOutlines"
    # The prints carry the same fonts each.
    writer.compress_identical_objects(remove_duplicates=True, remove_unreferenced=True)
    return writer


def title_of_the_book() -> str:
    config = yaml.safe_load((build_book.BOOK / "_config.yml").read_text(encoding="utf-8"))
    return config["title"]


def front_matter(prints: list[Print], starts: list[int], url: str) -> str:
    """Return the HTML of the title and the contents."""
    lines, part = [], ""
    for each, start in zip(prints, starts, strict=True):
        if each.part != part:
            lines.append(f"<h3>{escape(each.part)}</h3>")
            part = each.part
        lines.append(
            f'<a class="line" href="{url}/{each.name}.html">{escape(each.title)}<i></i>'
            f"{start + 1}</a>"
        )
    date = time.strftime("%d %B %Y").lstrip("0")
    return FRONT.format(title=escape(title_of_the_book()), date=date, lines="\n".join(lines))


def running_heads(prints: list[Print], readers: list[PdfReader]) -> str:
    """Return the HTML of a page for each page of the book, with its head only."""
    titles = [
        each.title for each, reader in zip(prints, readers, strict=True) for _ in reader.pages
    ]
    lines = (
        f"<section><span>{escape(title)}</span><span>{number}</span></section>"
        for number, title in enumerate(titles, start=1)
    )
    return HEADS.format(sections="".join(lines))


def links_of(page: PageObject) -> list[Any]:
    """Return the links on a page of paper."""
    annotations = [each.get_object() for each in page.get("/Annots", [])]
    return [each for each in annotations if each.get("/Subtype") == "/Link"]


def address_of(link: Any) -> str:
    """Return the address that a link leads to; empty if it leads to a place in its own print."""
    return str(link["/A"].get_object().get("/URI", "")) if "/A" in link else ""


def places_in(reader: PdfReader) -> Places:
    """Return where the names in a print lead to: those that links use, and all headings'."""
    places = {
        name.removeprefix("/"): (reader.get_destination_page_number(place), place.top)
        for name, place in reader.named_destinations.items()
    }
    headings: Places = {}
    for number, page in enumerate(reader.pages):
        for link in links_of(page):
            address = address_of(link)
            _, foot, _, top = map(float, link["/Rect"])
            # A heading that begins a page leaves a sliver of its link on the page before.
            if address.startswith(MARK) and top - foot > 3:
                headings.setdefault(address.removeprefix(MARK), (number, top))
    return places | headings


def mend_links(writer: PdfWriter, page: PageObject, name: str, url: str, places: Places) -> None:
    """Let the links on a page of paper lead to places in the book.

    What leads nowhere becomes plain text: the marks on headings, and links to what is not printed,
    such as slides, whose address is that of the server which the pages were printed from.
    """
    from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject

    kept = ArrayObject()
    for link in links_of(page):
        address = address_of(link)
        if address and not address.startswith((url, MARK)):
            kept.append(link)
            continue
        key = f"{name}#{str(link.get('/Dest')).removeprefix('/')}"
        if address:
            key = unquote(address.removeprefix(f"{url}/").replace(".html", ""))
        found = places.get(key) or places.get(key.partition("#")[0])
        if found is None:
            continue
        number, top = found
        height = NullObject() if top is None else FloatObject(top)
        target = writer.pages[number].indirect_reference
        way = [target, NameObject("/XYZ"), NullObject(), height, NullObject()]
        link.pop("/A", None)
        link[NameObject("/Dest")] = ArrayObject(way)
        kept.append(link)
    page[NameObject("/Annots")] = kept


def add_bookmarks(writer: PdfWriter, prints: list[Print], places: Places) -> None:
    """Add a bookmark for each part, page of the website, and section."""
    parts: dict[str, Any] = {"": None}
    for each in prints:
        first, _ = places[each.name]
        if each.part not in parts:
            parts[each.part] = writer.add_outline_item(title=each.part, page_number=first)
        chapter = writer.add_outline_item(
            title=each.title, page_number=first, parent=parts[each.part]
        )
        for name, title in each.sections:
            page, _ = places[f"{each.name}#{name}"]
            writer.add_outline_item(title=title, page_number=page, parent=chapter)


def build_pdf(chromium: Browser, site: Path, names: Iterable[str], output: Path) -> int:
    """Print pages of a website into one file, and return how many pages of paper that takes."""
    pages = with_parts(names)
    server = browser.serve(site)
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        prints = []
        for number, each in enumerate(printed(chromium, url, pages), start=1):
            prints.append(each)
            print(f"\rPrinting: {number} of {len(pages)} pages", end="", flush=True)
        print()
        writer = book(prints, chromium, url)
    finally:
        server.shutdown()
        server.server_close()
    output.parent.mkdir(parents=True, exist_ok=True)
    writer.write(output)
    return len(writer.pages)


def main() -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="such as notation; default: all")
    parser.add_argument("--site", type=Path, default=build_book.BUILD / "pdf-site")
    parser.add_argument("--output", type=Path, default=build_book.BUILD / NAME)
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        html = build_book.build_book(options.site.resolve())
        with sync_playwright() as playwright:
            chromium = browser.start(playwright)
            count = build_pdf(chromium, html, options.pages, options.output)
    except (build_book.BuildError, build_book.fetch_assets.AssetError, ValueError) as error:
        print(f"The book was not printed: {error}", file=sys.stderr)
        return 1
    except browser.BrowserError as error:
        print(f"The book was not printed. {error}", file=sys.stderr)
        return 1
    shown = options.output.resolve()
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    size = options.output.stat().st_size / 1e6
    print(
        f"The book is printed: {count} pages, {size:.1f} MB ({time.perf_counter() - start:.0f} s):"
    )
    print(f"    {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
