"""Print and scan: each fault on its own against what it should do to a picture."""

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.degrade_print import PrintScan
from facerec.data.linear_light import from_linear, to_linear
from facerec.data.synthetic import make_chips


@pytest.fixture(scope="module")
def chip():
    return make_chips(1, 1, seed=4)[0][0]


def flat(level, side=96):
    return np.full((side, side, 3), level, np.uint8)


def test_a_perfect_print_changes_nothing(chip):
    assert np.array_equal(PrintScan().apply(chip), chip)


@pytest.mark.parametrize("level", [60, 128, 200])
@pytest.mark.parametrize("pitch", [1.5, 3.0, 6.0])
def test_dots_keep_the_tone(level, pitch):
    printed = to_linear(PrintScan(halftone=1.0, pitch_px=pitch, seed=2).apply(flat(level)))
    assert printed.mean() == pytest.approx(to_linear(flat(level)).mean(), abs=0.03)
    assert printed.std() > 0.02


def test_dots_repeat_at_their_pitch():
    printed = PrintScan(halftone=1.0, pitch_px=6.0).apply(flat(128))[..., 2].astype(float)
    power = np.abs(np.fft.rfft2(printed - printed.mean()))
    row, column = np.unravel_index(power.argmax(), power.shape)
    # The screen of the third ink is not turned: its waves run along the axes, 96 / 6 of them.
    assert {min(row, 96 - row), column} == {0, 16}


def test_gamut_loses_colour_and_contrast(chip):
    grey = PrintScan(saturation=0.0).apply(chip).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1
    ends = PrintScan(black=0.05, white=0.8)
    light = np.array([[[0.05] * 3], [[0.8] * 3]], np.float32)
    pair = np.array([[[0] * 3], [[255] * 3]], np.uint8)
    assert np.array_equal(ends.apply(pair), from_linear(light))


def test_dot_gain_darkens_the_middle_alone():
    out = [int(PrintScan(dot_gain=0.2).apply(flat(v))[0, 0, 0]) for v in (0, 128, 255)]
    assert out[0] == 0
    assert out[2] == 255
    middle = float(to_linear(flat(128))[0, 0, 0]) ** 0.5
    expected = (middle - 0.8 * middle * (1 - middle)) ** 2
    assert float(to_linear(flat(out[1]))[0, 0, 0]) == pytest.approx(expected, rel=0.02)


def test_paper_has_grain():
    light = to_linear(PrintScan(texture=0.05).apply(flat(150)))
    assert light.std() / light.mean() == pytest.approx(0.05, rel=0.1)


def test_glare_is_brightest_in_its_place():
    image = PrintScan(glare=0.5, glare_x=0.25, glare_y=0.75, glare_size=0.1).apply(flat(80))
    lit = image[..., 0] == image[..., 0].max()
    rows, columns = np.nonzero(lit)
    assert rows.mean() == pytest.approx(72, abs=1)
    assert columns.mean() == pytest.approx(24, abs=1)
    assert image[5, 90, 0] == 80


def test_hologram_lines_are_coloured_and_only_add_light():
    image = PrintScan(hologram=0.3, seed=5).apply(flat(80))
    assert image.min() >= 80
    assert np.ptp(image.astype(int), axis=2).max() > 10


def test_rotation_turns_about_the_middle():
    image = flat(0, 97)
    image[10:13, 47:50] = 255
    turned = PrintScan(rotation_deg=10.0).apply(image)[..., 0].astype(float)
    rows, columns = np.mgrid[:97, :97]
    x = (turned * columns).sum() / turned.sum() - 48
    y = (turned * rows).sum() / turned.sum() - 48
    # Anticlockwise as seen: what lay at the top moves to the left.
    assert np.rad2deg(np.arctan2(-x, -y)) == pytest.approx(10, abs=0.3)


def test_severity_costs_likeness(chip):
    def error(severity):
        rngs = [np.random.default_rng(seed) for seed in range(12)]
        scans = [PrintScan.draw(severity, rng).apply(chip) for rng in rngs]
        return np.mean([(scan.astype(float) - chip) ** 2 for scan in scans])

    found = [error(severity) for severity in (0.05, 0.3, 0.6, 1.0)]
    assert found == sorted(found)


def test_a_scan_is_deterministic(chip):
    scan = PrintScan.draw(1.0, np.random.default_rng(3))
    assert np.array_equal(scan.apply(chip), scan.apply(chip))
    assert PrintScan.draw(1.0, np.random.default_rng(3)) == scan


def test_bad_parameters_are_named():
    with pytest.raises(InputError, match=r"print_scan.dot_gain must lie in \[0, 0.25\]"):
        PrintScan(dot_gain=0.5)
    with pytest.raises(InputError, match="severity must lie in"):
        PrintScan.draw(2, np.random.default_rng(0))
