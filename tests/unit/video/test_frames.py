from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.video.frames import VideoReader

av = pytest.importorskip("av")


def write_video(path, times, rate=25, size=(64, 48), codec="libx264", gop=10):
    """Write grey frames whose brightness tells their number; times in ticks of 1/1000 s."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size = gop
        for number, ticks in enumerate(times):
            image = np.full((size[1], size[0], 3), 20 + 8 * (number % 25), np.uint8)
            image[: size[1] // 2, : size[0] // 2] = (250, 0, 0)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=stream.pix_fmt
            )
            frame.pts, frame.time_base = ticks, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def read(path, **options):
    with VideoReader(path, **options) as reader:
        frames = list(reader)
    return reader, frames


def test_frames_come_in_order_with_exact_times(tmp_path):
    reader, frames = read(write_video(tmp_path / "v.mp4", range(0, 1200, 40)))
    assert [f.number for f in frames] == list(range(30))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(30) / 25, atol=1e-9)
    assert reader.decoded == reader.expected == 30
    assert (reader.corrupt, reader.missing) == (0, 0)
    image = frames[3].image
    assert image.dtype == np.uint8 and image.shape == (48, 64, 3)
    assert abs(int(image[-5, -5, 0]) - (20 + 8 * 3)) <= 4
    assert image[5, 5, 0] > 200 and image[5, 5, 2] < 60  # red comes first


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 40, 50, 400, 410, 1000]
    _, frames = read(write_video(tmp_path / "v.mkv", times))
    np.testing.assert_allclose([f.time_s for f in frames], np.array(times) / 1000, atol=1e-9)


def test_every_third_frame_keeps_number_and_time(tmp_path):
    reader, frames = read(write_video(tmp_path / "v.mp4", range(0, 400, 40)), every=3)
    assert [f.number for f in frames] == [0, 3, 6, 9]
    np.testing.assert_allclose([f.time_s for f in frames], [0, 0.12, 0.24, 0.36], atol=1e-9)
    assert reader.decoded == 10


def test_a_gif_is_a_video(tmp_path):
    _, frames = read(write_video(tmp_path / "v.gif", range(0, 1000, 100), rate=10, codec="gif"))
    assert len(frames) == 10 and frames[0].image.shape == (48, 64, 3)
    np.testing.assert_allclose(np.diff([f.time_s for f in frames]), 0.1, atol=1e-9)


def test_a_truncated_file_ends_cleanly_with_its_count(tmp_path):
    whole = write_video(tmp_path / "v.mp4", range(0, 8000, 40), size=(320, 240))
    faststart = tmp_path / "fast.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(faststart), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = faststart.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * 0.7)])
    reader, frames = read(cut)
    assert 0 < len(frames) < 200
    assert reader.missing == 200 - len(frames)
    assert [f.number for f in frames] == list(range(len(frames)))


def test_corrupt_packets_are_counted_and_passed_over(tmp_path):
    path = write_video(tmp_path / "v.mkv", range(0, 4000, 40), size=(320, 240), gop=5)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    rng = np.random.default_rng(0)
    data[middle : middle + 400] = rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    reader, frames = read(path)
    assert len(frames) >= 50
    assert reader.corrupt > 0 or len(frames) < 100


def test_a_rotation_flag_turns_the_picture_upright(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(0, 200, 40))
    data = bytearray(path.read_bytes())
    unit = (1 << 16).to_bytes(4, "big")
    zero, minus = bytes(4), (-(1 << 16)).to_bytes(4, "big", signed=True)
    last = (1 << 30).to_bytes(4, "big")
    plain = unit + zero * 3 + unit + zero * 3 + last
    turned = zero + unit + zero + minus + zero * 4 + last  # as a phone held upright: 90 clockwise
    place = data.index(plain, data.index(b"tkhd"))
    data[place : place + len(plain)] = turned
    path.write_bytes(data)
    _, frames = read(path)
    image = frames[0].image
    assert image.shape == (64, 48, 3)
    assert image[5, -5, 0] > 200 and image[5, -5, 2] < 60  # the red corner moved top right
    assert image[-5, 5, 0] < 60


def test_leaving_early_stops_the_thread(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(0, 8000, 40))
    with VideoReader(path, ahead=2) as reader:
        assert next(iter(reader)).number == 0
    assert not reader._thread.is_alive()
    assert reader.decoded < 200  # the queue is bounded


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be a video"):
        VideoReader(path)


def test_a_missing_file_and_a_bad_step_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="every"):
        VideoReader(Path(tmp_path), every=0)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        sound.rate = 8000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        VideoReader(path)
