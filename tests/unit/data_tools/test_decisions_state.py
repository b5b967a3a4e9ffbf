"""Laws of the log: the last decision a row wins; an undo and the same again change nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.decisions import (
    Decision,
    append_round,
    build_decisions,
    find_dropped,
    read_log,
    replay,
    undo_from,
)
from data_tools.log_clean import refresh_clean, undo_rounds, write_clean
from data_tools.log_diff import diff_rounds
from data_tools.log_state import find_changes, find_fates, find_last, locate_rows
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.data.manifest import build_manifest, read_manifest, write_manifest
from facerec.io import write_json

KEYS = [(f"p{number // 2}", number % 2) for number in range(8)]
NAMES = ["a", "b", "", "ü"]


def build_rows(identities=("a", "b") * 4, without=(5,)):
    rows = []
    for number, (path, face) in enumerate(KEYS):
        row = {"path": path, "face": face, "faces": 2, "identity": identities[number]}
        row |= {"sha256": f"{number:064x}", "width": 9, "height": 9}
        detected = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0}
        usable = {**detected, "chip": f"chips/{number}.png"}
        rows.append({**row, **({"reason": "blurred"} if number in without else usable)})
    return rows


MANIFEST = build_manifest(build_rows())


def decide(key, before, after, check="c"):
    if after is None:
        action = "drop"
    else:
        action = "restore" if before is None else "keep" if before == after else "relabel"
    return Decision("0" * 16, *key, 0, check, action, before, after, 0.1, 0.2, "", "")


a_name = st.sampled_from([*NAMES, None])
a_key = st.sampled_from([*KEYS, ("elsewhere", 0)])
a_round = st.lists(st.builds(decide, a_key, a_name, a_name), max_size=6)
full_round = st.tuples(*[st.builds(decide, st.just(key), a_name, a_name) for key in KEYS]).map(list)
few_rounds = st.lists(st.one_of(a_round, full_round), max_size=4)


def fold(rounds):
    """Return what replaying means, row by row: [(path, face, identity)]."""
    last = {one.key: one.to_identity for decisions in rounds for one in decisions}
    state = []
    columns = (MANIFEST[n].to_pylist() for n in ("path", "face", "identity", "chip"))
    for path, face, identity, chip in zip(*columns, strict=True):
        now = last.get((path, face), identity)
        if now is not None and chip:
            state.append((path, face, now))
    return state


def unfold(table):
    return list(zip(*(table[n].to_pylist() for n in ("path", "face", "identity")), strict=True))


@settings(max_examples=60)
@given(few_rounds)
def test_replay_is_last_wins(rounds):
    tables = [build_decisions(decisions) for decisions in rounds]
    assert unfold(replay(MANIFEST, tables)) == fold(rounds)
    one = [decision for decisions in rounds for decision in decisions]
    assert unfold(replay(MANIFEST, one)) == fold(rounds)
    last = {decision.key: decision.to_identity for decision in one}
    assert find_dropped(tables) == {key for key, name in last.items() if name is None}


@settings(max_examples=30)
@given(st.lists(a_key, max_size=9), st.lists(a_key, max_size=9))
def test_rows_are_located_where_they_stand_last(rows, among):
    def table(keys):
        columns = [[path for path, _ in keys], [face for _, face in keys]]
        return pa.table(columns, pa.schema([("path", pa.string()), ("face", pa.int32())]))

    last = {key: place for place, key in enumerate(among)}
    assert locate_rows(table(rows), table(among)).tolist() == [last.get(key, -1) for key in rows]
    assert find_last(table(among)).tolist() == sorted(last.values())


@settings(max_examples=40)
@given(few_rounds, few_rounds)
def test_changes_are_the_rows_whose_fates_differ(earlier, later):
    before, after = (
        find_fates(MANIFEST, [build_decisions(one) for one in rounds])
        for rounds in (earlier, later)
    )

    def state(rounds):
        return {(path, face): name for path, face, name in fold(rounds)}

    old, new = state(earlier), state(later)
    rows = [n for n, key in enumerate(KEYS) if old.get(key, 0) != new.get(key, 0)]
    assert find_changes(before, after).tolist() == rows


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(few_rounds, st.data())
def test_undo_then_the_same_rounds_again_equals(rounds, data):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "decisions.jsonl"
        for decisions in rounds:
            append_round(path, decisions, {})
        whole = replay(MANIFEST, read_log(path))
        if not rounds:
            return
        number = data.draw(st.integers(1, len(rounds)))
        undo_from(path, number)
        assert unfold(replay(MANIFEST, read_log(path))) == fold(rounds[: number - 1])
        for decisions in rounds[number - 1 :]:
            append_round(path, decisions, {})
        assert replay(MANIFEST, read_log(path)).equals(whole)


@pytest.fixture
def folder(tmp_path):
    folder = SetFolder(tmp_path / "set")
    write_json(folder.info, {"format": 1, "settings": {}, "stages": []})
    write_manifest(MANIFEST, folder.manifest)
    return folder


def log_rounds(folder):
    """Log three rounds: all rows, a few changes, and one that is undone."""
    pairs = zip(KEYS, MANIFEST["identity"].to_pylist(), strict=True)
    everything = [decide(key, name, name, "first") for key, name in pairs]
    everything[0] = decide(KEYS[0], "a", None, "first")
    append_round(folder.log, everything, {})
    moved = Decision("0" * 16, *KEYS[1], 0, "m", "merge", "b", "a", 0.8, 0.7, "", "same")
    append_round(folder.log, [decide(KEYS[0], None, "a", "second"), moved], {})
    append_round(folder.log, [decide(KEYS[2], "a", None, "third")], {})
    undo_from(folder.log, 3)


def test_the_clean_file_is_the_replayed_manifest_and_heals(folder):
    log_rounds(folder)
    log = read_log(folder.log)
    assert write_clean(folder, log) == 7
    assert read_manifest(folder.clean).equals(replay(MANIFEST, log))
    fresh = folder.clean.read_bytes()
    refresh_clean(folder)
    assert folder.clean.read_bytes() == fresh
    undo_from(folder.log)  # killed before the clean set was written
    refresh_clean(folder)
    assert read_manifest(folder.clean).equals(replay(MANIFEST, read_log(folder.log)))
    assert not read_manifest(folder.clean).equals(replay(MANIFEST, log))
    folder.clean.unlink()
    assert undo_rounds(folder.root) == {"undone": [1], "rows": 7, "round": None}
    assert unfold(read_manifest(folder.clean)) == fold([])
    with pytest.raises(InputError, match="no round left"):
        undo_rounds(folder.root)


def test_a_set_without_a_round_has_nothing_to_refresh(folder):
    with pytest.raises(InputError, match="is not cleaned yet; run: facerec-clean run"):
        refresh_clean(folder)


def test_diff_counts_and_lists_what_differs(folder, tmp_path):
    log_rounds(folder)
    figures = diff_rounds(folder.root, 0, 1)
    assert figures["changes"] == [{"action": "drop", "check": "first", "rows": 1}]
    assert (figures["rows"], figures["before"], figures["after"]) == (8, 7, 6)
    for suffix in ("csv", "json", "parquet"):
        figures = diff_rounds(folder.root, 1, 2, tmp_path / f"rows.{suffix}")
    assert figures["changed"] == 2
    assert figures["changes"] == [
        {"action": "merge", "check": "m", "rows": 1},
        {"action": "restore", "check": "second", "rows": 1},
    ]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["path"], row["face"], row["from"], row["to"]) for row in rows] == [
        ("p0", 0, None, "a"),
        ("p0", 1, "b", "a"),
    ]
    assert rows == pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert rows[1]["score"] == 0.8 and rows[1]["reason"] == "same"
    assert (tmp_path / "rows.csv").read_text().count("\n") == 3
    # What the undo took back, and the same backwards: no decision brought the row in.
    assert diff_rounds(folder.root, 2, 3)["changes"][0]["action"] == "drop"
    back = diff_rounds(folder.root, 3, 0)
    assert [one["action"] for one in back["changes"]] == ["relabel", "restore"]
    assert diff_rounds(folder.root, 2, 2)["changed"] == 0


def test_diff_names_what_it_cannot_do(folder, tmp_path):
    log_rounds(folder)
    with pytest.raises(InputError, match="no round 4; its rounds: 1, 2, 3"):
        diff_rounds(folder.root, 4, 1)
    with pytest.raises(InputError, match=r"must end in \.csv, \.json, \.parquet"):
        diff_rounds(folder.root, 0, 1, tmp_path / "rows.txt")
    (tmp_path / "rows.csv").touch()
    with pytest.raises(InputError, match="exists; give a new file name"):
        diff_rounds(folder.root, 0, 1, tmp_path / "rows.csv")


def test_a_large_log_is_joined_by_keys_in_any_order():
    count = 20_000
    rng = np.random.default_rng(0)
    keys = {"path": [f"{n}" for n in range(count)], "face": pa.array([0] * count, pa.int32())}
    manifest = pa.table({**keys, "identity": ["x"] * count, "chip": ["c"] * count})
    order = rng.permutation(count)
    names = pa.array([f"n{n % 100}" for n in order])
    shuffled = pa.table(keys).take(pa.array(order)).append_column("to", names)
    fates = find_fates(manifest, [shuffled])
    assert fates.take_names(fates.codes).to_pylist() == [f"n{n % 100}" for n in range(count)]
