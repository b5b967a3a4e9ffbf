"""How good each picture is, which are too poor or show several faces, and whom cleaning takes from.

A quality is a rank, never a verdict: a hard but clean picture is worth more to a model than an
easy one. Nothing is dropped for it unless the user says so, and what other checks drop is reported
by quality, so that it is seen if they take the hard pictures with the wrong ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from data_tools.centres import Array, Mask
from facerec.checks import InputError, check_range

LOW_REASONS = ("", "among the lowest", "small face", "not sharp")
"""What `LowQuality.reason` numbers."""

UNKNOWN = "unknown"

_SURE = 1.645
_LEAST_ROWS = 30
_DECILES = 10


@dataclass(frozen=True)
class QualityTable:
    """The quality of n rows before anything is decided.

    Attributes:
        score: float64 (n,), mean of the ranks that are known, in [0, 1]; NaN where none is.
        measures: names of the m measures that the score is made of.
        ranks: float32 (n, m), in [0, 1], equal values share the mean of their ranks; NaN unknown.
        left_out: measures that are no part of the score, with the reason in words.
        face_px: float64 (n,), shorter side of the face's box in pixels, or None.
        sharpness: float64 (n,), of `facerec.data.chip_measures`, or None.
    """

    score: Array
    measures: tuple[str, ...]
    ranks: NDArray[np.float32]
    left_out: Mapping[str, str]
    face_px: Array | None
    sharpness: Array | None


@dataclass(frozen=True)
class LowQuality:
    """Rows of low quality.

    Attributes:
        flagged: bool (n,).
        reason: int8 (n,), place in LOW_REASONS; a physical limit before a rank.
    """

    flagged: Mask
    reason: NDArray[np.int8]


@dataclass(frozen=True)
class DropShare:
    """How many rows of a part of the set were dropped.

    Attributes:
        column: "quality", whose deciles are "1" (lowest) to "10", or the name of a column.
        value: which part.
        rows: rows in it.
        dropped: those that were dropped.
        share: dropped over rows.
        low: lower end of the 95 % interval of the share (Wilson 1927).
        high: upper end.
    """

    column: str
    value: str
    rows: int
    dropped: int
    share: float
    low: float
    high: float


def score_quality(
    *,
    det_scores: NDArray[Any] | None = None,
    boxes: NDArray[Any] | None = None,
    sharpness: NDArray[Any] | None = None,
    exposure: NDArray[Any] | None = None,
    norms: NDArray[Any] | None = None,
    own: Array | None = None,
    confident: Mask | None = None,
) -> QualityTable:
    """Return the quality of n rows: the mean of the ranks of what is at hand; more is better.

    The embedding's norm says something of quality for some models only. It is taken where it
    rises with the cosine to the own centre among confident rows, surely so (one-sided 5 %).

    Args:
        det_scores: (n,), of the detector; NaN in any of these: unknown for the row.
        boxes: (n, 4), x1 y1 x2 y2 of the face in pixels of its picture.
        sharpness: (n,), of `facerec.data.chip_measures`.
        exposure: (n,), of `facerec.data.chip_measures`.
        norms: (n,), of the raw embeddings.
        own: float64 (n,), cosine to the own centre (`ScoreTable.own`).
        confident: bool (n,), rows that are surely right; None: all whose `own` is known.

    Raises:
        InputError: no measure, or arrays of different lengths.
    """
    given = {
        "detector": det_scores,
        "size": None if boxes is None else _measure_boxes(boxes),
        "sharpness": sharpness,
        "exposure": exposure,
        "norm": norms,
    }
    values = {name: _check_column(name, a) for name, a in given.items() if a is not None}
    if not values:
        raise InputError("a quality needs at least one measure; give det_scores, boxes or chips'")
    n = len(next(iter(values.values())))
    for name, array in (*values.items(), ("own", own), ("confident", confident)):
        if array is not None and array.shape != (n,):
            raise InputError(f"{name} must have shape ({n},), got {array.shape}")
    face_px, sharp = values.get("size"), values.get("sharpness")
    left_out: dict[str, str] = {}
    if "norm" in values:
        reason = _doubt_norms(values["norm"], own, confident)
        if reason:
            left_out["norm"] = reason
            del values["norm"]
    for name in [name for name, array in values.items() if not np.isfinite(array).any()]:
        left_out[name] = "it is known of no row"
        del values[name]
    ranks = np.full((n, len(values)), np.nan, np.float32)
    for column, array in enumerate(values.values()):
        ranks[:, column] = _rank(array)
    known = np.isfinite(ranks).sum(axis=1)
    total = np.nansum(ranks, axis=1, dtype=np.float64)
    score = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    return QualityTable(score, tuple(values), ranks, left_out, face_px, sharp)


def find_low_quality(
    table: QualityTable,
    *,
    share: float = 0.0,
    min_face_px: float | None = None,
    min_sharpness: float | None = None,
) -> LowQuality:
    """Flag rows of low quality: none, unless a share or a limit is given.

    Args:
        table: the quality.
        share: the lowest share of the rows of known quality to flag, in [0, 1]; ties by the
            lowest row.
        min_face_px: flag faces of a shorter side below it, in pixels.
        min_sharpness: flag chips of a variance of the Laplacian below it.

    Raises:
        InputError: a limit on something that the table does not know.
    """
    check_range(share, "share", 0.0, 1.0)
    reason = np.zeros(len(table.score), np.int8)
    known = np.flatnonzero(np.isfinite(table.score))
    worst = known[np.argsort(table.score[known], kind="stable")]
    reason[worst[: int(share * len(known) + 1e-9)]] = 1
    limits = (
        (3, "sharpness", min_sharpness, table.sharpness),
        (2, "face_px", min_face_px, table.face_px),
    )
    for number, name, least, values in limits:
        if least is None:
            continue
        check_range(least, f"min_{name}", 0.0, 1e9)
        if values is None:
            raise InputError(f"min_{name} needs the measure {name}, which is not known here")
        reason[values < least] = number
    return LowQuality(reason > 0, reason)


def mark_crowded(faces: NDArray[Any]) -> Mask:
    """Return the rows whose picture held several faces, bool (n,).

    Whether the one that was taken is much larger than the next cannot be told: a manifest keeps
    the number of faces found, not the boxes of those that were passed over. So this is a hint to
    look, or a reason to ask more of the cosine, and no reason to drop.

    Args:
        faces: (n,), the manifest's column `faces`.
    """
    return np.asarray(np.asarray(faces) > 1, bool)


def report_drops(
    dropped: Mask, quality: Array, groups: Mapping[str, NDArray[Any]] | None = None
) -> list[DropShare]:
    """Return the share of drops by tenth of quality and by the values of other columns.

    Args:
        dropped: bool (n,).
        quality: float64 (n,), NaN unknown; equal qualities may be in two tenths.
        groups: name -> (n,), of any type that sorts, such as source or split.

    Returns:
        The tenths of quality from the lowest, then "unknown" if there is any; then each column,
        its values in their order.

    Raises:
        InputError: arrays of different lengths.
    """
    for name, array in (("quality", quality), *(groups or {}).items()):
        if len(array) != len(dropped):
            raise InputError(f"{name} must have {len(dropped)} rows, got {len(array)}")
    known = np.flatnonzero(np.isfinite(quality))
    order = known[np.argsort(quality[known], kind="stable")]
    rows = [
        _count_drops("quality", str(number), dropped[part])
        for number, part in enumerate(np.array_split(order, _DECILES), start=1)
        if len(part)
    ]
    if len(known) < len(dropped):
        rows.append(_count_drops("quality", UNKNOWN, dropped[~np.isfinite(quality)]))
    for name, column in (groups or {}).items():
        values, places = np.unique(np.asarray(column), return_inverse=True)
        totals = np.bincount(places, minlength=len(values))
        lost = np.bincount(places[dropped], minlength=len(values))
        for value, total, gone in zip(values, totals, lost, strict=True):
            rows.append(_make_share(name, str(value), int(total), int(gone)))
    return rows


def find_wilson(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share (Wilson 1927); (0, 1) of nothing.

    Args:
        hits: how many of `total`.
        total: number of trials.
        confidence: of the interval, in [0.5, 0.9999].
    """
    check_range(confidence, "confidence", 0.5, 0.9999)
    check_range(hits, "hits", 0, total)
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / total
    middle = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    return (0.0 if hits == 0 else float(low)), (1.0 if hits == total else float(high))


