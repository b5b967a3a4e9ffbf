"""Searches of a gallery, block by block: what each probe found, however large the gallery.

A probe is one transaction, mated when its person is in the gallery. Equal scores rank by position
in the gallery. The figures are in `eval.protocol_search_rates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.protocol_results import check_faces, check_row, check_same_width
from facerec.checks import InputError, check_one_of
from facerec.metrics.identification import SearchScores

UNITS = ("person", "row")
_TILE = 8192
# Scores held at once, float32: 256 MB.
_MOST_SCORES = 64 * 2**20
_MOST_PROBES = 1024


@dataclass(frozen=True)
class Search:
    """What every probe found in one gallery.

    Attributes:
        gallery: its name.
        people: N, people enrolled with at least one embedding.
        failed_people: people of the gallery without one: failures to enrol; their probes are
            mated all the same, and are missed.
        rows: gallery embeddings searched.
        failed_rows: gallery faces without an embedding.
        ranks: int64 (m,), of each mated probe: the rank of its own person from 1; 0 = not found.
        own: float32 (m,), of each mated probe: its own person's score; -inf = not found.
        mated_people: (m,), whose they are.
        best: float32 (k,), of each non-mated probe: the best score; -inf = a failure.
        non_mated_people: (k,), whose they are.
        failed_mated: mated probes without an embedding: failures to acquire.
        failed_non_mated: non-mated probes without one.
    """

    gallery: str
    people: int
    failed_people: int
    rows: int
    failed_rows: int
    ranks: NDArray[np.int64]
    own: NDArray[np.float32]
    mated_people: NDArray[Any]
    best: NDArray[np.float32]
    non_mated_people: NDArray[Any]
    failed_mated: int
    failed_non_mated: int

    def scores(self, rank: int | None) -> SearchScores:
        """Return what open-set figures need; a person beyond `rank` counts as not found."""
        own = self.own
        if rank is not None:
            own = np.where(self.ranks <= rank, own, np.float32(-np.inf))
        return SearchScores(self.people, rank, own, self.best)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, plain JSON values."""
        return {
            "gallery": self.gallery,
            "people": self.people,
            "failed_to_enrol": self.failed_people,
            "gallery_rows": self.rows,
            "failed_gallery_rows": self.failed_rows,
            "mated_probes": int(self.own.size),
            "non_mated_probes": int(self.best.size),
            "failed_to_acquire": {"mated": self.failed_mated, "non_mated": self.failed_non_mated},
        }


def search_gallery(
    probes: NDArray[Any],
    probe_people: ArrayLike,
    gallery: NDArray[Any],
    gallery_people: ArrayLike,
    *,
    probe_norms: ArrayLike | None = None,
    gallery_norms: ArrayLike | None = None,
    unit: str = "person",
    name: str = "gallery",
) -> Search:
    """Return what each probe finds; the matrix of scores is made in blocks and never held.

    Scores are float32 of float64 products, so that equal embeddings give equal scores.

    Args:
        probes: float (p, d), unit norm; zero is a failure to acquire.
        probe_people: (p,), whole numbers or text.
        gallery: float (n, d), likewise; zero is a failure to enrol.
        gallery_people: (n,), of the same kind.
        probe_norms: (p,), raw norms; 0 is a failure.
        gallery_norms: (n,), likewise.
        unit: "person": each person once, by their best row, in the order of their first rows;
            "row": every row of another person stands before one's own best row or behind it.
        name: of the gallery.

    Raises:
        InputError: as `check_faces`, rows of unequal length, dimensions or kinds of labels that
            differ.
    """
    check_one_of(unit, "unit", UNITS)
    sought, acquired = check_faces(probes, probe_norms, "probe embeddings")
    rows, enrolled = check_faces(gallery, gallery_norms, f"embeddings of {name}")
    check_same_width(sought, rows, ("probe embeddings", f"those of {name}"))
    whose = check_row(probe_people, "probe_people", len(sought))
    owners = check_row(gallery_people, "gallery_people", len(rows))
    if (whose.dtype.kind == "U") != (owners.dtype.kind == "U"):
        raise InputError(
            f"probe_people and gallery_people must be of one kind, got {whose.dtype} and "
            f"{owners.dtype}"
        )
    index = _Index(rows, enrolled, owners, unit)
    places = index.find(whose)
    mated = places >= 0
    ranks, own, best = index.search(sought, places)
    for values, lost in ((ranks, 0), (own, -np.inf), (best, -np.inf)):
        values[~acquired] = lost
    return Search(
        gallery=name,
        people=index.people,
        failed_people=index.names.size - index.people,
        rows=int(enrolled.sum()),
        failed_rows=int((~enrolled).sum()),
        ranks=ranks[mated],
        own=own[mated],
        mated_people=whose[mated],
        best=best[~mated],
        non_mated_people=whose[~mated],
        failed_mated=int((mated & ~acquired).sum()),
        failed_non_mated=int((~mated & ~acquired).sum()),
    )


