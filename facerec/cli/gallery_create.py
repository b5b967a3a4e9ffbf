"""`facerec-gallery create` and `key`: a new watch list, and what opens it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.checks import InputError
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
    with _new_key(arguments) as (key, path):
        if path is not None:
            settings[KEY_FILE] = str(path)
        gallery = Gallery.create(
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
            purpose=arguments.purpose,
        )
        model = gallery.model
        gallery.close()
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


@contextlib.contextmanager
def _new_key(arguments: argparse.Namespace) -> Iterator[tuple[GalleryKey | None, Path | None]]:
    """Lend the key of a new collection and its file; a file made for it goes if the block fails."""
    from facerec.gallery.vault import read_key

    if arguments.no_encryption:
        yield None, None
        return
    path: Path | None = arguments.key_file
    if path is None:
        found = read_key(None)  # the environment's
        if found is not None:
            yield found, None
            return
        folder = arguments.gallery.resolve()
        other = "" if arguments.collection == "main" else f"-{arguments.collection}"
        path = folder.with_name(f"{folder.name}{other}.key")
    key, path, made = _read_or_make(path, arguments.gallery)
    try:
        yield key, path
    except Exception:
        if made:
            path.unlink(missing_ok=True)
        raise


def _read_or_make(path: Path, gallery: Path) -> tuple[GalleryKey, Path, bool]:
    """Return the key of a file, the file's full path, and whether it had to be made."""
    from facerec.gallery.vault import make_key, read_key, write_key

    path = path.expanduser().resolve()
    if gallery.resolve() in path.parents:
        raise InputError(
            f"key file {path} would lie inside the gallery that it opens; keep it apart from it"
        )
    if path.is_file():
        found = read_key(path)
        if found is not None:
            return found, path, False
    path.parent.mkdir(parents=True, exist_ok=True)
    key = make_key()
    write_key(key, path)
    return key, path, True


def _run_key(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments) as gallery:
        key, path, _ = _read_or_make(arguments.new_key_file, arguments.gallery)
        people = gallery.change_key(key, arguments.purpose, {KEY_FILE: str(path)})
    print(
        f"{people} people are bound to key {key.id} in {path}; the old key opens nothing here any "
        "more, but still opens older backups"
    )
    write_json_result(arguments, {"people": people, "key_id": key.id})
