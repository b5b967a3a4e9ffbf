"""Why a picture is in the clean set or not: its decisions over the rounds and its last scores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.decisions import Log, read_log
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError, check_range

_ID = re.compile(r"([0-9a-f]{16})(?:[0-9a-f]{48})?(?:-(\d+))?(?:\.\w+)?")
_MANIFEST = ("image_id", "path", "face", "identity", "chip", "reason", "source", "split")
_SHORT_HASH = 12
_SHOWN_VALUES = 10
_OUT = "out of the clean set"

Rows = list[dict[str, Any]]


def explain(out: Path, image: str, face: int | None = None) -> Rows:
    """Return all that a set knows about a picture, a dictionary for each of its faces.

    Args:
        out: a set folder.
        image: a path in the source, an image_id, a whole sha256, or the name of a chip.
        face: number of the face; all of them when None.

    Returns:
        Per face: the manifest's `image_id`, `path`, `face`, `identity` (as ingested), `chip`,
        `reason`, `source` and `split`; `now` (the identity in the clean set, None = not in it);
        `decisions`, oldest first, each with the fields of a decision and `undone`; `scores`, the
        row's lines in the last round's score tables, each with its `table` and its `columns`.

    Raises:
        InputError: no set, or no such picture or face in it.
    """
    if face is not None:
        check_range(face, "face", 0, 1 << 30)
    folder = open_set(out)
    rows = _find_rows(folder, image, face)
    log = read_log(folder.log)
    decisions = _find_decisions(log, rows)
    for row in rows:
        mine = [entry for entry in decisions if _key(entry) == _key(row)]
        active = [entry for entry in mine if not entry["undone"]]
        row["now"] = (active[-1]["to"] if active else row["identity"]) if row["chip"] else None
        row["decisions"] = mine
        row["scores"] = []
    for table in _find_score_tables(folder, log):
        _add_scores(table, rows)
    return rows


def describe_rows(rows: Rows) -> list[str]:
    """Return what `explain` found as lines to read."""
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        lines += [
            f"{row['path']}, face {row['face']} (image_id {row['image_id'] or 'none'})",
            f"  as ingested: {_who(row['identity']) if row['chip'] else row['reason']}",
            f"  now: {_who(row['now'])}",
        ]
        lines += [f"  {_describe_decision(entry)}" for entry in row["decisions"]]
        if not row["decisions"]:
            lines.append("  no round has decided on it")
        for scores in row["scores"]:
            lines.append(f"  scores in {scores['table']}:")
            for name, value in scores["columns"].items():
                lines.append(f"    {name}: {_format(value)}")
    return lines


def _find_rows(folder: SetFolder, image: str, face: int | None) -> Rows:
    where = pc.field("path") == image
    found = _read(folder.manifest, where, _MANIFEST)
    match = _ID.fullmatch(PurePosixPath(image).name)
    if not found.num_rows and match:
        where = pc.field("image_id") == match[1]
        found = _read(folder.manifest, where, _MANIFEST)
        face = int(match[2]) if match[2] and face is None else face
    if not found.num_rows:
        raise InputError(
            f"{folder.root} has no picture {image!r}; give its path in the source or its image_id"
            f"{_suggest(folder, image)}"
        )
    rows: Rows = found.to_pylist()
    taken = [row for row in rows if face is None or row["face"] == face]
    if not taken:
        known = ", ".join(str(row["face"]) for row in rows)
        raise InputError(f"{image!r} has no face {face}; its faces: {known}")
    return taken


def _suggest(folder: SetFolder, image: str) -> str:
    """Return up to three paths of the manifest that end with the same file name."""
    name = PurePosixPath(image).name
    paths = pq.read_table(folder.manifest, columns=["path"], partitioning=None)["path"]
    near = pc.unique(paths.filter(pc.ends_with(paths, f"/{name}"))).slice(0, 3).to_pylist()
    return f"; did you mean {' or '.join(repr(path) for path in near)}?" if name and near else ""


def _find_decisions(log: Log, rows: Rows) -> Rows:
    where = pc.field("path").isin(sorted({row["path"] for row in rows}))
    found: Rows = []
    for entry in log.rounds:
        for decision in entry.read(where=where).to_pylist():
            found.append({**decision, "undone": entry.undone})
    return found


def _find_score_tables(folder: SetFolder, log: Log) -> Iterable[Path]:
    """Return the score tables of the last round that counts and has any."""
    for entry in reversed(log.active):
        usual = folder.scores(entry.number)
        found = sorted(usual.parent.glob(f"{usual.stem}*.parquet"))
        if found:
            return found
    return []


def _add_scores(path: Path, rows: Rows) -> None:
    names = pq.read_schema(path).names
    by = "path" if "path" in names else "image_id"
    if by not in names:
        return
    where = pc.field(by).isin(sorted({row[by] for row in rows}))
    for line in _read(path, where).to_pylist():
        for row in rows:
            if line[by] == row[by] and line.get("face", row["face"]) == row["face"]:
                shown = {n: v for n, v in line.items() if n not in ("path", "face", "image_id")}
                row["scores"].append({"table": path.name, "columns": shown})


def _read(path: Path, where: Any, columns: Iterable[str] | None = None) -> pa.Table:
    names = None if columns is None else list(columns)
    return pq.read_table(path, columns=names, filters=where, partitioning=None)


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return (row["path"], row["face"])


def _who(identity: str | None) -> str:
    if identity is None:
        return _OUT
    return repr(identity) if identity else "unlabelled"


def _describe_decision(entry: dict[str, Any]) -> str:
    score = ""
    if entry["score"] is not None:
        score = f", score {entry['score']:.4f}"
        if entry["threshold"] is not None:
            score += f" against {entry['threshold']:.4f}"
    model = f", model {entry['model'][:_SHORT_HASH]}" if entry["model"] else ""
    reason = f": {entry['reason']}" if entry["reason"] else ""
    return (
        f"round {entry['round']}{' (undone)' if entry['undone'] else ''}, {entry['check']}: "
        f"{entry['action']}, {_who(entry['from'])} -> {_who(entry['to'])}{score}{model}{reason}"
    )


def _format(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        more = f", … {len(value)} in all" if len(value) > _SHOWN_VALUES else ""
        return ", ".join(_format(one) for one in value[:_SHOWN_VALUES]) + more
    return str(value)
