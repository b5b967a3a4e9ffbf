"""What every protocol answers with: a figure at a target, its interval, and whether it stands.

A figure is given only where the sample can support it: at least 10 errors must be possible at the
target (`facerec.metrics.verification.MIN_FALSE_ACCEPTS`). Otherwise it is None and the reason says
what was missing; nothing is invented.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_whole
from facerec.metrics.bootstrap import Interval
from facerec.metrics.verification import MIN_FALSE_ACCEPTS, OperatingPoint, count_allowed

FAILURE_RULE = (
    "a face without an embedding is a failure: it scores minus infinity, is never accepted or "
    "found, and stays in every denominator"
)


class Draws(TypedDict):
    """How intervals are made.

    Attributes:
        resamples: of people; 0 for no intervals.
        seed: of the resamples.
    """

    resamples: int
    seed: int


@dataclass(frozen=True)
class Rate:
    """One figure, perhaps at a target error rate.

    Attributes:
        name: such as "tar", "tpir" or "rank-1".
        value: the figure in [0, 1]; None where the sample cannot support it.
        target: the error rate it holds at, None for a figure without one.
        threshold: the lowest score whose error rate does not exceed the target; None where there
            is no value.
        errors: errors of the target's kind at the threshold.
        allowed: how many the target allows, floor(target * trials).
        trials: comparisons or searches that could err.
        interval: over people; None where people are not known or there is no value.
        reason: "" where there is a value, else why there is none.
    """

    name: str
    value: float | None
    target: float | None = None
    threshold: float | None = None
    errors: int | None = None
    allowed: int | None = None
    trials: int | None = None
    interval: Interval | None = None
    reason: str = ""

    @property
    def supported(self) -> bool:
        """Return whether there is a value."""
        return self.value is not None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, `supported` among them."""
        return {**asdict(self), "supported": self.supported}


def rate_of_point(name: str, point: OperatingPoint, interval: Interval | None) -> Rate:
    """Return an operating point as a rate, without a value where it is not supported."""
    return build_rate(
        name,
        point.tar,
        target=point.far,
        threshold=point.threshold,
        errors=point.false_accepts,
        trials=point.non_mated,
        interval=interval,
    )


def build_rate(
    name: str,
    value: float,
    *,
    target: float,
    threshold: float,
    errors: int,
    trials: int,
    interval: Interval | None,
) -> Rate:
    """Return a rate at a target; the value is None when fewer than 10 errors were possible."""
    allowed = count_allowed(target, trials) if trials else 0
    if allowed < MIN_FALSE_ACCEPTS:
        needed = math.ceil(MIN_FALSE_ACCEPTS / target)
        reason = (
            f"not supported: {trials:,} trials allow {allowed} errors at {target:g}; "
            f"{MIN_FALSE_ACCEPTS} need {needed:,} trials"
        )
        return Rate(name, None, target, allowed=allowed, trials=trials, reason=reason)
    return Rate(name, value, target, threshold, errors, allowed, trials, interval)


def keep_interval(interval: Interval | None) -> Interval | None:
    """Return an interval, or None for one that no resample could give."""
    return interval if interval is not None and math.isfinite(interval.low) else None


def widen_certain(rate: Rate, people: NDArray[Any]) -> Rate:
    """Return a rate of 0 or 1 with an interval that says how little that shows.

    Without a single error a resample has none either: its interval would have no width. It then
    reaches to the rate that shows an error with the interval's confidence among so many people
    (at 95 % the rule of three, 3 / n), n being Kish's effective number.

    Args:
        rate: any.
        people: (t,), whose each trial is.
    """
    if rate.interval is None or rate.value not in (0.0, 1.0):
        return rate
    counts = np.unique(people, return_counts=True)[1].astype(np.float64)
    units = float(counts.sum() ** 2 / (counts**2).sum())
    reach = -math.expm1(math.log1p(-rate.interval.confidence) / units)
    interval = (
        replace(rate.interval, low=min(rate.interval.low, 1 - reach))
        if rate.value
        else replace(rate.interval, high=max(rate.interval.high, reach))
    )
    return replace(rate, interval=interval)


def iter_draws(people: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each person is drawn, float64 (people,), once a resample.

    One at a time: all of them together would not fit where each probe is a person.
    """
    check_whole(resamples, "resamples", 2, 10**6)
    rng = np.random.default_rng(seed)
    shares = np.full(people, 1 / people)
    for _ in range(resamples):
        yield rng.multinomial(people, shares).astype(np.float64)


def to_plain(value: Any) -> Any:
    """Return frozen results, arrays and mappings as plain JSON values."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Interval):
        return asdict(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry) for entry in value]
    return value


def check_faces(
    vectors: NDArray[Any], norms: ArrayLike | None = None, name: str = "embeddings"
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return embeddings as float32 (n, d) and which of them were made, bool (n,).

    A row of zeros, or a raw norm of 0, is a failure to acquire; its row is returned as zeros.

    Args:
        vectors: float (n, d), unit norm or zero.
        norms: (n,), raw norms; None when they are not known.
        name: how a message calls them.

    Raises:
        InputError: another shape or type, NaN or infinity, norms of another length or negative
            ones, a row that is neither unit nor zero.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or not rows.shape[1] or not np.issubdtype(rows.dtype, np.floating):
        raise InputError(f"{name} must be floating (n, d), got {rows.dtype} {rows.shape}")
    if not len(rows):
        raise InputError(f"{name} must hold at least one face, got none")
    rows = rows.astype(np.float32, copy=False)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    if not np.isfinite(lengths).all():
        row = int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise InputError(f"{name} must be finite, but row {row} holds NaN or infinity")
    made = lengths > 0
    if norms is not None:
        raw = np.asarray(norms, dtype=np.float64)
        if raw.shape != (len(rows),):
            raise InputError(f"norms of {name} must be ({len(rows)},), one a face, got {raw.shape}")
        if not (np.isfinite(raw) & (raw >= 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(raw) & (raw >= 0)))[0])
            raise InputError(f"norms must be finite and at least 0, but row {row} is {raw[row]}")
        made &= raw > 0
    off = np.flatnonzero((lengths > 0) & (np.abs(lengths - 1) > 1e-3))
    if off.size:
        raise InputError(
            f"{name} must have unit norm or be zero (a failure), but row {off[0]} has norm "
            f"{lengths[off[0]]:.4g}; divide each row by its norm and give the norms beside them"
        )
    if not made[lengths > 0].all():
        rows = np.where(made[:, None], rows, np.float32(0))
    return rows, made


def check_same_width(first: NDArray[Any], second: NDArray[Any], names: Sequence[str]) -> None:
    """Raise InputError if two sets of embeddings have different dimensions."""
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{names[0]} have {first.shape[1]} dimensions and {names[1]} {second.shape[1]}; "
            "were they made by two models?"
        )


def check_row(values: ArrayLike, name: str, count: int) -> NDArray[Any]:
    """Return labels or ids as a row of `count` values, else raise InputError."""
    row = np.asarray(values)
    if row.dtype == object:  # text read from a table
        row = np.asarray([str(value) for value in row])
    if row.shape != (count,):
        raise InputError(f"{name} must be ({count},), one a row of embeddings, got {row.shape}")
    if row.dtype.kind not in "iuU":
        raise InputError(f"{name} must be whole numbers or text, got {row.dtype}")
    return row
