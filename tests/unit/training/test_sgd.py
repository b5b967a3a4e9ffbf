"""SGD for sampled classes, against torch's own on dense copies; gradients scaled and clipped."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from facerec.checks import InputError
from facerec.losses import build_head
from facerec.losses.partial_fc import PartialFC
from facerec.training.sgd import SGD, clip_gradients, scale_gradients

C, D = 9, 4


def build(dtype=torch.float32, shape=(C, D)):
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(shape, dtype=dtype))


def sparse(rows, values, size=(C, D)):
    """Return a gradient of some rows, which may come twice."""
    indices = torch.tensor([rows], dtype=torch.int64)
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"maximize": True}]
)
def test_dense_parameters_move_as_torch_moves_them(options, decay):
    ours, theirs = build(), build()
    pairs = [
        (ours, SGD([ours], lr=0.3, weight_decay=decay, **options)),
        (theirs, torch.optim.SGD([theirs], lr=0.3, weight_decay=decay, **options)),
    ]
    for seed in range(5):
        for parameter, optimizer in pairs:
            torch.manual_seed(seed)
            parameter.grad = torch.randn(C, D)
            optimizer.step()
    assert torch.equal(ours, theirs)
    one, two = (optimizer.state_dict() for _, optimizer in pairs)
    assert str(one) == str(two)


@settings(max_examples=30, deadline=None)
@given(
    draws=st.lists(st.lists(st.integers(0, C - 1), max_size=6), min_size=1, max_size=5),
    options=st.sampled_from(
        [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"maximize": True}]
    ),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_every_row_moves_as_a_parameter_of_its_own_that_steps_when_it_is_drawn(
    draws, options, decay
):
    """The oracle is torch's SGD over c parameters of one row each; without gradient it skips."""
    options = {"lr": 0.3, "weight_decay": decay, **options}
    parameter = build()
    rows = [nn.Parameter(row.detach().clone()[None]) for row in parameter]
    ours, theirs = SGD([parameter], **options), torch.optim.SGD(rows, foreach=False, **options)
    for number, drawn in enumerate(draws):
        torch.manual_seed(number)
        values = torch.randn(len(drawn), D)
        parameter.grad = sparse(drawn, values)
        dense = parameter.grad.to_dense()
        for index, row in enumerate(rows):
            row.grad = dense[index][None].clone() if index in drawn else None
        ours.step()
        theirs.step()
    assert torch.equal(parameter, torch.cat(list(rows)))
    for index, row in enumerate(rows):
        if row in theirs.state and "momentum" in options:
            expected = theirs.state[row]["momentum_buffer"][0]
            assert torch.equal(ours.state[parameter]["momentum_buffer"][index], expected)


def test_a_gradient_without_rows_moves_nothing_and_zeros_decay_their_row():
    parameter = build()
    before = parameter.detach().clone()
    optimizer = SGD([parameter], lr=0.5, momentum=0.9, weight_decay=0.2)
    parameter.grad = sparse([], torch.empty(0, D))
    optimizer.step()
    assert torch.equal(parameter, before)
    parameter.grad = sparse([2], torch.zeros(1, D))
    optimizer.step()
    assert torch.allclose(parameter[2], 0.9 * before[2])
    others = [row for row in range(C) if row != 2]
    assert torch.equal(parameter[others], before[others])


def test_rows_that_are_not_drawn_keep_weight_and_momentum():
    head = PartialFC(build_head("arcface", num_classes=C, embedding_dim=D), sample_rate=0.3)
    optimizer = SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(6):
        weight = head.head.weight.detach().clone()
        state = optimizer.state[head.head.weight]
        momentum = state.get("momentum_buffer", torch.zeros(C, D)).clone()
        torch.manual_seed(step)
        scores = head.score(torch.randn(2, D), torch.randint(C, (2,)))
        optimizer.zero_grad()
        scores.losses().sum().backward()
        optimizer.step()
        kept = torch.ones(C, dtype=torch.bool)
        kept[scores.classes] = False
        assert torch.equal(head.head.weight[kept], weight[kept])
        assert torch.equal(state["momentum_buffer"][kept], momentum[kept])
        moved = (head.head.weight != weight).all(dim=1)
        assert torch.equal(moved, ~kept)


