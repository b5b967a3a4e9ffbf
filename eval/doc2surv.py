"""Documents against surveillance tracks: thresholds frozen on one half, figures of the other.

The protocol of GALLERY section 3 over ISO/IEC 19795-1:2021. People are cut into a development and a
test half. The track is the transaction. Mated: each track of an enrolled person against that
person's own document. Non-mated, 1:1: each track against all other people's documents, of its own
group where groups are given. Non-mated, 1:N: tracks of people without a document. Thresholds come
from the development half alone (`facerec.metrics.thresholds`). A document or track without an
embedding stays in every denominator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_checks import find_overlaps, refuse_overlaps
from eval.doc2surv_data import DEV, HALVES, TEST, DocumentSet, Split, TrackSet, split_halves
from eval.doc2surv_distractors import Distractors, grow_gallery
from eval.doc2surv_index import check_rung, search_index
from eval.doc2surv_points import (
    Point,
    choose_probes,
    collect_half,
    find_probes,
    freeze_fmr,
    freeze_fpir,
    measure_failures,
    measure_fmr_point,
    measure_fpir_point,
)
from eval.doc2surv_rates import Draws, Figure, draw, subtract
from eval.doc2surv_result import Doc2SurvResult, GalleryResult
from eval.doc2surv_scores import Half, TrackScores
from eval.doc2surv_settings import Doc2SurvSettings
from eval.doc2surv_slices import cut_parts, slice_points
from eval.doc2surv_words import describe_protocol
from eval.evaluation import Failure, WorstError
from eval.evaluation_curves import Det, Histogram, build_det
from facerec.checks import InputError
from facerec.metrics.identification import SearchScores
from facerec.metrics.roc import trace_roc
from facerec.provenance import provenance

_WORST = 20
_BINS = 128


def evaluate_doc2surv(
    documents: DocumentSet,
    tracks: TrackSet,
    settings: Doc2SurvSettings | None = None,
    *,
    distractors: Distractors | None = None,
    title: str = "Documents against surveillance",
    model: str = "",
    simulated: bool = False,
    notes: Sequence[str] = (),
    hashes: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Doc2SurvResult:
    """Return the figures of the test half at thresholds of the development half.

    Args:
        documents: see `eval.doc2surv_data.build_documents`.
        tracks: see `eval.doc2surv_data.build_tracks`.
        settings: targets, sizes, resamples.
        distractors: strangers' embeddings for galleries that grow.
        title: of the report.
        model: name of the recogniser.
        simulated: whether the tracks are simulated; the report then says so.
        notes: sentences added to the protocol, such as where the data came from.
        hashes: name of an input -> sha256.
        config: whatever else made the embeddings, plain JSON values.

    Raises:
        InputError: a picture on both sides, a person in both halves, a half without mated tracks,
            dimensions that differ, or what the parts refuse.
    """
    settings = settings or Doc2SurvSettings()
    if settings.index is not None:
        check_rung(settings.index)
    split = split_halves(documents, tracks, test_share=settings.test_share, seed=settings.seed)
    overlaps = find_overlaps(documents, tracks, settings.near_duplicate)
    refuse_overlaps(overlaps, settings.allow_overlap)
    run = _Run.build(documents, tracks, split, settings, distractors)
    verification = run.verify()
    galleries = run.identify()
    masks = cut_parts(documents, tracks, split, run.test, settings)
    points = [*verification, *galleries[0].points]
    slices = slice_points(run.test, run.scores[TEST], points, masks, settings.rank, run.draws)
    dets, histogram = run.draw_curves(verification)
    words = describe_protocol(settings, split, run.probes, run.halves, tracks)
    return Doc2SurvResult(
        title=title,
        model=model,
        protocol=(*words, *notes),
        simulated=simulated,
        settings=settings,
        fpir_probes=run.probes,
        failures=measure_failures(run.test, run.draws),
        verification=verification,
        galleries=galleries,
        slices=slices,
        failed=tuple(_list_failures(documents, tracks)),
        worst=tuple(run.list_worst()),
        overlaps=tuple(overlaps),
        counts=run.count(),
        dets=dets,
        histogram=histogram,
        people=run.test.people,
        provenance=provenance(
            settings.seed, {**settings.to_json(), **(config or {})}, dict(hashes or {})
        ),
    )


@dataclass(frozen=True)
class _Run:
    """Both halves with their scores, and the draws of the test half's people."""

    documents: DocumentSet
    tracks: TrackSet
    settings: Doc2SurvSettings
    distractors: Distractors | None
    halves: dict[str, Half]
    scores: dict[str, TrackScores]
    probes: str
    draws: Draws

    @classmethod
    def build(
        cls,
        documents: DocumentSet,
        tracks: TrackSet,
        split: Split,
        settings: Doc2SurvSettings,
        distractors: Distractors | None,
    ) -> _Run:
        halves = {
            name: Half(
                documents,
                tracks,
                np.flatnonzero(split.documents == name),
                np.flatnonzero(split.tracks == name),
            )
            for name in HALVES
        }
        if not halves[TEST].mated.any():
            raise InputError(
                "no track of the test half is of an enrolled person; do the people of documents "
                "and tracks bear the same names?"
            )
        probes = choose_probes(halves, settings)
        for name, half in halves.items():
            if settings.fpirs and not find_probes(half, probes).any():
                raise InputError(
                    f"FPIR needs searches of people without a document, but the {name} half has "
                    "none; give some, or take fpir_probes left-out"
                )
        draws = draw(
            halves[TEST].people.size, settings.resamples, settings.seed, settings.confidence
        )
        scores = {name: half.search() for name, half in halves.items()}
        return cls(documents, tracks, settings, distractors, halves, scores, probes, draws)

    @property
    def test(self) -> Half:
        return self.halves[TEST]

    def verify(self) -> tuple[Point, ...]:
        """Return the 1:1 points."""
        samples = {name: collect_half(half) for name, half in self.halves.items()}
        return tuple(
            measure_fmr_point(
                self.test,
                self.scores[TEST],
                samples[TEST],
                freeze_fmr(samples[DEV], target, self.settings),
                self.draws,
            )
            for target in self.settings.fmrs
        )

    def identify(self) -> tuple[GalleryResult, ...]:
        """Return the own gallery, then each size that was asked for."""
        own = int(self.test.enrolled.size)
        held = len(self.distractors) if self.distractors is not None else 0
        largest = max(half.enrolled.size for half in self.halves.values())
        least = min(half.enrolled.size for half in self.halves.values())
        sizes = [n for n in self.settings.sizes if largest <= n <= least + held]
        grown: dict[str, dict[int, TrackScores]] = {name: {} for name in HALVES}
        if self.distractors is not None and sizes:
            alike = 2.0 if self.settings.allow_overlap else self.settings.near_duplicate
            for name, half in self.halves.items():
                grown[name] = grow_gallery(
                    half, name, self.scores[name], self.distractors, sizes, alike
                )
        found = [self._search(own, self.scores, (int(self.halves[DEV].enrolled.size), own))]
        for size in self.settings.sizes:
            if size in sizes:
                found.append(
                    self._search(size, {name: grown[name][size] for name in HALVES}, (size, size))
                )
                continue
            reason = (
                f"not measured: the halves' own galleries have up to {largest} people"
                if size < largest
                else f"not measured: only {held:,} distractors beside {least} enrolled people"
            )
            found.append(GalleryResult(size, max(size - own, 0), 0, reason))
        return tuple(found)

    def _search(
        self, people: int, scores: Mapping[str, TrackScores], sizes: tuple[int, int]
    ) -> GalleryResult:
        """Return a gallery's points; `sizes` are N searched on dev and N of the threshold."""
        dev = self.halves[DEV]
        thresholds = [
            freeze_fpir(
                dev, scores[DEV], find_probes(dev, self.probes), sizes, target, self.settings
            )
            for target in self.settings.fpirs
        ]
        probes, rank = find_probes(self.test, self.probes), self.settings.rank
        points = tuple(
            measure_fpir_point(self.test, scores[TEST], probes, threshold, people, rank, self.draws)
            for threshold in thresholds
        )
        more = people - int(self.test.enrolled.size)
        taken = [people - int(half.enrolled.size) for half in self.halves.values()]
        held = len(self.distractors) if self.distractors is not None else 0
        shared = max(sum(taken) - held, 0) if more else 0
        indexed: tuple[Point, ...] = ()
        rung = self.settings.index
        if rung is not None:
            through = search_index(self.test, TEST, rung, rank, people, self.distractors)
            indexed = tuple(
                measure_fpir_point(
                    self.test, through, probes, threshold, people, rank, self.draws, rung
                )
                for threshold in thresholds
            )
        deltas = tuple(self._subtract(points, indexed))
        return GalleryResult(people, more, shared, "", points, indexed, deltas)

    def _subtract(self, points: Sequence[Point], indexed: Sequence[Point]) -> Iterator[Figure]:
        for exact, other in zip(points, indexed, strict=False):
            for name in ("fnir", "fpir"):
                first, second = other.find(name).by_person, exact.find(name).by_person
                if first is not None and second is not None:
                    label = f"{name} at fpir {exact.target:g}, {other.search} minus exact"
                    yield subtract(label, first, second, self.draws)

    def draw_curves(self, verification: Sequence[Point]) -> tuple[tuple[Det, ...], Histogram]:
        """Return the trade-offs of 1:1 and of the own gallery, and the histogram of scores."""
        test, own = self.test, self.scores[TEST]

        def read_blocks() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
            for part, scores in test.iter_scores():
                yield own.own[part][test.mated[part]], scores[test.allow(part)]

        traced = trace_roc(read_blocks, [])
        dets = [build_det("1:1", "FMR", "GFNMR", traced.curve.far, 1 - traced.curve.tar)]
        probes = find_probes(test, self.probes)
        if probes.any():
            rank = self.settings.rank
            found = np.where(own.ahead < rank, own.own, np.float32(-np.inf))[test.mated]
            people = int(test.enrolled.size)
            curve = SearchScores(people, rank, found, own.best[probes]).curve()
            name = f"1:N, N = {people:,}"
            dets.append(build_det(name, "FPIR", "FNIR", curve.fpir, curve.fnir))
        mated, non_mated, edges = traced.histogram(_BINS)
        marks = {
            f"FMR {point.target:g}": point.threshold.threshold
            for point in verification
            if point.threshold.threshold is not None
        }
        shown = Histogram(
            "tracks against documents, test half",
            tuple(edges.tolist()),
            tuple(mated.tolist()),
            tuple(non_mated.tolist()),
            marks,
        )
        return tuple(dets), shown

    def list_worst(self) -> Iterator[WorstError]:
        """Yield the lowest mated scores and the highest non-mated ones of the test half."""
        test, scores = self.test, self.scores[TEST]
        names = self._name_documents()
        mated = np.flatnonzero(test.mated & test.acquired)
        for row in mated[np.argsort(scores.own[mated], kind="stable")][:_WORST].tolist():
            track = str(self.tracks.names[test.track_rows[row]])
            yield WorstError("mated", names[test.column[row]], track, float(scores.own[row]))
        for score, row, column in scores.worst:
            track = str(self.tracks.names[test.track_rows[row]])
            yield WorstError("non-mated", names[column], track, score)

    def _name_documents(self) -> list[str]:
        """Return the name of each column's first document."""
        _, first = np.unique(self.test.document_column, return_index=True)
        return [str(self.documents.names[self.test.document_rows[i]]) for i in first.tolist()]

    def count(self) -> dict[str, int]:
        """Return how many people, documents and tracks each half has."""
        counts = {"documents": len(self.documents), "tracks": len(self.tracks)}
        for name, half in self.halves.items():
            seen = np.unique(half.subject[half.mated])
            counts |= {
                f"{name}: enrolled people (N)": int(half.enrolled.size),
                f"{name}: people not enrolled (FTE)": int(half.failed.size),
                f"{name}: enrolled people without a track": int(half.enrolled.size - seen.size),
                f"{name}: tracks": len(half.subject),
                f"{name}: mated tracks": int(half.mated.sum()),
                f"{name}: tracks of people without a document": int(half.unknown.sum()),
                f"{name}: tracks of people not enrolled": int(half.lost.sum()),
                f"{name}: tracks not acquired (FTA)": int((~half.acquired).sum()),
            }
        return counts


def _list_failures(documents: DocumentSet, tracks: TrackSet) -> Iterator[Failure]:
    for kind, rows in (("FTE", documents), ("FTA", tracks)):
        for name, reason in zip(rows.names.tolist(), rows.reasons.tolist(), strict=True):
            if reason:
                yield Failure(str(name), str(reason), kind)
