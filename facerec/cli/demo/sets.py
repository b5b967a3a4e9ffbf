"""What the demo runs on: people who do not exist, or links to a user's own pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facerec.checks import InputError
from facerec.io import write_text

if TYPE_CHECKING:
    from facerec.data.sources import SourceItem

CRAWL_PEOPLE, CRAWL_IMAGES = 120, 16
PAIR_PEOPLE, PAIR_IMAGES = 40, 6
LISTED, STRANGERS = 20, 12
ON_VIDEO_LISTED, ON_VIDEO_STRANGERS = 4, 2
PROBE_IMAGES = 4
# A user's set is cut to this, so that the demo stays a demo.
MAX_OWN_PEOPLE, MAX_OWN_IMAGES = 120, 30
MIN_OWN_PEOPLE, MIN_OWN_IMAGES = 12, 3


# Below the demo's folder: a folder a person in the first four; nobody of PAIRS is in the others.
CRAWL, DOCUMENTS, PROBES, PAIRS, CAMERA = "crawl", "documents", "probes", "pairs", "camera"
PAIRS_FILE, VIDEO = "pairs.csv", f"{CAMERA}/camera.mp4"


@dataclass(frozen=True)
class DemoSet:
    """What is known of the files of a demo.

    Attributes:
        listed: who has a document.
        seen: track truth: person and boxes, each frame, x1, y1, x2, y2.
        detector: its spec; "" = the annotations that were drawn with each folder.
        truth: of the crawl's noise, relative to the demo's folder; "" where nobody knows it.
        synthetic: whether nobody in it exists.
        about: one sentence for the page.
    """

    listed: list[str]
    seen: list[dict[str, Any]]
    detector: str
    truth: str
    synthetic: bool
    about: str

    def read_by(self, folder: Path) -> str:
        """Return the spec of the detector that reads a folder of the demo."""
        return self.detector or f"annotations:{folder / 'annotations.parquet'}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class PeopleSplit(NamedTuple):
    """Names of four groups that share nobody.

    Attributes:
        crawl: to clean and train on.
        paired: to verify.
        listed: with a document on the watch list.
        strangers: searched for, but on no list.
    """

    crawl: list[str]
    paired: list[str]
    listed: list[str]
    strangers: list[str]


def _draw_files(out: Path, seed: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Draw every file of a synthetic demo; return who is listed, and who is seen where."""
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
    write_crawl(out / CRAWL, truth / "crawl.parquet", crawl, CRAWL_IMAGES, seed, threads=threads)
    write_documents(out / DOCUMENTS, truth / "documents.parquet", listed, seed, threads=threads)
    write_crawl(
        out / PROBES,
        truth / "probes.parquet",
        [*listed, *strangers],
        PROBE_IMAGES,
        seed + 1,
        clean,
        threads=threads,
    )
    write_pairs(
        out / PAIRS,
        truth / "pairs.parquet",
        out / PAIRS_FILE,
        paired,
        PAIR_IMAGES,
        seed,
        threads=threads,
    )
    walkers = [*listed[:ON_VIDEO_LISTED], *strangers[:ON_VIDEO_STRANGERS]]
    tables = out / CAMERA / "annotations.parquet"
    seen = truth / "camera.parquet"
    write_video(out / VIDEO, tables, seen, walkers, seed)
    return [person.name for person in listed], _read_walks(tables, seen)


