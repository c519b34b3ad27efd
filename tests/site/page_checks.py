"""What a page of the website must be: each function returns the complaints it finds.

Kept apart from the tests so that test_page_checks.py can show each of them a page that is wrong.
"""

from __future__ import annotations

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import fetch_assets
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    Route,
    WebSocketRoute,
)

# The html-manager's JSON validator says this of its own schema; nothing a page can mend.
HARMLESS = re.compile(r"strict mode: use allowUnionTypes")

READY = """async (patience) => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const details of document.querySelectorAll("details")) details.open = true;
  // Pass every part of the page before the window, as a reader does, for what loads then.
  for (let y = 0; y < document.body.scrollHeight; y += 1500) {
    window.scrollTo(0, y);
    await new Promise((next) => setTimeout(next, 20));
  }
  window.scrollTo(0, 0);
  const drawn = () =>
    [...document.querySelectorAll("pre.mermaid")].every((d) => d.querySelector("svg")) &&
    [...document.querySelectorAll("script[type$='widget-view+json'], script[data-explorer]")]
      .every((v) => v.parentElement.querySelector(".widget-subarea > *"));
  const end = Date.now() + patience;
  while (!drawn() && Date.now() < end) await new Promise((next) => setTimeout(next, 50));
  for (const image of document.images) image.loading = "eager"; // the pass may have been too quick
  await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
}"""

MATH = """() => {
  const found = [];
  for (const math of document.querySelectorAll(".math.notranslate"))
    if (!math.querySelector("mjx-container"))
      found.push("not typeset: " + math.textContent.slice(0, 80));
  for (const error of document.querySelectorAll("mjx-merror, mjx-container [data-mjx-error]"))
    found.push("MathJax reports an error: " + (error.dataset.mjxError || error.textContent));
  const walker = document.createTreeWalker(document.querySelector("main") || document.body, 4);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("pre, code, script, style, mjx-container, .math")) continue;
    const raw = walker.currentNode.data.match(
      /\\\\[([]|\\$[^$\\n]*[\\\\^_{][^$\\n]*\\$|\\$[A-Za-z0-9]{1,3}\\$|\\\\(frac|sum|mathbf|text|sqrt)\\b/
    );
    if (raw) found.push("raw TeX in the text: " + walker.currentNode.data.trim().slice(0, 80));
  }
  return found;
}"""

PICTURES = """() => {
  const found = [];
  for (const image of document.images) {
    const name = (image.getAttribute("src") || "").slice(0, 80);
    if (!image.complete || !image.naturalWidth) found.push("does not show: " + name);
    if (!(image.alt || "").trim()) found.push("no alternative text: " + name);
  }
  for (const svg of document.querySelectorAll("main svg")) {
    // Diagrams have a check of their own; icons and what typesets formulas are no pictures.
    if (svg.closest("pre.mermaid, mjx-container, button, a, [aria-hidden], svg svg")) continue;
    if (svg.closest(".cell_output") || svg.classList.contains("svg-inline--fa")) continue;
    if (!svg.getAttribute("aria-label") && !svg.getAttribute("aria-labelledby"))
      found.push("no alternative text: a drawing in " + svg.parentElement.className);
  }
  return found;
}"""

DIAGRAMS = """() => {
  const found = [];
  for (const diagram of document.querySelectorAll("pre.mermaid")) {
    const svg = diagram.querySelector("svg");
    const start = (diagram.dataset.source || diagram.textContent).trim().slice(0, 40);
    if (!svg || svg.getBoundingClientRect().height < 10) found.push("not drawn: " + start);
    else if (svg.querySelector(".error-icon")) found.push("mermaid reports an error: " + start);
    else if (!svg.querySelector("title") || !svg.querySelector("desc"))
      found.push("no title and description: " + start);
  }
  return found;
}"""

WIDGETS = """() => {
  const views = document.querySelectorAll(
    "script[type$='widget-view+json'], script[data-explorer]");
  return [...views]
    .filter((view) => !view.parentElement.querySelector(".widget-subarea > *"))
    .map((view) => "not shown: " + view.textContent.trim().slice(0, 80));
}"""

CONTRAST = """() => {
  const numbers = (colour) => (colour.match(/^rgba?\\(([^)]*)\\)/) || ["", ""])[1]
    .split(/[ ,/]+/).filter(Boolean).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const rgb = numbers(getComputedStyle(e).backgroundColor);
      if (rgb.length === 3 || rgb[3] === 1) return rgb;
      if (rgb.length === 4 && rgb[3] > 0) return null;  // half transparent: not judged
    }
    return [255, 255, 255];
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.querySelector("main") || document.body, 4);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("svg, script, style")) continue;
    if (!element.getClientRects().length) continue;
    const ink = numbers(getComputedStyle(element).color), paper = ground(element);
    if (ink.length < 3 || (ink.length === 4 && ink[3] < 1) || !paper) continue;
    const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5)
      found.add(`contrast ${ratio.toFixed(1)}, ink ${ink} on ${paper}: ` +
        `<${element.tagName.toLowerCase()} class="${element.className}">`);
  }
  return [...found];
}"""

