"""The clean set handed on: a folder an identity, or a list for the source."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError, check_one_of
from facerec.data.manifest import read_manifest
from facerec.io import atomic_path

KINDS = ("auto", "folder", "list")
LIST_SUFFIXES = (".csv", ".parquet")
UNLABELLED_FOLDER = "_unlabelled"


def export_set(out: Path, destination: Path, kind: str = "auto") -> dict[str, Any]:
    """Write the clean set to a new place.

    Args:
        out: a set folder that was cleaned.
        destination: "folder": a new or empty folder, which gets one folder an identity with hard
            links to the chips (copies on another disk); "list": a new .csv or .parquet file with
            path (relative to the source's root), identity and split.
        kind: "folder", "list" or "auto": by the destination's name.

    Returns:
        rows, identities, files, and repeated (rows of one identity that share one chip).

    Raises:
        InputError: the set was not cleaned, or something lies at the destination.
    """
    check_one_of(kind, "export kind", KINDS)
    if kind == "auto":
        kind = "list" if destination.suffix.lower() in LIST_SUFFIXES else "folder"
    folder = open_set(out)
    if not folder.clean.is_file():
        raise InputError(f"{out} is not cleaned yet; run: facerec-clean run {out} --model MODEL")
    table = read_manifest(folder.clean)
    identities = table["identity"].to_pylist()
    figures = {"rows": len(identities), "identities": len(set(identities) - {""})}
    if kind == "list":
        _write_list(table.select(["path", "identity", "split"]), destination)
        return {**figures, "files": 1, "repeated": 0}
    files, repeated = _write_folder(folder, table["chip"].to_pylist(), identities, destination)
    return {**figures, "files": files, "repeated": repeated}


def name_folder(identity: str) -> str:
    """Return a folder name for an identity: no separator, never "." or "..", one to one."""
    if not identity:
        return UNLABELLED_FOLDER
    name = quote(identity, safe=" !#$&'()+,;=@[]^`{}~", encoding="utf-8")
    if name[0] in "._":
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


def _write_list(table: Any, destination: Path) -> None:
    if destination.exists():
        raise InputError(f"{destination} exists; give a new file name")
    suffix = destination.suffix.lower()
    if suffix not in LIST_SUFFIXES:
        raise InputError(f"a list must end in .csv or .parquet, got {destination.name!r}")
    with atomic_path(destination) as temporary:
        if suffix == ".csv":
            pcsv.write_csv(table, temporary)
        else:
            pq.write_table(table.replace_schema_metadata(None), temporary)


def _write_folder(
    folder: SetFolder, chips: list[str], identities: list[str], destination: Path
) -> tuple[int, int]:
    """Build the tree beside the destination and rename it into place."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError(f"{destination} exists and is not empty; give a new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    files = repeated = 0
    try:
        for chip, identity in zip(chips, identities, strict=True):
            place = temporary / name_folder(identity) / Path(chip).name
            if place.exists():
                repeated += 1
                continue
            place.parent.mkdir(exist_ok=True)
            _link(folder.root / chip, place)
            files += 1
        temporary.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            destination.rmdir()
        temporary.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return files, repeated


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except FileNotFoundError:
        raise InputError(f"chip {source} is missing; ingest the source again") from None
    except OSError:
        shutil.copyfile(source, place)
