"""The cut between two known densities is where the errors are fewest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from data_tools.thresholds import BINS, count_scores, find_threshold
from facerec.checks import InputError


def strangers_of(rng, shift=0.0):
    spread = 0.1
    return np.stack(
        [count_scores(rng.normal(m + shift, spread, 200_000)) for m in (0.0, 0.05, 0.1)]
    )


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.5])
def test_cut_lies_where_both_densities_are_equal(noise):
    rng = np.random.default_rng(0)
    n = 20_000
    bad = rng.random(n) < noise
    own = np.where(bad, rng.normal(0, 0.1, n), rng.normal(0.6, 0.12, n))
    cut = find_threshold(count_scores(own), strangers_of(rng))
    grid = np.linspace(0, 0.6, 6001)
    equal = grid[
        np.argmin(np.abs(noise * norm.pdf(grid, 0, 0.1) - (1 - noise) * norm.pdf(grid, 0.6, 0.12)))
    ]
    assert cut.value == pytest.approx(equal, abs=0.04)
    assert cut.noise == pytest.approx(noise, abs=0.02)
    real = np.mean(bad & (own >= cut.value)) + np.mean(~bad & (own < cut.value))
    assert cut.wrong_drops + cut.missed == pytest.approx(real, abs=0.005)


def test_clean_scores_are_not_cut():
    rng = np.random.default_rng(1)
    own = rng.normal(0.7, 0.05, 2000)
    cut = find_threshold(count_scores(own), strangers_of(rng))
    assert cut.value < own.min()
    assert cut.noise == 0 and cut.wrong_drops == 0 and cut.missed == 0


def test_no_rows_and_no_strangers():
    rng = np.random.default_rng(2)
    assert find_threshold(np.zeros(BINS, np.int64), strangers_of(rng)).value == -1
    with pytest.raises(InputError, match="give one with --threshold"):
        find_threshold(count_scores(rng.normal(0, 0.1, 9)), np.zeros((3, BINS), np.int64))


def test_histogram_takes_the_ends():
    counts = count_scores(np.array([-1.0, 1.0, 1.0000001, 0.0]))
    assert counts.sum() == 4 and counts[0] == 1 and counts[-1] == 2