class _Index:
    """A gallery in tiles of whole units."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        enrolled: NDArray[np.bool_],
        owners: NDArray[Any],
        unit: str,
    ) -> None:
        self.names, first, codes = np.unique(owners, return_index=True, return_inverse=True)
        position = first[codes] if unit == "person" else np.arange(len(rows))
        kept = np.flatnonzero(enrolled)
        kept = kept[np.argsort(position[kept], kind="stable")]
        self._rows = rows
        self._kept = kept
        self._starts = np.flatnonzero(np.diff(position[kept], prepend=-1))
        unit_owner = codes[kept[self._starts]] if kept.size else np.zeros(0, np.int64)
        self.people = int(np.unique(unit_owner).size)
        # Units of each person: rising, for one's own best unit.
        self._by_owner = np.argsort(unit_owner, kind="stable")
        self._bounds = np.searchsorted(unit_owner[self._by_owner], np.arange(self.names.size + 1))

    def find(self, people: NDArray[Any]) -> NDArray[np.int64]:
        """Return the position of each person in `names`, -1 for those not in the gallery."""
        places = np.searchsorted(self.names, people)
        places[places == self.names.size] = 0
        return np.where(self.names[places] == people, places, -1).astype(np.int64)

    def search(
        self, probes: NDArray[np.float32], people: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Return rank and score of one's own person and the best score, for each probe."""
        count, units = len(probes), self._starts.size
        ranks, own = np.zeros(count, np.int64), np.full(count, -np.inf, np.float32)
        best = np.full(count, -np.inf, np.float32)
        step = min(max(_MOST_SCORES // max(units, 1), 1), _MOST_PROBES)
        for start in range(0, count if units else 0, step):
            part = slice(start, start + step)
            scores = self._score(probes[part])
            best[part] = scores.max(axis=1)
            for place, person in enumerate(people[part].tolist()):
                mine = self._by_owner[self._bounds[person] : self._bounds[person + 1]]
                if person < 0 or not mine.size:
                    continue
                row = scores[place]
                unit = int(mine[np.argmax(row[mine])])
                score = row[unit]
                own[start + place] = score
                # One's own other units are no greater, and none before `unit` is as great.
                ranks[start + place] = (
                    1 + np.count_nonzero(row > score) + np.count_nonzero(row[:unit] == score)
                )
        return ranks, own, best

    def _score(self, probes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the score of each unit, float32 (probes, units)."""
        queries = probes.astype(np.float64)
        scores = np.empty((len(probes), self._starts.size), np.float32)
        ends = np.append(self._starts[1:], self._kept.size)
        first = 0
        while first < self._starts.size:
            begin = self._starts[first]
            last = max(int(np.searchsorted(ends, begin + _TILE, side="right")), first + 1)
            tile = self._rows[self._kept[begin : ends[last - 1]]].astype(np.float64)
            found = (queries @ tile.T).astype(np.float32)
            scores[:, first:last] = np.maximum.reduceat(
                found, self._starts[first:last] - begin, axis=1
            )
            first = last
        return scores
