"""Vectors into the store: one person with all checks, or very many at once without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of
from facerec.gallery.enrolment_checks import CHECK_MODES, check_samples
from facerec.gallery.people import add_samples, find_person, load_vectors
from facerec.gallery.results import Enrolment
from facerec.gallery.samples import Origin, make_samples
from facerec.gallery.schema import Sample
from facerec.gallery.searching import View
from facerec.gallery.store import KEEP_PICTURES

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery


def enrol_person(
    gallery: Gallery,
    name: str,
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    origin: Origin | None,
    kind: str,
    mode: str,
    purpose: str,
    pictures: Mapping[str, Any],
) -> Enrolment:
    """Add one person's pictures; see `Gallery.enrol`."""
    store = gallery.store
    check_one_of(mode, "check", CHECK_MODES)
    samples = _make(gallery, vectors, norms, origin, pictures)
    refused, warnings = _look_for_others(gallery, name, samples, mode)
    usable = [i for i, text in enumerate(refused) if not text]
    with store.transaction() as connection:
        added = add_samples(store, connection, name, [samples[i] for i in usable], kind)
        details = {
            **added.to_log(),
            "gallery_version": store.read_version(),
            "refused": len(samples) - len(added.positions),
        }
        store.log(connection, "enrol", details, gallery.operator, purpose)
    reasons = list(refused)
    for position, reason in zip(usable, added.reasons, strict=True):
        reasons[position] = reason
    return Enrolment([usable[i] for i in added.positions], reasons, warnings)


def enrol_batch(
    gallery: Gallery,
    names: Sequence[str],
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    origin: Origin | None,
    kind: str,
    purpose: str,
    pictures: Mapping[str, Any],
) -> Enrolment:
    """Add many people's pictures in one transaction; see `Gallery.enrol_many`."""
    store = gallery.store
    samples = _make(gallery, vectors, norms, origin, pictures)
    if len(names) != len(samples):
        raise InputError(f"people must have length {len(samples)}, got {len(names)}")
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    reasons = [""] * len(samples)
    with store.transaction() as connection:
        for name, mine in rows.items():
            added = add_samples(store, connection, name, [samples[i] for i in mine], kind)
            for position, reason in zip(mine, added.reasons, strict=True):
                reasons[position] = reason
            store.log(connection, "enrol", added.to_log(), gallery.operator, purpose)
    return Enrolment([i for i, text in enumerate(reasons) if not text], reasons)


def _make(
    gallery: Gallery,
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    origin: Origin | None,
    pictures: Mapping[str, Any],
) -> list[Sample]:
    given = dict(pictures)
    if gallery.store.read_setting(KEEP_PICTURES, "no") != "yes":
        given.pop("chips", None)
    try:
        return make_samples(vectors, norms, gallery.model.dim, origin=origin, **given)
    except TypeError as error:
        raise InputError(f"enrol does not take this: {error}") from error


def _look_for_others(
    gallery: Gallery, name: str, samples: Sequence[Sample], mode: str
) -> tuple[list[str], list[str]]:
    """Return what is refused and what is only said: faces that look like somebody else's."""
    nothing = [""] * len(samples)
    if mode == "off" or not samples:
        return nothing, nothing
    store = gallery.store
    view = gallery.searcher.look()
    with store.snapshot() as connection:
        person = find_person(store, connection, name)
        held = None if person is None else load_vectors(store, connection, person)[0]
    vectors = np.stack([sample.embedding for sample in samples])
    found = check_samples(
        view.index,
        vectors,
        name=name,
        owner=None if person is None else person.id,
        held=held,
        names={row: text for row, (text, _) in view.names.items()},
        threshold=_find_identity(view),
    )
    return (found, nothing) if mode == "strict" else (nothing, found)


def _find_identity(view: View) -> float | None:
    """Return the cosine that makes two faces one person here; None where nobody measured it.

    A threshold that was given and not calibrated may be far off: at 0.4 a fifth of clean pictures
    of LFW looks like somebody else's.
    """
    known = view.threshold
    if known is None or known.kind != "fpir" or known.normalisation != "none":
        return None
    return known.value
