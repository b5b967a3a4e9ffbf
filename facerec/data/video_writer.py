"""H.264 video files by PyAV, all or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_image, require
from facerec.io import atomic_path


@contextlib.contextmanager
def open_video(
    path: Path, width: int, height: int, fps: int = 25, quality: int = 21
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Yield a function that appends one uint8 RGB frame (height, width, 3) to a new video.

    The file appears under its name only when the block ends well.

    Args:
        path: ends in .mp4 or .mkv.
        width: even number of pixels.
        height: even number of pixels.
        fps: frames a second.
        quality: x264's constant rate factor, 0 lossless to 51.

    Raises:
        InputError: odd sizes, a frame of another size, or PyAV is missing.
    """
    if width % 2 or height % 2:
        raise InputError(f"a video's sides must be even, got {width}x{height}")
    av = require("av")
    # One thread: the same frames give the same bytes.
    options = {"crf": str(quality), "preset": "superfast", "threads": "1"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

        def append(frame: NDArray[np.uint8]) -> None:
            check_image(frame, "frame")
            if frame.shape != (height, width, 3):
                raise InputError(f"frames must be {(height, width, 3)}, got {frame.shape}")
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)

        yield append
        for packet in stream.encode():
            container.mux(packet)
