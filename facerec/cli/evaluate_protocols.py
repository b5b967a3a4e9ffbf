"""`facerec-eval pack, identify, cfp, ijb, lfr, survface, tinyface, megaface`: public protocols."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from facerec.command import add_command, write_json_result

if TYPE_CHECKING:
    from eval.protocol_settings import ProtocolRun, ProtocolSettings

_DETECTOR = "crop (each picture is a tight crop of one face), aligned, or as of facerec-eval verify"


def add_protocols(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of the public protocols."""
    _add_pack(commands)
    _add_identify(commands)
    _add_cfp(commands)
    _add_ijb(commands)
    _add_lfr(commands)
    _add_small(commands)
    _add_megaface(commands)


def _add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "pack",
        _run_pack,
        "accuracy and TAR at FAR over verification packs (.bin)",
        "facerec-eval pack lfw.bin cfp_fp.bin agedb_30.bin --model M --flip",
    )
    parser.add_argument("packs", type=Path, nargs="+", metavar="FILE", help="verification packs")
    _add_model(parser, features=False)


def _add_identify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "identify",
        _run_identify,
        "open-set search of two folders: FNIR, FPIR, ranks",
        "facerec-eval identify --gallery set/gallery --probe set/probe --model M --detector D",
    )
    add = parser.add_argument
    add("--gallery", type=Path, required=True, metavar="DIR", help="a folder a person enrolled")
    add("--probe", type=Path, required=True, metavar="DIR",
        help="a folder a person searched; one that the gallery lacks is a stranger")  # fmt: skip
    add("--detector", required=True, help=_DETECTOR)
    add("--policy", choices=("largest", "central"), default="largest",
        help="which face of a picture counts")  # fmt: skip
    add("--gallery-rule", choices=("best", "mean"), default="best",
        help="a person's best picture counts, or the mean of all")  # fmt: skip
    add("--rank", type=int, help="length of the candidate list; all when left out")
    add("--fpir", type=float, nargs="+", default=[0.1, 0.01, 0.003], help="target FPIRs")
    add("--allow-overlap", action="store_true",
        help="go on though pictures are in both folders, as copies or near-duplicates")  # fmt: skip
    _add_model(parser, features=False)


def _add_cfp(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "cfp",
        _run_cfp,
        "CFP in its own layout: accuracy and TAR at FAR, frontal against profile",
        "facerec-eval cfp --root cfp-dataset --model M --detector D",
    )
    add = parser.add_argument
    add("--root", type=Path, required=True, metavar="DIR", help="folder with Protocol/ and Data/")
    add("--kind", choices=("FP", "FF"), default="FP", help="frontal-profile or frontal-frontal")
    add("--detector", required=True, help=_DETECTOR)
    _add_model(parser, features=False)


def _add_ijb(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "ijb",
        _run_ijb,
        "IJB-B or IJB-C: 1:1 over templates, 1:N over two galleries searched apart",
        "facerec-eval ijb --root IJBC --model M --flip --cache embeddings --json ijbc.json",
    )
    add = parser.add_argument
    add("--root", type=Path, required=True, metavar="DIR", help="folder with meta/ and loose_crop/")
    add("--no-norm", action="store_true", help="do not weigh faces by their raw norm")
    add("--no-detector-score", action="store_true",
        help="do not weigh faces by the listed detector scores")  # fmt: skip
    add("--rank", type=int, help="length of the candidate list of TPIR; all when left out")
    _add_model(parser)


def _add_lfr(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "lfr",
        _run_lfr,
        "TAR at FAR over all pairs of videos (iQIYI-VID, Lightweight Face Recognition 2019)",
        "facerec-eval lfr --root iQIYI_VID_FACE --labels labels.txt --features videos.bin",
    )
    add = parser.add_argument
    add("--root", type=Path, required=True, metavar="DIR",
        help="folder with filelist.txt and a folder of frames a video")  # fmt: skip
    add("--labels", type=Path, required=True, metavar="FILE", help="whose each video is, a line")
    add("--norm", action="store_true", help="weigh frames by their raw norm")
    _add_model(parser)


