"""How alike rejects must be to be one person, found from the identities of the set itself.

What counts is not how often two strangers are that alike, but how often one row or group is that
alike to ANY of the strangers around: the best of a million is never far. So a few rows of known
identities are held against all others, the best is noted, and its upper tail gives the levels, one
for each pair of sizes, since the means of few pictures are less alike than those of many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Vectors, group_rows, scale_to_unit

SIZES = (1, 2, 4, 8)
"""Least rows of a group, of each class."""

MOST_MEASURED = 16
"""Rows of an identity or a group that its tightness is measured on."""

_QUERIES, _BASES = 4000, 100_000
_FEWEST = 20
_FALSE_LINK = 0.01
_LOST_LINK = 0.02
_NEEDLESS, _OWN_LOST, _LOOSE = 0.02, 0.005, 0.1
_CELLS = 1 << 24
_BASES_OF_EACH = 20
_KEY_COLUMNS = 16


@dataclass(frozen=True)
class Levels:
    """From where on groups of rows are taken for one person.

    Attributes:
        join: float64 (4, 4), symmetric: least mean cosine over all pairs across two groups of
            those classes of SIZES, to join them: what a group reaches with any stranger around in
            1 case of 100, and at least what 49 of 50 parts of one person reach. Infinite where
            too little is known.
        edge: cosine that the best stranger around reaches for every other row; pairs below it are
            not looked at.
        alike: float64 (4,), cosine of a group's centre with an identity's from which on they may
            be one person: what the best of all other identities reaches in 1 case of 50.
        own: float64 (4,), the same where most of the group was given that identity: less, what
            all but 1 in 200 parts of one person reach.
        tight: float64 (17,), least `find_tightness` of a group, by the rows it is measured on:
            what as many rows reach of all but 1 in 10 identities. Strangers whom a recogniser
            cannot tell apart, such as small children, are all a little alike and none much.
    """

    join: Array
    edge: float
    alike: Array
    own: Array
    tight: Array


def find_levels(
    vectors: Vectors, fate: Labels, sums: Vectors, pool: int, seed: int = 0
) -> Levels | None:
    """Return the levels, None where the set has fewer than 20 identities to learn from.

    Args:
        vectors: float32 (n, d), unit norm.
        fate: int64 (n,), whose member each row is, -1 for a reject.
        sums: float32 (c, d), of `data_tools.centres.sum_members` with `fate`.
        pool: rows to be grouped: the more there are, the more alike the best of strangers.
        seed: of what is sampled.
    """
    kept = np.flatnonzero(fate >= 0)
    drawn = kept[np.argsort(draw_keys(vectors, kept, seed), kind="stable")]
    if np.count_nonzero(np.bincount(fate[kept], minlength=1)) < _FEWEST:
        return None
    _, first = np.unique(fate[drawn], return_index=True)
    taken = fate[drawn[np.sort(first)[: _BASES // _BASES_OF_EACH]]]
    number = np.full(len(sums), -1, np.int64)
    number[taken] = np.arange(len(taken))
    mixed = [drawn[places][:MOST_MEASURED] for places in group_rows(number[fate[drawn]])]
    parts = [_average(vectors, mixed, size, 0) for size in SIZES]
    join = np.full((len(SIZES), len(SIZES)), np.inf)
    single, edge = _find_single(vectors, fate, drawn, pool)
    for one, size in enumerate(SIZES):
        for two in range(one, len(SIZES)):
            bases, whose = parts[two]
            rivals = max(1.0, pool / SIZES[two])
            best = _find_best(parts[one][0][:_QUERIES], parts[one][1][:_QUERIES], bases, whose)
            strangers = single if two == 0 else _reach(best, _FALSE_LINK * len(bases) / rivals)
            same = _score_parts(vectors, mixed, size, SIZES[two])
            known = len(same) >= _FEWEST or two == 0
            lost = float(np.quantile(same, _LOST_LINK)) if len(same) else -1.0
            join[one, two] = max(strangers, lost) if known else np.inf
    alike, own = _find_alike(parts, vectors, mixed, taken, sums)
    return Levels(_fill(join), edge, alike, own, _find_tight(vectors, mixed))


def draw_keys(vectors: Vectors, rows: Labels, seed: int) -> NDArray[np.uint64]:
    """Return a number for each of some rows that looks random and is of its vector alone.

    To sample by it, so that the order of a set's rows does not matter.
    """
    values = np.ascontiguousarray(vectors[rows, :_KEY_COLUMNS])
    bits = values.view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(seed).integers(1 << 62, size=values.shape[1], dtype=np.uint64)
    keys = np.zeros(len(rows), np.uint64)
    for column, factor in zip(bits.T, factors * np.uint64(2) + np.uint64(1), strict=True):
        keys = (keys ^ (column * factor)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def find_tightness(vectors: Vectors) -> Array:
    """Return the mean cosine of the first m rows to the nearest other one of them, by m.

    Args:
        vectors: float32 (n, d), unit norm.

    Returns:
        float64 (min(n, 16) + 1,); -1 for 0 and for 1 row.
    """
    mine = vectors[:MOST_MEASURED]
    cosines = np.asarray(mine @ mine.T)
    np.fill_diagonal(cosines, -1.0)
    out = np.full(len(mine) + 1, -1.0)
    for count in range(2, len(mine) + 1):
        out[count] = cosines[:count, :count].max(axis=1).mean()
    return out


def classify(sizes: Labels | int) -> Labels:
    """Return the class of SIZES of group sizes from 1 on, int64."""
    return np.asarray(np.searchsorted(SIZES, sizes, side="right") - 1, np.int64)


def _average(
    vectors: Vectors, mixed: list[Labels], size: int, first: int
) -> tuple[Vectors, Labels]:
    """Return the mean of `size` rows of each identity that has them, and which those are."""
    able = [place for place, rows in enumerate(mixed) if len(rows) >= first + size]
    rows = np.array([mixed[place][first : first + size] for place in able], np.int64)
    rows = rows.reshape(len(able), size)
    means = np.zeros((len(able), vectors.shape[1]), np.float32)
    for column in rows.T:
        means += vectors[column]
    return means / np.float32(size), np.array(able, np.int64)


def _find_single(vectors: Vectors, fate: Labels, drawn: Labels, pool: int) -> tuple[float, float]:
    """Return the cosine that a row reaches with the best of `pool` strangers: rarely, and often."""
    queries, bases = drawn[:_QUERIES], drawn[-_BASES:]
    best = _find_best(vectors[queries], fate[queries], vectors[bases], fate[bases])
    share = len(bases) / max(1, pool)
    return _reach(best, _FALSE_LINK * share), _reach(best, min(0.5, 0.5 * share))


def _find_best(queries: Vectors, mine: Labels, bases: Vectors, whose: Labels) -> Array:
    """Return, sorted, the best cosine of each query to a base of somebody else, float64."""
    best = np.full(len(queries), -np.inf)
    if not len(bases):
        return best[:0]
    step = max(1, _CELLS // len(bases))
    for first in range(0, len(queries), step):
        block = slice(first, first + step)
        cosines = np.asarray(queries[block] @ bases.T)
        cosines[mine[block, None] == whose] = -np.inf
        best[block] = cosines.max(axis=1)
    return np.sort(best[np.isfinite(best)])


def _reach(best: Array, chance: float) -> float:
    """Return what the best of strangers reaches with that chance; infinite with too few of them.

    Beyond the tenth best of the sample the tail is carried on exponentially.
    """
    n = len(best)
    if n < _FEWEST:
        return float("inf")
    seen = min(10.0, n / 4) / n
    chance = min(chance, 0.5)
    if chance >= seen:
        return float(np.quantile(best, 1.0 - chance))
    near, far = np.quantile(best, [1.0 - min(0.5, 4 * seen), 1.0 - seen])
    return float(far + (far - near) * np.log(seen / chance) / np.log(4.0))


def _score_parts(vectors: Vectors, mixed: list[Labels], one: int, two: int) -> Array:
    """Return the mean cosine across two parts of each identity, apart from each other."""
    rest, able = _average(vectors, mixed, two, one)
    first, _ = _average(vectors, [mixed[place] for place in able], one, 0)
    return np.asarray(np.einsum("pd,pd->p", first, rest, dtype=np.float64))


def _find_tight(vectors: Vectors, mixed: list[Labels]) -> Array:
    """Return the least tightness by rows; what too few identities can say is that of fewer rows."""
    found = np.full((len(mixed), MOST_MEASURED + 1), np.nan)
    for place, rows in enumerate(mixed):
        measured = find_tightness(vectors[rows])
        found[place, : len(measured)] = measured
    tight = np.full(MOST_MEASURED + 1, -1.0)
    for count in range(2, MOST_MEASURED + 1):
        known = found[:, count][np.isfinite(found[:, count])]
        enough = len(known) >= _FEWEST
        tight[count] = np.quantile(known, _LOOSE) if enough else tight[count - 1]
    return tight


def _fill(join: Array) -> Array:
    """Return the table whole: what is not known of large groups is taken from smaller ones."""
    for one in range(len(SIZES)):
        for two in range(one, len(SIZES)):
            if not np.isfinite(join[one, two]):
                smaller = [join[a, b] for a, b in ((one - 1, two), (one, two - 1)) if 0 <= a <= b]
                join[one, two] = min(smaller, default=np.inf)
    upper = np.triu(join)
    filled: Array = np.where(np.triu(np.ones_like(join)) > 0, upper, join.T)
    return filled


def _find_alike(
    parts: list[tuple[Vectors, Labels]],
    vectors: Vectors,
    mixed: list[Labels],
    taken: NDArray[np.int64],
    sums: Vectors,
) -> tuple[Array, Array]:
    """Return from where on a group may be an identity of the set, and may be its own."""
    units = scale_to_unit(sums)
    filled = np.flatnonzero(units.any(axis=1))
    bases = filled[:: -(-len(filled) // _BASES)]
    alike, own = np.full(len(SIZES), np.inf), np.full(len(SIZES), np.inf)
    for number, (size, (means, able)) in enumerate(zip(SIZES, parts, strict=True)):
        queries, who = scale_to_unit(means)[:_QUERIES], taken[able][:_QUERIES]
        best = _find_best(queries, who, units[bases], bases)
        alike[number] = _reach(best, _NEEDLESS * len(bases) / len(filled))
        large = np.array([len(mixed[place]) >= 2 * size for place in able], bool)
        rest = sums[taken[able[large]]] - size * means[large]
        same = np.einsum(
            "pd,pd->p", scale_to_unit(rest), scale_to_unit(means[large]), dtype=np.float64
        )
        lost = float(np.quantile(same, _OWN_LOST)) if len(same) >= _FEWEST else np.inf
        if not np.isfinite(alike[number]) and number:
            alike[number] = alike[number - 1]
        own[number] = min(alike[number], lost)
    return alike, own
