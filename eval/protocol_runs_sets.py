"""From the files of a public set to its result: one call each, as the commands make them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from eval.media import pool_templates
from eval.pairs import PairList
from eval.protocol_embedding import embed_listed
from eval.protocol_files import read_path_list
from eval.protocol_ijb import identify_templates, verify_templates
from eval.protocol_ijb_files import (
    ListedDetector,
    find_prefix,
    join_lists,
    read_faces,
    read_search_lists,
    read_template_pairs,
)
from eval.protocol_megaface import identify_among_distractors
from eval.protocol_megaface_files import find_noise, read_noise_list, read_picture_features
from eval.protocol_pairs import PAIR_FARS, PairResult, compare_pairs, join_people, read_cfp
from eval.protocol_settings import (
    ProtocolRun,
    ProtocolSettings,
    build_embedder,
    choose_detector,
    describe_model,
    embed_or_read,
)
from eval.protocol_survface import PAIR_FARS as SURVFACE_FARS
from eval.protocol_survface import (
    identify_survface,
    read_survface,
    read_survface_pairs,
)
from eval.protocol_tinyface import identify_closed_set, read_tinyface
from facerec.checks import InputError
from facerec.embedder import Embedder
from facerec.io import sha256_file
from facerec.structures import Detector


def run_ijb(
    root: Path,
    settings: ProtocolSettings,
    *,
    use_norms: bool = True,
    use_detector_scores: bool = True,
    rank: int | None = None,
) -> ProtocolRun:
    """Return the 1:1 and 1:N figures of IJB-B or IJB-C.

    Args:
        root: the set's folder; see `eval.protocol_ijb_files`.
        settings: how to embed; features are a row a face, in the order of the list of faces.
        use_norms: weigh faces by their raw norms (N1).
        use_detector_scores: weigh them by the listed detector scores (D1).
        rank: the length of the candidate list of TPIR, None = all.

    Raises:
        InputError: anything wrong with the files.
    """
    started = time.monotonic()
    prefix = find_prefix(root)
    faces = read_faces(prefix)
    first, second, same = read_template_pairs(prefix)
    galleries, probes = read_search_lists(prefix)
    embedded, means, hashes = embed_or_read(
        settings, faces.images, faces.names, ListedDetector(faces), faces.sha256
    )
    templates = pool_templates(
        embedded.vectors,
        embedded.norms,
        faces.template_ids,
        faces.media_ids,
        use_norms=use_norms,
        detector_scores=faces.detector_scores if use_detector_scores else None,
    )
    subjects = join_lists(galleries, probes)
    verified = verify_templates(
        templates, first, second, same, subjects=subjects, **settings.draws()
    )
    identified = identify_templates(templates, galleries, probes, rank=rank, **settings.draws())
    result = {
        "task": "ijb",
        "set": prefix.name,
        **means,
        "weights": {"norm": use_norms, "detector_score": use_detector_scores},
        "verification": verified.to_json(),
        "identification": identified.to_json(),
        "seconds": round(time.monotonic() - started, 2),
        "failed_files": embedded.failed,
    }
    return ProtocolRun(result, {**hashes, "faces": faces.sha256})


def run_survface(
    root: Path, settings: ProtocolSettings, *, detector_spec: str = "crop", rule: str = "mean"
) -> ProtocolRun:
    """Return the 1:N and 1:1 figures of QMUL-SurvFace; 1:1 where its lists lie there.

    Args:
        root: the set's folder; see `eval.protocol_survface`.
        settings: how to embed; features are a row a picture: gallery, mated, unmated (sorted).
        detector_spec: "crop", or see `facerec.detection.build_detector`.
        rule: see `identify_open_set`.

    Raises:
        InputError: anything wrong with the files.
    """
    lists = read_survface(root)
    names = [*lists.gallery, *lists.mated, *lists.unmated]
    detector, key = choose_detector(detector_spec)
    faces, means, hashes = embed_or_read(settings, lists.images, names, detector, key)
    ends = np.cumsum([len(lists.gallery), len(lists.mated)]).tolist()
    gallery, mated, unmated = np.split(faces.vectors, ends)
    found = identify_survface(
        gallery, lists.gallery_people, mated, lists.mated_people, unmated, lists.unmated_people,
        gallery_rule=rule, **settings.draws(),
    )  # fmt: skip
    result = {"task": "survface", **means, "detector": detector.name, **found.to_json()}
    failed = dict(faces.failed)
    if settings.model is not None and (root / "Face_Verification_Test_Set").is_dir():
        pairs = read_survface_pairs(root)
        images = root / "Face_Verification_Test_Set" / "verification_images"
        embedder = build_embedder(settings)
        listed, lost = _run_pairs(
            pairs, images, (detector, key), embedder, settings, fars=SURVFACE_FARS
        )
        result["verification"] = listed.to_json()
        failed |= lost
    return ProtocolRun({**result, "failed_files": failed}, hashes)


def run_tinyface(
    root: Path, settings: ProtocolSettings, *, detector_spec: str = "crop"
) -> ProtocolRun:
    """Return the closed-set figures of TinyFace.

    Args:
        root: the set's folder; see `eval.protocol_tinyface`.
        settings: how to embed; features are a row a picture: probes, gallery, distractors (sorted).
        detector_spec: "crop", or see `facerec.detection.build_detector`.

    Raises:
        InputError: anything wrong with the files.
    """
    lists = read_tinyface(root)
    names = [*lists.probes, *lists.gallery, *lists.distractors]
    detector, key = choose_detector(detector_spec)
    faces, means, hashes = embed_or_read(settings, lists.images, names, detector, key)
    ends = np.cumsum([len(lists.probes), len(lists.gallery)]).tolist()
    probes, gallery, distractors = np.split(faces.vectors, ends)
    found = identify_closed_set(
        probes, lists.probe_people, gallery, lists.gallery_people, distractors, **settings.draws()
    )
    result = {"task": "tinyface", **means, "detector": detector.name, **found.to_json()}
    return ProtocolRun({**result, "failed_files": faces.failed}, hashes)


def run_megaface(
    probes: Path,
    distractors: Path,
    probe_features: Path,
    distractor_features: Path,
    ending: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    probe_noise: Path | None = None,
    distractor_noise: Path | None = None,
) -> ProtocolRun:
    """Return the figures of MegaFace-style features; see `eval.protocol_megaface_files`.

    Args:
        probes: JSON list with `path` and `id`.
        distractors: JSON list with `path`.
        probe_features: folder of the probes' feature matrices.
        distractor_features: folder of the distractors'.
        ending: of a feature's file behind the picture's path, such as `_net.bin`.
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.
        probe_noise: list of probes to leave out, None for none.
        distractor_noise: list of distractors to leave out.

    Raises:
        InputError: anything wrong with the files.
    """
    names, people = read_path_list(probes)
    others, _ = read_path_list(distractors)
    if people is None:
        raise InputError(f"{probes} must hold a list `id` beside `path`: whose the probes are")
    noise = [
        None if path is None else find_noise(listed, read_noise_list(path, parts), parts)
        for path, listed, parts in ((probe_noise, names, 1), (distractor_noise, others, 3))
    ]
    vectors, norms = read_picture_features(probe_features, names, ending)
    strangers, stranger_norms = read_picture_features(distractor_features, others, ending)
    found = identify_among_distractors(
        vectors, people, strangers,
        probe_norms=norms, distractor_norms=stranger_norms,
        noisy_probes=noise[0], noisy_distractors=noise[1],
        resamples=resamples, seed=seed,
    )  # fmt: skip
    files = {"probes": probes, "distractors": distractors}
    lists = {"probe_noise": probe_noise, "distractor_noise": distractor_noise}
    files |= {name: path for name, path in lists.items() if path is not None}
    return ProtocolRun(
        {"task": "megaface", **found.to_json()},
        {name: sha256_file(path) for name, path in files.items()},
    )


def run_cfp(
    root: Path, detector_spec: str, settings: ProtocolSettings, *, kind: str = "FP"
) -> ProtocolRun:
    """Return the figures over the pairs of CFP, frontal against profile or frontal.

    Args:
        root: the set's folder; see `eval.protocol_pairs.read_cfp`.
        detector_spec: see `facerec.detection.build_detector`; also "crop".
        settings: how to embed; a model is needed.
        kind: "FP" or "FF".

    Raises:
        InputError: anything wrong with the files.
    """
    pairs = read_cfp(root, kind)
    detector, key = choose_detector(detector_spec)
    embedder = build_embedder(settings)
    # The folder two up is the person: 001/profile/01.jpg.
    people = [name.split("/")[0] for name in pairs.images()]
    images = root / "Data" / "Images"
    found, failed = _run_pairs(pairs, images, (detector, key), embedder, settings, people)
    result = {"task": "cfp", **describe_model(embedder, settings), "detector": detector.name}
    return ProtocolRun(
        {**result, **found.to_json(), "failed_files": failed},
        {"model": embedder.info.sha256, "detector": key},
    )


def _run_pairs(
    pairs: PairList,
    images: Path,
    detector: tuple[Detector, str],
    embedder: Embedder,
    settings: ProtocolSettings,
    people: Sequence[str] | None = None,
    fars: Sequence[float] = PAIR_FARS,
) -> tuple[PairResult, dict[str, str]]:
    """Return the figures over a list of pairs, and the pictures that failed.

    Args:
        pairs: the comparisons.
        images: the folder that their paths are relative to.
        detector: with its hash.
        embedder: the model.
        settings: for the cache and the intervals.
        people: whose each of `pairs.images()` is; None: inferred from mated pairs.
        fars: targets in (0, 1].
    """
    names = pairs.images()
    faces = embed_listed(
        images, names, detector[0], embedder, cache=settings.cache, detector_hash=detector[1]
    )
    first, second = (np.searchsorted(names, side) for side in (pairs.image_a, pairs.image_b))
    whose: ArrayLike | None = people
    note = ""
    if people is None:
        whose, note = join_people(first, second, pairs.same, len(names))
    found = compare_pairs(
        faces.vectors, first, second, pairs.same,
        folds=pairs.folds, people=whose, note=note, name=pairs.name, fars=fars,
        **settings.draws(),
    )  # fmt: skip
    return found, faces.failed
