"""Tar shards as a source in parts: WebDataset, and what img2dataset writes (Parquet + tar).

A part is a range of bytes of a shard, the whole shard unless it is big. Its worker walks through
the shard's headers, reads the labels of its own pictures and then the pictures themselves; nothing
is read beforehand but the shards' names and sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from facerec.checks import InputError
from facerec.data.chip_files import ByteRanges
from facerec.data.images import IMAGE_SUFFIXES
from facerec.data.source_labels import (
    LABEL_SUFFIXES,
    check_column,
    first_line,
    read_label,
    read_shard_table,
)
from facerec.data.source_parts import (
    IDENTITY_COLUMNS,
    Fault,
    PackedItem,
    Part,
    PartContent,
    SourcePlan,
)
from facerec.data.sources import escape_name
from facerec.data.tar_members import TarFaultError, TarMember, iter_members

_COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")


def find_tars(path: Path) -> tuple[Path, list[Path]]:
    """Return the folder that keys are relative to and the shards, in order of their names.

    Args:
        path: a folder, one `.tar` file, or a pattern such as `SET/train-*.tar`.
    """
    if path.is_dir():
        return path, sorted(file for file in path.glob("*.tar") if not file.name.startswith("."))
    if path.is_file():
        return path.parent, [path] if path.suffix == ".tar" else []
    parts = path.parts
    fixed = next((n for n, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    root = Path(*parts[:fixed]) if fixed else Path()
    pattern = "/".join(parts[fixed:])
    return root, sorted(root.glob(pattern)) if pattern and root.is_dir() else []


def guess_tar_kind(shards: Iterable[Path]) -> str:
    """Return "img2dataset" when a table lies beside any shard, else "webdataset"."""
    beside = any(shard.with_suffix(".parquet").is_file() for shard in shards)
    return "img2dataset" if beside else "webdataset"


def open_tars(path: Path, kind: str, identity_column: str | None = None) -> TarSource:
    """Return the pictures in tar shards.

    Args:
        path: as for `find_tars`.
        kind: "webdataset" or "img2dataset".
        identity_column: the column of the tables beside the shards, or the field of the .json
            members, that names who is shown; None: the first of `IDENTITY_COLUMNS` found.

    Raises:
        InputError: there is no shard, or no table beside any has that column.
    """
    root, shards = find_tars(path)
    if not shards:
        raise InputError(
            f"source {path} must be a folder with .tar files, a pattern such as SET/*.tar or one "
            ".tar file, and matches nothing; check it"
        )
    tabled = kind == "img2dataset"
    if tabled and identity_column is not None:
        check_column(shards, identity_column)
    sizes = tuple((shard.relative_to(root).as_posix(), shard.stat().st_size) for shard in shards)
    missing: tuple[Fault, ...] = ()
    if tabled and path.is_dir():
        known = {shard.stem for shard in shards}
        tables = sorted(file.stem for file in path.glob("*.parquet") if file.stem.isdigit())
        lost = [stem for stem in tables if stem not in known]
        missing = tuple(Fault(f"{n}.tar", "is missing, but its table is there") for n in lost)
    fields = IDENTITY_COLUMNS if identity_column is None else (identity_column,)
    return TarSource(root, kind, sizes, TarReader(root.resolve(), fields, tabled), missing)


@dataclass(frozen=True)
class TarSource:
    """Tar shards that were found.

    Attributes:
        root: the folder that keys are relative to.
        kind: "webdataset" or "img2dataset".
        shards: name relative to the root and size in bytes of each.
        reader: reads their parts.
        faults: shards that are missing.
    """

    root: Path
    kind: str
    shards: tuple[tuple[str, int], ...]
    reader: TarReader
    faults: tuple[Fault, ...] = ()

    def plan(self, listing: Path, part_pictures: int, part_bytes: int) -> SourcePlan:
        """Cut the shards into parts; see `PartSource.plan`. No listing is written."""
        parts: list[Part] = []
        for name, size in self.shards:
            for begin in range(0, max(size, 1), part_bytes):
                parts.append(Part(len(parts), name, begin, begin + part_bytes))
        digest = hashlib.sha256(json.dumps(self.shards).encode()).hexdigest()
        return SourcePlan(
            self.root,
            self.kind,
            self.reader,
            parts,
            digest,
            None,
            len(self.shards) + len(self.faults),
            faults=self.faults,
        )


@dataclass
class _Shard:
    """What the headers of a shard say; pictures are those of one part, the rest is of all."""

    pictures: list[tuple[TarMember, str]] = field(default_factory=list)
    labels: dict[str, list[tuple[str, TarMember]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    names: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    ignored: int = 0
    fault: str = ""


@dataclass(frozen=True)
class TarReader:
    """Reads the parts of tar shards.

    Attributes:
        root: the folder that shards' names are relative to.
        fields: columns or fields that name who is shown, the first one found counts.
        tabled: whether a Parquet table lies beside each shard, as img2dataset writes them.
    """

    root: Path
    fields: tuple[str, ...]
    tabled: bool

    def read_part(self, part: Part) -> PartContent:
        """Return the pictures of a part; what is damaged comes out as faults.

        Two members of one name are one picture, the first.
        """
        path = self.root / part.shard
        first = part.begin == 0  # what concerns the whole shard is said once
        faults: list[Fault] = []
        people: dict[str, str] | None = None
        failed: set[str] = set()
        if self.tabled:
            table = path.with_suffix(".parquet")
            try:
                people, wanted, failed = read_shard_table(table, self.fields)
            except (OSError, pa.ArrowException, ValueError) as error:
                wanted = set()
                name = Path(part.shard).with_suffix(".parquet").as_posix()
                faults.append(Fault(name, f"cannot be read: {first_line(error)}"))
        try:
            with path.open("rb") as file:
                shard = _walk_shard(file, part, failed)
                named, damaged = self._name_people(file, shard, people)
        except OSError as error:
            fault = Fault(part.shard, f"cannot be read: {error.strerror or error}")
            return PartContent((), (*faults, fault) if first else (fault,), len(failed) * first)
        if shard.fault:
            kept = f"; the {len(shard.names):,} pictures before are kept"
            faults.append(Fault(part.shard, shard.fault + kept))
        elif self.tabled and (lost := len(wanted - shard.keys)):
            faults.append(Fault(part.shard, f"lacks {lost:,} pictures that its table names"))
        faults = faults if first else []
        if damaged:
            faults.append(Fault(part.shard, damaged))
        return PartContent(
            self._list_items(path, part, shard, named),
            tuple(faults),
            len(failed) * first,
            shard.ignored * first,
        )

    def name_part(self, part: Part) -> str:
        """Return the name of a part's shard."""
        return part.shard

    def _name_people(
        self, file: IO[bytes], shard: _Shard, people: dict[str, str] | None
    ) -> tuple[list[str], str]:
        """Return the identity of each picture, "" unknown, and what is wrong with the labels."""
        if people is not None:
            return [people.get(key, "") for _, key in shard.pictures], ""
        suffixes = frozenset({"json"}) if self.tabled else LABEL_SUFFIXES  # its .txt are captions
        named: list[str] = []
        damaged: list[str] = []
        for _, key in shard.pictures:
            found: dict[str, str] = {}
            for suffix, member in shard.labels.get(key, ()):
                if suffix in suffixes:
                    try:
                        found[suffix] = read_label(file, member, suffix, self.fields)
                    except (ValueError, RecursionError) as error:
                        damaged.append(f"{member.name}: {error}")
            named.append(next((found[s] for s in ("json", "cls", "txt") if found.get(s)), ""))
        sentence = f"{len(damaged):,} labels cannot be read, first {damaged[0]}" if damaged else ""
        return named, sentence

    def _list_items(
        self, path: Path, part: Part, shard: _Shard, named: list[str]
    ) -> list[PackedItem]:
        places = np.array([(m.offset, m.length) for m, _ in shard.pictures], np.int64)
        places = places.reshape(-1, 2)
        names = [_clean_name(member.name) for member, _ in shard.pictures]
        ranges = ByteRanges(
            (path,),
            np.zeros(len(names), np.int32),
            places[:, 0].copy(),
            places[:, 1].copy(),
            pa.array(names, pa.large_string()),
        )
        prefix = escape_name(part.shard)
        return [
            PackedItem(path, f"{prefix}/{name}", who, "", ranges, number)
            for number, (name, who) in enumerate(zip(names, named, strict=True))
        ]


