"""What a backbone costs: parameters, and multiply-accumulates counted by forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Cost of one picture.

    Attributes:
        params: trainable and fixed parameters (not running statistics).
        macs: multiply-accumulates of convolutions and linear layers, one picture.
        counter: which counter says so, for a report.
    """

    params: int
    macs: int
    counter: str = "facerec.models.cost: conv and linear layers, batch 1"

    def describe(self) -> str:
        """Return one line that gives MACs and 2xMACs, since both are called FLOPs in print."""
        return (
            f"{self.params / 1e6:.3f} M parameters, {self.macs / 1e6:.1f} M MACs "
            f"({2 * self.macs / 1e6:.1f} MFLOP as 2xMACs), counted by {self.counter}"
        )


def count_params(model: nn.Module) -> int:
    """Return the number of parameters, those that are not trained included."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_cost(model: nn.Module, input_size: int | None = None) -> Cost:
    """Return the cost of `model` on one RGB picture.

    Batch norm, activations, additions and functional calls are not counted, as in the published
    figures of METHODS section 10.

    Args:
        model: takes (1, 3, s, s) on its own device; its mode is left as it was.
        input_size: s in pixels, None for the model's own `input_size`.
    """
    size = int(getattr(model, "input_size", 112)) if input_size is None else input_size
    counts: list[int] = []
    hooks = [
        module.register_forward_hook(_build_hook(counts))
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    training = {module: module.training for module in model.modules()}
    weight = next(model.parameters())
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return Cost(count_params(model), sum(counts))


def _build_hook(counts: list[int]) -> Callable[[nn.Module, Any, Any], None]:
    def count(module: nn.Module, _inputs: Any, output: Any) -> None:
        assert isinstance(output, Tensor)
        if isinstance(module, nn.Conv2d):
            per_value = module.weight[0].numel()  # in_channels / groups * kernel area
        else:
            assert isinstance(module, nn.Linear)
            per_value = module.in_features
        counts.append(output.numel() * per_value)

    return count
