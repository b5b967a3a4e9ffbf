"""facerec-train on every kind of data and from an exported model; each fault is one sentence."""

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
from facerec.data.bins import write_bin
from facerec.data.recordio import RecordWriter
from facerec.data.tars import TarSample, write_shards
from facerec.io import read_checkpoint
from facerec.training.run import read_people
from facerec.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
BASE = [
    str(ROOT / "configs" / "demo.yaml"),
    "backbone.args={embedding_dim: 16, width: 0.25, blocks: [1, 1, 1, 1], input_size: 32}",
    "head.params={scale: 16, margin: 0.2}",
    *("epochs=2", "batch_size=8", "optim.warmup_epochs=1", "device=cpu", "tensorboard=false"),
]


@pytest.fixture(scope="module")
def chips():
    """PNG files of eight people, six chips each, by name."""
    rng = np.random.default_rng(0)
    made = {}
    for person in range(8):
        pattern = cv2.resize(rng.integers(0, 256, (5, 5, 3)).astype(np.float32), (112, 112))
        for number in range(6):
            noise = rng.normal(0, 25, (112, 112, 1)) + rng.normal(0, 15)
            chip = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            made[f"{person}/{number}"] = cv2.imencode(".png", chip)[1].tobytes()
    return made


@pytest.fixture(scope="module")
def folder(chips, tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for name, data in chips.items():
        path = root / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    assert main([*BASE, f"data.folder={folder}", f"run={run}"]) == 0
    return run


def read_result(run):
    return json.loads((run / "result.json").read_text())


def read_weights(run):
    return read_checkpoint(run / "last.ckpt")["nets"][0]["backbone"]


def test_records_and_tars_train_as_the_folder_does(chips, finished, tmp_path):
    with RecordWriter(tmp_path / "train.rec") as writer:
        for name, data in chips.items():
            writer.write(data, int(name.split("/")[0]))
    samples = (TarSample(n.replace("/", "_"), d, f"p{n[0]}") for n, d in chips.items())
    write_shards(samples, tmp_path / "shards", 20)
    for number, place in enumerate(("records=train.rec", "tars=shards")):
        key, _, name = place.partition("=")
        run = tmp_path / f"run{number}"
        assert main([*BASE, f"data.{key}={tmp_path / name}", f"run={run}"]) == 0
        ours, theirs = read_weights(finished), read_weights(run)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), place


def test_a_pack_of_pairs_is_scored_and_the_summary_holds_no_picture(chips, folder, tmp_path):
    names = [f"{p}/{n}" for p in range(8) for n in range(6)]
    rng = np.random.default_rng(1)
    same = np.arange(60) % 2 == 0
    images = []
    for mated in same:
        first = int(rng.integers(len(names)))
        person, number = divmod(first, 6)
        other = person if mated else (person + 1 + int(rng.integers(7))) % 8
        images += [chips[names[first]], chips[f"{other}/{(number + 1) % 6}"]]
    write_bin(tmp_path / "toy.bin", images, same)
    run = tmp_path / "run"
    arguments = [f"data.folder={folder}", f"run={run}", f"validation.bins=[{tmp_path / 'toy.bin'}]"]
    assert main([*BASE, *arguments, "log_every_steps=3"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [line["validation_toy_accuracy"] for line in lines if "validation_toy_pairs" in line]
    assert len(scored) == 2 and scored[-1] > 0.7
    assert read_result(run)["best_tar"] == max(scored)
    page = (run / "summary.html").read_text()
    assert "validation" in page.lower() and "Angles" in page
    assert "data:image/jpeg" not in page


def test_fine_tuning_starts_from_the_model_with_centroids(folder, finished, tmp_path):
    run = tmp_path / "tuned"
    new = [f"data.folder={folder}", f"run={run}", "init.head=centroids"]
    artefact = finished / "artefact"
    tune = [*BASE, *new, f"init.artefact={artefact}"]
    assert main([*tune, "epochs=1", "optim.lr=1e-12", "optim.weight_decay=0"]) == 0
    ours, theirs = read_weights(run), read_weights(finished)
    key = next(iter(ours))
    assert torch.allclose(ours[key], theirs[key], atol=1e-6)
    # At this rate nothing moved: the centres are still the mean directions of their chips.
    head = read_checkpoint(run / "last.ckpt")["nets"][0]["head"]["weight"]
    assert torch.allclose(head.norm(dim=1), torch.ones(8), atol=1e-4)
    settings = TrainSettings.model_validate({"data": {"folder": str(folder)}})
    assert read_people(settings)[0].identities == tuple(str(n) for n in range(8))


def test_another_net_in_the_artefact_is_one_sentence(folder, finished, tmp_path, capsys):
    arguments = [*BASE, f"data.folder={folder}", f"run={tmp_path / 'r'}"]
    arguments.append(f"init.artefact={finished / 'artefact'}")
    assert main([*arguments, "backbone.args.width=0.5"]) == 2
    said = capsys.readouterr().err
    assert "holds another net than the recipe's backbone" in said and len(said.splitlines()) == 1


def test_a_corrupt_chip_is_passed_over_and_named(chips, folder, tmp_path, capsys):
    root = tmp_path / "set"
    for name, data in chips.items():
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:100] if name == "3/2" else data)
    (root / "empty").mkdir()
    run = tmp_path / "run"
    assert main([*BASE, f"data.folder={root}", f"run={run}"]) == 0
    assert list(read_result(run)["corrupt_chips"]) == [str(root / "3" / "2.png")]
    assert read_result(run)["identities"] == 8
    assert main([*BASE, f"data.folder={root}", f"run={tmp_path / 'b'}", "data.max_corrupt=0"]) == 2
    assert "2.png" in capsys.readouterr().err.splitlines()[-1]


def test_suspects_are_listed_with_precision_and_recall(folder, tmp_path):
    run = tmp_path / "run"
    arguments = [*BASE, f"data.folder={folder}", f"run={run}", "data.label_noise=0.2"]
    assert main([*arguments, "head.params={scale: 16, sub_centers: 2}"]) == 0
    found = json.loads((run / "suspects.json").read_text())
    assert found["kept"] + found["dropped"] == 48
    assert len(found["suspects"]) == found["dropped"]
    assert read_result(run)["suspect_rule"] == found["suspect_rule"]


def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_last_good_one(folder, tmp_path):
    """The file size limit stands for the disk: it takes effect once a checkpoint is there."""
    run = tmp_path / "run"
    code = f"""
import resource, sys
from facerec.training import hooks
save = hooks.Checkpoint.after_epoch
def limited(self, state, epoch):
    save(self, state, epoch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
hooks.Checkpoint.after_epoch = limited
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from facerec.cli.train import main
sys.exit(main({[*BASE, f"data.folder={folder}", f"run={run}"]!r}))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert read_checkpoint(run / "last.ckpt")["step"] == 6
    assert not [path for path in run.iterdir() if path.name.startswith(".last")]
    # With room again the same command finishes.
    assert main([*BASE, f"data.folder={folder}", f"run={run}"]) == 0
