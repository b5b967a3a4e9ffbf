"""What a run writes down while it goes: JSON lines and TensorBoard scalars."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from facerec import dist
from facerec.io import write_text
from facerec.training.loop import Hook, Step
from facerec.training.method import Method
from facerec.training.net import Pass
from facerec.training.state import TrainState

METRICS = "metrics.jsonl"


class Log(Hook):
    """Means over the last steps as JSON lines and TensorBoard scalars.

    On resuming, lines of steps after the checkpoint are removed: they will be made again. Under
    torchrun every process needs one, since divided heads answer only all of them together; the
    first one writes.

    Args:
        folder: run folder, for `metrics.jsonl` and `tensorboard/`.
        every_steps: steps between lines.
        tensorboard: whether to write events too; silently left out where it is not installed.
        method: whose selection is reported at the end of each epoch; None for none.
    """

    def __init__(
        self,
        folder: Path,
        every_steps: int,
        tensorboard: bool = True,
        method: Method | None = None,
    ) -> None:
        self.path = folder / METRICS
        self.board_folder = folder / "tensorboard"
        self.every_steps = every_steps
        self.tensorboard = tensorboard
        self.method = method
        self._file: IO[str] | None = None
        self._board: Any = None
        self._sums: dict[str, float] = {}
        self._since = 0.0

    def start(self, state: TrainState) -> None:
        """Open the outputs at the resumed step."""
        self._reset()
        if not dist.is_main():
            return
        if self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["step"] <= state.step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        if self.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError:
                pass
            else:
                self._board = SummaryWriter(str(self.board_folder), purge_step=state.step + 1)

    def after_step(self, state: TrainState, step: Step) -> None:
        """Add the step to the means; write them every `every_steps`."""
        rows = len(step.batch.labels)
        counted = step.weighing.counts[0] / max(1, len(step.passes[0].labels))
        sums = {"loss": float(step.loss), "images": rows, "selected_share": counted, "steps": 1}
        sums |= {name: float(value) for name, value in step.parts.items()}
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if state.step % self.every_steps == 0:
            spent = max(time.monotonic() - self._since, 1e-9)
            count, images = self._sums.pop("steps"), self._sums.pop("images")
            means = {name: value / count for name, value in self._sums.items()}
            look = describe_pass(step.passes[0], float(state.nets[0].head.scale))
            speed = {"lr": step.lr, "images_per_s": images * dist.world_size() / spent}
            self.write(state.step, {"epoch": step.epoch, **means, **look, **speed})
            self._reset()

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Write what the method selected, against the truth where it is known."""
        if self.method is not None and (found := self.method.report()):
            self.write(state.step, {"epoch": epoch, **found})

    def write(self, step: int, values: Mapping[str, float | int | bool]) -> None:
        """Append one line, and one scalar a value under its own name, in the first process."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Close both outputs."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _reset(self) -> None:
        self._sums = {}
        self._since = time.monotonic()


def describe_pass(made: Pass, scale: float) -> dict[str, float]:
    """Return what a net thinks of a batch: mean angles in degrees, norm and margin.

    Keys: `target` (mean cosine with the own class), `target_angle` and `negative_angle` (of the
    hardest other class), `norm` of embeddings, `margin` (how far margins lower the target's
    cosine, on average).
    """
    scores = made.scores
    target = scores.target_cosine().float()
    negative = scores.hardest_negative()[0].float()
    norms = scores.rows.norms
    shifted = scores.target_logits().float() / scale
    values = {
        "target": target.mean(),
        "target_angle": torch.rad2deg(target.clamp(-1, 1).acos()).mean(),
        "negative_angle": torch.rad2deg(negative.clamp(-1, 1).acos()).mean(),
        "norm": torch.zeros(()) if norms is None else norms.detach().float().mean(),
        "margin": (target - shifted).mean(),
    }
    return {name: float(value) for name, value in values.items()}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `metrics.jsonl`; a half-written one is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # a killed process may leave its last line half-written
            continue
    return lines
