"""Where an export may go: a new place outside the set, there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.io import sync_file, sync_folder


def check_outside(folder: SetFolder, destination: Path) -> None:
    """Raise InputError when an export would lie in its set, which an erasure goes through."""
    inner, outer = destination.resolve(), folder.root.resolve()
    if inner == outer or outer in inner.parents:
        raise InputError(f"{destination} must lie outside the set {folder.root}; take another")


def check_new_file(destination: Path, suffixes: tuple[str, ...]) -> None:
    """Raise InputError when something lies at a file's place, or its name ends otherwise."""
    if destination.exists():
        raise InputError(f"{destination} exists; give a new file name")
    if destination.suffix.lower() not in suffixes:
        raise InputError(f"a list must end in {' or '.join(suffixes)}, got {destination.name!r}")


@contextlib.contextmanager
def build_folder(destination: Path) -> Iterator[Path]:
    """Yield a folder to fill beside `destination`, which gets that name at the end.

    Raises:
        InputError: something lies at the destination.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError(f"{destination} exists and is not empty; give a new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{destination.name}.", dir=destination.parent, ignore_cleanup_errors=True
    ) as place:
        made = Path(place) / destination.name
        made.mkdir()
        yield made
        sync_folder(made)
        made.replace(destination)  # onto an empty folder: one step
    sync_folder(destination.parent)


def link_chip(source: Path, place: Path) -> None:
    """Link a chip to another place, or copy it where links do not reach, flushed to disk.

    Raises:
        InputError: the chip is missing.
    """
    try:
        os.link(source, place)
    except FileNotFoundError:
        raise InputError(f"chip {source} is missing; ingest the source again") from None
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, place)
        sync_file(place)