def _walk_shard(file: IO[bytes], part: Part, failed: set[str]) -> _Shard:
    """Return what a shard's headers say, up to where they are damaged.

    Args:
        file: the shard.
        part: the pictures to list.
        failed: keys that hold no picture, whatever lies there.
    """
    shard = _Shard()
    if file.read(2) in _COMPRESSED:
        shard.fault = "is compressed; uncompress it: pictures are read in place"
        return shard
    try:
        for member in iter_members(file):
            name = _clean_name(member.name)
            key, suffix = _split_name(name)
            if suffix in LABEL_SUFFIXES and key:
                shard.labels[key].append((suffix, member))
            elif f".{suffix}" in IMAGE_SUFFIXES and not key.rpartition("/")[2].startswith("."):
                if name not in shard.names and key not in failed:
                    shard.names.add(name)
                    shard.keys.add(key)
                    if part.begin <= member.offset < part.end:
                        shard.pictures.append((member, key))
            else:
                shard.ignored += 1
    except TarFaultError as error:
        shard.fault = str(error)
    return shard


def _clean_name(name: str) -> str:
    """Return a member's name as a path that stays inside its shard."""
    parts = (part for part in name.split("/") if part not in ("", "."))
    return "/".join("%2e%2e" if part == ".." else part for part in parts)


def _split_name(name: str) -> tuple[str, str]:
    """Return (key, suffix in lower case): the key ends at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    start = 1 if last.startswith(".") else 0
    stem, _, suffix = last[start:].partition(".")
    return folder + slash + last[:start] + stem, suffix.lower()
