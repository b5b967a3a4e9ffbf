"""The program of the ranks in test_sharded_head.py, and the steps both sides take."""

import contextlib
import functools
import os
import sys
from pathlib import Path

import torch

from facerec import dist
from facerec.losses import build_head, head_names
from facerec.losses.margins import ArcFace
from facerec.losses.partial_fc import PartialFC
from facerec.losses.sharding import find_nearest_classes, slice_shard
from facerec.training.sgd import SGD, clip_gradients

D = 6
ROWS = (5, 3)  # of each rank
LOPSIDED = (8, 0)
EVALUATED = ("arcface", "magface", "curricularface", "sub-centres", "filtered")
WHOLE = ("adacos", "adamargin", "adaptiveface", "negative_arcface", "npcface")  # cannot be divided
ARGUMENTS = {
    "adaface": {"mean": 2.0, "std": 1.0},
    "magface": {"norm_low": 0.1, "norm_high": 4.0},
    "softmax": {"bias": False},
}
# Name: head, its arguments, classes. Neither 7 nor 11 divide by two.
CASES = {
    **{name: (name, ARGUMENTS.get(name, {}), 7) for name in head_names() if name not in WHOLE},
    "straight": ("arcface", {"grad": "straight_through"}, 11),
    "even": ("cosface", {}, 10),
    "filtered": ("arcface", {"filter_cosine": 0.2}, 11),
    "sub-centres": ("subcenter", {"sub_centers": 3}, 11),
    "few": ("sv_arcface", {}, 3),
    "entangled": ("entangled", {}, 11),
}
# Heads of which steps see some classes, and how those are chosen; 11 classes.
RANDOM = {"sample_rate": 0.4}
SAMPLED = {
    "plain": ("arcface", {}, RANDOM),
    "sub-centres": ("subcenter", {"sub_centers": 3}, RANDOM),
    "filtered": ("arcface", {"filter_cosine": 0.2}, RANDOM),
    "target-led": ("curricularface", {"t": 0.3}, RANDOM),
    "mined": ("arcface", {}, {"sampling": "hard_prototypes", "neighbours": 2}),
}


class Entangled(ArcFace):
    """Negatives and the penalty are differentiated through the target, on every rank."""

    def modify_negatives(self, rows, shifted):
        return rows.cosine * (1 + 0.3 * shifted)

    def penalty(self, rows):
        return (rows.target * rows.norms).mean()


