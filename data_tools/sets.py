"""The set folder: where everything that cleaning makes of a source lies, and its lock."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerec.checks import InputError
from facerec.io import lock_folder, read_json, write_json

SET_FORMAT = 1


@dataclass(frozen=True)
class SetFolder:
    """Paths in a set folder.

        set.json          source, settings and their hashes, time of each stage
        parts/            the manifest while it grows; gone when it is whole
        manifest.parquet  one row a face, or a picture without one and why
        chips/            aligned faces, <first 2 digits>/<image_id>-<face>.png
        embeddings/       one cache a model, by the first 16 digits of its hash
        scores/           what each round knew before it decided
        decisions.jsonl   the log's events; its rounds lie in decisions/
        hashes/           what the chips look like
        graphs/           the nearest rows of every row, one folder a model
        overlap.parquet   people and pictures that evaluation sets have too
        erasures.jsonl    receipts, without names
        clean.parquet     the manifest after replaying the log, kept rows only

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def info(self) -> Path:
        """`set.json`."""
        return self.root / "set.json"

    @property
    def parts(self) -> Path:
        """Folder of manifest parts."""
        return self.root / "parts"

    @property
    def manifest(self) -> Path:
        """`manifest.parquet`."""
        return self.root / "manifest.parquet"

    @property
    def chips(self) -> Path:
        """Folder of aligned faces."""
        return self.root / "chips"

    @property
    def log(self) -> Path:
        """`decisions.jsonl`."""
        return self.root / "decisions.jsonl"

    @property
    def clean(self) -> Path:
        """`clean.parquet`."""
        return self.root / "clean.parquet"

    @property
    def embeddings(self) -> Path:
        """Folder of all models' embedding caches."""
        return self.root / "embeddings"

    def scores(self, number: int) -> Path:
        """Score table of a round."""
        return self.root / "scores" / f"round-{number:04d}.parquet"

    def lock(self, job: str) -> contextlib.AbstractContextManager[None]:
        """Hold the folder for one process: see `facerec.io.lock_folder`."""
        return lock_folder(self.root, f"facerec-clean {job}")


def open_set(root: Path) -> SetFolder:
    """Return the set in a folder whose ingest is complete.

    Raises:
        InputError: there is none, it is of another format, or its ingest did not finish.
    """
    folder = SetFolder(Path(root))
    if not folder.info.is_file():
        raise InputError(f"{root} is no set; make one with: facerec-clean ingest SOURCE {root}")
    read_info(folder)
    if not folder.manifest.is_file():
        raise InputError(
            f"{root} is not ingested to its end; run the same facerec-clean ingest command again"
        )
    return folder


def read_info(folder: SetFolder) -> dict[str, Any]:
    """Return what `set.json` says.

    Raises:
        InputError: it is missing, broken or of another format.
    """
    info = read_json(folder.info)
    if not isinstance(info, dict) or info.get("format") != SET_FORMAT:
        raise InputError(
            f"{folder.info} must be a set of format {SET_FORMAT}; ingest the source again"
        )
    return info


def record_stage(folder: SetFolder, stage: str, seconds: float, **figures: Any) -> None:
    """Add a stage with its wall time and figures to `set.json`; the lock must be held."""
    info = read_info(folder)
    entry = {"stage": stage, "seconds": round(seconds, 3), **figures}
    write_json(folder.info, {**info, "stages": [*info.get("stages", []), entry]})


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed writer left in a folder; the lock must be held."""
    for file in folder.glob(".*.*"):
        if file.suffix in (".parquet", ".json", ".tmp") and file.is_file():
            file.unlink()
