"""What the commands of `facerec-gallery` share: which gallery, which collection, which key."""

from __future__ import annotations

import argparse
import contextlib
import os
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
REMOTE = "remote"
"""The setting that says on which server its rows lie, too."""


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
    add_remote(parser, "search on a Qdrant server")


def add_remote(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the server that has a copy of the rows; `text` says what for."""
    parser.add_argument("--remote", default="", metavar="URL", help=text)
    parser.add_argument("--remote-key-file", type=Path, metavar="FILE", help="its API key")
    parser.add_argument("--remote-ca-file", type=Path, metavar="FILE", help="its certificate's")
    parser.add_argument(
        "--unencrypted",
        action="store_true",
        help="yes, the embeddings of an encrypted collection may lie plain on that server",
    )


def find_key(arguments: argparse.Namespace) -> GalleryKey | None:
    """Return the key: of the file that is named, the environment, or the file that create made."""
    from facerec.gallery.vault import read_key

    key = read_key(arguments.key_file)
    if key is not None:
        return key
    wanted, path = _read_recorded(arguments)
    if not wanted or not path:
        return None
    if not Path(path).is_file():
        raise InputError(
            f"the key file {path} is not there any more; say where it is with --key-file, or put "
            "the key into FACEREC_GALLERY_KEY"
        )
    return read_key(Path(path))


def find_fitting_key(arguments: argparse.Namespace) -> GalleryKey | None:
    """Return which of the keys at hand opens the collection, None where none does."""
    from facerec.gallery.vault import read_key

    wanted, recorded = _read_recorded(arguments)
    places = [arguments.key_file, None, Path(recorded) if recorded else None]
    for place in places:
        with contextlib.suppress(InputError):
            key = read_key(place)
            if key is not None and key.id == wanted:
                return key
    return None


@contextlib.contextmanager
def open_gallery(
    arguments: argparse.Namespace, *, locked: bool = False, fitting: bool = False
) -> Iterator[Gallery]:
    """Open the gallery that the arguments name, as they say, and close it.

    Args:
        arguments: as `add_gallery` and the others here made them.
        locked: an encrypted collection may do without its key: for lists and the log.
        fitting: take whichever key at hand fits, where the named one is another collection's.
    """
    from facerec.gallery.gallery import Gallery

    try:
        key = find_fitting_key(arguments) if fitting else find_key(arguments)
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
            if remote is not None:
                _record_remote(gallery, arguments.remote)
            yield gallery
    finally:
        if remote is not None:
            remote.close()


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    if text:
        sys.stderr.write(f"note: {text}\n")


@contextlib.contextmanager
def explain_interruption(text: str) -> Iterator[None]:
    """Let Ctrl-C in the block say what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(text) from None


def check_output(path: Path | None, option: str) -> None:
    """Refuse an output that cannot be written before the work, not after it."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fits = not path.is_dir() and os.access(path.parent, os.W_OK)
    except OSError:
        fits = False
    if not fits:
        raise InputError(f"{option} {path} must be a file in a folder that can be written")


def find_remote(gallery: Gallery) -> str:
    """Return the server that was last given rows of the collection, "" where none was."""
    return gallery.store.read_setting(REMOTE)


def _read_recorded(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the id of the collection's key, and where it was written; "" for what is not."""
    from facerec.gallery.store import open_store

    with open_store(arguments.gallery, arguments.collection, locked=True) as store:
        return store.collection.key_id, store.read_setting(KEY_FILE)


def _record_remote(gallery: Gallery, url: str) -> None:
    """Note that rows went there: whoever is erased later has to be erased there, too."""
    if find_remote(gallery) != url:
        gallery.store.change_setting(REMOTE, url, gallery.operator)


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
        held, agreed = store.collection, store.read_setting(REMOTE) == arguments.remote
    if held.key_id and not agreed and not arguments.unencrypted:
        raise InputError(
            f"collection {held.name!r} is encrypted, but on a Qdrant server its embeddings lie "
            "plain; say --unencrypted if that is wanted; docs/cluster.md says how to protect them"
        )
    return connect_remote(settings, model_hash=held.model.hash, dim=held.model.dim, tenant=held.uid)
