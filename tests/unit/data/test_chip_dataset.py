from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.chip_dataset import ChipDataset, read_square
from facerec.data.datasets import read_chip_set
from facerec.data.images import UnreadableImageError, decode_image


def encode(image, suffix=".png", quality=95):
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image[..., ::-1], options)[1].tobytes()


def flat(value, side=16):
    return np.full((side, side, 3), value, np.uint8)


def smooth(side, seed=0):
    """Return a colourful picture without fine detail."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def folder(tmp_path):
    """Three people with 4, 2 and 2 chips, whose grey is 10 times the place in the set."""
    row = 0
    for person, count in (("amy", 4), ("bob", 2), ("eve", 2)):
        (tmp_path / "chips" / person).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "chips" / person / f"{number}.png").write_bytes(encode(flat(10 * row)))
            row += 1
    return tmp_path / "chips"


def spoil(chips, *rows):
    for row in rows:
        chips.paths[row].write_bytes(b"nonsense")


def shown(dataset):
    return [int(dataset.read(row)[0, 0, 0]) // 10 for row in range(len(dataset))]


# Pictures


@pytest.mark.parametrize("side", [112, 200, 224, 250, 448, 500, 1000, 2000])
@pytest.mark.parametrize("grey", [False, True])
def test_large_jpegs_are_scaled_while_decoding_without_a_visible_difference(side, grey):
    image = smooth(side)
    data = encode(image, ".jpg")
    if grey:
        plane = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        data = cv2.imencode(".jpg", plane)[1].tobytes()
    chip = read_square(data, "x", 112)
    assert chip.shape == (112, 112, 3) and chip.dtype == np.uint8
    whole = decode_image(data, "x")
    expected = cv2.resize(whole, (112, 112), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(chip - expected).mean() < 1 and np.abs(chip - expected).max() <= 12


def test_a_factor_of_two_averages_as_over_areas():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    png = read_square(encode(image), "x", 16)
    assert np.array_equal(png, cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA))
    assert np.array_equal(read_square(encode(image), "x", 32), image)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bad_pictures_are_refused_whether_scaled_or_not(suffix):
    data = encode(smooth(64), suffix)
    for size in (16, 64):
        assert read_square(data, "x", size).shape == (size, size, 3)
        for broken, reason in (
            (data[: len(data) // 2], "truncated"),
            (b"", "empty file"),
            (b"text", "not an image"),
            (encode(smooth(64)[:60], suffix), "not square"),
        ):
            with pytest.raises(UnreadableImageError, match=r"^x ") as error:
                read_square(broken, "x", size)
            assert error.value.reason == reason


# Damaged chips


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_a_damaged_chip_is_replaced_by_the_next_of_its_identity(folder, cache):
    chips = read_chip_set(folder=folder)
    spoil(chips, 1, 2, 3, 4)
    dataset = ChipDataset(chips, 8, cache, max_corrupt=4)
    for _ in range(2):
        assert shown(dataset) == [0, 0, 0, 0, 5, 5, 6, 7]
    assert [dataset.locate(row) for row in range(8)] == [0, 0, 0, 0, 5, 5, 6, 7]
    assert dataset.corrupt == {str(chips.paths[row]): "not an image" for row in (1, 2, 3, 4)}


def test_a_lost_identity_is_shown_as_the_next_chip_with_its_label(folder):
    chips = read_chip_set(folder=folder)
    spoil(chips, 4, 5, 6)
    dataset = ChipDataset(chips, 8, max_corrupt=9)
    assert shown(dataset) == [0, 1, 2, 3, 7, 7, 7, 7]
    assert chips.labels[[dataset.locate(row) for row in range(8)]].tolist() == [0] * 4 + [2] * 4
    spoil(chips, 7)
    assert shown(ChipDataset(chips, 8, max_corrupt=9))[4:] == [0, 0, 0, 0]
    spoil(chips, 0, 1, 2, 3)
    with pytest.raises(InputError, match=r"none of 8 chips can be read: .*not an image"):
        ChipDataset(chips, 8, max_corrupt=9).read(2)


@pytest.mark.parametrize("seed", range(3))
def test_substitutes_depend_neither_on_threads_nor_on_the_order_of_reading(folder, seed):
    chips = read_chip_set(folder=folder)
    spoil(chips, 0, 2, 4, 7)
    expected = [1, 1, 3, 3, 5, 5, 6, 6]
    dataset = ChipDataset(chips, 8, "none", max_corrupt=4)
    order = np.random.default_rng(seed).permutation(np.tile(np.arange(8), 6))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: int(dataset.read(row)[0, 0, 0]) // 10, order.tolist()))
    assert found == [expected[row] for row in order]
    assert len(dataset.corrupt) == 4


def test_too_many_damaged_chips_end_the_run_and_are_named(folder):
    chips = read_chip_set(folder=folder)
    spoil(chips, 0, 3, 5)
    with pytest.raises(InputError, match=r"^\S*amy/0\.png must be a picture"):
        ChipDataset(chips, 8).read(0)
    dataset = ChipDataset(chips, 8, max_corrupt=2)
    with pytest.raises(
        InputError,
        match=r"bob/1\.png must be a picture.* before it 2 chips .*amy/0\.png \(not an image\), "
        r".*amy/3\.png \(not an image\): repair the data, or raise data\.max_corrupt",
    ):
        shown(dataset)
    chips.paths[5].unlink()
    chips.paths[3].write_bytes(encode(flat(1)[:9]))
    dataset = ChipDataset(chips, 8, max_corrupt=3)
    shown(dataset)
    assert list(dataset.corrupt.values()) == ["not an image", "not square", "missing file"]
    with pytest.raises(InputError, match="max_corrupt"):
        ChipDataset(chips, 8, max_corrupt=-1)
