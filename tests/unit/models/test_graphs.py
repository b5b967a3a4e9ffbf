import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from facerec.checks import InputError
from facerec.models.graphs import (
    count_prelu,
    fixed_batch,
    load_graph,
    make_batch_dynamic,
    read_shape,
    rewrite_prelu,
)


def images(n, side=16, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 3, side, side)).astype(np.float32)


def test_shape_of_graph(recogniser):
    shape = read_shape(recogniser())
    assert shape.inputs == {"x": (1, 3, 16, 16)} and shape.outputs == {"y": (1, 8)}
    assert fixed_batch(recogniser()) == 1 and fixed_batch(recogniser(batch="n")) is None


def test_reshape_to_one_becomes_dynamic(recogniser, run_graph):
    fixed = recogniser()
    free = make_batch_dynamic(fixed)
    batch = images(3)
    expected = np.concatenate([run_graph(fixed, batch[i : i + 1]) for i in range(3)])
    got = run_graph(free, batch)
    assert got.shape == (3, 8)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(run_graph(free, batch[:1]), expected[:1], atol=1e-6)
    assert fixed_batch(fixed) == 1, "the argument must not change"


def test_shared_reshape_target_is_not_edited_in_place(recogniser):
    model = recogniser()
    # A second node that means the constant as it is.
    model.graph.node.append(helper.make_node("Identity", ["shape"], ["kept"]))
    free = make_batch_dynamic(model)
    kept = {t.name: numpy_helper.to_array(t) for t in free.graph.initializer}["shape"]
    assert kept.tolist() == [1, -1]


def test_batch_of_two_is_refused(recogniser):
    with pytest.raises(InputError, match="fixed at 1"):
        make_batch_dynamic(recogniser(batch=2))


SLOPES = [
    [0.1, 0.25, 0.5, 0.9],
    [0.0, 1.0, 0.5, 0.2],
    [-0.3, 0.2, 0.1, 0.4],
    [1.7, 0.2, -0.1, 0.4],
]


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("form", ["split", "max"])
def test_rewritten_prelu_is_the_same_function(recogniser, run_graph, slope, form):
    plain = recogniser(batch="n", slope=slope)
    changed = rewrite_prelu(plain, form)
    onnx.checker.check_model(changed)
    batch = images(4)
    np.testing.assert_allclose(
        run_graph(changed, batch), run_graph(plain, batch), atol=1e-6, rtol=1e-5
    )


def test_split_leaves_no_prelu_and_no_unused_weight(recogniser):
    changed = rewrite_prelu(recogniser(slope=SLOPES[0]))
    assert "PRelu" not in {node.op_type for node in changed.graph.node}
    used = {name for node in changed.graph.node for name in node.input}
    assert {tensor.name for tensor in changed.graph.initializer} <= used
    assert count_prelu(changed) == 1


def test_split_comes_back_in_the_other_form(recogniser, run_graph):
    plain = recogniser(batch="n", slope=SLOPES[0])
    direct, detour = rewrite_prelu(plain, "max"), rewrite_prelu(rewrite_prelu(plain), "max")
    assert [n.op_type for n in detour.graph.node] == [n.op_type for n in direct.graph.node]
    batch = images(2)
    np.testing.assert_array_equal(run_graph(detour, batch), run_graph(direct, batch))


def test_split_twice_changes_nothing(recogniser):
    once = rewrite_prelu(recogniser(slope=SLOPES[0]))
    assert rewrite_prelu(once).graph == once.graph


def test_slope_out_of_range_survives_the_detour(recogniser, run_graph):
    plain = recogniser(batch="n", slope=SLOPES[3])
    detour = rewrite_prelu(rewrite_prelu(plain), "max")
    assert "PRelu" in {node.op_type for node in detour.graph.node}
    batch = images(2)
    np.testing.assert_allclose(run_graph(detour, batch), run_graph(plain, batch), atol=1e-6)


def test_shared_slope_becomes_leaky_relu(recogniser, run_graph):
    plain = recogniser(batch="n", slope=0.2, tail="shared")
    changed = rewrite_prelu(plain)
    assert "LeakyRelu" in {node.op_type for node in changed.graph.node}
    np.testing.assert_allclose(
        run_graph(changed, images(2)), run_graph(plain, images(2)), atol=1e-6
    )


def test_weights_listed_as_inputs_do_not_become_inputs(recogniser):
    model = recogniser(slope=SLOPES[0])
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    assert list(read_shape(rewrite_prelu(model)).inputs) == ["x"]


def test_prelu_over_vectors_is_left(run_graph):
    slope = numpy_helper.from_array(np.array([0.1, 0.2, 0.3, 0.4], np.float32), "slope")
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["x", "slope"], ["y"])],
        "vector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [slope],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert rewrite_prelu(model).graph.node[0].op_type == "PRelu"


def test_unknown_form(recogniser):
    with pytest.raises(InputError, match="did you mean 'split'"):
        rewrite_prelu(recogniser(), "splitt")


@settings(max_examples=20, deadline=None)
@given(
    slope=st.floats(-2, 1, width=32),
    x=st.floats(-100, 100, width=32),
)
def test_identity_of_the_split_form(slope, x):
    """a·x + relu((1 - a)·x) is PReLU for every slope up to 1."""
    prelu = x if x >= 0 else slope * x
    assert slope * x + max((1 - slope) * x, 0) == pytest.approx(prelu, abs=1e-4)


def test_not_an_onnx_file(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="must be an ONNX file"):
        load_graph(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="does not exist"):
        load_graph(tmp_path / "b.onnx")
