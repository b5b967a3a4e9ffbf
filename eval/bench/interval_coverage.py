"""How often the intervals of a doc2surv evaluation hold the truth: nominal 95 %.

Scores are drawn from populations whose rates are known, many times over; each time the intervals
are made as an evaluation makes them (`eval.doc2surv_rates`). Three kinds:

- shares: tracks err with their person's own probability (beta distributed), as FNMR and FNIR do;
- pairs: comparisons of two people err with a probability that both of them raise or lower
  (log-normal), as FMR does;
- difference: two models on the same people, as A against B.

The baseline is the percentile interval of trials taken for independent (Wilson's): what is printed
where nobody thinks of people.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from eval.doc2surv_pairs import CrossExceedances
from eval.doc2surv_rates import Draws, Figure, draw, measure_pairs, measure_share, subtract
from facerec.checks import check_whole
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.metrics.bootstrap import Interval
from facerec.progress import Progress

_Z = 1.959963984540054


@dataclass(frozen=True)
class Case:
    """One population.

    Attributes:
        kind: "share", "pairs" or "difference".
        people: in each sample.
        tracks: of each person, in the mean (at least 1).
        rate: the truth.
        spread: correlation of a person's tracks (share, difference), or standard deviation of the
            logarithm of a person's factor (pairs).
    """

    kind: str
    people: int
    tracks: int
    rate: float
    spread: float


CASES = (
    Case("share", 30, 4, 0.3, 0.3),
    Case("share", 100, 4, 0.05, 0.3),
    Case("share", 100, 4, 0.02, 0.3),
    Case("share", 300, 4, 0.01, 0.2),
    Case("share", 200, 6, 0.9, 0.3),
    Case("share", 1000, 1, 0.01, 0.0),
    Case("pairs", 50, 3, 1e-3, 0.0),
    Case("pairs", 100, 3, 1e-3, 0.5),
    Case("pairs", 200, 2, 1e-4, 0.3),
    Case("pairs", 200, 2, 1e-3, 0.8),
    Case("difference", 100, 4, 0.05, 0.3),
    Case("difference", 300, 2, 0.02, 0.2),
)


@dataclass(frozen=True)
class Coverage:
    """How often the truth was held.

    Attributes:
        case: the population.
        trials: samples drawn.
        held: share of the intervals that hold the truth.
        error: standard error of `held`.
        above: share of the intervals that lie above the truth.
        below: share that lie below.
        baseline: share of the intervals of independent trials that hold it; None for differences.
    """

    case: Case
    trials: int
    held: float
    error: float
    above: float
    below: float
    baseline: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.interval_coverage",
        "Check the intervals of doc2surv evaluations on scores whose truth is known.",
        "python -m eval.bench.interval_coverage --trials 500",
    )
    parser.add_argument("--trials", type=int, default=500, help="samples of each population")
    parser.add_argument("--resamples", type=int, default=400, help="of each sample's people")
    parser.add_argument("--seed", type=int, default=0, help="of the populations")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> int:
    found = measure_coverage(CASES, arguments.trials, arguments.resamples, arguments.seed)
    sys.stdout.write(
        "kind        people tracks     rate spread |   held +- error | above below | independent\n"
    )
    for one in found:
        case = one.case
        plain = "-" if one.baseline is None else f"{one.baseline:.1%}"
        sys.stdout.write(
            f"{case.kind:<11} {case.people:6d} {case.tracks:6d} {case.rate:8.4g} "
            f"{case.spread:6.2f} | {one.held:6.1%} +- {one.error:5.1%} | {one.above:5.1%} "
            f"{one.below:5.1%} | {plain}\n"
        )
    mean = float(np.mean([one.held for one in found]))
    sys.stdout.write(f"nominal 95 %, realised {mean:.1%} in the mean of {len(found)} populations\n")
    result = {"mean_held": mean, "cases": [asdict(one) for one in found]}
    write_json_result(arguments, result, seed=arguments.seed)
    return 0


def measure_coverage(
    cases: Sequence[Case], trials: int, resamples: int, seed: int
) -> list[Coverage]:
    """Return for each population how often intervals hold its truth."""
    check_whole(trials, "trials", 2, 10**6)
    check_whole(resamples, "resamples", 100, 10**5)
    samplers = {"share": _sample_share, "pairs": _sample_pairs, "difference": _sample_difference}
    found = []
    with Progress("coverage", len(cases) * trials, "samples") as progress:
        for case in cases:
            rng = np.random.default_rng(seed)
            truth = 0.0 if case.kind == "difference" else case.rate
            held = above = below = plain = 0
            for trial in range(trials):
                draws = draw(case.people, resamples, seed + trial)
                figure = samplers[case.kind](case, rng, draws)
                assert figure.interval is not None
                above += figure.interval.low > truth
                below += figure.interval.high < truth
                independent = _wilson(figure)
                plain += independent.low <= truth <= independent.high
                progress.advance()
            held = trials - above - below
            share = held / trials
            error = math.sqrt(max(share * (1 - share), 1 / trials) / trials)
            baseline = None if case.kind == "difference" else plain / trials
            found.append(
                Coverage(case, trials, share, error, above / trials, below / trials, baseline)
            )
    return found


def _draw_rates(
    case: Case, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return each person's own probability, float64 (people,)."""
    if not case.spread:
        return np.full(case.people, case.rate)
    weight = 1 / case.spread - 1
    return rng.beta(case.rate * weight, (1 - case.rate) * weight, case.people)


