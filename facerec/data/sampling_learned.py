"""Samplers that learn from the steps which identities or chips are worth more turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec import dist
from facerec.checks import InputError, check_range, check_whole
from facerec.data.sampling_base import Ints, Order, Sampler, go_round
from facerec.data.sampling_fixed import IdentitySampler, build_natural_order

_UNKNOWN = -1


class DoppelgangerSampler(IdentitySampler):
    """Identities that the net mixes up come into one batch (Smirnov et al. 2017, METHODS 5).

    For each identity the table holds its doppelganger: the most similar other class at its last
    row. A batch takes a few starts, of which each is followed by a chain of doppelgangers, and
    is topped up with random identities. Starts go round all identities, so that everybody is
    drawn; an unknown doppelganger is a random identity.

    Unlike the paper's public code, a batch that overflows loses ends of chains, never starts.

    Args:
        labels: int64 (n,).
        batch_size: rows of a step over all ranks, a multiple of k.
        seed: of the order.
        k: rows of an identity in a batch.
        hops: identities of a chain, with its start, in [1, 64].
        fill: share of a batch's identities that chains fill, in [0, 1].

    Attributes:
        starts: chains of a batch, at least one.

    Raises:
        InputError: more identities a batch than there are, or a value out of range.
    """

    name = "doppelganger"

    def __init__(
        self,
        labels: Ints,
        batch_size: int,
        seed: int,
        k: int = 4,
        hops: int = 4,
        fill: float = 24 / 27,
    ) -> None:
        check_whole(hops, "hops", 1, 64)
        check_range(fill, "fill", 0, 1)
        super().__init__(labels, batch_size, seed, k, "k")
        self.hops = hops
        self.starts = max(1, round(self.groups * fill / hops))
        classes = int(self.chips.ids[-1]) + 1
        self._slot_of = np.full(classes, _UNKNOWN, np.int64)
        self._slot_of[self.chips.ids] = np.arange(len(self.chips.ids))
        self._live = np.full(classes, _UNKNOWN, np.int64)
        self._frozen = self._live.copy()
        # The step at which an entry was learnt: ranks keep the latest of theirs.
        self._learnt_at = np.full(classes, _UNKNOWN, np.int64)
        self._step = 0

    @property
    def doppelgangers(self) -> Ints:
        """Return a copy of the table as it is learnt, int64 (c,), -1 where unknown."""
        table: Ints = self._live.copy()
        return table

    def order(self, epoch: int) -> Order:
        """Return whole groups of k, chains of frozen doppelgangers in every batch."""
        rng = np.random.default_rng([self.seed, epoch])
        partner = self._partners()
        begun = go_round(rng, len(partner), self.starts, self.steps_per_epoch)
        slots = np.stack([self._fill_batch(rng, row, partner) for row in begun])
        rows = slots.ravel().repeat(self.per_identity)
        return build_natural_order(self.chips.take_in_turn(self.chips.shuffle(rng), rows))

    def observe(
        self, indices: Ints, labels: Ints, hardest_classes: Ints, correct: NDArray[np.bool_]
    ) -> None:
        """Enter the most similar other class of each identity; the first row of a step counts."""
        self._step += 1
        usable = (hardest_classes >= 0) & (hardest_classes != labels)
        usable &= (labels < len(self._live)) & (hardest_classes < len(self._live))
        known, first = np.unique(labels[usable], return_index=True)
        self._live[known] = hardest_classes[usable][first]
        self._learnt_at[known] = self._step

    def synchronise(self) -> None:
        """Take for each identity what was learnt last on any rank, of equals the lowest rank's."""
        if dist.world_size() == 1:
            return
        learnt_at, live = _gather(self._learnt_at), _gather(self._live)
        latest = learnt_at.argmax(axis=0)
        every = np.arange(len(latest))
        self._learnt_at, self._live = learnt_at[latest, every], live[latest, every]

    def _save_tables(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "frozen": _to_tensor(self._frozen),
            "live": _to_tensor(self._live),
            "learnt_at": _to_tensor(self._learnt_at),
        }

    def _load_tables(self, state: Mapping[str, Any]) -> None:
        names = ("frozen", "live", "learnt_at")
        tables = [_from_tensor(state, name, self._live) for name in names]
        self._frozen, self._live, self._learnt_at = tables
        self._step = int(state["step"])

    def _freeze(self) -> None:
        self._frozen = self._live.copy()

    def _partners(self) -> Ints:
        """Return each slot's frozen doppelganger as a slot, -1 where unknown or without chips."""
        classes = self._frozen[self.chips.ids]
        return np.where(classes >= 0, self._slot_of[classes], _UNKNOWN)

    def _fill_batch(self, rng: np.random.Generator, starts: Ints, partner: Ints) -> Ints:
        """Return the shuffled slots of a batch, int64 (groups,), all different."""
        size = len(partner)
        found = [starts]
        for _ in range(self.hops - 1):
            onward = partner[found[-1]]
            found.append(np.where(onward >= 0, onward, rng.integers(0, size, len(onward))))
        # As many random ones as the batch holds: enough unused ones are among them.
        found.append(rng.choice(size, self.groups, replace=False))
        drawn = np.concatenate(found)
        _, first = np.unique(drawn, return_index=True)
        filled: Ints = drawn[np.sort(first)[: self.groups]]
        return rng.permutation(filled)


