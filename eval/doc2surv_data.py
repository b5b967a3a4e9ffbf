"""Documents and surveillance tracks as arrays: one row each, failures among them.

A document or a track without an embedding stays as a row of zeros with its reason, so that it
cannot vanish from a denominator. People are cut into a development and a test half; nobody is in
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.protocol_results import check_faces, check_same_width
from facerec.checks import InputError, check_range, check_whole

DEV, TEST = "dev", "test"
HALVES = (DEV, TEST)
_LEAST_YEAR, _MOST_YEAR = 1850, 2200

Names = NDArray[np.str_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DocumentSet:
    """p documents.

    Attributes:
        vectors: float32 (p, d), unit norm; zeros: a failure to enrol.
        people: (p,), whose each is; never empty. One person may have several.
        names: (p,), what a report calls them, each once.
        halves: (p,), "dev" or "test"; "" everywhere: to be drawn.
        groups: (p,), such as sex and region, "" where not known; impostors are of one group.
        years: float64 (p,), when the picture was taken, NaN where not known.
        hashes: (p,), sha256 of the picture file, "" where not known.
        reasons: (p,), why there is no embedding, "" where there is one.
    """

    vectors: NDArray[np.float32]
    people: Names
    names: Names
    halves: Names
    groups: Names
    years: Floats
    hashes: Names
    reasons: Names

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def made(self) -> NDArray[np.bool_]:
        """Which documents have an embedding, bool (p,)."""
        return _find_made(self.vectors)


@dataclass(frozen=True)
class TrackSet:
    """t tracks; a track is one transaction.

    Attributes:
        vectors: float32 (t, d), unit norm, the track's template; zeros: a failure to acquire.
        people: (t,), whose each is; "" = somebody unknown, who counts as a person of their own.
        names: (t,), each once.
        videos: (t,), file or sequence; unnamed people of one video go to one half.
        cameras: (t,), "" where not known.
        halves: (t,), as those of documents.
        groups: (t,), likewise.
        years: float64 (t,), when it was filmed, NaN where not known.
        sizes_px: float64 (t,), median width of the face box, NaN where not known.
        qualities: float64 (t,), larger is better, NaN where not known.
        hashes: sha256 of the picture files of each track, none for a video.
        reasons: (t,), why there is no template, "" where there is one.
    """

    vectors: NDArray[np.float32]
    people: Names
    names: Names
    videos: Names
    cameras: Names
    halves: Names
    groups: Names
    years: Floats
    sizes_px: Floats
    qualities: Floats
    hashes: tuple[frozenset[str], ...]
    reasons: Names

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def made(self) -> NDArray[np.bool_]:
        """Which tracks have a template, bool (t,)."""
        return _find_made(self.vectors)

    def subjects(self) -> Names:
        """Return each track's person; one without a name is a person of its own."""
        own = np.array([f"\0{name}" for name in self.names.tolist()])
        return np.where(self.people == "", own, self.people)


@dataclass(frozen=True)
class Split:
    """Which half each row belongs to.

    Attributes:
        documents: (p,), "dev" or "test".
        tracks: (t,), likewise.
        drawn: whether the halves were drawn from the seed, and not given.
        seed: of the draw.
    """

    documents: Names
    tracks: Names
    drawn: bool
    seed: int


