"""Which rows of a batch teach most: the largest losses, or an unbiased draw by gradient size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from facerec.checks import InputError, check_one_of, check_range
from facerec.losses.head import promote
from facerec.training.selection import count_kept

MININGS = ("none", "ohem", "importance")
NOISE_METHODS = ("none", "coteaching", "comining", "mutual")

_SMALL_LOSS_METHODS = ("coteaching", "comining")
_GROUPED_SAMPLERS = ("pk", "pairs")
_OBSERVING_HEADS = ("adacos", "adaface", "adamargin", "curricularface")


def keep_hardest(losses: Tensor, ratio: float) -> Tensor:
    """Return the rows with the largest losses, bool (n,) (OHEM, METHODS 5).

    max(1, round(ratio n)) rows are kept, of equal ones the first. A loss of NaN counts as the
    largest, so that it is not hidden.

    Args:
        losses: (n,), detached or not.
        ratio: share to keep, in [0, 1].

    Raises:
        InputError: a ratio out of range.
    """
    check_range(ratio, "ratio", 0, 1)
    kept = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    if len(losses):
        order = torch.sort(losses.detach(), descending=True, stable=True).indices
        kept[order[: count_kept(len(losses), ratio)]] = True
    return kept


def gradient_scores(logits: Tensor, columns: Tensor) -> Tensor:
    """Return ‖softmax(z) - onehot‖ of each row (n,), in [0, √2], detached.

    Times a constant it bounds the norm of the row's whole gradient (Katharopoulos and Fleuret
    2018).

    Args:
        logits: (n, c), whole rows: not the part of the classes that one rank of many holds.
        columns: (n,) int64, where each row's own class stands.
    """
    share = torch.softmax(promote(logits.detach()), dim=1)
    own = columns[:, None]
    share = share.scatter(1, own, share.gather(1, own) - 1)
    norms: Tensor = torch.linalg.vector_norm(share, dim=1)
    return norms


def variance_gauge(scores: Tensor) -> float:
    """Return τ = sqrt(B Σ g²) of scores (B,), g being their shares of the sum (METHODS 5).

    1 for equal scores, √B when one row has all: drawing by scores that are gradient norms makes
    the second moment of the mean gradient τ² times smaller. Scores that are all 0 are equal.
    """
    values = scores.detach().double()
    total = float(values.sum())
    if total <= 0:
        return 1.0
    return math.sqrt(len(values)) * float(torch.linalg.vector_norm(values)) / total


class ImportanceDraw:
    """Draws the rows to train on out of a larger batch, by the size of their gradients.

    Of B rows b are drawn with replacement, row i with probability p_i, and weighed by
    1 / (B p_i): the mean of weight times loss over the drawn rows is an unbiased estimate of the
    mean loss of all. p mixes the scores' shares with a little of the uniform distribution,
    (1 - floor) g + floor / B, which bounds the weights by 1 / floor and keeps them unbiased.

    Drawing pays when τ, averaged over steps, exceeds (B + 3 b) / (3 b): scoring costs a forward
    pass, a third of a step. Until then, b rows are drawn uniformly without replacement, each
    with weight 1.

    Args:
        batch_size: b.
        presample: B / b, in [1, 64].
        momentum: of the average of τ, which starts at 1: nothing gained.
        floor: share of the uniform distribution in the draw, in [0, 1].

    Attributes:
        tau: the average.
        threshold: above which rows are drawn by their scores.

    Raises:
        InputError: a value out of range.
    """

    def __init__(
        self,
        batch_size: int,
        presample: float = 2.0,
        momentum: float = 0.9,
        floor: float = 0.01,
    ) -> None:
        self.batch_size = int(check_range(batch_size, "batch_size", 1, 10**6))
        self.presample = check_range(presample, "presample", 1, 64)
        self.momentum = check_range(momentum, "momentum", 0, 1)
        self.floor = check_range(floor, "floor", 0, 1)
        self.threshold = (presample + 3) / 3
        self.tau = 1.0

    @property
    def is_on(self) -> bool:
        """Return whether rows are drawn by their scores."""
        return self.tau > self.threshold

    def draw(
        self, logits: Tensor, columns: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (rows (b,) int64, weights (b,) float32) on the device of `logits`.

        Args:
            logits: (B, c), of the larger batch.
            columns: (B,) int64, where each row's own class stands.
            generator: on the CPU; None takes torch's own.

        Raises:
            InputError: fewer rows than are to be drawn.
        """
        if len(logits) < self.batch_size:
            raise InputError(
                f"importance sampling must get at least {self.batch_size} rows to draw from, "
                f"got {len(logits)}; raise mining.presample or lower batch_size"
            )
        scores = gradient_scores(logits, columns).double().cpu()
        # Where a loss is NaN nothing can be drawn by scores; the caller will see the loss.
        if bool(scores.isfinite().all()):
            gauge = variance_gauge(scores)
            self.tau = self.momentum * self.tau + (1 - self.momentum) * gauge
            if self.is_on:
                rows, weights = draw_rows(scores, self.batch_size, generator, self.floor)
                return rows.to(logits.device), weights.to(logits.device)
        rows = torch.randperm(len(logits), generator=generator)[: self.batch_size]
        return rows.to(logits.device), torch.ones(self.batch_size, device=logits.device)

    def state_dict(self) -> dict[str, float]:
        """Return the average of τ."""
        return {"tau": self.tau}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.tau = float(state["tau"])


