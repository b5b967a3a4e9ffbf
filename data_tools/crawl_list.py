"""The list of a crawl, identity and address, streamed: tens of millions of rows fit anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from facerec.checks import InputError, nearest
from facerec.data.sources import LIST_SUFFIXES

COLUMNS = ("identity", "url")
_BATCH_ROWS = 16_384
_BLOCK_BYTES = 8 << 20


def count_list(path: Path) -> int:
    """Return the rows of a list, having read it to its end: a fault shows now, not days later.

    Raises:
        InputError: see `iter_list`; or the list is empty.
    """
    rows: int = sum(table.num_rows for table in iter_list(path, _BATCH_ROWS))
    if not rows:
        raise InputError(f"{path} must list identities and addresses, but has no row")
    return rows


def iter_list(path: Path, rows: int) -> Iterator[pa.Table]:
    """Yield tables of text columns identity and url with `rows` rows each, the last with the rest.

    Args:
        path: a .csv or .parquet file; further columns are passed over, null becomes "".
        rows: rows a table, from 1.

    Raises:
        InputError: another kind of file, a missing column, a column that is no text, or damage.
    """
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise InputError(f"list {path} must end in .csv or .parquet")
    if not path.is_file():
        raise InputError(f"list {path} is not a file; check the path")
    batches = _iter_parquet(path) if path.suffix.lower() == ".parquet" else _iter_csv(path)
    try:
        yield from _cut(batches, rows)
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as a list: {first_line}") from error


def _cut(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `rows` rows."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, rows - held)
            waiting.append(piece)
            held += piece.num_rows
            start += piece.num_rows
            if held == rows:
                yield pa.Table.from_batches(waiting)
                waiting, held = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _iter_parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names)
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(COLUMNS)):
            yield _to_texts(batch, path)


def _iter_csv(path: Path) -> Iterator[pa.RecordBatch]:
    reading = pcsv.ReadOptions(block_size=_BLOCK_BYTES)
    with path.open("rb") as file:  # names first: every column is text, identity "007" stays so
        names = pcsv.open_csv(file, read_options=reading).schema.names
    _check_columns(path, names)
    options = pcsv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        include_columns=list(COLUMNS),
        strings_can_be_null=False,
    )
    with pcsv.open_csv(path, read_options=reading, convert_options=options) as reader:
        for batch in reader:
            yield _to_texts(batch, path)


def _check_columns(path: Path, names: list[str]) -> None:
    for column in COLUMNS:
        if column not in names:
            raise InputError(
                f"{path} must have the columns identity and url, but {column!r} is missing"
                f"{nearest(column, names)}"
            )
        if names.count(column) > 1:
            raise InputError(f"{path} has several columns called {column!r}; keep one")


def _to_texts(batch: pa.RecordBatch, path: Path) -> pa.RecordBatch:
    columns = []
    for name in COLUMNS:
        column = batch.column(name)
        try:
            columns.append(pc.fill_null(pc.cast(column, pa.large_string()), ""))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(f"{path}, column {name} must hold text, got {column.type}") from None
    return pa.RecordBatch.from_arrays(columns, names=list(COLUMNS))
