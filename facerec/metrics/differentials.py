"""Demographic differentials at one global threshold (ISO/IEC 19795-10:2024).

FMR of a group is that of strangers who both belong to it; the matrix holds every pair of groups.
The inequity of a rate over groups is summed up three ways: greatest over geometric mean (NIST
IR 8429, 2022), the fairness discrepancy rate FDR (1 is fair) and GARBE, a Gini coefficient (0 is
fair); see `inequity`. A group without an error makes a ratio undefined: None, never a made-up
figure.

Intervals resample people within their group, so that a group's size stays what it is; a
non-mated comparison weighs the product of its two people's multiplicities. Those of rates are
moved for bias and skewness (BCa), those of inequity are the resamples' percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range, check_whole
from facerec.metrics.bootstrap import Interval, bca_interval, percentile_interval
from facerec.metrics.inequity import fairness_discrepancy, garbe, max_over_geomean
from facerec.metrics.verification import check_scores

# Fewer errors than this, and a rate is luck: it is flagged.
MIN_ERRORS = 10

# So many weights at once while resampling.
_BLOCK = 2**22

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Rate:
    """An error rate of a group or of a pair of groups.

    Attributes:
        errors: comparisons decided wrongly.
        comparisons: how many there were.
        people: how many different people stand in them.
        value: errors / comparisons, None without a comparison.
        interval: of the subject bootstrap; None without a comparison. Without an error it ends
            where that many units, all right, would leave it at this confidence (people for
            FNMR, pairs of people for FMR): a bootstrap of no errors has no width.
        supported: whether at least `MIN_ERRORS` errors were seen.
    """

    errors: int
    comparisons: int
    people: int
    value: float | None
    interval: Interval | None
    supported: bool


@dataclass(frozen=True)
class Figure:
    """A figure over all groups with its interval; None where it is undefined.

    Attributes:
        value: of the sample itself.
        interval: of the resamples in which it is defined.
        defined: share of resamples in which it is.
    """

    value: float | None
    interval: Interval | None
    defined: float


@dataclass(frozen=True)
class Inequity:
    """How unequal the groups' rates are.

    Attributes:
        fmr_ratio: greatest FMR over the geometric mean of all groups' FMR, at least 1.
        fnmr_ratio: likewise of FNMR.
        fdr: 1 - (alpha * greatest difference of FMR + (1 - alpha) * that of FNMR).
        garbe: alpha * Gini of FMR + (1 - alpha) * Gini of FNMR, in [0, 1].
    """

    fmr_ratio: Figure
    fnmr_ratio: Figure
    fdr: Figure
    garbe: Figure


@dataclass(frozen=True)
class Differentials:
    """Error rates by group at one threshold.

    Attributes:
        threshold: scores at or above it are accepted.
        groups: names, rising.
        people: group -> how many people.
        fnmr: group -> share of its mated comparisons that were refused.
        fmr: group -> share of its strangers' comparisons that were accepted.
        cross_fmr: (group, other), the first not after the second -> likewise of strangers of these
            two groups; the groups themselves are among them.
        inequity: over all groups.
    """

    threshold: float
    groups: list[str]
    people: dict[str, int]
    fnmr: dict[str, Rate]
    fmr: dict[str, Rate]
    cross_fmr: dict[tuple[str, str], Rate]
    inequity: Inequity


def measure_differentials(
    scores: ArrayLike,
    same: ArrayLike,
    people_a: ArrayLike,
    people_b: ArrayLike,
    group_of: dict[str, str],
    threshold: float,
    *,
    alpha: float = 0.5,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Differentials:
    """Return error rates by group, the cross-group matrix and their inequity, with intervals.

    Args:
        scores: (n,), larger is more alike; -inf is a failure: a miss of a mated comparison.
        same: (n,) boolean or 0/1.
        people_a: (n,), the person of each first side, text.
        people_b: (n,), likewise of the second; equal to the first in mated comparisons alone.
        group_of: person -> group, for every person.
        threshold: one for all groups, frozen on other people; finite.
        alpha: weight of FMR in FDR and GARBE.
        resamples: of the bootstrap; its cost is theirs times the different pairs of people.
        confidence: of the intervals.
        seed: of the resamples.

    Raises:
        InputError: as `verification.check_scores`; people that do not fit or have no group, fewer
            than two groups, a threshold that is not finite.
    """
    values, labels = check_scores(scores, same)
    check_range(threshold, "threshold", -1e300, 1e300)
    check_range(alpha, "alpha", 0, 1)
    check_range(confidence, "confidence", 0.5, 0.9999)
    check_whole(resamples, "resamples", 2, 10_000_000)
    table = _read_people(people_a, people_b, labels, group_of)
    wrong = (values >= threshold) != labels
    units = _merge_comparisons(table, labels, wrong)
    width = len(table.groups)
    times = _draw_within(table.group, width, resamples, seed)
    sample = _rates(units, np.ones((1, len(table.group))), width)[0]
    resampled = _rates(units, times, width)
    summaries = _summarise(units, sample, resampled, confidence)
    names = table.groups
    first, second = np.triu_indices(width)
    cross = {
        (names[i], names[j]): summaries[width + place]
        for place, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True))
    }
    return Differentials(
        threshold=float(threshold),
        groups=names,
        people=dict(zip(names, np.bincount(table.group, minlength=width).tolist(), strict=True)),
        fnmr=dict(zip(names, summaries[:width], strict=True)),
        fmr={name: cross[name, name] for name in names},
        cross_fmr=cross,
        inequity=_measure_inequity(sample, resampled, width, alpha, confidence),
    )


@dataclass(frozen=True)
class _People:
    """Both sides' people as numbers, and each person's group."""

    first: Places
    second: Places
    group: Places
    groups: list[str]


@dataclass(frozen=True)
class _Units:
    """Pairs of people, sorted by cell: a mated one is a person with itself.

    Cells are the groups' mated comparisons, then the pairs of groups row by row.
    """

    first: Places
    second: Places
    cells: Places
    errors: Places
    comparisons: Places
    starts: Places
    filled: Places


def _read_people(
    people_a: ArrayLike, people_b: ArrayLike, labels: NDArray[np.bool_], group_of: dict[str, str]
) -> _People:
    sides = []
    for people, name in ((people_a, "people_a"), (people_b, "people_b")):
        row = np.asarray(people)
        if row.dtype == object:
            row = np.asarray(row.tolist())
        if row.shape != labels.shape or row.dtype.kind != "U":
            raise InputError(
                f"{name} must be {labels.shape}, one name a score, got {row.dtype} {row.shape}"
            )
        sides.append(row)
    mismatched = np.flatnonzero((sides[0] == sides[1]) != labels)
    if mismatched.size:
        place = int(mismatched[0])
        kind = "mated" if labels[place] else "non-mated"
        raise InputError(
            f"comparison {place} is {kind}, but its people are {str(sides[0][place])!r} and "
            f"{str(sides[1][place])!r}"
        )
    names, codes = np.unique(np.concatenate(sides), return_inverse=True)
    lacking = [name for name in names.tolist() if name not in group_of]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {names.size} people have no group, {lacking[0]!r} first; name "
            "each person's group or leave the person out"
        )
    groups, group = np.unique([group_of[name] for name in names.tolist()], return_inverse=True)
    if groups.size < 2:
        raise InputError(f"differentials need at least 2 groups, got {groups.size}")
    codes = codes.astype(np.int64)
    return _People(
        codes[: labels.size], codes[labels.size :], group.astype(np.int64), groups.tolist()
    )


def _merge_comparisons(
    table: _People, labels: NDArray[np.bool_], wrong: NDArray[np.bool_]
) -> _Units:
    """Return one unit for each pair of people that was compared."""
    low, high = np.minimum(table.first, table.second), np.maximum(table.first, table.second)
    count = table.group.size
    pairs, places = np.unique(low * count + high, return_inverse=True)
    comparisons = np.bincount(places)
    errors = np.bincount(places, wrong).astype(np.int64)
    first, second = pairs // count, pairs % count
    width = len(table.groups)
    left, right = np.sort([table.group[first], table.group[second]], axis=0)
    # Place of (left, right) in the upper triangle, row by row.
    triangle = left * width - left * (left - 1) // 2 + right - left
    cells = np.where(first == second, left, width + triangle)
    order = np.argsort(cells, kind="stable")
    cells = cells[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    return _Units(
        first[order],
        second[order],
        cells,
        errors[order],
        comparisons[order].astype(np.int64),
        starts,
        cells[starts],
    )


def _draw_within(group: Places, groups: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Return multiplicities int64 (resamples, people), each group as large as it is."""
    rng = np.random.default_rng(seed)
    times = np.zeros((resamples, group.size), np.int64)
    for name in range(groups):
        members = np.flatnonzero(group == name)
        share = np.full(members.size, 1 / members.size)
        times[:, members] = rng.multinomial(members.size, share, size=resamples)
    return times


