"""The kNN graph: exact against brute force, near-exact with an honest recall, resumable."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools import graph, graph_plan, graph_store
from data_tools.bench.knn_graph import main as run_bench
from data_tools.bench.knn_graph import measure_own, simulate_faces
from data_tools.graph import build_graph
from data_tools.graph_exact import Crew, gather_crew
from data_tools.graph_lists import MIN_ROWS, Plan, count_lists, expand, look_up
from data_tools.graph_plan import Truth, choose_method, estimate_floor
from facerec.checks import InputError

build = functools.partial(build_graph, threads=1, progress=False)


def draw(n, dim=16, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@functools.lru_cache
def draw_faces():
    vectors, labels = simulate_faces(1500, 10, dim=32, cosine=0.7, noise=0.1, seed=3)
    order = np.random.default_rng(4).permutation(len(vectors))
    return vectors[order], labels[order]


def search_brute(vectors, k):
    """Neighbours by float64 cosines, ties by the lower row, and the cosines."""
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return near, np.take_along_axis(cosines, near, axis=1)


def assert_same(left, right):
    assert np.array_equal(left.neighbours, right.neighbours)
    assert np.array_equal(left.scores, right.scores)
    for name in ("method", "recall", "near_recall", "floor", "sampled"):
        assert getattr(left, name) == getattr(right, name)


def assert_well_formed(found, vectors):
    n, k = found.neighbours.shape
    assert found.neighbours.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert not np.any(found.neighbours == np.arange(n)[:, None])
    assert np.all(np.diff(found.scores, axis=1) <= 0)
    assert all(len(set(row)) == k for row in found.neighbours.tolist())
    exact = np.einsum("nkd,nd->nk", vectors[found.neighbours], vectors, dtype=np.float64)
    np.testing.assert_allclose(found.scores, exact, atol=1e-6)


@pytest.mark.parametrize(("n", "dim", "k"), [(300, 16, 10), (1100, 8, 3), (90, 33, 89), (40, 2, 1)])
def test_flat_is_exact(n, dim, k):
    vectors = draw(n, dim)
    found = build(vectors, k, method="flat")
    near, cosines = search_brute(vectors, k)
    np.testing.assert_allclose(found.scores, cosines, atol=1e-6)
    clear = np.abs(np.diff(cosines, axis=1, append=-2)) > 1e-6
    clear[:, 1:] &= clear[:, :-1]
    assert clear.mean() > 0.9
    assert np.array_equal(found.neighbours[clear], near[clear])
    assert (found.recall, found.near_recall, found.sampled) == (1.0, 1.0, 0)
    assert "exact" in found.describe()
    assert_well_formed(found, vectors)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 80), st.integers(1, 12), st.integers(0, 1000))
def test_flat_follows_a_permutation(n, k, seed):
    vectors = draw(n, 6, seed)
    order = np.random.default_rng(seed + 1).permutation(n)
    plain, moved = build(vectors, k), build(vectors[order], k)
    assert np.array_equal(moved.scores, plain.scores[order])
    named = np.where(moved.neighbours < 0, -1, order[moved.neighbours])
    distinct = np.ones(named.shape, bool)
    differ = moved.scores[:, :-1] != moved.scores[:, 1:]
    distinct[:, :-1] &= differ
    distinct[:, 1:] &= differ
    assert np.array_equal(named[distinct], plain.neighbours[order][distinct])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_rows_leave_the_rest_empty(n):
    found = build(draw(n), 7, method="ivfpq")  # too few for lists too
    assert np.all(found.neighbours[:, n - 1 :] == -1)
    assert np.all(found.scores[:, n - 1 :] == -np.inf)
    assert all(
        sorted({*row[: n - 1], i}) == list(range(n)) for i, row in enumerate(found.neighbours)
    )


def test_no_rows_give_an_empty_graph(tmp_path):
    found = build(draw(0), 3, folder=tmp_path)
    assert found.neighbours.shape == found.scores.shape == (0, 3)


def test_ties_go_to_the_lower_row_however_many_there_are():
    # 60 copies of one picture are more than FAISS is asked for, and so it returns any of them.
    vectors = draw(150)
    copies = np.random.default_rng(5).choice(150, 60, replace=False)
    copies.sort()
    vectors[copies] = vectors[copies[0]]
    found = build(vectors, 5)
    for row in copies:
        assert found.neighbours[row].tolist() == [c for c in copies if c != row][:5]
    assert np.ptp(found.scores[copies]) == 0


def test_equal_scores_everywhere():
    found = build(np.eye(64, dtype=np.float32), 3)
    assert found.neighbours[:2].tolist() == [[1, 2, 3], [0, 2, 3]]
    assert np.all(found.neighbours[4:] == [0, 1, 2])
    assert np.all(found.scores == 0)


@pytest.mark.parametrize("method", ["ivf", "ivfpq"])
def test_near_exact_finds_what_matters(method):
    vectors, labels = draw_faces()
    found = build(vectors, 16, method=method)
    assert_well_formed(found, vectors)
    assert "near-exact" in found.method
    assert found.sampled == 512
    assert found.near_recall >= 0.97
    assert found.recall < found.near_recall
    assert measure_own(found, labels, np.arange(len(vectors))) >= 0.95


@pytest.mark.parametrize("method", ["ivf", "ivfpq"])
def test_recall_is_that_of_the_graph_even_if_it_is_bad(monkeypatch, method):
    monkeypatch.setattr(graph_plan, "SAMPLED", 10**6)
    monkeypatch.setattr(graph_plan, "_FIRST_PROBES", 1)
    vectors = draw(1500, 32)
    found = build(vectors, 8, method=method, target=0.0, floor=0.5)
    near, cosines = search_brute(vectors, 8)
    right = [np.isin(a, b) for a, b in zip(near, found.neighbours, strict=True)]
    matters = cosines >= 0.5
    assert found.recall == pytest.approx(np.mean(right), abs=1e-3)
    assert found.recall < 0.7
    assert found.near_recall == pytest.approx(np.mean(np.array(right)[matters]), abs=2e-3)
    assert found.floor == 0.5
    assert f"{found.recall:.3f}" in found.describe()
    # Asked for more, it searches more.
    better = build(vectors, 8, method=method, target=0.95, floor=0.5)
    assert better.near_recall >= 0.94


def test_copies_count_as_found_whichever_they_are():
    truth = Truth(np.arange(2), np.array([[0.9, 0.9, 0.5], [0.8, 0.3, -np.inf]], np.float32), 0.4)
    found = np.array([[0.9, 0.5, 0.5], [0.3, 0.2, -np.inf]], np.float32)
    assert truth.measure(found) == (pytest.approx(4 / 5), pytest.approx(3 / 4))
    none = Truth(truth.rows, truth.scores, 0.95)
    assert none.measure(found)[1] is None


def test_floor_is_where_strangers_end():
    vectors = draw(20_000, 64)
    floor = estimate_floor(vectors, seed=0)
    assert floor == pytest.approx(4.753 / 8, abs=0.015)  # normal quantile of 1 - 1e-6, sigma 1/8
    assert estimate_floor(vectors, seed=0) == floor


def test_neighbours_of_neighbours_are_found():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    base = np.array([[1, -1], [2, 0], [3, -1], [-1, -1]], np.int32)
    rows = np.arange(4)
    near, scores = expand(vectors, rows, base, look_up(base, base), 3)
    assert near.tolist() == [[1, 2, -1], [2, 0, 3], [3, -1, -1], [-1, -1, -1]]
    np.testing.assert_allclose(scores[0], [0.8, 0.6, -np.inf], atol=1e-6)


def test_method_by_estimated_cost():
    assert choose_method(MIN_ROWS - 1, 10**9, 1) == "flat"
    assert choose_method(70_000, 512, 2) == "flat"
    assert choose_method(90_000, 512, 2) == "ivfpq"
    assert choose_method(90_000, 512, 8) == choose_method(90_000, 128, 2) == "flat"
    assert [count_lists(n) for n in (MIN_ROWS, 1_000_000, 9_000_000)] == [16, 1024, 4096]


def test_threads_change_nothing():
    vectors, _ = draw_faces()
    assert_same(build(vectors, 4, method="ivfpq"), build(vectors, 4, method="ivfpq", threads=3))


class Killed(BaseException):
    """As a signal would end the run."""


@pytest.mark.parametrize(
    ("method", "stage"), [("flat", "search_exact"), ("ivfpq", "search_lists"), ("ivfpq", "expand")]
)
def test_a_killed_run_goes_on_at_the_missing_shard(monkeypatch, tmp_path, method, stage):
    vectors, _ = draw_faces()
    whole = build(vectors, 6, method=method)
    monkeypatch.setattr(graph_store, "SHARD_ROWS", 256)
    work, starts = getattr(graph, stage), []

    def watch(dies_at):
        def call(*arguments, **more):
            rows = next(a for a in arguments if getattr(a, "dtype", None) == np.int64)
            starts.append(int(rows[0]))
            if rows[0] == dies_at:
                raise Killed
            return work(*arguments, **more)

        monkeypatch.setattr(graph, stage, call)

    watch(768)
    with pytest.raises(Killed):
        build(vectors, 6, method=method, folder=tmp_path)
    assert starts == [0, 256, 512, 768]
    name = "base" if stage == "search_lists" else "row"
    shards = sorted(tmp_path.glob(f"{name}-*.npy"))
    assert len(shards) == 3
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:500])
    (tmp_path / "row-000009.npy").write_bytes(b"left over")
    if (tmp_path / "index.faiss").exists():
        (tmp_path / "index.faiss").write_bytes(b"torn")
    starts.clear()
    watch(None)
    assert_same(build(vectors, 6, method=method, folder=tmp_path), whole)
    assert starts == [256, 512, 768, 1024, 1280]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "graph.json",
        "neighbours.npy",
        "scores.npy",
    ]


def test_a_finished_graph_is_mapped_and_not_searched(monkeypatch, tmp_path):
    vectors = draw(200)
    first = build(vectors, 4, folder=tmp_path, key="model+rows")
    monkeypatch.setattr(graph, "search_exact", None)
    again = build(vectors, 4, folder=tmp_path, key="model+rows")
    assert isinstance(again.neighbours, np.memmap)
    assert_same(first, again)


@pytest.mark.parametrize("change", ["key", "k", "seed", "vectors", "head"])
def test_a_graph_of_something_else_is_replaced(tmp_path, change):
    vectors, other = draw(200), draw(200, seed=9)
    asked = {"k": 4, "folder": tmp_path}
    build(vectors, key="" if change == "vectors" else "one", **asked)
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / ".row-000000.x1.npy").write_text("of a killed run")
    if change == "head":
        (tmp_path / "graph.json").write_text("{")
    asked |= {"k": {"k": 5}, "seed": {"seed": 1}}.get(change, {})
    key = {"vectors": "", "key": "two"}.get(change, "one")
    found = build(other, key=key, **asked)
    assert_same(found, build(other, asked["k"]))
    assert (tmp_path / "notes.txt").read_text() == "kept"
    assert not list(tmp_path.glob(".row*"))
    assert json.loads((tmp_path / "graph.json").read_text())["settings"]["k"] == asked["k"]


def test_memory_mapped_vectors(tmp_path):
    vectors, _ = draw_faces()
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    for method in ("flat", "ivfpq"):
        assert_same(build(mapped, 5, method=method), build(vectors, 5, method=method))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must"),
        ({"method": "ivpq"}, "did you mean 'ivfpq'"),
        ({"target": 1.5}, "target"),
        ({"floor": 2.0}, "floor"),
        ({"threads": 0}, "threads"),
        ({"vectors": draw(9).astype(np.float64)}, "float32"),
        ({"vectors": draw(9)[:, 1:]}, "row after row"),
        ({"vectors": 2 * draw(9)}, "unit norm"),
        ({"vectors": np.full((3, 2), np.nan, np.float32)}, "finite"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(InputError, match=message):
        build(**{"vectors": draw(9), **change})


def test_progress_is_shown(capsys):
    build_graph(draw(50), 3, threads=1)
    assert "nearest rows: 50 of 50 rows" in capsys.readouterr().err


def test_blocks_are_told_as_they_are_done():
    with gather_crew(2) as crew:
        assert isinstance(crew, Crew)
        done = []
        rows = np.arange(10)
        found = crew.map_rows(
            lambda part: (part[:, None], part[:, None]), rows, block=4, advance=done.append
        )
    assert done == [4, 4, 2]
    assert found[0][:, 0].tolist() == rows.tolist()


def test_plan_in_words():
    text = Plan("ivfpq", 1024, 64, 128).describe(512)
    assert "1024 inverted lists" in text
    assert "32-byte" in text


def test_simulated_faces_are_as_asked():
    vectors, labels = simulate_faces(1000, 10, dim=256, cosine=0.6, noise=0.1)
    assert len(np.unique(labels)) == 90 + 100
    own = [vectors[labels == i] @ vectors[labels == i].T for i in range(90)]
    assert np.mean([one[~np.eye(10, dtype=bool)] for one in own]) == pytest.approx(0.6, abs=0.02)
    assert np.mean(vectors[900:] @ vectors[:900].T) == pytest.approx(0, abs=0.01)


def test_benchmark_prints_ratios_to_both_baselines(tmp_path, capsys):
    words = ["--rows", "300", "--dim", "16", "--k", "5", "--threads", "1"]
    assert run_bench([*words, "--queries", "50", "--json", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert "x faiss flat" in shown
    assert "x torch matmul + topk" in shown
    assert json.loads((tmp_path / "r.json").read_text())["recall"] == 1.0
