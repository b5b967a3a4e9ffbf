import subprocess
import sys

import pytest
import torch
from torch.nn.functional import normalize as unit

from facerec.checks import InputError
from facerec.models import backbone_names, build_backbone

TINY = {"mobilefacenet": {"blocks": (2, 1, 1, 1), "width": 0.25, "input_size": 48}}


def build_small(name, **args):
    small = {"input_size": 32, **TINY.get(name, {}), "embedding_dim": 16, **args}
    torch.manual_seed(0)
    return build_backbone(name, **small)


def cosines(first, second):
    """Sums in another order differ by more the deeper a net of random weights is."""
    return (unit(first.double()) * unit(second.double())).sum(dim=1)


@pytest.mark.parametrize("name", backbone_names())
def test_conformance(name, monkeypatch):
    """Every backbone: a new one is tested by being registered."""
    # Narrow IResNets: they differ in depth, and 200 layers at full width take seconds.
    monkeypatch.setattr("facerec.models.iresnet._WIDTHS", (8, 16, 16, 32))
    net, other = build_small(name), build_small(name)
    first = net.state_dict()
    assert all(torch.equal(first[key], value) for key, value in other.state_dict().items())
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # one batch must do: a tenth of it overflows in 200 layers
    size = net.input_size
    images = torch.rand(3, 3, size, size) * 2 - 1
    embeddings = net(images)
    assert embeddings.shape == (3, net.embedding_dim) and embeddings.isfinite().all()
    embeddings.square().sum().backward()
    for key, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    net.eval()
    with torch.inference_mode():
        whole = net(images)
        assert cosines(net(images[1:2]), whole[1:2]).min() > 1 - 1e-5
        assert torch.equal(net(images), whole)
        other.load_state_dict(net.state_dict())
        assert torch.equal(other.eval()(images), whole)
        layout = net.to(memory_format=torch.channels_last)
        assert cosines(layout(images), whole).min() > 1 - 1e-5


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


def test_relu_has_no_slopes():
    net = build_small("mobilefacenet", activation="relu")
    assert not any(isinstance(module, torch.nn.PReLU) for module in net.modules())


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("mobilfacenet", {}, "did you mean 'mobilefacenet'"),
        ("mobilefacenet", {"widht": 2}, "did you mean 'width'"),
        ("iresnet18", {"width": 2}, "no argument 'width'"),
        ("mobilefacenet", {"width": 0}, "width must lie in"),
        ("mobilefacenet", {"blocks": (0, 1, 1, 1)}, "blocks must be four counts"),
        ("mobilefacenet", {"blocks": (1, 4)}, "blocks must be four counts"),
        ("mobilefacenet", {"activation": "gelu"}, "activation must be one of"),
        ("iresnet18", {"dropout": 1.0}, "dropout must lie in"),
        ("iresnet18", {"input_size": 8}, "input_size must lie in"),
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
