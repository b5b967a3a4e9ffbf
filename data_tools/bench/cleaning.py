"""How well cleaning finds injected noise on real faces, beside four baselines.

`python -m data_tools.bench.cleaning DATA OUT --seeds 3`, with DATA as the project's test faces lie:
aligned/ (chips a folder a person), lfw/images/ with lfw_glint_overlap.txt, unlabeled/ and weights/.
Everything is embedded once and kept in OUT; every (case, seed) is a file there, so a run resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import data_tools
from data_tools.centres import Array, Labels, Mask, Vectors, scale_to_unit, sum_members
from data_tools.inject import OUTLIER, NoiseRates, plan_noise
from data_tools.outliers import MIN_PICTURES, score_rows
from data_tools.score import run_baselines
from data_tools.score_fates import score_fates
from data_tools.score_tables import format_methods
from facerec.checks import InputError, check_whole
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.data.sources import scan_source
from facerec.detection import build_detector
from facerec.embedder import Embedder, embed_pictures
from facerec.io import atomic_path, read_json, sha256_bytes, sha256_file, write_json
from facerec.progress import Progress

CASES = {
    "flips 10 %": NoiseRates(flips=0.1),
    "flips 20 %": NoiseRates(flips=0.2),
    "flips 40 %": NoiseRates(flips=0.4),
    "outliers 10 %": NoiseRates(outliers=0.1),
    "outliers 20 %": NoiseRates(outliers=0.2),
    "outliers 40 %": NoiseRates(outliers=0.4),
    "outliers 60 %": NoiseRates(outliers=0.6),
    "flips 20 % and outliers 20 %": NoiseRates(flips=0.2, outliers=0.2),
    "splits 5 % and merges 5 %": NoiseRates(splits=0.05, merges=0.05),
    "splits 5 %, merges 5 % and flips 20 %": NoiseRates(splits=0.05, merges=0.05, flips=0.2),
}
TOOL = "facerec-clean"

NOISE_COSINE = 0.3
"""Celeba chips under it to their own robust centre are the data's own noise, and put aside."""
SAME_COSINE = 0.55
"""From it on two centres, or a stranger and a centre, are one person under two names.

Read off this recogniser's cosines: between people they end near 0.5, and faces known to be of one
person begin above 0.55.
"""

_PARTS = ("aligned", "lfw", "unlabeled")


@dataclass(frozen=True)
class Faces:
    """The clean rows and what was put aside.

    Attributes:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), every number used, at least three rows each.
        norms: float64 (n,), raw norms, which stand for quality.
        strangers: float32 (p, d), of people without an identity here.
        aside: what was left out -> how many.
    """

    vectors: Vectors
    labels: Labels
    norms: Array
    strangers: Vectors
    aside: dict[str, int]


