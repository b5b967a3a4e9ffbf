"""A reviewer's verdicts: matched, refused, taken as a round, pinned, undone."""

from __future__ import annotations

import pytest

from data_tools.decisions import Decision, append_round, find_pinned, read_log
from data_tools.log_clean import undo_rounds
from data_tools.log_receipts import begin_erasure
from data_tools.sets import SetFolder
from data_tools.verdicts import import_verdicts
from facerec.checks import InputError
from facerec.cli.clean_log import add_log
from facerec.command import build_parser, run_command
from facerec.data.manifest import build_manifest, read_manifest, write_manifest
from facerec.io import read_json, write_json

SHA = {"a/1": "1", "a/2": "2", "a/3": "3", "b/1": "1", "b/4": "4"}


@pytest.fixture
def folder(tmp_path):
    """Return a set in which a/2 is out, a/3 was moved to "b", and a/1 is the same file as b/1."""
    folder = SetFolder(tmp_path / "set")
    write_json(folder.info, {"format": 1, "settings": {}, "stages": []})
    usable = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0, "faces": 1}
    rows = []
    for path, digit in SHA.items():
        row = {"path": path, "identity": path[0], "sha256": digit * 64, "width": 9, "height": 9}
        chip = {**usable, "chip": f"chips/{digit}.png"}
        rows.append({**row, **(chip if path != "b/4" else {"reason": "no face"})})
    write_manifest(build_manifest(rows), folder.manifest)

    def decide(path, action, before, after):
        key = (SHA[path] * 16, path, 0, 0)
        return Decision(*key, "c", action, before, after, None, None, "", "")

    append_round(folder.log, [decide("a/3", "relabel", "a", "b")], {})
    moves = [decide("a/2", "relabel", "a", "b"), decide("a/2", "drop", "b", None)]
    append_round(folder.log, moves, {})
    return folder


@pytest.fixture
def write(tmp_path):
    def write(*lines, head="path,verdict,identity,reviewer,note", name="verdicts.csv"):
        (tmp_path / name).write_text("\n".join([head, *lines]) + "\n")
        return tmp_path / name

    return write


def clean(folder):
    table = read_manifest(folder.clean)
    return dict(zip(table["path"].to_pylist(), table["identity"].to_pylist(), strict=True))


def test_verdicts_become_a_round_of_decisions(folder, write):
    table = write(
        "a/1,drop,,R,blurred", "a/2,Keep ,,,", "a/3,relabel,c,R,", "b/1,keep,,,", "b/4,,,,"
    )
    figures = import_verdicts(folder.root, table)
    assert figures == {
        "round": 3,
        "verdicts": {"drop": 1, "keep": 2, "relabel": 1},
        "changed": 3,
        "unjudged": 1,
        "skipped": 0,
        "unknown": [],
        "rows": 3,
    }
    assert clean(folder) == {"a/2": "b", "a/3": "c", "b/1": "b"}  # a/2 as it was when last in
    found = read_log(folder.log).rounds[-1].decisions
    assert [(d.path, d.action, d.from_identity, d.to_identity, d.reason) for d in found] == [
        ("a/1", "drop", "a", None, "R: blurred"),
        ("a/2", "restore", None, "b", ""),
        ("a/3", "relabel", "b", "c", "R"),
        ("b/1", "keep", "b", "b", ""),
    ]
    assert {d.check for d in found} == {"review"}
    assert find_pinned(read_log(folder.log))["identity"].to_pylist() == [None, "b", "c", "b"]
    undo_rounds(folder.root)
    assert find_pinned(read_log(folder.log)).num_rows == 0
    assert clean(folder) == {"a/1": "a", "a/3": "b", "b/1": "b"}


