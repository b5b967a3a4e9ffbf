import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.losses import build_head
from facerec.losses.head import Rows, Scores
from facerec.training.coteaching import MODES, comine, exchange, keep_rate, mutual_kl


def score(cosine, labels, margin=0.0, scale=16.0):
    """Return what a head with an additive margin says of cosines (n, c)."""
    target = cosine.gather(1, labels[:, None])
    logits = scale * cosine.scatter(1, labels[:, None], target - margin)
    return Scores(Rows(cosine, target, labels, labels), logits, scale)


def random_pair(rows=12, classes=4, seed=0, margin=0.2):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    nets = []
    for _ in range(2):
        cosine = torch.rand(rows, classes, generator=generator) * 1.2 - 0.6
        nets.append(score(cosine, labels, margin))
    return nets[0], nets[1], labels


def rows_of(mask):
    return mask.nonzero()[:, 0].tolist()


def choose_by_hand(scores, other, labels, rate, mode):
    """Return the rows that `scores` would hand to its peer."""
    said, peer = scores.logits.argmax(dim=1).tolist(), other.logits.argmax(dim=1).tolist()
    own = labels.tolist()
    rows = range(len(own))
    if mode == "disagreement":
        rows = [i for i in rows if said[i] != peer[i]]
    if mode == "either_wrong":
        rows = [i for i in rows if not said[i] == peer[i] == own[i]]
    losses = scores.plain_losses().tolist()
    ranked = sorted(rows, key=lambda i: (losses[i], i))
    return sorted(ranked[: max(1, round(rate * len(ranked)))] if ranked else [])


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1), (0.5, 0.975), (1, 0.95), (25, 0.9)])
def test_the_growing_schedule_has_the_golden_values(epoch, rate):
    found = keep_rate(epoch, 0.05, "growing", gradual_epochs=1, total_epochs=25)
    assert found == pytest.approx(rate)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1), (5, 0.85), (10, 0.7), (11, 0.7), (99, 0.7)])
def test_the_linear_schedule_forgets_the_noise_rate_over_ten_epochs(epoch, rate):
    assert keep_rate(epoch, 0.3) == pytest.approx(rate)
    assert keep_rate(epoch + 2, 0.3, warmup_epochs=2) == pytest.approx(rate)
    assert keep_rate(min(epoch, 2), 0.3, warmup_epochs=2) == 1


@given(
    noise=st.floats(0, 0.9),
    gradual=st.floats(0.1, 30),
    total=st.floats(1, 60),
    warmup=st.floats(0, 5),
    schedule=st.sampled_from(["linear", "growing"]),
)
@settings(deadline=None)
def test_schedules_fall_from_one_and_keep_some(noise, gradual, total, warmup, schedule):
    rates = [keep_rate(total * i / 40, noise, schedule, gradual, total, warmup) for i in range(41)]
    assert rates[0] == 1 and all(a >= b - 1e-12 for a, b in itertools.pairwise(rates))
    most = noise if schedule == "linear" else min(2 * noise, 0.9)
    assert rates[-1] >= 1 - most - 1e-9 and rates[-1] >= 0.1 - 1e-9
    if schedule == "growing" and total - warmup > 2 * gradual:
        assert rates[-1] == pytest.approx(1 - most)


def test_bad_schedules_are_explained():
    with pytest.raises(InputError, match="needs total_epochs, got none"):
        keep_rate(1, 0.1, "growing")
    with pytest.raises(InputError, match=r"schedule must be one of.*did you mean 'growing'"):
        keep_rate(1, 0.1, "growin")
    with pytest.raises(InputError, match=r"noise_rate must lie in \[0, 0.9\], got 0.95"):
        keep_rate(1, 0.95)


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 500), rate=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_exchange_is_that_of_brute_force_and_symmetric(mode, seed, rate):
    a, b, labels = random_pair(seed=seed)
    for_a, for_b = exchange(a, b, labels, rate, mode)
    assert rows_of(for_a) == choose_by_hand(b, a, labels, rate, mode)
    assert rows_of(for_b) == choose_by_hand(a, b, labels, rate, mode)
    swapped = exchange(b, a, labels, rate, mode)
    assert torch.equal(swapped[0], for_b) and torch.equal(swapped[1], for_a)


