"""What cleaning is worth to training: one recipe on raw, cleaned and true labels, scored on LFW.

`python -m data_tools.bench.refine DATA OUT --seeds 3`, with DATA as the project's test faces lie:
aligned/ (chips a folder a person), lfw/ (images/ and pairs.csv) with lfw_glint_overlap.txt,
unlabeled/ and weights/. LFW's people are left out of training. The noisy set is made once; it is
cleaned by the shared recogniser, and from nothing by train-and-refine. Run again, it goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.ingest import ingest
from data_tools.inject import NoiseRates
from data_tools.inject_folder import CRAWL, TRUTH, inject
from data_tools.refine import refine
from data_tools.rounds import run_round
from data_tools.score import score_set
from data_tools.sets import SetFolder
from facerec.checks import check_range, check_whole
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.config import load_config
from facerec.data.manifest import read_manifest, write_manifest
from facerec.data.pictures import iter_pictures
from facerec.data.sources import SourceItem
from facerec.detection import build_detector
from facerec.embedder import Embedder
from facerec.io import atomic_path, read_json, write_json
from facerec.metrics.verification import kfold_accuracy, tar_at_far
from facerec.progress import Progress
from facerec.training.memory import keep_freed_memory
from facerec.training.run import ARTEFACT, train
from facerec.training.settings import TrainSettings

ARMS = ("raw", "cleaned by the recogniser", "cleaned from scratch", "true")
FIGURES = ("accuracy", "tar_1e-3")

_GIVEN, _SCRATCH = "set-model", "set-scratch"
_TRUE = "true.parquet"


@dataclass(frozen=True)
class _Pairs:
    """LFW's pairs: chips of its pictures, and which of them are compared.

    Attributes:
        chips: uint8 (m, 112, 112, 3).
        people: text (m,), who each shows.
        first: int64 (p,), positions in `chips`; likewise second.
        same: bool (p,).
        folds: int64 (p,).
    """

    chips: np.ndarray[Any, np.dtype[np.uint8]]
    people: np.ndarray[Any, np.dtype[np.str_]]
    first: np.ndarray[Any, np.dtype[np.int64]]
    second: np.ndarray[Any, np.dtype[np.int64]]
    same: np.ndarray[Any, np.dtype[np.bool_]]
    folds: np.ndarray[Any, np.dtype[np.int64]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench and return its exit code."""
    parser = build_parser(
        "python -m data_tools.bench.refine",
        "Train one recipe on the raw, the cleaned and the true labels of a noisy set of real "
        "faces, and say what share of the gap cleaning closes.",
        "python -m data_tools.bench.refine DATA runs/refine --seeds 3 --json refine.json",
    )
    add = parser.add_argument
    add("data", type=Path, help="folder with aligned/, lfw/, unlabeled/ and weights/")
    add("out", type=Path, help="folder for sets and runs")
    add("--recipe", type=Path, default=Path("configs/faces_small.yaml"))
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override for all trainings"
    )
    add("--refine-set", action="append", default=[], metavar="KEY=VALUE", help="for refine's alone")
    add("--noise", type=float, default=0.3, help="half of it flips, half strangers")
    add("--seeds", type=int, default=3, help="trainings an arm")
    add("--rounds", type=int, default=3, help="of train-and-refine; 0 leaves it out")
    add("--robust", default="coteaching", choices=("coteaching", "subcenter", "none"))
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    check_whole(arguments.seeds, "--seeds", 1, 1000)
    check_whole(arguments.rounds, "--rounds", 0, 1000)
    check_range(arguments.noise, "--noise", 0.0, 0.8)
    keep_freed_memory()
    out = arguments.out.resolve()
    noisy = _make_noise(arguments.data.resolve(), out, arguments.noise)
    cleaning = _clean(arguments, noisy, out)
    placed = zip(ARMS, _place_labels(noisy, out), strict=True)
    manifests = {name: manifest for name, manifest in placed if manifest.is_file()}
    pairs = align_pairs(arguments.data / "lfw", arguments.data / "weights" / "yunet.onnx", out)
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in manifests}
    with Progress("runs", arguments.seeds * len(manifests), "runs") as progress:
        for seed in range(arguments.seeds):
            for name, manifest in manifests.items():
                scores[name].append(_train_and_score(arguments, name, seed, manifest, pairs))
                progress.advance(note=name)
    sys.stdout.write(format_scores(scores) + "\n")
    for name, found in cleaning.items():
        shown = ", ".join(f"{key} {found[key]:.4f}" for key in ("precision", "recall", "f1"))
        sys.stdout.write(f"{name}: wrong rows found with {shown}\n")
    result = {"scores": scores, "cleaning": cleaning}
    write_json_result(arguments, result, seed=0)


def _make_noise(data: Path, out: Path, noise: float) -> Path:
    """Return the folder of the noisy crawl and its truth, made once."""
    noisy = out / f"noisy-{noise:g}"
    if noisy.exists():
        return noisy
    names = (data / "lfw_glint_overlap.txt").read_text(encoding="utf-8").split()
    left_out = {f"glint_{name}" for name in names}
    people = out / "people"
    people.mkdir(parents=True, exist_ok=True)
    for place in sorted((data / "aligned").iterdir()):
        link = people / place.name
        if place.name not in left_out and not link.is_symlink():
            link.symlink_to(place, target_is_directory=True)
    rates = NoiseRates(flips=noise / 2, outliers=noise / 2)
    inject(people, noisy, rates, outliers_from=data / "unlabeled")
    return noisy


