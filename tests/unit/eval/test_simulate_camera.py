"""The camera's sensor and stream, and the document's picture."""

import errno

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType

from eval.simulate_camera import Camera, burn_in, open_stream
from eval.simulate_documents import PORTRAIT, crop_portrait, mark_png
from eval.simulate_settings import SimulationSettings
from facerec.data.align import ARCFACE_TEMPLATE
from facerec.data.images import decode_image, encode_png

SIDE = 96


def noisy_clip(frames=24):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for _ in range(frames)]


def write(path, clip, bit_rate_kbit):
    with open_stream(path, SIDE, SIDE, 12, bit_rate_kbit) as append:
        for frame in clip:
            append(frame)
    return path


def grey(level=0.2):
    return np.full((80, 80, 3), level, np.float32)


def draw_camera(seed, **changes):
    return Camera.draw(np.random.default_rng(seed), SimulationSettings(**changes))


@pytest.mark.parametrize("bit_rate_kbit", [60, 300])
def test_the_stream_is_h264_marked_and_of_its_bit_rate(tmp_path, bit_rate_kbit):
    path = write(tmp_path / "a.mp4", noisy_clip(), bit_rate_kbit)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.frames == 24
        assert stream.average_rate == 12
        assert "simulated" in container.metadata["comment"]
        kinds = {int(frame.pict_type) for frame in container.decode(stream)}
    # No frame waits for a later one.
    assert kinds == {PictureType.I, PictureType.P}
    rate = 8 * path.stat().st_size / 2 / 1000
    assert 0.5 * bit_rate_kbit < rate < 2 * bit_rate_kbit


def test_the_same_frames_give_the_same_bytes(tmp_path):
    first, again = (write(tmp_path / f"{n}/a.mp4", noisy_clip(6), 100) for n in "xy")
    assert first.read_bytes() == again.read_bytes()


def test_a_video_that_fails_leaves_nothing(tmp_path):
    with (
        pytest.raises(RuntimeError),
        open_stream(tmp_path / "a.mp4", SIDE, SIDE, 12, 100) as append,
    ):
        append(noisy_clip(1)[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_with_the_video(tmp_path):
    with (
        pytest.raises(OSError, match=r"a\.mp4") as caught,
        open_stream(tmp_path / "a.mp4", SIDE, SIDE, 12, 100),
    ):
        raise av.error.OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_more_gain_is_more_noise_and_low_light_is_darker():
    quiet, loud = (draw_camera(1, low_light=0, noise_gain_range=(gain, gain)) for gain in (1, 64))
    spreads = [camera.expose(grey(), 3)[..., 1].std() for camera in (quiet, loud)]
    assert spreads[1] > 3 * spreads[0]
    dark = draw_camera(1, low_light=1, low_light_stops_range=(4, 4))
    assert (dark.dark, quiet.dark) == (True, False)
    assert dark.expose(grey(), 3).mean() < quiet.expose(grey(), 3).mean() - 15
    assert dark.exposure_s > quiet.exposure_s


def test_noise_follows_its_seed_and_defocus_spreads_a_point():
    camera = draw_camera(2, low_light=0, defocus_px_range=(3, 3), noise_gain_range=(1, 1))
    assert np.array_equal(camera.expose(grey(), 3), camera.expose(grey(), 3))
    assert not np.array_equal(camera.expose(grey(), 3), camera.expose(grey(), 4))
    point = grey(0.0)
    point[40, 40] = 20
    seen = camera.expose(point, 0)[..., 1] > 100
    assert 20 < seen.sum() < 45
    assert seen[40, 38:43].all()


def test_one_setting_leaves_the_others_of_a_camera_as_they_were():
    plain, noisy = draw_camera(5), draw_camera(5, noise_gain_range=(2, 200))
    assert plain.gain != noisy.gain
    assert {**plain.to_json(), "gain": 0} == {**noisy.to_json(), "gain": 0}


def test_frames_say_that_they_are_simulated():
    frame = np.full((120, 320, 3), 100, np.uint8)
    burn_in(frame, "SIMULATED x")
    changed = np.argwhere((frame != 100).any(axis=2))
    assert len(changed) > 100
    assert changed[:, 0].min() > 90
    assert changed[:, 1].max() < 160


def test_the_portrait_is_upright_whole_and_of_one_size():
    rng = np.random.default_rng(1)
    still = cv2.resize(rng.integers(0, 255, (9, 9, 3)).astype(np.uint8), (260, 260))
    marks = ARCFACE_TEMPLATE * 1.1 + 60
    turned = cv2.rotate(still, cv2.ROTATE_90_CLOCKWISE)
    turned_marks = np.stack([259 - marks[:, 1], marks[:, 0]], axis=1)
    upright, from_turned = crop_portrait(still, marks), crop_portrait(turned, turned_marks)
    assert upright.shape == (PORTRAIT[1], PORTRAIT[0], 3)
    middle = (slice(60, 220), slice(60, 190))
    assert np.abs(upright[middle].astype(int) - from_turned[middle]).mean() < 2


def test_beyond_the_still_a_document_shows_a_light_wall():
    chip = np.full((112, 112, 3), 90, np.uint8)
    portrait = crop_portrait(chip, ARCFACE_TEMPLATE)
    assert (portrait[2, 2] == 214).all()
    assert (portrait[160, 124] == 90).all()


def test_the_comment_of_a_png_leaves_its_picture_alone():
    picture = noisy_clip(1)[0]
    data = mark_png(encode_png(picture), "simulated document")
    assert b"tEXtComment\0simulated document" in data
    assert np.array_equal(decode_image(data, "x"), picture)
