"""Routes of rejects in the making: which way each row takes, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask, Vectors
from data_tools.rejects_evidence import Evidence, take_chances
from data_tools.rejects_groups import Groups, score_members, sum_groups
from data_tools.rejects_strangers import Disjointness, score_best, score_own

ROUTES = ("new identity", "unlabelled", "review", "discard")
NEW, UNLABELLED, REVIEW, DISCARD = range(4)

REASONS = (
    "like the others of a new identity",
    "unlike every identity",
    "in a group that may be an identity of the set",
    "in a group too loose to be one person",
    "may show its own identity after all",
    "may show another identity",
    "too alike an identity to pass for a stranger",
    "too alike a new identity to pass for a stranger",
    "too little is known of the set to tell",
    "no direction: embedding of norm 0",
    "overlaps an evaluation set",
    "duplicate of another row",
    "the very picture of a row that is kept",
    "low quality",
    "decided by a person",
)
(
    LIKE_NEW,
    UNLIKE,
    GROUP_KNOWN,
    GROUP_LOOSE,
    OWN,
    OTHER,
    NEAR_KNOWN,
    NEAR_NEW,
    UNTOLD,
    BLANK,
    OVERLAP,
    DUPLICATE,
    SAME_PICTURE,
    POOR,
    TAKEN_OUT,
) = range(len(REASONS))

ROUTE_OF = np.array([NEW, UNLABELLED] + 7 * [REVIEW] + 6 * [DISCARD], np.int8)
"""The route of each of REASONS."""


@dataclass
class Draft:
    """Routes in the making: reason -1 where a row has none yet."""

    rows: Labels
    reason: NDArray[np.int8]
    score: Array
    identity: Labels
    cluster: Labels
    groups: Groups = field(default_factory=list)
    new: int = 0
    alike: Labels = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def start(cls, vectors: Vectors, fate: Labels, given: Evidence) -> Draft:
        """Return the rejected rows, with what is discarded at once."""
        rows = np.flatnonzero(fate < 0)
        reason = np.full(len(rows), -1, np.int8)
        reason[~vectors[rows].any(axis=1)] = BLANK
        for number, mask in (
            (TAKEN_OUT, given.taken_out),
            (OVERLAP, given.overlap),
            (DUPLICATE, given.duplicate),
            (POOR, given.low_quality),
        ):
            if mask is not None:
                reason[mask[rows] & (reason < 0)] = number
        if given.picture is not None:
            open_rows = rows[reason < 0]
            repeated = _find_repeated(given.picture, np.flatnonzero(fate >= 0), open_rows)
            reason[np.searchsorted(rows, open_rows[repeated])] = SAME_PICTURE
        nobody = np.full(len(rows), -1, np.int64)
        return cls(rows, reason, np.full(len(rows), np.nan), nobody, nobody.copy())

    def take_groups(self, vectors: Vectors, groups: Groups, alike: Labels, loose: Mask) -> None:
        """Make groups new identities but those like an identity of the set or too loose."""
        order = np.argsort((alike >= 0) | loose, kind="stable")
        self.groups = [groups[place] for place in order.tolist()]
        self.new = int(np.count_nonzero((alike < 0) & ~loose))
        self.alike = alike[order[self.new :]]
        for number, (place, group) in enumerate(zip(order.tolist(), self.groups, strict=True)):
            at = np.searchsorted(self.rows, group)
            self.cluster[at], self.identity[at] = number, alike[place]
            reason = GROUP_KNOWN if alike[place] >= 0 else GROUP_LOOSE
            self.reason[at] = LIKE_NEW if number < self.new else reason
            self.score[at] = score_members(vectors, group)

    def take_singles(
        self,
        vectors: Vectors,
        fate: Labels,
        sums: Vectors,
        given: Evidence,
        report: Disjointness,
        grey: float,
    ) -> Disjointness:
        """Route the rows that are in no group; return the report with what was admitted."""
        at = np.flatnonzero(self.reason < 0)
        rows, bound = self.rows[at], report.bound
        new_sums = sum_groups(vectors, self.groups[: self.new])
        best, whose, new = _find_nearest(vectors, rows, sums, new_sums, given.nearest, bound)
        own = np.full(len(rows), np.nan)
        if given.label is not None:
            held = given.label[rows] >= 0
            own[held] = score_own(vectors, rows[held], given.label[rows[held]], fate, sums)
        p_own, p_other = take_chances(given.owners, rows)
        known = p_own + p_other
        reason = np.full(len(rows), UNLIKE, np.int8)
        reason[best >= bound] = NEAR_KNOWN
        reason[(new >= bound) & ~(best >= new)] = NEAR_NEW
        reason[(known >= grey) & (p_own < p_other)] = OTHER
        reason[(own >= bound) | ((known >= grey) & (p_own >= p_other))] = OWN
        if bound <= -1.0:
            reason[:] = UNTOLD
        self.reason[at], self.identity[at] = reason, whose
        self.score[at] = np.fmax(best, new)
        strangers = reason == UNLIKE
        chances = known[strangers] if given.owners is not None else None
        return report.finish(self.score[at][strangers], chances)


def _find_repeated(picture: Labels, kept: Labels, rows: Labels) -> Mask:
    """Return which of the rows have the chip of a kept one, or of one of the rows before."""
    codes = picture[rows]
    repeated = np.ones(len(rows), bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return np.asarray((repeated | np.isin(codes, picture[kept])) & (codes >= 0), bool)


def _find_nearest(
    vectors: Vectors,
    rows: Labels,
    sums: Vectors,
    new_sums: Vectors,
    nearest: Array | None,
    bound: float,
) -> tuple[Array, Labels, Array]:
    """Return the best cosine to an identity, whose, and the best to a new one; NaN without any.

    All are compared, but for rows that are known to reach the bound.
    """
    best, whose = np.full(len(rows), np.nan), np.full(len(rows), -1, np.int64)
    new = best.copy()
    far = np.ones(len(rows), bool)
    if nearest is not None:
        best = nearest[rows].astype(np.float64)
        far = ~(best >= bound)
    nobody = np.full(len(rows), -1, np.int64)
    best[far], whose[far] = score_best(vectors, rows[far], nobody[far], sums)
    new[far], _ = score_best(vectors, rows[far], nobody[far], new_sums)
    return best, whose, new
