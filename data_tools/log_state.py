"""What decisions make of the manifest's rows: the last one a row wins. Columns, never row objects.

A row is known by (path, face). Tens of millions of rows are joined by hash tables of pyarrow; the
first round, which logs every row in the manifest's order, needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SLICE = 1 << 20
_TEXT = pa.large_string()  # a chunk of `string` holds at most 2 GiB


@dataclass(frozen=True)
class Fates:
    """Who each row of a manifest is after some decisions.

    Attributes:
        names: the identities that occur, text.
        codes: int32 (n,), number of the row's identity in `names`; -1 = not in the clean set.
        decided: int64 (n,), which decision of those given settled it, -1 for none.
    """

    names: pa.Array
    codes: NDArray[np.int32]
    decided: NDArray[np.int64]

    def take_names(self, codes: NDArray[np.int32]) -> pa.ChunkedArray:
        """Return the identities of codes as text, null for -1."""
        chunks = [
            self.names.take(pa.array(part, mask=part < 0)).cast(pa.string())
            for part in np.split(codes, range(_SLICE, len(codes), _SLICE))
        ]
        return pa.chunked_array(chunks, pa.string())


def join_keys(table: pa.Table) -> pa.ChunkedArray:
    """Return (path, face) of every row as one text, in which rows differ if these do."""
    face = pc.cast(table["face"], _TEXT)
    return pc.binary_join_element_wise(pc.cast(table["path"], _TEXT), face, pa.scalar("\0", _TEXT))


def locate_rows(rows: pa.Table, among: pa.Table) -> NDArray[np.int64]:
    """Return where each of `rows` stands last in `among`, int64 (n,), -1 where it does not.

    Both tables need the columns path and face.
    """
    if not among.num_rows:
        return np.full(rows.num_rows, -1, np.int64)
    backwards = pa.array(np.arange(among.num_rows - 1, -1, -1))
    keys = join_keys(among).combine_chunks().take(backwards)  # the first found counts: the last
    found = pc.fill_null(pc.index_in(join_keys(rows), value_set=keys), among.num_rows)
    places: NDArray[np.int64] = among.num_rows - 1 - found.to_numpy().astype(np.int64)
    return places


def find_last(table: pa.Table) -> NDArray[np.int64]:
    """Return the rows of a table that are the last of their (path, face), int64, ascending."""
    if not table.num_rows:
        return np.empty(0, np.int64)
    codes = join_keys(table).combine_chunks().dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max()) + 1, np.int64)
    np.maximum.at(last, codes, np.arange(len(codes)))
    return np.sort(last)


def find_fates(manifest: pa.Table, decisions: Sequence[pa.Table]) -> Fates:
    """Return who each row is after decisions.

    A row without a decision is who the manifest says; a row without a chip is never in the clean
    set.

    Args:
        manifest: n rows with path, face, identity and chip.
        decisions: tables with path, face and to, in the order in which they were made; their rows
            are numbered on for `Fates.decided`.
    """
    decided = _find_deciding(manifest, decisions)
    given = manifest["identity"].chunks
    chunks = [*given, *(chunk for table in decisions for chunk in table["to"].chunks)]
    encoded = pa.chunked_array(chunks, pa.string()).dictionary_encode()
    names = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], pa.string())
    numbers = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded.chunks]
    codes = np.concatenate(numbers) if numbers else np.empty(0, np.int32)
    own, after = codes[: manifest.num_rows], codes[manifest.num_rows :]
    settled = own.copy()
    settled[decided >= 0] = after[decided[decided >= 0]]
    settled[pc.equal(manifest["chip"], "").to_numpy()] = -1
    return Fates(names, settled, decided)


def apply_fates(manifest: pa.Table, fates: Fates) -> pa.Table:
    """Return the manifest's rows that are in the clean set, with the identities decided."""
    kept = fates.codes >= 0
    table = manifest.filter(pa.array(kept))
    place = table.schema.get_field_index("identity")
    identities = fates.take_names(fates.codes[kept])
    return table.set_column(place, table.schema.field(place), identities)


def find_changes(before: Fates, after: Fates) -> NDArray[np.int64]:
    """Return the rows whose fates differ, int64, ascending; both are of one manifest."""
    shared = pc.fill_null(pc.index_in(after.names, value_set=before.names), -1).to_numpy()
    strange = len(before.names) + np.arange(len(shared))  # a name that was not there before
    numbers = np.where(shared >= 0, shared, strange)
    numbers = np.append(numbers, -1)  # code -1 stays -1
    return np.flatnonzero(numbers[after.codes] != before.codes)


def _same_keys(rows: pa.Table, others: pa.Table) -> bool:
    faces = pc.cast(others["face"], rows["face"].type)
    return bool(rows["face"].equals(faces) and rows["path"].equals(others["path"]))


def _find_deciding(manifest: pa.Table, decisions: Sequence[pa.Table]) -> NDArray[np.int64]:
    tables = [table.select(["path", "face"]) for table in decisions]
    if not tables:
        return np.full(manifest.num_rows, -1, np.int64)
    first, rest = tables[0], tables[1:]
    if first.num_rows != manifest.num_rows or not _same_keys(manifest, first):
        return locate_rows(manifest, pa.concat_tables(tables))
    decided = np.arange(manifest.num_rows, dtype=np.int64)
    if rest:
        later = locate_rows(manifest, pa.concat_tables(rest))
        decided[later >= 0] = later[later >= 0] + first.num_rows
    return decided
