"""Which rows of a batch count, and for which net: all, the hard ones, the probably clean ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerec import dist
from facerec.training.coteaching import (
    SelectionReport,
    comine,
    estimate_noise_rate,
    exchange,
    keep_rate,
    mutual_kl,
)
from facerec.training.mining import ImportanceDraw, keep_hardest
from facerec.training.terms import Term

if TYPE_CHECKING:
    from facerec.data.chip_set import ChipSet
    from facerec.data.loader import Batch
    from facerec.training.loop import Step
    from facerec.training.net import Net, Pass
    from facerec.training.settings import MiningSettings, NoiseSettings, TrainSettings
    from facerec.training.state import TrainState


@dataclass(frozen=True)
class Weighing:
    """How much each row of a batch counts.

    Attributes:
        counts: rows that count, a net; by these sums are divided.
        weights: (n,) of each net, None where every row counts one.
        terms: losses that the method adds.
    """

    counts: list[float]
    weights: list[Tensor | None]
    terms: tuple[Term, ...] = ()

    def add_rows(self, number: int, losses: Tensor) -> Tensor:
        """Return the weighed sum of row losses (n,) of net `number`."""
        weights = self.weights[number]
        return losses.sum() if weights is None else (weights * losses).sum()


class Method:
    """Every row counts one, in a single net; the base of the other methods.

    Args:
        truth: int64 (n,), true labels of all chips where they are known, for the report.
    """

    nets = 1

    def __init__(self, truth: NDArray[np.int64] | None = None) -> None:
        self.truth = truth
        self._report = SelectionReport()

    def draw(
        self, state: TrainState, images: Tensor, labels: Tensor, half: torch.dtype | None
    ) -> Tensor | None:
        """Return the rows int64 to train on, None for all in their order."""
        return None

    def weigh(self, passes: Sequence[Pass], batch: Batch, epoch: float) -> Weighing:
        """Return how much each row counts.

        Args:
            passes: one a net.
            batch: positions of the rows.
            epoch: done so far, with its fraction.
        """
        return Weighing([float(len(p.labels)) for p in passes], [None] * len(passes))

    def is_due(self, state: TrainState, settings: TrainSettings, batch_size: int) -> bool:
        """Return whether the pending gradients make an update: every `accumulate` batches."""
        return (state.step + 1) % settings.optim.accumulate == 0

    def after_step(self, step: Step) -> None:
        """Take note of a step; here nothing is learnt."""

    def report(self) -> dict[str, float]:
        """Return what was selected since the last call, {} for a method that selects nothing."""
        found = self._report.as_dict()
        self._report.reset()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"report": self._report.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._report.load_state_dict(state["report"])

    def note(self, kept: Tensor, batch: Batch) -> None:
        """Count which rows were kept, against the truth where it is known."""
        clean = None
        if self.truth is not None:
            clean = self.truth[batch.indices] == batch.labels
        self._report.add(kept.cpu().numpy(), clean)


class HardRows(Method):
    """Online hard-example mining: the rows with the largest losses count."""

    def __init__(self, settings: MiningSettings, truth: NDArray[np.int64] | None) -> None:
        super().__init__(truth)
        self.ratio = settings.keep

    def weigh(self, passes: Sequence[Pass], batch: Batch, epoch: float) -> Weighing:
        """Keep the share of rows with the largest losses."""
        kept = keep_hardest(passes[0].scores.losses().detach(), self.ratio)
        self.note(kept, batch)
        return Weighing([float(kept.sum())], [kept.float()])


class ImportantRows(Method):
    """Importance sampling: of a larger batch, rows are drawn by the size of their gradient.

    The weights undo the draw's bias, so that the mean gradient is that of uniform sampling.

    Args:
        settings: how many rows are scored for each that is trained on.
        batch_size: rows to train on, in this process.
        seed: of the draws.
        truth: see Method.
    """

    def __init__(
        self,
        settings: MiningSettings,
        batch_size: int,
        seed: int,
        truth: NDArray[np.int64] | None,
    ) -> None:
        super().__init__(truth)
        self.draws = ImportanceDraw(batch_size, settings.presample)
        self.seed = seed
        self._weights: Tensor | None = None

    @torch.no_grad()
    def draw(
        self, state: TrainState, images: Tensor, labels: Tensor, half: torch.dtype | None
    ) -> Tensor | None:
        """Score all rows with the net as it is used, and draw those to train on."""
        net: Net = state.nets[0]
        net.backbone.eval()
        net.head.eval()
        scores = net.forward(images, labels, half).scores
        net.train()
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.seed, state.step, dist.rank()]).generate_state(1)[0])
        )
        rows, self._weights = self.draws.draw(scores.logits, scores.rows.columns, generator)
        return rows

    def weigh(self, passes: Sequence[Pass], batch: Batch, epoch: float) -> Weighing:
        """Weigh the drawn rows."""
        return Weighing([float(len(passes[0].labels))], [self._weights])

    def state_dict(self) -> dict[str, Any]:
        """Return the variance gauge too."""
        return {**super().state_dict(), "draws": self.draws.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.draws.load_state_dict(state["draws"])


class MutualTerm(Term):
    """Each net follows the other's probabilities (deep mutual learning)."""

    def __init__(self, weight: float, temperature: float, rows: Tensor | None = None) -> None:
        super().__init__("mutual", weight)
        self.temperature = temperature
        self.rows = rows

    def compute(self, number: int, net: Net, passes: Sequence[Pass], batch: Batch) -> Tensor:
        """Return T² KL(other || own), the other detached."""
        own, other = passes[number].scores.logits, passes[1 - number].scores.logits
        losses = mutual_kl(own, other, self.temperature)
        if self.rows is None:
            return losses.mean()
        return (losses * self.rows).sum() / self.rows.sum().clamp_min(1)


