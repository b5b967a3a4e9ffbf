"""Training methods compared on real faces: several seeds each, one table, figures with spread.

Every arm is a recipe and what differs from it; every (arm, seed) is a run folder that resumes.
LFW is never trained on: identities that LFW's list shares with the chips are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.bench.faces_score import score_run
from facerec.checks import InputError
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.dist import cpu_count
from facerec.io import read_json, write_json, write_text
from facerec.progress import Progress

SCORES = "scores.json"
HELD_BACK = 3  # every third unlabelled person is kept for the score


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        group: arms of a group are compared with its first.
        overrides: `key=value` of facerec-train.
        chips: "aligned", or "all" for the unlabelled ones too, each a person of its own.
    """

    group: str
    overrides: tuple[str, ...] = ()
    chips: str = "aligned"


_NOISE = ("data.label_noise=0.3",)
_PEERS = ("noise.name=coteaching", "noise.warmup_epochs=1", "noise.gradual_epochs=2")
_DISTILL = ("loss.distill.teacher={teacher}", "loss.distill.cache={cache}")
ARMS: dict[str, Arm] = {
    "arcface": Arm("heads"),
    "adamargin": Arm("heads", ("head={name: adamargin, params: {scale: 32}}",)),
    "negative_arcface": Arm(
        "heads",
        (
            "head.name=negative_arcface",
            "head.params={scale: 32, margin: 0.25, negative_margin: 0.05}",
        ),
    ),
    "curricularface": Arm(
        "heads", ("head={name: curricularface, params: {scale: 32, margin: 0.3}}",)
    ),
    "adaface": Arm("heads", ("head={name: adaface, params: {scale: 32, margin: 0.3}}",)),
    "noise_plain": Arm("noise", _NOISE),
    "noise_ohem": Arm("noise", (*_NOISE, "mining.name=ohem")),
    "noise_coteaching": Arm("noise", (*_NOISE, *_PEERS, "noise.tau=0.3")),
    "noise_coteaching_auto": Arm("noise", (*_NOISE, *_PEERS)),
    "noise_subcenter": Arm("noise", (*_NOISE, "head.params.sub_centers=3")),
    "noise_partial_filter": Arm(
        "noise", (*_NOISE, "head.params.filter_cosine=0.4", "head.partial={sample_rate: 0.3}")
    ),
    "unknown_without": Arm("unknown"),
    "unknown_uir": Arm("unknown", ("unlabelled.folder={strangers}", "unlabelled.quantile=0.2")),
    "taught_without": Arm("taught"),
    "taught": Arm("taught", (*_DISTILL, "loss.distill.weight=10")),
    "taught_all_chips": Arm(
        "taught",
        (*_DISTILL, "loss.distill.weight=100", "data.min_images=1", "epochs=12"),
        chips="all",
    ),
}
# Arms that are the same recipe share their runs.
_SAME = {"unknown_without": "arcface", "taught_without": "arcface"}


