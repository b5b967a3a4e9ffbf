"""The clean set as training containers: RecordIO as InsightFace packs it, and WebDataset shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools.export_places import build_folder
from data_tools.export_rows import ChipRows, read_chip_bytes, read_chip_rows, write_labels
from data_tools.sets import SetFolder
from facerec.data.recordio import RecordWriter
from facerec.data.tars import TarSample, write_shards
from facerec.io import write_text
from facerec.progress import Progress

LABELS_NAME = "labels.csv"
_CHIP_SIDE = 112
_EXACT_FLOATS = 1 << 24  # layout insightface keeps record numbers as float32
_SLICE = 1 << 14


def write_records(folder: SetFolder, destination: Path, names: pa.Array) -> dict[str, Any]:
    """Write `train.rec`, `train.idx`, `property` and `labels.csv` into a new folder.

    The records stand in order of their labels: layout "insightface" with the identities' ranges,
    or "plain" where their numbers are more than its float32 holds (2**24 chips and identities).

    Args:
        folder: a set with its clean set.
        destination: new or empty.
        names: the identities; a label is a place in it.
    """
    rows = read_chip_rows(folder.clean, names)
    small = len(rows.labels) + len(names) + 1 < _EXACT_FLOATS
    layout = "insightface" if small else "plain"
    order = np.arange(len(rows.labels))
    with build_folder(destination) as made:
        with RecordWriter(made / "train.rec", layout) as writer:
            for _, image, label in _iter_chips(folder, rows, order, "records"):
                writer.write(image, label)
        write_text(made / "property", f"{len(names)},{_CHIP_SIDE},{_CHIP_SIDE}\n")
        write_labels(names, made / LABELS_NAME)
    return {**_count(rows), "files": 4, "layout": layout}


def write_tars(folder: SetFolder, destination: Path, names: pa.Array, seed: int) -> dict[str, Any]:
    """Write shards of KEY.png (or .jpg) beside KEY.json with the identity, and `labels.csv`.

    The rows are shuffled: who reads shards in order must not meet one identity after another.

    Args:
        folder: a set with its clean set.
        destination: new or empty.
        names: the identities; a label is a place in it.
        seed: of the order.
    """
    rows = read_chip_rows(folder.clean, names)
    order = np.random.default_rng(seed).permutation(len(rows.labels))

    def iter_samples() -> Iterator[TarSample]:
        for chip, image, label in _iter_chips(folder, rows, order, "webdataset"):
            key = f"{label:07d}/{Path(chip).stem}"  # two identities may share a chip
            yield TarSample(key, image, names[label].as_py())

    with build_folder(destination) as made:
        shards = write_shards(iter_samples(), made)
        write_labels(names, made / LABELS_NAME)
    return {**_count(rows), "files": len(shards) + 1, "seed": seed}


def _iter_chips(
    folder: SetFolder, rows: ChipRows, order: NDArray[np.int64], what: str
) -> Iterator[tuple[str, bytes, int]]:
    """Yield (chip, its bytes, its label) in an order."""
    with Progress(f"export {what}", len(order), "chips") as progress:
        for start in range(0, len(order), _SLICE):
            part = order[start : start + _SLICE]
            chips = rows.chips.take(pa.array(part)).to_pylist()
            for chip, label in zip(chips, rows.labels[part].tolist(), strict=True):
                yield chip, read_chip_bytes(folder.root, chip), label
                progress.advance()


def _count(rows: ChipRows) -> dict[str, Any]:
    return {
        "written": len(rows.labels),
        "repeated": rows.repeated,
        "unlabelled": rows.unlabelled,
    }
