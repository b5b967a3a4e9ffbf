"""TAR at five FARs against sklearn.roc_curve, and any number of streamed pairs in little memory.

The first part draws scores and lets both find the same figures in the same run. The second makes
embeddings, four of a person, and scores every pair of them block by block, twice over
(`facerec.metrics.roc`); no block is kept. Peak memory is the process's own, so the second part
comes first.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_whole, require
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.metrics.roc import ScoreBlock, trace_roc
from facerec.metrics.verification import tar_at_far
from facerec.progress import Progress

# The strict targets of IJB, and the lax ones, for which the top slice is a tenth of all.
TARGETS = {
    "1e-6 to 1e-2": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    "1e-5 to 1e-1": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
}
_PICTURES = 4
_TILE = 2048


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.roc",
        "Time TAR at five FARs against sklearn.roc_curve; stream many pairs in little memory.",
        "python -m eval.bench.roc --scores 10000000 --pairs 100000000",
    )
    add = parser.add_argument
    add("--scores", type=int, default=10_000_000, help="scores drawn, 0 for none")
    add("--pairs", type=int, default=100_000_000, help="pairs streamed at least, 0 for none")
    add("--dim", type=int, default=512, help="of the embeddings")
    add("--repeats", type=int, default=5, help="of our figures; the median counts")
    add("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    check_whole(arguments.scores, "scores", 0, 10**9)
    check_whole(arguments.pairs, "pairs", 0, 10**12)
    check_whole(arguments.repeats, "repeats", 1, 1000)
    check_whole(arguments.dim, "dim", 2, 1_000_000)
    result: dict[str, Any] = {}
    if arguments.pairs:
        result["stream"] = stream_pairs(arguments.pairs, arguments.dim, arguments.seed)
        found = result["stream"]
        sys.stdout.write(
            f"{found['pairs']:,} pairs of {found['rows']:,} embeddings ({arguments.dim}-d): "
            f"{found['seconds']:.1f} s, peak memory {found['peak_bytes'] / 2**20:.0f} MiB "
            f"({found['base_bytes'] / 2**20:.0f} MiB of it before the first block)\n"
        )
        for point in found["points"]:
            sys.stdout.write(
                f"  FAR {point['far']:.0e}: TAR {point['tar']:.5f} at {point['threshold']:.6f}, "
                f"{point['false_accepts']:,} of {point['allowed_false_accepts']:,} allowed\n"
            )
    if arguments.scores:
        result["compare"] = compare_with_sklearn(
            arguments.scores, arguments.repeats, arguments.seed
        )
        for row in result["compare"]:
            sys.stdout.write(
                f"{arguments.scores:,} scores, FAR {row['targets']}, {row['name']}: "
                f"sklearn.roc_curve {row['sklearn_s']:.2f} s, ours {row['ours_s'] * 1e3:.0f} ms, "
                f"ratio {row['ratio']:.0f}, figures identical: {row['identical']}\n"
            )
    write_json_result(arguments, result, seed=arguments.seed)


def compare_with_sklearn(count: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Return the times of both and whether their figures are equal to the last bit."""
    metrics = require("sklearn.metrics")
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.01
    scores = np.clip(rng.normal(same * 0.45, 0.12), -1, 1).astype(np.float32)
    started = time.perf_counter()
    far, tar, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    sklearn_s = time.perf_counter() - started
    blocks = [
        (part[own], part[~own])
        for part, own in zip(np.array_split(scores, 10), np.array_split(same, 10), strict=True)
    ]
    rows = []
    for name, targets in TARGETS.items():
        # The last point of the curve whose FAR does not exceed the target.
        places = np.searchsorted(far, targets, side="right") - 1
        expected = [(float(tar[k]), float(thresholds[k])) for k in places]
        jobs: dict[str, Callable[[], Any]] = {
            "tar_at_far": lambda t=targets: tar_at_far(scores, same, t),  # type: ignore[misc]
            "trace_roc": lambda t=targets: trace_roc(lambda: blocks, t).points,  # type: ignore[misc]
        }
        for job, run in jobs.items():
            spent = []
            for _ in range(repeats):
                started = time.perf_counter()
                points = run()
                spent.append(time.perf_counter() - started)
            found = [(point.tar, point.threshold) for point in points]
            ours_s = float(np.median(spent))
            rows.append(
                {
                    "targets": name,
                    "name": job,
                    "sklearn_s": sklearn_s,
                    "ours_s": ours_s,
                    "ours_runs_s": spent,
                    "ratio": sklearn_s / ours_s,
                    "identical": found == expected,
                    "tar": [point.tar for point in points],
                }
            )
    return rows


def stream_pairs(least: int, dim: int, seed: int) -> dict[str, Any]:
    """Return figures, time and peak memory of all pairs of so many rows that `least` are made."""
    rows = math.ceil((1 + math.sqrt(1 + 8 * least)) / 2)
    rows = -(-rows // _PICTURES) * _PICTURES
    if rows < 2 * _PICTURES:
        raise InputError(f"pairs must be at least {2 * _PICTURES}, got {least}")
    vectors = make_embeddings(rows, dim, seed)
    pairs = rows * (rows - 1) // 2
    base = _peak_bytes()
    started = time.perf_counter()
    with Progress("stream", 2 * pairs, "pairs") as progress:

        def read() -> Iterator[ScoreBlock]:
            for mated, others in score_blocks(vectors):
                yield mated, others
                progress.advance(mated.size + others.size)

        traced = trace_roc(read, TARGETS["1e-5 to 1e-1"])
    return {
        "rows": rows,
        "pairs": traced.mated + traced.non_mated,
        "mated": traced.mated,
        "seconds": time.perf_counter() - started,
        "peak_bytes": _peak_bytes(),
        "base_bytes": base,
        "eer": traced.eer,
        "points": [asdict(point) for point in traced.points],
    }


def make_embeddings(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Return unit rows, `_PICTURES` neighbours a person, mated cosines about 0.17."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    people = rng.standard_normal((rows // _PICTURES, dim), dtype=np.float32)
    vectors *= np.float32(2.2)  # noise: some pairs of one person look like strangers
    for picture in range(_PICTURES):
        vectors[picture::_PICTURES] += people
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def score_blocks(vectors: NDArray[np.float32]) -> Iterator[ScoreBlock]:
    """Yield mated and non-mated scores of every pair of rows once, tile by tile."""
    none = np.zeros(0, np.float32)
    for top in range(0, len(vectors), _TILE):
        for left in range(top, len(vectors), _TILE):
            block = vectors[top : top + _TILE] @ vectors[left : left + _TILE].T
            if left > top:
                # A tile is a multiple of a person's rows: no person stands in two.
                yield none, block
                continue
            rows = np.arange(len(block))
            above = rows[:, None] < rows[None, :]
            same = rows[:, None] // _PICTURES == rows[None, :] // _PICTURES
            yield block[above & same], block[above & ~same]


def _peak_bytes() -> int:
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
