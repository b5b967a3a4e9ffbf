import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from facerec.data.headers import read_header
from facerec.data.images import IMAGE_SUFFIXES, UnreadableImageError, decode_image, read_image


def smooth(height=40, width=60, seed=0):
    """A picture that survives JPEG: four flat quarters, so each corner is told apart."""
    colours = np.random.default_rng(seed).integers(30, 226, (2, 2, 3)).astype(np.uint8)
    return colours.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def encode(image, form, **options):
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def reason(data):
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(data, "x.jpg")
    assert "x.jpg" in str(caught.value) and "\n" not in str(caught.value)
    return caught.value.reason


def difference(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float)).max()


LOSSLESS = ["PNG", "BMP", "TIFF", "PPM"]


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_come_back_exactly(form):
    image = smooth()
    assert np.array_equal(decode_image(encode(image, form), "x"), image)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("JPEG2000", {}),
        ("GIF", {}),
    ],
)
def test_colours_are_rgb_in_every_format(form, options):
    image = smooth()
    decoded = decode_image(encode(image, form, **options), "x")
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    assert difference(decoded[5:15, 5:25], image[5:15, 5:25]) <= 6
    assert difference(decoded[25:35, 35:55], image[25:35, 35:55]) <= 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(form, orientation):
    upright = smooth()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if form in ("PNG", "TIFF") else {"quality": 95}
    data = encode(np.ascontiguousarray(stored), form, exif=exif, **options)
    decoded = decode_image(data, "x")
    assert decoded.shape == upright.shape
    assert difference(decoded[8:12, 8:12], upright[8:12, 8:12]) <= 8
    assert difference(decoded[28:32, 48:52], upright[28:32, 48:52]) <= 8
    assert difference(decoded[8:12, 48:52], upright[8:12, 48:52]) <= 8


@pytest.mark.parametrize("orientation", [1, 6])
def test_cmyk_jpeg_has_the_right_colours_and_rotation(orientation):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20], image[20:] = (200, 40, 30), (20, 60, 220)
    stored = image if orientation == 1 else np.ascontiguousarray(np.rot90(image, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(stored).convert("CMYK"), "JPEG", quality=95, exif=exif)
    assert read_header(data).channels == 4
    decoded = decode_image(data, "x")
    assert decoded.shape == image.shape
    assert difference(decoded[5:15, 5:55], image[5:15, 5:55]) <= 12
    assert difference(decoded[25:35, 5:55], image[25:35, 5:55]) <= 12


def test_truncated_cmyk_is_truncated():
    data = encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG")
    assert reason(data[: len(data) * 2 // 3]) == "truncated"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_the_upper_byte(suffix):
    values = np.linspace(0, 65535, 24 * 30 * 3).reshape(24, 30, 3).astype(np.uint16)
    encoded = cv2.imencode(suffix, values)[1].tobytes()
    decoded = decode_image(encoded, "x")
    assert difference(decoded, values[:, :, ::-1] / 257) <= 1


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF"])
def test_grey_becomes_three_equal_channels(form):
    grey = smooth()[:, :, 0]
    decoded = decode_image(encode(Image.fromarray(grey), form), "x")
    assert decoded.shape == (*grey.shape, 3)
    assert (decoded[..., 0] == decoded[..., 1]).all() and (decoded[..., 1] == decoded[..., 2]).all()
    assert difference(decoded[5:15, 5:25, 0], grey[5:15, 5:25]) <= 3


def test_one_bit_and_palette():
    black_white = Image.fromarray(smooth()[:, :, 0]).convert("1")
    decoded = decode_image(encode(black_white, "PNG"), "x")
    assert set(np.unique(decoded)) <= {0, 255}
    image = smooth()
    palette = Image.fromarray(image).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(decode_image(encode(palette, "PNG"), "x"), expected)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_dropped_and_colour_kept(form):
    image = smooth()
    picture = Image.fromarray(image)
    picture.putalpha(Image.fromarray(np.full((40, 60), 128, np.uint8)))
    options = {"lossless": True} if form == "WEBP" else {}
    assert difference(decode_image(encode(picture, form, **options), "x"), image) <= 1


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(form):
    first, second = smooth(seed=1), smooth(seed=2)
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(first, form, save_all=True, append_images=[Image.fromarray(second)], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert difference(decode_image(data, "x")[5:15, 5:25], first[5:15, 5:25]) <= 4


def test_name_does_not_decide(tmp_path):
    image = smooth()
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(image, "PNG"))
    assert np.array_equal(read_image(path), image)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "not an image"),
        (b"BMW drives best on a sunny day, they say" * 4, "not an image"),
        (b"P1 is a way to name a thing", "damaged"),
        (b"\xff", "not an image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"GIF89a\x10\x00\x10\x00", "truncated"),
        (b"RIFF\xff\x00\x00\x00WEBPVP8 ", "truncated"),
        (b"II*\x00", "damaged"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), "unsupported format"),
        (bytes(1000), "not an image"),
    ],
)
def test_what_is_no_picture_has_a_reason(data, expected):
    assert reason(data) == expected


FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_cut_file_is_refused_never_half_a_picture(form, share, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, form)
    assert reason(data[: int(len(data) * share)]) in ("truncated", "damaged")
    if form in ("JPEG", "PNG"):
        assert reason(data[: int(len(data) * share)]) == "truncated"
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bytes_never_crash(form):
    data = encode(smooth(), form)
    rng = np.random.default_rng(3)
    for _ in range(40):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            broken[position] = rng.integers(0, 256)
        try:
            image = decode_image(bytes(broken), "x")
        except UnreadableImageError as error:
            assert error.reason
        else:
            assert image.dtype == np.uint8 and image.ndim == 3


def test_a_wrong_png_checksum_is_damage(capfd):
    data = bytearray(encode(smooth(), "PNG"))
    data[60] ^= 0xFF
    assert reason(bytes(data)) == "damaged"
    assert capfd.readouterr().err == ""


def bomb_png(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def resized_header(form, width, height):
    """A small file of the format whose header claims another size."""
    data = bytearray(encode(smooth(), form))
    if form == "JPEG":
        start = data.index(b"\xff\xc0")
        data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", width, -height)
    elif form == "PPM":
        return f"P6\n{width} {height}\n255\n".encode() + bytes(100)
    elif form == "WEBP":
        data[26:30] = struct.pack("<HH", min(width, 16383), min(height, 16383))
    return bytes(data)


@pytest.mark.parametrize("form", ["JPEG", "GIF", "BMP", "PPM", "WEBP"])
def test_huge_pictures_are_refused_by_their_header(form, monkeypatch):
    def never(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("facerec.data.images.cv2.imdecode", never)
    assert reason(resized_header(form, 20000, 20000)) == "too large"


def test_huge_png_and_tiff(monkeypatch):
    assert reason(bomb_png(10001, 10000)) == "too large"
    assert reason(bomb_png(10000, 10000)) == "damaged"  # at the limit: decoded, nothing in it
    tiff = bytearray(encode(smooth(), "TIFF"))
    monkeypatch.setattr("facerec.data.images.MAX_PIXELS", 40 * 60 - 1)
    assert reason(bytes(tiff)) == "too large"


def test_bytes_behind_the_picture_are_ignored():
    data = encode(smooth(), "JPEG")
    assert decode_image(data + b"\0" * 100, "x").shape == (40, 60, 3)


def test_a_thumbnail_does_not_hide_truncation():
    thumbnail = encode(smooth(), "JPEG")
    data = encode(smooth(seed=5), "JPEG")
    app1 = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + app1 + data[2:]
    assert decode_image(whole, "x").shape == (40, 60, 3)
    assert reason(whole[:-2]) == "truncated"


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    def why(path):
        with pytest.raises(UnreadableImageError) as caught:
            read_image(path)
        return caught.value.reason

    assert why(tmp_path / "none.jpg") == "missing file"
    assert why(tmp_path) == "not a file"
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    assert why(tmp_path / "broken.jpg") == "missing file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert why(tmp_path / "loop.jpg") in ("missing file", "no permission")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert why(empty) == "empty file"
    big = tmp_path / "big.jpg"
    big.write_bytes(b"12345")
    monkeypatch.setattr("facerec.data.images.MAX_BYTES", 4)
    assert why(big) == "too large"


def test_suffixes_are_lower_case_with_dot():
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".bmp"} <= IMAGE_SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
