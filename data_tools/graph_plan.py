"""Which search finds enough: recall of a sample of rows against the exact search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from data_tools.graph_exact import Crew, Near, Rows, Vectors, search_exact
from data_tools.graph_lists import (
    MIN_ROWS,
    SPAN,
    Plan,
    count_lists,
    expand,
    look_up,
    search_lists,
)

SAMPLED = 512
"""Rows whose exact neighbours are found for the recall."""

FLAT_SECONDS = 60.0
"""An exact graph is worth a minute: up to this estimated time `auto` compares every pair."""

_FLAT_RATE = 50e9
"""Multiplies and adds a second and core of the exact search: 109e9 were measured on two cores."""

_FIRST_PROBES = 8
_FIRST_WIDTH = 4
_MAX_WIDTH = 16
_PAIRED_ROWS = 2048
_BODY = 0.95
_STRANGERS = 0.02


@dataclass(frozen=True)
class Truth:
    """The exact neighbours of a sample.

    Attributes:
        rows: int64 (s,), the sample, ascending.
        scores: float32 (s, k), exact cosines of their true neighbours, -inf for none.
        floor: the score from which a neighbour counts as one that matters.
    """

    rows: Rows
    scores: Vectors
    floor: float

    def count(self, scores: Vectors) -> tuple[int, int, int, int]:
        """Count the true neighbours: found, all, found of those that matter, all that matter.

        A neighbour found is right if its score reaches that of the last true one: of equal rows
        any will do.

        Args:
            scores: float32 (s, k), exact cosines of what was found for the same rows.
        """
        real = np.isfinite(self.scores).sum(axis=1)
        last = np.min(self.scores, axis=1, keepdims=True, where=np.isfinite(self.scores), initial=2)
        matter = np.count_nonzero(self.scores >= self.floor, axis=1)
        found = np.count_nonzero(scores >= last, axis=1)
        near = np.count_nonzero(scores >= np.maximum(last, self.floor), axis=1)
        counts = (np.minimum(found, real), real, np.minimum(near, matter), matter)
        hits, every, near_hits, near_every = (int(one.sum()) for one in counts)
        return hits, every, near_hits, near_every

    def measure(self, scores: Vectors) -> tuple[float, float | None]:
        """Return the shares found, of all and of those that matter; None where none does."""
        hits, every, near_hits, near_every = self.count(scores)
        near = near_hits / near_every if near_every else None
        return hits / every if every else 1.0, near


def choose_method(rows: int, dim: int, threads: int) -> str:
    """Return "flat" where comparing every pair is estimated at a minute or less, else "ivfpq"."""
    seconds = 2 * rows * rows * dim / (_FLAT_RATE * threads)
    return "flat" if seconds <= FLAT_SECONDS or rows < MIN_ROWS else "ivfpq"


def estimate_floor(vectors: Vectors, seed: int) -> float:
    """Return the score that a stranger reaches by chance for one row in fifty.

    At it or above, a neighbour is nearly always akin; well below it, which of a million strangers
    are found is noise. Of random pairs (up to 2,048 x 2,048) the median and the 95th percentile,
    which pairs of one identity do not touch, give a normal law; its 1 - 0.02/n quantile is the
    floor.
    """
    n = len(vectors)
    rng = np.random.default_rng((seed, 2))
    chosen = rng.permutation(n)[: 2 * _PAIRED_ROWS]
    half = len(chosen) // 2
    scores = vectors[np.sort(chosen[:half])] @ vectors[np.sort(chosen[half:])].T
    middle, high = np.quantile(scores, [0.5, _BODY])
    normal = NormalDist()
    reach = normal.inv_cdf(1 - _STRANGERS / n) / normal.inv_cdf(_BODY)
    return float(middle + (high - middle) * reach)


def find_truth(vectors: Vectors, k: int, seed: int, floor: float | None, crew: Crew) -> Truth:
    """Return the exact neighbours of a seeded sample of rows."""
    n = len(vectors)
    rng = np.random.default_rng((seed, 3))
    rows: Rows = np.sort(rng.choice(n, min(n, SAMPLED), replace=False)).astype(np.int64)
    # FAISS takes seven times as long a row where a block has 128 or fewer.
    _, scores = crew.map_rows(lambda part: search_exact(vectors, part, k), rows, block=256)
    return Truth(rows, scores, estimate_floor(vectors, seed) if floor is None else floor)


def find_plan(
    vectors: Vectors, index: Any, method: str, truth: Truth, target: float, crew: Crew
) -> Plan:
    """Return a plan that finds enough of the sample's neighbours that matter, and little more.

    Starting from few, the number of lists searched is doubled or the number of candidates that are
    compared exactly, whichever helps the sample more, until the target is reached or all is
    searched. The sample goes the whole way, its neighbours' neighbours included, so what it finds
    is what the finished graph has.
    """
    k = truth.scores.shape[1]
    lists = count_lists(len(vectors))
    held = max(k, SPAN)
    # Lists of vectors give exact scores: more candidates than are kept would say nothing new.
    first, most = (_FIRST_WIDTH, _MAX_WIDTH) if method == "ivfpq" else (1, 1)
    plan = Plan(method, lists, min(_FIRST_PROBES, lists), first * held)

    def count_missed(one: Plan) -> float:
        _, scores = _search_sample(vectors, index, one, truth.rows, k, crew)
        _, _, found, every = truth.count(scores)
        return target * every - found

    # Strangers whom chance put among them are found by searching everything, and worth nothing.
    allowed = _STRANGERS * len(truth.rows)
    missed = count_missed(plan)
    while missed > allowed:
        tries = []
        if plan.probes < lists:
            tries.append(replace(plan, probes=min(2 * plan.probes, lists)))
        if plan.width < most * held:
            tries.append(replace(plan, width=2 * plan.width))
        if not tries:
            break
        results = [count_missed(one) for one in tries]
        best = int(np.argmin(results))
        plan, missed = tries[best], results[best]
    return plan


def _search_sample(
    vectors: Vectors, index: Any, plan: Plan, rows: Rows, k: int, crew: Crew
) -> Near:
    """Return what the finished graph would hold for `rows`."""
    held = max(k, SPAN)

    def search(part: Rows) -> Near:
        return search_lists(vectors, index, plan, part, held)

    near, _ = crew.map_rows(search, rows)
    asked = np.unique(near[:, :SPAN]).astype(np.int64)
    asked = asked[asked >= 0]
    if not len(asked):
        return expand(vectors, rows, near, np.full((len(rows), 1, 1), -1, np.int32), k)
    base, _ = crew.map_rows(search, asked)
    place = np.where(
        near[:, :SPAN] < 0, -1, np.searchsorted(asked, near[:, :SPAN]).astype(np.int32)
    )
    return expand(vectors, rows, near, look_up(base, place), k)
