"""What `facerec models fetch` knows: addresses, sizes, hashes and licences. No download here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facerec.checks import InputError, nearest
from facerec.io import read_json

_ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models"
_INSIGHTFACE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_RESEARCH = "non-commercial research only (InsightFace model packs)"


class CatalogueEntry(BaseModel):
    """A model that can be fetched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    address: str
    licence: str
    about: str
    size: int | None = Field(default=None, gt=0)
    """Bytes, None when it is not pinned."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the file at the address, None when it is not pinned."""
    recogniser: str = ""
    """For a zip of several graphs: the one that becomes model.onnx. Empty for a plain graph."""
    info: dict[str, Any] = Field(default_factory=dict)
    """Of ModelInfo: preprocessing, task, training data."""


_ENTRIES = (
    CatalogueEntry(
        name="yunet",
        address=f"{_ZOO}/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        licence="MIT",
        about="YuNet, the face detector of the OpenCV zoo",
        size=232_589,
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        info={"task": "detection"},
    ),
    CatalogueEntry(
        name="sface",
        address=f"{_ZOO}/face_recognition_sface/face_recognition_sface_2021dec.onnx",
        licence="Apache-2.0",
        about="SFace, the recogniser of the OpenCV zoo, 128-d",
        size=38_696_353,
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        # As cv2.FaceRecognizerSF feeds it: RGB, 0 to 255; the graph normalises by itself.
        info={"mean": 0.0, "std": 1.0},
    ),
    CatalogueEntry(
        name="buffalo_l",
        address=f"{_INSIGHTFACE}/buffalo_l.zip",
        licence=_RESEARCH,
        about="InsightFace pack: SCRFD-10G detector, IResNet-50 recogniser",
        recogniser="w600k_r50.onnx",
        info={"training_data": "WebFace600K"},
    ),
    CatalogueEntry(
        name="buffalo_s",
        address=f"{_INSIGHTFACE}/buffalo_s.zip",
        licence=_RESEARCH,
        about="InsightFace pack: SCRFD-500M detector, MobileFaceNet recogniser",
        recogniser="w600k_mbf.onnx",
        info={"training_data": "WebFace600K"},
    ),
    CatalogueEntry(
        name="antelopev2",
        address=f"{_INSIGHTFACE}/antelopev2.zip",
        licence=_RESEARCH,
        about="InsightFace pack: SCRFD-10G detector, IResNet-100 recogniser",
        recogniser="glintr100.onnx",
        info={"training_data": "Glint360K"},
    ),
)


def load_catalogue(path: Path | None = None) -> dict[str, CatalogueEntry]:
    """Return name -> entry.

    Args:
        path: a JSON file that lists entries, instead of the built-in ones.

    Raises:
        InputError: the file is not such a list.
    """
    if path is None:
        return {entry.name: entry for entry in _ENTRIES}
    values = read_json(path)
    if not isinstance(values, list):
        raise InputError(f"{path} must hold a JSON list of entries, got {type(values).__name__}")
    try:
        entries = [CatalogueEntry.model_validate(value) for value in values]
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {key}: {first['msg']}") from None
    return {entry.name: entry for entry in entries}


def find_entry(name: str, catalogue: dict[str, CatalogueEntry]) -> CatalogueEntry:
    """Return the entry called `name`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in catalogue:
        raise InputError(
            f"nothing called {name!r} can be fetched{nearest(name, catalogue)} "
            f"(known: {', '.join(sorted(catalogue))})"
        )
    return catalogue[name]
