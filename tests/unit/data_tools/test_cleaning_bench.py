"""The cleaning bench on drawn embeddings: what it puts aside, what it scores, how it resumes."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.bench import cleaning
from data_tools.bench.cleaning import CASES, TOOL, Faces, main, run_case
from data_tools.inject import NoiseRates
from data_tools.score import BASELINES

DIM = 48


def draw(rng, people, rows):
    centres = rng.normal(size=(people, DIM))
    vectors = centres[np.repeat(np.arange(people), rows)]
    vectors = vectors + 0.5 * rng.normal(size=vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def faces():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 8)
    return Faces(draw(rng, 40, 8), labels, rng.random(320), draw(rng, 80, 1), {"noise": 3})


def test_a_case_scores_every_method_on_the_same_rows(faces):
    result = run_case(faces, NoiseRates(flips=0.1, outliers=0.1), seed=1)
    methods = result["methods"]
    assert list(methods)[:4] == [TOOL, *BASELINES]
    assert ("cleanlab" in methods) == (result["skipped"] == "")
    assert {m["wrong"]["count"] for m in methods.values()} == {2 * round(0.1 * 320 / 0.9)}
    assert methods[TOOL]["wrong"]["f1"] > 0.95 and abs(methods[TOOL]["noise"]["error"]) < 0.05
    assert methods["largest DBSCAN cluster"]["noise"]["error"] is None
    assert 0 <= methods["mean cosine 0.6"]["clean"]["hard_lost_share"] <= 1
    assert result == run_case(faces, NoiseRates(flips=0.1, outliers=0.1), seed=1)


def test_only_what_changed_is_computed_again(faces, tmp_path, monkeypatch, capsys):
    runs = []
    real = run_case
    monkeypatch.setattr(cleaning, "prepare_faces", lambda *_: (faces, "ab" * 32))
    monkeypatch.setattr(cleaning, "run_case", lambda *a: runs.append(a[2]) or real(*a))
    words = [str(tmp_path / "data"), str(tmp_path), "--only", "flips 10", "--seeds"]
    assert main([*words, "2"]) == 0 and runs == [0, 1]
    text = capsys.readouterr().out
    assert "320 clean rows of 40 people" in text and "3 noise" in text and "±" in text
    assert main([*words, "3"]) == 0 and runs == [0, 1, 2]
    monkeypatch.setattr(cleaning, "_hash_code", lambda: "another engine")
    assert main([*words, "1"]) == 0 and runs == [0, 1, 2, 0]
    assert main([*words[:2], "--only", "nothing like it"]) == 2


def test_noise_of_the_data_twins_and_known_strangers_are_put_aside():
    rng = np.random.default_rng(2)
    vectors = draw(rng, 30, 6)
    names = np.repeat([f"celeba_{n:02d}" for n in range(30)], 6)
    stray = draw(rng, 1, 1)
    twin, known, pool = vectors[:4], vectors[6:7], draw(rng, 50, 1)
    every = np.concatenate([vectors, stray, twin, known, pool])
    whose = np.concatenate([names, ["celeba_04"], ["lfw_twin"] * 4, ["lfw_few"], [""] * 50])
    found = cleaning._select_clean(every, np.ones(len(every)), whose, "celeba_")
    assert found.labels.max() + 1 == 30 and len(found.labels) == 180
    assert list(found.aside.values()) == [1, 1, 4, 1]
    assert len(found.strangers) == 50 and np.array_equal(np.unique(found.labels), np.arange(30))


def test_the_cases_are_those_of_the_promise():
    rates = [(r.flips, r.outliers, r.splits, r.merges) for r in CASES.values()]
    assert rates[:3] == [(0.1, 0, 0, 0), (0.2, 0, 0, 0), (0.4, 0, 0, 0)]
    assert [r[1] for r in rates[3:8]] == [0.1, 0.2, 0.4, 0.6, 0.2]
    assert rates[7][0] == 0.2 and rates[8] == (0, 0, 0.05, 0.05) and rates[9][0] == 0.2
