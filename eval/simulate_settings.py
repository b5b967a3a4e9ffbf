"""What a simulated surveillance set is made of: every parameter, checked where it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from facerec.checks import InputError, check_range, check_whole

SIMULATED = "simulated"
"""The word that every file of a simulation carries."""

Range = tuple[float, float]

# (least, greatest) of each setting; those whose name ends in _range hold two such numbers.
_WHOLE: Mapping[str, tuple[int, int]] = {
    "people": (2, 100_000),
    "people_a_scene": (1, 12),
    "visits": (1, 100),
    "documents_only": (0, 1_000_000),
    "fps": (1, 60),
    "width": (64, 3840),
    "height": (64, 2160),
    "bit_rate_kbit": (16, 50_000),
    "seed": (0, 2**32 - 1),
}
_SHARES = ("unknown_share", "low_light", "impostor_frames")
_RANGES: Mapping[str, Range] = {
    "pitch_deg_range": (-20, 30),
    "defocus_px_range": (0, 16),
    "noise_gain_range": (1, 256),
    "low_light_stops_range": (0, 8),
    "exposure_ms_range": (0, 100),
    "dark_exposure_ms_range": (0, 100),
    "print_severity_range": (0, 1),
}
SIZE_LIMITS = (8, 256)
"""Least and greatest width of a face, pixels."""
MAX_YAW_DEG = 30.0
"""Beyond it the warp of a single still would fold."""
_HEADS_HIGH = 3  # face widths that a picture must be high: a head and its shoulders


@dataclass(frozen=True)
class SimulationSettings:
    """Parameters of a simulation.

    The size of a face is the width of its box as YuNet draws it, which is 2.26 times the distance
    between the eyes of a face seen from the front: 12, 20, 32 and 64 pixels are 5.3, 8.8, 14.1 and
    28.2 between the eyes. A walk stays within a twelfth of the size it is given.

    Attributes:
        sizes: widths of faces, pixels; every person walks by at each of them.
        people: who appear in videos, enrolled and unknown together.
        unknown_share: of `people`, who have no document.
        documents_only: people more who have a document and are in no video.
        people_a_scene: who are in a video together.
        visits: walks of each person at each size.
        seconds: of each video.
        fps: frames a second.
        width: of the video, pixels, even.
        height: likewise.
        bit_rate_kbit: of the video, kbit/s.
        low_light: share of the scenes that are dark.
        impostor_frames: share of each track's frames that show somebody else's head, in [0, 1).
        yaw_deg: greatest turn to either side, degrees, beside the still's own pose.
        pitch_deg_range: of the camera's view from above, degrees.
        defocus_px_range: radius of the lens's disk, pixels of the video.
        noise_gain_range: of the sensor in lit scenes, ISO / 100.
        low_light_stops_range: by how many halvings the exposure of a dark scene is short.
        exposure_ms_range: shutter time in lit scenes, which makes motion blur.
        dark_exposure_ms_range: in dark ones.
        print_severity_range: of the documents' print and scan.
        seed: of everything random.

    Raises:
        InputError: a value out of its limits.
    """

    sizes: tuple[int, ...] = (12, 20, 32, 64)
    people: int = 40
    unknown_share: float = 0.25
    documents_only: int = 0
    people_a_scene: int = 4
    visits: int = 1
    seconds: float = 4.0
    fps: int = 12
    width: int = 960
    height: int = 540
    bit_rate_kbit: int = 600
    low_light: float = 0.3
    impostor_frames: float = 0.0
    yaw_deg: float = 20.0
    pitch_deg_range: Range = (2.0, 14.0)
    defocus_px_range: Range = (0.3, 1.2)
    noise_gain_range: Range = (2.0, 16.0)
    low_light_stops_range: Range = (1.5, 4.0)
    exposure_ms_range: Range = (3.0, 15.0)
    dark_exposure_ms_range: Range = (15.0, 33.0)
    print_severity_range: Range = (0.1, 0.5)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _WHOLE.items():
            check_whole(getattr(self, name), name, low, high)
        for name in _SHARES:
            check_range(getattr(self, name), name, 0, 1)
        check_range(self.impostor_frames, "impostor_frames", 0, 0.9)
        check_range(self.seconds, "seconds", 0.2, 3600)
        check_range(self.yaw_deg, "yaw_deg", 0, MAX_YAW_DEG)
        for name, limits in _RANGES.items():
            object.__setattr__(self, name, _check_pair(getattr(self, name), name, limits))
        if self.width % 2 or self.height % 2:
            raise InputError(f"width and height must be even, got {self.width} x {self.height}")
        if self.count_frames() < 1:
            raise InputError(f"a video needs a frame, got {self.seconds} s at {self.fps} fps")
        if self.count_enrolled() < 2:
            raise InputError(
                f"each half needs an enrolled person, got {self.people} people with "
                f"unknown_share {self.unknown_share}; raise people or lower unknown_share"
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        if not self.sizes:
            raise InputError("sizes must hold at least one width of a face in pixels, got none")
        sizes = [check_whole(size, "size", *SIZE_LIMITS) for size in self.sizes]
        if len(set(sizes)) < len(sizes):
            raise InputError(f"sizes must differ, got {sizes}")
        if _HEADS_HIGH * max(sizes) > min(self.width, self.height):
            raise InputError(
                f"faces of {max(sizes)} pixels need a picture of at least "
                f"{_HEADS_HIGH * max(sizes)} each way, got {self.width} x {self.height}; "
                "raise width and height"
            )
        object.__setattr__(self, "sizes", tuple(sizes))

    def count_frames(self) -> int:
        """Return the frames of a video."""
        return round(self.seconds * self.fps)

    def count_enrolled(self) -> int:
        """Return how many of `people` have a document."""
        return self.people - self.count_unknown()

    def count_unknown(self) -> int:
        """Return how many of `people` have none."""
        return round(self.people * self.unknown_share)

    def to_json(self) -> dict[str, Any]:
        """Return every parameter as JSON takes it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def _check_pair(value: Any, name: str, limits: Range) -> Range:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(f"{name} must be two numbers, least and greatest, got {value!r}")
    low, high = (float(check_range(number, name, *limits)) for number in value)
    if low > high:
        raise InputError(f"{name} must run from least to greatest, got {value}; turn them round")
    return low, high
