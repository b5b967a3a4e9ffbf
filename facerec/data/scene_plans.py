"""Plans of synthetic pictures: what each file of a noisy crawl will show, before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from facerec.checks import InputError, check_range
from facerec.data.scene_drawing import PlacedFace
from facerec.data.synthetic import Identity, Nuisance, sample_identity, sample_nuisance

_STRANGERS_FROM = 1_000_000  # identities numbered from here are in no set


@dataclass(frozen=True)
class CrawlNoise:
    """Shares of all pictures of a crawl, each in [0, 1], the sum at most 1; counts are rounded.

    Attributes:
        flips: the picture shows another person of the set.
        outliers: it shows a person that is not in the set.
        groups: the right person with one to three bystanders, who are smaller.
        duplicates: nearly the same file as another picture of its folder.
        no_face: background only.
        unreadable: empty, text under a picture's name, or cut off, in turn.
    """

    flips: float = 0.08
    outliers: float = 0.06
    groups: float = 0.12
    duplicates: float = 0.04
    no_face: float = 0.02
    unreadable: float = 0.02

    def __post_init__(self) -> None:
        shares = [check_range(getattr(self, f.name), f.name, 0, 1) for f in fields(self)]
        if sum(shares) > 1 + 1e-9:
            raise InputError(f"shares of crawl noise must sum to at most 1, got {sum(shares):g}")


@dataclass(frozen=True)
class PicturePlan:
    """One file to be written."""

    key: str
    folder: str
    kind: str
    faces: tuple[PlacedFace, ...]
    width: int
    height: int
    seed: int
    look: Nuisance
    quality: int
    copy_of: str = ""
    plain: bool = False


def sample_people(seed: int, count: int, first: int = 0) -> list[Identity]:
    """Return identities `first` to `first + count - 1` of world `seed`."""
    return [sample_identity(seed, index) for index in range(first, first + count)]


def sample_strangers(seed: int, count: int) -> list[Identity]:
    """Return people of world `seed` who are in no set: crawl outliers and unknown passers-by."""
    return sample_people(seed, count, _STRANGERS_FROM)


def _long_tail(people: int, images: int, rng: np.random.Generator) -> list[int]:
    """Return folder sizes whose mean is about `images`: few large, many small, at least 2."""
    ranks = rng.permutation(people) + 1
    sizes = ranks**-0.5
    sizes = sizes / sizes.mean() * images
    return [max(2, round(float(size))) for size in sizes]


def _place(
    person: Identity, nuisance: Nuisance, rng: np.random.Generator, width: int, height: int
) -> PlacedFace:
    """Return a main face somewhere near the middle of a picture, filling a good part of it."""
    eyes = float(rng.uniform(0.16, 0.24) * min(width, height))
    x = width * (0.5 + rng.uniform(-0.08, 0.08))
    y = max(height * (0.42 + rng.uniform(-0.05, 0.05)), 1.4 * eyes)
    return PlacedFace(person, nuisance, (float(x), float(y)), eyes)


def _place_group(
    main: PlacedFace, strangers: Sequence[Identity], rng: np.random.Generator, width: int
) -> list[PlacedFace]:
    """Return the main face moved to one side and one to three smaller faces beside it."""
    side = 1 if rng.random() < 0.5 else -1
    x, y = width * (0.5 - 0.14 * side), main.centre[1]
    faces = [replace(main, centre=(x, y))]
    reach = 3.0 * main.eye_distance * side
    for number, dx in enumerate((reach, 1.75 * reach, -reach)[: int(rng.integers(1, 4))]):
        nuisance = sample_nuisance(rng, "web")
        eyes = main.eye_distance * float(rng.uniform(0.55, 0.8))
        at_x = x + dx + float(rng.normal(0, 0.1)) * main.eye_distance
        at_y = y + float(rng.uniform(-0.3, 0.4)) * main.eye_distance
        inside = float(np.clip(at_x, 1.3 * eyes, width - 1.3 * eyes))
        # The first always has room; the others come only where they fit.
        if number == 0 or inside == at_x:
            stranger = strangers[int(rng.integers(len(strangers)))]
            faces.append(PlacedFace(stranger, nuisance, (inside, at_y), eyes))
    return faces


def plan_photo(
    folder: str,
    number: int,
    person: Identity,
    kind: str,
    strangers: Sequence[Identity],
    seed: list[int],
) -> PicturePlan:
    """Return the plan of one web picture of `person`."""
    rng = np.random.default_rng(seed)
    nuisance = sample_nuisance(rng, "web")
    width, height = (int(v) // 2 * 2 for v in rng.uniform(160, 300, 2))
    if kind == "group":
        width, height = int(rng.uniform(340, 440)) // 2 * 2, int(rng.uniform(180, 220)) // 2 * 2
    faces: list[PlacedFace] = []
    if kind != "no_face":
        faces = [_place(person, nuisance, rng, width, height)]
    if kind == "group":
        faces = _place_group(faces[0], strangers, rng, width)
    return PicturePlan(
        key=f"{folder}/{number:04d}.jpg",
        folder=folder,
        kind=kind,
        faces=tuple(faces),
        width=width,
        height=height,
        seed=int(rng.integers(1 << 30)),
        look=nuisance,
        quality=nuisance.jpeg,
    )


def _noise_kinds(total: int, noise: CrawlNoise, rng: np.random.Generator) -> list[str]:
    """Return a kind a picture, exactly round(share * total) of each, at random places."""
    kinds: list[str] = []
    names = ("flip", "outlier", "group", "duplicate", "no_face", "unreadable")
    for name, field in zip(names, fields(noise), strict=True):
        kinds += [name] * round(getattr(noise, field.name) * total)
    kinds = kinds[:total] + ["clean"] * max(0, total - len(kinds))
    return [kinds[i] for i in rng.permutation(total)]


def plan_crawl(
    people: Sequence[Identity], images: int, seed: int, noise: CrawlNoise, long_tail: bool
) -> list[PicturePlan]:
    """Return what every file of a crawl shows, sorted by key; a function of its arguments."""
    rng = np.random.default_rng([seed, 11])
    sizes = _long_tail(len(people), images, rng) if long_tail else [images] * len(people)
    kinds = iter(_noise_kinds(sum(sizes), noise, rng))
    strangers = sample_strangers(seed, max(8, len(people)))
    plans: list[PicturePlan] = []
    for label, (person, size) in enumerate(zip(people, sizes, strict=True)):
        originals: list[PicturePlan] = []
        copies: list[int] = []
        for number in range(size):
            kind = next(kinds)
            shown = person
            if kind == "flip" and len(people) > 1:
                shown = people[(label + int(rng.integers(1, len(people)))) % len(people)]
            elif kind == "outlier":
                shown = strangers[int(rng.integers(len(strangers)))]
            if kind == "duplicate":
                copies.append(number)
                continue
            parts = [seed, label, number, 13]
            originals.append(plan_photo(person.name, number, shown, kind, strangers, parts))
        plans += originals + _plan_copies(person, originals, copies, strangers, rng, seed, label)
    return sorted(plans, key=lambda plan: plan.key)


def _plan_copies(
    person: Identity,
    originals: Sequence[PicturePlan],
    numbers: Sequence[int],
    strangers: Sequence[Identity],
    rng: np.random.Generator,
    seed: int,
    label: int,
) -> list[PicturePlan]:
    """Return near-duplicates of a folder's clean pictures: recompressed and a little smaller."""
    sources = [plan for plan in originals if plan.kind == "clean"]
    copies = []
    for number in numbers:
        if sources:
            source = sources[int(rng.integers(len(sources)))]
        else:  # a folder of nothing but noise still gets its duplicate: of a picture of its own
            source = plan_photo(
                person.name, number, person, "clean", strangers, [seed, label, number]
            )
        copies.append(
            replace(
                source,
                key=f"{person.name}/{number:04d}.jpg",
                kind="duplicate",
                quality=max(40, source.quality - 15),
                copy_of=source.key if sources else "",
            )
        )
    return copies
