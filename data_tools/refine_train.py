"""The trainings of a refinement: which rows, which recipe, and what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.rounds import find_half
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.config import build_config
from facerec.data.manifest import MANIFEST_SCHEMA
from facerec.io import atomic_path, read_json
from facerec.training.log import METRICS, read_metrics
from facerec.training.run import ARTEFACT, RESULT, train
from facerec.training.settings import TrainSettings

ROBUST = ("coteaching", "subcenter", "none")
SUB_CENTERS, FILTER_COSINE = 3, 0.4

_CHIPS = "chips"


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        artefact: folder of the exported model.
        figure: the best validation figure of its epochs, None without validation.
        error: standard error of the figure: binomial, over the pairs of a pack, or over the people
            of a folder, whose pairs are not independent.
    """

    artefact: Path
    figure: float | None
    error: float | None


def adapt_recipe(settings: TrainSettings, robust: str, validation: Path | None) -> TrainSettings:
    """Return a recipe made robust against wrong labels, and with the validation that is asked for.

    "coteaching" trains two nets; "subcenter" gives each identity three sub-centres and leaves out
    the logits of classes within cosine 0.4, which may be the same person (METHODS section 8.4).
    What the recipe says of these itself stands.

    Args:
        settings: the recipe.
        robust: one of ROBUST.
        validation: a `.bin` pack of pairs, or a folder of chips, one sub-folder a person; None:
            what the recipe says.

    Raises:
        InputError: validation is neither, or the recipe holds out people, which would be others in
            each round.
    """
    values = settings.model_dump()
    if robust == "coteaching" and settings.noise.name == "none":
        values["noise"]["name"] = "coteaching"
    if robust == "subcenter":
        asked = {"sub_centers": SUB_CENTERS, "filter_cosine": FILTER_COSINE}
        values["head"]["params"] = {**asked, **settings.head.params}
    if validation is not None:
        values["validation"].update(holdout=0.0, manifest=None, folder=None, split="", bins=())
        if validation.is_dir():
            values["validation"]["folder"] = validation.resolve()
        elif validation.is_file():
            values["validation"]["bins"] = (validation.resolve(),)
        else:
            raise InputError(
                f"validation {validation} must be a .bin pack or a folder of chips; check the path"
            )
    elif settings.validation.holdout:
        raise InputError(
            "validation.holdout must be 0 here, because each round would hold out other people; "
            "give --validation instead"
        )
    return build_config(TrainSettings, values, "recipe")


def place_recipe(
    settings: TrainSettings, manifest: Path, *, name: str, seed: int, start: Path | None
) -> TrainSettings:
    """Return a recipe for the rows of a manifest.

    Args:
        settings: the recipe.
        manifest: rows to train on, see `write_rows`.
        name: of the model.
        seed: of the training.
        start: artefact that the backbone starts from, with class centres at the mean of its
            embeddings; None: as the recipe says.
    """
    place = {"manifest": manifest, "folder": None, "records": None, "tars": None}
    changes: dict[str, Any] = {"run": None, "seed": seed, "name": settings.name or name}
    changes["data"] = settings.data.model_copy(update=place)
    if start is not None:
        changes["init"] = settings.init.model_copy(update={"artefact": start, "head": "centroids"})
    return settings.model_copy(update=changes)


def write_rows(folder: SetFolder, cleaned: bool, target: Path, half: int | None) -> int:
    """Write the rows to train on as a manifest, and return how many; the set must be locked.

    A link beside it leads to the set's chips, which manifests name relative to themselves.

    Args:
        folder: the set.
        cleaned: whether rows and labels are those of the clean set, else those of the manifest.
        target: the file to write, inside the set folder.
        half: only rows of this half (`data_tools.rounds.find_half`), all when None.
    """
    _link_chips(folder, target.parent)
    source = folder.clean if cleaned else folder.manifest
    count = 0
    with (
        atomic_path(target) as temporary,
        pq.ParquetWriter(temporary, MANIFEST_SCHEMA, compression="zstd") as writer,
        pq.ParquetFile(source) as rows,
    ):
        for batch in rows.iter_batches(columns=MANIFEST_SCHEMA.names):
            kept = pc.and_(pc.not_equal(batch["chip"], ""), pc.not_equal(batch["identity"], ""))
            if half is not None:
                kept = pc.and_(kept, pa.array(find_half(batch["image_id"]) == half))
            table = pa.Table.from_batches([batch]).filter(kept)
            writer.write_table(table.replace_schema_metadata(MANIFEST_SCHEMA.metadata))
            count += table.num_rows
    return count


def run_training(settings: TrainSettings, run: Path) -> Trained:
    """Train in a run folder, or go on there, and return the model and its figure."""
    train(settings, run)
    found = Trained(run / ARTEFACT, read_json(run / RESULT)["best_tar"], None)
    if found.figure is None:
        return found
    validation = settings.validation
    people = validation.folder is not None or validation.manifest is not None
    key = "identities" if people else f"{validation.bins[0].stem}_pairs"
    name = f"validation_{key}"
    counts = [line[name] for line in read_metrics(run / METRICS) if name in line]
    return replace(found, error=estimate_error(found.figure, counts[-1]))


def estimate_error(figure: float, count: int) -> float:
    """Return the standard error of a share of `count` trials, above 0 even for 0 and 1.

    One success and one failure are added, so that few trials never look certain.
    """
    share = (figure * count + 1) / (count + 2)
    return float(np.sqrt(share * (1 - share) / (count + 2)))


def join_figures(trained: list[Trained]) -> tuple[float | None, float | None]:
    """Return the mean figure of a round's models and its standard error.

    The validation set is the same for both models of a cross-fit, so the mean is no surer than
    one of them; half of their difference counts where it is larger: training is noisy too.
    """
    figures = [one.figure for one in trained if one.figure is not None]
    errors = [one.error for one in trained if one.error is not None]
    if not figures:
        return None, None
    apart = (max(figures) - min(figures)) / 2
    return float(np.mean(figures)), max(float(np.mean(errors)), apart)


def _link_chips(folder: SetFolder, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    link = place / _CHIPS
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(folder.chips, place), target_is_directory=True)
