"""The sample for the residual noise: who is drawn, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.review_answers import read_sample, write_sample
from data_tools.review_sample import (
    DROPPED,
    KEPT,
    LEAST_SAMPLE,
    SAMPLE_SCHEMA,
    count_answers,
    estimate_lost,
    estimate_residual,
    join_strata,
    plan_sample,
    read_verdicts,
)
from facerec.checks import InputError


def build_rows(doubt, dropped=None, check="identity"):
    n = len(doubt)
    out = np.zeros(n, bool) if dropped is None else np.asarray(dropped)
    return pa.table(
        {
            "image_id": [f"{i:016x}" for i in range(n)],
            "path": [f"a/{i}" for i in range(n)],
            "face": pa.array(np.zeros(n, np.int32)),
            "identity": ["a"] * n,
            "fate": pa.array([None if one else "a" for one in out], pa.string()),
            "action": ["drop" if one else "keep" for one in out],
            "check": [check] * n,
            "doubt": np.asarray(doubt, np.float64),
        }
    )


def answer(sample, wrong, verdict="drop"):
    """Return verdicts on a sample: `verdict` where the row's number is in `wrong`, else keep."""
    numbers = [int(path[2:]) for path in sample["path"].to_pylist()]
    said = [verdict if wrong[number] else "keep" for number in numbers]
    table = sample.select(["path", "face"]).append_column("verdict", pa.array(said, pa.string()))
    return table.append_column("identity", pa.array([""] * len(said)))


def draw_doubt(rng, n, shares=(0.85, 0.08, 0.04, 0.02, 0.01)):
    levels = np.array([0.0003, 0.004, 0.025, 0.1, 0.4])
    return levels[rng.choice(5, n, p=shares)]


def test_rows_in_doubt_are_drawn_more_often_and_the_plan_says_how_often():
    rng = np.random.default_rng(0)
    doubt = draw_doubt(rng, 20_000)
    dropped = rng.random(20_000) < 0.1
    sample = plan_sample(build_rows(doubt, dropped), 600, seed=3)
    assert sample.schema == SAMPLE_SCHEMA and sample.num_rows == 600
    assert pc.equal(sample["side"], DROPPED).to_pylist().count(True) == 150
    assert len(set(sample["path"].to_pylist())) == 600
    for side, there in ((KEPT, ~dropped), (DROPPED, dropped)):
        rows = sample.filter(pc.equal(sample["side"], side)).to_pylist()
        sizes = np.bincount(np.searchsorted((0.001, 0.01, 0.05, 0.2), doubt[there], "right"))
        for stratum, size in enumerate(sizes):
            here = [row for row in rows if row["stratum"] == stratum]
            assert len(here) >= min(20, size)
            assert {row["stratum_rows"] for row in here} == {size}
            assert {row["inclusion"] for row in here} == {len(here) / size}
        chance = [{row["stratum"]: row["inclusion"] for row in rows}[s] for s in range(5)]
        assert chance[0] < chance[3] <= chance[4] or side == DROPPED
    # Horvitz and Thompson: the inverse probabilities count the rows.
    assert sum(1 / p for p in sample["inclusion"].to_pylist()) == pytest.approx(20_000)


def test_the_plan_is_that_of_its_seed_and_its_order_says_nothing():
    rows = build_rows(draw_doubt(np.random.default_rng(1), 3000))
    one, same, other = (plan_sample(rows, 200, seed) for seed in (0, 0, 1))
    assert one.equals(same) and not one.equals(other)
    strata = np.array(one["stratum"].to_pylist())
    assert (np.diff(strata) < 0).sum() > 20


def test_only_rows_dropped_for_who_they_show_are_asked_about():
    doubt, dropped = np.full(100, 0.1), np.arange(100) < 30
    sample = plan_sample(build_rows(doubt, dropped, "quality"), 100)
    assert sample.num_rows == 70 and pc.unique(sample["side"]).to_pylist() == [KEPT]
    with pytest.raises(InputError, match=f"the sample must lie in \\[{LEAST_SAMPLE}"):
        plan_sample(build_rows(doubt), 10)


