"""Thresholds for a stated error rate at this gallery's size, from faces of people not in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_embeddings
from facerec.gallery.schema import Threshold
from facerec.gallery.searching import View, state_fpir
from facerec.metrics.threshold_results import RateThreshold
from facerec.metrics.thresholds import calibrate_fmr, calibrate_fpir

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery

GROWTH = 0.1
"""Share by which a gallery may grow before its calibration has to be looked at again."""

_PROBES_AT_ONCE = 1024
_FAR_ABOVE = 100.0
"""No normalised score comes near it."""
_SUSPICIOUS = 0.6
_SHOWN = 10


@dataclass(frozen=True)
class Calibration:
    """A threshold, or why there is none; see `facerec.metrics.threshold_results.RateThreshold`.

    Attributes:
        result: what the scores support.
        normalisation: of the scores.
        suspects: impostors who are so like somebody in the gallery that they may be in it: their
            subject, the best score. If they are, the threshold comes out too high.
    """

    result: RateThreshold
    normalisation: str = "none"
    suspects: tuple[tuple[str, float], ...] = ()

    @property
    def supported(self) -> bool:
        """Whether there is a threshold."""
        return self.result.supported

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        suspects = [[subject, round(score, 6)] for subject, score in self.suspects]
        return {
            **self.result.to_json(),
            "supported": self.supported,
            "normalisation": self.normalisation,
            "suspects": suspects,
        }


def calibrate(
    gallery: Gallery,
    vectors: NDArray[np.float32],
    subjects: ArrayLike,
    *,
    fpir: float | None = None,
    fmr: float | None = None,
    people: int | None = None,
    seed: int = 0,
    purpose: str = "",
) -> list[Calibration]:
    """Find thresholds, store the supported ones and log them; see `Gallery.calibrate`."""
    if fpir is None and fmr is None:
        raise InputError("nothing to calibrate; give a rate with fpir or fmr")
    check_embeddings(vectors, "impostors", gallery.model.dim)
    names = np.asarray(subjects)
    if names.shape != (len(vectors),):
        raise InputError(f"subjects must have shape ({len(vectors)},), got {names.shape}")
    found = []
    if fpir is not None:
        found.append(_calibrate_search(gallery, vectors, names, fpir, people, seed))
    if fmr is not None:
        found.append(Calibration(calibrate_fmr(vectors, names, fmr, seed=seed)))
    for calibration in found:
        if calibration.result.threshold is not None:
            gallery.store.add_threshold(
                calibration.result.threshold,
                calibration.result.kind,
                calibration.normalisation,
                _describe(gallery, calibration),
                gallery.operator,
                purpose,
            )
    return found


def explain_growth(gallery: Gallery) -> str:
    """Return what is wrong with the threshold for the gallery as it is now, "" when nothing is."""
    view = gallery.searcher.look()
    threshold = view.threshold
    if threshold is None or threshold.kind != "fpir":
        return (
            "the threshold was never calibrated on this gallery: what share of strangers it lets "
            "through is not known; run `facerec-gallery calibrate`"
        )
    said = threshold.details
    if said["model_sha256"] != gallery.model.hash:
        return "the threshold was calibrated for another model; run `facerec-gallery calibrate`"
    if view.people > (1 + GROWTH) * said["people"]:
        now = state_fpir(threshold, view.people)
        return (
            f"the gallery has grown from {said['people']} to {view.people} people since its "
            f"threshold was calibrated: FPIR is now about {now:.2%}, not {said['rate']:.2%}; run "
            "`facerec-gallery calibrate`"
        )
    return ""


def _calibrate_search(
    gallery: Gallery,
    vectors: NDArray[np.float32],
    subjects: NDArray[Any],
    fpir: float,
    people: int | None,
    seed: int,
) -> Calibration:
    view = gallery.searcher.look()
    if view.people < 1:
        raise InputError(
            "the gallery has nobody to be taken for; enrol people first, the FPIR is one of this "
            "gallery at its size"
        )
    best = find_best_scores(view, vectors)
    plain = view.normaliser is None
    result = calibrate_fpir(
        best,
        subjects,
        view.people,
        fpir,
        planned_people=people,
        end=1.0 if plain else _FAR_ABOVE,
        seed=seed,
    )
    kind = "none" if view.normaliser is None else view.normaliser.kind
    suspects = _find_suspects(best, subjects) if plain else ()
    return Calibration(result, kind, suspects)


def find_best_scores(view: View, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each probe's best score with anybody but known strangers, exactly; -inf = nobody."""
    best = np.full(len(vectors), -np.inf, np.float32)
    listed = None
    if view.strangers:
        listed = np.array(sorted(view.names.keys() - view.strangers), np.int64)
    for start in range(0, len(vectors), _PROBES_AT_ONCE):
        part = slice(start, start + _PROBES_AT_ONCE)
        best[part] = view.rank(vectors[part], 1, exact=True, people=listed).scores[:, 0]
    return best


def _find_suspects(
    best: NDArray[np.float32], subjects: NDArray[Any]
) -> tuple[tuple[str, float], ...]:
    worst: dict[str, float] = {}
    for row in np.flatnonzero(best >= _SUSPICIOUS).tolist():
        name = str(subjects[row])
        worst[name] = max(worst.get(name, -1.0), float(best[row]))
    ordered = sorted(worst.items(), key=lambda one: (-one[1], one[0]))
    return tuple(ordered[:_SHOWN])


def _describe(gallery: Gallery, calibration: Calibration) -> dict[str, Any]:
    """Return what is stored beside a threshold."""
    result = calibration.result
    said = result.to_json()
    kept = (
        "method",
        "reason",
        "weighting",
        "subjects",
        "comparisons",
        "expected_errors",
        "rate_interval",
        "threshold_interval",
        "searched_people",
        "seed",
    )
    return {
        "rate": result.target,
        "people": result.people,
        "model_sha256": gallery.model.hash,
        **{key: said[key] for key in kept},
    }


def describe_threshold(threshold: Threshold) -> str:
    """Return a threshold and where it comes from, in a line."""
    if threshold.kind == "given":
        return f"{threshold.value:g}, given"
    said = threshold.details
    at = f" at {said['people']} people" if said["people"] else ""
    return (
        f"{threshold.value:.4f} for {threshold.kind.upper()} {said['rate']:g}{at}, "
        f"{said['method']}, {threshold.created[:10]}"
    )
