"""The kNN graph against a plain FAISS flat search and torch matmul + topk, in the same run.

It lies here and not in `eval.bench`, because `eval` does not import `data_tools`. The baselines
search a sample of rows and are scaled to all: their cost is the same for each row.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.graph import METHODS, Graph, build_graph
from facerec.checks import check_range, check_whole, require
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.provenance import versions

PROJECTED_ROWS = 9_000_000

_GENERATED_ROWS = 1 << 16
_TOPK_QUERIES = 256
_REPEATS = 3

Vectors = NDArray[np.float32]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m data_tools.bench.knn_graph",
        "Time the kNN graph of simulated faces against FAISS flat and torch matmul + topk.",
        "python -m data_tools.bench.knn_graph --rows 200000 --k 50",
    )
    add = parser.add_argument
    add("--rows", type=int, default=200_000)
    add("--dim", type=int, default=512)
    add("--per-identity", type=int, default=20, help="rows of an identity")
    add("--cosine", type=float, default=0.6, help="within an identity, mean")
    add("--noise", type=float, default=0.05, help="share of rows that are alone")
    add("--k", type=int, default=32, help="neighbours a row")
    add("--method", choices=METHODS, default="auto")
    add("--queries", type=int, default=3000, help="rows that the baselines search")
    add("--threads", type=int, help="all cores when left out")
    add("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def simulate_faces(
    rows: int,
    per_identity: int = 20,
    *,
    dim: int = 512,
    cosine: float = 0.6,
    noise: float = 0.05,
    seed: int = 0,
) -> tuple[Vectors, NDArray[np.int64]]:
    """Return unit vectors in clusters, float32 (rows, dim), and their identities, int64 (rows,).

    Centres are uniform on the sphere: without the large-scale structure that real faces have
    (age, sex, origin), inverted lists find the least. Rows of an identity follow one another; the
    last ones are alone, each an identity of its own.

    Args:
        rows: n.
        per_identity: rows of an identity; the last one may have fewer.
        dim: d.
        cosine: mean between two rows of an identity, in [0, 1).
        noise: share of rows that are alone, in [0, 1].
        seed: of everything.
    """
    check_range(cosine, "cosine", 0.0, 0.999)
    check_range(noise, "noise", 0.0, 1.0)
    rng = np.random.default_rng(seed)
    grouped = rows - round(noise * rows)
    labels = np.arange(rows, dtype=np.int64)
    labels[:grouped] //= per_identity
    labels[grouped:] += -(-grouped // per_identity) - grouped
    vectors = np.empty((rows, dim), np.float32)
    centres = _draw_units(rng, int(labels.max(initial=-1)) + 1, dim)
    for first in range(0, rows, _GENERATED_ROWS):
        block = labels[first : first + _GENERATED_ROWS]
        drawn = np.float32(np.sqrt(1 - cosine)) * _draw_units(rng, len(block), dim)
        drawn += np.float32(np.sqrt(cosine)) * centres[block]
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        vectors[first : first + len(block)] = drawn
    return vectors, labels


def measure_own(graph: Graph, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """Return which share of their identity's other rows (at most k) `rows` have as neighbours."""
    near = graph.neighbours[rows]
    found = np.count_nonzero((labels[near] == labels[rows, None]) & (near >= 0))
    others = np.minimum(np.bincount(labels)[labels[rows]] - 1, near.shape[1])
    return float(found / max(int(others.sum()), 1))


def _run(arguments: argparse.Namespace) -> None:
    for name in ("rows", "dim", "per_identity", "queries"):
        check_whole(getattr(arguments, name), name, 1, 1 << 40)
    threads = arguments.threads or len(os.sched_getaffinity(0))
    n, k, dim = arguments.rows, arguments.k, arguments.dim
    vectors, labels = simulate_faces(
        n,
        arguments.per_identity,
        dim=dim,
        cosine=arguments.cosine,
        noise=arguments.noise,
        seed=arguments.seed,
    )
    rng = np.random.default_rng(arguments.seed)
    rows = np.sort(rng.choice(n, min(n, arguments.queries), replace=False))
    started = time.monotonic()
    graph = build_graph(vectors, k, method=arguments.method, seed=arguments.seed, threads=threads)
    spent = time.monotonic() - started
    # Taken before the baselines: FAISS flat copies all vectors.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    own = measure_own(graph, labels, rows)
    baselines = time_baselines(vectors, rows, k, threads)
    seconds = {**{name: value * n / len(rows) for name, value in baselines.items()}, "ours": spent}
    # Comparing every pair grows with n^2; with about sqrt(n) lists, finding and scanning some of
    # them grows with n^1.5, and the rest of the work with n.
    growth = PROJECTED_ROWS / n
    power = 2.0 if not graph.sampled else 1.5
    projected = {name: value * growth**2 for name, value in seconds.items()}
    projected["ours"] = spent * growth**power
    lines = [
        f"{n} x {dim}, k {k}, {threads} threads, load {os.getloadavg()[0]:.1f}; baselines measured "
        f"on {len(rows)} rows and scaled"
    ]
    for name, value in seconds.items():
        ratios = "  ".join(f"{seconds[base] / value:6.2f} x {base}" for base in baselines)
        lines.append(
            f"{name:22} {value:9.1f} s  {ratios}  9 M rows: {projected[name] / 3600:8.2f} h"
        )
    lines.append(graph.describe())
    lines.append(f"own identity found {own:.4f}; peak memory {peak / 1e9:.2f} GB")
    lines.append(f"9 M rows: extrapolated, ours with n^{power:g} and as many lists searched a row")
    sys.stdout.write("\n".join(lines) + "\n")
    values = {
        "seconds": seconds,
        "projected_s": projected,
        "projected_rows": PROJECTED_ROWS,
        "own_found": own,
        "recall": graph.recall,
        "near_recall": graph.near_recall,
        "floor": graph.floor,
        "method": graph.method,
        "peak_bytes": peak,
        "load": os.getloadavg()[0],
        "versions": versions(),
    }
    write_json_result(arguments, values, seed=arguments.seed)


def time_baselines(
    vectors: Vectors, rows: NDArray[np.int64], k: int, threads: int
) -> dict[str, float]:
    """Return the seconds that each baseline takes for `rows`, the median of three in turn."""
    import torch

    faiss = require("faiss")
    queries = vectors[rows]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    wanted = min(k + 1, len(vectors))

    def search_torch() -> None:
        whole = torch.from_numpy(vectors).T
        for first in range(0, len(queries), _TOPK_QUERIES):
            part = torch.from_numpy(queries[first : first + _TOPK_QUERIES])
            torch.topk(part @ whole, wanted, dim=1)

    work: dict[str, Callable[[], Any]] = {
        "faiss flat": lambda: index.search(queries, wanted),
        "torch matmul + topk": search_torch,
    }
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    try:
        times = [{name: _time(call) for name, call in work.items()} for _ in range(_REPEATS)]
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])
    return {name: statistics.median(one[name] for one in times) for name in work}


def _time(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _draw_units(rng: np.random.Generator, count: int, dim: int) -> Vectors:
    drawn = rng.standard_normal((count, dim), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


if __name__ == "__main__":
    raise SystemExit(main())
