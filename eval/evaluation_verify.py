"""The result of `facerec-eval verify` as an evaluation, for `facerec-eval compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.evaluation import Evaluation, Failure
from eval.evaluation_curves import build_det
from eval.evaluation_estimates import Headline
from facerec.checks import InputError

_PROTOCOL = (
    "A pair is accepted when its cosine reaches the threshold. The accuracy of a fold uses the "
    "threshold that is most accurate on the other folds.",
    "TAR at a FAR uses the lowest observed score whose FAR does not exceed the target; it is given "
    "where at least 10 false accepts were possible.",
    "A pair with a picture that gave no embedding is rejected at every threshold. Intervals come "
    "from drawing people, not pairs, with replacement.",
)


def describe_verification(result: Mapping[str, Any], name: str = "the result") -> Evaluation:
    """Return the evaluation that a result of `facerec-eval verify` holds.

    Args:
        result: what its JSON file holds.
        name: of the file, for messages.

    Raises:
        InputError: a part is missing or of another type.
    """
    try:
        return _describe(result)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{name} must be a result of facerec-eval verify, but a part is missing or of another "
            f"type ({error}); run verify again with --json"
        ) from None


def _describe(result: Mapping[str, Any]) -> Evaluation:
    accuracy = result["accuracy"]
    low, high = _ends(accuracy["interval"])
    headline = [
        Headline("accuracy", accuracy["mean"], low, high, better="higher"),
        Headline("equal error rate", result["eer"], reason="no interval is computed"),
        *_points(result["tar_at_far"], ""),
    ]
    if "all_pairs" in result:
        headline += _points(result["all_pairs"]["tar_at_far"], ", all pairs")
    roc = result["roc"]
    kind = "pairs of the list"
    return Evaluation(
        title=f"Verification on {result['pairs_file']}",
        protocol=_PROTOCOL,
        simulated=False,
        headline=tuple(headline),
        model=result["model"],
        task="verify",
        det=(build_det(kind, "FAR", "FRR", roc["far"], 1 - np.asarray(roc["tar"])),),
        failures=tuple(
            Failure(file, reason) for file, reason in sorted(result["failed_files"].items())
        ),
        counts={
            part: int(result[part.replace(" ", "_")])
            for part in ("pairs", "mated", "non mated", "embedded", "failures", "failed pairs")
        },
        provenance=result.get("provenance") or {"hashes": {"model": result["model_sha256"]}},
    )


def _points(points: Sequence[Mapping[str, Any]], suffix: str) -> list[Headline]:
    made = []
    for point in points:
        name = f"TAR at FAR {point['far']:.0e}{suffix}"
        if point["supported"]:
            low, high = _ends(point.get("interval"))
            made.append(Headline(name, point["tar"], low, high, better="higher"))
        else:
            reason = (
                f"not supported: {point['non_mated']:,} non-mated pairs allow "
                f"{point['allowed_false_accepts']} false accepts; 10 are needed"
            )
            made.append(Headline(name, None, reason=reason, better="higher"))
    return made


def _ends(interval: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval["low"], interval["high"])