def test_a_rate_of_one_gives_both_nets_all_rows():
    a, b, labels = random_pair()
    assert all(mask.all() for mask in exchange(a, b, labels, 1.0))


def test_a_hard_row_that_only_the_margin_makes_wrong_is_still_taught():
    cosine = torch.tensor([[0.5, 0.4], [0.9, 0.0], [0.1, 0.8]])
    labels = torch.zeros(3, dtype=torch.int64)
    a = score(cosine, labels, margin=0.2)  # row 0 is right, but not by the margin
    assert rows_of(exchange(a, a, labels, 1.0, "either_wrong")[0]) == [0, 2]
    # Losses are those without margins: row 1, 0, 2 from small to large.
    assert rows_of(exchange(a, a, labels, 0.7, "plain")[0]) == [0, 1]


def test_no_disagreement_selects_nothing_and_trains_on_nothing():
    a, b, labels = random_pair(rows=6)
    for mode in ("disagreement", "either_wrong"):
        right = score(2 * a.rows.target_mask().float() - 1, labels)
        for mask in exchange(right, right, labels, 0.5, mode):
            assert mask.dtype == torch.bool and not mask.any()
            loss = (mask.float() * b.losses()).sum() / mask.sum().clamp_min(1)
            assert float(loss) == 0


def test_the_floor_reaches_both_directions():
    a, b, labels = random_pair(rows=16, seed=3)
    images = torch.where(labels == 0, 1, 100)
    masks = exchange(a, b, labels, 0.3, "plain", 1, images)
    assert all(mask[labels == 0].any() for mask in masks)


def test_an_unknown_mode_is_explained():
    a, b, labels = random_pair()
    with pytest.raises(InputError, match=r"mode must be one of.*did you mean 'disagreement'"):
        exchange(a, b, labels, 0.5, "disagreemnt")


def test_comining_drops_what_both_call_noise_and_swaps_what_is_sure():
    losses_a = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    losses_b = torch.tensor([1.0, 0, 4, 2, 3, 9, 5, 8, 6, 7])
    # R 0.8: a drops 8 and 9, b drops 5 and 7: nobody drops the same. Confident: four rows.
    for_a, for_b = comine(losses_a, losses_b, 0.8)
    raw_a = torch.tensor([2, 2, 0, 2, 2, 1, 1, 1, 1, 1.0])  # b is sure of 0 1 3 4, a of 2 too
    raw_b = torch.tensor([2, 2, 2, 2, 0, 1, 1, 1, 1, 1.0])
    assert torch.allclose(for_a, raw_a * 9 / raw_a.sum())
    assert torch.allclose(for_b, raw_b * 9 / raw_b.sum())
    # R 0.5 with the same order: the upper half is noise to both.
    same = comine(losses_a, losses_a, 0.5, boost=0.0)
    assert same[0].tolist() == same[1].tolist() == [1] * 5 + [0] * 5
    # The surer a row, the more it counts.
    cosines = torch.linspace(0.9, -0.1, 10)
    weights, _ = comine(losses_a, losses_a, 1.0, cosines, cosines, confident=1.0, boost=2.0)
    expected = 1 + 2 * cosines.clamp(0, 1)
    assert torch.allclose(weights, expected * 10 / expected.sum())


@given(seed=st.integers(0, 300), rate=st.floats(0, 1), boost=st.floats(0, 10))
@settings(max_examples=60, deadline=None)
def test_comining_is_symmetric_and_keeps_the_size_of_the_gradient(seed, rate, boost):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.randint(0, 6, (2, 9), generator=generator).float()
    cosines = torch.rand(2, 9, generator=generator)
    for_a, for_b = comine(*losses, rate, *cosines, boost=boost)
    swapped = comine(*losses.flip(0), rate, *cosines.flip(0), boost=boost)
    assert torch.equal(swapped[0], for_b) and torch.equal(swapped[1], for_a)
    for weights in (for_a, for_b):
        assert float(weights.sum()) == pytest.approx(int((weights > 0).sum()), rel=1e-5)


