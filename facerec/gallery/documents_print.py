"""Whether a portrait looks like a scan of a print: dots in its spectrum, tones of ink on paper."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_image

_TILE = 64
_TILES_A_SIDE = 9
_LEAST_SIDE = 2 * _TILE  # of a halved picture
_COARSEST = 4
_LEAST_CYCLES = 0.09  # a pixel: dots up to 11 pixels apart; below lies the face itself
_AXIS_BINS = 2.5
_GRID_BINS = 1.5
# 1,260 photographs: half reach 8 dB, 99 % stay below 15 dB, one was filmed off a screen (23 dB).
_PEAKS_DB = (14.0, 20.0)
_CHROMA = (14.0, 7.0)
_DARKEST = (30.0, 55.0)
_MOST_WITHOUT_DOTS = 0.5


@dataclass(frozen=True)
class PrintCues:
    """What speaks for a print.

    Attributes:
        peak_db: by how much the strongest periodic pattern stands above the spectrum around it,
            decibels; about 5 to 16 in photographs, 0 in those too small to tell.
        chroma: mean CIELAB chroma; about 6 to 35 in colour photographs, 0 in grey ones.
        darkest: luma that one pixel in a hundred is below, in [0, 255].
        score: in [0, 1], see `print_scan_score`.
    """

    peak_db: float
    chroma: float
    darkest: float
    score: float


def print_scan_score(portrait: NDArray[np.uint8]) -> float:
    """Return how much a portrait looks like a scan of a print, in [0, 1].

    No probability: it was set with real photographs and simulated prints
    (facerec.data.degrade_print), not with real scans, and it is meant to ask a person, not to
    decide. Above 0.5 a fine regular pattern was seen: printed dots, or the lines of a screen that
    was photographed, or a picture enlarged by repeating pixels. Up to 0.5 only the tones speak
    for ink on paper; grey, hazy photographs reach that too. 0 says that neither shows, and
    inkjet and dye prints, faint screens and coarse scans show neither.

    Measured: 3 of 1,260 photographs are above 0.5, one of them indeed filmed off a screen; of
    simulated dots 3 to 16 pixels apart at 0.4 of full contrast, all are in portraits of 450 x 600
    pixels, and 67 to 100 % of those 3 to 8 apart in chips of 112; at 0.2 in chips hardly any.

    See `print_cues` for the method.
    """
    return print_cues(portrait).score


def print_cues(portrait: NDArray[np.uint8]) -> PrintCues:
    """Return what speaks for a print, and the score made of it.

    Dots: each colour's power spectrum is averaged over Hann-windowed tiles of 64 pixels that
    overlap (Welch's method), at full size and halved while both sides keep 128 pixels. Natural
    pictures fall off evenly with frequency; a halftone screen, or the moire of one with the
    scanner's grid, stands out. The cue is the largest excess over the median at equal frequency.
    Frequencies below 0.09 cycles a pixel, near the axes (edges, scan lines) and at the harmonics
    of JPEG's 8x8 blocks are left out.

    Tones: inks are duller and their darkest is lighter than a camera's. Both must hold, and
    without dots they count half.

    The noise of paper was tried and left out: it told simulated prints from photographs no better
    than chance, because cameras and codecs differ more.

    Args:
        portrait: uint8 RGB (h, w, 3), best the crop of `crop_portrait`: at the scan's own
            resolution, as resizing blurs the dots away. With a side below 64 pixels only the
            tones count.

    Raises:
        InputError: no uint8 RGB array.
    """
    check_image(portrait, "portrait")
    peak = _find_peaks(portrait)
    lab = cv2.cvtColor(portrait.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma = float(np.hypot(lab[..., 1], lab[..., 2]).mean())
    darkest = float(np.percentile(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), 1))
    dots = _ramp(peak, _PEAKS_DB)
    tones = _ramp(chroma, _CHROMA) * _ramp(darkest, _DARKEST)
    without = _MOST_WITHOUT_DOTS * tones
    score = without + (1 - without) * dots
    return PrintCues(peak, chroma, darkest, score)


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """Return 0 at the first end, 1 at the second, in between and beyond as a line cut to [0, 1]."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1))


def _find_peaks(portrait: NDArray[np.uint8]) -> float:
    """Return the largest excess at any scale, decibels; 0 where not one tile fits."""
    highest = 0.0
    scaled = portrait
    for _ in range(_COARSEST):
        if min(scaled.shape[:2]) < (_TILE if scaled is portrait else _LEAST_SIDE):
            break
        highest = max(highest, _find_peak(scaled))
        size = (scaled.shape[1] // 2, scaled.shape[0] // 2)
        scaled = np.asarray(cv2.resize(scaled, size, interpolation=cv2.INTER_AREA), np.uint8)
    return highest


def _find_peak(image: NDArray[np.uint8]) -> float:
    """Return the largest excess of any colour's spectrum over its radial median, decibels."""
    tops, lefts = (_starts(side) for side in image.shape[:2])
    cuts = [image[y : y + _TILE, x : x + _TILE] for y in tops for x in lefts]
    tiles = np.stack(cuts).astype(np.float32)
    tiles = (tiles - tiles.mean(axis=(1, 2), keepdims=True)) * _window()[..., None]
    power = (np.abs(np.fft.rfft2(tiles, axes=(1, 2))) ** 2).mean(axis=0)
    level = 10 * np.log10(power + _TILE**2 * 1e-3)  # a floor, for flat pictures
    rings = _rings()
    highest = 0.0
    for ring in range(1, int(rings.max()) + 1):
        inside = level[rings == ring]
        if len(inside) >= 8:
            highest = max(highest, float((inside - np.median(inside, axis=0)).max()))
    return highest


def _starts(side: int) -> NDArray[np.int64]:
    """Return where the tiles along a side begin: overlapping by half where there are enough."""
    count = min(_TILES_A_SIDE, max(1, -(-2 * side // _TILE) - 1))
    return np.unique(np.linspace(0, side - _TILE, count).round().astype(np.int64))


@functools.cache
def _window() -> NDArray[np.float32]:
    taps = np.hanning(_TILE + 2)[1:-1]
    return np.outer(taps, taps).astype(np.float32)


@functools.cache
def _rings() -> NDArray[np.int64]:
    """Return the radius of each frequency in bins, int64 (64, 33); 0 where it does not count."""
    down = np.fft.fftfreq(_TILE)[:, None]
    across = np.fft.rfftfreq(_TILE)[None]
    radius = np.hypot(down, across)
    counts = (radius >= _LEAST_CYCLES) & (radius <= 0.5)
    counts &= np.minimum(abs(down), abs(across)) > _AXIS_BINS / _TILE
    counts &= ~(_near_blocks(down) & _near_blocks(across))
    return np.where(counts, np.round(radius * _TILE), 0).astype(np.int64)


def _near_blocks(frequency: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which frequencies are near a harmonic of 8 pixels, or zero."""
    away = np.abs(frequency * 8 - np.round(frequency * 8)) / 8
    return np.asarray(away <= _GRID_BINS / _TILE)
