"""Rejects grouped to people who have no name yet.

From the most alike pair of rejects down, two groups become one when the mean over ALL pairs across
them reaches the level of their sizes (`data_tools.rejects_levels`): a chain of likenesses joins
nothing. Then every row must be like the centre of the others, or it leaves.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask, Vectors, find_others, scale_to_unit
from data_tools.rejects_levels import (
    MOST_MEASURED,
    SIZES,
    Levels,
    classify,
    draw_keys,
    find_tightness,
)

_PASSES = 4
_COPY = 0.97
_SQUARE = 4096
_BLOCK = 1 << 14

Groups = list[Labels]


def group_rejects(
    vectors: Vectors,
    rows: Labels,
    neighbours: Labels,
    scores: Vectors,
    levels: Levels,
    cut: float,
    least: int,
    photo: Labels | None = None,
) -> Groups:
    """Return the groups of at least `least` different pictures, the largest first.

    Args:
        vectors: float32 (n, d), unit norm.
        rows: int64 (m,), the rows to group, ascending.
        neighbours: int64 (m, k), the rows of the n nearest to each of `rows`, -1 for none; those
            that are not to be grouped are passed over.
        scores: float32 (m, k), their cosines.
        levels: from where on groups are one person.
        cut: least cosine of a row to the centre of the others of its group.
        least: pictures; those with a cosine of 0.97 or more count once.
        photo: int64 (n,), rows of one number are faces of one photo, which are two people.

    Returns:
        Rows of each group, ascending; ties of size by the lowest row.
    """
    forest = _Forest(vectors, levels, photo)
    forest.join(_list_edges(rows, neighbours, scores, levels.edge, len(vectors)))
    groups = [_hold_together(vectors, group, cut) for group in forest.groups()]
    groups = [group for group in groups if len(group) >= least]
    groups = _join_groups(vectors, groups, levels, photo)
    kept = [group for group in groups if count_different(vectors[group]) >= least]
    return sorted(kept, key=lambda group: (-len(group), int(group[0])))


def count_different(vectors: Vectors) -> int:
    """Return how many rows are left when of those alike like copies only the first counts."""
    left = np.arange(min(len(vectors), _SQUARE))
    count = 0
    while len(left):
        count += 1
        left = left[1:][vectors[left[1:]] @ vectors[left[0]] < _COPY]
    return count


def sum_groups(vectors: Vectors, groups: Groups) -> NDArray[np.float32]:
    """Return the sum of each group's rows, float32 (g, d)."""
    sums = np.zeros((len(groups), vectors.shape[1]), np.float32)
    for number, group in enumerate(groups):
        sums[number] = vectors[group].sum(axis=0, dtype=np.float64)
    return sums


def find_likeness(
    vectors: Vectors, groups: Groups, levels: Levels, sums: Vectors, label: Labels | None
) -> Labels:
    """Return the identity of the set that each group may be, int64 (g,), -1 for none.

    Args:
        vectors: float32 (n, d), unit norm.
        groups: rows each.
        levels: from where on a group may be somebody known: lower for whom half of it or more was
            taken for, since that is no chance.
        sums: float32 (c, d), sums of the identities' members.
        label: int64 (n,), the identity that each row was given, -1 for none.
    """
    if not groups:
        return np.empty(0, np.int64)
    made, units = scale_to_unit(sum_groups(vectors, groups)), scale_to_unit(sums)
    kind = classify(np.array([len(group) for group in groups], np.int64))
    nobody = np.full(len(groups), -1, np.int64)
    best, whose = find_others(made, nobody, nobody, sums, None)
    out: Labels = np.where(best >= levels.alike[kind], whose, -1)
    for number, group in enumerate(groups if label is not None else []):
        given = label[group][label[group] >= 0] if label is not None else group[:0]
        if out[number] >= 0 or 2 * len(given) < len(group):
            continue
        usual = int(np.argmax(np.bincount(given)))
        held = 2 * np.count_nonzero(given == usual) >= len(group) and units[usual].any()
        if held and float(made[number] @ units[usual]) >= levels.own[kind[number]]:
            out[number] = usual
    return out


def find_loose(vectors: Vectors, groups: Groups, levels: Levels) -> Mask:
    """Return which groups are less tight than as many rows of an identity, bool (g,)."""
    out = np.zeros(len(groups), bool)
    for number, group in enumerate(groups):
        drawn = group[np.argsort(draw_keys(vectors, group, 0), kind="stable")]
        measured = find_tightness(vectors[drawn[:MOST_MEASURED]])
        out[number] = measured[-1] < levels.tight[len(measured) - 1]
    return out


def score_members(vectors: Vectors, group: Labels) -> Array:
    """Return the cosine of each row of a group to the centre of the others, float64."""
    mine = vectors[group].astype(np.float64)
    return _score_rest(mine, mine.sum(axis=0))


