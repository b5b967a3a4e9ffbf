"""Samplers by name: which chips an epoch shows, in which order."""

from __future__ import annotations

import inspect
from typing import Any

from facerec.checks import InputError, check_known, nearest
from facerec.data.sampling_base import CLEAN, DEGRADED, NATURAL, Ints, Order, Sampler
from facerec.data.sampling_fixed import BalancedSampler, PairsSampler, PKSampler, ShuffleSampler
from facerec.data.sampling_learned import AdaptiveSampler, DoppelgangerSampler

__all__ = [
    "CLEAN",
    "DEGRADED",
    "NATURAL",
    "Order",
    "Sampler",
    "build_sampler",
    "sampler_names",
]

_SAMPLERS: dict[str, type[Sampler]] = {
    kind.name: kind
    for kind in (
        ShuffleSampler,
        PKSampler,
        DoppelgangerSampler,
        BalancedSampler,
        AdaptiveSampler,
        PairsSampler,
    )
}
_FIXED = ("self", "labels", "batch_size", "seed")


def sampler_names() -> list[str]:
    """Return the names `build_sampler` knows, sorted."""
    return sorted(_SAMPLERS)


def build_sampler(name: str, labels: Ints, batch_size: int, seed: int, **params: Any) -> Sampler:
    """Return a sampler that has learnt nothing yet.

    Args:
        name: "shuffle", "pk", "doppelganger", "balanced", "adaptive" or "pairs".
        labels: int64 (n,), the identity of each chip, from 0.
        batch_size: rows of a step over all ranks.
        seed: of the order, not negative.
        params: the sampler's own arguments, such as `k`, `hops`, `degraded`.

    Raises:
        InputError: unknown name or parameter (with the nearest), or a value out of range.
    """
    if name not in _SAMPLERS:
        raise InputError(
            f"unknown sampler {name!r}; available: {', '.join(sampler_names())}"
            f"{nearest(name, _SAMPLERS)}"
        )
    build = _SAMPLERS[name]
    known = [key for key in inspect.signature(build.__init__).parameters if key not in _FIXED]
    check_known(params, known, f"sampler {name!r}")
    sampler: Sampler = build(labels, batch_size, seed, **params)
    return sampler
