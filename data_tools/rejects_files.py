"""What comes of routed rejects: their table, a folder of strangers, a round of new identities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.centres import Array, Labels
from data_tools.decisions import DECISION_SCHEMA, REVIEW, Log, append_round, read_log
from data_tools.export_places import build_folder, link_chip
from data_tools.log_clean import write_clean
from data_tools.log_receipts import find_erased
from data_tools.rejects import DISCARD, NEW, REASONS, ROUTES, UNLABELLED, Routes
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.io import atomic_path, sha256_file
from facerec.progress import Progress

TABLE_NAME = "rejects.parquet"
_KEPT = ["image_id", "path", "face", "identity", "chip"]
_NEW = re.compile(r"new-(\d{5,})")
_BATCH = 1 << 16


@dataclass(frozen=True)
class Rejects:
    """The rows that routes speak of.

    Attributes:
        manifest: all rows.
        rows: int64 (n,), numbers in the manifest of the rows with a chip, of which the routes are.
        names: identities by number.
        codes: int32 (rows of the manifest,), who each row is now, -1 for out.
        scores: columns of the round's score table, float64 (n,).
    """

    manifest: pa.Table
    rows: Labels
    names: pa.Array
    codes: NDArray[np.int32]
    scores: dict[str, Array]


def check_free(destination: Path) -> None:
    """Raise InputError when something lies at a folder's place, before work is spent on it."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError(f"{destination} exists and is not empty; give a new folder")


def write_rejects(folder: SetFolder, rejects: Rejects, routes: Routes) -> pa.Table:
    """Write `rejects.parquet`, all or nothing, and return it.

    Columns: image_id, path, face, identity (as given), chip, now (who the row is in the clean set,
    "" without a name, null for out), route, reason, score, nearest (an identity), group (of those
    that are one person; null for none), threshold (what the score was held against), and the
    round's own, other, p_own, p_other, p_nobody and quality where it has them. Rows without a
    usable face are discarded for the manifest's reason.
    """
    manifest = rejects.manifest
    faceless = np.flatnonzero(pc.equal(manifest["chip"], "").to_numpy())
    places, empty = np.concatenate([rejects.rows[routes.rows], faceless]), len(faceless)
    route = np.append(routes.route, np.full(empty, DISCARD, np.int8))
    reasons = pa.array(REASONS).take(pa.array(routes.reason))
    given = manifest["reason"].take(pa.array(faceless)).combine_chunks()
    nobody = np.full(empty, -1, np.int64)
    group = np.append(routes.cluster, nobody)
    threshold = np.where(routes.cluster < 0, routes.disjointness.bound, np.nan)
    columns = {
        "now": _name(rejects.names, rejects.codes[places].astype(np.int64)),
        "route": pa.array(ROUTES).take(pa.array(route)),
        "reason": pa.concat_arrays([reasons, given]),
        "score": _pad(routes.score, empty),
        "threshold": _pad(threshold, empty),
        "nearest": _name(rejects.names, np.append(routes.identity, nobody)),
        "group": pa.array(group, mask=group < 0),
        **{name: _pad(values[routes.rows], empty) for name, values in rejects.scores.items()},
    }
    table = manifest.select(_KEPT).take(pa.array(places))
    for name, values in columns.items():
        table = table.append_column(name, values)
    table = table.take(pa.array(np.argsort(places, kind="stable")))
    with atomic_path(folder.root / TABLE_NAME) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return table


def link_chips(folder: SetFolder, table: pa.Table, destination: Path) -> int:
    """Make a folder of hard links to the chips that pass for strangers; return how many.

    All or nothing; copies where the disk is another one. They lie in folders by the first two
    digits of their names. Where none passes nothing is made.

    Raises:
        InputError: something lies at the destination, or a chip is missing.
    """
    chips = table["chip"].filter(pc.equal(table["route"], ROUTES[UNLABELLED]))
    if not len(chips):
        return 0
    with build_folder(destination) as made, Progress("link", len(chips), "chips") as progress:
        for chip in _iter_texts(chips):
            place = made / PurePosixPath(chip).parent.name / PurePosixPath(chip).name
            place.parent.mkdir(exist_ok=True)
            link_chip(folder.root / chip, place)
            progress.advance()
    return len(chips)


