"""What lens, motion and sampling do to a picture: defocus, motion blur, few pixels, two fields."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_one_of, check_range
from facerec.data.align import ARCFACE_TEMPLATE, CHIP_SIZE
from facerec.data.degrade_operation import Image, Operation
from facerec.data.linear_light import from_linear, to_linear

_METHODS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
# A camera's pixel integrates over its area; the others stand for cheap software scalers.
_DOWN = ("area", "area", "area", "linear", "cubic", "nearest")
_UP = ("linear", "linear", "cubic", "cubic", "lanczos", "nearest")
_WIDEST = 512.0
_FINE = 9
_POINTS_PER_PIXEL = 16
DEINTERLACERS = ("weave", "bob")


@dataclass(frozen=True)
class DownUp(Operation):
    """Few pixels: the picture is shrunk, and enlarged again at the end of all operations.

    Attributes:
        scale: share of the picture's own sides, in [0.02, 1].
        down: interpolation that shrinks: nearest, linear, area, cubic or lanczos.
        up: interpolation that enlarges.
    """

    scale: float
    down: str = "area"
    up: str = "linear"

    name: ClassVar[str] = "down_up"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"scale": (0.02, 1)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(self.down, "down_up.down", _METHODS)
        check_one_of(self.up, "down_up.up", _METHODS)

    @classmethod
    def draw(cls, scale: float, rng: np.random.Generator) -> DownUp:
        """Return one with random interpolation both ways."""
        down, up = rng.integers((len(_DOWN), len(_UP))).tolist()
        return cls(scale, _DOWN[down], _UP[up])

    @classmethod
    def to_eye_distance(
        cls, pixels: float, width: int = CHIP_SIZE, down: str = "area", up: str = "linear"
    ) -> DownUp:
        """Return one that leaves `pixels` between the eyes of an aligned chip `width` wide.

        Raises:
            InputError: more than the chip has (35.2 at 112 pixels), or less than 1.
        """
        own = float(ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0]) * width / CHIP_SIZE
        check_range(pixels, "pixels between the eyes", 1, own)
        return cls(pixels / own, down, up)

    def apply(self, chip: Image) -> Image:
        """Return the picture shrunk and enlarged."""
        return self.enlarge(self.shrink(chip), chip.shape[1], chip.shape[0])

    def shrink(self, chip: Image) -> Image:
        """Return the picture at `scale`, at least one pixel each way."""
        sides = tuple(max(1, round(self.scale * side)) for side in chip.shape[1::-1])
        return _resize(chip, sides[0], sides[1], self.down)

    def enlarge(self, small: Image, width: int, height: int) -> Image:
        """Return the picture at its old size."""
        return _resize(small, width, height, self.up)


def _resize(image: Image, width: int, height: int, method: str) -> Image:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=_METHODS[method]), np.uint8)


@dataclass(frozen=True)
class Defocus(Operation):
    """A lens out of focus: every point becomes a disk, in linear light.

    Attributes:
        radius_px: of the disk, in [0, 512].
    """

    radius_px: float

    name: ClassVar[str] = "defocus"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"radius_px": (0, _WIDEST)}

    @classmethod
    def draw(cls, radius_px: float, rng: np.random.Generator) -> Defocus:
        """Return one with the radius rounded to 1/50 pixel, so that kernels can be reused."""
        return cls(round(radius_px * 50) / 50)

    def apply(self, chip: Image) -> Image:
        """Return the blurred picture; beyond its border it goes on with the border's value."""
        return _convolve(chip, disk_kernel(self.radius_px))


