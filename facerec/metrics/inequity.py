"""How unequal an error rate is over groups of people: three published summaries.

Each takes the rates of all groups along the last axis, so that resamples cost one call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range

Floats = NDArray[np.float64]


def max_over_geomean(rates: ArrayLike) -> Floats:
    """Return greatest over geometric mean along the last axis; NaN where a rate is 0 or NaN.

    NIST IR 8429, section on summary measures. 1 when all rates are equal.
    """
    values = np.asarray(rates, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.exp(np.log(values).mean(axis=-1))
        found: Floats = np.where(mean > 0, values.max(axis=-1) / mean, np.nan)
    return found


def fairness_discrepancy(fmr: ArrayLike, fnmr: ArrayLike, alpha: float = 0.5) -> Floats:
    """Return the FDR along the last axis: 1 when both rates are equal in all groups.

    Fairness discrepancy rate, de Freitas Pereira and Marcel, Fairness in Biometrics, 2021.

    Args:
        fmr: (..., g) false match rates.
        fnmr: (..., g) false non-match rates.
        alpha: weight of FMR, in [0, 1].
    """
    check_range(alpha, "alpha", 0, 1)
    wrong, missed = (np.ptp(np.asarray(side, dtype=np.float64), axis=-1) for side in (fmr, fnmr))
    found: Floats = 1 - (alpha * wrong + (1 - alpha) * missed)
    return found


def garbe(fmr: ArrayLike, fnmr: ArrayLike, alpha: float = 0.5) -> Floats:
    """Return the GARBE along the last axis: 0 when both rates are equal in all groups.

    Gini aggregation rate for biometric equitability, Howard et al. 2022.

    Args:
        fmr: (..., g) false match rates, g >= 2.
        fnmr: (..., g) false non-match rates.
        alpha: weight of FMR, in [0, 1].
    """
    check_range(alpha, "alpha", 0, 1)
    found: Floats = alpha * gini(fmr) + (1 - alpha) * gini(fnmr)
    return found


def gini(rates: ArrayLike) -> Floats:
    """Return the Gini coefficient, corrected for few groups, along the last axis, in [0, 1].

    1 when one group has all errors; 0 when all are equal, also when no group has any.
    """
    values = np.asarray(rates, dtype=np.float64)
    count = values.shape[-1]
    if count < 2:
        raise InputError(f"inequity needs at least 2 groups, got {count}")
    gaps = np.abs(values[..., :, None] - values[..., None, :]).sum(axis=(-1, -2))
    total = values.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        # n / (n - 1) of the plain coefficient, gaps / (2 n total).
        found: Floats = np.where(total == 0, 0.0, gaps / (2 * (count - 1) * total))
    return found
