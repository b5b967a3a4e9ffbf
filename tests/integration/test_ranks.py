"""Training in two processes over gloo: the same weights as in one, and resumes across sizes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
# Trains the toy of tests/unit/training (no batch norm: its statistics are those of a rank's rows).
CODE = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from conftest import build, recipe, weights, MemoryDataset, StopAfter
from facerec import dist
from facerec.data.loader import ChipLoader
from facerec.losses.partial_fc import PartialFC
from facerec.training.hooks import Checkpoint
from facerec.training.loop import fit
from facerec.training.optim import build_optimizer

folder, stop, shard = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "shard"
torch.set_num_threads(1)
dist.start_process_group("cpu")
settings = recipe(epochs=2, batch_size=8)
state, _ = build(settings, backbone={{"norm": False, "dropout": 0}})
loader = ChipLoader(MemoryDataset(), 8, 0, workers=0)
if shard:
    net = state.nets[0]
    net.head = PartialFC(net.head, shard=True)
    net.optimizer = build_optimizer(settings.optim, net.backbone, net.head)
last = folder / "last.ckpt"
if last.exists():
    state.load(last)
hooks = [Checkpoint(folder, 1000, loader.steps_per_epoch)]
try:
    fit(state, loader, settings, [*hooks, *([StopAfter(stop)] if dist.is_main() and stop else [])])
except KeyboardInterrupt:
    pass
dist.stop_process_group()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(code, arguments, ranks):
    """Run Python code in `ranks` processes that know of each other, and wait for all."""
    port = str(free_port())
    running = []
    for rank in range(ranks):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)}
        environment |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
        command = [sys.executable, "-c", code, *arguments]
        running.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=120)[1] for process in running]
    assert all(process.returncode == 0 for process in running), said


def launch(folder, ranks, stop=0, head="dense"):
    """Run the toy in `ranks` processes and return what its last checkpoint holds."""
    folder.mkdir(exist_ok=True)
    code = CODE.format(tests=str(ROOT / "tests" / "unit" / "training"))
    start(code, [str(folder), str(stop), head], ranks)
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("head", ["dense", "shard"])
def test_two_processes_train_as_one_does_and_resume_in_one(alone, tmp_path, head):
    stopped = launch(tmp_path / "two", 2, stop=7, head=head)
    assert stopped["step"] == 7
    # Stopped with two processes inside the second epoch, finished by one.
    resumed = launch(tmp_path / "two", 1, head=head)
    assert resumed["step"] == alone["step"] == 12
    one, two = (c["nets"][0] for c in (alone, resumed))
    assert one["backbone"].keys() == two["backbone"].keys()
    for key, value in one["backbone"].items():
        assert torch.allclose(value, two["backbone"][key], atol=1e-5), key
    classes = two["head"]["head.weight" if head == "shard" else "weight"]
    assert torch.allclose(one["head"]["weight"], classes, atol=1e-5)
    momenta = [c["nets"][0]["optimizer"]["state"] for c in (alone, resumed)]
    for key in momenta[0]:
        ours, theirs = (m[key]["momentum_buffer"] for m in momenta)
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_command_runs_in_two_processes_to_an_artefact(tmp_path):
    """Divided classes, a sampler that learns, an average and validation: all must keep step."""
    rng = np.random.default_rng(0)
    for person in range(7):
        pattern = cv2.resize(rng.integers(0, 256, (4, 4, 3)).astype(np.float32), (32, 32))
        (tmp_path / "chips" / f"p{person}").mkdir(parents=True)
        for number in range(6):
            chip = np.clip(pattern + rng.normal(0, 25, (32, 32, 1)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "chips" / f"p{person}" / f"{number}.png"), chip)
    run = tmp_path / "run"
    arguments = [
        str(ROOT / "configs" / "demo.yaml"),
        "backbone.args={embedding_dim: 16, width: 0.25, blocks: [1, 1, 1, 1], input_size: 32}",
        "head={name: cosface, params: {scale: 16}, partial: {shard: true}}",
        "data.sampler={name: doppelganger, params: {k: 2}}",
        *("average.kind=ema", "validation.holdout=0.3", "tensorboard=false", "device=cpu"),
        *("epochs=2", "batch_size=8", "log_every_steps=1"),
        *(f"data.folder={tmp_path / 'chips'}", f"run={run}"),
    ]
    code = f"import sys; from facerec.cli.train import main; sys.exit(main({arguments!r}))"
    start(code, [], 2)
    result = json.loads((run / "result.json").read_text())
    assert result["processes"] == 2 and (run / "artefact" / "model.onnx").is_file()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [*range(1, result["steps"] + 1)]
    head = torch.load(run / "last.ckpt", weights_only=True)["nets"][0]["head"]
    assert head["head.weight"].shape == (5, 16)  # of all classes, though each process held some
