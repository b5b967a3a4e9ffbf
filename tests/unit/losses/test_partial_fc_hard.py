"""Hard prototype mining (METHODS 2.3): a step sees its classes and those most like them."""

import pytest
import torch
from torch.nn.functional import normalize

from facerec.losses import build_head, sharding
from facerec.losses.partial_fc import PartialFC

C, D = 20, 5


def build(c=C, sub_centers=1, **partial):
    torch.manual_seed(0)
    base = build_head("arcface", num_classes=c, embedding_dim=D, sub_centers=sub_centers)
    return PartialFC(base, sampling="hard_prototypes", **{"neighbours": 3, **partial})


def batch(labels):
    torch.manual_seed(1)
    return torch.randn(len(labels), D), torch.tensor(labels)


def find_by_hand(weight, sub_centers, count):
    """Return each class's `count` most similar others, from all pairs of centres."""
    centres = normalize(weight.detach(), dim=1).view(-1, sub_centers, D)
    found = []
    for own in range(len(centres)):
        best = (centres[own] @ centres.flatten(0, 1).T).view(sub_centers, -1, sub_centers)
        best = best.amax(dim=(0, 2))
        best[own] = -2
        found.append(sorted(range(len(centres)), key=lambda j: -best[j])[:count])
    return torch.tensor(found)


@pytest.mark.parametrize("block", [1, 50, 1 << 24])
@pytest.mark.parametrize("sub_centers", [1, 3])
@pytest.mark.parametrize("count", [1, 4, C - 1])
def test_the_nearest_classes_are_the_true_ones(monkeypatch, block, sub_centers, count):
    monkeypatch.setattr(sharding, "_BLOCK_VALUES", block)
    partial = build(sub_centers=sub_centers, neighbours=count)
    partial.refresh_neighbours()
    expected = find_by_hand(partial.head.weight, sub_centers, count)
    assert torch.equal(partial.nearest, expected)


def test_columns_are_the_batch_and_its_neighbours():
    partial = build()
    embeddings, labels = batch([7, 7, 2])
    scores = partial.score(embeddings, labels)
    near = find_by_hand(partial.head.weight, 1, 3)
    assert scores.classes.tolist() == sorted({7, 2, *near[7].tolist(), *near[2].tolist()})
    assert torch.equal(scores.classes[scores.rows.columns], labels)
    scores.losses().sum().backward()
    rows = partial.head.weight.grad.coalesce().indices()[0]
    assert torch.equal(rows, scores.classes)


def test_neighbours_are_found_anew_every_few_steps():
    partial = build(neighbours=1, refresh_steps=2)
    embeddings, labels = batch([0])
    before = partial.score(embeddings, labels).classes.tolist()  # step 0
    other = next(j for j in range(1, C) if j not in before)
    with torch.no_grad():
        partial.head.weight[other] = partial.head.weight[0]  # now the most similar
    assert partial.score(embeddings, labels).classes.tolist() == before  # step 1
    assert partial.score(embeddings, labels).classes.tolist() == [0, other]  # step 2


def test_a_resumed_run_keeps_the_neighbours_it_had():
    partial = build(refresh_steps=100)
    embeddings, labels = batch([3, 4])
    expected = partial.score(embeddings, labels).classes
    state = {name: value.clone() for name, value in partial.full_state().items()}
    with torch.no_grad():
        state["head.weight"] = torch.randn(C, D)  # moved on since they were found
    other = build(refresh_steps=100)
    other.load_full_state(state)
    assert torch.equal(other.score(embeddings, labels).classes, expected)
    assert torch.equal(other.nearest, partial.nearest)


def test_all_classes_may_be_neighbours():
    partial = build(c=4, neighbours=3)
    embeddings, labels = batch([1])
    scores = partial.score(embeddings, labels)
    assert scores.classes.tolist() == [0, 1, 2, 3]
    assert torch.allclose(scores.logits, partial.head(embeddings, labels), atol=1e-5)


def test_random_sampling_has_no_neighbours_to_find():
    torch.manual_seed(0)
    partial = PartialFC(build_head("arcface", num_classes=C, embedding_dim=D), sample_rate=0.5)
    partial.refresh_neighbours()
    assert partial.nearest is None and "nearest" not in partial.full_state()