class AdaptiveSampler(Sampler):
    """Chips that the net gets wrong are shown more often (Liu et al. 2019, METHODS 2.3).

    Each chip has a weight: a wrong row multiplies it by `factor`, a right one divides it by
    that, within [smallest, largest]. Changes of an epoch are added up and applied at its end. A
    chip is shown in proportion to its weight, rounded up or down at random (systematic
    sampling): with equal weights an epoch shows each chip once, like `shuffle`. The paper gives
    no numbers; factor and bounds are ours.

    Args:
        labels: int64 (n,).
        batch_size: rows of a step over all ranks.
        seed: of the order.
        start: weight of a chip that was not shown yet.
        smallest: lower bound, above 0.
        largest: upper bound.
        factor: change at one row, in [1, 16].

    Raises:
        InputError: a value out of range.
    """

    name = "adaptive"

    def __init__(
        self,
        labels: Ints,
        batch_size: int,
        seed: int,
        start: float = 4.0,
        smallest: float = 1.0,
        largest: float = 16.0,
        factor: float = 2.0,
    ) -> None:
        super().__init__(labels, batch_size, seed)
        check_range(smallest, "smallest", 1e-3, 1e3)
        check_range(largest, "largest", smallest, 1e3)
        check_range(start, "start", smallest, largest)
        check_range(factor, "factor", 1, 16)
        self.smallest, self.largest, self.factor = smallest, largest, factor
        self._frozen = np.full(len(labels), start, np.float64)
        # Wrong rows minus right ones in this epoch: agreed by the ranks, and since then here.
        self._shared = np.zeros(len(labels), np.int64)
        self._own = np.zeros(len(labels), np.int64)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Return a copy of the frozen weights (n,)."""
        table: NDArray[np.float64] = self._frozen.copy()
        return table

    def order(self, epoch: int) -> Order:
        """Return chips in proportion to their frozen weights, shuffled."""
        rng = np.random.default_rng([self.seed, epoch])
        total = self.steps_per_epoch * self.batch_size
        # In random order, so that which chips are rounded up together is random too.
        queue = rng.permutation(len(self._frozen))
        reached = np.cumsum(self._frozen[queue])
        marks = (np.arange(total) + rng.random()) * (reached[-1] / total)
        places = np.searchsorted(reached, marks, side="right")
        drawn = queue[np.minimum(places, len(queue) - 1)]
        return build_natural_order(rng.permutation(drawn).astype(np.int64))

    def observe(
        self, indices: Ints, labels: Ints, hardest_classes: Ints, correct: NDArray[np.bool_]
    ) -> None:
        """Count right and wrong rows of each chip."""
        np.add.at(self._own, indices, np.where(correct, -1, 1))

    def synchronise(self) -> None:
        """Add up what all ranks counted."""
        own = self._own
        if dist.world_size() > 1:
            own = _gather(own).sum(axis=0)
        self._shared = self._shared + own
        self._own = np.zeros_like(own)

    def _save_tables(self) -> dict[str, Any]:
        return {
            "frozen": _to_tensor(self._frozen),
            "counts": _to_tensor(self._shared + self._own),
        }

    def _load_tables(self, state: Mapping[str, Any]) -> None:
        frozen = _from_tensor(state, "frozen", self._frozen)
        counts = _from_tensor(state, "counts", self._shared)
        self._frozen, self._shared, self._own = frozen, counts, np.zeros_like(counts)

    def _freeze(self) -> None:
        changed = self._frozen * self.factor ** self._shared.astype(np.float64)
        self._frozen = np.clip(changed, self.smallest, self.largest)
        self._shared = np.zeros_like(self._shared)


def _gather(table: Ints) -> Ints:
    """Return the tables of all ranks, int64 (ranks, ...), in rank order."""
    gathered: Ints = dist.gather_rows(_to_tensor(table)[None], [1] * dist.world_size()).numpy()
    return gathered


def _to_tensor(table: NDArray[Any]) -> Any:
    """Return a copy as a tensor: checkpoints hold no arrays."""
    import torch

    return torch.from_numpy(table.copy())


def _from_tensor(state: Mapping[str, Any], name: str, like: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a saved table as an array of the shape and type of `like`.

    Raises:
        InputError: it is missing or has another shape.
    """
    saved = state.get(name)
    if saved is None or tuple(saved.shape) != like.shape:
        got = "nothing" if saved is None else str(tuple(saved.shape))
        raise InputError(
            f"the sampler's {name!r} in the checkpoint must have shape {like.shape}, got {got}; "
            "resume with the data and the sampler that the run began with"
        )
    return np.array(saved.numpy(), like.dtype)
