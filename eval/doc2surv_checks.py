"""Pictures that stand on both sides: the same file, or a copy that hardly differs.

A picture that is document and probe at once scores near 1 and proves nothing; a document that two
people have makes false matches that are none. Both are found by the hash of the file and by the
cosine of the embeddings, and refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_data import DocumentSet, TrackSet
from facerec.checks import InputError, check_range

NEAR_DUPLICATE = 0.985
"""Cosine from which on two pictures count as one. Different photographs of a person stay below."""

_BLOCK = 2048
_MOST_LISTED = 1000


@dataclass(frozen=True)
class Overlap:
    """Two rows that are one picture.

    Attributes:
        first: name of the document.
        second: name of the track, or of another person's document.
        cosine: of the embeddings, NaN is never in it; None where one has none.
        same_file: whether the files are equal byte for byte.
    """

    first: str
    second: str
    cosine: float | None
    same_file: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def find_overlaps(
    documents: DocumentSet, tracks: TrackSet, cosine: float = NEAR_DUPLICATE
) -> list[Overlap]:
    """Return documents that are in a track too, and documents that two people share.

    Args:
        documents: p.
        tracks: t.
        cosine: from which on two embeddings are of one picture.

    Returns:
        At most 1000, same files first.
    """
    check_range(cosine, "near-duplicate cosine", 0.5, 1.0)
    files = _same_files(documents, tracks)
    near = _near(documents, documents, cosine, documents.people)
    near += _near(documents, tracks, cosine, None)
    known = {(one.first, one.second) for one in files}
    return (files + [one for one in near if (one.first, one.second) not in known])[:_MOST_LISTED]


def refuse_overlaps(overlaps: list[Overlap], allow: bool) -> None:
    """Raise InputError where there are overlaps that nobody allowed."""
    if overlaps and not allow:
        one = overlaps[0]
        how = "the same file" if one.same_file else f"a near-duplicate (cosine {one.cosine:.4f})"
        raise InputError(
            f"{one.first!r} and {one.second!r} are {how}, and {len(overlaps) - 1} more pairs are "
            "alike; a picture may be document or probe, of one person: remove it, or allow overlap"
        )


def _same_files(documents: DocumentSet, tracks: TrackSet) -> list[Overlap]:
    first: dict[str, int] = {}
    found = []
    for row, digest in enumerate(documents.hashes.tolist()):
        if not digest:
            continue
        other = first.setdefault(digest, row)
        if documents.people[other] != documents.people[row]:
            pair = (str(documents.names[other]), str(documents.names[row]))
            found.append(Overlap(*pair, None, True))
    for row, digests in enumerate(tracks.hashes):
        for digest in sorted(digests & first.keys()):
            pair = (str(documents.names[first[digest]]), str(tracks.names[row]))
            found.append(Overlap(*pair, None, True))
    return found


def _near(
    first: DocumentSet, second: DocumentSet | TrackSet, cosine: float, people: Any
) -> list[Overlap]:
    """Return pairs of at least the cosine; with `people` those of different people only, once."""
    found: list[Overlap] = []
    for top in range(0, len(first), _BLOCK):
        block: NDArray[np.float32] = first.vectors[top : top + _BLOCK] @ second.vectors.T
        rows, columns = np.nonzero(block >= cosine)
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            if people is not None and (j <= top + i or people[top + i] == people[j]):
                continue
            pair = (str(first.names[top + i]), str(second.names[j]))
            found.append(Overlap(*pair, float(block[i, j]), False))
            if len(found) == _MOST_LISTED:
                return found
    return found
