"""What compression does to a picture: JPEG, and H.264 between frames of a short clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import cv2
import numpy as np

from facerec.checks import InputError, MissingPackageError, require
from facerec.data.degrade_operation import Image, Operation

# Block of either codec's grid; chips lie anywhere on the grid of the frame they come from.
_JPEG_BLOCK = 8
_JPEG_CHROMA_BLOCK = 16
_MACROBLOCK = 16
_MARGIN = 8


@dataclass(frozen=True)
class Jpeg(Operation):
    """JPEG, at any place of its grid.

    Attributes:
        quality: 1 to 100.
        halve_chroma: colour at half the resolution (4:2:0), as nearly all cameras store it.
        phase_x: columns of the frame left of the chip, beyond whole blocks, 0 to 15.
        phase_y: rows of the frame above the chip, likewise.
    """

    quality: int
    halve_chroma: bool = True
    phase_x: int = 0
    phase_y: int = 0

    name: ClassVar[str] = "jpeg"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "quality": (1, 100),
        "phase_x": (0, _JPEG_CHROMA_BLOCK - 1),
        "phase_y": (0, _JPEG_CHROMA_BLOCK - 1),
    }

    @classmethod
    def draw(cls, quality: float, rng: np.random.Generator) -> Jpeg:
        """Return one somewhere on the grid; one in five keeps full colour."""
        x, y = rng.integers(_JPEG_CHROMA_BLOCK, size=2).tolist()
        return cls(round(quality), bool(rng.random() < 0.8), x, y)

    def apply(self, chip: Image) -> Image:
        """Return the picture coded and decoded."""
        left, top = self.phase_x, self.phase_y
        frame = cv2.copyMakeBorder(chip, top, 0, left, 0, cv2.BORDER_REPLICATE)
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        if not self.halve_chroma:
            sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        flags = [cv2.IMWRITE_JPEG_QUALITY, int(self.quality)]
        flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        done, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), flags)
        assert done, "cv2 has a JPEG encoder"
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None, "cv2 reads what it wrote"
        rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return np.ascontiguousarray(rgb[top:, left:], np.uint8)


@dataclass(frozen=True)
class H264(Operation):
    """H.264: the chip drifts through a short clip, whose last frame, coded from the others, is it.

    Attributes:
        crf: constant rate factor of x264, 0 lossless to 51.
        frames: of the clip, 2 to 16.
        drift_x: pixels a frame to the right, in [-8, 8].
        drift_y: pixels a frame downwards.
        phase_x: columns of the frame left of the chip, beyond whole macroblocks, 0 to 15.
        phase_y: rows of the frame above the chip, likewise.
    """

    crf: int
    frames: int = 4
    drift_x: float = 0.0
    drift_y: float = 0.0
    phase_x: int = 0
    phase_y: int = 0

    name: ClassVar[str] = "h264"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "crf": (0, 51),
        "frames": (2, 16),
        "drift_x": (-8, 8),
        "drift_y": (-8, 8),
        "phase_x": (0, _MACROBLOCK - 1),
        "phase_y": (0, _MACROBLOCK - 1),
    }

    @classmethod
    def draw(cls, crf: float, rng: np.random.Generator) -> H264:
        """Return one of 3 to 6 frames that drifts by up to 2 pixels a frame."""
        frames, x, y = rng.integers((3, 0, 0), (7, _MACROBLOCK, _MACROBLOCK)).tolist()
        across, down = (4 * rng.random(2) - 2).tolist()
        return cls(round(crf), frames, across, 0.5 * down, x, y)

    def apply(self, chip: Image) -> Image:
        """Return the last frame, coded and decoded.

        Raises:
            InputError: PyAV is missing or has no x264.
        """
        frame, _ = code_clip(self.build_clip(chip), self.crf)
        top, left = _MARGIN + self.phase_y, _MARGIN + self.phase_x
        return np.ascontiguousarray(frame[top : top + chip.shape[0], left : left + chip.shape[1]])

    def build_clip(self, chip: Image) -> list[Image]:
        """Return the frames before coding; in the last the chip lies unchanged."""
        height, width = chip.shape[:2]
        top, left = _MARGIN + self.phase_y, _MARGIN + self.phase_x
        bottom = -(top + height + _MARGIN) % _MACROBLOCK + _MARGIN
        right = -(left + width + _MARGIN) % _MACROBLOCK + _MARGIN
        canvas = cv2.copyMakeBorder(chip, top, bottom, left, right, cv2.BORDER_REFLECT_101)
        clip = []
        for ago in range(self.frames - 1, 0, -1):
            shift = np.array([[1, 0, -ago * self.drift_x], [0, 1, -ago * self.drift_y]])
            moved = cv2.warpAffine(
                canvas,
                shift,
                canvas.shape[1::-1],
                borderMode=cv2.BORDER_REFLECT_101,
            )
            clip.append(np.asarray(moved, np.uint8))
        return [*clip, np.asarray(canvas, np.uint8)]


def code_clip(clip: Sequence[Image], crf: int) -> tuple[Image, str]:
    """Return the last frame of a clip coded by x264, and its type: "I", or "P" from others.

    One thread and no processor-specific choices: the same clip gives the same frame.

    Args:
        clip: uint8 RGB frames of one size, sides even.
        crf: constant rate factor, 0 to 51.

    Raises:
        InputError: PyAV is missing or has no x264.
    """
    av = require("av")
    height, width = clip[0].shape[:2]
    encoder, decoder = _open_encoder(av, width, height, crf), av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded: list[Any] = []
    for number, frame in enumerate(clip):
        planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = number
        for packet in encoder.encode(picture):
            decoded += decoder.decode(packet)
    for packet in encoder.encode():
        decoded += decoder.decode(packet)
    decoded += decoder.decode(None)
    last = decoded[-1]
    image = cv2.cvtColor(last.to_ndarray(format="yuv420p"), cv2.COLOR_YUV2RGB_I420)
    return np.asarray(image, np.uint8), str(av.video.frame.PictureType(last.pict_type).name)


def check_h264() -> None:
    """Raise InputError unless H.264 can be coded here: what to install, or to turn off."""
    try:
        av = require("av")
    except MissingPackageError as error:
        raise MissingPackageError(f"h264 above 0: {error}, or set h264 to 0") from None
    _open_encoder(av, 2 * _MACROBLOCK, 2 * _MACROBLOCK, 30)


def _open_encoder(av: Any, width: int, height: int, crf: int) -> Any:
    try:
        encoder = av.CodecContext.create("libx264", "w")
    except av.codec.codec.UnknownCodecError:
        raise InputError(
            "this job needs x264, which the installed package 'av' was built without; "
            "run: pip install --force-reinstall av"
        ) from None
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.thread_count = 1
    # What cameras use: no frame waits for a later one, and only the first is coded on its own.
    encoder.options = {
        "crf": str(crf),
        "preset": "veryfast",
        "tune": "zerolatency",
        "x264-params": "threads=1:keyint=250:scenecut=0:cpu-independent=1:log-level=-1",
    }
    return encoder
