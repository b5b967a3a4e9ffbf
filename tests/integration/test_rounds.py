"""Rounds on a set of drawn chips with a stand-in recogniser: decide, restore, undo, hand on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import data_tools.rounds as rounds
from data_tools.decisions import read_log
from data_tools.exports import export_set, name_folder
from data_tools.ingest import ingest
from data_tools.judgement import Targets
from data_tools.log_clean import undo_rounds
from data_tools.report import write_report
from data_tools.round_table import CAPPED, NEAR, NO_DIRECTION, REASONS, TOO_FEW, UNLABELLED
from data_tools.rounds import run_round
from data_tools.score import score_set
from facerec.checks import InputError
from facerec.data.manifest import read_manifest
from facerec.embedder import Embeddings
from facerec.io import read_json

PEOPLE, IMAGES = 12, 8
LENIENT = Targets(threshold=-1.0, false_relabels=1e-9)
REPOSITORY = Path(__file__).resolve().parents[2]


class StandIn:
    """A recogniser that looks at an 8x8 thumbnail; `model` is its hash's only digit."""

    def __init__(self, model, *settings):
        self.model_hash = str(model) * 64
        self.dim = 192
        self.info = SimpleNamespace(name="stand-in")
        self.runtime_name = "none"

    def embed(self, chips):
        small = [cv2.resize(chip, (8, 8), interpolation=cv2.INTER_AREA) for chip in chips]
        raw = np.stack(small).reshape(len(chips), -1).astype(np.float32) - 127.5
        norms = np.linalg.norm(raw, axis=1)
        return Embeddings((raw / norms[:, None]).astype(np.float32), norms.astype(np.float32))


def draw(person, rng):
    """Return a chip whose 8x8 pattern is the person's, with noise."""
    pattern = np.random.default_rng(person).normal(0, 45, (8, 8, 3)) + rng.normal(0, 25, (8, 8, 3))
    pattern = np.clip(pattern + 127.5, 0, 255).astype(np.uint8)
    return np.repeat(np.repeat(pattern, 14, axis=0), 14, axis=1)


def write_crawl(root):
    """Write folders with one or two wrong faces each, and return what is wrong and the truth."""
    rng = np.random.default_rng(5)
    wrong, truth = set(), []
    for person in range(PEOPLE):
        for image in range(2 if person == 11 else IMAGES):
            key, shown = f"p{person:02d}/{image}.png", person
            if person < 6 and image == 3:
                shown, kind = (person + 5) % PEOPLE, "flip"
            elif person == 0 and image == 4:
                shown, kind = 1000, "outlier"
            else:
                kind = "clean"
            if kind != "clean":
                wrong.add(key)
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / key), draw(shown, rng))
            name = f"p{shown:02d}"
            truth.append({"key": key, "face": 0, "person": name, "kind": kind})
    (root / "p00" / "broken.jpg").write_bytes(b"")
    cv2.imwrite(str(root / "loose.png"), draw(3, rng))
    return wrong, truth


@pytest.fixture
def crawl(tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "Embedder", StandIn)
    wrong, truth = write_crawl(tmp_path / "crawl")
    ingest(tmp_path / "crawl", tmp_path / "set", "aligned")
    pq.write_table(pa.Table.from_pylist(truth), tmp_path / "truth.parquet")
    return SimpleNamespace(out=tmp_path / "set", wrong=wrong, truth=tmp_path / "truth.parquet")


def clean_paths(out):
    return set(read_manifest(out / "clean.parquet")["path"].to_pylist())


