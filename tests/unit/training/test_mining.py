import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from facerec.checks import InputError
from facerec.training.mining import (
    ImportanceDraw,
    draw_rows,
    gradient_scores,
    keep_hardest,
    refuse_contradictions,
    variance_gauge,
)


def hard_batch(rows=8, classes=5, seed=0):
    """Some rows are clearly right, some clearly wrong."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randint(0, classes, (rows,), generator=generator)
    push = torch.linspace(-4, 12, rows)[:, None] * one_hot(columns, classes)
    return torch.randn(rows, classes, generator=generator) + push, columns


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_the_hardest_rows_are_those_a_sort_finds(values, ratio):
    kept = keep_hardest(torch.tensor(values, dtype=torch.float32), ratio)
    count = max(1, round(ratio * len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert kept.nonzero()[:, 0].tolist() == sorted(expected)


def test_the_hardest_of_none_are_none_and_nan_is_the_hardest():
    assert keep_hardest(torch.empty(0), 0.5).tolist() == []
    losses = torch.tensor([1.0, math.nan, 3.0], requires_grad=True)
    kept = keep_hardest(losses, 0.4)
    assert kept.tolist() == [False, True, False] and not kept.requires_grad
    assert keep_hardest(losses, 1.0).all()
    with pytest.raises(InputError, match=r"ratio must lie in \[0, 1\], got 1.2"):
        keep_hardest(losses, 1.2)


def test_scores_are_the_norm_of_the_gradient_at_the_logits():
    logits, columns = hard_batch()
    logits.requires_grad_()
    cross_entropy(logits, columns, reduction="sum").backward()
    scores = gradient_scores(logits, columns)
    assert torch.allclose(scores, logits.grad.norm(dim=1), atol=1e-6)
    assert not scores.requires_grad and scores.max() <= math.sqrt(2)
    half = gradient_scores(logits.half(), columns)
    assert half.dtype == torch.float32 and torch.allclose(half, scores, atol=5e-3)
    wrong = gradient_scores(torch.tensor([[900.0, 0.0]]), torch.tensor([1]))
    assert wrong.tolist() == [pytest.approx(math.sqrt(2))]


@pytest.mark.parametrize(
    ("scores", "tau"),
    [
        ([1.0] * 7, 1.0),
        ([0.0] * 7 + [3.0], math.sqrt(8)),
        ([2, 2, 2, 2, 1, 1, 1, 1], 1.05409),
        ([0.0, 0.0], 1.0),
    ],
)
def test_gauge_has_the_closed_form(scores, tau):
    values = torch.tensor(scores, dtype=torch.float32)
    assert variance_gauge(values) == pytest.approx(tau, abs=5e-6)
    if values.sum() > 0:
        g = values.double() / values.sum()
        distance = ((g - 1 / len(g)) ** 2).sum() / (g**2).sum()
        assert variance_gauge(values) == pytest.approx(float((1 - distance) ** -0.5))


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.3])
def test_the_mean_of_weighed_losses_is_unbiased(floor):
    logits, columns = hard_batch(rows=12)
    losses = cross_entropy(logits, columns, reduction="none").double()
    scores = gradient_scores(logits, columns)
    generator = torch.Generator().manual_seed(1)
    means = []
    for _ in range(4000):
        rows, weights = draw_rows(scores, 6, generator, floor)
        assert rows.shape == weights.shape == (6,) and weights.dtype == torch.float32
        means.append(float((weights * losses[rows]).mean()))
    found = torch.tensor(means)
    sigma = float(found.std()) / math.sqrt(len(means))
    assert abs(float(found.mean()) - float(losses.mean())) < 3 * sigma
    # And it varies less than the mean of rows drawn uniformly.
    uniform = losses[torch.randint(0, 12, (4000, 6), generator=generator)].mean(dim=1)
    assert found.std() < 0.8 * uniform.std()


def test_weights_are_bounded_by_the_floor_and_rows_without_gradient_are_drawn():
    scores = torch.tensor([0.0, 0.0, 5.0])
    rows, weights = draw_rows(scores, 3000, torch.Generator().manual_seed(0), floor=0.1)
    assert weights.max() <= 10.001
    assert torch.bincount(rows, minlength=3).min() > 60
    same, _ = draw_rows(torch.zeros(4), 4000, torch.Generator().manual_seed(0))
    assert torch.bincount(same, minlength=4).min() > 850


def test_drawing_by_scores_begins_when_it_pays():
    logits, columns = hard_batch(rows=32)
    draws = ImportanceDraw(4, presample=8)
    assert draws.threshold == pytest.approx((32 + 3 * 4) / (3 * 4)) and not draws.is_on
    skewed = torch.zeros(32, 5)
    skewed[:, 0] = 50.0
    targets = torch.zeros(32, dtype=torch.int64)
    targets[7] = 1  # one row has all the gradient
    generator = torch.Generator().manual_seed(0)
    seen, tau = [], 1.0
    while not draws.is_on:
        rows, weights = draws.draw(skewed, targets, generator)
        tau = 0.9 * tau + 0.1 * math.sqrt(32)
        assert draws.tau == pytest.approx(tau, rel=1e-6)
        seen.append((rows, weights))
    assert len(seen) == 9
    for rows, weights in seen[:-1]:
        assert weights.tolist() == [1] * 4 and len(set(rows.tolist())) == 4
    rows, weights = seen[-1]
    assert rows.tolist() == [7] * 4 and weights[0] == pytest.approx(1 / 32 / 0.99, rel=1e-2)
    resumed = ImportanceDraw(4, presample=8)
    resumed.load_state_dict(draws.state_dict())
    assert resumed.is_on and resumed.tau == draws.tau
    a = draws.draw(logits, columns, torch.Generator().manual_seed(5))
    b = resumed.draw(logits, columns, torch.Generator().manual_seed(5))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_nan_logits_leave_the_gauge_and_draw_uniformly():
    logits, columns = hard_batch()
    logits[0, 0] = math.nan
    draws = ImportanceDraw(8, presample=1)
    draws.tau = 9.0
    rows, weights = draws.draw(logits, columns, torch.Generator().manual_seed(0))
    assert draws.tau == 9.0 and sorted(rows.tolist()) == list(range(8)) and (weights == 1).all()


def test_bad_draws_are_explained():
    logits, columns = hard_batch()
    with pytest.raises(InputError, match="at least 9 rows to draw from, got 8"):
        ImportanceDraw(9).draw(logits, columns)
    with pytest.raises(InputError, match="presample must lie in"):
        ImportanceDraw(4, presample=0.5)
    with pytest.raises(InputError, match="floor must lie in"):
        ImportanceDraw(4, floor=1.5)


@pytest.mark.parametrize(
    ("mining", "noise", "sampler", "head", "message"),
    [
        ("ohem", "coteaching", "shuffle", "", "largest losses and the other drops them"),
        ("ohem", "comining", "pk", "", "'ohem' and noise 'comining' contradict"),
        ("importance", "coteaching", "shuffle", "", "set mining.name or noise.name to none"),
        ("none", "coteaching", "adaptive", "", "repeats what the net gets wrong"),
        ("none", "comining", "adaptive", "", "take another sampler"),
        ("importance", "none", "pk", "", "breaks up the sampler's groups"),
        ("importance", "none", "pairs", "", "breaks up the sampler's groups"),
        ("importance", "none", "shuffle", "adaface", "those of hard rows"),
        ("ohm", "none", "shuffle", "", "mining.name must be one of.*did you mean 'ohem'"),
        ("none", "coteach", "shuffle", "", "noise.name must be one of.*did you mean 'coteaching'"),
    ],
)
def test_contradictions_are_refused_in_one_sentence(mining, noise, sampler, head, message):
    with pytest.raises(InputError, match=message) as caught:
        refuse_contradictions(mining=mining, noise=noise, sampler=sampler, head=head)
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)


@pytest.mark.parametrize(
    ("mining", "noise", "sampler", "head"),
    [
        ("none", "none", "adaptive", "adaface"),
        ("ohem", "none", "adaptive", "curricularface"),
        ("ohem", "mutual", "pk", "arcface"),
        ("importance", "none", "doppelganger", "arcface"),
        ("importance", "mutual", "shuffle", "subcenter"),
        ("none", "coteaching", "doppelganger", "subcenter"),
        ("none", "comining", "pk", "arcface"),
        ("none", "coteaching", "pairs", "adaface"),
    ],
)
def test_what_goes_together_is_allowed(mining, noise, sampler, head):
    refuse_contradictions(mining, noise, sampler, head)
