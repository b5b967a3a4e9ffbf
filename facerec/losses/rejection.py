"""Unknown identity rejection: faces of nobody known are pushed from every class centre.

Yu et al. 2019, METHODS section 7. The rows have no label, so their logits have no margin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerec.checks import InputError, check_one_of, check_range
from facerec.losses.head import promote

REJECTION_FORMS = ("log", "released")


def reject_unknown(logits: Tensor, form: str = "log") -> Tensor:
    """Return how far each unknown row is from being equally unlike all known classes.

    With p = softmax(z) over the c classes:

    * "log", the paper's: -mean_j log p_j, the cross entropy against the uniform distribution. The
      mean over classes, not the sum, so that a weight means the same for any c. Its minimum is
      log c, where all logits are equal; its gradient with respect to z is p - 1/c.
    * "released", the authors' code, which applies softmax a second time:
      Σ_j -log softmax(p)_j - c log c = c log(1 + Σ_j (e^{p_j} - 1) / c) - 1, about ½‖p‖². It lies
      between 0, where all logits are equal (up to rounding), and e - 2.

    With a PartialFC head the uniform target runs over the sampled classes only: the centres that
    were not drawn push nothing in that step, and log c is that of the sample.

    Args:
        logits: (n, c) s * cos, no margin; half precision is widened, float64 stays.
        form: "log" or "released".

    Returns:
        (n,), one loss a row.

    Raises:
        InputError: another shape or form.
    """
    check_one_of(form, "form", REJECTION_FORMS)
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise InputError(f"logits must have shape (n, c), got {tuple(logits.shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        exact = promote(logits)
        if form == "log":
            return exact.logsumexp(dim=1) - exact.mean(dim=1)
        classes = logits.shape[1]
        # c log c has no digits left for the loss in float32: never the difference.
        chance = exact.softmax(dim=1)
        excess = torch.expm1(chance).sum(dim=1)
        # The 1 as it was rounded: over many classes the sum is off by more than the rest.
        return classes * torch.log1p(excess / classes) - chance.sum(dim=1)


def admit(cosine_max: Tensor, bound: float) -> Tensor:
    """Return bool (n,): which faces may be shown as unknown, those most unlike anybody known.

    Args:
        cosine_max: (n,), each face's largest cosine with any class centre. NaN is not admitted.
        bound: faces strictly below it are admitted; see `calibrate_bound`.

    Raises:
        InputError: another shape, or a bound that no cosine can be.
    """
    if cosine_max.ndim != 1:
        raise InputError(
            f"cosine_max must have shape (n,), one a face, got {tuple(cosine_max.shape)}"
        )
    check_range(bound, "bound", -1, 1)
    return cosine_max < bound


def calibrate_bound(
    target_cosines: Tensor | NDArray[Any], quantile: float = 0.01, ceiling: float = 0.5
) -> float:
    """Return the cosine below which an unlabelled face is taken to be nobody known.

    A face of a known person that got among the unlabelled would be pushed from its own centre.
    Its largest cosine with any centre is at least that with its own, which is distributed like
    that of labelled chips; so the bound is their lower `quantile`: at most that share of known
    people's faces fall below it and are admitted by mistake. The ceiling holds where labelled
    chips lie so close to their centres that the quantile would admit look-alikes.

    Training draws its own chips closer to their centres than unseen ones of the same people:
    where unseen ones are at hand, calibrate on them.

    Args:
        target_cosines: (n,), cosines of labelled chips with their own class centres, as the net
            sees them now.
        quantile: share of known faces that may fall below the bound, in [0, 1).
        ceiling: the bound is never larger.

    Raises:
        InputError: no cosines, another shape, values that are no cosines, or an argument out of
            range.
    """
    if not 0 <= check_range(quantile, "quantile", 0, 1) < 1:
        raise InputError("quantile must lie in [0, 1), got 1; 0.01 is usual")
    check_range(ceiling, "ceiling", -1, 1)
    if isinstance(target_cosines, Tensor):
        target_cosines = target_cosines.detach().double().cpu().numpy()
    values = np.asarray(target_cosines, np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(
            "target cosines must have shape (n,) with at least one labelled chip, "
            f"got {values.shape}"
        )
    # NaN fails the comparison too; rounding may pass 1 by a little.
    if not (np.abs(values) <= 1 + 1e-3).all():
        row = int(np.flatnonzero(~(np.abs(values) <= 1 + 1e-3))[0])
        raise InputError(
            f"target cosines must lie in [-1, 1], but chip {row} has {values[row]:.4g}; "
            "divide logits by the head's scale"
        )
    # An order statistic, so that the share below is at most the quantile, not about it.
    rank = math.floor(quantile * values.size)
    lowest = float(np.partition(values, rank)[rank])
    return max(-1.0, min(ceiling, lowest))
