"""Videos against videos: the iQIYI-VID track of the Lightweight Face Recognition challenge, 2019.

All pairs of videos are compared (the challenge's 203,848 make 20.8 billion) and TAR is read at FAR
1e-4. A video is the normalised sum of its frames' unit embeddings (`eval.media.pool_frames`). The
scores are made in blocks; the mated ones and the greatest non-mated ones are kept, which decide
every figure exactly.

Layout: `filelist.txt` names a video a line (its first field), a folder of frames `*.jpg` beside the
list; features go into a matrix, a row a video, in that order (`eval.protocol_files.write_matrix`).
Whose the videos are was never published; a file of labels has a line a video, in the same order.
Track limits: light up to 1 GFLOP and 20 MB, large up to 30 GFLOP, float32, 512 dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.protocol_files import read_lines
from eval.protocol_pair_rates import PairSample, choose_depth
from eval.protocol_results import FAILURE_RULE, Rate, check_faces, check_row, to_plain
from facerec.checks import InputError
from facerec.metrics.exceedances import MOST_PAIRS, collect_pairs

FARS = (1e-3, 1e-4, 1e-5, 1e-6)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_TILE = 1024


@dataclass(frozen=True)
class VideoResult:
    """Figures over all pairs of videos.

    Attributes:
        videos: in all, failures included.
        failed_videos: without any frame that has an embedding.
        people: among all videos.
        pairs: all comparisons, failures included.
        mated: of them, of one person.
        failed_mated: mated ones with a failed video: they count against TAR.
        tar: TAR at each target FAR.
    """

    videos: int
    failed_videos: int
    people: int
    pairs: int
    mated: int
    failed_mated: int
    tar: tuple[Rate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = to_plain(dict(vars(self)))
        return {"protocol": "all pairs of videos", "failure_rule": FAILURE_RULE, **plain}


def compare_videos(
    vectors: NDArray[Any],
    subjects: ArrayLike,
    *,
    norms: ArrayLike | None = None,
    fars: Sequence[float] = FARS,
    resamples: int = 1000,
    seed: int = 0,
) -> VideoResult:
    """Return TAR at each FAR over all pairs of different videos.

    Args:
        vectors: float (v, d), one a video, unit norm; zero is a failure to acquire.
        subjects: (v,), whole numbers or text.
        norms: (v,), raw norms; 0 is a failure.
        fars: targets in (0, 1].
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: as `check_faces`, rows of unequal length, no mated or no non-mated pair, more
            scores to keep than 20 million.
    """
    rows, made = check_faces(vectors, norms, "video embeddings")
    names = check_row(subjects, "subjects", len(rows))
    people, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    pairs = len(rows) * (len(rows) - 1) // 2
    mated = int((counts * (counts - 1) // 2).sum())
    if not mated or mated == pairs:
        kind = "non-mated" if mated else "mated"
        raise InputError(f"of {pairs} pairs of videos none is {kind}; a rate needs some of both")
    own, whose = _score_mated(rows, made, codes, counts)
    sample = _sample_strangers(rows, made, codes, counts, own, whose, pairs - mated, fars)
    return VideoResult(
        videos=len(rows),
        failed_videos=int((~made).sum()),
        people=people.size,
        pairs=pairs,
        mated=mated,
        failed_mated=int(np.isneginf(own).sum()),
        tar=tuple(sample.rates(fars, resamples=resamples, seed=seed)),
    )


def read_video_list(path: Path) -> list[str]:
    """Return the videos of a `filelist.txt`, in order: the first field of each line.

    Raises:
        InputError: missing, empty, or a video named twice.
    """
    videos = [line.split()[0] for line in read_lines(path)]
    if not videos:
        raise InputError(f"{path} names no video")
    if len(set(videos)) != len(videos):
        twice = next(name for row, name in enumerate(videos) if name in videos[:row])
        raise InputError(f"{path} names the video {twice} twice")
    return videos


def list_frames(root: Path, videos: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the frames of each video, relative to `root`, sorted, and which video each is of.

    A video without a frame, or without a folder, has none: it fails later, and is counted.
    """
    frames: list[str] = []
    owners: list[int] = []
    for number, video in enumerate(videos):
        folder = root / video
        names = (
            sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES)
            if folder.is_dir()
            else []
        )
        frames += [f"{video}/{name}" for name in names]
        owners += [number] * len(names)
    return frames, np.array(owners, np.int64)


def read_labels(path: Path, videos: int) -> list[str]:
    """Return whose each video is: a line each.

    Raises:
        InputError: missing, or another number of lines.
    """
    labels = read_lines(path)
    if len(labels) != videos:
        raise InputError(f"{path} must hold a line a video, {videos}, got {len(labels)}")
    return labels


def _score_mated(
    rows: NDArray[np.float32],
    made: NDArray[np.bool_],
    codes: NDArray[np.intp],
    counts: NDArray[np.intp],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the score of each mated pair, -inf for a failure, and whose it is."""
    order = np.argsort(codes, kind="stable")
    starts = np.cumsum(counts) - counts
    scores, whose = [], []
    for person in np.flatnonzero(counts > 1).tolist():
        mine = order[starts[person] : starts[person] + counts[person]]
        for first in range(0, mine.size, _TILE):
            left = mine[first : first + _TILE]
            block = rows[left] @ rows[mine].T
            block[~(made[left, None] & made[None, mine])] = -np.inf
            after = np.arange(mine.size)[None, :] > np.arange(first, first + left.size)[:, None]
            scores.append(block[after])
            whose.append(np.full(int(after.sum()), person))
    return np.concatenate(scores), np.concatenate(whose)


def _sample_strangers(
    rows: NDArray[np.float32],
    made: NDArray[np.bool_],
    codes: NDArray[np.intp],
    counts: NDArray[np.intp],
    own: NDArray[np.float32],
    whose: NDArray[np.int64],
    non_mated: int,
    fars: Sequence[float],
) -> PairSample:
    depth = choose_depth(fars, non_mated)
    if depth > MOST_PAIRS:
        raise InputError(
            f"FAR {max(fars):g} of {non_mated:,} comparisons needs {depth:,} scores kept, more "
            f"than {MOST_PAIRS:,}; ask for a lower one"
        )
    exposed = counts.astype(np.float64)

    def weigh(times: NDArray[np.float64]) -> float:
        drawn = times * exposed
        return float((drawn.sum() ** 2 - (drawn**2).sum()) / 2)

    there = np.unique(codes[made])
    if there.size < 2:
        nobody = np.zeros(0, np.int64)
        top = np.zeros(0, np.float32)
        return PairSample(own, whose, top, nobody, nobody, non_mated, True, counts.size, weigh)
    found = collect_pairs(rows[made], codes[made], depth, weighting="transactions")
    # Numbered among those with an embedding: back to all people.
    second = found.first if found.second is None else found.second
    return PairSample(
        own,
        whose,
        found.scores.astype(np.float32),
        there[found.first],
        there[second],
        non_mated,
        found.floor == -np.inf,
        counts.size,
        weigh,
    )
