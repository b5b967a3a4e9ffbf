"""One half's scores: every track against every enrolled person, in blocks, never held whole.

A person's score is the best of their documents, as a gallery search gives it. Scores are float32
of float64 products. Equal scores rank by the person's place in the sorted names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_data import DocumentSet, Names, TrackSet
from eval.doc2surv_pairs import NO_GROUP, CrossExceedances, PairKeeper
from facerec.checks import InputError

Labels = NDArray[np.int64]
Scores = NDArray[np.float32]

_MOST_SCORES = 16 * 2**20
_WORST = 20


@dataclass(frozen=True)
class TrackScores:
    """What the search of a half's gallery gave each track, t of them.

    Attributes:
        own: float32 (t,), the track's own person's score; -inf for a failure to acquire, a person
            without an enrolled document, and everybody unknown.
        best: float32 (t,), the best score of any other person; -inf for a failure to acquire.
        ahead: int64 (t,), people who rank before the track's own.
        worst: the greatest scores of other people: (score, row of the track, column), falling.
    """

    own: Scores
    best: Scores
    ahead: Labels
    worst: list[tuple[float, int, int]]


class Half:
    """The documents, tracks and people of one half.

    Args:
        documents: all documents.
        tracks: all tracks.
        document_rows: those of this half.
        track_rows: likewise.

    Attributes:
        people: (s,), everybody of the half, sorted; unnamed tracks are people of their own.
        track_rows: int64 (t,), rows of the track set.
        subject: int64 (t,), each track's person in `people`.
        enrolled: int64 (n,), people with an embedded document, rising: the gallery's columns.
        failed: int64, people whose documents have all failed.
        column: int64 (t,), each track's own column, -1 without one.
        acquired: bool (t,).
        mated: bool (t,), whether the track's person is enrolled.
        lost: bool (t,), whether the track's person has only failed documents.
        groups: int64 (s,), -1 = not known.

    Raises:
        InputError: nobody is enrolled, or a person bears two groups.
    """

    def __init__(
        self,
        documents: DocumentSet,
        tracks: TrackSet,
        document_rows: Labels,
        track_rows: Labels,
    ) -> None:
        self.track_rows = track_rows
        subjects = tracks.subjects()[track_rows]
        owners = documents.people[document_rows]
        self.people: Names = np.unique(np.concatenate([owners, subjects]))
        self.subject = np.searchsorted(self.people, subjects).astype(np.int64)
        owner = np.searchsorted(self.people, owners).astype(np.int64)
        made = documents.made[document_rows]
        if not made.any():
            raise InputError("no document of a half gave an embedding; check model and detector")
        self.enrolled = np.unique(owner[made])
        self.failed = np.setdiff1d(owner, self.enrolled)
        order = np.flatnonzero(made)[np.argsort(owner[made], kind="stable")]
        self.document_rows = document_rows[order]
        self.vectors = documents.vectors[self.document_rows]
        self._starts = np.searchsorted(owner[order], self.enrolled)
        self.document_column = np.searchsorted(self.enrolled, owner[order]).astype(np.int64)
        self.templates = tracks.vectors[track_rows]
        self.acquired = tracks.made[track_rows]
        place = np.searchsorted(self.enrolled, self.subject)
        place[place == self.enrolled.size] = 0
        self.mated = self.enrolled[place] == self.subject
        self.column = np.where(self.mated, place, -1).astype(np.int64)
        self.lost = np.isin(self.subject, self.failed)
        self.groups = self._find_groups(documents, tracks, document_rows, owner)

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Which tracks show somebody without any document, bool (t,)."""
        nobody: NDArray[np.bool_] = ~self.mated & ~self.lost
        return nobody

    def _find_groups(
        self, documents: DocumentSet, tracks: TrackSet, rows: Labels, owner: Labels
    ) -> Labels:
        texts = np.concatenate([documents.groups[rows], tracks.groups[self.track_rows]])
        whose = np.concatenate([owner, self.subject])
        names, codes = np.unique(texts, return_inverse=True)
        found = np.full(self.people.size, NO_GROUP, np.int64)
        for person, code in zip(whose.tolist(), codes.reshape(-1).tolist(), strict=True):
            if names[code] == "":
                continue
            if found[person] not in (NO_GROUP, code):
                raise InputError(
                    f"person {str(self.people[person])!r} bears the groups "
                    f"{str(names[found[person]])!r} and {str(names[code])!r}; correct one"
                )
            found[person] = code
        return found

    def iter_scores(self) -> Iterator[tuple[slice, Scores]]:
        """Yield (tracks, scores (b, n)) in order; those of failures are -inf."""
        wide = self.vectors.astype(np.float64).T
        step = max(_MOST_SCORES // max(len(self.vectors), 1), 1)
        for start in range(0, len(self.templates), step):
            part = slice(start, min(start + step, len(self.templates)))
            each = (self.templates[part].astype(np.float64) @ wide).astype(np.float32)
            scores: Scores = np.maximum.reduceat(each, self._starts, axis=1)
            scores[~self.acquired[part]] = -np.inf
            yield part, scores

    def allow(self, part: slice) -> NDArray[np.bool_]:
        """Return which (track, person) are non-mated comparisons, bool (b, n).

        Another person, of the same group where both groups are known, and a track that was made.
        """
        rows, columns = self.subject[part], self.enrolled
        allowed: NDArray[np.bool_] = rows[:, None] != columns[None]
        if (self.groups != NO_GROUP).any():
            mine, theirs = self.groups[rows][:, None], self.groups[columns][None]
            allowed &= (mine == theirs) | (mine == NO_GROUP) | (theirs == NO_GROUP)
        allowed &= self.acquired[part][:, None]
        return allowed

    def search(self) -> TrackScores:
        """Return each track's own and best other score and rank."""
        count = len(self.templates)
        own, best = (np.full(count, -np.inf, np.float32) for _ in range(2))
        ahead = np.zeros(count, np.int64)
        worst: list[tuple[float, int, int]] = []
        for part, scores in self.iter_scores():
            here = np.flatnonzero(self.mated[part] & self.acquired[part])
            mine = self.column[part][here]
            score = scores[here, mine]
            own[part.start + here] = score
            scores[here, mine] = -np.inf
            before = np.arange(scores.shape[1])[None] < mine[:, None]
            others = scores[here]
            greater = others > score[:, None]
            ahead[part.start + here] = (greater | ((others == score[:, None]) & before)).sum(axis=1)
            best[part] = scores.max(axis=1)
            worst = _keep_worst(worst, scores, part.start)
        return TrackScores(own, best, ahead, worst)

    def collect(self, depth: int, floor: float = -np.inf) -> CrossExceedances:
        """Return the greatest scores of different people: what FMR and its threshold need."""
        keeper = PairKeeper(depth, floor)
        for part, scores in self.iter_scores():
            keeper.add(scores, self.allow(part), self.subject[part], self.enrolled)
        made = self.subject[self.acquired]
        probes = np.bincount(made, minlength=self.people.size).astype(np.float64)
        enrolled = np.zeros(self.people.size)
        enrolled[self.enrolled] = 1.0
        return keeper.finish(probes, enrolled, self.groups)


def _keep_worst(
    worst: list[tuple[float, int, int]], scores: Scores, start: int
) -> list[tuple[float, int, int]]:
    flat = scores.reshape(-1)
    count = min(_WORST, flat.size)
    places = np.argpartition(-flat, count - 1)[:count]
    rows, columns = np.divmod(places, scores.shape[1])
    found = [
        (float(flat[place]), start + row, column)
        for place, row, column in zip(places.tolist(), rows.tolist(), columns.tolist(), strict=True)
        if flat[place] > -np.inf
    ]
    return sorted(worst + found, key=lambda one: (-one[0], one[1], one[2]))[:_WORST]
