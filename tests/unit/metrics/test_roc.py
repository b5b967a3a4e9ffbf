import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics import roc
from facerec.metrics.roc import trace_roc
from facerec.metrics.verification import eer, roc_curve, tar_at_far

INF = np.inf
FARS = [1e-4, 1e-3, 0.01, 0.1, 1 / 3, 0.5, 0.9, 1.0]


def read_from(scores, same, parts=3):
    def read():
        for block in np.array_split(np.arange(scores.size), parts):
            yield scores[block][same[block]], scores[block][~same[block]]

    return read


@st.composite
def scored_pairs(draw):
    n = draw(st.integers(2, 60))
    rough = st.sampled_from([-INF, -1.0, -0.5, 0.0, 0.25, 0.25000001, 0.5, 1.0])
    elements = draw(st.sampled_from([rough, st.floats(-1, 1, width=32), st.floats(-9, 9)]))
    scores = np.array(draw(st.lists(elements, min_size=n, max_size=n)))
    same = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    same[:2] = True, False
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), same


@given(scored_pairs())
@settings(max_examples=80, deadline=None)
def test_figures_equal_those_of_all_scores_at_once(pairs):
    scores, same = pairs
    traced = trace_roc(read_from(scores, same), FARS, threads=1)
    assert traced.points == tar_at_far(scores, same, FARS)
    assert traced.eer == pytest.approx(eer(scores, same), abs=1e-12)
    assert (traced.mated, traced.non_mated) == (same.sum(), (~same).sum())


@pytest.mark.parametrize("decimals", [1, 3, 9])
@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_figures_of_many_scores_in_chunks(decimals, failing, monkeypatch):
    # Small chunks and little room: equal scores are merged on the way.
    monkeypatch.setattr(roc, "_CHUNK", 1000)
    monkeypatch.setattr(roc, "_MOST_HELD", 500)
    rng = np.random.default_rng(decimals)
    same = rng.random(40_000) < 0.1
    scores = np.round(rng.normal(same * 0.4, 0.2), decimals).astype(np.float32)
    scores[rng.random(scores.size) < failing] = -INF
    traced = trace_roc(read_from(scores, same), FARS, threads=2)
    assert traced.points == tar_at_far(scores, same, FARS)
    assert traced.eer == pytest.approx(eer(scores, same), abs=1e-12)
    for side, total in zip(traced.histogram(4)[:2], (same, ~same), strict=True):
        made = scores[total & (scores > -INF)]
        assert side.tolist() == np.histogram(np.clip(made, -1, 1), 4, (-1, 1))[0].tolist()


@given(scored_pairs())
@settings(max_examples=40, deadline=None)
def test_every_point_of_the_curve_is_what_its_threshold_gives(pairs):
    scores, same = pairs
    scores = np.where(scores > -INF, np.clip(scores, -1, 1), scores)
    curve = trace_roc(read_from(scores, same), [0.1]).curve
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.thresholds) < 0).all()
    for far, tar, threshold in zip(curve.far, curve.tar, curve.thresholds, strict=True):
        values = scores.astype(np.float64)
        assert far == pytest.approx(np.mean(values[~same] >= threshold))
        assert tar == pytest.approx(np.mean(values[same] >= threshold))


def test_memory_is_that_of_the_bins_at_the_targets():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, 200_000).astype(np.float32)
    same = np.arange(scores.size) < 100
    held = []
    kept = roc._Kept
    add = kept.add

    def spy(self, kind, values):
        held.append(values.size)
        add(self, kind, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "add", spy)
        traced = trace_roc(read_from(scores, same), [0.3, 0.1, 0.01])
    assert sum(held) < 200
    assert traced.points == tar_at_far(scores, same, [0.3, 0.1, 0.01])
    # The curve has about one point a filled bin, not one a score.
    assert traced.curve.far.size < 66_000 < roc_curve(scores, same).far.size


def test_hand_computed_miniature():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.7, 0.6, 0.6, 0.2, 0.1])
    same = np.arange(10) < 5
    points = trace_roc(read_from(scores, same), [0.1, 0.2, 0.4, 0.6]).points
    assert [p.threshold for p in points] == [0.8, 0.7, 0.7, 0.5]
    assert [p.tar for p in points] == [0.4, 0.6, 0.6, 1.0]
    assert [p.false_accepts for p in points] == [0, 1, 1, 3]


def test_blocks_may_be_matrices_and_lack_a_kind():
    mated, others = np.array([[0.5, 0.25]], np.float32), np.zeros((2, 2), np.float32)
    blocks = [(mated, others[:0]), (mated[:0], others)]
    (point,) = trace_roc(lambda: blocks, [0.1]).points
    assert (point.tar, point.threshold, point.non_mated) == (1.0, 0.25, 4)


def test_another_second_reading_is_refused():
    readings = iter([[0.1, 0.5], [0.1, 0.6]])

    def read():
        return [(np.array([0.4], np.float32), np.array(next(readings), np.float32))]

    with pytest.raises(InputError, match="second reading"):
        trace_roc(read, [0.1])


ONE = np.array([0.5], np.float32)


@pytest.mark.parametrize(
    ("block", "fars", "message"),
    [
        ((ONE, np.array([np.nan], np.float32)), [0.1], "NaN"),
        ((np.array([INF], np.float32), ONE), [0.1], "infinity"),
        ((ONE[:0], ONE), [0.1], "none is mated"),
        ((ONE, ONE[:0]), [0.1], "none is non-mated"),
        ((ONE, ONE), [0.0], r"in \(0, 1\]"),
        ((ONE, ONE.astype(np.float64)), [0.1], "of one type"),
        ((ONE.astype(np.float16), ONE.astype(np.float16)), [0.1], "float32 or float64"),
    ],
)
def test_bad_input_is_one_sentence(block, fars, message):
    with pytest.raises(InputError, match=message):
        trace_roc(lambda: [block], fars)


def test_bins_of_a_histogram_are_a_power_of_two():
    traced = trace_roc(lambda: [(ONE, ONE)], [0.1])
    with pytest.raises(InputError, match="power of two"):
        traced.histogram(100)
    with pytest.raises(InputError, match="threads"):
        trace_roc(lambda: [(ONE, ONE)], [0.1], threads=0)
