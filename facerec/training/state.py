"""Everything a training run is made of, in one object that saves and loads whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facerec import dist
from facerec.checks import InputError
from facerec.data.transforms import MEAN, STD
from facerec.io import read_checkpoint, write_checkpoint
from facerec.losses.head import Head
from facerec.losses.partial_fc import PartialFC
from facerec.training.net import Net

SCHEMA = 2


class Part(Protocol):
    """Something of a run that learns beside the nets: a sampler, an average, a noise estimate."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""


@dataclass
class TrainState:
    """Nets and position of a run.

    Attributes:
        nets: one, or two that teach each other; the first is the one exported.
        device: where they are.
        data_digest: sha256 of the labelled file list; a checkpoint of other data is refused.
        scaler: of float16 gradients, idle in other precisions.
        parts: what else has a state, by name.
        average: averaged weights of the first net, which are scored and exported; None without.
        step: batches done.
        best_score: best validation score, None before the first.
    """

    nets: list[Net]
    device: torch.device
    data_digest: str
    scaler: torch.amp.GradScaler = field(
        default_factory=lambda: torch.amp.GradScaler(enabled=False)
    )
    parts: dict[str, Part] = field(default_factory=dict)
    average: nn.Module | None = None
    step: int = 0
    best_score: float | None = None

    @property
    def backbone(self) -> nn.Module:
        """Return the backbone of the first net."""
        return self.nets[0].backbone

    @property
    def head(self) -> nn.Module:
        """Return the head of the first net."""
        return self.nets[0].head

    def deliverable(self) -> nn.Module:
        """Return the backbone that is scored and exported: the averaged one where there is one."""
        return self.backbone if self.average is None else self.average

    def save(self, path: Path) -> None:
        """Write all of it, all or nothing; under torchrun every process must call this."""
        for part in self.parts.values():
            if synchronise := getattr(part, "synchronise", None):
                synchronise()
        state = {
            "schema": SCHEMA,
            "data_digest": self.data_digest,
            "step": self.step,
            "best_score": self.best_score,
            "nets": [save_net(net) for net in self.nets],
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": _gather_rng(torch.get_rng_state()),
            "rng_device": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        if dist.is_main():
            write_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Go on where `save` left off, also with another number of processes.

        Raises:
            InputError: not a checkpoint, of another schema, of other data, or of other nets.
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
        if len(state["nets"]) != len(self.nets) or set(state["parts"]) != set(self.parts):
            raise InputError(
                f"{path} holds {len(state['nets'])} nets with {sorted(state['parts'])}, the recipe "
                f"asks for {len(self.nets)} with {sorted(self.parts)}; give another run= folder"
            )
        for net, saved in zip(self.nets, state["nets"], strict=True):
            load_net(net, saved)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])
        self.best_score = state["best_score"]
        # With another number of processes the random streams cannot go on: dropout differs then.
        if len(state["rng"]) == dist.world_size():
            torch.set_rng_state(state["rng"][dist.rank()])
        if self.device.type == "cuda" and len(state["rng_device"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["rng_device"])


def save_net(net: Net) -> dict[str, Any]:
    """Return a net's whole state, its unfinished gradients included."""
    gradients = [None if p.grad is None else p.grad for p in net.parameters()]
    return {
        "backbone": net.backbone.state_dict(),
        "head": _save_head(net.head),
        "extras": net.extras.state_dict(),
        "optimizer": _convert_optimizer(net, net.optimizer.state_dict(), "gather"),
        "pending": net.pending,
        "gradients": gradients if net.pending else [],
    }


def load_net(net: Net, saved: dict[str, Any]) -> None:
    """Take back what `save_net` returned."""
    net.backbone.load_state_dict(saved["backbone"])
    _load_head(net.head, saved["head"])
    net.extras.load_state_dict(saved["extras"])
    net.optimizer.load_state_dict(_convert_optimizer(net, saved["optimizer"], "slice"))
    net.pending = saved["pending"]
    device = next(net.backbone.parameters()).device
    for parameter, gradient in zip(net.parameters(), saved["gradients"], strict=False):
        parameter.grad = None if gradient is None else gradient.to(device)


def _save_head(head: Head | PartialFC) -> dict[str, Tensor]:
    return head.full_state() if isinstance(head, PartialFC) else head.state_dict()


def _load_head(head: Head | PartialFC, saved: dict[str, Tensor]) -> None:
    if isinstance(head, PartialFC):
        head.load_full_state(saved)
    else:
        head.load_state_dict(saved)


def _convert_optimizer(net: Net, state: dict[str, Any], way: str) -> dict[str, Any]:
    """Return an optimiser's state with the rows of divided classes gathered or sliced.

    Args:
        net: whose head knows how classes are divided.
        state: of its optimiser.
        way: "gather" or "slice".
    """
    if not isinstance(net.head, PartialFC):
        return state
    convert = getattr(net.head, way)
    divided = {n for n, p in enumerate(net.parameters()) if getattr(p, "facerec_sharded", False)}
    values = {
        number: {name: convert(v) if isinstance(v, Tensor) else v for name, v in entry.items()}
        if number in divided
        else entry
        for number, entry in state["state"].items()
    }
    return {**state, "state": values}


def _gather_rng(state: Tensor) -> list[Tensor]:
    """Return the generator state of every process, in rank order."""
    return list(dist.gather_rows(state[None]))


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = f"cuda:{dist.local_rank()}" if torch.cuda.is_available() else "cpu"
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
    rows = torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # One pass from bytes in pixel order to float32 in the wanted order.
    batch = torch.empty(rows.shape, device=device, memory_format=layout).copy_(rows)
    return batch.sub_(MEAN).div_(STD)


def load_weights(path: Path, backbone: nn.Module) -> None:
    """Load what a checkpoint would export into `backbone`."""
    state = read_checkpoint(path)
    backbone.load_state_dict(state["average"] or state["nets"][0]["backbone"])
