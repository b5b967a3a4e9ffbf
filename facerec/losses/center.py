"""Center loss: embeddings of one person are drawn together (METHODS section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facerec import dist
from facerec.checks import InputError, check_range
from facerec.losses.head import promote


class CenterLoss(nn.Module):
    """L = ½ mean ‖x_i - c_{y_i}‖² on raw embeddings (Wen et al. 2016).

    The centres are no parameters: `update` moves them by the paper's own rule, apart from the
    optimiser, so that the loss's weight does not scale their motion. They start at 0 and are
    saved with the module. Under torchrun all ranks have to call `update` together; it sums over
    ranks, so that all keep equal centres.

    Args:
        num_classes: c.
        embedding_dim: d.
        alpha: how far centres move, in [0, 1].

    Attributes:
        centres: float32 (c, d).

    Raises:
        InputError: an argument out of range.
    """

    centres: Tensor

    def __init__(self, num_classes: int, embedding_dim: int, alpha: float = 0.5) -> None:
        super().__init__()
        check_range(num_classes, "num_classes", 1, 10**9)
        check_range(embedding_dim, "embedding_dim", 1, 10**5)
        self.alpha = check_range(alpha, "alpha", 0, 1)
        self.register_buffer("centres", torch.zeros(num_classes, embedding_dim))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a float32 scalar, 0 for an empty batch; no gradient to the centres.

        Args:
            embeddings: (n, d), raw; half precision is widened, float64 stays.
            labels: (n,) int64 in [0, c).

        Raises:
            InputError: a shape or a label that does not fit.
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            offset = promote(embeddings) - self.centres[labels]
            return offset.square().sum() / (2 * max(1, len(labels)))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Move the centres of the batch: c_j -= alpha Σ_{y_i=j} (c_j - x_i) / (1 + n_j).

        Classes absent from the batches of all ranks stay as they are.

        Args:
            embeddings: (n, d), raw; n may differ between ranks and be 0.
            labels: (n,) int64 in [0, c).

        Raises:
            InputError: a shape or a label that does not fit.
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            counts = dist.sum_over_ranks(torch.bincount(labels, minlength=len(self.centres)))
            # Only classes that some rank has seen: a sum over all c of them would be far longer.
            present = counts.nonzero()[:, 0]
            place = torch.searchsorted(present, labels)
            sums = self.centres.new_zeros(len(present), self.centres.shape[1])
            sums.index_add_(0, place, embeddings.detach().to(sums.dtype))
            sums = dist.sum_over_ranks(sums)
            count = counts[present][:, None].to(sums.dtype)
            centres = self.centres[present]
            self.centres[present] = centres - self.alpha * (count * centres - sums) / (1 + count)

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        classes, dim = self.centres.shape
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise InputError(
                f"embeddings must have shape (n, {dim}), got {tuple(embeddings.shape)}"
            )
        if labels.shape != embeddings.shape[:1]:
            raise InputError(
                f"labels must have shape ({len(embeddings)},), one an embedding, "
                f"got {tuple(labels.shape)}"
            )
        # On an accelerator the look would stall the queue; there the kernel itself asserts.
        if labels.device.type == "cpu" and labels.numel():
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= classes:
                raise InputError(
                    f"labels must lie in [0, {classes}), got {low if low < 0 else high}"
                )

    def extra_repr(self) -> str:
        """Name the sizes and the step in the module's text form."""
        classes, dim = self.centres.shape
        return f"{classes} classes, d {dim}, alpha {self.alpha:g}"
