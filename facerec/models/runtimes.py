"""Which runtime runs a recogniser, and its graph brought into the form that suits it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from facerec.checks import InputError, check_one_of, require
from facerec.dist import cpu_count
from facerec.models.graphs import (
    count_prelu,
    fixed_batch,
    has_fixed_reshape,
    load_graph,
    make_batch_dynamic,
    read_shape,
    rewrite_prelu,
    serialize,
)
from facerec.models.sessions import (
    GraphSession,
    OnnxRuntimeSession,
    OpenVinoSession,
    Prepared,
    Session,
    TorchSession,
    open_onnxruntime,
    open_openvino,
    relative_difference,
)
from facerec.models.weights import Artefact

RUNTIMES = ("auto", "onnxruntime", "openvino", "torch")
# Runtime -> the form of PReLU that is fastest in it, and its session.
_GRAPH_RUNTIMES: dict[str, tuple[str, type[GraphSession]]] = {
    "onnxruntime": ("split", OnnxRuntimeSession),
    "openvino": ("max", OpenVinoSession),
}
# Largest relative difference up to which a changed graph counts as the same.
_SAME = 1e-5
_BUILT_IN = "the graph has its batch of one built in; images are run one by one"


def pick_runtime(runtime: str = "auto") -> str:
    """Return the runtime to use: for "auto" the fastest that is installed.

    Raises:
        InputError: an unknown name.
    """
    check_one_of(runtime, "runtime", RUNTIMES)
    if runtime != "auto":
        return runtime
    for name in ("openvino", "onnxruntime"):
        if importlib.util.find_spec(name) is not None:
            return name
    return "torch"


def pick_graph_runtime() -> str:
    """Return the runtime that opens a graph fastest, for checks that run it once."""
    return "onnxruntime" if importlib.util.find_spec("onnxruntime") is not None else "openvino"


def build_session(artefact: Artefact, runtime: str = "auto", threads: int | None = None) -> Session:
    """Return a session for a recogniser.

    The graph is brought into the form in which the runtime is fastest: PReLU in other operators,
    and a batch fixed at one made free where the graph allows it. What was changed is run against
    the graph as it is on disk; where they differ it is not used, and `note` says what that means.

    Args:
        artefact: the model.
        runtime: one of RUNTIMES.
        threads: cores to use, all that this process may use when None. Torch has one setting for
            the whole process, which is changed only when a number is given.

    Raises:
        InputError: an unknown runtime, weights that it cannot run, or a batch fixed at more than 1.
        MissingPackageError: the runtime is not installed.
    """
    name = pick_runtime(runtime)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    require(name)
    if name == "torch":
        return TorchSession(artefact, threads)
    form, build = _GRAPH_RUNTIMES[name]
    prepared = prepare_graph(artefact.graph, form)
    try:
        return build(prepared, threads or cpu_count())
    except Exception as error:  # each runtime has its own kinds
        raise InputError(
            f"{artefact.graph} must be a recogniser of aligned faces (not a detector, say), but "
            f"{name} cannot run it: {' '.join(str(error).split())[:200]}"
        ) from error


def prepare_graph(path: Path, form: str) -> Prepared:
    """Return a graph with PReLU in `form` (see `rewrite_prelu`) and a free batch where possible.

    Raises:
        InputError: not an ONNX file, not one image input, or a batch fixed at more than one.
    """
    model = load_graph(path)
    shape = next(iter(read_shape(model).inputs.values()), ())
    size = fixed_batch(model)
    if len(shape) != 4 or size not in (None, 1):
        raise InputError(
            f"{path} must take images (n, 3, h, w) with n free or 1, but takes {shape}; "
            "export it with a free batch axis"
        )
    side = tuple(axis or default for axis, default in zip(shape[1:], (3, 112, 112), strict=True))
    changed = rewrite_prelu(model, form) if count_prelu(model) else model
    built_in = size == 1 or has_fixed_reshape(model)
    freed = make_batch_dynamic(changed) if built_in else changed
    size = 1 if built_in else None
    for candidate, fixed in ((freed, None), (changed, size)):
        data = serialize(candidate) if candidate is not model else None
        if data is not None and _same_outputs(path, side, data, fixed):
            return Prepared(data, side, fixed, _BUILT_IN if fixed else "")
    return Prepared(path, side, size, _BUILT_IN if size else "")


def _same_outputs(path: Path, side: tuple[int, ...], data: bytes, fixed: int | None) -> bool:
    """Return whether a changed graph gives what the file gives, for one image and for three."""
    probe = np.random.default_rng(0).uniform(-1, 1, (3, *side)).astype(np.float32)
    open_graph = open_onnxruntime if pick_graph_runtime() == "onnxruntime" else open_openvino
    try:
        plain, changed = open_graph(path, 1), open_graph(data, 1)
        singles = [probe[i : i + 1] for i in range(3)]
        expected = np.concatenate([plain(single) for single in singles])
        got = [np.concatenate([changed(single) for single in singles])]
        if fixed is None:
            got.append(changed(probe))
    except Exception:  # a graph with its batch built in fails in many ways
        return False
    return all(relative_difference(one, expected) <= _SAME for one in got)
