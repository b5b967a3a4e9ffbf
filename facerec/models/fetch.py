"""Download a model into the store: https, checked while it streams, nothing left on failure."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

from facerec.checks import InputError, JobError
from facerec.models.catalogue import CatalogueEntry
from facerec.models.store import ModelStore, check_name
from facerec.models.weights import GRAPH_NAME, Artefact
from facerec.progress import Progress

PACK_FOLDER = "pack"
"""In an artefact made of a zip: all its graphs, for `--detector insightface:FOLDER`."""

MAX_BYTES = 2 << 30  # for addresses whose size is not pinned, and for what a zip unpacks to
_BLOCK = 1 << 18
_LONGEST_TIMEOUT_S = 86_400
_OTHER_WAY = "check the address, or give another with --address"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class FetchError(JobError):
    """A download that failed; nothing was left behind."""


def fetch_model(
    entry: CatalogueEntry,
    store: ModelStore,
    *,
    address: str | None = None,
    force: bool = False,
    timeout_s: float = 30.0,
) -> Artefact:
    """Download an entry, verify it, and put it into the store under its name.

    The file arrives in a hidden folder of the store, which is removed whatever goes wrong, Ctrl-C
    included. The licence must have been shown and accepted before: see `facerec models fetch`.

    Args:
        entry: what to fetch.
        store: where to.
        address: another place that has the same file; a pinned size and sha256 hold all the same.
        force: replace an artefact of that name.
        timeout_s: longest silence of the server, seconds.

    Raises:
        InputError: the name is taken, the address is not https, or the model fails its contract.
        FetchError: the download failed, or is not what the catalogue says.
    """
    name = entry.name
    store.check_free(name, force)
    address = check_address(address or entry.address)
    if not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
        raise InputError(
            f"the timeout must lie above 0 and up to {_LONGEST_TIMEOUT_S} seconds, got {timeout_s}"
        )
    try:
        with store.staging() as staged:
            target = staged / ("pack.zip" if entry.recogniser else GRAPH_NAME)
            digest = download(
                address, target, size=entry.size, sha256=entry.sha256, timeout_s=timeout_s
            )
            if entry.recogniser:
                _unpack(target, staged / PACK_FOLDER, entry.recogniser)
                _link(staged / PACK_FOLDER / entry.recogniser, staged / GRAPH_NAME)
                target.unlink()
            source = f"{entry.about}; {address}, sha256 {digest}"
            fields = {"licence": entry.licence, "source": source, **entry.info}
            return store.install(staged, name, fields, force=force)
    except OSError as error:
        raise FetchError(_explain(error, address)) from error


def check_address(address: str) -> str:
    """Return an address that is https, or http on this machine; else raise InputError."""
    try:
        parts = urllib.parse.urlsplit(address)
        whole = parts.port != 0 and address.isascii() and not re.search(r"[\x00-\x20\x7f]", address)
    except ValueError:  # a broken port or IPv6 host
        whole = False
    if not whole:
        raise InputError(f"address {address!r} must be a whole URL; check how it is written")
    if parts.scheme == "https" and parts.hostname:
        return address
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return address
    raise InputError(
        f"models are fetched over https only, got {address!r}; give an https:// address, or "
        "register a local file with facerec models add"
    )


def download(
    address: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = 30.0,
) -> str:
    """Stream an address into a file and return its sha256; the caller removes it on failure.

    Args:
        address: https, or http on this machine; redirects must stay so.
        target: the file to write.
        size: bytes that must come, any number up to `max_bytes` when None.
        sha256: 64 hex digits that the file must have, any when None.
        max_bytes: where to stop when the size is not known.
        timeout_s: longest silence of the server, seconds.

    Raises:
        InputError: an address that is refused.
        FetchError: the server says no, goes silent, stops early, sends too much or another file.
    """
    request = urllib.request.Request(
        check_address(address), headers={"User-Agent": "facerec", "Accept-Encoding": "identity"}
    )
    opener = urllib.request.build_opener(_SafeRedirects())
    try:
        with opener.open(request, timeout=timeout_s) as response:
            announced = response.headers.get("Content-Length", "")
            expected = size or (int(announced) if announced.isdecimal() else None)
            with target.open("wb") as file, Progress("fetch", expected, "bytes") as progress:
                count, digest = _stream(response, file, size or max_bytes, address, progress)
    except urllib.error.HTTPError as error:
        raise FetchError(f"{address} answers {error.code} {error.reason}; {_OTHER_WAY}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"{address} cannot be reached: {error.reason}; {_OTHER_WAY}") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise FetchError(
            f"{address} broke off: {type(error).__name__} {error}; try again"
        ) from error
    if expected is not None and count != expected:
        raise FetchError(f"{address} broke off after {count} of {expected} bytes; try again")
    if sha256 is not None and digest != sha256:
        raise FetchError(
            f"{address} has sha256 {digest}, but {sha256} was expected: not the file that was "
            "vetted, nothing was kept"
        )
    return digest


def _stream(
    response: Any, file: IO[bytes], limit: int, address: str, progress: Progress
) -> tuple[int, str]:
    """Copy a response into a file; return bytes and sha256."""
    count, digest = 0, hashlib.sha256()
    while block := response.read(_BLOCK):
        count += len(block)
        if count > limit:
            raise FetchError(f"{address} sends more than the {limit} bytes expected; {_OTHER_WAY}")
        digest.update(block)
        file.write(block)
        progress.advance(len(block))
    file.flush()
    os.fsync(file.fileno())
    return count, digest.hexdigest()


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and to this machine only from this machine."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        local = urllib.parse.urlsplit(req.full_url).hostname in _LOOPBACK
        if not (newurl.startswith("https://") or (local and _is_local(newurl))):
            raise FetchError(f"{req.full_url} redirects to {newurl}, which is refused: not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_local(address: str) -> bool:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _unpack(archive: Path, folder: Path, recogniser: str) -> None:
    """Unpack the graphs of a zip, flat; no path in it is obeyed, no other file is taken."""
    folder.mkdir()
    left = MAX_BYTES
    try:
        with zipfile.ZipFile(archive) as pack:
            for member in pack.infolist():
                name = PurePosixPath(member.filename.replace("\\", "/")).name
                if member.is_dir() or not name.endswith(".onnx"):
                    continue
                check_name(name)
                with pack.open(member) as source, (folder / name).open("xb") as target:
                    while block := source.read(_BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise FetchError(f"{archive.name} unpacks to over {MAX_BYTES} bytes")
                        target.write(block)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, FileExistsError) as error:
        raise FetchError(f"the download is not a usable zip: {error}") from error
    if not (folder / recogniser).is_file():
        found = ", ".join(sorted(file.name for file in folder.iterdir())) or "no graph"
        raise FetchError(f"the pack has no {recogniser}, but {found}")


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _explain(error: OSError, address: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full: {address} was not kept; free some space or set FACEREC_HOME"
    return f"{address} could not be stored: {error}"
