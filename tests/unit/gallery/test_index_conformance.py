"""One suite over every backend: see index_backends.BACKENDS."""

import threading

import index_backends as backends
import numpy as np
import pytest

from facerec.checks import InputError

Oracle, draw_unit, list_answers = backends.Oracle, backends.draw_unit, backends.list_answers

DIM = 16


@pytest.fixture(params=backends.BACKENDS)
def opener(request, tmp_path):
    return lambda dim=DIM: backends.BACKENDS[request.param](dim, tmp_path)


@pytest.fixture
def index(opener):
    with opener() as index:
        yield index


def numbers(*values):
    return np.array(values, np.int64)


def check_exact(index, oracle, queries, k, people=None):
    ranked = index.search(
        queries, k, exact=True, people=None if people is None else numbers(*people)
    )
    assert ranked.scores.shape == ranked.owners.shape == ranked.ids.shape == (len(queries), k)
    assert ranked.scores.dtype == np.float32
    assert ranked.owners.dtype == ranked.ids.dtype == np.int64
    for number, query in enumerate(queries):
        assert list_answers(ranked, number) == oracle.search(query, k, people)


def check_honest(index, oracle, queries, k):
    """What an approximate answer may not get wrong: scores, owners, order, nobody twice."""
    ranked = index.search(queries, k)
    for number, query in enumerate(queries):
        answers = list_answers(ranked, number)
        assert len({owner for owner, _, _ in answers}) == len(answers)
        assert len(answers) == len(oracle.search(query, k))
        for owner, row, score in answers:
            assert oracle.rows[row][1] == owner
            assert score == oracle.score(query, row)
        ordered = sorted(answers, key=lambda answer: (-answer[2], answer[0]))
        assert answers == ordered
        if index.exact:
            assert answers == oracle.search(query, k)


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_leave_what_a_model_holds(opener, seed):
    rng = np.random.default_rng(seed)
    oracle, first = Oracle(), rng.integers(0, 1 << 40) if seed == 3 else 0
    with opener() as index:
        for _ in range(8):
            ids = first + rng.choice(260, rng.integers(0, 90), replace=False)
            if rng.random() < 0.35:
                ids = np.concatenate([ids, ids[:3]])
                assert index.remove(ids) == oracle.remove(ids)
            else:
                vectors = draw_unit(rng, len(ids))
                if len(ids) > 5:
                    vectors[rng.integers(0, len(ids), 5)] = vectors[0]  # equal vectors: ties
                owners = rng.integers(0, 40, len(ids))
                index.upsert(ids, vectors, owners)
                oracle.upsert(ids, vectors, owners)
            assert len(index) == len(oracle.rows)
            queries = draw_unit(rng, int(rng.integers(1, 12)))
            if oracle.rows:
                queries[0] = oracle.rows[min(oracle.rows)][0]
            k = int(rng.integers(1, 12))
            people = set(rng.integers(0, 50, int(rng.integers(0, 45))).tolist())
            check_exact(index, oracle, queries, k)
            check_exact(index, oracle, queries, k, sorted(people))
            check_honest(index, oracle, queries, k)


def test_ties_go_to_the_lowest_owner_then_the_lowest_id(index):
    same = np.repeat(draw_unit(np.random.default_rng(0), 1), 4, axis=0)
    index.upsert(numbers(9, 3, 7, 5), same, numbers(2, 2, 1, 8))
    ranked = index.search(same[:1], 3, exact=True)
    assert ranked.owners.tolist() == [[1, 2, 8]]
    assert ranked.ids.tolist() == [[7, 3, 5]]


def test_one_person_with_most_rows_does_not_hide_the_others(index):
    rng = np.random.default_rng(0)
    query = draw_unit(rng, 1)
    crowd = 0.05 * draw_unit(rng, 300) + query
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    vectors = np.concatenate([crowd, draw_unit(rng, 3)])
    index.upsert(np.arange(303), vectors, numbers(*[0] * 300, 1, 2, 3))
    for exact in (False, True):
        assert sorted(index.search(query, 4, exact=exact).owners[0].tolist()) == [0, 1, 2, 3]


