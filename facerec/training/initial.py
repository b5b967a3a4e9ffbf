"""The first weights of a run: from an artefact, and class centres from its embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from facerec import dist
from facerec.checks import InputError
from facerec.data.chip_dataset import ChipDataset
from facerec.losses.distill import average_classes
from facerec.losses.partial_fc import PartialFC
from facerec.models.sessions import load_backbone
from facerec.models.weights import read_artefact
from facerec.progress import Progress
from facerec.training.net import Net
from facerec.training.validation import iter_embeddings

_SPREAD = 0.05


def load_artefact_weights(backbone: nn.Module, folder: Path) -> None:
    """Give `backbone` the weights of an artefact that facerec-train exported.

    Raises:
        InputError: no such artefact, it has no torch weights, or it is another net.
    """
    stored = load_backbone(read_artefact(folder)).state_dict()
    own = backbone.state_dict()
    differing = [key for key in own if key not in stored or stored[key].shape != own[key].shape]
    if differing or len(stored) != len(own):
        raise InputError(
            f"{folder} holds another net than the recipe's backbone "
            f"({len(differing) or abs(len(stored) - len(own))} tensors differ, the first is "
            f"{(differing or sorted(set(stored) - set(own)))[0]}); give backbone.name and "
            "backbone.args as in its model.json"
        )
    backbone.load_state_dict(stored)


def set_centroids(
    net: Net, dataset: ChipDataset, device: torch.device, layout: bool, *, apart: bool = False
) -> None:
    """Make each class centre the mean direction of its chips' embeddings (METHODS 0.3).

    Sub-centres of a class start around it, a twentieth of a unit apart, so that they can part.

    Args:
        net: backbone in use, head to be filled.
        dataset: the chips.
        device: of the net.
        layout: whether pictures are channels_last.
        apart: start the centres off the means, as far as sub-centres do: of two nets that teach
            each other from one artefact, the second would else stay the first's copy.
    """
    head = net.head.head if isinstance(net.head, PartialFC) else net.head
    labels, copies = torch.from_numpy(dataset.chips.labels), head.sub_centers
    rows = np.arange(len(dataset))
    with Progress("class centres", len(dataset), "chips") as progress:

        def iter_labelled() -> Iterator[tuple[Tensor, Tensor]]:
            for part, found in iter_embeddings(net.backbone, dataset, rows, device, layout):
                progress.advance(len(part))
                yield found.cpu(), labels[part]

        centres = average_classes(iter_labelled(), head.num_classes)
    centres = centres.repeat_interleave(copies, dim=0)
    if copies > 1 or apart:
        centres = centres + _SPREAD * torch.randn(centres.shape) / head.embedding_dim**0.5
    _fill(net, centres)


@torch.no_grad()
def _fill(net: Net, centres: Tensor) -> None:
    if isinstance(net.head, PartialFC):
        state = net.head.full_state()
        key = next(name for name in state if name.endswith("weight"))
        net.head.load_full_state({**state, key: centres.to(state[key])})
        return
    net.head.weight.copy_(centres)
    if dist.world_size() > 1:
        net.head.weight.copy_(dist.broadcast_from_main(net.head.weight.data))
