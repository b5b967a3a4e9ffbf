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
    said = [process.communicate(timeout=120)[1] for process in running]
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


@pytest.mark.parametrize("mode", ["steps", "evaluation"])
@pytest.mark.parametrize("case", TOOLS.CASES)
def test_divided_classes_give_the_losses_and_gradients_of_one_process(ranks, case, mode):
    name, options, c = TOOLS.CASES[case]
    head = TOOLS.build(name, options, c)
    expected = TOOLS.run_step(head, c)
    if mode == "evaluation":  # after that step, as the ranks did; gradients add up
        expected = TOOLS.run_step(head.eval(), c)
    compare(ranks, expected, (mode, case))
    assert torch.equal(join(ranks, mode, case, "classes"), torch.arange(c))
    for rank in ranks:
        assert is_close(rank[mode][case]["buffers"], expected["buffers"])


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
    assert all(rank["sharded"] is True for rank in ranks)


@pytest.mark.parametrize("seed", [0, 1])
def test_sampled_classes_hold_all_positives_and_keep_to_the_softmax(ranks, seed):
    steps = [rank["sampled"]["sampled"][seed] for rank in ranks]
    check_sampled(steps, seed)
    # Two of 6 and two of 5, or the positives.
    present = TOOLS.draw(11, seed=seed)[1].unique()
    for step, low, high in zip(steps, (0, 6), (6, 11), strict=True):
        positives = int(((present >= low) & (present < high)).sum())
        assert len(step["classes"]) == max(2, positives)


def check_sampled(steps, seed):
    """Compare with a dense head that has the drawn classes only."""
    labels = TOOLS.draw(11, seed=seed)[1]
    classes = torch.cat([step["classes"] for step in steps])
    assert torch.isin(labels, classes).all() and torch.equal(classes, classes.unique())
    whole = TOOLS.build("arcface", {}, 11).head.weight.detach()
    embeddings, _, weights = TOOLS.draw(11, seed=seed)
    embeddings.requires_grad_()
    small = TOOLS.build("arcface", {}, len(classes)).head
    with torch.no_grad():
        small.weight.copy_(whole[classes])
    losses = small.score(embeddings, torch.searchsorted(classes, labels)).losses()
    (weights * losses).sum().backward()
    assert is_close(torch.cat([step["losses"] for step in steps]), losses.detach())
    assert is_close(torch.cat([step["embeddings"] for step in steps]), embeddings.grad)
    return torch.cat([step["weight"] for step in steps]), classes, small.weight.grad


def test_sampled_rows_alone_get_the_gradient_of_all_ranks(ranks):
    gradient, classes, expected = check_sampled(
        [rank["sampled"]["sampled"][0] for rank in ranks], 0
    )
    assert is_close(gradient[classes], expected)
    others = [number for number in range(11) if number not in classes.tolist()]
    assert others and (gradient[others] == 0).all()


def test_neighbours_are_found_among_the_classes_of_all_ranks(ranks):
    steps = [rank["sampled"]["mined"] for rank in ranks]
    check_sampled(steps, 0)
    whole = TOOLS.build("arcface", {}, 11).head.weight.detach()
    near = find_nearest_classes(whole, 11, 1, 2)
    for rank in ranks:
        assert torch.equal(rank["sampled"]["nearest"], near)
    present = TOOLS.draw(11)[1].unique()
    expected = torch.cat([present, near[present].flatten()]).unique()
    assert torch.equal(torch.cat([step["classes"] for step in steps]), expected)


def test_more_neighbours_than_a_rank_holds_are_found(ranks):
    weight = torch.randn(11, TOOLS.D, generator=torch.Generator().manual_seed(4))
    assert torch.equal(join(ranks, "nearest"), find_nearest_classes(weight, 11, 1, 8))


def test_a_rank_with_nothing_near_takes_its_first_class(ranks):
    assert [rank["sampled"]["alone"].tolist() for rank in ranks] == [[0, 1], [2]]
    assert all(rank["sampled"]["alone losses"].isfinite().all() for rank in ranks)


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
        assert found["equal"].tolist() == [0, 7, 1, 7]
        assert found["flags"].tolist() == [True, False]
        assert found["empty"].tolist() == [1, 1, 1] and found["empty"].dtype == torch.bfloat16
        assert torch.equal(found["input"], torch.full((rank + 1, 2), float(rank)).double())
