"""MXNet RecordIO files without MXNet: the framing, and a writer; `record_index` reads them.

A record is `uint32 magic, uint32 (cflag << 29 | length)`, the payload and zeros up to a multiple
of four bytes. A payload that holds the magic at a multiple of four is cut there: the parts have
cflag 1 (first), 2 (middle), 3 (last), the magic between them is left out. So the magic at a
multiple of four always begins a part. A face record's payload is the header `uint32 flag,
float32 label, uint64 id, uint64 id2`, `flag` float32 labels when flag > 0, and the picture.

Source: the dmlc-core and MXNet formats as InsightFace's packing uses them.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from facerec.checks import InputError, check_one_of
from facerec.data.chip_files import ByteRanges
from facerec.data.images import UnreadableImageError
from facerec.io import atomic_path

MAGIC = 0xCED7230A
MAX_PAYLOAD = (1 << 29) - 1
"""Bytes of the longest part: its length has 29 bits."""
WHOLE, FIRST, MIDDLE, LAST = range(4)
"""Values of cflag."""
HEADER = struct.Struct("<IfQQ")
LAYOUTS = ("plain", "insightface")

_FRAME = struct.Struct("<II")
_MAGIC_BYTES = struct.pack("<I", MAGIC)
# Header labels are float32, which counts in ones only up to here.
_MAX_EXACT = 1 << 24


class DamagedRecordError(ValueError):
    """Bytes that are not a whole record; the message says in a few words why."""


class Record(NamedTuple):
    """A record's payload taken apart.

    Attributes:
        label: the header's label, or the first of several.
        labels: all of them, () when the header has a single one.
        image: an encoded picture, or nothing in records that describe the set.
    """

    label: float
    labels: tuple[float, ...]
    image: bytes


def frame(payload: bytes) -> bytes:
    """Return a payload as it stands in a file, a multiple of four bytes.

    Raises:
        InputError: it is longer than `MAX_PAYLOAD`.
    """
    if len(payload) > MAX_PAYLOAD:
        raise InputError(
            f"a record holds at most {MAX_PAYLOAD:,} bytes, got {len(payload):,}; shrink it"
        )
    cuts, position = [], payload.find(_MAGIC_BYTES)
    while position >= 0:
        aligned = position % 4 == 0
        if aligned:
            cuts.append(position)
        position = payload.find(_MAGIC_BYTES, position + (4 if aligned else 1))
    parts, start = [], 0
    for number, cut in enumerate(cuts):
        flag = MIDDLE if number else FIRST
        parts += [_FRAME.pack(MAGIC, flag << 29 | cut - start), payload[start:cut]]
        start = cut + 4
    flag = LAST if cuts else WHOLE
    parts += [_FRAME.pack(MAGIC, flag << 29 | len(payload) - start), payload[start:]]
    return b"".join([*parts, bytes(-len(payload) % 4)])


def unframe(data: bytes) -> bytes:
    """Return the payload of the record that begins `data`; what follows it is ignored.

    Raises:
        DamagedRecordError: no record begins there, or it is cut.
    """
    parts: list[bytes] = []
    position = 0
    while True:
        if position + 8 > len(data):
            raise DamagedRecordError("it ends early")
        magic, word = _FRAME.unpack_from(data, position)
        flag, length = word >> 29, word & MAX_PAYLOAD
        if magic != MAGIC or flag not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise DamagedRecordError("no record begins there" if not parts else "a part is missing")
        if position + 8 + length > len(data):
            raise DamagedRecordError("it ends early")
        parts.append(data[position + 8 : position + 8 + length])
        if flag in (WHOLE, LAST):
            return _MAGIC_BYTES.join(parts)
        position += 8 + length + -length % 4


def unpack(payload: bytes) -> Record:
    """Return header and picture of a payload.

    Raises:
        DamagedRecordError: it is shorter than its header says.
    """
    if len(payload) < HEADER.size:
        raise DamagedRecordError("it is shorter than a header")
    flag, label, _, _ = HEADER.unpack_from(payload)
    start = HEADER.size + 4 * flag
    if start > len(payload):
        raise DamagedRecordError("it is shorter than its header says")
    labels = struct.unpack_from(f"<{flag}f", payload, HEADER.size)
    return Record(labels[0] if labels else label, labels, payload[start:])


def pack(image: bytes, label: float | Sequence[float], key: int = 0) -> bytes:
    """Return the payload of a picture with its label or labels."""
    if not isinstance(label, Sequence):
        return HEADER.pack(0, label, key, 0) + image
    floats = struct.pack(f"<{len(label)}f", *label)
    return HEADER.pack(len(label), 0.0, key, 0) + floats + image


class RecordRanges(ByteRanges):
    """Chips in RecordIO files: `offsets` and `lengths` are those of whole records."""

    joint = "#"

    def read_bytes(self, index: int) -> bytes:
        """Return the encoded picture of a record.

        Raises:
            UnreadableImageError: the file cannot be read, or no whole record is there.
        """
        data = super().read_bytes(index)
        try:
            return unpack(unframe(data)).image
        except DamagedRecordError as error:
            raise UnreadableImageError(
                self.name(index), "damaged", f"is not a whole record: {error}; pack it again"
            ) from error


class RecordWriter:
    """Writes a `.rec` file and its `.idx`, both or neither; a context manager.

    Leaving it by an exception leaves what was there before.

    Args:
        path: ends in `.rec`.
        layout: "plain" has only chips, keys from 0. "insightface" has in record 0 where the
            records of the identities lie, then the chips, key 1 on, identity by identity, then a
            record an identity with the range of its chips.

    Raises:
        InputError: another suffix or layout.
    """

    def __init__(self, path: Path, layout: str = "plain") -> None:
        check_one_of(layout, "layout", LAYOUTS)
        if path.suffix != ".rec":
            raise InputError(f"{path} must end in .rec, so that its .idx can lie beside it")
        self.path = path
        self.layout = layout
        self._stack = contextlib.ExitStack()
        self._offsets: list[int] = []
        self._label: float | None = None
        self._ranges: list[tuple[float, int]] = []  # (label, first key) of each identity

    def __enter__(self) -> RecordWriter:
        # Left in the other order: the .rec gets its name before the .idx does.
        index = self._stack.enter_context(atomic_path(self.path.with_suffix(".idx")))
        records = self._stack.enter_context(atomic_path(self.path))
        self._index: IO[str] = self._stack.enter_context(index.open("w", encoding="ascii"))
        self._file: IO[bytes] = self._stack.enter_context(records.open("wb"))
        if self.layout == "insightface":
            self._append(pack(b"", (0.0, 0.0)))
        return self

    def write(self, image: bytes, label: int | Sequence[float]) -> int:
        """Append a chip and return its key.

        Args:
            image: encoded, not empty.
            label: a whole number from 0, or several numbers of which the first is that.

        Raises:
            InputError: an empty picture, a label that float32 does not hold, or, in layout
                "insightface", a label smaller than the one before.
        """
        first = float(label[0] if isinstance(label, Sequence) else label)
        if not image:
            raise InputError("a record must hold a picture, got no bytes; leave it out")
        if not (first.is_integer() and 0 <= first < _MAX_EXACT):
            raise InputError(
                f"a label must be a whole number from 0 to {_MAX_EXACT - 1:,}, got {first:g}"
            )
        key = len(self._offsets)
        if self.layout == "insightface":
            self._follow(first, key)
        self._append(pack(image, label, key))
        return key

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _follow(self, label: float, key: int) -> None:
        if self._label is not None and label < self._label:
            raise InputError(
                f"layout insightface needs chips in order of their labels, got {label:g} after "
                f"{self._label:g}; sort them, or choose layout plain"
            )
        if key + len(self._ranges) + 1 >= _MAX_EXACT:
            raise InputError(
                f"layout insightface holds fewer than {_MAX_EXACT:,} chips and identities: its "
                "ranges are float32; choose layout plain"
            )
        if label != self._label:
            self._ranges.append((label, key))
        self._label = label

    def _append(self, payload: bytes) -> None:
        self._offsets.append(self._file.tell())
        self._index.write(f"{len(self._offsets) - 1}\t{self._offsets[-1]}\n")
        self._file.write(frame(payload))

    def _finish(self) -> None:
        if self.layout == "insightface":
            first = len(self._offsets)
            ends = [start for _, start in self._ranges[1:]] + [first]
            for (_, start), end in zip(self._ranges, ends, strict=True):
                self._append(pack(b"", (float(start), float(end)), len(self._offsets)))
            self._file.seek(0)
            self._file.write(frame(pack(b"", (float(first), float(len(self._offsets))))))
        # A .rec must never stand beside the .idx of another: without one it is scanned.
        self.path.with_suffix(".idx").unlink(missing_ok=True)


def find_records(path: Path) -> Path:
    """Return the `.rec` file that `path` is or holds as `train.rec`.

    Raises:
        InputError: there is none.
    """
    found = path / "train.rec" if path.is_dir() else path
    if not found.is_file() or found.suffix != ".rec":
        raise InputError(
            f"{path} must be a .rec file or a folder with train.rec, and is neither; check the path"
        )
    return found
