"""Chips whose label a robust head doubts once it is trained: sub-centres and filtered classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facerec.data.chip_dataset import ChipDataset
from facerec.io import write_json
from facerec.losses.head import Head, promote
from facerec.losses.partial_fc import PartialFC
from facerec.training.net import Net
from facerec.training.selection import SelectionReport, find_sub_center_outliers
from facerec.training.validation import embed_chips

SUSPECTS = "suspects.json"
MAX_ANGLE_DEG = 75.0
_BATCH = 1024


def write_suspects(
    net: Net, dataset: ChipDataset, device: torch.device, folder: Path, channels_last: bool
) -> dict[str, Any] | None:
    """Write `suspects.json` into a run folder and return its counts; None where no head doubts.

    With sub-centres, a chip is suspect that lies more than 75 degrees from its identity's dominant
    sub-centre (METHODS section 11). With a filter, one that some other class's centre is nearer to
    than `filter_cosine`. Where labels were changed on purpose, precision and recall of finding
    them are written too. Nothing is dropped: the list is for a look, or for facerec-clean.

    Args:
        net: trained; its head must hold all classes.
        dataset: the chips it was trained on.
        device: of the net.
        folder: run folder.
        channels_last: memory layout of the pictures.
    """
    head = net.head.head if isinstance(net.head, PartialFC) else net.head
    sharded = isinstance(net.head, PartialFC) and net.head.sharded
    if sharded or (head.sub_centers == 1 and head.filter_cosine is None):
        return None
    rows = np.arange(len(dataset))
    vectors = embed_chips(net.backbone, dataset, rows, device, channels_last)
    labels = torch.from_numpy(dataset.chips.labels)
    suspect = _find_suspects(head, vectors, labels, device)
    report = SelectionReport()
    truth = dataset.chips.truth
    report.add(~suspect, None if truth is None else truth == dataset.chips.labels)
    rule = (
        f"more than {MAX_ANGLE_DEG:g} degrees from the dominant of {head.sub_centers} sub-centres"
        if head.sub_centers > 1
        else f"another class within cosine {head.filter_cosine:g}"
    )
    counts = {"suspect_rule": rule, **report.as_dict()}
    names = [dataset.chips.name(row) for row in np.flatnonzero(suspect).tolist()]
    write_json(folder / SUSPECTS, {**counts, "suspects": names})
    return counts


@torch.no_grad()
def _find_suspects(
    head: Head, vectors: NDArray[np.float32], labels: torch.Tensor, device: torch.device
) -> NDArray[np.bool_]:
    """Return bool (n,) of unit embeddings (n, d) with labels (n,)."""
    copies = head.sub_centers
    parts = []
    for start in range(0, len(vectors), _BATCH):
        part = torch.from_numpy(vectors[start : start + _BATCH]).to(device)
        own = labels[start : start + _BATCH].to(device)
        if copies > 1:
            unit = torch.nn.functional.normalize(head.weight, dim=1).view(-1, copies, part.shape[1])
            parts.append(torch.einsum("nd,nkd->nk", part, unit[own]).cpu())
        else:
            cosine = head.compare(promote(part), head.weight)
            parts.append(cosine.scatter(1, own[:, None], -1.0).amax(dim=1).cpu())
    found = torch.cat(parts)
    if copies > 1:
        return np.asarray(find_sub_center_outliers(found, labels, MAX_ANGLE_DEG))
    assert head.filter_cosine is not None
    return (found > head.filter_cosine).numpy()
