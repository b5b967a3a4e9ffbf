"""One answer a probe: ranked, accepted or unknown, and written to the log before it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_range
from facerec.gallery.index import Ranked
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.normalisation import STRANGER_MARGIN, StrangerScreen, apply_strangers
from facerec.gallery.results import (
    IDENTIFICATION,
    INVESTIGATION,
    Answer,
)
from facerec.gallery.samples import hash_vectors
from facerec.gallery.schema import check_person
from facerec.gallery.searching import View
from facerec.gallery.store import NORMALISATION, Store
from facerec.structures import Match

if TYPE_CHECKING:
    from facerec.gallery.gallery import Gallery

_MAX_SCORE = 1000.0
"""Beyond any normalised score; a cosine ends at 1."""


def check_limit(store: Store, top: int, threshold: float | None) -> float:
    """Return the threshold of a search: as given, or the collection's.

    Raises:
        InputError: top is below 1, or the threshold is no score, or there is none.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    if threshold is None:
        return store.read_threshold()
    bound = 1.0 if store.read_setting(NORMALISATION, "none") == "none" else _MAX_SCORE
    return check_range(threshold, "threshold", -bound, bound)


def answer_probes(
    gallery: Gallery,
    vectors: NDArray[np.float32],
    top: int,
    threshold: float | None,
    probes: Sequence[str] | None,
    sources: Sequence[str] | None,
    people: Sequence[str] | None,
    investigate: bool,
    exact: bool,
    purpose: str,
) -> list[Answer]:
    """Return one answer a probe; see `Gallery.search`."""
    store = gallery.store
    shas = probes if probes is not None else hash_vectors(vectors)
    origins = sources if sources is not None else [""] * len(vectors)
    if not len(shas) == len(origins) == len(vectors):
        raise InputError(f"probes and sources must have length {len(vectors)}")
    view = gallery.searcher.look()
    limit, fpir = None, None
    if not investigate:
        limit, fpir = _choose_limit(store, view, top, threshold)
    elif top < 1 or threshold is not None:
        raise InputError("an investigation takes top of at least 1 and no threshold")
    among = None if people is None else _find_rows(view, people)
    exact = exact or limit is None or limit < _find_floor(view)
    # Strangers take places of the ranking without being candidates.
    ranked = view.rank(vectors, top + min(len(view.strangers), top), exact, among)
    screen = _screen(view, ranked, limit)
    answers, logged = [], []
    for row in range(len(vectors)):
        answer, candidates, person = _build(view, ranked, row, top, limit, fpir, screen)
        answers.append(answer)
        logged.append((candidates, person, answer.note))
    common: dict[str, Any] = {
        "top": top,
        "threshold": limit,
        "mode": INVESTIGATION if investigate else IDENTIFICATION,
        "gallery_version": view.version,
        "index": "exact" if exact else view.index.name,
    }
    if among is not None:
        common["among"] = sorted(view.names[row][1] for row in among.tolist())
    with store.logging() as connection:
        for sha, origin, (candidates, person, note) in zip(shas, origins, logged, strict=True):
            details = {
                **common,
                "probe": sha,
                "source": origin,
                "person": person,
                "candidates": candidates,
                "note": note,
            }
            store.log(connection, "search", details, gallery.operator, purpose)
    return answers


def _choose_limit(
    store: Store, view: View, top: int, threshold: float | None
) -> tuple[float, float | None]:
    own = view.threshold
    if threshold is None and own is not None and top >= 1:
        return own.value, view.fpir
    limit = check_limit(store, top, threshold)
    return limit, view.fpir if own is not None and limit == own.value else None


def _find_floor(view: View) -> float:
    """Return the score below which the index may miss somebody; then it is scanned."""
    if view.normaliser is None and isinstance(view.index, CompressedIndex):
        return view.index.floor
    return -np.inf


def _find_rows(view: View, people: Sequence[str]) -> NDArray[np.int64]:
    wanted = {check_person(name) for name in people}
    rows = {name: row for row, (name, _) in view.names.items() if name in wanted}
    missing = sorted(wanted - rows.keys())
    if missing:
        raise InputError(f"nobody called {missing[0]!r} is in the collection; see the list")
    return np.array(sorted(rows.values()), np.int64)


def _screen(view: View, ranked: Ranked, limit: float | None) -> StrangerScreen | None:
    """Return what known strangers leave of the rankings, None where there are none."""
    if not view.strangers or limit is None:
        return None
    margin = STRANGER_MARGIN
    if view.normaliser is not None:  # in deviations: that of a cohort is about a tenth of a cosine
        margin = 10 * STRANGER_MARGIN
    return apply_strangers(ranked, limit, view.strangers, margin)


def _build(
    view: View,
    ranked: Ranked,
    row: int,
    top: int,
    limit: float | None,
    fpir: float | None,
    screen: StrangerScreen | None,
) -> tuple[Answer, list[list[Any]], str | None]:
    """Return an answer, and for the log its candidates and its person by uid."""
    found: list[tuple[float, str, str]] = []
    note = screen.reasons[row] if screen is not None else ""
    candidates: list[list[Any]] = []
    for score, owner in zip(ranked.scores[row].tolist(), ranked.owners[row].tolist(), strict=True):
        if owner not in view.names:  # nobody, or erased while this search ran
            continue
        name, uid = view.names[owner]
        if owner not in view.strangers and len(found) < top:
            found.append((score, name, uid))
            candidates.append([uid, round(score, 6)])
        elif screen is not None and owner == screen.strangers[row]:
            candidates.append([uid, round(score, 6), "stranger"])
    matches = [
        Match(name, score, rank, limit is not None and not note and score >= limit)
        for rank, (score, name, _) in enumerate(found, start=1)
    ]
    known = bool(matches) and matches[0].accepted
    margin = found[0][0] - found[1][0] if len(found) > 1 else None
    kind = "none" if view.normaliser is None else view.normaliser.kind
    mode = INVESTIGATION if limit is None else IDENTIFICATION
    answer = Answer(
        matches[0].person if known else None, matches, limit, mode, fpir, margin, note, kind
    )
    return answer, candidates, found[0][2] if known else None
