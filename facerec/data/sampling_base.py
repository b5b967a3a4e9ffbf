"""What every sampler shares: the order of an epoch, passes over identities, turns of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_whole

NATURAL, CLEAN, DEGRADED = 0, 1, 2
"""Views of a chip: as the recipe's probabilities say; as it is; degraded in any case."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """The rows of an epoch, batch after batch.

    Attributes:
        indices: int64 (steps * batch,), positions in the chip set.
        views: int8 (steps * batch,), NATURAL, CLEAN or DEGRADED.
    """

    indices: Ints
    views: NDArray[np.int8]


class Sampler:
    """Which chips an epoch shows, in which order.

    All ranks build the same sampler over the global batch and take their slices of its order.
    Once a step each rank tells `observe` of its own rows; `start_epoch` makes the ranks agree on
    what was learnt and freezes it. So an order depends on the seed, the epoch and the frozen
    state alone, and a run that stops in the middle of an epoch goes on in the same order.

    An epoch has about as many rows as there are chips, and at least one turn of each identity
    where a sampler goes round identities.

    Args:
        labels: int64 (n,), the identity of each chip, from 0; numbers may be missing.
        batch_size: rows of a step over all ranks, in [2, n].
        seed: of the order, not negative.

    Attributes:
        steps_per_epoch: batches of an epoch.
        epoch: the one started last, -1 before the first.

    Raises:
        InputError: labels or sizes that do not fit.
    """

    name: ClassVar[str]

    def __init__(self, labels: Ints, batch_size: int, seed: int) -> None:
        self.labels = _check_labels(labels)
        n = len(self.labels)
        if not 2 <= batch_size <= n:
            raise InputError(
                f"batch_size must lie between 2 and the number of chips ({n}), "
                f"got {batch_size}; set batch_size={max(2, min(batch_size, n))}"
            )
        if seed < 0:
            raise InputError(f"seed must not be negative, got {seed}; give a number from 0 on")
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = n // batch_size
        self.epoch = -1

    def order(self, epoch: int) -> Order:
        """Return the rows of epoch `epoch`, from 0, by the state that is frozen now."""
        raise NotImplementedError

    def start_epoch(self, epoch: int) -> None:
        """Freeze what was learnt so far, the same on all ranks; again for one epoch is nothing.

        Collective: every rank calls it. After `load_state_dict` in the middle of an epoch it
        keeps the snapshot that was saved.
        """
        if epoch == self.epoch:
            return
        self.synchronise()
        self._freeze()
        self.epoch = epoch

    def observe(
        self, indices: Ints, labels: Ints, hardest_classes: Ints, correct: NDArray[np.bool_]
    ) -> None:
        """Learn from a step; samplers that learn nothing ignore it.

        Every rank calls it once a step with its own rows, also when it has none.

        Args:
            indices: int64 (r,), positions in the chip set.
            labels: int64 (r,), their identities.
            hardest_classes: int64 (r,), the most similar other class, -1 where unknown.
            correct: bool (r,), whether the row's own class is the most similar one.
        """

    def synchronise(self) -> None:
        """Make ranks agree on what they learnt, without freezing it.

        Collective: every rank calls it, before rank 0 saves `state_dict` in the middle of an
        epoch. When it is called does not change what is learnt.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and tensors, none of which shares memory with this.

        With several ranks call `synchronise` first; what rank 0 saves then serves all ranks.
        """
        return {"sampler": self.name, "epoch": self.epoch} | self._save_tables()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` left off.

        Raises:
            InputError: the state is that of another sampler, or of other data.
        """
        if state.get("sampler") != self.name:
            raise InputError(
                f"the checkpoint must hold the state of sampler {self.name!r}, got "
                f"{state.get('sampler')!r}; resume with the sampler the run began with"
            )
        self._load_tables(state)
        self.epoch = int(state["epoch"])

    def _freeze(self) -> None:
        """Take the snapshot that `order` reads; here there is nothing to take."""

    def _save_tables(self) -> dict[str, Any]:
        """Return what was learnt, for `state_dict`."""
        return {}

    def _load_tables(self, state: Mapping[str, Any]) -> None:
        """Take over what was learnt, or raise InputError and leave all as it is."""


