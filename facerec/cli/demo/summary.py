"""The demo's own figures: what the stages' results say together, against the truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from facerec.cli.demo.sets import DemoSet

FAR = 1e-3


def find_point(verified: dict[str, Any]) -> dict[str, Any]:
    """Return the operating point FAR = 1e-3 over all pairs."""
    points: list[dict[str, Any]] = verified["all_pairs"]["tar_at_far"]
    return next(point for point in points if point["far"] == FAR)


def summarise(data: DemoSet, results: dict[str, Any]) -> dict[str, Any]:
    """Return the headline figures, plain JSON values."""
    return {
        "clean": results.get("score"),
        "raw": _describe_model(results["verify-raw"]),
        "final": _describe_model(results["verify-final"]),
        "tracks": match_tracks(data, results["watch"]["records"]),
        "search": count_answers(data, results["search"]["results"]),
    }


def count_answers(data: DemoSet, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the gallery did on stills of listed people and of strangers.

    FNIR: share of mated probes whose person is not the accepted first candidate, pictures
    without a face included. FPIR: share of non-mated probes that were accepted as somebody.
    """
    mated = missed = strangers = accepted = 0
    for answer in answers:
        person = answer["image"].split("/")[0]
        known = bool(answer.get("known"))
        if person in data.listed:
            mated += 1
            missed += not (known and answer["person"] == person)
        else:
            strangers += 1
            accepted += known
    return {
        "mated": mated,
        "missed": missed,
        "fnir": missed / mated if mated else None,
        "non_mated": strangers,
        "accepted": accepted,
        "fpir": accepted / strangers if strangers else None,
    }


def match_tracks(data: DemoSet, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each track with who it really is and whether the answer is right."""
    rows = []
    for record in records:
        truth = _who_is(data, record)
        expected = truth if truth in data.listed else "unknown"
        rows.append(
            {
                "track": record["track"],
                "first_s": record["first_s"],
                "last_s": record["last_s"],
                "frames": record["frames"],
                "dropped": len(record["dropped"]),
                "answer": record["person"],
                "score": record["score"],
                "truth": truth,
                "right": record["person"] == expected,
            }
        )
    return rows


def _who_is(data: DemoSet, record: dict[str, Any]) -> str:
    """Return the person whose median box over the track's frames is nearest the track's own."""
    x1, y1, x2, y2 = record["median_box"]
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    best, nearest = "", np.inf
    for walk in data.seen:
        rows = [
            row for row in walk["boxes"] if record["first_frame"] <= row[0] <= record["last_frame"]
        ]
        if not rows:
            continue
        left, top, right, bottom = np.median(np.array(rows, dtype=np.float64)[:, 1:], axis=0)
        offset = float(np.linalg.norm(centre - [(left + right) / 2, (top + bottom) / 2]))
        # Half a box's width away it is somebody else, or nobody.
        if offset < min(nearest, (right - left) / 2):
            best, nearest = str(walk["person"]), offset
    return best


def _describe_model(verified: dict[str, Any]) -> dict[str, Any]:
    point = find_point(verified)
    return {
        "accuracy": verified["accuracy"]["mean"],
        "eer": verified["eer"],
        "tar": point["tar"],
        "far": FAR,
        "supported": point["supported"],
        "pictures": verified["all_pairs"]["pictures"],
        "people": verified["all_pairs"]["people"],
    }
