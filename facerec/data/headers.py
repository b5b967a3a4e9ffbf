"""Format, size and completeness of an encoded picture, read without decoding a pixel."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from facerec.checks import require


@dataclass(frozen=True)
class Header:
    """What the first bytes say, and whether the last ones are there.

    Attributes:
        format: "jpeg", "png", "gif", "webp", "bmp", "tiff", "jpeg2000", "avif", "heic", "pnm".
        width: pixels, before any EXIF rotation; 0 when a fault hides it.
        height: pixels, likewise.
        channels: stored components where they matter (JPEG, TIFF), else 0.
        fault: "" or "truncated" or "damaged".
    """

    format: str
    width: int = 0
    height: int = 0
    channels: int = 0
    fault: str = ""


def read_header(data: bytes) -> Header | None:
    """Return what the bytes of a picture say about it; None when they are no known format."""
    for matches, read in _FORMATS:
        if matches(data):
            try:
                return read(data)
            except (struct.error, IndexError):
                return Header(read.__name__.removeprefix("_read_"), fault="truncated")
    return None


def _read_jpeg(data: bytes) -> Header:
    """Walk the markers up to the first scan; a complete file has an end marker behind it."""
    position, width, height, channels = 2, 0, 0, 0
    while True:
        if data[position] != 0xFF:
            return Header("jpeg", width, height, channels, "damaged")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
            continue
        if marker == 0xD9:  # end of image before any scan
            return Header("jpeg", width, height, channels, "damaged")
        length = struct.unpack_from(">H", data, position + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, position + 5)
        position += 2 + length
        if marker == 0xDA:
            complete = data.find(b"\xff\xd9", position) >= 0
            return Header("jpeg", width, height, channels, "" if complete else "truncated")


def _read_png(data: bytes) -> Header:
    """Walk the chunks: each checksum is verified, which the decoder would only print about."""
    position, width, height = 8, 0, 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, position + 8)
        if end > len(data):
            return Header("png", width, height, fault="truncated")
        (expected,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != expected:
            return Header("png", width, height, fault="damaged")
        if kind == b"IEND":
            return Header("png", width, height, fault="" if width and height else "damaged")
        position = end


def _read_gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", width, height, fault="" if len(data) > 13 else "truncated")


def _read_webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    width = height = 0
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header("webp", width, height, fault="truncated" if size + 8 > len(data) else "")


def _read_bmp(data: bytes) -> Header:
    (offset,) = struct.unpack_from("<I", data, 10)
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compressed = 0
    else:
        width, height, _, bits, compressed = struct.unpack_from("<iiHHI", data, 18)
    width, height = abs(width), abs(height)
    # Rows of uncompressed pixels are padded to four bytes; run-length data has no known size.
    rows = (width * bits + 31) // 32 * 4 * height if compressed in (0, 3) else 0
    return Header("bmp", width, height, fault="truncated" if offset + rows > len(data) else "")


def _read_pnm(data: bytes) -> Header:
    return _read_with_pillow(data, "pnm")


def _read_tiff(data: bytes) -> Header:
    return _read_with_pillow(data, "tiff")


def _read_jpeg2000(data: bytes) -> Header:
    return _read_with_pillow(data, "jpeg2000")


def _read_avif(data: bytes) -> Header:
    return _read_with_pillow(data, "avif")


def _read_heic(data: bytes) -> Header:
    return Header("heic")


def _read_with_pillow(data: bytes, name: str) -> Header:
    """Read a rare format's size by Pillow, which opens lazily: no pixel is decoded."""
    pillow: Any = require("PIL.Image")
    try:
        with pillow.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            channels = len(picture.getbands())
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        return Header(name, 1 << 31, 1 << 31)
    except Exception:  # Pillow raises many kinds for one cause: a header it cannot follow
        return Header(name, fault="damaged")
    return Header(name, width, height, channels)


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _is_bmp(data: bytes) -> bool:
    # Two letters are too little to tell a picture from a text: the header size must fit as well.
    return data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in (12, 40, 52, 56, 108, 124)


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _is_jpeg2000(data: bytes) -> bool:
    return data[:8] == b"\0\0\0\x0cjP  " or data[:4] == b"\xff\x4f\xff\x51"


def _is_avif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis")


def _is_heic(data: bytes) -> bool:
    brands = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
    return data[4:8] == b"ftyp" and data[8:12] in brands


def _is_pnm(data: bytes) -> bool:
    return data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in (b"\n", b" ", b"\r", b"\t")


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Header]], ...] = (
    (lambda data: data[:3] == b"\xff\xd8\xff", _read_jpeg),
    (lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _read_png),
    (lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _read_gif),
    (_is_webp, _read_webp),
    (_is_bmp, _read_bmp),
    (_is_tiff, _read_tiff),
    (_is_jpeg2000, _read_jpeg2000),
    (_is_avif, _read_avif),
    (_is_heic, _read_heic),
    (_is_pnm, _read_pnm),
)
