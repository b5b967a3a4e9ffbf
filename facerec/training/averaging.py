"""Weights averaged over the run: exponential (EMA) or equal over late epochs (SWA)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from facerec import dist
from facerec.data.loader import ChipLoader
from facerec.training.loop import Hook, Step
from facerec.training.settings import AverageSettings
from facerec.training.state import TrainState, prepare_images


class Averaging(Hook):
    """Keeps `state.average`, the backbone that is scored and exported.

    EMA follows every update, running statistics included; its decay is small at first,
    min(decay, (1 + t) / (10 + t)) after t updates, so that the first weights are soon forgotten.
    SWA (Izmailov et al. 2018) is the mean of the weights at the ends of epochs from `start_share`
    of the run on; running statistics belong to no such mean and are estimated anew from training
    batches. Before its start the average is a copy of the net.

    Args:
        settings: kind and strength.
        loader: gives the batches for new statistics.
        epochs: of the whole run.
        channels_last: memory layout of the pictures.
    """

    def __init__(
        self, settings: AverageSettings, loader: ChipLoader, epochs: int, channels_last: bool
    ) -> None:
        self.settings = settings
        self.loader = loader
        self.first_epoch = round(settings.start_share * epochs)
        self.channels_last = channels_last
        self.count = 0

    def start(self, state: TrainState) -> None:
        """Check that the state has a place for the average."""
        assert state.average is not None, "build the state with an average"

    @torch.no_grad()
    def after_step(self, state: TrainState, step: Step) -> None:
        """Follow an update (EMA)."""
        if self.settings.kind != "ema" or state.nets[0].pending:
            return
        decay = min(self.settings.decay, (1 + self.count) / (10 + self.count))
        _blend(state.average, state.backbone, 1 - decay, buffers=True)
        self.count += 1

    @torch.no_grad()
    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Add an epoch's last weights (SWA)."""
        if self.settings.kind != "swa":
            return
        self.count = self.count + 1 if epoch > self.first_epoch else 1
        _blend(state.average, state.backbone, 1 / self.count, buffers=True)
        if self.count > 1:
            self._recalibrate(state, epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return how many weights went into the average."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.count = int(state["count"])

    def _recalibrate(self, state: TrainState, epoch: int) -> None:
        """Estimate the average's running statistics from the first batches of the epoch."""
        net = state.average
        assert net is not None
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if not norms or not self.settings.recalibrate_batches:
            return
        momenta = [norm.momentum for norm in norms]
        # Random numbers drawn here (dropout) must not change those of the run.
        with torch.random.fork_rng():
            try:
                for norm in norms:
                    norm.reset_running_stats()
                    norm.momentum = None  # a plain mean over batches
                    norm.train()
                batches = self.loader.iter_epoch(epoch)
                for _ in range(min(self.settings.recalibrate_batches, self.loader.steps_per_epoch)):
                    images = next(batches).images
                    net(prepare_images(images, state.device, self.channels_last))
                batches.close()  # type: ignore[attr-defined] # ends the loader's threads
            finally:
                for norm, momentum in zip(norms, momenta, strict=True):
                    norm.momentum = momentum
                net.eval()
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.copy_(dist.mean_over_ranks(buffer))


def build_average(backbone: nn.Module) -> nn.Module:
    """Return a copy of a backbone that no optimiser moves."""
    average = copy.deepcopy(backbone).eval()
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


def _blend(average: nn.Module | None, net: nn.Module, share: float, *, buffers: bool) -> None:
    """Move `average` towards `net` by `share`; counts and other integers are copied."""
    assert average is not None
    for ours, theirs in zip(average.parameters(), net.parameters(), strict=True):
        ours.lerp_(theirs.detach(), share)
    if buffers:
        for kept, seen in zip(average.buffers(), net.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(seen, share)
            else:
                kept.copy_(seen)
