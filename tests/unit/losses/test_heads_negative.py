"""Heads that change other classes: METHODS 2.4, 3.1 to 3.4."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.losses import build_head
from facerec.losses.angles import subtract_angle

COSINES = [0.6, 0.5, 0.2, -0.3]


def build(name, c=5, **params):
    torch.manual_seed(0)
    return build_head(name, num_classes=c, embedding_dim=8, **{"scale": 16.0, **params})


def rows(n=32, c=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    cosine = 2 * torch.rand(n, c, generator=generator, dtype=dtype) - 1
    return cosine, torch.randint(c, (n,), generator=generator)


def slopes(head, cosine, label, column):
    """Return the gradient of one logit in all cosines of the only row."""
    values = torch.tensor([cosine], dtype=torch.float64, requires_grad=True)
    head.logits(values, torch.tensor([label]))[0, column].backward()
    return values.grad[0].tolist()


def test_negative_margin_zero_is_arcface_bit_for_bit():
    cosine, labels = rows()
    for dtype in (torch.float32, torch.float64):
        values = cosine.to(dtype)
        found = build("negative_arcface", negative_margin=0.0).logits(values, labels)
        assert torch.equal(found, build("arcface").logits(values, labels))


def test_all_negatives_shift_when_k_reaches_them():
    cosine, labels = rows()
    expected = 16 * subtract_angle(cosine, 0.3)
    target = build("arcface").logits(cosine, labels).gather(1, labels[:, None])
    expected = expected.scatter(1, labels[:, None], target)
    for k in (4, 50):
        head = build("negative_arcface", negative_margin=0.3, top_k=k)
        assert torch.equal(head.logits(cosine, labels), expected)


@given(top_k=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_only_the_k_most_similar_change(top_k, seed):
    generator = torch.Generator().manual_seed(seed)
    cosine = 2 * torch.rand(6, 5, generator=generator) - 1
    labels = torch.randint(5, (6,), generator=generator)
    changed = build("negative_arcface", top_k=top_k).logits(cosine, labels)
    differs = changed != build("arcface").logits(cosine, labels)
    for row, label, different in zip(cosine.tolist(), labels.tolist(), differs, strict=True):
        others = sorted((c, j) for j, c in enumerate(row) if j != label)
        assert different.nonzero()[:, 0].tolist() == sorted(j for _, j in others[-top_k:])


def test_the_shifted_negatives_have_a_gradient():
    head = build("negative_arcface", c=4, top_k=1)
    found = slopes(head, COSINES, 0, 1)
    theta = math.acos(0.5)
    assert found == pytest.approx([0, 16 * math.sin(theta - 0.2) / math.sin(theta), 0, 0])
    # Nearer than the margin the slope is that of the cosine: never negative.
    assert slopes(head, [0.6, 0.999, 0.2, -0.3], 0, 1) == pytest.approx([0, 16, 0, 0])


def test_filtered_classes_take_no_place_among_the_k():
    cosine, label = torch.tensor([[0.1, 0.95, 0.5, 0.2]]), torch.tensor([0])
    logits = build("negative_arcface", c=4, top_k=1, filter_cosine=0.9).logits(cosine, label)
    assert logits[0, 1] == 0
    assert logits[0, 2].item() == pytest.approx(16 * math.cos(math.acos(0.5) - 0.2), rel=1e-6)
    assert logits[0, 3] == 16 * cosine[0, 3]
    # All filtered: what is left to choose from changes nothing.
    logits = build("negative_arcface", c=4, filter_cosine=-1.0).logits(cosine, label)
    assert (logits[0, 1:] == 0).all()


@pytest.mark.parametrize(
    ("name", "params"),
    [("sv_arcface", {"t": 1.0}), ("mv_arcface", {"t": 0.0}), ("mv_arcface", {"mode": "fixed"})],
)
def test_neutral_reweighting_is_arcface_bit_for_bit(name, params):
    cosine, labels = rows()
    base = build("arcface").logits(cosine, labels)
    head = build(name, **{"t": 0.0, **params})
    assert torch.equal(head.logits(cosine, labels), base)


@pytest.mark.parametrize("name", ["sv_arcface", "mv_arcface", "curricularface"])
def test_only_hard_negatives_change(name):
    cosine, labels = rows()
    base = build("arcface").logits(cosine, labels)
    changed = build(name).logits(cosine, labels) != base
    target = base.gather(1, labels[:, None]) / 16
    hard = cosine > target
    assert torch.equal(changed, hard.scatter(1, labels[:, None], False))
    assert changed.any() and not changed.all()


@pytest.mark.parametrize(
    ("name", "slope"), [("sv_arcface", 16 * 1.2), ("mv_arcface", 16 * 1.12), ("npcface", 16 * 1.1)]
)
def test_slopes_of_hard_negatives(name, slope):
    head = build(name, c=4)
    assert slopes(head, COSINES, 0, 1) == pytest.approx([0, slope, 0, 0])
    assert slopes(head, COSINES, 0, 3) == pytest.approx([0, 0, 0, 16])


def test_curricularface_slope_and_fixed_point():
    head = build("curricularface", c=4, t=0.3).double()
    assert slopes(head, COSINES, 0, 1) == pytest.approx([0, 16 * (0.3 + 2 * 0.5), 0, 0])
    assert slopes(head, COSINES, 0, 3) == pytest.approx([0, 0, 0, 16])
    # t = 1 - c leaves a hard negative as it is.
    half = build("curricularface", c=4, t=0.5)
    cosine = torch.tensor([COSINES], dtype=torch.float64)
    assert half.logits(cosine, torch.tensor([0]))[0, 1].item() == 16 * 0.5


def test_curricularface_follows_the_raw_target_cosine():
    head = build("curricularface", c=3, t=0.1, decay=0.9).double()
    centres = torch.eye(3, 8, dtype=torch.float64)
    head.weight.data = centres
    embeddings = torch.zeros(2, 8, dtype=torch.float64)
    embeddings[0, :2] = torch.tensor([0.6, 0.8])
    embeddings[1, :2] = torch.tensor([0.8, 0.6])
    head(embeddings, torch.tensor([0, 0]))
    assert head.t.item() == pytest.approx(0.9 * 0.1 + 0.1 * 0.7)
    head(embeddings[:1], torch.tensor([1]))
    assert head.t.item() == pytest.approx(0.9 * 0.16 + 0.1 * 0.8)


def test_arcnegface_gradient_holds_the_target_constant_in_the_weight():
    head = build("arcnegface", c=4)
    a = math.cos(math.acos(0.6) + 0.5)
    weight = 1.2 * math.exp(-((0.5 - a) ** 2) / 2)
    slope = weight * (1 - (0.5 - a) * 1.5)
    assert slopes(head, COSINES, 0, 1) == pytest.approx([0, 16 * slope, 0, 0])


def test_npcface_gradient_holds_the_margin_constant():
    head = build("npcface", c=4)
    theta = math.acos(0.6)
    slope = 16 * math.sin(theta + 0.5) / math.sin(theta)  # m = .4 + .2 * .5
    assert slopes(head, COSINES, 0, 0) == pytest.approx([slope, 0, 0, 0])


def test_npcface_margin_is_never_negative():
    head = build("npcface", c=2, margin=0.1, growth=0.9)
    cosine = torch.tensor([[-0.9, -0.8]], dtype=torch.float64)
    # m = .1 - .9 * .8 would be negative: the target keeps its cosine.
    assert head.logits(cosine, torch.tensor([0]))[0].tolist() == pytest.approx(
        [16 * -0.9, 16 * (1.1 * -0.8 + 0.2)]
    )
