"""IJB-B and IJB-C (Whitelam et al. 2017, Maze et al. 2018): templates, 1:1 and 1:N.

1:1: listed pairs of templates (IJB-C: 19,557 mated and 15,638,932 non-mated), TAR at FAR 1e-6 to
1e-1, each at the lowest threshold whose FAR does not exceed the target.

1:N: two galleries of different people, searched apart. In each search the probes of the other
gallery's people are the non-mated ones, and FPIR is defined over them alone (ISO/IEC 19795-1); each
search has its own threshold; a figure is the mean of the two. Merging the galleries would leave no
non-mated probe and no FPIR.

A template without any embedding is a failure: of a gallery to enrol, of a probe to acquire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.media import Templates
from eval.protocol_pair_rates import sample_list
from eval.protocol_pairs import check_labels, check_pairs, join_people, score_listed
from eval.protocol_results import FAILURE_RULE, Draws, Rate, check_row, to_plain
from eval.protocol_search import Search, search_gallery
from eval.protocol_search_rates import measure_ranks, measure_tpir
from facerec.checks import InputError

VERIFICATION_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
SEARCH_FPIRS = (1e-1, 1e-2, 1e-3)
SEARCH_RANKS = (1, 5, 10)


@dataclass(frozen=True)
class TemplateList:
    """Templates and whose they are.

    Attributes:
        name: of the list, such as "G1".
        template_ids: (t,), each once.
        subjects: (t,).
    """

    name: str
    template_ids: NDArray[Any]
    subjects: NDArray[Any]

    def __post_init__(self) -> None:
        count = len(np.asarray(self.template_ids))
        if not count:
            raise InputError(f"{self.name} holds no template")
        for field in ("template_ids", "subjects"):
            name = f"{field} of {self.name}"
            object.__setattr__(self, field, check_row(getattr(self, field), name, count))
        ids, times = np.unique(self.template_ids, return_counts=True)
        if (times > 1).any():
            raise InputError(
                f"{self.name} lists template {ids[np.argmax(times)]} {times.max()} times; "
                "each may stand once"
            )


@dataclass(frozen=True)
class TemplateVerification:
    """1:1 figures over listed pairs of templates.

    Attributes:
        templates: in the pairs.
        failed_templates: of them, without an embedding.
        faces: of the templates in the pairs.
        failed_faces: of them, without an embedding.
        pairs: in all.
        mated: of them, of one person.
        failed_pairs: with a failed template.
        people: how many the intervals draw from, None where they are not known.
        tar: TAR at each target FAR.
        note: how the people are known, or why they are not.
    """

    templates: int
    failed_templates: int
    faces: int
    failed_faces: int
    pairs: int
    mated: int
    failed_pairs: int
    people: int | None
    tar: tuple[Rate, ...]
    note: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = to_plain(dict(vars(self)))
        return {"protocol": "templates 1:1", "failure_rule": FAILURE_RULE, **plain}


@dataclass(frozen=True)
class TemplateIdentification:
    """1:N figures; each is the mean over the galleries.

    Attributes:
        searches: what was found in each gallery.
        ranks: closed-set identification at each rank, over mated probes.
        tpir: at each target FPIR: the mean, then each gallery's own.
        rank: R, the length of the candidate list of `tpir`; None = all.
    """

    searches: tuple[Search, ...]
    ranks: tuple[Rate, ...]
    tpir: tuple[tuple[Rate, ...], ...]
    rank: int | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        names = [search.gallery for search in self.searches]
        return {
            "protocol": "templates 1:N, galleries searched apart, figures averaged",
            "failure_rule": FAILURE_RULE,
            "galleries": to_plain(self.searches),
            "candidate_list": self.rank,
            "ranks": to_plain(self.ranks),
            "tpir_at_fpir": [
                {
                    **rates[0].to_json(),
                    "galleries": {
                        name: rate.to_json()
                        for name, rate in zip(names, rates[-len(names) :], strict=False)
                    },
                }
                for rates in self.tpir
            ],
        }


def verify_templates(
    templates: Templates,
    first: ArrayLike,
    second: ArrayLike,
    same: ArrayLike,
    *,
    subjects: TemplateList | None = None,
    fars: Sequence[float] = VERIFICATION_FARS,
    resamples: int = 1000,
    seed: int = 0,
) -> TemplateVerification:
    """Return TAR at each FAR over listed pairs of templates.

    Args:
        templates: from `eval.media.pool_templates`.
        first: (p,), template id of one side.
        second: (p,), of the other.
        same: bool (p,).
        subjects: whose the templates are, for the intervals; None: inferred from mated pairs.
        fars: targets in (0, 1].
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: ids without a face, rows of unequal length, labels other than 0 and 1, only one
            kind of pair, subjects that contradict the labels.
    """
    a, b, labels = check_pairs(
        templates.find(first, "template ids of the pairs"),
        templates.find(second, "template ids of the pairs"),
        same,
        len(templates),
    )
    mated = int(labels.sum())
    for count, kind in ((mated, "mated"), (labels.size - mated, "non-mated")):
        if not count:
            raise InputError(f"of {labels.size} pairs of templates none is {kind}; both are needed")
    used = np.zeros(len(templates), np.bool_)
    used[a] = used[b] = True
    codes, note = _people_of(templates, subjects, a, b, labels)
    scores = score_listed(templates.vectors, templates.made(), a, b)
    people = None if codes is None else (codes[a], codes[b])
    sample = sample_list(scores, labels, people, fars)
    return TemplateVerification(
        templates=int(used.sum()),
        failed_templates=int((used & ~templates.made()).sum()),
        faces=int((templates.faces + templates.failed_faces)[used].sum()),
        failed_faces=int(templates.failed_faces[used].sum()),
        pairs=labels.size,
        mated=mated,
        failed_pairs=int(np.isneginf(scores).sum()),
        people=None if codes is None else int(np.unique(codes[used]).size),
        tar=tuple(sample.rates(fars, resamples=resamples, seed=seed)),
        note=note,
    )


def identify_templates(
    templates: Templates,
    galleries: Sequence[TemplateList],
    probes: TemplateList,
    *,
    fpirs: Sequence[float] = SEARCH_FPIRS,
    ranks: Sequence[int] = SEARCH_RANKS,
    rank: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> TemplateIdentification:
    """Return closed-set ranks and TPIR at each FPIR, every gallery searched apart.

    Args:
        templates: from `eval.media.pool_templates`.
        galleries: of different people, at least one.
        probes: searched in each gallery.
        fpirs: targets in (0, 1].
        ranks: of closed-set identification.
        rank: R, the length of the candidate list of TPIR; None = all.
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: no gallery, a person in two galleries, a template that is probe and gallery or
            has no face.
    """
    if not galleries:
        raise InputError("a search needs at least one gallery, got none")
    _check_apart(galleries, probes)
    places = templates.find(probes.template_ids, f"templates of {probes.name}")
    searches = []
    for gallery in galleries:
        rows = templates.find(gallery.template_ids, f"templates of {gallery.name}")
        searches.append(
            search_gallery(
                templates.vectors[places],
                probes.subjects,
                templates.vectors[rows],
                gallery.subjects,
                name=gallery.name,
            )
        )
    draws: Draws = {"resamples": resamples, "seed": seed}
    return TemplateIdentification(
        tuple(searches),
        tuple(measure_ranks(searches, ranks, **draws)),
        tuple(tuple(rates) for rates in measure_tpir(searches, fpirs, rank, **draws)),
        rank,
    )


def _people_of(
    templates: Templates,
    subjects: TemplateList | None,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    same: NDArray[np.bool_],
) -> tuple[NDArray[np.int64] | None, str]:
    if subjects is None:
        return join_people(first, second, same, len(templates))
    order = np.argsort(subjects.template_ids, kind="stable")
    known = subjects.template_ids[order]
    used = np.unique(np.concatenate([first, second]))
    places = np.searchsorted(known, templates.ids[used])
    places[places == known.size] = 0
    lost = np.flatnonzero(known[places] != templates.ids[used])
    if lost.size:
        raise InputError(
            f"{lost.size} templates of the pairs have no subject in {subjects.name} (first: "
            f"{templates.ids[used][lost[0]]}); leave the subjects out or complete them"
        )
    codes = np.full(len(templates), -1, np.int64)
    codes[used] = np.unique(subjects.subjects[order], return_inverse=True)[1][places]
    check_labels(codes[first], codes[second], same)
    return codes, f"people as {subjects.name} names them"


def _check_apart(galleries: Sequence[TemplateList], probes: TemplateList) -> None:
    for place, gallery in enumerate(galleries):
        for other in galleries[place + 1 :]:
            both = np.intersect1d(gallery.subjects, other.subjects)
            if both.size:
                raise InputError(
                    f"{both.size} people are in both {gallery.name} and {other.name} (first: "
                    f"{both[0]}); the probes of one gallery's people are the strangers of the other"
                )
        shared = np.intersect1d(gallery.template_ids, probes.template_ids)
        if shared.size:
            raise InputError(
                f"{shared.size} templates are in both {gallery.name} and {probes.name} (first: "
                f"{shared[0]}); a template found by itself says nothing"
            )
