"""Why a row is where it is: every decision in words, undone or not, and the last scores."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.decisions import Decision, append_round, undo_last
from data_tools.explain import describe_rows, explain
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.cli.clean_log import add_log
from facerec.command import build_parser, run_command
from facerec.data.manifest import build_manifest, write_manifest
from facerec.io import read_json, write_json

PAIR, BLURRED, TWIN = "a/pair.jpg", "a/blurred.jpg", "b/pair.jpg"


@pytest.fixture
def folder(tmp_path):
    """Return a set with two faces of a pair, the same file for another person, and no face."""
    folder = SetFolder(tmp_path / "set")
    write_json(folder.info, {"format": 1, "settings": {}, "stages": []})
    usable = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0, "faces": 2}
    rows = []
    for path, face, chip in ((PAIR, 0, "0"), (PAIR, 1, "1"), (BLURRED, 0, ""), (TWIN, 0, "0")):
        row = {"path": path, "face": face, "identity": path[0], "width": 9, "height": 9}
        row["sha256"] = ("c" if path == BLURRED else "d") * 64
        shown = {**usable, "chip": f"chips/{chip}.png"} if chip else {"reason": "too blurred"}
        rows.append({**row, **shown})
    write_manifest(build_manifest(rows), folder.manifest)

    def decide(path, face, action, before, after, score=None, reason=""):
        return Decision(
            "d" * 16, path, face, 0, "outlier", action, before, after, score, 0.31, "f" * 64, reason
        )

    first = [
        decide(PAIR, 0, "keep", "a", "a", 0.75),
        decide(PAIR, 1, "drop", "a", None, 0.125, "far from its identity's centre"),
        decide(TWIN, 0, "keep", "b", "b"),
    ]
    append_round(folder.log, first, {})
    append_round(folder.log, [decide(PAIR, 1, "restore", None, "b", 0.5)], {})
    append_round(folder.log, [decide(PAIR, 1, "drop", "b", None)], {})
    undo_last(folder.log)
    for number in (1, 2, 3):  # that of the undone round does not count
        scores = {"path": [PAIR, PAIR], "face": [0, 1], "own": [0.75, number / 8]}
        scores |= {"near": [[0.1], [0.2, 0.3]], "other": [None, "b"]}
        folder.scores(number).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(scores), folder.scores(number))
    return folder


def test_every_face_with_its_decisions_and_scores(folder):
    first, second = explain(folder.root, PAIR)
    assert (first["now"], first["identity"], len(first["decisions"])) == ("a", "a", 1)
    assert second["now"] == "b"
    assert [(d["round"], d["action"], d["undone"]) for d in second["decisions"]] == [
        (1, "drop", False),
        (2, "restore", False),
        (3, "drop", True),
    ]
    assert second["scores"] == [
        {
            "table": "round-0002.parquet",
            "columns": {"own": 0.25, "near": [0.2, 0.3], "other": "b"},
        }
    ]
    assert explain(folder.root, PAIR, 1) == [second]


@pytest.mark.parametrize("name", ["d" * 16, "d" * 64])
def test_an_image_id_finds_every_row_of_the_picture(folder, name):
    found = [(row["path"], row["face"]) for row in explain(folder.root, name)]
    assert found == [(PAIR, 0), (PAIR, 1), (TWIN, 0)]
    chip = explain(folder.root, f"chips/dd/{'d' * 16}-1.png")
    assert [(row["path"], row["face"]) for row in chip] == [(PAIR, 1)]


def test_words(folder):
    text = "\n".join(describe_rows(explain(folder.root, PAIR, 1)))
    assert "a/pair.jpg, face 1 (image_id dddddddddddddddd)" in text
    assert "as ingested: 'a'" in text and "now: 'b'" in text
    assert (
        "round 1, outlier: drop, 'a' -> out of the clean set, score 0.1250 against 0.3100, model "
        "ffffffffffff: far from its identity's centre" in text
    )
    assert "round 3 (undone), outlier: drop, 'b' -> out of the clean set, model" in text
    assert "scores in round-0002.parquet:\n    own: 0.2500\n    near: 0.2000, 0.3000" in text
    blurred = "\n".join(describe_rows(explain(folder.root, BLURRED)))
    assert "as ingested: too blurred" in blurred and "now: out of the clean set" in blurred
    assert "no round has decided on it" in blurred


def test_what_is_not_there_is_named(folder):
    with pytest.raises(InputError, match=r"did you mean 'a/pair\.jpg' or 'b/pair\.jpg'\?"):
        explain(folder.root, "c/pair.jpg")
    with pytest.raises(InputError, match="has no face 7; its faces: 0, 1"):
        explain(folder.root, PAIR, 7)
    with pytest.raises(InputError, match="face must lie in"):
        explain(folder.root, PAIR, -1)
    with pytest.raises(InputError, match=r"has no picture 'e+'; give its path"):
        explain(folder.root, "e" * 16)


def test_the_command(folder, tmp_path, capsys):
    parser = build_parser("facerec-clean", "", "")
    add_log(parser.add_subparsers(dest="command", required=True))
    result = tmp_path / "result.json"
    arguments = ["explain", str(folder.root), PAIR, "--face", "0", "--json", str(result)]
    assert run_command(parser, arguments) == 0
    assert "round 1, outlier: keep, 'a' -> 'a', score 0.7500" in capsys.readouterr().out
    assert [row["path"] for row in read_json(result)["rows"]] == [PAIR]
    assert run_command(parser, ["diff", str(folder.root), "0", "2"]) == 0
    out = capsys.readouterr().out
    assert "1 of 4 rows differ" in out and "1  relabel    outlier" in out
    assert run_command(parser, ["undo", str(folder.root), "--round", "1"]) == 0
    assert "rounds 2, 1 undone; the clean set has 3 rows" in capsys.readouterr().out
    assert run_command(parser, ["undo", str(folder.root), "--round", "1"]) == 2