def _add_small(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "survface",
        _run_survface,
        "QMUL-SurvFace: TPIR20 at FPIR, and TAR at FAR over its pairs",
        "facerec-eval survface --root QMUL-SurvFace --model M",
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the set's folder")
    parser.add_argument("--detector", default="crop", help=_DETECTOR)
    parser.add_argument("--gallery-rule", choices=("best", "mean"), default="mean",
                        help="a person's best picture counts, or the mean of all")  # fmt: skip
    _add_model(parser)
    parser = add_command(
        commands,
        "tinyface",
        _run_tinyface,
        "TinyFace: ranks and mean average precision, closed set",
        "facerec-eval tinyface --root tinyface --model M",
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the set's folder")
    parser.add_argument("--detector", default="crop", help=_DETECTOR)
    _add_model(parser)


def _add_megaface(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "megaface",
        _run_megaface,
        "ranks among distractors from stored features, noise lists left out",
        "facerec-eval megaface --probes facescrub_features_list.json --distractors "
        "megaface_features_list.json_1000000_1 --probe-features fs --distractor-features mf "
        "--ending _net.bin",
    )
    add = parser.add_argument
    for side in ("probe", "distractor"):
        add(
            f"--{side}s", type=Path, required=True, metavar="FILE", help=f"JSON list of the {side}s"
        )
        add(f"--{side}-features", type=Path, required=True, metavar="DIR",
            help=f"folder of the {side}s' feature files")  # fmt: skip
        add(f"--{side}-noise", type=Path, metavar="FILE", help=f"list of {side}s to leave out")
    add("--ending", required=True, help="of a feature file, behind the picture's path")
    _add_draws(parser)


def _add_model(parser: argparse.ArgumentParser, features: bool = True) -> None:
    add = parser.add_argument
    add("--model", required=not features, help="store name, artefact folder or .onnx file")
    if features:
        add("--features", type=Path, metavar="FILE",
            help="stored embeddings, not a model: .npz, .npy or .bin, a row a face")  # fmt: skip
    add("--flip", action="store_true", help="average each face with its mirror image")
    add("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")
    add("--batch-size", type=int, default=32, help="faces a call of the model")
    add("--cache", type=Path, metavar="DIR", help="keep embeddings here; nothing is embedded twice")
    _add_draws(parser)


def _add_draws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resamples", type=int, default=1000,
                        help="of people, for the 95%% intervals; 0 for none")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page here")


def _settings(arguments: argparse.Namespace) -> ProtocolSettings:
    from eval.protocol_settings import ProtocolSettings

    names = ("model", "features", "flip", "runtime", "batch_size", "cache", "resamples", "seed")
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return ProtocolSettings(**given)


def _run_pack(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs import run_packs

    return _show(arguments, run_packs(arguments.packs, _settings(arguments)))


def _run_identify(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs import run_identify

    run = run_identify(
        arguments.gallery,
        arguments.probe,
        arguments.detector,
        _settings(arguments),
        policy=arguments.policy,
        gallery_rule=arguments.gallery_rule,
        rank=arguments.rank,
        fpirs=arguments.fpir,
        allow_overlap=arguments.allow_overlap,
    )
    return _show(arguments, run)


def _run_cfp(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs_sets import run_cfp

    settings = _settings(arguments)
    return _show(
        arguments, run_cfp(arguments.root, arguments.detector, settings, kind=arguments.kind)
    )


def _run_ijb(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs_sets import run_ijb

    run = run_ijb(
        arguments.root,
        _settings(arguments),
        use_norms=not arguments.no_norm,
        use_detector_scores=not arguments.no_detector_score,
        rank=arguments.rank,
    )
    return _show(arguments, run)


def _run_lfr(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs import run_lfr

    settings = _settings(arguments)
    return _show(
        arguments, run_lfr(arguments.root, arguments.labels, settings, use_norms=arguments.norm)
    )


def _run_survface(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs_sets import run_survface

    run = run_survface(
        arguments.root,
        _settings(arguments),
        detector_spec=arguments.detector,
        rule=arguments.gallery_rule,
    )
    return _show(arguments, run)


def _run_tinyface(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs_sets import run_tinyface

    settings = _settings(arguments)
    return _show(
        arguments, run_tinyface(arguments.root, settings, detector_spec=arguments.detector)
    )


def _run_megaface(arguments: argparse.Namespace) -> int:
    from eval.protocol_runs_sets import run_megaface

    run = run_megaface(
        arguments.probes,
        arguments.distractors,
        arguments.probe_features,
        arguments.distractor_features,
        arguments.ending,
        resamples=arguments.resamples,
        seed=arguments.seed,
        probe_noise=arguments.probe_noise,
        distractor_noise=arguments.distractor_noise,
    )
    return _show(arguments, run)


def _show(arguments: argparse.Namespace, run: ProtocolRun) -> int:
    from eval.protocol_evaluation import describe_protocol
    from eval.protocol_table import RATE_COLUMNS, list_rates
    from eval.report import format_table

    evaluation = describe_protocol(run.result, seed=arguments.seed, hashes=run.hashes)
    write_json_result(
        arguments,
        {**run.result, "evaluation": evaluation.to_json()},
        seed=arguments.seed,
        hashes=run.hashes,
    )
    if arguments.html:
        from eval.report_evaluation import build_evaluation_page

        build_evaluation_page(evaluation).write(arguments.html)
    print(format_table(RATE_COLUMNS, list_rates(run.result)))
    failed = list(run.result.get("failed_files", {}).items())
    for name, why in failed[:5]:
        print(f"no face   {name}: {why}")
    if len(failed) > 5:
        print(f"          and {len(failed) - 5} more: see --json")
    for name in ("json", "html"):
        if getattr(arguments, name):
            print(f"wrote {getattr(arguments, name)}")
    return 0
