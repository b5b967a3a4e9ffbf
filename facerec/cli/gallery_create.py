"""`facerec-gallery create` and `key`: a new watch list, and what opens it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.cli.gallery_options import KEY_FILE, POLICIES, add_gallery, add_who, open_gallery
from facerec.command import add_command, write_json_result

if TYPE_CHECKING:
    from facerec.gallery.vault import GalleryKey

_CHECKS = ("off", "warn", "strict")
_FUSIONS = ("max", "mean", "quality", "trimmed")


def add_create(commands: Any) -> None:
    """Add the commands that make a collection and change its key."""
    create = add_command(
        commands,
        "create",
        _run_create,
        "make an empty watch list for one recogniser, encrypted unless told otherwise",
        "facerec-gallery create list --model mobilefacenet --detector yunet",
    )
    add_gallery(create)
    add = create.add_argument
    add("--model", required=True, help="store name, artefact folder or .onnx file")
    add(
        "--detector",
        help="store name, folder, file, aligned, annotations:TABLE or insightface:FOLDER; "
        "recorded for later commands",
    )
    add("--policy", choices=POLICIES, default="largest", help="which of several faces to take")
    add("--threshold", type=float, default=0.4, help="cosine, until `calibrate` finds one")
    add("--fusion", choices=_FUSIONS, default="max", help="max: each picture; else one template")
    add("--check", choices=_CHECKS, default="warn", help="enrolments that look like another")
    add("--retention-days", type=int, default=0, metavar="N", help="0: without end")
    add("--keep-pictures", action="store_true", help="keep the aligned chips, sealed as the rest")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--no-encryption", action="store_true", help="store embeddings as they are")
    add_who(create)
    key = add_command(
        commands,
        "key",
        _run_key,
        "give a collection another key; a plain one becomes encrypted",
        "facerec-gallery key list --new-key-file new.key",
    )
    add_gallery(key)
    key.add_argument(
        "--new-key-file", type=Path, required=True, metavar="FILE", help="made if it is not there"
    )
    add_who(key)


def _run_create(arguments: argparse.Namespace) -> None:
    from facerec.checks import InputError
    from facerec.detection import build_detector
    from facerec.embedder import Embedder
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.tools import keep_spec

    if arguments.no_encryption and arguments.key_file:
        raise InputError("--no-encryption and --key-file contradict each other; give one of them")
    embedder = Embedder(arguments.model, flip=arguments.flip)
    if arguments.detector:
        build_detector(arguments.detector)  # a wrong one is refused now, not at the first picture
    settings = {
        "model": keep_spec(arguments.model),
        "detector": keep_spec(arguments.detector or ""),
        "policy": arguments.policy,
        "flip": "yes" if arguments.flip else "no",
        "check": arguments.check,
        "keep_pictures": "yes" if arguments.keep_pictures else "no",
    }
    key, path = _find_new_key(arguments)
    if path is not None:
        settings[KEY_FILE] = str(path)
    with Gallery.create(
        arguments.gallery,
        embedder.info,
        collection=arguments.collection,
        dim=embedder.dim,
        model_hash=embedder.model_hash,
        threshold=arguments.threshold,
        fusion=arguments.fusion,
        key=key,
        retention_days=arguments.retention_days,
        settings=settings,
        operator=arguments.operator,
    ) as gallery:
        model = gallery.model
    print(f"{arguments.gallery}: empty collection for {model.name}, {model.dim} dimensions")
    if path is not None:
        print(
            f"encrypted with key {key.id if key else ''} in {path}: back it up and keep it apart "
            "from the gallery; without it nobody can read the faces again"
        )
    result = {
        "gallery": str(arguments.gallery),
        "collection": arguments.collection,
        "model": model.name,
        "dim": model.dim,
        "key_id": key.id if key else "",
    }
    write_json_result(arguments, result, config=settings, hashes={"model": model.hash})


def _find_new_key(arguments: argparse.Namespace) -> tuple[GalleryKey | None, Path | None]:
    """Return the key of a new collection and the file it lies in, where it lies in one."""
    from facerec.gallery.vault import make_key, read_key, write_key

    if arguments.no_encryption:
        return None, None
    path: Path | None = arguments.key_file
    if path is None:
        found = read_key(None)  # the environment's
        if found is not None:
            return found, None
        folder = arguments.gallery.resolve()
        name = (
            folder.name
            if arguments.collection == "main"
            else (f"{folder.name}-{arguments.collection}")
        )
        path = folder.with_name(f"{name}.key")
    path = path.expanduser().resolve()
    if path.is_file():
        return read_key(path), path
    key = make_key()
    write_key(key, path)
    return key, path


def _run_key(arguments: argparse.Namespace) -> None:
    from facerec.gallery.vault import make_key, read_key, write_key

    path: Path = arguments.new_key_file.expanduser().resolve()
    if path.is_file():
        key = read_key(path)
    else:
        key = make_key()
        write_key(key, path)
    assert key is not None
    with open_gallery(arguments) as gallery:
        gallery.store.change_setting(KEY_FILE, str(path), gallery.operator, arguments.purpose)
        people = gallery.change_key(key, arguments.purpose)
    print(
        f"{people} people are bound to key {key.id} in {path}; the old key opens nothing here any "
        "more, but still opens older backups"
    )
    write_json_result(arguments, {"people": people, "key_id": key.id})
