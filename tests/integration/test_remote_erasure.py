"""What Qdrant's real engine keeps of a removed vector: docs/cluster.md says what follows."""

import struct

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")

import edge_backend

from facerec.gallery.remote import RemoteIndex
from facerec.gallery.remote_collection import RemotePlace, open_collection
from facerec.gallery.remote_faults import Caller
from facerec.gallery.remote_settings import RemoteSettings

DIM = 32


@pytest.fixture
def folder():
    with edge_backend.open_folder() as folder:
        yield folder


def find_bytes(folder, vector):
    """Which files hold the start of a vector, as segments write it and as the log does."""
    start = vector[:4]
    spellings = [start.tobytes(), b"".join(b"\xfa" + struct.pack(">f", x) for x in start)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).parts[1]
        for path in files
        if any(spelling in path.read_bytes() for spelling in spellings)
    }


def test_a_removed_vector_leaves_segments_with_the_vacuum_and_all_files_with_the_collection(
    folder,
):
    client = edge_backend.EdgeClient(folder, like_server=True)
    config = RemoteSettings(url="http://127.0.0.1:1")
    place, caller = RemotePlace("m" * 64, DIM, "t"), Caller("edge", attempts=1)
    open_collection(client, caller, config, place)
    index = RemoteIndex(client, caller, config, place)
    vectors = np.random.default_rng(0).normal(size=(400, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.upsert(np.arange(400), vectors, np.arange(400))
    client.optimize(place.collection)
    index.remove(np.array([5]))
    assert index.search(vectors[5:6], 1).ids[0, 0] != 5  # no answer from now on
    assert find_bytes(folder, vectors[5]) == {"segments", "wal"}
    client.optimize(place.collection)  # a server does this itself, beyond its thresholds
    assert find_bytes(folder, vectors[5]) == {"wal"}
    index.recreate()
    assert find_bytes(folder, vectors[5]) == set()
    assert len(index) == 0
    index.close()
