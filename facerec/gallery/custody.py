"""What is kept of people and how it leaves: lists, names, retention, erasure, keys, the log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_one_of
from facerec.gallery import audit
from facerec.gallery.changes import load_cohort
from facerec.gallery.consistency import find_mismatches
from facerec.gallery.erasure import erase_samples, scrub
from facerec.gallery.index import VectorIndex
from facerec.gallery.listing import list_people, list_samples
from facerec.gallery.normalisation import LEAST_COHORT, NORMALISATIONS
from facerec.gallery.people import get_person, rename_person
from facerec.gallery.results import Receipt
from facerec.gallery.retention import check_days, find_cutoff, iter_overdue
from facerec.gallery.rotation import rotate_key
from facerec.gallery.schema import Person, SampleRow, StoredModel, check_person
from facerec.gallery.sealing import cohort_context
from facerec.gallery.searching import Searcher
from facerec.gallery.store import COHORT_TOP, NORMALISATION, RETENTION_DAYS, Store
from facerec.gallery.vault import GalleryKey


class Custody:
    """An open collection without its questions; see `gallery.Gallery`.

    Args:
        store: open.
        operator: for the audit log, the user of this process when empty.
        index: a rung of `index_ladder`, or "auto".
        remote: an index elsewhere.
        cache: whether a built index may be kept beside the store.
    """

    def __init__(
        self,
        store: Store,
        operator: str = "",
        *,
        index: str = "auto",
        remote: VectorIndex | None = None,
        cache: bool = True,
    ) -> None:
        self.store = store
        self.operator = operator or audit.current_operator()
        self.searcher = Searcher(store, index, remote, cache)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self.searcher.close()
        self.store.close()

    @property
    def model(self) -> StoredModel:
        """The recogniser whose embeddings this collection holds."""
        return self.store.model

    def check_model(self, model_hash: str) -> None:
        """Refuse embeddings of another model than the collection's.

        Raises:
            InputError: the hashes differ.
        """
        if model_hash != self.model.hash:
            raise InputError(
                f"the gallery holds embeddings of {self.model.name} "
                f"({self.model.hash[:16]}…), got those of a model with hash {model_hash[:16]}…; "
                "embeddings of two models cannot be compared: use that model, with the same flip "
                "setting, or enrol again into another gallery or collection"
            )

    def people(self) -> list[Person]:
        """Return who is in the collection, by name."""
        with self.store.reading() as connection:
            return list_people(self.store, connection)

    def samples(self, person: str) -> list[SampleRow]:
        """Return what is kept of a person, oldest first; InputError when nobody has that name."""
        with self.store.reading() as connection:
            found = list_samples(self.store, connection, check_person(person))
            if not found:
                get_person(self.store, connection, person)
            return found

    def rename(self, person: str, name: str, purpose: str = "") -> None:
        """Give a person another name; what the log says of them stays theirs.

        Raises:
            InputError: nobody of that name, or somebody has the other one.
        """
        clean = check_person(name)
        with self.store.transaction() as connection:
            found = get_person(self.store, connection, person)
            record = rename_person(self.store, connection, found, clean)
            details = {"person": found.uid, "record": record}
            self.store.log(connection, "rename", details, self.operator, purpose)

    def erase(self, person: str, purpose: str = "") -> Receipt:
        """Remove a person for good, from every file of the gallery, and return the proof.

        Raises:
            InputError: nobody of that name; or bytes of theirs are left, and where.
        """
        with self.store.reading() as connection:
            found = get_person(self.store, connection, person)
            rows = [row.id for row in list_samples(self.store, connection, found.name)]
        (receipt,) = erase_samples(
            self.store, [(found, rows)], "erase", self.operator, purpose, self.searcher.catch_up
        )
        return receipt

    def remove(self, person: str, rows: Sequence[int], purpose: str = "") -> Receipt:
        """Remove some of a person's samples for good; the last one takes the person along.

        Raises:
            InputError: nobody of that name, no rows, or rows that are not theirs.
        """
        if not rows:
            raise InputError("no samples to remove; see `facerec-gallery show` for their numbers")
        with self.store.reading() as connection:
            found = get_person(self.store, connection, person)
        (receipt,) = erase_samples(
            self.store,
            [(found, sorted(set(rows)))],
            "remove",
            self.operator,
            purpose,
            self.searcher.catch_up,
        )
        return receipt

    def expire(self, purpose: str = "") -> list[Receipt]:
        """Erase every sample that is older than the collection keeps them."""
        with self.store.reading() as connection:
            cutoff = find_cutoff(audit.read_clock(connection), self.retention_days)
            overdue = list(iter_overdue(self.store, connection, cutoff)) if cutoff else []
        return erase_samples(
            self.store, overdue, "expire", self.operator, purpose, self.searcher.catch_up
        )

    @property
    def retention_days(self) -> int:
        """After how many days a sample is no longer searched; 0 = never."""
        return int(self.store.read_setting(RETENTION_DAYS, "0"))

    def keep_for(self, days: int, purpose: str = "") -> None:
        """Set the retention, 0 = without end; it counts for what is enrolled already, too."""
        self.store.change_setting(RETENTION_DAYS, str(check_days(days)), self.operator, purpose)

    def scrub(self) -> bool:
        """Rewrite the file without free pages, and log it; True when it was rewritten."""
        files, traces, compacted = scrub(self.store)
        with self.store.transaction() as connection:
            self.store.log(
                connection, "scrub", {"people": [], "files": files, "traces": traces}, self.operator
            )
        return compacted

    def change_key(
        self, key: GalleryKey, purpose: str = "", settings: dict[str, str] | None = None
    ) -> int:
        """Bind the collection to another key and close; open it again with that key.

        Args:
            key: the new one.
            purpose: for the audit log.
            settings: recorded in the same transaction, such as where the key lies.

        Returns:
            How many people's keys were wrapped anew.
        """
        changed = rotate_key(self.store, key, self.operator, purpose, settings)
        self.close()
        return changed

    def normalise(self, kind: str, top: int = 0, purpose: str = "") -> None:
        """Search by normalised scores from now on; they need a threshold of their own.

        Args:
            kind: one of `normalisation.NORMALISATIONS`.
            top: how many of the cohort count for each face, the nearest ones; 0 = all.
            purpose: for the audit log.

        Raises:
            InputError: an unknown kind, or the cohort is too small.
        """
        check_one_of(kind, "normalisation", NORMALISATIONS)
        if kind != "none":
            cohort = load_cohort(self.store)
            if len(cohort) < max(LEAST_COHORT, top):
                raise InputError(
                    f"normalisation {kind!r} needs a cohort of at least {max(LEAST_COHORT, top)} "
                    f"faces, the collection has {len(cohort)}; give one with "
                    "`facerec-gallery cohort`"
                )
        self.store.change_setting(COHORT_TOP, str(top), self.operator, purpose)
        self.store.change_setting(NORMALISATION, kind, self.operator, purpose)

    def set_cohort(self, vectors: NDArray[np.float32], purpose: str = "") -> None:
        """Replace the cohort: faces of nobody in the gallery, for the normalisation of scores.

        Args:
            vectors: float32 (c, d), unit norm; none clears it.
            purpose: for the audit log.
        """
        if len(vectors):
            check_embeddings(vectors, "cohort", self.model.dim)
        store = self.store
        context = cohort_context(store)
        rows = [
            (store.collection.id, store.vault.seal(store.secret, vector, context))
            for vector in (v.astype("<f4").tobytes() for v in vectors)
        ]
        with store.transaction() as connection:
            connection.execute("DELETE FROM cohort WHERE collection_id = ?", (store.collection.id,))
            connection.executemany(
                "INSERT INTO cohort (collection_id, embedding) VALUES (?, ?)", rows
            )
            store.next_version(connection)
            store.log(connection, "cohort", {"rows": len(rows)}, self.operator, purpose)

    def log_export(self, what: str, rows: int, purpose: str = "") -> None:
        """Note that something left the gallery, before it does."""
        with self.store.transaction() as connection:
            details = {"what": what, "rows": rows}
            self.store.log(connection, "export", details, self.operator, purpose)

    def list_audit(self, last: int | None = None) -> list[audit.AuditEntry]:
        """Return the audit log of the whole gallery, oldest first, all or the last so many."""
        with self.store.reading() as connection:
            return list(audit.iter_entries(connection, last))

    def verify_audit(self, noted_head: str = "") -> list[str]:
        """Return what is wrong: with the log, and where the tables differ from what it says."""
        with self.store.snapshot() as connection:
            faults = audit.verify_chain(connection, noted_head, self._secret_of)
            return faults or find_mismatches(self.store, connection)

    def audit_head(self) -> tuple[int, str]:
        """Return the number of audit entries and the last one's hash."""
        with self.store.reading() as connection:
            return audit.read_head(connection)

    def _secret_of(self, collection: str) -> bytes:
        return self.store.secret if collection == self.store.collection.name else b""
