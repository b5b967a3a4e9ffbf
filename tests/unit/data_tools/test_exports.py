"""Exports: what lies at the destination, what is left out, and that nothing is written over."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_tools.decisions import Decision, append_round, read_log, undo_last
from data_tools.exports import export_set
from data_tools.sets import SetFolder, read_info
from facerec.checks import InputError
from facerec.cli.clean_log import add_log
from facerec.command import build_parser, run_command
from facerec.data.manifest import build_manifest, write_manifest
from facerec.data.record_index import read_records
from facerec.data.recordio import unframe, unpack
from facerec.data.tars import read_tars
from facerec.io import read_json, sha256_bytes, sha256_file, write_json

PEOPLE = {"Zoë": 3, "a b": 2, "": 2, "..": 1}


@pytest.fixture
def folder(tmp_path):
    """Return a set of eight chips: one dropped, one that "a b" has twice and "Zoë" once."""
    folder = SetFolder(tmp_path / "set")
    write_json(folder.info, {"format": 1, "settings": {}, "stages": []})
    names = [name for name, count in PEOPLE.items() for _ in range(count)]
    shown = [*range(len(names)), 0, 3]
    rows = []
    for number, (name, picture) in enumerate(zip([*names, "a b", "a b"], shown, strict=True)):
        chip = np.full((112, 112, 3), picture * 20, np.uint8)
        data = cv2.imencode(".png", chip)[1].tobytes()
        place = f"chips/{sha256_bytes(data)[:2]}/{sha256_bytes(data)[:16]}-0.png"
        (folder.root / place).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / place).write_bytes(data)
        row = {"path": f"x/{number}.png", "identity": name, "sha256": sha256_bytes(data)}
        row |= {"width": 9, "height": 9, "box": [0, 0, 9, 9], "landmarks": [1] * 10}
        rows.append({**row, "det_score": 1.0, "faces": 1, "chip": place, "split": "train"})
    write_manifest(build_manifest(rows), folder.manifest)
    gone = Decision("", "x/2.png", 0, 0, "c", "drop", "Zoë", None, None, None, "", "")
    append_round(folder.log, [gone], {})
    return folder


def run(*arguments):
    parser = build_parser("facerec-clean", "", "")
    add_log(parser.add_subparsers(dest="command", required=True))
    return run_command(parser, [str(argument) for argument in arguments])


def read_labels(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {row["identity"]: int(row["label"]) for row in csv.DictReader(file)}


def hash_chips(folder, identity):
    """Return the hashes of the chips that an identity has in the clean set."""
    table = pq.read_table(folder.clean, filters=[("identity", "==", identity)])
    return sorted({sha256_file(folder.root / chip) for chip in table["chip"].to_pylist()})


def test_folders_of_hard_links(folder, tmp_path):
    figures = export_set(folder.root, tmp_path / "out")
    made = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").glob("*/*"))
    assert {path.parent.name for path in made} == {"Zo%C3%AB", "a b", "_unlabelled", "%2E."}
    assert figures["files"] == len(made) == 8 and figures["repeated"] == 1
    assert (figures["rows"], figures["identities"]) == (9, 3)
    one = next(iter((tmp_path / "out").glob("a b/*")))
    assert one.stat().st_nlink > 1
    assert figures["sha256"] == {"clean": sha256_file(folder.clean)}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_for_the_source(folder, tmp_path, suffix):
    place = tmp_path / f"list{suffix}"
    figures = export_set(folder.root, place)
    if suffix == ".csv":
        with place.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pq.read_table(place).to_pylist()
    assert [row["path"] for row in rows] == [f"x/{n}.png" for n in range(10) if n != 2]
    assert rows[0] == {"path": "x/0.png", "identity": "Zoë", "split": "train"}
    assert figures["kind"] == "list" and figures["sha256"][place.name] == sha256_file(place)


def test_parquet_has_every_column_and_labels_by_the_names_order(folder, tmp_path):
    export_set(folder.root, tmp_path / "rows.parquet", "parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    clean = pq.read_table(folder.clean)
    assert table.select(clean.column_names).equals(clean.replace_schema_metadata(None))
    labels = dict(zip(table["identity"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert labels == {"..": 0, "Zoë": 1, "a b": 2, "": -1}


def test_records_hold_each_identitys_chips_once(folder, tmp_path):
    figures = export_set(folder.root, tmp_path / "rec", "recordio")
    assert sorted(path.name for path in (tmp_path / "rec").iterdir()) == [
        "labels.csv",
        "property",
        "train.idx",
        "train.rec",
    ]
    assert (tmp_path / "rec" / "property").read_text() == "3,112,112\n"
    labels = read_labels(tmp_path / "rec" / "labels.csv")
    assert labels == {"..": 0, "Zoë": 1, "a b": 2}
    index = read_records(tmp_path / "rec")
    found = {}
    data = index.path.read_bytes()
    for label, offset in zip(index.labels.tolist(), index.offsets.tolist(), strict=True):
        image = unpack(unframe(data[offset:])).image
        found.setdefault(label, []).append(sha256_bytes(image))
    assert {n: sorted(hashes) for n, hashes in found.items()} == {
        label: hash_chips(folder, name) for name, label in labels.items()
    }
    assert (figures["written"], figures["repeated"], figures["unlabelled"]) == (6, 1, 2)
    assert figures["layout"] == "insightface"
    assert set(figures["sha256"]) == {"clean", "train.rec", "train.idx", "property", "labels.csv"}


def test_webdataset_shards_name_the_people_and_are_shuffled_by_the_seed(folder, tmp_path):
    figures = export_set(folder.root, tmp_path / "tars", "webdataset", seed=1)
    index = read_tars(tmp_path / "tars")
    assert sorted(index.identities) == sorted(["..", "Zoë", "Zoë", "a b", "a b", "a b"])
    for number, name in enumerate(index.identities):
        assert sha256_bytes(index.chips.read_bytes(number)) in hash_chips(folder, name)
    assert read_labels(tmp_path / "tars" / "labels.csv") == {"..": 0, "Zoë": 1, "a b": 2}
    again = export_set(folder.root, tmp_path / "again", "webdataset", seed=1)
    other = export_set(folder.root, tmp_path / "other", "webdataset", seed=2)
    assert again["sha256"] == figures["sha256"] != other["sha256"]


@pytest.mark.parametrize("kind", ["folder", "list", "parquet", "recordio", "webdataset"])
def test_nothing_is_written_over_and_a_missing_chip_leaves_nothing(folder, tmp_path, kind):
    place = tmp_path / ("out.parquet" if kind in ("list", "parquet") else "out")
    if place.suffix:
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").touch()
    with pytest.raises(InputError, match="exists"):
        export_set(folder.root, place, kind)
    if place.suffix:
        return
    before = sorted(tmp_path.iterdir())
    next((folder.root / "chips").rglob("*.png")).unlink()
    with pytest.raises(InputError, match="is missing; ingest the source again"):
        export_set(folder.root, tmp_path / "new", kind)
    assert sorted(tmp_path.iterdir()) == before


def test_a_place_in_the_set_and_a_set_that_was_never_cleaned_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="must lie outside the set"):
        export_set(folder.root, folder.root / "out")
    with pytest.raises(InputError, match=r"must end in \.parquet"):
        export_set(folder.root, tmp_path / "rows.csv", "parquet")
    folder.log.unlink()
    with pytest.raises(InputError, match="is not cleaned yet"):
        export_set(folder.root, tmp_path / "out")


def test_a_stale_clean_set_is_written_anew_and_the_export_is_noted(folder, tmp_path):
    export_set(folder.root, tmp_path / "one.csv")
    undo_last(folder.log)  # killed before the clean set was written
    figures = export_set(folder.root, tmp_path / "two.csv")
    assert figures["rows"] == 10 and read_log(folder.log).active == []
    stages = read_info(folder)["stages"]
    assert [Path(stage["destination"]).name for stage in stages] == ["one.csv", "two.csv"]


def test_copies_where_links_cannot_be_made(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "another disk")

    monkeypatch.setattr("data_tools.export_places.os.link", refuse)
    assert export_set(folder.root, tmp_path / "out")["files"] == 8
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "out").rglob("*.png"))


def test_the_command_prints_and_writes_hashes(folder, tmp_path, capsys):
    result = tmp_path / "result.json"
    place = tmp_path / "rec"
    assert run("export", folder.root, place, "--kind", "recordio", "--json", result) == 0
    assert "9 rows of 3 identities" in (out := capsys.readouterr().out)
    assert "1 repeated pictures left out, 2 without a name" in out
    found = read_json(result)
    assert found["sha256"]["train.rec"] == sha256_file(place / "train.rec")
    assert found["provenance"]["hashes"]["decisions"] == sha256_file(folder.log)
    assert run("export", folder.root, place) == 2
