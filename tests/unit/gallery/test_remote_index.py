import numpy as np
import pytest

from facerec.checks import InputError

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

import remote_backends
import wire_backend as wire

from facerec.gallery.remote import Mark, RemoteIndex
from facerec.gallery.remote_collection import RemotePlace
from facerec.gallery.remote_settings import MEMORY, RemoteSettings

DIM, MODEL = remote_backends.DIM, remote_backends.MODEL
start_backend, open_one = remote_backends.start_backend, remote_backends.open_one


@pytest.fixture(params=["memory", "edge", "http", "grpc"])
def opener(request, tmp_path):
    with start_backend(request.param, tmp_path) as opener:
        yield opener


def draw_unit(count, seed=0, dim=DIM):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def numbers(*values):
    return np.array(values, dtype=np.int64)


def test_people_are_asked_for_in_blocks(monkeypatch):
    monkeypatch.setattr("facerec.gallery.remote._PEOPLE_A_FILTER", 3)
    index = open_one(RemoteSettings(url=MEMORY))
    vectors = draw_unit(40)
    index.upsert(np.arange(40), vectors, np.arange(40))
    people = np.arange(1, 40, 2)
    found = index.search(vectors[:4], 6, people=people)
    scores = vectors[:4].astype(np.float64) @ vectors[people].T.astype(np.float64)
    np.testing.assert_array_equal(found.owners, people[np.argsort(-scores, axis=1)[:, :6]])
    index.close()


def test_rows_go_in_several_requests_and_are_listed_in_order():
    server = wire.WireServer()
    index = open_one(RemoteSettings(url=server.url, batch_rows=4))
    ids = numbers(7, 3, 9, 1, 8, 2, 2**62, 0, 5)
    index.upsert(ids, draw_unit(9), np.arange(9))
    assert sum(line.startswith("PUT") and line.endswith("/points") for line in server.seen) == 3
    assert index.list_ids().tolist() == sorted(ids.tolist())
    index.close()
    server.close()


def test_tenants_share_a_collection_and_never_meet(opener):
    index = opener()
    # The same client: the engines without a server belong to one.
    other = RemoteIndex(
        index._client, index._caller, index.settings, RemotePlace(MODEL, DIM, "two")
    )
    vectors = draw_unit(4)
    index.upsert(numbers(1, 2), vectors[:2], numbers(1, 2))
    other.upsert(numbers(1, 3), vectors[2:], numbers(1, 3))
    index.write_mark(4)
    assert other.read_mark() is None
    assert set(index.search(vectors, 5).ids.ravel().tolist()) == {1, 2, -1}
    assert other.search(vectors[2:3], 1).ids.tolist() == [[1]]
    assert other.remove(numbers(2)) == 0
    other.clear()
    assert (len(index), len(other)) == (2, 0)
    assert index.read_mark() == Mark(4, 2)
    index.close()


def test_a_mark_tells_whether_the_rows_are_those_of_the_store(opener):
    index = opener()
    assert "never filled" in index.explain_lag(0)
    index.upsert(numbers(1, 2), draw_unit(2), numbers(1, 2))
    assert index.write_mark(7, "abc") == Mark(7, 2, "abc")
    assert index.explain_lag(7, "abc") == ""
    assert len(index) == 2  # the mark is no row
    assert set(index.search(draw_unit(1), 5).ids.ravel().tolist()) == {1, 2, -1}
    assert "behind" in index.explain_lag(9, "abc")
    assert "ahead" in index.explain_lag(6, "abc")
    assert "another history" in index.explain_lag(7, "abd")
    index.upsert(numbers(3), draw_unit(1, seed=5), numbers(3))
    assert "3 rows, 2 were there" in index.explain_lag(7, "abc")
    with pytest.raises(InputError, match="has 3 rows of this gallery after the sync, expected 4"):
        index.write_mark(8, rows=4)
    assert index.read_mark().version == 7
    index.clear_mark()
    assert index.read_mark() is None
    index.close()


@pytest.mark.parametrize("kind", ["edge", "http", "grpc", "folder"])
def test_rows_and_mark_are_there_after_reopening(kind, tmp_path):
    with start_backend(kind, tmp_path) as opener:
        index = opener()
        vectors = draw_unit(12)
        index.upsert(np.arange(12), vectors, np.arange(12))
        index.remove(numbers(3))
        index.write_mark(3)
        index.close()
        index.close()
        with pytest.raises(InputError, match="is closed"):
            index.search(vectors[:1], 1)
        again = opener()
        assert again.explain_lag(3) == ""
        assert again.search(vectors[3:6], 1).ids[1:].tolist() == [[4], [5]]
        assert again.list_ids().tolist() == [0, 1, 2, *range(4, 12)]
        again.recreate()
        assert (len(again), again.read_mark()) == (0, None)
        again.close()


def test_what_is_asked_of_a_server():
    server = wire.WireServer()
    index = open_one(RemoteSettings(url=server.url, hnsw_ef=99, quantization="int8"))
    index.upsert(np.arange(3), draw_unit(3), np.arange(3))
    (made,) = server.created
    assert made["vectors"] == {"size": DIM, "distance": "Dot", "on_disk": False}
    assert made["hnsw_config"] == {"m": 0, "payload_m": 16}  # a graph a tenant, none over all
    assert made["quantization_config"]["scalar"]["type"] == "int8"
    assert server.indexes["tenant"] == {"type": "keyword", "is_tenant": True}
    index.search(draw_unit(1), 1)
    index.search(draw_unit(1), 1, exact=True, people=numbers(1, 2))
    plain, exact = server.queries
    rescored = {"ignore": False, "rescore": True}
    assert plain["params"] == {"exact": False, "hnsw_ef": 99, "quantization": rescored}
    assert exact["params"]["exact"] and exact["params"]["quantization"]["ignore"]
    assert exact["filter"]["must"][0] == {"key": "tenant", "match": {"value": "one"}}
    assert exact["filter"]["must"][1] == {"key": "owner", "match": {"any": [1, 2]}}
    assert not plain["with_vector"]  # vectors are fetched of the best rows only
    index.close()
    again = open_one(RemoteSettings(url=server.url, always_exact=True))
    again.search(draw_unit(1), 1)
    assert again.exact and server.queries[-1]["params"]["exact"]
    again.close()
    server.close()


def test_a_graph_that_ends_early_is_followed_by_a_scan():
    server = wire.WireServer()
    index = open_one(RemoteSettings(url=server.url))
    index.upsert(np.arange(3), draw_unit(3), np.arange(3))
    index.search(draw_unit(2), 2)
    assert [query["params"]["exact"] for query in server.queries] == [False, False]
    index.search(draw_unit(1), 4)  # there are three people: the server is asked once more
    assert [query["params"]["exact"] for query in server.queries[2:]] == [False, True]
    index.close()
    server.close()
