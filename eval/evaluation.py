"""What every evaluation gives to its report, to a table of figures and to a comparison.

A figure has a value and an interval, or no value and a reason: nothing is invented where a sample
cannot support a figure. `eval.evaluation_files` reads and writes the whole as JSON and CSV,
`eval.report_page` as a page, `eval.compare` sets several beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from eval.evaluation_curves import Det, Growth, Histogram
from eval.evaluation_estimates import Bar, Estimate, Headline, Slice
from eval.protocol_results import to_plain
from facerec.checks import InputError, check_one_of
from facerec.provenance import provenance as describe_origin

__all__ = [
    "Bar",
    "Det",
    "Estimate",
    "Evaluation",
    "Failure",
    "Growth",
    "Headline",
    "Histogram",
    "Slice",
    "SubjectCounts",
    "WorstError",
]

FORMAT = "facerec-evaluation"
FORMAT_VERSION = 1
FAILURE_KINDS = ("FTE", "FTA")
WORST_KINDS = ("mated", "non-mated")
# Sums over people are added in another order than the figure was: they agree to rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Failure:
    """A picture or track that gave no embedding.

    Attributes:
        file: its name, relative to the set's root.
        reason: why, in words.
        kind: "FTE" (a document that could not be enrolled) or "FTA" (a probe not acquired).
    """

    file: str
    reason: str
    kind: str = "FTA"

    def __post_init__(self) -> None:
        check_one_of(self.kind, f"kind of the failure {self.file!r}", FAILURE_KINDS)


@dataclass(frozen=True)
class WorstError:
    """A comparison that went most wrong.

    Attributes:
        kind: "mated" (one person, a low score) or "non-mated" (two people, a high one).
        first: file of the one side (the document), relative to the set's root.
        second: file of the other (the probe, a frame of the track).
        score: the cosine.
    """

    kind: str
    first: str
    second: str
    score: float

    def __post_init__(self) -> None:
        check_one_of(self.kind, "kind of a worst error", WORST_KINDS)
        if not np.isfinite(self.score):
            raise InputError(
                f"the score of {self.first} and {self.second} must be finite, got {self.score}; "
                "what has no score belongs among the failures"
            )


@dataclass(frozen=True)
class SubjectCounts:
    """A headline figure taken apart by person, so that two models can be paired.

    The figure is sum(counted) / sum(trials); drawing people draws both. Give it for a figure at a
    threshold that was fixed on other data, whose events belong to one person each: FNMR, FNIR,
    GFNMR, TPIR, FPIR; not for FMR, whose comparisons belong to two.

    Attributes:
        figure: name of the headline figure.
        subjects: names, each once.
        counted: (s,), what is counted of each (misses, false alarms, or a share of them).
        trials: (s,), of how many; at least one is positive.
    """

    figure: str
    subjects: tuple[str, ...]
    counted: tuple[float, ...]
    trials: tuple[float, ...]

    def __post_init__(self) -> None:
        rows = np.asarray(self.counted, np.float64), np.asarray(self.trials, np.float64)
        if not len(self.subjects) == rows[0].size == rows[1].size:
            raise InputError(
                f"counts by subject of {self.figure!r} must be three rows of equal length, got "
                f"{len(self.subjects)}, {rows[0].size} and {rows[1].size}"
            )
        if len(set(self.subjects)) != len(self.subjects):
            raise InputError(f"counts by subject of {self.figure!r} must name each subject once")
        if (
            not all(np.isfinite(row).all() and (row >= 0).all() for row in rows)
            or not rows[1].any()
        ):
            raise InputError(
                f"counts by subject of {self.figure!r} must be finite and at least 0, with a "
                "positive number of trials"
            )

    @property
    def value(self) -> float:
        """Return the figure that the counts give."""
        return float(np.sum(self.counted) / np.sum(self.trials))


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one model.

    Attributes:
        title: what was evaluated on what; the page's heading.
        protocol: in words, one paragraph an entry; not empty.
        simulated: the probes are simulated: every heading then says so.
        headline: the figures that count, each name once.
        model: how a comparison calls it.
        task: the command, such as "doc2surv".
        det: error trade-offs.
        histograms: of scores.
        growth: FNIR against the number of people enrolled.
        slices: a figure by size, quality, camera, year ...
        failures: what gave no embedding; none of them left a denominator.
        worst: comparisons that went most wrong.
        counts: of people, documents, tracks, comparisons.
        provenance: versions, seed, hashes and what else `facerec.provenance.provenance` gives.
        subjects: figures taken apart by person, for paired comparisons.
    """

    title: str
    protocol: tuple[str, ...]
    simulated: bool
    headline: tuple[Headline, ...]
    model: str = ""
    task: str = ""
    det: tuple[Det, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    growth: tuple[Growth, ...] = ()
    slices: tuple[Slice, ...] = ()
    failures: tuple[Failure, ...] = ()
    worst: tuple[WorstError, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=lambda: describe_origin(None, {}, {}))
    subjects: tuple[SubjectCounts, ...] = ()

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise InputError("an evaluation needs a title: say what was evaluated on what")
        words: object = self.protocol  # a lone text would pass as a row of letters
        if isinstance(words, str) or not any(text.strip() for text in self.protocol):
            raise InputError("an evaluation needs its protocol in words: a tuple of paragraphs")
        for what in ("headline", "det", "histograms", "growth", "slices"):
            _check_once([part.name for part in getattr(self, what)], f"{what} of {self.title!r}")
        _check_once([part.figure for part in self.subjects], f"subjects of {self.title!r}")
        figures = {figure.name: figure.value for figure in self.headline}
        for part in self.subjects:
            value = figures.get(part.figure)
            if value is None or abs(value - part.value) > _ROUNDING:
                raise InputError(
                    f"counts by subject give {part.figure!r} as {part.value:.6g}, but the headline "
                    f"says {'nothing' if value is None else format(value, '.6g')}; they must agree"
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, `supported` beside every figure."""
        plain: dict[str, Any] = to_plain(asdict(self))
        _mark_supported(plain)
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **plain}

    @staticmethod
    def from_json(value: Any, name: str = "the evaluation") -> Evaluation:
        """Return an evaluation from what `to_json` gave.

        Args:
            value: plain JSON values.
            name: of the file, for messages.

        Raises:
            InputError: another format or version, a value of another type, a rule of the parts.
        """
        from pydantic import TypeAdapter, ValidationError

        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise InputError(
                f"{name} must be an evaluation (format {FORMAT!r}); write one with --json of a "
                "facerec-eval command"
            )
        if value.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{name} must have format_version {FORMAT_VERSION}, got "
                f"{value.get('format_version')!r}; evaluate again with this facerec"
            )
        try:
            return TypeAdapter(Evaluation).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise InputError(f"{name} does not fit at {place}: {first['msg']}") from None


def _check_once(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{what} must name each part once, got {name!r} twice")
        seen.add(name)


def _mark_supported(plain: dict[str, Any]) -> None:
    """Write beside every figure whether it stands, for readers that know nothing of the rule."""
    every = list(plain["headline"])
    for part in plain["slices"]:
        every += part["bars"]
    for part in plain["growth"]:
        every += part["points"]
    for figure in every:
        figure["supported"] = figure["value"] is not None
