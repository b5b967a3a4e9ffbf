"""The decision log: append-only rounds, crash-safe, replayed on the manifest to give the clean set.

`decisions.jsonl` holds one decision a line; a round ends with one line that says how many there
were, and counts only with it. What a killed writer left behind the last such line is ignored, and
cut off before the next round is written. An undo is a line too: nothing is ever rewritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from facerec.checks import InputError
from facerec.io import sync_folder

ACTIONS = ("keep", "drop", "restore")


@dataclass(frozen=True)
class Decision:
    """One row's fate in one round.

    Attributes:
        image_id: first 16 hex digits of the picture's sha256.
        path: of the picture in its source; with `face` the key of the manifest's row.
        face: number of the face in the picture.
        round: from 1.
        check: what decided.
        action: "keep", "drop" or "restore".
        from_identity: before; None for a row that was dropped before.
        to_identity: after; None for a dropped row.
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


@dataclass(frozen=True)
class Round:
    """A committed round of the log.

    Attributes:
        number: from 1; numbers are never used again.
        decisions: in the order written; rows that changed, in the first round all rows.
        summary: what the round recorded of itself.
        undone: whether a later line took it back.
    """

    number: int
    decisions: list[Decision]
    summary: dict[str, Any]
    undone: bool = False


@dataclass
class Log:
    """What a log file says.

    Attributes:
        rounds: committed rounds in order, undone ones included.
        committed_bytes: length of the file up to its last whole round or undo.
    """

    rounds: list[Round] = field(default_factory=list)
    committed_bytes: int = 0

    @property
    def active(self) -> list[Round]:
        """The rounds that count."""
        return [entry for entry in self.rounds if not entry.undone]

    @property
    def next_number(self) -> int:
        """The number of the round to come."""
        return max((entry.number for entry in self.rounds), default=0) + 1

    def decisions(self) -> list[Decision]:
        """Return the decisions of all active rounds in order."""
        return [decision for entry in self.active for decision in entry.decisions]


def replay(manifest: pa.Table, decisions: Iterable[Decision]) -> pa.Table:
    """Return the manifest rows that are kept, with the identities decided for them.

    A row without a decision is kept when it has a chip. The manifest is not changed.
    """
    last = {decision.key: decision for decision in decisions}
    kept: list[int] = []
    identities: list[str] = []
    columns = (manifest[name].to_pylist() for name in ("path", "face", "identity", "chip"))
    for row, (path, face, identity, chip) in enumerate(zip(*columns, strict=True)):
        decision = last.get((path, face))
        target = identity if decision is None else decision.to_identity
        if target is not None and chip:
            kept.append(row)
            identities.append(target)
    table = manifest.take(pa.array(kept, pa.int64()))
    place = table.schema.get_field_index("identity")
    return table.set_column(place, table.schema.field(place), pa.array(identities, pa.string()))


def find_dropped(decisions: Iterable[Decision]) -> set[tuple[str, int]]:
    """Return the keys (path, face) of the rows whose last decision drops them."""
    last = {decision.key: decision for decision in decisions}
    return {key for key, decision in last.items() if decision.to_identity is None}


def append_round(path: Path, decisions: Sequence[Decision], summary: dict[str, Any]) -> int:
    """Write a round to the log, durable on return, and return its number.

    Killed at any moment, either the whole round counts afterwards or none of it.
    """
    log = read_log(path)
    number = log.next_number
    lines = [_encode(decision) for decision in decisions if _check(decision, number)]
    lines.append({"event": "round", "round": number, "rows": len(decisions), "summary": summary})
    _append(path, log.committed_bytes, lines)
    return number


def undo_last(path: Path) -> int:
    """Take the last active round back and return its number.

    Raises:
        InputError: no round is left to undo.
    """
    log = read_log(path)
    if not log.active:
        raise InputError(f"{path} has no round left to undo")
    number = log.active[-1].number
    _append(path, log.committed_bytes, [{"event": "undo", "round": number}])
    return number


def read_log(path: Path) -> Log:
    """Return what the log says; a missing file is an empty log, a torn end is ignored.

    Raises:
        InputError: a line before a committed end is broken, or a round's count is wrong.
    """
    log = Log()
    if not path.exists():
        return log
    pending: list[Decision] = []
    broken = 0
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            entry = _decode(line)
            event = None if entry is None else entry.get("event")
            if entry is None:
                broken = broken or number
            elif event is None:
                pending.append(_build(entry, path, number))
            elif broken:
                raise InputError(f"{path}, line {broken} is damaged; restore the file from a copy")
            else:
                _commit(log, entry, pending, path, number)
                pending, log.committed_bytes = [], offset
    return log


def _commit(
    log: Log, entry: dict[str, Any], pending: list[Decision], path: Path, line: int
) -> None:
    number = entry["round"]
    if entry["event"] == "undo":
        log.rounds = [
            Round(r.number, r.decisions, r.summary, r.undone or r.number == number)
            for r in log.rounds
        ]
        return
    if entry["rows"] != len(pending):
        raise InputError(
            f"{path}, line {line}: round {number} has {len(pending)} decisions but says "
            f"{entry['rows']}; restore the file from a copy"
        )
    log.rounds.append(Round(number, pending, entry["summary"]))


def _append(path: Path, committed_bytes: int, entries: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(committed_bytes)
        for entry in entries:
            text = json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            file.write(text.encode("utf-8", "surrogateescape") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _check(decision: Decision, number: int) -> bool:
    assert decision.round == number, f"a decision of round {decision.round} in round {number}"
    assert decision.action in ACTIONS, f"unknown action {decision.action}"
    return True


def _encode(decision: Decision) -> dict[str, Any]:
    values = dict(vars(decision))
    values["from"] = values.pop("from_identity")
    values["to"] = values.pop("to_identity")
    return values


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return a line's entry, None when it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError):
        return None
    return entry if isinstance(entry, dict) else None


def _build(entry: dict[str, Any], path: Path, line: int) -> Decision:
    values = dict(entry)
    try:
        values["from_identity"] = values.pop("from")
        values["to_identity"] = values.pop("to")
        return Decision(**values)
    except (KeyError, TypeError):
        raise InputError(f"{path}, line {line} must be a decision, but has other fields") from None
