"""Embeddings of people who are not there, for the tests of protocols."""

import numpy as np


def faces(people, each, noise=0.8, dim=16, seed=0):
    """Unit vectors around one direction a person, and whose they are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, dim))
    vectors = np.repeat(centres, each, axis=0) + noise * rng.normal(size=(people * each, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(people), each)


def coarse(rng, count, dim=3):
    """Unit vectors of few directions, some of them zero: scores tie, faces fail."""
    table = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    rows = table[rng.integers(len(table), size=count)][:, :dim].astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).astype(np.float32)


def cosine(a, b):
    """The score of two faces as protocols make it; minus infinity for a failure."""
    if not np.any(a) or not np.any(b):
        return np.float32(-np.inf)
    return np.float32(a.astype(np.float64) @ b.astype(np.float64))


def lowest_threshold(strangers, others, share):
    """The lowest observed score whose share of strangers does not exceed a target, None without.

    Tried from the greatest down: a lower threshold never accepts fewer.
    """
    wrong = np.asarray(strangers, np.float64)
    every = np.unique(np.concatenate([wrong, np.asarray(others, np.float64)]))
    lowest = None
    for score in every[np.isfinite(every)][::-1]:
        if np.count_nonzero(wrong >= score) / len(wrong) > share:
            break
        lowest = float(score)
    return lowest
