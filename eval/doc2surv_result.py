"""What an evaluation of documents against surveillance gives, and its common form for reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_checks import Overlap
from eval.doc2surv_points import EXACT, FMR, Point
from eval.doc2surv_rates import Figure
from eval.doc2surv_settings import Doc2SurvSettings
from eval.doc2surv_slices import SlicedFigure
from eval.evaluation import Evaluation, Failure, SubjectCounts, WorstError
from eval.evaluation_curves import Det, Growth, Histogram
from eval.evaluation_estimates import Estimate, Headline, Slice, build_bar, build_headline
from eval.protocol_results import to_plain

_LABELS = {
    "fnmr": "FNMR",
    "gfnmr": "GFNMR",
    "fmr": "FMR realised",
    "fnir": "FNIR",
    "tpir": "TPIR",
    "fpir": "FPIR realised",
    "fnir_with_fte": "FNIR with failures to enrol",
    "fte": "FTE (people)",
    "fta": "FTA (tracks of enrolled people)",
    "fta_all": "FTA (all tracks)",
}
_BETTER = {"tpir": "higher", "fmr": "neither", "fpir": "neither"}


@dataclass(frozen=True)
class GalleryResult:
    """The searches in a gallery of one size.

    Attributes:
        people: N of the test half's gallery.
        distractors: how many of them fill it up.
        shared: how many distractors the development half's gallery has in common with it.
        reason: "" where it was measured, else why not.
        points: by exact search.
        indexed: by the index, at the same thresholds.
        deltas: per index point: FNIR (and FPIR) by the index minus that by exact search.
    """

    people: int
    distractors: int
    shared: int
    reason: str = ""
    points: tuple[Point, ...] = ()
    indexed: tuple[Point, ...] = ()
    deltas: tuple[Figure, ...] = ()

    @property
    def measured(self) -> bool:
        """Return whether it was searched."""
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "people": self.people,
            "measured": self.measured,
            "reason": self.reason,
            "distractors": self.distractors,
            "distractors_shared_with_dev": self.shared,
            "points": [point.to_json() for point in self.points],
            "indexed": [point.to_json() for point in self.indexed],
            "deltas": [figure.to_json() for figure in self.deltas],
        }


@dataclass(frozen=True)
class Doc2SurvResult:
    """Everything that was found.

    Attributes:
        title: of the report.
        model: name of the recogniser, "" where not known.
        protocol: in words.
        simulated: whether the tracks are simulated.
        settings: of the evaluation.
        fpir_probes: "unknown" or "left-out".
        failures: FTE over people, FTA over tracks of enrolled people, FTA over all.
        verification: 1:1 at each target FMR.
        galleries: the test half's own first, then those filled up with distractors.
        slices: misses by part, at the points of 1:1 and of the own gallery.
        failed: what gave no embedding.
        worst: the lowest mated and the highest non-mated scores of the test half.
        overlaps: pictures on both sides that were allowed.
        counts: people, documents, tracks, comparisons by half.
        dets: trade-offs of the test half.
        histogram: of the test half's scores.
        people: (s,), names of the test half's people, in the order of the figures' counts.
        provenance: versions, seed, settings, hashes.
    """

    title: str
    model: str
    protocol: tuple[str, ...]
    simulated: bool
    settings: Doc2SurvSettings
    fpir_probes: str
    failures: tuple[Figure, ...]
    verification: tuple[Point, ...]
    galleries: tuple[GalleryResult, ...]
    slices: tuple[SlicedFigure, ...]
    failed: tuple[Failure, ...]
    worst: tuple[WorstError, ...]
    overlaps: tuple[Overlap, ...]
    counts: dict[str, int]
    dets: tuple[Det, ...]
    histogram: Histogram
    people: NDArray[np.str_] = field(repr=False, compare=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_gallery(self) -> GalleryResult:
        """The test half's own gallery, without distractors."""
        return self.galleries[0]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "task": "doc2surv",
            "title": self.title,
            "model": self.model,
            "simulated": self.simulated,
            "protocol": list(self.protocol),
            "settings": self.settings.to_json(),
            "fpir_probes": self.fpir_probes,
            "failures": [figure.to_json() for figure in self.failures],
            "verification": [point.to_json() for point in self.verification],
            "identification": [gallery.to_json() for gallery in self.galleries],
            "slices": [one.to_json() for one in self.slices],
            "failed": [asdict(one) for one in self.failed],
            "worst": [asdict(one) for one in self.worst],
            "overlaps": [one.to_json() for one in self.overlaps],
            "counts": dict(self.counts),
            "dets": to_plain([asdict(one) for one in self.dets]),
            "histogram": to_plain(asdict(self.histogram)),
            "provenance": to_plain(self.provenance),
        }

    def to_evaluation(self) -> Evaluation:
        """Return the form that reports and `facerec-eval compare` take."""
        figures = list(self._iter_headline())
        return Evaluation(
            title=self.title,
            protocol=self.protocol,
            simulated=self.simulated,
            headline=tuple(_headline(name, figure) for name, figure in figures),
            model=self.model,
            task="doc2surv",
            det=self.dets,
            histograms=(self.histogram,),
            growth=tuple(self._iter_growth()),
            slices=tuple(_slice(one) for one in self.slices),
            failures=self.failed,
            worst=self.worst,
            counts=self.counts,
            provenance=self.provenance,
            subjects=tuple(
                self._count(name, figure)
                for name, figure in figures
                if figure.by_person is not None
            ),
        )

    def _iter_headline(self) -> Iterator[tuple[str, Figure]]:
        for point in (*self.verification, *self.own_gallery.points):
            for figure in point.figures:
                yield name_figure(figure.name, point), figure
        for figure in self.failures:
            yield _LABELS[figure.name], figure

    def _iter_growth(self) -> Iterator[Growth]:
        for target in self.settings.fpirs:
            for search in (EXACT, self.settings.index):
                if search is not None:
                    yield self._grow(target, search)

    def _grow(self, target: float, search: str) -> Growth:
        people: list[int] = []
        points: list[Estimate] = []
        for gallery in sorted(self.galleries, key=lambda one: one.people):
            if people and gallery.people == people[-1]:
                continue
            found = gallery.points if search == EXACT else gallery.indexed
            point = next((one for one in found if one.target == target), None)
            name = f"FNIR, N = {gallery.people:,}"
            people.append(gallery.people)
            if point is None:
                reason = gallery.reason or "not measured"
                points.append(Estimate(name, None, reason=reason))
            else:
                points.append(_estimate(name, point.find("fnir")))
        label = "exact search" if search == EXACT else f"index {search}"
        return Growth(f"FNIR at FPIR {target:g}, {label}", tuple(people), tuple(points))

    def _count(self, name: str, figure: Figure) -> SubjectCounts:
        assert figure.by_person is not None
        rows = figure.by_person
        kept = np.flatnonzero(rows[:, 1])
        names = [str(one).replace("\0", "unnamed ") for one in self.people[kept].tolist()]
        return SubjectCounts(
            name, tuple(names), tuple(rows[kept, 0].tolist()), tuple(rows[kept, 1].tolist())
        )


def name_figure(name: str, point: Point) -> str:
    """Return what a report calls a figure of an operating point."""
    kind = "FMR" if point.kind == FMR else "FPIR"
    return f"{_LABELS[name]} at {kind} {point.target:g}"


def _headline(name: str, figure: Figure) -> Headline:
    return build_headline(
        name,
        figure.value,
        figure.interval,
        reason=figure.reason,
        better=_BETTER.get(figure.name, "lower"),
    )


def _estimate(name: str, figure: Figure) -> Estimate:
    if figure.value is None or figure.interval is None:
        return Estimate(name, None, reason=figure.reason)
    return Estimate(name, figure.value, figure.interval.low, figure.interval.high)


def _slice(sliced: SlicedFigure) -> Slice:
    kind = "FMR" if sliced.kind == FMR else "FPIR"
    figure = "GFNMR" if sliced.kind == FMR else "FNIR"
    title = f"{figure} at {kind} {sliced.target:g}"
    bars = tuple(
        build_bar(part, one.value, one.interval, reason=one.reason, count=one.trials)
        for part, one in sliced.parts
    )
    return Slice(f"{sliced.dimension}, {title}", title, bars)
