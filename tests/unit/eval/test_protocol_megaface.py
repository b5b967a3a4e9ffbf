import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import coarse, cosine, faces, lowest_threshold

from eval import protocol_megaface
from eval.protocol_files import write_matrix
from eval.protocol_megaface import identify_among_distractors
from eval.protocol_megaface_files import find_noise, read_noise_list, read_picture_features
from facerec.checks import InputError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 8192]))
def test_ranks_equal_brute_force_ties_and_failures_included(seed, tile):
    rng = np.random.default_rng(seed)
    probes, others = coarse(rng, 9), coarse(rng, 12)
    others[0] = [1, 0, 0]
    people = np.concatenate([[0, 0], rng.integers(4, size=7)])
    before = protocol_megaface._TILE, protocol_megaface._PROBES
    protocol_megaface._TILE, protocol_megaface._PROBES = tile, 2
    sound = np.flatnonzero(np.any(others != 0, axis=1))
    sizes = sorted({1, sound.size})
    try:
        found = identify_among_distractors(
            probes, people, others, sizes=sizes, ranks=[1, 2], fars=[0.5], resamples=0
        )
    finally:
        protocol_megaface._TILE, protocol_megaface._PROBES = before
    pairs = [
        (i, j) for i in range(9) for j in range(9) if i != j and people[i] == people[j]
    ]  # fmt: skip
    for size in sizes:
        ranks = []
        for mate, probe in pairs:
            score = cosine(probes[probe], probes[mate])
            ahead = [cosine(probes[probe], others[k]) >= score for k in sound[:size]]
            ranks.append(1 + sum(ahead) if score > -np.inf else np.inf)
        for rate, k in zip(found.ranks[size], (1, 2), strict=True):
            assert rate.value == pytest.approx(np.mean([rank <= k for rank in ranks]))
    assert found.pairs == len(pairs) and found.failed_distractors == 12 - sound.size
    used = sorted({i for pair in pairs for i in pair})
    strangers = [cosine(probes[i], others[k]) for i in used for k in sound]
    own = [cosine(probes[i], probes[j]) for i, j in pairs if i < j]
    threshold = lowest_threshold(strangers, own, 0.5)
    hits = 0.0 if threshold is None else np.mean(np.array(own) >= threshold)
    assert found.tar[0].trials == len(strangers)
    assert found.tar[0].value is None or found.tar[0].value == pytest.approx(hits)


def test_noise_is_left_out_and_counted():
    vectors, people = faces(10, 3)
    others, _ = faces(25, 1, seed=9)
    noisy = np.zeros(30, bool)
    noisy[:2] = True
    found = identify_among_distractors(
        vectors, people, others, noisy_probes=noisy, noisy_distractors=np.arange(25) < 4,
        resamples=50,
    )  # fmt: skip
    # Person 0 has one picture left and with it no pair.
    assert (found.people, found.probes, found.pairs) == (9, 27, 54)
    assert (found.noisy_probes, found.noisy_distractors, found.distractors) == (2, 4, 21)
    assert list(found.ranks) == [10, 21]
    first, last = found.ranks[10][0], found.ranks[21][0]
    assert first.value >= last.value and last.name == "rank-1 of 21"
    assert last.interval.low <= last.value <= last.interval.high
    json.dumps(found.to_json(), allow_nan=False)


def test_tar_draws_the_probe_people():
    vectors, people = faces(12, 6, 1.0)
    others, _ = faces(300, 1, seed=9)
    found = identify_among_distractors(vectors, people, others, fars=[0.01, 1e-5], resamples=100)
    rate = found.tar[0]
    assert rate.interval.low < rate.value < rate.interval.high and rate.trials == 72 * 300
    assert not found.tar[1].supported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": [0, 1, 2]}, "none of 3 people has two pictures"),
        ({"distractors": np.zeros((2, 3), np.float32)}, "no distractor with an embedding"),
        ({"sizes": [4]}, r"lie in \[1, 3\], those left, got 4"),
        ({"distractors": np.eye(2, dtype=np.float32)}, "two models"),
        ({"noisy_probes": [1, 0, 0]}, "noisy_probes must be boolean"),
        ({"ranks": [0]}, "rank must lie"),
    ],
)
def test_bad_input_is_named(change, message):
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match=message):
        identify_among_distractors(
            **({"probes": x, "people": [0, 0, 1], "distractors": x} | change)
        )


def test_noise_lists_are_read(tmp_path):
    path = tmp_path / "noises.txt"
    path.write_text("# by somebody\n1\t100/7@N0/12.jpg\n\n2\t100/7@N0/13.jpg\n")
    noise = read_noise_list(path, 3)
    assert noise == {"100/7@N0/12.jpg", "100/7@N0/13.jpg"}
    names = ["set/100/7@N0/11.jpg", "set/100/7@N0/12.jpg"]
    assert find_noise(names, noise, 3).tolist() == [False, True]
    with pytest.raises(InputError, match="none of the 2 pictures of the noise list is among 1"):
        find_noise(names[:1], noise, 3)
    path.write_text("Ann_B/Ann_B_3.png\n")
    assert find_noise(["x/Ann_B_3.png", "x/Ann_B_4.png"], read_noise_list(path, 1), 1)[0]
    assert not find_noise(names, frozenset(), 3).any()


def test_features_of_a_file_each_are_read(tmp_path):
    for name, row in (("a/1.jpg", [[3.0], [4.0]]), ("a/2.jpg", [[0.0], [0.0]])):
        write_matrix(tmp_path / f"{name}_net.bin", np.array(row))
    names = ["a/1.jpg", "a/2.jpg", "a/3.jpg"]
    vectors, norms = read_picture_features(tmp_path, names, "_net.bin")
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0], [0, 0]], atol=1e-7)
    assert norms.tolist() == [5, 0, 0]
    write_matrix(tmp_path / "a/3.jpg_net.bin", np.ones((3, 1)))
    with pytest.raises(InputError, match=r"3 dimensions, others 2"):
        read_picture_features(tmp_path, names, "_net.bin")
    with pytest.raises(InputError, match="holds no feature"):
        read_picture_features(tmp_path, names, "_other.bin")
