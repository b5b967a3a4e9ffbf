"""Which stills make documents and which make videos: looked at, and dealt out from the seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.simulate_cast import (
    DOCUMENT_ONLY,
    ENROLLED,
    HALVES,
    UNKNOWN,
    Cast,
    Person,
    Still,
)
from eval.simulate_settings import SimulationSettings
from facerec.checks import InputError
from facerec.data.align import ARCFACE_TEMPLATE, similarity_transform
from facerec.data.sources import SourceItem
from facerec.detection import DetectedPicture, iter_pictures
from facerec.progress import Progress
from facerec.structures import Detector

STILLS_A_PERSON = 6
"""Of more stills of a person, only as many are looked at."""
LEAST_EYES_PX = 20.0
"""Stills whose eyes are nearer than this have too little to show."""
_THUMB = 24
_SAME_PICTURE = 0.985  # correlation of two small grey chips from which on they are one picture
_BLOCK = 32  # people looked at between two decisions


@dataclass
class _Looker:
    """Looks at people's stills; remembers what was seen, so that no picture serves twice."""

    detector: Detector
    policy: str
    seen: dict[str, str] = field(default_factory=dict)
    thumbs: list[NDArray[np.float32]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def look(self, items: Iterable[SourceItem]) -> Iterator[Still]:
        """Yield the usable ones of `items`, in order."""
        for picture in iter_pictures(items, self.detector, self.policy):
            reason = picture.reason or self._refuse(picture)
            if reason:
                self.rejected.append((picture.item.key, reason))
                continue
            self.seen[picture.sha256] = picture.item.key
            self.thumbs.append(_shrink(picture.chips[0]))
            self.keys.append(picture.item.key)
            yield _describe(picture)

    def _refuse(self, picture: DetectedPicture) -> str:
        landmarks = picture.faces.landmarks[0]
        matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE)
        eyes = float(ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0])
        eyes /= float(np.hypot(matrix[0, 0], matrix[1, 0]))
        if eyes < LEAST_EYES_PX:
            return f"too small: {eyes:.0f} pixels between the eyes, {LEAST_EYES_PX:.0f} needed"
        if picture.sha256 in self.seen:
            return f"the same file as {self.seen[picture.sha256]}"
        if self.thumbs:
            alike = np.stack(self.thumbs) @ _shrink(picture.chips[0])
            nearest = int(np.argmax(alike))
            if alike[nearest] >= _SAME_PICTURE:
                return f"nearly the same picture as {self.keys[nearest]}"
        return ""


def choose_cast(
    listed: dict[str, list[SourceItem]],
    settings: SimulationSettings,
    detector: Detector,
    policy: str = "central",
) -> Cast:
    """Return who takes part as what, drawn from the seed.

    Enrolled people need two usable stills. Whoever has one becomes an unknown or has a document
    only; people with two fill these parts when there are too few. The most frontal still of an
    enrolled person makes the document. Each part is split evenly between the halves.

    Raises:
        InputError: too few people with usable stills.
    """
    rng = np.random.default_rng([settings.seed, 41])
    names = [list(listed)[i] for i in rng.permutation(len(listed))]
    offers = {name: _draw_stills(listed[name], rng) for name in names}
    looker = _Looker(detector, policy)
    enrolled = settings.count_enrolled()
    lesser = settings.count_unknown() + settings.documents_only
    pairs: list[list[Still]] = []
    singles: list[list[Still]] = []
    several = iter([name for name in names if len(offers[name]) > 1])
    alone = iter([name for name in names if len(offers[name]) == 1])
    with Progress("choose stills", None, "people") as progress:
        while len(pairs) < enrolled and (block := list(islice(several, _BLOCK))):
            for found in _look_at(looker, block, offers):
                (pairs if len(found) > 1 else singles).append(found)
            progress.advance(len(block))
        singles = pairs[enrolled:] + singles
        while len(singles) < lesser and (
            block := list(islice(alone, _BLOCK)) or list(islice(several, _BLOCK))
        ):
            singles += _look_at(looker, block, offers)
            progress.advance(len(block))
    if len(pairs) < enrolled or len(singles) < lesser:
        raise InputError(
            f"{enrolled} enrolled people need two usable stills and {lesser} others one, but "
            f"{min(len(pairs), enrolled)} and {len(singles)} were found among {len(listed)} people "
            f"({_name_rejected(looker.rejected)}); lower --people or give more stills"
        )
    people = _assign(pairs[:enrolled], singles[:lesser], settings)
    return Cast(tuple(sorted(people, key=lambda person: person.name)), tuple(looker.rejected))


def _draw_stills(items: Sequence[SourceItem], rng: np.random.Generator) -> list[SourceItem]:
    chosen = rng.permutation(len(items))[:STILLS_A_PERSON]
    return [items[i] for i in sorted(chosen.tolist())]


def _look_at(
    looker: _Looker, names: Sequence[str], offers: dict[str, list[SourceItem]]
) -> list[list[Still]]:
    """Return the usable stills of each of these people who has any."""
    found: dict[str, list[Still]] = {name: [] for name in names}
    for still in looker.look(item for name in names for item in offers[name]):
        found[still.person].append(still)
    return [stills for stills in found.values() if stills]


def _assign(
    pairs: Sequence[list[Still]], singles: Sequence[list[Still]], settings: SimulationSettings
) -> Iterator[Person]:
    for number, stills in enumerate(pairs):
        document = min(stills, key=lambda still: still.asymmetry)
        videos = tuple(still for still in stills if still is not document)
        yield Person(stills[0].person, ENROLLED, HALVES[number % 2], document, videos)
    unknown = settings.count_unknown()
    for number, stills in enumerate(singles):
        half = HALVES[(number + 1) % 2]  # an odd one evens the halves out
        if number < unknown:
            yield Person(stills[0].person, UNKNOWN, half, None, tuple(stills))
        else:
            yield Person(stills[0].person, DOCUMENT_ONLY, half, stills[0], ())


def _describe(picture: DetectedPicture) -> Still:
    landmarks = picture.faces.landmarks[0]
    left, right = (float(np.linalg.norm(landmarks[2] - landmarks[eye])) for eye in (0, 1))
    return Still(
        path=picture.item.path.resolve(),
        key=picture.item.key,
        person=picture.item.identity,
        sha256=picture.sha256,
        landmarks=tuple((float(x), float(y)) for x, y in landmarks),
        asymmetry=abs(left - right) / max(left + right, 1e-6),
    )


def _shrink(chip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a chip as a small grey picture of mean 0 and norm 1, float32 (576,)."""
    grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small.ravel() / max(float(np.linalg.norm(small)), 1e-6), np.float32)


def _name_rejected(rejected: Sequence[tuple[str, str]]) -> str:
    if not rejected:
        return "no still was unusable"
    key, reason = rejected[0]
    return f"{len(rejected)} stills were not usable, such as {key}: {reason}"
