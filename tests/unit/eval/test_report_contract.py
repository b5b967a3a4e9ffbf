"""What an evaluation promises: no invented figure, one name for one thing, JSON there and back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import make_counts, make_evaluation
from hypothesis import given
from hypothesis import strategies as st

from eval.evaluation import Evaluation, Failure, SubjectCounts, WorstError
from eval.evaluation_curves import Det, Growth, Histogram, build_det, build_histogram
from eval.evaluation_estimates import (
    Bar,
    Estimate,
    Headline,
    Slice,
    build_bar,
    build_headline,
    format_estimate,
    format_interval,
    format_value,
    headline_of_rate,
)
from eval.protocol_results import Rate
from facerec.checks import InputError
from facerec.metrics.bootstrap import Interval


def test_json_gives_the_same_evaluation_back():
    evaluation = make_evaluation(simulated=True)
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == evaluation


def test_json_says_of_every_figure_whether_it_is_supported():
    plain = make_evaluation().to_json()
    assert [each["supported"] for each in plain["headline"]] == [True, True, False, True]
    assert plain["slices"][0]["bars"][-1]["supported"] is False
    assert plain["growth"][0]["points"][-1]["supported"] is False


def test_numpy_numbers_become_plain_ones():
    headline = (Headline("a", np.float32(0.5)),)
    evaluation = Evaluation("t", ("p",), False, headline, counts={"n": np.int64(3)})
    plain = json.loads(json.dumps(evaluation.to_json()))
    assert (plain["headline"][0]["value"], plain["counts"]) == (0.5, {"n": 3})
    assert set(plain["provenance"]) >= {"versions", "seed", "hashes"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "must be an evaluation"),
        ({"format_version": 2}, "format_version 1, got 2"),
        ({"title": None}, "title"),
        ({"det": [{"name": "x"}]}, "det.0.x_label"),
        ({"headline": [{"name": "x", "value": None}]}, "needs a reason"),
    ],
)
def test_json_that_does_not_fit_is_refused_with_the_place(change, message):
    with pytest.raises(InputError, match=message):
        Evaluation.from_json({**make_evaluation().to_json(), **change}, "a.json")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Estimate("x", float("nan")), "must be finite"),
        (lambda: Estimate("x", 0.5, 0.1, float("inf")), "must be finite"),
        (lambda: Estimate("x", None), "needs a reason"),
        (lambda: Estimate("x", None, 0.1, 0.2, "why"), "can have no interval"),
        (lambda: Estimate("x", 0.5, 0.4), "both ends"),
        (lambda: Estimate("x", 0.5, 0.6, 0.4), "must rise"),
        (lambda: Estimate(" ", 0.5), "needs a name"),
        (lambda: Headline("x", 0.5, better="hihger"), "did you mean 'higher'"),
        (lambda: Slice("s", "f", (Bar("a", 0.1), Bar("a", 0.2))), "each of its parts once"),
        (lambda: Failure("f", "r", "FTX"), "FTA"),
        (lambda: WorstError("mated", "a", "b", -np.inf), "among the failures"),
        (lambda: Det("d", "x", "y", (0.1,), (0.1, 0.2)), "equal rows"),
        (lambda: Det("d", "x", "y", (0.1,), (1.2,)), r"rates in \[0, 1\]"),
        (lambda: Det("d", "x", "y", (float("nan"),), (0.2,)), r"rates in \[0, 1\]"),
        (lambda: Histogram("h", (0, 1), (1, 2), (1, 2)), "b \\+ 1 edges"),
        (lambda: Histogram("h", (0, 0), (1,), (1,)), "rising edges"),
        (lambda: Histogram("h", (0, 1), (-1,), (1,)), "at least 0"),
        (lambda: Histogram("h", (0, 1), (1,), (1,), {"t": float("nan")}), "finite"),
        (lambda: build_histogram("h", [-np.inf], []), "one finite score"),
        (lambda: Growth("g", (10, 5), (Estimate("a", 0.1), Estimate("b", 0.1))), "rising sizes"),
        (lambda: Growth("g", (10,), ()), "a figure a gallery size"),
        (lambda: SubjectCounts("f", ("a",), (1.0,), (1.0, 2.0)), "three rows"),
        (lambda: SubjectCounts("f", ("a", "a"), (1.0, 0.0), (1.0, 2.0)), "each subject once"),
        (lambda: SubjectCounts("f", ("a",), (0.0,), (0.0,)), "positive number of trials"),
        (lambda: replace(make_evaluation(), title=" "), "needs a title"),
        (lambda: replace(make_evaluation(), protocol=()), "protocol in words"),
        (lambda: replace(make_evaluation(), protocol="one text"), "tuple of paragraphs"),
        (lambda: replace(make_evaluation(), det=make_evaluation().det * 2), "'1:1' twice"),
        (lambda: replace(make_evaluation(), subjects=(make_counts(0.9),)), "must agree"),
        (lambda: replace(make_evaluation(), headline=()), "the headline says nothing"),
    ],
)
def test_what_breaks_the_contract_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=400).map(sorted))
def test_a_thinned_det_keeps_its_ends_and_its_least_errors(x):
    y = np.linspace(1, 0, len(x))
    det = build_det("d", "FMR", "FNMR", x, y)
    assert len(det.x) <= max(203, len(x) if len(x) <= 200 else 0)
    assert (det.x[-1], det.y[-1]) == (x[-1], 0.0)
    assert set(zip(det.x, det.y, strict=True)) <= set(zip(x, y.tolist(), strict=True))


def test_a_histogram_counts_every_finite_score_once():
    found = build_histogram("h", [0.5, 0.6, -np.inf], [[0.1, -0.2]], {"t": 0.3})
    assert (sum(found.mated), sum(found.non_mated), len(found.edges)) == (2, 2, 81)
    assert sum(build_histogram("h", [0.5], [0.5]).mated) == 1


def test_intervals_of_a_bootstrap_are_taken_and_nan_ones_left_out():
    interval, none = Interval(0.1, 0.3, 0.95, 100), Interval(np.nan, np.nan, 0.95, 100)
    assert (build_headline("a", 0.2, interval).low, build_bar("a", 0.2, interval).high) == (
        0.1,
        0.3,
    )
    assert build_headline("a", 0.2, none).low is None
    assert build_bar("a", None, interval, reason="not supported").low is None
    rate = Rate("tar", 0.9, 1e-3, interval=interval)
    assert headline_of_rate(rate, "TAR").better == "higher"
    missing = headline_of_rate(Rate("tar", None, 1e-3, reason="not supported: few"), "TAR")
    assert (missing.value, missing.reason) == (None, "not supported: few")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.1234, "share", "12.34 %"), (0.0, "share", "0.00 %"), (3e-6, "share", "0.0003 %"),
     (1.0, "share", "100.00 %"), (0.41234, "cosine", "0.4123 cosine"), (7, "", "7"),
     (None, "share", "not supported")],
)  # fmt: skip
def test_values_are_formatted(value, unit, text):
    assert format_value(value, unit) == text


def test_intervals_are_formatted():
    assert format_interval(Estimate("a", 0.1, 0.05, 0.2), "share") == "5.00 to 20.00 %"
    assert format_interval(Estimate("a", 0.1, 0.05, 0.2), "s") == "0.05 to 0.2 s"
    assert format_interval(Estimate("a", 0.1), "share") == "\N{EN DASH}"
    assert format_estimate(Estimate("a", 0.1, 0.05, 0.2), "") == "0.1 (0.05 to 0.2)"
    assert format_estimate(Estimate("a", None, reason="too few"), "") == "too few"
    assert format_estimate(None, "") == "\N{EN DASH}"
