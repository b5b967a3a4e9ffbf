"""`--json` of the commands that work on a set."""

from __future__ import annotations

import argparse
from typing import Any

from facerec.command import write_json_result


def write_set_json(
    arguments: argparse.Namespace, figures: dict[str, Any], seed: int | None = None
) -> None:
    """Write `--json` with the hashes of the model, the detector and the set's own files."""
    if arguments.json is None:
        return
    from data_tools.sets import SetFolder
    from facerec.io import sha256_file

    folder = SetFolder(arguments.out)
    files = {
        "manifest": folder.manifest,
        "decisions": folder.log,
        "clean": folder.clean,
        "truth": getattr(arguments, "truth", None),
    }
    hashes = {n: sha256_file(file) for n, file in files.items() if file and file.is_file()}
    settings = figures.get("settings", {})
    for name in ("model", "detector"):
        if settings.get(f"{name}_sha256"):
            hashes[name] = settings[f"{name}_sha256"]
    write_json_result(arguments, figures, seed=seed, hashes=hashes)
