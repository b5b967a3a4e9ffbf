"""Classes divided among processes: who holds which, and the parts of a softmax across them.

Here in one process, where the answers are those of plain heads; tests/integration has two.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from facerec.checks import InputError
from facerec.losses import build_head
from facerec.losses.head import Rows
from facerec.losses.partial_fc import PartialFC
from facerec.losses.sharding import (
    ShardedScores,
    gather_shards,
    gather_with_gradient,
    iter_shards,
    shard_range,
    sharded_cross_entropy,
    slice_shard,
    sum_with_gradient,
    take_own_rows,
)

C, D, N = 7, 5, 6


def draw(n=N, c=C, scale=10.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(c, (n,), generator=generator)


def divide(scores):
    """Return the same scores as a rank has them that holds all classes and rows."""
    return ShardedScores(
        scores.rows, scores.logits, scores.scale, scores.penalty, scores.classes, (N,)
    )


@settings(max_examples=50, deadline=None)
@given(c=st.integers(1, 60), ranks=st.integers(1, 60))
def test_every_class_has_one_rank_and_ranks_differ_by_one(c, ranks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(ranks))
        ranges = [shard_range(c, rank) for rank in range(ranks)]
        for rank in range(ranks):
            patch.setenv("RANK", str(rank))
            assert shard_range(c) == ranges[rank]
    assert [number for first, last in ranges for number in range(first, last)] == [*range(c)]
    sizes = [last - first for first, last in ranges]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(C,), (3 * C, 2), (2 * C, 2, 2)])
def test_slices_of_all_ranks_make_the_whole(monkeypatch, ranks, shape):
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    parts = []
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(slice_shard(whole, C))
    assert torch.equal(torch.cat(parts), whole)
    parts[0].zero_()  # a copy
    assert whole.flatten()[1] == 1


def test_rows_of_other_identities_are_refused():
    with pytest.raises(InputError, match="must have a multiple of 7 rows, got 15; it was written"):
        slice_shard(torch.zeros(15, 2), C)


def test_one_process_holds_all_classes():
    weight = torch.randn(C, D, requires_grad=True)
    [(first, part)] = iter_shards(weight, C)
    assert first == 0 and torch.equal(part, weight) and not part.requires_grad
    assert torch.equal(gather_shards(weight, C), weight)


def test_rows_and_sums_of_one_process_keep_their_gradient():
    rows = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gather_with_gradient(x, [N]), rows)
    assert torch.autograd.gradcheck(sum_with_gradient, rows)
    assert torch.equal(gather_with_gradient(rows, [N]), rows)
    assert torch.equal(sum_with_gradient(rows), rows)


@pytest.mark.parametrize("scale", [1.0, 64.0, 1e5])
def test_cross_entropy_is_torchs_with_any_row_weights(scale):
    logits, columns = draw(scale=scale)
    weights = torch.rand(N, dtype=torch.float64)
    found = sharded_cross_entropy(logits, columns, [N])
    (weights * found).sum().backward()
    gradient, logits.grad = logits.grad, None
    expected = cross_entropy(logits, columns, reduction="none")
    (weights * expected).sum().backward()
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient, logits.grad, rtol=1e-12, atol=1e-12)


def test_cross_entropy_agrees_with_finite_differences():
    logits, columns = draw(scale=2.0)
    assert torch.autograd.gradcheck(lambda z: sharded_cross_entropy(z, columns, [N]), logits)


def test_a_row_whose_class_lies_elsewhere_pushes_all_columns_here():
    logits, _ = draw(n=1)
    losses = sharded_cross_entropy(logits, torch.tensor([-1]), [1])
    losses.sum().backward()
    assert torch.allclose(logits.grad, logits.softmax(dim=1))


def test_cross_entropy_leaves_its_input_and_may_run_backward_twice():
    logits, columns = draw()
    before = logits.detach().clone()
    losses = sharded_cross_entropy(logits, columns, [N])
    first = torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(losses.sum(), logits)[0], first)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("name", ["arcface", "curricularface", "softmax"])
@pytest.mark.parametrize("sampled", [False, True])
def test_answers_of_a_rank_that_holds_all_are_those_of_plain_scores(name, sampled):
    torch.manual_seed(0)
    options = {"bias": False} if name == "softmax" else {}
    head = build_head(name, num_classes=40, embedding_dim=D, **options)
    head = PartialFC(head, sample_rate=0.4 if sampled else 1.0)
    plain = head.score(torch.randn(N, D), torch.randint(40, (N,)))
    ours = divide(plain)
    for name in ("losses", "plain_losses", "target_cosine", "target_logits"):
        assert torch.allclose(getattr(ours, name)(), getattr(plain, name)(), atol=1e-5), name
    assert not ours.target_logits().requires_grad and not ours.plain_losses().requires_grad
    for found, expected in zip(ours.hardest_negative(), plain.hardest_negative(), strict=True):
        assert torch.equal(found, expected)
    for margins in (True, False):
        assert torch.equal(ours.predictions(margins), plain.predictions(margins))


def test_target_logits_have_margin_and_scale():
    cosine = torch.tensor([[0.5, 0.1], [0.2, 0.8]])
    head = build_head("cosface", num_classes=2, embedding_dim=D, scale=10.0, margin=0.3)
    rows = head.build_rows(cosine, torch.tensor([0, 1]), None)
    scores = ShardedScores(rows, head.transform(rows), 10.0, counts=(2,))
    assert torch.allclose(scores.target_logits(), torch.tensor([2.0, 5.0]))
    elsewhere = Rows(rows.cosine, rows.target, rows.labels, torch.tensor([0, -1]))
    scores = ShardedScores(elsewhere, scores.logits, 10.0, counts=(2,))
    assert torch.allclose(scores.target_logits(), torch.tensor([2.0, 0.0]))


def test_of_equal_logits_the_lowest_class_counts_and_nan_is_the_largest():
    logits = torch.tensor([[1.0, 3, 3], [float("nan"), 9, 0], [-torch.inf, -torch.inf, 0]])
    columns = torch.tensor([0, 1, 2])
    rows = Rows(logits, logits.gather(1, columns[:, None]), columns + 4, columns)
    scores = ShardedScores(rows, logits, 1.0, None, torch.tensor([4, 5, 6]), (3,))
    assert scores.predictions().tolist() == [5, 4, 6]
    value, number = scores.hardest_negative()
    assert number.tolist() == [5, 4, 4]
    assert value.tolist() == [3, torch.inf, -torch.inf]


@pytest.mark.parametrize("norms", [None, torch.arange(1.0, N + 1)[:, None]])
def test_own_rows_are_cut_out_of_all_ranks(monkeypatch, norms):
    cosine, labels = draw()
    rows = Rows(cosine, cosine.gather(1, labels[:, None]), labels, labels, norms)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(take_own_rows(rows, (2, 0, 4)))
    assert [len(part.labels) for part in parts] == [2, 0, 4]
    for name in ("cosine", "target", "labels", "columns"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(rows, name))
    if norms is None:
        assert all(part.norms is None for part in parts)
    else:
        assert torch.equal(torch.cat([part.norms for part in parts]), norms)
