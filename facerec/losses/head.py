"""The base of every margin head: normalise, cosine, margin on the target, scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facerec.checks import InputError, check_one_of, check_range

_SMALLEST_NORM = 1e-12
_INITIAL_STD = 0.01


class Head(nn.Module):
    """Class weights and logits `scale * cos`; a margin head overrides `modify_target` alone.

    Everything here runs in float32 (float64 stays float64), also under autocast: embeddings may
    come in half precision, but their norms and angles do not survive it (METHODS 0.1).

    Args:
        num_classes: c, at least 2.
        embedding_dim: d.
        scale: s, the norm that replaces that of the embedding.
        grad: "exact" differentiates the margin; "straight_through" treats it as a constant
            shift, so that the target logit's gradient with respect to its cosine is s
            (the arcface_torch behaviour).

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self, num_classes: int, embedding_dim: int, scale: float = 64.0, grad: str = "exact"
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(
                f"num_classes must be at least 2, got {num_classes}; "
                "a head needs two identities to tell apart"
            )
        check_range(scale, "scale", 1e-3, 1e4)
        check_one_of(grad, "grad", ("exact", "straight_through"))
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.scale = scale
        self.grad = grad
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))
        nn.init.normal_(self.weight, std=_INITIAL_STD)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return scaled logits (n, c) from raw embeddings (n, d) and labels (n,) int64.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise InputError(
                f"embeddings must have shape (n, {self.embedding_dim}), "
                f"got {tuple(embeddings.shape)}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = _promote(embeddings)
            norms = torch.linalg.vector_norm(exact, dim=1)
            directions = exact / norms.clamp_min(_SMALLEST_NORM)[:, None]
            centres = nn.functional.normalize(self.weight, dim=1, eps=_SMALLEST_NORM)
            cosine = directions @ centres.to(exact.dtype).T
            return self.logits(cosine, labels, norms)

    def logits(self, cosine: Tensor, labels: Tensor, norms: Tensor | None = None) -> Tensor:
        """Return scaled logits (n, c).

        Args:
            cosine: (n, c), cosines of embeddings and class centres; half precision is widened.
            labels: (n,) int64 in [0, c).
            norms: (n,), raw norms of the embeddings; only quality-aware heads read them.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        _check_labels(cosine, labels)
        with torch.autocast(cosine.device.type, enabled=False):
            cosine = _promote(cosine)
            column = labels[:, None]
            # Rounding can leave [-1, 1] by a few units in the last place; angles cannot.
            target = cosine.gather(1, column).clamp(-1, 1)
            shifted = self.modify_target(target, None if norms is None else norms[:, None])
            if self.grad == "straight_through":
                # The value of `shifted` bit for bit, with the gradient of `target`.
                shifted = shifted.detach() + (target - target.detach())
            return self.scale * cosine.scatter(1, column, shifted)

    def modify_target(self, target: Tensor, norms: Tensor | None) -> Tensor:
        """Return the target column (n, 1) after the margin; here unchanged.

        Args:
            target: (n, 1) float32 or float64, cosines in [-1, 1].
            norms: (n, 1) raw norms, None when the caller has none.
        """
        return target

    def extra_repr(self) -> str:
        """Name the sizes and settings in the module's text form."""
        return f"{self.num_classes} classes, d {self.embedding_dim}, scale {self.scale:g}"


def _promote(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check_labels(cosine: Tensor, labels: Tensor) -> None:
    if cosine.ndim != 2 or labels.shape != cosine.shape[:1]:
        raise InputError(
            f"cosine must have shape (n, c) and labels (n,), "
            f"got {tuple(cosine.shape)} and {tuple(labels.shape)}"
        )
    # On an accelerator the look would stall the queue; there the kernel itself asserts.
    if labels.device.type == "cpu" and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= cosine.shape[1]:
            raise InputError(
                f"labels must lie in [0, {cosine.shape[1]}), got {low if low < 0 else high}"
            )
