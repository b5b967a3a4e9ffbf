"""What a training run is worth: LFW, strangers at the gate, and wrong labels found."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eval.pairs import identities_of, read_pairs
from eval.protocol import VerifySettings, run_verify
from facerec.config import build_config
from facerec.data.images import read_image
from facerec.data.pictures import iter_pictures
from facerec.data.sources import SourceItem
from facerec.detection import build_detector
from facerec.embedder import Embedder
from facerec.io import atomic_path, read_checkpoint
from facerec.losses.head import pool_sub_centers
from facerec.metrics.identification import fnir_at_fpir
from facerec.progress import Progress
from facerec.training.hooks import LAST
from facerec.training.log import METRICS, read_metrics
from facerec.training.run import ARTEFACT, CONFIG, read_people
from facerec.training.selection import find_sub_center_outliers
from facerec.training.settings import TrainSettings

_LOCK = threading.Lock()


def score_run(run: Path, data: Path, out: Path, held_back: int) -> dict[str, Any]:
    """Return the figures of a finished run.

    Args:
        run: run folder with its artefact.
        data: folder with lfw/, unlabeled/ and weights/.
        out: keeps LFW's aligned chips, made once.
        held_back: every so many-th unlabelled person was not shown in training.

    Returns:
        accuracy (k-fold, LFW's pairs), tar_1e-3 and tar_1e-4 (all pairs of LFW's pictures),
        tpir_fpir_1e-2 (one enrolled chip a person of LFW; strangers are held-back unlabelled
        people), and noise_precision and noise_recall where labels were changed.
    """
    with _LOCK:
        chips = align_lfw(data, out)
    artefact = run / ARTEFACT
    settings = VerifySettings(all_pairs=True, resamples=0, cache=out / "cache" / run.parent.name)
    found = run_verify(data / "lfw" / "pairs.csv", chips, artefact, "aligned", settings).result
    every = {point["far"]: point["tar"] for point in found["all_pairs"]["tar_at_far"]}
    strangers = sorted((data / "unlabeled").iterdir())[::held_back]
    return {
        "accuracy": found["accuracy"]["mean"],
        "tar_1e-3": every[1e-3],
        "tar_1e-4": every[1e-4],
        "tpir_fpir_1e-2": identify(artefact, chips, data, strangers),
        **find_wrong_labels(run),
        **_count_seconds(run),
    }


def align_lfw(data: Path, out: Path) -> Path:
    """Return a folder of LFW's pictures as aligned chips under their own names, made once."""
    chips = out / "lfw"
    done = chips / ".done"
    if done.exists():
        return chips
    detector = build_detector(str(data / "weights" / "yunet.onnx"))
    names = read_pairs(data / "lfw" / "pairs.csv", data / "lfw" / "images").images()
    items = (SourceItem(data / "lfw" / "images" / name, name) for name in names)
    with Progress("align LFW", len(names), "pictures") as progress:
        for picture in iter_pictures(items, detector, "central"):
            target = chips / picture.item.key
            target.parent.mkdir(parents=True, exist_ok=True)
            chip = picture.chips[0] if len(picture.chips) else np.zeros((112, 112, 3), np.uint8)
            with atomic_path(target) as temporary:
                # A chip stored as JPEG once more would not be the chip.
                encoded = cv2.imencode(".png", cv2.cvtColor(chip, cv2.COLOR_RGB2BGR))[1]
                temporary.write_bytes(encoded.tobytes())
            progress.advance()
    done.touch()
    return chips


def identify(artefact: Path, chips: Path, data: Path, strangers: list[Path]) -> float:
    """Return TPIR at FPIR 1 %: each LFW person's first chip enrolled, the others are probes."""
    names = read_pairs(data / "lfw" / "pairs.csv", chips).images()
    people = np.array(identities_of(names))
    order = np.argsort(people, kind="stable")
    people = people[order]
    embedder = Embedder(artefact, "onnxruntime")
    vectors = _embed(embedder, [chips / names[row] for row in order.tolist()])
    _, first, own = np.unique(people, return_index=True, return_inverse=True)
    probes = np.setdiff1d(np.arange(len(people)), first)
    unknown = _embed(embedder, strangers)
    scores = np.concatenate([vectors[probes], unknown]) @ vectors[first].T
    person = np.concatenate([own[probes], np.full(len(unknown), -1)])
    fnir = fnir_at_fpir(scores, person, [1e-2], rank=1)[0].rates.fnir
    assert fnir is not None, "LFW has mated probes"
    return 1 - fnir


def _embed(embedder: Embedder, paths: list[Path]) -> NDArray[np.float32]:
    parts = [
        embedder.embed(np.stack([read_image(path) for path in paths[start : start + 256]])).vectors
        for start in range(0, len(paths), 256)
    ]
    joined: NDArray[np.float32] = np.concatenate(parts)
    return joined


def find_wrong_labels(run: Path) -> dict[str, float]:
    """Return precision and recall of the changed labels that the method calls wrong.

    What a method keeps in its last epoch says what it drops. Heads that drop nothing are asked
    afterwards: sub-centres by the rule of 75 degrees, a filter by which chips have a negative
    above it. {} where no label was changed or nothing is called wrong.
    """
    values = read_config(run)
    if not values.data.label_noise:
        return {}
    chosen = [line for line in read_metrics(run / METRICS) if "noise_precision" in line]
    if chosen:
        return {key: chosen[-1][key] for key in ("noise_precision", "noise_recall")}
    params = values.head.params
    if "filter_cosine" not in params and params.get("sub_centers", 1) == 1:
        return {}
    chips, _ = read_people(values)
    assert chips.truth is not None
    embedder = Embedder(run / ARTEFACT, "onnxruntime")
    rows = range(len(chips))
    parts = [
        embedder.embed(np.stack([_read_chip(chips, row) for row in rows[start : start + 256]]))
        for start in range(0, len(chips), 256)
    ]
    vectors = torch.from_numpy(np.concatenate([part.vectors for part in parts]))
    state = read_checkpoint(run / LAST)["nets"][0]["head"]
    weight = next(value for key, value in state.items() if key.endswith("weight"))
    cosine = vectors @ torch.nn.functional.normalize(weight, dim=1).T
    labels = torch.from_numpy(chips.labels)
    copies = params.get("sub_centers", 1)
    if copies > 1:
        grouped = cosine.view(len(cosine), -1, copies)
        own = grouped[torch.arange(len(labels)), labels]
        wrong = np.asarray(find_sub_center_outliers(own, labels, 75.0))
    else:
        pooled = pool_sub_centers(cosine, copies)
        pooled[torch.arange(len(labels)), labels] = -1
        wrong = (pooled.amax(dim=1) > params["filter_cosine"]).numpy()
    changed = chips.truth != chips.labels
    hits = float((wrong & changed).sum())
    return {
        "noise_precision": hits / max(1.0, float(wrong.sum())),
        "noise_recall": hits / max(1.0, float(changed.sum())),
    }


def read_config(run: Path) -> TrainSettings:
    """Return the resolved settings of a run folder."""
    import yaml

    values = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    return build_config(TrainSettings, values, str(run / CONFIG))


def _read_chip(chips: Any, row: int) -> NDArray[np.uint8]:
    chip: NDArray[np.uint8] = chips.read(row)
    return chip


def _count_seconds(run: Path) -> dict[str, float]:
    rates = [line["images_per_s"] for line in read_metrics(run / METRICS) if "images_per_s" in line]
    return {"images_per_s": float(np.median(rates))} if rates else {}
