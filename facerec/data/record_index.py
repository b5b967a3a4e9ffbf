"""Keys, labels and places of the chips in a RecordIO file, found without reading the pictures."""

from __future__ import annotations

import mmap
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.chip_files import name_some
from facerec.data.recordio import (
    FIRST,
    HEADER,
    LAST,
    MAGIC,
    MAX_PAYLOAD,
    MIDDLE,
    WHOLE,
    find_records,
    unframe,
)

_MAGIC_BYTES = MAGIC.to_bytes(4, "little")
_HEADER_WORDS = HEADER.size // 4
_BLOCK = 1 << 18  # records looked at together
_SHORT = "is shorter than its header says"
_UNLABELLED = "has no label that is a whole number from 0"

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RecordIndex:
    """The chips of a RecordIO file.

    Attributes:
        path: the `.rec` file.
        keys: int64 (n,), ascending; without an `.idx`, numbers of the whole records from 0.
        labels: int64 (n,).
        offsets: int64 (n,), where the records begin, bytes.
        lengths: int64 (n,), of whole records, bytes.
        damage: one sentence a record that was left out.
    """

    path: Path
    keys: Ints
    labels: Ints
    offsets: Ints
    lengths: Ints
    damage: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)


class Place(NamedTuple):
    """Where a scan found a record, or why it found none.

    Attributes:
        offset: bytes.
        length: of the whole record, bytes; of what was skipped when there is a fault.
        fault: "" or a few words.
    """

    offset: int
    length: int
    fault: str


def read_records(path: Path) -> RecordIndex:
    """Return the index of a `.rec` file, or of `train.rec` in a folder.

    With an `.idx` beside it the records are found by that. In InsightFace's layout the labels
    come from the records of the identities, in others from the header of every chip. Without an
    `.idx` the file is scanned; what is no record is passed over up to the next one.

    Raises:
        InputError: no such file, an `.idx` that does not belong to it, or no chip in it.
    """
    path = find_records(path)
    if path.stat().st_size < 8:
        raise InputError(f"{path} must hold records, but is empty; pack it again")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    listed = path.with_suffix(".idx")
    if listed.exists():
        index = _read_listed(path, data, *_read_idx(listed))
    else:
        index = _read_scanned(path, data)
    if not len(index):
        reason = f": {index.damage[0]}" if index.damage else ""
        raise InputError(f"{path} must hold chips with labels, but has none{reason}; check it")
    return index


def scan(data: mmap.mmap | bytes) -> Iterator[Place]:
    """Yield the records of a file in order, and what lies between them where they are damaged."""
    position, size = 0, len(data)
    while position < size:
        length, fault = _measure(data, position)
        if not fault:
            yield Place(position, length, "")
            position += length
            continue
        following = _find_start(data, position + 4)
        yield Place(position, following - position, fault)
        position = following


