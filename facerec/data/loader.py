"""Batches of chips in an order that is a pure function of seed, epoch and the sampler's state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from facerec import dist
from facerec.checks import InputError
from facerec.data.chip_dataset import ChipDataset
from facerec.data.degrade import Degradation
from facerec.data.samplers import CLEAN, DEGRADED, Order, Sampler, build_sampler
from facerec.data.transforms import Augmentation, Photometric

__all__ = ["Batch", "ChipDataset", "ChipLoader", "Unlabelled", "Variation"]

_UNLABELLED_STREAM = 1 << 20


@dataclass(frozen=True)
class Batch:
    """One step's pictures; labelled rows first, then unlabelled ones.

    Attributes:
        images: uint8 RGB (n + u, s, s, 3).
        labels: int64 (n,).
        indices: int64 (n,), positions in the chip set.
        unlabelled: int64 (u,), positions in the unlabelled set.
        degraded: rows that were degraded.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    unlabelled: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    degraded: int = 0

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """Return the batch of some of its labelled rows, repeats allowed; unlabelled ones go."""
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            indices=self.indices[rows],
            unlabelled=self.unlabelled[:0],
        )


@dataclass(frozen=True)
class Variation:
    """How a chip is varied before it is shown: light, colour, then a bad camera.

    Attributes:
        augmentation: mirror image, brightness, contrast, blur; None leaves chips as they are.
        photometric: stronger colour changes, None for none.
        degradation: the bad camera, None for none.
    """

    augmentation: Augmentation | None = None
    photometric: Photometric | None = None
    degradation: Degradation | None = None

    def apply(
        self, chip: NDArray[np.uint8], rng: np.random.Generator, view: int, progress: float
    ) -> tuple[NDArray[np.uint8], bool]:
        """Return (the varied chip, whether it was degraded).

        Args:
            chip: uint8 (s, s, 3), not changed.
            rng: of this chip in this place of the epoch.
            view: NATURAL, CLEAN (never degraded) or DEGRADED (always).
            progress: share of the training that is done, for the curriculum.
        """
        if self.augmentation is not None:
            chip = self.augmentation.apply(chip, rng)
        if self.photometric is not None:
            chip = self.photometric.apply(chip, rng)
        if self.degradation is None or view == CLEAN:
            return chip, False
        chip, record = self.degradation.apply(chip, rng, progress, force=view == DEGRADED)
        return chip, bool(record)


