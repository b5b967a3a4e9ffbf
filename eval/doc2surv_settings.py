"""How documents are held against surveillance: targets, sizes, resamples."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

from eval.doc2surv_checks import NEAR_DUPLICATE
from facerec.checks import InputError, check_one_of, check_range, check_whole

FPIR_PROBES = ("auto", "unknown", "left-out")
_MOST_SIZE = 10**8
_EDGES = ("size_edges_px", "year_edges")


@dataclass(frozen=True)
class Doc2SurvSettings:
    """Settings of an evaluation.

    Attributes:
        fmrs: target FMRs of the 1:1 thresholds.
        fpirs: target FPIRs of the 1:N thresholds.
        rank: R; who is not among so many candidates is not found.
        sizes: galleries that distractors fill up, people.
        index: rung of the index ladder to hold against exact search, None for none.
        fpir_probes: "unknown": tracks of people without a document; "left-out": every track,
            searched without the own document; "auto": unknown people where each half has enough of
            them for the greatest target (3 / target, and 80), else left-out.
        test_share: of people, where the halves are drawn.
        resamples: of people, at least 100.
        confidence: nominal coverage of intervals.
        seed: of halves, distractors and resamples.
        allow_overlap: go on though a picture is on both sides.
        near_duplicate: cosine from which on two pictures are one.
        size_edges_px: rising; tracks are sliced at them by median face width.
        year_edges: rising; likewise by years between document and video.
        quality_parts: equal parts by quality, 10 for deciles.

    Raises:
        InputError: a value out of its limits.
    """

    fmrs: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    fpirs: tuple[float, ...] = (0.01, 0.003)
    rank: int = 20
    sizes: tuple[int, ...] = (100, 1000, 10_000, 100_000, 1_000_000)
    index: str | None = None
    fpir_probes: str = "auto"
    test_share: float = 0.5
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    allow_overlap: bool = False
    near_duplicate: float = NEAR_DUPLICATE
    size_edges_px: tuple[float, ...] = (16, 24, 40, 80)
    year_edges: tuple[float, ...] = (1, 2, 5, 10, 20)
    quality_parts: int = 10

    def __post_init__(self) -> None:
        if not self.fmrs and not self.fpirs:
            raise InputError("at least one target FMR or FPIR is needed, got none")
        for name in ("fmrs", "fpirs"):
            for target in getattr(self, name):
                check_range(target, f"target in {name}", 1e-12, 0.5)
            _check_rising(sorted(getattr(self, name)), name)
        for size in self.sizes:
            check_whole(size, "gallery size", 1, _MOST_SIZE)
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))
        check_whole(self.rank, "rank", 1, 10_000)
        check_one_of(self.fpir_probes, "fpir_probes", FPIR_PROBES)
        check_whole(self.resamples, "resamples", 100, 10**6)
        check_range(self.confidence, "confidence", 0.5, 0.9999)
        check_whole(self.seed, "seed", 0, 2**32 - 1)
        check_whole(self.quality_parts, "quality_parts", 1, 100)
        for name in _EDGES:
            _check_rising(getattr(self, name), name)

    def to_json(self) -> dict[str, Any]:
        """Return every setting as JSON takes it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def _check_rising(values: Any, name: str) -> None:
    pairs = itertools.pairwise(values)
    if not all(math.isfinite(value) for value in values) or any(a >= b for a, b in pairs):
        raise InputError(f"{name} must be finite and differ, rising, got {list(values)}")
