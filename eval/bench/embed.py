"""Embedding speed of each runtime against ONNX Runtime as InsightFace calls it, in one run.

Example: `python -m eval.bench.embed --model MODEL`
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.embedder import Embedder
from facerec.models.graphs import count_prelu, load_graph, rewrite_prelu
from facerec.models.runtimes import RUNTIMES
from facerec.models.store import resolve_model
from facerec.models.weights import Artefact

BATCH = 32
TARGET_AUTO = 2.5  # times the baseline, batch 1, PReLU net, runtime auto
TARGET_REWRITE = 1.5  # rewritten over plain graph in ONNX Runtime, batch 32
_BASELINE = "InsightFace"
# Worker threads of the last runtime go on spinning for a while; they must not slow the next one.
_PAUSE_S = 0.05

Chips = NDArray[np.uint8]
Job = Callable[[Chips], Any]


@dataclass(frozen=True)
class Figure:
    """The speed of one job, images a second: median and best of the repeats."""

    name: str
    batch: int
    median: float
    best: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures."""
    parser = build_parser(
        "python -m eval.bench.embed",
        "Images a second of each runtime at batch 1 and 32, and the ratio to ONNX Runtime as "
        "InsightFace calls it (one image a call), medians of interleaved repeats. The same for a "
        "PReLU MobileFaceNet with random weights that is exported here.",
        "python -m eval.bench.embed --model MobileFaceNet.onnx --json embed.json",
    )
    parser.add_argument("--model", help="store name, artefact folder or .onnx file; none: skipped")
    parser.add_argument("--no-prelu", action="store_true", help="without the PReLU MobileFaceNet")
    parser.add_argument("--repeats", type=int, default=9, help="of every measurement")
    parser.add_argument("--threads", type=int, help="cores for our runtimes (default: all)")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    result: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    if arguments.repeats < 1:
        raise InputError(f"--repeats must be at least 1, got {arguments.repeats}")
    if arguments.model:
        artefact = resolve_model(arguments.model)
        jobs = _list_jobs(artefact, artefact.graph, arguments.threads)
        result["model"] = _report(artefact.info.name, _measure(jobs, arguments.repeats))
        hashes["model"] = artefact.info.sha256
    if not arguments.no_prelu:
        with tempfile.TemporaryDirectory() as folder:
            artefact, plain = export_prelu(Path(folder))
            jobs = _list_jobs(artefact, plain, arguments.threads)
            jobs += _list_rewrite_jobs(plain)
            figures = _measure(jobs, arguments.repeats)
        result["prelu"] = _report("MobileFaceNet, PReLU, random weights", figures)
        result["targets"] = _judge(figures)
    config = {"repeats": arguments.repeats, "threads": arguments.threads}
    write_json_result(arguments, result, seed=0, config=config, hashes=hashes)


def export_prelu(folder: Path) -> tuple[Artefact, Path]:
    """Export a MobileFaceNet with random weights, uneven slopes and measured batch norms.

    Batch norms measured on pictures give activations the spread and the evenly mixed signs of a
    trained net; ONNX Runtime's PRelu branches on the sign, so its speed depends on them.

    Returns:
        The artefact as our export writes it, and the plain graph with its PRelu nodes.
    """
    import torch

    from facerec.models import build_backbone
    from facerec.training.export import export_artefact

    torch.manual_seed(0)
    net = build_backbone("mobilefacenet").train()
    for module in net.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, 0.05, 0.6)
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over what it sees
    with torch.no_grad():
        net(torch.rand(BATCH, 3, 112, 112) * 2 - 1)
    net.eval()
    training = {"backbone": "mobilefacenet", "backbone_args": {}}
    artefact = export_artefact(net, folder / "net", name="prelu", training=training)
    plain = folder / "plain.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, 112, 112),),
            str(plain),
            dynamo=False,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_axes={"images": {0: "batch"}, "embeddings": {0: "batch"}},
        )
    return artefact, plain


def _list_jobs(artefact: Artefact, plain: Path, threads: int | None) -> list[tuple[str, int, Job]]:
    """Return (name, batch, job): the baseline on the plain graph, then every runtime of ours."""
    jobs = [(_BASELINE, 1, _build_baseline(artefact, plain))]
    for runtime in sorted(RUNTIMES):
        try:
            embedder = Embedder(artefact, runtime, batch_size=BATCH, threads=threads)
        except InputError as error:
            sys.stderr.write(f"{runtime} is left out: {error}\n")
            continue
        label = f"auto ({embedder.runtime_name})" if runtime == "auto" else runtime
        jobs += [(label, batch, embedder.embed) for batch in (1, BATCH)]
    return jobs


