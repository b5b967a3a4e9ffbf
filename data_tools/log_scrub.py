"""A person taken out of tables: the rows removed, the name blotted out of other people's rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.log_state import join_keys
from facerec.io import atomic_path

BLOT = "(erased)"
_BATCH = 1 << 17
_NAMES = ("identity", "from", "to")
"""Columns that say who a row is."""
_PHRASES = frozenset({"reason", "note"})
"""Columns of phrases, in which a name may stand among words."""
_FIXED = frozenset(
    ("path", "chip", "image_id", "sha256", "source", "split", "check", "action", "model", "policy")
)
"""Columns in which a word that equals the name is not the name, or that must fit the source."""


class Touched(NamedTuple):
    """What an erasure finds in a table.

    Attributes:
        rows: of the person.
        mentions: rows of ottheirs that name the person.
    """

    rows: int
    mentions: int


@dataclass(frozen=True)
class Person:
    """Who is erased.

    Attributes:
        identity: the name.
        rows: the person's rows of the manifest, with path and face.
        image_ids: ids of pictures that show the person in every row.
    """

    identity: str
    rows: pa.Table
    image_ids: pa.Array
    _pattern: re.Pattern[str] = field(init=False, repr=False)
    _keys: pa.Array = field(init=False, repr=False)
    _paths: pa.Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the look-ups."""
        pattern = re.compile(rf"(?<!\w){re.escape(self.identity)}(?!\w)")
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_keys", join_keys(self.rows).combine_chunks())
        object.__setattr__(self, "_paths", pc.unique(self.rows["path"].cast(pa.string())))

    def blot(self, text: str) -> str:
        """Return a phrase without the name, where it stands as a word."""
        return self._pattern.sub(BLOT, text)

    def find_rows(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows of a table are the person's, bool (n,)."""
        names = table.column_names
        found = np.zeros(table.num_rows, bool)
        if "path" in names and "face" in names:
            near = np.flatnonzero(_is_in(table["path"], self._paths))
            if len(near):
                keys = join_keys(table.select(["path", "face"]).take(pa.array(near)))
                found[near] = _is_in(keys, self._keys)
        elif "path" in names:
            found |= _is_in(table["path"], self._paths)
        elif "image_id" in names:
            found |= _is_in(table["image_id"], self.image_ids)
        for name in _NAMES:
            if name in names and _is_text(table.schema.field(name).type):
                found |= _is_in(table[name], pa.array([self.identity]))
        return found

    def find_mentions(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows of a table have the name in a place that `blot_table` changes."""
        found = np.zeros(table.num_rows, bool)
        for column in table.schema:
            values = table[column.name]
            if column.name in _FIXED:
                continue
            if _is_text(column.type) and column.name in _PHRASES:
                found |= self._find_phrases(values)
            elif _is_text(column.type):
                found |= _is_in(values, pa.array([self.identity]))
            elif _is_text_list(column.type):
                whole = values.combine_chunks()
                flat = _is_in(pc.list_flatten(whole), pa.array([self.identity]))
                found[pc.list_parent_indices(whole).to_numpy()[flat]] = True
        return found

    def blot_table(self, table: pa.Table) -> pa.Table:
        """Return a table without the name: "" where it is a value, a blot where it is a word."""
        for place, column in enumerate(table.schema):
            values = table[column.name]
            if column.name in _FIXED:
                continue
            if _is_text(column.type) and column.name in _PHRASES:
                values = self._blot_phrases(values)
            elif _is_text(column.type):
                values = self._blot_values(values)
            elif _is_text_list(column.type):
                values = self._blot_lists(values)
            else:
                continue
            table = table.set_column(place, column, _cast(values, column.type))
        return table

    def _find_phrases(self, values: pa.ChunkedArray) -> NDArray[np.bool_]:
        texts = pc.fill_null(pc.cast(values, pa.string()), "")
        near = _to_numpy(pc.match_substring(texts, self.identity))
        for row in np.flatnonzero(near):
            near[row] = self._pattern.search(texts[int(row)].as_py()) is not None
        return near

    def _blot_phrases(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return phrases without the name; the few that hold it go through a regex of ours."""
        mask = self._find_phrases(values)
        texts = pc.cast(values, pa.string()).combine_chunks()
        new = [self.blot(text) for text in texts.filter(pa.array(mask)).to_pylist()]
        return pc.replace_with_mask(texts, pa.array(mask), pa.array(new, pa.string()))

    def _blot_values(self, values: Any) -> Any:
        texts = pc.cast(values, pa.string())
        return pc.if_else(pc.fill_null(pc.equal(texts, self.identity), False), "", texts)

    def _blot_lists(self, values: pa.ChunkedArray) -> Any:
        # Taken, not combined: a slice's offsets do not begin at 0, which from_arrays refuses.
        whole = values.combine_chunks().take(pa.array(np.arange(len(values))))
        flat = _cast(self._blot_values(whole.values), whole.type.value_type)
        kind = pa.LargeListArray if pa.types.is_large_list(whole.type) else pa.ListArray
        return kind.from_arrays(whole.offsets, flat, type=whole.type, mask=whole.is_null())


def find_touched(path: Path, person: Person) -> Touched:
    """Return what an erasure would change in a Parquet table."""
    rows = mentions = 0
    for table in _iter_tables(path):
        theirs = person.find_rows(table)
        rows += int(theirs.sum())
        mentions += int((person.find_mentions(table) & ~theirs).sum())
    return Touched(rows, mentions)


def rewrite_table(path: Path, target: Path, person: Person, *, blot: bool = True) -> None:
    """Write a Parquet table without a person, all or nothing.

    Args:
        path: the table.
        target: the new one; may be `path`.
        person: who goes.
        blot: take the name out of the rows that stay, too.
    """
    schema = pq.read_schema(path)
    with (
        atomic_path(target) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for table in _iter_tables(path):
            kept = table.filter(pa.array(~person.find_rows(table)))
            kept = person.blot_table(kept) if blot else kept
            writer.write_table(kept.cast(schema))


def blot_json(value: Any, person: Person, keep: frozenset[str] = frozenset()) -> Any:
    """Return plain JSON values without a name: keys that are it go, texts are blotted.

    Args:
        value: any.
        person: whose name.
        keep: keys whose values stay as they are.
    """
    if isinstance(value, str):
        return person.blot(value)
    if isinstance(value, list):
        return [blot_json(one, person, keep) for one in value]
    if isinstance(value, dict):
        return {
            person.blot(name): one if name in keep else blot_json(one, person, keep)
            for name, one in value.items()
            if name != person.identity
        }
    return value


def _iter_tables(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield pa.Table.from_batches([batch])


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_text_list(kind: pa.DataType) -> bool:
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(nested and _is_text(kind.value_type))


def _is_in(values: Any, among: pa.Array) -> NDArray[np.bool_]:
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    return _to_numpy(pc.is_in(values, value_set=among.cast(values.type)))


def _to_numpy(values: Any) -> NDArray[np.bool_]:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return np.array(values.to_numpy(zero_copy_only=False), bool)


def _cast(values: Any, kind: pa.DataType) -> Any:
    """Return text as the type it had; a dictionary is built anew, without what is not used."""
    if pa.types.is_dictionary(kind):
        return pc.cast(pc.dictionary_encode(pc.cast(values, kind.value_type)), kind)
    return pc.cast(values, kind)