def test_a_batch_scores_as_single_queries_do(index):
    rng = np.random.default_rng(1)
    index.upsert(np.arange(200), draw_unit(rng, 200), np.arange(200) // 3)
    queries = draw_unit(rng, 30)
    for exact in (False, True):
        whole = index.search(queries, 5, exact=exact)
        single = [index.search(query[None], 5, exact=exact) for query in queries]
        np.testing.assert_array_equal(whole.ids, np.concatenate([s.ids for s in single]))
        np.testing.assert_array_equal(whole.scores, np.concatenate([s.scores for s in single]))


def test_nobody_is_found_where_nobody_is(index):
    query = draw_unit(np.random.default_rng(0), 2)
    assert (index.search(query, 3).owners == -1).all()
    index.upsert(numbers(4), query[:1], numbers(6))
    assert index.search(query[:1], 3, people=numbers()).owners.tolist() == [[-1, -1, -1]]
    assert index.search(query[:0], 3).owners.shape == (0, 3)
    assert index.remove(numbers(4, 5)) == 1 and len(index) == 0
    assert index.remove(numbers(4)) == 0 and index.remove(numbers()) == 0
    assert (index.search(query, 3).ids == -1).all()


def test_a_known_id_is_replaced_with_its_owner(index):
    rows = draw_unit(np.random.default_rng(2), 120)
    index.upsert(np.arange(120), rows, np.arange(120))
    index.upsert(numbers(5, 200), rows[[7, 5]], numbers(500, 600))
    assert len(index) == 121
    ranked = index.search(rows[[5, 7]], 2)
    assert ranked.owners[0, 0] == 600 and ranked.ids[0, 0] == 200
    assert ranked.owners[1].tolist() == [7, 500] and ranked.ids[1].tolist() == [7, 5]


def test_a_search_while_rows_come_and_go_answers_from_whole_states(index):
    rng = np.random.default_rng(3)
    fixed, moving = draw_unit(rng, 90), draw_unit(rng, 40)
    index.upsert(np.arange(90), fixed, np.arange(90))
    done, faults = threading.Event(), []

    def ask():
        while not done.is_set():
            ranked = index.search(fixed[:6], 2)
            expected = (ranked.owners[:, 0] == np.arange(6)).all()
            if not expected or np.isnan(ranked.scores).any():
                faults.append(ranked)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        index.upsert(100 + np.arange(40), moving, 1000 + turn + np.arange(40))
        index.remove(100 + np.arange(turn, 40))
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(index) == 95


@pytest.mark.parametrize(
    ("ids", "vectors", "owners", "message"),
    [
        ([0], np.full((1, 16), np.nan), [0], "finite"),
        ([0], np.zeros((1, 16)), [0], "unit norm"),
        ([0], np.ones((1, 16)), [0], "unit norm"),
        ([0], np.eye(8)[:1], [0], "16 dimensions"),
        ([0, 0], np.eye(16)[:2], [0, 1], "given twice"),
        ([-1], np.eye(16)[:1], [0], "ids must be at least 0"),
        ([0], np.eye(16)[:1], [-1], "owners must be at least 0"),
        ([0, 1], np.eye(16)[:1], [0], r"ids must have shape \(1,\)"),
    ],
)
def test_bad_rows_are_refused_and_change_nothing(index, ids, vectors, owners, message):
    with pytest.raises(InputError, match=message):
        index.upsert(numbers(*ids), vectors.astype(np.float32), numbers(*owners))
    assert len(index) == 0


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (np.full((1, 16), np.nan, np.float32), 1, "finite"),
        (np.zeros((1, 16), np.float32), 1, "unit norm"),
        (np.eye(8, dtype=np.float32)[:1], 1, "16 dimensions"),
        (np.eye(16)[:1], 1, "float32"),
        (np.eye(16, dtype=np.float32)[:1], 0, "at least 1"),
    ],
)
def test_bad_queries_are_refused(index, query, k, message):
    with pytest.raises(InputError, match=message):
        index.search(query, k)


def test_numbers_of_another_type_are_refused(index):
    query = np.eye(16, dtype=np.float32)[:1]
    with pytest.raises(InputError, match="people must be int64"):
        index.search(query, 1, people=np.zeros(1, np.int32))
    with pytest.raises(InputError, match="ids must be int64"):
        index.remove(np.zeros(1))
