"""Evaluations of several models beside each other, with paired intervals of their differences.

Two models judged on the same people share those people's difficulty. Drawing people once for both
(the paired bootstrap, `facerec.metrics.bootstrap`) takes that out of the difference; two intervals
that overlap say nothing about it. A figure is paired where both evaluations give it by subject
(`eval.evaluation.SubjectCounts`) over the same people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.evaluation import Evaluation, SubjectCounts
from eval.evaluation_estimates import Estimate, Headline
from eval.protocol_results import iter_draws, to_plain
from facerec.checks import InputError, check_range
from facerec.metrics.bootstrap import Interval, bca_interval, percentile_interval

MIN_DIFFERING = 10
"""With fewer people on whom two models differ, an interval of the difference is luck."""
_VERDICTS = ("better", "worse", "not separable")


@dataclass(frozen=True)
class Difference(Estimate):
    """What one model's figure is above the baseline's.

    Attributes:
        model: the one.
        baseline: the other.
        verdict: of the model: "better" or "worse" where the interval leaves out 0, "not separable"
            where it does not, "" where there is no interval or no better side.
        people: how many people the interval draws from, None without one.
    """

    model: str = ""
    baseline: str = ""
    verdict: str = ""
    people: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Several evaluations of one task.

    Attributes:
        title: of the page.
        models: label -> its evaluation; the first is the baseline.
        figures: names of headline figures that at least two models have, in the first's order.
        differences: of every other model against the baseline, a figure each.
        notes: why figures may not be comparable, one sentence each.
        resamples: of the paired bootstrap.
        seed: of the paired bootstrap.
    """

    title: str
    models: dict[str, Evaluation]
    figures: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    resamples: int = 0
    seed: int = 0

    @property
    def simulated(self) -> bool:
        """Return whether any of the evaluations is."""
        return any(evaluation.simulated for evaluation in self.models.values())

    @property
    def baseline(self) -> str:
        """Return the label of the first model."""
        return next(iter(self.models))

    def find(self, model: str, figure: str) -> Headline | None:
        """Return a model's headline figure, None where it has none of that name."""
        return next((each for each in self.models[model].headline if each.name == figure), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: figures a model, differences, notes."""
        return {
            "task": "compare",
            "title": self.title,
            "simulated": self.simulated,
            "baseline": self.baseline,
            "notes": list(self.notes),
            "resamples": self.resamples,
            "figures": [
                {
                    "name": figure,
                    "models": {
                        name: to_plain(asdict(found))
                        for name in self.models
                        if (found := self.find(name, figure)) is not None
                    },
                }
                for figure in self.figures
            ],
            "differences": [to_plain(asdict(each)) for each in self.differences],
        }


def compare_evaluations(
    evaluations: Sequence[Evaluation],
    labels: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Return evaluations beside each other, the first as the baseline.

    Args:
        evaluations: at least two, of one task.
        labels: how each is called where its own model name is missing or not its alone.
        resamples: of the paired bootstrap; the same draws serve every figure and every model.
        seed: of the draws.
        confidence: of the intervals of the differences.

    Raises:
        InputError: fewer than two evaluations, different tasks, no figure in common, or a setting
            out of range.
    """
    if len(evaluations) < 2:
        raise InputError(f"a comparison needs at least two evaluations, got {len(evaluations)}")
    check_range(confidence, "confidence", 0.5, 0.9999)
    models = dict(zip(_name_models(evaluations, labels), evaluations, strict=True))
    (baseline, base), *others = models.items()
    for name, other in others:
        if other.task != base.task:
            raise InputError(
                f"{name} is of task {other.task!r}, {baseline} of {base.task!r}; compare "
                "evaluations of one task"
            )
    figures = _shared_figures(list(models.values()))
    if not figures:
        raise InputError(
            f"{baseline} and {others[0][0]} have no headline figure in common; compare "
            "evaluations made by the same command with the same targets"
        )
    differences = [
        difference
        for name, other in others
        for difference in _compare_two(
            (baseline, base), (name, other), figures, resamples, seed, confidence
        )
    ]
    return Comparison(
        title=f"Comparison: {base.title}",
        models=models,
        figures=tuple(figures),
        differences=tuple(differences),
        notes=tuple(_find_notes(baseline, base, others)),
        resamples=resamples,
        seed=seed,
    )


def pair_difference(
    base: SubjectCounts,
    other: SubjectCounts,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[Interval | None, str, int]:
    """Return the paired bootstrap's interval of other - base, over the same people.

    Args:
        base: counts of the baseline.
        other: counts of the other model, the same people in any order.
        resamples: how many to draw.
        seed: of the draws.
        confidence: nominal coverage.

    Returns:
        The interval (BCa, moved for bias and skewness) or None, why there is none, and the number
        of people.
    """
    people = len(base.subjects)
    table = _align(base, other)
    if table is None:
        apart = set(base.subjects) ^ set(other.subjects)
        return None, f"not paired: {len(apart):,} people are in one of the two only", people
    rate = table[:, [0, 2]] / np.maximum(table[:, [1, 3]], 1e-12)
    differing = int(np.count_nonzero(rate[:, 0] != rate[:, 1]))
    if differing < MIN_DIFFERING:
        reason = (
            f"not supported: the two differ on {differing} of {people:,} people; an interval "
            f"needs {MIN_DIFFERING}"
        )
        return None, reason, people
    sums = np.stack([draw @ table for draw in iter_draws(people, resamples, seed)])
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
    total = table.sum(axis=0)
    values = total[2] / total[3], total[0] / total[1]
    influence = (table[:, 2] - values[0] * table[:, 3]) / total[3]
    influence -= (table[:, 0] - values[1] * table[:, 1]) / total[1]
    if not np.isfinite(resampled).all():
        return percentile_interval(resampled, confidence), "", people
    interval = bca_interval(resampled, float(values[0] - values[1]), influence, confidence)
    return interval, "", people


def _align(base: SubjectCounts, other: SubjectCounts) -> NDArray[np.float64] | None:
    """Return counted and trials of both by person, float64 (s, 4); None for other people."""
    places = {subject: place for place, subject in enumerate(other.subjects)}
    if places.keys() != set(base.subjects):
        return None
    order = [places[subject] for subject in base.subjects]
    columns = (
        np.asarray(base.counted, np.float64),
        np.asarray(base.trials, np.float64),
        np.asarray(other.counted, np.float64)[order],
        np.asarray(other.trials, np.float64)[order],
    )
    return np.stack(columns, axis=1)


def _compare_two(
    first: tuple[str, Evaluation],
    second: tuple[str, Evaluation],
    figures: Sequence[str],
    resamples: int,
    seed: int,
    confidence: float,
) -> list[Difference]:
    """Return the difference of each figure that both have."""
    (baseline, base), (model, other) = first, second
    found = [{each.name: each for each in part.headline} for part in (base, other)]
    counts = [{each.figure: each for each in part.subjects} for part in (base, other)]
    made = []
    for figure in figures:
        if not all(figure in part for part in found):
            continue
        old, new = (part[figure] for part in found)
        if old.value is None or new.value is None:
            lacking = baseline if old.value is None else model
            reason = f"{lacking} has no value: {(old if old.value is None else new).reason}"
            made.append(Difference(figure, None, None, None, reason, model, baseline))
            continue
        interval, people = None, None
        reason = "not paired: the figure is not given by subject"
        if all(figure in part for part in counts):
            interval, reason, people = pair_difference(
                counts[0][figure],
                counts[1][figure],
                resamples=resamples,
                seed=seed,
                confidence=confidence,
            )
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        verdict = "" if interval is None else _judge(interval, old.better)
        people = people if interval is not None else None
        value = new.value - old.value
        made.append(Difference(figure, value, low, high, reason, model, baseline, verdict, people))
    return made


def _judge(interval: Interval, better: str) -> str:
    if better == "neither":
        return ""
    if interval.low <= 0 <= interval.high:
        return "not separable"
    return "better" if (interval.low > 0) == (better == "higher") else "worse"


def _name_models(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> list[str]:
    """Return a name of its own for each: the model's where it is the only one, else the label."""
    own = [evaluation.model for evaluation in evaluations]
    names: list[str] = []
    for model, label in zip(own, labels, strict=True):
        name = model if model and own.count(model) == 1 else label
        number, free = 2, name
        while free in names:
            free, number = f"{name} ({number})", number + 1
        names.append(free)
    return names


def _shared_figures(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the names of figures that at least two have, in the order they are met."""
    names = [each.name for evaluation in evaluations for each in evaluation.headline]
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _find_notes(
    baseline: str, base: Evaluation, others: Sequence[tuple[str, Evaluation]]
) -> list[str]:
    """Return what makes figures of the models hard to compare."""
    notes = []
    for name, other in others:
        if other.simulated != base.simulated:
            simulated, real = (name, baseline) if other.simulated else (baseline, name)
            notes.append(f"{simulated} was evaluated on simulated probes, {real} was not.")
        if other.protocol != base.protocol:
            notes.append(f"The protocols of {baseline} and {name} differ in their words.")
        counts = sorted(
            key
            for key in base.counts.keys() | other.counts.keys()
            if base.counts.get(key) != other.counts.get(key)
        )
        if counts:
            notes.append(f"{baseline} and {name} differ in their counts: {', '.join(counts)}.")
        hashes = [part.provenance.get("hashes") or {} for part in (base, other)]
        data = sorted(
            key
            for key in hashes[0].keys() & hashes[1].keys()
            if key not in ("model", "detector") and hashes[0][key] != hashes[1][key]
        )
        if data:
            notes.append(
                f"{baseline} and {name} were evaluated on other data: {', '.join(data)} differ."
            )
    return notes