def draw_rows(
    scores: Tensor, count: int, generator: torch.Generator | None = None, floor: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return (rows (b,) int64, weights (b,) float32): a draw with replacement by scores.

    Args:
        scores: (B,), not negative, on the CPU; all 0 draws uniformly.
        count: b.
        generator: on the CPU; None takes torch's own.
        floor: share of the uniform distribution, in [0, 1].
    """
    rows = len(scores)
    values = scores.detach().double()
    total = values.sum()
    shares = values / total if float(total) > 0 else torch.full_like(values, 1 / rows)
    chances = (1 - floor) * shares + floor / rows
    drawn = torch.multinomial(chances, count, replacement=True, generator=generator)
    return drawn, (1 / (rows * chances[drawn])).float()


def refuse_contradictions(mining: str, noise: str, sampler: str, head: str = "") -> None:
    """Raise InputError where methods pull the same rows in opposite directions.

    Hard-example mining and small-loss selection take opposite ends of one ranking, and so do
    small-loss selection and a sampler that repeats what the net gets wrong. Importance sampling
    draws single rows, which breaks up groups that a sampler has put together, and shows heads
    with running statistics too many hard rows. Samplers of look-alikes and selection go together.

    Args:
        mining: one of MININGS.
        noise: one of NOISE_METHODS.
        sampler: name of the sampler.
        head: name of the head, "" if that does not matter.

    Raises:
        InputError: an unknown method, or two that contradict each other.
    """
    check_one_of(mining, "mining.name", MININGS)
    check_one_of(noise, "noise.name", NOISE_METHODS)
    if mining != "none" and noise in _SMALL_LOSS_METHODS:
        raise InputError(
            f"mining {mining!r} and noise {noise!r} contradict each other, because one prefers "
            "the largest losses and the other drops them; set mining.name or noise.name to none"
        )
    if sampler == "adaptive" and noise in _SMALL_LOSS_METHODS:
        raise InputError(
            f"sampler 'adaptive' and noise {noise!r} contradict each other, because one repeats "
            "what the net gets wrong and the other drops it; take another sampler, or noise none"
        )
    if mining == "importance" and sampler in _GROUPED_SAMPLERS:
        raise InputError(
            f"mining 'importance' and sampler {sampler!r} contradict each other, because drawing "
            "single rows breaks up the sampler's groups; set mining.name to ohem or none"
        )
    if mining == "importance" and head in _OBSERVING_HEADS:
        raise InputError(
            f"mining 'importance' and head {head!r} contradict each other, because the head's "
            "running statistics would be those of hard rows; set mining.name to ohem or none"
        )
