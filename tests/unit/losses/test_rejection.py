import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax, normalize

from facerec.checks import InputError
from facerec.losses import build_head
from facerec.losses.rejection import REJECTION_FORMS, admit, calibrate_bound, reject_unknown

GOLDEN = 16 * torch.tensor([[0.6, 0.5, 0.2, -0.3]], dtype=torch.float64)


def rows(n=64, c=10, seed=0, spread=4.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, c, generator=generator, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_golden_values_of_the_log_form(dtype, tolerance):
    # METHODS section 7: mean form 5.785283, sum form 23.141131, minima ln 4 and 4 ln 4.
    value = reject_unknown(GOLDEN.to(dtype))
    assert value.shape == (1,) and value.dtype == dtype
    assert value.item() == pytest.approx(5.785283, abs=tolerance)
    assert 4 * value.item() == pytest.approx(23.141131, abs=4 * tolerance)
    equal = reject_unknown(torch.full((1, 4), 3.0, dtype=dtype)).item()
    assert equal == pytest.approx(1.386294, abs=tolerance)


def test_released_form_is_the_authors_double_softmax():
    z = rows()
    q = z.softmax(dim=1)
    twice = -log_softmax(q, dim=1).sum(dim=1) - 10 * math.log(10)
    torch.testing.assert_close(reject_unknown(z, "released"), twice)
    # About half the square norm where probabilities are small.
    calm = rows(c=1000, spread=0.5)
    half = calm.softmax(dim=1).square().sum(dim=1) / 2 - 1 / 2000
    torch.testing.assert_close(reject_unknown(calm, "released"), half, rtol=0.02, atol=0)


def test_gradient_of_the_log_form_is_p_minus_uniform():
    z = rows().requires_grad_()
    (0.1 * reject_unknown(z).mean()).backward()
    expected = 0.1 * (z.detach().softmax(dim=1) - 0.1) / 64
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize("form", REJECTION_FORMS)
def test_gradcheck(form):
    z = rows(5, 6, spread=1.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reject_unknown(x, form), z)


@pytest.mark.parametrize("form", REJECTION_FORMS)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.floats(-50, 50))
def test_the_minimum_is_at_equal_logits_and_nowhere_else(form, seed, c, level):
    equal = torch.full((1, c), level, dtype=torch.float64, requires_grad=True)
    least = reject_unknown(equal, form)
    least.sum().backward()
    assert least.item() == pytest.approx(math.log(c) if form == "log" else 0, abs=1e-12)
    assert equal.grad.abs().max() < 1e-12
    z = rows(8, c, seed, spread=2.0).requires_grad_()
    losses = reject_unknown(z, form)
    losses.sum().backward()
    assert (losses > least.item()).all() and (z.grad.abs().amax(dim=1) > 1e-9).all()
    # What is common to all logits counts nothing, and no class is special.
    moved = z.detach().flip(1) + level
    torch.testing.assert_close(reject_unknown(moved, form), losses.detach())


@pytest.mark.parametrize("c", [2, 100, 100_000])
def test_released_form_stays_below_e_minus_two(c):
    sure = torch.zeros(1, c, dtype=torch.float64)
    sure[0, 0] = 200
    top = reject_unknown(sure, "released").item()
    assert top == pytest.approx(c * math.log1p((math.e - 1) / c) - 1, abs=1e-9)
    assert reject_unknown(rows(32, c, spread=20), "released").max() <= top + 1e-9 < math.e - 2


def test_both_forms_agree_in_order():
    # One row at growing scale: strictly. Random rows: as ranks.
    growing = rows(1) * torch.linspace(0.1, 3, 40, dtype=torch.float64)[:, None]
    for form in REJECTION_FORMS:
        assert (reject_unknown(growing, form).diff() > 0).all()
    z = rows(512, 20, spread=1.6)
    ranks = torch.stack([reject_unknown(z, form).argsort().argsort() for form in REJECTION_FORMS])
    assert torch.corrcoef(ranks.double())[0, 1] > 0.7


