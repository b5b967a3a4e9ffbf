"""How people walk through a scene, and who is in which video: plans, drawn from the seed alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.simulate_cast import Cast, Still
from eval.simulate_head import FACE_HEIGHT, FACE_WIDTH, Pose
from eval.simulate_settings import SIMULATED, SimulationSettings
from facerec.checks import InputError

_SWING = 1 / 12  # share by which a face grows or shrinks from the middle of a walk
_STEP_HZ = 1.8
_RUN = 3  # frames of an impostor in a row


@dataclass(frozen=True)
class Walk:
    """One person's way through a video: straight, with the steps' bobbing and a swaying head.

    Attributes:
        start: x and y of the middle of the face's box in the first frame, pixels.
        speed: of x, in face widths a second; to the left below 0.
        face_px: width of the face in the middle of the video.
        growth: by which share it grows from there to the end; below 0 when walking away.
        seconds: of the video.
        yaw_deg: of the head on average.
        pitch_deg: likewise; the camera looks down.
        sway_deg: by how much yaw swings.
        phase: of all swinging, radians.
    """

    start: tuple[float, float]
    speed: float
    face_px: float
    growth: float
    seconds: float
    yaw_deg: float
    pitch_deg: float
    sway_deg: float
    phase: float

    def size(self, time_s: float) -> float:
        """Return the width of the face, pixels."""
        return self.face_px * (1 + self.growth * (2 * time_s / self.seconds - 1))

    def place(self, time_s: float) -> tuple[float, float]:
        """Return the middle of the face's box, pixels."""
        bob = abs(math.sin(math.pi * _STEP_HZ * time_s + self.phase))
        nearer = self.size(time_s) - self.size(0)
        x = self.start[0] + self.speed * self.face_px * time_s
        return x, self.start[1] + 1.5 * nearer - 0.05 * self.face_px * bob

    def pose(self, time_s: float) -> Pose:
        """Return the turn of the head."""
        turn = math.sin(2 * math.pi * 0.4 * time_s + self.phase)
        nod = math.sin(2 * math.pi * 0.6 * time_s + 2 * self.phase)
        return Pose(self.yaw_deg + self.sway_deg * turn, self.pitch_deg + 3 * nod, 2.5 * turn)

    def stride(self, time_s: float) -> float:
        """Return how far the legs swing, -1 to 1."""
        return math.sin(math.pi * _STEP_HZ * time_s + self.phase)

    def velocity(self, time_s: float) -> tuple[float, float]:
        """Return pixels a second, to the right and down."""
        (x, y), (later_x, later_y) = self.place(time_s - 0.01), self.place(time_s + 0.01)
        return (later_x - x) / 0.02, (later_y - y) / 0.02


@dataclass(frozen=True)
class TrackPlan:
    """One person in one video.

    Attributes:
        track: number in the video, from 1.
        person: who.
        still: the picture that the head comes from.
        walk: the way.
        impostor: who is shown in some of the frames; "" for nobody.
        impostor_still: the picture of that person.
        impostor_at: these frames.
    """

    track: int
    person: str
    still: Still
    walk: Walk
    impostor: str = ""
    impostor_still: Still | None = None
    impostor_at: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ScenePlan:
    """One video.

    Attributes:
        name: of the file, without its ending.
        half: "dev" or "test".
        size: width of the faces, pixels.
        tracks: who walks by.
    """

    name: str
    half: str
    size: int
    tracks: tuple[TrackPlan, ...]


