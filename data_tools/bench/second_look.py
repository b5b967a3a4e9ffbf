"""A second look at a cleaned set: pairs of one identity by another model, before and after.

Where nobody knows the truth, a model that had no say in the cleaning can still tell whether the
faces that were left together belong together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Labels, Vectors, group_rows
from data_tools.decisions import read_log
from data_tools.log_clean import read_state
from data_tools.round_rows import select_usable
from data_tools.sets import open_set
from data_tools.spaces import embed_rows
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.data.manifest import read_manifest
from facerec.embedder import Embedder
from facerec.provenance import versions

_MOST = 200
QUANTILES = (0.001, 0.01, 0.05, 0.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and return its exit code."""
    parser = build_parser(
        "python -m data_tools.bench.second_look",
        "Score pairs of one identity with a model of your choice, before and after cleaning.",
        "python -m data_tools.bench.second_look set/ --model another.onnx",
    )
    parser.add_argument("out", type=Path, help="set folder that was cleaned")
    parser.add_argument("--model", required=True, help="better one that had no say in the cleaning")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    folder = open_set(arguments.out)
    with folder.lock("second look"):
        manifest = read_manifest(folder.manifest)
        usable = select_usable(manifest)
        embedder = Embedder(arguments.model, flip=arguments.flip)
        embedded = embed_rows(folder, manifest, usable, embedder)
        log = read_log(folder.log)
        _, fates = read_state(folder, log.active)
    after = fates.codes[usable.rows].astype(np.int64)
    blank = [number for number, name in enumerate(fates.names.to_pylist()) if not name]
    after[np.isin(after, blank)] = -1
    results = {
        "as given": describe_pairs(embedded.vectors, usable.labels, arguments.seed),
        "clean set": describe_pairs(embedded.vectors, after, arguments.seed),
    }
    head = "".join(f"{f'{q:.1%} lie under':>18}" for q in QUANTILES)
    sys.stdout.write(f"{'pairs of one identity':24}{'rows':>9}{'pairs':>10}{head}\n")
    for name, found in results.items():
        cells = "".join(f"{value:18.3f}" for value in found["quantiles"])
        sys.stdout.write(f"{name:24}{found['rows']:9,}{found['pairs']:10,}{cells}\n")
    if arguments.json is not None:
        hashes = {"model": embedder.model_hash}
        values: dict[str, Any] = {**results, "versions": versions()}
        config = {"flip": arguments.flip}
        write_json_result(arguments, values, seed=arguments.seed, config=config, hashes=hashes)


def describe_pairs(vectors: Vectors, labels: Labels, seed: int = 0) -> dict[str, Any]:
    """Return how many pairs of one identity were scored, and the quantiles of their cosines.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), -1 for none.
        seed: of the pairs, at most 200 an identity.
    """
    rng = np.random.default_rng(seed)
    scores: list[NDArray[np.float32]] = []
    for rows in group_rows(labels):
        one, two = np.triu_indices(len(rows), 1)
        if len(one) > _MOST:
            chosen = np.sort(rng.choice(len(one), _MOST, replace=False))
            one, two = one[chosen], two[chosen]
        scores.append(np.einsum("pd,pd->p", vectors[rows[one]], vectors[rows[two]]))
    every = np.concatenate(scores) if scores else np.zeros(0, np.float32)
    return {
        "rows": int(np.count_nonzero(labels >= 0)),
        "pairs": len(every),
        "quantiles": np.quantile(every, QUANTILES).tolist() if len(every) else [],
    }


if __name__ == "__main__":
    raise SystemExit(main())
