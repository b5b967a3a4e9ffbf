"""A round's verdict on every row: who it shows, from scores alone, nothing logged and no file read.

The order is what keeps one check from spoiling the next: robust centres first, then second people
of a folder, then identities that are one person, and only then whose face each row is, against
centres that two names no longer share. The last step is done twice, the second time with centres
of the rows that were moved to their owners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask, Vectors
from data_tools.communities import find_communities
from data_tools.merges import Kinship, compare_identities, join_identities
from data_tools.outliers import MIN_PICTURES, ScoreTable, rescore_rows, score_rows
from data_tools.owners import Owners, weigh_owners
from data_tools.thresholds import Threshold
from facerec.checks import InputError, check_range

OUT = -1
_MEMBER = 0.95
_UNSEEN = 0.97
_PASSES = 2
_MOST_JOINED = 0.5


@dataclass(frozen=True)
class Targets:
    """What a round may get wrong, in expectation.

    Attributes:
        false_drops: share of the right rows that may be dropped, in (0, 1).
        false_relabels: share of the relabelled rows that may be wrong, in (0, 1).
        false_merges: share of the joined identity pairs that may be wrong, in (0, 1).
        max_drop: the greatest share of an identity's rows that may be dropped, in [0, 1].
        threshold: a cosine under which rows of an identity are dropped, in place of the
            probability found from the set.
    """

    false_drops: float = 0.01
    false_relabels: float = 0.01
    false_merges: float = 0.005
    max_drop: float = 1.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("false_drops", "false_relabels", "false_merges"):
            check_range(getattr(self, name), name, 1e-9, 1.0 - 1e-9)
        check_range(self.max_drop, "max_drop", 0.0, 1.0)
        if self.threshold is not None:
            check_range(self.threshold, "threshold", -1.0, 1.0)


@dataclass(frozen=True)
class Judgement:
    """What a round thinks of n rows of c identities.

    Attributes:
        fate: int64 (n,), the identity each row ends in: 0 .. c-1 as given, the new ones from
            splits after them, -1 for none.
        merged: int64 (c + s,), the representative of each identity, itself where not merged.
        origin: int64 (s,), the given identity that each new one was split from.
        scores: the last score table; its identities are representatives.
        owners: the probabilities that decided.
        cut: the threshold fit, with the histograms.
        kinship: how the identities were compared.
        keep_at: least probability of its own identity for a row to stay.
        move_at: least probability of another identity for a row to be moved there.
        capped: bool (n,), rows kept only by the cap on drops.
        crowded: bool (n,), rows not moved because too many rows want to join that identity.
        sibling: bool (n,), rows out because another face of their picture is likelier.
    """

    fate: Labels
    merged: Labels
    origin: Labels
    scores: ScoreTable
    owners: Owners
    cut: Threshold
    kinship: Kinship
    keep_at: float
    move_at: float
    capped: Mask
    crowded: Mask
    sibling: Mask

    @property
    def noise(self) -> float:
        """Estimated share of the labelled rows that do not show their label's person."""
        known = self.scores.size > 0
        return float(1.0 - self.owners.own[known].mean()) if known.any() else 0.0