def _sample_share(case: Case, rng: np.random.Generator, draws: Draws) -> Figure:
    tracks = 1 + rng.poisson(case.tracks - 1, case.people)
    owner = np.repeat(np.arange(case.people), tracks)
    errors = rng.random(owner.size) < _draw_rates(case, rng)[owner]
    return measure_share("share", errors, owner, draws)


def _sample_pairs(case: Case, rng: np.random.Generator, draws: Draws) -> Figure:
    probe, enrolled = np.exp(rng.normal(0, case.spread, (2, case.people)))
    factor = case.rate / math.exp(case.spread**2)  # the mean of a product of two factors
    rates = np.minimum(factor * probe[:, None] * enrolled[None], 1.0)
    np.fill_diagonal(rates, 0.0)
    counts = rng.binomial(case.tracks, rates)
    first, second = np.nonzero(counts)
    times = counts[first, second]
    sample = CrossExceedances(
        scores=np.ones(int(times.sum())),
        weights=np.ones(int(times.sum())),
        first=np.repeat(first, times),
        second=np.repeat(second, times),
        masses=np.ones(case.people),
        comparisons=case.tracks * case.people * (case.people - 1),
        floor=0.5,
        probes=np.full(case.people, float(case.tracks)),
        enrolled=np.ones(case.people),
        groups=np.full(case.people, -1),
    )
    return measure_pairs("pairs", sample, 1.0, draws)


def _sample_difference(case: Case, rng: np.random.Generator, draws: Draws) -> Figure:
    """Two models equally good: errors of one person go together in both, their luck does not."""
    tracks = 1 + rng.poisson(case.tracks - 1, case.people)
    rates = _draw_rates(case, rng)
    counts = [
        np.column_stack([rng.binomial(tracks, rates), tracks]).astype(np.float64) for _ in range(2)
    ]
    return subtract("difference", counts[0], counts[1], draws)


def _wilson(figure: Figure) -> Interval:
    """Return Wilson's interval of trials taken for independent."""
    share, count = figure.errors / figure.trials, figure.trials
    scale = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half = _Z * math.sqrt(max(share * (1 - share), 0) / count + (_Z / (2 * count)) ** 2) / scale
    return Interval(centre - half, centre + half, 0.95, 0)


if __name__ == "__main__":
    raise SystemExit(main())
