"""Cleaning killed at random moments: does the same command end with the same set?

One chain, ingest and then a round, is run undisturbed and timed. Then it is run again and again in
new folders, killed by SIGKILL at a moment drawn at random and started anew, and what it ends with
is compared row by row.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facerec.checks import InputError
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.progress import Progress
from facerec.provenance import versions

_FILES = ("manifest.parquet", "decisions/round-0001.parquet", "clean.parquet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials and return the exit code: 1 when a set differs."""
    parser = build_parser(
        "python -m data_tools.bench.kills",
        "Kill facerec-clean at random moments and compare what it ends with.",
        "python -m data_tools.bench.kills crawl/ out/ --detector yunet.onnx --model net.onnx",
    )
    add = parser.add_argument
    add("source", type=Path, help="pictures to ingest")
    add("out", type=Path, help="new folder for the sets")
    add("--detector", required=True, help="as for facerec-clean ingest")
    add("--model", required=True, help="as for facerec-clean run")
    add("--kills", type=int, default=20)
    add("--seed", type=int, default=0, help="of the moments")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.out.exists():
        raise InputError(f"{arguments.out} exists; give a new folder")
    rng = np.random.default_rng(arguments.seed)
    began = time.monotonic()
    run_chain(arguments, arguments.out / "whole")
    whole = time.monotonic() - began
    wanted = _read(arguments.out / "whole")
    moments = rng.uniform(0, whole, arguments.kills)
    same = []
    with Progress("kills", len(moments), "kills") as progress:
        for number, moment in enumerate(moments):
            folder = arguments.out / f"kill-{number:02d}"
            run_chain(arguments, folder, float(moment))
            run_chain(arguments, folder)
            same.append(_equal(_read(folder), wanted))
            shutil.rmtree(folder)
            progress.advance()
    sys.stdout.write(
        f"{sum(same)} of {len(same)} sets as the undisturbed one; killed after "
        f"{', '.join(f'{moment:.1f}' for moment in sorted(moments))} of {whole:.1f} s\n"
    )
    if arguments.json is not None:
        values = {"same": same, "moments_s": moments.tolist(), "whole_s": whole}
        config = {"kills": arguments.kills, "detector": arguments.detector}
        more = {"versions": versions()}
        write_json_result(arguments, {**values, **more}, seed=arguments.seed, config=config)
    if not all(same):
        raise InputError("a set differs from the undisturbed one; see the figures above")


def run_chain(arguments: argparse.Namespace, folder: Path, kill_after: float | None = None) -> None:
    """Run ingest and a round, or until they are killed.

    Args:
        arguments: source, detector and model.
        folder: the set folder.
        kill_after: seconds from the start.

    Raises:
        InputError: a command that was not killed failed.
    """
    program = [sys.executable, "-c", "from facerec.cli.clean import main; raise SystemExit(main())"]
    deadline = None if kill_after is None else time.monotonic() + kill_after
    for command in (
        ["ingest", str(arguments.source), str(folder), "--detector", arguments.detector],
        ["run", str(folder), "--model", arguments.model],
    ):
        # A group of its own, so that worker processes die with it.
        process = subprocess.Popen(
            [*program, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            _, said = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return
        if process.returncode:
            raise InputError(f"{command[0]} failed: {said.decode().strip()[-300:]}")


def _read(folder: Path) -> list[pa.Table]:
    tables = [pq.read_table(folder / name, partitioning=None) for name in _FILES]
    return [table.replace_schema_metadata(None) for table in tables]


def _equal(one: Sequence[pa.Table], two: Sequence[pa.Table]) -> bool:
    return all(a.equals(b) for a, b in zip(one, two, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
