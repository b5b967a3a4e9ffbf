"""The model artefact: weights that carry their preprocessing, provenance and hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facerec.checks import InputError
from facerec.io import read_json, write_json

INFO_NAME = "model.json"
GRAPH_NAME = "model.onnx"
WEIGHTS_NAME = "model.safetensors"  # beside the graph, for the torch runtime; optional


class ModelInfo(BaseModel):
    """What `model.json` says; the embedder obeys it and refuses what contradicts it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    task: Literal["recognition", "detection"] = "recognition"
    sha256: str
    """Over the graph and its external data: see `hash_model`."""
    input_height: int = Field(default=112, gt=0)
    input_width: int = Field(default=112, gt=0)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: float = Field(default=127.5, allow_inf_nan=False)
    std: float = Field(default=127.5, gt=0, allow_inf_nan=False)
    template: Literal["arcface"] = "arcface"
    """Chips are aligned to this five-point template at 112x112, then resized to the input."""
    embedding_dim: int | None = Field(default=None, gt=0)
    macs: int | None = None
    params: int | None = None
    licence: str = "unknown"
    source: str = ""
    training_data: str = "unknown"
    training: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Artefact:
    """A model on disk: its graph and what is known of it."""

    graph: Path
    info: ModelInfo


def external_files(graph: Path) -> list[Path]:
    """Return the external data files that an ONNX graph names, sorted, beside the graph.

    Raises:
        InputError: not an ONNX file, a file is missing, or a name leaves the folder.
    """
    import onnx

    try:
        model = onnx.load(str(graph), load_external_data=False)
    except FileNotFoundError:
        raise InputError(f"{graph} does not exist; check the path") from None
    except Exception as error:
        raise InputError(f"{graph} must be an ONNX file, but cannot be parsed as one") from error
    names = {
        entry.value
        for tensor in _iter_tensors(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder = graph.parent.resolve()
    files = [folder / name for name in sorted(names)]
    for file in files:
        if folder not in file.resolve().parents:
            raise InputError(f"{graph} names external data outside its folder: {file}")
        if not file.is_file():
            raise InputError(
                f"{graph} needs its external data {file.name} beside it, which is missing"
            )
    return files


def _iter_tensors(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a GraphProto: initializers, constants, those of sub-graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _iter_tensors(inner)


def hash_model(graph: Path) -> str:
    """Return the sha256 of the graph followed by its external data, 64 hex digits."""
    digest = hashlib.sha256()
    for file in [graph, *external_files(graph)]:
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_info(folder: Path) -> ModelInfo:
    """Return what `model.json` in an artefact's folder says; the weights are not looked at.

    Raises:
        InputError: no `model.json`, or a wrong key or value in it.
    """
    if not (folder / INFO_NAME).is_file():
        raise InputError(
            f"{folder} is not an artefact: it has no {INFO_NAME}; facerec models add FILE --name "
            "NAME makes one of a .onnx file"
        )
    try:
        return ModelInfo.model_validate(read_json(folder / INFO_NAME))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{folder / INFO_NAME}: {key}: {first['msg']}; correct it or add it again"
        ) from None


def read_artefact(folder: Path) -> Artefact:
    """Return the artefact in a folder, its hash checked.

    Raises:
        InputError: no `model.json`, a wrong key or value in it, or weights that are not the ones
            it describes.
    """
    info = read_info(folder)
    graph = folder / GRAPH_NAME
    found = hash_model(graph)
    if found != info.sha256:
        raise InputError(
            f"{graph} has sha256 {found[:16]}… but {INFO_NAME} says {info.sha256[:16]}…; "
            "the weights were changed: fetch or export them again"
        )
    return Artefact(graph, info)


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `model.json` into an artefact's folder; last, so that a half artefact has none."""
    write_json(folder / INFO_NAME, info.model_dump(mode="json"))