@dataclass(frozen=True)
class _Embedded:
    vectors: Vectors
    norms: Array
    identities: NDArray[np.str_]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench and return its exit code."""
    parser = build_parser(
        "data_tools.bench.cleaning",
        "Inject noise into real faces, clean, and score every method against the truth.",
        "python -m data_tools.bench.cleaning data/ out/ --seeds 3 --json cleaning.json",
    )
    parser.add_argument("data", type=Path, help="aligned/, lfw/images/, unlabeled/, weights/")
    parser.add_argument("out", type=Path, help="embeddings and results are kept here")
    parser.add_argument("--seeds", type=int, default=3, help="injections a case")
    parser.add_argument("--threads", type=int, help="for embedding, all cores if left")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="TEXT", help="cases whose name holds one"
    )
    parser.add_argument(
        "--put-aside",
        default="celeba_",
        help=f"people by the beginning of their name whose rows under {NOISE_COSINE} to their own "
        'centre are left out beforehand; "" for all',
    )
    parser.add_argument("--profile", default="as is", help='folder sizes: "as is" or "long tail"')
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    check_whole(arguments.seeds, "--seeds", 1, 1000)
    only = arguments.only or [""]
    names = [name for name in CASES if any(text in name for text in only)]
    if not names:
        raise InputError(f"--only fits none of: {'; '.join(CASES)}")
    faces, model = prepare_faces(
        arguments.data, arguments.out, arguments.threads, arguments.put_aside
    )
    state = {"model_sha256": model, "profile": arguments.profile, "aside": faces.aside}
    state |= {"code_sha256": _hash_code(), "rows": len(faces.labels)}
    lines = [
        f"{len(faces.labels):,} clean rows of {faces.labels.max() + 1:,} people, "
        f"{len(faces.strangers):,} strangers; put aside: "
        + ", ".join(f"{count:,} {what}" for what, count in faces.aside.items())
    ]
    cases = {}
    with Progress("cases", len(names) * arguments.seeds, "runs") as progress:
        for name in names:
            results = []
            for seed in range(arguments.seeds):
                results.append(_score_case(faces, name, seed, arguments, state))
                progress.advance(note=name)
            cases[name] = results
            lines += ["", _format_case(name, results)]
    sys.stdout.write("\n".join(lines) + "\n")
    result = {"state": state, "cases": cases}
    write_json_result(arguments, result, seed=0, hashes={"model": model})


def _format_case(name: str, results: list[dict[str, Any]]) -> str:
    methods = {
        method: [result["methods"][method] for result in results]
        for method in results[0]["methods"]
    }
    rows = ", ".join(f"{result['rows']:,}" for result in results)
    lines = [f"{name} ({rows} rows)", format_methods(methods)]
    lines += sorted({f"cleanlab left out: {r['skipped']}" for r in results if r["skipped"]})
    return "\n".join(lines)


def _hash_code() -> str:
    """Return the sha256 of the cleaning engine: what it decided before a change does not count."""
    paths = [*sorted(Path(data_tools.__file__).parent.glob("*.py")), Path(__file__)]
    return sha256_bytes(b"".join(path.read_bytes() for path in paths))


def _score_case(
    faces: Faces, name: str, seed: int, arguments: argparse.Namespace, state: dict[str, Any]
) -> dict[str, Any]:
    """Return the scores of one case and seed, from the file of an earlier run if it still holds."""
    slug = "".join(c if c.isalnum() else "-" for c in name)
    path = arguments.out / "cases" / f"{slug}-{arguments.profile.replace(' ', '-')}-{seed}.json"
    if path.is_file():
        known: dict[str, Any] = read_json(path)
        if known["state"] == state:
            return known
    result = {"state": state, **run_case(faces, CASES[name], seed, arguments.profile)}
    write_json(path, result)
    return result


def run_case(faces: Faces, rates: NoiseRates, seed: int, profile: str = "as is") -> dict[str, Any]:
    """Inject noise, clean by every method, and score.

    Args:
        faces: what to inject into.
        rates: how much of each kind.
        seed: of the injection.
        profile: see `plan_noise`.

    Returns:
        rows, people_left_out, kinds, methods (name -> `score_fates`), skipped (why cleanlab gave
        nothing, "" if it did).
    """
    from data_tools.judgement import judge

    plan = plan_noise(
        faces.labels,
        np.random.default_rng(seed),
        **asdict(rates),
        outlier_pool=len(faces.strangers),
        profile=profile,
    )
    strange = plan.kind == OUTLIER
    vectors = np.empty((len(strange), faces.vectors.shape[1]), np.float32)
    vectors[strange] = faces.strangers[plan.source[strange]]
    vectors[~strange] = faces.vectors[plan.source[~strange]]
    quality = np.full(len(strange), np.nan)
    quality[~strange] = faces.norms[plan.source[~strange]]
    judgement = judge(vectors, plan.given)
    fates: dict[str, tuple[Labels, float | None]] = {TOOL: (judgement.fate, float(judgement.noise))}
    kept, skipped = run_baselines(vectors, plan.given)
    fates |= {name: (np.where(keep, plan.given, -1), None) for name, keep in kept.items()}
    return {
        "rows": len(strange),
        "people_left_out": len(plan.left_out),
        "kinds": plan.count_kinds(),
        "skipped": skipped,
        "methods": {
            name: score_fates(
                fate, plan.given, plan.person, plan.kind, quality=quality, noise=noise, seed=seed
            )
            for name, (fate, noise) in fates.items()
        },
    }


def prepare_faces(
    data: Path, out: Path, threads: int | None = None, put_aside: str = "celeba_"
) -> tuple[Faces, str]:
    """Return the clean rows, and the hash of the recogniser that embedded them.

    People of at least three rows are clean; put aside are LFW's people whom aligned/ has too (by
    the list of names), people's rows under `NOISE_COSINE` to their own centre where the name begins
    with `put_aside`, the smaller of two people whose centres
    reach `SAME_COSINE`, and strangers who reach it to a clean centre. Rows of people with fewer
    pictures join the strangers.

    Raises:
        InputError: a folder of DATA is missing.
    """
    embedder = Embedder(data / "weights" / "MobileFaceNet.onnx", flip=True, threads=threads)
    found = [_embed_part(embedder, data, out, part, threads) for part in _PARTS]
    shared = {line.strip() for line in (data / "lfw_glint_overlap.txt").read_text().splitlines()}
    taken = [np.ones(len(part.norms), bool) for part in found]
    taken[1] = ~np.isin(found[1].identities, sorted(shared))
    vectors = np.concatenate([p.vectors[t] for p, t in zip(found, taken, strict=True)])
    norms = np.concatenate([p.norms[t] for p, t in zip(found, taken, strict=True)])
    names = np.concatenate(
        [
            found[0].identities,
            np.char.add("lfw_", found[1].identities[taken[1]]),
            np.full(len(found[2].norms), ""),
        ]
    )
    faces = _select_clean(vectors, norms.astype(np.float64), names, put_aside)
    faces.aside["LFW rows of names in aligned/"] = int((~taken[1]).sum())
    return faces, embedder.model_hash


def _embed_part(
    embedder: Embedder, data: Path, out: Path, part: str, threads: int | None
) -> _Embedded:
    """Return a part's embeddings, from OUT if they are there."""
    path = out / f"{part}.npz"
    lfw = part == "lfw"
    source = scan_source(data / "lfw" / "images" if lfw else data / part)
    weights = data / "weights" / "yunet.onnx"
    version = f"{embedder.model_hash} {sha256_file(weights) if lfw else 'aligned'}"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["version"]) == version and int(kept["items"]) == len(source.items):
                return _Embedded(kept["vectors"], kept["norms"], kept["identities"])
    from facerec.data.pictures import iter_pictures

    detector = build_detector(str(weights) if lfw else "aligned")
    vectors, norms, identities = [], [], []
    with Progress(f"embed {part}", len(source.items), "pictures") as progress:
        pictures = iter_pictures(
            source.items, detector, "central", threads
        )  # LFW frames its person
        for picture, embeddings in embed_pictures(embedder, pictures):
            seen = embeddings.norms > 0
            vectors.append(embeddings.vectors[seen])
            norms.append(embeddings.norms[seen])
            identities += [picture.item.identity] * int(seen.sum())
            progress.advance()
    found = _Embedded(np.concatenate(vectors), np.concatenate(norms), np.array(identities))
    with atomic_path(path) as temporary:
        np.savez(temporary, version=version, items=len(source.items), **vars(found))
    return found


