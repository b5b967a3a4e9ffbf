import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.fusion import FUSIONS, Trimming, fuse, fuse_groups

FUSED = [name for name in FUSIONS if name != "max"]


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def person(seed, n=6, d=64, spread=0.8):
    """Samples of one person, mated cosine about 1 / (1 + spread^2), with norms and qualities."""
    rng = np.random.default_rng(seed)
    centre = unit(rng.standard_normal(d))
    vectors = unit(centre + spread * rng.standard_normal((n, d)) / np.sqrt(d))
    norms = rng.uniform(12, 20, n).astype(np.float32)
    return vectors, norms, rng.uniform(0.2, 1, n).astype(np.float32), rng


def flat(n):
    return np.full(n, 15, np.float32)


@pytest.mark.parametrize("fusion", FUSED)
def test_one_sample_is_its_own_template(fusion):
    vectors, norms, qualities, _ = person(0, 1)
    found = fuse(vectors, norms, qualities, np.array([7]), fusion)
    np.testing.assert_array_equal(found.vector, vectors[0])
    assert found.weights.tolist() == [1.0] and not found.dropped and not found.note
    slightly_off = (vectors * np.float32(1.0005)).astype(np.float32)
    assert np.linalg.norm(fuse(slightly_off, norms, fusion=fusion).vector) == pytest.approx(1)


def test_a_mean_by_hand_counts_a_medium_once():
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    found = fuse(vectors, flat(3), None, np.array([4, 4, 9]), "mean")
    assert found.weights.tolist() == [0.25, 0.25, 0.5]
    np.testing.assert_allclose(found.vector, np.array([1, 1, 2]) / np.sqrt(6), atol=1e-7)
    plain = fuse(vectors, flat(3), fusion="mean")
    np.testing.assert_allclose(plain.vector, np.ones(3) / np.sqrt(3), atol=1e-7)


def test_weights_by_hand_follow_quality_and_where_it_is_unknown_the_norm():
    vectors, _, _, _ = person(1, 4)
    norms = np.array([10, 20, 20, 1000], np.float32)
    by_norm = fuse(vectors, norms, None, None, "quality").weights
    np.testing.assert_allclose(by_norm, np.array([0.5, 1, 1, 2]) / 4.5)  # the giant is held back
    qualities = np.array([0.8, 0.4, np.nan, 0.4], np.float32)
    mixed = fuse(vectors, norms, qualities, None, "quality").weights
    np.testing.assert_allclose(mixed, np.array([2, 1, 1, 1]) / 5, rtol=1e-6)
    nothing = np.zeros(4, np.float32)
    np.testing.assert_allclose(fuse(vectors, norms, nothing, None, "quality").weights, 0.25)


