"""A trained backbone as an artefact: ONNX graph and torch weights that were seen to agree."""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facerec.data.transforms import MEAN, STD
from facerec.io import sync_folder, write_bytes
from facerec.models.cost import measure_cost
from facerec.models.weights import (
    GRAPH_NAME,
    WEIGHTS_NAME,
    Artefact,
    ModelInfo,
    hash_model,
    read_artefact,
    write_info,
)

_PARITY_BATCHES = (1, 5)
_OPSET = 17


class ParityError(RuntimeError):
    """The exported graph does not compute what the torch backbone computes."""


def export_artefact(
    backbone: nn.Module,
    folder: Path,
    *,
    name: str,
    licence: str = "unknown",
    source: str = "",
    training_data: str = "unknown",
    training: dict[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> Artefact:
    """Write `model.onnx`, `model.safetensors` and `model.json` into `folder`, all or nothing.

    Embeddings of the graph and of the backbone are compared at batch 1 and 5; when their unit
    vectors differ anywhere by more than `tolerance`, nothing is written. An artefact that is
    already there is replaced only by a complete one.

    Args:
        backbone: float32, with `embedding_dim` and `input_size`; left as it was.
        folder: the artefact's folder.
        name: of the model.
        licence: of the weights.
        source: where they come from.
        training_data: what they were trained on, in words.
        training: how: must hold "backbone" and "backbone_args" for the torch runtime to rebuild
            the net.
        tolerance: largest absolute difference of unit embeddings.

    Raises:
        ParityError: the graph and the backbone disagree.
    """
    from safetensors.torch import save

    net = copy.deepcopy(backbone).cpu().float().eval().to(memory_format=torch.contiguous_format)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        graph = temporary / GRAPH_NAME
        write_graph(net, graph)
        check_parity(net, graph, tolerance)
        weights = {key: value.contiguous() for key, value in net.state_dict().items()}
        write_bytes(temporary / WEIGHTS_NAME, save(weights))
        info = _describe(
            net,
            graph,
            name=name,
            licence=licence,
            source=source,
            training_data=training_data,
            training=training or {},
        )
        write_info(temporary, info)
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_artefact(folder)


def _describe(net: nn.Module, graph: Path, **words: Any) -> ModelInfo:
    cost = measure_cost(net)
    size = int(net.input_size)  # type: ignore[arg-type]
    return ModelInfo(
        sha256=hash_model(graph),
        input_height=size,
        input_width=size,
        mean=MEAN,
        std=STD,
        embedding_dim=int(net.embedding_dim),  # type: ignore[arg-type]
        macs=cost.macs,
        params=cost.params,
        **words,
    )


def write_graph(net: nn.Module, path: Path) -> None:
    """Write `net` (on the CPU, in eval mode) as ONNX with a free batch axis and no PRelu nodes.

    The exporter that traces is used: five times faster here than the one that compiles, and
    these nets have no control flow for it to miss.
    """
    import onnx

    from facerec.models.graphs import rewrite_prelu

    size = int(net.input_size)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # Shapes are fixed but for the batch, and the graph's answers are compared below.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, size, size),),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_axes={"images": {0: "batch"}, "embeddings": {0: "batch"}},
        )
    onnx.save(rewrite_prelu(onnx.load(str(path))), str(path))


def check_parity(net: nn.Module, graph: Path, tolerance: float) -> float:
    """Return the largest absolute difference of unit embeddings, torch against ONNX Runtime.

    Raises:
        ParityError: it exceeds `tolerance`, or is not a number.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, ["CPUExecutionProvider"])
    size = int(net.input_size)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    worst = 0.0
    for count in _PARITY_BATCHES:
        pixels = rng.integers(0, 256, (count, 3, size, size)).astype(np.float32)
        images = np.asarray((pixels - MEAN) / STD, np.float32)
        with torch.inference_mode():
            expected = net(torch.from_numpy(images)).numpy()
        found = session.run(None, {"images": images})[0]
        if found.shape != expected.shape:
            raise ParityError(
                f"the exported graph returns {found.shape} for {count} images, "
                f"the backbone {expected.shape}"
            )
        difference = float(np.abs(_unit(found) - _unit(expected)).max())
        if not difference <= tolerance:
            raise ParityError(
                f"the exported graph differs from the backbone by {difference:.2g} at batch "
                f"{count}, more than {tolerance:g}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _move_into_place(temporary: Path, folder: Path) -> None:
    temporary.chmod(0o755)
    if folder.exists():
        # A folder cannot be replaced in one step; the old one steps aside first.
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        folder.rename(old / "old")
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)
    sync_folder(folder.parent)
