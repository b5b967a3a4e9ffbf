"""The protocol of a doc2surv evaluation in words, for its report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eval.doc2surv_data import DEV, TEST, Split, TrackSet
from eval.doc2surv_pairs import NO_GROUP
from eval.doc2surv_scores import Half
from eval.doc2surv_settings import Doc2SurvSettings


def describe_protocol(
    settings: Doc2SurvSettings,
    split: Split,
    probes: str,
    halves: Mapping[str, Half],
    tracks: TrackSet,
) -> tuple[str, ...]:
    """Return what was done, a paragraph each."""
    dev, test = halves[DEV], halves[TEST]
    how = f"drawn person by person from seed {split.seed}" if split.drawn else "as given"
    grouped = any((half.groups != NO_GROUP).any() for half in halves.values())
    impostors = (
        "other people's documents of the track's own group (all of them where a group is not known)"
        if grouped
        else "all other people's documents; no groups were given, so these impostors are easier "
        "than people of one's own sex, age and region"
    )
    strangers = (
        "tracks of people without a document"
        if probes == "unknown"
        else "every track, searched in the gallery without its own person's document: there were "
        "too few tracks of people without one, or it was asked for"
    )
    unnamed = int(np.count_nonzero(tracks.people == ""))
    words = [
        f"The people are cut into a development half and a test half, {how}: "
        f"{dev.people.size:,} and {test.people.size:,} people, nobody in both. All thresholds come "
        "from the development half and are frozen; all figures are of the test half.",
        "The track is the transaction: one template, one comparison or search, one decision. "
        "Mated is each track of an enrolled person against that person's own document (the best of "
        f"several). Non-mated, 1:1, is each track against {impostors}. Non-mated, 1:N, is "
        f"{strangers}.",
        "GFNMR = FTA + (1 - FTA) FNMR over the tracks of enrolled people; people whose documents "
        "all failed (FTE) are counted beside it. FNIR(N, R, T): the share of tracks of enrolled "
        f"people whose own person is not among the R = {settings.rank} best with a score of at "
        "least T; a track without a template is a miss. FPIR(N, T): the share of non-mated "
        f"searches that return anybody. N is {dev.enrolled.size:,} on the development half and "
        f"{test.enrolled.size:,} on the test half, whose threshold is scaled to N; in a gallery "
        "filled up with distractors both halves have the same N.",
        f"Intervals are of {settings.resamples:,} resamples of the test half's people "
        f"({settings.confidence:.0%}), at the thresholds as they are and in the galleries as they "
        "are. A figure that the sample cannot support has none.",
    ]
    if unnamed:
        words.append(
            f"{unnamed:,} tracks bear no name: each counts as a person of its own, and unnamed "
            "people who return make intervals too narrow."
        )
    return tuple(words)
