"""Sessions: a recogniser opened in ONNX Runtime, OpenVINO or torch, behind one interface."""

from __future__ import annotations

import functools
import importlib.util
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, require
from facerec.models import build_backbone
from facerec.models.weights import WEIGHTS_NAME, Artefact

Batch = NDArray[np.float32]
Run = Callable[[Batch], Batch]

# Several images a call spare the fully connected layer's weights; more leave the cache.
_PART = 4
# Largest relative difference between torch weights and the graph beside them.
_SAME_AS_GRAPH = 1e-4


class Session(Protocol):
    """A recogniser that is ready to run.

    Attributes:
        name: "onnxruntime", "openvino" or "torch".
        fixed_batch: 1 when the graph takes single images only (`run` then loops), None when it
            takes any number.
        note: what could not be done to the graph, "" when nothing.
    """

    name: str
    fixed_batch: int | None
    note: str

    def run(self, batch: Batch) -> Batch:
        """Return the raw outputs, float32 (n, d), of inputs float32 (n, 3, h, w), n at least 1."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A graph as a runtime should open it.

    Attributes:
        source: the file as it is, or the bytes of a changed graph.
        side: (c, h, w) of one image.
        fixed_batch: as in Session.
        note: as in Session.
    """

    source: Path | bytes
    side: tuple[int, ...]
    fixed_batch: int | None
    note: str


def relative_difference(got: Batch, expected: Batch) -> float:
    """Return the greatest difference over the greatest value, infinity where shapes differ."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
    return float(np.abs(got - expected).max(initial=0.0)) / scale


def open_onnxruntime(source: Path | bytes, threads: int) -> Run:
    """Return a function that runs a graph; it may be called from several threads at once."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    graph = source if isinstance(source, bytes) else str(source)
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Batch) -> Batch:
        output: Batch = session.run(None, {name: batch})[0]
        return output

    return run


def open_openvino(
    source: Path | bytes, threads: int, shape: Sequence[int] | None = None, streams: int = 1
) -> Run:
    """Return a function that runs a graph, from up to `streams` threads at once."""
    core = _load_openvino()
    model = core.read_model(source if isinstance(source, bytes) else str(source))
    if shape is not None:
        model.reshape({model.inputs[0]: list(shape)})
    compiled = core.compile_model(
        model,
        "CPU",
        {
            # bfloat16, the default where the CPU has it, moves unit embeddings by up to 0.02.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
        },
    )
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        idle.put(compiled.create_infer_request())

    def run(batch: Batch) -> Batch:
        request = idle.get()
        try:
            request.infer({0: batch}, share_inputs=True)
            output: Batch = request.get_output_tensor(0).data.copy()
        finally:
            idle.put(request)
        return output

    return run


@functools.cache
def _load_openvino() -> Any:
    """Return the process's one OpenVINO core, which is never closed.

    Its CPU plugin gives the thread a signal stack of its own and frees it when it is unloaded,
    after which the next signal, a Ctrl-C say, would end the process by a segmentation fault.
    """
    return require("openvino").Core()


class GraphSession:
    """Runs a graph by parts: one image with all cores on it, more with one core on each part.

    Parts of a few images on a core of their own stay in its cache and never wait for the other
    cores, which is faster than all cores on one large batch.
    """

    name = ""

    def __init__(self, prepared: Prepared, threads: int) -> None:
        self.fixed_batch = prepared.fixed_batch
        self.note = prepared.note
        self._prepared = prepared
        self._threads = threads
        self._part = prepared.fixed_batch or _PART
        self._one = self._open_one()
        self._many: Run | None = None
        self._pool: ThreadPoolExecutor | None = None

    def run(self, batch: Batch) -> Batch:
        """Return the raw outputs, float32 (n, d), of inputs float32 (n, 3, h, w), n at least 1."""
        batch = np.ascontiguousarray(batch, np.float32)
        whole = len(batch) - len(batch) % self._part if len(batch) > 1 else 0
        parts = [batch[i : i + self._part] for i in range(0, whole, self._part)]
        outputs = self._run_parts(parts) if parts else []
        outputs += [self._one(batch[i : i + 1]) for i in range(whole, len(batch))]
        rows = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        if len(rows) != len(batch):
            raise InputError(
                f"the graph gives {len(rows)} rows for {len(batch)} images; export it again"
            )
        return rows

    def _run_parts(self, parts: list[Batch]) -> list[Batch]:
        if self._many is None:
            self._many = self._open_many()
        if self._threads == 1:
            return [self._many(part) for part in parts]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self.name)
        return list(self._pool.map(self._many, parts))

    def _open_one(self) -> Run:
        raise NotImplementedError

    def _open_many(self) -> Run:
        raise NotImplementedError


