"""`facerec-gallery` on who is kept: list, show, rename, remove, erase, expire, retain, scrub."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.cli.gallery_options import (
    add_gallery,
    add_remote,
    add_who,
    check_output,
    find_remote,
    note,
    open_gallery,
)
from facerec.command import add_command, write_json_result

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.results import Receipt


def add_people(commands: Any) -> None:
    """Add the commands on people and what is kept of them."""
    people = _add(commands, "list", _run_list, "show who is in the collection", "")
    people.add_argument("--collections", action="store_true", help="list the watch lists instead")
    show = _add(commands, "show", _run_show, "show what is kept of a person", " 'Jane Doe'")
    show.add_argument("person")
    rename = _add(commands, "rename", _run_rename, "give a person another name", " Jane 'Jane Doe'")
    rename.add_argument("person")
    rename.add_argument("name", help="the new one")
    remove = _add(
        commands, "remove", _run_remove, "remove some of a person's samples", " 'Jane Doe' 17"
    )
    remove.add_argument("person")
    remove.add_argument("samples", type=int, nargs="+", metavar="SAMPLE", help="see `show`")
    erase = _add(
        commands,
        "erase",
        _run_erase,
        "remove a person from every file of the gallery, and prove it",
        " 'Jane Doe' --receipt receipt.json --purpose 'asked to on 3 May'",
    )
    erase.add_argument("person")
    for parser in (remove, erase):
        parser.add_argument("--receipt", type=Path, metavar="FILE", help="write the proof here")
    expire = _add(commands, "expire", _run_expire, "erase what is kept longer than it may be", "")
    for parser in (remove, erase, expire):
        add_remote(parser, "delete on this Qdrant server, too")
    retain = _add(commands, "retain", _run_retain, "say how long samples may be kept", " 365")
    retain.add_argument("days", type=int, help="0: without end")
    _add(commands, "scrub", _run_scrub, "rewrite the file without what was removed", "")


def _add(
    commands: Any, name: str, run: Callable[..., Any], text: str, rest: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, text, f"facerec-gallery {name} list{rest}")
    add_gallery(parser)
    add_who(parser)
    return parser


def _run_list(arguments: argparse.Namespace) -> None:
    from facerec.gallery.calibration import describe_threshold
    from facerec.gallery.store import NORMALISATION

    with open_gallery(arguments, locked=True) as gallery:
        people = gallery.people()
        collections = gallery.store.list_collections()
        kind = gallery.store.read_setting(NORMALISATION, "none")
        found = [gallery.store.find_threshold(kind), gallery.store.find_threshold(one_to_one=True)]
        model = gallery.model
    if arguments.collections:
        for held in collections:
            state = f"encrypted with key {held.key_id}" if held.key_id else "not encrypted"
            print(f"{held.name}\t{held.model.name}\t{held.fusion}\t{state}")
        write_json_result(arguments, {"collections": [held.name for held in collections]})
        return
    for person in people:
        kind = "" if person.kind == "person" else f"\t{person.kind}"
        print(f"{person.name}\t{person.samples} pictures\tsince {person.created[:10]}{kind}")
    samples = sum(person.samples for person in people)
    thresholds = [threshold for threshold in found if threshold is not None]
    said = "; ".join(describe_threshold(threshold) for threshold in thresholds) or "none"
    print(f"{len(people)} people, {samples} pictures, {model.name}; threshold {said}")
    result = {
        "people": [vars(person) for person in people],
        "thresholds": [vars(threshold) for threshold in thresholds],
    }
    write_json_result(arguments, result, hashes={"model": model.hash})


def _run_show(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments, locked=True) as gallery:
        samples = gallery.samples(arguments.person)
    for sample in samples:
        captured = f"captured {sample.captured}, " if sample.captured else ""
        what = sample.document_class or sample.source_class
        scan = ", a scan of a print" if sample.print_scan else ""
        print(
            f"{sample.id}\t{what}{scan}\t{captured}enrolled {sample.created[:10]}\t"
            f"norm {sample.norm:.1f}\t{sample.source}"
        )
    write_json_result(arguments, {"samples": [vars(sample) for sample in samples]})


def _run_rename(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments) as gallery:
        gallery.rename(arguments.person, arguments.name, arguments.purpose)
    print(f"{arguments.person} is called {arguments.name} from now on")
    write_json_result(arguments, {"person": arguments.name})


def _run_remove(arguments: argparse.Namespace) -> None:
    check_output(arguments.receipt, "--receipt")
    with open_gallery(arguments) as gallery:
        receipt = gallery.remove(arguments.person, arguments.samples, arguments.purpose)
        _say_where_else(arguments, gallery)
    _show_receipt(arguments, receipt)


def _run_erase(arguments: argparse.Namespace) -> None:
    check_output(arguments.receipt, "--receipt")
    with open_gallery(arguments) as gallery:
        receipt = gallery.erase(arguments.person, arguments.purpose)
        _say_where_else(arguments, gallery)
    _show_receipt(arguments, receipt)


def _run_expire(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments) as gallery:
        days = gallery.retention_days
        receipts = gallery.expire(arguments.purpose)
        _say_where_else(arguments, gallery)
    samples = sum(len(receipt.samples) for receipt in receipts)
    kept = f"{days} days" if days else "without end"
    print(f"{samples} samples of {len(receipts)} people erased; kept {kept}")
    write_json_result(arguments, {"receipts": [receipt.to_json() for receipt in receipts]})


def _run_retain(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments) as gallery:
        gallery.keep_for(arguments.days, arguments.purpose)
    kept = f"{arguments.days} days" if arguments.days else "without end"
    print(f"samples are kept {kept}; `facerec-gallery expire` erases those that are older")
    write_json_result(arguments, {"retention_days": arguments.days})


def _run_scrub(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments) as gallery:
        gallery.scrub()
    print("the file was rewritten; nothing that was removed is left in it")
    write_json_result(arguments, {"scrubbed": True})


def _say_where_else(arguments: argparse.Namespace, gallery: Gallery) -> None:
    """Say what this proof does not cover: the rows on a server."""
    place = find_remote(gallery)
    if arguments.remote:
        note(
            f"the rows are deleted on {arguments.remote}; their bytes leave its disks with its own "
            "cleaning: docs/cluster.md says how to force it"
        )
    elif place:
        note(f"rows of theirs may still lie on {place}; search, or erase, with --remote {place}")


def _show_receipt(arguments: argparse.Namespace, receipt: Receipt) -> None:
    from facerec.io import write_json

    size = sum(receipt.files.values())
    print(
        f"{len(receipt.samples)} samples and {receipt.templates} templates removed; "
        f"{len(receipt.files)} files with {size} bytes read through, none of theirs found; "
        f"log entry {receipt.entry}, hash {receipt.head}"
    )
    if arguments.receipt is not None:
        write_json(arguments.receipt, receipt.to_json())
    write_json_result(arguments, receipt.to_json())
