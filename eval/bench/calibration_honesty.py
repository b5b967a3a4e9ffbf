"""Thresholds for stated error rates, set on half of the people and tried on the other half.

In each split people are drawn for the gallery (their mean vectors are searched), the others fall
into two halves: the pictures of one set the thresholds for an FPIR and an FMR, those of the other
show the rates. Nobody is in two of the three. Three intervals are checked:

- own: of the realised rate, over the other half's people. It does not know that the threshold
  came from people too: two halves of one size differ by 1.4 times what it allows for, so even an
  exact 95 % interval would hold the stated rate in 83 % of splits only;
- predicted: what the calibration said beforehand that the other half would show;
- both: the realised rate's interval widened by the calibration's own (of a ratio from the
  intervals of its parts, MOVER: Zou & Donner 2008).

The baseline is the sample's plain quantile, without the tail.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.bench.calibration_people import People, load_people
from facerec.checks import InputError, check_whole
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.metrics.bootstrap import Interval
from facerec.metrics.error_rates import MeasuredRate, measure_fmr, measure_fpir, scale_fpir
from facerec.metrics.exceedances import collect_best, collect_pairs
from facerec.metrics.threshold_results import RateThreshold
from facerec.metrics.thresholds import calibrate_fmr, calibrate_fpir

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SIZES = (25, 50, 100, 200, 400, 800)
_REFERENCE = 100
_SCALING_FPIR = 0.05


@dataclass(frozen=True)
class Trial:
    """One split of the people, one kind of rate.

    Attributes:
        threshold: set on one half.
        method: "tail" or "empirical".
        realised: the other half's rate.
        own: interval of the realised rate.
        predicted: interval of the realised rate, said beforehand.
        both: interval of the true rate, the threshold's noise in it.
        plain: the other half's rate at the first half's plain quantile.
        in_own: whether `own` holds the stated rate.
        in_predicted: whether `predicted` holds the realised rate.
        in_both: whether `both` holds the stated rate.
    """

    threshold: float
    method: str
    realised: float
    own: Interval
    predicted: Interval
    both: tuple[float, float]
    plain: float
    in_own: bool
    in_predicted: bool
    in_both: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.calibration_honesty",
        "Set thresholds for stated error rates on half of the people of lfw/ and aligned/, and "
        "see what the other half shows.",
        "python -m eval.bench.calibration_honesty DATA --model mobilefacenet --detector yunet",
    )
    parser.add_argument("data", type=Path, help="folder with lfw/images and aligned")
    parser.add_argument("--model", required=True, help="name, artefact folder or file")
    parser.add_argument("--detector", required=True, help="of faces in lfw/images")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings")
    parser.add_argument("--people", type=int, default=300, help="enrolled in each split")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--fpir", type=float, default=0.01)
    parser.add_argument("--fmr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0, help="of the splits and bootstraps")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    from facerec.embedder import Embedder
    from facerec.progress import Progress

    check_whole(arguments.splits, "splits", 1, 10_000)
    embedder = Embedder(arguments.model, flip=arguments.flip)
    people = load_people(arguments.data, embedder, arguments.detector, arguments.cache)
    if not 1 <= arguments.people <= len(people) - 20:
        raise InputError(
            f"people must leave at least 20 of the {len(people)} unenrolled, got {arguments.people}"
        )
    cosines = people.vectors @ people.templates.T
    trials: dict[str, list[Trial]] = {"fpir": [], "fmr": []}
    with Progress("split", arguments.splits, "splits") as progress:
        for number in range(arguments.splits):
            seed = arguments.seed + number
            order = np.random.default_rng(seed).permutation(len(people))
            gallery, rest = order[: arguments.people], order[arguments.people :]
            halves = [np.isin(people.person, part) for part in np.array_split(rest, 2)]
            best = cosines[:, gallery].max(axis=1)
            trials["fpir"].append(
                try_fpir(best, people.person, halves, len(gallery), arguments.fpir, seed)
            )
            trials["fmr"].append(try_fmr(people, halves, arguments.fmr, seed))
            progress.advance()
    result = {
        "people": len(people),
        "pictures": len(people.vectors),
        "failed_pictures": people.failed,
        "dropped_shared_names": people.shared_names,
        "dropped_look_alikes": people.look_alikes,
        "copies_across_people": people.copies,
        "enrolled": arguments.people,
        "in_a_half": (len(people) - arguments.people) // 2,
        "fpir": summarise(trials["fpir"], arguments.fpir),
        "fmr": summarise(trials["fmr"], arguments.fmr),
        "scaling": measure_scaling(cosines, people.person, arguments.splits, arguments.seed),
    }
    _show(result)
    hashes = {"model": embedder.model_hash}
    write_json_result(arguments, result, seed=arguments.seed, hashes=hashes)


def try_fpir(
    best: Scores,
    person: NDArray[np.int64],
    halves: Sequence[Mask],
    people: int,
    target: float,
    seed: int,
) -> Trial:
    """Return what one split says of an FPIR.

    Args:
        best: float32 (m,), each picture's best score against the gallery.
        person: int64 (m,).
        halves: two masks (m,): who sets the threshold, who tries it.
        people: how many were searched.
        target: FPIR.
        seed: of the bootstraps.
    """
    one, other = halves
    stated = calibrate_fpir(best[one], person[one], people, target, seed=seed)
    sample = collect_best(best[one], person[one])
    plain = find_plain_threshold(sample.scores, sample.cumulate(), target)
    threshold = _threshold_of(stated)
    seen = measure_fpir(best[other], person[other], threshold, seed=seed)
    baseline = measure_fpir(best[other], person[other], plain, resamples=100)
    return judge(stated, seen, baseline.rate, len(np.unique(person[other])))


def try_fmr(people: People, halves: Sequence[Mask], target: float, seed: int) -> Trial:
    """Return what one split says of an FMR; arguments as `try_fpir`."""
    one, other = halves
    stated = calibrate_fmr(people.vectors[one], people.person[one], target, seed=seed)
    count = int(one.sum())
    depth = max(200_000, int(8 * target * count * count))
    sample = collect_pairs(people.vectors[one], people.person[one], depth)
    plain = find_plain_threshold(sample.scores, sample.cumulate(), target)
    threshold = _threshold_of(stated)
    vectors, person = people.vectors[other], people.person[other]
    seen = measure_fmr(vectors, person, threshold, seed=seed)
    baseline = measure_fmr(vectors, person, plain, resamples=100)
    return judge(stated, seen, baseline.rate, len(np.unique(person)))


def find_plain_threshold(
    scores: NDArray[np.float64], shares: NDArray[np.float64], target: float
) -> float:
    """Return the lowest score whose share does not exceed the target, the baseline.

    Args:
        scores: float64 (k,), falling.
        shares: float64 (k,), of the sample, at or above each.
        target: the rate.
    """
    taken = int(np.searchsorted(shares, target, side="right"))
    if not taken:
        return float(np.nextafter(np.float32(scores[0]), np.float32(np.inf)))
    return float(scores[taken - 1])


def judge(stated: RateThreshold, seen: MeasuredRate, plain: float, subjects: int) -> Trial:
    """Hold what a calibration stated against what other people showed.

    Args:
        stated: by the calibration; it must have a threshold.
        seen: at its threshold.
        plain: the rate at the baseline's threshold.
        subjects: how many other people there were.
    """
    target, own, rate = stated.target, seen.interval, seen.rate
    predicted = stated.predict(subjects)
    both = own.low, own.high
    known = stated.rate_interval
    if rate > 0 and known is not None and stated.rate:
        down = math.hypot(_log_ratio(rate, own.low), _log_ratio(known.high, stated.rate))
        up = math.hypot(_log_ratio(own.high, rate), _log_ratio(stated.rate, known.low))
        both = rate * math.exp(-down), rate * math.exp(up)
    return Trial(
        _threshold_of(stated),
        stated.method,
        rate,
        own,
        predicted,
        both,
        plain,
        own.low <= target <= own.high,
        predicted.low <= rate <= predicted.high,
        both[0] <= target <= both[1],
    )


def _log_ratio(high: float, low: float) -> float:
    return math.log(high / low) if low > 0 else 50.0


def _threshold_of(stated: RateThreshold) -> float:
    if stated.threshold is None:
        raise InputError(f"no threshold for this rate: {stated.reason}")
    return stated.threshold


def summarise(trials: Sequence[Trial], target: float) -> dict[str, Any]:
    """Return how often each interval held, and how the realised rates spread."""
    realised = np.array([trial.realised for trial in trials])
    plain = np.array([trial.plain for trial in trials])
    spread, plain_spread = (float(np.sqrt(np.mean((a - target) ** 2))) for a in (realised, plain))
    return {
        "stated": target,
        "splits": len(trials),
        "by_tail": sum(trial.method == "tail" for trial in trials),
        "threshold_mean": float(np.mean([trial.threshold for trial in trials])),
        "realised_mean": float(realised.mean()),
        "realised_least": float(realised.min()),
        "realised_most": float(realised.max()),
        "error": spread / target,
        "plain_error": plain_spread / target,
        "error_ratio": spread / plain_spread if plain_spread else None,
        "own_holds": sum(trial.in_own for trial in trials),
        "predicted_holds": sum(trial.in_predicted for trial in trials),
        "both_holds": sum(trial.in_both for trial in trials),
        "trials": [asdict(trial) for trial in trials],
    }


def measure_scaling(
    cosines: Scores, person: NDArray[np.int64], splits: int, seed: int
) -> list[dict[str, float]]:
    """Return FPIR at growing galleries against what `scale_fpir` makes of that at 100 people.

    Args:
        cosines: float32 (m, p), pictures against everybody's template.
        person: int64 (m,).
        splits: how many galleries to draw.
        seed: of the draws.

    Returns:
        For each size: the mean FPIR at a threshold whose FPIR at 100 people is 5 %, what scaling
        and what 1 - (1 - FMR)^N say, and how often more the latter two are.
    """
    sizes = [size for size in _SIZES if size <= cosines.shape[1] // 2]
    if _REFERENCE not in sizes:
        return []
    table = np.zeros((3, len(sizes)))
    for number in range(splits):
        order = np.random.default_rng(seed + number).permutation(cosines.shape[1])
        gallery = order[: sizes[-1]]
        probes = ~np.isin(person, gallery)
        scores, whose = cosines[np.ix_(probes, gallery)], person[probes]
        weights = 1 / np.bincount(whose, minlength=cosines.shape[1])[whose]
        weights /= weights.sum()
        sample = collect_best(scores[:, :_REFERENCE].max(axis=1), whose)
        threshold = find_plain_threshold(sample.scores, sample.cumulate(), _SCALING_FPIR)
        passed = scores >= threshold
        rates = [float(weights @ passed[:, :size].any(axis=1)) for size in sizes]
        known = rates[sizes.index(_REFERENCE)]
        single = float(weights @ passed.mean(axis=1))
        table[0] += rates
        table[1] += [scale_fpir(known, _REFERENCE, size) for size in sizes]
        table[2] += [scale_fpir(single, 1, size) for size in sizes]
    table /= splits
    return [
        {
            "people": size,
            "fpir": seen,
            "scaled": scaled,
            "from_fmr": single,
            "scaled_ratio": scaled / seen,
            "from_fmr_ratio": single / seen,
        }
        for size, (seen, scaled, single) in zip(sizes, table.T.tolist(), strict=True)
    ]


def _show(result: dict[str, Any]) -> None:
    write = sys.stdout.write
    write(
        f"{result['people']} people, {result['pictures']} pictures; dropped: "
        f"{result['dropped_shared_names']} shared names, {result['dropped_look_alikes']} that "
        f"another resembles too well; {result['copies_across_people']} pictures under two names\n"
        f"{result['enrolled']} enrolled, {result['in_a_half']} people in each half\n"
    )
    for kind in ("fpir", "fmr"):
        row = result[kind]
        count = row["splits"]
        write(
            f"{kind.upper()} {row['stated']:g}: realised {row['realised_mean']:.3g} in the mean "
            f"({row['realised_least']:.3g} to {row['realised_most']:.3g}), threshold "
            f"{row['threshold_mean']:.4f}, by the tail in {row['by_tail']} of {count}\n"
            f"  off by {row['error']:.1%} of the rate; plain quantile {row['plain_error']:.1%}: "
            f"{row['error_ratio'] or 1:.2f} of it\n"
            f"  held in splits: own {row['own_holds']}, predicted {row['predicted_holds']}, both "
            f"{row['both_holds']} of {count}\n"
        )
    write(f"{'people':>8}{'FPIR':>10}{'scaled':>10}{'of it':>8}{'from FMR':>10}{'of it':>8}\n")
    for row in result["scaling"]:
        write(
            f"{row['people']:8}{row['fpir']:10.4f}{row['scaled']:10.4f}{row['scaled_ratio']:8.2f}"
            f"{row['from_fmr']:10.4f}{row['from_fmr_ratio']:8.2f}\n"
        )


if __name__ == "__main__":
    raise SystemExit(main())
