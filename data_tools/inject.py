"""Noise of known kind and place, planned on labels alone: which row goes where, and the truth.

Real folders are wrong in several ways at once: another celebrity's picture (flip), a passer-by
(outlier), one person under two names, two people under one, copies, pictures too poor to tell, and
people of the sets that a model will be tested on (leak). A plan says for every row of the noisy
set where it comes from, what it is labelled and who is in it. No picture is touched here:
`data_tools.inject_folder` carries a plan out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Labels, group_rows
from facerec.checks import InputError, check_one_of, check_range

KINDS = ("clean", "flip", "outlier", "duplicate", "low quality", "leak")
"""What a row is; a kind's code is its place here."""
CLEAN, FLIP, OUTLIER, DUPLICATE, LOW_QUALITY, LEAK = range(len(KINDS))

PROFILES = ("as is", "long tail")
LEAST_ROWS = 3
"""Fewest rows of a folder in the long tail, and of a leaked person."""

_LEAST_HALF = 2
_NARROW, _WIDE = 0.3, 0.7
_MOST_NOISE = 0.95


@dataclass(frozen=True)
class NoisePlan:
    """A noisy set of m rows in g folders, and the truth about it; no array can be written to.

    Attributes:
        source: int64 (m,), the row it is of: of the labels given, for an outlier of the pool, for
            a leak of `leak_labels`. A duplicate has its original's.
        given: int64 (m,), its folder, 0 to g - 1, every number used.
        person: int64 (m,), who is in it, -1 for nobody of the set. The set's people have the
            numbers of their labels, leaked ones follow behind: 1 + the highest label + the number
            in `leak_labels`.
        kind: int8 (m,), a place in `KINDS`. Split and merged people's rows are "clean".
        owner: int64 (g,), whose folder each is; of two people in one, that of more rows.
        splits: int64 (s, 2), pairs of folders of one person, the owner's larger one first.
        merges: int64 (t, 2), pairs of people in one folder, the one of more rows first.
        left_out: int64, the people left out whole because the outlier pool is too small for them.
        thinned: rows that the profile left out.
    """

    source: Labels
    given: Labels
    person: Labels
    kind: NDArray[np.int8]
    owner: Labels
    splits: Labels
    merges: Labels
    left_out: Labels
    thinned: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def count_kinds(self) -> dict[str, int]:
        """Return how many rows are of each kind."""
        return {kind: int(np.count_nonzero(self.kind == code)) for code, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class NoiseRates:
    """How much of each kind.

    Attributes:
        flips: share of the final rows; likewise outliers, duplicates, low_quality and leakage.
        outliers: pictures of nobody of the set.
        splits: share of the people whose folder is taken apart into two.
        merges: share of the people whose folder takes another person's in.
        duplicates: copies, beside their originals.
        low_quality: pictures of few pixels, in place of good ones.
        leakage: pictures of people of a test set, in folders of their own.

    Raises:
        InputError: a share out of range, or all together leave too few right rows.
    """

    flips: float = 0.0
    outliers: float = 0.0
    splits: float = 0.0
    merges: float = 0.0
    duplicates: float = 0.0
    low_quality: float = 0.0
    leakage: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            check_range(getattr(self, field.name), field.name, 0.0, _MOST_NOISE)
        rows = self.flips + self.low_quality + self.added
        if rows > _MOST_NOISE:
            raise InputError(
                f"flips, outliers, duplicates, low_quality and leakage must together be at most "
                f"{_MOST_NOISE} of the rows, got {rows:.3g}"
            )
        if self.splits + 2 * self.merges > 1:
            raise InputError(
                "splits + 2 merges must be at most 1, a merge takes two people; got "
                f"{self.splits + 2 * self.merges:.3g}"
            )

    @property
    def added(self) -> float:
        """Share of the final rows that the set itself does not have."""
        return self.outliers + self.duplicates + self.leakage


def plan_noise(
    labels: Labels,
    rng: np.random.Generator,
    *,
    flips: float = 0.0,
    outliers: float = 0.0,
    outlier_pool: int = 0,
    splits: float = 0.0,
    merges: float = 0.0,
    duplicates: float = 0.0,
    low_quality: float = 0.0,
    leakage: float = 0.0,
    leak_labels: Labels | None = None,
    profile: str = "as is",
) -> NoisePlan:
    """Plan a noisy set.

    A flip gets the folder of another row drawn at random, so a large folder attracts more, never
    one that its person owns. Outliers are spread alike. A split leaves 30 to 70 % of the rows, at
    least two, on each side. Row kinds never meet in one row; flips and outliers do fall into
    split and merged folders. Final rows come in random order.

    Args:
        labels: int64 (n,), people 0, 1, ..., -1 for rows to leave out; all taken to be right.
        rng: of everything random.
        flips: see `NoiseRates`; so for the other shares.
        outliers: where the pool is too small, people are left out at random until it suffices.
        outlier_pool: how many strangers are at hand.
        splits: see `NoiseRates`.
        merges: likewise.
        duplicates: likewise.
        low_quality: likewise.
        leakage: likewise; whole people of at least `LEAST_ROWS` rows, the last one cut to fit.
        leak_labels: int64, the people of a test set's pictures.
        profile: "as is", or "long tail": every folder is thinned at random to a size of Zipf's
            law, P(size >= s) = 3 / s, or stays if smaller; people of under 3 rows are left out.

    Raises:
        InputError: a share out of range, or more noise than people, rows or pools allow.
    """
    rates = NoiseRates(flips, outliers, splits, merges, duplicates, low_quality, leakage)
    check_one_of(profile, "profile", PROFILES)
    rows = np.flatnonzero(labels >= 0)
    if profile == "long tail":
        rows = _thin(labels, rng)
    thinned = int(np.count_nonzero(labels >= 0)) - len(rows)
    rows, left_out = _fit_pool(rows, labels, rates, outlier_pool, rng)
    person = labels[rows]
    folder, pairs, couples = _arrange_folders(person, rates, int(labels.max(initial=-1)) + 1, rng)
    total = round(len(rows) / (1.0 - rates.added))
    counts = {name: round(getattr(rates, name) * total) for name in _ROW_RATES}
    kind = _choose_kinds(len(rows), counts, rng)
    given = folder.copy()
    _flip(given, np.flatnonzero(kind == FLIP), person, folder, rng)
    parts = [(rows, given, person, kind)]
    copied = _draw(np.flatnonzero(kind == CLEAN), counts["duplicates"], "right rows to copy", rng)
    parts.append(_add(rows[copied], folder[copied], person[copied], DUPLICATE))
    strangers = _draw(np.arange(outlier_pool), counts["outliers"], "outliers in the pool", rng)
    into = folder[rng.integers(len(rows), size=len(strangers))]
    parts.append(_add(strangers, into, np.full(len(strangers), -1), OUTLIER))
    leaked = _draw_people(leak_labels, counts["leakage"], rng)
    if leak_labels is not None and len(leaked):
        above = int(folder.max()) + 1 + leak_labels[leaked]
        whom = int(labels.max()) + 1 + leak_labels[leaked]
        parts.append(_add(leaked, above, whom, LEAK))
    source, given, person, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = rng.permutation(len(source))
    plan = NoisePlan(
        source[order],
        given[order],
        person[order],
        kind[order],
        np.empty(0, np.int64),
        pairs,
        couples,
        left_out,
        thinned,
    )
    return _number(plan)


_ROW_RATES = ("flips", "outliers", "duplicates", "low_quality", "leakage")


def _thin(labels: Labels, rng: np.random.Generator) -> Labels:
    """Return the rows that the long tail keeps, ascending."""
    kept = []
    for rows in group_rows(labels):
        if len(rows) < LEAST_ROWS:
            continue
        wanted = LEAST_ROWS / (1.0 - rng.random())
        kept.append(rows if wanted >= len(rows) else rng.choice(rows, int(wanted), replace=False))
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def _fit_pool(
    rows: Labels, labels: Labels, rates: NoiseRates, pool: int, rng: np.random.Generator
) -> tuple[Labels, Labels]:
    """Return the rows that the outliers at hand suffice for, and the people left out."""
    people, sizes = np.unique(labels[rows], return_counts=True)
    if len(people) < 2:
        raise InputError(f"noise can only be injected into at least two people, got {len(people)}")
    if rates.outliers == 0:
        return rows, np.empty(0, np.int64)
    room = pool * (1.0 - rates.added) / rates.outliers
    if len(rows) <= room:
        return rows, np.empty(0, np.int64)
    order = rng.permutation(len(people))
    many = int(np.searchsorted(np.cumsum(sizes[order]), room, side="right"))
    if many < 2:
        raise InputError(
            f"outliers of {rates.outliers:g} of the rows need more than the {pool} strangers at "
            "hand even for two people; give more of them or a lower share"
        )
    kept = np.zeros(int(people[-1]) + 1, bool)
    kept[people[order[:many]]] = True
    return rows[kept[labels[rows]]], np.sort(people[order[many:]])


def _arrange_folders(
    person: Labels, rates: NoiseRates, count: int, rng: np.random.Generator
) -> tuple[Labels, Labels, Labels]:
    """Return each row's folder, the pairs of folders of one person, the pairs of people in one.

    A folder has its person's number; second halves follow from `count` on.
    """
    people, sizes = np.unique(person, return_counts=True)
    large = people[sizes >= 2 * _LEAST_HALF]
    to_split = _draw(large, round(rates.splits * len(people)), "people of 4 rows to split", rng)
    rest = np.setdiff1d(people, to_split)
    chosen = _draw(rest, 2 * round(rates.merges * len(people)), "people to merge", rng)
    folder = person.copy()
    groups = group_rows(person)
    halves = np.stack([to_split, count + np.arange(len(to_split))], axis=1)
    for place, (own, new) in enumerate(halves.tolist()):
        rows = groups[own]
        share = round((_NARROW + (_WIDE - _NARROW) * rng.random()) * len(rows))
        part = int(np.clip(share, _LEAST_HALF, len(rows) - _LEAST_HALF))
        folder[rng.choice(rows, part, replace=False)] = new
        if 2 * part > len(rows):
            halves[place] = new, own
    couples = np.sort(chosen.reshape(-1, 2), axis=1)
    for place, (one, two) in enumerate(couples.tolist()):
        if len(groups[two]) > len(groups[one]):
            couples[place] = two, one
        folder[groups[couples[place, 1]]] = couples[place, 0]
    return folder, halves, couples


def _choose_kinds(count: int, counts: dict[str, int], rng: np.random.Generator) -> NDArray[np.int8]:
    flips, low = counts["flips"], counts["low_quality"]
    if flips + low > count:
        raise InputError(f"{flips} flips and {low} rows of low quality are more than {count} rows")
    order = rng.permutation(count)
    kind = np.full(count, CLEAN, np.int8)
    kind[order[:flips]] = FLIP
    kind[order[flips : flips + low]] = LOW_QUALITY
    return kind


def _flip(
    given: Labels, rows: Labels, person: Labels, folder: Labels, rng: np.random.Generator
) -> None:
    """Give `rows` the folder of another row that their person does not own."""
    span = int(folder.max()) + 1
    whose, place = np.divmod(np.unique(person * span + folder), span)
    first, second = (np.full(int(person.max()) + 1, -1, np.int64) for _ in range(2))
    second[whose] = place  # of two the higher one, written last
    first[whose[::-1]] = place[::-1]
    if len(rows) and len(np.unique(place)) <= np.bincount(whose).max():
        raise InputError("flips need a folder of somebody else; give more people")
    while len(rows):
        target = folder[rng.integers(len(folder), size=len(rows))]
        given[rows] = target
        own = person[rows]
        rows = rows[(target == first[own]) | (target == second[own])]


def _add(
    source: Labels, given: Labels, person: Labels, kind: int
) -> tuple[Labels, Labels, Labels, NDArray[np.int8]]:
    return source, given, person.astype(np.int64), np.full(len(source), kind, np.int8)


def _draw(among: Labels, count: int, what: str, rng: np.random.Generator) -> Labels:
    if count > len(among):
        raise InputError(f"{count} {what} are needed, but there are {len(among)}; lower the share")
    return np.asarray(rng.choice(among, count, replace=False), np.int64)


def _draw_people(leak_labels: Labels | None, count: int, rng: np.random.Generator) -> Labels:
    """Return rows of whole people of a test set, drawn at random, `count` in all."""
    if not count:
        return np.empty(0, np.int64)
    groups = [] if leak_labels is None else group_rows(leak_labels)
    groups = [rows for rows in groups if len(rows) >= LEAST_ROWS]
    ready = sum(map(len, groups))
    if ready < count:
        raise InputError(
            f"leakage needs {count} pictures of test people with at least {LEAST_ROWS} each, but "
            f"there are {ready}; lower the share"
        )
    rows = np.concatenate([groups[place] for place in rng.permutation(len(groups))])
    return np.asarray(rows[:count], np.int64)


def _number(plan: NoisePlan) -> NoisePlan:
    """Return the plan with folders numbered without gaps, and who owns them."""
    used, given = np.unique(plan.given, return_inverse=True)
    both = np.isin(plan.splits, used).all(axis=1)
    splits = np.searchsorted(used, plan.splits[both])
    owner = used.copy()
    # A second half's number is no person's: its owner is the first's.
    for pair in plan.splits.tolist():
        low, high = sorted(pair)
        owner[used == high] = low
    leaks = plan.kind == LEAK
    owner[given[leaks]] = plan.person[leaks]
    return replace(plan, given=given.astype(np.int64), owner=owner, splits=splits.astype(np.int64))