def build_documents(
    vectors: NDArray[Any],
    people: Sequence[str] | NDArray[Any],
    *,
    names: Iterable[str] | None = None,
    halves: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    years: ArrayLike | None = None,
    hashes: Iterable[str] | None = None,
    failed: Mapping[str, str] | None = None,
) -> DocumentSet:
    """Return checked documents.

    Args:
        vectors: float (p, d), unit norm or zero (a failure to enrol).
        people: (p,).
        names: (p,), "document 0" and so on when None.
        halves: (p,), "dev", "test" or "".
        groups: (p,).
        years: (p,), NaN where not known.
        hashes: (p,), sha256 of the files.
        failed: name -> why there is no embedding; for zero rows only.

    Raises:
        InputError: lengths that differ, a name given twice, NaN or infinity in an embedding, a
            vector that is neither unit nor zero, no person, a half of another name, a year out of
            range, a failure with an embedding.
    """
    rows, _ = check_faces(vectors, None, "document embeddings")
    count = len(rows)
    labels = _texts(names, count, "names of documents", "document")
    found = DocumentSet(
        rows,
        _texts(people, count, "people of documents"),
        _check_unique(labels, "document"),
        _check_halves(_texts(halves, count, "halves of documents")),
        _texts(groups, count, "groups of documents"),
        _check_years(_numbers(years, count, "years of documents")),
        _texts(hashes, count, "hashes of documents"),
        _reasons(rows, labels, failed or {}, "document"),
    )
    nobody = np.flatnonzero(found.people == "")
    if nobody.size:
        raise InputError(
            f"a document must be somebody's, but {str(labels[nobody[0]])!r} has no person; name it"
        )
    return found


def build_tracks(
    vectors: NDArray[Any],
    people: Sequence[str] | NDArray[Any],
    *,
    names: Iterable[str] | None = None,
    videos: Iterable[str] | None = None,
    cameras: Iterable[str] | None = None,
    halves: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    years: ArrayLike | None = None,
    sizes_px: ArrayLike | None = None,
    qualities: ArrayLike | None = None,
    hashes: Sequence[Iterable[str]] | None = None,
    failed: Mapping[str, str] | None = None,
) -> TrackSet:
    """Return checked tracks; arguments as the attributes of `TrackSet`.

    Raises:
        InputError: as `build_documents`; a size that is not positive.
    """
    rows, _ = check_faces(vectors, None, "track templates")
    count = len(rows)
    labels = _texts(names, count, "names of tracks", "track")
    sizes = _numbers(sizes_px, count, "sizes_px")
    if (sizes <= 0).any():
        raise InputError(f"sizes_px must be positive or NaN, got {sizes[sizes <= 0][0]:g}")
    each = [frozenset(one) for one in hashes] if hashes is not None else [frozenset()] * count
    if len(each) != count:
        raise InputError(f"hashes of tracks must be {count}, one set a track, got {len(each)}")
    return TrackSet(
        rows,
        _texts(people, count, "people of tracks"),
        _check_unique(labels, "track"),
        _texts(videos, count, "videos"),
        _texts(cameras, count, "cameras"),
        _check_halves(_texts(halves, count, "halves of tracks")),
        _texts(groups, count, "groups of tracks"),
        _check_years(_numbers(years, count, "years of tracks")),
        sizes,
        _numbers(qualities, count, "qualities"),
        tuple(each),
        _reasons(rows, labels, failed or {}, "track"),
    )


def split_halves(
    documents: DocumentSet, tracks: TrackSet, *, test_share: float = 0.5, seed: int = 0
) -> Split:
    """Return the halves as given, or drawn person by person where none is given.

    Enrolled people and unknown ones are drawn apart, so that each half has its share of both. A
    person's half does not depend on the order of the rows.

    Args:
        documents: p.
        tracks: t.
        test_share: of the people, who go to the test half when the halves are drawn.
        seed: of the draw.

    Raises:
        InputError: dimensions that differ, a person in both halves, halves for some rows only, a
            half without documents or tracks.
    """
    check_range(test_share, "test_share", 0.05, 0.95)
    check_whole(seed, "seed", 0, 2**32 - 1)
    check_same_width(documents.vectors, tracks.vectors, ("documents", "tracks"))
    given = np.concatenate([documents.halves, tracks.halves])
    if (given == "").all():
        split = _draw(documents, tracks, test_share, seed)
    else:
        if (given == "").any():
            row = int(np.flatnonzero(given == "")[0])
            name = str(np.concatenate([documents.names, tracks.names])[row])
            raise InputError(
                f"halves must be given for every row or for none, but {name!r} has none"
            )
        split = Split(documents.halves, tracks.halves, False, seed)
    _check_disjoint(documents, tracks, split)
    for half in HALVES:
        for kind, rows in (("document", split.documents), ("track", split.tracks)):
            if not (rows == half).any():
                raise InputError(
                    f"the {half} half has no {kind}; give more people, another seed or a split"
                )
    return split


