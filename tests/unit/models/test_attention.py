import pytest
import torch
from torch import nn

from facerec.checks import InputError
from facerec.models.attention import CBAM, ChannelGate, SqueezeExcite, build_attention
from facerec.models.iresnet import ResidualUnit
from facerec.models.mobilefacenet import Bottleneck, Style


def make_maps(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("attention", "factor"), [("se", 0.5), ("se_x2", 1.0)])
def test_zero_logits_halve_or_keep(attention, factor):
    """METHODS section 4: W2 = 0 -> x / 2, or x with the doubled weight."""
    maps = make_maps(2, 8, 5, 3)
    attend = build_attention(attention, 8, 4).double()
    nn.init.zeros_(attend.gate.excite.weight)
    assert torch.equal(attend(maps), maps * factor)


def test_squeeze_and_excitation_by_hand():
    attend = SqueezeExcite(2, 1)
    attend.gate.squeeze.weight.data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    attend.gate.excite.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # Means 2 and -3: hidden (2, -1), PReLU (2, -0.25), logits (2, -0.5).
    maps = torch.tensor([[[[1.0, 3.0]], [[-3.0, -3.0]]]])
    first, second = torch.sigmoid(torch.tensor([2.0, -0.5]))
    expected = torch.stack([maps[0, 0] * first, maps[0, 1] * second])[None]
    torch.testing.assert_close(attend(maps), expected)


def test_cbam_is_its_formula():
    maps = make_maps(3, 8, 6, 6)
    attend = CBAM(8, 2).double().eval()
    attend.places[1].running_mean.fill_(0.1)
    gate = attend.gate
    found = attend(maps)
    mean, peak = maps.flatten(2).mean(2), maps.flatten(2).max(2).values
    scaled = maps * torch.sigmoid(gate(mean) + gate(peak)).view(3, 8, 1, 1)
    seen = torch.stack([scaled.mean(1), scaled.max(1).values], 1)
    kernel = attend.places[0].weight
    logits = nn.functional.conv2d(seen, kernel, padding=3)
    places = torch.sigmoid((logits - 0.1) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(found, scaled * places)


@pytest.mark.parametrize("attention", ["se", "se_x2", "cbam"])
def test_gradients(attention):
    torch.manual_seed(0)
    attend = build_attention(attention, 4, 2).double().eval()
    maps = make_maps(2, 4, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(attend, (maps,))
    attend(maps).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in attend.parameters())


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(64, 16, 4), (8, 16, 1), (10, 4, 2)])
def test_the_gate_has_no_biases_and_at_least_one_value_inside(channels, reduction, hidden):
    gate = ChannelGate(channels, reduction)
    assert sum(p.numel() for p in gate.parameters()) == 2 * channels * hidden + hidden


def test_the_place_in_a_residual_unit_is_before_the_addition():
    torch.manual_seed(0)
    unit = ResidualUnit(8, 8, 1, "se", 2).eval()
    plain = ResidualUnit(8, 8, 1).eval()
    assert plain.load_state_dict(unit.state_dict(), strict=False).missing_keys == []
    nn.init.zeros_(unit.body[-1].gate.excite.weight)
    maps = make_maps(2, 8, 4, 4).float()
    with torch.no_grad():
        torch.testing.assert_close(unit(maps), maps + (plain(maps) - maps) / 2)


def test_the_place_in_a_bottleneck_is_after_the_depthwise_batch_norm():
    body = Bottleneck(8, 8, 16, 1, Style(attention="se", reduction=4)).body
    kinds = [type(layer) for layer in body[1]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, SqueezeExcite, nn.PReLU]
    assert body[1][2].gate.squeeze.weight.shape == (4, 16)
    assert len(body[0]) == 3 and len(body[2]) == 2


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_a_constant_map_is_no_special_case(attention):
    attend = build_attention(attention, 4, 2)
    maps = torch.ones(2, 4, 1, 1, requires_grad=True)
    attend(maps).sum().backward()
    assert maps.grad.isfinite().all()


def test_names_and_reductions():
    assert build_attention("none", 8, 4) is None
    with pytest.raises(InputError, match=r"attention must be one of .* did you mean 'cbam'"):
        build_attention("cbma", 8, 4)
    with pytest.raises(InputError, match="reduction must be a number"):
        build_attention("none", 8, "4")
