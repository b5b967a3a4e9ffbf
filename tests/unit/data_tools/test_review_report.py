"""The report of a set whose rounds say little of themselves, or were a person's review."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.decisions import Decision, append_round
from data_tools.report import write_report
from data_tools.sets import SetFolder
from facerec.data.manifest import build_manifest, write_manifest
from facerec.io import read_json, write_json, write_text

ROWS = (
    # path, identity, own score, whom it is nearest to, dropped
    ("a/1", "a", 0.9, "b", False),
    ("a/2", "a", 0.1, "c", True),
    ("a/3", "a", 0.2, "b", True),
    ("a/4", "a", 0.3, "b", True),
    ("b/1", "b", None, "a", False),
    ("c/1", "c", 0.6, "a", False),
    ("c/2", "c", 0.8, "a", False),
    ("x", "", None, "a", False),
)


@pytest.fixture
def folder(tmp_path):
    folder = SetFolder(tmp_path / "set")
    settings = {"source": "s", "kind": "folder", "detector": "d", "policy": "all"}
    info = {"format": 1, "settings": settings, "versions": {}, "stages": []}
    write_json(folder.info, info)
    shared = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0, "faces": 1}
    rows = [
        {"path": p, "identity": name, "sha256": f"{i:064x}", "chip": f"chips/{i}.png"}
        for i, (p, name, *_) in enumerate(ROWS)
    ]
    rows = [{**shared, **row, "width": 9, "height": 9} for row in rows]
    rows.append({"path": "bad", "sha256": "f" * 64, "width": 0, "height": 0, "reason": "empty"})
    manifest = build_manifest(rows)
    write_manifest(manifest, folder.manifest)
    folder.scores(1).parent.mkdir()
    scores = manifest.slice(0, len(ROWS)).select(["path", "face", "identity", "chip"])
    for name, place, kind in (("own", 2, pa.float64()), ("other_identity", 3, pa.string())):
        scores = scores.append_column(name, pa.array([row[place] for row in ROWS], kind))
    pq.write_table(scores, folder.scores(1))
    decided = [decide(p, "drop" if out else "keep", name, out) for p, name, _, _, out in ROWS]
    append_round(folder.log, decided, {"model": "m"})
    return folder


def decide(path, action, name, out, check="identity"):
    to = None if out else name
    return Decision("", path, 0, 0, check, action, name, to, None, None, "", "because")


def test_identities_by_share_of_drops_with_scores_and_likely_owner(folder):
    page, figures = write_report(folder.root)
    assert figures["rows"] == 9 and figures["faces"] == 8 and figures["decided"] == 8
    assert figures["reasons"] == {"empty": 1}
    assert figures["identities"] == [
        {
            "identity": "a",
            "faces": 4,
            "dropped": 3,
            "share": 0.75,
            "median_score": 0.25,
            "lowest_score": 0.1,
            "nearest_other": "b",
        },
        {
            "identity": "b",
            "faces": 1,
            "dropped": 0,
            "share": 0.0,
            "median_score": None,
            "lowest_score": None,
            "nearest_other": "",
        },
        {
            "identity": "c",
            "faces": 2,
            "dropped": 0,
            "share": 0.0,
            "median_score": pytest.approx(0.7),
            "lowest_score": 0.6,
            "nearest_other": "",
        },
    ]
    assert "recorded no histogram" in page.read_text()
    assert "model" not in read_json(folder.root / "report.json")["provenance"]["hashes"]


def test_a_review_counts_and_is_no_round_of_scores(folder):
    said = Decision("", "a/4", 0, 0, "review", "restore", None, "a", None, None, "", "")
    append_round(folder.log, [said], {"check": "review", "settings": {"check": "review"}})
    page, figures = write_report(folder.root)
    assert figures["round"]["number"] == 1
    assert [(r["round"], r["check"]) for r in figures["rounds"]] == [(1, None), (2, "review")]
    assert figures["identities"][0]["dropped"] == 2
    assert "review/index.html" not in page.read_text()
    write_text(folder.root / "review" / "index.html", "")
    assert 'href="review/index.html"' in write_report(folder.root)[0].read_text()
