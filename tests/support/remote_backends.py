"""Qdrant in four shapes, each behind a real RemoteIndex: what index_backends and tests open."""

import contextlib

import pytest

from facerec.gallery.remote import RemoteIndex, connect_remote
from facerec.gallery.remote_collection import RemotePlace, open_collection
from facerec.gallery.remote_faults import Caller
from facerec.gallery.remote_settings import MEMORY, RemoteSettings

DIM = 16
MODEL = "0123456789abcdef" * 4
NOWHERE = "http://127.0.0.1:1"
"""An address that nothing is asked at."""


@contextlib.contextmanager
def start_backend(kind, folder, dim=DIM):
    """Yields what opens an index; again with the same rows behind it, except for memory.

    Args:
        kind: "memory" or "folder" (the client's own engine), "edge" (the server's engine),
            "http" or "grpc" (that engine, asked through the client over 127.0.0.1).
        folder: for what is kept.
        dim: of the vectors.
    """
    if kind == "memory":
        yield lambda: open_one(RemoteSettings(url=MEMORY), dim)
        return
    if kind == "folder":
        yield lambda: open_one(RemoteSettings(path=folder / "q"), dim)
        return
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    import edge_backend

    with edge_backend.open_folder() as memory:
        if kind == "edge":
            yield lambda: open_edge(memory, dim)
        elif kind == "http":
            import wire_backend

            server = wire_backend.WireServer(backend=edge_backend.EdgeClient(memory))
            yield lambda: open_one(RemoteSettings(url=server.url, batch_rows=64), dim)
            server.close()
        else:
            import grpc_backend

            server = grpc_backend.GrpcServer(backend=edge_backend.EdgeClient(memory))
            port = {"prefer_grpc": True, "grpc_port": server.port}  # everything goes there
            yield lambda: open_one(RemoteSettings(url=NOWHERE, batch_rows=64, **port), dim)
            server.close()


def open_one(config, dim=DIM, tenant="one"):
    return connect_remote(config, model_hash=MODEL, dim=dim, tenant=tenant)


def open_edge(folder, dim=DIM, **options):
    """The index over Qdrant's own engine."""
    import edge_backend

    client = edge_backend.EdgeClient(folder, **options)
    config = RemoteSettings(url=NOWHERE, batch_rows=64)
    place, caller = RemotePlace(MODEL, dim, "one"), Caller("edge", attempts=1)
    open_collection(client, caller, config, place)
    return RemoteIndex(client, caller, config, place)
