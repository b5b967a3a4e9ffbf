"""All checks of a cleaning round on simulated identities, with time and memory for each size.

Clusters on the sphere with folders of uneven size: a share of the labels is flipped, a share of
the rows shows nobody. What is measured is cost; the clusters are easier than faces.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.provenance import versions

_BLOCK = 1 << 16
_WITHIN = 0.6


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m data_tools.bench.scale",
        "Time the checks of a cleaning round on simulated embeddings.",
        "python -m data_tools.bench.scale --rows 125000 250000",
    )
    add = parser.add_argument
    add("--rows", type=int, nargs="+", default=[125_000], help="sizes, one after the other")
    add("--each", type=int, default=20, help="rows an identity, on average")
    add("--dim", type=int, default=512)
    add("--flips", type=float, default=0.2, help="share of the rows with a wrong identity")
    add("--strangers", type=float, default=0.1, help="share of the rows that show nobody")
    add("--folder", type=Path, help="for embeddings and graph; a temporary one if left")
    add("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    results = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results.append(measure_round(Path(folder), rows, arguments))
        _print_line(results[-1])
    if arguments.json is not None:
        values = {"sizes": results, "versions": versions()}
        write_json_result(arguments, values, seed=arguments.seed, config={"rows": arguments.rows})


def _print_line(result: dict[str, Any]) -> None:
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    sys.stdout.write(
        f"{result['rows']:,} rows, {result['identities']:,} identities: {stages}; in all "
        f"{result['total_s']:.0f} s, {result['peak_gib']:.1f} GiB at most; {result['graph']}; "
        f"rows that end with their person or out as they should: {result['right']:.4f}\n"
    )
    sys.stdout.flush()


def measure_round(folder: Path, rows: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return time, memory and accuracy of a round on simulated rows."""
    from data_tools.duplicates import find_duplicates
    from data_tools.graph import build_graph
    from data_tools.judgement import judge

    vectors, labels, person = simulate(folder / "vectors.npy", rows, arguments)
    seconds: dict[str, float] = {}
    began = time.monotonic()
    graph = build_graph(vectors, 32, folder=folder / "graph", key="simulated")
    seconds["graph"] = time.monotonic() - began
    began = time.monotonic()
    copies = find_duplicates(vectors, labels, graph.neighbours, graph.scores)
    seconds["copies"] = time.monotonic() - began
    began = time.monotonic()
    verdict = judge(vectors, labels, graph.neighbours, photos=np.arange(rows))
    seconds["identities"] = time.monotonic() - began
    return {
        "rows": rows,
        "identities": int(labels.max()) + 1,
        "seconds": seconds,
        "total_s": sum(seconds.values()),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
        "graph": graph.describe(),
        "copies": int(np.count_nonzero(copies.kept_row >= 0)),
        "noise": verdict.noise,
        "right": float((verdict.fate == person).mean()),
    }


def simulate(
    file: Path, rows: int, arguments: argparse.Namespace
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return simulated rows, memory-mapped, with their labels and persons.

    Returns:
        float32 (rows, dim), unit norm; int64 (rows,), the labels given, 0, 1, ... all used; and
        int64 (rows,), who each row shows, -1 for nobody.
    """
    rng = np.random.default_rng(arguments.seed)
    people = max(2, rows // arguments.each)
    sizes = rng.lognormal(0.0, 0.7, people)
    person = np.sort(rng.choice(people, rows, p=sizes / sizes.sum()))
    person = np.unique(person, return_inverse=True)[1].astype(np.int64)
    labels = person.copy()
    flipped = rng.random(rows) < arguments.flips
    labels[flipped] = person[rng.integers(0, rows, int(flipped.sum()))]
    nobody = rng.random(rows) < arguments.strangers
    person = np.where(nobody, -1, person)
    centres = rng.standard_normal((int(labels.max()) + 1, arguments.dim), np.float32)
    out = np.lib.format.open_memmap(file, "w+", np.float32, (rows, arguments.dim))
    for first in range(0, rows, _BLOCK):
        block = slice(first, min(first + _BLOCK, rows))
        noise = rng.standard_normal((block.stop - first, arguments.dim), np.float32)
        # A cosine of c within needs noise of variance (1 - c) / c beside a centre of variance 1.
        mixed = centres[person[block]] + noise * np.float32(((1 - _WITHIN) / _WITHIN) ** 0.5)
        mixed[person[block] < 0] = noise[person[block] < 0]
        out[block] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    order = rng.permutation(rows)
    out[:] = out[order]
    out.flush()
    labels = np.unique(labels[order], return_inverse=True)[1].astype(np.int64)
    return out, labels, _follow(labels, person[order])


def _follow(labels: NDArray[np.int64], person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the persons numbered as their own folders are: by the label most of them have."""
    known = np.flatnonzero(person >= 0)
    pairs, counts = np.unique(
        np.stack([person[known], labels[known]], axis=1), axis=0, return_counts=True
    )
    number = np.full(int(person.max()) + 1, -2, np.int64)
    order = np.argsort(counts, kind="stable")
    number[pairs[order, 0]] = pairs[order, 1]
    return np.asarray(np.where(person >= 0, number[person], -1), np.int64)


if __name__ == "__main__":
    raise SystemExit(main())
