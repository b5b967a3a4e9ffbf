"""Whole identities against the truth: which became one, which were taken apart."""

from __future__ import annotations

import numpy as np

from data_tools.centres import Labels, Mask

LEAST_PART = 2
"""Fewest rows of a part that a folder is taken apart into; fewer are strays."""


def find_majority(keys: Labels, values: Labels, count: int) -> Labels:
    """Return the most frequent value of each key, int64 (count,): -1 without one, ties the lowest.

    Args:
        keys: int64 (n,), 0 to count - 1.
        values: int64 (n,), from 0.
        count: number of keys.
    """
    found = np.full(count, -1, np.int64)
    if not len(keys):
        return found
    span = int(values.max()) + 1
    pairs, times = np.unique(keys * span + values, return_counts=True)
    order = np.lexsort((pairs, -times, pairs // span))
    ordered = pairs[order]
    key, first = np.unique(ordered // span, return_index=True)
    found[key] = ordered[first] % span
    return found


def encode(labels: Labels, others: Labels, span: int) -> Labels:
    """Return one number for each pair of a label and another number from -1 to span - 1."""
    return labels * (span + 1) + others + 1


def count_identity_figures(
    fate: Labels, labels: Labels, person: Labels, own: Mask, home: Labels, mine: Mask
) -> dict[str, Labels]:
    """Return counts of merges and splits by given identity, int64 (c,) each.

    A pair of given identities counts with its lower number. It is truly one where most of both
    one's own rows show one person, and found where both have one home. An identity truly holds two
    people where each has at least `LEAST_PART` own rows; it is found where as many of these rows
    end in each of two identities that its people hold and that are no other one's home, and
    rightly so where the people's majorities part.

    Args:
        fate: int64 (n,), -1 for none.
        labels: int64 (n,), 0 to c - 1.
        person: int64 (n,), -1 for nobody.
        own: bool (n,), the row is a right one of its folder's own people, and should stay.
        home: int64 (c,), -1 for none.
        mine: bool (n,), the fate is held by one of its folder's own people.
    """
    count = len(home)
    owner = find_majority(labels[own], person[own], count)
    both = np.where((home >= 0) & (owner >= 0), encode(home, owner, int(owner.max(initial=0))), -1)
    double = _find_double(labels[own], person[own], count)
    apart = _find_apart(fate, labels, own & mine, home)
    parted = _find_parted(fate, labels, person, own & (fate >= 0), count)
    return {
        "merge true": _count_later(owner),
        "merge found": _count_later(home),
        "merge right": _count_later(both),
        "split true": double.astype(np.int64),
        "split found": apart.astype(np.int64),
        "split right": (double & apart & parted).astype(np.int64),
    }


def _count_later(groups: Labels) -> Labels:
    """Return how many later entries are of each one's group, int64 (c,); -1 is no group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    later = np.zeros(len(groups), np.int64)
    later[order] = np.where(ordered >= 0, ends - 1 - np.arange(len(groups)), 0)
    return later


def _find_double(labels: Labels, person: Labels, count: int) -> Mask:
    """Return which identities hold two people, bool (count,)."""
    return _count_parts(labels, person, count) >= 2


def _count_parts(labels: Labels, values: Labels, count: int) -> Labels:
    """Return how many values each label has at least `LEAST_PART` times, int64 (count,)."""
    if not len(labels):
        return np.zeros(count, np.int64)
    span = int(values.max()) + 1
    pairs, times = np.unique(labels * span + values, return_counts=True)
    large = pairs[times >= LEAST_PART]
    return np.bincount(large // span, minlength=count).astype(np.int64)


def _find_apart(fate: Labels, labels: Labels, rows: Mask, home: Labels) -> Mask:
    """Return which identities ended in two parts or more, bool (c,)."""
    taken = np.zeros(max(int(fate.max(initial=-1)), int(home.max(initial=-1))) + 1, bool)
    taken[home[home >= 0]] = True
    rows = rows & (fate >= 0)
    rows[rows] = (fate[rows] == home[labels[rows]]) | ~taken[fate[rows]]
    return _count_parts(labels[rows], fate[rows], len(home)) >= 2


def _find_parted(fate: Labels, labels: Labels, person: Labels, rows: Mask, count: int) -> Mask:
    """Return in which identities two people's own rows went different ways, bool (count,)."""
    if not rows.any():
        return np.zeros(count, bool)
    people = int(person.max()) + 1
    code, place = np.unique(labels[rows] * people + person[rows], return_inverse=True)
    where = find_majority(place.astype(np.int64), fate[rows], len(code))
    whose = code // people
    ways = np.unique(whose * (int(where.max()) + 1) + where)
    return np.bincount(ways // (int(where.max()) + 1), minlength=count) >= 2
