"""The truth table of a noisy crawl, laid beside a manifest's rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_tools.centres import Labels, Mask
from data_tools.inject import CLEAN, DUPLICATE, FLIP, KINDS, LEAK, LOW_QUALITY, OUTLIER
from facerec.checks import InputError, nearest
from facerec.data.sources import read_table

EXPENDABLE = (DUPLICATE, LOW_QUALITY, LEAK)
"""Kinds that may go although the right person is in them."""

_COLUMNS = ("key", "person")
_TEXT = pa.large_string()


@dataclass(frozen=True)
class Truth:
    """What is known of n rows.

    Attributes:
        key: text, the picture.
        person: text, whom it is about, "" for nobody.
        kind: text, what is wrong with it, in the table's words.
        copy_of: text, a duplicate's original, "" for the others.
        at_home: bool (n,), the person is who the row's identity says.
        told: bool (n,), the table says whom the row shows.
    """

    key: pa.ChunkedArray
    person: pa.ChunkedArray
    kind: pa.ChunkedArray
    copy_of: pa.ChunkedArray
    at_home: Mask
    told: Mask

    def select(self, rows: Labels) -> Truth:
        """Return the truth of some rows, in their order."""
        taken = pa.array(rows)
        return Truth(
            self.key.take(taken),
            self.person.take(taken),
            self.kind.take(taken),
            self.copy_of.take(taken),
            self.at_home[rows],
            self.told[rows],
        )

    def number_people(self, names: pa.Array) -> tuple[Labels, NDArray[np.int8], Labels]:
        """Return person, kind and copies as `data_tools.score_fates.score_fates` takes them.

        A person is of the set when an identity has that name or a "clean" row shows it. A kind in
        other words is a flip, an outlier or clean, by who is in the row.

        Args:
            names: the set's identities.
        """
        codes = self._code_kinds()
        clean = pc.unique(self.person.filter(pa.array(codes == CLEAN)))
        members = pc.unique(pa.chunked_array([pc.cast(names, _TEXT), pc.cast(clean, _TEXT)]))
        members = members.filter(pc.not_equal(members, ""))
        person = pc.fill_null(pc.index_in(self.person, value_set=members), -1).to_numpy()
        person = person.astype(np.int64)
        other = codes < 0
        strange = np.where(person < 0, OUTLIER, FLIP)
        codes = np.where(other, np.where(self.at_home, CLEAN, strange), codes)
        # A stranger in a folder of the set is nobody, whatever the name.
        person[codes == OUTLIER] = -1
        return person, codes.astype(np.int8), self._number_copies()

    def _code_kinds(self) -> Labels:
        """Return places in `KINDS`, -1 for other words and for what a kind cannot be."""
        codes = pc.index_in(self.kind, value_set=pa.array(KINDS, self.kind.type))
        found = pc.fill_null(codes, -1).to_numpy().astype(np.int64)
        found[self.at_home & np.isin(found, (FLIP, OUTLIER))] = -1
        return np.asarray(found, np.int64)

    def _number_copies(self) -> Labels:
        """Return one number for a picture and its copies, int64 (n,)."""
        original = pc.if_else(pc.equal(self.copy_of, ""), self.key, self.copy_of)
        encoded = pc.dictionary_encode(original)
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        numbers: Labels = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return numbers


def read_truth(path: Path, manifest: pa.Table) -> Truth:
    """Return the truth of every row of a manifest.

    Args:
        path: CSV or Parquet; of several rows of a picture, those with face 0 or less say whom it
            is about, the last one counts.
        manifest: with path, identity and policy.

    Raises:
        InputError: no such file, a column is missing, or a face is no number.
    """
    if not path.is_file():
        raise InputError(f"truth table {path} is not a file; check the path")
    table = read_table(path)
    for name in _COLUMNS:
        if name not in table.column_names:
            raise InputError(
                f"truth table {path} must have the column {name!r}, which is missing"
                f"{nearest(name, table.column_names)}"
            )
    texts = [_text(table, name) for name in ("key", "person", "kind", "copy_of")]
    pictures, group = np.unique(_encode(texts[0]), return_inverse=True)
    times = np.bincount(group, minlength=len(pictures))
    first = np.unique(group, return_index=True)[1]
    about = np.full(len(pictures), -1, np.int64)
    rows = np.flatnonzero(_read_faces(table, path) <= 0)
    np.maximum.at(about, group[rows], rows)
    keys = texts[0].take(pa.array(first))
    place = pc.index_in(pc.cast(manifest["path"], _TEXT), value_set=keys.combine_chunks())
    place = pc.fill_null(place, -1).to_numpy().astype(np.int64)
    largest = pc.equal(manifest["policy"], "largest").to_numpy()
    told = (place >= 0) & ((np.append(times, 0)[place] == 1) | largest)
    row = np.append(about, -1)[place]
    taken = pa.array(np.where(row < 0, 0, row), mask=row < 0)
    key, person, kind, copy_of = (pc.fill_null(text.take(taken), "") for text in texts)
    home = pc.equal(person, pc.cast(manifest["identity"], _TEXT)).to_numpy()
    return Truth(key, person, kind, copy_of, home, told)


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column as text, "" where null or where there is no such column."""
    if name not in table.column_names:
        return pa.chunked_array([pa.repeat(pa.scalar("", _TEXT), table.num_rows)])
    return pc.fill_null(pc.cast(table[name], _TEXT), "")


def _encode(column: pa.ChunkedArray) -> Labels:
    codes = column.combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def _read_faces(table: pa.Table, path: Path) -> Labels:
    """Return the faces' numbers; where the table has none, 0.

    Raises:
        InputError: one is no whole number.
    """
    if "face" not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    try:
        faces = pc.cast(table["face"], pa.int64())
        if faces.null_count:
            raise pa.ArrowInvalid("null")
        return np.asarray(faces.to_numpy(), np.int64)
    except pa.ArrowInvalid:
        for row, value in enumerate(table["face"].to_pylist()):
            try:
                int(value)
            except (TypeError, ValueError):
                raise InputError(
                    f"truth table {path}, row {row}: face must be a whole number, got {value!r}"
                ) from None
        raise InputError(f"truth table {path}: face must hold whole numbers") from None
