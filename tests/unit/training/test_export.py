import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from facerec.models import build_backbone
from facerec.models.weights import read_artefact
from facerec.training import export
from facerec.training.export import ParityError, export_artefact

ARGS = {"embedding_dim": 16, "blocks": [1, 1, 1, 1], "width": 0.25, "input_size": 48}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    backbone = build_backbone("mobilefacenet", **ARGS)
    for module in backbone.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.2, 1.2)
    backbone.train()(torch.randn(16, 3, 48, 48))
    return backbone


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_artefact_computes_what_the_backbone_computes(tmp_path, net):
    training = {"backbone": "mobilefacenet", "backbone_args": ARGS}
    artefact = export_artefact(net, tmp_path / "m", name="tiny", licence="MIT", training=training)
    assert net.training, "the caller's net is left as it was"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "model.json",
        "model.onnx",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    info = read_artefact(tmp_path / "m").info
    assert info == artefact.info
    assert (info.embedding_dim, info.input_height, info.licence) == (16, 48, "MIT")
    assert info.params == sum(p.numel() for p in net.parameters()) and info.macs > 0
    assert (info.mean, info.std, info.channel_order) == (127.5, 127.5, "rgb")

    graph = onnx.load(str(artefact.graph))
    assert "PRelu" not in {node.op_type for node in graph.graph.node}
    session = onnxruntime.InferenceSession(str(artefact.graph))
    again = build_backbone(info.training["backbone"], **info.training["backbone_args"])
    again.load_state_dict(load_file(tmp_path / "m" / "model.safetensors"))
    again.eval()
    for count in (1, 3, 7):
        images = torch.rand(count, 3, 48, 48) * 2 - 1
        with torch.inference_mode():
            expected = again(images).numpy()
        found = session.run(None, {"images": images.numpy()})[0]
        assert np.abs(unit(found) - unit(expected)).max() < 1e-5


def test_nothing_appears_when_graph_and_backbone_differ(tmp_path, net, monkeypatch):
    write = export.write_graph

    def write_wrong(other, path):
        changed = build_backbone("mobilefacenet", **ARGS).eval()
        write(changed, path)

    monkeypatch.setattr(export, "write_graph", write_wrong)
    with pytest.raises(ParityError, match="nothing was written"):
        export_artefact(net, tmp_path / "m", name="tiny")
    assert list(tmp_path.iterdir()) == []


def test_nan_weights_fail_the_export(tmp_path):
    bad = build_backbone("mobilefacenet", **ARGS)
    bad.project.weight.data[0, 0] = float("nan")
    with pytest.raises(ParityError, match="nan"):
        export_artefact(bad, tmp_path / "m", name="tiny")
    assert list(tmp_path.iterdir()) == []


def test_an_older_artefact_is_replaced_only_by_a_whole_one(tmp_path, net, monkeypatch):
    first = export_artefact(net, tmp_path / "m", name="first")
    monkeypatch.setattr(export, "write_info", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        export_artefact(net, tmp_path / "m", name="second")
    assert read_artefact(tmp_path / "m").info == first.info
    monkeypatch.undo()
    export_artefact(net, tmp_path / "m", name="third")
    assert read_artefact(tmp_path / "m").info.name == "third"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
