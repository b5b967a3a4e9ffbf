"""What stands around the loop: log, progress, checkpoints, validation, NaN guard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import IO, Any

import torch

from facerec.data.datasets import ChipSet
from facerec.io import write_json, write_text
from facerec.progress import Progress
from facerec.training.loop import Hook, Step
from facerec.training.state import TrainState
from facerec.training.validation import Validator

LAST, BEST, METRICS = "last.ckpt", "best.ckpt", "metrics.jsonl"


class DivergedError(RuntimeError):
    """The loss is not a number any more; the weights are still those before the bad step."""


class NaNGuard(Hook):
    """Stops before a loss that is not finite reaches the weights, and saves the batch's chips.

    Args:
        folder: run folder, for `nan_batch.json`.
        chips: names what the batch's positions are.
    """

    def __init__(self, folder: Path, chips: ChipSet) -> None:
        self.folder = folder
        self.chips = chips

    def before_update(self, state: TrainState, step: Step) -> None:
        """Raise DivergedError if the loss is NaN or infinite."""
        if bool(torch.isfinite(step.loss)):
            return
        path = self.folder / "nan_batch.json"
        files = [str(self.chips.paths[index]) for index in step.batch.indices.tolist()]
        labels = [self.chips.identities[label] for label in step.batch.labels.tolist()]
        record = {"step": state.step, "epoch": step.epoch, "lr": step.lr}
        write_json(path, {**record, "chips": files, "identities": labels})
        raise DivergedError(
            f"the loss became {step.loss.item()} at step {state.step} (lr {step.lr:g}); its chips "
            f"are named in {path}; lower optim.lr or head scale, or lengthen optim.warmup_epochs"
        )


class Log(Hook):
    """Means over the last steps as JSON lines and TensorBoard scalars.

    On resuming, lines of steps after the checkpoint are removed: they will be made again.

    Args:
        folder: run folder, for `metrics.jsonl` and `tensorboard/`.
        every_steps: steps between lines.
        tensorboard: whether to write events too; silently left out where it is not installed.
    """

    def __init__(self, folder: Path, every_steps: int, tensorboard: bool = True) -> None:
        self.path = folder / METRICS
        self.board_folder = folder / "tensorboard"
        self.every_steps = every_steps
        self.tensorboard = tensorboard
        self._file: IO[str] | None = None
        self._board: Any = None
        self._sums = {"loss": 0.0, "target_cosine": 0.0, "images": 0.0, "steps": 0.0}
        self._since = 0.0

    def start(self, state: TrainState) -> None:
        """Open the outputs at the resumed step."""
        if self.path.exists():
            kept = [line for line in _read_lines(self.path) if line["step"] <= state.step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        if self.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError:
                pass
            else:
                self._board = SummaryWriter(str(self.board_folder), purge_step=state.step + 1)
        self._reset()

    def after_step(self, state: TrainState, step: Step) -> None:
        """Add the step to the means; write them every `every_steps`."""
        column = torch.from_numpy(step.batch.labels).to(step.logits.device)[:, None]
        scale = float(getattr(state.head, "scale", 1.0))
        self._sums["loss"] += float(step.loss)
        self._sums["target_cosine"] += float(step.logits.gather(1, column).mean()) / scale
        self._sums["images"] += len(step.batch.labels)
        self._sums["steps"] += 1
        if state.step % self.every_steps == 0:
            count = self._sums["steps"]
            spent = max(time.monotonic() - self._since, 1e-9)
            self.write(
                state.step,
                {
                    "epoch": step.epoch,
                    "loss": self._sums["loss"] / count,
                    "target": self._sums["target_cosine"] / count,
                    "lr": step.lr,
                    "images_per_s": self._sums["images"] / spent,
                },
            )
            self._reset()

    def write(self, step: int, values: dict[str, float | int | bool]) -> None:
        """Append one line, and one scalar a value under its own name."""
        assert self._file is not None, "write comes after start"
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
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._since = time.monotonic()


class ShowProgress(Hook):
    """Images done, images a second, time left and the loss, on standard error.

    Args:
        total_images: of the whole run.
    """

    def __init__(self, total_images: int) -> None:
        self._progress = Progress("train", total_images, "images")
        self._open = False

    def start(self, state: TrainState) -> None:
        """Open the bar; a resumed run counts what is left."""
        self._progress.__enter__()
        self._open = True

    def after_step(self, state: TrainState, step: Step) -> None:
        """Count a batch."""
        self._progress.advance(len(step.batch.labels), f"loss {float(step.loss):.3f}")

    def close(self) -> None:
        """Close the bar."""
        if self._open:
            self._progress.__exit__(None, None, None)


class Validate(Hook):
    """Scores held-out people after an epoch and keeps the best weights.

    Args:
        validator: does the work.
        log: where figures go.
        folder: run folder, for `best.ckpt`.
        every_epochs: epochs between validations; the last epoch is always scored.
        epochs: of the whole run.
    """

    def __init__(
        self, validator: Validator, log: Log, folder: Path, every_epochs: int, epochs: int
    ) -> None:
        self.validator = validator
        self.log = log
        self.path = folder / BEST
        self.every_epochs = every_epochs
        self.epochs = epochs

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Score, log, and keep the weights when no earlier ones did better."""
        if (epoch + 1) % self.every_epochs and epoch + 1 != self.epochs:
            return
        result = self.validator.run(state.backbone, state.device)
        named = {f"validation_{name}": value for name, value in result.as_dict().items()}
        self.log.write(state.step, {"epoch": epoch, **named})
        # Of equal scores the later wins: it has seen more.
        if state.best_score is None or result.tar >= state.best_score:
            state.best_score = result.tar
            state.save(self.path)


class Checkpoint(Hook):
    """Writes `last.ckpt` every so many steps, after every epoch, and when a signal stops the run.

    It must come after Validate, so that an epoch's checkpoint knows its score.

    Args:
        folder: run folder.
        every_steps: steps between checkpoints.
        steps_per_epoch: an epoch's last step is left to `after_epoch`.
    """

    def __init__(self, folder: Path, every_steps: int, steps_per_epoch: int) -> None:
        self.path = folder / LAST
        self.every_steps = every_steps
        self.steps_per_epoch = steps_per_epoch

    def after_step(self, state: TrainState, step: Step) -> None:
        """Save inside an epoch."""
        if state.step % self.every_steps == 0 and state.step % self.steps_per_epoch:
            state.save(self.path)

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Save at its end, its validation included."""
        state.save(self.path)

    def interrupted(self, state: TrainState) -> None:
        """Save where the signal found us."""
        state.save(self.path)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # a killed process may leave its last line half-written
            continue
    return lines