def _clean(arguments: argparse.Namespace, noisy: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Clean the set in both ways, and return what of the noise each found."""
    for name in (_GIVEN, _SCRATCH):
        ingest(noisy / CRAWL, out / name, "aligned")
    run_round(out / _GIVEN, arguments.data.resolve() / "weights" / "MobileFaceNet.onnx", flip=True)
    if arguments.rounds:
        refine(
            out / _SCRATCH,
            arguments.recipe,
            rounds=arguments.rounds,
            robust=arguments.robust,
            overrides=[*arguments.set, *arguments.refine_set],
            flip=True,
        )
    scored = {}
    names = (_GIVEN, _SCRATCH) if arguments.rounds else (_GIVEN,)
    for arm, name in zip(ARMS[1 : 1 + len(names)], names, strict=True):
        found = score_set(out / name, noisy / TRUTH, resamples=0)
        keys = ("wrong", "dropped", "hit", "precision", "recall", "f1", "lost_share")
        scored[arm] = {key: found[key] for key in keys}
    return scored


def _place_labels(noisy: Path, out: Path) -> tuple[Path, Path, Path, Path]:
    """Return the manifests of the four arms; that of the true labels is written here."""
    given, scratch = SetFolder(out / _GIVEN), SetFolder(out / _SCRATCH)
    manifest = read_manifest(given.manifest)
    truth = pq.read_table(noisy / TRUTH, columns=["key", "person"])
    keys = pc.cast(truth["key"], pa.string()).combine_chunks()
    place = pc.index_in(manifest["path"], value_set=keys)
    people = pc.fill_null(pc.cast(truth["person"], pa.string()).take(place), "")
    column = manifest.schema.get_field_index("identity")
    named = manifest.set_column(column, "identity", people)
    write_manifest(named.filter(pc.not_equal(people, "")), given.root / _TRUE)
    return given.manifest, given.clean, scratch.clean, given.root / _TRUE


def align_pairs(lfw: Path, detector: Path, out: Path) -> _Pairs:
    """Return LFW's pairs as chips, aligned once and kept in OUT; a face not found is black."""
    with (lfw / "pairs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row[key] for row in rows for key in ("image_a", "image_b")})
    kept = out / "lfw.npy"
    if not kept.is_file():
        chips = np.zeros((len(names), 112, 112, 3), np.uint8)
        items = (SourceItem(lfw / "images" / name, name) for name in names)
        found = iter_pictures(items, build_detector(str(detector)), "central")
        with Progress("align LFW", len(names), "pictures") as progress:
            for row, picture in enumerate(found):
                if len(picture.chips):
                    chips[row] = picture.chips[0]
                progress.advance()
        with atomic_path(kept) as temporary:
            np.save(temporary, chips)
    place = {name: row for row, name in enumerate(names)}
    return _Pairs(
        np.load(kept),
        np.array([name.rsplit("/", 1)[0] for name in names]),
        np.array([place[row["image_a"]] for row in rows]),
        np.array([place[row["image_b"]] for row in rows]),
        np.array([row["same"] == "1" for row in rows]),
        np.array([int(row["fold"]) for row in rows]),
    )


def _train_and_score(
    arguments: argparse.Namespace, name: str, seed: int, manifest: Path, pairs: _Pairs
) -> dict[str, float]:
    run = arguments.out.resolve() / "runs" / name.replace(" ", "-") / str(seed)
    path = run / "scores.json"
    if path.is_file():
        known: dict[str, float] = read_json(path)
        return known
    overrides = [*arguments.set, f"data.manifest={manifest}", f"seed={seed}"]
    train(load_config(TrainSettings, arguments.recipe, overrides), run)
    scores = score_pairs(run / ARTEFACT, pairs)
    write_json(path, scores)
    return scores


def score_pairs(artefact: Path, pairs: _Pairs) -> dict[str, float]:
    """Return accuracy (k folds, LFW's pairs) and TAR at FAR 1e-3 (all pairs of its pictures)."""
    embedder = Embedder(artefact, flip=True, batch_size=64)
    vectors = embedder.embed(pairs.chips).vectors
    listed = np.einsum("nd,nd->n", vectors[pairs.first], vectors[pairs.second])
    one, two = np.triu_indices(len(vectors), 1)
    point = tar_at_far(
        (vectors @ vectors.T)[one, two], pairs.people[one] == pairs.people[two], [1e-3]
    )
    accuracy = kfold_accuracy(listed, pairs.same, pairs.folds).mean
    return {"accuracy": accuracy, "tar_1e-3": point[0].tar}


def format_scores(scores: dict[str, list[dict[str, float]]]) -> str:
    """Return a line an arm: mean and deviation over seeds, and the share of the gap closed.

    The gap is that between the true and the raw labels; where it is not positive, nothing can be
    said of its share.
    """
    lines = [f"{'labels':28}{'seeds':>6}" + "".join(f"{f:>20}{'gap closed':>12}" for f in FIGURES)]
    for name, runs in scores.items():
        cells = ""
        for figure in FIGURES:
            values = [run[figure] for run in runs]
            spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
            low, high = (np.mean([r[figure] for r in scores[a]]) for a in (ARMS[0], ARMS[-1]))
            closed = f"{(np.mean(values) - low) / (high - low):.0%}" if high > low else "-"
            cells += f"{f'{np.mean(values):.4f} ± {spread:.4f}':>20}{closed:>12}"
        lines.append(f"{name:28}{len(runs):6}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
