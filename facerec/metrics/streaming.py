"""One-to-one figures of more comparisons than memory holds.

Mated scores are few and all kept. Of the non-mated ones the top slice is kept, which makes every
TAR exact up to the greatest target FAR, and a histogram, which draws the curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.metrics.verification import (
    OperatingPoint,
    RocCurve,
    count_allowed,
    eer_of_curve,
    points_from_top,
    top_slice,
)

# Cosines lie in [-1, 1]: bins of 0.0001.
_BINS = 20_000


class ScoreStream:
    """Takes cosines block by block; memory is that of the top slice and of the mated scores.

    Args:
        non_mated: how many non-mated scores will come in all.
        max_far: the greatest target FAR that will be asked of `tar_at_far`.
    """

    def __init__(self, non_mated: int, max_far: float) -> None:
        if non_mated < 1:
            raise InputError(
                "of all comparisons none is non-mated; a rate needs some of both kinds"
            )
        self.max_far = max_far
        self.expected = non_mated
        self.non_mated = 0
        self._depth = count_allowed(max_far, non_mated) + 1
        self._mated: list[NDArray[Any]] = []
        self._top: list[NDArray[Any]] = []
        self._held = 0
        self._floor = -np.inf
        self._histogram = np.zeros(_BINS, np.int64)

    def add(self, mated: NDArray[Any], non_mated: NDArray[Any]) -> None:
        """Count a block of scores: two rows of one floating type, in [-1, 1].

        Raises:
            InputError: a score is NaN, or more non-mated scores come than were announced.
        """
        for values in (mated, non_mated):
            if values.size and np.isnan(values.min()):
                raise InputError("scores must be numbers, got NaN; were the embeddings finite?")
        self.non_mated += non_mated.size
        if self.non_mated > self.expected:
            raise InputError(f"more non-mated scores came than the {self.expected} announced")
        self._mated.append(mated.copy())
        places = ((non_mated + 1) * (_BINS / 2)).astype(np.int32)
        self._histogram += np.bincount(np.clip(places, 0, _BINS - 1), minlength=_BINS)
        kept = non_mated[non_mated >= self._floor]
        self._top.append(kept)
        self._held += kept.size
        if self._held > 2 * self._depth + 100_000:
            self._cut()

    def mated(self) -> NDArray[Any]:
        """Return all mated scores so far."""
        return np.concatenate(self._mated) if self._mated else np.zeros(0, np.float32)

    def tar_at_far(self, fars: Sequence[float]) -> list[OperatingPoint]:
        """Return exact TAR at each target, as `verification.tar_at_far` of all scores would.

        Raises:
            InputError: a target above `max_far`, no mated score, or scores are still missing.
        """
        if max(fars, default=0.0) > self.max_far:
            raise InputError(f"a target FAR may be at most {self.max_far}, got {max(fars)}")
        self._check_complete()
        self._cut()
        return points_from_top(self.mated(), self._top[0], self.non_mated, fars)

    def curve(self) -> RocCurve:
        """Return the ROC at the bin edges (thresholds 0.0001 apart)."""
        self._check_complete()
        edges = np.linspace(-1, 1, _BINS + 1, dtype=np.float64)[::-1]
        mated = np.sort(self.mated())
        refused = np.searchsorted(mated, edges)
        tar = 1 - refused / mated.size
        wrong = np.concatenate([[0], np.cumsum(self._histogram[::-1])])
        far = wrong / self.non_mated
        # The last edge takes all, also what rounding put below -1.
        tar[0], tar[-1] = 0.0, 1.0
        return RocCurve(far, tar, edges)

    def eer(self) -> float:
        """Return the equal error rate on `curve`."""
        curve = self.curve()
        return eer_of_curve(curve.far, curve.tar)

    def histogram(self, bins: int = 100) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return counts (bins,) of non-mated scores and the edges (bins + 1,) over [-1, 1].

        Args:
            bins: a divisor of 20,000.
        """
        if _BINS % bins:
            raise InputError(f"bins must divide {_BINS}, got {bins}")
        return self._histogram.reshape(bins, -1).sum(axis=1), np.linspace(
            -1, 1, bins + 1, dtype=np.float64
        )

    def _cut(self) -> None:
        if self._top:
            top = top_slice(np.concatenate(self._top), self._depth)
            self._top = [top]
            self._held = top.size
            if top.size == self._depth:
                self._floor = float(top[-1])

    def _check_complete(self) -> None:
        if self.non_mated != self.expected:
            raise InputError(
                f"{self.expected} non-mated scores were announced, {self.non_mated} came"
            )
        if not any(block.size for block in self._mated):
            raise InputError("of all comparisons none is mated; a rate needs some of both kinds")
