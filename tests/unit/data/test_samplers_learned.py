import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from facerec import dist
from facerec.checks import InputError
from facerec.data.samplers import build_sampler

LABELS = np.arange(40, dtype=np.int64).repeat(4)  # 160 chips of 40 identities


def tell(sampler, indices, hardest, correct=True):
    indices = np.asarray(indices, np.int64)
    sampler.observe(
        indices,
        sampler.labels[indices],
        np.broadcast_to(np.asarray(hardest, np.int64), indices.shape),
        np.broadcast_to(np.asarray(correct), indices.shape),
    )


def identities(sampler, epoch=0, k=4):
    rows = sampler.labels[sampler.order(epoch).indices]
    groups = rows.reshape(sampler.steps_per_epoch, -1, k)
    assert (groups == groups[..., :1]).all()
    return groups[..., 0]


def teach_twins(sampler):
    """Identity 2 i and 2 i + 1 look alike."""
    for identity in range(40):
        tell(sampler, [4 * identity], identity ^ 1)


def share_of_twins(batches):
    together = [(row ^ 1)[:, None] == row for row in batches]
    return float(np.mean([match.any(axis=1).mean() for match in together]))


def save_and_load(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_default_fill_is_that_of_the_paper_s_public_code():
    labels = np.arange(100).repeat(4).astype(np.int64)
    sampler = build_sampler("doppelganger", labels, 27 * 4, 0)
    assert sampler.starts == 6 and sampler.hops == 4


def test_a_doppelganger_is_never_the_own_identity_nor_unknown():
    sampler = build_sampler("doppelganger", LABELS, 32, 0)
    tell(sampler, [0, 4, 8, 12], [0, -1, 7, 90])
    assert sampler.doppelgangers[:4].tolist() == [-1, -1, 7, -1]
    tell(sampler, [8, 9, 12], [5, 6, 1])  # of two rows of an identity the first counts
    assert sampler.doppelgangers[:4].tolist() == [-1, -1, 5, 1]


def test_twins_come_into_one_batch_once_they_are_known_and_frozen():
    sampler = build_sampler("doppelganger", LABELS, 32, 0, hops=2, fill=1.0)
    before = np.concatenate([identities(sampler, e) for e in range(20)])
    teach_twins(sampler)
    assert np.array_equal(identities(sampler, 0), before[: sampler.steps_per_epoch])
    sampler.start_epoch(1)
    after = np.concatenate([identities(sampler, e) for e in range(20)])
    # By chance 7 of 39 others are beside an identity; chains bring every start its twin.
    assert 0.08 < share_of_twins(before) < 0.3
    assert share_of_twins(after) > 0.85
    for row in after:
        assert len(set(row)) == 8


def test_a_chain_follows_hop_after_hop():
    sampler = build_sampler("doppelganger", LABELS, 32, 0, hops=8, fill=1.0)
    assert sampler.starts == 1
    for identity in range(40):
        tell(sampler, [4 * identity], (identity + 1) % 40)
    sampler.start_epoch(0)
    for row in identities(sampler, 3):
        ring = np.sort(row)
        gaps = np.diff(np.append(ring, ring[0] + 40))
        assert np.sort(gaps).tolist() == [1] * 7 + [33]  # eight neighbours on the ring


@pytest.mark.parametrize("taught", [False, True])
def test_every_identity_is_drawn_although_all_look_like_one(taught):
    sampler = build_sampler("doppelganger", LABELS, 32, 0)
    if taught:
        for identity in range(1, 40):
            tell(sampler, [4 * identity], 0)
    sampler.start_epoch(0)
    drawn = np.concatenate([identities(sampler, epoch).ravel() for epoch in range(10)])
    assert set(drawn) == set(range(40))


def test_unknown_doppelgangers_leave_a_uniform_choice():
    sampler = build_sampler("doppelganger", LABELS, 32, 0)
    drawn = np.concatenate([identities(sampler, epoch).ravel() for epoch in range(200)])
    observed = np.bincount(drawn, minlength=40)
    expected = len(drawn) / 40
    assert float(((observed - expected) ** 2 / expected).sum()) < 73  # 39 degrees, p = 0.001


def test_a_doppelganger_without_chips_is_unknown():
    labels = np.array([0, 0, 2, 2, 4, 4], np.int64)
    sampler = build_sampler("doppelganger", labels, 4, 0, k=2)
    tell(sampler, [0], 3)
    sampler.start_epoch(0)
    assert set(sampler.labels[sampler.order(0).indices]) <= {0, 2, 4}


def test_adaptive_weights_double_and_halve_within_their_bounds():
    sampler = build_sampler("adaptive", LABELS, 20, 0)
    assert (sampler.weights == 4).all()
    tell(sampler, [0, 0, 0, 1, 2, 3, 3], 9, [False, False, False, False, True, True, False])
    tell(sampler, [4, 4, 4], 9, True)
    assert (sampler.weights == 4).all()  # frozen until the next epoch
    sampler.start_epoch(0)
    assert sampler.weights[:6].tolist() == [16, 8, 2, 4, 1, 4]
    tell(sampler, [0, 4], 9, [True, False])
    sampler.start_epoch(1)
    assert sampler.weights[:6].tolist() == [8, 8, 2, 4, 2, 4]


def test_adaptive_shows_equal_chips_once_and_others_in_proportion():
    sampler = build_sampler("adaptive", LABELS, 20, 0)
    assert sorted(sampler.order(0).indices) == list(range(160))
    for _ in range(5):
        tell(sampler, np.arange(10), 9, False)
        tell(sampler, np.arange(10, 160), 9, True)
    sampler.start_epoch(1)
    shown = np.bincount(sampler.order(1).indices, minlength=160)
    # Weights are 16 and 1, 310 in all: of 160 rows 8.26 and 0.516, rounded up or down.
    assert set(shown[:10]) <= {8, 9} and set(shown[10:]) == {0, 1}
    means = sum(np.bincount(sampler.order(e).indices, minlength=160) for e in range(400)) / 400
    # Three standard deviations of 160 chips at once: 4.2 of sqrt(p (1 - p) / 400).
    assert np.abs(means[:10] - 2560 / 310).max() < 0.1
    assert np.abs(means[10:] - 160 / 310).max() < 0.11


@pytest.mark.parametrize("name", ["doppelganger", "adaptive"])
def test_a_run_saved_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not_stopped(name):
    rng = np.random.default_rng(0)

    def learn(sampler, indices):
        tell(sampler, indices, (indices // 4 + 1) % 40, indices % 3 > 0)

    straight, stopped = (build_sampler(name, LABELS, 32, 7) for _ in range(2))
    first, second = rng.integers(0, 160, (2, 32))
    for sampler in (straight, stopped):
        learn(sampler, np.arange(32))
        sampler.start_epoch(4)
        learn(sampler, first)
    state = save_and_load(stopped.state_dict())
    resumed = build_sampler(name, LABELS, 32, 7)
    resumed.load_state_dict(state)
    learn(stopped, second)  # the saved state shares nothing with the sampler
    resumed.start_epoch(4)  # what is frozen stays frozen
    assert np.array_equal(resumed.order(4).indices, straight.order(4).indices)
    for sampler in (straight, resumed):
        learn(sampler, second)
        sampler.start_epoch(5)
    assert np.array_equal(resumed.order(5).indices, straight.order(5).indices)
    untaught = build_sampler(name, LABELS, 32, 7)
    assert not np.array_equal(untaught.order(5).indices, straight.order(5).indices)


@pytest.mark.parametrize("name", ["doppelganger", "adaptive"])
def test_state_of_other_data_is_refused_and_changes_nothing(name):
    sampler = build_sampler(name, LABELS, 32, 0)
    other = build_sampler(name, LABELS[:-8], 32, 0)
    other.start_epoch(3)
    with pytest.raises(InputError, match=r"must have shape \((40|160),\), got \((38|152),\)"):
        sampler.load_state_dict(other.state_dict())
    assert sampler.epoch == -1
    state = other.state_dict()
    del state["frozen"]
    with pytest.raises(InputError, match=r"'frozen' .* got nothing"):
        other.load_state_dict(state)


def synchronise(samplers, monkeypatch):
    """Let samplers synchronise as ranks do: a thread each, tables exchanged at a barrier."""
    ranks, barrier, sent = threading.local(), threading.Barrier(len(samplers)), {}

    def gather(table, counts):
        assert counts == [1] * len(samplers)
        sent[ranks.number] = table
        barrier.wait(10)
        everything = torch.cat([sent[number] for number in range(len(samplers))])
        barrier.wait(10)
        return everything

    def run(number):
        ranks.number = number
        samplers[number].synchronise()

    with monkeypatch.context() as patch, ThreadPoolExecutor(len(samplers)) as pool:
        patch.setattr(dist, "world_size", lambda: len(samplers))
        patch.setattr(dist, "gather_rows", gather)
        list(pool.map(run, range(len(samplers))))
    assert sent


@pytest.mark.parametrize("name", ["doppelganger", "adaptive"])
def test_ranks_agree_with_one_process_that_sees_all_rows(name, monkeypatch):
    rng = np.random.default_rng(3)
    alone = build_sampler(name, LABELS, 32, 7)
    ranks = [build_sampler(name, LABELS, 32, 7) for _ in range(2)]
    for step in range(12):
        rows = rng.integers(0, 160, 32)
        hardest, correct = rng.integers(0, 40, 32), rng.random(32) < 0.6
        tell(alone, rows, hardest, correct)
        for rank, sampler in enumerate(ranks):
            part = slice(16 * rank, 16 * rank + 16)
            tell(sampler, rows[part], hardest[part], correct[part])
        if step == 5:  # a checkpoint on the way changes nothing
            synchronise(ranks, monkeypatch)
    synchronise(ranks, monkeypatch)
    for sampler in (alone, *ranks):
        sampler.start_epoch(0)
    for sampler in ranks:
        assert np.array_equal(sampler.order(0).indices, alone.order(0).indices)
    untaught = build_sampler(name, LABELS, 32, 7)
    assert not np.array_equal(untaught.order(0).indices, alone.order(0).indices)
