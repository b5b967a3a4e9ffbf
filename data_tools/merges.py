"""Identities that are one person under two names, joined with a guard against chains.

Two centres of few pictures are less alike than two of many, whoever they show. What is compared
is therefore the mean cosine over all pairs across, as a share of the mean within: about 1 for one
person at any size, its spread alone depends on size. One person's shares are known from identities
taken apart at random; strangers' from all pairs of identities, whose upper tail is carried on to
the number of pairs there are. The threshold of each size keeps the expected share of false joins
under a target; joins then go from the surest down, and every pair across must support a join.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Vectors, group_rows

SIZES = (1, 2, 3, 5, 9)
"""Least members of the smaller side, of each class of pairs."""

_PRIOR_PAIRS = 4.0
_BLOCK = 1024
_SAMPLE = 4_000_000
_BODY = 0.05
_LEAST_HALVES, _LEAST_STRANGERS = 20, 1000
_FLOOR = 0.5
_LINK_QUANTILE = 0.005


@dataclass(frozen=True)
class Kinship:
    """How alike identities of one and of two people are.

    Attributes:
        scaled: float32 (c, d); the product of two rows is the share of an identity pair.
        members: int64 (c,).
        thresholds: one a class of SIZES: least share to join; infinite where sizes that small
            cannot be told apart or nothing is that alike.
        links: one a class: least share of every pair across two joined groups.
        pairs: int64 (p, 2), identity pairs, the lower number first, that reach a threshold,
            the most alike first.
        shares: float64 (p,), theirs.
        false_rate: expected share of false pairs among them.
    """

    scaled: Vectors
    members: Labels
    thresholds: tuple[float, ...]
    links: tuple[float, ...]
    pairs: Labels
    shares: Array
    false_rate: float


def compare_identities(
    vectors: Vectors,
    assigned: Labels,
    count: int,
    *,
    false_merges: float = 0.005,
    seed: int = 0,
) -> Kinship:
    """Compare all identities with each other.

    Args:
        vectors: float32 (n, d), unit norm.
        assigned: int64 (n,), whose member each row is, -1 for nobody's.
        count: number of identities.
        false_merges: the expected share of wrong pairs among those joined, in (0, 1).
        seed: of the random halves.
    """
    groups = group_rows(np.append(assigned, count - 1))
    groups[-1] = groups[-1][:-1]
    sums, members = _sum_groups(vectors, groups)
    typical = _find_typical(sums, members)
    scaled = _scale(sums, members, typical)
    halves = _cut_halves(vectors, groups, typical, seed)
    same = [cuts.same for cuts in halves]
    classes = _classify(members)
    strangers = _sample_strangers(scaled, classes, halves, seed)
    pairs, shares = _find_pairs(scaled, members)
    sides = np.minimum(classes[pairs[:, 0]], classes[pairs[:, 1]])
    wrong = np.full(len(pairs), np.inf)
    for number in range(len(SIZES)):
        here = sides == number
        total = _count_pairs(classes, number)
        wrong[here] = _expect_wrong(shares[here], strangers[number], total, same[number])
    kept, expected = _choose_pairs(wrong, false_merges)
    thresholds = [
        float(shares[kept & (sides == number)].min(initial=np.inf)) for number in range(len(SIZES))
    ]
    order = np.argsort(-shares[kept], kind="stable")
    return Kinship(
        scaled,
        members,
        tuple(thresholds),
        tuple(_choose_link(same[n], thresholds[n]) for n in range(len(SIZES))),
        pairs[kept][order],
        shares[kept][order],
        expected / max(1, int(kept.sum())),
    )


def join_identities(
    kinship: Kinship,
    apart: Sequence[tuple[int, int]] = (),
    most: int = 50,
) -> Labels:
    """Return the representative of each identity, int64 (c,): the one with most members.

    From the most alike pair down, two groups become one when every pair across them reaches its
    size's link and no pair across must stay apart.

    Args:
        kinship: what `compare_identities` found.
        apart: identity pairs that are surely two people, such as two faces of one photo.
        most: the most identities in one group; a group that wants to be larger is a hub of bad
            pictures rather than a person.
    """
    count = len(kinship.members)
    group = np.arange(count)
    inside: dict[int, list[int]] = {}
    forbidden: dict[int, set[int]] = {}
    for one, two in apart:
        forbidden.setdefault(one, set()).add(two)
        forbidden.setdefault(two, set()).add(one)
    classes, links = _classify(kinship.members), np.array(kinship.links)
    for one, two in kinship.pairs.tolist():
        left, right = int(group[one]), int(group[two])
        if left == right:
            continue
        ours, theirs = inside.get(left, [left]), inside.get(right, [right])
        if len(ours) + len(theirs) > most:
            continue
        if any(not forbidden.get(row, set()).isdisjoint(theirs) for row in ours):
            continue
        across = kinship.scaled[ours] @ kinship.scaled[theirs].T
        least = links[np.minimum.outer(classes[ours], classes[theirs])]
        if (across < least).any():
            continue
        joined = sorted([*ours, *theirs])
        head = min(joined, key=lambda row: (-kinship.members[row], row))
        for name in (left, right):
            inside.pop(name, None)
        inside[head] = joined
        group[joined] = head
    return np.asarray(group, np.int64)


def _sum_groups(vectors: Vectors, groups: list[Labels]) -> tuple[Array, Labels]:
    sums = np.zeros((len(groups), vectors.shape[1]), np.float64)
    for number, rows in enumerate(groups):
        sums[number] = vectors[rows].sum(axis=0, dtype=np.float64)
    return sums, np.array([len(rows) for rows in groups], np.int64)


def _find_typical(sums: Array, members: Labels) -> float:
    """Return the mean cosine of two pictures of one identity."""
    within = np.einsum("cd,cd->c", sums, sums) - members
    pairs = float((members * (members - 1)).sum())
    return float(within.sum() / pairs) if pairs else 1.0


def _scale(sums: Array, members: Labels, typical: float) -> Vectors:
    """Return sums over members and the root of the mean cosine within, drawn to the typical one."""
    within = np.einsum("cd,cd->c", sums, sums) - members + _PRIOR_PAIRS * typical
    mean = within / (members * (members - 1) + _PRIOR_PAIRS)
    scale = np.maximum(members, 1) * np.sqrt(np.maximum(mean, 1e-3))
    return np.asarray(sums / scale[:, None], np.float32)


def _classify(members: Labels) -> Labels:
    """Return the class of SIZES of each identity, -1 for an empty one."""
    return np.asarray(np.searchsorted(SIZES, members, side="right") - 1, np.int64)


@dataclass(frozen=True)
class _Halves:
    """One person's pictures taken apart at random, for one class of sizes.

    Attributes:
        same: float64 (h,), the shares of the two parts, sorted.
        parts: float32 (h, d), the smaller parts, scaled.
        owners: int64 (h,), whose they are.
    """

    same: Array
    parts: Vectors
    owners: Labels


def _cut_halves(vectors: Vectors, groups: list[Labels], typical: float, seed: int) -> list[_Halves]:
    """Return the halves for each class of sizes.

    An identity gives one cut to each class whose size its smaller part can have.
    """
    rng = np.random.default_rng(seed)
    found: list[list[tuple[float, Vectors, int]]] = [[] for _ in SIZES]
    for owner, rows in enumerate(groups):
        if len(rows) < 2 * SIZES[1]:
            continue
        mixed = rng.permutation(rows)
        for number, size in enumerate(SIZES):
            if 2 * size > len(rows):
                break
            parts = mixed[:size], mixed[size:]
            sums = np.stack([vectors[part].sum(axis=0, dtype=np.float64) for part in parts])
            one, two = _scale(sums, np.array([len(part) for part in parts]), typical)
            found[number].append((float(one @ two), one, owner))
    dim = vectors.shape[1]
    return [
        _Halves(
            np.sort(np.array([share for share, _, _ in cuts])),
            np.array([part for _, part, _ in cuts], np.float32).reshape(-1, dim),
            np.array([owner for _, _, owner in cuts], np.int64),
        )
        for cuts in found
    ]


def _sample_strangers(
    scaled: Vectors, classes: Labels, halves: list[_Halves], seed: int
) -> list[Array]:
    """Return, for each class, shares of identity pairs drawn at random, sorted.

    Where a class has few identities, small parts of larger ones stand in for them.
    """
    rng = np.random.default_rng(seed)
    drawn: list[Array] = []
    for number in range(len(SIZES)):
        one = rng.permutation(np.flatnonzero(classes == number))[: math.isqrt(_SAMPLE)]
        two = rng.permutation(np.flatnonzero(classes >= number))
        two = two[: max(math.isqrt(_SAMPLE), _SAMPLE // max(1, len(one)))]
        shares = [np.asarray(scaled[one] @ scaled[two].T)[one[:, None] != two]]
        if len(shares[0]) < _LEAST_STRANGERS:
            parts, owners = halves[number].parts, halves[number].owners
            shares.append(np.asarray(parts @ scaled[two].T)[owners[:, None] != two])
        drawn.append(np.sort(np.concatenate(shares).astype(np.float64)))
    return drawn


def _find_pairs(scaled: Vectors, members: Labels) -> tuple[Labels, Array]:
    """Return all identity pairs alike enough to be looked at, and their shares."""
    rows: list[NDArray[np.int64]] = []
    shares: list[Array] = []
    for first in range(0, len(scaled), _BLOCK):
        block = scaled[first : first + _BLOCK] @ scaled[first:].T
        one, two = np.nonzero(block >= _FLOOR)
        ahead = two > one
        one, two = one[ahead], two[ahead]
        rows.append(np.stack([one + first, two + first], axis=1))
        shares.append(block[one, two].astype(np.float64))
    if not rows:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    return np.concatenate(rows), np.concatenate(shares)


def _count_pairs(classes: Labels, number: int) -> float:
    mine, larger = int((classes == number).sum()), int((classes > number).sum())
    return mine * (mine - 1) / 2 + mine * larger


def _expect_wrong(shares: Array, strangers: Array, total: float, same: Array) -> Array:
    """Return how many pairs of strangers are expected to be at least as alike as each pair.

    Args:
        shares: of pairs of one class.
        strangers: sorted shares of random pairs of the class.
        total: number of pairs of the class.
        same: sorted shares of one person's halves; with too few of them nothing is joined.
    """
    if len(same) < _LEAST_HALVES or len(strangers) < _LEAST_STRANGERS:
        return np.full(len(shares), np.inf)
    return total * _extend_tail(strangers, float(np.quantile(same, 0.02)), shares)


def _choose_pairs(wrong: Array, target: float) -> tuple[NDArray[np.bool_], float]:
    """Return which pairs to join, the surest ones, and how many wrong ones are expected there."""
    ranked = np.sort(wrong[np.isfinite(wrong)])
    good = np.flatnonzero(len(SIZES) * ranked <= target * np.arange(1, len(ranked) + 1))
    if not len(good):
        return np.zeros(len(wrong), bool), 0.0
    most = ranked[good[-1]]
    return wrong <= most, float(len(SIZES) * most)


def _extend_tail(strangers: Array, limit: float, shares: Array) -> Array:
    """Return the probability that strangers reach each share, beyond where they were seen too.

    The logarithm of the observed tail is carried on by a parabola that may only bend down. It is
    fitted where hardly a pair can be one person: below what halves of one person reach, and at
    ranks well above the number of pairs that do reach it.
    """
    n = len(strangers)
    alike = n - int(np.searchsorted(strangers, limit))
    least = max(20, 3 * alike)
    ranks = np.unique(np.geomspace(least, max(10 * least, _BODY * n), 40).astype(np.int64))
    ranks = ranks[ranks < n]
    places, logs = strangers[n - ranks], np.log(ranks / n)
    start = float(places[0])
    slope, bend = _fit_parabola(places - start, logs)
    beyond = np.maximum(shares - start, 0.0)
    extended = logs[0] + slope * beyond + bend * beyond**2
    seen = np.log(np.maximum(n - np.searchsorted(strangers, shares), 1) / n)
    return np.asarray(np.exp(np.where(shares > start, extended, seen)), np.float64)


def _fit_parabola(places: Array, logs: Array) -> tuple[float, float]:
    bend, slope, _ = np.polyfit(places, logs, 2)
    if bend > 0:
        bend = 0.0
        slope = np.polyfit(places, logs, 1)[0]
    return float(min(slope, -1e-3)), float(bend)


def _choose_link(same: Array, threshold: float) -> float:
    """Return the least share of pairs that a join may contain: what one person's halves reach."""
    if not len(same) or not np.isfinite(threshold):
        return float("inf")
    return float(min(threshold, np.quantile(same, _LINK_QUANTILE)))
