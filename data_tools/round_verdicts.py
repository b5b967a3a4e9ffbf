"""From what a round thinks of the rows to verdicts on them: names, actions, reasons, scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_tools import round_table as word
from data_tools.centres import Labels, Mask
from data_tools.duplicates import Duplicates, settle_across
from data_tools.judgement import Judgement
from data_tools.outliers import MIN_PICTURES
from data_tools.round_rows import Usable
from data_tools.round_table import Verdicts

Views = Sequence[tuple[Mask, Judgement]]
"""Which rows each judgement speaks of: all for one, a half each for two."""


def name_identities(usable: Usable, views: Views) -> tuple[list[str], list[Labels]]:
    """Return all identities by number, and for each judgement the numbers of its identities.

    Given ones come first, then the second and further people of a name, "NAME (2)", then "" for
    rows without identity. Judgements that split one folder share the new names.
    """
    names = list(usable.names)
    number = {name: code for code, name in enumerate(names)}
    codes: list[Labels] = []
    for _, judgement in views:
        mine = list(range(len(usable.names)))
        taken: dict[int, int] = {}
        for origin in judgement.origin.tolist():
            taken[origin] = taken.get(origin, 1) + 1
            name = f"{usable.names[origin]} ({taken[origin]})"
            while name in usable.names:
                taken[origin] += 1
                name = f"{usable.names[origin]} ({taken[origin]})"
            mine.append(number.setdefault(name, len(names)))
            if mine[-1] == len(names):
                names.append(name)
        codes.append(np.array(mine, np.int64))
    return [*names, ""], codes


def agree_merges(views: Views, count: int) -> Labels:
    """Return the representative of each given identity that all judgements agree on."""
    first, *others = (judgement.merged[:count] for _, judgement in views)
    agreed = np.all([other == first for other in others], axis=0) if others else np.True_
    return np.asarray(np.where(agreed & (first < count), first, np.arange(count)), np.int64)


def write_verdicts(usable: Usable, views: Views, *, given_threshold: bool) -> Verdicts:
    """Return the verdicts of the identity check on all rows.

    Args:
        usable: the rows; those that had no vote are labelled -1 in the judgements, not here.
        views: the judgements, with masks that together cover the rows once.
        given_threshold: a cosine decided, not a probability.
    """
    count = len(usable.names)
    names, codes = name_identities(usable, views)
    merged = agree_merges(views, count)
    nobody = len(names) - 1
    labels = np.where(usable.labels >= 0, usable.labels, nobody)
    out = Verdicts.start(names, labels)
    for (rows, judgement), known in zip(views, codes, strict=True):
        fate = np.where(judgement.fate >= 0, known[judgement.fate], -1)
        # A join that the other judgement does not share is taken back.
        own = judgement.merged[np.maximum(usable.labels, 0)] == judgement.fate
        stays = rows & (usable.labels >= 0) & (judgement.fate >= 0) & own
        joined = merged[np.maximum(usable.labels, 0)]
        fate = np.where(stays, joined, fate)
        _word_verdicts(out, usable, rows, judgement, fate, stays, known)
        _write_scores(out, rows, judgement, given_threshold=given_threshold)
    return out


def _word_verdicts(
    out: Verdicts,
    usable: Usable,
    rows: Mask,
    judgement: Judgement,
    fate: Labels,
    stays: Mask,
    known: Labels,
) -> None:
    labelled = rows & (usable.labels >= 0)
    scores = judgement.scores
    whom = np.where(scores.other_identity >= 0, known[scores.other_identity], -1)
    gone = labelled & (fate < 0)
    nearer = gone & (judgement.owners.other > judgement.owners.nobody)
    few = stays & (scores.size < MIN_PICTURES)
    origin = np.append(np.full(len(usable.names), -1), judgement.origin)[
        np.maximum(judgement.fate, 0)
    ]
    second = labelled & (judgement.fate >= len(usable.names)) & (origin == usable.labels)
    moved = labelled & (fate >= 0) & ~stays & ~second
    out.decide(rows & ~labelled, word.KEEP, word.UNLABELLED)
    out.decide(stays, word.KEEP, word.NEAR, fate=fate)
    out.decide(few, word.KEEP, word.TOO_FEW)
    out.decide(rows & judgement.capped, word.KEEP, word.CAPPED)
    renamed = stays & (fate != usable.labels)
    out.decide(renamed, word.MERGE, word.RENAMED, other=fate)
    out.decide(second, word.SPLIT, word.SECOND, fate=fate)
    out.decide(moved, word.RELABEL, word.SHOWS, fate=fate, other=fate)
    out.decide(gone, word.DROP, word.FAR, fate=-1)
    out.decide(nearer, word.DROP, word.UNSURE, other=whom)
    out.decide(gone & judgement.crowded, word.DROP, word.CROWDED, other=whom)
    out.decide(rows & judgement.sibling, word.DROP, word.SIBLING, fate=-1)


def _write_scores(
    out: Verdicts, rows: Mask, judgement: Judgement, *, given_threshold: bool
) -> None:
    judged = rows & (judgement.scores.size >= MIN_PICTURES)
    moved = rows & (out.action == word.RELABEL)
    if given_threshold:
        out.score[judged] = judgement.scores.own[judged]
        out.threshold[judged] = judgement.cut.value
    else:
        out.score[judged] = judgement.owners.own[judged]
        out.threshold[judged] = judgement.keep_at
    out.score[moved] = judgement.owners.other[moved]
    out.threshold[moved] = judgement.move_at


def drop_copies(out: Verdicts, duplicates: Duplicates, right: np.ndarray) -> None:
    """Take the copies of rows out: one picture stays once, with the identity likeliest right.

    Args:
        out: verdicts, changed in place.
        duplicates: of the same rows.
        right: float64 (n,), the probability that each row shows the identity of its label.
    """
    copy = (duplicates.kept_row >= 0) & ~duplicates.across
    kept = np.where(copy, duplicates.kept_row, np.arange(len(copy)))
    follows = copy & (out.fate[kept] < 0)
    for values in (out.reason, out.score, out.threshold, out.other, out.check, out.action):
        values[follows] = values[kept[follows]]
    out.fate[follows] = -1
    out.decide(copy & ~follows, word.DUPLICATE, word.COPY, check=word.SAME_PICTURE, fate=-1)
    out.score[copy & ~follows] = duplicates.cosine[copy & ~follows]
    out.threshold[copy & ~follows] = np.nan
    crossing = settle_across(duplicates, right) & (out.fate >= 0)
    # Copies that end in one identity are no longer across: the one of lower number stays.
    out.decide(crossing, word.DUPLICATE, word.COPY, check=word.SAME_PICTURE, fate=-1)
    out.score[crossing] = duplicates.cosine[crossing]
    out.threshold[crossing] = np.nan


def pin_rows(out: Verdicts, pins: Labels) -> None:
    """Put the rows that people decided on where those put them.

    Args:
        out: verdicts, changed in place.
        pins: int64 (n,), of `data_tools.round_rows.apply_pins`.
    """
    pinned = pins > -2
    out.decide(pinned & (pins < 0), word.DROP, word.PINNED, check=word.REVIEW, fate=-1)
    out.decide(pinned & (pins >= 0), word.KEEP, word.PINNED, check=word.REVIEW, fate=pins)
    out.score[pinned], out.threshold[pinned], out.other[pinned] = np.nan, np.nan, -1
