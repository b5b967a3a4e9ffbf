"""How well clusters agree with people: BCubed, pairwise and mutual information.

All figures come from the contingency table's filled cells, so they cost a sort of the rows,
never a loop over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_one_of

NORMALISATIONS = ("arithmetic", "geometric", "max", "min")

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """Precision, recall and their harmonic mean.

    Attributes:
        precision: None where it is undefined: no pair was joined.
        recall: None where it is undefined: no two rows belong together.
        f_score: None where both are undefined.
    """

    precision: float | None
    recall: float | None
    f_score: float | None


@dataclass(frozen=True)
class ClusterFigures:
    """Agreement of a clustering with the truth.

    Attributes:
        bcubed: means over rows (Bagga and Baldwin 1998; Amigo et al. 2009): the share of a row's
            cluster that is its person, and of its person that is in its cluster, itself included.
        pairwise: over pairs of rows: the share of joined pairs that are one person, and of pairs
            of one person that are joined. Big people and big clusters dominate it.
        nmi: mutual information over the arithmetic mean of both entropies, in [0, 1]; 1 when both
            sides are a single group.
        rows: number of rows.
        people: number of people.
        clusters: number of clusters, each row of the noise label its own.
    """

    bcubed: Agreement
    pairwise: Agreement
    nmi: float
    rows: int
    people: int
    clusters: int


@dataclass(frozen=True)
class Contingency:
    """The filled cells of people against clusters.

    Attributes:
        cells: int64 (c,), rows in each filled cell.
        people: int64 (c,), the cell's person as a number from 0.
        clusters: int64 (c,), its cluster as a number from 0.
    """

    cells: Counts
    people: Counts
    clusters: Counts

    def person_sizes(self) -> Counts:
        """Return rows a person, int64."""
        return np.bincount(self.people, self.cells).astype(np.int64)

    def cluster_sizes(self) -> Counts:
        """Return rows a cluster, int64."""
        return np.bincount(self.clusters, self.cells).astype(np.int64)


def count_contingency(
    people: ArrayLike, clusters: ArrayLike, noise: int | str | None = None
) -> Contingency:
    """Return the contingency table of two labellings.

    Args:
        people: (n,), whole numbers or text, n >= 1.
        clusters: (n,), whole numbers or text.
        noise: the label of rows in no cluster (-1 of DBSCAN): each is a cluster of its own.

    Raises:
        InputError: lengths that differ, no row, labels that are neither whole numbers nor text.
    """
    truth, found = (
        _read_labels(side, name) for side, name in ((people, "people"), (clusters, "clusters"))
    )
    if truth.shape != found.shape or not truth.size:
        raise InputError(
            "people and clusters must be rows of equal length with at least one row, "
            f"got {truth.shape} and {found.shape}"
        )
    _, rows = np.unique(truth, return_inverse=True)
    names, columns = np.unique(found, return_inverse=True)
    if noise is not None:
        if isinstance(noise, str) != (found.dtype.kind == "U"):
            raise InputError(f"noise must be a label as clusters has them, got {noise!r}")
        alone = np.flatnonzero(found == noise)
        columns[alone] = names.size + np.arange(alone.size)
        _, columns = np.unique(columns, return_inverse=True)
    width = int(columns.max()) + 1
    places, cells = np.unique(rows.astype(np.int64) * width + columns, return_counts=True)
    return Contingency(cells.astype(np.int64), places // width, places % width)


def cluster_figures(
    people: ArrayLike, clusters: ArrayLike, noise: int | str | None = None
) -> ClusterFigures:
    """Return all figures of a clustering; arguments and errors as `count_contingency`."""
    table = count_contingency(people, clusters, noise)
    persons, groups = table.person_sizes(), table.cluster_sizes()
    return ClusterFigures(
        bcubed=_bcubed(table, persons, groups),
        pairwise=_pairwise(table, persons, groups),
        nmi=normalised_mutual_information(table),
        rows=int(persons.sum()),
        people=persons.size,
        clusters=groups.size,
    )


def normalised_mutual_information(table: Contingency, normalisation: str = "arithmetic") -> float:
    """Return mutual information over a mean of both entropies.

    Args:
        table: of `count_contingency`.
        normalisation: "arithmetic" (scikit-learn's default since 0.22), "geometric" (that of
            older figures), "max" or "min".

    Returns:
        In [0, 1]. Two single groups agree: 1. Where the mean entropy is 0 otherwise: 0.
    """
    check_one_of(normalisation, "normalisation", NORMALISATIONS)
    persons, groups = table.person_sizes(), table.cluster_sizes()
    if persons.size == groups.size == 1:
        return 1.0
    rows = persons.sum()
    share = table.cells / rows
    expected = (persons[table.people] / rows) * (groups[table.clusters] / rows)
    shared = float(share @ np.log(share / expected))
    left, right = (float(-(p @ np.log(p))) for p in (persons / rows, groups / rows))
    mean = {
        "arithmetic": (left + right) / 2,
        "geometric": float(np.sqrt(left * right)),
        "max": max(left, right),
        "min": min(left, right),
    }[normalisation]
    return float(np.clip(shared / mean, 0.0, 1.0)) if mean > 0 else 0.0


def _read_labels(labels: ArrayLike, name: str) -> NDArray[np.generic]:
    row = np.asarray(labels)
    if row.dtype == object:  # text read from a table
        row = np.asarray(row.tolist())
    if row.ndim != 1 or (row.size and row.dtype.kind not in "iuU"):
        raise InputError(
            f"{name} must be a row of whole numbers or text, got {row.dtype} {row.shape}"
        )
    return row


def _bcubed(table: Contingency, persons: Counts, groups: Counts) -> Agreement:
    squares = table.cells.astype(np.float64) ** 2
    rows = float(persons.sum())
    precision = float((squares / groups[table.clusters]).sum() / rows)
    recall = float((squares / persons[table.people]).sum() / rows)
    return Agreement(precision, recall, 2 * precision * recall / (precision + recall))


def _pairwise(table: Contingency, persons: Counts, groups: Counts) -> Agreement:
    right, true, joined = (
        int((sizes * (sizes - 1) // 2).sum()) for sizes in (table.cells, persons, groups)
    )
    return Agreement(
        precision=right / joined if joined else None,
        recall=right / true if true else None,
        f_score=2 * right / (joined + true) if joined + true else None,
    )
