"""Arrays of one person's pictures, checked and laid out as samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_one_of
from facerec.gallery.schema import (
    DOCUMENT,
    DOCUMENT_CLASSES,
    SCENE,
    SOURCE_CLASSES,
    Sample,
    check_captured,
)
from facerec.io import sha256_bytes

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Origin:
    """What is known of the pictures of one enrolment.

    Attributes:
        source_class: DOCUMENT or SCENE.
        document_class: one of DOCUMENT_CLASSES, "" where nobody said; scenes have none.
        captured: "", `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
        print_scan: whether they are scans of prints.
    """

    source_class: str = SCENE
    document_class: str = ""
    captured: str = ""
    print_scan: bool = False

    def __post_init__(self) -> None:
        check_one_of(self.source_class, "source class", SOURCE_CLASSES)
        if self.document_class:
            check_one_of(self.document_class, "document class", DOCUMENT_CLASSES)
            if self.source_class != DOCUMENT:
                raise InputError("a scene has no document class; give source_class='document'")
        check_captured(self.captured)


def make_samples(
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    dim: int,
    *,
    pictures: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    det_scores: Sequence[float | None] | None = None,
    qualities: Sequence[float | None] | None = None,
    chips: Sequence[bytes] | None = None,
    origin: Origin | None = None,
) -> list[Sample]:
    """Return one sample a row.

    Args:
        vectors: float32 (n, d), unit norm.
        norms: float32 (n,), raw norms.
        dim: the d that is asked for.
        pictures: sha256 of each picture's file; of the vector itself when not given.
        sources: file name of each.
        det_scores: the detector's score of each.
        qualities: in [0, 1] of each.
        chips: encoded chips, where the collection keeps pictures.
        origin: of all of them.

    Raises:
        InputError: NaN, zero or un-normalised vectors, bad norms, lengths that differ.
    """
    check_embeddings(vectors, "enrolment vectors", dim)
    count = len(vectors)
    norms = np.asarray(norms, dtype=np.float32)
    if norms.shape != (count,) or not (np.isfinite(norms) & (norms > 0)).all():
        raise InputError(f"norms must be {count} positive numbers, got {norms!r:.80}")
    shas = pictures if pictures is not None else hash_vectors(vectors)
    origin = origin or Origin()
    columns = zip(
        vectors,
        norms.tolist(),
        _spread(shas, "pictures", count, ""),
        _spread(sources, "sources", count, ""),
        _spread(det_scores, "det_scores", count, None),
        _spread(qualities, "qualities", count, None),
        _spread(chips, "chips", count, None),
        strict=True,
    )
    return [
        Sample(
            vector,
            norm,
            sha,
            source,
            score,
            quality,
            origin.source_class,
            origin.document_class,
            origin.captured,
            origin.print_scan,
            chip,
        )
        for vector, norm, sha, source, score, quality, chip in columns
    ]


def hash_vectors(vectors: NDArray[np.float32]) -> list[str]:
    """Return a sha256 for each row, where there is no picture to take one of."""
    return [sha256_bytes(np.ascontiguousarray(vector).tobytes()) for vector in vectors]


def _spread(
    values: Sequence[_Value] | None, name: str, count: int, absent: _Value
) -> Sequence[_Value]:
    if values is None:
        return [absent] * count
    if len(values) != count:
        raise InputError(f"{name} must have length {count}, got {len(values)}")
    return values
