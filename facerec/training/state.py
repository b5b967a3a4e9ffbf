"""Everything a training run is made of, in one object that saves and loads whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facerec.checks import InputError
from facerec.data.transforms import MEAN, STD
from facerec.io import read_checkpoint, write_checkpoint

SCHEMA = 1


@dataclass
class TrainState:
    """Nets, optimiser and position of a run.

    Attributes:
        backbone: chips -> embeddings.
        head: embeddings, labels -> logits.
        optimizer: over both.
        device: where they are.
        data_digest: sha256 of the labelled file list; a checkpoint of other data is refused.
        scaler: of float16 gradients, idle in other precisions.
        step: updates done.
        best_score: best validation score, None before the first.
    """

    backbone: nn.Module
    head: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    data_digest: str
    scaler: torch.amp.GradScaler = field(
        default_factory=lambda: torch.amp.GradScaler(enabled=False)
    )
    step: int = 0
    best_score: float | None = None

    def save(self, path: Path) -> None:
        """Write all of it, all or nothing."""
        state = {
            "schema": SCHEMA,
            "data_digest": self.data_digest,
            "step": self.step,
            "best_score": self.best_score,
            "backbone": self.backbone.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_device": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        write_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Go on where `save` left off.

        Raises:
            InputError: not a checkpoint, of another schema, or of other data.
        """
        state = read_checkpoint(path)
        if state.get("schema") != SCHEMA:
            raise InputError(
                f"{path} must have schema {SCHEMA}, got {state.get('schema')!r}; "
                "it was written by another version of facerec"
            )
        if state["data_digest"] != self.data_digest:
            raise InputError(
                f"{path} was trained on other chips or identities than the data hold now; "
                "give another run= folder, or put the data back"
            )
        self.backbone.load_state_dict(state["backbone"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])
        self.best_score = state["best_score"]
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and len(state["rng_device"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["rng_device"])


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(
            f"device must be auto, cpu or one that torch finds here, got {name!r}; "
            "device=cpu always works"
        ) from None
    return device


def prepare_images(images: NDArray[np.uint8], device: torch.device, channels_last: bool) -> Tensor:
    """Return chips uint8 (n, s, s, 3) as float32 (n, 3, s, s) in [-1, 1] on the device."""
    batch = torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2)
    # The permuted view already is channels_last in memory.
    batch = batch.float() if channels_last else batch.contiguous().float()
    return batch.sub_(MEAN).div_(STD)


def load_weights(path: Path, backbone: nn.Module) -> None:
    """Load the backbone of a checkpoint into `backbone`, for export."""
    backbone.load_state_dict(read_checkpoint(path)["backbone"])
