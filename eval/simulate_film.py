"""One simulated video and its truth, from its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.simulate_body import KNEES, Walker
from eval.simulate_camera import Camera, burn_in, open_stream
from eval.simulate_cast import Still
from eval.simulate_crew import name_path
from eval.simulate_head import Head, cut_head
from eval.simulate_scene import Room, SeenFace, build_room, draw_people
from eval.simulate_settings import SIMULATED, SimulationSettings
from eval.simulate_walks import ScenePlan, TrackPlan, build_rng, in_picture
from facerec.checks import InputError
from facerec.data.images import decode_image
from facerec.data.sources import SourceItem
from facerec.io import atomic_path, sha256_bytes

LARGEST = 1.1  # of a walk's nominal size

TRACK_SCHEMA: pa.Schema = pa.schema(
    [
        ("video", pa.string()),  # file name in videos/
        ("track", pa.int32()),  # number in the video, from 1
        ("person", pa.string()),  # whose track it is
        ("frame", pa.int32()),  # from 0
        ("time_s", pa.float64()),
        ("box", pa.list_(pa.float32())),  # x1 y1 x2 y2, cut to the picture
        ("landmarks", pa.list_(pa.float32())),  # five times x y; may lie outside the picture
        ("visible", pa.float32()),  # share of the face that nobody and no border hides
        ("size_px", pa.int32()),  # width of the face that was asked for
        ("face_px", pa.float32()),  # width in this frame
        ("eyes_px", pa.float32()),  # between the eyes as drawn
        ("yaw_deg", pa.float32()),  # turn that was added to the still's own pose
        ("pitch_deg", pa.float32()),
        ("shown", pa.string()),  # whose head is drawn: `person`, or an impostor
        ("impostor", pa.bool_()),
        ("still", pa.string()),  # key of the picture that the head comes from
        ("dark", pa.bool_()),  # too little light in this video
    ],
    metadata={b"facerec.simulation": SIMULATED.encode()},
)
"""Columns of tracks.parquet: one row a person and frame in which the face is in the picture."""


@dataclass(frozen=True)
class FilmTask:
    """What a worker is told.

    Attributes:
        scene: the video.
        settings: of the simulation.
        video: file to write.
        rows: Parquet file to write, after the video.
    """

    scene: ScenePlan
    settings: SimulationSettings
    video: Path
    rows: Path


def film_scene(task: FilmTask) -> int:
    """Write a video and then the truth of it; return the number of frames.

    The same task gives the same files, wherever it runs.

    Raises:
        InputError: a still has gone or has changed since it was chosen.
        OSError: the disk is full or may not be written.
    """
    scene, settings = task.scene, task.settings
    rng = build_rng(settings.seed, scene.name, "scene")
    camera = Camera.draw(rng, settings)
    knees = max(plan.walk.place(0)[1] + KNEES * scene.size for plan in scene.tracks)
    room = build_room(rng, settings.width, settings.height, knees)
    slant = float(rng.uniform(-0.45, 0.45))
    cast = [_dress(plan, scene.size, slant, rng) for plan in scene.tracks]
    noise = rng.integers(2**32, size=settings.count_frames()).tolist()
    rows: list[dict[str, Any]] = []
    size = (settings.width, settings.height)
    with (
        name_path(task.video),
        open_stream(task.video, *size, settings.fps, settings.bit_rate_kbit) as append,
    ):
        for frame, seed in enumerate(noise):
            picture, facts = _film_frame(scene, cast, room, camera, frame, settings, seed)
            append(picture)
            rows += facts
    table = pa.Table.from_pylist(rows, schema=TRACK_SCHEMA)
    with name_path(task.rows), atomic_path(task.rows) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return len(noise)


def read_still(still: Still) -> NDArray[np.uint8]:
    """Return a still's picture, uint8 RGB (h, w, 3), known to be the one that was chosen.

    Raises:
        InputError: it has gone or has changed.
    """
    data = SourceItem(still.path, still.key).read_bytes()
    if sha256_bytes(data) != still.sha256:
        raise InputError(
            f"{still.path} has changed since it was chosen; simulate into a new folder"
        )
    return decode_image(data, str(still.path))


@dataclass(frozen=True)
class _Dressed:
    """A track's own head and, for some frames, the impostor's; on one body."""

    plan: TrackPlan
    own: Walker
    other: Walker

    def at(self, frame: int) -> tuple[Walker, str, Still]:
        plan = self.plan
        if frame in plan.impostor_at and plan.impostor_still is not None:
            return self.other, plan.impostor, plan.impostor_still
        return self.own, plan.person, plan.still


def _dress(plan: TrackPlan, size: int, slant: float, rng: np.random.Generator) -> _Dressed:
    shift, *colours = rng.random(7).tolist()
    light = slant + 0.3 * (shift - 0.5)
    grey, tint = 0.02 + 0.3 * colours[4] ** 2, np.array(colours[:3])
    cloth = (grey * (0.45 + tint)).astype(np.float32)
    legs = np.float32(0.03 + 0.12 * colours[3]) * np.ones(3, np.float32)

    def cut(still: Still) -> Head:
        return cut_head(read_still(still), still.landmarks, LARGEST * size, light)

    own = Walker(cut(plan.still), plan.walk, cloth, legs)
    if plan.impostor_still is None:
        return _Dressed(plan, own, own)
    return _Dressed(plan, own, Walker(cut(plan.impostor_still), plan.walk, cloth, legs))


def _film_frame(
    scene: ScenePlan,
    cast: list[_Dressed],
    room: Room,
    camera: Camera,
    frame: int,
    settings: SimulationSettings,
    seed: int,
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Return a frame and the rows of its truth."""
    time_s = frame / settings.fps
    walkers = [dressed.at(frame)[0] for dressed in cast]
    light, seen = draw_people(room, walkers, time_s, camera.exposure_s)
    picture = camera.expose(light, seed)
    burn_in(picture, f"{SIMULATED.upper()}  {scene.name}  {time_s:07.3f} s")
    rows = []
    for dressed, face in zip(cast, seen, strict=True):
        if in_picture(dressed.plan.walk, time_s, settings.width, settings.height):
            rows.append(_describe(scene, dressed, face, frame, settings, camera))
    return picture, rows


