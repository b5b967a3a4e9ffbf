"""A document's portrait: printed, laminated, and scanned or photographed again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_range
from facerec.data.degrade_codec import Jpeg
from facerec.data.degrade_operation import SEEDS, Image, Operation, draw_seed
from facerec.data.linear_light import from_linear, to_linear

Light = NDArray[np.float32]

# The screens of cyan, magenta and yellow (which hold back red, green, blue) are turned apart, so
# that their dots make no common pattern.
_SCREEN_ANGLES = (15.0, 75.0, 0.0)
_SCREEN_FINENESS = 3
_DOT_EDGE = 0.35
_LUMA = (0.2126, 0.7152, 0.0722)
_CHIP_WIDTH = 112


@dataclass(frozen=True)
class PrintScan(Operation):
    """A picture printed on paper or card and scanned again, in this order.

    Attributes:
        saturation: colour that the inks keep, in [0, 1].
        black: reflectance of the darkest ink.
        white: reflectance of the paper.
        dot_gain: by how much a half tone is darker than it should be, because printed dots
            spread, share of the full range, in [0, 0.25].
        halftone: contrast of the printed dots, 0 continuous tone to 1 pure ink.
        pitch_px: of the dots, in pixels of the chip, in [1, 16].
        texture: standard deviation of the paper's reflectance, share.
        hologram: brightness of the rainbow lines of a laminate, share of white.
        period_px: of these lines.
        glare: brightness of a lamp's reflection in its middle, share of white.
        glare_x: its place, share of the width.
        glare_y: its place, share of the height.
        glare_size: its standard deviation, share of the width.
        rotation_deg: by which it lay askew, in [-15, 15].
        scan_scale: pixels of the scan over pixels of the chip, in [0.1, 1].
        blur_px: standard deviation of the scanner's blur, pixels.
        quality: of the scan's JPEG, 1 to 100; 0 for none.
        seed: of paper and laminate.
    """

    saturation: float = 1.0
    black: float = 0.0
    white: float = 1.0
    dot_gain: float = 0.0
    halftone: float = 0.0
    pitch_px: float = 1.5
    texture: float = 0.0
    hologram: float = 0.0
    period_px: float = 24.0
    glare: float = 0.0
    glare_x: float = 0.5
    glare_y: float = 0.5
    glare_size: float = 0.25
    rotation_deg: float = 0.0
    scan_scale: float = 1.0
    blur_px: float = 0.0
    quality: int = 0
    seed: int = 0

    name: ClassVar[str] = "print_scan"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "saturation": (0, 1),
        "black": (0, 0.5),
        "white": (0.5, 1),
        "dot_gain": (0, 0.25),
        "halftone": (0, 1),
        "pitch_px": (1, 16),
        "texture": (0, 0.2),
        "hologram": (0, 1),
        "period_px": (2, 512),
        "glare": (0, 2),
        "glare_x": (-1, 2),
        "glare_y": (-1, 2),
        "glare_size": (0.01, 2),
        "rotation_deg": (-15, 15),
        "scan_scale": (0.1, 1),
        "blur_px": (0, 16),
        "quality": (0, 100),
        "seed": (0, SEEDS - 1),
    }

    @classmethod
    def draw(cls, severity: float, rng: np.random.Generator) -> PrintScan:
        """Return one whose faults grow with `severity` in [0, 1].

        Two in three are printed in dots, one in three lie under a laminate's lines, one in three
        reflect a lamp.
        """
        check_range(severity, "severity", 0, 1)
        seed = draw_seed(rng)
        amount = (severity * rng.uniform(0.4, 1, 9)).tolist()
        dots, lines, lamp, pitch, period, x, y, size, side = rng.random(9).tolist()
        return cls(
            saturation=1 - 0.55 * amount[0],
            black=0.06 * amount[1],
            white=1 - 0.25 * amount[2],
            dot_gain=0.12 * amount[3],
            halftone=0.6 * amount[4] if dots < 2 / 3 else 0.0,
            pitch_px=1.2 + 1.6 * pitch,
            texture=0.03 * amount[5],
            hologram=0.16 * amount[6] if lines < 1 / 3 else 0.0,
            period_px=14 + 30 * period,
            glare=0.7 * amount[7] if lamp < 1 / 3 else 0.0,
            glare_x=x,
            glare_y=y,
            glare_size=0.1 + 0.25 * size,
            rotation_deg=2.5 * severity * (2 * side - 1),
            scan_scale=1 - 0.55 * amount[8],
            blur_px=0.9 * amount[5],
            quality=round(95 - 45 * amount[3]),
            seed=seed,
        )

    def apply(self, chip: Image) -> Image:
        """Return the scan."""
        rng = np.random.default_rng(self.seed)
        light = self._print(to_linear(chip))
        if self.texture:
            light *= 1 + np.float32(self.texture) * _paper_grain(light.shape[:2], rng)[..., None]
        if self.hologram:
            light += np.float32(self.hologram) * _hologram_lines(chip.shape, self.period_px, rng)
        if self.glare:
            light += np.float32(self.glare) * self._lamp(chip.shape)[..., None]
        scanned = from_linear(self._scan(light))
        return Jpeg(self.quality).apply(scanned) if self.quality else scanned

    def _print(self, light: Light) -> Light:
        """Return what the inks make of linear light, float32 (h, w, 3)."""
        grey = light @ np.array(_LUMA, np.float32)
        light = grey[..., None] + np.float32(self.saturation) * (light - grey[..., None])
        if self.dot_gain:
            # Printers count tone about as the eye does; the surplus of ink follows t(1 - t).
            tone = np.sqrt(light)
            light = tone - np.float32(4 * self.dot_gain) * tone * (1 - tone)
            light *= light
        if self.halftone:
            dots = _halftone(light, self.pitch_px, self.seed)
            light += np.float32(self.halftone) * (dots - light)
        light *= np.float32(self.white - self.black)
        light += np.float32(self.black)
        return light

    def _lamp(self, shape: tuple[int, ...]) -> Light:
        """Return a reflection, float32 (h, w), 1 in its middle."""
        height, width = shape[:2]
        across = (np.arange(width) - self.glare_x * width) / (self.glare_size * width)
        down = (np.arange(height) - self.glare_y * height) / (self.glare_size * width)
        # Brighter than white in the middle, as a lamp is: a flat core with a soft edge.
        bell = np.exp(-0.5 * down[:, None] ** 2) * np.exp(-0.5 * across**2)
        return np.asarray(np.minimum(1.6 * bell, 1), np.float32)

    def _scan(self, light: Light) -> Light:
        """Return the print turned, sampled and blurred, float32 (h, w, 3)."""
        height, width = light.shape[:2]
        if self.rotation_deg:
            middle = ((width - 1) / 2, (height - 1) / 2)
            turn = cv2.getRotationMatrix2D(middle, self.rotation_deg, 1.0)
            border = cv2.BORDER_REPLICATE
            light = np.asarray(cv2.warpAffine(light, turn, (width, height), borderMode=border))
        if self.blur_px > 0.1:
            light = np.asarray(cv2.GaussianBlur(light, (0, 0), self.blur_px))
        small = tuple(max(1, round(self.scan_scale * side)) for side in (width, height))
        if small != (width, height):
            fewer = cv2.resize(light, small, interpolation=cv2.INTER_AREA)
            light = np.asarray(cv2.resize(fewer, (width, height), interpolation=cv2.INTER_CUBIC))
        return light


def _halftone(light: Light, pitch: float, seed: int) -> Light:
    """Return light as round dots of pure ink, each colour on its own screen, (h, w, 3)."""
    height, width = light.shape[:2]
    fine = (width * _SCREEN_FINENESS, height * _SCREEN_FINENESS)
    start = np.random.default_rng([seed, 1]).uniform(0, 2 * np.pi, (len(_SCREEN_ANGLES), 2))
    planes = []
    for colour, angle in enumerate(_SCREEN_ANGLES):
        tone = np.ascontiguousarray(light[..., colour])
        plane = np.asarray(cv2.resize(tone, fine, interpolation=cv2.INTER_LINEAR), np.float32)
        plane -= _screen(fine, pitch * _SCREEN_FINENESS, angle, start[colour])
        # Ink where the tone is darker than the screen; its edge is soft, like ink on paper.
        plane *= np.float32(1 / _DOT_EDGE)
        plane += np.float32(0.5)
        np.clip(plane, 0, 1, out=plane)
        planes.append(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA))
    return np.asarray(cv2.merge(planes), np.float32).reshape(light.shape)


def _screen(size: tuple[int, int], pitch: float, angle: float, start: NDArray[np.float64]) -> Light:
    """Return thresholds of one ink's screen, float32 (h, w), evenly distributed over [0, 1]."""
    turn = np.exp(1j * np.deg2rad(angle)) * 2 * np.pi / pitch
    spot = _wave(size, turn.real, turn.imag, start[0]) + _wave(
        size, -turn.imag, turn.real, start[1]
    )
    level = cv2.convertScaleAbs(spot, alpha=255 / 4, beta=255 / 2)
    return np.asarray(cv2.LUT(level, _even_thresholds()), np.float32)


