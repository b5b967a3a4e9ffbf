import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from facerec.checks import InputError
from facerec.losses import build_head, head_names
from facerec.losses.head import pool_sub_centers

COSINES = [0.6, 0.5, 0.2, -0.3]
PLAIN = [0.5, 0.2, -0.3]
NORMS = {"mean": 50.0, "std": 9.999, "h": 0.333}  # norms 40, 50, 60 are z = -1, 0, 1
# METHODS section 0.4, s = 16, label 0: head, parameters, norm, target / s, negatives / s, loss.
GOLDEN = [
    ("normface", {}, None, 0.600000, PLAIN, 0.185283),
    ("cosface", {"margin": 0.35}, None, 0.250000, PLAIN, 4.026202),
    ("arcface", {"margin": 0.5}, None, 0.143009, PLAIN, 5.723327),
    ("combined", {"m1": 1, "m2": 0.3, "m3": 0.2}, None, 0.136786, PLAIN, 5.822591),
    ("sphereface", {"margin": 1.35}, None, 0.313568, PLAIN, 3.040128),
    (
        "negative_arcface",
        {"margin": 0.3, "negative_margin": 0.2, "top_k": 1},
        None,
        0.336786,
        [0.662086, 0.2, -0.3],
        5.210891,
    ),
    (
        "negative_arcface",
        {"margin": 0.3, "negative_margin": 0.2, "top_k": 2},
        None,
        0.336786,
        [0.662086, 0.390669, -0.3],
        5.223127,
    ),
    (
        "negative_arcface",
        {"margin": 0.5, "negative_margin": 0.2, "top_k": 3},
        None,
        0.143009,
        [0.662086, 0.390669, -0.104502],
        8.318396,
    ),
    ("mv_arcface", {"t": 0.12, "mode": "adaptive"}, None, 0.143009, [0.68, 0.344, -0.3], 8.596655),
    ("mv_arcface", {"t": 0.12, "mode": "fixed"}, None, 0.143009, [0.62, 0.32, -0.3], 7.640531),
    ("sv_arcface", {"t": 1.2, "margin": 0.5}, None, 0.143009, [0.8, 0.44, -0.3], 10.515028),
    ("curricularface", {"t": 0.3, "margin": 0.5}, None, 0.143009, [0.4, 0.1, -0.3], 4.136177),
    (
        "arcnegface",
        {"alpha": 1.2, "sigma": 2.0},
        None,
        0.143009,
        [0.688880, 0.437663, -0.238513],
        8.751891,
    ),
    ("adaface", {"margin": 0.4, **NORMS}, 40.0, 0.221640, PLAIN, 4.473432),
    ("adaface", {"margin": 0.4, **NORMS}, 50.0, 0.2, PLAIN, 4.816328),
    ("adaface", {"margin": 0.4, **NORMS}, 60.0, 0.167730, PLAIN, 5.329372),
    ("magface", {}, 10.0, 0.192296, PLAIN, 4.938655),
    ("magface", {}, 60.0, 0.018500, PLAIN, 7.712645),
    ("magface", {}, 110.0, -0.155861, PLAIN, 10.502000),
    ("arcsin", {"margin": 0.5, "offset": 0.3}, None, 0.241102, PLAIN, 4.166201),
    ("liarcface", {"margin": 0.45}, None, 0.123187, [0.333333, 0.128188, -0.193973], 3.432257),
    # By hand: the only hard negative is .5, so that m = .4 + .2 * .5 and c_1 = 1.1 * .5 + .2.
    ("npcface", {}, None, 0.143009, [0.75, 0.2, -0.3], 9.712066),
    # Rows that must equal those of another head.
    ("softmax", {}, None, 0.600000, PLAIN, 0.185283),
    ("subcenter", {"margin": 0.5}, None, 0.143009, PLAIN, 5.723327),
    ("adamargin", {"margin": 0.5}, None, 0.143009, PLAIN, 5.723327),
    ("adacos", {}, None, 0.600000, PLAIN, 0.185283),
]
# Its margins are drawn: its rows are in test_heads_adaptive.py.
ELSEWHERE = {"adaptiveface"}
GRADS = ["exact", "straight_through"]


