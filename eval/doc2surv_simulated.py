"""The layout that `facerec-eval simulate` writes (see `eval.simulate`), as documents and tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.doc2surv_layout import (
    DocumentFile,
    Layout,
    read_people,
    read_track_table,
)
from eval.simulate_cast import UNKNOWN
from facerec.checks import InputError
from facerec.io import read_json, sha256_file

RECORD = "simulation.json"


def is_simulation(root: Path) -> bool:
    """Return whether a folder holds a simulation."""
    return (root / RECORD).is_file()


def read_simulation(root: Path) -> Layout:
    """Return the documents and ground-truth tracks of a simulation.

    Raises:
        InputError: not a simulation, not a complete one, or a document is missing.
    """
    if not is_simulation(root):
        raise InputError(f"{root} must be a folder of facerec-eval simulate, with {RECORD}")
    record: Any = read_json(root / RECORD)
    if isinstance(record, dict) and record.get("complete") is False:
        raise InputError(f"the simulation in {root} is not complete; run facerec-eval simulate on")
    table, people_table = root / "tracks.parquet", root / "people.parquet"
    people = read_people(people_table)
    documents = []
    for person, known in sorted(people.items()):
        path = root / "documents" / person / "0.png"
        if known.get("role") == UNKNOWN:
            continue
        if not path.is_file():
            raise InputError(f"{path} is missing; run facerec-eval simulate again")
        documents.append(DocumentFile(path, f"{person}/0.png", person))
    tracks = read_track_table(table, root / "videos")
    note = (
        "Simulated: documents and videos were made from still pictures by facerec-eval simulate; "
        "no figure here is one of real cameras."
    )
    hashes = {one.name: sha256_file(one) for one in (table, people_table, root / RECORD)}
    found = Layout("simulated surveillance", tuple(documents), tuple(tracks), True, (note,), hashes)
    return found.place(people)
