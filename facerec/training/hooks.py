"""What stands around the loop: progress, checkpoints, validation, NaN guard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from facerec import dist
from facerec.data.datasets import ChipSet
from facerec.data.samplers import Sampler
from facerec.io import write_json
from facerec.progress import Progress
from facerec.training.log import Log
from facerec.training.loop import Hook, Step, may_save
from facerec.training.state import TrainState
from facerec.training.validation import PairValidator, Validator

LAST, BEST = "last.ckpt", "best.ckpt"


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
        files = [self.chips.name(index) for index in step.batch.indices.tolist()]
        labels = [self.chips.identities[label] for label in step.batch.labels.tolist()]
        record = {"step": state.step, "epoch": step.epoch, "lr": step.lr}
        write_json(path, {**record, "chips": files, "identities": labels})
        raise DivergedError(
            f"the loss became {step.loss.item()} at step {state.step} (lr {step.lr:g}); its chips "
            f"are named in {path}; lower optim.lr or head scale, or lengthen optim.warmup_epochs"
        )


class Feedback(Hook):
    """Tells a sampler which rows were right and which other identity each looks most like.

    Args:
        sampler: one that learns.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def after_step(self, state: TrainState, step: Step) -> None:
        """Pass on what the first net made of the batch."""
        scores = step.passes[0].scores
        _, hardest = scores.hardest_negative()
        correct = scores.predictions(margins=False) == step.passes[0].labels
        self.sampler.observe(
            step.batch.indices,
            step.batch.labels,
            hardest.cpu().numpy(),
            correct.cpu().numpy(),
        )


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
        images = len(step.batch.labels) * dist.world_size()
        self._progress.advance(images, f"loss {float(step.loss):.3f}")

    def close(self) -> None:
        """Close the bar."""
        if self._open:
            self._progress.__exit__(None, None, None)


class Validate(Hook):
    """Scores people the net is not trained on after an epoch, and keeps the best weights.

    Args:
        validators: each scores the net; the first one's score decides which weights are best.
        log: where figures go.
        folder: run folder, for `best.ckpt`.
        every_epochs: epochs between validations; the last epoch is always scored.
        epochs: of the whole run.
    """

    def __init__(
        self,
        validators: Sequence[Validator | PairValidator],
        log: Log,
        folder: Path,
        every_epochs: int,
        epochs: int,
    ) -> None:
        self.validators = validators
        self.log = log
        self.path = folder / BEST
        self.every_epochs = every_epochs
        self.epochs = epochs

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Score, log, and keep the weights when no earlier ones did better."""
        if (epoch + 1) % self.every_epochs and epoch + 1 != self.epochs:
            return
        score = 0.0
        if dist.is_main():
            results = [v.run(state.deliverable(), state.device) for v in self.validators]
            score = results[0].score
            named = {name: value for result in results for name, value in result.named().items()}
            self.log.write(state.step, {"epoch": epoch, **named})
        score = float(dist.broadcast_from_main(torch.tensor(score, dtype=torch.float64)))
        # Of equal scores the later wins: it has seen more.
        if state.best_score is None or score >= state.best_score:
            state.best_score = score
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
        self._due = False

    def after_step(self, state: TrainState, step: Step) -> None:
        """Save inside an epoch, at the first step that allows it."""
        self._due |= state.step % self.every_steps == 0
        if self._due and may_save(state) and state.step % self.steps_per_epoch:
            state.save(self.path)
            self._due = False

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Save at its end, its validation included."""
        self._due = not may_save(state)
        if not self._due:
            state.save(self.path)

    def interrupted(self, state: TrainState) -> None:
        """Save where the signal found us."""
        state.save(self.path)