def test_the_state_goes_on_where_it_was():
    first = build()
    optimizer = SGD([first], lr=0.3, momentum=0.9)
    first.grad = sparse([1, 4], torch.ones(2, D))
    optimizer.step()
    second = nn.Parameter(first.detach().clone())
    other = SGD([second], lr=0.3, momentum=0.9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter, its in ((first, optimizer), (second, other)):
        parameter.grad = sparse([4, 8], torch.ones(2, D))
        its.step()
    assert torch.equal(first, second)
    assert set(other.state[second]) == {"momentum_buffer"}


def test_the_closure_is_called_once_and_its_gradients_count():
    parameter = build()
    before, calls = parameter.detach().clone(), []
    optimizer = SGD([parameter], lr=1.0)

    def closure():
        calls.append(torch.is_grad_enabled())
        parameter.grad = sparse([0], torch.ones(1, D))
        return 2.5

    assert optimizer.step(closure) == 2.5 and calls == [True]
    assert torch.equal(parameter[0], before[0] - 1) and parameter.grad.is_sparse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dampening": 0.5}, r"dampening must be 0 for sampled classes, got 0\.5; leave it out"),
        ({"fused": True}, "fused must be False for sampled classes, got True; leave it out"),
    ],
)
def test_what_has_no_meaning_for_sampled_classes_is_refused_before_anything_moves(options, message):
    dense, parameter = build(), build()
    optimizer = SGD([dense, parameter], lr=1.0, momentum=0.9, **options)
    dense.grad, parameter.grad = torch.ones(C, D), sparse([0], torch.ones(1, D))
    with pytest.raises(InputError, match=message):
        optimizer.step()
    assert parameter.grad.is_sparse and dense.grad is not None
    assert torch.equal(dense, build()) and torch.equal(parameter, build())


def test_groups_keep_their_options_and_kinds_do_not_mix():
    """Two groups with a dense and a sparse parameter each, against four optimisers of one."""
    options = [{"lr": 0.3, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}]
    together = [build() for _ in range(4)]
    alone = [build() for _ in range(4)]
    ours = SGD(
        [{"params": together[:2], **options[0]}, {"params": together[2:], **options[1]}], lr=9.0
    )
    theirs = [
        (SGD if number % 2 else torch.optim.SGD)([parameter], **options[number // 2])
        for number, parameter in enumerate(alone)
    ]
    for seed in range(4):
        for parameters in (together, alone):
            torch.manual_seed(seed)
            for number, parameter in enumerate(parameters):
                drawn = sparse([seed, 5], torch.randn(2, D))
                parameter.grad = drawn if number % 2 else torch.randn(C, D)
        ours.step()
        for optimizer in theirs:
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= 0.5
        for group in ours.param_groups:
            group["lr"] *= 0.5
    assert all(map(torch.equal, together, alone))


def test_hooks_are_called_once_and_see_the_gradient():
    torch.optim.SGD([build()], lr=1.0)  # from now on torch's own step calls hooks as well
    parameter, seen = build(), []
    optimizer = SGD([parameter], lr=1.0)
    optimizer.register_step_pre_hook(lambda its, *_: seen.append(parameter.grad is not None))
    optimizer.register_step_post_hook(lambda its, *_: seen.append(parameter.grad is not None))
    parameter.grad = sparse([0], torch.ones(1, D))
    optimizer.step()
    assert seen == [True, True]


def test_gradients_are_scaled_whatever_their_kind():
    dense, drawn, idle = build(), build(), build()
    dense.grad = torch.ones(C, D)
    drawn.grad = sparse([1, 1, 3], torch.ones(3, D))
    scale_gradients([dense, drawn, idle], 0.25)
    assert (dense.grad == 0.25).all() and idle.grad is None
    assert torch.equal(drawn.grad.to_dense()[:, 0], torch.tensor([0, 0.5, 0, 0.25, 0, 0, 0, 0, 0]))
    scale_gradients([idle], 0.25)


@pytest.mark.parametrize("max_norm", [0.1, 3.0, 1e6])
def test_dense_gradients_are_clipped_as_torch_clips_them(max_norm):
    ours, theirs = [build(), build(shape=(7,)), build()], [build(), build(shape=(7,)), build()]
    for parameter in (*ours[:2], *theirs[:2]):
        parameter.grad = 3 * parameter.detach().clone()
    norm = clip_gradients(iter(ours), max_norm)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, max_norm))
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        assert torch.equal(one.grad, two.grad)
    assert clip_gradients([], max_norm) == 0


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_gradients_are_clipped_as_if_they_were_dense(max_norm, dtype):
    torch.manual_seed(3)
    bias, weight = build(dtype, (5,)), build(dtype)
    bias.grad = torch.randn(5, dtype=dtype)
    weight.grad = sparse([2, 5, 2], torch.randn(3, D, dtype=dtype))  # row 2 comes twice
    expected = [build(dtype, (5,)), build(dtype)]
    expected[0].grad, expected[1].grad = bias.grad.clone(), weight.grad.to_dense()
    total = nn.utils.clip_grad_norm_(expected, max_norm)
    assert torch.allclose(clip_gradients([bias, weight], max_norm).to(dtype), total)
    assert torch.allclose(bias.grad, expected[0].grad)
    assert torch.allclose(weight.grad.to_dense(), expected[1].grad)


def test_a_gradient_that_is_not_finite_shows_in_the_norm():
    weight = build()
    weight.grad = sparse([1], torch.full((1, D), torch.inf))
    assert not clip_gradients([weight], 1.0).isfinite()


def test_a_scaler_unscales_sampled_rows():
    weight = build()
    optimizer = SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))  # makes the scale
    weight.grad = sparse([1], torch.full((1, D), 8.0))
    before = weight.detach().clone()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert torch.equal(weight[1], before[1] - 1)
