"""Is this who it is said to be? New samples of a person against everybody else in the gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_one_of, check_range
from facerec.gallery.index import NOBODY, VectorIndex

CHECK_MODES = ("off", "warn", "strict")
"""off: nothing is looked at; warn: what is found is said; strict: such samples are refused."""

OK = "ok"
SAME_PICTURE = "same picture"
WRONG_PERSON = "wrong person"
DUPLICATE_IDENTITY = "duplicate identity"
OUTLIER = "outlier"

IDENTITY_COSINE = 0.5
"""From which two faces count as one person, where the collection has no calibrated threshold.

Each sample is held against everybody, so that this must bear thousands of comparisons: a threshold
of one comparison would find a double for every third stranger."""

PICTURE_COSINE = 0.95
"""From which two samples are nearly the same picture; two pictures of a person are below it."""

OWN_COSINE = 0.3
"""What a sample should reach with one of the person's others; strangers hardly do."""

_CANDIDATES = 5


@dataclass(frozen=True)
class Examination:
    """What n new samples of a person look like.

    Attributes:
        verdicts: one a sample: OK, SAME_PICTURE, WRONG_PERSON, DUPLICATE_IDENTITY or OUTLIER.
        texts: one a sample: what was found with its figures, "" when OK.
        own: float64 (n,), best cosine to the person's other samples, NaN = there are none.
        other: float64 (n,), best cosine to anybody else, NaN = there is nobody.
        others: int64 (n,), who that is, NOBODY = nobody.
        duplicates: whom the person as a whole may be, with the cosine that most samples reach,
            the most alike first.
    """

    verdicts: tuple[str, ...]
    texts: tuple[str, ...]
    own: NDArray[np.float64]
    other: NDArray[np.float64]
    others: NDArray[np.int64]
    duplicates: tuple[tuple[int, float], ...]

    def apply(self, mode: str) -> tuple[list[str], list[str]]:
        """Return why each sample is refused and what is only said of it, "" for nothing.

        Args:
            mode: one of CHECK_MODES.
        """
        check_one_of(mode, "check", CHECK_MODES)
        nothing, texts = [""] * len(self.texts), list(self.texts)
        if mode == "off":
            return nothing, list(nothing)
        return (texts, nothing) if mode == "strict" else (nothing, texts)


@dataclass(frozen=True)
class CheckLimits:
    """Cosines that the checks ask for, each in [-1, 1].

    Attributes:
        identity: from which two faces count as one person: the collection's threshold.
        picture: from which two samples are nearly the same picture.
        own: what a sample should reach with at least one of the person's others.
    """

    identity: float = IDENTITY_COSINE
    picture: float = PICTURE_COSINE
    own: float = OWN_COSINE

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_range(value, f"{name} cosine of the enrolment check", -1, 1)


def check_samples(
    index: VectorIndex,
    vectors: NDArray[np.float32],
    *,
    name: str,
    owner: int | None = None,
    held: NDArray[np.float32] | None = None,
    names: Mapping[int, str] | None = None,
    threshold: float | None = None,
) -> list[str]:
    """Return one text a new sample, "" when nothing speaks against it; see `examine_samples`."""
    limits = CheckLimits() if threshold is None else CheckLimits(identity=threshold)
    found = examine_samples(
        index, vectors, name=name, owner=owner, held=held, names=names, limits=limits
    )
    return list(found.texts)


def examine_samples(
    index: VectorIndex,
    vectors: NDArray[np.float32],
    *,
    name: str,
    owner: int | None = None,
    held: NDArray[np.float32] | None = None,
    names: Mapping[int, str] | None = None,
    limits: CheckLimits | None = None,
) -> Examination:
    """Compare new samples with the person's others and with everybody else in the gallery.

    In this order, the first that holds is a sample's verdict:

    - SAME_PICTURE: nearly the same as a sample of somebody else; one picture under two names.
    - WRONG_PERSON: somebody else is at or above the identity cosine, and nearer than the person's
      own samples. Own samples that point at that somebody too do not vouch for it.
    - DUPLICATE_IDENTITY: more than half of the person's samples, new and held, are at or above the
      identity cosine with the same other person: the two may be one.
    - OUTLIER: below the own cosine to each of the person's other samples. Of two that disagree
      both are named, because nothing tells which one is wrong.

    The only sample of a new person has no others, so that only the first and third can hold.

    Args:
        index: of the gallery; answers are asked for exactly.
        vectors: float32 (n, d), unit norm, the new samples.
        name: the person's.
        owner: the person's number in the index, None when new.
        held: float32 (h, d), the samples that the person has, None when there are none.
        names: owner -> name, for the texts.
        limits: the cosines asked for, the defaults when None.

    Raises:
        InputError: arrays that do not fit, or `held` without `owner`.
    """
    check_embeddings(vectors, "enrolment samples", index.dim)
    old = np.zeros((0, index.dim), np.float32) if held is None else held
    check_embeddings(old, "held samples", index.dim)
    if len(old) and owner is None:
        raise InputError("held samples are those of a person in the gallery; give owner too")
    every = np.concatenate([vectors, old])
    rule = limits or CheckLimits()
    other, others, duplicates = _compare_others(index, every, owner, rule.identity)
    # Whom a sample points at, unless the person as a whole does, which is another matter.
    points = np.where(other >= rule.identity, others, NOBODY)
    points[np.isin(points, [number for number, _ in duplicates])] = NOBODY
    own = _compare_own(every, points)[: len(vectors)]
    wording = _Wording(name, names or {}, len(every) - 1, rule, duplicates)
    verdicts, texts = [], []
    for mine, theirs, who in zip(own, other, others, strict=False):  # the new ones come first
        verdict, text = wording.judge(float(mine), float(theirs), int(who))
        verdicts.append(verdict)
        texts.append(text)
    new = slice(len(vectors))
    return Examination(tuple(verdicts), tuple(texts), own, other[new], others[new], duplicates)


