import numpy as np
import plain_index
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.enrolment_checks import (
    CHECK_MODES,
    DUPLICATE_IDENTITY,
    OK,
    OUTLIER,
    SAME_PICTURE,
    WRONG_PERSON,
    CheckLimits,
    check_samples,
    examine_samples,
)

DIM, PEOPLE = 256, 30
BERTA = 4


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def pictures(person, count, seed=0, spread=0.8):
    """Pictures of a person, mated cosine about 0.6."""
    centre = unit(np.random.default_rng([99, person]).standard_normal(DIM))
    rng = np.random.default_rng([seed, person])
    return unit(centre + spread * rng.standard_normal((count, DIM)) / np.sqrt(DIM))


@pytest.fixture(scope="module")
def index():
    """A gallery of thirty people with three pictures each."""
    vectors = np.concatenate([pictures(person, 3) for person in range(PEOPLE)])
    return plain_index.PlainIndex(vectors, np.repeat(np.arange(PEOPLE), 3))


def examine(index, vectors, **change):
    arguments = {"name": "Anna", "names": {BERTA: "Berta"}, **change}
    return examine_samples(index, vectors, **arguments)


def test_pictures_of_a_new_person_and_more_of_a_known_one_are_fine(index):
    new = examine(index, pictures(77, 4))
    assert new.verdicts == (OK,) * 4 and new.texts == ("",) * 4 and not new.duplicates
    assert new.own.min() > 0.45 and new.other.max() < 0.4
    known = examine(index, pictures(7, 2, seed=1), owner=7, held=pictures(7, 3))
    assert known.verdicts == (OK, OK) and 7 not in known.others
    # The first picture of somebody: there is nothing of their own to hold it against.
    first = examine(index, pictures(77, 1))
    assert first.verdicts == (OK,) and np.isnan(first.own[0])


def test_a_wrong_person_among_the_pictures_is_named_with_both_figures(index):
    vectors = np.concatenate([pictures(77, 3), pictures(BERTA, 1, seed=1)])
    found = examine(index, vectors)
    assert found.verdicts == (OK, OK, OK, WRONG_PERSON)
    assert found.others[3] == BERTA and found.other[3] > 0.5 > found.own[3]
    text = f"more like Berta ({found.other[3]:.2f}) than like Anna ({found.own[3]:.2f})"
    assert found.texts[3] == text
    assert "person 4 (" in examine(index, vectors, names=None).texts[3]


def test_looking_like_somebody_is_no_finding_while_the_own_samples_are_nearer():
    anna = pictures(77, 3)
    alike = plain_index.PlainIndex(unit(anna[:1] + 1.3 * pictures(BERTA, 1)), [BERTA])
    found = examine(alike, anna)
    assert found.other[0] > 0.5 > found.other[1:].max() and found.own[0] > found.other[0]
    assert found.verdicts == (OK, OK, OK)


def test_two_pictures_of_a_wrong_person_do_not_vouch_for_each_other(index):
    vectors = np.concatenate([pictures(77, 3), pictures(BERTA, 2, seed=1)])
    found = examine(index, vectors)
    assert found.verdicts == (OK, OK, OK, WRONG_PERSON, WRONG_PERSON)
    assert found.own[3:].max() < 0.3  # to Anna's, not to each other
    held = examine(index, vectors[3:], owner=77, held=vectors[:3])
    assert held.verdicts == (WRONG_PERSON, WRONG_PERSON)


def test_a_whole_person_under_a_second_name_is_one_finding(index):
    found = examine(index, pictures(BERTA, 3, seed=1))
    assert found.verdicts == (DUPLICATE_IDENTITY,) * 3
    ((who, score),) = found.duplicates
    middle = np.sort(found.other)[1]
    assert found.own.min() > 0.45  # they still vouch for each other
    assert who == BERTA and score == pytest.approx(middle)
    assert found.texts[0] == f"Anna may be Berta: {score:.2f}, threshold 0.50"
    single = examine(index, pictures(BERTA, 1, seed=1))
    assert single.verdicts == (DUPLICATE_IDENTITY,)


def test_half_of_the_pictures_is_no_duplicate_identity(index):
    vectors = np.concatenate([pictures(77, 2), pictures(BERTA, 2, seed=1)])
    found = examine(index, vectors)
    assert not found.duplicates and found.verdicts == (OK, OK, WRONG_PERSON, WRONG_PERSON)


