"""Speed of the training data path against PIL and torchvision transforms, in one run.

Example: `python -m eval.bench.loader`
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facerec.checks import check_range
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.data.transforms import Augmentation

SIDE, SIZE, BATCH = 250, 112, 64
QUALITY = 90
SEED = 0
TARGET = 2.5  # times the baseline, chips in loose files
_BASELINE = "PIL + torchvision"
_OURS = "facerec, files"
_IMAGES_EACH = 8
# Sensor noise that brings a drawn face to the bytes of a photograph of its size: decoding time
# follows the bytes.
_NOISE = 6.0
_PACKAGES = ("torch", "torchvision", "pillow", "numpy")

Job = Callable[[int], int]
"""Makes every batch of the epoch of this number and returns how many pictures it made."""


@dataclass(frozen=True)
class Figure:
    """The speed of one job, images a second of one core: median and best of the repeats."""

    name: str
    median: float
    best: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures."""
    parser = build_parser(
        "python -m eval.bench.loader",
        f"Images a second of one core from JPEG files of {SIDE} pixels to batches of normalised "
        f"float32 tensors of {SIZE}: our training loader with its default augmentation, and PIL "
        "with torchvision transforms (Resize, RandomHorizontalFlip, ColorJitter of the same "
        "strengths, ToTensor, Normalize). One thread, CPU time, medians of interleaved repeats.",
        "OMP_NUM_THREADS=1 python -m eval.bench.loader --json loader.json",
    )
    parser.add_argument("--images", type=int, default=512, help="pictures, drawn and written here")
    parser.add_argument("--repeats", type=int, default=7, help="of every measurement")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    check_range(arguments.images, "--images", 2 * BATCH, 100_000)
    check_range(arguments.repeats, "--repeats", 1, 1000)
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = _write_pictures(folder, arguments.images)
        figures = _measure(_list_jobs(folder), arguments.repeats)
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    found["cv2"] = cv2.__version__
    sys.stdout.write(
        f"{arguments.images} JPEGs of {SIDE}x{SIDE}, quality {QUALITY}, {size / 1000:.1f} kB; "
        f"{', '.join(f'{name} {version}' for name, version in found.items())}\n"
    )
    result = {"rows": _report(figures), **_judge(figures)}
    config = {
        "images": arguments.images,
        "repeats": arguments.repeats,
        "mean_bytes": size,
        "versions": found,
    }
    write_json_result(arguments, result, seed=SEED, config=config)


def _write_pictures(folder: Path, count: int) -> float:
    """Write drawn faces as `files/PERSON/N.jpg` and as `train.rec`; return their mean bytes."""
    from facerec.data.recordio import RecordWriter
    from facerec.data.synthetic import make_chips

    chips, people, _ = make_chips(-(-count // _IMAGES_EACH), _IMAGES_EACH, SEED)
    rng = np.random.default_rng(SEED)
    total = 0
    with RecordWriter(folder / "train.rec", "insightface") as writer:
        for number, (chip, person) in enumerate(zip(chips[:count], people[:count], strict=True)):
            large = cv2.resize(chip, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            noisy = np.clip(large + rng.normal(0, _NOISE, large.shape), 0, 255).astype(np.uint8)
            bgr = cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR)
            data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            path = folder / "files" / f"{person:06d}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            writer.write(data, int(person))
            total += len(data)
    return total / count


def _list_jobs(folder: Path) -> list[tuple[str, Job]]:
    """Return the baseline and our path, from loose files and from RecordIO."""
    return [
        (_BASELINE, _build_baseline(sorted((folder / "files").rglob("*.jpg")))),
        (_OURS, _build_ours(folder=folder / "files")),
        ("facerec, RecordIO", _build_ours(records=folder)),
    ]


def _build_ours(**place: Path) -> Job:
    """Return the training loader without its threads, and the preparation of its batches."""
    import torch

    from facerec.data.chip_dataset import ChipDataset
    from facerec.data.datasets import read_chip_set
    from facerec.data.loader import ChipLoader
    from facerec.training.state import prepare_images

    chips = read_chip_set(min_images=1, **place)  # type: ignore[arg-type]
    loader = ChipLoader(ChipDataset(chips, SIZE, "none"), BATCH, SEED, Augmentation(), workers=0)
    device = torch.device("cpu")

    def run(epoch: int) -> int:  # channels_last: the default of a recipe
        return sum(
            len(prepare_images(batch.images, device, channels_last=True))
            for batch in loader.iter_epoch(epoch)
        )

    return run


def _build_baseline(paths: Sequence[Path]) -> Job:
    """Return the usual pipeline: PIL pictures through torchvision transforms, stacked."""
    import torch
    from PIL import Image
    from torchvision import transforms

    ours = Augmentation()
    change: Any = transforms.Compose(
        [
            transforms.Resize(SIZE),
            transforms.RandomHorizontalFlip(ours.flip),
            transforms.ColorJitter(brightness=ours.brightness, contrast=ours.contrast),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def load(path: Path) -> Any:
        with Image.open(path) as picture:
            return change(picture.convert("RGB"))

    def run(epoch: int) -> int:
        order = np.random.default_rng([SEED, epoch]).permutation(len(paths))
        whole = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
        return sum(len(torch.stack([load(paths[row]) for row in rows])) for rows in whole)

    return run


def _measure(jobs: list[tuple[str, Job]], repeats: int) -> list[Figure]:
    """Return the speed of every job, the repeats interleaved."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for repeat in range(repeats + 1):
        for row, (_, job) in zip(seconds, jobs, strict=True):
            started = time.process_time()
            made = job(repeat)
            if repeat:  # the first round warms the page cache and the imports
                row.append((time.process_time() - started) / made)
    return [
        Figure(name, 1 / statistics.median(row), 1 / min(row))
        for (name, _), row in zip(jobs, seconds, strict=True)
    ]


def _report(figures: list[Figure]) -> list[dict[str, Any]]:
    """Print a table and return its rows."""
    base = figures[0].median
    lines = [f"  {'':24}{'images/s/core':>14}{'best':>8}{'ratio':>8}"]
    rows = []
    for figure in figures:
        ratio = figure.median / base
        lines.append(f"  {figure.name:24}{figure.median:>14.0f}{figure.best:>8.0f}{ratio:>7.2f}x")
        rows.append({**vars(figure), "ratio": ratio})
    sys.stdout.write("\n".join(lines) + "\n")
    return rows


def _judge(figures: list[Figure]) -> dict[str, Any]:
    """Print whether the target is met and return it."""
    speed = {figure.name: figure.median for figure in figures}
    ratio = speed[_OURS] / speed[_BASELINE]
    met = ratio >= TARGET
    sys.stdout.write(
        f"{_OURS} over {_BASELINE}: {ratio:.2f}x, target {TARGET}x {'met' if met else 'MISSED'}\n"
    )
    return {"ratio": ratio, "target": TARGET, "met": met}


if __name__ == "__main__":
    sys.exit(main())
