"""Ingest of shards: rows that can be traced, faults named and passed over, and their bound."""

from __future__ import annotations

import io
import json
import tarfile

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.ingest import ingest
from data_tools.ingest_manifest import count_manifest, merge_parts
from data_tools.ingest_part import name_part_file
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.cli.clean_ingest import add_ingest
from facerec.command import build_parser, run_command
from facerec.data.manifest import build_manifest, read_manifest
from facerec.data.recordio import RecordWriter
from facerec.io import read_json

PER_SHARD = 4


def draw(seed):
    """Return an encoded chip."""
    pixels = np.random.default_rng(seed).integers(0, 255, (112, 112, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_shards(root, kind, shards=3):
    """Write chips of two people a shard and return key -> (identity, encoded chip)."""
    root.mkdir()
    truth = {}
    if kind == "recordio":
        with RecordWriter(root / "train.rec", "insightface") as writer:
            for number in range(shards * PER_SHARD):
                data = draw(number)
                key = writer.write(data, number // 2)
                truth[f"train.rec/{key}"] = (f"{number // 2:07d}", data)
        return truth
    for shard in range(shards):
        members, names = [], []
        for picture in range(PER_SHARD):
            key, who = f"{shard:05d}{picture:04d}", f"p{shard}-{picture // 2}"
            names.append((key, who))
            truth[f"{shard:05d}.tar/{key}.png"] = (who, draw(shard * PER_SHARD + picture))
            members.append((f"{key}.png", draw(shard * PER_SHARD + picture)))
            label = {"identity": who} if kind == "webdataset" else {"key": key}
            members.append((f"{key}.json", json.dumps(label).encode()))
        write_tar(root / f"{shard:05d}.tar", members)
        if kind == "img2dataset":
            table = {
                "key": [key for key, _ in names] + [f"{shard:05d}9999"],
                "status": ["success"] * PER_SHARD + ["failed_to_download"],
                "identity": [who for _, who in names] + ["nobody"],
            }
            pq.write_table(pa.table(table), root / f"{shard:05d}.parquet")
    return truth


@pytest.mark.parametrize("kind", ["img2dataset", "webdataset", "recordio"])
def test_each_kind_of_shard_from_end_to_end(tmp_path, kind):
    truth = write_shards(tmp_path / "source", kind)
    out = tmp_path / "set"
    figures = ingest(tmp_path / "source", out, "aligned", part_pictures=5)
    rows = read_manifest(out / "manifest.parquet").to_pylist()
    assert [(row["path"], row["identity"]) for row in rows] == [
        (key, who) for key, (who, _) in truth.items()
    ]
    for row in rows:
        chip = cv2.imread(str(out / row["chip"]))
        data = np.frombuffer(truth[row["path"]][1], np.uint8)
        assert np.array_equal(chip, cv2.imdecode(data, cv2.IMREAD_COLOR))
    assert figures["pictures"] == 12 and figures["identities"] == 6 and figures["faces"] == 12
    assert figures["skipped"] == (3 if kind == "img2dataset" else 0)
    assert figures["faults"] == [] and figures["settings"]["kind"] == kind
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "chips",
        "manifest.parquet",
        "set.json",
    }
    again = ingest(tmp_path / "source", out, "aligned", part_pictures=5)
    assert again["already"] and {**again, "already": False} == figures


def cut_shards(root, numbers):
    for number in numbers:
        path = root / f"{number:05d}.tar"
        path.write_bytes(path.read_bytes()[:60_000])  # in the second picture


def test_a_cut_shard_is_named_and_the_rest_kept(tmp_path):
    truth = write_shards(tmp_path / "source", "webdataset")
    cut_shards(tmp_path / "source", [1])
    figures = ingest(tmp_path / "source", tmp_path / "set", "aligned")
    paths = read_manifest(tmp_path / "set" / "manifest.parquet")["path"].to_pylist()
    lost = [f"00001.tar/00001{n:04d}.png" for n in (1, 2, 3)]
    assert paths == [key for key in truth if key not in lost]
    (fault,) = figures["faults"]
    assert (
        fault["shard"] == "00001.tar" and "cut inside a member; the 1 pictures" in fault["reason"]
    )
    assert read_json(tmp_path / "set" / "set.json")["faults"] == figures["faults"]


def test_a_picture_damaged_inside_a_whole_shard_is_a_row(tmp_path):
    write_shards(tmp_path / "source", "webdataset", 1)
    path = tmp_path / "source" / "00000.tar"
    data = bytearray(path.read_bytes())
    data[512 + 3000 : 512 + 20_000] = bytes(17_000)
    path.write_bytes(data)
    figures = ingest(tmp_path / "source", tmp_path / "set", "aligned")
    assert figures["pictures"] == 4 and figures["unusable"] == 1 and not figures["faults"]


def test_too_many_faults_stop_the_run_and_more_may_be_allowed(tmp_path):
    write_shards(tmp_path / "source", "webdataset", 6)
    cut_shards(tmp_path / "source", [0, 2, 3, 5])
    arguments = (tmp_path / "source", tmp_path / "set", "aligned")
    for bound in (None, 3, 1, 0):
        with pytest.raises(InputError, match=r"of 6 shards of .* first 00000.tar: it was cut"):
            ingest(*arguments, max_faults=bound)
    assert not (tmp_path / "set" / "manifest.parquet").exists()
    figures = ingest(*arguments, max_faults=4)
    assert [fault["shard"][4] for fault in figures["faults"]] == ["0", "2", "3", "5"]
    assert figures["pictures"] == 2 * PER_SHARD + 4


def test_a_source_of_which_nothing_can_be_read_is_refused(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.tar").write_bytes(b"not a tar file")
    with pytest.raises(InputError, match=r"no picture that can be read; a\.tar: it was cut"):
        ingest(source, tmp_path / "set", "aligned")
    write_tar(source / "a.tar", [("notes.txt", b"no picture")])
    with pytest.raises(InputError, match="holds no picture that can be read"):
        ingest(source, tmp_path / "other", "aligned")


def test_another_size_of_a_shard_or_another_column_is_refused(tmp_path):
    write_shards(tmp_path / "source", "webdataset")
    arguments = (tmp_path / "source", tmp_path / "set", "aligned")
    ingest(*arguments)
    with pytest.raises(InputError, match="begun with identity_column None, now it is 'who'"):
        ingest(*arguments, identity_column="who")
    cut_shards(tmp_path / "source", [2])
    with pytest.raises(InputError, match="begun with listing"):
        ingest(*arguments)


def test_the_manifest_has_big_row_groups_whatever_the_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.ingest_manifest.ROW_GROUP", 10)
    blobs = []
    for size in (3, 7, 25):
        folder = SetFolder(tmp_path / str(size))
        rows = [
            {
                "path": f"{n}.png",
                "identity": f"p{n // 4}",
                "sha256": "",
                "width": 0,
                "height": 0,
                "reason": "empty file" if n % 5 else "no face",
            }
            for n in range(25)
        ]
        folder.parts.mkdir(parents=True)
        parts = [rows[start : start + size] for start in range(0, 25, size)]
        for number, part in enumerate(parts):
            pq.write_table(build_manifest(part), name_part_file(folder, number))
        merge_parts(folder, len(parts))
        blobs.append(folder.manifest.read_bytes())
        assert pq.ParquetFile(folder.manifest).num_row_groups == 3
    assert blobs[0] == blobs[1] == blobs[2]
    figures = count_manifest(folder)
    assert figures["pictures"] == 25 and figures["identities"] == 7 and figures["faces"] == 0
    assert list(figures["reasons"].items()) == [("empty file", 20), ("no face", 5)]


def test_the_command_names_faults_on_standard_error(tmp_path, capsys):
    def run(*arguments):
        parser = build_parser("facerec-clean", "", "")
        add_ingest(parser.add_subparsers(required=True))
        return run_command(parser, ["ingest", *map(str, arguments)])

    write_shards(tmp_path / "source", "img2dataset")
    cut_shards(tmp_path / "source", [2])
    out = tmp_path / "set"
    report = tmp_path / "result.json"
    arguments = (tmp_path / "source", out, "--detector", "aligned")
    assert run(*arguments, "--json", report) == 0
    said = capsys.readouterr()
    assert "9 pictures of 5 identities" in said.out and "3 rows of the source" in said.out
    assert "1 faults in the source" in said.err and "00002.tar: it was cut" in said.err
    result = json.loads(report.read_text())
    assert (
        result["faults"][0]["shard"] == "00002.tar" and result["provenance"]["hashes"]["manifest"]
    )
    assert run(*arguments, "--max-faults", "-1") == 2
    assert "max_faults must lie in" in capsys.readouterr().err
