"""Decoded chips at the input size: scaled down while decoding, damaged ones replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of, check_range
from facerec.data.chip_set import ChipSet
from facerec.data.headers import read_header
from facerec.data.images import MAX_PIXELS, UnreadableImageError, decode_image
from facerec.data.transforms import resize_chip
from facerec.opencv import quiet_opencv

_CACHE_BYTES = 1 << 30
_LAST_NAMED = 3
# JPEG decoders leave out the fine cosines of a block at no cost: (factor, how OpenCV calls it).
_REDUCED = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)


class ChipDataset:
    """Decoded chips at the input size, kept in memory when they fit.

    A chip that cannot be read, or is not square, is shown as the next readable one of its
    identity, or else as the next in the set. Which one depends on the files alone.

    Args:
        chips: where they lie, and their labels.
        input_size: side of a picture, pixels.
        cache: "ram" keeps decoded chips, "none" decodes each time, "auto" keeps up to 1 GiB.
        max_corrupt: so many different chips may be unreadable; with one more `read` raises.

    Attributes:
        corrupt: name -> reason, for unreadable chips met so far.
    """

    def __init__(
        self, chips: ChipSet, input_size: int = 112, cache: str = "auto", max_corrupt: int = 0
    ) -> None:
        check_one_of(cache, "cache", ("auto", "ram", "none"))
        check_range(max_corrupt, "max_corrupt", 0, 10**9)
        self.chips = chips
        self.input_size = input_size
        self.max_corrupt = max_corrupt
        self.corrupt: dict[str, str] = {}
        self._unreadable: set[int] = set()
        self._shown: dict[int, int] = {}
        self._lock = threading.Lock()
        fits = len(chips) * input_size * input_size * 3 <= _CACHE_BYTES
        self._cached: NDArray[np.uint8] | None = None
        if cache == "ram" or (cache == "auto" and fits):
            self._cached = np.empty((len(chips), input_size, input_size, 3), np.uint8)
        self._filled = np.zeros(len(chips), bool)

    def __len__(self) -> int:
        return len(self.chips)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one chip, uint8 RGB (s, s, 3); any number of threads may read at once.

        Raises:
            InputError: more than `max_corrupt` chips cannot be used; the last ones are named.
        """
        if self._cached is None:
            return self._load(index)
        # Two threads may fill one row at once; both write the same bytes.
        if not self._filled[index]:
            self._cached[index] = self._load(index)
            self._filled[index] = True
        row: NDArray[np.uint8] = self._cached[index]
        return row

    def locate(self, index: int) -> int:
        """Return which chip `read` shows: another than `index` where that one was unreadable.

        It is known once `index` has been read. Its label is that of what is shown, also where
        no other chip of the identity can be read.
        """
        return self._shown.get(index, index)

    def _load(self, index: int) -> NDArray[np.uint8]:
        """Return the picture to show for a chip."""
        for place in chain([self.locate(index), index], self._iter_substitutes(index)):
            chip = None if place in self._unreadable else self._decode(place)
            if chip is not None:
                if place != index:
                    self._shown[index] = place
                return chip
        raise InputError(f"none of {len(self)} chips can be read: {self._name_last()}")

    def _decode(self, index: int) -> NDArray[np.uint8] | None:
        """Return a chip at the input size, None when it cannot be used."""
        name = self.chips.name(index)
        try:
            return read_square(self.chips.read_bytes(index), name, self.input_size)
        except UnreadableImageError as error:
            with self._lock:
                if index not in self._unreadable:
                    if len(self._unreadable) >= self.max_corrupt:
                        raise self._give_up(error) from error
                    self._unreadable.add(index)
                    self.corrupt[name] = error.reason
            return None

    def _iter_substitutes(self, index: int) -> Iterator[int]:
        """Yield the chips to try in place of one: its identity's from it on, then all others."""
        labels = self.chips.labels
        same = np.flatnonzero(labels == labels[index])
        yield from np.roll(same, -int(np.searchsorted(same, index, "right"))).tolist()
        yield from range(index + 1, len(self))
        yield from range(index)

    def _give_up(self, error: UnreadableImageError) -> InputError:
        if not self.max_corrupt:
            return InputError(str(error))
        return InputError(
            f"{error}; before it {len(self._unreadable)} chips could not be used, the last ones "
            f"{self._name_last()}: repair the data, or raise data.max_corrupt"
        )

    def _name_last(self) -> str:
        last = list(self.corrupt.items())[-_LAST_NAMED:]
        return ", ".join(f"{name} ({reason})" for name, reason in last)


def read_square(data: bytes, name: str, size: int) -> NDArray[np.uint8]:
    """Return an encoded chip as uint8 RGB (size, size, 3), upright.

    A JPEG at least twice as large is decoded at a half, a quarter or an eighth of its size.

    Args:
        data: the whole file.
        name: how messages call it.
        size: side, pixels.

    Raises:
        UnreadableImageError: not a picture, damaged, too large or not square.
    """
    chip = _decode_reduced(data, size)
    if chip is not None:
        return chip
    chip = decode_image(data, name)
    if chip.shape[0] != chip.shape[1]:
        raise UnreadableImageError(
            name,
            "not square",
            f"must be a square aligned chip, got {chip.shape[1]}x{chip.shape[0]} pixels; "
            "align pictures with facerec-clean ingest first",
        )
    return resize_chip(chip, size)


def _decode_reduced(data: bytes, size: int) -> NDArray[np.uint8] | None:
    """Return a whole square JPEG of at least twice the size, None for all else."""
    header = read_header(data)
    if header is None or header.format != "jpeg" or header.fault or header.channels not in (1, 3):
        return None
    side = header.width
    if side != header.height or side < 2 * size or side * side > MAX_PIXELS:
        return None
    flag = next(flag for factor, flag in _REDUCED if side >= factor * size)
    quiet_opencv()
    try:
        chip = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    if chip is None or chip.shape[0] != chip.shape[1] or chip.ndim != 3:
        return None
    small = np.asarray(chip, np.uint8)
    if size < len(chip) <= 2 * size:  # two taps see every pixel: no slow averaging over areas
        small = np.asarray(cv2.resize(chip, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    small = resize_chip(small, size)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
