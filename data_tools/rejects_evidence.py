"""What is known of rows besides their vectors, when it is asked what to do with the rejects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask, Vectors
from data_tools.owners import Owners
from facerec.checks import InputError, check_embeddings


@dataclass(frozen=True)
class Evidence:
    """What is known of n rows besides their vectors; None where nothing is.

    Attributes:
        label: int64 (n,), the identity, numbered as in `fate`, that each row was given, -1 for
            none.
        owners: the round's probabilities; NaN where a row has none.
        nearest: float64 (n,), a cosine to some identity's centre, the best one known, or NaN: a
            row that reaches the bound with it need not be compared with all.
        duplicate: bool (n,), copies of another row.
        overlap: bool (n,), rows that show a person or picture of an evaluation set.
        low_quality: bool (n,).
        taken_out: bool (n,), rows that a person took out or wants to have no name: they stay so.
        picture: int64 (n,), rows of one number are the same chip, byte for byte; -1 unknown.
        photo: int64 (n,), rows of one number are faces of one photo: two people.
    """

    label: Labels | None = None
    owners: Owners | None = None
    nearest: Array | None = None
    duplicate: Mask | None = None
    overlap: Mask | None = None
    low_quality: Mask | None = None
    taken_out: Mask | None = None
    picture: Labels | None = None
    photo: Labels | None = None


def check_rows(
    vectors: Vectors,
    fate: Labels,
    given: Evidence,
    neighbours: NDArray[np.int32] | None,
    scores: Vectors | None,
) -> None:
    """Raise InputError where arrays are no embeddings or do not fit together."""
    if np.ndim(vectors) != 2 or fate.shape != (len(vectors),):
        raise InputError(
            f"vectors must be float32 (n, d) and fate int64 (n,), got {np.shape(vectors)} and "
            f"{np.shape(fate)}"
        )
    blank = ~vectors.any(axis=1)
    if (blank & (fate >= 0)).any():
        row = int(np.flatnonzero(blank & (fate >= 0))[0])
        raise InputError(f"row {row} is kept but has no direction: its vector is 0; reject it")
    check_embeddings(vectors[~blank] if blank.any() else vectors)
    arrays = {name: value for name, value in vars(given).items() if name != "owners"}
    owners = vars(given.owners) if given.owners is not None else {}
    arrays |= {name: owners.get(name) for name in ("own", "other", "nobody")}
    for name, value in arrays.items():
        if value is not None and np.shape(value) != (len(vectors),):
            raise InputError(f"{name} must have shape ({len(vectors)},), got {np.shape(value)}")
    if (neighbours is None) != (scores is None):
        raise InputError("neighbours and scores belong together; give both or none")
    for name, value in (("neighbours", neighbours), ("scores", scores)):
        if value is not None and (value.ndim != 2 or len(value) != len(vectors)):
            raise InputError(f"{name} must have shape ({len(vectors)}, k), got {value.shape}")


def weigh_right(fate: Labels, given: Evidence) -> tuple[Labels, Array]:
    """Return whom each row shows if it is right, and the probability that it does."""
    if given.label is None:
        return fate, np.asarray(fate >= 0, np.float64)
    label = np.where(fate >= 0, fate, given.label)
    right = np.asarray(fate >= 0, np.float64)
    if given.owners is not None:
        stays = label == given.label
        chance = np.where(stays, given.owners.own, given.owners.other)
        chance = np.where(given.label < 0, np.nan, chance)
        right = np.where(np.isfinite(chance), np.clip(chance, 0.0, 1.0), right)
    return label, right


def take_chances(owners: Owners | None, rows: Labels) -> tuple[Array, Array]:
    """Return the probabilities of rows to be their own and another identity's; 0 if unknown."""
    if owners is None:
        return np.zeros(len(rows)), np.zeros(len(rows))
    return np.nan_to_num(owners.own[rows]), np.nan_to_num(owners.other[rows])
