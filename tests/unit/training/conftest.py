"""A toy run: a tiny net on noisy patterns, a person each, as files or in memory."""

import signal
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from facerec.data.chip_dataset import ChipDataset
from facerec.data.datasets import ChipSet
from facerec.data.loader import ChipLoader
from facerec.losses import build_head
from facerec.training.loop import Hook
from facerec.training.net import Net
from facerec.training.optim import build_optimizer
from facerec.training.settings import TrainSettings
from facerec.training.state import TrainState

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


class Backbone(nn.Module):
    embedding_dim, input_size = 8, SIZE

    def __init__(self, norm=True, dropout=0.1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.PReLU(8),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(8 * 16, 8),
        )

    def forward(self, images):
        return self.body(images)


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
        self.lr, self.loss, self.epochs, self.steps = [], [], [], []

    def after_step(self, state, step):
        self.lr.append(step.lr)
        self.loss.append(float(step.loss))
        self.steps.append(step)

    def after_epoch(self, state, epoch):
        self.epochs.append(epoch)


def recipe(**changes):
    values = {
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "optim": {"lr": 0.1, "warmup_epochs": 1},
    }
    return TrainSettings.model_validate({**values, **changes})


def build(settings, seed=0, nets=1, backbone=None, name="arcface", **head):
    torch.manual_seed(seed)
    built = []
    for _ in range(nets):
        net = Backbone(**(backbone or {}))
        margin = build_head(name, num_classes=PEOPLE, embedding_dim=8, **{"scale": 16, **head})
        built.append(Net(net, margin, build_optimizer(settings.optim, net, margin)))
    state = TrainState(built, torch.device("cpu"), "digest")
    loader = ChipLoader(MemoryDataset(), settings.batch_size, settings.seed, workers=0)
    return state, loader


def weights(state):
    return {
        f"{number}.{part}.{key}": value
        for number, net in enumerate(state.nets)
        for part, module in (("backbone", net.backbone), ("head", net.head), ("x", net.extras))
        for key, value in module.state_dict().items()
    }


def same_weights(first, second):
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="session")
def toy():
    return SimpleNamespace(
        recipe=recipe,
        build=build,
        weights=weights,
        same_weights=same_weights,
        Backbone=Backbone,
        MemoryDataset=MemoryDataset,
        StopAfter=StopAfter,
        Record=Record,
        SIZE=SIZE,
        PEOPLE=PEOPLE,
        EACH=EACH,
    )


@pytest.fixture(scope="session")
def chip_folders(tmp_path_factory):
    """Folder of 8 people with 6 chips each, and one of 20 strangers without names."""
    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)

    def draw(pattern):
        noise = rng.normal(0, 25, (32, 32, 1)) + rng.normal(0, 15)
        return np.clip(pattern + noise, 0, 255).astype(np.uint8)

    def pattern():
        return cv2.resize(rng.integers(0, 256, (4, 4, 3)).astype(np.float32), (32, 32))

    for person in range(8):
        face = pattern()
        (root / "known" / f"p{person}").mkdir(parents=True)
        for number in range(6):
            cv2.imwrite(str(root / "known" / f"p{person}" / f"{number}.png"), draw(face))
    (root / "strangers").mkdir()
    for number in range(20):
        cv2.imwrite(str(root / "strangers" / f"{number}.png"), draw(pattern()))
    return root
