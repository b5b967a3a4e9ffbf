"""The index of a collection, kept as new as the store, and the people behind its rows."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.gallery.cache import read_cache, write_cache
from facerec.gallery.changes import Changes, load_changes, load_people
from facerec.gallery.index import Ranked, VectorIndex
from facerec.gallery.index_compressed import FLOOR, CompressedIndex
from facerec.gallery.index_ladder import AUTO, build_index, choose_rung
from facerec.gallery.remote_sync import find_version, send_changes
from facerec.gallery.retention import Clock
from facerec.gallery.schema import Threshold
from facerec.gallery.scoring import Normaliser, read_basis
from facerec.gallery.store import NORMALISATION, Store
from facerec.metrics.error_rates import scale_fpir

_GROWTH = 2
"""Times the rows that an index was built for: from there on another rung may serve better."""


@dataclass
class View:
    """What a search looks at, as of one version of the store.

    Attributes:
        version: of the collection.
        index: the rows.
        names: person's row -> name and uid.
        strangers: rows of people who are never an answer.
        threshold: the collection's, None where there is none for its scores.
        fpir: at that threshold and the present number of people; None = not calibrated.
        normaliser: None for plain cosines.
    """

    version: int
    index: VectorIndex
    names: dict[int, tuple[str, str]]
    strangers: set[int]
    threshold: Threshold | None = None
    fpir: float | None = None
    normaliser: Normaliser | None = None

    @property
    def people(self) -> int:
        """How many people an answer may name."""
        return len(self.names) - len(self.strangers)

    def rank(
        self,
        vectors: NDArray[np.float32],
        top: int,
        exact: bool = False,
        people: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """Return each probe's best people, by normalised score where the collection has one."""
        if self.normaliser is None:
            return self.index.search(vectors, top, exact=exact, people=people)
        return self.normaliser.rank(self.index, vectors, top, exact=exact, people=people)


class Searcher:
    """Follows the store: every look brings the index up to date, whoever changed it.

    Args:
        store: open.
        rung: a name of `index_ladder`, or "auto".
        remote: an index elsewhere, brought up to date instead of one in memory.
        cache: whether a built index may be kept beside the store, sealed as the store is.
    """

    def __init__(
        self,
        store: Store,
        rung: str = AUTO,
        remote: VectorIndex | None = None,
        cache: bool = True,
    ) -> None:
        self._store = store
        self._rung = rung
        self._remote = remote
        self._cache = cache and remote is None
        self._lock = threading.Lock()
        self._view: View | None = None
        self._built_for = 0
        self._clock = Clock(store)

    def close(self) -> None:
        """Let go of the index."""
        with self._lock:
            if self._view is not None:
                self._view.index.close()
            self._view = None

    def catch_up(self) -> None:
        """Let an index that is open, or lies elsewhere, forget what was removed."""
        if self._view is not None or self._remote is not None:
            self.look()

    def look(self) -> View:
        """Return the collection as it is now."""
        with self._lock:
            if self._view is None:
                self._view = self._open()
            elif self._view.version != self._store.read_version():
                self._view = self._follow(self._view)
            overdue = self._clock.take_overdue()
            if len(overdue):
                self._view.index.remove(overdue)
            return self._view

    def _open(self) -> View:
        """Build the view: from the cache where there is a good one, else from the store."""
        store, since = self._store, -1
        index = self._remote
        if index is not None:
            since = find_version(store, index)
        elif self._cache:
            index, since = read_cache(store, self._rung)
        changes = load_changes(store, since, self._clock.cutoff())
        if index is None:
            index = self._build(changes)
        else:
            index.remove(self._clock.take_overdue())
            send_changes(store, index, changes)
        self._built_for = max(1, len(index))
        names, strangers = (changes.people, changes.strangers) if since < 0 else load_people(store)
        return self._complete(View(changes.version, index, dict(names), set(strangers)))

    def _follow(self, view: View) -> View:
        """Bring a view to the store's version; the old one stays usable for who still holds it."""
        self._clock = Clock(self._store)
        changes = load_changes(self._store, view.version, self._clock.cutoff())
        view.index.remove(self._clock.take_overdue())
        send_changes(self._store, view.index, changes)
        for person in changes.gone:
            view.names.pop(person, None)
            view.strangers.discard(person)
        view.names.update(changes.people)
        view.strangers.update(changes.strangers)
        outgrown = len(view.index) > _GROWTH * self._built_for
        if outgrown and self._remote is None and self._rung == AUTO:
            if choose_rung(len(view.index), self._store.model.dim).name != view.index.name:
                return self._open()  # not closed: another thread may be searching it
            self._built_for = len(view.index)
        fresh = View(changes.version, view.index, view.names, view.strangers)
        fresh.normaliser = view.normaliser
        return self._complete(fresh, changes)

    def _build(self, changes: Changes) -> VectorIndex:
        name = self._rung
        if name == AUTO:
            name = choose_rung(len(changes.ids), self._store.model.dim).name
        index = build_index(name, changes.ids, changes.vectors, changes.owners)
        if self._cache:
            write_cache(self._store, index, changes.version)
        return index

    def _complete(self, view: View, changes: Changes | None = None) -> View:
        """Fill in what depends on the settings; with changes, the view is an older one's heir."""
        store = self._store
        kind = store.read_setting(NORMALISATION, "none")
        view.threshold = store.find_threshold(kind)
        view.fpir = state_fpir(view.threshold, view.people)
        if isinstance(view.index, CompressedIndex):
            cosine = store.find_threshold()
            view.index.floor = FLOOR if cosine is None else min(FLOOR, cosine.value)
        held = view.normaliser
        if kind == "none":
            view.normaliser = None
        elif changes is None or held is None or held.basis != read_basis(store, kind):
            view.normaliser = Normaliser(store, kind)
        else:
            held.follow(changes.owners.tolist(), changes.gone)
        return view


def state_fpir(threshold: Threshold | None, people: int) -> float | None:
    """Return the FPIR of a calibrated threshold at a number of people, None where none is known."""
    if threshold is None or threshold.kind != "fpir" or not people:
        return None
    return scale_fpir(threshold.details["rate"], threshold.details["people"], people)
