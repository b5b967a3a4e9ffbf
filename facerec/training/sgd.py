"""SGD that leaves un-sampled classes alone; gradients of any kind scaled and clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from facerec import dist
from facerec.checks import InputError


class SGD(torch.optim.SGD):
    """torch's SGD, which moves only the rows that a sparse gradient names.

    Dense gradients are torch's own business, bit for bit. Of a parameter with a sparse gradient
    the named rows alone get weight decay, momentum and an update, as a dense parameter of these
    rows would, also where their gradient is zero. The others keep weight and momentum however
    long they are not sampled: momentum does not fade while a class is away (METHODS section 11).

    The momentum of such a parameter is dense, begins as zeros, and lies in the state as
    "momentum_buffer". A row seen for the first time thereby starts with its gradient as momentum,
    as torch's whole parameters do; dampening, which torch leaves out in that first step, would
    need to know which rows are new, and is refused with a sparse gradient. So is fused, where
    torch leaves it to the step to undo the scale of float16 gradients. See torch.optim.SGD for
    the arguments.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update dense parameters as torch does, then sampled rows alone.

        Args:
            closure: computes the loss and its gradients, which are then used; may be None.

        Returns:
            What the closure returned, None without one.

        Raises:
            InputError: a sparse gradient with dampening or fused; nothing has moved then.
        """
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        sparse = [
            (group, parameter, parameter.grad.coalesce())
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for group, _, _ in sparse:
            _check_options(group)
        for _, parameter, _ in sparse:
            parameter.grad = None  # not for torch
        try:
            _step_without_hooks(self)
            for group, parameter, gradient in sparse:
                self._update_rows(group, parameter, gradient)
        finally:
            for _, parameter, gradient in sparse:
                parameter.grad = gradient
        return result

    def _update_rows(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        """Do to the rows of a coalesced gradient what torch does to a whole parameter."""
        rows = gradient.indices()[0]
        change = -gradient.values() if group["maximize"] else gradient.values()
        weight = parameter.index_select(0, rows)
        if group["weight_decay"]:
            change = change.add(weight, alpha=group["weight_decay"])
        if group["momentum"]:
            state = self.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momentum = state["momentum_buffer"].index_select(0, rows)
            momentum.mul_(group["momentum"]).add_(change)
            state["momentum_buffer"].index_copy_(0, rows, momentum)
            nesterov = group["nesterov"]
            change = change.add(momentum, alpha=group["momentum"]) if nesterov else momentum
        parameter.index_copy_(0, rows, weight.add_(change, alpha=-float(group["lr"])))


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply all gradients, dense and sparse, in place.

    Args:
        parameters: with or without gradient; sparse gradients are coalesced.
        factor: any number.
    """
    values = [_read_values(p) for p in parameters if p.grad is not None]
    if values:
        torch._foreach_mul_(values, factor)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients down to a common norm of at most `max_norm`.

    Classes that are divided among processes count with the gradients of all of them, so that
    every process scales alike; all of them must call it then. Without such and without sparse
    gradients it is torch's clip_grad_norm_ bit for bit.

    Args:
        parameters: on one device, with or without gradient; sparse gradients are coalesced.
        max_norm: above 0.

    Returns:
        The norm before, a scalar; not finite where a gradient is not.
    """
    every = list(parameters)
    divided = [p for p in every if getattr(p, "facerec_sharded", False)]
    owned = [p for p in every if p.grad is not None]
    if not divided and not any(p.grad is not None and p.grad.is_sparse for p in owned):
        norm: Tensor = nn.utils.clip_grad_norm_(owned, max_norm)
        return norm
    here = {id(p) for p in divided}
    total = _sum_squares([p for p in owned if id(p) not in here], every[0].device)
    if divided:
        elsewhere = _sum_squares([p for p in owned if id(p) in here], every[0].device)
        total = total + dist.sum_over_ranks(elsewhere)
    total = total.sqrt()
    values = [_read_values(p) for p in owned]
    if values:
        torch._foreach_mul_(values, (max_norm / (total + 1e-6)).clamp(max=1.0).to(values[0].dtype))
    return total


def _check_options(group: dict[str, Any]) -> None:
    """Raise InputError where a group's options mean nothing for sparse gradients."""
    for name, neutral in (("dampening", 0), ("fused", False)):
        if group[name]:
            raise InputError(
                f"{name} must be {neutral} for sampled classes, got {group[name]}; leave it out"
            )


def _step_without_hooks(optimizer: torch.optim.SGD) -> None:
    """Take torch's own step; its hooks are called around ours already."""
    step = torch.optim.SGD.step
    # Once anybody has made a plain torch.optim.SGD, torch's step calls them too, and says so.
    inner = getattr(step, "__wrapped__", step) if getattr(step, "hooked", False) else step
    inner(optimizer)


def _sum_squares(parameters: list[nn.Parameter], device: torch.device) -> Tensor:
    """Return the sum of all squared gradients, a float64 scalar: squares overflow float32."""
    norms = [torch.linalg.vector_norm(_read_values(p)).double() for p in parameters]
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(norms).square().sum()


def _read_values(parameter: nn.Parameter) -> Tensor:
    """Return what of a gradient can be changed in place: the values of one that is sparse."""
    gradient = parameter.grad
    assert gradient is not None, "the caller passes parameters with a gradient"
    if not gradient.is_sparse:
        return gradient
    parameter.grad = gradient.coalesce()
    return parameter.grad.values()
