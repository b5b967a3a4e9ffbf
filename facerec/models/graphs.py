"""ONNX graph surgery: a dynamic batch axis, PReLU in forms that run fast, shape inspection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of

BATCH_NAME = "batch"
_INT64 = 7  # onnx.TensorProto.INT64
_PREFIX = "facerec_prelu/"
_SLOPE_TAIL = "_slope"
_PARSE_LIMIT = (1 << 31) - 1


@dataclass(frozen=True)
class GraphShape:
    """What a graph takes and gives; an axis that is not fixed is None.

    Attributes:
        inputs: name -> shape of each input that is not a weight.
        outputs: name -> shape of each output, () when the graph does not say.
    """

    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]


def load_graph(path: Path, weights: bool = True) -> Any:
    """Return the `onnx.ModelProto` at `path`.

    Args:
        path: a .onnx file.
        weights: whether external data is read too.

    Raises:
        InputError: missing file, or not an ONNX file.
    """
    import onnx

    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path")
    try:
        return onnx.load(str(path), load_external_data=weights)
    except Exception as error:  # protobuf and onnx raise many kinds for one cause
        raise InputError(f"{path} must be an ONNX file, but cannot be parsed as one") from error


def read_shape(model: Any) -> GraphShape:
    """Return the names and shapes of a model's inputs and outputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: _dims(value) for value in model.graph.input if value.name not in weights}
    return GraphShape(inputs, {value.name: _dims(value) for value in model.graph.output})


def _dims(value: Any) -> tuple[int | None, ...]:
    shape = value.type.tensor_type.shape
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in shape.dim)


def fixed_batch(model: Any) -> int | None:
    """Return the batch size that a model's first input is fixed at, None when it is free."""
    shapes = list(read_shape(model).inputs.values())
    return shapes[0][0] if shapes and shapes[0] else None


def make_batch_dynamic(model: Any) -> Any:
    """Return a copy of a model fixed at batch one whose batch axis is free.

    The first axis of inputs and outputs is renamed, `Reshape` targets that begin with the fixed
    size copy that axis from their input instead, and recorded inner shapes are dropped. This is an
    attempt, not a promise: a graph may hide the batch size elsewhere, so the caller must compare
    the two (`facerec.models.runtimes` does).

    Args:
        model: an `onnx.ModelProto`, weights loaded.

    Raises:
        InputError: the batch is fixed at more than one.
    """
    size = fixed_batch(model)
    if size is not None and size != 1:
        raise InputError(f"only a batch fixed at 1 can be made dynamic, this graph has {size}")
    changed = type(model)()
    changed.CopyFrom(model)
    graph = changed.graph
    weights = {tensor.name for tensor in graph.initializer}
    for value in [*graph.input, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and len(dims):
            dims[0].dim_param = BATCH_NAME
    del graph.value_info[:]
    _free_reshapes(graph)
    return changed


def has_fixed_reshape(model: Any) -> bool:
    """Return whether a Reshape to a constant that begins with 1 folds the batch away.

    Careless exports have one although their input's batch axis is declared free.
    """
    return bool(_find_reshapes(model.graph))


def _find_reshapes(graph: Any) -> dict[int, NDArray[np.int64]]:
    """Return position of a Reshape -> its constant target, where that begins with 1."""
    from onnx import numpy_helper

    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == _INT64 and len(tensor.dims) == 1
    }
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type == _INT64:
                    constants[node.output[0]] = numpy_helper.to_array(attribute.t)
                elif attribute.name == "value_ints":
                    constants[node.output[0]] = np.array(attribute.ints, np.int64)
    found = {}
    for index, node in enumerate(graph.node):
        target = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is not None and target.ndim == 1 and len(target) > 1 and target[0] == 1:
            found[index] = target
    return found


def _free_reshapes(graph: Any) -> None:
    """Give every Reshape whose constant target begins with 1 a target that keeps the batch."""
    from onnx import helper

    for index, target in _find_reshapes(graph).items():
        node = graph.node[index]
        for attribute in node.attribute:
            # With allowzero a 0 would mean an empty axis instead of "copy from the input".
            if attribute.name == "allowzero":
                attribute.i = 0
        # A target of its own: the old one may be shared with a node that means it.
        name = f"facerec_reshape_{index}"
        freed = [0, *target[1:].tolist()]
        graph.initializer.append(helper.make_tensor(name, _INT64, [len(freed)], freed))
        node.input[1] = name


def rewrite_prelu(model: Any, form: str = "split") -> Any:
    """Return a copy of a model whose channel-wise PReLUs are written in operators that run fast.

    ONNX Runtime's PRelu kernel is slow and leaves its blocked memory layout. Exact identities:

    - "split", for ONNX Runtime: a·x + relu((1 - a)·x) for slopes a <= 1, the products as depth-wise
      1x1 convolutions. These stay in the blocked layout, and ReLU and sum fuse into them. Slopes
      over 1 take a·x + (1 - a)·relu(x).
    - "max", for OpenVINO: max(x, a·x) for slopes in [0, 1]; other PReLUs stay as they are.

    A slope shared by all channels becomes a LeakyRelu, which both fuse. What a "split" wrote is
    found again by its node names, so a rewritten export can be brought into the other form. PReLUs
    over other than (n, c, h, w) maps, or with slopes that are not constant, stay.

    Args:
        model: an `onnx.ModelProto`, weights loaded.
        form: "split" or "max".

    Raises:
        InputError: another form.
    """
    check_one_of(form, "form", ("split", "max"))
    changed = type(model)()
    changed.CopyFrom(model)
    writer = _PreluWriter(changed.graph, form)
    nodes: list[Any] = []
    for node in changed.graph.node:
        nodes.extend(writer.rewrite(node))
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    writer.finish()
    return changed


