"""One probe against one person: is it who it is said to be?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_range
from facerec.gallery.fusion import fuse
from facerec.gallery.people import get_person, load_vectors
from facerec.gallery.results import Comparison
from facerec.gallery.samples import hash_vectors

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery


def compare_probes(
    gallery: Gallery,
    person: str,
    vectors: NDArray[np.float32],
    threshold: float | None,
    probes: Sequence[str] | None,
    purpose: str,
) -> list[Comparison]:
    """Return one comparison a probe; see `Gallery.compare`."""
    store = gallery.store
    check_embeddings(vectors, "probes", store.model.dim)
    shas = probes if probes is not None else hash_vectors(vectors)
    if len(shas) != len(vectors):
        raise InputError(f"probes must have length {len(vectors)}, got {len(shas)}")
    calibrated = store.find_threshold("none", one_to_one=True)
    limit, fmr = threshold, None
    if limit is None:
        known = calibrated or store.find_threshold("none")
        limit = gallery.check_question(1) if known is None else known.value
    check_range(limit, "threshold", -1, 1)
    if calibrated is not None and limit == calibrated.value:
        fmr = float(calibrated.details["rate"])
    with store.snapshot() as connection:
        found = get_person(store, connection, person)
        held, norms, qualities = load_vectors(store, connection, found)
    if store.collection.fusion != "max":
        held = fuse(held, norms, qualities, fusion=store.collection.fusion).vector[None]
    scores = (vectors.astype(np.float64) @ held.astype(np.float64).T).max(axis=1)
    answers = [
        Comparison(found.name, float(score), limit, bool(np.float32(score) >= limit), fmr)
        for score in scores.astype(np.float32)
    ]
    with store.logging() as connection:
        for sha, answer in zip(shas, answers, strict=True):
            details = {
                "probe": sha,
                "person": found.uid,
                "score": round(answer.score, 6),
                "threshold": limit,
                "accepted": answer.accepted,
            }
            store.log(connection, "compare", details, gallery.operator, purpose)
    return answers
