"""The tables of a gallery file, and the rows that go in and out of them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.gallery import audit

FILE_NAME = "gallery.sqlite"
SCHEMA_VERSION = 1
APPLICATION_ID = 0x46524731  # "FRG1": tells a gallery from any other SQLite file

SCHEMA = (
    """CREATE TABLE models (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE,
        dim INTEGER NOT NULL CHECK (dim > 0),
        created TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE CHECK (name <> ''),
        created TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE samples (
        id INTEGER PRIMARY KEY,
        person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        model_id INTEGER NOT NULL REFERENCES models (id),
        embedding BLOB NOT NULL,
        norm REAL NOT NULL,
        det_score REAL,
        picture_sha256 TEXT NOT NULL,
        source TEXT NOT NULL,
        created TEXT NOT NULL,
        UNIQUE (person_id, model_id, picture_sha256)
    ) STRICT""",
    "CREATE INDEX samples_by_picture ON samples (picture_sha256)",
    """CREATE TABLE thresholds (
        id INTEGER PRIMARY KEY,
        model_id INTEGER NOT NULL REFERENCES models (id),
        value REAL NOT NULL CHECK (value BETWEEN -1 AND 1),
        kind TEXT NOT NULL,
        people INTEGER NOT NULL,
        created TEXT NOT NULL
    ) STRICT""",
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    *audit.SCHEMA,
)


@dataclass(frozen=True)
class StoredModel:
    """The recogniser whose embeddings the gallery holds."""

    name: str
    hash: str
    dim: int


@dataclass(frozen=True)
class Sample:
    """One picture of a person, as it goes into the store.

    Attributes:
        embedding: float32 (d,), unit norm.
        norm: the raw norm, a sign of quality.
        picture_sha256: 64 hex digits of the picture's file; the picture itself is not kept.
        source: the picture's file name.
        det_score: the detector's, None when there was no detector.
    """

    embedding: NDArray[np.float32]
    norm: float
    picture_sha256: str
    source: str = ""
    det_score: float | None = None


@dataclass(frozen=True)
class Person:
    """One line of the watch list."""

    name: str
    samples: int
    created: str


def check_person(name: str) -> str:
    """Return a person's name as it is stored, or raise InputError.

    Unicode is composed (NFC): a folder copied from macOS names the same person.
    """
    clean = unicodedata.normalize("NFC", name).strip()
    if not clean or not clean.isprintable() or len(clean) > 200:
        raise InputError(
            f"a person's name must be 1 to 200 printable characters, got {name[:40]!r}"
        )
    return clean
