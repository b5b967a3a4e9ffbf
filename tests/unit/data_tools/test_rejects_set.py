"""Rejects of a whole set: the table, the folder for training, the round and its undoing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools import rejects_files
from data_tools.decisions import Decision, append_round, build_decisions, read_log
from data_tools.log_clean import undo_rounds
from data_tools.rejects_set import route_set
from data_tools.sets import SetFolder, read_info
from facerec.checks import InputError
from facerec.cli.clean_rejects import add_rejects
from facerec.command import build_parser, run_command
from facerec.data.datasets import read_unlabelled
from facerec.data.embedding_cache import EmbeddingCache
from facerec.data.manifest import build_manifest, write_manifest
from facerec.io import read_json, sha256_bytes, write_json

KEPT, ADDED, LONE, DIM = 30, 3, 20, 64
MODEL = "a" * 64
NO_SCORES = ("p_own", "p_other", "p_nobody", "quality")


def draw(people, rng):
    centres = rng.standard_normal((people.max() + 1, DIM))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    made = centres[people] + 0.6 * rng.standard_normal((len(people), DIM)) / np.sqrt(DIM)
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def build_rows(people):
    """Return manifest rows; unknown people lie in folders of known ones, the last has no face."""
    rows = []
    for number, person in enumerate(people.tolist()):
        name = f"p{person if person < KEPT else number % KEPT:02d}"
        sha = sha256_bytes(str(number).encode())
        row = {"path": f"{name}/{number}.png", "sha256": sha, "width": 9, "height": 9, "faces": 1}
        row |= {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0}
        chip = f"chips/{sha[:2]}/{sha[:16]}-0.png"
        # One folder is joined to another one, one row was never labelled.
        name = {"p01": "p00 too"}.get(name, name) if number % 2 else name
        rows.append({**row, "identity": "" if number == 5 else name, "chip": chip})
    sha = sha256_bytes(b"nobody")
    faceless = {"path": "p00/none.png", "sha256": sha, "width": 9, "height": 9, "identity": "p00"}
    return [*rows, {**faceless, "reason": "no face found"}]


@pytest.fixture
def folder(tmp_path):
    """Return a set after one round: unknown people are out, and copies, leaks, poor rows, drops."""
    folder = SetFolder(tmp_path / "set")
    write_json(folder.info, {"format": 1, "settings": {}, "stages": []})
    people = np.repeat(np.arange(KEPT + ADDED + LONE), [8] * KEPT + [5] * ADDED + [1] * LONE)
    rows = build_rows(people)
    write_manifest(build_manifest(rows), folder.manifest)
    ids = [row["chip"].split("/")[-1][:-4] for row in rows[:-1]]
    norms = np.random.default_rng(1).uniform(10, 20, len(ids)).astype(np.float32)
    special = np.flatnonzero(people >= KEPT + ADDED)[:4]
    norms[special[3]] = 0.5
    EmbeddingCache(folder.embeddings, MODEL, DIM).append(
        ids, draw(people, np.random.default_rng(0)), norms
    )
    actions = dict.fromkeys(np.flatnonzero(people >= KEPT).tolist(), ("identity", "drop"))
    actions |= {special[0]: ("same picture", "duplicate"), special[1]: ("evaluation", "overlap")}
    actions[special[2]] = ("review", "drop")
    decisions = []
    for number, row in enumerate(rows[:-1]):
        (folder.root / row["chip"]).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / row["chip"]).write_bytes(str(number).encode())
        check, action = actions.get(number, ("identity", "keep"))
        after = {"p00 too": "p01"}.get(row["identity"], row["identity"])
        after = after if action == "keep" else None
        sha, path, given = row["sha256"][:16], row["path"], row["identity"]
        decisions.append(
            Decision(sha, path, 0, 0, check, action, given, after, None, None, MODEL, "")
        )
    settings = {"model_sha256": MODEL}
    gone = Decision("", "p00/none.png", 0, 0, "ingest", "drop", "p00", None, None, None, "", "")
    append_round(
        folder.log, build_decisions([*decisions, gone]), {"settings": settings, "threshold": 0.4}
    )
    write_scores(folder, rows[:-1], people)
    return folder


def write_scores(folder, rows, people):
    known = people < KEPT
    table = pa.table(
        {
            "path": [row["path"] for row in rows],
            "face": pa.array(np.zeros(len(rows), np.int32)),
            "own": np.where(known, 0.8, 0.1),
            "other": np.full(len(rows), 0.1),
            "p_own": np.where(known, 0.99, 0.001),
            "p_other": np.full(len(rows), 0.001),
            "p_nobody": np.where(known, 0.009, 0.998),
            "quality": np.full(len(rows), 15.0),
        }
    )
    folder.scores(1).parent.mkdir(exist_ok=True)
    pq.write_table(table, folder.scores(1))


def read_rejects(folder):
    return pq.read_table(folder.root / "rejects.parquet")


def take(folder, **wanted):
    rows = read_rejects(folder).to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def clean_names(folder):
    return pq.read_table(folder.clean, columns=["path", "identity"]).to_pylist()


def run(*arguments):
    parser = build_parser("facerec-clean", "", "")
    add_rejects(parser.add_subparsers(dest="command", required=True))
    return run_command(parser, [str(argument) for argument in arguments])


def test_every_reject_has_a_route_and_the_strangers_are_ready_for_training(folder, tmp_path):
    figures = route_set(folder.root, tmp_path / "strangers", leak=0.01)
    table = read_rejects(folder)
    outside = ADDED * 5 + LONE + 1 + 1  # and the row without a name, and the one without a face
    assert table.num_rows == figures["rejects"] == outside == sum(figures["routes"].values())
    assert figures["new_identities"] == ADDED and figures["round"] is None
    (faceless,) = take(folder, path="p00/none.png")
    assert (faceless["route"], faceless["reason"]) == ("discard", "no face found")
    (nameless,) = take(folder, identity="")
    assert nameless["route"] == "review" and nameless["now"] == ""
    for reason in ("duplicate of another row", "overlaps an evaluation set"):
        assert len(take(folder, route="discard", reason=reason)) == 1
    assert len(take(folder, route="discard", reason="decided by a person")) == 1
    passed = take(folder, route="unlabelled")
    chips = read_unlabelled(folder=tmp_path / "strangers")
    assert len(passed) >= 8 and len(chips) == figures["linked"] == len(passed)
    assert {path.name for path in chips.paths} == {row["chip"].split("/")[-1] for row in passed}
    assert all(path.stat().st_nlink > 1 for path in chips.paths)
    assert {row["now"] for row in passed} == {None}
    assert all(row["score"] < row["threshold"] for row in passed)
    (stage,) = [s for s in read_info(folder)["stages"] if s["stage"] == "rejects"]
    assert stage["destination"] == str((tmp_path / "strangers").resolve())


def test_low_quality_is_told_by_the_norms_where_the_round_has_no_measure(folder):
    table = pq.read_table(folder.scores(1))
    pq.write_table(table.drop_columns(list(NO_SCORES)), folder.scores(1))
    route_set(folder.root)
    assert len(take(folder, reason="low quality")) == 1
    assert "p_own" not in read_rejects(folder).column_names


def test_new_identities_are_a_round_that_can_be_undone(folder, monkeypatch):
    route_set(folder.root)
    before = clean_names(folder)
    figures = route_set(folder.root, new_identities=True)
    assert figures["round"] == 2
    with_new = clean_names(folder)
    named = {row["identity"] for row in with_new if row["identity"].startswith("new-")}
    assert named == {"new-00001", "new-00002", "new-00003"}
    groups = {row["path"]: row["group"] for row in take(folder, route="new identity")}
    assert len(groups) == figures["routes"]["new identity"] == 15
    of_group = {}
    for row in with_new:
        if row["path"] in groups:
            of_group.setdefault(groups[row["path"]], set()).add(row["identity"])
    assert all(len(names) == 1 for names in of_group.values()) and len(of_group) == ADDED
    decisions = read_log(folder.log).active[-1].decisions
    assert {(one.action, one.check, one.from_identity) for one in decisions} == {
        ("restore", "review", None)
    }
    again = route_set(folder.root, new_identities=True)
    assert again["round"] is None and again["new_identities"] == 0
    assert undo_rounds(folder.root)["undone"] == [2]
    assert clean_names(folder) == before
    # A number is never given again; a run killed before the clean set is written loses nothing.
    with monkeypatch.context() as patch:
        patch.setattr(rejects_files, "write_clean", lambda *_: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):
            route_set(folder.root, new_identities=True)
    route_set(folder.root, new_identities=True)
    named = {row["identity"] for row in clean_names(folder)}
    assert {"new-00004", "new-00005", "new-00006"} <= named and "new-00001" not in named
    assert len(read_log(folder.log).active) == 2


def test_the_same_set_gives_the_same_table(folder):
    route_set(folder.root)
    first = (folder.root / "rejects.parquet").read_bytes()
    route_set(folder.root)
    assert (folder.root / "rejects.parquet").read_bytes() == first


def test_the_command_prints_and_writes_figures(folder, tmp_path, capsys):
    place = tmp_path / "figures.json"
    assert run("rejects", folder.root, "--unlabelled", tmp_path / "u", "--json", place) == 0
    shown = capsys.readouterr().out
    figures = read_json(place)
    assert f"{figures['new_identities']} new identities" in shown
    assert "right rows put to the test" in shown
    assert run("rejects", folder.root, "--unlabelled", folder.root / "u") == 2
    assert "must lie outside the set" in capsys.readouterr().err
    assert run("rejects", folder.root, "--leak", "0") == 2


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="is no set"):
        route_set(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InputError, match="is not empty"):
        route_set(folder.root, tmp_path / "full", leak=0.01)
    scores = folder.scores(1).read_bytes()
    folder.scores(1).unlink()
    with pytest.raises(InputError, match="has no scores of a round"):
        route_set(folder.root)
    folder.scores(1).write_bytes(scores)
    for file in (folder.embeddings / MODEL[:16]).glob("*.ids"):
        file.unlink()
    with pytest.raises(InputError, match="lacks the embeddings of 275 faces"):
        route_set(folder.root)