def judge(
    vectors: Vectors,
    labels: Labels,
    neighbours: NDArray[np.int32] | None = None,
    targets: Targets | None = None,
    photos: Labels | None = None,
    seed: int = 0,
) -> Judgement:
    """Judge every row.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), identities 0, 1, ... (every number used), -1 for none: such a row has
            no vote and no fate.
        neighbours: int32 (n, k), the rows nearest to each; None compares with all identities.
        targets: what may go wrong; the defaults when None.
        photos: int64 (n,), rows of one picture share a number: they show different people, so no
            identity takes two of them, and identities that meet in a picture are not one.
        seed: of what is sampled.

    Raises:
        InputError: see `score_rows`; or a model to which most of the people are one.
    """
    targets = targets or Targets()
    count = int(labels.max(initial=-1)) + 1
    scores, cut = score_rows(vectors, labels, targets.threshold, neighbours)
    own = _hold_own(scores, cut)
    turned_away = (labels >= 0) & ~own
    community, added = find_communities(vectors, labels, turned_away, cut.value, seed)
    split = community >= 0
    given = np.where(split, count + community, labels)
    assigned = np.where(own | split, given, OUT)
    origin = np.full(added, -1, np.int64)
    origin[community[split]] = labels[split]
    kinship = compare_identities(
        vectors, assigned, count + added, false_merges=targets.false_merges, seed=seed
    )
    apart = () if photos is None else find_meetings(photos, assigned)
    merged = _join(kinship, apart, origin, count)
    _check_sight(merged[:count], kinship)
    current = np.where(given >= 0, merged[given], OUT)
    assigned = np.where(assigned >= 0, merged[assigned], OUT)
    verdict = None
    for _ in range(_PASSES):
        scores, cut = rescore_rows(vectors, current, assigned, targets.threshold, neighbours)
        owners = weigh_owners(scores, cut, (current < count) & (scores.other_identity < count))
        verdict = _decide(current, scores, owners, cut, targets)
        sure = (verdict.fate == current) | (owners.other >= _MEMBER)
        assigned = np.where(sure, verdict.fate, OUT)
    assert verdict is not None, "at least one pass"
    fate = verdict.fate
    sibling = np.zeros(len(fate), bool) if photos is None else find_siblings(photos, fate, owners)
    return Judgement(
        np.where(sibling, OUT, fate),
        merged,
        origin,
        scores,
        owners,
        cut,
        kinship,
        verdict.keep_at,
        verdict.move_at,
        verdict.capped,
        verdict.crowded,
        sibling,
    )


def find_meetings(photos: Labels, assigned: Labels) -> list[tuple[int, int]]:
    """Return the pairs of identities that have members in one picture, each once, ascending.

    Args:
        photos: int64 (n,), rows of one picture share a number.
        assigned: int64 (n,), whose member each row is, -1 for nobody's.
    """
    rows = np.flatnonzero(assigned >= 0)
    order = rows[np.lexsort((assigned[rows], photos[rows]))]
    pairs: set[tuple[int, int]] = set()
    edges = np.flatnonzero(np.diff(photos[order], prepend=-1, append=-1))
    for place in np.flatnonzero(np.diff(edges) > 1):
        together = np.unique(assigned[order[edges[place] : edges[place + 1]]])
        pairs.update(combinations(together.tolist(), 2))
    return sorted(pairs)


def find_siblings(photos: Labels, fate: Labels, owners: Owners) -> Mask:
    """Return the rows that share picture and fate with a row likelier to be that person."""
    chance = np.maximum(owners.own, owners.other)
    rows = np.flatnonzero(fate >= 0)
    order = rows[np.lexsort((rows, -chance[rows], fate[rows], photos[rows]))]
    again = (np.diff(photos[order], prepend=-1) == 0) & (np.diff(fate[order], prepend=-1) == 0)
    out = np.zeros(len(fate), bool)
    out[order[again]] = True
    return out


@dataclass(frozen=True)
class _Verdict:
    fate: Labels
    keep_at: float
    move_at: float
    capped: Mask
    crowded: Mask


def _hold_own(scores: ScoreTable, cut: Threshold) -> Mask:
    """Return the rows like their own identity; a single row can only be taken at its word."""
    return np.asarray((scores.own >= cut.value) | (scores.size == 1), bool)


def _check_sight(merged: Labels, kinship: Kinship) -> None:
    """Refuse a model to which most people are one.

    Raises:
        InputError: more than half of the identities would be joined with others.
    """
    filled = kinship.members[: len(merged)] > 0
    joined = int(np.count_nonzero(filled & (merged != np.arange(len(merged)))))
    if joined > _MOST_JOINED * int(filled.sum()):
        raise InputError(
            f"the model does not tell these people apart: {joined} of {int(filled.sum())} "
            "identities would be joined with others; take a better model or train it longer"
        )


