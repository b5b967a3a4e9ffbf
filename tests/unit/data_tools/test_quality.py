"""Quality ranks, low quality, several faces, and drops by quality and group."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.quality import (
    LOW_REASONS,
    find_low_quality,
    find_wilson,
    mark_crowded,
    report_drops,
    score_quality,
)
from facerec.checks import InputError
from facerec.data.chip_measures import measure_chips
from facerec.data.synthetic import make_chips


def test_blur_lowers_sharpness_and_extremes_lower_exposure():
    chips, _, _ = make_chips(6, 1, seed=2, kind="document")
    blurred = np.stack([cv2.GaussianBlur(chip, (0, 0), 3) for chip in chips])
    plain = measure_chips(chips)
    assert (measure_chips(blurred).sharpness < 0.5 * plain.sharpness).all()
    assert (measure_chips(chips // 20).exposure < plain.exposure).all()
    blank = measure_chips(np.full((1, 112, 112, 3), 255, np.uint8))
    assert blank.sharpness.tolist() == [0] and blank.exposure.tolist() == [0]


def test_score_is_the_mean_of_known_ranks():
    table = score_quality(
        det_scores=np.array([0.9, 0.5, 0.7, np.nan]),
        boxes=np.array([[0, 0, 40, 50], [0, 0, 90, 80], [5, 5, 25, 65], [0, 0, 40, 40]]),
    )
    assert table.measures == ("detector", "size")
    assert table.face_px.tolist() == [40, 80, 20, 40]
    assert np.allclose(table.ranks[:, 0], [1, 0, 0.5, np.nan], equal_nan=True)
    assert np.allclose(table.ranks[:, 1], [0.5, 1, 0, 0.5])
    assert np.allclose(table.score, [0.75, 0.5, 0.25, 0.5])


def test_a_row_or_measure_without_values_is_unknown():
    table = score_quality(det_scores=np.array([0.1, np.nan]), sharpness=np.full(2, np.nan))
    assert table.measures == ("detector",) and "sharpness" in table.left_out
    assert table.score[0] == 0.5 and np.isnan(table.score[1])


@pytest.mark.parametrize(("sign", "taken"), [(1, True), (-1, False), (0, False)])
def test_norms_count_where_they_rise_with_the_own_cosine(sign, taken):
    rng = np.random.default_rng(3)
    own = rng.uniform(0.2, 0.9, 400)
    norms = 20 + 5 * sign * own + rng.normal(0, 1 if sign else 0, 400)
    table = score_quality(norms=norms, det_scores=rng.random(400), own=own)
    assert ("norm" in table.measures) is taken
    assert taken or "correlation" in table.left_out["norm"]


def test_norms_are_judged_by_the_confident_rows_alone():
    rng = np.random.default_rng(3)
    own, norms, sure = rng.random(400), rng.random(400), np.arange(400) < 100
    norms[sure] = own[sure]
    norms[~sure] = -own[~sure]
    assert "norm" in score_quality(norms=norms, own=own, confident=sure).measures
    assert "norm" not in score_quality(norms=norms, own=own).measures
    few = score_quality(norms=norms, own=own, confident=sure & (np.arange(400) < 9))
    assert "too few" in few.left_out["norm"]
    assert "no cosines" in score_quality(norms=norms).left_out["norm"]


@given(st.permutations(range(9)))
def test_scores_follow_the_rows(order):
    rng = np.random.default_rng(0)
    sharp, det = rng.random(9), rng.integers(0, 3, 9) / 3
    whole = score_quality(sharpness=sharp, det_scores=det).score
    mixed = score_quality(sharpness=np.exp(sharp[order]), det_scores=det[order]).score
    assert np.allclose(mixed, whole[order])
    assert whole.min() >= 0 and whole.max() <= 1


def test_bad_measures_are_refused():
    with pytest.raises(InputError, match="at least one measure"):
        score_quality()
    with pytest.raises(InputError, match=r"sharpness must have shape \(2,\), got \(3,\)"):
        score_quality(det_scores=np.zeros(2), sharpness=np.zeros(3))
    with pytest.raises(InputError, match=r"boxes must have shape \(n, 4\)"):
        score_quality(boxes=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"detector must have shape \(n,\)"):
        score_quality(det_scores=np.zeros((3, 2)))


def make_table():
    sides = np.array([10, 60, 60, 60, 60, np.nan])
    boxes = np.stack([np.zeros(6), np.zeros(6), sides, sides], axis=1)
    return score_quality(boxes=boxes, sharpness=np.array([50, 4, 30, 20, 40, np.nan]))


def test_nothing_is_flagged_unless_asked_for():
    assert not find_low_quality(make_table()).flagged.any()


def test_limits_and_shares_flag_with_their_reason():
    low = find_low_quality(make_table(), min_face_px=20, min_sharpness=5)
    assert [LOW_REASONS[number] for number in low.reason] == [
        "small face", "not sharp", "", "", "", "",
    ]  # fmt: skip
    lowest = find_low_quality(make_table(), share=0.4)
    table = make_table()
    assert lowest.flagged.sum() == 2 and not lowest.flagged[5]
    assert table.score[lowest.flagged].max() <= np.nanmin(table.score[~lowest.flagged])
    assert find_low_quality(table, share=1.0).flagged.sum() == 5


def test_limits_need_their_measure():
    table = score_quality(det_scores=np.array([0.5, 0.6]))
    with pytest.raises(InputError, match="min_face_px needs"):
        find_low_quality(table, min_face_px=20)
    with pytest.raises(InputError, match=r"share must lie in \[0, 1\]"):
        find_low_quality(table, share=1.5)


def test_pictures_of_several_faces_are_marked():
    assert mark_crowded(np.array([0, 1, 2, 5], np.int32)).tolist() == [False, False, True, True]


def test_drops_are_counted_by_tenth_and_group():
    quality = np.append(np.arange(100)[::-1], np.nan)
    dropped = np.append(np.arange(100)[::-1] < 10, True)
    report = report_drops(dropped, quality, {"source": np.array(["a"] * 51 + ["b"] * 50)})
    tenths = [part for part in report if part.column == "quality"]
    assert [part.value for part in tenths] == [*map(str, range(1, 11)), "unknown"]
    assert [part.dropped for part in tenths] == [10] + [0] * 9 + [1]
    assert sum(part.rows for part in tenths) == 101
    sources = [part for part in report if part.column == "source"]
    assert [(part.value, part.rows, part.dropped) for part in sources] == [
        ("a", 51, 0),
        ("b", 50, 11),
    ]
    assert sources[1].share == 0.22 and sources[1].low < 0.22 < sources[1].high


def test_few_rows_and_bad_columns():
    assert [part.rows for part in report_drops(np.zeros(3, bool), np.arange(3.0))] == [1, 1, 1]
    with pytest.raises(InputError, match="split must have 3 rows, got 2"):
        report_drops(np.zeros(3, bool), np.arange(3.0), {"split": np.array(["x", "y"])})


def test_wilson_intervals():
    # Newcombe 1998, table I: 81 of 263, 0 of 20, 1 of 29.
    assert np.allclose(find_wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    assert np.allclose(find_wilson(0, 20), (0, 0.1611), atol=5e-5)
    assert np.allclose(find_wilson(1, 29), (0.0061, 0.1718), atol=5e-5)
    assert find_wilson(0, 0) == (0, 1)
    low, high = find_wilson(7, 7)
    assert high == 1 and low == pytest.approx(1 - find_wilson(0, 7)[1])
    with pytest.raises(InputError, match="hits"):
        find_wilson(3, 2)