def count_prelu(model: Any) -> int:
    """Return how many PReLUs a graph has, those that `rewrite_prelu` has split included."""
    return sum(
        node.op_type == "PRelu" or node.name.endswith(_SLOPE_TAIL) for node in model.graph.node
    )


class _PreluWriter:
    """Turns the PReLU nodes of one graph into another form, node by node."""

    def __init__(self, graph: Any, form: str) -> None:
        from onnx import helper, numpy_helper

        self._node = helper.make_node
        self._tensor = numpy_helper.from_array
        self._graph = graph
        self._form = form
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._array = numpy_helper.to_array
        self._added: list[Any] = []
        self._split = _find_split(graph) if form == "max" else {}
        self._inner = {name for group in self._split.values() for name in group.inner}

    def rewrite(self, node: Any) -> list[Any]:
        """Return the nodes that take the place of `node`, itself where nothing is to be done."""
        if node.name in self._inner:
            return []
        if node.name in self._split:
            group = self._split[node.name]
            slope = self._array(self._weights[group.weight]).reshape(-1)
            return self._write(group.source, node.output[0], slope, node.name)
        if node.op_type != "PRelu" or node.input[1] not in self._weights:
            return [node]
        slope = self._array(self._weights[node.input[1]])
        channels = slope.shape[-3] if slope.ndim in (3, 4) else 0
        if slope.size == 1:
            slope = slope.reshape(1)
        elif slope.size != channels:
            return [node]
        name = f"{_PREFIX}{node.name or node.output[0]}"
        return self._write(node.input[0], node.output[0], slope.reshape(-1), name) or [node]

    def _write(self, source: str, target: str, slope: NDArray[np.float32], name: str) -> list[Any]:
        if slope.size == 1:
            return [self._node("LeakyRelu", [source], [target], name=name, alpha=float(slope[0]))]
        if self._form == "max":
            if slope.min() < 0 or slope.max() > 1:
                return self._keep(source, target, slope, name)
            factor = self._add(f"{name}_factor", slope.reshape(1, -1, 1, 1))
            scaled = f"{name}_scaled"
            return [
                self._node("Mul", [source, factor], [scaled], name=f"{name}_mul"),
                self._node("Max", [source, scaled], [target], name=f"{name}_max"),
            ]
        rest, part, bend = f"{name}_rest", f"{name}_part", f"{name}_bend"
        straight = self._scale(source, part, slope, name + _SLOPE_TAIL)
        if slope.max() <= 1:
            bent = [
                self._scale(source, rest, 1 - slope, f"{name}_scale"),
                self._node("Relu", [rest], [bend], name=f"{name}_relu"),
            ]
        else:
            bent = [
                self._node("Relu", [source], [rest], name=f"{name}_relu"),
                self._scale(rest, bend, 1 - slope, f"{name}_scale"),
            ]
        return [*bent, straight, self._node("Add", [part, bend], [target], name=name)]

    def _keep(self, source: str, target: str, slope: NDArray[np.float32], name: str) -> list[Any]:
        weight = self._add(f"{name}_prelu", slope.reshape(1, -1, 1, 1))
        return [self._node("PRelu", [source, weight], [target], name=name)]

    def _scale(self, source: str, target: str, factor: NDArray[np.float32], name: str) -> Any:
        """Return a depth-wise 1x1 convolution that multiplies each channel by its factor."""
        weight = self._add(f"{name}_weight", factor.reshape(-1, 1, 1, 1))
        return self._node(
            "Conv", [source, weight], [target], name=name, group=factor.size, kernel_shape=[1, 1]
        )

    def _add(self, name: str, values: NDArray[np.float32]) -> str:
        self._added.append(self._tensor(np.ascontiguousarray(values, np.float32), name))
        return name

    def finish(self) -> None:
        """Enter the new weights and drop those that nothing reads any more."""
        used = {name for node in self._graph.node for name in node.input}
        for node in self._graph.node:  # a sub-graph may read any weight of the outer one
            if any(a.g.node or a.graphs for a in node.attribute):
                used |= set(self._weights)
        used |= {value.name for value in self._graph.output}
        kept = [t for t in [*self._graph.initializer, *self._added] if t.name in used]
        dropped = set(self._weights) - used
        # Old graphs list their weights as inputs too.
        inputs = [value for value in self._graph.input if value.name not in dropped]
        del self._graph.initializer[:], self._graph.input[:]
        self._graph.initializer.extend(kept)
        self._graph.input.extend(inputs)


@dataclass(frozen=True)
class _SplitGroup:
    source: str
    weight: str
    inner: tuple[str, ...]


def _find_split(graph: Any) -> dict[str, _SplitGroup]:
    """Return name of the closing Add -> what `rewrite_prelu` wrote before it."""
    nodes = {node.name: node for node in graph.node if node.name.startswith(_PREFIX)}
    groups = {}
    for name, node in nodes.items():
        parts = tuple(name + tail for tail in (_SLOPE_TAIL, "_scale", "_relu"))
        if node.op_type == "Add" and all(part in nodes for part in parts):
            slope = nodes[parts[0]]
            groups[name] = _SplitGroup(slope.input[0], slope.input[1], parts)
    return groups


def serialize(model: Any) -> bytes | None:
    """Return a model as one block of bytes, or None when it is over protobuf's 2 GiB."""
    if model.ByteSize() > _PARSE_LIMIT:
        return None
    data: bytes = model.SerializeToString()
    return data