def build_rng(seed: int, *names: str) -> np.random.Generator:
    """Return a generator of its own for whatever the names say, the same on every machine."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def plan_scenes(cast: Cast, settings: SimulationSettings) -> list[ScenePlan]:
    """Return every video: each person of a half at each size, `visits` times.

    A video holds people of one half alone, and a person is in it once.

    Raises:
        InputError: impostors are asked for, and everybody is in the video already.
    """
    scenes = []
    for half in ("dev", "test"):
        people = [person for person in cast.people if person.half == half and person.videos]
        names = [person.name for person in people]
        stills = {person.name: person.videos for person in people}
        for place, size in enumerate(settings.sizes):
            for visit in range(settings.visits):
                turn = visit * len(settings.sizes) + place
                rng = build_rng(settings.seed, "groups", half, str(size), str(visit))
                order = [names[i] for i in rng.permutation(len(names))]
                groups = _split(order, settings.people_a_scene)
                for number, group in enumerate(groups):
                    name = f"{SIMULATED}-{half}-{size:03d}px-{visit:02d}-{number:04d}"
                    tracks = _plan_tracks(name, group, stills, size, turn, settings)
                    scenes.append(ScenePlan(name, half, size, tracks))
    return scenes


def _split(order: Sequence[str], size: int) -> list[list[str]]:
    """Return groups of at most `size`, as even as they can be."""
    count = math.ceil(len(order) / size)
    return [list(order[number::count]) for number in range(count)]


def _plan_tracks(
    name: str,
    group: Sequence[str],
    stills: dict[str, tuple[Still, ...]],
    size: int,
    turn: int,
    settings: SimulationSettings,
) -> tuple[TrackPlan, ...]:
    others = sorted(set(stills) - set(group))
    camera_pitch = float(build_rng(settings.seed, name, "pitch").uniform(*settings.pitch_deg_range))
    tracks = []
    for number, person in enumerate(group):
        rng = build_rng(settings.seed, name, person)
        walk = _draw_walk(rng, number, len(group), size, camera_pitch, settings)
        still = stills[person][turn % len(stills[person])]
        plan = TrackPlan(number + 1, person, still, walk)
        frames = _choose_impostor_frames(rng, walk, settings)
        if frames and not others:
            raise InputError(
                f"impostor_frames needs somebody who is in the half but not in the video, but "
                f"{name} holds them all; raise --people or lower --people-a-scene"
            )
        if frames:
            impostor = others[int(rng.integers(len(others)))]
            shown = stills[impostor][int(rng.integers(len(stills[impostor])))]
            plan = TrackPlan(number + 1, person, still, walk, impostor, shown, frames)
        tracks.append(plan)
    return tuple(tracks)


def _draw_walk(
    rng: np.random.Generator,
    number: int,
    people: int,
    size: int,
    camera_pitch: float,
    settings: SimulationSettings,
) -> Walk:
    """Return a way that crosses the picture with its middle at a place of its own."""
    ahead, side, shift, level, turn, sway, phase, grow = rng.random(8).tolist()
    seconds, width, height = settings.seconds, settings.width, settings.height
    direction = 1.0 if side < 0.5 else -1.0
    # Half a face width a second towards the camera, three along the picture; nobody walks out
    # of it for good.
    speed = direction * min(0.5 + 2.5 * ahead, 0.7 * width / (size * seconds))
    middle = width * (0.12 + 0.76 * (number + 0.15 + 0.7 * shift) / people)
    top = max(0.75 * size, 0.14 * height)
    y = min(top + 0.16 * height + (level - 0.5) * 0.8 * size, height - 1.2 * size)
    sways = 0.5 * settings.yaw_deg * (0.4 + 0.6 * sway)
    yaw = direction * turn * (settings.yaw_deg - sways)
    return Walk(
        start=(middle - speed * size * seconds / 2, y),
        speed=speed,
        face_px=float(size),
        growth=_SWING * (2 * grow - 1),
        seconds=seconds,
        yaw_deg=yaw,
        pitch_deg=camera_pitch,
        sway_deg=sways,
        phase=2 * math.pi * phase,
    )


def in_picture(walk: Walk, time_s: float, width: int, height: int) -> bool:
    """Return whether any of the face's box lies in the picture."""
    (x, y), half = walk.place(time_s), walk.size(time_s) / 2
    tall = half * FACE_HEIGHT / FACE_WIDTH
    return -half < x < width - 1 + half and -tall < y < height - 1 + tall


def _choose_impostor_frames(
    rng: np.random.Generator, walk: Walk, settings: SimulationSettings
) -> frozenset[int]:
    """Return round(share * frames in the picture) frames, in short runs as a tracker slips."""
    seen: NDArray[np.int64] = np.array(
        [
            frame
            for frame in range(settings.count_frames())
            if in_picture(walk, frame / settings.fps, settings.width, settings.height)
        ],
        np.int64,
    )
    wanted = round(settings.impostor_frames * len(seen))
    runs = [seen[start : start + _RUN].tolist() for start in range(0, len(seen), _RUN)]
    mixed = [frame for place in rng.permutation(len(runs)) for frame in runs[place]]
    return frozenset(mixed[:wanted])
