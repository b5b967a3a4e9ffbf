"""Pictures made worse on purpose: too poor to tell who it is, or a copy that differs a little."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.data.degrade_codec import Jpeg
from facerec.data.degrade_operation import Image
from facerec.data.degrade_optics import DownUp
from facerec.data.degrade_replay import run_operations
from facerec.data.images import read_image
from facerec.io import sync_file

_WRITTEN = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".png": [],
    ".bmp": [],
}
_POOR_SCALE = (0.1, 0.2)
_POOR_QUALITY = (10, 30)
_MOST_CROP = 0.03
_COPY_QUALITY = (70, 92)


def spoil_picture(image: Image, rng: np.random.Generator) -> Image:
    """Return a picture of few pixels and coarse JPEG: 4 to 7 pixels between a chip's eyes.

    Args:
        image: uint8 RGB (h, w, 3).
        rng: of how poor.
    """
    scale = _POOR_SCALE[0] + (_POOR_SCALE[1] - _POOR_SCALE[0]) * rng.random()
    quality = int(rng.integers(*_POOR_QUALITY))
    poor = DownUp.draw(scale, rng).apply(image)
    return run_operations(poor, [Jpeg.draw(quality, rng)])


def copy_picture(image: Image, rng: np.random.Generator) -> Image:
    """Return a near-duplicate as another site would show it: cut by up to 3 % a side, JPEG anew.

    Args:
        image: uint8 RGB (h, w, 3); the copy has its size.
        rng: of the cut and the quality.
    """
    height, width = image.shape[:2]
    top, bottom, left, right = rng.random(4) * _MOST_CROP
    cut = image[
        int(top * height) : height - int(bottom * height),
        int(left * width) : width - int(right * width),
    ]
    again = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)
    quality = int(rng.integers(*_COPY_QUALITY))
    return Jpeg.draw(quality, rng).apply(np.asarray(again, np.uint8))


def write_changed(source: Path, place: Path, kind: str, rng: np.random.Generator) -> Path:
    """Write a changed copy of a picture beside `place`, and return where.

    The file keeps the original's ending where that can be written (else .jpg) and its time, so
    that neither tells which pictures were changed.

    Args:
        source: the original.
        place: where to, without ending.
        kind: "low quality" or "duplicate".
        rng: of this picture.

    Raises:
        UnreadableImageError: the original cannot be read.
    """
    image = read_image(source)
    changed = spoil_picture(image, rng) if kind == "low quality" else copy_picture(image, rng)
    suffix = source.suffix.lower() if source.suffix.lower() in _WRITTEN else ".jpg"
    path = place.with_name(place.name + suffix)
    _write(path, changed, suffix)
    return path


def _write(path: Path, image: NDArray[np.uint8], suffix: str) -> None:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _WRITTEN[suffix])
    if not done:
        raise OSError(f"OpenCV cannot write {suffix}")
    path.write_bytes(data.tobytes())
    sync_file(path)
