"""TinyFace (Cheng, Zhu and Gong 2018): closed-set search of native low-resolution faces.

Each gallery picture is a row of the list. Rank k: the share of probes with a right row among the k
nearest; average precision as in person re-identification (`facerec.metrics.ranking`). All 3,728
probes are of the 2,569 people in the gallery, beside 153,428 distractors: there is no non-mated
probe, so an FPIR cannot be measured and TPIR at an FPIR is not supported.

Right rows without an embedding stay in the average precision as never found.

Layout of `Testing_Set/`: `Probe/`, `Gallery_Match/`, `Gallery_Distractor/` with pictures;
`probe_img_ID_pairs.mat` (`probe_set`, `probe_ids`) and `gallery_match_img_ID_pairs.mat`
(`gallery_set`, `gallery_ids`), in that folder or in `Face_Identification_Evaluation/` beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.protocol_files import read_mat_names
from eval.protocol_results import (
    FAILURE_RULE,
    Rate,
    check_faces,
    check_row,
    iter_draws,
    keep_interval,
    to_plain,
    widen_certain,
)
from eval.protocol_search import Search, search_gallery
from eval.protocol_search_rates import measure_ranks
from facerec.checks import InputError
from facerec.metrics.bootstrap import percentile_interval
from facerec.metrics.ranking import cmc_map

RANKS = (1, 5, 20)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
# Scores held at once.
_MOST_SCORES = 16 * 2**20


@dataclass(frozen=True)
class TinyFaceLists:
    """Names and people of the three parts, relative to `images`.

    Attributes:
        probes: pictures.
        probe_people: int64.
        gallery: pictures.
        gallery_people: int64.
        distractors: pictures of people who are not sought.
        images: the folder Testing_Set.
    """

    probes: list[str]
    probe_people: NDArray[np.int64]
    gallery: list[str]
    gallery_people: NDArray[np.int64]
    distractors: list[str]
    images: Path


@dataclass(frozen=True)
class ClosedSetResult:
    """Closed-set figures.

    Attributes:
        search: what was found; its rows are ranked one by one.
        distractors: gallery rows of nobody who is sought, failures included.
        ranks: share of probes with a right row among the k nearest.
        mean_ap: mean average precision.
        tpir: why there is no TPIR at an FPIR.
    """

    search: Search
    distractors: int
    ranks: tuple[Rate, ...]
    mean_ap: Rate
    tpir: Rate

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "protocol": "TinyFace, closed set",
            "failure_rule": FAILURE_RULE,
            "search": self.search.to_json(),
            "distractors": self.distractors,
            "ranks": to_plain(self.ranks),
            "mean_ap": self.mean_ap.to_json(),
            "tpir_at_fpir": self.tpir.to_json(),
        }


def identify_closed_set(
    probes: NDArray[Any],
    probe_people: ArrayLike,
    gallery: NDArray[Any],
    gallery_people: ArrayLike,
    distractors: NDArray[Any] | None = None,
    *,
    probe_norms: ArrayLike | None = None,
    gallery_norms: ArrayLike | None = None,
    distractor_norms: ArrayLike | None = None,
    ranks: Sequence[int] = RANKS,
    resamples: int = 1000,
    seed: int = 0,
) -> ClosedSetResult:
    """Return ranks and mean average precision of probes whose people are all in the gallery.

    Args:
        probes: float (p, d), unit norm; zero is a failure to acquire.
        probe_people: (p,), whole numbers or text.
        gallery: float (n, d), rows of the people sought; zero is a failure to enrol.
        gallery_people: (n,), of the same kind.
        distractors: float (k, d), rows of nobody sought, behind the gallery; None = none.
        probe_norms: (p,), raw norms; 0 is a failure.
        gallery_norms: (n,).
        distractor_norms: (k,).
        ranks: k, each at least 1.
        resamples: of the probes' people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: as `search_gallery`, or a probe of somebody who is not in the gallery.
    """
    sought, acquired = check_faces(probes, probe_norms, "probe embeddings")
    rows, enrolled = check_faces(gallery, gallery_norms, "gallery embeddings")
    whose = check_row(probe_people, "probe_people", len(sought)).astype(np.str_)
    owners = check_row(gallery_people, "gallery_people", len(rows)).astype(np.str_)
    lost = np.setdiff1d(whose, owners)
    if lost.size:
        raise InputError(
            f"{lost.size} people of the probes are not in the gallery (first: {lost[0]}); a closed "
            "set has none, take an open-set protocol"
        )
    people = np.unique(owners[enrolled]).size
    failed_people = np.unique(owners).size - people
    count = 0
    if distractors is not None and len(distractors):
        more, found = check_faces(distractors, distractor_norms, "distractor embeddings")
        count = len(more)
        rows, enrolled = np.concatenate([rows, more]), np.concatenate([enrolled, found])
        # No name of a person can be like it: names are stripped.
        nobody = np.array([" distractor"] * count, np.str_)
        owners = np.concatenate([owners, nobody])
    search = search_gallery(sought, whose, rows, owners, unit="row")
    # N counts the people sought, not the distractors, of whom nobody knows who they are.
    search = replace(search, people=people, failed_people=failed_people)
    precisions = _average_precisions(sought, acquired, whose, rows[enrolled], owners, enrolled)
    reason = "not supported: a closed set has no probe of a stranger"
    return ClosedSetResult(
        search,
        count,
        tuple(measure_ranks([search], ranks, resamples=resamples, seed=seed)),
        _mean_precision(precisions, whose, resamples, seed),
        Rate("tpir", None, reason=reason),
    )


def read_tinyface(root: Path) -> TinyFaceLists:
    """Return the names and people of the test set.

    Args:
        root: the folder Testing_Set or the one above it.

    Raises:
        InputError: a file or folder is missing or not as described above.
    """
    images = root / "Testing_Set" if (root / "Testing_Set").is_dir() else root
    found = []
    for part, folder, name in (
        ("probe", "Probe", "probe_img_ID_pairs.mat"),
        ("gallery", "Gallery_Match", "gallery_match_img_ID_pairs.mat"),
    ):
        places = [images / name, images.parent / "Face_Identification_Evaluation" / name]
        path = next((place for place in places if place.is_file()), places[0])
        names, people = read_mat_names(path, f"{part}_set", f"{part}_ids")
        found.append(([f"{folder}/{name}" for name in names], people))
    others = images / "Gallery_Distractor"
    if not others.is_dir():
        raise InputError(f"{others} must be the folder of distractors, but is no folder")
    distractors = sorted(
        f"Gallery_Distractor/{entry.name}"
        for entry in others.iterdir()
        if entry.suffix.lower() in _SUFFIXES
    )
    return TinyFaceLists(*found[0], *found[1], distractors, images)


def _average_precisions(
    probes: NDArray[np.float32],
    acquired: NDArray[np.bool_],
    people: NDArray[np.str_],
    rows: NDArray[np.float32],
    owners: NDArray[np.str_],
    enrolled: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the average precision of each probe, float64 (p,); 0 for one that found nothing."""
    names, codes = np.unique(owners, return_inverse=True)
    mine = np.searchsorted(names, people)
    every = np.bincount(codes, minlength=names.size)
    there = np.bincount(codes[enrolled], minlength=names.size)
    precisions = np.zeros(len(probes))
    todo = np.flatnonzero(acquired & (there[mine] > 0))
    step = max(_MOST_SCORES // max(len(rows), 1), 1)
    columns = rows.astype(np.float64).T
    for start in range(0, todo.size, step):
        part = todo[start : start + step]
        scores = (probes[part].astype(np.float64) @ columns).astype(np.float32)
        found = cmc_map(-scores, mine[part], codes[enrolled]).average_precisions
        # Right rows that failed to enrol are found at no rank: precision 0.
        precisions[part] = found * there[mine[part]] / every[mine[part]]
    return precisions


def _mean_precision(
    precisions: NDArray[np.float64], people: NDArray[np.str_], resamples: int, seed: int
) -> Rate:
    interval = None
    if resamples:
        _, codes = np.unique(people, return_inverse=True)
        means = []
        for times in iter_draws(int(codes.max()) + 1, resamples, seed):
            weights = times[codes]
            means.append(float(weights @ precisions / weights.sum()))
        interval = keep_interval(percentile_interval(means))
    mean = Rate("mean_ap", float(precisions.mean()), trials=precisions.size, interval=interval)
    return widen_certain(mean, people)
