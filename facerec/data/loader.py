"""Batches of chips in an order that is a pure function of seed and epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of
from facerec.data.datasets import ChipSet
from facerec.data.images import read_image
from facerec.data.transforms import Augmentation, resize_chip

_CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Batch:
    """One step's pictures.

    Attributes:
        images: uint8 RGB (n, s, s, 3).
        labels: int64 (n,).
        indices: int64 (n,), positions in the chip set.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


class ChipDataset:
    """Decoded chips at the input size, kept in memory when they fit.

    Args:
        chips: files and labels.
        input_size: side of a picture, pixels.
        cache: "ram" keeps decoded chips, "none" decodes each time, "auto" keeps up to 1 GiB.
    """

    def __init__(self, chips: ChipSet, input_size: int = 112, cache: str = "auto") -> None:
        check_one_of(cache, "cache", ("auto", "ram", "none"))
        self.chips = chips
        self.input_size = input_size
        fits = len(chips) * input_size * input_size * 3 <= _CACHE_BYTES
        self._cached: NDArray[np.uint8] | None = None
        if cache == "ram" or (cache == "auto" and fits):
            self._cached = np.empty((len(chips), input_size, input_size, 3), np.uint8)
        self._filled = np.zeros(len(chips), bool)

    def __len__(self) -> int:
        return len(self.chips)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one chip, uint8 RGB (s, s, 3).

        Raises:
            InputError: the file cannot be decoded or is not square.
        """
        if self._cached is None:
            return resize_chip(_read_square(self.chips.paths[index]), self.input_size)
        # Two threads may fill one row at once; both write the same bytes.
        if not self._filled[index]:
            self._cached[index] = resize_chip(
                _read_square(self.chips.paths[index]), self.input_size
            )
            self._filled[index] = True
        row: NDArray[np.uint8] = self._cached[index]
        return row


class ChipLoader:
    """Shuffled, augmented batches, built ahead by threads.

    Order and augmentation depend on (seed, epoch, index) alone: not on threads, nor on what was
    read before. The last chips of an epoch that do not fill a batch wait for another epoch.

    Args:
        dataset: the chips.
        batch_size: n.
        seed: of order and augmentation.
        augmentation: None leaves chips as they are.
        workers: threads; 0 builds batches in the caller.

    Raises:
        InputError: fewer chips than one batch.
    """

    def __init__(
        self,
        dataset: ChipDataset,
        batch_size: int,
        seed: int,
        augmentation: Augmentation | None = None,
        workers: int = 2,
    ) -> None:
        if not 2 <= batch_size <= len(dataset):
            raise InputError(
                f"batch_size must lie between 2 and the number of chips ({len(dataset)}), "
                f"got {batch_size}; set batch_size={max(2, min(batch_size, len(dataset)))}"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.workers = workers
        self.steps_per_epoch = len(dataset) // batch_size

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of epoch `epoch`, int64 (steps_per_epoch * batch_size,)."""
        drawn = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
        return drawn[: self.steps_per_epoch * self.batch_size].astype(np.int64)

    def build_batch(self, indices: NDArray[np.int64], epoch: int) -> Batch:
        """Return the chips at `indices` as epoch `epoch` shows them."""
        size = self.dataset.input_size
        images = np.empty((len(indices), size, size, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            chip = self.dataset.read(index)
            if self.augmentation is not None:
                rng = np.random.default_rng([self.seed, epoch, index])
                chip = self.augmentation.apply(chip, rng)
            images[row] = chip
        return Batch(images, self.dataset.chips.labels[indices], indices)

    def iter_epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_batch` on."""
        parts = self.order(epoch).reshape(self.steps_per_epoch, self.batch_size)[first_batch:]
        if self.workers == 0:
            for indices in parts:
                yield self.build_batch(indices, epoch)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="chips")
        waiting: deque[Future[Batch]] = deque()
        try:
            for indices in parts:
                waiting.append(pool.submit(self.build_batch, indices, epoch))
                if len(waiting) > self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read_square(path: Path) -> NDArray[np.uint8]:
    chip = read_image(path)
    if chip.shape[0] != chip.shape[1]:
        raise InputError(
            f"{path} must be a square aligned chip, got {chip.shape[1]}x{chip.shape[0]} pixels; "
            "align pictures with facerec-clean ingest first"
        )
    return chip
