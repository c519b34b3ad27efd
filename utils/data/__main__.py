"""List, fetch and verify the course's data.

python -m utils.data status            what there is, where, how large, licence and source
python -m utils.data fetch [NAME ...]  fetch what is missing or damaged
python -m utils.data verify            compare every file with its recorded checksum
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.data.sources import SOURCES, Source
from utils.data.store import COURSE, DataUnavailable, folder, locate, places, source_of


def _shorten(place: Path) -> str:
    """Write a place relative to the course or the home folder where it lies in one."""
    for base, mark in ((COURSE, "."), (Path.home(), "~")):
        if place.is_relative_to(base):
            return f"{mark}/{place.relative_to(base)}"
    return str(place)


def _where(source: Source) -> tuple[str, str]:
    """Return a source's state ("ok", "damaged", "missing") and where it lies."""
    found, damaged = locate(source)
    if found is None:
        return ("damaged", damaged[0]) if damaged else ("missing", "")
    kind = next(kind for place, kind in places(source) if place == found)
    return "ok", kind if kind.startswith("the installed") else _shorten(found)


def status() -> int:
    """Print a table; return 1 if anything is missing or damaged."""
    states = []
    for name, source in SOURCES.items():
        state, where = _where(source)
        states.append(state)
        print(f"{name:9} {state:8} {source.bytes / 1e6:6.1f} MB  {source.what}")
        print(f"{'':9} source:  PyPI package {source.package} {source.version}")
        print(f"{'':9} licence: {source.licence}")
        print(f"{'':9} where:   {where or 'not fetched yet'}")
    print(f"{'numerals':9} {'ok':8} {0:6.1f} MB  numbers in words, made by num2words (LGPL)")
    if set(states) != {"ok"}:
        print("\nTo fetch what is missing or damaged: python -m utils.data fetch")
        return 1
    return 0


def main() -> int:
    """Run the command that was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.data", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="what there is, where, how large, licence and source")
    commands.add_parser("verify", help="compare every file with its recorded checksum")
    fetching = commands.add_parser("fetch", help="fetch what is missing or damaged")
    fetching.add_argument("names", nargs="*", help=f"of {', '.join(SOURCES)}; all by default")
    options = parser.parse_args()
    if options.command != "fetch":
        return status()
    try:
        for name in options.names:
            source_of(name)
        for name in options.names or SOURCES:
            folder(name)
    except (DataUnavailable, ValueError) as error:
        print(f"utils.data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
