import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.samplers import (
    CLEAN,
    DEGRADED,
    NATURAL,
    Order,
    build_sampler,
    sampler_names,
)
from facerec.data.sampling_base import count_turns, go_round

NAMES = ("adaptive", "balanced", "doppelganger", "pairs", "pk", "shuffle")
COUNTS = (1, 2, 3, 5, 9, 4, 4, 1, 7, 6, 2, 8)


def label(counts):
    return np.arange(len(counts)).repeat(counts).astype(np.int64)


LABELS = label(COUNTS)  # 52 chips of 12 identities


def batches(sampler, epoch=0):
    return sampler.order(epoch).indices.reshape(sampler.steps_per_epoch, sampler.batch_size)


def chi_square(observed, expected):
    return float(((observed - expected) ** 2 / expected).sum())


def test_all_samplers_are_known_by_name():
    assert tuple(sampler_names()) == NAMES
    assert [build_sampler(name, LABELS, 8, 0).name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_order_is_whole_batches_of_positions_and_a_pure_function_of_seed_and_epoch(name):
    sampler = build_sampler(name, LABELS, 8, 5)
    order = sampler.order(3)
    size = sampler.steps_per_epoch * 8
    assert size >= 8 * (len(LABELS) // 8)
    assert order.indices.dtype == np.int64 and order.indices.shape == (size,)
    assert order.views.dtype == np.int8 and order.views.shape == (size,)
    assert order.indices.min() >= 0 and order.indices.max() < len(LABELS)
    if name != "pairs":
        assert (order.views == NATURAL).all()
    again = build_sampler(name, LABELS, 8, 5)
    again.order(0)  # what was asked before does not matter
    assert np.array_equal(again.order(3).indices, order.indices)
    assert not np.array_equal(again.order(4).indices, order.indices)
    other_seed = build_sampler(name, LABELS, 8, 6)
    assert not np.array_equal(other_seed.order(3).indices, order.indices)


@pytest.mark.parametrize("name", NAMES)
def test_missing_numbers_among_the_labels_do_no_harm(name):
    sparse = LABELS * 3 + 2
    dense, holes = build_sampler(name, LABELS, 8, 1), build_sampler(name, sparse, 8, 1)
    assert np.array_equal(dense.order(2).indices, holes.order(2).indices)


@pytest.mark.parametrize("name", NAMES)
def test_state_of_another_sampler_is_refused(name):
    sampler = build_sampler(name, LABELS, 8, 1)
    other = build_sampler("shuffle" if name == "pk" else "pk", LABELS, 8, 1)
    with pytest.raises(InputError, match=f"sampler '{name}', got '{other.name}'; resume with"):
        sampler.load_state_dict(other.state_dict())


def test_shuffle_is_the_order_that_loaders_had_before_samplers():
    drawn = np.random.default_rng([5, 2]).permutation(52)[:48]
    assert np.array_equal(build_sampler("shuffle", LABELS, 8, 5).order(2).indices, drawn)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pk_batches_have_p_identities_with_k_chips_each(k):
    sampler = build_sampler("pk", LABELS, 8, 0, k=k)
    for rows in batches(sampler):
        groups = LABELS[rows].reshape(-1, k)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 8 // k
        for group, chips in zip(groups, rows.reshape(-1, k), strict=True):
            assert len(set(chips)) == min(k, COUNTS[group[0]])


def test_pk_goes_round_all_identities_before_one_has_a_second_turn():
    sampler = build_sampler("pk", LABELS, 20, 3, k=4)
    assert sampler.steps_per_epoch == 3  # ceil(12 identities / 5 a batch), not 52 // 20
    turns = LABELS[sampler.order(0).indices].reshape(-1, 4)[:, 0]
    assert sorted(turns[:12]) == list(range(12)) and len(set(turns[10:15])) == 5


def test_pk_shows_chips_of_an_identity_equally_often_over_its_turns():
    labels = label((5, 7) * 10)
    sampler = build_sampler("pk", labels, 8, 0, k=2)
    shown = np.bincount(sampler.order(1).indices, minlength=len(labels))
    for identity in range(20):
        own = shown[labels == identity]
        assert own.max() - own.min() <= 1 and own.sum() >= 2


def test_balanced_draws_identities_alike_and_all_before_one_comes_again():
    counts = (1, 100, 3, 40, 2, 54)
    labels = label(counts)
    drawn = labels[build_sampler("balanced", labels, 10, 0).order(0).indices]
    assert sorted(drawn[:6]) == list(range(6))
    turns = np.bincount(drawn)
    assert turns.max() - turns.min() <= 1
    chips = build_sampler("balanced", labels, 10, 0).order(0).indices
    own = chips[labels[chips] == 1]
    assert len(set(own)) == len(own)  # 100 chips are not through before any comes again
    # Which identities have the odd turn more differs from epoch to epoch, uniformly.
    sampler = build_sampler("balanced", labels, 10, 1)
    firsts = np.array([labels[sampler.order(e).indices[0]] for e in range(600)])
    assert chi_square(np.bincount(firsts, minlength=6), 100) < 20.5  # 5 degrees, p = 0.001


def test_balanced_has_a_turn_for_everybody_also_when_batches_do_not_come_out_even():
    labels = np.arange(10, dtype=np.int64)
    sampler = build_sampler("balanced", labels, 4, 0)
    assert sampler.steps_per_epoch == 3 and set(sampler.order(0).indices) == set(range(10))


@pytest.mark.parametrize("degraded", [1, 3])
def test_pairs_show_each_identity_clean_and_degraded(degraded):
    size = 1 + degraded
    sampler = build_sampler("pairs", LABELS, 3 * size, 2, degraded=degraded)
    order = sampler.order(1)
    assert order.views.reshape(-1, size).tolist() == [[CLEAN] + [DEGRADED] * degraded] * (
        sampler.steps_per_epoch * 3
    )
    for rows in batches(sampler, 1):
        groups = rows.reshape(-1, size)
        owners = LABELS[groups]
        assert (owners == owners[:, :1]).all() and len(set(owners[:, 0])) == 3
        for owner, (document, *probes) in zip(owners[:, 0], groups, strict=True):
            if COUNTS[owner] > 1:
                assert document not in probes
                assert len(set(probes)) == min(degraded, COUNTS[owner] - 1)
            else:
                assert set(probes) == {document}


def test_pairs_take_every_chip_for_the_document_in_turn():
    labels = label((4, 4, 4))
    sampler = build_sampler("pairs", labels, 2, 0)
    documents = sampler.order(0).indices[::2][:12]
    assert sampler.steps_per_epoch == 6
    assert len(set(documents[:6])) == 6


@given(
    size=st.integers(1, 12),
    group=st.integers(1, 15),
    groups=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_going_round_is_passes_without_repeats_in_a_row(size, group, groups, seed):
    rows = go_round(np.random.default_rng(seed), size, group, groups)
    assert rows.shape == (groups, group)
    flat = rows.ravel()
    for start in range(0, len(flat), size):
        stretch = flat[start : start + size]
        assert len(set(stretch)) == len(stretch) and stretch.max() < size
    if group <= size:
        assert all(len(set(row)) == group for row in rows)


def test_going_round_prefers_nobody():
    rng = np.random.default_rng(0)
    places = np.zeros((7, 7))
    for _ in range(700):
        second = go_round(rng, 7, 3, 5).ravel()[7:14]  # a pass that begins inside a row
        places[second, np.arange(7)] += 1
    assert chi_square(places, 100.0) < 36 + 5 * np.sqrt(72)


@given(st.lists(st.integers(0, 5), max_size=30))
@settings(deadline=None)
def test_turns_count_what_came_before(values):
    turns = count_turns(np.array(values, np.int64))
    assert turns.tolist() == [values[:i].count(v) for i, v in enumerate(values)]


def test_an_order_is_frozen():
    order = Order(np.zeros(2, np.int64), np.zeros(2, np.int8))
    with pytest.raises(AttributeError):
        order.views = order.views


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("pk2", {}, "unknown sampler 'pk2'; available: adaptive.*did you mean 'pk'"),
        ("pk", {"kk": 2}, "no parameter 'kk'; did you mean 'k'.; available: k"),
        ("shuffle", {"k": 2}, "no parameter 'k'; available: none"),
        ("pk", {"k": 3}, r"batch_size must be a multiple of k \(3\), got 8; set batch_size=6"),
        ("pk", {"k": 0}, r"k must lie in \[1, 1024\], got 0"),
        ("pk", {"k": 2.5}, "k must be a whole number in .*, got 2.5"),
        ("pk", {"k": "4"}, "k must be a number"),
        ("pairs", {"degraded": 0}, r"degraded must lie in \[1, 16\]"),
        ("pairs", {"degraded": 2}, r"multiple of 1 \+ degraded \(3\), got 8; set batch_size=6"),
        ("doppelganger", {"hops": 0}, r"hops must lie in \[1, 64\]"),
        ("doppelganger", {"fill": 1.1}, r"fill must lie in \[0, 1\]"),
        ("adaptive", {"start": 32}, r"start must lie in \[1, 16\], got 32"),
        ("adaptive", {"factor": 0.5}, r"factor must lie in \[1, 16\]"),
    ],
)
def test_bad_names_and_values_are_explained(name, params, message):
    with pytest.raises(InputError, match=message):
        build_sampler(name, LABELS, 8, 0, **params)


def test_bad_labels_and_sizes_are_explained():
    with pytest.raises(InputError, match=r"number of chips \(52\), got 53; set batch_size=52"):
        build_sampler("shuffle", LABELS, 53, 0)
    with pytest.raises(InputError, match="4 an identity, needs 13 identities, got 12"):
        build_sampler("pk", LABELS, 52, 0)
    with pytest.raises(InputError, match=r"labels must be int64 \(n,\), got int32"):
        build_sampler("shuffle", LABELS.astype(np.int32), 8, 0)
    with pytest.raises(InputError, match="row 3 has -1; leave unlabelled chips out"):
        build_sampler("shuffle", np.array([0, 0, 1, -1]), 2, 0)
    with pytest.raises(InputError, match="seed must not be negative"):
        build_sampler("shuffle", LABELS, 8, -1)