def _join(kinship: Kinship, apart: Sequence[tuple[int, int]], origin: Labels, count: int) -> Labels:
    """Return the representatives; a given identity stands for a new one, even a larger one."""
    merged = join_identities(kinship, apart)
    for head in np.unique(merged[count:]):
        if head >= count:
            group = np.flatnonzero(merged == head)
            if group[0] < count:
                merged[group] = group[0]
    return merged


def _decide(
    labels: Labels, scores: ScoreTable, owners: Owners, cut: Threshold, targets: Targets
) -> _Verdict:
    """Return each row's fate among the representatives."""
    held = labels >= 0
    judged = scores.size >= MIN_PICTURES
    wanted = owners.other > np.where(judged, np.maximum(owners.own, owners.nobody), _UNSEEN)
    move_at = _choose_move(owners.other, wanted, targets.false_relabels)
    moved = held & wanted & (owners.other >= move_at)
    crowded = _find_crowds(moved, scores, labels)
    moved &= ~crowded
    if targets.threshold is None:
        keep_at = _choose_keep(owners.own[held & judged], targets.false_drops)
        bad = judged & (owners.own < keep_at)
    else:
        keep_at, bad = 0.5, judged & (scores.own < cut.value)
    bad = held & bad & ~moved
    dropped = cap_drops(bad, owners.own, labels, targets.max_drop)
    fate = np.where(moved, scores.other_identity, np.where(dropped, OUT, labels))
    return _Verdict(fate, keep_at, move_at, bad & ~dropped, crowded & held)


def _choose_move(chance: Array, wanted: Mask, target: float) -> float:
    """Return the least probability at which the rows moved are wrong at the target's rate."""
    ranked = np.sort(chance[wanted])[::-1]
    wrong = np.cumsum(1.0 - ranked) / np.arange(1, len(ranked) + 1)
    good = np.flatnonzero(wrong <= target)
    return float(ranked[good[-1]]) if len(good) else 1.0 + 1e-9


def _choose_keep(chance: Array, target: float) -> float:
    """Return the probability under which rows go: 1/2, or less where that loses too many."""
    ranked = np.sort(chance)
    lost = np.cumsum(ranked)
    within = int(np.searchsorted(lost, target * max(float(chance.sum()), 1e-12), side="right"))
    return 0.5 if within >= len(ranked) else min(0.5, float(ranked[within]))


def _find_crowds(moved: Mask, scores: ScoreTable, labels: Labels) -> Mask:
    """Return the rows that would join an identity in numbers its own members cannot vouch for.

    Where a recogniser is weak, on small children or blurred faces, strangers look like each other
    and all like some one identity.
    """
    whom = scores.other_identity
    count = int(max(labels.max(initial=-1), whom.max(initial=-1))) + 1
    members = np.bincount(labels[scores.core & (labels >= 0)], minlength=count)
    joining = np.bincount(whom[moved], minlength=count)
    crowd = joining > 2 * members + 2
    out: Mask = moved.copy()
    out[moved] = crowd[whom[moved]]
    return out


def cap_drops(bad: Mask, own: Array, labels: Labels, most: float) -> Mask:
    """Return the bad rows that may go: of each identity the least likely ones, up to a share.

    Args:
        bad: bool (n,), rows with a label.
        own: float64 (n,), how likely each row is right; ties go by row.
        labels: int64 (n,), -1 for none.
        most: the greatest share of an identity's rows, in [0, 1].
    """
    if most >= 1.0 or not bad.any():
        return bad
    sizes = np.bincount(labels[labels >= 0])
    rows = np.flatnonzero(bad)
    rows = rows[np.lexsort((rows, own[rows], labels[rows]))]
    first = np.searchsorted(labels[rows], labels[rows], side="left")
    place = np.arange(len(rows)) - first
    room = np.floor(most * sizes[labels[rows]] + 1e-9)
    out = np.zeros(len(bad), bool)
    out[rows[place < room]] = True
    return out
