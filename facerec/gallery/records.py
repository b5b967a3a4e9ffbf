"""What the log says of people and their samples without naming them: salted hashes of the rows.

A commitment is HMAC-SHA256 under the person's own salt. While the row is there, anybody with the
file can check that it is as it was enrolled. When the person is erased their salt goes with them,
and the hash in the log cannot be tied to a name, a picture or an embedding any more.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Sequence
from typing import Any

from facerec.io import sha256_bytes

SALT_BYTES = 16

SAMPLE_FIELDS = (
    "norm",
    "quality",
    "det_score",
    "source_class",
    "document_class",
    "captured",
    "print_scan",
    "picture_sha256",
    "source",
    "version",
    "created",
)
"""The columns of a sample that its commitment covers, beside its embedding and its picture."""


def make_uid() -> str:
    """Return a random name, 32 hex digits."""
    return secrets.token_hex(16)


def make_salt() -> bytes:
    """Return a new person's salt."""
    return secrets.token_bytes(SALT_BYTES)


def commit_person(salt: bytes, name: str, kind: str, created: str) -> str:
    """Return what the log says of a person's row, 64 hex digits."""
    return _commit(salt, ["person", name, kind, created])


def commit_sample(
    salt: bytes, embedding: bytes, picture: bytes | None, fields: Sequence[Any]
) -> str:
    """Return what the log says of a sample's row, 64 hex digits.

    Args:
        salt: the person's.
        embedding: float32, little-endian, as it was given: not sealed, so that a new key changes
            nothing in the log.
        picture: the kept picture, None where none is.
        fields: the values of SAMPLE_FIELDS, in that order.
    """
    kept = "" if picture is None else sha256_bytes(picture)
    return _commit(salt, ["sample", sha256_bytes(embedding), kept, *fields])


def _commit(salt: bytes, values: list[Any]) -> str:
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hmac.digest(salt, text.encode(), "sha256").hex()


def hash_values(values: dict[str, Any]) -> str:
    """Return the sha256 of plain JSON values, for rows that concern nobody."""
    return sha256_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def hash_threshold(value: float, kind: str, normalisation: str, details: str) -> str:
    """Return what the log says of a threshold's row."""
    return hash_values(
        {"value": value, "kind": kind, "norm": normalisation, "details": json.loads(details)}
    )
