import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import coarse

from eval import media as module
from eval.media import add_flipped, pool_frames, pool_templates
from facerec.checks import InputError

X, Y = [1.0, 0.0], [0.0, 1.0]


def rows(*vectors):
    return np.array(vectors, np.float32)


def test_frames_are_averaged_within_a_medium_and_media_summed():
    # Template 7: a video of x (norm 2) and y (norm 4), and a still y (norm 3).
    found = pool_templates(rows(X, Y, Y, X), [2, 4, 3, 5], [7, 7, 7, 3], [1, 1, 2, 1])
    assert found.ids.tolist() == [3, 7]
    video, still = np.array([1.0, 2.0]), np.array([0.0, 3.0])
    total = video + still
    np.testing.assert_allclose(found.vectors[1], total / np.linalg.norm(total), atol=1e-7)
    np.testing.assert_allclose(found.vectors[0], X)
    assert found.faces.tolist() == [1, 3] and found.media.tolist() == [1, 2]


def test_norms_and_detector_scores_are_weights():
    face = rows(X, Y)
    plain = pool_templates(face, [1, 3], [0, 0], [0, 1], use_norms=False)
    np.testing.assert_allclose(plain.vectors[0], [0.5**0.5] * 2, atol=1e-7)
    normed = pool_templates(face, [1, 3], [0, 0], [0, 1])
    np.testing.assert_allclose(normed.vectors[0], np.array([1, 3]) / 10**0.5, atol=1e-7)
    scored = pool_templates(face, [1, 3], [0, 0], [0, 1], detector_scores=[0.9, 0.1])
    np.testing.assert_allclose(scored.vectors[0], np.array([0.9, 0.3]) / 0.9**0.5, atol=1e-7)


def test_a_long_video_weighs_like_a_still():
    video = np.repeat(rows(X), 9, axis=0)
    found = pool_templates(np.concatenate([video, rows(Y)]), np.ones(10), [0] * 10, [1] * 9 + [2])
    np.testing.assert_allclose(found.vectors[0], [0.5**0.5] * 2, atol=1e-7)
    frames = pool_frames(np.concatenate([video, rows(Y)]), np.ones(10), [0] * 10)
    np.testing.assert_allclose(frames.vectors[0], np.array([9, 1]) / 82**0.5, atol=1e-7)


def test_a_failure_takes_no_part_and_is_counted():
    found = pool_templates(rows(X, [0, 0], Y, Y), [2, 0, 0, 1], [0, 0, 0, 1], [5, 5, 5, 5])
    np.testing.assert_allclose(found.vectors, rows(X, Y))
    assert found.faces.tolist() == [1, 1] and found.failed_faces.tolist() == [2, 0]
    lost = pool_templates(rows([0, 0], X), [0, 1], ["a", "b"], ["m", "m"])
    assert lost.made().tolist() == [False, True] and lost.media.tolist() == [0, 1]
    # Opposite faces leave no direction.
    assert not pool_templates(rows(X, [-1, 0]), [1, 1], [0, 0], [0, 1]).made()[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 16_384]))
def test_pooling_equals_the_rule_written_out(seed, block):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    vectors = coarse(rng, count)
    norms = rng.uniform(0.5, 3, count) * (rng.random(count) > 0.1)
    scores = rng.uniform(0, 1, count)
    templates, shots = rng.integers(4, size=count), rng.integers(3, size=count)
    before, module._BLOCK = module._BLOCK, block
    try:
        found = pool_templates(vectors, norms, templates, shots, detector_scores=scores)
    finally:
        module._BLOCK = before
    for row, template in enumerate(found.ids.tolist()):
        total = np.zeros(3)
        for shot in range(3):
            mine = [
                vectors[i].astype(float) * norms[i] * scores[i]
                for i in range(count)
                if (templates[i], shots[i]) == (template, shot)
                and np.any(vectors[i]) and norms[i] > 0
            ]  # fmt: skip
            total += np.mean(mine, axis=0) if mine else 0
        length = np.linalg.norm(total)
        wanted = total / length if length > 1e-9 else np.zeros(3)
        np.testing.assert_allclose(found.vectors[row], wanted, atol=1e-6)
    order = rng.permutation(count)
    again = pool_templates(
        vectors[order], norms[order], templates[order], shots[order], detector_scores=scores[order]
    )
    np.testing.assert_allclose(again.vectors, found.vectors, atol=1e-6)


def test_flipped_raw_embeddings_are_summed():
    vectors, norms = add_flipped(rows(X, X, [0, 0]), [3, 1, 0], rows(Y, [0, 0], [0, 0]), [4, 0, 0])
    np.testing.assert_allclose(vectors, [[0.6, 0.8], X, [0, 0]], atol=1e-7)
    assert norms.tolist() == [5, 1, 0]
    with pytest.raises(InputError, match="mirror image, got 3 and 2"):
        add_flipped(rows(X, X, X), [1, 1, 1], rows(Y, Y), [1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": rows([np.nan, 0], X)}, "row 0 holds NaN"),
        ({"vectors": rows([2, 0], X)}, "unit norm or be zero"),
        ({"vectors": np.zeros((0, 2), np.float32)}, "at least one face"),
        ({"vectors": np.ones((2, 2), int)}, "must be floating"),
        ({"norms": [1, -1]}, "row 1 is -1"),
        ({"norms": [1]}, r"norms of embeddings must be \(2,\)"),
        ({"template_ids": [1]}, "template_ids must be"),
        ({"template_ids": [0.5, 1.5]}, "whole numbers or text"),
        ({"media_ids": [1, 2, 3]}, "media_ids must be"),
        ({"detector_scores": [1, np.nan]}, "row 1 is nan"),
        ({"detector_scores": [1]}, "one a face"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {
        "vectors": rows(X, Y), "norms": [1, 1], "template_ids": [0, 1], "media_ids": [0, 0]
    } | change  # fmt: skip
    extra = {name: given.pop(name) for name in ["detector_scores"] if name in given}
    with pytest.raises(InputError, match=message):
        pool_templates(*given.values(), **extra)


def test_unknown_templates_are_named():
    found = pool_templates(rows(X, Y), [1, 1], [4, 9], [0, 0])
    assert found.find([9, 4, 9]).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match=r"2 template ids have no face \(first: 5, 12\)"):
        found.find([4, 12, 5])
    with pytest.raises(InputError, match="one kind"):
        found.find(["4"])
