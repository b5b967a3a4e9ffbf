"""A protocol's result as an evaluation: for its page, its table and `facerec-eval compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.evaluation import Evaluation, Failure
from eval.evaluation_estimates import Headline
from eval.protocol_results import FAILURE_RULE
from eval.protocol_table import iter_rates
from facerec.provenance import provenance

_THRESHOLD = (
    "A threshold is the lowest observed score whose error rate does not exceed the target, never "
    "the nearest. A figure is given where at least 10 errors were possible. Intervals are 95 % and "
    "come from drawing people, not comparisons, with replacement."
)
_FAILURES = f"Failures: {FAILURE_RULE}."
_PAIRS = (
    "The accuracy of a fold uses the threshold that is most accurate on the other folds; the "
    "figure is the mean over folds."
)
_OPEN_SET = (
    "A probe is mated when its person is enrolled. TPIR is the share of mated probes whose person "
    "is at or above the threshold and within the candidate list; FPIR the share of non-mated "
    "probes that return anybody. Equal scores rank by position in the gallery."
)
_WORDS = {
    "pack": ("Verification packs", _PAIRS),
    "cfp": ("CFP", _PAIRS),
    "identify": ("Open-set identification", _OPEN_SET),
    "ijb": (
        "IJB",
        "Templates are weighted means within a medium, summed over media. 1:N: two galleries of "
        "different people are searched apart, the probes of the other gallery's people are the "
        f"non-mated ones, and figures are the mean of both. {_OPEN_SET}",
    ),
    "lfr": ("Videos against videos", "Every pair of different videos is compared."),
    "survface": ("QMUL-SurvFace", f"The candidate list has 20 places. {_OPEN_SET}"),
    "tinyface": (
        "TinyFace",
        "Closed set: each gallery picture is a row of the list, and every probe's person is in it.",
    ),
    "megaface": (
        "Probes among distractors",
        "Each picture of a person is in turn the one enrolled beside the distractors, every other "
        "one is searched; a distractor of an equal score stands before the mate. Pictures on the "
        "noise lists are left out.",
    ),
}
_COUNTS = (
    "templates", "failed_templates", "faces", "failed_faces", "pairs", "mated", "failed_pairs",
    "people", "failed_to_enrol", "gallery_rows", "failed_gallery_rows", "mated_probes",
    "non_mated_probes", "videos", "failed_videos", "failed_mated", "probes", "failed_probes",
    "noisy_probes", "distractors", "failed_distractors", "noisy_distractors", "near_duplicates",
)  # fmt: skip
_ENROLLED = ("gallery", "Gallery")


def describe_protocol(
    result: Mapping[str, Any],
    *,
    seed: int | None = None,
    config: dict[str, Any] | None = None,
    hashes: dict[str, str] | None = None,
) -> Evaluation:
    """Return the evaluation that a protocol's result holds.

    Args:
        result: of a `eval.protocol_settings.ProtocolRun`.
        seed: of the resamples.
        config: the settings.
        hashes: name of an input -> its sha256.
    """
    title, words = _WORDS[result["task"]]
    return Evaluation(
        title=f"{title}: {result['set'].upper()}" if "set" in result else title,
        protocol=(words, _THRESHOLD, _FAILURES),
        simulated=False,
        headline=tuple(_name(where, rate) for where, rate in iter_rates(result)),
        model=str(result.get("model", result.get("features", "stored features"))),
        task=result["task"],
        failures=tuple(
            Failure(file, why, "FTE" if file.startswith(_ENROLLED) else "FTA")
            for file, why in sorted(result.get("failed_files", {}).items())
        ),
        counts=dict(_count(result, "")),
        provenance=provenance(seed, config or {}, hashes or {}),
    )


def _name(where: str, rate: Mapping[str, Any]) -> Headline:
    name = str(rate["name"]).replace("_", " ")
    if name.startswith(("tar", "tpir")):
        name = name.upper()
    if rate["target"] is not None:
        name += f" at {'FAR' if name == 'TAR' else 'FPIR'} {rate['target']:g}"
    interval = rate["interval"]
    low, high = (None, None) if interval is None else (interval["low"], interval["high"])
    reason = rate["reason"]
    return Headline(f"{where} {name}".strip(), rate["value"], low, high, reason, better="higher")


def _count(part: Mapping[str, Any], where: str) -> Iterator[tuple[str, int]]:
    """Yield the counts of a result, those of its parts behind the part's name."""
    for name, value in part.items():
        if name in _COUNTS and isinstance(value, int):
            yield f"{where} {name.replace('_', ' ')}".strip(), value
        elif name in ("verification", "identification", "search"):
            yield from _count(value, where if name == "search" else name)
        elif name == "packs":
            for pack, figures in value.items():
                yield from _count(figures, pack)
        elif name == "galleries" and isinstance(value, list):
            for gallery in value:
                yield from _count(gallery, f"{where} {gallery['gallery']}".strip())