@dataclass
class Unlabelled:
    """A stream of faces of unknown people beside the labelled ones.

    Attributes:
        dataset: their chips.
        rows: how many join a batch, over all processes.
        seed: of their order.
        admitted: int64, the positions that may be shown, ascending; none at first.
    """

    dataset: ChipDataset
    rows: int
    seed: int
    admitted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def pick(self, step: int) -> NDArray[np.int64]:
        """Return the positions of step `step` (rows,): every admitted one in turn, reshuffled."""
        count = len(self.admitted)
        if not count:
            return self.admitted
        places = np.arange(step * self.rows, (step + 1) * self.rows)
        picked = np.empty(self.rows, np.int64)
        for turn in np.unique(places // count).tolist():
            here = places // count == turn
            order = np.random.default_rng([self.seed, _UNLABELLED_STREAM, turn]).permutation(count)
            picked[here] = self.admitted[order[places[here] % count]]
        return picked


class ChipLoader:
    """Varied batches in the sampler's order, built ahead by threads.

    Order and variation depend on seed, epoch, place in the epoch and the sampler's state at the
    epoch's start: not on threads, nor on what was read before, nor on the number of processes,
    each of which takes an equal slice of every batch.

    Args:
        dataset: the chips.
        batch_size: n, over all processes.
        seed: of order and variation.
        variation: how chips are varied; an Augmentation alone is taken too; None for not at all.
        workers: threads; 0 builds batches in the caller.
        sampler: the order, None shuffles.
        epochs: of the whole run, for the curriculum of the degradation.
        unlabelled: faces of unknown people that join every batch.

    Raises:
        InputError: fewer chips than one batch, or a batch that processes cannot share equally.
    """

    def __init__(
        self,
        dataset: ChipDataset,
        batch_size: int,
        seed: int,
        variation: Variation | Augmentation | None = None,
        workers: int = 2,
        sampler: Sampler | None = None,
        epochs: int = 1,
        unlabelled: Unlabelled | None = None,
    ) -> None:
        if not 2 <= batch_size <= len(dataset):
            raise InputError(
                f"batch_size must lie between 2 and the number of chips ({len(dataset)}), "
                f"got {batch_size}; set batch_size={max(2, min(batch_size, len(dataset)))}"
            )
        for name, rows in (
            ("batch_size", batch_size),
            ("unlabelled.rows", unlabelled.rows if unlabelled else 0),
        ):
            if rows % dist.world_size():
                raise InputError(
                    f"{name} must be a multiple of the number of processes "
                    f"({dist.world_size()}), got {rows}"
                )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        if isinstance(variation, Augmentation):
            variation = Variation(augmentation=variation)
        self.variation = variation
        self.workers = workers
        self.sampler = sampler or build_sampler("shuffle", dataset.chips.labels, batch_size, seed)
        self.epochs = epochs
        self.unlabelled = unlabelled
        self.steps_per_epoch = self.sampler.steps_per_epoch

    def start_epoch(self, epoch: int) -> None:
        """Let the sampler use what it has learnt."""
        self.sampler.start_epoch(epoch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of epoch `epoch`, int64 (steps_per_epoch * batch_size,)."""
        return self.sampler.order(epoch).indices

    def build_batch(self, order: Order, epoch: int, number: int) -> Batch:
        """Return this process's slice of batch `number` of an epoch."""
        places = _take_slice(np.arange(number * self.batch_size, (number + 1) * self.batch_size))
        indices = order.indices[places]
        strangers = np.zeros(0, np.int64)
        if self.unlabelled is not None:
            strangers = self.unlabelled.pick(epoch * self.steps_per_epoch + number)
        first = dist.rank() * (len(strangers) // dist.world_size())
        strangers = _take_slice(strangers)
        size, labelled = self.dataset.input_size, len(indices)
        images = np.empty((labelled + len(strangers), size, size, 3), np.uint8)
        degraded = 0
        for row, (index, place) in enumerate(zip(indices.tolist(), places.tolist(), strict=True)):
            chip = self.dataset.read(index)
            images[row], worse = self._vary(chip, [epoch, place], int(order.views[place]))
            degraded += worse
        for row, index in enumerate(strangers.tolist()):
            assert self.unlabelled is not None
            chip = self.unlabelled.dataset.read(index)
            key = [epoch, _UNLABELLED_STREAM + number, first + row]
            images[labelled + row], _ = self._vary(chip, key, 0)
        # A chip that could not be read was replaced, perhaps by another person's.
        shown = [self.dataset.locate(index) for index in indices.tolist()]
        labels = self.dataset.chips.labels[shown]
        return Batch(images, labels, indices, strangers, degraded)

    def iter_epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_batch` on."""
        order = self.sampler.order(epoch)
        numbers = range(first_batch, self.steps_per_epoch)
        if self.workers == 0:
            for number in numbers:
                yield self.build_batch(order, epoch, number)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="chips")
        waiting: deque[Future[Batch]] = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(self.build_batch, order, epoch, number))
                if len(waiting) > self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _vary(
        self, chip: NDArray[np.uint8], key: list[int], view: int
    ) -> tuple[NDArray[np.uint8], bool]:
        if self.variation is None:
            return chip, False
        rng = np.random.default_rng([self.seed, *key])
        return self.variation.apply(chip, rng, view, key[0] / max(1, self.epochs))


def _take_slice(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return this process's equal share of a batch, in order."""
    share = len(rows) // dist.world_size()
    return rows[dist.rank() * share : (dist.rank() + 1) * share]
