"""What cleaning turned away, put to use: new identities, strangers for training, review, discard.

Every rejected or never labelled row takes one of four ways. Rows that agree with each other and
are nobody of the set become new identities; rows unlike everybody may be shown as unknown people
(METHODS section 7); what may be somebody of the set after all is held back for people to look at;
copies, evaluation pictures and what cannot be compared are discarded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Vectors, sum_members
from data_tools.rejects_draft import (
    DISCARD,
    NEW,
    REASONS,
    REVIEW,
    ROUTE_OF,
    ROUTES,
    UNLABELLED,
    Draft,
)
from data_tools.rejects_evidence import Evidence, check_rows, weigh_right
from data_tools.rejects_groups import find_likeness, find_loose, group_rejects
from data_tools.rejects_levels import Levels, find_levels
from data_tools.rejects_strangers import Disjointness, find_bound, find_usual
from facerec.checks import check_range, check_whole

__all__ = [
    "DISCARD",
    "NEW",
    "REASONS",
    "REVIEW",
    "ROUTES",
    "UNLABELLED",
    "Evidence",
    "Routes",
    "route_rejects",
]

LEAST_PICTURES = 3
LEAK = 0.001
GREY = 0.05
NEIGHBOURS = 32


@dataclass(frozen=True)
class Routes:
    """Where m rejected rows go.

    Attributes:
        rows: int64 (m,), which rows, ascending.
        route: int8 (m,), place in ROUTES.
        reason: int8 (m,), place in REASONS.
        score: float64 (m,), cosine that decided: of a new identity's row to the centre of its
            others; else to the nearest centre there is. NaN where nothing was compared.
        identity: int64 (m,), the identity of the set that the row, or its group, is nearest to,
            as far as compared; -1 for none.
        cluster: int64 (m,), the group that the row is in, -1 for none; those that are new
            identities come first.
        new: how many groups are new identities: 0 .. new-1.
        alike: int64 (g - new,), of each other group the identity that it may be, -1 where it is
            held back as too loose.
        levels: from where on rejects are one person; None where the set could not tell.
        disjointness: how far the unlabelled rows are from everybody.
    """

    rows: Labels
    route: NDArray[np.int8]
    reason: NDArray[np.int8]
    score: Array
    identity: Labels
    cluster: Labels
    new: int
    alike: Labels
    levels: Levels | None
    disjointness: Disjointness

    def count(self) -> dict[str, int]:
        """Return how many rows take each route."""
        counts = np.bincount(self.route, minlength=len(ROUTES))
        return dict(zip(ROUTES, counts.tolist(), strict=True))


def route_rejects(
    vectors: Vectors,
    fate: Labels,
    cut: float | None = None,
    evidence: Evidence | None = None,
    neighbours: NDArray[np.int32] | None = None,
    scores: Vectors | None = None,
    *,
    least_pictures: int = LEAST_PICTURES,
    leak: float = LEAK,
    grey: float = GREY,
    seed: int = 0,
    folder: Path | None = None,
) -> Routes:
    """Say of every rejected row where it goes.

    The order of the rows does not matter, but for what rounding decides. Nothing that is kept
    changes: new identities are made of rejected rows only.

    Args:
        vectors: float32 (n, d), unit norm, 0 for a rejected row without direction.
        fate: int64 (n,), the identity each row ends in, from 0 on, -1 for out or never labelled.
        cut: least cosine of a row to its identity's centre (`Threshold.value`), in [-1, 1]; None:
            what 99 of 100 kept rows reach.
        evidence: what else is known.
        neighbours: int32 (n, k), the rows nearest to each, -1 for none; None: a graph of the
            rejects alone is made.
        scores: float32 (n, k), their cosines; given with `neighbours`.
        least_pictures: different pictures of a new identity, from 2 on.
        leak: share of right rows that may pass for strangers, in (0, 1).
        grey: probability to be somebody known from which on a row is held back, in (0, 1].
        seed: of what is sampled.
        folder: where the graph of the rejects is kept, with progress shown; see `build_graph`.

    Raises:
        InputError: arrays that are no embeddings or do not fit together, or values out of range.
    """
    given = evidence or Evidence()
    if cut is not None:
        check_range(cut, "cut", -1.0, 1.0)
    check_range(leak, "leak", 1e-9, 1.0 - 1e-9)
    check_range(grey, "grey", 1e-9, 1.0)
    check_whole(least_pictures, "least_pictures", 2, 1_000_000)
    check_rows(vectors, fate, given, neighbours, scores)
    sums = sum_members(vectors, fate, int(fate.max(initial=-1)) + 1)
    if cut is None:
        cut = find_usual(vectors, fate, sums, seed)
    out = Draft.start(vectors, fate, given)
    pool = out.rows[out.reason < 0]
    levels = find_levels(vectors, fate, sums, len(pool), seed)
    if levels is not None and len(pool) >= least_pictures:
        graph = _connect(vectors, pool, neighbours, scores, folder)
        groups = group_rejects(vectors, pool, *graph, levels, cut, least_pictures, given.photo)
        alike = find_likeness(vectors, groups, levels, sums, given.label)
        out.take_groups(vectors, groups, alike, find_loose(vectors, groups, levels))
    label, right = weigh_right(fate, given)
    # Without probabilities only those right rows are known that score above the cut; and what
    # strangers score cannot be said of too few identities.
    ceiling = 1.0 if given.owners is not None else cut
    ceiling = -1.0 if levels is None else ceiling
    report = find_bound(vectors, fate, label, right, sums, leak, seed, ceiling)
    report = out.take_singles(vectors, fate, sums, given, report, grey)
    return Routes(
        out.rows,
        ROUTE_OF[out.reason],
        out.reason,
        out.score,
        out.identity,
        out.cluster,
        out.new,
        out.alike,
        levels,
        report,
    )


def _connect(
    vectors: Vectors,
    pool: Labels,
    neighbours: NDArray[np.int32] | None,
    scores: Vectors | None,
    folder: Path | None,
) -> tuple[Labels, Vectors]:
    """Return the rows nearest to each of the pool, int64 (m, k), and their cosines."""
    if neighbours is not None and scores is not None:
        return neighbours[pool].astype(np.int64), scores[pool]
    from data_tools.graph import build_graph

    k = min(NEIGHBOURS, len(pool) - 1)
    graph = build_graph(vectors[pool], k, folder=folder, progress=folder is not None)
    near = np.where(graph.neighbours >= 0, pool[graph.neighbours], -1)
    return near, graph.scores
