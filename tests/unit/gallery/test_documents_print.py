"""The print-scan score on pictures with and without printed dots."""

import cv2
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.degrade_codec import Jpeg
from facerec.data.degrade_print import PrintScan
from facerec.data.images import read_image
from facerec.gallery.documents import print_cues, print_scan_score


def make_photo(seed, height=240, width=180, colour=45):
    """Return a picture whose spectrum falls as those of photographs do, uint8 RGB."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    radius[0, 0] = np.inf
    planes = []
    for spread in (45, colour / 2, colour / 2):
        noise = np.fft.rfft2(rng.standard_normal((height, width))) / radius**1.2
        plane = np.fft.irfft2(noise, (height, width))
        planes.append(plane / plane.std() * spread)
    grey, red, blue = planes
    picture = np.stack([grey + red, grey - red / 2 - blue / 2, grey + blue], axis=-1) + 120
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


PHOTOS = [make_photo(seed) for seed in range(4)]


@pytest.mark.parametrize("quality", [0, 90, 50, 20])
def test_photographs_show_no_dots_however_compressed(quality):
    for photo in PHOTOS:
        cues = print_cues(Jpeg(quality).apply(photo) if quality else photo)
        assert cues.peak_db < 14
        assert cues.score == 0


@pytest.mark.parametrize("pitch", [1.5, 3, 4, 6, 8])
def test_printed_dots_are_seen_after_scan_and_compression(pitch):
    for seed, photo in enumerate(PHOTOS):
        scan = PrintScan(
            halftone=0.45,
            pitch_px=pitch,
            blur_px=0.2 * pitch,
            rotation_deg=1,
            quality=85,
            seed=seed,
        )
        assert print_scan_score(scan.apply(photo)) > 0.5


def test_coarse_dots_are_seen_on_the_halved_picture():
    photo = make_photo(9, 520, 400)
    scan = PrintScan(halftone=0.5, pitch_px=16, blur_px=3, quality=85).apply(photo)
    assert print_scan_score(scan) > 0.5
    assert print_scan_score(photo) == 0


def test_the_score_grows_with_the_contrast_of_the_dots():
    scores = [
        print_cues(PrintScan(halftone=h, pitch_px=4).apply(PHOTOS[0])).peak_db
        for h in (0, 0.1, 0.2, 0.4, 0.8)
    ]
    assert scores == sorted(scores)


def test_a_single_wave_stands_out_by_its_own_height():
    """A wave of amplitude a over white noise of deviation s: about a^2 W1^2 / (4 s^2 W2)."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:256, :256]
    amplitude, deviation = 12.0, 5.0
    wave = amplitude * np.cos(2 * np.pi * (14 * x + 11 * y) / 64)
    noise = rng.normal(0, deviation, (256, 256, 3))
    picture = np.clip(np.round(128 + wave[..., None] + noise), 0, 255).astype(np.uint8)
    taps = np.hanning(66)[1:-1]
    window, squared = taps.sum() ** 2, (taps**2).sum() ** 2
    expected = 10 * np.log10(amplitude**2 * window**2 / 4 / (deviation**2 * squared) + 1)
    assert print_cues(picture).peak_db == pytest.approx(expected, abs=1.5)


def test_ink_tones_without_dots_reach_a_half_at_most():
    print_ = PrintScan(saturation=0.2, black=0.06, white=0.8, blur_px=0.5, quality=85)
    cues = [print_cues(print_.apply(photo)) for photo in PHOTOS]
    assert all(0.3 < cue.score <= 0.5 for cue in cues)
    grey = np.repeat(cv2.cvtColor(PHOTOS[0], cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    assert print_cues(grey).chroma < 1
    assert print_cues(grey).score < 0.3  # grey alone is no print: its darkest is a camera's


def test_flat_and_extreme_pictures_have_a_score():
    for value in (0, 128, 255):
        cues = print_cues(np.full((64, 64, 3), value, np.uint8))
        assert cues.peak_db < 1
        assert 0 <= cues.score <= 0.5


def test_the_score_is_the_same_each_time_and_for_views():
    photo = PHOTOS[1]
    wide = np.zeros((240, 360, 3), np.uint8)
    wide[:, ::2] = photo
    assert print_cues(wide[:, ::2]) == print_cues(photo) == print_cues(photo)


@pytest.mark.parametrize("shape", [(63, 200), (200, 63), (1, 1)])
def test_portraits_too_small_to_show_dots_are_judged_by_their_tones(shape):
    scan = PrintScan(halftone=0.45, pitch_px=4, quality=85).apply(make_photo(0, 200, 200))
    assert print_cues(scan).peak_db > 14
    cues = print_cues(scan[: shape[0], : shape[1]])
    assert cues.peak_db == 0
    assert 0 <= cues.score <= 0.5


def test_what_is_no_picture_is_refused():
    with pytest.raises(InputError, match="portrait must be a uint8 RGB array"):
        print_scan_score(np.zeros((100, 100, 3), np.float32))


@pytest.mark.real
def test_real_photographs_and_their_simulated_prints(real_data):
    files = sorted((real_data / "lfw" / "images").rglob("*.jpg"))[::180]
    faces = [read_image(file)[25:225, 50:200] for file in files]
    assert len(faces) >= 20
    photos = np.array([print_scan_score(face) for face in faces])
    prints = [
        PrintScan(halftone=0.45, pitch_px=4, blur_px=1.2, quality=85, seed=seed).apply(face)
        for seed, face in enumerate(faces)
    ]
    scores = np.array([print_scan_score(scan) for scan in prints])
    assert (photos > 0.5).mean() <= 0.05
    assert (scores > 0.5).mean() >= 0.95
