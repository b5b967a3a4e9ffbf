import itertools
import math

import pytest
import torch
from torch import nn

from facerec.losses import build_head
from facerec.models import build_backbone
from facerec.training.optim import build_optimizer, lr_at, split_parameters
from facerec.training.settings import OptimSettings


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_weight_decay_leaves_out_norms_slopes_and_biases(name):
    with torch.device("meta"):
        net = build_backbone(name, input_size=32)
        head = build_head("arcface", num_classes=7, embedding_dim=512)
    decayed, plain = split_parameters(net, head)
    expected = {
        id(module.weight) for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    } | {id(head.weight)}
    assert {id(p) for p in decayed} == expected
    every = [p for module in (net, head) for p in module.parameters() if p.requires_grad]
    assert len(decayed) + len(plain) == len(every)
    groups = build_optimizer(OptimSettings(weight_decay=0.25), net, head).param_groups
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0]


def test_cosine_schedule_warms_up_peaks_and_ends_at_its_share():
    settings = OptimSettings(lr=0.4, warmup_epochs=2, final_lr_share=0.1)
    rates = [lr_at(step, settings, 10, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.02, 0.04, 0.06]) and rates[19] == pytest.approx(0.4)
    assert rates[20] == pytest.approx(0.4) and rates[60] == pytest.approx(0.22)
    assert all(a >= b for a, b in itertools.pairwise(rates[20:]))
    assert lr_at(100, settings, 10, 100) == pytest.approx(0.04)


def test_step_schedule():
    settings = OptimSettings(
        lr=1.0, warmup_epochs=0, schedule="step", milestones_epochs=(2, 3.5), gamma=0.1
    )
    rates = [lr_at(step, settings, 10, 100) for step in (0, 19, 20, 34, 35, 99)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_warm_up_longer_than_the_run_only_rises():
    settings = OptimSettings(lr=1.0, warmup_epochs=50)
    rates = [lr_at(step, settings, 2, 6) for step in range(6)]
    assert rates == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert all(math.isfinite(rate) for rate in rates)
