"""Probes made from a gallery's own rows: at a stated cosine, in directions that its rows take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def move_rows(
    rows: NDArray[np.float32],
    cosines: NDArray[np.float64],
    others: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return a unit vector at the stated cosine of each row.

    It is moved along a random mixture of other rows less their mean, so that it leaves the row in
    the directions in which faces differ in this gallery. Codes are trained on those directions
    and err most along them, and strangers lie there too: a probe moved evenly in every direction
    would make codes look better than they are on faces.

    Args:
        rows: float32 (n, d), unit norm.
        cosines: (n,), in (-1, 1).
        others: float32 (p, d), rows of the gallery, or differences between rows of one person.
        rng: draws the mixtures.

    Returns:
        float32 (n, d), unit norm.
    """
    base = rows.astype(np.float64)
    spread = others.astype(np.float64) - others.mean(axis=0, dtype=np.float64)
    step = rng.standard_normal((len(rows), len(others))) @ spread
    # Where the others span nothing (one row, or copies), any direction must do.
    step += 1e-6 * rng.standard_normal(step.shape)
    step -= np.sum(step * base, axis=1, keepdims=True) * base
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    part = cosines[:, None]
    moved = part * base + np.sqrt(1 - part**2) * step
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved, np.float32)