WIDTH = """() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const wide = [...document.querySelectorAll("main *")].find(
    (e) => e.getBoundingClientRect().right > root.clientWidth + 1
      && !e.closest("pre, .math, table, svg, mjx-container"));
  return [`${root.scrollWidth} pixels wide in a window of ${root.clientWidth}` +
    (wide ? `: <${wide.tagName.toLowerCase()} class="${wide.className}">` : "")];
}"""


HEAVY = 1_500_000  # bytes that the first view of a page may load, compressed as hosts do
WINDOWS = ((360, 740), (768, 1024), (1440, 900))  # of a phone, a tablet, a desk

SET_THEME = """async (theme) => {
  document.documentElement.dataset.theme = theme;
  // Colours fade from one theme to the other: judge them when they have arrived.
  await Promise.all(document.getAnimations().map((a) => a.finished.catch(() => 0)));
}"""

# A page has ten thousand coloured words of code, and axe-core takes its time over each. One of each
# kind stays; the others become plain text in their place. The page is fit for nothing else then.
THIN_OUT_CODE = """() => {
  const seen = new Set();
  for (const word of document.querySelectorAll("pre span")) {
    if (word.attributes.length > 1 || word.firstElementChild) continue;
    const kind = [word.className, word.closest(".cell_input, .cell_output")?.className].join();
    if (seen.has(kind)) word.replaceWith(word.textContent);
    else seen.add(kind);
  }
}"""
AXE = """async (rules) => {
  const only = rules ? { runOnly: rules } : {};
  const found = await axe.run(document, { resultTypes: ["violations"], iframes: false, ...only });
  return found.violations
    .filter((v) => ["serious", "critical"].includes(v.impact))
    .flatMap((v) => v.nodes.map((n) =>
      `${v.impact}: ${v.id}: ${n.failureSummary.split("\\n")[1].trim()}: ${n.html.slice(0, 120)}`));
}"""
# The rules that depend on the window and the theme; the others need to be asked once.
LOOKS = ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]


@functools.cache
def axe_core() -> str:
    """Return axe-core's source."""
    return (fetch_assets.fetch_test_tools() / "axe" / "axe.min.js").read_text(encoding="utf-8")


