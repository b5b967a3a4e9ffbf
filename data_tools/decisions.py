"""The decision log: append-only rounds, crash-safe, replayed on the manifest to give the clean set.

`decisions.jsonl` holds events: a round committed, with the sha256 of its file; an undo; an erasure.
A round's decisions lie in an immutable Parquet file of their own, `decisions/round-0001.parquet`,
written before the event and of no effect without it. Undone rounds stay, and numbers are never used
again. Only an erasure writes a round anew, without the rows of the person who is erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.log_events import append_event, read_events
from data_tools.log_rows import (
    ACTIONS,
    DECISION_SCHEMA,
    OUT_ACTIONS,
    RENAMED,
    REVIEW,
    Decision,
    build_decisions,
    check_decisions,
    count_values,
)
from data_tools.log_state import apply_fates, find_fates, find_last
from data_tools.sets import clear_leftovers
from facerec.checks import InputError
from facerec.io import atomic_path, sha256_file

__all__ = [
    "ACTIONS",
    "DECISION_SCHEMA",
    "OUT_ACTIONS",
    "REVIEW",
    "Decision",
    "Log",
    "Round",
    "append_round",
    "build_decisions",
    "find_dropped",
    "find_pinned",
    "read_log",
    "replay",
    "undo_from",
    "undo_last",
]


@dataclass(eq=False)
class Round:
    """A committed round of the log.

    Attributes:
        number: from 1; numbers are never used again.
        file: the Parquet file of its decisions.
        sha256: of that file.
        rows: decisions in it; in the first round all rows of the manifest, then those that changed.
        summary: what the round recorded of itself.
        counts: rows by check and by action: {"check": {name: rows}, "action": {name: rows}}.
        before: numbers of the rounds that counted when it was committed.
        undone: whether a later event took it back.
    """

    number: int
    file: Path
    sha256: str
    rows: int
    summary: dict[str, Any]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    before: tuple[int, ...] = ()
    undone: bool = False
    _verified: bool = field(default=False, repr=False)

    def read(self, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Return the decisions as a table.

        Args:
            columns: of `DECISION_SCHEMA`, all when None.
            where: a pyarrow expression that picks rows; only what may fit it is read.

        Raises:
            InputError: the file is missing, or is not the one that was committed.
        """
        self.verify()
        names = None if columns is None else list(columns)
        return pq.read_table(self.file, columns=names, filters=where, partitioning=None)

    def verify(self) -> None:
        """Hold the file against its hash, once.

        Raises:
            InputError: it is missing or another one.
        """
        if self._verified:
            return
        if not self.file.is_file():
            raise InputError(
                f"{self.file} of round {self.number} is missing; restore it from a copy"
            )
        if (found := sha256_file(self.file)) != self.sha256:
            raise InputError(
                f"{self.file} is damaged or swapped: its sha256 is {found[:16]}…, round "
                f"{self.number} was logged with {self.sha256[:16]}…; restore it from a copy"
            )
        self._verified = True

    @property
    def decisions(self) -> list[Decision]:
        """The decisions as objects: for small rounds; `read` for any."""
        rows = self.read().rename_columns([RENAMED.get(n, n) for n in DECISION_SCHEMA.names])
        return [Decision(**row) for row in rows.to_pylist()]


@dataclass
class Log:
    """What a log says.

    Attributes:
        rounds: committed rounds in order, undone ones included.
        digest: sha256 of the last event, which names the log's whole state; "" when empty.
        erasures: ids of the erasures that have gone through the rounds.
    """

    rounds: list[Round] = field(default_factory=list)
    digest: str = ""
    erasures: list[str] = field(default_factory=list)

    @property
    def active(self) -> list[Round]:
        """The rounds that count."""
        return [entry for entry in self.rounds if not entry.undone]

    @property
    def next_number(self) -> int:
        """The number of the round to come."""
        return max((entry.number for entry in self.rounds), default=0) + 1

    def find_round(self, number: int) -> Round:
        """Return a round, undone or not.

        Raises:
            InputError: there is none of that number.
        """
        for entry in self.rounds:
            if entry.number == number:
                return entry
        known = ", ".join(str(entry.number) for entry in self.rounds) or "none"
        raise InputError(f"the log has no round {number}; its rounds: {known}")

    def rounds_at(self, number: int) -> list[Round]:
        """Return the rounds that counted when round `number` had been committed; 0: none.

        Raises:
            InputError: there is no such round.
        """
        if number == 0:
            return []
        last = self.find_round(number)
        return [entry for entry in self.rounds if entry.number in (*last.before, number)]

    def tables(self, columns: Sequence[str] | None = None, where: Any = None) -> list[pa.Table]:
        """Return the decisions of the active rounds, a table a round: see `Round.read`."""
        return [entry.read(columns, where) for entry in self.active]

    def decisions(self) -> list[Decision]:
        """Return the decisions of all active rounds as objects: for small logs."""
        return [decision for entry in self.active for decision in entry.decisions]


def replay(
    manifest: pa.Table, decisions: Log | pa.Table | Iterable[pa.Table] | Iterable[Decision]
) -> pa.Table:
    """Return the manifest rows that are in the clean set, with the identities decided for them.

    The last decision a row wins. A row without a decision is kept when it has a chip. The manifest
    is not changed.

    Args:
        manifest: all rows.
        decisions: a log (its active rounds), a table, tables or decisions, in order.
    """
    return apply_fates(manifest, find_fates(manifest, _read_columns(decisions)))


