import pytest
import torch
from torch import nn

from facerec.models import build_backbone
from facerec.models.cost import count_params, measure_cost

# METHODS section 10 gives millions to three digits; the integers follow from the structure:
# name, arguments, params, MACs, official LFR FLOPs, and the three as the table has them.
Y2_SE = {"attention": "se"}  # r 4 in every bottleneck; the table's LFR figure leaves it out
TABLE = [
    ("mobilefacenet_y1", {"embedding_dim": 128}, 1_003_136, 220_965_376, "1.003 221.0 439.8"),
    ("mobilefacenet_y1", {}, 1_200_512, 221_161_984, "1.201 221.2 440.2"),
    ("mobilefacenet_y2", {"embedding_dim": 256}, 1_996_032, 468_825_088, "1.996 468.8 933.3"),
    ("mobilefacenet_y2", {}, 2_127_616, 468_956_160, "2.128 469.0 933.6"),
    ("mobilefacenet_y2", Y2_SE, 3_026_432, 469_853_184, "3.026 469.9 -"),
    ("mbf", {}, 2_059_520, 437_520_896, "2.060 437.5 872"),
    ("mbf_large", {}, 6_314_880, 1_816_482_816, "6.315 1816 3624"),
    ("iresnet18", {}, 24_025_600, 2_609_954_816, "24.026 2.610 5.2"),
    ("iresnet34", {}, 34_139_328, 4_459_642_880, "34.139 4.460 8.9"),
    ("iresnet50", {}, 43_590_848, 6_309_330_944, "43.591 6.309 12.6"),
    ("iresnet100", {}, 65_156_160, 12_089_606_144, "65.156 12.090 24.2"),
    ("iresnet200", {}, 118_833_920, 23_418_945_536, "118.834 23.419 46.8"),
    ("iresnet100", {"input_size": 128}, 69_088_320, 15_790_505_984, "69.088 15.79 31.6"),
    ("irse50", {}, 43_813_932, 6_309_553_664, "43.814 6.310 12.6"),
    ("irse100", {}, 65_529_076, 12_089_978_368, "65.529 12.090 24.2"),
]
# Width, depth, side: luzai's grid. Parameters, MACs and LFR FLOPs in millions.
GRID = [
    (1.0, 1.0, 112, 1_348_288, 273_445_376, "1.348 273.4 544"),
    (1.0, 2.25, 112, 2_364_224, 540_118_272, "2.364 540 1075"),
    (1.1, 1.86, 112, 2_539_704, 572_782_512, "2.540 573 1141"),
    (1.2, 1.56, 112, 2_773_080, 632_434_992, "2.773 632 1260"),
    (1.3, 1.33, 112, 2_740_136, 650_564_656, "2.740 651 1296"),
    (1.4, 1.15, 112, 2_993_632, 711_017_208, "2.994 711 1417"),
    (1.5, 1.0, 112, 2_765_344, 602_843_904, "2.765 603 1202"),
    (1.3, 2, 112, 3_514_296, 818_579_776, "3.514 819 1631"),
    (1.3, 2, 128, 3_524_376, 1_069_060_096, "3.524 1069 2131"),
]


def bottleneck(i, o, g):
    """Count convolution + BN (2) + PReLU (1) a channel."""
    return i * g + 3 * g + 9 * g + 3 * g + g * o + 2 * o


def mobile_params(d, blocks, narrow=64, middle=128, groups=64, first=64):
    """Count y1, y2, mbf or mbf_large by hand."""
    start = 9 * narrow * narrow // groups + 3 * narrow
    if blocks[0] > 1:
        start = blocks[0] * bottleneck(narrow, narrow, first)
    stages = bottleneck(narrow, narrow, 128) * (1 + blocks[1]) + bottleneck(narrow, middle, 256)
    stages += bottleneck(middle, middle, 256) * (blocks[2] + blocks[3])
    stages += bottleneck(middle, middle, 512)
    ends = 27 * narrow + 3 * narrow + middle * 512 + 3 * 512 + 49 * 512 + 2 * 512 + 512 * d + 2 * d
    return start + stages + ends


def iresnet_params(units, side, reduction=None):
    """Count by hand: unit = BN, conv, BN, PReLU, conv, BN and the shortcut of each first one."""
    total, i = 27 * 64 + 3 * 64, 64
    for count, o in zip(units, (64, 128, 256, 512), strict=True):
        for position in range(count):
            total += 2 * i + 9 * i * o + 3 * o + 9 * o * o + 2 * o
            total += i * o + 2 * o if position == 0 else 0
            if reduction:
                total += 2 * o * o // reduction + o // reduction
            i = o
    return total + 2 * 512 + 512 * side * side * 512 + 512 + 2 * 512


