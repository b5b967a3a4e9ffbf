"""`facerec-gallery calibrate`, `cohort`, `normalise`: what a score is worth in this gallery."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.checks import InputError
from facerec.cli.gallery_options import (
    add_gallery,
    add_models,
    add_who,
    explain_interruption,
    note,
    open_gallery,
)
from facerec.command import BAD_INPUT, add_command, write_json_result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facerec.gallery.calibration import Calibration
    from facerec.gallery.gallery import Gallery


def add_calibrate(commands: Any) -> None:
    """Add the commands that look at people who are not in the gallery."""
    calibrate = add_command(
        commands,
        "calibrate",
        _run_calibrate,
        "find the threshold for a stated error rate, from faces of people who are not enrolled",
        "facerec-gallery calibrate list --impostors strangers/ --fpir 0.01",
    )
    add_gallery(calibrate)
    add = calibrate.add_argument
    add("--impostors", type=Path, required=True, metavar="SET", help="a folder a person, or a list")
    add("--fpir", type=float, help="share of searches for strangers that may name somebody")
    add("--fmr", type=float, help="share of 1:1 comparisons of two people that may be accepted")
    add("--planned-people", type=int, metavar="N", help="size to calibrate for; the present one")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add_models(calibrate)
    add_who(calibrate)
    cohort = add_command(
        commands,
        "cohort",
        _run_cohort,
        "keep faces of people who are not enrolled, for normalised scores",
        "facerec-gallery cohort list strangers/",
    )
    add_gallery(cohort)
    cohort.add_argument("source", type=Path, nargs="?", help="a folder a person, or a list")
    cohort.add_argument("--clear", action="store_true", help="drop the cohort")
    add_models(cohort)
    add_who(cohort)
    normalise = add_command(
        commands,
        "normalise",
        _run_normalise,
        "search by normalised scores from now on, or by cosines again",
        "facerec-gallery normalise list s",
    )
    add_gallery(normalise)
    normalise.add_argument("kind", choices=("none", "z", "t", "s"))
    normalise.add_argument("--top", type=int, default=0, help="of the cohort that count; 0: all")
    add_who(normalise)


def _run_calibrate(arguments: argparse.Namespace) -> int | None:
    if arguments.fpir is None and arguments.fmr is None:
        raise InputError("nothing to calibrate; give --fpir 0.01, --fmr 0.001, or both")
    nothing = "no threshold was stored; the same command begins again"
    with explain_interruption(nothing), open_gallery(arguments) as gallery:
        vectors, subjects, left_out = _embed(arguments, gallery, arguments.impostors)
        found = gallery.calibrate(
            vectors,
            subjects,
            fpir=arguments.fpir,
            fmr=arguments.fmr,
            people=arguments.planned_people,
            seed=arguments.seed,
            purpose=arguments.purpose,
        )
        model = gallery.model
    if left_out:
        note(f"{left_out} pictures without a usable face are left out")
    for calibration in found:
        _show(calibration)
    results = {
        "calibrations": [calibration.to_json() for calibration in found],
        "pictures": len(vectors),
        "left_out": left_out,
    }
    write_json_result(arguments, results, seed=arguments.seed, hashes={"model": model.hash})
    return None if any(calibration.supported for calibration in found) else BAD_INPUT


def _show(calibration: Calibration) -> None:
    result = calibration.result
    kind = result.kind.upper()
    if result.threshold is None or result.rate_interval is None:
        print(f"{kind} {result.target:g}: not supported: {result.reason}")
        return
    interval, at = result.rate_interval, ""
    if result.people is not None:
        at = f" at {result.people} people"
        if result.searched_people != result.people:
            at += f" (measured at {result.searched_people})"
    print(
        f"{kind} {result.target:g}{at}: threshold {result.threshold:.4f}; the true rate lies in "
        f"{interval.low:.2g} to {interval.high:.2g} ({interval.confidence:.0%}); {result.method}, "
        f"{result.subjects} subjects, {result.comparisons} comparisons"
    )
    if calibration.suspects:
        named = ", ".join(f"{name} ({score:.2f})" for name, score in calibration.suspects)
        note(
            f"these impostors look like somebody enrolled; if they are, take them out and "
            f"calibrate again, for the threshold is too high: {named}"
        )


def _run_cohort(arguments: argparse.Namespace) -> None:
    import numpy as np

    if arguments.clear == (arguments.source is not None):
        raise InputError("give either a set of faces or --clear")
    with open_gallery(arguments) as gallery:
        vectors = np.zeros((0, gallery.model.dim), np.float32)
        if arguments.source is not None:
            vectors, _, _ = _embed(arguments, gallery, arguments.source)
        gallery.set_cohort(vectors, arguments.purpose)
    print(f"the cohort has {len(vectors)} faces")
    write_json_result(arguments, {"rows": len(vectors)})


def _run_normalise(arguments: argparse.Namespace) -> None:
    with open_gallery(arguments) as gallery:
        gallery.normalise(arguments.kind, arguments.top, arguments.purpose)
        calibrated = gallery.store.find_threshold(arguments.kind)
    print(f"scores are {'cosines' if arguments.kind == 'none' else arguments.kind + '-normalised'}")
    if calibrated is None:
        note("there is no threshold for such scores yet; run `facerec-gallery calibrate`")
    write_json_result(arguments, {"normalisation": arguments.kind})


def _embed(
    arguments: argparse.Namespace, gallery: Gallery, source: Path
) -> tuple[NDArray[np.float32], list[str], int]:
    """Return the embeddings of a set, whose each is, and how many pictures had no usable face."""
    import numpy as np

    from facerec.data.pictures import iter_pictures
    from facerec.data.sources import open_source
    from facerec.embedder import embed_pictures
    from facerec.gallery.tools import build_tools
    from facerec.progress import Progress

    items = open_source(source)
    detector, embedder = build_tools(
        gallery, arguments.model, arguments.detector, arguments.runtime
    )
    policy = arguments.policy or gallery.store.read_setting("policy", "largest")
    vectors: list[NDArray[np.float32]] = []
    subjects: list[str] = []
    left_out = 0
    with Progress("embed", len(items), "pictures") as progress:
        for picture, found in embed_pictures(embedder, iter_pictures(items, detector, policy)):
            usable = np.flatnonzero(found.norms > 0)
            vectors.append(found.vectors[usable])
            # A picture that names nobody is somebody of its own.
            subjects += [picture.item.identity or picture.item.key] * len(usable)
            left_out += not len(usable)
            progress.advance()
    if not subjects:
        raise InputError(f"{source} has no picture with a usable face; give another set")
    return np.concatenate(vectors), subjects, left_out
