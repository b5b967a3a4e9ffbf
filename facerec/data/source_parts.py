"""A source of any size as parts that are read apart from each other, in any order and process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, overload

from facerec.data.chip_files import ChipFiles
from facerec.data.sources import SourceItem

IDENTITY_COLUMNS = ("identity", "label", "cls", "name")
"""Columns and fields that name who is shown, the first one found counts."""


class Fault(NamedTuple):
    """Something that could not be read and was passed over.

    Attributes:
        shard: the file, relative to the source's root.
        reason: what is wrong with it, in a sentence without its name.
    """

    shard: str
    reason: str


@dataclass(frozen=True)
class Part:
    """What is read, and kept when a run is killed, as one.

    Attributes:
        number: from 0, in the order of the source.
        shard: the tar file it lies in, relative to the source's root; "" for rows of a listing.
        begin: first row of the listing, or first byte of the tar file.
        end: the row or byte behind the last one.
    """

    number: int
    shard: str
    begin: int
    end: int


@dataclass(frozen=True)
class PartContent:
    """The pictures of a part.

    Attributes:
        items: in the order of the source; their bytes are read when they are asked for.
        faults: what could not be read.
        skipped: rows that say themselves that they hold no picture (failed downloads).
        ignored: files passed over because their names end like no picture's.
    """

    items: Sequence[SourceItem]
    faults: tuple[Fault, ...] = ()
    skipped: int = 0
    ignored: int = 0


class PartReader(Protocol):
    """Reads the parts of a source; small, and the same in another process."""

    @property
    def root(self) -> Path:
        """The folder in which it reads, absolute."""

    def read_part(self, part: Part) -> PartContent:
        """Return the pictures of a part; what is damaged comes out as faults."""

    def name_part(self, part: Part) -> str:
        """Return what messages call a part: its shard, or its first and last picture."""


@dataclass(frozen=True)
class SourcePlan:
    """A source cut into parts.

    Attributes:
        root: the folder that keys are relative to.
        kind: what it is.
        reader: reads the parts.
        parts: in the order of the source; made when asked for where there may be many.
        listing: sha256 of what the source holds: names, and sizes of shards.
        pictures: how many there are, None where only reading tells.
        shards: how many shard files there are, 0 for picture files.
        ignored: files passed over because their names end like no picture's.
        faults: shards that cannot be read at all.
    """

    root: Path
    kind: str
    reader: PartReader
    parts: Sequence[Part]
    listing: str
    pictures: int | None
    shards: int = 0
    ignored: int = 0
    faults: tuple[Fault, ...] = ()


class PartSource(Protocol):
    """A source that was found and holds something, before it is listed."""

    @property
    def root(self) -> Path:
        """The folder that keys are relative to."""

    @property
    def kind(self) -> str:
        """What it is."""

    def plan(self, listing: Path, part_pictures: int, part_bytes: int) -> SourcePlan:
        """Cut the source into parts.

        Args:
            listing: where the source's pictures are listed if its parts need that; the readers
                of the parts need the file.
            part_pictures: pictures a part, where they can be counted beforehand.
            part_bytes: bytes a part in tar files.

        Raises:
            InputError: the source cannot be read.
        """


@dataclass(frozen=True)
class PackedItem(SourceItem):
    """A picture in a bigger file.

    Attributes:
        files: where the part's pictures lie.
        index: which of them it is.
    """

    files: ChipFiles | None = None
    index: int = 0

    def read_bytes(self) -> bytes:
        """Return the encoded picture.

        Raises:
            UnreadableImageError: the file cannot be read, or what lies there is damaged.
        """
        if self.files is None:
            return super().read_bytes()
        return self.files.read_bytes(self.index)


class Ranges(Sequence[Part]):
    """Parts of `size` rows each over `total` rows of a listing; none of them is held."""

    def __init__(self, total: int, size: int) -> None:
        self.total = total
        self.size = size

    def __len__(self) -> int:
        return -(-self.total // self.size)

    @overload
    def __getitem__(self, number: int) -> Part: ...

    @overload
    def __getitem__(self, number: slice) -> list[Part]: ...

    def __getitem__(self, number: int | slice) -> Part | list[Part]:
        """Return a part, or the parts of a slice."""
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        place = range(len(self))[number]
        begin = place * self.size
        return Part(place, "", begin, min(begin + self.size, self.total))
