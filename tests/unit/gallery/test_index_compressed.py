import index_backends as backends
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery import index_compressed
from facerec.gallery.index_codes import CodeError, Codes, Recipe
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.index_flat import FlatIndex

build_small, draw_unit = backends.build_small, backends.draw_unit

DIM = 32


def draw_people(seed, people=150, rows=4, spread=0.8):
    """People with several rows each: vectors and owners."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(people), rows)
    vectors = draw_unit(rng, people, DIM)[owners] + spread * draw_unit(rng, len(owners), DIM)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), owners


def fill(index, vectors, owners, first=0):
    index.upsert(first + np.arange(len(owners)), vectors, owners)
    return index


@pytest.mark.parametrize("name", backends.CODED)
def test_codes_find_people_and_raw_rows_score_them(name):
    vectors, owners = draw_people(0)
    queries, wanted = draw_people(1, 30)[0], None
    with backends.open_coded(name)(DIM, None) as index:
        fill(index, vectors, owners)
        assert index.codes is not None
        wanted = index.search(queries, 1, exact=True)
        given = index.search(queries, 1)
        agreed = (wanted.owners == given.owners).mean()
        assert agreed == 1 if index.exact else agreed > 0.9
        same = wanted.ids == given.ids
        np.testing.assert_array_equal(wanted.scores[same], given.scores[same])


def test_below_its_training_size_a_rung_is_flat():
    index = CompressedIndex(DIM, build_small("pq4+exact", train_at=500), 2)
    vectors, owners = draw_people(0, 100)
    fill(index, vectors, owners)
    assert index.codes is None
    flat = fill(FlatIndex(DIM, 1), vectors, owners)
    given, wanted = index.search(vectors[:20], 9), flat.search(vectors[:20], 9)
    np.testing.assert_array_equal(given.ids, wanted.ids)
    fill(index, vectors, owners, first=1000)
    assert index.codes is not None and index.codes.used == 800 and index.trained_on == 800
    for each in (index, flat):
        each.close()


def test_quantisers_are_trained_again_when_the_rows_have_grown_eightfold():
    index = CompressedIndex(DIM, build_small("pq4+exact"), 2)
    vectors, owners = draw_people(0, 160)
    fill(index, vectors[:80], owners[:80])
    assert index.trained_on == 80
    fill(index, vectors[:300], owners[:300], first=80)
    assert index.trained_on == 80 and index.codes.used == 380
    fill(index, vectors[:300], owners[:300], first=380)
    assert index.trained_on == 680
    index.close()


def test_a_quarter_of_dead_rows_is_closed_up(monkeypatch):
    monkeypatch.setattr(index_compressed, "_LEAST_DEAD", 10)
    vectors, owners = draw_people(0, 100)
    index = fill(CompressedIndex(DIM, build_small("rabitq+exact"), 2), vectors, owners)
    index.remove(np.arange(90))
    assert index.rows.dead == 90 and index.codes.used == 400
    index.remove(np.arange(90, 120))
    assert index.rows.dead == 0 and index.codes.used == len(index) == 280
    assert index.search(vectors[-1:], 1).ids.tolist() == [[399]]
    index.upsert(np.arange(120, 300), vectors[:180], owners[:180])
    assert index.rows.dead == 0 or index.rows.dead <= 0.25 * index.rows.used
    assert index.search(vectors[:1], 1).ids.tolist() == [[120]]
    index.close()


def test_an_index_that_loses_most_rows_is_flat_again():
    vectors, owners = draw_people(0, 40)
    recipe = build_small("sq8+exact")
    index = fill(CompressedIndex(DIM, recipe, 2), vectors, owners)
    index._rebuild()
    assert index.codes is not None
    index.rows.clear(index.rows.find(np.arange(120)))
    index._rebuild()
    assert index.codes is None and len(index) == 40
    assert index.search(vectors[130:131], 1).ids.tolist() == [[130]]
    index.close()


def test_candidates_are_widened_until_the_person_is_found():
    """The right row has a worse code than a crowd of others: only more candidates find it."""
    rng = np.random.default_rng(3)
    vectors, owners = draw_unit(rng, 4000, DIM), np.arange(4000)
    queries = vectors[:200] + 1.0 * draw_unit(rng, 200, DIM)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    recall = {}
    for floor in (1.0, -1.0):
        recipe = build_small("rabitq+exact", least=8, factor=1, most=2000, sample=4000)
        index = fill(CompressedIndex(DIM, recipe, 2, floor=floor), vectors, owners)
        given = index.search(queries, 1).owners
        recall[floor] = (given == index.search(queries, 1, exact=True).owners).mean()
        index.close()
    assert recall[1.0] < 0.8 < 0.97 < recall[-1.0]


def test_too_few_people_among_the_candidates_means_more_candidates():
    rng = np.random.default_rng(0)
    query = draw_unit(rng, 1, DIM)
    crowd = query + 0.05 * draw_unit(rng, 400, DIM)
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    vectors = np.concatenate([crowd, draw_unit(rng, 5, DIM)])
    owners = np.array([0] * 400 + [1, 2, 3, 4, 5])
    index = fill(CompressedIndex(DIM, build_small("pq4+exact"), 2, floor=1.0), vectors, owners)
    assert sorted(index.search(query, 6).owners[0].tolist()) == [0, 1, 2, 3, 4, 5]
    index.close()


def test_people_are_kept_to_whether_few_or_many(monkeypatch):
    vectors, owners = draw_people(0)
    index = fill(CompressedIndex(DIM, build_small("pq4+exact"), 2), vectors, owners)
    for people in (np.arange(5), np.arange(130)):
        ranked = index.search(vectors, 3, people=people)
        assert np.isin(ranked.owners, people).all()
        assert (ranked.owners[: 4 * 5, 0] == owners[:20]).all()
    index.close()


def test_a_stopped_coding_leaves_rows_that_answer_exactly(monkeypatch):
    vectors, owners = draw_people(0)
    index = fill(CompressedIndex(DIM, build_small("pq4+exact"), 2), vectors[:400], owners[:400])

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Codes, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        fill(index, vectors[400:], owners[400:], first=400)
    assert len(index) == 600 and index.codes is None
    np.testing.assert_array_equal(index.search(vectors, 1).ids[:, 0], np.arange(600))
    monkeypatch.undo()
    fill(index, vectors[:1], owners[:1], first=600)
    assert index.codes is not None and index.codes.used == 601
    index.close()


@pytest.mark.parametrize("name", backends.CODED)
def test_the_code_of_a_removed_row_is_overwritten_and_others_stay(name):
    vectors, owners = draw_people(0)
    with backends.open_coded(name)(DIM, None) as index:
        fill(index, vectors, owners)
        before = index.codes.find(vectors[:50], 600, index.workers)
        gone = np.array([2, 3, 64, 65, 66, 310])
        index.remove(gone)
        after = index.codes.find(vectors[:50], 600, index.workers)
        for query in range(50):
            was = dict(zip(before[1][query].tolist(), before[0][query].tolist(), strict=True))
            now = dict(zip(after[1][query].tolist(), after[0][query].tolist(), strict=True))
            kept = [s for s in was if s not in gone and s in now]
            assert len(kept) >= 400
            # Scores of the fast scan are rounded by what else is in the list.
            np.testing.assert_allclose([was[s] for s in kept], [now[s] for s in kept], atol=0.02)
        own = [dict(zip(*[a[q].tolist() for a in after[::-1]], strict=True)) for q in (2, 3)]
        assert own[0].get(2, -1) < 0.8 and own[1].get(3, -1) < 0.8


def test_the_error_of_codes_follows_exact_scores():
    vectors, _ = draw_people(0, 400)
    errors = {}
    for name in ("sq8+exact", "rabitq+exact", "pq4+exact"):
        recipe = build_small(name, sample=1600)
        errors[name] = Codes.train(recipe, vectors, 800, 2).error
    assert errors["sq8+exact"].deviation < 0.01 < errors["rabitq+exact"].deviation
    assert abs(errors["sq8+exact"].gain - 1) < 0.02
    low = CodeError(0.5, 0.1, 0.02).find_rough(np.array([0.4], np.float32), 3)
    np.testing.assert_allclose(low, [0.1 + 0.2 - 0.06], atol=1e-6)


def test_the_factory_text_fits_dimension_and_rows():
    recipe = Recipe("x", "IVF{lists},PQ{parts}x4fs", sample=65536)
    assert recipe.write_factory(512, 500_000) == "IVF512,PQ64x4fs"
    assert recipe.write_factory(128, 100) == "IVF8,PQ64x4fs"
    assert recipe.write_factory(48, 1 << 40) == "IVF1024,PQ48x4fs"
    assert recipe.write_factory(7, 0) == "IVF1,PQ7x4fs"


def test_the_memory_of_rows_and_codes_is_counted():
    vectors, owners = draw_people(0)
    flat = fill(FlatIndex(DIM, 1), vectors, owners)
    assert 600 * DIM * 4 < flat.memory_bytes < 600 * DIM * 4 + 100_000
    sizes = {}
    for name in backends.CODED:
        with backends.open_coded(name)(DIM, None) as index:
            fill(index, vectors, owners)
            sizes[name] = (index.memory_bytes - index.rows.memory_bytes) / 600
    # Half a byte a dimension, a bit and 8 bytes, a byte; a graph has 64 links of 4 bytes besides.
    assert 16 <= sizes["pq4+exact"] < 18 and 12 <= sizes["rabitq+exact"] < 14
    assert sizes["sq8+exact"] == 32 and sizes["hnsw+exact"] > 32 + 256
    assert 24 <= sizes["ivf+exact"] < 32
    assert sizes["lossless"] == 4 * DIM
    flat.close()


def test_a_floor_that_is_no_cosine_is_refused():
    with pytest.raises(InputError, match="floor"):
        CompressedIndex(DIM, build_small("pq4+exact"), 1, floor=1.5)