def test_the_same_table_again_changes_nothing_until_it_is_undone(folder, write):
    table = write("a/1,drop,,,")
    first = import_verdicts(folder.root, table)
    again = import_verdicts(folder.root, table)
    assert again == {**first, "round": None, "changed": 0}
    assert read_log(folder.log).next_number == 4
    import_verdicts(folder.root, write("a/1,keep,,,", name="other.csv"))
    assert import_verdicts(folder.root, table)["round"] == 5  # the last word counts
    undo_rounds(folder.root, 3)
    assert import_verdicts(folder.root, table)["round"] == 6


def test_rows_are_found_by_image_id_too_and_repeats_may_agree(folder, write):
    lines = [f"{'2' * 16},,keep,0", f"{'2' * 16},,keep,", f"{'3' * 16},a/3,drop,0"]
    table = write(*lines, head="image_id,path,verdict,face")
    figures = import_verdicts(folder.root, table)
    assert figures["changed"] == 2 and read_log(folder.log).rounds[-1].rows == 2


BAD_LINES = [
    ("a/9,keep,,,", r"line 2 \('a/9', face 0\) is not in the manifest"),
    ("b/4,keep,,,", "has no usable face"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_line_that_fits_no_row_stops_all_unless_skipped(folder, write, line, message):
    table = write(line, "a/1,drop,,,")
    with pytest.raises(InputError, match=f"1 of 2 verdicts fit no row .*{message}.*--skip-unk"):
        import_verdicts(folder.root, table)
    assert len(read_log(folder.log).rounds) == 2
    figures = import_verdicts(folder.root, table, skip_unknown=True)
    assert (figures["skipped"], figures["changed"], figures["round"]) == (1, 1, 3)


def test_image_ids_that_fit_two_rows_or_another_are_told(folder, write):
    table = write(f"{'1' * 16},,drop", f"{'2' * 16},a/1,drop", head="image_id,path,verdict")
    with pytest.raises(InputError, match=r"fits 2 rows, give the path; .* has another image_id"):
        import_verdicts(folder.root, table)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a/1,dorp,,,"], r"line 2: verdict must be one of .* got 'dorp'; did you mean 'drop'\?"),
        (["a/1,relabel,,,"], "line 2: a relabel must name the identity"),
        ([",keep,,,"], "line 2 must have a path or an image_id"),
        (["a/1,keep,,,", "a/1,drop,,,"], r"line 3 \(drop\) contradicts line 2 \(keep\)"),
        (["a/1,relabel,gone,,"], "names 'gone', erased from this set"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_taken(folder, write, lines, message):
    begin_erasure(folder, "gone", "0" * 16, "")
    with pytest.raises(InputError, match=message):
        import_verdicts(folder.root, write(*lines))
    assert len(read_log(folder.log).rounds) == 2


def test_bad_tables_are_named(folder, write, tmp_path):
    with pytest.raises(InputError, match="must have the column 'verdict', and 'path' or"):
        import_verdicts(folder.root, write("a/1,1", head="path,opinion"))
    with pytest.raises(InputError, match="face must be a whole number from 0, got 'one'"):
        import_verdicts(folder.root, write("a/1,keep,one", head="path,verdict,face"))
    with pytest.raises(InputError, match="is not a file"):
        import_verdicts(folder.root, tmp_path / "none.csv")


def test_the_command(folder, write, tmp_path, capsys):
    parser = build_parser("facerec-clean", "", "")
    add_log(parser.add_subparsers(dest="command", required=True))
    table = str(write("a/1,drop,,,", "a/9,drop,,,"))
    arguments = ["verdicts", str(folder.root), table]
    assert run_command(parser, arguments) == 2
    result = tmp_path / "result.json"
    assert run_command(parser, [*arguments, "--skip-unknown", "--json", str(result)]) == 0
    out = capsys.readouterr().out
    assert "round 3: 1 drop; 1 rows changed, the clean set has 2 rows" in out
    assert "1 verdicts fit no row: line 3 ('a/9', face 0) is not in the manifest" in out
    assert read_json(result)["round"] == 3
    assert run_command(parser, [*arguments, "--skip-unknown"]) == 0
    assert "nothing to take" in capsys.readouterr().out
