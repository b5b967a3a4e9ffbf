"""Two gloo ranks that share the classes, against one process that holds them all."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from facerec.checks import InputError
from facerec.losses import head_names
from facerec.losses.sharding import find_nearest_classes

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("sharded_ranks.py")
TOOLS = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
# What a step says row by row.
BY_ROW = ("losses", "plain", "target", "target logits", "negative", "embeddings")
BY_CHOICE = ("negative class", "prediction", "plain prediction")
TOLERANCE = 1e-12  # of the largest value: nothing but the order of sums differs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return what each of two processes answered."""
    folder = tmp_path_factory.mktemp("ranks")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    running = []
    for rank in range(2):
        environment = {**os.environ, **address, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(PROGRAM), str(folder)]
        running.append(
            subprocess.Popen(
                command, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        said = [process.communicate(timeout=60)[1] for process in running]
    finally:  # a rank that waits for the other for ever must not outlive the test
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), said
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def join(ranks, *keys):
    """Return one answer of both ranks, one below the other."""
    for key in keys:
        ranks = [answer[key] for answer in ranks]
    return torch.cat(ranks)


def is_close(found, expected, tolerance=TOLERANCE):
    largest = max(1.0, float(expected.abs().max()))
    return torch.allclose(found, expected, rtol=0, atol=tolerance * largest)


def compare(ranks, expected, keys, tolerance=TOLERANCE):
    for name in BY_ROW:
        assert is_close(join(ranks, *keys, name), expected[name], tolerance), name
    for name in BY_CHOICE:
        assert torch.equal(join(ranks, *keys, name), expected[name]), name
    assert is_close(join(ranks, *keys, "weight"), expected["weight"], tolerance)


@pytest.mark.parametrize(
    ("mode", "case"),
    [
        *((mode, case) for mode in ("steps", "lopsided") for case in TOOLS.CASES),
        *(("evaluation", case) for case in TOOLS.EVALUATED),
    ],
)
def test_divided_classes_give_the_losses_and_gradients_of_one_process(ranks, case, mode):
    name, options, c = TOOLS.CASES[case]
    head = TOOLS.build(name, options, c)
    expected = TOOLS.run_step(head, c)
    if mode == "evaluation":  # after that step, as the ranks did; gradients add up
        expected = TOOLS.run_step(head.eval(), c)
    # Lopsided: one rank has no rows.
    compare(ranks, expected, (mode, case))
    assert torch.equal(join(ranks, mode, case, "classes"), torch.arange(c))
    for rank in ranks:
        assert is_close(rank[mode][case]["buffers"], expected["buffers"])


def test_a_rank_is_penalised_for_its_own_rows(ranks):
    embeddings, labels, _ = TOOLS.draw(7)
    head = TOOLS.build("magface", TOOLS.ARGUMENTS["magface"], 7)
    for rank, rows in zip(ranks, (slice(0, 5), slice(5, 8)), strict=True):
        expected = head.score(embeddings[rows], labels[rows]).penalty
        assert torch.isclose(rank["steps"]["magface"]["penalty"], expected, rtol=1e-12)


def test_of_equal_classes_on_all_ranks_the_lowest_counts(ranks):
    labels = TOOLS.draw(7)[1]
    assert (join(ranks, "ties", "prediction") == 0).all()
    assert torch.equal(join(ranks, "ties", "negative class"), (labels == 0).long())


def test_float32_agrees_to_a_millionth(ranks):
    head = TOOLS.build("arcface", {}, 11, torch.float32)
    expected = TOOLS.run_step(head, 11, torch.float32)
    compare(ranks, expected, ("float32",), 1e-6)


def test_half_precision_stays_finite(ranks):
    for rank in ranks:
        step = rank["bfloat16"]
        assert step["losses"].dtype == torch.float32
        assert all(step[name].isfinite().all() for name in (*BY_ROW, "weight"))


def test_each_rank_says_that_its_classes_are_its_own(ranks):
    assert [len(rank["float32"]["weight"]) for rank in ranks] == [6, 5]
    assert all(rank["sharded"] == [True, True] for rank in ranks)


def test_every_head_is_divided_or_refused(monkeypatch):
    tried = {name for name, _, _ in TOOLS.CASES.values()}
    assert set(head_names()) <= tried | set(TOOLS.WHOLE)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in TOOLS.WHOLE:
        with pytest.raises(InputError, match="shard must be false with the head"):
            TOOLS.build(name, {}, 7, shard=True)


def run_drawn(head, classes, **options):
    """Take a step of one process with the classes that several drew."""
    head._choose_classes = lambda labels: classes
    return TOOLS.run_step(head, 11, **options)


@pytest.mark.parametrize("case", TOOLS.SAMPLED)
def test_sampled_steps_are_those_of_one_process_with_the_same_classes(ranks, case):
    name, options, partial = TOOLS.SAMPLED[case]
    head = TOOLS.build(name, options, 11, **partial)
    for seed in range(3):  # in the last one a rank has no rows; gradients add up
        keys = ("sampled", "steps", case, seed)
        classes = join(ranks, *keys, "classes")
        assert torch.isin(TOOLS.draw(11, seed=seed)[1], classes).all()
        assert torch.equal(classes, classes.unique())
        expected = run_drawn(head, classes, seed=seed)
        compare(ranks, expected, keys)
        assert all(
            is_close(rank["sampled"]["steps"][case][seed]["buffers"], expected["buffers"])
            for rank in ranks
        )


@pytest.mark.parametrize("seed", range(3))
def test_each_rank_draws_its_share_or_the_positives(ranks, seed):
    present = TOOLS.draw(11, seed=seed)[1].unique()
    for rank, low, high in zip(ranks, (0, 6), (6, 11), strict=True):
        classes = rank["sampled"]["steps"]["plain"][seed]["classes"]
        positives = int(((present >= low) & (present < high)).sum())
        assert len(classes) == max(2, positives)  # two of 6 and two of 5
        assert ((classes >= low) & (classes < high)).all()


@pytest.mark.parametrize("kind", ["plain", "mined"])
def test_sampled_training_moves_the_drawn_rows_as_one_process_does(ranks, kind):
    partial = TOOLS.SAMPLED[kind][2]
    head, optimizer = TOOLS.start_training(11, **partial)
    before, momentum = head.head.weight.detach().clone(), torch.zeros(11, TOOLS.D).double()
    rested = 0
    for seed in range(6):
        classes = torch.cat([rank["sampled"]["resumed"][kind]["drawn"][seed] for rank in ranks])
        optimizer.zero_grad()
        run_drawn(head, classes, seed=seed)
        optimizer.step()
        for rank in ranks:
            state, its = rank["sampled"]["resumed"][kind]["states"][seed]
            assert is_close(state["head.weight"], head.head.weight.detach())
            assert is_close(its, TOOLS.save(head, optimizer)[1])
        kept = torch.ones(11, dtype=torch.bool)
        kept[classes] = False
        assert torch.equal(state["head.weight"][kept], before[kept])
        assert torch.equal(its[kept], momentum[kept])
        rested += int(kept.sum())
        before, momentum = state["head.weight"], its
    assert rested > 0


@pytest.mark.parametrize("kind", ["plain", "mined"])
def test_a_stopped_sampled_run_goes_on_as_if_it_had_not_been(ranks, kind):
    for rank in ranks:
        run = rank["sampled"]["resumed"][kind]
        assert all(map(torch.equal, run["drawn"][3:], run["again"]))
        state, momentum = run["states"][-1]
        assert all(torch.equal(state[key], run["end"][0][key]) for key in state)
        assert int(state["step"]) == 6 and torch.equal(momentum, run["end"][1])


def test_neighbours_are_found_among_the_classes_of_all_ranks(ranks):
    whole = TOOLS.build("arcface", {}, 11).head.weight.detach()
    near = find_nearest_classes(whole, 11, 1, 2)
    for rank in ranks:
        assert torch.equal(rank["sampled"]["nearest"], near)
    present = TOOLS.draw(11)[1].unique()
    expected = torch.cat([present, near[present].flatten()]).unique()
    assert torch.equal(join(ranks, "sampled", "steps", "mined", 0, "classes"), expected)


def test_more_neighbours_than_a_rank_holds_are_found(ranks):
    weight = torch.randn(11, TOOLS.D, generator=torch.Generator().manual_seed(4))
    assert torch.equal(join(ranks, "nearest"), find_nearest_classes(weight, 11, 1, 8))


def test_neighbours_of_one_rank_are_asked_of_the_other(ranks):
    classes, losses = zip(*(rank["sampled"]["near there"] for rank in ranks), strict=True)
    assert [numbers.tolist() for numbers in classes] == [[0], [3]]
    assert all(values.isfinite().all() for values in losses)


def test_a_rank_with_nothing_near_takes_its_first_class(ranks):
    classes, losses = zip(*(rank["sampled"]["near here"] for rank in ranks), strict=True)
    assert [numbers.tolist() for numbers in classes] == [[0, 1], [2]]
    assert all(values.isfinite().all() for values in losses)


def test_a_run_goes_on_with_another_number_of_ranks(ranks):
    head, optimizer = TOOLS.start_training(11)
    for rounds, seeds in enumerate([(0, 1), (2, 3), (4, 5)]):
        TOOLS.train(head, optimizer, 11, seeds)
        state, momentum = TOOLS.save(head, optimizer)
        for rank in ranks:
            theirs, their_momentum = rank["trained"][rounds]
            assert theirs.keys() == state.keys()
            for key in state:
                assert is_close(theirs[key], state[key]), (rounds, key)
            assert is_close(their_momentum, momentum)


def test_all_ranks_clip_alike(ranks):
    norms = [rank["norms"][0] for rank in ranks]
    assert [float(norm) for norm in norms] == [3.0, 3.0]
    assert ranks[0]["norms"][1] is None
    assert torch.allclose(ranks[1]["norms"][1], torch.tensor([1.0, 0]))


def test_collectives(ranks):
    for rank, answer in enumerate(ranks):
        found = answer["collectives"]
        assert found["sum"] == 3 and found["main"] == 0 and found["second"] == 1
        assert found["mean"].tolist() == [1, 0.5] and found["max"].tolist() == [1, 0]
        assert found["unequal"].tolist() == [[0, 0], [1, 1], [1, 1]]
        assert found["counts"] == [1, 2] and torch.equal(found["known"], found["unequal"])
        assert found["strided"].tolist() == [[0, 3], [1, 4], [2, 5], [1, 4], [2, 5], [3, 6]]
        assert found["none"].shape == (0, 4)
        assert found["equal"].tolist() == [0, 7, 1, 7]
        assert found["flags"].tolist() == [True, False]
        assert found["empty"].tolist() == [1, 1, 1] and found["empty"].dtype == torch.bfloat16
        assert torch.equal(found["input"], torch.full((rank + 1, 2), float(rank)).double())