def build(name, c=5, d=8, seed=0, **params):
    torch.manual_seed(seed)
    return build_head(name, num_classes=c, embedding_dim=d, **params)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("name", "params", "norm", "target", "negatives", "loss"), GOLDEN)
def test_golden_rows(name, params, norm, target, negatives, loss, dtype, tolerance, grad):
    head = build(name, c=4, scale=16, grad=grad, **params)
    label = torch.tensor([0])
    norms = None if norm is None else torch.tensor([norm], dtype=dtype)
    logits = head.logits(torch.tensor([COSINES], dtype=dtype), label, norms)
    assert logits.dtype == dtype
    # The table gives six digits.
    assert (logits[0] / 16).tolist() == pytest.approx([target, *negatives], abs=1e-6)
    assert cross_entropy(logits, label).item() == pytest.approx(loss, abs=tolerance)


def test_every_head_has_a_golden_row():
    assert {row[0] for row in GOLDEN} | ELSEWHERE == set(head_names())


@pytest.mark.parametrize(("name", "params", "norm", "target", "negatives", "loss"), GOLDEN)
def test_raw_embeddings_give_the_golden_rows_too(name, params, norm, target, negatives, loss):
    head = build(name, c=4, d=4, scale=16, **{**params, "sub_centers": 1}).double().eval()
    sine = [math.sqrt(1 - c * c) for c in COSINES]
    # Class centres around e0 in planes of their own, of any norm; the embedding is along e0.
    weight = torch.zeros(4, 5, dtype=torch.float64)
    for j, (c, s) in enumerate(zip(COSINES, sine, strict=True)):
        weight[j, 0], weight[j, j + 1] = c, s
    head.embedding_dim = 5
    lengths = [1.0, 1.0, 1.0, 1.0] if name == "softmax" else [1.0, 3.0, 0.2, 7.0]
    head.weight = torch.nn.Parameter(weight * torch.tensor(lengths)[:, None])
    length = 1.0 if name == "softmax" else norm or 4.0
    embeddings = torch.tensor([[length, 0, 0, 0, 0]], dtype=torch.float64)
    label = torch.tensor([0])
    assert cross_entropy(head(embeddings, label), label).item() == pytest.approx(loss, abs=1e-6)


def test_softmax_has_a_bias_and_norms_count():
    head = build("softmax", c=3, d=2, scale=2.0)
    head.weight.data = torch.tensor([[1.0, 2.0], [0.0, 3.0], [-1.0, 0.5]])
    head.bias.data = torch.tensor([0.5, 0.0, -1.0])
    logits = head(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))
    assert logits.tolist() == [[9.0, 6.0, -5.0]]
    assert not head.bounded
    plain = build("softmax", c=3, d=2, bias=False)
    plain.weight.data = head.weight.data
    assert plain(torch.tensor([[2.0, 1.0]]), torch.tensor([0])).tolist() == [[4.0, 3.0, -1.5]]
    assert dict(plain.named_parameters()).keys() == {"weight"}
    # A part of the classes has no part of the bias.
    assert plain.compare(torch.ones(1, 2), head.weight[:2]).shape == (1, 2)
    with pytest.raises(InputError, match="bias must be false"):
        head.compare(torch.ones(1, 2), head.weight[:2])
    with pytest.raises(InputError, match="filter_cosine must be null"):
        build("softmax", filter_cosine=0.4)


def test_sub_centers_let_the_nearest_one_count():
    head = build("subcenter", c=3, d=4, scale=8.0)
    assert head.sub_centers == 3 and head.weight.shape == (9, 4)
    embeddings = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 2])
    head(embeddings, labels).sum().backward()
    moved = head.weight.grad.view(3, 3, 4).abs().sum(dim=2) > 0
    unit = torch.nn.functional.normalize
    nearest = (unit(embeddings) @ unit(head.weight.detach()).T).view(2, 3, 3).argmax(dim=2)
    expected = torch.zeros(3, 3, dtype=torch.bool)
    for row in nearest:
        expected[torch.arange(3), row] = True
    assert torch.equal(moved, expected)
    # Of equal centres only the first gets the gradient.
    equal = torch.full((1, 6), 0.3, requires_grad=True)
    pool_sub_centers(equal, 3).sum().backward()
    assert equal.grad.tolist() == [[1, 0, 0, 1, 0, 0]]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_one_sub_center_is_arcface_bit_for_bit(margin):
    one = build("subcenter", sub_centers=1, margin=margin)
    arcface = build("arcface", margin=margin)
    embeddings = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 5
    assert torch.equal(one(embeddings, labels), arcface(embeddings, labels))


