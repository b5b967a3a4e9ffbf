"""Who is shown in a shard's pictures: label members, and the tables that img2dataset writes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facerec.checks import InputError, nearest
from facerec.data.tar_members import TarMember
from facerec.data.tars import name_number

LABEL_SUFFIXES = frozenset({"cls", "json", "txt"})
_MAX_LABEL_BYTES = 1 << 20
_MAX_NAME = 200  # characters: a longer text is a caption, no name
_SUCCESS = "success"


def read_label(file: IO[bytes], member: TarMember, suffix: str, fields: tuple[str, ...]) -> str:
    """Return the identity that a member names, "" when it names none.

    Raises:
        ValueError: it is damaged.
    """
    if member.length > _MAX_LABEL_BYTES:
        raise ValueError(f"a label of {member.length:,} bytes is none")
    data = os.pread(file.fileno(), member.length, member.offset)
    if len(data) < member.length:
        raise ValueError("it is cut")
    if suffix == "json":
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("must hold a JSON object")
        return next((name for f in fields if (name := _name_value(value.get(f)))), "")
    text = data.decode("utf-8").strip()
    if suffix == "cls" and text.isascii() and text.isdigit():
        return name_number(int(text))
    return text if len(text) <= _MAX_NAME and text.isprintable() else ""


def _name_value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return name_number(value)
    return value if isinstance(value, str) else ""


def read_shard_table(path: Path, fields: tuple[str, ...]) -> tuple[Any, set[str], set[str]]:
    """Return what the table beside a shard says.

    Returns:
        Key -> identity of what was fetched, None when it has no such column; the keys of what was
        fetched; those of what was not.

    Raises:
        ValueError: a column is missing or is of another type.
    """
    names = pq.read_schema(path).names
    if "key" not in names:
        raise ValueError("it has no column 'key'")
    column = next((name for name in fields if name in names), None)
    wanted = [name for name in ("key", "status", column) if name is not None and name in names]
    table = pq.read_table(path, columns=list(dict.fromkeys(wanted)), partitioning=None)
    keys = pc.cast(table["key"], pa.string())
    failed: set[str] = set()
    if "status" in names:
        good = pc.fill_null(pc.equal(pc.cast(table["status"], pa.string()), _SUCCESS), False)
        failed = set(keys.filter(pc.invert(good)).to_pylist())
        table, keys = table.filter(good), keys.filter(good)
    rows = keys.to_pylist()
    if column is None:
        return None, set(rows), failed
    return dict(zip(rows, _name_column(table[column]), strict=True)), set(rows), failed


def _name_column(column: pa.ChunkedArray) -> Iterator[str]:
    """Yield the identities in a column: numbers as text of seven digits, nulls as ""."""
    if pa.types.is_integer(column.type):
        return (_name_value(value) for value in column.to_pylist())
    text = pc.fill_null(pc.cast(column, pa.string()), "")
    return iter(text.to_pylist())


def check_column(shards: Iterable[Path], column: str) -> None:
    """Refuse a column that no table has: of the tables, the first readable one decides."""
    for shard in shards:
        try:
            names = pq.read_schema(shard.with_suffix(".parquet")).names
        except (OSError, pa.ArrowException):
            continue
        if column not in names:
            raise InputError(
                f"{shard.with_suffix('.parquet')} has no column {column!r}"
                f"{nearest(column, names)}; its columns: {', '.join(names)}"
            )
        return


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).splitlines()[0] if str(error) else type(error).__name__
