"""Surveillance pictures and scanned documents made from good chips, with a record of how.

What happens follows the light: print and scan of a document, lens, motion, sampling, sensor and
its processing, compression. The picture stays small from sampling on and is enlarged at the very
end, as an aligned face of few pixels is.

Augmentation that takes no care costs small nets up to 12 points (TRAINING 2.1), so by default one
chip in five is touched, and the strength rises with the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from facerec.checks import InputError, check_image, check_known, check_one_of, check_range
from facerec.data.align import CHIP_SIZE
from facerec.data.degrade_codec import H264, Jpeg, check_h264
from facerec.data.degrade_operation import SEEDS, Image, Operation
from facerec.data.degrade_optics import Defocus, DownUp, Interlace, Motion
from facerec.data.degrade_print import PrintScan
from facerec.data.degrade_replay import OPERATIONS, build_record, replay, run_operations
from facerec.data.degrade_sensor import LowLight, SensorNoise

__all__ = [
    "PRESETS",
    "SURVEILLANCE",
    "Degradation",
    "build_degradation",
    "replay",
]

PRESETS = ("none", "surveillance", "document")

Range = tuple[float, float]


class _Draw(Protocol):
    def __call__(self, level: float, rng: np.random.Generator, /) -> Operation: ...


class _Slot(NamedTuple):
    """An operation's place: its kind, the range of its strength, and how far that may go.

    The limits run from mild to harsh; `pixels` marks strengths in pixels of a 112 pixel chip.
    """

    kind: type[Operation]
    draw: _Draw
    strength: str
    limits: Range
    pixels: bool = False


# In the order of the light, which is that of OPERATIONS.
_SLOTS = (
    _Slot(PrintScan, PrintScan.draw, "print_severity", (0, 1)),
    _Slot(Defocus, Defocus.draw, "defocus_radius_px", (0, 16), pixels=True),
    _Slot(Motion, Motion.draw, "motion_length_px", (0, 48), pixels=True),
    _Slot(DownUp, DownUp.draw, "down_up_scale", (1, 0.05)),
    _Slot(Interlace, Interlace.draw, "interlace_shift_px", (0, 32), pixels=True),
    _Slot(LowLight, LowLight.draw, "low_light_stops", (0, 8)),
    _Slot(SensorNoise, SensorNoise.draw, "sensor_noise_gain", (1, 256)),
    _Slot(H264, H264.draw, "h264_crf", (0, 51)),
    _Slot(Jpeg, Jpeg.draw, "jpeg_quality", (100, 1)),
)
SURVEILLANCE = tuple(name for name in OPERATIONS if name != PrintScan.name)
"""What a camera far away does, of which `force` applies at least one."""


@dataclass(frozen=True)
class Degradation:
    """How often chips are degraded, by what, and how much.

    `probability` says whether anything happens at all; then each operation happens with its own
    probability, independently, so that a bad picture is bad in several ways, as real ones are.
    Each strength is drawn evenly from (mild, harsh). Both rise with the training, from
    `initial_share` to all of it: the share at progress p is

        initial_share + (1 - initial_share) * (p - ramp_start) / (ramp_full - ramp_start)

    between the two ends of the ramp, and multiplies `probability` and the way from mild to harsh.

    Attributes:
        probability: that a chip is degraded, when all of the ramp is done.
        print_scan: probability of print and scan, in a chip that is degraded; so below.
        defocus: of a lens out of focus.
        motion: of motion blur.
        down_up: of few pixels.
        interlace: of an interlaced camera.
        low_light: of a dark scene.
        sensor_noise: of noise.
        h264: of video compression; needs the package av.
        jpeg: of JPEG.
        print_severity: (mild, harsh), in [0, 1].
        defocus_radius_px: of the disk, pixels of a 112 pixel chip; larger chips get more.
        motion_length_px: of the path, likewise.
        down_up_scale: share of the chip's sides; 0.25 leaves 9 pixels between the eyes.
        interlace_shift_px: between the two fields, pixels of a 112 pixel chip.
        low_light_stops: halvings of the exposure.
        sensor_noise_gain: ISO / 100.
        h264_crf: constant rate factor of x264.
        jpeg_quality: of JPEG.
        ramp_start: progress at which the ramp starts, in [0, 1].
        ramp_full: progress from which the share is 1.
        initial_share: share before the ramp, in [0, 1].

    Raises:
        InputError: a value out of its limits, a range from harsh to mild, or `h264` above 0
            without the package av.
    """

    probability: float = 0.2
    print_scan: float = 0.0
    defocus: float = 0.35
    motion: float = 0.35
    down_up: float = 0.5
    interlace: float = 0.05
    low_light: float = 0.2
    sensor_noise: float = 0.5
    h264: float = 0.0
    jpeg: float = 0.5
    print_severity: Range = (0.1, 0.5)
    defocus_radius_px: Range = (0.5, 2.0)
    motion_length_px: Range = (1.5, 7.0)
    down_up_scale: Range = (0.9, 0.3)
    interlace_shift_px: Range = (0.5, 2.0)
    low_light_stops: Range = (0.5, 3.0)
    sensor_noise_gain: Range = (2.0, 24.0)
    h264_crf: Range = (22.0, 34.0)
    jpeg_quality: Range = (92.0, 40.0)
    ramp_start: float = 0.0
    ramp_full: float = 0.5
    initial_share: float = 0.25

    def __post_init__(self) -> None:
        shares = ("probability", *OPERATIONS, "ramp_start", "ramp_full", "initial_share")
        for name in shares:
            check_range(getattr(self, name), name, 0, 1)
        if self.ramp_full < self.ramp_start:
            raise InputError(
                f"ramp_full must not come before ramp_start, got {self.ramp_full} "
                f"and {self.ramp_start}"
            )
        for slot in _SLOTS:
            bounds = _check_strength(getattr(self, slot.strength), slot.strength, slot.limits)
            object.__setattr__(self, slot.strength, bounds)
        if self.h264 and self.probability:
            check_h264()

    @classmethod
    def surveillance(cls, severity: float = 0.5, **changes: Any) -> Degradation:
        """Return the preset for cameras: `severity` says how bad, not how often.

        Args:
            severity: 0 hardly visible to 1 hardly a face; moves the harsh end of every strength,
                and how many operations meet in one picture.
            changes: any attribute, instead of the preset's.

        Raises:
            InputError: severity out of [0, 1], an unknown attribute or a bad value.
        """
        check_range(severity, "severity", 0, 1)
        values: dict[str, Any] = {
            name: (mild, mild + severity * (worst - mild))
            for name, (mild, worst) in _SURVEILLANCE_RANGES.items()
        }
        values |= {
            name: (0.5 + 0.5 * severity) * share for name, share in _SURVEILLANCE_SHARES.items()
        }
        return _build(values | changes)

    @classmethod
    def document(cls, severity: float = 0.5, **changes: Any) -> Degradation:
        """Return the preset for documents: print and scan alone.

        Args:
            severity: in [0, 1], the harsh end of `print_severity`.
            changes: any attribute, instead of the preset's.

        Raises:
            InputError: severity out of [0, 1], an unknown attribute or a bad value.
        """
        check_range(severity, "severity", 0, 1)
        values: dict[str, Any] = dict.fromkeys(SURVEILLANCE, 0.0)
        values |= {"print_scan": 1.0, "print_severity": (0.25 * severity, severity)}
        return _build(values | changes)

    def share(self, progress: float) -> float:
        """Return the share of probability and strength at `progress` of the training, in [0, 1].

        Raises:
            InputError: progress out of [0, 1].
        """
        check_range(progress, "progress", 0, 1)
        if progress >= self.ramp_full:
            return 1.0
        if progress <= self.ramp_start:
            return self.initial_share
        done = (progress - self.ramp_start) / (self.ramp_full - self.ramp_start)
        return self.initial_share + (1 - self.initial_share) * done

    def apply(
        self, chip: Image, rng: np.random.Generator, progress: float = 1.0, force: bool = False
    ) -> tuple[Image, dict[str, Any]]:
        """Return (the chip or a degraded copy, the record of what was done).

        The same number of draws is made whatever the settings, and each operation draws from a
        generator of its own, so that turning one off leaves the others as they were.

        Args:
            chip: uint8 RGB (h, w, 3), not changed.
            rng: of this chip.
            progress: share of the training that is done, in [0, 1].
            force: degrade this chip, by at least one operation of `SURVEILLANCE` (where all of
                these have probability 0: by at least one of the others).

        Returns:
            The picture, and a record that JSON takes and `replay` reads; empty when nothing was
            done.

        Raises:
            InputError: no picture, progress out of [0, 1], or force with no operation to apply.
        """
        check_image(chip, "chip")
        share = self.share(progress)
        gate, *chances = rng.random(1 + len(_SLOTS)).tolist()
        seeds = rng.integers(SEEDS, size=len(_SLOTS)).tolist()
        if not force and gate >= self.probability * share:
            return chip, {}
        operations = [
            self._draw(_SLOTS[place], share, chip.shape[1], np.random.default_rng(seeds[place]))
            for place in self._choose(chances, force)
        ]
        if not operations:
            return chip, {}
        return run_operations(chip, operations), build_record(operations)

    def _choose(self, chances: Sequence[float], force: bool) -> list[int]:
        """Return the places in `_SLOTS` of what happens, in order."""
        shares = [getattr(self, slot.kind.name) for slot in _SLOTS]
        fired = {place for place, share in enumerate(shares) if chances[place] < share}
        if force:
            able = [place for place, share in enumerate(shares) if share > 0]
            camera = [place for place in able if _SLOTS[place].kind.name in SURVEILLANCE]
            if not able:
                raise InputError(
                    "force needs an operation with a probability above 0, but all are 0; "
                    f"raise one of {', '.join(SURVEILLANCE)}"
                )
            if not fired.intersection(camera or able):
                # The one that came nearest to happening.
                fired.add(min(camera or able, key=lambda place: chances[place] / shares[place]))
        return sorted(fired)

    def _draw(self, slot: _Slot, share: float, width: int, rng: np.random.Generator) -> Operation:
        mild, harsh = getattr(self, slot.strength)
        level = mild + (harsh - mild) * share * float(rng.random())
        if slot.pixels:
            level = min(level * width / CHIP_SIZE, slot.limits[1])
        return slot.draw(level, rng)


_SURVEILLANCE_RANGES = {
    "defocus_radius_px": (0.4, 3.5),
    "motion_length_px": (1.0, 14.0),
    "down_up_scale": (0.95, 0.15),
    "interlace_shift_px": (0.5, 4.0),
    "low_light_stops": (0.5, 5.5),
    "sensor_noise_gain": (1.0, 64.0),
    "h264_crf": (20.0, 42.0),
    "jpeg_quality": (95.0, 15.0),
}
_SURVEILLANCE_SHARES = {
    "defocus": 0.5,
    "motion": 0.5,
    "down_up": 0.8,
    "interlace": 0.1,
    "low_light": 0.3,
    "sensor_noise": 0.6,
    "h264": 0.6,
    "jpeg": 0.4,
}


def build_degradation(preset: str, severity: float = 0.5, **changes: Any) -> Degradation | None:
    """Return a preset by name, as recipes give it; None for "none".

    Args:
        preset: "none", "surveillance" or "document".
        severity: in [0, 1].
        changes: any attribute, instead of the preset's.

    Raises:
        InputError: an unknown preset or attribute, or a bad value.
    """
    check_one_of(preset, "preset", PRESETS)
    if preset == "none":
        return None
    if preset == "document":
        return Degradation.document(severity, **changes)
    return Degradation.surveillance(severity, **changes)


def _build(values: dict[str, Any]) -> Degradation:
    check_known(values, [field.name for field in fields(Degradation)], "degradation")
    return Degradation(**values)


def _check_strength(value: Any, name: str, limits: Range) -> Range:
    mild, harsh = limits
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(f"{name} must be two numbers, mild and harsh, got {value!r}")
    for number in value:
        check_range(number, name, min(limits), max(limits))
    if (value[1] - value[0]) * (harsh - mild) < 0:
        raise InputError(
            f"{name} must run from mild to harsh, got {tuple(value)}; write {(value[1], value[0])}"
        )
    return float(value[0]), float(value[1])
