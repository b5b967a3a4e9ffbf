"""QMUL-SurvFace (Cheng, Zhu and Gong 2018): open-set search of native surveillance faces.

TPIR20@FPIR: the share of mated probes whose person is at or above the threshold AND among the 20
best, at the lowest threshold whose FPIR over the unmated probes does not exceed the target (30, 20,
10 and 1 %). The greatest score of a probe says nothing here, it may be anybody's: taking it for
the person's own inflates the figure. The area under TPIR20 over FPIR joins its points by straight
lines and goes on level to FPIR 1 where failures end the curve before.

1:1: 5,319 mated and 5,319 non-mated pairs, TAR at FAR 30, 10, 1 and 0.1 %, by
`eval.protocol_pairs.compare_pairs`.

Layout of the set's folder:

- `Face_Identification_Test_Set/gallery/`, `mated_probe/`, `unmated_probe/`: pictures such as
  `10002_cam3_1.jpg` (person, camera, number).
- `gallery_img_ID_pairs.mat` (`gallery_set` names, `gallery_ids`) and
  `mated_probe_img_ID_pairs.mat` (`mated_probe_set`, `mated_probe_ids`), in that folder or in
  `Face_Identification_Evaluation/`.
- `Face_Verification_Test_Set/verification_images/` and `positive_pairs_names.mat`,
  `negative_pairs_names.mat` (a table of the same name as the file, two names a row).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.pairs import PairList
from eval.protocol_files import read_mat_names, read_mat_pairs
from eval.protocol_open_set import OpenSetResult, identify_open_set
from eval.protocol_pairs import make_folds
from eval.protocol_results import check_row, check_same_width
from facerec.checks import InputError

FPIRS = (0.3, 0.2, 0.1, 0.01)
PAIR_FARS = (0.3, 0.1, 0.01, 0.001)
RANK = 20
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_PERSON = re.compile(r"^(\d+)_cam")


@dataclass(frozen=True)
class SurvFaceLists:
    """Names and people of the three parts.

    Attributes:
        gallery: pictures, relative to the test set's folder.
        gallery_people: int64, one each.
        mated: pictures of enrolled people.
        mated_people: int64.
        unmated: pictures of people who are not enrolled.
        unmated_people: text, the number in the name; the name where it has none.
        images: the test set's folder.
    """

    gallery: list[str]
    gallery_people: NDArray[np.int64]
    mated: list[str]
    mated_people: NDArray[np.int64]
    unmated: list[str]
    unmated_people: list[str]
    images: Path


def identify_survface(
    gallery: NDArray[Any],
    gallery_people: ArrayLike,
    mated: NDArray[Any],
    mated_people: ArrayLike,
    unmated: NDArray[Any],
    unmated_people: ArrayLike | None = None,
    *,
    gallery_norms: ArrayLike | None = None,
    mated_norms: ArrayLike | None = None,
    unmated_norms: ArrayLike | None = None,
    gallery_rule: str = "mean",
    fpirs: Sequence[float] = FPIRS,
    resamples: int = 1000,
    seed: int = 0,
) -> OpenSetResult:
    """Return TPIR20 at each FPIR, the area under it, and closed-set ranks.

    Args:
        gallery: float (n, d), unit norm; zero is a failure to enrol.
        gallery_people: (n,), whole numbers or text; a person has several rows.
        mated: float (m, d), probes of enrolled people; zero is a failure to acquire.
        mated_people: (m,), each in the gallery.
        unmated: float (k, d), probes of others.
        unmated_people: (k,), whose they are, for the intervals; None: each a person of their own.
        gallery_norms: (n,), raw norms; 0 is a failure.
        mated_norms: (m,).
        unmated_norms: (k,).
        gallery_rule: see `identify_open_set`.
        fpirs: targets in (0, 1].
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: as `identify_open_set`, a mated probe of somebody who is not in the gallery, an
            unmated one of somebody who is.
    """
    owners = check_row(gallery_people, "gallery_people", len(gallery)).astype(np.str_)
    known = check_row(mated_people, "mated_people", len(mated)).astype(np.str_)
    strangers = (
        np.array([f"unmated probe {row}" for row in range(len(unmated))], np.str_)
        if unmated_people is None
        else check_row(unmated_people, "unmated_people", len(unmated)).astype(np.str_)
    )
    _check_parts(owners, known, strangers)
    check_same_width(mated, unmated, ("mated probes", "unmated ones"))
    return identify_open_set(
        np.concatenate([mated, unmated]),
        np.concatenate([known, strangers]),
        gallery,
        owners,
        probe_norms=_join_norms((mated, mated_norms), (unmated, unmated_norms)),
        gallery_norms=gallery_norms,
        gallery_rule=gallery_rule,
        rank=RANK,
        fpirs=fpirs,
        ranks=(1, 5, 20),
        resamples=resamples,
        seed=seed,
        protocol="QMUL-SurvFace 1:N",
    )


def read_survface(root: Path) -> SurvFaceLists:
    """Return the names and people of the 1:N test set.

    Raises:
        InputError: a file or folder is missing or not as described above.
    """
    images = root / "Face_Identification_Test_Set"
    found = {}
    for part in ("gallery", "mated_probe"):
        name = f"{part}_img_ID_pairs.mat"
        places = [images / name, root / "Face_Identification_Evaluation" / name]
        path = next((place for place in places if place.is_file()), places[0])
        names, people = read_mat_names(path, f"{part}_set", f"{part}_ids")
        found[part] = [f"{part}/{name}" for name in names], people
    folder = images / "unmated_probe"
    if not folder.is_dir():
        raise InputError(f"{folder} must be the folder of unmated probes, but is no folder")
    unmated = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES)
    if not unmated:
        raise InputError(f"{folder} holds no picture; without unmated probes there is no FPIR")
    numbers = [_PERSON.match(name) for name in unmated]
    return SurvFaceLists(
        *found["gallery"],
        *found["mated_probe"],
        [f"unmated_probe/{name}" for name in unmated],
        [
            f"unmated {match[1] if match else name}"
            for match, name in zip(numbers, unmated, strict=True)
        ],
        images,
    )


def read_survface_pairs(root: Path) -> PairList:
    """Return the 1:1 pairs, relative to Face_Verification_Test_Set/verification_images.

    The set has no folds: ten runs through each kind of pair are made.

    Raises:
        InputError: a file is missing or not as described above.
    """
    folder = root / "Face_Verification_Test_Set"
    sides: tuple[list[str], list[str]] = ([], [])
    same, folds = [], []
    for kind, mated in (("positive", True), ("negative", False)):
        name = f"{kind}_pairs_names"
        pairs = read_mat_pairs(folder / f"{name}.mat", name)
        for side, names in zip(sides, zip(*pairs, strict=True), strict=True):
            side.extend(names)
        same.append(np.full(len(pairs), mated))
        folds.append(make_folds(len(pairs)))
    return PairList("QMUL-SurvFace 1:1", *sides, np.concatenate(same), np.concatenate(folds))


def _check_parts(
    owners: NDArray[np.str_], mated: NDArray[np.str_], unmated: NDArray[np.str_]
) -> None:
    lost = np.setdiff1d(mated, owners)
    if lost.size:
        raise InputError(
            f"{lost.size} people of the mated probes are not in the gallery (first: {lost[0]}); "
            "give them as unmated"
        )
    both = np.intersect1d(unmated, owners)
    if both.size:
        raise InputError(
            f"{both.size} people of the unmated probes are in the gallery (first: {both[0]}); "
            "their searches are no false alarms"
        )


def _join_norms(*parts: tuple[NDArray[Any], ArrayLike | None]) -> NDArray[np.float64] | None:
    """Return the norms of all parts, 1 where they are not known; None where none are."""
    if all(norms is None for _, norms in parts):
        return None
    return np.concatenate(
        [
            np.ones(len(rows)) if norms is None else np.asarray(norms, np.float64)
            for rows, norms in parts
        ]
    )
