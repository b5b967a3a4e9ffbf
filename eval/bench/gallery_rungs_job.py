"""One rung on one gallery, measured in a process of its own so that its memory is its own."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.bench.gallery_rungs_data import Faces
from facerec.checks import require
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_ladder import build_index
from facerec.gallery.index_recall import measure_recall

BATCH = 100
_LEAST_SECONDS = 1.0
_MOST_CALLS = 400
# Worker threads of the last one go on spinning for a while; they must not slow the next one.
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        faces: the gallery.
        rung: a name of the ladder.
        threshold: operating threshold, the index's floor too.
        people: k of every search.
        threads: of the index; all cores when None.
        repeats: of every timing, at least.
        overhead: whether to compare with raw FAISS and numpy.
        edge: rows moved to the threshold for the harder recall.
    """

    faces: Faces
    rung: str
    threshold: float
    people: int
    threads: int | None
    repeats: int
    overhead: bool
    edge: int


def measure_rung(job: Job) -> dict[str, Any]:
    """Build, search and compare; every figure of one rung, as plain JSON values."""
    rows = np.asarray(job.faces.read("rows"), np.float32)
    owners = np.asarray(job.faces.read("owners"), np.int64)
    probes = np.asarray(job.faces.read("probes"), np.float32)
    truth = np.asarray(job.faces.read("truth"), np.int64)
    started = time.perf_counter()
    index = build_index(
        job.rung, np.arange(len(rows)), rows, owners, threads=job.threads, floor=job.threshold
    )
    build_s = time.perf_counter() - started
    del rows
    gc.collect()
    held = _read_held_bytes()
    single = _time_calls(lambda part: index.search(part, job.people), probes, 1, job.repeats)
    batch = _time_calls(lambda part: index.search(part, job.people), probes, BATCH, job.repeats)
    recall = measure_recall(index, job.threshold, probes=probes, people=job.people)
    edge = measure_recall(index, job.threshold, count=job.edge, people=job.people).edge
    mated = truth >= 0
    first = index.search(probes[mated], 1).owners[:, 0]
    result: dict[str, Any] = {
        "kind": job.faces.kind,
        "rows": job.faces.rows,
        "rung": job.rung,
        "threads": index.workers.count,
        "build_s": build_s,
        "index_bytes": index.memory_bytes,
        "held_bytes": held,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "single_per_s": 1 / single,
        "batch_per_s": BATCH / batch,
        "rank1": float((first == truth[mated]).mean()),
        "recall": asdict(recall.at_threshold),
        "edge": asdict(edge),
    }
    if job.overhead:
        result["overhead"] = _measure_overhead(index, probes, job)
    index.close()
    return result


def _time_calls(
    search: Callable[[NDArray[np.float32]], object],
    probes: NDArray[np.float32],
    batch: int,
    repeats: int,
) -> float:
    """Return the median seconds of a call, each with other probes."""
    seconds: list[float] = []
    for call in range(_MOST_CALLS):
        part = probes[np.arange(call * batch, (call + 1) * batch) % len(probes)]
        started = time.perf_counter()
        search(part)
        if call:  # the first one starts threads and touches memory
            seconds.append(time.perf_counter() - started)
        if len(seconds) >= repeats and sum(seconds) > _LEAST_SECONDS:
            break
    return statistics.median(seconds)


def _measure_overhead(
    index: FlatIndex, probes: NDArray[np.float32], job: Job
) -> list[dict[str, Any]]:
    """Return our seconds a call beside those of others on the same rows, calls interleaved.

    Nobody asks again with more candidates here, which FAISS cannot: same codes, same number.
    """
    found = []
    if isinstance(index, CompressedIndex):
        index.floor = 1.0
    for batch in (1, BATCH):
        jobs = _list_rivals(index, job)
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for repeat in range(job.repeats + 1):
            part = probes[np.arange(repeat * batch, (repeat + 1) * batch) % len(probes)]
            part = np.ascontiguousarray(part)
            for name, search in jobs.items():
                time.sleep(_PAUSE_S)
                search(part)  # wakes its threads and brings its rows near
                started = time.perf_counter()
                search(part)
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        found.append({"batch": batch, "seconds": medians})
    return found


def _list_rivals(index: FlatIndex, job: Job) -> dict[str, Callable[[NDArray[np.float32]], object]]:
    """Return what answers the same question: ours, FAISS and numpy, by name."""
    faiss = require("faiss")
    faiss.omp_set_num_threads(index.workers.count)
    rows, k = index.rows.vectors, job.people
    rivals: dict[str, Callable[[NDArray[np.float32]], object]] = {
        "ours": lambda part: index.search(part, k)
    }
    if isinstance(index, CompressedIndex) and index.codes is not None:
        codes, width = index.codes, max(index.recipe.factor * k, index.recipe.least)
        whole = faiss.deserialize_index(index.dump()[0])
        if hasattr(whole, "invlists") or hasattr(whole, "hnsw"):
            return {**rivals, "codes alone": lambda part: codes.find(part, width, index.workers)}
        whole.reset()
        whole.add(rows)
        refined = faiss.IndexRefineFlat(whole, faiss.swig_ptr(rows))
        refined.k_factor = width / k
        rivals["codes alone"] = lambda part: codes.find(part, width, index.workers)
        # The lambda keeps what lies under the refining index, which does not own it.
        rivals["faiss"] = lambda part, under=whole: refined.search(part, k)  # type: ignore[misc]
    else:
        flat = faiss.IndexFlatIP(index.dim)
        flat.add(rows)
        rivals["faiss"] = lambda part: flat.search(part, k)
        rivals["numpy"] = lambda part: np.argpartition(-(part @ rows.T), k, axis=1)[:, :k]
    return rivals


def _read_held_bytes() -> int:
    """Return the bytes of anonymous memory that this process holds now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
