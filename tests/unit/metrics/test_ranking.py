import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics import ranking
from facerec.metrics.ranking import cmc_map


def rank_by_loop(distances, query_ids, gallery_ids, query_cameras, gallery_cameras):
    """The definitions row by row: sort, drop junk, precision at each right row."""
    first, precisions = [], []
    for query, row in enumerate(np.asarray(distances, dtype=np.float64)):
        kept = []
        for column in np.argsort(row, kind="stable"):
            own = gallery_ids[column] == query_ids[query]
            if gallery_ids[column] == -1 or (
                own
                and query_cameras is not None
                and gallery_cameras[column] == query_cameras[query]
            ):
                continue
            kept.append(own)
        right = [rank for rank, own in enumerate(kept, start=1) if own]
        first.append(right[0] if right else 0)
        found = [(i + 1) / rank for i, rank in enumerate(right)]
        precisions.append(np.mean(found) if found else np.nan)
    return first, precisions


@st.composite
def searches(draw, most_rows=30):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    queries, rows = draw(st.integers(1, 40)), draw(st.integers(1, most_rows))
    people, cameras = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    distances = rng.random((queries, rows))
    kind = draw(st.sampled_from(["fine", "tied", "whole", "half", "infinite"]))
    if kind == "tied":
        distances = np.round(distances, 1).astype(np.float32)
    elif kind == "whole":
        distances = rng.integers(0, 256, distances.shape).astype(np.uint8)
    elif kind == "half":
        distances = distances.astype(np.float16)
    elif kind == "infinite":
        distances[rng.random(distances.shape) < 0.3] = np.inf
    ids = [rng.integers(-1, people, rows) for rows in (queries, rows)]
    places = [rng.integers(0, cameras, rows) for rows in (queries, rows)]
    return distances, *ids, *(places if draw(st.booleans()) else (None, None))


def check_against_loop(search):
    first, precisions = rank_by_loop(*search)
    if not any(first):
        with pytest.raises(InputError, match="none of"):
            cmc_map(*search)
        return
    found = cmc_map(*search, threads=2)
    assert found.first_ranks.tolist() == first
    np.testing.assert_allclose(found.average_precisions, precisions, rtol=0, atol=1e-12)
    assert found.mean_ap == pytest.approx(np.nanmean(precisions), abs=1e-12)
    assert (found.queries, found.left_out) == (np.count_nonzero(first), first.count(0))
    made = [rank for rank in first if rank]
    assert found.cmc.shape == (np.count_nonzero(np.asarray(search[2]) != -1),)
    for k in range(1, found.cmc.size + 1):
        assert found.cmc[k - 1] == pytest.approx(np.mean([rank <= k for rank in made]))


@given(searches())
@settings(max_examples=200, deadline=None)
def test_equals_the_loop(search):
    check_against_loop(search)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("people", [1, 3, 12, 400])
def test_equals_the_loop_on_long_rows(people, tied):
    # 1 and 3 people: more right rows than are counted one by one; 12: several lots of them.
    rng = np.random.default_rng(people)
    ids = [rng.integers(0, people, rows) for rows in (70, 450)]
    cameras = [rng.integers(0, 4, rows) for rows in (70, 450)]
    distances = rng.random((70, 450)).astype(np.float32)
    # Own rows are near, so that most of the list lies beyond the last of them.
    distances += 0.7 * (ids[0][:, None] != ids[1]) * (rng.random((70, 1)) < 0.5)
    if tied:
        distances = np.round(distances, 1)
    check_against_loop((distances, *ids, *cameras))


def test_flags_add_up_on_a_row_longer_than_a_byte_counts():
    # More than 255 words of 8 rows lie before the only right one.
    row = np.zeros((1, 5003), np.float32)
    row[0, 5002] = 1
    ids = np.zeros(5003, np.int64)
    ids[5002] = 7
    assert cmc_map(row, [7], ids).first_ranks.tolist() == [5003]


