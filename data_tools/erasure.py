"""A person removed from a set folder for good, with a receipt that does not name the person.

What has to go is planned, and the plan written, before anything is touched; every step may be done
twice. So an erasure that was killed is finished by the next `erase`, and until then nothing else
runs on the set. The source is never touched.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.decisions import Round, read_log
from data_tools.log_clean import write_clean
from data_tools.log_events import append_event, read_events, replace_events
from data_tools.log_plan import (
    Plan,
    embedding_ids,
    find_derived,
    find_tables,
    find_unknown,
    make_plan,
    open_caches,
    read_plan,
    write_plan,
)
from data_tools.log_receipts import (
    PLAN_NAME,
    begin_erasure,
    check_finished,
    end_erasure,
    find_erased,
    is_erased,
)
from data_tools.log_rows import count_values
from data_tools.log_scrub import Person, Touched, blot_json, find_touched, rewrite_table
from data_tools.sets import SetFolder, open_set, read_info
from facerec.checks import InputError
from facerec.io import sha256_file, sync_folder
from facerec.provenance import versions

__all__ = ["check_finished", "erase", "find_erased", "is_erased"]

_SETTINGS = frozenset(("settings", "check", "model", "runtime"))
"""What a round's summary says in words of ours, that a name may be equal to by chance."""


def erase(
    out: Path,
    identity: str | None = None,
    *,
    dry_run: bool = False,
    delete_unknown: bool = False,
) -> dict[str, Any]:
    """Remove a person from a set folder: pictures, embeddings, rows, decisions and the name.

    A row is the person's when its identity as ingested, or any that a decision ever gave it or
    took from it, undone or not, is the name. A chip that another person's row has too, byte by
    byte the same, stays for that row, and its embedding with it. Reports and everything else that
    is made from the set is deleted. An erasure that was begun before is finished first.

    Args:
        out: a set folder.
        identity: the name; None only finishes what was begun.
        dry_run: say what would go and touch nothing.
        delete_unknown: delete entries of the folder that are not the set's own as well, which may
            show the person.

    Returns:
        `removed`: counts of rows (as_ingested: by their given identity, decided: only by
        decisions), chips, shared_chips (left), embeddings, decisions, scores, mentions (rows of
        others that named the person), and deleted (names of entries); `source`: the root and the
        paths of the person's pictures, which are untouched; `exports`: places that got an export
        of this set and still exist; `named_in`: what still has the name in it (other people's
        paths); id, date, dry_run, and finished: the id of an erasure that was finished first.

    Raises:
        InputError: no set, in use, nobody of that name, or unknown entries.
    """
    if identity == "":
        raise InputError("the name to erase must not be empty: that is everybody without a label")
    folder = open_set(out)
    with folder.lock("erase"):
        finished, pending = None, read_plan(folder)
        if pending is not None:
            if dry_run:
                return {**_describe(folder, pending), "finished": None, "dry_run": True}
            figures = _carry_out(folder, pending)
            finished = pending.id
            if identity in (None, pending.identity):
                return {**figures, "finished": finished, "dry_run": False}
        if identity is None:
            raise InputError(f"no erasure of {out} is unfinished; give the name with --identity")
        plan = make_plan(folder, identity)
        unknown = [] if delete_unknown else find_unknown(folder)
        if unknown:
            raise InputError(
                f"{out} holds {', '.join(unknown[:5])}{', …' * (len(unknown) > 5)}, which is not "
                "of the set and may show the person; move it away, or add --delete-unknown"
            )
        if dry_run:
            return {**_describe(folder, plan), "finished": None, "dry_run": True}
        write_plan(folder, plan)
        return {**_carry_out(folder, plan), "finished": finished, "dry_run": False}


