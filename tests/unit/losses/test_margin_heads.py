import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from facerec.checks import InputError
from facerec.losses import build_head, head_names
from facerec.losses.margins import add_angle

COSINES = [0.6, 0.5, 0.2, -0.3]
# METHODS section 0.4, s = 16, label 0: head, parameters, target / s, cross entropy.
GOLDEN = [
    ("normface", {}, 0.600000, 0.185283),
    ("cosface", {"margin": 0.35}, 0.250000, 4.026202),
    ("arcface", {"margin": 0.5}, 0.143009, 5.723327),
]
MARGIN_HEADS = ["cosface", "arcface"]
GRADS = ["exact", "straight_through"]


def build(name, c=5, d=8, seed=0, **params):
    torch.manual_seed(seed)
    return build_head(name, num_classes=c, embedding_dim=d, **params)


def batch(n=12, c=5, d=8, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator, dtype=dtype)
    return embeddings, torch.randint(c, (n,), generator=generator)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("name", "params", "target", "loss"), GOLDEN)
def test_golden_rows(name, params, target, loss, dtype, tolerance, grad):
    head = build(name, c=4, scale=16, grad=grad, **params)
    label = torch.tensor([0])
    logits = head.logits(torch.tensor([COSINES], dtype=dtype), label)
    assert logits.dtype == dtype
    assert logits[0].tolist() == pytest.approx(
        [16 * target, 8, 3.2, -4.8], abs=16 * min(tolerance, 1e-6) + 1e-6
    )
    assert cross_entropy(logits, label).item() == pytest.approx(loss, abs=tolerance)


def test_every_head_has_a_golden_row():
    assert {row[0] for row in GOLDEN} == set(head_names())


@pytest.mark.parametrize(("name", "params", "target", "loss"), GOLDEN)
def test_raw_embeddings_give_the_golden_rows_too(name, params, target, loss):
    head = build(name, c=4, d=4, scale=16, **params).double()
    sine = [math.sqrt(1 - c * c) for c in COSINES]
    # Class centres around e0 in planes of their own, of any norm; the embedding is along e0.
    weight = torch.zeros(4, 5, dtype=torch.float64)
    for j, (c, s) in enumerate(zip(COSINES, sine, strict=True)):
        weight[j, 0], weight[j, j + 1] = c, s
    head.embedding_dim = 5
    head.weight = torch.nn.Parameter(weight * torch.tensor([[1.0], [3.0], [0.2], [7.0]]))
    embeddings = torch.tensor([[4.0, 0, 0, 0, 0]], dtype=torch.float64)
    label = torch.tensor([0])
    assert cross_entropy(head(embeddings, label), label).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MARGIN_HEADS)
def test_margin_zero_is_normface_bit_for_bit(name, dtype, grad):
    embeddings, labels = batch(256, dtype=dtype)
    plain, head = build("normface"), build(name, margin=0.0, grad=grad)
    assert torch.equal(plain.weight, head.weight)
    assert torch.equal(head(embeddings, labels), plain(embeddings, labels))
    edges = torch.tensor([[1.0, 0], [-1.0, 0], [1.0000001, 0], [-1.0000001, 0]], dtype=dtype)
    first = torch.zeros(4, dtype=torch.int64)
    two, two_plain = build(name, c=2, margin=0.0, grad=grad), build("normface", c=2)
    assert torch.equal(two.logits(edges, first), two_plain.logits(edges, first))


@pytest.mark.parametrize("name", MARGIN_HEADS)
@given(
    cosines=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    margin=st.floats(0, 1.5),
    label=st.integers(0, 2),
)
@settings(max_examples=100, deadline=None)
def test_a_margin_never_lowers_a_samples_loss(name, cosines, margin, label):
    cosine = torch.tensor([cosines], dtype=torch.float64)
    labels = torch.tensor([label])
    with_margin = build(name, c=3, margin=margin).logits(cosine, labels)
    without = build("normface", c=3).logits(cosine, labels)
    assert cross_entropy(with_margin, labels) >= cross_entropy(without, labels) - 1e-9


@pytest.mark.parametrize("name", head_names())
def test_permuting_classes_and_labels_leaves_the_loss(name):
    head = build(name).double()
    embeddings, labels = batch(dtype=torch.float64)
    before = cross_entropy(head(embeddings, labels), labels)
    order = torch.tensor([3, 0, 4, 1, 2])
    head.weight.data = head.weight.data[order]
    moved = torch.argsort(order)[labels]
    assert cross_entropy(head(embeddings, moved), moved).item() == pytest.approx(
        before.item(), abs=1e-12
    )


