"""Training in two processes over gloo: the same weights as in one, and resumes across sizes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

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


def launch(folder, ranks, stop=0, head="dense"):
    """Run the toy in `ranks` processes and return what its last checkpoint holds."""
    port = str(free_port())
    code = CODE.format(tests=str(ROOT / "tests" / "unit" / "training"))
    folder.mkdir(exist_ok=True)
    running = []
    for rank in range(ranks):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)}
        environment |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
        command = [sys.executable, "-c", code, str(folder), str(stop), head]
        running.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=120)[1] for process in running]
    assert all(process.returncode == 0 for process in running), said
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("head", ["dense", "shard"])
def test_two_processes_train_as_one_does_and_resume_in_one(tmp_path, head):
    alone = launch(tmp_path / "alone", 1)
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