class IdentityChips:
    """The chips of each identity, and turns through them.

    Args:
        labels: int64 (n,).

    Attributes:
        ids: int64 (m,), the identities that have chips, ascending.
        counts: int64 (m,), how many chips each of them has.
    """

    def __init__(self, labels: Ints) -> None:
        self._labels = labels
        self.ids, counts = np.unique(labels, return_counts=True)
        self.counts: Ints = counts.astype(np.int64)
        self._starts: Ints = np.cumsum(self.counts) - self.counts

    def shuffle(self, rng: np.random.Generator) -> Ints:
        """Return all positions (n,), identity after identity, each one's chips shuffled."""
        drawn = rng.permutation(len(self._labels))
        grouped: Ints = drawn[np.argsort(self._labels[drawn], kind="stable")].astype(np.int64)
        return grouped

    def take(self, grouped: Ints, slots: Ints, turns: Ints) -> Ints:
        """Return the position of each slot's chip number `turns`, counted round and round.

        Args:
            grouped: what `shuffle` returned.
            slots: int64 (r,), places in `ids`.
            turns: int64 (r,), from 0.
        """
        taken: Ints = grouped[self._starts[slots] + turns % self.counts[slots]]
        return taken

    def take_in_turn(self, grouped: Ints, slots: Ints) -> Ints:
        """Return a chip for each slot (r,): an identity's chips in turn, the next each time."""
        return self.take(grouped, slots, count_turns(slots))


def count_turns(slots: Ints) -> Ints:
    """Return how often each value occurred before, int64 (r,)."""
    by_value = np.argsort(slots, kind="stable")
    ordered = slots[by_value]
    is_first = np.ones(len(slots), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    every = np.arange(len(slots))
    turns = np.empty(len(slots), np.int64)
    turns[by_value] = every - np.maximum.accumulate(np.where(is_first, every, 0))
    return turns


def go_round(rng: np.random.Generator, size: int, group: int, groups: int) -> Ints:
    """Return int64 (groups, group) of numbers below `size`, in passes through all of them.

    Read row by row, every stretch of `size` numbers is a permutation. No number stands twice in
    a row, unless a row is longer than a pass.
    """
    total = groups * group
    passes: list[Ints] = []
    filled = 0
    while filled < total:
        drawn = rng.permutation(size)
        begun = filled % group
        if begun and group <= size:
            drawn = _avoid(drawn, passes[-1][size - begun :], group - begun)
        passes.append(drawn)
        filled += size
    return np.concatenate(passes)[:total].reshape(groups, group).astype(np.int64)


def _avoid(drawn: Ints, taken: Ints, first: int) -> Ints:
    """Return a permutation whose `first` numbers are not among `taken`; the order is kept."""
    is_free = ~np.isin(drawn, taken)
    is_head = is_free & (np.cumsum(is_free) <= first)
    return np.concatenate([drawn[is_head], drawn[~is_head]])


def check_group(batch_size: int, size: int, name: str) -> int:
    """Return how many groups of `size` rows a batch has.

    Raises:
        InputError: the batch is not a whole number of groups, or the size is out of range.
    """
    check_whole(size, name, 1, 1024)
    if batch_size % size:
        fits = max(size, batch_size - batch_size % size)
        raise InputError(
            f"batch_size must be a multiple of {name} ({size}), got {batch_size}; "
            f"set batch_size={fits}"
        )
    return batch_size // size


def check_identities(groups: int, identities: int, per_identity: int) -> None:
    """Raise InputError unless a batch can have `groups` different identities."""
    if groups > identities:
        raise InputError(
            f"a batch of {groups * per_identity} rows, {per_identity} an identity, needs {groups} "
            f"identities, got {identities}; set batch_size={identities * per_identity} or less"
        )


def _check_labels(labels: Ints) -> Ints:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        got = f"{getattr(labels, 'dtype', type(labels).__name__)} {np.shape(labels)}"
        raise InputError(f"labels must be int64 (n,), got {got}")
    if labels.size and labels.min() < 0:
        row = int(np.flatnonzero(labels < 0)[0])
        raise InputError(
            f"labels must not be negative, but row {row} has {labels[row]}; "
            "leave unlabelled chips out"
        )
    return labels
