"""The log: rounds in files of their own, torn ends ignored, damage named, undone, pinned."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.decisions import (
    DECISION_SCHEMA,
    Decision,
    append_round,
    build_decisions,
    find_dropped,
    find_pinned,
    read_log,
    replay,
    undo_from,
    undo_last,
)
from facerec.checks import InputError
from facerec.data.manifest import build_manifest


def decide(path, action, number=0, before="a", after="a", score=0.5, check="check"):
    return Decision(
        "0" * 16, path, 0, number, check, action, before, after, score, 0.3, "hash", "why"
    )


def first_round():
    return [decide("a/1.png", "keep", 1), decide("a/2.png", "drop", 1, after=None)]


def second_round():
    return [
        decide("a/1.png", "drop", 2, after=None, score=None),
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
    assert log.active[0].summary == {"kept": 1} and log.active[0].rows == 2
    assert log.active[1].counts == {"check": {"check": 2}, "action": {"drop": 1, "restore": 1}}
    event = json.loads(log_path.read_text().splitlines()[0])
    assert event["file"] == "round-0001.parquet" and event["previous"] == ""
    table = pq.read_table(log_path.parent / "decisions" / "round-0001.parquet")
    assert table.schema == DECISION_SCHEMA
    only = log.rounds[1].read(["to"], pa.compute.field("path") == "a/2.png")
    assert only.to_pydict() == {"to": ["a"]}


def test_tables_are_taken_as_lists_are(log_path, tmp_path):
    table = build_decisions(first_round())
    nan = table.set_column(8, "score", pa.array([float("nan"), 0.5]))
    append_round(log_path, nan.drop_columns(["round"]), {})
    append_round(log_path, [replace(one, round=0) for one in second_round()], {})
    log = read_log(log_path)
    assert log.rounds[0].decisions == [replace(first_round()[0], score=None), first_round()[1]]
    assert log.rounds[1].decisions == second_round()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([decide("a", "drop")], "must be null"),
        ([decide("a", "keep", after=None)], "must be null"),
        ([decide("a", "dorp", after=None)], "did you mean 'drop'"),
        ([decide("a", "keep", 7)], "another round than 1"),
        ([replace(decide("a", "keep"), reason=None)], "reason of a decision must not be null"),
        (build_decisions([]).drop_columns(["model"]), "missing column 'model'"),
        (build_decisions([]).append_column("x", pa.array([], pa.int8())), "unknown column 'x'"),
    ],
)
def test_what_is_no_decision_is_refused_before_anything_is_written(log_path, bad, message):
    with pytest.raises(ValueError, match=message):
        append_round(log_path, bad, {})
    assert not log_path.exists()


def test_replay_applies_the_last_decision_of_each_row(log_path, manifest):
    assert paths(replay(manifest, [])) == ["a/1.png", "a/2.png"]
    assert paths(replay(manifest, first_round())) == ["a/1.png"]
    assert paths(replay(manifest, first_round() + second_round())) == ["a/2.png"]
    moved = replay(manifest, build_decisions([decide("a/1.png", "relabel", after="b")]))
    assert moved["identity"].to_pylist() == ["b", "a"]
    assert moved.schema == manifest.schema and paths(manifest)[-1] == "a/3.png"
    append_round(log_path, first_round(), {})
    append_round(log_path, second_round(), {})
    log = read_log(log_path)
    assert replay(manifest, log).equals(replay(manifest, log.decisions()))
    assert replay(manifest, log.tables()).equals(replay(manifest, log))
    assert find_dropped(log) == find_dropped(log.decisions()) == {("a/1.png", 0)}


def test_undo_takes_back_and_numbers_go_on(log_path, manifest):
    append_round(log_path, first_round(), {})
    before = log_path.read_bytes()
    append_round(log_path, second_round(), {})
    assert undo_last(log_path) == 2
    assert paths(replay(manifest, read_log(log_path))) == ["a/1.png"]
    assert log_path.read_bytes().startswith(before)
    assert append_round(log_path, [decide("a/1.png", "drop", 3, after=None)], {}) == 3
    assert [entry.number for entry in read_log(log_path).rounds_at(2)] == [1, 2]
    assert [entry.number for entry in read_log(log_path).rounds_at(3)] == [1, 3]
    assert read_log(log_path).rounds_at(0) == []
    assert undo_from(log_path, 1) == [3, 1]
    log = read_log(log_path)
    assert log.active == [] and [len(entry.decisions) for entry in log.rounds] == [2, 2, 1]
    with pytest.raises(InputError, match="no round left"):
        undo_last(log_path)
    append_round(log_path, [], {})
    with pytest.raises(InputError, match="round 2 was undone already"):
        undo_from(log_path, 2)
    with pytest.raises(InputError, match="no round 9; its rounds: 1, 2, 3, 4"):
        undo_from(log_path, 9)


def test_an_event_torn_at_any_byte_never_counts_and_is_cut_off_later(log_path):
    append_round(log_path, first_round(), {})
    first = log_path.read_bytes()
    append_round(log_path, second_round(), {})
    second = log_path.read_bytes()
    undo_last(log_path)
    whole = log_path.read_bytes()
    for length in range(len(whole) + 1):
        log_path.write_bytes(whole[:length])
        log = read_log(log_path)
        counted = [1] * (length >= len(first)) + [2] * (length >= len(second))
        assert [entry.number for entry in log.rounds] == counted
        assert [entry.number for entry in log.active] == ([1] if length == len(whole) else counted)
    log_path.write_bytes(second[:-7])
    append_round(log_path, second_round(), {})
    assert log_path.read_bytes() == second


def test_damage_is_named(log_path):
    append_round(log_path, first_round(), {"n": 1})
    append_round(log_path, second_round(), {})
    text = log_path.read_text()
    lines = text.splitlines(keepends=True)
    for wrong, message in (
        (text.replace('"round"', '"round', 1), "line 1 is damaged"),
        (text.replace('{"n":1}', '{"n":2}'), "line 2 does not follow"),
        (lines[1], "line 1 does not follow"),
        (lines[0].replace('"sha256"', '"sha"'), "line 1 is no event"),
        (lines[0].replace('"event":"round"', '"event":"ground"'), "line 1 is no event"),
        ('{"path":"a","action":"keep"}\n', "of an older facerec"),
    ):
        log_path.write_text(wrong)
        with pytest.raises(InputError, match=message):
            read_log(log_path)


def test_a_damaged_swapped_or_missing_round_is_named_when_it_is_read(log_path, manifest):
    append_round(log_path, first_round(), {})
    append_round(log_path, second_round(), {})
    folder = log_path.parent / "decisions"
    first, second = folder / "round-0001.parquet", folder / "round-0002.parquet"
    whole = first.read_bytes()
    for wrong in (second.read_bytes(), whole[:-1], whole + b"x"):
        first.write_bytes(wrong)
        with pytest.raises(InputError, match=r"round-0001.parquet is damaged or swapped: its sha"):
            replay(manifest, read_log(log_path))
    first.unlink()
    with pytest.raises(InputError, match="of round 1 is missing"):
        replay(manifest, read_log(log_path))


def test_the_last_verdict_pins_a_row_until_its_round_is_undone(log_path):
    def review(path, after, action="relabel"):
        return decide(path, action, after=after, check="review")

    append_round(log_path, first_round(), {})
    assert find_pinned(read_log(log_path)).num_rows == 0
    append_round(log_path, [review("a/1.png", "b"), review("a/3.png", "c")], {})
    append_round(log_path, [decide("a/2.png", "keep"), review("a/1.png", None, "drop")], {})
    append_round(log_path, [decide("a/1.png", "restore", before=None)], {})
    pinned = find_pinned(read_log(log_path)).to_pylist()
    assert pinned == [
        {"path": "a/3.png", "face": 0, "identity": "c"},
        {"path": "a/1.png", "face": 0, "identity": None},
    ]
    undo_from(log_path, 3)
    assert find_pinned(read_log(log_path))["identity"].to_pylist() == ["b", "c"]
