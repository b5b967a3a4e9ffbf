"""WebDataset shards: tar files of KEY.jpg beside KEY.cls or KEY.json, indexed by their headers."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_range
from facerec.data.chip_files import ByteRanges, name_some
from facerec.data.headers import read_header
from facerec.data.tar_members import TarFaultError, TarMember, iter_members
from facerec.io import sync_file, sync_folder

PICTURES = frozenset({"jpg", "jpeg", "png", "webp"})
LABELS = frozenset({"cls", "json"})
FIELDS = ("identity", "label")
"""Fields of a .json member that name who is shown, the first one found counts."""

_MAX_LABEL_BYTES = 1 << 20
_NUMBER_DIGITS = 7
_SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp"}


class TarSample(NamedTuple):
    """What `write_shards` writes.

    Attributes:
        key: unique, without a dot; / makes folders.
        image: an encoded JPEG, PNG or WebP picture.
        identity: a text, which goes into .json; a number, which goes into .cls; None for nobody.
    """

    key: str
    image: bytes
    identity: str | int | None = None


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The pictures in shards, in order of shard and place.

    Attributes:
        chips: where n pictures lie.
        identities: n names, "" where a shard names nobody.
        damage: one sentence for each thing that could not be read.
    """

    chips: ByteRanges
    identities: tuple[str, ...]
    damage: tuple[str, ...] = ()


def name_number(number: int) -> str:
    """Return the identity name of a class number; names sort like their numbers."""
    return f"{number:0{_NUMBER_DIGITS}d}"


def find_shards(place: Path) -> tuple[Path, ...]:
    """Return the shards of a folder, of a glob pattern such as `SET/train-*.tar`, or one shard.

    Raises:
        InputError: there is none, or it is compressed.
    """
    if place.is_dir():
        found = sorted(place.glob("*.tar"))
    else:
        found = [place] if place.is_file() else _expand(place)
    if not found:
        raise InputError(
            f"{place} must be a folder with .tar files, a pattern such as SET/*.tar or one .tar "
            "file, and matches nothing; check it"
        )
    for path in found:
        with path.open("rb") as file:
            if file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
                raise InputError(f"{path} is compressed; uncompress it: chips are read in place")
    return tuple(found)


def read_tars(place: Path) -> TarIndex:
    """Return the pictures of all shards at `place`, which is as in `find_shards`.

    Only headers and labels are read. What stands before a damaged place is kept.

    Raises:
        InputError: no shard, or no picture in any.
    """
    shards = find_shards(place)
    import pyarrow as pa

    names: list[Any] = []
    identities: list[str] = []
    known: dict[str, str] = {}  # one text an identity, not one a picture
    damage: list[str] = []
    places: list[NDArray[np.int64]] = []
    for number, path in enumerate(shards):
        members, people, faults = _read_shard(path)
        names.append(pa.array([member.name for member in members], pa.large_string()))
        identities += [known.setdefault(who, who) for who in people]
        damage += faults
        rows = [(number, member.offset, member.length) for member in members]
        places.append(np.array(rows, np.int64).reshape(-1, 3))
    if not identities:
        raise InputError(
            f"{place} must hold pictures ({', '.join(sorted(PICTURES))}), got none in "
            f"{len(shards)} shards{': ' + damage[0] if damage else ''}"
        )
    table = np.concatenate(places)
    return TarIndex(
        ByteRanges(
            shards,
            table[:, 0].astype(np.int32),
            table[:, 1].copy(),
            table[:, 2].copy(),
            pa.concat_arrays(names),
        ),
        tuple(identities),
        name_some(damage),
    )


