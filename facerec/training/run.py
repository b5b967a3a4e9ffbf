"""A run folder from start to artefact; started again, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from facerec import dist
from facerec.checks import InputError
from facerec.config import save_config
from facerec.data.datasets import ChipSet, flip_labels, hold_out, read_chip_set
from facerec.io import lock_folder, read_json, sha256_file, write_json
from facerec.models.weights import Artefact
from facerec.provenance import versions, write_result
from facerec.training.build import build_run
from facerec.training.export import export_artefact
from facerec.training.hooks import BEST, LAST
from facerec.training.loop import fit
from facerec.training.settings import TrainSettings, find_change
from facerec.training.state import load_weights
from facerec.training.summary import write_summary
from facerec.training.suspects import write_suspects

CONFIG, RESULT, PEOPLE, ARTEFACT = "config.yaml", "result.json", "identities.json", "artefact"


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        folder: the run folder.
        values: plain values of `result.json`; {} in all processes of torchrun but the first.
        was_finished: whether nothing was left to do.
    """

    folder: Path
    values: dict[str, Any]
    was_finished: bool


def train(settings: TrainSettings, folder: Path) -> TrainResult:
    """Train a backbone in a run folder, export it, and return the figures.

    A folder whose run was cut off, by whatever, goes on at its last checkpoint; on the CPU in one
    process it ends with exactly the weights of a run that was not. A finished one is left alone.

    Args:
        settings: the recipe.
        folder: the run folder, made when absent.

    Raises:
        InputError: bad data, or the folder belongs to other settings or is in use.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    dist.start_process_group("cuda" if torch.cuda.is_available() else "cpu")
    lock = lock_folder(folder, "facerec-train") if dist.is_main() else contextlib.nullcontext()
    with lock, _terminate_as_interrupt():
        if dist.is_main():
            check_settings(settings, folder)
        dist.barrier()
        if (folder / RESULT).exists() and (folder / ARTEFACT).is_dir():
            result = TrainResult(folder, read_json(folder / RESULT), True)
        else:
            result = TrainResult(folder, _train(settings, folder), False)
    # After an error nobody waits for the others: torchrun ends them.
    dist.stop_process_group()
    return result


def check_settings(settings: TrainSettings, folder: Path) -> None:
    """Write the resolved settings into a fresh run folder, or compare them with those there.

    Raises:
        InputError: a key that changes the result differs.
    """
    path = folder / CONFIG
    new = settings.model_dump(mode="json")
    if not any((folder / name).exists() for name in (LAST, RESULT)):
        # Nothing was learnt here yet: a wrong setting may still be put right.
        (folder / BEST).unlink(missing_ok=True)
        save_config(settings, path)
        return
    if not path.exists():
        raise InputError(f"{folder} holds a run without its {CONFIG}; give another run= folder")
    old = yaml.safe_load(path.read_text(encoding="utf-8"))
    if (key := find_change(old, new)) is not None:
        raise InputError(
            f"{folder} was started with {key} = {_look_up(old, key)!r}, got "
            f"{_look_up(new, key)!r}; give another run= folder, or the same value"
        )


def _train(settings: TrainSettings, folder: Path) -> dict[str, Any]:
    trained_on, held_out = read_people(settings)
    names = {"trained": trained_on.identities, "held_out": held_out.identities if held_out else ()}
    if dist.is_main():
        write_json(folder / PEOPLE, {**names, "dropped": trained_on.dropped})
    run = build_run(settings, trained_on, held_out, folder)
    state = run.state
    if (folder / LAST).exists():
        state.load(folder / LAST)
    fit(state, run.loader, settings, run.hooks, run.method, run.terms)

    best = folder / BEST
    # One process looks and tells the others: the file appears while they would look themselves.
    if dist.broadcast_from_main(torch.tensor(float(not best.exists()))):
        state.save(best)
    if not dist.is_main():
        return {}
    suspects = write_suspects(
        state.nets[0], run.loader.dataset, state.device, folder, settings.channels_last
    )
    net = state.deliverable()
    if settings.artefact_from == "best":
        load_weights(best, net)
    artefact = _export(settings, net, folder)
    values: dict[str, Any] = {
        "steps": state.step,
        "epochs": settings.epochs,
        "chips": len(trained_on),
        "identities": len(trained_on.identities),
        "dropped_identities": len(trained_on.dropped),
        "held_out_identities": len(held_out.identities) if held_out else 0,
        "corrupt_chips": run.loader.dataset.corrupt,
        "device": str(state.device),
        "processes": dist.world_size(),
        "best_tar": state.best_score,
        **(suspects or {}),
        "params": artefact.info.params,
        "macs": artefact.info.macs,
        "model_sha256": artefact.info.sha256,
        "artefact": ARTEFACT,
    }
    config = settings.model_dump(mode="json")
    hashes = _hash_data(settings)
    write_result(folder / RESULT, values, seed=settings.seed, config=config, hashes=hashes)
    write_summary(folder, settings, values)
    return values


def read_people(settings: TrainSettings) -> tuple[ChipSet, ChipSet | None]:
    """Return the chips to train on and those of held-out people, None when there are none."""
    data, validation = settings.data, settings.validation
    chips = read_chip_set(
        manifest=data.manifest,
        folder=data.folder,
        records=data.records,
        tars=data.tars,
        min_images=data.min_images,
        split=data.split,
    )
    if data.exclude is not None:
        chips = chips.select(set(chips.identities) - _read_names(data.exclude))
    held_out = None
    if validation.manifest is not None or validation.folder is not None:
        held_out = read_chip_set(
            manifest=validation.manifest, folder=validation.folder, split=validation.split
        )
        if shared := sorted(set(held_out.identities) & set(chips.identities)):
            raise InputError(
                f"validation must hold people the net is not trained on, but {shared[0]!r} and "
                f"{len(shared) - 1} more are in both; remove them from one of the two"
            )
    elif validation.holdout:
        chips, held_out = hold_out(chips, validation.holdout, settings.seed)
    if data.label_noise:
        chips = flip_labels(chips, data.label_noise, settings.seed)
    return chips, held_out


def _read_names(path: Path) -> set[str]:
    """Return the identities listed in a text file, one a line."""
    try:
        return set(path.read_text(encoding="utf-8").split("\n")) - {""}
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{path} must be a text file with one identity a line; check data.exclude"
        ) from None


def _export(settings: TrainSettings, backbone: torch.nn.Module, folder: Path) -> Artefact:
    return export_artefact(
        backbone,
        folder / ARTEFACT,
        name=settings.name or folder.resolve().name,
        licence=settings.licence,
        source=f"facerec-train, {folder.resolve().name}",
        training_data=settings.training_data,
        training={
            "backbone": settings.backbone.name,
            "backbone_args": settings.backbone.args,
            "config": settings.model_dump(mode="json"),
            "config_sha256": sha256_file(folder / CONFIG),
            "data": _hash_data(settings),
            "versions": versions(),
        },
    )


def _hash_data(settings: TrainSettings) -> dict[str, str]:
    """Return the sha256 of the manifests used."""
    manifests = {"data.manifest": settings.data.manifest}
    manifests["validation.manifest"] = settings.validation.manifest
    return {key: sha256_file(path) for key, path in manifests.items() if path is not None}


def _look_up(values: dict[str, Any], dotted: str) -> Any:
    found: Any = values
    for part in dotted.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM outside the loop end the run as Ctrl-C does, so that nothing half is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
