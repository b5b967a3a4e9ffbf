"""A video against the watch list: frames, faces, tracks, one template and one search a track."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.align import align_faces
from facerec.dist import cpu_count
from facerec.embedder import Embedder, Embeddings
from facerec.gallery.gallery import Gallery
from facerec.gallery.results import Answer
from facerec.structures import Detector, Faces, Track
from facerec.video.aggregate import RHO, aggregate_published
from facerec.video.frames import Frame, VideoReader
from facerec.video.sinks import JsonLines
from facerec.video.tracker import Tracker, TrackerSettings


@dataclass
class WatchCounts:
    """What went through, counted as it goes.

    Attributes:
        frames: looked at.
        faces: found in them.
        tracks: ended and given out.
        known: of those, how many were somebody of the gallery.
        corrupt: packets that could not be decoded.
        missing: frames that the file promised and did not deliver.
    """

    frames: int = 0
    faces: int = 0
    tracks: int = 0
    known: int = 0
    corrupt: int = 0
    missing: int = 0


@dataclass(frozen=True)
class WatchSettings:
    """How a video is watched.

    Attributes:
        every: look at every n-th frame.
        block: frames whose faces are embedded in one call.
        threads: for detection; all cores when None.
        rho: IQRs beyond which a frame is dropped from its track (METHODS 8.5).
        tracker: see TrackerSettings.
    """

    every: int = 1
    block: int = 16
    threads: int | None = None
    rho: float = RHO
    tracker: TrackerSettings = field(default_factory=TrackerSettings)

    def __post_init__(self) -> None:
        if self.every < 1 or self.block < 1 or (self.threads is not None and self.threads < 1):
            raise InputError("every, block and threads must be at least 1")


@dataclass(frozen=True)
class _Seen:
    """One frame after detection: its picture is gone, its chips are left."""

    number: int
    time_s: float
    faces: Faces
    chips: NDArray[np.uint8]


def watch_video(
    gallery: Gallery,
    video: Path,
    detector: Detector,
    embedder: Embedder,
    sink: JsonLines,
    settings: WatchSettings | None = None,
    *,
    top: int = 5,
    threshold: float | None = None,
    purpose: str = "",
) -> Iterator[WatchCounts]:
    """Search every track of a video once; yield the counts after each block of frames.

    A track is searched and written as soon as it ends, so an interruption loses only those that
    were still running.

    Args:
        gallery: open.
        video: a file.
        detector: what finds faces; frame 12 of `name.mp4` has the key `name.mp4#12`.
        embedder: the gallery's recogniser.
        sink: takes one record a track.
        settings: see WatchSettings.
        top: candidates a track.
        threshold: cosine; the gallery's own when None.
        purpose: for the audit log.

    Raises:
        InputError: the embedder's model is not the gallery's, top or threshold is out of range, or
            the file is no video.
    """
    gallery.check_model(embedder.model_hash)
    gallery.check_question(top, threshold)
    settings = settings or WatchSettings()
    counts = WatchCounts()
    for track in iter_tracks(video, detector, embedder, settings, counts):
        if track is not None:
            summarise(track, settings.rho)
            assert track.template is not None
            (answer,) = gallery.search(
                track.template[None],
                top,
                threshold,
                model_hash=embedder.model_hash,
                sources=[f"{video.name} track {track.track_id}"],
                purpose=purpose,
            )
            sink.write(build_record(video.name, track, answer))
            counts.tracks += 1
            counts.known += answer.person is not None
        yield counts


def iter_tracks(
    video: Path,
    detector: Detector,
    embedder: Embedder,
    settings: WatchSettings | None = None,
    counts: WatchCounts | None = None,
) -> Iterator[Track | None]:
    """Yield the tracks of a video as they end, and None after each block of frames.

    Decoding, detection and embedding overlap: one thread decodes, several detect and align, and
    the caller's thread embeds the faces of several frames at once.

    Args:
        video: a file.
        detector: what finds faces; called from several threads.
        embedder: the recogniser.
        settings: see WatchSettings.
        counts: counted up as frames pass.
    """
    settings = settings or WatchSettings()
    counts = counts if counts is not None else WatchCounts()
    tracker = Tracker(settings.tracker)
    with VideoReader(video, settings.every) as reader:
        for block in _iter_blocks(_iter_seen(reader, detector, settings), settings.block):
            for seen, found in _embed_block(block, embedder):
                counts.frames += 1
                counts.faces += len(seen.faces)
                yield from tracker.update(seen.number, seen.time_s, seen.faces, found)
            counts.corrupt = reader.corrupt
            yield None
        counts.corrupt, counts.missing = reader.corrupt, reader.missing
        yield from tracker.finish()


def summarise(track: Track, rho: float = RHO) -> None:
    """Give a track its template and the reasons of the frames that do not count."""
    found = aggregate_published(track.embeddings, track.norms, rho)
    track.template = found.template
    track.dropped = found.dropped


def build_record(video: str, track: Track, answer: Answer) -> dict[str, Any]:
    """Return what is written of a track, plain JSON values."""
    return {
        "video": video,
        "track": track.track_id,
        "first_frame": int(track.frames[0]),
        "last_frame": int(track.frames[-1]),
        "first_s": round(float(track.times_s[0]), 6),
        "last_s": round(float(track.times_s[-1]), 6),
        "frames": len(track),
        "dropped": [
            {"frame": int(track.frames[i]), "reason": reason} for i, reason in track.dropped.items()
        ],
        "median_box": [round(float(v), 1) for v in np.median(track.boxes, axis=0)],
        **answer.to_json(),
    }


def _iter_seen(
    frames: Iterable[Frame], detector: Detector, settings: WatchSettings
) -> Iterator[_Seen]:
    """Detect and align in threads, in order, a bounded number of frames ahead."""
    threads = settings.threads or cpu_count()
    ahead = settings.block + threads
    name = frames.path.name if isinstance(frames, VideoReader) else ""
    source = iter(frames)
    waiting: deque[Future[_Seen]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="detect") as pool:
        try:
            while True:
                for frame in islice(source, ahead - len(waiting)):
                    waiting.append(pool.submit(_look, frame, detector, f"{name}#{frame.number}"))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _look(frame: Frame, detector: Detector, key: str) -> _Seen:
    faces = detector.detect(frame.image, key)
    return _Seen(frame.number, frame.time_s, *align_faces(frame.image, faces))


def _iter_blocks(seen: Iterator[_Seen], size: int) -> Iterator[list[_Seen]]:
    while block := list(islice(seen, size)):
        yield block


def _embed_block(block: list[_Seen], embedder: Embedder) -> Iterator[tuple[_Seen, Embeddings]]:
    found = embedder.embed(np.concatenate([seen.chips for seen in block]))
    start = 0
    for seen in block:
        stop = start + len(seen.faces)
        part = Embeddings(found.vectors[start:stop], found.norms[start:stop])
        start = stop
        usable = part.norms > 0  # a zero vector has no direction to compare
        if not usable.all():
            seen = _Seen(seen.number, seen.time_s, seen.faces[usable], seen.chips[usable])
            part = Embeddings(part.vectors[usable], part.norms[usable])
        yield seen, part
