"""The tables of a gallery file, and the rows that go in and out of them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.gallery import audit

FILE_NAME = "gallery.sqlite"
SCHEMA_VERSION = 2
APPLICATION_ID = 0x46524731  # "FRG1": tells a gallery from any other SQLite file

MAIN = "main"
"""The collection of a gallery that names none."""

PERSON, STRANGER = "person", "stranger"
KINDS = (PERSON, STRANGER)
"""A stranger is somebody to be turned away by face who never becomes an identity."""

DOCUMENT, SCENE = "document", "scene"
SOURCE_CLASSES = (DOCUMENT, SCENE)

DOCUMENT_CLASSES = ("passport", "id_card", "licence", "visa", "photo", "other")
"""`photo` is a print or file of a portrait alone, as handed in with an application."""

# Identifiers are never used again (AUTOINCREMENT): an index and the log name rows by them.
TABLES = (
    """CREATE TABLE models (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE,
        dim INTEGER NOT NULL CHECK (dim > 0),
        created TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        uid TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE CHECK (name <> ''),
        model_id INTEGER NOT NULL REFERENCES models (id),
        fusion TEXT NOT NULL,
        key_id TEXT NOT NULL,
        secret BLOB NOT NULL,
        version INTEGER NOT NULL,
        created TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE people (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        uid TEXT NOT NULL UNIQUE,
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        name TEXT NOT NULL CHECK (name <> ''),
        kind TEXT NOT NULL CHECK (kind IN ('person', 'stranger')),
        salt BLOB NOT NULL,
        data_key BLOB NOT NULL,
        version INTEGER NOT NULL,
        created TEXT NOT NULL,
        UNIQUE (collection_id, name)
    ) STRICT""",
    "CREATE INDEX people_by_version ON people (collection_id, version)",
    """CREATE TABLE samples (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        norm REAL NOT NULL,
        quality REAL,
        det_score REAL,
        source_class TEXT NOT NULL CHECK (source_class IN ('document', 'scene')),
        document_class TEXT NOT NULL,
        captured TEXT NOT NULL,
        print_scan INTEGER NOT NULL CHECK (print_scan IN (0, 1)),
        picture_sha256 TEXT NOT NULL,
        source TEXT NOT NULL,
        version INTEGER NOT NULL,
        created TEXT NOT NULL,
        embedding BLOB NOT NULL,
        picture BLOB,
        UNIQUE (person_id, picture_sha256)
    ) STRICT""",
    "CREATE INDEX samples_by_picture ON samples (picture_sha256)",
    "CREATE INDEX samples_by_version ON samples (collection_id, version)",
    "CREATE INDEX samples_by_age ON samples (collection_id, created)",
    """CREATE TABLE templates (
        person_id INTEGER PRIMARY KEY REFERENCES people (id) ON DELETE CASCADE,
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        samples INTEGER NOT NULL,
        version INTEGER NOT NULL,
        embedding BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX templates_by_version ON templates (collection_id, version)",
    """CREATE TABLE removed (
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        version INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('person', 'sample', 'template')),
        row INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX removed_by_version ON removed (collection_id, version)",
    """CREATE TABLE thresholds (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        value REAL NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('given', 'fpir', 'fmr')),
        normalisation TEXT NOT NULL,
        details TEXT NOT NULL,
        created TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE cohort (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        embedding BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE settings (
        collection_id INTEGER NOT NULL REFERENCES collections (id),
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (collection_id, key)
    ) STRICT""",
)

SCHEMA = (*TABLES, *audit.SCHEMA)


@dataclass(frozen=True)
class StoredModel:
    """The recogniser whose embeddings a collection holds."""

    name: str
    hash: str
    dim: int


@dataclass(frozen=True)
class Collection:
    """One watch list of a gallery: one model, one way of fusing, one key.

    Attributes:
        id: the row.
        uid: random, 32 hex digits: what the log and other stores call it.
        name: unique in its gallery.
        model: the recogniser.
        fusion: how samples become what is searched, one of `fusion.FUSIONS`.
        key_id: the key that opens it, "" where it is not encrypted.
    """

    id: int
    uid: str
    name: str
    model: StoredModel
    fusion: str
    key_id: str


@dataclass(frozen=True)
class Sample:
    """One picture of a person, as it goes into the store.

    Attributes:
        embedding: float32 (d,), unit norm.
        norm: the raw norm, a sign of quality.
        picture_sha256: 64 hex digits of the picture's file; the picture itself is not kept.
        source: the picture's file name.
        det_score: the detector's, None when there was no detector.
        quality: in [0, 1], None where nobody measured it.
        source_class: DOCUMENT or SCENE.
        document_class: one of DOCUMENT_CLASSES, "" for a scene or where nobody said.
        captured: when the picture was taken, "" or `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
        print_scan: whether it is a scan of a print.
        picture: the encoded chip, only where the collection keeps pictures.
    """

    embedding: NDArray[np.float32]
    norm: float
    picture_sha256: str
    source: str = ""
    det_score: float | None = None
    quality: float | None = None
    source_class: str = SCENE
    document_class: str = ""
    captured: str = ""
    print_scan: bool = False
    picture: bytes | None = None


@dataclass(frozen=True)
class Person:
    """One line of the watch list."""

    name: str
    samples: int
    created: str
    kind: str = PERSON
    uid: str = ""


@dataclass(frozen=True)
class SampleRow:
    """What the store tells of one sample; the embedding stays inside.

    Attributes: see `Sample`; `id` is the row, `created` when it was enrolled.
    """

    id: int
    person: str
    norm: float
    quality: float | None
    det_score: float | None
    source_class: str
    document_class: str
    captured: str
    print_scan: bool
    picture_sha256: str
    source: str
    created: str


@dataclass(frozen=True)
class Threshold:
    """From which score a candidate is accepted, and what is known of it.

    Attributes:
        id: the row.
        value: a cosine, or a normalised score.
        kind: "given", "fpir" or "fmr".
        normalisation: of the scores it is meant for.
        details: of a calibrated one: rate, people, interval, model hash, method.
        created: UTC, ISO 8601.
    """

    id: int
    value: float
    kind: str
    normalisation: str
    details: dict[str, Any]
    created: str


def check_person(name: str) -> str:
    """Return a person's name as it is stored, or raise InputError.

    Unicode is composed (NFC): a folder copied from macOS names the same person.
    """
    return _check_name(name, "a person's name", 200)


def check_collection(name: str) -> str:
    """Return a collection's name as it is stored, or raise InputError."""
    return _check_name(name, "a collection's name", 80)


def check_captured(captured: str) -> str:
    """Return a capture date if it is "", a year, a month or a day, else raise InputError."""
    if captured and not re.fullmatch(
        r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?", captured
    ):
        raise InputError(
            f"a capture date must be YYYY, YYYY-MM or YYYY-MM-DD, got {captured[:40]!r}"
        )
    return captured


def _check_name(name: str, what: str, longest: int) -> str:
    clean = unicodedata.normalize("NFC", name).strip()
    if not clean or not clean.isprintable() or len(clean) > longest:
        raise InputError(f"{what} must be 1 to {longest} printable characters, got {name[:40]!r}")
    return clean
