"""Stochastic gradient descent with weight decay where it belongs, and the learning rate."""

from __future__ import annotations

import math

from torch import nn

from facerec.training.settings import OptimSettings
from facerec.training.sgd import SGD


def build_optimizer(settings: OptimSettings, *modules: nn.Module) -> SGD:
    """Return SGD over all trained parameters of the modules.

    Weight decay applies to the weights of convolutions and linear layers and to class centres;
    batch norm, PReLU slopes and biases go without (METHODS section 10).
    """
    decayed, plain = split_parameters(*modules)
    return SGD(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        momentum=settings.momentum,
    )


def split_parameters(*modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (with, without weight decay): matrices and kernels, then vectors."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    # Every slope, scale, shift and bias is a vector; every weight has two axes or more.
    return [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]


def lr_at(step: int, settings: OptimSettings, steps_per_epoch: int, total_steps: int) -> float:
    """Return the learning rate of step `step`: a pure function, so that resuming is exact.

    It rises linearly over the warm-up, then follows half a cosine down to
    `lr * final_lr_share` or falls by `gamma` at each milestone.

    Args:
        step: from 0.
        settings: rates and their schedule.
        steps_per_epoch: turns epochs into steps.
        total_steps: length of the run.
    """
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "step":
        passed = sum(step >= mark * steps_per_epoch for mark in settings.milestones_epochs)
        return settings.lr * settings.gamma**passed
    progress = (step - warmup) / max(1, total_steps - warmup)
    share = settings.final_lr_share
    return settings.lr * (share + (1 - share) * (1 + math.cos(math.pi * progress)) / 2)
