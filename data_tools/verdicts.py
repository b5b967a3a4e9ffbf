"""A reviewer's table of verdicts read back as a round of decisions, which later rounds respect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.decisions import (
    REVIEW,
    Decision,
    Log,
    append_round,
    build_decisions,
    read_log,
)
from data_tools.log_clean import read_state, write_clean
from data_tools.log_receipts import check_finished, find_erased
from data_tools.log_state import Fates
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError, nearest
from facerec.data.sources import read_table
from facerec.io import sha256_file

VERDICTS = ("keep", "drop", "relabel")
COLUMNS = ("path", "image_id", "face", "verdict", "identity", "reviewer", "note")
_SHOWN = 5

Lines = list[dict[str, Any]]


def import_verdicts(out: Path, table: Path, *, skip_unknown: bool = False) -> dict[str, Any]:
    """Take a reviewer's verdicts into the log as a round of its own, and write the clean set.

    "keep" leaves a row with the identity it has, and brings a row that is out back to the one it
    had last; "drop" takes it out; "relabel" gives it the identity named. Automatic rounds leave
    these rows alone (`data_tools.decisions.find_pinned`) until the round is undone.

    Args:
        out: a set folder.
        table: CSV or Parquet with `path` or `image_id` (or both), `verdict`, and if there `face`
            (0 when empty), `identity` (for relabel), `reviewer` and `note`. Lines with an empty
            verdict are not judged yet and are passed over. Other columns are ignored.
        skip_unknown: take what fits and leave out the lines that fit no row.

    Returns:
        round (None when there is nothing to take or the same table stands already), verdicts (rows
        by kind), changed (rows whose fate is another now), unjudged, skipped, unknown (the first
        lines that fit no row, and why), rows (of the clean set).

    Raises:
        InputError: no set, in use, a table without these columns, a verdict of another kind, two
            that contradict each other, a person who was erased, or lines that fit no row, unless
            skip_unknown; nothing is taken then.
    """
    folder = open_set(out)
    lines, unjudged = _read_lines(table)
    digest = sha256_file(table)
    with folder.lock("verdicts"):
        check_finished(folder)
        log = read_log(folder.log)
        if (earlier := _find_import(log, digest)) is not None:
            return {**earlier, "round": None, "changed": 0, "rows": write_clean(folder, log)}
        manifest, fates = read_state(folder, log.active)
        fitting, unknown = _match(folder, manifest, lines)
        if unknown and not skip_unknown:
            raise InputError(
                f"{table}: {len(unknown)} of {len(lines)} verdicts fit no row of the set, nothing "
                f"was taken: {'; '.join(unknown[:_SHOWN])}{'; …' * (len(unknown) > _SHOWN)}; "
                "correct them, or leave them out with --skip-unknown"
            )
        decisions = _decide(_drop_repeats(fitting, table), fates, log)
        _check_erased(folder, decisions, table)
        changed = sum(one.from_identity != one.to_identity for one in decisions)
        summary = {
            "check": REVIEW,
            "settings": {"check": REVIEW, "verdicts_sha256": digest},
            "verdicts": dict(sorted(Counter(line["verdict"] for line in fitting).items())),
            "unjudged": unjudged,
            "skipped": len(unknown),
            "unknown": unknown[:_SHOWN],
            "actions_changed": changed,
        }
        number = None
        if decisions:
            number = append_round(folder.log, build_decisions(decisions), summary)
        rows = write_clean(folder, read_log(folder.log))
    return {**_pick(summary), "round": number, "changed": changed, "rows": rows}


def _pick(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("verdicts", "unjudged", "skipped", "unknown")}


def _find_import(log: Log, digest: str) -> dict[str, Any] | None:
    """Return the figures of the last verdicts that stand, if they are of this very table."""
    for entry in reversed(log.active):
        if entry.summary.get("check") == REVIEW:
            same = entry.summary["settings"]["verdicts_sha256"] == digest
            return _pick(entry.summary) if same else None
    return None


def _read_lines(path: Path) -> tuple[Lines, int]:
    """Return the lines with a verdict, each with its `line` in the file, and how many have none."""
    table = read_table(path)
    names = table.column_names
    if "verdict" not in names or not {"path", "image_id"} & set(names):
        raise InputError(
            f"{path} must have the column 'verdict', and 'path' or 'image_id'; its columns are "
            f"{', '.join(names)}"
        )
    texts = {}
    for name in COLUMNS:
        given = table[name] if name in names else pa.nulls(table.num_rows)
        text = pc.fill_null(pc.cast(given, pa.string()), "")
        texts[name] = text if name == "path" else pc.utf8_trim_whitespace(text)
    lines = []
    for number, line in enumerate(pa.table(texts).to_pylist(), start=2):
        if line["verdict"]:
            lines.append({**line, "line": number})
            _check_line(lines[-1], path)
    return lines, table.num_rows - len(lines)


def _check_line(line: dict[str, Any], path: Path) -> None:
    where = f"{path}, line {line['line']}"
    verdict = line["verdict"] = line["verdict"].lower()
    if verdict not in VERDICTS:
        raise InputError(
            f"{where}: verdict must be one of {', '.join(VERDICTS)}, got {verdict!r}"
            f"{nearest(verdict, VERDICTS)}"
        )
    if verdict == "relabel" and not line["identity"]:
        raise InputError(f"{where}: a relabel must name the identity, which is empty")
    if not line["path"] and not line["image_id"]:
        raise InputError(f"{where} must have a path or an image_id, and has neither")
    if not (face := line["face"] or "0").isdecimal():
        raise InputError(f"{where}: face must be a whole number from 0, got {face!r}")
    line["face"] = int(face)


def _match(folder: SetFolder, manifest: pa.Table, lines: Lines) -> tuple[Lines, list[str]]:
    """Return the lines that fit a row, with its `row`, and of the others one sentence each."""
    ids = pq.read_table(folder.manifest, columns=["image_id"], partitioning=None)["image_id"]
    paths = pa.array(sorted({line["path"] for line in lines}), pa.string())
    images = pa.array(sorted({line["image_id"] for line in lines if not line["path"]}), pa.string())
    near = pc.or_(pc.is_in(manifest["path"], value_set=paths), pc.is_in(ids, value_set=images))
    rows = pc.indices_nonzero(near)
    found = manifest.append_column("image_id", ids).take(rows).to_pylist()
    by_path: dict[tuple[str, int], dict[str, Any]] = {}
    by_image: dict[tuple[str, int], Lines] = {}
    for row, values in zip(rows.to_pylist(), found, strict=True):
        values["row"] = row
        by_path[values["path"], values["face"]] = values
        by_image.setdefault((values["image_id"], values["face"]), []).append(values)
    fitting: Lines = []
    unknown: list[str] = []
    for line in lines:
        if line["path"]:
            one = by_path.get((line["path"], line["face"]))
            rivals = [one] if one else []
        else:
            rivals = by_image.get((line["image_id"], line["face"]), [])
        if reason := _find_misfit(line, rivals):
            name = line["path"] or line["image_id"]
            unknown.append(f"line {line['line']} ({name!r}, face {line['face']}) {reason}")
        else:
            fitting.append({**line, "target": rivals[0]})
    return fitting, unknown


def _find_misfit(line: dict[str, Any], rows: Lines) -> str:
    """Return why a line does not fit one row, "" when it does."""
    if not rows:
        return "is not in the manifest"
    if len(rows) > 1:
        return f"fits {len(rows)} rows, give the path"
    if line["path"] and line["image_id"] not in ("", rows[0]["image_id"]):
        return f"has another image_id than the row's {rows[0]['image_id']}"
    return "" if rows[0]["chip"] else "has no usable face"


def _drop_repeats(lines: Lines, path: Path) -> Lines:
    """Return the first verdict on each row; a second one must say the same."""
    first: dict[int, dict[str, Any]] = {}
    for line in lines:
        held = first.setdefault(line["target"]["row"], line)
        if _verdict(held) != _verdict(line):
            raise InputError(
                f"{path}: line {line['line']} ({line['verdict']}) contradicts line {held['line']} "
                f"({held['verdict']}) on the same row; keep one of them"
            )
    return list(first.values())


def _verdict(line: dict[str, Any]) -> tuple[str, str]:
    return line["verdict"], line["identity"] if line["verdict"] == "relabel" else ""


def _decide(lines: Lines, fates: Fates, log: Log) -> list[Decision]:
    rows = [line["target"] for line in lines]
    codes = fates.codes[[row["row"] for row in rows]] if rows else fates.codes[:0]
    names = fates.take_names(codes).to_pylist()
    lost = [
        row
        for row, line, name in zip(rows, lines, names, strict=True)
        if name is None and line["verdict"] == "keep"
    ]
    last = _find_last_identities(log, lost)
    decisions = []
    for row, line, before in zip(rows, lines, names, strict=True):
        after = before if before is not None else last.get((row["path"], row["face"]))
        if line["verdict"] == "relabel":
            after = line["identity"]
        elif line["verdict"] == "drop":
            after = None
        reason = ": ".join(text for text in (line["reviewer"], line["note"]) if text)
        decisions.append(
            Decision(
                row["image_id"],
                row["path"],
                row["face"],
                0,
                REVIEW,
                _name_action(before, after),
                before,
                after,
                None,
                None,
                "",
                reason,
            )
        )
    return decisions


def _name_action(before: str | None, after: str | None) -> str:
    if after is None:
        return "drop"
    if before is None:
        return "restore"
    return "keep" if before == after else "relabel"


def _find_last_identities(log: Log, rows: Lines) -> dict[tuple[str, int], str]:
    """Return who each row was when it was in the clean set for the last time."""
    last = {(row["path"], row["face"]): row["identity"] for row in rows}
    where = pc.field("path").isin([row["path"] for row in rows])
    for table in log.tables(["path", "face", "from", "to"], where) if rows else []:
        for entry in table.to_pylist():
            key = (entry["path"], entry["face"])
            named = entry["to"] if entry["to"] is not None else entry["from"]
            if key in last and named is not None:
                last[key] = named
    return last


def _check_erased(folder: SetFolder, decisions: Iterable[Decision], path: Path) -> None:
    wanted = {one.to_identity for one in decisions if one.to_identity is not None}
    if erased := find_erased(folder, wanted):
        lost = ", ".join(sorted(repr(name) for name in erased))
        raise InputError(
            f"{path} names {lost}, erased from this set; take the verdicts on them out"
        )
