import importlib
import sys

import pytest
import torch
from torch.nn.functional import normalize as unit

from facerec import registry
from facerec.checks import InputError, MissingPackageError
from facerec.models import build_backbone
from facerec.models.cost import measure_cost
from facerec.models.sessions import load_backbone
from facerec.models.weights import read_artefact
from facerec.training.export import export_artefact

CNN = {"model": "mobilenetv3_small_050", "embedding_dim": 16, "input_size": 32}
VIT = {"model": "test_vit", "embedding_dim": 16, "input_size": 32}


def test_a_missing_timm_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match="pip install timm"):
        build_backbone("timm", model="resnet18")


def test_pretrained_weights_are_refused_before_timm_is_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="pretrained must be False: a backbone downloads nothing"):
        build_backbone("timm", model="resnet18", pretrained=True)


def test_listing_the_backbones_imports_no_timm(monkeypatch):
    name = "facerec.models.timm_adapter"
    monkeypatch.setattr(registry, "BACKBONES", registry.Registry("backbone"))
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.import_module(name)
    assert registry.BACKBONES.names() == ["timm"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "model must be a name from timm.list_models"),
        ({"model": "resnt18"}, "did you mean 'resnet18'"),
        ({"model": "hf-hub:timm/resnet18.a1_in1k"}, "model must be a name"),
        ({"model": "local-dir:somewhere"}, "model must be a name"),
        ({"model": 18}, "model must be a name"),
        ({"model": "resnet18", "img_size": 32}, "no parameter 'img_size'"),
        ({"model": "resnet18", "input_size": 8}, "input_size must lie in"),
        ({"model": "dla34"}, "cannot be built for pictures of 112x112: RuntimeError"),
        ({"model": "maxvit_nano_rw_256"}, "must be divisible by window .*; choose another model"),
    ],
)
def test_bad_arguments_are_named(args, message):
    pytest.importorskip("timm")
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build_backbone("timm", **args)


# A head wider than the last map, a tag in the name, a transformer, one that resizes its windows.
@pytest.mark.parametrize(
    ("model", "width"),
    [
        ("mobilenetv3_small_050", 1024),
        ("resnet18.a1_in1k", 512),
        ("vit_tiny_patch16_224", 192),
        ("swin_tiny_patch4_window7_224", 768),
        ("twins_svt_small", 512),
    ],
)
def test_the_width_of_the_features_is_measured(model, width):
    pytest.importorskip("timm")
    with torch.device("meta"):
        net = build_backbone("timm", model=model, embedding_dim=64)
        assert (net.project.in_features, net.input_size, net.training) == (width, 112, True)
        assert net(torch.empty(2, 3, 112, 112)).shape == (2, 64)
        if model == "swin_tiny_patch4_window7_224":
            with pytest.raises(AssertionError):  # built for 112, not for what its name says
                net(torch.empty(2, 3, 224, 224))


@pytest.mark.parametrize("args", [CNN, VIT], ids=["cnn", "vit"])
def test_an_exported_artefact_computes_the_same(args, tmp_path):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    net = build_backbone("timm", **args)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    net(images)
    training = {"backbone": "timm", "backbone_args": args}
    artefact = export_artefact(net, tmp_path / "net", name="net", training=training)
    info = read_artefact(tmp_path / "net").info
    assert info == artefact.info and (info.embedding_dim, info.input_width) == (16, 32)
    assert info.macs == measure_cost(net).macs > 0
    again = load_backbone(artefact)
    with torch.no_grad():
        first, second = unit(net.eval()(images)), unit(again(images))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_a_transformer_learns_all_its_parameters():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    net = build_backbone("timm", **VIT)
    net(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_attention_is_counted_beside_the_layers():
    pytest.importorskip("timm")
    with torch.device("meta"):
        cost = measure_cost(build_backbone("timm", **VIT))
    tokens, width, layers = 4 + 1, 64, 6
    assert cost.other_macs == layers * 2 * tokens * tokens * width
    linear = tokens * (3 + 1 + 3 + 3) * width * width * layers
    assert cost.macs - cost.other_macs == linear + 4 * width * 3 * 16 * 16 + width * 16
    assert "outside layers" in cost.describe()
