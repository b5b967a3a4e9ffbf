"""The log: append-only, torn ends ignored, replayed, undone."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from data_tools.decisions import Decision, append_round, read_log, replay, undo_last
from facerec.checks import InputError
from facerec.data.manifest import build_manifest


def decide(path, action, number, before="a", after="a", score=0.5):
    return Decision(
        "0" * 16, path, 0, number, "check", action, before, after, score, 0.3, "hash", "why"
    )


def first_round():
    return [decide("a/1.png", "keep", 1), decide("a/2.png", "drop", 1, after=None)]


def second_round():
    return [
        decide("a/1.png", "drop", 2, after=None),
        decide("a/2.png", "restore", 2, before=None),
    ]


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "decisions.jsonl"


@pytest.fixture
def manifest():
    rows = []
    for name, chip in (("a/1.png", "c/1.png"), ("a/2.png", "c/2.png"), ("a/3.png", "")):
        face = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0, "faces": 1}
        row = {"path": name, "identity": "a", "sha256": "0" * 64, "width": 9, "height": 9}
        rows.append({**row, **face, "chip": chip} if chip else {**row, "reason": "no face"})
    return build_manifest(rows)


def paths(table):
    return table["path"].to_pylist()


def test_rounds_come_back_as_written(log_path):
    assert read_log(log_path).rounds == []
    assert append_round(log_path, first_round(), {"kept": 1}) == 1
    assert append_round(log_path, second_round(), {"kept": 2}) == 2
    log = read_log(log_path)
    assert [entry.decisions for entry in log.rounds] == [first_round(), second_round()]
    assert log.active[0].summary == {"kept": 1}
    assert log.committed_bytes == log_path.stat().st_size
    fields = json.loads(log_path.read_text().splitlines()[0])
    assert fields["from"] == "a" and fields["to"] == "a"
    assert {"image_id", "face", "round", "check", "action", "score", "threshold", "model"} <= set(
        fields
    )


def test_replay_applies_the_last_decision_of_each_row(log_path, manifest):
    assert paths(replay(manifest, [])) == ["a/1.png", "a/2.png"]
    assert paths(replay(manifest, first_round())) == ["a/1.png"]
    assert paths(replay(manifest, first_round() + second_round())) == ["a/2.png"]
    moved = [decide("a/1.png", "keep", 1, after="b")]
    table = replay(manifest, moved)
    assert table["identity"].to_pylist() == ["b", "a"]
    assert table.schema == manifest.schema
    assert isinstance(table, pa.Table) and paths(manifest)[-1] == "a/3.png"


def test_undo_takes_back_the_last_round_and_numbers_go_on(log_path, manifest):
    append_round(log_path, first_round(), {})
    before = log_path.read_bytes()
    append_round(log_path, second_round(), {})
    assert undo_last(log_path) == 2
    assert paths(replay(manifest, read_log(log_path).decisions())) == ["a/1.png"]
    assert log_path.read_bytes().startswith(before)
    assert append_round(log_path, [decide("a/1.png", "drop", 3, after=None)], {}) == 3
    assert undo_last(log_path) == 3 and undo_last(log_path) == 1
    assert read_log(log_path).active == []
    with pytest.raises(InputError, match="no round left"):
        undo_last(log_path)


def test_a_round_torn_at_any_byte_never_counts_and_is_cut_off_later(log_path):
    append_round(log_path, first_round(), {})
    first = log_path.read_bytes()
    append_round(log_path, second_round(), {})
    whole = log_path.read_bytes()
    for length in range(len(first), len(whole)):
        log_path.write_bytes(whole[:length])
        assert [entry.number for entry in read_log(log_path).rounds] == [1]
    log_path.write_bytes(whole[:-7])
    append_round(log_path, second_round(), {})
    assert log_path.read_bytes() == whole


def test_damage_before_a_committed_end_is_named(log_path):
    append_round(log_path, first_round(), {})
    text = log_path.read_text()
    log_path.write_text(text.replace('"keep"', '"keep', 1))
    with pytest.raises(InputError, match="line 1 is damaged"):
        read_log(log_path)
    log_path.write_text("".join(text.splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match="has 1 decisions but says 2"):
        read_log(log_path)
    log_path.write_text(text.replace('"reason"', '"because"'))
    with pytest.raises(InputError, match="other fields"):
        read_log(log_path)
