"""Synthetic data sets on disk: a noisy crawl, documents, pairs; pictures here, truth elsewhere.

Everything is a function of its arguments: the same seed writes the same bytes. Tables are written
last, so that they stand for a finished set; a killed writer is simply started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facerec.checks import InputError
from facerec.data.scene_drawing import (
    ANNOTATION_SCHEMA,
    DrawnScene,
    PlacedFace,
    annotation_row,
    draw_photo,
    nuisance_columns,
    write_table,
)
from facerec.data.scene_plans import (
    CrawlNoise,
    PicturePlan,
    plan_crawl,
    plan_photo,
    sample_people,
    sample_strangers,
)
from facerec.data.scene_video import write_video
from facerec.data.synthetic import Identity, sample_nuisance
from facerec.data.synthetic_camera import encode_jpeg
from facerec.io import write_bytes, write_text
from facerec.progress import Progress

__all__ = [
    "CrawlNoise",
    "Written",
    "sample_people",
    "sample_strangers",
    "write_crawl",
    "write_documents",
    "write_pairs",
    "write_video",
]


@dataclass(frozen=True)
class Written:
    """What a writer left on disk.

    Attributes:
        folder: the set's root.
        annotations: table of faces for the `annotations` detector.
        truth: table of who is really in each picture, outside the root.
        pictures: number of files.
        faces: number of annotated faces.
    """

    folder: Path
    annotations: Path
    truth: Path
    pictures: int
    faces: int


def _draw_plan(plan: PicturePlan) -> tuple[bytes, DrawnScene]:
    """Return a plan's file and where its faces are."""
    scene = draw_photo(plan.faces, plan.width, plan.height, plan.seed, plan.look, plan.plain)
    if plan.kind == "duplicate":
        scene = _shrink(scene, 0.92)
    data = encode_jpeg(scene.image, plan.quality)
    if plan.kind == "unreadable":
        ways = (b"", b"this is no picture\n", data[: len(data) // 3])
        data = ways[plan.seed % 3]
    return data, scene


def _shrink(scene: DrawnScene, factor: float) -> DrawnScene:
    """Return a scene at a smaller size, as a thumbnail server would send it."""
    height, width = scene.image.shape[:2]
    size = (round(width * factor), round(height * factor))
    image = np.asarray(cv2.resize(scene.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ratio = np.array([size[0] / width, size[1] / height], np.float32)
    # Pixel centres, not corners, are at whole numbers.
    landmarks = (scene.landmarks + np.float32(0.5)) * ratio - np.float32(0.5)
    return DrawnScene(image, landmarks, scene.boxes * np.tile(ratio, 2), scene.visible)


def _in_order(
    work: Callable[[PicturePlan], tuple[bytes, DrawnScene]],
    plans: Sequence[PicturePlan],
    threads: int,
) -> Iterator[tuple[PicturePlan, bytes, DrawnScene]]:
    """Yield the plans' results in order; at most a few wait in memory."""
    block = 16 * threads
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(plans), block):
            part = plans[start : start + block]
            for plan, (data, scene) in zip(part, pool.map(work, part), strict=True):
                yield plan, data, scene


def _check_target(folder: Path, truth: Path, plans: Sequence[PicturePlan]) -> None:
    """Refuse to mix with other files; remove what a killed writer left half-done."""
    if truth.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"the truth table must lie outside {folder}, got {truth}")
    wanted = {plan.key for plan in plans} | {"annotations.parquet"}
    stems = {Path(key).stem for key in wanted}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_dir() or path.relative_to(folder).as_posix() in wanted:
            continue
        if path.name.startswith(".") and path.name[1:].split(".")[0] in stems:
            path.unlink()
            continue
        raise InputError(f"{folder} must be empty or hold an earlier run of this set, got {path}")


def _write_plans(
    folder: Path, truth: Path, plans: Sequence[PicturePlan], threads: int, what: str
) -> Written:
    """Write every plan's file, then the annotations, then the truth."""
    _check_target(folder, truth, plans)
    faces: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    with Progress(what, len(plans), "pictures") as progress:
        for plan, data, scene in _in_order(_draw_plan, plans, threads):
            write_bytes(folder / plan.key, data)
            facts += _truth_rows(plan)
            if plan.kind != "unreadable":
                faces += [
                    annotation_row(plan.key, box, marks)
                    for box, marks in zip(scene.boxes, scene.landmarks, strict=True)
                ]
            progress.advance()
    annotations = folder / "annotations.parquet"
    write_table(annotations, faces, ANNOTATION_SCHEMA)
    write_table(truth, facts)
    return Written(folder, annotations, truth, len(plans), len(faces))


def _truth_rows(plan: PicturePlan) -> list[dict[str, Any]]:
    """Return one row a face, the one the picture is about first; one row if there is none."""
    base = {"key": plan.key, "folder": plan.folder, "kind": plan.kind, "copy_of": plan.copy_of}
    if not plan.faces:
        return [
            {**base, "face": -1, "person": "", "eye_distance": 0.0, **nuisance_columns(plan.look)}
        ]
    return [
        {
            **base,
            "face": number,
            "person": face.person.name,
            "eye_distance": face.eye_distance,
            **nuisance_columns(face.nuisance),
        }
        for number, face in enumerate(plan.faces)
    ]


def write_crawl(
    folder: Path,
    truth: Path,
    people: Sequence[Identity],
    images: int,
    seed: int,
    noise: CrawlNoise | None = None,
    long_tail: bool = False,
    threads: int = 2,
) -> Written:
    """Write web-style pictures as a crawler leaves them: one folder a name, with known noise.

    The folder gets `NAME/0000.jpg` and so on and `annotations.parquet`. The truth table has one
    row a face: key, folder, kind (clean, flip, outlier, group, duplicate, no_face, unreadable),
    copy_of, face, person, eye_distance and the nuisance parameters.

    Args:
        folder: root of the set; empty, missing, or of an earlier run with these arguments.
        truth: the Parquet file to write, outside `folder`.
        people: who the folders are named after.
        images: pictures a person, the mean if `long_tail`.
        seed: of everything but the people.
        noise: shares of bad pictures; the default when None.
        long_tail: folder sizes fall as a power law instead of being equal.
        threads: drawing threads.

    Raises:
        InputError: no people, no images, a truth table inside the set, or foreign files in it.
    """
    if not people or images < 1:
        raise InputError(f"a crawl needs people and images, got {len(people)} and {images}")
    plans = plan_crawl(people, images, seed, noise or CrawlNoise(), long_tail)
    return _write_plans(folder, truth, plans, threads, "draw crawl")


def write_documents(
    folder: Path, truth: Path, people: Sequence[Identity], seed: int, threads: int = 2
) -> Written:
    """Write one passport-like picture a person as `NAME/document.jpg`: frontal, even, neutral."""
    plans = []
    for label, person in enumerate(people):
        rng = np.random.default_rng([seed, label, 17])
        nuisance = sample_nuisance(rng, "document")
        width, height, eyes = 280, 360, float(rng.uniform(66, 74))
        centre = (140 + float(rng.normal(0, 2)), 155 + float(rng.normal(0, 3)))
        plans.append(
            PicturePlan(
                key=f"{person.name}/document.jpg",
                folder=person.name,
                kind="document",
                faces=(PlacedFace(person, nuisance, centre, eyes),),
                width=width,
                height=height,
                seed=int(rng.integers(1 << 30)),
                look=nuisance,
                quality=nuisance.jpeg,
                plain=True,
            )
        )
    return _write_plans(folder, truth, plans, threads, "draw documents")


def write_pairs(
    folder: Path,
    truth: Path,
    pairs: Path,
    people: Sequence[Identity],
    images: int,
    seed: int,
    folds: int = 10,
    pairs_per_fold: int = 60,
    threads: int = 2,
) -> Written:
    """Write pictures of held-out people and a pairs file `fold,same,image_a,image_b`.

    Each fold has people of its own, as many same as different pairs, and no pair twice; folds are
    numbered from 1, paths are relative to `folder`.

    Raises:
        InputError: too few people or images for the pairs asked for.
    """
    if len(people) < 2 * folds or images < 2:
        raise InputError(
            f"{folds} folds of pairs need at least {2 * folds} people and 2 images each, "
            f"got {len(people)} and {images}"
        )
    plans = [
        plan_photo(person.name, number, person, "clean", (), [seed, label, number, 19])
        for label, person in enumerate(people)
        for number in range(images)
    ]
    lines = ["fold,same,image_a,image_b"]
    rng = np.random.default_rng([seed, 23])
    for fold in range(folds):
        members = [p.name for p in people[fold::folds]]
        keys = [(name, f"{name}/{i:04d}.jpg") for name in members for i in range(images)]
        every = [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]
        for same in (1, 0):
            fitting = [(a[1], b[1]) for a, b in every if (a[0] == b[0]) == bool(same)]
            wanted = pairs_per_fold // 2
            if len(fitting) < wanted:
                raise InputError(
                    f"fold {fold + 1} has {len(fitting)} pairs of {wanted} asked for; "
                    "give more people or images, or ask for fewer pairs"
                )
            chosen = sorted(rng.choice(len(fitting), wanted, replace=False).tolist())
            lines += [f"{fold + 1},{same},{a},{b}" for a, b in (fitting[i] for i in chosen)]
    written = _write_plans(folder, truth, plans, threads, "draw pairs")
    write_text(pairs, "\n".join(lines) + "\n")
    return written
