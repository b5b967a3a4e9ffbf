import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import normalize as unit

from facerec.checks import InputError
from facerec.models import backbone_names, build_backbone
from facerec.models.mobilefacenet import StridedDepthwise
from facerec.training.export import check_parity, write_graph

TINY = {
    "mobilefacenet": {"blocks": (2, 1, 1, 1), "width": 0.25, "input_size": 48},
    "mobilefacenet_y1": {"width": 0.25},
    "mobilefacenet_y2": {"width": 0.25, "attention": "cbam"},
    "mobilefacenet_scaled": {"width": 0.25, "depth": 0.5},
    "mbf": {"blocks": (1, 1, 1, 1), "attention": "se"},
    "mbf_large": {"blocks": (2, 1, 1, 1)},
    "timm": {"model": "mobilenetv3_small_050"},
}
SMALL = (  # those that are exported and trained in half precision
    ("mobilefacenet", {"attention": "se"}),
    ("mobilefacenet_scaled", {"attention": "cbam", "activation": "relu"}),
    ("mbf", {}),
    ("iresnet18", {}),
    ("iresnet18", {"attention": "cbam"}),
    ("iresnet18", {"attention": "se_x2"}),
)


@pytest.fixture(autouse=True)
def narrow_iresnets(monkeypatch):
    """IResNets differ in depth, and 200 layers at full width take seconds."""
    monkeypatch.setattr("facerec.models.iresnet._WIDTHS", (8, 16, 16, 32))


def build_small(name, **args):
    if name == "timm":
        pytest.importorskip("timm")
    small = {"input_size": 32, **TINY.get(name, {}), "embedding_dim": 16, **args}
    torch.manual_seed(0)
    return build_backbone(name, **small)


def make_images(net, count=3):
    return torch.rand(count, 3, net.input_size, net.input_size) * 2 - 1


