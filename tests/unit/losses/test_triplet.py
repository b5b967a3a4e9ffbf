import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from facerec.checks import InputError
from facerec.losses.pairwise import batch_hard_triplet, soft_weighted_triplet

LOSSES = [batch_hard_triplet, soft_weighted_triplet]


def batch(n=10, c=3, d=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    embeddings = 3 * torch.randn(n, d, generator=generator, dtype=dtype)
    return embeddings, torch.randint(c, (n,), generator=generator)


def distances(embeddings):
    unit = [[float(v) for v in row] for row in normalize(embeddings.double(), dim=1)]
    return [[math.dist(a, b) for b in unit] for a in unit]


def anchors(labels):
    """Yield (anchor, its positives, its negatives) by the definition."""
    labels = labels.tolist()
    for a, label in enumerate(labels):
        positives = [i for i, other in enumerate(labels) if other == label and i != a]
        negatives = [i for i, other in enumerate(labels) if other != label]
        if positives and negatives:
            yield a, positives, negatives


def softplus(value):
    return max(value, 0) + math.log1p(math.exp(-abs(value)))


def hard_by_loops(embeddings, labels, margin, scale=1.0):
    far, losses = distances(embeddings), []
    for a, positives, negatives in anchors(labels):
        gap = scale * (max(far[a][p] for p in positives) - min(far[a][q] for q in negatives))
        losses.append(softplus(gap) if margin is None else max(0.0, gap + margin))
    return sum(losses) / len(losses) if losses else 0.0


def soft_by_loops(embeddings, labels, scale, w_pos, w_neg):
    def mean(values, weight):
        top = max(weight * v for v in values)
        shares = [math.exp(weight * v - top) for v in values]
        return sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)

    far, losses = distances(embeddings), []
    for a, positives, negatives in anchors(labels):
        near = mean([scale * far[a][p] for p in positives], w_pos)
        losses.append(softplus(near - mean([scale * far[a][q] for q in negatives], -w_neg)))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("margin", [0.3, 2.0, None])
def test_hand_case(margin):
    # One person at 0° and 60°, another at 90° and 180°: chords, anchor by anchor.
    degrees, labels = [0, 60, 90, 180], torch.tensor([0, 0, 1, 1])
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    chord = {gap: 2 * math.sin(math.radians(gap) / 2) for gap in (30, 60, 90, 120)}
    gaps = [
        chord[60] - chord[90],  # 0°: positive 60°, nearest negative 90°
        chord[60] - chord[30],
        chord[90] - chord[30],
        chord[90] - chord[120],  # 180°: positive 90°, nearest negative 60°
    ]
    expected = sum(softplus(g) if margin is None else max(0, g + margin) for g in gaps) / 4
    assert batch_hard_triplet(embeddings, labels, margin).item() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 6))
def test_both_equal_their_definition(seed, n, c):
    embeddings, labels = batch(n, c, seed=seed)
    for margin in (0.3, 0.0, None):
        found = batch_hard_triplet(embeddings, labels, margin).item()
        assert found == pytest.approx(hard_by_loops(embeddings, labels, margin), abs=1e-9)
    for scale, w_pos, w_neg in ((64.0, 1.0, 1.0), (2.0, 0.5, 3.0), (1.0, 0.0, 0.0)):
        found = soft_weighted_triplet(embeddings, labels, scale, w_pos, w_neg).item()
        expected = soft_by_loops(embeddings, labels, scale, w_pos, w_neg)
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_large_weights_are_batch_hard_value_and_gradient(seed):
    embeddings, labels = batch(seed=seed)
    hard, soft = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    expected = batch_hard_triplet(hard, labels, None)
    found = soft_weighted_triplet(soft, labels, 1.0, 1e7, 1e7)
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    torch.testing.assert_close(soft.grad, hard.grad)
    scaled = soft_weighted_triplet(embeddings, labels, 8.0, 1e7, 1e7).item()
    assert scaled == pytest.approx(hard_by_loops(embeddings, labels, None, 8.0))


@pytest.mark.parametrize("loss", LOSSES)
def test_neither_length_nor_order_of_rows_matters(loss):
    embeddings, labels = batch()
    value = loss(embeddings, labels)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss(embeddings[order], labels[order]), value)
    lengths = torch.linspace(0.1, 50, 10, dtype=torch.float64)[:, None]
    torch.testing.assert_close(loss(embeddings * lengths, labels), value)


@pytest.mark.parametrize("margin", [0.3, None])
def test_gradients_of_batch_hard(margin):
    embeddings, labels = batch()
    assert torch.autograd.gradcheck(
        lambda x: batch_hard_triplet(x, labels, margin), embeddings.requires_grad_()
    )


def test_the_weights_of_the_soft_form_are_constants():
    embeddings, labels = batch()
    found = embeddings.clone().requires_grad_()
    soft_weighted_triplet(found, labels, scale=4.0).backward()
    # The same loss with weights computed before differentiation.
    unit = normalize(embeddings, dim=1)
    fixed = 4 * torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
    shares = {}
    for a, positives, negatives in anchors(labels):
        shares[a] = (
            (positives, fixed[a, positives].softmax(0)),
            (negatives, (-fixed[a, negatives]).softmax(0)),
        )
    expected = embeddings.clone().requires_grad_()
    losses = []
    for a, sides in shares.items():
        unit = normalize(expected, dim=1)
        near, away = (
            (share * 4 * (unit[rows] - unit[a]).square().sum(1).sqrt()).sum()
            for rows, share in sides
        )
        losses.append(torch.nn.functional.softplus(near - away))
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [4], []])
def test_without_an_anchor_the_loss_is_zero_with_a_live_graph(loss, labels):
    embeddings = torch.randn(len(labels), 5, requires_grad=True)
    value = loss(embeddings, torch.tensor(labels, dtype=torch.int64))
    value.backward()
    assert value.item() == 0 and torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
def test_duplicates_zeros_and_half_precision_stay_finite(loss, dtype):
    row = torch.full((1, 512), 30.0)  # its square norm passes what float16 holds
    rows = torch.cat([row, row, row, -row, 0 * row, 0 * row])
    embeddings = rows.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 0]))
    assert value.dtype == torch.float32 and torch.isfinite(value)
    value.backward()
    assert not embeddings.grad.isnan().any()
    assert torch.isfinite(embeddings.grad[:4]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_distance_of_exactly_zero_has_a_gradient_of_zero(loss, dtype):
    # Along an axis the cosine of duplicates is 1 bit for bit, where a root's slope is infinite.
    embeddings = torch.eye(3, dtype=dtype)[[0, 0, 1, 1, 0]].requires_grad_()
    value = loss(embeddings, torch.tensor([0, 0, 1, 1, 1]))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(embeddings.grad).all()
    assert embeddings.grad[1:4].abs().max() < 1e3


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(loss):
    embeddings, labels = batch(seed=5)
    embeddings.requires_grad_()
    value = loss(embeddings, labels)
    value.backward()
    step = 1e-4 * embeddings.grad / embeddings.grad.norm()
    assert loss((embeddings - step).detach(), labels) < value


def test_what_does_not_fit_is_refused():
    rows, labels = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    for loss in LOSSES:
        with pytest.raises(InputError, match=r"shape \(n, d\) and labels \(n,\), got \(3, 4\)"):
            loss(rows, labels[:2])
    with pytest.raises(InputError, match="margin must lie in"):
        batch_hard_triplet(rows, labels, 2.5)
    for wrong in ({"scale": 0}, {"positive_weight": -1}, {"negative_weight": float("nan")}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            soft_weighted_triplet(rows, labels, **wrong)
