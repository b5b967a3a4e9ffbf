"""The same search by an approximate index: what it loses against the exact one."""

from __future__ import annotations

import numpy as np

from eval.doc2surv_distractors import Distractors, iter_rows
from eval.doc2surv_scores import Half, TrackScores
from facerec.checks import check_one_of
from facerec.gallery.index_ladder import build_index, list_rungs

_QUERIES = 256


def check_rung(name: str) -> str:
    """Return the name of a rung of the index ladder, else raise InputError."""
    return check_one_of(name, "index", list_rungs())


def search_index(
    half: Half, name: str, rung: str, rank: int, people: int, distractors: Distractors | None
) -> TrackScores:
    """Return what the tracks find in a gallery through an index.

    A person whom the index does not list among the `rank` best is not found: own is -inf.

    Args:
        half: its gallery is part of the index.
        name: "dev" or "test".
        rung: of `facerec.gallery.index_ladder`.
        rank: R, the length of the list.
        people: N of the gallery, filled up with distractors.
        distractors: enough of them; None where the half's own gallery is N.
    """
    own_people = int(half.enrolled.size)
    more = people - own_people
    vectors = [half.vectors]
    if more and distractors is not None:
        vectors += list(iter_rows(distractors.vectors, distractors.take(name, more)))
    rows = np.ascontiguousarray(np.concatenate(vectors), np.float32)
    owners = np.concatenate([half.document_column, np.arange(own_people, people)])
    index = build_index(rung, np.arange(len(rows)), rows, owners.astype(np.int64))
    count = len(half.templates)
    own, best = np.full(count, -np.inf, np.float32), np.full(count, -np.inf, np.float32)
    ahead = np.zeros(count, np.int64)
    made = np.flatnonzero(half.acquired)
    try:
        for start in range(0, made.size, _QUERIES):
            part = made[start : start + _QUERIES]
            # One more than the list: the best other person may stand behind one's own.
            found = index.search(half.templates[part], max(rank, 1) + 1)
            mine = found.owners == np.where(half.mated, half.column, -2)[part][:, None]
            place = mine.argmax(axis=1)
            hit = mine.any(axis=1)
            own[part[hit]] = found.scores[hit, place[hit]]
            ahead[part[hit]] = place[hit]
            best[part] = np.where(mine, -np.inf, found.scores).max(axis=1)
    finally:
        index.close()
    return TrackScores(own, best, ahead, [])
