"""The clean set as a file: the manifest with the log replayed on it, and rounds taken back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_tools.decisions import Log, Round, read_log, undo_from
from data_tools.log_receipts import check_finished
from data_tools.log_state import Fates, find_fates
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError
from facerec.data.manifest import MANIFEST_SCHEMA
from facerec.io import atomic_path

_STAMP_KEY = b"facerec.log"
_KEY_COLUMNS = ["path", "face", "identity", "chip"]


def read_state(folder: SetFolder, rounds: Iterable[Round]) -> tuple[pa.Table, Fates]:
    """Return who each row of a set is after some rounds.

    Args:
        folder: a set.
        rounds: in order; none for the set as ingested.

    Returns:
        The manifest's columns path, face, identity and chip, and the fates of its rows.
    """
    manifest = pq.read_table(folder.manifest, columns=_KEY_COLUMNS, partitioning=None)
    tables = [entry.read(["path", "face", "to"]) for entry in rounds]
    return manifest, find_fates(manifest, tables)


def write_clean(folder: SetFolder, log: Log) -> int:
    """Write `clean.parquet`, stamped with the log it is of; return its rows.

    The manifest is read batch by batch; only who is who is held in memory.
    """
    _, fates = read_state(folder, log.active)
    stamp = {**(MANIFEST_SCHEMA.metadata or {}), _STAMP_KEY: log.digest.encode()}
    schema = MANIFEST_SCHEMA.with_metadata(stamp)
    place = schema.get_field_index("identity")
    offset = 0
    with (
        atomic_path(folder.clean) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        pq.ParquetFile(folder.manifest) as manifest,
    ):
        for batch in manifest.iter_batches():
            codes = fates.codes[offset : offset + batch.num_rows]
            offset += batch.num_rows
            kept = codes >= 0
            rows = pa.Table.from_batches([batch]).filter(pa.array(kept))
            identities = fates.take_names(codes[kept])
            rows = rows.set_column(place, schema.field(place), identities)
            writer.write_table(rows.replace_schema_metadata(stamp))
    return int(np.count_nonzero(fates.codes >= 0))


def refresh_clean(folder: SetFolder) -> Log:
    """Make `clean.parquet` that of the log if it is not, and return the log; hold the lock.

    A process killed between the log and the clean set leaves the older one.

    Raises:
        InputError: no round was ever run.
    """
    log = read_log(folder.log)
    if not log.rounds:
        raise InputError(
            f"{folder.root} is not cleaned yet; run: facerec-clean run {folder.root} --model MODEL"
        )
    stamp = None
    if folder.clean.is_file():
        stamp = (pq.read_schema(folder.clean).metadata or {}).get(_STAMP_KEY)
    if stamp != log.digest.encode():
        write_clean(folder, log)
    return log


def undo_rounds(out: Path, number: int | None = None) -> dict[str, Any]:
    """Take a round and all later ones back, and write the clean set without them.

    The undone rounds stay in the log, which says that they no longer count.

    Args:
        out: a set folder.
        number: of the round; the last that counts when None.

    Returns:
        undone (numbers, last first), rows (of the clean set now), round (the last that counts,
        None for none).

    Raises:
        InputError: no set, in use, no round to undo, no such round, or it was undone already.
    """
    folder = open_set(out)
    with folder.lock("undo"):
        check_finished(folder)
        numbers = undo_from(folder.log, number)
        log = read_log(folder.log)
        rows = write_clean(folder, log)
    left = log.active[-1].number if log.active else None
    return {"undone": numbers, "rows": rows, "round": left}
