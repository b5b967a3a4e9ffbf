"""Heads that find scale or margins themselves: METHODS 2.1 to 2.3, and statistics of ranks."""

import math
import statistics
import threading

import pytest
import torch
from torch.nn.functional import cross_entropy

from facerec import dist
from facerec.losses import build_head

COSINES = [0.6, 0.5, 0.2, -0.3]
LABEL = torch.tensor([0])


def build(name, c=4, d=8, **params):
    torch.manual_seed(0)
    return build_head(name, num_classes=c, embedding_dim=d, **params).double()


def observe(head, cosines, labels, norms=None):
    cosine = torch.tensor(cosines, dtype=torch.float64)
    norms = None if norms is None else torch.tensor(norms, dtype=torch.float64)
    with torch.no_grad():
        head.observe(head.build_rows(cosine, torch.tensor(labels), norms))


@pytest.mark.parametrize(
    ("classes", "scale"),
    [(4, 1.5537), (1000, 9.7676), (10572, 13.1039), (85742, 16.0642), (2, 0.9803), (3, 0.9803)],
)
def test_adacos_starts_at_the_static_scale(classes, scale):
    head = build_head("adacos", num_classes=classes, embedding_dim=2)
    assert float(head.scale) == pytest.approx(scale, abs=5e-5)
    assert "scale" in head.state_dict()


def test_adacos_hand_case():
    head = build("adacos")
    start = math.sqrt(2) * math.log(3)
    assert sum(math.exp(start * c) for c in COSINES[1:]) == pytest.approx(4.16645, abs=1e-5)
    observe(head, [COSINES], [0])
    assert float(head.scale) == pytest.approx(2.01817, abs=1e-5)
    logits = head.logits(torch.tensor([COSINES], dtype=torch.float64), LABEL)
    assert logits[0].tolist() == pytest.approx([2.01817 * c for c in COSINES], abs=1e-5)


def test_adacos_uses_the_lower_median_and_the_mean_over_rows():
    cosines = [[0.9, 0.1, 0.0], [0.3, 0.95, -0.2], [0.8, -0.1, 0.2], [0.1, 0.2, 0.99]]
    labels = [0, 1, 0, 2]
    head = build("adacos", c=3, scale=10.0)
    observe(head, cosines, labels)
    others = [
        c for row, y in zip(cosines, labels, strict=True) for j, c in enumerate(row) if j != y
    ]
    mean = sum(math.exp(10 * c) for c in others) / 4
    angle = statistics.median_low(math.acos(row[y]) for row, y in zip(cosines, labels, strict=True))
    assert float(head.scale) == pytest.approx(math.log(mean) / math.cos(angle))


def test_adacos_static_and_extreme_scales():
    static = build("adacos", dynamic=False)
    observe(static, [COSINES], [0])
    assert float(static.scale) == pytest.approx(1.5537, abs=5e-5)
    # exp(9000 * .999) overflows any float.
    large = build("adacos", scale=9000.0)
    observe(large, [[0.999, 0.999, 0.2, -0.3]], [0])
    assert float(large.scale) == pytest.approx(9000, rel=1e-3)
    # All others opposite: the logarithm is negative, the scale is not.
    opposite = build("adacos", scale=9.0)
    observe(opposite, [[1.0, -1.0, -1.0, -1.0]], [0])
    assert float(opposite.scale) == pytest.approx(0.1)


@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.261799), (16.0, 0.261208)])
def test_adamargin_hand_cases(scale, margin):
    head = build("adamargin", scale=scale, decay=0.0)
    observe(head, [COSINES], [0])
    assert head.margin.item() == pytest.approx(margin, abs=1e-6)


@pytest.mark.parametrize("k", [0.5, 0.7])
def test_adamargin_puts_a_near_sample_at_probability_k(k):
    head = build("adamargin", scale=16.0, decay=0.0, k=k, min_margin=0.0, max_margin=1.5)
    cosines = [[0.8, 0.5, 0.2, -0.3]]  # closer than pi / 4
    observe(head, cosines, [0])
    loss = cross_entropy(head.logits(torch.tensor(cosines, dtype=torch.float64), LABEL), LABEL)
    assert loss.item() == pytest.approx(-math.log(k), abs=1e-12)


def test_adamargin_moves_slowly_and_within_its_bounds():
    head = build("adamargin", margin=0.5)
    observe(head, [COSINES], [0])
    assert head.margin.item() == pytest.approx(0.99 * 0.5 + 0.01 * 0.261799, abs=1e-7)
    # More than the scale can hold apart: no angle solves it, the lower bound counts.
    crowded = build("adamargin", scale=1.0, decay=0.0, min_margin=0.15)
    observe(crowded, [[0.9, 0.9, 0.9, 0.9]], [0])
    assert crowded.margin.item() == pytest.approx(0.15)
    easy = build("adamargin", decay=0.0, max_margin=0.6)
    observe(easy, [[0.999, -0.5, -0.5, -0.5]], [0])
    assert easy.margin.item() == pytest.approx(0.6)