def _read_idx(path: Path) -> tuple[Ints, Ints]:
    """Return the keys, ascending, and offsets of an `.idx` file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file: said better below
            table = np.loadtxt(path, np.int64, ndmin=2, encoding="ascii", comments=None)
    except (ValueError, UnicodeDecodeError, OverflowError):
        table = np.zeros((0, 0), np.int64)
    if table.shape[1:] != (2,) or not len(table):
        raise InputError(
            f"{path} must hold lines of a key, a tab and an offset; pack the set again, or remove "
            "the file: the records are then found by a scan"
        )
    keys, rows = np.unique(table[:, 0], return_index=True)
    return keys, table[rows, 1]


def _read_listed(path: Path, data: mmap.mmap, keys: Ints, offsets: Ints) -> RecordIndex:
    """Return the index of a file whose records' offsets are known."""
    if hasattr(mmap, "MADV_RANDOM"):
        data.madvise(mmap.MADV_RANDOM)
    inside = (offsets >= 0) & (offsets % 4 == 0) & (offsets + 8 <= len(data))
    if not inside.any():
        raise InputError(
            f"{path.with_suffix('.idx')} has no offset inside {path}; it belongs to another file: "
            "pack the set again, or remove it: the records are then found by a scan"
        )
    words = np.frombuffer(data, np.dtype("<u4"), len(data) // 4)
    found = _read_by_identity(path, words, keys, offsets) if inside.all() else None
    return found or _read_every_header(path, data, words, keys, offsets, inside)


def _read_by_identity(path: Path, words: Words, keys: Ints, offsets: Ints) -> RecordIndex | None:
    """Return the index from InsightFace's records of identities; None when it has none.

    None as well when they do not agree with the first and the last chip of each, or leave chips
    out: float32 cannot count above 2^24.
    """
    ranges = _read_range(words, offsets[:1]) if keys[0] == 0 else None
    if ranges is None:
        return None
    rows = np.flatnonzero((keys >= ranges[0][0]) & (keys < ranges[1][0]))
    ranges = _read_range(words, offsets[rows]) if len(rows) else None
    if ranges is None:
        return None
    first, last = ranges[0], ranges[1] - 1
    chips = np.arange(1, rows[0])
    tiled = first[0] == 1 and last[-1] == rows[0] - 1 and (first[1:] == last[:-1] + 1).all()
    if not tiled or (last < first).any() or not np.array_equal(keys[: rows[0]], np.arange(rows[0])):
        return None
    labels = _read_labels(words, offsets[first])
    if (labels < 0).any() or not np.array_equal(labels, _read_labels(words, offsets[last])):
        return None
    bounds = np.append(np.sort(offsets), len(words) * 4)
    ends = bounds[np.searchsorted(bounds, offsets[chips], "right")]
    return RecordIndex(
        path,
        keys[chips],
        np.repeat(labels, last - first + 1),
        offsets[chips],
        ends - offsets[chips],
    )


def _read_range(words: Words, offsets: Ints) -> tuple[Ints, Ints] | None:
    """Return the two labels of records without a picture, None unless all are such."""
    base = offsets // 4
    empty = 8 + 4 * _HEADER_WORDS
    if (base + empty // 4 > len(words)).any():
        return None
    flags = words[base + 2].astype(np.int64)
    lengths = words[base + 1].astype(np.int64)
    if (
        (words[base] != MAGIC).any()
        or (flags < 2).any()
        or (lengths != empty - 8 + 4 * flags).any()
    ):
        return None
    at = base + 2 + _HEADER_WORDS
    low, high = (words[at + place].view(np.float32) for place in (0, 1))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return low.astype(np.int64), high.astype(np.int64)


def _read_labels(words: Words, offsets: Ints) -> Ints:
    """Return the labels of records, -1 where there is none that is a whole number."""
    base = offsets // 4
    flags = words[base + 2]
    at = np.where(flags == 0, base + 3, base + 2 + _HEADER_WORDS)
    labels = words[np.minimum(at, len(words) - 1)].view(np.float32)
    whole = np.isfinite(labels) & (labels >= 0) & (labels < 2.0**31)
    numbers: Ints = np.where(whole, labels, -1).astype(np.int64)
    return np.where(numbers == np.where(whole, labels, -1), numbers, -1)


def _read_every_header(
    path: Path, data: mmap.mmap, words: Words, keys: Ints, offsets: Ints, inside: NDArray[np.bool_]
) -> RecordIndex:
    """Return the index from the header of every record."""
    labels = np.full(len(keys), -1, np.int64)
    lengths = np.zeros(len(keys), np.int64)
    pictures = np.ones(len(keys), bool)
    faults: dict[int, str] = dict.fromkeys(np.flatnonzero(~inside).tolist(), "lies outside it")
    good = np.flatnonzero(inside)
    for start in range(0, len(good), _BLOCK):
        rows = good[start : start + _BLOCK]
        base = offsets[rows] // 4
        sizes = (words[base + 1] & MAX_PAYLOAD).astype(np.int64)
        simple = (words[base] == MAGIC) & (words[base + 1] >> 29 == WHOLE)
        simple &= (sizes >= HEADER.size) & (offsets[rows] + 8 + sizes <= len(data))
        plain = rows[simple]
        labels[plain] = _read_labels(words, offsets[plain])
        lengths[plain] = 8 + sizes[simple] + -sizes[simple] % 4
        heads = HEADER.size + 4 * words[base[simple] + 2].astype(np.int64)
        pictures[plain] = sizes[simple] > heads
        faults.update(dict.fromkeys(plain[sizes[simple] < heads].tolist(), _SHORT))
        # Records in several parts, which are rare, and damaged ones.
        for row in rows[~simple].tolist():
            length, faults[row] = _measure(data, int(offsets[row]))
            if not faults[row]:
                labels[row], pictures[row], faults[row] = _read_one(data, int(offsets[row]), length)
            lengths[row] = length
    unlabelled = np.flatnonzero(pictures & (labels < 0)).tolist()
    faults = {**dict.fromkeys(unlabelled, _UNLABELLED), **{r: f for r, f in faults.items() if f}}
    kept = pictures & (labels >= 0)
    damage = [f"{path.name}#{keys[row]} {fault}" for row, fault in sorted(faults.items())]
    return RecordIndex(
        path, keys[kept], labels[kept], offsets[kept], lengths[kept], name_some(damage)
    )


def _read_scanned(path: Path, data: mmap.mmap) -> RecordIndex:
    """Return the index of a file whose records must be looked for."""
    rows: list[tuple[int, int, int, int]] = []
    damage: list[str] = []
    key = 0
    for place in scan(data):
        if place.fault:
            damage.append(
                f"{path.name}, byte {place.offset:,}: {place.fault}; {place.length:,} bytes skipped"
            )
            continue
        label, picture, fault = _read_one(data, place.offset, place.length)
        if fault or (picture and label < 0):
            damage.append(f"{path.name}#{key} {fault or _UNLABELLED}")
        elif picture:
            rows.append((key, label, place.offset, place.length))
        key += 1
    table = np.array(rows, np.int64).reshape(-1, 4).T.copy()
    return RecordIndex(path, table[0], table[1], table[2], table[3], name_some(damage))


def _read_one(data: mmap.mmap | bytes, offset: int, length: int) -> tuple[int, bool, str]:
    """Return (label, -1 for none, whether there is a picture, fault) of one record."""
    word = int.from_bytes(data[offset + 4 : offset + 8], "little")
    head, size = data[offset + 8 : offset + 8 + HEADER.size + 4], word & MAX_PAYLOAD
    if word >> 29 != WHOLE:  # the header itself may be cut
        payload = unframe(data[offset : offset + length])
        head, size = payload[: HEADER.size + 4], len(payload)
    if size < HEADER.size:
        return -1, False, _SHORT
    flag, label, _, _ = HEADER.unpack_from(head)
    if size < HEADER.size + 4 * flag:
        return -1, False, _SHORT
    if flag:
        (label,) = struct.unpack_from("<f", head, HEADER.size)
    whole = 0 <= label < 2.0**31 and label == int(label)
    return int(label) if whole else -1, size > HEADER.size + 4 * flag, ""


def _measure(data: mmap.mmap | bytes, position: int) -> tuple[int, str]:
    """Return the length of the record at `position` and what is wrong with it, "" for nothing."""
    start, size, inside = position, len(data), False
    while True:
        if position + 8 > size:
            return 0, "the record ends early"
        if data[position : position + 4] != _MAGIC_BYTES:
            return 0, "a part of the record is missing" if inside else "no record begins there"
        word = int.from_bytes(data[position + 4 : position + 8], "little")
        flag, length = word >> 29, word & MAX_PAYLOAD
        if flag not in ((MIDDLE, LAST) if inside else (WHOLE, FIRST)):
            return 0, "a part of the record is missing" if inside else "no record begins there"
        end = position + 8 + length + -length % 4
        if end > size:
            return 0, "the record ends early"
        # A wrong length leads nowhere; no right one spans the beginning of another part.
        astray = end < size and data[end : end + 4] != _MAGIC_BYTES
        if astray and _find_part(data, position + 4, end) < end:
            return 0, "the record's length is wrong"
        if flag in (WHOLE, LAST):
            return end - start, ""
        position, inside = end, True


def _find_part(data: mmap.mmap | bytes, position: int, end: int) -> int:
    """Return where the next part begins, at least at `position`; `end` when none does."""
    while True:
        position = data.find(_MAGIC_BYTES, position, end)
        if position < 0:
            return end
        if position % 4 == 0:
            return position
        position += 1


def _find_start(data: mmap.mmap | bytes, position: int) -> int:
    """Return where the next record begins, the end of the file when none does."""
    while (position := _find_part(data, position, len(data))) < len(data):
        word = int.from_bytes(data[position + 4 : position + 8], "little")
        if word >> 29 in (WHOLE, FIRST):
            return position
        position += 4
    return position