def test_a_duplicate_is_found_though_others_are_nearer_to_most_pictures():
    # Six people are nearer to the first and to the second picture than Berta is, none to the third.
    anna = pictures(77, 3, spread=1.0)
    crowd = [unit(anna[i] + 0.3 * pictures(200 + j, 1)) for i in range(2) for j in range(6)]
    berta = unit(anna.sum(axis=0))[None]
    everybody = np.concatenate([*crowd, unit(0.8 * berta + 0.6 * pictures(300, 1))])
    index = plain_index.PlainIndex(everybody, np.arange(13))
    nearest = index.search(anna, 6).owners
    assert 12 not in nearest[:2] and 12 in nearest[2]
    found = examine(index, anna, limits=CheckLimits(identity=0.3))
    assert 12 in [who for who, _ in found.duplicates]


def test_one_picture_under_two_names_is_told_from_a_wrong_person(index):
    copied = pictures(BERTA, 3)[1:2]
    found = examine(index, np.concatenate([pictures(77, 2), copied]))
    assert found.verdicts == (OK, OK, SAME_PICTURE)
    assert found.texts[2] == "nearly the same picture as one of Berta (1.00)"


def test_an_outlier_is_unlike_all_others_and_of_two_both_are_named(index):
    odd = pictures(88, 1)
    found = examine(index, np.concatenate([pictures(77, 3), odd]))
    assert found.verdicts == (OK, OK, OK, OUTLIER)
    text = f"unlike all other samples of Anna (best {found.own[3]:.2f}, at least 0.30 asked)"
    assert found.texts[3] == text
    pair = examine(index, np.concatenate([pictures(77, 1), odd]))
    assert pair.verdicts == (OUTLIER, OUTLIER) and "the only other sample" in pair.texts[0]
    lenient = examine(index, np.concatenate([pictures(77, 1), odd]), limits=CheckLimits(own=-1))
    assert lenient.verdicts == (OK, OK)


def test_the_threshold_of_the_collection_decides(index):
    vectors = pictures(BERTA, 3, seed=1)
    assert any(check_samples(index, vectors, name="Anna", threshold=0.4))
    assert check_samples(index, vectors, name="Anna", threshold=0.95) == [""] * 3
    assert check_samples(index, vectors, name="Anna") == check_samples(
        index, vectors, name="Anna", threshold=0.5
    )


def test_an_empty_gallery_and_no_samples(index):
    empty = plain_index.PlainIndex(np.zeros((0, DIM), np.float32), [])
    found = examine(empty, pictures(77, 2))
    assert found.verdicts == (OK, OK) and np.isnan(found.other).all()
    only_own = plain_index.PlainIndex(pictures(77, 2), [5, 5])
    alone = examine(only_own, pictures(77, 2, seed=1), owner=5, held=pictures(77, 2))
    assert alone.verdicts == (OK, OK) and alone.others.tolist() == [-1, -1]
    assert examine(index, np.zeros((0, DIM), np.float32)).verdicts == ()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_order_does_not_matter(index, seed, count):
    rng = np.random.default_rng(seed)
    people = rng.choice([77, 77, BERTA, 9, 88], count)
    vectors = np.concatenate([pictures(p, 1, seed=1 + i) for i, p in enumerate(people)])
    order = rng.permutation(count)
    one, two = examine(index, vectors), examine(index, vectors[order])
    assert [one.texts[i] for i in order] == list(two.texts)
    assert one.duplicates == two.duplicates


@pytest.mark.parametrize("mode", CHECK_MODES)
def test_a_mode_decides_what_becomes_of_it(index, mode):
    found = examine(index, np.concatenate([pictures(77, 3), pictures(88, 1)]))
    refused, said = found.apply(mode)
    nothing = [""] * 4
    assert refused == (list(found.texts) if mode == "strict" else nothing)
    assert said == (list(found.texts) if mode == "warn" else nothing)


def test_bad_input(index):
    with pytest.raises(InputError, match="unit norm"):
        examine(index, np.ones((1, DIM), np.float32))
    with pytest.raises(InputError, match="256 dimensions"):
        examine(index, np.eye(8, dtype=np.float32)[:1])
    with pytest.raises(InputError, match="give owner too"):
        examine(index, pictures(77, 1), held=pictures(77, 1))
    with pytest.raises(InputError, match="identity cosine"):
        check_samples(index, pictures(77, 1), name="Anna", threshold=4.2)
    with pytest.raises(InputError, match="check must be one of"):
        examine(index, pictures(77, 1)).apply("lax")
