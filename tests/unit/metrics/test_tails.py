"""The extreme-value law: values by hand, what the fit finds, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from facerec.checks import InputError
from facerec.metrics.tails import LEAST_SHAPE, Tails, fit_tails, gpd_quantile, gpd_survival


@pytest.mark.parametrize(
    ("survival", "scale", "shape", "excess"),
    [
        (1.0, 0.3, -0.2, 0.0),
        # 2 / -0.5 (0.25^0.5 - 1) = -4 * -0.5
        (0.25, 2.0, -0.5, 2.0),
        # 0.1 / 0.5 (0.01^-0.5 - 1) = 0.2 * 9
        (0.01, 0.1, 0.5, 1.8),
        # 1 / -0.25 (1/16^0.25 - 1) = -4 * -0.5
        (1 / 16, 1.0, -0.25, 2.0),
        (math.exp(-3), 0.5, 0.0, 1.5),
        (math.exp(-3), 0.5, 1e-12, 1.5),
    ],
)
def test_gpd_by_hand(survival, scale, shape, excess):
    assert gpd_quantile(survival, scale, shape) == pytest.approx(excess, rel=1e-9)
    assert gpd_survival(excess, scale, shape) == pytest.approx(survival, rel=1e-9)


def test_gpd_ends_where_its_shape_says():
    assert gpd_survival([1.999, 2.0, 5.0], 1.0, -0.5)[1:].tolist() == [0, 0]
    assert gpd_survival(1.999, 1.0, -0.5) > 0


@given(st.floats(1e-9, 1), st.floats(1e-3, 1), st.floats(-0.5, 0.3), st.floats(1e-9, 1))
def test_gpd_quantile_inverts_and_falls(survival, scale, shape, other):
    excess = gpd_quantile(survival, scale, shape)
    assert gpd_survival(excess, scale, shape) == pytest.approx(survival, rel=1e-6)
    if other > survival * (1 + 1e-9):
        assert gpd_quantile(other, scale, shape) <= excess


def test_tail_rate_and_threshold_by_hand():
    # Hazard 0.4 at the cut; at 0.6 the base is 1 - 0.2 * 0.1 / 0.04 = 0.5, and 0.5^5 = 1 / 32.
    tail = Tails(0.5, np.array([0.4]), np.array([0.04]), np.array([-0.2]))
    assert tail.hazard(0.6) == pytest.approx([0.0125])
    rate = 1 - math.exp(-0.0125)
    assert tail.rate(0.6) == pytest.approx([rate])
    assert tail.threshold(rate) == pytest.approx([0.6])
    assert tail.threshold(0.9) == [0.5]
    assert tail.rate(0.71).tolist() == [0]


def test_tail_knows_nothing_below_its_cut():
    tail = Tails(0.5, np.array([0.4]), np.array([0.04]), np.array([-0.2]))
    with pytest.raises(InputError, match="threshold below"):
        tail.rate(0.4)


def draw_best(rng, count, level=3.0, scale=0.05, shape=-0.1, cut=0.3):
    """Best scores whose hazard is the law itself: what a search over many people gives."""
    hazard = rng.exponential(size=count)
    return cut + scale * np.expm1(-shape * np.log(hazard / level)) / shape


def cut_at(scores, share):
    cut = float(np.quantile(scores, 1 - share))
    above = scores >= cut
    return scores[above], int((~above).sum()), cut


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_fit_finds_the_law_from_any_cut(share):
    scores = draw_best(np.random.default_rng(1), 30_000)
    values, below, cut = cut_at(scores, share)
    tail = fit_tails(values, np.ones((1, values.size)), [below], cut)
    truth = Tails(0.3, np.array([3.0]), np.array([0.05]), np.array([-0.1]))
    assert tail.shape[0] == pytest.approx(-0.1, abs=0.06)  # 3 standard errors of 3,000
    assert tail.scale[0] == pytest.approx(0.05 - 0.1 * (cut - 0.3), rel=0.09)
    for rate, within in ((1e-2, 0.15), (1e-3, 0.25), (1e-4, 0.6)):
        assert truth.rate(tail.threshold(rate))[0] == pytest.approx(rate, rel=within)


def minus_likelihood(parameters, values, below, cut):
    log_level, log_scale, shape = parameters
    base = 1 + shape * (values - cut) / np.exp(log_scale)
    if base.min() <= 0 or not -0.5 <= shape < -1e-6:
        return 1e9
    logs = np.log(base) / shape
    level = np.exp(log_level)
    density = log_level - log_scale - (shape + 1) * logs
    return -(density - level * np.exp(-logs)).sum() + level * below


@pytest.mark.parametrize("seed", range(4))
def test_fit_is_the_greatest_likelihood(seed):
    scores = draw_best(np.random.default_rng(seed), 600, shape=-0.2)
    values, below, cut = cut_at(scores, 0.5)
    tail = fit_tails(values, np.ones((1, values.size)), [below], cut)
    found = (math.log(tail.level[0]), math.log(tail.scale[0]), tail.shape[0])
    best = minimize(
        minus_likelihood,
        found,
        (values, below, cut),
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-9},
    )
    assert minus_likelihood(found, values, below, cut) <= best.fun + 0.02
    assert tail.threshold(0.01)[0] == pytest.approx(
        float(Tails(cut, np.exp(best.x[:1]), np.exp(best.x[1:2]), best.x[2:]).threshold(0.01)[0]),
        abs=5e-4,
    )


def test_rows_of_weights_are_fits_of_repeated_scores():
    rng = np.random.default_rng(5)
    values, below, cut = cut_at(draw_best(rng, 300), 0.5)
    times = rng.integers(0, 3, (3, values.size))
    rows = fit_tails(values, times, [below, below + 10, below], cut)
    for row, rest in enumerate((below, below + 10, below)):
        # The grid is laid by all rows, so one row alone is laid a little differently.
        repeated = np.repeat(values, times[row])
        alone = fit_tails(repeated, np.ones((1, repeated.size)), [rest], cut)
        assert alone.threshold(0.01)[0] == pytest.approx(rows.threshold(0.01)[row], abs=2e-3)
        assert alone.level[0] == pytest.approx(rows.level[row], rel=0.02)


def test_rare_scores_give_the_generalised_pareto_law():
    rng = np.random.default_rng(2)
    excess = gpd_quantile(1 - rng.random(20_000), 0.04, -0.15)
    tail = fit_tails(0.4 + excess, np.ones((1, 20_000)), [1e9], 0.4)
    assert tail.level[0] == pytest.approx(2e-5, rel=1e-3)
    assert tail.scale[0] == pytest.approx(0.04, rel=0.03)
    assert tail.shape[0] == pytest.approx(-0.15, abs=0.02)


def test_shape_is_bounded_and_the_end_is_beyond_every_score():
    rng = np.random.default_rng(3)
    values = np.sort(0.5 + 0.1 * rng.random(500) ** 0.2)  # crowds towards its end
    tail = fit_tails(values, np.ones((1, 500)), [500], 0.5)
    assert LEAST_SHAPE <= tail.shape[0] <= 0
    assert tail.rate(values.max())[0] >= 0
    assert np.isfinite(tail.level[0])
    heavy = np.minimum(0.3 + rng.pareto(1.5, 2000) * 0.02, 1.0)
    tail = fit_tails(heavy, np.ones((1, 2000)), [2000], 0.3)
    assert 0.3 - tail.scale[0] / tail.shape[0] <= 1.05


@pytest.mark.parametrize(
    ("values", "weights", "below", "message"),
    [
        ([0.5, 0.6], np.ones((2, 2)), [1.0], "one `below` a row"),
        ([0.5, 0.6], np.ones((1, 3)), [1.0], "weights must be"),
        ([0.3, 0.6], np.ones((1, 2)), [1.0], "different scores from its cut"),
        ([0.5, 1.6], np.ones((1, 2)), [1.0], "different scores from its cut"),
        ([0.5, 0.5], np.ones((1, 2)), [1.0], "different scores from its cut"),
        ([], np.ones((1, 0)), [1.0], "got 0 scores"),
        ([0.5, 0.6], np.zeros((1, 2)), [1.0], "some weight above"),
    ],
)
def test_fit_refuses_what_has_no_tail(values, weights, below, message):
    with pytest.raises(InputError, match=message):
        fit_tails(values, weights, below, 0.4)
