"""Readers of layouts on tiny trees that are made here."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.doc2surv_adapters import read_chokepoint, read_cox, read_ijbs, read_scface
from eval.doc2surv_layout import (
    read_documents,
    read_folders,
    read_people,
    read_track_table,
)
from eval.doc2surv_run import Doc2SurvInputs, read_layout
from eval.doc2surv_simulated import is_simulation, read_simulation
from facerec.checks import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_plain_folders(tmp_path):
    touch(tmp_path, "documents/ann/1.jpg", "documents/ann/note.txt", "documents/bob/1.png")
    touch(tmp_path, "tracks/ann/walk/2.jpg", "tracks/ann/walk/1.jpg", "tracks/ann/lone.jpg",
          "tracks/cy/clip.mp4", "tracks/cy/.hidden/1.jpg", "tracks/cy/empty/x.txt")  # fmt: skip
    layout = read_folders(tmp_path / "documents", tmp_path / "tracks")
    assert [(one.name, one.person) for one in layout.documents] == [
        ("ann/1.jpg", "ann"),
        ("bob/1.png", "bob"),
    ]
    assert [one.name for one in layout.tracks] == ["ann/walk", "ann/lone.jpg", "cy/clip.mp4"]
    assert [path.name for path in layout.tracks[0].pictures] == ["1.jpg", "2.jpg"]
    assert layout.tracks[2].clip == tmp_path / "tracks/cy/clip.mp4"
    write(tmp_path / "people.csv", "person,half,group\nann,dev,f\nbob,test,\n")
    placed = layout.place(read_people(tmp_path / "people.csv"))
    assert [one.half for one in placed.documents] == ["dev", "test"]
    assert [(one.half, one.group) for one in placed.tracks] == [("dev", "f")] * 2 + [("", "")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must be a folder with a folder a person"),
        (["documents/1.jpg", "tracks/a/1.jpg"], "must hold a folder of pictures a person"),
        (["documents/a/1.jpg", "tracks/a/x.txt"], "holds no track"),
    ],
)
def test_folders_of_no_use(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        read_folders(tmp_path / "documents", tmp_path / "tracks")


def test_a_table_of_documents(tmp_path):
    write(tmp_path / "d.csv", "path,identity,split,year\na.jpg,007,dev,2019\nb/c.jpg,8,test,\n")
    first, second = read_documents(tmp_path / "d.csv")
    assert (first.path, first.person, first.half, first.year) == (
        tmp_path / "a.jpg", "007", "dev", 2019.0,
    )  # fmt: skip
    assert second.person == "8" and np.isnan(second.year)
    for text, message in (
        ("path\na.jpg\n", "column 'person' or 'identity'"),
        ("person\na\n", "must have the column 'path'"),
        ("path,person,year\na.jpg,a,soon\n", "a year must be a number"),
    ):
        write(tmp_path / "bad.csv", text)
        with pytest.raises(InputError, match=message):
            read_documents(tmp_path / "bad.csv")


def table(path, rows):
    names = ("video", "track", "person", "frame", "box", "landmarks")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    pq.write_table(pa.table(columns), path)


def test_a_table_of_tracks(tmp_path):
    touch(tmp_path, "videos/v.mp4")
    box, marks = [1.0, 2.0, 30.0, 40.0], [float(i) for i in range(10)]
    rows = [("v.mp4", 2, "bob", 5, box, marks), ("v.mp4", 1, "", 4, box, marks),
            ("v.mp4", 2, "bob", 3, box, marks)]  # fmt: skip
    table(tmp_path / "t.parquet", rows)
    unknown, bob = read_track_table(tmp_path / "t.parquet", tmp_path / "videos")
    assert (unknown.name, unknown.person, bob.person) == ("v.mp4#1", "", "bob")
    assert bob.frames.tolist() == [3, 5] and bob.boxes.shape == (2, 4)
    assert bob.landmarks.shape == (2, 5, 2) and bob.clip == tmp_path / "videos/v.mp4"
    for more, message in (
        (("v.mp4", 2, "ann", 6, box, marks), "has two people"),
        (("v.mp4", 2, "bob", 3, box, marks), "has a frame twice"),
        (("w.mp4", 1, "bob", 3, box, marks), "does not exist"),
        (("v.mp4", 2, "bob", 9, box[:3], marks), "every box must be 4 numbers"),
    ):
        table(tmp_path / "bad.parquet", [*rows, more])
        with pytest.raises(InputError, match=message):
            read_track_table(tmp_path / "bad.parquet", tmp_path / "videos")


def test_people_are_listed_once(tmp_path):
    write(tmp_path / "p.csv", "person,half\na,dev\na,test\n")
    with pytest.raises(InputError, match="twice"):
        read_people(tmp_path / "p.csv")


def test_scface(tmp_path):
    touch(tmp_path, "mugshot_frontal_cropped_all/001_frontal.JPG",
          "mugshot_frontal_original_all/001_frontal.jpg", "mugshot_rotation_all/001_L1.jpg",
          "surveillance_cameras_distance_1/cam_1/001_cam1_1.jpg",
          "surveillance_cameras_all/001_cam1_1.jpg", "surveillance_cameras_all/001_cam5_3.jpg",
          "surveillance_cameras_IR_cam6/001_cam6_2.jpg")  # fmt: skip
    layout = read_scface(tmp_path)
    assert [(one.name, one.person) for one in layout.documents] == [("001_frontal.JPG", "001")]
    assert [(one.name, one.camera) for one in layout.tracks] == [
        ("001_cam1_1.jpg", "camera 1 at 4.20 m"),
        ("001_cam5_3.jpg", "camera 5 at 1.00 m"),
    ]
    assert len(read_scface(tmp_path, infrared=True).tracks) == 3
    assert read_layout(Doc2SurvInputs("scface", tmp_path)) == layout


def test_chokepoint(tmp_path):
    truth = """<dataset name="P1E_S1_C2"><frame number="00000001"/><frame number="00000002">
    <person id="0005"><leftEye x="100" y="50"/><rightEye x="120" y="50"/></person></frame>
    <frame number="00000003"><person id="0005"><leftEye x="1" y="5"/></person></frame></dataset>"""
    write(tmp_path / "groundtruth/P1E_S1_C2.xml", truth)
    touch(tmp_path, *(f"P1E_S1_C2/0000000{i}.jpg" for i in range(4)), "stills/0005/a.png")
    (track,) = read_chokepoint(tmp_path, tmp_path / "stills").tracks
    assert (track.name, track.person, track.camera) == ("P1E_S1_C2/0005", "0005", "camera 2")
    assert [path.name for path in track.pictures] == ["00000002.jpg"]
    np.testing.assert_allclose(track.boxes, [[87.4, 31.92, 132.6, 77.12]], atol=1e-3)
    with pytest.raises(InputError, match="give stills with --documents"):
        read_layout(Doc2SurvInputs("chokepoint", tmp_path))
    write(tmp_path / "groundtruth/P1E_S1_C3.xml", "<dataset")
    with pytest.raises(InputError, match="must hold the frames"):
        read_chokepoint(tmp_path, tmp_path / "stills")
    touch(tmp_path, "P1E_S1_C3/00000000.jpg")
    with pytest.raises(InputError, match="must be XML"):
        read_chokepoint(tmp_path, tmp_path / "stills")
    with pytest.raises(InputError, match="must hold the ground truth"):
        read_chokepoint(tmp_path / "stills", tmp_path / "stills")


def test_cox(tmp_path):
    touch(tmp_path, "data/still/20110001.jpg", "data/still/20110002_0000.JPG",
          "data/video/cam1/20110001/2.jpg", "data/video/cam1/20110001/1.jpg",
          "data/video/cam3/20110002/1.jpg")  # fmt: skip
    layout = read_cox(tmp_path)
    assert [one.person for one in layout.documents] == ["20110001", "20110002"]
    assert [(one.name, one.camera, len(one.pictures)) for one in layout.tracks] == [
        ("cam1/20110001", "cam1", 2),
        ("cam3/20110002", "cam3", 1),
    ]
    with pytest.raises(InputError, match="folders 'still' and 'video'"):
        read_cox(tmp_path / "data" / "still")


def test_ijbs_style(tmp_path):
    galleries = tmp_path / "protocols/galleries"
    for number, subject in (("g1", 4), ("g2", 9)):
        write(galleries / f"cs6_surveillance_to_booking_{number}.csv",
              f"TEMPLATE_ID,SUBJECT_ID,FILENAME\n1,{subject},img/{subject}a.jpg\n"
              f"1,{subject},img/{subject}b.jpg\n")  # fmt: skip
    write(tmp_path / "protocols/cs6_surveillance_to_single-booking_probe.csv",
          "FILENAME\nvideos/1.mp4\n")  # fmt: skip
    rows = ["SUBJECT_ID,FILENAME,FRAME_NUM,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT",
            "4,videos/1.mp4,7,10,20,30,40", "4,videos/1.mp4,3,10,20,30,40",
            "9,videos/1.mp4,3,1,2,3,4", "9,videos/2.mp4,3,1,2,3,4",
            "5,videos/1.mp4,3,1,2,3,4"]  # fmt: skip
    write(tmp_path / "protocols/cs6_metadata.csv", "\n".join(rows) + "\n")
    layout = read_ijbs(tmp_path)
    assert [(one.person, one.half) for one in layout.documents] == [("4", "dev")] * 2 + [
        ("9", "test")
    ] * 2
    assert [(one.person, one.half) for one in layout.tracks] == [("4", "dev"), ("9", "test")]
    assert layout.tracks[0].frames.tolist() == [3, 7]
    assert layout.tracks[0].boxes[0].tolist() == [10, 20, 40, 60]
    with pytest.raises(InputError, match="booking or single"):
        read_ijbs(tmp_path, "all")
    write(tmp_path / "protocols/cs6_metadata.csv", "SUBJECT_ID,FILENAME\n4,videos/1.mp4\n")
    with pytest.raises(InputError, match="must have the column FRAME or FRAME_NUM"):
        read_ijbs(tmp_path)


def test_a_simulation(tmp_path):
    record = {"complete": True, "note": "simulated"}
    write(tmp_path / "simulation.json", json.dumps(record))
    touch(tmp_path, "documents/ann/0.png", "documents/dot/0.png", "videos/v.mp4")
    people = {
        "person": ["ann", "cy", "dot"],
        "half": ["dev", "test", "test"],
        "role": ["enrolled", "unknown", "document only"],
    }
    pq.write_table(pa.table(people), tmp_path / "people.parquet")
    box, marks = [1.0, 2.0, 30.0, 40.0], [float(i) for i in range(10)]
    rows = [("v.mp4", i, person, 0, box, marks) for i, person in enumerate(("ann", "cy"))]
    table(tmp_path / "tracks.parquet", rows)
    assert is_simulation(tmp_path)
    layout = read_simulation(tmp_path)
    assert layout.simulated and "imulated" in layout.notes[0]
    assert [(one.person, one.half) for one in layout.documents] == [("ann", "dev"), ("dot", "test")]
    assert [(one.person, one.half) for one in layout.tracks] == [("ann", "dev"), ("cy", "test")]
    assert set(layout.hashes) == {"tracks.parquet", "people.parquet", "simulation.json"}
    (tmp_path / "documents/ann/0.png").unlink()
    with pytest.raises(InputError, match="is missing; run facerec-eval simulate again"):
        read_simulation(tmp_path)
    write(tmp_path / "simulation.json", json.dumps({"complete": False}))
    with pytest.raises(InputError, match="is not complete"):
        read_simulation(tmp_path)
    with pytest.raises(InputError, match=r"with simulation\.json"):
        read_simulation(tmp_path / "videos")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"layout": "cox"}, "needs the folder of the set"),
        ({}, "needs --documents and --tracks"),
        ({"layout": "folder"}, "did you mean 'folders'"),
    ],
)
def test_inputs_that_say_too_little(inputs, message):
    with pytest.raises(InputError, match=message):
        read_layout(Doc2SurvInputs(**inputs))
