"""Picture files to uint8 RGB: any common format, any damage answered by a short reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_image, require
from facerec.data.headers import Header, read_header
from facerec.opencv import quiet_opencv

MAX_PIXELS = 100_000_000
"""Pictures of more pixels are refused, by their header, before anything is decoded."""
MAX_BYTES = 1 << 30
"""Files of more bytes are refused unread: no picture of `MAX_PIXELS` needs as many."""
IMAGE_SUFFIXES = frozenset(
    f".{ending}"
    for endings in (
        ("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        ("jp2", "j2k", "avif", "heic", "heif", "pbm", "pgm", "ppm", "pnm"),
    )
    for ending in endings
)
"""File name endings, lower case, that mark a file as a picture when a folder is read."""


class UnreadableImageError(InputError):
    """A picture that cannot be used.

    Attributes:
        reason: short and stable, for tables: "missing file", "no permission", "not a file",
            "empty file", "not an image", "unsupported format", "too large", "truncated" or
            "damaged".
    """

    def __init__(self, name: str, reason: str, sentence: str) -> None:
        super().__init__(f"{name} {sentence}")
        self.reason = reason


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file of at most `MAX_BYTES`.

    Raises:
        UnreadableImageError: the file is missing, not a regular file, not permitted or too large.
    """
    try:
        if not path.exists():
            raise UnreadableImageError(str(path), "missing file", "does not exist; check the path")
        if not path.is_file():  # a pipe or a device would block or never end
            raise UnreadableImageError(
                str(path), "not a file", "must be a picture file, but is a folder or a device"
            )
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UnreadableImageError(
                str(path), "too large", f"has {size:,} bytes, more than {MAX_BYTES:,}; shrink it"
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(
            str(path), "no permission", f"cannot be read: {error.strerror or error}"
        ) from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the picture in a file as uint8 RGB (h, w, 3), upright.

    Raises:
        UnreadableImageError: it cannot be read or decoded; `.reason` says why in a word or two.
    """
    return decode_image(read_bytes(path), str(path))


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Return an encoded picture as uint8 RGB (h, w, 3), upright.

    The content decides the format, not the name. EXIF rotation is applied; 16-bit samples keep
    their upper byte; grey and palette become RGB; transparency is dropped and the colours under
    it kept; of an animation the first frame is taken; CMYK and YCCK JPEGs are converted without
    a profile, inverted as Adobe writes them.

    Args:
        data: the whole file.
        name: how messages call it.

    Raises:
        UnreadableImageError: empty, not a picture, of more than `MAX_PIXELS`, truncated or damaged.
    """
    if not data:
        raise UnreadableImageError(name, "empty file", "is empty; fetch it again")
    header = read_header(data)
    if header is None:
        raise UnreadableImageError(
            name, "not an image", "must be a picture, but its content is in no known format"
        )
    _check_header(header, name)
    image = None
    if header.format in ("jpeg", "tiff") and header.channels in (2, 4):
        # OpenCV neither knows Adobe's inversion of CMYK nor keeps colours under transparency here.
        image = _decode_with_pillow(data)
    if image is None:
        image = _decode_with_opencv(data)
    if image is None:
        raise UnreadableImageError(
            name, "damaged", f"starts like a {header.format} picture, but cannot be decoded"
        )
    return image


def _check_header(header: Header, name: str) -> None:
    """Raise UnreadableImageError for what the header alone rules out."""
    if header.width * header.height > MAX_PIXELS:
        raise UnreadableImageError(
            name,
            "too large",
            f"has {header.width} x {header.height} pixels, more than {MAX_PIXELS:,}; shrink it",
        )
    if header.format == "heic":
        raise UnreadableImageError(
            name, "unsupported format", "is a HEIC picture; convert it to JPEG first"
        )
    if header.fault:
        what = "ends before the picture is complete" if header.fault == "truncated" else "is broken"
        raise UnreadableImageError(name, header.fault, f"{what}; fetch it again")


def _decode_with_opencv(data: bytes) -> NDArray[np.uint8] | None:
    quiet_opencv()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    if image is None or image.ndim != 3 or image.dtype != np.uint8 or 0 in image.shape:
        return None
    return np.asarray(image, np.uint8)


def _decode_with_pillow(data: bytes) -> NDArray[np.uint8] | None:
    pillow: Any = require("PIL.Image")
    operations: Any = require("PIL.ImageOps")
    try:
        with pillow.open(io.BytesIO(data)) as picture:
            return np.array(operations.exif_transpose(picture.convert("RGB")), np.uint8)
    except Exception:  # Pillow raises many kinds for one cause: a file it cannot follow
        return None


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return a uint8 RGB picture (h, w, 3) as a PNG file, without loss."""
    check_image(image)
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"a picture of shape {image.shape} cannot be written as PNG")
    return bytes(data)
