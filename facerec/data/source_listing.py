"""Sources whose pictures can be listed: the listing is a Parquet file, a row group a part.

Folders and lists of picture files, and RecordIO. The listing is written while the source is
walked through, a block at a time, and read a row group at a time: the pictures of the whole
source are never objects in memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facerec.checks import InputError
from facerec.data.images import IMAGE_SUFFIXES
from facerec.data.recordio import RecordRanges
from facerec.data.source_parts import (
    Fault,
    PackedItem,
    Part,
    PartContent,
    Ranges,
    SourcePlan,
)
from facerec.data.sources import (
    FolderWalk,
    SourceItem,
    check_folder,
    check_picture,
    name_identity,
    read_list_table,
)
from facerec.io import atomic_path

LISTING_SCHEMA: pa.Schema = pa.schema(
    [
        ("key", pa.string()),
        ("identity", pa.string()),
        ("split", pa.string()),
        ("place", pa.binary()),  # file relative to the root, as the system has it; null = the key
        ("offset", pa.int64()),  # of a record in that file; null = the whole file
        ("length", pa.int64()),
    ]
)
_BLOCK = 1 << 14

Tables = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class ListingReader:
    """Reads the parts of a listed source.

    Attributes:
        listing: the file that `write_listing` wrote.
        root: the folder that its places are relative to.
    """

    listing: Path
    root: Path

    def read_part(self, part: Part) -> PartContent:
        """Return the pictures of a part."""
        table = self._read_group(part)
        keys, identities, splits, places, offsets, lengths = (
            table[name].to_pylist() for name in LISTING_SCHEMA.names
        )
        files = [
            self.root / (key if place is None else os.fsdecode(place))
            for key, place in zip(keys, places, strict=True)
        ]
        people = zip(files, keys, identities, splits, strict=True)
        if not offsets or offsets[0] is None:
            return PartContent([SourceItem(*row) for row in people])
        known = {path: number for number, path in enumerate(dict.fromkeys(files))}
        ranges = RecordRanges(
            tuple(known),
            np.array([known[path] for path in files], np.int32),
            np.array(offsets, np.int64),
            np.array(lengths, np.int64),
            np.array([int(key.rpartition("/")[2]) for key in keys], np.int64),
        )
        return PartContent([PackedItem(*row, ranges, n) for n, row in enumerate(people)])

    def name_part(self, part: Part) -> str:
        """Return the keys of a part's first and last picture."""
        keys = self._read_group(part)["key"]
        return f"{keys[0].as_py()} to {keys[-1].as_py()}"

    def _read_group(self, part: Part) -> pa.Table:
        status = self.listing.stat()
        return _open_listing(self.listing, status.st_mtime_ns, status.st_ino).read_row_group(
            part.number
        )


@functools.lru_cache(maxsize=1)
def _open_listing(path: Path, *_: int) -> Any:
    """Return a listing whose footer, which grows with the source, was read once a process."""
    return pq.ParquetFile(path)


@dataclass(frozen=True)
class ListedSource:
    """A source whose pictures can be listed.

    Attributes:
        root: the folder that keys are relative to.
        kind: "folder", "list", "loose" or "recordio".
        tables: yields the rows of the listing, in blocks.
        count_ignored: returns how many other files the last listing came by.
        shards: how many RecordIO files there are.
        digest: of what the listing does not tell: sizes of shards.
        faults: shards that cannot be read.
    """

    root: Path
    kind: str
    tables: Tables
    count_ignored: Callable[[], int] = int
    shards: int = 0
    digest: bytes = b""
    faults: tuple[Fault, ...] = ()

    def plan(self, listing: Path, part_pictures: int, part_bytes: int) -> SourcePlan:
        """List the source and cut the listing into parts; see `PartSource.plan`."""
        count, digest = write_listing(listing, self.tables(), part_pictures, self.digest)
        return SourcePlan(
            self.root,
            self.kind,
            ListingReader(listing.resolve(), self.root.resolve()),
            Ranges(count, part_pictures),
            digest,
            count,
            self.shards,
            self.count_ignored(),
            self.faults,
        )


