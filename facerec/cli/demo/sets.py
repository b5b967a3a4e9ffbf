"""What the demo runs on: people who do not exist, or links to a user's own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facerec.checks import InputError
from facerec.io import write_text

CRAWL_PEOPLE, CRAWL_IMAGES = 120, 16
PAIR_PEOPLE, PAIR_IMAGES = 40, 6
LISTED, STRANGERS = 20, 12
ON_VIDEO_LISTED, ON_VIDEO_STRANGERS = 4, 2
PROBE_IMAGES = 4
# A user's set is cut to this, so that the demo stays a demo.
MAX_OWN_PEOPLE, MAX_OWN_IMAGES = 120, 30
MIN_OWN_PEOPLE, MIN_OWN_IMAGES = 8, 3


@dataclass(frozen=True)
class DemoSet:
    """Where everything lies, relative to the demo's folder, and which detector reads it.

    Attributes:
        crawl: a folder a person, noisy; to clean and to train on.
        documents: a folder a person, one document picture each: the watch list.
        probes: a folder a person, listed people and strangers: to search.
        pairs_images: a folder a person; nobody of them is in the other sets.
        pairs: the pairs file over them.
        video: of listed people and strangers.
        listed: who has a document.
        seen: track truth: person and boxes, each frame, x1, y1, x2, y2.
        crawl_detector: of the crawl; likewise the other four.
        documents_detector: a detector's spec.
        probes_detector: a detector's spec.
        pairs_detector: a detector's spec.
        video_detector: a detector's spec.
        truth: of the crawl's noise, "" where nobody knows it.
        synthetic: whether nobody in it exists.
        about: one sentence for the page.
    """

    crawl: str
    documents: str
    probes: str
    pairs_images: str
    pairs: str
    video: str
    listed: list[str]
    seen: list[dict[str, Any]]
    crawl_detector: str
    documents_detector: str
    probes_detector: str
    pairs_detector: str
    video_detector: str
    truth: str
    synthetic: bool
    about: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def draw_set(out: Path, detector: str | None, seed: int) -> DemoSet:
    """Draw a noisy crawl, documents, probes, pairs and a video of people who do not exist."""
    from facerec.data.scene_video import write_video
    from facerec.data.scenes import (
        CrawlNoise,
        sample_people,
        sample_strangers,
        write_crawl,
        write_documents,
        write_pairs,
    )
    from facerec.dist import cpu_count

    truth, threads = out / "truth", cpu_count()
    crawl = sample_people(seed, CRAWL_PEOPLE)
    listed = sample_people(seed, LISTED, first=1000)
    paired = sample_people(seed, PAIR_PEOPLE, first=2000)
    strangers = sample_strangers(seed, STRANGERS)
    clean = CrawlNoise(flips=0, outliers=0, groups=0, duplicates=0, no_face=0, unreadable=0)
    write_crawl(out / "crawl", truth / "crawl.parquet", crawl, CRAWL_IMAGES, seed, threads=threads)
    write_documents(out / "documents", truth / "documents.parquet", listed, seed, threads=threads)
    write_crawl(
        out / "probes",
        truth / "probes.parquet",
        [*listed, *strangers],
        PROBE_IMAGES,
        seed + 1,
        clean,
        threads=threads,
    )
    write_pairs(
        out / "pairs",
        truth / "pairs.parquet",
        out / "pairs.csv",
        paired,
        PAIR_IMAGES,
        seed,
        threads=threads,
    )
    walkers = [*listed[:ON_VIDEO_LISTED], *strangers[:ON_VIDEO_STRANGERS]]
    tables = out / "camera" / "annotations.parquet"
    seen = truth / "camera.parquet"
    write_video(out / "camera" / "camera.mp4", tables, seen, walkers, seed)

    def read_by(name: str) -> str:
        return detector or f"annotations:{out / name / 'annotations.parquet'}"

    return DemoSet(
        crawl="crawl",
        documents="documents",
        probes="probes",
        pairs_images="pairs",
        pairs="pairs.csv",
        video="camera/camera.mp4",
        listed=[person.name for person in listed],
        seen=_read_walks(tables, seen),
        crawl_detector=read_by("crawl"),
        documents_detector=read_by("documents"),
        probes_detector=read_by("probes"),
        pairs_detector=read_by("pairs"),
        video_detector=read_by("camera"),
        truth="truth/crawl.parquet",
        synthetic=True,
        about="Nobody in these pictures exists: they are drawn from a seed, and the video is a "
        "simulation, so the truth is known. Figures on synthetic people say that the line works, "
        "not how well it does on real ones.",
    )


def _read_walks(annotations: Path, truth: Path) -> list[dict[str, Any]]:
    """Return who is seen in which frame, and where.

    Both tables hold the annotated faces frame by frame in one order; only the truth says who.
    """
    import pyarrow.parquet as pq

    facts = pq.read_table(truth, columns=["frame", "person", "annotated"]).to_pylist()
    boxes = pq.read_table(annotations, columns=["x1", "y1", "x2", "y2"]).to_pylist()
    walks: dict[str, list[list[float]]] = {}
    for fact, box in zip([f for f in facts if f["annotated"]], boxes, strict=True):
        walks.setdefault(fact["person"], []).append([fact["frame"], *box.values()])
    return [{"person": person, "boxes": rows} for person, rows in sorted(walks.items())]


def link_set(out: Path, data: Path, detector: str, seed: int) -> DemoSet:
    """Split a user's folder-per-person set by links; the pictures stay where they are.

    Every third person is kept from training: half of those for pairs, half for the watch list,
    of whom every other one is a stranger without a document. Their video is a slide show: each
    picture moves through the scene.

    Raises:
        InputError: too few people with enough pictures.
    """
    from facerec.cli.demo.slides import write_slides
    from facerec.data.sources import open_source

    people: dict[str, list[Path]] = {}
    for item in open_source(data, "folder"):
        people.setdefault(item.identity, []).append(item.path)
    usable = {
        name: paths[:MAX_OWN_IMAGES]
        for name, paths in sorted(people.items())
        if name and len(paths) >= MIN_OWN_IMAGES
    }
    if len(usable) < MIN_OWN_PEOPLE:
        raise InputError(
            f"the demo needs at least {MIN_OWN_PEOPLE} people with {MIN_OWN_IMAGES} pictures each, "
            f"one folder a person; {data} has {len(usable)}"
        )
    order = np.random.default_rng(seed).permutation(sorted(usable))[:MAX_OWN_PEOPLE].tolist()
    held, crawl = order[::3], sorted(set(order) - set(order[::3]))
    paired, watched = held[::2], held[1::2] or held[:1]
    listed, strangers = watched[::2], watched[1::2]
    _link(out / "crawl", {name: usable[name] for name in crawl})
    _link(out / "documents", {name: usable[name][:1] for name in listed})
    _link(out / "probes", {n: usable[n][1 : 1 + PROBE_IMAGES] for n in [*listed, *strangers]})
    _link(out / "pairs", {name: usable[name] for name in paired})
    write_text(out / "pairs.csv", _choose_pairs(paired, usable, seed))
    shown = {name: usable[name][1] for name in [*listed[:4], *strangers[:2]]}
    seen = write_slides(out / "camera" / "camera.mp4", shown)
    return DemoSet(
        crawl="crawl",
        documents="documents",
        probes="probes",
        pairs_images="pairs",
        pairs="pairs.csv",
        video="camera/camera.mp4",
        listed=listed,
        seen=seen,
        crawl_detector=detector,
        documents_detector=detector,
        probes_detector=detector,
        pairs_detector=detector,
        video_detector=detector,
        truth="",
        synthetic=False,
        about=f"{len(order)} of {len(people)} people of your set, at most {MAX_OWN_IMAGES} "
        "pictures each, by links: nothing was copied or changed. The video is simulated: pictures "
        "of your set move through an empty scene.",
    )


def _link(folder: Path, people: dict[str, list[Path]]) -> None:
    for name, paths in people.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / name / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())


def _choose_pairs(people: Sequence[str], usable: dict[str, list[Path]], seed: int) -> str:
    """Return a pairs file: two to ten folds of people of their own, same and different halves."""
    rng = np.random.default_rng([seed, 1])
    folds = max(2, min(10, len(people) // 2))
    if len(people) < 2 * folds:
        folds = 1 if len(people) < 2 else len(people) // 2
    lines = ["fold,same,image_a,image_b"]
    for fold in range(folds):
        keys = [(n, f"{n}/{path.name}") for n in people[fold::folds] for path in usable[n]]
        every = [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]
        for same in (1, 0):
            fitting = [(a[1], b[1]) for a, b in every if (a[0] == b[0]) == bool(same)]
            count = min(30, len(fitting))
            chosen = sorted(rng.choice(len(fitting), count, replace=False).tolist())
            lines += [f"{fold + 1},{same},{a},{b}" for a, b in (fitting[i] for i in chosen)]
    return "\n".join(lines) + "\n"
