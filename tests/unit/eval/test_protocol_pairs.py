import json

import numpy as np
import pytest
from protocol_faces import faces

from eval.protocol_pairs import compare_pairs, join_people, make_folds, read_cfp
from facerec.checks import InputError
from facerec.metrics.verification import eer, kfold_accuracy, tar_at_far


def listed(people=40, each=4, failed=()):
    vectors, whose = faces(people, each)
    vectors[list(failed)] = 0
    rng = np.random.default_rng(1)
    first = rng.integers(len(vectors), size=600)
    same = np.arange(600) % 2 == 0
    step = rng.integers(1, each, size=600)
    mate = first // each * each + (first + step) % each
    stranger = (first + each * rng.integers(1, people, size=600)) % len(vectors)
    return vectors, whose, first, np.where(same, mate, stranger), same


def test_figures_are_those_of_the_metrics():
    vectors, whose, first, second, same = listed(failed=[3])
    found = compare_pairs(vectors, first, second, same, people=whose, resamples=50)
    scores = np.array(
        [float(vectors[a] @ vectors[b]) for a, b in zip(first, second, strict=True)], np.float32
    )
    scores[(first == 3) | (second == 3)] = -np.inf
    accuracy = kfold_accuracy(scores, same, make_folds(600))
    assert found.accuracy.value == pytest.approx(accuracy.mean)
    assert found.accuracy_std == pytest.approx(accuracy.std)
    assert found.eer == pytest.approx(eer(scores, same), abs=1e-6)
    for rate, point in zip(found.tar[:2], tar_at_far(scores, same, [0.1, 0.05]), strict=True):
        if rate.target == point.far:
            assert rate.value == pytest.approx(point.tar)
    assert found.failed_faces == 1 and found.failed_pairs == np.isneginf(scores).sum() > 0
    assert found.tar[0].interval.low < found.tar[0].value < found.tar[0].interval.high
    assert [rate.supported for rate in found.tar] == [True, False, False, False]
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["folds"][9]["fold"] == 10 and plain["people"] == 40
    assert plain["tar"][3]["value"] is None


def test_folds_are_equal_runs():
    assert np.bincount(make_folds(23))[1:].tolist() == [3, 3, 3] + [2] * 7
    assert (np.diff(make_folds(600)) >= 0).all() and np.bincount(make_folds(600))[1] == 60
    with pytest.raises(InputError, match="at least 10 pairs, got 9"):
        make_folds(9)


def test_people_are_joined_by_mated_pairs():
    first, second = np.array([0, 1, 3, 0]), np.array([1, 2, 4, 3])
    same = np.array([True, True, True, False])
    codes, note = join_people(first, second, same, 6)
    assert codes[0] == codes[1] == codes[2] and codes[3] == codes[4]
    assert len(np.unique(codes)) == 3 and "mated pairs" in note
    codes, note = join_people(np.append(first, 0), np.append(second, 2), np.append(same, False), 6)
    assert codes is None and "labels join both sides" in note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": [0] * 20}, "compares face 0 with itself"),
        ({"first": [99] * 20}, r"positions in \[0, 3\]"),
        ({"first": [0.0] * 20}, "positions"),
        ({"first": [0]}, "rows of equal length"),
        ({"same": [2] * 20}, "only 0 and 1"),
        ({"same": [1] * 20}, "none is non-mated"),
        ({"people": [0, 1, 0, 1]}, "contradict the people given .first: pair 1 is labelled two"),
        ({"folds": [1] * 20}, "at least 2 folds"),
        ({"vectors": np.full((4, 2), np.inf, np.float32)}, "finite"),
        ({"fars": [0.0]}, "target FAR"),
    ],
)
def test_bad_input_is_named(change, message):
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], np.float32)
    given = {
        "vectors": vectors,
        "first": [0, 2] * 10,
        "second": [2, 0] * 10,
        "same": [1, 0] * 10,
    }
    if "first" in change and len(change["first"]) == 20:
        given["second"] = [0] * 20
    if "people" in change:
        given["first"], given["second"] = [0, 0] * 10, [2, 2] * 10
    with pytest.raises(InputError, match=message):
        compare_pairs(**(given | change))


def write_cfp(root):
    (root / "Protocol" / "Split" / "FP" / "01").mkdir(parents=True)
    (root / "Protocol" / "Split" / "FP" / "02").mkdir()
    frontal = "1 ../Data/Images/001/frontal/01.jpg\n2 ../Data/Images/002/frontal/01.jpg\n"
    (root / "Protocol" / "Pair_list_F.txt").write_text(frontal)
    (root / "Protocol" / "Pair_list_P.txt").write_text(frontal.replace("frontal", "profile"))
    for fold, (same, diff) in {"01": ("1,1\n", "1,2\n"), "02": ("2,2\n", "2,1\n")}.items():
        (root / "Protocol" / "Split" / "FP" / fold / "same.txt").write_text(same)
        (root / "Protocol" / "Split" / "FP" / fold / "diff.txt").write_text(diff)


def test_cfp_is_read(tmp_path):
    write_cfp(tmp_path)
    pairs = read_cfp(tmp_path)
    assert pairs.image_a == [f"00{n}/frontal/01.jpg" for n in (1, 1, 2, 2)]
    assert pairs.image_b == [f"00{n}/profile/01.jpg" for n in (1, 2, 2, 1)]
    assert pairs.same.tolist() == [True, False] * 2 and pairs.folds.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("Pair_list_F.txt", "one two three\n", "line 1: expected `NUMBER PATH`"),
        ("Split/FP/01/same.txt", "1;1\n", "line 1: expected `A,B`"),
        ("Split/FP/01/diff.txt", "1,9\n", "number 9 is in no list"),
        ("Split/FP/01/diff.txt", None, "diff.txt does not exist"),
    ],
)
def test_a_broken_cfp_is_named(tmp_path, file, text, message):
    write_cfp(tmp_path)
    path = tmp_path / "Protocol" / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_cfp(tmp_path)


def test_a_kind_without_splits_is_named(tmp_path):
    write_cfp(tmp_path)
    with pytest.raises(InputError, match="folder a split"):
        read_cfp(tmp_path, "FF")
