"""Open-set search of one gallery: TPIR at FPIR, its area, closed-set ranks, failures counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.media import pool_frames
from eval.protocol_results import FAILURE_RULE, Draws, Rate, check_row, to_plain
from eval.protocol_search import Search, search_gallery
from eval.protocol_search_rates import measure_ranks, measure_tpir
from facerec.checks import check_one_of
from facerec.metrics.identification import SearchScores

GALLERY_RULES = ("mean", "best")


@dataclass(frozen=True)
class OpenSetResult:
    """Open-set figures of one gallery.

    Attributes:
        protocol: its name.
        search: what was found.
        rank: R, the length of the candidate list; None = all.
        gallery_rule: "mean": a person is the mean of their pictures; "best": their best picture.
        tpir: TPIR at rank R and each target FPIR.
        area: under TPIR over FPIR, None without mated or non-mated probes.
        ranks: closed-set identification over the mated probes.
    """

    protocol: str
    search: Search
    rank: int | None
    gallery_rule: str
    tpir: tuple[Rate, ...]
    area: float | None
    ranks: tuple[Rate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "protocol": self.protocol,
            "failure_rule": FAILURE_RULE,
            "search": self.search.to_json(),
            "candidate_list": self.rank,
            "gallery_rule": self.gallery_rule,
            "tpir_at_fpir": to_plain(self.tpir),
            "area_under_tpir_over_fpir": self.area,
            "ranks": to_plain(self.ranks),
        }


def identify_open_set(
    probes: NDArray[Any],
    probe_people: ArrayLike,
    gallery: NDArray[Any],
    gallery_people: ArrayLike,
    *,
    probe_norms: ArrayLike | None = None,
    gallery_norms: ArrayLike | None = None,
    gallery_rule: str = "best",
    rank: int | None = None,
    fpirs: Sequence[float] = (0.1, 0.01, 0.003),
    ranks: Sequence[int] = (1, 5, 20),
    resamples: int = 1000,
    seed: int = 0,
    protocol: str = "open-set 1:N",
) -> OpenSetResult:
    """Return TPIR at a rank and each FPIR, the area under it, and closed-set ranks.

    A probe is mated when its person is in the gallery.

    Args:
        probes: float (p, d), unit norm; zero is a failure to acquire.
        probe_people: (p,), whole numbers or text.
        gallery: float (n, d), likewise; zero is a failure to enrol.
        gallery_people: (n,), of the same kind; a person may have several rows.
        probe_norms: (p,), raw norms; 0 is a failure.
        gallery_norms: (n,), likewise.
        gallery_rule: "mean": a person's unit embeddings summed, brought to unit norm; "best": their
            best row.
        rank: R, the length of the candidate list, None = all.
        fpirs: targets in (0, 1].
        ranks: of closed-set identification.
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.
        protocol: the result's name.

    Raises:
        InputError: as `search_gallery`, or an unknown gallery rule.
    """
    check_one_of(gallery_rule, "gallery_rule", GALLERY_RULES)
    rows, owners, norms = np.asarray(gallery), np.asarray(gallery_people), gallery_norms
    if gallery_rule == "mean":
        pooled = pool_frames(rows, np.ones(len(rows)) if norms is None else norms, owners)
        # People in the order of their first rows, as positions decide between equal scores.
        first = np.unique(check_row(owners, "gallery_people", len(rows)), return_index=True)[1]
        order = np.argsort(first, kind="stable")
        rows, owners, norms = pooled.vectors[order], pooled.ids[order], None
    search = search_gallery(
        probes, probe_people, rows, owners, probe_norms=probe_norms, gallery_norms=norms
    )
    draws: Draws = {"resamples": resamples, "seed": seed}
    return OpenSetResult(
        protocol,
        search,
        rank,
        gallery_rule,
        tuple(rates[0] for rates in measure_tpir([search], fpirs, rank, **draws)),
        area_under_curve(search.scores(rank)),
        tuple(measure_ranks([search], ranks, **draws)),
    )


def area_under_curve(scores: SearchScores) -> float | None:
    """Return the area under TPIR over FPIR in [0, 1]; None without mated or non-mated probes.

    The points are joined by straight lines; where failures end the curve before FPIR 1, it goes on
    level.
    """
    if not scores.own.size or not scores.best.size:
        return None
    curve = scores.curve()
    fpir = np.append(curve.fpir, 1.0)
    tpir = np.append(1 - curve.fnir, 1 - curve.fnir[-1])
    return float(np.trapezoid(tpir, fpir))
