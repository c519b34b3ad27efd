"""Print one version's part of CHANGELOG.md: the notes of its release.

python scripts/release_notes.py 0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def notes(version: str, text: str) -> str:
    """Return what the changelog says about a version.

    Raises
    ------
    ValueError
        If it says nothing.
    """
    part = re.search(rf"^## {re.escape(version)} .*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not part or not part[1].strip():
        known = re.findall(r"^## (\S+)", text, re.M)
        raise ValueError(f"CHANGELOG.md says nothing about {version}; it has {', '.join(known)}")
    return part[1].strip()


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        print(notes(sys.argv[1], CHANGELOG.read_text(encoding="utf-8")))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
