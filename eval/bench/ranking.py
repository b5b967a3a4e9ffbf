"""CMC and mAP against the plain Python ranking loop of public re-identification code, same run.

The loop is what the Python version of torchreid's `eval_market1501` does, in our words: argsort the
whole matrix, then for each query drop junk and build the precisions in a list. The sets have the
sizes of Market-1501: 3,368 queries of 750 people by 6 cameras; 15,913 gallery rows, of which 2,798
are background (id 0); 19,732 with the 3,819 junk boxes (id -1) that both must drop.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_whole
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.dist import cpu_count
from facerec.metrics.ranking import JUNK, cmc_map
from facerec.progress import Progress

_PEOPLE, _CAMERAS, _QUERIES = 750, 6, 3368
_ROWS, _BACKGROUND, _JUNK = 13_115, 2_798, 3_819
_LENGTH = 50

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Search:
    """Distances float32 (q, n) and what each row and column is."""

    distances: NDArray[np.float32]
    query_ids: Labels
    gallery_ids: Labels
    query_cameras: Labels
    gallery_cameras: Labels


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.ranking",
        "Time CMC and mAP at the sizes of Market-1501 against the plain Python ranking loop.",
        "python -m eval.bench.ranking --queries 500",
    )
    add = parser.add_argument
    add("--queries", type=int, default=_QUERIES, help="fewer make the loop's minutes shorter")
    add("--repeats", type=int, default=5, help="of our ranking; the median counts")
    add("--threads", type=int, help="of our ranking, all cores when not given")
    add("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    check_whole(arguments.queries, "queries", 1, 1_000_000)
    check_whole(arguments.repeats, "repeats", 1, 1000)
    threads = arguments.threads or cpu_count()
    results = []
    for junk in (0, _JUNK):
        for kind in ("embeddings", "random distances"):
            search = make_search(arguments.queries, junk, kind, arguments.seed)
            result = {"kind": kind, **_measure(search, arguments.repeats, threads)}
            results.append(result)
            sys.stdout.write(
                f"{result['queries']:,} x {result['gallery']:,}, {kind}: "
                f"plain loop {result['loop_s']:.2f} s, ours {result['ours_s'] * 1e3:.0f} ms "
                f"({threads} threads), ratio {result['ratio']:.0f}, mAP {result['mean_ap']:.4f}, "
                f"greatest difference {result['difference']:.1e}\n"
            )
    write_json_result(arguments, {"searches": results, "threads": threads}, seed=arguments.seed)


def make_search(queries: int, junk: int, kind: str, seed: int) -> Search:
    """Return a search of Market-1501's make-up.

    Args:
        queries: number of queries.
        junk: gallery rows with id -1.
        kind: "embeddings": noisy copies of a person's point, a good part of the own rows in front;
            "random distances": the own rows anywhere, the most there is to count.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    query_ids = rng.integers(1, _PEOPLE + 1, queries)
    gallery_ids = np.concatenate(
        [
            rng.integers(1, _PEOPLE + 1, _ROWS),
            np.zeros(_BACKGROUND, np.int64),
            np.full(junk, JUNK, np.int64),
        ]
    )
    rng.shuffle(gallery_ids)
    if kind == "embeddings":
        points = rng.normal(size=(_PEOPLE + 1, 128))

        def embed(ids: Labels) -> NDArray[np.float32]:
            rows = points[np.maximum(ids, 0)] + rng.normal(scale=1.5, size=(ids.size, 128))
            strangers = np.flatnonzero(ids <= 0)
            rows[strangers] = rng.normal(scale=1.8, size=(strangers.size, 128))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            found: NDArray[np.float32] = rows.astype(np.float32)
            return found

        distances = 1 - embed(query_ids) @ embed(gallery_ids).T
    else:
        distances = rng.random((queries, gallery_ids.size), dtype=np.float32)
    cameras = (rng.integers(0, _CAMERAS, rows) for rows in distances.shape)
    return Search(distances, query_ids, gallery_ids, *cameras)


def rank_by_loop(search: Search) -> tuple[NDArray[np.float64], float]:
    """Return CMC at 1 to 50 and mAP by the plain loop over queries."""
    order = np.argsort(search.distances, axis=1)
    curves, precisions = [], []
    with Progress("plain loop", len(order), "queries") as progress:
        for query, columns in enumerate(order):
            names = search.gallery_ids[columns]
            own = names == search.query_ids[query]
            junk = own & (search.gallery_cameras[columns] == search.query_cameras[query])
            right = own[~(junk | (names == JUNK))].astype(np.int32)
            progress.advance()
            if not right.any():
                continue
            found = right.cumsum()
            curves.append(np.minimum(found, 1)[:_LENGTH])
            shares = np.asarray([count / (place + 1.0) for place, count in enumerate(found)])
            precisions.append((shares * right).sum() / right.sum())
    return np.mean(np.asarray(curves, dtype=np.float64), axis=0), float(np.mean(precisions))


def _measure(search: Search, repeats: int, threads: int) -> dict[str, Any]:
    labels = (
        search.query_ids,
        search.gallery_ids,
        search.query_cameras,
        search.gallery_cameras,
    )
    started = time.perf_counter()
    cmc, mean_ap = rank_by_loop(search)
    loop_s = time.perf_counter() - started
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        ours = cmc_map(search.distances, *labels, threads=threads)
        spent.append(time.perf_counter() - started)
    ours_s = float(np.median(spent))
    apart = float(np.abs(ours.cmc[:_LENGTH] - cmc).max())
    return {
        "queries": len(search.query_ids),
        "gallery": len(search.gallery_ids),
        "left_out": ours.left_out,
        "loop_s": loop_s,
        "ours_s": ours_s,
        "ours_runs_s": spent,
        "ratio": loop_s / ours_s,
        "mean_ap": ours.mean_ap,
        "rank_1": float(ours.cmc[0]),
        "difference": max(apart, abs(ours.mean_ap - mean_ap)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
