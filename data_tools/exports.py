"""The clean set handed on: folders of links, a list, RecordIO, WebDataset shards or Parquet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from data_tools.export_places import build_folder, check_new_file, check_outside, link_chip
from data_tools.export_rows import find_labels, iter_batches, read_identities
from data_tools.export_shards import write_records, write_tars
from data_tools.log_clean import refresh_clean
from data_tools.log_receipts import check_finished
from data_tools.sets import SetFolder, open_set, record_stage
from facerec.checks import check_one_of
from facerec.data.manifest import MANIFEST_SCHEMA
from facerec.io import atomic_path, sha256_file
from facerec.progress import Progress

KINDS = ("auto", "folder", "list", "parquet", "recordio", "webdataset")
LIST_SUFFIXES = (".csv", ".parquet")
UNLABELLED_FOLDER = "_unlabelled"
_LIST_COLUMNS = ("path", "identity", "split")


def export_set(
    out: Path, destination: Path, kind: str = "auto", *, seed: int = 0
) -> dict[str, Any]:
    """Write the clean set to a new place outside the set folder, all or nothing.

    Labels number the identities from 0 in the order of their text.

    Args:
        out: a set folder that was cleaned.
        destination: new (a folder may exist when it is empty).
        kind: "folder": a folder an identity with hard links to the chips (copies on another disk);
            "list": a .csv or .parquet file with path (relative to the source's root), identity
            and split; "parquet": all columns of the manifest and `label`, int64, -1 for nobody;
            "recordio": a folder with train.rec, train.idx, property and labels.csv; "webdataset":
            a folder of shuffled .tar shards and labels.csv; "auto": list or folder, by the name.
        seed: of the order of a webdataset.

    Returns:
        kind, rows and identities (of the clean set), files, written (rows, or chips), repeated
        (rows left out because their identity has the very chip already), unlabelled (rows left
        out because the kind has no place for nobody), and sha256, by file, of what was written
        ("folder": of the clean set alone, whose chips are named by their pictures' hashes).

    Raises:
        InputError: the set was not cleaned or is in use, something lies at the destination, or it
            lies in the set.
    """
    check_one_of(kind, "export kind", KINDS)
    if kind == "auto":
        kind = "list" if destination.suffix.lower() in LIST_SUFFIXES else "folder"
    folder = open_set(out)
    check_outside(folder, destination)
    began = time.monotonic()
    with folder.lock("export"):
        check_finished(folder)
        refresh_clean(folder)
        names = read_identities(folder.clean)
        rows = pq.read_metadata(folder.clean).num_rows
        written = _write(kind, folder, destination, names, seed)
        figures = {
            "kind": kind,
            "rows": rows,
            "identities": len(names),
            **written,
            "sha256": {"clean": sha256_file(folder.clean), **_hash_files(kind, destination)},
        }
        record_stage(
            folder,
            "export",
            time.monotonic() - began,
            count=rows,
            unit="rows",
            destination=str(destination.resolve()),
        )
    return figures


def name_folder(identity: str) -> str:
    """Return a folder name for an identity: no separator, never "." or "..", one to one."""
    if not identity:
        return UNLABELLED_FOLDER
    name = quote(identity, safe=" !#$&'()+,;=@[]^`{}~", encoding="utf-8")
    if name[0] in "._":
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


def _write(
    kind: str, folder: SetFolder, destination: Path, names: pa.Array, seed: int
) -> dict[str, Any]:
    if kind == "list":
        return _write_list(folder, destination)
    if kind == "parquet":
        return _write_parquet(folder, destination, names)
    if kind == "recordio":
        return write_records(folder, destination, names)
    if kind == "webdataset":
        return write_tars(folder, destination, names, seed)
    return _write_folder(folder, destination)


def _hash_files(kind: str, destination: Path) -> dict[str, str]:
    if kind == "folder":
        return {}
    if destination.is_file():
        return {destination.name: sha256_file(destination)}
    return {file.name: sha256_file(file) for file in sorted(destination.iterdir())}


def _write_list(folder: SetFolder, destination: Path) -> dict[str, Any]:
    check_new_file(destination, LIST_SUFFIXES)
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in _LIST_COLUMNS])
    rows = 0
    with atomic_path(destination) as temporary:
        csv = destination.suffix.lower() == ".csv"
        make = pcsv.CSVWriter if csv else pq.ParquetWriter
        with make(temporary, schema) as writer:
            for batch in iter_batches(folder.clean, list(_LIST_COLUMNS)):
                table = pa.Table.from_batches([batch]).select(_LIST_COLUMNS)
                writer.write_table(table.cast(schema))
                rows += batch.num_rows
    return {"written": rows, "files": 1, "repeated": 0, "unlabelled": 0}


def _write_parquet(folder: SetFolder, destination: Path, names: pa.Array) -> dict[str, Any]:
    check_new_file(destination, (".parquet",))
    plain = MANIFEST_SCHEMA.remove_metadata()  # `label` makes it another table than a manifest
    schema = plain.append(pa.field("label", pa.int64()))
    rows = 0
    with (
        atomic_path(destination) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in iter_batches(folder.clean):
            labels = find_labels(batch["identity"], names)
            table = pa.Table.from_batches([batch]).append_column("label", pa.array(labels))
            writer.write_table(table.cast(schema))
            rows += batch.num_rows
    return {"written": rows, "files": 1, "repeated": 0, "unlabelled": 0}


def _write_folder(folder: SetFolder, destination: Path) -> dict[str, Any]:
    """Build the tree beside the destination and rename it into place."""
    files = repeated = 0
    total = pq.read_metadata(folder.clean).num_rows
    with (
        build_folder(destination) as made,
        Progress("export folder", total, "chips") as progress,
    ):
        for batch in iter_batches(folder.clean, ["chip", "identity"]):
            chips, identities = batch["chip"].to_pylist(), batch["identity"].to_pylist()
            for chip, identity in zip(chips, identities, strict=True):
                place = made / name_folder(identity) / Path(chip).name
                progress.advance()
                if place.exists():
                    repeated += 1
                    continue
                place.parent.mkdir(exist_ok=True)
                link_chip(folder.root / chip, place)
                files += 1
    return {"written": files, "files": files, "repeated": repeated, "unlabelled": 0}
