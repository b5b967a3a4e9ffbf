"""Drawn documents and tracks of people in a small space: every test's own population."""

import numpy as np

from eval.doc2surv_data import build_documents, build_tracks


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def draw_people(people, seed=0, dim=24):
    return unit(np.random.default_rng(seed).normal(size=(people, dim)))


def draw_sets(
    enrolled=40, unknown=30, tracks_each=3, noise=0.25, seed=0, dim=24, lost_tracks=(), **more
):
    """Return documents and tracks of `enrolled` people and tracks of `unknown` ones.

    `more["documents"]` and `more["tracks"]` go to the builders.
    """
    rng = np.random.default_rng(seed)
    people = draw_people(enrolled + unknown, seed + 1, dim)
    names = [f"p{i:04d}" for i in range(enrolled)] + [f"u{i:04d}" for i in range(unknown)]
    documents = build_documents(
        unit(people[:enrolled] + rng.normal(0, noise / 2, (enrolled, dim)) / np.sqrt(dim) * 4),
        names[:enrolled],
        names=[f"{name}/0.png" for name in names[:enrolled]],
        **more.get("documents", {}),
    )
    owner = np.repeat(np.arange(len(names)), tracks_each)
    vectors = unit(people[owner] + rng.normal(0, noise, (owner.size, dim)) / np.sqrt(dim) * 4)
    for row in lost_tracks:
        vectors[row] = 0
    tracks = build_tracks(
        vectors,
        [names[i] for i in owner],
        names=[f"v{i % tracks_each}.mp4#{i}" for i in range(owner.size)],
        videos=[f"v{i % tracks_each}.mp4" for i in range(owner.size)],
        cameras=[f"cam{i % 2}" for i in range(owner.size)],
        **more.get("tracks", {}),
    )
    return documents, tracks
