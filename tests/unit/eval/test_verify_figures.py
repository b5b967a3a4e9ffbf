import json
import math

import numpy as np
import pytest

from eval import verify
from eval.embedding import EmbeddedPictures
from eval.pairs import PairList
from eval.verify import score_pairs, thin_curve, verify_all_pairs, verify_pairs
from facerec.checks import InputError
from facerec.metrics.verification import RocCurve, tar_at_far


def pictures_of(people, each, noise=0.6, failed=(), seed=0):
    """Random unit vectors around one direction a person."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 16))
    vectors = np.repeat(centres, each, axis=0) + noise * rng.normal(size=(people * each, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"p{i // each}/{i % each}.jpg" for i in range(people * each)]
    reasons = {names[i]: "no face" for i in failed}
    vectors[list(failed)] = 0
    ones = np.ones(len(names), np.float32)
    return EmbeddedPictures(names, vectors.astype(np.float32), ones, reasons)


def pairs_of(pictures, folds=4):
    names = pictures.names
    mated = [(a, b) for a, b in zip(names[::2], names[1::2], strict=True)]
    others = [(a, b) for a, b in zip(names[::2], names[3::2] + names[1:2], strict=True)]
    sides = list(zip(*(mated + others), strict=True))
    same = np.arange(2 * len(mated)) < len(mated)
    numbers = np.concatenate([np.arange(len(mated)) % folds] * 2)
    return PairList("pairs.csv", list(sides[0]), list(sides[1]), same, numbers)


def test_scores_are_cosines_and_failures_are_rejected():
    pictures = pictures_of(3, 2, failed=[2])
    pairs = pairs_of(pictures)
    scores = score_pairs(pairs, pictures)
    first = float(pictures.vectors[0] @ pictures.vectors[1])
    assert scores.dtype == np.float32
    assert scores[0] == pytest.approx(first, abs=1e-6)
    touched = ["p1/0.jpg" in pair for pair in zip(pairs.image_a, pairs.image_b, strict=True)]
    assert np.isneginf(scores).tolist() == touched


def test_a_failure_hurts_and_is_counted():
    whole, broken = pictures_of(40, 2, 0.1), pictures_of(40, 2, 0.1, failed=[4])
    good = verify_pairs(pairs_of(whole), whole, resamples=0).figures
    bad = verify_pairs(pairs_of(broken), broken, resamples=0).figures
    assert (good["accuracy"]["mean"], good["failed_pairs"]) == (1.0, 0)
    assert bad["failed_pairs"] == 2
    assert bad["accuracy"]["mean"] == pytest.approx(79 / 80)
    assert bad["tar_at_far"][0]["tar"] == pytest.approx(39 / 40)
    assert bad["eer"] > good["eer"]


def test_figures_are_json_and_intervals_hold_the_figures():
    pictures = pictures_of(60, 2, 1.0)
    found = verify_pairs(pairs_of(pictures), pictures, resamples=200)
    figures = json.loads(json.dumps(found.figures, allow_nan=False))
    assert (figures["pairs"], figures["mated"], figures["non_mated"]) == (120, 60, 60)
    accuracy = figures["accuracy"]
    assert [entry["fold"] for entry in accuracy["folds"]] == [0, 1, 2, 3]
    assert accuracy["interval"]["low"] < accuracy["mean"] < accuracy["interval"]["high"]
    assert [p["far"] for p in figures["tar_at_far"]] == [1e-1, 1e-2, 1e-3, 1e-4]
    assert {p["supported"] for p in figures["tar_at_far"]} == {False}
    assert found.mated_counts.sum() == found.non_mated_counts.sum() == 60
    again = verify_pairs(pairs_of(pictures), pictures, resamples=200)
    assert again.figures == found.figures


def test_no_interval_where_folders_are_not_people():
    pictures = pictures_of(20, 2)
    pairs = pairs_of(pictures)
    swapped = PairList("x", pairs.image_a, pairs.image_b, ~pairs.same, pairs.folds)
    assert verify_pairs(swapped, pictures).figures["accuracy"]["interval"] is None
    assert verify_pairs(pairs, pictures, resamples=0).figures["tar_at_far"][0]["interval"] is None


@pytest.mark.parametrize("tile", [7, 16, 1024])
def test_all_pairs_equal_brute_force(monkeypatch, tile):
    monkeypatch.setattr(verify, "_TILE", tile)
    pictures = pictures_of(16, 3, 1.2, failed=[0, 5])
    fars = [1e-1, 1e-2, 1e-3]
    found = verify_all_pairs(pictures, fars).figures
    kept = [i for i in range(48) if i not in (0, 5)]
    scores, same = [], []
    for place, i in enumerate(kept):
        for j in kept[place + 1 :]:
            scores.append(float(pictures.vectors[i] @ pictures.vectors[j]))
            same.append(i // 3 == j // 3)
    assert (found["pictures"], found["people"]) == (46, 16)
    assert (found["pairs"], found["mated"]) == (len(same), sum(same))
    for point, exact in zip(found["tar_at_far"], tar_at_far(scores, same, fars), strict=True):
        assert point["tar"] == exact.tar
        assert point["false_accepts"] == exact.false_accepts
        assert point["threshold"] == pytest.approx(exact.threshold, abs=1e-6)


def test_all_pairs_need_both_kinds_and_folders():
    with pytest.raises(InputError, match="no mated one"):
        verify_all_pairs(pictures_of(5, 1))
    with pytest.raises(InputError, match="none is non-mated"):
        verify_all_pairs(pictures_of(1, 5))
    flat = EmbeddedPictures(["a.jpg"], np.ones((1, 1), np.float32), np.ones(1, np.float32))
    with pytest.raises(InputError, match="lies in none"):
        verify_all_pairs(flat)


def test_thinned_curve_keeps_the_ends_and_the_best_of_each_far():
    far = np.concatenate([[0, 0, 0], np.arange(1, 5001) / 5000])
    tar = np.concatenate([[0, 0.2, 0.4], 0.4 + 0.6 * np.arange(1, 5001) / 5000])
    thin = thin_curve(RocCurve(far, tar, -np.arange(5003.0)))
    assert len(thin.far) <= 201
    assert (thin.far[0], thin.tar[0]) == (0, 0.4)
    assert (thin.far[-1], thin.tar[-1]) == (1, 1)
    assert (np.diff(thin.far) > 0).all()
    assert math.isclose(thin.far[1], 1 / 5000)
