"""Two nets that show each other which rows of a batch to trust (METHODS section 6)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from facerec.checks import InputError, check_one_of, check_range
from facerec.losses.head import Scores, promote
from facerec.training.noise_rate import NoiseEstimate, estimate_noise_rate
from facerec.training.selection import SelectionReport, count_kept, select_small_losses

__all__ = [
    "MODES",
    "SCHEDULES",
    "NoiseEstimate",
    "SelectionReport",
    "comine",
    "estimate_noise_rate",
    "exchange",
    "keep_rate",
    "mutual_kl",
    "select_small_losses",
]

SCHEDULES = ("linear", "growing")
MODES = ("plain", "disagreement", "either_wrong")

_MOST_FORGOTTEN = 0.9


def keep_rate(
    epoch: float,
    noise_rate: float,
    schedule: str = "linear",
    gradual_epochs: float = 10.0,
    total_epochs: float | None = None,
    warmup_epochs: float = 0.0,
) -> float:
    """Return R, the share of rows to keep at a point of the training (METHODS 6.1).

    With t epochs since the warm-up and T_k = `gradual_epochs`:

    - "linear" (Han et al. 2018): R = 1 - τ min(t / T_k, 1).
    - "growing" (Yu et al. 2019): R = 1 - τ min(t / T_k, 1 + (t - T_k) / (T_end - T_k)), so that
      τ is forgotten at T_k and 2 τ at the end, T_end epochs after the warm-up. A run that ends
      before T_k never gets there.

    During the warm-up R is 1, because at first all losses look alike. At most 0.9 of the rows
    are forgotten; that bound is ours.

    Args:
        epoch: epochs done, with their fraction.
        noise_rate: τ, share of wrong labels, in [0, 0.9].
        schedule: one of SCHEDULES.
        gradual_epochs: T_k, above 0.
        total_epochs: of the whole run, warm-up included; "growing" needs it.
        warmup_epochs: epochs that keep everything.

    Raises:
        InputError: a value out of range, or "growing" without total_epochs.
    """
    check_range(epoch, "epoch", 0, 1e6)
    check_range(noise_rate, "noise_rate", 0, _MOST_FORGOTTEN)
    check_one_of(schedule, "schedule", SCHEDULES)
    check_range(gradual_epochs, "gradual_epochs", 1e-6, 1e6)
    check_range(warmup_epochs, "warmup_epochs", 0, 1e6)
    since = max(0.0, epoch - warmup_epochs)
    multiple = min(since / gradual_epochs, 1.0)
    if schedule == "growing":
        if total_epochs is None:
            raise InputError("schedule 'growing' needs total_epochs, got none; give it")
        end = total_epochs - warmup_epochs
        if since > gradual_epochs and end > gradual_epochs:
            grown = 1 + (since - gradual_epochs) / (end - gradual_epochs)
            multiple = min(since / gradual_epochs, grown)
    return 1 - min(multiple * noise_rate, _MOST_FORGOTTEN)


def exchange(
    scores_a: Scores,
    scores_b: Scores,
    labels: Tensor,
    keep_rate: float,
    mode: str = "plain",
    floor_per_identity: int = 0,
    images: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (rows for net a, chosen by b; rows for net b, chosen by a), both bool (n,).

    Each net picks the rows with its smallest losses for its peer. Losses are those without
    margins: a margin makes hard clean rows look like noise. Predictions are those with margins.
    The rows to choose from are

    - "plain": all (Co-teaching, Han et al. 2018);
    - "disagreement": those on which the nets' predictions differ (Co-teaching+, Yu et al. 2019);
    - "either_wrong": all but those that both nets have right.

    Where there are none, both answers are empty: no row is to be trained on.

    Args:
        scores_a: of the first net; nothing of it is differentiated.
        scores_b: of the second net, for the same rows.
        labels: (n,) int64.
        keep_rate: R in [0, 1].
        mode: one of MODES.
        floor_per_identity: see `select_small_losses`.
        images: see `select_small_losses`.

    Raises:
        InputError: an unknown mode, or a value out of range.
    """
    check_one_of(mode, "mode", MODES)
    # Of sharded heads all ranks must ask the same in the same order, whatever their rows are.
    losses_a, losses_b = scores_a.plain_losses(), scores_b.plain_losses()
    within = None
    if mode != "plain":
        said_a, said_b = scores_a.predictions(), scores_b.predictions()
        within = said_a != said_b
        if mode == "either_wrong":
            within = (said_a != labels) | (said_b != labels)
    chosen_a, chosen_b = (
        select_small_losses(losses, keep_rate, within, labels, floor_per_identity, images)
        for losses in (losses_a, losses_b)
    )
    return chosen_b, chosen_a