class OnnxRuntimeSession(GraphSession):
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def _open_one(self) -> Run:
        return open_onnxruntime(self._prepared.source, self._threads)

    def _open_many(self) -> Run:
        return self._one if self._threads == 1 else open_onnxruntime(self._prepared.source, 1)


class OpenVinoSession(GraphSession):
    """OpenVINO on the CPU, in float32, compiled for single images and for parts."""

    name = "openvino"

    def _open_one(self) -> Run:
        return open_openvino(self._prepared.source, self._threads, (1, *self._prepared.side))

    def _open_many(self) -> Run:
        shape = (self._part, *self._prepared.side)
        return open_openvino(self._prepared.source, self._threads, shape, self._threads)


class TorchSession:
    """Torch on the CPU, for artefacts that an export of ours wrote.

    Such a folder holds `model.safetensors` beside the graph, and `training` in `model.json` names
    the backbone and its arguments. The weights must give what the graph gives, within 1e-4.

    Args:
        artefact: the model.
        threads: passed to torch.set_num_threads, None leaves that as it is.

    Raises:
        InputError: the folder lacks the weights, or they are not those of the graph.
    """

    name = "torch"
    fixed_batch: int | None = None
    note = ""

    def __init__(self, artefact: Artefact, threads: int | None) -> None:
        torch = require("torch")
        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        self._model = load_backbone(artefact)
        self._check_parity(artefact)

    def run(self, batch: Batch) -> Batch:
        """Return the raw outputs, float32 (n, d), of inputs float32 (n, 3, h, w)."""
        torch = self._torch
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
            images = images.contiguous(memory_format=torch.channels_last)
            output: Batch = self._model(images).float().numpy()
        return output

    def _check_parity(self, artefact: Artefact) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            return
        info = artefact.info
        shape = (2, 3, info.input_height, info.input_width)
        probe = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        plain = open_onnxruntime(artefact.graph, 1)
        expected = np.concatenate([plain(probe[:1]), plain(probe[1:])])
        if relative_difference(self.run(probe), expected) > _SAME_AS_GRAPH:
            raise InputError(
                f"{artefact.graph.parent / WEIGHTS_NAME} gives other embeddings than "
                f"{artefact.graph.name} beside it; export the model again"
            )


def load_backbone(artefact: Artefact) -> Any:
    """Return the torch module of an artefact, in evaluation mode, channels last.

    Raises:
        InputError: the folder lacks torch weights, or they are another net's.
    """
    file = artefact.graph.parent / WEIGHTS_NAME
    name = artefact.info.training.get("backbone")
    if not file.is_file() or not isinstance(name, str):
        raise InputError(
            f"{artefact.info.name} has no torch weights ({WEIGHTS_NAME} and the backbone's name in "
            "model.json); use --runtime onnxruntime or openvino"
        )
    import torch
    from safetensors.torch import load_file

    try:
        model: Any = build_backbone(name, **artefact.info.training.get("backbone_args", {}))
        model.load_state_dict(load_file(str(file)))
    except InputError:
        raise
    except Exception as error:  # wrong keys, shapes, arguments, or not a safetensors file
        raise InputError(
            f"{file} is not the {name} that model.json describes: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return model.eval().to(memory_format=torch.channels_last)