def find_dropped(
    decisions: Log | pa.Table | Iterable[pa.Table] | Iterable[Decision],
) -> set[tuple[str, int]]:
    """Return the keys (path, face) of the rows whose last decision takes them out."""
    table = pa.concat_tables([_EMPTY, *_read_columns(decisions)])
    last = table.take(pa.array(find_last(table)))
    gone = last.filter(pc.is_null(last["to"]))
    return set(zip(gone["path"].to_pylist(), gone["face"].to_pylist(), strict=True))


def find_pinned(log: Log) -> pa.Table:
    """Return the rows that people have decided on, by the last verdict on each that stands.

    Automatic rounds must leave them as they are. `data_tools.log_state.locate_rows` finds them in
    a manifest.

    Returns:
        Columns path, face and identity (null = not in the clean set); each (path, face) once.
    """
    columns = ("path", "face", "to")
    reviewed = [entry for entry in log.active if REVIEW in entry.counts.get("check", {})]
    tables = [entry.read(columns, pc.field("check") == REVIEW) for entry in reviewed]
    table = pa.concat_tables([_EMPTY, *tables])
    return table.take(pa.array(find_last(table))).rename_columns(["path", "face", "identity"])


def append_round(
    path: Path, decisions: pa.Table | Sequence[Decision], summary: dict[str, Any]
) -> int:
    """Write a round to the log, durable on return, and return its number.

    Killed at any moment, either the whole round counts afterwards or none of it.

    Args:
        path: `decisions.jsonl`; the rounds lie beside it in `decisions/`.
        decisions: decisions, or a table with the columns of `DECISION_SCHEMA`. `round` may be left
            out or 0: it is set here. NaN in score or threshold means null.
        summary: plain JSON values that the round records of itself.

    Raises:
        InputError: the log is damaged.
        ValueError: a column or a value is not what `DECISION_SCHEMA` and `Decision` say.
    """
    number = read_log(path).next_number
    given = decisions if isinstance(decisions, pa.Table) else build_decisions(decisions)
    table = check_decisions(given, number)
    clear_leftovers(_rounds_folder(path))
    file = _rounds_folder(path) / f"round-{number:04d}.parquet"
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=_ROW_GROUP)
        sha256 = sha256_file(temporary)
    event = {
        "event": "round",
        "round": number,
        "file": file.name,
        "sha256": sha256,
        "rows": table.num_rows,
        "counts": {name: count_values(table[name]) for name in ("check", "action")},
        "summary": summary,
    }
    append_event(path, event)
    return number


def undo_last(path: Path) -> int:
    """Take the last active round back and return its number.

    Raises:
        InputError: no round is left to undo.
    """
    return undo_from(path)[0]


def undo_from(path: Path, number: int | None = None) -> list[int]:
    """Take round `number`, the last when None, and all later ones back; return them, last first.

    Raises:
        InputError: no round is left to undo, or there is none of that number or it was undone.
    """
    log = read_log(path)
    if not log.active:
        raise InputError(f"{path} has no round left to undo")
    first = log.active[-1].number if number is None else log.find_round(number).number
    if log.find_round(first).undone:
        raise InputError(f"round {first} was undone already; its decisions do not count")
    numbers = sorted((r.number for r in log.active if r.number >= first), reverse=True)
    append_event(path, {"event": "undo", "rounds": numbers})
    return numbers


def read_log(path: Path) -> Log:
    """Return what the log says; a missing file is an empty log, a torn end is ignored.

    Rounds are held against their hashes when they are read.

    Raises:
        InputError: a line is damaged, was changed, or is not an event of a log.
    """
    events = read_events(path)
    log = Log(digest=events.digest)
    for line, entry in enumerate(events.entries, start=1):
        try:
            _take_in(log, entry, _rounds_folder(path))
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path}, line {line} is no event of a decision log; restore the file from a copy"
            ) from None
    return log


_ROW_GROUP = 1 << 17
_EMPTY = DECISION_SCHEMA.empty_table().select(["path", "face", "to"])


def _rounds_folder(path: Path) -> Path:
    return path.with_suffix("")


def _take_in(log: Log, entry: dict[str, Any], folder: Path) -> None:
    if entry["event"] == "round":
        before = tuple(earlier.number for earlier in log.active)
        log.rounds.append(
            Round(
                entry["round"],
                folder / entry["file"],
                entry["sha256"],
                entry["rows"],
                entry["summary"],
                entry["counts"],
                before,
            )
        )
    elif entry["event"] == "undo":
        for done in log.rounds:
            done.undone = done.undone or done.number in entry["rounds"]
    elif entry["event"] == "erasure":
        log.erasures.append(entry["id"])
        for done in log.rounds:
            changed = entry["rounds"].get(str(done.number))
            if changed is not None:
                done.file = folder / changed["file"]
                done.sha256, done.rows = changed["sha256"], changed["rows"]
                done.counts = changed["counts"]
    else:
        raise KeyError(entry["event"])


def _read_columns(
    decisions: Log | pa.Table | Iterable[pa.Table] | Iterable[Decision],
) -> list[pa.Table]:
    names = ["path", "face", "to"]
    if isinstance(decisions, Log):
        return decisions.tables(names)
    if isinstance(decisions, pa.Table):
        return [decisions.select(names)]
    given = list(decisions)
    if given and isinstance(given[0], pa.Table):
        return [table.select(names) for table in given]
    return [build_decisions(given).select(names)]
