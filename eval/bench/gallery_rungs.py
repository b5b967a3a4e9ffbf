"""Every rung of the index ladder: build, memory, speed, rank-1, recall; and against raw FAISS.

Example: `python -m eval.bench.gallery_rungs --rows 100000 --json rungs.json`
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from eval.bench.gallery_rungs_data import KINDS, write_faces
from eval.bench.gallery_rungs_job import Job, measure_rung
from facerec.checks import InputError, check_one_of, check_range, check_whole
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.gallery.index_ladder import list_rungs

LEAST_RECALL = 0.999
MOST_BATCH_OVERHEAD = 0.05  # over raw FAISS on the same codes and rows, batch 100
MOST_SINGLE_OVERHEAD_S = 0.0002
_OVERHEAD_RUNGS = ("flat", "pq4+exact", "rabitq+exact")
_MOST_ROWS = 100_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures."""
    parser = build_parser(
        "python -m eval.bench.gallery_rungs",
        "Build time, memory, single and batch-100 queries a second, rank-1 and recall at the "
        "threshold of every rung, on identities with within-identity spread and on isotropic "
        "noise, each rung in a process of its own; and the cost of our search over raw FAISS and "
        "numpy. 1,000,000 rows take some 12 GB of memory, 3 GB of disk and an hour on two cores.",
        "python -m eval.bench.gallery_rungs --rows 10000 100000 --rungs flat rabitq+exact",
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="sizes")
    parser.add_argument("--dim", type=int, default=512, help="of an embedding")
    parser.add_argument("--rungs", nargs="+", help=f"of {', '.join(list_rungs())} (default: all)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="of data")
    parser.add_argument("--threshold", type=float, default=0.35, help="operating threshold, cosine")
    parser.add_argument("--people", type=int, default=10, help="answers a query")
    parser.add_argument("--probes", type=int, default=1200, help="one in six of a stranger")
    parser.add_argument("--edge", type=int, default=500, help="rows moved to just above threshold")
    parser.add_argument("--threads", type=int, help="of the index (default: all cores)")
    parser.add_argument("--repeats", type=int, default=9, help="of every timing, at least")
    parser.add_argument("--no-overhead", action="store_true", help="without FAISS and numpy")
    parser.add_argument("--seed", type=int, default=0, help="of rows and probes")
    parser.add_argument("--folder", type=Path, help="for the rows (default: a temporary one)")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    rungs = arguments.rungs or list_rungs()
    _check(arguments, rungs)
    found: list[dict[str, Any]] = []
    fastest: list[dict[str, Any]] = []
    for rows in arguments.rows:
        for kind in arguments.kinds:
            results = _measure(arguments, rungs, rows, kind)
            found += results
            fastest.append({"kind": kind, "rows": rows, **_name_fastest(results)})
    result = {
        "rungs": found,
        "fastest": fastest,
        "overhead": _judge([each for each in found if "overhead" in each]),
    }
    write_json_result(arguments, result, seed=arguments.seed)


def _check(arguments: argparse.Namespace, rungs: Sequence[str]) -> None:
    for rung in rungs:
        check_one_of(rung, "--rungs", list_rungs())
    for kind in arguments.kinds:
        check_one_of(kind, "--kinds", KINDS)
    for rows in arguments.rows:
        check_whole(rows, "--rows", 1000, _MOST_ROWS)
    check_range(arguments.threshold, "--threshold", 0, 0.95)
    check_whole(arguments.probes, "--probes", 200, 1_000_000)
    for name in ("dim", "people", "edge", "repeats"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(arguments, name)}")


def _measure(
    arguments: argparse.Namespace, rungs: Sequence[str], rows: int, kind: str
) -> list[dict[str, Any]]:
    """Return every rung's figures on one gallery, printed as they come."""
    sys.stdout.write(
        f"{rows:,} rows x {arguments.dim}, {kind}, threshold {arguments.threshold:g}\n"
        f"  {'':14}{'build s':>9}{'index MB':>10}{'held MB':>9}{'peak MB':>9}{'single/s':>10}"
        f"{'batch/s':>9}{'rank-1':>8}{'recall':>9}{'low':>8}{'at edge':>9}\n"
    )
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        faces = write_faces(
            Path(folder) / kind, kind, rows, arguments.dim, arguments.probes, arguments.seed
        )
        for rung in rungs:
            job = Job(
                faces,
                rung,
                arguments.threshold,
                arguments.people,
                arguments.threads,
                arguments.repeats,
                rung in _OVERHEAD_RUNGS and not arguments.no_overhead,
                arguments.edge,
            )
            results.append(_run_alone(job))
            _print_rung(results[-1])
    return results


def _run_alone(job: Job) -> dict[str, Any]:
    """Measure in a new process: the peak of one rung is not another's."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_rung, job).result()


def _print_rung(result: dict[str, Any]) -> None:
    sizes = [result[name] / 1e6 for name in ("index_bytes", "held_bytes", "peak_bytes")]
    sys.stdout.write(
        f"  {result['rung']:14}{result['build_s']:>9.1f}{sizes[0]:>10.0f}{sizes[1]:>9.0f}"
        f"{sizes[2]:>9.0f}{result['single_per_s']:>10.1f}{result['batch_per_s']:>9.0f}"
        f"{result['rank1']:>8.4f}{result['recall']['share']:>9.5f}{result['recall']['low']:>8.4f}"
        f"{result['edge']['share']:>9.4f}\n"
    )
    sys.stdout.flush()


def _name_fastest(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Print and return the fastest rungs of those that miss next to nobody."""
    good = [each for each in results if each["recall"]["share"] >= LEAST_RECALL]
    if not good:
        sys.stdout.write(f"  no rung has recall at threshold >= {LEAST_RECALL}\n")
        return {"single": None, "batch": None}
    single = max(good, key=lambda each: float(each["single_per_s"]))
    batch = max(good, key=lambda each: float(each["batch_per_s"]))
    sys.stdout.write(
        f"  fastest with recall at threshold >= {LEAST_RECALL}: {single['rung']} (single, "
        f"{single['single_per_s']:.1f}/s), {batch['rung']} (batch 100, "
        f"{batch['batch_per_s']:.0f}/s)\n"
    )
    return {"single": single["rung"], "batch": batch["rung"]}


def _judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print and return what our search costs over raw FAISS, by rung and batch."""
    rows = []
    for result in results:
        for measured in result["overhead"]:
            seconds, batch = measured["seconds"], measured["batch"]
            over = seconds["ours"] - seconds["faiss"]
            limit = MOST_SINGLE_OVERHEAD_S if batch == 1 else MOST_BATCH_OVERHEAD * seconds["faiss"]
            others = ", ".join(f"{name} {1e3 * s:.2f} ms" for name, s in seconds.items())
            met = over <= limit
            sys.stdout.write(
                f"{result['kind']} {result['rows']:,} {result['rung']} batch {batch}: {others}; "
                f"ours is {seconds['ours'] / seconds['faiss']:.2f}x FAISS, {1e3 * over:+.2f} ms, "
                f"target {1e3 * limit:.2f} ms {'met' if met else 'MISSED'}\n"
            )
            rows.append(
                {
                    **{name: result[name] for name in ("kind", "rows", "rung")},
                    "batch": batch,
                    "seconds": seconds,
                    "over_s": over,
                    "limit_s": limit,
                    "met": met,
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
