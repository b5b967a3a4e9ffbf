"""What an export writes: rows of the clean set in columns, labels by the identities' order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.io import atomic_path

UNLABELLED = -1
_BATCH = 1 << 16


@dataclass(frozen=True)
class ChipRows:
    """The chips to write, each once an identity, without those of nobody.

    Attributes:
        chips: (n,) paths in the set folder, in order of their labels, then of the clean set.
        labels: int64 (n,), number of the identity.
        repeated: rows left out because their identity has the very chip already.
        unlabelled: rows left out because they have no identity.
    """

    chips: pa.Array
    labels: NDArray[np.int64]
    repeated: int
    unlabelled: int


def read_identities(clean: Path) -> pa.Array:
    """Return the identities of a clean set, sorted by their text; a label is a place in it."""
    names = pq.read_table(clean, columns=["identity"], partitioning=None)["identity"]
    names = pc.unique(names)
    names = names.filter(pc.not_equal(names, ""))
    return names.take(pc.array_sort_indices(names))


def find_labels(identities: pa.Array | pa.ChunkedArray, names: pa.Array) -> NDArray[np.int64]:
    """Return the label of each identity, int64 (n,), -1 for nobody."""
    found = pc.fill_null(pc.index_in(identities, value_set=names), UNLABELLED)
    labels: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return labels


def iter_batches(clean: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a clean set, a bounded number at a time."""
    with pq.ParquetFile(clean) as file:
        yield from file.iter_batches(_BATCH, columns=columns)


def read_chip_rows(clean: Path, names: pa.Array) -> ChipRows:
    """Return the chips of a clean set with their labels.

    Raises:
        InputError: no row has an identity.
    """
    table = pq.read_table(clean, columns=["chip", "identity"], partitioning=None)
    labels = find_labels(table["identity"], names)
    chips = pc.cast(table["chip"], pa.large_string()).combine_chunks()
    codes = chips.dictionary_encode().indices.to_numpy().astype(np.int64)
    labelled = np.flatnonzero(labels != UNLABELLED)
    if not len(labelled):
        raise InputError(f"{clean} has no row with an identity; export it as a list")
    pairs = codes[labelled] * len(names) + labels[labelled]
    kept = labelled[np.unique(pairs, return_index=True)[1]]
    kept.sort()
    kept = kept[np.argsort(labels[kept], kind="stable")]
    return ChipRows(
        chips.take(pa.array(kept)),
        labels[kept],
        len(labelled) - len(kept),
        len(labels) - len(labelled),
    )


def write_labels(names: pa.Array, path: Path) -> None:
    """Write which label is whom: a CSV with label and identity."""
    table = pa.table({"label": np.arange(len(names)), "identity": names})
    with atomic_path(path) as temporary:
        pcsv.write_csv(table, temporary)


def read_chip_bytes(root: Path, chip: str) -> bytes:
    """Return a chip's file.

    Raises:
        InputError: it is missing.
    """
    try:
        return (root / chip).read_bytes()
    except FileNotFoundError:
        raise InputError(f"chip {root / chip} is missing; ingest the source again") from None
