import math

import numpy as np
import pytest

from facerec.training.noise_rate import estimate_noise_rate


def mix(rate, clean, noisy, rows=12000, seed=0):
    rng = np.random.default_rng(seed)
    wrong = round(rate * rows)
    values = np.concatenate([noisy(rng, wrong), clean(rng, rows - wrong)])
    return rng.permutation(values).astype(np.float32)


def normal(mean, spread):
    return lambda rng, n: rng.normal(mean, spread, n)


CLEAN = {
    "normal": normal(0.55, 0.1),
    "skewed": lambda rng, n: rng.beta(8, 3, n),
    "uniform": lambda rng, n: rng.uniform(0, 1, n),
    "heavy_tails": lambda rng, n: rng.standard_t(3, n),
    "losses": lambda rng, n: -rng.exponential(1.0, n),
}


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.7])
def test_the_rate_of_a_mixture_is_found(rate):
    found = estimate_noise_rate(mix(rate, normal(0.6, 0.1), normal(0.05, 0.1)))
    assert found.confident and found.rate == pytest.approx(rate, abs=0.015)
    assert found.noisy_mean == pytest.approx(0.05, abs=0.02)
    assert found.clean_mean == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_it_is_near_for_skewed_groups_and_for_losses(rate):
    cosines = mix(rate, lambda rng, n: 2 * rng.beta(20, 5, n) - 1, normal(0.1, 0.1))
    assert estimate_noise_rate(cosines).rate == pytest.approx(rate, abs=0.05)
    losses = mix(rate, CLEAN["losses"], lambda rng, n: -10 - rng.gamma(8, 1.5, n))
    assert estimate_noise_rate(losses).rate == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", CLEAN)
def test_one_group_has_no_noise_and_no_confidence(kind, seed):
    found = estimate_noise_rate(mix(0, CLEAN[kind], normal(0, 1), seed=seed))
    assert found.rate == 0 and not found.confident and math.isnan(found.noisy_mean)


def test_a_rate_above_the_largest_is_not_believed():
    found = estimate_noise_rate(mix(0.9, normal(0.6, 0.05), normal(0.05, 0.05)))
    assert found.rate == 0.8 and not found.confident


def test_shift_and_scale_change_nothing_and_wild_values_little():
    values = mix(0.3, normal(0.6, 0.1), normal(0.05, 0.1)).astype(np.float64)
    plain = estimate_noise_rate(values)
    assert estimate_noise_rate(7 + 40 * values).rate == pytest.approx(plain.rate, abs=1e-3)
    wild = np.concatenate([values, [1e6, -1e6, math.nan, math.inf, -math.inf]])
    assert estimate_noise_rate(wild).rate == pytest.approx(plain.rate, abs=1e-2)


@pytest.mark.parametrize(
    "values",
    [np.empty(0), np.full(5000, 0.3), np.full(900, math.nan), np.linspace(0, 1, 100)],
)
def test_too_little_to_judge_gives_nothing(values):
    found = estimate_noise_rate(values)
    assert (found.rate, found.confident) == (0.0, False)
