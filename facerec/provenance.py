"""What every result file carries: command, versions, seed, configuration, hashes."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

from facerec import __version__
from facerec.io import write_json

_PACKAGES = (
    "torch",
    "onnxruntime",
    "openvino",
    "numpy",
    "opencv-python-headless",
    "faiss-cpu",
    "pyarrow",
    "av",
)


def versions() -> dict[str, str]:
    """Return the versions of facerec, Python and the packages that can change a figure."""
    found = {"facerec": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance(seed: int | None, config: dict[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    """Return the block that makes a result repeatable.

    Args:
        seed: the seed of everything random in it, None when nothing was.
        config: the resolved settings, plain JSON values.
        hashes: name of an input -> its sha256.
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "seed": seed,
        "config": config,
        "hashes": hashes,
    }


def write_result(
    path: Path,
    result: dict[str, Any],
    *,
    seed: int | None = None,
    config: dict[str, Any] | None = None,
    hashes: dict[str, str] | None = None,
) -> None:
    """Write `result` as JSON with a `provenance` block beside its own keys."""
    block = provenance(seed, config or {}, hashes or {})
    write_json(path, {**result, "provenance": block})
