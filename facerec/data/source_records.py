"""RecordIO files as a source in parts: the places of the records become a listing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from facerec.checks import InputError
from facerec.data.record_index import RecordIndex, read_records
from facerec.data.source_listing import LISTING_SCHEMA, ListedSource
from facerec.data.source_parts import Fault
from facerec.data.sources import escape_name
from facerec.data.tars import name_number

_BLOCK = 1 << 14


def find_record_files(path: Path) -> list[Path]:
    """Return one `.rec` file, or those of a folder in order of their names; [] if there is none."""
    if path.is_dir():
        return sorted(file for file in path.glob("*.rec") if not file.name.startswith("."))
    return [path] if path.is_file() and path.suffix == ".rec" else []


def open_records(path: Path) -> ListedSource:
    """Return the chips of a `.rec` file or of all those in a folder.

    Their keys are `FILE.rec/NUMBER`, their identities the class numbers as text of seven digits.
    An index takes 32 bytes of memory a record. Records that are damaged are left out and named;
    a file that cannot be read at all is too, unless it is the only one.

    Raises:
        InputError: there is no such file, or no chip in any.
    """
    files = find_record_files(path)
    if not files:
        raise InputError(
            f"source {path} must be a .rec file or a folder with some, and is neither; "
            "check the path"
        )
    root = path if path.is_dir() else path.parent
    indexes: list[RecordIndex] = []
    faults: list[Fault] = []
    for file in files:
        try:
            index = read_records(file)
        except (InputError, OSError) as error:
            if len(files) == 1:
                raise
            faults.append(Fault(file.name, str(error)))
            continue
        indexes.append(index)
        if index.damage:
            more = f" (and {len(index.damage) - 1:,} more)" if len(index.damage) > 1 else ""
            faults.append(Fault(file.name, index.damage[0] + more))
    if not indexes:
        raise InputError(f"source {path}: none of its .rec files can be read; {faults[0].reason}")
    sizes = [(file.name, file.stat().st_size) for file in files]

    def list_records() -> Iterator[pa.Table]:
        for index in indexes:
            for start in range(0, len(index), _BLOCK):
                yield _list_block(index, slice(start, start + _BLOCK))

    return ListedSource(
        root,
        "recordio",
        list_records,
        shards=len(files),
        digest=json.dumps(sizes).encode(),
        faults=tuple(faults),
    )


def _list_block(index: RecordIndex, rows: slice) -> pa.Table:
    keys = index.keys[rows]
    name = index.path.name
    return pa.table(
        [
            [f"{escape_name(name)}/{key}" for key in keys.tolist()],
            [name_number(label) for label in index.labels[rows].tolist()],
            [""] * len(keys),
            [os.fsencode(name)] * len(keys),
            index.offsets[rows],
            index.lengths[rows],
        ],
        schema=LISTING_SCHEMA,
    )
