"""A set folder, cleaned by hand-written decisions, against its truth table."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.decisions import Decision, append_round
from data_tools.inject import plan_noise
from data_tools.score import score_set
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.command import build_parser, run_command
from facerec.data.embedding_cache import EmbeddingCache
from facerec.data.manifest import build_manifest, write_manifest
from facerec.io import read_json, write_json

MODEL = "ab" * 32


def write_set(root, rows):
    """Write a set of rows: mappings with key, given and, if they have one, policy and score."""
    folder = SetFolder(root)
    write_json(folder.info, {"format": 1})
    manifest = [
        {
            "path": row["key"],
            "sha256": hashlib.sha256(row["key"].encode()).hexdigest(),
            "identity": row["given"],
            "width": 112,
            "height": 112,
            "box": [0, 0, 112, 112],
            "landmarks": np.full(10, 5.0),
            "det_score": row.get("score", 0.9),
            "faces": 1,
            "policy": row.get("policy", "largest"),
            "chip": f"chips/{number:04d}-0.png" if row.get("chip", True) else "",
            "reason": "" if row.get("chip", True) else "no face",
        }
        for number, row in enumerate(rows)
    ]
    write_manifest(build_manifest(manifest), folder.manifest)
    return folder


def log_fates(folder, rows, fates, summary):
    decisions = [
        Decision(
            hashlib.sha256(row["key"].encode()).hexdigest()[:16],
            row["key"],
            0,
            0,
            "test",
            "drop" if fate is None else "keep" if fate == row["given"] else "relabel",
            row["given"],
            fate,
            None,
            None,
            MODEL,
            "by hand",
        )
        for row, fate in zip(rows, fates, strict=True)
    ]
    append_round(folder.log, decisions, summary)


@pytest.fixture
def crawl(tmp_path):
    """A noisy set of drawn embeddings, cleaned as its truth says."""
    labels = np.repeat(np.arange(15), 10)
    rng = np.random.default_rng(0)
    shares = {"flips": 0.1, "outliers": 0.1, "splits": 0.1, "merges": 0.1, "duplicates": 0.04}
    noisy = plan_noise(labels, rng, **shares, outlier_pool=50)
    count = len(noisy.given)
    centres = rng.normal(size=(15, 32))
    vectors = np.where((noisy.person < 0)[:, None], rng.normal(size=(count, 32)), 0)
    vectors += np.where((noisy.person >= 0)[:, None], centres[noisy.person], 0)
    vectors += rng.normal(size=(count, 32)) * 0.4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = ("clean", "flip", "outlier", "duplicate", "low quality", "leak")
    original = {
        s: n for n, (s, k) in enumerate(zip(noisy.source, noisy.kind, strict=True)) if not k
    }
    rows, fates = [], []
    names = {}
    for folder, owner in enumerate(noisy.owner.tolist()):
        names.setdefault(owner, f"f{folder:02d}")
    for number in range(count):
        person, kind = int(noisy.person[number]), kinds[noisy.kind[number]]
        rows.append(
            {
                "key": f"f{noisy.given[number]:02d}/{number:04d}.jpg",
                "given": f"f{noisy.given[number]:02d}",
                "person": "" if person < 0 else names.get(person, f"q{person:02d}"),
                "kind": kind,
                "score": 0.5 + 0.4 * rng.random(),
                "copy_of": "",
            }
        )
        gone = person < 0 or kind == "duplicate"
        fates.append(None if gone else rows[-1]["person"])
    for number in np.flatnonzero(noisy.kind == 3):
        rows[number]["copy_of"] = rows[original[noisy.source[number]]]["key"]
    folder = write_set(tmp_path / "set", rows)
    cache = EmbeddingCache(folder.embeddings, MODEL, 32)
    ids = [f"{number:04d}-0" for number in range(count)]
    cache.append(ids, vectors.astype(np.float32), np.ones(count, np.float32))
    columns = ("key", "person", "kind", "copy_of")
    truth = tmp_path / "truth.parquet"
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in columns}), truth)
    return SimpleNamespace(folder=folder, rows=rows, fates=fates, truth=truth, plan=noisy)


SUMMARY = {"settings": {"model_sha256": MODEL}, "noise": 0.21}


def test_a_perfect_cleaning_scores_one_in_everything(crawl):
    with pytest.raises(InputError, match="not cleaned yet"):
        score_set(crawl.folder.root, crawl.truth)
    log_fates(crawl.folder, crawl.rows, crawl.fates, SUMMARY)
    figures = score_set(crawl.folder.root, crawl.truth, resamples=20)
    counts = crawl.plan.count_kinds()
    assert figures["wrong"] == figures["hit"] == figures["dropped"]
    assert figures["wrong"] == counts["flip"] + counts["outlier"]
    assert figures["precision"] == figures["f1"] == 1.0 and figures["lost_share"] == 0.0
    assert set(figures["kinds"]) == {"flip", "outlier"}
    assert list(figures["methods"]) == ["facerec-clean"] and not figures["skipped"]
    tool = figures["methods"]["facerec-clean"]
    for kind in ("flip", "outlier", "duplicate", "merge", "split", "relabel"):
        assert tool[kind]["f1"] == 1.0, kind
    assert tool["merge"]["true"] == len(crawl.plan.splits)
    assert tool["split"]["true"] == len(crawl.plan.merges)
    assert tool["clean"]["hard_lost_share"] == 0.0
    assert tool["noise"]["error"] == pytest.approx(0.21 - figures["wrong"] / len(crawl.rows))
    assert tool["intervals"]["wrong f1"] == [1.0, 1.0]


def test_nothing_done_finds_nothing_and_baselines_stand_beside(crawl):
    log_fates(crawl.folder, crawl.rows, [row["given"] for row in crawl.rows], SUMMARY)
    figures = score_set(crawl.folder.root, crawl.truth, baselines=True, max_bytes=1)
    tool = figures["methods"]["facerec-clean"]
    assert figures["hit"] == 0 and figures["precision"] is None and tool["merge"]["f1"] == 0.0
    assert "need about" in figures["skipped"]["cleanlab"]
    others = {name: m for name, m in figures["methods"].items() if name != "facerec-clean"}
    assert list(others) == ["mean cosine 0.6", "largest DBSCAN cluster", "sub-centre 75 degrees"]
    assert all(0.3 < m["wrong"]["f1"] < 1 for m in others.values())
    assert all(m["merge"]["recall"] == m["relabel"]["of_flips"] == 0 for m in others.values())


def test_baselines_need_the_embeddings_of_the_last_round(crawl, tmp_path):
    other = {"settings": {"model_sha256": "cd" * 32}}
    EmbeddingCache(crawl.folder.embeddings, "ef" * 32, 2).append(
        ["x"], np.float32([[1, 0]]), np.float32([1])
    )
    log_fates(crawl.folder, crawl.rows, crawl.fates, other)
    with pytest.raises(InputError, match="holds those of 2 models"):
        score_set(crawl.folder.root, crawl.truth, baselines=True)


def test_what_cannot_be_judged_is_counted_apart(tmp_path):
    rows = [
        {"key": "a/1.jpg", "given": "a"},
        {"key": "a/2.jpg", "given": "a"},
        {"key": "a/3.jpg", "given": "a", "chip": False},
        {"key": "a/4.jpg", "given": "a"},
        {"key": "a/5.jpg", "given": "a", "policy": "all"},
        {"key": "a/6.jpg", "given": "a"},
        {"key": "b/1.jpg", "given": "b"},
        {"key": "loose.jpg", "given": ""},
    ]
    folder = write_set(tmp_path / "set", rows)
    fates = ["a", None, None, "a", "a", "b", "b", ""]
    log_fates(folder, rows, fates, {})
    truth = [
        ("a/1.jpg", "a", "0"),
        ("a/2.jpg", "stranger", "0"),
        ("a/3.jpg", "a", "0"),
        ("a/5.jpg", "a", "0"),  # two faces: who was taken is not known under "all"
        ("a/5.jpg", "b", "1"),
        ("a/6.jpg", "a", "1"),  # a bystander; face 0 is whom it is about
        ("a/6.jpg", "b", "0"),
        ("b/1.jpg", "b", "0"),
        ("loose.jpg", "a", "0"),
    ]
    path = tmp_path / "truth.csv"
    path.write_text("key,person,face\n" + "".join(",".join(row) + "\n" for row in truth))
    figures = score_set(folder.root, path)
    assert figures["unknown"] == 2 and figures["unusable"] == 2
    assert (figures["wrong"], figures["hit"], figures["dropped"]) == (2, 2, 2)
    assert figures["kinds"] == {"wrong identity": {"wrong": 2, "hit": 2, "recall": 1.0}}
    tool = figures["methods"]["facerec-clean"]
    assert tool["outlier"]["count"] == tool["flip"]["count"] == tool["relabel"]["right"] == 1
    for text, message in (
        ("key,person,face\na,b,one\n", "row 0: face must be a whole number, got 'one'"),
        ("key,who\na,b\n", "must have the column 'person'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            score_set(folder.root, path)
    with pytest.raises(InputError, match="is not a file"):
        score_set(folder.root, tmp_path / "none.csv")


def test_the_commands_inject_and_score(crawl, tmp_path, capsys):
    from facerec.cli.clean_inject import add_inject

    def call(*words):
        parser = build_parser("facerec-clean", "", "")
        add_inject(parser.add_subparsers(required=True))
        return run_command(parser, [str(word) for word in words])

    log_fates(crawl.folder, crawl.rows, crawl.fates, SUMMARY)
    result = tmp_path / "score.json"
    command = ["score", crawl.folder.root, "--truth", crawl.truth, "--max-gib", 0, "--baselines"]
    assert call(*command, "--json", result, "--resamples", 5) == 0
    text = capsys.readouterr().out
    assert "cleanlab left out" in text and "sub-centre 75 degrees" in text and "± " not in text
    assert read_json(result)["methods"]["facerec-clean"]["wrong"]["f1"] == 1.0
    assert call(*command[:4], "--max-gib", -1) == 2
    for person in "ab":
        (tmp_path / "clean" / person).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "clean" / person / f"{number}.jpg").write_bytes(b"picture")
    words = ["inject", tmp_path / "clean", tmp_path / "noisy", "--flips", 0.2]
    assert call(*words, "--json", tmp_path / "inject.json") == 0
    assert "2  flip" in capsys.readouterr().out
    saved = json.loads((tmp_path / "inject.json").read_text())
    assert saved["kinds"]["flip"] == 2 and saved["provenance"]["seed"] == 0
    assert call(*words) == 2 and "exists" in capsys.readouterr().err
    assert call("inject", tmp_path / "clean", tmp_path / "n", "--low-quality", 2) == 2
