"""Ingest: the source untouched, parts resumed after kill -9, every file with a row."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_tools.ingest import ingest
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError
from facerec.data.manifest import read_manifest
from facerec.io import read_json

REPOSITORY = Path(__file__).resolve().parents[3]


def write_source(root, people=4, images=4):
    rng = np.random.default_rng(0)
    for person in range(people):
        folder = root / f"p{person}"
        folder.mkdir(parents=True)
        for image in range(images):
            pixels = rng.integers(0, 255, (112, 112, 3), np.uint8)
            cv2.imwrite(str(folder / f"{image}.png"), pixels)
    (root / "p0" / "empty.jpg").write_bytes(b"")
    (root / "p0" / "text.jpg").write_bytes(b"no picture at all")
    cv2.imwrite(str(root / "p1" / "wide.png"), np.zeros((90, 120, 3), np.uint8))
    # The same bytes in two folders.
    (root / "p2" / "copy.png").write_bytes((root / "p1" / "0.png").read_bytes())
    return root


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


def hash_tree(root):
    """Return path -> (hash, size, mtime) of everything under a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.stat()
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[path.relative_to(root).as_posix()] = (data, status.st_size, status.st_mtime_ns)
    return found


def hash_set(root):
    """Return what an ingest leaves, without times and locks."""
    chips = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / "chips").rglob("*"))
        if path.is_file()
    }
    left = sorted(path.name for path in root.iterdir())
    return pq.read_table(root / "manifest.parquet").to_pylist(), chips, left


def test_every_file_has_a_row_and_the_source_is_untouched(source, tmp_path):
    before = hash_tree(source)
    figures = ingest(source, tmp_path / "set", "aligned")
    assert hash_tree(source) == before
    assert figures["pictures"] == 20 and figures["faces"] == 17 and figures["unusable"] == 3
    assert figures["identities"] == 4 and not figures["already"]
    assert sum(figures["reasons"].values()) == 3 and "empty file" in figures["reasons"]
    table = read_manifest(tmp_path / "set" / "manifest.parquet")
    rows = {row["path"]: row for row in table.to_pylist()}
    assert rows["p2/copy.png"]["image_id"] == rows["p1/0.png"]["image_id"]
    assert rows["p2/copy.png"]["identity"] == "p2" and rows["p2/copy.png"]["chip"]
    chip = cv2.imread(str(tmp_path / "set" / rows["p1/0.png"]["chip"]))
    assert np.array_equal(chip, cv2.imread(str(source / "p1" / "0.png")))
    image_id = rows["p1/0.png"]["image_id"]
    assert rows["p1/0.png"]["chip"] == f"chips/{image_id[:2]}/{image_id}-0.png"
    assert not (tmp_path / "set" / "parts").exists()


def test_part_size_does_not_change_the_result(source, tmp_path):
    ingest(source, tmp_path / "one", "aligned", part_pictures=3)
    ingest(source, tmp_path / "two", "aligned", part_pictures=1000, threads=1)
    assert hash_set(tmp_path / "one") == hash_set(tmp_path / "two")


def test_again_does_nothing_and_other_settings_are_refused(source, tmp_path):
    out = tmp_path / "set"
    ingest(source, out, "aligned")
    before = hash_tree(out)
    assert ingest(source, out, "aligned")["already"]
    after = hash_tree(out)
    assert {name: value[0] for name, value in before.items() if name != ".lock"} == {
        name: value[0] for name, value in after.items() if name != ".lock"
    }
    with pytest.raises(InputError, match="begun with policy 'largest', now it is 'all'"):
        ingest(source, out, "aligned", policy="all")
    (source / "p3" / "new.png").write_bytes((source / "p3" / "0.png").read_bytes())
    with pytest.raises(InputError, match="begun with listing"):
        ingest(source, out, "aligned")


def test_places_that_would_be_harmed_are_refused(source, tmp_path):
    for out in (source, source / "set", tmp_path):
        with pytest.raises(InputError, match="must lie apart"):
            ingest(source, out, "aligned")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        ingest(source, other, "aligned")
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        ingest(tmp_path / "empty", tmp_path / "set", "aligned")
    with pytest.raises(InputError, match="does not exist"):
        ingest(tmp_path / "nowhere", tmp_path / "set", "aligned")
    assert not (tmp_path / "set").exists()


