import numpy as np
import pytest

from facerec.checks import InputError
from facerec.metrics.streaming import ScoreStream
from facerec.metrics.verification import eer, tar_at_far


def draw(seed, mated=300, non_mated=300_000):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.5, 0.15, mated), rng.normal(0, 0.15, non_mated)])
    scores = np.clip(scores, -1, 1).astype(np.float32)
    # Rounding makes ties, also across blocks.
    return np.round(scores, 3 if seed % 2 else 7), np.arange(scores.size) < mated


@pytest.mark.parametrize("seed", [0, 1])
def test_streamed_figures_equal_those_of_all_scores(seed):
    scores, same = draw(seed)
    stream = ScoreStream(np.count_nonzero(~same), max_far=1e-2)
    order = np.random.default_rng(seed).permutation(scores.size)
    for block in np.array_split(order, 37):
        stream.add(scores[block][same[block]], scores[block][~same[block]])
    fars = [1e-2, 1e-3, 1e-4, 1e-5]
    assert stream.tar_at_far(fars) == tar_at_far(scores, same, fars)
    assert stream.eer() == pytest.approx(eer(scores, same), abs=2e-3)


def test_memory_is_that_of_the_top_slice():
    scores, same = draw(0)
    stream = ScoreStream(600_000, max_far=1e-4)
    for _ in range(2):
        stream.add(scores[same], scores[~same])
    assert sum(part.size for part in stream._top) < 200_000
    # The same scores twice: the same rates.
    assert stream.tar_at_far([1e-4])[0].tar == tar_at_far(scores, same, [1e-4])[0].tar


def test_curve_agrees_with_the_exact_one():
    scores, same = draw(0, non_mated=5000)
    stream = ScoreStream(5000, max_far=1.0)
    stream.add(scores[same], scores[~same])
    curve = stream.curve()
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.far) >= 0).all()
    assert (np.diff(curve.tar) >= 0).all()
    for place in range(1, 20_000, 333):
        edge = curve.thresholds[place]
        assert curve.tar[place] == pytest.approx(np.mean(scores[same] >= edge), abs=1e-9)
        # A score within rounding of an edge may fall on either side of it.
        assert curve.far[place] == pytest.approx(np.mean(scores[~same] >= edge), abs=1e-3)
    assert stream.eer() == pytest.approx(eer(scores, same), abs=2e-3)
    assert stream.tar_at_far([1.0, 0.1]) == tar_at_far(scores, same, [1.0, 0.1])


def test_histogram_counts_every_stranger_also_rounded_past_one():
    stream = ScoreStream(4, max_far=0.5)
    edge = np.float32(1.0000001)
    stream.add(np.array([edge]), np.array([-edge, -0.999, 0.5, edge], np.float32))
    counts, edges = stream.histogram(10)
    assert counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert edges.tolist() == pytest.approx(np.linspace(-1, 1, 11).tolist())


def test_misuse_is_refused():
    one = np.array([0.5], np.float32)
    with pytest.raises(InputError, match="none is non-mated"):
        ScoreStream(0, 0.1)
    stream = ScoreStream(2, max_far=0.1)
    with pytest.raises(InputError, match="NaN"):
        stream.add(one, np.array([np.nan], np.float32))
    stream.add(one, one)
    with pytest.raises(InputError, match="2 non-mated scores were announced, 1 came"):
        stream.tar_at_far([0.1])
    with pytest.raises(InputError, match=r"at most 0\.1"):
        stream.tar_at_far([0.5])
    stream.add(one[:0], one)
    with pytest.raises(InputError, match="more non-mated scores came"):
        stream.add(one[:0], one)
    alone = ScoreStream(1, max_far=0.1)
    alone.add(one[:0], one)
    with pytest.raises(InputError, match="none is mated"):
        alone.tar_at_far([0.1])
    with pytest.raises(InputError, match="divide"):
        alone.histogram(7)