@dataclass
class Bench:
    """Where things are.

    Attributes:
        data: folder with aligned/, unlabeled/, lfw/ and weights/.
        out: run folders and prepared chips.
        recipe: YAML recipe.
        extra: overrides for every arm.
        threads: of each run.
        places: what `{name}` in an override stands for.
    """

    data: Path
    out: Path
    recipe: Path
    extra: tuple[str, ...]
    threads: int
    places: dict[str, str] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.faces",
        "Train and score several methods on real faces; run again, it goes on where it was.",
        "python -m eval.bench.faces DATA runs/faces --seeds 3 --only heads",
    )
    add = parser.add_argument
    add("data", type=Path, help="folder with aligned/, unlabeled/, lfw/ and weights/")
    add("out", type=Path, help="folder for the runs")
    add("--recipe", type=Path, default=Path("configs/faces_small.yaml"))
    add("--set", action="append", default=[], metavar="key=value", help="for every arm")
    add("--only", action="append", default=[], metavar="NAME", help="arms or groups; default all")
    add("--seeds", type=int, default=3)
    add("--jobs", type=int, default=cpu_count(), help="runs at once, sharing the cores")
    add("--table", action="store_true", help="only print what is scored already")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    names = _choose(arguments.only)
    threads = max(1, cpu_count() // arguments.jobs)
    bench = Bench(
        arguments.data.resolve(),
        arguments.out.resolve(),
        arguments.recipe.resolve(),
        tuple(arguments.set),
        threads,
    )
    if not arguments.table:
        _prepare(bench)
        work = dict.fromkeys(
            (_SAME.get(name, name), seed) for seed in range(arguments.seeds) for name in names
        )
        with ThreadPoolExecutor(arguments.jobs) as pool, Progress("runs", len(work), "runs") as bar:
            waiting = [pool.submit(_train_and_score, bench, name, seed) for name, seed in work]
            for future in waiting:
                future.result()
                bar.advance()
    table = {
        name: [
            read_json(path)
            for seed in range(arguments.seeds)
            if (path := bench.out / _SAME.get(name, name) / str(seed) / SCORES).exists()
        ]
        for name in names
    }
    sys.stdout.write(format_scores(table) + "\n")
    if arguments.json is not None:
        write_json_result(arguments.json, {"arms": table}, seed=0, config=vars(arguments))


def _choose(only: Sequence[str]) -> list[str]:
    known = {*ARMS, *(arm.group for arm in ARMS.values())}
    if unknown := [name for name in only if name not in known]:
        raise InputError(f"unknown arm or group {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return [n for n, arm in ARMS.items() if not only or n in only or arm.group in only]


def _prepare(bench: Bench) -> None:
    """Lay out what the arms read: names to leave out, unlabelled people to train on."""
    bench.out.mkdir(parents=True, exist_ok=True)
    shared = (bench.data / "lfw_glint_overlap.txt").read_text(encoding="utf-8").split()
    exclude = bench.out / "exclude.txt"
    write_text(exclude, "".join(f"glint_{name}\n" for name in shared))
    strangers = sorted((bench.data / "unlabeled").iterdir())
    shown = [path for number, path in enumerate(strangers) if number % HELD_BACK]
    _link(bench.out / "strangers", {path.name: path for path in shown})
    people = {path.name: path for path in sorted((bench.data / "aligned").iterdir())}
    for path in shown:
        folder = bench.out / "singles" / path.stem
        _link(folder, {path.name: path})
        people[f"single_{path.stem}"] = folder
    _link(bench.out / "every", people)
    bench.places = {
        "strangers": str(bench.out / "strangers"),
        "cache": str(bench.out / "teacher"),
        "teacher": str(bench.data / "weights" / "MobileFaceNet.onnx"),
    }


def _link(folder: Path, targets: Mapping[str, Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in targets.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)


def _train_and_score(bench: Bench, name: str, seed: int) -> None:
    arm = ARMS[name]
    run = bench.out / name / str(seed)
    if (run / SCORES).exists():
        return
    chips = bench.out / "every" if arm.chips == "all" else bench.data / "aligned"
    command = [
        *(sys.executable, "-m", "facerec.cli.train", str(bench.recipe)),
        *(f"data.folder={chips}", f"data.exclude={bench.out / 'exclude.txt'}"),
        *bench.extra,
        *(_fill(text, bench.places) for text in arm.overrides),
        *(f"run={run}", f"seed={seed}", "data.workers=1"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(bench.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{name}, seed {seed} failed: {done.stderr.strip()[-500:]}")
    write_json(run / SCORES, score_run(run, bench.data, bench.out, HELD_BACK))


def _fill(text: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", place)
    return text


def format_scores(table: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return one line an arm: mean and deviation over seeds, and whether a difference is real.

    An arm's difference from the first of its group is called within the spread when it is less
    than twice its standard error.
    """
    lines = []
    first: dict[str, tuple[str, Sequence[Mapping[str, Any]]]] = {}
    columns = ("accuracy", "tar_1e-4", "tpir_fpir_1e-2", "noise_precision", "noise_recall")
    lines.append(f"{'arm':24}{'seeds':>6}" + "".join(f"{name:>18}" for name in columns))
    for name, runs in table.items():
        if not runs:
            lines.append(f"{name:24}{0:6}")
            continue
        group = ARMS[name].group
        cells = "".join(f"{_format_cell(runs, column):>18}" for column in columns)
        verdict = ""
        if group in first:
            verdict = "  " + _compare(first[group][1], runs, "tar_1e-4", first[group][0])
        else:
            first[group] = (name, runs)
        lines.append(f"{name:24}{len(runs):6}{cells}{verdict}")
    return "\n".join(lines)


def _format_cell(runs: Sequence[Mapping[str, Any]], column: str) -> str:
    values = [run[column] for run in runs if run.get(column) is not None]
    if not values:
        return "-"
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.4f} ± {spread:.4f}"


def _compare(
    base: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], column: str, name: str
) -> str:
    one, two = ([run[column] for run in each] for each in (base, runs))
    if min(len(one), len(two)) < 2:
        return "one seed: no spread"
    difference = float(np.mean(two) - np.mean(one))
    error = float(np.sqrt(np.var(one, ddof=1) / len(one) + np.var(two, ddof=1) / len(two)))
    word = "within the spread" if abs(difference) < 2 * error else "beyond the spread"
    return f"{column} {difference:+.4f} against {name}: {word}"


if __name__ == "__main__":
    raise SystemExit(main())