def _compare_others(
    index: VectorIndex, every: NDArray[np.float32], owner: int | None, identity: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[tuple[int, float], ...]]:
    """Return each sample's best cosine to anybody else, who that is, and whom the person may be.

    Args:
        index: of the gallery.
        every: float32 (s, d), all samples of the person.
        owner: who is not anybody else, None for a new person.
        identity: cosine.
    """
    best, who = np.full(len(every), np.nan), np.full(len(every), NOBODY, np.int64)
    if not len(every) or not len(index):
        return best, who, ()
    found = index.search(every, _CANDIDATES + 1, exact=True)
    usable = found.owners != NOBODY
    if owner is not None:
        usable &= found.owners != owner
    rows, first = np.arange(len(every)), np.argmax(usable, axis=1)
    any_other = usable.any(axis=1)
    best[any_other] = found.scores[rows, first][any_other]
    who[any_other] = found.owners[rows, first][any_other]
    likely = np.unique(found.owners[usable & (found.scores >= identity)])
    if not len(likely):
        return best, who, ()
    # Everybody of these against every sample: a person may be second or tenth for some of them.
    found = index.search(every, len(likely), exact=True, people=likely)
    scores = np.full((len(every), len(likely)), -np.inf)
    columns = np.searchsorted(likely, found.owners)
    there = found.owners != NOBODY
    scores[np.nonzero(there)[0], columns[there]] = found.scores[there]
    # What more than half of the samples reach.
    reached = -np.sort(-scores, axis=0)[len(every) // 2]
    order = np.lexsort((likely, -reached))
    duplicates = tuple((int(likely[i]), float(reached[i])) for i in order if reached[i] >= identity)
    return best, who, duplicates


def _compare_own(every: NDArray[np.float32], points: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each sample's best cosine to the others that may vouch for it, NaN = none.

    Args:
        every: float32 (s, d), all samples of the person.
        points: int64 (s,), whom each points at, NOBODY = at nobody else.
    """
    wide = every.astype(np.float64)
    near = (wide @ wide.T).astype(np.float32).astype(np.float64)
    accomplices = (points[:, None] == points) & (points != NOBODY)
    near[accomplices] = -np.inf
    np.fill_diagonal(near, -np.inf)
    own = near.max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(own), np.nan, own)


@dataclass(frozen=True)
class _Wording:
    """Turns a sample's figures into a verdict and one sentence."""

    name: str
    names: Mapping[int, str]
    siblings: int
    limits: CheckLimits
    duplicates: tuple[tuple[int, float], ...]

    def judge(self, own: float, other: float, who: int) -> tuple[str, str]:
        """Return verdict and text of a sample; `own` and `other` are NaN where there is none."""
        limits, stands_for = self.limits, {number for number, _ in self.duplicates}
        somebody = self.names.get(who, f"person {who}")
        if other >= limits.picture:
            return SAME_PICTURE, f"nearly the same picture as one of {somebody} ({other:.2f})"
        if other >= limits.identity and who not in stands_for and not own >= other:
            than = "" if np.isnan(own) else f" than like {self.name} ({own:.2f})"
            return WRONG_PERSON, f"more like {somebody} ({other:.2f}){than}"
        if self.duplicates:
            number, score = self.duplicates[0]
            text = f"{self.name} may be {self.names.get(number, f'person {number}')}: "
            return DUPLICATE_IDENTITY, f"{text}{score:.2f}, threshold {limits.identity:.2f}"
        if own < limits.own:
            others = "the only other sample" if self.siblings == 1 else "all other samples"
            text = f"unlike {others} of {self.name} "
            return OUTLIER, f"{text}(best {own:.2f}, at least {limits.own:.2f} asked)"
        return OK, ""
