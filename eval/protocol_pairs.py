"""Lists of pairs: LFW, XQLFW, CALFW, CPLFW, CFP-FP, AgeDB-30 and their `.bin` packs.

Accuracy is that of LFW's protocol (Huang et al. 2007): each fold at the threshold that is most
accurate on the other folds, the mean over folds and its standard deviation. TAR at a FAR uses the
lowest observed score whose FAR does not exceed the target.

Layouts:

- **LFW, XQLFW** (`pairs.txt`, `xqlfw_pairs.txt`): `eval.pairs.read_pairs`.
- **CFP** (Sengupta et al. 2016): `read_cfp`.
- **`.bin` pack** (lfw, cfp_fp, agedb_30, calfw, xqlfw …): `facerec.data.bins.read_bin`; a pack
  has no folds and no names. Folds are ten runs of equal length, as the lists were written; people
  are inferred: pictures of equal bytes are one picture, and mated pairs join pictures.
- **AgeDB** is used as its 30-year pack, or as a CSV of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.pairs import PairList
from eval.protocol_pair_rates import sample_list
from eval.protocol_results import (
    FAILURE_RULE,
    Rate,
    check_faces,
    check_row,
    keep_interval,
    to_plain,
    widen_certain,
)
from facerec.checks import InputError, check_one_of, check_whole
from facerec.metrics.bootstrap import bootstrap_subjects, build_share_statistic
from facerec.metrics.verification import eer, kfold_accuracy

PAIR_FARS = (1e-1, 1e-2, 1e-3, 1e-4)
CFP_KINDS = ("FP", "FF")
_BLOCK = 65_536


@dataclass(frozen=True)
class PairResult:
    """Figures over a list of pairs.

    Attributes:
        name: of the list.
        pairs: comparisons, failures included.
        mated: of them, of one person.
        failed_pairs: with a failure on at least one side.
        faces: pictures in all.
        failed_faces: pictures without an embedding.
        people: how many the intervals draw from, None where they are not known.
        accuracy: mean over folds.
        accuracy_std: standard deviation over folds (division by their number).
        folds: (number, accuracy, threshold) of each fold.
        tar: TAR at each target FAR.
        eer: equal error rate.
        note: how the people are known, or why they are not.
    """

    name: str
    pairs: int
    mated: int
    failed_pairs: int
    faces: int
    failed_faces: int
    people: int | None
    accuracy: Rate
    accuracy_std: float
    folds: tuple[tuple[int, float, float], ...]
    tar: tuple[Rate, ...]
    eer: float
    note: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = to_plain(dict(vars(self)))
        plain["folds"] = [
            {"fold": fold, "accuracy": accuracy, "threshold": threshold}
            for fold, accuracy, threshold in self.folds
        ]
        return {"protocol": "pairs", "failure_rule": FAILURE_RULE, **plain}


def compare_pairs(
    vectors: NDArray[Any],
    first: ArrayLike,
    second: ArrayLike,
    same: ArrayLike,
    *,
    norms: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    people: ArrayLike | None = None,
    note: str = "",
    name: str = "pairs",
    fars: Sequence[float] = PAIR_FARS,
    resamples: int = 1000,
    seed: int = 0,
) -> PairResult:
    """Return accuracy by folds, TAR at each FAR and the equal error rate of listed pairs.

    Args:
        vectors: float (n, d), unit norm; zero is a failure to acquire.
        first: int (p,), position of each pair's first face.
        second: int (p,).
        same: bool (p,).
        norms: (n,), raw norms; 0 is a failure.
        folds: int (p,); None: ten runs of equal length.
        people: (n,), whose each face is, for the intervals; None: not known, no intervals.
        note: how the people are known.
        name: of the list.
        fars: targets in (0, 1].
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: as `check_faces`, positions outside the faces, a face compared with itself,
            rows of unequal length, people that contradict `same`, only one kind of pair.
    """
    rows, made = check_faces(vectors, norms)
    a, b, labels = check_pairs(first, second, same, len(rows))
    numbers = make_folds(labels.size) if folds is None else np.asarray(folds)
    scores = score_listed(rows, made, a, b)
    accuracy = kfold_accuracy(scores, labels, numbers)
    places = np.searchsorted(accuracy.folds, numbers)
    right = (scores >= accuracy.thresholds[places]) == labels
    codes = None
    if people is not None:
        _, codes = np.unique(check_row(people, "people", len(rows)), return_inverse=True)
        check_labels(codes[a], codes[b], labels)
    mean = Rate("accuracy", accuracy.mean, trials=labels.size)
    if codes is not None and resamples:
        share = build_share_statistic(right)
        found = bootstrap_subjects(share, codes[a], codes[b], resamples=resamples, seed=seed)
        mean = widen_certain(replace(mean, interval=keep_interval(found[0])), codes[a])
    sample = sample_list(scores, labels, None if codes is None else (codes[a], codes[b]), fars)
    triples = zip(accuracy.folds, accuracy.accuracies, accuracy.thresholds, strict=True)
    return PairResult(
        name=name,
        pairs=labels.size,
        mated=int(labels.sum()),
        failed_pairs=int(np.isneginf(scores).sum()),
        faces=len(rows),
        failed_faces=int((~made).sum()),
        people=None if codes is None else int(np.unique(codes[np.concatenate([a, b])]).size),
        accuracy=mean,
        accuracy_std=accuracy.std,
        folds=tuple((fold, float(value), float(at)) for fold, value, at in triples),
        tar=tuple(sample.rates(fars, resamples=resamples, seed=seed)),
        eer=eer(scores, labels),
        note=note or ("people as given" if codes is not None else "people are not known"),
    )


def score_listed(
    rows: NDArray[np.float32],
    made: NDArray[np.bool_],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the cosine of each listed pair, float32 (p,), in blocks; -inf for a failure."""
    scores = np.empty(first.size, np.float32)
    for start in range(0, first.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = np.einsum("nd,nd->n", rows[first[part]], rows[second[part]])
    scores[~(made[first] & made[second])] = -np.inf
    return scores


def make_folds(pairs: int, count: int = 10) -> NDArray[np.int64]:
    """Return the fold of each pair, int64 from 1: runs as equal as they can be, longer ones first.

    Raises:
        InputError: fewer pairs than folds.
    """
    check_whole(count, "folds", 2, 10**6)
    if pairs < count:
        raise InputError(f"{count} folds need at least {count} pairs, got {pairs}")
    sizes = np.full(count, pairs // count)
    sizes[: pairs % count] += 1
    return np.repeat(np.arange(1, count + 1), sizes)


def check_pairs(
    first: ArrayLike, second: ArrayLike, same: ArrayLike, faces: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the positions of both sides and the labels of listed pairs.

    Raises:
        InputError: lengths that differ, positions that are no whole numbers or outside the faces,
            a face compared with itself, labels other than 0 and 1.
    """
    a, b, labels = np.asarray(first), np.asarray(second), np.asarray(same)
    if not (a.ndim == 1 and a.shape == b.shape == labels.shape and a.size):
        raise InputError(
            "first, second and same must be rows of equal length with at least one pair, got "
            f"{a.shape}, {b.shape} and {labels.shape}"
        )
    for side, name in ((a, "first"), (b, "second")):
        if side.dtype.kind not in "iu" or side.min() < 0 or side.max() >= faces:
            raise InputError(f"{name} must hold positions in [0, {faces - 1}] of the embeddings")
    if not np.isin(labels, (0, 1)).all():
        raise InputError("same must hold only 0 and 1 (1 = one person)")
    itself = np.flatnonzero(a == b)
    if itself.size:
        raise InputError(
            f"pair {itself[0]} compares face {a[itself[0]]} with itself; a comparison needs two"
        )
    return a.astype(np.int64), b.astype(np.int64), labels.astype(np.bool_)


def check_labels(
    first: NDArray[np.int64], second: NDArray[np.int64], same: NDArray[np.bool_]
) -> None:
    """Raise InputError if people contradict the labels of their pairs."""
    wrong = np.flatnonzero((first == second) != same)
    if wrong.size:
        says = "one person" if same[wrong[0]] else "two people"
        raise InputError(
            f"{wrong.size} of {same.size} pairs contradict the people given (first: pair "
            f"{wrong[0]} is labelled {says}); are people and pairs of one set?"
        )


def join_people(
    first: NDArray[np.int64], second: NDArray[np.int64], same: NDArray[np.bool_], faces: int
) -> tuple[NDArray[np.int64] | None, str]:
    """Return people inferred from mated pairs, int64 (faces,), and a note on how.

    Mated pairs join faces; a face without one is a person of its own. Someone whose faces are in
    no common pair counts as two people, so intervals may be a little too narrow, never too wide.
    None where a non-mated pair lies within one person: the labels contradict each other.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(int(same.sum()), np.bool_)
    graph = coo_matrix((ones, (first[same], second[same])), shape=(faces, faces))
    codes = connected_components(graph, directed=False)[1].astype(np.int64)
    if (codes[first] == codes[second])[~same].any():
        return None, "people are not known: the labels join both sides of a non-mated pair"
    return codes, "people as mated pairs join their faces"


def read_cfp(root: Path, kind: str = "FP") -> PairList:
    """Return the pairs of CFP: Celebrities in Frontal-Profile (Sengupta et al. 2016).

    Layout: `Protocol/Pair_list_F.txt` and `Pair_list_P.txt`, a line `NUMBER PATH` with a path such
    as `../Data/Images/001/frontal/01.jpg`; `Protocol/Split/FP/01/same.txt` and `diff.txt` (FF for
    frontal against frontal), a line `A,B` of numbers, A in the frontal list and B in the profile
    list (FF: both frontal). Ten splits of 350 mated and 350 non-mated pairs.

    Args:
        root: the folder that holds Protocol and Data.
        kind: "FP" or "FF".

    Returns:
        Paths relative to `root`/Data/Images: NUMBER/frontal/01.jpg, the person two folders up.

    Raises:
        InputError: a file is missing, or a line is not as described.
    """
    check_one_of(kind, "kind", CFP_KINDS)
    frontal = _read_numbered(root / "Protocol" / "Pair_list_F.txt")
    other = frontal if kind == "FF" else _read_numbered(root / "Protocol" / "Pair_list_P.txt")
    splits = root / "Protocol" / "Split" / kind
    folders = (
        sorted(entry for entry in splits.iterdir() if entry.is_dir()) if splits.is_dir() else []
    )
    if not folders:
        raise InputError(f"{splits} must hold a folder a split (01 to 10), but holds none")
    sides: tuple[list[str], list[str]] = ([], [])
    same, folds = [], []
    for fold, folder in enumerate(folders, start=1):
        for file, mated in (("same.txt", True), ("diff.txt", False)):
            for line, text in enumerate(_read_lines(folder / file), start=1):
                numbers = text.split(",")
                if len(numbers) != 2 or not all(n.strip().isdigit() for n in numbers):
                    raise InputError(
                        f"{folder / file}, line {line}: expected `A,B` of two numbers, got {text!r}"
                    )
                for side, number, names in zip(sides, numbers, (frontal, other), strict=True):
                    if int(number) not in names:
                        raise InputError(
                            f"{folder / file}, line {line}: number {int(number)} is in no list"
                        )
                    side.append(names[int(number)])
                same.append(mated)
                folds.append(fold)
    return PairList(f"CFP-{kind}", *sides, np.array(same, np.bool_), np.array(folds, np.int64))


def _read_numbered(path: Path) -> dict[int, str]:
    names = {}
    for line, text in enumerate(_read_lines(path), start=1):
        fields = text.split()
        if len(fields) != 2 or not fields[0].isdigit():
            raise InputError(f"{path}, line {line}: expected `NUMBER PATH`, got {text!r}")
        names[int(fields[0])] = "/".join(Path(fields[1]).parts[-3:])
    return names


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist; check the folder given") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
