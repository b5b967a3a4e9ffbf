"""The upper tail of strangers' scores: how often they pass a threshold that few of them reached.

Extreme-value theory gives the excesses over a high cut one family of shapes, the generalised
Pareto (Pickands 1975; Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, ch.
4), and the best of N scores the family of the generalised extreme value (ch. 3). Both are one law
of the hazard L(t) = -log(1 - rate(t)):

    L(t) = level * (1 + shape * (t - cut) / scale) ^ (-1 / shape),  t >= cut

that is a score below the cut is only known to be below (censored), one above has density
L'(t) exp(-L(t)). Where rates are small, L is the rate and the law is the generalised Pareto one;
where the cut lies at the median of best scores over N people it still holds, which lets the fit
see half of the probes and not only the highest tenth (the Pareto law fitted that low is biased:
on faces by 10 % of the rate). Searching k times the people multiplies L by k, so scaling a rate
to another size of gallery keeps the law.

Cosines end at 1: the law ends at an unknown score of at most `end`, so its shape is negative. A
shape below -1/2 is refused (the likelihood's estimates are not regular there: Smith 1985). The
likelihood is maximised on a grid of end points and scales, sharpened by a parabola, for many rows
of weights at once: resamples of a bootstrap cost one matrix product. Dependence between scores of
one person does not move the estimate, only its spread, which the subject bootstrap measures
(all exceedances with such a spread do better than one a cluster: Fawcett & Walshaw 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range

Floats = NDArray[np.float64]

LEAST_SHAPE = -0.5
_ENDS, _SCALES = 24, 40
# The least distance of the end point to the highest score, in shares of the greatest.
_NEAREST_END = 0.02
# Scales tried, in multiples of the mean excess.
_LEAST_SCALE, _MOST_SCALE = 0.4, 3.0


@dataclass(frozen=True)
class Tails:
    """Fitted tails, one a row of weights.

    Attributes:
        cut: where the tail begins; nothing is known below.
        level: float64 (r,), hazard at the cut, -log(1 - rate).
        scale: float64 (r,), in units of score, positive.
        shape: float64 (r,), in [-0.5, 0].
    """

    cut: float
    level: Floats
    scale: Floats
    shape: Floats

    def hazard(self, threshold: ArrayLike) -> Floats:
        """Return -log(1 - rate) at thresholds that broadcast with (r,); 0 beyond the end."""
        excess = np.asarray(threshold, dtype=np.float64) - self.cut
        if (excess < 0).any():
            raise InputError(
                f"a tail is known from its cut {self.cut:.6g} on, got a threshold below"
            )
        found: Floats = self.level * gpd_survival(excess, self.scale, self.shape)
        return found

    def rate(self, threshold: ArrayLike) -> Floats:
        """Return the share of scores at or above thresholds that broadcast with (r,)."""
        found: Floats = -np.expm1(-self.hazard(threshold))
        return found

    def threshold(self, rate: float) -> Floats:
        """Return where the share of scores at or above is `rate`, float64 (r,).

        Where the rate at the cut is lower than asked, the cut: the tail knows no lower threshold.
        """
        check_range(rate, "rate", 1e-15, 1 - 1e-15)
        share = np.minimum(-np.log1p(-rate) / self.level, 1.0)
        found: Floats = self.cut + gpd_quantile(share, self.scale, self.shape)
        return found


def gpd_survival(excess: ArrayLike, scale: ArrayLike, shape: ArrayLike) -> Floats:
    """Return P(X >= excess) of a generalised Pareto variable.

    Args:
        excess: at least 0.
        scale: positive.
        shape: 0 is the exponential law; below 0 the law ends at -scale / shape.
    """
    y, s, k = np.broadcast_arrays(
        np.asarray(excess, np.float64), np.asarray(scale, np.float64), np.asarray(shape, np.float64)
    )
    flat = np.abs(k) < 1e-9
    safe = np.where(flat, 1.0, k)
    base = np.maximum(1 + safe * y / s, 0.0)
    with np.errstate(divide="ignore"):
        found: Floats = np.where(flat, np.exp(-y / s), base ** (-1 / safe))
    return found


def gpd_quantile(survival: ArrayLike, scale: ArrayLike, shape: ArrayLike) -> Floats:
    """Return the excess that a generalised Pareto variable reaches with probability `survival`.

    Args:
        survival: in (0, 1].
        scale: positive.
        shape: 0 is the exponential law.
    """
    p, s, k = np.broadcast_arrays(
        np.asarray(survival, np.float64),
        np.asarray(scale, np.float64),
        np.asarray(shape, np.float64),
    )
    flat = np.abs(k) < 1e-9
    safe = np.where(flat, 1.0, k)
    found: Floats = s * np.where(flat, -np.log(p), np.expm1(-safe * np.log(p)) / safe)
    return found


def fit_tails(
    values: ArrayLike, weights: ArrayLike, below: ArrayLike, cut: float, *, end: float = 1.0
) -> Tails:
    """Return the tail of greatest likelihood for each row of weights.

    Args:
        values: float (b,), the scores at or above the cut (or means of narrow groups of them), at
            least two different ones.
        weights: float (r, b), not negative, each row with some weight.
        below: float (r,), the weight of the scores below the cut.
        cut: where the tail begins.
        end: no score can be greater: 1 for cosines.

    Raises:
        InputError: shapes that do not fit, a value below the cut or above the end, no spread.
    """
    x = np.asarray(values, np.float64)
    w = np.atleast_2d(np.asarray(weights, np.float64))
    rest = np.asarray(below, np.float64).reshape(-1)
    if x.ndim != 1 or w.shape != (rest.size, x.size):
        raise InputError(
            f"weights must be (rows, values) with one `below` a row, got {w.shape}, "
            f"{x.size} values and {rest.size} rows"
        )
    if not x.size or x.min() < cut or x.max() > end + 1e-6 or x.max() - x.min() <= 0:
        raise InputError(
            f"a tail needs different scores from its cut {cut:.6g} to {end:.6g}, got {x.size} "
            f"scores" + (f" from {x.min():.6g} to {x.max():.6g}" if x.size else "")
        )
    above = w.sum(axis=1)
    if not (above > 0).all():
        raise InputError("each row of weights must have some weight above the cut")
    top = float(x.max())
    reach = max(end - top, 1e-3)
    ends = top + reach * np.geomspace(_NEAREST_END, 1.0, _ENDS)
    mean = float(w.sum(axis=0) @ (x - cut) / w.sum())
    scales = mean * np.geomspace(_LEAST_SCALE, _MOST_SCALE, _SCALES)
    table = _likelihood(x, w, rest, cut, ends, scales)
    rows, columns = _find_peaks(table)
    far = top + reach * np.exp(np.interp(rows, np.arange(_ENDS), np.log((ends - top) / reach)))
    scale = np.exp(np.interp(columns, np.arange(_SCALES), np.log(scales)))
    shape = np.maximum(-scale / (far - cut), LEAST_SHAPE)
    # A bounded shape moves the end point: it must stay beyond the highest score.
    scale = np.maximum(scale, -shape * (top - cut) * (1 + 1e-9))
    covered = (w * gpd_survival((x - cut)[None], scale[:, None], shape[:, None])).sum(axis=1)
    return Tails(float(cut), above / (rest + covered), scale, shape)


def _likelihood(
    x: Floats, w: Floats, rest: Floats, cut: float, ends: Floats, scales: Floats
) -> Floats:
    """Return the log likelihood (r, ends, scales), the level at its best for each cell."""
    power = (ends[:, None] - cut) / scales[None]
    logs = np.log((ends[None] - x[:, None]) / (ends[None] - cut))
    survived = np.exp(logs[:, :, None] * power[None]).reshape(x.size, -1)
    above = w.sum(axis=1)
    covered = (w @ survived).reshape(-1, ends.size, scales.size)
    level = above[:, None, None] / (rest[:, None, None] + covered)
    table = above[:, None, None] * (np.log(level) - np.log(scales)[None, None] - 1)
    table = table + (power - 1)[None] * (w @ logs)[:, :, None]
    found: Floats = np.where(power[None] >= -1 / LEAST_SHAPE, table, -np.inf)
    return found


def _find_peaks(table: Floats) -> tuple[Floats, Floats]:
    """Return the place of each table's maximum in cells and parts of cells, float64 (r,) each."""
    count, height, width = table.shape
    flat = table.reshape(count, -1).argmax(axis=1)
    i, j = np.clip(flat // width, 1, height - 2), np.clip(flat % width, 1, width - 2)
    each = np.arange(count)

    def at(di: int, dj: int) -> Floats:
        found: Floats = table[each, i + di, j + dj]
        return found

    with np.errstate(invalid="ignore", divide="ignore"):
        gi, gj = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
        hii, hjj = at(1, 0) + at(-1, 0) - 2 * at(0, 0), at(0, 1) + at(0, -1) - 2 * at(0, 0)
        hij = (at(1, 1) + at(-1, -1) - at(1, -1) - at(-1, 1)) / 4
        det = hii * hjj - hij**2
        si, sj = (hij * gj - hjj * gi) / det, (hij * gi - hii * gj) / det
        sound = np.isfinite(si + sj) & (det > 0) & (hii < 0)
    rows, columns = (flat // width).astype(np.float64), (flat % width).astype(np.float64)
    rows = np.where(sound, np.clip(i + np.clip(si, -1.5, 1.5), 0, height - 1), rows)
    columns = np.where(sound, np.clip(j + np.clip(sj, -1.5, 1.5), 0, width - 1), columns)
    return rows, columns
