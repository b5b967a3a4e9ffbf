"""Where pictures come from: a folder an identity, a list, or loose pictures; always sorted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from facerec.checks import InputError, check_one_of, nearest
from facerec.data.images import IMAGE_SUFFIXES
from facerec.registry import SOURCES

LIST_SUFFIXES = frozenset({".csv", ".parquet"})


@dataclass(frozen=True)
class SourceItem:
    """One picture file of a source.

    Attributes:
        path: where it lies.
        key: its path relative to the source's root, with /.
        identity: who it shows, "" = not known.
        split: "train", "test" or whatever the list says, "" = none.
    """

    path: Path
    key: str
    identity: str = ""
    split: str = ""


@dataclass(frozen=True)
class Source:
    """What `scan_source` found.

    Attributes:
        root: the folder that keys are relative to.
        kind: "folder", "list" or "loose".
        items: the pictures, sorted by key.
        ignored: how many files were passed over because their name ends like no picture's.
    """

    root: Path
    kind: str
    items: list[SourceItem]
    ignored: int = 0


def open_source(path: Path, kind: str = "auto", root: Path | None = None) -> list[SourceItem]:
    """Return the pictures of a source, sorted by key; arguments as `scan_source`."""
    return scan_source(path, kind, root).items


def scan_source(path: Path, kind: str = "auto", root: Path | None = None) -> Source:
    """Return the pictures of a source with its root and kind.

    Every file whose name ends like a picture's is an item, readable or not: what is wrong with it
    comes out when it is read. Names that start with a dot are skipped; links to folders are
    followed, but never in a circle.

    Args:
        path: a folder, a CSV or Parquet list, or one picture.
        kind: "folder" (the first folder under the root is the identity; pictures directly in the
            root have none), "list" (columns path, identity and, if there, split; paths relative to
            `root`), "loose" (no identities), or "auto": a file is a list or one loose picture by
            its name, a folder is loose unless a folder in it holds pictures.
        root: for a list, the folder its paths are relative to; the list's own when None.

    Raises:
        InputError: nothing at `path`, an unreadable folder, a broken list, or no picture at all.
    """
    check_one_of(kind, "source kind", ["auto", *SOURCES.names()])
    path = Path(path)
    if not path.exists():
        raise InputError(f"source {path} does not exist; check the path")
    if kind == "auto":
        kind = _guess_kind(path)
    reader = SOURCES.get(kind)
    source: Source = reader(path, root) if kind == "list" else reader(path)
    if not source.items:
        raise InputError(
            f"source {path} holds no picture ({source.ignored} other files); "
            f"expected names that end in {', '.join(sorted(IMAGE_SUFFIXES)[:6])}, …"
        )
    return source


def _guess_kind(path: Path) -> str:
    if path.is_dir():
        items, _ = _walk(path)
        return "folder" if any("/" in item.key for item in items) else "loose"
    return "list" if path.suffix.lower() in LIST_SUFFIXES else "loose"


@SOURCES.register("folder")
def read_folder(root: Path) -> Source:
    """Return a folder-per-identity source; deeper folders belong to the first one's identity."""
    items, ignored = _walk(_check_folder(root))
    named = [
        SourceItem(item.path, item.key, item.key.split("/")[0] if "/" in item.key else "")
        for item in items
    ]
    return Source(root, "folder", named, ignored)


@SOURCES.register("loose")
def read_loose(path: Path) -> Source:
    """Return the pictures of a folder tree, or one picture, without identities."""
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(
                f"source {path} must be a folder, a .csv or .parquet list or a picture, "
                f"but its name ends in {path.suffix!r}"
            )
        return Source(path.parent, "loose", [SourceItem(path, _key_text(path.name))])
    items, ignored = _walk(_check_folder(path))
    return Source(path, "loose", items, ignored)


@SOURCES.register("list")
def read_list(path: Path, root: Path | None = None) -> Source:
    """Return the pictures that a CSV or Parquet list names, sorted by path below `root`.

    Raises:
        InputError: not such a file, a column is missing, a path is empty, absolute, leaves
            the root or stands there twice.
    """
    root = path.parent if root is None else root
    if not root.is_dir():
        raise InputError(f"root {root} of the list {path} must be a folder; check the path")
    table = read_table(path)
    for column in ("path", "identity"):
        if column not in table.column_names:
            raise InputError(
                f"{path} must have the columns path and identity, but {column!r} is missing"
                f"{nearest(column, table.column_names)}"
            )
    wanted = [name for name in ("path", "identity", "split") if name in table.column_names]
    columns = {name: _texts(table[name], f"{path}, column {name}") for name in wanted}
    splits = columns.get("split", [""] * table.num_rows)
    items: dict[str, SourceItem] = {}
    for row, (name, identity, split) in enumerate(
        zip(columns["path"], columns["identity"], splits, strict=True)
    ):
        key = str(PurePosixPath(name.replace("\\", "/") if os.name == "nt" else name))
        if not name or PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
            raise InputError(
                f"{path}, row {row}: path must be relative to {root} and stay inside it, "
                f"got {name!r}"
            )
        if key in items:
            raise InputError(f"{path}, row {row}: path {name!r} stands in an earlier row too")
        items[key] = SourceItem(root / key, key, identity, split)
    return Source(root, "list", [items[key] for key in sorted(items)])


def _check_folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"source {path} must be a folder for this kind of source")
    return path


def _walk(root: Path) -> tuple[list[SourceItem], int]:
    """Return the pictures below a folder sorted by key, and how many other files there were."""
    items: list[SourceItem] = []
    ignored = 0
    # A link is followed unless it leads back to a folder that it lies in.
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(root, "", frozenset())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    key = prefix + _key_text(entry.name)
                    if entry.is_dir():
                        waiting.append((folder / entry.name, key + "/", above | {here}))
                    elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                        items.append(SourceItem(folder / entry.name, key))
                    else:
                        ignored += 1
        except OSError as error:
            raise InputError(f"folder {folder} cannot be read: {error.strerror or error}") from None
    items.sort(key=lambda item: item.key)
    return items, ignored


def _key_text(name: str) -> str:
    """Return a file name as text that every table can hold, bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_table(path: Path) -> pa.Table:
    """Return a CSV (every column as text) or Parquet table.

    Raises:
        InputError: missing, of another kind, or broken.
    """
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise InputError(f"table {path} must end in .csv or .parquet")
    if not path.is_file():
        raise InputError(f"table {path} is not a file; check the path")
    try:
        if path.suffix.lower() == ".parquet":
            return _check_names(pq.read_table(path, partitioning=None), path)
        with path.open("rb") as file:  # column names first: every column is text, "007" stays
            names = pcsv.open_csv(file).schema.names
        options = pcsv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        )
        return _check_names(pcsv.read_csv(path, convert_options=options), path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as a list: {first_line}") from error


def _check_names(table: pa.Table, path: Path) -> pa.Table:
    names: list[str] = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} has several columns called {name!r}; keep one")
    return table


def _texts(column: Any, name: str) -> list[str]:
    try:
        text = pc.fill_null(pc.cast(column, pa.string()), "")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"{name} must hold text, got {column.type}") from None
    values: list[str] = text.to_pylist()
    return values
