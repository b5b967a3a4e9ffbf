"""JPEG and H.264: quality orders error, the grid has a phase, and H.264 codes between frames."""

import sys

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.degrade import Degradation
from facerec.data.degrade_codec import H264, Jpeg, check_h264, code_clip
from facerec.data.synthetic import make_chips


@pytest.fixture(scope="module")
def chips():
    return make_chips(3, 2, seed=3)[0]


def psnr(a, b):
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return 10 * np.log10(255**2 / error)


def mean_psnr(operation, chips):
    return np.mean([psnr(operation.apply(chip), chip) for chip in chips])


def test_jpeg_loses_more_at_lower_quality(chips):
    found = [mean_psnr(Jpeg(quality), chips) for quality in (95, 80, 60, 40, 20, 5)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 32 > 26 > found[-1]


def test_full_colour_keeps_fine_stripes():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (200, 60, 60)
    stripes[:, 1::2] = (60, 60, 200)
    full, halved = Jpeg(95, False).apply(stripes), Jpeg(95, True).apply(stripes)
    assert psnr(full, stripes) > 30 > 20 > psnr(halved, stripes)


def test_jpeg_blocks_lie_where_the_phase_says():
    ramp = np.tile(np.linspace(60, 190, 64), (64, 1))
    image = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    for phase in (0, 3, 6):
        out = Jpeg(5, True, phase, 0).apply(image).astype(float)[:, 8:56, 1].mean(axis=0)
        edge = int(np.abs(np.diff(out)).argmax()) + 8 + 1
        assert (edge + phase) % 8 == 0


def test_h264_loses_more_at_higher_crf(chips):
    found = [mean_psnr(H264(crf, 4, 1.3, 0.4), chips) for crf in (12, 22, 32, 42, 51)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 36 > 28 > found[-1]


def test_h264_codes_the_last_frame_from_others(chips):
    operation = H264(34, 4, 1.7, -0.6, 5, 9)
    clip = operation.build_clip(chips[0])
    assert len(clip) == 4
    assert all(side % 16 == 0 for side in clip[0].shape[:2])
    assert np.array_equal(clip[-1][17:129, 13:125], chips[0])
    between, kind = code_clip(clip, 34)
    assert kind == "P"
    alone, alone_kind = code_clip(clip[-1:], 34)
    assert alone_kind == "I"
    # What is left of the earlier frames shows: the same frame coded on its own looks different.
    assert not np.array_equal(between, alone)
    assert np.array_equal(operation.apply(chips[0]), between[17:129, 13:125])


def test_h264_drifts_to_the_right_and_down(chips):
    first = H264(20, 3, 2.0, 1.0).build_clip(chips[0])[0]
    last = H264(20, 3, 2.0, 1.0).build_clip(chips[0])[-1]
    assert np.array_equal(first[20:100, 20:100], last[22:102, 24:104])


def test_codecs_are_deterministic(chips):
    for operation in (H264(30, 5, -1.2, 0.3, 3, 4), Jpeg(40, True, 3, 4)):
        assert np.array_equal(operation.apply(chips[1]), operation.apply(chips[1]))


def test_without_av_h264_is_refused_with_the_command(monkeypatch, chips):
    monkeypatch.setitem(sys.modules, "av", None)
    message = "h264 above 0: .*pip install av, or set h264 to 0"
    with pytest.raises(InputError, match=message):
        check_h264()
    with pytest.raises(InputError, match=message):
        Degradation(h264=0.1)
    with pytest.raises(InputError, match="pip install av"):
        H264(30).apply(chips[0])
    # Not asked for, it is not missed.
    image, record = Degradation.surveillance(0.5, h264=0).apply(
        chips[0], np.random.default_rng(0), force=True
    )
    assert record["operations"]
    assert image.shape == chips[0].shape
    Degradation(h264=0.5, probability=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Jpeg(0), "jpeg.quality must lie in"),
        (lambda: Jpeg(50.5), "jpeg.quality must be a whole number"),
        (lambda: Jpeg(50, phase_x=16), "jpeg.phase_x must lie in"),
        (lambda: H264(52), "h264.crf must lie in"),
        (lambda: H264(30, frames=1), "h264.frames must lie in"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
