"""What a backbone costs: parameters, multiply-accumulates, and FLOPs by the rule of a challenge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Cost of one picture.

    Attributes:
        params: trainable and fixed parameters (not running statistics).
        macs: multiply-accumulates of convolutions, linear layers and matrix products.
        other_macs: those of `macs` outside Conv2d and Linear modules, such as the products of
            queries with keys and of weights with values in a vision transformer.
        lfr_flops: FLOPs of Conv2d and Linear modules as the counter of the Lightweight Face
            Recognition challenge (2019) has them: (2·in·kernel area - 1)·height·width·out/groups
            and 2·in·out (METHODS sections 8.3 and 10). Its limits were 1 G light, 30 G large.
        counter: which counter says so, for a report.
    """

    params: int
    macs: int
    other_macs: int
    lfr_flops: int
    counter: str = "facerec.models.cost: convolutions, linear layers, matrix products, batch 1"

    def describe(self) -> str:
        """Return one line that gives MACs and 2xMACs, since both are called FLOPs in print."""
        other = f", {self.other_macs / 1e6:.1f} M of them outside layers" if self.other_macs else ""
        return (
            f"{self.params / 1e6:.3f} M parameters, {self.macs / 1e6:.1f} M MACs{other} "
            f"({2 * self.macs / 1e6:.1f} MFLOP as 2xMACs, {self.lfr_flops / 1e6:.1f} MFLOP by the "
            f"LFR challenge's rule), counted by {self.counter}"
        )


@dataclass
class _Tally:
    """What the hooks add up."""

    macs: int = 0
    lfr_flops: int = 0
    handles: list[Any] = field(default_factory=list)


def count_params(model: nn.Module) -> int:
    """Return the number of parameters, those that are not trained included."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_cost(model: nn.Module, input_size: int | None = None) -> Cost:
    """Return the cost of `model` on one RGB picture.

    Batch norm, activations, additions and pooling are not counted, as in the published figures of
    METHODS section 10. A model built under `torch.device("meta")` is counted without computing.

    Args:
        model: takes (1, 3, s, s) on its own device; its mode is left as it was.
        input_size: s in pixels, None for the model's own `input_size`.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    size = int(getattr(model, "input_size", 112)) if input_size is None else input_size
    tally = _Tally()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            tally.handles.append(module.register_forward_hook(_build_hook(tally)))
    training = {module: module.training for module in model.modules()}
    weight = next(model.parameters())
    # Only the plain form of attention shows its matrix products to the counter.
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
    finally:
        for handle in tally.handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    # On devices with kernels of their own the counter may see less than the hooks.
    macs = max(counter.get_total_flops() // 2, tally.macs)
    return Cost(count_params(model), macs, macs - tally.macs, tally.lfr_flops)


def _build_hook(tally: _Tally) -> Callable[[nn.Module, Any, Any], None]:
    def count(module: nn.Module, _inputs: Any, output: Any) -> None:
        assert isinstance(output, Tensor)
        values = output.numel()
        if isinstance(module, nn.Conv2d):
            per_value = module.weight[0].numel()  # in_channels / groups * kernel area
            tally.macs += values * per_value
            tally.lfr_flops += (2 * per_value * module.groups - 1) * values // module.groups
        else:
            assert isinstance(module, nn.Linear)
            tally.macs += values * module.in_features
            tally.lfr_flops += 2 * values * module.in_features

    return count
