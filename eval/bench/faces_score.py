"""What a training run is worth: LFW, strangers at the gate, and wrong labels found."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.pairs import identities_of, read_pairs
from eval.protocol import VerifySettings, run_verify
from facerec.data.images import read_image
from facerec.data.pictures import iter_pictures
from facerec.data.sources import SourceItem
from facerec.detection import build_detector
from facerec.embedder import Embedder
from facerec.io import atomic_path, read_json
from facerec.metrics.identification import fnir_at_fpir
from facerec.progress import Progress
from facerec.training.log import METRICS, read_metrics
from facerec.training.run import ARTEFACT, RESULT

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

    What a method drops in its last epoch, or what a robust head doubts in the end; {} where no
    label was changed or nothing is called wrong.
    """
    keys = ("noise_precision", "noise_recall")
    lines = [line for line in read_metrics(run / METRICS) if keys[0] in line]
    found = lines[-1] if lines else read_json(run / RESULT)
    return {key: found[key] for key in keys if key in found}


def _count_seconds(run: Path) -> dict[str, float]:
    rates = [line["images_per_s"] for line in read_metrics(run / METRICS) if "images_per_s" in line]
    return {"images_per_s": float(np.median(rates))} if rates else {}