def _rates(units: _Units, times: NDArray[Any], groups: int) -> Floats:
    """Return the rate of each cell for rows of multiplicities, (r, cells); NaN without weight."""
    rates = np.full((len(times), groups + groups * (groups + 1) // 2), np.nan)
    mated = units.first == units.second
    erring = np.flatnonzero(units.errors)
    starts = np.flatnonzero(np.diff(units.cells[erring], prepend=-1))
    step = max(1, _BLOCK // units.first.size)
    for start in range(0, len(times), step):
        some = times[start : start + step]
        # A copy of a person is no stranger to the other copy: a mated unit weighs once.
        weights = some[:, units.first] * np.where(mated, 1, some[:, units.second])
        total = np.add.reduceat(weights * units.comparisons, units.starts, axis=1)
        wrong = np.zeros((len(some), rates.shape[1]))
        if erring.size:
            failed = weights[:, erring] * units.errors[erring]
            wrong[:, units.cells[erring[starts]]] = np.add.reduceat(failed, starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates[start : start + step, units.filled] = wrong[:, units.filled] / total
    return rates


def _summarise(units: _Units, sample: Floats, resampled: Floats, confidence: float) -> list[Rate]:
    """Return the rate of each cell with its interval."""
    cells = sample.size
    errors, comparisons = (
        np.bincount(units.cells, counts, cells).astype(np.int64).tolist()
        for counts in (units.errors, units.comparisons)
    )
    found = []
    for cell in range(cells):
        inside = np.flatnonzero(units.cells == cell)
        first, second = units.first[inside], units.second[inside]
        interval, value = None, None
        if inside.size:
            value = float(sample[cell])
            # What each person adds to the errors beyond a fair share, for the skewed tail.
            surplus = units.errors[inside] - value * units.comparisons[inside]
            influence = np.bincount(np.concatenate([first, second]), np.tile(surplus, 2))
            figures = resampled[np.isfinite(resampled[:, cell]), cell]
            # Without a resample in which anybody of the cell was drawn, the ends are NaN.
            interval = percentile_interval(figures, confidence)
            if figures.size:
                interval = bca_interval(figures, value, influence, confidence)
            if not errors[cell]:
                most = 1 - (1 - confidence) ** (1 / inside.size)
                interval = Interval(0.0, most, confidence, figures.size)
        found.append(
            Rate(
                errors=errors[cell],
                comparisons=comparisons[cell],
                people=np.unique([first, second]).size,
                value=value,
                interval=interval,
                supported=errors[cell] >= MIN_ERRORS,
            )
        )
    return found


def _measure_inequity(
    sample: Floats, resampled: Floats, groups: int, alpha: float, confidence: float
) -> Inequity:
    rows = np.concatenate([sample[None], resampled])
    first, second = np.triu_indices(groups)
    fnmr, fmr = rows[:, :groups], rows[:, groups:][:, first == second]

    def figure(values: Floats) -> Figure:
        made = np.isfinite(values)
        defined = float(made[1:].mean())
        if not made[0]:
            return Figure(None, None, defined)
        return Figure(float(values[0]), percentile_interval(values[1:], confidence), defined)

    return Inequity(
        fmr_ratio=figure(max_over_geomean(fmr)),
        fnmr_ratio=figure(max_over_geomean(fnmr)),
        fdr=figure(fairness_discrepancy(fmr, fnmr, alpha)),
        garbe=figure(garbe(fmr, fnmr, alpha)),
    )
