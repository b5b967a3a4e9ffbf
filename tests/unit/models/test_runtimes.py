import importlib.util
import subprocess
import sys

import numpy as np
import onnx
import pytest

from facerec.checks import InputError
from facerec.models.runtimes import build_session, pick_runtime, prepare_graph
from facerec.models.sessions import relative_difference
from facerec.models.store import read_bare

RUNTIMES = ("onnxruntime", "openvino")
SLOPE = [0.1, 0.25, 0.5, 0.9]


def images(n, side=16):
    return np.random.default_rng(1).uniform(-1, 1, (n, 3, side, side)).astype(np.float32)


@pytest.fixture
def artefact(tmp_path, recogniser):
    def build(**options):
        path = tmp_path / "net.onnx"
        onnx.save(recogniser(**{"slope": SLOPE, **options}), str(path))
        return read_bare(path)

    return build


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch": "n", "tail": "flatten"}, {"batch": "n"}, {"tail": "squeeze"}],
    ids=["fixed", "free", "free but folded", "built in"],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_any_batch_gives_what_single_images_give(artefact, run_graph, runtime, options, threads):
    model = artefact(**options)
    plain = onnx.load(str(model.graph))
    batch = images(11)
    expected = np.concatenate([run_graph(plain, batch[i : i + 1]) for i in range(11)])
    session = build_session(model, runtime, threads)
    assert session.name == runtime
    for n in (1, 2, 4, 11):
        got = session.run(batch[:n])
        assert got.shape == (n, 8) and got.dtype == np.float32
        assert relative_difference(got, expected[:n]) < 1e-5
    built_in = options.get("tail") == "squeeze"
    assert session.fixed_batch == (1 if built_in else None)
    assert bool(session.note) == built_in


def test_file_without_need_is_opened_as_it_is(artefact, tmp_path):
    model = artefact(batch="n", tail="flatten")
    graph = onnx.load(str(model.graph))
    del graph.graph.node[1]
    graph.graph.node[1].input[0] = "a"
    onnx.save(graph, str(model.graph))
    assert prepare_graph(model.graph, "split").source == model.graph


def test_batch_of_two_is_refused(artefact):
    with pytest.raises(InputError, match="free batch axis"):
        build_session(artefact(batch=2), "onnxruntime")


def test_auto_takes_what_is_installed(monkeypatch):
    real = importlib.util.find_spec
    gone = {"openvino"}
    assert pick_runtime("auto") == "openvino"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in gone else real(n))
    assert pick_runtime("auto") == "onnxruntime"
    gone.add("onnxruntime")
    assert pick_runtime("auto") == "torch"
    with pytest.raises(InputError, match="runtime must be one of"):
        pick_runtime("onyx")


def test_torch_without_its_weights_names_the_others(artefact):
    with pytest.raises(InputError, match="--runtime onnxruntime or openvino"):
        build_session(artefact(), "torch")


def test_threads_below_one(artefact):
    with pytest.raises(InputError, match="threads must be at least 1"):
        build_session(artefact(), "onnxruntime", threads=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small MobileFaceNet with uneven slopes, as an export of ours leaves it."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from facerec.models import build_backbone
    from facerec.models.weights import Artefact, ModelInfo, hash_model

    torch.manual_seed(0)
    args = {"embedding_dim": 16, "blocks": [1, 1, 1, 1], "width": 0.25, "input_size": 32}
    net = build_backbone("mobilefacenet", **args).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.2, 0.9)
    folder = tmp_path_factory.mktemp("artefact")
    torch.onnx.export(
        net,
        (torch.zeros(2, 3, 32, 32),),
        str(folder / "model.onnx"),
        dynamo=False,
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        input_names=["x"],
        output_names=["y"],
    )
    weights = {k: v.contiguous() for k, v in net.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    info = ModelInfo(
        name="small",
        sha256=hash_model(folder / "model.onnx"),
        input_height=32,
        input_width=32,
        training={"backbone": "mobilefacenet", "backbone_args": args},
    )
    return Artefact(folder / "model.onnx", info)


def test_runtimes_agree_on_unit_embeddings(exported):
    batch = images(9, 32)
    units = []
    for runtime in ("torch", *RUNTIMES):
        rows = build_session(exported, runtime).run(batch)
        units.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    for other in units[1:]:
        assert np.abs(other - units[0]).max() < 1e-4


def test_torch_weights_of_another_model_are_refused(exported, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    from facerec.models.weights import Artefact

    shutil.copytree(exported.graph.parent, tmp_path / "a")
    weights = load_file(str(tmp_path / "a" / "model.safetensors"))
    weights["project.weight"] = weights["project.weight"] * 1.01
    save_file(weights, tmp_path / "a" / "model.safetensors")
    with pytest.raises(InputError, match="other embeddings than"):
        build_session(Artefact(tmp_path / "a" / "model.onnx", exported.info), "torch")


def test_a_signal_after_openvino_is_closed_does_not_kill_the_process():
    code = """
import os, signal
from facerec.models.sessions import open_openvino
import onnx
from onnx import TensorProto, helper
value = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("Relu", ["x"], ["y"])], "g",
    [value("x", TensorProto.FLOAT, [1, 3, 4, 4])], [value("y", TensorProto.FLOAT, [1, 3, 4, 4])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
first = open_openvino(model.SerializeToString(), 1, (1, 3, 4, 4))
second = open_openvino(model.SerializeToString(), 1, (1, 3, 4, 4))
del first
del second
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
os.kill(os.getpid(), signal.SIGTERM)
assert seen
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
