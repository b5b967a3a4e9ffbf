"""Real people for calibration experiments: no person twice, under one name or under two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.embedding import embed_files
from facerec.checks import InputError
from facerec.data.sources import scan_source
from facerec.detection import build_detector, hash_detector
from facerec.embedder import Embedder

COPY = 0.9
"""Two pictures of different names that agree more than this are one picture or one session."""

SAME_PERSON = 0.6
"""Two people whose mean vectors agree as much as this are one: far above any threshold set here."""

_PREFIX = "glint_"
_TILE = 1024

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class People:
    """Embedded pictures of p people.

    Attributes:
        vectors: float32 (m, d), unit norm.
        person: int64 (m,), in [0, p).
        templates: float32 (p, d), the direction of each person's mean.
        failed: pictures without an embedding.
        shared_names: people dropped because a list or another set has their name.
        look_alikes: people dropped because another's pictures or template agree too well.
        copies: pairs of pictures of different names above `COPY`.
    """

    vectors: NDArray[np.float32]
    person: Labels
    templates: NDArray[np.float32]
    failed: int
    shared_names: int
    look_alikes: int
    copies: int

    def __len__(self) -> int:
        return len(self.templates)


def load_people(data: Path, embedder: Embedder, detector: str, cache: Path | None = None) -> People:
    """Embed `data/lfw/images` (photos) and `data/aligned` (chips) and drop who is there twice.

    Args:
        data: folder with both sets; `lfw_glint_overlap.txt` in it names people of LFW to drop.
        embedder: the recogniser.
        detector: of faces in the photos, see `facerec.detection.build_detector`.
        cache: folder that keeps embeddings, None for none.

    Raises:
        InputError: a set is missing, or nobody is left.
    """
    vectors, names, failed = [], [], 0
    for folder, spec in ((data / "lfw" / "images", detector), (data / "aligned", "aligned")):
        source = scan_source(folder, "folder")
        finder = build_detector(spec)
        pictures = embed_files(
            source.root,
            [item.key for item in source.items],
            finder,
            embedder,
            policy="largest",
            cache=cache,
            detector_hash=hash_detector(spec, finder),
        )
        made = pictures.made()
        failed += int((~made).sum())
        vectors.append(pictures.vectors[made])
        names += [item.identity for item, there in zip(source.items, made, strict=True) if there]
    overlap = data / "lfw_glint_overlap.txt"
    listed = set(overlap.read_text("utf-8").split()) if overlap.is_file() else set()
    return select_people(np.concatenate(vectors), names, listed, failed)


def select_people(
    vectors: NDArray[np.float32], names: list[str], listed: set[str], failed: int = 0
) -> People:
    """Drop people who are there twice: of two the one with fewer pictures.

    Args:
        vectors: float32 (m, d), unit norm.
        names: m, whose each is; `glint_NAME` is the same person as NAME.
        listed: names to drop.
        failed: pictures without an embedding, passed on.

    Raises:
        InputError: nobody is left.
    """
    known, codes, counts = np.unique(np.asarray(names), return_inverse=True, return_counts=True)
    twins = {name.removeprefix(_PREFIX) for name in known if name.startswith(_PREFIX)}
    dropped = {code for code, name in enumerate(known.tolist()) if name in listed or name in twins}
    shared = len(dropped)
    templates = _average(vectors, codes, len(known))
    alike = np.argwhere(np.triu(templates @ templates.T, 1) >= SAME_PERSON)
    copies = _find_copies(vectors, codes)
    pairs = {(min(a, b), max(a, b)) for a, b in [*alike.tolist(), *codes[copies].tolist()]}
    for a, b in sorted(pairs):
        if a not in dropped and b not in dropped:
            dropped.add(a if counts[a] < counts[b] else b)
    kept = ~np.isin(codes, list(dropped))
    if not kept.any():
        raise InputError("nobody is left once people who are there twice are dropped")
    _, person = np.unique(codes[kept], return_inverse=True)
    people = int(person.max()) + 1
    return People(
        vectors[kept],
        person.astype(np.int64),
        _average(vectors[kept], person, people),
        failed,
        shared,
        len(dropped) - shared,
        len(copies),
    )


def _average(vectors: NDArray[np.float32], codes: Labels, people: int) -> NDArray[np.float32]:
    sums = np.zeros((people, vectors.shape[1]), np.float64)
    np.add.at(sums, codes, vectors)
    unit: NDArray[np.float32] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def _find_copies(vectors: NDArray[np.float32], codes: Labels) -> Labels:
    """Return rows int64 (c, 2) of pictures of different people that agree above `COPY`."""
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(vectors), _TILE):
        high = vectors[start : start + _TILE] @ vectors[start:].T > COPY
        i, j = np.nonzero(np.triu(high, 1))
        differ = codes[i + start] != codes[j + start]
        found.append(np.stack([i[differ], j[differ]], axis=1) + start)
    return np.concatenate(found)
