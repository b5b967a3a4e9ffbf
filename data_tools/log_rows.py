"""One decision: its columns in a round's file, and the rules that every row keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from facerec.checks import nearest

ACTIONS = ("keep", "drop", "relabel", "merge", "split", "duplicate", "overlap", "restore")
OUT_ACTIONS = frozenset({"drop", "duplicate", "overlap"})
"""Actions that take a row out of the clean set: its `to` is null."""
REVIEW = "review"
"""The check of rounds that hold what people decided."""

DECISION_SCHEMA: pa.Schema = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("face", pa.int32()),
        ("round", pa.int32()),
        ("check", pa.string()),
        ("action", pa.string()),
        ("from", pa.string()),  # null = was not in the clean set
        ("to", pa.string()),  # null = is not in the clean set
        ("score", pa.float64()),  # null = the check had none
        ("threshold", pa.float64()),
        ("model", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Columns, order and types of a round's file; `Decision` says what they mean."""

_NULLABLE = frozenset({"from", "to", "score", "threshold"})
RENAMED = {"from": "from_identity", "to": "to_identity"}
"""Columns that `Decision` calls otherwise: `from` is a word of Python."""


@dataclass(frozen=True)
class Decision:
    """One row's fate in one round.

    Attributes:
        image_id: first 16 hex digits of the picture's sha256.
        path: of the picture in its source; with `face` the key of the manifest's row.
        face: number of the face in the picture.
        round: from 1.
        check: what decided.
        action: one of `ACTIONS`.
        from_identity: before; None for a row that was not in the clean set before.
        to_identity: after; None for drop, duplicate and overlap.
        score: the check's score, None where it had none.
        threshold: what the score was held against, None where nothing was.
        model: hash of the model that scored, "" for none.
        reason: a short phrase.
    """

    image_id: str
    path: str
    face: int
    round: int
    check: str
    action: str
    from_identity: str | None
    to_identity: str | None
    score: float | None
    threshold: float | None
    model: str
    reason: str

    @property
    def key(self) -> tuple[str, int]:
        """(path, face): which manifest row it is about."""
        return (self.path, self.face)


def build_decisions(decisions: Iterable[Decision]) -> pa.Table:
    """Return decisions as a table of `DECISION_SCHEMA`."""
    rows = list(decisions)
    columns = [[getattr(row, RENAMED.get(n, n)) for row in rows] for n in DECISION_SCHEMA.names]
    return pa.table(columns, schema=DECISION_SCHEMA)


def check_decisions(table: pa.Table, number: int) -> pa.Table:
    """Return decisions as they are written, with the schema's types and the round's number.

    Raises:
        ValueError: a column or a value is not what `DECISION_SCHEMA` and `Decision` say.
    """
    if "round" not in table.column_names:
        table = table.append_column("round", pa.array(np.zeros(table.num_rows, np.int32)))
    for name in set(table.column_names) ^ set(DECISION_SCHEMA.names):
        what = "unknown" if name in table.column_names else "missing"
        raise ValueError(f"decisions have the {what} column {name!r}")
    table = table.select(DECISION_SCHEMA.names).cast(DECISION_SCHEMA)
    if not set(pc.unique(table["round"]).to_pylist()) <= {0, number}:
        raise ValueError(f"decisions of another round than {number}")
    for name in table.column_names:
        if name not in _NULLABLE and table[name].null_count:
            raise ValueError(f"{name} of a decision must not be null")
    for action in pc.unique(table["action"]).to_pylist():
        if action not in ACTIONS:
            raise ValueError(f"unknown action {action!r}{nearest(action, ACTIONS)}")
    out = pc.is_in(table["action"], value_set=pa.array(sorted(OUT_ACTIONS)))
    if not pc.all(pc.equal(out, pc.is_null(table["to"])), min_count=0).as_py():
        raise ValueError("`to` must be null for drop, duplicate and overlap, and only for them")
    values = {"round": pa.array(np.full(table.num_rows, number, np.int32))}
    for name in ("score", "threshold"):
        values[name] = pc.if_else(pc.is_nan(table[name]), None, table[name])
    for name, column in values.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, DECISION_SCHEMA.field(place), column)
    return table


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how many rows have each value, by value."""
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}
    return dict(sorted(counts.items()))
