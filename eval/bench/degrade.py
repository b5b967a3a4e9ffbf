"""Images a second of every degradation on one core, against decoding the same chips from JPEG.

Example: `python -m eval.bench.degrade`
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from facerec.checks import InputError, MissingPackageError, check_range
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.data.degrade import Degradation
from facerec.data.degrade_codec import H264, Jpeg, check_h264
from facerec.data.degrade_operation import Image, Operation
from facerec.data.degrade_optics import Defocus, DownUp, Interlace, Motion
from facerec.data.degrade_print import PrintScan
from facerec.data.degrade_sensor import LowLight, SensorNoise
from facerec.data.synthetic import make_chips
from facerec.data.synthetic_camera import encode_jpeg
from facerec.data.transforms import Augmentation, Photometric

BASELINE = "JPEG decoding"
_CHIPS = 24
_LEAST_S = 0.05

Job = Callable[[int], Any]


class Figure(NamedTuple):
    """Median speed of one job, images a second."""

    name: str
    images_per_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures."""
    parser = build_parser(
        "python -m eval.bench.degrade",
        "Images a second of every degradation and augmentation on one core, 112x112 synthetic "
        "chips, medians of interleaved repeats, and the ratio to decoding such a chip from JPEG, "
        "which a loader does anyway.",
        "python -m eval.bench.degrade --json degrade.json",
    )
    parser.add_argument("--repeats", type=int, default=5, help="of every measurement")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def list_operations() -> list[tuple[str, Operation]]:
    """Return every operation, mild and harsh, named."""
    return [
        ("down_up, scale 0.5", DownUp(0.5, "area", "linear")),
        ("down_up, scale 0.2", DownUp(0.2, "area", "cubic")),
        ("defocus, radius 1", Defocus(1.0)),
        ("defocus, radius 4", Defocus(4.0)),
        ("motion, length 4", Motion(4.0, 30)),
        ("motion, length 12, bent", Motion(12.0, 30, 30)),
        ("interlace, weave", Interlace(2.0)),
        ("interlace, bob", Interlace(2.0, "bob")),
        ("sensor_noise, mosaic", SensorNoise(16.0)),
        ("sensor_noise, no mosaic", SensorNoise(16.0, mosaic=False)),
        ("sensor_noise, pattern", SensorNoise(16.0, prnu=0.01, column_electrons=1.0)),
        ("low_light, 3 stops", LowLight(3.0)),
        ("h264, crf 24", H264(24, 4, 1.3, 0.4)),
        ("h264, crf 38", H264(38, 4, 1.3, 0.4)),
        ("jpeg, quality 90", Jpeg(90)),
        ("jpeg, quality 30", Jpeg(30)),
        ("print_scan, no dots", PrintScan(0.8, 0.02, 0.9, 0.1, texture=0.02, quality=70)),
        ("print_scan, all", PrintScan.draw(1.0, np.random.default_rng(11))),
    ]


def _run(arguments: argparse.Namespace) -> None:
    check_range(arguments.repeats, "--repeats", 1, 1000)
    chips = make_chips(_CHIPS // 4, 4, seed=0)[0]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        figures = _measure(_list_jobs(list(chips)), arguments.repeats)
    finally:
        cv2.setNumThreads(threads)
    rows = _report(figures)
    write_json_result(arguments, {"rows": rows}, seed=0, config={"repeats": arguments.repeats})


def _list_jobs(chips: list[Image]) -> list[tuple[str, Job]]:
    """Return (name, job on the n-th image), the baseline first."""
    files = [np.frombuffer(encode_jpeg(chip, 95), np.uint8) for chip in chips]
    jobs: list[tuple[str, Job]] = [
        (BASELINE, lambda n: cv2.imdecode(files[n % _CHIPS], cv2.IMREAD_COLOR))
    ]
    h264 = 0.6
    try:
        check_h264()
    except MissingPackageError as error:
        sys.stderr.write(f"h264 is left out: {error}\n")
        h264 = 0.0
    for name, operation in list_operations():
        if h264 or not isinstance(operation, H264):
            jobs.append((name, _bind(operation, chips)))
    presets = {
        "Degradation()": (Degradation(), False),
        "surveillance(0.5)": (Degradation.surveillance(0.5, h264=h264), False),
        "surveillance(0.5), forced": (Degradation.surveillance(0.5, h264=h264), True),
        "document(0.5), forced": (Degradation.document(0.5), True),
    }
    for name, (degradation, force) in presets.items():
        jobs.append((name, _bind_preset(degradation, force, chips)))
    light = Augmentation()
    jobs.append(("Augmentation()", lambda n: light.apply(chips[n % _CHIPS], _rng(n))))
    try:
        colour = Photometric()
    except InputError as error:
        sys.stderr.write(f"Photometric is left out: {error}\n")
    else:
        jobs.append(("Photometric()", lambda n: colour.apply(chips[n % _CHIPS], _rng(n))))
    return jobs


def _bind(operation: Operation, chips: list[Image]) -> Job:
    return lambda n: operation.apply(chips[n % _CHIPS])


def _bind_preset(degradation: Degradation, force: bool, chips: list[Image]) -> Job:
    return lambda n: degradation.apply(chips[n % _CHIPS], _rng(n), force=force)


def _rng(number: int) -> np.random.Generator:
    return np.random.default_rng([0, number])


def _measure(jobs: list[tuple[str, Job]], repeats: int) -> list[Figure]:
    """Return the median speed of every job, the repeats interleaved."""
    speeds: list[list[float]] = [[] for _ in jobs]
    for _ in range(repeats):
        for row, (_, job) in zip(speeds, jobs, strict=True):
            job(0)  # fills caches
            count, started = 0, time.perf_counter()
            while count < _CHIPS or time.perf_counter() - started < _LEAST_S:
                job(count)
                count += 1
            row.append(count / (time.perf_counter() - started))
    return [
        Figure(name, statistics.median(row)) for (name, _), row in zip(jobs, speeds, strict=True)
    ]


def _report(figures: list[Figure]) -> list[dict[str, Any]]:
    """Print a table and return its rows."""
    base = figures[0].images_per_s
    lines = [f"{'112x112, one core':28}{'images/s':>10}{'us/image':>10}{'ratio':>8}"]
    rows = []
    for name, speed in figures:
        lines.append(f"{name:28}{speed:>10.0f}{1e6 / speed:>10.0f}{speed / base:>7.2f}x")
        rows.append({"name": name, "images_per_s": speed, "ratio": speed / base})
    lines.append(f"ratio: over {BASELINE} of a chip")
    sys.stdout.write("\n".join(lines) + "\n")
    return rows


if __name__ == "__main__":
    sys.exit(main())