def test_the_weight_of_a_medium_is_the_mean_of_its_samples():
    vectors, _, _, _ = person(1, 3)
    found = fuse(vectors, np.array([10, 20, 20], np.float32), None, np.array([1, 1, 2]), "quality")
    np.testing.assert_allclose(found.weights, np.array([0.25, 0.5, 1]) / 1.75)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 12),
    fusion=st.sampled_from(FUSED),
    media=st.booleans(),
    spread=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_the_order_of_samples_changes_no_bit(seed, n, fusion, media, spread):
    vectors, norms, qualities, rng = person(seed, n, spread=spread)
    where = rng.integers(0, 4, n) if media else None
    order = rng.permutation(n)
    one = fuse(vectors, norms, qualities, where, fusion)
    two = fuse(
        vectors[order],
        norms[order],
        qualities[order],
        None if where is None else where[order],
        fusion,
    )
    np.testing.assert_array_equal(one.vector, two.vector)
    np.testing.assert_allclose(one.weights[order], two.weights, rtol=1e-12)
    assert {int(order[i]): text for i, text in two.dropped.items()} == one.dropped
    assert np.linalg.norm(one.vector.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert one.weights.sum() == pytest.approx(1)
    assert media or len(one.dropped) <= (n - 1) // 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), fusion=st.sampled_from(FUSED))
def test_the_units_of_norm_and_quality_do_not_matter(seed, scale, fusion):
    vectors, norms, qualities, _ = person(seed)
    for given_qualities in (None, qualities):
        one = fuse(vectors, norms, given_qualities, None, fusion)
        two = fuse(
            vectors,
            norms * np.float32(scale),
            None if given_qualities is None else given_qualities * np.float32(scale),
            None,
            fusion,
        )
        np.testing.assert_allclose(one.vector, two.vector, atol=2e-7)


@pytest.mark.parametrize("fusion", FUSED)
@pytest.mark.parametrize("copies", [2, 3, 10])
def test_copies_of_one_sample_are_that_sample(fusion, copies):
    vectors, norms, qualities, _ = person(3, 1)
    found = fuse(
        np.repeat(vectors, copies, 0),
        np.repeat(norms, copies),
        np.repeat(qualities, copies),
        None,
        fusion,
    )
    np.testing.assert_allclose(found.vector, vectors[0], atol=1e-7)
    assert not found.dropped and not found.note


@pytest.mark.parametrize("fusion", FUSED)
def test_copies_within_a_medium_change_nothing(fusion):
    vectors, _, _, _ = person(4, 5)
    again = np.concatenate([vectors, vectors[2:3], vectors[2:3]])
    media = np.array([0, 1, 2, 3, 4, 2, 2])
    one = fuse(vectors, flat(5), None, None, fusion).vector
    two = fuse(again, flat(7), None, media, fusion).vector
    np.testing.assert_allclose(one, two, atol=2e-7)
    assert not np.allclose(one, fuse(again, flat(7), None, None, "mean").vector, atol=1e-3)


@pytest.mark.parametrize("fusion", FUSED)
def test_opposite_samples_fall_back_to_one_with_a_reason(fusion):
    vectors, _, _, _ = person(5, 1)
    pair = np.concatenate([vectors, -vectors])
    found = fuse(pair, flat(2), fusion=fusion)
    assert "cancel out" in found.note and sorted(found.weights.tolist()) == [0.0, 1.0]
    assert any(np.array_equal(found.vector, row) for row in pair)
    turned = fuse(pair[::-1], flat(2), fusion=fusion)
    np.testing.assert_array_equal(found.vector, turned.vector)


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_person_moves_trimmed_less_than_mean(seed):
    vectors, norms, _, rng = person(seed, 5, 128)
    stranger = unit(rng.standard_normal(128))
    truth = fuse(vectors[:4], norms[:4], fusion="quality").vector
    mixed = np.concatenate([vectors[:4], stranger[None]])
    trimmed = fuse(mixed, norms, fusion="trimmed")
    assert list(trimmed.dropped) == [4] and "mean cosine" in trimmed.dropped[4]
    assert trimmed.weights[4] == 0 and trimmed.weights[:4].min() > 0
    assert trimmed.vector @ truth > fuse(mixed, norms, fusion="mean").vector @ truth
    np.testing.assert_allclose(trimmed.vector, truth, atol=1e-6)


def test_two_pictures_of_one_wrong_person_among_five_go_too():
    vectors, norms, _, rng = person(6, 5, 128)
    wrong = unit(
        unit(rng.standard_normal(128)) + 0.3 * rng.standard_normal((2, 128)) / np.sqrt(128)
    )
    found = fuse(np.concatenate([vectors[:3], wrong]), norms, fusion="trimmed")
    assert list(found.dropped) == [3, 4]


def test_a_video_of_a_wrong_person_is_one_medium_that_can_be_outvoted():
    vectors, _, _, rng = person(7, 3, 128)
    wrong = unit(
        unit(rng.standard_normal(128)) + 0.2 * rng.standard_normal((20, 128)) / np.sqrt(128)
    )
    media = np.array([0, 1, 2] + [3] * 20)
    every = np.concatenate([vectors, wrong])
    found = fuse(every, flat(23), None, media, "trimmed")
    assert list(found.dropped) == list(range(3, 23))
    np.testing.assert_allclose(found.weights[:3], 1 / 3)
    alone = fuse(every[2:], flat(21), None, media[2:], "trimmed")  # one against one: undecided
    assert not alone.dropped and alone.weights[0] == pytest.approx(0.5)


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_strangers_to_one_another_keep_a_majority(n):
    vectors = unit(np.random.default_rng(n).standard_normal((n, 256)))
    found = fuse(vectors, flat(n), fusion="trimmed", trimming=Trimming(1.0, 1.0))
    assert len(found.dropped) <= (n - 1) // 2 and found.weights.sum() == pytest.approx(1)


def test_where_not_even_the_core_agrees_nobody_is_an_outlier():
    angles = np.deg2rad([0, 101, 230])  # the nearest two have cosine -0.19
    apart = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert not fuse(apart, flat(3)).dropped


def test_bounds_decide_who_is_an_outlier():
    base = np.eye(4, dtype=np.float32)[0]
    odd = np.array([0.2, np.sqrt(0.96), 0, 0], np.float32)
    vectors = np.stack([base, base, base, odd])
    assert list(fuse(vectors, flat(4)).dropped) == [3]
    assert not fuse(vectors, flat(4), trimming=Trimming(cosine=0.15)).dropped
    assert not fuse(vectors, flat(4), trimming=Trimming(share=0.2)).dropped
    text = fuse(vectors, flat(4)).dropped[3]
    assert text == "mean cosine 0.20 to most of this person's samples, at least 0.30 asked"
    halfway = fuse(vectors, flat(4), trimming=Trimming(0.9, 0.25)).dropped[3]
    assert halfway.endswith("at least 0.25 asked")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), fusion=st.sampled_from(FUSED), media=st.booleans())