def _draw(documents: DocumentSet, tracks: TrackSet, share: float, seed: int) -> Split:
    enrolled = np.unique(documents.people)
    strangers = np.setdiff1d(tracks.people[tracks.people != ""], enrolled)
    unnamed = np.array([f"\0{video}" for video in tracks.videos.tolist()], dtype=str)
    unit = np.where(tracks.people == "", unnamed, tracks.people)
    rng = np.random.default_rng(seed)
    test: list[str] = []
    for units in (enrolled, strangers, np.unique(unit[tracks.people == ""])):
        count = round(share * units.size)
        if units.size > 1:
            count = min(max(count, 1), units.size - 1)
        test += rng.permutation(units)[:count].tolist()
    chosen = np.array(test, dtype=str)

    def place(rows: Names) -> Names:
        return np.where(np.isin(rows, chosen), TEST, DEV)

    return Split(place(documents.people), place(unit), True, seed)


def _check_disjoint(documents: DocumentSet, tracks: TrackSet, split: Split) -> None:
    named = tracks.people != ""
    people = np.concatenate([documents.people, tracks.people[named]])
    halves = np.concatenate([split.documents, split.tracks[named]])
    both = np.intersect1d(people[halves == DEV], people[halves == TEST])
    if both.size:
        raise InputError(
            f"person {str(both[0])!r} is in both halves (and {both.size - 1} more); each person "
            "must be in one: a threshold must not be tried on those it was chosen on"
        )


def _find_made(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    made: NDArray[np.bool_] = np.any(rows, axis=1)
    return made


def _texts(values: Iterable[Any] | None, count: int, name: str, prefix: str = "") -> Names:
    if values is None:
        return np.array([f"{prefix} {i}" if prefix else "" for i in range(count)], dtype=str)
    row = np.array(["" if value is None else str(value) for value in values], dtype=str)
    if row.shape != (count,):
        raise InputError(f"{name} must be {count}, one a row of embeddings, got {row.size}")
    return row


def _numbers(values: ArrayLike | None, count: int, name: str) -> Floats:
    if values is None:
        return np.full(count, np.nan)
    row = np.asarray(values, dtype=np.float64)
    if row.shape != (count,) or np.isinf(row).any():
        raise InputError(f"{name} must be ({count},) numbers or NaN (not known), got {row.shape}")
    return row


def _check_unique(labels: Names, kind: str) -> Names:
    names, counts = np.unique(labels, return_counts=True)
    if names.size < labels.size:
        raise InputError(f"{kind} {str(names[counts > 1][0])!r} is given twice; give it once")
    return labels


def _check_halves(halves: Names) -> Names:
    wrong = ~np.isin(halves, ("", *HALVES))
    if wrong.any():
        raise InputError(f"a half must be dev, test or empty, got {str(halves[wrong][0])!r}")
    return halves


def _check_years(years: Floats) -> Floats:
    wrong = (years < _LEAST_YEAR) | (years > _MOST_YEAR)
    if wrong.any():
        raise InputError(
            f"a year must lie in [{_LEAST_YEAR}, {_MOST_YEAR}], got {years[wrong][0]:g}; parts of "
            "a year are its decimals"
        )
    return years


def _reasons(
    rows: NDArray[np.float32], labels: Names, failed: Mapping[str, str], kind: str
) -> Names:
    made = _find_made(rows)
    for name in failed:
        place = np.flatnonzero(labels == name)
        if not place.size:
            raise InputError(f"the failure {name!r} is no {kind} of the set; give it a zero row")
        if made[place[0]]:
            raise InputError(f"{kind} {name!r} has an embedding, but is named as a failure")
    texts = [
        "" if ok else failed.get(name, "no embedding")
        for ok, name in zip(made.tolist(), labels.tolist(), strict=True)
    ]
    return np.array(texts, dtype=str)
