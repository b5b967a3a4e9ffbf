"""Heads against a slow reference in plain Python, one sample and one class at a time."""

import math

import pytest
import torch

from facerec.losses import build_head

CLASSES, ROWS = 7, 40


def extend(angle):
    """(-1)^k cos - 2k."""
    k = math.floor(angle / math.pi)
    return (-1) ** k * math.cos(angle) - 2 * k


def psi(angle, margin):
    return math.cos(angle - margin) if angle >= margin else math.cos(angle) + 1 - math.cos(margin)


def arcface(cosines, label, norm, margin):
    return extend(math.acos(cosines[label]) + margin), {}


def combined(cosines, label, norm, m1, m2, m3):
    return extend(m1 * math.acos(cosines[label]) + m2) - m3, {}


def sphereface(cosines, label, norm, margin):
    return extend(margin * math.acos(cosines[label])), {}


def arcsin(cosines, label, norm, margin, offset):
    theta = math.acos(cosines[label])
    return extend(theta + margin * (1 - math.sin(min(theta, math.pi / 2))) + offset), {}


def liarcface(cosines, label, norm, margin):
    line = [(math.pi - 2 * math.acos(c)) / math.pi for c in cosines]
    target = (math.pi - 2 * (math.acos(cosines[label]) + margin)) / math.pi
    return target, dict(enumerate(line))


def negative_arcface(cosines, label, norm, margin, negative_margin, top_k):
    others = sorted((j for j in range(len(cosines)) if j != label), key=lambda j: -cosines[j])
    moved = {j: psi(math.acos(cosines[j]), negative_margin) for j in others[:top_k]}
    return arcface(cosines, label, norm, margin)[0], moved


def change_hard(cosines, label, target, change):
    """Change what lies nearer than the target after its margin."""
    return target, {j: change(c) for j, c in enumerate(cosines) if c > target}


def sv_arcface(cosines, label, norm, margin, t):
    target, _ = arcface(cosines, label, norm, margin)
    return change_hard(cosines, label, target, lambda c: c + (t - 1) * (c + 1))


def mv_arcface(cosines, label, norm, margin, t, mode):
    target, _ = arcface(cosines, label, norm, margin)
    factor = 1 + t if mode == "adaptive" else 1
    return change_hard(cosines, label, target, lambda c: factor * c + t)


def curricularface(cosines, label, norm, margin, t):
    target, _ = arcface(cosines, label, norm, margin)
    return change_hard(cosines, label, target, lambda c: c * (t + c))


def arcnegface(cosines, label, norm, margin, alpha, sigma):
    target, _ = arcface(cosines, label, norm, margin)
    weights = [alpha * math.exp(-((c - target) ** 2) / sigma) for c in cosines]
    return target, {j: w * (cosines[j] + 1) - 1 for j, w in enumerate(weights)}


def npcface(cosines, label, norm, margin, growth, t, a):
    bound, _ = arcface(cosines, label, norm, margin)
    hard = [j for j, c in enumerate(cosines) if j != label and c > bound]
    mean = sum(cosines[j] for j in hard) / len(hard) if hard else 0
    target, _ = arcface(cosines, label, norm, max(0, margin + growth * mean))
    return target, {j: t * cosines[j] + a for j in hard}


def adaface(cosines, label, norm, margin, h, mean, std, eps):
    quality = h * (min(max(norm, 1e-3), 100) - mean) / (std + eps)
    quality = min(max(quality, -1), 1)
    angle = math.acos(cosines[label]) - margin * quality
    return math.cos(min(max(angle, 0), math.pi)) - margin - margin * quality, {}


def magface(cosines, label, norm, norm_low, norm_high, margin_low, margin_high):
    share = (min(max(norm, norm_low), norm_high) - norm_low) / (norm_high - norm_low)
    return arcface(cosines, label, norm, margin_low + share * (margin_high - margin_low))[0], {}


CASES = [
    (arcface, {"margin": 1.2}),
    (combined, {"m1": 2.5, "m2": 0.3, "m3": 0.2}),
    (sphereface, {"margin": 3.2}),
    (arcsin, {"margin": 0.9, "offset": 0.4}),
    (liarcface, {"margin": 0.45}),
    (negative_arcface, {"margin": 0.3, "negative_margin": 0.8, "top_k": 2}),
    (negative_arcface, {"margin": 0.3, "negative_margin": 0.2, "top_k": 99}),
    (sv_arcface, {"margin": 0.5, "t": 1.3}),
    (mv_arcface, {"margin": 0.5, "t": 0.2, "mode": "adaptive"}),
    (mv_arcface, {"margin": 0.5, "t": 0.2, "mode": "fixed"}),
    (curricularface, {"margin": 0.5, "t": 0.25}),
    (arcnegface, {"margin": 0.5, "alpha": 1.3, "sigma": 1.5}),
    (npcface, {"margin": 0.4, "growth": 0.3, "t": 1.2, "a": 0.1}),
    (npcface, {"margin": 0.1, "growth": 0.9, "t": 1.2, "a": 0.1}),
    (adaface, {"margin": 0.5, "h": 0.8, "mean": 50.0, "std": 20.0, "eps": 0.001}),
    (
        magface,
        {"norm_low": 20.0, "norm_high": 90.0, "margin_low": 0.2, "margin_high": 1.1},
    ),
]


@pytest.mark.parametrize(("reference", "params"), CASES)
def test_logits_equal_the_reference(reference, params):
    generator = torch.Generator().manual_seed(3)
    cosine = 2 * torch.rand(ROWS, CLASSES, generator=generator, dtype=torch.float64) - 1
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    norms = 120 * torch.rand(ROWS, generator=generator, dtype=torch.float64)
    cosine[0, labels[0]], cosine[1, labels[1]] = -0.999, 0.999
    head = build_head(
        reference.__name__, num_classes=CLASSES, embedding_dim=4, scale=20, **params
    ).double()
    expected = []
    for row, label, norm in zip(cosine.tolist(), labels.tolist(), norms.tolist(), strict=True):
        target, changed = reference(row, label, norm, **params)
        values = [changed.get(j, c) for j, c in enumerate(row)]
        values[label] = target
        expected.append([20 * value for value in values])
    found = head.logits(cosine, labels, norms)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-9)