@pytest.mark.parametrize("name", sorted(set(head_names()) - {"softmax"}))
def test_filtered_classes_get_logit_zero_and_no_gradient(name):
    head = build(name, c=4, scale=16, filter_cosine=0.4)
    cosine = torch.tensor([[0.6, 0.5, 0.2, -0.3], [0.6, 0.1, 0.5, 0.45]], requires_grad=True)
    labels = torch.tensor([0, 1])
    logits = head.logits(cosine, labels, torch.tensor([30.0, 30.0]))
    assert logits[0, 1] == 0 and (logits[1, [0, 2, 3]] == 0).all()
    assert logits[0, 2] != 0 and logits[1, 1] != 0
    logits.sum().backward()
    assert cosine.grad[0, 1] == 0 and (cosine.grad[1, [0, 2, 3]] == 0).all()
    assert cosine.grad[0, 0] != 0 and cosine.grad[0, 3] != 0


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("arcface", {"margin": -0.1}, "margin must lie in"),
        ("arcface", {"grad": "none"}, "grad must be one of"),
        ("cosface", {"c": 1}, "num_classes must be at least 2"),
        ("arcface", {"sub_centers": 2.5}, "sub_centers must be a whole number in .*, got 2.5"),
        ("combined", {"m1": 0.5}, r"m1 must lie in \[1, 4\]"),
        ("combined", {"margin": 0.5}, "no parameter 'margin'.*available: scale, m1, m2, m3, grad"),
        ("sphereface", {"margin": 0.9}, "margin must lie in"),
        ("arcsin", {"margin": 0.8, "offset": 0.8}, "offset must lie in"),
        ("adacos", {"dynamic": "yes"}, "dynamic must be true or false, got 'yes'"),
        ("adamargin", {"min_margin": 0.6, "max_margin": 0.5}, "max_margin must lie in"),
        ("adaptiveface", {"kind": "cosin"}, "did you mean 'cosine'"),
        ("curricularface", {"decay": 1.1}, "decay must lie in"),
        ("adaface", {"std": "wide"}, "std must be a number"),
        ("magface", {"norm_low": 110.0}, "norm_high must be above norm_low"),
        ("magface", {"margin_low": 0.9}, "margin_high must lie in"),
        ("negative_arcface", {"top_k": 0}, "top_k must lie in"),
        ("negative_arcface", {"top_k": 1.5}, "top_k must be a whole number"),
        ("sv_arcface", {"t": 0.5}, "t must lie in"),
        ("mv_arcface", {"mode": "fix"}, "did you mean 'fixed'"),
        ("arcnegface", {"sigma": 0}, "sigma must lie in"),
        ("npcface", {"growth": 1.5}, "growth must lie in"),
        ("arcfase", {}, "did you mean 'arcface'"),
        ("arcface", {"margni": 0.3}, "did you mean 'margin'"),
    ],
)
def test_bad_parameters_are_named(name, params, message):
    with pytest.raises(InputError, match=message):
        build(name, **params)


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
    with pytest.raises(InputError, match=r"norms must have shape \(2,\).*got \(1,\)"):
        head.logits(torch.zeros(2, 5), torch.tensor([0, 1]), torch.ones(1))
    for name in ("adaface", "magface"):
        with pytest.raises(InputError, match=f"norms must be given to the head '{name}'"):
            build(name).logits(torch.zeros(2, 5), torch.tensor([0, 1]))


def test_initial_class_weights_are_small():
    torch.manual_seed(0)
    head = build_head("cosface", num_classes=200, embedding_dim=512)
    assert head.weight.norm(dim=1).mean().item() == pytest.approx(0.226, abs=0.003)