def test_every_row_is_decided_with_a_reason_and_the_wrong_ones_go(crawl):
    summary = run_round(crawl.out, 1)
    decisions = read_log(crawl.out / "decisions.jsonl").decisions()
    rows = read_manifest(crawl.out / "manifest.parquet")
    assert len(decisions) == rows.num_rows == summary["rows"]
    assert all(decision.reason and decision.round == 1 for decision in decisions)
    by_path = {decision.path: decision for decision in decisions}
    dropped = {path for path, decision in by_path.items() if decision.action == "drop"}
    moved = {path for path, decision in by_path.items() if decision.action == "relabel"}
    assert dropped == {"p00/4.png", "p00/broken.jpg"}
    assert moved == crawl.wrong - {"p00/4.png"}
    assert by_path["p00/broken.jpg"].check == "ingest"
    assert by_path["p00/broken.jpg"].reason == "empty file"
    assert by_path["p11/0.png"].reason == REASONS[TOO_FEW]
    assert by_path["loose.png"].reason == REASONS[UNLABELLED]
    assert by_path["p01/0.png"].reason == REASONS[NEAR]
    assert by_path["p00/3.png"].reason == "shows the other identity: p05"
    assert by_path["p00/4.png"].reason == "far from its identity's centre"
    one = by_path["p00/3.png"]
    assert one.score >= one.threshold == summary["move_at"] and one.model == "1" * 64
    assert (one.from_identity, one.to_identity) == ("p00", "p05")
    gone = by_path["p00/4.png"]
    assert gone.score < gone.threshold == summary["keep_at"] and gone.to_identity is None
    assert clean_paths(crawl.out) == set(rows["path"].to_pylist()) - dropped
    scores = pq.read_table(crawl.out / "scores" / "round-0001.parquet")
    assert scores.num_rows == summary["usable"]
    assert scores["crowded"].to_pylist() == [False] * scores.num_rows


def test_two_models_judge_a_half_each_and_each_row_says_which(crawl):
    summary = run_round(crawl.out, (1, 2))
    table = read_log(crawl.out / "decisions.jsonl").rounds[0].read()
    usable = table.filter(pc.equal(table["check"], "identity"))
    half = rounds.find_half(usable["image_id"])
    assert 0 < half.sum() < len(half)
    assert usable["model"].to_pylist() == [("1", "2")[part] * 64 for part in half]
    assert summary["settings"]["other_model_sha256"] == "2" * 64
    gone = table.filter(pc.equal(table["action"], "drop"))["path"].to_pylist()
    assert sorted(gone) == ["p00/4.png", "p00/broken.jpg"]


def test_again_changes_nothing_and_heals_a_lost_clean_set(crawl):
    first = run_round(crawl.out, 1)
    log = (crawl.out / "decisions.jsonl").read_bytes()
    kept = clean_paths(crawl.out)
    (crawl.out / "clean.parquet").unlink()
    again = run_round(crawl.out, 1)
    assert again["round"] is None and again["dropped"] == first["dropped"]
    assert (crawl.out / "decisions.jsonl").read_bytes() == log
    assert clean_paths(crawl.out) == kept


def test_other_settings_make_a_round_of_changes_that_restores_and_is_undone(crawl):
    run_round(crawl.out, 1)
    kept = clean_paths(crawl.out)
    second = run_round(crawl.out, 1, targets=LENIENT)
    log = read_log(crawl.out / "decisions.jsonl")
    assert second["round"] == 2 and second["restored"] == 1 and second["relabelled"] == 0
    assert {d.path for d in log.rounds[1].decisions} == crawl.wrong
    back = {d.path: d for d in log.rounds[1].decisions}
    assert back["p00/4.png"].action == "restore" and back["p00/4.png"].from_identity is None
    assert (back["p00/3.png"].from_identity, back["p00/3.png"].to_identity) == ("p05", "p00")
    assert clean_paths(crawl.out) == kept | crawl.wrong
    undone = undo_rounds(crawl.out)
    assert (undone["undone"], undone["rows"]) == ([2], len(kept))
    assert clean_paths(crawl.out) == kept
    third = run_round(crawl.out, 2)
    assert third["round"] == 3 and third["changed"] == 0


def test_the_cap_is_told(crawl):
    run_round(crawl.out, 1, targets=Targets(threshold=1.0, max_drop=0.25, false_relabels=1e-9))
    decisions = read_log(crawl.out / "decisions.jsonl").decisions()
    mine = [d for d in decisions if d.path.startswith("p07/")]
    assert [d.action for d in mine].count("drop") == 2
    assert {d.reason for d in mine if d.action == "keep"} == {REASONS[CAPPED]}


