"""From files to arrays: documents and tracks through a detector, a recogniser, an aggregation.

A track's template is that of a watched video (`facerec.video.aggregate`). What a video or a folder
of frames gave is kept in the cache, so that a killed run goes on at the video it was in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from eval.doc2surv_data import DocumentSet, TrackSet, build_documents, build_tracks
from eval.doc2surv_frames import (
    TABLE,
    EmbedSettings,
    FaceFinder,
    TrackFaces,
    load_faces,
    save_faces,
)
from eval.doc2surv_layout import DocumentFile, TrackFiles
from eval.embedding import embed_files
from facerec.checks import InputError
from facerec.embedder import Embedder
from facerec.io import sha256_bytes, sha256_file
from facerec.progress import Progress
from facerec.structures import Detector
from facerec.video.aggregate import aggregate_published

_FORMAT = "doc2surv-faces-1"


@dataclass(frozen=True)
class SetEmbedder:
    """Makes arrays of documents and tracks.

    Attributes:
        embedder: the recogniser.
        detector: finds faces.
        settings: how.
        cache: folder that keeps embeddings; None keeps nothing.
        detector_hash: from `facerec.detection.hash_detector`, the detector's name when empty.
    """

    embedder: Embedder
    detector: Detector
    settings: EmbedSettings
    cache: Path | None = None
    detector_hash: str = ""

    def embed_documents(self, documents: Sequence[DocumentFile]) -> DocumentSet:
        """Return documents with the embedding of the one face that the policy takes.

        Raises:
            InputError: a file is missing or listed twice, or none gave a face.
        """
        for one in documents:
            if not one.path.is_file():
                raise InputError(f"document {one.path} does not exist; check the list")
        paths = [str(one.path.resolve()) for one in documents]
        path, times = Counter(paths).most_common(1)[0]
        if times > 1:
            raise InputError(f"document {path} is listed {times} times; list it once")
        found = embed_files(
            Path(paths[0]).parent,
            paths,
            self.detector,
            self.embedder,
            policy=self.settings.policy,
            cache=None if self.cache is None else self.cache / "documents",
            detector_hash=self.detector_hash,
        )
        if len(found.failed) == len(paths):
            raise InputError(
                f"none of {len(paths)} documents gave a face (first: {documents[0].name}: "
                f"{found.failed[paths[0]]}); check the documents and the detector"
            )
        names = dict(zip(paths, [one.name for one in documents], strict=True))
        return build_documents(
            found.vectors,
            [one.person for one in documents],
            names=list(names.values()),
            halves=[one.half for one in documents],
            groups=[one.group for one in documents],
            years=[one.year for one in documents],
            hashes=[sha256_file(one.path) for one in documents],
            failed={names[path]: reason for path, reason in found.failed.items()},
        )

    def embed_tracks(self, tracks: Sequence[TrackFiles]) -> TrackSet:
        """Return tracks with their templates, sizes and qualities.

        Quality is the median raw norm of a track's frames, size the median width of its boxes.
        Pictures that are aligned chips have no size.

        Raises:
            InputError: a picture or video is missing, or landmarks are asked for and not there.
        """
        count = len(tracks)
        vectors = np.zeros((count, self.embedder.dim), np.float32)
        sizes, qualities = np.full(count, np.nan), np.full(count, np.nan)
        hashes: list[list[str]] = [[] for _ in tracks]
        failed: dict[str, str] = {}
        units = _group(tracks)
        with Progress("tracks", count, "tracks") as progress:
            for places in units:
                part = [tracks[place] for place in places]
                digests = _hash(part[0])
                for place, found in zip(places, self._embed_unit(part, digests), strict=True):
                    track = tracks[place]
                    hashes[place] = digests if track.pictures else []
                    if found.norms:
                        norms = np.array(found.norms, np.float32)
                        rows = np.stack(found.vectors)
                        vectors[place] = aggregate_published(rows, norms).template
                        qualities[place] = float(np.median(norms))
                        sizes[place] = self._measure_size(found)
                    else:
                        nothing = f"no face in {found.looked} frames"
                        failed[track.name] = found.unreadable or nothing
                progress.advance(len(places))
        return build_tracks(
            vectors,
            [track.person for track in tracks],
            names=[track.name for track in tracks],
            videos=[track.video for track in tracks],
            cameras=[track.camera for track in tracks],
            halves=[track.half for track in tracks],
            groups=[track.group for track in tracks],
            years=[track.year for track in tracks],
            sizes_px=sizes,
            qualities=qualities,
            hashes=hashes,
            failed=failed,
        )

    def _measure_size(self, found: TrackFaces) -> float:
        if self.detector.name == "aligned" and self.settings.faces != TABLE:
            return float("nan")
        return max(float(np.median(found.widths)), 1e-3)

    def _embed_unit(self, tracks: list[TrackFiles], digests: list[str]) -> list[TrackFaces]:
        """Return the embedded faces of one track of pictures, or of one video's tracks."""
        path = None
        if self.cache is not None:
            path = self.cache / "tracks" / f"{self._name_unit(tracks, digests)}.npz"
            if path.is_file():
                return load_faces(path)
        found = [TrackFaces() for _ in tracks]
        faces = FaceFinder(self.detector, self.settings).iter_faces(tracks, found)
        while batch := list(islice(faces, self.embedder.batch_size)):
            made = self.embedder.embed(np.stack([face.chip for face in batch]))
            for row, face in enumerate(batch):
                if made.norms[row] > 0:  # a zero vector has no direction to compare
                    own = found[face.track]
                    own.vectors.append(made.vectors[row])
                    own.norms.append(float(made.norms[row]))
                    own.widths.append(face.width)
        if path is not None:
            save_faces(path, found, self.embedder.dim)
        return found

    def _name_unit(self, tracks: list[TrackFiles], digests: list[str]) -> str:
        """Return a hash over everything that decides a unit's embeddings."""
        parts = [_FORMAT, self.embedder.model_hash, self.detector_hash or self.detector.name]
        parts += [json.dumps(asdict(self.settings), sort_keys=True), *digests]
        for track in tracks:
            parts.append(track.name)
            for values in (track.frames, track.boxes, track.landmarks):
                parts.append("" if values is None else sha256_bytes(values.tobytes()))
        return sha256_bytes("\n".join(parts).encode())


def _group(tracks: Sequence[TrackFiles]) -> list[list[int]]:
    """Return the positions of tracks that are read together: those of one video."""
    units: dict[object, list[int]] = {}
    for place, track in enumerate(tracks):
        units.setdefault(track.clip or ("pictures", place), []).append(place)
    return list(units.values())


def _hash(track: TrackFiles) -> list[str]:
    """Return the sha256 of a track's pictures, or of its video."""
    files = track.pictures or ((track.clip,) if track.clip is not None else ())
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} of track {track.name} does not exist; check the tracks")
    return [sha256_file(file) for file in files]
