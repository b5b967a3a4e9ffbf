"""The test half's misses by face size, quality, camera and years between document and video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_data import DocumentSet, Split, TrackSet
from eval.doc2surv_points import FMR, Point, miss
from eval.doc2surv_rates import Draws, Figure, measure_share
from eval.doc2surv_scores import Half, TrackScores
from eval.doc2surv_settings import Doc2SurvSettings

DIMENSIONS = ("face size", "quality", "camera", "years")
UNKNOWN_PART = "not known"
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SlicedFigure:
    """One figure for each part of the mated tracks.

    Attributes:
        dimension: "face size", "quality", "camera" or "years".
        kind: of the operating point, "fmr" or "fpir".
        target: of the operating point.
        parts: label of the part, and GFNMR (1:1) or FNIR (1:N) there; an empty part has none.
    """

    dimension: str
    kind: str
    target: float
    parts: tuple[tuple[str, Figure], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "dimension": self.dimension,
            "kind": self.kind,
            "target": self.target,
            "parts": [{"part": part, **figure.to_json()} for part, figure in self.parts],
        }


def slice_points(
    half: Half,
    scores: TrackScores,
    points: Sequence[Point],
    masks: dict[str, list[tuple[str, Mask]]],
    rank: int,
    draws: Draws,
) -> tuple[SlicedFigure, ...]:
    """Return GFNMR or FNIR by part at every supported point of the half's own gallery.

    Args:
        half: the test half.
        scores: its tracks'.
        points: at frozen thresholds.
        masks: from `cut_parts`.
        rank: R of the points of kind "fpir".
        draws: of the half.
    """
    sliced = []
    for point in points:
        at = point.threshold.threshold
        if at is None:
            continue
        lost = scores.own < at if point.kind == FMR else miss(scores, at, rank)
        name = "gfnmr" if point.kind == FMR else "fnir"
        for dimension, parts in masks.items():
            figures = tuple(
                (label, _measure(name, lost, mask & half.mated, half, draws))
                for label, mask in parts
            )
            sliced.append(SlicedFigure(dimension, point.kind, point.target, figures))
    return tuple(sliced)


def cut_parts(
    documents: DocumentSet,
    tracks: TrackSet,
    split: Split,
    half: Half,
    settings: Doc2SurvSettings,
) -> dict[str, list[tuple[str, Mask]]]:
    """Return for each dimension that is known at all its parts, bool (t,) over the half's tracks.

    Quality is cut at the quantiles of the half's mated tracks. Years count from the latest
    document that a person has.
    """
    rows = half.track_rows
    years = tracks.years[rows] - _latest(documents, half)[half.subject]
    quality = tracks.qualities[rows]
    known = quality[np.isfinite(quality) & half.mated]
    inner = np.linspace(0, 1, settings.quality_parts + 1)[1:-1]
    edges = np.unique(np.quantile(known, inner)) if known.size else np.zeros(0)
    cut = {
        "face size": _cut(tracks.sizes_px[rows], settings.size_edges_px, "px"),
        "quality": _cut(quality, edges, ""),
        "camera": _name(tracks.cameras[rows]),
        "years": _cut(years, settings.year_edges, "years"),
    }
    return {
        dimension: parts
        for dimension, parts in cut.items()
        if any(mask.any() for label, mask in parts if label != UNKNOWN_PART)
    }


def _measure(name: str, lost: Mask, mask: Mask, half: Half, draws: Draws) -> Figure:
    if not mask.any():
        return Figure(name, None, None, 0, 0, 0, "not supported: no track")
    return measure_share(name, lost[mask], half.subject[mask], draws)


def _latest(documents: DocumentSet, half: Half) -> NDArray[np.float64]:
    """Return the year of each person's latest document, float64 (s,), NaN where not known."""
    found = np.full(half.people.size, -np.inf)
    known = documents.years[half.document_rows]
    owner = half.enrolled[half.document_column]
    np.maximum.at(found, owner[np.isfinite(known)], known[np.isfinite(known)])
    return np.where(np.isfinite(found), found, np.nan)


def _cut(
    values: NDArray[np.float64], edges: Sequence[float] | NDArray[np.float64], unit: str
) -> list[tuple[str, Mask]]:
    """Return the parts between edges; a value on an edge belongs to the part above."""
    known = np.isfinite(values)
    places = np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="right")
    parts = []
    for place in range(len(edges) + 1):
        low = f"{edges[place - 1]:.4g}" if place else ""
        high = f"{edges[place]:.4g}" if place < len(edges) else ""
        if not len(edges):
            label = "all"
        elif not low:
            label = f"below {high} {unit}".strip()
        else:
            label = f"{low} to {high} {unit}".strip() if high else f"from {low} {unit}".strip()
        parts.append((label, known & (places == place)))
    if not known.all():
        parts.append((UNKNOWN_PART, ~known))
    return parts


def _name(labels: NDArray[np.str_]) -> list[tuple[str, Mask]]:
    names: list[str] = np.unique(labels).tolist()
    return [(name or UNKNOWN_PART, labels == name) for name in names]
