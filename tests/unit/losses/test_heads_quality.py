"""Heads that follow the norm: METHODS 2.5 and 2.6."""

import math

import pytest
import torch

from facerec.losses import build_head

COSINES = torch.tensor([[0.6, 0.5, 0.2, -0.3]], dtype=torch.float64)
LABEL = torch.tensor([0])


def build(name, c=4, d=8, **params):
    torch.manual_seed(0)
    return build_head(name, num_classes=c, embedding_dim=d, **{"scale": 16.0, **params}).double()


def target(head, norm, cosine=COSINES):
    norms = torch.tensor([norm], dtype=torch.float64)
    return head.logits(cosine, LABEL, norms)[0, 0].item() / float(head.scale)


def test_adaface_goes_from_arcface_over_cosface_to_a_negative_angle():
    # h 1 and norms far from the mean: the quality is clipped to -1 and 1.
    head = build("adaface", margin=0.4, h=1.0, mean=50.0, std=1.0)
    theta = math.acos(0.6)
    assert target(head, 10) == pytest.approx(math.cos(theta + 0.4))
    assert target(head, 50) == pytest.approx(0.6 - 0.4)
    assert target(head, 90) == pytest.approx(math.cos(theta - 0.4) - 0.8)
    # Norms are cut at 100 before they are compared.
    wide = build("adaface", mean=0.0, std=500.0)
    assert target(wide, 100) == target(wide, 4000)


def test_adaface_detaches_the_norm():
    head = build("adaface", mean=40.0, std=10.0)
    norms = torch.tensor([45.0], dtype=torch.float64, requires_grad=True)
    cosine = COSINES.clone().requires_grad_()
    head.logits(cosine, LABEL, norms)[0, 0].backward()
    assert norms.grad is None
    angle = -0.4 * 0.333 * 5 / 10.001
    theta = math.acos(0.6)
    assert cosine.grad[0, 0].item() == pytest.approx(
        16 * math.sin(theta + angle) / math.sin(theta), rel=1e-9
    )
    # So the gradient of an embedding stands at right angles to it.
    embeddings = torch.randn(3, 8, dtype=torch.float64).mul(10).requires_grad_()
    head.eval()(embeddings, torch.tensor([0, 1, 2])).sum().backward()
    radial = (embeddings.grad * embeddings).sum(dim=1) / embeddings.norm(dim=1)
    assert radial.abs().max() < 1e-12 * embeddings.grad.abs().max()


def test_adaface_statistics():
    head = build("adaface", t_alpha=0.25, mean=20.0, std=100.0)
    directions = torch.nn.functional.normalize(torch.randn(3, 8, dtype=torch.float64), dim=1)
    norms = [10.0, 40.0, 500.0]  # the last counts as 100
    labels = torch.tensor([0, 1, 2])
    head(directions * torch.tensor(norms, dtype=torch.float64)[:, None], labels)
    assert head.mean.item() == pytest.approx(0.75 * 20 + 0.25 * 50)
    deviation = math.sqrt((40**2 + 10**2 + 50**2) / 2)
    assert head.std.item() == pytest.approx(0.75 * 100 + 0.25 * deviation)
    # One row moves the mean and has no deviation.
    before = head.std.item()
    head(40 * directions[:1], labels[:1])
    assert head.mean.item() == pytest.approx(0.75 * 27.5 + 0.25 * 40)
    assert head.std.item() == before


def test_adaface_uses_the_statistics_of_its_own_batch():
    head = build("adaface", t_alpha=1.0)
    embeddings = torch.randn(4, 8, dtype=torch.float64)
    first = head(embeddings, torch.arange(4))
    norms = embeddings.norm(dim=1)
    cosine = head.compare(embeddings, head.weight)
    assert head.mean.item() == pytest.approx(norms.mean().item())
    assert head.std.item() == pytest.approx(norms.std().item())
    assert torch.equal(head.logits(cosine, torch.arange(4), norms), first)


@pytest.mark.parametrize(("norm", "worth"), [(10, 0.100826), (60, 0.021625), (110, 0.018182)])
def test_magface_penalty_golden_values(norm, worth):
    for outside in {10: [10, 3], 60: [60], 110: [110, 400]}[norm]:
        head = build("magface", penalty_weight=1.0)
        norms = torch.tensor([outside, outside], dtype=torch.float64)
        rows = head.build_rows(COSINES.repeat(2, 1), torch.tensor([0, 1]), norms)
        assert head.penalty(rows).item() == pytest.approx(worth, abs=1e-6)


def test_magface_penalty_reaches_the_scores_and_falls_with_the_norm():
    head = build("magface")
    embeddings = torch.nn.functional.normalize(torch.randn(2, 8, dtype=torch.float64), dim=1)
    small = head.score(20 * embeddings, torch.tensor([0, 1])).penalty
    large = head.score(100 * embeddings, torch.tensor([0, 1])).penalty
    assert small.item() == pytest.approx(35 * (20 / 110**2 + 1 / 20))
    assert large < small


@pytest.mark.parametrize("grad", ["exact", "straight_through"])
def test_magface_gradient_flows_through_the_norm(grad):
    head = build("magface", grad=grad)
    norms = torch.tensor([60.0], dtype=torch.float64, requires_grad=True)
    head.logits(COSINES, LABEL, norms)[0, 0].backward()
    slope = (0.8 - 0.45) / 100
    margin = 0.45 + slope * 50
    assert norms.grad.item() == pytest.approx(-16 * slope * math.sin(math.acos(0.6) + margin))
    rows = head.build_rows(COSINES, LABEL, norms)
    (found,) = torch.autograd.grad(head.penalty(rows), norms)
    assert found.item() == pytest.approx(35 * (1 / 110**2 - 1 / 60**2))


def test_magface_gives_no_gradient_beyond_its_norms():
    head = build("magface")
    norms = torch.tensor([200.0], dtype=torch.float64, requires_grad=True)
    (head.logits(COSINES, LABEL, norms)[0, 0]).backward()
    assert norms.grad.item() == 0
