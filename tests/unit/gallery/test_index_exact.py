import gc
import mmap
import threading

import index_backends as backends
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery import index_scan
from facerec.gallery.index import score_pairs
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_rows import Rows
from facerec.gallery.index_scan import find_slack, keep_widest, search_rows
from facerec.gallery.index_threads import ReadWriteLock, Workers

Oracle, draw_unit, list_answers = backends.Oracle, backends.draw_unit, backends.list_answers


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks, shares and batches of a few rows each."""
    monkeypatch.setattr(index_scan, "_FIRST_ROWS", 4)
    monkeypatch.setattr(index_scan, "_BLOCK_ROWS", (7, 7))
    monkeypatch.setattr(index_scan, "_ROWS_A_THREAD", 10)
    monkeypatch.setattr(index_scan, "_QUERIES_AT_ONCE", 6)
    monkeypatch.setattr(index_scan, "_PAIRS_A_THREAD", 8)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 150),
    people=st.integers(1, 30),
    m=st.integers(1, 14),
    k=st.integers(1, 12),
    share=st.sampled_from([None, 0.0, 0.2, 0.9]),
)
def test_every_path_of_the_scan_answers_as_brute_force(seed, n, people, m, k, share):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_FIRST_ROWS", 4), ("_BLOCK_ROWS", (7, 7)), ("_ROWS_A_THREAD", 10)):
            patch.setattr(index_scan, name, value)
        patch.setattr(index_scan, "_QUERIES_AT_ONCE", 6)
        rng = np.random.default_rng(seed)
        vectors = draw_unit(rng, n, 4)
        vectors[rng.integers(0, n, n // 3)] = vectors[0]
        owners = rng.integers(0, people, n)
        ids = rng.permutation(3 * n)[:n]
        oracle, index = Oracle(), FlatIndex(4, 2)
        index.upsert(ids, vectors, owners)
        oracle.upsert(ids, vectors, owners)
        queries = np.concatenate([draw_unit(rng, m, 4), vectors[:1]])
        chosen = None
        if share is not None:
            chosen = np.flatnonzero(rng.random(people) < share)
        ranked = index.search(queries, k, people=chosen)
        for number, query in enumerate(queries):
            expected = oracle.search(query, k, None if chosen is None else set(chosen.tolist()))
            assert list_answers(ranked, number) == expected
        index.close()


def test_a_row_left_out_of_its_own_search_is_not_found(small_blocks):
    rng = np.random.default_rng(0)
    index = FlatIndex(8, 2)
    vectors, owners = draw_unit(rng, 60, 8), np.arange(60) // 3
    index.upsert(np.arange(60), vectors, owners)
    for count in (3, 20):  # by FAISS, by matrix product
        ranked = index.search_without(vectors[:count], 4, np.arange(count))
        for number in range(count):
            oracle = Oracle()
            kept = np.arange(60) != number
            oracle.upsert(np.arange(60)[kept], vectors[kept], owners[kept])
            assert list_answers(ranked, number) == oracle.search(vectors[number], 4)
    index.close()


def test_many_rows_of_one_person_stay_few_candidates(small_blocks):
    rng = np.random.default_rng(0)
    query = draw_unit(rng, 1, 8)
    rows = Rows(8)
    near = query + 0.1 * draw_unit(rng, 500, 8)
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    rows.append(np.arange(500), near, np.zeros(500, np.int64))
    scan = index_scan._Scan(rows, 1, 2)
    scan.run(query, None)
    assert len(scan.slots) < 20


def test_dead_rows_are_never_answers(small_blocks):
    rng = np.random.default_rng(0)
    rows, workers = Rows(8), Workers(2)
    vectors = draw_unit(rng, 40, 8)
    rows.append(np.arange(40), vectors, np.arange(40))
    rows.clear(np.arange(0, 40, 2))
    for queries in (vectors[:2], -vectors[:10]):
        ranked = search_rows(rows, queries, 40, workers)
        assert set(ranked.owners[0].tolist()) == {*range(1, 40, 2), -1}
    workers.close()


def test_the_slack_covers_float32_products():
    rng = np.random.default_rng(0)
    for dim in (8, 512):
        a, b = draw_unit(rng, 300, dim), draw_unit(rng, 300, dim)
        b[:100] = a[:100]
        wide = np.sum(a.astype(np.float64) * b, axis=1)
        assert np.abs(np.sum(a * b, axis=1) - wide).max() < find_slack(dim)
    assert find_slack(512) < 1e-4


def test_scores_do_not_depend_on_the_company():
    rng = np.random.default_rng(0)
    vectors, queries = draw_unit(rng, 200, 128), draw_unit(rng, 3, 128)
    slots = rng.integers(0, 200, 300)
    asked = np.sort(rng.integers(0, 3, 300))
    whole = score_pairs(vectors, queries, asked, slots)
    single = [
        score_pairs(vectors, queries[a : a + 1], np.zeros(1, np.int64), slots[i : i + 1])[0]
        for i, a in enumerate(asked)
    ]
    np.testing.assert_array_equal(whole, single)
    exact = np.sum(vectors[slots].astype(np.float64) * queries[asked], axis=1)
    np.testing.assert_allclose(whole, exact, atol=1e-7)


def test_the_widest_candidates_are_kept_and_the_best_left_out_is_told():
    scores = np.array([[0.1, 0.9, 0.5, 0.7]], np.float32)
    slots = np.array([[4, 3, 2, 1]])
    kept, places, left = keep_widest(scores, slots, 2)
    assert sorted(places[0].tolist()) == [1, 3] and kept.shape == (1, 2)
    assert left[0] == np.float32(0.5)
    assert np.isneginf(keep_widest(scores, slots, 4)[2][0])


def test_removed_bytes_are_nowhere_in_the_rows():
    rng = np.random.default_rng(0)
    vectors = draw_unit(rng, 2000, 16)
    index = FlatIndex(16, 1)
    index.upsert(np.arange(2000), vectors, np.arange(2000))
    gone = np.array([0, 5, 700, 1999])
    assert index.remove(gone) == 4
    index.upsert(np.array([6]), vectors[[10]], np.array([1]))
    index.rows.reserve(9000)  # moves or copies the whole block
    memory = index.rows._memory.view(9000).tobytes()
    for row in [*gone, 6]:
        assert vectors[row].tobytes() not in memory
    assert vectors[1998].tobytes() in memory
    assert (index.rows.owners >= 0).all() and len(index) == 1996


def test_rows_grow_while_somebody_looks_at_the_old_block():
    rows = Rows(4)
    first = draw_unit(np.random.default_rng(0), 10, 4)
    rows.append(np.arange(10), first, np.arange(10))
    held = rows.vectors
    rows.reserve(50_000)
    np.testing.assert_array_equal(rows.vectors, first)
    assert (held == 0).all()  # the copy left behind is overwritten
    del held
    gc.collect()
    rows.append(np.arange(10, 20), first, np.arange(10))
    np.testing.assert_array_equal(rows.vectors, np.concatenate([first, first]))


def test_rows_grow_where_the_system_cannot_move_pages(monkeypatch):
    class Fixed(mmap.mmap):
        def resize(self, size):
            raise SystemError("no mremap")

    monkeypatch.setattr("facerec.gallery.index_rows.mmap.mmap", Fixed)
    rows = Rows(4)
    for start in range(0, 3000, 500):
        part = draw_unit(np.random.default_rng(start), 500, 4)
        rows.append(np.arange(start, start + 500), part, np.zeros(500, np.int64))
        np.testing.assert_array_equal(rows.vectors[start:], part)
    np.testing.assert_array_equal(rows.vectors[:500], draw_unit(np.random.default_rng(0), 500, 4))


def test_ids_may_be_dense_or_far_apart():
    rows = Rows(4)
    part = draw_unit(np.random.default_rng(0), 4, 4)
    far = np.array([3, 1 << 62, 9, 1 << 40])
    rows.append(np.array([0, 1]), part[:2], np.array([0, 0]))
    assert rows.find(np.array([1, 0, 7, 1 << 62])).tolist() == [1, 0, -1, -1]
    rows.append(far, part, np.zeros(4, np.int64))
    assert rows.find(np.array([1 << 62, 1, 9, 10])).tolist() == [3, 1, 4, -1]
    rows.clear(np.array([3, 0]))
    rows.close_gaps()
    assert sorted(rows.ids.tolist()) == [1, 3, 9, 1 << 40]
    for slot, number in enumerate(rows.ids.tolist()):
        assert rows.find(np.array([number])).tolist() == [slot]


def test_a_writer_excludes_readers_and_goes_first():
    lock, seen = ReadWriteLock(), []
    reading, release = threading.Event(), threading.Event()

    def read_long():
        with lock.read():
            reading.set()
            release.wait(10)
            seen.append("first reader")

    def write():
        with lock.write():
            seen.append("writer")

    def read_late():
        with lock.read():
            seen.append("late reader")

    threads = [threading.Thread(target=read_long)]
    threads[0].start()
    reading.wait(10)
    threads.append(threading.Thread(target=write))
    threads[1].start()
    while not lock._waiting:
        pass
    threads.append(threading.Thread(target=read_late))
    threads[2].start()
    release.set()
    for thread in threads:
        thread.join(10)
    assert seen == ["first reader", "writer", "late reader"]


def test_workers_keep_order_and_pass_errors_on():
    workers = Workers(2)
    assert workers.map(lambda n: n * n, range(9)) == [n * n for n in range(9)]
    with pytest.raises(ZeroDivisionError):
        workers.map(lambda n: 1 // n, range(3))
    workers.close()
    with pytest.raises(InputError, match="threads"):
        Workers(-1)
