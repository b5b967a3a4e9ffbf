import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import coarse, cosine, faces, lowest_threshold

from eval import protocol_lfr, protocol_pair_rates
from eval.protocol_lfr import compare_videos, list_frames, read_labels, read_video_list
from facerec.checks import InputError


def brute(vectors, people, fars):
    count = len(vectors)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    scores = [cosine(vectors[i], vectors[j]) for i, j in pairs]
    same = [people[i] == people[j] for i, j in pairs]
    own = [s for s, mated in zip(scores, same, strict=True) if mated]
    strangers = [s for s, mated in zip(scores, same, strict=True) if not mated]
    for far in fars:
        threshold = lowest_threshold(strangers, own, far)
        yield 0.0 if threshold is None else np.mean(np.array(own) >= threshold)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 10**6]), st.sampled_from([2, 1024]))
def test_all_pairs_equal_brute_force_ties_and_failures_included(seed, least, tile):
    rng = np.random.default_rng(seed)
    # Axes only: products of halves could differ in the last bit from block to block.
    vectors, people = coarse(rng, 24, 1), rng.integers(6, size=24)
    people[:2], people[2] = 0, 1
    before = protocol_pair_rates.LEAST_DEPTH, protocol_lfr._TILE
    protocol_pair_rates.LEAST_DEPTH, protocol_lfr._TILE = least, tile
    try:
        found = compare_videos(vectors, people, fars=[0.5, 0.1], resamples=10)
    finally:
        protocol_pair_rates.LEAST_DEPTH, protocol_lfr._TILE = before
    wanted = brute(vectors, people.tolist(), [0.5, 0.1])
    for rate, value in zip(found.tar, wanted, strict=True):
        assert rate.value is None or rate.value == pytest.approx(value)
    assert found.pairs == 24 * 23 // 2 and found.failed_videos == (vectors[:, 0] == 0).sum()


def test_intervals_and_counts():
    vectors, people = faces(40, 5, 1.0)
    vectors[7] = 0
    found = compare_videos(vectors, people, fars=[1e-1, 1e-2, 1e-4], resamples=200)
    assert (found.videos, found.people, found.mated, found.failed_mated) == (200, 40, 400, 4)
    for rate, value in zip(found.tar[:2], brute(vectors, people, [1e-1, 1e-2]), strict=True):
        assert rate.value == pytest.approx(value, abs=0.0026)
        assert rate.interval.low < rate.value < rate.interval.high
    assert not found.tar[2].supported
    text = [f"p{person}" for person in people]
    assert compare_videos(vectors, text, resamples=0).mated == 400
    json.dumps(found.to_json(), allow_nan=False)


def test_intervals_equal_those_of_the_listed_pairs():
    vectors, people = faces(30, 4, 1.2)
    vectors[4:8] = 0  # person 1 failed altogether
    found = compare_videos(vectors, people, fars=[0.1, 0.01], resamples=60, seed=3)
    first, second = np.triu_indices(120, 1)
    scores = np.array(
        [cosine(vectors[a], vectors[b]) for a, b in zip(first, second, strict=True)], np.float32
    )
    sides = people[first], people[second]
    listed = protocol_pair_rates.sample_list(scores, sides[0] == sides[1], sides, [0.1, 0.01])
    for rate, other in zip(found.tar, listed.rates([0.1, 0.01], resamples=60, seed=3), strict=True):
        assert rate.value == pytest.approx(other.value, abs=0.006)
        assert rate.interval.low == pytest.approx(other.interval.low, abs=0.012)
        assert rate.interval.high == pytest.approx(other.interval.high, abs=0.012)


@pytest.mark.parametrize(
    ("people", "fars", "message"),
    [
        ([0, 1, 2, 3], [0.1], "none is mated"),
        ([0, 0, 0, 0], [0.1], "none is non-mated"),
        ([0, 0, 1], [0.1], "subjects must be"),
        ([0, 0, 1, 1], [2.0], "target FAR"),
    ],
)
def test_bad_input_is_named(people, fars, message):
    with pytest.raises(InputError, match=message):
        compare_videos(np.eye(4, dtype=np.float32), people, fars=fars)


def test_too_lax_a_target_is_refused_before_memory_is(monkeypatch):
    monkeypatch.setattr(protocol_lfr, "MOST_PAIRS", 3)
    with pytest.raises(InputError, match="needs 4 scores kept, more than 3"):
        compare_videos(np.eye(4, dtype=np.float32), [0, 0, 1, 1])


def test_files_are_read(tmp_path):
    (tmp_path / "filelist.txt").write_text("v/1 7\nv/2 3\nv/3\n")
    videos = read_video_list(tmp_path / "filelist.txt")
    assert videos == ["v/1", "v/2", "v/3"]
    for name in ("v/1/b.jpg", "v/1/a.jpg", "v/3/x.png", "v/3/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    frames, owners = list_frames(tmp_path, videos)
    assert frames == ["v/1/a.jpg", "v/1/b.jpg", "v/3/x.png"] and owners.tolist() == [0, 0, 2]
    (tmp_path / "labels.txt").write_text("# who\nann\nbob\nann\n")
    assert read_labels(tmp_path / "labels.txt", 3) == ["ann", "bob", "ann"]
    with pytest.raises(InputError, match="a line a video, 4, got 3"):
        read_labels(tmp_path / "labels.txt", 4)
    (tmp_path / "filelist.txt").write_text("a\nb\na\n")
    with pytest.raises(InputError, match="the video a twice"):
        read_video_list(tmp_path / "filelist.txt")
    (tmp_path / "filelist.txt").write_text("")
    with pytest.raises(InputError, match="names no video"):
        read_video_list(tmp_path / "filelist.txt")
