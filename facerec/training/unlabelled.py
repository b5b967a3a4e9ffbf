"""Which unlabelled faces may be called unknown, asked again at every refresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facerec import dist
from facerec.data.loader import ChipDataset, Unlabelled
from facerec.io import write_json
from facerec.losses.rejection import admit, calibrate_bound
from facerec.training.loop import Hook
from facerec.training.settings import UnlabelledSettings
from facerec.training.state import TrainState
from facerec.training.validation import iter_embeddings

ADMISSION = "admission.json"
_CALIBRATION_CHIPS = 5000


class Admission(Hook):
    """Admits unlabelled faces that look like no known person, and says how many.

    At each refresh the bound is calibrated on labelled chips as the net sees them now: a known
    person stays above it with probability 1 - quantile, and it never exceeds the ceiling. A face
    of an unknown person is admitted while its largest cosine with any known centre is below it.
    The data rule of METHODS section 7: what is shown as unknown must be nobody known.

    Args:
        settings: bound, start and refresh.
        stream: whose `admitted` is set.
        dataset: labelled chips, of which an even sample calibrates the bound.
        folder: run folder, for the report.
        channels_last: memory layout of the pictures.
    """

    def __init__(
        self,
        settings: UnlabelledSettings,
        stream: Unlabelled,
        dataset: ChipDataset,
        folder: Path,
        channels_last: bool,
    ) -> None:
        self.settings = settings
        self.stream = stream
        self.dataset = dataset
        self.folder = folder
        self.channels_last = channels_last
        self.bound = -1.0
        self.history: list[dict[str, float | int]] = []

    def start_epoch(self, state: TrainState, epoch: int) -> None:
        """Ask anew which faces are admitted, every `refresh_epochs` from the start on."""
        settings = self.settings
        late = epoch - int(np.ceil(settings.start_epochs))
        if late < 0 or late % settings.refresh_epochs:
            return
        step = -(-len(self.dataset) // _CALIBRATION_CHIPS)
        known = np.arange(0, len(self.dataset), step)
        target = self._compare(state, self.dataset, known, self.dataset.chips.labels)
        self.bound = calibrate_bound(target, settings.quantile, settings.ceiling)
        every = np.arange(len(self.stream.dataset))
        largest = self._compare(state, self.stream.dataset, every, None)
        mask = admit(torch.from_numpy(largest), self.bound).numpy()
        before = set(self.stream.admitted.tolist())
        self.stream.admitted = np.flatnonzero(mask).astype(np.int64)
        self.history.append(
            {
                "epoch": epoch,
                "bound": self.bound,
                "unlabelled": len(every),
                "admitted": len(self.stream.admitted),
                "newly_admitted": len(set(self.stream.admitted.tolist()) - before),
                "newly_refused": len(before - set(self.stream.admitted.tolist())),
                "median_cosine": float(np.median(largest)),
            }
        )
        if dist.is_main():
            write_json(self.folder / ADMISSION, {"refreshes": self.history})

    def state_dict(self) -> dict[str, Any]:
        """Return bound, admitted positions and history."""
        admitted = torch.from_numpy(self.stream.admitted)
        return {"bound": self.bound, "admitted": admitted, "history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.bound = float(state["bound"])
        self.stream.admitted = state["admitted"].numpy().astype(np.int64)
        self.history = list(state["history"])

    @torch.no_grad()
    def _compare(
        self,
        state: TrainState,
        dataset: ChipDataset,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
    ) -> NDArray[np.float32]:
        """Return cosines (n,) with the own centre, or with the nearest where labels is None.

        `labels` are those of the whole dataset.
        """
        net = state.nets[0]
        layout = self.channels_last
        found = []
        for part, made in iter_embeddings(net.backbone, dataset, rows, state.device, layout):
            cosine = net.compare_all(made)
            if labels is None:
                found.append(cosine.amax(dim=1))
            else:
                own = torch.from_numpy(labels[part]).to(cosine.device)
                found.append(cosine.gather(1, own[:, None])[:, 0])
        joined: NDArray[np.float32] = torch.cat(found).float().cpu().numpy()
        return joined
