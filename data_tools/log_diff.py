"""How the clean set differs between two rounds: counted by what was done, listed row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.decisions import DECISION_SCHEMA, OUT_ACTIONS, Round, read_log
from data_tools.log_clean import read_state
from data_tools.log_state import Fates, find_changes, find_fates
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError
from facerec.io import atomic_path

LIST_SUFFIXES = (".csv", ".json", ".parquet")
_MOVES = ("relabel", "merge", "split")
_BY = ("check", "action", "score", "threshold", "reason")


def diff_rounds(out: Path, first: int, second: int, listing: Path | None = None) -> dict[str, Any]:
    """Compare the clean set as it was right after two rounds; 0 is the set as ingested.

    A round that was undone later can be compared too: that shows what the undo took back.

    Args:
        out: a set folder.
        first: number of a round, or 0.
        second: likewise; it may be the earlier one.
        listing: a new .csv, .json or .parquet file for the rows that differ.

    Returns:
        rows (in the manifest), before and after (rows in the clean set), changed, and changes: a
        list of {action, check, rows}, most first. The action is that of the decision that settled
        the row where it says what happened, else drop, restore or relabel.

    Raises:
        InputError: no set, no such round, a list of another kind or that exists.
    """
    if listing is not None:
        _check_listing(listing)
    folder = open_set(out)
    log = read_log(folder.log)
    earlier, later = log.rounds_at(first), log.rounds_at(second)
    manifest, before = read_state(folder, earlier)
    after = find_fates(manifest, [entry.read(["path", "face", "to"]) for entry in later])
    table = _build_table(manifest, before, after, later)
    if listing is not None:
        _write_listing(_add_ids(folder, table), listing)
    grouped = table.group_by(["action", "check"]).aggregate([([], "count_all")])
    changes = [
        {"action": row["action"], "check": row["check"], "rows": row["count_all"]}
        for row in grouped.to_pylist()
    ]
    return {
        "first": first,
        "second": second,
        "rows": manifest.num_rows,
        "before": int(np.count_nonzero(before.codes >= 0)),
        "after": int(np.count_nonzero(after.codes >= 0)),
        "changed": table.num_rows,
        "changes": sorted(changes, key=lambda c: (-c["rows"], c["action"], c["check"])),
    }


def _build_table(manifest: pa.Table, before: Fates, after: Fates, rounds: list[Round]) -> pa.Table:
    """Return the rows that differ with the decision that settled each in the second state."""
    rows = find_changes(before, after)
    settled = _take_decisions(after.decided[rows], rounds)
    actions = _name_changes(settled["action"], before.codes[rows] < 0, after.codes[rows] < 0)
    picked = manifest.select(["path", "face"]).take(pa.array(rows))
    return pa.table(
        {
            "manifest_row": rows,
            "path": picked["path"],
            "face": picked["face"],
            "from": before.take_names(before.codes[rows]),
            "to": after.take_names(after.codes[rows]),
            "action": actions,
            "check": pc.fill_null(settled["check"], ""),
            "score": settled["score"],
            "threshold": settled["threshold"],
            "reason": pc.fill_null(settled["reason"], ""),
        }
    )


def _take_decisions(decided: NDArray[np.int64], rounds: list[Round]) -> pa.Table:
    """Return decisions by their number over all rounds, nulls for -1; one round in memory."""
    fields = [DECISION_SCHEMA.field(name) for name in _BY]
    undecided = np.flatnonzero(decided < 0)
    pieces = [pa.table([pa.nulls(len(undecided), f.type) for f in fields], pa.schema(fields))]
    places = [undecided]
    start = 0
    for entry in rounds:
        inside = np.flatnonzero((decided >= start) & (decided < start + entry.rows))
        if len(inside):
            pieces.append(entry.read(_BY).take(pa.array(decided[inside] - start)))
            places.append(inside)
        start += entry.rows
    return pa.concat_tables(pieces).take(pa.array(np.argsort(np.concatenate(places))))


def _name_changes(
    actions: pa.ChunkedArray, was_out: NDArray[np.bool_], is_out: NDArray[np.bool_]
) -> pa.ChunkedArray:
    """Return what happened to each row: the deciding action, unless it says something else."""
    leaves = pc.if_else(pc.is_in(actions, value_set=pa.array(sorted(OUT_ACTIONS))), actions, "drop")
    moves = pc.if_else(pc.is_in(actions, value_set=pa.array(_MOVES)), actions, "relabel")
    stays = pc.if_else(pa.array(is_out), leaves, moves)
    return pc.if_else(pa.array(was_out), "restore", stays)


def _add_ids(folder: SetFolder, table: pa.Table) -> pa.Table:
    ids = pq.read_table(folder.manifest, columns=["image_id"], partitioning=None)["image_id"]
    table = table.add_column(0, "image_id", ids.take(table["manifest_row"]))
    return table.drop_columns(["manifest_row"])


def _check_listing(path: Path) -> None:
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise InputError(f"the list of rows must end in {', '.join(LIST_SUFFIXES)}, got {path}")
    if path.exists():
        raise InputError(f"{path} exists; give a new file name")


def _write_listing(table: pa.Table, path: Path) -> None:
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix == ".csv":
            pcsv.write_csv(table, temporary)
        elif suffix == ".parquet":
            pq.write_table(table, temporary, compression="zstd")
        else:
            with temporary.open("w", encoding="utf-8") as file:
                file.write("[")
                for number, batch in enumerate(table.to_batches(max_chunksize=10_000)):
                    rows = [json.dumps(row, ensure_ascii=False) for row in batch.to_pylist()]
                    file.write(("," if number else "") + "\n" + ",\n".join(rows))
                file.write("\n]\n")
