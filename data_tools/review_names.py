"""The review's index of names: sorted, in files that a page opened from disk can load."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from facerec.io import write_text

BLOCK = 2000
"""Names a file."""


def write_names(folder: Path, names: Sequence[str], per_page: int) -> list[str]:
    """Write `names/0000.js` and on, and return how each file's first name begins.

    A file calls `facerecNames(number, [[name, page, rank], ...])`: a script can be loaded by a page
    that was opened from disk, a JSON file cannot.

    Args:
        folder: of the site.
        names: the identities, in the order of the pages.
        per_page: identities a page.
    """
    order = sorted(range(len(names)), key=lambda rank: (_sort_key(fold(names[rank])), rank))
    firsts = []
    for number, start in enumerate(range(0, len(order), BLOCK)):
        block = order[start : start + BLOCK]
        firsts.append(fold(names[block[0]]))
        entries = [[names[rank], rank // per_page + 1, rank + 1] for rank in block]
        text = f"facerecNames({number}, {dump_script(entries)});\n"
        write_text(folder / "names" / f"{number:04d}.js", text)
    return firsts


def fold(name: str) -> str:
    """Return a name as the page's search compares it."""
    return unicodedata.normalize("NFKC", name).lower()


def dump_script(value: object) -> str:
    """Return JSON that may stand in a script or in a page: ASCII, without < and &."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sort_key(folded: str) -> bytes:
    """Return the order of JavaScript's comparison: by 16-bit units."""
    return folded.encode("utf-16-be", "surrogatepass")