def test_comining_nothing_gives_nothing():
    empty = torch.empty(0)
    assert [w.tolist() for w in comine(empty, empty, 0.5)] == [[], []]


def test_mutual_divergence_is_by_hand():
    own, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p, q = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))  # at T = 2
    expected = 4 * (p * math.log(p / q) + q * math.log(q / p))
    assert mutual_kl(own, other, 2.0).tolist() == [pytest.approx(expected)]
    # Both directions are sums over a distribution: none is divided by T a second time.
    assert mutual_kl(other, own, 2.0).tolist() == [pytest.approx(expected)]


def test_mutual_learning_of_equal_nets_changes_nothing():
    logits = (64 * torch.rand(5, 7, dtype=torch.float64)).requires_grad_()
    losses = mutual_kl(logits, logits.detach().clone(), 8.0)
    assert losses.tolist() == [0] * 5
    losses.sum().backward()
    assert logits.grad.abs().max() < 1e-14


def test_mutual_learning_moves_only_the_learner_by_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    other = torch.randn(4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    mutual_kl(own, other, 3.0).sum().backward()
    assert other.grad is None
    expected = 3 * ((own / 3).softmax(1) - (other / 3).softmax(1))
    assert torch.allclose(own.grad, expected)
    assert torch.autograd.gradcheck(lambda x: mutual_kl(x, other, 3.0), (own,))
    assert mutual_kl(own.half(), other.half(), 3.0).dtype == torch.float32
    with pytest.raises(InputError, match="temperature must lie in"):
        mutual_kl(own, other, 0)


def build_clusters(classes=8, each=40, flips=0.3):
    generator = torch.Generator().manual_seed(1)
    truth = torch.arange(classes).repeat_interleave(each)
    centres = torch.randn(classes, 16, generator=generator)
    points = centres[truth] + 0.5 * torch.randn(len(truth), 16, generator=generator)
    wrong = torch.randperm(len(truth), generator=generator)[: round(flips * len(truth))]
    labels = truth.clone()
    shift = torch.randint(1, classes, (len(wrong),), generator=generator)
    labels[wrong] = (truth[wrong] + shift) % classes
    return points, labels, labels == truth


def build_net(seed):
    torch.manual_seed(seed)
    backbone = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16)
    )
    head = build_head("cosface", num_classes=8, embedding_dim=16, scale=16.0, margin=0.1)
    params = [*backbone.parameters(), *head.parameters()]
    return backbone, head, torch.optim.SGD(params, lr=0.05, momentum=0.9)


@pytest.mark.parametrize("mode", ["plain", "either_wrong"])
def test_two_nets_find_the_rows_with_right_labels(mode):
    points, labels, clean = build_clusters()
    nets = [build_net(1), build_net(2)]
    generator = torch.Generator().manual_seed(0)
    precision = []
    for step in range(200):
        rows = torch.randperm(len(labels), generator=generator)[:64]
        scores = [head.score(backbone(points[rows]), labels[rows]) for backbone, head, _ in nets]
        rate = keep_rate(step / 5, 0.3, gradual_epochs=4, warmup_epochs=1)
        masks = exchange(*scores, labels[rows], rate, "plain" if step < 100 else mode)
        for (_, _, optimizer), made, mask in zip(nets, scores, masks, strict=True):
            optimizer.zero_grad()
            ((made.losses() * mask).sum() / mask.sum().clamp_min(1)).backward()
            optimizer.step()
        kept = exchange(*scores, labels[rows], 0.7)[0]
        precision.append(float(clean[rows][kept].float().mean()))
    early, late = sum(precision[:10]) / 10, sum(precision[-50:]) / 50
    assert early > 0.7  # the share of right labels
    assert late > 0.9 and late > early + 0.05
