"""The picture hash against OpenCV's transform, and near pairs against all pairs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import hashes as module
from data_tools.hashes import (
    count_bits,
    find_near_between,
    find_near_hashes,
    find_near_mirrors,
    hash_chips,
    pair_equal,
)
from facerec.checks import InputError
from facerec.data.synthetic import make_chips


@pytest.fixture(scope="module")
def chips():
    return make_chips(12, 2, seed=5)[0]


def recode(chip, quality):
    _, data = cv2.imencode(".jpg", chip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def make_near_hashes(seed=0, n=400):
    """Return hashes of which many differ from another in a few bits, some in none."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 2**63, n, dtype=np.uint64)
    found[n // 2 :] = found[rng.integers(0, n // 2, n - n // 2)]
    restless = rng.uniform(0, 0.8, n)
    for _ in range(8):
        hit = rng.random(n) < restless
        found[hit] ^= np.uint64(1) << rng.integers(0, 64, hit.sum()).astype(np.uint64)
    return found


def compare_all(one, two, bits):
    return np.argwhere(count_bits(one[:, None], two[None]) <= bits)


def test_hash_is_the_sign_of_low_frequencies_against_their_median(chips):
    for chip, found in zip(chips, hash_chips(chips), strict=True):
        grey = chip.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
        waves = cv2.dct(small)[:8, :8].ravel()[1:]
        expected = sum(1 << place for place in np.flatnonzero(waves > np.median(waves)))
        assert int(found ^ np.uint64(expected)).bit_count() <= 2  # one pair at the very median


def test_mirrored_hash_is_the_hash_of_the_mirror_image(chips):
    flipped = np.ascontiguousarray(chips[:, :, ::-1])
    assert (count_bits(hash_chips(flipped), hash_chips(chips, mirrored=True)) <= 2).all()
    assert np.median(count_bits(hash_chips(flipped), hash_chips(chips))) > 10


@pytest.mark.parametrize("quality", [40, 90])
def test_recoding_noise_and_light_leave_the_hash_nearly_alone(chips, quality):
    rng = np.random.default_rng(1)
    noisy = np.stack([recode(chip, quality) for chip in chips]).astype(np.float64)
    noisy = 0.9 * noisy + 8 + rng.normal(0, 3, noisy.shape)
    copies = hash_chips(np.clip(noisy, 0, 255).astype(np.uint8))
    plain = hash_chips(chips)
    assert np.median(count_bits(copies, plain)) <= 2
    assert count_bits(copies, plain).max() <= 8
    others = count_bits(plain[::2, None], plain[None, ::2])[np.triu_indices(12, 1)]
    assert np.median(others) > 10


@pytest.mark.parametrize("level", [0, 77, 255])
def test_blank_chips_hash_to_nothing(level):
    blank = np.full((3, 112, 112, 3), level, np.uint8)
    assert hash_chips(blank).tolist() == [0, 0, 0]
    assert hash_chips(blank, mirrored=True).tolist() == [0, 0, 0]


def test_hashes_do_not_depend_on_the_batch(chips, monkeypatch):
    whole = hash_chips(chips)
    monkeypatch.setattr(module, "_BATCH", 5)
    assert (count_bits(hash_chips(chips), whole) <= 2).all()
    assert hash_chips(chips[:0]).shape == (0,)


def test_other_arrays_are_refused(chips):
    with pytest.raises(InputError, match="uint8 RGB"):
        hash_chips(chips.astype(np.float32))
    with pytest.raises(InputError, match=r"bits must lie in \[0, 10\]"):
        find_near_hashes(hash_chips(chips), 11)
    with pytest.raises(InputError, match=r"shape \(n,\)"):
        find_near_hashes(np.zeros((2, 2), np.uint64), 1)


@pytest.mark.parametrize("bits", range(0, 11))
def test_near_pairs_are_those_of_a_full_comparison(bits):
    found = make_near_hashes(seed=bits)
    pairs = compare_all(found, found, bits)
    expected = pairs[pairs[:, 0] < pairs[:, 1]]
    assert len(expected)
    assert np.array_equal(find_near_hashes(found, bits), expected)
    between = find_near_between(found[:150], found[150:], bits)
    assert np.array_equal(between, compare_all(found[:150], found[150:], bits))


def test_bounded_memory_finds_the_same(monkeypatch):
    found = make_near_hashes()
    whole = find_near_hashes(found, 6)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert np.array_equal(find_near_hashes(found, 6), whole)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 10))
def test_near_pairs_of_any_hashes(values, bits):
    found = np.array(values, np.uint64)
    pairs = compare_all(found, found, bits).reshape(-1, 2)
    assert np.array_equal(find_near_hashes(found, bits), pairs[pairs[:, 0] < pairs[:, 1]])


def test_mirrors_pair_a_row_with_its_mirror_image_only(chips):
    flipped = np.ascontiguousarray(chips[3:4, :, ::-1])
    blank = np.zeros((2, 112, 112, 3), np.uint8)
    many = np.concatenate([chips, flipped, blank])
    pairs = find_near_mirrors(hash_chips(many), hash_chips(many, mirrored=True), 2)
    assert [3, 24] in pairs.tolist()
    assert not np.isin(pairs, [25, 26]).any()
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_many_equal_rows_do_not_make_a_square():
    keys = np.array([9] * 50 + [3, 4, 3], np.uint64)
    pairs = pair_equal(keys, most=4)
    full = {(i, j) for i in range(4) for j in range(i + 1, 4)}
    star = {(0, i) for i in range(4, 50)}
    assert {tuple(pair) for pair in pairs.tolist()} == full | star | {(50, 52)}
    assert len(pairs) == len(full) + len(star) + 1
    near = find_near_hashes(keys, 2, most=4)
    assert {tuple(pair) for pair in near[(near < 50).all(axis=1)].tolist()} == full | star


def test_equal_keys_of_any_type():
    keys = np.array([b"x", b"", b"x", b"y", b"x"], "S4")
    assert pair_equal(keys).tolist() == [[0, 2], [0, 4], [2, 4]]
    assert pair_equal(keys[:0]).shape == (0, 2)
