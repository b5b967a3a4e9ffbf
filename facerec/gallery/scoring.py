"""Normalised scores over a collection: the cohort's statistics of everybody, kept up to date."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.gallery.changes import load_changes, load_cohort
from facerec.gallery.fusion import fuse
from facerec.gallery.index import Ranked, VectorIndex
from facerec.gallery.normalisation import (
    LEAST_COHORT,
    CohortStats,
    measure_cohort,
    rank_normalised,
)
from facerec.gallery.people import load_vectors, read_keys
from facerec.gallery.store import COHORT_TOP, Store

Basis = tuple[str, int, int, int]


def read_basis(store: Store, kind: str) -> Basis:
    """Return what a normaliser rests on beside the people: kind, cohort, how many of it count."""
    with store.reading() as connection:
        rows, last = connection.execute(
            "SELECT COUNT(*), COALESCE(MAX(id), 0) FROM cohort WHERE collection_id = ?",
            (store.collection.id,),
        ).fetchone()
    return kind, int(rows), int(last), int(store.read_setting(COHORT_TOP, "0"))


class Normaliser:
    """Ranks people by scores that say how unusual a cosine is; see `normalisation`.

    Args:
        store: open.
        kind: "z", "t" or "s".

    Attributes:
        kind: as given.
        basis: see `read_basis`.

    Raises:
        InputError: the collection has no cohort, or too small a one.
    """

    def __init__(self, store: Store, kind: str) -> None:
        self.kind = kind
        self.basis = read_basis(store, kind)
        self._store = store
        self._cohort = load_cohort(store)
        if len(self._cohort) < LEAST_COHORT:
            raise InputError(
                f"normalisation {kind!r} needs a cohort of at least {LEAST_COHORT} faces, the "
                f"collection has {len(self._cohort)}; give one with `facerec-gallery cohort`"
            )
        self._top = self.basis[3] or None
        self._templates: CohortStats | None = None
        if kind != "t":
            found = load_changes(store)
            self._templates = self._measure(found.vectors, found.owners)

    def rank(
        self,
        index: VectorIndex,
        vectors: NDArray[np.float32],
        top: int,
        *,
        exact: bool = False,
        people: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """Return each probe's best people by normalised score."""
        probes = None if self.kind == "z" else self._measure(vectors, None)
        return rank_normalised(
            index,
            vectors,
            top,
            self.kind,
            templates=self._templates,
            probes=probes,
            exact=exact,
            people=people,
        )

    def follow(self, owners: Iterable[int], gone: Iterable[int]) -> None:
        """Measure people anew whose rows changed, and forget those who left."""
        if self._templates is None:
            return
        changed = sorted(set(owners) - set(gone))
        held = self._templates
        assert held.owners is not None
        keep = ~np.isin(held.owners, np.array([*changed, *gone], np.int64))
        kept = held.take(np.flatnonzero(keep))
        if not changed:
            self._templates = kept
            return
        parts = [self._load(owner) for owner in changed]
        new = self._measure(
            np.concatenate(parts),
            np.repeat(np.array(changed, np.int64), [len(part) for part in parts]),
        )
        self._templates = _merge(kept, new)

    def _measure(
        self, vectors: NDArray[np.float32], owners: NDArray[np.int64] | None
    ) -> CohortStats:
        return measure_cohort(vectors, self._cohort, owners=owners, top=self._top)

    def _load(self, owner: int) -> NDArray[np.float32]:
        """Return the rows that are searched for a person."""
        with self._store.snapshot() as connection:
            person = read_keys(self._store, connection, owner)
            vectors, norms, qualities = load_vectors(self._store, connection, person)
        fusion = self._store.collection.fusion
        if fusion == "max":
            return vectors
        return fuse(vectors, norms, qualities, fusion=fusion).vector[None]


def _merge(one: CohortStats, two: CohortStats) -> CohortStats:
    assert one.owners is not None and two.owners is not None
    owners = np.concatenate([one.owners, two.owners])
    order = np.argsort(owners, kind="stable")
    return CohortStats(
        np.concatenate([one.means, two.means])[order],
        np.concatenate([one.stds, two.stds])[order],
        np.concatenate([one.left_out, two.left_out])[order],
        owners[order],
    )