def draw_set(out: Path, detector: str | None, seed: int) -> DemoSet:
    """Draw a noisy crawl, documents, probes, pairs and a video of people who do not exist.

    Args:
        out: the demo's folder.
        detector: spec of the detector of all of it; the drawn annotations when None.
        seed: of everything random.
    """
    listed, seen = _draw_files(out, seed)
    return DemoSet(
        listed=listed,
        seen=seen,
        detector=detector or "",
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


def find_people(data: Path) -> dict[str, list[SourceItem]]:
    """Return a user's people with enough pictures, by name, each cut to `MAX_OWN_IMAGES`.

    Raises:
        InputError: no such folder, or too few people with enough pictures.
    """
    from facerec.data.sources import open_source

    people: dict[str, list[SourceItem]] = {}
    for item in open_source(data, "folder"):
        people.setdefault(item.identity, []).append(item)
    usable = {
        name: items[:MAX_OWN_IMAGES]
        for name, items in sorted(people.items())
        if name and len(items) >= MIN_OWN_IMAGES
    }
    if len(usable) < MIN_OWN_PEOPLE:
        raise InputError(
            f"the demo needs at least {MIN_OWN_PEOPLE} people with {MIN_OWN_IMAGES} pictures each, "
            f"one folder a person; {data} has {len(usable)}"
        )
    return usable


def split_people(names: Iterable[str], seed: int) -> PeopleSplit:
    """Return at most `MAX_OWN_PEOPLE` of the names in four groups without anybody in common.

    A sixth is kept for pairs, but at least four people: two folds of two. A sixth is kept for the
    watch, at least two: every other one is a stranger without a document.
    """
    drawn = np.random.default_rng(seed).permutation(sorted(names))[:MAX_OWN_PEOPLE].tolist()
    paired = max(4, len(drawn) // 6)
    watched = drawn[paired : paired + max(2, len(drawn) // 6)]
    crawl = sorted(drawn[paired + len(watched) :])
    return PeopleSplit(crawl, drawn[:paired], watched[::2], watched[1::2])


def link_set(out: Path, data: Path, detector: str, seed: int) -> DemoSet:
    """Split a user's folder-per-person set by links; the pictures stay where they are.

    The video of the watched people is a slide show: a picture of each moves through the scene.

    Raises:
        InputError: too few people with enough pictures.
    """
    from facerec.cli.demo.slides import write_slides

    found = find_people(data)
    split = split_people(found, seed)
    people = {name: _name_links(found[name]) for group in split for name in group}
    watched = [*split.listed, *split.strangers]
    _link(out / CRAWL, {name: people[name] for name in split.crawl})
    _link(out / DOCUMENTS, {name: _cut(people[name], 0, 1) for name in split.listed})
    _link(out / PROBES, {name: _cut(people[name], 1, 1 + PROBE_IMAGES) for name in watched})
    _link(out / PAIRS, {name: people[name] for name in split.paired})
    paired = {name: list(people[name]) for name in split.paired}
    write_text(out / PAIRS_FILE, _choose_pairs(paired, seed))
    walkers = [*split.listed[:ON_VIDEO_LISTED], *split.strangers[:ON_VIDEO_STRANGERS]]
    # The document comes last: it would be too easy to find again.
    slides = {name: [*list(people[name].values())[1:], *people[name].values()] for name in walkers}
    seen = write_slides(out / VIDEO, slides)
    return DemoSet(
        listed=split.listed,
        seen=seen,
        detector=detector,
        truth="",
        synthetic=False,
        about=f"{len(people)} people of your set, at most {MAX_OWN_IMAGES} pictures each, by "
        "links: nothing was copied or changed. Training, pairs and watch list share nobody. The "
        "video is simulated: pictures of your set move through an empty scene. The net learns "
        "faces from these people alone, in a minute or two: expect it to be weak; the figures "
        "show the line, not what a well-trained recogniser reaches.",
    )


def _name_links(items: Sequence[SourceItem]) -> dict[str, Path]:
    """Return link name -> picture: its own name, numbered where a deeper folder has it too."""
    links: dict[str, Path] = {}
    for item in items:
        name, number = item.path.name, 2
        while name in links:
            name, number = f"{item.path.stem}-{number}{item.path.suffix}", number + 1
        links[name] = item.path
    return links


def _cut(links: dict[str, Path], start: int, stop: int) -> dict[str, Path]:
    return dict(list(links.items())[start:stop])


def _link(folder: Path, people: dict[str, dict[str, Path]]) -> None:
    for person, links in people.items():
        (folder / person).mkdir(parents=True, exist_ok=True)
        for name, path in links.items():
            link = folder / person / name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())


def _choose_pairs(people: dict[str, list[str]], seed: int) -> str:
    """Return a pairs file: two to ten folds of people of their own, same and different halves.

    Args:
        people: name -> picture names; at least four people of at least two pictures.
        seed: of the choice.
    """
    rng = np.random.default_rng([seed, 1])
    folds = max(2, min(10, len(people) // 2))
    text = io.StringIO()
    # Quoted: names may hold commas, quotation marks and leading spaces.
    table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    table.writerow(["fold", "same", "image_a", "image_b"])
    for fold in range(folds):
        keys = [(n, f"{n}/{name}") for n in list(people)[fold::folds] for name in people[n]]
        every = [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]
        for same in (1, 0):
            fitting = [(a[1], b[1]) for a, b in every if (a[0] == b[0]) == bool(same)]
            count = min(30, len(fitting))
            chosen = sorted(rng.choice(len(fitting), count, replace=False).tolist())
            table.writerows([fold + 1, same, *fitting[i]] for i in chosen)
    return text.getvalue()
