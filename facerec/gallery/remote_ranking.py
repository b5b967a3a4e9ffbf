"""Strict top-k of people from a server that ranks points: widened until nobody can be missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facerec.gallery.index import score_pairs

SLACK = 1e-5
"""More than float32 rounding of a dot product of unit vectors, whatever the summation order."""

_FIRST_WIDTH = 16
_QUERIES_A_REQUEST = 64
_STALE_ROUNDS = 5


@dataclass(frozen=True)
class Request:
    """One query to the server.

    Attributes:
        vector: float32 (d,).
        width: points to return at most.
        without: owners whose points are left out.
    """

    vector: NDArray[np.float32]
    width: int
    without: tuple[int, ...]


@dataclass(frozen=True)
class Hits:
    """The server's best points, best first.

    Attributes:
        ids: int64 (w,).
        owners: int64 (w,).
        scores: float64 (w,), the server's own rough ones.
    """

    ids: NDArray[np.int64]
    owners: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Stored:
    """Points as the server holds them now; those that are gone are left out.

    Attributes:
        owners: id -> owner.
        vectors: id -> float32 (d,).
    """

    owners: dict[int, int]
    vectors: dict[int, NDArray[np.float32]]


class PointSource(Protocol):
    """What ranking needs of a server."""

    def ask(self, requests: list[Request]) -> list[Hits]:
        """Answer each request."""
        ...

    def fetch(self, ids: list[int]) -> Stored:
        """Return those of the points that are still there."""
        ...


@dataclass
class _Question:
    """How far one query has come.

    Attributes:
        settled: owner -> (exact score, id): their best row is known for certain.
        stale: answers so far that named points which were no longer there.
    """

    vector: NDArray[np.float32]
    width: int
    settled: dict[int, tuple[float, int]] = field(default_factory=dict)
    stale: int = 0
    done: bool = False

    def rank(self, k: int) -> list[tuple[float, int, int]]:
        """The k best settled people as (score, owner, id); ties by owner, then id."""
        order = sorted((-score, owner, row) for owner, (score, row) in self.settled.items())
        return [(-score, owner, row) for score, owner, row in order[:k]]


def find_people(
    source: PointSource, queries: NDArray[np.float32], k: int
) -> list[list[tuple[float, int, int]]]:
    """Return each query's k best people by their best row, as (score, owner, id).

    The server's scores only choose candidates: their vectors are fetched and scored in float64,
    so equal vectors have equal scores. A person is settled when every row that could be their
    best has been seen; settled people are left out of the next, wider request, so that one with
    thousands of rows cannot crowd out the others. It ends when the k-th settled score lies above
    all that an unseen row could reach, or when the server has no more.

    Args:
        source: the server.
        queries: float32 (m, d), unit norm.
        k: people a query.

    Returns:
        One list a query, shorter than k where there are fewer people.
    """
    questions = [_Question(query, max(_FIRST_WIDTH, 2 * k)) for query in queries]
    for start in range(0, len(questions), _QUERIES_A_REQUEST):
        block = questions[start : start + _QUERIES_A_REQUEST]
        while pending := [question for question in block if not question.done]:
            requests = [Request(q.vector, q.width, tuple(q.settled)) for q in pending]
            answers = source.ask(requests)
            chosen = [
                _choose_rows(question, hits, k)
                for question, hits in zip(pending, answers, strict=True)
            ]
            stored = source.fetch(sorted({int(row) for rows in chosen for row in rows}))
            for question, hits, rows in zip(pending, answers, chosen, strict=True):
                _settle(question, hits, rows, stored, k)
    return [question.rank(k) for question in questions]


def _choose_rows(question: _Question, hits: Hits, k: int) -> NDArray[np.int64]:
    """The rows that could be the best one of a person among the k best, rounding considered."""
    if not len(hits.ids):
        return hits.ids
    best: dict[int, float] = {}
    for owner, score in zip(hits.owners.tolist(), hits.scores.tolist(), strict=True):
        best[owner] = max(score, best.get(owner, -np.inf))
    reached = sorted([*best.values(), *(score for score, _ in question.settled.values())])
    bound = reached[-k] if len(reached) >= k else -np.inf
    own_best = np.array([best[owner] for owner in hits.owners.tolist()])
    # Twice: the better of the two may be rounded down and the other up.
    near: NDArray[np.bool_] = hits.scores >= np.maximum(bound, own_best) - 2 * SLACK
    rows: NDArray[np.int64] = hits.ids[near]
    return rows


def _settle(
    question: _Question, hits: Hits, rows: NDArray[np.int64], stored: Stored, k: int
) -> None:
    """Take the fetched rows in, and see whether the query is answered."""
    last = float(hits.scores.min()) if len(hits.ids) == question.width else -np.inf
    before, gone = len(question.settled), False
    groups: dict[int, list[int]] = {}
    highest: dict[int, float] = {}
    wanted = set(rows.tolist())
    for row, owner, score in zip(
        hits.ids.tolist(), hits.owners.tolist(), hits.scores.tolist(), strict=True
    ):
        if row in wanted:
            groups.setdefault(owner, []).append(row)
            highest[owner] = max(score, highest.get(owner, -np.inf))
    for owner, candidates in groups.items():
        if highest[owner] <= last + 2 * SLACK:
            continue  # an equal row of theirs may lie just behind the end
        present = [row for row in candidates if stored.owners.get(row) == owner]
        if len(present) < len(candidates):
            gone = True  # erased or given to another while this search went on
            continue
        negative, row = min((-score, row) for row, score in _score_rows(question, present, stored))
        question.settled[owner] = (-negative, row)
    best = question.rank(k)
    complete = last == -np.inf or (len(best) == k and best[-1][0] > last + 4 * SLACK)
    question.stale += gone
    question.done = complete and (not gone or question.stale > _STALE_ROUNDS)
    question.width *= 2 if len(question.settled) > before else 4


def _score_rows(question: _Question, rows: list[int], stored: Stored) -> list[tuple[int, float]]:
    vectors = np.stack([stored.vectors[row] for row in rows])
    slots = np.arange(len(rows))
    scores = score_pairs(vectors, question.vector[None], np.zeros_like(slots), slots)
    return list(zip(rows, scores.tolist(), strict=True))
