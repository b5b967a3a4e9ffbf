import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.video.aggregate import (
    aggregate_published,
    find_outliers,
    group_duplicates,
    norm_floor,
)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def track(seed, n=20, d=64, spread=0.4):
    """Frames of one person: a direction plus isotropic spread, distinct views."""
    rng = np.random.default_rng(seed)
    centre = unit(rng.standard_normal(d))
    frames = unit(centre + spread * rng.standard_normal((n, d)) / np.sqrt(d))
    return frames, rng.uniform(18, 22, n).astype(np.float32), rng


def test_worked_case_of_the_specification():
    norms = np.array([20, 21, 22, 19, 20, 2], np.float64)
    assert np.quantile(norms, (0.25, 0.75)).tolist() == [19.25, 20.75]
    assert norm_floor(norms, rho=10) == pytest.approx(4.25, abs=1e-12)
    assert norm_floor(norms, rho=1.5) == pytest.approx(17, abs=1e-12)
    frames, _, _ = track(0, 6)
    for rho in (10, 1.5):
        found = aggregate_published(frames, norms.astype(np.float32), rho)
        assert list(found.dropped) == [5] and "norm 2 below" in found.dropped[5]
        assert found.views[5] == -1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), rho=st.sampled_from([0.5, 1.5, 10.0]))
def test_the_order_of_frames_does_not_matter(seed, n, rho):
    frames, norms, rng = track(seed, n)
    order = rng.permutation(n)
    one = aggregate_published(frames, norms, rho)
    two = aggregate_published(frames[order], norms[order], rho)
    np.testing.assert_array_equal(one.template, two.template)
    assert {int(order[i]): why for i, why in two.dropped.items()} == one.dropped
    np.testing.assert_array_equal(one.views[order], two.views)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), copies=st.integers(1, 10))
def test_duplicates_do_not_change_the_template(seed, copies):
    frames, norms, rng = track(seed, 12)
    again = rng.integers(0, 12, copies)
    one = aggregate_published(frames, norms)
    two = aggregate_published(
        np.concatenate([frames, frames[again]]), np.concatenate([norms, norms[again]])
    )
    assert not one.dropped and not two.dropped
    np.testing.assert_allclose(two.template, one.template, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_one_impostor_among_twenty_is_removed(seed):
    frames, norms, rng = track(seed, 19)
    frames = np.concatenate([frames, unit(rng.standard_normal((1, 64)))])
    norms = np.append(norms, np.float32(20))
    clean = aggregate_published(frames[:19], norms[:19])
    found = aggregate_published(frames, norms)
    assert list(found.dropped) == [19] and "distance" in found.dropped[19]
    np.testing.assert_allclose(found.template, clean.template, atol=1e-6)


def test_the_published_rho_lets_an_impostor_pass_where_frames_spread_widely():
    """Rho 10 is lenient: where the frames' distances differ much, Tukey's 1.5 is needed."""
    frames, norms, rng = track(3, 19)
    spread = rng.uniform(0.1, 1.2, 19)[:, None]
    frames = unit(frames[0] + spread * rng.standard_normal((19, 64)) / 8)
    frames = np.concatenate([frames, unit(-frames[:1])])
    norms = np.append(norms, np.float32(20))
    assert aggregate_published(frames, norms, 10).dropped == {}
    assert 19 in aggregate_published(frames, norms, 1.5).dropped


def test_equal_frames_are_unchanged():
    frame = track(1)[0][:1]
    for n in (1, 4, 5, 50):
        found = aggregate_published(frame.repeat(n, axis=0), np.full(n, 20, np.float32))
        np.testing.assert_allclose(found.template, frame[0], atol=1e-7)
        assert not found.dropped


def test_an_iqr_of_zero_does_not_drop_what_differs_a_little():
    frame = track(1)[0][:1]
    frames = frame.repeat(20, axis=0)
    frames[7] = unit(frame[0] + 0.01 * np.eye(64)[0])
    norms = np.full(20, 20, np.float32)
    norms[3] = 19.5
    assert aggregate_published(frames, norms).dropped == {}
    to_the_letter = aggregate_published(frames, norms, min_iqr=0, min_norm_iqr=0)
    assert set(to_the_letter.dropped) >= {3, 7}
    impostor = frames.copy()
    impostor[7] = unit(np.eye(64)[0])
    assert list(aggregate_published(impostor, norms).dropped) == [7]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), rho=st.floats(0, 20))
def test_the_template_has_unit_norm_and_frames_always_stay(seed, n, rho):
    frames, norms, rng = track(seed, n, spread=float(np.random.default_rng(seed).uniform(0, 3)))
    norms = (norms * rng.uniform(0.05, 1, n)).astype(np.float32)
    found = aggregate_published(frames, norms, rho)
    assert found.template.dtype == np.float32
    assert np.linalg.norm(found.template) == pytest.approx(1, abs=1e-5)
    assert len(found.dropped) <= 2 * np.ceil((n - 1) / 4) and len(found.dropped) < n
    assert (found.views == -1).sum() == len(found.dropped)


def test_up_to_four_frames_give_the_plain_mean():
    frames, _, _ = track(2, 4, spread=2)
    found = aggregate_published(frames, np.array([20, 20, 20, 0.1], np.float32))
    np.testing.assert_allclose(found.template, unit(frames.sum(axis=0)), atol=1e-6)
    assert not found.dropped


def test_groups_are_those_of_a_true_union_find():
    """A link that comes late joins two groups; overwriting labels would leave three."""
    angles = np.array([0.0, 0.16, 0.24, 0.08, 1.0])  # 0-3-1-2 is a chain of steps of 0.08
    frames = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert group_duplicates(frames).tolist() == [0, 0, 0, 0, 1]
    assert group_duplicates(frames[[0, 1, 2, 4]]).tolist() == [0, 1, 1, 2]


def test_one_vote_a_distinct_view():
    a, b = np.eye(2, dtype=np.float32)
    frames = np.stack([a, a, a, a, a, b])
    found = aggregate_published(frames, np.full(6, 20, np.float32), rho=1000)
    np.testing.assert_allclose(found.template, [np.sqrt(0.5)] * 2, atol=1e-6)
    assert len(set(found.views.tolist())) == 2


def test_both_reasons_are_given():
    frames, norms, _ = track(5, 19)
    frames = np.concatenate([frames, unit(-frames[:1])]).astype(np.float64)
    reasons = find_outliers(frames, np.append(norms, 0.1).astype(np.float64))
    assert "norm" in reasons[19] and "distance" in reasons[19]


def test_bad_tracks_are_refused():
    with pytest.raises(InputError, match="at least 1 frame"):
        aggregate_published(np.zeros((0, 8), np.float32), np.zeros(0, np.float32))
    with pytest.raises(InputError, match="unit norm"):
        aggregate_published(np.ones((2, 8), np.float32), np.ones(2, np.float32))
