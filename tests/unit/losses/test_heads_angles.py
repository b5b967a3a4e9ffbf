"""Sums of angles: their values, that they fall with the angle all the way, their gradients."""

import math

import pytest
import torch

from facerec.losses import build_head
from facerec.losses.angles import (
    add_angle,
    add_angle_clipped,
    find_angle,
    find_sine,
    multiply_angle,
    subtract_angle,
)

THETA = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
STEP = math.pi / 20000
# Heads whose target depends on the angle: parameters, norm.
TARGETS = [
    *[("arcface", {"margin": m}, None) for m in (0.0, 0.1, 0.5, 1.0, 1.5)],
    *[("sphereface", {"margin": m}, None) for m in (1.0, 1.35, 2.0, 4.0)],
    *[("combined", {"m1": f, "m2": m, "m3": 0.2}, None) for f in (1.0, 2.5) for m in (0.0, 1.5)],
    *[("arcsin", {"margin": m, "offset": 0.3}, None) for m in (0.0, 0.5, 1.0)],
    *[("liarcface", {"margin": m}, None) for m in (0.0, 0.45, 1.5)],
    *[("adamargin", {"margin": m}, None) for m in (0.0, 0.8, 1.5)],
    *[("adaface", {"margin": m, "std": 1.0}, a) for m in (0.4, 1.5) for a in (15, 20, 20.5, 30)],
    *[("magface", {}, a) for a in (5, 10, 60, 110, 150)],
    *[("npcface", {"margin": m}, None) for m in (0.0, 0.4, 1.3)],
    ("adaptiveface", {"kind": "cosine"}, None),
    ("adaptiveface", {"kind": "angular"}, None),
    ("cosface", {"margin": 0.35}, None),
]


@pytest.mark.parametrize(("name", "params", "norm"), TARGETS)
def test_the_target_falls_with_the_angle_and_is_continuous(name, params, norm):
    head = build_head(name, num_classes=2, embedding_dim=4, scale=1.0, **params)
    # The other class beyond all reach: npcface's margin jumps where a negative becomes hard.
    cosine = torch.stack([THETA.cos(), torch.full_like(THETA, -3.0)], dim=1)
    norms = None if norm is None else torch.full_like(THETA, norm)
    value = head.logits(cosine, torch.zeros(len(THETA), dtype=torch.int64), norms)[:, 0]
    assert (value.diff() <= 1e-12).all()
    assert value.diff().abs().max() < 4.01 * STEP  # the largest factor of an angle is 4
    assert value[0] - value[-1] > 0.5


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.0, 1.5])
def test_add_angle_is_the_formula_on_both_sides_of_pi(margin):
    value = add_angle(THETA.cos(), margin)
    below = THETA + margin <= math.pi
    assert torch.allclose(value[below], (THETA + margin).cos()[below], atol=1e-7)
    assert torch.allclose(value[~below], -2 - (THETA + margin).cos()[~below], atol=1e-7)
    margins = torch.full_like(THETA, margin).requires_grad_()
    same = add_angle(THETA.cos(), margins)
    assert torch.allclose(same, value, atol=1e-15)
    same.sum().backward()
    slope = torch.where(below, -(THETA + margin).sin(), (THETA + margin).sin())
    assert torch.allclose(margins.grad, slope, atol=1e-7)


@pytest.mark.parametrize("angle", [-1.5, -0.4, 0.0, 0.4, 1.5])
def test_add_angle_clipped_stays_within_zero_and_pi(angle):
    value = add_angle_clipped(THETA.cos(), torch.tensor(angle, dtype=torch.float64))
    assert torch.allclose(value, (THETA + angle).clamp(0, math.pi).cos(), atol=1e-7)


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.2, 0.5, 1.5])
def test_psi_falls_with_the_angle_and_meets_one_at_the_margin(margin):
    value = subtract_angle(THETA.cos(), margin)
    assert (value.diff() <= 1e-12).all()
    assert value.diff().abs().max() < 1.01 * STEP
    far = margin <= THETA
    assert torch.allclose(value[far], (THETA - margin).cos()[far], atol=1e-7)
    assert torch.allclose(value[~far], (THETA.cos() + 1 - math.cos(margin))[~far], atol=1e-7)
    at = subtract_angle(torch.tensor([math.cos(margin)], dtype=torch.float64), margin)
    assert at.item() == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("factor", [1.0, 1.35, 2.0, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_multiply_angle_extends_the_cosine(factor, margin):
    value = multiply_angle(THETA.cos(), factor, margin)
    for theta, found in zip(THETA[::999].tolist(), value[::999].tolist(), strict=True):
        total = factor * theta + margin
        k = math.floor(total / math.pi + 1e-9)
        assert found == pytest.approx((-1) ** k * math.cos(total) - 2 * k, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_and_sines_have_finite_gradients(dtype):
    last = 1 - torch.finfo(dtype).eps / 2
    ends = torch.tensor([1.0, -1, last, -last, 1.0000002, -1.0000002, 0.5], dtype=dtype)
    for function, at_ends in ((find_angle, [0, math.pi]), (find_sine, [0, 0])):
        cosine = ends.clone().requires_grad_()
        value = function(cosine)
        value.sum().backward()
        assert value.dtype == dtype
        assert value[:2].tolist() == pytest.approx(at_ends, abs=1e-6)
        assert (cosine.grad[[0, 1, 4, 5]] == 0).all()
        assert cosine.grad.isfinite().all() and (cosine.grad[[2, 3, 6]] != 0).all()
    half = torch.tensor([0.5], dtype=dtype)
    assert find_angle(half).item() == pytest.approx(math.pi / 3, rel=1e-6)
    assert find_sine(half).item() == pytest.approx(math.sqrt(0.75), rel=1e-6)
