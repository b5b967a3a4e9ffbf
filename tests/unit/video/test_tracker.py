import numpy as np
import pytest

from facerec.checks import InputError
from facerec.embedder import Embeddings
from facerec.structures import Faces
from facerec.video.tracker import Tracker, TrackerSettings, box_iou

DIM = 32


class Actor:
    """A face that moves on a line and looks like itself, with some noise."""

    def __init__(self, number, start, speed=(0.0, 0.0), side=60.0, frames=range(10_000)):
        self.look = np.eye(DIM)[number]
        self.start, self.speed, self.side = np.array(start), np.array(speed), side
        self.frames = frames

    def box(self, frame):
        x, y = self.start + frame * self.speed
        return [x, y, x + self.side, y + self.side]


def see(frame, actors, rng, score=0.9, noise=0.5):
    """Return the faces of one frame in random order, with who is who."""
    shown = [i for i, a in enumerate(actors) if frame in a.frames]
    shown = [shown[i] for i in rng.permutation(len(shown))]
    boxes = np.array([actors[i].box(frame) for i in shown], np.float32).reshape(-1, 4)
    looks = np.array([actors[i].look for i in shown]).reshape(-1, DIM)
    looks = looks + noise * rng.standard_normal(looks.shape) / np.sqrt(DIM)
    vectors = (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)
    n = len(shown)
    faces = Faces(boxes, np.zeros((n, 5, 2), np.float32), np.full(n, score, np.float32))
    return faces, Embeddings(vectors, np.full(n, 20, np.float32)), shown


def play(actors, frames, fps=25, settings=None, seed=0, hidden=lambda frame, who: False):
    """Run a scene; return the tracks and for each the actors that it holds."""
    rng = np.random.default_rng(seed)
    tracker = Tracker(settings)
    tracks, truth = [], {}
    for frame in frames:
        faces, found, shown = see(frame, actors, rng)
        keep = [i for i, who in enumerate(shown) if not hidden(frame, who)]
        for i in keep:
            truth[frame, tuple(faces.boxes[i].tolist())] = shown[i]
        part = Embeddings(found.vectors[keep], found.norms[keep])
        tracks += tracker.update(frame, frame / fps, faces[keep], part)
    tracks += tracker.finish()
    who = [
        {truth[int(f), tuple(b.tolist())] for f, b in zip(t.frames, t.boxes, strict=True)}
        for t in tracks
    ]
    return tracks, who


def test_still_and_moving_faces_keep_their_tracks():
    actors = [Actor(0, (0, 0)), Actor(1, (300, 0), (4, 2)), Actor(2, (900, 400), (-6, 0), 40)]
    tracks, who = play(actors, range(60))
    assert sorted(map(len, tracks)) == [60, 60, 60]
    assert sorted(map(tuple, who)) == [(0,), (1,), (2,)]
    assert sorted(t.track_id for t in tracks) == [1, 2, 3]
    track = tracks[0]
    assert track.embeddings.shape == (60, DIM) and track.landmarks.shape == (60, 5, 2)
    np.testing.assert_allclose(track.times_s, np.arange(60) / 25)


@pytest.mark.parametrize("seed", range(5))
def test_two_people_cross_without_a_switch(seed):
    actors = [Actor(0, (0, 0), (5, 0)), Actor(1, (400, 5), (-5, 0))]
    # Where they overlap, only the one in front is seen.
    hidden = lambda frame, who: who == 1 and 34 <= frame <= 46  # noqa: E731
    tracks, who = play(actors, range(80), seed=seed, hidden=hidden)
    assert sorted(map(len, tracks)) == [67, 80]
    assert sorted(map(tuple, who)) == [(0,), (1,)]


def test_a_newcomer_in_the_same_place_is_somebody_else():
    """Identities never merge because boxes overlap: appearance vetoes."""
    actors = [Actor(0, (100, 100), frames=range(20)), Actor(1, (100, 100), frames=range(20, 40))]
    tracks, who = play(actors, range(40))
    assert [len(t) for t in tracks] == [20, 20]
    assert who == [{0}, {1}]