def _count_drops(column: str, value: str, dropped: Mask) -> DropShare:
    return _make_share(column, value, len(dropped), int(dropped.sum()))


def _make_share(column: str, value: str, rows: int, dropped: int) -> DropShare:
    low, high = find_wilson(dropped, rows)
    return DropShare(column, value, rows, dropped, dropped / rows, low, high)


def _measure_boxes(boxes: NDArray[Any]) -> Array:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes must have shape (n, 4), got {boxes.shape}")
    sides = np.asarray(boxes[:, 2:] - boxes[:, :2], np.float64)
    return np.asarray(sides.min(axis=1), np.float64)


def _check_column(name: str, values: NDArray[Any]) -> Array:
    if values.ndim != 1:
        raise InputError(f"{name} must have shape (n,), got {values.shape}")
    return np.asarray(values, np.float64)


def _doubt_norms(norms: Array, own: Array | None, confident: Mask | None) -> str:
    """Return why norms are no measure of quality here, "" where they are one."""
    if own is None:
        return "there are no cosines to hold it against"
    used = np.isfinite(own) & np.isfinite(norms)
    if confident is not None:
        used &= confident
    count = int(used.sum())
    if count < _LEAST_ROWS:
        return f"{count} confident rows are too few to tell, {_LEAST_ROWS} are needed"
    one, two = rankdata(norms[used]), rankdata(own[used])
    spread = float(one.std() * two.std())
    rho = float(np.mean((one - one.mean()) * (two - two.mean())) / spread) if spread else 0.0
    if rho * np.sqrt(count - 1) <= _SURE:
        return f"its rank correlation with the own cosine is {rho:.3f} over {count} rows"
    return ""


def _rank(values: Array) -> Array:
    """Return ranks in [0, 1], ties shared, a single value at 0.5, NaN where unknown."""
    known = np.isfinite(values)
    out = np.full(len(values), np.nan)
    count = int(known.sum())
    out[known] = (rankdata(values[known]) - 1) / (count - 1) if count > 1 else 0.5
    return out
