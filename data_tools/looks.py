"""What a set's chips look like: hash, sharpness, exposure, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.hashes import Hashes, hash_chips
from data_tools.round_rows import Usable
from data_tools.sets import SetFolder
from data_tools.spaces import read_chip
from facerec.data.chip_measures import measure_chips
from facerec.io import atomic_path
from facerec.progress import Progress

_BATCH = 256
_SHARD = 65_536
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("hash", pa.uint64()),
        ("sharpness", pa.float32()),
        ("exposure", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Looks:
    """What n chips look like.

    Attributes:
        hashes: uint64 (n,), of `data_tools.hashes.hash_chips`.
        sharpness: float64 (n,), of `facerec.data.chip_measures.measure_chips`.
        exposure: float64 (n,), likewise.
    """

    hashes: Hashes
    sharpness: NDArray[np.float64]
    exposure: NDArray[np.float64]


def look_at_rows(folder: SetFolder, manifest: pa.Table, usable: Usable) -> Looks:
    """Return what the usable rows' chips look like.

    What was looked at before is read from `hashes/`; what is new is written there, a shard at a
    time, so a killed run goes on.

    Raises:
        InputError: a chip is missing or damaged.
    """
    place = folder.root / "hashes"
    known = _read_known(place)
    ids = pa.array(usable.ids, pa.string())
    missing = np.flatnonzero(pc.is_null(pc.index_in(ids, value_set=known["id"])).to_numpy(False))
    chips = manifest["chip"].take(pa.array(usable.rows))
    with Progress("look", len(missing), "faces") as progress:
        for first in range(0, len(missing), _SHARD):
            rows = missing[first : first + _SHARD]
            parts = []
            for at in range(0, len(rows), _BATCH):
                part = rows[at : at + _BATCH]
                parts.append(_look(folder, ids.take(pa.array(part)), chips.take(pa.array(part))))
                progress.advance(len(part))
            table = pa.concat_tables(parts)
            _write_shard(place, table)
            known = pa.concat_tables([known, table])
    found = known.take(pc.index_in(ids, value_set=known["id"]))
    return Looks(
        found["hash"].to_numpy(),
        found["sharpness"].to_numpy().astype(np.float64),
        found["exposure"].to_numpy().astype(np.float64),
    )


def _look(folder: SetFolder, ids: pa.Array, chips: pa.ChunkedArray) -> pa.Table:
    pixels = np.stack([read_chip(folder.root / name) for name in chips.to_pylist()])
    measured = measure_chips(pixels)
    columns = (ids, hash_chips(pixels), measured.sharpness, measured.exposure)
    return pa.table([pa.array(column) for column in columns], _SCHEMA.names).cast(_SCHEMA)


def _read_known(place: Path) -> pa.Table:
    files = sorted(place.glob("[!.]*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    # What another version measured is measured again.
    fitting = [table for table in tables if table.schema.equals(_SCHEMA)]
    return pa.concat_tables([_SCHEMA.empty_table(), *fitting])


def _write_shard(place: Path, table: pa.Table) -> None:
    place.mkdir(parents=True, exist_ok=True)
    taken = len(list(place.glob("[!.]*.parquet")))
    with atomic_path(place / f"{taken:05d}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
