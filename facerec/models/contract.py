"""What a model must do to be taken into the store, checked by running it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from facerec.checks import InputError
from facerec.models.graphs import load_graph, read_shape
from facerec.models.runtimes import pick_graph_runtime, prepare_graph
from facerec.models.sessions import open_onnxruntime, open_openvino
from facerec.models.weights import Artefact
from facerec.opencv import quiet_opencv


def check_contract(artefact: Artefact) -> Artefact:
    """Return the artefact, its embedding_dim filled in, after running it.

    A recogniser must take images (n, 3, h, w) of the size its model.json gives and answer with
    one output (n, d), finite, that differs between images. A detector must load in
    cv2.FaceDetectorYN and run on an empty picture.

    Raises:
        InputError: it does not; the sentence says what it does instead.
    """
    if artefact.info.task == "detection":
        _check_detector(artefact)
        return artefact
    dim = _measure_recogniser(artefact)
    if artefact.info.embedding_dim not in (None, dim):
        raise InputError(
            f"{artefact.info.name} gives {dim} dimensions, but its model.json says "
            f"{artefact.info.embedding_dim}"
        )
    return replace(artefact, info=artefact.info.model_copy(update={"embedding_dim": dim}))


def _measure_recogniser(artefact: Artefact) -> int:
    info, graph = artefact.info, artefact.graph
    shape = read_shape(load_graph(graph, weights=False))
    if len(shape.inputs) != 1 or len(shape.outputs) != 1:
        raise InputError(
            f"a recogniser must have one input and one output, {info.name} has "
            f"{len(shape.inputs)} and {len(shape.outputs)}; is it a detector? (--task detection)"
        )
    prepared = prepare_graph(graph, "split")
    size = (info.input_height, info.input_width)
    taken = next(iter(shape.inputs.values()))
    if taken[1] not in (None, 3):
        raise InputError(f"a recogniser must take (n, 3, h, w), {info.name} takes {taken}")
    if any(axis not in (None, side) for axis, side in zip(taken[2:], size, strict=True)):
        raise InputError(
            f"{info.name} takes images of {taken[2]}x{taken[3]} (height x width), but {size[0]}x"
            f"{size[1]} was given; correct --input-size"
        )
    opener = open_onnxruntime if pick_graph_runtime() == "onnxruntime" else open_openvino
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, *size)).astype(np.float32)
    try:
        run = opener(prepared.source, 1)
        rows = [np.asarray(run(images[i : i + 1])) for i in range(2)]
    except Exception as error:  # each runtime has its own kinds
        raise InputError(
            f"{info.name} cannot be run: {' '.join(str(error).split())[:300]}"
        ) from error
    if rows[0].ndim != 2 or len(rows[0]) != 1 or rows[0].dtype != np.float32:
        raise InputError(
            f"a recogniser must give float32 (n, d), {info.name} gives {rows[0].dtype} "
            f"{rows[0].shape} for one image"
        )
    if not all(np.isfinite(row).all() for row in rows):
        raise InputError(f"{info.name} gives NaN or infinity; its weights are unusable")
    if np.array_equal(rows[0], rows[1]):
        raise InputError(f"{info.name} gives the same embedding for every image")
    return int(rows[0].shape[1])


def _check_detector(artefact: Artefact) -> None:
    import cv2

    quiet_opencv()
    shape = next(iter(read_shape(load_graph(artefact.graph, weights=False)).inputs.values()), ())
    height, width = (shape[2] or 128, shape[3] or 128) if len(shape) == 4 else (128, 128)
    try:
        detector = cv2.FaceDetectorYN.create(str(artefact.graph), "", (width, height))
        detector.detect(np.zeros((height, width, 3), np.uint8))
    except cv2.error as error:
        raise InputError(
            f"{artefact.info.name} must be a YuNet detector for cv2.FaceDetectorYN, but OpenCV "
            "cannot run it as one; is it a recogniser? (--task recognition)"
        ) from error
