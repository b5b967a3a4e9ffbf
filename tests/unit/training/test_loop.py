import json
import math
import signal
import sys

import numpy as np
import pytest
import torch

from facerec.io import read_checkpoint
from facerec.training.hooks import Checkpoint, DivergedError, NaNGuard, Validate
from facerec.training.log import Log
from facerec.training.loop import Hook, fit
from facerec.training.optim import lr_at
from facerec.training.state import choose_device, prepare_images
from facerec.training.validation import Validator


def test_it_learns_and_its_rates_are_those_of_the_schedule(toy):
    settings = toy.recipe(epochs=12)
    state, loader = toy.build(settings, margin=0.3)
    record = toy.Record()
    fit(state, loader, settings, [record])
    assert state.step == 72 and record.epochs == list(range(12))
    assert record.lr == [lr_at(step, settings.optim, 6, 72) for step in range(72)]
    assert np.mean(record.loss[-6:]) < 0.1 * np.mean(record.loss[:6])


@pytest.mark.parametrize("stop", [1, 5, 6, 11, 12])
def test_a_stopped_run_goes_on_to_the_same_weights(toy, tmp_path, stop):
    settings = toy.recipe()
    whole, loader = toy.build(settings)
    fit(whole, loader, settings)

    first, loader = toy.build(settings)
    hook = toy.StopAfter(stop)
    checkpoint = Checkpoint(tmp_path, 1000, loader.steps_per_epoch)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(first, loader, settings, [hook, checkpoint])
    assert hook.closed and signal.getsignal(signal.SIGTERM) is before
    assert first.step == stop

    second, loader = toy.build(settings, seed=99)
    second.load(tmp_path / "last.ckpt")
    fit(second, loader, settings)
    assert second.step == 18 and toy.same_weights(whole, second)


def test_a_signal_in_the_last_step_does_not_undo_a_finished_run(toy):
    settings = toy.recipe()
    state, loader = toy.build(settings)
    fit(state, loader, settings, [toy.StopAfter(18)])
    assert state.step == 18


def test_bf16_runs_on_the_cpu_with_a_float32_head(toy):
    settings = toy.recipe(epochs=1, precision="bf16")
    state, loader = toy.build(settings)
    record = toy.Record()
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


def test_nan_stops_before_the_weights_and_names_the_chips(toy, tmp_path):
    settings = toy.recipe()
    state, loader = toy.build(settings)
    before = {key: value.clone() for key, value in toy.weights(state).items()}

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
    assert all(torch.equal(before[f"0.backbone.{key}"], value) for key, value in trained.items())


def test_log_lines_after_the_checkpoint_are_made_again(toy, tmp_path):
    settings = toy.recipe(log_every_steps=2)
    state, loader = toy.build(settings)
    fit(state, loader, settings, [Log(tmp_path, 2, tensorboard=False)])
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 19, 2))
    assert set(lines[0]) == {
        *("step", "epoch", "loss", "selected_share", "target", "target_angle", "negative_angle"),
        *("norm", "margin", "lr", "images_per_s"),
    }
    assert lines[0]["selected_share"] == 1 and lines[0]["margin"] > 0
    assert lines[-1]["loss"] < lines[0]["loss"] and -1 <= lines[0]["target"] <= 1

    path.write_text(path.read_text() + '{"step": 19, "lo')
    log = Log(tmp_path, 2, tensorboard=False)
    state.step = 7
    log.start(state)
    log.close()
    kept = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert kept == [2, 4, 6]


def test_without_tensorboard_lines_are_written_all_the_same(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    state, _ = toy.build(toy.recipe())
    log = Log(tmp_path, 2)
    log.start(state)
    log.write(0, {"loss": 1.0})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 0, "loss": 1.0}
    assert not (tmp_path / "tensorboard").exists()


def test_validation_keeps_the_best_weights(toy, tmp_path):
    settings = toy.recipe(epochs=4)
    state, loader = toy.build(settings)
    validator = Validator(loader.dataset.chips, toy.SIZE, 0.05, 1000, channels_last=True)
    validator.dataset = loader.dataset
    log = Log(tmp_path, 1000, tensorboard=False)
    fit(state, loader, settings, [log, Validate([validator], log, tmp_path, 2, 4)])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [12, 24]
    assert lines[-1]["validation_pairs"] == 48 * 47 // 2
    assert lines[-1]["validation_tar"] > 0.9
    best = read_checkpoint(tmp_path / "best.ckpt")
    assert best["best_score"] == state.best_score == max(x["validation_tar"] for x in lines)
    state.best_score = 2.0
    Validate([validator], log, tmp_path, 1, 4)
    assert read_checkpoint(tmp_path / "best.ckpt")["step"] in (12, 24)


def test_validation_thins_large_sets_and_leaves_the_mode_alone(toy):
    state, loader = toy.build(toy.recipe())
    validator = Validator(loader.dataset.chips, toy.SIZE, 0.05, 20, channels_last=False)
    validator.dataset = loader.dataset
    state.backbone.train()
    result = validator.run(state.backbone, state.device)
    assert result.images == 16 and result.identities == toy.PEOPLE and state.backbone.training


def test_a_checkpoint_of_other_data_or_schema_is_refused(toy, tmp_path):
    state, _ = toy.build(toy.recipe())
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