def comine(
    losses_a: Tensor,
    losses_b: Tensor,
    keep_rate: float,
    cosines_a: Tensor | None = None,
    cosines_b: Tensor | None = None,
    confident: float = 0.5,
    boost: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the weights of rows for net a and for net b, float32 (n,) (Wang et al. 2019).

    - Noisy rows are those that both nets find among the 1 - R largest losses: weight 0.
    - Each net's smallest losses, a share `confident` of what R keeps, go to its peer, with the
      weight 1 + boost max(0, cos).
    - Of the others, hard but not noisy, each net learns itself, with weight 1. A row that a net
      itself is confident of, and its peer is not, is the peer's alone.

    Weights are then scaled to a mean of 1 over the rows with any. The paper gives these three
    parts; the shares and the weight function are ours.

    Args:
        losses_a: (n,) of the first net, best without margins.
        losses_b: (n,) of the second.
        keep_rate: R in [0, 1].
        cosines_a: (n,) of each row with its own class by the first net; None counts as 1.
        cosines_b: (n,) by the second.
        confident: share of the kept rows that are exchanged, in (0, 1].
        boost: how much more a confident row counts, in [0, 10].

    Raises:
        InputError: a value out of range.
    """
    check_range(confident, "confident", 1e-6, 1)
    check_range(boost, "boost", 0, 10)
    kept_a = select_small_losses(losses_a, keep_rate)
    kept_b = select_small_losses(losses_b, keep_rate)
    rows = len(losses_a)
    share = confident * count_kept(rows, keep_rate) / max(1, rows)
    sure_a = select_small_losses(losses_a, share) & kept_a
    sure_b = select_small_losses(losses_b, share) & kept_b
    clean = kept_a | kept_b
    return (
        _weigh(sure_b, clean & ~sure_a, cosines_b, boost),
        _weigh(sure_a, clean & ~sure_b, cosines_a, boost),
    )


def mutual_kl(own: Tensor, other: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² KL(p_other ‖ p_own) of each row (n,), with p = softmax(logits / T).

    Deep mutual learning (Zhang et al. 2018, METHODS 6.3). The other net is not differentiated;
    T² keeps the gradient's size. With scale s, T near s brings logits back to cosines.

    Args:
        own: (n, c), logits of the net that learns.
        other: (n, c), logits of its peer for the same columns.
        temperature: T in [1e-3, 1e4].

    Raises:
        InputError: a temperature out of range.
    """
    check_range(temperature, "temperature", 1e-3, 1e4)
    learner = log_softmax(promote(own) / temperature, dim=1)
    teacher = log_softmax(promote(other.detach()) / temperature, dim=1)
    terms = kl_div(learner, teacher, reduction="none", log_target=True)
    return temperature**2 * terms.sum(dim=1)


def _weigh(sure: Tensor, hard: Tensor, cosines: Tensor | None, boost: float) -> Tensor:
    """Return weights (n,) of mean 1 over the rows that are either."""
    trust = torch.ones(len(sure), device=sure.device)
    if cosines is not None:
        trust = cosines.detach().float().clamp(0, 1)
    raw = torch.where(sure, 1 + boost * trust, hard.float())
    used = (raw > 0).sum()
    return raw * (used / raw.sum().clamp_min(1e-12))
