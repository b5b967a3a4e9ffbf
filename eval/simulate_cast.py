"""Everybody in a simulation: who is enrolled or unknown, dev or test, and with which stills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.simulate_settings import SIMULATED
from facerec.checks import InputError
from facerec.data.sources import SourceItem, scan_source
from facerec.io import read_json, write_json

HALVES = ("dev", "test")
ENROLLED, UNKNOWN, DOCUMENT_ONLY = "enrolled", "unknown", "document only"
ROLES = (ENROLLED, UNKNOWN, DOCUMENT_ONLY)


@dataclass(frozen=True)
class Still:
    """A picture with one face.

    Attributes:
        path: where it lies.
        key: relative to its source's root.
        person: whom it shows.
        sha256: of the file.
        landmarks: five times x, y, pixels.
        asymmetry: 0 for a face seen from the front, towards 1 in profile.
    """

    path: Path
    key: str
    person: str
    sha256: str
    landmarks: tuple[tuple[float, float], ...]
    asymmetry: float


@dataclass(frozen=True)
class Person:
    """One person's part.

    Attributes:
        name: as in the source.
        role: "enrolled", "unknown" or "document only".
        half: "dev" or "test".
        document: the still that the document is made of; None for unknowns.
        videos: the stills that videos are made of; never the document's.
    """

    name: str
    role: str
    half: str
    document: Still | None
    videos: tuple[Still, ...]


@dataclass(frozen=True)
class Cast:
    """Everybody in a simulation.

    Attributes:
        people: sorted by name.
        rejected: (key, why) of every still that was looked at and not taken.
    """

    people: tuple[Person, ...]
    rejected: tuple[tuple[str, str], ...] = ()


def list_people(sources: Sequence[Path], leave_out: frozenset[str]) -> dict[str, list[SourceItem]]:
    """Return each person's pictures, people and pictures in the order of their names.

    Args:
        sources: folders with a folder a person, or lists, as for `facerec.data.sources`.
        leave_out: people who must not appear.

    Raises:
        InputError: a broken source, a person in two sources, a name that is no folder's name, or
            nobody.
    """
    people: dict[str, list[SourceItem]] = {}
    origin: dict[str, Path] = {}
    for source in sources:
        for item in scan_source(source).items:
            name = item.identity
            if not name or name in leave_out:
                continue
            if "/" in name or "\\" in name or name.startswith("."):
                raise InputError(
                    f"{source}: identity {name!r} must serve as a folder's name; rename it"
                )
            if origin.setdefault(name, source) != source:
                raise InputError(
                    f"{name} is in {origin[name]} and in {source}: one person or two? rename one, "
                    "or give --leave-out"
                )
            people.setdefault(name, []).append(item)
    if not people:
        raise InputError(
            f"{', '.join(map(str, sources))} must hold a folder a person, but no picture there "
            "has an identity"
        )
    return {name: people[name] for name in sorted(people)}


def write_cast(path: Path, fingerprint: str, cast: Cast) -> None:
    """Write a cast with the fingerprint of what it was chosen from."""
    people = [
        {
            **asdict(person),
            "document": _to_json(person.document),
            "videos": [_to_json(still) for still in person.videos],
        }
        for person in cast.people
    ]
    value = {"people": people, "rejected": [list(pair) for pair in cast.rejected]}
    write_json(path, {SIMULATED: True, "fingerprint": fingerprint, **value})


def read_cast(path: Path, fingerprint: str) -> Cast | None:
    """Return the cast that `write_cast` wrote; None when there is none, or of other inputs."""
    if not path.is_file():
        return None
    value = read_json(path)
    if value.get("fingerprint") != fingerprint:
        return None
    people = [
        Person(
            person["name"],
            person["role"],
            person["half"],
            None if person["document"] is None else _read_still(person["document"]),
            tuple(_read_still(still) for still in person["videos"]),
        )
        for person in value["people"]
    ]
    return Cast(tuple(people), tuple((key, reason) for key, reason in value["rejected"]))


def _to_json(still: Still | None) -> dict[str, Any] | None:
    return None if still is None else {**asdict(still), "path": str(still.path)}


def _read_still(value: dict[str, Any]) -> Still:
    landmarks = tuple((float(x), float(y)) for x, y in value["landmarks"])
    return Still(**{**value, "path": Path(value["path"]), "landmarks": landmarks})
