import numpy as np
import pytest

from eval.bench.tracks import count_runs, measure_tracks
from facerec.checks import InputError
from facerec.structures import Track


def make_track(number, axes, start=0, template=None):
    t = len(axes)
    return Track(
        number,
        np.arange(start, start + t),
        np.arange(start, start + t) / 25,
        np.tile(np.array([0, 0, 40, 50], np.float32), (t, 1)),
        np.zeros((t, 5, 2), np.float32),
        np.ones(t, np.float32),
        np.eye(4, dtype=np.float32)[axes],
        np.full(t, 20, np.float32),
        template=np.eye(4, dtype=np.float32)[axes[0] if template is None else template],
    )


@pytest.mark.parametrize(
    ("away", "runs"),
    [([], 0), ([0] * 3, 0), ([2] * 2, 0), ([2] * 3, 1), ([2, 2, 0, 2], 0), ([1] * 3 + [2] * 3, 2)],
)
def test_runs_of_one_other_track_are_switches(away, runs):
    assert count_runs(np.array(away, np.int64)) == runs


def test_a_stray_frame_is_no_switch_and_a_run_is():
    clean = make_track(1, [0] * 12)
    stray = make_track(2, [1] * 5 + [0] + [1] * 6)
    swapped = make_track(3, [2] * 8 + [1] * 4)
    found = measure_tracks([clean, stray, swapped], least_span=10)
    assert (found["tracks"], found["long_tracks"], found["full_tracks"]) == (3, 3, 3)
    assert [row["strays"] for row in found["per_track"]] == [0, 1, 4]
    assert [row["switches"] for row in found["per_track"]] == [0, 0, 1]
    assert found["switches"] == 1 and found["strays_all"] == 5


def test_short_tracks_do_not_count_among_the_long():
    found = measure_tracks([make_track(1, [0] * 12), make_track(2, [0] * 3, start=20)], 10)
    assert found["long_tracks"] == 1 and found["strays"] == 0
    assert found["fragments"] == 1  # the same person, in two pieces


def test_a_track_needs_its_template():
    track = make_track(1, [0] * 3)
    track.template = None
    with pytest.raises(InputError, match="aggregate it first"):
        measure_tracks([track])