def settle(net, images):
    """Give the batch norms statistics of one batch, so that evaluation is as sane as training."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # a tenth of one batch overflows in 200 layers
    return net(images)


def cosines(first, second):
    """Sums in another order differ by more the deeper a net of random weights is."""
    return (unit(first.double()) * unit(second.double())).sum(dim=1)


@pytest.mark.parametrize("name", backbone_names())
def test_conformance(name):
    """Every backbone: a new one is tested by being registered."""
    net, other = build_small(name), build_small(name)
    first = net.state_dict()
    assert all(torch.equal(first[key], value) for key, value in other.state_dict().items())
    images = make_images(net)
    embeddings = settle(net, images)
    assert embeddings.shape == (3, net.embedding_dim) and embeddings.dtype == torch.float32
    assert embeddings.isfinite().all()
    embeddings.square().sum().backward()
    for key, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    net.eval()
    with torch.inference_mode():
        whole = net(images)
        assert whole.isfinite().all() and not torch.equal(whole[0], whole[1])
        assert cosines(net(images[1:2]), whole[1:2]).min() > 1 - 1e-5
        assert torch.equal(net(images), whole)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(images)
        assert half.shape == whole.shape and half.isfinite().all()
        other.load_state_dict(safetensors.torch.load(safetensors.torch.save(net.state_dict())))
        assert torch.equal(other.eval()(images), whole)
        layout = net.to(memory_format=torch.channels_last)
        assert cosines(layout(images), whole).min() > 1 - 1e-5


@pytest.mark.parametrize(("name", "args"), SMALL)
def test_an_exported_graph_computes_the_same(name, args, tmp_path):
    net = build_small(name, **args)
    with torch.no_grad():
        settle(net, make_images(net))
    write_graph(net.eval(), tmp_path / "model.onnx")
    assert check_parity(net, tmp_path / "model.onnx", 1e-4) <= 1e-4


@pytest.mark.parametrize(("name", "args"), SMALL)
def test_no_step_depends_on_what_the_pictures_hold(name, args):
    """A tensor without values is refused by any Python that would look at them."""
    with torch.device("meta"):
        net = build_small(name, **args)
        assert net(torch.empty(2, 3, net.input_size, net.input_size)).shape == (2, 16)


def test_units_compile_without_a_break():
    from facerec.models.iresnet import ResidualUnit
    from facerec.models.mobilefacenet import Bottleneck, Style

    torch.manual_seed(0)
    units = (ResidualUnit(4, 8, 2, "se_x2", 2), Bottleneck(8, 8, 16, 1, Style("prelu", "cbam", 2)))
    net = torch.nn.Sequential(*units).eval()
    maps = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(maps), net(maps))


@pytest.mark.parametrize(("name", "args"), SMALL)
def test_training_in_bfloat16_gives_finite_gradients(name, args):
    net = build_small(name, **args)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = net(make_images(net))
    embeddings.float().square().sum().backward()
    grads = [p.grad for p in net.parameters() if p.requires_grad]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


def test_iresnet_ends_in_a_batch_norm_whose_weight_stays_one():
    net = build_small("iresnet18")
    assert not net.norm.weight.requires_grad and (net.norm.weight == 1).all()
    assert net.norm.bias.requires_grad
    # The stride is on the second convolution of a unit.
    assert net.stages[0].body[1].stride == (1, 1) and net.stages[0].body[4].stride == (2, 2)
    assert isinstance(net.stages[1].shortcut, torch.nn.Identity)


def test_mobilefacenet_ends_in_a_depthwise_convolution_over_the_whole_map():
    for size, kernel in ((112, 7), (56, 4), (48, 3)):
        net = build_small("mobilefacenet", input_size=size)
        pool = net.pool[0]
        assert pool.kernel_size == (kernel, kernel) and pool.groups == pool.in_channels
    net = build_backbone("mobilefacenet", width=0.5)
    assert net.stem[0].out_channels == 32 and net.top[0].out_channels == 256


def test_scaling_rounds_up_and_leaves_the_embedding_alone():
    with torch.device("meta"):
        net = build_backbone("mobilefacenet_scaled", width=1.1, depth=1.15)
        nearest = build_backbone("mobilefacenet", width=1.1)
    wide = [net.stem[0], net.stages[-1].body[0][0], net.top[0]]
    assert [layer.out_channels for layer in wide] == [72, 288, 568]
    assert [nearest.stages[-1].body[0][0].out_channels, net.project.out_features] == [280, 512]
    # 2, 5, 10 and 3 units, and the three that halve the map.
    assert len(net.stages) == 1 + 1 + 5 + 1 + 10 + 1 + 3 and len(net.stages[0]) == 2


def test_mbf_is_wide_between_the_units_only():
    with torch.device("meta"):
        net, large = build_backbone("mbf"), build_backbone("mbf_large")
    assert net.stages[0][0].groups == 64 and net.stages[0][0].in_channels == 128
    inside = {unit.body[0][0].out_channels for unit in net.stages[1:]}
    assert inside == {128, 256, 512} and net.top[0].in_channels == 256
    assert large.stages[0][0].body[0][0].in_channels == 256
    assert large.stages[0][0].body[0][0].out_channels == 128


def test_relu_has_no_slopes():
    net = build_small("mobilefacenet", activation="relu")
    assert not any(isinstance(module, torch.nn.PReLU) for module in net.modules())


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("mobilfacenet", {}, "did you mean 'mobilefacenet'"),
        ("mobilefacenet", {"widht": 2}, "did you mean 'width'"),
        ("iresnet18", {"width": 2}, "no parameter 'width'"),
        ("mobilefacenet", {"width": 0}, "width must lie in"),
        ("mobilefacenet", {"blocks": (0, 1, 1, 1)}, "blocks must be four counts"),
        ("mobilefacenet", {"blocks": (1, 4)}, "blocks must be four counts"),
        ("mobilefacenet", {"activation": "gelu"}, "activation must be one of"),
        ("iresnet18", {"dropout": 1.0}, "dropout must lie in"),
        ("iresnet18", {"input_size": 8}, "input_size must lie in"),
        ("iresnet18", {"embedding_dim": 12.5}, "embedding_dim must be a whole number"),
        ("iresnet18", {"input_size": "112"}, "input_size must be a number"),
        ("irse50", {"attention": "sea"}, "attention must be one of .* did you mean 'se'"),
        ("irse50", {"reduction": 0}, "reduction must lie in"),
        ("mobilefacenet", {"reduction": 2.5}, "reduction must be a whole number"),
        ("mobilefacenet_y1", {"blocks": (1, 4, 6, 2)}, "no parameter 'blocks'"),
        ("mobilefacenet_scaled", {"depth": 0}, "depth must lie in"),
        ("mbf", {"scale": 1.5}, "scale must be a whole number"),
        ("mbf", {"scale": True}, "scale must be a whole number"),
        ("mbf_large", {"blocks": (0, 1, 1, 1)}, "blocks must be four counts"),
    ],
)
def test_bad_arguments_are_named(name, args, message):
    with pytest.raises(InputError, match=message):
        build_backbone(name, **args)


def test_the_packages_load_no_torch_until_something_is_built():
    modules = "facerec.models, facerec.losses, facerec.cli.train"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "blocks", [7, "abcd", [1, 2, 3], [0, 1, 1, 1], [1, "b", 1, 1], [1.5, 1, 1, 1]]
)
def test_blocks_must_be_four_counts(blocks):
    with pytest.raises(InputError, match="blocks must be four counts"):
        build_backbone("mobilefacenet", blocks=blocks)


def test_a_strided_depthwise_convolution_is_float32_under_cpu_autocast() -> None:
    conv = StridedDepthwise(4, 4, 3, 2, 1, groups=4, bias=False)
    features = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(features)
        half = nn.Conv2d(4, 4, 1)(features)
    assert half.dtype == torch.bfloat16
    assert out.dtype == torch.float32
    assert torch.equal(out, conv(features))
