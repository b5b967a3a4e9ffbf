"""Where pictures come from: a folder an identity, a list, or loose pictures; always sorted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from facerec.checks import InputError, check_one_of, nearest
from facerec.data.images import IMAGE_SUFFIXES, read_bytes
from facerec.registry import SOURCES

LIST_SUFFIXES = frozenset({".csv", ".parquet"})

_Folders = frozenset[tuple[int, int]]  # device and number of each


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

    def read_bytes(self) -> bytes:
        """Return the encoded picture.

        Raises:
            UnreadableImageError: see `facerec.data.images.read_bytes`.
        """
        return read_bytes(self.path)


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
        kind = guess_kind(path)
    reader = SOURCES.get(kind)
    source: Source = reader(path, root) if kind == "list" else reader(path)
    if not source.items:
        raise InputError(
            f"source {path} holds no picture ({source.ignored} other files); "
            f"expected names that end in {', '.join(sorted(IMAGE_SUFFIXES)[:6])}, …"
        )
    return source


def guess_kind(path: Path) -> str:
    """Return "folder", "loose" or "list": what "auto" stands for at `path`."""
    if path.is_dir():
        return "folder" if any("/" in key for _, key in FolderWalk(path)) else "loose"
    return "list" if path.suffix.lower() in LIST_SUFFIXES else "loose"


@SOURCES.register("folder")
def read_folder(root: Path) -> Source:
    """Return a folder-per-identity source; deeper folders belong to the first one's identity."""
    walk = FolderWalk(check_folder(root))
    items = [SourceItem(root / name, key, name_identity(key)) for name, key in walk]
    return Source(root, "folder", items, walk.ignored)


@SOURCES.register("loose")
def read_loose(path: Path) -> Source:
    """Return the pictures of a folder tree, or one picture, without identities."""
    if path.is_file():
        return Source(path.parent, "loose", [SourceItem(path, check_picture(path))])
    walk = FolderWalk(check_folder(path))
    items = [SourceItem(path / name, key) for name, key in walk]
    return Source(path, "loose", items, walk.ignored)


def name_identity(key: str) -> str:
    """Return the identity of a key in a folder-per-identity source, "" directly in the root."""
    folder, slash, _ = key.partition("/")
    return folder if slash else ""


@SOURCES.register("list")
def read_list(path: Path, root: Path | None = None) -> Source:
    """Return the pictures that a CSV or Parquet list names, sorted by path below `root`.

    Raises:
        InputError: see `read_list_table`.
    """
    root = path.parent if root is None else root
    table = read_list_table(path, root)
    columns = (table[name].to_pylist() for name in ("key", "identity", "split"))
    items = [
        SourceItem(root / key, key, who, split) for key, who, split in zip(*columns, strict=True)
    ]
    return Source(root, "list", items)


def read_list_table(path: Path, root: Path, identity_column: str = "identity") -> pa.Table:
    """Return a list as a table: large_string key, identity and split, sorted by key.

    Args:
        path: the CSV or Parquet file.
        root: the folder that its paths are relative to.
        identity_column: where it says who is shown.

    Raises:
        InputError: not such a file, a column is missing, a path is empty, absolute, leaves
            the root or stands there twice.
    """
    if not root.is_dir():
        raise InputError(f"root {root} of the list {path} must be a folder; check the path")
    table = read_table(path)
    for column in ("path", identity_column):
        if column not in table.column_names:
            raise InputError(
                f"{path} must have the columns path and {identity_column}, but {column!r} is "
                f"missing{nearest(column, table.column_names)}"
            )
    names = _texts(table["path"], f"{path}, column path")
    identities = _texts(table[identity_column], f"{path}, column {identity_column}")
    splits = pa.chunked_array([pa.repeat(pa.scalar("", pa.large_string()), table.num_rows)])
    if "split" in table.column_names:
        splits = _texts(table["split"], f"{path}, column split")
    keys = _check_paths(names, path, root)
    found = pa.table({"key": keys, "identity": identities, "split": splits})
    return found.sort_by("key")