def test_a_short_occlusion_does_not_end_a_track_and_a_long_one_does():
    actors = [Actor(0, (100, 100), (2, 0))]
    short, _ = play(actors, range(60), hidden=lambda frame, _: 20 <= frame < 45)
    assert [len(t) for t in short] == [35]
    long, _ = play(actors, range(120), hidden=lambda frame, _: 20 <= frame < 80)
    assert [len(t) for t in long] == [20, 40]
    assert [t.track_id for t in long] == [1, 2]


def test_a_jump_of_the_camera_is_bridged_by_appearance():
    class Shaken(Actor):
        def box(self, frame):
            shift = 70 if frame >= 10 else 0
            return [v + shift for v in super().box(frame)]

    tracks, who = play([Shaken(0, (0, 0)), Shaken(1, (400, 0))], range(20))
    assert [len(t) for t in tracks] == [20, 20] and sorted(map(tuple, who)) == [(0,), (1,)]


def test_a_track_counts_after_three_hits():
    actors = [Actor(0, (0, 0), frames={0, 1}), Actor(1, (300, 0), frames={0, 1, 2})]
    tracks, who = play(actors, range(10))
    assert who == [{1}] and len(tracks[0]) == 3
    lenient, _ = play(actors, range(10), settings=TrackerSettings(confirm_hits=1))
    assert len(lenient) == 2


def test_doubtful_detections_continue_but_never_start_a_track():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    actor = Actor(0, (0, 0))
    for frame in range(30):
        faces, found, _ = see(frame, [actor], rng, score=0.5 if frame >= 10 else 0.9)
        assert tracker.update(frame, frame / 25, faces, found) == []
    assert [len(t) for t in tracker.finish()] == [30]
    for frame in range(10):
        faces, found, _ = see(frame, [actor], rng, score=0.5)
        tracker.update(frame, 2 + frame / 25, faces, found)
    assert tracker.finish() == []


def test_a_second_box_on_a_face_starts_nothing():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    for frame in range(10):
        faces, found, _ = see(frame, [Actor(0, (0, 0)), Actor(0, (10, 5))], rng)
        tracker.update(frame, frame / 25, faces, found)
    assert len(tracker.finish()) == 1


def test_equal_input_gives_equal_tracks():
    actors = [Actor(i, (70 * i, 0), ((-1) ** i * 3, 1)) for i in range(6)]
    one, _ = play(actors, range(50), seed=3)
    two, _ = play(actors, range(50), seed=3)
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.track_id == b.track_id
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_empty_frames_and_an_empty_video():
    tracker = Tracker()
    nothing = Embeddings(np.zeros((0, DIM), np.float32), np.zeros(0, np.float32))
    for frame in range(5):
        assert tracker.update(frame, frame / 25, Faces.empty(), nothing) == []
    assert tracker.finish() == []


def test_ended_tracks_come_out_before_the_video_ends():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    out = []
    for frame in range(100):
        faces, found, _ = see(frame, [Actor(0, (0, 0), frames=range(10))], rng)
        out += [(frame, t) for t in tracker.update(frame, frame / 25, faces, found)]
    assert [(frame, len(t)) for frame, t in out] == [(60, 10)]  # 9 / 25 s + 2 s


def test_bad_input_is_refused():
    nothing = Embeddings(np.zeros((0, DIM), np.float32), np.zeros(0, np.float32))
    tracker = Tracker()
    tracker.update(0, 1.0, Faces.empty(), nothing)
    with pytest.raises(InputError, match="before the last"):
        tracker.update(1, 0.5, Faces.empty(), nothing)
    faces, _, _ = see(0, [Actor(0, (0, 0))], np.random.default_rng(0))
    with pytest.raises(InputError, match="1 faces came with 0"):
        tracker.update(2, 2.0, faces, nothing)
    with pytest.raises(InputError, match="min_iou"):
        TrackerSettings(min_iou=2)


def test_box_iou_worked_cases():
    a = np.array([[0, 0, 2, 2], [10, 10, 11, 11]], np.float64)
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 5, 5]], np.float64)
    np.testing.assert_allclose(box_iou(a, b), [[1 / 7, 1, 0], [0, 0, 0]])
