"""Tracks of a video without truth: how many, how long, and whether the recogniser sees a switch.

Every frame is compared with the templates of the long tracks (from the first to the last frame at
least 100). Strays are frames nearer to another's template than to their own: a blurred or hidden
face strays without being somebody else. A switch is a run of 3 strays towards one other track.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.structures import Track

LONG_TRACK = 100
RUN = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    parser = build_parser(
        "python -m eval.bench.tracks",
        "Track the faces of a video and check every frame against its own track's template.",
        "python -m eval.bench.tracks six_people_1080p.mp4 --detector yunet.onnx --model M",
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--detector", required=True, help="name, artefact folder or file")
    parser.add_argument("--model", required=True, help="name, artefact folder or file")
    parser.add_argument("--every", type=int, default=1, help="look at every n-th frame")
    parser.add_argument("--least-span", type=int, default=LONG_TRACK, help="of a long track")
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def measure_tracks(tracks: list[Track], least_span: int = LONG_TRACK) -> dict[str, Any]:
    """Return figures of finished tracks, which must have their templates.

    Args:
        tracks: of one video.
        least_span: frames from first to last that make a track long.

    Returns:
        tracks; long_tracks (of at least `least_span` frames from first to last); full_tracks (with
        the face found in as many); strays and switches among the long tracks; strays_all, the
        frames of any track that are nearest another track's template; fragments (pairs of tracks
        whose templates agree by 0.5 or more and that share no frame); and each track's figures.
    """
    spans = [int(t.frames[-1] - t.frames[0]) + 1 for t in tracks]
    long = [t for t, span in zip(tracks, spans, strict=True) if span >= least_span]
    rows = []
    for track, span in zip(tracks, spans, strict=True):
        own, other, _ = compare_frames(track, tracks)
        strays, switches = 0, 0
        if span >= least_span:
            near_own, near_other, who = compare_frames(track, long)
            away = np.where(near_other >= near_own, who, 0)
            strays, switches = int((away > 0).sum()), count_runs(away)
        rows.append(
            {
                "track": track.track_id,
                "frames": len(track),
                "span": span,
                "first_frame": int(track.frames[0]),
                "last_frame": int(track.frames[-1]),
                "dropped": len(track.dropped),
                "strays": strays,
                "strays_all": int((other >= own).sum()),
                "switches": switches,
                "least_own_similarity": round(float(own.min()), 4),
                "median_own_similarity": round(float(np.median(own)), 4),
                "greatest_other_similarity": round(float(other.max()), 4),
                "median_width_px": round(float(np.median(track.boxes[:, 2] - track.boxes[:, 0]))),
            }
        )
    return {
        "tracks": len(tracks),
        "long_tracks": len(long),
        "full_tracks": sum(len(t) >= least_span for t in tracks),
        "strays": sum(row["strays"] for row in rows),
        "switches": sum(row["switches"] for row in rows),
        "strays_all": sum(row["strays_all"] for row in rows),
        "fragments": _count_fragments(tracks),
        "per_track": rows,
    }


def compare_frames(
    track: Track, tracks: list[Track]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return each frame's cosine with its own template, the best other, and that track's id.

    Where there is no other track, the best other is -1 and the id 0.
    """
    others = [t for t in tracks if t.track_id != track.track_id]
    own = track.embeddings @ _template(track)
    if not others:
        return own, np.full(len(track), -1, np.float32), np.zeros(len(track), np.int64)
    similarity = track.embeddings @ np.stack([_template(t) for t in others]).T
    ids = np.array([t.track_id for t in others], np.int64)
    return own, similarity.max(axis=1), ids[similarity.argmax(axis=1)]


def count_runs(away: NDArray[np.int64], least: int = RUN) -> int:
    """Return how many runs of at least `least` equal numbers above 0 there are."""
    edges = np.flatnonzero(np.diff(away)) + 1
    parts = np.split(away, edges)
    return sum(bool(len(part) >= least and part[0] > 0) for part in parts if len(part))


def _count_fragments(tracks: list[Track]) -> int:
    count = 0
    for i, track in enumerate(tracks):
        for other in tracks[:i]:
            apart = not set(track.frames.tolist()) & set(other.frames.tolist())
            count += bool(apart and _template(track) @ _template(other) >= 0.5)
    return count


def _template(track: Track) -> NDArray[np.float32]:
    if track.template is None:
        raise InputError(f"track {track.track_id} has no template; aggregate it first")
    return track.template


def _run(arguments: argparse.Namespace) -> None:
    from facerec.detection import build_detector
    from facerec.embedder import Embedder
    from facerec.io import sha256_file
    from facerec.progress import Progress
    from facerec.video.watch import WatchCounts, WatchSettings, iter_tracks, summarise

    detector = build_detector(arguments.detector, second_look=False)  # as watch does
    embedder = Embedder(arguments.model)
    counts = WatchCounts()
    settings = WatchSettings(every=arguments.every)
    tracks: list[Track] = []
    started = time.perf_counter()
    with Progress("track", None, "frames") as progress:
        for track in iter_tracks(arguments.video, detector, embedder, settings, counts):
            if track is None:
                progress.advance(counts.frames - progress.done)
            else:
                summarise(track)
                tracks.append(track)
    wall = time.perf_counter() - started
    result = {
        **measure_tracks(tracks, arguments.least_span),
        "frames": counts.frames,
        "faces": counts.faces,
        "missing_frames": counts.missing,
        "corrupt_packets": counts.corrupt,
        "wall_s": round(wall, 2),
        "frames_per_s": round(counts.frames / wall, 2),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "runtime": embedder.runtime_name,
        "detector": detector.name,
    }
    _show(result, arguments.least_span)
    if arguments.json:  # a video may be large: it is hashed only where the hash is kept
        config = {"every": arguments.every, "least_span": arguments.least_span}
        hashes = {"video": sha256_file(arguments.video), "model": embedder.model_hash}
        write_json_result(arguments, result, config=config, hashes=hashes)


def _show(result: dict[str, Any], least_span: int) -> None:
    for row in result["per_track"]:
        sys.stdout.write(
            f"track {row['track']}: {row['frames']} faces in {row['span']} frames "
            f"({row['first_frame']} to {row['last_frame']}), {row['median_width_px']} px, "
            f"{row['dropped']} dropped, own template {row['median_own_similarity']:.2f} "
            f"(least {row['least_own_similarity']:.2f}), strays {row['strays']}, "
            f"switches {row['switches']}\n"
        )
    sys.stdout.write(
        f"{result['tracks']} tracks; {result['long_tracks']} span at least {least_span} frames, "
        f"{result['full_tracks']} with a face in as many; among the long ones "
        f"{result['switches']} switches, {result['strays']} stray frames\n"
        f"{result['frames']} frames, {result['faces']} faces in {result['wall_s']} s: "
        f"{result['frames_per_s']} frames/s ({result['runtime']}), "
        f"{result['peak_memory_mib']} MiB\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
