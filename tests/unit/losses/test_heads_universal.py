"""What METHODS 0.4 asks of every head in the registry, and what the others rely on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from facerec.losses import build_head, head_names

GRADS = ["exact", "straight_through"]
NORM_LED = {"adaface", "magface"}
OBSERVERS = {"adacos", "adamargin", "curricularface", "adaface"}
WHOLE_ROW = {"adacos", "adamargin", "negative_arcface", "npcface"}
# Settings that switch a head's margins off; the others have none (METHODS 0.4).
NEUTRAL = [
    ("cosface", {"margin": 0.0}),
    ("arcface", {"margin": 0.0}),
    ("subcenter", {"margin": 0.0, "sub_centers": 1}),
    ("combined", {"m1": 1.0, "m2": 0.0, "m3": 0.0}),
    ("sphereface", {"margin": 1.0}),
    ("arcsin", {"margin": 0.0, "offset": 0.0}),
    ("adacos", {"scale": 64.0, "dynamic": False}),
    ("adamargin", {"margin": 0.0}),
    ("adaptiveface", {"kind": "cosine", "scale": 64.0}),
    ("adaptiveface", {"kind": "angular", "scale": 64.0}),
    ("adaface", {"margin": 0.0}),
    ("magface", {"margin_low": 0.0, "margin_high": 0.0}),
    ("negative_arcface", {"margin": 0.0, "negative_margin": 0.0}),
    ("sv_arcface", {"margin": 0.0, "t": 1.0}),
    ("mv_arcface", {"margin": 0.0, "t": 0.0, "mode": "adaptive"}),
    ("mv_arcface", {"margin": 0.0, "t": 0.0, "mode": "fixed"}),
    ("npcface", {"margin": 0.0, "growth": 0.0, "t": 1.0, "a": 0.0}),
]
PURE = sorted(
    {name for name, _ in NEUTRAL} - {"adacos"}  # at another scale, and without a margin
)


def build(name, c=5, d=8, seed=0, **params):
    torch.manual_seed(seed)
    return build_head(name, num_classes=c, embedding_dim=d, **params)


def batch(n=12, c=5, d=8, seed=1, dtype=torch.float32, norm=1.0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = norm * torch.randn(n, d, generator=generator, dtype=dtype)
    return embeddings, torch.randint(c, (n,), generator=generator)


def test_neutral_settings_are_listed_for_all_heads_that_have_them():
    without = {"softmax", "normface", "curricularface", "arcnegface", "liarcface"}
    assert {name for name, _ in NEUTRAL} | without == set(head_names())


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "params"), NEUTRAL)
def test_without_margins_it_is_normface_bit_for_bit(name, params, dtype, grad):
    def neutral(c):
        head = build(name, c=c, grad=grad, **params).eval()
        if name == "adaptiveface":
            torch.nn.init.zeros_(head.margins)
        return head

    embeddings, labels = batch(256, dtype=dtype, norm=20)
    plain, head = build("normface"), neutral(5)
    assert torch.equal(plain.weight, head.weight)
    assert torch.equal(head(embeddings, labels), plain(embeddings, labels))
    edges = torch.tensor([[1.0, 0], [-1.0, 0], [1.0000001, -1], [-1.0000001, 1]], dtype=dtype)
    first, norms = torch.zeros(4, dtype=torch.int64), torch.full((4,), 30.0)
    two = neutral(2).logits(edges, first, norms)
    assert torch.equal(two, build("normface", c=2).logits(edges, first))


@pytest.mark.parametrize("name", PURE)
@given(
    cosines=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    label=st.integers(0, 2),
    norm=st.floats(0, 200),
)
@settings(max_examples=15, deadline=None)
def test_a_margin_never_lowers_a_samples_loss(name, cosines, label, norm):
    cosine = torch.tensor([cosines], dtype=torch.float64)
    labels, norms = torch.tensor([label]), torch.tensor([norm], dtype=torch.float64)
    with_margin = build(name, c=3, scale=64.0).logits(cosine, labels, norms)
    without = build("normface", c=3).logits(cosine, labels)
    assert cross_entropy(with_margin, labels) >= cross_entropy(without, labels) - 1e-9


@pytest.mark.parametrize("name", head_names())
def test_permuting_classes_and_labels_leaves_the_loss(name):
    head = build(name).double()
    embeddings, labels = batch(dtype=torch.float64, norm=10)
    if name == "softmax":
        torch.nn.init.normal_(head.bias)
    before = cross_entropy(head.eval()(embeddings, labels), labels)
    order = torch.tensor([3, 0, 4, 1, 2])
    for parameter in head.parameters():
        k = len(parameter) // 5
        parameter.data = parameter.data.view(5, k, -1)[order].reshape(parameter.shape)
    moved = torch.argsort(order)[labels]
    after = cross_entropy(head(embeddings, moved), moved)
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(head_names()) - NORM_LED - {"softmax"}))
@given(factor=st.floats(1e-4, 1e4))
@settings(max_examples=10, deadline=None)
def test_scaling_embeddings_leaves_the_loss(name, factor):
    head = build(name).double().eval()
    embeddings, labels = batch(dtype=torch.float64)
    before = cross_entropy(head(embeddings, labels), labels).item()
    after = cross_entropy(head(embeddings * factor, labels), labels).item()
    assert after == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("name", sorted(NORM_LED | {"softmax"}))
def test_the_norm_counts_where_it_should(name):
    head = build(name).double().eval()
    embeddings, labels = batch(dtype=torch.float64, norm=10)
    assert not torch.allclose(head(embeddings, labels), head(embeddings * 2, labels))


# What these hold constant in the backward pass is checked in their own tests.
@pytest.mark.parametrize("name", sorted(set(head_names()) - {"adaface", "arcnegface", "npcface"}))
def test_exact_gradients_are_those_of_the_formula(name):
    head = build(name, scale=4).double().eval()
    embeddings, labels = batch(4, dtype=torch.float64, norm=15)
    # One sample nearly opposite to its class, past pi with a margin, away from switching points.
    own = normalize(head.weight.data.view(5, -1, 8)[labels[0], 0], dim=0)
    embeddings[0] = 20 * (0.05 * embeddings[0].sign() - own)
    embeddings.requires_grad_()
    others = {k: p for k, p in head.named_parameters() if k != "weight"}

    def run(x, w, *rest):
        values = {"weight": w, **dict(zip(others, rest, strict=True))}
        return torch.func.functional_call(head, values, (x, labels))

    assert torch.autograd.gradcheck(run, (embeddings, head.weight, *others.values()))


@pytest.mark.parametrize("name", head_names())
def test_straight_through_passes_the_gradient_unchanged(name):
    head = build(name, c=4, scale=16, grad="straight_through")
    cosine = torch.tensor([[0.6, 0.7, 0.2, -0.3], [0.1, 0.5, 0.3, -0.9]], requires_grad=True)
    norms = torch.tensor([30.0, 60.0])
    head.logits(cosine, torch.tensor([0, 3]), norms).sum().backward()
    assert cosine.grad.flatten().tolist() == pytest.approx([16.0] * 8)
    exact = build(name, c=4, scale=16, grad="exact")
    exact.load_state_dict(head.state_dict())
    labels = torch.tensor([0, 3])
    assert torch.equal(
        exact.logits(cosine, labels, norms).detach(), head.logits(cosine, labels, norms).detach()
    )


def test_the_exact_gradient_of_arcface_is_steeper():
    cosine = torch.tensor([[0.6, 0.5]], dtype=torch.float64, requires_grad=True)
    build("arcface", c=2, scale=16).logits(cosine, torch.tensor([0]))[0, 0].backward()
    # METHODS 0.1: sin(theta + m) / sin theta at cos 0.6, m .5 is 1.237.
    assert cosine.grad[0, 0].item() == pytest.approx(16 * 1.237, abs=0.01)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", head_names())
def test_finite_at_the_ends_of_the_cosine_under_autocast(name, dtype, grad):
    head = build(name, c=4, grad=grad)
    half = dtype in (torch.bfloat16, torch.float16)
    ends = [1.0, -1.0, 1 - 1e-7, -1 + 1e-7, 1.0000001]
    # Every end as the own class's cosine, the others equal to it and opposite.
    values = torch.tensor([[o, o, t, o] for t in ends for o in (t, -t)], dtype=dtype)
    cosine, norms = values.requires_grad_(), torch.full((10,), 30.0, requires_grad=True)
    labels = torch.full((10,), 2)
    with torch.autocast("cpu", dtype if half else torch.bfloat16, enabled=half):
        logits = head.logits(cosine, labels, norms)
        losses = cross_entropy(logits, labels, reduction="none")
    losses.sum().backward()
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert losses.isfinite().all() and cosine.grad.isfinite().all()
    assert norms.grad is None or norms.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", head_names())
def test_arithmetic_is_float32_under_autocast(name, dtype):
    head = build(name, d=512).eval()
    embeddings, labels = batch(d=512)
    embeddings = (30 * embeddings).to(dtype)  # squares of these overflow float16 when summed
    with torch.autocast("cpu", dtype):
        logits = head(embeddings, labels)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(embeddings.float(), labels))
    # Embeddings that lie on a class centre and opposite to it.
    centres = normalize(head.weight.detach()).view(5, -1, 512)[:, 0]
    aligned = centres.to(dtype).requires_grad_()
    head.train()
    for sign in (1, -1):
        with torch.autocast("cpu", dtype):
            cross_entropy(head(sign * aligned, torch.arange(5)), torch.arange(5)).backward()
        assert aligned.grad.isfinite().all() and head.weight.grad.isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("name", head_names())
def test_zero_embeddings_and_tiny_batches_give_no_nan(name, n):
    head = build(name)
    embeddings = torch.zeros(n, 8, requires_grad=True)
    labels = torch.tensor([0, 3])[:n]
    scores = head.score(embeddings, labels)
    loss = scores.losses().sum()
    if scores.penalty is not None:
        loss = loss + scores.penalty
    loss.backward()
    assert loss.isfinite() and embeddings.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()
    assert all(value.isfinite().all() for value in head.state_dict().values())


def copy_state(head):
    return {key: value.clone() for key, value in head.state_dict().items()}


def same_state(before, head):
    return all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


@pytest.mark.parametrize("name", head_names())
def test_only_scores_in_training_change_running_statistics(name):
    head = build(name)
    embeddings, labels = batch(norm=10)
    fresh = copy_state(head)
    cosine = torch.linspace(-1, 1, 60).view(12, 5)
    first = head.logits(cosine, labels, torch.full((12,), 30.0))
    assert torch.equal(first, head.logits(cosine, labels, torch.full((12,), 30.0)))
    assert same_state(fresh, head)
    head.eval()(embeddings, labels)
    assert same_state(fresh, head)
    head.train()(embeddings, labels)
    assert same_state(fresh, head) is (name not in OBSERVERS)
    assert head.whole_row is (name in WHOLE_ROW)
    assert math.isfinite(float(head.scale))


@pytest.mark.parametrize("name", head_names())
def test_a_saved_state_gives_the_same_logits(name):
    head, other = build(name), build(name, seed=5)
    embeddings, labels = batch(norm=10)
    for _ in range(3):
        head(embeddings, labels)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.eval()(embeddings, labels), head.eval()(embeddings, labels))
    assert same_state(copy_state(head), other)


@pytest.mark.parametrize("name", sorted(OBSERVERS))
def test_an_overflowing_batch_leaves_running_statistics(name):
    head = build(name)
    before = copy_state(head)
    head(torch.full((3, 8), float("nan")), torch.tensor([0, 1, 2]))
    assert same_state(before, head)


@pytest.mark.parametrize("name", head_names())
def test_training_on_few_rows_lowers_the_loss(name):
    head = build(name, scale=8.0)
    embeddings, labels = batch(10, norm=10)
    seen = []
    for _ in range(20):
        scores = head.score(embeddings, labels)
        loss = scores.losses().mean()
        for parameter, slope in zip(
            head.parameters(), torch.autograd.grad(loss, list(head.parameters())), strict=True
        ):
            parameter.data -= 0.001 * slope
        seen.append(scores.plain_losses().mean().item())
    assert seen[-1] < seen[0]
