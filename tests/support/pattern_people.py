"""People who are patterns of colour, a network that tells them apart, and the command line."""

import json

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

from facerec.cli.gallery import main

SIDE = 112


def chip(person, size=SIDE):
    """A person is a pattern of 4 x 4 colours."""
    colours = np.random.default_rng(person).integers(30, 226, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(colours, (size, size), interpolation=cv2.INTER_NEAREST)


def write_recogniser(path):
    """Write a network that pools a chip to its 4 x 4 colours: 48 dimensions."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "patterns",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 48])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def write_picture(path, person, shift=0):
    """Write a person's chip, made lighter by `shift`: another picture of the same person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.clip(chip(person).astype(int) + shift, 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), picture[:, :, ::-1])
    return path


def call(*words):
    """Run `facerec-gallery` and return its exit code."""
    return main([str(word) for word in words])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write_people(folder, people, pictures=2, start=0):
    """Write a folder a person: name -> pattern; return the folder."""
    for name, person in people.items():
        for number in range(start, start + pictures):
            write_picture(folder / name / f"{number}.png", person, 6 * number)
    return folder


def log(gallery, tmp_path):
    """Return the entries of a gallery's log, however it is locked."""
    path = tmp_path / "entries.jsonl"
    assert call("audit", gallery, "--last", 0, "--lines", path) == 0
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
