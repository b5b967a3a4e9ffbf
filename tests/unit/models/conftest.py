"""Small recognisers as ONNX files, so that no weights are needed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def make_recogniser(batch=1, tail="reshape", slope=0.25, side=16, dim=8, seed=0):
    """Return a ModelProto: strided convolution, PReLU, convolution to (n, dim, 1, 1), flat."""
    rng = np.random.default_rng(seed)
    slopes = np.broadcast_to(np.asarray(slope, np.float32).reshape(-1, 1, 1), (4, 1, 1))
    weights = {
        "w1": rng.standard_normal((4, 3, 4, 4)) * 0.2,
        "b1": rng.standard_normal(4) * 0.2,
        "slope": slopes if np.size(slope) != 1 or tail != "shared" else slopes[:1],
        "w2": rng.standard_normal((dim, 4, side // 4, side // 4)) * 0.2,
    }
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        for name, value in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("PRelu", ["a", "slope"], ["p"], name="act"),
        helper.make_node("Conv", ["p", "w2"], ["c"], kernel_shape=[side // 4, side // 4]),
    ]
    if tail == "squeeze":  # removing the batch axis is what no renaming can repair
        tensors.append(numpy_helper.from_array(np.array([0, 2, 3], np.int64), "axes"))
        tensors.append(numpy_helper.from_array(np.array([1, dim], np.int64), "shape"))
        nodes.append(helper.make_node("Squeeze", ["c", "axes"], ["s"]))
        nodes.append(helper.make_node("Unsqueeze", ["s", "zero"], ["y"]))
        tensors.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    elif tail == "flatten":
        nodes.append(helper.make_node("Flatten", ["c"], ["y"]))
    else:
        tensors.append(numpy_helper.from_array(np.array([1, -1], np.int64), "shape"))
        nodes.append(helper.make_node("Reshape", ["c", "shape"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, dim])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def recogniser():
    return make_recogniser


@pytest.fixture
def run_graph():
    import onnxruntime

    def run(model, batch):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, {session.get_inputs()[0].name: batch})[0]

    return run