def write_shards(
    samples: Iterable[TarSample], folder: Path, per_shard: int = 10_000
) -> tuple[Path, ...]:
    """Write WebDataset shards `000000.tar`, `000001.tar`, …: all of them or none.

    The same samples give the same bytes.

    Args:
        samples: in the order wanted.
        folder: made; may exist when it is empty.
        per_shard: pictures a shard.

    Returns:
        The shards.

    Raises:
        InputError: the folder is not empty, a key is empty, has a dot or stands there twice, a
            picture is none, or there are no samples.
    """
    check_range(per_shard, "per_shard", 1, 10**6)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} must be a new or empty folder; name another one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        made = Path(place) / "shards"
        made.mkdir()
        names = _write_all(samples, made, per_shard)
        sync_folder(made)
        made.replace(folder)  # onto an empty folder: one step
    sync_folder(folder.parent)
    return tuple(folder / name for name in names)


def _expand(pattern: Path) -> list[Path]:
    return sorted(Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))


def _read_shard(path: Path) -> tuple[list[TarMember], list[str], list[str]]:
    """Return the pictures of one shard, their identities ("" unknown) and what is damaged."""
    pictures: list[tuple[TarMember, str]] = []
    labels: dict[str, dict[str, str]] = {}
    damage: list[str] = []
    with path.open("rb") as file:
        try:
            for member in iter_members(file):
                key, suffix = _split_name(member.name)
                if suffix in PICTURES:
                    pictures.append((member, key))
                elif suffix in LABELS:
                    try:
                        found = _read_label(file, member, suffix)
                    except ValueError as error:
                        damage.append(f"{path.name}/{member.name}: {error}")
                    else:
                        labels.setdefault(key, {})[suffix] = found
        except TarFaultError as error:
            damage.append(f"{path.name}: {error}; the {len(pictures)} pictures before are kept")
    people = [_choose_label(labels.get(key, {})) for _, key in pictures]
    return [member for member, _ in pictures], people, damage


def _split_name(name: str) -> tuple[str, str]:
    """Return (key, suffix in lower case): the key ends at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _read_label(file: IO[bytes], member: TarMember, suffix: str) -> str:
    """Return the identity in a .cls or .json member, "" when it holds none."""
    if member.length > _MAX_LABEL_BYTES:
        raise ValueError(f"a label of {member.length:,} bytes is none")
    data = os.pread(file.fileno(), member.length, member.offset)
    if suffix == "cls":
        text = data.decode("ascii").strip()
        if not text.isdigit():
            raise ValueError(f"must hold a whole number from 0, got {text[:20]!r}")
        return name_number(int(text))
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"must hold a JSON object with {' or '.join(FIELDS)}")
    for field in FIELDS:
        found = value.get(field)
        if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
            return name_number(found)
        if isinstance(found, str) and found:
            return found
    return ""


def _choose_label(found: dict[str, str]) -> str:
    return found.get("json") or found.get("cls", "")


def _write_all(samples: Iterable[TarSample], folder: Path, per_shard: int) -> list[str]:
    names: list[str] = []
    seen: set[str] = set()
    stream = iter(samples)
    for first in stream:
        names.append(f"{len(names):06d}.tar")
        path = folder / names[-1]
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for sample in chain([first], islice(stream, per_shard - 1)):
                _write_sample(archive, sample, seen)
        sync_file(path)
    if not names:
        raise InputError("shards need at least one sample, got none")
    return names


def _write_sample(archive: tarfile.TarFile, sample: TarSample, seen: set[str]) -> None:
    key = sample.key
    if not key or "." in PurePosixPath(key).name or key in seen or key.endswith("/"):
        raise InputError(
            f"the key of a sample must be unique and without a dot, got {key!r}"
            f"{' again' if key in seen else ''}; rename it"
        )
    seen.add(key)
    header = read_header(sample.image)
    suffix = _SUFFIXES.get(header.format if header else "")
    if suffix is None:
        raise InputError(f"sample {key!r} must be a JPEG, PNG or WebP picture; convert it first")
    parts = [(suffix, sample.image)]
    if isinstance(sample.identity, str):
        parts.append(("json", json.dumps({"identity": sample.identity}).encode()))
    elif sample.identity is not None:
        parts.append(("cls", str(int(sample.identity)).encode()))
    for ending, data in parts:
        member = tarfile.TarInfo(f"{key}.{ending}")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
