"""Synthetic galleries for the index benchmark: rows of people, probes of them and of strangers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = ("clustered", "isotropic")
_BLOCK = 20_000
_ROWS_A_PERSON = 4
_GROUPS = 200
_GROUP_SHARE = 0.15  # of a person's centre, squared: mild clusters
_DECAY = 8.0  # of the spectrum: 512 dimensions act like about 350, as those of faces do
_KEPT = 0.57, 0.12  # cosine of a row with its person's centre, squared: mean and spread
_KEPT_LIMITS = 0.2, 0.95


@dataclass(frozen=True)
class Faces:
    """A gallery on disk.

    Attributes:
        folder: holds rows.npy, owners.npy, probes.npy and truth.npy.
        kind: one of KINDS.
        rows: how many.
    """

    folder: Path
    kind: str
    rows: int

    def read(self, name: str) -> NDArray[np.generic]:
        """Return an array of the folder, in memory."""
        array: NDArray[np.generic] = np.load(self.folder / f"{name}.npy")
        return array


def write_faces(folder: Path, kind: str, rows: int, dim: int, probes: int, seed: int) -> Faces:
    """Draw a gallery and probes and write them.

    Clustered: people with 4 rows each on average, centres in 200 loose groups, a decaying
    spectrum, mated cosines of 0.56 on average with a spread of 0.1, as a recogniser gives on
    unconstrained pictures. Isotropic: one row a person, every direction alike; the probes of a
    person lie at the same cosines. Five probes in six are of people in the gallery.

    Args:
        folder: is made.
        kind: one of KINDS.
        rows: of the gallery.
        dim: of an embedding.
        probes: how many.
        seed: of everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, rows, KINDS.index(kind)))
    scales = np.ones(dim, np.float32)
    if kind == "clustered":
        scales = ((1 + _DECAY * np.arange(dim) / dim) ** -0.5).astype(np.float32)
        owners = np.sort(rng.integers(0, max(1, rows // _ROWS_A_PERSON), rows))
    else:
        owners = np.arange(rows)
    people = int(owners[-1]) + 1
    strangers = probes // 6
    centres = _draw_centres(rng, people + strangers, scales, kind)
    path = folder / "rows.npy"
    drawn = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    for start in range(0, rows, _BLOCK):
        chosen = owners[start : start + _BLOCK]
        # An isotropic person's one row is the centre itself.
        drawn[start : start + len(chosen)] = (
            centres[chosen] if kind == "isotropic" else _draw_around(rng, centres[chosen], scales)
        )
    drawn.flush()
    truth = np.concatenate(
        [
            rng.choice(np.unique(owners), probes - strangers),
            people + np.arange(strangers),
        ]
    )
    np.save(folder / "owners.npy", owners)
    np.save(folder / "probes.npy", _draw_around(rng, centres[truth], scales))
    np.save(folder / "truth.npy", np.where(truth < people, truth, -1))
    return Faces(folder, kind, rows)


def _draw_centres(
    rng: np.random.Generator, count: int, scales: NDArray[np.float32], kind: str
) -> NDArray[np.float32]:
    centres = np.empty((count, len(scales)), np.float32)
    groups = _draw_unit(rng, _GROUPS, scales)
    for start in range(0, count, _BLOCK):
        block = centres[start : start + _BLOCK]
        block[:] = _draw_unit(rng, len(block), scales)
        if kind == "clustered":
            block *= np.float32((1 - _GROUP_SHARE) ** 0.5)
            block += np.float32(_GROUP_SHARE**0.5) * groups[rng.integers(0, _GROUPS, len(block))]
            block /= np.linalg.norm(block, axis=1, keepdims=True)
    return centres


def _draw_around(
    rng: np.random.Generator, centres: NDArray[np.float32], scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    kept = rng.normal(*_KEPT, (len(centres), 1)).clip(*_KEPT_LIMITS).astype(np.float32)
    rows = np.sqrt(kept) * centres
    rows += np.sqrt(1 - kept) * _draw_unit(rng, len(centres), scales)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows, np.float32)


def _draw_unit(
    rng: np.random.Generator, count: int, scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, len(scales)), dtype=np.float32) * scales
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
