"""The camera: lens, shutter, sensor, the line of text it burns in, and its H.264 stream."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.simulate_head import Light
from eval.simulate_settings import SIMULATED, SimulationSettings
from facerec.checks import InputError, require
from facerec.data.degrade_operation import SEEDS
from facerec.data.degrade_optics import disk_kernel
from facerec.data.degrade_sensor import LowLight, SensorNoise
from facerec.data.linear_light import from_linear
from facerec.io import atomic_path

_KEYFRAME_S = 2
_PROFILE = "libx264"


@dataclass(frozen=True)
class Camera:
    """A camera's state through one video.

    Attributes:
        dark: whether the scene has too little light.
        defocus_px: radius of the lens's disk.
        exposure_s: how long the shutter is open.
        gain: of the sensor in a lit scene.
        stops: by how many halvings the exposure of a dark scene is short.
        regain: share of these that gain brings back.
        red: red's gain over green's.
        blue: blue's gain over green's.
    """

    dark: bool
    defocus_px: float
    exposure_s: float
    gain: float
    stops: float
    regain: float
    red: float
    blue: float

    @classmethod
    def draw(cls, rng: np.random.Generator, settings: SimulationSettings) -> Camera:
        """Return one; the same number of draws is made whatever the settings."""
        dark, defocus, exposure, gain, stops, regain, warmth = rng.random(7).tolist()
        is_dark = dark < settings.low_light
        shutter = settings.dark_exposure_ms_range if is_dark else settings.exposure_ms_range
        tint = 2 * warmth - 1
        return cls(
            dark=is_dark,
            defocus_px=round(50 * _between(settings.defocus_px_range, defocus)) / 50,
            exposure_s=_between(shutter, exposure) / 1000,
            gain=_between(settings.noise_gain_range, gain),
            stops=_between(settings.low_light_stops_range, stops) if is_dark else 0.0,
            regain=0.6 + 0.35 * regain,
            red=1.2**tint,
            blue=1.25**-tint,
        )

    def expose(self, light: Light, seed: int) -> NDArray[np.uint8]:
        """Return a frame, uint8 RGB (h, w, 3), of linear light; `seed` is of its noise."""
        kernel = disk_kernel(self.defocus_px)
        if kernel.size > 1:
            soft = cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REPLICATE)
            light = np.asarray(soft, np.float32)
        tint = np.array([self.red, 1.0, self.blue], np.float32)
        frame = from_linear(light * tint)
        if self.dark:
            return LowLight(self.stops, self.regain, seed % SEEDS, black=0.004).apply(frame)
        return SensorNoise(self.gain, seed % SEEDS, prnu=0.004).apply(frame)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON takes it."""
        return asdict(self)


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def burn_in(frame: NDArray[np.uint8], text: str) -> None:
    """Write a line of text into the lower left corner, as cameras do."""
    height = frame.shape[0]
    size = max(height / 1200, 0.3)
    place = (round(0.01 * height) + 2, height - round(0.012 * height) - 3)
    font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        cv2.putText(frame, text, (place[0] + dx, place[1] + dy), font, size, (0, 0, 0), 1, smooth)
    cv2.putText(frame, text, place, font, size, (235, 235, 235), 1, smooth)


@contextlib.contextmanager
def open_stream(
    path: Path, width: int, height: int, fps: int, bit_rate_kbit: int
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Yield a function that appends a frame to a new H.264 file at a constant bit rate.

    Coded as surveillance cameras do: no frame waits for a later one, a key frame every two
    seconds, a buffer of one second. One thread: the same frames give the same bytes. The file
    appears under its name only when the block ends well; its comment says that it is simulated.

    Args:
        path: ends in .mp4.
        width: even number of pixels.
        height: even number of pixels.
        fps: frames a second.
        bit_rate_kbit: kbit/s.

    Raises:
        InputError: PyAV is missing or has no x264.
        OSError: the disk is full.
    """
    av = require("av")
    rules = f"threads=1:keyint={_KEYFRAME_S * fps}:scenecut=0:cpu-independent=1:log-level=-1"
    options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "x264-params": f"{rules}:vbv-maxrate={bit_rate_kbit}:vbv-bufsize={bit_rate_kbit}",
    }
    with (
        atomic_path(path) as temporary,
        _named_errors(av, path),
        av.open(str(temporary), "w") as container,
    ):
        container.metadata["title"] = f"{path.stem} ({SIMULATED})"
        container.metadata["comment"] = f"{SIMULATED} surveillance, made by facerec-eval"
        stream = container.add_stream(_PROFILE, rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 1000 * bit_rate_kbit

        def append(frame: NDArray[np.uint8]) -> None:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))

        yield append
        container.mux(stream.encode())


@contextlib.contextmanager
def _named_errors(av: Any, path: Path) -> Iterator[None]:
    """Turn what FFmpeg says into what the commands explain: a full disk, a missing encoder."""
    try:
        yield
    except av.codec.codec.UnknownCodecError:
        raise InputError(
            "this job needs x264, which the installed package 'av' was built without; "
            "run: pip install --force-reinstall av"
        ) from None
    except av.error.FFmpegError as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise OSError(number, str(error.strerror), str(path)) from error
        raise
