"""What the commands of `facerec-gallery` share: which gallery, which collection, which key."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.checks import InputError

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.vault import GalleryKey

POLICIES = ("largest", "central", "all")
KEY_FILE = "key_file"
"""The setting that says where the key of a collection was written."""


def add_gallery(parser: argparse.ArgumentParser) -> None:
    """Add the gallery, its collection and its key."""
    parser.add_argument("gallery", type=Path, help="folder of the gallery")
    parser.add_argument("--collection", default="main", metavar="NAME", help="which watch list")
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="of an encrypted one; FACEREC_GALLERY_KEY or where create put it unless given",
    )


def add_who(parser: argparse.ArgumentParser) -> None:
    """Add who does it and why."""
    parser.add_argument("--operator", default="", help="who asks, for the audit log; you")
    parser.add_argument("--purpose", default="", help="why, for the audit log")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add recogniser and detector."""
    parser.add_argument("--model", default="", help="the gallery's own unless given")
    parser.add_argument("--detector", default="", help="the gallery's own unless given")
    parser.add_argument("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")
    parser.add_argument("--policy", choices=POLICIES, help="the gallery's own unless given")


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add how and where to search."""
    parser.add_argument("--index", default="auto", metavar="RUNG", help="see `index`")
    parser.add_argument("--exact", action="store_true", help="scan every row, whatever the index")
    parser.add_argument("--remote", default="", metavar="URL", help="search on a Qdrant server")
    parser.add_argument("--remote-key-file", type=Path, metavar="FILE", help="its API key")
    parser.add_argument("--remote-ca-file", type=Path, metavar="FILE", help="its certificate's")


def find_key(arguments: argparse.Namespace) -> GalleryKey | None:
    """Return the key: of the file that is named, the environment, or the file that create made."""
    from facerec.gallery.store import open_store
    from facerec.gallery.vault import read_key

    key = read_key(arguments.key_file)
    if key is not None:
        return key
    with open_store(arguments.gallery, arguments.collection, locked=True) as store:
        path = store.read_setting(KEY_FILE)
        if not store.collection.key_id or not path:
            return None
    if not Path(path).is_file():
        raise InputError(
            f"the key file {path} is not there any more; say where it is with --key-file, or put "
            "the key into FACEREC_GALLERY_KEY"
        )
    return read_key(Path(path))


@contextlib.contextmanager
def open_gallery(arguments: argparse.Namespace, *, locked: bool = False) -> Iterator[Gallery]:
    """Open the gallery that the arguments name, as they say, and close it.

    Args:
        arguments: as `add_gallery` and the others here made them.
        locked: an encrypted collection may do without its key: for lists and the log.
    """
    from facerec.gallery.gallery import Gallery

    try:
        key = find_key(arguments)
    except InputError:
        if not locked or arguments.key_file is not None:
            raise
        key = None
    remote = _connect(arguments) if getattr(arguments, "remote", "") else None
    try:
        with Gallery.open(
            arguments.gallery,
            getattr(arguments, "operator", ""),
            collection=arguments.collection,
            key=key,
            index=getattr(arguments, "index", "auto"),
            remote=remote,
            locked=locked,
        ) as gallery:
            yield gallery
    finally:
        if remote is not None:
            remote.close()


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    if text:
        sys.stderr.write(f"note: {text}\n")


def _connect(arguments: argparse.Namespace) -> Any:
    from facerec.gallery.remote import connect_remote
    from facerec.gallery.remote_settings import RemoteSettings
    from facerec.gallery.store import open_store

    settings = RemoteSettings(
        url=arguments.remote,
        api_key_file=arguments.remote_key_file,
        ca_file=arguments.remote_ca_file,
    )
    with open_store(arguments.gallery, arguments.collection, locked=True) as store:
        held = store.collection
    return connect_remote(settings, model_hash=held.model.hash, dim=held.model.dim, tenant=held.uid)
