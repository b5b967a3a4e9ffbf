"""How good fates are where the truth is known: every kind of noise by precision, recall and F1.

A cleaning may drop rows, move them, join identities and take them apart, so names say little. Three
majorities stand in for them, ties to the lower number:

- the holder of a final identity: the person of the set whom most of its rows show;
- the main identity of a person: the final one where most of the person's kept rows are;
- the home of a given folder: the final identity where most of its own kept rows are, those that
  were neither flipped into it nor outliers; none where it has none.

A row has MOVED when it is kept, not where its folder went, and in an identity that nobody whose
folder it was holds. It is rightly relabelled when it has moved to the main identity of its person
and that person holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask
from data_tools.inject import CLEAN, DUPLICATE, FLIP, KINDS, LEAK, LOW_QUALITY, OUTLIER
from data_tools.score_pairs import LEAST_PART, count_identity_figures, encode, find_majority
from facerec.checks import InputError, check_whole

HARD_SHARE = 0.1
"""The share of the clean rows, of lowest quality, that counts as hard."""

_NOISE = ("flip", "outlier", "duplicate", "low quality", "leak")
_TAIL = 2.5


@dataclass(frozen=True)
class _Known:
    """Rows with a label, and what the majorities say of them; arrays are (n,) unless said."""

    fate: Labels
    labels: Labels
    person: Labels
    kinds: NDArray[np.int8]
    home: Labels
    """(c,), of each given folder, -1 where none of its own rows is kept."""
    holder: Labels
    """Of the identity that the row ends in, -1 without one."""
    main: Labels
    """Of the row's person."""
    own: Mask
    """The row is of its folder's own people."""
    mine: Mask
    """The identity that the row ends in is held by one of its folder's own people."""

    @property
    def out(self) -> Mask:
        return np.asarray(self.fate < 0, bool)

    @property
    def moved(self) -> Mask:
        stays = (self.fate == self.labels) | (self.fate == self.home[self.labels]) | self.mine
        return np.asarray((self.fate >= 0) & ~stays, bool)


