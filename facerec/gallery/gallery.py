"""The watch list as one object: enrol, search, and "unknown" as an answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_range
from facerec.gallery import audit
from facerec.gallery.consistency import find_mismatches, hash_embedding
from facerec.gallery.index import FlatIndex
from facerec.gallery.schema import Person, Sample, StoredModel, check_person
from facerec.gallery.store import Store, create_store, open_store
from facerec.io import sha256_bytes
from facerec.models.weights import ModelInfo
from facerec.structures import Match

DEFAULT_THRESHOLD = 0.4


@dataclass(frozen=True)
class Enrolment:
    """What became of the pictures that were given.

    Attributes:
        added: positions that are now in the gallery.
        reasons: one a picture: "" = added, else why not ("already enrolled", ...).
    """

    added: list[int]
    reasons: list[str]


@dataclass(frozen=True)
class Answer:
    """What the gallery says about one probe.

    Attributes:
        person: whose score reaches the threshold, None = unknown, which is an answer too.
        matches: the best candidates by score; below the threshold they are listed, not accepted.
        threshold: cosine from which a candidate is accepted.
    """

    person: str | None
    matches: list[Match]
    threshold: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        best = self.matches[0].score if self.matches else None
        return {
            "person": self.person or "unknown",
            "known": self.person is not None,
            "score": best,
            "threshold": self.threshold,
            "candidates": [
                {"rank": m.rank, "person": m.person, "score": m.score, "accepted": m.accepted}
                for m in self.matches
            ],
        }


class Gallery:
    """An open watch list; use `Gallery.create` or `Gallery.open`, best as a context manager.

    What `enrol` returned is on disk. Every call is written to the audit log in the transaction of
    its action, and a search that cannot be logged gives no answer. Threads may share one gallery;
    what another process enrols is seen at the next search.
    """

    def __init__(self, store: Store, operator: str = "") -> None:
        self.store = store
        self.operator = operator or audit.current_operator()
        self._lock = threading.Lock()
        self._index: FlatIndex | None = None
        self._names: list[str] = []
        self._version = -1

    @classmethod
    def create(
        cls,
        folder: Path | str,
        info: ModelInfo,
        *,
        dim: int | None = None,
        model_hash: str = "",
        threshold: float = DEFAULT_THRESHOLD,
        settings: dict[str, str] | None = None,
        operator: str = "",
    ) -> Gallery:
        """Make an empty gallery for one recogniser.

        Args:
            folder: where; made if missing, and readable by its owner only.
            info: the recogniser's model.json.
            dim: d, for a model.json that does not say it.
            model_hash: `Embedder.model_hash`; the weights' own hash when empty.
            threshold: cosine from which a candidate is accepted.
            settings: recorded for later commands: "model", "detector", "policy", "flip".
            operator: for the audit log, the user of this process when empty.

        Raises:
            InputError: a gallery is there already, or the dimension is not known.
        """
        size = dim or info.embedding_dim
        if size is None:
            raise InputError(
                f"{info.name} does not say its embedding dimension; give dim, or register it with "
                "`facerec models add`"
            )
        check_range(threshold, "threshold", -1, 1)
        model = StoredModel(info.name, model_hash or info.sha256, size)
        who = operator or audit.current_operator()
        return cls(create_store(Path(folder), model, settings or {}, threshold, who), who)

    @classmethod
    def open(cls, folder: Path | str, operator: str = "") -> Gallery:
        """Open the gallery in `folder`; InputError when there is none or it is damaged."""
        return cls(open_store(Path(folder)), operator)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self.store.close()

    @property
    def model(self) -> StoredModel:
        """The recogniser whose embeddings this gallery holds."""
        return self.store.model

    def check_model(self, model_hash: str) -> None:
        """Refuse embeddings of another model than the gallery's.

        Raises:
            InputError: the hashes differ.
        """
        if model_hash != self.model.hash:
            raise InputError(
                f"the gallery holds embeddings of {self.model.name} "
                f"({self.model.hash[:16]}…), got those of a model with hash {model_hash[:16]}…; "
                "embeddings of two models cannot be compared: use that model, with the same flip "
                "setting, or create another gallery"
            )

    def enrol(
        self,
        person: str,
        vectors: NDArray[np.float32],
        norms: NDArray[np.float32],
        *,
        model_hash: str | None = None,
        pictures: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        det_scores: Sequence[float] | None = None,
        purpose: str = "",
    ) -> Enrolment:
        """Add pictures of one person, in one transaction; durable on return.

        Args:
            person: the name to answer with; a new name makes a new person.
            vectors: float32 (n, d), unit norm.
            norms: float32 (n,), raw norms.
            model_hash: `Embedder.model_hash` of what made them, checked when given.
            pictures: sha256 of each picture's file; of the vector itself when not given.
            sources: file name of each.
            det_scores: the detector's score of each.
            purpose: for the audit log.

        Raises:
            InputError: another model, NaN, zero or un-normalised vectors, lengths that differ.
        """
        if model_hash is not None:
            self.check_model(model_hash)
        name = check_person(person)
        check_embeddings(vectors, "enrolment vectors", self.model.dim)
        norms = np.asarray(norms, dtype=np.float32)
        if norms.shape != (len(vectors),) or not (np.isfinite(norms) & (norms > 0)).all():
            raise InputError(f"norms must be {len(vectors)} positive numbers, got {norms!r:.80}")
        shas = pictures or [sha256_bytes(vector.tobytes()) for vector in vectors]
        origins = sources or [""] * len(vectors)
        scores = det_scores if det_scores is not None else [None] * len(vectors)
        if not len(shas) == len(origins) == len(scores) == len(vectors):
            raise InputError(f"pictures, sources and det_scores must have length {len(vectors)}")
        samples = [
            Sample(vector, float(norm), sha, source, score)
            for vector, norm, sha, source, score in zip(
                vectors, norms, shas, origins, scores, strict=True
            )
        ]
        with self.store.transaction() as connection:
            added, reasons = self.store.add_samples(name, samples)
            details = {
                "person": name,
                "added": {shas[i]: hash_embedding(vectors[i]) for i in added},
                "refused": {shas[i]: reason for i, reason in enumerate(reasons) if reason},
                "gallery_version": self.store.read_version(),
            }
            audit.append_entry(connection, "enrol", details, self.operator, purpose)
        return Enrolment(added, reasons)

    def search(
        self,
        vectors: NDArray[np.float32],
        top: int = 5,
        threshold: float | None = None,
        *,
        model_hash: str | None = None,
        probes: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        purpose: str = "",
    ) -> list[Answer]:
        """Return one answer a probe, each person ranked once, by the best of their pictures.

        Args:
            vectors: float32 (m, d), unit norm.
            top: candidates a probe.
            threshold: cosine in [-1, 1]; the gallery's own when None.
            model_hash: `Embedder.model_hash` of what made them, checked when given.
            probes: sha256 of each probe for the audit log; of the vector itself when not given.
            sources: where each probe is from, for the audit log ("door.mp4 track 3").
            purpose: for the audit log.

        Raises:
            InputError: another model, NaN, zero or un-normalised vectors.
        """
        if model_hash is not None:
            self.check_model(model_hash)
        check_embeddings(vectors, "probes", self.model.dim)
        limit = self.check_question(top, threshold)
        shas = probes or [sha256_bytes(vector.tobytes()) for vector in vectors]
        origins = sources or [""] * len(vectors)
        if not len(shas) == len(origins) == len(vectors):
            raise InputError(f"probes and sources must have length {len(vectors)}")
        index, names, version = self._fresh_index()
        scores, rows = index.search(vectors, top)
        answers = [
            _answer(row_scores, index.owners, row, names, limit)
            for row_scores, row in zip(scores, rows, strict=True)
        ]
        with self.store.transaction() as connection:
            for sha, origin, answer in zip(shas, origins, answers, strict=True):
                details = {
                    "probe": sha,
                    "source": origin,
                    "top": top,
                    "threshold": limit,
                    "gallery_version": version,
                    "person": answer.person,
                    "candidates": [[m.person, round(m.score, 6)] for m in answer.matches],
                }
                audit.append_entry(connection, "search", details, self.operator, purpose)
        return answers

    def check_question(self, top: int, threshold: float | None = None) -> float:
        """Return the threshold of a search; worth asking before a long job.

        Raises:
            InputError: top is below 1, or the threshold is no cosine.
        """
        if top < 1:
            raise InputError(f"top must be at least 1, got {top}")
        limit = self.store.read_threshold() if threshold is None else threshold
        return check_range(limit, "threshold", -1, 1)

    def people(self) -> list[Person]:
        """Return who is in the gallery, by name."""
        return self.store.list_people()

    def list_audit(self) -> list[audit.AuditEntry]:
        """Return the audit log, oldest first."""
        with self.store.reading() as connection:
            return list(audit.iter_entries(connection))

    def verify_audit(self, noted_head: str = "") -> list[str]:
        """Return what is wrong: with the log, and where the tables differ from what it says."""
        with self.store.snapshot() as connection:
            faults = audit.verify_chain(connection, noted_head)
            return faults or find_mismatches(connection)

    def audit_head(self) -> tuple[int, str]:
        """Return the number of audit entries and the last one's hash."""
        with self.store.reading() as connection:
            return audit.read_head(connection)

    def _fresh_index(self) -> tuple[FlatIndex, list[str], int]:
        """Return an index of the store as it is now, whoever changed it last."""
        with self._lock:
            if self._index is None or self._version != self.store.read_version():
                version, vectors, owners, names = self.store.load_samples()
                self._index = FlatIndex(vectors, owners)
                self._names, self._version = names, version
            return self._index, self._names, self._version


def _answer(
    scores: NDArray[np.float32],
    owners: NDArray[np.int64],
    rows: NDArray[np.int64],
    names: list[str],
    threshold: float,
) -> Answer:
    matches = [
        Match(names[owners[row]], float(score), rank, bool(score >= threshold))
        for rank, (score, row) in enumerate(zip(scores, rows, strict=True), start=1)
        if row >= 0
    ]
    known = bool(matches) and matches[0].accepted
    return Answer(matches[0].person if known else None, matches, threshold)