@pytest.mark.parametrize("grad", ["exact", "straight_through"])
@pytest.mark.parametrize("kind", ["cosine", "angular"])
def test_adaptiveface_rows_and_margin_gradients(kind, grad):
    head = build("adaptiveface", kind=kind, scale=16.0, grad=grad)
    low, high = (0.3, 0.4) if kind == "cosine" else (0.5, 0.5)
    assert (head.margins >= low).all() and (head.margins <= high).all()
    head.margins.data = torch.tensor([0.35, 0.1, 0.2, 0.5], dtype=torch.float64)
    cosine = torch.tensor([COSINES, COSINES], dtype=torch.float64)
    labels = torch.tensor([0, 3])
    logits = head.logits(cosine, labels)
    theta = [math.acos(0.6), math.acos(-0.3)]
    if kind == "cosine":
        expected, slopes = [0.25, -0.8], [-1, -1]
    else:
        expected = [math.cos(theta[0] + 0.35), math.cos(theta[1] + 0.5)]
        slopes = [-math.sin(theta[0] + 0.35), -math.sin(theta[1] + 0.5)]
    assert [logits[0, 0].item(), logits[1, 3].item()] == pytest.approx([16 * e for e in expected])
    assert logits[0, 1:].tolist() == [8, 3.2, -4.8]
    logits.sum().backward()
    assert head.margins.grad.tolist() == pytest.approx([16 * slopes[0], 0, 0, 16 * slopes[1]])


def test_adaptiveface_margins_grow_by_the_rate_where_nothing_holds_them():
    head = build("adaptiveface", scale=64.0, strength=0.8)
    head.margins.data.fill_(0.3)
    head.weight.data = torch.eye(4, 8, dtype=torch.float64)
    embeddings = torch.eye(4, 8, dtype=torch.float64)[:2]  # all correct: p is 1 up to e^-44
    scores = head.score(embeddings, torch.tensor([0, 1]))
    (scores.losses().mean() + scores.penalty).backward()
    head.margins.data -= 0.1 * head.margins.grad
    # lr * lambda / c with lambda = strength * c / n, seen or not.
    assert head.margins.tolist() == pytest.approx([0.3 + 0.1 * 0.8 / 2] * 4, abs=1e-12)


def test_adaptiveface_balance_does_not_depend_on_classes_or_ranks(monkeypatch):
    wide, narrow = build("adaptiveface", c=40), build("adaptiveface", c=4)
    cosine = torch.zeros(6, 40, dtype=torch.float64)
    labels = torch.zeros(6, dtype=torch.int64)

    def slope(head, c):
        penalty = head.penalty(head.build_rows(cosine[:, :c], labels, None))
        return torch.autograd.grad(penalty, head.margins)[0]

    assert torch.equal(slope(wide, 40)[:4], slope(narrow, 4))
    assert slope(narrow, 4)[0].item() == pytest.approx(-0.5 / 6)
    monkeypatch.setattr(dist, "world_size", lambda: 3)
    assert slope(narrow, 4)[0].item() == pytest.approx(-0.5 / 18)


@pytest.mark.parametrize(("kind", "low", "high"), [("cosine", 0, 1), ("angular", 0, 0.8)])
def test_adaptiveface_margins_are_clamped_each_training_step(kind, low, high):
    head = build("adaptiveface", kind=kind)
    head.margins.data = torch.tensor([-0.5, 0.2, 1.7, 0.9], dtype=torch.float64)
    out_of_range = head.margins.tolist()
    embeddings = torch.randn(4, 8, dtype=torch.float64)
    inside = head.eval()(embeddings, torch.arange(4))
    assert head.margins.tolist() == out_of_range
    assert torch.equal(head.train()(embeddings, torch.arange(4)), inside)
    assert head.margins.tolist() == [min(max(m, low), high) for m in out_of_range]


class Ranks:
    """Stand-ins for `facerec.dist`, where each thread is a rank."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count)
        self.slots = [None] * count
        self.own = threading.local()

    def exchange(self, tensor):
        self.slots[self.own.rank] = tensor
        self.barrier.wait(timeout=20)
        every = list(self.slots)
        self.barrier.wait(timeout=20)
        return every

    def sum_over_ranks(self, tensor):
        return torch.stack(self.exchange(tensor)).sum(dim=0)

    def gather_rows(self, tensor):
        return torch.cat(self.exchange(tensor))

    def run(self, rank, job):
        self.own.rank = rank
        job(rank)


@pytest.mark.parametrize("parts", [(5, 8), (13, 0), (1, 12), (4, 4, 5)])
@pytest.mark.parametrize("name", ["adacos", "adamargin", "curricularface", "adaface"])
def test_statistics_are_those_of_all_ranks(name, parts, monkeypatch):
    generator = torch.Generator().manual_seed(4)
    embeddings = 20 * torch.randn(13, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (13,), generator=generator)
    whole = build(name)
    whole(embeddings, labels)
    heads = [build(name) for _ in parts]
    pieces = list(zip(embeddings.split(parts), labels.split(parts), strict=True))
    ranks = Ranks(len(parts))
    monkeypatch.setattr(dist, "sum_over_ranks", ranks.sum_over_ranks)
    monkeypatch.setattr(dist, "gather_rows", ranks.gather_rows)
    threads = [
        threading.Thread(target=ranks.run, args=(r, lambda r: heads[r](*pieces[r])))
        for r in range(len(parts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    fresh = build(name).state_dict()
    for key, value in whole.named_buffers():
        assert not torch.equal(value, fresh[key])
        for head in heads:
            assert torch.allclose(head.get_buffer(key), value, rtol=1e-12)
