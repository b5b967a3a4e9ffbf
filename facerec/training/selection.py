"""Which rows of a batch are kept because their loss is small, and how good that choice was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facerec.checks import InputError, check_range


def count_kept(rows: int, rate: float) -> int:
    """Return how many of `rows` a rate in [0, 1] keeps: rounded, at least one of some."""
    return min(rows, max(1, round(rows * rate)))


def select_small_losses(
    losses: Tensor,
    keep_rate: float,
    within: Tensor | None = None,
    labels: Tensor | None = None,
    floor_per_identity: int = 0,
    images: Tensor | None = None,
) -> Tensor:
    """Return the rows with the smallest losses, bool (n,); of equal ones the first (METHODS 6.1).

    Of the m rows in `within`, max(1, round(m R)) are kept, none if m is 0. A loss of NaN counts
    as the largest.

    The floor protects identities with few images, whose rows are always hard: of r rows that an
    identity with N images has here, the r min(1, f / N) easiest, rounded down, are kept first.
    So an identity with at most f images loses nothing, and one with many is not protected. Where
    N is not given it is r: every identity keeps min(r, f) rows. Should the protected rows be
    more than the rate keeps, all of them stay.

    Args:
        losses: (n,), detached or not.
        keep_rate: R in [0, 1].
        within: bool (n,), the rows to choose from; None for all.
        labels: (n,) int64, the identities; needed for the floor.
        floor_per_identity: f, 0 for none.
        images: (n,) int64, how many images the identity of each row has in the training set.

    Raises:
        InputError: a rate out of range, or a floor without labels.
    """
    check_range(keep_rate, "keep_rate", 0, 1)
    check_range(floor_per_identity, "floor_per_identity", 0, 10**6)
    if floor_per_identity and labels is None:
        raise InputError("a floor_per_identity needs labels, got none; give them or set it to 0")
    order = torch.sort(losses.detach(), stable=True).indices
    if within is not None:
        order = order[within[order]]
    if floor_per_identity and labels is not None:
        first = _is_protected(order, labels, floor_per_identity, images)
        count = max(_count_within(order, keep_rate), int(first.sum()))
        order = torch.cat([order[first], order[~first]])
    else:
        count = _count_within(order, keep_rate)
    kept = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    kept[order[:count]] = True
    return kept


def find_sub_center_outliers(
    cosines: Tensor, labels: Tensor, max_angle_deg: float = 75.0
) -> Tensor:
    """Return the images that lie far from their class's dominant sub-centre, bool (n,).

    Each image votes for the most similar of its class's K sub-centres; the one with most votes is
    dominant, of equals the first. Outliers are more than `max_angle_deg` away from it: they are
    dropped before a training with one centre a class (Deng et al. 2020, METHODS 11).

    Args:
        cosines: (n, K), of each image with the K sub-centres of its own class.
        labels: (n,) int64.
        max_angle_deg: degrees in [0, 180].

    Raises:
        InputError: shapes that do not fit, or an angle out of range.
    """
    check_range(max_angle_deg, "max_angle_deg", 0, 180)
    if cosines.ndim != 2 or labels.shape != cosines.shape[:1] or cosines.shape[1] == 0:
        raise InputError(
            "cosines must have shape (n, K) and labels (n,), "
            f"got {tuple(cosines.shape)} and {tuple(labels.shape)}"
        )
    classes, slots = torch.unique(labels, return_inverse=True)
    votes = torch.zeros(len(classes), cosines.shape[1], dtype=torch.int64, device=labels.device)
    ballots = cosines.detach().argmax(dim=1)
    votes.index_put_((slots, ballots), torch.ones_like(slots), accumulate=True)
    dominant = votes.argmax(dim=1)[slots]
    own = cosines.detach().gather(1, dominant[:, None])[:, 0].clamp(-1, 1)
    return torch.rad2deg(own.double().acos()) > max_angle_deg


class SelectionReport:
    """Counts what a method kept and dropped, against the truth where that is known."""

    _NAMES = ("kept", "dropped", "kept_clean", "kept_noisy", "dropped_clean", "dropped_noisy")

    def __init__(self) -> None:
        self._counts = dict.fromkeys(self._NAMES, 0)

    def add(self, kept: NDArray[np.bool_], clean: NDArray[np.bool_] | None = None) -> None:
        """Count the rows of a batch.

        Args:
            kept: bool (n,), rows that were selected.
            clean: bool (n,), rows whose label is right; None where nobody knows.
        """
        found = {"kept": kept, "dropped": ~kept}
        if clean is not None:
            found |= {
                "kept_clean": kept & clean,
                "kept_noisy": kept & ~clean,
                "dropped_clean": ~kept & clean,
                "dropped_noisy": ~kept & ~clean,
            }
        for name, rows in found.items():
            self._counts[name] += int(np.count_nonzero(rows))

    def reset(self) -> None:
        """Forget all counts, at the start of an epoch."""
        self._counts = dict.fromkeys(self._NAMES, 0)

    def as_dict(self) -> dict[str, float]:
        """Return counts and shares, {} before the first row.

        `kept`, `dropped` and `kept_share` are always there. With the truth: `kept_precision`
        (share of kept rows that are clean), `kept_recall` (share of clean rows that are kept),
        `noise_precision` (share of dropped rows that are noisy) and `noise_recall` (share of
        noisy rows that are dropped), each left out where it would divide by nothing.
        """
        counts = self._counts
        total = counts["kept"] + counts["dropped"]
        if not total:
            return {}
        report = {
            "kept": float(counts["kept"]),
            "dropped": float(counts["dropped"]),
            "kept_share": counts["kept"] / total,
        }
        shares = {
            "kept_precision": ("kept_clean", "kept_noisy"),
            "kept_recall": ("kept_clean", "dropped_clean"),
            "noise_precision": ("dropped_noisy", "dropped_clean"),
            "noise_recall": ("dropped_noisy", "kept_noisy"),
        }
        for name, (right, other) in shares.items():
            whole = counts[right] + counts[other]
            if whole:
                report[name] = counts[right] / whole
        return report

    def state_dict(self) -> dict[str, int]:
        """Return the counts."""
        return dict(self._counts)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._counts = {name: int(state[name]) for name in self._NAMES}


def _count_within(order: Tensor, rate: float) -> int:
    return count_kept(len(order), rate) if len(order) else 0


def _is_protected(order: Tensor, labels: Tensor, floor: int, images: Tensor | None) -> Tensor:
    """Return bool for rows in `order`, easiest first: those that their identity's floor keeps."""
    slots = torch.unique(labels[order], return_inverse=True)[1]
    here = torch.bincount(slots)[slots]
    whole = here if images is None else torch.maximum(images[order].to(here), here)
    protected = torch.minimum(here, here * floor // whole)
    # Of equal slots a stable sort keeps the easiest first: its place there is a row's rank.
    by_slot = torch.sort(slots, stable=True).indices
    starts = torch.searchsorted(slots[by_slot], slots)
    places = torch.empty_like(by_slot)
    places[by_slot] = torch.arange(len(by_slot), device=order.device)
    return places - starts < protected
