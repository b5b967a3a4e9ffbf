"""What leaves a gallery: copies of it, and its embeddings; the log says so before they do."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facerec.checks import InputError
from facerec.gallery.people import load_vectors, read_keys
from facerec.gallery.schema import FILE_NAME
from facerec.io import atomic_path, sync_folder

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery


def export_samples(gallery: Gallery, path: Path, purpose: str = "") -> int:
    """Write every sample with its plain embedding to a new Parquet file; return how many.

    Raises:
        InputError: the file is there already, or its name ends otherwise.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_new(path)
    if path.suffix != ".parquet":
        raise InputError(f"an export is a .parquet file, got {path.name}")
    store = gallery.store
    dim = store.model.dim
    columns = (
        "id, norm, quality, det_score, source_class, document_class, captured, print_scan, "
        "picture_sha256, source, created"
    )
    schema = pa.schema(
        [
            ("person", pa.string()),
            ("kind", pa.string()),
            ("embedding", pa.list_(pa.float32(), dim)),
            *((name, pa.float64()) for name in ("norm", "quality", "det_score")),
            ("sample", pa.int64()),
            *((name, pa.string()) for name in ("source_class", "document_class", "captured")),
            ("print_scan", pa.bool_()),
            *((name, pa.string()) for name in ("picture_sha256", "source", "created")),
        ],
        {"model_sha256": store.model.hash, "model": store.model.name},
    )
    gallery.log_export("samples", sum(person.samples for person in gallery.people()), purpose)
    count = 0
    with (
        store.snapshot() as connection,
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        temporary.chmod(0o600)
        owners = connection.execute(
            "SELECT id FROM people WHERE collection_id = ? ORDER BY name", (store.collection.id,)
        ).fetchall()
        for (owner,) in owners:
            person = read_keys(store, connection, owner)
            vectors = load_vectors(store, connection, person)[0]
            rows = connection.execute(
                f"SELECT {columns} FROM samples WHERE person_id = ? ORDER BY id", (owner,)
            ).fetchall()
            values = [
                [person.name] * len(rows),
                [person.kind] * len(rows),
                pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(vectors).ravel(), dim),
                *([row[column] for row in rows] for column in (1, 2, 3, 0, 4, 5, 6)),
                [bool(row[7]) for row in rows],
                *([row[column] for row in rows] for column in (8, 9, 10)),
            ]
            writer.write_table(pa.table(values, schema=schema))
            count += len(rows)
    return count


def back_up(gallery: Gallery, folder: Path, purpose: str = "") -> int:
    """Copy the gallery's file, all its collections, to a new folder; return its bytes.

    The copy is one state of the gallery, whoever writes meanwhile.

    Raises:
        InputError: the folder is there already and is not empty, or lies in the gallery.
    """
    if gallery.store.folder.resolve() in folder.resolve().parents:
        raise InputError(
            f"{folder} lies in the gallery, where an erasure would find what is erased in it; give "
            "a folder elsewhere"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already; give a new folder")
    gallery.log_export("backup", len(gallery.people()), purpose)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / FILE_NAME
    with atomic_path(target) as temporary:
        temporary.chmod(0o600)
        with (
            gallery.store.reading() as connection,
            contextlib.closing(sqlite3.connect(temporary)) as copy,
        ):
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    sync_folder(folder)
    return target.stat().st_size


def _check_new(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} exists already; give a new file")
