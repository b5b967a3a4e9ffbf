"""One net under training: backbone, head, optimiser and what its extra losses own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from facerec import dist
from facerec.losses.head import Head, Scores, promote
from facerec.losses.partial_fc import PartialFC
from facerec.training.sgd import clip_gradients, scale_gradients


@dataclass(frozen=True)
class Pass:
    """What one net made of one batch.

    Attributes:
        embeddings: (n + u, d) raw, in the precision of the backbone; unlabelled rows come last.
        scores: what the head says of the n labelled rows.
        labels: (n,) int64.
    """

    embeddings: Tensor
    scores: Scores
    labels: Tensor

    @property
    def known(self) -> Tensor:
        """Return the embeddings (n, d) of labelled rows."""
        return self.embeddings[: len(self.labels)]

    @property
    def unknown(self) -> Tensor:
        """Return the embeddings (u, d) of unlabelled rows."""
        return self.embeddings[len(self.labels) :]


@dataclass
class Net:
    """Backbone, head and optimiser that are trained together.

    Attributes:
        backbone: images (n, 3, s, s) -> raw embeddings (n, d).
        head: embeddings, labels -> scores.
        optimizer: over both, and over `extras`.
        extras: modules of auxiliary losses, such as class centres; saved with the net.
        run: the backbone as it is called, compiled or not.
        pending: rows whose gradients wait for the next update.
    """

    backbone: nn.Module
    head: Head | PartialFC
    optimizer: torch.optim.Optimizer
    extras: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    run: Callable[[Tensor], Tensor] | None = None
    pending: float = 0.0

    def __post_init__(self) -> None:
        if self.run is None:
            self.run = self.backbone

    def train(self) -> None:
        """Put all modules into training mode."""
        for module in (self.backbone, self.head, self.extras):
            module.train()

    def forward(self, images: Tensor, labels: Tensor, half: torch.dtype | None = None) -> Pass:
        """Return what the net makes of a batch.

        Args:
            images: (n + u, 3, s, s) float32 in [-1, 1].
            labels: (n,) int64 of the first n rows; the others are unlabelled.
            half: autocast type of the backbone; the head runs in float32.
        """
        assert self.run is not None
        with torch.autocast(images.device.type, half, enabled=half is not None):
            embeddings = self.run(images)
        return Pass(embeddings, self.head.score(embeddings[: len(labels)], labels), labels)

    def compare_all(self, embeddings: Tensor) -> Tensor:
        """Return cosines (n, c) of raw embeddings (n, d) with every class, without margins.

        Sampled class weights get no gradient from this: it would move classes of no row, and
        their momentum with them.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            if isinstance(self.head, PartialFC):
                base = self.head.head
                return base.compare(promote(embeddings), base.weight.detach())
            return self.head.compare(promote(embeddings), self.head.weight)

    def parameters(self) -> list[nn.Parameter]:
        """Return all that the optimiser changes."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, times the group's own multiplier."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def update(self, scaler: torch.amp.GradScaler, nominal: int, clip_norm: float) -> bool:
        """Change the weights by the mean gradient over all pending rows of all processes.

        Returns False, and changes nothing, where no row was pending.

        Every backward pass added the gradient of a sum of row losses divided by `nominal`.

        Args:
            scaler: of float16 gradients; its own update is the caller's.
            nominal: rows by which losses were divided.
            clip_norm: largest norm of the whole gradient, 0 for no limit.
        """
        trained = self.parameters()
        rows = float(dist.sum_over_ranks(torch.tensor(self.pending, dtype=torch.float64)))
        self.pending = 0.0
        if rows <= 0:
            self.optimizer.zero_grad(set_to_none=True)
            return False
        _share_gradients(trained)
        if scaler.is_enabled():
            _share_overflow(trained)
        scaler.unscale_(self.optimizer)
        if rows != nominal:
            scale_gradients(trained, nominal / rows)
        if clip_norm:
            clip_gradients(trained, clip_norm)
        scaler.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        _share_statistics(self.backbone)
        return True


def _share_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum gradients over processes, but for classes that only one process holds."""
    if dist.world_size() == 1:
        return
    shared = [p for p in parameters if not getattr(p, "facerec_sharded", False)]
    for parameter in shared:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    # One message for all: many small ones would wait for each other.
    flat = torch.cat([p.grad.flatten() for p in shared if p.grad is not None])
    summed = dist.sum_over_ranks(flat)
    start = 0
    for parameter in shared:
        assert parameter.grad is not None
        size = parameter.numel()
        parameter.grad.copy_(summed[start : start + size].view_as(parameter))
        start += size


def _share_overflow(parameters: list[nn.Parameter]) -> None:
    """Let a float16 overflow in one process's classes skip the step in all of them."""
    divided = [p.grad for p in parameters if getattr(p, "facerec_sharded", False)]
    gradients = [gradient for gradient in divided if gradient is not None]
    if not gradients:
        return
    values = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    overflow = torch.stack([(~value.isfinite()).any().float() for value in values]).amax()
    if dist.sum_over_ranks(overflow) > 0:
        for gradient in gradients:
            gradient.mul_(torch.inf)


def _share_statistics(backbone: nn.Module) -> None:
    """Average running statistics over processes, so that all hold the same net."""
    if dist.world_size() == 1:
        return
    for buffer in backbone.buffers():
        if buffer.is_floating_point():
            buffer.copy_(dist.mean_over_ranks(buffer))
