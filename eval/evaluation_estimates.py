"""Figures of an evaluation: a value with its interval, or no value and the reason why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.protocol_results import Rate
from facerec.checks import InputError, check_one_of
from facerec.metrics.bootstrap import Interval

BETTER = ("higher", "lower", "neither")
SHARE = "share"


@dataclass(frozen=True)
class Estimate:
    """One figure.

    Attributes:
        name: such as "FNIR at FPIR 1 %".
        value: finite; None where the sample cannot support it.
        low: lower end of its 95 % interval, None where there is none.
        high: upper end, None where `low` is.
        reason: why there is no value, or no interval; needed where there is no value.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError("a figure needs a name")
        ends = (self.low, self.high)
        if not all(number is None or math.isfinite(number) for number in (self.value, *ends)):
            raise InputError(
                f"figure {self.name!r} must be finite, got {self.value} ({self.low} to "
                f"{self.high}); one that is not supported is None with a reason"
            )
        if self.value is None and (not self.reason.strip() or ends != (None, None)):
            raise InputError(
                f"figure {self.name!r} has no value: it needs a reason and can have no interval"
            )
        if (self.low is None) != (self.high is None):
            raise InputError(f"figure {self.name!r} needs both ends of its interval or none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(
                f"the interval of {self.name!r} must rise, got {self.low} to {self.high}"
            )

    @property
    def supported(self) -> bool:
        """Return whether there is a value."""
        return self.value is not None


@dataclass(frozen=True)
class Headline(Estimate):
    """A figure at the head of the report.

    Attributes:
        unit: "share" for a value in [0, 1] that is shown in per cent, else the unit's name, ""
            for a plain number.
        better: whether "higher" or "lower" is better, "neither" for a description.
    """

    unit: str = SHARE
    better: str = "lower"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(self.better, f"better of {self.name!r}", BETTER)


@dataclass(frozen=True)
class Bar(Estimate):
    """A figure of one slice.

    Attributes:
        count: how many transactions it rests on, None where not known.
    """

    count: int | None = None


@dataclass(frozen=True)
class Slice:
    """One figure for each part of the sample.

    Attributes:
        name: what it is sliced by, such as "face size".
        figure: which figure, such as "FNIR at FPIR 1 %".
        bars: one a part, in the order to show; may be empty.
        unit: as `Headline.unit`.
        better: as `Headline.better`.
    """

    name: str
    figure: str
    bars: tuple[Bar, ...]
    unit: str = SHARE
    better: str = "lower"

    def __post_init__(self) -> None:
        check_one_of(self.better, f"better of slice {self.name!r}", BETTER)
        names = [bar.name for bar in self.bars]
        if len(set(names)) != len(names):
            raise InputError(f"slice {self.name!r} must name each of its parts once")


def build_headline(
    name: str,
    value: float | None,
    interval: Interval | None = None,
    *,
    reason: str = "",
    unit: str = SHARE,
    better: str = "lower",
) -> Headline:
    """Return a headline figure with the interval of a bootstrap; one that is NaN is left out."""
    low, high = _ends(value, interval)
    return Headline(name, value, low, high, reason, unit, better)


def build_bar(
    name: str,
    value: float | None,
    interval: Interval | None = None,
    *,
    reason: str = "",
    count: int | None = None,
) -> Bar:
    """Return a slice's figure with the interval of a bootstrap; one that is NaN is left out."""
    low, high = _ends(value, interval)
    return Bar(name, value, low, high, reason, count)


def headline_of_rate(rate: Rate, name: str, better: str = "higher") -> Headline:
    """Return a protocol's rate as a headline figure called `name`."""
    return build_headline(name, rate.value, rate.interval, reason=rate.reason, better=better)


def format_value(value: float | None, unit: str) -> str:
    """Return a value as a reader wants it: shares in per cent, else four significant digits."""
    if value is None:
        return "not supported"
    if unit == SHARE:
        return _format_share(value)
    return f"{value:.4g} {unit}".rstrip()


def format_interval(estimate: Estimate, unit: str) -> str:
    """Return "low to high", a dash where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return "\N{EN DASH}"
    if unit == SHARE:
        return f"{_format_share(estimate.low)[:-2]} to {_format_share(estimate.high)}"
    return f"{estimate.low:.4g} to {format_value(estimate.high, unit)}"


def format_estimate(estimate: Estimate | None, unit: str) -> str:
    """Return a value and its interval for one cell: a dash for no figure, a reason for no value."""
    if estimate is None:
        return "\N{EN DASH}"
    if estimate.value is None:
        return estimate.reason
    text = format_value(estimate.value, unit)
    return text if estimate.low is None else f"{text} ({format_interval(estimate, unit)})"


def _ends(
    value: float | None, interval: Interval | None
) -> tuple[float, float] | tuple[None, None]:
    if value is None or interval is None or not math.isfinite(interval.low):
        return None, None
    return interval.low, interval.high


def _format_share(value: float) -> str:
    percent = 100 * value
    if percent == 0 or abs(percent) >= 0.01:
        return f"{percent:.2f} %"
    return f"{percent:.2g} %"