def write_listing(
    path: Path, tables: Iterator[pa.Table], rows: int, before: bytes = b""
) -> tuple[int, str]:
    """Write a listing, all or nothing.

    Args:
        path: the file.
        tables: blocks of any size, of `LISTING_SCHEMA`.
        rows: a row group.
        before: what the hash covers beside the rows.

    Returns:
        How many rows there are, and the sha256 of `before` and of key, identity and split.
    """
    digest, count = hashlib.sha256(before), 0
    waiting: list[pa.Table] = []
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, LISTING_SCHEMA, compression="zstd", write_statistics=False
        ) as writer,
    ):
        for block in tables:
            columns = [block[name].to_pylist() for name in ("key", "identity", "split")]
            for row in zip(*columns, strict=True):
                digest.update(json.dumps(row).encode())
            count += block.num_rows
            waiting.append(block)
            if sum(table.num_rows for table in waiting) >= rows:
                whole = pa.concat_tables(waiting)
                full = whole.num_rows // rows * rows
                writer.write_table(whole.slice(0, full), row_group_size=rows)
                waiting = [whole.slice(full)]
        rest = pa.concat_tables(waiting) if waiting else LISTING_SCHEMA.empty_table()
        if rest.num_rows:
            writer.write_table(rest, row_group_size=rows)
    return count, digest.hexdigest()


def open_folder(path: Path, kind: str) -> ListedSource:
    """Return a "folder" or "loose" source of which one picture at least was seen.

    Raises:
        InputError: no folder, one that cannot be read, or no picture in it.
    """
    if kind == "loose" and path.is_file():
        key = check_picture(path)
        return ListedSource(path.parent, kind, lambda: iter([_build_table([(path.name, key)], "")]))
    walk = FolderWalk(check_folder(path))
    if next(iter(walk), None) is None:
        raise InputError(
            f"source {path} holds no picture ({walk.ignored} other files); "
            f"expected names that end in {', '.join(sorted(IMAGE_SUFFIXES)[:6])}, …"
        )

    def list_pictures() -> Iterator[pa.Table]:
        names = iter(walk)
        while block := list(islice(names, _BLOCK)):
            yield _build_table(block, kind)

    return ListedSource(path, kind, list_pictures, lambda: walk.ignored)


def open_list(path: Path, root: Path | None, identity_column: str | None) -> ListedSource:
    """Return the pictures that a CSV or Parquet list names.

    Raises:
        InputError: see `read_list_table`, or the list is empty.
    """
    place = path.parent if root is None else root
    table = read_list_table(path, place, identity_column or "identity")
    if not table.num_rows:
        raise InputError(f"source {path} holds no picture: it has no rows; check the list")

    def list_pictures() -> Iterator[pa.Table]:
        for start in range(0, table.num_rows, _BLOCK):
            yield _complete(table.slice(start, _BLOCK))

    return ListedSource(place, "list", list_pictures)


def _build_table(names: list[tuple[str, str]], kind: str) -> pa.Table:
    """Return the rows of (path relative to the root, key) pairs."""
    keys = [key for _, key in names]
    columns = {
        "key": keys,
        "identity": [name_identity(key) if kind == "folder" else "" for key in keys],
        "split": [""] * len(keys),
        "place": [None if name == key else os.fsencode(name) for name, key in names],
    }
    schema = pa.schema([LISTING_SCHEMA.field(name) for name in columns])
    return _complete(pa.table(columns, schema=schema))


def _complete(table: pa.Table) -> pa.Table:
    """Return a table with the columns it lacks, null, and the types of the schema."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in LISTING_SCHEMA
    ]
    return pa.table(columns, schema=LISTING_SCHEMA)
