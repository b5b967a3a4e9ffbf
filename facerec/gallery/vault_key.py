"""The gallery's key: made, written to a file of its owner's, read from there or the environment."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
import string
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from facerec.checks import InputError
from facerec.io import sync_folder

KEY_VARIABLE = "FACEREC_GALLERY_KEY"
KEY_BYTES = 32

_KEY_FILE_LIMIT = 4096


@dataclass(frozen=True, eq=False)
class GalleryKey:
    """The key of a gallery; neither its repr nor a pickle shows it.

    Python cannot wipe memory: the bytes stay in this process until their pages are reused.

    Attributes:
        value: 32 secret bytes.

    Raises:
        InputError: not 32 bytes.
    """

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.value, bytes) or len(self.value) != KEY_BYTES:
            got = f"{len(self.value)}" if isinstance(self.value, bytes) else "another type"
            raise InputError(f"a gallery key must be {KEY_BYTES} bytes, got {got}; make_key makes")

    @property
    def id(self) -> str:
        """16 hex digits that tell keys apart; from them the key cannot be computed."""
        return hashlib.sha256(b"facerec gallery key id\0" + self.value).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"GalleryKey(id={self.id!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GalleryKey):
            return NotImplemented
        return hmac.compare_digest(self.value, other.value)

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> GalleryKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> GalleryKey:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a gallery key is not pickled; read it again where it is needed")


def make_key() -> GalleryKey:
    """Return a fresh random key from the system's generator."""
    return GalleryKey(secrets.token_bytes(KEY_BYTES))


def write_key(key: GalleryKey, path: Path) -> None:
    """Write a key to a new file that only its owner may read (mode 0600), all or nothing.

    The file holds a header line with the key's id, then the key as 64 hex digits.

    Raises:
        InputError: the file exists already, its folder does not, or nothing can be written there.
    """
    text = (
        f"# facerec gallery key {key.id}: keep it secret, and apart from the gallery; "
        f"without it the gallery cannot be read\n{key.value.hex()}\n"
    )
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=".key.", dir=path.parent)  # mode 0600
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, a link never replaces what is there
        sync_folder(path.parent)
    except FileExistsError:
        raise InputError(
            f"{path} exists already and may be the only copy of a key; choose another name"
        ) from None
    except OSError as error:
        raise InputError(f"key file {path} cannot be written: {error.strerror}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_key(path: Path | None) -> GalleryKey | None:
    """Return the key in a file, else the one in the environment, else None.

    Both may hold 64 hex digits or base64 (with or without padding, either alphabet) of 32 bytes;
    in a file, empty lines and lines that begin with # do not count.

    Args:
        path: the key file; None: look at FACEREC_GALLERY_KEY.

    Raises:
        InputError: the file is missing, unreadable, open to other users, or holds no key; or the
            variable is set to something that is none. No message shows what was read.
    """
    if path is not None:
        return _parse_key(_read_key_file(path), f"key file {path}")
    text = os.environ.get(KEY_VARIABLE)
    if text is None:
        return None
    # Set but empty is a mistake somewhere: to take it for "no key" would store faces in the open.
    return _parse_key(text, f"environment variable {KEY_VARIABLE}")


def _read_key_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_KEY_FILE_LIMIT + 1)
    except FileNotFoundError:
        raise InputError(f"key file {path} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"key file {path} cannot be read: {error.strerror}") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError(
            f"key file {path} must be its owner's alone, but has mode {stat.S_IMODE(mode):04o}; "
            f"run: chmod 600 {path}"
        )
    if len(data) > _KEY_FILE_LIMIT:
        raise InputError(f"key file {path} is too long to be one; check the path")
    return data.decode("ascii", "replace")


def _parse_key(text: str, what: str) -> GalleryKey:
    """Return the key in a text of hex digits or base64; messages never quote the text."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    wanted = "expected 64 hex digits or base64 of 32 bytes"
    if len(lines) != 1:
        raise InputError(f"{what} must hold one key, got {len(lines) or 'none'}; {wanted}")
    digits = lines[0]
    if set(digits) <= set(string.hexdigits):
        if len(digits) != 2 * KEY_BYTES:
            raise InputError(f"{what} holds a key of {len(digits)} hex digits; {wanted}")
        return GalleryKey(bytes.fromhex(digits))
    try:
        padded = digits.rstrip("=").translate(str.maketrans("-_", "+/"))
        value = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{what} holds neither hex digits nor base64; {wanted}") from None
    if len(value) != KEY_BYTES:
        raise InputError(f"{what} holds a key of {len(value)} bytes; {wanted}")
    return GalleryKey(value)