def test_groups_are_fused_as_each_person_alone(seed, fusion, media):
    rng = np.random.default_rng(seed)
    owners = rng.choice(np.array([3, 8, 9, 700, 5]), 20).astype(np.int64)
    vectors = unit(rng.standard_normal((20, 16)) + 2 * np.eye(16)[owners % 16])
    norms = rng.uniform(5, 30, 20).astype(np.float32)
    qualities = np.where(rng.random(20) < 0.3, np.nan, rng.random(20)).astype(np.float32)
    where = rng.integers(0, 3, 20) if media else None
    found = fuse_groups(vectors, owners, norms, qualities, where, fusion)
    np.testing.assert_array_equal(found.owners, np.unique(owners))
    for row, owner in enumerate(found.owners):
        mine = np.flatnonzero(owners == owner)
        alone = fuse(
            vectors[mine],
            norms[mine],
            qualities[mine],
            None if where is None else where[mine],
            fusion,
        )
        np.testing.assert_array_equal(found.vectors[row], alone.vector)
        np.testing.assert_array_equal(found.weights[mine], alone.weights)
        assert np.flatnonzero(found.dropped[mine]).tolist() == list(alone.dropped)
        assert found.rows[row] == mine[0] and not alone.note and owner not in found.cancelled


def test_groups_by_max_keep_every_sample_by_owner():
    vectors, norms, _, _ = person(8, 4)
    owners = np.array([5, 2, 5, 2])
    found = fuse_groups(vectors, owners, norms, fusion="max")
    assert found.rows.tolist() == [1, 3, 0, 2] and found.owners.tolist() == [2, 2, 5, 5]
    np.testing.assert_array_equal(found.vectors, vectors[[1, 3, 0, 2]])


def test_groups_name_whose_samples_cancel_out_and_nobody_is_nothing():
    vectors, _, _, _ = person(9, 2)
    every = np.concatenate([vectors, vectors[:1], -vectors[:1]])
    found = fuse_groups(every, np.array([1, 1, 4, 4]), flat(4), fusion="mean")
    assert found.cancelled.tolist() == [4]
    empty = fuse_groups(every[:0], np.zeros(0, np.int64), flat(0))
    assert empty.vectors.shape == (0, 64) and not len(empty.owners)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": "max"}, "makes no template"),
        ({"fusion": "means"}, "did you mean 'mean'"),
        ({"vectors": np.zeros((0, 8), np.float32), "norms": flat(0)}, "at least 1 sample"),
        ({"vectors": np.ones((2, 8), np.float32)}, "unit norm"),
        ({"norms": flat(3)}, r"norms must have shape \(2,\)"),
        ({"norms": np.array([1, 0], np.float32)}, "positive"),
        ({"norms": np.array([1, np.nan], np.float32)}, "positive"),
        ({"qualities": np.array([1, -1], np.float32)}, "0 or more"),
        ({"media": np.array([1, 2, 3])}, r"media must have shape \(2,\)"),
    ],
)
def test_bad_input(change, message):
    arguments = {"vectors": np.eye(8, dtype=np.float32)[:2], "norms": flat(2), **change}
    with pytest.raises(InputError, match=message):
        fuse(**arguments)


def test_bad_bounds():
    with pytest.raises(InputError, match="trimming share"):
        Trimming(share=2)
    with pytest.raises(InputError, match="trimming cosine"):
        Trimming(cosine=float("nan"))