@pytest.mark.parametrize("name", head_names())
@given(factor=st.floats(1e-4, 1e4))
@settings(max_examples=25, deadline=None)
def test_scaling_embeddings_leaves_the_loss(name, factor):
    head = build(name).double()
    embeddings, labels = batch(dtype=torch.float64)
    before = cross_entropy(head(embeddings, labels), labels).item()
    after = cross_entropy(head(embeddings * factor, labels), labels).item()
    assert after == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("name", head_names())
def test_exact_gradients_are_those_of_the_formula(name):
    head = build(name, scale=4).double()
    embeddings, labels = batch(6, dtype=torch.float64)
    # One sample past pi, away from the switching point.
    embeddings[0] = -head.weight.data[labels[0]] + 0.002 * embeddings[0].sign()
    embeddings.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(head, {"weight": w}, (x, labels)),
        (embeddings, head.weight),
    )


def test_straight_through_passes_the_gradient_unchanged():
    labels = torch.tensor([0])
    slopes = {}
    for grad in GRADS:
        cosine = torch.tensor([COSINES], dtype=torch.float64, requires_grad=True)
        build("arcface", c=4, scale=16, grad=grad).logits(cosine, labels)[0, 0].backward()
        slopes[grad] = cosine.grad[0, 0].item()
    # METHODS 0.1: sin(theta + m) / sin theta at cos 0.6, m .5 is 1.237.
    assert slopes["exact"] == pytest.approx(16 * 1.237, abs=0.01)
    assert slopes["straight_through"] == pytest.approx(16, abs=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.0, 1.5])
def test_arcface_target_falls_with_the_angle_and_is_continuous(margin):
    theta = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    value = add_angle(theta.cos(), margin)
    assert (value.diff() <= 1e-12).all()
    assert value.diff().abs().max() < 2e-4
    below = theta + margin <= math.pi
    assert torch.allclose(value[below], (theta + margin).cos()[below], atol=1e-7)
    assert torch.allclose(value[~below], -2 - (theta + margin).cos()[~below], atol=1e-7)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", head_names())
def test_finite_at_the_ends_of_the_cosine_under_autocast(name, dtype, grad):
    head = build(name, c=4, grad=grad)
    for value in (1.0, -1.0, 1 - 1e-7, -1 + 1e-7):
        cosine = torch.full((1, 4), value, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = head.logits(cosine, torch.tensor([2]))
            loss = cross_entropy(logits, torch.tensor([2]))
        loss.backward()
        assert logits.dtype == torch.float32
        assert loss.isfinite() and cosine.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", head_names())
def test_arithmetic_is_float32_under_autocast(name, dtype):
    head = build(name, d=512)
    embeddings, labels = batch(d=512)
    embeddings = (30 * embeddings).to(dtype)  # squares of these overflow float16 when summed
    with torch.autocast("cpu", dtype):
        logits = head(embeddings, labels)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(embeddings.float(), labels))
    # Embeddings that lie on their class centre and opposite to it.
    aligned = normalize(head.weight.detach()).to(dtype).requires_grad_()
    for sign in (1, -1):
        with torch.autocast("cpu", dtype):
            cross_entropy(head(sign * aligned, torch.arange(5)), torch.arange(5)).backward()
        assert aligned.grad.isfinite().all() and head.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", head_names())
def test_a_zero_embedding_gives_no_nan(name):
    head = build(name)
    embeddings = torch.zeros(2, 8, requires_grad=True)
    loss = cross_entropy(head(embeddings, torch.tensor([0, 3])), torch.tensor([0, 3]))
    loss.backward()
    assert loss.isfinite() and embeddings.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_bad_input_is_named():
    head = build("arcface")
    with pytest.raises(InputError, match=r"\(n, 8\), got \(2, 7\)"):
        head(torch.zeros(2, 7), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"labels must lie in \[0, 5\), got 5"):
        head(torch.ones(2, 8), torch.tensor([0, 5]))
    with pytest.raises(InputError, match="got -1"):
        head(torch.ones(2, 8), torch.tensor([0, -1]))
    with pytest.raises(InputError, match="labels"):
        head.logits(torch.zeros(2, 5), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match="did you mean 'arcface'"):
        build("arcfase")
    with pytest.raises(InputError, match="did you mean 'margin'"):
        build("arcface", margni=0.3)
    with pytest.raises(InputError, match="margin must lie in"):
        build("arcface", margin=-0.1)
    with pytest.raises(InputError, match="grad must be one of"):
        build("arcface", grad="none")
    with pytest.raises(InputError, match="num_classes must be at least 2"):
        build("cosface", c=1)


def test_initial_class_weights_are_small():
    torch.manual_seed(0)
    head = build_head("cosface", num_classes=200, embedding_dim=512)
    assert head.weight.norm(dim=1).mean().item() == pytest.approx(0.226, abs=0.003)
