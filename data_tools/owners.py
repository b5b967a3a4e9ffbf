"""Whose face a row is: its own identity's, another one's, or nobody's here.

Confident learning with a class more and sparse: beside the given label only the best other
identity is a candidate, and "none of these" is a class of its own, since most wrong faces of a
crawl belong to nobody in it. What right and wrong rows score against their own centre is known
from the threshold's fit, what strangers score against the BEST of all other centres from the rows
that are surely right. Bayes' rule with shares found by expectation maximisation does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression

from data_tools.centres import Array
from data_tools.outliers import MIN_PICTURES, ScoreTable
from data_tools.thresholds import BINS, NEAR_SHARES, Threshold, bin_scores

_STEPS = 100
_CLOSE = 1e-6
_LEAST_ODDS, _MOST_ODDS = 1e-6, 1e6
_SMOOTH = 4.0


@dataclass(frozen=True)
class Owners:
    """Probabilities for n rows; each row's three sum to 1.

    Attributes:
        own: float64 (n,), the row shows the identity of its label.
        other: float64 (n,), it shows `ScoreTable.other_identity`.
        nobody: float64 (n,), it shows none of the identities.
        shares: the shares of the three classes among the judged rows.
    """

    own: Array
    other: Array
    nobody: Array
    shares: tuple[float, float, float]


def weigh_owners(
    scores: ScoreTable, cut: Threshold, trusted: NDArray[np.bool_] | None = None
) -> Owners:
    """Return the probabilities of each row's owners.

    Rows that cannot be judged against their own identity (`size` under MIN_PICTURES) say nothing
    of it: only a likeness to another identity counts. Rows without label are of another or nobody.

    Args:
        scores: the score table.
        cut: what `score_rows` found with it, for its densities.
        trusted: bool (n,), rows that may tell what strangers score; all when None.
    """
    judged = scores.size >= MIN_PICTURES
    scored = judged & np.isfinite(scores.own)
    # The last member that an identity has left has nobody to be held against; where there is no
    # member at all, nobody holds.
    odds_own = np.where(judged & ~scored & ~scores.core, _LEAST_ODDS, 1.0)
    fair = _fit_odds(cut.right, _shape_wrong(cut))
    odds_own[scored] = fair[bin_scores(scores.own[scored])]
    right = cut.right / cut.right.sum() if cut.right.sum() > 0 else None
    known = np.isfinite(scores.other)
    # One bin more, for rows without any other candidate: of no weight for or against.
    places = np.where(known, bin_scores(np.nan_to_num(scores.other, nan=-1.0)), BINS)
    shares = _start_shares(cut)
    telling = judged if trusted is None else judged & trusted
    weights = np.where(scores.core & telling, 1.0, 0.0)
    own = other = nobody = np.zeros(len(scores.own))
    for _ in range(_STEPS):
        odds_other = _rate_others(places, weights, right)
        own, other, nobody = _weigh(odds_own, odds_other, shares, scores.size > 0)
        new = tuple(
            float(p[judged].mean()) if judged.any() else s
            for p, s in zip((own, other, nobody), shares, strict=True)
        )
        weights = np.where(telling, own, 0.0)
        moved = max(abs(a - b) for a, b in zip(new, shares, strict=True))
        shares = (new[0], new[1], new[2])
        if moved < _CLOSE:
            break
    return Owners(own, other, nobody, shares)


def _weigh(
    odds_own: Array,
    odds_other: Array,
    shares: tuple[float, float, float],
    labelled: NDArray[np.bool_],
) -> tuple[Array, Array, Array]:
    """Bayes' rule, all likelihoods relative to those of a stranger to every identity."""
    own = np.where(labelled, shares[0] * odds_own, 0.0)
    other = shares[1] * odds_other
    nobody = np.full(len(own), max(shares[2], 1e-12))
    total = own + other + nobody
    return own / total, other / total, nobody / total


def _start_shares(cut: Threshold) -> tuple[float, float, float]:
    noise = float(cut.wrong.sum() / max(cut.wrong.sum() + cut.right.sum(), 1e-12))
    noise = min(max(noise, 0.01), 0.99)
    return 1.0 - noise, noise / 2, noise / 2


def _shape_wrong(cut: Threshold) -> Array:
    """Return the density of wrong rows; where there are none, that of the nearer strangers."""
    if cut.wrong.sum() > 0:
        return cut.wrong
    counts = cut.strangers[NEAR_SHARES.index(0.5)].astype(np.float64)
    smooth: Array = np.asarray(gaussian_filter1d(counts, _SMOOTH, mode="nearest"), np.float64)
    return np.asarray(smooth / max(1.0, counts.sum()), np.float64)


def _fit_odds(right: Array, wrong: Array) -> Array:
    """Return the ratio of two densities over the bins, each scaled to 1, rising with the score."""
    one, two = right / max(right.sum(), 1e-12), wrong / max(wrong.sum(), 1e-12)
    both = one + two
    share = np.divide(one, both, out=np.zeros(BINS), where=both > 0)
    # Bins where neither density says anything follow their neighbours.
    rising = np.asarray(isotonic_regression(share, weights=np.maximum(both, 1e-12)).x)
    odds = rising / np.maximum(1.0 - rising, 1e-12)
    return np.asarray(np.clip(odds, _LEAST_ODDS, _MOST_ODDS), np.float64)


def _rate_others(places: NDArray[np.int64], weights: Array, right: Array | None) -> Array:
    """Return how much likelier each row's score against its best other is from a row of it."""
    counts = np.bincount(places, weights=weights, minlength=BINS + 1)[:BINS]
    odds = np.ones(BINS + 1)
    odds[BINS] = _LEAST_ODDS
    if right is None or counts.sum() <= 0:
        return np.full(len(places), _LEAST_ODDS)
    strangers = gaussian_filter1d(counts / counts.sum(), _SMOOTH, mode="nearest")
    odds[:BINS] = _fit_odds(right, strangers)
    # Beyond the best stranger seen the ratio is only as sure as the count of strangers.
    odds[:BINS] = np.minimum(odds[:BINS], 10.0 * counts.sum())
    rated: Array = odds[places]
    return rated
