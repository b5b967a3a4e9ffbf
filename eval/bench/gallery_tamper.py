"""Single bytes of a gallery file changed, one at a time: which changes does the audit find?"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from facerec.checks import InputError
from facerec.gallery.gallery import Gallery
from facerec.progress import Progress


def count_found(path: Path, changes: int, seed: int) -> dict[str, Any]:
    """Change bytes of a copy of the file and count those that the audit finds.

    Two samples: bytes of the log's entries and hashes, every one of which must be found, and bytes
    of the whole file. Of the latter some stand where nothing stands (free space of a page): the
    contents of the gallery are then as before, which is checked.

    Args:
        path: a gallery's file, closed.
        changes: how many of each.
        seed: of the bytes.
    """
    rng = np.random.default_rng(seed)
    whole = path.read_bytes()
    places = find_log_bytes(path, whole)
    chosen = {
        "log": rng.choice(places, changes, replace=False),
        "file": rng.choice(len(whole), changes, replace=False),
    }
    contents = _read_contents(path)
    result: dict[str, Any] = {}
    work = path.parent / "changed"
    with Progress("tampering", 2 * changes, "bytes") as progress:
        for kind, numbers in chosen.items():
            found = without_effect = 0
            for place in numbers.tolist():
                flip = int(rng.integers(1, 256))
                changed = bytearray(whole)
                changed[place] ^= flip
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                (work / path.name).write_bytes(changed)
                if _is_found(work):
                    found += 1
                else:
                    without_effect += _read_contents(work / path.name) == contents
                progress.advance()
            result |= {
                f"{kind}_changed": changes,
                f"{kind}_found": found,
                f"{kind}_without_effect": without_effect,
            }
    shutil.rmtree(work, ignore_errors=True)
    return result


def find_log_bytes(path: Path, whole: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the places in the file of every byte of the log's entries and hashes."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT entry, previous, hash FROM audit").fetchall()
    places: list[int] = []
    for entry, previous, digest in rows:
        # A row stands in one piece unless it spills to another page; then it is left out.
        row = f"{entry}{previous}{digest}".encode()
        start = whole.find(row)
        if start >= 0:
            places += range(start, start + len(row))
    return np.array(sorted(set(places)), np.int64)


def _is_found(folder: Path) -> bool:
    try:
        with Gallery.open(folder) as gallery:
            return bool(gallery.verify_audit())
    except (InputError, sqlite3.DatabaseError):
        return True


def _read_contents(path: Path) -> list[str]:
    """Return every row of the file as SQL text."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        return list(connection.iterdump())