def test_hand_computed_miniature():
    distances = [
        [0.1, 0.2, 0.3, 0.4, 0.5],
        [0.5, 0.1, 0.4, 0.3, 0.2],
        [0.1, 0.2, 0.3, 0.4, 0.5],
    ]
    # Gallery: own camera (junk), background, junk box, right, right.
    gallery, cameras = [1, 0, -1, 1, 1], [1, 3, 2, 2, 3]
    found = cmc_map(np.array(distances), [1, 1, 9], gallery, [1, 2, 1], cameras)
    # Query 0 sees background, right, right: (1/2 + 2/3) / 2. Query 1 (camera 2) sees background,
    # right, right. Query 2 has nobody in the gallery.
    assert found.first_ranks.tolist() == [2, 2, 0]
    np.testing.assert_allclose(found.average_precisions, [7 / 12, 7 / 12, np.nan])
    assert found.cmc.tolist() == [0, 1, 1, 1]
    assert (found.queries, found.left_out) == (2, 1)
    # Without cameras the nearest row of query 0 is right: 1/1, 2/3, 3/4.
    alone = cmc_map(np.array(distances[:1]), [1], gallery)
    assert alone.mean_ap == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_equal_distances_rank_by_position():
    tied = np.full((1, 4), 0.5)
    assert cmc_map(tied, [1], [0, 0, 1, 0]).first_ranks.tolist() == [3]
    assert cmc_map(tied, [1], [1, 0, 1, 0]).mean_ap == pytest.approx((1 + 2 / 3) / 2)


@given(searches(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_laws_of_order_and_monotone_maps(search, seed):
    distances, query_ids, gallery_ids, query_cameras, gallery_cameras = search
    try:
        found = cmc_map(*search)
    except InputError:
        return
    # Steps of 1/65536 or coarser survive the map; others may tie.
    if distances.dtype != np.float64:
        mapped = np.exp(distances.astype(np.float64) / 64)
        again = cmc_map(mapped, *search[1:])
        assert again.first_ranks.tolist() == found.first_ranks.tolist()
        assert again.mean_ap == found.mean_ap
    order = np.random.default_rng(seed).permutation(len(query_ids))
    cameras = None if query_cameras is None else query_cameras[order]
    turned = cmc_map(
        distances[order], query_ids[order], gallery_ids, cameras, gallery_cameras, threads=1
    )
    assert turned.first_ranks.tolist() == found.first_ranks[order].tolist()
    assert turned.cmc.tolist() == found.cmc.tolist()


def test_text_labels_and_memory_maps(tmp_path):
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 5, rows) for rows in (40, 60)]
    distances = rng.random((40, 60)).astype(np.float32)
    np.save(tmp_path / "d.npy", distances)
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    words = [np.array([f"p{name}" for name in side], dtype=object) for side in ids]
    assert cmc_map(mapped, *words).mean_ap == cmc_map(distances, *ids).mean_ap
    assert (distances == mapped).all()


def test_ids_beyond_what_a_float_holds_stay_apart():
    big = 2**63 + 1
    found = cmc_map(
        np.array([[0.1, 0.2]]), np.array([big], np.uint64), np.array([big - 1, big], np.uint64)
    )
    assert found.first_ranks.tolist() == [2]
    assert cmc_map(np.array([[0.1, 0.2]]), [3], np.array([4, 3], np.uint64)).mean_ap == 0.5


def test_a_block_reads_no_further_than_its_queries():
    queries = ranking._BLOCK + 1
    found = cmc_map(np.tile([[0.2, 0.1]], (queries, 1)), np.arange(queries) % 2, [0, 1])
    assert found.first_ranks.tolist() == [2 - query % 2 for query in range(queries)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], [1], [1]), "matrix of real numbers"),
        (([[1j]], [1], [1]), "matrix of real numbers"),
        (([[0.1]], [1, 2], [1]), r"query_ids must be \(1,\)"),
        (([[0.1]], [1], [1, 2]), r"gallery_ids must be \(1,\)"),
        (([[0.1]], [1.0], [1]), "whole numbers or text"),
        (([[0.1]], ["1"], [1]), "of one kind"),
        (([[0.1]], [1], [1], [1]), "only query_cameras"),
        (([[0.1]], [1], [1], None, [1]), "only gallery_cameras"),
        (([[0.1]], [1], [1], [1], [1, 2]), r"gallery_cameras must be \(1,\)"),
        (([[np.nan, 0.1]], [1], [1, 1]), "NaN"),
        (([[-np.inf, 0.1]], [1], [1, 1]), "negative infinity"),
        (([[0.1]], [1], [2]), "none of 1 queries"),
        (([[0.1]], [1], [1], [3], [3]), "from another camera"),
        ((np.zeros((0, 2)), np.zeros(0, int), [1, 2]), "none of 0 queries"),
        ((np.zeros((2, 0)), [1, 2], np.zeros(0, int)), "none of 2 queries"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    distances, *rest = arguments
    with pytest.raises(InputError, match=message) as caught:
        cmc_map(np.asarray(distances), *rest)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="threads"):
        cmc_map(np.array([[0.1]]), [1], [1], threads=0)
