"""facerec-train as a process: it learns, survives kills bit for bit, and refuses nonsense."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facerec.cli.train import main
from facerec.io import lock_folder, read_checkpoint
from facerec.models.weights import read_artefact
from facerec.training import build as training_build
from facerec.training.loop import Hook

ROOT = Path(__file__).resolve().parents[2]
BASE = [
    str(ROOT / "configs" / "demo.yaml"),
    "backbone.args={embedding_dim: 16, width: 0.25, blocks: [1, 1, 1, 1], input_size: 32}",
    "head.params={scale: 16, margin: 0.2}",
    "epochs=3",
    "batch_size=8",
    "optim.warmup_epochs=1",
    "seed=3",
    "device=cpu",
]
# Runs the command with a process that a signal ends after a step.
ENDED = """
import os, sys
from facerec.training import build
from facerec.training.loop import Hook

class End(Hook):
    def after_step(self, state, step):
        if state.step == {step}:
            os.kill(os.getpid(), {number})

before = build.build_hooks
build.build_hooks = lambda *a: [*before(*a), End()]
from facerec.cli.train import main
sys.exit(main())
"""


class End(Hook):
    """Sends this process a signal after a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def after_step(self, state, step):
        if state.step == self.step:
            os.kill(os.getpid(), self.number)


PLAIN = "import sys; from facerec.cli.train import main; sys.exit(main())"
BLOCKED = (
    """
import sys
for name in ("faiss", "insightface", "albumentations", "av", "openvino", "typer", "sklearn",
             "torchvision", "jinja2", "matplotlib"):
    sys.modules[name] = None
"""
    + PLAIN
)


def run(code, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Ten people, six chips each: a smooth pattern a person under noise and light."""
    folder = tmp_path_factory.mktemp("chips")
    rng = np.random.default_rng(0)
    for person in range(10):
        pattern = cv2.resize(rng.integers(0, 256, (5, 5, 3)).astype(np.float32), (112, 112))
        (folder / f"p{person}").mkdir()
        for number in range(6):
            noise = rng.normal(0, 25, (112, 112, 1)) + rng.normal(0, 15)
            chip = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"p{person}" / f"{number}.png"), chip)
    return folder


@pytest.fixture(scope="module")
def finished(chips, tmp_path_factory):
    """An undisturbed run, made without the packages a training machine need not have."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = run(BLOCKED, *BASE, f"data.folder={chips}", f"run={folder}", "validation.holdout=0.2")
    assert done.returncode == 0, done.stderr
    return folder, done


def same_state(first, second):
    a, b = read_checkpoint(first / "last.ckpt"), read_checkpoint(second / "last.ckpt")
    assert a["step"] == b["step"]
    for part in ("backbone", "head"):
        ours, theirs = (c["nets"][0][part] for c in (a, b))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), (part, key)
    momenta = [c["nets"][0]["optimizer"]["state"] for c in (a, b)]
    for key in momenta[0]:
        assert torch.equal(*(m[key]["momentum_buffer"] for m in momenta))


def test_run_folder_and_artefact(finished):
    folder, done = finished
    assert "18 steps on 48 chips of 8 identities" in done.stdout
    assert "train: 144 of 144 images" in done.stderr
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml",
        "result.json",
        "identities.json",
        "metrics.jsonl",
        "last.ckpt",
        "best.ckpt",
        "artefact",
        "tensorboard",
    } <= names
    assert not [name for name in names if name.startswith(".artefact")]
    result = json.loads((folder / "result.json").read_text())
    assert result["provenance"]["seed"] == 3 and result["provenance"]["versions"]["torch"]
    people = json.loads((folder / "identities.json").read_text())
    assert len(people["trained"]) == 8 and len(people["held_out"]) == 2
    assert not set(people["trained"]) & set(people["held_out"])
    info = read_artefact(folder / "artefact").info
    assert info.training["backbone_args"]["width"] == 0.25
    assert info.training["config"]["seed"] == 3 and info.sha256 == result["model_sha256"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_tar" in line] == [6, 12, 18]


def test_a_killed_run_ends_with_the_same_bits(finished, chips, tmp_path):
    whole, _ = finished
    folder = tmp_path / "killed"
    arguments = [*BASE, f"data.folder={chips}", f"run={folder}", "validation.holdout=0.2"]
    arguments.append("checkpoint_every_steps=4")
    assert run(ENDED.format(step=11, number=9), *arguments).returncode == -9
    assert read_checkpoint(folder / "last.ckpt")["step"] == 8
    assert not (folder / "artefact").exists()
    again = run(PLAIN, *arguments)
    assert again.returncode == 0, again.stderr
    same_state(whole, folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_tar" in line] == [6, 12, 18]


@pytest.mark.parametrize("number", [2, 15], ids=["SIGINT", "SIGTERM"])
def test_a_signal_checkpoints_and_exits_130(chips, tmp_path, number, capsys):
    folder = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        build = training_build.build_hooks
        patch.setattr(training_build, "build_hooks", lambda *a: [*build(*a), End(11, number)])
        assert main([*BASE, f"data.folder={chips}", f"run={folder}"]) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert read_checkpoint(folder / "last.ckpt")["step"] == 11
    assert not (folder / "artefact").exists()


def test_a_finished_run_is_left_alone_and_a_changed_one_refused(finished, chips, tmp_path, capsys):
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    arguments = [*BASE, f"data.folder={chips}", f"run={folder}", "validation.holdout=0.2"]
    report = tmp_path / "out.json"
    assert main([*arguments, "--json", str(report)]) == 0
    assert "finished; nothing was done" in capsys.readouterr().out
    assert json.loads(report.read_text())["model_sha256"]
    assert main([*arguments, "optim.lr=0.5"]) == 2
    assert "optim.lr = 0.1, got 0.5" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert {p for p in before if p.name != ".lock" and before[p] != after[p]} == set()


def test_bad_input_is_one_sentence_and_the_folder_can_be_used_again(chips, tmp_path, capsys):
    cases = [
        (["epoch=3"], "did you mean 'epochs'"),
        (["head.params.margni=1"], "did you mean 'margin'"),
        (["batch_size=1000"], "set batch_size=60"),
        (["data.folder=/absent"], "/absent must be a folder"),
        (["precision=fp16"], "precision must be fp32 or bf16 on the CPU"),
    ]
    for extra, message in cases:
        assert main([*BASE, f"data.folder={chips}", f"run={tmp_path / 'r'}", *extra]) == 2
        said = capsys.readouterr().err
        assert message in said and len(said.splitlines()) == 1


def test_two_processes_cannot_share_a_run_folder(chips, tmp_path, capsys):
    with lock_folder(tmp_path, "facerec-train"):
        assert main([*BASE, f"data.folder={chips}", f"run={tmp_path}"]) == 2
    assert f"in use by process {os.getpid()} (facerec-train)" in capsys.readouterr().err