def _carry_out(folder: SetFolder, plan: Plan) -> dict[str, Any]:
    """Do what a plan says; whatever of it was done before is no harm."""
    person = plan.person
    begin_erasure(folder, plan.identity, plan.id, plan.date)
    figures = _describe(folder, plan)
    # The manifest first: decisions on rows that are not in it are of no effect.
    rewrite_table(folder.manifest, folder.manifest, person, blot=False)
    _erase_rounds(folder, person, plan.id)
    for path in find_tables(folder):
        if find_touched(path, person) != Touched(0, 0):
            rewrite_table(path, path, person)
    if folder.clean.is_file():
        write_clean(folder, read_log(folder.log))
    for cache in open_caches(folder):
        cache.remove(embedding_ids(plan.chips))
    _delete_chips(folder, plan.chips)
    for path in find_derived(folder):
        _delete(path)
    figures["named_in"] = _find_name(folder, person)
    end_erasure(
        folder,
        plan.id,
        {
            "date": plan.date,
            "removed": {**plan.removed, "deleted": len(plan.removed["deleted"])},
            "versions": versions(),
        },
    )
    (folder.root / PLAN_NAME).unlink()
    sync_folder(folder.root)
    return figures


def _describe(folder: SetFolder, plan: Plan) -> dict[str, Any]:
    info = read_info(folder)
    places = sorted({s["destination"] for s in info.get("stages", []) if "destination" in s})
    return {
        "id": plan.id,
        "date": plan.date,
        "removed": plan.removed,
        "source": {
            "root": info.get("settings", {}).get("root", ""),
            "paths": sorted(set(plan.rows["path"].to_pylist())),
        },
        "exports": [place for place in places if Path(place).exists()],
        "named_in": [],
    }


def _erase_rounds(folder: SetFolder, person: Person, number: str) -> None:
    """Write the touched rounds anew under new names, tell the log, delete the old files."""
    log = read_log(folder.log)
    if log.rounds and number not in log.erasures:
        changed = {}
        for entry in log.rounds:
            entry.verify()
            if find_touched(entry.file, person) != Touched(0, 0):
                changed[str(entry.number)] = _rewrite_round(entry, person, number)
        event = {"event": "erasure", "id": number, "rounds": changed}
        before = read_events(folder.log).entries
        after = [_blot_summary(entry, person) for entry in before]
        if after == before:
            append_event(folder.log, event)
        else:
            replace_events(folder.log, [*after, event])
    known = {entry.file.name for entry in read_log(folder.log).rounds}
    for file in folder.log.with_suffix("").glob("*.parquet"):
        if file.name not in known:
            file.unlink()


def _rewrite_round(entry: Round, person: Person, number: str) -> dict[str, Any]:
    """Write a round without a person beside it, and return what the log has to say of it."""
    file = entry.file.with_name(f"round-{entry.number:04d}-{number}.parquet")
    rewrite_table(entry.file, file, person)
    left = pq.read_table(file, columns=["check", "action"], partitioning=None)
    return {
        "file": file.name,
        "sha256": sha256_file(file),
        "rows": left.num_rows,
        "counts": {name: count_values(left[name]) for name in left.column_names},
    }


def _blot_summary(event: dict[str, Any], person: Person) -> dict[str, Any]:
    if "summary" not in event:
        return event
    return {**event, "summary": blot_json(event["summary"], person, _SETTINGS)}


def _delete_chips(folder: SetFolder, chips: list[str]) -> None:
    places = {(folder.root / chip).parent for chip in chips}
    for chip in chips:
        (folder.root / chip).unlink(missing_ok=True)
    for place in sorted(places):
        if not place.is_dir():
            continue
        for leftover in place.glob(".*"):  # a killed writer's
            _delete(leftover)
        if any(place.iterdir()):
            sync_folder(place)
        else:
            place.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _find_name(folder: SetFolder, person: Person) -> list[str]:
    """Return what still has the name as a word in it: set.json, or other people's paths."""
    found = []
    if person.blot(text := folder.info.read_text(encoding="utf-8")) != text:
        found.append(f"{folder.info.name}, where the source or an export is called so")
    count = 0
    with pq.ParquetFile(folder.manifest) as manifest:
        for batch in manifest.iter_batches(columns=["path"]):
            near = pc.match_substring(batch["path"], person.identity)
            paths = batch["path"].filter(near).to_pylist()
            count += sum(person.blot(path) != path for path in paths)
    if count:
        found.append(f"the paths of {count:,} rows of other people")
    return found
