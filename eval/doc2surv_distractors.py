"""Galleries that grow: strangers' embeddings beside a half's own documents, searched exactly.

The gallery of N people holds the half's enrolled people and N minus so many distractors. The
development half takes them from one end of an order drawn from the seed and the test half from the
other, so that a threshold is tried on distractors that did not choose it while there are enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_data import DEV
from eval.doc2surv_scores import Half, Labels, Scores, TrackScores
from eval.protocol_files import read_features
from facerec.checks import InputError
from facerec.progress import Progress

_BLOCK = 8192
_TRACKS = 1024
_KINDS = (".npy", ".npz", ".bin")


@dataclass(frozen=True)
class Distractors:
    """Embeddings of m people, one each, who are in no document and no track.

    Attributes:
        vectors: float32 (m, d), unit norm; may be a memory map.
        order: int64 (m,), drawn from the seed.
    """

    vectors: NDArray[Any]
    order: Labels

    def __len__(self) -> int:
        return len(self.order)

    def take(self, half: str, count: int) -> Labels:
        """Return the rows that a half's gallery takes, int64 (count,)."""
        return self.order[:count] if half == DEV else self.order[::-1][:count]


def build_distractors(vectors: NDArray[Any], seed: int = 0) -> Distractors:
    """Return distractors in an order drawn from the seed.

    Args:
        vectors: floating (m, d), unit norm; checked block by block when they are searched.
        seed: of the order.

    Raises:
        InputError: not a matrix of numbers.
    """
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(f"distractors must be floating (m, d), got {vectors.dtype} "
                         f"{vectors.shape}")  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(vectors)).astype(np.int64)
    return Distractors(vectors, order)


def read_distractors(path: Path, seed: int = 0) -> Distractors:
    """Return the distractors in a file of embeddings or in all such files of a folder.

    A `.npy` of float32 unit vectors is mapped, not read: a million of them need no memory.

    Args:
        path: `.npy` (m, d), `.npz` with `vectors`, a `.bin` feature matrix, or a folder of these.
        seed: of their order.

    Raises:
        InputError: nothing there, another kind of file, or files of different dimensions.
    """
    if not path.is_dir():
        return build_distractors(_read(path), seed)
    files = sorted(one for one in path.iterdir() if one.suffix in _KINDS)
    if not files:
        raise InputError(f"{path} must hold embeddings ({', '.join(_KINDS)}), but holds none")
    parts = [_read(one) for one in files]
    dims = {one.shape[1]: file for one, file in zip(parts, files, strict=True)}
    if len(dims) > 1:
        (first, a), (second, b) = list(dims.items())[:2]
        raise InputError(
            f"distractors must be of one model, but {a.name} has {first} dimensions and {b.name} "
            f"{second}"
        )
    return build_distractors(parts[0] if len(parts) == 1 else np.concatenate(parts), seed)


def grow_gallery(
    half: Half,
    name: str,
    scores: TrackScores,
    distractors: Distractors,
    sizes: Sequence[int],
    most_alike: float,
) -> dict[int, TrackScores]:
    """Return what the tracks find in galleries of each size, by exact search.

    Args:
        half: its gallery is part of each.
        name: "dev" or "test".
        scores: in the gallery without distractors.
        distractors: enough for the greatest size.
        sizes: people of the galleries, rising, none below the half's own.
        most_alike: a distractor that resembles a track more is the same picture; above 1 any may.

    Raises:
        InputError: a distractor is NaN, of another dimension, no unit vector, or one of the tracks'
            pictures.
    """
    if distractors.vectors.shape[1] != half.vectors.shape[1]:
        raise InputError(
            f"distractors have {distractors.vectors.shape[1]} dimensions and documents "
            f"{half.vectors.shape[1]}; were they made by two models?"
        )
    wanted = [size - half.enrolled.size for size in sizes]
    best, ahead = scores.best.copy(), scores.ahead.copy()
    grown: dict[int, TrackScores] = {}
    rows = distractors.take(name, wanted[-1])
    with Progress(f"{name} distractors", len(rows), "people") as progress:
        done = 0
        for size, count in zip(sizes, wanted, strict=True):
            for block in iter_rows(distractors.vectors, rows[done:count]):
                _add_block(half, scores.own, block, best, ahead)
                if best.size and float(best.max()) >= most_alike:
                    track = int(np.argmax(best))
                    raise InputError(
                        f"a distractor resembles a track with cosine {best[track]:.4f} (track row "
                        f"{half.track_rows[track]}): it must be nobody of the set; remove it, or "
                        "allow overlap"
                    )
                progress.advance(len(block))
            done = max(done, count)
            grown[size] = TrackScores(scores.own, best.copy(), ahead.copy(), scores.worst)
    return grown


def iter_rows(vectors: NDArray[Any], rows: Labels) -> Iterator[NDArray[np.float32]]:
    """Yield checked unit vectors of some rows, float32 (b, d), in the rows' order.

    Raises:
        InputError: a row is not finite or has no unit norm.
    """
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        sequence = np.argsort(part)  # a memory map reads forwards
        block = np.empty((len(part), vectors.shape[1]), np.float32)
        block[sequence] = vectors[part[sequence]]
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = ~(np.abs(lengths - 1) <= 1e-3)
        if wrong.any():
            row = int(part[np.flatnonzero(wrong)[0]])
            raise InputError(
                f"distractors must be finite and of unit norm, but row {row} has norm "
                f"{lengths[wrong][0]:.4g}; divide each row by its norm"
            )
        yield block


def _add_block(
    half: Half, own: Scores, block: NDArray[np.float32], best: Scores, ahead: Labels
) -> None:
    """Take a block of distractors into best and ahead; equal scores rank behind one's own."""
    wide = block.astype(np.float64).T
    for start in range(0, len(half.templates), _TRACKS):
        part = slice(start, start + _TRACKS)
        scores = (half.templates[part].astype(np.float64) @ wide).astype(np.float32)
        scores[~half.acquired[part]] = -np.inf
        best[part] = np.maximum(best[part], scores.max(axis=1))
        ahead[part] += (scores > own[part, None]).sum(axis=1)


def _read(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy" and path.is_file():
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path} must be .npy of embeddings: {error}") from None
        if mapped.ndim == 2 and mapped.dtype == np.float32:
            return np.asanyarray(mapped)
    vectors, norms = read_features(path)
    return vectors[norms > 0]
