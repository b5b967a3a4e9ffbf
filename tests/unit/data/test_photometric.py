"""Colour augmentation through albumentations: seeded, independent, safe between threads."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.synthetic import make_chips
from facerec.data.transforms import Augmentation, Photometric, build_photometric

CHANGES = ("tone", "gamma", "colour", "grey", "shadow")
NONE = dict.fromkeys(CHANGES, 0.0)


@pytest.fixture(scope="module")
def chip():
    pytest.importorskip("albumentations")
    return make_chips(1, 1, seed=8)[0][0]


def rng(seed=0):
    return np.random.default_rng(seed)


def only(name, **settings):
    return Photometric(**NONE | {name: 1.0}, **settings)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_a_function_of_the_generator(name, chip):
    before, change = chip.copy(), only(name)
    pictures = [change.apply(chip, rng(seed)) for seed in range(6)]
    for seed, picture in enumerate(pictures):
        assert (picture.shape, picture.dtype) == (chip.shape, np.uint8)
        assert np.array_equal(only(name).apply(chip, rng(seed)), picture)
        assert not np.array_equal(picture, chip)
    assert np.array_equal(chip, before)
    if name != "grey":
        assert len({picture.tobytes() for picture in pictures}) == 6


def test_nothing_is_the_very_chip(chip):
    assert Photometric(**NONE).apply(chip, rng()) is chip


def test_each_change_does_what_it_says(chip):
    grey = only("grey").apply(chip, rng())
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])
    shadow = only("shadow", shadow_limit=0.5).apply(np.full((64, 64, 3), 200, np.uint8), rng())
    assert shadow.max() == 200
    # Two shadows may lie over each other.
    assert 200 * 0.25 - 2 <= shadow.min() < 200 * 0.85
    flat = np.full((8, 8, 3), 128, np.uint8)
    levels = [int(only("gamma").apply(flat, rng(seed))[0, 0, 0]) for seed in range(40)]
    least, most = (255 * (128 / 255) ** power for power in (1.4, 1 / 1.4))
    assert least - 1 <= min(levels) < 118
    assert 138 < max(levels) <= most + 1
    shifted = [only("tone").apply(flat, rng(seed)).mean() for seed in range(40)]
    assert 128 * 0.8 - 52 <= min(shifted) < 115
    assert 141 < max(shifted) <= 128 * 1.2 + 52


def test_hue_turns_by_at_most_its_limit():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    turned = [
        only("colour", hue_limit_deg=60, saturation_limit=0).apply(red, rng(seed))[0, 0]
        for seed in range(40)
    ]
    # Sixty degrees from red lie yellow and magenta.
    assert all(picture[0] == 200 for picture in turned)
    assert max(int(picture[1]) for picture in turned) > 100
    assert max(int(picture[2]) for picture in turned) > 100


def test_changes_do_not_happen_together(chip):
    """One seed for all, as albumentations' Compose gives, would make them happen together."""
    colour = Photometric(**NONE | {"tone": 0.5, "grey": 0.5})
    tone_alone = replace(colour, grey=0.0)
    counts = np.zeros((2, 2))
    for seed in range(400):
        picture = colour.apply(chip, rng(seed))
        toned = not np.array_equal(tone_alone.apply(chip, rng(seed)), chip)
        counts[int(toned), int(np.array_equal(picture[..., 0], picture[..., 2]))] += 1
    # Binomial, 400 draws of 1/4 each: 4 standard deviations are 35.
    assert np.abs(counts - 100).max() < 35


def test_turning_one_off_leaves_the_others(chip):
    both = Photometric(**NONE | {"tone": 1.0, "shadow": 1.0})
    toned = replace(both, shadow=0.0).apply(chip, rng(3))
    assert np.array_equal(only("tone").apply(chip, rng(3)), toned)
    assert np.array_equal(replace(both, tone=0.0).apply(toned, rng(3)), both.apply(chip, rng(3)))


def test_one_in_five_by_default():
    tiny, generator, colour = np.zeros((8, 8, 3), np.uint8), rng(1), Photometric()
    tiny[::2] = (250, 60, 10)
    shares = np.array([getattr(colour, name) for name in CHANGES])
    expected = 1 - np.prod(1 - shares)
    assert expected == pytest.approx(0.2, abs=0.01)
    touched = np.mean([colour.apply(tiny, generator) is not tiny for _ in range(1000)])
    assert abs(touched - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000)


def test_threads_share_one_object(chip):
    colour = Photometric(*[0.7] * 5)
    alone = [colour.apply(chip, rng(seed)) for seed in range(48)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: colour.apply(chip, rng(seed)), range(48)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_no_size_is_too_odd(height, width, seed):
    pytest.importorskip("albumentations")
    image = rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert Photometric(*[1.0] * 5).apply(image, rng(seed)).shape == image.shape


def test_without_albumentations_it_is_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(InputError, match="pip install albumentations"):
        Photometric()
    chip = np.full((8, 8, 3), 90, np.uint8)
    assert Photometric(**NONE).apply(chip, rng()) is chip
    assert Augmentation().apply(chip, rng()).shape == chip.shape


def test_it_does_not_ask_the_network(monkeypatch, chip):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    only("tone").apply(chip, rng())
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="no parameter 'shadows'; did you mean 'shadow'"):
        build_photometric(shadows=0.5)
    with pytest.raises(InputError, match="tone must lie in"):
        build_photometric(tone=2)
    with pytest.raises(InputError, match="hue_limit_deg must lie in"):
        build_photometric(hue_limit_deg=200)
    assert build_photometric(**NONE) == Photometric(**NONE)
