"""Any kind of source, opened to be read in parts."""

from __future__ import annotations

from pathlib import Path

from facerec.checks import InputError, check_one_of
from facerec.data.source_listing import open_folder, open_list
from facerec.data.source_parts import PartSource
from facerec.data.source_records import find_record_files, open_records
from facerec.data.source_tars import find_tars, guess_tar_kind, open_tars
from facerec.data.sources import FolderWalk, guess_kind

SOURCE_KINDS = ("folder", "list", "loose", "img2dataset", "webdataset", "recordio")
LABELLED_BY_COLUMN = frozenset({"list", "img2dataset", "webdataset"})
"""Kinds in which a column or field, which can be chosen, names who is shown."""


def open_parts(
    path: Path,
    kind: str = "auto",
    root: Path | None = None,
    identity_column: str | None = None,
) -> PartSource:
    """Return a source that holds something, ready to be cut into parts.

    Args:
        path: a folder, a CSV or Parquet list, one picture, a `.tar` or `.rec` file, or a pattern
            for tar shards such as `SET/train-*.tar`.
        kind: one of `SOURCE_KINDS`, or "auto": by the file's name; a folder with `.tar` or `.rec`
            files and no picture file anywhere is one of shards, any other as `scan_source` says.
        root: for a list, the folder its paths are relative to; the list's own when None.
        identity_column: who is shown, where a column or field says it; None: the first of
            identity, label, cls and name (a list: identity).

    Raises:
        InputError: nothing there, nothing in it, it is not of that kind, or an argument does not
            belong to that kind.
    """
    check_one_of(kind, "source kind", ("auto", *SOURCE_KINDS))
    path = Path(path)
    if not path.exists() and not find_tars(path)[1]:
        raise InputError(f"source {path} does not exist; check the path")
    if kind == "auto":
        kind = guess_part_kind(path)
    if identity_column is not None and kind not in LABELLED_BY_COLUMN:
        raise InputError(
            f"an identity column is for {', '.join(sorted(LABELLED_BY_COLUMN))}, but source "
            f"{path} is of kind {kind!r}; leave it out"
        )
    if kind == "list":
        return open_list(path, root, identity_column)
    if kind == "recordio":
        return open_records(path)
    if kind in ("img2dataset", "webdataset"):
        return open_tars(path, kind, identity_column)
    return open_folder(path, kind)


def guess_part_kind(path: Path) -> str:
    """Return what "auto" stands for at `path`: one of `SOURCE_KINDS`."""
    _, shards = find_tars(path)
    records = find_record_files(path)
    if not shards and not records:
        return guess_kind(path)
    # A stray archive among pictures must not hide them.
    if path.is_dir() and next(iter(FolderWalk(path)), None) is not None:
        return guess_kind(path)
    return guess_tar_kind(shards) if shards else "recordio"