def score_fates(
    fate: Labels,
    labels: Labels,
    person: Labels,
    kinds: NDArray[np.int8],
    *,
    copies: Labels | None = None,
    quality: Array | None = None,
    noise: float | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Hold fates against the truth.

    Found is: a flip that was dropped or has moved; an outlier dropped, or moved to an identity
    that nobody of the set holds; a duplicate, row of low quality or leak that was dropped. Of a
    picture and its copies any one may stay. A row taken out does not say as what, so all kinds
    share one precision: found of all kinds / (these + clean rows lost, dropped or moved).

    Args:
        fate: int64 (n,), the identity that each row ends in: 0 .. c-1 as given, any number above
            for new ones, -1 for none.
        labels: int64 (n,), given identities 0 .. c-1; rows of -1 are passed over.
        person: int64 (n,), who is in it, -1 for nobody of the set.
        kinds: int8 (n,), places in `data_tools.inject.KINDS`.
        copies: int64 (n,), one number for a picture and its duplicates, -1 for none.
        quality: float64 (n,), higher is better, for the loss among hard rows.
        noise: estimated share of wrong rows, flips and outliers.
        resamples: of the bootstrap over given identities (95 % percentile intervals); 0: none.
        seed: of these.

    Returns:
        flip, outlier, duplicate, low quality, leak and wrong (flips and outliers together): count,
        found, precision, recall, f1; relabel: moved, right, precision (right / moved, whatever
        moved), of_flips (right / flips), f1; merge (pairs of given identities that became one
        against pairs of one person) and split (given identities taken apart against those of two
        people): true, found, right, false, precision, recall, f1; clean: rows, lost, lost_share,
        dropped_share, hard_lost_share; residual: share of the kept rows that are in an identity
        whose holder they do not show; noise: estimated, true, error; intervals: "flip f1" and
        so on -> [low, high]. A figure that cannot be said is None.

    Raises:
        InputError: arrays of other lengths, or a kind that is none.
    """
    check_whole(resamples, "resamples", 0, 10**6)
    for name, values in (("fate", fate), ("person", person), ("kinds", kinds)):
        _check_length(values, name, len(labels))
    if len(kinds) and not 0 <= kinds.min() <= kinds.max() < len(KINDS):
        raise InputError(f"kinds must be places in {KINDS}, got {kinds.min()} to {kinds.max()}")
    if copies is not None:
        _check_length(copies, "copies", len(labels))
        fate = _prefer_originals(fate, kinds, copies)
    held = labels >= 0
    known = _find_majorities(fate[held], labels[held], person[held], kinds[held])
    hard = np.zeros(len(known.labels), bool)
    if quality is not None:
        _check_length(quality, "quality", len(labels))
        hard = _find_hard(quality[held], known.kinds)
    counts = _count_rows(known, hard)
    # Rows that may go by themselves, such as duplicates, say nothing of whole identities.
    steady = known.own & np.isin(known.kinds, (CLEAN, LEAK))
    counts |= count_identity_figures(
        known.fate, known.labels, known.person, steady, known.home, known.mine
    )
    sums = {name: float(column.sum()) for name, column in counts.items()}
    figures = _build_figures(sums)
    wrong, rows = sums["flip"] + sums["outlier"], len(known.labels)
    true = wrong / rows if rows else None
    error = None if noise is None or true is None else noise - true
    return {
        **figures,
        "noise": {"estimated": noise, "true": true, "error": error},
        "intervals": _draw_intervals(counts, resamples, seed),
    }


def find_left(
    fate: Labels,
    labels: Labels,
    person: Labels,
    kinds: NDArray[np.int8],
    copies: Labels | None = None,
) -> Mask:
    """Return which rows are no longer where their folder went: dropped or moved, bool (n,).

    Args:
        fate: as for `score_fates`, likewise the others.
        labels: without -1.
        person: whom each shows.
        kinds: what each is.
        copies: what is a picture and its duplicates.
    """
    if copies is not None:
        fate = _prefer_originals(fate, kinds, copies)
    known = _find_majorities(fate, labels, person, kinds)
    return np.asarray(known.out | known.moved, bool)


def _check_length(values: NDArray[Any], name: str, count: int) -> None:
    if values.shape != (count,):
        raise InputError(f"{name} must have shape ({count},) as labels, got {values.shape}")


def _prefer_originals(fate: Labels, kinds: NDArray[np.int8], copies: Labels) -> Labels:
    """Return fates in which an original that went and its first kept duplicate change places."""
    count = int(copies.max(initial=-1)) + 1
    original = np.full(count, -1, np.int64)
    rows = np.flatnonzero((copies >= 0) & (kinds != DUPLICATE))
    original[copies[rows]] = rows
    stand_in = np.full(count, len(fate), np.int64)
    kept = np.flatnonzero((copies >= 0) & (kinds == DUPLICATE) & (fate >= 0))
    np.minimum.at(stand_in, copies[kept], kept)
    swap = np.flatnonzero((original >= 0) & (stand_in < len(fate)))
    swap = swap[fate[original[swap]] < 0]
    out: Labels = fate.copy()
    out[original[swap]], out[stand_in[swap]] = fate[stand_in[swap]], -1
    return out


def _find_majorities(
    fate: Labels, labels: Labels, person: Labels, kinds: NDArray[np.int8]
) -> _Known:
    count = int(labels.max(initial=-1)) + 1
    finals = max(count, int(fate.max(initial=-1)) + 1)
    people = int(person.max(initial=-1)) + 1
    own = (kinds != FLIP) & (kinds != OUTLIER) & (person >= 0)
    kept = fate >= 0
    shown = kept & (person >= 0)
    holders = np.append(find_majority(fate[shown], person[shown], finals), -1)
    mains = np.append(find_majority(person[shown], fate[shown], people), -1)
    pairs = np.unique(encode(labels[own], person[own], people))
    home = _find_homes(fate, labels, own, holders, pairs, people)
    holder = holders[np.where(kept, fate, -1)]
    mine = np.isin(encode(labels, holder, people), pairs) & (holder >= 0)
    return _Known(fate, labels, person, kinds, home, holder, mains[person], own, mine)


def _find_homes(
    fate: Labels, labels: Labels, own: Mask, holders: Labels, pairs: Labels, people: int
) -> Labels:
    """Return the home of each given folder, int64 (c,).

    Args:
        fate: int64 (n,).
        labels: int64 (n,), 0 to c - 1.
        own: bool (n,), the row is of its folder's own people.
        holders: int64 (f + 1,), of each final identity, -1 at the end.
        pairs: every folder with each of its own people, encoded.
        people: how many there are, for the encoding.
    """
    count = int(labels.max(initial=-1)) + 1
    kept = fate >= 0
    rows = kept & own
    home = find_majority(labels[rows], fate[rows], count)
    there = np.bincount(labels[rows][fate[rows] == home[labels[rows]]], minlength=count)
    given, used = (np.zeros(len(holders), bool) for _ in range(2))
    given[labels], used[fate[kept]] = True, True
    itself = np.arange(count)
    mine = np.isin(encode(itself, holders[home], people), pairs) & (holders[home] >= 0)
    # Single rows that went to somebody else are no joined folder, nor is one that goes on.
    stray = (there < LEAST_PART) | (given[home] & used[:count])
    return np.where((home >= 0) & (home != itself) & ~mine & stray, itself, home)


def _find_hard(quality: Array, kinds: NDArray[np.int8]) -> Mask:
    """Return the clean rows of lowest quality; none where the quality says nothing."""
    clean = kinds == CLEAN
    values = quality[clean & np.isfinite(quality)]
    if not len(values) or values.min() == values.max():
        return np.zeros(len(kinds), bool)
    return np.asarray(clean & (quality <= np.quantile(values, HARD_SHARE)), bool)


def _count_rows(known: _Known, hard: Mask) -> dict[str, Labels]:
    """Return counts by given identity, int64 (c,) each."""
    out, moved, kinds = known.out, known.moved, known.kinds
    clean, flips = kinds == CLEAN, kinds == FLIP
    right = moved & flips & (known.fate == known.main) & (known.holder == known.person)
    strange = moved & (known.holder < 0)
    masks = {
        "flip found": flips & (out | moved),
        "outlier found": (kinds == OUTLIER) & (out | strange),
        "relabel moved": moved,
        "relabel right": right,
        "clean": clean,
        "clean lost": clean & (out | moved),
        "clean dropped": clean & out,
        "hard": hard,
        "hard lost": hard & (out | moved),
        "kept": ~out,
        "kept wrong": ~out & (known.holder != known.person),
    }
    for code, name in ((FLIP, "flip"), (OUTLIER, "outlier")):
        masks[name] = kinds == code
    for code in (DUPLICATE, LOW_QUALITY, LEAK):
        masks[KINDS[code]] = kinds == code
        masks[f"{KINDS[code]} found"] = (kinds == code) & out
    count = len(known.home)
    return {
        name: np.bincount(known.labels[mask], minlength=count).astype(np.int64)
        for name, mask in masks.items()
    }


def _build_figures(sums: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Return all figures that follow from the sums of the counts."""
    lost = sums["clean lost"]
    taken = sum(sums[f"{name} found"] for name in _NOISE)
    precision = _divide(taken, taken + lost)
    wrong, found = (sums[f"flip{end}"] + sums[f"outlier{end}"] for end in ("", " found"))
    sums = {**sums, "wrong": wrong, "wrong found": found}
    figures: dict[str, dict[str, Any]] = {}
    for name in (*_NOISE, "wrong"):
        recall = _divide(sums[f"{name} found"], sums[name])
        figures[name] = {
            "count": int(sums[name]),
            "found": int(sums[f"{name} found"]),
            "precision": precision,
            "recall": recall,
            "f1": _mean_rates(precision, recall),
        }
    moved, right, flips = sums["relabel moved"], sums["relabel right"], sums["flip"]
    relabel = _rate(right, moved, flips)
    relabel["of_flips"] = relabel.pop("recall")
    figures["relabel"] = {"moved": int(moved), "right": int(right), **relabel}
    for name in ("merge", "split"):
        true, made, hit = (sums[f"{name} {part}"] for part in ("true", "found", "right"))
        counts = {"true": int(true), "found": int(made), "right": int(hit)}
        counts["false"] = counts["found"] - counts["right"]
        figures[name] = {**counts, **_rate(hit, made, true)}
    figures["clean"] = {
        "rows": int(sums["clean"]),
        "lost": int(lost),
        "lost_share": _divide(lost, sums["clean"]),
        "dropped_share": _divide(sums["clean dropped"], sums["clean"]),
        "hard_lost_share": _divide(sums["hard lost"], sums["hard"]),
    }
    figures["residual"] = {"share": _divide(sums["kept wrong"], sums["kept"])}
    return figures


def _rate(hit: float, made: float, true: float) -> dict[str, float | None]:
    f1 = _divide(2 * hit, made + true) if true else None
    return {"precision": _divide(hit, made), "recall": _divide(hit, true), "f1": f1}


def _mean_rates(precision: float | None, recall: float | None) -> float | None:
    """Return F1; nothing found of what is there is 0."""
    if recall is None:
        return None
    if not recall or not precision:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _divide(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _draw_intervals(counts: dict[str, Labels], resamples: int, seed: int) -> dict[str, list[float]]:
    """Return 95 % percentile intervals of all shares, given identities drawn with replacement."""
    table = np.stack(list(counts.values()), axis=1).astype(np.float64)
    table = table[table.any(axis=1)]
    many = len(table)
    if not resamples or not many:
        return {}
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        times = np.bincount(rng.integers(many, size=many), minlength=many)
        sums = dict(zip(counts, (times @ table).tolist(), strict=True))
        for group, figures in _build_figures(sums).items():
            for name, value in figures.items():
                if isinstance(value, float):
                    drawn.setdefault(f"{group} {name}", []).append(value)
    ends = (_TAIL, 100 - _TAIL)
    return {name: np.percentile(values, ends).tolist() for name, values in drawn.items()}
