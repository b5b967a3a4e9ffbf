"""Thresholds frozen on the development half, and what the test half shows at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_pairs import CrossExceedances
from eval.doc2surv_rates import Draws, Figure, measure_pairs, measure_share, mirror, refuse
from eval.doc2surv_scores import Half, Labels, TrackScores
from eval.doc2surv_settings import Doc2SurvSettings
from facerec.metrics.tail_choice import LEAST_ABOVE
from facerec.metrics.threshold_results import RateThreshold

# The two-way sample goes where calibrate_fmr would make its own of one set's pairs.
from facerec.metrics.thresholds import (
    LEAST_TAIL_ERRORS,
    SampleSettings,
    calibrate_fpir,
    calibrate_sample,
)

FMR, FPIR = "fmr", "fpir"
EXACT = "exact"
_DEPTH_SHARE = 0.02
_LEAST_DEPTH = 200_000


@dataclass(frozen=True)
class Point:
    """One operating point.

    Attributes:
        kind: "fmr" (1:1) or "fpir" (1:N).
        target: the rate that the threshold was chosen for on the development half.
        threshold: what the development half gave; it may support none.
        people: N of the test gallery that was searched; None for 1:1.
        search: "exact" or the rung of an index.
        figures: of the test half: fnmr, gfnmr, fmr or fnir, tpir, fpir, found_lost.
    """

    kind: str
    target: float
    threshold: RateThreshold
    people: int | None
    search: str
    figures: tuple[Figure, ...]

    def find(self, name: str) -> Figure:
        """Return a figure by name."""
        return next(figure for figure in self.figures if figure.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "target": self.target,
            "people": self.people,
            "search": self.search,
            "threshold": self.threshold.to_json(),
            "figures": [figure.to_json() for figure in self.figures],
        }


def collect_half(half: Half) -> CrossExceedances:
    """Return the greatest non-mated scores of a half: enough for FMRs up to 0.02."""
    cells = len(half.templates) * half.enrolled.size
    return half.collect(max(_LEAST_DEPTH, int(_DEPTH_SHARE * cells)))


def freeze_fmr(
    sample: CrossExceedances, target: float, settings: Doc2SurvSettings
) -> RateThreshold:
    """Return the threshold whose FMR over tracks and other people's documents is the target."""
    asked = SampleSettings(
        FMR,
        target,
        "transactions",
        "auto",
        1.0,
        settings.resamples,
        settings.confidence,
        settings.seed,
    )
    return calibrate_sample(sample, asked, None, None)


def freeze_fpir(
    half: Half,
    scores: TrackScores,
    probes: NDArray[np.bool_],
    people: tuple[int, int],
    target: float,
    settings: Doc2SurvSettings,
) -> RateThreshold:
    """Return the threshold whose FPIR is the target in a gallery of the test half's size.

    Args:
        half: the development half.
        scores: its tracks' in the gallery that was searched.
        probes: bool (t,), which of them are non-mated searches.
        people: N of that gallery, and N of the one that the threshold is for.
        target: FPIR.
        settings: of the evaluation.
    """
    return calibrate_fpir(
        scores.best[probes],
        half.subject[probes],
        people[0],
        target,
        planned_people=people[1],
        weighting="transactions",
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def choose_probes(halves: dict[str, Half], settings: Doc2SurvSettings) -> str:
    """Return whose searches are non-mated: "unknown" people or "left-out" ones."""
    if settings.fpir_probes != "auto":
        return settings.fpir_probes
    least = min(np.unique(half.subject[half.unknown]).size for half in halves.values())
    # A tail is fitted to the better half of the searches at most.
    needed = max(LEAST_TAIL_ERRORS / max(settings.fpirs, default=1.0), 2 * LEAST_ABOVE)
    return "unknown" if least >= needed else "left-out"


def find_probes(half: Half, kind: str) -> NDArray[np.bool_]:
    """Return which tracks are non-mated searches, bool (t,).

    A track of somebody whose documents all failed is none: who it shows was meant to be enrolled.
    """
    return half.unknown if kind == "unknown" else ~half.lost


def miss(scores: TrackScores, threshold: float, rank: int) -> NDArray[np.bool_]:
    """Return which tracks do not find their own person: too low a score, or too low a rank."""
    missed: NDArray[np.bool_] = ~((scores.own >= threshold) & (scores.ahead < rank))
    return missed


def measure_fmr_point(
    half: Half,
    scores: TrackScores,
    sample: CrossExceedances,
    threshold: RateThreshold,
    draws: Draws,
) -> Point:
    """Return FNMR, GFNMR and FMR of the test half at a frozen threshold."""
    at = threshold.threshold
    if at is None:
        figures = tuple(refuse(name, threshold.reason) for name in ("fnmr", "gfnmr", "fmr"))
        return Point(FMR, threshold.target, threshold, None, EXACT, figures)
    mated, made = half.mated, half.mated & half.acquired
    missed = scores.own < at
    if not sample.covers(at):
        sample = half.collect(2**62, at)
    figures = (
        measure_share("fnmr", missed[made], half.subject[made], draws),
        measure_share("gfnmr", missed[mated], half.subject[mated], draws),
        measure_pairs("fmr", sample, at, draws),
    )
    return Point(FMR, threshold.target, threshold, None, EXACT, figures)


def measure_fpir_point(
    half: Half,
    scores: TrackScores,
    probes: NDArray[np.bool_],
    threshold: RateThreshold,
    people: int,
    rank: int,
    draws: Draws,
    search: str = EXACT,
) -> Point:
    """Return FNIR, TPIR and FPIR of the test half at a frozen threshold.

    `fnir_with_fte` counts the tracks of people whose documents all failed as missed too.
    """
    at = threshold.threshold
    names = ("fnir", "tpir", "fpir", "fnir_with_fte")
    if at is None:
        figures = tuple(refuse(name, threshold.reason) for name in names)
        return Point(FPIR, threshold.target, threshold, people, search, figures)
    missed, meant = miss(scores, at, rank), half.mated | half.lost
    raised = scores.best[probes] >= at
    fnir = measure_share("fnir", missed[half.mated], half.subject[half.mated], draws)
    figures = (
        fnir,
        mirror(fnir, "tpir"),
        measure_share("fpir", raised, half.subject[probes], draws),
        measure_share("fnir_with_fte", missed[meant], half.subject[meant], draws),
    )
    return Point(FPIR, threshold.target, threshold, people, search, figures)


def measure_failures(half: Half, draws: Draws) -> tuple[Figure, Figure, Figure]:
    """Return FTE over people, FTA over mated tracks and FTA over all tracks."""
    people: Labels = np.concatenate([half.enrolled, half.failed])
    without = np.isin(people, half.failed)
    return (
        measure_share("fte", without, people, draws),
        measure_share("fta", ~half.acquired[half.mated], half.subject[half.mated], draws),
        measure_share("fta_all", ~half.acquired, half.subject, draws),
    )