class MutualMethod(Method):
    """Deep mutual learning: both nets train on all rows, and on each other."""

    nets = 2

    def __init__(self, settings: NoiseSettings, truth: NDArray[np.int64] | None) -> None:
        super().__init__(truth)
        self.term = MutualTerm(settings.mutual_weight or 1.0, settings.temperature)

    def weigh(self, passes: Sequence[Pass], batch: Batch, epoch: float) -> Weighing:
        """Count every row, and add the term."""
        return Weighing([float(len(p.labels)) for p in passes], [None, None], (self.term,))


class PeerMethod(Method):
    """Co-teaching and co-mining: each net learns from rows that its peer finds clean.

    Rows are ranked by their loss on the plain cosine: a margin makes hard clean rows look like
    noise. With tau "auto" the share of wrong labels is estimated at the end of the warm-up from
    how much nearer every chip is to its own class than to the nearest other, and once more at
    each epoch until the estimate is sure; till then every row counts. The cosine with the own
    class alone would not do: a softmax does not see it when all cosines drift together.

    Args:
        settings: schedule, mode and floor.
        chips: what is trained on.
        total_epochs: of the run.
    """

    nets = 2

    def __init__(self, settings: NoiseSettings, chips: ChipSet, total_epochs: int) -> None:
        super().__init__(chips.truth)
        self.settings = settings
        self.total_epochs = total_epochs
        self.tau = None if settings.tau == "auto" else float(settings.tau)
        self._next_look = settings.warmup_epochs
        self._gaps = np.full(len(chips), np.nan, np.float32)
        self._images = torch.from_numpy(np.bincount(chips.labels, minlength=1))

    def weigh(self, passes: Sequence[Pass], batch: Batch, epoch: float) -> Weighing:
        """Let each net choose rows for the other, once the warm-up is over."""
        settings = self.settings
        if self.tau is None and epoch >= self._next_look:
            self._estimate(epoch)
        if self.tau is None or epoch < settings.warmup_epochs:
            return super().weigh(passes, batch, epoch)
        rate = keep_rate(
            epoch,
            self.tau,
            settings.schedule,
            settings.gradual_epochs,
            self.total_epochs,
            settings.warmup_epochs,
        )
        first, second = (p.scores for p in passes)
        labels = passes[0].labels
        if settings.name == "comining":
            cosines = first.target_cosine(), second.target_cosine()
            weights = comine(first.plain_losses(), second.plain_losses(), rate, *cosines)
        else:
            floor = settings.floor_per_identity
            images = self._images.to(labels.device)[labels] if floor else None
            masks = exchange(first, second, labels, rate, settings.mode, floor, images)
            weights = (masks[0].float(), masks[1].float())
        self.note(weights[0] > 0, batch)
        terms: tuple[Term, ...] = ()
        if settings.mutual_weight:
            rows = ((weights[0] > 0) | (weights[1] > 0)).float()
            terms = (MutualTerm(settings.mutual_weight, settings.temperature, rows),)
        return Weighing([float(w.sum()) for w in weights], list(weights), terms)

    def is_due(self, state: TrainState, settings: TrainSettings, batch_size: int) -> bool:
        """Return whether enough rows were kept since the last update, so that its size is even."""
        if not self.settings.constant_batch:
            return super().is_due(state, settings, batch_size)
        pending = torch.tensor([net.pending for net in state.nets], dtype=torch.float64)
        seen = dist.sum_over_ranks(pending)
        return bool(seen.min() >= batch_size * settings.optim.accumulate)

    def after_step(self, step: Step) -> None:
        """Remember how much nearer each chip is to its own class while tau is not known."""
        if self.tau is None:
            gaps = [p.scores.target_cosine() - p.scores.hardest_negative()[0] for p in step.passes]
            both = torch.stack(gaps).mean(dim=0)
            self._gaps[step.batch.indices] = both.float().cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return the estimate, and what it is made from until it is."""
        gaps = torch.from_numpy(self._gaps) if self.tau is None else None
        known = {"tau": self.tau, "next_look": self._next_look, "gaps": gaps}
        return {**super().state_dict(), **known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.tau, self._next_look = state["tau"], float(state["next_look"])
        if state["gaps"] is not None:
            self._gaps = state["gaps"].numpy()

    def report(self) -> dict[str, float]:
        """Return the selection, and the noise rate where it is known."""
        found = super().report()
        return {**found, "noise_rate": self.tau} if self.tau is not None else found

    def _estimate(self, epoch: float) -> None:
        """Set tau if the chips tell it for sure, else look again in the next epoch."""
        seen = torch.from_numpy(self._gaps[np.isfinite(self._gaps)])
        estimate = estimate_noise_rate(dist.gather_rows(seen).numpy())
        if estimate.confident:
            self.tau = estimate.rate
        self._next_look = float(np.floor(epoch)) + 1


def build_method(settings: TrainSettings, chips: ChipSet) -> Method:
    """Return the method that a recipe asks for."""
    if settings.noise.name == "mutual":
        return MutualMethod(settings.noise, chips.truth)
    if settings.noise.name != "none":
        return PeerMethod(settings.noise, chips, settings.epochs)
    if settings.mining.name == "ohem":
        return HardRows(settings.mining, chips.truth)
    if settings.mining.name == "importance":
        rows = settings.batch_size // dist.world_size()
        return ImportantRows(settings.mining, rows, settings.seed, chips.truth)
    return Method(chips.truth)