def draw(c, dtype=torch.float64, seed=0):
    """Return embeddings (8, d), labels and row weights of both ranks."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(sum(ROWS), D, generator=generator, dtype=dtype)
    labels = torch.randint(c, (sum(ROWS),), generator=generator)
    weights = torch.rand(sum(ROWS), generator=generator, dtype=dtype)
    return embeddings, labels, weights


def build(name, options, c, dtype=torch.float64, **partial):
    torch.manual_seed(0)
    make = Entangled if name == "entangled" else functools.partial(build_head, name)
    head = make(num_classes=c, embedding_dim=D, **options)
    return PartialFC(head, **partial).to(dtype)


def own_rows(rows):
    start = sum(rows[: dist.rank()])
    return slice(start, start + rows[dist.rank()]) if dist.world_size() > 1 else slice(None)


def run_step(head, c, dtype=torch.float64, seed=0, rows=ROWS):
    """Return all that a step gives for the rows of this rank."""
    embeddings, labels, weights = (part[own_rows(rows)] for part in draw(c, dtype, seed))
    embeddings = embeddings.clone().requires_grad_()
    scores = head.score(embeddings, labels)
    losses = scores.losses()
    total = (weights * losses).sum()
    if scores.penalty is not None:
        total = total + scores.penalty * len(labels)
    total.backward()
    value, number = scores.hardest_negative()
    gradient = head.head.weight.grad
    return {
        "losses": losses.detach(),
        "plain": scores.plain_losses(),
        "target": scores.target_cosine(),
        "target logits": scores.target_logits(),
        "negative": value,
        "negative class": number,
        "prediction": scores.predictions(),
        "plain prediction": scores.predictions(margins=False),
        "embeddings": embeddings.grad,
        "weight": gradient.to_dense() if gradient.is_sparse else gradient.clone(),
        "penalty": torch.zeros(()) if scores.penalty is None else scores.penalty.detach(),
        "classes": torch.arange(c) if scores.classes is None else scores.classes,
        "buffers": torch.stack([b.double() for b in head.head.buffers()] or [torch.zeros(1)]),
    }


@contextlib.contextmanager
def one_process():
    """Be the only process for a while, whatever torchrun said."""
    before = {key: os.environ.pop(key, None) for key in ("RANK", "WORLD_SIZE")}
    yield
    os.environ.update({key: value for key, value in before.items() if value is not None})


def train(head, optimizer, c, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        run_step(head, c, seed=seed)
        clip_gradients(head.parameters(), 5.0)
        optimizer.step()


def start_training(c, **partial):
    head = build("arcface", {}, c, **partial)
    return head, SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def save(head, optimizer):
    momentum = optimizer.state[head.head.weight]["momentum_buffer"]
    return {key: value.clone() for key, value in head.full_state().items()}, head.gather(
        momentum
    ).clone()


def load(head, optimizer, state, momentum):
    head.load_full_state(state)
    optimizer.state[head.head.weight]["momentum_buffer"] = head.slice(momentum).clone()


def train_across_sizes(c, **partial):
    """Two steps on two ranks, two on one, two on two: the whole state after each."""
    head, optimizer = start_training(c, shard=True, **partial)
    train(head, optimizer, c, (0, 1))
    found = [save(head, optimizer)]
    with one_process():
        head, optimizer = start_training(c)
        load(head, optimizer, *found[-1])
        train(head, optimizer, c, (2, 3))
        found.append(save(head, optimizer))
    head, optimizer = start_training(c, shard=True, **partial)
    load(head, optimizer, *found[-1])
    train(head, optimizer, c, (4, 5))
    return [*found, save(head, optimizer)]


def resume(c, **partial):
    """Sampled steps: all states, the classes drawn, and the end of a run that was stopped."""
    head, optimizer = start_training(c, shard=True, **partial)
    states, drawn = [], []
    for seed in range(6):
        optimizer.zero_grad()
        drawn.append(run_step(head, c, seed=seed)["classes"])
        optimizer.step()
        states.append(save(head, optimizer))
    other, its = start_training(c, shard=True, **partial)
    with torch.no_grad():
        other.head.weight.add_(1)
    load(other, its, *states[2])
    again = []
    for seed in range(3, 6):
        its.zero_grad()
        again.append(run_step(other, c, seed=seed)["classes"])
        its.step()
    return {"states": states, "drawn": drawn, "again": again, "end": save(other, its)}


def find_near(other, labels):
    """Return (classes, losses) where classes 0 and `other` of 4 are neighbours."""
    head = build("arcface", {}, 4, sampling="hard_prototypes", neighbours=1, shard=True)
    with torch.no_grad():
        whole = torch.eye(4, D, dtype=torch.float64)
        whole[other, 0] = 1
        head.head.weight.copy_(head.slice(whole))
    scores = head.score(torch.ones(2, D, dtype=torch.float64), torch.tensor(labels))
    scores.losses().sum().backward()
    return scores.classes, scores.losses().detach()


def sample(c):
    """Return steps with sampled classes, and what is mined near and far."""
    steps = {}
    for case, (name, options, partial) in SAMPLED.items():
        head = build(name, options, c, shard=True, **partial)
        steps[case] = [run_step(head, c, seed=seed) for seed in (0, 1)]
        steps[case].append(run_step(head, c, seed=2, rows=LOPSIDED))
    return {
        "steps": steps,
        "nearest": head.full_state()["nearest"],
        "resumed": {kind: resume(c, **SAMPLED[kind][2]) for kind in ("plain", "mined")},
        "near here": find_near(1, [0, 1]),
        "near there": find_near(3, [0, 0]),
    }


def try_collectives():
    rank, device = dist.rank(), {"dtype": torch.float64}
    part = torch.full((rank + 1, 2), float(rank), **device)
    return {
        "sum": dist.sum_over_ranks(torch.tensor(rank + 1)),
        "mean": dist.mean_over_ranks(torch.tensor([1.0, float(rank)])),
        "max": dist.max_over_ranks(torch.tensor([float(rank), -float(rank)])),
        "unequal": dist.gather_rows(part),
        "counts": dist.count_rows(rank + 1),
        "known": dist.gather_rows(part, [1, 2]),
        "strided": dist.gather_rows(torch.arange(6.0).reshape(2, 3).T + rank),
        "none": dist.gather_rows(torch.ones(0, 4)),
        "equal": dist.gather_rows(torch.tensor([rank, 7])),
        "flags": dist.gather_rows(torch.tensor([rank == 0])),
        "empty": dist.gather_rows(torch.ones(3 * rank, dtype=torch.bfloat16)),
        "main": dist.broadcast_from_main(torch.tensor(rank)),
        "second": dist.broadcast_from(torch.tensor(rank), 1),
        "input": part,
    }


def work(folder):
    """Be one of the ranks: write all answers to a file."""
    torch.set_num_threads(1)
    dist.start_process_group("cpu")
    dist.start_process_group("cpu")  # as good as once
    answers = {"collectives": try_collectives(), "steps": {}, "evaluation": {}, "lopsided": {}}
    for case, (name, options, c) in CASES.items():
        head = build(name, options, c, shard=True)
        answers["steps"][case] = run_step(head, c)
        if case in EVALUATED:
            answers["evaluation"][case] = run_step(head.eval(), c)
        head = build(name, options, c, shard=True)
        answers["lopsided"][case] = run_step(head, c, rows=LOPSIDED)
    single = build("arcface", {}, 11, torch.float32, shard=True)
    answers["float32"] = run_step(single, 11, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        answers["bfloat16"] = run_step(single, 11, torch.bfloat16)
    same = build("normface", {}, 7, shard=True)
    with torch.no_grad():
        same.head.weight.copy_(torch.eye(1, D).expand(same.own_classes, D))
    answers["ties"] = run_step(same, 7)
    answers["sharded"] = [h.head.weight.facerec_sharded for h in (single, single.double())]
    answers["sampled"] = sample(11)
    answers["trained"] = train_across_sizes(11)
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.facerec_sharded = True
    parameter.grad = torch.tensor([3.0, 0]) if dist.rank() else None
    answers["norms"] = [clip_gradients([parameter], 1.0), parameter.grad]
    own = slice_shard(torch.randn(11, D, generator=torch.Generator().manual_seed(4)), 11)
    answers["nearest"] = find_nearest_classes(own, 11, 1, 8)
    dist.barrier()
    torch.save(answers, Path(folder) / f"{dist.rank()}.pt")
    dist.stop_process_group()
    dist.stop_process_group()


if __name__ == "__main__":
    work(sys.argv[1])