@pytest.mark.parametrize(
    ("rates", "n"),
    [
        ((0.0003, 0.004, 0.025, 0.1, 0.4), 500),  # the doubts are true
        ((0.005, 0.02, 0.06, 0.2, 0.5), 200),  # the model is too sure
        ((0.05, 0.1, 0.15, 0.3, 0.6), 300),  # much too sure
        ((0.0, 0.0005, 0.01, 0.08, 0.35), 300),  # nearly clean
    ],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(rates, n):
    rng = np.random.default_rng(7)
    doubt = draw_doubt(rng, 8000)
    stratum = np.searchsorted((0.001, 0.01, 0.05, 0.2), doubt, "right")
    wrong = rng.random(8000) < np.array(rates)[stratum]
    rows, truth, held, values = build_rows(doubt), wrong.mean(), [], []
    first = plan_sample(rows, n)
    counts = np.bincount(first["stratum"].to_numpy(), minlength=5)
    places = [np.flatnonzero(stratum == s) for s in range(5)]
    sizes = np.array([len(place) for place in places])
    for _ in range(1500):  # the plan's own draw, without its tables
        seen = [
            wrong[rng.choice(place, count, replace=False)].sum()
            for place, count in zip(places, counts, strict=True)
        ]
        value, low, high = join_strata(np.array(seen), counts, sizes, np.zeros(5))
        held.append(low <= truth <= high)
        values.append(value)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.mean(values) == pytest.approx(truth, rel=0.05)
    tables = [plan_sample(rows, n, seed) for seed in range(12)]
    found = [estimate_residual(table, answer(table, wrong)) for table in tables]
    assert sum(one.low <= truth <= one.high for one in found) >= 9
    assert all(one.answered == one.asked == n and one.blind == 0 for one in found)


def test_a_sample_of_every_row_is_the_truth():
    rng = np.random.default_rng(2)
    doubt, dropped = draw_doubt(rng, 300), np.arange(300) < 60
    wrong = rng.random(300) < 0.3
    sample = plan_sample(build_rows(doubt, dropped), 300)
    said = answer(sample, wrong)
    residual, lost = estimate_residual(sample, said), estimate_lost(sample, said)
    for found, truth in ((residual, wrong[60:].mean()), (lost, 1 - wrong[:60].mean())):
        assert (found.value, found.low, found.high) == pytest.approx((truth,) * 3)


def test_a_relabel_is_wrong_unless_it_names_the_same_identity():
    sample = plan_sample(build_rows(np.full(40, 0.1), np.arange(40) < 10), 40)
    said = answer(sample, np.ones(40, bool), "relabel")
    assert estimate_residual(sample, said).value == 1 and estimate_lost(sample, said).value == 0
    same = said.set_column(3, "identity", pa.array(["a"] * 40))
    assert estimate_residual(sample, same).value == 0 and estimate_lost(sample, same).value == 1


def test_what_was_not_looked_at_widens_the_interval_and_is_counted():
    doubt = draw_doubt(np.random.default_rng(4), 2000)
    sample = plan_sample(build_rows(doubt), 200)
    seen = sample.filter(pc.not_equal(sample["stratum"], 0))
    found = estimate_residual(sample, answer(seen, np.zeros(2000, bool)))
    assert found.blind == 1 and found.answered == seen.num_rows < found.asked == 200
    assert found.value < 0.001 and found.high > 0.8 and found.low == 0
    nothing = answer(sample.slice(0, 0), [])
    with pytest.raises(InputError, match="no verdict answers the sample's 200 kept rows"):
        estimate_residual(sample, nothing)
    assert estimate_lost(sample, nothing) is None


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5
    )
)
def test_the_share_lies_in_its_interval_and_the_interval_in_0_to_1(strata):
    rows = np.array([n for n, _, _ in strata])
    seen = np.array([int(n * part) for n, part, _ in strata])
    wrong = np.array([int(s * part) for s, (_, _, part) in zip(seen, strata, strict=True)])
    value, low, high = join_strata(wrong, seen, rows, np.full(len(rows), 0.1))
    assert 0 <= low <= value + 1e-12 and value - 1e-12 <= high <= 1


def test_samples_and_verdicts_are_read_from_disk(tmp_path):
    sample = plan_sample(build_rows(np.full(50, 0.1), np.arange(50) < 5), 50)
    write_sample(tmp_path / "sample.csv", sample)
    assert read_sample(tmp_path / "sample.csv").equals(sample)
    table = tmp_path / "v.csv"
    table.write_text("path,verdict\na/7, Keep \na/8,\na/7,drop\nelsewhere,keep\n")
    said = read_verdicts(table)
    assert said.to_pydict() == {
        "path": ["a/7", "elsewhere"],
        "face": [0, 0],
        "verdict": ["drop", "keep"],
        "identity": ["", ""],
    }
    assert count_answers(sample, said) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,verdict\na,kep\n", "did you mean 'keep'"),
        ("path,face,verdict\na,x,keep\n", "face must be a whole number"),
        ("image_id,verdict\na,keep\n", "'path' is missing"),
    ],
)
def test_bad_verdicts_are_refused(tmp_path, text, message):
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_verdicts(tmp_path / "v.csv")
    with pytest.raises(InputError, match="is no sample"):
        read_sample(tmp_path / "v.csv")