def _build_baseline(artefact: Artefact, graph: Path) -> Job:
    """Return a job that embeds one BGR chip as InsightFace's ArcFaceONNX.get_feat does."""
    import cv2
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    name, outputs = session.get_inputs()[0].name, [o.name for o in session.get_outputs()]
    info = artefact.info
    size = (info.input_width, info.input_height)

    def run(chips: Chips) -> Any:
        blob = cv2.dnn.blobFromImages(
            [chips[0]], 1.0 / info.std, size, (info.mean,) * 3, swapRB=info.channel_order == "rgb"
        )
        return session.run(outputs, {name: blob})[0]

    return run


def _list_rewrite_jobs(plain: Path) -> list[tuple[str, int, Job]]:
    """Return the plain and the rewritten graph in ONNX Runtime with default options."""
    import onnxruntime

    model = load_graph(plain)
    if not count_prelu(model):
        raise InputError(f"{plain} has no PReLU, so there is nothing to compare")
    jobs = []
    for label, graph in (("graph plain", model), ("graph rewritten", rewrite_prelu(model))):
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        jobs += [(label, batch, _build_raw(session)) for batch in (1, BATCH)]
    return jobs


def _build_raw(session: Any) -> Job:
    name = session.get_inputs()[0].name
    inputs: dict[int, NDArray[np.float32]] = {}

    def run(chips: Chips) -> Any:
        if len(chips) not in inputs:
            images = chips.transpose(0, 3, 1, 2).astype(np.float32)
            inputs[len(chips)] = np.ascontiguousarray((images - 127.5) / 127.5)
        return session.run(None, {name: inputs[len(chips)]})[0]

    return run


def _measure(jobs: list[tuple[str, int, Job]], repeats: int) -> list[Figure]:
    """Return the speed of every job over the same 32 chips, the repeats interleaved."""
    shape = (BATCH, 112, 112, 3)
    chips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    seconds: list[list[float]] = [[] for _ in jobs]
    for repeat in range(repeats + 1):
        for row, (_, batch, job) in zip(seconds, jobs, strict=True):
            time.sleep(_PAUSE_S)
            job(chips[:batch])  # wakes the threads; in the first round it also compiles
            started = time.perf_counter()
            for start in range(0, BATCH, batch):
                job(chips[start : start + batch])
            if repeat:
                row.append((time.perf_counter() - started) / BATCH)
    return [
        Figure(name, batch, 1 / statistics.median(row), 1 / min(row))
        for (name, batch, _), row in zip(jobs, seconds, strict=True)
    ]


def _report(title: str, figures: list[Figure]) -> list[dict[str, Any]]:
    """Print a table and return its rows."""
    base = figures[0].median
    lines = [title, f"  {'':24}{'batch':>6}{'images/s':>10}{'best':>8}{'ratio':>8}"]
    rows = []
    for figure in figures:
        ratio = figure.median / base
        lines.append(
            f"  {figure.name:24}{figure.batch:>6}{figure.median:>10.1f}{figure.best:>8.1f}"
            f"{ratio:>7.2f}x"
        )
        rows.append({**vars(figure), "ratio": ratio})
    sys.stdout.write("\n".join(lines) + "\n")
    return rows


def _judge(figures: list[Figure]) -> list[dict[str, Any]]:
    """Print whether the two targets are met and return them."""
    speed = {(figure.name.split(" (")[0], figure.batch): figure.median for figure in figures}
    found = [
        ("auto at batch 1 over InsightFace", ("auto", 1), (_BASELINE, 1), TARGET_AUTO),
        (
            f"rewritten over plain graph, ONNX Runtime, batch {BATCH}",
            ("graph rewritten", BATCH),
            ("graph plain", BATCH),
            TARGET_REWRITE,
        ),
    ]
    rows = []
    for what, ours, theirs, target in found:
        ratio = speed[ours] / speed[theirs]
        met = ratio >= target
        sys.stdout.write(f"{what}: {ratio:.2f}x, target {target}x {'met' if met else 'MISSED'}\n")
        rows.append({"what": what, "ratio": ratio, "target": target, "met": met})
    return rows


if __name__ == "__main__":
    sys.exit(main())