class _Forest:
    """Rows and the groups they were joined to; a row in none is a group of its own."""

    def __init__(self, vectors: Vectors, levels: Levels, photo: Labels | None) -> None:
        self._vectors = vectors
        self._photo = photo
        self._root: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}
        self._sums: dict[int, Array] = {}
        self._join = levels.join.tolist()
        self._class = [sum(size >= s for s in SIZES) - 1 for size in range(SIZES[-1] + 1)]

    def groups(self) -> Groups:
        """Return the groups of two rows and more, by their lowest rows."""
        found = (np.sort(np.array(rows, np.int64)) for rows in self._members.values())
        return sorted(found, key=lambda rows: int(rows[0]))

    def add(self, rows: Labels) -> None:
        """Enter a group that is there already."""
        root = int(rows[0])
        self._members[root] = rows.tolist()
        self._sums[root] = self._vectors[rows].sum(axis=0, dtype=np.float64)
        self._root.update(dict.fromkeys(rows.tolist(), root))

    def join(self, edges: NDArray[np.int64]) -> None:
        """Join along pairs of rows, in their order; again while larger groups may join more."""
        pairs: Iterable[tuple[int, int]] = map(tuple, edges.tolist())
        for _ in range(_PASSES):
            left, joined = [], False
            for one, two in pairs:
                here, there = self._root.get(one, one), self._root.get(two, two)
                if here == there:
                    continue
                if self._fit(here, there):
                    self._unite(here, there)
                    joined = True
                else:
                    left.append((one, two))
            pairs = left
            if not joined:
                return

    def _fit(self, one: int, two: int) -> bool:
        ours, theirs = self._members.get(one), self._members.get(two)
        sizes = len(ours) if ours else 1, len(theirs) if theirs else 1
        mean = float(self._sum(one) @ self._sum(two)) / (sizes[0] * sizes[1])
        here, there = (self._class[min(size, SIZES[-1])] for size in sizes)
        if mean < self._join[here][there]:
            return False
        if self._photo is None:
            return True
        photos = {int(self._photo[row]) for row in ours or [one]}
        return all(int(self._photo[row]) not in photos for row in theirs or [two])

    def _sum(self, root: int) -> Array:
        found = self._sums.get(root)
        return self._vectors[root].astype(np.float64) if found is None else found

    def _unite(self, one: int, two: int) -> None:
        total = self._sum(one) + self._sum(two)
        ours, theirs = self._members.pop(one, [one]), self._members.pop(two, [two])
        if len(ours) < len(theirs):
            one, two, ours, theirs = two, one, theirs, ours
        ours.extend(theirs)
        self._sums.pop(two, None)
        self._members[one], self._sums[one] = ours, total
        self._root[one] = one
        for row in theirs:
            self._root[row] = one


def _list_edges(
    rows: Labels, neighbours: Labels, scores: Vectors, least: float, n: int
) -> NDArray[np.int64]:
    """Return the pairs of the rows in the graph that are alike enough, the most alike first."""
    inside = np.zeros(n, bool)
    inside[rows] = True
    pairs, cosines = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for first in range(0, len(rows), _BLOCK):
        mine = rows[first : first + _BLOCK]
        near, score = neighbours[first : first + _BLOCK], scores[first : first + _BLOCK]
        place, column = np.nonzero((near >= 0) & (score >= least) & inside[near])
        found = np.stack([mine[place], near[place, column]], axis=1).astype(np.int64)
        pairs.append(np.sort(found, axis=1))
        cosines.append(score[place, column])
    both = np.concatenate(pairs)
    # Each pair may stand with either of its rows: once is enough.
    _, once = np.unique(both[:, 0] * n + both[:, 1], return_index=True)
    order = np.argsort(-np.concatenate(cosines)[once], kind="stable")
    return np.asarray(both[once[order]], np.int64)


def _hold_together(vectors: Vectors, group: Labels, cut: float) -> Labels:
    """Return the rows that are like the centre of the others; the least alike leaves first."""
    mine = vectors[group].astype(np.float64)
    kept = np.ones(len(group), bool)
    total = mine.sum(axis=0)
    while kept.sum() >= 2:
        cosines = _score_rest(mine, total)
        cosines[~kept] = np.inf
        worst = int(np.argmin(cosines))
        if cosines[worst] >= cut:
            break
        kept[worst] = False
        total -= mine[worst]
    return group[kept]


def _score_rest(mine: Array, total: Array) -> Array:
    rest = total - mine
    norms = np.maximum(np.linalg.norm(rest, axis=1), 1e-12)
    return np.asarray(np.einsum("nd,nd->n", rest, mine) / norms)


def _join_groups(vectors: Vectors, groups: Groups, levels: Levels, photo: Labels | None) -> Groups:
    """Join groups that the graph's few neighbours a row did not bring together."""
    least = float(levels.join[1:, 1:].min())
    if len(groups) < 2 or not np.isfinite(least):
        return groups
    sums = sum_groups(vectors, groups)
    means = sums / np.array([len(group) for group in groups], np.float32)[:, None]
    heads = np.array([group[0] for group in groups], np.int64)
    pairs, cosines = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for first in range(0, len(groups), 1024):
        block = np.asarray(means[first : first + 1024] @ means[first:].T)
        one, two = np.nonzero(block >= least)
        ahead = two > one
        one, two = one[ahead], two[ahead]
        pairs.append(np.stack([heads[one + first], heads[two + first]], axis=1))
        cosines.append(block[one, two])
    order = np.argsort(-np.concatenate(cosines), kind="stable")
    forest = _Forest(vectors, levels, photo)
    for group in groups:
        forest.add(group)
    forest.join(np.concatenate(pairs)[order])
    return forest.groups()
