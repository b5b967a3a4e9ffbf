import pytest
import torch
from torch import nn

from facerec.models import build_backbone
from facerec.models.cost import count_params, measure_cost

# METHODS section 10 gives millions to three digits; the integers follow from the structure.
MOBILE = [
    ({"embedding_dim": 128}, 1_003_136, 220_965_376, "1.003", "221.0"),
    ({"embedding_dim": 512}, 1_200_512, 221_161_984, "1.201", "221.2"),
    ({"embedding_dim": 256, "blocks": (2, 8, 16, 4)}, 1_996_032, 468_825_088, "1.996", "468.8"),
    ({"embedding_dim": 512, "blocks": (2, 8, 16, 4)}, 2_127_616, 468_956_160, "2.128", "469.0"),
]
IRESNET = [
    (18, 112, 24_025_600, 2_609_954_816, "24.026", "2.610"),
    (34, 112, 34_139_328, 4_459_642_880, "34.139", "4.460"),
    (50, 112, 43_590_848, 6_309_330_944, "43.591", "6.309"),
    (100, 112, 65_156_160, 12_089_606_144, "65.156", "12.090"),
    (200, 112, 118_833_920, 23_418_945_536, "118.834", "23.419"),
    (100, 128, 69_088_320, 15_790_505_984, "69.088", "15.79"),
]


def mobile_params(d, blocks):
    """Count y1 or y2 by hand: convolution + BN (2) + PReLU (1) a channel."""

    def bottleneck(i, o, g):
        return i * g + 3 * g + 9 * g + 3 * g + g * o + 2 * o

    first = 9 * 64 + 3 * 64 if blocks[0] == 1 else blocks[0] * bottleneck(64, 64, 64)
    stages = bottleneck(64, 64, 128) * (1 + blocks[1]) + bottleneck(64, 128, 256)
    stages += bottleneck(128, 128, 256) * (blocks[2] + blocks[3]) + bottleneck(128, 128, 512)
    ends = 27 * 64 + 3 * 64 + 128 * 512 + 3 * 512 + 49 * 512 + 2 * 512 + 512 * d + 2 * d
    return first + stages + ends


def iresnet_params(units, side):
    """Count by hand: unit = BN, conv, BN, PReLU, conv, BN and the shortcut of each first one."""
    total, i = 27 * 64 + 3 * 64, 64
    for count, o in zip(units, (64, 128, 256, 512), strict=True):
        for position in range(count):
            total += 2 * i + 9 * i * o + 3 * o + 9 * o * o + 2 * o
            total += i * o + 2 * o if position == 0 else 0
            i = o
    return total + 2 * 512 + 512 * side * side * 512 + 512 + 2 * 512


def measure(name, size, **args):
    # Shapes suffice: weights and pictures without memory behind them.
    with torch.device("meta"):
        net = build_backbone(name, input_size=size, **args)
        return measure_cost(net), net


@pytest.mark.parametrize(("args", "params", "macs", "params_m", "macs_m"), MOBILE)
def test_mobilefacenet_matches_the_table_to_the_unit(args, params, macs, params_m, macs_m):
    cost, _ = measure("mobilefacenet", 112, **args)
    assert (cost.params, cost.macs) == (params, macs)
    assert params == mobile_params(args["embedding_dim"], args.get("blocks", (1, 4, 6, 2)))
    assert (f"{params / 1e6:.3f}", f"{macs / 1e6:.1f}") == (params_m, macs_m)


@pytest.mark.parametrize(("depth", "size", "params", "macs", "params_m", "macs_g"), IRESNET)
def test_iresnet_matches_the_table_to_the_unit(depth, size, params, macs, params_m, macs_g):
    from facerec.models.iresnet import UNITS

    cost, _ = measure(f"iresnet{depth}", size)
    assert (cost.params, cost.macs) == (params, macs)
    assert params == iresnet_params(UNITS[depth], size // 16)
    digits = len(macs_g.split(".")[1])
    assert (f"{params / 1e6:.3f}", f"{macs / 1e9:.{digits}f}") == (params_m, macs_g)


def test_counter_on_a_net_counted_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),  # 16 x 16 x 8 values, 27 each
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),  # as many values, 9 each
        nn.Flatten(),
        nn.Linear(2048, 5),
    ).train()
    net[1].eval()
    cost = measure_cost(net, 32)
    assert cost.macs == 2048 * 27 + 2048 * 9 + 2048 * 5
    assert cost.params == count_params(net) == 3 * 8 * 9 + 8 + 72 + 8 + 2048 * 5 + 5
    assert net.training and not net[1].training and not net[0]._forward_hooks
    said = cost.describe()
    assert "0.1 M MACs" in said and "2xMACs" in said and "facerec.models.cost" in said
