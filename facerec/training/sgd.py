"""SGD that leaves un-sampled classes alone; gradients of any kind scaled and clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from facerec import dist


class SGD(torch.optim.SGD):
    """torch's SGD, which moves only the rows that a sparse gradient names.

    Dense gradients are torch's own business, bit for bit. Of a parameter with a sparse gradient
    the named rows alone get weight decay, momentum and an update; the others keep weight and
    momentum, however long they are not sampled (METHODS section 11). A row seen for the first
    time starts with its gradient as momentum, as torch's whole parameters do.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update dense parameters as torch does, then sampled rows alone."""
        sparse = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    sparse.append((group, parameter, parameter.grad.coalesce()))
                    parameter.grad = None
        result = super().step(closure)
        for group, parameter, gradient in sparse:
            self._update_rows(group, parameter, gradient)
            parameter.grad = gradient
        return result

    def _update_rows(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        rows = gradient.indices()[0]
        change = gradient.values() + group["weight_decay"] * parameter[rows]
        if group["momentum"]:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            # From zero, momentum * 0 + change is change: torch's first step, row by row.
            change = group["momentum"] * state["momentum_buffer"][rows] + change
            state["momentum_buffer"][rows] = change
        parameter[rows] -= group["lr"] * change


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply all gradients, dense and sparse, in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients down to a common norm of at most `max_norm`; return the norm before.

    Classes that are divided among processes count with the gradients of all of them, so that
    every process scales alike. Without such and without sparse gradients it is torch's
    clip_grad_norm_ bit for bit.

    Args:
        parameters: with or without gradient; sparse gradients are coalesced.
        max_norm: above 0.
    """
    own = [p for p in parameters if p.grad is not None]
    divided = [getattr(p, "facerec_sharded", False) for p in own]
    if not any(divided) and not any(p.grad is not None and p.grad.is_sparse for p in own):
        norm: Tensor = nn.utils.clip_grad_norm_(own, max_norm)
        return norm
    squares = {False: torch.zeros(()), True: torch.zeros(())}
    for parameter, elsewhere in zip(own, divided, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            gradient = parameter.grad = gradient.coalesce()
            gradient = gradient.values()
        square = torch.linalg.vector_norm(gradient, dtype=torch.float32) ** 2
        squares[elsewhere] = squares[elsewhere].to(square.device) + square
    if any(divided):
        squares[True] = dist.sum_over_ranks(squares[True])
    total = (squares[False].to(squares[True].device) + squares[True]).sqrt()
    scale = float((max_norm / (total + 1e-6)).clamp(max=1.0))
    scale_gradients(own, scale)
    return total
