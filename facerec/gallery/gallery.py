"""The watch list as one object: enrol, search, compare, erase, and "unknown" as an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_one_of, check_range
from facerec.gallery import audit
from facerec.gallery.answers import answer_probes, check_limit
from facerec.gallery.calibration import Calibration, calibrate
from facerec.gallery.comparing import compare_probes
from facerec.gallery.creation import create_store
from facerec.gallery.custody import Custody
from facerec.gallery.enrolment_checks import CHECK_MODES
from facerec.gallery.erasure import finish_erasure
from facerec.gallery.fusion import FUSIONS
from facerec.gallery.index import VectorIndex
from facerec.gallery.listing import find_owner
from facerec.gallery.results import Answer, Comparison, Enrolment
from facerec.gallery.retention import check_days
from facerec.gallery.samples import Origin
from facerec.gallery.schema import MAIN, PERSON, StoredModel, check_person
from facerec.gallery.store import CHECK, RETENTION_DAYS, open_store
from facerec.gallery.vault import GalleryKey
from facerec.gallery.writing import enrol_batch, enrol_person
from facerec.models.weights import ModelInfo

DEFAULT_THRESHOLD = 0.4


class Gallery(Custody):
    """An open watch list; use `Gallery.create` or `Gallery.open`, best as a context manager.

    What `enrol` returned is on disk. Every call is written to the audit log in the transaction of
    its action, and a search that cannot be logged gives no answer. Threads may share one gallery;
    what another process enrols is seen at the next search.
    """

    @classmethod
    def create(
        cls,
        folder: Path | str,
        info: ModelInfo,
        *,
        collection: str = MAIN,
        dim: int | None = None,
        model_hash: str = "",
        threshold: float = DEFAULT_THRESHOLD,
        fusion: str = "max",
        key: GalleryKey | None = None,
        retention_days: int = 0,
        settings: dict[str, str] | None = None,
        operator: str = "",
        purpose: str = "",
    ) -> Gallery:
        """Make an empty collection for one recogniser, and its gallery where there is none.

        Args:
            folder: where; made if missing, and readable by its owner only.
            info: the recogniser's model.json.
            collection: its name; one gallery may hold several watch lists.
            dim: d, for a model.json that does not say it.
            model_hash: `Embedder.model_hash`; the weights' own hash when empty.
            threshold: cosine from which a candidate is accepted.
            fusion: "max": every sample is searched; else one template a person, see `fusion`.
            key: encrypts embeddings and kept pictures; None: they are stored plain.
            retention_days: after which a sample is no longer searched; 0 = never.
            settings: recorded for later commands: "model", "detector", "policy", "flip", "check",
                "keep_pictures".
            operator: for the audit log, the user of this process when empty.
            purpose: for the audit log.

        Raises:
            InputError: such a collection is there already, or the dimension is not known.
        """
        size = dim or info.embedding_dim
        if size is None:
            raise InputError(
                f"{info.name} does not say its embedding dimension; give dim, or register it with "
                "`facerec models add`"
            )
        check_range(threshold, "threshold", -1, 1)
        check_one_of(fusion, "fusion", FUSIONS)
        kept = dict(settings or {})
        check_one_of(kept.get(CHECK, "off"), "check", CHECK_MODES)
        if check_days(retention_days):
            kept[RETENTION_DAYS] = str(retention_days)
        who = operator or audit.current_operator()
        store = create_store(
            Path(folder),
            StoredModel(info.name, model_hash or info.sha256, size),
            kept,
            threshold,
            collection=collection,
            fusion=fusion,
            key=key,
            operator=who,
            purpose=purpose,
        )
        return cls(store, who)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        operator: str = "",
        *,
        collection: str = MAIN,
        key: GalleryKey | None = None,
        index: str = "auto",
        remote: VectorIndex | None = None,
        cache: bool = True,
        locked: bool = False,
    ) -> Gallery:
        """Open a collection of the gallery in `folder`.

        Args:
            folder: of the gallery.
            operator: for the audit log, the user of this process when empty.
            collection: its name.
            key: of an encrypted one.
            index: a rung of `index_ladder`; "auto" chooses by size and memory.
            remote: search there instead of in memory, see `remote`; brought up to date first.
            cache: whether a built index may be kept beside the store.
            locked: without a key an encrypted one is opened for its log and lists alone.

        Raises:
            InputError: there is none, it is damaged, or the key is missing or another.
        """
        store = open_store(Path(folder), collection, key, locked)
        gallery = cls(store, operator, index=index, remote=remote, cache=cache)
        try:
            if not store.locked:
                finish_erasure(store, gallery.operator)
        except BaseException:
            gallery.close()
            raise
        return gallery

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def enrol(
        self,
        person: str,
        vectors: NDArray[np.float32],
        norms: NDArray[np.float32],
        *,
        model_hash: str | None = None,
        origin: Origin | None = None,
        kind: str = PERSON,
        check: str = "",
        purpose: str = "",
        **pictures: Any,
    ) -> Enrolment:
        """Add pictures of one person, in one transaction; durable on return.

        Args:
            person: the name to answer with; a new name makes a new person.
            vectors: float32 (n, d), unit norm.
            norms: float32 (n,), raw norms.
            model_hash: `Embedder.model_hash` of what made them, checked when given.
            origin: documents or scenes, and when they were taken.
            kind: "person", or "stranger": to be turned away, never an answer.
            check: "off", "warn" or "strict": whether these look more like somebody else; the
                gallery's own when empty.
            purpose: for the audit log.
            **pictures: what is known of each, as `make_samples` takes it: pictures (sha256),
                sources, det_scores, qualities, chips.

        Raises:
            InputError: another model, NaN, zero or un-normalised vectors, lengths that differ.
        """
        if model_hash is not None:
            self.check_model(model_hash)
        mode = check or self.store.read_setting(CHECK, "off")
        return enrol_person(
            self, check_person(person), vectors, norms, origin, kind, mode, purpose, pictures
        )

    def enrol_many(
        self,
        people: Sequence[str],
        vectors: NDArray[np.float32],
        norms: NDArray[np.float32],
        *,
        model_hash: str | None = None,
        origin: Origin | None = None,
        kind: str = PERSON,
        purpose: str = "",
        **pictures: Any,
    ) -> Enrolment:
        """Add pictures of many people, all of them in one transaction; nothing is compared.

        Args: as `enrol`; people: one name a row.

        Raises:
            InputError: as `enrol`; then none of them was added.
        """
        if model_hash is not None:
            self.check_model(model_hash)
        names = [check_person(name) for name in people]
        return enrol_batch(self, names, vectors, norms, origin, kind, purpose, pictures)

    def search(
        self,
        vectors: NDArray[np.float32],
        top: int = 5,
        threshold: float | None = None,
        *,
        model_hash: str | None = None,
        probes: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        people: Sequence[str] | None = None,
        investigate: bool = False,
        exact: bool = False,
        purpose: str = "",
    ) -> list[Answer]:
        """Return one answer a probe, each person ranked once, by the best of their templates.

        Args:
            vectors: float32 (m, d), unit norm.
            top: candidates a probe.
            threshold: a cosine in [-1, 1], or a normalised score; the gallery's own when None.
            model_hash: `Embedder.model_hash` of what made them, checked when given.
            probes: sha256 of each probe for the audit log; of the vector itself when not given.
            sources: where each probe is from, for the audit log ("door.mp4 track 3").
            people: search among these alone.
            investigate: no threshold: candidates for somebody to look at, nobody is accepted.
            exact: scan every row, whatever the index.
            purpose: for the audit log.

        Raises:
            InputError: another model, NaN, zero or un-normalised vectors, nobody of that name.
        """
        if model_hash is not None:
            self.check_model(model_hash)
        return answer_probes(
            self, vectors, top, threshold, probes, sources, people, investigate, exact, purpose
        )

    def compare(
        self,
        person: str,
        vectors: NDArray[np.float32],
        threshold: float | None = None,
        *,
        model_hash: str | None = None,
        probes: Sequence[str] | None = None,
        purpose: str = "",
    ) -> list[Comparison]:
        """Return for each probe whether it is this person: 1:1.

        Args: as `search`; threshold: that of `calibrate(fmr=...)` when None, else the gallery's.

        Raises:
            InputError: nobody of that name, another model, bad vectors.
        """
        if model_hash is not None:
            self.check_model(model_hash)
        return compare_probes(self, person, vectors, threshold, probes, purpose)

    def calibrate(
        self,
        vectors: NDArray[np.float32],
        subjects: ArrayLike,
        *,
        fpir: float | None = None,
        fmr: float | None = None,
        people: int | None = None,
        seed: int = 0,
        purpose: str = "",
    ) -> list[Calibration]:
        """Find and store thresholds for stated error rates, from faces of people not enrolled.

        Args:
            vectors: float32 (m, d), unit norm: the impostors' probes, taken as probes will be.
            subjects: (m,), whose each is.
            fpir: share of searches for people who are not in the gallery that may get somebody
                accepted, in (0, 0.5].
            fmr: share of 1:1 comparisons of two people that may be accepted.
            people: the gallery's planned size, its present one when None.
            seed: of the bootstrap.
            purpose: for the audit log.

        Returns:
            One for each rate; those without a threshold say why and store nothing.
        """
        return calibrate(
            self, vectors, subjects, fpir=fpir, fmr=fmr, people=people, seed=seed, purpose=purpose
        )

    def check_question(self, top: int, threshold: float | None = None) -> float:
        """Return the threshold of a search; worth asking before a long job.

        Raises:
            InputError: top is below 1, or the threshold is no score, or there is none.
        """
        return check_limit(self.store, top, threshold)

    def find_owner(self, picture_sha256: str) -> str:
        """Return who a picture is enrolled for, "" when it is not in the collection."""
        with self.store.reading() as connection:
            return find_owner(self.store, connection, picture_sha256)
