"""Training steps a second against the plain step of public ArcFace code, in the same run.

The plain step is the same net run eagerly with pictures in NCHW, a head that computes
cos(arccos(c) + m) by autograd over the whole class matrix, the mean cross entropy and torch's
SGD. Ours is what facerec-train runs: `Net.forward`, `add_losses`, `Net.update`, in a process that
keeps freed memory. That cannot be taken back, so each kind of step has a process of its own; they
take turns, and the others sleep.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.data.loader import Batch
from facerec.losses import build_head
from facerec.models import build_backbone
from facerec.models.cost import measure_cost
from facerec.progress import Progress
from facerec.provenance import versions
from facerec.training.build import compile_backbone
from facerec.training.loop import add_losses
from facerec.training.memory import keep_freed_memory
from facerec.training.method import Method
from facerec.training.net import Net
from facerec.training.optim import build_optimizer
from facerec.training.settings import OptimSettings

_HALF = {"fp32": None, "bf16": torch.bfloat16}
Step = Callable[[], Any]
KINDS = ("plain", "ours, eager", "ours, compiled")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.train_step",
        "Time training steps of a backbone with an ArcFace head, ours against the plain step.",
        "python -m eval.bench.train_step --backbone mobilefacenet --classes 10000 --batch 128",
    )
    add = parser.add_argument
    add("--backbone", default="mobilefacenet", help="registered name")
    add("--classes", type=int, default=10_000)
    add("--batch", type=int, default=128, help="pictures a step")
    add("--steps", type=int, default=3, help="timed steps in each of the repeats")
    add("--repeats", type=int, default=5, help="interleaved; the median counts")
    add("--device", default="cpu")
    add("--precision", choices=tuple(_HALF), default="fp32", help="of our steps")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    workers = {name: _Worker(context, name, arguments) for name in KINDS}
    try:
        first = {name: worker.ask(2) for name, worker in workers.items()}
        rates: dict[str, list[float]] = {name: [] for name in KINDS}
        with Progress("rounds", arguments.repeats, "rounds") as progress:
            for _ in range(arguments.repeats):
                for name, worker in workers.items():
                    spent = worker.ask(arguments.steps)
                    rates[name].append(arguments.batch * arguments.steps / spent)
                progress.advance()
    finally:
        for worker in workers.values():
            worker.stop()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    device = torch.device(arguments.device)
    peak = measure_matmul(device, _HALF[arguments.precision])
    macs = measure_cost(build_backbone(arguments.backbone, embedding_dim=512)).macs
    lines = [
        f"{arguments.backbone}, batch {arguments.batch}, {arguments.classes:,} classes, {device}, "
        f"ours in {arguments.precision}"
    ]
    for name, rate in medians.items():
        # Forward and backward take three times the multiply-accumulates of a forward pass.
        share = 6 * macs * rate / peak
        low, high = min(rates[name]), max(rates[name])
        lines.append(
            f"{name:16} {rate:9.1f} images/s ({low:.1f} to {high:.1f})  "
            f"ratio {rate / medians['plain']:5.2f}  {share:5.1%} of the measured matmul peak  "
            f"first two steps {first[name]:.0f} s"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    if arguments.json is not None:
        values = {"images_per_s": medians, "rounds": rates, "first_steps_s": first}
        more = {"matmul_flop_per_s": peak, "versions": versions()}
        write_json_result(arguments.json, {**values, **more}, seed=0, config=vars(arguments))


class _Worker:
    """A process that does one kind of step when it is asked to, and sleeps in between."""

    def __init__(
        self, context: multiprocessing.context.SpawnContext, name: str, arguments: Any
    ) -> None:
        self._pipe, theirs = context.Pipe()
        settings = {
            key: getattr(arguments, key)
            for key in ("backbone", "classes", "batch", "device", "precision")
        }
        self._process = context.Process(target=_serve, args=(theirs, name, settings), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, steps: int) -> float:
        """Return the seconds that `steps` steps took."""
        self._pipe.send(steps)
        spent: float = self._pipe.recv()
        return spent

    def stop(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(0)
        self._process.join()


def _serve(pipe: Any, name: str, settings: dict[str, Any]) -> None:
    """Do steps until asked for none."""
    torch.manual_seed(0)
    device = torch.device(settings["device"])
    net = build_backbone(settings["backbone"], embedding_dim=512)
    images = torch.randn(settings["batch"], 3, 112, 112).to(device)
    labels = torch.randint(settings["classes"], (settings["batch"],)).to(device)
    classes = settings["classes"]
    if name == "plain":
        step = build_plain_step(net.to(device), images, labels, classes)
    else:
        keep_freed_memory()
        half = _HALF[settings["precision"]]
        compiled = name == "ours, compiled"
        step = build_our_step(net, images, labels, classes, half, compiled=compiled)
    while steps := pipe.recv():
        started = time.monotonic()
        for _ in range(steps):
            step()
        _finish(device)
        pipe.send(time.monotonic() - started)


def build_plain_step(
    net: nn.Module, images: Tensor, labels: Tensor, classes: int, scale: float = 64.0
) -> Step:
    """Return the plain step: eager, NCHW, float32, autograd through arccos."""
    weight = nn.Parameter(torch.randn(classes, 512, device=images.device) * 0.01)
    trained = [*net.parameters(), weight]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
    net.train()

    def step() -> None:
        features = nn.functional.normalize(net(images))
        cosine = nn.functional.linear(features, nn.functional.normalize(weight))
        cosine = cosine.clamp(-1 + 1e-7, 1 - 1e-7)
        theta = torch.acos(cosine)
        margin = torch.zeros_like(cosine).scatter_(1, labels[:, None], 0.5)
        loss = nn.functional.cross_entropy(scale * torch.cos(theta + margin), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()

    return step


def build_our_step(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    classes: int,
    half: torch.dtype | None,
    *,
    compiled: bool,
) -> Step:
    """Return the step of facerec-train: channels_last, float32 head, compiled or not."""
    backbone = copy.deepcopy(net).to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = build_head("arcface", num_classes=classes, embedding_dim=512).to(images.device)
    ours = Net(backbone, head, build_optimizer(OptimSettings(), backbone, head))
    if compiled:
        ours.run = compile_backbone(backbone, images.device)
    ours.train()
    method = Method()
    scaler = torch.amp.GradScaler(enabled=False)
    rows = len(labels)
    positions = torch.arange(rows).numpy()
    batch = Batch(images.cpu().numpy(), labels.cpu().numpy(), positions)
    shown = images.to(memory_format=torch.channels_last)

    def step() -> None:
        passes = [ours.forward(shown, labels, half)]
        total, _ = add_losses([ours], passes, method.weigh(passes, batch, 0.0), batch, ())
        torch.autograd.backward(total)
        ours.update(scaler, rows, 5.0)

    return step


def measure_matmul(device: torch.device, half: torch.dtype | None, size: int = 4096) -> float:
    """Return the floating-point operations a second of a square product, best of five."""
    left, right = (torch.randn(size, size, device=device, dtype=half) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        _finish(device)
        started = time.monotonic()
        torch.mm(left, right)
        _finish(device)
        best = min(best, time.monotonic() - started)
    return 2 * size**3 / best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    raise SystemExit(main())