@functools.lru_cache(maxsize=256)
def disk_kernel(radius: float) -> NDArray[np.float32]:
    """Return a disk of `radius` pixels with smooth edge, float32 (k, k), odd k, sum 1, read only.

    A value is the share of its pixel that the disk covers.
    """
    reach = max(0, math.ceil(radius - 0.5))
    if radius <= 6:
        fine = np.arange(_FINE * (2 * reach + 1)) + 0.5
        place = fine / _FINE - reach - 0.5
        inside = (place**2 + place[:, None] ** 2 <= radius**2).astype(np.float64)
        # A disk smaller than the grid is a point.
        inside[len(fine) // 2, len(fine) // 2] = 1
        side = 2 * reach + 1
        kernel = inside.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    else:
        place = np.arange(-reach, reach + 1, dtype=np.float64)
        kernel = np.clip(radius + 0.5 - np.hypot(place, place[:, None]), 0, 1)
    disk = np.asarray(kernel / kernel.sum(), np.float32)
    disk.flags.writeable = False
    return disk


@dataclass(frozen=True)
class Motion(Operation):
    """Motion while the shutter is open: every point becomes a line or an arc, in linear light.

    Attributes:
        length_px: of the path, in [0, 512].
        angle_deg: its direction in the middle; 0 to the right, 90 downwards.
        bend_deg: by how much it turns from end to end, in [-180, 180].
    """

    length_px: float
    angle_deg: float = 0.0
    bend_deg: float = 0.0

    name: ClassVar[str] = "motion"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "length_px": (0, _WIDEST),
        "angle_deg": (-360, 360),
        "bend_deg": (-180, 180),
    }

    @classmethod
    def draw(cls, length_px: float, rng: np.random.Generator) -> Motion:
        """Return one in a random direction, slightly bent half of the time."""
        angle, bent, bend = rng.random(3).tolist()
        return cls(length_px, 180 * angle, 80 * bend - 40 if bent < 0.5 else 0.0)

    def apply(self, chip: Image) -> Image:
        """Return the blurred picture; beyond its border it goes on with the border's value."""
        return _convolve(chip, path_kernel(self.length_px, self.angle_deg, self.bend_deg))


def path_kernel(length: float, angle_deg: float, bend_deg: float = 0.0) -> NDArray[np.float32]:
    """Return an even path about its middle, float32 (h, w), both odd, sum 1.

    Args:
        length: of the path, pixels.
        angle_deg: direction in the middle; 0 to the right, 90 downwards.
        bend_deg: by how much it turns from end to end.
    """
    count = max(1, math.ceil(length * _POINTS_PER_PIXEL))
    share = (np.arange(count) + 0.5) / count - 0.5
    heading = np.deg2rad(angle_deg + bend_deg * share)
    # Positions are summed headings; the centroid stays in place, so that a face does.
    x, y = np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))
    step = length / count
    # Rounded, so that a speck below zero is not taken for the pixel before.
    x, y = np.round((x - x.mean()) * step, 9), np.round((y - y.mean()) * step, 9)
    # No larger than need be: OpenCV is several times slower from some 120 values on.
    aside, away = (math.ceil(np.abs(side).max()) for side in (x, y))
    width, height = 2 * aside + 2, 2 * away + 2
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, bottom_share = x - left, y - top
    kernel = np.zeros(width * height)
    corner = (top + away) * width + left + aside
    for down in (0, 1):
        for across in (0, 1):
            weight = np.abs(1 - down - bottom_share) * np.abs(1 - across - right_share)
            kernel += np.bincount(corner + down * width + across, weight, len(kernel))
    inner = kernel.reshape(height, width)[:-1, :-1]
    return np.asarray(inner / inner.sum(), np.float32)


@dataclass(frozen=True)
class Interlace(Operation):
    """An interlaced camera: odd rows are seen later than even rows.

    Attributes:
        shift_px: by how much the face moved to the right between the fields, in [-64, 64].
        method: "weave" shows both fields, which combs edges; "bob" shows the even field alone
            and fills the odd rows from their neighbours.
    """

    shift_px: float
    method: str = "weave"

    name: ClassVar[str] = "interlace"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"shift_px": (-64, 64)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(self.method, "interlace.method", DEINTERLACERS)

    @classmethod
    def draw(cls, shift_px: float, rng: np.random.Generator) -> Interlace:
        """Return one that moves to either side; one in three shows a single field."""
        side, method = rng.random(2).tolist()
        shift = shift_px if side < 0.5 else -shift_px
        return cls(shift, "bob" if method < 1 / 3 else "weave")

    def apply(self, chip: Image) -> Image:
        """Return the picture after deinterlacing."""
        if len(chip) < 2:
            return chip
        out: Image = chip.copy()
        if self.method == "bob":
            above = chip[0:-1:2]
            below = np.concatenate([chip[2::2], above[-1:]])[: len(above)]
            out[1::2] = cv2.addWeighted(above, 0.5, below, 0.5, 0)
            return out
        later = cv2.warpAffine(
            chip,
            np.array([[1, 0, self.shift_px], [0, 1, 0]], np.float64),
            chip.shape[1::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        out[1::2] = later[1::2]
        return out


def _convolve(chip: Image, kernel: NDArray[np.float32]) -> Image:
    if kernel.size == 1:
        return chip
    light = cv2.filter2D(to_linear(chip), -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return from_linear(np.asarray(light, np.float32))