def _select_clean(vectors: Vectors, norms: Array, names: NDArray[np.str_], put_aside: str) -> Faces:
    people, codes = np.unique(names, return_inverse=True)
    codes = np.where(names == "", -1, codes)
    aside = {}
    given = _keep_large(codes)
    scores, _ = score_rows(vectors, _number(given))
    noisy = np.char.startswith(names, put_aside) & (scores.own < NOISE_COSINE) & (given >= 0)
    aside[f"{put_aside or 'all'} rows under {NOISE_COSINE} to their centre"] = int(noisy.sum())
    clean = _keep_large(np.where(noisy, -1, given))
    twins = _find_twins(vectors, clean, len(people))
    aside["people under a second name"] = len(twins)
    aside["their rows"] = int(np.isin(clean, twins).sum())
    clean = np.where(np.isin(clean, twins), -1, clean)
    pool = (codes < 0) | (given < 0)
    units = scale_to_unit(sum_members(vectors, clean, len(people)))
    known = pool & _reach(vectors, units[units.any(axis=1)])
    aside["strangers who are one of them"] = int(known.sum())
    rows = np.flatnonzero(clean >= 0)
    return Faces(vectors[rows], _number(clean)[rows], norms[rows], vectors[pool & ~known], aside)


def _keep_large(codes: Labels) -> Labels:
    """Return the codes with -1 for people of too few rows."""
    sizes = np.append(np.bincount(codes[codes >= 0]), 0)
    return np.where(sizes[codes] >= MIN_PICTURES, codes, -1)


def _number(codes: Labels) -> Labels:
    """Return the codes without gaps, -1 left as it is."""
    _, numbers = np.unique(np.append(codes, -1), return_inverse=True)
    return np.asarray(numbers[:-1] - 1, np.int64)


def _find_twins(vectors: Vectors, clean: Labels, count: int) -> list[int]:
    """Return the smaller one of each two people whose centres say that they are one."""
    units = scale_to_unit(sum_members(vectors, clean, count))
    sizes = np.bincount(clean[clean >= 0], minlength=count)
    likeness = np.triu(units @ units.T, 1)
    pairs = np.argwhere(likeness >= SAME_COSINE)
    return sorted({int(two if sizes[one] >= sizes[two] else one) for one, two in pairs})


def _reach(vectors: Vectors, units: Vectors) -> Mask:
    """Return which rows reach `SAME_COSINE` to any of the centres, bool (n,)."""
    blocks = np.array_split(vectors, max(1, len(vectors) // 4096))
    return np.concatenate([(block @ units.T).max(axis=1) >= SAME_COSINE for block in blocks])


if __name__ == "__main__":
    sys.exit(main())
