"""Sampled classes in one process (METHODS section 11): scores and gradients, against heads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.losses import build_head, head_names
from facerec.losses.partial_fc import PartialFC

C, D, N = 40, 6, 8


def build(name="arcface", c=C, start=0, d=D, head=None, **partial):
    torch.manual_seed(start)
    base = build_head(name, num_classes=c, embedding_dim=d, **(head or {}))
    return PartialFC(base, **partial)


def batch(n=N, c=C, d=D, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator, dtype=dtype)
    return embeddings.requires_grad_(), torch.randint(c, (n,), generator=generator)


def read_gradient(head):
    gradient = head.head.weight.grad
    return gradient.to_dense() if gradient.is_sparse else gradient


@pytest.mark.parametrize("name", head_names())
def test_all_classes_in_one_process_are_the_head_bit_for_bit(name):
    embeddings, labels = batch(dtype=torch.float64)
    copy = embeddings.detach().clone().requires_grad_()
    torch.manual_seed(0)
    dense = build_head(name, num_classes=C, embedding_dim=D)
    partial = build(name, shard=True)  # one process has nobody to share with
    theirs, ours = dense.score(embeddings, labels), partial.score(copy, labels)
    assert torch.equal(theirs.losses(), ours.losses()) and ours.classes is None
    assert (theirs.penalty is None) == (ours.penalty is None)
    for scores in (theirs, ours):
        penalty = 0 if scores.penalty is None else scores.penalty
        (scores.losses().sum() + penalty).backward()
    assert torch.equal(embeddings.grad, copy.grad)
    for parameter, same in zip(dense.parameters(), partial.head.parameters(), strict=True):
        assert torch.equal(parameter.grad, same.grad)
    # What the batch told running statistics.
    for buffer, same in zip(dense.buffers(), partial.head.buffers(), strict=True):
        assert torch.equal(buffer, same)
    assert int(partial.step) == 0 and not hasattr(partial.head.weight, "facerec_sharded")


@pytest.mark.parametrize("name", head_names())
@pytest.mark.parametrize("sub_centers", [1, 3])
def test_sampled_scores_are_those_of_a_head_with_the_drawn_classes(name, sub_centers):
    """The oracle is a dense head that was never told of the other classes."""
    options = {"sub_centers": sub_centers} | ({"bias": False} if name == "softmax" else {})
    partial = build(name, head=options, sample_rate=0.4)
    embeddings, labels = batch(dtype=torch.float64)
    if name == "adacos":  # its start depends on the number of classes
        partial.head.scale.fill_(8)
    small = build_head(name, num_classes=16, embedding_dim=D, **options)
    small.load_state_dict({**small.state_dict(), **read_shared_state(partial.head)}, strict=False)
    scores = partial.score(embeddings, labels)
    classes = scores.classes
    assert len(classes) == 16 and torch.equal(classes, classes.unique())
    rows = (classes[:, None] * sub_centers + torch.arange(sub_centers)).flatten()
    with torch.no_grad():
        small.weight.copy_(partial.head.weight[rows])
        if name == "adaptiveface":
            small.margins.copy_(partial.head.margins[classes])
    copy = embeddings.detach().clone().requires_grad_()
    expected = small.score(copy, torch.searchsorted(classes, labels))
    assert torch.allclose(scores.logits, expected.logits, rtol=1e-12)
    assert torch.allclose(scores.losses(), expected.losses(), rtol=1e-9)
    assert torch.allclose(scores.plain_losses(), expected.plain_losses(), rtol=1e-9)
    assert torch.equal(scores.target_cosine(), expected.target_cosine())
    assert torch.equal(scores.hardest_negative()[1], classes[expected.hardest_negative()[1]])
    assert torch.equal(scores.predictions(), classes[expected.predictions()])
    scores.losses().sum().backward()
    expected.losses().sum().backward()
    assert torch.allclose(embeddings.grad, copy.grad, rtol=1e-9)
    assert torch.allclose(read_gradient(partial)[rows], small.weight.grad, atol=1e-6, rtol=1e-5)


def read_shared_state(head):
    """Return buffers that do not depend on the number of classes."""
    return {name: value for name, value in head.state_dict().items() if not value.ndim}


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(0.001, 0.999),
    n=st.integers(0, 60),
    c=st.integers(2, 50),
    seed=st.integers(0, 2**40),
)
def test_the_classes_of_the_batch_are_always_among_the_drawn(rate, n, c, seed):
    partial = build(c=c, sample_rate=rate, seed=seed)
    embeddings, labels = batch(n, c, seed=seed)
    scores = partial.score(embeddings, labels)
    present, quota = labels.unique(), max(1, round(rate * c))
    assert torch.isin(present, scores.classes).all()
    assert len(scores.classes) == max(len(present), quota)
    assert torch.equal(scores.classes, scores.classes.unique())
    assert torch.equal(scores.classes[scores.rows.columns], labels)
    assert torch.equal(scores.rows.labels, labels)
    assert torch.isfinite(scores.losses()).all()


def test_every_other_class_is_as_likely():
    partial = build(c=10, sample_rate=0.5)
    embeddings, labels = batch(4, 1)  # all of class 0
    drawn = torch.cat([partial.score(embeddings, labels).classes for _ in range(900)])
    counts = drawn.bincount(minlength=10)
    assert counts[0] == 900
    # Binomial(900, 4/9): mean 400, deviation 15.
    assert (counts[1:] - 400).abs().max() < 60


def test_draws_depend_on_seed_and_step_alone():
    embeddings, labels = batch()

    def draw(seed, steps=3):
        partial = build(sample_rate=0.3, seed=seed)
        return [partial.score(embeddings, labels).classes.tolist() for _ in range(steps)]

    first = draw(5)
    torch.manual_seed(99)
    assert draw(5) == first and draw(6) != first
    assert first[0] != first[1] != first[2]


def test_ranks_of_equal_size_draw_other_classes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    drawn = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        head = build(sample_rate=0.3, shard=True)
        drawn.append(head._draw_classes(torch.tensor([2])).tolist())
    assert drawn[0] != drawn[1] and [len(classes) for classes in drawn] == [6, 6]


def test_cosines_that_rounding_drives_past_one_give_angles():
    partial = build(sample_rate=0.9)
    embeddings = partial.head.weight.detach().clone().requires_grad_()
    scores = partial.score(embeddings, torch.arange(C))
    own = scores.rows.cosine.gather(1, scores.rows.columns[:, None])
    assert own.max() > 1 >= scores.target_cosine().max()
    scores.losses().sum().backward()
    assert scores.losses().isfinite().all() and embeddings.grad.isfinite().all()


def test_a_resumed_run_draws_as_the_whole_one():
    embeddings, labels = batch()
    partial = build(sample_rate=0.3)
    for _ in range(3):
        partial.score(embeddings, labels)
    state = {name: value.clone() for name, value in partial.full_state().items()}
    expected = partial.score(embeddings, labels)
    other = build(start=7, sample_rate=0.3)
    other.load_full_state(state)
    resumed = other.score(embeddings, labels)
    assert torch.equal(resumed.logits, expected.logits)
    assert torch.equal(resumed.classes, expected.classes)
    assert set(state) == {"head.weight", "step"}


def test_evaluation_compares_with_all_classes_and_draws_nothing():
    embeddings, labels = batch()
    partial = build(sample_rate=0.2).eval()
    scores = partial.score(embeddings, labels)
    assert scores.logits.shape == (N, C) and scores.classes is None and int(partial.step) == 0
    assert torch.equal(scores.logits, partial.head(embeddings, labels))
    assert torch.equal(partial(embeddings, labels), scores.logits)


def test_gradients_of_small_batches_add_up_in_the_drawn_rows():
    partial = build(sample_rate=0.2)
    touched, expected = set(), torch.zeros(C, D)
    for seed in (1, 2, 3):
        embeddings, labels = batch(3, seed=seed)
        scores = partial.score(embeddings, labels)
        scores.losses().sum().backward(retain_graph=True)
        (alone,) = torch.autograd.grad(scores.losses().sum(), partial.head.weight)
        expected += alone.to_dense()
        touched |= set(scores.classes.tolist())
    gradient = partial.head.weight.grad
    assert gradient.is_sparse
    assert torch.allclose(gradient.to_dense(), expected, atol=1e-6)
    assert set(gradient.coalesce().indices()[0].tolist()) == touched < set(range(C))


def test_of_sub_centres_only_the_nearest_gets_a_gradient():
    partial = build(head={"sub_centers": 3}, sample_rate=0.3)
    embeddings, labels = batch(1)
    scores = partial.score(embeddings, labels)
    scores.losses().sum().backward()
    moved = read_gradient(partial).view(C, 3, D).abs().sum(dim=2) > 0
    assert torch.equal(moved.sum(dim=1)[scores.classes], torch.ones(12, dtype=torch.int64))
    assert moved.sum() == 12


def test_filtered_negatives_get_logit_zero():
    partial = build(head={"filter_cosine": 0.1}, sample_rate=0.5)
    embeddings, labels = batch()
    scores = partial.score(embeddings, labels)
    barred = (scores.rows.cosine > 0.1) & ~scores.rows.target_mask()
    assert barred.any() and (scores.logits[barred] == 0).all()
    assert (scores.logits[~barred] != 0).all()


@pytest.mark.parametrize(
    "partial", [{"sample_rate": 0.3}, {"sampling": "hard_prototypes", "neighbours": 3}]
)
def test_half_precision_embeddings_give_finite_float32(partial):
    head = build(**partial)
    embeddings, labels = batch()
    half = (1e4 * embeddings.detach()).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        scores = head.score(half, labels)
        losses = scores.losses()
    losses.sum().backward()
    assert scores.logits.dtype == losses.dtype == torch.float32
    assert losses.isfinite().all() and half.grad.isfinite().all()
    assert read_gradient(head).dtype == torch.float32 and read_gradient(head).isfinite().all()


def test_it_speaks_for_its_head():
    partial = build("adacos", sample_rate=0.25)
    assert (partial.num_classes, partial.embedding_dim) == (C, D)
    assert partial.scale == pytest.approx(float(partial.head.scale))
    assert "rate 0.25, classes 0 to 39 of 40" in repr(partial)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_rate": 0}, r"sample_rate must lie in \[1e-06, 1\], got 0"),
        ({"sample_rate": 1.5}, "sample_rate must lie"),
        ({"sampling": "hard_prototype"}, "did you mean 'hard_prototypes'"),
        ({"seed": -1}, "seed must lie"),
        ({"shard": "false"}, "shard must be true or false, got 'false'"),
        ({"sampling": "hard_prototypes", "neighbours": C}, r"neighbours must lie in \[1, 39\]"),
        ({"sampling": "hard_prototypes", "neighbours": 2.5}, "neighbours must be a whole number"),
        ({"sampling": "hard_prototypes", "refresh_steps": 0}, "refresh_steps must lie"),
        ({"sampling": "hard_prototypes", "sample_rate": 0.5}, "sample_rate must be 1 with"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        build(**arguments)


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, D + 1), [0, 1], r"embeddings must have shape \(n, 6\)"),
        ((2, D), [0], r"labels must have shape \(2,\), got \(1,\)"),
        ((2, D), [0, C], r"labels must lie in \[0, 40\), got 40"),
        ((2, D), [-1, 0], r"got -1"),
    ],
)
@pytest.mark.parametrize("shard", [False, True])
def test_bad_batches_are_named(monkeypatch, shape, labels, message, shard):
    monkeypatch.setenv("WORLD_SIZE", "2" if shard else "1")
    head = build(sample_rate=0.5, shard=shard)
    with pytest.raises(InputError, match=message):  # before any other process is asked
        head.score(torch.ones(shape), torch.tensor(labels))


@pytest.mark.parametrize(
    ("name", "arguments", "ranks", "message"),
    [
        ("adacos", {"shard": True}, 2, "AdaCos, which looks at all classes"),
        ("adaptiveface", {"shard": True}, 2, "AdaptiveFace, which learns margins for each class"),
        ("softmax", {"shard": True}, 2, "Softmax, which learns bias"),
        ("arcface", {"shard": True}, 41, "got 40 classes for 41 processes"),
        ("arcface", {"sample_rate": 0.5}, 2, "shard must be true where 2 processes"),
    ],
)
def test_what_cannot_be_divided_is_refused(monkeypatch, name, arguments, ranks, message):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    with pytest.raises(InputError, match=message):
        build(name, **arguments)


@pytest.mark.parametrize(("c", "ranks"), [(11, 2), (11, 4), (12, 4), (4, 4)])
def test_ranks_hold_contiguous_slices_of_the_same_first_weight(monkeypatch, c, ranks):
    whole = build(c=c, head={"sub_centers": 2}).head.weight
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    parts = []
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        partial = build(c=c, head={"sub_centers": 2}, shard=True)
        assert partial.first_class == sum(len(part) for part in parts) // 2
        assert partial.head.weight.facerec_sharded and partial.head.weight.requires_grad
        assert len(partial.head.weight) == 2 * partial.own_classes
        assert partial.num_classes == c
        parts.append(partial.head.weight)
    assert torch.equal(torch.cat(parts), whole)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 2


def test_a_state_of_other_identities_is_refused(monkeypatch):
    state = build(c=12).full_state()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="must have a multiple of 11 rows, got 12"):
        build(c=11, shard=True).load_full_state(state)
