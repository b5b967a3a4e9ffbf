"""`facerec-gallery watch`: every track of a video, searched once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from facerec.cli.gallery_options import (
    add_gallery,
    add_index,
    add_models,
    add_who,
    explain_interruption,
    note,
    open_gallery,
)
from facerec.command import add_command, write_json_result


def add_watch(commands: Any) -> None:
    """Add the command that watches."""
    watch = add_command(
        commands,
        "watch",
        _run_watch,
        "search every track of a video once; JSON lines out",
        "facerec-gallery watch list door.mp4 --out tracks.jsonl",
    )
    add_gallery(watch)
    add = watch.add_argument
    add("video", type=Path, help="anything FFmpeg reads")
    add("--out", type=Path, metavar="FILE", help="standard output unless given")
    add("--every", type=int, default=1, help="look at every n-th frame")
    add("--top", type=int, default=5, help="candidates to list")
    add("--threshold", type=float, help="a score; the gallery's own unless given")
    add_index(watch)
    add_models(watch)
    add_who(watch)


def _run_watch(arguments: argparse.Namespace) -> None:
    kept = "the tracks that had ended are written; the same command begins the video again"
    with explain_interruption(kept):
        _watch(arguments)


def _watch(arguments: argparse.Namespace) -> None:
    from facerec.gallery.calibration import explain_growth
    from facerec.gallery.tools import build_tools
    from facerec.io import sha256_file
    from facerec.progress import Progress
    from facerec.video.frames import check_video
    from facerec.video.sinks import JsonLines
    from facerec.video.watch import WatchCounts, WatchSettings, watch_video

    settings = WatchSettings(every=arguments.every)
    counts = WatchCounts()
    check_video(arguments.video)  # before --out is emptied
    with open_gallery(arguments) as gallery:
        gallery.check_question(arguments.top, arguments.threshold)
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime, second_look=False
        )
        if arguments.threshold is None:
            note(explain_growth(gallery))
        keep = arguments.json is not None
        with JsonLines(arguments.out, keep) as sink, Progress("watch", None, "frames") as progress:
            for now in watch_video(
                gallery,
                arguments.video,
                detector,
                embedder,
                sink,
                settings,
                top=arguments.top,
                threshold=arguments.threshold,
                purpose=arguments.purpose,
            ):
                progress.advance(now.frames - progress.done, f"{now.tracks} tracks")
                counts = now
            records = sink.records
    if counts.corrupt or counts.missing:
        _say(f"{counts.corrupt} packets corrupt, {counts.missing} frames missing at the end")
    _say(f"{counts.tracks} tracks, {counts.known} known; {counts.faces} faces")
    if arguments.json:  # a video may be large: it is hashed only where the hash is kept
        config = {"every": arguments.every, "top": arguments.top, "detector": detector.name}
        hashes = {"model": embedder.model_hash, "video": sha256_file(arguments.video)}
        result = {**vars(counts), "records": records}
        write_json_result(arguments, result, config=config, hashes=hashes)


def _say(text: str) -> None:
    sys.stderr.write(f"watch: {text}\n")