def _describe(
    scene: ScenePlan,
    dressed: _Dressed,
    face: SeenFace,
    frame: int,
    settings: SimulationSettings,
    camera: Camera,
) -> dict[str, Any]:
    time_s, plan = frame / settings.fps, dressed.plan
    _, shown, still = dressed.at(frame)
    pose = plan.walk.pose(time_s)
    limit = np.array([settings.width, settings.height, settings.width, settings.height])
    return {
        "video": f"{scene.name}.mp4",
        "track": plan.track,
        "person": plan.person,
        "frame": frame,
        "time_s": time_s,
        "box": np.clip(face.box, 0, limit).astype(np.float32),
        "landmarks": face.landmarks.astype(np.float32).ravel(),
        "visible": face.visible,
        "size_px": scene.size,
        "face_px": plan.walk.size(time_s),
        "eyes_px": float(np.linalg.norm(face.landmarks[1] - face.landmarks[0])),
        "yaw_deg": pose.yaw_deg,
        "pitch_deg": pose.pitch_deg,
        "shown": shown,
        "impostor": shown != plan.person,
        "still": still.key,
        "dark": camera.dark,
    }


def describe_videos(
    scenes: Sequence[ScenePlan], settings: SimulationSettings
) -> list[dict[str, Any]]:
    """Return what is recorded of each video: name, half, size, people and the camera's state."""
    return [
        {
            "video": f"{scene.name}.mp4",
            "half": scene.half,
            "size_px": scene.size,
            "people": [plan.person for plan in scene.tracks],
            "camera": Camera.draw(
                build_rng(settings.seed, scene.name, "scene"), settings
            ).to_json(),
        }
        for scene in scenes
    ]
