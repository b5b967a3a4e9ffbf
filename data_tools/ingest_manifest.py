"""The manifest of an ingest: put together from its parts and counted, a block at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.ingest_part import PartNotes, name_part_file, read_notes
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.data.manifest import MANIFEST_SCHEMA
from facerec.data.source_parts import Fault
from facerec.io import atomic_path

ROW_GROUP = 1 << 16
"""Rows of a row group: with one a part, the file's footer would outgrow memory."""


@dataclass(frozen=True)
class Progressed:
    """What the parts that are there say together.

    Attributes:
        notes: their sums, and the faults in the order of the source.
        missing: numbers of the parts that are not there.
    """

    notes: PartNotes
    missing: list[int]


def read_progress(folder: SetFolder, count: int, again: bool = False) -> Progressed:
    """Return how far an ingest of `count` parts is.

    Args:
        folder: the set.
        count: parts.
        again: whether parts with a fault count as missing: what was wrong may be mended.

    Raises:
        InputError: a part is damaged.
    """
    missing: list[int] = []
    seconds, pictures, skipped, ignored = 0.0, 0, 0, 0
    faults: list[Fault] = []
    for number in range(count):
        notes = read_notes(name_part_file(folder, number))
        if notes is None or (again and notes.faults):
            missing.append(number)
            continue
        seconds += notes.seconds
        pictures += notes.pictures
        skipped += notes.skipped
        ignored += notes.ignored
        faults += notes.faults
    return Progressed(PartNotes(seconds, pictures, skipped, ignored, tuple(faults)), missing)


def merge_parts(folder: SetFolder, count: int) -> None:
    """Write the manifest from its parts in their order, some row groups in memory at a time."""
    with (
        atomic_path(folder.manifest) as temporary,
        pq.ParquetWriter(temporary, MANIFEST_SCHEMA, compression="zstd") as writer,
    ):
        waiting = MANIFEST_SCHEMA.empty_table()
        for number in range(count):
            part = pq.read_table(name_part_file(folder, number), partitioning=None)
            part = part.replace_schema_metadata(MANIFEST_SCHEMA.metadata)
            waiting = pa.concat_tables([waiting, part])
            while waiting.num_rows >= ROW_GROUP:
                writer.write_table(waiting.slice(0, ROW_GROUP).combine_chunks())
                waiting = waiting.slice(ROW_GROUP)
        writer.write_table(waiting.combine_chunks())


def remove_parts(folder: SetFolder) -> None:
    """Remove the parts of a manifest that is whole."""
    for part in folder.parts.glob("part-*.parquet"):
        part.unlink()
    if folder.parts.is_dir():
        folder.parts.rmdir()


def count_manifest(folder: SetFolder) -> dict[str, Any]:
    """Return the figures of a manifest; of its columns, the identities' names alone are held.

    Returns:
        rows, pictures, faces, unusable, reasons (the most frequent first) and identities.
    """
    rows = pictures = 0
    reasons: Counter[str] = Counter()
    identities: set[str] = set()
    columns = ["identity", "face", "reason"]
    with pq.ParquetFile(folder.manifest) as file:
        for batch in file.iter_batches(ROW_GROUP, columns=columns):
            rows += batch.num_rows
            # Faces of a picture are numbered from 0, and one without a face has one row.
            pictures += pc.sum(pc.equal(batch["face"], 0)).as_py() or 0
            identities.update(pc.unique(batch["identity"]).to_pylist())
            for entry in pc.value_counts(batch["reason"]).to_pylist():
                reasons[entry["values"]] += entry["counts"]
    reasons.pop("", None)
    unusable = sum(reasons.values())
    return {
        "rows": rows,
        "pictures": pictures,
        "faces": rows - unusable,
        "unusable": unusable,
        "reasons": dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        "identities": len(identities - {""}),
    }


def check_faults(faults: list[Fault], shards: int, most: int, source: str) -> None:
    """Refuse a source of which too much cannot be read: it is likely the wrong one.

    Raises:
        InputError: more than `most` shards have faults.
    """
    names = {fault.shard.removesuffix(".parquet").removesuffix(".tar") for fault in faults}
    if len(names) > most:
        raise InputError(
            f"{len(names)} of {shards} shards of {source} cannot be read to their end, more than "
            f"--max-faults {most}; first {faults[0].shard}: {faults[0].reason}; check the source, "
            "or allow more; finished parts are kept"
        )
