"""From the files of a protocol to its result: one call each, as the commands make them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.media import pool_frames
from eval.protocol_embedding import ListedFaces, embed_listed, embed_pack, number_pictures
from eval.protocol_lfr import compare_videos, list_frames, read_labels, read_video_list
from eval.protocol_open_set import identify_open_set
from eval.protocol_overlap import check_overlap
from eval.protocol_pairs import compare_pairs, join_people
from eval.protocol_settings import (
    ProtocolRun,
    ProtocolSettings,
    build_embedder,
    choose_detector,
    describe_model,
    embed_or_read,
)
from facerec.checks import InputError
from facerec.data.bins import read_bin
from facerec.detection import AlignedDetector
from facerec.io import sha256_file

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def run_packs(paths: Sequence[Path], settings: ProtocolSettings) -> ProtocolRun:
    """Return the figures of a model over verification packs (`.bin`).

    Raises:
        InputError: no pack, features instead of a model, or a file that is no pack.
    """
    if settings.model is None:
        raise InputError("packs hold pictures: give a model, not features")
    if not paths:
        raise InputError("give at least one pack")
    embedder, results = build_embedder(settings), {}
    hashes = {"model": embedder.info.sha256}
    failed: dict[str, str] = {}
    for path in paths:
        pack = read_bin(path)
        faces = embed_pack(pack, embedder, path.name)
        numbers = number_pictures(pack.images)
        first, second = np.arange(0, numbers.size, 2), np.arange(1, numbers.size, 2)
        codes, note = join_people(
            numbers[first], numbers[second], pack.same, int(numbers.max()) + 1
        )
        found = compare_pairs(
            faces.vectors,
            first,
            second,
            pack.same,
            norms=faces.norms,
            people=None if codes is None else codes[numbers],
            note=note,
            name=path.stem,
            **settings.draws(),
        )
        results[path.stem] = found.to_json()
        hashes[path.stem] = sha256_file(path)
        failed |= faces.failed
    result = {"task": "pack", **describe_model(embedder, settings), "packs": results}
    return ProtocolRun({**result, "failed_files": failed}, hashes)


def run_lfr(
    root: Path, labels: Path, settings: ProtocolSettings, *, use_norms: bool = False
) -> ProtocolRun:
    """Return TAR over all pairs of videos.

    Args:
        root: the folder with `filelist.txt` and the frames; see `eval.protocol_lfr`.
        labels: whose each video is, a line each.
        settings: how to embed; features are a row a video, in the order of the list.
        use_norms: weigh frames by their raw norms.

    Raises:
        InputError: anything wrong with the files.
    """
    videos = read_video_list(root / "filelist.txt")
    subjects = read_labels(labels, len(videos))
    vectors: NDArray[np.float32]
    if settings.features is not None:
        faces, means, hashes = embed_or_read(settings, root, videos, AlignedDetector(), "")
        vectors = faces.vectors
    else:
        frames, owners = list_frames(root, videos)
        faces, means, hashes = embed_or_read(settings, root, frames, AlignedDetector(), "")
        vectors = np.zeros((len(videos), faces.vectors.shape[1]), np.float32)
        pooled = pool_frames(faces.vectors, faces.norms, owners, use_norms=use_norms)
        vectors[pooled.ids] = pooled.vectors
    found = compare_videos(vectors, subjects, **settings.draws())
    result = {"task": "lfr", **means, **found.to_json(), "failed_files": faces.failed}
    return ProtocolRun(result, {**hashes, "labels": sha256_file(labels)})


def run_identify(
    gallery: Path,
    probes: Path,
    detector_spec: str,
    settings: ProtocolSettings,
    *,
    policy: str = "largest",
    gallery_rule: str = "best",
    rank: int | None = None,
    fpirs: Sequence[float] = (0.1, 0.01, 0.003),
    allow_overlap: bool = False,
) -> ProtocolRun:
    """Return open-set figures of two folders of people, a folder a person.

    A probe is mated when the gallery has a folder of its person's name.

    Args:
        gallery: folders of people.
        probes: folders of people.
        detector_spec: see `facerec.detection.build_detector`; also "crop".
        settings: how to embed; a model is needed.
        policy: which face of a picture counts, "largest" or "central".
        gallery_rule: see `identify_open_set`.
        rank: the length of the candidate list, None = all.
        fpirs: targets in (0, 1].
        allow_overlap: go on though pictures are in both folders.

    Raises:
        InputError: anything wrong with the folders, or pictures that are in both.
    """
    names = [_list_pictures(folder) for folder in (gallery, probes)]
    detector, key = choose_detector(detector_spec)
    sides: list[ListedFaces] = []
    failed: dict[str, str] = {}
    if settings.model is None:
        raise InputError("folders hold pictures: give a model, not features")
    embedder = build_embedder(settings)
    for folder, listed in zip((gallery, probes), names, strict=True):
        found = embed_listed(
            folder, listed, detector, embedder,
            policy=policy, cache=settings.cache, detector_hash=key,
        )  # fmt: skip
        sides.append(found)
        failed |= {f"{folder.name}/{name}": why for name, why in found.failed.items()}
    overlap = check_overlap(
        sides[0].vectors, sides[1].vectors, names[0], names[1], allow=allow_overlap
    )
    people = [np.array([name.split("/")[0] for name in listed], np.str_) for listed in names]
    result = identify_open_set(
        sides[1].vectors, people[1], sides[0].vectors, people[0],
        gallery_rule=gallery_rule, rank=rank, fpirs=fpirs, **settings.draws(),
    )  # fmt: skip
    return ProtocolRun(
        {
            "task": "identify",
            **describe_model(embedder, settings),
            "detector": detector.name,
            "policy": policy,
            "near_duplicates": overlap,
            **result.to_json(),
            "failed_files": failed,
        },
        {"model": embedder.info.sha256, "detector": key},
    )


def _list_pictures(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder with a folder a person, but is no folder")
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.glob("*/*")
        if path.suffix.lower() in _SUFFIXES
    )
    if not names:
        raise InputError(f"{folder} must hold a folder a person with pictures, but holds none")
    return names
