import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec import dist
from facerec.checks import InputError
from facerec.losses.center import CenterLoss


def batch(n=12, c=5, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator)
    return embeddings, torch.randint(c, (n,), generator=generator)


def with_centres(c=5, d=4, alpha=0.5, seed=9):
    loss = CenterLoss(c, d, alpha)
    loss.centres.copy_(torch.randn(c, d, generator=torch.Generator().manual_seed(seed)))
    return loss


def test_one_sample_moves_its_centre_half_of_alpha():
    loss = CenterLoss(3, 2, alpha=0.5)
    loss.centres.copy_(torch.tensor([[1.0, 1.0], [5.0, -1.0], [0.0, 0.0]]))
    sample, label = torch.tensor([[3.0, 1.0]]), torch.tensor([0])
    assert loss(sample, label).item() == pytest.approx(2.0)  # ½ * 2²
    loss.update(sample, label)
    # alpha / (1 + 1) = a quarter of the way from (1, 1) to (3, 1); absent classes stay.
    assert loss.centres.tolist() == [[1.5, 1.0], [5.0, -1.0], [0.0, 0.0]]


def test_loss_is_the_papers_mean_and_zero_on_the_centre():
    loss = with_centres()
    embeddings, labels = batch()
    expected = sum(
        0.5 * float((x - loss.centres[y]).square().sum())
        for x, y in zip(embeddings, labels, strict=True)
    ) / len(labels)
    assert loss(embeddings, labels).item() == pytest.approx(expected, rel=1e-6)
    assert loss(loss.centres[labels], labels).item() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 20), st.sampled_from([0.0, 0.3, 1.0]))
def test_update_is_the_papers_rule_class_by_class(seed, n, alpha):
    loss = with_centres(alpha=alpha)
    before = loss.centres.double()
    embeddings, labels = batch(n, seed=seed)
    loss.update(embeddings, labels)
    for j in range(5):
        own = embeddings[labels == j].double()
        step = (before[j] - own).sum(dim=0) / (1 + len(own))
        expected = (before[j] - alpha * step).float()
        torch.testing.assert_close(loss.centres[j], expected)
        if not len(own):
            assert torch.equal(loss.centres[j].double(), before[j])


def test_gradient_is_the_offset_and_never_reaches_the_centres():
    loss = with_centres()
    embeddings, labels = batch()
    embeddings.requires_grad_()
    loss(embeddings, labels).backward()
    torch.testing.assert_close(embeddings.grad, (embeddings - loss.centres[labels]).detach() / 12)
    assert not loss.centres.requires_grad and not list(loss.parameters())
    loss.update(embeddings, labels)
    assert not loss.centres.requires_grad
    wide, where = batch()
    loss = loss.double()
    assert torch.autograd.gradcheck(
        lambda x: loss(x, where), wide.double().requires_grad_(), atol=1e-8
    )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_changes_the_centres_type(half):
    loss = with_centres()
    embeddings = torch.full((3, 4), 300.0, dtype=half, requires_grad=True)  # squares pass 65 504
    labels = torch.tensor([0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(embeddings, labels)
        loss.update(embeddings, labels)
    assert value.dtype == torch.float32 and torch.isfinite(value) and value > 65_504
    value.backward()
    assert torch.isfinite(embeddings.grad).all()
    assert loss.centres.dtype == torch.float32 and torch.isfinite(loss.centres).all()


def test_an_empty_batch_costs_nothing_and_keeps_the_graph():
    loss = with_centres()
    embeddings = torch.zeros(0, 4, requires_grad=True)
    value = loss(embeddings, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value.item() == 0 and embeddings.grad.shape == (0, 4)


def test_centres_are_saved_with_the_module():
    loss, other = with_centres(), CenterLoss(5, 4)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.centres, loss.centres)


def test_ranks_with_different_rows_end_with_equal_centres(monkeypatch):
    """Two ranks as two threads: every sum waits for both."""
    embeddings, labels = batch(9)
    split = {0: slice(0, 6), 1: slice(6, 9)}
    ranks = {rank: with_centres() for rank in split}
    meeting = threading.Barrier(2, timeout=20)
    brought, own = {}, threading.local()

    def sum_over_ranks(tensor):
        brought[own.rank] = tensor
        meeting.wait()
        total = brought[0] + brought[1]
        meeting.wait()
        return total

    def run(rank):
        own.rank = rank
        ranks[rank].update(embeddings[split[rank]], labels[split[rank]])

    monkeypatch.setattr(dist, "sum_over_ranks", sum_over_ranks)
    threads = [threading.Thread(target=run, args=(rank,)) for rank in split]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    alone = with_centres()
    alone.update(embeddings, labels)
    assert torch.equal(ranks[0].centres, ranks[1].centres)
    torch.testing.assert_close(ranks[0].centres, alone.centres)


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 3), [0, 1], r"embeddings must have shape \(n, 4\), got \(2, 3\)"),
        ((2, 4), [0], r"labels must have shape \(2,\)"),
        ((2, 4), [0, 5], r"labels must lie in \[0, 5\), got 5"),
        ((2, 4), [-1, 0], r"labels must lie in \[0, 5\), got -1"),
    ],
)
def test_what_does_not_fit_is_refused(shape, labels, message):
    loss = CenterLoss(5, 4)
    for call in (loss, loss.update):
        with pytest.raises(InputError, match=message):
            call(torch.zeros(shape), torch.tensor(labels))


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"embedding_dim": 0}, {"alpha": 1.5}])
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        CenterLoss(**{"num_classes": 5, "embedding_dim": 4, **wrong})
