import json
import math
import signal
import sys

import numpy as np
import pytest
import torch
from torch import nn

from facerec.data.datasets import ChipSet
from facerec.data.loader import ChipDataset, ChipLoader
from facerec.io import read_checkpoint
from facerec.losses import build_head
from facerec.training.hooks import Checkpoint, DivergedError, Log, NaNGuard, Validate
from facerec.training.loop import Hook, fit
from facerec.training.optim import build_optimizer, lr_at
from facerec.training.settings import TrainSettings
from facerec.training.state import TrainState, choose_device, prepare_images
from facerec.training.validation import Validator

SIZE, PEOPLE, EACH = 8, 6, 8


class MemoryDataset(ChipDataset):
    """Noisy patterns, a person each, without files."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        patterns = rng.integers(40, 215, (PEOPLE, SIZE, SIZE, 3))
        labels = np.repeat(np.arange(PEOPLE), EACH)
        noisy = patterns[labels] + rng.integers(-40, 41, (len(labels), SIZE, SIZE, 3))
        paths = tuple(f"{label}/{row}.png" for row, label in enumerate(labels))
        chips = ChipSet(paths, labels.astype(np.int64), tuple(f"p{n}" for n in range(PEOPLE)))
        super().__init__(chips, SIZE, "none")
        self.images = noisy.astype(np.uint8)

    def read(self, index):
        return self.images[index]


class Net(nn.Module):
    embedding_dim, input_size = 8, SIZE

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.PReLU(8),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(8 * 16, 8),
        )

    def forward(self, images):
        return self.body(images)


def recipe(**changes):
    values = {
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "optim": {"lr": 0.1, "warmup_epochs": 1},
    }
    return TrainSettings.model_validate({**values, **changes})


def build(settings, seed=0, **head):
    torch.manual_seed(seed)
    net = Net()
    margin = build_head("arcface", num_classes=PEOPLE, embedding_dim=8, scale=16, **head)
    optimizer = build_optimizer(net, margin, settings.optim)
    state = TrainState(net, margin, optimizer, torch.device("cpu"), "digest")
    loader = ChipLoader(MemoryDataset(), settings.batch_size, settings.seed, workers=0)
    return state, loader


def weights(state):
    return {**state.backbone.state_dict(), **state.head.state_dict(prefix="head.")}


def same_weights(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


class StopAfter(Hook):
    def __init__(self, step):
        self.step = step
        self.closed = False

    def after_step(self, state, step):
        if state.step == self.step:
            signal.raise_signal(signal.SIGTERM)

    def close(self):
        self.closed = True


class Record(Hook):
    def __init__(self):
        self.lr, self.loss, self.epochs = [], [], []

    def after_step(self, state, step):
        self.lr.append(step.lr)
        self.loss.append(float(step.loss))

    def after_epoch(self, state, epoch):
        self.epochs.append(epoch)


def test_it_learns_and_its_rates_are_those_of_the_schedule():
    settings = recipe(epochs=12)
    state, loader = build(settings, margin=0.3)
    record = Record()
    fit(state, loader, settings, [record])
    assert state.step == 72 and record.epochs == list(range(12))
    assert record.lr == [lr_at(step, settings.optim, 6, 72) for step in range(72)]
    assert np.mean(record.loss[-6:]) < 0.1 * np.mean(record.loss[:6])


@pytest.mark.parametrize("stop", [1, 5, 6, 11, 12])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, stop):
    settings = recipe()
    whole, loader = build(settings)
    fit(whole, loader, settings)

    first, loader = build(settings)
    hook = StopAfter(stop)
    checkpoint = Checkpoint(tmp_path, 1000, loader.steps_per_epoch)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(first, loader, settings, [hook, checkpoint])
    assert hook.closed and signal.getsignal(signal.SIGTERM) is before
    assert first.step == stop

    second, loader = build(settings, seed=99)
    second.load(tmp_path / "last.ckpt")
    fit(second, loader, settings)
    assert second.step == 18 and same_weights(weights(whole), weights(second))


def test_a_signal_in_the_last_step_does_not_undo_a_finished_run():
    settings = recipe()
    state, loader = build(settings)
    fit(state, loader, settings, [StopAfter(18)])
    assert state.step == 18


def test_bf16_runs_on_the_cpu_with_a_float32_head():
    settings = recipe(epochs=1, precision="bf16")
    state, loader = build(settings)
    record = Record()
    fit(state, loader, settings, [record])
    assert all(math.isfinite(loss) for loss in record.loss)
    assert all(value.dtype == torch.float32 for value in state.head.parameters())


def test_images_are_rgb_in_minus_one_to_one():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[..., 0] = 255
    for channels_last in (True, False):
        batch = prepare_images(images, torch.device("cpu"), channels_last)
        assert batch.shape == (2, 3, 4, 4) and batch.dtype == torch.float32
        assert (batch[:, 0] == 1).all() and (batch[:, 1:] == -1).all()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.is_contiguous(memory_format=layout)


def test_nan_stops_before_the_weights_and_names_the_chips(tmp_path):
    settings = recipe()
    state, loader = build(settings)
    before = {key: value.clone() for key, value in weights(state).items()}

    class Poison(Hook):
        def before_update(self, state, step):
            if state.step == 0:
                step.loss.fill_(float("nan"))

    guard = NaNGuard(tmp_path, loader.dataset.chips)
    with pytest.raises(DivergedError, match=r"nan at step 0 .*nan_batch\.json"):
        fit(state, loader, settings, [Poison(), guard])
    record = json.loads((tmp_path / "nan_batch.json").read_text())
    chips = [loader.dataset.chips.paths[index] for index in loader.order(0)[:8]]
    assert record["chips"] == chips and record["step"] == 0
    assert all(p.split("/")[0] == i[1:] for p, i in zip(chips, record["identities"], strict=True))
    trained = dict(state.backbone.named_parameters())
    assert all(torch.equal(before[key], value) for key, value in trained.items())


def test_log_lines_after_the_checkpoint_are_made_again(tmp_path):
    settings = recipe(log_every_steps=2)
    state, loader = build(settings)
    fit(state, loader, settings, [Log(tmp_path, 2, tensorboard=False)])
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 19, 2))
    assert set(lines[0]) == {"step", "epoch", "loss", "target", "lr", "images_per_s"}
    assert lines[-1]["loss"] < lines[0]["loss"] and -1 <= lines[0]["target"] <= 1

    path.write_text(path.read_text() + '{"step": 19, "lo')
    log = Log(tmp_path, 2, tensorboard=False)
    state.step = 7
    log.start(state)
    log.close()
    kept = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert kept == [2, 4, 6]


def test_without_tensorboard_lines_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    state, _ = build(recipe())
    log = Log(tmp_path, 2)
    log.start(state)
    log.write(0, {"loss": 1.0})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 0, "loss": 1.0}
    assert not (tmp_path / "tensorboard").exists()


def test_validation_keeps_the_best_weights(tmp_path):
    settings = recipe(epochs=4)
    state, loader = build(settings)
    validator = Validator(loader.dataset.chips, SIZE, 0.05, 1000, channels_last=True)
    validator.dataset = loader.dataset
    log = Log(tmp_path, 1000, tensorboard=False)
    fit(state, loader, settings, [log, Validate(validator, log, tmp_path, 2, 4)])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [12, 24]
    assert lines[-1]["validation_pairs"] == 48 * 47 // 2
    assert lines[-1]["validation_tar"] > 0.9
    best = read_checkpoint(tmp_path / "best.ckpt")
    assert best["best_score"] == state.best_score == max(x["validation_tar"] for x in lines)
    state.best_score = 2.0
    Validate(validator, log, tmp_path, 1, 4)
    assert read_checkpoint(tmp_path / "best.ckpt")["step"] in (12, 24)


def test_validation_thins_large_sets_and_leaves_the_mode_alone():
    state, loader = build(recipe())
    validator = Validator(loader.dataset.chips, SIZE, 0.05, 20, channels_last=False)
    validator.dataset = loader.dataset
    state.backbone.train()
    result = validator.run(state.backbone, state.device)
    assert result.images == 16 and result.identities == PEOPLE and state.backbone.training


def test_a_checkpoint_of_other_data_or_schema_is_refused(tmp_path):
    state, _ = build(recipe())
    state.save(tmp_path / "a.ckpt")
    state.data_digest = "other"
    with pytest.raises(ValueError, match="other chips or identities"):
        state.load(tmp_path / "a.ckpt")
    torch.save({"schema": 0}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="schema"):
        state.load(tmp_path / "b.ckpt")


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="device=cpu always works"):
        choose_device("tpu9000")
