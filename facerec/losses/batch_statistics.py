"""Statistics of a training batch over all processes, and their running averages.

Every rank has to call these together. Ranks may hold different numbers of rows, also none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facerec import dist


def mean_of_batch(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean, number of values) over all ranks, both scalars; the mean of none is 0.

    Args:
        values: any shape, floating.
    """
    count = torch.full_like(values.sum(), values.numel())
    total, count = dist.sum_over_ranks(torch.stack([values.sum(), count]))
    return total / count.clamp_min(1), count


def deviation_of_batch(values: Tensor, mean: Tensor, count: Tensor) -> Tensor:
    """Return the standard deviation over all ranks, with n - 1, scalar; 0 for one value.

    Args:
        values: any shape, floating.
        mean: what `mean_of_batch` returned.
        count: what `mean_of_batch` returned.
    """
    squares = dist.sum_over_ranks((values - mean).square().sum())
    return (squares / (count - 1).clamp_min(1)).sqrt()


def blend(average: Tensor, value: Tensor, decay: float, known: Tensor) -> None:
    """Set `average` to decay * average + (1 - decay) * value where `known`, in place.

    A value that is not finite is as unknown: float16 embeddings may overflow in a step that the
    gradient scaler then skips.

    Args:
        average: scalar buffer.
        value: scalar.
        decay: in [0, 1].
        known: bool scalar; false where the batch says nothing.
    """
    fresh = decay * average + (1 - decay) * value.to(average.dtype)
    average.copy_(torch.where(known & value.isfinite(), fresh, average))