def _check_paths(names: pa.ChunkedArray, path: Path, root: Path) -> pa.ChunkedArray:
    """Return the paths of a list in their plain form; the rows are never Python objects."""
    if os.name == "nt":
        names = pc.replace_substring(names, "\\", "/")
    # Only what has an empty part, "." or "..", is looked at one by one.
    odd = pc.match_substring_regex(names, r"(^|/)\.{0,2}(/|$)")
    keys = names
    if pc.any(odd).as_py():
        plain = []
        for row in pc.indices_nonzero(odd).to_pylist():
            name = names[row].as_py()
            key = PurePosixPath(name)
            if not name or key.is_absolute() or ".." in key.parts or not key.parts:
                raise InputError(
                    f"{path}, row {row}: path must be relative to {root} and stay inside it, "
                    f"got {name!r}"
                )
            plain.append(str(key))
        flat = names.combine_chunks()
        keys = pa.chunked_array(
            [pc.replace_with_mask(flat, odd.combine_chunks(), pa.array(plain, pa.large_string()))]
        )
    order = pc.sort_indices(keys)
    ordered = keys.take(order)
    again = pc.equal(ordered.slice(1), ordered.slice(0, max(len(ordered) - 1, 0)))
    if len(ordered) > 1 and pc.any(again).as_py():
        row = pc.min(order.slice(1).filter(again)).as_py()
        raise InputError(
            f"{path}, row {row}: path {names[row].as_py()!r} stands in an earlier row too"
        )
    return keys


def check_folder(path: Path) -> Path:
    """Return `path` if it is a folder, else raise InputError."""
    if not path.is_dir():
        raise InputError(f"source {path} must be a folder for this kind of source")
    return path


def check_picture(path: Path) -> str:
    """Return the key of a file that is a source by itself; InputError if not named as one is."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"source {path} must be a folder, a .csv or .parquet list or a picture, "
            f"but its name ends in {path.suffix!r}"
        )
    return escape_name(path.name)


class FolderWalk:
    """The pictures below a folder, in the order of their keys.

    Only the names in the folders between the root and the picture are held, so a tree of tens of
    millions of files can be walked. Links are followed unless they lead back to a folder that
    they lie in; names that start with a dot are skipped.

    Args:
        root: the folder.

    Attributes:
        ignored: how many other files a walk came by so far.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ignored = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (path relative to the root as the system has it, key) of each picture.

        Raises:
            InputError: a folder cannot be read.
        """
        self.ignored = 0
        waiting = [iter(self._list("", "", frozenset()))]
        while waiting:
            for place, key, above in waiting[-1]:
                if key.endswith("/"):
                    waiting.append(iter(self._list(place, key, above)))
                    break
                yield place, key
            else:
                waiting.pop()

    def _list(self, place: str, prefix: str, above: _Folders) -> list[tuple[str, str, _Folders]]:
        """Return (path, key, folders above) of what a folder holds; folders' keys end in /."""
        folder = self.root / place
        entries: list[tuple[str, str, _Folders]] = []
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                return []
            inside = above | {here}
            with os.scandir(folder) as found:
                for entry in found:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    key = prefix + escape_name(name)
                    if entry.is_dir():
                        entries.append((f"{place}{name}/", key + "/", inside))
                    elif _ends_like_a_picture(name):
                        entries.append((place + name, key, inside))
                    else:
                        self.ignored += 1
        except OSError as error:
            raise InputError(f"folder {folder} cannot be read: {error.strerror or error}") from None
        # With the slash behind a folder's key, this is the order of all keys below it.
        entries.sort(key=itemgetter(1))
        return entries


def _ends_like_a_picture(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return bool(stem) and dot + ending.lower() in IMAGE_SUFFIXES


def escape_name(name: str) -> str:
    """Return a file name as text that every table can hold, bytes that are no UTF-8 escaped."""
    if name.isascii():
        return name
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


def _texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:  # large_string: a column may hold more than 2 GiB
        return pc.fill_null(pc.cast(column, pa.large_string()), "")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"{name} must hold text, got {column.type}") from None
