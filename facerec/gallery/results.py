"""What the gallery answers: typed, and plain JSON where it leaves the process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from facerec.structures import Match

IDENTIFICATION, INVESTIGATION = "identification", "investigation"
"""With a threshold somebody may be nobody; without one there is always a best candidate."""

KNOWN_STRANGER = "known stranger"
NEAR_STRANGER = "about as close to a known stranger: have somebody look"


@dataclass(frozen=True)
class Enrolment:
    """What became of the pictures that were given.

    Attributes:
        added: positions that are now in the gallery.
        reasons: one a picture: "" = added, else why not ("already enrolled", ...).
        warnings: one a picture: "" or what the checks found, though it was added.
    """

    added: list[int]
    reasons: list[str]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What the gallery says about one probe.

    Attributes:
        person: whose score reaches the threshold, None = unknown, which is an answer too.
        matches: the best candidates by score; below the threshold they are listed, not accepted.
        threshold: score from which a candidate is accepted; None in an investigation.
        mode: IDENTIFICATION or INVESTIGATION.
        fpir: share of searches for people who are not in the gallery that get somebody accepted
            at this threshold, in [0, 1], at the gallery's present size; None where the threshold
            was not calibrated.
        margin: how far the best candidate is ahead of the second, None with fewer than two.
        note: what else there is to say, such as a known stranger; "" otherwise.
        normalisation: of the scores, "none" for cosines.
    """

    person: str | None
    matches: list[Match]
    threshold: float | None
    mode: str = IDENTIFICATION
    fpir: float | None = None
    margin: float | None = None
    note: str = ""
    normalisation: str = "none"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        best = self.matches[0].score if self.matches else None
        return {
            "person": self.person or "unknown",
            "known": self.person is not None,
            "mode": self.mode,
            "score": best,
            "threshold": self.threshold,
            "fpir": self.fpir,
            "margin": self.margin,
            "note": self.note,
            "normalisation": self.normalisation,
            "candidates": [
                {"rank": m.rank, "person": m.person, "score": m.score, "accepted": m.accepted}
                for m in self.matches
            ],
        }


@dataclass(frozen=True)
class Comparison:
    """What the gallery says about one probe and one person: 1:1.

    Attributes:
        person: who the probe is said to be.
        score: cosine in [-1, 1].
        threshold: from which it is accepted.
        accepted: whether it is.
        fmr: share of such comparisons of two people that are accepted, None where the threshold
            was not calibrated for it.
    """

    person: str
    score: float
    threshold: float
    accepted: bool
    fmr: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Receipt:
    """Proof of an erasure; it names nobody.

    Attributes:
        person: the uid that the log calls them.
        samples: rows that were removed.
        templates: how many.
        files: every file of the gallery that was read through afterwards, with its bytes.
        traces: places where bytes of the person's rows were still found; empty, or it failed.
        compacted: whether the file had to be rewritten for it.
        entry: the log's entry number.
        head: hash of the log at that entry.
        created: UTC, ISO 8601.
    """

    person: str
    samples: list[int]
    templates: int
    files: dict[str, int]
    traces: list[str]
    compacted: bool
    entry: int
    head: str
    created: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))