def measure(name, **args):
    # Large ones by their shapes, weights and pictures without memory behind them. Small ones are
    # faster computed.
    with torch.device("meta" if name.startswith("ir") else "cpu"):
        return measure_cost(build_backbone(name, **args))


def assert_printed(cost, printed):
    """Compare with a row of the table, each figure to the digits it has."""
    params, macs, flops = printed.split()
    unit = 1e9 if float(params) > 20 else 1e6
    pairs = [(cost.params / 1e6, params), (cost.macs / unit, macs), (cost.lfr_flops / unit, flops)]
    for value, text in pairs:
        if text != "-":
            digits = len(text.partition(".")[2])
            assert f"{value:.{digits}f}" == text


@pytest.mark.parametrize(("name", "args", "params", "macs", "printed"), TABLE)
def test_the_table_to_the_unit(name, args, params, macs, printed):
    cost = measure(name, **args)
    assert (cost.params, cost.macs, cost.other_macs) == (params, macs, 0)
    assert_printed(cost, printed)


@pytest.mark.parametrize(("width", "depth", "side", "params", "macs", "printed"), GRID)
def test_the_grid_to_the_unit(width, depth, side, params, macs, printed):
    cost = measure("mobilefacenet_scaled", width=width, depth=depth, input_size=side)
    assert (cost.params, cost.macs) == (params, macs)
    assert_printed(cost, printed)
    # Under the official counter only width 1 up to depth 2 is below the challenge's limit.
    assert (cost.lfr_flops < 1e9) == (width == 1 and depth <= 2)


def test_the_table_by_hand():
    counted = {(name, str(args)): params for name, args, params, _, _ in TABLE}
    from facerec.models.iresnet import UNITS

    assert mobile_params(128, (1, 4, 6, 2)) == 1_003_136
    assert mobile_params(512, (2, 8, 16, 4)) == counted["mobilefacenet_y2", "{}"]
    assert mobile_params(512, (1, 4, 6, 2), 128, 256) == counted["mbf", "{}"]
    large = mobile_params(512, (2, 8, 12, 4), 256, 512, first=128)
    assert large == counted["mbf_large", "{}"]
    for depth, units in UNITS.items():
        assert iresnet_params(units, 7) == counted[f"iresnet{depth}", "{}"]
    assert iresnet_params(UNITS[100], 8) == 69_088_320
    for depth in (50, 100):
        assert iresnet_params(UNITS[depth], 7, 16) == counted[f"irse{depth}", "{}"]


def test_attention_in_y2_by_hand():
    inside = [64] * 2 + [128] * 9 + [256] * 21 + [512]
    plain, attended = measure("mobilefacenet_y2"), measure("mobilefacenet_y2", attention="se")
    weights = sum(2 * c * c // 4 for c in inside)
    assert attended.params - plain.params == weights + sum(c // 4 for c in inside)
    assert attended.macs - plain.macs == weights
    # The table's 933.6 M is the figure without these linear layers.
    assert attended.lfr_flops - plain.lfr_flops == 2 * weights


def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),  # 16 x 16 x 8 values, 27 each
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),  # as many values, 9 each
        nn.Flatten(),
        nn.Linear(2048, 5),
    )


def test_counter_on_a_net_counted_by_hand():
    net = make_net().train()
    net[1].eval()
    cost = measure_cost(net, 32)
    assert cost.macs == 2048 * 27 + 2048 * 9 + 2048 * 5 and cost.other_macs == 0
    assert cost.params == count_params(net) == 3 * 8 * 9 + 8 + 72 + 8 + 2048 * 5 + 5
    # The challenge's rule takes all input channels for a depth-wise convolution, too.
    assert cost.lfr_flops == 53 * 2048 + 143 * 2048 // 8 + 2 * 2048 * 5
    assert net.training and not net[1].training and not net[0]._forward_hooks
    said = cost.describe()
    assert "0.1 M MACs" in said and "0.2 MFLOP as 2xMACs" in said and "LFR" in said
    assert "facerec.models.cost" in said and "outside" not in said


class Attention(nn.Module):
    """Scaled dot-product attention without layers around it, over the rows of a picture."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, images):
        rows = self.layer(images.flatten(1, 2))
        return nn.functional.scaled_dot_product_attention(rows, rows, rows)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_outside_layers_are_counted(device):
    cost = measure_cost(Attention().to(device), 8)
    assert cost.other_macs == 2 * 24 * 24 * 8
    assert cost.macs - cost.other_macs == 24 * 8 * 8 and cost.lfr_flops == 2 * 24 * 8 * 8


def test_a_net_that_fails_is_left_as_it_was():
    net = make_net().train()
    with pytest.raises(RuntimeError):
        measure_cost(net, 16)
    assert net.training and not any(layer._forward_hooks for layer in net)
