"""Video files as a stream of RGB frames with exact times, decoded ahead in a thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, require

_POLL_S = 0.1


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        number: in order of display, from 0; frames that were sampled away count too.
        time_s: from the stream's own clock, exact to its time base.
        image: uint8 RGB (h, w, 3), turned upright.
    """

    number: int
    time_s: float
    image: NDArray[np.uint8]


def check_video(path: Path) -> None:
    """Raise InputError unless FFmpeg can open `path` and finds a video stream in it."""
    _open_video(path).close()


def _open_video(path: Path) -> Any:
    av = require("av")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a video file")
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of a video file")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} must be a video that FFmpeg reads, but: {error.strerror}"
        ) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path} holds no video stream")
    return container


class VideoReader:
    """Iterate the frames of a video file; a context manager that always stops its thread.

    Args:
        path: anything FFmpeg reads: MP4, MKV, AVI, GIF, ...
        every: give every n-th frame only; the others are decoded but not converted.
        ahead: frames that may wait decoded.

    Attributes:
        rate: frames a second as the file says, None when it does not.
        expected: frames that the file says it has, 0 when it does not.
        decoded: frames so far, those not given out included.
        corrupt: packets so far that could not be decoded and were passed over.

    Raises:
        InputError: no such file, or not a video.
    """

    def __init__(self, path: Path, every: int = 1, ahead: int = 8) -> None:
        if every < 1:
            raise InputError(f"every must be at least 1, got {every}")
        self.path = path
        self.every = every
        self.decoded = 0
        self.corrupt = 0
        self._queue: queue.Queue[Frame | BaseException | None] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._container = _open_video(path)
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self._stream = stream
        self.rate: Fraction | None = stream.average_rate
        self.expected = int(stream.frames or 0)
        self._thread = threading.Thread(target=self._decode, name="decode", daemon=True)
        self._thread.start()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding and close the file."""
        self._stop.set()
        self._thread.join()
        self._container.close()

    @property
    def missing(self) -> int:
        """Frames that the file promised and did not deliver; of use after the last frame."""
        return max(self.expected - self.decoded, 0)

    def __iter__(self) -> Iterator[Frame]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _decode(self) -> None:
        """Run in the thread: packets to frames, then the end mark or the exception."""
        last: BaseException | None = None
        try:
            for picture in self._iter_pictures():
                number = self.decoded
                self.decoded += 1
                if number % self.every == 0 and not self._put(self._convert(picture, number)):
                    return
        except BaseException as error:  # handed over to the thread that iterates
            last = error
        self._put(last)

    def _iter_pictures(self) -> Iterator[Any]:
        from av.error import EOFError as StreamEnd
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while not self._stop.is_set():
            try:
                packet = next(packets)
            except (StopIteration, StreamEnd):
                return
            except FFmpegError:  # a file cut off in the middle: what came before counts
                self.corrupt += 1
                packets = iter(())
                with contextlib.suppress(FFmpegError):
                    yield from self._stream.codec_context.decode(None)
                return
            if packet.is_corrupt:
                self.corrupt += 1
            try:
                yield from packet.decode()
            except StreamEnd:
                return
            except FFmpegError:
                self.corrupt += not packet.is_corrupt

    def _convert(self, picture: Any, number: int) -> Frame:
        if picture.pts is not None:
            base = picture.time_base or self._stream.time_base
            start = self._stream.start_time or 0
            time = Fraction(picture.pts - start) * Fraction(base)
        else:
            time = number / (self.rate or Fraction(25))
        image = picture.to_ndarray(format="rgb24")
        # The display matrix turns counter-clockwise by this many degrees.
        turns = round(getattr(picture, "rotation", 0) / 90) % 4
        if turns:
            image = np.ascontiguousarray(np.rot90(image, turns))
        return Frame(number, float(time), image)

    def _put(self, item: Frame | BaseException | None) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_S)
                return True
        return False
