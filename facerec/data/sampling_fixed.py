"""Samplers that learn nothing: the order depends on the seed and the epoch alone."""

from __future__ import annotations

import numpy as np

from facerec.checks import check_whole
from facerec.data.sampling_base import (
    CLEAN,
    DEGRADED,
    NATURAL,
    IdentityChips,
    Ints,
    Order,
    Sampler,
    check_group,
    check_identities,
    count_turns,
    go_round,
)


def build_natural_order(indices: Ints) -> Order:
    """Return the order of chips that are augmented by the recipe's probabilities."""
    return Order(indices, np.full(len(indices), NATURAL, np.int8))


class ShuffleSampler(Sampler):
    """Every chip once, in random order; the last chips that fill no batch wait for another epoch.

    Args:
        labels: int64 (n,).
        batch_size: rows of a step over all ranks.
        seed: of the order.
    """

    name = "shuffle"

    def order(self, epoch: int) -> Order:
        """Return a permutation of the chips, cut to whole batches."""
        drawn = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
        return build_natural_order(drawn[: self.steps_per_epoch * self.batch_size].astype(np.int64))


class IdentitySampler(Sampler):
    """Batches of so many identities with so many rows each; goes round all identities.

    The rows of an identity stand side by side: ranks whose slice is a multiple of `per_identity`
    get whole groups.

    Args:
        labels: int64 (n,).
        batch_size: rows of a step over all ranks, a multiple of `per_identity`.
        seed: of the order.
        per_identity: rows of an identity in a batch.
        parameter: how messages call `per_identity`.

    Attributes:
        chips: of each identity.
        groups: identities of a batch, all different.

    Raises:
        InputError: more identities a batch than there are, or labels or sizes that do not fit.
    """

    def __init__(
        self, labels: Ints, batch_size: int, seed: int, per_identity: int, parameter: str
    ) -> None:
        super().__init__(labels, batch_size, seed)
        self.per_identity = per_identity
        self.groups = check_group(batch_size, per_identity, parameter)
        self.chips = IdentityChips(labels)
        check_identities(self.groups, len(self.chips.ids), per_identity)
        one_pass = -(-len(self.chips.ids) // self.groups)
        self.steps_per_epoch = max(self.steps_per_epoch, one_pass)

    def draw_identities(self, rng: np.random.Generator) -> Ints:
        """Return the places in `chips.ids` of each batch, int64 (steps, groups)."""
        return go_round(rng, len(self.chips.ids), self.groups, self.steps_per_epoch)


class PKSampler(IdentitySampler):
    """P identities with K chips each (Hermans et al. 2017), for losses that compare rows.

    Every identity has one turn in a pass, whatever its number of chips. An identity with fewer
    than K chips repeats some; otherwise its K rows are different chips, and over its turns in an
    epoch each of its chips is shown equally often, but for one.

    Args:
        labels: int64 (n,).
        batch_size: P times K, over all ranks.
        seed: of the order.
        k: chips of an identity in a batch.

    Raises:
        InputError: fewer than P identities, or sizes that do not fit.
    """

    name = "pk"

    def __init__(self, labels: Ints, batch_size: int, seed: int, k: int = 4) -> None:
        super().__init__(labels, batch_size, seed, k, "k")

    def order(self, epoch: int) -> Order:
        """Return whole groups of K, in passes through all identities."""
        rng = np.random.default_rng([self.seed, epoch])
        slots = self.draw_identities(rng).ravel().repeat(self.per_identity)
        return build_natural_order(self.chips.take_in_turn(self.chips.shuffle(rng), slots))


class BalancedSampler(Sampler):
    """Identities equally often, however many chips they have.

    Coverage first: no identity has a second turn before each had its first, and over its turns
    in an epoch an identity shows its chips one after the other.

    Args:
        labels: int64 (n,).
        batch_size: rows of a step over all ranks.
        seed: of the order.
    """

    name = "balanced"

    def __init__(self, labels: Ints, batch_size: int, seed: int) -> None:
        super().__init__(labels, batch_size, seed)
        self.chips = IdentityChips(labels)
        one_pass = -(-len(self.chips.ids) // batch_size)
        self.steps_per_epoch = max(self.steps_per_epoch, one_pass)

    def order(self, epoch: int) -> Order:
        """Return passes through all identities, one chip a turn."""
        rng = np.random.default_rng([self.seed, epoch])
        slots = go_round(rng, len(self.chips.ids), self.batch_size, self.steps_per_epoch)
        return build_natural_order(self.chips.take_in_turn(self.chips.shuffle(rng), slots.ravel()))


class PairsSampler(IdentitySampler):
    """Document to surveillance: each identity of a batch once clean and then degraded.

    A group is a CLEAN row followed by `degraded` DEGRADED rows of other chips; only an identity
    with a single chip shows the same one degraded. The chip that stands for the document is the
    identity's next one at each of its turns in an epoch.

    Args:
        labels: int64 (n,).
        batch_size: rows of a step over all ranks, a multiple of 1 + degraded.
        seed: of the order.
        degraded: degraded rows beside each clean one, in [1, 16].

    Raises:
        InputError: more groups a batch than identities, or sizes that do not fit.
    """

    name = "pairs"

    def __init__(self, labels: Ints, batch_size: int, seed: int, degraded: int = 1) -> None:
        check_whole(degraded, "degraded", 1, 16)
        super().__init__(labels, batch_size, seed, 1 + degraded, "1 + degraded")
        self.degraded = degraded

    def order(self, epoch: int) -> Order:
        """Return whole groups, in passes through all identities."""
        rng = np.random.default_rng([self.seed, epoch])
        slots = self.draw_identities(rng).ravel()
        turns = count_turns(slots)
        # Among the identity's other chips the degraded rows go round, never over the clean one.
        others = np.maximum(self.chips.counts[slots] - 1, 1)[:, None]
        steps = np.where(self.chips.counts[slots][:, None] > 1, 1, 0)
        ahead = steps * (1 + np.arange(self.degraded) % others)
        places = np.concatenate([turns[:, None], turns[:, None] + ahead], axis=1)
        indices = self.chips.take(
            self.chips.shuffle(rng), slots.repeat(self.per_identity), places.ravel()
        )
        group = np.array([CLEAN] + [DEGRADED] * self.degraded, np.int8)
        return Order(indices, np.tile(group, len(slots)))
