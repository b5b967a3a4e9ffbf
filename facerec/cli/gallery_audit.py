"""`facerec-gallery audit`, `export`, `backup`: the log, and what leaves the gallery."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.checks import InputError
from facerec.cli.gallery_options import add_gallery, add_who, check_output, open_gallery
from facerec.command import add_command, write_json_result

if TYPE_CHECKING:
    from facerec.gallery.audit import AuditEntry


def add_audit(commands: Any) -> None:
    """Add the commands on the log and on what leaves."""
    audit = add_command(
        commands,
        "audit",
        _run_audit,
        "show the log and check it, and the gallery against it; exit code 1 when it is not whole",
        "facerec-gallery audit list --last 20",
    )
    add_gallery(audit)
    audit.add_argument("--last", type=int, default=20, help="entries to show, 0 for none")
    audit.add_argument("--head", default="", help="a head hash noted earlier that must be there")
    audit.add_argument("--lines", type=Path, metavar="FILE", help="write every entry, JSON lines")
    export = add_command(
        commands,
        "export",
        _run_export,
        "write people, samples and plain embeddings to a Parquet file",
        "facerec-gallery export list people.parquet --unencrypted",
    )
    add_gallery(export)
    export.add_argument("file", type=Path, help="a new .parquet file")
    export.add_argument("--unencrypted", action="store_true", help="yes, they leave the encryption")
    add_who(export)
    backup = add_command(
        commands,
        "backup",
        _run_backup,
        "copy the gallery as it is, sealed as it is, while others use it",
        "facerec-gallery backup list list-2026-11-24/",
    )
    add_gallery(backup)
    backup.add_argument("folder", type=Path, help="a new folder, a gallery itself")
    add_who(backup)


def _run_audit(arguments: argparse.Namespace) -> int | None:
    check_output(arguments.lines, "--lines")
    faults: list[str] = []
    names: dict[str, str] = {}
    wanted = arguments.collection
    with open_gallery(arguments, locked=True) as gallery:
        collections = [held.name for held in gallery.store.list_collections()]
        count, head = gallery.audit_head()
        entries = gallery.list_audit(max(0, arguments.last))
        if arguments.lines is not None:
            _write_lines(arguments.lines, gallery.list_audit())
    unopened = []
    for collection in collections:
        arguments.collection = collection
        with open_gallery(arguments, locked=True, fitting=collection != wanted) as gallery:
            faults += [text for text in gallery.verify_audit(arguments.head) if text not in faults]
            names |= {person.uid: person.name for person in gallery.people()}
            if gallery.store.locked:
                unopened.append(collection)
    arguments.collection = wanted
    for entry in entries:
        print(_describe(entry, names))
    for fault in faults:
        print(f"FAULT: {fault}")
    for collection in unopened:
        print(f"collection {collection!r}: its key is not at hand; seals and embeddings unchecked")
    print(f"{count} entries, {'NOT whole' if faults else 'whole'}; head {head}")
    rows = [vars(entry) for entry in entries]
    result = {"entries": rows, "count": count, "head": head, "faults": faults}
    write_json_result(arguments, {**result, "unopened": unopened})
    return 1 if faults else None


def _describe(entry: AuditEntry, names: dict[str, str]) -> str:
    said = entry.details
    uid = said.get("person")
    if entry.action == "search":
        what = names.get(uid, "somebody erased") if uid else "unknown"
    elif uid:
        what = names.get(uid, uid if entry.collection == "" else f"({uid[:8]}…)")
    else:
        what = _describe_change(said)
    where = "" if entry.collection in ("", "main") else f" [{entry.collection}]"
    why = f"\t{entry.purpose}" if entry.purpose else ""
    start = f"{entry.number}\t{entry.created[:19]}\t{entry.operator}"
    return f"{start}\t{entry.action}{where}\t{what}{why}"


def _describe_change(said: dict[str, Any]) -> str:
    """Return what an entry that is about no person says, as far as it fits a line."""
    if "key" in said:
        return f"{said['key']} = {said['value']}"
    if "value" in said:
        return f"{said['kind']} {said['value']:.4g}"
    if "rows" in said:
        return " ".join(str(said[name]) for name in ("what", "rows") if name in said)
    return str(said.get("model") or said.get("key_id") or "")


def _write_lines(path: Path, entries: list[AuditEntry]) -> None:
    import json

    from facerec.io import write_text

    lines = [json.dumps(vars(entry), sort_keys=True, ensure_ascii=False) for entry in entries]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _run_export(arguments: argparse.Namespace) -> None:
    from facerec.gallery.leaving import export_samples

    if not arguments.unencrypted:
        raise InputError(
            "an export holds plain embeddings, from which faces can be drawn again; say "
            "--unencrypted if that is wanted, or use `facerec-gallery backup`"
        )
    with open_gallery(arguments) as gallery:
        rows = export_samples(gallery, arguments.file, arguments.purpose)
    print(f"{arguments.file}: {rows} samples with plain embeddings; the log says so")
    write_json_result(arguments, {"rows": rows})


def _run_backup(arguments: argparse.Namespace) -> None:
    from facerec.gallery.leaving import back_up

    with open_gallery(arguments) as gallery:
        size = back_up(gallery, arguments.folder, arguments.purpose)
    print(
        f"{arguments.folder}: {size} bytes, sealed as the gallery is; who is erased later is still "
        "in it"
    )
    write_json_result(arguments, {"bytes": size})
