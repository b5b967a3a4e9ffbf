import index_backends as backends
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.gallery import index_compressed

DIM = 4
# A few vectors that come again and again: ties everywhere.
VECTORS = backends.draw_unit(np.random.default_rng(0), 12, DIM)

IDS = st.lists(st.integers(0, 30) | st.integers(1 << 40, (1 << 40) + 9), unique=True, max_size=14)
UPSERT = st.tuples(st.just("upsert"), IDS, st.integers(0, 1 << 30))
REMOVE = st.tuples(st.just("remove"), IDS, st.just(0))
STEPS = st.lists(st.one_of(UPSERT, UPSERT, REMOVE), min_size=1, max_size=12)


@pytest.mark.parametrize("name", ["flat", "rabitq+exact", "hnsw+exact", "lossless"])
@settings(max_examples=25, deadline=None)
@given(steps=STEPS, k=st.integers(1, 8), people=st.none() | st.sets(st.integers(0, 9)))
def test_any_changes_and_searches_agree_with_a_model(name, steps, k, people):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "TRAIN_AT", 9)
        patch.setattr(index_compressed, "_LEAST_DEAD", 4)
        oracle = backends.Oracle()
        with backends.BACKENDS[name](DIM, None) as index:
            for kind, ids, seed in steps:
                ids = np.array(ids, np.int64)
                if kind == "remove":
                    assert index.remove(ids) == oracle.remove(ids)
                else:
                    rng = np.random.default_rng(seed)
                    vectors = VECTORS[rng.integers(0, 12, len(ids))]
                    owners = rng.integers(0, 9, len(ids))
                    index.upsert(ids, vectors, owners)
                    oracle.upsert(ids, vectors, owners)
                assert len(index) == len(oracle.rows)
                chosen = None if people is None else np.array(sorted(people), np.int64)
                ranked = index.search(VECTORS[:2], k, exact=True, people=chosen)
                for number in range(2):
                    expected = oracle.search(VECTORS[number], k, people)
                    assert backends.list_answers(ranked, number) == expected
