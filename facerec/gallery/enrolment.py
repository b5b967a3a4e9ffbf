"""Pictures into the gallery: detect, align, embed, enrol, with a reason for every refusal."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from facerec.checks import InputError, check_one_of
from facerec.data.chip_measures import measure_chips
from facerec.data.images import encode_png
from facerec.data.pictures import DetectedPicture, detect_picture, iter_pictures
from facerec.data.sources import SourceItem
from facerec.embedder import Embedder, Embeddings, embed_pictures
from facerec.gallery.documents_pages import detect_portrait
from facerec.gallery.enrolment_quality import QualityGate, measure_faces
from facerec.gallery.gallery import Gallery
from facerec.gallery.samples import Origin
from facerec.gallery.schema import PERSON, check_person
from facerec.gallery.store import KEEP_PICTURES
from facerec.io import sha256_file
from facerec.structures import FACE_POLICIES, Detector

_BLOCK = 512
"""Pictures that are looked up, then looked at, before the next are."""

ENROLLED, KNOWN, REFUSED = "enrolled", "already enrolled", "refused"


@dataclass(frozen=True)
class EnrolledPicture:
    """What became of one picture; durable when it is given out.

    Attributes:
        key: the picture's path in its source.
        person: whom it was given for.
        status: ENROLLED, KNOWN or REFUSED.
        reason: why it was refused, or what is noteworthy; "" otherwise.
    """

    key: str
    person: str
    status: str
    reason: str = ""


@dataclass
class _Waiting:
    """Pictures of one person that go into the next transaction."""

    person: str = ""
    pictures: list[DetectedPicture] = field(default_factory=list)
    embeddings: list[Embeddings] = field(default_factory=list)


@dataclass(frozen=True)
class _Terms:
    """What holds for all pictures of an enrolment, as `Gallery.enrol` takes it."""

    model_hash: str
    origin: Origin | None
    kind: str
    check: str
    purpose: str


def name_people(items: Iterable[SourceItem], person: str = "") -> list[SourceItem]:
    """Return the items with a person each: `person`, else the folder's, else the file's name.

    Raises:
        InputError: no items, or `person` is no name.
    """
    person = check_person(person) if person else ""
    named = [
        dataclasses.replace(item, identity=person or item.identity or item.path.stem)
        for item in items
    ]
    if not named:
        raise InputError("no pictures to enrol; give a picture, a folder of them or of people")
    return named


def enrol_pictures(
    gallery: Gallery,
    items: Iterable[SourceItem],
    detector: Detector,
    embedder: Embedder,
    policy: str = "largest",
    threads: int | None = None,
    *,
    origin: Origin | None = None,
    document: bool = False,
    kind: str = PERSON,
    gate: QualityGate | None = None,
    check: str = "",
    purpose: str = "",
) -> Iterator[EnrolledPicture]:
    """Enrol pictures and yield what became of each, once it is on disk.

    Pictures that are enrolled already are passed over without detection, so that an interrupted
    enrolment goes on where it was.

    Args:
        gallery: open.
        items: pictures with their person in `identity`.
        detector: what finds the face.
        embedder: the gallery's recogniser.
        policy: which of several faces to take; with "all" such a picture is refused, because one
            name cannot be everybody's.
        threads: for decoding and detection.
        origin: documents or scenes, and when they were taken.
        document: the pictures are pages of documents, of which the main portrait is taken.
        kind: PERSON or STRANGER.
        gate: what a picture must be to be enrolled, see `QualityGate`; None asks for nothing.
        check: as `Gallery.enrol` takes it.
        purpose: for the audit log.

    Raises:
        InputError: the embedder's model is not the gallery's.
    """
    gallery.check_model(embedder.model_hash)
    check_one_of(policy, "face policy", FACE_POLICIES)
    terms = _Terms(embedder.model_hash, origin, kind, check, purpose)
    keep = gallery.store.read_setting(KEEP_PICTURES) == "yes"
    waiting = _Waiting()
    look = detect_portrait if document else detect_picture
    source = iter(items)
    while block := list(itertools.islice(source, _BLOCK)):
        fresh: list[SourceItem] = []
        for item in block:
            known = _look_up(gallery, item)
            if known is None:
                fresh.append(item)
            else:
                yield known
        pictures = iter_pictures(fresh, detector, policy, threads, look)
        for picture, found in embed_pictures(embedder, pictures):
            person = picture.item.identity
            reason = _refuse(picture, found, gate)
            if reason:
                yield EnrolledPicture(picture.item.key, person, REFUSED, reason)
                continue
            if waiting.pictures and (
                person != waiting.person or len(waiting.pictures) >= embedder.batch_size
            ):
                yield from _flush(gallery, waiting, terms, keep)
                waiting = _Waiting()
            waiting.person = person
            waiting.pictures.append(picture)
            waiting.embeddings.append(found)
    yield from _flush(gallery, waiting, terms, keep)


def _look_up(gallery: Gallery, item: SourceItem) -> EnrolledPicture | None:
    """Return what is known of a picture without looking at it, None when it has to be."""
    try:
        person = check_person(item.identity)
    except InputError as error:  # one odd folder must not end the enrolment of the others
        return EnrolledPicture(item.key, item.identity, REFUSED, str(error))
    try:
        owner = gallery.find_owner(sha256_file(item.path))
    except OSError:
        return None  # iter_pictures reports it with its reason
    if not owner:
        return None
    if owner == person:
        return EnrolledPicture(item.key, owner, KNOWN)
    reason = f"this picture is already enrolled for {owner!r}"
    return EnrolledPicture(item.key, item.identity, REFUSED, reason)


def _refuse(picture: DetectedPicture, found: Embeddings, gate: QualityGate | None) -> str:
    if picture.reason:
        return picture.reason
    if not len(found):
        return "no face"
    if len(found) > 1:
        return (
            f"{len(found)} faces and one name; choose one with --policy largest or central, "
            "or crop the picture"
        )
    if not found.norms[0] > 0:
        return "the recogniser gives a zero vector"
    if gate is None:
        return ""
    sharpness = measure_chips(picture.chips).sharpness
    return gate.explain(measure_faces(picture.faces, found.norms, sharpness))[0]


def _flush(
    gallery: Gallery, waiting: _Waiting, terms: _Terms, keep: bool
) -> Iterator[EnrolledPicture]:
    if not waiting.pictures:
        return
    pictures = waiting.pictures
    result = gallery.enrol(
        waiting.person,
        np.concatenate([found.vectors for found in waiting.embeddings]),
        np.concatenate([found.norms for found in waiting.embeddings]),
        pictures=[picture.sha256 for picture in pictures],
        sources=[picture.item.key for picture in pictures],
        det_scores=[float(picture.faces.scores[0]) for picture in pictures],
        chips=[encode_png(picture.chips[0]) for picture in pictures] if keep else None,
        **vars(terms),
    )
    for position, picture in enumerate(pictures):
        reason = result.reasons[position]
        status = KNOWN if reason == KNOWN else REFUSED if reason else ENROLLED
        notes = [] if reason in ("", KNOWN) else [reason]
        if status == ENROLLED:
            if picture.found > 1:
                notes.append(f"{picture.found} faces found, one taken")
            notes += [
                text for text in (picture.note, *result.warnings[position : position + 1]) if text
            ]
        yield EnrolledPicture(picture.item.key, waiting.person, status, "; ".join(notes))
