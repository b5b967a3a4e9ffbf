"""Pictures that are in gallery and probes both: a search that finds them says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.protocol_results import check_same_width
from facerec.checks import InputError, check_range

# |u - v| < 0.1, as in `facerec.video.aggregate`: one view of one face.
NEAR_DUPLICATE = 0.995
_TILE = 4096
_MOST = 1000
_SHOWN = 3


def find_overlap(
    gallery: NDArray[Any], probes: NDArray[Any], least: float = NEAR_DUPLICATE
) -> list[tuple[int, int, float]]:
    """Return (gallery row, probe row, cosine) of copies and near-duplicates, at most 1,000.

    Args:
        gallery: float (n, d), unit norm; a row of zeros is a failure and matches nothing.
        probes: float (m, d), likewise.
        least: cosine from which two embeddings are of one picture.

    Raises:
        InputError: dimensions that differ, or a cosine outside (0, 1].
    """
    check_range(least, "least", 1e-6, 1)
    check_same_width(gallery, probes, ("gallery embeddings", "probe embeddings"))
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(probes), _TILE):
        queries = np.asarray(probes[start : start + _TILE], np.float32)
        for first in range(0, len(gallery), _TILE):
            scores = np.asarray(gallery[first : first + _TILE], np.float32) @ queries.T
            # Products of equal unit vectors may end a hair below 1.
            for row, column in np.argwhere(scores >= least - 1e-6).tolist():
                found.append((first + row, start + column, float(scores[row, column])))
                if len(found) == _MOST:
                    return found
    return found


def check_overlap(
    gallery: NDArray[Any],
    probes: NDArray[Any],
    gallery_names: Sequence[str],
    probe_names: Sequence[str],
    *,
    allow: bool = False,
) -> int:
    """Return how many near-duplicates there are, if that is allowed or none.

    Raises:
        InputError: there are some and `allow` is False; the first three are named.
    """
    found = find_overlap(gallery, probes)
    if found and not allow:
        shown = ", ".join(
            f"{gallery_names[row]} = {probe_names[column]} ({score:.4f})"
            for row, column, score in found[:_SHOWN]
        )
        more = "or more " if len(found) == _MOST else ""
        raise InputError(
            f"{len(found)} {more}pictures are in gallery and probes both, as copies or "
            f"near-duplicates (such as {shown}); take them out of one side, or allow the overlap"
        )
    return len(found)