def _wave(size: tuple[int, int], across: float, down: float, start: float) -> Light:
    """Return cos(across * x + down * y + start), float32 (h, w), as products of two waves."""
    along = across * np.arange(size[0]) + start
    aside = down * np.arange(size[1])
    columns = np.stack([np.cos(aside), -np.sin(aside)], axis=1).astype(np.float32)
    rows = np.stack([np.cos(along), np.sin(along)]).astype(np.float32)
    return np.asarray(columns @ rows, np.float32)


@functools.cache
def _even_thresholds() -> Light:
    """Return the share of a screen's cell below each of 256 heights of cos u + cos v."""
    wave = np.cos(2 * np.pi * (np.arange(256) + 0.5) / 256)
    heights = np.sort((wave + wave[:, None]).ravel())
    levels = np.arange(256) * 4 / 255 - 2
    return (np.searchsorted(heights, levels) / len(heights)).astype(np.float32)


def _paper_grain(shape: tuple[int, ...], rng: np.random.Generator) -> Light:
    """Return soft grain of unit variance, float32 (h, w)."""
    grain = rng.standard_normal(shape, np.float32)
    sigma = 0.8
    soft = np.asarray(cv2.GaussianBlur(grain, (5, 5), sigma, borderType=cv2.BORDER_REFLECT))
    taps = cv2.getGaussianKernel(5, sigma)
    return np.asarray(soft * np.float32(1 / float((taps**2).sum())), np.float32)


