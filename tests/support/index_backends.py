"""Every backend that the conformance suite runs over: name -> what opens an empty index.

A new backend is one more entry in BACKENDS.
"""

import contextlib
import dataclasses

import numpy as np
import pytest

from facerec.gallery.index_codes import Recipe
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_ladder import _RECIPES

TRAIN_AT = 70


def build_small(name, **changes):
    """A rung of the ladder that has codes from 70 rows on, and asks for few candidates."""
    recipe = LOSSLESS if name == LOSSLESS.name else _RECIPES[name]
    small = {"train_at": TRAIN_AT, "least": 8, "factor": 2, "most": 64, "share_at": 200}
    return dataclasses.replace(recipe, **{**small, **changes})


# What a GPU does: codes that are the vectors themselves.
LOSSLESS = Recipe("lossless", "Flat", lossless=True)
CODED = [*_RECIPES, LOSSLESS.name]


@contextlib.contextmanager
def open_flat(dim, folder, threads=2):
    index = FlatIndex(dim, threads)
    yield index
    index.close()


def open_coded(name, threads=2):
    @contextlib.contextmanager
    def open_it(dim, folder):
        index = CompressedIndex(dim, build_small(name), threads, floor=-1)
        yield index
        index.close()

    return open_it


def open_qdrant(kind):
    """A tenant of a Qdrant collection: see remote_backends."""

    @contextlib.contextmanager
    def open_it(dim, folder):
        pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
        import remote_backends

        with remote_backends.start_backend(kind, folder, dim) as opener:
            index = opener()
            yield index
            index.close()

    return open_it


BACKENDS = {
    "flat": open_flat,
    **{name: open_coded(name) for name in CODED},
    "rabitq+exact, 1 thread": open_coded("rabitq+exact", 1),
    # Past one machine:
    "qdrant": open_qdrant("memory"),
    "qdrant, the engine": open_qdrant("edge"),
    "qdrant, HTTP": open_qdrant("http"),
    "qdrant, gRPC": open_qdrant("grpc"),
}


class Oracle:
    """The contract by brute force."""

    def __init__(self):
        self.rows = {}

    def upsert(self, ids, vectors, owners):
        for number, vector, owner in zip(ids.tolist(), vectors, owners.tolist(), strict=True):
            self.rows[number] = (vector, owner)

    def remove(self, ids):
        return sum(self.rows.pop(number, None) is not None for number in set(ids.tolist()))

    def score(self, query, number):
        return np.float32(np.dot(query.astype(np.float64), self.rows[number][0].astype(np.float64)))

    def search(self, query, k, people=None):
        best = {}
        for number in sorted(self.rows):
            owner = self.rows[number][1]
            if people is not None and owner not in people:
                continue
            score = self.score(query, number)
            if owner not in best or score > best[owner][0]:
                best[owner] = (score, number)
        ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))[:k]
        return [(owner, number, score) for owner, (score, number) in ranked]


def draw_unit(rng, count, dim=16):
    rows = rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def list_answers(ranked, query):
    """One query's answers as (owner, id, score); what is empty must look so."""
    named = ranked.owners[query] >= 0
    count = int(named.sum())
    assert named[:count].all() and (ranked.ids[query] >= 0)[:count].all()
    assert (ranked.ids[query][count:] == -1).all()
    assert np.isneginf(ranked.scores[query][count:]).all()
    return [
        (int(owner), int(number), float(score))
        for owner, number, score in zip(
            ranked.owners[query, :count],
            ranked.ids[query, :count],
            ranked.scores[query, :count],
            strict=True,
        )
    ]