def log_identities(folder: SetFolder, log: Log, table: pa.Table, model: str) -> int:
    """Log the new identities of a table as a round, write the clean set, return the round's number.

    The round counts as decided by people: whoever asks for it accepts what the table proposes, and
    automatic rounds leave these rows alone until it is undone.

    Args:
        folder: a set, locked.
        log: its log.
        table: of `write_rejects`, with new identities.
        model: hash of the model that scored.
    """
    rows = table.filter(pc.equal(table["route"], ROUTES[NEW]))
    groups, first = np.unique(rows["group"].to_numpy(), return_inverse=True)
    names = _find_names(folder, log, len(groups))
    count = rows.num_rows
    decisions = pa.table(
        {
            "image_id": rows["image_id"],
            "path": rows["path"],
            "face": rows["face"],
            "check": [REVIEW] * count,
            "action": pc.if_else(pc.is_null(rows["now"]), "restore", "relabel"),
            "from": rows["now"],
            "to": pa.array(names).take(pa.array(first)),
            "score": rows["score"],
            "threshold": rows["threshold"],
            "model": [model] * count,
            "reason": rows["reason"],
        }
    )
    decisions = decisions.append_column("round", pa.array(np.zeros(count, np.int32)))
    digest = sha256_file(folder.root / TABLE_NAME)
    summary = {
        "check": REVIEW,
        "settings": {"check": REVIEW, "verdicts_sha256": digest, "model_sha256": model},
        "verdicts": {"relabel": count},
        "unjudged": 0,
        "skipped": 0,
        "unknown": [],
        "actions_changed": count,
        "named": [names[0], names[-1]],
    }
    number = append_round(folder.log, decisions.select(DECISION_SCHEMA.names), summary)
    write_clean(folder, read_log(folder.log))
    return number


def describe_routes(table: pa.Table, routes: Routes) -> dict[str, Any]:
    """Return the figures of routed rejects: plain JSON values."""
    counts = {
        name: {
            entry["values"]: entry["counts"] for entry in pc.value_counts(table[name]).to_pylist()
        }
        for name in ("route", "reason")
    }
    levels = routes.levels
    return {
        "routes": {name: counts["route"].get(name, 0) for name in ROUTES},
        "reasons": dict(sorted(counts["reason"].items())),
        "new_identities": routes.new,
        "groups_alike": int(np.count_nonzero(routes.alike >= 0)),
        "groups_loose": int(np.count_nonzero(routes.alike < 0)),
        "disjointness": asdict(routes.disjointness),
        "single_join": None if levels is None else _finite(float(levels.join[0, 0])),
    }


def _find_names(folder: SetFolder, log: Log, count: int) -> list[str]:
    """Return names that nobody in the set has or had, also in rounds that were taken back."""
    used = [pq.read_table(folder.manifest, columns=["identity"], partitioning=None)["identity"]]
    used += [entry.read(["to"])["to"] for entry in log.rounds]
    texts = pc.unique(pa.chunked_array([c for column in used for c in column.chunks], pa.string()))
    held = [_NEW.fullmatch(name or "") for name in _iter_texts(_pick(texts, "new-"))]
    last = max((int(match[1]) for match in held if match), default=0)
    names: list[str] = []
    while len(names) < count:
        wanted = [f"new-{last + 1 + place:05d}" for place in range(count - len(names))]
        erased = find_erased(folder, wanted)
        names += [name for name in wanted if name not in erased]
        last += len(wanted)
    return names


def _pick(texts: pa.Array, start: str) -> pa.Array:
    return texts.filter(pc.fill_null(pc.starts_with(texts, start), False))


def _iter_texts(texts: pa.Array | pa.ChunkedArray) -> Iterator[str]:
    for first in range(0, len(texts), _BATCH):
        yield from texts.slice(first, _BATCH).to_pylist()


def _name(names: pa.Array, codes: Labels) -> pa.Array:
    return names.take(pa.array(codes, mask=codes < 0)).cast(pa.string())


def _pad(values: Array, count: int) -> pa.Array:
    return pa.array(np.append(values, np.full(count, np.nan)), pa.float64(), from_pandas=True)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
