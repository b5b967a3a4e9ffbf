"""What happens exactly at a threshold, a rank, an edge; and what an index leaves out."""

import numpy as np
import pytest
from surveillance_cases import draw_people, draw_sets

from eval.doc2surv_data import build_documents, build_tracks, split_halves
from eval.doc2surv_index import search_index
from eval.doc2surv_pairs import CrossExceedances
from eval.doc2surv_points import choose_probes, find_probes, measure_fmr_point, miss
from eval.doc2surv_rates import draw, measure_pairs
from eval.doc2surv_scores import Half, TrackScores
from eval.doc2surv_settings import Doc2SurvSettings
from eval.doc2surv_slices import cut_parts
from facerec.metrics.exceedances import resampled_rates
from facerec.metrics.threshold_results import RateThreshold


def whole(documents, tracks):
    return Half(documents, tracks, np.arange(len(documents)), np.arange(len(tracks)))


def test_a_score_at_the_threshold_and_the_last_rank_count_as_found():
    own = np.array([0.5, 0.5, 0.4999, -np.inf], np.float32)
    ahead = np.array([4, 5, 0, 0])
    scores = TrackScores(own, own, ahead, [])
    assert miss(scores, 0.5, 5).tolist() == [False, True, True, True]


def test_fnmr_counts_what_is_below_the_threshold_and_not_at_it():
    documents, tracks = draw_sets(12, 0, 1)
    half = whole(documents, tracks)
    scores = half.search()
    at = float(np.sort(scores.own)[3])
    threshold = RateThreshold(
        "fmr", 0.01, "tail", "", "transactions", 12, 132, 1.0, 0.95, 100, 0, threshold=at
    )
    sample, draws = half.collect(10**6), draw(12, 100, 0)
    point = measure_fmr_point(half, scores, sample, threshold, draws)
    assert point.find("fnmr").errors == 3
    assert point.find("fmr").errors == np.count_nonzero(sample.scores >= at)


def test_equal_scores_rank_by_name_and_distractors_behind():
    people = draw_people(3)
    documents = build_documents(people[[0, 0, 0]], list("abc"))
    half = whole(documents, build_tracks(people[[0, 0, 0]], list("abc")))
    assert half.search().ahead.tolist() == [0, 1, 2]


def test_the_best_of_several_documents_counts():
    people = draw_people(4)
    documents = build_documents(people[[0, 1, 2]], list("aab"))
    half = whole(documents, build_tracks(people[[1, 2, 3]], ["a", "a", ""]))
    scores = half.search()
    assert scores.own[0] == pytest.approx(1)
    assert scores.own[1] == pytest.approx(max(people[2] @ people[0], people[2] @ people[1]))
    assert half.unknown.tolist() == [False, False, True]
    assert scores.best[2] == pytest.approx(max(people[3] @ people[i] for i in range(3)))


def test_an_index_never_counts_ones_own_person_as_another():
    documents, tracks = draw_sets(30, 20, 2, lost_tracks=(3,))
    half = whole(documents, tracks)
    exact, found = half.search(), search_index(half, "test", "flat", 4, 30, None)
    np.testing.assert_array_equal(found.best, exact.best)
    listed = exact.ahead <= 4
    np.testing.assert_array_equal(found.own[listed], exact.own[listed])
    assert not np.isfinite(found.own[~listed]).any()
    np.testing.assert_array_equal(miss(found, -1.0, 4), miss(exact, -1.0, 4))


def test_pairs_are_not_given_the_spread_of_the_product_of_people():
    rng = np.random.default_rng(0)
    errors = np.triu(rng.random((60, 60)) < 0.02, 1)
    first, second = np.nonzero(errors)
    sample = CrossExceedances(
        np.ones(first.size), np.ones(first.size), first, second, np.ones(60), 60 * 59, 0.5,
        np.ones(60), np.ones(60), np.full(60, -1),
    )  # fmt: skip
    draws = draw(60, 1000, 0)
    figure = measure_pairs("fmr", sample, 1.0, draws)
    product = resampled_rates(sample, draws.times, 1.0)
    wide = float(np.diff(np.quantile(product, [0.025, 0.975]))[0])
    # Independent errors: the Poisson spread, and the product's is up to 1.7 times that.
    poisson = 2 * 1.96 * np.sqrt(first.size) / (60 * 59)
    assert 0.85 * poisson < figure.interval.high - figure.interval.low < 1.2 * poisson
    assert wide > 1.3 * poisson


def test_a_value_on_an_edge_belongs_to_the_part_above():
    sizes = [15.9, 16, 24, 79, 80, np.nan]
    documents = build_documents(draw_people(6), list("abcdef"), years=[2000, 2000.5] * 3)
    tracks = build_tracks(
        draw_people(6, 1), list("abcdef"), sizes_px=sizes, years=[2001] * 6, qualities=range(6)
    )
    split = split_halves(documents, tracks)
    settings = Doc2SurvSettings(quality_parts=2)
    parts = cut_parts(documents, tracks, split, whole(documents, tracks), settings)
    masks = {label: np.flatnonzero(mask).tolist() for label, mask in parts["face size"]}
    assert masks == {
        "below 16 px": [0],
        "16 to 24 px": [1],
        "24 to 40 px": [2],
        "40 to 80 px": [3],
        "from 80 px": [4],
        "not known": [5],
    }
    years = {label: np.flatnonzero(mask).tolist() for label, mask in parts["years"]}
    assert (years["below 1 years"], years["1 to 2 years"]) == ([1, 3, 5], [0, 2, 4])
    assert [mask.sum() for _, mask in parts["quality"]] == [3, 3]
    assert "camera" not in parts


def test_who_is_searched_for_fpir():
    documents, tracks = draw_sets(20, 90, 1)
    half = whole(documents, tracks)
    settings = Doc2SurvSettings(fpirs=(0.1,))
    assert choose_probes({"dev": half, "test": half}, settings) == "unknown"
    assert choose_probes({"dev": half}, Doc2SurvSettings(fpirs=(0.01,))) == "left-out"
    assert choose_probes({"dev": half}, Doc2SurvSettings(fpir_probes="unknown")) == "unknown"
    assert find_probes(half, "unknown").sum() == 90
    assert find_probes(half, "left-out").all()
