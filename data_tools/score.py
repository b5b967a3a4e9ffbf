"""How good the decisions are, where the truth is known: precision, recall and F1 of the drops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_tools.decisions import find_dropped, read_log
from data_tools.sets import open_set
from facerec.checks import InputError, nearest
from facerec.data.manifest import read_manifest
from facerec.data.sources import read_table

_COLUMNS = ("key", "person")


def score_set(out: Path, truth: Path) -> dict[str, Any]:
    """Compare what is dropped with who is really in the pictures.

    A row is wrong when the person in it is not who its folder says. Counted apart, and judged
    neither way: rows without a usable face or identity, pictures that the truth does not name,
    and, where not the largest face was taken, pictures of several people.

    Args:
        out: a set folder that was cleaned.
        truth: CSV or Parquet as `facerec.data.scenes.write_crawl` writes it: key (the picture's
            path in the source), person ("" = nobody) and, if there, face (0 = the largest, whom
            the picture is about; -1 = none) and kind (what is wrong with it).

    Returns:
        wrong, dropped, hit (both), precision, recall, f1 (None where nothing can be said),
        lost_share (right rows dropped), kinds (kind -> wrong, hit, recall), unusable, unknown.

    Raises:
        InputError: no set, no round yet, or a truth table without these columns.
    """
    folder = open_set(out)
    log = read_log(folder.log)
    if not log.active:
        raise InputError(f"{out} is not cleaned yet; run: facerec-clean run {out} --model MODEL")
    known = _read_truth(truth)
    gone = find_dropped(log.decisions())
    manifest = read_manifest(folder.manifest)
    wrong = dropped = hit = right = unusable = unknown = 0
    kinds: dict[str, dict[str, int]] = {}
    names = "path", "face", "chip", "identity", "policy"
    columns = (manifest[name].to_pylist() for name in names)
    for path, face, chip, identity, policy in zip(*columns, strict=True):
        person, kind, several = known.get(path, (None, "", False))
        if person is None or (several and policy != "largest"):
            unknown += 1
            continue
        if not chip or not identity:
            unusable += 1
            continue
        bad, drop = person != identity, (path, face) in gone
        wrong, dropped, hit = wrong + bad, dropped + drop, hit + (bad and drop)
        right += not bad
        if bad:
            counts = kinds.setdefault(kind or "wrong identity", {"wrong": 0, "hit": 0})
            counts["wrong"], counts["hit"] = counts["wrong"] + 1, counts["hit"] + drop
    return {
        "wrong": wrong,
        "dropped": dropped,
        "hit": hit,
        "precision": _ratio(hit, dropped),
        "recall": _ratio(hit, wrong),
        "f1": _ratio(2 * hit, dropped + wrong),
        "lost_share": _ratio(dropped - hit, right),
        "kinds": {
            kind: {**counts, "recall": _ratio(counts["hit"], counts["wrong"])}
            for kind, counts in sorted(kinds.items())
        },
        "unusable": unusable,
        "unknown": unknown,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _read_face(value: Any, where: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: face must be a whole number, got {value!r}") from None


def _read_truth(path: Path) -> dict[str, tuple[str, str, bool]]:
    """Return picture -> (whom it is about, kind, whether it shows several people)."""
    if not path.is_file():
        raise InputError(f"truth table {path} is not a file; check the path")
    table = read_table(path)
    for name in _COLUMNS:
        if name not in table.column_names:
            raise InputError(
                f"truth table {path} must have the column {name!r}, which is missing"
                f"{nearest(name, table.column_names)}"
            )
    kinds = table["kind"].to_pylist() if "kind" in table.column_names else [""] * table.num_rows
    faces = table["face"].to_pylist() if "face" in table.column_names else [0] * table.num_rows
    truth: dict[str, tuple[str, str, bool]] = {}
    columns = (table["key"].to_pylist(), table["person"].to_pylist(), kinds, faces)
    for row, (key, person, kind, face) in enumerate(zip(*columns, strict=True)):
        about, of_kind, _ = truth.get(str(key), (None, "", False))
        if _read_face(face, f"truth table {path}, row {row}") <= 0:
            about, of_kind = person or "", kind or ""
        truth[str(key)] = (about or "", of_kind, str(key) in truth)
    return truth
