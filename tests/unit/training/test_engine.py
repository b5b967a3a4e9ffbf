"""What the engine promises: sums that divide correctly, and every part resumes bit for bit."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from facerec.checks import InputError
from facerec.data.datasets import flip_labels, read_chip_set
from facerec.registry import BACKBONES
from facerec.training.averaging import build_average
from facerec.training.build import build_run
from facerec.training.hooks import Checkpoint
from facerec.training.loop import Hook, add_losses, fit
from facerec.training.method import Method, Weighing
from facerec.training.settings import TrainSettings
from facerec.training.state import prepare_images

BASE = {
    "epochs": 4,
    "batch_size": 8,
    "device": "cpu",
    "checkpoint_every_steps": 1000,
    "tensorboard": False,
    "data": {"workers": 0},
    "backbone": {"name": "toy"},
    "head": {"params": {"scale": 16}},
    "optim": {"warmup_epochs": 0.5},
}
RECIPES = {
    "plain": {},
    "accumulate": {"optim": {"accumulate": 4}},
    "ohem": {"mining": {"name": "ohem", "keep": 0.5}},
    "importance": {"mining": {"name": "importance", "presample": 2.0}},
    "coteaching": {"noise": {"name": "coteaching", "warmup_epochs": 1, "gradual_epochs": 1}},
    "disagreement": {
        "noise": {"name": "coteaching", "mode": "either_wrong", "tau": 0.2, "warmup_epochs": 0.5}
    },
    "comining": {"noise": {"name": "comining", "tau": 0.2, "warmup_epochs": 1}},
    "mutual": {"noise": {"name": "mutual"}},
    "ema": {"average": {"kind": "ema", "decay": 0.9}},
    "swa": {"average": {"kind": "swa", "start_share": 0.25, "recalibrate_batches": 2}},
    "doppelganger": {"data": {"sampler": {"name": "doppelganger", "params": {"k": 2}}}},
    "adaptive": {"data": {"sampler": {"name": "adaptive"}}},
    "pairs": {
        "data": {"sampler": {"name": "pairs"}, "degrade": {"preset": "surveillance"}},
    },
    "center": {"loss": {"center": {"weight": 0.01}}},
    "triplet": {
        "loss": {"triplet": {"weight": 0.5}},
        "data": {"sampler": {"name": "pk", "params": {"k": 2}}},
    },
    "curricularface": {"head": {"name": "curricularface"}},
    "adaface": {"head": {"name": "adaface"}},
    "adaptiveface": {"head": {"name": "adaptiveface"}},
    "partial": {"head": {"partial": {"sample_rate": 0.6}}},
    "strangers": {"unlabelled": {"rows": 4, "start_epochs": 1, "quantile": 0.2}},
}


@pytest.fixture(autouse=True)
def toy_backbone(toy, monkeypatch):
    """A backbone small enough to train twenty times over."""
    monkeypatch.setitem(BACKBONES._entries, "toy", toy.Backbone)


def merge(under, over):
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def start(name, root, folder):
    values = merge(BASE, RECIPES[name])
    if name == "strangers":
        values["unlabelled"]["folder"] = str(root / "strangers")
    settings = TrainSettings.model_validate(values)
    chips = read_chip_set(manifest=None, folder=root / "known")
    chips = flip_labels(chips, 0.2, 0)
    folder.mkdir(exist_ok=True)
    return settings, build_run(settings, chips, None, folder)


def finish(settings, run, folder, extra=()):
    hooks = [*run.hooks, *extra, Checkpoint(folder, 1000, run.loader.steps_per_epoch)]
    fit(run.state, run.loader, settings, hooks, run.method, run.terms)


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_that_was_stopped_ends_with_the_same_bits(toy, chip_folders, tmp_path, name):
    settings, whole = start(name, chip_folders, tmp_path / "whole")
    finish(settings, whole, tmp_path / "whole")

    folder = tmp_path / "stopped"
    _, first = start(name, chip_folders, folder)
    stop = whole.loader.steps_per_epoch + 2  # inside the second epoch
    with pytest.raises(KeyboardInterrupt):
        finish(settings, first, folder, [toy.StopAfter(stop)])
    _, second = start(name, chip_folders, folder)
    with torch.no_grad():
        for parameter in second.state.backbone.parameters():
            parameter.add_(1)  # nothing of a fresh start may be left
    second.state.load(folder / "last.ckpt")
    assert second.state.step == stop
    finish(settings, second, folder)

    assert second.state.step == whole.state.step == 4 * whole.loader.steps_per_epoch
    assert toy.same_weights(whole.state, second.state)
    if whole.state.average is not None:
        ours, theirs = (r.state.average.state_dict() for r in (whole, second))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for part in whole.state.parts:
        assert str(whole.state.parts[part].state_dict()) == str(
            second.state.parts[part].state_dict()
        )
    lines = [
        [json.loads(line) for line in (tmp_path / kind / "metrics.jsonl").read_text().splitlines()]
        for kind in ("whole", "stopped")
    ]
    drop = {"images_per_s"}
    tidy = [[{k: v for k, v in x.items() if k not in drop} for x in kind] for kind in lines]
    chosen = [[x for x in kind if "loss" not in x] for kind in tidy]
    assert chosen[0] == chosen[1]


def test_small_batches_add_up_to_a_large_one(toy):
    """Four batches of 4 move the weights as one of 16 does."""
    moved = []
    for rows, accumulate in ((16, 1), (4, 4)):
        settings = toy.recipe(
            epochs=1,
            batch_size=rows,
            optim={"accumulate": accumulate, "warmup_epochs": 0, "schedule": "step"},
        )
        state, loader = toy.build(settings, backbone={"norm": False, "dropout": 0})
        loader.steps_per_epoch = 16 // rows
        fit(state, loader, settings)
        moved.append(toy.weights(state))
    for key in moved[0]:
        assert torch.allclose(moved[0][key], moved[1][key], atol=1e-6), key


def test_the_gradient_is_the_mean_over_the_rows_that_count(toy):
    settings = toy.recipe(optim={"clip_norm": 0, "momentum": 0, "weight_decay": 0, "lr": 1.0})
    state, loader = toy.build(settings, backbone={"norm": False, "dropout": 0})
    net = state.nets[0]
    batch = next(loader.iter_epoch(0))
    images = prepare_images(batch.images, state.device, True)
    labels = torch.from_numpy(batch.labels)
    kept = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0])
    net.set_lr(1.0)
    before = net.head.weight.detach().clone()
    logits = net.head(net.backbone(images), labels)
    wanted = cross_entropy(logits[kept > 0], labels[kept > 0])
    (gradient,) = torch.autograd.grad(wanted, net.head.weight)
    made = net.forward(images, labels)
    total, _ = add_losses([net], [made], Weighing([3.0], [kept]), batch, ())
    total.backward()
    net.update(state.scaler, len(labels), 0.0)
    assert torch.allclose(before - net.head.weight, gradient, atol=1e-6)
    assert net.pending == 0


def test_an_update_without_any_row_moves_nothing(toy):
    settings = toy.recipe()
    state, loader = toy.build(settings)
    net = state.nets[0]
    batch = next(loader.iter_epoch(0))
    made = net.forward(
        prepare_images(batch.images, state.device, True), torch.from_numpy(batch.labels)
    )
    before = net.head.weight.detach().clone()
    total, _ = add_losses([net], [made], Weighing([0.0], [torch.zeros(8)]), batch, ())
    total.backward()
    net.update(state.scaler, 8, 5.0)
    assert torch.equal(before, net.head.weight) and net.head.weight.grad is None


def test_one_method_keeps_every_row_and_updates_on_time(toy):
    settings = toy.recipe(optim={"accumulate": 3})
    state, _ = toy.build(settings)
    method = Method()
    due = []
    for state.step in range(6):
        due.append(method.is_due(state, settings, 8))
    assert due == [False, False, True, False, False, True]
    assert method.report() == {} or method.report().get("kept", 0) == 0


def test_ema_is_the_recursion(toy, chip_folders, tmp_path):
    settings, run = start("ema", chip_folders, tmp_path / "ema")
    seen = []

    class Follow(Hook):
        def after_step(self, state, step):
            seen.append(state.head.weight.detach().clone())
            seen[-1] = next(iter(state.backbone.parameters())).detach().clone()

    expected = next(iter(run.state.average.parameters())).clone()
    finish(settings, run, tmp_path / "ema", [Follow()])
    for count, value in enumerate(seen):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = expected * decay + value * (1 - decay)
    assert torch.allclose(expected, next(iter(run.state.average.parameters())), atol=1e-6)
    assert run.state.deliverable() is run.state.average


def test_swa_is_the_mean_of_epoch_ends_with_statistics_of_its_own(chip_folders, tmp_path):
    settings, run = start("swa", chip_folders, tmp_path / "swa")
    ends = []

    class Follow(Hook):
        def after_epoch(self, state, epoch):
            ends.append(next(iter(state.backbone.parameters())).detach().clone())

    finish(settings, run, tmp_path / "swa", [Follow()])
    average = run.state.average
    assert torch.allclose(
        next(iter(average.parameters())), torch.stack(ends[1:]).mean(dim=0), atol=1e-6
    )
    norm = next(m for m in average.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert int(norm.num_batches_tracked) == 2 and norm.momentum is not None
    assert not average.training


def test_an_average_is_a_copy_that_no_optimiser_moves(toy):
    net = toy.Backbone()
    average = build_average(net)
    assert all(not p.requires_grad for p in average.parameters())
    first, second = next(iter(net.parameters())), next(iter(average.parameters()))
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()


def test_unlabelled_rows_never_touch_the_labelled_ones(chip_folders, tmp_path):
    """Before anyone is admitted a run with strangers is the supervised one bit for bit."""
    results = []
    for name in ("plain", "strangers"):
        settings, run = start(name, chip_folders, tmp_path / name)
        short = settings.model_copy(update={"epochs": 1})
        fit(run.state, run.loader, short, run.hooks, run.method, run.terms)
        results.append(run.state)
    for key, value in results[0].backbone.state_dict().items():
        assert torch.equal(value, results[1].backbone.state_dict()[key])


def test_admission_is_reported_and_keeps_known_faces_out(chip_folders, tmp_path):
    settings, run = start("strangers", chip_folders, tmp_path / "s")
    finish(settings, run, tmp_path / "s")
    rows = json.loads((tmp_path / "s" / "admission.json").read_text())["refreshes"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["bound"] <= 0.5 and row["unlabelled"] == 20 for row in rows)
    admission = run.state.parts["admission"]
    assert np.array_equal(admission.stream.admitted, np.unique(admission.stream.admitted))
    assert rows[-1]["admitted"] == len(admission.stream.admitted)


def test_a_checkpoint_of_another_method_is_refused(chip_folders, tmp_path):
    settings, run = start("plain", chip_folders, tmp_path / "a")
    finish(settings, run, tmp_path / "a")
    _, other = start("mutual", chip_folders, tmp_path / "b")
    with pytest.raises(InputError, match=r"holds 1 nets .* asks for 2"):
        other.state.load(tmp_path / "a" / "last.ckpt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mining": {"name": "ohem"}, "noise": {"name": "coteaching"}}, "ohem"),
        ({"mining": {"name": "importance"}, "noise": {"name": "comining"}}, "importance"),
        ({"loss": {"distill": {"weight": 1.0}}}, "loss.distill.teacher"),
        ({"data": {"sampler": {"name": "pkk"}}}, "did you mean 'pk'"),
        ({"head": {"partial": {"rate": 0.5}}}, "rate"),
        ({"mining": {"name": "importance"}, "unlabelled": {"folder": "x"}}, "never be seen"),
        ({"head": {"name": "softmax"}, "unlabelled": {"folder": "x"}}, "inner products"),
        ({"head": {"partial": {"shard": True}}, "unlabelled": {"folder": "x"}}, "one process"),
    ],
)
def test_what_contradicts_itself_is_refused(chip_folders, tmp_path, changes, message):
    settings = TrainSettings.model_validate(merge(BASE, changes))
    chips = read_chip_set(manifest=None, folder=chip_folders / "known")
    with pytest.raises(InputError, match=message) as caught:
        build_run(settings, chips, None, tmp_path)
    assert len(str(caught.value).splitlines()) == 1
