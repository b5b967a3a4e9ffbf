"""Quality and a round: poor faces by the user's limits, and whom the drops hit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools import round_table as word
from data_tools.centres import Mask
from data_tools.looks import Looks
from data_tools.quality import QualityTable, find_low_quality, report_drops, score_quality
from data_tools.round_rows import Usable
from data_tools.round_table import Verdicts
from facerec.checks import check_range

_GROUPS = ("source", "split")


@dataclass(frozen=True)
class QualityLimits:
    """Which faces are too poor to keep, however sure it is whose they are; none by default.

    Attributes:
        share: of the faces, the poorest ones, in [0, 1).
        min_face_px: least shorter side of the face's box in its picture, pixels.
        min_sharpness: least variance of the chip's Laplacian.
    """

    share: float = 0.0
    min_face_px: float | None = None
    min_sharpness: float | None = None

    def __post_init__(self) -> None:
        check_range(self.share, "share of poor faces", 0.0, 0.999)


def rate_rows(
    manifest: pa.Table,
    usable: Usable,
    norms: NDArray[np.float32],
    own: NDArray[np.float64],
    confident: Mask,
    looks: Looks | None,
) -> QualityTable:
    """Return the quality of the usable rows from all that is known of them.

    Args:
        manifest: all rows.
        usable: the rows.
        norms: float32 (n,), of their embeddings; counted only where they go with likeness.
        own: float64 (n,), cosine to the own centre.
        confident: bool (n,), rows that surely show their identity.
        looks: of the chips, or None.
    """
    rows = manifest.select(["det_score", "box"]).take(pa.array(usable.rows))
    scores = rows["det_score"].to_numpy().astype(np.float64)
    boxes = np.full((len(scores), 4), np.nan)
    given = np.flatnonzero(rows["box"].is_valid().to_numpy())
    flat = rows["box"].take(pa.array(given)).combine_chunks().flatten().to_numpy()
    boxes[given] = flat.reshape(-1, 4)
    return score_quality(
        det_scores=scores,
        boxes=boxes,
        sharpness=None if looks is None else looks.sharpness,
        exposure=None if looks is None else looks.exposure,
        norms=norms,
        own=own,
        confident=confident,
    )


def drop_poor(out: Verdicts, table: QualityTable, limits: QualityLimits) -> None:
    """Take the faces out that the limits call too poor; verdicts are changed in place."""
    found = find_low_quality(
        table,
        share=limits.share,
        min_face_px=limits.min_face_px,
        min_sharpness=limits.min_sharpness,
    )
    poor = found.flagged & (out.fate >= 0)
    out.decide(poor, word.DROP, word.POOR, check=word.QUALITY, fate=-1)
    out.score[poor] = table.score[poor]
    out.threshold[poor] = np.nan


def describe_drops(
    manifest: pa.Table, usable: Usable, out: Verdicts, table: QualityTable
) -> list[dict[str, Any]]:
    """Return the share of drops by tenth of quality, by source and by split, as plain values.

    Copies do not count as drops: the picture stays.
    """
    gone = (out.action == word.DROP) | (out.action == word.OVERLAP)
    rows = manifest.select(list(_GROUPS)).take(pa.array(usable.rows))
    groups = {name: np.array(rows[name].to_pylist(), dtype=object).astype(str) for name in _GROUPS}
    return [asdict(share) for share in report_drops(gone, table.score, groups)]