@pytest.mark.parametrize("form", REJECTION_FORMS)
def test_a_million_classes_in_single_precision(form):
    z = rows(3, 10**6, spread=6.4, dtype=torch.float32)
    z[0, 7], z[1] = 64, 64
    z.requires_grad_()
    found = reject_unknown(z, form)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(z.grad).all()
    exact = reject_unknown(z.detach().double(), form)
    torch.testing.assert_close(found.detach().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", REJECTION_FORMS)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(form, half):
    logits = (GOLDEN * 4).to(half).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = reject_unknown(logits, form)
    assert value.dtype == torch.float32
    exact = reject_unknown(logits.detach().double(), form)
    torch.testing.assert_close(value.detach().double(), exact, rtol=1e-5, atol=1e-6)
    value.sum().backward()
    assert torch.isfinite(logits.grad).all()


def train_toy(form, weight):
    """Return (mean largest cosine of unseen strangers, TPIR at FPIR 1 %) after training.

    Six people around their fixed centres, and a blob of strangers by the first of them, which
    differs in a direction of its own. One half of each is trained on, the other one scored.
    """
    generator = torch.Generator().manual_seed(0)
    head = build_head("normface", num_classes=6, embedding_dim=8, scale=16.0)
    head.weight.data = torch.eye(6, 8)
    net = torch.nn.Linear(8, 8, bias=False)
    torch.nn.init.eye_(net.weight)
    blob = normalize(torch.tensor([1.0, 0, 0, 0, 0, 0, 1.0, 0]), dim=0)
    strangers = blob + 0.2 * torch.randn(400, 8, generator=generator)
    known = torch.eye(6, 8).repeat(100, 1) + 0.2 * torch.randn(600, 8, generator=generator)
    labels = torch.arange(6).repeat(100)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(100):
        logits = 16 * head.compare(net(strangers[:200]), head.weight)
        loss = head.score(net(known[:300]), labels[:300]).losses().mean()
        loss = loss + weight * reject_unknown(logits, form).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        unseen = head.compare(net(strangers[200:]), head.weight).amax(dim=1)
        best, found = head.compare(net(known[300:]), head.weight).max(dim=1)
    hits = (found == labels[300:]) & (best > unseen.quantile(0.99))
    return unseen.mean().item(), hits.float().mean().item()


@pytest.mark.parametrize(("form", "weight"), [("log", 0.1), ("released", 1.0)])
def test_unseen_strangers_leave_the_known_centres(form, weight):
    likeness, identified = train_toy(form, weight)
    without, identified_without = train_toy(form, 0.0)
    assert likeness < without - 0.2
    assert identified > identified_without + 0.2


def test_what_is_no_matrix_of_logits_is_refused():
    for shape in ((4,), (3, 0), (1, 2, 3)):
        with pytest.raises(InputError, match=r"logits must have shape \(n, c\)"):
            reject_unknown(torch.zeros(shape))
    with pytest.raises(InputError, match="did you mean 'released'"):
        reject_unknown(GOLDEN, "release")
    assert reject_unknown(torch.zeros(0, 4)).shape == (0,)


def test_admitted_is_what_is_strictly_below_the_bound():
    cosines = torch.tensor([0.2, 0.4, 0.39999, float("nan"), -1.0])
    assert admit(cosines, 0.4).tolist() == [True, False, True, False, True]
    assert admit(torch.zeros(0), 0.4).shape == (0,)
    with pytest.raises(InputError, match=r"shape \(n,\), one a face, got \(2, 2\)"):
        admit(torch.zeros(2, 2), 0.4)
    for bound in (1.5, float("nan")):
        with pytest.raises(InputError, match="bound must lie in"):
            admit(cosines, bound)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=300),
    st.floats(0, 0.99),
    st.floats(-1, 1),
)
def test_at_most_the_quantile_of_known_faces_is_admitted(cosines, quantile, ceiling):
    values = torch.tensor(cosines, dtype=torch.float64)
    bound = calibrate_bound(values, quantile, ceiling)
    assert -1 <= bound <= ceiling
    assert int(admit(values, bound).sum()) <= quantile * len(cosines)
    # And no larger bound would do, unless the ceiling stops it.
    if bound < ceiling:
        assert int((values <= bound).sum()) > quantile * len(cosines) - 1e-9


def test_the_bound_is_an_order_statistic():
    cosines = np.linspace(0.005, 0.995, 100, dtype=np.float32)[::-1].copy()
    assert calibrate_bound(cosines, 0.01) == pytest.approx(0.015)
    assert calibrate_bound(cosines, 0.0) == pytest.approx(0.005)
    assert calibrate_bound(cosines, 0.99, ceiling=1.0) == pytest.approx(0.995)
    assert calibrate_bound(cosines, 0.9) == 0.5
    assert calibrate_bound(torch.from_numpy(cosines)) == calibrate_bound(cosines)
    assert calibrate_bound(np.array([-1.0001])) == -1


@pytest.mark.parametrize(
    ("cosines", "options", "message"),
    [
        ([], {}, "at least one labelled chip"),
        ([[0.1]], {}, r"got \(1, 1\)"),
        ([0.1, float("nan")], {}, "chip 1 has nan"),
        ([32.0], {}, "chip 0 has 32; divide logits by the head's scale"),
        ([0.1], {"quantile": 1}, "quantile must lie in"),
        ([0.1], {"quantile": -0.1}, "quantile must lie in"),
        ([0.1], {"ceiling": 1.1}, "ceiling must lie in"),
    ],
)
def test_a_bound_from_bad_input_is_refused(cosines, options, message):
    with pytest.raises(InputError, match=message):
        calibrate_bound(np.array(cosines), **options)