def test_a_list_and_jpeg_chips(source, tmp_path):
    lines = ["path,identity,split", "p0/0.png,ann,train", "p1/1.png,bob,test"]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    figures = ingest(
        tmp_path / "list.csv", tmp_path / "set", "aligned", root=source, chip_format="jpg"
    )
    rows = read_manifest(tmp_path / "set" / "manifest.parquet").to_pylist()
    assert [(row["identity"], row["split"]) for row in rows] == [("ann", "train"), ("bob", "test")]
    assert (
        all(row["chip"].endswith(".jpg") for row in rows) and figures["settings"]["kind"] == "list"
    )


def test_side_car_faces_of_equal_bytes_get_chips_of_their_own(source, tmp_path):
    names = ["key", "x1", "y1", "x2", "y2", *(f"l{a}{n}" for n in range(1, 6) for a in "xy")]
    points = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], float)
    lines = [",".join(names)]
    for key, shift in (("p1/0.png", 0), ("p2/copy.png", 6)):
        values = [10, 10, 100, 100, *(points + shift).ravel()]
        lines.append(",".join([key, *map(str, values)]))
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    ingest(source, tmp_path / "set", f"annotations:{tmp_path / 'faces.csv'}")
    table = read_manifest(tmp_path / "set" / "manifest.parquet")
    chips = {row["path"]: row["chip"] for row in table.to_pylist() if row["chip"]}
    assert set(chips) == {"p1/0.png", "p2/copy.png"} and len(set(chips.values())) == 2
    assert table["reason"].to_pylist().count("no face") == 16


KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from data_tools.ingest import ingest
place, call, after = sys.argv[3], int(sys.argv[4]), sys.argv[5] == "after"
name = place.rpartition(".")[2]
module = importlib.import_module("data_tools." + place.rpartition(".")[0])
real, calls = getattr(module, name), [0]
def dying(*arguments, **named):
    calls[0] += 1
    if calls[0] == call and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if calls[0] == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(module, name, dying)
ingest(Path(sys.argv[1]), Path(sys.argv[2]), "aligned", part_pictures=4)
"""


@pytest.mark.parametrize(
    ("where", "call", "when"),
    [
        ("ingest_part._write_chip", 7, "after"),
        ("ingest_part._write_part", 3, "before"),
        ("ingest.merge_parts", 1, "after"),
    ],
)
def test_kill_9_then_the_same_command_gives_the_undisturbed_set(
    source, tmp_path, where, call, when
):
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", KILLED, str(source), str(out), where, str(call), when]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr.decode()
    parts = len(list((out / "parts").glob("part-*.parquet")))
    if where != "ingest.merge_parts":
        with pytest.raises(InputError, match="not ingested to its end"):
            open_set(out)
        (out / ".manifest.abc.parquet").write_bytes(b"torn")
        (out / "parts" / ".part-00001.abc.parquet").write_bytes(b"torn")
        assert parts == 2
    ingest(source, out, "aligned", part_pictures=4)
    ingest(source, tmp_path / "whole", "aligned", part_pictures=4)
    assert hash_set(out) == hash_set(tmp_path / "whole")
    stages = read_json(out / "set.json")["stages"]
    assert [stage["stage"] for stage in stages] == ["ingest"] and stages[0]["count"] == 20


def test_a_damaged_part_is_named(source, tmp_path):
    out = tmp_path / "set"
    ingest(source, out, "aligned", part_pictures=8)
    (out / "manifest.parquet").unlink()
    (out / "parts").mkdir()
    (out / "parts" / "part-00000.parquet").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"part-00000.parquet is damaged; delete it"):
        ingest(source, out, "aligned", part_pictures=8)


HOLDER = """
import sys
from pathlib import Path
from data_tools.sets import SetFolder
with SetFolder(Path(sys.argv[1])).lock("run"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_two_processes_refuse_each_other_and_a_killed_one_lets_go(source, tmp_path):
    out = tmp_path / "set"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(
            InputError, match=rf"in use by process {holder.pid} \(facerec-clean run"
        ):
            ingest(source, out, "aligned")
        holder.kill()
    assert ingest(source, out, "aligned")["faces"] == 17
    with SetFolder(out).lock("run"), pytest.raises(InputError, match=f"process {os.getpid()}"):
        ingest(source, out, "aligned")


def test_bad_threads_leave_no_set(source, tmp_path):
    with pytest.raises(InputError, match="threads"):
        ingest(source, tmp_path / "out", "aligned", threads=0)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_half_chip(source, tmp_path, monkeypatch):
    def fail(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        full.setattr(Path, "write_bytes", fail)
        ingest(source, tmp_path / "out", "aligned")
    chips = tmp_path / "out" / "chips"
    assert not [file for file in chips.rglob("*") if file.is_file()]
    assert ingest(source, tmp_path / "out", "aligned")["faces"] > 0