def test_bad_settings_and_sets_are_named(crawl, tmp_path):
    with pytest.raises(InputError, match="max_drop must lie in"):
        run_round(crawl.out, 1, targets=Targets(max_drop=2))
    with pytest.raises(InputError, match="threshold must lie in"):
        run_round(crawl.out, 1, targets=Targets(threshold=7))
    with pytest.raises(InputError, match="is no set"):
        run_round(tmp_path / "nothing", 1)
    for job in (lambda: export_set(crawl.out, tmp_path / "e"), lambda: undo_rounds(crawl.out)):
        with pytest.raises(InputError, match=r"not cleaned yet|no round left"):
            job()
    chip = next((crawl.out / "chips").rglob("*.png"))
    chip.write_bytes(b"")
    with pytest.raises(InputError, match="missing or damaged"):
        run_round(crawl.out, 1)
    assert read_log(crawl.out / "decisions.jsonl").rounds == []


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
import test_rounds, data_tools.rounds as rounds
rounds.Embedder = test_rounds.StandIn
real = getattr(rounds, sys.argv[2])
setattr(rounds, sys.argv[2], lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
rounds.run_round(Path(sys.argv[1]), 1)
"""


@pytest.mark.parametrize("where", ["append_round", "write_clean", "build_round"])
def test_kill_9_in_a_round_then_the_same_command_gives_the_same_clean_set(crawl, where):
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(crawl.out), where, here],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    run_round(crawl.out, 1)
    every = set(read_manifest(crawl.out / "manifest.parquet")["path"].to_pylist())
    assert clean_paths(crawl.out) == every - {"p00/4.png", "p00/broken.jpg"}
    assert len(read_log(crawl.out / "decisions.jsonl").rounds) == 1


@pytest.mark.parametrize("where", ["scores", "decisions", "clean"])
def test_a_full_disk_in_a_round_leaves_the_last_state_and_the_next_run_goes_on(
    crawl, monkeypatch, where
):
    run_round(crawl.out, 1)
    kept = clean_paths(crawl.out)
    real = pq.ParquetWriter.write_table

    def write(self, table, *rest, **more):
        if where in str(self.where):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, table, *rest, **more)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write)
    with pytest.raises(OSError, match="No space left"):
        run_round(crawl.out, 1, targets=LENIENT)
    monkeypatch.undo()
    monkeypatch.setattr(rounds, "Embedder", StandIn)
    assert clean_paths(crawl.out) == kept
    assert not [path for path in crawl.out.rglob(".*") if path.suffix == ".parquet"]
    again = run_round(crawl.out, 1, targets=LENIENT)
    assert len(read_log(crawl.out / "decisions.jsonl").active) == 2
    assert clean_paths(crawl.out) == kept | crawl.wrong
    assert again["round"] == (None if where == "clean" else 2)


def test_score_against_the_truth(crawl):
    with pytest.raises(InputError, match="not cleaned yet"):
        score_set(crawl.out, crawl.truth)
    run_round(crawl.out, 1)
    figures = score_set(crawl.out, crawl.truth)
    assert figures["wrong"] == figures["dropped"] == figures["hit"] == 7
    assert figures["precision"] == figures["recall"] == figures["f1"] == 1.0
    assert figures["lost_share"] == 0.0
    assert figures["kinds"]["flip"] == {"wrong": 6, "hit": 6, "recall": 1.0}
    assert figures["unknown"] == 2 and figures["unusable"] == 0
    undo_rounds(crawl.out)
    run_round(crawl.out, 1, targets=LENIENT)
    figures = score_set(crawl.out, crawl.truth)
    assert figures["hit"] == 0 and figures["precision"] is None and figures["f1"] == 0.0
    pq.write_table(pa.table({"key": ["a"]}), crawl.truth)
    with pytest.raises(InputError, match="must have the column 'person'"):
        score_set(crawl.out, crawl.truth)


def test_export_to_folders_and_to_a_list(crawl, tmp_path):
    run_round(crawl.out, 1)
    figures = export_set(crawl.out, tmp_path / "clean")
    files = {
        p.relative_to(tmp_path / "clean").as_posix() for p in (tmp_path / "clean").rglob("*.png")
    }
    table = read_manifest(crawl.out / "clean.parquet")
    assert len(files) == figures["files"] == table.num_rows and figures["repeated"] == 0
    chip = table["chip"][0].as_py()
    name = f"{name_folder(table['identity'][0].as_py())}/{Path(chip).name}"
    assert (tmp_path / "clean" / name).samefile(crawl.out / chip)
    with pytest.raises(InputError, match="not empty"):
        export_set(crawl.out, tmp_path / "clean")
    export_set(crawl.out, tmp_path / "clean.csv")
    assert (tmp_path / "clean.csv").read_text().count("\n") == table.num_rows + 1
    again = ingest(tmp_path / "clean.csv", tmp_path / "again", "aligned", root=tmp_path / "crawl")
    assert again["faces"] == table.num_rows
    with pytest.raises(InputError, match="exists"):
        export_set(crawl.out, tmp_path / "clean.csv", "list")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_folder_names_are_safe_and_one_to_one():
    names = ["a/b", "..", ".", "", "_unlabelled", "Zoë", "a%2Fb", "a\\b", "a b"]
    folders = [name_folder(name) for name in names]
    assert len(set(folders)) == len(names)
    assert not any("/" in f or "\\" in f or f in (".", "..") for f in folders)


def test_report_shows_figures_and_no_picture_unless_asked(crawl, tmp_path):
    page, figures = write_report(crawl.out)
    assert "Not cleaned yet" in page.read_text() and figures["round"] is None
    summary = run_round(crawl.out, 1)
    page, figures = write_report(crawl.out, json_path=tmp_path / "copy.json")
    text = page.read_text()
    assert "image/jpeg" not in text and "Dropped faces" not in text
    assert str(tmp_path) not in text
    assert summary["settings"]["model_sha256"] in text and "empty file" in text
    assert figures["decided"] == figures["rows"]
    assert [entry["stage"] for entry in figures["stages"]] == ["ingest", "embed", "check"]
    first = figures["identities"][0]
    assert (first["identity"], first["dropped"], first["faces"]) == ("p00", 1, 8)
    for path in (crawl.out / "report.json", tmp_path / "copy.json"):
        saved = read_json(path)
        assert saved["identities"] == json.loads(json.dumps(figures["identities"]))
        assert saved["provenance"]["hashes"]["model"] == "1" * 64
    text = write_report(crawl.out, with_images=True)[0].read_text()
    assert text.count("image/jpeg") == 1


def test_a_chip_without_direction_goes_and_the_others_are_judged(crawl, monkeypatch):
    paths = read_manifest(crawl.out / "manifest.parquet")["path"].to_pylist()
    chips = read_manifest(crawl.out / "manifest.parquet")["chip"].to_pylist()
    lost = "p02/0.png"
    chip = rounds.read_chip(crawl.out / chips[paths.index(lost)])

    class Blind(StandIn):
        def embed(self, images):
            found = super().embed(images)
            same = (images == chip).all(axis=(1, 2, 3))
            found.vectors[same], found.norms[same] = 0, 0
            return found

    monkeypatch.setattr(rounds, "Embedder", Blind)
    summary = run_round(crawl.out, 1)
    decisions = read_log(crawl.out / "decisions.jsonl").decisions()
    by_path = {decision.path: decision for decision in decisions}
    assert by_path[lost].action == "drop" and by_path[lost].reason == REASONS[NO_DIRECTION]
    assert summary["reasons"][REASONS[NO_DIRECTION]] == 1 and len(decisions) == summary["rows"]
    dropped = {path for path, decision in by_path.items() if decision.action == "drop"}
    assert dropped == {"p00/4.png", "p00/broken.jpg", lost}
    assert lost not in clean_paths(crawl.out)


def test_a_model_that_is_blind_is_refused(crawl, monkeypatch):
    class Blind(StandIn):
        def embed(self, images):
            return Embeddings(*(np.zeros_like(a) for a in vars(super().embed(images)).values()))

    monkeypatch.setattr(rounds, "Embedder", Blind)
    with pytest.raises(InputError, match="every chip a zero vector"):
        run_round(crawl.out, 1)
