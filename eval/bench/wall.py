"""Wall time and peak memory of any command, its child processes included (Linux).

Example: `python -m eval.bench.wall --repeat 10 -- facerec --help`
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facerec.command import add_json, build_parser, run_command, write_json_result

_POLL_S = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Measure a command and print the figures."""
    parser = build_parser(
        "python -m eval.bench.wall",
        "Wall time and peak memory of a command and its children.",
        "python -m eval.bench.wall --repeat 10 -- facerec --help",
    )
    parser.add_argument("--repeat", type=int, default=1, help="runs; the median is printed")
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="behind --, with its arguments")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def measure_command(words: Sequence[str], quiet: bool) -> tuple[float, int, int]:
    """Run a command and return wall seconds, peak memory in bytes and its exit code.

    Memory is the sum over the process tree of proportional set sizes (shared pages counted once),
    sampled 20 times a second.
    """
    sink = subprocess.DEVNULL if quiet else None
    started = time.perf_counter()
    with subprocess.Popen(list(words), stdout=sink, stderr=sink) as process:
        peak = 0
        while True:
            peak = max(peak, sum(_read_memory(pid) for pid in _list_tree(process.pid)))
            try:
                code = process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            return time.perf_counter() - started, peak, code


def _list_tree(root: int) -> list[int]:
    tree = [root]
    for pid in tree:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                tree.extend(int(child) for child in children.read_text().split())
            except OSError:  # the process has ended meanwhile
                continue
    return tree


def _read_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _run(arguments: argparse.Namespace) -> int:
    runs = [
        measure_command(arguments.words, quiet=arguments.repeat > 1)
        for _ in range(arguments.repeat)
    ]
    wall = statistics.median(seconds for seconds, _, _ in runs)
    peak = max(memory for _, memory, _ in runs)
    codes = sorted({code for _, _, code in runs})
    sys.stdout.write(
        f"{' '.join(arguments.words)}: {wall:.2f} s wall (median of {len(runs)}), "
        f"{peak / 2**20:.0f} MiB peak, exit {codes}\n"
    )
    result = {"wall_s": [run[0] for run in runs], "peak_bytes": peak, "exit_codes": codes}
    write_json_result(arguments, result)
    return codes[-1]


if __name__ == "__main__":
    sys.exit(main())
