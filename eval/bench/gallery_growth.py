"""How a watch list grows: enrolment, opening, queries and the cost of a search beside its index.

Example: `python -m eval.bench.gallery_growth OUT --rows 10000 100000 1000000 --json growth.json`
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.bench.gallery_people import open_gallery
from eval.bench.gallery_rungs_data import write_faces
from facerec.checks import InputError
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import GalleryKey, make_key, read_key, write_key
from facerec.progress import Progress
from facerec.provenance import versions

DIM = 512
_PART = 5_000
_BATCH = 100
_PROBES = 1_000
_MOST_SECONDS = 20.0


@dataclass(frozen=True)
class Figure:
    """What one size of gallery takes.

    Attributes:
        rows: samples; people: theirs.
        encrypted: whether embeddings are sealed.
        enrolled_a_second: samples, in transactions of 5,000.
        file_gb: size of the gallery's files, with the cached index.
        build_s: opening and the first answer, index built from the store.
        open_s: the same with the cached index, in a new process.
        memory_gb: of that process at its peak.
        rung: of the index.
        single_ms: of a search for one probe, median; index_single_ms: of its index alone.
        batch_ms: a probe, in batches of 100; index_batch_ms likewise.
        enrol_one_ms: one more sample, and the search that finds it.
    """

    rows: int
    people: int
    encrypted: bool
    enrolled_a_second: float
    file_gb: float
    build_s: float
    open_s: float
    memory_gb: float
    rung: str
    single_ms: float
    index_single_ms: float
    batch_ms: float
    index_batch_ms: float
    enrol_one_ms: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each size, print the table and return the exit code."""
    parser = build_parser(
        "python -m eval.bench.gallery_growth",
        "Enrolment a second, opening time and query time of galleries of growing size, and what "
        "a search costs beside its index.",
        "python -m eval.bench.gallery_growth out/ --rows 10000 100000 --json growth.json",
    )
    add = parser.add_argument
    add("out", type=Path, help="new folder for the galleries")
    add("--rows", type=int, nargs="+", default=[10_000, 100_000])
    add("--encrypt", action="store_true", help="seal the embeddings")
    add("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.out.exists():
        raise InputError(f"{arguments.out} exists; give a new folder")
    arguments.out.mkdir(parents=True)
    key_file = None
    if arguments.encrypt:
        key_file = arguments.out / "key"
        write_key(make_key(), key_file)
    figures = []
    for rows in arguments.rows:
        folder = arguments.out / f"{rows}"
        figures.append(_measure(folder, rows, key_file, arguments.seed))
        shutil.rmtree(folder)
        _print(figures[-1])
    result = {"figures": [asdict(figure) for figure in figures], "versions": versions()}
    config = {"rows": arguments.rows, "encrypt": arguments.encrypt}
    write_json_result(arguments, result, seed=arguments.seed, config=config)


def _measure(folder: Path, rows: int, key_file: Path | None, seed: int) -> Figure:
    faces = write_faces(folder / "faces", "clustered", rows, DIM, _PROBES, seed)
    jobs: list[Callable[..., dict[str, Any]]] = [_fill, _build, _ask]
    found: dict[str, Any] = {}
    for job in jobs:  # each in a process of its own: nothing is warm but the disk
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found |= pool.submit(job, folder, key_file).result()
    return Figure(rows=faces.rows, encrypted=key_file is not None, **found)


def _fill(folder: Path, key_file: Path | None) -> dict[str, Any]:
    vectors: NDArray[np.float32] = np.load(folder / "faces/rows.npy", mmap_mode="r")
    owners = np.load(folder / "faces/owners.npy")
    key = read_key(key_file) if key_file else None
    began = time.monotonic()
    with (
        open_gallery(folder / "gallery", DIM, key) as gallery,
        Progress("enrol", len(vectors), "samples") as progress,
    ):
        for start in range(0, len(vectors), _PART):
            part = np.ascontiguousarray(vectors[start : start + _PART])
            names = [f"person {owner}" for owner in owners[start : start + _PART]]
            gallery.enrol_many(names, part, np.ones(len(part), np.float32))
            progress.advance(len(part))
    seconds = time.monotonic() - began
    people = len(np.unique(owners))
    return {"people": people, "enrolled_a_second": len(vectors) / seconds}


def _build(folder: Path, key_file: Path | None) -> dict[str, Any]:
    seconds = _time_first_answer(folder, _open_key(key_file))
    files = (folder / "gallery").iterdir()
    return {"build_s": seconds, "file_gb": sum(path.stat().st_size for path in files) / 1e9}


def _ask(folder: Path, key_file: Path | None) -> dict[str, Any]:
    probes: NDArray[np.float32] = np.load(folder / "faces/probes.npy")
    key = _open_key(key_file)
    found: dict[str, Any] = {"open_s": _time_first_answer(folder, key)}
    found["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    with Gallery.open(folder / "gallery", "bench", key=key) as gallery:
        gallery.search(probes[:1])
        index = gallery.searcher.look().index
        found["rung"] = index.name
        for name, batch in (("single", 1), ("batch", _BATCH)):
            whole, alone = _time_both(
                lambda part: gallery.search(part), lambda part: index.search(part, 5), probes, batch
            )
            found[f"{name}_ms"] = whole / batch * 1e3
            found[f"index_{name}_ms"] = alone / batch * 1e3
        seconds = []
        for row in range(20):
            began = time.monotonic()
            gallery.enrol(f"late {row}", probes[row][None], np.ones(1, np.float32))
            gallery.search(probes[row][None], top=1)
            seconds.append(time.monotonic() - began)
        found["enrol_one_ms"] = statistics.median(seconds) * 1e3
    return found


def _time_first_answer(folder: Path, key: GalleryKey | None) -> float:
    probe = np.load(folder / "faces/probes.npy", mmap_mode="r")[:1]
    began = time.monotonic()
    with Gallery.open(folder / "gallery", "bench", key=key) as gallery:
        gallery.search(np.ascontiguousarray(probe))
        return time.monotonic() - began


def _time_both(
    one: Callable[[NDArray[np.float32]], object],
    two: Callable[[NDArray[np.float32]], object],
    probes: NDArray[np.float32],
    batch: int,
) -> tuple[float, float]:
    """Return the median seconds a call of each, calls interleaved."""
    times: tuple[list[float], list[float]] = ([], [])
    began = time.monotonic()
    for call in range(400):
        part = probes[np.arange(call * batch, (call + 1) * batch) % len(probes)]
        for job, seconds in zip((one, two), times, strict=True):
            started = time.perf_counter()
            job(part)
            seconds.append(time.perf_counter() - started)
        if call >= 4 and time.monotonic() - began > _MOST_SECONDS:
            break
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def _open_key(key_file: Path | None) -> GalleryKey | None:
    return read_key(key_file) if key_file else None


def _print(figure: Figure) -> None:
    over = figure.single_ms - figure.index_single_ms
    share = figure.batch_ms / figure.index_batch_ms - 1
    sys.stdout.write(
        f"{figure.rows:,} samples of {figure.people:,} people, {figure.rung}: "
        f"{figure.enrolled_a_second:,.0f} enrolled/s, {figure.file_gb:.2f} GB on disk, "
        f"{figure.memory_gb:.2f} GB in memory; first answer {figure.build_s:.2f} s built, "
        f"{figure.open_s:.2f} s cached; single {figure.single_ms:.2f} ms (index "
        f"{figure.index_single_ms:.2f}, so {over:+.3f}), batch of 100 {figure.batch_ms:.3f} ms a "
        f"probe ({share:+.1%}); one more sample {figure.enrol_one_ms:.1f} ms\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