class Visit:
    """A page in a browser without a network, and everything the browser reported of it.

    Attributes
    ----------
    page : playwright.sync_api.Page
    console_errors : list of str
        Errors and warnings on the console, and exceptions that no script caught.
    failed_requests : list of str
        What could not be loaded: no answer, or a status of 400 and above.
    outside_requests : list of str
        Addresses on other machines that something asked for; none was let through.
    """

    def __init__(
        self,
        browser: Browser,
        width: int = 1280,
        height: int = 720,
        dark: bool = False,
        touch: bool = False,
    ) -> None:
        self.console_errors: list[str] = []
        self.failed_requests: list[str] = []
        self.outside_requests: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            service_workers="block",
        )
        self.context.route("**/*", self._let_in)
        self.context.route_web_socket("**/*", self._refuse_socket)
        self.context.on("console", self._heard)
        self.context.on("weberror", lambda error: self.console_errors.append(str(error.error)))
        self.context.on("response", self._answered)
        self.context.on("requestfailed", self._failed)
        self.context.set_default_timeout(60_000)
        self.page: Page = self.context.new_page()

    def close(self) -> None:
        """Close the page and forget its profile."""
        self.context.close()

    def _let_in(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.scheme in ("file", "data", "blob") or url.hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            self.outside_requests.append(route.request.url)
            route.abort()

    def _refuse_socket(self, socket: WebSocketRoute) -> None:
        self.outside_requests.append(socket.url)
        socket.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not HARMLESS.search(message.text):
            self.console_errors.append(f"{message.type}: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.failed_requests.append(f"{response.url}: status {response.status}")

    def _failed(self, request: Request) -> None:
        if request.url not in self.outside_requests:
            self.failed_requests.append(f"{request.url}: {request.failure}")

    def settle(self, seconds: float = 60) -> None:
        """Pass the whole page before the window and wait until all that shows late has shown.

        At most so many seconds: what has not shown by then is for the checks to report.
        """
        self.page.evaluate(READY, 1000 * seconds)

    def complaints(self) -> list[str]:
        """Return what the browser reported."""
        return [
            *(f"console: {each}" for each in self.console_errors),
            *(f"not loaded: {each}" for each in self.failed_requests),
            *(f"asks another machine for {each}" for each in self.outside_requests),
        ]

    def math(self) -> list[str]:
        """Return formulas that are not typeset."""
        return self.page.evaluate(MATH)

    def pictures(self) -> list[str]:
        """Return images that do not show or say nothing to those who cannot see them."""
        return self.page.evaluate(PICTURES)

    def diagrams(self) -> list[str]:
        """Return mermaid diagrams that are not drawn or lack a description."""
        return self.page.evaluate(DIAGRAMS)

    def widgets(self) -> list[str]:
        """Return saved widgets that do not show."""
        return self.page.evaluate(WIDGETS)

    def contrast(self) -> list[str]:
        """Return what is hard to read on its ground: WCAG 2's ratio under 4.5."""
        return self.page.evaluate(CONTRAST)

    def weight(self) -> list[str]:
        """Say if what the page has loaded is heavy. To be called before `settle` loads the rest."""
        self.page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
        loaded = self.page.evaluate(browser.LOADED)["transferred"]
        return [f"the first view loads {loaded / 1e6:.2f} MB"] if loaded > HEAVY else []

    def resize(self, width: int, height: int) -> None:
        """Make the window so large."""
        self.page.set_viewport_size({"width": width, "height": height})

    def theme(self, name: str) -> None:
        """Change to the theme "light" or "dark", and wait until its colours are there."""
        self.page.evaluate(SET_THEME, name)

    def width(self) -> list[str]:
        """Say if the page scrolls sideways in the window as it is."""
        return self.page.evaluate(WIDTH)

    def widths(self) -> list[str]:
        """Return the widths at which the page scrolls sideways."""
        found = []
        for window in WINDOWS:
            self.resize(*window)
            found += self.width()
        return found

    def barriers(self, rules: list[str] | None = None) -> list[str]:
        """Return what axe-core calls serious or critical, in the page and in its frames.

        With a list of rules, only what these find, and not in frames, which have a look of their
        own; LOOKS are the rules that depend on the theme and the window. To be called when all
        else is done: see THIN_OUT_CODE.
        """
        # After a change of size the theme and course.js wait a little, then look what scrolls now.
        self.page.evaluate("() => new Promise((next) => setTimeout(next, 500))")
        found = []
        for frame in self.page.frames if rules is None else [self.page.main_frame]:
            if not frame.evaluate("() => 'axe' in window"):
                frame.evaluate(THIN_OUT_CODE)
                frame.evaluate(f"{axe_core()}; 0")
            found += frame.evaluate(AXE, rules)
        return found


# ------------------------------------------------------------------------------- links
class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None and tag != "base":
                self.links.append(value)
            if name == "alt" and tag == "img":
                self.alts.append(value or "")
            if (name == "id" or (name == "name" and tag == "a")) and value:
                self.ids.add(value)


def parse(path: Path) -> _Links:
    """Return the links, places and alternative texts of a page."""
    return _parse(path, path.stat().st_mtime_ns)


@functools.cache
def _parse(path: Path, _changed: int) -> _Links:
    parser = _Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def broken_links(site: Path) -> list[str]:
    """Return the links within the site that lead nowhere: no such file, or no such anchor."""
    parsed = {path: parse(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    found = []
    for path, page in parsed.items():
        name = path.relative_to(site).as_posix()
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.is_file():
                found.append(f"{name}: {link}: no such file")
                continue
            ids = parsed[target].ids if target in parsed else {unquote(url.fragment)}
            if url.fragment and unquote(url.fragment) not in ids:
                found.append(f"{name}: {link}: no such place in that page")
    return found


OUTSIDE = re.compile(
    r"""<(?:script|img|link|iframe|source|video|audio)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//""",
    re.IGNORECASE,
)
SCRIPTS = re.compile(
    r"<(?:script|style)\b[^>]*>(.*?)</(?:script|style)>", re.DOTALL | re.IGNORECASE
)
CSS_OUTSIDE = re.compile(r"""(?:@import\s+|url\()\s*["']?(?:https?:)?//[^)"']*""")
FROM_CDN = re.compile(
    r"https?://(?:cdn\.|cdnjs\.|unpkg\.|fonts\.(?:googleapis|gstatic)\.)[^\s\"']*"
)


def loads_from_outside(path: Path) -> list[str]:
    """Return what a page, script or style sheet would load from another site, be it on a click.

    A link that a reader may follow is no load, and neither is an address in the text.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return [match.group() for match in CSS_OUTSIDE.finditer(text)]
    scripts = text if path.suffix == ".js" else "\n".join(SCRIPTS.findall(text))
    found = [match.group() for match in FROM_CDN.finditer(scripts)]
    if path.suffix == ".html":
        found += [match.group() for match in OUTSIDE.finditer(text)]
    return found


# ------------------------------------------------------------------------------- sources
def citations(markdown: str) -> list[str]:
    """Return the keys that a text cites, in order."""
    found = re.findall(r"\{cite:\w+\}`([^`]+)`", markdown)
    return [key.strip() for keys in found for key in keys.split(",")]


def has_math(markdown: str) -> bool:
    """Tell whether a text holds TeX between dollars, outside of code."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)
    return bool(re.search(r"(?<!\\)\$\$?[^$]+\$", plain))
