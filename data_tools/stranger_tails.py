"""What two people's centres reach by chance in billions of comparisons, from those at hand.

An evaluation identity of one picture and one of twenty are not alike to strangers in the same way,
so each size has a tail of its own, drawn from the set's own identities: as many pictures of one
against the centres of all others. The logarithm of the rate is fitted where it is well known,
between the 1 in 100 and the 1 in 10,000 quantile, and carried on: by a parabola where it bends
down, as that of nearly normal scores does, otherwise in a straight line (exponential exceedances).
Beyond the 1 in 10,000 quantile a person under two names would pass for strangers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_tools.centres import Array, Labels, Vectors, group_rows, scale_to_unit, sum_members

SIZES = (1, 2, 5)
"""Least pictures of an evaluation identity, of each class."""

FALLBACK_CENTRE = 0.7
"""Taken, with the reason, where a set has too few identities (METHODS section 8.4, step 6)."""

_BODY, _END = 1e-2, 1e-4
_BEYOND = 10
_LEAST_PAIRS = 10_000
_PROBES, _CENTRES, _DRAWS = 2000, 10_000, 8
_FEWEST_SAME = 20
_LEAST_SLOPE, _LEAST_SPREAD = 1e-3, 1e-6


@dataclass(frozen=True)
class StrangerTail:
    """How often strangers reach a cosine, for evaluation identities of one size.

    Attributes:
        members: least pictures of such an identity.
        median: cosine of the median stranger.
        start: cosine that 1 in 100 strangers reaches.
        slope: by how much the logarithm of the rate falls there a unit of cosine, positive; NaN
            if the tail is not supported.
        bend: by how much more a squared unit, at least 0; 0 for an exponential tail.
        pairs: comparisons of strangers it stands on.
        same: float64 (s,), sorted cosines of as many pictures of a person to their own centre.
        supported: whether a threshold can be found; otherwise FALLBACK_CENTRE is taken.
        reason: what it stands on, or why it does not, one sentence.
    """

    members: int
    median: float
    start: float
    slope: float
    bend: float
    pairs: int
    same: Array
    supported: bool
    reason: str

    def find_threshold(self, rate: float) -> float:
        """Return the cosine that this share of strangers, at most 1 in 100, is expected to reach.

        Never above 1, where nothing would be found any more.
        """
        if not self.supported:
            return FALLBACK_CENTRE
        fall = float(np.log(_BODY / min(rate, _BODY)))
        # The root of slope x + bend x^2 = fall, in the form that holds for no bend too.
        root = float(np.sqrt(self.slope**2 + 4 * self.bend * fall))
        return min(1.0, self.start + 2 * fall / (self.slope + root))

    def find_halfway(self, threshold: float) -> float:
        """Return the cosine halfway between the median stranger and a threshold."""
        return (self.median + threshold) / 2 if self.pairs else threshold / 2

    def find_recall(self, threshold: float) -> float | None:
        """Return the share of the own identities that would find themselves; None if too few."""
        if len(self.same) < _FEWEST_SAME:
            return None
        return float(np.mean(self.same >= threshold))


def fit_tails(vectors: Vectors, labels: Labels) -> tuple[StrangerTail, ...]:
    """Return the tail of each of SIZES, from a set's own identities.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), -1 for rows that are not part of any centre.
    """
    groups = group_rows(labels)
    sums = sum_members(vectors, labels, len(groups))
    return tuple(_fit_tail(vectors, groups, sums, size) for size in SIZES)


def _fit_tail(vectors: Vectors, groups: list[Labels], sums: Vectors, size: int) -> StrangerTail:
    filled = np.array([number for number, rows in enumerate(groups) if len(rows)], np.int64)
    able = [int(number) for number in filled if len(groups[number]) >= size]
    able = able[:: max(1, len(able) // _PROBES)]
    draws = max(1, min(_DRAWS, _PROBES // max(1, len(able))))
    rows, whose = _draw_probes(groups, able, size, draws)
    parts = vectors[rows].sum(axis=1)
    probes = scale_to_unit(parts)
    centres = filled[:: max(1, len(filled) // _CENTRES)]
    cosines = np.asarray(probes @ scale_to_unit(sums[centres]).T)
    strangers = np.sort(cosines[whose[:, None] != centres])
    enough = np.array([len(groups[number]) for number in whose], np.int64) >= 2 * size
    rest = scale_to_unit(sums[whose[enough]] - parts[enough])
    same = np.sort(np.einsum("pd,pd->p", rest, probes[enough], dtype=np.float64))
    pairs = len(strangers)
    median = float(strangers[pairs // 2]) if pairs else 0.0
    if pairs < _LEAST_PAIRS:
        return StrangerTail(
            size,
            median,
            1.0,
            np.nan,
            0.0,
            pairs,
            same,
            False,
            f"{pairs} comparisons of strangers are too few to carry on, {_LEAST_PAIRS} are needed; "
            f"{FALLBACK_CENTRE} is a fixed value",
        )
    end = max(_END, _BEYOND / pairs)
    rates = np.geomspace(_BODY, end, 20)
    places = strangers[pairs - np.maximum(1, np.round(rates * pairs)).astype(np.int64)]
    start, slope, bend = _fit_rates(places.astype(np.float64), np.log(rates / _BODY))
    reason = f"carried on from {pairs} comparisons of strangers, known to 1 in {1 / end:.0f}"
    return StrangerTail(size, median, start, slope, bend, pairs, same, True, reason)


def _fit_rates(places: Array, logs: Array) -> tuple[float, float, float]:
    """Return where a falling curve through the logarithms is 0, its slope there, and its bend."""
    at = places - places[0]
    if at[-1] < _LEAST_SPREAD:
        return float(places[0]), 1 / _LEAST_SPREAD, 0.0
    square, line, level = np.polyfit(at, logs, 2)
    inside = line**2 - 4 * square * level
    if square >= 0 or inside <= 0:
        line, level = np.polyfit(at, logs, 1)
        return float(places[0] - level / line), max(_LEAST_SLOPE, -float(line)), 0.0
    # The larger root: beyond the parabola's top, where it falls.
    zero = (-line - np.sqrt(inside)) / (2 * square)
    slope = -(line + 2 * square * zero)
    return float(places[0] + zero), max(_LEAST_SLOPE, float(slope)), float(-square)


def _draw_probes(
    groups: list[Labels], able: list[int], size: int, draws: int
) -> tuple[Labels, Labels]:
    """Return rows (p, size) of identities and whose they are, up to `draws` of each, apart."""
    rows: list[Labels] = []
    whose: list[int] = []
    for number in able:
        mine = groups[number]
        for draw in range(min(draws, len(mine) // size)):
            step = len(mine) // size
            rows.append(mine[draw::step][:size])
            whose.append(number)
    shape = (len(rows), size)
    return np.array(rows, np.int64).reshape(shape), np.array(whose, np.int64)