def _hologram_lines(shape: tuple[int, ...], period: float, rng: np.random.Generator) -> Light:
    """Return waving lines whose colour runs through the rainbow, float32 (h, w, 3), in [0, 1]."""
    height, width = shape[:2]
    angle, phase, hue, x, y = rng.random(5).tolist()
    across = np.arange(width, dtype=np.float32)
    down = np.arange(height, dtype=np.float32)[:, None]
    along = np.float32(np.cos(np.pi * angle)) * across + np.float32(np.sin(np.pi * angle)) * down
    sway = np.sin(2 * np.pi * (phase + down / (4 * period))).astype(np.float32)
    turns = along / np.float32(period) + np.float32(0.6) * sway
    # A hologram shines where the lamp and the eye happen to agree.
    far = ((across - x * width) / (0.6 * _CHIP_WIDTH)) ** 2
    far = far + ((down - y * height) / (0.6 * _CHIP_WIDTH)) ** 2
    patch = np.exp(-0.5 * far).astype(np.float32)
    lines = np.empty((height, width, 3), np.float32)
    for colour in range(3):
        lag = np.float32(hue + colour / 3)
        line = 0.5 + 0.5 * np.cos(np.float32(2 * np.pi) * (turns + np.float32(0.35) * lag))
        shine = 0.6 + 0.4 * np.cos(np.float32(2 * np.pi) * (turns / 4 + lag))
        lines[..., colour] = patch * line * shine
    return lines
