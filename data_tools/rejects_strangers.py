"""Who may be shown as a stranger: the bound, and how many known people would pass under it.

METHODS section 7: unlabelled faces for unknown identity rejection must be nobody known, and what
cleaning dropped breaks that by construction, since a dropped picture may be a hard one of its own
identity. So the bound is a low quantile of what RIGHT rows score against the nearest of all
centres; how many would pass is then measured on identities that did not set it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta

from data_tools.centres import Array, Labels, Vectors, find_others
from data_tools.rejects_levels import draw_keys
from facerec.progress import Progress

_SAMPLE = 20_000
_CONFIDENCE = 0.95
_BLOCK = 1 << 14


@dataclass(frozen=True)
class Disjointness:
    """How far the rows that pass for strangers are from everybody known.

    Attributes:
        bound: cosine; a row passes whose best centre is below it. -1: nothing passes.
        leak: the share of right rows that may pass, as asked for.
        leaked: the share that did, of identities that did not set the bound; None where no right
            row is known.
        leaked_most: upper end of its one-sided 95 % confidence interval.
        passing: the share of the same rows that would pass were their own identity not there:
            how many true strangers can be expected to.
        tested: right rows that were held against the bound, in effect (weights count).
        highest: the highest cosine of an admitted row to any centre; None without one.
        admitted: rows that pass.
        known: how many of them the probabilities expect to be somebody known; None without them.
    """

    bound: float
    leak: float
    leaked: float | None
    leaked_most: float | None
    passing: float | None
    tested: float
    highest: float | None = None
    admitted: int = 0
    known: float | None = None

    def finish(self, best: Array, known: Array | None) -> Disjointness:
        """Return the report with what was admitted.

        Args:
            best: float64 (a,), cosine of each admitted row to its nearest centre.
            known: float64 (a,), probability of each to be somebody known; None: not known.
        """
        return replace(
            self,
            highest=float(best.max()) if len(best) else None,
            admitted=len(best),
            known=float(known.sum()) if known is not None else None,
        )


def find_bound(
    vectors: Vectors,
    fate: Labels,
    label: Labels,
    right: Array,
    sums: Vectors,
    leak: float,
    seed: int = 0,
    ceiling: float = 1.0,
) -> Disjointness:
    """Return the bound, and what passes under it.

    Args:
        vectors: float32 (n, d), unit norm.
        fate: int64 (n,), whose member each row is, -1 for none.
        label: int64 (n,), the identity that each row may show, -1 for none.
        right: float64 (n,), the probability that it does, in [0, 1].
        sums: float32 (c, d), sums of the members.
        leak: the share of right rows that may pass, in (0, 1).
        seed: of the sample of 20,000 rows.
        ceiling: the bound is never higher.
    """
    rows = np.flatnonzero((label >= 0) & (right > 0))
    rows = rows[np.argsort(draw_keys(vectors, rows, seed), kind="stable")[:_SAMPLE]]
    own = score_own(vectors, rows, label[rows], fate, sums)
    rows, own = rows[np.isfinite(own)], own[np.isfinite(own)]
    if not len(rows):
        return Disjointness(-1.0, leak, None, None, None, 0.0)
    other = np.nan_to_num(score_best(vectors, rows, label[rows], sums)[0], nan=-1.0)
    best, weight = np.maximum(own, other), right[rows]
    bound = min(ceiling, _find_quantile(best, weight, leak))
    passed = passing = 0.0
    halves = label[rows] % 2 == 0
    for half in (halves, ~halves):
        level = min(ceiling, _find_quantile(best[~half], weight[~half], leak))
        passed += float(weight[half & (best < level)].sum())
        passing += float(weight[half & (other < level)].sum())
    total = float(weight.sum())
    most = 1.0 if passed >= total else float(beta.ppf(_CONFIDENCE, passed + 1, total - passed))
    return Disjointness(bound, leak, passed / total, most, passing / total, total)


def find_usual(vectors: Vectors, fate: Labels, sums: Vectors, seed: int = 0) -> float:
    """Return the cosine to the centre of the others that 99 of 100 kept rows reach; 1 without any.

    Arguments as `find_bound`.
    """
    rows = np.flatnonzero(fate >= 0)
    rows = rows[np.argsort(draw_keys(vectors, rows, seed), kind="stable")[:_SAMPLE]]
    own = score_own(vectors, rows, fate[rows], fate, sums)
    own = own[np.isfinite(own)]
    return float(np.quantile(own, 0.01)) if len(own) else 1.0


def score_own(
    vectors: Vectors, rows: Labels, identities: Labels, fate: Labels, sums: Vectors
) -> Array:
    """Return the cosine of some rows to one identity's centre each, themselves left out of it.

    Args:
        vectors: float32 (n, d), unit norm.
        rows: int64 (m,).
        identities: int64 (m,), against whom.
        fate: int64 (n,), whose member each row is.
        sums: float32 (c, d), sums of the members.

    Returns:
        float64 (m,), NaN where nobody else is a member.
    """
    members = np.bincount(fate[fate >= 0], minlength=len(sums))
    out = np.full(len(rows), np.nan)
    for first in range(0, len(rows), _BLOCK):
        part, whom = rows[first : first + _BLOCK], identities[first : first + _BLOCK]
        mine = fate[part] == whom
        units = vectors[part].astype(np.float64)
        rest = sums[whom] - units * mine[:, None]
        norms = np.maximum(np.linalg.norm(rest, axis=1), 1e-12)
        cosines = np.einsum("nd,nd->n", rest, units) / norms
        out[first : first + _BLOCK] = np.where(members[whom] > mine, cosines, np.nan)
    return out


def score_best(
    vectors: Vectors, rows: Labels, without: Labels, sums: Vectors
) -> tuple[Array, Labels]:
    """Return the best cosine of some rows to the centres, and whose it is, all compared.

    Args:
        vectors: float32 (n, d), unit norm.
        rows: int64 (m,), of which none is a member but of the identity in `without`.
        without: int64 (m,), the identity that does not count, -1 for none.
        sums: float32 (c, d).

    Returns:
        float64 (m,), NaN without any centre, and int64 (m,), -1 without one.
    """
    best, whose = np.full(len(rows), np.nan), np.full(len(rows), -1, np.int64)
    with contextlib.ExitStack() as stack:
        show = None
        if len(rows) > _SAMPLE:
            show = stack.enter_context(Progress("compare with centres", len(rows), "rows"))
        for first in range(0, len(rows), _BLOCK):
            part = slice(first, first + _BLOCK)
            nobody = np.full(len(rows[part]), -1, np.int64)
            found = find_others(vectors[rows[part]], without[part], nobody, sums, None)
            best[part], whose[part] = found
            if show is not None:
                show.advance(len(nobody))
    return best, whose


def _find_quantile(values: Array, weights: Array, share: float) -> float:
    """Return the largest value strictly below which at most that share of the weight lies."""
    if not len(values):
        return -1.0
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    place = int(np.searchsorted(below, share * below[-1] + 1e-12, side="right"))
    return float(values[order[min(place, len(order) - 1)]])
