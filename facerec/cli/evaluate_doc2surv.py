"""`facerec-eval doc2surv`: documents against surveillance tracks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from facerec.command import add_command, write_json_result

if TYPE_CHECKING:
    from eval.doc2surv_result import Doc2SurvResult

_LAYOUTS = ("folders", "simulation", "scface", "chokepoint", "cox", "ijbs")
_SETTINGS = (
    "rank",
    "index",
    "fpir_probes",
    "test_share",
    "resamples",
    "seed",
    "allow_overlap",
)


def add_doc2surv(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "doc2surv",
        _run,
        "documents against surveillance: thresholds frozen on one half, figures of the other",
        "facerec-eval doc2surv --documents documents/ --tracks tracks.parquet --videos videos/ "
        "--people people.parquet --model M --detector D --cache kept/ --html out.html",
    )
    _add_set(parser)
    _add_model(parser)
    _add_settings(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report's page here")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures as a table")


def _add_set(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the set").add_argument
    add("--layout", choices=_LAYOUTS, default="folders", help="how the set lies on disk")
    add("--root", type=Path, metavar="DIR", help="folder of the set")
    add("--documents", type=Path, metavar="PATH",
        help="a folder a person, or a table with path and person")  # fmt: skip
    add("--tracks", type=Path, metavar="PATH",
        help="tracks/PERSON/TRACK/*.jpg or tracks/PERSON/*.mp4, or a table with video, track, "
        "person, frame, box")  # fmt: skip
    add("--videos", type=Path, metavar="DIR", help="where the table's videos lie")
    add("--people", type=Path, metavar="FILE",
        help="table with person and half (dev or test), group")  # fmt: skip
    add("--distractors", type=Path, metavar="PATH",
        help="strangers' embeddings: .npy, .npz, .bin, or a folder of them")  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the model").add_argument
    add("--model", required=True, help="store name, artefact folder or .onnx file")
    add("--detector", required=True,
        help="store name, artefact folder or .onnx file of YuNet, insightface:FOLDER, "
        "annotations:FILE, or aligned")  # fmt: skip
    add("--faces", choices=("detector", "table"), default="detector",
        help="take the tracks' faces from the detector or at the table's landmarks")  # fmt: skip
    add("--every", type=int, default=1, help="look at every n-th frame")
    add("--policy", choices=("largest", "central"), default="largest",
        help="which face of a document counts")  # fmt: skip
    add("--flip", action="store_true", help="average each face with its mirror image")
    add("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")
    add("--batch-size", type=int, default=32, help="faces a call of the model")
    add("--cache", type=Path, metavar="DIR", help="keep embeddings here; nothing is embedded twice")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the figures").add_argument
    add("--fmr", type=float, nargs="+", default=[1e-3, 1e-4, 1e-5], help="target FMRs")
    add("--fpir", type=float, nargs="+", default=[0.01, 0.003], help="target FPIRs")
    add("--rank", type=int, default=20, help="length of the candidate list")
    add("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000, 1_000_000],
        help="galleries that distractors fill up")  # fmt: skip
    add("--index", help="hold this rung of the index ladder against exact search")
    add("--fpir-probes", choices=("auto", "unknown", "left-out"), default="auto",
        help="non-mated searches: people without a document, or all without their own")  # fmt: skip
    add("--test-share", type=float, default=0.5, help="of the people, where halves are drawn")
    add("--allow-overlap", action="store_true",
        help="go on though a picture is document and probe, or two people's document")  # fmt: skip
    add("--resamples", type=int, default=1000, help="of people, for the 95%% intervals")
    add("--seed", type=int, default=0, help="of halves, distractors and resamples")


def _run(arguments: argparse.Namespace) -> int:
    from eval.doc2surv_frames import EmbedSettings
    from eval.doc2surv_run import Doc2SurvInputs, Doc2SurvModel, run_doc2surv
    from eval.doc2surv_settings import Doc2SurvSettings

    given = vars(arguments)
    places = ("layout", "root", "documents", "tracks", "videos", "people", "distractors")
    means = ("model", "detector", "runtime", "batch_size", "flip", "cache")
    settings = Doc2SurvSettings(
        fmrs=tuple(arguments.fmr),
        fpirs=tuple(arguments.fpir),
        sizes=tuple(arguments.sizes),
        **{name: given[name] for name in _SETTINGS},
    )
    result = run_doc2surv(
        Doc2SurvInputs(**{name: given[name] for name in places}),
        Doc2SurvModel(**{name: given[name] for name in means}),
        settings,
        EmbedSettings(arguments.faces, arguments.every, arguments.policy),
    )
    _write(arguments, result)
    print("\n".join(_iter_summary(result)))
    for name in ("json", "html", "csv"):
        if given[name]:
            print(f"wrote {given[name]}")
    return 0


def _write(arguments: argparse.Namespace, result: Doc2SurvResult) -> None:
    evaluation = result.to_evaluation()
    plain = {**result.to_json(), "evaluation": evaluation.to_json()}
    del plain["provenance"]
    write_json_result(
        arguments,
        plain,
        seed=arguments.seed,
        config=result.provenance["config"],
        hashes=result.provenance["hashes"],
    )
    if arguments.html:
        from eval.report_evaluation import build_evaluation_page

        build_evaluation_page(evaluation).write(arguments.html)
    if arguments.csv:
        from eval.evaluation_files import write_csv

        write_csv(arguments.csv, evaluation)


def _iter_summary(result: Doc2SurvResult) -> Iterator[str]:
    from eval.evaluation_estimates import format_interval, format_value

    mark = " (simulated)" if result.simulated else ""
    yield f"{result.title}{mark}, model {result.model}"
    for name, count in result.counts.items():
        yield f"  {name}: {count:,}"
    if result.overlaps:
        yield f"  pictures on both sides, allowed: {len(result.overlaps):,}"
    evaluation = result.to_evaluation()
    wide = max(len(one.name) for one in evaluation.headline)
    for one in evaluation.headline:
        value = format_value(one.value, one.unit)
        told = f"{value} ({format_interval(one, one.unit)})" if one.supported else one.reason
        yield f"{one.name:<{wide}}  {told}"
    for growth in evaluation.growth:
        yield f"{growth.name}{mark}:"
        for point in growth.points:
            value = format_value(point.value, growth.unit)
            told = f"{value} ({format_interval(point, growth.unit)})"
            yield f"  {point.name}: {told if point.supported else point.reason}"
