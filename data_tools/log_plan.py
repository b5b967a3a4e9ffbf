"""What an erasure has to remove from a set folder, found before anything is touched."""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.decisions import Log, read_log
from data_tools.log_receipts import PLAN_NAME, RECEIPTS_NAME, is_erased
from data_tools.log_scrub import Person, find_touched
from data_tools.log_state import locate_rows
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.data.embedding_cache import CACHE_NAME, EmbeddingCache
from facerec.io import atomic_path, read_json

DERIVED = ("graph*", "hash*", "overlap*", "refine*", "reject*", "report*", "review*", "unlabelled*")
"""Entries of a set folder that are made from it and may show anybody: deleted, made again."""
STATE = frozenset(
    (
        "set.json",
        "manifest.parquet",
        "clean.parquet",
        "decisions.jsonl",
        "decisions",
        "scores",
        "chips",
        "embeddings",
        "parts",
        ".lock",
        RECEIPTS_NAME,
        PLAN_NAME,
    )
)
"""Entries that an erasure goes through and leaves without the person."""

_TABLES = ("scores", "parts")
_KEY = b"facerec.erasure"
_COLUMNS = ["path", "face", "identity", "image_id", "chip"]


@dataclass(frozen=True)
class Plan:
    """An erasure, decided on.

    Attributes:
        id: 16 hex digits.
        identity: the name.
        date: of the beginning, ISO 8601, UTC.
        removed: counts of what goes, for the user and the receipt.
        rows: the person's rows of the manifest: path, face, identity, image_id, chip, shared
            (another person's row has the same chip) and alone (no other's row has the picture).
    """

    id: str
    identity: str
    date: str
    removed: dict[str, Any]
    rows: pa.Table

    @property
    def person(self) -> Person:
        """Who goes."""
        alone = self.rows["image_id"].filter(self.rows["alone"])
        return Person(self.identity, self.rows.select(["path", "face"]), pc.unique(alone))

    @property
    def chips(self) -> list[str]:
        """The chip files that no other person's row has."""
        return _find_chips(self.rows)


def make_plan(folder: SetFolder, identity: str) -> Plan:
    """Return the plan to erase a person.

    Raises:
        InputError: nobody has that name in the manifest or in any decision.
    """
    manifest = pq.read_table(folder.manifest, columns=_COLUMNS, partitioning=None)
    log = read_log(folder.log)
    given = pc.equal(manifest["identity"], identity).to_numpy()
    mine = given | _find_decided(log, manifest, identity)
    if not mine.any():
        again = "; this name was erased before" if is_erased(folder, identity) else ""
        raise InputError(f"{folder.root} has nobody called {identity!r}{again}; check the name")
    rows, others = manifest.filter(pa.array(mine)), manifest.filter(pa.array(~mine))
    shared = pc.and_(
        pc.is_in(rows["chip"], value_set=others["chip"]), pc.not_equal(rows["chip"], "")
    )
    alone = pc.invert(pc.is_in(rows["image_id"], value_set=others["image_id"]))
    rows = rows.append_column("shared", shared).append_column("alone", alone)
    chips = _find_chips(rows)
    found = {
        "rows": rows.num_rows,
        "as_ingested": int(given.sum()),
        "decided": int((mine & ~given).sum()),
        "chips": len(chips),
        "shared_chips": len(pc.unique(rows["chip"].filter(rows["shared"]))),
        "embeddings": sum(
            int(cache.has(embedding_ids(chips)).sum()) for cache in open_caches(folder)
        ),
    }
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    plan = Plan(secrets.token_hex(8), identity, date, found, rows)
    found.update(_count_tables(folder, log, plan.person))
    deleted = [path.relative_to(folder.root).as_posix() for path in find_derived(folder)]
    return Plan(plan.id, identity, date, {**found, "deleted": deleted}, rows)


def write_plan(folder: SetFolder, plan: Plan) -> None:
    """Write a plan into its set, whole or not at all."""
    head = {name: value for name, value in vars(plan).items() if name != "rows"}
    table = plan.rows.replace_schema_metadata({_KEY: json.dumps(head).encode()})
    with atomic_path(folder.root / PLAN_NAME) as temporary:
        pq.write_table(table, temporary)


def read_plan(folder: SetFolder) -> Plan | None:
    """Return the plan of an erasure that was not finished, None when there is none."""
    path = folder.root / PLAN_NAME
    if not path.is_file():
        return None
    rows = pq.read_table(path, partitioning=None)
    return Plan(**json.loads(rows.schema.metadata[_KEY]), rows=rows)


def embedding_ids(chips: list[str]) -> list[str]:
    """Return the ids under which chips are embedded."""
    return [PurePosixPath(chip).stem for chip in chips]


def find_tables(folder: SetFolder) -> list[Path]:
    """Return the tables of scores and parts; rounds and manifest are treated apart."""
    found = [path for name in _TABLES for path in sorted((folder.root / name).rglob("*.parquet"))]
    return [path for path in found if not _is_hidden(path)]


def open_caches(folder: SetFolder) -> Iterator[EmbeddingCache]:
    """Yield the embedding cache of every model."""
    for card in sorted(folder.embeddings.glob(f"*/{CACHE_NAME}")):
        found = read_json(card)
        yield EmbeddingCache(folder.embeddings, found["model_sha256"], found["dim"])


def find_derived(folder: SetFolder) -> list[Path]:
    """Return what is deleted whole: entries that are not the set's state, and leftovers."""
    entries = [path for path in folder.root.iterdir() if path.name not in STATE]
    inside = [path for name in _TABLES for path in (folder.root / name).rglob("*")]
    inside += folder.log.with_suffix("").glob("*")
    entries += [p for p in inside if p.is_file() and (p.suffix != ".parquet" or _is_hidden(p))]
    return sorted(entries)


def find_unknown(folder: SetFolder) -> list[str]:
    """Return entries that are neither the set's state nor known to be made from it."""
    found = []
    for path in find_derived(folder):
        place = path.relative_to(folder.root)
        derived = any(PurePosixPath(place.parts[0]).match(pattern) for pattern in DERIVED)
        if not derived and not _is_hidden(path):
            found.append(place.as_posix())
    return found


def _find_decided(log: Log, manifest: pa.Table, identity: str) -> NDArray[np.bool_]:
    """Return which rows a decision ever gave to, or took from, an identity."""
    where = (pc.field("from") == identity) | (pc.field("to") == identity)
    tables = [entry.read(["path", "face"], where) for entry in log.rounds]
    if not sum(table.num_rows for table in tables):
        return np.zeros(manifest.num_rows, bool)
    return locate_rows(manifest, pa.concat_tables(tables)) >= 0


def _find_chips(rows: pa.Table) -> list[str]:
    own = rows.filter(pc.and_(pc.invert(rows["shared"]), pc.not_equal(rows["chip"], "")))
    chips: list[str] = pc.unique(own["chip"]).to_pylist()
    return chips


def _count_tables(folder: SetFolder, log: Log, person: Person) -> dict[str, int]:
    rounds = [find_touched(entry.file, person) for entry in log.rounds]
    scores = [find_touched(path, person) for path in find_tables(folder)]
    return {
        "decisions": sum(touched.rows for touched in rounds),
        "scores": sum(touched.rows for touched in scores),
        "mentions": sum(touched.mentions for touched in (*rounds, *scores)),
    }


def _is_hidden(path: Path) -> bool:
    """Return whether a file is a killed writer's: temporary names begin with a dot."""
    return path.name.startswith(".")
